//! The record that is judged, read as data: from which address to ask, and which router. PURE.
//!
//! Mostly it is the lease that the DHCP client has published. Any other record of the interface
//! that has a router serves as well: one of another program (PPP), or the administrator's own. What
//! a server sent is in it, so nothing is believed. Called by watch.rs; `man 5 ipconf` says what the
//! words mean.

use std::net::Ipv4Addr;

use netd_core::net::{IfName, is_host};
use netd_core::record::{self, Author, Network, Now, text::Record};

/// What probes need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Our address.
    pub(crate) ip: Ipv4Addr,
    /// The router that the default route goes through; `None`: there is none to ask.
    pub(crate) router: Option<Ipv4Addr>,
}

/// What is judged of `iface`: the lease in `named`, when it has a router; else the first record
/// among `others` with a router; else the first one with a default route that needs no router
/// (point to point links), and at last a lease in `named` without a router. A record that has
/// ended, or was counted in another boot, is none.
pub(crate) fn choose(named: &[Record], others: &[Record], iface: &IfName, now: &Now) -> Option<Lease> {
    let of_iface = |r: &&Record| record::interface(r).is_ok_and(|name| name == *iface);
    let network = |r| Network::parse(r, Author::Program).ok().map(|(network, _)| network);
    let read = |network: &Network| network.uplink(now).map(|(ip, router)| Lease { ip, router });
    let named: Vec<Network> = named.iter().filter(of_iface).filter_map(network).collect();
    let others: Vec<Network> = others.iter().filter(of_iface).filter_map(network).collect();
    let all = || named.iter().chain(&others);
    let leads_out = |n: &&Network| n.hops().iter().any(|hop| hop.destination.is_default());
    let with_router = all().filter_map(read).find(|lease| lease.router.is_some());
    with_router.or_else(|| all().filter(leads_out).find_map(read)).or_else(|| named.iter().find_map(read))
}

/// An address that one station can have.
pub(crate) fn host(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok().filter(|ip| is_host(*ip))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lease(fields: &[(&str, &str)]) -> Option<(String, String)> {
        let base = [("if", "eth0"), ("ipmask", "192.0.2.100/24"), ("gw", "192.0.2.1")];
        let record = base.iter().chain(fields).fold(Record::new(), |r, (k, v)| r.with(k, *v));
        let now = Now { boottime: Duration::from_secs(100), boot_id: "abcd".into(), ..Now::default() };
        show(choose(&[Record::new().with("if", "eth1"), record], &[], &IfName::parse("eth0").unwrap(), &now))
    }

    fn show(lease: Option<Lease>) -> Option<(String, String)> {
        lease.map(|l| (l.ip.to_string(), l.router.map_or("-".into(), |r| r.to_string())))
    }

    #[test]
    fn which_of_several_records_is_judged() {
        let record = |fields: &str| {
            let fields = fields.split(' ').filter_map(|f| f.split_once('='));
            fields.fold(Record::new(), |r, (k, v)| r.with(k, v))
        };
        let iface = IfName::parse("eth0").unwrap();
        let lease = "if=eth0 ipmask=192.0.2.100/24 gw=192.0.2.1";
        let fixed = "if=eth0 ipmask=198.51.100.9/24 gw=198.51.100.1";
        let alone = "if=eth0 ipmask=192.0.2.100/24";
        let link_local = "if=eth0 ipmask=169.254.3.4/16 scope=link";
        let ppp = "if=eth0 ipmask=203.0.113.7/32 net=0/0 scope=link";
        // The named record, the others; the address and the router that are judged.
        type Row<'a> = (&'a [&'a str], &'a [&'a str], Option<(&'a str, &'a str)>);
        let table: &[Row] = &[
            (&[lease], &[fixed], Some(("192.0.2.100", "192.0.2.1"))),
            (&[], &[link_local, fixed], Some(("198.51.100.9", "198.51.100.1"))),
            (&[alone], &[link_local, fixed], Some(("198.51.100.9", "198.51.100.1"))),
            (&[alone], &[link_local], Some(("192.0.2.100", "-"))),
            (&[alone], &[ppp], Some(("203.0.113.7", "-"))),
            (
                &[],
                &["if=eth1 ipmask=10.0.0.2/24 gw=10.0.0.1", "if=eth0 health=down", fixed],
                Some(("198.51.100.9", "198.51.100.1")),
            ),
            (&[], &[fixed, "if=eth0 ipmask=198.51.100.9/24 gw=198.51.100.2"], Some(("198.51.100.9", "198.51.100.1"))),
            // A LAN, or an address that zcip has chosen, is no uplink.
            (&[], &[alone, link_local], None),
            (&[], &[], None),
        ];
        for (named, others, want) in table {
            let [named, others] = [named, others].map(|list| list.iter().map(|f| record(f)).collect::<Vec<_>>());
            let want = want.map(|(ip, router)| (ip.to_owned(), router.to_owned()));
            assert_eq!(show(choose(&named, &others, &iface, &Now::default())), want, "{named:?} {others:?}");
        }
    }

    type Fields = &'static [(&'static str, &'static str)];

    #[test]
    fn what_a_record_says() {
        let table: &[(Fields, Option<(&str, &str)>)] = &[
            (&[], Some(("192.0.2.100", "192.0.2.1"))),
            (&[("gw", "192.0.2.1 192.0.2.2")], Some(("192.0.2.100", "192.0.2.1"))),
            (&[("gw", "0.0.0.0 x;reboot 192.0.2.2")], Some(("192.0.2.100", "192.0.2.2"))),
            (&[("gw", "")], Some(("192.0.2.100", "-"))),
            (&[("gw", "255.255.255.255")], Some(("192.0.2.100", "-"))),
            (&[("gw", "192.0.2.100")], Some(("192.0.2.100", "-"))),
            (&[("routes", "")], Some(("192.0.2.100", "192.0.2.1"))),
            (&[("routes", "10.0.0.0/8 192.0.2.7")], Some(("192.0.2.100", "-"))),
            (&[("routes", "10.0.0.0/8 192.0.2.7 0.0.0.0/0 192.0.2.9")], Some(("192.0.2.100", "192.0.2.9"))),
            (&[("routes", "0.0.0.0/0 0.0.0.0")], Some(("192.0.2.100", "192.0.2.1"))),
            (&[("net", "10/8")], Some(("192.0.2.100", "-"))),
            (&[("ipmask", "")], None),
            (&[("ipmask", "224.0.0.1/4")], None),
            (&[("ipmask", "2001:db8::1/64")], None),
            (&[("if", "eth2")], None),
            (&[("lease_end_boottime", "101"), ("boot_id", "abcd")], Some(("192.0.2.100", "192.0.2.1"))),
            (&[("lease_end_boottime", "100.5")], None),
            (&[("lease_end_boottime", "101"), ("boot_id", "0123")], None),
            (&[("boot_id", "0123")], Some(("192.0.2.100", "192.0.2.1"))),
            (&[("health", "odd")], None),
        ];
        for (fields, want) in table {
            let want = want.map(|(ip, router)| (ip.to_owned(), router.to_owned()));
            assert_eq!(lease(fields), want, "{fields:?}");
        }
    }
}

//! The published lease, read as data: from which address to ask, and which router. PURE.
//!
//! The record was written by the DHCP client, or by another program that publishes for the
//! interface; what a server sent is in it, so nothing is believed. Called by watch.rs; `man 5
//! ipconf` says what the words mean.

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

/// The lease of `iface` among `records`. One that has ended, or was counted in another boot, is
/// none.
pub(crate) fn read(records: &[Record], iface: &IfName, now: &Now) -> Option<Lease> {
    let record = records.iter().find(|r| record::interface(r).is_ok_and(|name| name == *iface))?;
    let (network, _) = Network::parse(record, Author::Program).ok()?;
    network.uplink(now).map(|(ip, router)| Lease { ip, router })
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
        let lease = read(&[Record::new().with("if", "eth1"), record], &IfName::parse("eth0").unwrap(), &now)?;
        Some((lease.ip.to_string(), lease.router.map_or("-".into(), |r| r.to_string())))
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

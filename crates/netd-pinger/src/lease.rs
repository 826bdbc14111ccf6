//! The published lease, read as data: from which address to ask, and which router. PURE.
//!
//! The record was written by the DHCP client, or by whoever else publishes for the interface; what a server sent is in it,
//! so nothing is believed. Called by watch.rs; `man 5 ipconf` says what the words mean.

use std::net::Ipv4Addr;
use std::time::Duration;

use netd_core::net::is_host;
use netd_core::record::text::Record;

/// What probes need to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Our address.
    pub(crate) ip: Ipv4Addr,
    /// The router that the default route goes through; `None`: there is none to ask.
    pub(crate) router: Option<Ipv4Addr>,
}

/// The lease of `iface` among `records`. One that has ended, or was counted in another boot, is none.
pub(crate) fn read(records: &[Record], iface: &str, boot_id: &str, now: Duration) -> Option<Lease> {
    let record = records.iter().find(|r| r.get("if") == Some(iface))?;
    let other_boot = record.get("boot_id").is_some_and(|id| !id.is_empty() && !boot_id.is_empty() && id != boot_id);
    let end = record.get("lease_end_boottime").and_then(|secs| secs.split('.').next()?.parse().ok());
    if other_boot || end.is_some_and(|secs| Duration::from_secs(secs) <= now) {
        return None;
    }
    let ip = record.get("ipmask").and_then(|text| text.split('/').next()).and_then(host)?;
    Some(Lease { ip, router: router(record).filter(|r| *r != ip) })
}

/// ipconf(5): where there are routes, they stand in place of the routers (RFC 3442), and the router of a default route among them
/// counts. Else the first of the routers counts.
fn router(record: &Record) -> Option<Ipv4Addr> {
    let words: Vec<&str> = record.get("routes").unwrap_or_default().split_ascii_whitespace().collect();
    match words.as_chunks::<2>().0 {
        [] => record.get("gw").unwrap_or_default().split_ascii_whitespace().find_map(host),
        routes => {
            let default = routes.iter().find(|[net, _]| matches!(*net, "0.0.0.0/0" | "0/0"));
            default.and_then(|[_, gateway]| host(gateway))
        }
    }
}

/// An address that one station can have.
pub(crate) fn host(text: &str) -> Option<Ipv4Addr> {
    text.parse().ok().filter(|ip| is_host(*ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(fields: &[(&str, &str)]) -> Option<(String, String)> {
        let base = Record::new().with("if", "eth0").with("ipmask", "192.0.2.100/24").with("gw", "192.0.2.1");
        let record = fields.iter().fold(base, |r, (k, v)| r.with(k, *v));
        let lease = read(&[Record::new().with("if", "eth1"), record], "eth0", "abcd", Duration::from_secs(100))?;
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
            (&[("routes", "0.0.0.0/0 0.0.0.0")], Some(("192.0.2.100", "-"))),
            (&[("ipmask", "")], None),
            (&[("ipmask", "224.0.0.1/4")], None),
            (&[("ipmask", "2001:db8::1/64")], None),
            (&[("if", "eth2")], None),
            (&[("lease_end_boottime", "101"), ("boot_id", "abcd")], Some(("192.0.2.100", "192.0.2.1"))),
            (&[("lease_end_boottime", "100.5")], None),
            (&[("boot_id", "0123")], None),
        ];
        for (fields, want) in table {
            let want = want.map(|(ip, router)| (ip.to_owned(), router.to_owned()));
            assert_eq!(lease(fields), want, "{fields:?}");
        }
    }
}

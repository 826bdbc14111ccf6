//! One `*.ipconf` record, understood: its words become typed values, and wrong ones are named.
//!
//! Pure. A record whose own configuration is wrong (`if ipmask gw net metric ...`) makes its file malformed; a wrong
//! word among what a DHCP server sends on the side (`dns domain search mtu routes`) is left out and reported, so that
//! one bad option does not cost the lease. Called by input/files.rs; want.rs makes a `Want` of it. `man 5 ipconf` is the
//! users' version.

use std::net::{IpAddr, Ipv4Addr};

use netd_core::net::{DomainName, IfName};
use netd_core::record::text::Record;

use crate::model::{self, Prefix, Scope, TABLE_MAIN};

/// RFC 791: every host takes 576 bytes; a DHCP server that asks for less is broken or hostile.
const MTU_MIN: u32 = 576;
/// Words of `dns`, `search`, `dnsmasq` and `routes` that are read.
const MAX_WORDS: usize = 64;

/// Where a route leads and through which router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Destination network.
    pub destination: Prefix,
    /// Router; `None`: on the link.
    pub gateway: Option<IpAddr>,
}

/// A record's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Comes from the static directory.
    pub is_static: bool,
    /// File and line, for messages.
    pub origin: String,
    /// Interface.
    pub interface: String,
    /// Its address.
    pub address: Option<Prefix>,
    /// IPv4 broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// Scope of the address.
    pub scope: Option<Scope>,
    /// Routes: of `routes` when it has any (RFC 3442), else of `gw` and `net`.
    pub hops: Vec<Hop>,
    /// Metric of its routes.
    pub metric: Option<u32>,
    /// Table of its routes.
    pub table: u32,
    /// Preferred source of its routes.
    pub source: Option<IpAddr>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Only records with the highest one count.
    pub dns_prio: i64,
    /// Lines for dnsmasq in place of `dns`.
    pub dnsmasq: Vec<String>,
    /// Domain of this host.
    pub domain: Option<String>,
    /// Domains to search.
    pub search: Vec<String>,
    /// `Some(false)`: the link watcher or the pinger says that this uplink is bad.
    pub healthy: Option<bool>,
    /// End of the lease, CLOCK_BOOTTIME seconds.
    pub lease_end_boottime: Option<u64>,
    /// End of the lease, Unix seconds.
    pub lease_end: Option<u64>,
    /// The boot that `lease_end_boottime` counts from.
    pub boot_id: Option<String>,
}

/// A record, and the words of it that were left out.
pub type Read = Result<(Entry, Vec<String>), String>;

/// Understands a record. `Err`: the record cannot be used.
pub fn read(record: &Record, is_static: bool, origin: String) -> Read {
    let interface = filled(record, "if").ok_or("record without `if`")?;
    if IfName::parse(interface).is_none() {
        return Err(bad("if", interface));
    }
    let mut dropped = Vec::new();
    let address = parsed(record, "ipmask", interface_address)?;
    let gateway = parsed(record, "gw", |v| v.parse::<IpAddr>().ok())?.filter(|g| !g.is_unspecified());
    let net = parsed(record, "net", |v| if v == "default" { Prefix::parse("0/0") } else { Prefix::parse(v) })?;
    let scope = parsed(record, "scope", scope)?;
    let entry = Entry {
        is_static,
        origin,
        interface: interface.to_owned(),
        address,
        broadcast: parsed(record, "broadcast", |v| v.parse().ok())?,
        scope,
        hops: match routes(record, &mut dropped) {
            hops if hops.is_empty() => single_hop(record, gateway, net, scope)?,
            hops => hops,
        },
        metric: parsed(record, "metric", model::decimal)?,
        table: parsed(record, "table", table)?.unwrap_or(TABLE_MAIN),
        source: parsed(record, "src", |v| v.parse().ok())?,
        mtu: mtu(record, &mut dropped),
        dns: words(record, "dns", &mut dropped, |w| w.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified())),
        dns_prio: parsed(record, "dns_prio", |v| v.parse().ok())?.unwrap_or(0),
        dnsmasq: words(record, "dnsmasq", &mut dropped, |w| w.is_ascii().then(|| w.to_owned())),
        domain: words(record, "domain", &mut dropped, |w| DomainName::parse(w).map(|d| d.to_string()))
            .into_iter()
            .next(),
        search: words(record, "search", &mut dropped, |w| DomainName::parse(w).map(|d| d.to_string())),
        healthy: parsed(record, "health", health)?,
        lease_end_boottime: parsed(record, "lease_end_boottime", seconds)?,
        lease_end: parsed(record, "lease_end", seconds)?,
        boot_id: filled(record, "boot_id").map(str::to_owned),
    };
    Ok((entry, dropped))
}

fn filled<'a>(record: &'a Record, key: &str) -> Option<&'a str> {
    record.get(key).map(str::trim).filter(|v| !v.is_empty())
}

fn bad(key: &str, value: &str) -> String {
    format!("bad {key}: {}", value.escape_debug())
}

fn parsed<T>(record: &Record, key: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, String> {
    filled(record, key).map(|v| parse(v).ok_or_else(|| bad(key, v))).transpose()
}

/// Words of a list; those that are wrong go to `dropped`.
fn words<T>(record: &Record, key: &str, dropped: &mut Vec<String>, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let mut out = Vec::new();
    for word in record.get(key).unwrap_or_default().split_ascii_whitespace().take(MAX_WORDS) {
        match parse(word) {
            Some(value) => out.push(value),
            None => dropped.push(bad(key, word)),
        }
    }
    out
}

/// An address that an interface can have.
fn interface_address(text: &str) -> Option<Prefix> {
    Prefix::parse(text).filter(|p| p.len > 0 && !p.ip.is_unspecified() && !p.ip.is_multicast() && !is_broadcast(p.ip))
}

fn is_broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn scope(text: &str) -> Option<Scope> {
    match text {
        "global" => Some(Scope::Global),
        "link" => Some(Scope::Link),
        "host" => Some(Scope::Host),
        number => model::decimal(number).map(Scope::from_number),
    }
}

/// A table of one's own; the local one (255) is the kernel's, 0 means none.
fn table(text: &str) -> Option<u32> {
    match text {
        "main" => Some(TABLE_MAIN),
        "default" => Some(253),
        number => model::decimal(number).filter(|t| !matches!(t, 0 | 255)),
    }
}

fn health(text: &str) -> Option<bool> {
    match text {
        "up" => Some(true),
        "down" => Some(false),
        _ => None,
    }
}

/// Whole seconds; a fraction is cut off.
fn seconds(text: &str) -> Option<u64> {
    model::decimal(text.split('.').next()?)
}

fn mtu(record: &Record, dropped: &mut Vec<String>) -> Option<u32> {
    let text = filled(record, "mtu")?;
    let mtu = model::decimal(text).filter(|m| (MTU_MIN..=65_535).contains(m));
    if mtu.is_none() {
        dropped.push(bad("mtu", text));
    }
    mtu
}

/// `gw` and `net`. A router without a network is a default route. Without a router only a network that is not
/// everything is on the link, or everything when `scope='link'` says so (point to point links).
fn single_hop(
    record: &Record,
    gateway: Option<IpAddr>,
    net: Option<Prefix>,
    scope: Option<Scope>,
) -> Result<Vec<Hop>, String> {
    let Some(destination) = net.or_else(|| gateway.map(Prefix::default_of)) else { return Ok(Vec::new()) };
    // `net='0/0'` beside an IPv6 router means everything in IPv6.
    let destination = match gateway {
        Some(g) if destination.is_default() => Prefix::default_of(g),
        Some(_) | None => destination.network(),
    };
    match gateway {
        Some(g) if g.is_ipv4() != destination.ip.is_ipv4() => Err(bad("gw", record.get("gw").unwrap_or_default())),
        Some(g) if g.is_multicast() || is_broadcast(g) => Err(bad("gw", record.get("gw").unwrap_or_default())),
        None if destination.is_default() && scope != Some(Scope::Link) => Ok(Vec::new()),
        Some(_) | None => Ok(vec![Hop { destination, gateway }]),
    }
}

/// RFC 3442: pairs of a network and a router; the router 0.0.0.0 means on the link.
fn routes(record: &Record, dropped: &mut Vec<String>) -> Vec<Hop> {
    let mut out = Vec::new();
    let mut list = record.get("routes").unwrap_or_default().split_ascii_whitespace().take(2 * MAX_WORDS);
    while let Some(net) = list.next() {
        let gateway = list.next().unwrap_or_default();
        let hop = Prefix::parse(net).zip(gateway.parse::<IpAddr>().ok()).and_then(|(destination, gateway)| {
            let same = destination.ip.is_ipv4() == gateway.is_ipv4();
            let gateway = Some(gateway).filter(|g| !g.is_unspecified());
            let sane = gateway.is_none_or(|g| !g.is_multicast() && !is_broadcast(g));
            // Everything on the link is nobody's network.
            (same && sane && (gateway.is_some() || !destination.is_default()))
                .then(|| Hop { destination: destination.network(), gateway })
        });
        match hop {
            Some(hop) => out.push(hop),
            None => dropped.push(bad("routes", &format!("{net} {gateway}"))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields = &'static [(&'static str, &'static str)];

    fn entry(fields: &[(&str, &str)]) -> Read {
        let record = fields.iter().fold(Record::new().with("if", "eth0"), |r, (k, v)| r.with(k, *v));
        read(&record, true, "f:1".into())
    }

    fn hops(fields: &[(&str, &str)]) -> Vec<String> {
        let show = |h: &Hop| format!("{} {}", h.destination, h.gateway.map_or("-".into(), |g| g.to_string()));
        entry(fields).unwrap().0.hops.iter().map(show).collect()
    }

    #[test]
    fn routes_of_all_kinds() {
        let table: [(Fields, &[&str]); 12] = [
            (&[("gw", "10.0.0.1"), ("net", "0/0")], &["0.0.0.0/0 10.0.0.1"]),
            (&[("gw", "10.0.0.1")], &["0.0.0.0/0 10.0.0.1"]),
            (&[("gw", ""), ("net", "0/0")], &[]),
            (&[("gw", "0.0.0.0"), ("net", "0/0")], &[]),
            (&[("net", "0/0"), ("scope", "link")], &["0.0.0.0/0 -"]),
            (&[("net", "10/8")], &["10.0.0.0/8 -"]),
            (&[("net", "10.1.2.3/8"), ("gw", "1.2.3.4")], &["10.0.0.0/8 1.2.3.4"]),
            (&[("gw", "fe80::1")], &["::/0 fe80::1"]),
            (&[("gw", "fe80::1"), ("net", "0/0")], &["::/0 fe80::1"]),
            (
                &[("gw", "9.9.9.9"), ("net", "0/0"), ("routes", "10.0.0.0/8 10.0.0.1 0.0.0.0/0 10.0.0.2")],
                &["10.0.0.0/8 10.0.0.1", "0.0.0.0/0 10.0.0.2"],
            ),
            (&[("routes", "192.0.2.0/24 0.0.0.0")], &["192.0.2.0/24 -"]),
            (&[("gw", "9.9.9.9"), ("routes", "")], &["0.0.0.0/0 9.9.9.9"]),
        ];
        for (fields, want) in table {
            assert_eq!(hops(fields), want, "{fields:?}");
        }
    }

    #[test]
    fn a_wrong_word_of_its_own_configuration_costs_the_record() {
        for (key, value) in [
            ("if", "eth0/.."),
            ("if", ""),
            ("ipmask", "10.0.0.1/33"),
            ("ipmask", "224.0.0.1/24"),
            ("ipmask", "0.0.0.0/8"),
            ("ipmask", "10.0.0.1/0"),
            ("gw", "router"),
            ("gw", "255.255.255.255"),
            ("gw", "224.0.0.1"),
            ("net", "10"),
            ("metric", "-1"),
            ("table", "255"),
            ("health", "maybe"),
            ("lease_end", "soon"),
            ("dns_prio", "high"),
        ] {
            assert!(entry(&[(key, value)]).is_err(), "{key}={value}");
        }
        assert!(entry(&[("gw", "fe80::1"), ("net", "10/8")]).is_err());
    }

    #[test]
    fn a_wrong_word_of_a_servers_extras_costs_that_word_alone() {
        let (entry, dropped) = entry(&[
            ("ipmask", "10.0.0.5/24"),
            ("dns", "1.1.1.1 nonsense 0.0.0.0 2001:db8::53"),
            ("domain", "a;b"),
            ("search", "example.org bad/name lan."),
            ("mtu", "68"),
            ("routes", "10.0.0.0/8 1.1.1.1 0/0 0.0.0.0 odd"),
        ])
        .unwrap();
        assert_eq!(entry.dns, ["1.1.1.1".parse::<IpAddr>().unwrap(), "2001:db8::53".parse().unwrap()]);
        assert_eq!(entry.domain, None);
        assert_eq!(entry.search, ["example.org", "lan"]);
        assert_eq!(entry.mtu, None);
        assert_eq!(entry.hops.len(), 1);
        assert_eq!(dropped.len(), 7, "{dropped:?}");
    }
}

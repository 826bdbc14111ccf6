//! What one record of ipconf(5) says about an interface: the struct that fw reads, and its table of
//! keys.
//!
//! HOW TO ADD A KEY: give it a field and a row in [`KEYS`], and name it in `man/ipconf.5` (a test
//! holds the page against the table). A field of [`Said`] is what a DHCP server can say: every
//! [`Lease`](super::Lease) has it then, and `said` in udhcpc's record.rs fills it from the reply. A
//! field of [`Network`] is the administrator's word, or a daemon's own. The row says what a wrong
//! value costs: [`Wrong`].

use std::net::{IpAddr, Ipv4Addr};

use super::key::{self, Key, Other, Wrong, join, list, one, show, whole_list};
use super::term::Term;
use super::text;
use super::value::{self, Health, Hop, Uri};
use super::{Author, Fault, IF};
use crate::net::{AddrGen, DomainName, HostName, IfName, Mac, Prefix, Scope, VlanId, ZoneName, decimal};

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Interface.
    pub interface: IfName,
    /// Its address without a length, for other readers.
    pub ip: Option<IpAddr>,
    /// Its address.
    pub address: Option<Prefix>,
    /// Destination behind the router.
    pub net: Option<Prefix>,
    /// What a DHCP server can say.
    pub said: Said,
    /// Only records with the highest one count for name service.
    pub dns_prio: Option<i64>,
    /// Lines for dnsmasq in place of `said.dns`.
    pub dnsmasq: Vec<String>,
    /// Addresses of time servers, as the seed's scripts name them.
    pub ntpip: Vec<IpAddr>,
    /// The DHCP server.
    pub server_id: Option<Ipv4Addr>,
    /// Scope of the address.
    pub scope: Option<Scope>,
    /// Metric of the routes.
    pub metric: Option<u32>,
    /// Table of the routes.
    pub table: Option<u32>,
    /// Preferred source of the routes.
    pub source: Option<IpAddr>,
    /// What the link watcher or the pinger thinks of this uplink.
    pub health: Option<Health>,
    /// The zone of its network.
    pub zone: Option<ZoneName>,
    /// What the interface itself is.
    pub device: Device,
    /// How long the record counts.
    pub term: Term,
    /// Process id of the writer.
    pub owner: Option<u32>,
    /// Keys that are not known here, and their values.
    pub other: Vec<(String, String)>,
}

/// What an interface is, by the word of an administrator alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// A bridge with these ports.
    pub ports: Vec<IfName>,
    /// A VLAN of `parent`.
    pub vlan: Option<VlanId>,
    /// The interface that carries the VLAN (the key `link`).
    pub parent: Option<IfName>,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// How the kernel makes IPv6 addresses for it.
    pub addr_gen: Option<AddrGen>,
}

/// What a DHCP server can say about a network, or an administrator in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Routers; the first one counts.
    pub routers: Vec<IpAddr>,
    /// Routes, in place of the router when there are any (RFC 3442).
    pub routes: Vec<Hop>,
    /// IPv4 broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// Bytes.
    pub mtu: Option<u32>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Domain of this host.
    pub domain: Option<DomainName>,
    /// Domains to search.
    pub search: Vec<DomainName>,
    /// Time servers.
    pub ntp: Vec<IpAddr>,
    /// Name of this host.
    pub hostname: Option<HostName>,
    /// Name of this host with its domain (RFC 4702).
    pub fqdn: Option<HostName>,
    /// Captive portal (RFC 8910).
    pub captive_portal: Option<Uri>,
}

/// Every key but `if`, in the order in which they are written.
const KEYS: &[Key<Network>] = &[
    Key {
        name: "ip",
        wrong: Wrong::Unread,
        read: |r, v| one(&mut r.ip, v, |w| w.parse().ok()),
        write: |r| show(&r.ip),
    },
    Key {
        name: "ipmask",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.address, v, value::interface_address),
        write: |r| show(&r.address),
    },
    Key {
        name: "gw",
        wrong: Wrong::Said,
        read: |r, v| routers(&mut r.said.routers, v),
        write: |r| join(&r.said.routers),
    },
    Key { name: "net", wrong: Wrong::Record, read: |r, v| one(&mut r.net, v, value::network), write: show_net },
    Key {
        name: "dns",
        wrong: Wrong::Word,
        read: |r, v| list(&mut r.said.dns, v, server),
        write: |r| join(&r.said.dns),
    },
    Key {
        name: "domain",
        wrong: Wrong::Word,
        read: |r, v| first(&mut r.said.domain, v),
        write: |r| show(&r.said.domain),
    },
    Key {
        name: "search",
        wrong: Wrong::Word,
        read: |r, v| list(&mut r.said.search, v, DomainName::parse),
        write: |r| join(&r.said.search),
    },
    Key {
        name: "ntp",
        wrong: Wrong::Unread,
        read: |r, v| whole_list(&mut r.said.ntp, v, server),
        write: |r| join(&r.said.ntp),
    },
    Key {
        name: "ntpip",
        wrong: Wrong::Unread,
        read: |r, v| whole_list(&mut r.ntpip, v, server),
        write: |r| join(&r.ntpip),
    },
    Key {
        name: "hostname",
        wrong: Wrong::Unread,
        read: |r, v| one(&mut r.said.hostname, v, HostName::parse),
        write: |r| show(&r.said.hostname),
    },
    Key {
        name: "fqdn",
        wrong: Wrong::Unread,
        read: |r, v| one(&mut r.said.fqdn, v, HostName::parse),
        write: |r| show(&r.said.fqdn),
    },
    Key {
        name: "captive_portal",
        wrong: Wrong::Unread,
        read: |r, v| one(&mut r.said.captive_portal, v, Uri::parse),
        write: |r| show(&r.said.captive_portal),
    },
    Key {
        name: "mtu",
        wrong: Wrong::Word,
        read: |r, v| one(&mut r.said.mtu, v, value::mtu),
        write: |r| show(&r.said.mtu),
    },
    Key {
        name: "routes",
        wrong: Wrong::Word,
        read: |r, v| routes(&mut r.said.routes, v),
        write: |r| join(&r.said.routes),
    },
    Key {
        name: "broadcast",
        wrong: Wrong::Said,
        read: |r, v| one(&mut r.said.broadcast, v, |w| w.parse().ok()),
        write: |r| show(&r.said.broadcast),
    },
    Key {
        name: "serverid",
        wrong: Wrong::Unread,
        read: |r, v| one(&mut r.server_id, v, |w| w.parse().ok()),
        write: |r| show(&r.server_id),
    },
    Key {
        name: "dns_prio",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.dns_prio, v, |w| w.parse().ok()),
        write: |r| show(&r.dns_prio),
    },
    Key {
        name: "dnsmasq",
        wrong: Wrong::Word,
        read: |r, v| list(&mut r.dnsmasq, v, value::word),
        write: |r| join(&r.dnsmasq),
    },
    Key {
        name: "scope",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.scope, v, value::scope),
        write: |r| value::show_scope(r.scope),
    },
    Key {
        name: "metric",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.metric, v, decimal),
        write: |r| show(&r.metric),
    },
    Key {
        name: "table",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.table, v, value::table),
        write: |r| show(&r.table),
    },
    Key {
        name: "src",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.source, v, |w| w.parse().ok()),
        write: |r| show(&r.source),
    },
    Key {
        name: "health",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.health, v, Health::parse),
        write: |r| show(&r.health),
    },
    Key {
        name: "zone",
        wrong: Wrong::Static,
        read: |r, v| one(&mut r.zone, v, ZoneName::parse),
        write: |r| show(&r.zone),
    },
    Key {
        name: "bridge",
        wrong: Wrong::Static,
        read: |r, v| ports(&mut r.device.ports, v),
        write: |r| join(&r.device.ports),
    },
    Key {
        name: "vlan",
        wrong: Wrong::Static,
        read: |r, v| one(&mut r.device.vlan, v, VlanId::parse),
        write: |r| show(&r.device.vlan),
    },
    Key {
        name: "link",
        wrong: Wrong::Static,
        read: |r, v| one(&mut r.device.parent, v, IfName::parse),
        write: |r| show(&r.device.parent),
    },
    Key {
        name: "mac",
        wrong: Wrong::Static,
        read: |r, v| one(&mut r.device.mac, v, |w| Mac::parse(w).filter(|m| m.is_station())),
        write: |r| show(&r.device.mac),
    },
    Key {
        name: "addr_gen",
        wrong: Wrong::Static,
        read: |r, v| one(&mut r.device.addr_gen, v, AddrGen::parse),
        write: |r| show(&r.device.addr_gen),
    },
    Key {
        name: "lease_end",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.term.end, v, value::seconds),
        write: |r| show(&r.term.end),
    },
    Key {
        name: "lease_end_boottime",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.term.end_boottime, v, value::seconds),
        write: |r| show(&r.term.end_boottime),
    },
    Key {
        name: "boot_id",
        wrong: Wrong::Unread,
        read: |r, v| one(&mut r.term.boot_id, v, |w| Some(w.to_owned())),
        write: |r| show(&r.term.boot_id),
    },
    Key { name: "owner", wrong: Wrong::Unread, read: |r, v| one(&mut r.owner, v, decimal), write: |r| show(&r.owner) },
];

impl Network {
    /// A record that says nothing yet.
    pub fn new(interface: IfName) -> Network {
        Network { interface, ..Network::default() }
    }

    /// The names of all keys.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        [IF].into_iter().chain(KEYS.iter().map(|key| key.name))
    }

    /// Understands a record, and says which words of it were left out. The error is what costs the
    /// record.
    pub fn parse(record: &text::Record, author: Author) -> Result<(Network, Vec<Fault>), Fault> {
        let mut network = Network::new(super::interface(record)?);
        let mut other = Other::new();
        let left_out = key::read(KEYS, record, author, &mut network, &mut other)?;
        network.other = key::beside_interface(other);
        if network.net.is_some() && !network.said.routers.is_empty() && network.router().is_none() {
            return Err(Fault::of(record, "gw"));
        }
        if let Some((key, why)) = network.device.contradiction(&network.interface) {
            let fault = Fault::of(record, key);
            return Err(Fault { value: format!("{}: {why}", fault.value), ..fault });
        }
        Ok((network, left_out))
    }

    /// The record.
    pub fn render(&self) -> text::Record {
        let mut record = text::Record::new().with(IF, self.interface.as_str());
        key::write(KEYS, self, &self.other, &mut record);
        record
    }

    /// All that it says, as keys and values for a kind that has no fields for them.
    pub(super) fn as_other(&self) -> Other {
        key::beside_interface(self.render().fields().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// The router that counts: the first one of the family of `net`. `net='0/0'` beside an IPv6
    /// router means everything in IPv6.
    pub fn router(&self) -> Option<IpAddr> {
        let family = self.net.filter(|net| !net.is_default()).map(|net| net.ip.is_ipv4());
        self.said.routers.iter().copied().find(|router| family.is_none_or(|v4| v4 == router.is_ipv4()))
    }

    /// The routes: those of `routes` when it has any, else that of `gw` and `net`.
    pub fn hops(&self) -> Vec<Hop> {
        if self.said.routes.is_empty() { self.single_hop().into_iter().collect() } else { self.said.routes.clone() }
    }

    /// A router without a network is a default route. Without a router only a network that is not
    /// everything is on the link, or everything when `scope='link'` says so (point to point links).
    fn single_hop(&self) -> Option<Hop> {
        let gateway = self.router();
        let destination = match (gateway, self.net) {
            (Some(router), None) => Prefix::default_of(router),
            (Some(router), Some(net)) if net.is_default() => Prefix::default_of(router),
            (_, net) => net?.network(),
        };
        let goes = gateway.is_some() || !destination.is_default() || self.scope == Some(Scope::Link);
        goes.then_some(Hop { destination, gateway })
    }
}

impl Device {
    /// It is a link that is made: a bridge or a VLAN.
    pub fn is_made(&self) -> bool {
        self.vlan.is_some() || !self.ports.is_empty()
    }

    /// The key that cannot be true of this interface beside the others, and why: a VLAN has a
    /// number and a link, and is no bridge; no interface is a part of itself.
    fn contradiction(&self, interface: &IfName) -> Option<(&'static str, &'static str)> {
        match (&self.vlan, &self.parent) {
            (Some(_), None) => Some(("vlan", "link is missing")),
            (None, Some(_)) => Some(("link", "vlan is missing")),
            (Some(_), Some(parent)) if parent == interface => Some(("link", "the interface itself")),
            (Some(_), Some(_)) if !self.ports.is_empty() => Some(("bridge", "it is a VLAN")),
            _ => self.ports.contains(interface).then_some(("bridge", "the interface itself")),
        }
    }
}

/// The ports of a bridge, each once.
fn ports(slot: &mut Vec<IfName>, text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let bad = whole_list(&mut names, text, IfName::parse);
    for name in names {
        if !slot.contains(&name) {
            slot.push(name);
        }
    }
    bad
}

/// Routers; an address of zeros is none.
fn routers(slot: &mut Vec<IpAddr>, text: &str) -> Vec<String> {
    let bad = list(slot, text, |word| match word.parse() {
        Ok(ip @ IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Some(ip),
        Ok(ip) if ip == IpAddr::from([0u16; 8]) => Some(ip),
        _ => value::station(word),
    });
    slot.retain(|ip| !ip.is_unspecified());
    bad
}

/// Pairs of a network and a router: the first ones, and the default route always, wherever it
/// stands.
fn routes(slot: &mut Vec<Hop>, text: &str) -> Vec<String> {
    let (mut bad, mut count) = (Vec::new(), 0);
    let mut words = text.split_ascii_whitespace();
    while let Some(net) = words.next() {
        let gateway = words.next().unwrap_or_default();
        count += 1;
        match (Hop::parse(net, gateway), count > key::MAX_WORDS) {
            (Some(hop), false) => slot.push(hop),
            (None, false) => bad.push(format!("{net} {gateway}")),
            (Some(hop), true) if hop.destination.is_default() && !slot.iter().any(|h| h.destination.is_default()) => {
                slot.truncate(key::MAX_WORDS - 1);
                slot.push(hop);
            }
            (_, true) => {}
        }
    }
    bad.extend(key::too_many(count));
    bad
}

/// The first good name of a list.
fn first(slot: &mut Option<DomainName>, text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let bad = list(&mut names, text, DomainName::parse);
    *slot = names.into_iter().next();
    bad
}

fn server(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified())
}

/// As the seed's scripts write it.
fn show_net(record: &Network) -> String {
    match record.net {
        Some(net) if net == Prefix::default_of(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => "0/0".into(),
        net => show(&net),
    }
}

#[cfg(test)]
mod tests;

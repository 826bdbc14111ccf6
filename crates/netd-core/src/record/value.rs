//! What single values of records mean, where no type of `net` says it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::left::TABLE_MAIN;
use crate::net::{Prefix, Scope, decimal};

/// RFC 791: every host takes 576 bytes; a DHCP server that asks for less is broken or hostile.
pub const MTU_MIN: u32 = 576;
/// RFC 791: a total length has 16 bits.
const MTU_MAX: u32 = 65_535;
/// RT_TABLE_DEFAULT and RT_TABLE_LOCAL of linux/rtnetlink.h.
const TABLE_DEFAULT: u32 = 253;
const TABLE_LOCAL: u32 = 255;
/// A longer URI is no address of a portal.
const MAX_URI: usize = 1024;

/// Where a route leads and through which router: a pair of `routes` (RFC 3442).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Destination network.
    pub destination: Prefix,
    /// Router; `None`: on the link.
    pub gateway: Option<IpAddr>,
}

impl Hop {
    /// Reads a network and a router. The router 0.0.0.0 means on the link; everything on the link
    /// is no network.
    pub fn parse(net: &str, gateway: &str) -> Option<Hop> {
        Hop::new(Prefix::parse(net)?, gateway.parse().ok()?)
    }

    /// The network and the router as they are written.
    pub fn words(&self) -> (String, String) {
        let gateway = self.gateway.unwrap_or(Prefix::default_of(self.destination.ip).ip);
        (self.destination.to_string(), gateway.to_string())
    }

    /// The same as [`Hop::parse`] of what was read elsewhere.
    pub fn new(destination: Prefix, gateway: IpAddr) -> Option<Hop> {
        let destination = destination.network();
        let same = destination.ip.is_ipv4() == gateway.is_ipv4();
        let gateway = Some(gateway).filter(|g| !g.is_unspecified());
        let sane = gateway.is_none_or(is_station) && (gateway.is_some() || !destination.is_default());
        (same && sane).then_some(Hop { destination, gateway })
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (net, gateway) = self.words();
        write!(f, "{net} {gateway}")
    }
}

/// What a watcher of an uplink thinks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It carries.
    Up,
    /// Its routes go behind those of the others.
    Down,
}

impl Health {
    pub(super) fn parse(text: &str) -> Option<Health> {
        match text {
            "up" => Some(Health::Up),
            "down" => Some(Health::Down),
            _ => None,
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Health::Up => "up",
            Health::Down => "down",
        })
    }
}

/// The address of a captive portal's API (RFC 8910).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri(String);

impl Uri {
    /// RFC 3986 has no other characters than these; it has the single quote too, which would leave
    /// the record's.
    pub fn parse(text: &str) -> Option<Uri> {
        let fit = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!&()*+,;=%".contains(&b);
        let web = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
        (web && text.len() <= MAX_URI && text.bytes().all(fit)).then(|| Uri(text.to_owned()))
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether one station can have `ip`, of either family.
fn is_station(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// An address that an interface can have, with the length of its network.
pub(super) fn interface_address(text: &str) -> Option<Prefix> {
    Prefix::parse(text).filter(|p| p.len > 0 && is_station(p.ip))
}

/// The address of a server or of a router.
pub(super) fn station(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|ip| is_station(*ip))
}

/// A network; `default` is everything.
pub(super) fn network(text: &str) -> Option<Prefix> {
    Prefix::parse(if text == "default" { "0/0" } else { text }).map(Prefix::network)
}

/// A name that the kernel's headers know, or a number.
pub(super) fn scope(text: &str) -> Option<Scope> {
    match text {
        "global" => Some(Scope::Global),
        "link" => Some(Scope::Link),
        "host" => Some(Scope::Host),
        number => decimal(number).map(Scope::from_number),
    }
}

/// The scope as [`scope`] reads it.
pub(super) fn show_scope(scope: Option<Scope>) -> String {
    match scope {
        None => String::new(),
        Some(Scope::Global) => "global".into(),
        Some(Scope::Link) => "link".into(),
        Some(Scope::Host) => "host".into(),
        Some(Scope::Other(number)) => number.to_string(),
    }
}

/// A routing table; the local one is the kernel's, 0 means none.
pub(super) fn table(text: &str) -> Option<u32> {
    match text {
        "main" => Some(TABLE_MAIN),
        "default" => Some(TABLE_DEFAULT),
        number => decimal(number).filter(|t| !matches!(*t, 0 | TABLE_LOCAL)),
    }
}

/// Whole seconds; a fraction is cut off.
pub(super) fn seconds(text: &str) -> Option<u64> {
    decimal(text.split('.').next()?)
}

/// A packet size that leaves a working network.
pub(super) fn mtu(text: &str) -> Option<u32> {
    decimal(text).filter(|m| (MTU_MIN..=MTU_MAX).contains(m))
}

/// A word that is written as it is.
pub(super) fn word(text: &str) -> Option<String> {
    text.is_ascii().then(|| text.to_owned())
}

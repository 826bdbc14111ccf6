//! What the kernel has: links, addresses, routes, rules and switches as a snapshot shows them.
//!
//! Pure data. wire.rs decodes it, kernel.rs collects it, plan.rs compares it with what is wanted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netd_core::left::Seen;
use netd_core::net::{AddrGen, Mac};
use netd_core::wire::devconf::DevConf;

use crate::model::{PROTOCOL, PROTOCOL_KERNEL, Prefix, Scope, Sysctl, TABLE_MAIN};

/// Our bits of a packet's and of a connection's mark: the number of an uplink.
pub const MARKS: u32 = 0xff00_0000;
/// A rule that leads to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The lowest is asked first.
    pub priority: u32,
    /// IPv4.
    pub v4: bool,
    /// Packets from this network, or host.
    pub source: Option<Prefix>,
    /// Packets with this number under [`MARKS`]; 0: any.
    pub mark: u32,
    /// Where they are looked up.
    pub table: u32,
    /// The default route there does not count (suppress_prefixlength 0).
    pub specific: bool,
    /// Who made it.
    pub protocol: u8,
    /// It has no other selector or action. All rules of fw are plain.
    pub plain: bool,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match self.source {
            Some(host) if host.is_host() => host.ip.to_string(),
            Some(network) => network.to_string(),
            None => "all".to_owned(),
        };
        write!(f, "from {from}")?;
        if self.mark != 0 {
            write!(f, " fwmark {:#x}/{MARKS:#x}", self.mark)?;
        }
        match self.table {
            TABLE_MAIN => write!(f, " lookup main")?,
            table => write!(f, " lookup {table}")?,
        }
        write!(f, "{}", if self.specific { " suppress_prefixlength 0" } else { "" })?;
        write!(f, " priority {}", self.priority)
    }
}

/// A link as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Kernel's number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// IFF_UP.
    pub up: bool,
    /// IFF_LOOPBACK.
    pub loopback: bool,
    /// IFF_LOWER_UP.
    pub carrier: bool,
    /// Bytes.
    pub mtu: u32,
    /// The smallest that the driver takes.
    pub min_mtu: u32,
    /// The largest that it takes; 0: it does not say.
    pub max_mtu: u32,
    /// IFLA_INFO_KIND, as `bridge` or `veth`. `None`: a hardware card, or the loopback.
    pub kind: Option<String>,
    /// Kernel's number of the bridge, bond or VRF of which it is a part; 0: of none.
    pub master: u32,
    /// Kernel's number of the link that carries it (IFLA_LINK), or of the other end of a veth; 0:
    /// none.
    pub parent: u32,
    /// That number is one of another network namespace.
    pub parent_is_elsewhere: bool,
    /// The number of a VLAN.
    pub vlan: Option<u16>,
    /// The group of ip-link(8); 0: none.
    pub group: u32,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// How the kernel makes IPv6 addresses for it. `None`: it has no IPv6.
    pub addr_gen: Option<AddrGen>,
    /// Its switches.
    pub conf: DevConf,
}

/// An address as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Kernel's number of the interface.
    pub index: u32,
    /// Address and prefix length.
    pub address: Prefix,
    /// IPv4 broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// Scope.
    pub scope: Scope,
    /// Seconds that it stays valid; `None`: for ever.
    pub lifetime: Option<Duration>,
    /// It was not made with IFA_F_NOPREFIXROUTE.
    pub kernel_prefix_route: bool,
    /// IFA_F_NODAD: an IPv6 address that is used without a look for duplicates.
    pub no_dad: bool,
    /// The metric of the prefix route that the kernel makes (IFA_RT_PRIORITY); 0: its own choice.
    pub metric: u32,
    /// IFA_PROTO; 0 when there is none.
    pub protocol: u8,
    /// IFA_F_MANAGETEMPADDR: the kernel has made it of a router advertisement.
    pub autoconf: bool,
}

/// A route as it is. Routes of the kernel's local table are in no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Kernel's number of the interface; 0 when the route has several.
    pub index: u32,
    /// The interfaces of a route that has several.
    pub next_hops: Vec<u32>,
    /// Destination.
    pub destination: Prefix,
    /// Router.
    pub gateway: Option<IpAddr>,
    /// RTNH_F_ONLINK.
    pub onlink: bool,
    /// RTNH_F_LINKDOWN or RTNH_F_DEAD.
    pub dead: bool,
    /// Metric.
    pub metric: u32,
    /// Table.
    pub table: u32,
    /// Scope.
    pub scope: Scope,
    /// Preferred source.
    pub source: Option<IpAddr>,
    /// Type of service, part of the kernel's key.
    pub tos: u8,
    /// Who made it.
    pub protocol: u8,
    /// It leads to an interface. Ours that does not is unreachable: it ends a list of uplinks, or
    /// lies behind a network of the inside. A blackhole, unreachable, prohibit or throw route of
    /// another program only holds its place.
    pub unicast: bool,
}

impl Route {
    /// The fields by which the kernel tells routes apart.
    pub fn key(&self) -> (u32, Prefix, u8, u32) {
        (self.table, self.destination, self.tos, self.metric)
    }

    /// Whether both are equal in all fields that fw sets.
    pub fn is_same(&self, other: &Route) -> bool {
        let all = |r: &Route| (r.key(), r.index, r.gateway, r.onlink, r.source, r.protocol, r.unicast);
        all(self) == all(other) && (self.scope == other.scope || self.destination.ip.is_ipv6())
    }
}

/// What the kernel has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Have {
    /// Every link.
    pub links: Vec<Link>,
    /// Every address.
    pub addresses: Vec<Address>,
    /// Every route outside the local table.
    pub routes: Vec<Route>,
    /// Every rule that names its maker. Empty: this kernel has no rules.
    pub rules: Vec<Rule>,
    /// The switches that the `Want` names. Unreadable ones are missing here.
    pub sysctls: Vec<Sysctl>,
    /// The kernel has no IPv6.
    pub without_v6: bool,
    /// Interfaces on which an administrator has switched IPv6 off (disable_ipv6).
    pub v6_off: Vec<String>,
    /// This kernel is older than 4.18, and knows no metric of an address.
    pub without_address_metric: bool,
    /// The same as a watcher sees it: for left.rs.
    pub seen: Seen,
}

impl Have {
    /// The link of this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|l| l.name == name)
    }

    /// The link with this number.
    pub fn link_at(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|l| l.index == index)
    }

    /// The value of a switch below /proc/sys that belongs to one interface, if the links' own
    /// messages have told it.
    pub fn switch(&self, path: &str) -> Option<i32> {
        let (v4, rest) = match (path.strip_prefix("net/ipv4/conf/"), path.strip_prefix("net/ipv6/conf/")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return None,
        };
        let (interface, name) = rest.rsplit_once('/')?;
        self.link(interface)?.conf.get(v4, name)
    }

    /// Whether the kernel has made this route for an address of ours.
    pub fn is_for_our_address(&self, route: &Route) -> bool {
        let makes = |a: &Address| {
            a.index == route.index
                && a.protocol == PROTOCOL
                && a.kernel_prefix_route
                && a.address.network() == route.destination
        };
        route.protocol == PROTOCOL_KERNEL && self.addresses.iter().any(makes)
    }

    /// The name of a link, or its number in words when it has gone.
    pub fn name(&self, index: u32) -> String {
        self.links.iter().find(|l| l.index == index).map_or_else(|| format!("if{index}"), |l| l.name.clone())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// RTPROT_BOOT of linux/rtnetlink.h: a route that `ip route add` makes.
    const PROTOCOL_BOOT: u8 = 3;

    /// An address that another program has given to the link.
    pub(crate) fn address(text: &str, index: u32) -> Address {
        Address {
            index,
            address: Prefix::parse(text).unwrap(),
            broadcast: None,
            scope: Scope::Global,
            lifetime: None,
            kernel_prefix_route: false,
            no_dad: false,
            metric: 0,
            protocol: 0,
            autoconf: false,
        }
    }

    /// A route of another program to what is on the link.
    pub(crate) fn route(destination: &str, index: u32) -> Route {
        Route {
            index,
            next_hops: Vec::new(),
            destination: Prefix::parse(destination).unwrap(),
            gateway: None,
            onlink: false,
            dead: false,
            metric: 0,
            table: TABLE_MAIN,
            scope: Scope::Link,
            source: None,
            tos: 0,
            protocol: PROTOCOL_BOOT,
            unicast: true,
        }
    }
}

//! The words that fw's parts share: prefixes, addresses and routes as they should be (`Want`) and as they are (`Have`).
//!
//! Pure data. conf.rs makes a `Want`, kernel.rs makes a `Have`, plan.rs compares the two.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::rule::Rule;

/// Route protocol and address protocol of everything fw makes: unassigned in rtnetlink(7), in iproute2's and in FRR's
/// tables. `share/rt_protos.d/netsv.conf` gives it its name.
pub const PROTOCOL: u8 = 213;
/// RTPROT_KERNEL of linux/rtnetlink.h.
pub const PROTOCOL_KERNEL: u8 = 2;
/// RTPROT_RA of linux/rtnetlink.h: the kernel's own router discovery.
pub const PROTOCOL_RA: u8 = 9;
/// RT_TABLE_MAIN of linux/rtnetlink.h.
pub const TABLE_MAIN: u32 = 254;
/// RT_TABLE_LOCAL of linux/rtnetlink.h: the kernel's.
pub const TABLE_LOCAL: u32 = 255;
/// What the kernel makes of a missing metric of an IPv6 route (IP6_RT_PRIO_USER of net/ip6_route.h).
pub const METRIC_V6_DEFAULT: u32 = 1024;

/// The switch below /proc/sys that makes a router of this machine.
pub const FORWARD_V4: &str = "net/ipv4/ip_forward";
/// The same for IPv6.
pub const FORWARD_V6: &str = "net/ipv6/conf/all/forwarding";

/// rt_scope_t of linux/rtnetlink.h; the kernel ignores it for IPv6 routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// 0: beyond a router.
    Global,
    /// 253: on the link.
    Link,
    /// 254: this host.
    Host,
    /// Any other number.
    Other(u8),
}

impl Scope {
    /// The kernel's number.
    pub fn number(self) -> u8 {
        match self {
            Scope::Global => 0,
            Scope::Link => 253,
            Scope::Host => 254,
            Scope::Other(n) => n,
        }
    }

    /// From the kernel's number.
    pub fn from_number(n: u8) -> Scope {
        match n {
            0 => Scope::Global,
            253 => Scope::Link,
            254 => Scope::Host,
            n => Scope::Other(n),
        }
    }
}

/// An address and the number of leading bits that name its network. The host bits may be set: an interface's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address.
    pub ip: IpAddr,
    /// Leading bits, 0..=32 or 0..=128.
    pub len: u8,
}

impl Prefix {
    /// `None` when `len` is too large for the family.
    pub fn new(ip: IpAddr, len: u8) -> Option<Prefix> {
        (len <= bits(ip)).then_some(Prefix { ip, len })
    }

    /// Every destination of `ip`'s family.
    pub fn default_of(ip: IpAddr) -> Prefix {
        let ip = match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Prefix { ip, len: 0 }
    }

    /// `A/LEN`, or `A` alone as one host. In IPv4 trailing zero bytes may be left out, as in `0/0` and `172.16/12`.
    pub fn parse(text: &str) -> Option<Prefix> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(decimal(len)?)),
            None => (text, None),
        };
        let ip = if address.contains(':') {
            IpAddr::V6(address.parse().ok()?)
        } else if len.is_some() {
            IpAddr::V4(short_v4(address)?)
        } else {
            IpAddr::V4(address.parse().ok()?)
        };
        Prefix::new(ip, len.unwrap_or_else(|| bits(ip)))
    }

    /// The same with the host bits cleared.
    pub fn network(self) -> Prefix {
        let shift = u32::from(self.len);
        let ip = match self.ip {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32 - shift.min(32)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(a) & mask))
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(128 - shift.min(128)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask))
            }
        };
        Prefix { ip, len: self.len }
    }

    /// Whether `ip` is in the network.
    pub fn contains(self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4() && Prefix { ip, len: self.len }.network() == self.network()
    }

    /// Whether it is every destination of its family.
    pub fn is_default(self) -> bool {
        self.len == 0
    }

    /// Whether it is a single host.
    pub fn is_host(self) -> bool {
        self.len == bits(self.ip)
    }

    /// The last address of an IPv4 network that has a broadcast address (RFC 3021: a /31 has none).
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match self.ip {
            IpAddr::V4(a) if self.len < 31 => {
                let host = u32::MAX.checked_shr(u32::from(self.len)).unwrap_or(0);
                Some(Ipv4Addr::from(u32::from(a) | host))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.len)
    }
}

/// Bits of an address of this family.
pub fn bits(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// A decimal number without sign or blanks, unlike `str::parse`, which takes `+1`.
pub fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn short_v4(text: &str) -> Option<Ipv4Addr> {
    let missing = 3usize.checked_sub(text.bytes().filter(|b| *b == b'.').count())?;
    format!("{text}{}", ".0".repeat(missing)).parse().ok()
}

/// Whether the kernel and nft can both use `name`: the kernel's own rule (at most 15 bytes, no slash, colon or blank)
/// narrowed to an allow-list, because it goes into paths below /proc/sys and into nft's text.
pub fn is_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | ".." | "all" | "default")
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.@-".contains(&b))
}

/// An address that an interface should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantAddress {
    /// Interface.
    pub interface: String,
    /// Address and prefix length.
    pub address: Prefix,
    /// IPv4 broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// Scope.
    pub scope: Scope,
    /// How long it stays valid from now on, in whole seconds; `None`: for ever.
    pub lifetime: Option<Duration>,
    /// The kernel shall make the prefix route itself (loopback only).
    pub kernel_prefix_route: bool,
}

/// A route that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantRoute {
    /// Interface.
    pub interface: String,
    /// Destination.
    pub destination: Prefix,
    /// Router; `None`: on the link.
    pub gateway: Option<IpAddr>,
    /// The router need not be inside a prefix of the interface (RTNH_F_ONLINK).
    pub onlink: bool,
    /// Metric.
    pub metric: u32,
    /// Routing table.
    pub table: u32,
    /// Scope; not compared for IPv6.
    pub scope: Scope,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// It is the prefix route of an address in the same `Want`.
    pub is_prefix_route: bool,
    /// A second table where it stands, its uplink's own; 0: none.
    pub way: u32,
}

/// A link that should be in this state. Links that are not named here are left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantLink {
    /// Interface.
    pub interface: String,
    /// It has to be up.
    pub up: bool,
    /// Not larger than this, in bytes.
    pub mtu: Option<u32>,
    /// A lease is there: it has the last word about an MTU that a lease before it has lowered.
    pub leased: bool,
}

/// A kernel switch below /proc/sys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// Path below `/proc/sys/`.
    pub path: String,
    /// What it should hold.
    pub value: String,
}

/// What the records and fw.conf ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Interfaces, in record order.
    pub links: Vec<WantLink>,
    /// Addresses, in record order.
    pub addresses: Vec<WantAddress>,
    /// Routes, prefix routes before those that need them.
    pub routes: Vec<WantRoute>,
    /// Kernel switches.
    pub sysctls: Vec<Sysctl>,
    /// Interfaces that lead outside, in order of preference.
    pub uplinks: Vec<String>,
    /// The number of each of them, which it keeps.
    pub numbers: Vec<(String, u8)>,
    /// The firewall marks connections from outside with them.
    pub marks: bool,
    /// Interfaces that the input and forward policy treats as outside.
    pub external: Vec<String>,
    /// Foreign addresses and routes are to be removed (`reset_all_netdevs`).
    pub reset: bool,
}

/// A link as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel's number.
    pub index: u32,
    /// Name.
    pub name: String,
    /// IFF_UP.
    pub up: bool,
    /// IFF_LOOPBACK.
    pub loopback: bool,
    /// Bytes.
    pub mtu: u32,
    /// The smallest that the driver takes.
    pub min_mtu: u32,
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
    /// IFA_PROTO; 0 when there is none.
    pub protocol: u8,
}

/// A route as it is. Routes of the kernel's local table are in no snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Kernel's number of the interface; 0 when the route has several.
    pub index: u32,
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
    /// It leads somewhere: no blackhole, unreachable, prohibit, throw ... of somebody else, which only holds its place.
    pub unicast: bool,
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
    /// Every rule that says who made it; none: this kernel has no rules.
    pub rules: Vec<Rule>,
    /// The switches that the `Want` names, as far as they could be read.
    pub sysctls: Vec<Sysctl>,
}

impl Have {
    /// The link of this name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|l| l.name == name)
    }

    /// The name of a link, or its number in words when it has gone.
    pub fn name(&self, index: u32) -> String {
        self.links.iter().find(|l| l.index == index).map_or_else(|| format!("if{index}"), |l| l.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(text: &str) -> Prefix {
        Prefix::parse(text).unwrap()
    }

    #[test]
    fn prefixes_in_all_their_forms() {
        let table = [
            ("0/0", "0.0.0.0/0"),
            ("10/8", "10.0.0.0/8"),
            ("172.16/12", "172.16.0.0/12"),
            ("192.168.1.5/24", "192.168.1.5/24"),
            ("192.0.2.1", "192.0.2.1/32"),
            ("::/0", "::/0"),
            ("2001:db8::1/64", "2001:db8::1/64"),
            ("fe80::1", "fe80::1/128"),
        ];
        for (text, want) in table {
            assert_eq!(p(text).to_string(), want);
        }
        for bad in
            ["", "/", "10", "1.2.3.4/33", "1.2.3.4/+8", "1.2.3.4.5/8", "a/8", "::1/129", "1.2.3.4/", ":/0", "10./8"]
        {
            assert_eq!(Prefix::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn networks_and_broadcasts() {
        assert_eq!(p("192.168.1.5/24").network(), p("192.168.1.0/24"));
        assert_eq!(p("1.2.3.4/0").network(), p("0/0"));
        assert_eq!(p("1.2.3.4/32").network(), p("1.2.3.4/32"));
        assert_eq!(p("2001:db8:1::5/48").network(), p("2001:db8:1::/48"));
        assert!(p("10/8").contains("10.255.0.1".parse().unwrap()));
        assert!(!p("10/8").contains("11.0.0.1".parse().unwrap()));
        assert!(!p("0/0").contains("::1".parse().unwrap()));
        assert_eq!(p("192.168.1.5/24").broadcast(), Some(Ipv4Addr::new(192, 168, 1, 255)));
        assert_eq!(p("192.168.1.5/31").broadcast(), None);
        assert_eq!(p("1.2.3.4/0").broadcast(), Some(Ipv4Addr::BROADCAST));
    }

    #[test]
    fn interface_names_that_could_mean_something_else_are_refused() {
        for good in ["eth0", "eth0.5", "wlx00c0ca-1", "br_lan"] {
            assert!(is_interface_name(good), "{good}");
        }
        for bad in ["", ".", "..", "all", "default", "eth0/..", "a b", "eth*", "\"x\"", "0123456789abcdef", "a:b"] {
            assert!(!is_interface_name(bad), "{bad}");
        }
    }
}

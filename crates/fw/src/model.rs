//! The words that fw's parts share: prefixes, addresses and routes as they should be (`Want`) and as they are (`Have`).
//!
//! Pure data. conf.rs makes a `Want`, kernel.rs makes a `Have`, plan.rs compares the two.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

// The names by which the other files of fw know them.
pub use netd_core::net::{Prefix, Scope, bits, decimal};

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

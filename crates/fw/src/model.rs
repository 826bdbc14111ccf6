//! Words that fw's parts share: the kernel's own numbers, and the switches that make a router.
//!
//! Pure data.

use std::net::IpAddr;

// The names by which the other files of fw know them.
pub use netd_core::left::{PROTOCOL, PROTOCOL_KERNEL, TABLE_MAIN};
pub use netd_core::net::{Prefix, Scope, bits, decimal};

/// The group of ip-link(8) of every link that fw makes, and of every port that fw puts into a
/// bridge: links have no protocol. plan/links.rs says why.
pub const GROUP: u32 = PROTOCOL as u32;
/// RTPROT_REDIRECT: routes that the kernel has made of ICMP redirects.
pub const PROTOCOL_REDIRECT: u8 = 1;
/// IFAPROT_KERNEL_LO, IFAPROT_KERNEL_RA and IFAPROT_KERNEL_LL of linux/if_addr.h: addresses that
/// the kernel has made.
pub const ADDRESS_PROTOCOLS_KERNEL: std::ops::RangeInclusive<u8> = 1..=3;
/// IFAPROT_KERNEL_RA of linux/if_addr.h: an address of a router advertisement.
pub const ADDRESS_PROTOCOL_RA: u8 = 2;
/// RTPROT_RA of linux/rtnetlink.h: the kernel's own router discovery.
pub const PROTOCOL_RA: u8 = 9;
/// RT_TABLE_LOCAL of linux/rtnetlink.h: the kernel's.
pub const TABLE_LOCAL: u32 = 255;
/// The metric that the kernel gives to an IPv6 route without one (IP6_RT_PRIO_USER of
/// net/ip6_route.h).
pub const METRIC_V6_DEFAULT: u32 = 1024;
/// What the kernel gives to its own IPv6 prefix routes (IP6_RT_PRIO_ADDRCONF).
pub const METRIC_V6_PREFIX: u32 = 256;
/// The metric of the unreachable routes behind the networks of the inside. Each other route comes
/// before them; the kernel's own last one has the largest metric of all.
pub const METRIC_BEHIND: u32 = u32::MAX - 1;

/// The switch below /proc/sys that makes a router of this machine.
pub const FORWARD_V4: &str = "net/ipv4/ip_forward";
/// The same for IPv6.
pub const FORWARD_V6: &str = "net/ipv6/conf/all/forwarding";
/// How the switch ends that says whether an interface listens to router advertisements: 1 only
/// while this machine forwards nothing, 2 always (Documentation/networking/ip-sysctl.rst).
pub const ACCEPT_RA: &str = "/accept_ra";

/// Whether the address is valid on its link only.
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

/// The same for IPv6 only.
pub fn is_v6_link_local(ip: IpAddr) -> bool {
    ip.is_ipv6() && is_link_local(ip)
}

/// A kernel switch below /proc/sys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// Path below `/proc/sys/`.
    pub path: String,
    /// What it should hold.
    pub value: String,
}

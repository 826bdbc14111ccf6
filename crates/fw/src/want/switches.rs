//! Which switches below /proc/sys the kernel needs.
//!
//! Pure. Called by want.rs.

use crate::have::{Have, Link};
use crate::input::lease::Current;
use crate::input::policy::Policy;
use crate::model::{ACCEPT_RA, FORWARD_V4, FORWARD_V6, Sysctl, bits};

use super::objects::{WantAddress, WantRoute};

/// Which kernel switches are needed, and no more.
pub(super) fn needed(
    current: &[Current],
    policy: &Policy,
    routes: &[WantRoute],
    addresses: &[WantAddress],
) -> Vec<Sysctl> {
    let mut out = Vec::new();
    let mut set = |path: String, value: &str| out.push(Sysctl { path, value: value.to_owned() });
    if policy.forward {
        set(FORWARD_V4.into(), "1");
        // Only with an IPv6 uplink of ours.
        if routes.iter().any(|r| r.destination.ip.is_ipv6() && r.destination.is_default()) {
            set(FORWARD_V6.into(), "1");
        }
    }
    let mut names: Vec<&str> =
        current.iter().filter(|(e, _)| e.network.address.is_some()).map(|(e, _)| e.interface()).collect();
    applet::sort::sort(&mut names);
    names.dedup();
    let has_default = |name: &str, v4: bool| {
        routes.iter().any(|r| r.interface == name && r.destination.is_default() && r.destination.ip.is_ipv4() == v4)
    };
    let several = names.iter().filter(|n| has_default(n, true)).count() > 1;
    for name in names.into_iter().filter(|n| *n != "lo") {
        let of = |v4: bool| addresses.iter().filter(move |a| a.interface == name && a.address.ip.is_ipv4() == v4);
        if of(true).next().is_some() {
            set(format!("net/ipv4/conf/{name}/ignore_routes_with_linkdown"), "1");
            // Without it the kernel deletes the new address of a network together with the old one.
            set(format!("net/ipv4/conf/{name}/promote_secondaries"), "1");
        }
        if of(false).next().is_some() {
            set(format!("net/ipv6/conf/{name}/ignore_routes_with_linkdown"), "1");
        }
        // `ip link set down` takes the addresses of IPv6 away, and `up` brings only these back.
        let is_lasting = |a: &WantAddress| a.origin.is_static && a.lifetime.is_none();
        if of(false).any(is_lasting) {
            set(format!("net/ipv6/conf/{name}/keep_addr_on_down"), "1");
        }
        // RFC 3704 2.4: strict reverse path filtering drops the answers that come in on the standby
        // uplink.
        if several && has_default(name, true) {
            set(format!("net/ipv4/conf/{name}/rp_filter"), "2");
        }
        // Two interfaces in one network: each answers and announces its own addresses only, not the
        // other's.
        let shared = |a: &WantAddress| {
            addresses.iter().any(|o| {
                o.interface != name
                    && bits(o.address.ip) == 32
                    && (o.address.contains(a.address.ip) || a.address.contains(o.address.ip))
            })
        };
        if of(true).any(shared) {
            set(format!("net/ipv4/conf/{name}/arp_ignore"), "1");
            set(format!("net/ipv4/conf/{name}/arp_announce"), "2");
        }
    }
    out
}

/// A kernel that forwards listens to no router advertisement, unless accept_ra is 2. So before it
/// forwards, each interface that listens goes on to do so, for every program, and those that
/// come later do, too. Where this machine is the router it hears none: on what a record declares
/// inside, and on another program's bridge of containers, one of which would make itself the way
/// out.
pub(super) fn listen(switches: &mut Vec<Sysctl>, have: &Have, is_router: impl Fn(&Link) -> bool) {
    let Some(at) = switches.iter().position(|s| s.path == FORWARD_V6) else { return };
    let links = have.links.iter().filter(|l| !l.loopback && !is_router(l)).map(|l| l.name.as_str());
    let listening = links
        .chain(["default"])
        .map(|name| Sysctl { path: format!("net/ipv6/conf/{name}{ACCEPT_RA}"), value: "2".to_owned() });
    let listening: Vec<Sysctl> = listening.collect();
    switches.splice(at..at, listening);
}

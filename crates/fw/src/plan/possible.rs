//! What of the wishes this kernel can have now: the rest is left out, and said. PURE.
//!
//! An interface that is missing may be plugged in later. IPv6 may be missing in the kernel,
//! switched off by the administrator, or impossible on a link whose MTU is too small: none of these
//! is an error. Called by plan.rs.

use std::borrow::Cow;

use crate::have::{Have, Link};
use crate::input::memory::Memory;
use crate::model::{ACCEPT_RA, FORWARD_V6};
use crate::want::{Origin, Want};

/// RFC 8200 5: no IPv6 on a link with less.
pub(super) const MTU_MIN_V6: u32 = 1280;

/// The wishes that can be fulfilled, and a line for each record of which something is left out.
/// Links that go in the end are missing already.
pub(super) fn possible<'a>(
    want: &'a Want,
    have: &Have,
    memory: &Memory,
    goes: &[String],
) -> (Cow<'a, Want>, Vec<String>) {
    let missing = want.links.iter().filter(|l| have.link(&l.interface).is_none() || goes.contains(&l.interface));
    let mut notes: Vec<String> = missing
        .map(|l| format!("{}: no interface {} yet: the next run looks again", l.origin.place, l.interface))
        .collect();
    let lacks: Vec<(&str, String)> =
        have.links.iter().filter_map(|l| Some((l.name.as_str(), lack_of_v6(l, have, memory)?))).collect();
    let lack = |name: &str| lacks.iter().find(|(n, _)| *n == name).map(|(_, reason)| reason.as_str());
    let mut left_out = |origin: &Origin, name: &str, reason: &str| {
        let note = format!("{}: IPv6 of {name} left out: {reason}", origin.place);
        if !notes.contains(&note) {
            notes.push(note);
        }
    };
    let addresses = want.addresses.iter().filter(|a| a.address.ip.is_ipv6()).map(|a| (&a.interface, &a.origin));
    let routes = want.routes.iter().filter(|r| r.destination.ip.is_ipv6()).map(|r| (&r.interface, &r.origin));
    for (name, origin) in addresses.chain(routes) {
        lack(name).into_iter().for_each(|reason| left_out(origin, name, reason));
    }
    let stays_port = |name: &str| {
        let port = have.link(name).filter(|port| port.master != 0);
        port.is_some() && want.links.iter().any(|l| l.interface == name && l.frozen && l.master.is_some())
    };
    let is_impossible = |name: &str| goes.iter().any(|n| n == name) || stays_port(name);
    let impossible: Vec<String> =
        want.links.iter().map(|l| l.interface.clone()).filter(|name| is_impossible(name)).collect();
    if lacks.is_empty() && impossible.is_empty() {
        return (Cow::Borrowed(want), notes);
    }
    let mut want = want.clone();
    want.addresses.retain(|a| !impossible.contains(&a.interface));
    want.routes.retain(|r| r.unreachable || !impossible.contains(&r.interface));
    want.addresses.retain(|a| a.address.ip.is_ipv4() || lack(&a.interface).is_none());
    want.routes.retain(|r| r.destination.ip.is_ipv4() || lack(&r.interface).is_none());
    // A forwarding kernel ignores router advertisements: without a default route of ours it may
    // need them.
    if !want.routes.iter().any(|r| r.destination.ip.is_ipv6() && r.destination.is_default()) {
        want.sysctls.retain(|s| s.path != FORWARD_V6 && !s.path.ends_with(ACCEPT_RA));
    }
    (Cow::Owned(want), notes)
}

/// Why this link can have no IPv6.
fn lack_of_v6(link: &Link, have: &Have, memory: &Memory) -> Option<String> {
    let mtu = memory.mtu(&link.name, link.mtu).map_or(link.mtu, |saved| saved.original);
    if have.without_v6 {
        Some("this kernel has none".to_owned())
    } else if have.v6_off.contains(&link.name) {
        Some(format!("net.ipv6.conf.{}.disable_ipv6 is 1", link.name))
    } else {
        (mtu < MTU_MIN_V6).then(|| format!("an MTU of {mtu} is below {MTU_MIN_V6}"))
    }
}

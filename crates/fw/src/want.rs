//! Records, fw.conf and what the kernel has -> [`Want`]: the whole policy of what the kernel should
//! look like.
//!
//! Pure. It decides which uplink comes first and with which metric, which one goes behind, and
//! which interfaces are external. plan.rs compares the result with the kernel. Called by run.rs.

use netd_core::net::IfName;

use crate::have::Have;
use crate::input::lease::Current;
use crate::input::memory::Memory;
use crate::input::policy::Policy;
use crate::input::policy::uplinks::Failback;
use crate::input::policy::zones::Target;

mod devices;
mod forwards;
pub mod judged;
mod links;
mod objects;
mod routes;
mod switches;
mod uplinks;
pub mod zones;

use forwards::Side;
use zones::Inside;

pub use forwards::{Openings, networks};
pub use objects::{Asked, Origin, Routed, Want, WantAddress, WantKind, WantLink, WantRoute};

/// Makes the `Want`. Remembered uplinks of this boot keep their rank, so that the metrics of the
/// others do not move when a lease comes and goes. They also stay external for the firewall. When
/// all uplinks are bad, the last one in use stays.
pub fn want(current: &[Current], policy: &Policy, memory: &Memory, have: &Have) -> Want {
    let zones = zones::zones(current, policy, memory, have);
    let uplinks = uplinks::rank(current, policy, &memory.uplinks, &zones);
    let mut want = Want { reset: policy.reset, zones, ..Want::default() };
    for (entry, lifetime) in current {
        links::add(&mut want, entry);
        let is_uplink = uplinks.iter().any(|u| u.name == entry.interface());
        links::add_address(&mut want, entry, *lifetime, is_uplink);
    }
    devices::check(&mut want);
    let uplink_metric = |name: &str| uplinks.iter().find(|u| u.name == name).map(|u| u.metric);
    let mut routes = Vec::new();
    for (entry, _) in current {
        routes::to_own_network(&mut routes, entry, uplink_metric(entry.interface()));
    }
    for (entry, _) in current {
        routes.extend(entry.hops.iter().map(|hop| routes::by_hop(&want, entry, hop, uplink_metric(entry.interface()))));
    }
    let external = want.zones.external();
    let names = uplinks.iter().map(|u| &u.name).chain(&external);
    want.numbers = uplinks::numbers(policy, names.collect(), &memory.numbers);
    want.marks = policy.forward && policy.firewall;
    let bad = uplinks::demoted(&uplinks, current, memory.best.as_deref());
    want.balance = uplinks::shares(policy, &routes, &bad);
    want.bad = bad.iter().map(ToString::to_string).collect();
    let by = policy.uplinks.route_by.iter();
    want.routed = by.map(|by| Routed { source: by.source, uplinks: by.uplinks.clone() }).collect();
    want.stay = policy.uplinks.failback == Failback::New;
    want.metered = policy.uplinks.metered.clone();
    routes::demote(&mut routes, &bad, policy);
    routes::separate(&mut routes);
    let is_outside = |name: &str| external.iter().any(|e| e == name) || uplink_metric(name).is_some();
    routes::behind(&mut routes, |r| !is_outside(&r.interface));
    want.sysctls = switches::needed(current, policy, &routes, &want.addresses);
    switches::listen(&mut want.sysctls, have, |link| {
        let is_declared = current.iter().any(|(e, _)| e.is_static && e.interface() == link.name);
        !is_outside(&link.name) && (is_declared || zones::kinds::is_for_guests(link, have))
    });
    want.routes = routes;
    devices::silence_ports(&mut want);
    want.uplinks = uplinks.into_iter().map(|u| u.name).collect();
    want.external = external;
    let goes_outside = |zone: &str| policy.zones.to(zone).iter().any(|to| matches!(to, Target::Any | Target::Outside));
    let side = |i: &Inside| Side { interface: i.interface.clone(), goes_outside: goes_outside(&i.zone) };
    let inside: Vec<Side> = want.zones.inside.iter().map(side).collect();
    let (openings, notes) = forwards::openings(policy, &inside, &want);
    want.openings = openings;
    want.notes.extend(notes);
    want.notes.extend(uplinks::in_vain(policy));
    let names = want.zones.nameless.iter().map(|index| have.name(*index));
    want.notes.extend(names.map(|name| format!("{}: closed: {}", name.escape_debug(), IfName::RULE)));
    want
}

#[cfg(test)]
pub(crate) mod tests;

//! (want, have) -> the changes that make the kernel match, in an order that never breaks what
//! works.
//!
//! Pure. Make before break: switches, links, addresses are added, ports join their bridges, routes
//! are added; then routes are deleted, ports leave, addresses and links are deleted. fw changes and
//! deletes only objects that bear its protocol number (with reset_all_netdevs, foreign ones too).
//! With an empty plan it writes nothing. Called by run.rs; kernel.rs applies it.

use std::net::IpAddr;
use std::time::Duration;

use crate::change::Change;
use crate::have::{Address, Have, Link, Route};
use crate::input::memory::{self, Memory};
use crate::model::{
    ADDRESS_PROTOCOLS_KERNEL, FORWARD_V4, FORWARD_V6, METRIC_BEHIND, METRIC_V6_DEFAULT, PROTOCOL, PROTOCOL_KERNEL,
    PROTOCOL_RA, PROTOCOL_REDIRECT, Prefix, Scope, Sysctl, TABLE_MAIN,
};
use crate::want::{Want, WantAddress, WantRoute};
use crate::ways::{Place, Ways, lists};

mod links;
mod possible;
mod prefixes;
pub mod refused;
mod switches;

use prefixes::{Maker, Prefixes};

/// A lifetime this close to the wanted one is not refreshed: both are cut to whole seconds, at
/// different moments.
const LIFETIME_TOLERANCE: Duration = Duration::from_secs(2);

/// The place of an interface in the path of its switch: `net/ipv4/conf/IF/...`.
const INTERFACE_OF_SWITCH: usize = 3;

/// The changes and what was learned while making them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are to be applied.
    pub changes: Vec<Change>,
    /// What the next run has to know.
    pub memory: Memory,
    /// Things that an administrator should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// Leaves out the switches that let packets through this machine: without the firewall every
    /// host outside could reach the hosts behind it. Returns whether there were any.
    pub fn withhold_forwarding(&mut self) -> bool {
        let before = self.changes.len();
        self.changes.retain(|c| !matches!(c, Change::Sysctl(s) if [FORWARD_V4, FORWARD_V6].contains(&s.path.as_str()) && s.value != "0"));
        self.changes.len() != before
    }
}

/// Compares. Applying the result to `have` gives `want`, and planning again gives nothing.
pub fn plan(want: &Want, have: &Have, memory: &Memory) -> Plan {
    let links = links::plan(want, have, memory);
    // As the kernel is when the links are there.
    let have = &*links.have;
    let (want, mut notes) = possible::possible(want, have, memory, &links.goes);
    let want = &*want;
    notes.extend(links.notes);
    let remembered = Memory { mtus: links.mtus, links: links.memory, ..remembered(want, have, memory) };
    let mut plan = Plan { memory: remembered, notes, ..Plan::default() };
    let switches = switches::compare(want, have, memory);
    plan.memory.switches = switches.saved;
    plan.changes.extend(switches.needed.into_iter().map(Change::Sysctl));
    let rises: Vec<u32> = links.makes.iter().filter_map(rises).collect();
    plan.changes.extend(links.makes);
    plan.changes.extend(switches_of(want, &links.made).map(Change::Sysctl));
    let removable = |r: &Route| is_ours(r) || (want.reset && may_reset_route(r));
    let prefixes = Prefixes { want, have, removable: &removable, rises: &rises };
    let unwanted = addresses(prefixes, &mut plan);
    plan.changes.extend(links.joins);
    routes(prefixes, &mut plan);
    plan.changes.extend(links.leaves);
    plan.changes.extend(unwanted);
    plan.changes.extend(links.removals);
    plan.changes.extend(switches.given_back.into_iter().map(Change::Sysctl));
    plan
}

/// The link that is set up.
fn rises(change: &Change) -> Option<u32> {
    match change {
        Change::LinkUp { index, .. } => Some(*index),
        _ => None,
    }
}

/// Everything but what belongs to links, the switches, and what is said.
fn remembered(want: &Want, have: &Have, before: &Memory) -> Memory {
    let there = |name: &str| have.link(name).is_some();
    let addresses = want.addresses.iter().filter(|a| there(&a.interface));
    let defaults = want.routes.iter().filter(|r| r.destination.is_default() && r.table == TABLE_MAIN);
    let best = defaults.filter(|r| there(&r.interface)).min_by_key(|r| r.metric);
    Memory {
        uplinks: want.uplinks.clone(),
        had: want.zones.had.clone(),
        outside: want.zones.outside.iter().map(|o| o.interface.clone()).collect(),
        inside: want.zones.inside.iter().map(|i| i.interface.clone()).collect(),
        numbers: want.numbers.clone(),
        // Without any uplink the last one is still remembered: it may come back first.
        best: best.map(|r| r.interface.clone()).or_else(|| before.best.clone()),
        mtus: Vec::new(),
        switches: Vec::new(),
        links: memory::links::Links::default(),
        said: Vec::new(),
        addresses: addresses.map(|a| (a.interface.clone(), a.address)).collect(),
    }
}

/// The switches of links that are yet to be made.
fn switches_of<'a>(want: &'a Want, made: &'a [String]) -> impl Iterator<Item = Sysctl> + 'a {
    let interface = |s: &Sysctl| s.path.split('/').nth(INTERFACE_OF_SWITCH).map(str::to_owned);
    want.sysctls.iter().filter(move |s| interface(s).is_some_and(|name| made.contains(&name))).cloned()
}

/// Adds what is missing and returns the deletions, which come last.
fn addresses(prefixes: Prefixes, plan: &mut Plan) -> Vec<Change> {
    let Prefixes { want, have, .. } = prefixes;
    let mut kept: Vec<(u32, IpAddr, u8)> = Vec::new();
    let mut unwanted = Vec::new();
    for (wanted, link) in want.addresses.iter().filter_map(|a| Some((a, have.link(&a.interface)?))) {
        let from = moved_from(wanted, link, want, have);
        let no_dad = from.is_some() && wanted.address.ip.is_ipv6();
        let mut address = Address { no_dad, ..resolve_address(wanted, link, prefixes) };
        kept.push((link.index, address.address.ip, address.address.len));
        let on_link = || have.addresses.iter().filter(|a| a.index == link.index);
        match on_link().find(|a| a.address == address.address) {
            Some(there) if there.protocol != PROTOCOL => {}
            Some(there) => renew(there, address, link, &mut plan.changes, &mut unwanted),
            None => {
                // IPv6 tells addresses apart without their length: the old one has to go first.
                let other_len = on_link()
                    .find(|a| a.address.ip == address.address.ip && a.address.ip.is_ipv6() && a.protocol == PROTOCOL);
                plan.changes.extend(other_len.map(|a| Change::DelAddress(link.name.clone(), a.clone())));
                kept.extend(other_len.map(|a| (a.index, a.address.ip, a.address.len)));
                if no_dad && address.kernel_prefix_route {
                    // The route turns to this link in one step, when the port has joined: of two
                    // routes with one metric IPv6 might take the other one now. Then it is the
                    // kernel's.
                    unwanted.push(Change::RefreshAddress(link.name.clone(), address.clone()));
                    address.kernel_prefix_route = false;
                }
                plan.changes.push(Change::AddAddress(link.name.clone(), address));
                plan.changes.extend(from.map(|from| tell_neighbours(from, link)).filter(|c| !plan.changes.contains(c)));
            }
        }
    }
    for there in &have.addresses {
        let keep = kept.contains(&(there.index, there.address.ip, there.address.len));
        let change = Change::DelAddress(have.name(there.index), there.clone());
        let is_gone = unwanted.contains(&change);
        if !keep && !is_gone && (there.protocol == PROTOCOL || (want.reset && may_reset_address(there, have))) {
            unwanted.push(change);
        }
    }
    unwanted
}

/// An address of ours that is there gets a new lifetime, the kernel's prefix route in place of
/// ours, or another metric for it.
///
/// Scope and flags of an IPv4 address that is there cannot be changed. So that the kernel makes the
/// prefix route, the address has to be made anew; meanwhile it is there with the length of a host,
/// so that it never goes, and with it neither goes what has it as its source.
fn renew(there: &Address, wanted: Address, link: &Link, changes: &mut Vec<Change>, unwanted: &mut Vec<Change>) {
    let turns = wanted.kernel_prefix_route && !there.kernel_prefix_route;
    if turns && there.address.ip.is_ipv4() {
        let host = Address {
            address: Prefix::host(there.address.ip),
            broadcast: None,
            lifetime: None,
            kernel_prefix_route: false,
            ..wanted.clone()
        };
        changes.push(Change::AddAddress(link.name.clone(), host.clone()));
        changes.push(Change::DelAddress(link.name.clone(), there.clone()));
        changes.push(Change::AddAddress(link.name.clone(), wanted));
        unwanted.push(Change::DelAddress(link.name.clone(), host));
        return;
    }
    let kernel_prefix_route = there.kernel_prefix_route || turns;
    let metric = if kernel_prefix_route { wanted.metric } else { there.metric };
    if turns || metric != there.metric || !same_lifetime(there.lifetime, wanted.lifetime) {
        let renewed = Address { lifetime: wanted.lifetime, kernel_prefix_route, metric, ..there.clone() };
        changes.push(Change::RefreshAddress(link.name.clone(), renewed));
    }
}

fn resolve_address(wanted: &WantAddress, link: &Link, prefixes: Prefixes) -> Address {
    let (kernel_prefix_route, metric) = prefixes.of_address(wanted);
    Address {
        index: link.index,
        address: wanted.address,
        broadcast: wanted.broadcast,
        scope: wanted.scope,
        lifetime: wanted.lifetime,
        kernel_prefix_route,
        metric: if prefixes.have.without_address_metric { 0 } else { metric },
        protocol: PROTOCOL,
        no_dad: false,
        autoconf: false,
    }
}

/// The link that has the address now, when a bridge takes it over from its port, or the other way
/// round. An IPv6 address has been looked for on this wire then, and until the kernel had looked
/// again it would answer nothing.
fn moved_from<'a>(wanted: &WantAddress, link: &Link, want: &Want, have: &'a Have) -> Option<&'a Link> {
    let is_asked = |port: &Link, bridge: &Link| {
        let wish = want.links.iter().find(|l| l.interface == port.name);
        wish.and_then(|l| l.master.as_ref()).is_some_and(|master| master.value == bridge.name)
    };
    let is_port = |port: &Link, bridge: &Link| port.master == bridge.index || is_asked(port, bridge);
    let is_same = |a: &&Address| a.address.ip == wanted.address.ip && a.index != link.index;
    let mut others = have.addresses.iter().filter(is_same).filter_map(|a| have.link_at(a.index));
    others.find(|other| is_port(other, link) || is_port(link, other))
}

fn tell_neighbours(from: &Link, to: &Link) -> Change {
    Change::Neighbours { from: from.index, index: to.index, names: [from.name.clone(), to.name.clone()] }
}

fn same_lifetime(a: Option<Duration>, b: Option<Duration>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.abs_diff(b) <= LIFETIME_TOLERANCE,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Not the kernel's own, nor those that older kernels do not mark as theirs.
fn may_reset_address(a: &Address, have: &Have) -> bool {
    let loopback = have.links.iter().any(|l| l.index == a.index && l.loopback);
    let link_local = matches!(a.address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !loopback && !link_local && !ADDRESS_PROTOCOLS_KERNEL.contains(&a.protocol)
}

/// Not the kernel's own, and in the main table only.
fn may_reset_route(r: &Route) -> bool {
    r.unicast && r.table == TABLE_MAIN && !matches!(r.protocol, PROTOCOL_REDIRECT | PROTOCOL_KERNEL | PROTOCOL_RA)
}

fn routes(prefixes: Prefixes, plan: &mut Plan) {
    let Prefixes { want, have, removable, .. } = prefixes;
    let ways = Ways::new(want, have, removable);
    plan.notes.extend(lists::in_vain(want, have));
    let wanted = resolve_routes(prefixes, &ways, &mut plan.notes);
    let (mut adds, mut replaces, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for route in &wanted {
        let name = have.name(route.index);
        if have.routes.iter().any(|r| r.is_same(route)) {
            continue;
        }
        match have.routes.iter().any(|r| r.key() == route.key()) {
            true => replaces.push(Change::ReplaceRoute(name, route.clone())),
            false => adds.push(Change::AddRoute(name, route.clone())),
        }
    }
    for route in have.routes.iter().filter(|r| removable(r)) {
        let taken_over = replaces.iter().any(|c| c.route().is_some_and(|r| r.key() == route.key()));
        let stays = wanted.iter().any(|w| w.is_same(route));
        if !taken_over && !stays {
            deletes.push(Change::DelRoute(have.name(route.index), route.clone()));
        }
    }
    deletes.extend(left_behind(prefixes));
    // New places before places taken over: no destination is ever without a route.
    let mut make: Vec<Change> = adds.into_iter().chain(replaces).collect();
    applet::sort::sort_by_key(&mut make, Change::stage);
    applet::sort::sort_by_key(&mut deletes, |c| 2 - c.stage());
    plan.changes.extend(make);
    plan.changes.extend(ways.changes(want, have));
    plan.changes.extend(deletes);
}

/// The kernel's routes over links from which an address moves onto a bridge, or back. The one over
/// the new link lies behind such a route, and takes over before a port leaves.
fn left_behind(prefixes: Prefixes) -> Vec<Change> {
    let Prefixes { want, have, .. } = prefixes;
    let mut out = Vec::new();
    for wanted in want.routes.iter().filter(|r| r.is_prefix_route && r.destination.ip.is_ipv4()) {
        let (Some(link), Some(address)) = (have.link(&wanted.interface), prefixes.address(wanted)) else { continue };
        let Some(from) = moved_from(address, link, want, have) else { continue };
        let is_it =
            |r: &&Route| r.index == from.index && r.destination == wanted.destination && have.is_for_our_address(r);
        let stays = want.addresses.iter().any(|a| a.interface == from.name && a.address == address.address);
        if !stays && prefixes.maker(wanted, link).0 == Maker::KernelSoon {
            let routes = have.routes.iter().filter(is_it);
            out.extend(routes.map(|route| Change::DelRoute(from.name.clone(), route.clone())));
        }
    }
    out
}

/// What does not lead to an interface is ours only where a list of uplinks ends, and behind a
/// network of the inside.
fn is_ours(r: &Route) -> bool {
    let is_end = lists::is_table(r.table) || (r.table == TABLE_MAIN && r.metric == METRIC_BEHIND);
    r.protocol == PROTOCOL && (r.unicast || is_end)
}

/// Wanted routes with the kernel's numbers. A foreign route keeps its place: ours takes the next
/// metric.
fn resolve_routes(prefixes: Prefixes, ways: &Ways, notes: &mut Vec<String>) -> Vec<Route> {
    let Prefixes { want, have, removable, .. } = prefixes;
    let mut out: Vec<Route> = Vec::new();
    for wanted in &want.routes {
        if wanted.unreachable {
            out.extend(Some(behind(wanted)).filter(|_| wanted.destination.ip.is_ipv4() || !have.without_v6));
            continue;
        }
        let Some(link) = have.link(&wanted.interface) else { continue };
        let v6 = wanted.destination.ip.is_ipv6();
        let plain = if v6 { METRIC_V6_DEFAULT } else { 0 };
        let route = over(link, wanted, plain);
        let foreign = |r: &Route| {
            let is_held = |h: &Route| !removable(h) && !have.is_for_our_address(h);
            have.routes.iter().any(|h| h.key() == r.key() && is_held(h))
        };
        let mut put = |mut route: Route| {
            while (foreign(&route) || out.iter().any(|o| o.key() == route.key())) && route.metric < u32::MAX {
                route.metric += 1;
            }
            let metric = route.metric;
            out.push(route);
            metric
        };
        for Place { table, metric } in ways.places(wanted) {
            put(Route { table, metric: metric.unwrap_or(plain), ..route.clone() });
        }
        if wanted.is_prefix_route {
            let (maker, metric) = prefixes.maker(wanted, link);
            let moves = |a: &WantAddress| moved_from(a, link, want, have).map(|from| from.index);
            let from = prefixes.address(wanted).and_then(moves);
            let turns = |r: &Route| removable(r) || (have.is_for_our_address(r) && Some(r.index) == from);
            match maker {
                Maker::Us => {}
                Maker::Other => continue,
                // IPv6 takes no second route of the same key: ours becomes the kernel's. So does
                // one over the port from which the address moves onto its bridge.
                Maker::KernelSoon if v6 && have.routes.iter().any(|r| r.key() == route.key() && turns(r)) => {
                    out.push(Route { protocol: PROTOCOL_KERNEL, metric, ..route });
                    continue;
                }
                Maker::KernelSoon => continue,
                Maker::Kernel => {
                    out.push(Route { protocol: PROTOCOL_KERNEL, metric, ..route });
                    continue;
                }
            }
        }
        let (asked, destination) = (route.metric, route.destination);
        let used = put(route);
        if used != asked && !wanted.is_prefix_route {
            notes.push(format!(
                "route {destination} dev {}: metric {asked} is held by another route: {used} used",
                link.name
            ));
        }
    }
    out.extend(ways.ends());
    out
}

/// The route as it is wanted, over this link. `plain`: the metric of a route without one.
fn over(link: &Link, wanted: &WantRoute, plain: u32) -> Route {
    Route {
        index: link.index,
        next_hops: Vec::new(),
        destination: wanted.destination,
        gateway: wanted.gateway,
        onlink: wanted.onlink,
        dead: false,
        metric: if wanted.metric == 0 { plain } else { wanted.metric },
        table: wanted.table,
        scope: if wanted.destination.ip.is_ipv6() { Scope::Global } else { wanted.scope },
        source: wanted.source,
        tos: 0,
        protocol: PROTOCOL,
        unicast: true,
    }
}

/// The route that refuses a packet where no other one to this network is usable.
fn behind(wanted: &WantRoute) -> Route {
    Route {
        index: 0,
        next_hops: Vec::new(),
        destination: wanted.destination,
        gateway: None,
        onlink: false,
        dead: false,
        metric: METRIC_BEHIND,
        table: wanted.table,
        scope: Scope::Global,
        source: None,
        tos: 0,
        protocol: PROTOCOL,
        unicast: false,
    }
}

#[cfg(test)]
mod tests;

//! (want, have) -> the changes that make the kernel match, in an order that never breaks what works.
//!
//! Pure. Make before break: switches, links, addresses, routes are added, then routes and addresses are deleted. Only
//! what bears our protocol number is ever changed or deleted (or anything, with reset_all_netdevs). An empty plan means
//! that nothing is written. Called by run.rs; kernel.rs applies it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::memory::{Memory, SavedMtu};
use crate::model::{
    Address, FORWARD_V4, FORWARD_V6, Have, Link, METRIC_V6_DEFAULT, PROTOCOL, PROTOCOL_KERNEL, PROTOCOL_RA, Prefix,
    Route, Scope, Sysctl, TABLE_MAIN, Want, WantAddress, WantLink, WantRoute,
};
use crate::rule::{self, Rule};

/// A lifetime this close to the wanted one is not refreshed: both are cut to whole seconds, at different moments.
const LIFETIME_TOLERANCE: Duration = Duration::from_secs(2);
/// RFC 8200 5: no IPv6 on a link with less.
const MTU_MIN_V6: u32 = 1280;

/// One write to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write a switch below /proc/sys.
    Sysctl(Sysctl),
    /// Set a link's MTU.
    LinkMtu {
        /// Kernel's number.
        index: u32,
        /// Name, for messages.
        name: String,
        /// Bytes.
        mtu: u32,
    },
    /// Set a link up.
    LinkUp {
        /// Kernel's number.
        index: u32,
        /// Name, for messages.
        name: String,
    },
    /// Add an address.
    AddAddress(String, Address),
    /// Give an address of ours a new lifetime.
    RefreshAddress(String, Address),
    /// Add a route.
    AddRoute(String, Route),
    /// Put a route of ours into the place of another one with the same destination and metric.
    ReplaceRoute(String, Route),
    /// Delete a route.
    DelRoute(String, Route),
    /// Add a rule.
    AddRule(Rule),
    /// Delete a rule.
    DelRule(Rule),
    /// Delete an address.
    DelAddress(String, Address),
}

impl Change {
    /// The kernel's number of the interface that it is about; 0 for a route over several.
    pub fn index(&self) -> Option<u32> {
        match self {
            Change::LinkMtu { index, .. } | Change::LinkUp { index, .. } => Some(*index),
            Change::AddAddress(_, a) | Change::RefreshAddress(_, a) | Change::DelAddress(_, a) => Some(a.index),
            Change::AddRoute(_, r) | Change::ReplaceRoute(_, r) | Change::DelRoute(_, r) => Some(r.index),
            Change::Sysctl(_) | Change::AddRule(_) | Change::DelRule(_) => None,
        }
    }

    /// The route, when it is about one.
    pub fn route(&self) -> Option<&Route> {
        match self {
            Change::AddRoute(_, r) | Change::ReplaceRoute(_, r) | Change::DelRoute(_, r) => Some(r),
            Change::Sysctl(_)
            | Change::LinkMtu { .. }
            | Change::LinkUp { .. }
            | Change::AddAddress(..)
            | Change::RefreshAddress(..)
            | Change::DelAddress(..)
            | Change::AddRule(_)
            | Change::DelRule(_) => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Sysctl(s) => write!(f, "~ sysctl {}={}", s.path, s.value),
            Change::LinkMtu { name, mtu, .. } => write!(f, "~ link {name} mtu {mtu}"),
            Change::LinkUp { name, .. } => write!(f, "~ link {name} up"),
            Change::AddAddress(name, a) => write!(f, "+ address {}", show_address(name, a)),
            Change::RefreshAddress(name, a) => write!(f, "~ address {}", show_address(name, a)),
            Change::DelAddress(name, a) => write!(f, "- address {} dev {name}", a.address),
            Change::AddRoute(name, r) => write!(f, "+ route {}", show_route(name, r)),
            Change::ReplaceRoute(name, r) => write!(f, "~ route {}", show_route(name, r)),
            Change::DelRoute(name, r) => write!(f, "- route {}", show_route(name, r)),
            Change::AddRule(r) => write!(f, "+ rule {r}"),
            Change::DelRule(r) => write!(f, "- rule {r}"),
        }
    }
}

fn show_address(name: &str, a: &Address) -> String {
    let lifetime = a.lifetime.map_or_else(|| "forever".to_owned(), |d| format!("{}sec", d.as_secs()));
    format!("{} dev {name} valid_lft {lifetime}", a.address)
}

fn show_route(name: &str, r: &Route) -> String {
    let mut out = if r.destination.is_default() && r.destination.ip.is_ipv4() {
        "default".to_owned()
    } else {
        r.destination.to_string()
    };
    if let Some(gateway) = r.gateway {
        out += &format!(" via {gateway}");
    }
    out += &format!(" dev {name} metric {}", r.metric);
    if let Some(source) = r.source {
        out += &format!(" src {source}");
    }
    if r.table != TABLE_MAIN {
        out += &format!(" table {}", r.table);
    }
    if r.onlink {
        out += " onlink";
    }
    out
}

/// The changes and what was learned while making them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are to be applied.
    pub changes: Vec<Change>,
    /// Interfaces that records name and that are not there.
    pub missing: Vec<String>,
    /// MTUs to remember.
    pub mtus: Vec<SavedMtu>,
    /// Things that an administrator should know.
    pub notes: Vec<String>,
}

impl Plan {
    /// Leaves out what would let packets through this machine: without the firewall everybody outside could reach all that is behind
    /// it. Whether there was any.
    pub fn withhold_forwarding(&mut self) -> bool {
        let before = self.changes.len();
        self.changes.retain(|c| !matches!(c, Change::Sysctl(s) if [FORWARD_V4, FORWARD_V6].contains(&s.path.as_str())));
        self.changes.len() != before
    }
}

/// Compares. Applying the result to `have` gives `want`, and planning again gives nothing.
pub fn plan(want: &Want, have: &Have, memory: &Memory) -> Plan {
    let mut plan = Plan::default();
    for link in &want.links {
        if have.link(&link.interface).is_none() && !plan.missing.contains(&link.interface) {
            plan.missing.push(link.interface.clone());
        }
    }
    plan.changes.extend(sysctls(want, have).map(Change::Sysctl));
    links(want, have, memory, &mut plan);
    let unwanted = addresses(want, have, &mut plan);
    routes(want, have, &mut plan);
    plan.changes.extend(unwanted);
    plan
}

fn sysctls<'a>(want: &'a Want, have: &'a Have) -> impl Iterator<Item = Sysctl> + 'a {
    let value = |path: &str| have.sysctls.iter().find(|s| s.path == path).map(|s| s.value.as_str());
    want.sysctls
        .iter()
        .filter(move |s| match s.path.ends_with("/rp_filter") {
            // Loose is only needed where it is strict: the larger of `all` and the interface's own counts.
            true => {
                let own = value(&s.path).unwrap_or("2");
                own == "1" || (own == "0" && value("net/ipv4/conf/all/rp_filter") == Some("1"))
            }
            // A switch that could not be read belongs to a missing interface or an older kernel.
            false => value(&s.path).is_some_and(|v| v != s.value),
        })
        .cloned()
}

fn links(want: &Want, have: &Have, memory: &Memory, plan: &mut Plan) {
    for link in &have.links {
        let wanted = want.links.iter().find(|l| l.interface == link.name);
        mtu(want, have, link, wanted, memory, plan);
        if wanted.is_some_and(|l| l.up) && !link.up {
            plan.changes.push(Change::LinkUp { index: link.index, name: link.name.clone() });
        }
    }
}

/// Lowers the MTU as far as a record asks, never above what the link had, and gives it back when no record asks any more.
///
/// An MTU that a lease has lowered outlives the lease: only another lease gives it back. Some cards lose their link for a
/// moment when their MTU changes, and with the link goes the lease: to give the MTU back then would be another change, and
/// so on without end.
fn mtu(want: &Want, have: &Have, link: &Link, wanted: Option<&WantLink>, memory: &Memory, plan: &mut Plan) {
    let saved = memory.mtus.iter().find(|m| m.interface == link.name && m.ours == link.mtu);
    let leased = wanted.is_some_and(|l| l.leased);
    let kept = saved.filter(|m| m.leased && !leased);
    let asked = [wanted.and_then(|l| l.mtu), kept.map(|m| m.ours)].into_iter().flatten().min();
    let original = saved.map_or(link.mtu, |m| m.original);
    let has_v6 = have.addresses.iter().any(|a| a.index == link.index && a.address.ip.is_ipv6())
        || want.addresses.iter().any(|a| a.interface == link.name && a.address.ip.is_ipv6());
    let least = link.min_mtu.max(if has_v6 { MTU_MIN_V6 } else { 0 });
    let target = asked.map_or(original, |mtu| mtu.max(least).min(original));
    if target != link.mtu {
        plan.changes.push(Change::LinkMtu { index: link.index, name: link.name.clone(), mtu: target });
    }
    if target != original {
        let leased = leased || kept.is_some();
        plan.mtus.push(SavedMtu { interface: link.name.clone(), original, ours: target, leased });
    }
}

/// Adds what is missing and returns the deletions, which come last.
fn addresses(want: &Want, have: &Have, plan: &mut Plan) -> Vec<Change> {
    let mut kept: Vec<(u32, IpAddr, u8)> = Vec::new();
    let mut unwanted = Vec::new();
    for (wanted, link) in want.addresses.iter().filter_map(|a| Some((a, have.link(&a.interface)?))) {
        let address = resolve_address(wanted, link);
        kept.push((link.index, address.address.ip, address.address.len));
        let on_link = || have.addresses.iter().filter(|a| a.index == link.index);
        match on_link().find(|a| a.address == address.address) {
            Some(there) if there.protocol != PROTOCOL => {}
            Some(there) if same_lifetime(there.lifetime, address.lifetime) => {}
            Some(there) => {
                // Scope and flags of an address that is there cannot be changed: resend them as they are.
                let renewed = Address { lifetime: address.lifetime, ..there.clone() };
                plan.changes.push(Change::RefreshAddress(link.name.clone(), renewed));
            }
            None => {
                // IPv6 tells addresses apart without their length: the old one has to go first.
                let other_len = on_link()
                    .find(|a| a.address.ip == address.address.ip && a.address.ip.is_ipv6() && a.protocol == PROTOCOL);
                plan.changes.extend(other_len.map(|a| Change::DelAddress(link.name.clone(), a.clone())));
                kept.extend(other_len.map(|a| (a.index, a.address.ip, a.address.len)));
                plan.changes.push(Change::AddAddress(link.name.clone(), address));
            }
        }
    }
    for there in &have.addresses {
        let keep = kept.contains(&(there.index, there.address.ip, there.address.len));
        if !keep && (there.protocol == PROTOCOL || (want.reset && may_reset_address(there, have))) {
            unwanted.push(Change::DelAddress(have.name(there.index), there.clone()));
        }
    }
    unwanted
}

fn resolve_address(wanted: &WantAddress, link: &Link) -> Address {
    Address {
        index: link.index,
        address: wanted.address,
        broadcast: wanted.broadcast,
        scope: wanted.scope,
        lifetime: wanted.lifetime,
        kernel_prefix_route: wanted.kernel_prefix_route,
        protocol: PROTOCOL,
    }
}

fn same_lifetime(a: Option<Duration>, b: Option<Duration>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.abs_diff(b) <= LIFETIME_TOLERANCE,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Not the kernel's own (IFAPROT_KERNEL_LO, _RA, _LL are 1, 2, 3), nor what older kernels do not mark as theirs.
fn may_reset_address(a: &Address, have: &Have) -> bool {
    let loopback = have.links.iter().any(|l| l.index == a.index && l.loopback);
    let link_local = matches!(a.address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    !loopback && !link_local && !matches!(a.protocol, 1..=3)
}

/// Not the kernel's own (RTPROT_REDIRECT is 1), and in the main table only.
fn may_reset_route(r: &Route) -> bool {
    r.unicast && r.table == TABLE_MAIN && !matches!(r.protocol, 1 | PROTOCOL_KERNEL | PROTOCOL_RA)
}

/// What the kernel tells routes apart by.
fn key(r: &Route) -> (u32, Prefix, u8, u32) {
    (r.table, r.destination, r.tos, r.metric)
}

fn is_same(a: &Route, b: &Route) -> bool {
    let scope = a.scope == b.scope || a.destination.ip.is_ipv6();
    key(a) == key(b)
        && scope
        && (a.index, a.gateway, a.onlink, a.source, a.protocol) == (b.index, b.gateway, b.onlink, b.source, b.protocol)
        && a.unicast == b.unicast
}

fn routes(want: &Want, have: &Have, plan: &mut Plan) {
    let removable = |r: &Route| (r.protocol == PROTOCOL && r.unicast) || (want.reset && may_reset_route(r));
    let possible = [true, false].map(|v4| rule::are_possible(want, have, v4, &removable));
    let wanted = resolve_routes(want, have, possible, &removable, &mut plan.notes);
    let (mut adds, mut replaces, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    for route in &wanted {
        let name = have.name(route.index);
        if have.routes.iter().any(|r| is_same(r, route)) {
            continue;
        }
        match have.routes.iter().any(|r| key(r) == key(route)) {
            true => replaces.push(Change::ReplaceRoute(name, route.clone())),
            false => adds.push(Change::AddRoute(name, route.clone())),
        }
    }
    for route in have.routes.iter().filter(|r| removable(r)) {
        let taken_over = wanted.iter().any(|w| key(w) == key(route));
        let stays = wanted.iter().any(|w| is_same(w, route));
        if !taken_over && !stays {
            deletes.push(Change::DelRoute(have.name(route.index), route.clone()));
        }
    }
    // On the link first: a router must be reachable before a route goes through it. Defaults last: everything is ready
    // when the packets turn. New places before places taken over: nobody is ever without a route.
    let stage =
        |c: &Change| c.route().map_or(0, |r| u8::from(r.gateway.is_some()) + u8::from(r.destination.is_default()));
    let mut make: Vec<Change> = adds.into_iter().chain(replaces).collect();
    make.sort_by_key(stage);
    deletes.sort_by_key(|c| 2 - stage(c));
    plan.changes.extend(make);
    rule::plan(want, have, possible, plan);
    plan.changes.extend(deletes);
}

/// Wanted routes with the kernel's numbers. A place that a foreign route holds is left to it: ours takes the next metric.
fn resolve_routes(
    want: &Want,
    have: &Have,
    [way_v4, way_v6]: [bool; 2],
    removable: &dyn Fn(&Route) -> bool,
    notes: &mut Vec<String>,
) -> Vec<Route> {
    let mut out: Vec<Route> = Vec::new();
    for wanted in &want.routes {
        let Some(link) = have.link(&wanted.interface) else { continue };
        let v6 = wanted.destination.ip.is_ipv6();
        let plain = if v6 { METRIC_V6_DEFAULT } else { 0 };
        let route = Route {
            index: link.index,
            destination: wanted.destination,
            gateway: wanted.gateway,
            onlink: wanted.onlink,
            dead: false,
            metric: if wanted.metric == 0 { plain } else { wanted.metric },
            table: wanted.table,
            scope: if v6 { Scope::Global } else { wanted.scope },
            source: wanted.source,
            tos: 0,
            protocol: PROTOCOL,
            unicast: true,
        };
        let foreign = |r: &Route| have.routes.iter().any(|h| key(h) == key(r) && !removable(h));
        let mut put = |mut route: Route| {
            while (foreign(&route) || out.iter().any(|o| key(o) == key(&route))) && route.metric < u32::MAX {
                route.metric += 1;
            }
            let metric = route.metric;
            out.push(route);
            metric
        };
        if wanted.way != 0 && if v6 { way_v6 } else { way_v4 } {
            put(Route { table: wanted.way, metric: plain, ..route.clone() });
        }
        if wanted.is_prefix_route && kernel_has_prefix_route(wanted, link, have) {
            continue;
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
    out
}

/// The address was there before us, made by somebody who let the kernel add its prefix route.
fn kernel_has_prefix_route(wanted: &WantRoute, link: &Link, have: &Have) -> bool {
    have.addresses.iter().any(|a| {
        a.index == link.index
            && a.protocol != PROTOCOL
            && a.kernel_prefix_route
            && a.address.network() == wanted.destination
    })
}

/// The routes as they will be after the changes. What the kernel removes by itself with an address is not foreseen.
pub fn routes_after(routes: &[Route], changes: &[Change]) -> Vec<Route> {
    let mut out = routes.to_vec();
    for change in changes {
        match change {
            Change::AddRoute(_, r) => out.push(r.clone()),
            Change::ReplaceRoute(_, r) => {
                out.retain(|o| key(o) != key(r));
                out.push(r.clone());
            }
            Change::DelRoute(_, r) => out.retain(|o| !is_same(o, r)),
            Change::Sysctl(_)
            | Change::LinkMtu { .. }
            | Change::LinkUp { .. }
            | Change::AddAddress(..)
            | Change::RefreshAddress(..)
            | Change::DelAddress(..)
            | Change::AddRule(_)
            | Change::DelRule(_) => {}
        }
    }
    out
}

#[cfg(test)]
mod tests;

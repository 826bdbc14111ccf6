//! Routes as the records ask for them, with their metrics.
//!
//! Pure. Called by want.rs.

use std::net::IpAddr;

use netd_core::record::Hop;

use crate::input::policy::Policy;
use crate::model::{
    METRIC_BEHIND, METRIC_V6_DEFAULT, METRIC_V6_PREFIX, Prefix, Scope, TABLE_MAIN, is_link_local, is_v6_link_local,
};
use crate::record::Entry;

use super::objects::{Origin, Want, WantRoute};

/// The route to the address's own network. Two uplinks in one network need different metrics. Who
/// makes it, the kernel or fw, plan/prefixes.rs knows.
pub(super) fn to_own_network(routes: &mut Vec<WantRoute>, entry: &Entry, uplink_metric: Option<u32>) {
    let Some(address) = entry.network.address else { return };
    if address.is_host() || address.ip.is_loopback() || entry.interface() == "lo" || is_v6_link_local(address.ip) {
        return;
    }
    let destination = address.network();
    if routes.iter().any(|r| r.interface == entry.interface() && r.destination == destination) {
        return;
    }
    let plain = if address.ip.is_ipv4() { 0 } else { METRIC_V6_PREFIX };
    routes.push(WantRoute {
        interface: entry.interface().to_owned(),
        destination,
        gateway: None,
        onlink: false,
        metric: uplink_metric.map_or(plain, |rank| entry.network.metric.unwrap_or(rank)),
        table: TABLE_MAIN,
        scope: Scope::Link,
        source: Some(address.ip).filter(IpAddr::is_ipv4),
        is_prefix_route: true,
        unreachable: false,
        origin: Origin::by(entry, "ipmask"),
    });
}

pub(super) fn by_hop(want: &Want, entry: &Entry, hop: &Hop, uplink_metric: Option<u32>) -> WantRoute {
    let own_networks = || want.addresses.iter().filter(|a| a.interface == entry.interface()).map(|a| a.address);
    // A router outside every network of the interface, as with a /32 lease: tell the kernel that it
    // is on the link all the same.
    let inside = |g: IpAddr| is_v6_link_local(g) || own_networks().any(|n| !n.is_host() && n.contains(g));
    let v4 = hop.destination.ip.is_ipv4();
    let plain = if v4 { 0 } else { METRIC_V6_DEFAULT };
    let key = match (entry.network.said.routes.is_empty(), hop.gateway) {
        (false, _) => "routes",
        (true, Some(_)) => "gw",
        (true, None) => "net",
    };
    WantRoute {
        interface: entry.interface().to_owned(),
        destination: hop.destination,
        gateway: hop.gateway,
        onlink: hop.gateway.is_some_and(|g| !inside(g)),
        metric: entry.network.metric.or(uplink_metric).unwrap_or(plain),
        table: entry.table(),
        scope: if hop.gateway.is_some() { Scope::Global } else { Scope::Link },
        // With an IPv4 source the kernel removes the route together with the address when the lease
        // ends, even when no daemon is left. IPv6 refuses a source that is still tentative (RFC
        // 4862 5.4).
        source: entry.network.source.or_else(|| entry.network.address.map(|a| a.ip).filter(|ip| v4 && ip.is_ipv4())),
        is_prefix_route: false,
        unreachable: false,
        origin: Origin::by(entry, key),
    }
}

/// A route behind each network of the inside, which refuses what no other route takes. Without
/// carrier, without its interface or before fw has made its route, a packet to such a network would
/// leave by the default route, to a provider where the same numbers belong to other people.
pub(super) fn behind(routes: &mut Vec<WantRoute>, is_inside: impl Fn(&WantRoute) -> bool) {
    let mut out: Vec<WantRoute> = Vec::new();
    for route in routes.iter().filter(|r| r.table == TABLE_MAIN && r.origin.is_static && is_inside(r)) {
        let is_there = out.iter().any(|o| o.destination == route.destination);
        if !is_there && !route.destination.is_default() && !is_link_local(route.destination.ip) {
            out.push(WantRoute {
                gateway: None,
                onlink: false,
                metric: METRIC_BEHIND,
                scope: Scope::Global,
                source: None,
                is_prefix_route: false,
                unreachable: true,
                ..route.clone()
            });
        }
    }
    routes.extend(out);
}

/// Puts routes of a bad uplink behind those of another interface that could serve them too. They
/// stay, in case all uplinks are bad.
pub(super) fn demote(routes: &mut [WantRoute], bad: &[&str], policy: &Policy) {
    let served: Vec<(String, Prefix, u32)> =
        routes.iter().map(|r| (r.interface.clone(), r.destination, r.table)).collect();
    for route in routes.iter_mut().filter(|r| bad.contains(&r.interface.as_str())) {
        let elsewhere =
            served.iter().any(|(i, d, t)| *i != route.interface && *d == route.destination && *t == route.table);
        if elsewhere || route.destination.is_default() {
            route.metric = route.metric.saturating_add(policy.uplinks.demote_metric);
        }
    }
}

/// The kernel tells routes apart by table, destination and metric: of several with the same three,
/// the later ones get the next free metric. Two routes that are equal in all are one.
pub(super) fn separate(routes: &mut Vec<WantRoute>) {
    let mut out: Vec<WantRoute> = Vec::with_capacity(routes.len());
    for mut route in routes.drain(..) {
        let key = |r: &WantRoute| (r.table, r.destination);
        let same_way = |r: &WantRoute| {
            key(r) == key(&route)
                && r.interface == route.interface
                && r.gateway == route.gateway
                && r.metric == route.metric
        };
        if out.iter().any(same_way) {
            continue;
        }
        while out.iter().any(|r| key(r) == key(&route) && r.metric == route.metric) && route.metric < u32::MAX {
            route.metric += 1;
        }
        out.push(route);
    }
    *routes = out;
}

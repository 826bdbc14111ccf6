//! A list of routes as a server sends it, and which of them are kept where all do not fit.
//!
//! Pure. Called by bounds.rs and record.rs (a record has so many places) and by env.rs (a variable
//! has so many bytes).

use std::net::Ipv4Addr;

use netd_core::net::is_host;

/// A destination, its prefix length, and the router: RFC 3442.
pub type Route = (Ipv4Addr, u8, Ipv4Addr);

/// The first routes whose costs fit into `budget`, in their order. The default route that will be
/// used, and the route to a router outside of the own network, have their place before all others.
pub fn keep(list: &[Route], budget: usize, cost: impl Fn(&Route) -> usize) -> Vec<Route> {
    let usable = list.iter().position(|(_, len, gw)| *len == 0 && is_host(*gw));
    let default = usable.or_else(|| list.iter().position(|(_, len, _)| *len == 0));
    let router = default.and_then(|at| list.get(at)).map(|(_, _, gw)| *gw);
    let on_link = list.iter().position(|(net, len, gw)| *len == 32 && gw.is_unspecified() && Some(*net) == router);
    let first = [default, on_link];
    let is_first = |at| first.contains(&Some(at));
    let mut left =
        first.iter().flatten().filter_map(|at| list.get(*at)).fold(budget, |left, r| left.saturating_sub(cost(r)));
    let mut full = false;
    let mut kept = Vec::new();
    for (at, route) in list.iter().enumerate() {
        if is_first(at) {
            kept.push(*route);
        } else if !full && cost(route) <= left {
            left -= cost(route);
            kept.push(*route);
        } else {
            full = true;
        }
    }
    kept
}

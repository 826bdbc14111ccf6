//! Which of a server's routes are taken (`--classless-routes`): a DHCP server must not draw away
//! traffic that other networks carry.
//!
//! Pure. A route that is more specific than a VPN's wins over it in every kernel, so a DHCP server
//! could lead traffic around the VPN (TunnelVision, CVE-2024-3661). `vet` takes refused routes out
//! of the reply itself, so that script and record see the same. The default route is never refused.
//! Called by vet.rs.

use std::net::Ipv4Addr;

use netd::reach::Reached;
use netd_core::net::is_host;

use crate::env;
use crate::lease::class_len;
use crate::message::Reply;
use crate::options::{HOST_ROUTES, MS_STATIC_ROUTES, ROUTER, STATIC_ROUTES};
use crate::route_list::Route;

/// Two routes of length 1 cover the internet. No provider gives a network shorter than this.
const MIN_PREFIX: u8 = 8;
/// Addresses of public networks in all routes together: as many as one /8 has, a 256th of the
/// internet.
const MAX_PUBLIC: u64 = 1 << 24;
/// Refused routes that are named.
const MAX_NAMED: usize = 4;
/// Networks that are not routed in public: RFC 1918, 6598 (carriers), 3927.
const PRIVATE: [Reached; 5] = [
    private([10, 0, 0, 0], 8),
    private([172, 16, 0, 0], 12),
    private([192, 168, 0, 0], 16),
    private([100, 64, 0, 0], 10),
    private([169, 254, 0, 0], 16),
];

const fn private([a, b, c, d]: [u8; 4], len: u8) -> Reached {
    Reached { net: Ipv4Addr::new(a, b, c, d), len, on_link: false, tunnel: false }
}

/// Which routes are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// What cannot capture what other interfaces carry.
    #[default]
    Safe,
    /// Everything.
    All,
    /// The default route.
    DefaultOnly,
    /// Nothing: as a client that does not know these options.
    No,
}

impl Policy {
    /// As the command line has it.
    pub fn parse(text: &str) -> Option<Policy> {
        match text {
            "safe" => Some(Policy::Safe),
            "all" => Some(Policy::All),
            "default-only" => Some(Policy::DefaultOnly),
            "no" => Some(Policy::No),
            _ => None,
        }
    }

    /// Whether it has to know what other interfaces carry.
    pub fn asks(self, reply: &Reply) -> bool {
        self == Policy::Safe
            && [STATIC_ROUTES, MS_STATIC_ROUTES, HOST_ROUTES].iter().any(|c| reply.option(*c).is_some())
    }
}

/// Takes the refused routes out. Returns a line for the log, empty when there is nothing to say.
pub fn vet(policy: Policy, reply: &mut Reply, elsewhere: &[Reached]) -> String {
    if policy == Policy::All {
        return String::new();
    }
    let router = quads(reply.option(ROUTER).unwrap_or_default()).first().copied();
    let mut refused = Vec::new();
    for code in [STATIC_ROUTES, MS_STATIC_ROUTES, HOST_ROUTES] {
        let Some(data) = reply.option(code) else { continue };
        let list = if code == HOST_ROUTES { host_routes(data) } else { env::routes(data) };
        // Only one router: with more, a server could call each host that it wants to draw away a
        // router.
        let router = list.iter().find(|(_, len, _)| *len == 0).map(|(_, _, gw)| *gw).or(router);
        let mut judge = Judge { policy, elsewhere, router, public: 0 };
        let before = refused.len();
        let mut kept = Vec::new();
        for route in list {
            match judge.refusal(&route) {
                None => kept.push(route),
                Some(why) => refused.push((route, why)),
            }
        }
        // A malformed list has no routes and stays as it is: a script sees what it always saw.
        if refused.len() > before || policy == Policy::No {
            reply.set(code, encode(code, &kept));
        }
    }
    if policy == Policy::Safe { words(&refused) } else { String::new() }
}

/// `--no-default-route`: takes out the routers, and the default route among the classless ones.
pub fn drop_default(reply: &mut Reply) {
    reply.set(ROUTER, Vec::new());
    let classless = [STATIC_ROUTES, MS_STATIC_ROUTES].into_iter().find(|code| reply.option(*code).is_some());
    for code in [STATIC_ROUTES, MS_STATIC_ROUTES] {
        let list = env::routes(reply.option(code).unwrap_or_default());
        let kept: Vec<Route> = list.iter().copied().filter(|(_, len, _)| *len != 0).collect();
        if kept.len() < list.len() {
            reply.set(code, encode(code, &kept));
        }
    }
    // RFC 3442: what counted for nothing beside them does not count in their place.
    if classless.is_some_and(|code| reply.option(code).is_none()) {
        reply.set(MS_STATIC_ROUTES, Vec::new());
        reply.set(HOST_ROUTES, Vec::new());
    }
}

struct Judge<'a> {
    policy: Policy,
    elsewhere: &'a [Reached],
    /// The default router.
    router: Option<Ipv4Addr>,
    /// Public addresses in what was kept.
    public: u64,
}

impl Judge<'_> {
    fn refusal(&mut self, &(net, len, gw): &Route) -> Option<&'static str> {
        // A router that is outside of the own network (a lease with /32) has to be reached somehow.
        let to_router = len == 32 && gw.is_unspecified() && self.router == Some(net);
        match self.policy {
            Policy::All => None,
            Policy::No => Some("not wanted"),
            Policy::DefaultOnly => (len != 0 && !to_router).then_some("not wanted"),
            Policy::Safe if len == 0 => None,
            Policy::Safe => self.danger(net, len, to_router),
        }
    }

    fn danger(&mut self, net: Ipv4Addr, len: u8, to_router: bool) -> Option<&'static str> {
        if len < MIN_PREFIX {
            return Some("shorter than /8");
        }
        let taken = |r: &&Reached| r.contains(net, len);
        // A tunnel that has everything leaves the way to the router alone; its own end is behind
        // it.
        if self.elsewhere.iter().filter(taken).any(|r| r.tunnel && !(to_router && r.len < MIN_PREFIX)) {
            return Some("in a tunnel");
        }
        // The same network on two interfaces is for metrics to decide.
        if self.elsewhere.iter().filter(taken).any(|r| !r.tunnel && r.on_link && r.len < len && r.len != 0) {
            return Some("in another interface's network");
        }
        if !PRIVATE.iter().any(|p| p.contains(net, len)) {
            let public = self.public + (1 << (32 - len.min(32)));
            if public > MAX_PUBLIC {
                return Some("too much of the internet");
            }
            self.public = public;
        }
        None
    }
}

fn quads(data: &[u8]) -> Vec<Ipv4Addr> {
    data.as_chunks::<4>().0.iter().map(|c| Ipv4Addr::from(*c)).collect()
}

/// RFC 2132 section 5.8: destination and router. It has no prefix length: an address whose class
/// (RFC 791 section 3.2) leaves it no host is a network, as it was when the option was made; any
/// other is a host.
fn host_routes(data: &[u8]) -> Vec<Route> {
    let len = |net: Ipv4Addr| {
        let class = class_len(net);
        let host = u32::MAX.checked_shr(class.into()).unwrap_or(0);
        if u32::from(net) & host == 0 { class } else { 32 }
    };
    quads(data).as_chunks::<2>().0.iter().map(|[net, gw]| (*net, len(*net), *gw)).collect()
}

/// The routes that a record takes, and the option that has them. RFC 3442: with option 121 (or its
/// elder, 249) option 33 does not count. A gateway of 0.0.0.0 says that the network is on the link;
/// a default route needs one, and is illegal in option 33.
pub fn in_force(reply: &Reply) -> Option<(u8, Vec<Route>)> {
    let usable = |gw: &Ipv4Addr| *gw != reply.yiaddr && is_host(*gw);
    let code = [STATIC_ROUTES, MS_STATIC_ROUTES].into_iter().find(|code| reply.option(*code).is_some());
    let classless = code.map(|code| (code, env::routes(reply.option(code).unwrap_or_default())));
    let (code, list) = classless.filter(|(_, list)| !list.is_empty()).or_else(|| {
        let list = host_routes(reply.option(HOST_ROUTES)?).into_iter().filter(|(net, _, _)| is_host(*net)).collect();
        Some((HOST_ROUTES, list))
    })?;
    let possible = list.into_iter().filter(|(_, len, gw)| usable(gw) || *len != 0 && gw.is_unspecified());
    Some((code, possible.collect()))
}

/// The bytes of an option with these routes.
pub fn encode(code: u8, routes: &[Route]) -> Vec<u8> {
    let mut out = Vec::new();
    for (net, len, gw) in routes {
        if code == HOST_ROUTES {
            out.extend(net.octets());
        } else {
            out.push(*len);
            out.extend(net.octets().iter().take(usize::from(len.div_ceil(8))));
        }
        out.extend(gw.octets());
    }
    out
}

fn words(refused: &[(Route, &str)]) -> String {
    if refused.is_empty() {
        return String::new();
    }
    let named: Vec<String> =
        refused.iter().take(MAX_NAMED).map(|((net, len, gw), why)| format!("{net}/{len} by {gw} ({why})")).collect();
    let more =
        if refused.len() > MAX_NAMED { format!(" and {} more", refused.len() - MAX_NAMED) } else { String::new() };
    format!("not taking the server's routes {}{more}", named.join(", "))
}

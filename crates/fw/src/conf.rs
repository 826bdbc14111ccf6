//! Records and fw.conf -> [`Want`]: the whole policy of what the kernel should look like.
//!
//! Pure: `now` is given. Which lease still counts, which uplink comes first and with which metric, what is demoted,
//! which interfaces are outside. What the kernel has is not looked at here (plan.rs does). Called by run.rs.

use std::net::IpAddr;
use std::time::Duration;

use crate::memory::Memory;
use crate::model::{
    FORWARD_V4, FORWARD_V6, METRIC_V6_DEFAULT, Prefix, Scope, Sysctl, TABLE_MAIN, Want, WantAddress, WantLink,
    WantRoute, bits,
};
use crate::policy::Policy;
use crate::record::{Entry, Hop};
use crate::rule;

/// Metric of the first uplink, and the distance to the next.
const METRIC_STEP: u32 = 100;
/// What the kernel gives to its own IPv6 prefix routes (IP6_RT_PRIO_ADDRCONF).
const METRIC_V6_PREFIX: u32 = 256;

/// What the clocks say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME.
    pub boottime: Duration,
    /// Since 1970; on a router without a battery this may be wrong until NTP has answered.
    pub wall: Duration,
    /// First 8 hexadecimal digits of /proc/sys/kernel/random/boot_id; empty when unknown.
    pub boot_id: String,
}

/// How long a record is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    /// Without a lease.
    Forever,
    /// This long from now.
    For(Duration),
    /// Its lease has ended.
    Ended,
    /// Its lease was counted in another boot.
    OtherBoot,
}

fn validity(entry: &Entry, now: &Now) -> Validity {
    let left = |end: u64, now: Duration| match Duration::from_secs(end).checked_sub(now) {
        // The kernel counts whole seconds and refuses a lifetime of none.
        // It counts them in 32 bits.
        Some(left) if left.as_secs() >= u32::MAX.into() => Validity::Forever,
        Some(left) if left >= Duration::from_secs(1) => Validity::For(Duration::from_secs(left.as_secs())),
        Some(_) | None => Validity::Ended,
    };
    match (&entry.boot_id, entry.lease_end_boottime, entry.lease_end) {
        (Some(id), Some(_), _) if !now.boot_id.is_empty() && *id != now.boot_id => Validity::OtherBoot,
        (_, Some(end), _) => left(end, now.boottime),
        (_, None, Some(end)) => left(end, now.wall),
        (_, None, None) => Validity::Forever,
    }
}

/// The records that count now, with what is left of their lease, and a message for each that does not.
pub fn current(entries: Vec<Entry>, now: &Now) -> (Vec<(Entry, Option<Duration>)>, Vec<String>) {
    let mut messages = Vec::new();
    let mut out = Vec::new();
    for entry in entries {
        match validity(&entry, now) {
            Validity::Forever => out.push((entry, None)),
            Validity::For(left) => out.push((entry, Some(left))),
            Validity::Ended => messages.push(format!("{}: its lease has ended: ignored", entry.origin)),
            Validity::OtherBoot => messages.push(format!("{}: its lease is of another boot: ignored", entry.origin)),
        }
    }
    (out, messages)
}

/// One interface that leads outside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Uplink {
    name: String,
    metric: u32,
}

/// Makes the `Want`. Remembered uplinks of this boot keep their rank, so that the metrics of the others do not move when a
/// lease comes and goes, and they stay outside for the firewall; the one that was used last stays when all are bad.
pub fn want(current: &[(Entry, Option<Duration>)], policy: &Policy, memory: &Memory) -> Want {
    let uplinks = rank(current, policy, &memory.uplinks);
    let mut want = Want { reset: policy.reset, ..Want::default() };
    for (entry, lifetime) in current {
        add_link(&mut want, entry);
        add_address(&mut want, entry, *lifetime);
    }
    let uplink_metric = |name: &str| uplinks.iter().find(|u| u.name == name).map(|u| u.metric);
    let mut routes = Vec::new();
    for (entry, _) in current {
        prefix_route(&mut routes, entry, uplink_metric(&entry.interface));
    }
    for (entry, _) in current {
        routes.extend(entry.hops.iter().map(|hop| hop_route(&want, entry, hop, uplink_metric(&entry.interface))));
    }
    want.external = external(&uplinks, policy);
    let names = uplinks.iter().map(|u| &u.name).chain(&want.external);
    want.numbers = numbers(names.collect(), &memory.numbers);
    want.marks = policy.forward && policy.firewall;
    rule::give_ways(&mut routes, &want.numbers);
    let bad = demoted(&uplinks, current, memory.best.as_deref());
    demote(&mut routes, &bad, policy);
    separate(&mut routes);
    want.sysctls = sysctls(current, policy, &routes, &want.addresses);
    want.routes = routes;
    want.uplinks = uplinks.into_iter().map(|u| u.name).collect();
    want
}

fn external(uplinks: &[Uplink], policy: &Policy) -> Vec<String> {
    let mut out = policy.external.clone();
    if out.is_empty() {
        out.extend(uplinks.iter().map(|u| u.name.clone()).chain(policy.preferred.clone()));
    }
    out.sort();
    out.dedup();
    out
}

fn is_default_of_main(entry: &Entry) -> bool {
    entry.table == TABLE_MAIN && entry.hops.iter().any(|h| h.destination.is_default())
}

/// The preferred one, then those of static records in their order, then the others by name: the order in which their
/// dynamic files are read.
fn rank(current: &[(Entry, Option<Duration>)], policy: &Policy, remembered: &[String]) -> Vec<Uplink> {
    let entries = || current.iter().map(|(e, _)| e);
    let mut names: Vec<&str> = Vec::new();
    let mut add = |name| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    entries().filter(|e| e.is_static && is_default_of_main(e)).for_each(|e| add(&e.interface));
    // A static address without a default route has made something else of a former uplink.
    let reused = |name: &str| entries().any(|e| e.is_static && e.address.is_some() && e.interface == name);
    let mut dynamic: Vec<&str> = entries().filter(|e| is_default_of_main(e)).map(|e| e.interface.as_str()).collect();
    dynamic.extend(remembered.iter().map(String::as_str).filter(|n| !reused(n)));
    dynamic.sort_unstable();
    dynamic.into_iter().for_each(add);
    let preferred = policy.preferred.as_deref();
    names.sort_by_key(|n| Some(*n) != preferred);
    // The first place stays free for a preferred one that has no lease yet.
    let first = if preferred.is_some_and(|p| !names.contains(&p)) { 2 } else { 1 };
    names.iter().zip(first..).map(|(n, place)| Uplink { name: (*n).to_owned(), metric: METRIC_STEP * place }).collect()
}

/// Each keeps the number that it had, and its place; a new one gets the lowest that is free, 1 to 255. What may become an uplink has one
/// from the start, so that the firewall need not be loaded anew when it does.
fn numbers(names: Vec<&String>, remembered: &[(String, u8)]) -> Vec<(String, u8)> {
    let mut out: Vec<(String, u8)> = Vec::new();
    let is_new = |out: &[(String, u8)], name: &str, number| !out.iter().any(|(n, taken)| n == name || *taken == number);
    for (name, number) in remembered {
        if *number != 0 && names.contains(&name) && is_new(&out, name, *number) {
            out.push((name.clone(), *number));
        }
    }
    for name in names {
        let free = (1..=u8::MAX).find(|number| !out.iter().any(|(_, taken)| taken == number));
        if let Some(free) = free.filter(|free| is_new(&out, name, *free)) {
            out.push((name.clone(), free));
        }
    }
    out
}

fn add_link(want: &mut Want, entry: &Entry) {
    match want.links.iter_mut().find(|l| l.interface == entry.interface) {
        Some(link) => {
            link.up |= entry.address.is_some();
            link.mtu = [link.mtu, entry.mtu].into_iter().flatten().min();
            link.leased |= is_lease(entry);
        }
        None => want.links.push(WantLink {
            interface: entry.interface.clone(),
            up: entry.address.is_some(),
            mtu: entry.mtu,
            leased: is_lease(entry),
        }),
    }
}

/// What a DHCP server gives: the MTU is an option of DHCP for IPv4 alone.
fn is_lease(entry: &Entry) -> bool {
    !entry.is_static && entry.address.is_some_and(|a| a.ip.is_ipv4() && !is_link_local(a.ip))
}

/// Whether it means something on its link only.
pub fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}

fn add_address(want: &mut Want, entry: &Entry, lifetime: Option<Duration>) {
    let Some(address) = entry.address else { return };
    let same = |a: &WantAddress| a.interface == entry.interface && a.address.ip == address.ip;
    if want.addresses.iter().any(same) {
        return;
    }
    let loopback = address.ip.is_loopback() || entry.interface == "lo";
    let natural = match loopback {
        true => Scope::Host,
        false if is_link_local(address.ip) => Scope::Link,
        false => Scope::Global,
    };
    want.addresses.push(WantAddress {
        interface: entry.interface.clone(),
        address,
        broadcast: entry.broadcast.or_else(|| address.broadcast()).filter(|_| !loopback && address.ip.is_ipv4()),
        scope: entry.scope.unwrap_or(natural),
        lifetime,
        kernel_prefix_route: loopback || is_v6_link_local(address.ip),
    });
}

fn is_v6_link_local(ip: IpAddr) -> bool {
    ip.is_ipv6() && is_link_local(ip)
}

/// The route to the address's own network. The kernel would make it with metric 0 on every interface: two uplinks in
/// one network need different metrics, and a route of ours bears our tag.
fn prefix_route(routes: &mut Vec<WantRoute>, entry: &Entry, uplink_metric: Option<u32>) {
    let Some(address) = entry.address else { return };
    if address.is_host() || address.ip.is_loopback() || entry.interface == "lo" || is_v6_link_local(address.ip) {
        return;
    }
    let destination = address.network();
    if routes.iter().any(|r| r.interface == entry.interface && r.destination == destination) {
        return;
    }
    let plain = if address.ip.is_ipv4() { 0 } else { METRIC_V6_PREFIX };
    routes.push(WantRoute {
        interface: entry.interface.clone(),
        destination,
        gateway: None,
        onlink: false,
        metric: uplink_metric.map_or(plain, |rank| entry.metric.unwrap_or(rank)),
        table: TABLE_MAIN,
        scope: Scope::Link,
        source: Some(address.ip).filter(IpAddr::is_ipv4),
        is_prefix_route: true,
        way: 0,
    });
}

fn hop_route(want: &Want, entry: &Entry, hop: &Hop, uplink_metric: Option<u32>) -> WantRoute {
    let own_networks = || want.addresses.iter().filter(|a| a.interface == entry.interface).map(|a| a.address);
    // A router outside every network of the interface, as with a /32 lease: say that it is on the link all the same.
    let inside = |g: IpAddr| is_v6_link_local(g) || own_networks().any(|n| !n.is_host() && n.contains(g));
    let v4 = hop.destination.ip.is_ipv4();
    let plain = if v4 { 0 } else { METRIC_V6_DEFAULT };
    WantRoute {
        interface: entry.interface.clone(),
        destination: hop.destination,
        gateway: hop.gateway,
        onlink: hop.gateway.is_some_and(|g| !inside(g)),
        metric: entry.metric.or(uplink_metric).unwrap_or(plain),
        table: entry.table,
        scope: if hop.gateway.is_some() { Scope::Global } else { Scope::Link },
        // With an IPv4 source the kernel removes the route together with the address when the lease ends, whoever is
        // dead by then. IPv6 refuses a source that is still tentative (RFC 4862 5.4).
        source: entry.source.or_else(|| entry.address.map(|a| a.ip).filter(|ip| v4 && ip.is_ipv4())),
        is_prefix_route: false,
        way: 0,
    }
}

/// The interfaces that go behind the others: those of which any record says `health=down`, be it of the link or of what is
/// behind it. When all uplinks are bad, none is better: the one that was used last stays, else the first, so that the default
/// route does not move from one dead router to another and back.
fn demoted<'a>(uplinks: &[Uplink], current: &'a [(Entry, Option<Duration>)], last: Option<&str>) -> Vec<&'a str> {
    let is_served = |name: &str| current.iter().any(|(e, _)| e.interface == name && is_default_of_main(e));
    let down = |name: &str| current.iter().any(|(e, _)| e.interface == name && e.healthy == Some(false));
    let served: Vec<&str> = uplinks.iter().map(|u| u.name.as_str()).filter(|n| is_served(n)).collect();
    let stays = match served.iter().all(|name| down(name)) {
        true => served.iter().find(|n| Some(**n) == last).or(served.first()),
        false => None,
    };
    let names = current.iter().filter(|(e, _)| e.healthy == Some(false)).map(|(e, _)| e.interface.as_str());
    names.filter(|name| Some(name) != stays).collect()
}

/// Routes of a bad uplink that another interface could serve too go behind it; they stay, in case all are bad.
fn demote(routes: &mut [WantRoute], bad: &[&str], policy: &Policy) {
    let served: Vec<(String, Prefix, u32)> =
        routes.iter().map(|r| (r.interface.clone(), r.destination, r.table)).collect();
    for route in routes.iter_mut().filter(|r| bad.contains(&r.interface.as_str())) {
        let elsewhere =
            served.iter().any(|(i, d, t)| *i != route.interface && *d == route.destination && *t == route.table);
        if elsewhere || route.destination.is_default() {
            route.metric = route.metric.saturating_add(policy.demote_metric);
        }
    }
}

/// The kernel tells routes apart by table, destination and metric: of several with the same three, the later ones get
/// the next free metric; the very same one twice is one.
fn separate(routes: &mut Vec<WantRoute>) {
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

/// Which kernel switches are needed, and no more.
fn sysctls(
    current: &[(Entry, Option<Duration>)],
    policy: &Policy,
    routes: &[WantRoute],
    addresses: &[WantAddress],
) -> Vec<Sysctl> {
    let mut out = Vec::new();
    let mut set = |path: String, value: &str| out.push(Sysctl { path, value: value.to_owned() });
    if policy.forward {
        set(FORWARD_V4.into(), "1");
        // Only with an IPv6 uplink of ours: a forwarding kernel ignores router advertisements.
        if routes.iter().any(|r| r.destination.ip.is_ipv6() && r.destination.is_default()) {
            set(FORWARD_V6.into(), "1");
        }
    }
    let mut names: Vec<&str> =
        current.iter().filter(|(e, _)| e.address.is_some()).map(|(e, _)| e.interface.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let has_default = |name: &str, v4: bool| {
        routes.iter().any(|r| r.interface == name && r.destination.is_default() && r.destination.ip.is_ipv4() == v4)
    };
    let several = names.iter().filter(|n| has_default(n, true)).count() > 1;
    for name in names.into_iter().filter(|n| *n != "lo") {
        let of = |v4: bool| addresses.iter().filter(move |a| a.interface == name && a.address.ip.is_ipv4() == v4);
        if of(true).next().is_some() {
            set(format!("net/ipv4/conf/{name}/ignore_routes_with_linkdown"), "1");
            // Else deleting an old address takes the new one in the same network along.
            set(format!("net/ipv4/conf/{name}/promote_secondaries"), "1");
        }
        if of(false).next().is_some() {
            set(format!("net/ipv6/conf/{name}/ignore_routes_with_linkdown"), "1");
        }
        // RFC 3704 2.4: strict reverse path filtering drops the answers that come in on the standby uplink.
        if several && has_default(name, true) {
            set(format!("net/ipv4/conf/{name}/rp_filter"), "2");
        }
        // Two interfaces in one network: each answers and announces its own addresses only, not the other's.
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

#[cfg(test)]
mod tests;

//! Tables of situations, and the three properties that make a plan right: applied to `have` it
//! gives `want`, planned again it is empty, and no step leaves a destination without the route that
//! it had before and has after.

use super::*;
use crate::change::routes_after;
use crate::have::Rule;
use crate::input::lease;
use crate::input::memory::SavedMtu;
use crate::input::policy::{self, Policy};
use crate::model::{Prefix, Sysctl};
use crate::want;
use crate::want::tests::entries;

mod devices;
mod links;
mod prefixes;
mod ways;

fn want_with(text: &str, policy: &str, remembered: &[&str]) -> Want {
    let (policy, errors): (Policy, _) = policy::parse(policy.as_bytes());
    assert_eq!(errors, []);
    let now = lease::Now { boottime: Duration::from_secs(1000), ..lease::Now::default() };
    let (current, _) = lease::current(entries(text), &now);
    let uplinks = remembered.iter().map(ToString::to_string).collect();
    want::want(&current, &policy, &Memory { uplinks, ..Memory::default() }, &Have::default())
}

fn want(text: &str) -> Want {
    want_with(text, "", &[])
}

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.into(),
        up: true,
        loopback: name == "lo",
        carrier: true,
        mtu: 1500,
        min_mtu: 68,
        ..Link::default()
    }
}

fn machine() -> Have {
    let links = ["lo", "eth0", "eth1", "lan0"].iter().zip(1..).map(|(name, index)| link(index, name)).collect();
    Have { links, ..Have::default() }
}

fn foreign_route(destination: &str, index: u32, metric: u32) -> Route {
    Route { metric, ..crate::have::tests::route(destination, index) }
}

fn foreign_address(address: &str, index: u32) -> Address {
    Address { kernel_prefix_route: true, ..crate::have::tests::address(address, index) }
}

/// The route to its network that the kernel makes for an address.
fn prefix_route(a: &Address) -> Route {
    let v4 = a.address.ip.is_ipv4();
    let metric = if v4 || a.metric != 0 { a.metric } else { 256 };
    Route {
        protocol: PROTOCOL_KERNEL,
        scope: if v4 { Scope::Link } else { Scope::Global },
        source: Some(a.address.ip).filter(|_| v4),
        ..foreign_route(&a.address.network().to_string(), a.index, metric)
    }
}

/// Adds and removes what the kernel makes by itself: a prefix route for the first address of each
/// network on a link that is up. Among the addresses of other programs that is none here.
fn follow(have: &mut Have, before: &Have) {
    let made = |have: &Have| {
        let makes = |a: &&Address| {
            let up = have.links.iter().any(|l| l.index == a.index && l.up && !l.loopback);
            a.protocol == PROTOCOL && a.kernel_prefix_route && !a.address.is_host() && up
        };
        let mut out: Vec<Route> = Vec::new();
        for route in have.addresses.iter().filter(makes).map(prefix_route) {
            if !out.iter().any(|o| (o.index, o.destination) == (route.index, route.destination)) {
                out.push(route);
            }
        }
        out
    };
    let (old, new) = (made(before), made(have));
    for route in new.iter().filter(|r| !old.contains(r)) {
        // IPv6 takes no second route of the same key.
        let is_taken = have.routes.iter().any(|r| r.key() == route.key() && r.destination.ip.is_ipv6());
        if !have.routes.iter().any(|r| r.is_same(route)) && !is_taken {
            have.routes.push(route.clone());
        }
    }
    have.routes.retain(|r| !old.contains(r) || new.contains(r));
}

/// What the kernel would have after one change.
fn step(have: &mut Have, change: &Change) {
    let before = have.clone();
    act(have, change);
    follow(have, &before);
}

fn act(have: &mut Have, change: &Change) {
    have.routes = routes_after(&have.routes, std::slice::from_ref(change));
    match change {
        Change::Sysctl(s) => {
            have.sysctls.retain(|o| o.path != s.path);
            have.sysctls.push(s.clone());
        }
        Change::AddLink { link, .. } => {
            let parent = have.link_at(link.parent).and_then(|p| p.mac);
            have.links.push(Link { mac: link.mac.or(parent), ..link.clone() });
        }
        Change::DelLink { index, .. } => devices::vanish(have, *index),
        Change::LinkMaster { index, master, group, .. } => devices::edit(have, *index, |l| {
            (l.master, l.group) = (*master, group.unwrap_or(l.group));
        }),
        Change::Neighbours { .. } => {}
        Change::LinkMac { index, mac, .. } => devices::edit(have, *index, |l| l.mac = Some(*mac)),
        Change::LinkAddrGen { index, mode, .. } => devices::edit(have, *index, |l| l.addr_gen = Some(*mode)),
        Change::LinkUp { index, .. } => have.links.iter_mut().filter(|l| l.index == *index).for_each(|l| l.up = true),
        Change::LinkMtu { index, mtu, .. } => {
            have.links.iter_mut().filter(|l| l.index == *index).for_each(|l| l.mtu = *mtu);
            // The kernel takes the VLANs along when their link is lowered.
            let is_on_it = |l: &&mut Link| l.vlan.is_some() && l.parent == *index;
            have.links.iter_mut().filter(is_on_it).for_each(|l| l.mtu = l.mtu.min(*mtu));
        }
        Change::AddAddress(_, a) => have.addresses.push(a.clone()),
        Change::RefreshAddress(_, a) => {
            have.addresses.retain(|o| (o.index, o.address) != (a.index, a.address));
            have.addresses.push(a.clone());
        }
        Change::DelAddress(_, a) => have.addresses.retain(|o| (o.index, o.address) != (a.index, a.address)),
        Change::AddRoute(..) | Change::ReplaceRoute(..) | Change::DelRoute(..) => {}
        Change::AddRule(r) => have.rules.push(*r),
        Change::DelRule(r) => have.rules.retain(|o| o != r),
    }
}

fn reaches(routes: &[Route], destination: Prefix) -> bool {
    routes.iter().any(|r| r.destination == destination)
}

/// Plans, applies step by step, checks the properties, and returns the lines.
fn run(want: &Want, have: &mut Have) -> Vec<String> {
    let memory = Memory::default();
    let foreign = |h: &Have| {
        let is_foreign = |r: &&Route| ![PROTOCOL, PROTOCOL_KERNEL].contains(&r.protocol);
        let routes: Vec<Route> = h.routes.iter().filter(is_foreign).cloned().collect();
        let addresses: Vec<Address> = h.addresses.iter().filter(|a| a.protocol != PROTOCOL).cloned().collect();
        (routes, addresses)
    };
    let foreign_before = foreign(have);
    let plan = plan(want, have, &memory);
    let before = have.routes.clone();
    let mut at_last = have.clone();
    plan.changes.iter().for_each(|change| step(&mut at_last, change));
    let after = at_last.routes;
    for change in &plan.changes {
        step(have, change);
        for route in &before {
            let lost = reaches(&after, route.destination) && !reaches(&have.routes, route.destination);
            assert!(!lost, "{change} leaves nothing to {}", route.destination);
        }
        if let Change::AddRoute(_, r) | Change::ReplaceRoute(_, r) = change {
            let source = |ip: &IpAddr| have.addresses.iter().any(|a| a.address.ip == *ip);
            assert!(r.source.as_ref().is_none_or(source), "{change} before its source address");
            let up = !r.unicast || have.links.iter().any(|l| l.index == r.index && l.up);
            assert!(up, "{change} before its link is up");
        }
    }
    assert_eq!(super::plan(want, have, &memory).changes, [], "second plan");
    for route in want.routes.iter().filter(|r| have.link(&r.interface).is_some()) {
        assert!(reaches(&have.routes, route.destination), "{} wanted", route.destination);
    }
    if !want.reset {
        assert_eq!(foreign(have), foreign_before, "foreign objects changed");
    }
    plan.changes.iter().map(ToString::to_string).collect()
}

const TWO: &str = "static if=lan0 ipmask=192.168.5.1/24
                   if=eth0 ipmask=10.1.0.5/24 gw=10.1.0.1 net=0/0 lease_end_boottime=4600
                   if=eth1 ipmask=10.2.0.5/24 gw=10.2.0.1 net=0/0 lease_end_boottime=4600";

fn without_switches(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|l| !l.starts_with("~ sysctl")).collect()
}

#[test]
fn two_uplinks_and_a_lan_from_nothing() {
    let lines = without_switches(run(&want(TWO), &mut machine()));
    assert_eq!(
        lines,
        [
            "+ address 192.168.5.1/24 dev lan0 valid_lft forever",
            "+ address 10.1.0.5/24 dev eth0 valid_lft 3600sec",
            "+ address 10.2.0.5/24 dev eth1 valid_lft 3600sec",
            "+ route 10.1.0.0/24 dev eth0 metric 100 src 10.1.0.5",
            "+ route 10.2.0.0/24 dev eth1 metric 200 src 10.2.0.5",
            "+ route unreachable 192.168.5.0/24 metric 4294967294",
            "+ route default via 10.1.0.1 dev eth0 metric 100 src 10.1.0.5",
            "+ route default via 10.2.0.1 dev eth1 metric 200 src 10.2.0.5",
        ]
    );
}

#[test]
fn a_bad_uplink_is_demoted_by_adding_first_and_restored_likewise() {
    let mut have = machine();
    run(&want(TWO), &mut have);
    let bad = want(&format!("{TWO}\nif=eth0 health=down"));
    assert_eq!(
        run(&bad, &mut have),
        [
            "+ route default via 10.1.0.1 dev eth0 metric 20100 src 10.1.0.5",
            "- route default via 10.1.0.1 dev eth0 metric 100 src 10.1.0.5",
        ]
    );
    assert_eq!(
        run(&want(&format!("{TWO}\nif=eth0 health=up")), &mut have),
        [
            "+ route default via 10.1.0.1 dev eth0 metric 100 src 10.1.0.5",
            "- route default via 10.1.0.1 dev eth0 metric 20100 src 10.1.0.5",
        ]
    );
    let all_bad = want(&format!("{TWO}\nif=eth0 health=down\nif=eth1 health=down"));
    run(&all_bad, &mut have);
    let defaults: Vec<u32> = have.routes.iter().filter(|r| r.destination.is_default()).map(|r| r.metric).collect();
    assert_eq!(defaults, [100, 20_200], "all bad: still there");
}

#[test]
fn a_new_address_replaces_routes_before_the_old_one_goes() {
    let mut have = machine();
    run(&want("if=eth0 ipmask=10.1.0.5/24 gw=10.1.0.1"), &mut have);
    assert_eq!(
        run(&want("if=eth0 ipmask=10.1.0.6/24 gw=10.1.0.1"), &mut have),
        [
            "+ address 10.1.0.6/24 dev eth0 valid_lft forever",
            "~ route 10.1.0.0/24 dev eth0 metric 100 src 10.1.0.6",
            "~ route default via 10.1.0.1 dev eth0 metric 100 src 10.1.0.6",
            "- address 10.1.0.5/24 dev eth0",
        ]
    );
    assert_eq!(
        run(&want(""), &mut have),
        [
            "- route default via 10.1.0.1 dev eth0 metric 100 src 10.1.0.6",
            "- route 10.1.0.0/24 dev eth0 metric 100 src 10.1.0.6",
            "- address 10.1.0.6/24 dev eth0",
        ]
    );
}

#[test]
fn uplinks_that_swap_their_places_never_leave_one_empty() {
    let mut have = machine();
    run(&want_with(TWO, "preferred_default_route_iface=eth0", &[]), &mut have);
    let lines = run(&want_with(TWO, "preferred_default_route_iface=eth1", &[]), &mut have);
    assert_eq!(lines.iter().filter(|l| l.starts_with("~ route default")).count(), 2, "{lines:?}");
}

#[test]
fn metrics_of_the_others_stay_when_a_lease_goes() {
    let mut have = machine();
    run(&want(TWO), &mut have);
    let one = "static if=lan0 ipmask=192.168.5.1/24\nif=eth1 ipmask=10.2.0.5/24 gw=10.2.0.1 lease_end_boottime=4600";
    let lines = run(&want_with(one, "", &["eth0", "eth1"]), &mut have);
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().all(|l| l.starts_with("- ") && l.contains("eth0")), "{lines:?}");
}

#[test]
fn lifetimes_are_refreshed_by_a_renewal_and_left_alone_without() {
    let mut have = machine();
    let at = |end: u32| want(&format!("if=eth0 ipmask=10.1.0.5/24 lease_end_boottime={end}"));
    run(&at(4600), &mut have);
    have.addresses[0].lifetime = Some(Duration::from_secs(3598));
    assert_eq!(plan(&at(4600), &have, &Memory::default()).changes, []);
    assert_eq!(run(&at(8200), &mut have), ["~ address 10.1.0.5/24 dev eth0 valid_lft 7200sec"]);
    assert_eq!(
        run(&want("if=eth0 ipmask=10.1.0.5/24"), &mut have),
        ["~ address 10.1.0.5/24 dev eth0 valid_lft forever"]
    );
}

#[test]
fn foreign_objects_are_left_alone_and_stepped_around() {
    let mut have = machine();
    have.routes.push(foreign_route("0/0", 2, 100));
    have.routes.push(foreign_route("172.16.0.0/12", 4, 0));
    have.addresses.push(foreign_address("203.0.113.1/24", 2));
    let lines = without_switches(run(&want(TWO), &mut have));
    assert!(lines.contains(&"+ route default via 10.1.0.1 dev eth0 metric 101 src 10.1.0.5".to_owned()), "{lines:?}");
    let lines = run(&want(""), &mut have);
    assert!(lines.iter().all(|l| !l.contains("203.0.113.1") && !l.contains("172.16")), "{lines:?}");
}

#[test]
fn an_address_that_somebody_else_made_counts_and_stays_his() {
    let mut have = machine();
    have.addresses.push(foreign_address("192.168.5.1/24", 4));
    have.routes.push(Route { protocol: PROTOCOL_KERNEL, ..foreign_route("192.168.5.0/24", 4, 0) });
    let behind = "route unreachable 192.168.5.0/24 metric 4294967294";
    assert_eq!(run(&want("static if=lan0 ipmask=192.168.5.1/24"), &mut have), [format!("+ {behind}")]);
    assert_eq!(run(&want(""), &mut have), [format!("- {behind}")]);
}

#[test]
fn a_blackhole_of_somebody_else_holds_its_place() {
    let mut have = machine();
    have.routes.push(Route { unicast: false, index: 0, ..foreign_route("0/0", 0, 100) });
    let want = want("if=eth0 ipmask=10.0.0.5/24 gw=10.0.0.1");
    let plan = plan(&want, &have, &Memory::default());
    let shown: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
    assert!(shown.iter().any(|c| c == "+ route default via 10.0.0.1 dev eth0 metric 101 src 10.0.0.5"), "{shown:?}");
    assert_eq!(plan.notes.len(), 1);
    have.routes.iter_mut().for_each(|r| r.protocol = PROTOCOL);
    let reset = Want { reset: true, ..Want::default() };
    assert_eq!(super::plan(&reset, &have, &Memory::default()).changes, [], "not ours to remove");
}

#[test]
fn reset_removes_foreign_objects_but_not_the_kernels() {
    let mut have = machine();
    have.addresses.push(foreign_address("203.0.113.1/24", 2));
    have.addresses.push(Address { protocol: 3, ..foreign_address("fe80::1/64", 2) });
    have.addresses.push(foreign_address("127.0.0.1/8", 1));
    have.routes.push(foreign_route("0/0", 2, 0));
    have.routes.push(Route { protocol: PROTOCOL_KERNEL, ..foreign_route("203.0.113.0/24", 2, 0) });
    have.routes.push(Route { table: 100, ..foreign_route("0/0", 2, 0) });
    let lines = run(&want_with("", "reset_all_netdevs=yes", &[]), &mut have);
    assert_eq!(lines, ["- route default dev eth0 metric 0", "- address 203.0.113.1/24 dev eth0"]);
}

#[test]
fn a_missing_interface_is_named_and_the_others_are_served() {
    let want = want("if=wlan9 ipmask=10.9.0.5/24 gw=10.9.0.1\nif=eth0 ipmask=10.1.0.5/24 gw=10.1.0.1");
    let plan = plan(&want, &machine(), &Memory::default());
    assert_eq!(plan.notes, ["f:1: no interface wlan9 yet: the next run looks again"]);
    assert_eq!(plan.changes.len(), 3);
}

#[test]
fn a_router_outside_the_prefix_is_on_the_link() {
    let lines = run(&want("if=eth0 ipmask=203.0.113.7/32 gw=10.0.0.1"), &mut machine());
    assert_eq!(lines[1], "+ route default via 10.0.0.1 dev eth0 metric 100 src 203.0.113.7 onlink");
}

#[test]
fn random_sequences_of_records_keep_the_properties() {
    let pool = [
        "static if=lan0 ipmask=192.168.5.1/24",
        "static if=lan0 ipmask=192.168.5.1/16",
        "if=eth0 ipmask=10.1.0.5/24 gw=10.1.0.1",
        "if=eth0 ipmask=10.1.0.6/24 gw=10.1.0.254",
        "if=eth1 ipmask=10.1.0.7/24 gw=10.1.0.1",
        "if=eth1 ipmask=10.2.0.5/32 gw=10.9.0.1",
        "if=eth1 ipmask=10.2.0.5/24 gw=10.2.0.1 routes='172.16.0.0/12 10.2.0.2 0.0.0.0/0 10.2.0.3'",
        "if=eth0 health=down",
        "if=eth1 health=down",
        "static if=eth0 ipmask=2001:db8::5/64 gw=fe80::1",
        "static if=lan0 net=10/8 gw=192.168.5.9",
        "if=eth0 ipmask=169.254.7.7/16",
        "if=eth1 ipmask=169.254.7.8/16",
        "if=gone0 ipmask=10.7.0.5/24 gw=10.7.0.1",
    ];
    let mut rng = random(0x6e65_7473);
    let mut without_rules = machine();
    without_rules.routes.push(foreign_route("0/0", 2, 100));
    for mut have in [without_rules, ways::with_rules()] {
        have.routes.push(foreign_route("10.2.0.0/24", 4, 200));
        for _ in 0..2000 {
            let bits = rng();
            let lines = pool.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1);
            let text: Vec<&str> = lines.map(|(_, line)| *line).collect();
            let policy = if bits >> 20 & 1 == 1 { "preferred_default_route_iface=eth1" } else { "" };
            let remembered: &[&str] = if bits >> 21 & 1 == 1 { &["eth0", "eth1"] } else { &[] };
            run(&want_with(&text.join("\n"), policy, remembered), &mut have);
        }
    }
}

/// xorshift32: the same sequence in every run.
fn random(seed: u32) -> impl FnMut() -> u32 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    }
}

//! Which of a server's routes are taken, by each policy (`--classless-routes`); D26 of the museum
//! is here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::net::Ipv4Addr;

use common::{ACK, Wire, var};
use netd::reach::Reached;
use netd_core::rng::Rng;
use netd_udhcpc::env;
use netd_udhcpc::message::Reply;
use netd_udhcpc::routes::{Policy, drop_default, in_force, vet};

/// The bytes of option 121 for `NET/LEN GW NET/LEN GW`.
fn option(text: &str) -> Vec<u8> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let route = |pair: &[&str]| {
        let (net, len) = pair[0].split_once('/').unwrap();
        let (net, len): (Ipv4Addr, u8) = (net.parse().unwrap(), len.parse().unwrap());
        let gw: Ipv4Addr = pair[1].parse().unwrap();
        [&[len], &net.octets()[..usize::from(len.div_ceil(8))], &gw.octets()].concat()
    };
    words.chunks(2).flat_map(route).collect()
}

fn ack(code: u8, routes: &str) -> Wire {
    let (head, tail) =
        option(routes).split_at_checked(255).map_or((option(routes), vec![]), |(a, b)| (a.into(), b.into()));
    let wire = Wire::usual(ACK, 1).opt(3, &[10, 9, 0, 1]).opt(code, &head);
    if tail.is_empty() { wire } else { wire.opt(code, &tail) }
}

fn reached(net: &str, on_link: bool, tunnel: bool) -> Reached {
    let (net, len) = net.split_once('/').unwrap();
    Reached { net: net.parse().unwrap(), len: len.parse().unwrap(), on_link, tunnel }
}

/// What is left of a list of routes in option 121.
fn left(policy: Policy, routes: &str, elsewhere: &[Reached]) -> (String, String) {
    let mut reply = ack(121, routes).reply();
    let said = vet(policy, &mut reply, elsewhere);
    (var(&reply, "staticroutes").unwrap_or_default(), said)
}

/// Routes that are kept and those that are not, when nothing but this link is there.
#[test]
fn what_providers_send_is_taken() {
    for routes in [
        // A provider's television: private networks, and public ones of its own.
        "10.0.0.0/8 10.9.0.1 172.16.0.0/12 10.9.0.1 192.168.0.0/16 10.9.0.1 100.64.0.0/10 10.9.0.1",
        "213.75.112.0/21 10.9.0.1 217.166.0.0/16 10.9.0.1 198.51.96.0/20 10.9.0.1",
        // A cloud: a /32 lease, its router on the link, everything by it.
        "10.9.0.1/32 0.0.0.0 0.0.0.0/0 10.9.0.1",
        "169.254.169.254/32 10.9.0.1",
        "44.0.0.0/8 10.9.0.1",
        "8.8.8.8/32 10.9.0.1",
    ] {
        assert_eq!(left(Policy::Safe, routes, &[]), (routes.to_owned(), String::new()));
    }
}

#[test]
fn d26_routes_that_lead_around_a_tunnel_are_refused() {
    // The published attack, and its finer relatives: no tunnel has to be there yet.
    let (kept, said) = left(Policy::Safe, "0.0.0.0/1 10.9.0.66 128.0.0.0/1 10.9.0.66", &[]);
    assert_eq!(kept, "");
    assert_eq!(
        said,
        "not taking the server's routes 0.0.0.0/1 by 10.9.0.66 (shorter than /8), 128.0.0.0/1 by 10.9.0.66 (shorter than /8)"
    );
    for len in 1..8 {
        assert_eq!(left(Policy::Safe, &format!("64.0.0.0/{len} 10.9.0.66"), &[]).0, "", "{len}");
    }
    // The internet in pieces of /8 and shorter: one of them, no more.
    let pieces: Vec<String> = (11..60).map(|n| format!("{n}.0.0.0/8 10.9.0.66")).collect();
    assert_eq!(left(Policy::Safe, &pieces.join(" "), &[]).0, "11.0.0.0/8 10.9.0.66");
    let pieces: Vec<String> = (0..51).map(|n| format!("44.{}.0.0/11 10.9.0.66", n % 8 * 32)).collect();
    assert_eq!(left(Policy::Safe, &pieces.join(" "), &[]).0.split(' ').count(), 2 * 8);

    // A host behind a tunnel that carries everything, by one route or by two, in whatever table.
    let everything = [reached("0.0.0.0/0", true, true)];
    let halves = [reached("0.0.0.0/1", false, true), reached("128.0.0.0/1", false, true)];
    for tunnel in [&everything[..], &halves] {
        for route in ["203.0.113.7/32", "203.0.113.0/24", "10.20.0.0/16", "192.168.1.0/24"] {
            let (kept, said) = left(Policy::Safe, &format!("{route} 10.9.0.66"), tunnel);
            assert_eq!((kept.as_str(), said.contains("in a tunnel")), ("", true), "{route}");
        }
        // Its own default route and the way to the router stay: the tunnel's outside is behind
        // them.
        let plain = "10.9.0.1/32 0.0.0.0 0.0.0.0/0 10.9.0.1";
        assert_eq!(left(Policy::Safe, plain, tunnel).0, plain);
    }
    // But one way to one router, not to each host that is called one.
    let called =
        "203.0.113.7/32 0.0.0.0 10.1.0.0/16 203.0.113.7 10.9.0.1/32 0.0.0.0 0.0.0.0/0 10.9.0.1 0.0.0.0/0 203.0.113.7";
    assert_eq!(
        left(Policy::Safe, called, &everything).0,
        "10.9.0.1/32 0.0.0.0 0.0.0.0/0 10.9.0.1 0.0.0.0/0 203.0.113.7"
    );
    // A tunnel that carries one network: that network is its own, the rest is free.
    let office = [reached("10.20.0.0/16", false, true)];
    let (kept, _) = left(Policy::Safe, "10.20.5.0/24 10.9.0.66 10.20.0.0/16 10.9.0.66 10.0.0.0/8 10.9.0.1", &office);
    assert_eq!(kept, "10.0.0.0/8 10.9.0.1", "a shorter route loses against the tunnel's anyway");
    let as_router = "10.20.0.53/32 0.0.0.0 0.0.0.0/0 10.20.0.53";
    assert_eq!(
        left(Policy::Safe, as_router, &office).0,
        "0.0.0.0/0 10.20.0.53",
        "no host of it as a router on the link"
    );
}

#[test]
fn d26_a_network_on_another_link_is_not_carved() {
    let lan = [
        reached("192.168.1.0/24", true, false),
        reached("0.0.0.0/0", false, false),
        reached("10.0.0.0/8", false, false),
    ];
    let (kept, said) =
        left(Policy::Safe, "192.168.1.128/25 10.9.0.66 192.168.1.7/32 10.9.0.66 192.168.0.0/16 10.9.0.1", &lan);
    assert_eq!(kept, "192.168.0.0/16 10.9.0.1");
    assert!(said.contains("192.168.1.7/32 by 10.9.0.66 (in another interface's network)"), "{said}");
    // Two providers, or two cards in one network: metrics decide, as they do without DHCP.
    let both = "192.168.1.0/24 10.9.0.1 10.64.0.0/16 10.9.0.1 8.8.4.0/24 10.9.0.1";
    assert_eq!(left(Policy::Safe, both, &lan).0, both);
}

#[test]
fn the_other_policies_do_what_they_are_called() {
    let routes = "0.0.0.0/1 10.9.0.66 10.0.0.0/8 10.9.0.1 10.9.0.1/32 0.0.0.0 0.0.0.0/0 10.9.0.1";
    let tunnel = [reached("0.0.0.0/0", true, true)];
    assert_eq!(left(Policy::All, routes, &tunnel), (routes.to_owned(), String::new()));
    let only = "10.9.0.1/32 0.0.0.0 0.0.0.0/0 10.9.0.1";
    assert_eq!(left(Policy::DefaultOnly, routes, &tunnel), (only.to_owned(), String::new()));
    assert_eq!(left(Policy::No, routes, &tunnel), (String::new(), String::new()));
    for (text, want) in [
        ("safe", Some(Policy::Safe)),
        ("all", Some(Policy::All)),
        ("default-only", Some(Policy::DefaultOnly)),
        ("no", Some(Policy::No)),
        ("yes", None),
    ] {
        assert_eq!(Policy::parse(text), want);
    }
    assert_eq!(Policy::default(), Policy::Safe);
}

#[test]
fn the_older_options_are_looked_at_in_the_same_way() {
    let mut reply = ack(249, "0.0.0.0/1 10.9.0.66 10.0.0.0/8 10.9.0.1").reply();
    vet(Policy::Safe, &mut reply, &[]);
    assert_eq!(var(&reply, "msstaticroutes").as_deref(), Some("10.0.0.0/8 10.9.0.1"));
    let hosts = |reply: &mut Reply, elsewhere: &[Reached]| {
        vet(Policy::Safe, reply, elsewhere);
        var(reply, "routes")
    };
    let data = [10, 20, 0, 1, 10, 9, 0, 1, 8, 8, 8, 8, 10, 9, 0, 66];
    let with = |data: &[u8]| Wire::usual(ACK, 1).opt(33, data).reply();
    assert_eq!(hosts(&mut with(&data), &[]).as_deref(), Some("10.20.0.1/10.9.0.1 8.8.8.8/10.9.0.66"));
    assert_eq!(hosts(&mut with(&data), &[reached("10.20.0.0/16", true, true)]).as_deref(), Some("8.8.8.8/10.9.0.66"));
    assert_eq!(hosts(&mut with(&data), &[reached("0.0.0.0/0", true, true)]), None);
}

#[test]
fn without_a_default_route_the_others_stay() {
    let left = |options: &[(u8, &[u8])]| {
        let mut reply = options.iter().fold(Wire::usual(ACK, 1), |wire, (code, data)| wire.opt(*code, data)).reply();
        drop_default(&mut reply);
        let [router, routes] = ["router", "staticroutes"].map(|name| var(&reply, name));
        (router, routes, in_force(&reply).map_or(0, |(_, list)| list.len()))
    };
    let router: (u8, &[u8]) = (3, &[10, 9, 0, 1]);
    let hosts: (u8, &[u8]) = (33, &[10, 20, 0, 1, 10, 9, 0, 7]);
    assert_eq!(left(&[router]), (None, None, 0));
    assert_eq!(left(&[router, hosts]), (None, None, 1));
    let both = [&option("0.0.0.0/0 10.9.0.1 10.0.0.0/8 10.9.0.7")[..], &option("0.0.0.0/0 10.9.0.2")].concat();
    assert_eq!(left(&[router, (121, &both)]), (None, Some("10.0.0.0/8 10.9.0.7".into()), 1));
    // Classless routes that are nothing but a default route still stand in place of the others.
    let only = option("0.0.0.0/0 10.9.0.1");
    assert_eq!(left(&[router, hosts, (121, &only), (249, &both)]), (None, None, 0));
    assert_eq!(left(&[router, hosts, (249, &only)]), (None, None, 0));
}

#[test]
fn a_malformed_list_stays_as_it_came() {
    for policy in [Policy::Safe, Policy::DefaultOnly] {
        for (code, data, name) in [(121, &[33, 1, 2, 3, 4, 5][..], "staticroutes"), (33, &[1, 2, 3, 4], "routes")] {
            let mut reply = Wire::usual(ACK, 1).opt(code, data).reply();
            assert_eq!(vet(policy, &mut reply, &[]), "");
            assert_eq!((reply.option(code), var(&reply, name).as_deref()), (Some(data), Some("")));
        }
    }
}

/// Whatever the bytes: what is left is a part of what was sent, in its order, and no route of it is
/// shorter than /8.
#[test]
fn what_is_left_is_a_part_of_what_was_sent() {
    let mut rng = Rng::seeded(26);
    let tunnel = [reached("64.0.0.0/2", true, true)];
    let mut refusals = 0;
    for _ in 0..20_000 {
        let data: Vec<u8> = (0..1 + rng.below(60))
            .map(|_| if rng.below(3) == 0 { rng.below(33) as u8 } else { rng.below(256) as u8 })
            .collect();
        let mut reply = Wire::usual(ACK, 1).opt(121, &data).reply();
        let before = env::routes(&data);
        let said = vet(Policy::Safe, &mut reply, &tunnel);
        let after = env::routes(reply.option(121).unwrap_or_default());
        let mut rest = before.iter();
        assert!(after.iter().all(|kept| rest.any(|sent| sent == kept)), "{before:?} {after:?}");
        assert!(after.iter().all(|(_, len, _)| *len == 0 || *len >= 8), "{after:?}");
        assert_eq!(said.is_empty(), before.len() == after.len());
        refusals += usize::from(!said.is_empty());
    }
    assert!(refusals > 1_000, "{refusals}");
}

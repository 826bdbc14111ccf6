//! Lists that are longer than what a record or a variable has a place for: what is kept, and what
//! is said.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use common::{ACK, Wire, published, var};
use netd_core::rng::Rng;
use netd_udhcpc::bounds::cut;
use netd_udhcpc::message::Reply;
use netd_udhcpc::route_list::{self, Route};

/// An ACK with an option of any length: RFC 3396.
fn ack(options: &[(u8, Vec<u8>)]) -> Reply {
    let pieces = options.iter().flat_map(|(code, data)| data.chunks(255).map(move |piece| (*code, piece)));
    pieces.fold(Wire::usual(ACK, 1), |wire, (code, piece)| wire.opt(code, piece)).reply()
}

fn field(reply: &Reply, name: &str) -> String {
    published(reply.clone()).get(name).unwrap_or_default().to_owned()
}

fn count(list: &str, of: usize) -> usize {
    list.split_whitespace().count() / of
}

/// `count` classless routes, and the default route behind all of them.
fn default_last(count: u8) -> Vec<u8> {
    let routes = (0..count).flat_map(|n| [24, 10, 20, n, 10, 9, 0, 7]);
    routes.chain([0, 10, 9, 0, 1]).collect()
}

#[test]
fn a_default_route_behind_more_routes_than_a_record_takes_is_kept() {
    for (code, sent, kept) in [(121, 63, 64), (121, 64, 64), (121, 100, 64), (249, 200, 64)] {
        let mut reply = ack(&[(code, default_last(sent))]);
        let said = cut(&mut reply, true);
        let routes = field(&reply, "routes");
        assert_eq!((count(&routes, 2), routes.ends_with("0.0.0.0/0 10.9.0.1")), (kept, true), "{sent}: {routes}");
        assert_eq!(field(&reply, "gw"), "10.9.0.1");
        let want = format!("not taking {} of {} elements of option {code}", usize::from(sent) + 1 - kept, sent + 1);
        assert_eq!(said, if sent > 63 { want } else { String::new() });
        // Not even a caller that does not cut gets a record without it.
        let whole = ack(&[(code, default_last(sent))]);
        assert!(field(&whole, "routes").ends_with("0.0.0.0/0 10.9.0.1"));
    }
}

#[test]
fn the_way_to_a_router_outside_of_the_network_is_kept_with_it() {
    let far = [&default_last(90)[..90 * 8], &[32, 203, 0, 113, 1, 0, 0, 0, 0, 0, 203, 0, 113, 1]].concat();
    let mut reply = ack(&[(121, far)]);
    assert_eq!(cut(&mut reply, true), "not taking 28 of 92 elements of option 121");
    assert!(field(&reply, "routes").ends_with("203.0.113.1/32 0.0.0.0 0.0.0.0/0 203.0.113.1"));
}

#[test]
fn option_33_leaves_room_for_the_routers_default_route() {
    let hosts: Vec<u8> = (0..80).flat_map(|n| [10, 20, n, 1, 10, 9, 0, 7]).collect();
    let mut reply = ack(&[(3, vec![10, 9, 0, 1]), (33, hosts)]);
    assert_eq!(cut(&mut reply, true), "not taking 17 of 80 elements of option 33");
    let routes = field(&reply, "routes");
    assert_eq!(
        (count(&routes, 2), routes.ends_with("10.20.62.1/32 10.9.0.7 0.0.0.0/0 10.9.0.1")),
        (64, true),
        "{routes}"
    );
}

#[test]
fn a_script_gets_whole_routes_and_the_default_one_among_them() {
    let mut reply = ack(&[(121, default_last(180))]);
    assert_eq!(cut(&mut reply, false), "not taking 6 of 181 elements of option 121");
    let routes = var(&reply, "staticroutes").unwrap();
    assert!(routes.len() <= 4096 && routes.ends_with(" 0.0.0.0/0 10.9.0.1"), "{}: {routes}", routes.len());
    assert_eq!(count(&routes, 2), 175);
    let mut reply = ack(&[(121, default_last(60))]);
    assert_eq!(cut(&mut reply, false), "");
    assert_eq!(count(&var(&reply, "staticroutes").unwrap(), 2), 61);
}

#[test]
fn servers_and_names_that_are_too_many_are_counted() {
    let servers = |count: u8| (1..=count).flat_map(|n| [198, 51, 100, n]).collect::<Vec<u8>>();
    // Each name is a pointer: two bytes for 200 characters.
    let label = [&[50][..], &[b'a'; 50]].concat();
    let names = [label.repeat(4), vec![0], [0xc0, 0].repeat(300)].concat();
    let all = [(6, servers(20)), (42, servers(17)), (119, names)];
    let mut reply = ack(&all);
    let said = cut(&mut reply, true);
    let want =
        "not taking 4 of 20 elements of option 6, 1 of 17 elements of option 42, 281 of 301 elements of option 119";
    assert_eq!(said, want);
    assert_eq!((count(&field(&reply, "dns"), 1), count(&field(&reply, "ntp"), 1)), (16, 16));
    assert_eq!(count(&field(&reply, "search"), 1), 20);
    let mut reply = ack(&all);
    assert_eq!(cut(&mut reply, false), "not taking 281 of 301 elements of option 119");
    assert_eq!(count(&var(&reply, "search").unwrap(), 1), 20);
    let domains = "a.example ".repeat(70).into_bytes();
    let mut reply = ack(&[(15, domains)]);
    assert_eq!(cut(&mut reply, true), "not taking 6 of 70 elements of option 15");
    assert_eq!(count(&field(&reply, "search"), 1), 64);
    let mut reply = ack(&[(3, servers(250).repeat(2))]);
    assert!(cut(&mut reply, false).ends_with(" of 500 elements of option 3"));
}

#[test]
fn an_mtu_that_cuts_us_off_is_shown_to_nobody() {
    for (data, said) in [
        (&[0, 68][..], "not taking an MTU of 68 bytes (less than 576)"),
        (&[2, 63], "not taking an MTU of 575 bytes (less than 576)"),
        (&[0, 0], "not taking an MTU of 0 bytes (less than 576)"),
        (&[5, 0x78, 0, 68], "not taking an MTU of 68 bytes (less than 576)"),
        (&[2, 64], ""),
        (&[5], ""),
    ] {
        for native in [false, true] {
            let mut reply = ack(&[(26, data.to_vec())]);
            let shown = if said.is_empty() { var(&reply, "mtu") } else { None };
            assert_eq!(var(&reply, "mtu"), shown, "{data:?}");
            assert!(var(&reply, "opt26").is_none());
            assert_eq!(cut(&mut reply, native), said, "{data:?}");
            assert_eq!((var(&reply, "mtu"), reply.option(26).is_none()), (shown, !said.is_empty()), "{data:?}");
        }
    }
}

/// What is kept is a part of the list in its order, within its budget; the default route is in it
/// when there is room for it.
#[test]
fn the_default_route_survives_every_bound() {
    let mut rng = Rng::seeded(121);
    for _ in 0..20_000 {
        let list: Vec<Route> = (0..rng.below(40))
            .map(|_| {
                let len = if rng.below(12) == 0 { 0 } else { rng.below(33) as u8 };
                let gw = if rng.below(4) == 0 { 0 } else { rng.next_u32() };
                (rng.next_u32().into(), len, gw.into())
            })
            .collect();
        let budget = 2 + rng.below(40) as usize;
        let kept = route_list::keep(&list, budget, |_| 1);
        assert_eq!(kept.len(), list.len().min(budget));
        let mut rest = list.iter();
        assert!(kept.iter().all(|route| rest.any(|sent| sent == route)), "{list:?} {kept:?}");
        let is_default = |(_, len, gw): &&Route| *len == 0 && netd_core::net::is_host(*gw);
        assert_eq!(kept.iter().find(is_default), list.iter().find(is_default), "{list:?}");
    }
}

#[test]
fn a_name_that_is_none_is_not_in_the_record_and_said() {
    let mut reply = ack(&[(15, b"corp..example".to_vec()), (12, b"my host".to_vec())]);
    assert_eq!(cut(&mut reply, true), "not taking the name 'corp..example', the name 'my host'");
    assert_eq!([field(&reply, "domain"), field(&reply, "hostname")], ["", ""]);
    let mut reply = ack(&[(15, b"corp.example".to_vec()), (12, b"host\0".to_vec())]);
    assert_eq!(cut(&mut reply, true), "");
    assert_eq!([field(&reply, "domain"), field(&reply, "hostname")], ["corp.example", "host"]);
    let long = vec![b'.'; 250];
    let said = cut(&mut ack(&[(12, vec![0xff; 250]), (15, [&long[..], b" . .. ... -"].concat())]), true);
    assert!(said.contains("the name '") && said.len() < 600, "{said}");
    // A script gets what udhcpc gives it.
    assert_eq!(cut(&mut ack(&[(15, b"corp..example".to_vec())]), false), "");
}

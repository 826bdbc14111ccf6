//! An address of before: after a cable was elsewhere, and from the state file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::bench::{Bench, FROM, checked, secs};
use common::{ACK, ADDRESS, MAC, NAK, OFFER, SERVER, Wire};
use netd_core::acd::Timing;
use netd_core::wire::arp::{Arp, Operation};
use netd_udhcpc::client::{Action, Config, Event, Watch};

const NONE: [&str; 0] = [];
const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// Bound; the lease names `router`, and came through `relay`.
fn bound(config: Config, router: Ipv4Addr, relay: Ipv4Addr) -> Bench {
    let mut b = Bench::started(config);
    b.usual(OFFER);
    let ack = Wire::usual(ACK, b.xid()).opt(3, &router.octets()).at(24, &relay.octets());
    b.hear(ack);
    while b.client.address().is_none() {
        b.wait();
    }
    b.now += secs(100);
    b.event(Event::Timer);
    b
}

fn at_home() -> Bench {
    let config = Config { mac: MAC, ..Config::default() };
    bound(config, SERVER, Ipv4Addr::UNSPECIFIED)
}

fn answer() -> Arp {
    let (sender_ip, sender_mac) = (SERVER, FROM);
    Arp { operation: Operation::Reply, sender_mac, sender_ip, target_mac: MAC, target_ip: ADDRESS }
}

#[test]
fn the_carrier_is_back_and_the_server_agrees() {
    let mut b = at_home();
    assert_eq!(b.event(Event::Carrier), ["question", "Request"]);
    let request = b.last.clone().unwrap();
    assert_eq!((request.requested, request.server_id), (Some(ADDRESS), None), "RFC 2131 table 5, INIT-REBOOT");
    assert!(request.ciaddr.is_unspecified());
    assert_eq!(b.client.address(), Some(ADDRESS), "used all the time: no packet is lost");
    assert_eq!(b.usual(ACK), ["renew"]);
    assert_eq!(b.client.address(), Some(ADDRESS));
}

#[test]
fn on_another_network_the_address_goes_at_once_or_soon() {
    // With a server that knows that it cannot be.
    let mut b = at_home();
    b.event(Event::Carrier);
    assert_eq!(b.usual(NAK), ["nak", "deconfig", "Discover"]);
    assert_eq!(b.client.address(), None);
    // With one that has never heard of us: it keeps silent, and so does the router.
    let mut b = at_home();
    let plugged = b.now;
    b.event(Event::Carrier);
    b.wait_for("deconfig");
    assert!(b.said.contains(&"Discover".to_owned()), "{:?}", b.said);
    assert!(b.now - plugged <= Duration::from_millis(2500), "{:?}", b.now - plugged);
    assert_eq!(b.usual(OFFER), ["Request"]);
    assert_eq!(b.usual(ACK), ["bound"]);
}

#[test]
fn whoever_is_carried_from_network_to_network_finds_each_as_quickly_as_the_first() {
    for knows_us in [true, false] {
        let mut b = at_home();
        for _ in 0..8 {
            let plugged = b.now;
            b.event(Event::Carrier);
            if knows_us {
                b.usual(NAK);
            } else {
                b.wait_for("deconfig");
            }
            assert_eq!(b.said.last().map(String::as_str), Some("Discover"));
            assert!(b.now - plugged <= Duration::from_millis(2500), "{:?}", b.now - plugged);
            b.usual(OFFER);
            assert_eq!(b.usual(ACK), ["bound"]);
            b.now += secs(5);
            b.event(Event::CarrierLost);
        }
    }
}

#[test]
fn a_dead_server_costs_nothing_while_the_router_is_the_one_of_before() {
    let mut b = at_home();
    b.event(Event::Carrier);
    assert!(b.actions.contains(&Action::Watch(Watch::Answers { ip: ADDRESS, from: SERVER })));
    assert_eq!(b.event(Event::Arp(answer())), NONE);
    assert!(b.actions.contains(&Action::Watch(Watch::Nothing)), "nobody listens any longer than needed");
    // The server has the last word if it has one ...
    assert_eq!(b.usual(NAK), ["nak", "deconfig", "Discover"]);
    // ... and where it has none the lease goes on as it would have.
    let mut b = at_home();
    b.event(Event::Carrier);
    b.event(Event::Arp(answer()));
    b.wait_for("Request to server");
    assert_eq!(b.client.address(), Some(ADDRESS));
    b.wait_for("deconfig");
    assert_eq!(b.now, secs(1000 + 3600), "its true end");
}

#[test]
fn only_the_very_router_is_believed() {
    let right = answer();
    for (what, arp) in [
        ("another card", Arp { sender_mac: STRANGER, ..right }),
        ("another address", Arp { sender_ip: Ipv4Addr::new(10, 9, 0, 254), ..right }),
        ("a question", Arp { operation: Operation::Request, ..right }),
        ("to somebody else", Arp { target_mac: STRANGER, ..right }),
        ("about another address", Arp { target_ip: Ipv4Addr::new(10, 9, 0, 7), ..right }),
    ] {
        let mut b = at_home();
        b.event(Event::Carrier);
        b.event(Event::Arp(arp));
        b.wait_for("deconfig");
        assert!(b.now < secs(1200), "{what} was believed");
    }
}

#[test]
fn the_router_is_asked_only_where_the_lease_tells_its_card() {
    let config = || Config { mac: MAC, ..Config::default() };
    let other = Ipv4Addr::new(10, 9, 0, 254);
    let mut b = bound(config(), other, Ipv4Addr::UNSPECIFIED);
    assert_eq!(b.event(Event::Carrier), ["Request"]);
    // A router that relays has handed us the lease itself.
    let mut b = bound(config(), other, other);
    assert_eq!(b.event(Event::Carrier), ["question", "Request"]);
    let Some(Action::SendArp(question)) = b.actions.iter().find(|a| matches!(a, Action::SendArp(_))) else { panic!() };
    // RFC 4436 section 2.1.1
    assert_eq!((question.sender_ip, question.target_ip, question.target_mac), (ADDRESS, other, FROM));
}

#[test]
fn a_loose_plug_is_no_storm() {
    // Also when a renewal is due.
    for age in [100, 2000] {
        let mut b = at_home();
        b.now = secs(1000 + age);
        let begun = b.now;
        let mut sent = 0;
        for _ in 0..100 {
            b.now += Duration::from_millis(50);
            sent += b.event(Event::Carrier).iter().filter(|word| *word == "Request").count();
            b.now += Duration::from_millis(50);
            let lost = b.event(Event::CarrierLost);
            assert!(!lost.iter().any(|word| word.starts_with("Request")), "{lost:?}");
        }
        let elapsed = usize::try_from((b.now - begun).as_secs()).unwrap();
        assert!(sent <= elapsed + 1, "{sent} in {elapsed} s");
        assert_eq!(b.client.address(), Some(ADDRESS));
        b.now += secs(1);
        assert_eq!(b.event(Event::Carrier), ["question", "Request"]);
        assert_eq!(b.usual(ACK), ["renew"]);
    }
}

#[test]
fn a_carrier_that_comes_and_goes_before_anybody_could_answer_costs_nothing() {
    let mut b = at_home();
    b.event(Event::Carrier);
    assert_eq!(b.event(Event::CarrierLost), NONE);
    assert!(b.actions.contains(&Action::Watch(Watch::Nothing)));
    b.now += secs(60);
    assert_eq!(b.event(Event::Timer), NONE);
    assert_eq!(b.client.address(), Some(ADDRESS));
    assert_eq!(b.event(Event::Carrier), ["question", "Request"], "asked for anew");
    assert_eq!(b.usual(ACK), ["renew"]);
}

#[test]
fn whoever_was_away_looks_again_whether_the_address_is_taken() {
    let mut b = bound(checked(Timing::FAST), SERVER, Ipv4Addr::UNSPECIFIED);
    assert_eq!(b.event(Event::Carrier), ["question", "probe", "Request"]);
    assert_eq!(b.event(Event::Arp(Arp::announcement(STRANGER, ADDRESS))), ["deconfig", "Decline", "Discover"]);
    // Nobody speaks against it: it is claimed anew.
    let mut b = bound(checked(Timing::FAST), SERVER, Ipv4Addr::UNSPECIFIED);
    b.event(Event::Carrier);
    assert_eq!(b.usual(ACK), ["renew"]);
    b.wait_for("announce");
    assert_eq!(b.client.address(), Some(ADDRESS));
}

#[test]
fn a_carrier_that_comes_back_after_a_crash_is_another_network_too() {
    let mut b = Bench::in_state("Rebooting");
    b.now += secs(2);
    b.event(Event::Carrier);
    b.wait_for("deconfig");
    assert!(b.now < secs(1010), "{:?}", b.now);
}

#[test]
fn a_remembered_address_is_asked_for_and_not_used_before_the_server_agrees() {
    let mut b = Bench::in_state("Remembered");
    assert_eq!(b.said, ["deconfig", "Request"]);
    assert_eq!(b.client.address(), None);
    let request = b.last.clone().unwrap();
    assert_eq!((request.requested, request.server_id, request.ciaddr), (Some(ADDRESS), None, Ipv4Addr::UNSPECIFIED));
    assert_eq!(b.usual(ACK), ["bound"]);
    assert_eq!(b.client.address(), Some(ADDRESS));
}

#[test]
fn a_remembered_address_that_nobody_confirms_becomes_a_wish() {
    let mut b = Bench::in_state("Remembered");
    let begun = b.now;
    b.wait_for("Discover");
    assert!(b.now - begun < Duration::from_millis(2500));
    assert_eq!(b.last.as_ref().unwrap().requested, Some(ADDRESS));
    // Refused, or given another: no wish any more, and nothing to take back.
    let mut b = Bench::in_state("Remembered");
    assert_eq!(b.usual(NAK), ["nak", "Discover"]);
    assert_eq!(b.last.as_ref().unwrap().requested, None);
    let mut b = Bench::in_state("Remembered");
    let other = Wire::usual(ACK, b.xid()).at(16, &[10, 9, 0, 7]);
    assert_eq!(b.hear(other), ["Discover"]);
}

#[test]
fn a_remembered_address_is_probed_for_beside_the_request() {
    let remembered = || Config { remembered: Some(ADDRESS), ..checked(Timing::FAST) };
    let mut b = Bench::started(remembered());
    assert_eq!(b.said, ["deconfig", "Request", "probe"]);
    assert_eq!(b.usual(ACK), NONE);
    b.wait_for("bound");
    let mut b = Bench::started(remembered());
    assert_eq!(b.event(Event::Arp(Arp::announcement(STRANGER, ADDRESS))), NONE);
    assert_eq!(b.usual(ACK), ["Decline", "Discover"]);
}

#[test]
fn a_server_that_takes_its_time_confirms_the_address_of_before_all_the_same() {
    let mut b = Bench::in_state("Remembered");
    let xid = b.xid();
    b.wait_for("Discover");
    b.now += secs(2);
    assert_eq!(b.hear(Wire::usual(ACK, xid)), ["bound"]);
    // On the network of before, where the address was taken for lost.
    let mut b = at_home();
    b.event(Event::Carrier);
    let xid = b.xid();
    b.wait_for("deconfig");
    b.now += secs(2);
    b.event(Event::Timer);
    assert_eq!(b.hear(Wire::usual(ACK, xid)), ["bound"]);
    // A refusal that comes late is none: the address is not in use.
    let mut b = at_home();
    b.event(Event::Carrier);
    let xid = b.xid();
    b.wait_for("deconfig");
    assert_eq!(b.hear(Wire::usual(NAK, xid)), NONE);
}

#[test]
fn what_was_offered_or_granted_before_the_carrier_was_lost_is_not_asked_for_when_it_is_back() {
    // A switch that moves a port to another network once it knows the station takes the carrier
    // away for a moment, in the middle of the search.
    const NEXT: [u8; 4] = [10, 9, 0, 7];
    for state in ["Selecting", "Requesting", "Checking"] {
        let mut b = Bench::started(checked(Timing::RFC5227));
        match state {
            // Without the server's name it is kept for a while.
            "Selecting" => drop(b.hear(Wire::new(b.xid(), ADDRESS).opt(53, &[OFFER]).opt(51, &[0, 0, 14, 16]))),
            "Requesting" => assert_eq!(b.usual(OFFER), ["Request"]),
            _ => assert_eq!((b.usual(OFFER), b.usual(ACK)), (vec!["Request".into()], vec![])),
        }
        b.event(Event::CarrierLost);
        b.now += secs(20);
        assert_eq!(b.event(Event::Carrier), ["Discover"], "{state}, and no ARP for the address of before");
        b.hear(Wire::usual(OFFER, b.xid()).at(16, &NEXT));
        assert_eq!(b.last.as_ref().unwrap().requested, Some(NEXT.into()), "{state}");
        b.hear(Wire::usual(ACK, b.xid()).at(16, &NEXT));
        b.wait_for("bound");
        assert_eq!(b.client.address(), Some(NEXT.into()), "{state}");
    }
}

//! The machine's table: every state meets every message and every wish.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::bench::{Bench, checked, secs};
use common::{ACK, ADDRESS, MAC, NAK, OFFER, SERVER, Wire};
use netd_core::acd::Timing;
use netd_core::rng::Rng;
use netd_core::wire::arp::{Arp, Operation};
use netd_udhcpc::client::{Action, Change, Client, Config, Destination, Event, Resume, Watch};
use netd_udhcpc::message::{MessageType, Template};
use netd_udhcpc::schedule::Schedule;

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// Rebooting has three reasons: a crash, a carrier that came back, and the state file.
const STATES: [&str; 11] = [
    "Init",
    "Selecting",
    "Requesting",
    "Checking",
    "Rebooting",
    "Roamed",
    "Remembered",
    "Bound",
    "Renewing",
    "Rebinding",
    "Released",
];

#[test]
fn every_state_and_every_message() {
    let table: [(&str, [&[&str]; 3]); 11] = [
        // state, on OFFER, on ACK, on NAK of the transaction
        ("Init", [&[], &[], &[]]),
        ("Selecting", [&["Request"], &[], &[]]),
        ("Requesting", [&[], &["bound"], &["nak", "Discover"]]),
        ("Checking", [&[], &[], &[]]),
        ("Rebooting", [&[], &["bound"], &["nak", "deconfig", "Discover"]]),
        ("Roamed", [&[], &["renew"], &["nak", "deconfig", "Discover"]]),
        ("Remembered", [&[], &["bound"], &["nak", "Discover"]]),
        ("Bound", [&[], &[], &[]]),
        ("Renewing", [&[], &["renew"], &["nak", "deconfig", "Discover"]]),
        ("Rebinding", [&[], &["renew"], &["nak", "deconfig", "Discover"]]),
        ("Released", [&[], &[], &[]]),
    ];
    for (state, want) in table {
        for (kind, want) in [OFFER, ACK, NAK].into_iter().zip(want) {
            let mut b = Bench::in_state(state);
            assert_eq!(b.usual(kind), want, "{state} on {kind}");
            // The same in another transaction never does anything.
            let mut b = Bench::in_state(state);
            let (before, deadline) = (b.client.address(), b.client.deadline());
            let none: [&str; 0] = [];
            assert_eq!(b.hear(Wire::usual(kind, b.xid().wrapping_add(1))), none, "{state} on {kind}, other xid");
            assert_eq!((b.client.address(), b.client.deadline()), (before, deadline), "{state}");
        }
    }
}

#[test]
fn every_state_and_every_wish() {
    const RELEASE: &[&str] = &["Release to server", "deconfig"];
    let table: [(&str, [&[&str]; 5]); 11] = [
        // state, on USR1 (2 s later), on USR2, on the carrier's return, on TERM, on the interface's
        // end
        ("Init", [&["Discover"], &["deconfig"], &["Discover"], &["stop", "exit 0"], &["stop", "exit 0"]]),
        ("Selecting", [&["Discover"], &["deconfig"], &["Discover"], &["stop", "exit 0"], &["stop", "exit 0"]]),
        ("Requesting", [&["Request"], &["deconfig"], &["Discover"], &["stop", "exit 0"], &["stop", "exit 0"]]),
        // Two seconds later the wait is over too.
        ("Checking", [&["bound"], &["deconfig"], &["Discover"], &["stop", "exit 0"], &["stop", "exit 0"]]),
        ("Rebooting", [&["Request"], RELEASE, &["Request"], &["stop", "exit 0"], &["stop", "exit 0"]]),
        ("Roamed", [&["Request"], RELEASE, &["Request"], &["stop", "exit 0"], &["stop", "exit 0"]]),
        ("Remembered", [&["Request"], &["deconfig"], &["Request"], &["stop", "exit 0"], &["stop", "exit 0"]]),
        ("Bound", [&["Request to server"], RELEASE, &["Request"], &["stop", "exit 0"], &["stop", "exit 0"]]),
        ("Renewing", [&["Request to server"], RELEASE, &["Request"], &["stop", "exit 0"], &["stop", "exit 0"]]),
        ("Rebinding", [&["Request"], RELEASE, &["Request"], &["stop", "exit 0"], &["stop", "exit 0"]]),
        ("Released", [&["Discover"], &[], &[], &["stop", "exit 0"], &["stop", "exit 0"]]),
    ];
    assert_eq!(table.map(|(state, _)| state), STATES);
    for (state, want) in table {
        let events = [Event::Renew, Event::Release, Event::Carrier, Event::Stop, Event::Gone];
        for (event, want) in events.into_iter().zip(want) {
            let mut b = Bench::in_state(state);
            if matches!(event, Event::Carrier) {
                b.event(Event::CarrierLost);
            }
            b.now += secs(2);
            assert_eq!(b.event(event.clone()), want, "{state} on {event:?}");
        }
    }
}

#[test]
fn a_message_that_could_not_be_sent_counts_as_no_silence() {
    for state in STATES {
        let mut b = Bench::in_state(state);
        let deadline = b.client.deadline();
        let none: [&str; 0] = [];
        assert_eq!(b.event(Event::Unsent), none, "{state}");
        assert_eq!(b.client.deadline(), deadline, "{state}");
    }
}

#[test]
fn a_dead_link_is_asked_rarely_and_at_once_when_it_lives() {
    let mut b = Bench::started(Config::default());
    let mut sent = 0;
    while b.now < secs(1000 + 8 * 3600) {
        b.event(Event::Unsent);
        sent += b.wait().iter().filter(|word| *word == "Discover").count();
    }
    assert!((450..460).contains(&sent), "once a minute and not every second: {sent} in 8 hours");
    b.event(Event::Unsent);
    b.now += secs(30);
    assert_eq!(b.event(Event::Carrier), ["Discover"]);
    assert_eq!(b.last.as_ref().unwrap().secs, 0);
    // And eager again: a switch takes its time until it lets anything through.
    let plugged = b.now;
    for within in [2, 6, 13, 29] {
        b.wait_for("Discover");
        assert!(b.now - plugged < secs(within), "{:?}", b.now - plugged);
    }
}

#[test]
fn release_at_the_end_tells_the_server_and_the_handler() {
    let config = || Config { release: true, ..Config::default() };
    let mut b = Bench::started(config());
    b.usual(OFFER);
    b.usual(ACK);
    assert_eq!(b.event(Event::Stop), ["Release to server", "deconfig", "stop", "exit 0"]);
    let mut b = Bench::started(Config { quit: true, ..config() });
    b.usual(OFFER);
    assert_eq!(b.usual(ACK), ["bound", "deconfig", "exit 0"], "udhcpc sends no release here");
}

#[test]
fn a_request_says_what_rfc_2131_table_5_asks() {
    let mut b = Bench::in_state("Requesting");
    let m = b.last.clone().unwrap();
    assert_eq!((m.requested, m.server_id, m.ciaddr), (Some(ADDRESS), Some(SERVER), Ipv4Addr::UNSPECIFIED));
    b = Bench::in_state("Rebooting");
    let m = b.last.clone().unwrap();
    assert_eq!((m.requested, m.server_id, m.ciaddr), (Some(ADDRESS), None, Ipv4Addr::UNSPECIFIED));
    for state in ["Renewing", "Rebinding"] {
        let m = Bench::in_state(state).last.unwrap();
        assert_eq!((m.requested, m.server_id, m.ciaddr), (None, None, ADDRESS), "{state}");
    }
    let m = Bench::in_state("Released").last.unwrap();
    assert_eq!((m.kind, m.requested, m.server_id, m.ciaddr), (MessageType::Release, None, Some(SERVER), ADDRESS));
}

#[test]
fn a_request_has_the_seconds_and_the_flag_of_its_discover() {
    for sent in 1..=6 {
        let mut b = Bench::started(Config::default());
        (1..sent).for_each(|_| b.wait_for("Discover"));
        let discover = b.last.clone().unwrap();
        // Every other one from the third on: where nothing comes by unicast, or nothing by
        // broadcast.
        assert_eq!(discover.broadcast, sent == 3 || sent == 5, "{sent}");
        b.now += Duration::from_millis(500);
        b.usual(OFFER);
        for _ in 0..3 {
            let request = b.last.clone().unwrap();
            assert_eq!((request.secs, request.broadcast), (discover.secs, discover.broadcast), "{sent}");
            b.wait();
        }
    }
    // With udhcpc's timing it is udhcpc's flag.
    let schedule = Schedule::from_options(Some(9), None, None);
    let mut b = Bench::started(Config { schedule, ..Config::default() });
    for _ in 0..8 {
        b.wait();
        assert!(!b.last.as_ref().unwrap().broadcast);
    }
}

#[test]
fn t1_and_t2_come_from_the_server_when_they_can_be_true() {
    let t1_of = |t1: Option<u32>, t2: Option<u32>| {
        let mut b = Bench::in_state("Requesting");
        let given = [(58, t1), (59, t2)].into_iter().filter_map(|(code, secs)| Some((code, secs?.to_be_bytes())));
        let ack = given.fold(Wire::usual(ACK, b.xid()), |ack, (code, secs)| ack.opt(code, &secs));
        b.hear(ack);
        let t1 = b.client.deadline().unwrap() - b.now;
        b.wait_for("Request");
        (t1, b.now - secs(1000))
    };
    // T1 is up to a 32nd early; T2 is on the second.
    for (given, t1, t2) in [
        ((Some(600), Some(1200)), 600, 1200),
        ((Some(1200), Some(600)), 1800, 3150),
        ((Some(0), Some(5)), 1800, 3150),
        ((Some(u32::MAX), Some(u32::MAX)), 1800, 3150),
        // The one does not spoil the other.
        ((Some(10), Some(3600)), 10, 3150),
        ((Some(10), None), 10, 3150),
        ((None, Some(2000)), 1800, 2000),
        ((Some(3300), None), 1800, 3150),
    ] {
        let (got1, got2) = t1_of(given.0, given.1);
        assert!(got1 <= secs(t1) && got1 >= secs(t1) * 31 / 32, "{given:?}: {got1:?}");
        assert_eq!(got2, secs(t2), "{given:?}");
    }
}

#[test]
fn an_answer_without_a_server_id_is_of_the_server_that_was_asked() {
    let nameless = |b: &Bench| {
        Wire::new(b.xid(), ADDRESS).opt(53, &[ACK]).opt(51, &600u32.to_be_bytes()).opt(1, &[255, 255, 255, 0])
    };
    for (state, want) in [("Requesting", "bound"), ("Renewing", "renew")] {
        let mut b = Bench::in_state(state);
        let ack = nameless(&b);
        assert_eq!(b.hear(ack), [want], "{state}");
        // It is asked again.
        b.wait_for("Request to server");
    }
}

#[test]
fn what_was_ours_is_asked_for_again_when_it_is_lost_but_not_when_it_was_refused() {
    let mut b = Bench::in_state("Bound");
    b.wait_for("deconfig");
    assert_eq!(b.said, ["deconfig", "Discover"]);
    assert_eq!(b.last.clone().unwrap().requested, Some(ADDRESS));
    let mut b = Bench::in_state("Renewing");
    assert_eq!(b.usual(NAK), ["nak", "deconfig", "Discover"]);
    assert_eq!(b.last.clone().unwrap().requested, None);
    // RFC 7844 section 3.3.
    let mut b = Bench::started(Config { anonymous: true, ..Config::default() });
    b.usual(OFFER);
    b.usual(ACK);
    b.wait_for("deconfig");
    assert_eq!(b.last.clone().unwrap().requested, None);
}

#[test]
fn a_lease_is_kept_to_its_true_end_and_not_a_moment_longer() {
    let mut b = Bench::in_state("Bound");
    b.wait_for("deconfig");
    assert_eq!(b.now, secs(1000 + 3600));
    assert_eq!(b.said, ["deconfig", "Discover"]);
    assert_eq!(b.client.address(), None);
}

#[test]
fn a_lease_counts_from_the_request_not_from_its_late_answer() {
    let mut b = Bench::in_state("Requesting");
    b.wait();
    b.now += Duration::from_millis(700);
    assert_eq!(
        b.hear(Wire::usual(ACK, b.xid()).opt(58, &100u32.to_be_bytes()).opt(59, &200u32.to_be_bytes())),
        ["bound"]
    );
    let granted = b.actions.iter().find_map(|a| match a {
        Action::Tell(Change::Bound(grant)) => Some(grant.end),
        _ => None,
    });
    assert_eq!(granted, Some(secs(4600)));
    assert!(b.client.deadline().unwrap() <= secs(1100), "T1");
    b.wait_for("Request");
    assert_eq!(b.now, secs(1200), "T2");
    b.wait_for("deconfig");
    assert_eq!(b.now, secs(4600));
}

#[test]
fn time_that_passed_in_a_suspend_counts() {
    for state in ["Bound", "Renewing", "Rebinding", "Rebooting"] {
        let mut b = Bench::in_state(state);
        let xid = b.xid();
        b.now += secs(1_000_000);
        // The answer of before the suspend is in the socket; it is not looked at.
        let said = b.hear(Wire::usual(ACK, xid));
        assert_eq!(said, ["deconfig", "Discover"], "{state}");
    }
    let mut b = Bench::in_state("Bound");
    b.now += secs(3300);
    assert_eq!(b.event(Event::Timer), ["Request"], "past T2: straight to rebinding");
}

#[test]
fn a_lease_that_ends_while_it_is_checked_is_never_used() {
    let mut b = Bench::in_state("Checking");
    b.now += secs(1_000_000);
    // Both deadlines have passed: the detector's and the lease's.
    assert_eq!(b.event(Event::Timer), ["leasefail", "Discover"]);
    assert_eq!(b.client.address(), None);
}

#[test]
fn renewing_by_hand_never_costs_the_lease() {
    let mut b = Bench::in_state("Bound");
    for _ in 0..50 {
        b.now += secs(2);
        assert_eq!(b.event(Event::Renew), ["Request to server"]);
        assert_eq!(b.client.address(), Some(ADDRESS));
    }
    let none: [&str; 0] = [];
    assert_eq!(b.event(Event::Renew), none, "not twice within a second");
    b.wait_for("deconfig");
    assert_eq!(b.now, secs(4600), "the dead server's lease lived to its end");
}

#[test]
fn one_nak_costs_no_time_and_a_storm_of_them_is_bounded() {
    let mut b = Bench::in_state("Requesting");
    assert_eq!(b.usual(NAK), ["nak", "Discover"]);
    assert_eq!(b.usual(OFFER), ["Request"], "the server that refused once may offer again at once");
    assert_eq!(b.usual(ACK), ["bound"]);

    let mut b = Bench::in_state("Requesting");
    let (start, mut packets) = (b.now, 0);
    while b.now < start + secs(600) {
        if b.said.iter().any(|w| w == "Request") {
            b.usual(NAK);
        } else if b.said.iter().any(|w| w == "Discover") {
            b.usual(OFFER);
        } else {
            b.wait();
        }
        packets += b.said.iter().filter(|w| ["Discover", "Request"].contains(&w.as_str())).count();
        assert!(packets < 200, "{packets} packets in {:?}", b.now - start);
    }
}

#[test]
fn a_nak_counts_only_from_who_may_say_no() {
    let nak_of_other = |b: &Bench| Wire::new(b.xid(), Ipv4Addr::UNSPECIFIED).opt(53, &[NAK]).opt(54, &OTHER.octets());
    let anonymous = |b: &Bench| Wire::new(b.xid(), Ipv4Addr::UNSPECIFIED).opt(53, &[NAK]);
    let none: [&str; 0] = [];
    for (state, other) in [
        ("Requesting", &none[..]),
        ("Renewing", &none),
        ("Rebinding", &["nak", "deconfig", "Discover"]),
        ("Rebooting", &["nak", "deconfig", "Discover"]),
    ] {
        let mut b = Bench::in_state(state);
        assert_eq!(b.hear(nak_of_other(&b)), other, "{state}");
        let mut b = Bench::in_state(state);
        assert_eq!(b.hear(anonymous(&b)), none, "{state}, no server-id");
    }
}

#[test]
fn d31_a_server_that_offers_and_never_confirms_cannot_starve_us() {
    let mut b = Bench::started(Config::default());
    let start = b.now;
    let offer_of = |b: &Bench, server: Ipv4Addr, last: u8| {
        Wire::new(b.xid(), Ipv4Addr::new(10, 9, 0, last))
            .opt(53, &[OFFER])
            .opt(54, &server.octets())
            .opt(51, &[0, 0, 1, 0])
    };
    assert_eq!(b.hear(offer_of(&b, OTHER, 66)), ["Request"]);
    let none: [&str; 0] = [];
    assert_eq!(b.hear(offer_of(&b, SERVER, 133)), none, "the first one may still answer");
    assert_eq!(b.wait(), ["Request"]);
    assert_eq!(b.last.as_ref().unwrap().server_id, Some(SERVER));
    assert!(b.now - start < secs(2), "{:?}", b.now - start);
    // The honest one is slow with its offer.
    let mut b = Bench::started(Config::default());
    b.hear(offer_of(&b, OTHER, 66));
    assert_eq!(b.wait(), ["Request"]);
    assert_eq!(b.last.as_ref().unwrap().server_id, Some(OTHER), "only one has offered");
    b.now += secs(1);
    assert_eq!(b.hear(offer_of(&b, SERVER, 133)), ["Request"]);
    assert_eq!(b.last.as_ref().unwrap().server_id, Some(SERVER));
    // Its offer gets lost, so that it is found by the next DISCOVER alone.
    let mut b = Bench::started(Config::default());
    b.hear(offer_of(&b, OTHER, 66));
    b.wait_for("Discover");
    assert!(b.now - start < secs(15), "{:?}", b.now - start);
    assert_eq!(b.hear(offer_of(&b, OTHER, 66)), none);
    assert_eq!(b.hear(offer_of(&b, SERVER, 133)), ["Request"]);
    assert_eq!(b.last.as_ref().unwrap().server_id, Some(SERVER));
    // With udhcpc's timing it is as there: the first offer of each cycle.
    let schedule = Schedule::from_options(None, Some(secs(3)), None);
    let mut b = Bench::started(Config { schedule, ..Config::default() });
    b.hear(offer_of(&b, OTHER, 66));
    b.hear(offer_of(&b, SERVER, 133));
    assert_eq!((b.wait(), b.wait()), (vec!["Request".into()], vec!["Request".into()]));
    assert_eq!((b.last.as_ref().unwrap().server_id, b.wait()), (Some(OTHER), vec!["leasefail".into()]));
}

#[test]
fn a_station_that_offers_under_ever_new_names_does_not_keep_us_from_asking_all_servers() {
    let mut b = Bench::started(Config::default());
    let start = b.now;
    let offer = |b: &Bench, name: u8| {
        let offer = Wire::new(b.xid(), Ipv4Addr::new(10, 9, 0, 66)).opt(53, &[OFFER]);
        offer.opt(54, &[10, 9, 1, name]).opt(51, &[0, 0, 1, 0])
    };
    let mut name = 1;
    b.hear(offer(&b, name));
    while !b.wait().contains(&"Discover".to_owned()) {
        name += 1;
        assert!(name < 100, "no DISCOVER in {:?}", b.now - start);
        b.hear(offer(&b, name));
    }
    assert!(b.now - start < secs(30), "{:?}", b.now - start);
}

#[test]
fn a_silent_server_is_asked_again_when_it_is_the_only_one() {
    let mut b = Bench::in_state("Requesting");
    b.wait_for("Discover");
    let none: [&str; 0] = [];
    assert_eq!(b.usual(OFFER), none);
    assert_eq!(b.wait(), ["Request"]);
    assert_eq!(b.usual(ACK), ["bound"]);
}

#[test]
fn d33_an_ack_must_be_of_what_was_offered() {
    let mut b = Bench::in_state("Requesting");
    let none: [&str; 0] = [];
    let from_other = Wire::new(b.xid(), ADDRESS).opt(53, &[ACK]).opt(54, &OTHER.octets());
    assert_eq!(b.hear(from_other), none, "another server");
    assert_eq!(b.hear(Wire::usual(ACK, b.xid()).at(16, &[10, 9, 0, 7])), ["Discover"], "another address");
    let mut b = Bench::in_state("Renewing");
    assert_eq!(b.hear(Wire::usual(ACK, b.xid()).at(16, &[10, 9, 0, 7])), ["deconfig", "Discover"]);
    let mut b = Bench::in_state("Rebinding");
    let other = Wire::new(b.xid(), ADDRESS).opt(53, &[ACK]).opt(54, &OTHER.octets()).opt(51, &[0, 0, 14, 16]);
    assert_eq!(b.hear(other), ["renew"], "rebinding is there to find another server");
    b.wait();
    let to = b.actions.iter().find_map(|a| match a {
        Action::Send(_, Destination::Server { to, .. }) => Some(*to),
        _ => None,
    });
    assert_eq!(to, Some(OTHER));
}

#[test]
fn offers_that_cannot_be_true_are_passed_over() {
    let mut b = Bench::started(Config::default());
    let none: [&str; 0] = [];
    for bad in [
        Wire::usual(OFFER, b.xid()).at(16, &[0; 4]),
        Wire::usual(OFFER, b.xid()).at(16, &[127, 0, 0, 1]),
        Wire::new(b.xid(), ADDRESS).opt(53, &[OFFER]).opt(54, &SERVER.octets()).opt(1, &[255, 0, 255, 0]),
        Wire::new(b.xid(), ADDRESS).opt(53, &[OFFER]).opt(54, &SERVER.octets()).opt(51, &[0; 4]),
    ] {
        assert_eq!(b.hear(bad), none);
    }
    assert_eq!(b.usual(OFFER), ["Request"], "a good one after them is taken");
}

#[test]
fn an_offer_without_server_id_is_a_last_resort() {
    let mut b = Bench::started(Config::default());
    let none: [&str; 0] = [];
    assert_eq!(b.hear(Wire::new(b.xid(), ADDRESS).opt(53, &[OFFER]).opt(51, &[0, 0, 1, 0])), none);
    assert_eq!(b.wait(), ["Request"]);
    assert_eq!(b.hear(Wire::new(b.xid(), ADDRESS).opt(53, &[ACK]).opt(51, &[0, 0, 1, 0])), ["bound"]);
    assert_eq!(b.wait(), ["Request"], "renewed by broadcast: nobody to unicast to");
}

#[test]
fn given_timing_is_udhcpcs() {
    let schedule = Schedule::from_options(Some(3), Some(secs(2)), Some(secs(30)));
    let mut b = Bench::started(Config { schedule, ..Config::default() });
    let mut times = vec![(0, b.said.clone())];
    for _ in 0..7 {
        let said = b.wait();
        times.push(((b.now - secs(1000)).as_secs(), said));
    }
    let words = |n, w: &[&str]| (n, w.iter().map(|s| s.to_string()).collect::<Vec<_>>());
    let want = [
        words(0, &["deconfig", "Discover"]),
        words(2, &["Discover"]),
        words(4, &["Discover"]),
        words(6, &["leasefail"]),
        words(36, &["Discover"]),
        words(38, &["Discover"]),
        words(40, &["Discover"]),
        words(42, &["leasefail"]),
    ];
    assert_eq!(times, want);
    let mut b = Bench::started(Config { schedule, ..Config::default() });
    b.usual(OFFER);
    assert_eq!(
        (b.wait(), b.wait(), b.wait()),
        (vec!["Request".into()], vec!["Request".into()], vec!["leasefail".into()])
    );
}

#[test]
fn our_own_timing_is_eager_at_first_and_then_leaves_a_network_without_a_server_alone() {
    for seed in 0..200 {
        let mut b = Bench::new(Config::default());
        b.client = Client::new(Config::default(), Rng::seeded(seed));
        b.event(Event::Start);
        let mut sent = vec![Duration::ZERO];
        while b.now < secs(1000 + 2 * 3600) {
            if b.wait().iter().any(|w| w == "Discover") {
                sent.push(b.now - secs(1000));
            }
        }
        let first: Vec<u64> = sent.iter().map(Duration::as_secs).take(7).collect();
        let about = [0..1, 0..2, 3..5, 10..12, 24..29, 54..60, 116..125];
        assert!(first.iter().zip(about).all(|(at, about)| about.contains(at)), "{first:?}");
        // Who comes up 10 s after us is found within 2 s.
        assert!(sent.iter().any(|at| (10_100..12_000).contains(&at.as_millis())), "{sent:?}");
        // RFC 2131 section 4.1
        assert!(sent.windows(2).all(|w| w[1] - w[0] <= secs(65)), "{sent:?}");
        let most = |span: u64| sent.iter().map(|from| within(&sent, *from, secs(span))).max();
        // Room for the REQUESTs that follow an offer, where gear stops listening after ten in 180 s
        // or six in 5 s.
        assert!(most(180) <= Some(7) && most(5) <= Some(3), "{sent:?}");
        let later = sent.iter().filter(|at| **at >= secs(60));
        assert!(later.clone().all(|from| within(&sent, *from, secs(60)) == 1), "{sent:?}");
    }
}

/// How many in the `span` that begins at `from`.
fn within(times: &[Duration], from: Duration, span: Duration) -> usize {
    times.iter().filter(|at| (from..from + span).contains(at)).count()
}

#[test]
fn a_request_is_repeated_so_that_it_passes_where_one_message_in_five_seconds_does() {
    for seed in 0..200 {
        let mut b = Bench::new(Config::default());
        b.client = Client::new(Config::default(), Rng::seeded(seed));
        b.event(Event::Start);
        b.usual(OFFER);
        let mut sent = vec![b.now - secs(1000)];
        while b.wait() == ["Request"] {
            sent.push(b.now - secs(1000));
        }
        assert_eq!(sent.len(), 3, "{sent:?}");
        assert!((5100..6100).contains(&sent[2].as_millis()), "{sent:?}");
        assert!(b.now > secs(1012), "patient");
    }
}

#[test]
fn an_ack_counts_however_late_it_comes() {
    // The transaction goes on for a while ...
    for late in [0, 3700, 9000, 12_000] {
        let mut b = Bench::in_state("Requesting");
        let xid = b.xid();
        go_on(&mut b, late);
        assert_eq!(b.hear(Wire::usual(ACK, xid)), ["bound"], "{late}");
    }
    // ... and is given up for another one; the lease counts from the first REQUEST all the same.
    for late in [14_500, 17_000, 26_000, 40_000] {
        let mut b = Bench::in_state("Requesting");
        let xid = b.xid();
        go_on(&mut b, late);
        assert_ne!(b.xid(), xid, "{late}");
        assert_eq!(b.hear(Wire::usual(ACK, xid)), ["bound"], "{late}");
        b.wait_for("deconfig");
        assert_eq!(b.now, secs(1000 + 3600), "{late}");
    }
    // Also where the same server has offered once more.
    let mut b = Bench::in_state("Requesting");
    let xid = b.xid();
    b.wait_for("Discover");
    b.usual(OFFER);
    assert_eq!(b.wait(), ["Request"]);
    assert_eq!(b.hear(Wire::usual(ACK, xid)), ["bound"]);
    // With udhcpc's timing, too.
    let schedule = Schedule::from_options(None, Some(secs(3)), None);
    let mut b = Bench::in_state_with("Requesting", Config { schedule, ..Config::default() });
    let xid = b.xid();
    b.wait_for("leasefail");
    assert_eq!(b.hear(Wire::usual(ACK, xid)), ["bound"]);
}

/// Lets `millis` pass.
fn go_on(b: &mut Bench, millis: u64) {
    let end = b.now + Duration::from_millis(millis);
    while b.client.deadline().is_some_and(|at| at <= end) {
        b.wait();
    }
    b.now = end;
}

#[test]
fn a_late_ack_is_of_what_was_asked_for_and_is_looked_at_as_any_other() {
    let given_up = |config: Config| {
        let mut b = Bench::started(config);
        b.usual(OFFER);
        let xid = b.xid();
        b.wait_for("Discover");
        (b, xid)
    };
    let (mut b, xid) = given_up(Config::default());
    let usual = || Wire::usual(ACK, xid);
    let other_server = Wire::new(xid, ADDRESS).opt(53, &[ACK]).opt(54, &OTHER.octets()).opt(51, &[0, 0, 14, 16]);
    for (what, wrong) in [
        ("another address", usual().at(16, &[10, 9, 0, 7])),
        ("another server", other_server),
        ("no address", usual().at(16, &[0; 4])),
        ("a refusal", Wire::usual(NAK, xid)),
        ("an offer", Wire::usual(OFFER, xid)),
    ] {
        assert_eq!(b.hear(wrong), [""; 0], "{what}");
    }
    // The server saw that its offer was not taken.
    let offer = Wire::new(b.xid(), Ipv4Addr::new(10, 9, 0, 66)).opt(53, &[OFFER]).opt(54, &OTHER.octets());
    assert_eq!(b.hear(offer.opt(51, &[0, 0, 14, 16])), ["Request"]);
    assert_eq!(b.hear(usual()), [""; 0]);
    // The network may be another one, or the one that asked.
    for event in [Event::Carrier, Event::Mac([2, 0, 0, 0, 0, 7]), Event::Release] {
        let (mut b, xid) = given_up(Config::default());
        b.event(event.clone());
        assert_eq!(b.hear(Wire::usual(ACK, xid)), [""; 0], "{event:?}");
    }
    // What has ended is no lease.
    let (mut b, xid) = given_up(Config::default());
    go_on(&mut b, 3_600_000);
    assert_eq!(b.hear(Wire::usual(ACK, xid)), [""; 0]);
    // Looked for first, where that is asked for.
    let (mut b, xid) = given_up(checked(Timing::FAST));
    assert_eq!(b.hear(Wire::usual(ACK, xid)), ["probe"]);
    assert_eq!(b.client.address(), None);
    assert_eq!(claimed(&mut b), ["Decline"]);
    // One that has ended changes nothing: the next answer is looked at as ever.
    let (mut b, xid) = given_up(checked(Timing::FAST));
    go_on(&mut b, 20_000);
    assert_eq!(b.hear(Wire::usual(OFFER, b.xid()).at(16, &[10, 9, 0, 7])), [""; 0]);
    assert_eq!(b.wait(), ["Request", "probe"]);
    let ended = Wire::new(xid, ADDRESS).opt(53, &[ACK]).opt(54, &SERVER.octets()).opt(51, &10u32.to_be_bytes());
    assert_eq!(b.hear(ended), [""; 0]);
    b.wait();
    assert_eq!(b.hear(Wire::usual(ACK, b.xid()).at(16, &[10, 9, 0, 7])), [""; 0], "not before the last probe");
    assert_eq!(b.client.address(), None);
}

#[test]
fn failure_is_said_when_udhcpc_says_it_and_n_b_act_on_it() {
    let mut b = Bench::started(Config::default());
    b.wait_for("leasefail");
    assert!(b.now >= secs(1009) && b.now < secs(1011));
    b.wait_for("leasefail");
    assert!(b.now >= secs(1038) && b.now < secs(1041));

    let mut b = Bench::started(Config { exit_on_failure: true, ..Config::default() });
    b.wait_for("exit 1");
    assert_eq!(b.said, ["leasefail", "exit 1"]);
    assert_eq!(b.client.deadline(), None, "nothing is sent after that");

    let mut b =
        Bench::started(Config { background_on_failure: true, background_when_bound: true, ..Config::default() });
    b.wait_for("background");
    assert_eq!(b.said, ["leasefail", "background"]);
    assert!(b.now == secs(1009), "{:?}", b.now);
    b.wait_for("Discover");
    b.usual(OFFER);
    assert_eq!(b.usual(ACK), ["bound"], "in the background already");

    // A record names the process that keeps it.
    for (native, words) in [(false, &["bound", "background"][..]), (true, &["bound", "background", "bound"])] {
        let mut b = Bench::started(Config { background_when_bound: true, native, ..Config::default() });
        b.usual(OFFER);
        assert_eq!(b.usual(ACK), words);
    }
    let mut b = Bench::started(Config { background_when_bound: true, ..Config::default() });
    b.usual(OFFER);
    assert_eq!(b.usual(ACK), ["bound", "background"]);
    assert_eq!(b.wait(), ["Request to server"]);
    assert_eq!(b.usual(ACK), ["renew"], "only once");
}

#[test]
fn a_crash_keeps_the_address() {
    let resume = Resume { ip: ADDRESS, server_id: SERVER, end: secs(2000) };
    let config = || Config { resume: Some(resume), ..Config::default() };
    let mut b = Bench::new(config());
    assert_eq!(b.event(Event::Start), ["Request"], "no deconfig: the address stays");
    assert_eq!(b.client.address(), Some(ADDRESS));
    // Nobody answers: it is kept, renewed and rebound, and ends when it ends.
    b.wait_for("Request to server");
    assert_eq!(b.client.address(), Some(ADDRESS));
    b.wait_for("deconfig");
    assert_eq!(b.now, secs(2000));
    // A record that has expired meanwhile is no reason to ask.
    let mut b = Bench::new(config());
    b.now = secs(2000);
    assert_eq!(b.event(Event::Start), ["deconfig", "Discover"]);
}

#[test]
fn requested_is_asked_for_until_a_server_says_no() {
    let wish = Ipv4Addr::new(10, 9, 0, 77);
    let mut b = Bench::started(Config { requested: Some(wish), ..Config::default() });
    assert_eq!(b.last.as_ref().unwrap().requested, Some(wish));
    b.usual(OFFER);
    b.usual(NAK);
    assert_eq!(b.last.as_ref().map(|m| (m.kind, m.requested)), Some((MessageType::Discover, None)));
}

#[test]
fn each_renewal_is_a_transaction_of_its_own() {
    let mut b = Bench::in_state("Renewing");
    let first = b.xid();
    b.wait();
    assert_ne!(b.xid(), first);
    assert_eq!(b.usual(ACK), ["renew"]);
    assert!(b.client.deadline().unwrap() >= b.now + secs(1700));
    assert_eq!(b.hear(Wire::usual(ACK, first)), [""; 0], "repeated, or late: nothing new");
    // The answer to the one before counts from when that was sent.
    for state in ["Renewing", "Rebinding"] {
        let mut b = Bench::in_state(state);
        let (first, asked) = (b.xid(), b.now);
        b.wait();
        assert_eq!(b.hear(Wire::usual(ACK, first)), ["renew"], "{state}");
        b.wait_for("deconfig");
        assert_eq!(b.now, asked + secs(3600), "{state}");
    }
}

#[test]
fn an_infinite_lease_has_no_deadline() {
    let mut b = Bench::in_state("Requesting");
    let forever = Wire::new(b.xid(), ADDRESS).opt(53, &[ACK]).opt(54, &SERVER.octets()).opt(51, &[255; 4]);
    assert_eq!(b.hear(forever.clone()), ["bound"]);
    assert_eq!(b.client.deadline(), None);
    b.now += secs(10);
    assert_eq!(b.event(Event::Renew), ["Request to server"]);
    let again = Wire::new(b.xid(), ADDRESS).opt(53, &[ACK]).opt(54, &SERVER.octets()).opt(51, &[255; 4]);
    assert_eq!(b.hear(again), ["renew"]);
    assert_eq!(b.client.deadline(), None);
}

const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// Hears somebody else say that he has the address.
fn claimed(b: &mut Bench) -> Vec<String> {
    b.event(Event::Arp(Arp::announcement(STRANGER, ADDRESS)))
}

#[test]
fn an_address_is_used_only_after_nobody_spoke_against_it() {
    for (timing, words) in [
        (Timing::one_probe(Duration::from_millis(500)), &["bound"][..]),
        (Timing::FAST, &["bound", "announce"]),
        (Timing::RFC5227, &["bound", "announce"]),
    ] {
        let mut b = Bench::started(checked(timing));
        b.usual(OFFER);
        assert_eq!(b.client.address(), None);
        assert_eq!(b.usual(ACK), [""; 0], "the ACK alone is not enough");
        let asked = b.now;
        while b.client.address().is_none() {
            b.wait();
        }
        assert_eq!(b.said, words);
        if timing == Timing::FAST {
            assert!(b.now - asked <= Duration::from_millis(300));
        }
    }
}

#[test]
fn probes_go_out_beside_the_request_and_a_late_ack_waits_for_nothing() {
    let mut b = Bench::started(checked(Timing::FAST));
    b.usual(OFFER);
    for _ in 0..2 {
        assert_eq!(b.wait(), ["probe"]);
    }
    // Found free, but not ours to announce before it is granted.
    assert_eq!(b.wait(), [""; 0]);
    assert_eq!(b.usual(ACK), ["bound", "announce"]);
}

#[test]
fn an_address_that_somebody_has_is_declined_and_another_asked_for_at_once() {
    let mut b = Bench::started(checked(Timing::FAST));
    b.usual(OFFER);
    b.usual(ACK);
    assert_eq!(claimed(&mut b), ["Decline", "Discover"]);
    // Known before the ACK: declined when it comes.
    let mut b = Bench::started(checked(Timing::FAST));
    b.usual(OFFER);
    assert_eq!(claimed(&mut b), [""; 0]);
    assert_eq!(b.usual(ACK), ["Decline", "Discover"]);
    let decline = b.actions.iter().find_map(|action| match action {
        Action::Send(message, Destination::Broadcast) if message.kind == MessageType::Decline => Some(message.clone()),
        _ => None,
    });
    let decline = decline.unwrap();
    // RFC 2131 table 5.
    assert_eq!((decline.requested, decline.server_id), (Some(ADDRESS), Some(SERVER)));
    assert!(decline.ciaddr.is_unspecified());
    let options = decline.encode(
        MAC,
        &Template {
            parameters: vec![1],
            extra: vec![(60, vec![1])],
            default_client_id: true,
            broadcast: true,
            ..Template::default()
        },
    );
    assert_eq!(options[240..258], [53, 1, 4, 50, 4, 10, 9, 0, 133, 54, 4, 10, 9, 0, 1, 61, 7, 1]);
    assert_eq!(options[8..12], [0; 4], "neither seconds nor flags");
    // With udhcpc's timing its wait is kept.
    let schedule = Schedule::from_options(None, None, Some(secs(20)));
    let mut b = Bench::started(Config { schedule, ..checked(Timing::one_probe(secs(2))) });
    b.usual(OFFER);
    b.usual(ACK);
    assert_eq!(claimed(&mut b), [""; 0], "-a waits for replies");
    let reply = Arp { operation: Operation::Reply, ..Arp::announcement(STRANGER, ADDRESS) };
    assert_eq!(b.event(Event::Arp(reply)), ["Decline"]);
    assert_eq!(b.client.deadline(), Some(b.now + secs(20)));
}

#[test]
fn conflicts_without_end_are_bounded() {
    let mut b = Bench::started(checked(Timing::FAST));
    let begun = b.now;
    for _ in 0..12 {
        while b.said != ["Discover"] && !b.said.contains(&"Discover".to_owned()) {
            b.wait();
        }
        b.usual(OFFER);
        b.usual(ACK);
        claimed(&mut b);
    }
    // RFC 5227 section 2.1.1: one try a minute after ten conflicts.
    assert!(b.now - begun > secs(60), "{:?}", b.now - begun);
}

#[test]
fn an_address_in_use_is_defended_once_and_then_given_up() {
    let mut b = Bench::started(checked(Timing::FAST));
    b.usual(OFFER);
    b.usual(ACK);
    while b.client.address().is_none() {
        b.wait();
    }
    b.now += secs(30);
    b.event(Event::Timer);
    assert_eq!(claimed(&mut b), ["announce"]);
    assert!(b.client.address().is_some());
    b.now += secs(5);
    assert_eq!(claimed(&mut b), ["deconfig", "Decline", "Discover"]);
    assert_eq!(b.client.address(), None);
    // With one probe nobody looks any more.
    let mut b = Bench::started(checked(Timing::one_probe(secs(1))));
    b.usual(OFFER);
    b.usual(ACK);
    b.wait();
    assert!(b.actions.contains(&Action::Watch(Watch::Nothing)));
    assert_eq!(claimed(&mut b), [""; 0]);
}

#[test]
fn the_address_of_before_a_crash_is_defended_too() {
    let resume = Resume { ip: ADDRESS, server_id: SERVER, end: secs(3000) };
    let mut b = Bench::started(Config { resume: Some(resume), ..checked(Timing::FAST) });
    assert_eq!(b.usual(ACK), ["bound"]);
    assert_eq!(claimed(&mut b), ["announce"]);
}

#[test]
fn a_server_may_answer_with_the_lease_when_it_was_told_so() {
    let rapid = || Config { rapid_commit: true, ..Config::default() };
    let ack = |b: &Bench| Wire::usual(ACK, b.xid()).opt(80, &[]);
    let mut b = Bench::started(rapid());
    assert!(b.last.as_ref().unwrap().rapid_commit);
    assert_eq!(b.hear(ack(&b)), ["bound"]);
    assert_eq!(b.client.address(), Some(ADDRESS));
    // T1 and the end count from the DISCOVER, and the server is asked as ever.
    assert_eq!(b.wait(), ["Request to server"]);
    // Not told so, not said so, or from nobody: no lease.
    let mut b = Bench::started(Config::default());
    assert_eq!(b.hear(ack(&b)), [""; 0]);
    let mut b = Bench::started(rapid());
    assert_eq!(b.usual(ACK), [""; 0]);
    let nobody = Wire::new(b.xid(), ADDRESS).opt(53, &[ACK]).opt(51, &3600u32.to_be_bytes()).opt(80, &[]);
    assert_eq!(b.hear(nobody), [""; 0]);
    // A server that appears after hours gives a whole lease, and is not asked for another at once.
    let mut late = Bench::started(rapid());
    while late.now < secs(1000 + 2 * 3600) {
        late.wait();
    }
    assert_eq!(late.hear(ack(&late)), ["bound"]);
    let asked = late.now;
    late.wait_for("Request to server");
    assert!(late.now - asked > secs(1700), "{:?}", late.now - asked);
    // An offer is as good as ever.
    assert_eq!(b.usual(OFFER), ["Request"]);
    assert!(!b.last.as_ref().unwrap().rapid_commit);
    assert_eq!(b.usual(ACK), ["bound"]);
    // The address is looked for first, where that is asked for.
    let mut b = Bench::started(Config { rapid_commit: true, ..checked(Timing::FAST) });
    assert_eq!(b.hear(ack(&b)), ["probe"]);
    assert_eq!(b.client.address(), None);
    b.wait_for("bound");
}

#[test]
fn the_background_and_the_end_wait_for_the_scripts() {
    let busy = |config: Config| {
        let mut b = Bench::started(config);
        b.usual(OFFER);
        b.busy = true;
        b
    };
    let mut b = busy(Config { background_when_bound: true, ..Config::default() });
    assert_eq!(b.usual(ACK), ["bound"]);
    assert_eq!(b.event(Event::ScriptEnded), [""; 0], "another one waits");
    assert_eq!(b.event(Event::Idle), ["background"]);
    assert_eq!(b.event(Event::Idle), [""; 0]);
    assert_eq!(b.wait(), ["Request to server"]);
    // -q and -n: whoever called us waits for what the script does, however long that takes, and for
    // nothing else.
    let mut b = busy(Config { quit: true, ..Config::default() });
    assert_eq!(b.usual(ACK), ["bound"]);
    assert_eq!(b.client.deadline(), None);
    for event in [Event::Renew, Event::Release, Event::Carrier, Event::Timer, Event::Gone, Event::ScriptEnded] {
        b.now += secs(10_000);
        assert_eq!(b.event(event), [""; 0]);
    }
    assert_eq!(b.event(Event::Idle), ["exit 0"]);
    let mut b = busy(Config { exit_on_failure: true, ..Config::default() });
    b.wait_for("leasefail");
    assert_eq!(b.event(Event::Idle), ["exit 1"]);
    // TERM: ten seconds; twice: at once.
    let mut b = busy(Config::default());
    assert_eq!(b.event(Event::Stop), ["stop"]);
    assert_eq!(b.client.deadline(), Some(b.now + secs(10)));
    assert_eq!(b.wait(), ["exit 0"]);
    let mut b = busy(Config::default());
    b.event(Event::Stop);
    assert_eq!(b.event(Event::Stop), ["exit 0"]);
    // TERM before the background: that is not gone to any more.
    let mut b = busy(Config { background_when_bound: true, ..Config::default() });
    b.usual(ACK);
    b.event(Event::Stop);
    assert_eq!(b.event(Event::Idle), ["exit 0"]);
}

#[test]
fn a_script_that_may_have_brought_the_interface_up_is_worth_another_try() {
    let mut b = Bench::started(Config::default());
    b.event(Event::Unsent);
    b.now += Duration::from_millis(50);
    assert_eq!(b.event(Event::ScriptEnded), ["Discover"]);
    // It was sent this time.
    b.now += Duration::from_millis(50);
    assert_eq!(b.event(Event::ScriptEnded), [""; 0]);
    // A carrier that was never away is none that comes back.
    assert_eq!(b.client.step(b.now, Event::Carrier), []);
}

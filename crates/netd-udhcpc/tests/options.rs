//! Options beyond the lease itself: what the record tells of them, and those that the command line
//! asks for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::bench::Bench;
use common::{ACK, ADDRESS, MAC, OFFER, SERVER, Wire, published};
use dhcproto::{Decodable, Decoder, v4};
use netd_core::rng::Rng;
use netd_udhcpc::client::{Action, Change, Client, Config, Destination, Event};
use netd_udhcpc::message::{MessageType, Outgoing, Template};

/// A key of the record, options in the ACK, and the value.
type Row = (&'static str, &'static [(u8, &'static [u8])], Option<&'static str>);

fn field(wire: Wire, name: &str) -> Option<String> {
    published(wire.reply()).get(name).map(str::to_owned)
}

#[test]
fn what_the_record_tells_of_options() {
    let ack = || Wire::usual(ACK, 1);
    let table: &[Row] = &[
        ("gw", &[(3, &[10, 9, 0, 1])], Some("10.9.0.1")),
        ("gw", &[(3, &[127, 0, 0, 1, 224, 0, 0, 1, 10, 9, 0, 133, 10, 9, 0, 2])], Some("10.9.0.2")),
        // RFC 3442: 121 in place of 3, 249 where there is no 121.
        ("gw", &[(3, &[10, 9, 0, 1]), (121, &[0, 10, 9, 0, 7])], Some("10.9.0.7")),
        ("routes", &[(3, &[10, 9, 0, 1]), (121, &[0, 10, 9, 0, 7])], None),
        ("gw", &[(3, &[10, 9, 0, 1]), (121, &[8, 10, 10, 9, 0, 7])], Some("")),
        ("routes", &[(3, &[10, 9, 0, 1]), (121, &[8, 10, 10, 9, 0, 7])], Some("10.0.0.0/8 10.9.0.7")),
        ("gw", &[(3, &[10, 9, 0, 1]), (249, &[0, 10, 9, 0, 8])], Some("10.9.0.8")),
        ("gw", &[(121, &[0, 10, 9, 0, 7]), (249, &[0, 10, 9, 0, 8])], Some("10.9.0.7")),
        // All of them stand in `routes`: there fw does not look at gw.
        ("routes", &[(121, &[0, 10, 9, 0, 7, 8, 10, 0, 0, 0, 0])], Some("0.0.0.0/0 10.9.0.7 10.0.0.0/8 0.0.0.0")),
        ("dns", &[(6, &[1, 1, 1, 1, 0, 0, 0, 0, 8, 8, 8, 8])], Some("1.1.1.1 8.8.8.8")),
        ("ntp", &[(42, &[10, 9, 0, 3])], Some("10.9.0.3")),
        ("mtu", &[(26, &[5, 0x78])], Some("1400")),
        ("mtu", &[(26, &[0, 68])], None),
        ("domain", &[(15, b"example.org\0")], Some("example.org")),
        ("domain", &[(15, b"a;b")], None),
        // RFC 2132 section 2: NULs at the end, one or several, are no part of a text.
        ("domain", &[(15, b"example.org\0\0\0")], Some("example.org")),
        ("hostname", &[(12, b"bbox\0\0")], Some("bbox")),
        // Several domains, as many servers send them; one that is no name spoils them.
        ("domain", &[(15, b"example.org  example.net \0")], Some("example.org")),
        ("search", &[(15, b"example.org  example.net \0")], Some("example.org example.net")),
        ("search", &[(15, b"example.org")], None),
        ("search", &[(15, b"example.org example.net"), (119, b"\x01a\0")], Some("a")),
        ("domain", &[(15, b"example.org -x")], None),
        ("search", &[(15, b"example.org $x")], None),
        ("hostname", &[(12, b"a b")], None),
        // RFC 2132 section 5.8: a host, or a network of its class; with the router's default route
        // behind them.
        ("gw", &[(3, &[10, 9, 0, 1]), (33, &[10, 20, 0, 1, 10, 9, 0, 7])], Some("10.9.0.1")),
        (
            "routes",
            &[(3, &[10, 9, 0, 1]), (33, &[10, 20, 0, 1, 10, 9, 0, 7, 192, 168, 5, 0, 10, 9, 0, 8])],
            Some("10.20.0.1/32 10.9.0.7 192.168.5.0/24 10.9.0.8 0.0.0.0/0 10.9.0.1"),
        ),
        ("routes", &[(33, &[10, 20, 0, 1, 10, 9, 0, 7])], Some("10.20.0.1/32 10.9.0.7")),
        (
            "routes",
            &[(33, &[172, 16, 0, 0, 10, 9, 0, 7, 10, 0, 0, 0, 10, 9, 0, 7])],
            Some("172.16.0.0/16 10.9.0.7 10.0.0.0/8 10.9.0.7"),
        ),
        // Illegal: a default route there, a router that is none, half a pair.
        ("routes", &[(3, &[10, 9, 0, 1]), (33, &[0, 0, 0, 0, 10, 9, 0, 7, 10, 20, 0, 1, 224, 0, 0, 1, 10, 20])], None),
        // RFC 3442: with classless routes it does not count.
        ("routes", &[(33, &[10, 20, 0, 1, 10, 9, 0, 7]), (121, &[0, 10, 9, 0, 7])], None),
        ("routes", &[(33, &[10, 20, 0, 1, 10, 9, 0, 7]), (249, &[8, 10, 10, 9, 0, 7])], Some("10.0.0.0/8 10.9.0.7")),
        ("search", &[(119, b"\x01a\x07example\0\x01b\xc0\x02")], Some("a.example b.example")),
        ("hostname", &[(12, b"bbox")], Some("bbox")),
        ("hostname", &[(12, b"-x")], None),
        (
            "captive_portal",
            &[(114, b"https://portal.example/api?x=1&y=(2);z")],
            Some("https://portal.example/api?x=1&y=(2);z"),
        ),
        ("captive_portal", &[(114, b"urn:ietf:params:capport:unrestricted")], None),
        ("captive_portal", &[(114, b"https://x/'; reboot #")], None),
        ("captive_portal", &[(114, b"https://x/$(reboot)")], None),
        ("captive_portal", &[(114, b"javascript:alert(1)")], None),
        ("captive_portal", &[(114, b"https://x/\xc3\xa4")], None),
        // RFC 4702: flags, two bytes that mean nothing, a name in ASCII or (E) in labels.
        ("fqdn", &[(81, b"\x01\xff\xffbbox.example.org.")], Some("bbox.example.org")),
        ("fqdn", &[(81, b"\x05\0\0\x04bbox\x07example\0")], Some("bbox.example")),
        ("fqdn", &[(81, b"\x05\0\0\x04bbox\0\x05other\0")], None),
        ("fqdn", &[(81, b"\x04\0\0\x3fbbox")], None),
        ("fqdn", &[(81, b"\x04\0\0\xc0\x00")], None),
        ("fqdn", &[(81, b"\x09\0\0bbox")], None),
        ("fqdn", &[(81, b"\x01\0\0b box")], None),
        ("fqdn", &[(81, b"\x01\0\0")], None),
        ("fqdn", &[(81, b"\x01")], None),
    ];
    for (name, options, want) in table {
        let wire = options.iter().fold(ack(), |wire, (code, data)| wire.opt(*code, data));
        assert_eq!(field(wire, name).as_deref(), *want, "{name} {options:?}");
    }
}

fn discover(template: &Template) -> Vec<u8> {
    let kind = MessageType::Discover;
    Outgoing {
        kind,
        xid: 1,
        secs: 0,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        requested: None,
        server_id: None,
        rapid_commit: false,
        broadcast: false,
    }
    .encode(MAC, template)
}

#[test]
fn an_anonymous_client_sends_four_options_by_their_numbers() {
    let args = ["--anonymous", "--ipconf", "/d"].map(std::ffi::OsString::from);
    let Ok(netd_udhcpc::cli::Command::Run(options)) = netd_udhcpc::cli::parse(args) else { panic!("not taken") };
    let bytes = discover(&options.template);
    let want = [&[53, 1, 1, 55, 4, 1, 3, 6, 121, 61, 7, 1][..], &MAC, &[255]].concat();
    assert_eq!(bytes[240..240 + want.len()], want);
    let request = Outgoing {
        kind: MessageType::Request,
        xid: 1,
        secs: 0,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        requested: Some(ADDRESS),
        server_id: Some(SERVER),
        rapid_commit: false,
        broadcast: false,
    };
    let bytes = request.encode(MAC, &options.template);
    let message = v4::Message::decode(&mut Decoder::new(&bytes)).unwrap();
    let codes: Vec<u8> = message.opts().iter().map(|(code, _)| u8::from(*code)).collect();
    assert_eq!(codes, [50, 53, 54, 55, 61], "RFC 7844 section 3");
}

/// A machine that has broadcast a DISCOVER, and its xid.
fn searching(config: Config) -> (Client, Duration, u32) {
    let mut client = Client::new(config, Rng::seeded(3));
    let now = Duration::from_secs(50);
    let sent = client.step(now, Event::Start);
    let xid = sent.iter().find_map(|a| match a {
        Action::Send(message, Destination::Broadcast) => Some(message.xid),
        _ => None,
    });
    (client, now, xid.unwrap())
}

fn heard(client: &mut Client, now: Duration, wire: Wire) -> Vec<Action> {
    client.step(now, Event::Reply(Box::new(wire.reply()), MAC))
}

fn sends(actions: &[Action]) -> bool {
    actions.iter().any(|a| matches!(a, Action::Send(..)))
}

#[test]
fn where_ipv6_is_enough_no_address_is_asked_for_until_the_wait_is_over_or_the_carrier_comes() {
    // As servers send it: without an address. The wait is never below 300 s, and never above a day.
    let table = [(0_u32, 300), (299, 300), (1800, 1800), (u32::MAX, 86_400)];
    for (secs, want) in table {
        for address in [Ipv4Addr::UNSPECIFIED, ADDRESS] {
            let (mut client, now, xid) = searching(Config { ipv6_only: true, ..Config::default() });
            let offer = Wire::new(xid, address).opt(53, &[OFFER]).opt(54, &SERVER.octets()).opt(51, &[0, 0, 9, 9]);
            let done = heard(&mut client, now, offer.opt(108, &secs.to_be_bytes()));
            assert!(!sends(&done), "{done:?}");
            assert!(done.contains(&Action::Tell(Change::LeaseFail)));
            assert_eq!(client.deadline(), Some(now + Duration::from_secs(want)), "{secs}");
            let later = now + Duration::from_secs(20);
            client.step(later, Event::CarrierLost);
            let nudged = client.step(later, Event::Carrier);
            assert!(sends(&nudged), "another network may be another");
        }
    }
    let (mut client, now, xid) = searching(Config { ipv6_only: true, ..Config::default() });
    heard(&mut client, now, Wire::usual(OFFER, xid).opt(108, &[0, 0, 7, 8]));
    let at = client.deadline().unwrap();
    let after = client.step(at, Event::Timer);
    assert!(sends(&after) && !after.contains(&Action::Tell(Change::LeaseFail)), "a search of its own: {after:?}");
    // With -n there will be none.
    let (mut client, now, xid) = searching(Config { ipv6_only: true, exit_on_failure: true, ..Config::default() });
    let done = heard(&mut client, now, Wire::usual(OFFER, xid).opt(108, &[0, 0, 7, 8]));
    assert!(done.contains(&Action::Tell(Change::LeaseFail)) && !sends(&done), "{done:?}");
    assert_eq!(client.step(now, Event::Idle), [Action::Exit(1)]);
}

#[test]
fn an_address_of_before_is_left_where_ipv6_is_enough_but_one_in_use_is_renewed() {
    let table: [(&str, &[&str]); 5] = [
        ("Remembered", &["leasefail"]),
        ("Rebooting", &["deconfig", "leasefail"]),
        ("Roamed", &["deconfig", "leasefail"]),
        // RFC 8925 section 3.2: a network that changes its mind waits for the next attachment.
        ("Renewing", &["renew"]),
        ("Rebinding", &["renew"]),
    ];
    for (state, want) in table {
        let mut b = Bench::in_state_with(state, Config { ipv6_only: true, ..Config::default() });
        let ack = Wire::usual(ACK, b.xid()).opt(108, &[0, 0, 7, 8]);
        assert_eq!(b.hear(ack), want, "{state}");
        let left = b.client.address().is_none();
        assert_eq!(left, want.contains(&"leasefail"), "{state}");
        assert!(!left || b.client.deadline() == Some(b.now + Duration::from_secs(1800)), "{state}");
    }
    // Also where the answer comes when all servers are asked again.
    for state in ["Remembered", "Roamed"] {
        let mut b = Bench::in_state_with(state, Config { ipv6_only: true, ..Config::default() });
        let ack = Wire::usual(ACK, b.xid()).opt(108, &[0, 0, 7, 8]);
        b.wait_for("Discover");
        assert_eq!(b.hear(ack), ["leasefail"], "{state}");
        assert_eq!(b.client.address(), None, "{state}");
    }
}

#[test]
fn who_did_not_ask_for_ipv6_only_does_not_hear_it() {
    let (mut client, now, xid) = searching(Config::default());
    let done = heard(&mut client, now, Wire::usual(OFFER, xid).opt(108, &[0, 0, 7, 8]));
    assert!(sends(&done), "RFC 8925 section 3.2: ignored without the request");
    let (mut client, now, xid) = searching(Config { ipv6_only: true, ..Config::default() });
    let done = heard(&mut client, now, Wire::usual(OFFER, xid).opt(108, &[0, 7, 8]));
    assert!(sends(&done), "of another length it says nothing");
}

#[test]
fn an_anonymous_client_asks_no_other_network_for_its_address() {
    let bind = |anonymous| {
        let (mut client, now, xid) = searching(Config { anonymous, ..Config::default() });
        heard(&mut client, now, Wire::usual(OFFER, xid).opt(3, &SERVER.octets()));
        let bound = heard(&mut client, now, Wire::usual(ACK, xid).opt(3, &SERVER.octets()));
        assert!(bound.iter().any(|a| matches!(a, Action::Tell(Change::Bound(_)))));
        (client, now + Duration::from_secs(100))
    };
    let messages = |actions: &[Action]| -> Vec<(MessageType, Option<Ipv4Addr>)> {
        actions
            .iter()
            .filter_map(|a| if let Action::Send(m, _) = a { Some((m.kind, m.requested)) } else { None })
            .collect()
    };
    let (mut client, now) = bind(false);
    client.step(now, Event::CarrierLost);
    assert_eq!(messages(&client.step(now, Event::Carrier)), [(MessageType::Request, Some(ADDRESS))]);
    let (mut client, now) = bind(true);
    client.step(now, Event::CarrierLost);
    let actions = client.step(now, Event::Carrier);
    assert_eq!(messages(&actions), [(MessageType::Discover, None)]);
    assert!(actions.contains(&Action::Tell(Change::Deconfig)), "the address goes");
    assert!(!actions.iter().any(|a| matches!(a, Action::SendArp(_))), "nor is its router asked for");
}

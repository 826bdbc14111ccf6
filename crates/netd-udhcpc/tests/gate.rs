//! Which replies are looked at, and that the log names each refusal once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::net::Ipv4Addr;

use common::bench::Bench;
use common::{ACK, ADDRESS, MAC, NAK, OFFER, SERVER, Wire, var};
use netd_core::net::Prefix;
use netd_udhcpc::client::{Action, Config, Event};
use netd_udhcpc::gate::Gate;
use netd_udhcpc::message::Template;

fn template() -> Template {
    Template { default_client_id: true, ..Template::default() }
}

fn rejecting(networks: &[&str]) -> Gate {
    Gate { reject: networks.iter().map(|n| Prefix::parse(n).unwrap()).collect(), ignore: vec![] }
}

fn admit(gate: &Gate, wire: Wire, source: Ipv4Addr) -> Result<(), String> {
    gate.admit(&mut wire.reply(), source, &template(), MAC)
}

#[test]
fn a_server_is_rejected_by_its_name_its_source_and_what_it_offers() {
    let relay = Ipv4Addr::new(192, 168, 5, 1);
    let offer = || Wire::usual(OFFER, 1);
    for network in ["10.9.0.1", "10.9.0.0/30", "192.168.5.1", "192.168.0.0/16", "10.9.0.133", "0/0"] {
        let said = admit(&rejecting(&["203.0.113.0/24", network]), offer(), relay).unwrap_err();
        assert!(said.starts_with("ignoring offer of 10.9.0.133 from 10.9.0.1: rejected by "), "{said}");
        assert!(admit(&rejecting(&[network]), Wire::usual(ACK, 1), relay).is_err());
    }
    for network in ["10.9.0.2", "192.168.6.0/24", "10.9.0.134/31"] {
        assert_eq!(admit(&rejecting(&[network]), offer(), relay), Ok(()), "{network}");
    }
    assert_eq!(admit(&Gate::default(), offer(), relay), Ok(()));
    // A NAK offers nothing, and 0/8 does not mean its yiaddr.
    assert_eq!(admit(&rejecting(&["0.0.0.0/8"]), Wire::usual(NAK, 1), relay), Ok(()));
    let nameless = Wire::new(1, ADDRESS).opt(53, &[OFFER]);
    let said = admit(&rejecting(&["192.168.5.1"]), nameless, relay).unwrap_err();
    assert_eq!(said, "ignoring offer of 10.9.0.133 from 192.168.5.1: rejected by 192.168.5.1/32");
    assert!(rejecting(&["10.9.0.0/24"]).rejects(ADDRESS) && !rejecting(&[]).rejects(ADDRESS));
}

#[test]
fn another_clients_identifier_is_named_in_hexadecimal_and_not_without_bound() {
    let to = |id: &[u8]| admit(&Gate::default(), Wire::usual(ACK, 1).opt(61, id), SERVER);
    assert_eq!(to(&[&[1], &MAC[..]].concat()), Ok(()));
    let said = to(b"\x1b[2J\n").unwrap_err();
    assert_eq!(said, "ignoring ack of 10.9.0.133 from 10.9.0.1: for another client, 1b:5b:32:4a:0a");
    let said = to(&[0xab; 255]).unwrap_err();
    assert!(said.ends_with(":ab:.."), "{said}");
    assert!(said.len() < 160, "{said}");
    // Who ignores the option does not judge by it.
    let gate = Gate { ignore: vec![61], ..Gate::default() };
    assert_eq!(admit(&gate, Wire::usual(ACK, 1).opt(61, b"other"), SERVER), Ok(()));
}

#[test]
fn an_ignored_option_was_never_sent() {
    let mut reply = Wire::usual(ACK, 1).opt(26, &[2, 64]).opt(15, b"example.org").opt(26, &[5, 220]).reply();
    let gate = Gate { ignore: vec![26, 15, 121], ..Gate::default() };
    assert_eq!(gate.admit(&mut reply, SERVER, &template(), MAC), Ok(()));
    assert_eq!((var(&reply, "mtu"), var(&reply, "opt26"), var(&reply, "domain")), (None, None, None));
    assert_eq!(var(&reply, "lease").as_deref(), Some("3600"));
}

/// The lines of the log in a step.
fn lines(b: &Bench) -> Vec<&str> {
    b.actions.iter().filter_map(|a| if let Action::Log(text) = a { Some(text.as_str()) } else { None }).collect()
}

#[test]
fn each_reason_is_named_once_until_the_state_changes() {
    let mut b = Bench::started(Config::default());
    let masked = |mask: [u8; 4], xid| Wire::new(xid, ADDRESS).opt(53, &[OFFER]).opt(54, &SERVER.octets()).opt(1, &mask);
    let bad_mask = "ignoring offer of 10.9.0.133: impossible subnet mask";
    for (round, want) in [(0, vec![bad_mask]), (1, vec![])] {
        b.hear(masked([255, 0, 255, 0], b.xid()));
        assert_eq!(lines(&b), want, "{round}");
    }
    // Another reason is another line, also where the reply was refused before the machine saw it.
    b.hear(masked([255, 255, 255, 0], b.xid()).opt(51, &[0; 4]));
    assert_eq!(lines(&b), ["ignoring offer of 10.9.0.133: lease of 0 seconds"]);
    for want in [&["dropping a message from 10.9.0.9: BOOTP, not DHCP"][..], &[]] {
        b.event(Event::Refused("dropping a message from 10.9.0.9: BOOTP, not DHCP".into()));
        assert_eq!(lines(&b), want);
    }
    // A search that goes on is no change.
    b.wait_for("leasefail");
    b.hear(masked([255, 0, 255, 0], b.xid()));
    assert_eq!(lines(&b), [""; 0]);
    // A lease is one.
    b.usual(OFFER);
    assert_eq!(b.usual(ACK), ["bound"]);
    b.event(Event::Refused("dropping a message from 10.9.0.9: BOOTP, not DHCP".into()));
    assert_eq!(lines(&b), ["dropping a message from 10.9.0.9: BOOTP, not DHCP"]);
}

#[test]
fn a_refusal_by_a_server_that_was_not_asked_is_named() {
    let from = |server: Option<[u8; 4]>, xid| {
        let wire = Wire::new(xid, Ipv4Addr::UNSPECIFIED).opt(53, &[NAK]);
        server.map_or(wire.clone(), |ip| wire.opt(54, &ip))
    };
    for (state, server, want) in [
        ("Requesting", Some([10, 9, 0, 66]), "ignoring nak from 10.9.0.66, not asked"),
        ("Requesting", None, "ignoring nak from nobody, not asked"),
        ("Renewing", Some([10, 9, 0, 66]), "ignoring nak from 10.9.0.66, not asked"),
        ("Rebinding", None, "ignoring nak from nobody"),
        ("Rebooting", None, "ignoring nak from nobody"),
    ] {
        let mut b = Bench::in_state(state);
        for want in [&[want][..], &[]] {
            assert_eq!(b.hear(from(server, b.xid())), [""; 0], "{state}");
            assert_eq!(lines(&b), want, "{state}");
        }
    }
}

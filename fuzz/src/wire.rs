//! Frames, ARP and netlink messages, and the answers to the pinger.

use std::net::Ipv4Addr;
use std::time::Duration;

use netd::link::{Tracker, Transition, transitions};
use netd_core::acd::{Acd, Event, Timing};
use netd_core::rng::Rng;
use netd_core::wire::arp::{self, Arp};
use netd_core::wire::netlink::{self, Message};
use netd_core::wire::rtnetlink;
use netd_pinger::dns;
use netd_pinger::icmp::Echo;
use netd_udhcpc::frame;

use crate::MAC;

/// The IPv4 and UDP parser: its result lies inside its input. The first byte says whether the UDP
/// checksum counts, and whether the header's checksum is corrected first, because no mutation would
/// ever hit it.
pub fn frame(data: &[u8]) {
    let Some((first, captured)) = data.split_first() else { return };
    let mut captured = captured.to_vec();
    if first & 2 != 0 {
        correct(&mut captured);
    }
    if let Ok(datagram) = frame::parse(&captured, first & 1 != 0) {
        assert!(datagram.payload.is_empty() || captured.as_ptr_range().contains(&datagram.payload.as_ptr()));
        assert!(datagram.payload.len() + 28 <= captured.len());
    }
    // We build a client's packet, which a client must refuse.
    let payload = captured.get(..captured.len().min(1400)).unwrap_or_default();
    assert!(frame::parse(&frame::build(Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::BROADCAST, payload), true).is_err());
}

/// RFC 791: the checksum of the header.
fn correct(packet: &mut [u8]) {
    let Some(len) = packet.first().map(|b| usize::from(b & 0xf) * 4).filter(|len| *len >= 20) else { return };
    let Some(header) = packet.get_mut(..len) else { return };
    header[10..12].fill(0);
    let sum: u32 = header.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(0);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// ARP: a message that is accepted is written as it was read. A detector that gets it keeps its
/// deadline in the future.
pub fn arp(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let timing = if first & 1 == 0 { Timing::RFC5227 } else { Timing::FAST };
    let ip = Ipv4Addr::new(10, 9, 0, 133);
    let mut now = Duration::from_secs(1);
    let mut rng = Rng::seeded(u64::from(*first));
    let mut acd = Acd::probe(now, MAC, ip, timing, &mut rng);
    for frame in rest.chunks(arp::LEN + 1) {
        let Some((wait, bytes)) = frame.split_first() else { return };
        if let Some(arp) = Arp::decode(bytes) {
            assert_eq!(Arp::decode(&arp.encode()), Some(arp));
            assert_eq!(Some(arp.encode().as_slice()), bytes.get(..arp::LEN));
            let _ = acd.step(now, Event::Arp(arp), &mut rng);
        }
        now += Duration::from_millis(u64::from(*wait) * 40);
        let sent = acd.step(now, Event::Timer, &mut rng);
        assert!(sent.len() <= 4, "{sent:?}");
        assert!(acd.deadline().is_none_or(|at| at > now), "{:?} at {now:?}", acd.deadline());
    }
}

/// The kernel's datagrams, each behind its length. The tracker's ups and downs must alternate.
pub fn netlink(mut data: &[u8]) {
    let mut tracker = Tracker::new("lnka");
    let mut up = None;
    while let Some(([high, low], rest)) = data.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (datagram, rest) = rest.split_at(len);
        data = rest;
        for (_, payload) in netlink::messages(datagram) {
            let attributes = netlink::attributes(payload).count();
            assert!(attributes * 4 <= payload.len());
            // Addresses, routes and rules are read one attribute at a time: there cannot be more of
            // them than fit.
            let read = |used: usize, others: usize| assert!(used + others <= payload.len() / 4);
            if let Some(address) = rtnetlink::address(payload) {
                read(address.attributes.len(), address.others.len());
            }
            if let Some(route) = rtnetlink::route(payload) {
                read(route.attributes.len(), route.others.len());
            }
            if let Some(rule) = rtnetlink::rule(payload) {
                read(rule.attributes.len(), rule.others.len());
            }
            let _ = (fw::wire::decode_address(payload), fw::wire::decode_link(payload));
            // fw must delete exactly what it has read.
            let body = |message: Message| message.finish(1).split_off(16);
            if let Some(route) = fw::wire::decode_route(payload).filter(|r| r.unicast && r.destination.len > 0) {
                let again = fw::wire::decode_route(&body(fw::wire::delete_route(&route)));
                // A route over several interfaces is never one of fw's own.
                assert_eq!(again, Some(fw::have::Route { dead: false, next_hops: Vec::new(), ..route }));
            }
            if let Some(rule) = fw::wire::decode_rule(payload).filter(|rule| rule.plain) {
                assert_eq!(fw::wire::decode_rule(&body(fw::wire::delete_rule(&rule))), Some(rule));
            }
        }
        for transition in transitions(&mut tracker, datagram) {
            match transition {
                Transition::Up => assert_ne!(up.replace(true), Some(true), "up twice"),
                Transition::Down => assert_ne!(up.replace(false), Some(false), "down twice"),
                Transition::Missing | Transition::Gone | Transition::Renamed { .. } => up = None,
                Transition::Appeared { .. } | Transition::AdminDown { .. } => {}
            }
        }
        assert!(tracker.link().is_none_or(|link| link.name == "lnka"));
    }
}

/// Answers to an echo request or, after an odd first byte, to a DNS question. Only a whole answer
/// to our own question counts.
pub fn probe(data: &[u8]) {
    let Some((first, answer)) = data.split_first() else { return };
    if first & 1 == 0 {
        let (target, token) = (Ipv4Addr::new(192, 0, 2, 1), *b"0123456789abcdef");
        if (Echo { id: 0x1234, seq: 1, token }).is_reply(answer, target) {
            assert_eq!(answer.get(12..16), Some(target.octets().as_slice()));
            assert!(answer.windows(token.len()).any(|bytes| bytes == token));
        }
    } else {
        let name = if first & 2 == 0 { "example.org" } else { "" };
        let question = dns::query(0x1234, name);
        if dns::answers(answer, 0x1234, name) {
            assert_eq!(answer.get(..2), question.get(..2));
            assert!(answer.len() >= question.len());
        }
    }
}

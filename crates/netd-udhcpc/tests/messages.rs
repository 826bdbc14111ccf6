//! Encode, decode and the environment: against golden bytes, busybox's formats and an independent
//! codec.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::net::Ipv4Addr;

use common::{ACK, ADDRESS, MAC, OFFER, SERVER, Wire, var};
use dhcproto::{Decodable, Decoder, Encodable, Encoder, v4};
use netd_core::rng::Rng;
use netd_udhcpc::frame::{self, FrameError};
use netd_udhcpc::message::{MessageType, Outgoing, Template, decode, fqdn, max_message};
use pnet_packet::ipv4::{self, Ipv4Packet};
use pnet_packet::udp::{self, UdpPacket};

fn template() -> Template {
    Template {
        parameters: vec![1, 3, 6, 12, 15, 26, 28, 33, 42, 119, 121, 252],
        extra: vec![
            (12, b"foo".to_vec()),
            (61, vec![1, 2]),
            (200, b"abc".to_vec()),
            (51, vec![0, 0, 0x1c, 0x20]),
            (3, vec![1, 2, 3, 4, 5, 6, 7, 8]),
            fqdn("fq.do"),
            (60, b"udhcp 1.35.0".to_vec()),
        ],
        ..Template::default()
    }
}

fn request() -> Outgoing {
    Outgoing {
        kind: MessageType::Request,
        xid: 0x719d_0336,
        secs: 0,
        ciaddr: Ipv4Addr::UNSPECIFIED,
        requested: Some(ADDRESS),
        server_id: Some(SERVER),
        rapid_commit: false,
        broadcast: false,
    }
}

/// The options of a REQUEST that Debian's udhcpc 1.35 sent with the same command line, captured on
/// veth.
const GOLDEN: &[u8] = b"\x35\x01\x03\x32\x04\x0a\x09\x00\x85\x36\x04\x0a\x09\x00\x01\x39\x02\x02\x40\
\x37\x0c\x01\x03\x06\x0c\x0f\x1a\x1c\x21\x2a\x77\x79\xfc\x03\x08\x01\x02\x03\x04\x05\x06\x07\x08\x0c\x03foo\
\x33\x04\x00\x00\x1c\x20\x3c\x0cudhcp 1.35.0\x3d\x02\x01\x02\x51\x08\x01\x00\x00fq.do\xc8\x03abc\xff";

#[test]
fn a_request_is_byte_for_byte_udhcpcs() {
    let bytes = request().encode(MAC, &template());
    assert_eq!(&bytes[240..], GOLDEN);
    assert_eq!(bytes[..12], [1, 1, 6, 0, 0x71, 0x9d, 3, 0x36, 0, 0, 0, 0]);
    assert_eq!(bytes[28..34], MAC);
    assert!(bytes[34..236].iter().all(|b| *b == 0));
}

#[test]
fn a_small_message_is_padded_and_the_broadcast_flag_needs_an_empty_ciaddr() {
    let plain = Template { default_client_id: true, broadcast: true, ..Template::default() };
    let bytes = request().encode(MAC, &plain);
    assert_eq!(bytes.len(), 300);
    assert_eq!(bytes[10..12], [0x80, 0]);
    assert_eq!(
        bytes[240..],
        *[&[53, 1, 3, 50, 4, 10, 9, 0, 133, 54, 4, 10, 9, 0, 1, 57, 2, 2, 64, 61, 7, 1], &MAC[..], &[255], &[0; 31]]
            .concat()
    );
    let renewing = Outgoing { ciaddr: ADDRESS, ..request() }.encode(MAC, &plain);
    assert_eq!((&renewing[10..12], &renewing[12..16]), (&[0, 0][..], &ADDRESS.octets()[..]));
}

#[test]
fn a_message_is_as_long_as_a_packet_of_the_interface() {
    for (mtu, want) in [(0, 576), (576, 576), (700, 672), (1500, 1472), (9000, 1472), (u32::MAX, 1472)] {
        assert_eq!(max_message(mtu), want, "{mtu}");
    }
    let template = Template { max_message: max_message(1500), ..Template::default() };
    assert_eq!(request().encode(MAC, &template)[255..259], [57, 2, 5, 0xc0]);
}

#[test]
fn a_release_names_server_and_client_and_asks_for_nothing() {
    let release = Outgoing { kind: MessageType::Release, ciaddr: ADDRESS, requested: None, ..request() };
    let bytes = release.encode(MAC, &template());
    assert_eq!(bytes[240..254], [53, 1, 7, 54, 4, 10, 9, 0, 1, 61, 2, 1, 2, 255]);
}

#[test]
fn a_message_with_another_client_identifier_is_for_another_client() {
    let ours = [&[1], &MAC[..]].concat();
    let default = Template { default_client_id: true, ..Template::default() };
    let duid = Template { extra: vec![(61, b"\xff1234".to_vec())], ..Template::default() };
    for (template, theirs, taken) in [
        (&default, None, true),
        (&default, Some(ours.clone()), true),
        // Twice is the same (as servers say it with other options), and RFC 3396 has joined the
        // two.
        (&default, Some(ours.repeat(2)), true),
        (&default, Some(ours[..6].to_vec()), false),
        (&default, Some(b"\xff1234".to_vec()), false),
        (&duid, Some(b"\xff1234".to_vec()), true),
        (&duid, Some(ours.clone()), false),
        (&Template::default(), Some(ours.clone()), true),
    ] {
        let wire = Wire::usual(OFFER, 1);
        let reply = theirs.iter().fold(wire, |wire, id| wire.opt(61, id)).reply();
        assert_eq!(template.is_answered_by(&reply, MAC), taken, "{template:?} {theirs:?}");
    }
}

#[test]
fn dhcproto_reads_what_we_write() {
    let bytes = request().encode(MAC, &template());
    let message = v4::Message::decode(&mut Decoder::new(&bytes)).unwrap();
    assert_eq!((message.xid(), message.chaddr()), (0x719d_0336, &MAC[..]));
    let options = message.opts();
    assert_eq!(options.msg_type(), Some(v4::MessageType::Request));
    assert_eq!(options.get(v4::OptionCode::RequestedIpAddress), Some(&v4::DhcpOption::RequestedIpAddress(ADDRESS)));
    assert_eq!(options.get(v4::OptionCode::ServerIdentifier), Some(&v4::DhcpOption::ServerIdentifier(SERVER)));
    assert_eq!(options.get(v4::OptionCode::Hostname), Some(&v4::DhcpOption::Hostname("foo".into())));
    assert_eq!(options.get(v4::OptionCode::MaxMessageSize), Some(&v4::DhcpOption::MaxMessageSize(576)));
}

/// 2,000 random well-formed replies, written by dhcproto, read by us; each typed value must be the
/// same.
#[test]
fn we_read_what_dhcproto_writes() {
    let mut rng = Rng::seeded(42);
    for _ in 0..2000 {
        let mut message = v4::Message::default();
        message.set_opcode(v4::Opcode::BootReply).set_xid(rng.next_u32()).set_chaddr(&MAC).set_yiaddr(rng.next_u32());
        let (lease, server, mask) = (rng.next_u32(), Ipv4Addr::from(rng.next_u32()), Ipv4Addr::from(rng.next_u32()));
        let dns: Vec<Ipv4Addr> = (0..rng.below(20)).map(|_| rng.next_u32().into()).collect();
        let name: String = (0..1 + rng.below(60)).map(|_| char::from(b'a' + rng.below(26) as u8)).collect();
        let blob: Vec<u8> = (0..1 + rng.below(255)).map(|_| rng.below(256) as u8).collect();
        let options = message.opts_mut();
        options.insert(v4::DhcpOption::MessageType(v4::MessageType::Offer));
        options.insert(v4::DhcpOption::AddressLeaseTime(lease));
        options.insert(v4::DhcpOption::ServerIdentifier(server));
        options.insert(v4::DhcpOption::SubnetMask(mask));
        options.insert(v4::DhcpOption::DomainNameServer(dns.clone()));
        options.insert(v4::DhcpOption::DomainName(name.clone()));
        options.insert(v4::DhcpOption::Unknown(v4::UnknownOption::new(224.into(), blob.clone())));
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).unwrap();
        let reply = decode(&bytes, MAC).unwrap();
        assert_eq!((reply.kind, reply.xid, reply.yiaddr), (MessageType::Offer, message.xid(), message.yiaddr()));
        assert_eq!((reply.number(51), reply.ip(54), reply.ip(1)), (Some(lease), Some(server), Some(mask)));
        let want: Vec<u8> = dns.iter().flat_map(|ip| ip.octets()).collect();
        assert_eq!(reply.option(6).unwrap_or_default(), want);
        assert_eq!(reply.option(15), Some(name.as_bytes()));
        assert_eq!(reply.option(224), Some(blob.as_slice()));
    }
}

/// Whatever comes: no panic, and no variable that breaks the environment's rules. (dhcproto is no
/// oracle here: it panics on these.)
#[test]
fn mutated_packets_neither_panic_nor_escape() {
    let seed = Wire::usual(ACK, 1)
        .opt(12, b"host")
        .opt(119, b"\x03foo\x03bar\0\xc0\x00")
        .opt(121, &[8, 10, 10, 9, 0, 9])
        .opt(212, &[8; 24])
        .opt(120, &[1, 1, 2, 3, 4])
        .opt(67, b"file")
        .opt(43, &[1, 1, 1])
        .end();
    let mut rng = Rng::seeded(7);
    let mut accepted = 0;
    for _ in 0..50_000 {
        let mut bytes = seed.clone();
        for _ in 0..1 + rng.below(4) {
            let at = 236 + rng.below(bytes.len() as u64 - 236) as usize;
            bytes[at] = rng.below(256) as u8;
        }
        if rng.below(4) == 0 {
            bytes.truncate(200 + rng.below(bytes.len() as u64 - 200) as usize);
        }
        let Ok(reply) = decode(&bytes, MAC) else { continue };
        accepted += 1;
        for (name, value) in netd_udhcpc::env::full("eth0", &reply) {
            assert!(value.len() <= 4096 && !value.iter().any(u8::is_ascii_control), "{name}={value:?}");
        }
    }
    assert!(accepted > 10_000, "{accepted}");
}

#[test]
fn our_datagram_is_right_by_pnets_checksums() {
    for len in [300, 301, 547] {
        let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let bytes = frame::build(ADDRESS, SERVER, &payload);
        let ip = Ipv4Packet::new(&bytes).unwrap();
        assert_eq!(ip.get_checksum(), ipv4::checksum(&ip));
        assert_eq!((ip.get_source(), ip.get_destination(), ip.get_ttl()), (ADDRESS, SERVER, 64));
        let udp = UdpPacket::new(&bytes[20..]).unwrap();
        assert_eq!(udp.get_checksum(), udp::ipv4_checksum(&udp, &ADDRESS, &SERVER));
        assert_eq!((udp.get_source(), udp.get_destination()), (68, 67));
    }
}

/// A server's datagram, for `parse`: ours with the ports turned round (which leaves both checksums
/// right).
fn incoming(payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame::build(SERVER, ADDRESS, payload);
    bytes[20..24].copy_from_slice(&[0, 67, 0, 68]);
    bytes
}

#[test]
fn a_datagram_is_bounded_by_all_its_lengths() {
    let good = incoming(b"payload");
    assert_eq!(frame::parse(&good, true).unwrap().payload, b"payload");
    assert_eq!(frame::parse(&[&good[..], &[0; 9]].concat(), true).unwrap().payload, b"payload", "Ethernet padding");
    type Change = fn(&mut Vec<u8>);
    let table: &[(&str, FrameError, Change)] = &[
        ("empty", FrameError::Short, |b| b.clear()),
        ("cut", FrameError::Short, |b| b.truncate(30)),
        ("only a header", FrameError::Short, |b| b.truncate(20)),
        ("IPv6", FrameError::NotIpv4, |b| b[0] = 0x65),
        ("header length 16", FrameError::NotIpv4, |b| b[0] = 0x44),
        ("IP length beyond the capture", FrameError::Short, |b| b[3] += 1),
        ("IP length below the header", FrameError::Short, |b| b[2..4].copy_from_slice(&[0, 10])),
        ("first fragment", FrameError::Fragment, |b| b[6] = 0x20),
        ("later fragment", FrameError::Fragment, |b| b[7] = 1),
        ("TCP", FrameError::NotDhcp, |b| b[9] = 6),
        ("IP checksum", FrameError::IpChecksum, |b| b[8] = 1),
        ("destination port", FrameError::NotDhcp, |b| b[23] = 67),
        ("UDP length beyond IP's (D08)", FrameError::Short, |b| b[25] += 1),
        ("UDP length below its header", FrameError::Short, |b| b[25] = 7),
        ("payload", FrameError::UdpChecksum, |b| b[30] ^= 1),
    ];
    for (name, want, change) in table {
        let mut bytes = good.clone();
        change(&mut bytes);
        assert_eq!(frame::parse(&bytes, true), Err(*want), "{name}");
    }
}

#[test]
fn a_checksum_that_is_not_there_yet_is_not_checked() {
    let mut bytes = incoming(b"payload");
    bytes[30] ^= 1;
    assert!(frame::parse(&bytes, false).is_ok(), "the kernel said that the sum is unfinished");
    bytes[26..28].copy_from_slice(&[0, 0]);
    assert!(frame::parse(&bytes, true).is_ok(), "RFC 768: a sum of zero is none");
}

#[test]
fn the_environment_has_busyboxs_names_and_formats() {
    let reply = Wire::usual(ACK, 1)
        .at(20, &[10, 9, 0, 7])
        .at(24, &[10, 9, 0, 8])
        .at(44, b"boothost\0x")
        .at(108, b"pxe.0")
        .opt(2, &0xffff_b9b0_u32.to_be_bytes())
        .opt(3, &[10, 9, 0, 1, 10, 9, 0, 2])
        .opt(13, &[1, 0])
        .opt(15, b"example.org")
        .opt(17, b"/a b$")
        .opt(23, &[64])
        .opt(26, &[5, 0xdc])
        .opt(33, &[1, 2, 3, 4, 10, 9, 0, 1])
        .opt(43, &[1, 0xab])
        .opt(56, b"hello\0hidden")
        .opt(58, &1800u32.to_be_bytes())
        .opt(119, b"\x01a\x07example\0\x01b\xc0\x02")
        .opt(120, &[1, 1, 2, 3, 4])
        .opt(121, &[16, 10, 20, 10, 9, 0, 9, 0, 10, 9, 0, 1])
        .opt(132, &[0, 7])
        .opt(133, &[3])
        .opt(212, &[&[14, 38, 0x20, 1, 0xd, 0xb8][..], &[0; 12], &[192, 0, 2, 1]].concat())
        .opt(249, &[0, 1, 2, 3, 4])
        .reply();
    let table = [
        ("interface", "eth0"),
        ("ip", "10.9.0.133"),
        ("siaddr", "10.9.0.7"),
        ("giaddr", "10.9.0.8"),
        ("sname", "boothost"),
        ("boot_file", "pxe.0"),
        ("subnet", "255.255.255.0"),
        ("mask", "24"),
        ("timezone", "4294949296"),
        ("router", "10.9.0.1 10.9.0.2"),
        ("bootsize", "256"),
        ("domain", "example.org"),
        ("rootpath", "/a b$"),
        ("ipttl", "64"),
        ("mtu", "1500"),
        ("routes", "1.2.3.4/10.9.0.1"),
        ("opt43", "01ab"),
        ("lease", "3600"),
        ("opt53", "05"),
        ("serverid", "10.9.0.1"),
        ("message", "hello"),
        ("opt58", "00000708"),
        ("search", "a.example b.example"),
        ("sipsrv", "1.2.3.4"),
        ("staticroutes", "10.20.0.0/16 10.9.0.9 0.0.0.0/0 10.9.0.1"),
        ("vlanid", "7"),
        ("vlanpriority", "3"),
        ("ip6rd", "14 38 2001:0db8:0000:0000:0000:0000:0000:0000 192.0.2.1"),
        ("msstaticroutes", "0.0.0.0/0 1.2.3.4"),
    ];
    for (name, want) in table {
        assert_eq!(var(&reply, name).as_deref(), Some(want), "{name}");
    }
    assert_eq!(netd_udhcpc::env::full("eth0", &reply).len(), table.len(), "nothing else");
}

#[test]
fn busyboxs_quirks_with_short_and_odd_values() {
    let table: &[(u8, &[u8], &str, &str)] = &[
        (6, &[1, 2, 3], "dns", ""),
        (6, &[1, 2, 3, 4, 5], "dns", "1.2.3.4"),
        (1, &[255, 255, 255, 0, 255, 0, 0, 0], "subnet", "255.255.255.0 255.0.0.0"),
        (33, &[1, 2, 3, 4], "routes", ""),
        (26, &[5], "mtu", ""),
        (40, b"a b", "nisdomain", "ba"),
        // Not its quirk: several domains are several names.
        (15, b"a b", "domain", "a b"),
        (15, b"a  b \0\0", "domain", "a b"),
        (15, b"a\tb", "domain", "ba"),
        (12, b"bbox\0\0", "hostname", "bbox"),
        (15, b"-x", "domain", "b"),
        (15, b"$", "domain", ""),
        (12, b"x;reboot", "hostname", "bad"),
        (40, b"ok.example", "nisdomain", "ok.example"),
        (66, b"a/b/c", "tftp", "bad"),
        (121, &[33, 1, 2, 3, 4, 5, 1, 2, 3, 4], "staticroutes", ""),
        (121, &[8, 10, 1, 2, 3, 4, 24, 1], "staticroutes", "10.0.0.0/8 1.2.3.4"),
        // Not its quirk: RFC 3442 lets bits beyond the prefix not count, and the kernel refuses
        // them.
        (121, &[20, 10, 1, 0xff, 1, 2, 3, 4], "staticroutes", "10.1.240.0/20 1.2.3.4"),
        (119, b"\x05abc", "search", ""),
        (119, b"\x03abc", "search", "abc"),
        (119, b"\xc0\x00", "search", ""),
        // Not its quirk: the root alone is no name, and the others count.
        (119, b"\0\x01a\0", "search", "a"),
        (212, &[33, 38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], "ip6rd", ""),
        (120, &[0, 1, b'a', 0], "sipsrv", "a"),
    ];
    for (code, data, name, want) in table {
        let mut wire = Wire::new(1, ADDRESS).opt(53, &[OFFER]);
        wire = wire.opt(*code, data);
        assert_eq!(var(&wire.reply(), name).as_deref(), Some(*want), "option {code} {data:?}");
    }
    let empty = Wire::usual(ACK, 1).opt(15, b"").reply();
    assert_eq!(var(&empty, "domain"), None, "an empty option is no variable");
    let long_mask = Wire::new(1, ADDRESS).opt(53, &[OFFER]).opt(1, &[255; 8]).reply();
    assert_eq!(var(&long_mask, "mask"), None);
    // Said twice it is meant once; its length is the first one's, as the original has it.
    let twice = Wire::new(1, ADDRESS).opt(53, &[OFFER]).opt(1, &[255, 255, 255, 0]).opt(1, &[255, 255, 0, 0]).reply();
    assert_eq!(var(&twice, "mask").as_deref(), Some("24"));
}

#[test]
fn what_a_sloppy_server_or_router_makes_of_a_message_is_read_all_the_same() {
    // Four bytes of IP options: no operation, no operation, no operation, end (RFC 791).
    let mut frame = incoming(b"payload");
    frame.splice(20..20, [1, 1, 1, 0]);
    (frame[0], frame[3]) = (0x46, frame[3] + 4);
    let sum = ipv4::checksum(&Ipv4Packet::new(&frame).unwrap());
    frame[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(frame::parse(&frame, true).map(|d| d.payload), Ok(&b"payload"[..]));

    // From a port of its own, without a checksum.
    let mut frame = incoming(b"payload");
    (frame[20], frame[26], frame[27]) = (4, 0, 0);
    assert_eq!(frame::parse(&frame, true).map(|d| d.payload), Ok(&b"payload"[..]));

    // Options go on in the file field, and no END says that those before it are over.
    let overload = Wire::new(1, ADDRESS).opt(53, &[OFFER]).opt(52, &[1]).at(108, &[12, 2, b'h', b'i', 255]);
    assert_eq!(decode(&overload.bytes, MAC).unwrap().option(12), Some(&b"hi"[..]));
}

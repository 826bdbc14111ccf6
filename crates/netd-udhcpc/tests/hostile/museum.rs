//! The museum: a hostile packet for each known attack on DHCPv4 clients, by the ids of the
//! project's list. Others are where their code is: d07 in properties.rs, d26 in ../routes.rs, d31
//! and d33 in ../client.rs, d29 (DNAv4) in ../rebooting.rs; d25 is DHCPv6.

use netd_core::record::text;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::common::{ACK, ADDRESS, MAC, NAK, OFFER, SERVER, Wire, published, var};
use netd_core::rng::Rng;
use netd_udhcpc::client::{Action, Client, Config, Event};
use netd_udhcpc::env;
use netd_udhcpc::frame;
use netd_udhcpc::lease::{Refusal, Terms, mtu_of};
use netd_udhcpc::message::{DecodeError, MessageType, Outgoing, Template, decode};

fn ack() -> Wire {
    Wire::usual(ACK, 1)
}

#[test]
fn d01_host_variables_have_no_shell_characters() {
    for code in [12, 15, 40, 66] {
        for text in [&b"$(reboot)"[..], b"`id`;x", b"a'b\"cd", b"a\nb\nc", b"../../etc", b"a|b>c"] {
            let name =
                ["hostname", "domain", "nisdomain", "tftp"][[12, 15, 40, 66].iter().position(|c| *c == code).unwrap()];
            let value = var(&ack().opt(code, text).reply(), name).unwrap();
            assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{name}={value}");
        }
    }
}

#[test]
fn d02_no_value_starts_like_a_shell_function() {
    for text in [&b"() { :;}; id"[..], b" () { :;}; id", b"() {\n:;}"] {
        for (code, name) in
            [(17, "rootpath"), (67, "bootfile"), (252, "wpad"), (56, "message"), (60, "vendor"), (100, "tzstr")]
        {
            assert_eq!(var(&ack().opt(code, text).reply(), name).as_deref(), Some("bad"), "{name}");
        }
    }
    assert_eq!(var(&ack().at(108, b"() { :;}").reply(), "boot_file").as_deref(), Some("bad"));
    assert!(
        var(&ack().opt(114, b"() { :;}").reply(), "opt114").unwrap().starts_with("2829"),
        "hexadecimal is harmless"
    );
}

#[test]
fn d03_d04_d18_control_bytes_do_not_reach_the_environment() {
    let text = b"a\nb\r\x1b[2Jc\x7f";
    let reply = ack().opt(17, text).opt(252, text).opt(56, text).at(44, text).at(108, text).reply();
    for name in ["rootpath", "wpad", "message", "sname", "boot_file"] {
        assert_eq!(var(&reply, name).as_deref(), Some("a_b__[2Jc_"), "{name}");
    }
}

/// CVE-2026-42511: text in the BOOTP fields became directives of the lease file. They have no place
/// in ours.
#[test]
fn d04_the_bootp_fields_cannot_write_into_the_record() {
    let text = b"x\"; }\nlet cfg=cfg+1\nif[$cfg]='lo'\ngw[$cfg]='";
    let reply = ack().at(44, text).at(108, text).opt(66, text).opt(67, text).opt(17, text).reply();
    let file = text::render(&[published(reply)]).unwrap();
    assert!(!file.contains('"') && !file.contains("'lo'"), "{file}");
    assert_eq!(text::parse(file.as_bytes()).unwrap().len(), 1);
}

#[test]
fn d06_d11_d14_d15_fixed_size_options_have_their_size() {
    for len in [1usize, 2, 3, 5, 6, 7, 20, 255] {
        let data = vec![1; len];
        let reply = Wire::new(1, ADDRESS).opt(53, &[ACK]).opt(51, &data).opt(54, &data).opt(58, &data).reply();
        assert_eq!((reply.number(51), reply.ip(54), reply.number(58)), (None, None, None), "{len}");
    }
    assert_eq!(decode(&Wire::new(1, ADDRESS).opt(53, &[5, 5]).end(), MAC), Err(DecodeError::Type));
}

/// CVE-2015-8605: the UDP header claims less or more than there is.
#[test]
fn d08_lengths_that_disagree_are_refused_or_bound_the_payload() {
    let payload = ack().end();
    let mut datagram = frame::build(SERVER, ADDRESS, &payload);
    datagram[20..24].copy_from_slice(&[0, 67, 0, 68]);
    assert_eq!(frame::parse(&datagram, true).map(|d| d.payload.len()), Ok(payload.len()));
    let with_udp_len = |len: usize| {
        let mut bytes = datagram.clone();
        bytes[24..26].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        // No sum: nobody can say that this was what stopped it.
        bytes[26..28].copy_from_slice(&[0, 0]);
        bytes
    };
    for len in [0, 7, payload.len() + 9, 65_535] {
        assert!(frame::parse(&with_udp_len(len), true).is_err(), "{len}");
    }
    let short = with_udp_len(8 + 239);
    let found = frame::parse(&short, true).unwrap();
    assert_eq!((found.payload.len(), decode(found.payload, MAC)), (239, Err(DecodeError::Short)));
}

#[test]
fn d09_d16_d21_d24_search_lists_that_loop_or_run_past_the_end_are_empty() {
    for data in [
        &b"\xc0\x00"[..],
        b"\x01a\xc0\x00",
        b"\x3fab",
        b"\xc0",
        b"\x80\x01",
        b"\x01a\0\xc0\xff",
        b"\x01a\xc0\x04\xc0\x06\xc0\x02",
    ] {
        assert_eq!(var(&ack().opt(119, data).reply(), "search").as_deref(), Some(""), "{data:?}");
    }
    // A long chain of names that all point to the one before: 40 honest names work, a bomb is
    // bounded.
    let honest: Vec<u8> = (0..40).flat_map(|n: u8| [3, b'd', b'0' + n / 10, b'0' + n % 10, 0]).collect();
    assert_eq!(env::names(&honest).len(), 40);
    let mut bomb = [&[63], &[b'a'; 63][..], &[63], &[b'b'; 63], &[0]].concat();
    bomb.extend([0xc0, 0].repeat(2000));
    let value = var(&ack().opt(119, &bomb[..255]).opt(119, &bomb[255..510]).reply(), "search").unwrap();
    assert!(value.len() <= 4096, "{}", value.len());
    let spoiled = env::names(b"\x0ca;b $(c).com\0\x02ok\0\x01\x2e\0");
    assert_eq!(spoiled.first().map(String::as_str), Some("ok"), "a name with other characters is left out");
}

#[test]
fn d10_d19_many_6rd_routers_stay_bounded() {
    let data: Vec<u8> = [&[0, 0][..], &[0; 16], &[192, 0, 2, 1].repeat(59)].concat();
    let mut wire = ack();
    for _ in 0..20 {
        wire = wire.opt(212, &data);
    }
    let value = var(&wire.reply(), "ip6rd").unwrap();
    assert!(value.len() <= 4096 && value.ends_with(" 192.0.2.1"), "{value}");
}

#[test]
fn d12_d22_an_option_past_the_end_is_none_and_nothing_leaks() {
    let whole = ack().raw(&[31, 4, 1, 2]).bytes;
    let reply = decode(&whole, MAC).unwrap();
    assert_eq!(reply.option(31), None);
    assert_eq!(reply.number(51), Some(3600), "what came before it stays");
    let only_code = ack().raw(&[31]).bytes;
    assert_eq!(decode(&only_code, MAC).unwrap().option(31), None);
    for len in 0..240 {
        assert_eq!(decode(&whole[..len], MAC), Err(DecodeError::Short), "{len}");
    }
}

#[test]
fn d13_d17_overload_counts_once_and_only_in_the_main_area() {
    // file has an option and an overload of its own, sname would loop.
    let reply = ack().opt(52, &[1]).at(108, &[15, 1, b'f', 52, 1, 3, 255]).at(44, &[12, 1, b's', 255]).reply();
    assert_eq!(reply.option(15), Some(&b"f"[..]));
    assert_eq!(reply.option(12), None, "sname was not overloaded by the main area");
    assert_eq!(
        (reply.option(52), reply.file.as_slice(), reply.sname.as_slice()),
        (None, &b""[..], &b"\x0c\x01s\xff"[..])
    );
    let both = ack().opt(52, &[3]).at(108, &[15, 1, b'f']).at(44, &[15, 1, b's']).opt(15, b"m").reply();
    assert_eq!(both.option(15), Some(&b"mfs"[..]), "RFC 3396: options, file, sname");
    for value in [&[0][..], &[4], &[255], &[]] {
        assert_eq!(ack().opt(52, value).at(108, &[15, 1, b'f']).reply().option(15), None, "{value:?}");
    }
}

#[test]
fn rfc_3396_pieces_are_joined_wherever_they_stand() {
    let reply = ack().opt(6, &[1, 2]).opt(15, b"x").raw(&[0, 0]).opt(6, &[3, 4, 5, 6, 7, 8]).reply();
    assert_eq!(var(&reply, "dns").as_deref(), Some("1.2.3.4 5.6.7.8"));
    // A server-id that came twice (dnsmasq can send that) is still one server-id.
    let twice = ack().opt(54, &SERVER.octets()).reply();
    assert_eq!(twice.ip(54), Some(SERVER));
}

/// CVE-2018-15688 was a builder that trusted the length of a server's identifier. Ours takes an
/// address or nothing, and a command line with more than a packet's worth of options is cut in
/// pieces that everybody can read.
#[test]
fn d19_a_message_of_ours_is_well_formed_however_much_is_in_it() {
    let offer = Wire::new(1, ADDRESS).opt(53, &[OFFER]).opt(54, &[7; 255]).opt(54, &[7; 238]).reply();
    assert_eq!(Terms::judge(&offer).unwrap().server_id, Ipv4Addr::UNSPECIFIED);
    let extra = (60..=250).map(|code| (code, vec![code; 600])).collect();
    let template = Template { parameters: (1..=254).collect(), extra, ..Template::default() };
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
    let mut bytes = request.encode(MAC, &template);
    // As a server's, it goes through our own walker, which drops what is not whole.
    bytes[0] = 2;
    bytes[242] = ACK;
    let back = decode(&bytes, MAC).unwrap();
    assert!((60..=250).all(|code| back.option(code) == Some(&vec![code; 600][..])));
}

#[test]
fn d20_forcerenew_and_clients_messages_are_no_replies() {
    for kind in [0, 1, 3, 4, 7, 8, 9, 10, 255] {
        assert_eq!(decode(&Wire::new(1, ADDRESS).opt(53, &[kind]).end(), MAC), Err(DecodeError::Type), "{kind}");
    }
    assert_eq!(decode(&Wire::new(1, ADDRESS).opt(51, &[0; 4]).end(), MAC), Err(DecodeError::Type));
}

#[test]
fn d23_an_address_that_no_host_can_own_is_refused() {
    let refused = |ip: [u8; 4]| Terms::judge(&Wire::usual(OFFER, 1).at(16, &ip).reply()).unwrap_err();
    for ip in [
        [0, 0, 0, 0],
        [0, 1, 2, 3],
        [127, 0, 0, 1],
        [224, 0, 0, 5],
        [239, 1, 1, 1],
        [240, 0, 0, 1],
        [255, 255, 255, 255],
        [10, 9, 0, 0],
        [10, 9, 0, 255],
        SERVER.octets(),
    ] {
        assert_eq!(refused(ip), Refusal::Address, "{ip:?}");
    }
    let point_to_point = Wire::new(1, ADDRESS).opt(53, &[OFFER]).opt(1, &[255; 4]).reply();
    assert!(Terms::judge(&point_to_point).is_ok(), "a /32 has neither network nor broadcast address");
    let mcast_server = Wire::new(1, ADDRESS).opt(53, &[OFFER]).opt(54, &[224, 0, 0, 1]).reply();
    assert_eq!(Terms::judge(&mcast_server), Err(Refusal::Server));
}

#[test]
fn d27_masks_that_are_none_or_too_wide_are_refused() {
    for mask in [[0, 0, 0, 0], [255, 0, 255, 0], [128, 0, 0, 0], [254, 0, 0, 0], [255, 255, 255, 1]] {
        let reply = Wire::new(1, ADDRESS).opt(53, &[OFFER]).opt(1, &mask).reply();
        assert_eq!(Terms::judge(&reply), Err(Refusal::Mask), "{mask:?}");
    }
    assert_eq!(Terms::judge(&Wire::new(1, ADDRESS).opt(53, &[OFFER]).opt(1, &[255]).reply()), Err(Refusal::Mask));
}

/// CVE-less, found by irsl in 2021: an xid that can be guessed lets a stranger answer from
/// anywhere.
#[test]
fn d28_nobody_guesses_an_xid() {
    let first = |rng: Rng| {
        let mut client = Client::new(Config::default(), rng);
        client.step(Duration::from_secs(1), Event::Start).iter().find_map(|a| match a {
            Action::Send(message, _) => Some(message.xid),
            _ => None,
        })
    };
    let mut xids: Vec<Option<u32>> = (0..500).map(|_| first(netd::entropy::rng())).collect();
    assert!(xids.iter().all(Option::is_some));
    xids.sort();
    xids.dedup();
    // Two of 500 random numbers of 32 bits are the same once in 34,000 runs; three pairs never.
    assert!(xids.len() > 497, "{}", xids.len());
    let ones: u32 = xids.iter().flatten().map(|xid| xid.count_ones()).sum();
    assert!((7_000..9_000).contains(&ones), "{ones} of 16,000 bits are set");
}

#[test]
fn d28_d34_another_station_or_another_kind_of_hardware_is_not_us() {
    let table: [(usize, &[u8], DecodeError); 6] = [
        (0, &[1], DecodeError::Op),
        (1, &[6], DecodeError::Hardware),
        (2, &[16], DecodeError::Hardware),
        (2, &[255], DecodeError::Hardware),
        (33, &[0], DecodeError::Chaddr),
        (236, &[0], DecodeError::Cookie),
    ];
    for (offset, data, want) in table {
        assert_eq!(decode(&ack().at(offset, data).end(), MAC), Err(want), "{offset} {data:?}");
    }
}

#[test]
fn d30_an_mtu_that_breaks_the_network_is_not_taken() {
    for (mtu, want) in
        [(0u16, None), (68, None), (575, None), (576, Some(576)), (1500, Some(1500)), (65535, Some(65535))]
    {
        assert_eq!(mtu_of(&ack().opt(26, &mtu.to_be_bytes()).reply()), want);
    }
}

#[test]
fn d32_a_lease_of_no_time_is_refused_and_a_missing_one_is_an_hour() {
    let with = |secs: u32| Terms::judge(&Wire::new(1, ADDRESS).opt(53, &[OFFER]).opt(51, &secs.to_be_bytes()).reply());
    assert_eq!(with(0), Err(Refusal::NoTime));
    assert_eq!(with(1).unwrap().lease_secs, 1);
    assert_eq!(with(u32::MAX).unwrap().duration(), None);
    let absent = Terms::judge(&Wire::new(1, ADDRESS).opt(53, &[OFFER]).reply()).unwrap();
    assert_eq!((absent.lease_secs, absent.assumed), (3600, true));
}

#[test]
fn d35_vendor_options_are_opaque() {
    let reply = ack().opt(43, &[255, 255, 1]).reply();
    assert_eq!(var(&reply, "opt43").as_deref(), Some("ffff01"));
}

#[test]
fn a_fat_option_cannot_keep_the_script_from_running() {
    let mut wire = ack();
    for _ in 0..250 {
        wire = wire.opt(224, &[0xab; 255]).opt(17, &[b'x'; 255]).opt(121, &[8, 10, 10, 9, 0, 9].repeat(42));
    }
    let reply = wire.reply();
    for (name, value) in env::full("eth0", &reply) {
        assert!(value.len() <= 4096, "{name}");
    }
    let routes = var(&reply, "staticroutes").unwrap();
    assert!(routes.ends_with("10.0.0.0/8 10.9.0.9"), "whole routes only: {routes}");
}

#[test]
fn a_nak_needs_no_address() {
    let reply = Wire::usual(NAK, 9).opt(56, b"wrong network").reply();
    assert_eq!((reply.yiaddr, reply.ip(54)), (Ipv4Addr::UNSPECIFIED, Some(SERVER)));
    assert_eq!(var(&reply, "opt53").as_deref(), Some("06"));
    assert_eq!(var(&reply, "message").as_deref(), Some("wrong network"));
}

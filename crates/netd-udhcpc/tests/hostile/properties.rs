//! Whatever comes from the wire, or stands in a file: what leaves us is clean.

use netd_core::net::Prefix;
use netd_core::record::text;
use std::net::Ipv4Addr;
use std::time::Duration;

use netd::reach::Reached;
use netd_core::net::IfName;
use netd_core::record::{Author, Lease, Network};
use netd_core::rng::Rng;
use netd_udhcpc::bounds::cut;
use netd_udhcpc::client::{Action, Change, Client, Config, Event, Grant};
use netd_udhcpc::gate::Gate;
use netd_udhcpc::lease::Terms;
use netd_udhcpc::message::{MessageType, Reply, Template, decode};
use netd_udhcpc::notice::notice;
use netd_udhcpc::options::KNOWN;
use netd_udhcpc::record::{Context, record, resume};
use netd_udhcpc::routes::{Policy, vet};
use netd_udhcpc::{env, show};

use crate::common::{ACK, ADDRESS, MAC, NAK, OFFER, SERVER, Wire};

/// What an attacker would try, beside noise.
const PIECES: [&[u8]; 16] = [
    b"() { :;}; id",
    b" () {",
    b"\n",
    b"\r\n",
    b"\0",
    b"\x1b[2J",
    b"'",
    b"\"",
    b"$(reboot)",
    b"`id`",
    b"\\",
    b"let cfg=cfg+1\nif[$cfg]=lo",
    b"\xc2\x9b31m",
    b"\xff\xfe",
    b"https://",
    b"\x03foo\x03bar\0",
];

fn context() -> Context {
    Context {
        interface: IfName::parse("eth0").unwrap(),
        boot_id: "12345678".into(),
        pid: 7,
        wall_offset: Duration::from_secs(1),
        metric: None,
    }
}

/// Bytes as an attacker mixes them.
fn mixed(rng: &mut Rng, most: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..rng.below(6) {
        if rng.below(2) == 0 {
            out.extend(PIECES[rng.below(PIECES.len() as u64) as usize]);
        } else {
            out.extend((0..rng.below(most)).map(|_| rng.below(256) as u8));
        }
    }
    out.truncate(255);
    out
}

/// One option in many pieces, as long as a jumbo frame can have it.
fn fat(rng: &mut Rng, mut wire: Wire) -> Wire {
    let code = [6, 15, 33, 42, 119, 121, 249][rng.below(7) as usize];
    let unit = [
        &[24, 10, 1, 2, 10, 9, 0, 1][..],
        &[10, 9, 0, 7],
        b"\x3faaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\0",
        &[0xc0, 0],
        b"x ",
    ];
    let unit = unit[rng.below(5) as usize];
    let len = 255 / unit.len() * unit.len();
    let piece: Vec<u8> = unit.iter().copied().cycle().take(len).collect();
    for _ in 0..rng.below(15) {
        wire = wire.opt(code, &piece);
    }
    wire
}

/// A packet with known and unknown options of mixed content, in three places.
fn packet(rng: &mut Rng) -> Vec<u8> {
    let kind = [OFFER, ACK, NAK][rng.below(3) as usize];
    let mut wire = Wire::usual(kind, 1);
    if rng.below(4) == 0 {
        wire = wire.opt(52, &[rng.below(5) as u8]);
    }
    wire = wire.at(44, &mixed(rng, 20)[..].iter().copied().take(64).collect::<Vec<_>>());
    wire = wire.at(108, &mixed(rng, 40)[..].iter().copied().take(128).collect::<Vec<_>>());
    for _ in 0..rng.below(12) {
        let code = if rng.below(3) == 0 {
            1 + rng.below(254) as u8
        } else {
            KNOWN[rng.below(KNOWN.len() as u64) as usize].code
        };
        if ![1, 52, 53].contains(&code) {
            wire = wire.opt(code, &mixed(rng, 30));
        }
    }
    if rng.below(16) == 0 {
        wire = fat(rng, wire);
    }
    let mut bytes = wire.end();
    if rng.below(8) == 0 {
        bytes.truncate(240 + rng.below(bytes.len() as u64 - 240) as usize);
    }
    bytes
}

fn assert_clean(name: &str, value: &[u8]) {
    assert!(!value.iter().any(u8::is_ascii_control), "{name}={:?}", value.escape_ascii().to_string());
    assert!(!value.trim_ascii_start().starts_with(b"()"), "{name}={:?}", value.escape_ascii().to_string());
    assert!(value.len() <= 4096, "{name}: {} bytes", value.len());
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// 30,000 packets: variables of a script, the record as a file, what `--show` prints of it.
#[test]
fn d07_no_control_byte_newline_or_function_reaches_an_environment_or_a_file() {
    let mut rng = Rng::seeded(4);
    let (mut accepted, mut published) = (0, 0);
    for _ in 0..30_000 {
        let Ok(mut reply) = decode(&packet(&mut rng), MAC) else { continue };
        accepted += 1;
        vet(
            Policy::Safe,
            &mut reply,
            &[Reached { net: Ipv4Addr::new(10, 0, 0, 0), len: 8, on_link: true, tunnel: true }],
        );
        let said = cut(&mut reply, rng.below(2) == 0);
        assert!(!said.chars().any(char::is_control) && said.len() < 1000, "{said:?}");
        let change = match reply.kind {
            MessageType::Nak => Change::Nak(Box::new(reply.clone())),
            _ => Change::Bound(Box::new(grant(&reply))),
        };
        for (name, value) in notice(&context(), "eth0", &change).env {
            assert!(is_name(&name), "{name:?}");
            assert_clean(&name, &value);
        }
        if Terms::judge(&reply).is_ok() {
            published += 1;
            clean_record(&grant(&reply));
        }
    }
    assert!(accepted > 10_000 && published > 5_000, "{accepted} {published}");
}

/// Whatever is refused before the machine sees it is named in clean words of bounded length, and
/// what is let through has nothing of what is ignored and comes from nowhere that is rejected.
#[test]
fn d18_refusals_are_named_cleanly_and_the_gate_is_tight() {
    let mut rng = Rng::seeded(61);
    let template = Template { default_client_id: true, ..Template::default() };
    let (mut refused, mut admitted) = (0, 0);
    for _ in 0..30_000 {
        let Ok(mut reply) = decode(&packet(&mut rng), MAC) else { continue };
        let network = Ipv4Addr::from(u32::from(ADDRESS) ^ (rng.next_u32() & 0xff));
        let gate = Gate {
            reject: vec![Prefix::new(network.into(), 24 + rng.below(9) as u8).unwrap().network()],
            ignore: (0..rng.below(4)).map(|_| 1 + rng.below(50) as u8).collect(),
        };
        match gate.admit(&mut reply, SERVER, &template, MAC) {
            Ok(()) => {
                admitted += 1;
                assert!(gate.ignore.iter().all(|code| reply.option(*code).is_none()), "{gate:?}");
                assert!(
                    !gate.rejects(SERVER) && (reply.yiaddr.is_unspecified() || !gate.rejects(reply.yiaddr)),
                    "{gate:?}"
                );
            }
            Err(why) => {
                refused += 1;
                assert!(!why.chars().any(char::is_control) && why.is_ascii() && why.len() < 200, "{why:?}");
            }
        }
    }
    assert!(refused > 1_000 && admitted > 1_000, "{refused} {admitted}");
}

fn grant(reply: &Reply) -> Grant {
    Grant { ip: reply.yiaddr, server_id: SERVER, end: Duration::from_secs(4000), reply: reply.clone() }
}

/// The record can be written, reads back the same, has nothing that a shell would expand, and is
/// what resume and show expect.
fn clean_record(grant: &Grant) {
    let record = record(&context(), grant);
    let text = text::render(std::slice::from_ref(&record)).unwrap_or_else(|e| panic!("{e}: {record:?}"));
    let back = text::parse(text.as_bytes()).unwrap();
    assert_eq!(back.len(), 1, "{text}");
    assert!(text.len() < 16 * 1024, "{} bytes", text.len());
    assert!(back[0].fields().eq(record.fields()), "{text}");
    for (name, value) in record.fields() {
        assert_clean(name, value.as_bytes());
        assert!(!value.contains(['$', '`', '\\', '"', '\'', '<', '>', '|']), "{name}={value}");
        assert!(value.is_ascii(), "{name}={value}");
    }
    let now = Duration::from_secs(3000);
    assert_eq!(resume(&back[0], "eth0", "12345678", now).unwrap().ip, grant.ip);
    // fw has nothing to complain of, and every reader gets what was meant.
    let (_, left_out) = Network::parse(&back[0], Author::Administrator).unwrap();
    assert_eq!(left_out, []);
    let lease = Lease::parse(&back[0]).unwrap();
    assert_eq!(lease, netd_udhcpc::record::lease(&context(), grant));
    let left = lease.left(now, "12345678").unwrap();
    let shown = show::text(&lease, left) + &show::array(&[(lease, left)]);
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
}

/// Each formatter alone, with every length.
#[test]
fn d07_d10_d15_each_option_alone_with_any_bytes() {
    let mut rng = Rng::seeded(15);
    for known in KNOWN {
        for len in (0..64).chain([127, 128, 254, 255]) {
            for round in 0..8 {
                let fill = |rng: &mut Rng| if round < 2 { [0, 0xff][round] } else { rng.below(256) as u8 };
                let data: Vec<u8> = (0..len).map(|_| fill(&mut rng)).collect();
                let mut wire = Wire::new(1, ADDRESS).opt(53, &[ACK]);
                for _ in 0..=rng.below(20) {
                    wire = wire.opt(known.code, &data);
                }
                let Ok(reply) = decode(&wire.end(), MAC) else { continue };
                for (name, value) in env::full("eth0", &reply) {
                    assert_clean(&name, &value);
                }
            }
        }
    }
}

/// D04 and D05: a state file is a stranger's too. What resume takes is an address that a host can
/// have, of this boot and not over.
#[test]
fn d05_a_spoiled_record_is_never_believed_too_much() {
    let wire = Wire::usual(ACK, 1).opt(3, &SERVER.octets()).opt(15, b"example.org");
    let good = text::render(&[record(&context(), &grant(&wire.reply()))]).unwrap();
    let mut rng = Rng::seeded(5);
    let now = Duration::from_secs(10);
    let (mut parsed, mut resumed) = (0, 0);
    for _ in 0..50_000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            match rng.below(4) {
                0 => bytes[at] = rng.below(256) as u8,
                1 => bytes[at] = b'0' + rng.below(10) as u8,
                2 => drop(bytes.splice(at..at, PIECES[rng.below(PIECES.len() as u64) as usize].iter().copied())),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let Ok(records) = text::parse(&bytes) else { continue };
        parsed += 1;
        for record in records {
            if let Some(found) = resume(&record, "eth0", "12345678", now) {
                resumed += 1;
                assert!(netd_core::net::is_host(found.ip) && found.end > now, "{found:?}");
            }
            show::array(&Lease::parse(&record).map(|lease| (lease, Duration::ZERO)).into_iter().collect::<Vec<_>>());
        }
    }
    assert!(parsed > 3_000 && resumed > 1_000, "{parsed} {resumed}");
    // No lease is longer than 2^32 s, and no end may be out of the reach of arithmetic.
    let record = text::parse(good.as_bytes()).unwrap().remove(0);
    for (end, want) in [(10 + u64::from(u32::MAX), true), (11 + u64::from(u32::MAX), false), (u64::MAX, false)] {
        let found = resume(&record.clone().with("lease_end_boottime", end.to_string()), "eth0", "12345678", now);
        assert_eq!(found.is_some(), want, "{end}");
    }
}

/// The machine fed with replies of all kinds at any time: it never speaks control bytes, and never
/// faster than it may.
#[test]
fn d18_d32_logs_are_clean_and_packets_bounded_whatever_is_answered() {
    let mut rng = Rng::seeded(32);
    for seed in 0..60 {
        let mut client = Client::new(Config::default(), Rng::seeded(seed));
        let start = Duration::from_secs(100);
        let (mut now, mut xid, mut sent) = (start, 1_u32, 0);
        let mut actions = client.step(now, Event::Start);
        for _ in 0..400 {
            for action in &actions {
                match action {
                    Action::Send(message, _) => (xid, sent) = (message.xid, sent + 1),
                    Action::Log(text) | Action::Debug(text) => assert!(!text.chars().any(char::is_control), "{text:?}"),
                    _ => {}
                }
            }
            let mut bytes = packet(&mut rng);
            bytes[4..8].copy_from_slice(&xid.to_be_bytes());
            if rng.below(2) == 0
                && let Ok(reply) = decode(&bytes, MAC)
            {
                actions = client.step(now, Event::Reply(Box::new(reply), [2; 6]));
            } else {
                let jump = Duration::from_millis(rng.below(3000));
                now = (now + jump).min(client.deadline().unwrap_or(now + jump).max(now));
                actions = client.step(now, Event::Timer);
            }
        }
        let secs = (now - start).as_secs();
        assert!(sent <= 30 + 2 * secs, "{sent} messages in {secs} s");
    }
}

//! Properties of all kinds: what is rendered is read again, and hostile text harms nothing.

use super::*;
use crate::net::Prefix;
use crate::rng::Rng;

/// Keys of all kinds, and some of none.
fn keys() -> Vec<&'static str> {
    let more =
        ["state", "cause", "since_boottime", "written_boottime", "router", "restarts", "target", "asked", "lost"];
    Network::keys().chain(more).chain(["last_us", "mean_us", "worst_us", "x_new", "x_9"]).collect()
}

/// Values of all keys, good and bad.
const VALUES: &[&str] = &[
    "",
    " ",
    "0",
    "1",
    "576",
    "1500",
    "65536",
    "254",
    "main",
    "default",
    "4294967295",
    "18446744073709551615",
    "99999999999999999999",
    "-1",
    "+1",
    "1.5",
    "eth0",
    "a+b",
    "all",
    "eth0/..",
    "10.0.0.5",
    "10.0.0.5/24",
    "10.0.0.5/33",
    "169.254.7.9",
    "169.254.7.9/16",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.1",
    "10.0.0.1 10.0.0.2",
    "fe80::1",
    "::",
    "2001:db8::5/64",
    "0/0",
    "10/8",
    "::/0",
    "10.0.0.0/8 10.0.0.1",
    "10.0.0.0/8 10.0.0.1 0/0 10.0.0.2",
    "192.0.2.0/24 0.0.0.0",
    "2001:db8::/32 fe80::1",
    "0/0 0.0.0.0",
    "10.0.0.0/8",
    "example.org",
    "example.org lan.",
    "corp..example",
    "a;b",
    "https://example.org/a?b",
    "javascript:x",
    "up",
    "down",
    "global",
    "link",
    "200",
    "02:00:00:00:00:ab",
    "03:00:00:00:00:ab",
    "lan0 lan1",
    "lan0 lan0",
    "guest_2",
    "7",
    "4095",
    "eui64",
    "stable-privacy",
    "02:00",
    "good",
    "bad",
    "idle",
    "router",
    "behind",
    "icmp:192.0.2.1",
    "abcd0123",
    "$(reboot) `reboot` \\ \"x\"",
    "server=/corp/10.0.0.1 no-resolv",
    "\u{fc}",
    "it's",
    "a\nb",
    "a\tb",
];

fn pick<'a, T: ?Sized>(rng: &mut Rng, list: &[&'a T]) -> &'a T {
    list[usize::try_from(rng.below(list.len() as u64)).unwrap()]
}

/// A record of some kind of which some fields are others.
fn random(rng: &mut Rng) -> text::Record {
    let keys = keys();
    let ip = [169, 254, 7, 9].into();
    let (interface, boot_id) = (lease().interface, lease().boot_id);
    let mut record = match rng.below(7) {
        0 => lease().render(),
        1 => LinkLocal { interface, ip, boot_id, owner: None, other: Vec::new() }.render(),
        2 => Verdict::new(interface, Health::Down).render(),
        3 => Remembered { interface, mac: None, ip, server_id: None, other: Vec::new() }.render(),
        4 => status().render().swap_remove(0),
        5 => status().render().swap_remove(1),
        _ => text::Record::new(),
    };
    for _ in 0..rng.below(6) {
        record.set(pick(rng, &keys), pick(rng, VALUES));
    }
    record
}

/// The text of a file and its records again; `None`: a value could leave its quotes.
fn again(records: &[text::Record]) -> Option<Vec<text::Record>> {
    let text = text::render(records).ok()?;
    Some(text::parse(text.as_bytes()).expect("what we write can be read"))
}

#[test]
fn what_is_rendered_is_read_again_whatever_it_is() {
    let mut rng = Rng::seeded(7);
    let mut seen = [0; 6];
    for _ in 0..20_000 {
        let records: Vec<text::Record> = (0..1 + rng.below(3)).map(|_| random(&mut rng)).collect();
        let Some(read) = again(&records) else { continue };
        assert_eq!(read, records);
        for record in &read {
            for author in [Author::Administrator, Author::Program] {
                if let Ok((network, _)) = Network::parse(record, author) {
                    let back = again(&[network.render()]).expect("a struct has no quotes");
                    assert_eq!(Network::parse(&back[0], Author::Administrator), Ok((network, Vec::new())));
                    seen[0] += 1;
                }
            }
            check(&mut seen[1], record, Lease::parse, Lease::render);
            check(&mut seen[2], record, LinkLocal::parse, LinkLocal::render);
            check(&mut seen[3], record, Verdict::parse, Verdict::render);
            check(&mut seen[4], record, Remembered::parse, Remembered::render);
        }
        if let Some(status) = Status::parse(&read) {
            assert_eq!(Status::parse(&again(&status.render()).unwrap()), Some(status));
            seen[5] += 1;
        }
    }
    assert!(seen.iter().all(|count| *count > 500), "{seen:?}");
}

fn check<T: PartialEq + std::fmt::Debug>(
    seen: &mut u32,
    record: &text::Record,
    parse: fn(&text::Record) -> Option<T>,
    render: fn(&T) -> text::Record,
) {
    if let Some(value) = parse(record) {
        let back = again(&[render(&value)]).expect("a struct has no quotes");
        assert_eq!(parse(&back[0]), Some(value));
        *seen += 1;
    }
}

fn lease() -> Lease {
    let prefix = |text: &str| Prefix::parse(text).unwrap();
    Lease {
        interface: IfName::parse("a+b").unwrap(),
        ip: [10, 0, 0, 5].into(),
        prefix_len: 24,
        server_id: Some([10, 0, 0, 1].into()),
        said: Said {
            routers: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            routes: vec![
                Hop { destination: prefix("10/8"), gateway: Some("10.0.0.7".parse().unwrap()) },
                Hop { destination: prefix("0/0"), gateway: Some("10.0.0.9".parse().unwrap()) },
            ],
            captive_portal: Uri::parse("https://example.org/"),
            ..Said::default()
        },
        metric: None,
        end_boottime: 5000,
        end: Some(1_700_000_000),
        boot_id: "12345678".into(),
        owner: Some(77),
        other: vec![("x_new".into(), "y".into())],
    }
}

#[test]
fn a_lease_is_what_fw_and_the_pinger_and_the_next_client_read() {
    let record = lease().render();
    let back = again(std::slice::from_ref(&record)).unwrap();
    assert_eq!(Lease::parse(&back[0]), Some(lease()));
    let (network, left_out) = Network::parse(&record, Author::Program).unwrap();
    assert_eq!((network.hops(), left_out), (lease().said.routes, Vec::new()));
    let now = |secs, boot_id: &str| Now {
        boottime: std::time::Duration::from_secs(secs),
        boot_id: boot_id.into(),
        ..Now::default()
    };
    let ip = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap();
    assert_eq!(network.uplink(&now(4000, "12345678")), Some((ip("10.0.0.5"), Some(ip("10.0.0.9")))));
    assert_eq!(network.uplink(&now(5000, "12345678")), None);
    assert_eq!(network.uplink(&now(4000, "87654321")), None);
    for (key, value) in [
        ("ip", "10.0.0.6"),
        ("ipmask", "127.0.0.1/8"),
        ("ipmask", "2001:db8::1/64"),
        ("boot_id", ""),
        ("lease_end_boottime", ""),
    ] {
        assert_eq!(Lease::parse(&record.clone().with(key, value)), None, "{key}={value}");
    }
}

#[test]
fn the_text_of_a_lease_is_what_the_seeds_scripts_read() {
    let want = "let cfg=cfg+1\nif[$cfg]='a+b'\nip[$cfg]='10.0.0.5'\nipmask[$cfg]='10.0.0.5/24'\ngw[$cfg]='10.0.0.1 10.0.0.2'\n\
                net[$cfg]='0/0'\ncaptive_portal[$cfg]='https://example.org/'\n\
                routes[$cfg]='10.0.0.0/8 10.0.0.7 0.0.0.0/0 10.0.0.9'\nserverid[$cfg]='10.0.0.1'\nlease_end[$cfg]='1700000000'\n\
                lease_end_boottime[$cfg]='5000'\nboot_id[$cfg]='12345678'\nowner[$cfg]='77'\nx_new[$cfg]='y'\n";
    assert_eq!(text::render(&[lease().render()]).unwrap(), want);
}

fn status() -> Status {
    let target = |name: &str| TargetStatus {
        name: name.into(),
        asked: 60,
        lost: 1,
        last: Some(std::time::Duration::from_micros(1234)),
        other: vec![("x".into(), "y".into())],
        ..TargetStatus::default()
    };
    Status {
        interface: IfName::parse("eth0").unwrap(),
        state: UplinkState::Bad,
        cause: Some(Cause::Behind),
        since_boottime: 100,
        written_boottime: 180,
        ip: Some([192, 0, 2, 100].into()),
        router: None,
        restarts: 2,
        targets: vec![target("router"), target("dns:9.9.9.9/example.org")],
        other: vec![("y".into(), String::new())],
    }
}

#[test]
fn a_status_is_read_again_with_all_its_targets() {
    let status = status();
    assert_eq!(Status::parse(&again(&status.render()).unwrap()), Some(status.clone()));
    for (key, value) in [("state", "odd"), ("state", ""), ("since_boottime", "x"), ("if", "a b")] {
        let mut records = status.render();
        records[0].set(key, value);
        assert_eq!(Status::parse(&records), None, "{key}={value}");
    }
    assert_eq!(Status::parse(&[]), None);
}

#[test]
fn a_list_that_is_as_long_as_a_file_can_be_is_bounded() {
    let routes = "10.0.0.0/8 10.0.0.1 ".repeat(3000);
    let record = text::Record::new().with("if", "eth0").with("routes", routes).with("dns", "10.0.0.1 ".repeat(6000));
    let (network, _) = Network::parse(&record, Author::Program).unwrap();
    assert_eq!((network.said.routes.len(), network.said.dns.len()), (key::MAX_WORDS, key::MAX_WORDS));
}

#[test]
fn a_default_route_behind_more_routes_than_are_read_is_read_and_the_others_are_counted() {
    for (more, kept) in [(10, 11), (63, 64), (64, 64), (100, 64)] {
        let routes = "10.0.0.0/8 10.0.0.1 ".repeat(more) + "0.0.0.0/0 10.0.0.7";
        let record = text::Record::new().with("if", "eth0").with("routes", routes);
        let (network, wrong) = Network::parse(&record, Author::Program).unwrap();
        let last = network.said.routes.last().unwrap();
        assert_eq!((network.said.routes.len(), last.destination.is_default()), (kept, true), "{more}");
        let said = format!("{} of {} are left out, more than 64", (more + 1).saturating_sub(64), more + 1);
        assert_eq!(format!("{wrong:?}").contains(&said), more > 63, "{wrong:?}");
    }
}

#[test]
fn each_kind_names_its_file() {
    let names =
        [Kind::Lease, Kind::LinkLocal, Kind::Link, Kind::Health, Kind::RememberedLease, Kind::RememberedLinkLocal]
            .map(|kind| kind.name("a+b"));
    assert_eq!(names, ["dhcp_a+b", "zcip_a+b", "link_a+b", "health_a+b", "lease_a+b", "ipv4ll_a+b"]);
    assert!(names.iter().all(|name| text::is_record_name(name)));
}

#[test]
fn a_key_that_a_kind_does_not_have_survives_it() {
    let more = |record: text::Record| record.with("x_new", "y z").with("dns_prio", "5").with("table", "7");
    let fields = |record: &text::Record| {
        let mut fields: Vec<_> = record.fields().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        fields.sort();
        fields
    };
    let record = more(lease().render()).with("net", "10.0.0.0/8");
    assert_eq!(fields(&Lease::parse(&record).unwrap().render()), fields(&record));
    let ip = [169, 254, 7, 9].into();
    let (interface, boot_id) = (lease().interface, lease().boot_id);
    let local = LinkLocal { interface: interface.clone(), ip, boot_id, owner: Some(1), other: Vec::new() };
    let record = more(local.render()).with("mtu", "1400");
    assert_eq!(fields(&LinkLocal::parse(&record).unwrap().render()), fields(&record));
    let record = more(Verdict::new(interface.clone(), Health::Up).render()).with("gw", "10.0.0.1");
    assert_eq!(fields(&Verdict::parse(&record).unwrap().render()), fields(&record));
    let old = Remembered { interface, mac: None, ip, server_id: None, other: Vec::new() };
    let record = more(old.render());
    assert_eq!(fields(&Remembered::parse(&record).unwrap().render()), fields(&record));
}

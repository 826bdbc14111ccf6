use super::*;

type Fields = &'static [(&'static str, &'static str)];

fn record(fields: &[(&str, &str)]) -> text::Record {
    fields.iter().fold(text::Record::new().with("if", "eth0"), |r, (k, v)| r.with(k, *v))
}

fn parse(fields: &[(&str, &str)], author: Author) -> Result<(Network, Vec<Fault>), Fault> {
    Network::parse(&record(fields), author)
}

fn hops(fields: &[(&str, &str)]) -> Vec<String> {
    parse(fields, Author::Administrator).unwrap().0.hops().iter().map(Hop::to_string).collect()
}

#[test]
fn routes_of_all_kinds() {
    let table: [(Fields, &[&str]); 17] = [
        (&[("gw", "10.0.0.1"), ("net", "0/0")], &["0.0.0.0/0 10.0.0.1"]),
        (&[("gw", "10.0.0.1")], &["0.0.0.0/0 10.0.0.1"]),
        (&[("gw", "10.0.0.1"), ("net", "default")], &["0.0.0.0/0 10.0.0.1"]),
        (&[("gw", "10.0.0.1 10.0.0.2"), ("net", "0/0")], &["0.0.0.0/0 10.0.0.1"]),
        (&[("gw", "0.0.0.0 10.0.0.2")], &["0.0.0.0/0 10.0.0.2"]),
        (&[("gw", ""), ("net", "0/0")], &[]),
        (&[("gw", "0.0.0.0"), ("net", "0/0")], &[]),
        (&[("gw", "::"), ("net", "0/0")], &[]),
        (&[("net", "0/0"), ("scope", "link")], &["0.0.0.0/0 0.0.0.0"]),
        (&[("net", "10/8")], &["10.0.0.0/8 0.0.0.0"]),
        (&[("net", "10.1.2.3/8"), ("gw", "1.2.3.4")], &["10.0.0.0/8 1.2.3.4"]),
        (&[("net", "10/8"), ("gw", "fe80::1 1.2.3.4")], &["10.0.0.0/8 1.2.3.4"]),
        (&[("gw", "fe80::1")], &["::/0 fe80::1"]),
        (&[("gw", "fe80::1"), ("net", "0/0")], &["::/0 fe80::1"]),
        (
            &[("gw", "9.9.9.9"), ("net", "0/0"), ("routes", "10.0.0.0/8 10.0.0.1 0.0.0.0/0 10.0.0.2")],
            &["10.0.0.0/8 10.0.0.1", "0.0.0.0/0 10.0.0.2"],
        ),
        (&[("routes", "192.0.2.0/24 0.0.0.0")], &["192.0.2.0/24 0.0.0.0"]),
        (&[("gw", "9.9.9.9"), ("routes", "")], &["0.0.0.0/0 9.9.9.9"]),
    ];
    for (fields, want) in table {
        assert_eq!(hops(fields), want, "{fields:?}");
    }
}

#[test]
fn a_wrong_word_of_its_own_configuration_costs_the_record() {
    for (key, value) in [
        ("if", "eth0/.."),
        ("if", ""),
        ("ipmask", "10.0.0.1/33"),
        ("ipmask", "224.0.0.1/24"),
        ("ipmask", "0.0.0.0/8"),
        ("ipmask", "10.0.0.1/0"),
        ("net", "10"),
        ("metric", "-1"),
        ("table", "255"),
        ("health", "maybe"),
        ("lease_end", "soon"),
        ("dns_prio", "high"),
    ] {
        for author in [Author::Administrator, Author::Program] {
            let fault = parse(&[(key, value)], author).unwrap_err();
            assert_eq!((fault.key, fault.value.as_str()), (key, value));
        }
    }
    assert!(parse(&[("gw", "fe80::1"), ("net", "10/8")], Author::Program).is_err());
}

#[test]
fn a_router_that_cannot_be_costs_an_administrators_record_and_is_left_out_of_a_servers() {
    for (key, value, wrong) in [
        ("gw", "router", "router"),
        ("gw", "255.255.255.255", "255.255.255.255"),
        ("gw", "224.0.0.1", "224.0.0.1"),
        ("gw", "10.0.0.1 x", "x"),
        ("broadcast", "10.0.0", "10.0.0"),
    ] {
        let fault = parse(&[(key, value)], Author::Administrator).unwrap_err();
        assert_eq!((fault.key, fault.value.as_str()), (key, wrong));
        let (_, left_out) = parse(&[(key, value)], Author::Program).unwrap();
        assert_eq!(left_out, [fault]);
    }
}

#[test]
fn a_wrong_word_of_a_servers_extras_costs_that_word_alone() {
    let fields = [
        ("ipmask", "10.0.0.5/24"),
        ("dns", "1.1.1.1 nonsense 0.0.0.0 2001:db8::53"),
        ("domain", "corp..example"),
        ("search", "example.org bad/name lan."),
        ("mtu", "68"),
        ("routes", "10.0.0.0/8 1.1.1.1 0/0 0.0.0.0 odd"),
    ];
    for author in [Author::Administrator, Author::Program] {
        let (network, left_out) = parse(&fields, author).unwrap();
        assert_eq!(join(&network.said.dns), "1.1.1.1 2001:db8::53");
        assert_eq!(network.said.domain, None);
        assert_eq!(join(&network.said.search), "example.org lan");
        assert_eq!(network.said.mtu, None);
        assert_eq!(network.hops().len(), 1);
        assert_eq!(left_out.len(), 7, "{left_out:?}");
    }
}

/// Good values of the keys that only an administrator says.
const STATIC: Fields =
    &[("zone", "guest"), ("bridge", "lan0 lan1"), ("mac", "02:00:00:00:00:07"), ("addr_gen", "none")];

#[test]
fn what_an_interface_is_says_an_administrator_alone() {
    let (network, left_out) = parse(STATIC, Author::Administrator).unwrap();
    assert_eq!(left_out, []);
    assert_eq!((network.zone.as_deref(), join(&network.device.ports)), (Some("guest"), "lan0 lan1".into()));
    assert_eq!((network.device.mac, network.device.addr_gen), (Mac::parse("02:00:00:00:00:07"), Some(AddrGen::None)));
    assert_eq!(network.render(), record(STATIC));
    let (network, left_out) = parse(STATIC, Author::Program).unwrap();
    assert_eq!(network, Network::new(network.interface.clone()));
    let said: Vec<String> = left_out.iter().map(Fault::to_string).collect();
    assert_eq!((said.len(), said[0].as_str()), (4, "bad zone: guest (only a static record says so)"));

    let (network, _) = parse(&[("vlan", "7"), ("link", "wan0")], Author::Administrator).unwrap();
    assert_eq!((network.device.vlan.map(VlanId::number), network.device.parent.as_deref()), (Some(7), Some("wan0")));
    let (network, _) = parse(&[("bridge", "lan0 lan1 lan0")], Author::Administrator).unwrap();
    assert_eq!(join(&network.device.ports), "lan0 lan1", "a port that is named twice is one");
}

#[test]
fn a_device_that_cannot_be_costs_an_administrators_record_and_nothing_of_a_programs() {
    let table: [(Fields, &str, &str); 12] = [
        (&[("zone", "My LAN")], "zone", "My LAN"),
        (&[("bridge", "lan0 lan/1")], "bridge", "lan/1"),
        (&[("bridge", "lan0 eth0")], "bridge", "lan0 eth0: the interface itself"),
        (&[("vlan", "4095"), ("link", "wan0")], "vlan", "4095"),
        (&[("vlan", "7")], "vlan", "7: link is missing"),
        (&[("link", "wan0")], "link", "wan0: vlan is missing"),
        (&[("vlan", "7"), ("link", "eth0")], "link", "eth0: the interface itself"),
        (&[("vlan", "7"), ("link", "wan0"), ("bridge", "lan0")], "bridge", "lan0: it is a VLAN"),
        (&[("mac", "01:00:5e:00:00:01")], "mac", "01:00:5e:00:00:01"),
        (&[("mac", "00:00:00:00:00:00")], "mac", "00:00:00:00:00:00"),
        (&[("mac", "02-00-00-00-00-01")], "mac", "02-00-00-00-00-01"),
        (&[("addr_gen", "stable_secret")], "addr_gen", "stable_secret"),
    ];
    for (fields, key, value) in table {
        let fault = parse(fields, Author::Administrator).unwrap_err();
        assert_eq!((fault.key, fault.value.as_str()), (key, value), "{fields:?}");
        assert!(parse(fields, Author::Program).is_ok(), "{fields:?}");
    }
}

#[test]
fn what_fw_does_not_use_is_kept_and_never_wrong() {
    let fields = [
        ("ip", "10.0.0.5/24"),
        ("ntp", "pool.example 10.0.0.1"),
        ("hostname", "a b"),
        ("owner", "me"),
        ("x_new", "lan"),
    ];
    let (network, left_out) = parse(&fields, Author::Administrator).unwrap();
    assert_eq!((left_out, network.other.len()), (Vec::new(), fields.len()));
    assert_eq!(network.render(), record(&fields));
}

#[test]
fn a_fault_has_the_line_of_its_field() {
    let text = b"# mine\nlet cfg=cfg+1\nif[$cfg]=eth0\n\nipmask[$cfg]=10.0.0.1/33 # too long\n";
    let fault = Network::parse(&text::parse(text).unwrap()[0], Author::Administrator).unwrap_err();
    assert_eq!((fault.line, fault.to_string().as_str()), (5, "bad ipmask: 10.0.0.1/33"));
    let text = b"let cfg=cfg+1\nif[$cfg]=eth0\ndns[$cfg]='1.1.1.1 x'\ngw[$cfg]=fe80::1\nnet[$cfg]=10/8\n";
    let fault = Network::parse(&text::parse(text).unwrap()[0], Author::Program).unwrap_err();
    assert_eq!((fault.line, fault.to_string().as_str()), (4, "bad gw: fe80::1"));
    let text = b"let cfg=cfg+1\nhealth[$cfg]=up\n";
    let fault = Network::parse(&text::parse(text).unwrap()[0], Author::Program).unwrap_err();
    assert_eq!((fault.line, fault.to_string().as_str()), (1, "record without `if`"));
}

#[test]
fn the_manual_page_lists_the_keys_and_what_a_wrong_value_costs() {
    let page = include_str!("../../../../../man/ipconf.5");
    let listed: Vec<&str> =
        page.lines().filter_map(|l| l.strip_prefix(".It Va ")).flat_map(|l| l.split(" , ")).collect();
    for key in Network::keys() {
        assert!(listed.contains(&key), "{key} is not in the page");
    }
    for key in &listed {
        assert!(Network::keys().any(|k| k == *key), "{key} of the page is no key");
    }
    // The sentences that begin so list the keys whose wrong value costs a record.
    let after = |words: &str| -> Vec<&str> {
        let lines = page.split_once(words).expect(words).1.lines();
        let lists = lines.take_while(|l| l.starts_with(".Va ") || *l == "or").filter_map(|l| l.strip_prefix(".Va "));
        lists.flat_map(|l| l.split([' ', ','])).filter(|w| !w.is_empty() && *w != ".").collect()
    };
    let of = |wrong| KEYS.iter().filter(|k| k.wrong == wrong).map(|k| k.name).collect::<Vec<_>>();
    let sorted = |mut names: Vec<&'static str>| {
        names.sort_unstable();
        names
    };
    assert_eq!(
        sorted(after("So does a wrong value of\n").into_iter().filter(|k| *k != IF).collect()),
        sorted(of(Wrong::Record))
    );
    assert_eq!(sorted(after("In a static record so does a wrong\n")), sorted(of(Wrong::Said)));
    assert_eq!(sorted(after("Only a static record says\n")), sorted(of(Wrong::Static)));
    assert_eq!(sorted(after("and a wrong word of\n")), sorted(of(Wrong::Word)));
}

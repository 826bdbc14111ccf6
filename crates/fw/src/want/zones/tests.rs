//! Verdicts about interfaces: one row for each way in which one may be inside or outside.

use std::time::Duration;

use super::*;
use crate::have::{Address, Route};
use crate::input::policy;
use crate::model::Scope;
use crate::want::tests::{entries, have as links};

fn current(records: &str) -> Vec<Current> {
    entries(records).into_iter().map(|entry| (entry, None)).collect()
}

fn policy(words: &str) -> Policy {
    let (policy, errors) = policy::parse(words.as_bytes());
    assert_eq!(errors, []);
    policy
}

fn judge(records: &str, words: &str, memory: &Memory, have: &Have) -> Zones {
    zones(&current(records), &policy(words), memory, have)
}

/// `OUTSIDE... | INTERFACE=ZONE...`
fn show(zones: &Zones) -> String {
    let outside = zones.outside.iter().map(|o| o.interface.clone());
    let inside = zones.inside.iter().map(|i| format!("{}={}", i.interface, i.zone));
    format!("{} | {}", outside.collect::<Vec<_>>().join(" "), inside.collect::<Vec<_>>().join(" "))
}

fn remembered(had: &[&str]) -> Memory {
    Memory { had: had.iter().map(|name| ((*name).to_owned(), "a lease".to_owned())).collect(), ..Memory::default() }
}

fn route(destination: &str, index: u32) -> Route {
    Route { scope: Scope::Global, ..crate::have::tests::route(destination, index) }
}

fn address(text: &str, index: u32) -> Address {
    Address { kernel_prefix_route: true, ..crate::have::tests::address(text, index) }
}

const LAN: &str = "static if=lan0 ipmask=10.0.0.1/24\n";

#[test]
fn a_link_that_a_record_makes_is_closed_before_it_is_there_unless_one_declares_it() {
    for (records, words, shown) in [
        ("static if=br0 bridge=eth0", "", "br0 | "),
        ("static if=wan7 vlan=7 link=eth0", "", "wan7 | "),
        ("static if=br0 bridge=eth0", "unlisted=open", " | "),
        ("static if=br0 bridge=eth0 zone=guest", "", " | br0=guest"),
        ("static if=br0 bridge=eth0 ipmask=10.0.0.1/24", "", " | br0=lan"),
        ("static if=br0 bridge=eth0\nif=br0 ipmask=10.1.0.5/24", "", "br0 | "),
    ] {
        let judged = judge(records, words, &Memory::default(), &Have::default());
        assert_eq!(show(&judged), shown, "{records} {words}");
    }
}

#[test]
fn what_records_and_words_make_of_an_interface() {
    // Records, fw.conf, interfaces that had a lease since boot; the verdicts.
    let rows: &[(&str, &str, &[&str], &str)] = &[
        (LAN, "", &[], " | lan0=lan"),
        ("static if=lan0 ipmask=fd00::1/64\n", "", &[], " | lan0=lan"),
        ("static if=lan0 zone=guest\n", "", &[], " | lan0=guest"),
        // Nothing that declares it.
        ("static if=lan0 dns=10.0.0.9\n", "", &[], " | "),
        // A second static address on an uplink makes no LAN of it, in whatever order they stand.
        ("static if=eth0 ipmask=192.168.100.2/24\nif=eth0 ipmask=10.1.0.5/24 gw=10.1.0.1\n", "", &[], "eth0 | "),
        ("if=eth0 ipmask=10.1.0.5/24\nstatic if=eth0 ipmask=192.168.100.2/24\n", "", &[], "eth0 | "),
        ("static if=eth0 ipmask=192.168.100.2/24\n", "", &["eth0"], "eth0 | "),
        ("static if=eth0 ipmask=10.3.0.5/24 gw=10.3.0.1\nstatic if=eth0 ipmask=10.4.0.5/24\n", "", &[], "eth0 | "),
        ("static if=eth0 ipmask=2001:db8::5/64 gw=fe80::1\n", "", &[], "eth0 | "),
        ("static if=tun0 ipmask=10.8.0.2/24 gw=10.8.0.1 net=128.0.0.0/1\n", "", &[], "tun0 | "),
        ("static if=lan0 ipmask=10.0.0.1/24 gw=10.0.0.9 net=10.9.0.0/16\n", "", &[], " | lan0=lan"),
        // A daemon's record of any kind.
        ("if=eth0 health=up\n", "", &[], "eth0 | "),
        ("if=eth0 ipmask=169.254.7.7/16\nstatic if=eth0 ipmask=10.0.0.1/24\n", "", &[], "eth0 | "),
        // The key `zone` decides, whatever else is known.
        ("static if=br0 ipmask=10.0.0.1/24 zone=lan\nif=br0 health=up\n", "", &["br0"], " | br0=lan"),
        ("static if=br0 ipmask=10.0.0.1/24 gw=10.0.0.9 zone=lan\n", "", &[], " | br0=lan"),
        ("static if=br0 ipmask=10.0.0.1/24\nstatic if=br0 zone=dmz\n", "", &[], " | br0=dmz"),
        // A daemon's word about zones is none.
        ("if=eth0 ipmask=10.1.0.5/24 zone=lan\n", "", &[], "eth0 | "),
        // fw.conf adds.
        (LAN, "extif=tun0", &["eth0"], "eth0 tun0 | lan0=lan"),
        (LAN, "extif=lan0", &[], "lan0 | "),
        ("", "preferred_default_route_iface=eth1\nextif=wan", &[], "eth1 wan | "),
        // The loopback is in no zone.
        ("static if=lo ipmask=127.0.0.1/8\nif=lo health=up\n", "extif=lo", &["lo"], " | "),
        // The order of the records is the order of zones.
        ("static if=b ipmask=10.1.0.1/24\nstatic if=a ipmask=10.2.0.1/24\n", "", &[], " | b=lan a=lan"),
    ];
    for (records, words, had, want) in rows {
        let zones = judge(records, words, &remembered(had), &Have::default());
        assert_eq!(show(&zones), *want, "{records} {words} {had:?}");
        assert_eq!(zones.errors, [] as [&str; 0], "{records}");
    }
}

#[test]
fn what_the_kernel_has_makes_an_uplink() {
    let base = links("lo -, eth0 veth, tun0 tun");
    let with = |change: &dyn Fn(&mut Have)| {
        let mut have = base.clone();
        change(&mut have);
        let zones = judge("static if=eth0 ipmask=10.0.0.1/24", "", &Memory::default(), &have);
        (show(&zones), zones.outside.first().map(|o| o.reason.to_string()).unwrap_or_default())
    };
    let closed = |change: &dyn Fn(&mut Have), why: &str| assert_eq!(with(change), ("eth0 | ".into(), why.into()));
    let other = "another program gave it a default route";
    assert_eq!(with(&|_| {}).0, " | eth0=lan");
    closed(&|h| h.routes.push(route("0/0", 2)), other);
    closed(&|h| h.routes.push(Route { table: 51_820, ..route("::/0", 2) }), other);
    closed(&|h| h.routes.push(route("0.0.0.0/1", 2)), other);
    closed(&|h| h.routes.push(route("2000::/3", 2)), other);
    closed(&|h| h.routes.push(Route { dead: true, ..route("0/0", 2) }), other);
    closed(
        &|h| h.routes.push(Route { index: 0, next_hops: vec![9, 2], ..route("0/0", 0) }),
        "another program gave it a default route",
    );
    closed(
        &|h| h.routes.push(Route { protocol: PROTOCOL_RA, ..route("::/0", 2) }),
        "a router advertisement gave it a default route",
    );
    let learned = "2001:db8::5/64 came by DHCP or in a router advertisement";
    closed(&|h| h.addresses.push(Address { autoconf: true, ..address("2001:db8::5/64", 2) }), learned);
    closed(&|h| h.addresses.push(Address { protocol: ADDRESS_PROTOCOL_RA, ..address("2001:db8::5/64", 2) }), learned);
    closed(
        &|h| h.addresses.push(Address { lifetime: Some(Duration::from_secs(9)), ..address("10.7.0.5/24", 2) }),
        "10.7.0.5/24 came by DHCP or in a router advertisement",
    );
    // None of these is an uplink's.
    let open = |change: &dyn Fn(&mut Have)| assert_eq!(with(change).0, " | eth0=lan");
    open(&|h| h.routes.push(Route { unicast: false, ..route("0/0", 2) }));
    open(&|h| h.routes.push(route("10.0.0.0/8", 2)));
    open(&|h| h.routes.push(route("fd00::/8", 2)));
    open(&|h| h.addresses.push(address("10.0.0.1/24", 2)));
    assert_eq!(with(&|h| h.routes.push(route("0/0", 3))).0, "tun0 | eth0=lan");
}

#[test]
fn links_that_nothing_declares() {
    let have = links(
        "lo -, eth0 -, lan0 -, docker0 bridge, veth1 veth - docker0, wg0 wireguard, eth0.5 vlan eth0, veth2 veth, \
         veth2.9 vlan veth2, br0 bridge, eth1 - - br0, tap0 tun - br0, bond0 bond",
    );
    let of = |words: &str| judge(LAN, words, &Memory::default(), &have);
    let auto = of("");
    assert_eq!(show(&auto), "br0 eth0 eth0.5 | lan0=lan", "a bridge with a card in it is as good as the card");
    assert_eq!(auto.external(), ["br0", "eth0", "eth0.5"]);
    assert_eq!(auto.left_alone, ["bond0", "veth2.9"], "their kind alone would close them");
    assert_eq!(auto.bridges.iter().map(|(name, macs)| (name.as_str(), macs.len())).collect::<Vec<_>>(), [("br0", 3)]);
    let closed = of("unlisted=closed");
    assert_eq!(
        (show(&closed).as_str(), closed.left_alone.len(), closed.bridges.len()),
        ("br0 eth0 eth0.5 | lan0=lan", 0, 2)
    );
    assert_eq!(show(&of("unlisted=open")), " | lan0=lan");
    // A card that is declared later is inside then; one that was an uplink is not.
    assert_eq!(
        show(&judge("static if=eth0 ipmask=10.1.0.1/24", "", &Memory::default(), &have)),
        "br0 eth0.5 lan0 | eth0=lan"
    );
}

#[test]
fn contradictions_are_errors_and_closed() {
    let errors = |records: &str, words: &str| {
        let zones = judge(records, words, &Memory::default(), &Have::default());
        (show(&zones), zones.errors.join("; "))
    };
    let closed = |text: &str| ("lan0 | ".to_owned(), text.to_owned());
    assert_eq!(
        errors("static if=lan0 zone=guest", "extif=lan0"),
        closed("f:1: lan0 is in zone guest, and extif in fw.conf says that it is outside: closed")
    );
    assert_eq!(
        errors("static if=lan0 zone=guest\nstatic if=lan0 ipmask=10.0.0.1/24 zone=lan", ""),
        closed("f:1: lan0 is in zone guest by f:1, and in lan here: closed")
    );
    assert_eq!(errors("static if=lan0 zone=any", ""), closed("f:1: any is not the name of a zone: lan0 is closed"));
    let unknown = errors(LAN, "zone_gest_to=outside\nzone_lan_to='outside guest'\nzone_lna_router=all");
    assert_eq!(
        unknown.1,
        "fw.conf:1: unknown zone: gest: no record is in it; fw.conf:2: unknown zone: guest: no record is in it; \
         fw.conf:3: unknown zone: lna: did you mean lan?"
    );
    assert_eq!(errors("", "zone_lan_to=outside").1, "", "the LAN may come later");
}

#[test]
fn what_turns_is_said_with_its_reason() {
    let have = links("eth0 veth, lan0 veth, tun0 tun");
    let run = |records: &str, words: &str, memory: &Memory| {
        let zones = judge(records, words, memory, &have);
        let news = zones.news(memory, &have);
        let after = Memory {
            had: zones.had.clone(),
            outside: zones.outside.iter().map(|o| o.interface.clone()).collect(),
            inside: zones.inside.iter().map(|i| i.interface.clone()).collect(),
            ..Memory::default()
        };
        assert_eq!(judge(records, words, &after, &have).news(&after, &have), [] as [&str; 0], "said once");
        (after, news.join("; "))
    };
    let alias = "static if=eth0 ipmask=192.168.100.2/24\n";
    let lease = format!("{alias}if=eth0 ipmask=10.1.0.5/24\n");
    let (memory, news) = run(alias, "", &Memory::default());
    assert_eq!(news, "", "a first run says nothing");
    let (memory, news) = run(&lease, "", &memory);
    assert_eq!(news, "eth0 is outside now: f:1, a daemon's record, names it");
    let (memory, news) = run(alias, "", &memory);
    assert_eq!(news, "", "its lease is lost");
    let (memory, news) = run("static if=eth0 zone=lan\n", "", &memory);
    assert_eq!(news, "eth0 is inside now: f:1 declares it, zone lan");
    let (memory, news) = run(alias, "", &memory);
    assert_eq!(news, "eth0 is outside now: f:1, a daemon's record, names it (since boot)");
    let (memory, news) = run(alias, "extif=tun0", &memory);
    assert_eq!(news, "");
    assert_eq!(run(alias, "", &memory).1, "tun0 is not outside now: nothing says so");
}

#[test]
fn a_record_that_declares_an_uplink_is_warned_of() {
    let warnings = |records: &str| {
        let zones = judge(records, "", &Memory::default(), &Have::default());
        zones.warnings(&current(records)).join("; ")
    };
    assert_eq!(warnings(LAN), "");
    assert_eq!(warnings("static if=eth0 ipmask=10.3.0.5/24 gw=10.3.0.1"), "", "it is an uplink, and says so");
    let lease = "if=eth0 ipmask=10.1.0.5/24\n";
    assert_eq!(
        warnings(&format!("{lease}static if=eth0 ipmask=10.2.0.1/24")),
        "f:1: eth0 stays outside: f:1, a daemon's record, names it"
    );
    assert_eq!(
        warnings(&format!("{lease}static if=eth0 ipmask=10.2.0.1/24 zone=lan")),
        "f:1: eth0 is inside, though it looks like an uplink: f:1, a daemon's record, names it"
    );
}

#[test]
fn a_remembered_uplink_of_an_older_version_counts() {
    let memory = Memory { uplinks: vec!["eth0".into()], ..Memory::default() };
    let zones = judge("static if=eth0 ipmask=10.0.0.1/24", "", &memory, &Have::default());
    assert_eq!(zones.outside[0].reason.to_string(), "it had a default route (since boot)");
    assert_eq!(zones.had, [("eth0".to_owned(), "it had a default route".to_owned())]);
}

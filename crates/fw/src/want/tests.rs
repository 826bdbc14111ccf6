//! Which records count, who comes first, what is outside, which switches are needed.

use std::time::Duration;

use netd_core::net::Mac;

use super::*;
use crate::have::Link;
use crate::input::lease::{Now, current};
use crate::input::policy;
use crate::model::Scope;
use crate::record::{self, Entry};
use netd_core::record::text;

/// The links of a machine: `NAME KIND [PARENT|- [MASTER]]`, separated by commas; kind `-`: a card.
pub(crate) fn have(links: &str) -> Have {
    let lines: Vec<Vec<&str>> = links.split(", ").map(|line| line.split(' ').collect()).collect();
    let index = |name: &&str| lines.iter().zip(1..).find(|(words, _)| words[0] == *name).map_or(0, |(_, index)| index);
    let link = |(words, number): (&Vec<&str>, u32)| Link {
        index: number,
        name: words[0].to_owned(),
        loopback: words[0] == "lo",
        kind: words.get(1).filter(|kind| **kind != "-").map(|kind| (*kind).to_owned()),
        parent: words.get(2).map_or(0, index),
        master: words.get(3).map_or(0, index),
        mac: Some(Mac([2, 0, 0, 0, 0, number as u8])),
        ..Link::default()
    };
    let links = lines.iter().zip(1..).filter(|(words, _)| !words[0].is_empty()).map(link).collect();
    Have { links, ..Have::default() }
}

pub(crate) fn entries(text: &str) -> Vec<Entry> {
    let mut out = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (is_static, line) = line.strip_prefix("static ").map_or((false, line), |l| (true, l));
        let fields = line.replace('=', "[$cfg]=");
        let records = text::parse(format!("let cfg=cfg+1; {fields}").as_bytes()).unwrap();
        out.push(record::read(&records[0], is_static, "f:1".into()).unwrap().0);
    }
    out
}

fn make(text: &str, policy: &str, remembered: &[&str]) -> Want {
    let (current, messages) = current(entries(text), &Now::default());
    assert_eq!(messages, [] as [&str; 0]);
    let uplinks = remembered.iter().map(ToString::to_string).collect();
    want(&current, &policy::parse(policy.as_bytes()).0, &Memory { uplinks, ..Memory::default() }, &Have::default())
}

fn metrics(want: &Want) -> Vec<String> {
    want.routes.iter().map(|r| format!("{} {} {}", r.interface, r.destination, r.metric)).collect()
}

fn switches(want: &Want) -> Vec<String> {
    want.sysctls.iter().map(|s| format!("{}={}", s.path, s.value)).collect()
}

#[test]
fn which_leases_still_count() {
    let now =
        Now { boottime: Duration::from_millis(1_000_500), wall: Duration::from_secs(50), boot_id: "abcd1234".into() };
    let table = [
        ("", Some(None)),
        ("lease_end_boottime=1010 boot_id=abcd1234", Some(Some(9))),
        // The wall clock of a router jumps: it counts only when the record has no better one.
        ("lease_end_boottime=1010 lease_end=1 boot_id=abcd1234", Some(Some(9))),
        ("lease_end=60", Some(Some(10))),
        // 1000.5 and the range of the kernel's counter: the last end that it counts down, the first
        // one that it does not.
        ("lease_end_boottime=4294968295", Some(Some(4_294_967_294))),
        ("lease_end_boottime=4294968296", Some(None)),
        ("lease_end_boottime=18446744073709551615", Some(None)),
        ("lease_end_boottime=1001", None),
        ("lease_end_boottime=1000", None),
        ("lease_end=50", None),
        ("lease_end_boottime=1010 boot_id=00000000", None),
    ];
    for (fields, left) in table {
        let (records, messages) = current(entries(&format!("if=eth0 {fields}")), &now);
        let got = records.first().map(|(_, left)| left.map(|d| d.as_secs()));
        assert_eq!(got, left, "{fields}");
        assert_eq!(messages.len(), usize::from(left.is_none()), "{fields}");
    }
}

const A: &str = "if=eth0 ipmask=10.1.0.5/24 gw=10.1.0.1\n";
const B: &str = "if=wlan0 ipmask=10.2.0.5/24 gw=10.2.0.1\n";
const STATIC: &str = "static if=ppp0 ipmask=10.3.0.5/24 gw=10.3.0.1\n";

#[test]
fn rank_of_uplinks() {
    let order = |text: &str, policy: &str, remembered: &[&str]| {
        let want = make(text, policy, remembered);
        let metric = |name: &str| want.routes.iter().find(|r| r.interface == name).map(|r| r.metric);
        ["eth0", "wlan0", "ppp0"].map(metric)
    };
    let all = format!("{STATIC}{A}{B}");
    assert_eq!(order(&all, "", &[]), [Some(200), Some(300), Some(100)]);
    assert_eq!(order(&all, "preferred_default_route_iface=wlan0", &[]), [Some(300), Some(100), Some(200)]);
    assert_eq!(order(B, "", &["eth0", "wlan0"]), [None, Some(200), None], "the place of eth0 stays free");
    assert_eq!(order(B, "preferred_default_route_iface=eth0", &[]), [None, Some(200), None]);
    assert_eq!(order("if=eth0 ipmask=10.1.0.5/24 gw=10.1.0.1 metric=7", "", &[]), [Some(7), None, None]);
}

#[test]
fn a_bad_uplink_is_demoted_where_another_can_serve() {
    let bad = "if=eth0 health=down\n";
    assert_eq!(
        metrics(&make(&format!("{A}{B}{bad}"), "", &[])),
        ["eth0 10.1.0.0/24 100", "wlan0 10.2.0.0/24 200", "eth0 0.0.0.0/0 20100", "wlan0 0.0.0.0/0 200"]
    );
    let same_network = "if=wlan0 ipmask=10.1.0.6/24 gw=10.1.0.1\n";
    assert_eq!(
        metrics(&make(&format!("{A}{same_network}{bad}"), "demote_metric=5", &[])),
        ["eth0 10.1.0.0/24 105", "wlan0 10.1.0.0/24 200", "eth0 0.0.0.0/0 105", "wlan0 0.0.0.0/0 200"]
    );
}

#[test]
fn both_verdicts_count_and_when_all_uplinks_are_bad_the_last_best_stays() {
    // The verdicts of the link watcher and of the pinger on eth0, then on wlan0: u up, d down, -
    // none. Then the metrics of their default routes. fw remembers the best one from row to row.
    let rows = [
        ("-- --", [100, 200]),
        ("ud uu", [20_100, 200]),
        ("uu uu", [100, 200]),
        ("du uu", [20_100, 200]),
        ("dd uu", [20_100, 200]),
        ("ud uu", [20_100, 200]),
        // wlan0 is bad too. It was the last best, and no further verdict moves the route.
        ("ud -d", [20_100, 200]),
        ("dd dd", [20_100, 200]),
        ("d- d-", [20_100, 200]),
        ("-d -d", [20_100, 200]),
        // eth0 is good again, and bad: now it is the last best.
        ("uu -d", [100, 20_200]),
        ("ud -d", [100, 20_200]),
        ("ud du", [100, 20_200]),
        ("ud uu", [20_100, 200]),
    ];
    let mut memory = Memory::default();
    for (row, want_metrics) in rows {
        let verdict = |name: &str, letter: char| match letter {
            'u' => format!("if={name} health=up\n"),
            'd' => format!("if={name} health=down\n"),
            _ => String::new(),
        };
        let names = ["eth0", "eth0", "wlan0", "wlan0"];
        let letters = row.chars().filter(|c| *c != ' ');
        let text = names.into_iter().zip(letters).map(|(n, l)| verdict(n, l)).collect::<String>();
        let current: Vec<_> = entries(&format!("{A}{B}{text}")).into_iter().map(|e| (e, None)).collect();
        let want = want(&current, &Policy::default(), &memory, &Have::default());
        let metric = |name: &str| want.routes.iter().find(|r| r.interface == name && r.destination.is_default());
        assert_eq!(["eth0", "wlan0"].map(|n| metric(n).unwrap().metric), want_metrics, "{row}");
        let best = want.routes.iter().filter(|r| r.destination.is_default()).min_by_key(|r| r.metric);
        memory.best = best.map(|r| r.interface.clone());
    }
    // A bad uplink without another one stays. A remembered best without a lease does not count.
    let alone = |best: &str| {
        let memory = Memory { best: Some(best.into()), ..Memory::default() };
        let text = format!("{A}{B}if=eth0 health=down\nif=wlan0 health=down");
        let current: Vec<_> = entries(&text).into_iter().map(|e| (e, None)).collect();
        let want = want(&current, &Policy::default(), &memory, &Have::default());
        want.routes.iter().map(|r| r.metric).collect::<Vec<_>>()
    };
    assert_eq!(alone("ppp0"), [100, 200, 100, 20_200]);
    assert_eq!(metrics(&make(&format!("{A}if=eth0 health=down"), "", &[]))[1], "eth0 0.0.0.0/0 100");
}

#[test]
fn uplinks_keep_their_numbers_and_what_may_become_one_has_its_own_from_the_start() {
    let numbers = |text: &str, policy: &str, remembered: &[(&str, u8)]| {
        let current: Vec<_> = entries(text).into_iter().map(|e| (e, None)).collect();
        let numbers = remembered.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        let memory = Memory { numbers, ..Memory::default() };
        let out = want(&current, &policy::parse(policy.as_bytes()).0, &memory, &Have::default()).numbers;
        out.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>()
    };
    let two = format!("{A}{B}");
    assert_eq!(numbers(A, "", &[]), ["eth0 1"]);
    assert_eq!(numbers(&two, "", &[]), ["eth0 1", "wlan0 2"]);
    assert_eq!(numbers(&two, "", &[("wlan0", 1), ("gone", 2)]), ["wlan0 1", "eth0 2"]);
    assert_eq!(numbers("", "extif='eth0 wlan0'", &[]), numbers(&two, "", &[]));
    assert_eq!(numbers(A, "preferred_default_route_iface=wlan0", &[]), ["wlan0 1", "eth0 2"]);
    // Named ones have the same numbers, whatever came first; one that came before stays as it is.
    let named = "uplinks='wwan0 eth0'\nbalance='eth0 usb0'\nmetered=wwan0";
    assert_eq!(numbers(&two, named, &[]), ["wwan0 1", "eth0 2", "usb0 3", "wlan0 4"]);
    assert_eq!(numbers(A, named, &[]), ["wwan0 1", "eth0 2", "usb0 3"]);
    assert_eq!(numbers(A, named, &[("eth0", 1)]), ["eth0 1", "wwan0 2", "usb0 3"]);
    let damaged = [("eth0", 0), ("eth0", 3), ("wlan0", 3), ("eth0", 4)];
    assert_eq!(numbers(&two, "", &damaged), ["eth0 3", "wlan0 1"]);
}

#[test]
fn routes_with_the_same_key_get_different_metrics_and_twins_are_one() {
    let twice = format!("{A}if=eth0 ipmask=10.1.0.9/24 gw=10.1.0.1\nif=eth0 gw=10.1.0.254\n");
    assert_eq!(metrics(&make(&twice, "", &[])), ["eth0 10.1.0.0/24 100", "eth0 0.0.0.0/0 100", "eth0 0.0.0.0/0 101"]);
}

#[test]
fn gateways_outside_every_prefix_are_on_the_link() {
    let onlink = |text: &str| make(text, "", &[]).routes.iter().filter(|r| r.onlink).count();
    assert_eq!(onlink(A), 0);
    assert_eq!(onlink("if=eth0 ipmask=10.1.0.5/32 gw=10.1.0.5"), 1);
    assert_eq!(onlink("if=eth0 ipmask=10.1.0.5/24 gw=10.9.0.1"), 1);
    assert_eq!(onlink("if=eth0 ipmask=2001:db8::5/64 gw=fe80::1"), 0);
}

#[test]
fn the_loopback_is_the_kernels_business() {
    let want = make("static if=lo ip=127.0.0.1 ipmask=127.0.0.1/8\nstatic if=lo ipmask=::1/128", "", &[]);
    assert_eq!(want.routes, []);
    assert!(want.addresses.iter().all(|a| a.kernel_prefix_route && a.scope == Scope::Host && a.broadcast.is_none()));
    assert_eq!(switches(&want), ["net/ipv4/ip_forward=1"]);
}

#[test]
fn switches_only_where_they_are_needed() {
    let of = |name: &str, key: &str, value: &str| format!("net/ipv4/conf/{name}/{key}={value}");
    let one = switches(&make(A, "forward=no", &[]));
    assert_eq!(one, [of("eth0", "ignore_routes_with_linkdown", "1"), of("eth0", "promote_secondaries", "1")]);
    let two = switches(&make(&format!("{A}{B}"), "", &[]));
    assert!(two.contains(&of("eth0", "rp_filter", "2")) && two.contains(&of("wlan0", "rp_filter", "2")), "{two:?}");
    assert!(!two.iter().any(|s| s.contains("arp_") || s.contains("ipv6")), "{two:?}");
    let shared = switches(&make(&format!("{A}if=wlan0 ipmask=10.1.0.6/24"), "", &[]));
    assert!(shared.contains(&of("wlan0", "arp_ignore", "1")) && shared.contains(&of("eth0", "arp_announce", "2")));
    let v6 = switches(&make("if=eth0 ipmask=2001:db8::5/64 gw=fe80::1", "", &[]));
    assert!(v6.contains(&"net/ipv6/conf/all/forwarding=1".to_owned()), "{v6:?}");
    assert!(v6.contains(&"net/ipv6/conf/eth0/ignore_routes_with_linkdown=1".to_owned()), "{v6:?}");
}

#[test]
fn three_and_more_in_their_order_with_metered_ones_at_last() {
    let three = format!("{A}\n{B}\nif=usb0 ipmask=10.3.0.5/24 gw=10.3.0.1");
    let places = |policy: &str, remembered: &[&str]| {
        let want = make(&three, policy, remembered);
        let is_its = |r: &&WantRoute, name| r.interface == name && r.destination.is_default();
        ["eth0", "wlan0", "usb0"].map(|name| want.routes.iter().find(|r| is_its(r, name)).map_or(0, |r| r.metric))
    };
    assert_eq!(places("", &[]), [100, 300, 200], "by name");
    assert_eq!(places("metered=usb0", &[]), [100, 200, 300]);
    assert_eq!(places("metered='eth0 usb0'", &[]), [200, 100, 300]);
    assert_eq!(places("uplinks='wlan0 usb0 eth0'", &[]), [300, 100, 200]);
    assert_eq!(places("uplinks='wlan0 usb0 eth0'\npreferred_default_route_iface=eth0", &[]), [100, 200, 300]);
    // One without a lease keeps its place free; metered ones come after those that are not there
    // yet.
    assert_eq!(places("uplinks='wwan0 wlan0'\nmetered=eth0", &[]), [400, 200, 300]);
    assert_eq!(places("uplinks='usb0'\nmetered='usb0 eth0'", &["zzz0"]), [400, 200, 100]);
}

#[test]
fn connections_are_spread_over_what_works() {
    let shares = |records: &str, policy: &str| {
        let want = make(records, policy, &[]);
        want.balance.iter().map(|(name, weight)| format!("{name}:{weight}")).collect::<Vec<_>>().join(" ")
    };
    let balance = "balance='eth0:2 wlan0 usb0:5'";
    let two = format!("{A}\n{B}");
    assert_eq!(shares(&two, balance), "eth0:2 wlan0:1");
    assert_eq!(shares(&format!("{two}\nif=wlan0 health=down"), balance), "eth0:2");
    let both = "if=wlan0 health=down\nif=eth0 health=down";
    assert_eq!(shares(&format!("{two}\n{both}"), balance), "eth0:2", "the one that stays when all are bad");
    assert_eq!(shares("", balance), "");
    let notes = |policy: &str| make("", policy, &[]).notes;
    let said = notes(&format!("{balance}\nfirewall=no"));
    assert!(said.iter().any(|n| n.contains("balance needs")), "{said:?}");
    assert_eq!(notes(balance), [] as [&str; 0]);
}

//! The table of each use case, as it is shipped to nft.

use super::super::parts::{Inserts, Marking};
use super::*;
use crate::input::memory::Memory;
use crate::input::policy;
use crate::input::policy::Policy;
use crate::want::tests::{entries, have};
use crate::want::{Want, want};

/// The wishes of these records (`static` at the head of the administrator's), words and links.
fn wishes(records: &str, words: &str, links: &str) -> (Want, Policy) {
    let (policy, errors) = policy::parse(words.as_bytes());
    assert_eq!(errors, []);
    let current: Vec<_> = entries(records).into_iter().map(|entry| (entry, None)).collect();
    let want = want(&current, &policy, &Memory::default(), &have(links));
    assert_eq!(want.zones.errors, [] as [&str; 0]);
    (want, policy)
}

fn table(records: &str, words: &str, links: &str) -> Option<String> {
    let (want, policy) = wishes(records, words, links);
    table_of(&want, &policy, &Inserts::default())
}

fn table_of(want: &Want, policy: &Policy, inserts: &Inserts) -> Option<String> {
    let marking = Marking::of(want);
    render(&Parts { zones: &want.zones, marking: &marking, policy, openings: &want.openings, inserts })
}

const ETH0: &str = "if=eth0 ipmask=10.1.0.5/24 gw=10.1.0.1\n";
const WLAN0: &str = "if=wlan0 ipmask=10.2.0.5/24 gw=10.2.0.1\n";
const LAN: &str = "static if=lan0 ipmask=192.168.1.1/24\n";
const GUEST: &str = "static if=lan1 ipmask=192.168.2.1/24 zone=guest\n";

/// Records, fw.conf, links and the golden file.
const CASES: [(&str, &[&str], &str, &str); 7] = [
    // A laptop between wire and radio, with containers of its own.
    ("laptop", &[ETH0, WLAN0], "", "eth0 -, wlan0 -, docker0 bridge, veth1 veth, eth0.5 vlan eth0"),
    // The kernel has not shown any link yet.
    ("first_boot", &[], "", "eth0 -, eth1 -"),
    (
        "home_router",
        &[ETH0, WLAN0, LAN, GUEST],
        "ext_open_tcp='22 8000-9000'\next_open='udp/500 esp tcp/25@203.0.113.0/24 proto/41@2001:db8::/32'\n\
         zone_guest_router='dhcp dns ping tcp/80'\nlog_drops='10/minute'\nflow_offload='yes'\nbalance='eth0:2 wlan0:1'",
        "eth0 -, wlan0 -, lan0 -, lan1 -, tun0 tun",
    ),
    // Zones that know each other.
    (
        "zones",
        &[ETH0, LAN, GUEST, "static if=lan2 ipmask=192.168.3.1/24 zone=dmz\n"],
        "zone_guest_to='outside dmz'\nzone_dmz_to=''\nzone_dmz_router='ntp'\nzone_lan_router='dhcp dns ping tcp/22'",
        "eth0 -, lan0 veth, lan1 veth, lan2 veth, v0.7 vlan lan0",
    ),
    // Virtual machines on the uplink's own bridge.
    ("bridge", &["if=br0 ipmask=192.0.2.100/24 gw=192.0.2.1\n"], "", "br0 bridge, eth0 - - br0, tap0 tun - br0"),
    // Hosts behind it are open to the outside and to the LAN, and not to a guest who may go
    // nowhere.
    (
        "doors",
        &[ETH0, "static if=lan0 ipmask=10.0.0.1/24\n", "static if=guest0 ipmask=10.0.2.1/24 zone=guest\n"],
        "port_forward='tcp/8080>10.0.0.50:80 udp/5060-5070@203.0.113.0/24>10.0.0.60 tcp/9000-9001>10.0.0.60:1-2'\n\
         open6='tcp/443>lan0::5 udp/500-501@2001:db8::/32>lan0::5'\nzone_guest_to=''",
        "eth0 -, lan0 -, guest0 -",
    ),
    (
        "closed",
        &["if=eth0.5 ipmask=10.1.0.5/24 gw=10.1.0.1\n"],
        "forward=no\next_open_udp=51820\nmasquerade='192.168.1.0/24 fd00::/8'\nunlisted=closed",
        "eth0 -, eth0.5 vlan eth0",
    ),
];

#[test]
fn the_table_of_each_use_case() {
    for (name, records, words, links) in CASES {
        let path = format!("{}/tests/golden/{name}.nft", env!("CARGO_MANIFEST_DIR"));
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(table(&records.concat(), words, links).unwrap(), golden, "{path}");
    }
}

#[test]
fn firewall_no_means_no_table() {
    assert_eq!(table(ETH0, "firewall=no", "eth0 -"), None);
}

#[test]
fn a_transaction_makes_the_table_or_replaces_it() {
    assert_eq!(transaction("x", true), "table inet netsv\ndelete table inet netsv\nx");
    assert_eq!(transaction("x", false), "create table inet netsv\nx");
}

#[test]
fn the_first_lease_of_a_card_changes_no_text() {
    let links = "eth0 -, wlan0 -, lan0 -, docker0 bridge";
    let boot = table(LAN, "", links);
    assert_eq!(table(&[LAN, ETH0].concat(), "", links), boot);
    assert_eq!(table(&[LAN, ETH0, WLAN0, "if=wlan0 health=down"].concat(), "", links), boot);
    // A container's link comes and goes.
    assert_eq!(table(LAN, "", &format!("{links}, veth1 veth - docker0")), boot);
}

#[test]
fn every_rule_has_its_place_and_no_table_has_a_set() {
    let list = |name: &str| vec![format!("counter comment \"{name}\"")];
    let (want, policy) = wishes(&[ETH0, LAN, GUEST].concat(), "", "eth0 -");
    let inserts = Inserts {
        defines: "define x = 1\n".to_owned(),
        text: "# mine\n".to_owned(),
        before_input: list("before_input"),
        after_input: list("after_input"),
        before_forward: list("before_forward"),
        after_forward: list("after_forward"),
        before_prerouting: list("before_prerouting"),
        after_prerouting: list("after_prerouting"),
        before_postrouting: list("before_postrouting"),
        after_postrouting: list("after_postrouting"),
    };
    let text = table_of(&want, &policy, &inserts).unwrap();
    for (name, times) in [
        ("before_input", 1),
        ("after_input", 2),
        ("before_forward", 1),
        ("after_forward", 2),
        ("before_prerouting", 1),
        ("after_prerouting", 1),
        ("before_postrouting", 1),
        ("after_postrouting", 1),
    ] {
        assert_eq!(text.matches(&format!("comment \"{name}\"")).count(), times, "{name}");
    }
    let sets = CASES.map(|(_, records, words, links)| table(&records.concat(), words, links).unwrap());
    let has_set = |line: &str| line.contains('{') && !line.starts_with("\tchain ") && !line.starts_with("table ");
    let is_flowtable = |line: &str| line.contains("flowtable ") || line.contains("devices = ");
    assert!(sets.iter().flat_map(|text| text.lines()).all(|line| !has_set(line) || is_flowtable(line)));
}

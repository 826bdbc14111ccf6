//! Bridges, VLANs, Ethernet addresses: tables, and a kernel that forgets nothing under random
//! records and under other programs.

use std::collections::BTreeSet;

use netd_core::net::{AddrGen, Mac};

use super::*;
use crate::model::GROUP;

/// What the kernel does when a link is deleted.
pub(super) fn vanish(have: &mut Have, index: u32) {
    let above: Vec<u32> =
        have.links.iter().filter(|l| l.vlan.is_some() && l.parent == index).map(|l| l.index).collect();
    have.links.retain(|l| l.index != index);
    have.links.iter_mut().filter(|l| l.master == index).for_each(|l| l.master = 0);
    have.addresses.retain(|a| a.index != index);
    have.routes.retain(|r| r.index != index);
    above.into_iter().for_each(|index| vanish(have, index));
}

pub(super) fn edit(have: &mut Have, index: u32, change: impl FnOnce(&mut Link)) {
    change(have.links.iter_mut().find(|l| l.index == index).expect("the link is there"));
}

fn mac(last: u8) -> Option<Mac> {
    Some(Mac([2, 0, 0, 0, 0, last]))
}

/// eth0, eth1 and three ports, all of them cards.
fn router() -> Have {
    let links = ["lo", "eth0", "eth1", "lan0", "lan1", "lan2"].iter().zip(1..).map(|(name, index)| Link {
        mac: mac(u8::try_from(index).unwrap()),
        addr_gen: Some(AddrGen::Eui64),
        max_mtu: 9000,
        carrier: *name != "lan2",
        ..link(index, name)
    });
    Have { links: links.collect(), ..Have::default() }
}

/// A kernel and the memory of fw.
struct World {
    have: Have,
    memory: Memory,
}

impl World {
    fn new() -> World {
        World { have: router(), memory: Memory::default() }
    }

    /// Applies the records step by step, checks each step, and returns the lines.
    #[track_caller]
    fn apply(&mut self, text: &str) -> Vec<String> {
        let want = want(text);
        let before = self.have.clone();
        let plan = plan(&want, &self.have, &self.memory);
        let after = plan.changes.iter().fold(self.have.clone(), |mut have, change| {
            step(&mut have, change);
            have
        });
        // A link that is made anew takes its addresses along.
        let names = |c: &Change| match c {
            Change::DelLink { name, .. } => Some(name.clone()),
            _ => None,
        };
        let gone: Vec<String> = plan.changes.iter().filter_map(names).collect();
        let is_anew =
            plan.changes.iter().any(|c| matches!(c, Change::AddLink { link, .. } if gone.contains(&link.name)));
        for change in &plan.changes {
            possible(change, &self.have);
            step(&mut self.have, change);
            let lost: Vec<IpAddr> = ips(&before).intersection(&ips(&after)).copied().collect();
            let lost: Vec<&IpAddr> = lost.iter().filter(|ip| !ips(&self.have).contains(ip)).collect();
            assert!(lost.is_empty() || is_anew, "{change} leaves nothing with {lost:?}\n{text}");
        }
        self.killed(&want, &plan, &before, text);
        self.memory = Memory::parse(&plan.memory.render());
        assert_eq!(self.memory, plan.memory, "the memory is written and read");
        let second = super::super::plan(&want, &self.have, &self.memory);
        assert_eq!((second.changes, second.memory), (vec![], self.memory.clone()), "second plan\n{text}");
        plan.changes.iter().map(ToString::to_string).collect()
    }

    /// fw is killed after each of its steps, and the next run makes the same of what it finds.
    #[track_caller]
    fn killed(&self, want: &Want, plan: &Plan, before: &Have, text: &str) {
        let memory = plan.memory.beside(&self.memory);
        for steps in 0..plan.changes.len() {
            let mut have = before.clone();
            plan.changes.iter().take(steps).for_each(|change| step(&mut have, change));
            let again = super::super::plan(want, &have, &memory);
            for change in &again.changes {
                possible(change, &have);
                step(&mut have, change);
            }
            let lines: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
            assert_eq!(shape(&have), shape(&self.have), "killed after {steps} of {lines:#?}\n{text}");
            assert_eq!(again.memory.links, plan.memory.links, "killed after {steps} of {lines:#?}\n{text}");
        }
    }

    #[track_caller]
    fn links_of(&mut self, text: &str) -> Vec<String> {
        self.apply(text).into_iter().filter(|l| l.contains(" link ")).collect()
    }

    fn link(&mut self, name: &str) -> &mut Link {
        self.have.links.iter_mut().find(|l| l.name == name).unwrap()
    }
}

/// Addresses that something has, whichever link it is.
fn ips(have: &Have) -> BTreeSet<IpAddr> {
    have.addresses.iter().map(|a| a.address.ip).collect()
}

/// The links and who has which address, without the numbers of links.
fn shape(have: &Have) -> (BTreeSet<String>, BTreeSet<String>) {
    let link = |l: &Link| {
        let master = have.link_at(l.master).map(|m| m.name.as_str());
        let parent = have.link_at(l.parent).map(|m| m.name.as_str());
        format!(
            "{} {:?} {master:?} {parent:?} {:?} {:?} {:?} {} {} {}",
            l.name, l.kind, l.vlan, l.mac, l.addr_gen, l.mtu, l.group, l.up
        )
    };
    let address = |a: &Address| format!("{} {}", have.name(a.index), a.address);
    (have.links.iter().map(link).collect(), have.addresses.iter().map(address).collect())
}

/// What the kernel would refuse, and what fw must not touch.
#[track_caller]
fn possible(change: &Change, have: &Have) {
    let at = |index: u32| have.link_at(index).unwrap_or_else(|| panic!("{change}: no link {index}"));
    match change {
        Change::AddLink { link, .. } => {
            assert!(have.link(&link.name).is_none() && have.link_at(link.index).is_none(), "{change}: is there");
            assert!(link.vlan.is_none() || have.link_at(link.parent).is_some(), "{change}: without its parent");
            assert_eq!(link.group, GROUP);
        }
        Change::DelLink { index, .. } => {
            assert_eq!(at(*index).group, GROUP, "{change}: not ours");
            assert!(!have.links.iter().any(|l| l.master == *index && l.group != GROUP), "{change}: a foreign port");
        }
        Change::LinkMaster { index, master, .. } if *master != 0 => {
            let (port, bridge) = (at(*index), at(*master));
            assert_eq!(bridge.kind.as_deref(), Some("bridge"), "{change}");
            assert!(bridge.up && port.up, "{change}: down");
            assert!(port.master == 0 || port.group == GROUP || port.master == *master, "{change}: stolen");
        }
        Change::LinkUp { index, .. } if at(*index).vlan.is_some() => {
            assert!(at(at(*index).parent).up, "{change}: before its parent");
        }
        Change::LinkMtu { index, mtu, .. } => {
            let link = at(*index);
            assert!(link.max_mtu == 0 || *mtu <= link.max_mtu, "{change}: more than the driver takes");
            assert!(link.vlan.is_none() || *mtu <= at(link.parent).mtu, "{change}: more than its parent has");
        }
        Change::AddAddress(_, a) => assert!(at(a.index).up, "{change}: before its link is up"),
        Change::AddRoute(_, r) | Change::ReplaceRoute(_, r) if r.unicast => {
            assert!(at(r.index).up, "{change}: link is down")
        }
        Change::DelAddress(_, a) => drop(at(a.index)),
        _ => {}
    }
}

const LAN: &str = "static if=lan0 ipmask=192.168.5.1/24";
const BRIDGED: &str = "static if=br0 ipmask=192.168.5.1/24 bridge='lan0 lan1'";

#[test]
fn a_port_in_use_goes_into_a_bridge_and_comes_back() {
    let mut world = World::new();
    world.apply(LAN);
    let lines = without_switches(world.apply(BRIDGED));
    assert_eq!(
        lines,
        [
            "+ link br0 bridge",
            "~ link br0 up",
            "+ address 192.168.5.1/24 dev br0 valid_lft forever",
            "~ link br0 knows the neighbours of lan0",
            "~ link lan0 master br0",
            "~ link lan1 master br0",
            "- route 192.168.5.0/24 dev lan0 metric 0 src 192.168.5.1",
            "- address 192.168.5.1/24 dev lan0",
        ]
    );
    let bridge = world.link("br0").clone();
    assert_eq!((bridge.mac, bridge.index), (mac(4), 213_000), "the address of its first port");
    let lines = without_switches(world.apply(LAN));
    assert_eq!(
        lines,
        [
            "+ address 192.168.5.1/24 dev lan0 valid_lft forever",
            "~ link lan0 knows the neighbours of br0",
            "- route 192.168.5.0/24 dev br0 metric 0 src 192.168.5.1",
            "~ link lan0 nomaster",
            "~ link lan1 nomaster",
            "- address 192.168.5.1/24 dev br0",
            "- link br0",
        ]
    );
    assert!(world.have.links.iter().all(|l| l.group == 0), "{:?}", world.have.links);
}

#[test]
fn ports_come_and_go_and_the_address_of_the_bridge_stays() {
    let mut world = World::new();
    let gone: Vec<Link> = world.have.links.extract_if(4.., |_| true).collect();
    vanish(&mut world.have, 4);
    let plan = plan(&want(BRIDGED), &world.have, &world.memory);
    let missing = ["lan0", "lan1"].map(|name| format!("f:1: no interface {name} yet: the next run looks again"));
    assert_eq!(plan.notes, missing);
    // It is made all the same, and takes over the address of the first port that appears.
    assert_eq!(world.links_of(BRIDGED), ["+ link br0 bridge", "~ link br0 up"]);
    world.link("br0").mac = mac(99);
    world.have.links.extend(gone);
    let joined = ["~ link br0 mac 02:00:00:00:00:05", "~ link lan1 master br0"];
    assert_eq!(world.links_of(BRIDGED), joined);
    let lan0 = Link { carrier: true, mac: mac(4), addr_gen: Some(AddrGen::Eui64), ..link(20, "lan0") };
    world.have.links.push(lan0);
    assert_eq!(world.links_of(BRIDGED), ["~ link lan0 master br0"], "it keeps what it has");
    assert_eq!(world.links_of(&BRIDGED.replace(" lan1", "")), ["~ link lan1 nomaster"]);
    // The one with carrier goes first.
    assert_eq!(
        World::new().links_of(&BRIDGED.replace("lan0 lan1", "lan2 lan1")),
        ["+ link br0 bridge", "~ link br0 up", "~ link lan1 master br0", "~ link lan2 master br0"]
    );
}

#[test]
fn a_foreign_bridge_is_used_and_stays_with_its_ports() {
    let mut world = World::new();
    let foreign = Link { kind: Some("bridge".into()), mac: mac(50), ..link(50, "br0") };
    world.have.links.push(foreign.clone());
    world.link("lan2").master = 50;
    assert_eq!(world.links_of(BRIDGED), ["~ link lan0 master br0", "~ link lan1 master br0"]);
    // /run is lost: what is a port stays one.
    let memory = std::mem::take(&mut world.memory);
    assert_eq!(world.links_of(BRIDGED), [] as [&str; 0]);
    world.memory = memory;
    assert_eq!(world.links_of(""), ["~ link lan0 nomaster", "~ link lan1 nomaster"]);
    assert_eq!((world.link("br0").clone(), world.link("lan2").master), (foreign, 50));
}

#[test]
fn another_programs_port_keeps_a_bridge_of_ours_and_its_card_is_not_taken() {
    let mut world = World::new();
    world.apply(BRIDGED);
    let tap = Link { kind: Some("tun".into()), master: 213_000, ..link(60, "vnet0") };
    world.have.links.push(tap);
    assert_eq!(world.links_of(BRIDGED), [] as [&str; 0]);
    let notes = plan(&want(""), &world.have, &world.memory).notes;
    assert_eq!(notes, ["link br0 stays: vnet0 needs it"]);
    assert_eq!(world.links_of(""), ["~ link lan0 nomaster", "~ link lan1 nomaster"]);
    vanish(&mut world.have, 60);
    assert_eq!(world.links_of(""), ["- link br0"]);

    let mut world = World::new();
    world.have.links.push(Link { kind: Some("bond".into()), ..link(61, "bond0") });
    world.link("lan1").master = 61;
    let notes = plan(&want(BRIDGED), &world.have, &world.memory).notes;
    assert_eq!(notes, ["f:1: lan1 is a part of bond0, of another program: left there"]);
    world.apply(BRIDGED);
    assert_eq!(world.link("lan1").master, 61);
}

#[test]
fn ours_is_known_by_its_group_without_memory_and_by_memory_without_group() {
    let mut world = World::new();
    world.apply(BRIDGED);
    // /run is lost, and the record changes before the next run.
    world.memory = Memory::default();
    assert_eq!(world.links_of(&BRIDGED.replace(" lan1", "")), ["~ link lan1 nomaster"]);
    // An administrator gives the port a group of his own.
    world.link("lan0").group = 7;
    assert_eq!(
        world.links_of("static if=br0 ipmask=192.168.5.1/24 bridge=lan2"),
        ["~ link lan2 master br0", "~ link lan0 nomaster"]
    );
    assert_eq!(world.link("lan0").group, 7);
    // He takes the bridge over: it stays.
    world.link("br0").group = 7;
    assert_eq!(world.links_of(""), ["~ link lan2 nomaster"]);
    assert_eq!(world.links_of(BRIDGED), ["~ link lan0 master br0", "~ link lan1 master br0"]);
    // He moves a port: while a record says so it comes back, then it stays where it is.
    let mut world = World::new();
    world.apply(BRIDGED);
    world.have.links.push(Link { kind: Some("bridge".into()), ..link(50, "br9") });
    world.link("lan1").master = 50;
    assert_eq!(world.links_of("static if=br0 bridge=lan0"), ["~ link lan1 master br9"], "its group goes");
    assert_eq!((world.link("lan1").master, world.link("lan1").group), (50, 0));
    // A new name is none of a record.
    let mut world = World::new();
    world.apply(BRIDGED);
    world.link("br0").name = "mine".into();
    let lines = world.links_of(BRIDGED);
    assert_eq!(lines.last().map(String::as_str), Some("- link mine"), "{lines:?}");
}

#[test]
fn a_vlan_is_made_on_its_link_and_made_anew_when_that_is_another() {
    let mut world = World::new();
    let text = "static if=wan7 vlan=7 link=eth0\nif=wan7 ipmask=10.1.0.5/24 gw=10.1.0.1";
    world.link("eth0").up = false;
    assert_eq!(world.links_of(text), ["+ link wan7 vlan 7 link eth0", "~ link eth0 up", "~ link wan7 up"]);
    assert_eq!((world.link("wan7").parent, world.link("wan7").mac), (2, mac(2)));
    // Replugged: the kernel has taken the VLAN along.
    vanish(&mut world.have, 2);
    let notes = plan(&want(text), &world.have, &world.memory).notes;
    assert_eq!(notes[0], "f:1: no interface wan7 yet: the next run looks again");
    world.have.links.push(Link { addr_gen: Some(AddrGen::Eui64), mac: mac(2), ..link(30, "eth0") });
    assert_eq!(world.links_of(text), ["+ link wan7 vlan 7 link eth0", "~ link wan7 up"]);
    assert_eq!(world.link("wan7").parent, 30);
    // Another number, another link: the old one goes first, for its name.
    for other in ["vlan=8 link=eth0", "vlan=8 link=eth1", "bridge=lan0"] {
        let lines = world.links_of(&text.replace("vlan=7 link=eth0", other));
        assert_eq!(lines[0], "- link wan7", "{other}: {lines:?}");
        assert!(lines[1].starts_with("+ link wan7 "), "{other}: {lines:?}");
    }
    assert_eq!(world.links_of(""), ["~ link lan0 nomaster", "- link wan7"]);
    // A VLAN of a VLAN of a bridge, in any order of the records.
    let text = "static if=b vlan=6 link=a\nstatic if=a vlan=5 link=br0\nstatic if=br0 bridge=lan0";
    let lines = world.links_of(text);
    assert_eq!(lines[..3], ["+ link br0 bridge", "+ link a vlan 5 link br0", "+ link b vlan 6 link a"]);
    assert_eq!(world.links_of("").iter().filter(|l| l.starts_with("- link")).count(), 3);
}

#[test]
fn a_link_of_another_kind_keeps_its_name() {
    let mut world = World::new();
    for (text, note) in [
        ("static if=eth1 bridge=lan0", "f:1: eth1 is there and is no bridge: left alone"),
        ("static if=eth1 vlan=5 link=eth0", "f:1: eth1 is there and is no VLAN 5 of eth0: left alone"),
    ] {
        assert_eq!(plan(&want(text), &world.have, &world.memory).notes, [note]);
        assert_eq!(world.links_of(text), [] as [&str; 0]);
    }
}

#[test]
fn addresses_and_modes_are_set_and_given_back() {
    let mut world = World::new();
    world.link("eth0").up = false;
    let text = "static if=eth0 ipmask=10.0.0.5/24 mac=02:00:00:00:00:77 addr_gen=none";
    assert_eq!(
        world.links_of(text),
        ["~ link eth0 mac 02:00:00:00:00:77", "~ link eth0 addr_gen none", "~ link eth0 up"]
    );
    assert_eq!(
        world.links_of("static if=eth0 ipmask=10.0.0.5/24 mac=02:00:00:00:00:78"),
        ["~ link eth0 mac 02:00:00:00:00:78", "~ link eth0 addr_gen eui64"]
    );
    assert_eq!(world.links_of(""), ["~ link eth0 mac 02:00:00:00:00:02"]);
    // Another program has changed it since: that stays.
    world.apply(text);
    (world.link("eth0").mac, world.link("eth0").addr_gen) = (mac(9), Some(AddrGen::Random));
    assert_eq!(world.links_of(""), [] as [&str; 0]);
    // A bridge gets what its first port has, or what is asked for.
    let text = "static if=br0 bridge='lan0 lan1' mac=02:00:00:00:00:79\nstatic if=lan0 mac=02:00:00:00:00:78";
    world.apply(text);
    assert_eq!(world.link("br0").mac, mac(0x79));
    assert_eq!(world.links_of(&text.replace(" mac=02:00:00:00:00:79", "")), ["~ link br0 mac 02:00:00:00:00:78"]);
}

#[test]
fn an_administrator_raises_an_mtu_as_far_as_driver_and_parent_go() {
    let mut world = World::new();
    for (text, mtu) in [
        ("static if=eth0 mtu=2000", 2000),
        ("static if=eth0 mtu=65000", 9000),
        ("static if=eth0 mtu=2000\nif=eth0 ipmask=10.1.0.5/24 mtu=1400", 1400),
        ("static if=eth0 mtu=2000\nif=eth0 ipmask=10.1.0.5/24 mtu=1800", 1800),
        ("static if=eth0 mtu=2000\nif=eth0 ipmask=10.1.0.5/24", 2000),
        ("if=eth0 ipmask=10.1.0.5/24 mtu=9000", 1500),
        ("", 1500),
    ] {
        world.apply(text);
        assert_eq!(world.link("eth0").mtu, mtu, "{text}");
    }
    let vlan = "static if=v vlan=5 link=eth0\n";
    for (text, eth0, v) in [
        ("static if=v mtu=1508\nstatic if=eth0 mtu=1512", 1512, 1508),
        ("static if=v mtu=1508", 1500, 1500),
        ("static if=eth0 mtu=1400", 1400, 1400),
        ("static if=v mtu=1300", 1500, 1300),
        ("", 1500, 1500),
    ] {
        world.apply(&format!("{vlan}{text}"));
        assert_eq!((world.link("eth0").mtu, world.link("v").mtu), (eth0, v), "{text}");
    }
    let notes = plan(&want(&format!("{vlan}static if=v mtu=1508")), &world.have, &world.memory).notes;
    assert_eq!(notes, ["f:1: v can have an MTU of 1500 only"]);
}

#[test]
fn a_port_with_an_address_is_an_error_and_what_is_in_force_stays() {
    let both = format!("{BRIDGED}\n{LAN}");
    let wishes = want(&both);
    assert_eq!(
        wishes.errors,
        ["f:1: an address of lan0, which is a port of br0 (f:1): give it to br0; until then nothing changes"]
    );
    let mut world = World::new();
    world.apply(LAN);
    world.apply(&both);
    assert!(world.have.addresses.iter().any(|a| a.index == 4), "the LAN is as it was");
    assert_eq!((world.link("lan0").master, world.link("lan1").master), (0, 213_000));
    let mut world = World::new();
    world.apply(BRIDGED);
    assert_eq!(world.apply(&both), [] as [&str; 0], "the bridge is as it was");
    // A lease on a port is left out.
    let leased = format!("{BRIDGED}\nif=lan0 ipmask=10.1.0.5/24 gw=10.1.0.1");
    assert_eq!(want(&leased).notes, ["f:1: lan0 is a port of br0: left out"]);
    assert_eq!(world.apply(&leased).iter().filter(|l| l.contains("10.1.0")).count(), 0);
}

#[test]
fn random_records_and_other_programs() {
    let pool = [
        BRIDGED,
        LAN,
        "static if=br0 ipmask=192.168.5.1/24",
        "static if=br0 bridge='lan1 lan2'",
        "static if=br1 ipmask=192.168.6.1/24 bridge='lan2 eth1'",
        "static if=wan7 vlan=7 link=eth0",
        "if=wan7 ipmask=10.1.0.5/24 gw=10.1.0.1",
        "if=br1 ipmask=10.2.0.5/24 gw=10.2.0.1",
        "static if=v vlan=9 link=br0 mtu=1600",
        "static if=v ipmask=2001:db8::5/64 addr_gen=none",
        "static if=lan2 mac=02:00:00:00:00:77 mtu=2000",
        "static if=lan0 mtu=1400",
        "static if=x vlan=3 link=y",
        "static if=y vlan=3 link=x",
        "static if=gone vlan=3 link=nowhere",
        "static if=eth0 mtu=1600 mac=02:00:00:00:00:78",
        "if=eth0 ipmask=10.3.0.5/24 gw=10.3.0.1 mtu=1300",
    ];
    let mut rng = random(0x6272_3030);
    let mut world = World::new();
    for _ in 0..1500 {
        let bits = rng();
        other_program(&mut world, bits >> 20);
        let lines = pool.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        let text: Vec<&str> = lines.map(|(_, line)| *line).collect();
        let foreign =
            |w: &World| -> Vec<Link> { w.have.links.iter().filter(|l| l.name.starts_with("their")).cloned().collect() };
        let before = foreign(&world);
        world.apply(&text.join("\n"));
        assert_eq!(foreign(&world), before, "{text:?}");
    }
}

/// What happens between two runs.
fn other_program(world: &mut World, bits: u32) {
    let replug = |world: &mut World, name: &str| {
        if let Some(link) = world.have.link(name).cloned() {
            vanish(&mut world.have, link.index);
            let index = world.have.links.iter().map(|l| l.index).filter(|i| *i < 213_000).max().unwrap_or(0) + 1;
            let fresh = router().link(name).cloned();
            world.have.links.extend(fresh.map(|fresh| Link { index, ..fresh }));
        }
    };
    let next = world.have.links.iter().map(|l| l.index).filter(|i| *i < 213_000).max().unwrap_or(0) + 1;
    match bits % 12 {
        0 => replug(world, "eth0"),
        1 => replug(world, "lan0"),
        2 => replug(world, "lan2"),
        3 => world.memory = Memory { links: Default::default(), mtus: Vec::new(), ..world.memory.clone() },
        4 if world.have.link("their0").is_none() => {
            let master = world.have.link("br0").map_or(0, |l| l.index);
            world.have.links.push(Link { kind: Some("tun".into()), master, ..link(next, "their0") });
        }
        5 => {
            let index = world.have.link("their0").map(|l| l.index);
            index.into_iter().for_each(|index| vanish(&mut world.have, index));
        }
        6 if world.have.link("their1").is_none() => {
            world.have.links.push(Link { kind: Some("bridge".into()), mac: mac(90), ..link(next, "their1") });
        }
        7 => {
            let index = world.have.link("their1").map(|l| l.index);
            let port = world.have.links.iter_mut().find(|l| l.name == "lan1");
            if let (Some(index), Some(port)) = (index, port) {
                port.master = index;
            }
        }
        8 => {
            let index = world.have.link("br0").map(|l| l.index);
            index.into_iter().for_each(|index| vanish(&mut world.have, index));
        }
        9 => world.have.links.iter_mut().filter(|l| l.name == "lan2").for_each(|l| l.master = 0),
        _ => {}
    }
}

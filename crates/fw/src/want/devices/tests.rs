use super::*;
use crate::have::Have;
use crate::input::lease::{Now, current};
use crate::input::memory::Memory;
use crate::input::policy::Policy;
use crate::record;
use netd_core::record::text;

/// Each line is a static record; its number is its place.
fn make(lines: &[&str]) -> Want {
    let entries = lines.iter().zip(1..).map(|(line, number)| {
        let text = format!("let cfg=cfg+1; {}", line.replace('=', "[$cfg]="));
        record::read(&text::parse(text.as_bytes()).unwrap()[0], true, format!("f:{number}")).unwrap().0
    });
    let (current, _) = current(entries.collect(), &Now::default());
    crate::want::want(&current, &Policy::default(), &Memory::default(), &Have::default())
}

#[test]
fn a_bridge_names_its_ports_and_a_vlan_the_link_that_carries_it() {
    let want = make(&["if=br0 bridge='lan0 lan1'", "if=wan7 vlan=7 link=eth0", "if=lan1 mtu=1400"]);
    let shown = |l: &WantLink| {
        let kind = match l.kind.as_ref().map(|k| &k.value) {
            Some(WantKind::Bridge) => "bridge".to_owned(),
            Some(WantKind::Vlan { parent, id }) => format!("{id} of {parent}"),
            None => l.master.as_ref().map_or("-".to_owned(), |m| format!("port of {}", m.value)),
        };
        format!("{} {kind} {}", l.interface, if l.up { "up" } else { "-" })
    };
    let links: Vec<String> = want.links.iter().map(shown).collect();
    let table = ["br0 bridge up", "lan0 port of br0 up", "lan1 port of br0 up", "wan7 7 of eth0 up", "eth0 - up"];
    assert_eq!((links, want.errors), (table.map(String::from).to_vec(), vec![]));
}

#[test]
fn records_that_contradict_each_other_are_errors_with_both_places() {
    let table: [(&[&str], &[&str], &[&str]); 8] = [
        (
            &["if=br0 bridge=lan0", "if=br1 bridge='lan1 lan0'"],
            &["f:2: bridge br1 of lan0: f:1 says otherwise: left out"],
            &[],
        ),
        (
            &["if=a vlan=5 link=eth0", "if=a vlan=6 link=eth0"],
            &["f:2: bridge or vlan of a: f:1 says otherwise: left out"],
            &["a"],
        ),
        (
            &["if=a mac=02:00:00:00:00:01", "if=a mac=02:00:00:00:00:02"],
            &["f:2: mac of a: f:1 says otherwise: left out"],
            &[],
        ),
        (&["if=a mac=02:00:00:00:00:01", "if=a mac=02:00:00:00:00:01"], &[], &[]),
        (&["if=a bridge=b", "if=b bridge=c"], &["f:1: b is a bridge and no port of a: left out"], &[]),
        (&["if=a vlan=1 link=b", "if=b vlan=1 link=a"], &["f:1: a would be a part of itself: left out"], &["a"]),
        (
            &["if=br0 bridge='lan0 v'", "if=v vlan=1 link=br0"],
            &["f:1: br0 would be a part of itself: left out"],
            &["br0"],
        ),
        (
            &["if=br0 bridge=lan0", "if=lan0 ipmask=10.0.0.1/24", "if=lan0 ipmask=10.1.0.1/24"],
            &["f:2: an address of lan0, which is a port of br0 (f:1): give it to br0; until then nothing changes"],
            &["lan0"],
        ),
    ];
    for (lines, errors, frozen) in table {
        let want = make(lines);
        assert_eq!(want.errors, errors, "{lines:?}");
        let names: Vec<&str> = want.links.iter().filter(|l| l.frozen).map(|l| l.interface.as_str()).collect();
        assert_eq!(names, frozen, "{lines:?}");
    }
}

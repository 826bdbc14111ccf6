//! What a link bounds: its MTU, and whether it has IPv6.

use super::*;

#[test]
fn mtu_goes_down_only_and_comes_back() {
    let mut have = machine();
    let low = want("if=eth0 ipmask=10.1.0.5/24 mtu=1400");
    let first = plan(&low, &have, &Memory::default());
    assert_eq!(first.changes[0].to_string(), "~ link eth0 mtu 1400");
    let memory = Memory { mtus: first.memory.mtus.clone(), ..Memory::default() };
    assert_eq!(memory.mtus, [SavedMtu { interface: "eth0".into(), original: 1500, ours: 1400, leased: true }]);
    first.changes.iter().for_each(|c| step(&mut have, c));
    let second = plan(&low, &have, &memory);
    assert_eq!((second.changes, second.memory.mtus), (vec![], memory.mtus.clone()));
    let back = plan(&want("if=eth0 ipmask=10.1.0.5/24"), &have, &memory);
    assert_eq!(
        (back.changes[0].to_string(), back.memory.mtus),
        ("~ link eth0 mtu 1500".into(), vec![]),
        "a lease without"
    );
    for (mtu, then) in [(9000, 1500), (1000, 1000)] {
        let plan = plan(&want(&format!("if=eth1 ipmask=10.2.0.5/24 mtu={mtu}")), &machine(), &Memory::default());
        let set: Vec<u32> = plan
            .changes
            .iter()
            .filter_map(|c| match c {
                Change::LinkMtu { mtu, .. } => Some(*mtu),
                _ => None,
            })
            .collect();
        assert_eq!(set.first().copied().unwrap_or(1500), then, "asked {mtu}");
    }
}

#[test]
fn an_mtu_that_a_lease_has_lowered_stays_until_another_lease_says_otherwise() {
    let (mut have, mut memory) = (machine(), Memory::default());
    let lease = "if=eth0 ipmask=10.1.0.5/24 mtu=1400";
    for (records, mtu) in [
        (lease, 1400),
        // Some cards lose their link when the MTU changes, and so the lease.
        ("", 1400),
        ("if=eth0 ipmask=169.254.1.1/16", 1400),
        ("static if=eth0 ipmask=192.168.5.1/24\nif=eth0 health=down", 1400),
        ("static if=eth0 ipmask=192.168.5.1/24 mtu=1450", 1400),
        ("if=eth0 ipmask=2001:db8::5/64", 1400),
        (lease, 1400),
        ("", 1400),
        ("if=eth0 ipmask=10.1.0.5/24 mtu=1450", 1450),
        ("if=eth0 ipmask=10.1.0.5/24", 1500),
        ("", 1500),
        // The administrator's word counts at once.
        ("static if=eth0 ipmask=10.1.0.5/24 mtu=1400", 1400),
        ("static if=eth0 ipmask=10.1.0.5/24", 1500),
        ("static if=eth0 ipmask=10.1.0.5/24 mtu=1400", 1400),
        ("", 1500),
    ] {
        let plan = plan(&want(records), &have, &memory);
        plan.changes.iter().for_each(|c| step(&mut have, c));
        memory.mtus = plan.memory.mtus;
        assert_eq!(have.link("eth0").unwrap().mtu, mtu, "{records}");
    }
}

#[test]
fn ipv6_keeps_its_minimum_mtu_and_changes_a_prefix_length_by_deleting_first() {
    let mut have = machine();
    let lines = run(&want("if=eth0 ipmask=2001:db8::5/64 gw=fe80::1 mtu=1000"), &mut have);
    assert_eq!(
        lines,
        [
            "~ link eth0 mtu 1280",
            "+ address 2001:db8::5/64 dev eth0 valid_lft forever",
            "+ route 2001:db8::/64 dev eth0 metric 100",
            "+ route ::/0 via fe80::1 dev eth0 metric 100",
        ]
    );
    have.links[1].mtu = 1500;
    let lines = run(&want("if=eth0 ipmask=2001:db8::5/48 gw=fe80::1"), &mut have);
    let at = |text: &str| lines.iter().position(|l| l.starts_with(text)).unwrap();
    assert!(at("- address 2001:db8::5/64") < at("+ address 2001:db8::5/48"), "{lines:?}");
}

#[test]
fn without_ipv6_its_objects_are_left_out_and_all_else_is_there() {
    let text = "static if=lo ipmask=127.0.0.1/8\nstatic if=lo ipmask=::1/128\n\
                if=eth0 ipmask=10.1.0.5/24 gw=10.1.0.1\nif=eth0 ipmask=2001:db8::5/64 gw=fe80::1\n\
                if=eth1 ipmask=2001:db8:1::5/64";
    let of = |change: &dyn Fn(&mut Have)| {
        let mut have = machine();
        have.sysctls.push(Sysctl { path: FORWARD_V6.into(), value: "0".into() });
        change(&mut have);
        let plan = plan(&want(text), &have, &Memory::default());
        let v6 =
            plan.changes.iter().map(ToString::to_string).filter(|c| c.contains("::") || c.contains("ipv6")).count();
        let v4 = plan.changes.len() - v6;
        (v4, v6, plan.notes)
    };
    let note = |name: &str, why: &str| format!("f:1: IPv6 of {name} left out: {why}");
    let (v4, v6, notes) = of(&|_| {});
    assert_eq!((v6, notes), (6, vec![]), "an address each, the uplink's network, a default route, a switch");
    let none = "this kernel has none";
    let all = vec![note("lo", none), note("eth0", none), note("eth1", none)];
    assert_eq!(of(&|have| have.without_v6 = true), (v4, 0, all));
    let off = vec![note("eth0", "net.ipv6.conf.eth0.disable_ipv6 is 1")];
    assert_eq!(of(&|have| have.v6_off.push("eth0".into())), (v4, 2, off));
    let small = vec![note("eth1", "an MTU of 1279 is below 1280")];
    assert_eq!(of(&|have| have.links[2].mtu = 1279), (v4, 5, small));
    // One that fw has lowered is raised again.
    let mut have = machine();
    have.links[2].mtu = 1000;
    let saved = SavedMtu { interface: "eth1".into(), original: 1500, ours: 1000, leased: false };
    let plan = plan(&want(text), &have, &Memory { mtus: vec![saved], ..Memory::default() });
    assert_eq!(plan.notes, [] as [&str; 0]);
}

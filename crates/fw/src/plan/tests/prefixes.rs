//! The routes to the networks of addresses: the kernel's, and how those of earlier versions of fw
//! turn to it; the unreachable routes behind them.

use super::*;

const LAN: &str = "static if=lan0 ipmask=192.168.5.1/24\nstatic if=lan0 ipmask=fd00:2::1/64";

/// As fw made it before: no route of the kernel's, and one that bears the tag.
fn as_before(have: &mut Have) {
    let ours: Vec<Address> =
        have.addresses.iter().filter(|a| a.protocol == PROTOCOL && !a.address.is_host()).cloned().collect();
    for route in have.routes.iter_mut().filter(|r| r.protocol == PROTOCOL_KERNEL) {
        let is_of = |a: &Address| a.index == route.index && a.address.network() == route.destination;
        if ours.iter().any(is_of) {
            route.protocol = PROTOCOL;
        }
    }
    for address in have.addresses.iter_mut().filter(|a| a.protocol == PROTOCOL && !a.address.ip.is_loopback()) {
        (address.kernel_prefix_route, address.metric) = (false, 0);
    }
}

#[test]
fn a_network_of_an_earlier_version_turns_to_the_kernel_and_is_never_without_a_route() {
    let mut have = machine();
    run(&want(LAN), &mut have);
    let before = have.clone();
    as_before(&mut have);
    assert_ne!(have, before);
    assert_eq!(
        run(&want(LAN), &mut have),
        [
            "+ address 192.168.5.1/32 dev lan0 valid_lft forever",
            "- address 192.168.5.1/24 dev lan0",
            "+ address 192.168.5.1/24 dev lan0 valid_lft forever",
            "~ address fd00:2::1/64 dev lan0 valid_lft forever",
            "~ route fd00:2::/64 dev lan0 metric 256",
            "- route 192.168.5.0/24 dev lan0 metric 0 src 192.168.5.1",
            "- address 192.168.5.1/32 dev lan0",
        ]
    );
    let sorted = |have: &Have| {
        let mut routes: Vec<String> = have.routes.iter().map(|r| format!("{r:?}")).collect();
        routes.sort();
        (routes, have.addresses.len())
    };
    assert_eq!(sorted(&have), sorted(&before));
}

/// A run that is killed between any two steps is finished by the next one.
#[test]
fn a_turn_that_is_cut_anywhere_is_finished_by_the_next_run() {
    let mut old = machine();
    run(&want(LAN), &mut old);
    as_before(&mut old);
    let changes = plan(&want(LAN), &old, &Memory::default()).changes;
    for cut in 0..=changes.len() {
        let mut have = old.clone();
        changes[..cut].iter().for_each(|change| step(&mut have, change));
        run(&want(LAN), &mut have);
        let made = |a: &Address| a.kernel_prefix_route && !a.address.is_host();
        assert!(have.addresses.len() == 2 && have.addresses.iter().all(made), "{cut}: {:?}", have.addresses);
        assert!(have.routes.iter().all(|r| r.protocol == PROTOCOL_KERNEL || !r.unicast), "{cut}: {:?}", have.routes);
    }
}

#[test]
fn a_network_that_another_program_has_deleted_is_there_again_as_the_kernels() {
    let mut have = machine();
    run(&want(LAN), &mut have);
    have.routes.retain(|r| r.protocol != PROTOCOL_KERNEL);
    let lines = ["+ route 192.168.5.0/24 dev lan0 metric 0 src 192.168.5.1", "+ route fd00:2::/64 dev lan0 metric 256"];
    assert_eq!(run(&want(LAN), &mut have), lines);
    // While the link is down the kernel has none, and makes it when the link is set up.
    have.routes.retain(|r| r.protocol != PROTOCOL_KERNEL);
    have.links[3].up = false;
    assert_eq!(run(&want(LAN), &mut have), ["~ link lan0 up"]);
}

#[test]
fn two_ports_in_one_network_have_metrics_and_an_older_kernel_gets_a_route_of_ours() {
    let two = "static if=lan0 ipmask=192.168.5.1/24\nstatic if=eth1 ipmask=192.168.5.2/24";
    let mut have = machine();
    run(&want(two), &mut have);
    let metrics: Vec<u32> = have.addresses.iter().map(|a| a.metric).collect();
    assert_eq!(metrics, [0, 1]);
    let mut old = Have { without_address_metric: true, ..machine() };
    let lines = without_switches(run(&want(two), &mut old));
    assert!(lines.contains(&"+ route 192.168.5.0/24 dev eth1 metric 1 src 192.168.5.2".to_owned()), "{lines:?}");
    assert!(!old.addresses[1].kernel_prefix_route && old.addresses[0].kernel_prefix_route);
}

#[test]
fn a_lan_that_becomes_an_uplink_keeps_its_address_and_gets_the_uplinks_metric() {
    let mut have = machine();
    run(&want(LAN), &mut have);
    let uplink = want(&format!("{LAN}\nstatic if=lan0 gw=192.168.5.254"));
    let lines = without_switches(run(&uplink, &mut have));
    assert!(lines.iter().all(|l| !l.contains("address") || l.starts_with("~ ")), "{lines:?}");
    assert!(have.routes.iter().any(|r| r.destination.to_string() == "192.168.5.0/24" && r.metric == 100));
}

#[test]
fn behind_each_network_of_the_inside_is_a_route_that_leads_nowhere_also_without_its_interface() {
    let text = "static if=lan9 ipmask=192.168.9.1/24\nstatic if=lan0 ipmask=192.168.5.1/24\n\
                static if=lan0 net=10.9.0.0/16 gw=192.168.5.9\nstatic if=lan0 ipmask=fd00:2::1/64\n\
                static if=eth0 ipmask=192.0.2.5/24 gw=192.0.2.1\nif=eth1 ipmask=10.2.0.5/24 gw=10.2.0.1";
    let mut have = machine();
    let lines = run(&want(text), &mut have);
    let behind: Vec<&str> = lines.iter().filter_map(|l| l.strip_prefix("+ route unreachable ")).collect();
    let networks = ["192.168.9.0/24", "192.168.5.0/24", "fd00:2::/64", "10.9.0.0/16"];
    assert_eq!(behind, networks.map(|network| format!("{network} metric 4294967294")));
    let lines = run(&want(""), &mut have);
    assert_eq!(lines.iter().filter(|l| l.starts_with("- route unreachable")).count(), 4, "{lines:?}");
}

//! Leases over bad wires (testkit::wire): frames are lost, late, repeated and out of order. The
//! kernel must only ever have the right address.

use std::time::Duration;

use testkit::timeline::Timeline;
use testkit::wire::{Plan, Wire};
use testkit::{Lab, Signal, isolated, poll_for, wait_until};

use crate::dhcp::{SOON, both, exit_code, names, script};
use crate::{dnsmasq_argv, ours};

/// The number of renewals that the test waits for on each wire.
const RENEWALS: usize = 3;

/// A lease comes over the wire of this plan and is renewed. The client never configures any address
/// but the right one, and sees no second server and no neighbour with its address.
fn lives_on(lab: &Lab, plan: Plan, more: &[&str]) -> Wire {
    ours(lab);
    let (home, isp) = (lab.net("home"), lab.net("isp"));
    let wire = Wire::between(lab, &[(&home, "eth0"), (&isp, "lan")], plan).unwrap();
    isp.address("lan", "192.0.2.1/24");
    let server = isp.spawn(&dnsmasq_argv("lan", &["--dhcp-range=192.0.2.10,192.0.2.99,255.255.255.0,1h"]));
    server.wait_log("DHCP, IP range", SOON);
    let timeline = Timeline::start();
    timeline.watch_kernel(&home, Box::new(|line| line.contains(" inet ").then(|| line.to_owned())));
    let (script, out) = script(lab, "script");
    let argv = [&["udhcpc", "-f", "-v", "-i", "eth0", "-s", &script], more].concat();
    let client = home.spawn(&argv);
    // The wire loses three of ten frames each way: about half of all pairs of a request and its
    // answer. There is time for fifty pairs.
    let long = Duration::from_secs(60);
    wait_until("a lease", long, || names(&out).last().is_some_and(|e| e == "bound"));
    wait_until("its address", SOON, || home.addresses("eth0").len() == 1);
    let address = home.addresses("eth0").remove(0);
    wait_until("renewals", long, || {
        let renewals = || names(&out).iter().filter(|e| *e == "renew").count();
        let before = renewals();
        client.signal(Signal::SIGUSR1);
        poll_for(Duration::from_millis(1500), || (renewals() > before).then_some(()));
        renewals() >= RENEWALS
    });
    assert_eq!(home.addresses("eth0"), [address.as_str()]);
    let events = names(&out);
    assert_eq!(events[..2], ["deconfig", "bound"]);
    assert!(events[2..].iter().all(|e| e == "renew"), "{events:?}");
    for event in timeline.events() {
        assert!(event.text.contains(&format!("inet {address} ")) && !event.text.contains("Deleted"), "{}", event.text);
    }
    let said = server.log();
    assert!(!said.contains("DHCPNAK") && !said.contains("DHCPDECLINE"), "{said}");
    let leases = std::fs::read_to_string("/run/lab/leases").unwrap();
    assert_eq!(leases.lines().count(), 1, "{leases}");
    assert!(leases.contains(address.trim_end_matches("/24")), "{leases}");
    assert!(client.stop().success());
    wire
}

#[test]
fn over_a_wire_that_loses_three_frames_of_ten() {
    isolated(&["dnsmasq"], |lab| {
        let wire = lives_on(lab, Plan { seed: 4, loss_percent: 30, ..Plan::default() }, &[]);
        assert!(wire.counts().lost > 0, "{:?}", wire.counts());
    });
}

#[test]
fn over_a_wire_as_slow_as_a_satellite() {
    isolated(&["dnsmasq"], |lab| {
        // A round trip takes 400 ms and more: the second DISCOVER leaves before the first answer is
        // here.
        let delay = Duration::from_millis(200);
        lives_on(lab, Plan { seed: 5, delay, jitter: delay, ..Plan::default() }, &[]);
    });
}

#[test]
fn over_a_wire_that_repeats_and_reorders() {
    isolated(&["dnsmasq"], |lab| {
        let (delay, jitter) = (Duration::from_millis(5), Duration::from_millis(100));
        let plan = Plan { seed: 6, repeat_percent: 80, delay, jitter, ..Plan::default() };
        // The client must not take repeated frames for a neighbour with its address.
        let wire = lives_on(lab, plan, &["--acd", "fast"]);
        assert!(wire.counts().repeated > 0, "{:?}", wire.counts());
    });
}

#[test]
fn over_a_wire_that_does_all_of_it() {
    isolated(&["dnsmasq"], |lab| {
        let (delay, jitter) = (Duration::from_millis(50), Duration::from_millis(300));
        let plan = Plan { seed: 7, loss_percent: 20, repeat_percent: 30, delay, jitter, vlan: None };
        lives_on(lab, plan, &["--acd", "fast"]);
    });
}

#[test]
fn what_comes_in_another_vlan_is_for_others() {
    isolated(&["dnsmasq", "udhcpc"], |lab| {
        ours(lab);
        let (home, isp) = (lab.net("home"), lab.net("isp"));
        let plan = Plan { vlan: Some(9), ..Plan::default() };
        let wire = Wire::between(lab, &[(&home, "eth0"), (&isp, "lan")], plan).unwrap();
        isp.address("lan", "192.0.2.1/24");
        let server = isp.spawn(&dnsmasq_argv("lan", &["--dhcp-range=192.0.2.10,192.0.2.99,255.255.255.0,1h"]));
        server.wait_log("DHCP, IP range", SOON);
        // The kernel delivers the frame, marked as another station's. The original accepts it.
        for (client, (code, last)) in both(lab).iter().zip([(0, "bound"), (1, "leasefail")]) {
            let (script, out) = script(lab, last);
            let argv = [client, "-f", "-q", "-n", "-t", "1", "-T", "2", "-i", "eth0", "-s", &script];
            assert_eq!(exit_code(&home, &argv), code, "{client}");
            assert_eq!(names(&out), ["deconfig", last], "{client}");
        }
        // VLAN 0 is a priority without a VLAN.
        wire.set_plan(Plan { vlan: Some(0), ..Plan::default() });
        let (script, _) = script(lab, "priority");
        assert_eq!(exit_code(&home, &["udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", &script]), 0);
    });
}

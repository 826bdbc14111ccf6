//! fw and the packets that get through during a run, in failover, and from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]
#![expect(clippy::disallowed_methods, reason = "marks moments between pings")]

use std::time::{Duration, Instant};

use testkit::probe::Probe;
use testkit::{Net, Value, isolated, wait_until};

use crate::fw::{SOON, World, list};

/// None of these packets was lost, and there were enough of them to tell.
#[track_caller]
fn assert_lossless(probe: &Probe, from: Instant) {
    assert_lost_at_most(0, probe, from);
}

#[track_caller]
pub(crate) fn assert_lost_at_most(most: usize, probe: &Probe, from: Instant) {
    wait_until("the last answers", SOON, || probe.first_answer(Instant::now() - Duration::from_millis(50)).is_some());
    let loss = probe.loss(from, Instant::now() - Duration::from_millis(100));
    assert!(loss.sent > 50, "{loss:?}");
    assert!(loss.lost <= most, "{loss:?}");
}

pub(crate) fn probe(from: &Net, to: &str) -> Probe {
    let probe = Probe::start(Some(from.name()), to.parse().unwrap(), Duration::from_millis(2)).unwrap();
    let start = Instant::now();
    wait_until("the first answer", SOON, || probe.first_answer(start).is_some());
    probe
}

#[test]
fn runs_lose_no_packet_on_untouched_interfaces_and_forwarded_flows() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let local = probe(&w.lan, "192.168.5.1");
        let forwarded = probe(&w.lan, "198.51.100.1");
        let from = Instant::now();
        for round in 0..40 {
            // The other uplink comes and goes, and each time the text of the firewall changes.
            w.write("fw.conf", &format!("ext_open_tcp=\"{}\"\n", 1000 + round));
            match round % 2 {
                0 => w.remove("dyn/dhcp_eth1.ipconf"),
                _ => w.lease(1, 3600),
            }
            w.apply();
        }
        assert_lossless(&local, from);
        assert_lossless(&forwarded, from);
    });
}

#[test]
fn a_bad_uplink_is_demoted_and_restored_without_loss_and_flows_move() {
    isolated(&["nft", "conntrack"], |lab| {
        let w = World::leased(lab);
        w.write("fw.conf", "failback=\"all\"\n");
        w.apply();
        let probe = probe(&w.lan, "198.51.100.1");
        assert!(w.flows().contains("dst=10.0.0.5"), "{}", w.flows());

        let from = Instant::now();
        w.health(0, "down");
        w.apply();
        assert_eq!(w.home.default_routes()[0].0, "eth1");
        assert_eq!(w.home.default_routes()[1], ("eth0".into(), "10.0.0.1".into(), 20100), "it stays");
        wait_until("the flow follows", SOON, || w.flows().contains("dst=10.1.0.5"));
        assert!(!w.flows().contains("dst=10.0.0.5"), "{}", w.flows());
        assert!(w.etc("resolv.conf").ends_with("nameserver 192.0.2.1\nnameserver 192.0.2.0\n"));
        assert_at_most_one_lost(&probe, from);

        let from = Instant::now();
        w.health(0, "up");
        w.apply();
        assert_eq!(w.home.default_routes()[0], ("eth0".into(), "10.0.0.1".into(), 100));
        wait_until("the flow is back", SOON, || w.flows().contains("dst=10.0.0.5"));
        assert_at_most_one_lost(&probe, from);
    });
}

/// The kernel drops a packet that it finds between the route's turn and the deletion of the flow,
/// some ten microseconds.
#[track_caller]
fn assert_at_most_one_lost(probe: &Probe, from: Instant) {
    let since = Instant::now();
    wait_until("fifty more pings", SOON, || {
        probe.recovered(from).is_some() && probe.loss(since, Instant::now()).sent > 80
    });
    let loss = probe.loss(from, since);
    assert!(loss.lost <= 1, "{loss:?}");
}

#[test]
fn all_uplinks_bad_is_better_than_none() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::leased(lab);
        w.health(0, "down");
        w.health(1, "down");
        w.apply();
        assert_eq!(w.home.default_routes().len(), 2);
        assert!(w.lan.pings("198.51.100.1"));
    });
}

#[test]
fn the_kernel_turns_to_the_standby_by_itself_when_a_cable_is_pulled() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::leased(lab);
        assert_eq!(w.home.route_to("198.51.100.1").as_deref(), Some("eth0"));
        w.cables[0].pull();
        wait_until("the standby", SOON, || w.home.route_to("198.51.100.1").as_deref() == Some("eth1"));
        assert!(w.lan.pings("198.51.100.1"));
        w.cables[0].plug();
        wait_until("back", SOON, || w.home.route_to("198.51.100.1").as_deref() == Some("eth0"));
    });
}

#[test]
fn flows_follow_when_the_cable_is_pulled_and_the_watcher_says_so() {
    isolated(&["nft", "conntrack"], |lab| {
        let w = World::leased(lab);
        let probe = probe(&w.lan, "198.51.100.1");
        let pulled = Instant::now();
        w.cables[0].pull();
        wait_until("no carrier", SOON, || w.home.route_to("198.51.100.1").as_deref() == Some("eth1"));
        w.health(0, "down");
        w.apply();
        wait_until("answers over the standby", SOON, || probe.recovered(pulled).is_some());
        assert!(!w.flows().contains("dst=10.0.0.5"), "{}", w.flows());
        assert_eq!(w.home.default_routes()[0].0, "eth1");
    });
}

#[test]
fn only_masqueraded_flows_of_the_old_uplink_are_forgotten() {
    isolated(&["nft", "conntrack", "ping"], |lab| {
        let w = World::leased(lab);
        assert!(w.lan.pings("198.51.100.1"), "masqueraded through eth0");
        assert!(w.lan.pings("10.0.0.1"), "masqueraded, but to eth0's own network");
        assert!(w.lan.pings("192.168.5.1"), "not masqueraded");
        let has = |what: &str| w.flows().contains(what);
        assert!(has("dst=198.51.100.1") && has("dst=10.0.0.1") && has("dst=192.168.5.1"), "{}", w.flows());
        w.health(0, "down");
        w.apply();
        assert!(!has("dst=198.51.100.1"), "{}", w.flows());
        assert!(has("dst=10.0.0.1") && has("dst=192.168.5.1"), "{}", w.flows());
    });
}

#[test]
fn outside_nothing_is_open_but_what_fw_conf_says() {
    isolated(&["nft", "busybox", "ping"], |lab| {
        let w = World::leased(lab);
        w.write("fw.conf", "ext_open_tcp=\"8022\"\n");
        w.apply();
        let _open = w.home.spawn(&["busybox", "nc", "-ll", "-p", "8022", "-e", "true"]);
        let _closed = w.home.spawn(&["busybox", "nc", "-ll", "-p", "8023", "-e", "true"]);
        let _inner = w.lan.spawn(&["busybox", "nc", "-ll", "-p", "8024", "-e", "true"]);
        let reaches = |from: &Net, to: &str, port: &str| {
            from.try_run(&["busybox", "timeout", "2", "busybox", "nc", "-w", "1", to, port]).status.success()
        };
        wait_until("the listeners", SOON, || {
            reaches(&w.lan, "192.168.5.1", "8023") && reaches(&w.home, "192.168.5.2", "8024")
        });
        assert!(reaches(&w.isp[0], "10.0.0.5", "8022"));
        let started = Instant::now();
        assert!(!reaches(&w.isp[0], "10.0.0.5", "8023"));
        assert!(started.elapsed() < Duration::from_millis(900), "a reset, no silence");
        assert!(w.isp[0].pings("10.0.0.5"));
        w.isp[0].ip(&["route", "add", "192.168.5.0/24", "via", "10.0.0.5"]);
        assert!(!w.isp[0].pings("192.168.5.2"), "not from outside to the LAN");
        assert!(!reaches(&w.isp[0], "192.168.5.2", "8024"));
        assert!(w.lan.pings("10.0.0.1"), "but the other way");
    });
}

#[test]
fn link_local_addresses_are_not_forwarded() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::leased(lab);
        // All else would let them through: there are routes in both directions, and the firewall
        // would masquerade.
        w.lan.address("port", "169.254.7.7/16");
        w.home.address("lan0", "169.254.1.1/16");
        w.isp[0].address("cust", "169.254.9.9/16");
        w.home.ip(&["route", "add", "169.254.9.9/32", "dev", "eth0", "scope", "link"]);
        w.lan.ip(&["route", "add", "169.254.9.9/32", "via", "192.168.5.1"]);
        let reaches = |source: &str, target: &str| {
            w.lan.try_run(&["ping", "-n", "-c", "1", "-W", "1", "-I", source, target]).status.success()
        };
        for (source, target) in [("169.254.7.7", "198.51.100.1"), ("192.168.5.2", "169.254.9.9")] {
            assert!(!reaches(source, target), "{source} to {target}");
        }
        let without = "for h in $(nft -a list chain inet netsv forward | sed -n 's/.*169[.]254.*handle //p'); do \
                       nft delete rule inet netsv forward handle $h; done";
        w.home.run(&["sh", "-c", without]);
        for (source, target) in [("169.254.7.7", "198.51.100.1"), ("192.168.5.2", "169.254.9.9")] {
            assert!(reaches(source, target), "{source} to {target}");
        }
    });
}

#[test]
fn a_lost_lease_opens_nothing() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let before = w.nft();
        w.remove("dyn/dhcp_eth0.ipconf");
        w.remove("dyn/dhcp_eth1.ipconf");
        w.apply();
        assert_eq!(w.nft(), before);
        assert!(before.contains("iifname \"eth1\" goto external_input"), "{before}");
    });
}

#[test]
fn a_table_that_somebody_deleted_or_edited_is_restored() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let before = w.nft();
        for harm in ["delete table inet netsv", "insert rule inet netsv input accept", "flush chain inet netsv forward"]
        {
            w.home.run(&["nft", harm]);
            assert_eq!(w.fw("plan").0, 2, "{harm}");
            w.apply();
            assert_eq!(w.nft(), before, "{harm}");
        }
    });
}

#[test]
fn the_golden_tables_are_accepted_by_the_kernel_and_have_no_sets() {
    isolated(&["nft"], |lab| {
        let home = lab.net("home");
        lab.cable((&home, "eth0"), (&home, "wlan0"));
        lab.cable((&home, "lan0"), (&home, "lan1"));
        for name in ["laptop", "first_boot", "home_router", "zones", "bridge", "closed", "doors"] {
            let path = format!("{}/crates/fw/tests/golden/{name}.nft", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).unwrap();
            // Not every kernel has flowtables.
            let has_flowtable = |line: &&str| line.contains("flow") || line.contains("hook ingress");
            let lines: Vec<&str> = text.lines().filter(|line| !has_flowtable(line)).collect();
            let text = lines.join("\n").replace("table inet netsv {\n\t}\n", "table inet netsv {\n");
            let path = lab.dir().join(name);
            std::fs::write(&path, text).unwrap();
            let path = path.to_str().unwrap();
            home.run(&["nft", "-c", "-f", path]);
            assert_eq!(home.run(&["nft", "list", "ruleset"]), "", "a dry run");
            home.run(&["nft", "-f", path]);
            let listed: Value = home.run(&["nft", "-j", "list", "ruleset"]).parse().unwrap();
            let count = |kind: &str| list(&listed["nftables"]).iter().filter(|o| o.get(kind).is_some()).count();
            assert!(count("table") == 1 && count("chain") >= 4 && count("set") == 0, "{listed}");
            assert!(!listed.to_string().contains("\"set\":["), "an anonymous set: {listed}");
            home.run(&["nft", "flush", "ruleset"]);
        }
    });
}

//! `ifplugd --all` with fw under a supervisor: what other programs and the kernel undo of fw's work
//! is there again at once, without a fw that stays in memory, and without a run too many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use testkit::appliance::Appliance;
use testkit::{Cable, Lab, Net, isolated, wait_until};

use crate::ours;

const SOON: Duration = Duration::from_secs(10);
/// A line for each run of fw.
const RUNS: &str = "/run/lab/runs";

/// A router between a provider and a LAN, with fw and the watcher of all interfaces as services.
struct Router {
    home: Net,
    isp: Net,
    lan: Net,
    cable: Cable,
    appliance: Appliance,
}

impl Router {
    fn start(lab: &Lab) -> Router {
        Router::start_with(lab, "")
    }

    /// `fw` is the beginning of the script that runs fw.
    fn start_with(lab: &Lab, fw: &str) -> Router {
        ours(lab);
        let [home, isp, lan] = ["home", "isp", "lan"].map(|name| lab.net(name));
        lab.cable((&home, "eth0"), (&isp, "cust"));
        let cable = lab.cable((&home, "lan0"), (&lan, "port"));
        isp.address("cust", "192.0.2.1/24");
        isp.address("lo", "198.51.100.1/32");
        lan.address("port", "10.0.0.2/24");
        lan.ip(&["-6", "address", "add", "fd00:2::2/64", "dev", "port", "nodad"]);
        lan.ip(&["route", "add", "default", "via", "10.0.0.1"]);
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
        let mut appliance = Appliance::prepare(lab, &home, &sources, &["fw", "ifplugd_all"]);
        let record = |n: usize, fields: &str| {
            let text: String = fields.split(' ').map(|f| format!("{}\n", f.replacen('=', "[$cfg]=", 1))).collect();
            appliance.write(&format!("fw/conf/{n}.ipconf"), &format!("let cfg=cfg+1\n{text}"));
        };
        record(1, "if=lan0 ipmask=10.0.0.1/24");
        record(2, "if=lan0 ipmask=fd00:2::1/64");
        record(3, "if=lan0 net=10.9.0.0/16 gw=10.0.0.2");
        record(4, "if=eth0 ipmask=192.0.2.5/24 gw=192.0.2.1");
        appliance.write("fw/run", &format!("#!/bin/sh\nexec 2>&1\necho run >>{RUNS}\n{fw}\nexec fw --once apply\n"));
        appliance.start();
        let router = Router { home, isp, lan, cable, appliance };
        wait_until("the LAN reaches the Internet", SOON, || router.lan.pings("198.51.100.1"));
        router.rest();
        router
    }

    /// Waits until fw is down and the watcher has nothing to say.
    fn rest(&self) {
        wait_until("fw has ended", SOON, || {
            let status = self.appliance.run(&["sv", "status", "fw"]);
            status.starts_with("down: fw") && !status.contains("want up")
        });
    }

    fn runs(&self) -> usize {
        fs::read_to_string(RUNS).unwrap_or_default().lines().count()
    }

    fn routes(&self, family: &str) -> String {
        self.home.ip(&[family, "route", "show"])
    }

    fn table(&self) -> String {
        self.home.run(&["nft", "-s", "list", "ruleset"])
    }

    fn log(&self) -> String {
        fs::read_to_string(self.appliance.log_file("ifplugd_all")).unwrap_or_default()
    }
}

#[test]
fn what_another_program_deletes_is_there_again_after_one_run_each() {
    isolated(&["nft"], |lab| {
        let router = Router::start(lab);
        let home = &router.home;
        let (before, routes, six) = (router.table(), router.routes("-4"), router.routes("-6"));
        let rest = |what: &str, n: usize| {
            let is_back = || router.table() == before && router.routes("-4") == routes && router.routes("-6") == six;
            wait_until(what, SOON, is_back);
            router.rest();
            assert_eq!(router.runs(), n, "{what}\n{}", router.log());
        };
        let first = router.runs();
        home.run(&["nft", "flush", "ruleset"]);
        rest("the table after a flush", first + 1);
        home.run(&["nft", "flush", "chain", "inet", "netsv", "input"]);
        rest("the table after an edit", first + 2);
        home.ip(&["route", "del", "default"]);
        rest("the default route", first + 3);
        home.ip(&["route", "del", "10.9.0.0/16"]);
        rest("a route into the LAN", first + 4);
        home.ip(&["route", "del", "10.0.0.0/24", "dev", "lan0"]);
        rest("the LAN's own network", first + 5);
        home.ip(&["address", "flush", "dev", "lan0", "scope", "global"]);
        rest("the LAN's addresses and all that goes with them", first + 6);
        home.ip(&["-6", "address", "del", "fd00:2::1/64", "dev", "lan0"]);
        rest("the address of IPv6", first + 7);
        // What is not fw's is no reason to run.
        home.run(&["nft", "add table inet other; add chain inet other c; delete table inet other"]);
        home.ip(&["route", "add", "10.77.0.0/16", "via", "192.0.2.1"]);
        home.ip(&["route", "del", "10.77.0.0/16"]);
        home.run(&["nft", "flush", "ruleset"]);
        rest("the table after another flush", first + 8);
        assert!(router.lan.pings("198.51.100.1"));
    });
}

#[test]
fn a_lan_that_is_set_down_and_up_or_replugged_is_as_before() {
    isolated(&["nft"], |lab| {
        let mut router = Router::start(lab);
        let (routes, six) = (router.routes("-4"), router.routes("-6"));
        let is_back = |router: &Router| {
            router.routes("-4") == routes && router.routes("-6") == six && router.lan.pings("10.0.0.1")
        };
        let mut times = router.runs();
        for how in ["at once", "after fw has run meanwhile"] {
            router.home.ip(&["link", "set", "lan0", "down"]);
            if how != "at once" {
                // A run sets it up itself: its records want it up.
                router.appliance.run(&["sv", "once", "fw"]);
            }
            router.home.ip(&["link", "set", "lan0", "up"]);
            wait_until("all routes of the LAN after down and up", SOON, || is_back(&router));
            router.rest();
        }
        assert!(router.runs() > times);
        times = router.runs();
        // It goes, and another one comes under its name.
        router.home.ip(&["link", "del", "lan0"]);
        wait_until("fw has said that it is missing", SOON, || router.runs() > times);
        router.rest();
        router.cable = lab.cable((&router.home, "lan0"), (&router.lan, "port"));
        router.lan.address("port", "10.0.0.2/24");
        router.lan.ip(&["-6", "address", "add", "fd00:2::2/64", "dev", "port", "nodad"]);
        router.lan.ip(&["route", "add", "default", "via", "10.0.0.1"]);
        wait_until("all routes of the LAN after the replug", SOON, || is_back(&router));
        wait_until("IPv6 of the LAN", SOON, || router.lan.pings("fd00:2::1"));
        wait_until("the LAN reaches the Internet", SOON, || router.lan.pings("198.51.100.1"));
        for switch in ["ipv4/conf/lan0/promote_secondaries", "ipv6/conf/lan0/ignore_routes_with_linkdown"] {
            assert_eq!(router.home.run(&["cat", &format!("/proc/sys/net/{switch}")]).trim(), "1", "{switch}");
        }
        assert!(router.isp.pings("192.0.2.5"));
    });
}

/// nft is refused, so the table stays away whatever fw does.
#[test]
fn what_fw_cannot_mend_is_tried_more_and_more_rarely() {
    isolated(&["nft"], |lab| {
        let router = Router::start_with(lab, "[ -e /run/lab/broken ] && PATH=/run/lab/broken:$PATH");
        let before = router.runs();
        fs::create_dir("/run/lab/broken").unwrap();
        crate::fw::program(Path::new("/run/lab/broken/nft"), "exit 1");
        router.home.run(&["nft", "flush", "ruleset"]);
        wait_until("the log tells of it", SOON, || router.log().contains("fw is told more and more rarely"));
        assert!(router.runs() <= before + 21, "{}", router.runs());
        fs::remove_dir_all("/run/lab/broken").unwrap();
        wait_until("the table", SOON * 2, || router.table().contains("table inet netsv"));
    });
}

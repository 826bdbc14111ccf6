//! fw in a real kernel: an appliance with two uplinks and a LAN, records written by hand, and all
//! checks made with ip, nft, conntrack and pings.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::{Cable, Lab, Net, Value, isolated, wait_until};

use crate::ours;

pub(crate) const SOON: Duration = Duration::from_secs(5);

/// The appliance `home` between two providers and a LAN host; 198.51.100.1 is behind both
/// providers.
pub(crate) struct World {
    pub(crate) home: Net,
    pub(crate) isp: [Net; 2],
    pub(crate) lan: Net,
    pub(crate) cables: [Cable; 3],
    pub(crate) dir: PathBuf,
}

impl World {
    pub(crate) fn new(lab: &Lab) -> World {
        ours(lab);
        let home = lab.net("home");
        let isp = [lab.net("isp0"), lab.net("isp1")];
        let lan = lab.net("lan");
        let cables = [
            lab.cable((&home, "eth0"), (&isp[0], "cust")),
            lab.cable((&home, "eth1"), (&isp[1], "cust")),
            lab.cable((&home, "lan0"), (&lan, "port")),
        ];
        for (net, n) in isp.iter().zip(0..) {
            net.address("cust", &format!("10.{n}.0.1/24"));
            net.address("lo", "198.51.100.1/32");
        }
        lan.address("port", "192.168.5.2/24");
        lan.ip(&["route", "add", "default", "via", "192.168.5.1"]);
        let dir = lab.make_dir("fw");
        for sub in ["conf", "dyn", "etc"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let world = World { home, isp, lan, cables, dir };
        world.record("conf/lan", "if=lan0 ipmask=192.168.5.1/24");
        world
    }

    /// A world with a lease on both uplinks, which fw has applied.
    pub(crate) fn leased(lab: &Lab) -> World {
        let world = World::new(lab);
        world.lease(0, 3600);
        world.lease(1, 3600);
        world.apply();
        world
    }

    pub(crate) fn lease(&self, n: usize, secs: u64) {
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let end = uptime.split('.').next().unwrap().parse::<u64>().unwrap() + secs;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        self.record(
            &format!("dyn/dhcp_eth{n}"),
            &format!(
                "if=eth{n} ipmask=10.{n}.0.5/24 gw=10.{n}.0.1 net=0/0 dns=192.0.2.{n} lease_end_boottime={end} boot_id={}",
                &boot[..8]
            ),
        );
    }

    pub(crate) fn health(&self, n: usize, health: &str) {
        self.record(&format!("dyn/link_eth{n}"), &format!("if=eth{n} health={health}"));
    }

    pub(crate) fn record(&self, name: &str, fields: &str) {
        let text: String = fields.split(' ').map(|f| format!("{}\n", f.replacen('=', "[$cfg]=", 1))).collect();
        self.write(&format!("{name}.ipconf"), &format!("let cfg=cfg+1\n{text}"));
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.dir.join(name)).unwrap();
    }

    pub(crate) fn etc(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join("etc").join(name)).unwrap_or_default()
    }

    pub(crate) fn command(&self, fw: &[&str], word: &str) -> Command {
        let mut command = self.home.command(&[fw, &[word]].concat());
        for (variable, sub) in [("STATIC", "conf"), ("DYNAMIC", "dyn"), ("CONFIG", "fw.conf"), ("ETC", "etc")] {
            command.env(format!("FW_{variable}"), self.dir.join(sub));
        }
        command.env("SVDIR", "/nonexistent");
        command
    }

    /// Runs fw in the appliance behind the words `before` (such as `setpriv ...`).
    fn fw_with(&self, before: &[&str], word: &str) -> Output {
        self.command(&[before, &["fw"]].concat(), word).output().unwrap()
    }

    pub(crate) fn fw(&self, word: &str) -> (i32, String) {
        let output = self.fw_with(&[], word);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    #[track_caller]
    pub(crate) fn apply(&self) {
        assert_eq!(self.fw("apply"), (0, String::new()));
    }

    pub(crate) fn nft(&self) -> String {
        self.home.run(&["nft", "-s", "list", "ruleset"])
    }

    /// Lines of `conntrack -L` about the pings.
    pub(crate) fn flows(&self) -> String {
        self.home.run(&["conntrack", "-L", "-p", "icmp"])
    }
}

/// The path of `fw`, for use with a PATH that does not hold it.
pub(crate) fn fw_path(lab: &Lab) -> String {
    lab.dir().join("bin/fw").to_str().unwrap().to_owned()
}

pub(crate) fn program(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

pub(crate) fn list(value: &Value) -> Vec<&Value> {
    value.as_array().into_iter().flatten().collect()
}

#[test]
fn records_become_addresses_routes_and_files_that_bear_our_mark() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        w.lease(1, 3600);
        let (code, text) = w.fw("plan");
        assert_eq!(code, 2, "{text}");
        assert!(text.contains("+ route default via 10.0.0.1 dev eth0 metric 100"), "{text}");
        assert_eq!(w.home.addresses("eth0"), [] as [&str; 0], "plan writes nothing");
        w.apply();
        assert_eq!(w.fw("plan"), (0, String::new()));

        let default = |n: usize, metric| (format!("eth{n}"), format!("10.{n}.0.1"), metric);
        assert_eq!(w.home.default_routes(), [default(0, 100), default(1, 200)]);
        let routes = w.home.ip_json(&["-4", "-N", "route", "show"]);
        assert_eq!(list(&routes).len(), 6, "{routes}");
        // The LAN's own network is the kernel's, so that it comes back with the link
        // (RTPROT_KERNEL).
        let (lan, rest): (Vec<&Value>, Vec<&Value>) = list(&routes).into_iter().partition(|r| r["dev"] == "lan0");
        assert!(rest.iter().all(|r| r["protocol"] == "213"), "{routes}");
        assert_eq!((lan.len(), &lan[0]["protocol"]), (1, &"2".into()), "{routes}");
        let links = w.home.ip_json(&["-4", "address", "show", "dev", "eth0"]);
        let address = &links[0]["addr_info"][0];
        assert_eq!((&address["local"], &address["broadcast"]), (&"10.0.0.5".into(), &"10.0.0.255".into()));
        let left = address["valid_life_time"].as_u64().unwrap();
        assert!((3590..=3600).contains(&left), "{address}");
        assert!(w.etc("resolv.conf").ends_with("nameserver 192.0.2.0\nnameserver 192.0.2.1\n"));
        assert!(w.etc("hosts").contains("127.0.0.1 localhost\n"));
        assert!(w.lan.pings("198.51.100.1"), "through masquerading: the provider has no route back to the LAN");

        w.remove("dyn/dhcp_eth0.ipconf");
        w.remove("dyn/dhcp_eth1.ipconf");
        w.apply();
        assert_eq!(w.home.default_routes(), []);
        assert_eq!(w.home.addresses("eth0"), [] as [&str; 0]);
        assert_eq!(w.home.addresses("lan0"), ["192.168.5.1/24"]);
    });
}

#[test]
fn an_unchanged_run_writes_nothing_to_the_kernel() {
    isolated(&["nft", "nft"], |lab| {
        let w = World::leased(lab);
        let sentinel = |n: u8| {
            w.home.ip(&["route", "add", "blackhole", &format!("203.0.113.{n}")]);
            w.home.run(&["nft", "add", "table", "ip", &format!("sentinel{n}")]);
        };
        let ip = w.home.spawn(&["ip", "monitor", "link", "address", "route", "rule", "netconf"]);
        let nft = w.home.spawn(&["nft", "monitor"]);
        wait_until("both monitors listen", SOON, || {
            w.home.try_run(&["ip", "route", "del", "blackhole", "203.0.113.1"]);
            w.home.try_run(&["nft", "delete", "table", "ip", "sentinel1"]);
            sentinel(1);
            ip.log().contains("203.0.113.1") && nft.log().contains("sentinel1")
        });
        let count = |text: String, what: &str| text.lines().filter(|l| !l.contains(what)).count();
        let before = (count(ip.log(), "203.0.113"), nft.log().lines().filter(|l| l.contains("netsv")).count());
        w.apply();
        w.apply();
        sentinel(2);
        ip.wait_log("203.0.113.2", SOON);
        nft.wait_log("sentinel2", SOON);
        let after = (count(ip.log(), "203.0.113"), nft.log().lines().filter(|l| l.contains("netsv")).count());
        assert_eq!(after, before, "{}\n{}", ip.log(), nft.log());
    });
}

#[test]
fn foreign_objects_stay_byte_for_byte() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.home.address("eth0", "203.0.113.9/28");
        w.home.ip(&["route", "add", "172.16.0.0/12", "via", "203.0.113.1", "metric", "7"]);
        w.home.ip(&["route", "add", "default", "via", "203.0.113.1", "dev", "eth0", "metric", "100", "table", "77"]);
        w.home.ip(&["rule", "add", "from", "203.0.113.9", "table", "77"]);
        w.home.run(&["nft", "add table inet mine; add chain inet mine c; add rule inet mine c tcp dport 1 drop"]);
        let foreign = || {
            let routes = w.home.ip(&["route", "show", "table", "all", "proto", "boot"]);
            let kernel = w.home.ip(&["-4", "route", "show", "proto", "kernel", "table", "main", "dev", "eth0"]);
            let rules: Vec<String> =
                w.home.ip(&["rule"]).lines().filter(|l| !l.contains("proto")).map(str::to_owned).collect();
            let address = w.home.ip(&["address", "show", "to", "203.0.113.9"]);
            (routes, kernel, rules, address, w.home.run(&["nft", "list", "table", "inet", "mine"]))
        };
        let before = foreign();
        w.lease(0, 3600);
        w.lease(1, 3600);
        w.apply();
        assert_eq!(foreign(), before);
        w.health(0, "down");
        w.apply();
        w.remove("dyn/dhcp_eth0.ipconf");
        w.remove("conf/lan.ipconf");
        w.apply();
        assert_eq!(foreign(), before);
        assert_eq!(w.home.addresses("lan0"), [] as [&str; 0]);
    });
}

#[test]
fn a_foreign_route_in_our_place_keeps_it() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.home.address("eth0", "203.0.113.9/28");
        w.home.ip(&["route", "add", "default", "via", "203.0.113.1", "metric", "100"]);
        w.lease(0, 3600);
        let (code, text) = w.fw("apply");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("metric 100 is held by another route: 101 used"), "{text}");
        let defaults = w.home.default_routes();
        assert_eq!(defaults[0], ("eth0".into(), "203.0.113.1".into(), 100));
        assert_eq!(defaults[1], ("eth0".into(), "10.0.0.1".into(), 101));
        assert_eq!(w.fw("plan").0, 0);

        // A blackhole route holds its place, too: VPNs use one to keep packets inside.
        w.home.ip(&["route", "replace", "blackhole", "default", "metric", "100"]);
        w.remove("dyn/dhcp_eth0.ipconf");
        w.apply();
        w.lease(0, 3600);
        let (code, text) = w.fw("apply");
        assert_eq!((code, text.matches("101 used").count()), (0, 1), "{text}");
        assert!(w.home.default_routes().contains(&("eth0".into(), "10.0.0.1".into(), 101)));
        assert_eq!(w.fw("plan").0, 0);
    });
}

#[test]
fn under_any_umask_everybody_may_read_the_name_servers() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        let output = w.fw_with(&["sh", "-c", "umask 077; exec \"$@\"", "sh"], "apply");
        assert!(output.status.success(), "{output:?}");
        for name in ["resolv.conf", "hosts", "dnsmasq_servers.conf"] {
            let path = w.dir.join("etc").join(name);
            assert_eq!(w.home.run(&["stat", "-c", "%a", path.to_str().unwrap()]), "644\n", "{name}");
        }
    });
}

#[test]
fn a_run_that_is_killed_after_it_lowered_an_mtu_does_not_forget_the_old_one() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let mtu = || w.home.ip_json(&["link", "show", "dev", "eth0"])[0]["mtu"].as_u64().unwrap();
        w.record("dyn/dhcp_eth0", "if=eth0 ipmask=10.0.0.5/24 gw=10.0.0.1 mtu=1400");
        // The final firewall has one interface less, and the nft that loads it does not end.
        w.record("conf/second_lan", "if=eth1 ipmask=192.168.6.1/24 zone=lan");
        w.remove("dyn/dhcp_eth1.ipconf");
        program(&lab.make_dir("only").join("nft"), "exec sleep 50");
        let fw =
            w.home.spawn_command("fw", w.command(&["env", "PATH=/run/lab/only:/usr/bin:/bin", &fw_path(lab)], "apply"));
        wait_until("a run that waits for nft", SOON, || {
            mtu() == 1400 && !testkit::pids_where(|argv| argv == ["sleep", "50"]).is_empty()
        });
        fw.signal(Signal::SIGKILL);
        w.lease(0, 3600);
        let (code, text) = w.fw("apply");
        assert!(code == 0 && text.contains("fw: eth1 is inside now: "), "{code} {text}");
        assert_eq!(mtu(), 1500);
    });
}

#[test]
fn a_lifetime_bounds_the_address_and_its_routes_and_a_renewal_extends_it() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        let left = || {
            let links = w.home.ip_json(&["-4", "address", "show", "dev", "eth0"]);
            links[0]["addr_info"][0]["valid_life_time"].as_u64()
        };
        w.lease(0, 100);
        w.apply();
        assert!(left().is_some_and(|l| l <= 100));
        w.lease(0, 1000);
        w.apply();
        assert!(left().is_some_and(|l| l > 900), "{:?}", left());
        w.lease(0, 10_000_000_000);
        w.apply();
        assert_eq!((left(), w.fw("plan")), (Some(u32::MAX.into()), (0, String::new())), "for ever");
        w.lease(0, 2);
        w.apply();
        wait_until("the kernel removes it, whoever is dead", SOON, || w.home.addresses("eth0").is_empty());
        assert_eq!(w.home.default_routes(), []);
        let (code, text) = w.fw("apply");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("dyn/dhcp_eth0.ipconf:1: its lease has ended: ignored"), "{text}");
        assert_eq!(w.home.addresses("eth0"), [] as [&str; 0]);
    });
}

#[test]
fn a_malformed_file_is_named_its_last_good_content_stays_and_all_else_counts() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.write("dyn/dhcp_eth0.ipconf", "let cfg=cfg+1\nif[$cfg]=eth0\ngw[$cfg]=$(touch /run/lab/proof)\n");
        w.write("conf/zz.ipconf", "reboot\n");
        w.record("dyn/dhcp_eth1", "if=eth1 ipmask=10.1.0.77/24 gw=10.1.0.1");
        let (code, text) = w.fw("apply");
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("dyn/dhcp_eth0.ipconf:3: ") && text.contains("last good content is kept"), "{text}");
        assert!(text.contains("conf/zz.ipconf:1: ") && text.contains("file skipped"), "{text}");
        assert_eq!(w.home.addresses("eth0"), ["10.0.0.5/24"]);
        assert_eq!(w.home.addresses("eth1"), ["10.1.0.77/24"]);
        assert!(!Path::new("/run/lab/proof").exists());
    });
}

#[test]
fn a_directory_that_cannot_be_read_takes_no_address_away() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        // The test has no failing disk; to root, a file in the directory's place is the nearest.
        let away = w.dir.join("away");
        fs::rename(w.dir.join("conf"), &away).unwrap();
        w.write("conf", "");
        for _ in 0..2 {
            let (code, text) = w.fw("apply");
            assert_eq!(code, 1, "{text}");
            assert!(text.contains("conf: not a directory: its last good content is kept\n"), "{text}");
            assert_eq!(w.home.addresses("lan0"), ["192.168.5.1/24"]);
        }
        w.remove("conf");
        fs::rename(&away, w.dir.join("conf")).unwrap();
        w.remove("conf/lan.ipconf");
        w.apply();
        assert_eq!(w.home.addresses("lan0"), [] as [&str; 0], "withdrawn by the administrator");
    });
}

#[test]
fn in_a_directory_without_conf_and_policy_it_takes_nothing_away() {
    isolated(&[], |lab| {
        let w = World::new(lab);
        w.record("conf/lan", "if=eth1 ipmask=10.8.0.1/24");
        w.apply();
        let addresses = w.home.addresses("eth1");
        assert!(addresses.contains(&"10.8.0.1/24".to_owned()), "{addresses:?}");
        let by_hand = |word: &str, directory: &str| {
            let mut command = w.home.command(&["fw", word]);
            command.env("FW_DYNAMIC", w.dir.join("dyn")).env("FW_ETC", w.dir.join("etc")).env("SVDIR", "/nonexistent");
            command.current_dir(directory).output().unwrap()
        };
        for word in ["plan", "apply"] {
            let output = by_hand(word, "/");
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(111), "{text}");
            assert!(text.contains("change to the directory of the service"), "{text}");
        }
        assert_eq!(w.home.addresses("eth1"), addresses);
        assert_eq!(by_hand("plan", w.dir.to_str().unwrap()).status.code(), Some(0), "the same as before");
    });
}

#[test]
fn without_nft_addresses_and_routes_are_applied_and_the_error_says_what_to_install() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        let output = w.command(&["env", "PATH=/nonexistent", &fw_path(lab)], "apply").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("install nftables"), "{text}");
        assert_eq!(w.home.default_routes().len(), 1);
        let forwards = || w.home.run(&["cat", "/proc/sys/net/ipv4/ip_forward"]);
        assert_eq!(forwards(), "0\n", "an open door to the LAN");
        assert!(text.contains("forwarding is not switched on without the firewall"), "{text}");
        w.apply();
        assert!(w.nft().contains("table inet netsv"), "the next run tries again");
        assert_eq!(forwards(), "1\n");
    });
}

#[test]
fn what_is_waited_for_is_the_commit_and_not_the_end_of_nft() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        program(&lab.make_dir("only").join("nft"), "/usr/sbin/nft \"$@\"; exec sleep 50");
        let fw = ["env", "PATH=/run/lab/only:/usr/bin:/bin", &fw_path(lab)];
        let _fw = w.home.spawn_command("fw", w.command(&fw, "apply"));
        wait_until("a default route", SOON, || w.home.default_routes().len() == 1);
        assert!(w.nft().contains("table inet netsv"));
        wait_until("nft goes on", SOON, || !testkit::pids_where(|argv| argv == ["sleep", "50"]).is_empty());
    });
}

#[test]
fn a_missing_interface_is_said_once_and_served_when_it_comes() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.record("conf/usb", "if=usb0 ipmask=10.7.0.1/24");
        let (code, text) = w.fw("apply");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("no interface usb0 yet"), "{text}");
        w.apply();
        w.home.ip(&["link", "add", "usb0", "type", "veth", "peer", "name", "usb1"]);
        w.apply();
        assert_eq!(w.home.addresses("usb0"), ["10.7.0.1/24"]);
    });
}

#[test]
fn without_privilege_the_missing_capability_is_named_and_plan_still_works() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        let less = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"];
        let output = w.fw_with(&less, "apply");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(111), "{text}");
        assert!(text.contains("CAP_NET_ADMIN"), "{text}");
        assert_eq!(w.home.addresses("eth0"), [] as [&str; 0]);
        assert_eq!(w.fw_with(&less, "plan").status.code(), Some(2));
    });
}

#[test]
fn two_uplinks_in_one_network_coexist() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.record("dyn/dhcp_eth0", "if=eth0 ipmask=10.0.0.5/24 gw=10.0.0.1");
        w.record("dyn/dhcp_eth1", "if=eth1 ipmask=10.0.0.6/24 gw=10.0.0.1");
        w.apply();
        let routes = w.home.ip_json(&["-4", "route", "show", "10.0.0.0/24"]);
        let metrics: Vec<_> = list(&routes).iter().map(|r| (r["dev"].as_str(), r["metric"].as_u64())).collect();
        assert_eq!(metrics, [(Some("eth0"), Some(100)), (Some("eth1"), Some(200))]);
        assert_eq!(w.home.default_routes().len(), 2);
        w.health(0, "down");
        w.apply();
        assert_eq!(
            w.home.route_to("10.0.0.1").as_deref(),
            Some("eth1"),
            "the network too is reached through the good one"
        );
    });
}

#[test]
fn a_router_outside_the_prefix_classless_routes_and_ipv6_work() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::new(lab);
        w.record("dyn/dhcp_eth0", "if=eth0 ipmask=203.0.113.7/32 gw=10.0.0.1 net=0/0");
        w.write(
            "dyn/dhcp_eth1.ipconf",
            "let cfg=cfg+1\nif[$cfg]=eth1\nipmask[$cfg]=10.1.0.5/24\ngw[$cfg]=10.1.0.9\nnet[$cfg]=0/0\nmtu[$cfg]=1400\n\
             routes[$cfg]='172.16.0.0/12 10.1.0.1 192.0.2.0/24 0.0.0.0'\n",
        );
        w.record("conf/six", "if=eth1 ipmask=2001:db8:1::5/64 gw=2001:db8:1::1");
        w.isp[0].ip(&["route", "add", "203.0.113.7", "dev", "cust"]);
        w.apply();
        assert_eq!(
            w.home.default_routes(),
            [("eth0".into(), "10.0.0.1".into(), 200)],
            "option 121 replaces the router"
        );
        assert!(w.home.pings("198.51.100.1"));
        let route = |to: &str| list(&w.home.ip_json(&["route", "show", to])).first().map(|r| r["gateway"].clone());
        assert_eq!(route("172.16.0.0/12"), Some("10.1.0.1".into()));
        assert_eq!(route("192.0.2.0/24"), Some(Value::Null));
        let six = w.home.ip_json(&["-6", "route", "show", "default"]);
        assert_eq!((&six[0]["gateway"], &six[0]["metric"]), (&"2001:db8:1::1".into(), &100.into()), "{six}");
        assert_eq!(w.home.ip_json(&["link", "show", "dev", "eth1"])[0]["mtu"], 1400);
        assert_eq!(w.fw("plan"), (0, String::new()));
        w.remove("dyn/dhcp_eth1.ipconf");
        w.apply();
        assert_eq!(w.home.ip_json(&["link", "show", "dev", "eth1"])[0]["mtu"], 1400, "the lease may come back");
        w.lease(1, 3600);
        w.apply();
        assert_eq!(w.home.ip_json(&["link", "show", "dev", "eth1"])[0]["mtu"], 1500);
    });
}

#[test]
fn many_runs_at_once_end_in_the_same_state() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        w.lease(1, 3600);
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..6).map(|_| scope.spawn(|| w.fw("apply"))).collect();
            for run in runs {
                assert_eq!(run.join().unwrap(), (0, String::new()));
            }
        });
        assert_eq!(w.fw("plan"), (0, String::new()));
        assert_eq!(w.home.default_routes().len(), 2);
    });
}

/// services/fw as it is shipped, under Debian's runsv. In its PATH only fw is ours.
pub(crate) fn service(w: &World, lab: &Lab) -> (testkit::Proc, impl Fn(&[&str]) -> Output + use<>) {
    service_by(w, lab, &|name| testkit::original(name).unwrap())
}

/// The same under the supervisor whose programs `program` finds.
pub(crate) fn service_by(
    w: &World,
    lab: &Lab,
    program: &dyn Fn(&str) -> PathBuf,
) -> (testkit::Proc, impl Fn(&[&str]) -> Output + use<>) {
    let bin = lab.make_dir("only");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_netsv"), bin.join("fw")).unwrap();
    for name in ["runsv", "sv", "svlogd", "chpst"] {
        std::os::unix::fs::symlink(program(name), bin.join(name)).unwrap();
    }
    let services = lab.make_dir("service");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/fw");
    w.home.run(&["cp", "-r", shipped.to_str().unwrap(), services.to_str().unwrap()]);
    fs::copy(w.dir.join("conf/lan.ipconf"), services.join("fw/conf/lan.ipconf")).unwrap();
    let (home, dynamic, etc, logs) = (w.home.clone(), w.dir.join("dyn"), w.dir.join("etc"), w.dir.join("log"));
    let path = format!("{}:/usr/bin:/bin:/usr/sbin", bin.display());
    let command = move |argv: &[&str]| {
        let env = [("FW_DYNAMIC", &dynamic), ("FW_ETC", &etc), ("SVDIR", &services), ("LOG_DIR", &logs)];
        let env = env.map(|(name, value)| format!("{name}={}", value.display()));
        let path = format!("PATH={path}");
        let words = [&["env", &path][..], &env.each_ref().map(String::as_str), argv].concat();
        home.command(&words)
    };
    let runsv = w.home.spawn_command("runsv", command(&["runsv", "/run/lab/service/fw"]));
    (runsv, move |argv: &[&str]| command(argv).output().unwrap())
}

#[test]
fn the_service_works_under_runit_and_publishing_runs_it() {
    isolated(&["nft", "runsv", "sv"], |lab| {
        let w = World::new(lab);
        let (_runsv, run) = service(&w, lab);
        wait_until("the first run", SOON, || w.home.addresses("lan0") == ["192.168.5.1/24"]);
        let said = run(&["fw", "publish", "dhcp_eth0", "if=eth0", "ipmask=10.0.0.5/24", "gw=10.0.0.1", "net=0/0"]);
        assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
        wait_until("a default route", SOON, || w.home.default_routes().len() == 1);
        assert!(run(&["fw", "withdraw", "dhcp_eth0"]).stderr.is_empty());
        wait_until("its end", SOON, || w.home.default_routes().is_empty() && w.home.addresses("eth0").is_empty());
        wait_until("it is down after its one shot", SOON, || {
            String::from_utf8_lossy(&run(&["sv", "status", "fw"]).stdout).starts_with("down: ")
        });
    });
}

#[test]
fn once_is_for_apply_and_without_a_supervisor_a_warning() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        let once = |word| w.command(&["fw", "--once"], word).output().unwrap();
        let done = once("apply");
        assert!(done.status.success(), "{done:?}");
        let warning = "fw: warning: .: unable to open supervise/ok: file does not exist: not made one-shot\n";
        assert_eq!(String::from_utf8_lossy(&done.stderr), warning);
        assert_eq!(w.home.addresses("eth0"), ["10.0.0.5/24"]);
        let wrong = once("plan");
        assert_eq!(wrong.status.code(), Some(100), "{wrong:?}");
    });
}

#[test]
fn a_run_that_is_killed_half_way_is_run_again() {
    isolated(&["nft", "runsv", "sv"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        let bin = lab.make_dir("only");
        program(&bin.join("nft"), "[ -e /run/lab/block ] && exec sleep 50\nexec /usr/sbin/nft \"$@\"");
        fs::write("/run/lab/block", "").unwrap();
        let (_runsv, _run) = service(&w, lab);
        let fw = || testkit::pids_where(|argv| argv == ["fw", "--once", "apply"]);
        wait_until("a run that waits for nft", SOON, || {
            !fw().is_empty() && !testkit::pids_where(|argv| argv == ["sleep", "50"]).is_empty()
        });
        fs::remove_file("/run/lab/block").unwrap();
        for pid in fw() {
            w.home.run(&["kill", "-9", &pid.to_string()]);
        }
        wait_until("the next run", SOON, || w.home.default_routes().len() == 1);
        assert!(w.nft().contains("table inet netsv"));
    });
}

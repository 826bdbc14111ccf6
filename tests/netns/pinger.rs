//! pinger: routers that fall silent while the link stays up, and what fw, the lease and the
//! services do then.

#![expect(clippy::disallowed_methods, reason = "marks moments between pings")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use testkit::appliance::{Appliance, FW_CONF, LAN_IPCONF};
use testkit::probe::Probe;
use testkit::uplinks::{TARGET, TwoUplinks};
use testkit::{Lab, Net, Proc, Signal, Value, holds_for, isolated, kill_9, original, wait_for, wait_until};

use crate::ours;
use crate::services::{House, RUNIT, script, under_both};

mod records;

/// Longer than any step takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(25);
/// For "nothing happens".
const QUIET: Duration = Duration::from_secs(1);
/// Ten times the default speed.
const QUICK: [&str; 8] = ["--interval", "0.1", "--retry", "0.1", "--hold-down", "0.5", "--status-every", "0"];

fn block_icmp(net: &Net) {
    net.run(&["nft", "add table inet block"]);
    net.run(&["nft", "add chain inet block in { type filter hook input priority 0; }"]);
    net.run(&["nft", "add rule inet block in meta l4proto icmp drop"]);
}

/// One uplink: home - isp - internet, and the lease as udhcpc publishes it.
struct Small {
    home: Net,
    isp: Net,
    dynamic: PathBuf,
}

impl Small {
    fn new(lab: &Lab) -> Small {
        ours(lab);
        let small = Small { home: lab.net("home"), isp: lab.net("isp"), dynamic: lab.make_dir("dynamic") };
        lab.cable((&small.home, "eth0"), (&small.isp, "customer"));
        small.home.address("eth0", "192.0.2.100/24");
        small.isp.address("customer", "192.0.2.1/24");
        small.isp.address("lo", &format!("{TARGET}/32"));
        small.home.ip(&["route", "add", "default", "via", "192.0.2.1", "metric", "20100"]);
        small.lease("192.0.2.1");
        small
    }

    fn lease(&self, gw: &str) {
        write_lease(&self.dynamic, "eth0", "192.0.2.100/24", gw);
    }

    fn start(&self, more: &[&str]) -> Proc {
        let dynamic = self.dynamic.to_str().unwrap();
        let base = ["pinger", "-v", "-i", "eth0", "--ipconf", dynamic, "--notify", "/nonexistent/fw"];
        self.home.spawn(&[&base[..], &QUICK, more].concat())
    }

    fn wait(&self, health: Option<&str>) {
        wait_health(&self.dynamic, "eth0", health);
    }

    fn status(&self) -> Value {
        let dynamic = self.dynamic.to_str().unwrap();
        let said = self.home.try_run(&["pinger", "--show", "eth0", "--json", "--ipconf", dynamic]);
        String::from_utf8_lossy(&said.stdout).parse().unwrap_or(Value::Null)
    }

    /// Waits until `count` more rounds are over.
    fn wait_rounds(&self, count: u64) {
        let asked = || self.status()["targets"][0]["asked"].as_u64().unwrap_or(0);
        let begin = asked();
        wait_until("rounds", SOON, || asked() >= begin + count);
    }
}

fn write_lease(dynamic: &Path, interface: &str, address: &str, gw: &str) {
    let text = format!("let cfg=cfg+1\nif[$cfg]='{interface}'\nipmask[$cfg]='{address}'\ngw[$cfg]='{gw}'\n");
    fs::write(dynamic.join(".tmp"), text).unwrap();
    fs::rename(dynamic.join(".tmp"), dynamic.join(format!("dhcp_{interface}.ipconf"))).unwrap();
}

fn health(dynamic: &Path, interface: &str) -> Option<&'static str> {
    let text = fs::read_to_string(dynamic.join(format!("health_{interface}.ipconf"))).ok()?;
    ["up", "down"].into_iter().find(|h| text.lines().any(|l| l == format!("health[$cfg]='{h}'")))
}

#[track_caller]
fn wait_health(dynamic: &Path, interface: &str, wanted: Option<&str>) {
    wait_until(&format!("{interface}: health {wanted:?}"), SOON, || health(dynamic, interface) == wanted);
}

#[test]
fn a_silent_router_is_bad_and_good_again_after_the_hold_down() {
    isolated(&["nft"], |lab| {
        let w = Small::new(lab);
        let pinger = w.start(&[]);
        w.wait(Some("up"));
        w.isp.silence("customer");
        w.wait(Some("down"));
        assert!(pinger.log().contains("uplink is bad: router 192.0.2.1 does not answer"), "{}", pinger.log());
        let link = &w.home.ip_json(&["link", "show", "dev", "eth0"])[0];
        assert_eq!(link["operstate"], "UP", "the link is as it was");
        let status = wait_for("the status", SOON, || Some(w.status()).filter(|s| s["state"] == "bad"));
        assert_eq!(status["cause"], "router");
        assert!(status["targets"][0]["lost"].as_u64().unwrap() >= 3, "{status}");
        assert_eq!(status["router"], "192.0.2.1");
        let said = w.home.try_run(&["pinger", "--show", "eth0", "--ipconf", w.dynamic.to_str().unwrap()]);
        assert_eq!(said.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&said.stdout).contains("bad (the router is silent)"), "{said:?}");
        w.isp.speak();
        wait_until("recovering", SOON, || w.status()["state"] == "recovering");
        assert_eq!(health(&w.dynamic, "eth0"), Some("down"), "held down");
        w.wait(Some("up"));
        w.wait_rounds(3);
        let router = &w.status()["targets"][0];
        assert!(router["last_ms"].as_f64().unwrap() <= router["worst_ms"].as_f64().unwrap(), "{router}");
    });
}

#[test]
fn a_router_that_blocks_icmp_is_good() {
    isolated(&["nft", "ping"], |lab| {
        let w = Small::new(lab);
        block_icmp(&w.isp);
        assert!(!w.home.pings("192.0.2.1"));
        let pinger = w.start(&[]);
        w.wait(Some("up"));
        w.wait_rounds(20);
        assert_eq!(health(&w.dynamic, "eth0"), Some("up"));
        assert!(!pinger.log().contains("bad"), "{}", pinger.log());
        assert_eq!(w.status()["targets"][0]["lost"], 0);
    });
}

#[test]
fn without_arp_the_router_is_pinged() {
    isolated(&["nft"], |lab| {
        let w = Small::new(lab);
        // Without ARP a frame bears the sender's own Ethernet address as the receiver's. The test
        // gives both ends the same address.
        let mac = w.home.ip_json(&["link", "show", "dev", "eth0"])[0]["address"].as_str().unwrap().to_owned();
        w.isp.ip(&["link", "set", "customer", "address", &mac, "arp", "off"]);
        w.home.ip(&["link", "set", "eth0", "arp", "off"]);
        let arp = w.home.spawn(&["tcpdump", "-lni", "eth0", "arp"]);
        arp.wait_log("listening on", SOON);
        let _pinger = w.start(&[]);
        w.wait(Some("up"));
        w.isp.silence("customer");
        w.wait(Some("down"));
        assert!(!arp.log().contains("ARP,"), "{}", arp.log());
        w.isp.speak();
        w.wait(Some("up"));
    });
}

#[test]
fn nothing_behind_the_router_is_bad_and_restarts_nothing() {
    isolated(&RUNIT, |lab| {
        let w = Small::new(lab);
        let mut house = House::new(lab, &w.home, "services");
        house.add("dhcp_eth0", "exec sleep 1000");
        house.start();
        let client = house.wait_pid("dhcp_eth0");
        let target = format!("icmp:{TARGET}");
        let mut command = house.command(&["pinger", "-i", "eth0", "--restart", "0", "-t", &target]);
        command.args(QUICK).args(["--ipconf", w.dynamic.to_str().unwrap()]);
        let pinger = w.home.spawn_command("pinger", command);
        w.wait(Some("up"));
        w.isp.ip(&["address", "del", &format!("{TARGET}/32"), "dev", "lo"]);
        w.wait(Some("down"));
        wait_until("the cause", SOON, || w.status()["cause"] == "behind");
        w.wait_rounds(10);
        assert_eq!(house.pid("dhcp_eth0"), Some(client), "{}", pinger.log());
        w.isp.address("lo", &format!("{TARGET}/32"));
        w.wait(Some("up"));
        // When the router itself falls silent, the client is restarted.
        w.isp.silence("customer");
        wait_until("restarted", SOON, || house.pid("dhcp_eth0").is_some_and(|pid| pid != client));
        assert!(pinger.log().contains("restarting dhcp_eth0"), "{}", pinger.log());
    });
}

#[test]
fn targets_are_asked_through_a_demoted_uplink_each_in_its_way() {
    isolated(&["nft", "dnsmasq"], |lab| {
        let w = Small::new(lab);
        // Another uplink comes first in the routing table, and reaches nothing.
        let other = lab.net("other");
        lab.cable((&w.home, "eth1"), (&other, "customer"));
        other.address("customer", "198.51.100.1/24");
        w.home.address("eth1", "198.51.100.100/24");
        w.home.ip(&["route", "add", "default", "via", "198.51.100.1", "metric", "100"]);
        assert_eq!(w.home.route_to(&TARGET.to_string()).as_deref(), Some("eth1"));
        let listen = format!("--listen-address={TARGET}");
        let names = ["--address=/there.example/192.0.2.7", "--local=/example/", "--no-resolv", "--no-hosts"];
        let base = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--bind-interfaces", "--user=root", &listen];
        let dns = w.isp.spawn(&[&base[..], &names].concat());
        dns.wait_log("started", SOON);
        // Names that exist, that do not exist, that no server behind the name server answers for;
        // an open port, and a closed one.
        let table = [
            (format!("icmp:{TARGET}"), "up"),
            (format!("tcp:{TARGET}:53"), "up"),
            (format!("tcp:{TARGET}:9"), "down"),
            (format!("dns:{TARGET}/there.example"), "up"),
            (format!("dns:{TARGET}/missing.example"), "up"),
            (format!("dns:{TARGET}/elsewhere.org"), "down"),
            (format!("dns:{TARGET}"), "down"),
        ];
        for (target, verdict) in &table {
            let pinger = w.start(&["-t", target]);
            w.wait(Some(verdict));
            pinger.stop();
            assert_eq!(health(&w.dynamic, "eth0"), None, "{target}");
        }
        // One good target among several is enough.
        let _pinger = w.start(&["-t", &table[2].0, "-t", &table[3].0]);
        w.wait(Some("up"));
        w.wait_rounds(6);
        let status = w.status();
        let lost = |n: usize| status["targets"][n]["lost"].as_u64().unwrap();
        assert!(lost(1) > 0 && lost(0) == 0 && lost(2) == 0, "{status}");
    });
}

#[test]
fn a_changed_lease_is_followed() {
    isolated(&["nft"], |lab| {
        let w = Small::new(lab);
        fs::remove_file(w.dynamic.join("dhcp_eth0.ipconf")).unwrap();
        let pinger = w.start(&[]);
        wait_until("idle", SOON, || w.status()["state"] == "idle");
        assert_eq!(health(&w.dynamic, "eth0"), None);
        w.lease("192.0.2.9");
        w.wait(Some("down"));
        // Of two routers the first counts. An invalid record leaves everything as it is.
        w.lease("192.0.2.1 192.0.2.9");
        w.wait(Some("up"));
        fs::write(w.dynamic.join("dhcp_eth0.ipconf"), "let cfg=cfg+1\nif[$cfg]=$(touch /run/lab/proof)\n").unwrap();
        pinger.wait_log("dhcp_eth0.ipconf: 2: expansion", SOON);
        w.wait_rounds(3);
        assert_eq!(w.status()["router"], "192.0.2.1");
        assert!(!Path::new("/run/lab/proof").exists());
        w.lease("192.0.2.9");
        w.wait(Some("down"));
        fs::remove_file(w.dynamic.join("dhcp_eth0.ipconf")).unwrap();
        wait_until("idle", SOON, || w.status()["state"] == "idle");
        assert_eq!(health(&w.dynamic, "eth0"), Some("down"), "the verdict stays as it was");
        w.lease("192.0.2.1");
        w.wait(Some("up"));
    });
}

#[test]
fn routes_stand_in_place_of_the_router() {
    isolated(&[], |lab| {
        let w = Small::new(lab);
        let _pinger = w.start(&[]);
        w.wait(Some("up"));
        let router = || w.status()["router"].as_str().map(str::to_owned);
        // ipconf(5): with such routes fw makes no default route of gw, so the uplink does not
        // depend on gw.
        for (routes, want) in [
            ("10.0.0.0/8 192.0.2.7", None),
            ("10.0.0.0/8 192.0.2.7 0.0.0.0/0 192.0.2.1", Some("192.0.2.1")),
            // A route without a router is no default route, for fw as well.
            ("0.0.0.0/0 0.0.0.0", Some("192.0.2.9")),
            ("", Some("192.0.2.9")),
        ] {
            write_lease(&w.dynamic, "eth0", "192.0.2.100/24", &format!("192.0.2.9'\nroutes[$cfg]='{routes}"));
            wait_until(&format!("{want:?} of {routes}"), SOON, || router().as_deref() == want);
        }
    });
}

#[test]
fn a_lost_link_is_not_the_routers_fault() {
    isolated(&[], |lab| {
        let w = Small::new(lab);
        let pinger = w.start(&[]);
        w.wait(Some("up"));
        w.isp.ip(&["link", "set", "customer", "down"]);
        wait_until("idle", SOON, || w.status()["state"] == "idle");
        holds_for("no verdict", QUIET, || health(&w.dynamic, "eth0") == Some("up"));
        w.isp.ip(&["link", "set", "customer", "up"]);
        wait_until("good", SOON, || w.status()["state"] == "good");
        w.home.ip(&["link", "del", "eth0"]);
        pinger.wait_log("no interface eth0: waiting for it", SOON);
        wait_until("idle", SOON, || w.status()["state"] == "idle");
        lab.cable((&w.home, "eth0"), (&w.isp, "customer"));
        w.isp.address("customer", "192.0.2.1/24");
        wait_until("good", SOON, || w.status()["state"] == "good");
        assert!(!pinger.log().contains("bad"), "{}", pinger.log());
        assert_eq!(pinger.stop().code(), Some(0));
    });
}

#[test]
fn liars_on_the_wire_do_not_make_a_dead_router_good() {
    isolated(&["nft", "tcpdump", "busybox"], |lab| {
        let w = Small::new(lab);
        w.lease("192.0.2.9");
        let _pinger = w.start(&[]);
        w.wait(Some("down"));
        // The router answers neither ARP nor pings. pinger would ping a neighbour that it has heard
        // of.
        block_icmp(&w.isp);
        // pinger hears announcements of the router, and replies about it to other stations.
        w.isp.run(&["sh", "-c", "ip address add 192.0.2.9/32 dev lo; echo 8 >/proc/sys/net/ipv4/conf/all/arp_ignore"]);
        let seen = w.home.spawn(&["tcpdump", "-lni", "eth0", "arp", "src", "host", "192.0.2.9"]);
        seen.wait_log("listening on", SOON);
        let busybox = original("busybox").unwrap().display().to_string();
        let arping = |kind| format!("{busybox} arping -q {kind} -c 1 -I customer 192.0.2.9");
        let both = format!("while :; do {}; {}; sleep 0.1; done", arping("-U"), arping("-A"));
        let _liar = w.isp.spawn(&["sh", "-c", &both]);
        wait_until("gratuitous ones", SOON, || {
            let log = seen.log();
            log.contains("Request who-has 192.0.2.9") && log.contains("Reply 192.0.2.9")
        });
        w.wait_rounds(10);
        assert_eq!((health(&w.dynamic, "eth0"), &w.status()["state"]), (Some("down"), &"bad".into()));
    });
}

#[test]
fn the_service_judges_the_interface_of_its_name_restarts_what_serves_it_and_withdraws() {
    isolated(&RUNIT, |lab| {
        let w = Small::new(lab);
        under_both(lab, &w.home, |house| {
            house.add("dhcp_eth0", "exec sleep 1000");
            house.add("supplicant_eth0", "exec sleep 1000");
            house.add_fw();
            house.copy("dhcp_if_pinger", "dhcp_eth0_pinger");
            fs::create_dir(house.service("dhcp_eth0_pinger/env")).unwrap();
            let args = format!("--restart 0.3 {}", QUICK.join(" "));
            fs::write(house.service("dhcp_eth0_pinger/env/PINGER_ARGS"), args).unwrap();
            fs::write(house.service("dhcp_eth0_pinger/env/PINGER_TARGETS"), format!("icmp:{TARGET} icmp:192.0.2.1"))
                .unwrap();
            house.start();
            // fw has run since `before`, and has ended: the next report finds it down.
            let told = |before: usize| {
                wait_until("fw was told", SOON, || house.fw_runs() > before);
                house.wait_down("fw");
            };
            house.wait_first_fw();
            write_lease(&house.path("dynamic"), "eth0", "192.0.2.100/24", "192.0.2.1");
            let served = ["dhcp_eth0", "supplicant_eth0"].map(|s| house.wait_pid(s));
            let dynamic = house.path("dynamic");
            wait_health(&dynamic, "eth0", Some("up"));
            let pid = house.wait_pid("dhcp_eth0_pinger");
            assert!(fs::read_to_string(dynamic.join(".pinger_eth0")).unwrap().contains("icmp:203.0.113.10"));
            told(1);

            // A killed pinger leaves its verdict, and the next one takes over.
            let before = house.fw_runs();
            kill_9(pid);
            let pid = wait_for("another pinger", SOON, || house.pid("dhcp_eth0_pinger").filter(|p| *p != pid));
            assert_eq!(health(&dynamic, "eth0"), Some("up"));
            told(before);

            // The router disappears: fw is told first, then the services.
            let before = house.fw_runs();
            w.isp.silence("customer");
            wait_health(&dynamic, "eth0", Some("down"));
            told(before);
            for (service, old) in ["dhcp_eth0", "supplicant_eth0"].into_iter().zip(served) {
                wait_until(service, SOON, || house.pid(service).is_some_and(|new| new != old));
            }
            // A pinger that is killed while its verdict is bad leaves it bad, until the hold-down
            // of the next one ends.
            let before = house.fw_runs();
            kill_9(pid);
            wait_for("another pinger", SOON, || house.pid("dhcp_eth0_pinger").filter(|p| *p != pid));
            told(before);
            assert_eq!(health(&dynamic, "eth0"), Some("down"));
            let before = house.fw_runs();
            w.isp.speak();
            wait_health(&dynamic, "eth0", Some("up"));
            told(before);
            assert!(house.log("dhcp_eth0_pinger").contains("restarting supplicant_eth0"));

            // A pinger that is stopped leaves no verdict.
            let before = house.fw_runs();
            house.sv(&["down", "dhcp_eth0_pinger"]);
            wait_health(&dynamic, "eth0", None);
            told(before);
            assert!(!dynamic.join(".pinger_eth0").exists());

            // A pinger that is killed while it should go down leaves its verdict to ./finish, which
            // removes it.
            let before = house.fw_runs();
            house.sv(&["up", "dhcp_eth0_pinger"]);
            wait_health(&dynamic, "eth0", Some("up"));
            told(before);
            let pid = house.wait_pid("dhcp_eth0_pinger");
            kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
            house.sv(&["d", "dhcp_eth0_pinger"]);
            wait_until("wanted down", SOON, || house.stat("dhcp_eth0_pinger").contains("want down"));
            kill_9(pid);
            wait_health(&dynamic, "eth0", None);
        });
    });
}

#[test]
fn supplicant_if_runs_wpa_supplicant_on_the_interface_of_its_name() {
    isolated(&RUNIT, |lab| {
        let w = Small::new(lab);
        under_both(lab, &w.home, |house| {
            let fake = house.path("fake");
            script(&fake, &format!("echo \"$@\" >>{}; exec sleep 1000", house.path("calls").display()));
            house.copy("supplicant_if", "supplicant_my_wlan0");
            fs::create_dir(house.service("supplicant_my_wlan0/env")).unwrap();
            let knob = |name: &str, value: &str| {
                fs::write(house.service("supplicant_my_wlan0/env").join(name), value).unwrap()
            };
            knob("SUPPLICANT", fake.to_str().unwrap());
            knob("SUPPLICANT_ARGS", "-D wired");
            house.start();
            let conf = house.service("supplicant_my_wlan0/wpa_supplicant.conf");
            let calls = || fs::read_to_string(house.path("calls")).unwrap_or_default();
            let call = format!("-i my_wlan0 -c {} -D wired\n", conf.display());
            wait_until("the call", SOON, || calls() == call);

            // Without its configuration fw says so and stays down.
            fs::rename(&conf, house.path("conf")).unwrap();
            house.sv(&["t", "supplicant_my_wlan0"]);
            wait_until("down", SOON, || house.stat("supplicant_my_wlan0").starts_with("down"));
            wait_until("said", SOON, || house.log("supplicant_my_wlan0").contains("wpa_supplicant.conf: down until"));
        });
    });
}

#[test]
fn supplicant_if_authenticates_on_a_wire() {
    isolated(&[&RUNIT[..], &["wpa_supplicant"]].concat(), |lab| {
        let w = Small::new(lab);
        under_both(lab, &w.home, |house| {
            house.copy("supplicant_if", "supplicant_eth0");
            fs::create_dir(house.service("supplicant_eth0/env")).unwrap();
            let knob =
                |name: &str, value: &str| fs::write(house.service("supplicant_eth0/env").join(name), value).unwrap();
            knob("SUPPLICANT_ARGS", "-D wired");
            knob("SUPPLICANT", original("wpa_supplicant").unwrap().to_str().unwrap());
            let text = "ap_scan=0\nnetwork={\n\tkey_mgmt=IEEE8021X\n\teap=MD5\n\tidentity=\"a\"\n\tpassword=\"b\"\n}\n";
            fs::write(house.service("supplicant_eth0/wpa_supplicant.conf"), text).unwrap();
            house.start();
            wait_until("associated", SOON, || house.log("supplicant_eth0").contains("eth0: Associated with"));
            house.sv(&["-w10", "down", "supplicant_eth0"]);
        });
    });
}

/// The appliance with both uplinks leased and judged; eth0 is preferred.
fn online(lab: &Lab) -> (TwoUplinks, Appliance) {
    ours(lab);
    let world = TwoUplinks::build(lab);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
    let links = ["eth0", "eth1"].map(|i| [format!("ifplugd_{i}"), format!("dhcp_{i}"), format!("dhcp_{i}_pinger")]);
    let names: Vec<&str> = links.iter().flatten().map(String::as_str).chain(["fw"]).collect();
    let mut appliance = Appliance::prepare(lab, &world.home, &sources, &names);
    appliance.write("fw/fw.conf", FW_CONF);
    appliance.write("fw/conf/lan.ipconf", LAN_IPCONF);
    for interface in ["eth0", "eth1"] {
        appliance.write(&format!("dhcp_{interface}_pinger/env/PINGER_ARGS"), "--hold-down 2");
    }
    appliance.start();
    world.isp_a.cable.plug();
    world.isp_b.cable.plug();
    wait_until("two good default routes, eth0 first", SOON, || both_good(&world));
    for interface in ["eth0", "eth1"] {
        wait_health(Path::new("/run/service/fw"), interface, Some("up"));
    }
    wait_until("the LAN host reaches the internet", SOON, || world.lan.pings(&TARGET.to_string()));
    (world, appliance)
}

/// Metrics of the default routes of eth0 and eth1.
fn metrics(world: &TwoUplinks) -> [Option<u64>; 2] {
    let routes = world.home.default_routes();
    ["eth0", "eth1"].map(|name| routes.iter().find(|(interface, ..)| interface == name).map(|(.., metric)| *metric))
}

fn both_good(world: &TwoUplinks) -> bool {
    metrics(world) == [Some(100), Some(200)]
}

#[test]
fn a_silent_router_moves_the_traffic_and_gets_it_back_without_loss() {
    isolated(&["nft"], |lab| {
        let (world, appliance) = online(lab);
        let probe = |net: &str| Probe::start(Some(net), TARGET, Duration::from_millis(2)).unwrap();
        let (lan, home) = (probe("lan"), probe("home"));
        world.isp_a.net.silence("customer");
        let silent = Instant::now();
        wait_until("eth1 is the best uplink", SOON, || metrics(&world) == [Some(20_100), Some(200)]);
        for probe in [&lan, &home] {
            wait_until("packets flow", SOON, || probe.first_answer(silent + Duration::from_millis(500)).is_some());
        }
        println!("moved after {:?}", lan.first_answer(silent + Duration::from_millis(500)).unwrap() - silent);
        assert_eq!(world.home.ip_json(&["link", "show", "dev", "eth0"])[0]["operstate"], "UP");
        assert!(world.home.addresses("eth0") == ["192.0.2.100/24"], "the lease stands");

        let answered = |probe: &Probe, at: Instant| probe.first_answer(at).is_some() && probe.recovered(at).is_some();
        let from = Instant::now();
        wait_until("steady", SOON, || answered(&lan, from) && answered(&home, from));
        let from = Instant::now();
        world.isp_a.net.speak();
        wait_until("eth0 is the best uplink again", SOON, || both_good(&world));
        let to = Instant::now();
        wait_until("answers after the act", SOON, || answered(&lan, to) && answered(&home, to));
        assert_eq!(home.loss(from, to).lost, 0, "lost by the appliance on the way back");
        assert!(lan.loss(from, to).lost <= 1, "lost by the LAN host on the way back: {:?}", lan.loss(from, to));
        drop(appliance);
    });
}

#[test]
fn when_both_uplinks_are_bad_the_last_best_stays() {
    isolated(&["nft"], |lab| {
        let (world, appliance) = online(lab);
        let dynamic = Path::new("/run/service/fw");
        world.isp_a.net.silence("customer");
        wait_until("eth1 is the best uplink", SOON, || metrics(&world) == [Some(20_100), Some(200)]);
        let monitor = world.home.spawn(&["ip", "monitor", "route"]);
        world.isp_b.net.silence("customer");
        wait_health(dynamic, "eth1", Some("down"));
        let is_done = || appliance.run(&["sv", "status", "fw"]).starts_with("down: fw");
        wait_until("fw has run", SOON, is_done);
        holds_for("eth1 stays", QUIET, || metrics(&world) == [Some(20_100), Some(200)]);
        assert!(!monitor.log().contains("default"), "{}", monitor.log());
        // fw uses the router that comes back at once; then the other uplink goes behind it.
        world.isp_a.net.speak();
        wait_until("eth0 is the best uplink", SOON, || metrics(&world) == [Some(100), Some(20_200)]);
        world.isp_b.net.speak();
        wait_until("both", SOON, || both_good(&world));
    });
}

#[test]
fn a_killed_pinger_of_the_appliance_is_back_and_still_sees_the_router() {
    isolated(&["nft"], |lab| {
        let (world, appliance) = online(lab);
        let kill = || {
            let old = appliance.service_pid("dhcp_eth0_pinger").unwrap();
            kill_9(old);
            appliance.wait_new_pid("dhcp_eth0_pinger", old, SOON);
        };
        kill();
        assert!(both_good(&world));
        world.isp_a.net.silence("customer");
        wait_until("eth1 is the best uplink", SOON, || metrics(&world) == [Some(20_100), Some(200)]);
        kill();
        holds_for("demoted it stays", QUIET, || metrics(&world) == [Some(20_100), Some(200)]);
        world.isp_a.net.speak();
        wait_until("both", SOON, || both_good(&world));
        // A stopped pinger's verdict does not outlive it.
        world.isp_a.net.silence("customer");
        wait_until("eth1 is the best uplink", SOON, || metrics(&world) == [Some(20_100), Some(200)]);
        appliance.run(&["sv", "down", "dhcp_eth0_pinger"]);
        wait_until("nobody says that it is bad", SOON, || both_good(&world));
        assert_eq!(health(Path::new("/run/service/fw"), "eth0"), None);
    });
}

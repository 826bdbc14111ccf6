//! fw and links: bridges of static records under packets, under other programs and under lost
//! files. tests/vm has the VLANs, which not every kernel can make.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]
#![expect(clippy::disallowed_methods, reason = "marks moments between pings")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use testkit::appliance::Appliance;
use testkit::probe::Probe;
use testkit::talk::{Over, answer, ask};
use testkit::{Lab, Net, Value, isolated, wait_for, wait_until};

use crate::fw::{SOON, World};
use crate::fw_packets::probe;
use crate::{dnsmasq_argv, ours};

/// The LAN of the world on a bridge, and on its port alone.
const BRIDGED: &str = "if=br0 ipmask=192.168.5.1/24 bridge='lan0+lan1'";
const PLAIN: &str = "if=lan0 ipmask=192.168.5.1/24";

/// A world with a second port for the LAN, and a host behind it.
fn two_ports(lab: &Lab) -> (World, Net) {
    let w = World::leased(lab);
    let other = lab.net("other");
    lab.cable((&w.home, "lan1"), (&other, "port"));
    other.address("port", "192.168.5.3/24");
    (w, other)
}

/// Writes the LAN's record; `+` stands for a blank in a value.
fn lan(w: &World, fields: &str) {
    let text: String =
        fields.split(' ').map(|f| format!("{}\n", f.replacen('=', "[$cfg]=", 1).replace('+', " "))).collect();
    w.write("conf/lan.ipconf", &format!("let cfg=cfg+1\n{text}"));
}

/// How often a port in use joins a bridge and leaves it.
const ROUNDS: usize = 5;
/// What the kernel itself drops in most rounds, each way: a frame that comes in after the port has
/// come to the bridge and before it forwards (br_add_if of net/bridge/br_if.c), or after it has
/// stopped to forward and before it has left (del_nbp), a fifth of a millisecond of an idle
/// machine. Where other programs take the processor just then it is more, in that round. A wrong
/// order of fw's costs a hundred and more in every round: a neighbour that is asked for on the
/// wrong link, or an address that is looked for again, takes a second.
const LOST_BY_KERNEL: usize = 8;

fn link(net: &Net, name: &str) -> Value {
    net.ip_json(&["-d", "link", "show", "dev", name])[0].clone()
}

fn is_there(net: &Net, name: &str) -> bool {
    net.ip_json(&["link", "show"]).as_array().unwrap().iter().any(|l| l["ifname"] == name)
}

fn master(net: &Net, name: &str) -> Option<String> {
    link(net, name)["master"].as_str().map(str::to_owned)
}

#[test]
fn a_port_in_use_goes_into_a_bridge_and_back_and_loses_no_more_than_the_kernel_does() {
    isolated(&["nft", "ping"], |lab| {
        let (w, other) = two_ports(lab);
        let pings = [probe(&w.lan, "192.168.5.1"), probe(&w.lan, "198.51.100.1"), probe(&w.home, "192.168.5.2")];
        let mut losses = Vec::new();
        for _ in 0..ROUNDS {
            let from = Instant::now();
            lan(&w, BRIDGED);
            w.apply();
            losses.push(pings.each_ref().map(|probe| lost_since(probe, from)));
            assert_eq!(w.fw("plan"), (0, String::new()));
            assert_eq!(
                (master(&w.home, "lan0").as_deref(), master(&w.home, "lan1").as_deref()),
                (Some("br0"), Some("br0"))
            );
            assert_eq!(w.home.addresses("br0"), ["192.168.5.1/24"]);
            wait_until("the host behind the other port", SOON, || other.pings("192.168.5.1"));
            assert!(w.lan.pings("192.168.5.3"), "from port to port");
            let bridge = link(&w.home, "br0");
            assert_eq!(bridge["address"], link(&w.home, "lan0")["address"]);
            let data = &bridge["linkinfo"]["info_data"];
            assert_eq!((&data["stp_state"], &data["forward_delay"]), (&Value::from(0), &Value::from(0)));
            let from = Instant::now();
            lan(&w, PLAIN);
            w.apply();
            losses.push(pings.each_ref().map(|probe| lost_since(probe, from)));
            assert_eq!(w.fw("plan"), (0, String::new()));
            assert_eq!((master(&w.home, "lan0"), w.home.addresses("lan0")), (None, vec!["192.168.5.1/24".to_owned()]));
            assert!(!is_there(&w.home, "br0"));
        }
        for (n, _) in pings.iter().enumerate() {
            for (direction, what) in ["into the bridge", "back"].iter().enumerate() {
                let mut lost: Vec<usize> = losses.iter().skip(direction).step_by(2).map(|all| all[n]).collect();
                lost.sort_unstable();
                assert!(lost[ROUNDS / 2] <= LOST_BY_KERNEL, "{what}, probe {n}: {lost:?} of {losses:?}");
            }
        }
    });
}

/// How many pings were lost until they were answered again.
fn lost_since(probe: &Probe, from: Instant) -> usize {
    let now = Instant::now();
    let answered = wait_for("an answer", SOON, || probe.first_answer(now));
    wait_until("what was on its way then", SOON, || probe.first_answer(answered).is_some());
    let loss = probe.loss(from, answered);
    assert!(loss.sent > 0, "{loss:?}");
    loss.lost
}

#[test]
fn an_ipv6_address_moves_onto_the_bridge_and_answers_at_once() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::leased(lab);
        w.lan.ip(&["address", "add", "fd00:5::2/64", "dev", "port", "nodad"]);
        let six = |name: &str, bridge: &str| {
            w.write("conf/six.ipconf", &format!("let cfg=cfg+1\nif[$cfg]={name}\nipmask[$cfg]=fd00:5::1/64\n"));
            lan(&w, bridge);
            w.apply();
        };
        six("lan0", PLAIN);
        wait_until("the first answer", SOON, || w.lan.pings("fd00:5::1"));
        let ping = w.lan.spawn(&["ping", "-6", "-n", "-i", "0.002", "-c", "1000", "fd00:5::1"]);
        ping.wait_log("icmp_seq=20 ", SOON);
        six("br0", "if=br0 ipmask=192.168.5.1/24 bridge=lan0");
        ping.wait_log("icmp_seq=400 ", SOON);
        six("lan0", PLAIN);
        ping.wait_log("packets transmitted", SOON);
        let log = ping.log();
        let received = log.rsplit_once(" received").and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok());
        assert!(received.is_some_and(|received: usize| received >= 1000 - LOST_BY_KERNEL), "{received:?}");
    });
}

#[test]
fn ports_come_and_go_and_the_bridge_keeps_its_address() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::leased(lab);
        lan(&w, "if=br0 ipmask=192.168.5.1/24 bridge='lan0+lan1'");
        assert_eq!(
            w.fw("apply"),
            (
                0,
                format!("fw: {}/conf/lan.ipconf:1: no interface lan1 yet: the next run looks again\n", w.dir.display())
            )
        );
        let address = link(&w.home, "br0")["address"].clone();
        let other = lab.net("other");
        lab.cable((&w.home, "lan1"), (&other, "port"));
        other.address("port", "192.168.5.3/24");
        w.apply();
        wait_until("the host behind the new port", SOON, || other.pings("192.168.5.1"));
        w.home.ip(&["link", "del", "lan0"]);
        assert_eq!(link(&w.home, "br0")["address"], address);
        assert!(other.pings("192.168.5.1"), "it does not need the first port");
        // The whole bridge goes, by another program.
        w.home.ip(&["link", "del", "br0"]);
        assert_eq!(w.fw("apply").0, 0);
        assert_eq!((master(&w.home, "lan1").as_deref(), w.home.addresses("br0").len()), (Some("br0"), 1));
    });
}

#[test]
fn other_programs_bridges_and_ports_stay_theirs_and_ours_are_known_without_our_files() {
    isolated(&["nft"], |lab| {
        let (w, _other) = two_ports(lab);
        w.home.ip(&["link", "add", "br0", "type", "bridge"]);
        w.home.ip(&["link", "add", "vnet0", "type", "veth", "peer", "name", "vm"]);
        w.home.ip(&["link", "set", "vnet0", "master", "br0"]);
        let foreign = |w: &World| {
            let bridge = link(&w.home, "br0");
            [&bridge["ifindex"], &bridge["group"], &link(&w.home, "vnet0")["master"]].map(Value::to_string)
        };
        let before = foreign(&w);
        lan(&w, BRIDGED);
        w.apply();
        assert_eq!((master(&w.home, "lan0").as_deref(), foreign(&w)), (Some("br0"), before.clone()));
        lan(&w, PLAIN);
        w.apply();
        assert_eq!((master(&w.home, "lan0"), foreign(&w)), (None, before));

        // Ours, with a port of another program, and /run is lost.
        w.home.ip(&["link", "del", "br0"]);
        lan(&w, BRIDGED);
        w.apply();
        w.home.ip(&["link", "set", "vnet0", "master", "br0"]);
        w.remove("dyn/.memory");
        lan(&w, PLAIN);
        assert_eq!(w.fw("apply"), (0, "fw: link br0 stays: vnet0 needs it\n".to_owned()));
        assert_eq!((master(&w.home, "lan0"), master(&w.home, "vnet0").as_deref()), (None, Some("br0")));
        w.home.ip(&["link", "set", "vnet0", "nomaster"]);
        w.apply();
        assert!(!is_there(&w.home, "br0"));
        // A port with an address: an error with both places, and the network goes on.
        lan(&w, BRIDGED);
        w.apply();
        w.write("conf/odd.ipconf", "let cfg=cfg+1\nif[$cfg]=lan0\nipmask[$cfg]=10.9.0.1/24\n");
        let (status, said) = w.fw("apply");
        let place = |name: &str| format!("{}/conf/{name}.ipconf:1", w.dir.display());
        let want = format!(
            "fw: error: {}: an address of lan0, which is a port of br0 ({}): give it to br0; until then nothing changes\n",
            place("odd"),
            place("lan")
        );
        assert_eq!((status, said), (1, want));
        assert_eq!((master(&w.home, "lan0").as_deref(), w.home.addresses("lan0").len()), (Some("br0"), 0));
    });
}

#[test]
fn an_ethernet_address_an_mtu_and_a_mode_are_set_and_given_back() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let shown = |w: &World| {
            let l = link(&w.home, "lan0");
            [&l["address"], &l["mtu"], &l["inet6_addr_gen_mode"]].map(Value::to_string)
        };
        let before = shown(&w);
        lan(&w, "if=lan0 ipmask=192.168.5.1/24 mac=02:00:00:00:77:01 mtu=2000 addr_gen=none");
        w.apply();
        assert_eq!(shown(&w), ["\"02:00:00:00:77:01\"", "2000", "\"none\""]);
        assert_eq!(w.fw("plan"), (0, String::new()));
        lan(&w, PLAIN);
        w.apply();
        assert_eq!(shown(&w), before);
        // A daemon has no say in it.
        w.record("dyn/dhcp_lan0", "if=lan0 mac=02:00:00:00:77:02 bridge=lan1 mtu=9000");
        let (status, said) = w.fw("apply");
        assert_eq!((status, said.lines().count(), shown(&w)), (0, 3, before), "{said}");
        assert!(said.contains("lan0 is outside now: "), "a daemon cares for it: {said}");
        assert!(
            said.contains("dhcp_lan0.ipconf:3: bad mac: 02:00:00:00:77:02 (only a static record says so): left out"),
            "{said}"
        );
        w.apply();
    });
}

#[test]
fn a_bridge_that_no_record_declares_is_closed_from_its_first_packet_on() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::new(lab);
        w.remove("conf/lan.ipconf");
        w.write("conf/wan.ipconf", "let cfg=cfg+1\nif[$cfg]=br0\nbridge[$cfg]='eth0 eth1'\n");
        // Another program gives it an address: fw has not.
        w.apply();
        w.home.address("br0", "10.0.0.5/24");
        wait_until("the bridge", SOON, || w.isp[0].pings("10.0.0.5"));
        answer(&w.home, "0.0.0.0:8022", "router");
        let reached = || ask(&w.isp[0], Over::Tcp, None, "10.0.0.5:8022", SOON);
        assert_eq!(reached(), None, "no run has seen it yet");
        assert_eq!(w.fw("apply").0, 0);
        assert_eq!(reached(), None);
    });
}

/// The services of a bridge that fw makes after they have started.
const OF_THE_BRIDGE: [&str; 4] = ["fw", "dhcp_br0", "zcip_br0", "ifplugd_br0"];

#[test]
fn the_services_of_a_bridge_wait_until_fw_has_made_it() {
    isolated(&["dnsmasq"], |lab| {
        ours(lab);
        let (home, isp) = (lab.net("home"), lab.net("isp"));
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
        let mut appliance = Appliance::prepare(lab, &home, &sources, &OF_THE_BRIDGE);
        appliance.write("fw/fw.conf", "extif=br0\n");
        appliance.write("fw/conf/bridge.ipconf", "let cfg=cfg+1\nif[$cfg]=br0\nbridge[$cfg]='eth0 eth1'\n");
        appliance.write("fw/down", "");
        appliance.start();
        for (service, said) in [("dhcp_br0", "waiting for"), ("ifplugd_br0", "no such interface: br0, waiting for it")]
        {
            let log = appliance.log_file(service);
            wait_until(service, SOON, || fs::read_to_string(&log).is_ok_and(|text| text.contains(said)));
        }
        lab.cable((&home, "eth0"), (&isp, "lan"));
        isp.address("lan", "192.0.2.1/24");
        let server = isp.spawn(&dnsmasq_argv("lan", &["--dhcp-range=192.0.2.10,192.0.2.20,1h"]));
        server.wait_log("DHCP, IP range", SOON);
        let pids = ["dhcp_br0", "zcip_br0"].map(|service| appliance.service_pid(service));
        appliance.run(&["sv", "up", "fw"]);
        wait_until("a default route by the bridge", 2 * SOON, || {
            home.default_routes().first().is_some_and(|(name, _, _)| name == "br0")
        });
        wait_until("the link-local address", 4 * SOON, || {
            home.addresses("br0").iter().any(|a| a.starts_with("169.254."))
        });
        assert_eq!(["dhcp_br0", "zcip_br0"].map(|service| appliance.service_pid(service)), pids, "they went on");
        assert!(home.addresses("br0").iter().any(|a| a.starts_with("192.0.2.")), "{:?}", home.addresses("br0"));
        assert_eq!(master(&home, "eth0").as_deref(), Some("br0"));
    });
}

#[test]
fn killed_at_any_moment_fw_makes_the_same_of_what_it_finds() {
    isolated(&["nft", "ping"], |lab| {
        let (w, _other) = two_ports(lab);
        for round in 0..40 {
            lan(&w, if round % 2 == 0 { BRIDGED } else { PLAIN });
            let mut run = w.command(&["fw"], "apply").spawn().unwrap();
            // A run takes some milliseconds.
            let killed = Instant::now() + Duration::from_micros(300 * round);
            wait_until("the moment", SOON, || Instant::now() >= killed);
            run.kill().unwrap();
            run.wait().unwrap();
            // The nft of the killed run goes on, and may load its table after that of the next run.
            wait_until("nothing is left to do", SOON, || {
                w.fw("apply");
                w.fw("plan") == (0, String::new())
            });
            let port = master(&w.home, "lan0");
            match round % 2 {
                0 => assert_eq!((port.as_deref(), w.home.addresses("br0").len()), (Some("br0"), 1), "round {round}"),
                _ => assert_eq!((port, is_there(&w.home, "br0")), (None, false), "round {round}"),
            }
            assert_eq!(link(&w.home, "lan0")["group"], if round % 2 == 0 { "213" } else { "default" });
        }
        assert!(w.lan.pings("192.168.5.1"));
    });
}

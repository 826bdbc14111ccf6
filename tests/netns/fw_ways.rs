//! fw and two uplinks: an answer leaves by the uplink on which the question arrived.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]
#![expect(clippy::disallowed_methods, reason = "kills at different moments of a run")]

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::{Lab, Net, isolated, wait_until};

use crate::fw::{SOON, World, fw_path, list, program};

/// A host behind each provider has this address: the answer to a packet that left by the wrong
/// provider never arrives.
const FAR: &str = "198.51.100.1";

/// The providers ask from [`FAR`].
fn ask_from_far(w: &World) {
    for (n, isp) in w.isp.iter().enumerate() {
        isp.ip(&["route", "add", &format!("10.{n}.0.5"), "dev", "cust", "src", FAR]);
    }
}

fn is_answered(far: &Net, to: &str, port: &str) -> bool {
    let talk = format!("exec 3<>/dev/tcp/{to}/{port} && echo hello >&3 && read -r word <&3 && echo $word");
    String::from_utf8_lossy(&far.try_run(&["timeout", "2", "bash", "-c", &talk]).stdout) == "hello\n"
}

fn echo_server(net: &Net, port: &str) -> testkit::Proc {
    let server = net.spawn(&["busybox", "nc", "-ll", "-p", port, "-e", "cat"]);
    let listens = || net.run(&["ss", "-Hltn"]).contains(&format!(":{port} "));
    wait_until("the server listens", SOON, listens);
    server
}

/// Our rules of a family.
fn rules(net: &Net, family: &str) -> Vec<String> {
    let rules = net.ip(&[family, "-N", "rule"]);
    let mut rules: Vec<String> = rules.lines().filter(|l| l.contains("proto 213")).map(str::to_owned).collect();
    rules.sort();
    rules
}

/// The route that the kernel chooses for a packet with this source.
fn route_from(net: &Net, source: &str) -> String {
    net.ip_json(&["route", "get", FAR, "from", source])[0]["dev"].as_str().unwrap().to_owned()
}

fn tables(net: &Net) -> Vec<String> {
    let routes = net.ip(&["-N", "route", "show", "table", "all", "proto", "213"]);
    routes.lines().filter(|l| l.contains("table 213")).map(str::to_owned).collect()
}

#[test]
fn the_router_itself_answers_by_the_uplink_that_was_asked() {
    isolated(&["nft", "bash", "busybox", "ping", "ss"], |lab| {
        let w = World::leased(lab);
        w.write("fw.conf", "ext_open_tcp=\"8022\"\n");
        w.apply();
        ask_from_far(&w);
        let _server = echo_server(&w.home, "8022");
        for (n, far) in w.isp.iter().enumerate() {
            let address = format!("10.{n}.0.5");
            assert!(is_answered(far, &address, "8022"), "by {address}");
            assert!(far.try_run(&["ping", "-n", "-c1", "-W1", "-I", FAR, &address]).status.success(), "by {address}");
            assert!(w.lan.pings(&address), "and to the LAN");
        }
        w.health(0, "down");
        w.apply();
        assert!(
            w.isp.iter().zip(["10.0.0.5", "10.1.0.5"]).all(|(far, a)| is_answered(far, a, "8022")),
            "demoted or not"
        );
    });
}

#[test]
fn hosts_behind_it_answer_by_the_uplink_that_was_asked() {
    isolated(&["nft", "bash", "busybox", "ss"], |lab| {
        let w = World::leased(lab);
        ask_from_far(&w);
        // A port forward and marks of the administrator. Only the upper byte of both marks is ours.
        w.home.run(&[
            "nft",
            "add table ip mine
             add chain ip mine pre { type nat hook prerouting priority dstnat; }
             add rule ip mine pre iifname { eth0, eth1 } tcp dport 8080 dnat to 192.168.5.2:8024
             add chain ip mine raw { type filter hook prerouting priority -160; }
             add rule ip mine raw ct state new ct mark set 0x4077
             add rule ip mine raw meta mark set 0x33
             add chain ip mine out { type filter hook forward priority 0; }
             add rule ip mine out oifname eth1 ct mark & 0xffffff == 0x4077 meta mark & 0xffffff == 0x33 counter",
        ]);
        let _server = echo_server(&w.lan, "8024");
        for (n, far) in w.isp.iter().enumerate() {
            assert!(is_answered(far, &format!("10.{n}.0.5"), "8080"), "by uplink {n}");
        }
        // The whole mark of a connection on each of its packets, as many administrators set it.
        w.home.run(&["nft", "add chain ip mine whole { type filter hook prerouting priority -140; }"]);
        w.home.run(&["nft", "add rule ip mine whole meta mark set ct mark"]);
        for (n, far) in w.isp.iter().enumerate() {
            assert!(is_answered(far, &format!("10.{n}.0.5"), "8080"), "by uplink {n}, with marks on questions");
        }
        let counted = w.home.run(&["nft", "list", "chain", "ip", "mine", "out"]);
        assert!(counted.contains("counter packets ") && !counted.contains("packets 0 "), "{counted}");
    });
}

#[test]
fn two_uplinks_with_the_same_address_still_back_each_other_up() {
    isolated(&["nft", "ping", "bash", "busybox", "ss"], |lab| {
        let w = World::new(lab);
        w.isp[1].address("cust", "10.0.0.1/24");
        for n in [0, 1] {
            w.record(&format!("dyn/dhcp_eth{n}"), &format!("if=eth{n} ipmask=10.0.0.5/24 gw=10.0.0.1"));
        }
        w.apply();
        let _server = echo_server(&w.isp[1], "7000");
        w.isp[0].ip(&["address", "del", FAR, "dev", "lo"]);
        w.health(0, "down");
        w.apply();
        assert_eq!(route_from(&w.home, "10.0.0.5"), "eth1", "{}", w.home.ip(&["rule"]));
        assert!(is_answered(&w.home, FAR, "7000") && w.home.pings(FAR));
        assert_eq!(w.fw("plan"), (0, String::new()));
    });
}

/// A connection runs over eth1, as over wifi; then eth0 comes and is preferred.
fn a_connection_survives(w: &World, lab: &Lab, lease: impl Fn(usize)) {
    w.write("fw.conf", "preferred_default_route_iface=\"eth0\"\n");
    lease(1);
    w.apply();
    let _server = echo_server(&w.isp[1], "7000");
    let talk = format!(
        "exec 3<>/dev/tcp/{FAR}/7000; say() {{ echo $1 >&3; read -t 3 -r word <&3 && echo answered $word; }}\n\
         say one; until [ -e {0}/go ]; do sleep 0.01; done; say two",
        lab.dir().display()
    );
    let talk = w.home.spawn(&["bash", "-c", &talk]);
    talk.wait_log("answered one", SOON);
    lease(0);
    w.apply();
    assert_eq!(w.home.route_to(FAR).as_deref(), Some("eth0"), "what is new goes by the wire");
    fs::write(lab.dir().join("go"), "").unwrap();
    talk.wait_log("answered two", SOON);
}

#[test]
fn a_connection_over_wifi_survives_the_wire() {
    isolated(&["nft", "bash", "busybox", "ss"], |lab| {
        let w = World::new(lab);
        a_connection_survives(&w, lab, |n| w.lease(n, 3600));
    });
}

#[test]
fn a_connection_over_wifi_survives_a_wire_into_a_network_of_the_same_numbers() {
    isolated(&["nft", "bash", "busybox", "ss"], |lab| {
        let w = World::new(lab);
        w.isp[1].address("cust", "10.0.0.1/24");
        a_connection_survives(&w, lab, |n| {
            w.record(&format!("dyn/dhcp_eth{n}"), &format!("if=eth{n} ipmask=10.0.0.{}/24 gw=10.0.0.1", n + 5));
        });
        let reaches =
            |source: &str| w.home.try_run(&["ping", "-n", "-c1", "-W1", "-I", source, "10.0.0.1"]).status.success();
        assert!(reaches("10.0.0.5") && reaches("10.0.0.6"), "each its own router");
    });
}

#[test]
fn rules_and_tables_are_there_from_the_first_uplink_on_and_others_stay() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.home.ip(&["rule", "add", "from", "10.1.0.5", "lookup", "77"]);
        w.home.ip(&["route", "add", "blackhole", "192.0.2.77", "table", "213001"]);
        let foreign =
            || w.home.ip(&["rule"]).lines().filter(|l| !l.contains("proto")).map(str::to_owned).collect::<Vec<_>>();
        let before = foreign();
        w.lease(0, 3600);
        w.apply();
        let first = (rules(&w.home, "-4"), tables(&w.home));
        assert_eq!((first.0.len(), first.1.len()), (4, 2), "{first:?}");
        assert!(!first.0.iter().any(|r| r.starts_with("32763")), "none around the main table: {first:?}");
        w.lease(1, 3600);
        w.apply();
        assert_eq!(rules(&w.home, "-4").len(), 12, "{}", w.home.ip(&["rule"]));
        assert_eq!(tables(&w.home).len(), 4, "{:?}", tables(&w.home));
        assert_eq!(rules(&w.home, "-6"), [] as [&str; 0]);
        let mut new = rules(&w.home, "-4");
        new.iter_mut().for_each(|r| *r = r.replace("10.1.0.5", "10.1.0.77"));
        new.sort();
        w.record("dyn/dhcp_eth1", "if=eth1 ipmask=10.1.0.77/24 gw=10.1.0.1");
        w.apply();
        assert_eq!(rules(&w.home, "-4"), new);
        w.remove("dyn/dhcp_eth1.ipconf");
        w.apply();
        assert_eq!((rules(&w.home, "-4"), tables(&w.home)), first);
        w.remove("dyn/dhcp_eth0.ipconf");
        w.apply();
        assert_eq!((rules(&w.home, "-4"), tables(&w.home)), (vec![], vec![]));
        assert_eq!(foreign(), before);
        assert!(w.home.ip(&["route", "show", "table", "213001"]).contains("192.0.2.77"));
        assert_eq!(w.fw("plan"), (0, String::new()));
    });
}

#[test]
fn the_uplinks_that_fw_conf_names_have_the_same_tables_whichever_lease_comes_first() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.write("fw.conf", "uplinks=\"eth1 eth0\"\n");
        for first in [0, 1] {
            for n in [first, 1 - first] {
                w.lease(n, 3600);
                w.apply();
                let found = tables(&w.home);
                let is_of = |line: &String| match line.contains(" dev eth1 ") {
                    true => line.contains("table 213001"),
                    false => line.contains(" dev eth0 ") && line.contains("table 213002"),
                };
                assert!(!found.is_empty() && found.iter().all(is_of), "{first}: {found:?}");
            }
            // The next boot knows nothing of this one.
            w.remove("dyn/dhcp_eth0.ipconf");
            w.remove("dyn/dhcp_eth1.ipconf");
            w.apply();
            w.remove("dyn/.memory");
        }
    });
}

#[test]
fn a_table_for_uplinks_that_are_named_is_loaded_once() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.write("fw.conf", "extif=\"eth0 eth1\"\n");
        w.apply();
        let table = || w.home.run(&["nft", "-a", "list", "table", "inet", "netsv"]);
        let before = table();
        assert!(before.contains("ct mark"), "{before}");
        for n in [0, 1] {
            w.lease(n, 3600);
            w.apply();
            assert_eq!(table(), before, "handles and all");
        }
        assert_eq!(rules(&w.home, "-4").len(), 12, "{}", w.home.ip(&["rule"]));
    });
}

#[test]
fn the_way_of_a_dead_link_leads_to_the_other_uplink() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        assert_eq!(["10.0.0.5", "10.1.0.5"].map(|a| route_from(&w.home, a)), ["eth0", "eth1"]);
        w.cables[1].pull();
        wait_until("no hole", SOON, || route_from(&w.home, "10.1.0.5") == "eth0");
        w.cables[1].plug();
        wait_until("its own again", SOON, || route_from(&w.home, "10.1.0.5") == "eth1");
        w.home.ip(&["link", "set", "eth1", "down"]);
        assert_eq!(route_from(&w.home, "10.1.0.5"), "eth0");
        w.apply();
        assert_eq!(route_from(&w.home, "10.1.0.5"), "eth1", "{}", w.home.ip(&["rule"]));
    });
}

#[test]
fn nothing_gets_round_a_default_route_of_a_vpn() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.home.ip(&["link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1"]);
        for end in ["vpn0", "vpn1"] {
            w.home.ip(&["link", "set", end, "up"]);
        }
        w.home.ip(&["route", "add", "default", "dev", "vpn0", "metric", "50"]);
        w.apply();
        assert_eq!((rules(&w.home, "-4"), route_from(&w.home, "10.1.0.5")), (vec![], "vpn0".to_owned()));
        w.home.ip(&["route", "del", "default", "dev", "vpn0"]);
        w.apply();
        // This VPN has rules without a number, and the kernel puts them before ours.
        w.home.ip(&["route", "add", "default", "dev", "vpn0", "table", "51820"]);
        w.home.ip(&["rule", "add", "not", "fwmark", "51820", "lookup", "51820"]);
        assert_eq!(route_from(&w.home, "10.1.0.5"), "vpn0");
    });
}

#[test]
fn killed_at_any_moment_it_leaves_no_hole_and_the_next_run_completes_it() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::leased(lab);
        let whole = (rules(&w.home, "-4"), tables(&w.home));
        let fw = fw_path(lab);
        for round in 0..40u64 {
            match round % 2 {
                0 => w.remove("dyn/dhcp_eth1.ipconf"),
                _ => w.lease(1, 3600),
            }
            let run = w.home.spawn_command("fw", w.command(&[&fw], "apply"));
            std::thread::sleep(Duration::from_micros(round * 500));
            run.signal(Signal::SIGKILL);
            drop(run);
            assert!(w.lan.pings(FAR), "round {round}");
        }
        w.apply();
        assert_eq!((rules(&w.home, "-4"), tables(&w.home)), whole);
        // One half of the objects, as no run leaves them: rules without routes lead on, routes
        // without rules have no effect.
        w.home.ip(&["route", "flush", "table", "213002"]);
        assert_eq!(route_from(&w.home, "10.1.0.5"), "eth0");
        w.home.ip(&["rule", "del", "from", "10.0.0.5", "lookup", "213001", "priority", "32765"]);
        assert_eq!(route_from(&w.home, "10.0.0.5"), "eth0");
        w.apply();
        assert_eq!((rules(&w.home, "-4"), tables(&w.home)), whole);
    });
}

#[test]
fn ipv6_uplinks_have_their_ways_too() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        for n in [0, 1] {
            w.record(&format!("conf/six{n}"), &format!("if=eth{n} ipmask=2001:db8:{n}::5/64 gw=2001:db8:{n}::1"));
        }
        w.apply();
        assert_eq!(rules(&w.home, "-6").len(), 12, "{}", w.home.ip(&["-6", "rule"]));
        assert_eq!(rules(&w.home, "-4"), [] as [&str; 0]);
        assert_eq!(w.fw("plan"), (0, String::new()));
        let out = |n: usize| {
            let source = format!("2001:db8:{n}::5");
            let routes = w.home.ip_json(&["-6", "route", "get", "2001:db8:ffff::1", "from", &source]);
            list(&routes)[0]["dev"].as_str().unwrap().to_owned()
        };
        assert_eq!([out(0), out(1)], ["eth0", "eth1"]);
    });
}

/// Each feature of a kernel that may be missing: the words that nft refuses then, what is said, and
/// a word of the table that goes with it.
const LACKS: [(&str, &str, &str); 7] = [
    ("ct mark", "this kernel marks no connections", "ct mark"),
    ("masquerade", "this kernel translates no addresses", "masquerade"),
    ("fib ", "this kernel's nft knows no types of addresses", "fib "),
    ("reject", "this kernel's nft refuses nothing", "reject"),
    ("maxseg", "this kernel's nft clamps no MSS", "maxseg"),
    ("iifkind", "this kernel's nft knows no kinds of links", "iifkind"),
    ("log prefix", "this kernel's nft writes no log", "log prefix"),
];

#[test]
fn a_kernel_that_lacks_something_has_the_rest_of_the_firewall() {
    isolated(&["nft", "ping", "busybox"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        w.lease(1, 3600);
        w.write("fw.conf", "log_drops=\"10/minute\"\n");
        let _service = w.home.spawn(&["busybox", "nc", "-ll", "-p", "8022", "-e", "true"]);
        let asks =
            |net: &Net, to: &str| net.try_run(&["busybox", "nc", "-w", "1", to, "8022", "-e", "true"]).status.success();
        wait_until("the service", SOON, || asks(&w.home, "127.0.0.1"));
        let argv = ["env", "PATH=/run/lab/only:/usr/bin:/bin", &fw_path(lab)];
        let run = || {
            let output = w.command(&argv, "apply").output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let lists = |refused: &str| {
            let body = format!(
                "text=$(cat)\ncase $text in *\"{refused}\"*) echo 'Error: Could not process rule: Not supported' >&2; \
                 exit 1; esac\nprintf '%s\\n' \"$text\" | /usr/sbin/nft \"$@\""
            );
            program(&lab.make_dir("only").join("nft"), &body);
        };
        for (refused, said, word) in LACKS {
            w.home.run(&["nft", "flush", "ruleset"]);
            lists(refused);
            let (code, text) = run();
            assert!(code == Some(0) && text.starts_with(&format!("fw: {said}")), "{refused}: {text}");
            assert_eq!(text.lines().count(), 1, "{refused}: {text}");
            let table = w.nft();
            // A rule that masquerades also looks at types of addresses.
            let others =
                LACKS.iter().filter(|(other, ..)| *other != refused && (refused, *other) != ("masquerade", "fib "));
            assert!(
                !table.contains(word) && others.clone().all(|(.., word)| table.contains(word)),
                "{refused}: {table}"
            );
            assert!(!asks(&w.isp[0], "10.0.0.5") && asks(&w.lan, "192.168.5.1"), "{refused}");
            assert!(refused == "masquerade" || w.lan.pings(FAR), "{refused}: and forwards");
            assert_eq!(run(), (Some(0), String::new()), "said once");
        }
        // All of them together: closed stays closed.
        w.home.run(&["nft", "flush", "ruleset"]);
        let all: Vec<&str> = LACKS.iter().map(|(refused, ..)| *refused).collect();
        lists(&all.join("\"*|*\""));
        let (code, text) = run();
        assert_eq!((code, text.lines().count()), (Some(0), LACKS.len()), "{text}");
        assert!(!asks(&w.isp[0], "10.0.0.5") && asks(&w.lan, "192.168.5.1"));
    });
}

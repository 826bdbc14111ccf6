//! The commands of fw beside `apply`: why a line is planned, which line of a file is wrong, what is
//! applied, and how all of it goes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::net::TcpListener;
use std::process::Output;

use testkit::{Value, isolated};

use crate::fw::{World, list};

fn fw(w: &World, words: &[&str]) -> (i32, String, String) {
    let (last, first) = words.split_last().unwrap();
    said(&w.command(&[&["fw"], first].concat(), last).output().unwrap())
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn json(w: &World, words: &[&str]) -> Value {
    let (_, out, err) = fw(w, &[words, &["--json"]].concat());
    out.parse().unwrap_or_else(|e| panic!("{e}: {out}{err}"))
}

#[test]
fn each_line_of_a_plan_says_which_key_of_which_record_asks_for_it() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        w.write("fw.conf", "# policy\nforward=\"yes\"\n");
        let (code, out, _) = fw(&w, &["plan"]);
        assert_eq!(code, 2);
        let ends = |begin: &str| {
            let line = out.lines().find(|l| l.starts_with(begin)).unwrap_or_else(|| panic!("{begin}: {out}"));
            let (_, reason) = line.split_once("  # ").unwrap_or_else(|| panic!("no reason: {line}"));
            reason.rsplit('/').next().unwrap().to_owned()
        };
        assert_eq!(ends("+ address 192.168.5.1/24 dev lan0 valid_lft forever"), "lan.ipconf:3 ipmask");
        assert_eq!(ends("+ route default via 10.0.0.1 dev eth0 metric 100"), "dhcp_eth0.ipconf:4 gw");
        assert_eq!(ends("~ sysctl net/ipv4/ip_forward=1"), "fw.conf:2 forward");
        assert_eq!(ends("+ nft table inet netsv"), "it is not there");
        assert!(out.lines().all(|line| line.contains("  # ")), "{out}");

        let plan = json(&w, &["plan"]);
        let change = list(&plan["changes"]).into_iter().find(|c| c["kind"] == "address" && c["interface"] == "lan0");
        let change = change.unwrap_or_else(|| panic!("{plan}"));
        assert_eq!(
            (&change["sign"], &change["key"], &change["line_number"]),
            (&"+".into(), &"ipmask".into(), &3.into())
        );
        assert!(change["file"].as_str().unwrap().ends_with("conf/lan.ipconf"), "{change}");
        assert_eq!(plan["failed"], false);

        w.apply();
        assert_eq!(json(&w, &["plan"])["changes"], Value::Array(Vec::new()));
        w.remove("conf/lan.ipconf");
        w.write("fw.conf", "ext_open_tcp=\"22\"\n");
        let (_, out, _) = fw(&w, &["plan"]);
        let gone = out.lines().find(|l| l.starts_with("- address 192.168.5.1/24"));
        assert!(gone.is_some_and(|l| l.ends_with("  # no record asks for it any more")), "{out}");
        assert!(out.contains("~ nft table inet netsv  # lines: "), "{out}");
    });
}

#[test]
fn check_names_every_line_that_is_wrong_changes_nothing_and_needs_no_privilege() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        assert_eq!(fw(&w, &["check"]), (0, String::new(), String::new()));
        // A daemon's fault is a warning.
        w.record("dyn/dhcp_eth1", "if=eth1 ipmask=10.1.0.5/24 mtu=tall");
        let (code, out, _) = fw(&w, &["check"]);
        assert_eq!(code, 0, "{out}");
        assert!(out.starts_with("warning: ") && out.contains("dhcp_eth1.ipconf:4: bad mtu: tall"), "{out}");
        w.write("conf/zz.ipconf", "let cfg=cfg+1\nreboot\n");
        w.write("conf/yy.ipconf", "let cfg=cfg+1\nif[$cfg]=lan9\nipmask[$cfg]=10.0.0.300/24\n");
        w.write("fw.conf", "forward=\"yes\"\nexitf=\"eth0\"\next_open_tcp=\"0\"\nzone_gest_to=\"outside\"\n");
        let zone = format!("error: {}/fw.conf:4: unknown zone: gest", w.dir.display());
        let less = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", "--", "fw"];
        for program in [&["fw"][..], &less] {
            let (code, out, err) = said(&w.command(program, "check").output().unwrap());
            assert_eq!((code, err.as_str()), (1, ""), "{out}");
            for line in [
                "zz.ipconf:2: ",
                "yy.ipconf:3: bad ipmask: 10.0.0.300/24",
                "fw.conf:2: unknown key",
                "fw.conf:3: ext_open_tcp: bad value: 0",
                &zone,
            ] {
                let named = out.lines().filter(|l| l.starts_with("error: ") && l.contains(line)).count();
                assert_eq!(named, 1, "{line}: {out}");
            }
        }
        assert_eq!(w.home.addresses("lan0"), [] as [&str; 0]);
        assert!(!w.nft().contains("netsv"));
        assert!(!w.dir.join("dyn/.memory").exists());
    });
}

#[test]
fn show_tells_what_is_applied_and_from_where() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.health(0, "down");
        w.apply();
        let show = json(&w, &["show"]);
        assert_eq!(
            (&show["changes_waiting"], &show["down"], &show["confirm"]),
            (&0.into(), &false.into(), &Value::Null)
        );
        let states: Vec<_> =
            list(&show["uplinks"]).iter().map(|u| (u["interface"].clone(), u["state"].clone())).collect();
        assert_eq!(states, [("eth0".into(), "demoted".into()), ("eth1".into(), "active".into())], "{show}");
        let verdict = &show["uplinks"][0]["verdicts"][0];
        assert_eq!(verdict["health"], "down");
        assert!(verdict["from"].as_str().unwrap().ends_with("link_eth0.ipconf:3 health"), "{verdict}");
        let of = |name: &str| list(&show["interfaces"]).into_iter().find(|i| i["name"] == name).unwrap().clone();
        let lease = of("eth0")["addresses"][0].clone();
        assert_eq!(lease["object"], "10.0.0.5/24");
        assert!(lease["from"].as_str().unwrap().ends_with("dhcp_eth0.ipconf:3 ipmask"), "{lease}");
        assert!((3500..=3600).contains(&lease["left_secs"].as_u64().unwrap()) && lease["age_secs"].as_u64() < Some(60));
        assert_eq!((&of("eth0")["role"], &of("lan0")["role"]), (&"outside".into(), &"zone lan".into()));
        assert!(of("eth0")["reason"].as_str().unwrap().contains("a daemon's record, names it"), "{}", of("eth0"));
        assert!(of("lan0")["routes"][0]["object"].as_str().unwrap().starts_with("192.168.5.0/24 dev lan0"));

        let nobody =
            ["setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--", "fw"];
        w.home.run(&["chmod", "-R", "a+rX", "/run/lab"]);
        let (code, out, err) = said(&w.command(&nobody, "show").output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("eth1 active") && out.contains("10.0.0.5/24"), "{out}");
    });
}

#[test]
fn down_leaves_nothing_of_ours_and_all_of_the_others_and_a_trigger_brings_nothing_back() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.home.address("eth0", "203.0.113.9/28");
        w.home.ip(&["route", "add", "172.16.0.0/12", "via", "203.0.113.1", "metric", "7"]);
        w.home.run(&["nft", "add table inet mine; add chain inet mine c; add rule inet mine c tcp dport 1 drop"]);
        w.home.ip(&["link", "add", "spare", "up", "type", "veth", "peer", "name", "spare1"]);
        w.write("etc/hosts", "192.0.2.7 printer\n");
        w.write("etc/resolv.conf", "nameserver 192.0.2.99\n");
        let state = || {
            let files = ["hosts", "resolv.conf", "dnsmasq_servers.conf"].map(|name| w.etc(name));
            let links = w.home.ip_json(&["link", "show"]);
            let facts = |link: &Value| ["ifname", "mtu", "master", "address"].map(|key| link[key].clone());
            let links: Vec<_> = list(&links).into_iter().map(facts).collect();
            let objects = [&["-4", "address", "show"][..], &["route", "show", "table", "all"], &["rule", "show"]];
            let objects = objects.map(|what| w.home.ip(&[&["-N"], what].concat()));
            let switches = "cd /proc/sys/net && grep -r . ipv4/ip_forward ipv4/conf ipv6/conf 2>/dev/null | \
                            grep -v -e /br0/ -e stable_secret -e mtu | sort";
            let switches = w.home.run(&["sh", "-c", switches]);
            (links, objects, switches, w.nft(), files, w.dir.join("etc/dnsmasq_servers.conf").exists())
        };
        let before = state();
        w.lease(0, 3600);
        w.lease(1, 3600);
        w.record("conf/bridge", "if=br0 bridge=spare ipmask=10.9.0.1/24");
        w.record("conf/small", "if=eth1 ipmask=10.8.0.1/24 mtu=1400");
        w.apply();
        assert_ne!(state(), before);
        assert_eq!(fw(&w, &["down"]), (0, String::new(), "fw: down: `fw apply` by hand brings it up\n".into()));
        assert_eq!(state(), before);
        assert_eq!(w.home.ip_json(&["link", "show", "dev", "eth1"])[0]["mtu"], 1500);

        // A daemon publishes a record, and its `u` starts the service.
        w.lease(1, 7200);
        for _ in 0..2 {
            let (code, _, err) = fw(&w, &["--once", "apply"]);
            assert_eq!(code, 0, "{err}");
            assert!(!err.contains("brings it up"), "said once: {err}");
            assert_eq!(state(), before);
        }
        assert_eq!(json(&w, &["show"])["down"], true);
        w.apply();
        assert_eq!(w.home.default_routes().len(), 2);
        assert_eq!(w.fw("plan"), (0, String::new()));
    });
}

#[test]
fn down_does_not_cut_the_session_that_it_is_called_from_unless_told_to() {
    isolated(&["nft", "bash"], |lab| {
        let w = World::new(lab);
        w.apply();
        let listener = w.lan.within(|| TcpListener::bind("192.168.5.2:2022").unwrap());
        // An ancestor of fw holds the connection, as sshd does; fw itself has no part of it.
        let over = |host: &str, words: &str| {
            let script = format!("exec 3<>/dev/tcp/{host}/2022; (fw {words}) 3>&-");
            said(&w.command(&["bash", "-c"], &script).output().unwrap())
        };
        let (code, _, err) = over("192.168.5.2", "down");
        assert_eq!(code, 111, "{err}");
        assert!(err.contains("would cut this session over 192.168.5.1: say --yes"), "{err}");
        let ssh = [
            "env",
            "SSH_CONNECTION=192.168.5.2 40000 192.168.5.1 22",
            "sh",
            "-c",
            "unset SSH_CONNECTION; fw down; exit $?",
        ];
        let (last, first) = ssh.split_last().unwrap();
        let (code, _, err) = said(&w.command(first, last).output().unwrap());
        assert_eq!(code, 111, "sudo takes the variable away from fw, not from its ancestors: {err}");
        assert_eq!(w.home.addresses("lan0"), ["192.168.5.1/24"]);
        let (code, _, err) = over("192.168.5.2", "down --yes");
        assert_eq!(code, 0, "{err}");
        assert_eq!(w.home.addresses("lan0"), [] as [&str; 0]);
        drop(listener);

        // A session over an address of another program's stays.
        w.apply();
        w.home.address("eth0", "203.0.113.9/28");
        w.isp[0].address("cust", "203.0.113.1/28");
        let _listener = w.isp[0].within(|| TcpListener::bind("203.0.113.1:2022").unwrap());
        let (code, _, err) = over("203.0.113.1", "down");
        assert_eq!(code, 0, "{err}");
        assert_eq!(w.home.addresses("eth0"), ["203.0.113.9/28"]);
    });
}

#[test]
fn on_a_terminal_down_asks_first() {
    isolated(&["nft", "script"], |lab| {
        let w = World::new(lab);
        w.apply();
        for (answer, code, addresses) in [("n", 1, &["192.168.5.1/24"][..]), ("y", 0, &[])] {
            // script(1) gives the program a terminal, and its exit status.
            let line = format!("echo {answer} | script -qec 'fw down' /dev/null");
            let (status, out, err) = said(&w.command(&["sh", "-c"], &line).output().unwrap());
            assert_eq!(status, code, "{out}{err}");
            assert!(out.contains("Go on? [y/N]"), "{out}");
            assert_eq!(w.home.addresses("lan0"), addresses);
        }
    });
}

//! fw where something is wrong: files that cannot be read or understood, an nft of a run that was
//! killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]
#![expect(clippy::disallowed_methods, reason = "mounts")]

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use nix::sys::signal::Signal;
use testkit::{Lab, isolated, wait_until};

use crate::fw::{SOON, World, fw_path, program};

/// Objects in the place of a file. fw names each of them and waits for none.
const INSTEAD: [&str; 3] = ["directory", "fifo", "link"];

fn put(w: &World, what: &str, name: &str) {
    let path = w.dir.join(name);
    match what {
        "directory" => fs::create_dir(&path).unwrap(),
        "fifo" => drop(w.home.run(&["mkfifo", path.to_str().unwrap()])),
        _ => symlink("nowhere", &path).unwrap(),
    }
}

fn take(w: &World, name: &str) {
    w.home.run(&["rm", "-r", w.dir.join(name).to_str().unwrap()]);
}

#[test]
fn a_policy_that_is_spoilt_or_cannot_be_read_changes_nothing_and_is_named() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let policy = "preferred_default_route_iface=\"eth1\"\next_open_tcp=\"22\"\nforward=\"no\"\n";
        w.write("fw.conf", policy);
        w.apply();
        let state = || (w.nft(), w.home.default_routes());
        let before = state();
        assert!(before.0.contains("tcp dport 22 accept") && before.1[0].0 == "eth1", "{before:?}");
        w.write("fw.conf", &policy.replace("22", "22 8o80").replace("\"no\"", "\"nö\""));
        for _ in 0..2 {
            let (code, text) = w.fw("apply");
            assert_eq!(code, 1, "{text}");
            assert!(
                text.contains("fw.conf:2: ext_open_tcp: bad value: 8o80: its last good content is kept\n"),
                "{text}"
            );
            assert!(text.contains("fw.conf:3: forward: bad value: nö: its last good content is kept\n"), "{text}");
            assert_eq!(state(), before);
        }
        for what in INSTEAD {
            take(&w, "fw.conf");
            put(&w, what, "fw.conf");
            let (code, text) = w.fw("apply");
            assert!(
                code == 1 && text.contains("fw.conf: ") && text.contains("its last good content is kept"),
                "{text}"
            );
            assert_eq!(state(), before, "{what}");
        }
        // An empty or missing fw.conf is the administrator's word: fw applies it.
        take(&w, "fw.conf");
        w.write("fw.conf", "");
        w.apply();
        assert!(!w.nft().contains("dport 22 ") && w.home.default_routes()[0].0 == "eth0", "{}", w.nft());
        w.write("fw.conf", policy);
        w.apply();
        take(&w, "fw.conf");
        w.apply();
        assert!(!w.nft().contains("dport 22 ") && w.home.default_routes()[0].0 == "eth0", "{}", w.nft());
        w.write("fw.conf", "nonsense\next_open_tcp=\"23\"\n");
        let (_, text) = w.fw("apply");
        assert!(text.contains("fw.conf:1: not a KEY=\"VALUE\" line: line skipped\n"), "as after a boot: {text}");
        assert!(w.nft().contains("tcp dport 23 accept"), "{}", w.nft());
    });
}

#[test]
fn a_record_that_cannot_be_read_keeps_its_address_and_an_empty_one_gives_it_up() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        for what in INSTEAD {
            take(&w, "conf/lan.ipconf");
            put(&w, what, "conf/lan.ipconf");
            let (code, text) = w.fw("apply");
            assert!(code == 1 && text.contains("conf/lan.ipconf: "), "{what}: {text}");
            assert!(text.contains("its last good content is kept"), "{what}: {text}");
            assert_eq!(w.home.addresses("lan0"), ["192.168.5.1/24"], "{what}");
        }
        take(&w, "conf/lan.ipconf");
        w.write("conf/lan.ipconf", "");
        w.apply();
        assert_eq!(w.home.addresses("lan0"), [] as [&str; 0]);
    });
}

#[test]
fn a_device_in_the_place_of_a_file_stays_and_a_fifo_is_not_waited_for() {
    isolated(&["nft", "mount"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        // A mount point protects the machine's own file: no file can be renamed over it.
        w.write("etc/null", "");
        let mount = Command::new("mount").args(["--bind", "/dev/null"]).arg(w.dir.join("etc/null")).status();
        assert!(mount.unwrap().success());
        symlink("null", w.dir.join("etc/resolv.conf")).unwrap();
        w.apply();
        assert_eq!(w.fw("plan"), (0, String::new()));
        take(&w, "etc/dnsmasq_servers.conf");
        put(&w, "fifo", "etc/dnsmasq_servers.conf");
        let output = w.command(&["timeout", "5", "fw"], "apply").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("etc/dnsmasq_servers.conf: not a regular file"), "{text}");
    });
}

#[test]
fn an_interface_that_goes_in_the_middle_of_a_run_is_missing_and_no_error() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        w.lease(1, 3600);
        w.record("conf/six", "if=eth1 ipmask=2001:db8:1::5/64 gw=2001:db8:1::1 mtu=1400");
        // A run that sleeps (state S) is waiting for its nft, so it has seen eth1 already.
        let body = "until grep -q '^State:.S' /proc/$PPID/status; do :; done\n\
                    ip link del eth1 2>/dev/null\n\
                    exec /usr/sbin/nft \"$@\"";
        program(&lab.make_dir("only").join("nft"), body);
        let output = w
            .command(&["env", "PATH=/run/lab/only:/usr/sbin:/usr/bin:/sbin:/bin", &fw_path(lab)], "apply")
            .output()
            .unwrap();
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
        assert!(!w.home.ip(&["link"]).contains("eth1"));
        assert_eq!(w.home.default_routes().len(), 1);
        let (code, text) = w.fw("apply");
        assert!(code == 0 && text.contains("no interface eth1 yet"), "{text}");
    });
}

/// A run is killed and leaves its nft behind. That nft makes its table after the next run, of
/// another policy, has looked and found none.
fn after_a_left_nft(lab: &Lab, before_the_table_comes: &str) {
    let w = World::new(lab);
    w.lease(0, 3600);
    let body = format!(
        "[ -e /run/lab/left ] || {{\n\
         cat >/run/lab/text\n\
         : >/run/lab/left\n\
         until [ -e /run/lab/go ]; do sleep 0.01; done\n\
         exec /usr/sbin/nft -f /run/lab/text\n\
         }}\n\
         {before_the_table_comes}\n\
         : >/run/lab/go\n\
         until /usr/sbin/nft list table inet netsv >/dev/null 2>/dev/null; do sleep 0.01; done\n\
         exec /usr/sbin/nft \"$@\""
    );
    program(&lab.make_dir("only").join("nft"), &body);
    let argv = ["env", "PATH=/run/lab/only:/usr/bin:/bin", &fw_path(lab)];
    let killed = w.home.spawn_command("fw", w.command(&argv, "apply"));
    wait_until("an nft that waits", SOON, || lab.dir().join("left").exists());
    killed.signal(Signal::SIGKILL);
    w.write("fw.conf", "ext_open_tcp=\"8022\"\n");
    let output = w.command(&argv, "apply").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(w.nft().contains("tcp dport 8022 accept"), "{}", w.nft());
    assert_eq!(w.nft().matches("hook input").count(), 1, "not both in one: {}", w.nft());
    assert_eq!(w.home.run(&["cat", "/proc/sys/net/ipv4/ip_forward"]), "1\n");
    assert_eq!(w.fw("plan"), (0, String::new()));
}

#[test]
fn an_nft_that_hangs_is_waited_for_once() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        w.lease(1, 3600);
        // It also holds the write end of fw's standard error.
        program(&lab.make_dir("only").join("nft"), "echo called >>/run/lab/calls\nsleep 50\n:");
        let output = w
            .command(&["timeout", "15", "env", "PATH=/run/lab/only:/usr/bin:/bin", &fw_path(lab)], "apply")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains("nft: killed: it said nothing"), "{output:?}");
        assert_eq!(fs::read_to_string("/run/lab/calls").unwrap(), "called\n");
        assert_eq!(w.home.default_routes().len(), 2);
        assert_eq!(w.home.run(&["cat", "/proc/sys/net/ipv4/ip_forward"]), "0\n");
    });
}

#[test]
fn a_table_that_a_killed_run_makes_in_our_way_is_replaced() {
    // fw then waits for the end of its own nft, which fails.
    isolated(&["nft"], |lab| after_a_left_nft(lab, "exec 2>/dev/null"));
}

#[test]
fn a_table_that_a_killed_run_makes_is_not_taken_for_ours() {
    isolated(&["nft"], |lab| after_a_left_nft(lab, ""));
}

/// fw tried to delete a route through a router of the other family with the first four bytes of the
/// router's address, in vain and in each run.
#[test]
fn reset_removes_foreign_routes_whatever_they_are_made_of() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.write("fw.conf", "reset_all_netdevs=\"yes\"\n");
        w.apply();
        let routes = || w.home.ip_json(&["-4", "route", "show", "table", "main"]);
        let before = routes();
        for route in [
            "10.71.0.0/16 via inet6 fe80::1 dev eth0",
            "10.72.0.0/16 via 192.0.2.1 dev eth0 onlink src 10.0.0.5 metric 7 mtu 1400 advmss 1300 realm 3",
            "10.73.0.0/16 nexthop dev eth0 weight 2 nexthop dev eth1",
            "10.75.0.0/16 dev eth0 scope link tos 0x10 proto 99",
        ] {
            w.home.ip(&["route", "add"].into_iter().chain(route.split(' ')).collect::<Vec<_>>());
        }
        assert_eq!(routes().as_array().unwrap().len(), before.as_array().unwrap().len() + 4);
        w.apply();
        assert_eq!(routes(), before);
        assert_eq!(w.fw("plan").0, 0, "nothing is left to do");
    });
}

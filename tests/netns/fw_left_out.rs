//! fw leaves out and reports once, with exit 0: unusable words of a server, features that the
//! kernel lacks, features that an administrator has switched off. An administrator's own mistakes
//! are errors in every run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use testkit::isolated;

use crate::fw::World;

/// One record with these fields; a `|` stands for a blank.
fn record(w: &World, name: &str, fields: &str) {
    let field = |f: &str| {
        let (key, value) = f.split_once('=').unwrap();
        format!("{key}[$cfg]='{}'\n", value.replace('|', " "))
    };
    let text: String = fields.split(' ').map(field).collect();
    w.write(&format!("{name}.ipconf"), &format!("let cfg=cfg+1\n{text}"));
}

/// The run succeeds and says this; the next run says nothing.
#[track_caller]
fn said_once(w: &World, what: &str, texts: &[&str]) {
    let (code, said) = w.fw("apply");
    assert_eq!(code, 0, "{what}: {said}");
    for text in texts {
        assert_eq!(said.matches(text).count(), 1, "{what}: {text} in {said}");
    }
    assert_eq!(w.fw("apply"), (0, String::new()), "{what}");
}

#[test]
fn what_a_server_said_and_the_kernel_refuses_is_left_out_and_said_once() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let v4 = "if=eth1 ipmask=10.1.0.5/24";
        let v6 = "if=eth1 ipmask=2001:db8::5/64";
        let place = "dyn/odd.ipconf:1: ";
        for (lease, refused) in [
            // The router is the network's broadcast address, this host, or nowhere.
            (format!("{v4} gw=10.1.0.255"), "+ route default via 10.1.0.255 "),
            (format!("{v4} gw=127.0.0.1"), "+ route default via 127.0.0.1 "),
            (format!("{v6} gw=2001:db8::5"), "router 2001:db8::5 is an address of this machine, on eth1: left out"),
            (format!("{v6} gw=::1"), "+ route ::/0 via ::1 "),
            // One of two classless routes is wrong.
            (format!("{v4} routes=203.0.113.0/24|10.1.0.255|192.0.2.0/24|10.1.0.1"), "+ route 203.0.113.0/24 "),
            // A source address that this host does not have, and an address that only lo can have.
            (format!("{v4} gw=10.1.0.1 src=10.9.9.9"), "+ route default via 10.1.0.1 "),
            ("if=eth1 ipmask=::1/128".into(), "+ address ::1/128 "),
        ] {
            w.remove("dyn/dhcp_eth1.ipconf");
            w.apply();
            record(&w, "dyn/odd", &lease);
            said_once(&w, &lease, &[&format!("{place}{refused}")]);
            // fw has applied all else of the record.
            let addresses = w.home.run(&["ip", "-o", "address", "show", "dev", "eth1"]);
            let address = lease.split_once("ipmask=").unwrap().1.split(' ').next().unwrap();
            assert!(addresses.contains(address) || address == "::1/128", "{lease}: {addresses}");
            assert_eq!(w.home.addresses("eth0"), ["10.0.0.5/24"], "{lease}");
            // The state is over when the server says otherwise.
            w.remove("dyn/odd.ipconf");
            w.lease(1, 3600);
            w.apply();
        }
        // A refused route does not take the place of the old one. Each new beginning is reported
        // again.
        w.remove("dyn/dhcp_eth1.ipconf");
        for _ in 0..2 {
            record(&w, "dyn/odd", &format!("{v4} gw=10.1.0.255"));
            said_once(&w, "again", &["dyn/odd.ipconf:1: ~ route default "]);
            record(&w, "dyn/odd", &format!("{v4} gw=10.1.0.1"));
            w.apply();
        }
    });
}

#[test]
fn a_daemons_file_that_makes_no_sense_is_said_once_and_an_administrators_in_every_run() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        for (text, line) in [
            ("let cfg=cfg+1\nif[$cfg]=eth0\nipmask[$cfg]=10.0.0.5/33\n", "3: bad ipmask: 10.0.0.5/33"),
            ("let cfg=cfg+1\nif[$cfg]=eth0\nmetric[$cfg]=-1\n", "3: bad metric: -1"),
            ("let cfg=cfg+1\nif[$cfg]=eth0\ndomain[$cfg]='it's'\n", "3: "),
            ("reboot\n", "1: "),
        ] {
            w.write("dyn/dhcp_eth0.ipconf", text);
            said_once(&w, text, &[&format!("fw: {}/dyn/dhcp_eth0.ipconf:{line}", w.dir.display())]);
            assert_eq!(w.home.addresses("eth0"), ["10.0.0.5/24"], "its last good content is kept: {text}");
            w.write("conf/mine.ipconf", text);
            for _ in 0..2 {
                let (code, said) = w.fw("apply");
                let error = format!("fw: error: {}/conf/mine.ipconf:{line}", w.dir.display());
                assert!(code == 1 && said.contains(&error) && !said.contains("dyn/"), "{code} {said}");
            }
            w.remove("conf/mine.ipconf");
        }
    });
}

#[test]
fn what_an_administrator_asks_for_in_vain_is_an_error_with_its_place_in_every_run() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        record(&w, "conf/vpn", "if=lan0 ipmask=10.7.0.1/24 gw=10.7.0.255 net=10.8.0.0/16");
        for _ in 0..2 {
            let (code, text) = w.fw("apply");
            assert_eq!(code, 1, "{text}");
            assert!(text.contains("fw: error: ") && text.contains("conf/vpn.ipconf:1: + route 10.8.0.0/16 "), "{text}");
            assert!(w.home.addresses("lan0").contains(&"10.7.0.1/24".to_owned()));
        }
    });
}

#[test]
fn where_ipv6_is_switched_off_it_is_left_out_and_said_once() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        // The same as services/fw/conf/lo.ipconf.
        w.write(
            "conf/lo.ipconf",
            "let cfg=cfg+1\nif[$cfg]=lo\nipmask[$cfg]=127.0.0.1/8\nlet cfg=cfg+1\nif[$cfg]=lo\nipmask[$cfg]=::1/128\n",
        );
        record(&w, "dyn/dhcp6_eth0", "if=eth0 ipmask=2001:db8:0::5/64 gw=fe80::1");
        record(&w, "dyn/dhcp6_eth1", "if=eth1 ipmask=2001:db8:1::5/64 gw=fe80::1");
        w.apply();
        let v6 = |name: &str| w.home.run(&["ip", "-6", "-o", "address", "show", "dev", name, "scope", "global"]);
        let set = |name: &str, value: &str| {
            w.home.run(&["sysctl", "-qw", &format!("net.ipv6.conf.{name}.disable_ipv6={value}")]);
        };
        assert!(v6("eth0").contains("2001:db8::5/64"), "{}", v6("eth0"));
        // IPv6 is off on one interface.
        set("eth0", "1");
        let (eth0, eth1) =
            ("dyn/dhcp6_eth0.ipconf:1: IPv6 of eth0 left out: ", "dyn/dhcp6_eth1.ipconf:1: IPv6 of eth1 left out: ");
        said_once(&w, "eth0", &[&format!("{eth0}net.ipv6.conf.eth0.disable_ipv6 is 1\n")]);
        assert!(v6("eth0").is_empty() && v6("eth1").contains("2001:db8:1::5/64"), "{}", v6("eth1"));
        // All interfaces. fw has reported eth0 already.
        set("all", "1");
        let (code, text) = w.fw("apply");
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("conf/lo.ipconf:4: IPv6 of lo left out: ") && text.contains(eth1), "{text}");
        assert!(!text.contains(eth0), "{text}");
        w.apply();
        assert_eq!(w.home.addresses("eth0"), ["10.0.0.5/24"]);
        // IPv6 is on again.
        set("all", "0");
        w.apply();
        assert!(v6("eth0").contains("2001:db8::5/64") && v6("eth1").contains("2001:db8:1::5/64"));
        // The MTU of the link is too small for IPv6.
        w.home.ip(&["link", "set", "eth1", "mtu", "1279"]);
        said_once(&w, "mtu", &[&format!("{eth1}an MTU of 1279 is below 1280\n")]);
        w.home.ip(&["link", "set", "eth1", "mtu", "1280"]);
        w.apply();
        assert!(v6("eth1").contains("2001:db8:1::5/64"));
    });
}

#[test]
fn switches_that_cannot_be_written_are_said_once() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.lease(0, 3600);
        let read_only = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec fw \"$0\"";
        let run = || {
            let output = w.command(&["unshare", "-m", "sh", "-c", read_only], "apply").output().unwrap();
            (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
        };
        let (code, text) = run();
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("~ sysctl net/ipv4/ip_forward=1: read-only file system: left out\n"), "{text}");
        assert_eq!(run(), (0, String::new()));
        assert_eq!(w.home.addresses("eth0"), ["10.0.0.5/24"]);
    });
}

#[test]
fn a_route_over_a_link_that_is_down_is_said_once() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        // Without an address in its record fw leaves the link as the administrator has it.
        w.home.ip(&["link", "set", "eth1", "down"]);
        record(&w, "conf/far", "if=eth1 net=203.0.113.0/24 gw=10.1.0.1");
        said_once(&w, "down", &["conf/far.ipconf:1: + route 203.0.113.0/24 via 10.1.0.1 dev eth1 "]);
        w.home.ip(&["link", "set", "eth1", "up"]);
        w.apply();
        assert!(w.home.run(&["ip", "route"]).contains("203.0.113.0/24 via 10.1.0.1 dev eth1"));
    });
}

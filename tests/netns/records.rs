//! Records with faults in them: which program says so, where, and how often.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use testkit::isolated;

use crate::fw::World;

#[test]
fn an_error_names_the_line_of_the_field() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.write("conf/bad.ipconf", "# mine\nlet cfg=cfg+1\nif[$cfg]=lan0\n\nipmask[$cfg]='10.1.1.1/33'\n");
        let (code, text) = w.fw("apply");
        assert_eq!(code, 1);
        assert!(text.contains("conf/bad.ipconf:5: bad ipmask: 10.1.1.1/33: file skipped\n"), "{text}");
        w.write("conf/bad.ipconf", "let cfg=cfg+1\nif[$cfg]=lan0\ndns[$cfg]='10.1.1.1\n'\n");
        assert!(w.fw("apply").1.contains("conf/bad.ipconf:3: quote without an end: file skipped\n"));
        // fw names an administrator's wrong word in every run until it is gone.
        w.write("conf/bad.ipconf", "let cfg=cfg+1\nif[$cfg]=lan0\ndns[$cfg]='10.1.1.1 x'\n");
        for _ in 0..2 {
            let (code, text) = w.fw("apply");
            assert!(code == 1 && text.contains("conf/bad.ipconf:3: bad dns: x: left out\n"), "{text}");
        }
    });
}

#[test]
fn what_a_server_said_never_fails_a_run_and_is_left_out_and_said_once() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let good = "if=eth0 ipmask=192.0.2.100/24 net=0/0";
        for (key, value, wrong) in [
            ("domain", "corp..example", "corp..example"),
            ("search", "lan -x", "-x"),
            ("dns", "192.0.2.1 0.0.0.0", "0.0.0.0"),
            ("gw", "192.0.2.1 224.0.0.1", "224.0.0.1"),
            ("routes", "0/0 192.0.2.1 10.0.0.0/33 192.0.2.1", "10.0.0.0/33 192.0.2.1"),
            ("mtu", "68", "68"),
            ("broadcast", "192.0.2", "192.0.2"),
        ] {
            let write = |end: u32| {
                let fields: Vec<String> = good
                    .split(' ')
                    .map(|f| f.split_once('=').unwrap())
                    .chain([("gw", "192.0.2.1")].into_iter().filter(|_| key != "gw"))
                    .chain([(key, value), ("lease_end", &end.to_string())])
                    .map(|(k, v)| format!("{k}[$cfg]='{v}'\n"))
                    .collect();
                w.write("dyn/dhcp_eth0.ipconf", &format!("let cfg=cfg+1\n{}", fields.concat()));
            };
            write(4_000_000_000);
            let (code, text) = w.fw("apply");
            let line = format!(": bad {key}: {wrong}: left out\n");
            assert!(code == 0 && text.contains(&line), "{code} {text}");
            assert!(w.home.default_routes().iter().any(|r| r.1 == "192.0.2.1"), "{key}");
            // The lease is renewed: the server sends the same value again.
            write(4_000_000_001);
            for _ in 0..2 {
                assert_eq!(w.fw("apply"), (0, String::new()), "{key}");
            }
        }
    });
}

#[test]
fn of_two_routers_all_programs_take_the_first() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let fields = "if[$cfg]=eth0\nipmask[$cfg]=192.0.2.100/24\ngw[$cfg]='192.0.2.1 192.0.2.7'\n";
        for name in ["dyn/dhcp_eth0.ipconf", "conf/up.ipconf"] {
            w.remove("dyn/dhcp_eth0.ipconf");
            w.write(name, &format!("let cfg=cfg+1\n{fields}"));
            assert_eq!(w.fw("apply"), (0, String::new()), "{name}");
            let routes = w.home.default_routes();
            assert_eq!(
                routes.iter().filter(|r| r.0 == "eth0").map(|r| r.1.as_str()).collect::<Vec<_>>(),
                ["192.0.2.1"]
            );
        }
    });
}

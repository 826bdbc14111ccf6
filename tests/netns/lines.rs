//! The services that make or shape an uplink (PPPoE, WireGuard, short queues), as far as the kernel
//! of a namespace goes. tests/vm/tunnels.rs has the rest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use testkit::{isolated, wait_until};

use crate::examples::stays_down;
use crate::fw::World;
use crate::ours;
use crate::services::{House, RUNIT, script, under_both};

/// Longer than any step takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(25);

#[test]
fn sqm_if_limits_both_directions_and_takes_its_queues_away_again() {
    isolated(&[&RUNIT[..], &["tc"]].concat(), |lab| {
        let (home, isp) = (lab.net("home"), lab.net("isp"));
        let _cable = lab.cable((&home, "eth0"), (&isp, "lan"));
        home.address("eth0", "192.0.2.2/24");
        isp.address("lan", "192.0.2.1/24");
        let queue = |device: &str| {
            let of = |what: &str| home.run(&["tc", what, "show", "dev", device]);
            format!("{}{}", of("qdisc"), of("class"))
        };
        under_both(lab, &home, |house| {
            house.copy("sqm_if", "sqm_eth0");
            house.copy("sqm_if", "sqm_eth9");
            for name in ["sqm_eth0", "sqm_eth9"] {
                house.knob(name, "SQM_UP", "10mbit");
                house.knob(name, "SQM_DOWN", "20mbit");
            }
            house.start();
            wait_until("the queues", SOON, || house.log("sqm_eth0").contains("receives 20mbit"));
            house.wait_down("sqm_eth0");
            house.wait_down("sqm_eth9");
            assert_eq!(house.log("sqm_eth9").matches("no such interface yet").count(), 1);
            assert!(queue("eth0").contains("10Mbit") && queue("sqm_eth0").contains("20Mbit"), "{}", queue("eth0"));
            // What arrives goes through the queue.
            let counted =
                || home.ip_json(&["-s", "link", "show", "dev", "sqm_eth0"])[0]["stats64"]["tx"]["packets"].clone();
            let before = counted().as_u64().unwrap();
            assert!(home.pings("192.0.2.1"));
            assert!(counted().as_u64().unwrap() > before);
            // Another rate, set a second time.
            house.knob("sqm_eth0", "SQM_UP", "5mbit");
            house.sv(&["up", "sqm_eth0"]);
            wait_until("the other rate", SOON, || house.log("sqm_eth0").matches("receives 20mbit").count() == 2);
            assert!(queue("eth0").contains("5Mbit") && !queue("eth0").contains("10Mbit"), "{}", queue("eth0"));
            assert!(home.pings("192.0.2.1"));
            house.wait_down("sqm_eth0");
            for knob in ["SQM_UP", "SQM_DOWN"] {
                house.knob("sqm_eth0", knob, "");
            }
            house.sv(&["up", "sqm_eth0"]);
            wait_until("no queue", SOON, || !queue("eth0").contains("5Mbit") && !queue("eth0").contains("ingress"));
            wait_until("no device", SOON, || !home.run(&["ip", "link"]).contains("sqm_eth0"));
        });
    });
}

#[test]
fn ppp_if_and_wg_if_say_in_one_line_what_they_lack_and_stay_down() {
    isolated(&RUNIT, |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            let bin = lab.dir().join("bin");
            for program in ["pppd", "wg"] {
                script(&bin.join(program), "echo started; exec sleep 1000");
            }
            let services = ["ppp_a", "ppp_b", "ppp_c", "ppp_d", "wg_a", "wg_b", "wg_c"];
            for name in services {
                house.copy(if name.starts_with("ppp") { "ppp_if" } else { "wg_if" }, name);
            }
            let secret = |file: &str, mode: u32| {
                fs::write(house.service(file), "[Interface]\n").unwrap();
                fs::set_permissions(house.service(file), fs::Permissions::from_mode(mode)).unwrap();
            };
            for name in ["ppp_b", "ppp_c", "ppp_d"] {
                house.knob(name, "PPP_LINK", "eth0");
            }
            secret("ppp_c/peer", 0o640);
            secret("ppp_d/peer", 0o600);
            secret("wg_b/wg.conf", 0o644);
            secret("wg_c/wg.conf", 0o400);
            house.start();
            let place = |file: &str| house.service(file).display().to_string();
            let mut expected = vec![
                ("ppp_a", "ppp: a: PPP_LINK is empty".to_owned()),
                ("ppp_b", format!("ppp: b: no {}", place("ppp_b/peer"))),
                ("ppp_c", format!("ppp: c: other users may read {} (chmod 600)", place("ppp_c/peer"))),
                ("wg_a", format!("wg: a: no {}", place("wg_a/wg.conf"))),
                ("wg_b", format!("wg: b: other users may read {} (chmod 600)", place("wg_b/wg.conf"))),
            ];
            if !Path::new("/proc/net/pppoe").exists() {
                expected.push(("ppp_d", "ppp: d: this kernel has no PPPoE (modules ppp_generic, pppoe)".to_owned()));
            }
            if !home.try_run(&["ip", "link", "add", "probe", "type", "wireguard"]).status.success() {
                expected.push(("wg_c", "wg: c: this kernel has no WireGuard (module wireguard)".to_owned()));
            }
            for (name, text) in expected {
                stays_down(house, name, &text, || house.log(name));
            }
        });
    });
}

/// pppd calls the two scripts. A cable stands in for the interface that it makes.
#[test]
fn what_a_pppoe_provider_gives_becomes_a_route_and_name_servers_and_goes_with_the_line() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        let far = lab.net("far");
        let _cable = lab.cable((&w.home, "dsl0"), (&far, "home"));
        // As pppd gives it: an address with a peer.
        w.home.ip(&["address", "add", "10.64.0.10", "peer", "10.64.0.1/32", "dev", "dsl0"]);
        let service = Path::new(env!("CARGO_MANIFEST_DIR")).join("services/ppp_if");
        let call = |script: &str| {
            let script = service.join(script);
            let argv = [script.to_str().unwrap(), "dsl0", "/dev/pts/0", "0", "10.64.0.10", "10.64.0.1", ""];
            let mut command = w.home.command(&argv);
            command.env("DNS1", "10.64.0.53").env("FW_DYNAMIC", w.dir.join("dyn")).env("SVDIR", "/nonexistent");
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        call("ip_up");
        w.apply();
        assert_eq!(w.home.default_routes(), [("dsl0".to_owned(), "10.64.0.1".to_owned(), 100)]);
        assert!(w.etc("resolv.conf").contains("\nnameserver 10.64.0.53\n"), "{}", w.etc("resolv.conf"));
        assert_eq!(w.fw("plan"), (0, String::new()));
        call("ip_down");
        w.apply();
        assert_eq!(w.home.default_routes(), []);
        assert!(!w.etc("resolv.conf").contains("nameserver"));
        // The address is pppd's: fw leaves it alone.
        assert!(w.home.run(&["ip", "address", "show", "dev", "dsl0"]).contains("10.64.0.10 peer 10.64.0.1/32"));
    });
}

/// A tunnel's record is made of a configuration in the words of wg-quick.
#[test]
fn wg_if_publishes_what_its_configuration_says_and_passes_on_the_rest() {
    isolated(&RUNIT, |lab| {
        ours(lab);
        let home = lab.net("home");
        let mut house = House::new(lab, &home, "services");
        house.add_fw();
        // The interface is there already, and the kernel need not know its kind.
        home.ip(&["link", "add", "wg0", "type", "bridge"]);
        let calls = house.path("calls");
        let body = format!("echo \"$*\" >>{0}; [ \"$1\" != syncconf ] || cat \"$3\" >>{0}", calls.display());
        script(&lab.dir().join("bin/wg"), &body);
        house.copy("wg_if", "wg_wg0");
        let conf = "[Interface]\r\nPrivateKey = abc=\r\nAddress = 10.8.0.2/24, fd00:8::2 # both\nDNS=10.8.0.1\nMTU = 1380\n\
                    PostUp = touch /tmp/never\n[Peer]\nPublicKey = def=\nAllowedIPs = 10.8.0.0/24, 0.0.0.0/0\n\
                    allowedips=10.9.0.0/16,fd00:9::/48\nEndpoint = vpn.example:51820\n";
        let file = house.service("wg_wg0/wg.conf");
        fs::write(&file, conf).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        house.start();
        let field = |record: &str, key: &str| {
            let text = house.record(record).unwrap_or_default();
            let line = text.lines().find_map(|l| l.strip_prefix(&format!("{key}[$cfg]=")).map(str::to_owned));
            line.unwrap_or_default().trim_matches('\'').to_owned()
        };
        wait_until("both records", SOON, || house.record("wg_wg0").is_some() && house.record("wg_wg0.2").is_some());
        assert_eq!((field("wg_wg0", "ipmask"), field("wg_wg0", "dns")), ("10.8.0.2/24".into(), "10.8.0.1".into()));
        assert_eq!(field("wg_wg0", "routes"), "10.8.0.0/24 0.0.0.0 10.9.0.0/16 0.0.0.0 fd00:9::/48 ::");
        assert_eq!((field("wg_wg0", "mtu"), field("wg_wg0.2", "ipmask")), ("1380".into(), "fd00:8::2/128".into()));
        let passed = fs::read_to_string(&calls).unwrap();
        assert!(passed.contains("PrivateKey = abc=") && passed.contains("0.0.0.0/0"), "{passed}");
        assert!(!passed.contains("Address") && !passed.contains("PostUp") && !passed.contains("MTU"), "{passed}");
        // fw's hook tells it that the uplink is another one.
        house.sv(&["hup", "wg_wg0"]);
        let asks = "set wg0 peer def= endpoint vpn.example:51820";
        wait_until("the endpoint again", SOON, || fs::read_to_string(&calls).unwrap().lines().any(|l| l == asks));
        house.sv(&["-w10", "down", "wg_wg0"]);
        wait_until("no record", SOON, || house.record("wg_wg0").is_none() && house.record("wg_wg0.2").is_none());
        assert!(!home.run(&["ip", "link"]).contains("wg0"));
    });
}

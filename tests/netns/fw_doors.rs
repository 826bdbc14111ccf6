//! fw and hosts behind it that the outside may reach: `port_forward` and `open6`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::time::Duration;

use testkit::talk::{Over, answer, ask};
use testkit::{Lab, Net, isolated, wait_until};

use crate::fw::{SOON, World};

/// Behind both providers.
const FAR: &str = "198.51.100.1";
/// For "no answer comes".
const SILENCE: Duration = Duration::from_millis(400);

/// A second host in the LAN, 192.168.5.3; `lan` is its switch.
pub(crate) fn neighbour(lab: &Lab, w: &World) -> Net {
    let net = lab.net("neighbour");
    lab.cable((&w.lan, "other"), (&net, "eth0"));
    w.lan.bridge("br0");
    w.lan.ip(&["address", "flush", "dev", "port"]);
    for port in ["port", "other"] {
        w.lan.port("br0", port);
    }
    w.lan.address("br0", "192.168.5.2/24");
    w.lan.ip(&["route", "replace", "default", "via", "192.168.5.1"]);
    net.address("eth0", "192.168.5.3/24");
    net.ip(&["route", "add", "default", "via", "192.168.5.1"]);
    net
}

/// The answer to a host that is expected to get one.
#[track_caller]
fn gets(net: &Net, over: Over, from: Option<&str>, to: &str) -> String {
    ask(net, over, from, to, SOON).unwrap_or_else(|| panic!("{} gets no answer from {to} over {over:?}", net.name()))
}

#[track_caller]
fn gets_none(net: &Net, over: Over, from: Option<&str>, to: &str) {
    let answer = ask(net, over, from, to, SILENCE);
    assert_eq!(answer, None, "{} from {to} over {over:?}", net.name());
}

#[test]
fn a_port_forward_is_answered_by_the_uplink_that_was_asked() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let words = "tcp/8080>192.168.5.2:80 udp/5060-5062>192.168.5.2 tcp/9000-9002>192.168.5.2:7000-7002 \
                     udp/4000-4001>192.168.5.2:80";
        w.write("fw.conf", &format!("port_forward=\"{words}\"\n"));
        w.apply();
        for port in [80, 5060, 5061, 5062, 5063, 7000, 7001, 7002, 7003] {
            answer(&w.lan, &format!("192.168.5.2:{port}"), &format!("lan {port}"));
        }
        for n in [0, 1] {
            answer(&w.home, &format!("10.{n}.0.5:8080"), "router");
            let ask = |over, port: u16| gets(&w.isp[n], over, Some(FAR), &format!("10.{n}.0.5:{port}"));
            assert_eq!(ask(Over::Tcp, 8080), "lan 80");
            assert_eq!(ask(Over::Udp, 5060), "lan 5060");
            assert_eq!(ask(Over::Udp, 5062), "lan 5062");
            assert_eq!(ask(Over::Tcp, 9000), "lan 7000");
            assert_eq!(ask(Over::Tcp, 9002), "lan 7002");
            assert_eq!(ask(Over::Udp, 4001), "lan 80");
            for (over, port) in [(Over::Udp, 8080), (Over::Tcp, 5060), (Over::Udp, 5063), (Over::Tcp, 9003)] {
                gets_none(&w.isp[n], over, Some(FAR), &format!("10.{n}.0.5:{port}"));
            }
            w.isp[n].ip(&["route", "add", "192.168.5.0/24", "via", &format!("10.{n}.0.5")]);
            gets_none(&w.isp[n], Over::Tcp, Some(FAR), "192.168.5.2:80");
            gets_none(&w.isp[n], Over::Tcp, Some(FAR), "192.168.5.2:8080");
        }
        assert_eq!(w.fw("plan"), (0, String::new()));
        // Another lease, another address, and no other table.
        let before = w.nft();
        w.record("dyn/dhcp_eth0", "if=eth0 ipmask=10.0.0.77/24 gw=10.0.0.1");
        w.apply();
        assert_eq!(gets(&w.isp[0], Over::Tcp, Some(FAR), "10.0.0.77:8080"), "lan 80");
        assert_eq!(w.nft(), before);
        w.health(0, "down");
        w.apply();
        assert_eq!(gets(&w.isp[0], Over::Tcp, Some(FAR), "10.0.0.77:8080"), "lan 80", "demoted or not");
    });
}

#[test]
fn from_inside_the_outside_address_leads_to_the_same_host() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let neighbour = neighbour(lab, &w);
        let other = lab.net("other");
        lab.cable((&w.home, "lan1"), (&other, "eth0"));
        other.address("eth0", "192.168.6.2/24");
        other.ip(&["route", "add", "default", "via", "192.168.6.1"]);
        w.record("conf/other", "if=lan1 ipmask=192.168.6.1/24");
        w.write("fw.conf", "port_forward=\"tcp/8080>192.168.5.2:80 udp/5060>192.168.5.2\"\n");
        w.apply();
        answer(&w.lan, "192.168.5.2:80", "lan 80");
        answer(&w.lan, "192.168.5.2:5060", "lan 5060");
        for address in ["10.0.0.5", "10.1.0.5", "192.168.5.1", "192.168.6.1"] {
            answer(&w.home, &format!("{address}:8080"), "router");
        }
        for net in [&neighbour, &other, &w.lan] {
            for outside in ["10.0.0.5", "10.1.0.5"] {
                assert_eq!(gets(net, Over::Tcp, None, &format!("{outside}:8080")), "lan 80", "{}", net.name());
                assert_eq!(gets(net, Over::Udp, None, &format!("{outside}:5060")), "lan 5060", "{}", net.name());
            }
            for inside in ["192.168.5.1", "192.168.6.1"] {
                assert_eq!(gets(net, Over::Tcp, None, &format!("{inside}:8080")), "router", "{}", net.name());
            }
        }
        assert_eq!(gets(&w.home, Over::Tcp, None, "10.0.0.5:8080"), "router", "its own port is its own for itself");
        assert_eq!(gets(&w.home, Over::Tcp, None, "192.168.5.2:80"), "lan 80");
    });
}

#[test]
fn a_source_may_be_named_and_others_find_the_port_closed() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.isp[0].address("lo", "203.0.113.7/32");
        w.isp[0].address("lo", "203.0.114.7/32");
        let words = "tcp/8080@203.0.113.0/24>192.168.5.2:80 tcp/8080@203.0.114.7>192.168.5.2:81 \
                     udp/53>192.168.5.2:80@203.0.114.0/24";
        w.write("fw.conf", &format!("port_forward=\"{words}\"\n"));
        w.apply();
        answer(&w.lan, "192.168.5.2:80", "lan 80");
        answer(&w.lan, "192.168.5.2:81", "lan 81");
        let to = |over, from, port: u16| {
            let to = format!("10.0.0.5:{port}");
            ask(&w.isp[0], over, Some(from), &to, SILENCE)
        };
        wait_until("the first source", SOON, || to(Over::Tcp, "203.0.113.7", 8080).as_deref() == Some("lan 80"));
        wait_until("the second source", SOON, || to(Over::Tcp, "203.0.114.7", 8080).as_deref() == Some("lan 81"));
        wait_until("a source at the end", SOON, || to(Over::Udp, "203.0.114.7", 53).as_deref() == Some("lan 80"));
        assert_eq!(to(Over::Tcp, FAR, 8080), None);
        assert_eq!(to(Over::Udp, "203.0.113.7", 53), None);
        gets_none(&w.lan, Over::Tcp, None, "10.0.0.5:8080");
    });
}

#[test]
fn a_forward_to_a_host_whose_lan_is_gone_sends_nothing_back_outside() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.write("fw.conf", "port_forward=\"tcp/8080>192.168.5.2:80\"\n");
        w.apply();
        answer(&w.lan, "192.168.5.2:80", "lan 80");
        for isp in &w.isp {
            let chain = "type filter hook prerouting priority -300; ip daddr 192.168.5.0/24 counter";
            isp.run(&["nft", &format!("table ip count {{ chain c {{ {chain}; }}; }}")]);
        }
        let reaches = || ask(&w.isp[0], Over::Tcp, Some(FAR), "10.0.0.5:8080", SILENCE).is_some();
        wait_until("the forward", SOON, reaches);
        w.cables[2].pull();
        wait_until("no way to the LAN", SOON, || w.home.route_to("192.168.5.2").as_deref() != Some("lan0"));
        assert!(!reaches());
        w.apply();
        assert!(!reaches());
        w.home.ip(&["link", "del", "lan0"]);
        assert!(!reaches());
        assert_eq!(w.fw("apply").0, 0);
        assert!(!reaches());
        for isp in &w.isp {
            let counted = isp.run(&["nft", "list", "table", "ip", "count"]);
            assert!(counted.contains("packets 0 "), "{counted}");
        }
    });
}

/// Addresses of IPv6 for a world: an uplink with a router, and a prefix for the LAN.
fn with_ipv6(w: &World, prefix: &str) {
    w.record("conf/six", "if=eth0 ipmask=2001:db8:a::5/64 gw=2001:db8:a::1");
    w.record("conf/six_lan", &format!("if=lan0 ipmask={prefix}::1/64"));
    w.apply();
    let add = |net: &Net, interface: &str, address: &str| {
        net.ip(&["-6", "address", "add", address, "dev", interface, "nodad"]);
    };
    if !w.isp[0].ip(&["-6", "address"]).contains("2001:db8:a::1/") {
        add(&w.isp[0], "cust", "2001:db8:a::1/64");
        add(&w.isp[0], "lo", "2001:db8:ffff::10/128");
        add(&w.isp[0], "lo", "2001:db8:fffe::10/128");
    }
    w.isp[0].ip(&["-6", "route", "add", &format!("{prefix}::/64"), "via", "2001:db8:a::5"]);
    for suffix in ["5", "6", "211:22ff:fe33:4455"] {
        add(&w.lan, "port", &format!("{prefix}::{suffix}/64"));
    }
    w.lan.ip(&["-6", "route", "replace", "default", "via", &format!("{prefix}::1")]);
}

#[test]
fn an_ipv6_host_is_open_by_its_suffix_whatever_its_prefix() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::new(lab);
        w.write("fw.conf", "open6=\"tcp/443>lan0::5 udp/500@2001:db8:ffff::/48>lan0::211:22ff:fe33:4455\"\n");
        for prefix in ["2001:db8:1", "2001:db8:2"] {
            with_ipv6(&w, prefix);
            let host = |suffix: &str, port: u16| format!("[{prefix}::{suffix}]:{port}");
            for suffix in ["5", "6", "211:22ff:fe33:4455"] {
                for port in [443, 444, 500] {
                    answer(&w.lan, &host(suffix, port), suffix);
                }
            }
            let asks = |over, from: &str, suffix: &str, port: u16| {
                ask(&w.isp[0], over, Some(from), &host(suffix, port), SILENCE)
            };
            let (friend, stranger) = ("2001:db8:ffff::10", "2001:db8:fffe::10");
            wait_until("the open host", SOON, || asks(Over::Tcp, stranger, "5", 443).as_deref() == Some("5"));
            let eui = "211:22ff:fe33:4455";
            wait_until("the friend", SOON, || asks(Over::Udp, friend, eui, 500).as_deref() == Some(eui));
            for (over, from, suffix, port) in [
                (Over::Tcp, stranger, "5", 444),
                (Over::Udp, stranger, "5", 443),
                (Over::Tcp, stranger, "6", 443),
                (Over::Tcp, stranger, eui, 443),
                (Over::Udp, stranger, eui, 500),
                (Over::Tcp, friend, eui, 500),
            ] {
                assert_eq!(asks(over, from, suffix, port), None, "{over:?} {from} {suffix} {port}");
            }
            let pings = |from: &str, suffix: &str| {
                let to = format!("{prefix}::{suffix}");
                w.isp[0].try_run(&["ping", "-n", "-c1", "-W1", "-I", from, &to]).status.success()
            };
            assert!(pings(stranger, "5") && pings(friend, eui), "RFC 4890 4.3.1");
        }
        assert_eq!(w.fw("plan"), (0, String::new()));
    });
}

#[test]
fn a_host_behind_another_router_is_not_open_by_the_same_suffix() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.write("fw.conf", "open6=\"tcp/443>lan0::5\"\n");
        with_ipv6(&w, "2001:db8:1");
        w.lan.sysctl("net/ipv6/conf/all/forwarding", "1");
        w.lan.ip(&["-6", "address", "add", "2001:db8:9::5/128", "dev", "lo", "nodad"]);
        w.home.ip(&["-6", "route", "add", "2001:db8:9::/64", "via", "2001:db8:1::6"]);
        w.isp[0].ip(&["-6", "route", "add", "2001:db8:9::/64", "via", "2001:db8:a::5"]);
        for address in ["2001:db8:1::5", "2001:db8:9::5"] {
            answer(&w.lan, &format!("[{address}]:443"), address);
            let to = format!("[{address}]:443");
            wait_until(&to, SOON, || ask(&w.home, Over::Tcp, None, &to, SILENCE).as_deref() == Some(address));
        }
        assert_eq!(gets(&w.isp[0], Over::Tcp, None, "[2001:db8:1::5]:443"), "2001:db8:1::5");
        gets_none(&w.isp[0], Over::Tcp, None, "[2001:db8:9::5]:443");
    });
}

#[test]
fn words_that_clash_are_errors_with_their_line_and_the_last_good_content_stays() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.write("fw.conf", "port_forward=\"tcp/8080>192.168.5.2:80\"\n");
        w.apply();
        let before = w.nft();
        assert!(before.contains("dnat"), "{before}");
        w.write("fw.conf", "# two\nport_forward=\"tcp/80-90>192.168.5.2 tcp/85>192.168.5.3\"\n");
        let (code, text) = w.fw("apply");
        let path = w.dir.join("fw.conf");
        assert!(
            code == 1 && text.contains(&format!("{}:2: port_forward: bad value: tcp/85>192.168.5.3", path.display())),
            "{text}"
        );
        assert_eq!(w.nft(), before);
        w.write("fw.conf", "port_forward=\"tcp/8080>172.16.0.9 tcp/22>192.168.5.1\"\nopen6=\"tcp/1>eth0::5\"\n");
        let (code, text) = w.fw("apply");
        assert_eq!(code, 0, "{text}");
        for warning in [
            "fw.conf:1: port_forward tcp/8080>172.16.0.9: 172.16.0.9 is in no network behind an inside interface",
            "fw.conf:1: port_forward tcp/22>192.168.5.1: 192.168.5.1 is this machine itself",
            "fw.conf:2: open6 tcp/1>eth0::5: eth0 is outside: left out",
        ] {
            assert!(text.contains(warning), "{text}");
        }
        assert_eq!(w.fw("apply"), (0, String::new()), "said once");
    });
}

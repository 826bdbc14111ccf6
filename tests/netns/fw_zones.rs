//! Inside and outside: who reaches this machine and the hosts behind it, in every way in which an
//! interface becomes an uplink, and between zones. All checks are packets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use testkit::sniff::Sniffer;
use testkit::talk::{Over, answer, ask};
use testkit::{Lab, Net, isolated, wait_until};

use crate::dnsmasq_argv;
use crate::fw::{SOON, World, fw_path, program};

/// For "no answer comes".
const SILENCE: Duration = Duration::from_millis(400);
/// Services of the router and of the host behind it.
const DOORS: [&str; 3] = ["192.168.100.2:8022", "192.168.5.1:8022", "192.168.5.2:8080"];

/// A world without a lease, whose router and LAN host have a service each; a stranger at the first
/// provider has the address of a modem and guesses the LAN's numbers.
fn world(lab: &Lab) -> World {
    let w = World::new(lab);
    answer(&w.home, "[::]:8022", "router");
    answer(&w.lan, "192.168.5.2:8080", "host");
    w.isp[0].address("cust", "192.168.100.1/24");
    w.isp[0].ip(&["route", "add", "192.168.5.0/24", "via", "192.168.100.2"]);
    w
}

const MODEM: &str = "if=eth0 ipmask=192.168.100.2/24";

#[track_caller]
fn is_closed(w: &World, when: &str) {
    for door in DOORS {
        assert_eq!(ask(&w.isp[0], Over::Tcp, Some("192.168.100.1"), door, SILENCE), None, "{when}: {door}");
    }
    let host = ask(&w.lan, Over::Tcp, None, "192.168.5.1:8022", SOON);
    assert_eq!(host.as_deref(), Some("router"), "{when}: the LAN is inside");
}

#[track_caller]
fn is_open(w: &World, when: &str) {
    for door in DOORS {
        let text = ask(&w.isp[0], Over::Tcp, Some("192.168.100.1"), door, SOON);
        assert!(text.is_some(), "{when}: {door}");
    }
}

#[test]
fn the_address_of_a_modem_opens_nothing_when_the_lease_is_lost() {
    isolated(&["nft"], |lab| {
        let w = world(lab);
        w.record("conf/modem", MODEM);
        w.lease(0, 3600);
        w.apply();
        is_closed(&w, "with the lease");
        w.remove("dyn/dhcp_eth0.ipconf");
        w.apply();
        is_closed(&w, "without");
        // Its owner declares it a network of his own; and takes that back.
        w.record("conf/modem", &format!("{MODEM} zone=lan"));
        let (code, text) = w.fw("apply");
        assert!(code == 0 && text.contains("fw: eth0 is inside now: ") && text.lines().count() == 1, "{code} {text}");
        is_open(&w, "declared");
        w.apply();
        w.record("conf/modem", MODEM);
        let (code, text) = w.fw("apply");
        assert!(
            code == 0 && text.contains("fw: eth0 is outside now: ") && text.contains("since boot"),
            "{code} {text}"
        );
        is_closed(&w, "since boot");
        w.apply();
    });
}

/// What makes an uplink of an interface: its name, how it begins, how it ends.
type Way<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn());

#[test]
fn whoever_makes_an_uplink_of_an_interface_closes_it() {
    isolated(&["nft"], |lab| {
        let w = world(lab);
        w.record("conf/modem", MODEM);
        let ways: [Way; 8] = [
            ("a lease without a router", &|| w.record("dyn/dhcp_eth0", "if=eth0 ipmask=10.0.0.5/24"), &|| {
                w.remove("dyn/dhcp_eth0.ipconf")
            }),
            ("the link watcher", &|| w.record("dyn/link_eth0", "if=eth0 health=up"), &|| {
                w.remove("dyn/link_eth0.ipconf")
            }),
            ("the pinger", &|| w.record("dyn/health_eth0", "if=eth0 health=down"), &|| {
                w.remove("dyn/health_eth0.ipconf")
            }),
            (
                "another program's route",
                &|| drop(w.home.ip(&["route", "add", "default", "via", "192.168.100.1", "dev", "eth0"])),
                &|| drop(w.home.ip(&["route", "del", "default", "dev", "eth0"])),
            ),
            (
                "a route in another table",
                &|| drop(w.home.ip(&["-6", "route", "add", "default", "dev", "eth0", "table", "51820"])),
                &|| drop(w.home.ip(&["-6", "route", "del", "default", "dev", "eth0", "table", "51820"])),
            ),
            (
                "one of two ways at once",
                &|| {
                    let hops = ["nexthop", "via", "192.168.100.1", "nexthop", "dev", "lan0", "via", "192.168.5.2"];
                    w.home.ip(&[&["route", "add", "default"][..], &hops].concat());
                },
                &|| drop(w.home.ip(&["route", "del", "default"])),
            ),
            (
                "another DHCP client",
                &|| {
                    drop(w.home.ip(&[
                        "address",
                        "add",
                        "10.0.0.7/24",
                        "dev",
                        "eth0",
                        "valid_lft",
                        "900",
                        "preferred_lft",
                        "900",
                    ]))
                },
                &|| drop(w.home.ip(&["address", "del", "10.0.0.7/24", "dev", "eth0"])),
            ),
            ("fw.conf", &|| w.write("fw.conf", "preferred_default_route_iface=\"eth0\"\n"), &|| w.remove("fw.conf")),
        ];
        for (way, begin, end) in ways {
            // As after a boot.
            let _ = std::fs::remove_file(w.dir.join("dyn/.memory"));
            assert_eq!(w.fw("apply").0, 0, "{way}");
            is_open(&w, &format!("before {way}"));
            begin();
            let (code, text) = w.fw("apply");
            assert!(code == 0 && text.contains("fw: eth0 is outside now: "), "{way}: {code} {text}");
            if way != "one of two ways at once" {
                is_closed(&w, way);
            } else {
                assert_eq!(ask(&w.isp[0], Over::Tcp, Some("192.168.100.1"), DOORS[0], SILENCE), None, "{way}");
            }
            end();
            let (code, text) = w.fw("apply");
            assert_eq!(code, 0, "{way}: {text}");
            match way {
                // What fw.conf says no more is over.
                "fw.conf" => is_open(&w, way),
                // The default route also went by the LAN.
                "one of two ways at once" => {
                    assert_eq!(ask(&w.isp[0], Over::Tcp, Some("192.168.100.1"), DOORS[0], SILENCE), None, "{way}");
                }
                _ => is_closed(&w, &format!("after {way}")),
            }
        }
    });
}

#[test]
fn an_uplink_that_has_a_router_advertisement_alone_is_closed() {
    isolated(&["nft", "dnsmasq"], |lab| {
        let w = World::new(lab);
        answer(&w.home, "[::]:8022", "router");
        w.write("fw.conf", "preferred_default_route_iface=\"eth0\"\n");
        w.apply();
        let isp = &w.isp[1];
        isp.ip(&["-6", "address", "add", "2001:db8:b::1/64", "dev", "cust", "nodad"]);
        isp.ip(&["-6", "address", "add", "2001:db8:ffff::10/128", "dev", "lo", "nodad"]);
        isp.sysctl("net/ipv6/conf/all/forwarding", "1");
        let ra = ["--enable-ra", "--dhcp-range=2001:db8:b::,ra-only", "--ra-param=cust,4,1800"];
        let _server = isp.spawn(&dnsmasq_argv("cust", &ra));
        let address = || {
            let addresses =
                w.home.run(&["ip", "-6", "-o", "address", "show", "dev", "eth1", "scope", "global", "-tentative"]);
            addresses.split_whitespace().nth(3).map(|a| a.split('/').next().unwrap().to_owned())
        };
        // The kernel first makes sure that its address is its own, then asks for a router.
        wait_until("an address by router advertisement", 3 * SOON, || address().is_some());
        let door = format!("[{}]:8022", address().unwrap());
        let stranger = || ask(isp, Over::Tcp, Some("2001:db8:ffff::10"), &door, SILENCE);
        wait_until("the stranger gets in: no record names eth1, which is a virtual link", SOON, || {
            stranger().is_some()
        });
        w.apply();
        assert_eq!(stranger(), None);
        assert_eq!(w.fw("plan"), (0, String::new()));
    });
}

/// How many packets of this kind have passed the filter of fw.
fn count(net: &Net, matches: &str) -> usize {
    let listed = net.run(&["nft", "list", "table", "inet", "after"]);
    let line = listed.lines().find(|line| line.contains(matches)).unwrap_or_else(|| panic!("{matches}: {listed}"));
    line.split_once("packets ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

/// Sends a datagram from an address and port of `net`.
fn send(net: &Net, from: &str, to: &str) {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    net.within(|| UdpSocket::bind(from).unwrap().send_to(b"x", to).unwrap());
}

#[test]
fn protocols_and_sources_may_be_opened_and_dhcpv6_answers_come_from_any_address() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.home.ip(&["-6", "address", "add", "2001:db8:a::2/64", "dev", "eth0", "nodad"]);
        w.isp[0].ip(&["-6", "address", "add", "2001:db8:a::1/64", "dev", "cust", "nodad"]);
        w.isp[0].address("cust", "10.0.0.77/24");
        let protocols = ["igmp", "esp", "gre", "41", "112"];
        let rules: String = protocols.iter().map(|p| format!("meta l4proto {p} counter\n")).collect();
        let after = "chain i { type filter hook input priority filter + 10;";
        w.home.run(&[
            "nft",
            &format!("table inet after {{ {after}\n{rules} udp dport 546 counter\nudp dport 7000 counter\n}}\n}}"),
        ]);
        let names = ["l4proto igmp", "l4proto esp", "l4proto gre", "l4proto ipv6", "l4proto vrrp"];
        // One packet of each protocol; the last datagram shows that all have come.
        let knock = |round: usize| {
            for number in [2, 50, 47, 41, 112] {
                let body = format!(
                    "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, {number}).sendto(bytes(20), ('10.0.0.5', 0))"
                );
                w.isp[0].run(&["python3", "-c", &body]);
            }
            send(&w.isp[0], "10.0.0.1:7000", "10.0.0.5:7000");
            wait_until("the last one", SOON, || count(&w.home, "udp dport 7000") >= round);
            names.map(|name| count(&w.home, name))
        };
        w.write("fw.conf", "ext_open_udp=\"7000\"\n");
        w.apply();
        assert_eq!(knock(1), [0; 5]);
        w.write(
            "fw.conf",
            "ext_open_udp=\"7000\"\next_open=\"igmp esp gre proto/41 tcp/8022@10.0.0.77/32 udp/8023-8024\"\n",
        );
        w.apply();
        assert_eq!(knock(2), [1, 1, 1, 1, 0]);
        for port in [8022, 8023, 8024, 8025] {
            answer(&w.home, &format!("10.0.0.5:{port}"), "router");
        }
        let asks =
            |over, from, port: u16| ask(&w.isp[0], over, Some(from), &format!("10.0.0.5:{port}"), SILENCE).is_some();
        assert!(asks(Over::Tcp, "10.0.0.77", 8022) && !asks(Over::Tcp, "10.0.0.1", 8022));
        assert!(!asks(Over::Udp, "10.0.0.77", 8022), "the other protocol");
        assert!(
            asks(Over::Udp, "10.0.0.1", 8023)
                && asks(Over::Udp, "10.0.0.1", 8024)
                && !asks(Over::Udp, "10.0.0.1", 8025)
        );

        // RFC 8415: the server's address may be global, and its port any. The client's is
        // fe80::/10.
        let own = w.home.run(&["ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link"]);
        let own = own.split_whitespace().nth(3).unwrap().split('/').next().unwrap();
        let index = w.isp[0].ip_json(&["link", "show", "dev", "cust"])[0]["ifindex"].to_string();
        send(&w.isp[0], "[2001:db8:a::1]:1547", "[2001:db8:a::2]:546");
        send(&w.isp[0], "[2001:db8:a::1]:1547", &format!("[{own}%{index}]:546"));
        wait_until("the answer", SOON, || count(&w.home, "udp dport 546") > 0);
        assert_eq!(count(&w.home, "udp dport 546"), 1, "to the link-local address alone");
    });
}

#[test]
fn a_vpn_in_extif_adds_to_the_uplinks() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::leased(lab);
        answer(&w.home, "[::]:8022", "router");
        let stranger = || ask(&w.isp[0], Over::Tcp, None, "10.0.0.5:8022", SILENCE);
        assert_eq!(stranger(), None);
        w.write("fw.conf", "extif=\"tun0\"\n");
        w.apply();
        assert_eq!(stranger(), None);
        assert!(w.lan.pings("198.51.100.1"), "and the LAN is masqueraded");
        let table = w.nft();
        for name in ["eth0", "eth1", "tun0"] {
            assert!(table.contains(&format!("iifname \"{name}\" goto external_input")), "{name}: {table}");
        }
    });
}

#[test]
fn an_interface_in_a_zone_and_in_extif_is_an_error_and_closed() {
    isolated(&["nft"], |lab| {
        let w = world(lab);
        w.record("conf/modem", &format!("{MODEM} zone=guest"));
        w.write("fw.conf", "extif=\"eth0\"\nzone_gest_to=\"outside\"\n");
        for _ in 0..2 {
            let (code, text) = w.fw("apply");
            let place = w.dir.display();
            let both = format!("fw: error: {place}/conf/modem.ipconf:1: eth0 is in zone guest, and extif in fw.conf ");
            let unknown = format!("fw: error: {place}/fw.conf:2: unknown zone: gest");
            assert!(code == 1 && text.contains(&both) && text.contains(&unknown), "{code} {text}");
        }
        is_closed(&w, "named twice");
    });
}

/// After a failover the flows of the LAN are forgotten. The last words of a connection belong to no
/// flow then, and no address translation touches them.
#[test]
fn nothing_leaves_an_uplink_with_an_address_of_the_lan() {
    isolated(&["nft", "conntrack"], |lab| {
        let w = World::leased(lab);
        answer(&w.isp[0], "198.51.100.1:7000", "server");
        let leaks = |sniffer: &Sniffer| {
            // An IPv4 packet: its source is at 26 of the frame.
            sniffer
                .frames()
                .iter()
                .filter(|(_, f)| f.get(12..14) == Some(&[8, 0]) && f.get(26..30) == Some(&[192, 168, 5, 2]))
                .count()
        };
        let close_late = || {
            let stream = w.lan.within(|| std::net::TcpStream::connect("198.51.100.1:7000").unwrap());
            w.home.run(&["conntrack", "-F"]);
            let sniffer = Sniffer::start(&w.isp[0], "cust").unwrap();
            stream.shutdown(std::net::Shutdown::Both).unwrap();
            sniffer
        };
        let rule = "oifname \"eth0\" ct state invalid drop";
        assert!(w.nft().contains(rule));
        let sniffer = close_late();
        // The kernel says its last words again, after 200 and 600 ms.
        assert_eq!(ask(&w.lan, Over::Tcp, None, "198.51.100.1:7000", SOON).as_deref(), Some("server"));
        let handle = || {
            let table = w.home.run(&["nft", "-a", "list", "chain", "inet", "netsv", "forward"]);
            let line = table.lines().find(|line| line.contains(rule)).unwrap();
            line.rsplit_once("handle ").unwrap().1.to_owned()
        };
        assert_eq!(ask(&w.isp[0], Over::Udp, None, "10.0.0.5:9", SILENCE), None);
        assert_eq!(leaks(&sniffer), 0);
        // Without the rule they leave as they are.
        w.home.run(&["nft", "delete", "rule", "inet", "netsv", "forward", "handle", &handle()]);
        let sniffer = close_late();
        wait_until("a leak", SOON, || leaks(&sniffer) > 0);
    });
}

#[test]
fn both_ends_of_a_connection_learn_the_smaller_mtu() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.record("dyn/dhcp_eth0", "if=eth0 ipmask=10.0.0.5/24 gw=10.0.0.1 mtu=1492");
        w.home.ip(&["-6", "address", "add", "fd00:5::1/64", "dev", "lan0", "nodad"]);
        w.lan.ip(&["-6", "address", "add", "fd00:5::2/64", "dev", "port", "nodad"]);
        w.lan.ip(&["-6", "route", "add", "default", "via", "fd00:5::1"]);
        w.home.ip(&["-6", "address", "add", "2001:db8::5/64", "dev", "eth0", "nodad"]);
        w.isp[0].ip(&["-6", "address", "add", "2001:db8::1/64", "dev", "cust", "nodad"]);
        w.apply();
        w.home.sysctl("net/ipv6/conf/all/forwarding", "1");
        // The MSS of a SYN is at 22 of its TCP header, the first option: kind 2, length 4.
        let mss = |frames: &[testkit::sniff::Frame], v4: bool, port: u16| {
            let head = if v4 { 14 + 20 } else { 14 + 40 };
            let kind = if v4 { [8, 0] } else { [0x86, 0xdd] };
            let is = |f: &[u8]| {
                let ports = [f.get(head..head + 2), f.get(head + 2..head + 4)];
                f.get(12..14) == Some(&kind)
                    && ports.contains(&Some(&port.to_be_bytes()[..]))
                    && f.get(head + 13).is_some_and(|flags| flags & 2 != 0)
                    && f.get(head + 20..head + 22) == Some(&[2, 4])
            };
            let found = frames.iter().find(|(_, f)| is(f))?;
            Some(u16::from_be_bytes([found.1[head + 22], found.1[head + 23]]))
        };
        for (server, v4, want) in [("198.51.100.1:7000", true, 1452), ("[2001:db8::1]:7000", false, 1432)] {
            answer(&w.isp[0], server, "server");
            let (far, near) = (Sniffer::start(&w.isp[0], "cust").unwrap(), Sniffer::start(&w.lan, "port").unwrap());
            assert_eq!(ask(&w.lan, Over::Tcp, None, server, SOON).as_deref(), Some("server"));
            wait_until("both have it", SOON, || {
                mss(&far.frames(), v4, 7000).is_some() && mss(&near.frames(), v4, 7000).is_some()
            });
            assert_eq!(mss(&far.frames(), v4, 7000), Some(want), "the server's view of the client");
            assert_eq!(mss(&near.frames(), v4, 7000), Some(want), "the client's view of the server");
        }
    });
}

/// The uplink is a bridge that virtual machines share. br_netfilter, which container programs load,
/// shows its frames to the forward hook, with the bridge on both sides.
#[test]
fn packets_between_ports_of_one_bridge_pass_and_are_not_masqueraded() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::new(lab);
        w.home.ip(&["address", "flush", "dev", "lan0"]);
        w.remove("conf/lan.ipconf");
        w.home.bridge("br0");
        for port in ["eth0", "lan0"] {
            w.home.port("br0", port);
        }
        for (family, hook) in [("ip", "iptables"), ("ip6", "ip6tables")] {
            assert!(
                !w.home.run(&["sysctl", "-w", &format!("net.bridge.bridge-nf-call-{hook}=1")]).is_empty(),
                "{family}"
            );
        }
        // The machine behind the bridge is a host of the provider's network.
        w.lan.ip(&["address", "flush", "dev", "port"]);
        w.lan.address("port", "10.0.0.77/24");
        w.lan.ip(&["route", "replace", "default", "via", "10.0.0.1"]);
        w.lan.ip(&["-6", "address", "add", "fd00::77/64", "dev", "port", "nodad"]);
        w.isp[0].ip(&["-6", "address", "add", "fd00::1/64", "dev", "cust", "nodad"]);
        w.record("dyn/dhcp_br0", "if=br0 ipmask=10.0.0.5/24 gw=10.0.0.1");
        let echo = |net: &Net, target: &str| net.pings(target);
        assert!(echo(&w.lan, "10.0.0.1"), "before fw");
        w.apply();
        for (net, targets) in [(&w.lan, ["10.0.0.1", "fd00::1"]), (&w.isp[0], ["10.0.0.77", "fd00::77"])] {
            for target in targets {
                assert!(echo(net, target), "{target}");
            }
        }
        w.lan.address("port", "169.254.7.7/16");
        w.isp[0].address("cust", "169.254.9.9/16");
        assert!(echo(&w.lan, "169.254.9.9"), "hosts without a DHCP server");
        answer(&w.isp[0], "198.51.100.1:7000", "far");
        answer(&w.home, "10.0.0.5:8022", "router");
        let sniffer = Sniffer::start(&w.isp[0], "cust").unwrap();
        assert_eq!(ask(&w.lan, Over::Udp, None, "198.51.100.1:7000", SOON).as_deref(), Some("far"));
        let sources = || -> Vec<Vec<u8>> {
            let frames = sniffer.frames();
            let is_udp = |f: &Vec<u8>| f.get(12..14) == Some(&[8, 0]) && f.get(23) == Some(&17);
            frames.into_iter().map(|(_, f)| f).filter(is_udp).map(|f| f[26..30].to_vec()).collect()
        };
        wait_until("the frame", SOON, || !sources().is_empty());
        assert_eq!(sources(), [[10, 0, 0, 77]], "with its own address");
        for net in [&w.lan, &w.isp[0]] {
            assert_eq!(ask(net, Over::Tcp, None, "10.0.0.5:8022", SILENCE), None, "the router itself is closed");
        }
        // It routes nothing from the bridge back to it: a stranger there uses nobody's address.
        w.home.sysctl("net/ipv4/conf/all/send_redirects", "0");
        w.home.sysctl("net/ipv4/conf/br0/send_redirects", "0");
        w.lan.ip(&["route", "replace", "default", "via", "10.0.0.5"]);
        assert_eq!(ask(&w.lan, Over::Udp, None, "198.51.100.1:7000", SILENCE), None);
        w.lan.ip(&["route", "replace", "default", "via", "10.0.0.1"]);
        assert_eq!(ask(&w.lan, Over::Udp, None, "198.51.100.1:7000", SOON).as_deref(), Some("far"));
    });
}

#[test]
fn a_guest_network_is_two_lines() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::leased(lab);
        let guest = lab.net("guest");
        lab.cable((&w.home, "guest0"), (&guest, "eth0"));
        guest.address("eth0", "10.0.2.2/24");
        guest.ip(&["route", "add", "default", "via", "10.0.2.1"]);
        answer(&w.lan, "192.168.5.2:445", "files");
        answer(&guest, "10.0.2.2:631", "printer");
        answer(&w.isp[0], "198.51.100.1:80", "far");
        for port in [22, 53, 67] {
            answer(&w.home, &format!("[::]:{port}"), "router");
        }
        let guest_asks = |over, to: &str| ask(&guest, over, None, to, SILENCE);
        // Without a zone it is another LAN.
        w.record("conf/guest", "if=guest0 ipmask=10.0.2.1/24");
        w.apply();
        assert!(guest_asks(Over::Tcp, "192.168.5.2:445").is_some() && guest_asks(Over::Tcp, "10.0.2.1:22").is_some());
        w.record("conf/guest", "if=guest0 ipmask=10.0.2.1/24 zone=guest");
        w.apply();
        for (over, door) in [
            (Over::Tcp, "192.168.5.2:445"),
            (Over::Udp, "192.168.5.2:445"),
            (Over::Tcp, "10.0.2.1:22"),
            (Over::Tcp, "192.168.5.1:22"),
            (Over::Tcp, "10.0.0.5:22"),
            (Over::Udp, "10.0.2.1:22"),
        ] {
            assert_eq!(guest_asks(over, door), None, "{over:?} {door}");
        }
        for (over, door) in [
            (Over::Udp, "10.0.2.1:53"),
            (Over::Tcp, "10.0.2.1:53"),
            (Over::Udp, "10.0.2.1:67"),
            (Over::Tcp, "198.51.100.1:80"),
            (Over::Udp, "198.51.100.1:80"),
        ] {
            assert!(guest_asks(over, door).is_some(), "{over:?} {door}");
        }
        assert!(guest.pings("10.0.2.1") && guest.pings("198.51.100.1") && !guest.pings("192.168.5.2"));
        assert_eq!(ask(&w.lan, Over::Tcp, None, "10.0.2.2:631", SOON).as_deref(), Some("printer"), "the LAN may");
        // A word for each door.
        w.write("fw.conf", "zone_guest_to=\"lan\"\nzone_guest_router=\"tcp/22\"\n");
        w.apply();
        assert!(guest_asks(Over::Tcp, "192.168.5.2:445").is_some() && guest_asks(Over::Tcp, "10.0.2.1:22").is_some());
        assert!(guest_asks(Over::Tcp, "198.51.100.1:80").is_none() && guest_asks(Over::Udp, "10.0.2.1:53").is_none());
    });
}

#[test]
fn virtual_links_that_nothing_names_are_left_alone_or_closed() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        let container = lab.net("container");
        lab.cable((&w.home, "veth7"), (&container, "eth0"));
        w.home.address("veth7", "172.17.0.1/24");
        container.address("eth0", "172.17.0.2/24");
        container.ip(&["route", "add", "default", "via", "172.17.0.1"]);
        answer(&w.home, "[::]:8022", "router");
        answer(&w.lan, "192.168.5.2:445", "files");
        answer(&w.isp[0], "198.51.100.1:80", "far");
        let reaches = || {
            ["172.17.0.1:8022", "192.168.5.2:445", "198.51.100.1:80"]
                .map(|door| ask(&container, Over::Tcp, None, door, SILENCE).is_some())
        };
        w.apply();
        assert_eq!(reaches(), [true; 3]);
        w.write("fw.conf", "unlisted=\"closed\"\n");
        w.apply();
        assert_eq!(reaches(), [false; 3]);
        w.write("fw.conf", "unlisted=\"open\"\n");
        w.apply();
        assert_eq!(reaches(), [true; 3]);
    });
}

#[test]
fn a_table_that_is_refused_leaves_the_old_one_in_force() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        answer(&w.home, "[::]:8022", "router");
        let before = w.nft();
        w.write("fw.conf", "ext_open=\"tcp/8022\"\n");
        program(&lab.make_dir("only").join("nft"), "cat >/dev/null; echo 'Error: Out of memory' >&2; exit 1");
        let argv = ["env", "PATH=/run/lab/only:/usr/bin:/bin", &fw_path(lab)];
        for _ in 0..2 {
            let output = w.command(&argv, "apply").output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && text.contains("nft: Error: Out of memory"), "{text}");
            assert_eq!(w.nft(), before);
            assert_eq!(ask(&w.isp[0], Over::Tcp, None, "10.0.0.5:8022", SILENCE), None);
        }
        w.apply();
        assert_eq!(ask(&w.isp[0], Over::Tcp, None, "10.0.0.5:8022", SOON).as_deref(), Some("router"));
    });
}

//! The DHCP client and a cable that comes back, in the same network or in another one; and what the
//! client remembers.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::dhcpd::{Config, Dhcpd, MessageType};
use testkit::{Lab, holds_for, isolated, wait_until};

use crate::dhcp::{ROUTER, SOON, World, field, names, native, script, wait_ip, world};
use crate::dnsmasq_argv;
use crate::servers::street;

fn pull(w: &World) {
    w.cable.pull();
    wait_until("no carrier", SOON, || w.home.ip_json(&["link", "show", "eth0"])[0]["operstate"] == "DOWN");
}

/// The options 50 of all requests that the server has seen.
fn requested(server: &Dhcpd) -> Vec<Option<Ipv4Addr>> {
    let requests = server.seen().into_iter().filter(|seen| seen.kind == Some(MessageType::Request));
    requests.map(|seen| testkit::dhcpd::requested(&seen.message)).collect()
}

#[test]
fn a_cable_that_comes_back_to_its_network_is_confirmed_by_one_request() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        pull(&w);
        w.cable.plug();
        wait_until("a request", SOON, || requested(&server).len() == 2);
        client.wait_log("lease of 192.0.2.100 obtained from 192.0.2.1, lease time 3600\n", SOON);
        assert_eq!(field("ip").as_deref(), Some("192.0.2.100"));
        assert_eq!(requested(&server), [Some(Ipv4Addr::new(192, 0, 2, 100)); 2]);
        assert_eq!(server.count(MessageType::Discover), 1);
        assert!(!client.log().contains("lease lost"), "{}", client.log());
    });
}

#[test]
fn a_cable_that_is_plugged_in_elsewhere_takes_the_address_with_it() {
    isolated(&["dnsmasq"], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        pull(&w);
        // The server of this network is not authoritative: it keeps silent about addresses that it
        // does not know.
        drop(server);
        w.isp.ip(&["addr", "del", "192.0.2.1/24", "dev", "lan"]);
        w.isp.address("lan", "198.51.100.1/24");
        let server = w.isp.spawn(&dnsmasq_argv("lan", &["--dhcp-range=198.51.100.10,198.51.100.20,1h"]));
        server.wait_log("DHCP, IP range", SOON);
        w.cable.plug();
        wait_until("an address of the other network", SOON, || {
            field("ip").is_some_and(|ip| ip.starts_with("198.51.100."))
        });
        assert!(!client.log().contains("is the one of before"), "{}", client.log());
    });
}

#[test]
fn while_the_router_is_the_one_of_before_a_dead_server_costs_nothing() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        pull(&w);
        drop(server);
        w.cable.plug();
        client.wait_log("router 192.0.2.1 is the one of before", SOON);
        client.wait_log("keeping 192.0.2.100 until its lease ends", SOON);
        assert_eq!(field("ip").as_deref(), Some("192.0.2.100"));

        // A router with the same IP address and another Ethernet address is another router.
        pull(&w);
        w.isp.ip(&["link", "set", "lan", "address", "02:00:00:00:77:77"]);
        w.cable.plug();
        client.wait_log("may be of another network", SOON);
        wait_until("no record", SOON, || field("ip").is_none());
    });
}

#[test]
fn a_cable_that_is_plugged_in_for_a_moment_costs_no_address() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        pull(&w);
        // At this moment neither a server nor the earlier router answers.
        drop(server);
        w.isp.ip(&["link", "set", "lan", "address", "02:00:00:00:77:77"]);
        w.cable.plug();
        client.wait_log("broadcasting select for 192.0.2.100, leased before", SOON);
        w.cable.pull();
        holds_for("the record stays", Duration::from_secs(4), || field("ip").as_deref() == Some("192.0.2.100"));
        assert!(!client.log().contains("may be of another network"), "{}", client.log());
        // Without haste the client asks for it anew.
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        w.cable.plug();
        wait_until("a request", SOON, || requested(&server) == [Some(Ipv4Addr::new(192, 0, 2, 100))]);
    });
}

#[test]
fn a_card_with_another_mac_asks_with_it_at_once() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let _client = native(&w, &[]);
        wait_ip("192.0.2.100");
        for change in [&["down"][..], &["address", "02:00:00:00:aa:bb"], &["up"]] {
            w.home.ip(&[&["link", "set", "eth0"], change].concat());
        }
        wait_until("a request", SOON, || requested(&server).len() >= 2);
        assert_eq!(server.seen()[2].message.chaddr(), [2, 0, 0, 0, 0xaa, 0xbb]);
    });
}

/// udhcpc notices at its next packet; then it ends too, with exit code 0.
fn ends_after(lab: &Lab, change: &[&str]) {
    let w = world(lab);
    let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
    let mut client = native(&w, &[]);
    wait_ip("192.0.2.100");
    w.home.ip(&["link", "set", "eth0", "down"]);
    w.home.ip(change);
    assert_eq!(client.wait(SOON).and_then(|status| status.code()), Some(0), "{}", client.log());
    assert!(client.log().contains("interface is gone"), "{}", client.log());
    assert_eq!(field("ip"), None);
}

#[test]
fn an_interface_that_is_renamed_ends_the_client_at_once() {
    isolated(&[], |lab| ends_after(lab, &["link", "set", "eth0", "name", "wan"]));
}

#[test]
fn an_interface_that_is_removed_ends_the_client_at_once() {
    isolated(&[], |lab| ends_after(lab, &["link", "del", "eth0"]));
}

#[test]
fn an_address_that_is_remembered_takes_one_round_trip_and_no_offer() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let state = "/run/lab/state/lease_eth0.ipconf";
        let start = || {
            let client = native(&w, &["--state", "/run/lab/state"]);
            wait_ip("192.0.2.100");
            client
        };
        assert!(start().stop().success());
        assert_eq!((field("ip"), fs::exists(state).unwrap()), (None, true));
        let client = start();
        assert_eq!((server.count(MessageType::Discover), server.count(MessageType::Request)), (1, 2));
        // After a release the client forgets the address.
        client.signal(testkit::Signal::SIGUSR2);
        wait_until("no state", SOON, || !fs::exists(state).unwrap());
        assert!(client.stop().success());
        // The client ignores a damaged file.
        fs::write(state, "let cfg=cfg+1\nif[$cfg]='eth0'\nip[$cfg]=\"$(reboot)\"\n").unwrap();
        assert!(start().stop().success());
        assert_eq!(server.count(MessageType::Discover), 2);
        // A server that does not know the address refuses it, and gives another one.
        server.forget_bindings();
        server.configure(|c| c.first = Ipv4Addr::new(192, 0, 2, 50));
        let client = native(&w, &["--state", "/run/lab/state"]);
        wait_ip("192.0.2.50");
        assert!(client.log().contains("received DHCP NAK"), "{}", client.log());
        wait_until("the new address in the state", Duration::from_secs(5), || {
            fs::read_to_string(state).is_ok_and(|text| text.contains("192.0.2.50"))
        });
    });
}

/// With several interfaces on one link the kernel answers on each for the addresses of all, and
/// asks with any of them (arp_ignore, arp_announce).
#[test]
fn another_interface_on_the_same_link_costs_no_address() {
    isolated(&["ping"], |lab| {
        let (w, _neighbour) = street(lab);
        let second = lab.cable((&w.home, "eth1"), (&w.isp, "port2"));
        w.isp.ip(&["link", "set", "port2", "master", "lan"]);
        let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let clients = ["eth0", "eth1"].map(|interface| {
            let (script, out) = script(lab, interface);
            let client = w.home.spawn(&["udhcpc", "-f", "-i", interface, "-s", &script, "--acd", "fast"]);
            wait_until("a lease", SOON, || names(&out) == ["deconfig", "bound"]);
            (client, out)
        });
        // All requests leave by the first route, with either address, and the other interface hears
        // them.
        for interface in ["eth0", "eth1"] {
            w.home.sysctl(&format!("net/ipv4/neigh/{interface}/mcast_solicit"), "1");
        }
        for (nobody, source) in [(201, 100), (202, 101), (203, 100), (204, 101)] {
            let [nobody, source] = [nobody, source].map(|host| format!("192.0.2.{host}"));
            w.home.try_run(&["ping", "-n", "-c1", "-W1", "-I", &source, &nobody]);
        }
        // A client whose cable was out probes again, and the other interface answers the probe.
        second.pull();
        wait_until("no carrier", SOON, || w.home.ip_json(&["link", "show", "eth1"])[0]["operstate"] == "DOWN");
        second.plug();
        wait_until("the lease is confirmed", SOON, || names(&clients[1].1) == ["deconfig", "bound", "renew"]);
        // The client had announced the address, and the probes did not cost it the address.
        wait_until("a neighbour hears of it", SOON, || w.isp.pings("192.0.2.101"));
        for (client, _) in &clients {
            assert!(!client.log().contains("our address"), "{}", client.log());
        }
        assert_eq!([&clients[0].1, &clients[1].1].map(|out| names(out).len()), [2, 3]);
    });
}

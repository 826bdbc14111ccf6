//! What a server said beside what the router has: routes into other networks, and a lease in the
//! LAN's own network. Whatever came first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use testkit::isolated;

use crate::fw::World;

const FAR: &str = "198.51.100.1";

/// The routes of the main table, without what names no route.
fn routes(w: &World) -> Vec<String> {
    let all = w.home.ip(&["-N", "route", "show", "table", "main"]);
    let mut lines: Vec<String> = all.lines().map(|l| l.trim().to_owned()).collect();
    lines.sort();
    lines
}

#[test]
fn a_lease_before_the_lan_takes_nothing_of_it() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::new(lab);
        let lan = std::fs::read_to_string(w.dir.join("conf/lan.ipconf")).unwrap();
        let lease = "let cfg=cfg+1\nif[$cfg]=eth0\nipmask[$cfg]=10.0.0.5/24\ndns[$cfg]='192.168.5.1 192.0.2.53'\n\
                     routes[$cfg]='192.168.5.0/24 10.0.0.1 192.168.5.2/32 10.0.0.1 192.168.0.0/16 10.0.0.1 0/0 10.0.0.1'\n";
        // The boot race: the lease is there, and the LAN is not yet.
        w.remove("conf/lan.ipconf");
        w.write("dyn/dhcp_eth0.ipconf", lease);
        w.apply();
        assert_eq!(w.home.route_to("192.168.5.2").as_deref(), Some("eth0"), "nothing else is known");
        w.write("conf/lan.ipconf", &lan);
        let (code, said) = w.fw("apply");
        assert_eq!((code, said.lines().count()), (0, 1), "{said}");
        for part in ["dhcp_eth0.ipconf:1: ", "192.168.5.2/32 into the network of lan0", "name server 192.168.5.1 is"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(w.home.route_to("192.168.5.2").as_deref(), Some("lan0"));
        assert!(w.lan.pings(FAR) && w.home.pings("192.168.5.2"));
        assert_eq!(w.home.route_to("192.168.7.7").as_deref(), Some("eth0"), "around the LAN is no harm");
        assert_eq!(w.fw("apply"), (0, String::new()), "said once");
        assert!(!w.etc("resolv.conf").contains("192.168.5.1") && w.etc("resolv.conf").contains("192.0.2.53"));
        let first_the_lease = routes(&w);
        // The other order.
        w.remove("dyn/dhcp_eth0.ipconf");
        w.apply();
        w.write("dyn/dhcp_eth0.ipconf", lease);
        assert_eq!(w.fw("apply").0, 0);
        assert_eq!(routes(&w), first_the_lease);
    });
}

#[test]
fn a_route_into_a_tunnel_or_network_of_another_program_is_left_out() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.record("dyn/dhcp_eth0", "if=eth0 ipmask=10.0.0.5/24 gw=10.0.0.1");
        w.write(
            "dyn/dhcp_eth0.ipconf",
            "let cfg=cfg+1\nif[$cfg]=eth0\nipmask[$cfg]=10.0.0.5/24\n\
             routes[$cfg]='10.8.3.0/24 10.0.0.1 172.20.1.7/32 10.0.0.1 0/0 10.0.0.1'\n",
        );
        w.apply();
        assert_eq!(w.home.route_to("10.8.3.7").as_deref(), Some("eth0"));
        // A VPN and a bridge of containers come later.
        for (name, address) in [("vpn0", "10.8.0.2/16"), ("docker0", "172.20.0.1/16")] {
            w.home.bridge(name);
            w.home.address(name, address);
        }
        let (code, said) = w.fw("apply");
        assert!(
            code == 0 && said.contains("of vpn0") && said.contains("of docker0") && said.lines().count() == 1,
            "{said}"
        );
        assert_eq!(["10.8.3.7", "172.20.1.7"].map(|ip| w.home.route_to(ip).unwrap()), ["vpn0", "docker0"]);
        w.home.ip(&["link", "del", "vpn0"]);
        w.home.ip(&["link", "del", "docker0"]);
        w.apply();
        assert_eq!(["10.8.3.7", "172.20.1.7"].map(|ip| w.home.route_to(ip).unwrap()), ["eth0", "eth0"], "judged anew");
    });
}

#[test]
fn a_lease_in_the_lans_own_network_takes_no_host_away() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::new(lab);
        w.isp[1].address("cust", "192.168.5.254/24");
        let lease = "let cfg=cfg+1\nif[$cfg]=eth1\nipmask[$cfg]=192.168.5.50/25\ngw[$cfg]=192.168.5.254\n\
                     dns[$cfg]='192.168.5.254 192.168.5.1 192.0.2.53'\n";
        w.write("dyn/dhcp_eth1.ipconf", lease);
        let (code, said) = w.fw("apply");
        assert_eq!((code, said.lines().count()), (0, 1), "{said}");
        assert!(said.contains("192.168.5.50/25 of eth1 is in the network of lan0, 192.168.5.0/24"), "{said}");
        assert_eq!(w.home.addresses("eth1"), ["192.168.5.50/32"]);
        assert!(w.home.pings("192.168.5.2") && w.lan.pings("192.168.5.1"), "the LAN");
        assert!(w.home.pings(FAR) && w.lan.pings(FAR), "and the Internet, by a router of the same numbers");
        assert!(w.etc("resolv.conf").ends_with("nameserver 192.0.2.53\n"), "{}", w.etc("resolv.conf"));
        assert!(!w.etc("resolv.conf").contains("192.168.5."), "{}", w.etc("resolv.conf"));
        assert_eq!(w.fw("apply"), (0, String::new()), "said once");
        assert_eq!(w.fw("plan").0, 0, "nothing to do");
        // Its router has the address of this machine in the LAN: the other uplink serves.
        w.lease(0, 3600);
        w.write("dyn/dhcp_eth1.ipconf", &lease.replace("254", "1"));
        let (code, said) = w.fw("apply");
        assert!(code == 0 && said.contains("router 192.168.5.1 is an address of this machine, on lan0"), "{said}");
        assert!(w.lan.pings(FAR) && w.home.pings("192.168.5.2"));
        assert_eq!(w.home.default_routes().len(), 1);
    });
}

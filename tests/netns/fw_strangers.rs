//! What strangers and guests send to get more than their zone gives them, and links with names that
//! nft would not take as names. All checks are packets and routes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::time::Duration;

use testkit::talk::{Over, answer, ask};
use testkit::{find_program, isolated, wait_until};

use crate::dnsmasq_argv;
use crate::fw::{SOON, World, fw_path, program};

/// For "no answer comes".
const SILENCE: Duration = Duration::from_millis(400);

#[test]
fn a_guest_is_no_router_of_this_machine() {
    isolated(&["nft", "dnsmasq", "ping"], |lab| {
        let w = World::leased(lab);
        let guest = lab.net("guest");
        guest.bridge("br0");
        for (near, far) in [("guest0", "port0"), ("other0", "port1")] {
            lab.cable((&w.home, near), (&guest, far));
            guest.port("br0", far);
        }
        guest.address("br0", "10.0.2.2/24");
        w.record("conf/guest", "if=guest0 ipmask=10.0.2.1/24 zone=guest");
        w.apply();
        guest.ip(&["-6", "address", "add", "2001:db8:b::1/64", "dev", "br0", "nodad"]);
        guest.sysctl("net/ipv6/conf/all/forwarding", "1");
        let ra = ["--enable-ra", "--dhcp-range=2001:db8:b::,ra-only", "--ra-param=br0,4,1800"];
        let _server = guest.spawn(&dnsmasq_argv("br0", &ra));
        let default = |name: &str| w.home.run(&["ip", "-6", "route", "show", "default", "dev", name]);
        let is_known = || !default("other0").is_empty();
        wait_until("the same advertisement, where no zone is", 4 * SOON, is_known);
        assert!(guest.pings("10.0.2.1"), "guest0 has received what was sent before");
        assert_eq!(default("guest0"), "");
    });
}

#[test]
fn a_link_with_a_name_that_is_a_pattern_or_a_rule_is_closed_and_closes_nothing_else() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        answer(&w.home, "[::]:8022", "router");
        let other = lab.net("other");
        lab.cable((&w.home, "odd"), (&other, "eth0"));
        other.address("eth0", "172.17.0.2/24");
        let mut last = "odd".to_owned();
        for name in ["l*", "*", "q\"x", "\"accept;#", "$uplinks"] {
            w.home.ip(&["link", "set", "dev", &last, "down"]);
            w.home.ip(&["link", "set", "dev", &last, "name", name]);
            w.home.ip(&["link", "set", "dev", name, "up"]);
            name.clone_into(&mut last);
            w.home.ip(&["address", "replace", "172.17.0.1/24", "dev", name]);
            w.home.ip(&["route", "replace", "default", "via", "172.17.0.2", "dev", name, "metric", "9999"]);
            // No earlier run has left a table.
            w.home.run(&["nft", "delete", "table", "inet", "netsv"]);
            assert_eq!(w.fw("apply").0, 0, "{name}");
            assert_eq!(ask(&other, Over::Tcp, None, "172.17.0.1:8022", SILENCE), None, "{name}");
            let host = ask(&w.lan, Over::Tcp, None, "192.168.5.1:8022", SOON);
            assert_eq!(host.as_deref(), Some("router"), "{name}: the LAN is inside");
            assert_eq!(w.fw("plan").0, 0, "{name}");
        }
    });
}

#[test]
fn a_table_that_goes_before_fw_has_looked_at_it_is_not_taken_for_loaded() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        answer(&w.home, "[::]:8022", "router");
        w.lease(0, 3600);
        let nft = find_program("nft").unwrap();
        let flushed = format!("{{ cat; echo delete table inet netsv; }} | exec {} \"$@\"", nft.display());
        program(&lab.make_dir("flush").join("nft"), &flushed);
        let argv = ["env", "PATH=/run/lab/flush:/usr/bin:/bin", &fw_path(lab)];
        assert_eq!(w.command(&argv, "apply").status().unwrap().code(), Some(0));
        let stranger = || ask(&w.isp[0], Over::Tcp, None, "10.0.0.5:8022", SILENCE);
        assert_eq!(stranger().as_deref(), Some("router"), "another program has flushed all tables");
        assert_eq!(w.fw("plan").0, 2);
        w.apply();
        assert_eq!(stranger(), None);
        assert_eq!(w.fw("plan"), (0, String::new()));
    });
}

/// The uplink of a container is a veth, which is no card.
#[test]
fn what_is_made_of_a_virtual_uplink_is_outside_too() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        answer(&w.home, "[::]:8022", "router");
        answer(&w.lan, "192.168.5.2:445", "files");
        w.isp[0].ip(&["route", "add", "192.168.5.0/24", "via", "10.0.0.7"]);
        let is_closed = |what: &str| {
            for door in ["10.0.0.7:8022", "192.168.5.1:8022", "192.168.5.2:445"] {
                assert_eq!(ask(&w.isp[0], Over::Tcp, None, door, SILENCE), None, "{what}: {door}");
            }
        };
        w.home.ip(&["link", "add", "mv0", "link", "eth0", "type", "macvlan", "mode", "bridge"]);
        w.home.ip(&["link", "set", "mv0", "up"]);
        w.home.address("mv0", "10.0.0.7/24");
        // Else eth0 answers for the address of mv0, and gets its packets.
        w.home.sysctl("net/ipv4/conf/all/arp_ignore", "1");
        w.apply();
        is_closed("a macvlan");
        w.home.ip(&["link", "delete", "mv0"]);
        w.home.bridge("br7");
        w.home.port("br7", "eth0");
        w.home.address("br7", "10.0.0.7/24");
        w.isp[0].ip(&["neighbour", "flush", "all"]);
        w.apply();
        is_closed("a bridge of another program");
        assert_eq!(ask(&w.lan, Over::Tcp, None, "192.168.5.1:8022", SOON).as_deref(), Some("router"));
    });
}

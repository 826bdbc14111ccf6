//! What the kernel keeps by itself of fw's work, without fw and without a watcher: networks over
//! down and up, nothing of the inside on an uplink, router advertisements; and what fw gives back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]
#![expect(clippy::disallowed_methods, reason = "marks moments between pings")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use testkit::probe::Probe;
use testkit::talk::inside;
use testkit::{Net, isolated, wait_until};

use crate::dnsmasq_argv;
use crate::fw::{SOON, World};

/// A connection that stays open: each word comes back.
struct Session(TcpStream);

impl Session {
    fn open(from: &Net, at: &Net, address: &'static str) -> Session {
        let listener = inside(at, move || TcpListener::bind(address)).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut bytes) {
                stream.write_all(&bytes[..count]).unwrap();
            }
        });
        let stream = inside(from, move || TcpStream::connect(address)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Session(stream)
    }

    #[track_caller]
    fn says(&mut self, word: &str) {
        self.0.write_all(word.as_bytes()).unwrap();
        let mut back = vec![0; word.len()];
        self.0.read_exact(&mut back).unwrap();
        assert_eq!(back, word.as_bytes());
    }
}

fn switch(net: &Net, path: &str) -> String {
    net.run(&["cat", &format!("/proc/sys/net/{path}")]).trim().to_owned()
}

#[test]
fn a_lan_survives_down_and_up_with_its_networks_metrics_and_connections() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        // A second port in the same network has the next metric, also after down and up.
        lab.cable((&w.home, "lan1"), (&w.lan, "port1"));
        w.record("conf/lan1", "if=lan1 ipmask=192.168.5.9/24");
        w.record("conf/lan6", "if=lan0 ipmask=fd00:2::1/64");
        w.lan.ip(&["-6", "address", "add", "fd00:2::2/64", "dev", "port", "nodad"]);
        w.apply();
        let routes = || ["-4", "-6"].map(|family| w.home.ip(&[family, "route", "show", "dev", "lan0"]));
        let both = || w.home.ip(&["route", "show", "192.168.5.0/24"]);
        wait_until("IPv6 of the LAN", SOON, || w.lan.pings("fd00:2::1"));
        let (before, networks) = (routes(), both());
        let mut session = Session::open(&w.lan, &w.home, "192.168.5.1:2222");
        let mut session6 = Session::open(&w.lan, &w.home, "[fd00:2::1]:2222");
        session.says("before");
        session6.says("before");
        for _ in 0..3 {
            for name in ["lan0", "lan1"] {
                w.home.ip(&["link", "set", name, "down"]);
                w.home.ip(&["link", "set", name, "up"]);
            }
        }
        assert_eq!(both(), networks);
        session.says("after");
        session6.says("after");
        wait_until("the routes of the LAN", SOON, || routes() == before);
        assert!(w.lan.pings("198.51.100.1"));
        assert_eq!(w.fw("plan"), (0, String::new()), "nothing is left for fw");
    });
}

/// An address with a route of fw's own, as every address had before: it is that of an uplink, and
/// fw forgets that it was one.
#[test]
fn an_address_of_an_earlier_version_turns_to_the_kernels_route_and_no_packet_is_lost() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        w.write("fw.conf", "ext_open_tcp=\"2222\"\n");
        w.record("conf/lan", "if=lan0 ipmask=192.168.5.1/24 gw=192.168.5.2 metric=0");
        w.record("conf/lan6", "if=lan0 ipmask=fd00:2::1/64 gw=fd00:2::2 metric=256");
        w.apply();
        let of_fw = || w.home.ip(&["route", "show", "dev", "lan0", "proto", "213"]);
        let of_kernel = |family: &str| w.home.ip(&[family, "route", "show", "dev", "lan0", "proto", "kernel"]);
        assert!(of_fw().contains("192.168.5.0/24") && of_kernel("-4").is_empty(), "{}", of_fw());
        let probe = Probe::start(Some("lan"), "192.168.5.1".parse().unwrap(), Duration::from_millis(1)).unwrap();
        let from = Instant::now();
        wait_until("the first answer", SOON, || probe.first_answer(from).is_some());
        let mut session = Session::open(&w.lan, &w.home, "192.168.5.1:2222");
        let from = Instant::now();
        w.remove("dyn/.memory");
        w.record("conf/lan", "if=lan0 ipmask=192.168.5.1/24");
        w.record("conf/lan6", "if=lan0 ipmask=fd00:2::1/64");
        w.apply();
        session.says("still here");
        let last = Instant::now();
        wait_until("an answer after it", SOON, || probe.first_answer(last).is_some());
        let loss = probe.loss(from, last);
        assert!(loss.sent > 0 && loss.lost == 0, "{loss:?}");
        assert!(of_kernel("-4").contains("192.168.5.0/24") && of_kernel("-6").contains("fd00:2::/64"));
        assert!(!of_fw().contains("192.168.5.0/24"), "{}", of_fw());
        assert_eq!(w.home.addresses("lan0"), ["192.168.5.1/24"]);
        assert_eq!(w.fw("plan"), (0, String::new()));
    });
}

#[test]
fn nothing_for_the_inside_leaves_by_an_uplink_without_carrier_set_down_or_gone() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.record("conf/six", "if=eth0 ipmask=2001:db8::5/64 gw=2001:db8::1");
        w.record("conf/lan6", "if=lan0 ipmask=fd00:2::1/64");
        w.record("conf/behind", "if=lan0 net=10.9.0.0/16 gw=192.168.5.2");
        w.isp[0].ip(&["-6", "address", "add", "2001:db8::1/64", "dev", "cust", "nodad"]);
        w.apply();
        let count = "table inet seen { chain c { type filter hook prerouting priority -300; \
                     ip daddr { 192.168.5.0/24, 10.9.0.0/16 } counter; ip6 daddr fd00:2::/64 counter; }; }";
        w.isp.iter().for_each(|isp| drop(isp.run(&["nft", count])));
        wait_until("the router of IPv6 answers", SOON, || w.home.pings("2001:db8::1"));
        let say = |to: &'static str| {
            let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            inside(&w.home, move || UdpSocket::bind(any)?.send_to(b"a password", to)).map_err(|e| e.raw_os_error())
        };
        let all = ["192.168.5.2:514", "[fd00:2::2]:514", "10.9.0.1:514"];
        let assert_kept = |what: &str| {
            for to in all {
                let refused = Err(Some(nix::errno::Errno::EHOSTUNREACH as i32));
                wait_until(&format!("{what}: {to} is refused"), SOON, || say(to) == refused);
            }
        };
        let rule = |name: &str| w.home.ip(&["route", "get", name]).contains("lan0");
        assert!(rule("192.168.5.2") && rule("10.9.0.1"));
        w.cables[2].pull();
        assert_kept("no carrier");
        w.cables[2].plug();
        w.home.ip(&["link", "set", "lan0", "down"]);
        assert_kept("set down");
        w.home.ip(&["link", "set", "lan0", "up"]);
        w.home.ip(&["link", "del", "lan0"]);
        assert_kept("gone");
        let (code, text) = w.fw("apply");
        assert!(code == 0 && text.contains("no interface lan0 yet"), "{text}");
        assert_kept("gone, and fw has run");
        for isp in &w.isp {
            let seen = isp.run(&["nft", "list", "table", "inet", "seen"]);
            assert_eq!(seen.matches("packets 0 bytes 0").count(), 2, "{seen}");
        }
    });
}

/// The provider's router advertisements give eth0 its IPv6. A VPN's default route comes, for which
/// this machine forwards IPv6, and goes.
#[test]
fn router_advertisements_are_heard_while_this_machine_forwards_and_after_it() {
    isolated(&["nft", "dnsmasq"], |lab| {
        let w = World::new(lab);
        let isp = &w.isp[0];
        isp.ip(&["-6", "address", "add", "2001:db8:a::1/64", "dev", "cust", "nodad"]);
        isp.ip(&["-6", "address", "add", "2001:db8:ffff::10/128", "dev", "lo", "nodad"]);
        isp.sysctl("net/ipv6/conf/all/forwarding", "1");
        let ra = ["--enable-ra", "--dhcp-range=2001:db8:a::,ra-only", "--ra-param=cust,4,1800"];
        let server = isp.spawn(&dnsmasq_argv("cust", &ra));
        w.home.ip(&["link", "set", "eth0", "up"]);
        lab.cable((&w.home, "tun0"), (&w.isp[1], "tunnel"));
        wait_until("a default route by router advertisement", Duration::from_secs(15), || {
            w.home.pings("2001:db8:ffff::10")
        });
        w.lease(0, 3600);
        w.apply();
        let forwarding = "ipv6/conf/all/forwarding";
        let heard = ["eth0", "eth1", "default", "lan0"];
        let values = || heard.map(|name| switch(&w.home, &format!("ipv6/conf/{name}/accept_ra")));
        let before = values();
        assert_eq!((switch(&w.home, forwarding).as_str(), before[0].as_str()), ("0", "1"));
        w.home.sysctl("net/ipv6/conf/eth1/accept_ra", "0");

        w.record("dyn/vpn0", "if=tun0 ipmask=fd00:9::2/64 gw=fd00:9::1 metric=5000");
        w.apply();
        assert_eq!(switch(&w.home, forwarding), "1");
        assert_eq!(values(), ["2", "0", "2", "1"], "where the administrator wants none, and inside, none is heard");
        assert!(w.home.pings("2001:db8:ffff::10"), "{}", server.log());
        // It is there after the next advertisement, too: a server sends one when it starts.
        w.home.ip(&["-6", "route", "del", "default", "dev", "eth0"]);
        drop(server);
        let _server = isp.spawn(&dnsmasq_argv("cust", &ra));
        wait_until("the next advertisement", Duration::from_secs(15), || w.home.pings("2001:db8:ffff::10"));

        w.remove("dyn/vpn0.ipconf");
        w.apply();
        assert_eq!((switch(&w.home, forwarding).as_str(), values()), ("0", ["1", "0", "1", "1"].map(str::to_owned)));
        assert!(w.home.pings("2001:db8:ffff::10"));
    });
}

#[test]
fn a_switch_gets_back_what_it_held_unless_another_program_has_changed_it() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        let of = |name: &str| {
            ["promote_secondaries", "ignore_routes_with_linkdown"].map(|s| format!("ipv4/conf/{name}/{s}"))
        };
        let values = |name: &str| of(name).map(|path| switch(&w.home, &path));
        w.home.sysctl("net/ipv4/conf/eth1/promote_secondaries", "1");
        let before = [values("eth0"), values("eth1"), values("lan0")];
        w.lease(0, 3600);
        w.lease(1, 3600);
        w.apply();
        let ours = ["1", "1"].map(str::to_owned);
        assert_eq!([values("eth0"), values("eth1"), values("lan0")], [ours.clone(), ours.clone(), ours.clone()]);
        w.remove("dyn/dhcp_eth0.ipconf");
        w.remove("dyn/dhcp_eth1.ipconf");
        w.apply();
        assert_eq!([values("eth0"), values("eth1"), values("lan0")], [before[0].clone(), before[1].clone(), ours]);
        w.lease(0, 3600);
        w.apply();
        w.home.sysctl("net/ipv4/conf/eth0/ignore_routes_with_linkdown", "0");
        w.home.sysctl("net/ipv4/conf/lan0/promote_secondaries", "0");
        w.write("fw.conf", "forward=\"no\"\n");
        w.remove("dyn/dhcp_eth0.ipconf");
        w.remove("conf/lan.ipconf");
        w.apply();
        assert_eq!(switch(&w.home, "ipv4/ip_forward"), "0");
        assert_eq!(values("eth0"), before[0]);
        assert_eq!(values("lan0")[0], "0");
        assert_eq!(w.fw("plan"), (0, String::new()));
    });
}

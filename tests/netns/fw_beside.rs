//! fw beside what Docker and libvirt make: their bridges, their tables, br_netfilter on and off.
//!
//! What they make is made by hand, by the same program and in the same chains as theirs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]
#![expect(clippy::disallowed_methods, reason = "marks moments between pings")]

use std::thread;
use std::time::{Duration, Instant};

use testkit::talk::{Over, answer, ask};
use testkit::{Lab, Net, isolated, wait_until};

use crate::fw::{SOON, World};
use crate::fw_packets::{assert_lost_at_most, probe};

const TOOLS: [&str; 4] = ["nft", "iptables-nft", "iptables-nft-restore", "sysctl"];
/// Behind both providers.
const FAR: &str = "198.51.100.1";
/// It has routes to the networks of containers and VMs, by the router's address at the uplink.
const STRANGER: &str = "203.0.113.66";
/// For "no answer comes".
const SILENCE: Duration = Duration::from_millis(400);
const LINKS: [&str; 5] = ["docker0", "veth1", "veth2", "virbr0", "vnet0"];
const BOTH: [Over; 2] = [Over::Tcp, Over::Udp];

/// What Docker makes for a container that publishes port 80 as 8080.
const DOCKER: &str = "\
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A DOCKER ! -i docker0 -p udp -m udp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:FORWARD POLICY [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p udp -m udp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
";

/// What libvirt makes for its network `default`; INWARD is its verdict on strangers' packets.
const LIBVIRT: &str = "\
*nat
:LIBVIRT_PRT - [0:0]
-A POSTROUTING -j LIBVIRT_PRT
-A LIBVIRT_PRT -s 192.168.122.0/24 -d 224.0.0.0/24 -j RETURN
-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -p tcp -j MASQUERADE --to-ports 1024-65535
-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -p udp -j MASQUERADE --to-ports 1024-65535
-A LIBVIRT_PRT -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE
COMMIT
*filter
:LIBVIRT_INP - [0:0]
:LIBVIRT_FWI - [0:0]
:LIBVIRT_FWO - [0:0]
:LIBVIRT_FWX - [0:0]
-I INPUT -j LIBVIRT_INP
-I FORWARD -j LIBVIRT_FWO
-I FORWARD -j LIBVIRT_FWI
-I FORWARD -j LIBVIRT_FWX
-A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 53 -j ACCEPT
-A LIBVIRT_INP -i virbr0 -p udp -m udp --dport 67 -j ACCEPT
-A LIBVIRT_FWX -i virbr0 -o virbr0 -j ACCEPT
-A LIBVIRT_FWI -d 192.168.122.0/24 -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A LIBVIRT_FWI -o virbr0 -j INWARD
-A LIBVIRT_FWO -s 192.168.122.0/24 -i virbr0 -j ACCEPT
-A LIBVIRT_FWO -i virbr0 -j REJECT --reject-with icmp-port-unreachable
COMMIT
";

/// Two containers on docker0, and a VM on virbr0.
struct Guests {
    web: Net,
    other: Net,
    vm: Net,
}

/// Whether Docker and libvirt close their networks themselves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inward {
    /// Docker's policy, and libvirt's network with address translation.
    Closed,
    /// Docker on a host that forwarded before it, and libvirt's routed network.
    Open,
}

/// Makes `net` a host on the bridge of the router.
fn host(lab: &Lab, w: &World, name: &str, (bridge, port): (&str, &str), network: (&str, u8, u8)) -> Net {
    let net = lab.net(name);
    lab.cable((&w.home, port), (&net, "eth0"));
    w.home.port(bridge, port);
    let (base, number, length) = network;
    net.address("eth0", &format!("{base}.{number}/{length}"));
    net.ip(&["route", "add", "default", "via", &format!("{base}.1")]);
    for port in [80, 81] {
        answer(&net, &format!("{base}.{number}:{port}"), name);
    }
    net
}

fn restore(lab: &Lab, w: &World, name: &str, text: &str) {
    let path = lab.dir().join(name);
    std::fs::write(&path, text).unwrap();
    w.home.run(&["iptables-nft-restore", "--noflush", path.to_str().unwrap()]);
}

impl Guests {
    fn new(lab: &Lab, w: &World, inward: Inward) -> Guests {
        let (policy, verdict) = match inward {
            Inward::Closed => ("DROP", "REJECT --reject-with icmp-port-unreachable"),
            Inward::Open => ("ACCEPT", "ACCEPT"),
        };
        w.home.sysctl("net/ipv4/ip_forward", "1");
        for (bridge, address) in [("docker0", "172.17.0.1/16"), ("virbr0", "192.168.122.1/24")] {
            w.home.bridge(bridge);
            w.home.address(bridge, address);
        }
        let web = host(lab, w, "web", ("docker0", "veth1"), ("172.17.0", 2, 16));
        let other = host(lab, w, "other", ("docker0", "veth2"), ("172.17.0", 3, 16));
        let vm = host(lab, w, "vm", ("virbr0", "vnet0"), ("192.168.122", 2, 24));
        restore(lab, w, "docker.rules", &DOCKER.replace("POLICY", policy));
        restore(lab, w, "libvirt.rules", &LIBVIRT.replace("INWARD", verdict));
        Guests { web, other, vm }
    }

    /// The Internet, each other, the published port.
    #[track_caller]
    fn are_served(&self, w: &World, when: &str) {
        let far = format!("{FAR}:80");
        let stranger = Some(STRANGER);
        for over in BOTH {
            for (net, from, to, name) in [
                (&self.web, None, far.as_str(), "far"),
                (&self.vm, None, &far, "far"),
                (&w.lan, None, &far, "far"),
                (&self.web, None, "172.17.0.3:81", "other"),
                (&self.other, None, "172.17.0.2:81", "web"),
                (&w.isp[0], stranger, "10.0.0.5:8080", "web"),
                (&w.isp[1], stranger, "10.1.0.5:8080", "web"),
                (&w.lan, None, "10.0.0.5:8080", "web"),
                (&w.lan, None, "192.168.5.1:8080", "web"),
            ] {
                let text = ask(net, over, from, to, SOON);
                assert_eq!(text.as_deref(), Some(name), "{when}: {} to {to} over {over:?}", net.name());
            }
        }
    }
}

/// The services of the router, of the containers and of the VM that a stranger asks in vain.
const DOORS: [&str; 7] = [
    "172.17.0.2:80",
    "172.17.0.2:81",
    "172.17.0.3:80",
    "192.168.122.2:80",
    "10.0.0.5:8022",
    "172.17.0.1:8022",
    "192.168.122.1:8022",
];

/// The router has a service at each of its addresses.
fn serve(w: &World) {
    for address in ["10.0.0.5", "192.168.5.1", "172.17.0.1", "192.168.122.1"] {
        answer(&w.home, &format!("{address}:8022"), "router");
    }
}

/// Those of `doors` that answer, asked all at once.
fn open(net: &Net, from: Option<&str>, doors: &[&str]) -> Vec<String> {
    let asks = |over, door: &str| ask(net, over, from, door, SILENCE).map(|_| format!("{over:?} {door}"));
    thread::scope(|scope| {
        let threads = BOTH.map(|over| doors.iter().map(move |door| scope.spawn(move || asks(over, door))));
        let threads: Vec<_> = threads.into_iter().flatten().collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    })
}

fn to_stranger(w: &World) -> Vec<String> {
    open(&w.isp[0], Some(STRANGER), &DOORS)
}

/// A world with services, and a stranger who guesses the numbers of containers and VMs. Answers to
/// their own addresses find no way, so that only masqueraded packets get one.
fn world(lab: &Lab) -> World {
    let w = World::new(lab);
    w.lease(0, 3600);
    w.lease(1, 3600);
    for (isp, n) in w.isp.iter().zip(0..) {
        answer(isp, &format!("{FAR}:80"), "far");
        isp.address("lo", &format!("{STRANGER}/32"));
        isp.ip(&["rule", "add", "from", STRANGER, "table", "66"]);
        for network in ["172.17.0.0/16", "192.168.122.0/24"] {
            isp.ip(&["route", "add", network, "via", &format!("10.{n}.0.5"), "table", "66", "onlink", "dev", "cust"]);
        }
    }
    w
}

/// Shows the packets between ports of a bridge to the rules, or not.
fn filter_bridges(w: &World, on: bool) {
    for hook in ["iptables", "ip6tables"] {
        w.home.run(&["sysctl", "-w", &format!("net.bridge.bridge-nf-call-{hook}={}", u8::from(on))]);
    }
}

/// All that Docker and libvirt have made, as text. When a machine begins to forward, the kernel
/// itself turns `forwarding` of each link, and gives it the address of all routers.
fn theirs(w: &World) -> String {
    let mut text = w.home.run(&["sysctl", "net.ipv4.ip_forward"]);
    for table in ["filter", "nat"] {
        text += &w.home.run(&["nft", "-s", "list", "table", "ip", table]);
    }
    for link in LINKS {
        text += &w.home.ip(&["-o", "link", "show", "dev", link]);
        text += &w.home.ip(&["-o", "address", "show", "dev", link]);
        let routes = w.home.ip(&["route", "show", "table", "all", "dev", link]);
        text.extend(routes.split_inclusive('\n').filter(|line| !line.starts_with("anycast ")));
        let switches = w.home.run(&["sysctl", "-a", "-r", &format!(r"net\.ipv[46]\.(conf|neigh)\.{link}\.")]);
        text.extend(switches.split_inclusive('\n').filter(|line| !line.contains(".forwarding = ")));
    }
    text
}

#[track_caller]
fn is_unchanged(w: &World, before: &str, when: &str) {
    let now = theirs(w);
    let other = before.lines().zip(now.lines()).find(|(old, new)| old != new);
    assert!(now == before, "{when}: {other:?}");
}

/// The kernel gives each link an address, and first makes sure that it is the only one.
fn wait_for_addresses(w: &World) {
    wait_until("the kernel's own addresses", 2 * SOON, || {
        let all = w.home.ip(&["-6", "-o", "address", "show", "scope", "link", "-tentative"]);
        LINKS.iter().all(|link| all.contains(&format!(" {link} ")))
    });
}

#[test]
fn made_before_fw_they_stay_byte_for_byte_and_lose_no_packet_whatever_fw_does() {
    isolated(&TOOLS, |lab| {
        let w = world(lab);
        w.home.sysctl("net/ipv4/conf/default/rp_filter", "1");
        w.record("conf/six", "if=eth0 ipmask=2001:db8:a::5/64 gw=2001:db8:a::1");
        let guests = Guests::new(lab, &w, Inward::Closed);
        filter_bridges(&w, true);
        wait_for_addresses(&w);
        let before = theirs(&w);
        assert!(before.contains("DOCKER-ISOLATION-STAGE-2") && before.contains("LIBVIRT_PRT"), "{before}");
        let bridged = probe(&guests.web, "172.17.0.3");
        let bridged_from = Instant::now();
        w.apply();
        is_unchanged(&w, &before, "the first run");
        let routed = probe(&guests.web, FAR);
        let from = Instant::now();
        w.apply();
        is_unchanged(&w, &before, "a second run");
        for round in 0..6 {
            w.write("fw.conf", &format!("ext_open_tcp=\"{}\"\n", 1000 + round));
            w.record("dyn/dhcp_eth1", &format!("if=eth1 ipmask=10.1.0.{}/24 gw=10.1.0.1", 10 + round));
            w.apply();
            w.home.run(&["nft", "delete", "table", "inet", "netsv"]);
            assert_eq!(w.fw("apply").0, 0);
            is_unchanged(&w, &before, "another table");
        }
        w.write("fw.conf", "unlisted=\"closed\"\n");
        w.apply();
        is_unchanged(&w, &before, "closed");
        w.remove("fw.conf");
        w.apply();
        assert_lost_at_most(0, &routed, from);
        drop(routed);
        let (code, text) = w.fw("down");
        assert_eq!(code, 0, "{text}");
        assert!(!w.nft().contains("inet netsv") && w.home.addresses("eth0").is_empty());
        is_unchanged(&w, &before, "down");
        assert_lost_at_most(0, &bridged, bridged_from);
    });
}

#[test]
fn containers_and_vms_are_served_and_a_stranger_finds_the_published_port_alone() {
    isolated(&TOOLS, |lab| {
        let w = world(lab);
        let guests = Guests::new(lab, &w, Inward::Open);
        w.apply();
        serve(&w);
        for on in [false, true] {
            filter_bridges(&w, on);
            let when = format!("br_netfilter: {on}");
            guests.are_served(&w, &when);
            assert_eq!(to_stranger(&w), [""; 0], "{when}");
        }
        w.home.run(&["nft", "delete", "table", "inet", "netsv"]);
        assert_eq!(to_stranger(&w).len(), BOTH.len() * DOORS.len(), "it is fw that closes them");
        assert_eq!(w.fw("apply").0, 0);
        assert_eq!(to_stranger(&w), [""; 0]);
    });
}

#[test]
fn made_after_fw_they_are_served_at_once_and_the_router_is_open_to_them_unless_closed() {
    isolated(&TOOLS, |lab| {
        let w = world(lab);
        w.apply();
        let table = w.home.run(&["nft", "-s", "list", "table", "inet", "netsv"]);
        let guests = Guests::new(lab, &w, Inward::Open);
        serve(&w);
        let own = ["172.17.0.1:8022", "10.0.0.5:8022", "192.168.5.1:8022"];
        let all: Vec<String> = BOTH.iter().flat_map(|over| own.map(|door| format!("{over:?} {door}"))).collect();
        let check = |when: &str| {
            for on in [false, true] {
                filter_bridges(&w, on);
                guests.are_served(&w, when);
                assert_eq!(to_stranger(&w), [""; 0], "{when}");
                assert_eq!(open(&guests.web, None, &own), all, "{when}");
                assert_eq!(open(&guests.vm, None, &["192.168.122.1:8022"]).len(), 2, "{when}");
            }
        };
        check("before another run");
        w.apply();
        check("after it");
        assert_eq!(w.home.run(&["nft", "-s", "list", "table", "inet", "netsv"]), table, "nothing of theirs is in it");

        w.write("fw.conf", "unlisted=\"closed\"\n");
        w.apply();
        for on in [false, true] {
            filter_bridges(&w, on);
            assert_eq!(open(&guests.web, None, &own), [""; 0], "br_netfilter: {on}");
            assert_eq!(open(&guests.web, None, &["198.51.100.1:80", "192.168.122.2:80"]), [""; 0]);
            assert_eq!(open(&guests.vm, None, &["192.168.122.1:8022", "198.51.100.1:80"]), [""; 0]);
            for over in BOTH {
                let gets = |net: &Net, from, to: &str| ask(net, over, from, to, SOON);
                assert_eq!(gets(&guests.web, None, "172.17.0.3:81").as_deref(), Some("other"), "br_netfilter: {on}");
                assert_eq!(gets(&w.isp[0], Some(STRANGER), "10.0.0.5:8080").as_deref(), Some("web"));
                assert_eq!(gets(&w.lan, None, "10.0.0.5:8080").as_deref(), Some("web"));
            }
            assert_eq!(to_stranger(&w), [""; 0]);
        }
    });
}

/// Docker sets this policy when it switches forwarding on itself. It is a filter of its own, which
/// no rule of fw opens.
#[test]
fn what_dockers_policy_drops_of_the_lan_two_rules_in_docker_user_let_through() {
    isolated(&TOOLS, |lab| {
        let w = world(lab);
        let guests = Guests::new(lab, &w, Inward::Closed);
        w.write("fw.conf", "port_forward=\"tcp/9000>192.168.5.2:80\"\n");
        w.apply();
        serve(&w);
        answer(&w.lan, "192.168.5.2:80", "lan");
        w.isp[0].ip(&["route", "add", "192.168.5.0/24", "via", "10.0.0.5", "table", "66"]);
        let lan_asks = || ask(&w.lan, Over::Tcp, None, "198.51.100.1:80", SILENCE);
        let forwarded = || ask(&w.isp[0], Over::Tcp, Some(STRANGER), "10.0.0.5:9000", SILENCE);
        assert_eq!((lan_asks(), forwarded()), (None, None));
        for rule in [["-i", "lan0", "-o", "eth0"], ["-i", "eth0", "-o", "lan0"]] {
            w.home.run(&[&["iptables-nft", "-I", "DOCKER-USER"][..], &rule, &["-j", "ACCEPT"]].concat());
        }
        for on in [false, true] {
            filter_bridges(&w, on);
            guests.are_served(&w, "with both rules");
            assert_eq!(forwarded().as_deref(), Some("lan"));
            assert_eq!(to_stranger(&w), [""; 0]);
            assert_eq!(open(&w.isp[0], Some(STRANGER), &["192.168.5.2:80"]), [""; 0]);
        }
        w.apply();
        assert_eq!(lan_asks().as_deref(), Some("far"), "fw left them there");
    });
}

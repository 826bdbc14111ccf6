//! Which uplink a connection of a host behind the router takes: uplinks of its own, shares, and
//! what happens to it when an uplink goes and comes back. Each provider answers with its own name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]
#![expect(clippy::disallowed_methods, reason = "kills at different moments of a run")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use testkit::talk::{Over, answer, ask, inside};
use testkit::{Lab, Net, Signal, isolated, wait_until};

use crate::fw::{SOON, World, fw_path};

const FAR: &str = "198.51.100.1";
const FAR6: &str = "2001:db8:ffff::1";
/// How long an answer that should come may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The name of the provider that answers a new connection of this address of the LAN's host.
fn by(w: &World, from: &str) -> String {
    let to = if from.contains(':') { format!("[{FAR6}]:7000") } else { format!("{FAR}:7000") };
    let name = [Over::Tcp, Over::Udp].map(|over| ask(&w.lan, over, Some(from), &to, PATIENCE).unwrap_or_default());
    assert_eq!(name[0], name[1], "TCP and UDP");
    name.into_iter().next().unwrap()
}

/// Each provider answers at port 7000 with its name, and repeats at port 7001 what it hears.
fn providers(w: &World) {
    for (isp, name) in w.isp.iter().zip(["a", "b"]) {
        answer(isp, &format!("{FAR}:7000"), name);
        echo(isp, &format!("{FAR}:7001"), name);
    }
}

fn echo(net: &Net, address: &str, name: &str) {
    let (address, name) = (address.to_owned(), name.to_owned());
    let listener = inside(net, move || TcpListener::bind(address)).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let name = name.clone();
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(name.as_bytes()).is_ok() {}
            });
        }
    });
}

/// A connection that lasts.
struct Call(TcpStream);

impl Call {
    fn begin(w: &World) -> Call {
        let stream = inside(&w.lan, || TcpStream::connect(format!("{FAR}:7001"))).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Call(stream)
    }

    /// The provider at its other end; `None`: it is broken.
    fn says(&mut self) -> Option<String> {
        let mut byte = [0];
        self.0.write_all(b"?").and_then(|()| self.0.read_exact(&mut byte)).ok()?;
        Some(String::from_utf8_lossy(&byte).into_owned())
    }
}

/// A second address of the LAN's host.
fn second_host(w: &World) {
    w.lan.address("port", "192.168.5.66/24");
}

/// Waits until a host is told that it may leave by none of the uplinks that are there. The kernel
/// says so once in a second to a host, so a single ping may hear nothing. A second limit has its
/// tokens in the same place (icmp_ratelimit): with both, a host that asks each second hears
/// nothing.
#[track_caller]
fn assert_unreachable(w: &World, from: &str, to: &str) {
    w.home.sysctl("net/ipv4/icmp_ratelimit", "0");
    wait_until("unreachable", SOON, || is_unreachable(w, from, to));
}

fn is_unreachable(w: &World, from: &str, to: &str) -> bool {
    let ping = w.lan.try_run(&["ping", "-n", "-c1", "-W1", "-I", from, to]);
    String::from_utf8_lossy(&ping.stdout).contains("nreachable") && !ping.status.success()
}

/// Counts what arrives at a provider from the address that this host would be masqueraded with.
fn count_at(isp: &Net) {
    isp.run(&["nft", "add table ip seen"]);
    isp.run(&["nft", "add chain ip seen in { type filter hook prerouting priority 0; }"]);
    isp.run(&["nft", "add rule ip seen in udp dport 7009 counter"]);
}

fn counted(isp: &Net) -> bool {
    !isp.run(&["nft", "list", "table", "ip", "seen"]).contains("packets 0 ")
}

#[test]
fn a_host_leaves_by_its_own_uplink_and_by_no_other() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::leased(lab);
        second_host(&w);
        providers(&w);
        assert_eq!([by(&w, "192.168.5.2"), by(&w, "192.168.5.66")], ["a", "a"]);
        w.write("fw.conf", "route_by=\"192.168.5.66>eth1\"\n");
        w.apply();
        assert_eq!([by(&w, "192.168.5.2"), by(&w, "192.168.5.66")], ["a", "b"]);
        assert!(w.lan.try_run(&["ping", "-c1", "-W1", "-I", "192.168.5.66", "10.0.0.1"]).status.success(), "a network");
        assert_eq!(w.fw("plan"), (0, String::new()));
        // It is bad, and there is no other one.
        w.health(1, "down");
        w.apply();
        assert_eq!([by(&w, "192.168.5.2"), by(&w, "192.168.5.66")], ["a", "b"]);
        w.health(1, "up");
        w.apply();
        // Its cable, its lease, its interface.
        w.cables[1].pull();
        assert_unreachable(&w, "192.168.5.66", FAR);
        w.cables[1].plug();
        wait_until("the cable again", SOON, || !is_unreachable(&w, "192.168.5.66", FAR));
        w.remove("dyn/dhcp_eth1.ipconf");
        w.apply();
        assert_unreachable(&w, "192.168.5.66", FAR);
        w.lease(1, 3600);
        w.apply();
        assert_eq!(by(&w, "192.168.5.66"), "b");
        w.home.ip(&["link", "del", "eth1"]);
        assert_unreachable(&w, "192.168.5.66", FAR);
        assert_eq!(w.fw("apply").0, 0);
        assert_unreachable(&w, "192.168.5.66", FAR);
        assert_eq!(by(&w, "192.168.5.2"), "a", "the others go on");
        // The word is gone.
        w.write("fw.conf", "");
        assert_eq!(w.fw("apply").0, 0);
        assert_eq!(by(&w, "192.168.5.66"), "a");
        let rest = w.home.ip(&["-N", "route", "show", "table", "all", "proto", "213"]);
        assert!(!rest.contains("unreachable"), "{rest}");
    });
}

#[test]
fn a_list_of_uplinks_falls_back_and_its_network_is_there_before_a_lease() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::new(lab);
        second_host(&w);
        providers(&w);
        w.write("fw.conf", "route_by=\"192.168.5.64/26>eth1,eth0 192.168.5.67>eth0\"\n");
        w.apply();
        assert_unreachable(&w, "192.168.5.66", FAR);
        for n in [0, 1] {
            w.lease(n, 3600);
        }
        w.apply();
        assert_eq!([by(&w, "192.168.5.2"), by(&w, "192.168.5.66")], ["a", "b"]);
        w.lan.address("port", "192.168.5.67/24");
        assert_eq!(by(&w, "192.168.5.67"), "a", "a host comes before its network");
        w.health(1, "down");
        w.apply();
        assert_eq!(by(&w, "192.168.5.66"), "a");
        w.health(1, "up");
        w.apply();
        assert_eq!(by(&w, "192.168.5.66"), "b");
        w.cables[1].pull();
        wait_until("the kernel turns by itself", SOON, || by(&w, "192.168.5.66") == "a");
    });
}

#[test]
fn killed_at_any_moment_no_packet_of_the_host_leaves_by_another_uplink() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        second_host(&w);
        w.write("fw.conf", "route_by=\"192.168.5.66>eth1\"\n");
        w.apply();
        count_at(&w.isp[0]);
        count_at(&w.isp[1]);
        let flood = "exec 3<>/dev/udp/198.51.100.1/7009; while :; do echo x >&3 || exec 3<>/dev/udp/198.51.100.1/7009; done 2>/dev/null";
        w.lan.ip(&["route", "replace", "default", "via", "192.168.5.1", "src", "192.168.5.66"]);
        let _flood = w.lan.spawn(&["bash", "-c", flood]);
        wait_until("packets by its uplink", SOON, || counted(&w.isp[1]));
        let fw = fw_path(lab);
        for round in 0..30u64 {
            match round % 6 {
                0 => w.health(1, "down"),
                1 => w.remove("dyn/dhcp_eth1.ipconf"),
                2 => w.lease(1, 3600),
                3 => w.health(1, "up"),
                4 => {
                    w.write("fw.conf", "route_by=\"192.168.5.66>eth1 192.168.5.0/24>eth0,eth1\"\nbalance='eth0 eth1'\n")
                }
                _ => w.write("fw.conf", "route_by=\"192.168.5.66>eth1\"\n"),
            }
            let run = w.home.spawn_command("fw", w.command(&[&fw], "apply"));
            std::thread::sleep(Duration::from_micros(round * 700));
            run.signal(Signal::SIGKILL);
            drop(run);
            assert!(!counted(&w.isp[0]), "round {round}: {}", w.home.ip(&["rule"]));
        }
        w.home.ip(&["link", "set", "eth1", "down"]);
        w.apply();
        assert!(!counted(&w.isp[0]), "{}", w.home.ip(&["rule"]));
    });
}

/// How many of so many new connections each provider answers.
fn shares(w: &World, count: usize) -> [usize; 3] {
    let names: Vec<String> = (0..count)
        .map(|_| ask(&w.lan, Over::Tcp, Some("192.168.5.2"), &format!("{FAR}:7000"), PATIENCE).unwrap_or_default())
        .collect();
    ["a", "b", "c"].map(|name| names.iter().filter(|n| *n == name).count())
}

#[test]
fn new_connections_by_weight_and_each_stays_where_it_began() {
    isolated(&["nft", "conntrack"], |lab| {
        let w = World::leased(lab);
        second_host(&w);
        providers(&w);
        w.write("fw.conf", "balance=\"eth0:2 eth1:1\"\nroute_by=\"192.168.5.66>eth1\"\n");
        w.apply();
        assert_eq!(shares(&w, 12), [8, 4, 0]);
        assert_eq!([by(&w, "192.168.5.66"), by(&w, "192.168.5.66")], ["b", "b"], "it has its own");
        // One call by each.
        let mut calls: Vec<(Call, String)> = (0..3)
            .map(|_| {
                let mut call = Call::begin(&w);
                let name = call.says().unwrap();
                (call, name)
            })
            .collect();
        let names: Vec<&str> = calls.iter().map(|(_, name)| name.as_str()).collect();
        assert!(names.contains(&"a") && names.contains(&"b"), "{names:?}");
        // eth1 is bad: new connections go elsewhere, those of eth0 go on.
        w.health(1, "down");
        w.apply();
        assert_eq!(shares(&w, 6), [6, 0, 0]);
        for (call, name) in calls.iter_mut().filter(|(_, name)| name == "a") {
            assert_eq!(call.says().as_ref(), Some(&*name));
        }
        let left = w.home.run(&["conntrack", "-L", "-p", "tcp", "-q", "10.1.0.5", "--dport", "7001"]);
        assert_eq!(left, "", "its own ones have been moved");
        w.health(1, "up");
        w.apply();
        assert_eq!(shares(&w, 12), [8, 4, 0]);
        // The kernel turns by itself when a cable is pulled, and the connection is another's then.
        w.cables[1].pull();
        wait_until("all by eth0", SOON, || shares(&w, 3) == [3, 0, 0]);
        let mut turned: Vec<Call> = (0..3).map(|_| Call::begin(&w)).collect();
        assert!(turned.iter_mut().all(|call| call.says().as_deref() == Some("a")));
        w.cables[1].plug();
        wait_until("by both again", SOON, || shares(&w, 3) == [2, 1, 0]);
        for call in &mut turned {
            assert_eq!(call.says().as_deref(), Some("a"), "it stays where it is now");
        }
        assert_eq!(w.fw("plan"), (0, String::new()));
    });
}

/// A call over the standby, while the first uplink is bad; then that is good again.
fn call_over_the_standby(lab: &Lab, policy: &str, lost: bool) {
    let w = World::leased(lab);
    providers(&w);
    w.write("fw.conf", policy);
    w.apply();
    let mut first = Call::begin(&w);
    assert_eq!(first.says().as_deref(), Some("a"));
    w.health(0, "down");
    w.apply();
    let mut call = Call::begin(&w);
    assert_eq!(call.says().as_deref(), Some("b"));
    w.health(0, "up");
    w.apply();
    assert_eq!(by(&w, "192.168.5.2"), "a", "new ones use the better uplink");
    assert_eq!(call.says().as_deref(), Some("b").filter(|_| !lost), "{policy}");
    assert_eq!(w.fw("plan"), (0, String::new()));
}

#[test]
fn a_call_over_a_healthy_standby_goes_on_when_the_first_uplink_is_back() {
    isolated(&["nft", "conntrack"], |lab| call_over_the_standby(lab, "", false));
}

#[test]
fn all_connections_move_back_where_fw_conf_says_so() {
    isolated(&["nft", "conntrack"], |lab| call_over_the_standby(lab, "failback=\"all\"\n", true));
}

#[test]
fn a_metered_standby_is_left_as_soon_as_another_uplink_works() {
    isolated(&["nft", "conntrack"], |lab| call_over_the_standby(lab, "metered=\"eth1\"\n", true));
}

#[test]
fn the_segments_of_a_host_fit_its_own_uplink() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        second_host(&w);
        providers(&w);
        w.record("dyn/dhcp_eth1", "if=eth1 ipmask=10.1.0.5/24 gw=10.1.0.1 mtu=1400");
        w.write("fw.conf", "route_by=\"192.168.5.66>eth1\"\n");
        w.apply();
        for (isp, size) in w.isp.iter().zip([1460, 1360]) {
            isp.run(&["nft", "add table ip seen"]);
            isp.run(&["nft", "add chain ip seen in { type filter hook prerouting priority 0; }"]);
            isp.run(&["nft", &format!("add rule ip seen in tcp flags syn tcp option maxseg size {size} counter")]);
        }
        assert_eq!([by(&w, "192.168.5.2"), by(&w, "192.168.5.66")], ["a", "b"]);
        assert!(w.isp.iter().all(counted), "each has its own size");
    });
}

#[test]
fn a_call_leaves_the_uplink_that_its_host_may_use_no_more() {
    isolated(&["nft", "conntrack"], |lab| {
        let w = World::leased(lab);
        providers(&w);
        let mut call = Call::begin(&w);
        assert_eq!(call.says().as_deref(), Some("a"));
        w.write("fw.conf", "route_by=\"192.168.5.66>eth1\"\n");
        w.apply();
        assert_eq!(call.says().as_deref(), Some("a"), "another host's");
        w.write("fw.conf", "route_by=\"192.168.5.66>eth1 192.168.5.2>eth1,eth0\"\n");
        w.apply();
        assert_eq!(call.says().as_deref(), Some("a"), "it may use both");
        w.write("fw.conf", "route_by=\"192.168.5.2>eth1\"\n");
        w.apply();
        assert_eq!(call.says(), None);
        assert_eq!(by(&w, "192.168.5.2"), "b");
    });
}

#[test]
fn ipv6_hosts_without_masquerading_have_uplinks_of_their_own_and_stay() {
    isolated(&["nft", "ping"], |lab| {
        let w = World::new(lab);
        w.record("conf/lan6", "if=lan0 ipmask=2001:db8:5::1/64");
        for (n, name) in ["a", "b"].iter().enumerate() {
            w.record(&format!("conf/six{n}"), &format!("if=eth{n} ipmask=2001:db8:{n}::5/64 gw=2001:db8:{n}::1"));
            let isp = &w.isp[n];
            isp.ip(&["address", "add", &format!("2001:db8:{n}::1/64"), "dev", "cust", "nodad"]);
            isp.ip(&["address", "add", &format!("{FAR6}/128"), "dev", "lo", "nodad"]);
            isp.ip(&["route", "add", "2001:db8:5::/64", "via", &format!("2001:db8:{n}::5")]);
            answer(isp, &format!("[{FAR6}]:7000"), name);
        }
        for host in ["2001:db8:5::2", "2001:db8:5::66"] {
            w.lan.ip(&["address", "add", &format!("{host}/64"), "dev", "port", "nodad"]);
        }
        w.lan.ip(&["route", "add", "default", "via", "2001:db8:5::1"]);
        w.write("fw.conf", "route_by=\"2001:db8:5::66>eth1\"\n");
        w.apply();
        let settled = || w.home.ip(&["-6", "address", "show", "tentative"]).is_empty();
        wait_until("addresses", SOON, settled);
        wait_until("the first answer", SOON, || by(&w, "2001:db8:5::2") == "a");
        assert_eq!(by(&w, "2001:db8:5::66"), "b");
        w.write("fw.conf", "route_by=\"2001:db8:5::66>eth1\"\nbalance=\"eth0:2 eth1\"\n");
        w.apply();
        let to = format!("[{FAR6}]:7000");
        let names = (0..6).map(|_| ask(&w.lan, Over::Tcp, Some("2001:db8:5::2"), &to, PATIENCE).unwrap_or_default());
        assert_eq!(names.filter(|name| name == "a").count(), 4, "by weight");
        w.write("fw.conf", "route_by=\"2001:db8:5::66>eth1\"\n");
        w.apply();
        // A flow that is not masqueraded leaves a bad uplink, too.
        let asks = |from: &str| {
            let to = format!("[{FAR6}]:7000");
            ask(&w.lan, Over::Udp, Some(from), &to, PATIENCE).unwrap_or_default()
        };
        w.health(0, "down");
        w.apply();
        assert_eq!([asks("2001:db8:5::2"), asks("2001:db8:5::66")], ["b", "b"]);
        w.health(0, "up");
        w.remove("conf/six1.ipconf");
        w.apply();
        assert_eq!(asks("2001:db8:5::2"), "a");
        assert_unreachable(&w, "2001:db8:5::66", FAR6);
        assert_eq!(w.fw("plan"), (0, String::new()));
    });
}

#[test]
fn three_uplinks_in_their_order_and_the_pinger_is_told_what_is_metered() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        let third = lab.net("isp2");
        lab.cable((&w.home, "wwan0"), (&third, "cust"));
        third.address("cust", "10.2.0.1/24");
        third.address("lo", &format!("{FAR}/32"));
        providers(&w);
        answer(&third, &format!("{FAR}:7000"), "c");
        let metrics = |w: &World| {
            let routes = w.home.default_routes();
            routes.into_iter().map(|(name, _, metric)| format!("{name} {metric}")).collect::<Vec<_>>()
        };
        w.lease(0, 3600);
        w.lease(1, 3600);
        w.record("dyn/dhcp_wwan0", "if=wwan0 ipmask=10.2.0.5/24 gw=10.2.0.1");
        w.write("fw.conf", "uplinks=\"eth1 wwan0 eth0\"\n");
        w.apply();
        assert_eq!(metrics(&w), ["eth1 100", "wwan0 200", "eth0 300"]);
        // A lease that goes moves no other one.
        w.remove("dyn/dhcp_eth1.ipconf");
        w.apply();
        assert_eq!(metrics(&w), ["wwan0 200", "eth0 300"]);
        w.lease(1, 3600);
        w.write("fw.conf", "preferred_default_route_iface=eth1\nmetered=\"eth0\"\n");
        w.apply();
        assert_eq!(metrics(&w), ["eth1 100", "wwan0 200", "eth0 300"]);
        let told = || std::fs::read_to_string(w.dir.join("dyn/.metered")).unwrap_or_default();
        assert_eq!(told(), "eth0\n");
        w.write("fw.conf", "uplinks=\"eth0\"\nmetered=\"eth0\"\n");
        w.apply();
        assert_eq!(metrics(&w), ["eth0 100", "eth1 200", "wwan0 300"], "the order has the last word");
        w.write("fw.conf", "");
        w.apply();
        assert!(told().is_empty() && !w.dir.join("dyn/.metered").exists());
        // By weight over three, and over those that are left.
        w.write("fw.conf", "balance=\"eth0:3 eth1:2 wwan0\"\nuplinks=\"eth0 eth1 wwan0\"\nmetered=wwan0\n");
        w.apply();
        assert_eq!(shares(&w, 12), [6, 4, 2]);
        w.health(0, "down");
        w.apply();
        assert_eq!(shares(&w, 6), [0, 4, 2]);
        // In their order.
        w.write("fw.conf", "uplinks=\"eth0 eth1 wwan0\"\nmetered=wwan0\n");
        w.apply();
        assert_eq!(shares(&w, 2), [0, 2, 0]);
        w.health(1, "down");
        w.apply();
        assert_eq!(shares(&w, 2), [0, 0, 2]);
        w.health(1, "up");
        w.apply();
        assert_eq!(shares(&w, 2), [0, 2, 0]);
    });
}

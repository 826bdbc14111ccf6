//! fw under a storm: triggers by the hundred, kills at any moment, and an observer outside who
//! knocks at every closed door all the time.
//!
//! FW_STORM is the factor of the counts: 1 here, 10 for 200 kills and 1000 triggers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]
#![expect(clippy::disallowed_methods, reason = "knocks each millisecond, and kills at random moments")]

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use testkit::{Net, isolated, wait_until};

use crate::fw::{SOON, World, service};

const EACH: Duration = Duration::from_millis(1);
/// The service that is open in the policy of these tests: it shows that the observer is heard.
const OPEN: u16 = 9999;
const CLOSED_UDP: [u16; 3] = [53, 123, 5353];
const CLOSED_TCP: [u16; 2] = [22, 80];

fn factor() -> u32 {
    std::env::var("FW_STORM").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A stranger at a provider who sends a packet each millisecond to every door.
struct Stranger {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Stranger {
    /// At `from`, against the router's addresses there and the host behind it.
    fn at(from: &Net, n: usize) -> Stranger {
        let stop = Arc::new(AtomicBool::new(false));
        let doors = |host: &str, ports: &[u16]| {
            ports.iter().map(|port| format!("{host}:{port}").parse().unwrap()).collect::<Vec<SocketAddr>>()
        };
        let [router, router6] = [format!("10.{n}.0.5"), format!("[2001:db8:{n}::5]")];
        let hosts = [&router, "192.168.5.2"];
        let all = [hosts[0], hosts[1], &router6, "[2001:db8:77::2]"];
        let mut udp: Vec<SocketAddr> = all.iter().flat_map(|host| doors(host, &CLOSED_UDP)).collect();
        udp.extend([&router, &router6].iter().flat_map(|host| doors(host, &[OPEN])));
        let sockets = from.within(|| ["0.0.0.0:0", "[::]:0"].map(|any| UdpSocket::bind(any).unwrap()));
        let knock = stop.clone();
        let mut threads = vec![thread::spawn(move || {
            while !knock.load(Ordering::Relaxed) {
                udp.iter().for_each(|door| drop(sockets[usize::from(door.is_ipv6())].send_to(b"knock", door)));
                thread::sleep(EACH);
            }
        })];
        for door in hosts.iter().flat_map(|host| doors(host, &CLOSED_TCP)) {
            let (knock, from) = (stop.clone(), from.clone());
            threads.push(thread::spawn(move || {
                from.within(|| {
                    while !knock.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        let _ = TcpStream::connect_timeout(&door, EACH);
                        thread::sleep(EACH.saturating_sub(asked.elapsed()));
                    }
                });
            }));
        }
        Stranger { stop, threads }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Counts in a table of its own, behind that of fw, what has come in.
fn count(w: &World) {
    let counter = |net: &Net, from: &str| {
        let rules: String = CLOSED_UDP
            .map(|port| format!("{from} udp dport {port} counter\n"))
            .into_iter()
            .chain(CLOSED_TCP.map(|port| format!("{from} tcp dport {port} counter\n")))
            .chain([format!("{from} udp dport {OPEN} counter comment \"open\"\n")])
            .collect();
        let hook = "type filter hook input priority 100; policy accept;";
        let file = format!("/run/lab/count-{}", net.name());
        fs::write(&file, format!("table inet count {{\nchain watch {{\n{hook}\n{rules}}}\n}}\n")).unwrap();
        net.run(&["nft", "-f", &file]);
    };
    counter(&w.home, "iifname \"eth*\"");
    counter(&w.lan, "iifname port");
}

/// How many packets have come through a closed door, and how many through the open one.
fn counted(net: &Net) -> (u64, u64) {
    let text = net.run(&["nft", "list", "table", "inet", "count"]);
    let packets = |line: &str| line.split_once("packets ")?.1.split(' ').next()?.parse::<u64>().ok();
    let sum = |open: bool| text.lines().filter(|l| l.contains("comment") == open).filter_map(packets).sum();
    (sum(false), sum(true))
}

/// The world before the first run of fw, with a stranger at each provider who knows the way to the
/// host behind. Nothing waits for ARP: a packet counts from the first moment on.
fn watched(w: &World, policy: &str) -> [Stranger; 2] {
    w.write("fw.conf", &format!("ext_open_udp=\"{OPEN}\"\n{policy}"));
    count(w);
    for (isp, n) in w.isp.iter().zip(0..) {
        isp.address("cust", &format!("2001:db8:{n}::1/64"));
        let networks = [(format!("10.{n}.0.5"), "192.168.5.0/24"), (format!("2001:db8:{n}::5"), "2001:db8:77::/64")];
        for (router, network) in networks {
            known(isp, "cust", &router, (&w.home, &format!("eth{n}")));
            isp.ip(&["route", "add", network, "via", &router]);
        }
    }
    w.lan.address("port", "2001:db8:77::2/64");
    w.record("conf/six", "if=lan0 ipmask=2001:db8:77::1/64");
    ["192.168.5.2", "2001:db8:77::2"].iter().for_each(|ip| known(&w.home, "lan0", ip, (&w.lan, "port")));
    leases(w);
    [0, 1].map(|n| Stranger::at(&w.isp[n], n))
}

/// A lease of both families on both uplinks.
fn leases(w: &World) {
    for n in 0..2 {
        w.lease(n, 3600);
        let path = w.dir.join(format!("dyn/dhcp_eth{n}.ipconf"));
        let six =
            [("if", format!("eth{n}")), ("ipmask", format!("2001:db8:{n}::5/64")), ("gw", format!("2001:db8:{n}::1"))];
        let six: String = six.iter().map(|(key, value)| format!("{key}[$cfg]={value}\n")).collect();
        fs::write(&path, format!("{}let cfg=cfg+1\n{six}", fs::read_to_string(&path).unwrap())).unwrap();
    }
}

/// Tells `net` the Ethernet address of a station.
fn known(net: &Net, interface: &str, ip: &str, (station, port): (&Net, &str)) {
    let links = station.ip_json(&["link", "show", "dev", port]);
    let mac = links[0]["address"].as_str().unwrap().to_owned();
    net.ip(&["neigh", "replace", ip, "lladdr", &mac, "dev", interface, "nud", "permanent"]);
}

#[track_caller]
fn assert_closed(w: &World) {
    wait_until("the stranger is heard at the open door", SOON, || counted(&w.home).1 > 100);
    let (router, behind) = (counted(&w.home), counted(&w.lan));
    assert_eq!((router.0, behind.0), (0, 0), "packets through closed doors");
}

/// A generator of the test's own: the same moments in each run.
fn random(state: &mut u64) -> u64 {
    // xorshift64 of Marsaglia, "Xorshift RNGs", 2003.
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// fw leaves a virtual link alone that it has never seen as an uplink, and a run that is killed has
/// not seen much. The cables of these tests stand for cards, which are closed without a word.
const CARDS: &str = "extif=\"eth0 eth1\"\n";

/// The edit of one round: leases that come and go, the better uplink, the policy.
fn turn(w: &World, round: u32, policy: &str) {
    let there = |name: &str| w.dir.join(name).exists();
    match round % 5 {
        0 => w.health(0, if round.is_multiple_of(2) { "down" } else { "up" }),
        1 if there("dyn/dhcp_eth1.ipconf") => w.remove("dyn/dhcp_eth1.ipconf"),
        2 => w.write("fw.conf", &format!("ext_open_udp=\"{OPEN}\"\next_open_tcp=\"{}\"\n{policy}", 1000 + round)),
        3 if there("dyn/dhcp_eth0.ipconf") => w.remove("dyn/dhcp_eth0.ipconf"),
        _ => leases(w),
    }
}

#[test]
fn through_boot_apply_and_failover_no_packet_comes_through_a_closed_door() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        let strangers = watched(&w, "");
        w.apply();
        for round in 0..20 * factor() {
            turn(&w, round, "");
            w.apply();
        }
        leases(&w);
        w.apply();
        assert_closed(&w);
        drop(strangers);
    });
}

#[test]
fn killed_at_random_moments_it_converges_and_no_packet_comes_through_a_closed_door() {
    isolated(&["nft"], |lab| {
        let w = World::new(lab);
        let strangers = watched(&w, CARDS);
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        for round in 0..20 * factor() {
            let mut fw = w.home.spawn_command("fw", w.command(&["fw"], "apply"));
            thread::sleep(Duration::from_micros(random(&mut seed) % 40_000));
            fw.signal(Signal::SIGKILL);
            assert!(fw.wait(SOON).is_some());
            turn(&w, round, CARDS);
        }
        leases(&w);
        // An nft that was left behind may still make its table after this run has looked.
        wait_until("the state of the last content", SOON, || w.fw("apply").0 == 0 && w.fw("plan").0 == 0);
        assert_eq!(w.home.default_routes().len(), 2);
        assert_closed(&w);
        drop(strangers);
    });
}

#[test]
fn triggers_of_eight_writers_end_in_the_last_content() {
    isolated(&["nft", "runsv", "sv"], |lab| {
        let w = World::new(lab);
        let (_runsv, run) = service(&w, lab);
        wait_until("the first run", SOON, || w.home.addresses("lan0") == ["192.168.5.1/24"]);
        let control = lab.dir().join("service/fw/supervise/control");
        let each = 12 * factor().min(10) + u32::from(factor() >= 10) * 5;
        thread::scope(|scope| {
            for writer in 0..8 {
                let (dynamic, control) = (w.dir.join("dyn"), &control);
                scope.spawn(move || (0..each).for_each(|n| publish(&dynamic, control, writer, n)));
            }
        });
        let last: Vec<String> = (0..8).map(|writer| address(writer, each - 1)).collect();
        wait_until("the last content of each", SOON, || {
            let mut there = w.home.addresses("eth0");
            there.sort();
            there == last
        });
        wait_until("it is down", SOON, || {
            String::from_utf8_lossy(&run(&["sv", "status", "fw"]).stdout).starts_with("down: ")
        });
        assert_eq!(w.home.addresses("eth0").len(), 8);
    });
}

fn address(writer: u32, n: u32) -> String {
    format!("10.{}.{n}.1/24", 100 + writer)
}

/// The order of every writer: first the file is in its place, then the letter is sent.
fn publish(dynamic: &Path, control: &Path, writer: u32, n: u32) {
    let name = format!("writer{writer}.ipconf");
    let text = format!("let cfg=cfg+1\nif[$cfg]=eth0\nipmask[$cfg]={}\n", address(writer, n));
    fs::write(dynamic.join(format!(".{name}")), text).unwrap();
    fs::rename(dynamic.join(format!(".{name}")), dynamic.join(name)).unwrap();
    fs::OpenOptions::new().write(true).open(control).unwrap().write_all(b"u").unwrap();
}

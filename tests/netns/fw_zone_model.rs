//! What fw.conf says of zones, and what packets do: random words of fw.conf, a model of them in ten
//! lines, and a packet for each pair of zones, each service and each family.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use testkit::talk::{Over, answer, ask};
use testkit::{Lab, Net, isolated, wait_until};

use crate::fw::{SOON, World};

/// For "no answer comes".
const SILENCE: Duration = Duration::from_millis(400);
/// So many policies are tried.
const POLICIES: u64 = 5;

/// Networks by number: where the hosts are, their interface of the router, their zone.
const SIDES: [(&str, &str); 5] =
    [("eth0", "outside"), ("lan0", "lan"), ("guest0", "guest"), ("dmz0", "dmz"), ("veth7", "unlisted")];
/// The ports of the router's services. Each host has the first.
const PORTS: [u16; 3] = [80, 53, 22];

/// A generator of its own, so that a failure comes again (Marsaglia, xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    /// Some of the words; each one is there half of the time, the rare ones at its end less often.
    fn some(&mut self, words: &[&'static str], rare: &[&'static str]) -> Vec<&'static str> {
        let mut out: Vec<&'static str> = words.iter().copied().filter(|_| self.below(2) == 0).collect();
        out.extend(rare.iter().filter(|_| self.below(6) == 0));
        out
    }
}

/// What fw.conf says.
#[derive(Debug)]
struct Policy {
    to: [Option<Vec<&'static str>>; 3],
    router: [Option<Vec<&'static str>>; 3],
    open: Vec<&'static str>,
    unlisted: &'static str,
}

const ZONES: [&str; 3] = ["lan", "guest", "dmz"];

impl Policy {
    fn new(random: &mut Random) -> Policy {
        let mut to = [None, None, None];
        let mut router = [None, None, None];
        for zone in 0..3 {
            to[zone] = (random.below(4) > 0).then(|| random.some(&["outside", "lan", "guest", "dmz"], &["any"]));
            router[zone] = (random.below(4) > 0).then(|| random.some(&["dns", "ping", "tcp/22", "udp/80"], &["all"]));
        }
        let unlisted = ["auto", "closed", "open"][random.below(3) as usize];
        Policy { to, router, open: random.some(&["tcp/22", "udp/53", "tcp/80@192.0.2.2/32"], &[]), unlisted }
    }

    fn text(&self) -> String {
        let mut out = format!("ext_open=\"{}\"\nunlisted=\"{}\"\n", self.open.join(" "), self.unlisted);
        for (zone, name) in ZONES.iter().enumerate() {
            let line = |key: &str, words: &Option<Vec<&str>>| {
                words.as_ref().map(|words| format!("zone_{name}_{key}=\"{}\"\n", words.join(" "))).unwrap_or_default()
            };
            out += &line("to", &self.to[zone]);
            out += &line("router", &self.router[zone]);
        }
        out
    }

    /// Whether a packet from one side reaches a host of another one.
    fn goes(&self, from: &str, to: &str) -> bool {
        let Some(zone) = ZONES.iter().position(|zone| *zone == from) else {
            return from == "unlisted" && self.unlisted != "closed";
        };
        let default = if from == "lan" { vec!["any"] } else { vec!["outside"] };
        let words = self.to[zone].clone().unwrap_or(default);
        words.contains(&"any") || words.contains(&to)
    }

    /// Whether a packet from one side reaches a service of the router.
    fn serves(&self, from: &str, service: &str, v4: bool) -> bool {
        let Some(zone) = ZONES.iter().position(|zone| *zone == from) else {
            let from_there =
                from == "outside" && v4 && service == "tcp/80" && self.open.contains(&"tcp/80@192.0.2.2/32");
            let is_free = from == "unlisted" && self.unlisted != "closed";
            return is_free || self.open.contains(&service) || from_there || service == "ping";
        };
        let default = if from == "lan" { vec!["all"] } else { vec!["dhcp", "dns", "ping"] };
        let words = self.router[zone].clone().unwrap_or(default);
        let dns = ["tcp/53", "udp/53"].contains(&service) && words.contains(&"dns");
        words.contains(&"all") || words.contains(&service) || dns
    }
}

/// The address of a host: number 1 is the router.
fn address(side: usize, number: u8, v4: bool) -> String {
    match (side, v4) {
        (0, true) => format!("192.0.2.{number}"),
        (0, false) => format!("2001:db8::{number}"),
        (_, true) => format!("10.0.{side}.{number}"),
        (_, false) => format!("fd00:{side}::{number}"),
    }
}

fn door(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn world(lab: &Lab) -> (World, Vec<Net>) {
    let w = World::new(lab);
    w.home.ip(&["link", "del", "eth0"]);
    w.home.ip(&["link", "del", "lan0"]);
    let mut hosts = Vec::new();
    for (side, (interface, zone)) in SIDES.iter().enumerate() {
        let host = lab.net(&format!("h{side}"));
        lab.cable((&w.home, interface), (&host, "port"));
        for v4 in [true, false] {
            let len = if v4 { 24 } else { 64 };
            let dad: &[&str] = if v4 { &[] } else { &["nodad"] };
            let own = format!("{}/{len}", address(side, 2, v4));
            host.ip(&[&["address", "add", &own, "dev", "port"], dad].concat());
            host.ip(&[if v4 { "-4" } else { "-6" }, "route", "add", "default", "via", &address(side, 1, v4)]);
            let router = format!("{}/{len}", address(side, 1, v4));
            if ["outside", "unlisted"].contains(zone) {
                w.home.ip(&[&["address", "add", &router, "dev", interface], dad].concat());
            }
            answer(&host, &door(&address(side, 2, v4), PORTS[0]), "host");
        }
        let record = |v4: bool, len: u8| {
            format!("let cfg=cfg+1\nif[$cfg]={interface}\nipmask[$cfg]='{}/{len}'\n", address(side, 1, v4))
        };
        let zone_line = if *zone == "lan" { String::new() } else { format!("zone[$cfg]='{zone}'\n") };
        if ZONES.contains(zone) {
            w.write(
                &format!("conf/{interface}.ipconf"),
                &format!("{}{zone_line}{}{zone_line}", record(true, 24), record(false, 64)),
            );
        }
        hosts.push(host);
    }
    w.remove("conf/lan.ipconf");
    w.record("dyn/link_eth0", "if=eth0 health=up");
    assert_eq!(w.fw("apply").0, 0);
    // A datagram is answered from the address that was asked.
    let addresses = (0..SIDES.len()).flat_map(|side| [address(side, 1, true), address(side, 1, false)]);
    for (address, port) in addresses.flat_map(|a| PORTS.map(|port| (a.clone(), port))) {
        wait_until("the address", SOON, || {
            testkit::talk::inside(&w.home, || UdpSocket::bind(door(&address, port).parse::<SocketAddr>().unwrap()))
                .is_ok()
        });
        answer(&w.home, &door(&address, port), "router");
    }
    w.home.sysctl("net/ipv6/conf/all/forwarding", "1");
    (w, hosts)
}

/// What is to be asked, and whether the model lets it pass.
struct Question<'a> {
    host: &'a Net,
    what: String,
    over: Option<Over>,
    to: String,
    passes: bool,
}

impl Question<'_> {
    /// Whether the packets do as the model says. Patience is needed for an answer alone.
    fn holds(&self) -> bool {
        match self.over {
            Some(over) => {
                let patience = if self.passes { SOON } else { SILENCE };
                ask(self.host, over, None, &self.to, patience).is_some() == self.passes
            }
            None => {
                let wait = if self.passes { "5" } else { "1" };
                self.host.try_run(&["ping", "-n", "-c1", "-W", wait, &self.to]).status.success() == self.passes
            }
        }
    }
}

fn questions<'a>(policy: &Policy, hosts: &'a [Net]) -> Vec<Question<'a>> {
    let mut out = Vec::new();
    for (from, host) in hosts.iter().enumerate() {
        let zone = SIDES[from].1;
        for v4 in [true, false] {
            let mut add = |over: Option<Over>, address: String, port: u16, passes: bool| {
                let to = if over.is_some() { door(&address, port) } else { address };
                out.push(Question { host, what: format!("{zone} to {to} {over:?}"), over, to, passes });
            };
            for (over, name) in [(Over::Tcp, "tcp"), (Over::Udp, "udp")] {
                for port in PORTS {
                    // By its own network's address, and by one of another network.
                    let passes = policy.serves(zone, &format!("{name}/{port}"), v4);
                    add(Some(over), address(from, 1, v4), port, passes);
                    add(Some(over), address((from + 1) % SIDES.len(), 1, v4), port, passes);
                }
                for to in (0..SIDES.len()).filter(|to| *to != from) {
                    add(Some(over), address(to, 2, v4), PORTS[0], policy.goes(zone, SIDES[to].1));
                }
            }
            add(None, address(from, 1, v4), 0, policy.serves(zone, "ping", v4));
        }
    }
    out
}

#[test]
fn for_each_pair_of_zones_and_each_service_packets_do_what_fw_conf_says() {
    isolated(&["nft", "conntrack", "ping"], |lab| {
        let (w, hosts) = world(lab);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for round in 0..POLICIES {
            let policy = Policy::new(&mut random);
            w.write("fw.conf", &policy.text());
            let (code, text) = w.fw("apply");
            assert_eq!(code, 0, "{text}");
            w.home.run(&["conntrack", "-F"]);
            let questions = questions(&policy, &hosts);
            let wrong: Vec<String> = thread::scope(|scope| {
                let asked: Vec<_> = questions.iter().map(|q| scope.spawn(move || q.holds())).collect();
                let answers = asked.into_iter().map(|answer| answer.join().unwrap());
                let wrong = questions.iter().zip(answers).filter(|(_, holds)| !holds);
                wrong.map(|(q, _)| format!("{}: {}", q.what, if q.passes { "silent" } else { "answered" })).collect()
            });
            assert!(questions.iter().any(|q| q.passes) && questions.iter().any(|q| !q.passes));
            assert_eq!(wrong, [] as [&str; 0], "round {round}: {}\n{}", policy.text(), w.nft());
        }
    });
}

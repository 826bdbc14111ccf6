//! Random sets of `port_forward`, `open6` and `ext_open`, and a model of them: what the model says
//! of a packet is what the packet does.
//!
//! The model is written from the manual page. It knows nothing of nft, and shares no code with fw.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::fmt::Write;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use testkit::talk::{Over, answer, ask};
use testkit::{Lab, Net, isolated};

use crate::fw::{SOON, World};

/// For "no answer comes".
const SILENCE: Duration = Duration::from_millis(600);
/// Rounds, each with another fw.conf, and questions in each of them.
const ROUNDS: u64 = 4;
const QUESTIONS: usize = 120;
/// The ports that words and questions are about: few, so that they meet.
const PORTS: std::ops::Range<u16> = 1000..1012;

/// xorshift64, seeded: the same rounds in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    fn over(&mut self) -> Over {
        *self.of(&[Over::Tcp, Over::Udp])
    }

    fn port(&mut self) -> u16 {
        PORTS.start + self.below(PORTS.len()) as u16
    }

    /// A port, or a range of some.
    fn ports(&mut self) -> (u16, u16) {
        let low = self.port();
        (low, (low + *self.of(&[0, 0, 1, 3])).min(PORTS.end - 1))
    }
}

/// Who asks, and where he stands.
struct Asker<'a> {
    net: &'a Net,
    address: &'a str,
    is_outside: bool,
    /// He may go outside, and to the LAN.
    goes: (bool, bool),
}

/// Who may use a word.
#[derive(Clone, Copy)]
struct Source(Option<(&'static str, u8)>);

impl Source {
    fn has(self, address: &str) -> bool {
        let bits = |text: &str| match text.parse().unwrap() {
            IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
            IpAddr::V6(ip) => u128::from(ip),
        };
        self.0.is_none_or(|(network, length)| {
            let same_family = network.contains(':') == address.contains(':');
            same_family && (bits(network) ^ bits(address)).leading_zeros() >= u32::from(length)
        })
    }

    fn text(self) -> String {
        self.0.map(|(network, length)| format!("@{network}/{length}")).unwrap_or_default()
    }

    fn overlaps(self, other: Source) -> bool {
        match (self.0, other.0) {
            (Some((a, _)), Some((b, _))) => self.has(b) || other.has(a),
            (None, _) | (_, None) => true,
        }
    }
}

/// One word: what is asked for, and where it leads.
struct Rule {
    over: Over,
    ports: (u16, u16),
    source: Source,
    target: &'static str,
    /// The first port of the target, and whether there is only one.
    to: (u16, bool),
}

impl Rule {
    fn takes(&self, over: Over, port: u16, from: &str) -> bool {
        self.over == over && (self.ports.0..=self.ports.1).contains(&port) && self.source.has(from)
    }

    fn clashes(&self, other: &Rule) -> bool {
        let ports = self.ports.0 <= other.ports.1 && other.ports.0 <= self.ports.1;
        self.over == other.over && ports && self.source.overlaps(other.source)
    }

    fn new_port(&self, port: u16) -> u16 {
        if self.to.1 { self.to.0 } else { self.to.0 + port - self.ports.0 }
    }

    fn word(&self) -> String {
        let over = if self.over == Over::Tcp { "tcp" } else { "udp" };
        let range = |(low, high): (u16, u16)| if low == high { format!("{low}") } else { format!("{low}-{high}") };
        format!("{over}/{}{}", range(self.ports), self.source.text())
    }

    fn forward(&self) -> String {
        let (low, high) = (self.to.0, self.new_port(self.ports.1));
        let to = if low == high { format!("{low}") } else { format!("{low}-{high}") };
        format!("{}>{}:{to}", self.word(), self.target)
    }
}

const SOURCES4: [Source; 4] = [
    Source(None),
    Source(Some(("198.51.100.0", 25))),
    Source(Some(("198.51.100.128", 25))),
    Source(Some(("192.168.0.0", 16))),
];
const SOURCES6: [Source; 3] =
    [Source(None), Source(Some(("2001:db8:ffff::", 48))), Source(Some(("2001:db8:fffe::", 48)))];
const TARGETS: [&str; 2] = ["192.168.5.2", "192.168.5.3"];
const SUFFIXES: [&str; 2] = ["5", "6"];

/// What one fw.conf says.
#[derive(Default)]
struct Set {
    forwards: Vec<Rule>,
    open6: Vec<Rule>,
    open: Vec<Rule>,
}

impl Set {
    fn random(random: &mut Random) -> Set {
        let mut set = Set::default();
        for _ in 0..8 {
            let (over, ports) = (random.over(), random.ports());
            let width = ports.1 - ports.0;
            let to = match random.below(3) {
                0 => (ports.0, false),
                1 => (random.port(), true),
                _ => (PORTS.start + random.below(PORTS.len() - usize::from(width)) as u16, false),
            };
            let (source, target) = (*random.of(&SOURCES4), *random.of(&TARGETS));
            let rule = Rule { over, ports, source, target, to };
            if !set.forwards.iter().any(|other| other.clashes(&rule)) {
                set.forwards.push(rule);
            }
            let (over, ports, target) = (random.over(), random.ports(), *random.of(&SUFFIXES));
            let rule = Rule { over, ports, source: *random.of(&SOURCES6), target, to: (ports.0, false) };
            if !set.open6.iter().any(|other| other.target == target && other.clashes(&rule)) {
                set.open6.push(rule);
            }
        }
        for _ in 0..3 {
            let (over, ports) = (random.over(), random.ports());
            let source = *random.of(&[SOURCES4[0], SOURCES4[1], SOURCES6[1]]);
            set.open.push(Rule { over, ports, source, target: "", to: (ports.0, false) });
        }
        set
    }

    fn text(&self) -> String {
        let join = |words: Vec<String>| words.join(" ");
        let mut text = "zone_guest_to=\"outside\"\nzone_shed_to=\"lan\"\n".to_owned();
        let forwards = join(self.forwards.iter().map(Rule::forward).collect());
        let hosts = join(self.open6.iter().map(|r| format!("{}>lan0::{}", r.word(), r.target)).collect());
        let open = join(self.open.iter().map(Rule::word).collect());
        let _ = write!(text, "port_forward=\"{forwards}\"\nopen6=\"{hosts}\"\next_open=\"{open}\"\n");
        text
    }

    /// Who answers.
    fn expected(&self, asker: &Asker, over: Over, to: &str, port: u16) -> Option<String> {
        let name = |who: &str, port| Some(format!("{who} {port}"));
        let is_open = |rules: &[Rule]| rules.iter().any(|r| r.takes(over, port, asker.address));
        let is_lan = !asker.is_outside && asker.goes == (true, true);
        if OUTSIDE.contains(&to) {
            let forward = self.forwards.iter().find(|f| f.takes(over, port, asker.address));
            return match forward.filter(|_| asker.goes.0) {
                Some(forward) => name(forward.target, forward.new_port(port)),
                None if is_lan || (asker.is_outside && is_open(&self.open)) => name("router", port),
                None => None,
            };
        }
        if to == ROUTER {
            return if is_lan || (asker.is_outside && is_open(&self.open)) { name("router", port) } else { None };
        }
        let suffix = to.strip_prefix(PREFIX);
        let is_opened = suffix.is_some_and(|suffix| {
            asker.goes.0 && self.open6.iter().any(|r| r.target == suffix && r.takes(over, port, asker.address))
        });
        if is_lan || asker.goes.1 || is_opened { name(to, port) } else { None }
    }
}

const OUTSIDE: [&str; 2] = ["10.0.0.5", "10.1.0.5"];
const ROUTER: &str = "192.168.5.1";
const PREFIX: &str = "2001:db8:1::";

/// A host behind an interface of the router.
fn zone(lab: &Lab, w: &World, name: &str, interface: &str, number: u8) -> Net {
    let net = lab.net(name);
    lab.cable((&w.home, interface), (&net, "eth0"));
    net.address("eth0", &format!("192.168.{number}.2/24"));
    net.ip(&["-6", "address", "add", &format!("2001:db8:{number}::2/64"), "dev", "eth0", "nodad"]);
    net.ip(&["route", "add", "default", "via", &format!("192.168.{number}.1")]);
    net.ip(&["-6", "route", "add", "default", "via", &format!("2001:db8:{number}::1")]);
    w.record(&format!("conf/{name}"), &format!("if={interface} ipmask=192.168.{number}.1/24 zone={name}"));
    w.record(&format!("conf/{name}6"), &format!("if={interface} ipmask=2001:db8:{number}::1/64 zone={name}"));
    net
}

#[test]
fn what_the_model_says_of_a_packet_is_what_the_packet_does() {
    isolated(&["nft"], |lab| {
        let w = World::leased(lab);
        w.record("conf/lan6", "if=lan0 ipmask=2001:db8:1::1/64");
        w.record("conf/up6", "if=eth0 ipmask=2001:db8:a::5/64 gw=2001:db8:a::1");
        let (guest, shed) = (zone(lab, &w, "guest", "lan1", 6), zone(lab, &w, "shed", "lan2", 7));
        let neighbour = crate::fw_doors::neighbour(lab, &w);
        let add = |net: &Net, interface: &str, address: &str| {
            net.ip(&["address", "add", address, "dev", interface, "nodad"]);
        };
        w.write("fw.conf", &Set::default().text());
        w.apply();
        for (address, interface) in [
            ("2001:db8:a::1/64", "cust"),
            ("2001:db8:ffff::1/128", "lo"),
            ("2001:db8:fffe::1/128", "lo"),
            ("198.51.100.200/32", "lo"),
        ] {
            add(&w.isp[0], interface, address);
        }
        for net in ["2001:db8:1::/64", "2001:db8:6::/64", "192.168.0.0/16"] {
            w.isp[0].ip(&["route", "add", net, "via", if net.contains(':') { "2001:db8:a::5" } else { "10.0.0.5" }]);
        }
        for suffix in SUFFIXES {
            add(&w.lan, "br0", &format!("{PREFIX}{suffix}/64"));
        }
        w.lan.ip(&["-6", "route", "add", "default", "via", "2001:db8:1::1"]);
        for port in PORTS {
            answer(&w.lan, &format!("192.168.5.2:{port}"), &format!("192.168.5.2 {port}"));
            answer(&neighbour, &format!("192.168.5.3:{port}"), &format!("192.168.5.3 {port}"));
            for suffix in SUFFIXES {
                answer(&w.lan, &format!("[{PREFIX}{suffix}]:{port}"), &format!("{PREFIX}{suffix} {port}"));
            }
            for address in OUTSIDE.iter().chain(&[ROUTER]) {
                answer(&w.home, &format!("{address}:{port}"), &format!("router {port}"));
            }
        }
        let outside = |net, address| Asker { net, address, is_outside: true, goes: (true, false) };
        let askers4 = [
            outside(&w.isp[0], "198.51.100.1"),
            outside(&w.isp[0], "198.51.100.200"),
            outside(&w.isp[1], "198.51.100.1"),
            Asker { net: &neighbour, address: "192.168.5.3", is_outside: false, goes: (true, true) },
            Asker { net: &guest, address: "192.168.6.2", is_outside: false, goes: (true, false) },
            Asker { net: &shed, address: "192.168.7.2", is_outside: false, goes: (false, true) },
        ];
        let askers6 = [
            outside(&w.isp[0], "2001:db8:ffff::1"),
            outside(&w.isp[0], "2001:db8:fffe::1"),
            Asker { net: &guest, address: "2001:db8:6::2", is_outside: false, goes: (true, false) },
        ];
        for round in 0..ROUNDS {
            let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (round + 1));
            let set = Set::random(&mut random);
            w.write("fw.conf", &set.text());
            w.apply();
            let questions: Vec<(&Asker, Over, String, u16)> = (0..QUESTIONS)
                .map(|_| {
                    let (asker, to) = match random.below(3) {
                        0 => (random.of(&askers6), format!("{PREFIX}{}", random.of(&SUFFIXES))),
                        _ => (
                            random.of(&askers4),
                            (*random
                                .of(&[OUTSIDE[0], OUTSIDE[1], OUTSIDE[0], OUTSIDE[1], ROUTER, TARGETS[0], TARGETS[1]]))
                            .to_owned(),
                        ),
                    };
                    // Each provider knows its own customer alone.
                    let to =
                        if std::ptr::eq(asker.net, &w.isp[0]) && to == OUTSIDE[1] { OUTSIDE[0].to_owned() } else { to };
                    let to = if std::ptr::eq(asker.net, &w.isp[1]) { OUTSIDE[1].to_owned() } else { to };
                    (asker, random.over(), to, random.port())
                })
                .collect();
            thread::scope(|scope| {
                for (asker, over, to, port) in &questions {
                    let expected = set.expected(asker, *over, to, *port);
                    let text = set.text();
                    scope.spawn(move || {
                        let address = if to.contains(':') { format!("[{to}]:{port}") } else { format!("{to}:{port}") };
                        let patience = if expected.is_some() { SOON } else { SILENCE };
                        let got = ask(asker.net, *over, Some(asker.address), &address, patience);
                        assert_eq!(got, expected, "{} asks {address} over {over:?} in\n{text}", asker.address);
                    });
                }
            });
        }
    });
}

//! Simulated time: 2 to 500 hosts on one link that loses, repeats and reorders, in about a second.
//!
//! Properties: once there is calm, all hosts of a link have an address and no two the same; the
//! packets of any ten seconds, and those of each host in any minute, are bounded; a deadline lies
//! ahead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

use netd_core::rng::Rng;
use netd_core::sim::{Conditions, Events, Wire};
use netd_core::wire::arp::{Arp, Operation};
use netd_zcip::ipv4ll::{Action, Config, Event, Ipv4ll, LINK_LOCAL};

/// A host that meets nothing but conflicts: ten times three probes at once, then one address a
/// minute; a host that is disturbed in use announces and defends.
const MAX_PER_MINUTE: usize = 60;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn ip(n: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(LINK_LOCAL) + 0x100 + u32::try_from(n).unwrap())
}

fn mac(n: usize) -> [u8; 6] {
    let [a, b] = u16::try_from(n).unwrap().to_be_bytes();
    [2, 0, 0, 0, a, b]
}

struct Host {
    machine: Ipv4ll,
    mac: [u8; 6],
    /// Which link its cable is in.
    link: usize,
    /// Its kernel's, which answers for it.
    address: Option<Ipv4Addr>,
    watched: Option<Ipv4Addr>,
    sent: VecDeque<Duration>,
    lost: usize,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    from: usize,
    /// The link that it was sent on.
    link: usize,
    arp: Arp,
}

struct World {
    now: Duration,
    hosts: Vec<Host>,
    wire: Wire,
    events: Events<Frame>,
    /// Frames sent in each ten seconds.
    sent: HashMap<u64, usize>,
    steps: u64,
}

impl World {
    /// `known(n)`: what the nth host tries first; `link(n)`: where it is.
    fn new(seed: u64, hosts: usize, known: impl Fn(usize) -> Option<Ipv4Addr>, link: impl Fn(usize) -> usize) -> World {
        let conditions =
            Conditions { loss: 0, duplicate: 0, delay: Duration::from_millis(1), jitter: Duration::from_millis(2) };
        let host = |n| {
            let config = Config {
                interface: "eth0".into(),
                mac: mac(n),
                network: LINK_LOCAL,
                known: known(n).into_iter().collect(),
                resume: None,
                quit: false,
                yields: false,
            };
            let machine = Ipv4ll::new(config, Rng::seeded(seed * 1000 + n as u64));
            Host { machine, mac: mac(n), link: link(n), address: None, watched: None, sent: VecDeque::new(), lost: 0 }
        };
        World {
            now: secs(10),
            hosts: (0..hosts).map(host).collect(),
            wire: Wire::new(seed, conditions),
            events: Events::default(),
            sent: HashMap::new(),
            steps: 0,
        }
    }

    /// Everybody's power comes at the same moment.
    fn start(&mut self) {
        (0..self.hosts.len()).for_each(|n| self.step(n, Event::Link(true)));
    }

    fn step(&mut self, n: usize, event: Event) {
        self.steps += 1;
        assert!(self.steps < 5_000_000, "a world that does not come to rest, at {:?}", self.now);
        let now = self.now;
        for action in self.hosts[n].machine.step(now, event) {
            match action {
                Action::Send(arp) => self.send(n, arp),
                Action::Watch(ip) => self.hosts[n].watched = ip,
                Action::Config(ip) => self.hosts[n].address = Some(ip),
                Action::Deconfig(ip) => {
                    assert_eq!(self.hosts[n].address.take(), Some(ip));
                    self.hosts[n].lost += 1;
                }
                Action::Remember(ip) => assert_eq!(self.hosts[n].address, Some(ip)),
                Action::Log(_) | Action::Debug(_) => {}
                Action::Exit(code) => panic!("exit {code}"),
            }
        }
        let host = &self.hosts[n];
        assert_eq!(host.machine.address(), host.address);
        assert!(host.machine.deadline().is_none_or(|at| at > now), "host {n} is busy at {now:?}");
    }

    fn send(&mut self, n: usize, arp: Arp) {
        let now = self.now;
        let sent = &mut self.hosts[n].sent;
        sent.push_back(now);
        while sent.front().is_some_and(|at| *at + secs(60) < now) {
            sent.pop_front();
        }
        assert!(sent.len() <= MAX_PER_MINUTE, "host {n}: {} packets in a minute at {now:?}", sent.len());
        *self.sent.entry(now.as_secs() / 10).or_default() += 1;
        self.wire.send(now, &Frame { from: n, link: self.hosts[n].link, arp }, &mut self.events);
    }

    fn run(&mut self, end: Duration) {
        loop {
            let due = |(n, h): (usize, &Host)| h.machine.deadline().map(|at| (at, n));
            let first = self.hosts.iter().enumerate().filter_map(due).min();
            match (self.events.next_at(), first) {
                (Some(at), first) if at <= end && first.is_none_or(|(deadline, _)| at <= deadline) => {
                    let (at, frame) = self.events.pop().unwrap();
                    self.now = at;
                    self.deliver(frame);
                }
                (_, Some((deadline, n))) if deadline <= end => {
                    self.now = deadline;
                    self.step(n, Event::Timer);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, frame: Frame) {
        for n in 0..self.hosts.len() {
            let host = &self.hosts[n];
            if n == frame.from || host.link != frame.link {
                continue;
            }
            // RFC 826: the kernel answers for its address.
            if host.address == Some(frame.arp.target_ip) && frame.arp.operation == Operation::Request {
                let reply = Arp {
                    operation: Operation::Reply,
                    sender_mac: host.mac,
                    sender_ip: frame.arp.target_ip,
                    target_mac: frame.arp.sender_mac,
                    target_ip: frame.arp.sender_ip,
                };
                let reply = Frame { from: n, link: host.link, arp: reply };
                self.wire.send(self.now, &reply, &mut self.events);
            }
            // The filter of the packet socket.
            let host = &self.hosts[n];
            let concerns = host.watched.is_some_and(|ip| {
                frame.arp.sender_ip == ip || (frame.arp.sender_ip.is_unspecified() && frame.arp.target_ip == ip)
            });
            if concerns {
                self.step(n, Event::Arp(frame.arp));
            }
        }
    }

    /// Everybody talks to somebody, as hosts that are used do: the kernel's ARP bears the sender's
    /// address.
    fn talk(&mut self) {
        for n in 0..self.hosts.len() {
            if let Some(ip) = self.hosts[n].address {
                let arp = Arp::request(self.hosts[n].mac, ip, Ipv4Addr::new(169, 254, 255, 1));
                let frame = Frame { from: n, link: self.hosts[n].link, arp };
                self.wire.send(self.now, &frame, &mut self.events);
            }
        }
    }

    #[track_caller]
    fn check(&self) {
        let mut seen = HashMap::new();
        for (n, host) in self.hosts.iter().enumerate() {
            let ip = host.address.unwrap_or_else(|| panic!("host {n} has no address at {:?}", self.now));
            let other = seen.insert((host.link, ip), n);
            assert_eq!(other, None, "{ip} is host {n}'s too");
        }
    }
}

#[test]
fn hosts_that_start_together_end_with_different_addresses() {
    for hosts in [2, 3, 10, 50, 200, 500] {
        let mut world = World::new(hosts as u64, hosts, |_| None, |_| 0);
        world.start();
        world.run(secs(60));
        world.check();
        // Three probes and two announcements each, and a little for chance.
        assert!(world.sent.values().sum::<usize>() < 6 * hosts + 50, "{hosts} hosts");
    }
}

#[test]
fn hosts_that_all_remember_one_address_end_with_different_ones() {
    for hosts in [2, 3, 10, 50, 200, 500] {
        for seed in 0..if hosts > 50 { 1 } else { 20 } {
            let mut world = World::new(seed, hosts, |_| Some(ip(77)), |_| 0);
            world.start();
            world.run(secs(60));
            world.check();
            assert!(world.sent.values().sum::<usize>() < 10 * hosts + 50, "{hosts} hosts");
        }
    }
}

#[test]
fn on_a_bad_wire_what_was_missed_is_found_when_it_is_used() {
    for seed in 0..10 {
        let mut world = World::new(seed, 60, |n| Some(ip(n / 6)), |_| 0);
        world.wire.conditions = Conditions {
            loss: 700,
            duplicate: 200,
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(900),
        };
        world.start();
        for _ in 0..6 {
            let end = world.now + secs(20);
            world.run(end);
            world.talk();
        }
        world.wire.conditions = Conditions { loss: 20, duplicate: 20, ..world.wire.conditions };
        world.wire.conditions.jitter = Duration::from_millis(20);
        // Long enough for who has met ten conflicts.
        for _ in 0..40 {
            let end = world.now + secs(8);
            world.run(end);
            world.talk();
        }
        let end = world.now + secs(100);
        world.run(end);
        world.check();
    }
}

#[test]
fn two_links_that_are_joined_sort_it_out_and_lose_no_more_than_they_must() {
    for (seed, hosts) in [(1, 2), (2, 20), (3, 200), (4, 500)] {
        // Each address is used once on either link.
        let mut world = World::new(seed, hosts, |n| Some(ip(n / 2)), |n| n % 2);
        world.start();
        world.run(secs(60));
        world.check();
        world.hosts.iter_mut().for_each(|host| host.link = 0);
        for _ in 0..4 {
            world.talk();
            let end = world.now + secs(30);
            world.run(end);
        }
        world.check();
        for pair in world.hosts.chunks(2) {
            let lost: usize = pair.iter().map(|host| host.lost).sum();
            assert!((1..=2).contains(&lost), "one of two, or both: {lost}");
        }
        let worst = world.sent.values().max().unwrap();
        assert!(*worst < 8 * hosts, "{worst} packets in ten seconds from {hosts} hosts");
    }
}

#[test]
fn a_host_whose_every_address_is_taken_goes_on_trying_quietly() {
    let mut world = World::new(5, 1, |_| None, |_| 0);
    world.start();
    let mut answered = 0;
    for _ in 0..600 {
        let end = world.now + secs(1);
        world.run(end);
        // Somebody hostile claims whatever is probed for.
        if let Some(ip) = world.hosts[0].watched {
            answered += 1;
            world.step(0, Event::Arp(Arp::announcement([2, 9, 9, 9, 9, 9], ip)));
        }
    }
    // Ten minutes: ten addresses, then one a minute.
    assert!((15..30).contains(&answered), "{answered} addresses");
    let end = world.now + secs(120);
    world.run(end);
    world.check();
}

#[test]
fn links_that_come_and_go_leave_everybody_with_his_address() {
    let mut world = World::new(8, 100, |_| None, |_| 0);
    world.start();
    world.run(secs(60));
    let before: Vec<_> = world.hosts.iter().map(|host| host.address).collect();
    let mut rng = Rng::seeded(8);
    for _ in 0..20 {
        let n = usize::try_from(rng.below(100)).unwrap();
        world.step(n, Event::Link(false));
        let end = world.now + rng.between(Duration::ZERO, secs(3));
        world.run(end);
        world.step(n, Event::Link(true));
    }
    let end = world.now + secs(10);
    world.run(end);
    world.check();
    assert!(world.hosts.iter().map(|host| host.address).eq(before));
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = |seed| {
        let mut world = World::new(seed, 40, |n| Some(ip(n / 4)), |_| 0);
        world.start();
        world.run(secs(60));
        world.hosts.into_iter().map(|host| (host.address, host.sent)).collect::<Vec<_>>()
    };
    assert_eq!(story(3), story(3));
    assert_ne!(story(3), story(4));
}

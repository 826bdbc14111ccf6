//! Simulated time: weeks of leases on a bad wire, in about a second, with the real encoder and
//! decoder between the stations.
//!
//! Properties, checked after every step: no address is used past the lease that some server gave;
//! the packets of a minute are bounded; a deadline lies ahead; after every calm hour there is a
//! lease. Servers may take their time, and the gear between them and us may let little through:
//! there is a lease all the same, and as soon as can be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod common;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use common::{ACK, MAC, NAK, OFFER, Wire as Bytes};
use netd_core::acd::Timing;
use netd_core::rng::Rng;
use netd_core::sim::{Conditions, Events, Wire};
use netd_core::wire::arp::Arp;
use netd_udhcpc::client::{Action, Change, Client, Config, Destination, Event, Resume};
use netd_udhcpc::message::{MessageType, Template, decode};

/// Packets that the client may send in any 60 s, whatever refuses, lies or goes away and comes
/// back.
const MAX_PER_MINUTE: usize = 40;
/// An address of another network lives on for this long at the most.
const ROAMING: Duration = Duration::from_secs(4);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Well,
    Dead,
    NakAll,
    OfferOnly,
}

/// A server with one address for us.
struct Server {
    id: Ipv4Addr,
    ip: Ipv4Addr,
    lease: u32,
    mood: Mood,
    /// How long an answer takes.
    slow: Duration,
    /// Until when it has promised the address.
    promised: Duration,
}

/// Access gear that protects itself, at its maker's defaults.
#[derive(Clone, Debug)]
enum Gear {
    /// Motorola BSR: one message in this time passes.
    Throttles(Duration, Option<Duration>),
    /// Huawei NE, HPE: so many in this time pass; after one more the station is not heard for 300
    /// s.
    Blocks(usize, Duration, VecDeque<Duration>, Option<Duration>),
}

impl Gear {
    fn throttles() -> Gear {
        Gear::Throttles(secs(5), None)
    }

    fn blocks(most: usize, span: u64) -> Gear {
        Gear::Blocks(most, secs(span), VecDeque::new(), None)
    }

    fn passes(&mut self, now: Duration) -> bool {
        match self {
            Gear::Throttles(span, last) => {
                let passes = last.is_none_or(|last| now >= last + *span);
                *last = if passes { Some(now) } else { *last };
                passes
            }
            Gear::Blocks(most, span, times, deaf) => {
                times.retain(|at| now < *at + *span);
                times.push_back(now);
                if times.len() > *most && deaf.is_none_or(|until| now >= until) {
                    *deaf = Some(now + secs(300));
                    times.clear();
                }
                deaf.is_none_or(|until| now >= until)
            }
        }
    }

    /// Whether it has had enough of us.
    fn is_deaf(&self, now: Duration) -> bool {
        matches!(self, Gear::Blocks(_, _, _, Some(until)) if now < *until)
    }
}

#[derive(Clone, Debug)]
enum Frame {
    ToServers(Vec<u8>, Option<Ipv4Addr>),
    ToClient(Vec<u8>),
    Arp(Arp),
}

fn option(bytes: &[u8], code: u8) -> Option<&[u8]> {
    let mut rest = &bytes[240..];
    while rest.len() > 2 && rest[0] != 255 {
        let len = usize::from(rest[1]);
        if rest[0] == code {
            return Some(&rest[2..2 + len]);
        }
        rest = &rest[2 + len..];
    }
    None
}

impl Server {
    fn new(network: u8, last: u8, lease: u32) -> Server {
        let id = Ipv4Addr::new(10, network, 0, last);
        let ip = Ipv4Addr::new(10, network, 0, 100 + last);
        Server { id, ip, lease, mood: Mood::Well, slow: Duration::ZERO, promised: Duration::ZERO }
    }

    fn answer(&mut self, now: Duration, bytes: &[u8]) -> Option<Vec<u8>> {
        let xid = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
        let ip = |code| option(bytes, code).map(|o| Ipv4Addr::from(<[u8; 4]>::try_from(o).unwrap()));
        let ciaddr = Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[12..16]).unwrap());
        let say = |kind, yiaddr| Bytes::new(xid, yiaddr).opt(53, &[kind]).opt(54, &self.id.octets());
        let give = |kind| say(kind, self.ip).opt(51, &self.lease.to_be_bytes()).opt(1, &[255, 255, 255, 0]).end();
        let nak = || Some(say(NAK, Ipv4Addr::UNSPECIFIED).end());
        match (option(bytes, 53)?.first()?, self.mood) {
            (_, Mood::Dead) => None,
            (1, _) => Some(give(OFFER)),
            (3, Mood::OfferOnly) => None,
            (3, _) if ip(54).is_some_and(|id| id != self.id) => None,
            (3, Mood::NakAll) => nak(),
            (3, Mood::Well) => {
                let wanted = ip(50).unwrap_or(ciaddr);
                if wanted == self.ip {
                    self.promised = now + secs(self.lease.into());
                    return Some(give(ACK));
                }
                // The other server's address: none of ours to refuse.
                None
            }
            _ => None,
        }
    }
}

struct World {
    now: Duration,
    rng: Rng,
    wire: Wire,
    events: Events<Frame>,
    servers: Vec<Server>,
    /// Those of the network that the cable was pulled out of, and when it was plugged in here.
    elsewhere: Vec<Server>,
    plugged: Duration,
    client: Client,
    sent: VecDeque<Duration>,
    /// (bound or renewed, deconfigured) so far.
    granted: u64,
    lost: u64,
    /// Looks for conflicts; each of the servers' addresses that somebody else has now.
    careful: bool,
    taken: Vec<Ipv4Addr>,
    declined: u64,
    gear: Option<Gear>,
}

impl World {
    fn new(seed: u64, leases: [u32; 2]) -> World {
        let conditions =
            Conditions { loss: 0, duplicate: 0, delay: Duration::from_millis(1), jitter: Duration::from_millis(2) };
        let mut world = World {
            now: secs(10),
            rng: Rng::seeded(seed),
            wire: Wire::new(seed + 1, conditions),
            events: Events::default(),
            servers: vec![Server::new(9, 1, leases[0]), Server::new(9, 2, leases[1])],
            elsewhere: vec![Server::new(8, 1, leases[1]), Server::new(8, 2, leases[0])],
            plugged: Duration::ZERO,
            client: Client::new(Config::default(), Rng::seeded(seed + 2)),
            sent: VecDeque::new(),
            granted: 0,
            lost: 0,
            careful: false,
            taken: Vec::new(),
            declined: 0,
            gear: None,
        };
        world.step(Event::Start);
        world
    }

    /// A client that starts now, with these options, in a place with one server behind such gear.
    fn anew(seed: u64, config: Config, gear: Option<Gear>, slow: Duration) -> World {
        let mut world = World::new(seed, [3600, 3600]);
        world.servers.truncate(1);
        world.servers.iter_mut().for_each(|server| server.slow = slow);
        world.gear = gear;
        world.events = Events::default();
        world.client = Client::new(config, Rng::seeded(seed + 2));
        world.sent.clear();
        world.lost = 0;
        world.step(Event::Start);
        world
    }

    /// Runs until there is an address; how long that took.
    fn until_bound(&mut self, limit: Duration) -> Duration {
        let begun = self.now;
        while self.client.address().is_none() {
            let next = [self.events.next_at(), self.client.deadline()].into_iter().flatten().min().unwrap();
            assert!(next <= begun + limit, "no lease in {limit:?}");
            self.run(next);
        }
        self.now - begun
    }

    /// With conflict detection, in a place where addresses are taken without being asked for.
    fn careful(seed: u64, leases: [u32; 2]) -> World {
        let mut world = World::new(seed, leases);
        let config = Config { acd: Some(Timing::FAST), mac: MAC, ..Config::default() };
        world.client = Client::new(config, Rng::seeded(seed + 2));
        world.careful = true;
        world.step(Event::Start);
        world
    }

    fn step(&mut self, event: Event) {
        let template = Template { parameters: vec![1, 3], default_client_id: true, ..Template::default() };
        for action in self.client.step(self.now, event) {
            match action {
                // The wire loses packets, not answers to probes: whether the machine listens is the
                // question here.
                Action::SendArp(arp) => {
                    if arp.sender_ip.is_unspecified() && self.taken.contains(&arp.target_ip) {
                        let answer = Frame::Arp(Arp::announcement([2, 0, 0, 0, 0, 9], arp.target_ip));
                        self.events.push(self.now + Duration::from_millis(5), answer);
                    }
                }
                Action::Send(message, to) => {
                    self.sent.push_back(self.now);
                    self.declined += u64::from(message.kind == MessageType::Decline);
                    let to = match to {
                        Destination::Broadcast => None,
                        Destination::Server { to, .. } => Some(to),
                    };
                    let frame = Frame::ToServers(message.encode(MAC, &template), to);
                    self.wire.send(self.now, &frame, &mut self.events);
                }
                Action::Tell(Change::Bound(grant)) => {
                    let taken = self.careful && self.taken.contains(&grant.ip);
                    assert!(!taken, "{} is taken, and was used at {:?}", grant.ip, self.now);
                    self.granted += 1;
                }
                Action::Tell(Change::Renew(_)) => self.granted += 1,
                Action::Tell(Change::Deconfig) => self.lost += 1,
                Action::Watch(_) | Action::Tell(_) | Action::Log(_) | Action::Debug(_) | Action::Background => {}
                Action::Exit(code) => panic!("exit {code}"),
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let now = self.now;
        if let Some(ip) = self.client.address() {
            let here = self.servers.iter().find(|s| s.ip == ip);
            let there = || self.elsewhere.iter().find(|s| s.ip == ip && now < self.plugged + ROAMING);
            let server = here.or_else(there).expect("an address that no server here has");
            assert!(now < server.promised, "{ip} used at {now:?}, promised until {:?}", server.promised);
        }
        while self.sent.front().is_some_and(|t| *t + secs(60) < now) {
            self.sent.pop_front();
        }
        assert!(self.sent.len() <= MAX_PER_MINUTE, "{} packets in a minute at {now:?}", self.sent.len());
        assert!(self.client.deadline().expect("a deadline") > now, "the deadline does not lie ahead at {now:?}");
    }

    /// Lets the world run until `end`.
    fn run(&mut self, end: Duration) {
        // A machine that is stuck in time must fail, not hang.
        for steps in 0.. {
            assert!(steps < 200_000, "{steps} steps until {:?}", self.now);
            let deadline = self.client.deadline().expect("a deadline");
            match self.events.next_at() {
                Some(at) if at <= deadline && at <= end => {
                    let (at, frame) = self.events.pop().unwrap();
                    // A suspend may have carried us past it.
                    self.now = self.now.max(at);
                    self.deliver(frame);
                }
                _ if deadline <= end => {
                    self.now = self.now.max(deadline);
                    self.step(Event::Timer);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, frame: Frame) {
        match frame {
            Frame::Arp(arp) => self.step(Event::Arp(arp)),
            Frame::ToClient(bytes) => {
                let reply = decode(&bytes, MAC).unwrap();
                self.step(Event::Reply(Box::new(reply), [2, 0, 0, 0, 0, 1]));
            }
            Frame::ToServers(..) if self.gear.as_mut().is_some_and(|gear| !gear.passes(self.now)) => {}
            Frame::ToServers(bytes, to) => {
                for server in self.servers.iter_mut().filter(|s| to.is_none_or(|to| s.id == to)) {
                    if let Some(reply) = server.answer(self.now, &bytes) {
                        self.wire.send(self.now + server.slow, &Frame::ToClient(reply), &mut self.events);
                    }
                }
            }
        }
    }

    /// The cable is plugged in somewhere else. What was on the wire stays there.
    fn roam(&mut self) {
        std::mem::swap(&mut self.servers, &mut self.elsewhere);
        self.events = Events::default();
        self.plugged = self.now;
        self.step(Event::CarrierLost);
        self.step(Event::Carrier);
    }

    fn trouble(&mut self) {
        let moods = [Mood::Well, Mood::Well, Mood::Dead, Mood::NakAll, Mood::OfferOnly];
        for server in &mut self.servers {
            server.mood = moods[self.rng.below(moods.len() as u64) as usize];
            server.slow = secs(self.rng.below(20));
        }
        if self.careful {
            let all: Vec<Ipv4Addr> = self.servers.iter().map(|server| server.ip).collect();
            self.taken = all.into_iter().filter(|_| self.rng.below(2) == 0).collect();
            // Those who take one say so, and a second time when they meet with resistance.
            for ip in &self.taken {
                for wait in [10, 11] {
                    let arp = Arp::announcement([2, 0, 0, 0, 0, 9], *ip);
                    self.events.push(self.now + secs(wait), Frame::Arp(arp));
                }
            }
        }
        self.wire.conditions.loss = self.rng.below(600);
        self.wire.conditions.duplicate = self.rng.below(300);
        self.wire.conditions.jitter = self.rng.between(Duration::ZERO, secs(3));
    }

    fn calm(&mut self) {
        for server in &mut self.servers {
            server.mood = Mood::Well;
            // A renewal of the shortest leases waits for two seconds.
            server.slow = if server.lease < 60 { Duration::ZERO } else { server.slow };
        }
        self.taken.clear();
        self.wire.conditions = Conditions { loss: 20, duplicate: 20, ..self.wire.conditions };
        self.wire.conditions.jitter = Duration::from_millis(20);
    }

    /// A day: hours of trouble, suspends and wishes, each followed by a calm one that must end with
    /// a lease.
    fn day(&mut self) {
        for _ in 0..12 {
            self.trouble();
            for _ in 0..6 {
                let end = self.now + secs(600);
                self.run(end);
                match self.rng.below(8) {
                    0 => self.now += secs(self.rng.below(7200)),
                    1 => self.step(Event::Renew),
                    2 => {
                        self.step(Event::Unsent);
                        self.step(Event::ScriptEnded);
                    }
                    3 => {
                        self.step(Event::CarrierLost);
                        self.step(Event::Carrier);
                    }
                    4 => self.roam(),
                    _ => {}
                }
                // Whatever happened, the machine is woken as a timerfd would.
                self.step(Event::Timer);
            }
            self.calm();
            let end = self.now + secs(3600);
            self.run(end);
            assert!(self.client.address().is_some(), "no lease after a calm hour at {:?}", self.now);
        }
    }
}

#[test]
fn a_month_of_ordinary_leases() {
    let mut world = World::new(1, [3600, 7200]);
    (0..30).for_each(|_| world.day());
    assert!(world.granted > 500 && world.lost > 10, "granted {}, lost {}", world.granted, world.lost);
}

#[test]
fn a_month_among_stations_that_take_addresses() {
    let mut world = World::careful(9, [3600, 1200]);
    (0..30).for_each(|_| world.day());
    assert!(world.granted > 300 && world.declined > 50, "granted {}, declined {}", world.granted, world.declined);
}

#[test]
fn a_week_of_short_and_mixed_leases() {
    for (seed, leases) in [(10, [120, 300]), (20, [30, 30]), (30, [10, 86_400]), (40, [5, 4])] {
        let mut world = World::new(seed, leases);
        (0..7).for_each(|_| world.day());
        assert!(world.granted > 300, "{leases:?}: granted {}", world.granted);
    }
}

#[test]
fn a_month_behind_gear_that_lets_little_through() {
    for gear in [Gear::throttles(), Gear::blocks(6, 5), Gear::blocks(10, 180)] {
        let mut world = World::new(3, [7200, 3600]);
        world.gear = Some(gear);
        (0..10).for_each(|_| world.day());
        assert!(world.granted > 100, "granted {}", world.granted);
    }
}

#[test]
fn a_lease_comes_as_soon_as_gear_and_server_allow_it() {
    let ms = Duration::from_millis;
    for seed in 0..300 {
        // The REQUEST that the gear drops is repeated as soon as it would pass.
        let took = World::anew(seed, Config::default(), Some(Gear::throttles()), ms(2)).until_bound(secs(60));
        assert!(took < ms(6100), "{took:?}");
        // The gear has just let something else of ours through: a client of before, that was
        // killed.
        let mut world = World::anew(seed, Config::default(), Some(Gear::Throttles(secs(5), Some(secs(10)))), ms(2));
        let took = world.until_bound(secs(60));
        assert!(took < secs(19), "{took:?}");
        // However slow the server is: its offer, its acknowledgement, and nothing else is waited
        // for.
        for slow in [ms(500), ms(3500), ms(7000), secs(20)] {
            // With an xid for each DISCOVER, the offers to the last two count.
            for (rapid_commit, more) in [(false, 100), (true, 5000)] {
                let config = Config { rapid_commit, ..Config::default() };
                let took = World::anew(seed, config, None, slow).until_bound(secs(180));
                assert!(took < slow * 2 + ms(more), "{slow:?}: {took:?}");
            }
        }
        // Six in 5 s, and a server that needs 3.5 s.
        let mut world = World::anew(seed, Config::default(), Some(Gear::blocks(6, 5)), ms(3500));
        assert!(world.until_bound(secs(60)) < ms(7100));
        assert!(!world.gear.as_ref().unwrap().is_deaf(world.now));
        // Ten in 180 s, and a server that comes up at any moment.
        let mut world = World::anew(seed, Config::default(), Some(Gear::blocks(10, 180)), ms(2));
        world.servers[0].mood = Mood::Dead;
        let up = secs(world.rng.below(600));
        let end = world.now + up;
        world.run(end);
        world.servers[0].mood = Mood::Well;
        assert!(world.until_bound(secs(100)) < secs(66), "up after {up:?}");
        assert!(!world.gear.as_ref().unwrap().is_deaf(world.now), "up after {up:?}");
    }
}

#[test]
fn a_short_lease_of_a_slow_server_is_kept() {
    for (lease, slow) in [(30, 3500), (12, 2500), (3600, 40_000)] {
        let mut world = World::anew(7, Config::default(), None, Duration::from_millis(slow));
        world.servers[0].lease = lease;
        world.until_bound(secs(300));
        let end = world.now + secs(3 * 3600);
        world.run(end);
        assert_eq!(world.lost, 1, "the one at the start; a lease of {lease} s, an answer in {slow} ms");
    }
}

#[test]
fn a_lease_of_one_second_is_no_storm() {
    let mut world = World::new(5, [1, 1]);
    world.run(secs(6 * 3600));
    assert!(world.granted > 100, "granted {}", world.granted);
}

#[test]
fn kill_and_restart_anywhere_keeps_the_rules() {
    let mut world = World::new(77, [600, 900]);
    for round in 0..500 {
        let end = world.now + secs(world.rng.below(700));
        world.run(end);
        // What the record would say.
        let held = world.client.address();
        let resume = held.and_then(|ip| {
            let server = world.servers.iter().find(|s| s.ip == ip)?;
            // The record's end is the client's own, never later than the server's promise.
            Some(Resume { ip, server_id: server.id, end: server.promised - Duration::from_millis(100) })
        });
        world.client = Client::new(Config { resume, ..Config::default() }, Rng::seeded(round));
        world.sent.clear();
        world.step(Event::Start);
        assert_eq!(world.client.address(), held, "the address outlives the process");
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = |seed| {
        let mut world = World::new(seed, [600, 900]);
        (0..2).for_each(|_| world.day());
        (world.granted, world.lost, world.now)
    };
    assert_eq!(story(3), story(3));
    assert_ne!(story(3), story(4));
}

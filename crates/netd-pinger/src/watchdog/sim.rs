//! Simulated hours: routers that die, come back, lose packets, links and leases that come and go.
//! Properties that must hold at every step: bounded probes, no verdict sooner after the last one
//! than the hold-down, restarts that back off and only for a silent router, and recovery, always.

use netd_core::sim::{Conditions, Events, Wire as Air};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// What happens in the world.
#[derive(Clone, Copy, Debug)]
enum Thing {
    /// An answer arrives.
    Arrives(Event),
    /// The weather changes: router, targets, link, lease, loss.
    Weather,
}

#[derive(Debug)]
struct World {
    dog: Watchdog,
    events: Events<Thing>,
    air: Air,
    rng: Rng,
    config: Config,
    router: bool,
    blocks_icmp: bool,
    behind: bool,
    lease: Lease,
    begun: Vec<Duration>,
    verdict: Option<(Duration, Verdict)>,
    restarts: Vec<Duration>,
    /// When the weather changed last.
    changed: Duration,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng::seeded(seed);
        let interval = Duration::from_millis(200 + rng.below(5000));
        let bad = 1 + rng.below(5) as usize;
        let config = Config {
            interval,
            retry: interval / (1 + rng.below(3) as u32),
            timeout: Duration::from_millis(100 + rng.below(900)),
            bad,
            of: bad + rng.below(4) as usize,
            hold_down: Duration::from_secs(rng.below(20)),
            restart: Some(Duration::from_secs(rng.below(60))),
            status: Duration::from_secs(10),
            targets: rng.below(3) as usize,
        };
        let conditions =
            Conditions { loss: 0, duplicate: 50, delay: Duration::from_millis(1), jitter: Duration::from_millis(400) };
        let lease =
            Lease { ip: std::net::Ipv4Addr::new(10, 0, 0, 5), router: Some(std::net::Ipv4Addr::new(10, 0, 0, 1)) };
        World {
            dog: Watchdog::new(config, Rng::seeded(seed + 1), None, Duration::ZERO),
            events: Events::default(),
            air: Air::new(seed + 2, conditions),
            rng,
            config,
            router: true,
            blocks_icmp: false,
            behind: true,
            lease,
            begun: Vec::new(),
            verdict: None,
            restarts: Vec::new(),
            changed: Duration::ZERO,
        }
    }

    fn step(&mut self, now: Duration, event: Event) {
        let actions = self.dog.step(now, event);
        let asks = actions.iter().any(|a| matches!(a, Action::Arp { .. } | Action::Probe { who: Who::Target(0), .. }));
        if asks {
            self.began(now);
        }
        for action in actions {
            match action {
                Action::Arp { message, to } => {
                    assert_eq!((message.sender_mac, message.sender_ip), (MAC, self.lease.ip));
                    assert!(to == BROADCAST || to == ROUTER_MAC);
                    let answer = Arp {
                        operation: Operation::Reply,
                        sender_mac: ROUTER_MAC,
                        sender_ip: message.target_ip,
                        target_mac: MAC,
                        target_ip: message.sender_ip,
                    };
                    let here = self.router && Some(message.target_ip) == self.lease.router;
                    self.send(here, now, Event::Arp(answer));
                }
                Action::Probe { who, round } => {
                    let here = match who {
                        Who::Router => self.router && !self.blocks_icmp,
                        Who::Target(_) => self.router && self.behind,
                    };
                    self.send(here, now, Event::Answer { who, round });
                }
                Action::Publish(verdict) => self.published(now, verdict),
                Action::Restart => self.restarted(now),
                Action::Status => {}
            }
        }
        let deadline = self.dog.deadline();
        assert!(deadline.is_none_or(|at| at + HOUR > now), "a deadline that was forgotten");
    }

    fn send(&mut self, here: bool, now: Duration, event: Event) {
        if here {
            self.air.send(now, &Thing::Arrives(event), &mut self.events);
        }
    }

    /// Rounds never come closer than the retry.
    fn began(&mut self, now: Duration) {
        let least = self.config.retry.min(self.config.interval);
        if let Some(last) = self.begun.last() {
            assert!(now >= *last + least, "rounds at {last:?} and {now:?}, retry {least:?}");
        }
        self.begun.push(now);
    }

    fn published(&mut self, now: Duration, verdict: Verdict) {
        if let Some((at, last)) = self.verdict {
            assert_ne!(last, verdict, "said twice");
            assert!(verdict == Verdict::Bad || now >= at + self.config.hold_down, "good {:?} after bad", now - at);
        }
        self.verdict = Some((now, verdict));
        if verdict == Verdict::Good {
            self.restarts.clear();
        }
    }

    fn restarted(&mut self, now: Duration) {
        // Only for a silent router, as soon as that can be known; one that loses packets or is slow
        // may look so.
        let Config { interval, timeout, .. } = self.config;
        let settled = now > self.changed + interval * 2 + timeout;
        let clear = self.air.conditions.loss == 0 && timeout > self.air.conditions.jitter + Duration::from_millis(50);
        assert!(!(self.router && settled && clear), "restarted at {now:?} for a router that answers");
        assert_eq!(self.verdict.map(|(_, v)| v), Some(Verdict::Bad));
        let first = self.config.restart.unwrap();
        if let Some(last) = self.restarts.last() {
            let level = u32::try_from(self.restarts.len()).unwrap().min(16);
            let wait = (first.max(RESTART_WAIT) * 2_u32.pow(level)).min(RESTART_MAX);
            assert!(now >= *last + wait, "restarts at {last:?} and {now:?}");
        }
        self.restarts.push(now);
    }

    /// Something changes, at random.
    fn weather(&mut self, now: Duration) {
        match self.rng.below(12) {
            0 | 1 => self.router = !self.router,
            2 => self.behind = !self.behind,
            3 => self.blocks_icmp = !self.blocks_icmp,
            4 => self.air.conditions.loss = self.rng.below(600),
            5 => self.air.conditions.loss = 0,
            6 => self.step(now, Event::Link(None)),
            7 => self.step(now, Event::Lease(None)),
            8 => {
                let router = std::net::Ipv4Addr::new(10, 0, 0, 1 + self.rng.below(3) as u8);
                self.lease.router = Some(router);
                self.step(now, Event::Lease(Some(self.lease)));
            }
            9 => {
                for _ in 0..20 {
                    self.step(now, Event::Link(None));
                    self.step(now, Event::Link(Some(Wire { mac: Some(MAC) })));
                }
            }
            _ => self.connect(now),
        }
        self.changed = now;
        self.events.push(now + self.rng.between(Duration::ZERO, Duration::from_secs(90)), Thing::Weather);
    }

    fn connect(&mut self, now: Duration) {
        self.step(now, Event::Link(Some(Wire { mac: Some(MAC) })));
        self.step(now, Event::Lease(Some(self.lease)));
    }

    fn run(&mut self, from: Duration, to: Duration) {
        let mut now = from;
        for _ in 0..1_000_000 {
            let deadline = self.dog.deadline();
            let next = self.events.next_at().into_iter().chain(deadline).min().unwrap_or(to);
            if next >= to {
                return;
            }
            now = now.max(next);
            match self.events.next_at().filter(|at| *at <= now).and_then(|_| self.events.pop()) {
                Some((_, Thing::Arrives(event))) => self.step(now, event),
                Some((_, Thing::Weather)) => self.weather(now),
                None => self.step(now, Event::Tick),
            }
        }
        panic!("too many events");
    }
}

#[test]
fn hours_of_bad_weather() {
    let (mut bad, mut restarts) = (0, 0);
    for seed in 0..60 {
        let mut world = World::new(1000 + seed * 10);
        world.connect(Duration::ZERO);
        world.events.push(Duration::from_secs(30), Thing::Weather);
        world.run(Duration::ZERO, HOUR);
        bad += usize::from(world.verdict.is_some_and(|(_, v)| v == Verdict::Bad));
        restarts += world.restarts.len();

        // Sunshine: always good in the end, after the hold-down, a few rounds and what was on its
        // way.
        let mut events = Events::default();
        std::mem::swap(&mut events, &mut world.events);
        world.router = true;
        world.behind = true;
        world.changed = HOUR;
        world.air.conditions =
            Conditions { loss: 0, duplicate: 0, delay: Duration::from_millis(1), jitter: Duration::ZERO };
        world.connect(HOUR);
        let window = (world.config.interval + world.config.timeout) * (world.config.of as u32 + 2) * 2;
        world.run(HOUR, HOUR + world.config.hold_down * 2 + window);
        assert_eq!(world.dog.word().word(), "good", "seed {seed}: {world:?}");
        assert_eq!(world.verdict.map(|(_, v)| v), Some(Verdict::Good), "seed {seed}");
    }
    // The weather was bad enough to mean something.
    assert!(bad > 10 && restarts > 10, "{bad} {restarts}");
}

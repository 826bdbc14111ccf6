//! The machine of IPv4 link-local addresses, RFC 3927: choose, probe, use, defend, give up.
//!
//! Pure: `step(now, Event) -> Vec<Action>`, `deadline()`. No clock, no socket, no interface: it is
//! told of the link, of ARP and of the addresses that this machine has elsewhere. Probes and
//! defence are netd_core::acd's (RFC 3927 and RFC 5227 have them in common). Driven by daemon.rs
//! and tests/sim.rs.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use netd_core::acd::{self, Acd, MAX_CONFLICTS, PROBE_MIN, RATE_LIMIT_INTERVAL, Timing};
use netd_core::net::Mac;
use netd_core::rng::Rng;
use netd_core::wire::arp::Arp;

/// RFC 3927 section 2.1.
pub const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 0);

/// For an address that no station is known to have had: the RFC's numbers, with its random times
/// drawn from the lower part of their ranges (PROBE_WAIT 0..0.5 of 0..1 s, two waits of 1..1.25 of
/// 1..2 s, ANNOUNCE_WAIT 2 s), so that 5 s are never exceeded.
pub const NEW: Timing = Timing {
    probe_wait: Duration::from_millis(500),
    probe_max: Duration::from_millis(1250),
    announce_wait: Duration::from_secs(2),
    ..Timing::RFC5227
};

/// For an address that was ours before, and was probed for in full then: as many probes in 1.3 s at
/// the most.
pub const KNOWN: Timing = Timing {
    probe_wait: Duration::from_millis(100),
    probe_min: Duration::from_millis(250),
    probe_max: Duration::from_millis(300),
    announce_wait: Duration::from_millis(600),
    ..Timing::RFC5227
};

/// Addresses of the own sequence that are passed over because they are known to be taken.
const MAX_SKIPPED: u32 = 64;

/// How it is to behave; from the command line and from what was remembered.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the interface: of two that have the same address, the one whose name comes first
    /// keeps it.
    pub interface: String,
    /// Its Ethernet address, from which the own sequence of addresses follows.
    pub mac: [u8; 6],
    /// The network, a.b.0.0.
    pub network: Ipv4Addr,
    /// Addresses to try first: `-r`, the remembered one.
    pub known: Vec<Ipv4Addr>,
    /// An address that is in use already: the last process was killed.
    pub resume: Option<Ipv4Addr>,
    /// `-q`: end as soon as there is an address.
    pub quit: bool,
    /// Have no address while the interface has a routable one.
    pub yields: bool,
}

impl Config {
    /// Whether `ip` may be chosen: RFC 3927 section 2.1 reserves the first and the last 256
    /// addresses.
    pub fn may_choose(&self, ip: Ipv4Addr) -> bool {
        let [_, _, c, _] = ip.octets();
        is_within(ip, self.network) && (1..=254).contains(&c)
    }
}

/// Whether `ip` is in the /16 of `network`.
pub fn is_within(ip: Ipv4Addr, network: Ipv4Addr) -> bool {
    u32::from(ip) >> 16 == u32::from(network) >> 16
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The deadline may have passed.
    Timer,
    /// Packets can flow, or cannot any more.
    Link(bool),
    /// An ARP message that the filter for the watched address let through.
    Arp(Arp),
    /// What was to be sent could not be: no station was asked.
    Unsent,
    /// The interface has this Ethernet address now.
    Mac([u8; 6]),
    /// The addresses of this machine have changed.
    Addresses(Addresses),
    /// USR1: look again whether the address is free; get one again after a `Release`.
    Check,
    /// USR2: give the address up, until a `Check`.
    Release,
    /// End with this exit code.
    Stop(u8),
}

/// What the machine has, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// This interface's.
    pub own: Vec<Ipv4Addr>,
    /// Interfaces other than this one, and their addresses.
    pub elsewhere: Vec<(String, Ipv4Addr)>,
    /// Ethernet addresses of all interfaces.
    pub macs: Vec<[u8; 6]>,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Broadcast this.
    Send(Arp),
    /// Listen to ARP that concerns this address, and to no other; `None`: to none at all.
    Watch(Option<Ipv4Addr>),
    /// The address may be used: tell the handler.
    Config(Ipv4Addr),
    /// It must not be used any more: tell the handler.
    Deconfig(Ipv4Addr),
    /// To be tried first the next time.
    Remember(Ipv4Addr),
    /// A line for the log.
    Log(String),
    /// A line for the log, for who asks for more.
    Debug(String),
    /// End when the handler has finished.
    Exit(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    ip: Ipv4Addr,
    /// It was ours before.
    known: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// There is no use for an address: no link, or a better address, or SIGUSR2.
    Idle,
    /// Chooses an address as soon as it may: see `not_before`.
    Waiting,
    /// Looks whether another station has it.
    Probing { candidate: Candidate, acd: Acd },
    /// Has it, since then; `seen`: it was on the interface.
    Bound { since: Duration, seen: bool, acd: Acd },
    /// Has ended.
    Ended,
}

/// The machine.
#[derive(Debug)]
pub struct Ipv4ll {
    config: Config,
    /// For the times.
    rng: Rng,
    /// For the addresses; the same for the same MAC.
    sequence: Rng,
    /// Tried before the sequence is asked.
    first: VecDeque<Candidate>,
    state: State,
    link: bool,
    released: bool,
    addresses: Addresses,
    /// Addresses lost to others since there was peace.
    conflicts: u32,
    /// The last of them.
    lost: Option<Ipv4Addr>,
    /// When the next address may be chosen: conflicts are paid for even if the wish for an address
    /// comes and goes.
    not_before: Duration,
    /// In use by our last process, which was killed; until the link is known.
    resume: Option<Ipv4Addr>,
    watched: Option<Ipv4Addr>,
}

impl Ipv4ll {
    /// A machine that waits for its first [`Event::Link`].
    pub fn new(config: Config, rng: Rng) -> Ipv4ll {
        let known = config.known.iter().map(|ip| Candidate { ip: *ip, known: true });
        Ipv4ll {
            rng,
            sequence: sequence(config.mac),
            first: known.collect(),
            state: State::Idle,
            link: false,
            released: false,
            addresses: Addresses::default(),
            conflicts: 0,
            lost: None,
            not_before: Duration::ZERO,
            resume: config.resume,
            watched: None,
            config,
        }
    }

    /// When to step with [`Event::Timer`], as time since boot.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Waiting => Some(self.not_before),
            State::Probing { acd, .. } | State::Bound { acd, .. } => acd.deadline(),
            State::Idle | State::Ended => None,
        }
    }

    /// The address that may be used now; for tests.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match &self.state {
            State::Bound { acd, .. } => Some(acd.ip()),
            State::Idle | State::Waiting | State::Probing { .. } | State::Ended => None,
        }
    }

    /// What happened at `now` -> what to do.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Timer => self.detect(now, acd::Event::Timer, &mut out),
            Event::Arp(arp) if self.is_our_own(&arp) => {}
            Event::Arp(arp) => self.detect(now, acd::Event::Arp(arp), &mut out),
            Event::Link(up) => self.link(now, up, &mut out),
            Event::Unsent => self.unsent(now),
            Event::Mac(mac) => self.mac(mac, &mut out),
            Event::Addresses(addresses) => self.addresses(now, addresses, &mut out),
            Event::Check => self.check(&mut out),
            Event::Release => self.released = true,
            Event::Stop(code) => self.stop(code, &mut out),
        }
        self.settle(now, &mut out);
        let watched = match &self.state {
            State::Probing { acd, .. } | State::Bound { acd, .. } => Some(acd.ip()),
            State::Idle | State::Waiting | State::Ended => None,
        };
        if watched != self.watched {
            self.watched = watched;
            // First of all: the answer to what is sent must be heard.
            out.insert(0, Action::Watch(watched));
        }
        out
    }

    /// Whether there is a use for an address.
    fn is_wanted(&self) -> bool {
        let routable = || self.addresses.own.iter().any(|ip| !is_within(*ip, self.config.network));
        self.link && !self.released && !(self.config.yields && routable())
    }

    /// Begins where an address is wanted, gives up where it is not, and chooses when the wait is
    /// over.
    fn settle(&mut self, now: Duration, out: &mut Vec<Action>) {
        let wanted = self.is_wanted();
        match &self.state {
            State::Idle if wanted => self.state = State::Waiting,
            State::Waiting | State::Probing { .. } | State::Bound { .. } if !wanted => {
                self.give_up(out);
                self.state = State::Idle;
            }
            State::Idle | State::Waiting | State::Probing { .. } | State::Bound { .. } | State::Ended => {}
        }
        if matches!(self.state, State::Waiting) && self.not_before <= now {
            self.choose(now, out);
        }
    }

    /// Leaves an address that no station disputes: it is the first to be tried the next time.
    fn give_up(&mut self, out: &mut Vec<Action>) {
        match &self.state {
            State::Bound { acd, .. } => {
                self.first.push_front(Candidate { ip: acd.ip(), known: true });
                out.push(Action::Deconfig(acd.ip()));
            }
            State::Probing { candidate, .. } => self.first.push_front(*candidate),
            State::Idle | State::Waiting | State::Ended => {}
        }
    }

    fn link(&mut self, now: Duration, up: bool, out: &mut Vec<Action>) {
        if up && !self.link {
            // RFC 3927 section 2.2: perhaps another network; what was learned on the last one does
            // not count.
            self.conflicts = 0;
            self.lost = None;
            self.not_before = now;
        }
        self.link = up;
        let Some(ip) = self.resume.take() else { return };
        if !self.is_wanted() || self.is_elsewhere(ip) {
            self.first.push_front(Candidate { ip, known: true });
            out.push(Action::Deconfig(ip));
            return;
        }
        // RFC 3927 section 2.5 and not 2.2: it was used, and the kernel answered for it, while we
        // were away. Who has it too is told.
        out.push(Action::Log(format!("{ip} is ours already")));
        self.state = State::Bound { since: now, seen: false, acd: Acd::in_use(self.config.mac, ip, NEW) };
        out.push(Action::Send(Arp::announcement(self.config.mac, ip)));
        self.configure(ip, out);
    }

    /// The next address, and its first probe after a while.
    fn choose(&mut self, now: Duration, out: &mut Vec<Action>) {
        let candidate = self.next_candidate();
        let timing = if candidate.known { KNOWN } else { NEW };
        out.push(Action::Debug(format!("probing for {}", candidate.ip)));
        let acd = Acd::probe(now, self.config.mac, candidate.ip, timing, &mut self.rng);
        self.state = State::Probing { candidate, acd };
    }

    fn next_candidate(&mut self) -> Candidate {
        while let Some(candidate) = self.first.pop_front() {
            if !self.is_taken(candidate.ip) {
                return candidate;
            }
        }
        let mut ip = self.draw();
        for _ in 0..MAX_SKIPPED {
            if !self.is_taken(ip) {
                break;
            }
            ip = self.draw();
        }
        Candidate { ip, known: false }
    }

    /// RFC 3927 section 2.1: uniformly from what is not reserved.
    fn draw(&mut self) -> Ipv4Addr {
        let host = 0x100 + u32::try_from(self.sequence.below(0xfe00)).unwrap_or_default();
        Ipv4Addr::from(u32::from(self.config.network) | host)
    }

    fn is_taken(&self, ip: Ipv4Addr) -> bool {
        self.lost == Some(ip) || self.is_elsewhere(ip)
    }

    fn is_elsewhere(&self, ip: Ipv4Addr) -> bool {
        self.addresses.elsewhere.iter().any(|(_, other)| *other == ip)
    }

    /// With two interfaces on one link the kernel talks on either with the address of the other
    /// (arp_announce), and hears itself.
    fn is_our_own(&self, arp: &Arp) -> bool {
        matches!(self.state, State::Bound { .. }) && self.addresses.macs.contains(&arp.sender_mac)
    }

    /// The detector's turn.
    fn detect(&mut self, now: Duration, event: acd::Event, out: &mut Vec<Action>) {
        let (State::Probing { acd, .. } | State::Bound { acd, .. }) = &mut self.state else { return };
        let ip = acd.ip();
        for action in acd.step(now, event, &mut self.rng) {
            match action {
                acd::Action::Send(arp) => out.push(Action::Send(arp)),
                acd::Action::Usable => self.found_free(now, out),
                acd::Action::Conflict(mac) => self.conflict(now, ip, &shown(mac), out),
                acd::Action::Defended(mac) => out.push(Action::Log(format!("{} used {ip}: defended", shown(mac)))),
            }
        }
    }

    fn found_free(&mut self, now: Duration, out: &mut Vec<Action>) {
        let State::Probing { acd, .. } = &self.state else { return };
        let (acd, ip) = (acd.clone(), acd.ip());
        self.state = State::Bound { since: now, seen: false, acd };
        out.push(Action::Log(format!("using {ip}")));
        self.configure(ip, out);
    }

    fn configure(&mut self, ip: Ipv4Addr, out: &mut Vec<Action>) {
        out.extend([Action::Config(ip), Action::Remember(ip)]);
        if self.config.quit {
            self.state = State::Ended;
            out.push(Action::Exit(0));
        }
    }

    /// Another station has the address, or is about to take it.
    fn conflict(&mut self, now: Duration, ip: Ipv4Addr, by: &str, out: &mut Vec<Action>) {
        match &self.state {
            State::Bound { since, .. } => {
                out.push(Action::Log(format!("{by} uses {ip} and will not give way: giving it up")));
                out.push(Action::Deconfig(ip));
                if now.saturating_sub(*since) >= RATE_LIMIT_INTERVAL {
                    self.conflicts = 0;
                }
            }
            State::Probing { .. } => out.push(Action::Log(format!("{by} has {ip}"))),
            State::Idle | State::Waiting | State::Ended => return,
        }
        self.lost = Some(ip);
        self.conflicts += 1;
        // RFC 3927 section 2.2.1.
        self.not_before = if self.conflicts >= MAX_CONFLICTS { now + RATE_LIMIT_INTERVAL } else { now };
        if self.conflicts == MAX_CONFLICTS {
            out.push(Action::Log(format!("{MAX_CONFLICTS} conflicts: one address per minute from now on")));
        }
        self.state = State::Waiting;
    }

    /// A probe that did not go out has asked no station.
    fn unsent(&mut self, now: Duration) {
        if let State::Probing { candidate, .. } = &self.state {
            self.first.push_front(*candidate);
            self.not_before = now + PROBE_MIN;
            self.state = State::Waiting;
        }
    }

    fn mac(&mut self, mac: [u8; 6], out: &mut Vec<Action>) {
        if mac == self.config.mac {
            return;
        }
        self.config.mac = mac;
        self.sequence = sequence(mac);
        match &self.state {
            // What neighbours remember of it is wrong now.
            State::Bound { since, seen, acd } => {
                let (since, seen, acd) = (*since, *seen, Acd::in_use(mac, acd.ip(), NEW));
                out.push(Action::Send(Arp::announcement(mac, acd.ip())));
                self.state = State::Bound { since, seen, acd };
            }
            // Our probes so far would be taken for another's. What was drawn from the old sequence
            // is forgotten.
            State::Probing { candidate, .. } => {
                self.first.retain(|c| c.known);
                if candidate.known {
                    self.first.push_front(*candidate);
                }
                self.state = State::Waiting;
            }
            State::Idle | State::Waiting | State::Ended => self.first.retain(|c| c.known),
        }
    }

    fn addresses(&mut self, now: Duration, addresses: Addresses, out: &mut Vec<Action>) {
        self.addresses = addresses;
        self.look_elsewhere(now, out);
        let State::Bound { seen, acd, .. } = &mut self.state else { return };
        let (is_there, ip) = (self.addresses.own.contains(&acd.ip()), acd.ip());
        if *seen && !is_there {
            // Since then this host has not answered for it, and another station may have taken it.
            out.push(Action::Log(format!("somebody has removed {ip} from the interface")));
            self.check(out);
        } else if is_there && !std::mem::replace(seen, true) {
            out.push(Action::Debug(format!("{ip} is on the interface")));
        }
    }

    /// Two links may have hosts of the same address; this machine could not tell them apart.
    fn look_elsewhere(&mut self, now: Duration, out: &mut Vec<Action>) {
        let (ip, gives_way): (_, fn(&str, &str) -> bool) = match &self.state {
            State::Probing { acd, .. } => (acd.ip(), |_, _| true),
            State::Bound { acd, .. } => (acd.ip(), |ours, other| other < ours),
            State::Idle | State::Waiting | State::Ended => return,
        };
        let ours = &self.config.interface;
        let other = self.addresses.elsewhere.iter().find(|(name, other)| *other == ip && gives_way(ours, name));
        if let Some((name, _)) = other.cloned() {
            self.conflict(now, ip, &format!("our own {name}"), out);
        }
    }

    fn check(&mut self, out: &mut Vec<Action>) {
        self.released = false;
        if matches!(self.state, State::Probing { .. } | State::Bound { .. }) {
            self.give_up(out);
            self.state = State::Waiting;
        }
    }

    fn stop(&mut self, code: u8, out: &mut Vec<Action>) {
        if let State::Ended = self.state {
            return;
        }
        self.give_up(out);
        // The link was not known yet.
        out.extend(self.resume.take().map(Action::Deconfig));
        self.state = State::Ended;
        out.push(Action::Exit(code));
    }
}

/// RFC 3927 section 2.1: from the MAC, so that a host gets the same address each time.
fn sequence(mac: [u8; 6]) -> Rng {
    let [a, b, c, d, e, f] = mac;
    Rng::seeded(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

fn shown(mac: [u8; 6]) -> String {
    Mac(mac).to_string()
}

#[cfg(test)]
mod tests;

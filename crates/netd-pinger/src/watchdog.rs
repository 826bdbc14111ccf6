//! Whether an uplink is good: rounds of probes, k misses of n, a hold-down, and when to restart its
//! services. PURE.
//!
//! A round asks the router (unicast ARP first, which no firewall blocks, then ICMP echo) and every
//! target behind it. It is good when the router answered and, where there are targets, at least one
//! of them. The verdict goes to fw, which moves metrics; services are restarted only while the
//! router itself is silent, more and more rarely. Without a link or a lease there is nothing to
//! ask: the verdict stays as it was. Called by watch.rs, which sends what is asked for.

use std::time::Duration;

use netd::packet::BROADCAST;
use netd_core::record::{Cause, UplinkState};
use netd_core::rng::Rng;
use netd_core::wire::arp::{Arp, Operation};

use crate::history::{History, Numbers};
use crate::lease::Lease;

/// Between the first and the second restart at least; each further wait is twice as long ...
const RESTART_WAIT: Duration = Duration::from_secs(10);
/// ... up to this.
const RESTART_MAX: Duration = Duration::from_secs(3600);

/// What the options ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// From round to round.
    pub(crate) interval: Duration,
    /// ... after a round that failed, and while the uplink recovers.
    pub(crate) retry: Duration,
    /// How long a round waits for answers.
    pub(crate) timeout: Duration,
    /// So many failed rounds ...
    pub(crate) bad: usize,
    /// ... of so many make the uplink bad.
    pub(crate) of: usize,
    /// How long a bad uplink must be good before it is called so.
    pub(crate) hold_down: Duration,
    /// How long the router must be gone before services are restarted; `None`: they never are.
    pub(crate) restart: Option<Duration>,
    /// Least time between two writes of the status, unless something has changed.
    pub(crate) status: Duration,
    /// Number of targets.
    pub(crate) targets: usize,
}

/// The link, while packets can flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    /// Our Ethernet address; `None`: no ARP on this link.
    pub(crate) mac: Option<[u8; 6]>,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The router of the lease.
    Router,
    /// The target of this place on the command line.
    Target(usize),
}

/// What is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Bad,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The link can carry packets, or cannot.
    Link(Option<Wire>),
    /// The lease as it is now.
    Lease(Option<Lease>),
    /// An ARP message was received.
    Arp(Arp),
    /// Another pace is asked for: the uplink is metered from now on, or no more.
    Pace(Config),
    /// A probe that [`Action::Probe`] asked for was answered.
    Answer { who: Who, round: u32 },
    /// The deadline may have passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send this ARP message to this Ethernet address.
    Arp { message: Arp, to: [u8; 6] },
    /// Ask: the router by ICMP, a target as its name says.
    Probe { who: Who, round: u32 },
    /// Record the verdict and tell fw.
    Publish(Verdict),
    /// TERM to the services of the interface.
    Restart,
    /// Write the status.
    Status,
}

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing yet.
    Unknown,
    Good,
    /// `restart` is when the services are to be restarted: while the router is gone.
    Bad {
        cause: Cause,
        restart: Option<Duration>,
    },
    /// Good again since then, for so many rounds, but not called so yet.
    Recovering {
        cause: Cause,
        since: Duration,
        rounds: usize,
    },
}

/// Where the round stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing can be asked.
    Off,
    /// The next one begins then.
    Waiting { next: Duration },
    /// Asked. `echo`: when the router is asked by ICMP, because it has not answered ARP.
    Asking { round: u32, begun: Duration, echo: Option<Duration>, ends: Duration },
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) state: UplinkState,
    /// Why it is bad.
    pub(crate) cause: Option<Cause>,
    /// Since when.
    pub(crate) since: Duration,
    /// Restarts of the services since the uplink was good.
    pub(crate) restarts: u32,
    pub(crate) lease: Option<Lease>,
    pub(crate) router: Numbers,
    pub(crate) targets: Vec<Numbers>,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Watchdog {
    config: Config,
    rng: Rng,
    wire: Option<Wire>,
    lease: Option<Lease>,
    state: State,
    phase: Phase,
    round: u32,
    /// When the last round began.
    begun: Option<Duration>,
    router: History,
    /// Where it answered ARP last.
    router_mac: Option<[u8; 6]>,
    targets: Vec<History>,
    restarts: u32,
    /// The state's word that was shown last, since when it is so, and when it was written.
    shown: Option<UplinkState>,
    since: Duration,
    written: Option<Duration>,
}

impl Watchdog {
    /// `found`: the verdict that a predecessor has left. It stays until this one knows better.
    pub(crate) fn new(config: Config, rng: Rng, found: Option<Verdict>, now: Duration) -> Watchdog {
        Watchdog {
            config,
            rng,
            wire: None,
            lease: None,
            state: match found {
                Some(Verdict::Bad) => State::Bad { cause: Cause::Found, restart: None },
                Some(Verdict::Good) | None => State::Unknown,
            },
            phase: Phase::Off,
            round: 0,
            begun: None,
            router: History::default(),
            router_mac: None,
            targets: vec![History::default(); config.targets],
            restarts: 0,
            shown: None,
            since: now,
            written: None,
        }
    }

    /// When to call [`Watchdog::step`] with [`Event::Tick`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Off => None,
            Phase::Waiting { next } => Some(next),
            Phase::Asking { echo, ends, .. } => Some(echo.map_or(ends, |at| at.min(ends))),
        };
        phase.into_iter().chain(self.restart_at()).min()
    }

    fn restart_at(&self) -> Option<Duration> {
        match self.state {
            State::Bad { restart, .. } => restart,
            State::Unknown | State::Good | State::Recovering { .. } => None,
        }
    }

    /// Takes in one event; the actions are to be performed in their order.
    pub(crate) fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Link(wire) if wire == self.wire => {}
            Event::Link(wire) => {
                self.wire = wire;
                self.begin_anew(now);
            }
            // A renewal.
            Event::Lease(lease) if lease == self.lease => {}
            Event::Lease(lease) => {
                self.lease = lease;
                self.begin_anew(now);
            }
            Event::Arp(arp) => self.arp(now, arp),
            Event::Pace(config) => self.pace(now, config),
            Event::Answer { who, round } => self.answer(now, who, round),
            Event::Tick => {}
        }
        self.advance(now, &mut out);
        self.show(now, &mut out);
        out
    }

    /// Another link, another lease: what was learned of the last one does not count, the verdict
    /// does.
    fn begin_anew(&mut self, now: Duration) {
        self.router = History::default();
        self.router_mac = None;
        self.targets.fill(History::default());
        self.state = match self.state {
            same @ (State::Unknown | State::Good) => same,
            State::Bad { cause, .. } | State::Recovering { cause, .. } => State::Bad { cause, restart: None },
        };
        let something = self.lease.is_some_and(|l| l.router.is_some() || !self.targets.is_empty());
        self.phase = match self.wire.is_some() && something {
            // A flapping link does not make a storm of probes.
            true => Phase::Waiting { next: self.begun.map_or(now, |at| now.max(at + self.config.retry)) },
            false => Phase::Off,
        };
    }

    /// A round that was planned for later than the new interval comes sooner. What is known stays.
    fn pace(&mut self, now: Duration, config: Config) {
        self.config = config;
        if let Phase::Waiting { next } = self.phase {
            self.phase = Phase::Waiting { next: next.min(now + config.interval) };
        }
    }

    /// Only the router's own answer to us counts: not what it says to others, nor what others say.
    fn arp(&mut self, now: Duration, arp: Arp) {
        let (Some(lease), Some(mac)) = (self.lease, self.wire.and_then(|w| w.mac)) else { return };
        let to_us = arp.operation == Operation::Reply && arp.target_mac == mac && arp.target_ip == lease.ip;
        if !to_us || lease.router != Some(arp.sender_ip) || arp.sender_mac == mac {
            return;
        }
        self.router_mac = Some(arp.sender_mac);
        if let Some(round) = self.router.newest() {
            self.answer(now, Who::Router, round);
        }
    }

    fn answer(&mut self, now: Duration, who: Who, round: u32) {
        match who {
            Who::Router => self.router.answer(round, now),
            Who::Target(n) => self.targets.iter_mut().skip(n).take(1).for_each(|t| t.answer(round, now)),
        }
    }

    /// Whatever is due now.
    fn advance(&mut self, now: Duration, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Off => {}
            Phase::Waiting { next } if now < next => {}
            Phase::Waiting { .. } => self.ask(now, out),
            Phase::Asking { begun, ends, .. } if now >= ends || self.all_answered() => self.conclude(now, begun, out),
            Phase::Asking { round, begun, echo: Some(at), ends } if now >= at => {
                self.phase = Phase::Asking { round, begun, echo: None, ends };
                if !self.router.is_answered() {
                    out.push(Action::Probe { who: Who::Router, round });
                }
            }
            Phase::Asking { .. } => {}
        }
        if let State::Bad { cause, restart: Some(at) } = self.state
            && now >= at
        {
            out.push(Action::Restart);
            self.restarts = self.restarts.saturating_add(1);
            self.state = State::Bad { cause, restart: self.restart_wait().map(|wait| now + wait) };
        }
    }

    fn all_answered(&self) -> bool {
        let router = self.lease.is_none_or(|l| l.router.is_none()) || self.router.is_answered();
        router && self.targets.iter().all(History::is_answered)
    }

    /// A round begins.
    fn ask(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.round = self.round.wrapping_add(1);
        self.begun = Some(now);
        let (round, ends) = (self.round, now + self.config.timeout);
        let mut echo = None;
        if let Some(Lease { ip, router: Some(router) }) = self.lease {
            self.router.ask(round, now);
            match self.wire.and_then(|w| w.mac) {
                Some(mac) => {
                    // RFC 1122 2.3.2.1 (unicast poll): straight to where it was; after a miss, to
                    // the station that has become it.
                    let known = self.router_mac.filter(|_| self.router.hit(0) == Some(true));
                    let message = Arp::request(mac, ip, router);
                    out.push(Action::Arp { message, to: known.unwrap_or(BROADCAST) });
                    echo = Some(now + self.config.timeout / 2);
                }
                None => out.push(Action::Probe { who: Who::Router, round }),
            }
        }
        for (n, target) in self.targets.iter_mut().enumerate() {
            target.ask(round, now);
            out.push(Action::Probe { who: Who::Target(n), round });
        }
        self.phase = Phase::Asking { round, begun: now, echo, ends };
    }

    /// A round ends: the verdict, and when the next one begins.
    fn conclude(&mut self, now: Duration, begun: Duration, out: &mut Vec<Action>) {
        self.router.conclude();
        self.targets.iter_mut().for_each(History::conclude);
        self.judge(now, out);
        let pace = match self.state {
            State::Unknown | State::Good if self.is_good(0) == Some(false) => self.config.retry,
            State::Unknown | State::Good | State::Bad { .. } => self.config.interval,
            State::Recovering { .. } => self.config.retry,
        };
        // Up to a tenth later, so that machines that were started together do not ask together.
        let pace = pace + self.rng.between(Duration::ZERO, pace / 10);
        self.phase = Phase::Waiting { next: (begun + pace).max(now) };
    }

    fn judge(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Config { bad, of, .. } = self.config;
        match self.state {
            State::Unknown if (0..of).any(|back| self.is_good(back) == Some(true)) => self.become_good(out),
            State::Unknown | State::Good if self.misses(of) >= bad => {
                self.stay_bad(now, Cause::Behind, None);
                out.push(Action::Publish(Verdict::Bad));
            }
            State::Unknown | State::Good => {}
            // The last but one: an answer that always comes late.
            State::Bad { cause, .. } if (0..2).any(|back| self.is_good(back) == Some(true)) => {
                self.state = State::Recovering { cause, since: now, rounds: 0 };
                self.recover(now, out);
            }
            State::Bad { cause, restart } => self.stay_bad(now, cause, restart),
            State::Recovering { .. } => self.recover(now, out),
        }
    }

    /// Half as many misses as make it bad end a recovery: good is harder to become than to stay.
    fn recover(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Config { bad, of, hold_down, .. } = self.config;
        let State::Recovering { cause, since, rounds } = self.state else { return };
        let rounds = rounds.saturating_add(1);
        if rounds > 1 && self.misses(rounds.min(of)) >= bad.div_ceil(2) {
            self.stay_bad(now, cause, None);
        } else if now >= since + hold_down {
            self.become_good(out);
        } else {
            self.state = State::Recovering { cause, since, rounds };
        }
    }

    fn become_good(&mut self, out: &mut Vec<Action>) {
        self.state = State::Good;
        self.restarts = 0;
        out.push(Action::Publish(Verdict::Good));
    }

    /// A restart is planned when the router is gone, and only as long as it is: one that answers
    /// now and then, or only ARP, is not helped by a new lease.
    fn stay_bad(&mut self, now: Duration, before: Cause, planned: Option<Duration>) {
        let Config { bad, of, .. } = self.config;
        let cause = match self.router.misses(of) >= bad {
            true => Cause::Router,
            false if self.router.hit(0) == Some(true) => Cause::Behind,
            false => before,
        };
        let gone = (0..bad).all(|back| self.router.hit(back) == Some(false));
        let restart = match gone {
            true => planned.or_else(|| self.restart_wait().map(|wait| now + wait)),
            false => None,
        };
        self.state = State::Bad { cause, restart };
    }

    fn restart_wait(&self) -> Option<Duration> {
        let first = self.config.restart?;
        let factor = 1_u32.checked_shl(self.restarts).unwrap_or(u32::MAX);
        let wait = if self.restarts == 0 { first } else { first.max(RESTART_WAIT).saturating_mul(factor) };
        Some(wait.min(RESTART_MAX.max(first)))
    }

    /// Whether the round `back` rounds ago was good.
    fn is_good(&self, back: usize) -> Option<bool> {
        let router = self.lease.is_some_and(|l| l.router.is_some()).then(|| self.router.hit(back));
        let hits = || self.targets.iter().map(|t| t.hit(back));
        let behind = (!self.targets.is_empty()).then(|| hits().max().flatten());
        match (router, behind) {
            (Some(router), Some(behind)) => Some(router? && behind?),
            (one, other) => one.or(other).flatten(),
        }
    }

    fn misses(&self, within: usize) -> usize {
        (0..within).filter(|back| self.is_good(*back) == Some(false)).count()
    }

    fn word(&self) -> UplinkState {
        match (self.phase, self.state) {
            (Phase::Off, _) => UplinkState::Idle,
            (_, State::Unknown) => UplinkState::Unknown,
            (_, State::Good) => UplinkState::Good,
            (_, State::Bad { .. }) => UplinkState::Bad,
            (_, State::Recovering { .. }) => UplinkState::Recovering,
        }
    }

    /// The status is written when its word changes; the numbers in it now and then, when a round
    /// has ended.
    fn show(&mut self, now: Duration, out: &mut Vec<Action>) {
        let word = Some(self.word());
        let changed = word != self.shown || out.contains(&Action::Restart);
        if changed {
            self.since = if word != self.shown { now } else { self.since };
            self.shown = word;
        }
        let between = matches!(self.phase, Phase::Waiting { .. });
        let old = self.written.is_none_or(|at| now >= at + self.config.status);
        if changed || (between && old) {
            self.written = Some(now);
            out.push(Action::Status);
        }
    }

    /// For the status.
    pub(crate) fn report(&self) -> Report {
        Report {
            state: self.word(),
            cause: match self.state {
                State::Unknown | State::Good => None,
                State::Bad { cause, .. } | State::Recovering { cause, .. } => Some(cause),
            },
            since: self.since,
            restarts: self.restarts,
            lease: self.lease,
            router: self.router.numbers(),
            targets: self.targets.iter().map(History::numbers).collect(),
        }
    }
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

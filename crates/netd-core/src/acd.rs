//! IPv4 address conflict detection, RFC 5227: probe, wait, use, announce, defend.
//!
//! Pure: `step(now, Event) -> Vec<Action>`, `deadline()`. One detector watches one address for as
//! long as it is wanted; its owner (the DHCP client, zcip) sends what it says and drops it with the
//! address. How many probes and how long: [`Timing`].

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::rng::Rng;
use crate::wire::arp::{Arp, Operation};

/// RFC 5227 section 1.1.
pub const PROBE_WAIT: Duration = Duration::from_secs(1);
/// RFC 5227 section 1.1.
pub const PROBE_NUM: u32 = 3;
/// RFC 5227 section 1.1.
pub const PROBE_MIN: Duration = Duration::from_secs(1);
/// RFC 5227 section 1.1.
pub const PROBE_MAX: Duration = Duration::from_secs(2);
/// RFC 5227 section 1.1.
pub const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// RFC 5227 section 1.1.
pub const ANNOUNCE_NUM: u32 = 2;
/// RFC 5227 section 1.1.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
/// RFC 5227 section 1.1.
pub const MAX_CONFLICTS: u32 = 10;
/// RFC 5227 section 1.1.
pub const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);
/// RFC 5227 section 1.1.
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// How thorough, and how fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The first probe goes out after a random time up to this.
    pub probe_wait: Duration,
    /// Number of probes.
    pub probe_num: u32,
    /// Least time between two of them.
    pub probe_min: Duration,
    /// Longest time between two of them.
    pub probe_max: Duration,
    /// From the last probe to the use of the address.
    pub announce_wait: Duration,
    /// Number of announcements.
    pub announce_num: u32,
    /// Between two of them.
    pub announce_interval: Duration,
    /// Whether the address is defended while it is used.
    pub defend: bool,
    /// Whether a probe is spoken against by replies alone. Otherwise any station that uses the
    /// address, or looks for it at the same time, counts.
    pub replies_only: bool,
}

impl Timing {
    /// As the RFC has it: usable after 4 to 7 seconds.
    pub const RFC5227: Timing = Timing {
        probe_wait: PROBE_WAIT,
        probe_num: PROBE_NUM,
        probe_min: PROBE_MIN,
        probe_max: PROBE_MAX,
        announce_wait: ANNOUNCE_WAIT,
        announce_num: ANNOUNCE_NUM,
        announce_interval: ANNOUNCE_INTERVAL,
        defend: true,
        replies_only: false,
    };

    /// Three probes in the quarter of a second in which any station on a wire that works answers: a
    /// compromise between not looking at all and waiting for the slowest.
    pub const FAST: Timing = Timing {
        probe_wait: Duration::ZERO,
        probe_min: Duration::from_millis(70),
        probe_max: Duration::from_millis(80),
        announce_wait: Duration::from_millis(80),
        ..Timing::RFC5227
    };

    /// udhcpc's `-a`: one probe, replies waited for this long, nothing afterwards.
    pub const fn one_probe(wait: Duration) -> Timing {
        Timing {
            probe_wait: Duration::ZERO,
            probe_num: 1,
            announce_wait: wait,
            announce_num: 0,
            defend: false,
            replies_only: true,
            ..Timing::RFC5227
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The deadline may have passed.
    Timer,
    /// This was on the wire.
    Arp(Arp),
    /// Its owner may use the address from now on, if no station speaks against it: see
    /// [`Acd::ahead`].
    Granted,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Broadcast this.
    Send(Arp),
    /// No station spoke against it: the address may be used.
    Usable,
    /// The station with this MAC has it, or is about to take it: it must not be used (any more).
    /// The detector is done.
    Conflict([u8; 6]),
    /// The station with this MAC used it; it was defended, and is still ours.
    Defended([u8; 6]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `sent` probes are out; at `next` the next one goes, or the wait is over.
    Probing { sent: u32, next: Duration },
    /// No station spoke against it, but it is not its owner's yet: nothing is announced.
    Free,
    /// In use; `sent` announcements are out, and at `next` another one is due.
    Announcing { sent: u32, next: Duration },
    /// In use.
    Watching,
    /// Given up.
    Lost,
}

/// The detector.
#[derive(Clone, Debug)]
pub struct Acd {
    mac: [u8; 6],
    ip: Ipv4Addr,
    timing: Timing,
    state: State,
    /// It was granted to its owner.
    granted: bool,
    /// When it was last defended.
    defended: Option<Duration>,
}

impl Acd {
    /// Begins with probes for `ip`; the first one is due at [`Acd::deadline`].
    pub fn probe(now: Duration, mac: [u8; 6], ip: Ipv4Addr, timing: Timing, rng: &mut Rng) -> Acd {
        let next = now + rng.between(Duration::ZERO, timing.probe_wait);
        Acd { mac, ip, timing, state: State::Probing { sent: 0, next }, granted: true, defended: None }
    }

    /// Begins with probes for an address that is not ours yet: it is neither used nor announced
    /// before [`Event::Granted`].
    pub fn ahead(now: Duration, mac: [u8; 6], ip: Ipv4Addr, timing: Timing, rng: &mut Rng) -> Acd {
        Acd { granted: false, ..Acd::probe(now, mac, ip, timing, rng) }
    }

    /// Only watches over `ip`, which is in use already.
    pub fn in_use(mac: [u8; 6], ip: Ipv4Addr, timing: Timing) -> Acd {
        Acd { mac, ip, timing, state: State::Watching, granted: true, defended: None }
    }

    /// The address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The interface has another Ethernet address now.
    pub fn set_mac(&mut self, mac: [u8; 6]) {
        self.mac = mac;
    }

    /// Whether the address may be used.
    pub fn is_usable(&self) -> bool {
        matches!(self.state, State::Announcing { .. } | State::Watching)
    }

    /// Whether its owner has to listen to ARP for it, now or later.
    pub fn listens(&self) -> bool {
        match self.state {
            State::Probing { .. } | State::Free => true,
            State::Announcing { .. } | State::Watching => self.timing.defend,
            State::Lost => false,
        }
    }

    /// When to step with [`Event::Timer`], as time since boot.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Probing { next, .. } | State::Announcing { next, .. } => Some(next),
            State::Free | State::Watching | State::Lost => None,
        }
    }

    /// What happened at `now` -> what to do.
    pub fn step(&mut self, now: Duration, event: Event, rng: &mut Rng) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Arp(arp) => self.heard(now, &arp, &mut out),
            Event::Granted => self.granted = true,
            Event::Timer => {}
        }
        match self.state {
            State::Probing { sent, next } if now >= next => self.probing(now, sent, rng, &mut out),
            State::Free if self.granted => self.begin(now, &mut out),
            State::Announcing { sent, next } if now >= next => self.announcing(now, sent, &mut out),
            State::Probing { .. } | State::Free | State::Announcing { .. } | State::Watching | State::Lost => {}
        }
        out
    }

    fn heard(&mut self, now: Duration, arp: &Arp, out: &mut Vec<Action>) {
        match self.state {
            State::Probing { .. } | State::Free if self.is_taken(arp) => {
                self.state = State::Lost;
                out.push(Action::Conflict(arp.sender_mac));
            }
            State::Announcing { .. } | State::Watching
                if self.timing.defend && arp.conflicts_in_use(self.mac, self.ip) =>
            {
                self.defend(now, arp.sender_mac, out);
            }
            State::Probing { .. } | State::Free | State::Announcing { .. } | State::Watching | State::Lost => {}
        }
    }

    fn is_taken(&self, arp: &Arp) -> bool {
        let counts = arp.operation == Operation::Reply || !self.timing.replies_only;
        counts && arp.conflicts_while_probing(self.mac, self.ip)
    }

    /// RFC 5227 section 2.4 (b): once in DEFEND_INTERVAL; a second conflict within it means that
    /// the other will not give way.
    fn defend(&mut self, now: Duration, by: [u8; 6], out: &mut Vec<Action>) {
        if self.defended.is_some_and(|at| now.saturating_sub(at) < DEFEND_INTERVAL) {
            self.state = State::Lost;
            out.push(Action::Conflict(by));
            return;
        }
        self.defended = Some(now);
        out.extend([Action::Send(Arp::announcement(self.mac, self.ip)), Action::Defended(by)]);
    }

    fn probing(&mut self, now: Duration, sent: u32, rng: &mut Rng, out: &mut Vec<Action>) {
        if sent < self.timing.probe_num {
            out.push(Action::Send(Arp::probe(self.mac, self.ip)));
            let wait = if sent + 1 < self.timing.probe_num {
                rng.between(self.timing.probe_min, self.timing.probe_max)
            } else {
                self.timing.announce_wait
            };
            self.state = State::Probing { sent: sent + 1, next: now + wait };
            return;
        }
        if self.granted { self.begin(now, out) } else { self.state = State::Free }
    }

    fn begin(&mut self, now: Duration, out: &mut Vec<Action>) {
        out.push(Action::Usable);
        self.announcing(now, 0, out);
    }

    fn announcing(&mut self, now: Duration, sent: u32, out: &mut Vec<Action>) {
        if sent < self.timing.announce_num {
            out.push(Action::Send(Arp::announcement(self.mac, self.ip)));
        }
        self.state = if sent + 1 < self.timing.announce_num {
            State::Announcing { sent: sent + 1, next: now + self.timing.announce_interval }
        } else {
            State::Watching
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const IP: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 9);
    const T0: Duration = Duration::from_secs(1000);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Runs undisturbed until nothing is due; what was done, and when.
    fn run(acd: &mut Acd, rng: &mut Rng) -> Vec<(Duration, Action)> {
        let mut done = Vec::new();
        while let Some(at) = acd.deadline() {
            assert!(done.len() < 20, "{done:?}");
            done.extend(acd.step(at, Event::Timer, rng).into_iter().map(|action| (at, action)));
        }
        done
    }

    fn watching(rng: &mut Rng) -> Acd {
        let mut acd = Acd::probe(T0, MAC, IP, Timing::RFC5227, rng);
        run(&mut acd, rng);
        assert!(acd.is_usable());
        acd
    }

    fn used_by(mac: [u8; 6]) -> Event {
        Event::Arp(Arp::announcement(mac, IP))
    }

    #[test]
    fn undisturbed_it_probes_waits_and_announces_in_the_times_of_the_rfc() {
        for seed in 0..200 {
            let mut rng = Rng::seeded(seed);
            let mut acd = Acd::probe(T0, MAC, IP, Timing::RFC5227, &mut rng);
            let done = run(&mut acd, &mut rng);
            let (probe, announcement) = (Action::Send(Arp::probe(MAC, IP)), Action::Send(Arp::announcement(MAC, IP)));
            let what: Vec<Action> = done.iter().map(|(_, action)| *action).collect();
            assert_eq!(what, [probe, probe, probe, Action::Usable, announcement, announcement]);
            let at: Vec<Duration> = done.iter().map(|(at, _)| *at).collect();
            assert!(at[0] - T0 <= PROBE_WAIT);
            assert!(
                (PROBE_MIN..=PROBE_MAX).contains(&(at[1] - at[0]))
                    && (PROBE_MIN..=PROBE_MAX).contains(&(at[2] - at[1]))
            );
            assert_eq!((at[3] - at[2], at[4] - at[3], at[5] - at[4]), (ANNOUNCE_WAIT, secs(0), ANNOUNCE_INTERVAL));
            assert!((secs(4)..=secs(7)).contains(&(at[3] - T0)));
        }
    }

    #[test]
    fn the_fast_way_takes_less_than_300_ms_and_the_one_probe_as_long_as_told() {
        let mut rng = Rng::seeded(1);
        let mut fast = Acd::probe(T0, MAC, IP, Timing::FAST, &mut rng);
        let usable = |done: &[(Duration, Action)]| done.iter().find(|(_, a)| *a == Action::Usable).unwrap().0 - T0;
        let done = run(&mut fast, &mut rng);
        assert!(usable(&done) <= Duration::from_millis(250), "{done:?}");
        let mut one = Acd::probe(T0, MAC, IP, Timing::one_probe(secs(2)), &mut rng);
        let done = run(&mut one, &mut rng);
        assert_eq!(done, [(T0, Action::Send(Arp::probe(MAC, IP))), (T0 + secs(2), Action::Usable)]);
        assert!(!one.listens() && one.step(T0 + secs(3), used_by(OTHER), &mut rng).is_empty());
    }

    #[test]
    fn what_is_not_granted_is_neither_used_nor_announced() {
        let mut rng = Rng::seeded(1);
        let ahead = |rng: &mut Rng| {
            let mut acd = Acd::ahead(T0, MAC, IP, Timing::FAST, rng);
            let probe = Action::Send(Arp::probe(MAC, IP));
            let done: Vec<Action> = run(&mut acd, rng).into_iter().map(|(_, action)| action).collect();
            assert_eq!((done, acd.is_usable(), acd.listens()), (vec![probe; 3], false, true));
            acd
        };
        let mut acd = ahead(&mut rng);
        let begun = [Action::Usable, Action::Send(Arp::announcement(MAC, IP))];
        assert_eq!(acd.step(T0 + secs(2), Event::Granted, &mut rng), begun);
        assert!(acd.is_usable());
        // Another station took it meanwhile.
        let mut acd = ahead(&mut rng);
        assert_eq!(acd.step(T0 + secs(2), used_by(OTHER), &mut rng), [Action::Conflict(OTHER)]);
        assert_eq!(acd.step(T0 + secs(3), Event::Granted, &mut rng), []);
        // Granted in time.
        let mut acd = Acd::ahead(T0, MAC, IP, Timing::FAST, &mut rng);
        acd.step(T0, Event::Granted, &mut rng);
        assert!(run(&mut acd, &mut rng).iter().any(|(_, action)| *action == Action::Usable));
    }

    #[test]
    fn whoever_has_it_or_wants_it_too_keeps_it_from_being_used() {
        let reply = Arp { operation: Operation::Reply, ..Arp::announcement(OTHER, IP) };
        for arp in [reply, Arp::announcement(OTHER, IP), Arp::probe(OTHER, IP)] {
            let mut rng = Rng::seeded(1);
            let mut acd = Acd::probe(T0, MAC, IP, Timing::RFC5227, &mut rng);
            acd.step(T0 + secs(1), Event::Timer, &mut rng);
            assert_eq!(acd.step(T0 + secs(1), Event::Arp(arp), &mut rng), [Action::Conflict(OTHER)]);
            assert_eq!((acd.deadline(), acd.is_usable(), acd.listens()), (None, false, false));
            assert_eq!(acd.step(T0 + secs(9), Event::Timer, &mut rng), []);
        }
    }

    #[test]
    fn with_one_probe_replies_alone_count() {
        let reply = Arp { operation: Operation::Reply, ..Arp::announcement(OTHER, IP) };
        for (arp, conflict) in [(reply, true), (Arp::announcement(OTHER, IP), false), (Arp::probe(OTHER, IP), false)] {
            let mut rng = Rng::seeded(1);
            let mut acd = Acd::probe(T0, MAC, IP, Timing::one_probe(secs(2)), &mut rng);
            acd.step(T0, Event::Timer, &mut rng);
            let done = acd.step(T0 + secs(1), Event::Arp(arp), &mut rng);
            assert_eq!(done.contains(&Action::Conflict(OTHER)), conflict, "{arp:?}");
        }
    }

    #[test]
    fn our_own_words_and_others_questions_are_no_conflict() {
        let mut rng = Rng::seeded(1);
        let mut acd = Acd::probe(T0, MAC, IP, Timing::RFC5227, &mut rng);
        let question = Arp::request(OTHER, Ipv4Addr::new(169, 254, 1, 1), IP);
        for arp in [Arp::probe(MAC, IP), Arp::announcement(MAC, IP), question] {
            assert_eq!(
                acd.step(T0, Event::Arp(arp), &mut rng).iter().filter(|a| matches!(a, Action::Conflict(_))).count(),
                0
            );
        }
        let mut acd = watching(&mut rng);
        for arp in [Arp::probe(OTHER, IP), Arp::announcement(MAC, IP), question] {
            assert_eq!(acd.step(T0 + secs(60), Event::Arp(arp), &mut rng), []);
        }
    }

    #[test]
    fn it_is_defended_once_in_ten_seconds_and_then_given_up() {
        let mut rng = Rng::seeded(1);
        let mut acd = watching(&mut rng);
        let defence = [Action::Send(Arp::announcement(MAC, IP)), Action::Defended(OTHER)];
        assert_eq!(acd.step(T0 + secs(100), used_by(OTHER), &mut rng), defence);
        // Ten seconds later it is a new story.
        assert_eq!(acd.step(T0 + secs(110), used_by(OTHER), &mut rng), defence);
        assert!(acd.is_usable());
        assert_eq!(acd.step(T0 + secs(119), used_by(OTHER), &mut rng), [Action::Conflict(OTHER)]);
        assert!(!acd.is_usable());
    }
}

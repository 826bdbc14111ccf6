//! The DHCP client's machine: RFC 2131 figure 5.
//!
//! Pure: `step(now, Event) -> Vec<Action>`, `deadline()`. No clock, no socket, no options: replies
//! come decoded, and what goes out is a description. What to do with a lease is the handler's.
//! INIT-REBOOT is left in the step that enters it (a REQUEST goes out at once), so the state that
//! waits is `Rebooting`. Driven by daemon.rs and tests/sim.rs.

use std::net::Ipv4Addr;
use std::time::Duration;

use netd_core::acd::{self, Acd};
use netd_core::rng::Rng;

pub use crate::event::{Action, Change, Config, Destination, Event, Grant, Resume, Watch};
use crate::lease::Terms;
use crate::message::{MessageType, Outgoing};
use crate::named::Named;
use crate::schedule;

mod conflict;
mod leave;
mod rebooting;
mod renewal;
mod replies;
mod search;
use leave::Leaving;
use rebooting::Claim;
use search::Late;

/// Requests that a server may leave unanswered.
const MAX_REQUESTS: u32 = 3;
/// Nothing that is asked for from outside, or by a very short lease, makes us send faster than
/// this.
const MIN_SPACING: Duration = Duration::from_secs(1);
/// Least time between two transactions that renew: a lease of 1 s is not worth a storm.
const MIN_RENEWAL: Duration = Duration::from_secs(2);
/// Bytes of a server's own words in our log.
const MAX_WORDS: usize = 200;
/// Silent servers remembered.
const MAX_SILENT: usize = 8;

/// A lease that we hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    ip: Ipv4Addr,
    server_id: Ipv4Addr,
    mac: [u8; 6],
    /// The router and its Ethernet address, where the lease itself tells it: by this the network is
    /// known again.
    router: Option<(Ipv4Addr, [u8; 6])>,
    /// `None`: for ever, and so are T1 and T2.
    times: Option<Times>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    t1: Duration,
    t2: Duration,
    end: Duration,
}

impl Lease {
    fn end(&self) -> Option<Duration> {
        self.times.map(|t| t.end)
    }
}

/// An offer that we may take, and how it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Offer {
    terms: Terms,
    xid: u32,
    secs: u16,
    broadcast: bool,
}

/// One transaction on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exchange {
    xid: u32,
    /// When its first message went out.
    began: Duration,
    /// Messages sent.
    sent: u32,
    /// When to send again, or to give up.
    next: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Waits before it asks a server; `until` is when.
    Init { until: Duration },
    /// Has broadcast DISCOVER. `before`: the one before it, where it had another xid. `second_best`
    /// is from a server that was silent before.
    Selecting { x: Exchange, before: Option<Exchange>, second_best: Option<Offer> },
    /// Has asked for an offer; another server has offered, too.
    Requesting { x: Exchange, offer: Offer, other: Option<Offer> },
    /// Has been given an address, and looks whether another station has it.
    Checking { lease: Lease, grant: Box<Grant> },
    /// Has asked for the address that it had before.
    Rebooting { x: Exchange, lease: Lease, claim: Claim },
    /// Owns an address; asks again at `renew_at`.
    Bound { lease: Lease, renew_at: Option<Duration> },
    /// Asks its server.
    Renewing { lease: Lease, x: Exchange },
    /// Asks every server.
    Rebinding { lease: Lease, x: Exchange },
    /// Has given its address back, and waits for SIGUSR1.
    Released,
}

/// The machine.
#[derive(Debug)]
pub struct Client {
    config: Config,
    rng: Rng,
    state: State,
    /// When this search for a lease began: for `secs`, and for how eager to be.
    search_began: Duration,
    /// When "no lease" is next said (only the adaptive schedule has a clock for it).
    fail_at: Duration,
    /// When the last transaction that renews, or any message, went out.
    last_sent: Option<Duration>,
    restarts: schedule::Restarts,
    /// Servers that offered and then did not answer, in this search.
    silent: Vec<Ipv4Addr>,
    /// The last transaction that was given up: its answer may still come.
    late: Option<Late>,
    /// "broadcasting discover" was said since the last change.
    announced: bool,
    /// Replies that were not taken, since the last change.
    named: Named,
    /// Watches over the address that is asked for, or used.
    acd: Option<Acd>,
    /// Addresses in this search that another station had.
    conflicts: u32,
    /// The router was asked whether it is the one of before.
    asks_router: bool,
    /// The carrier is away: what is sent is lost, even where the driver takes it.
    dead: bool,
    /// The last message could not be sent.
    mute: bool,
    leaving: Leaving,
}

impl Client {
    /// A machine that waits for [`Event::Start`].
    pub fn new(config: Config, rng: Rng) -> Client {
        Client {
            config,
            rng,
            state: State::Released,
            search_began: Duration::ZERO,
            fail_at: Duration::ZERO,
            last_sent: None,
            restarts: schedule::Restarts::default(),
            silent: Vec::new(),
            late: None,
            announced: false,
            named: Named::default(),
            acd: None,
            conflicts: 0,
            asks_router: false,
            dead: false,
            mute: false,
            leaving: Leaving::default(),
        }
    }

    /// When to step with [`Event::Timer`], as time since boot.
    pub fn deadline(&self) -> Option<Duration> {
        if let Some(last) = self.last_moment() {
            return last;
        }
        earliest(self.acd.as_ref().and_then(Acd::deadline), self.protocol_deadline())
    }

    fn protocol_deadline(&self) -> Option<Duration> {
        match &self.state {
            // The detector's deadline is what is waited for.
            State::Checking { lease, .. } => lease.end(),
            State::Init { until } => Some(*until),
            State::Selecting { x, .. } => earliest(Some(x.next), self.failure_due()),
            State::Requesting { x, .. } => Some(x.next),
            State::Rebooting { x, lease, .. } => earliest(Some(x.next), lease.end()),
            State::Bound { lease, renew_at } => earliest(*renew_at, lease.end()),
            State::Renewing { lease, x } => {
                earliest(Some(x.next), lease.times.map(|t| t.t2)).map(|d| earliest(Some(d), lease.end()).unwrap_or(d))
            }
            State::Rebinding { lease, x } => earliest(Some(x.next), lease.end()),
            State::Released => None,
        }
    }

    /// The address that may be used now.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.lease().map(|l| l.ip)
    }

    /// What happened at `now` -> what to do. Time that passed unseen (a suspend) is made up for
    /// first: an expired lease is gone before anything else is looked at.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if self.last_moment().is_some() {
            self.wait_for_the_end(now, &event, &mut out);
            return out;
        }
        if self.lease().and_then(|l| l.end()).is_some_and(|end| end <= now) {
            self.expire(now, &mut out);
        }
        match event {
            Event::Start => self.start(now, &mut out),
            Event::Timer => {}
            Event::Reply(reply, mac) => self.reply(now, *reply, mac, &mut out),
            Event::Refused(why) => self.complain(why, &mut out),
            Event::ScriptEnded if self.mute => self.hurry(now),
            Event::ScriptEnded => {}
            Event::Idle => self.idle(&mut out),
            // What was sent on a dead link was lost: the next message goes out at once.
            Event::Carrier if std::mem::replace(&mut self.dead, false) => self.carrier(now, &mut out),
            Event::Carrier => {}
            Event::CarrierLost => {
                self.dead = true;
                self.carrier_lost(now);
            }
            // The next message need not keep its distance from one that never left.
            Event::Unsent => (self.last_sent, self.mute) = (None, true),
            Event::Arp(arp) => {
                self.router_answers(&arp, &mut out);
                self.watch(now, acd::Event::Arp(arp), &mut out);
            }
            Event::Mac(mac) => self.mac(mac),
            Event::Renew => self.renew_now(now, &mut out),
            Event::Release => self.release(now, &mut out),
            Event::Stop => {
                out.push(Action::Log("received SIGTERM".into()));
                self.finish(now, &mut out);
            }
            Event::Gone => {
                out.push(Action::Log("interface is gone".into()));
                self.finish(now, &mut out);
            }
        }
        // A detector whose address is not wanted any more must not announce it.
        self.forget(&mut out);
        // A failure found here may begin anew at once; nothing sends twice without a wait, so two
        // rounds are enough.
        for _ in 0..2 {
            self.watch(now, acd::Event::Timer, &mut out);
            if self.protocol_deadline().is_some_and(|at| at <= now) {
                self.timer(now, &mut out);
            }
        }
        self.forget(&mut out);
        out
    }

    fn lease(&self) -> Option<&Lease> {
        match &self.state {
            State::Rebooting { lease, claim: Claim::Resumed | Claim::Roamed { .. }, .. }
            | State::Bound { lease, .. }
            | State::Renewing { lease, .. }
            | State::Rebinding { lease, .. } => Some(lease),
            State::Init { .. }
            | State::Rebooting { claim: Claim::Remembered, .. }
            | State::Selecting { .. }
            | State::Requesting { .. }
            | State::Checking { .. }
            | State::Released => None,
        }
    }

    fn exchange(&mut self, now: Duration) -> Exchange {
        Exchange { xid: self.rng.next_u32(), began: now, sent: 0, next: now }
    }

    fn timer(&mut self, now: Duration, out: &mut Vec<Action>) {
        match self.state.clone() {
            State::Init { .. } => {
                let x = self.exchange(now);
                self.select(now, x, out);
            }
            State::Selecting { x, .. } if x.next > now => self.lease_fail(now, out),
            State::Selecting { second_best: Some(offer), .. } => self.request(now, offer, out),
            State::Selecting { x, second_best: None, .. } => self.select(now, x, out),
            State::Requesting { x, offer, other } => self.request_unanswered(now, x, offer, other, out),
            State::Rebooting { x, lease, claim } if x.sent < claim.patience() => {
                self.send_reboot(now, x, lease, claim, out);
            }
            State::Rebooting { x, lease, claim } => self.reboot_failed(now, x, lease, claim, out),
            State::Bound { lease, .. } | State::Renewing { lease, .. } | State::Rebinding { lease, .. } => {
                self.send_renewal(now, lease, out);
            }
            // It has ended before it was known to be free.
            State::Checking { .. } => self.restart(now),
            State::Released => {}
        }
    }

    fn expire(&mut self, now: Duration, out: &mut Vec<Action>) {
        out.push(Action::Log("lease lost, entering init state".into()));
        out.push(Action::Tell(Change::Deconfig));
        self.lost(now);
    }

    /// The address is gone: a new search.
    fn lost(&mut self, now: Duration) {
        self.begin_search(now);
        self.restart(now);
    }

    /// Back to INIT: at once the first time, later and later when it happens again and again.
    fn restart(&mut self, now: Duration) {
        self.announced = false;
        let wait = self.restarts.wait(now);
        self.state = State::Init { until: now + wait };
    }

    /// When the next message may go out.
    fn spaced(&self, now: Duration) -> Duration {
        self.last_sent.map_or(now, |sent| now.max(sent + MIN_SPACING))
    }

    /// Brings the next message forward, but never faster than [`MIN_SPACING`].
    fn hurry(&mut self, now: Duration) {
        let at = self.spaced(now);
        match &mut self.state {
            State::Init { until } => *until = at.min(*until),
            State::Selecting { x, .. } | State::Requesting { x, .. } | State::Rebooting { x, .. } => {
                x.next = at.min(x.next)
            }
            State::Renewing { x, .. } | State::Rebinding { x, .. } => x.next = at.min(x.next),
            State::Checking { .. } | State::Bound { .. } | State::Released => {}
        }
    }

    fn message(&self, kind: MessageType, x: Exchange, now: Duration) -> Outgoing {
        // Renewals count from their own first message, a search from its beginning.
        let since = if self.lease().is_some() { x.began } else { self.search_began };
        Outgoing {
            kind,
            xid: x.xid,
            secs: secs(since, now),
            ciaddr: Ipv4Addr::UNSPECIFIED,
            requested: None,
            server_id: None,
            rapid_commit: false,
            broadcast: false,
        }
    }

    fn send(&mut self, now: Duration, message: Outgoing, to: Destination, out: &mut Vec<Action>) {
        self.last_sent = (!self.dead).then_some(now);
        self.mute = false;
        out.push(Action::Send(message, to));
    }
}

/// As the messages have it.
fn secs(since: Duration, now: Duration) -> u16 {
    u16::try_from(now.saturating_sub(since).as_secs()).unwrap_or(u16::MAX)
}

fn earliest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

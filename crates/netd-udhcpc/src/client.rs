//! The DHCP client's machine: RFC 2131 figure 5.
//!
//! Pure: `step(now, Event) -> Vec<Action>`, `deadline()`. No clock, no socket, no options: replies come decoded, and what
//! goes out is a description. What to do with a lease is the handler's. INIT-REBOOT is left in the step that enters it
//! (a REQUEST goes out at once), so the state that waits is `Rebooting`. Driven by daemon.rs and tests/sim.rs.

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
mod rebooting;
mod replies;
use rebooting::Claim;

/// Requests that a server may leave unanswered.
const MAX_REQUESTS: u32 = 3;
/// Nothing that is asked for from outside, or by a very short lease, makes us send faster than this.
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
    /// The router and its Ethernet address, where the lease itself tells it: by this the network is known again.
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
    /// Waits before it asks anybody; `until` is when.
    Init { until: Duration },
    /// Has broadcast DISCOVER. `second_best` is from a server that was silent before.
    Selecting { x: Exchange, second_best: Option<Offer> },
    /// Has asked for an offer.
    Requesting { x: Exchange, offer: Offer },
    /// Has been given an address, and looks whether somebody else has it.
    Checking { lease: Lease, grant: Box<Grant> },
    /// Has asked for its address of before.
    Rebooting { x: Exchange, lease: Lease, claim: Claim },
    /// Owns an address; asks again at `renew_at`.
    Bound { lease: Lease, renew_at: Option<Duration> },
    /// Asks its server.
    Renewing { lease: Lease, x: Exchange },
    /// Asks every server.
    Rebinding { lease: Lease, x: Exchange },
    /// Has given its address back, and waits to be told.
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
    /// "broadcasting discover" was said since the last change.
    announced: bool,
    /// Replies that were not taken, since the last change.
    named: Named,
    /// Watches over the address that is asked for, or used.
    acd: Option<Acd>,
    /// Addresses in this search that somebody else had.
    conflicts: u32,
    /// The router was asked whether it is the one of before.
    asks_router: bool,
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
            announced: false,
            named: Named::default(),
            acd: None,
            conflicts: 0,
            asks_router: false,
        }
    }

    /// When to step with [`Event::Timer`], as time since boot.
    pub fn deadline(&self) -> Option<Duration> {
        earliest(self.acd.as_ref().and_then(Acd::deadline), self.protocol_deadline())
    }

    fn protocol_deadline(&self) -> Option<Duration> {
        match &self.state {
            // The detector's deadline is what is waited for.
            State::Checking { lease, .. } => lease.end(),
            State::Init { until } => Some(*until),
            State::Selecting { x, .. } | State::Requesting { x, .. } => Some(x.next),
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

    /// What happened at `now` -> what to do. Time that passed unseen (a suspend) is made up for first: an expired lease is
    /// gone before anything else is looked at.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        if self.lease().and_then(|l| l.end()).is_some_and(|end| end <= now) {
            self.expire(now, &mut out);
        }
        match event {
            Event::Start => self.start(now, &mut out),
            Event::Timer => {}
            Event::Reply(reply, mac) => self.reply(now, *reply, mac, &mut out),
            Event::Refused(why) => self.complain(why, &mut out),
            Event::Nudge => self.hurry(now),
            Event::Carrier => self.carrier(now, &mut out),
            Event::CarrierLost => self.carrier_lost(now),
            // The next message need not keep its distance from one that never left.
            Event::Unsent => self.last_sent = None,
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
        // A failure found here may begin anew at once; nothing sends twice without a wait, so two rounds are enough.
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

    /// A search for a lease begins: nobody is silent yet, and patience is fresh.
    fn begin_search(&mut self, now: Duration) {
        self.search_began = now;
        self.fail_at = now + schedule::FIRST_FAILURE;
        self.silent.clear();
        self.announced = false;
        self.named.forget();
        self.conflicts = 0;
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
            State::Selecting { x, second_best: Some(offer) } => self.request(now, x.xid, offer, out),
            State::Selecting { x, second_best: None } => self.select(now, x, out),
            State::Requesting { x, offer } if x.sent < MAX_REQUESTS => self.send_request(now, x, offer, out),
            State::Requesting { offer, .. } => self.request_failed(now, offer, out),
            State::Rebooting { x, lease, claim } if x.sent < claim.patience() => {
                self.send_reboot(now, x, lease, claim, out);
            }
            State::Rebooting { lease, claim, .. } => self.reboot_failed(now, lease, claim, out),
            State::Bound { lease, .. } | State::Renewing { lease, .. } | State::Rebinding { lease, .. } => {
                self.send_renewal(now, lease, out);
            }
            // It has ended before it was known to be free.
            State::Checking { .. } => self.restart(now),
            State::Released => {}
        }
    }

    /// SELECTING, one more DISCOVER; or the end of a cycle without a lease.
    fn select(&mut self, now: Duration, mut x: Exchange, out: &mut Vec<Action>) {
        self.state = State::Selecting { x, second_best: None };
        if self.config.schedule.cycle_over(x.sent, now, self.fail_at) {
            self.lease_fail(now, out);
            if !matches!(self.state, State::Selecting { .. }) {
                return;
            }
            x.xid = self.rng.next_u32();
        }
        let text = "broadcasting discover".to_owned();
        out.push(if self.announced { Action::Debug(text) } else { Action::Log(text) });
        self.announced = true;
        x.sent += 1;
        // RFC 4039: what is acknowledged counts from here, not from the begin of a search of hours.
        x.began = now;
        let waited = now.saturating_sub(self.search_began);
        x.next = now + self.config.schedule.discover_wait(x.sent, waited, &mut self.rng);
        let message = Outgoing {
            requested: self.config.requested,
            rapid_commit: self.config.rapid_commit,
            broadcast: self.config.schedule.wants_broadcast(x.sent),
            ..self.message(MessageType::Discover, x, now)
        };
        self.send(now, message, Destination::Broadcast, out);
        self.state = State::Selecting { x, second_best: None };
    }

    fn lease_fail(&mut self, now: Duration, out: &mut Vec<Action>) {
        out.push(Action::Tell(Change::LeaseFail));
        if self.config.background_on_failure {
            out.push(Action::Log("no lease, forking to background".into()));
            out.push(Action::Background);
            self.config.background_on_failure = false;
            self.config.background_when_bound = false;
            self.config.exit_on_failure = false;
        } else if self.config.exit_on_failure {
            out.push(Action::Log("no lease, failing".into()));
            out.push(Action::Exit(1));
            self.state = State::Released;
            return;
        }
        self.silent.clear();
        self.fail_at = now + schedule::NEXT_FAILURE;
        self.announced = false;
        if let Some(wait) = self.config.schedule.wait_after_failure() {
            self.state = State::Init { until: now + wait };
        }
    }

    fn request(&mut self, now: Duration, xid: u32, offer: Offer, out: &mut Vec<Action>) {
        out.push(Action::Log(format!("broadcasting select for {}, server {}", offer.terms.ip, offer.terms.server_id)));
        self.send_request(now, Exchange { xid, began: now, sent: 0, next: now }, offer, out);
        self.probe(now, offer.terms.ip, out);
    }

    fn send_request(&mut self, now: Duration, mut x: Exchange, offer: Offer, out: &mut Vec<Action>) {
        x.sent += 1;
        x.next = now + self.config.schedule.request_wait(&mut self.rng);
        let message = Outgoing {
            requested: Some(offer.terms.ip),
            server_id: Some(offer.terms.server_id),
            // RFC 2131 section 3.1, 3: as in the DISCOVER, so that relays take the same way.
            secs: offer.secs,
            broadcast: offer.broadcast,
            ..self.message(MessageType::Request, x, now)
        };
        self.send(now, message, Destination::Broadcast, out);
        self.state = State::Requesting { x, offer };
    }

    /// A server that offers and then says nothing must not keep another one from us.
    fn request_failed(&mut self, now: Duration, offer: Offer, out: &mut Vec<Action>) {
        out.push(Action::Log(format!("server {} offered but does not answer", offer.terms.server_id)));
        self.remember_silent(offer.terms.server_id);
        if self.config.schedule.is_fixed() {
            self.lease_fail(now, out);
        } else {
            // At once the first time, so that a silent server that was quicker does not keep the other one from us.
            self.restart(now);
        }
    }

    /// A reply that cannot be taken.
    fn complain(&mut self, text: String, out: &mut Vec<Action>) {
        out.push(self.named.name(text));
    }

    fn remember_silent(&mut self, server_id: Ipv4Addr) {
        if !self.silent.contains(&server_id) {
            if self.silent.len() == MAX_SILENT {
                self.silent.remove(0);
            }
            self.silent.push(server_id);
        }
    }

    /// RENEWING until T2, REBINDING until the end. Each message is a transaction of its own: the lease counts from the one
    /// that is answered, not from one of hours ago.
    fn send_renewal(&mut self, now: Duration, lease: Lease, out: &mut Vec<Action>) {
        let Some(times) = lease.times else {
            // An infinite lease is renewed when somebody asks for it, and never ends.
            self.send_renewing(now, lease, None, out);
            return;
        };
        if now < times.t2 {
            self.send_renewing(now, lease, Some(times.t2), out);
        } else {
            self.send_rebinding(now, lease, times, out);
        }
    }

    fn send_renewing(&mut self, now: Duration, lease: Lease, t2: Option<Duration>, out: &mut Vec<Action>) {
        let before = if let State::Renewing { x, .. } = &self.state { x.sent } else { 0 };
        let mut x = Exchange { sent: before + 1, ..self.exchange(now) };
        let whole = lease.times.map_or(Duration::MAX, |t| t.end.saturating_sub(t.t1) * 2);
        x.next = match t2 {
            Some(t2) => now + schedule::renewal_wait(t2 - now, whole, &mut self.rng),
            None => now + schedule::INFINITE_RETRY,
        };
        out.push(Action::Log(format!("sending renew to server {}", lease.server_id)));
        let message = Outgoing { ciaddr: lease.ip, ..self.message(MessageType::Request, x, now) };
        // Where the kernel knows no way there it asks by ARP for a server that is behind a relay, and does not say so: the next one goes by
        // whoever handed us the lease.
        let routed = x.sent % 2 == 1 || lease.mac == [0; 6];
        let to = Destination::Server { from: lease.ip, to: lease.server_id, mac: lease.mac, routed };
        let to = if lease.server_id.is_unspecified() { Destination::Broadcast } else { to };
        self.send(now, message, to, out);
        self.state = State::Renewing { lease, x };
    }

    fn send_rebinding(&mut self, now: Duration, lease: Lease, times: Times, out: &mut Vec<Action>) {
        let mut x = self.exchange(now);
        let whole = times.end.saturating_sub(times.t1) * 2;
        x.next = now + schedule::renewal_wait(times.end.saturating_sub(now), whole, &mut self.rng);
        out.push(Action::Log("broadcasting renew".into()));
        let message = Outgoing { ciaddr: lease.ip, ..self.message(MessageType::Request, x, now) };
        self.send(now, message, Destination::Broadcast, out);
        self.state = State::Rebinding { lease, x };
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

    fn renew_now(&mut self, now: Duration, out: &mut Vec<Action>) {
        out.push(Action::Log("performing DHCP renew".into()));
        match &mut self.state {
            State::Bound { renew_at, .. } => {
                *renew_at = Some(self.last_sent.map_or(now, |sent| now.max(sent + MIN_SPACING)));
            }
            State::Released => {
                self.begin_search(now);
                self.state = State::Init { until: now };
            }
            State::Init { .. }
            | State::Selecting { .. }
            | State::Requesting { .. }
            | State::Checking { .. }
            | State::Rebooting { .. }
            | State::Renewing { .. }
            | State::Rebinding { .. } => self.hurry(now),
        }
    }

    fn release(&mut self, now: Duration, out: &mut Vec<Action>) {
        out.push(Action::Log("performing DHCP release".into()));
        if let Some(lease) = self.lease().copied() {
            self.send_release(now, lease, out);
        }
        if self.state != State::Released {
            out.push(Action::Log("entering released state".into()));
            out.push(Action::Tell(Change::Deconfig));
            self.state = State::Released;
        }
    }

    fn send_release(&mut self, now: Duration, lease: Lease, out: &mut Vec<Action>) {
        if lease.server_id.is_unspecified() {
            return;
        }
        out.push(Action::Log(format!("unicasting a release of {} to {}", lease.ip, lease.server_id)));
        let x = self.exchange(now);
        let message = Outgoing {
            ciaddr: lease.ip,
            server_id: Some(lease.server_id),
            secs: 0,
            ..self.message(MessageType::Release, x, now)
        };
        let to = Destination::Server { from: lease.ip, to: lease.server_id, mac: lease.mac, routed: true };
        self.send(now, message, to, out);
    }

    fn finish(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.config.release {
            if let Some(lease) = self.lease().copied() {
                self.send_release(now, lease, out);
            }
            out.push(Action::Log("entering released state".into()));
            out.push(Action::Tell(Change::Deconfig));
        }
        out.push(Action::Tell(Change::Stop));
        out.push(Action::Exit(0));
        self.state = State::Released;
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
        self.last_sent = Some(now);
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

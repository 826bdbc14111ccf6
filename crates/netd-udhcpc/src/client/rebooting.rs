//! REBOOTING: an earlier address is asked for again, with one REQUEST (RFC 2131 section 3.2).
//! After a crash, from the state file, and whenever the carrier comes back: a cable may have been
//! plugged in somewhere else.
//!
//! Pure. What an answer does is replies.rs's business; here is what is asked, and what silence
//! means.

use std::time::Duration;

use netd_core::wire::arp::{Arp, Operation};

use super::{Action, Change, Client, Destination, Exchange, Late, Lease, MIN_RENEWAL, State, Times};
use crate::event::Watch;
use crate::message::{MessageType, Outgoing};
use crate::schedule::{self, Restarts};

/// Requests that a server may leave unanswered when another network is more likely than a lost
/// packet: with the waits between them two seconds or so.
const FEW_REQUESTS: u32 = 2;

/// What the address that is asked for is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// In use since before a crash. Silence means nothing: it is ours until its lease ends.
    Resumed,
    /// In use, and the carrier was away. `known`: the same router has answered, so this is the same
    /// network.
    Roamed { known: bool },
    /// From the state file: not in use.
    Remembered,
}

impl Claim {
    /// Requests until silence is an answer.
    pub(super) fn patience(self) -> u32 {
        match self {
            Claim::Resumed => super::MAX_REQUESTS,
            Claim::Roamed { .. } | Claim::Remembered => FEW_REQUESTS,
        }
    }
}

impl Client {
    pub(super) fn start(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.begin_search(now);
        // A crash is not the end of a lease: the address stays, its server is asked to confirm it.
        if let Some(resume) = self.config.resume.take().filter(|r| r.end > now) {
            let left = resume.end - now;
            let times = Times { t1: now + left / 2, t2: now + left * 7 / 8, end: resume.end };
            let (ip, server_id) = (resume.ip, resume.server_id);
            let lease = Lease { ip, server_id, mac: [0; 6], router: None, times: Some(times) };
            let x = self.exchange(now);
            return self.send_reboot(now, x, lease, Claim::Resumed, out);
        }
        out.push(Action::Tell(Change::Deconfig));
        match self.config.remembered.take() {
            Some(ip) => {
                let lease = Lease { ip, server_id: [0; 4].into(), mac: [0; 6], router: None, times: None };
                let x = self.exchange(now);
                self.probe(now, ip, out);
                self.send_reboot(now, x, lease, Claim::Remembered, out);
            }
            None => self.state = State::Init { until: now },
        }
    }

    /// The carrier is back. On the same network the address goes on as if nothing had been; on
    /// another one it must not.
    pub(super) fn carrier(&mut self, now: Duration, out: &mut Vec<Action>) {
        match self.state.clone() {
            State::Bound { lease, .. }
            | State::Renewing { lease, .. }
            | State::Rebinding { lease, .. }
            | State::Rebooting { lease, claim: Claim::Resumed | Claim::Roamed { .. }, .. } => {
                if self.config.anonymous {
                    // RFC 7844 section 3.3: on another network the address, or who its router was,
                    // would tell where we were.
                    out.push(Action::Tell(Change::Deconfig));
                    return self.lost(now);
                }
                if !matches!(self.state, State::Rebooting { .. }) {
                    // A server has confirmed us since: to be carried from network to network is no
                    // storm.
                    self.restarts = Restarts::default();
                }
                let x = Exchange { next: self.spaced(now), ..self.exchange(now) };
                self.state = State::Rebooting { x, lease, claim: Claim::Roamed { known: false } };
                if self.config.acd.is_some_and(|timing| timing.defend) {
                    // RFC 5227 section 2.1: a station that was away probes again.
                    self.probe_again(now, lease.ip, out);
                }
                if let Some((router, mac)) = lease.router {
                    // RFC 4436 section 2.1.1: a question to the one station that only this network
                    // has.
                    out.push(Action::Watch(Watch::Answers { ip: lease.ip, from: router }));
                    self.asks_router = true;
                    let question = Arp::request(self.config.mac, lease.ip, router);
                    out.push(Action::SendArp(Arp { target_mac: mac, ..question }));
                }
            }
            State::Init { .. }
            | State::Selecting { .. }
            | State::Requesting { .. }
            | State::Checking { .. }
            | State::Rebooting { claim: Claim::Remembered, .. }
            | State::Released => {
                // No server was asked while it was away, so none was silent: as eager as at the
                // beginning.
                self.search_began = now;
                self.late = None;
                self.search_anew(now);
                if !self.config.exit_on_failure {
                    self.fail_at = self.fail_at.max(now + schedule::FIRST_FAILURE);
                }
                self.hurry(now);
            }
        }
    }

    /// The carrier is back in the middle of a search. What was offered or granted before may be of
    /// another network, where no server answers a REQUEST for it.
    fn search_anew(&mut self, now: Duration) {
        let until = self.spaced(now);
        match &mut self.state {
            State::Selecting { x, second_best, .. } => {
                *second_best = None;
                if !self.config.schedule.is_fixed() {
                    x.sent = 0;
                }
            }
            State::Requesting { .. } | State::Checking { .. } => self.state = State::Init { until },
            State::Init { .. }
            | State::Rebooting { .. }
            | State::Bound { .. }
            | State::Renewing { .. }
            | State::Rebinding { .. }
            | State::Released => {}
        }
    }

    /// The carrier went again before a server could confirm the address: the address is as good as
    /// it was before. When the carrier is back, it is asked for anew.
    pub(super) fn carrier_lost(&mut self, now: Duration) {
        if let State::Rebooting { lease, claim: Claim::Roamed { .. }, .. } = &self.state {
            // Not at once when T1 is over: there is no link now.
            let renew_at = lease.times.map(|t| t.t1.max(now + MIN_RENEWAL));
            self.state = State::Bound { lease: *lease, renew_at };
        }
    }

    /// RFC 4436 section 2.2: only the router's own words, from the very same card, to us.
    pub(super) fn router_answers(&mut self, arp: &Arp, out: &mut Vec<Action>) {
        if let State::Rebooting { lease, claim: claim @ Claim::Roamed { known: false }, .. } = &mut self.state
            && arp.operation == Operation::Reply
            && lease.router == Some((arp.sender_ip, arp.sender_mac))
            && (arp.target_ip, arp.target_mac) == (lease.ip, self.config.mac)
        {
            out.push(Action::Log(format!("router {} is the one of before", arp.sender_ip)));
            *claim = Claim::Roamed { known: true };
        }
    }

    pub(super) fn send_reboot(
        &mut self,
        now: Duration,
        mut x: Exchange,
        lease: Lease,
        claim: Claim,
        out: &mut Vec<Action>,
    ) {
        if x.sent == 0 {
            out.push(Action::Log(format!("broadcasting select for {}, leased before", lease.ip)));
        }
        x.sent += 1;
        x.next = now + self.config.schedule.reboot_wait(&mut self.rng);
        // Before the message is made: it says since when a lease is held.
        self.state = State::Rebooting { x, lease, claim };
        // RFC 2131 section 4.3.2, INIT-REBOOT: option 50, no 54, ciaddr 0.
        let message = Outgoing { requested: Some(lease.ip), ..self.message(MessageType::Request, x, now) };
        self.send(now, message, Destination::Broadcast, out);
    }

    /// No server has answered.
    pub(super) fn reboot_failed(
        &mut self,
        now: Duration,
        x: Exchange,
        lease: Lease,
        claim: Claim,
        out: &mut Vec<Action>,
    ) {
        let late = Some(Late { x, ip: lease.ip, server_id: None });
        match claim {
            // RFC 2131 section 3.2: without an answer the address may be used until the lease ends.
            Claim::Resumed | Claim::Roamed { known: true } => {
                out.push(Action::Log(format!("no answer: keeping {} until its lease ends", lease.ip)));
                self.state = State::Bound { lease, renew_at: lease.times.map(|t| t.t1) };
            }
            // A server that does not know us keeps silent (section 4.3.2): this may well be another
            // network.
            Claim::Roamed { known: false } => {
                out.push(Action::Log(format!("no answer: {} may be of another network", lease.ip)));
                out.push(Action::Tell(Change::Deconfig));
                self.lost(now);
                self.late = late;
            }
            Claim::Remembered => {
                self.late = late;
                self.config.requested = self.config.requested.or(Some(lease.ip));
                let x = self.exchange(now);
                self.select(now, x, out);
            }
        }
    }
}

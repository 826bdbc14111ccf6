//! INIT, SELECTING, REQUESTING: the search for a lease, what is sent, and what silence means.
//!
//! Pure. What an answer does is replies.rs's business. Patience: a transaction that found no answer
//! makes room for a new one, because another server may be there; its answer still counts when it
//! comes (`Late`).

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Action, Change, Client, Destination, Exchange, MAX_SILENT, Offer, State};
use crate::message::{MessageType, Outgoing};
use crate::schedule;

/// A transaction that was given up. Its acknowledgement counts when it comes, and from when it was
/// asked for: some servers take many seconds (a RADIUS behind them, a database that sleeps).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) x: Exchange,
    /// What was asked for.
    pub(super) ip: Ipv4Addr,
    /// Who was asked; `None`: every server.
    pub(super) server_id: Option<Ipv4Addr>,
}

impl Client {
    /// A search for a lease begins: no server is silent yet, and patience is fresh.
    pub(super) fn begin_search(&mut self, now: Duration) {
        self.search_began = now;
        self.fail_at = now + schedule::FIRST_FAILURE;
        self.silent.clear();
        self.late = None;
        self.announced = false;
        self.named.forget();
        self.conflicts = 0;
    }

    /// When "no lease" is due while servers are asked. With udhcpc's timing that is a matter of how
    /// many messages were sent.
    pub(super) fn failure_due(&self) -> Option<Duration> {
        (!self.config.schedule.is_fixed()).then_some(self.fail_at)
    }

    /// SELECTING, one more DISCOVER; or the end of a cycle without a lease.
    pub(super) fn select(&mut self, now: Duration, mut x: Exchange, out: &mut Vec<Action>) {
        // A server that may answer with a lease (RFC 4039) is told by the xid which DISCOVER the
        // lease counts from.
        let mut before = None;
        if self.config.rapid_commit && x.sent > 0 {
            before = Some(x);
            x.xid = self.rng.next_u32();
        }
        self.state = State::Selecting { x, before, second_best: None };
        if self.config.schedule.cycle_over(x.sent, now, self.fail_at) {
            self.lease_fail(now, out);
            if !matches!(self.state, State::Selecting { .. }) {
                return;
            }
        }
        let text = "broadcasting discover".to_owned();
        out.push(if self.announced { Action::Debug(text) } else { Action::Log(text) });
        self.announced = true;
        x.sent += 1;
        x.began = now;
        x.next = now + self.config.schedule.discover_wait(x.sent, &mut self.rng);
        let message = Outgoing {
            requested: self.config.requested,
            rapid_commit: self.config.rapid_commit,
            broadcast: self.config.schedule.wants_broadcast(x.sent),
            ..self.message(MessageType::Discover, x, now)
        };
        self.send(now, message, Destination::Broadcast, out);
        self.state = State::Selecting { x, before, second_best: None };
    }

    pub(super) fn lease_fail(&mut self, now: Duration, out: &mut Vec<Action>) {
        out.push(Action::Tell(Change::LeaseFail));
        if self.config.background_on_failure {
            out.push(Action::Log("no lease, forking to background".into()));
            self.leave_for_background(None);
            self.config.background_on_failure = false;
            self.config.background_when_bound = false;
            self.config.exit_on_failure = false;
        } else if self.config.exit_on_failure {
            out.push(Action::Log("no lease, failing".into()));
            return self.end(1);
        }
        self.fail_at = now + schedule::NEXT_FAILURE;
        self.announced = false;
        if let Some(wait) = self.config.schedule.wait_after_failure() {
            // As udhcpc, which takes the first offer of each cycle.
            self.silent.clear();
            self.state = State::Init { until: now + wait };
        }
    }

    pub(super) fn request(&mut self, now: Duration, offer: Offer, out: &mut Vec<Action>) {
        out.push(Action::Log(format!("broadcasting select for {}, server {}", offer.terms.ip, offer.terms.server_id)));
        // RFC 2131 section 3.1, 3: the others see that their offers are not taken.
        self.late = self.late.filter(|late| late.server_id.is_none_or(|id| id == offer.terms.server_id));
        let x = Exchange { xid: offer.xid, began: now, sent: 0, next: now };
        self.send_request(now, x, offer, None, out);
        self.probe(now, offer.terms.ip, out);
    }

    pub(super) fn send_request(
        &mut self,
        now: Duration,
        mut x: Exchange,
        offer: Offer,
        other: Option<Offer>,
        out: &mut Vec<Action>,
    ) {
        x.sent += 1;
        x.next = now + self.config.schedule.request_wait(x.sent, &mut self.rng);
        let message = Outgoing {
            requested: Some(offer.terms.ip),
            server_id: Some(offer.terms.server_id),
            // RFC 2131 section 3.1, 3: as in the DISCOVER, so that relays take the same way.
            secs: offer.secs,
            broadcast: offer.broadcast,
            ..self.message(MessageType::Request, x, now)
        };
        self.send(now, message, Destination::Broadcast, out);
        self.state = State::Requesting { x, offer, other };
    }

    /// REQUESTING: the server has not answered yet. A server that offers and then says nothing must
    /// not keep another one from us: where another one has offered it is asked at once, else the
    /// same one again, and then all of them.
    pub(super) fn request_unanswered(
        &mut self,
        now: Duration,
        x: Exchange,
        offer: Offer,
        other: Option<Offer>,
        out: &mut Vec<Action>,
    ) {
        let last = self.config.schedule.is_fixed() || other.is_none();
        if last && x.sent < super::MAX_REQUESTS {
            return self.send_request(now, x, offer, other, out);
        }
        out.push(Action::Log(format!("server {} offered but does not answer", offer.terms.server_id)));
        self.remember_silent(offer.terms.server_id);
        self.late = Some(Late { x, ip: offer.terms.ip, server_id: Some(offer.terms.server_id) });
        if self.config.schedule.is_fixed() {
            self.lease_fail(now, out);
        } else if let Some(other) = other {
            self.request(now, other, out);
        } else {
            self.restart(now);
        }
    }

    /// A reply that cannot be taken.
    pub(super) fn complain(&mut self, text: String, out: &mut Vec<Action>) {
        out.push(self.named.name(text));
    }

    pub(super) fn remember_silent(&mut self, server_id: Ipv4Addr) {
        if !self.silent.contains(&server_id) {
            if self.silent.len() == MAX_SILENT {
                self.silent.remove(0);
            }
            self.silent.push(server_id);
        }
    }
}

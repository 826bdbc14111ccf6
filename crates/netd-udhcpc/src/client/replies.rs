//! What each reply does in each state: RFC 2131 figure 5, the edges that a server's message takes.
//!
//! Pure. Whether a reply can be true is lease.rs's business; whether the address is free,
//! conflict.rs's.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{
    Action, Change, Claim, Client, Exchange, Grant, Lease, MAX_SILENT, MAX_WORDS, MIN_RENEWAL, Offer, State, Times,
    secs,
};
use crate::lease::Terms;
use crate::message::{MessageType, Reply};
use crate::options::{IPV6_ONLY_PREFERRED, MESSAGE, RAPID_COMMIT, SERVER_ID};
use crate::schedule::SECOND_BEST;

/// RFC 8925 section 3.4.
const MIN_V6ONLY_WAIT: Duration = Duration::from_secs(300);
/// No station on a link can turn IPv4 off for longer.
const MAX_V6ONLY_WAIT: Duration = Duration::from_secs(86_400);

impl Client {
    pub(super) fn reply(&mut self, now: Duration, reply: Reply, mac: [u8; 6], out: &mut Vec<Action>) {
        let kind = reply.kind;
        match (self.state.clone(), kind) {
            (State::Selecting { before: Some(before), .. }, MessageType::Offer | MessageType::Ack)
                if before.xid == reply.xid =>
            {
                self.selecting(now, before, reply, mac, out);
            }
            (State::Selecting { x, .. }, MessageType::Offer | MessageType::Ack) if x.xid == reply.xid => {
                self.selecting(now, x, reply, mac, out);
            }
            (State::Requesting { x, offer, other: None }, MessageType::Offer) if x.xid == reply.xid => {
                self.other_offer(now, x, offer, &reply);
            }
            (State::Requesting { x, offer, .. }, MessageType::Ack) if x.xid == reply.xid => {
                self.first_ack(now, x, &offer.terms, reply, mac, out);
            }
            (State::Requesting { x, offer, .. }, MessageType::Nak) if x.xid == reply.xid => {
                if said_by(&reply, offer.terms.server_id) {
                    self.nak(now, reply, false, out);
                    // The first refusal is honest (an address was given away); one that goes on is
                    // as good as silence.
                    if self.deadline() > Some(now) {
                        self.remember_silent(offer.terms.server_id);
                    }
                } else {
                    self.not_asked(&reply, out);
                }
            }
            (State::Rebooting { x, lease, .. }, MessageType::Ack) if x.xid == reply.xid => {
                self.second_ack(now, x, lease, reply, mac, out);
            }
            (State::Renewing { lease, x } | State::Rebinding { lease, x }, MessageType::Ack) if x.xid == reply.xid => {
                self.second_ack(now, x, lease, reply, mac, out);
            }
            (State::Renewing { lease, x }, MessageType::Nak) if x.xid == reply.xid => {
                if said_by(&reply, lease.server_id) {
                    self.nak(now, reply, true, out);
                } else {
                    self.not_asked(&reply, out);
                }
            }
            // Every server was asked, so each may say no; but it has to say who it is (RFC 2131
            // table 3).
            (State::Rebooting { x, .. } | State::Rebinding { x, .. }, MessageType::Nak) if x.xid == reply.xid => {
                if reply.ip(SERVER_ID).is_some() {
                    self.nak(now, reply, self.lease().is_some(), out);
                } else {
                    self.complain("ignoring nak from nobody".into(), out);
                }
            }
            (_, MessageType::Ack) if self.late.is_some_and(|late| late.x.xid == reply.xid) => {
                self.late_ack(now, reply, mac, out);
            }
            // Repeated, or not asked for.
            (
                State::Init { .. }
                | State::Selecting { .. }
                | State::Requesting { .. }
                | State::Checking { .. }
                | State::Rebooting { .. }
                | State::Bound { .. }
                | State::Renewing { .. }
                | State::Rebinding { .. }
                | State::Released,
                _,
            ) => out.push(Action::Debug(format!("ignoring {kind:?}"))),
        }
    }

    /// SELECTING: the answer to `asked`, which is the last DISCOVER or the one before it.
    fn selecting(&mut self, now: Duration, asked: Exchange, reply: Reply, mac: [u8; 6], out: &mut Vec<Action>) {
        if reply.kind == MessageType::Offer {
            self.offer(now, asked, &reply, out);
        } else if self.config.rapid_commit && reply.option(RAPID_COMMIT).is_some() {
            self.rapid_ack(now, asked, reply, mac, out);
        } else {
            out.push(Action::Debug("ignoring Ack".into()));
        }
    }

    /// The first offer that can be true wins, unless its server was silent before: then it is kept
    /// for a moment.
    fn offer(&mut self, now: Duration, asked: Exchange, reply: &Reply, out: &mut Vec<Action>) {
        if let Some(secs) = reply.number(IPV6_ONLY_PREFERRED).filter(|_| self.config.ipv6_only) {
            return self.leave_to_ipv6(now, secs, out);
        }
        match Terms::judge(reply).map(|terms| self.as_asked(asked, terms)) {
            Ok(offer) if self.silent.contains(&offer.terms.server_id) || offer.terms.server_id.is_unspecified() => {
                // The server answers but never confirms, or does not say who it is.
                if let State::Selecting { x, second_best, .. } = &mut self.state {
                    x.next = x.next.min(now + SECOND_BEST);
                    *second_best = Some(offer);
                }
            }
            Ok(offer) => self.request(now, offer, out),
            Err(refusal) => self.complain(format!("ignoring offer of {}: {refusal}", reply.yiaddr), out),
        }
    }

    fn as_asked(&self, asked: Exchange, terms: Terms) -> Offer {
        let broadcast = self.config.schedule.wants_broadcast(asked.sent);
        Offer { terms, xid: asked.xid, secs: secs(self.search_began, asked.began), broadcast }
    }

    /// REQUESTING: another server's offer is kept for the case that the one that was asked does not
    /// answer.
    fn other_offer(&mut self, now: Duration, mut x: Exchange, offer: Offer, reply: &Reply) {
        let other = Terms::judge(reply).ok().map(|terms| Offer { terms, ..offer });
        let other = other.filter(|other| {
            let id = other.terms.server_id;
            // A station may offer under ever new names: at last all servers are asked again.
            let room = self.silent.len() < MAX_SILENT;
            room && !id.is_unspecified() && id != offer.terms.server_id && !self.silent.contains(&id)
        });
        if other.is_some() && !self.config.schedule.is_fixed() {
            x.next = x.next.min(x.began + SECOND_BEST).max(now);
        }
        self.state = State::Requesting { x, offer, other };
    }

    /// SELECTING, REBOOTING, RFC 8925 section 3.2: no address is used, and the next search begins
    /// after the wait or with the carrier.
    fn leave_to_ipv6(&mut self, now: Duration, secs: u32, out: &mut Vec<Action>) {
        let wait = Duration::from_secs(secs.into()).clamp(MIN_V6ONLY_WAIT, MAX_V6ONLY_WAIT);
        out.push(Action::Log(format!("IPv6 is enough here: no lease, asking again in {} s", wait.as_secs())));
        self.lease_fail(now, out);
        if self.state != State::Released {
            self.begin_search(now + wait);
            self.state = State::Init { until: now + wait };
        }
    }

    /// SELECTING, RFC 4039 section 3.1: an acknowledgement in place of an offer. Its server must
    /// say who it is: it is asked again at T1.
    fn rapid_ack(&mut self, now: Duration, x: Exchange, reply: Reply, mac: [u8; 6], out: &mut Vec<Action>) {
        match Terms::judge(&reply) {
            Ok(terms) if terms.server_id.is_unspecified() => {
                self.complain(format!("ignoring ack of {} from nobody", terms.ip), out);
            }
            Ok(_) if self.config.ipv6_only && reply.number(IPV6_ONLY_PREFERRED).is_some() => {
                // Not ours to keep: a server that knows both gives no address here (RFC 8925
                // section 3.3).
                self.complain(format!("ignoring ack of {}: IPv6 is enough here", reply.yiaddr), out);
            }
            Ok(terms) => self.bind(now, x.began, terms, reply, mac, false, out),
            Err(refusal) => self.complain(format!("ignoring ack of {}: {refusal}", reply.yiaddr), out),
        }
    }

    /// REQUESTING: the acknowledgement must be of what was offered, by who offered it.
    fn first_ack(
        &mut self,
        now: Duration,
        x: Exchange,
        asked: &Terms,
        reply: Reply,
        mac: [u8; 6],
        out: &mut Vec<Action>,
    ) {
        match Terms::judge(&reply).map(|terms| terms.by(asked.server_id)) {
            Ok(terms) if terms.server_id != asked.server_id => {
                self.complain(format!("ignoring ack from {}, not asked", terms.server_id), out);
            }
            Ok(terms) if terms.ip == asked.ip => self.bind(now, x.began, terms, reply, mac, false, out),
            Ok(_) | Err(_) => {
                out.push(Action::Log(format!("ack of {} is not what was offered", reply.yiaddr)));
                self.remember_silent(asked.server_id);
                self.restart(now);
            }
        }
    }

    /// The acknowledgement of a transaction that was given up.
    fn late_ack(&mut self, now: Duration, reply: Reply, mac: [u8; 6], out: &mut Vec<Action>) {
        let Some(late) = self.late else { return };
        let terms = Terms::judge(&reply).map(|terms| late.server_id.map_or(terms, |id| terms.by(id)));
        let terms = match terms {
            Ok(terms) if terms.ip == late.ip && late.server_id.is_none_or(|id| id == terms.server_id) => terms,
            Ok(terms) => return self.complain(format!("ignoring ack of {}: too late", terms.ip), out),
            Err(refusal) => return self.complain(format!("ignoring ack of {}: {refusal}", reply.yiaddr), out),
        };
        // As in `second_ack`: only a REQUEST for an earlier address was to every server.
        let enough = reply.number(IPV6_ONLY_PREFERRED).filter(|_| self.config.ipv6_only && late.server_id.is_none());
        match &self.state {
            State::Init { .. } | State::Selecting { .. } | State::Requesting { .. } => {
                if let Some(secs) = enough {
                    return self.leave_to_ipv6(now, secs, out);
                }
                self.bind(now, late.x.began, terms, reply, mac, false, out);
            }
            State::Bound { lease, .. } | State::Renewing { lease, .. } | State::Rebinding { lease, .. }
                if lease.ip == terms.ip =>
            {
                self.bind(now, late.x.began, terms, reply, mac, true, out);
            }
            State::Bound { .. }
            | State::Renewing { .. }
            | State::Rebinding { .. }
            | State::Checking { .. }
            | State::Rebooting { .. }
            | State::Released => out.push(Action::Debug("ignoring Ack".into())),
        }
    }

    /// REBOOTING, RENEWING, REBINDING: the acknowledgement must be of the address that is ours.
    fn second_ack(
        &mut self,
        now: Duration,
        x: Exchange,
        lease: Lease,
        reply: Reply,
        mac: [u8; 6],
        out: &mut Vec<Action>,
    ) {
        let renewing = matches!(self.state, State::Renewing { .. });
        if let State::Rebooting { .. } = self.state
            && let Some(secs) = reply.number(IPV6_ONLY_PREFERRED).filter(|_| self.config.ipv6_only)
        {
            if self.lease().is_some() {
                out.push(Action::Tell(Change::Deconfig));
            }
            return self.leave_to_ipv6(now, secs, out);
        }
        // After a crash the handler knows nothing of the lease; otherwise it has it already, or
        // never had it.
        let renew = !matches!(self.state, State::Rebooting { claim: Claim::Resumed | Claim::Remembered, .. });
        match Terms::judge(&reply).map(|terms| if renewing { terms.by(lease.server_id) } else { terms }) {
            Ok(terms) if renewing && terms.server_id != lease.server_id => {
                self.complain(format!("ignoring ack from {}, not asked", terms.server_id), out);
            }
            Ok(terms) if terms.ip == lease.ip => self.bind(now, x.began, terms, reply, mac, renew, out),
            Ok(terms) => {
                out.push(Action::Log(format!("ack is of {}, not of {}", terms.ip, lease.ip)));
                if self.lease().is_some() {
                    out.push(Action::Tell(Change::Deconfig));
                }
                self.lost(now);
            }
            Err(refusal) => self.complain(format!("ignoring ack of {}: {refusal}", reply.yiaddr), out),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all of a lease comes together here, from two callers")]
    fn bind(
        &mut self,
        now: Duration,
        asked_at: Duration,
        terms: Terms,
        reply: Reply,
        mac: [u8; 6],
        renew: bool,
        out: &mut Vec<Action>,
    ) {
        // RFC 2131 section 4.4.1: the lease counts from when the request was sent.
        let times = terms.t1_t2().zip(terms.duration()).map(|((t1, t2), lease)| Times {
            t1: asked_at + t1,
            t2: asked_at + t2,
            end: asked_at + lease,
        });
        if times.is_some_and(|t| t.end <= now) {
            return self.complain(format!("ignoring ack of {}: the lease has ended", terms.ip), out);
        }
        let router = reply.router().filter(|router| [terms.server_id, reply.giaddr].contains(router));
        // A link without Ethernet addresses has none to know it by.
        let router = router.map(|router| (router, mac)).filter(|(_, mac)| *mac != [0; 6]);
        let lease = Lease { ip: terms.ip, server_id: terms.server_id, mac, router, times };
        let assumed = if terms.assumed { " (default)" } else { "" };
        out.push(Action::Log(format!(
            "lease of {} obtained from {}, lease time {}{assumed}",
            terms.ip, terms.server_id, terms.lease_secs
        )));
        let end = asked_at + Duration::from_secs(terms.lease_secs.into());
        let grant = Box::new(Grant { ip: terms.ip, server_id: terms.server_id, end, reply });
        match self.state {
            State::Init { .. }
            | State::Selecting { .. }
            | State::Requesting { .. }
            | State::Rebooting { claim: Claim::Remembered, .. } => self.check(now, lease, grant, out),
            State::Checking { .. }
            | State::Rebooting { claim: Claim::Resumed | Claim::Roamed { .. }, .. }
            | State::Bound { .. }
            | State::Renewing { .. }
            | State::Rebinding { .. }
            | State::Released => {
                self.guard(lease.ip, out);
                self.take_lease(now, lease, grant, renew, out);
            }
        }
    }

    /// The address may be used.
    pub(super) fn take_lease(
        &mut self,
        now: Duration,
        lease: Lease,
        grant: Box<Grant>,
        renew: bool,
        out: &mut Vec<Action>,
    ) {
        let to_background = self.config.background_when_bound && !self.config.quit;
        let again = (to_background && self.config.native).then(|| grant.clone());
        out.push(Action::Tell(if renew { Change::Renew(grant) } else { Change::Bound(grant) }));
        let renew_at = lease.times.map(|t| {
            // A little early, so that a floor of machines that booted together does not ask
            // together.
            let early = self.rng.between(Duration::ZERO, t.t1.saturating_sub(now) / 32);
            (t.t1 - early).max(now + MIN_RENEWAL)
        });
        self.state = State::Bound { lease, renew_at };
        if !self.config.anonymous {
            // When it is lost, a server that has forgotten it may still give it to us (RFC 2131
            // section 4.4.1).
            self.config.requested = Some(lease.ip);
        }
        self.silent.clear();
        self.named.forget();
        self.late = None;
        self.conflicts = 0;
        self.config.exit_on_failure = false;
        if self.config.quit {
            if self.config.release {
                out.push(Action::Log("entering released state".into()));
                out.push(Action::Tell(Change::Deconfig));
            }
            self.end(0);
        } else if to_background {
            self.config.background_when_bound = false;
            self.config.background_on_failure = false;
            self.leave_for_background(again);
        }
    }

    /// A refusal by another server than the one that was asked.
    fn not_asked(&mut self, reply: &Reply, out: &mut Vec<Action>) {
        let from = reply.ip(SERVER_ID).map_or_else(|| "nobody".to_owned(), |ip| ip.to_string());
        self.complain(format!("ignoring nak from {from}, not asked"), out);
    }

    fn nak(&mut self, now: Duration, reply: Reply, had_address: bool, out: &mut Vec<Action>) {
        let words = reply.option(MESSAGE).and_then(|m| m.chunks(MAX_WORDS).next());
        let words = words.map(|m| format!(": {}", m.escape_ascii())).unwrap_or_default();
        out.push(Action::Log(format!("received DHCP NAK{words}")));
        out.push(Action::Tell(Change::Nak(Box::new(reply))));
        self.config.requested = None;
        self.late = None;
        if had_address {
            out.push(Action::Tell(Change::Deconfig));
            self.lost(now);
        } else {
            self.restart(now);
        }
    }
}

/// Whether a refusal names this server; one without a name counts for a server without a name.
fn said_by(reply: &Reply, server_id: Ipv4Addr) -> bool {
    reply.ip(SERVER_ID).unwrap_or(Ipv4Addr::UNSPECIFIED) == server_id
}

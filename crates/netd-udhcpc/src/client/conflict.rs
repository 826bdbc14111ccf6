//! The client's part of conflict detection: when its address is probed for, and what a conflict
//! costs.
//!
//! Pure. The detector itself is netd_core::acd. It begins with the REQUEST, beside the protocol:
//! what the ACK has to wait for is only the rest of the probes (RFC 2131 section 4.4.1: the client
//! should check before it uses the address).

use std::net::Ipv4Addr;
use std::time::Duration;

use netd_core::acd::{self, Acd, MAX_CONFLICTS, RATE_LIMIT_INTERVAL};
use netd_core::net::Mac;

use super::{Action, Change, Claim, Client, Destination, Grant, Lease, State};
use crate::event::Watch;
use crate::message::{MessageType, Outgoing};

impl Client {
    /// Begins to look whether another station has `ip`, if that is asked for. Nothing is announced
    /// before a server has granted it.
    pub(super) fn probe(&mut self, now: Duration, ip: Ipv4Addr, out: &mut Vec<Action>) {
        let Some(timing) = self.config.acd else { return };
        self.acd = Some(Acd::ahead(now, self.config.mac, ip, timing, &mut self.rng));
        out.push(Action::Watch(Watch::Address(ip)));
    }

    /// The same for an address that is in use.
    pub(super) fn probe_again(&mut self, now: Duration, ip: Ipv4Addr, out: &mut Vec<Action>) {
        let Some(timing) = self.config.acd else { return };
        self.acd = Some(Acd::probe(now, self.config.mac, ip, timing, &mut self.rng));
        out.push(Action::Watch(Watch::Address(ip)));
    }

    /// Watches over an address that is in use already: it was ours before a crash.
    pub(super) fn guard(&mut self, ip: Ipv4Addr, out: &mut Vec<Action>) {
        if let Some(timing) = self.config.acd.filter(|timing| timing.defend && self.acd.is_none()) {
            self.acd = Some(Acd::in_use(self.config.mac, ip, timing));
            out.push(Action::Watch(Watch::Address(ip)));
        }
    }

    /// An acknowledged address: used at once, or when it is known to be free.
    pub(super) fn check(&mut self, now: Duration, lease: Lease, grant: Box<Grant>, out: &mut Vec<Action>) {
        if self.acd.as_ref().is_none_or(|acd| acd.ip() != lease.ip) {
            // It was not asked for with a REQUEST, or long ago.
            self.probe(now, lease.ip, out);
        }
        match &self.acd {
            None => self.take_lease(now, lease, grant, false, out),
            // A conflict was seen before the ACK came.
            Some(acd) if !acd.listens() => self.decline(now, lease, out),
            Some(_) => {
                self.state = State::Checking { lease, grant };
                self.watch(now, acd::Event::Granted, out);
            }
        }
    }

    /// Another Ethernet address: what was said under the old one counts no more.
    pub(super) fn mac(&mut self, mac: [u8; 6]) {
        self.config.mac = mac;
        self.late = None;
        if let Some(acd) = &mut self.acd {
            acd.set_mac(mac);
        }
    }

    /// The detector's turn.
    pub(super) fn watch(&mut self, now: Duration, event: acd::Event, out: &mut Vec<Action>) {
        let Some(acd) = &mut self.acd else { return };
        for action in acd.step(now, event, &mut self.rng) {
            match action {
                acd::Action::Send(arp) => out.push(Action::SendArp(arp)),
                acd::Action::Usable => self.found_free(now, out),
                acd::Action::Conflict(mac) => self.found_taken(now, mac, out),
                acd::Action::Defended(mac) => {
                    out.push(Action::Log(format!("{} used our address: defended", shown(mac))));
                }
            }
        }
    }

    fn found_free(&mut self, now: Duration, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Released) {
            // A suspend: it has ended before it was known to be free.
            State::Checking { lease, .. } if lease.end().is_some_and(|end| end <= now) => self.restart(now),
            State::Checking { lease, grant } => self.take_lease(now, lease, grant, false, out),
            // The ACK is still to come.
            other => self.state = other,
        }
    }

    fn found_taken(&mut self, now: Duration, mac: [u8; 6], out: &mut Vec<Action>) {
        match self.state.clone() {
            State::Checking { lease, .. } => {
                out.push(Action::Log(format!(
                    "offered address is in use (got ARP reply from {}), declining",
                    shown(mac)
                )));
                self.decline(now, lease, out);
            }
            State::Bound { lease, .. }
            | State::Renewing { lease, .. }
            | State::Rebinding { lease, .. }
            | State::Rebooting { lease, claim: Claim::Resumed | Claim::Roamed { .. }, .. } => {
                out.push(Action::Log(format!("{} uses our address and will not give way, declining", shown(mac))));
                out.push(Action::Tell(Change::Deconfig));
                self.begin_search(now);
                self.decline(now, lease, out);
            }
            // Declined when the ACK has come: until then it is not ours to decline.
            State::Requesting { .. } | State::Rebooting { claim: Claim::Remembered, .. } => {
                out.push(Action::Log(format!("offered address is in use (got ARP reply from {})", shown(mac))));
            }
            State::Init { .. } | State::Selecting { .. } | State::Released => {}
        }
    }

    /// RFC 2131 section 3.1, 5: the server shall not give it to any client.
    fn decline(&mut self, now: Duration, lease: Lease, out: &mut Vec<Action>) {
        let x = self.exchange(now);
        let message = Outgoing {
            requested: Some(lease.ip),
            server_id: Some(lease.server_id).filter(|id| !id.is_unspecified()),
            secs: 0,
            ..self.message(MessageType::Decline, x, now)
        };
        self.send(now, message, Destination::Broadcast, out);
        self.config.requested = None;
        self.late = None;
        self.conflicts += 1;
        match self.config.schedule.wait_after_failure() {
            // As udhcpc does.
            Some(wait) => self.state = State::Init { until: now + wait },
            None if self.conflicts >= MAX_CONFLICTS => self.state = State::Init { until: now + RATE_LIMIT_INTERVAL },
            None => self.restart(now),
        }
    }

    /// The detector goes with its address.
    pub(super) fn forget(&mut self, out: &mut Vec<Action>) {
        let wanted = match &self.state {
            State::Requesting { offer, .. } => Some(offer.terms.ip),
            State::Checking { lease, .. }
            | State::Rebooting { lease, .. }
            | State::Bound { lease, .. }
            | State::Renewing { lease, .. }
            | State::Rebinding { lease, .. } => Some(lease.ip),
            State::Init { .. } | State::Selecting { .. } | State::Released => None,
        };
        // A conflict is remembered until the ACK.
        let checking = matches!(
            self.state,
            State::Requesting { .. } | State::Checking { .. } | State::Rebooting { claim: Claim::Remembered, .. }
        );
        let keep = |acd: &mut Acd| Some(acd.ip()) == wanted && (checking || acd.listens());
        let gone = self.acd.take_if(|acd| !keep(acd)).is_some();
        let asks =
            self.asks_router && matches!(self.state, State::Rebooting { claim: Claim::Roamed { known: false }, .. });
        if gone || asks != self.asks_router {
            self.asks_router = asks;
            out.push(Action::Watch(self.acd.as_ref().map_or(Watch::Nothing, |acd| Watch::Address(acd.ip()))));
        }
    }
}

fn shown(mac: [u8; 6]) -> String {
    Mac(mac).to_string()
}

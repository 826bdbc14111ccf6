//! BOUND, RENEWING, REBINDING, RELEASED: how a lease is kept, and given back.
//!
//! Pure. What an answer does is replies.rs's business.

use std::time::Duration;

use super::{Action, Change, Client, Destination, Exchange, Late, Lease, MIN_SPACING, State, Times};
use crate::message::{MessageType, Outgoing};
use crate::schedule;

impl Client {
    /// RENEWING until T2, REBINDING until the end. Each message is a transaction of its own: the
    /// lease counts from the one that is answered, not from one of hours ago.
    pub(super) fn send_renewal(&mut self, now: Duration, lease: Lease, out: &mut Vec<Action>) {
        let Some(times) = lease.times else {
            // An infinite lease is renewed on SIGUSR1 alone, and never ends.
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
        self.late = self.renewal_before();
        let whole = lease.times.map_or(Duration::MAX, |t| t.end.saturating_sub(t.t1) * 2);
        x.next = match t2 {
            Some(t2) => now + schedule::renewal_wait(t2 - now, whole, &mut self.rng),
            None => now + schedule::INFINITE_RETRY,
        };
        out.push(Action::Log(format!("sending renew to server {}", lease.server_id)));
        let message = Outgoing { ciaddr: lease.ip, ..self.message(MessageType::Request, x, now) };
        // Without a route to a server behind a relay the kernel sends ARP requests on the link, and
        // the datagram is lost without an error: every other one goes to the card that handed us
        // the lease.
        let routed = x.sent % 2 == 1 || lease.mac == [0; 6];
        let to = Destination::Server { from: lease.ip, to: lease.server_id, mac: lease.mac, routed };
        let to = if lease.server_id.is_unspecified() { Destination::Broadcast } else { to };
        self.send(now, message, to, out);
        self.state = State::Renewing { lease, x };
    }

    /// The renewal that makes room for the next one: a slow server may still answer it.
    fn renewal_before(&self) -> Option<Late> {
        match &self.state {
            State::Renewing { lease, x } => {
                let named = Some(lease.server_id).filter(|id| !id.is_unspecified());
                Some(Late { x: *x, ip: lease.ip, server_id: named })
            }
            State::Rebinding { lease, x } => Some(Late { x: *x, ip: lease.ip, server_id: None }),
            State::Init { .. }
            | State::Selecting { .. }
            | State::Requesting { .. }
            | State::Checking { .. }
            | State::Rebooting { .. }
            | State::Bound { .. }
            | State::Released => None,
        }
    }

    fn send_rebinding(&mut self, now: Duration, lease: Lease, times: Times, out: &mut Vec<Action>) {
        let mut x = self.exchange(now);
        self.late = self.renewal_before();
        let whole = times.end.saturating_sub(times.t1) * 2;
        x.next = now + schedule::renewal_wait(times.end.saturating_sub(now), whole, &mut self.rng);
        out.push(Action::Log("broadcasting renew".into()));
        let message = Outgoing { ciaddr: lease.ip, ..self.message(MessageType::Request, x, now) };
        self.send(now, message, Destination::Broadcast, out);
        self.state = State::Rebinding { lease, x };
    }

    pub(super) fn renew_now(&mut self, now: Duration, out: &mut Vec<Action>) {
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

    pub(super) fn release(&mut self, now: Duration, out: &mut Vec<Action>) {
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

    pub(super) fn finish(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.config.release {
            if let Some(lease) = self.lease().copied() {
                self.send_release(now, lease, out);
            }
            out.push(Action::Log("entering released state".into()));
            out.push(Action::Tell(Change::Deconfig));
        }
        out.push(Action::Tell(Change::Stop));
        self.end_soon(now);
    }
}

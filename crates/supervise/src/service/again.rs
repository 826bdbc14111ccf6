//! One more run of a service that is down, at the moment that its file `again` names. Pure; part of
//! the machine of service.rs.
//!
//! The file is a level, not an edge: while it is there, a run follows at its moment, and it is the
//! service that removes it. The shell reads it after each event in a service that rests, and so
//! just before each such run: a file that has been removed meanwhile starts nothing.

use std::time::Duration;

use super::{Action, Goal, Life, Role, Service, State, THROTTLE};

impl Service {
    /// Nothing runs, and only the file `again` may change that, or a command.
    pub fn rests(&self) -> bool {
        let down = matches!(self.state, State::Down { start_at: None });
        down && self.role == Role::Main && self.goal == Goal::Down && self.script.is_none()
    }

    /// While it rests: when it is to be started by its file, CLOCK_BOOTTIME.
    pub fn again(&self) -> Option<Duration> {
        self.again.filter(|_| self.rests()).map(|at| at.max(self.rest_until))
    }

    /// What the file says now.
    pub(super) fn read_again(&mut self, now: Duration, at: Option<Duration>, out: &mut Vec<Action>) {
        if !self.rests() {
            return;
        }
        let before = self.again();
        self.again = at;
        match self.again() {
            Some(at) if now >= at => self.prepare(now, out),
            found if found != before => out.push(Action::Save),
            Some(_) | None => {}
        }
    }

    /// A run that ended too soon, without having been told to, is followed by a pause here, too.
    pub(super) fn rest(&mut self, now: Duration, life: Life) {
        let too_soon = !life.asked && (!life.executed || now.saturating_sub(life.started) < THROTTLE);
        self.rest_until = if too_soon { now + THROTTLE } else { now };
    }
}

//! The end of a log: it reads to the end of its pipe, which another process may keep from coming.
//! Pure; part of the machine of service.rs.

use std::time::Duration;

use super::{Action, Command, Goal, HELD, Role, Service, State, Then};

impl Service {
    /// The log reads to the end of the pipe, and gets no signal. If another process keeps the pipe
    /// open, that end never comes.
    pub(super) fn end_input(&mut self, now: Duration, held: bool, out: &mut Vec<Action>) {
        if self.role == Role::Main {
            return;
        }
        if !self.for_good {
            self.for_good = true;
            self.goal = Goal::Exit;
            self.cancel_start();
            out.push(Action::Save);
        }
        let before = self.held.take();
        if !held || !matches!(self.state, State::Running { .. }) {
            return;
        }
        match before {
            None => self.held = Some((now + HELD, 0)),
            Some((_, 0)) => {
                // A time of its own until KILL counts.
                self.held = Some((now + HELD, 1)).filter(|_| self.settings.timeout_kill.is_none());
                out.push(Action::InputHeld);
                self.touch_running();
                self.control(now, Command::Term.letter(), Then::Stop, out);
            }
            Some(_) => out.push(Action::TimedOut),
        }
    }

    /// The time to look at the pipe once more.
    pub(super) fn ask_for_input(&mut self, now: Duration, out: &mut Vec<Action>) {
        let running = matches!(self.state, State::Running { .. });
        if running && self.held.is_some_and(|(at, _)| now >= at) {
            // Answered at once; not asked again meanwhile.
            self.held = self.held.map(|(_, times)| (now + HELD, times));
            out.push(Action::AskInput);
        }
    }
}

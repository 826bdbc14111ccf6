//! The background and the end: when the process returns to its caller. Both wait until the scripts
//! have ended.
//!
//! Pure. daemon.rs says when no script runs or waits ([`Event::Idle`]), and does at once what it is
//! told.

use std::time::Duration;

use super::{Action, Change, Client, Event, Grant, State};

/// How long a script may still run when we are told to end.
const LAST_SCRIPT: Duration = Duration::from_secs(10);

/// What waits for the scripts.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    background: Option<Background>,
    end: Option<End>,
}

/// The background is next.
#[derive(Debug)]
struct Background {
    /// The lease that has just been told, where it is a record: that names the process which keeps
    /// it.
    grant: Option<Box<Grant>>,
}

/// Nothing but the end is next.
#[derive(Clone, Copy, Debug)]
struct End {
    code: u8,
    /// When it comes although a script still runs. `None`: with `-q` and `-n` the caller waits for
    /// what the script does.
    until: Option<Duration>,
}

impl Client {
    /// To the background; `grant` is told again there.
    pub(super) fn leave_for_background(&mut self, grant: Option<Box<Grant>>) {
        self.leaving.background = Some(Background { grant });
    }

    /// The end, as soon as the scripts have ended.
    pub(super) fn end(&mut self, code: u8) {
        self.leave(End { code, until: None });
    }

    /// The end, and no script keeps us for ever.
    pub(super) fn end_soon(&mut self, now: Duration) {
        self.leave(End { code: 0, until: Some(now + LAST_SCRIPT) });
    }

    fn leave(&mut self, end: End) {
        self.leaving = Leaving { background: None, end: Some(end) };
        self.state = State::Released;
    }

    /// Whether the end is all that is left, and when it comes at the latest.
    pub(super) fn last_moment(&self) -> Option<Option<Duration>> {
        self.leaving.end.map(|end| end.until)
    }

    /// No script runs or waits.
    pub(super) fn idle(&mut self, out: &mut Vec<Action>) {
        if let Some(Background { grant }) = self.leaving.background.take() {
            out.push(Action::Background);
            out.extend(grant.map(|grant| Action::Tell(Change::Bound(grant))));
        }
        out.extend(self.leaving.end.map(|end| Action::Exit(end.code)));
    }

    /// Waits for the end and for nothing else.
    pub(super) fn wait_for_the_end(&mut self, now: Duration, event: &Event, out: &mut Vec<Action>) {
        let Some(end) = self.leaving.end else { return };
        // SIGTERM a second time: at once.
        let over = matches!(event, Event::Idle | Event::Stop) || end.until.is_some_and(|at| at <= now);
        out.extend(over.then_some(Action::Exit(end.code)));
    }
}

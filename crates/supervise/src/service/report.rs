//! What a machine says of itself: for supervise/status, stat and instance. Pure; called by unit.rs
//! and host.rs.

use super::{Exit, Goal, Service, State};
use applet::control::{RunState, Want};

impl Service {
    /// For the status: what runs, and its process id.
    pub fn running(&self) -> (RunState, Option<u32>) {
        match self.state {
            State::Down { .. } | State::Preparing | State::Starting | State::Done => (RunState::Down, None),
            State::Running { pid, .. } => (RunState::Run, Some(pid)),
            State::Ended { .. } | State::Finishing { .. } => (RunState::Finish, None),
            State::Finish { pid, .. } => (RunState::Finish, Some(pid)),
        }
    }

    /// For the status: exit is written as down.
    pub fn want(&self) -> Want {
        match self.goal {
            Goal::Up => Want::Up,
            Goal::Down | Goal::Exit => Want::Down,
        }
    }

    /// For the status: STOP was sent and no CONT since.
    pub fn paused(&self) -> bool {
        self.paused
    }

    /// For the status: TERM was sent to what runs.
    pub fn got_term(&self) -> bool {
        self.got_term
    }

    /// The running ./run has said that it is ready.
    pub fn ready(&self) -> bool {
        self.ready
    }

    /// How often ./run ended without having been told to.
    pub fn deaths(&self) -> u64 {
        self.deaths
    }

    /// How ./run ended last.
    pub fn last_exit(&self) -> Option<Exit> {
        self.last_exit
    }

    /// That was the one run that had been asked for, and it ended by itself.
    pub fn once(&self) -> bool {
        self.once
    }

    /// It is to end for good, or has.
    pub fn leaving(&self) -> bool {
        self.goal == Goal::Exit || self.done()
    }

    /// It has ended for good.
    pub fn done(&self) -> bool {
        self.state == State::Done
    }

    /// Commands that wait for a control script. The shell leaves bytes in the fifo when there are
    /// many.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The text of supervise/stat, with its newline.
    pub fn stat(&self) -> String {
        let (state, _) = self.running();
        let mut text = String::from(match state {
            RunState::Down => "down",
            RunState::Run => "run",
            RunState::Finish => "finish",
        });
        if self.paused {
            text.push_str(", paused");
        }
        if self.got_term {
            text.push_str(", got TERM");
        }
        match (state, self.goal) {
            (RunState::Down, _) | (RunState::Run | RunState::Finish, Goal::Up) => {}
            (RunState::Run | RunState::Finish, Goal::Down) => text.push_str(", want down"),
            (RunState::Run | RunState::Finish, Goal::Exit) => text.push_str(", want exit"),
        }
        text.push('\n');
        text
    }
}

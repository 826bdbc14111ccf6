//! What a command does, and what follows when its control script has ended. Pure; part of the
//! machine of service.rs.

use std::time::Duration;

use super::{Action, Command, Goal, Role, Script, Service, State, Then};

impl Service {
    /// One command, in its turn: no script runs.
    pub(super) fn command(&mut self, now: Duration, command: Command, out: &mut Vec<Action>) {
        match command {
            Command::Up => self.up(now, Goal::Up, out),
            Command::Once => self.up(now, Goal::Down, out),
            Command::Down => self.down(now, Goal::Down, out),
            Command::Exit => match self.role {
                Role::Main => self.down(now, Goal::Exit, out),
                Role::Log => {}
            },
            Command::Term => {
                if self.touch_running() {
                    self.control(now, Command::Term.letter(), Then::Stop, out);
                }
            }
            Command::Pause | Command::Continue => {
                if self.touch_running() {
                    self.control(now, command.letter(), Then::Signal(command), out);
                } else {
                    // runit sets and clears the flag even when nothing runs.
                    self.set_paused(command == Command::Pause, out);
                }
            }
            Command::Kill
            | Command::Hangup
            | Command::Alarm
            | Command::Interrupt
            | Command::Quit
            | Command::Usr1
            | Command::Usr2 => {
                if self.touch_running() {
                    self.control(now, command.letter(), Then::Signal(command), out);
                }
            }
        }
    }

    pub(super) fn up(&mut self, now: Duration, goal: Goal, out: &mut Vec<Action>) {
        if self.for_good {
            return;
        }
        self.goal = goal;
        out.push(Action::Save);
        match &mut self.state {
            State::Down { .. } => self.prepare(now, out),
            // A level, not an edge: any number of `u` while it runs is one more run.
            State::Running { life, .. } | State::Ended { life, .. } | State::Finish { life, .. } => {
                life.asked |= goal == Goal::Up;
            }
            State::Preparing | State::Starting | State::Finishing { .. } | State::Done => {}
        }
    }

    pub(super) fn down(&mut self, now: Duration, goal: Goal, out: &mut Vec<Action>) {
        let goal = if self.for_good { Goal::Exit } else { goal };
        // A level: sv writes `d` whatever the status says, and TERM was sent when this was wanted
        // first. One that was stopped with `p` since then needs CONT to obey it.
        let again = (self.goal, goal) == (Goal::Down, Goal::Down) && self.got_term && !self.paused;
        self.goal = goal;
        self.cancel_start();
        out.push(Action::Save);
        if (self.role, goal) == (Role::Main, Goal::Down) {
            out.push(Action::PutOff);
        }
        if !again && self.touch_running() {
            self.control(now, Command::Term.letter(), Then::Stop, out);
        }
    }

    pub(super) fn cancel_start(&mut self) {
        match &mut self.state {
            State::Down { start_at } => *start_at = None,
            State::Preparing
            | State::Starting
            | State::Running { .. }
            | State::Ended { .. }
            | State::Finishing { .. }
            | State::Finish { .. }
            | State::Done => {}
        }
    }

    /// Whether ./run runs; if so its end will be one that was asked for.
    pub(super) fn touch_running(&mut self) -> bool {
        match &mut self.state {
            State::Running { life, .. } => {
                (life.asked, life.signalled) = (true, true);
                true
            }
            State::Down { .. }
            | State::Preparing
            | State::Starting
            | State::Ended { .. }
            | State::Finishing { .. }
            | State::Finish { .. }
            | State::Done => false,
        }
    }

    pub(super) fn prepare(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.state = State::Preparing;
        self.control(now, Command::Up.letter(), Then::Start, out);
    }

    pub(super) fn control(&mut self, now: Duration, letter: u8, then: Then, out: &mut Vec<Action>) {
        self.script = Some(Script { then, late: false });
        match self.role {
            Role::Main => out.push(Action::Control(letter)),
            // runsv(8): the control of the optional log service cannot be customized.
            Role::Log => self.control_done(now, false, out),
        }
    }

    pub(super) fn control_done(&mut self, now: Duration, handled: bool, out: &mut Vec<Action>) {
        let Some(Script { then, late }) = self.script.take() else { return };
        match then {
            Then::Start => match self.state {
                State::Preparing => {
                    self.state = State::Starting;
                    out.push(Action::Run);
                }
                State::Down { .. }
                | State::Starting
                | State::Running { .. }
                | State::Ended { .. }
                | State::Finishing { .. }
                | State::Finish { .. }
                | State::Done => {}
            },
            Then::Stop => self.stop_after_script(now, handled || late, late, out),
            Then::Nothing => {}
            Then::Signal(command) => self.signal_after_script(command, handled || late, out),
        }
    }

    pub(super) fn stop_after_script(&mut self, now: Duration, handled: bool, late: bool, out: &mut Vec<Action>) {
        // A script that did it itself gets the same time; what was restarted by `t` and handled
        // shall go on.
        if !handled || self.goal != Goal::Up {
            self.begin_timeout(now);
        }
        if !handled {
            self.got_term = true;
            out.extend([Action::Signal(Command::Term), Action::Save]);
        }
        let letter = match self.goal {
            Goal::Up => return,
            Goal::Down => Command::Down.letter(),
            Goal::Exit => Command::Exit.letter(),
        };
        if !late {
            out.push(Action::Signal(Command::Continue));
        }
        self.control(now, letter, Then::Nothing, out);
    }

    pub(super) fn signal_after_script(&mut self, command: Command, handled: bool, out: &mut Vec<Action>) {
        if !handled {
            out.push(Action::Signal(command));
        }
        match command {
            Command::Pause => self.set_paused(true, out),
            Command::Continue => self.set_paused(false, out),
            Command::Up
            | Command::Down
            | Command::Once
            | Command::Exit
            | Command::Term
            | Command::Kill
            | Command::Hangup
            | Command::Alarm
            | Command::Interrupt
            | Command::Quit
            | Command::Usr1
            | Command::Usr2 => {}
        }
    }

    pub(super) fn set_paused(&mut self, paused: bool, out: &mut Vec<Action>) {
        self.paused = paused;
        out.push(Action::Save);
    }
}

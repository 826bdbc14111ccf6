//! One supervised process, as a pure machine: control letters, ends of processes and the clock go
//! in, actions come out.
//!
//! What it is: runsv(8)'s rules for want, run, finish, the control/ scripts and the second's wait.
//! What it is not: a reader of files or clocks; spawning, signals and supervise/ are the shell's.
//! Called by runsv.rs, once per process (a service with a log has two of these).
//!
//! Nothing here waits: a control/ script is a child like any other, and commands that come while it
//! runs are queued in their order. At most one of ./run and ./finish exists at a time, whatever is
//! asked for.

use std::collections::VecDeque;
use std::time::Duration;

use applet::control::{Command, Want};

mod again;
mod backoff;
mod commands;
mod input;
mod report;
mod terms;
use backoff::{Backoff, End};
pub use terms::{
    Action, EXEC_FAILED_MOST, Event, Exit, Found, HELD, LEAST_DELAY, PERMANENT_FAILURE, Role, Settings, THROTTLE,
};

/// The process that runs, or ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    /// Start of ./run, CLOCK_BOOTTIME.
    started: Duration,
    /// A signal was sent to it, or `u` came while it ran: its end is not a crash, and what is
    /// wanted is done at once.
    asked: bool,
    /// A signal was sent to it.
    signalled: bool,
    /// It could be executed at all.
    executed: bool,
}

impl Life {
    fn new(started: Duration, executed: bool) -> Life {
        Life { started, asked: false, signalled: false, executed }
    }

    fn end(self, now: Duration) -> End {
        match (self.asked, self.executed) {
            (true, _) => End::Asked,
            (false, true) => End::After(now.saturating_sub(self.started)),
            (false, false) => End::NotExecuted,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing runs; when `start_at` is given ./run is to be started then.
    Down { start_at: Option<Duration> },
    /// control/u runs (or is being looked for); ./run follows.
    Preparing,
    /// ./run was asked for.
    Starting,
    /// ./run runs; when `kill_at` is given it gets KILL then.
    Running { pid: u32, life: Life, kill_at: Option<Duration> },
    /// ./run has ended; ./finish waits for a control script to end, or for a process to be had.
    Ended { exit: Exit, life: Life, retry_at: Option<Duration> },
    /// ./finish was asked for.
    Finishing { exit: Exit, life: Life },
    /// ./finish runs; when `kill_at` is given it gets KILL then.
    Finish { pid: u32, life: Life, kill_at: Option<Duration> },
    /// For good.
    Done,
}

/// What is steered to. Written as [`Want`], where exit is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Up,
    Down,
    Exit,
}

/// What follows a control script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// control/u: start ./run.
    Start,
    /// control/t: TERM unless handled; when not wanted up, CONT and control/d or control/x.
    Stop,
    /// control/d, control/x: nothing.
    Nothing,
    /// Any other letter: its signal unless handled.
    Signal(Command),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Script {
    then: Then,
    /// The process it was meant for has ended meanwhile.
    late: bool,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Service {
    role: Role,
    goal: Goal,
    state: State,
    paused: bool,
    got_term: bool,
    script: Option<Script>,
    queue: VecDeque<Command>,
    /// It must not be started again. Log: the pipe has ended. Service: the supervisor was told to
    /// end.
    for_good: bool,
    /// Log: when to look again whether a process has kept the pipe open, and how often that was
    /// found.
    held: Option<(Duration, u32)>,
    /// The moment that the file `again` named when it was read last, and before which it does not
    /// count.
    again: Option<Duration>,
    rest_until: Duration,
    settings: Settings,
    backoff: Backoff,
    ready: bool,
    deaths: u64,
    last_exit: Option<Exit>,
    once: bool,
}

impl Service {
    /// A service of which nothing runs. `want` is Down when a file `down` is there. The first
    /// [`Event::Tick`] starts it.
    pub fn new(role: Role, want: Want) -> Service {
        let goal = match want {
            Want::Up => Goal::Up,
            Want::Down => Goal::Down,
        };
        let state = State::Down { start_at: None };
        let (script, queue) = (None, VecDeque::new());
        Service {
            role,
            goal,
            state,
            paused: false,
            got_term: false,
            script,
            queue,
            for_good: false,
            held: None,
            again: None,
            rest_until: Duration::ZERO,
            settings: Settings::default(),
            backoff: Backoff::default(),
            ready: false,
            deaths: 0,
            last_exit: None,
            once: false,
        }
    }

    /// Continues what a killed runsv left behind.
    pub fn adopt(role: Role, want: Want, paused: bool, got_term: bool, found: Found) -> Service {
        let mut service = Service::new(role, want);
        let life = |started| Life { started, asked: got_term, signalled: got_term, executed: true };
        let exit = Exit::Unknown;
        service.state = match found {
            Found::Run { pid, started } => State::Running { pid, life: life(started), kill_at: None },
            Found::Finish { pid, started } => State::Finish { pid, life: life(started), kill_at: None },
            // It ended some time ago: no wait is due.
            Found::RunEnded => {
                let life = Life { started: Duration::ZERO, asked: true, signalled: got_term, executed: true };
                State::Ended { exit, life, retry_at: None }
            }
            Found::Nothing => return service,
        };
        (service.paused, service.got_term) = (paused, got_term);
        service
    }

    /// Continues what a killed runsv had counted and heard, for a process that was started with
    /// these settings. It is not known how much of the time to end in was left: it begins anew.
    pub fn with_history(mut self, now: Duration, deaths: u64, ready: bool, settings: Settings) -> Service {
        (self.deaths, self.settings) = (deaths, settings);
        self.ready = ready && matches!(self.state, State::Running { .. });
        if self.got_term {
            self.begin_timeout(now);
        }
        if let State::Finish { kill_at, .. } = &mut self.state {
            *kill_at = settings.timeout_finish.map(|timeout| now + timeout);
        }
        self
    }

    /// Continues what a killed runsv knew of the end of a run that none has followed.
    pub fn with_last(mut self, exit: Option<Exit>, once: bool) -> Service {
        (self.last_exit, self.once) = (exit, once);
        self
    }

    /// Takes one event. `now` is CLOCK_BOOTTIME.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Command(command) => self.queue.push_back(command),
            Event::Terminate => {
                self.for_good |= self.role == Role::Main;
                self.queue.push_back(Command::Exit);
            }
            Event::Started { pid } => self.started(now, pid, &mut out),
            Event::ExecFailed => self.exec_failed(now, &mut out),
            Event::ForkFailed => self.fork_failed(now),
            Event::NoFinish => self.no_finish(now, &mut out),
            Event::Ended(exit) => self.ended(now, exit, &mut out),
            Event::Control { handled } => self.control_done(now, handled, &mut out),
            Event::Settings(settings) => self.settings = settings,
            Event::Again(at) => self.read_again(now, at, &mut out),
            Event::Ready => self.is_ready(&mut out),
            Event::InputEnded { held } => self.end_input(now, held, &mut out),
            Event::Tick => {}
        }
        self.time_out(now, &mut out);
        self.ask_for_input(now, &mut out);
        self.settle(now, &mut out);
        out
    }

    /// When [`Event::Tick`] is due, CLOCK_BOOTTIME; `None`: never, as it stands.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Running { kill_at, .. } => kill_at.into_iter().chain(self.held.map(|(at, _)| at)).min(),
            State::Finish { kill_at, .. } => kill_at,
            State::Down { start_at } => start_at.filter(|_| self.script.is_none()).or(self.again()),
            State::Ended { retry_at, .. } => retry_at.filter(|_| self.script.is_none()),
            State::Preparing | State::Starting | State::Finishing { .. } | State::Done => None,
        }
    }

    fn started(&mut self, now: Duration, pid: u32, out: &mut Vec<Action>) {
        match self.state {
            State::Starting => {
                self.state = State::Running { pid, life: Life::new(now, true), kill_at: None };
                out.push(Action::Stamp);
            }
            State::Finishing { life, .. } => {
                let kill_at = self.settings.timeout_finish.map(|timeout| now + timeout);
                self.state = State::Finish { pid, life, kill_at };
            }
            State::Down { .. }
            | State::Preparing
            | State::Running { .. }
            | State::Ended { .. }
            | State::Finish { .. }
            | State::Done => return,
        }
        (self.paused, self.got_term) = (false, false);
        out.push(Action::Save);
    }

    fn exec_failed(&mut self, now: Duration, out: &mut Vec<Action>) {
        match self.state {
            // runsv(8): if ./run cannot be started the exit code is 111 and the status is 0.
            State::Starting => {
                (self.paused, self.got_term) = (false, false);
                out.push(Action::Stamp);
                self.run_ended(now, Exit::Code(111), Life::new(now, false), out);
            }
            State::Finishing { life, .. } => {
                // For runit it was started.
                self.paused = false;
                self.go_down(now, life, out);
            }
            State::Down { .. }
            | State::Preparing
            | State::Running { .. }
            | State::Ended { .. }
            | State::Finish { .. }
            | State::Done => {}
        }
    }

    fn fork_failed(&mut self, now: Duration) {
        let at = Some(now + THROTTLE);
        match self.state {
            State::Starting => self.state = State::Down { start_at: at },
            State::Finishing { exit, life } => self.state = State::Ended { exit, life, retry_at: at },
            State::Down { .. }
            | State::Preparing
            | State::Running { .. }
            | State::Ended { .. }
            | State::Finish { .. }
            | State::Done => {}
        }
    }

    fn no_finish(&mut self, now: Duration, out: &mut Vec<Action>) {
        match self.state {
            State::Finishing { life, .. } => self.go_down(now, life, out),
            State::Down { .. }
            | State::Preparing
            | State::Starting
            | State::Running { .. }
            | State::Ended { .. }
            | State::Finish { .. }
            | State::Done => {}
        }
    }

    fn ended(&mut self, now: Duration, exit: Exit, out: &mut Vec<Action>) {
        match self.state {
            State::Running { life, .. } => self.run_ended(now, exit, life, out),
            State::Finish { life, .. } => {
                if self.settings.permanent_failure && exit == Exit::Code(PERMANENT_FAILURE) && self.goal == Goal::Up {
                    self.goal = Goal::Down;
                    out.extend([Action::GaveUp, Action::PutOff]);
                }
                self.go_down(now, life, out);
            }
            State::Down { .. }
            | State::Preparing
            | State::Starting
            | State::Ended { .. }
            | State::Finishing { .. }
            | State::Done => {}
        }
    }

    fn run_ended(&mut self, now: Duration, exit: Exit, life: Life, out: &mut Vec<Action>) {
        (self.got_term, self.ready) = (false, false);
        self.last_exit = Some(exit);
        self.deaths += u64::from(!life.asked && self.goal == Goal::Up);
        self.once = !life.signalled && self.goal == Goal::Down;
        if let Some(script) = &mut self.script {
            script.late = true;
        }
        match self.role {
            Role::Main => {
                self.state = State::Ended { exit, life, retry_at: None };
                if self.script.is_some() {
                    out.push(Action::Save);
                }
            }
            // runsv(8) starts ./finish for the service only.
            Role::Log => self.go_down(now, life, out),
        }
    }

    fn go_down(&mut self, now: Duration, life: Life, out: &mut Vec<Action>) {
        self.got_term = false;
        let start_at = match self.goal {
            Goal::Up => self.backoff.pause(&self.settings, life.end(now)).map(|pause| now + pause),
            Goal::Down | Goal::Exit => None,
        };
        self.rest(now, life);
        self.state = State::Down { start_at };
        out.extend([Action::Stamp, Action::Save]);
    }

    fn is_ready(&mut self, out: &mut Vec<Action>) {
        match self.state {
            State::Running { .. } if !self.ready => {
                self.ready = true;
                out.push(Action::Save);
            }
            State::Running { .. }
            | State::Down { .. }
            | State::Preparing
            | State::Starting
            | State::Ended { .. }
            | State::Finishing { .. }
            | State::Finish { .. }
            | State::Done => {}
        }
    }

    /// KILL for what should have ended by now.
    fn time_out(&mut self, now: Duration, out: &mut Vec<Action>) {
        match &mut self.state {
            State::Running { kill_at, .. } | State::Finish { kill_at, .. } => {
                if kill_at.take_if(|at| now >= *at).is_some() {
                    out.push(Action::TimedOut);
                }
            }
            State::Down { .. }
            | State::Preparing
            | State::Starting
            | State::Ended { .. }
            | State::Finishing { .. }
            | State::Done => {}
        }
    }

    /// TERM is on its way: the time until KILL begins.
    fn begin_timeout(&mut self, now: Duration) {
        let timeout = self.settings.timeout_kill;
        match &mut self.state {
            State::Running { kill_at, .. } => *kill_at = kill_at.or(timeout.map(|timeout| now + timeout)),
            State::Down { .. }
            | State::Preparing
            | State::Starting
            | State::Ended { .. }
            | State::Finishing { .. }
            | State::Finish { .. }
            | State::Done => {}
        }
    }

    /// Takes up what waits, until a script or a start is under way.
    fn settle(&mut self, now: Duration, out: &mut Vec<Action>) {
        while self.script.is_none() {
            match self.state {
                // Answered by the shell before anything else.
                State::Starting | State::Finishing { .. } => return,
                State::Done => {
                    self.queue.clear();
                    return;
                }
                State::Down { .. }
                | State::Preparing
                | State::Running { .. }
                | State::Ended { .. }
                | State::Finish { .. } => {}
            }
            if let Some(command) = self.queue.pop_front() {
                self.command(now, command, out);
            } else if !self.proceed(now, out) {
                return;
            }
        }
    }

    /// What is due without a command; false when nothing is.
    fn proceed(&mut self, now: Duration, out: &mut Vec<Action>) -> bool {
        match self.state {
            State::Down { start_at } => {
                let start = match (start_at, self.goal) {
                    (Some(at), _) => now >= at,
                    (None, Goal::Up) => true,
                    (None, Goal::Down) => false,
                    (None, Goal::Exit) => {
                        self.state = State::Done;
                        out.push(Action::Done);
                        return true;
                    }
                };
                if start {
                    self.prepare(now, out);
                }
                start
            }
            State::Ended { exit, life, retry_at } => {
                let due = retry_at.is_none_or(|at| now >= at);
                if due {
                    let (code, status) = exit.finish_args();
                    self.state = State::Finishing { exit, life };
                    out.push(Action::Finish { code, status });
                }
                due
            }
            State::Preparing
            | State::Starting
            | State::Running { .. }
            | State::Finishing { .. }
            | State::Finish { .. }
            | State::Done => false,
        }
    }
}

#[cfg(test)]
mod tests;

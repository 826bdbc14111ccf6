//! The terms in which the shell and the machine speak: events in, actions out. Pure data; called by
//! service.rs and unit.rs.

use std::time::Duration;

use applet::control::Command;

/// runsv(8): a process that ends within this time after its start is started again only after this
/// time.
pub const THROTTLE: Duration = Duration::from_secs(1);
/// A ./run that cannot even be executed is tried less and less often, up to this: it costs next to
/// nothing, and is found again soon when it has been mended.
pub const EXEC_FAILED_MOST: Duration = Duration::from_secs(8);
/// A restart-delay below this counts as this: a service that fails for ever must not spin.
pub const LEAST_DELAY: Duration = Duration::from_millis(10);
/// A process that outlives its service may hold the pipe to the log this long. Then the log is sent
/// TERM, and after as long again KILL: both within the seven seconds of sv.
pub const HELD: Duration = Duration::from_secs(3);
/// The exit code by which ./finish says that ./run shall not be started again, where that was
/// allowed; s6's.
pub const PERMANENT_FAILURE: u8 = 125;

/// What the files of the service directory ask for beyond runit; each is opt-in, and the default is
/// runit's behaviour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `restart-delay`: the pause after ./run ended by itself, however long it lived.
    pub restart_delay: Option<Duration>,
    /// `restart-max-delay`: the pause doubles up to this with each end that comes too soon.
    pub restart_max_delay: Option<Duration>,
    /// `timeout-kill`: KILL this long after TERM.
    pub timeout_kill: Option<Duration>,
    /// `timeout-finish`: KILL this long after the start of ./finish.
    pub timeout_finish: Option<Duration>,
    /// `permanent-failure`: ./finish may say that it shall stay down.
    pub permanent_failure: bool,
}

/// Whose process it is: the log's obeys other rules (no `x`, no ./finish, no control/).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `service/run`
    Main,
    /// `service/log/run`
    Log,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(u8),
    /// By a signal; `core` when it was dumped.
    Signal {
        /// Signal number.
        signal: u8,
        /// Whether the system says that a core was dumped.
        core: bool,
    },
    /// It was adopted from a runsv that was killed: only its parent could have learnt how it ended.
    Unknown,
}

impl Exit {
    /// The two arguments of ./finish: exit code or -1, and the low byte of the wait status
    /// (wait(2): the signal, and bit 7 for a core). An unknown end is `-1 0`: not known to have
    /// exited normally, no signal known.
    pub fn finish_args(self) -> (i32, u8) {
        match self {
            Exit::Code(code) => (i32::from(code), 0),
            Exit::Signal { signal, core } => (-1, (signal & 0x7f) | if core { 0x80 } else { 0 }),
            Exit::Unknown => (-1, 0),
        }
    }

    /// The other way round.
    pub fn from_finish_args((code, status): (i32, u8)) -> Exit {
        match (u8::try_from(code), status) {
            (Ok(code), _) => Exit::Code(code),
            (Err(_), 0) => Exit::Unknown,
            (Err(_), status) => Exit::Signal { signal: status & 0x7f, core: status & 0x80 != 0 },
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A byte from supervise/control.
    Command(Command),
    /// SIGTERM to the supervisor: like `x`, but final. Otherwise the `u` that a client sends to fw
    /// when it ends would keep fw alive, and `runsvdir -w` would wait for ever.
    Terminate,
    /// The process that [`Action::Run`] or [`Action::Finish`] asked for exists.
    Started {
        /// Its process id.
        pid: u32,
    },
    /// It could not be executed: as if it had exited with 111.
    ExecFailed,
    /// There is no process to be had now (fork failed): try again later.
    ForkFailed,
    /// There is no ./finish.
    NoFinish,
    /// ./run or ./finish, whichever exists, has ended.
    Ended(Exit),
    /// The script that [`Action::Control`] asked for has ended with 0 (`true`), otherwise, or is
    /// not there.
    Control {
        /// It has done what the signal is for.
        handled: bool,
    },
    /// What the files of the service directory ask for; before the start that it is for.
    Settings(Settings),
    /// The moment that the file `again` names, CLOCK_BOOTTIME; read anew after each event in a
    /// service that [`super::Service::rests`].
    Again(Option<Duration>),
    /// The running process says that it is ready.
    Ready,
    /// Log only: the service has exited for good and its end of the pipe is closed.
    InputEnded {
        /// Another process has the pipe open for writing.
        held: bool,
    },
    /// The time of [`super::Service::deadline`] has come. Harmless at any other time.
    Tick,
}

/// What the shell is to do. `Run`, `Finish` and `Control` are each answered by an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start ./run. Answers: Started, ExecFailed, ForkFailed.
    Run,
    /// Start ./finish with these arguments, if it is there. Answers: Started, ExecFailed,
    /// ForkFailed, NoFinish.
    Finish {
        /// Exit code of ./run or -1.
        code: i32,
        /// Low byte of its wait status.
        status: u8,
    },
    /// Start control/LETTER if it is executable. Answer: Control, at once or when it has ended.
    Control(u8),
    /// Send the signal that this command stands for to the process.
    Signal(Command),
    /// Its time is over: send KILL to the process.
    TimedOut,
    /// Log only: look whether the pipe is still held. Answer: InputEnded.
    AskInput,
    /// Log only: say that another process holds the pipe, and that the log is ended for that.
    InputHeld,
    /// ./finish has said that ./run shall not be started again.
    GaveUp,
    /// `d` has come: what the file `again` asks for now does not count any more.
    PutOff,
    /// Take the wall clock for the status.
    Stamp,
    /// Write supervise/pid, stat, status.
    Save,
    /// Nothing runs and nothing ever will.
    Done,
}

/// What an adopted process does; see [`super::Service::adopt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// ./run lives.
    Run {
        /// Its process id.
        pid: u32,
        /// When it started, CLOCK_BOOTTIME.
        started: Duration,
    },
    /// ./finish lives.
    Finish {
        /// Its process id.
        pid: u32,
        /// When it started, CLOCK_BOOTTIME.
        started: Duration,
    },
    /// ./run ended while no runsv watched: ./finish is still due.
    RunEnded,
    /// Nothing.
    Nothing,
}

//! One supervised process on the disk and in the process table: its machine ([`Service`]), its
//! supervise/ directory ([`Files`]), and the doing of its actions.
//!
//! Its parts: unit/start.rs starts children, unit/takeover.rs finds what a killed runsv left,
//! unit/save.rs writes supervise/, unit/again.rs reads the file `again`. What it is not: deciding
//! (service.rs), waiting or choosing the working directory (host.rs, which calls this, for the
//! service and for its log, with the service directory as the working directory).
#![expect(clippy::disallowed_methods, reason = "stamps the status with the wall clock")]

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::files::{Fatal, Files};
use crate::instance::{Instance, Ready};
use crate::service::{Action, Event, Exit, PERMANENT_FAILURE, Role, Service};
use crate::settings::Extras;
use crate::shared::{Shared, Source};
use crate::sys;
use applet::control::{Command, RELEASE, RunState, Tai64n, Want, error_text};
use applet::say;

mod again;
mod save;
mod start;
mod takeover;
use again::Later;

/// Where a child's 0 and 1 come from, besides runsv's own.
#[derive(Default)]
pub(crate) struct Wiring {
    /// The log pipe's read end, for the log.
    pub(crate) stdin: Option<OwnedFd>,
    /// The log pipe's write end, for the service.
    pub(crate) stdout: Option<OwnedFd>,
}

/// A supervise/ that cannot be written to, as on a full disk, is tried again after this: a status
/// must not stay wrong.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// One process under supervision.
pub(crate) struct Unit {
    pub(crate) service: Service,
    shared: Rc<Shared>,
    /// By which the events of its descriptors are found again.
    token: u64,
    role: Role,
    /// `.` or `log`: the working directory of what is started.
    dir: &'static Path,
    /// The service as the supervisor was called for it.
    name: Rc<OsStr>,
    files: Files,
    stamp: Tai64n,
    /// The same moment, CLOCK_BOOTTIME.
    since: Duration,
    /// When ./run was started, until that is stamped.
    begun: Option<Duration>,
    dirty: bool,
    /// Writing failed: it is tried again then.
    save_at: Option<Duration>,
    /// The control fifo is being watched: not while too many commands wait.
    listening: bool,
    /// The instance record is written: not before the log pipe is known, which it names.
    recording: bool,
    /// What was last complained of: said once, not at every try.
    complaints: Complaints,
    extras: Extras,
    /// Its supervisor shall let go of it, see [`RELEASE`].
    pub(crate) released: bool,
    /// The control script that runs.
    script: Option<u32>,
    /// An adopted process is not our child: it is watched by this.
    adopted: Option<OwnedFd>,
    /// The record of it.
    left: Option<Instance>,
    /// On which ./run says that it is ready.
    notification: Option<File>,
    ready: Ready,
    cgroup: Option<Cgroup>,
    /// A process id and its start time, see [`Instance`].
    known: (u32, u64),
    /// The inode of the log pipe that it was started with; 0: none.
    pipe: u64,
    /// Its file `again`.
    later: Later,
    pub(crate) wiring: Wiring,
}

/// The last complaint of each kind.
#[derive(Default)]
struct Complaints {
    save: Option<String>,
    start: Option<String>,
    settings: Vec<String>,
}

impl Unit {
    /// Makes or takes over supervise/ below `dir`. With `wait` its lock is waited for.
    pub(crate) fn open(
        shared: &Rc<Shared>,
        token: u64,
        name: &Rc<OsStr>,
        role: Role,
        wait: bool,
    ) -> Result<Unit, Fatal> {
        let dir = Path::new(match role {
            Role::Main => ".",
            Role::Log => "log",
        });
        let files = Files::open(dir, role, wait)?;
        let want = if dir.join("down").exists() { Want::Down } else { Want::Up };
        let mut unit = Unit {
            service: Service::new(role, want),
            shared: Rc::clone(shared),
            token,
            role,
            dir,
            name: Rc::clone(name),
            files,
            stamp: Tai64n::from_system_time(SystemTime::now()),
            since: sys::now(),
            begun: None,
            dirty: true,
            save_at: None,
            listening: false,
            recording: false,
            complaints: Complaints::default(),
            extras: Extras::default(),
            released: false,
            script: None,
            adopted: None,
            left: None,
            notification: None,
            ready: Ready::Unasked,
            cgroup: None,
            known: (0, 0),
            pipe: 0,
            later: Later::default(),
            wiring: Wiring::default(),
        };
        if let Some(service) = unit.inherit(role)? {
            unit.service = service;
        }
        unit.listen();
        // Before anything is started: a ./run that begins with `sv o .` reads the status. The rest
        // follows when it has been started.
        unit.save_status();
        Ok(unit)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn warn(&self, text: &str) {
        self.say(&format!("warning: {text}"));
    }

    /// A log says that it is the log.
    fn say(&self, text: &str) {
        let log = match self.role {
            Role::Main => "",
            Role::Log => "/log",
        };
        say::error(format_args!("runsv {}{log}: {text}\n", self.name.display()));
    }

    /// Takes an event, and does what follows from it until nothing follows.
    pub(crate) fn handle(&mut self, event: Event) {
        self.step(event);
        self.look_at_again();
        if self.listening != (self.service.queued() == 0) {
            self.listen();
        }
        self.end_group();
    }

    fn step(&mut self, event: Event) {
        let mut next = Some(event);
        let mut events = VecDeque::new();
        while let Some(event) = next {
            for action in self.service.step(sys::now(), event) {
                self.perform(action, &mut events);
            }
            next = events.pop_front();
        }
    }

    /// Down for now: nothing of it is to be left.
    fn end_group(&mut self) {
        if self.service.want() == Want::Down
            && self.service.running().0 == RunState::Down
            && let Some(group) = self.cgroup.take()
            && let Err(e) = group.kill()
        {
            self.warn(&format!("./cgroup: unable to kill what is left: {}", error_text(&e)));
        }
    }

    /// What follows from it is added to `events`.
    fn perform(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::Run => events.extend(self.start_run()),
            Action::Finish { code, status } => events.push_back(self.start_finish(code, status)),
            Action::Control(letter) => events.extend(self.start_control(letter)),
            Action::AskInput => events.push_back(self.input_ended()),
            Action::InputHeld => {
                self.warn("a process that the service left behind holds the pipe: ending the log");
            }
            Action::Signal(command) => self.signal(command),
            Action::TimedOut => self.timed_out(),
            Action::GaveUp => {
                self.warn(&format!("./finish exited {PERMANENT_FAILURE}: not starting ./run again"));
            }
            Action::PutOff => self.put_off(),
            Action::Stamp => {
                self.stamp = Tai64n::from_system_time(SystemTime::now());
                // What has just been started has written down when.
                self.since = self.begun.take().unwrap_or_else(sys::now);
            }
            Action::Save => self.dirty = true,
            Action::Done => {}
        }
    }

    /// For the log, when the service has exited for good and our end of the pipe is closed.
    pub(crate) fn input_ended(&self) -> Event {
        Event::InputEnded { held: self.wiring.stdin.as_ref().is_some_and(sys::has_writer) }
    }

    fn signal(&self, command: Command) {
        let signal = match command {
            Command::Term => self.extras.down_signal.or(signal_of(command)),
            _ => signal_of(command),
        };
        if let Some(signal) = signal {
            self.send(signal);
        }
    }

    fn timed_out(&self) {
        let what = if self.service.running().0 == RunState::Finish { "./finish" } else { "./run" };
        self.warn(&format!("{what} has not ended in time: killing it"));
        self.send(Signal::SIGKILL);
    }

    fn send(&self, signal: Signal) {
        let Some(pid) = self.service.running().1 else { return };
        let sent = match (&self.adopted, i32::try_from(pid)) {
            (Some(pidfd), _) => sys::pidfd_send_signal(pidfd.as_fd(), signal),
            // Our child: even if it has ended its number is not given away before we have waited
            // for it.
            (None, Ok(pid)) => kill(Pid::from_raw(pid), signal).map_err(io::Error::from),
            (None, Err(_)) => Ok(()),
        };
        if let Err(e) = sent
            && e.raw_os_error() != Some(Errno::ESRCH as i32)
        {
            self.warn(&format!("unable to send signal: {}", error_text(&e)));
        }
    }

    /// Whether this child is one of the unit's.
    pub(crate) fn is_child(&self, pid: u32) -> bool {
        self.script == Some(pid) || (self.adopted.is_none() && self.service.running().1 == Some(pid))
    }

    /// The control script that runs.
    pub(crate) fn script(&self) -> Option<u32> {
        self.script
    }

    /// A child of the unit's has ended.
    pub(crate) fn reaped(&mut self, pid: u32, exit: Exit) {
        if self.script == Some(pid) {
            self.script = None;
            self.handle(Event::Control { handled: exit == Exit::Code(0) });
        } else {
            self.ended(exit);
        }
    }

    fn ended(&mut self, exit: Exit) {
        let was_run = self.service.running().0 == RunState::Run;
        if was_run {
            // What it said last may still be there.
            self.read_notification();
            self.notification = None;
        }
        self.handle(Event::Ended(exit));
    }

    /// Something has come on one of its descriptors.
    pub(crate) fn came(&mut self, source: Source) {
        match source {
            Source::Control => self.read_control(),
            Source::Adopted => {
                if let Some(pidfd) = self.adopted.take() {
                    self.shared.forget(&pidfd);
                    self.ended(Exit::Unknown);
                }
            }
            Source::Notification => self.read_notification(),
            Source::Alarm => self.alarm(),
            // That is for the service and its log together, see host.rs.
            Source::Directory => {}
        }
    }

    fn listen(&mut self) {
        // While a control script runs, letters wait in the fifo: there sv sees that they do.
        self.listening = self.service.queued() == 0;
        if self.listening {
            self.shared.watch(&self.files.control(), self.token, Source::Control);
        } else {
            self.shared.forget(&self.files.control());
        }
    }

    /// Hears nothing from its descriptors, until [`Unit::listen_to_all`].
    pub(crate) fn deafen(&self) {
        self.shared.forget(&self.files.control());
        self.adopted.iter().for_each(|pidfd| self.shared.forget(pidfd));
        self.notification.iter().for_each(|pipe| self.shared.forget(pipe));
        self.forget_alarm();
    }

    pub(crate) fn listen_to_all(&mut self) {
        self.listen();
        self.watch_notification();
        self.watch_alarm();
        self.adopted.iter().for_each(|pidfd| self.shared.watch(pidfd, self.token, Source::Adopted));
    }

    /// Reads what is in the control fifo and obeys it, byte by byte, in order. The last byte is
    /// read when supervise/ tells of those before it: then a fifo that is empty tells sv that they
    /// have been obeyed.
    fn read_control(&mut self) {
        let mut buffer = [0; 256];
        let unread = applet::sys::unread(&self.files.control()).unwrap_or(1);
        let most = unread.saturating_sub(1).clamp(1, buffer.len());
        if unread == 1 {
            self.save();
        }
        let Ok(n) = self.files.read_control(buffer.get_mut(..most).unwrap_or_default()) else { return };
        for command in buffer.iter().take(n).filter_map(|byte| Command::from_letter(*byte)) {
            self.handle(Event::Command(command));
        }
        self.released |= self.shared.is_keeping() && buffer.iter().take(n).any(|byte| *byte == RELEASE);
    }

    /// A line feed says that it is ready; after it, and at the end, nothing more is heard.
    fn read_notification(&mut self) {
        let Some(pipe) = &mut self.notification else { return };
        let mut buffer = [0; 64];
        let n = match pipe.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(_) => 0,
        };
        let ready = buffer.iter().take(n).any(|byte| *byte == b'\n');
        if (ready || n == 0)
            && let Some(pipe) = self.notification.take()
        {
            self.shared.forget(&pipe);
        }
        if ready {
            self.ready = Ready::Since(sys::now());
            self.handle(Event::Ready);
        }
    }

    /// Opens the log of this service.
    pub(crate) fn open_log(&self, wait: bool) -> Result<Unit, Fatal> {
        Unit::open(&self.shared, self.token | 1, &self.name, Role::Log, wait)
    }

    /// The log pipe has come while it may run already: the next ./run speaks into it.
    pub(crate) fn wired_late(&self) {
        if self.service.running().0 == RunState::Run {
            self.warn("there is a log now: ./run writes to it from its next start on");
        }
    }

    /// runsv ends in order: nothing is left to be taken over. The record goes first, and is not
    /// written once more: a runsv that is killed between the two leaves a status alone.
    pub(crate) fn close(&mut self) {
        self.files.remove_instance();
        self.recording = false;
        self.save();
    }
}

/// Inode of an open file; 0 when it cannot be told.
pub(crate) fn inode(fd: &OwnedFd) -> u64 {
    nix::sys::stat::fstat(fd).map_or(0, |s| s.st_ino)
}

fn signal_of(command: Command) -> Option<Signal> {
    match command {
        Command::Term => Some(Signal::SIGTERM),
        Command::Kill => Some(Signal::SIGKILL),
        Command::Pause => Some(Signal::SIGSTOP),
        Command::Continue => Some(Signal::SIGCONT),
        Command::Hangup => Some(Signal::SIGHUP),
        Command::Alarm => Some(Signal::SIGALRM),
        Command::Interrupt => Some(Signal::SIGINT),
        Command::Quit => Some(Signal::SIGQUIT),
        Command::Usr1 => Some(Signal::SIGUSR1),
        Command::Usr2 => Some(Signal::SIGUSR2),
        Command::Up | Command::Down | Command::Once | Command::Exit => None,
    }
}

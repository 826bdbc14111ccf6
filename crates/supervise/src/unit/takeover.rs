//! Taking over what a killed runsv left behind: the process, what was wanted of it, and what had
//! been heard from it.

use std::os::fd::OwnedFd;
use std::time::Duration;
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Unit;
use crate::cgroup::Cgroup;
use crate::files::{Fatal, unable};
use crate::instance::{self, Instance, Ready};
use crate::service::{Event, Exit, Found, Role, Service};
use crate::settings::is_shortage;
use crate::shared::Source;
use crate::{readiness, sys};
use applet::control::{Command, RunState, Status};

/// A process that was sent KILL has gone after this, or waits for something.
const LAST_GASP: Duration = Duration::from_millis(100);

impl Unit {
    /// What a killed runsv left behind; `None` when there was none, or it ended in order. An error
    /// when that cannot be told for want of descriptors or memory: a process that lives is neither
    /// doubled nor ended for that.
    pub(super) fn inherit(&mut self, role: Role) -> Result<Option<Service>, Fatal> {
        let Some(left) = instance::read(self.files.path(), || self.shared.boot()) else { return Ok(None) };
        unable("read the settings", self.read_settings())?;
        // Any other status that cannot be read must not hide a process that lives.
        let status = match fs::read(self.files.path().join("status")) {
            Err(e) if is_shortage(&e) => unable("read supervise/status", Err(e))?,
            read => read.ok().and_then(|bytes| Status::decode(&bytes)),
        };
        self.stamp = status.map_or(self.stamp, |s| s.since);
        self.since = left.since;
        unable(format!("look for process {}", left.pid), self.look_for(&left))?;
        let found = match (&self.adopted, left.state) {
            (Some(_), RunState::Finish) => Found::Finish { pid: left.pid, started: left.started() },
            (Some(_), _) => Found::Run { pid: left.pid, started: left.started() },
            (None, RunState::Run) => Found::RunEnded,
            (None, RunState::Finish | RunState::Down) => Found::Nothing,
        };
        match found {
            Found::Run { pid, .. } => self.take_over_run(pid, &left),
            Found::Finish { pid, .. } => self.last_was_killed("taking over ./finish", pid),
            Found::RunEnded | Found::Nothing => {}
        }
        if self.extras.cgroup {
            self.cgroup = Cgroup::open(self.dir, &self.name).ok();
        }
        let (paused, got_term) = status.map_or((false, false), |s| (s.paused, s.got_term));
        let service = Service::adopt(role, left.want, paused, got_term, found);
        let is_ready = matches!(left.ready, Ready::Since(_));
        let service = service.with_history(sys::now(), left.deaths, is_ready, self.extras.settings);
        let service = match found {
            Found::Nothing => service.with_last(left.exit.map(Exit::from_finish_args), left.once),
            Found::Run { .. } | Found::Finish { .. } | Found::RunEnded => service,
        };
        self.ready = left.ready;
        self.later.put_off = left.put_off;
        self.left = Some(left).filter(|_| self.adopted.is_some());
        Ok(Some(service))
    }

    /// The process that the last runsv had started, if it lives.
    fn look_for(&mut self, left: &Instance) -> io::Result<()> {
        if !left.alive()? {
            return Ok(());
        }
        match sys::pidfd_open(left.pid) {
            // Between the look at its start time and this its number may have changed hands: look
            // again.
            Ok(pidfd) => {
                if left.alive()? {
                    self.known = (left.pid, left.starttime);
                    self.adopt(pidfd);
                }
            }
            Err(e) if is_shortage(&e) => return Err(e),
            Err(e) if e.raw_os_error() == Some(Errno::ESRCH as i32) => {}
            Err(_) => self.end_orphan(left)?,
        }
        Ok(())
    }

    fn take_over_run(&mut self, pid: u32, left: &Instance) {
        let file = match self.role {
            Role::Main => "./run",
            Role::Log => "./log/run",
        };
        let what = if self.extras.no_takeover { "ending" } else { "taking over" };
        self.last_was_killed(&format!("{what} {file}"), pid);
        if let (Some(number), Ready::Awaited) = (self.extras.notification_fd, left.ready) {
            self.notification = readiness::reopen(pid, number).ok();
            self.watch_notification();
        }
    }

    fn last_was_killed(&self, what: &str, pid: u32) {
        self.warn(&format!("the last runsv was killed: {what} (pid {pid})"));
    }

    /// Its process is about to be a child of another process, see [`crate::host::Host::disown`],
    /// unless it is one of those that have `ended`. Where its directory is not `entered` it hears
    /// nothing now.
    pub(crate) fn disown(&mut self, ended: &[u32], entered: bool) -> io::Result<()> {
        // The answer of a control script is not heard any more: the signal is sent. This comes
        // first, since control/u may be followed by ./run.
        while entered && self.script.take().is_some() {
            self.handle(Event::Control { handled: false });
        }
        let ours = self.service.running().1.filter(|pid| self.adopted.is_none() && !ended.contains(pid));
        if let Some(pid) = ours {
            // We have not waited for it: even if it has ended, its number is its own.
            self.adopted = Some(sys::pidfd_open(pid)?);
        }
        if entered {
            self.listen_to_all();
        }
        Ok(())
    }

    fn adopt(&mut self, pidfd: OwnedFd) {
        self.shared.watch(&pidfd, self.token, Source::Adopted);
        self.adopted = Some(pidfd);
    }

    /// A kernel without pidfd (before 5.3) cannot tell us its end: it must not live beside a second
    /// one. One that waits for a disk ends later.
    fn end_orphan(&self, left: &Instance) -> io::Result<()> {
        self.warn(&format!("unable to watch the instance of the last runsv (pid {}): killing it", left.pid));
        let Ok(pid) = i32::try_from(left.pid) else { return Ok(()) };
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        let until = sys::now() + LAST_GASP;
        while left.alive()? {
            if sys::now() > until {
                return Err(io::Error::other("it does not end"));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// The record of a process that was adopted, for the search of the log pipe.
    pub(crate) fn left_behind(&self) -> Option<&Instance> {
        self.left.as_ref()
    }

    /// The log pipe is known now.
    pub(crate) fn wired(&mut self) {
        (self.recording, self.dirty) = (true, true);
        self.pipe = self.left.as_ref().map_or(0, |left| left.pipe);
        if self.adopted.is_some() && self.extras.no_takeover {
            self.handle(Event::Command(Command::Term));
        }
        self.left = None;
    }
}

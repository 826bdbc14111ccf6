//! Taking over what a killed runsv left behind: the process, what was wanted of it, and what had been heard from it.

use std::fs;
use std::os::fd::OwnedFd;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Unit;
use crate::cgroup::Cgroup;
use crate::control::{Command, RunState, Status};
use crate::instance::{self, Instance, Ready};
use crate::service::{Event, Exit, Found, Role, Service};
use crate::shared::Source;
use crate::{readiness, sys};

impl Unit {
    /// What a killed runsv left behind; `None` when there was none, or it ended in order.
    pub(super) fn inherit(&mut self, role: Role) -> Option<Service> {
        let left = instance::read(self.files.path(), || self.shared.boot())?;
        let _ = self.read_settings();
        // A status that cannot be read must not hide a process that lives.
        let status = fs::read(self.files.path().join("status")).ok().and_then(|bytes| Status::decode(&bytes));
        self.stamp = status.map_or(self.stamp, |s| s.since);
        self.since = left.since;
        let alive = left.alive();
        if alive {
            // Between the look at its start time and this its number cannot have changed hands unseen: look again.
            let pidfd = sys::pidfd_open(left.pid).ok().filter(|_| left.alive());
            match pidfd {
                Some(pidfd) => self.adopt(pidfd),
                None => self.end_orphan(&left),
            }
        }
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
        let (paused, got_term) = status.map_or((false, false), |s| (s.paused, s.got_term));
        let service = Service::adopt(role, left.want, paused, got_term, found);
        let is_ready = matches!(left.ready, Ready::Since(_));
        let service = service.with_history(left.deaths, is_ready, self.extras.settings);
        let service = match found {
            Found::Nothing => service.with_last(left.exit.map(Exit::from_finish_args), left.once),
            Found::Run { .. } | Found::Finish { .. } | Found::RunEnded => service,
        };
        self.ready = left.ready;
        self.left = Some(left).filter(|_| self.adopted.is_some());
        Some(service)
    }

    fn take_over_run(&mut self, pid: u32, left: &Instance) {
        let file = match self.role {
            Role::Main => "./run",
            Role::Log => "./log/run",
        };
        let what = if self.extras.no_takeover { "ending" } else { "taking over" };
        self.last_was_killed(&format!("{what} {file}"), pid);
        if self.extras.cgroup {
            self.cgroup = Cgroup::open(self.dir, &self.name).ok();
        }
        if let (Some(number), Ready::Awaited) = (self.extras.notification_fd, left.ready) {
            self.notification = readiness::reopen(pid, number).ok();
            self.watch_notification();
        }
    }

    fn last_was_killed(&self, what: &str, pid: u32) {
        self.warn(&format!("the last runsv was killed: {what} (pid {pid})"));
    }

    fn adopt(&mut self, pidfd: OwnedFd) {
        self.shared.watch(&pidfd, self.token, Source::Adopted);
        self.adopted = Some(pidfd);
    }

    /// A kernel without pidfd (before 5.3) cannot tell us its end: it must not live beside a second one.
    fn end_orphan(&self, left: &Instance) {
        self.warn(&format!("unable to watch the instance of the last runsv (pid {}): killing it", left.pid));
        let Ok(pid) = i32::try_from(left.pid) else { return };
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        while left.alive() {
            std::thread::yield_now();
        }
    }

    /// The record of a process that was adopted, for the search of the log pipe.
    pub(crate) fn left_behind(&self) -> Option<&Instance> {
        self.left.as_ref()
    }

    /// The log pipe is known now.
    pub(crate) fn wired(&mut self) {
        (self.recording, self.dirty) = (true, true);
        if self.adopted.is_some() && self.extras.no_takeover {
            self.handle(Event::Command(Command::Term));
        }
        self.left = None;
    }
}

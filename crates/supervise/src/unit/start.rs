//! A unit's children: ./run, ./finish and the control scripts, with what the settings want them to
//! have.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::{io, iter};

use nix::libc::O_NONBLOCK;

use super::{Unit, inode};
use crate::cgroup::Cgroup;
use crate::instance::{Instance, Ready};
use crate::service::{Event, Role};
use crate::settings::{self, is_shortage};
use crate::shared::Source;
use crate::spawn::{Plan, Started};
use crate::{readiness, sys};
use applet::control::{RunState, error_text};

/// The answer to [`Action::Control`] when there is no script.
const NOT_HANDLED: Option<Event> = Some(Event::Control { handled: false });

impl Unit {
    pub(super) fn read_settings(&mut self) -> io::Result<()> {
        let extras = settings::read(self.dir)?;
        if extras.complaints != self.complaints.settings {
            extras.complaints.iter().for_each(|text| self.warn(text));
            self.complaints.settings.clone_from(&extras.complaints);
        }
        self.extras = extras;
        Ok(())
    }

    /// The settings that it was started with, and what became of it.
    pub(super) fn start_run(&mut self) -> Vec<Event> {
        match self.read_settings() {
            Ok(()) => vec![Event::Settings(self.extras.settings), self.run()],
            Err(e) => vec![self.fork_failed(&e)],
        }
    }

    fn run(&mut self) -> Event {
        self.later.put_off = 0;
        self.notification = None;
        let pass = self.extras.notification_fd.and_then(|number| Some((self.notifying(number)?, number)));
        self.ready = if pass.is_some() { Ready::Awaited } else { Ready::Unasked };
        let cgroup = self.join_cgroup();
        let event = self.start("./run", &[], RunState::Run, pass, cgroup);
        if let Event::Started { .. } = event {
            self.watch_notification();
        }
        event
    }

    /// The write end of a new pipe, for the child.
    fn notifying(&mut self, number: i32) -> Option<OwnedFd> {
        match readiness::pipe() {
            Ok((read, write)) => {
                self.notification = Some(read);
                Some(write)
            }
            Err(e) => {
                self.warn(&format!("unable to pass descriptor {number}: {}", error_text(&e)));
                None
            }
        }
    }

    pub(super) fn watch_notification(&self) {
        if let Some(pipe) = &self.notification {
            self.shared.watch(pipe, self.token, Source::Notification);
        }
    }

    fn join_cgroup(&mut self) -> Option<OwnedFd> {
        if !self.extras.cgroup {
            self.cgroup = None;
            return None;
        }
        match Cgroup::open(self.dir, &self.name).and_then(|group| Ok((group.procs()?, group))) {
            Ok((procs, group)) => {
                self.cgroup = Some(group);
                Some(procs)
            }
            Err(e) => {
                self.complain_start(format!("warning: ./cgroup: unable to make a cgroup: {}", error_text(&e)));
                None
            }
        }
    }

    fn plan(&self, program: &str, args: &[String]) -> io::Result<Plan<'_>> {
        let words = iter::once(program).chain(args.iter().map(String::as_str));
        let mut plan = Plan::new(Path::new(program), words.map(OsStr::new), self.dir)?;
        plan.stdin = self.wiring.stdin.as_ref().map(AsFd::as_fd);
        plan.stdout = self.wiring.stdout.as_ref().map(AsFd::as_fd);
        plan.session = self.shared.sessions();
        plan.limit = self.shared.given_limit();
        plan.name(Path::new(&*self.name))?;
        Ok(plan)
    }

    fn start(
        &mut self,
        program: &str,
        args: &[String],
        state: RunState,
        pass: Option<(OwnedFd, i32)>,
        cgroup: Option<OwnedFd>,
    ) -> Event {
        let since = if state == RunState::Run { sys::now() } else { self.since };
        self.pipe = [&self.wiring.stdin, &self.wiring.stdout].into_iter().flatten().next().map_or(0, inode);
        let record = Instance { since, ..self.instance(state) };
        let text = record.render_for_child();
        let started = self.plan(program, args).and_then(|mut plan| {
            (plan.pass, plan.cgroup) = (pass, cgroup);
            plan.record(&self.files.instance(), text)?;
            plan.spawn()
        });
        match started {
            Ok(Started { pid, starttime, recorded }) => {
                if state == RunState::Run {
                    self.complaints.start = None;
                    self.begun = Some(since);
                }
                self.known = (pid, starttime);
                // One that could not be written, as on a full disk, has to be written yet.
                let written = recorded.then(|| Instance { pid, starttime, ..record }.render());
                self.files.instance_is(written);
                Event::Started { pid }
            }
            Err(e) => {
                // The child may have written one.
                self.files.instance_is(None);
                if is_shortage(&e) {
                    return self.fork_failed(&e);
                }
                let log = match self.role {
                    Role::Main => "",
                    Role::Log => "log/",
                };
                self.complain_start(format!("fatal: unable to start {log}{program}: {}", error_text(&e)));
                Event::ExecFailed
            }
        }
    }

    fn fork_failed(&mut self, e: &io::Error) -> Event {
        self.complain_start(format!("warning: unable to fork, pausing: {}", error_text(e)));
        Event::ForkFailed
    }

    /// Said once, not at every try.
    fn complain_start(&mut self, text: String) {
        if self.complaints.start.as_ref() != Some(&text) {
            self.say(&text);
            self.complaints.start = Some(text);
        }
    }

    pub(super) fn start_finish(&mut self, code: i32, status: u8) -> Event {
        // A fifo would wait for a writer.
        match OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(self.dir.join("finish")) {
            Err(e) if is_shortage(&e) => self.fork_failed(&e),
            Err(_) => Event::NoFinish,
            Ok(_) => {
                let args = [code.to_string(), status.to_string()];
                self.start("./finish", &args, RunState::Finish, None, None)
            }
        }
    }

    pub(super) fn start_control(&mut self, letter: u8) -> Option<Event> {
        let file = format!("control/{}", char::from(letter));
        let executable = fs::metadata(self.dir.join(&file)).is_ok_and(|m| m.permissions().mode() & 0o100 != 0);
        if !executable {
            return NOT_HANDLED;
        }
        // runit's master tells the script which process its letter is for; 0: none yet.
        let pid = self.service.running().1.unwrap_or(0);
        match self.plan(&file, &[pid.to_string()]).and_then(Plan::spawn) {
            Ok(started) => {
                self.script = Some(started.pid);
                None
            }
            Err(e) => {
                self.warn(&format!("unable to run {file}: {}", error_text(&e)));
                NOT_HANDLED
            }
        }
    }
}

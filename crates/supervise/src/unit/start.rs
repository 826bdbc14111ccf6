//! A unit's children: ./run, ./finish and the control scripts, with what the settings want them to have.
#![expect(clippy::disallowed_methods, reason = "starts processes")]

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command as Process, Stdio};

use super::Unit;
use crate::cgroup::Cgroup;
use crate::control::{RunState, error_text};
use crate::service::Event;
use crate::settings::{self, is_shortage};
use crate::shared::Source;
use crate::{instance, readiness, say, sys};

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

    pub(super) fn start_run(&mut self) -> Event {
        if let Err(e) = self.read_settings() {
            return self.fork_failed(&e);
        }
        // Its answer is none, so that it can be told aside.
        let _ = self.service.step(sys::now(), Event::Settings(self.extras.settings));
        let mut process = Process::new("./run");
        self.ready_at = None;
        self.notification = None;
        let notifying = self.extras.notification_fd.and_then(|number| self.notifying(&mut process, number));
        self.join_cgroup(&mut process);
        let event = self.start(process, "./run");
        drop(notifying);
        if let Event::Started { .. } = event {
            self.watch_notification();
        }
        event
    }

    /// Gives the child the write end of a new pipe as descriptor `number`.
    fn notifying(&mut self, process: &mut Process, number: i32) -> Option<readiness::Passed> {
        match readiness::pass(process, number) {
            Ok((read, passed)) => {
                self.notification = Some(read);
                Some(passed)
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

    fn join_cgroup(&mut self, process: &mut Process) {
        if !self.extras.cgroup {
            self.cgroup = None;
            return;
        }
        match Cgroup::open(self.dir, &self.name).and_then(|group| group.join(process).map(|()| group)) {
            Ok(group) => self.cgroup = Some(group),
            Err(e) => {
                let text = format!("./cgroup: unable to make a cgroup: {}", error_text(&e));
                if self.complaints.start.as_ref() != Some(&text) {
                    self.warn(&text);
                    self.complaints.start = Some(text);
                }
            }
        }
    }

    fn spawn(&self, mut process: Process) -> io::Result<u32> {
        if self.shared.sessions() {
            sys::new_session(&mut process);
        }
        // From here on, so that the children get the limit that we were given.
        let _given = self.shared.given_limit();
        if let Some(stdin) = &self.wiring.stdin {
            process.stdin(Stdio::from(stdin.try_clone()?));
        }
        if let Some(stdout) = &self.wiring.stdout {
            process.stdout(Stdio::from(stdout.try_clone()?));
        }
        // Without pre_exec std uses posix_spawn(3): no copy of our page tables.
        process.current_dir(self.dir).spawn().map(|child| child.id())
    }

    fn start(&mut self, process: Process, what: &str) -> Event {
        match self.spawn(process) {
            Ok(pid) => {
                let (state, since) = if what == "./finish" {
                    (RunState::Finish, self.since)
                } else {
                    self.complaints.start = None;
                    (RunState::Run, sys::now())
                };
                self.known = (pid, instance::starttime(pid).unwrap_or(0));
                // At once: what is not written down cannot be taken over.
                self.save_instance(state, pid, since);
                Event::Started { pid }
            }
            Err(e) if is_shortage(&e) => self.fork_failed(&e),
            Err(e) => {
                self.complain_start(format!("fatal: unable to start {what}: {}", error_text(&e)));
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
            say::error(format_args!("runsv {}: {text}\n", self.name));
            self.complaints.start = Some(text);
        }
    }

    pub(super) fn start_finish(&mut self, code: i32, status: u8) -> Event {
        match File::open(self.dir.join("finish")) {
            Err(e) if is_shortage(&e) => self.fork_failed(&e),
            Err(_) => Event::NoFinish,
            Ok(_) => {
                let mut process = Process::new("./finish");
                process.args([code.to_string(), status.to_string()]);
                self.start(process, "./finish")
            }
        }
    }

    pub(super) fn start_control(&mut self, letter: u8) -> Option<Event> {
        let file = format!("control/{}", char::from(letter));
        let executable = fs::metadata(self.dir.join(&file)).is_ok_and(|m| m.permissions().mode() & 0o100 != 0);
        let script = if executable { self.spawn(Process::new(format!("./{file}"))) } else { return NOT_HANDLED };
        match script {
            Ok(pid) => {
                self.script = Some(pid);
                None
            }
            Err(e) => {
                self.warn(&format!("unable to run {file}: {}", error_text(&e)));
                NOT_HANDLED
            }
        }
    }
}

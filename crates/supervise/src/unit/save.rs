//! Writing down how a unit is: supervise/status and its companions, the record for the next runsv,
//! and a supervise/ that has been removed. What it is not: the files (files.rs) or what they say
//! (service.rs).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::{SAVE_AGAIN, Unit};
use crate::files::{Fatal, Files};
use crate::instance::{self, Instance, Ready};
use crate::service::{Event, Exit, Role};
use crate::sys;
use applet::control::{RunState, Status, error_text};

impl Unit {
    /// Something has changed that supervise/ does not say yet, and now is the time to write it.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty && self.save_at.is_none_or(|at| sys::now() >= at)
    }

    /// When something is due, CLOCK_BOOTTIME.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.service.deadline().into_iter().chain(self.save_at).min()
    }

    /// Writes what changed.
    pub(crate) fn save(&mut self) {
        if !self.is_dirty() {
            return;
        }
        (self.dirty, self.save_at) = (false, None);
        match self.save_all() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.mend(),
            result => self.saved(result),
        }
    }

    /// What cannot be written is said once, and tried again.
    pub(super) fn saved(&mut self, result: io::Result<()>) {
        let complaint = result.err().map(|e| e.to_string());
        if complaint.is_some() {
            (self.dirty, self.save_at) = (true, Some(sys::now() + SAVE_AGAIN));
        }
        if let Some(text) = complaint.as_ref().filter(|text| self.complaints.save.as_ref() != Some(text)) {
            self.warn(text);
        }
        self.complaints.save = complaint;
    }

    /// The status alone. Where that fails it is said when all is written.
    pub(super) fn save_status(&self) {
        let _ = self.files.save_status(&self.status());
    }

    fn status(&self) -> Status {
        let (state, pid) = self.service.running();
        Status {
            since: self.stamp,
            pid,
            paused: self.service.paused(),
            want: self.service.want(),
            got_term: self.service.got_term(),
            state,
        }
    }

    pub(super) fn save_all(&mut self) -> io::Result<()> {
        let status = self.status();
        let (state, pid) = (status.state, status.pid);
        let recorded = if self.recording { self.save_instance(state, pid.unwrap_or(0)) } else { Ok(()) };
        self.files.save(&status, &self.service.stat()).and(recorded)
    }

    pub(super) fn save_instance(&mut self, state: RunState, pid: u32) -> io::Result<()> {
        if pid != 0 && (self.known.0 != pid || self.known.1 == 0) {
            // Only by it this process is told from another that gets its number.
            let start = instance::starttime(pid).map_err(|e| {
                let text = format!("unable to read /proc/{pid}/stat: {}", error_text(&e));
                io::Error::new(e.kind(), text)
            })?;
            self.known = (pid, start.unwrap_or(0));
        }
        let record = Instance { pid, starttime: if pid == 0 { 0 } else { self.known.1 }, ..self.instance(state) };
        self.files.save_instance(record.render())
    }

    /// Looks whether supervise/ is still there: without it this runsv cannot be reached.
    pub(crate) fn look(&mut self) {
        if !self.files.in_place() {
            self.mend();
        }
        // A file `again` may have come, or gone.
        self.handle(Event::Tick);
    }

    /// supervise/ is gone. If the service directory is, too, the service has been removed; else it
    /// is made anew.
    pub(super) fn mend(&mut self) {
        let gone = fs::metadata(self.dir).map_or(true, |stat| stat.nlink() == 0);
        match (gone, self.role) {
            (true, Role::Main) => {
                if !self.service.leaving() {
                    self.warn("the service directory was removed: exiting");
                    self.handle(Event::Terminate);
                }
            }
            // The log goes on as it is. If its directory comes again that is seen, see host.rs.
            (true, Role::Log) => {
                if self.complaints.save.is_none() {
                    self.warn("the directory was removed");
                    self.complaints.save = Some(String::new());
                }
            }
            // It is just being removed, as by rm -r, which a new supervise/ would keep from ending.
            (false, _) if !self.dir.join("run").exists() => {}
            (false, _) => {
                let remade = self.remake();
                self.saved(remade);
            }
        }
    }

    pub(super) fn remake(&mut self) -> io::Result<()> {
        let files = Files::open(self.dir, self.role, false).map_err(|Fatal(text)| io::Error::other(text))?;
        self.shared.forget(&self.files.control());
        self.files = files;
        self.listen();
        self.save_all()
    }

    /// The record as it is now, without the process.
    pub(super) fn instance(&self, state: RunState) -> Instance {
        Instance {
            state,
            want: self.service.want(),
            pid: 0,
            starttime: 0,
            boot: self.shared.boot().to_owned(),
            pipe: self.pipe,
            since: self.since,
            ready: if state == RunState::Run { self.ready } else { Ready::Unasked },
            deaths: self.service.deaths(),
            exit: self.service.last_exit().map(Exit::finish_args),
            once: self.service.once(),
            again: self.service.again().unwrap_or_default(),
            put_off: self.later.put_off,
        }
    }
}

//! What sv knows of a service: runit's 20 bytes, the two files beside them that change what is
//! said, and the record that a runsv of ours keeps (instance.rs). What it is not: how that is shown
//! (text.rs, table.rs, json.rs) or waited for (wait.rs).
#![expect(
    clippy::disallowed_methods,
    reason = "without a record the age of a state is what the wall clock says, as in runit"
)]

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use nix::unistd::{AccessFlags, access};

use crate::instance::{self, Instance, Ready};
use crate::sys;
use applet::control::{ControlError, RunState, ServiceDir, Status, Tai64n, Want, below};

/// One service, or one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) status: Status,
    /// How long the state has lasted.
    pub(super) age_secs: u64,
    /// There is no file `down`.
    pub(super) normally_up: bool,
    /// Whether it has said that it is ready; `None` when it was not asked to.
    pub(super) ready: Option<bool>,
    /// In how many seconds its file `again` starts it, rounded up.
    pub(super) again_secs: Option<u64>,
    /// From the record, if there is one.
    pub(super) recorded: Option<Recorded>,
}

/// What only a runsv of ours tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) deaths: u64,
    /// As ./finish was told: exit code or -1, and the low byte of the wait status.
    pub(super) exit: Option<(i32, u8)>,
    /// That run was the only one that was wanted, and ended by itself.
    pub(super) once: bool,
}

impl Facts {
    /// Whether a one-shot service has done what it is for; `None` while it runs, or when it was put
    /// down.
    pub(super) fn is_done(&self) -> Option<bool> {
        let last = self.recorded.as_ref().filter(|last| last.once)?;
        let rests = (self.status.state, self.status.want) == (RunState::Down, Want::Down);
        rests.then_some(last.exit == Some((0, 0)))
    }
}

/// A service and its log.
pub(super) struct Report<'a> {
    /// As on the command line.
    pub(super) name: &'a OsStr,
    pub(super) main: Result<Facts, ControlError>,
    /// `None` when there is no directory `log`.
    pub(super) log: Option<Result<Facts, ControlError>>,
}

/// Reads them.
#[derive(Default)]
pub(super) struct Reader {
    /// This boot; read once, and not at all where no record is.
    boot: OnceCell<String>,
}

impl Reader {
    /// `services`: the directory that the name is relative to, empty when that is the working
    /// directory.
    pub(super) fn report<'a>(&self, services: &Path, name: &'a OsStr) -> Report<'a> {
        let dir = ServiceDir::resolve_in(services, name);
        let log = below(dir.path(), "log");
        let log = log.is_dir().then(|| self.facts(&ServiceDir::at(log)));
        Report { name, main: self.facts(&dir), log }
    }

    /// An error when no runsv runs there, or it cannot be known.
    pub(super) fn facts(&self, dir: &ServiceDir) -> Result<Facts, ControlError> {
        dir.check_running()?;
        let mut status = dir.status()?;
        let mut record = self.record(dir);
        if record.as_ref().is_some_and(|record| !fits(record, &status)) {
            // It is written first: between the two files the state has changed.
            status = dir.status()?;
            record = self.record(dir);
        }
        let fitting = record.as_ref().filter(|record| fits(record, &status));
        let age_secs = match fitting {
            Some(record) => sys::now().saturating_sub(record.since).as_secs(),
            None => Tai64n::from_system_time(SystemTime::now()).secs.saturating_sub(status.since.secs),
        };
        let ready = match fitting {
            Some(Instance { ready: Ready::Since(_), .. }) => Some(true),
            Some(Instance { ready: Ready::Awaited, .. }) => Some(false),
            Some(Instance { ready: Ready::Unasked, .. }) | None => None,
        };
        let again = fitting.map(|record| record.again).filter(|at| !at.is_zero());
        let again_secs =
            again.map(|at| at.saturating_sub(sys::now()).as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX));
        let recorded = record.map(|record| Recorded { deaths: record.deaths, exit: record.exit, once: record.once });
        let normally_up = !is_there(&below(dir.path(), "down"));
        Ok(Facts { status, age_secs, normally_up, ready, again_secs, recorded })
    }

    /// The record of this boot.
    fn record(&self, dir: &ServiceDir) -> Option<Instance> {
        instance::read(dir.supervise(), || self.boot.get_or_init(|| instance::boot().unwrap_or_default()))
    }
}

/// Whether the record tells of the state that the status tells of. runit's runsv leaves a record
/// that it finds as it is.
fn fits(record: &Instance, status: &Status) -> bool {
    (record.state, record.pid) == (status.state, status.pid.unwrap_or(0))
}

fn is_there(path: &Path) -> bool {
    access(path, AccessFlags::F_OK).is_ok()
}

/// The names of the services in `dir`, sorted: what a shell makes of `*`, without what is no
/// directory.
pub(super) fn names(dir: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        let is_dir = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
        if is_dir && name.as_bytes().first() != Some(&b'.') {
            names.push(name);
        }
    }
    applet::sort::sort(&mut names);
    Ok(names)
}

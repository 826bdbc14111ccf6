//! What runs the services of a runsvdir: a runsv each, children of ours, or with `-1` all of them
//! in this process.
//!
//! What it is: starting and stopping one of either kind, by a number: its process id or its place
//! in the set; and handing over those in this process to a copy of it. What it is not: which
//! (scan.rs) or when (runsvdir.rs, which calls this).

use std::collections::HashSet;
use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, access};

use crate::files::Fatal;
use crate::host::Host;
use crate::scan::Event;
use crate::service::Exit;
use crate::shared::Shared;
use crate::spawn::Plan;
use crate::sys;
use applet::control::error_text;

/// execvp(3): where PATH is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Our own executable.
const OWN: &str = "/proc/self/exe";

pub(super) struct Runners {
    /// `-P`, where it is done here.
    sessions: bool,
    /// The device and inode of our own executable.
    own: Option<(u64, u64)>,
    /// Our runsvs that live.
    children: HashSet<u32>,
    /// The services in this process.
    host: Option<Host>,
}

impl Runners {
    pub(super) fn new(one_process: bool, sessions: bool) -> io::Result<Runners> {
        let host = if one_process { Some(Host::new(Shared::hosting(sessions)?)) } else { None };
        let own = fs::metadata(OWN).ok().map(|found| (found.dev(), found.ino()));
        Ok(Runners { sessions, own, children: HashSet::new(), host })
    }

    /// Whether services live in this process.
    pub(super) fn here(&self) -> bool {
        self.host.is_some()
    }

    /// Whether nothing runs any more.
    pub(super) fn is_empty(&self) -> bool {
        self.children.is_empty() && self.host.as_ref().is_none_or(Host::is_empty)
    }

    /// Starts the service `name` in `dir`, or with `end` only a supervisor that ends what is left
    /// of it; its number, or what to say.
    pub(super) fn start(&mut self, dir: &Path, name: &OsStr, end: bool) -> Result<u32, String> {
        let Some(host) = &mut self.host else {
            let started = self.spawn(dir, name);
            let pid = started.map_err(|e| format!("unable to start runsv {}: {}", name.display(), error_text(&e)))?;
            self.children.insert(pid);
            return Ok(pid);
        };
        let shown = name.to_string_lossy();
        let opened = File::open(dir.join(name)).map(OwnedFd::from);
        let opened = opened.map_err(|e| format!("{shown}: unable to open directory: {}", error_text(&e)))?;
        let slot = host.add(Some(opened), name, end).map_err(|Fatal(text)| format!("{shown}: {text}"))?;
        Ok(u32::try_from(slot).unwrap_or(u32::MAX))
    }

    /// Starts the first runsv in PATH, as execvp(3) looks for it; else the one in our own
    /// executable.
    fn spawn(&self, dir: &Path, name: &OsStr) -> io::Result<u32> {
        let path = env::var_os("PATH").unwrap_or(DEFAULT_PATH.into());
        let found = env::split_paths(&path).map(|at| at.join("runsv"));
        let mut found = found.filter_map(|file| Some((program(&dir.join(&file))?, file)));
        let (which, program) = found.next().map_or((self.own, OWN.into()), |(which, file)| (Some(which), file));
        let mut plan = Plan::new(&program, [OsStr::new("runsv"), name], dir)?;
        plan.session = self.sessions;
        // A TERM of ours would kill a runsv that has no handler yet, and its service would live on.
        // Our runsv unblocks the signal when it has one. Another's might never do that.
        plan.held = Some(Signal::SIGTERM).filter(|_| which == self.own);
        plan.spawn().map(|started| started.pid)
    }

    /// As if TERM was sent to its runsv.
    pub(super) fn stop(&mut self, id: u32) {
        match (&mut self.host, i32::try_from(id)) {
            (Some(host), _) => host.terminate(id as usize),
            (None, Ok(pid)) => {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            (None, Err(_)) => {}
        }
    }

    /// As if TERM was sent to the runsv of each service in this process.
    pub(super) fn stop_all(&mut self) {
        if let Some(host) = &mut self.host {
            host.terminate_all();
        }
    }

    /// This process is about to end, and its services go on. With `-1` it makes a copy of itself
    /// that goes on with them. In the copy the result is that of `begin`, else `None`.
    pub(super) fn hand_over<T>(&mut self, begin: impl FnOnce() -> T) -> io::Result<Option<T>> {
        // The end of process 1 is the end of every process of its namespace.
        let Some(host) = self.host.as_mut().filter(|host| !host.is_empty() && std::process::id() != 1) else {
            return Ok(None);
        };
        // The pidfds are open before the fork, so there is no moment without a supervisor.
        host.disown()?;
        let begun = sys::fork(begin)?;
        if begun.is_some() && self.sessions {
            // With -P each runsv has a session of its own, so that a KILL to the process group of
            // runsvdir does not reach it.
            let _ = nix::unistd::setsid();
        }
        Ok(begun)
    }

    /// A child has ended: what that is to the scanner, if it was a runsv.
    pub(super) fn reaped(&mut self, pid: u32, exit: Exit) -> Option<Event> {
        if let Some(host) = &mut self.host {
            host.reaped(pid, exit);
            return None;
        }
        // Another child is an orphan that the kernel has given to the first process.
        let ours = self.children.remove(&pid);
        ours.then_some(Event::Ended { pid, told: exit == Exit::Code(0) })
    }

    /// Writes down every change. Returns the numbers of the services in this process that have
    /// ended as they were told to.
    pub(super) fn settle(&mut self) -> Vec<u32> {
        let ended = self.host.as_mut().map(Host::settle).unwrap_or_default();
        ended.into_iter().filter_map(|slot| u32::try_from(slot).ok()).collect()
    }

    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.host.as_ref().map(Host::as_fd)
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.host.as_ref().and_then(Host::deadline)
    }

    pub(super) fn dispatch(&mut self) {
        if let Some(host) = &mut self.host {
            host.dispatch();
        }
    }

    pub(super) fn tick(&mut self, now: Duration) {
        if let Some(host) = &mut self.host {
            host.tick(now);
        }
    }
}

/// The device and inode of a file that we may execute.
fn program(file: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    access(file, AccessFlags::X_OK).ok()?;
    Some((found.dev(), found.ino()))
}

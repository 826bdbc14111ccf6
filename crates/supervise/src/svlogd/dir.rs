//! One log directory: its lock, its `current`, its old files and their processor.
//!
//! It is not: deciding when to rotate or what to remove (rotate.rs) or what a line is (line.rs).
//! Called by svlogd.rs. Files and modes are svlogd(8)'s contract: `current` is 0644 (or what config
//! says) while it is written, and has the owner's execute bit when it was closed with all its bytes
//! on disk.

#![expect(clippy::disallowed_methods, reason = "a shell: stamps of rotated files are wall clock time")]

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, fchdir};

use super::config::Config;
use super::record::{Done, FileId, Progress, Start};
use super::rotate::{Age, Growth, Processor, ProcessorEvent, Room, is_leftover, oldest, unused_stamp};
use super::wait::{Input, Pending, Signals};
use crate::sys::now;
use applet::control::{Tai64n, error_text};

mod processor;

/// Formatted lines are written when this many bytes wait, at the latest: input of many empty lines
/// grows 27-fold.
const FLUSH_AT: usize = 64 * 1024;
/// Wait between tries when a write or rename does not work (runit's).
const PAUSE: Duration = Duration::from_secs(3);
const CURRENT: &str = "current";

/// What all directories share.
pub(super) struct Context {
    pub(super) verbose: bool,
    /// `-l`
    pub(super) len: usize,
    pub(super) signals: Signals,
    /// Where svlogd was started: names of log directories are relative to it.
    pub(super) start: OwnedFd,
}

impl Context {
    pub(super) fn info(&self, text: &str) {
        if self.verbose {
            applet::say::error(format_args!("svlogd: info: {text}\n"));
        }
    }
}

pub(super) fn warn(text: &str) {
    applet::say::error(format_args!("svlogd: warning: {text}\n"));
}

pub(super) fn warn_error(what: &str, name: &str, error: &io::Error) {
    warn(&format!("{what}: {name}: {}", error_text(error)));
}

/// A log directory that no other svlogd writes to, before anything in it was touched.
pub(super) struct Locked {
    /// As it was given, for messages.
    name: String,
    pub(super) fd: OwnedFd,
    id: FileId,
    /// Held as long as the directory is open.
    _lock: Flock<File>,
}

/// An open log directory.
pub(super) struct LogDir {
    at: Locked,
    current: File,
    current_id: FileId,
    pub(super) config: Config,
    growth: Growth,
    age: Age,
    /// Bytes that belong into `current` and are not written yet.
    out: Vec<u8>,
    processor: Processor<Pid>,
    /// The line that is being read goes to the file.
    pub(super) selected: bool,
    /// How much of the piece in hand is in the file, or waits to be written to it.
    pub(super) done: Done,
}

/// What [`LogDir::put`] did.
pub(super) struct Put {
    /// So many bytes are behind what was there.
    pub(super) count: usize,
    /// The file is full: nothing more fits before [`LogDir::rotate`].
    pub(super) full: bool,
}

type Trouble = (&'static str, io::Error);

impl Locked {
    /// Locks it, or says why not.
    pub(super) fn new(path: &OsStr, context: &Context) -> Option<Locked> {
        let name = path.to_string_lossy();
        Locked::try_new(path, &name, context).map_err(|(what, error)| warn_error(what, &name, &error)).ok()
    }

    fn try_new(path: &OsStr, name: &str, context: &Context) -> Result<Locked, Trouble> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = openat(&context.start, path, flags, Mode::empty())
            .map_err(|e| ("unable to open log directory", e.into()))?;
        fchdir(&fd).map_err(|e| ("unable to change directory", e.into()))?;
        let id = fs::metadata(".").map(|meta| file_id(&meta)).map_err(|e| ("unable to stat log directory", e))?;
        let lock = append_to("lock", 0o600).map_err(|e| ("unable to lock directory", e))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, e)| ("unable to lock directory", e.into()))?;
        Ok(Locked { name: name.to_owned(), fd, id, _lock: lock })
    }

    /// Opens its files, or says why not. `start` is what is known of it, and whether what is beyond
    /// that in `current` is to be cut off because it will be read again.
    pub(super) fn open(self, context: &mut Context, start: &Start) -> Option<LogDir> {
        let name = self.name.clone();
        self.try_open(context, start).map_err(|(what, error)| warn_error(what, &name, &error)).ok()
    }

    fn try_open(self, context: &mut Context, start: &Start) -> Result<LogDir, Trouble> {
        self.enter();
        let name = self.name.as_str();
        let progress = start.state.of(self.id).copied();
        if start.cut
            && let Some(progress) = &progress
        {
            undo(progress).map_err(|e| ("unable to truncate current", e))?;
        }
        let config = read_config(name, context);
        let (fresh, crashed) = match fs::metadata(CURRENT) {
            Ok(meta) if meta.size() > 0 && meta.mode() & 0o100 == 0 => {
                // Not closed by a svlogd: a crash. It may miss its end, so it gets a name of its
                // own.
                let to = format!("{}.u", new_stamp());
                let rename = || fs::rename(CURRENT, &to);
                retry(context, "unable to rename current", name, |pending| pending.term, rename)?;
                (true, true)
            }
            Ok(_) => (false, false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => (true, false),
            Err(e) => return Err(("unable to stat current", e)),
        };
        let (current, meta) = retry(
            context,
            "unable to open current",
            name,
            |pending| pending.term,
            || {
                let current = open_current(config.mode)?;
                let meta = current.metadata()?;
                Ok((current, meta))
            },
        )?;
        context.info(&format!("{}: {name}/current", if fresh { "new" } else { "append" }));
        let now = now();
        let mut dir = LogDir {
            at: self,
            current,
            current_id: file_id(&meta),
            growth: Growth::new(meta.size(), config.size, context.len),
            age: Age::new(now, config.age),
            config,
            out: Vec::new(),
            processor: Processor::Idle,
            selected: progress.is_some_and(|progress| progress.selected),
            done: progress.map(|progress| progress.done).unwrap_or_default(),
        };
        dir.finish_accepted();
        if crashed {
            // Else a service that crashes its log again and again fills the disk.
            dir.prune(context, dir.config.keep);
        }
        Ok(dir)
    }

    /// Makes it the working directory: files are named relative to it, so that it may be renamed,
    /// and the processor starts in it.
    fn enter(&self) {
        if let Err(e) = fchdir(&self.fd) {
            warn_error("unable to change directory", &self.name, &e.into());
        }
    }
}

/// Cuts off what a svlogd that was killed wrote and did not consume.
fn undo(progress: &Progress) -> io::Result<()> {
    let current = match OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(CURRENT) {
        Ok(current) => current,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let meta = current.metadata()?;
    progress.cut(file_id(&meta), meta.size()).map_or(Ok(()), |size| current.set_len(size))
}

fn file_id(meta: &fs::Metadata) -> FileId {
    FileId { dev: meta.dev(), ino: meta.ino() }
}

impl LogDir {
    /// The state for a following svlogd, when everything that was put is written.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            dir: self.at.id,
            current: self.current_id,
            size: self.growth.size(),
            selected: self.selected,
            done: self.done,
        }
    }

    /// The directory itself.
    pub(super) fn at(&self) -> &Locked {
        &self.at
    }

    /// Puts bytes behind what is there, as many as fit.
    pub(super) fn put(&mut self, context: &mut Context, bytes: &[u8], ends_line: bool) -> Put {
        if self.growth.size() == 0 && self.config.age.is_some() {
            self.age.first_bytes(now());
        }
        let Room::Put(count) = self.growth.room(bytes.len()) else { return Put { count: 0, full: true } };
        let (fits, after) = bytes.split_at(count.min(bytes.len()));
        self.out.extend_from_slice(fits);
        let full = self.growth.grew(fits.len(), ends_line && after.is_empty());
        if self.out.len() >= FLUSH_AT {
            self.flush(context);
        }
        Put { count: fits.len(), full }
    }

    /// Writes what waits, however long it takes.
    pub(super) fn flush(&mut self, context: &mut Context) {
        let mut written = 0;
        let mut complained = false;
        while let Some(rest) = self.out.get(written..).filter(|rest| !rest.is_empty()) {
            match (&self.current).write(rest) {
                Ok(count) => written += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => self.make_room(context, &e, &mut complained),
            }
        }
        self.out.clear();
    }

    /// Gives back the memory of a burst.
    pub(super) fn release(&mut self) {
        self.out.shrink_to(0);
    }

    /// After a failed write: removes an old file when the disk is full and the configuration allows
    /// it; else the service has to wait. Nothing read is thrown away.
    fn make_room(&mut self, context: &mut Context, error: &io::Error, complained: &mut bool) {
        if error.raw_os_error() == Some(Errno::ENOSPC as i32)
            && let Some(keep) = self.config.keep_when_full
            && let Some(name) = self.remove_oldest(keep)
        {
            warn(&format!("out of disk space, delete: {}/{name}", self.at.name));
            return;
        }
        pause(context, "unable to write to current", &self.at.name, error, complained);
    }

    /// Does what is due; whether it is time to rotate.
    pub(super) fn tick(&mut self, context: &mut Context) -> bool {
        let now = now();
        let action = self.processor.step(now, ProcessorEvent::Tick);
        self.perform(context, action);
        self.growth.size() > 0 && self.age.deadline().is_some_and(|at| at <= now)
    }

    /// When to call [`LogDir::tick`].
    pub(super) fn deadline(&self) -> Option<Duration> {
        let age = self.age.deadline().filter(|_| self.growth.size() > 0);
        age.into_iter().chain(self.processor.deadline()).min()
    }

    /// `current` becomes an old file, unless it is empty.
    pub(super) fn rotate(&mut self, context: &mut Context) {
        self.flush(context);
        if self.growth.size() == 0 {
            return;
        }
        self.wait_for_processor(context);
        self.close_current();
        let stamp = new_stamp();
        let to = format!("{stamp}.{}", if self.config.processor.is_some() { 'u' } else { 's' });
        context.info(&format!("rename: {}/current {to} {}", self.at.name, self.growth.size()));
        let rename = || match fs::rename(CURRENT, &to) {
            // It was removed, and would be missing for ever.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true),
        };
        let kept = retry(context, "unable to rename current", &self.at.name, |_| false, rename).unwrap_or(false);
        let mode = self.config.mode;
        let open = || {
            let file = open_current(mode)?;
            let id = file_id(&file.metadata()?);
            Ok((file, id))
        };
        // The directory may have been removed. TERM ends the wait, and HUP looks for another of the
        // name. Lines that come meanwhile go into the old file.
        let told = |pending: Pending| pending.term || pending.hup;
        let opened = retry(context, "unable to create new current", &self.at.name, told, open);
        let complete = kept && opened.is_ok();
        if let Ok((file, id)) = opened {
            (self.current, self.current_id) = (file, id);
        }
        self.growth = Growth::new(0, self.config.size, context.len);
        self.age = Age::new(now(), self.config.age);
        if complete && self.config.processor.is_some() {
            self.start_processor(context, stamp);
        }
        self.prune(context, self.config.keep);
    }

    /// All bytes on disk first, then the mark that says so.
    fn close_current(&mut self) {
        self.at.enter();
        if let Err(e) = self.current.sync_all() {
            warn_error("unable to fsync current logfile", &self.at.name, &e);
        }
        if let Err(e) = self.current.set_permissions(Permissions::from_mode(self.config.mode_done())) {
            warn_error("unable to set mode of current", &self.at.name, &e);
        }
    }

    /// Removes what a processor left behind, and one old file when there are too many.
    fn prune(&mut self, context: &Context, keep: usize) {
        for name in list().iter().filter(|name| is_leftover(name) && !self.in_work(name)) {
            if let Err(e) = fs::remove_file(name) {
                warn_error("unable to unlink processor leftover", &self.at.name, &e);
            }
        }
        if keep > 0
            && let Some(name) = self.remove_oldest(keep)
        {
            context.info(&format!("delete: {}/{name}", self.at.name));
        }
    }

    fn in_work(&self, leftover: &str) -> bool {
        self.processor.busy().is_some_and(|busy| busy.get(..25) == leftover.get(..25))
    }

    fn remove_oldest(&self, keep: usize) -> Option<String> {
        self.at.enter();
        let names = list();
        let name = oldest(&names, keep, self.processor.busy().as_deref())?;
        match fs::remove_file(name) {
            Ok(()) => Some(name.to_owned()),
            Err(e) => {
                warn_error("unable to unlink oldest logfile", &self.at.name, &e);
                None
            }
        }
    }

    /// Closes it: everything on disk, `current` marked complete, the processor waited for. At the
    /// end of svlogd a processor that fails is not tried again; its input stays as `@STAMP.u`.
    pub(super) fn close(mut self, context: &mut Context, last: bool) {
        self.flush(context);
        if last {
            while self.processor.process().is_some() {
                self.wait_once(context);
            }
        } else {
            self.wait_for_processor(context);
        }
        context.info(&format!("close: {}", self.at.name));
        self.close_current();
    }
}

/// Repeats an operation until it works, with a pause after each failure, or until a signal has come
/// that makes it pointless; complains once.
fn retry<T>(
    context: &mut Context,
    what: &'static str,
    name: &str,
    pointless: fn(Pending) -> bool,
    mut operation: impl FnMut() -> io::Result<T>,
) -> Result<T, Trouble> {
    let mut complained = false;
    loop {
        match operation() {
            Ok(value) => return Ok(value),
            Err(e) if pointless(context.signals.pending) => return Err((what, e)),
            Err(e) => pause(context, what, name, &e, &mut complained),
        }
    }
}

fn pause(context: &mut Context, what: &str, name: &str, error: &io::Error, complained: &mut bool) {
    if !std::mem::replace(complained, true) {
        applet::say::error(format_args!("svlogd: pausing: {what}: {name}: {}\n", error_text(error)));
    }
    // Signals are noted and dealt with afterwards; each of them is also a reason to try again.
    let _ = context.signals.wait(Input::None, Some(PAUSE));
}

fn append_to(name: &str, mode: u32) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(mode).custom_flags(O_NONBLOCK).open(name)
}

fn open_current(mode: u32) -> io::Result<File> {
    let file = append_to(CURRENT, 0o600)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    Ok(file)
}

/// The configuration in the working directory; one that cannot be read counts as empty.
fn read_config(name: &str, context: &Context) -> Config {
    let text = match fs::read("config") {
        Ok(text) => {
            context.info(&format!("read: {name}/config"));
            text
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => {
            warn_error("unable to read config", name, &e);
            Vec::new()
        }
    };
    let (config, warnings) = Config::parse(&text);
    for warning in warnings {
        warn(&warning);
    }
    config
}

/// Names in the working directory.
fn list() -> Vec<String> {
    let Ok(entries) = fs::read_dir(".") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

fn new_stamp() -> String {
    let stamp = format!("@{}", Tai64n::from_system_time(SystemTime::now()).to_hex());
    unused_stamp(&stamp, &list())
}

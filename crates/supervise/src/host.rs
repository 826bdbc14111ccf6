//! A set of services in one process, each with its log: the part that runsv (a set of one) and
//! `runsvdir -1` share.
//!
//! What it is: which unit an event is for, the log pipe between the two of a service, and the
//! working directory, which is a service's own whenever something is done for it: names stay right
//! when directories are renamed. What it is not: waiting (runsv.rs, runsvdir.rs), deciding
//! (service.rs) or doing (unit.rs).

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::inotify::WatchDescriptor;
use nix::unistd::fchdir;

use crate::files::{Fatal, unable};
use crate::service::{Event, Exit, Role};
use crate::settings::is_shortage;
use crate::shared::{Shared, Source};
use crate::sys;
use crate::unit::{Unit, inode};
use applet::control::{Command, error_text};

/// A directory that may not be entered is tried again after this.
const ENTER_AGAIN: Duration = Duration::from_secs(1);

/// A directory that has changed is looked at after this: it may take some steps until it is
/// complete, or gone.
const COMPLETE: Duration = Duration::from_secs(1);

/// A service's place in the set.
pub(crate) type Slot = usize;

/// The set.
pub(crate) struct Host {
    shared: Rc<Shared>,
    /// Boxed: a set that grows moves pointers only.
    services: Vec<Option<Box<Supervised>>>,
    /// When each of them is due. What happens to one service must not cost a look at all the
    /// others.
    due: Vec<Option<Duration>>,
    /// Those that something has happened to since [`Host::settle`].
    touched: Vec<Slot>,
}

/// A service and its log.
struct Supervised {
    /// Its directory; `None`: the process is in it for good.
    dir: Option<OwnedFd>,
    /// Before the service, so that it is let go of first: who takes over waits for the service's.
    log: Option<Box<Unit>>,
    main: Unit,
    /// While its directory may not be entered: what has happened meanwhile.
    barred: Option<Missed>,
    directory: Directory,
}

/// How a service hears of what comes into its directory, and goes: log/, supervise/, the directory
/// itself.
#[derive(Default)]
struct Directory {
    /// The directory, where the process is in it for good.
    own: Option<OwnedFd>,
    /// The next change will be told.
    watched: bool,
    /// By which its events are found.
    watch: Option<WatchDescriptor>,
    /// It has changed: to be looked at when it may be complete.
    look_at: Option<Duration>,
    /// The last complaint about a log that came later.
    complaint: Option<String>,
}

/// What a service is told as soon as its directory may be entered again.
#[derive(Default)]
struct Missed {
    ends: Vec<(u32, Exit)>,
    terminate: bool,
}

impl Host {
    pub(crate) fn new(shared: Shared) -> Host {
        Host { shared: Rc::new(shared), services: Vec::new(), due: Vec::new(), touched: Vec::new() }
    }

    /// Takes the service in `dir`, or in the working directory, into the set, and starts it if it
    /// is wanted up. With `end` it is not started: what is left of it is ended.
    pub(crate) fn add(&mut self, dir: Option<OwnedFd>, name: &OsStr, end: bool) -> Result<Slot, Fatal> {
        let slot = self.services.iter().position(Option::is_none).unwrap_or(self.services.len());
        if let Some(dir) = &dir {
            unable("change to directory", fchdir(dir).map_err(io::Error::from))?;
        }
        let mut service = Supervised::open(&self.shared, slot, dir, name)?;
        if end {
            service.main.handle(Event::Terminate);
        }
        service.units().for_each(|unit| unit.handle(Event::Tick));
        match self.services.get_mut(slot) {
            Some(place) => *place = Some(Box::new(service)),
            None => {
                self.services.push(Some(Box::new(service)));
                self.due.push(None);
            }
        }
        self.touched.push(slot);
        Ok(slot)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.services.iter().all(Option::is_none)
    }

    /// Readable when there is something for [`Host::dispatch`].
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.as_fd()
    }

    /// When [`Host::tick`] is due, CLOCK_BOOTTIME; at once while there is something to settle.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        if self.touched.is_empty() { self.due.iter().flatten().min().copied() } else { Some(Duration::ZERO) }
    }

    /// Deals with what has come on the descriptors of services.
    pub(crate) fn dispatch(&mut self) {
        for (token, source) in self.shared.ready() {
            if source == Source::Directory {
                let changed = self.shared.changed();
                self.changed(|watch| watch.is_some_and(|watch| changed.contains(&watch)));
                continue;
            }
            let (slot, is_log) = (usize::try_from(token >> 1).unwrap_or(usize::MAX), token & 1 == 1);
            if let Some(service) = self.enter(slot)
                && let Some(unit) = if is_log { service.log.as_deref_mut() } else { Some(&mut service.main) }
            {
                unit.came(source);
            }
        }
    }

    /// Something has come into the directories for which `is_one` holds, or gone.
    pub(crate) fn changed(&mut self, is_one: impl Fn(Option<WatchDescriptor>) -> bool) {
        let changed = |s: &Supervised| is_one(s.directory.watch);
        let slots = self.services.iter().enumerate().filter(|(_, s)| s.as_deref().is_some_and(changed));
        for slot in slots.map(|(slot, _)| slot).collect::<Vec<_>>() {
            if let Some(service) = self.enter(slot) {
                service.directory.look_at.get_or_insert(sys::now() + COMPLETE);
            }
        }
    }

    /// Deals with deadlines that have come.
    pub(crate) fn tick(&mut self, now: Duration) {
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        for slot in (0..self.due.len()).filter(|slot| due(self.due.get(*slot).copied().flatten())).collect::<Vec<_>>() {
            if let Some(service) = self.enter(slot) {
                let units = service.units().filter(|unit| due(unit.service.deadline()));
                units.for_each(|unit| unit.handle(Event::Tick));
                if due(service.directory.look_at) {
                    service.look();
                }
            }
        }
    }

    /// A child has ended; false when it is none of these services'.
    pub(crate) fn reaped(&mut self, pid: u32, exit: Exit) -> bool {
        let Some(slot) = self.services.iter().position(|s| s.as_deref().is_some_and(|s| s.has(pid))) else {
            return false;
        };
        match self.enter(slot) {
            Some(service) => service.reaped(pid, exit),
            None => self.later(slot, |missed| missed.ends.push((pid, exit))),
        }
        true
    }

    /// The supervisor of this service is to end.
    pub(crate) fn terminate(&mut self, slot: Slot) {
        match self.enter(slot) {
            Some(service) => service.main.handle(Event::Terminate),
            None => self.later(slot, |missed| missed.terminate = true),
        }
    }

    /// All of them.
    pub(crate) fn terminate_all(&mut self) {
        (0..self.services.len()).for_each(|slot| self.terminate(slot));
    }

    /// A copy of this process is about to go on with the services. Their processes are not children
    /// of the copy: from here on their ends are told as those of adopted ones are.
    pub(crate) fn disown(&mut self) -> io::Result<()> {
        self.shared.keep();
        for slot in 0..self.services.len() {
            // Entered: the control script that waits next may be started by it.
            let entered = self.enter(slot).is_some();
            if let Some(service) = self.services.get_mut(slot).and_then(Option::as_deref_mut) {
                service.disown(entered)?;
            }
        }
        Ok(())
    }

    /// Writes down what has changed, and lets go of the services that have ended for good: these.
    pub(crate) fn settle(&mut self) -> Vec<Slot> {
        let mut touched = std::mem::take(&mut self.touched);
        applet::sort::sort(&mut touched);
        touched.dedup();
        let (mut ended, mut again) = (Vec::new(), Vec::new());
        for slot in touched {
            let Some(service) = self.change_to(slot) else { continue };
            service.end_log();
            let (done, look_at) = (service.done(), service.directory.look_at);
            service.units().for_each(if done { Unit::close } else { Unit::save });
            let due = service.units().filter_map(|unit| unit.deadline()).chain(look_at).min();
            // One that is let go of is not closed: the next supervisor finds it.
            let gone = done || service.main.released;
            if gone {
                ended.push(slot);
            } else if service.units().any(|unit| unit.is_dirty()) {
                // What was found while it was saved.
                again.push(slot);
            }
            if let (Some(place), Some(at)) = (self.services.get_mut(slot), self.due.get_mut(slot)) {
                *at = due.filter(|_| !gone);
                place.take_if(|_| gone);
            }
        }
        self.touched = again;
        ended
    }

    /// The service, to which something happens, with its directory as the working directory.
    fn enter(&mut self, slot: Slot) -> Option<&mut Supervised> {
        let service = self.change_to(slot)?;
        if service.may_have_log() {
            service.take_up_log(false);
        }
        Some(service)
    }

    fn change_to(&mut self, slot: Slot) -> Option<&mut Supervised> {
        let service = self.services.get_mut(slot)?.as_deref_mut()?;
        if let Some(dir) = &service.dir
            && let Err(e) = fchdir(dir)
        {
            service.bar(&e.into());
            if let Some(at) = self.due.get_mut(slot) {
                *at = Some(sys::now() + ENTER_AGAIN);
            }
            return None;
        }
        self.touched.push(slot);
        service.unbar();
        Some(service)
    }

    /// It could not be entered just now.
    fn later(&mut self, slot: Slot, note: impl FnOnce(&mut Missed)) {
        if let Some(missed) = self.services.get_mut(slot).and_then(|s| s.as_deref_mut()?.barred.as_mut()) {
            note(missed);
        }
    }
}

impl Supervised {
    fn open(shared: &Rc<Shared>, slot: Slot, dir: Option<OwnedFd>, name: &OsStr) -> Result<Supervised, Fatal> {
        let name = Rc::from(name);
        let token = (slot as u64) << 1;
        let mut main = Unit::open(shared, token, &name, Role::Main, false)?;
        let mut log = match fs::metadata("log") {
            Ok(found) if found.is_dir() => Some(Box::new(main.open_log(shared.may_wait())?)),
            Ok(_) => {
                main.warn("./log: not a directory.");
                None
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => {
                main.warn(&format!("unable to stat() ./log: {}", error_text(&e)));
                None
            }
        };
        if let Some(log) = log.as_deref_mut() {
            wire(&mut main, log)?;
        }
        let mut service = Supervised { dir, log, main, barred: None, directory: Directory::default() };
        service.units().for_each(Unit::wired);
        service.watch();
        Ok(service)
    }

    /// Hears of the next change in its directory. Where the system has no means for that, it is
    /// looked at when something else happens.
    fn watch(&mut self) {
        let directory = &mut self.directory;
        if self.dir.is_none() && directory.own.is_none() {
            directory.own = File::open(".").ok().map(OwnedFd::from);
        }
        if let Some(dir) = self.dir.as_ref().or(directory.own.as_ref()) {
            let watch = self.main.shared().watch_directory(dir.as_fd());
            directory.watched = watch.is_ok();
            directory.watch = watch.ok().flatten();
        }
    }

    /// Its directory has changed, and has had the time to be complete.
    fn look(&mut self) {
        self.directory.look_at = None;
        // First, so that no change is missed.
        self.watch();
        self.take_up_log(true);
        self.units().for_each(Unit::look);
    }

    /// Whether a log/ may have come since its directory was looked at. What the kernel does not
    /// tell of is looked for at each event.
    fn may_have_log(&self) -> bool {
        let directory = &self.directory;
        !directory.watched || directory.look_at.is_some() || directory.complaint.is_some()
    }

    /// A log/ that has come later: with `log/run` at once, without it when it has had the time to
    /// be complete.
    fn take_up_log(&mut self, complete: bool) {
        let there = |complete| if complete { Path::new("log").is_dir() } else { is_executable(Path::new("log/run")) };
        if self.log.is_some() || self.main.service.leaving() || !there(complete) {
            return;
        }
        let opened = self.main.open_log(false).and_then(|mut log| wire(&mut self.main, &mut log).map(|()| log));
        match opened {
            Ok(mut log) => {
                self.main.wired_late();
                log.wired();
                log.handle(Event::Tick);
                self.log = Some(Box::new(log));
            }
            // Said once, and tried when something happens again.
            Err(Fatal(text)) if self.directory.complaint.as_ref() == Some(&text) => {}
            Err(Fatal(text)) => {
                self.main.warn(&text);
                self.directory.complaint = Some(text);
            }
        }
    }

    fn units(&mut self) -> impl Iterator<Item = &mut Unit> {
        // The log first: it shall be there when the service speaks.
        self.log.as_deref_mut().into_iter().chain([&mut self.main])
    }

    /// Whether this child is its own. One that has ended may have given its number to another's.
    fn has(&self, pid: u32) -> bool {
        let ended = self.barred.iter().flat_map(|missed| &missed.ends).any(|(ended, _)| *ended == pid);
        !ended && (self.main.is_child(pid) || self.log.as_ref().is_some_and(|log| log.is_child(pid)))
    }

    fn reaped(&mut self, pid: u32, exit: Exit) {
        if let Some(unit) = self.units().find(|unit| unit.is_child(pid)) {
            unit.reaped(pid, exit);
        }
    }

    fn disown(&mut self, entered: bool) -> io::Result<()> {
        if let Some(missed) = &mut self.barred {
            // The answer of a control script is not heard any more, and counts as a no.
            let scripts = [Some(&self.main), self.log.as_deref()].into_iter().flatten().filter_map(Unit::script);
            missed.ends.extend(scripts.map(|pid| (pid, Exit::Unknown)));
        }
        let ended: Vec<u32> = self.barred.iter().flat_map(|missed| &missed.ends).map(|(pid, _)| *pid).collect();
        self.units().try_for_each(|unit| unit.disown(&ended, entered))
    }

    /// Its directory may not be entered. It is said once, and what comes on its descriptors stays
    /// there: it would be told of again and again.
    fn bar(&mut self, e: &io::Error) {
        if self.barred.is_none() {
            self.main.warn(&format!("unable to change to directory: {}", error_text(e)));
            self.units().for_each(|unit| unit.deafen());
            self.barred = Some(Missed::default());
        }
    }

    /// Its directory has been entered: before anything else it hears what it has missed.
    fn unbar(&mut self) {
        let Some(missed) = self.barred.take() else { return };
        self.units().for_each(Unit::listen_to_all);
        for (pid, exit) in missed.ends {
            self.reaped(pid, exit);
        }
        if missed.terminate {
            self.main.handle(Event::Terminate);
        }
    }

    /// When the service has exited for good its end of the pipe is closed; the log ends by end of
    /// file, never by a signal.
    fn end_log(&mut self) {
        if let Some(log) = self.log.as_deref_mut().filter(|_| self.main.service.done())
            && self.main.wiring.stdout.take().is_some()
        {
            log.handle(log.input_ended());
        }
    }

    /// runit exits as soon as no log process is left, whatever is wanted of it.
    fn done(&self) -> bool {
        self.main.service.done() && self.log.as_ref().is_none_or(|log| log.service.done())
    }
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o100 != 0)
}

/// The log pipe: runsv holds both ends, so that neither side's restart loses a byte. After a killed
/// runsv it is opened again through the processes that still have it.
fn wire(main: &mut Unit, log: &mut Unit) -> Result<(), Fatal> {
    let (service, logger) = (main.left_behind(), log.left_behind());
    let by_log = logger.iter().map(|i| (i.pid, 0, i.pipe));
    let by_main = service.iter().flat_map(|i| [(i.pid, 1, i.pipe), (i.pid, 2, i.pipe)]);
    let mut tried = by_log.chain(by_main).map(|(pid, fd, pipe)| reopen_pipe(pid, fd, pipe));
    // One that cannot be opened for want of descriptors is there all the same.
    let found = tried.find(|pipe| pipe.as_ref().map_or_else(is_shortage, |_| true));
    let new = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from);
    let (read, write) = unable("create log pipe", found.unwrap_or_else(new))?;
    let pipe = inode(&read);
    // One that was started before there was a log has none.
    let strays = [service, logger].map(|left| left.is_some_and(|left| left.pipe != 0 && left.pipe != pipe));
    log.wiring.stdin = Some(read);
    main.wiring.stdout = Some(write);
    // A process that still holds another pipe would write or read in vain.
    for (unit, stray) in [main, log].into_iter().zip(strays) {
        if stray {
            unit.warn("unable to open the log pipe of the last runsv: restarting");
            unit.handle(Event::Command(Command::Term));
        }
    }
    Ok(())
}

/// Both ends of the pipe that process `pid` has as descriptor `fd`, if it is the pipe with inode
/// `pipe`.
fn reopen_pipe(pid: u32, fd: u32, pipe: u64) -> io::Result<(OwnedFd, OwnedFd)> {
    let path = format!("/proc/{pid}/fd/{fd}");
    if pipe == 0 || !fs::metadata(&path)?.file_type().is_fifo() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let path = Path::new(&path);
    // fifo(7): opening for both never waits; after it neither do the others.
    let both = OpenOptions::new().read(true).write(true).open(path)?;
    let read = OwnedFd::from(File::open(path)?);
    let write = OwnedFd::from(OpenOptions::new().write(true).open(path)?);
    drop(both);
    if inode(&read) == pipe && inode(&write) == pipe { Ok((read, write)) } else { Err(io::ErrorKind::NotFound.into()) }
}

//! runsv: starts and monitors services, each with its log.
//!
//! What it is: the waiting. One poll(2) over the signal pipe, the control fifos and the adopted processes of a SET of
//! services (the applet has one), without a timeout unless a machine has a deadline: an idle runsv never wakes up.
//! What it is not: deciding (service.rs) or doing (unit.rs). Called by runsvdir, by name, through PATH.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use crate::control::{Command, RunState, error_text};
use crate::service::{Event, Role};
use crate::unit::{Fatal, Unit, inode, unable};
use crate::{EXIT_SYSTEM, say, sys};

/// What `runsv` without arguments says, behind `usage: ` and the name it was called by.
pub const USAGE: &str = " dir\n\n";
/// runit's own code for wrong use of runsv.
const EXIT_RUNSV_USAGE: u8 = 1;

/// The applet.
pub fn main(argv: Vec<OsString>) -> u8 {
    let [_, dir] = argv.as_slice() else {
        say::error(format_args!("usage: {}{USAGE}", argv.first().map_or(OsStr::new("runsv"), |name| name).display()));
        return EXIT_RUNSV_USAGE;
    };
    let name = dir.to_string_lossy().into_owned();
    match supervise(Path::new(dir), &name) {
        Ok(()) => 0,
        Err(Fatal(text)) => {
            say::error(format_args!("runsv {name}: fatal: {text}\n"));
            EXIT_SYSTEM
        }
    }
}

fn supervise(dir: &Path, name: &str) -> Result<(), Fatal> {
    sys::close_leaked_on_exec();
    let signals = sys::signal_pipe(&[Signal::SIGCHLD, Signal::SIGTERM]);
    let signals = File::from(unable("create selfpipe", signals)?);
    unable("change to directory", env::set_current_dir(dir))?;
    let service = Supervised::open(Path::new("."), name)?;
    Host { services: vec![service], signals }.run()
}

/// A service and its log.
struct Supervised {
    main: Unit,
    log: Option<Unit>,
}

impl Supervised {
    fn open(dir: &Path, name: &str) -> Result<Supervised, Fatal> {
        let mut main = Unit::open(dir, name, Role::Main)?;
        let log_dir = dir.join("log");
        let mut log = match fs::metadata(&log_dir) {
            Ok(found) if found.is_dir() => Some(Unit::open(&log_dir, name, Role::Log)?),
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
        if let Some(log) = &mut log {
            wire(&mut main, log)?;
        }
        for unit in [Some(&mut main), log.as_mut()].into_iter().flatten() {
            if unit.adopted().is_none() {
                unit.write_instance(RunState::Down, 0);
            }
        }
        Ok(Supervised { main, log })
    }

    fn units(&mut self) -> impl Iterator<Item = &mut Unit> {
        // The log first: it shall be there when the service speaks.
        self.log.iter_mut().chain([&mut self.main])
    }

    /// When the service has exited for good its end of the pipe is closed; the log ends by end of file, never by a signal.
    fn end_log(&mut self) {
        if let Some(log) = self.log.as_mut().filter(|_| self.main.service.done())
            && self.main.wiring.stdout.take().is_some()
        {
            log.wiring.stdin = None;
            log.handle(Event::InputEnded);
        }
    }

    /// runit exits as soon as no log process is left, whatever is wanted of it.
    fn done(&self) -> bool {
        self.main.service.done() && self.log.as_ref().is_none_or(|log| log.service.done())
    }
}

/// The log pipe: runsv holds both ends, so that neither side's restart loses a byte. After a killed runsv it is
/// opened again through the processes that still have it.
fn wire(main: &mut Unit, log: &mut Unit) -> Result<(), Fatal> {
    let (service, logger) = (main.left_behind(), log.left_behind());
    let by_log = logger.iter().map(|i| (i.pid, 0, i.pipe));
    let by_main = service.iter().flat_map(|i| [(i.pid, 1, i.pipe), (i.pid, 2, i.pipe)]);
    let found = by_log.chain(by_main).find_map(|(pid, fd, pipe)| reopen_pipe(pid, fd, pipe).ok());
    let (read, write) = match found {
        Some(pipe) => pipe,
        None => unable("create log pipe", nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from))?,
    };
    let pipe = inode(&read);
    log.wiring.stdin = Some(read);
    main.wiring.stdout = Some(write);
    // Who still holds another pipe would speak to nobody, or hear nobody.
    for (unit, left) in [(main, service), (log, logger)] {
        if left.is_some_and(|left| left.pipe != pipe) {
            unit.warn("unable to open the log pipe of the last runsv: restarting");
            unit.handle(Event::Command(Command::Term));
        }
    }
    Ok(())
}

/// Both ends of the pipe that process `pid` has as descriptor `fd`, if it is the pipe with inode `pipe`.
fn reopen_pipe(pid: u32, fd: u32, pipe: u64) -> io::Result<(OwnedFd, OwnedFd)> {
    let path = format!("/proc/{pid}/fd/{fd}");
    if pipe == 0 || !fs::metadata(&path)?.file_type().is_fifo() {
        return Err(io::ErrorKind::NotFound.into());
    }
    // fifo(7): opening for both never waits; after it neither do the others.
    let both = OpenOptions::new().read(true).write(true).open(&path)?;
    let read = OwnedFd::from(File::open(&path)?);
    let write = OwnedFd::from(OpenOptions::new().write(true).open(&path)?);
    drop(both);
    if inode(&read) == pipe && inode(&write) == pipe { Ok((read, write)) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// The loop over a set of services.
struct Host {
    services: Vec<Supervised>,
    signals: File,
}

impl Host {
    fn run(mut self) -> Result<(), Fatal> {
        self.each(|unit| unit.handle(Event::Tick));
        loop {
            for service in &mut self.services {
                service.end_log();
            }
            self.each(Unit::save);
            if self.services.iter().all(Supervised::done) {
                self.each(Unit::close);
                return Ok(());
            }
            self.wait();
        }
    }

    fn each(&mut self, act: impl Fn(&mut Unit)) {
        self.services.iter_mut().flat_map(Supervised::units).for_each(act);
    }

    fn timeout(&mut self) -> PollTimeout {
        let deadline = self.services.iter_mut().flat_map(Supervised::units).filter_map(|u| u.service.deadline()).min();
        // Rounded up: a wait that ends too early would only be followed by another.
        let wait = deadline.map(|at| at.saturating_sub(sys::now()) + Duration::from_nanos(999_999));
        wait.map_or(PollTimeout::NONE, |wait| PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX))
    }

    fn wait(&mut self) {
        let timeout = self.timeout();
        let ready = {
            let units = self.services.iter().flat_map(|s| s.log.iter().chain([&s.main]));
            let fds = units.flat_map(|u| [u.control().map(|f| f.as_fd()), u.adopted().map(|f| f.as_fd())]);
            let signals = Some(self.signals.as_fd());
            // A slot for each that could be there, so that the answers are found again by their place.
            let slots: Vec<_> = std::iter::once(signals).chain(fds).collect();
            let mut set: Vec<_> = slots.iter().flatten().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
            match poll(&mut set, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => say::error(format_args!("runsv: warning: unable to poll: {}\n", error_text(&e.into()))),
            }
            let mut answers = set.iter().map(|fd| fd.any().unwrap_or(false));
            slots.iter().map(|slot| slot.is_some() && answers.next().unwrap_or(false)).collect::<Vec<_>>()
        };
        let mut ready = ready.into_iter();
        let signalled = ready.next().unwrap_or(false);
        // Commands before ends: `t` then counts as the reason of an end that comes with it, and one restart follows, not two.
        self.services.iter_mut().flat_map(Supervised::units).for_each(|unit| {
            if ready.next().unwrap_or(false) {
                unit.read_control();
            }
            if ready.next().unwrap_or(false) {
                unit.adopted_ended();
            }
        });
        if signalled {
            self.signalled();
        }
        self.each(|unit| unit.handle(Event::Tick));
    }

    fn signalled(&mut self) {
        let mut buffer = [0; 64];
        let n = self.signals.read(&mut buffer).unwrap_or(0);
        // As with commands, before the ends: a TERM to the whole process group ends the service too, and it shall not be
        // started once more.
        if buffer.iter().take(n).any(|byte| i32::from(*byte) == Signal::SIGTERM as i32) {
            // runsv(8): as if x was written to the control pipe.
            for service in &mut self.services {
                service.main.handle(Event::Command(Command::Exit));
            }
        }
        self.reap();
    }

    fn reap(&mut self) {
        while let Some((pid, exit)) = sys::reap() {
            let _ = self.services.iter_mut().flat_map(Supervised::units).any(|unit| unit.reaped(pid, exit));
        }
    }
}

//! runsvdir: one runsv for each subdirectory of a directory, as they come and go.
//!
//! What it is: the shell around scan.rs: inotify on the directory and on what a change of its meaning would show in,
//! spawning runsv, the rotating log in the process's own arguments. An idle one never wakes up; only while the directory
//! cannot be watched it is read every five seconds. What it is not: a supervisor of services, which is runsv's.
#![expect(clippy::disallowed_methods, reason = "starts runsv")]

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::control::{ServiceDir, error_text};
use crate::scan::{Action, Entry, Event, Ident, Scan};
use crate::service::Exit;
use crate::{EXIT_SYSTEM, say, sys};

mod proctitle;
mod watch;
use proctitle::Proctitle;
use watch::Watch;

/// What `runsvdir` without a directory says, behind `usage: ` and the name it was called by.
pub const USAGE: &str = " [-P] dir [log]\n\n";
/// runit's own code for wrong use of runsvdir.
const EXIT_RUNSVDIR_USAGE: u8 = 1;
/// runsvdir(8): startup failure.
const EXIT_STARTUP: u8 = 100;
/// runsvdir(8): the directory is looked at at least every five seconds; here only where inotify does not reach.
const SLOW_RESCAN: Duration = Duration::from_secs(5);

/// The applet.
pub fn main(argv: Vec<OsString>) -> u8 {
    let mut args = argv.into_iter().peekable();
    let called = args.next().unwrap_or_default();
    let sessions = args.next_if(|a| a == "-P").is_some();
    let Some(dir) = args.next() else {
        say::error(format_args!("usage: {}{USAGE}", called.display()));
        return EXIT_RUNSVDIR_USAGE;
    };
    let name = dir.to_string_lossy().into_owned();
    // Before anything else, so that it is the very text of our arguments: only the last of them can be the log.
    let log = args.next().filter(|_| args.next().is_none());
    match Host::open(PathBuf::from(dir), &name, sessions, log.as_deref()) {
        Ok(host) => host.run(),
        Err(e) => {
            say::error(format_args!("runsvdir {name}: fatal: unable to start: {}\n", error_text(&e)));
            EXIT_STARTUP
        }
    }
}

struct Host {
    dir: PathBuf,
    name: String,
    /// `-P`
    sessions: bool,
    scan: Scan,
    signals: File,
    watch: Option<Watch>,
    /// Control fifos of the runsvs that are not our children: poll(2) tells when one has ended.
    others: HashMap<Ident, File>,
    log: Option<Log>,
    /// The last complaint about the directory: said once.
    complaint: Option<String>,
    rescan_at: Option<Duration>,
}

/// The readproctitle log.
struct Log {
    title: Proctitle,
    pipe: File,
    dot_at: Duration,
}

impl Host {
    fn open(dir: PathBuf, name: &str, sessions: bool, log: Option<&OsStr>) -> io::Result<Host> {
        sys::close_leaked_on_exec();
        let signals = File::from(sys::signal_pipe(&[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGHUP])?);
        let mut host = Host {
            dir,
            name: name.to_owned(),
            sessions,
            scan: Scan::default(),
            signals,
            watch: None,
            others: HashMap::new(),
            log: None,
            complaint: None,
            rescan_at: None,
        };
        host.log = log.and_then(|text| host.open_log(text));
        Ok(host)
    }

    fn open_log(&mut self, text: &OsStr) -> Option<Log> {
        if text.len() < proctitle::LEAST {
            self.warn("log must have at least seven characters.");
            self.warn("log service disabled.");
            return None;
        }
        let opened = (|| {
            let title = Proctitle::open(text)?;
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            nix::unistd::dup2_stderr(&write)?;
            Ok::<(Proctitle, OwnedFd), io::Error>((title, read))
        })();
        match opened {
            Ok((title, pipe)) => Some(Log { title, pipe: File::from(pipe), dot_at: sys::now() + proctitle::DOT }),
            Err(e) => {
                self.warn(&format!("unable to open the log: {}", error_text(&e)));
                None
            }
        }
    }

    fn warn(&mut self, text: &str) {
        let line = format!("runsvdir {}: warning: {text}\n", self.name);
        match &mut self.log {
            // Not through the pipe: it may be full, and only we empty it.
            Some(log) => log.title.push(line.as_bytes()),
            None => say::error(format_args!("{line}")),
        }
    }

    fn run(mut self) -> u8 {
        self.rescan();
        loop {
            let ready = self.wait();
            if ready.log
                && let Some(log) = &mut self.log
            {
                log.drain();
            }
            if ready.signals
                && let Some(code) = self.signalled()
            {
                return code;
            }
            for ident in ready.others {
                self.others.remove(&ident);
                self.handle(Event::Freed(ident));
            }
            let now = sys::now();
            if let Some(log) = self.log.as_mut().filter(|log| now >= log.dot_at) {
                log.title.push(b".");
                log.dot_at = now + proctitle::DOT;
            }
            if ready.watch || self.rescan_at.is_some_and(|at| now >= at) {
                self.rescan();
            }
            self.handle(Event::Tick);
        }
    }

    fn wait(&self) -> Ready {
        let due = [self.scan.deadline(), self.rescan_at, self.log.as_ref().map(|log| log.dot_at)];
        let deadline = due.into_iter().flatten().min();
        let wait = deadline.map(|at| at.saturating_sub(sys::now()) + Duration::from_nanos(999_999));
        let timeout = wait.map_or(PollTimeout::NONE, |wait| PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX));
        let input = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut set = vec![input(self.signals.as_fd())];
        set.extend(self.watch.as_ref().map(|w| input(w.as_fd())));
        set.extend(self.log.as_ref().map(|log| input(log.pipe.as_fd())));
        let others: Vec<Ident> = self.others.keys().copied().collect();
        // No events asked for: POLLERR comes unasked when the reader is gone.
        set.extend(self.others.values().map(|f| PollFd::new(f.as_fd(), PollFlags::empty())));
        // EINTR is the signal pipe's business, and nothing else can be wrong with these.
        let _ = poll(&mut set, timeout);
        let mut answers = set.iter().map(|fd| fd.any().unwrap_or(false));
        Ready {
            signals: answers.next().unwrap_or(false),
            watch: self.watch.is_some() && answers.next().unwrap_or(false),
            log: self.log.is_some() && answers.next().unwrap_or(false),
            others: others.into_iter().filter(|_| answers.next().unwrap_or(false)).collect(),
        }
    }

    /// Ends of children, TERM and HUP; an exit code when it is over.
    fn signalled(&mut self) -> Option<u8> {
        let mut buffer = [0; 64];
        let n = self.signals.read(&mut buffer).unwrap_or(0);
        while let Some((pid, exit)) = sys::reap() {
            self.handle(Event::Ended { pid, told: exit == Exit::Code(0) });
        }
        let came = |signal: Signal| buffer.iter().take(n).any(|byte| i32::from(*byte) == signal as i32);
        if came(Signal::SIGHUP) {
            for action in self.scan.stop_all() {
                self.perform(action);
            }
            return Some(EXIT_SYSTEM);
        }
        // runsvdir(8): exits 0 immediately. The services go on.
        came(Signal::SIGTERM).then_some(0)
    }

    fn handle(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.scan.step(sys::now(), event) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(ident, name) => Some(self.start(ident, &name)),
            Action::Stop(pid) => {
                let pid = i32::try_from(pid).ok()?;
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                None
            }
            Action::StopOther(ident) => {
                let _ = self.others.remove(&ident)?.write(b"x");
                None
            }
        }
    }

    fn start(&mut self, ident: Ident, name: &OsStr) -> Event {
        // The runsv of a runsvdir that was killed lives on, and holds the lock: another would only complain, again and
        // again. We hold its control fifo instead, hear of its end at once, and then take its place.
        if let Ok(control) = ServiceDir::at(&self.dir.join(name)).open_control() {
            self.warn(&format!("{}: another runsv is running there: waiting for its end", name.display()));
            self.others.insert(ident, control);
            return Event::Occupied(ident);
        }
        let started = match self.spawn(Process::new("runsv"), name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                // None in PATH: ours, by the file that we were executed from.
                let mut own = Process::new("/proc/self/exe");
                own.arg0("runsv");
                self.spawn(own, name)
            }
            other => other,
        };
        match started {
            Ok(pid) => Event::Started(ident, pid),
            Err(e) => {
                self.warn(&format!("unable to start runsv {}: {}", name.display(), error_text(&e)));
                Event::StartFailed(ident)
            }
        }
    }

    fn spawn(&self, mut process: Process, name: &OsStr) -> io::Result<u32> {
        process.arg(name).current_dir(&self.dir);
        if self.sessions {
            sys::new_session(&mut process);
        }
        process.spawn().map(|child| child.id())
    }

    fn rescan(&mut self) {
        // The watch comes first: what happens while the directory is read is then seen as an event.
        let watching = Watch::renew(&mut self.watch, &self.dir);
        let listing = self.list();
        self.rescan_at = (!watching || listing.is_err()).then(|| sys::now() + SLOW_RESCAN);
        match listing {
            Ok(entries) => {
                self.complaint = None;
                self.handle(Event::Listing(entries));
            }
            Err(text) if self.complaint.as_ref() == Some(&text) => {}
            Err(text) => {
                self.warn(&text);
                self.complaint = Some(text);
            }
        }
        let fresh: Vec<PathBuf> = self.scan.fresh().map(|name| self.dir.join(name)).collect();
        if let Some(watch) = &mut self.watch {
            watch.fresh(&fresh);
        }
    }

    fn list(&mut self) -> Result<Vec<Entry>, String> {
        let dir = self.dir.clone();
        let unable = |what: &str, e: &io::Error| format!("unable to {what} {}: {}", dir.display(), error_text(e));
        fs::metadata(&dir).map_err(|e| unable("stat", &e))?;
        let mut entries = Vec::new();
        for found in fs::read_dir(&dir).map_err(|e| unable("open directory", &e))? {
            let found = found.map_err(|e| unable("read directory", &e))?;
            let name = found.file_name();
            if name.as_bytes().starts_with(b".") {
                continue;
            }
            if let Some(watch) = self.watch.as_mut().filter(|_| found.file_type().is_ok_and(|t| t.is_symlink())) {
                watch.target_of(&found.path());
            }
            match fs::metadata(found.path()) {
                Ok(stat) if stat.is_dir() => entries.push(Entry {
                    ident: Ident { dev: stat.dev(), ino: stat.ino() },
                    ready: is_executable(&found.path().join("run")),
                    name,
                }),
                // A file, or a link to something that is not there.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(entries)
    }
}

impl Log {
    fn drain(&mut self) {
        let mut buffer = [0; 512];
        // Once a turn: whoever floods it does not keep us from our work.
        if let Ok(n) = self.pipe.read(&mut buffer) {
            self.title.push(buffer.get(..n).unwrap_or_default());
        }
    }
}

/// What poll(2) said.
struct Ready {
    signals: bool,
    watch: bool,
    log: bool,
    others: Vec<Ident>,
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|stat| stat.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manpage;

    #[test]
    fn usage_and_manual_pages_agree() {
        let page = include_str!("../../../man/runsvdir.8");
        assert_eq!(manpage::options(page, "OPTIONS"), manpage::usage(USAGE));
        let page = include_str!("../../../man/runsv.8");
        assert_eq!(manpage::options(page, "OPTIONS"), manpage::usage(crate::runsv::USAGE));
    }
}

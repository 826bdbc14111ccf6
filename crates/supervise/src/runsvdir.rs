//! runsvdir: one runsv for each subdirectory of a directory, as they come and go; with `-1` all of
//! them in its own process.
//!
//! What it is: the shell around scan.rs: inotify on the directory and on what a change of its
//! meaning would show in (watch.rs), starting runsvs (runners.rs), the end of all of them
//! (ending.rs), and the rotating log in the process's own arguments. An idle one never wakes up;
//! only while the directory cannot be watched it is read every five seconds. What it is not: a
//! supervisor of services, which is runsv's.

use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::unistd::fchdir;

use crate::scan::{Action, Entry, Event, Ident, Scan};
use crate::sys;
use applet::control::{RELEASE, ServiceDir, error_text};
use applet::getopt::{Arg, Getopt, Opt, opt};
use applet::{EXIT_SYSTEM, say};

mod ending;
mod proctitle;
mod runners;
mod watch;
use ending::{Ending, Order};
use proctitle::Log;
use runners::Runners;
use watch::Watch;

/// The usage of `runsvdir`, behind `usage: ` and the name it was called by.
pub const USAGE: &str = " [-P] [-1w] [-W secs] dir [log]\n\n";

pub(crate) const OPTIONS: &[Opt] =
    &[opt('P', "", Arg::No), opt('1', "", Arg::No), opt('w', "", Arg::No), opt('W', "", Arg::Required)];
/// runit's own code for wrong use of runsvdir.
const EXIT_RUNSVDIR_USAGE: u8 = 1;
/// runsvdir(8): startup failure.
const EXIT_STARTUP: u8 = 100;
/// runit looks at the directory every five seconds. This one does so only where inotify does not
/// reach.
const SLOW_RESCAN: Duration = Duration::from_secs(5);

/// Some service did not end in order when all were told to.
const EXIT_DISORDER: u8 = 1;

/// How it was called.
#[derive(Default)]
struct Options {
    /// `-P`: each runsv in a session of its own.
    sessions: bool,
    /// `-1`: no runsv, all in this process.
    one_process: bool,
    /// `-w`: TERM ends all services and waits for that.
    wait: bool,
    /// `-W`: so long, then what is left is ended by force.
    limit: Option<Duration>,
}

/// The applet.
pub fn main(argv: Vec<OsString>) -> u8 {
    let mut args = argv.into_iter();
    let called = args.next().unwrap_or_default();
    let mut options = Options::default();
    let mut getopt = Getopt::new(OPTIONS, args);
    let wrong = getopt.by_ref().any(|given| {
        match given {
            Ok(('P', _)) => options.sessions = true,
            Ok(('1', _)) => options.one_process = true,
            Ok(('w', _)) => options.wait = true,
            Ok(('W', Some(secs))) => {
                options.limit = secs.to_str().and_then(|text| text.parse().ok()).map(Duration::from_secs);
                options.wait = true;
                return options.limit.is_none();
            }
            Ok(_) | Err(_) => return true,
        }
        false
    });
    let mut operands = getopt.operands().into_iter();
    let Some(dir) = operands.next().filter(|_| !wrong) else {
        say::error(format_args!("usage: {}{USAGE}", called.display()));
        return EXIT_RUNSVDIR_USAGE;
    };
    let name = dir.to_string_lossy().into_owned();
    // Taken before anything else: the log must be the very text of our arguments, and the last of
    // them.
    let log = operands.next().filter(|_| operands.next().is_none());
    match Scanner::open(PathBuf::from(dir), &name, &options, log.as_deref()) {
        Ok(scanner) => scanner.run(),
        Err(e) => {
            say::error(format_args!("runsvdir {name}: fatal: unable to start: {}\n", error_text(&e)));
            EXIT_STARTUP
        }
    }
}

struct Scanner {
    dir: PathBuf,
    name: String,
    /// Where we were started: `dir` is relative to it, whatever is the working directory meanwhile.
    home: OwnedFd,
    /// `-w`
    wait: bool,
    /// `-W`
    limit: Option<Duration>,
    /// No service is started any more.
    ending: Option<Ending>,
    scan: Scan,
    runners: Runners,
    signals: File,
    watch: Option<Watch>,
    /// Control fifos of the runsvs that are not ours: poll(2) tells when one has ended.
    others: HashMap<Ident, File>,
    log: Option<Log>,
    /// The last complaint about each service that could not be started.
    refused: HashMap<Ident, String>,
    /// The last complaint about the directory: said once.
    complaint: Option<String>,
    rescan_at: Option<Duration>,
    /// The kernel does not tell of changes, and that has been said.
    blind: bool,
}

impl Scanner {
    fn open(dir: PathBuf, name: &str, options: &Options, log: Option<&OsStr>) -> io::Result<Scanner> {
        sys::close_leaked_on_exec();
        let signals = signals(options.wait)?;
        if options.limit.is_some() {
            // A process that a service leaves behind becomes a child of ours, and ending.rs finds
            // it.
            nix::sys::prctl::set_child_subreaper(true)?;
        }
        let mut scanner = Scanner {
            dir,
            name: name.to_owned(),
            home: OwnedFd::from(File::open(".")?),
            wait: options.wait,
            limit: options.limit,
            ending: None,
            scan: Scan::default(),
            runners: Runners::new(options.one_process, options.sessions)?,
            signals,
            watch: None,
            others: HashMap::new(),
            log: None,
            refused: HashMap::new(),
            complaint: None,
            rescan_at: None,
            blind: false,
        };
        scanner.log = log.and_then(|text| scanner.open_log(text));
        Ok(scanner)
    }

    fn open_log(&mut self, text: &OsStr) -> Option<Log> {
        if text.len() < proctitle::LEAST {
            self.warn("log must have at least seven characters.");
            self.warn("log service disabled.");
            return None;
        }
        let opened = Log::open(text);
        opened.map_err(|e| self.warn(&format!("unable to open the log: {}", error_text(&e)))).ok()
    }

    fn warn(&mut self, text: &str) {
        let line = format!("runsvdir {}: warning: {text}\n", self.name);
        match &mut self.log {
            // Not through the pipe: it may be full, and only we empty it.
            Some(log) => log.push(line.as_bytes()),
            None => say::error(format_args!("{line}")),
        }
    }

    fn run(mut self) -> u8 {
        self.rescan();
        loop {
            for id in self.runners.settle() {
                self.handle(Event::Ended { pid: id, told: true });
            }
            if let Some(ending) = &self.ending
                && self.runners.is_empty()
                && self.others.is_empty()
            {
                let disorder = ending.code == 0 && ending.disorder;
                return if disorder { EXIT_DISORDER } else { ending.code };
            }
            let ready = self.wait();
            if ready.log
                && let Some(log) = &mut self.log
            {
                log.drain();
            }
            self.runners.dispatch();
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
            self.runners.tick(now);
            if let Some(log) = &mut self.log {
                log.tick(now);
            }
            if self.ending.is_some() {
                if self.hurry(now) {
                    return EXIT_DISORDER;
                }
            } else {
                if ready.watch || self.rescan_at.is_some_and(|at| now >= at) {
                    self.rescan();
                }
                self.handle(Event::Tick);
            }
        }
    }

    fn wait(&self) -> Ready {
        let scan = [self.scan.deadline(), self.rescan_at].map(|at| at.filter(|_| self.ending.is_none()));
        let last = self.ending.as_ref().and_then(Ending::deadline);
        let due = [self.runners.deadline(), self.log.as_ref().map(Log::deadline), last];
        let timeout = sys::timeout(scan.into_iter().chain(due).flatten().min());
        let input = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let watch = self.watch.as_ref().filter(|_| self.ending.is_none());
        let mut set = vec![input(self.signals.as_fd())];
        set.extend(watch.map(|w| input(w.as_fd())));
        set.extend(self.log.as_ref().map(|log| input(log.as_fd())));
        let others: Vec<Ident> = self.others.keys().copied().collect();
        // No events asked for: POLLERR comes unasked when the reader is gone.
        set.extend(self.others.values().map(|f| PollFd::new(f.as_fd(), PollFlags::empty())));
        // Last, and not asked about: it is looked at anyway.
        set.extend(self.runners.as_fd().map(input));
        // EINTR is the signal pipe's business, and nothing else can be wrong with these.
        let _ = poll(&mut set, timeout);
        let mut answers = set.iter().map(|fd| fd.any().unwrap_or(false));
        Ready {
            signals: answers.next().unwrap_or(false),
            watch: watch.is_some() && answers.next().unwrap_or(false),
            log: self.log.is_some() && answers.next().unwrap_or(false),
            others: others.into_iter().filter(|_| answers.next().unwrap_or(false)).collect(),
        }
    }

    /// Ends of children, TERM and HUP; an exit code when it is over at once.
    fn signalled(&mut self) -> Option<u8> {
        let mut buffer = [0; 64];
        let n = self.signals.read(&mut buffer).unwrap_or(0);
        let came = |signal: Signal| buffer.iter().take(n).any(|byte| i32::from(*byte) == signal as i32);
        let hangup = came(Signal::SIGHUP);
        let term = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR].into_iter().any(came);
        let order = Order::of(hangup, term, self.wait, self.ending.as_ref());
        // A TERM to the whole process group also ends services. They must not be started once more.
        if let Order::EndAll(code) = order {
            self.end_all(code);
        }
        while let Some((pid, exit)) = sys::reap() {
            if let Some(ended) = self.runners.reaped(pid, exit) {
                self.handle(ended);
            }
        }
        match order {
            Order::Nothing => None,
            // runsvdir(8): it exits 111 at once. What is in this process ends before it.
            Order::EndAll(code) => (hangup && !self.runners.here()).then_some(code),
            Order::Leave(code) => self.leave(code),
        }
    }

    /// The services go on, each with its runsv. The services of `-1` are in this process, so a copy
    /// of it goes on with them. Returns the exit code, or `None` in the copy.
    fn leave(&mut self, code: u8) -> Option<u8> {
        let wait = self.wait;
        match self.runners.hand_over(|| signals(wait)) {
            Ok(None) => Some(code),
            Ok(Some(own)) => {
                // The old pipe may hold a second TERM, for the original.
                if let Ok(own) = own {
                    self.signals = own;
                }
                self.others.clear();
                (self.scan, self.watch) = (Scan::default(), None);
                if let Some(log) = &mut self.log {
                    log.reopen();
                }
                self.ending = Some(Ending::kept());
                None
            }
            Err(e) => {
                self.warn(&format!("unable to leave the services a supervisor: {}", error_text(&e)));
                Some(code)
            }
        }
    }

    fn end_all(&mut self, code: u8) {
        if self.ending.as_ref().is_some_and(Ending::is_kept) {
            return self.runners.stop_all();
        }
        // A runsv that was killed has left its service. Another one ends it in order.
        for (ident, name) in self.scan.left() {
            let event = self.start(ident, &name, true);
            self.scan.step(sys::now(), event);
        }
        let mut ending = Ending::begin(sys::now(), code, self.limit);
        ending.left = self.scan.running().map(|(id, name)| (id, name.to_owned())).collect();
        ending.disorder = !self.scan.left().is_empty();
        self.ending = Some(ending);
        for action in self.scan.stop_all() {
            self.perform(action);
        }
    }

    /// The runsv of this service was killed while all end. Another one ends what it has left.
    fn end_another(&mut self, name: OsString) {
        let started = self.runners.start(&self.dir, &name, true);
        if let Ok(id) = started {
            self.runners.stop(id);
        }
        if let Some(ending) = &mut self.ending {
            match started {
                Ok(id) => drop(ending.left.insert(id, name)),
                Err(_) => ending.disorder = true,
            }
        }
    }

    /// With `-W`: what has not ended in time. True when it is not waited for any longer.
    fn hurry(&mut self, now: Duration) -> bool {
        let Some(step) = self.ending.as_mut().and_then(|ending| ending.step(now)) else { return false };
        if let Some(text) = self.ending.as_ref().and_then(|ending| ending.said(step)) {
            self.warn(&text);
        }
        ending::signal_all(step);
        step == ending::Step::GiveUp
    }

    fn handle(&mut self, event: Event) {
        if let (Some(ending), Event::Ended { pid, told }) = (&mut self.ending, &event)
            && let Some(name) = ending.ended(*pid, *told)
        {
            self.end_another(name);
        }
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.scan.step(sys::now(), event) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Start(ident, name) => Some(self.start(ident, &name, false)),
            Action::Stop(id) => {
                self.runners.stop(id);
                None
            }
            Action::StopOther(ident) => {
                let _ = self.others.get_mut(&ident)?.write(b"x");
                // At the end of all its end is waited for as well.
                if self.ending.is_none() {
                    self.others.remove(&ident);
                }
                None
            }
        }
    }

    /// See [`Runners::start`].
    fn start(&mut self, ident: Ident, name: &OsStr, end: bool) -> Event {
        self.go_home();
        // The runsv of a runsvdir that was killed lives on and holds the lock. A second runsv would
        // only complain, again and again. We hold its control fifo open instead: poll(2) tells at
        // once when that runsv ends, and then we start another.
        let other = ServiceDir::at(self.dir.join(name));
        let is_fifo = |file: &File| file.metadata().is_ok_and(|found| found.file_type().is_fifo());
        if let Some(mut control) = other.open_control().ok().filter(is_fifo) {
            // The copy of a `runsvdir -1` lets go of it. A runsv does not know the letter.
            let _ = control.write(&[RELEASE]);
            self.warn(&format!("{}: another runsv is running there: waiting for its end", name.display()));
            self.others.insert(ident, control);
            return Event::Occupied(ident);
        }
        match self.runners.start(&self.dir, name, end) {
            Ok(id) => {
                self.refused.remove(&ident);
                Event::Started(ident, id)
            }
            Err(text) => {
                // Said once, not at every try.
                if self.refused.get(&ident) != Some(&text) {
                    self.warn(&text);
                    self.refused.insert(ident, text);
                }
                Event::StartFailed(ident)
            }
        }
    }

    /// Services in this process have made theirs the working directory.
    fn go_home(&mut self) {
        if self.runners.here()
            && let Err(e) = fchdir(&self.home)
        {
            self.warn(&format!("unable to change directory: {}", error_text(&e.into())));
        }
    }

    fn rescan(&mut self) {
        self.go_home();
        // The watch comes first: what happens while the directory is read is then seen as an event.
        let watching = Watch::renew(&mut self.watch, &self.dir);
        let listing = self.list();
        self.rescan_at = (!watching || listing.is_err()).then(|| sys::now() + SLOW_RESCAN);
        // A directory that is not there is complained of below.
        let blind = !watching && listing.is_ok();
        if blind && !self.blind {
            self.warn("unable to watch the directory for changes: looking every five seconds");
        }
        self.blind = blind;
        match listing {
            Ok(entries) => {
                self.refused.retain(|ident, _| entries.iter().any(|entry| entry.ident == *ident));
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
                    ident: Ident { dev: stat.dev(), ino: stat.ino(), born: stat.created().ok() },
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

/// Tells of these signals from now on.
fn signals(wait: bool) -> io::Result<File> {
    let signals = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGHUP];
    // The first process of a namespace gets no signal that it does not catch. Ctrl-C sends INT; LXC
    // and Incus stop a container with PWR.
    let more = [Signal::SIGINT, Signal::SIGPWR];
    let signals = if wait { [&signals[..], &more].concat() } else { signals.to_vec() };
    applet::sys::signal_pipe(&signals).map(File::from)
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
    use applet::manpage;

    #[test]
    fn usage_and_manual_pages_agree() {
        let page = include_str!("../../../man/runsvdir.8");
        assert_eq!(manpage::options(page, "OPTIONS"), manpage::usage(USAGE));
        let page = include_str!("../../../man/runsv.8");
        assert_eq!(manpage::options(page, "OPTIONS"), manpage::usage(crate::runsv::USAGE));
    }
}

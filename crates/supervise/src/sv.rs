//! sv: reports on services and controls them; `svc` and `svok` by their names.
//!
//! What it is: words to letters, and the waiting until the service has really done what it was told. It waits for
//! changes of supervise/ (inotify) and for the end of runsv (the fifo), and compares with the status read before the
//! command was sent: no poll, and no "ok" for a state that is older than the command. What it is not: the protocol
//! (control.rs). Called by people, scripts, and as the LSB interface of an init script.
#![expect(clippy::disallowed_methods, reason = "runs ./check, shows the age of a state by the wall clock")]

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::control::{Command, ControlError, RunState, ServiceDir, Status, Tai64n, Want, error_text};
use crate::getopt::{Arg, Getopt, Opt, OptError};
use crate::{EXIT_SYSTEM, EXIT_USAGE, say, sys};

mod verb;
use verb::{Goal, Order, order};

/// What `sv` says when it is used wrongly.
pub const USAGE: &str = "usage: sv [-v] [-w sec] command service ...\n\n";
/// What `svc` says when it is used wrongly.
pub const USAGE_SVC: &str = "usage: svc [-udopchaitkx12q] service ...\n\n";
/// What `svok` says when it is used wrongly.
pub const USAGE_SVOK: &str = "usage: svok service\n\n";

const OPTIONS: &[Opt] = &[
    Opt { key: 'v', long: "", arg: Arg::No },
    Opt { key: 'w', long: "", arg: Arg::Required },
    Opt { key: 'V', long: "", arg: Arg::No },
];

/// sv(8): how long it waits.
const WAIT_SECS: u64 = 7;
/// sv(8): the exit code counts the services that failed, up to this.
const MAX_FAILED: usize = 99;
/// A net below inotify: a supervise/ that was replaced, or a file system without it, is looked at once a second.
const NET: Duration = Duration::from_secs(1);
/// A ./check that says no is asked again after this, then twice this, up to [`CHECK_MOST`]: nothing tells when it will
/// say yes. The most is runit's fixed interval.
const CHECK_FIRST: Duration = Duration::from_millis(10);
const CHECK_MOST: Duration = Duration::from_millis(420);

/// LSB: "program is not running".
const LSB_DOWN: u8 = 3;
/// LSB: "status is unknown".
const LSB_UNKNOWN: u8 = 4;
/// sv(8): wrong use as an init script.
const LSB_USAGE: u8 = 2;

/// The applet.
pub fn main(argv: Vec<OsString>) -> u8 {
    let mut args = argv.into_iter();
    let called = args.next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default().to_owned();
    match name.as_bytes() {
        b"svc" => svc(args),
        b"svok" => svok(args),
        b"sv" => sv(args, None),
        _ => sv(args, Some(name)),
    }
}

fn usage(lsb: Option<&OsStr>) -> u8 {
    match lsb {
        None => {
            say::error(format_args!("{USAGE}"));
            EXIT_USAGE
        }
        Some(name) => {
            say::error(format_args!("usage: {} [-w sec] command\n\n", name.display()));
            LSB_USAGE
        }
    }
}

/// `lsb`: the name of an init script that is a link to sv; it names the service.
fn sv(args: impl Iterator<Item = OsString>, lsb: Option<OsString>) -> u8 {
    let mut wait_secs = env::var("SVWAIT").ok().map_or(WAIT_SECS, |text| leading_number(&text));
    let mut verbose = false;
    let mut getopt = Getopt::new(OPTIONS, args);
    for given in getopt.by_ref() {
        match given {
            Ok(('w', secs)) => {
                wait_secs = leading_number(&secs.unwrap_or_default().to_string_lossy());
                verbose = true;
            }
            Ok(('V', _)) => {
                say::error(format_args!(concat!("netsv ", env!("CARGO_PKG_VERSION"), "\n")));
                return usage(lsb.as_deref());
            }
            Ok(_) => verbose = true,
            Err(e) => {
                match e {
                    OptError::Unknown(letter) => say::error(format_args!("sv: illegal option -- {letter}\n")),
                    OptError::NeedsArgument(letter) => {
                        say::error(format_args!("sv: option requires an argument -- {letter}\n"))
                    }
                    OptError::UnwantedArgument(_) | OptError::Ambiguous(_) => say::error(format_args!("sv: {e}\n")),
                }
                return usage(lsb.as_deref());
            }
        }
    }
    let mut operands = getopt.operands().into_iter();
    let word = operands.next().unwrap_or_default();
    let mut names: Vec<OsString> = lsb.iter().cloned().collect();
    if lsb.is_none() {
        names.extend(operands);
    }
    let Some(order) = order(&word.to_string_lossy(), verbose).filter(|_| !names.is_empty()) else {
        return usage(lsb.as_deref());
    };
    let mut run = Run { lsb: lsb.is_some(), failed: 0, lsb_code: 0 };
    run.obey(order, Duration::from_secs(wait_secs), names);
    if run.lsb { run.lsb_code } else { u8::try_from(run.failed.min(MAX_FAILED)).unwrap_or(99) }
}

/// As strtol(3) reads it: what is no number is 0.
fn leading_number(text: &str) -> u64 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// One service of the command line.
struct Target {
    name: String,
    dir: ServiceDir,
    /// Its status before the command was sent.
    before: Status,
    goal: Goal,
    /// Tells of the end of runsv.
    control: File,
    /// It has ended.
    gone: bool,
    check: Check,
}

/// The state of asking ./check.
enum Check {
    /// To be asked when the state is right.
    Unasked,
    /// It runs.
    Asked(Child, Option<OwnedFd>, Duration),
    /// It said no, or could not be run; the next time is `at`.
    Refused { at: Duration, pause: Duration },
}

/// What a look at a service gives.
enum Look {
    NotYet,
    Reached(Status),
    RunsvGone,
    Lost(ControlError),
}

struct Run {
    lsb: bool,
    failed: usize,
    lsb_code: u8,
}

impl Run {
    fn obey(&mut self, order: Order, wait: Duration, names: Vec<OsString>) {
        let mut targets = Vec::new();
        for name in names {
            let dir = ServiceDir::resolve(&name);
            let name = name.to_string_lossy().into_owned();
            match order.goal {
                Goal::Report => self.report(&name, &dir),
                goal => targets.extend(self.send(name, dir, &order.letters, goal)),
            }
        }
        if order.wait {
            self.wait_for(targets, &order, wait);
        }
    }

    fn fail(&mut self) {
        self.failed += 1;
        self.lsb_code = self.lsb_code.max(1);
    }

    fn complain(&mut self, name: &str, error: &ControlError) {
        say::out(&format!("{}{name}: {error}\n", severity(error)));
        self.fail();
    }

    fn report(&mut self, name: &str, dir: &ServiceDir) {
        let status = match dir.check_running().and_then(|()| dir.status()) {
            Ok(status) => status,
            Err(e) => {
                self.complain(name, &e);
                self.lsb_code = LSB_UNKNOWN;
                return;
            }
        };
        let mut line = describe(name, &status, dir.path());
        let log = ServiceDir::at(&dir.path().join("log"));
        if log.exists() {
            line.push_str("; ");
            match log.check_running().and_then(|()| log.status()) {
                Ok(status) => line.push_str(&describe("log", &status, log.path())),
                Err(e) => line.push_str(&format!("{}{name}: {e}", severity(&e))),
            }
        }
        say::out(&format!("{line}\n"));
        // LSB: a finish script that runs is still the service being there.
        if status.pid.is_none() {
            self.lsb_code = LSB_DOWN;
        }
    }

    /// Sends the letters; the target to wait for, if there is anything to wait for.
    fn send(&mut self, name: String, dir: ServiceDir, letters: &[Command], goal: Goal) -> Option<Target> {
        let sent = (|| {
            // Opened before the command, so that the end of runsv cannot be missed.
            dir.check_running()?;
            let control = dir.open_control()?;
            let before = dir.status()?;
            if !verb::superfluous(letters, &before) {
                dir.send(letters)?;
            }
            Ok((before, control))
        })();
        match sent {
            Ok((before, control)) => {
                Some(Target { name, dir, before, goal, control, gone: false, check: Check::Unasked })
            }
            Err(e) if goal == Goal::Gone && is_gone(&e) => {
                say::out(&format!("ok: {name}: runsv not running\n"));
                None
            }
            Err(e) => {
                self.complain(&name, &e);
                None
            }
        }
    }

    fn wait_for(&mut self, mut targets: Vec<Target>, order: &Order, wait: Duration) {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        let flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE_SELF;
        for target in &targets {
            // Without a watch the net does.
            let _ = inotify.as_ref().map(|i| i.add_watch(&target.dir.path().join("supervise"), flags));
        }
        let end = sys::now() + wait;
        loop {
            let late = sys::now() >= end;
            targets.retain_mut(|target| self.look(target, order, late));
            if targets.is_empty() {
                return;
            }
            sleep(&mut targets, inotify.as_ref(), end);
            if let Some(inotify) = &inotify {
                // What it says does not matter: everything is looked at again.
                let _ = inotify.read_events();
            }
        }
    }

    /// Whether to go on waiting for this one.
    fn look(&mut self, target: &mut Target, order: &Order, late: bool) -> bool {
        match target.look() {
            Look::Reached(status) => say::out(&format!("ok: {}\n", describe(&target.name, &status, target.dir.path()))),
            Look::RunsvGone if target.goal == Goal::Gone => {
                say::out(&format!("ok: {}: runsv not running\n", target.name))
            }
            Look::RunsvGone => {
                say::out(&format!("fail: {}: runsv not running\n", target.name));
                self.fail();
            }
            Look::Lost(e) => self.complain(&target.name, &e),
            Look::NotYet if late => {
                self.expire(target, order);
            }
            Look::NotYet => return true,
        }
        false
    }

    fn expire(&mut self, target: &mut Target, order: &Order) {
        let line = match target.dir.status() {
            Ok(status) => describe(&target.name, &status, target.dir.path()),
            Err(e) => format!("{}: {e}", target.name),
        };
        say::out(&format!("{}: {line}\n", if order.kill { "kill" } else { "timeout" }));
        self.fail();
        if order.kill
            && let Err(e) = target.dir.send(&[Command::Kill])
        {
            say::out(&format!("{}{}: {e}\n", severity(&e), target.name));
        }
        target.end_check();
    }
}

impl Target {
    fn look(&mut self) -> Look {
        if self.gone && self.goal == Goal::Gone {
            return Look::RunsvGone;
        }
        self.gone = false;
        let status = match self.dir.check_running().and_then(|()| self.dir.status()) {
            Ok(status) => status,
            Err(e) if is_gone(&e) => return Look::RunsvGone,
            Err(e) => return Look::Lost(e),
        };
        if !self.goal.reached(&self.before, &status) {
            self.end_check();
            return Look::NotYet;
        }
        if !self.goal.asks_check(&status) || self.checked() { Look::Reached(status) } else { Look::NotYet }
    }

    /// Whether ./check says yes, or is not there.
    fn checked(&mut self) -> bool {
        let pause = match &mut self.check {
            Check::Unasked => CHECK_FIRST,
            Check::Refused { at, .. } if sys::now() < *at => return false,
            Check::Refused { pause, .. } => *pause,
            Check::Asked(child, _, pause) => {
                let pause = *pause;
                return match child.try_wait() {
                    Ok(None) => false,
                    Ok(Some(code)) if code.success() => {
                        self.check = Check::Unasked;
                        true
                    }
                    Ok(Some(_)) | Err(_) => self.refused(pause),
                };
            }
        };
        let path = self.dir.path();
        match File::open(path.join("check")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return true,
            Err(e) => {
                say::out(&format!("warning: {}: unable to open ./check: {}\n", self.name, error_text(&e)));
                return self.refused(pause);
            }
            Ok(_) => {}
        }
        match Process::new("./check").current_dir(path).stdout(Stdio::null()).spawn() {
            Ok(mut child) => {
                let pidfd = sys::pidfd_open(child.id()).ok();
                if pidfd.is_none() {
                    let _ = child.wait();
                }
                self.check = Check::Asked(child, pidfd, pause);
                // Without a pidfd it has ended by now.
                matches!(self.check, Check::Asked(_, None, _)) && self.checked()
            }
            Err(e) => {
                say::out(&format!("warning: {}: unable to run ./check: {}\n", self.name, error_text(&e)));
                self.refused(pause)
            }
        }
    }

    fn refused(&mut self, pause: Duration) -> bool {
        self.check = Check::Refused { at: sys::now() + pause, pause: (pause * 2).min(CHECK_MOST) };
        false
    }

    fn end_check(&mut self) {
        if let Check::Asked(child, _, _) = &mut self.check {
            let _ = child.kill();
            let _ = child.wait();
            self.check = Check::Unasked;
        }
    }
}

/// Until something has changed, or `end`, or the net. Notes who has lost its runsv: another may have come since.
fn sleep(targets: &mut [Target], inotify: Option<&Inotify>, end: Duration) {
    let now = sys::now();
    let mut until = end.min(now + NET);
    // No events asked for: POLLERR comes unasked when the reader is gone.
    let controls = targets.iter().map(|target| PollFd::new(target.control.as_fd(), PollFlags::empty()));
    let mut set: Vec<PollFd> = controls.collect();
    set.extend(inotify.iter().map(|i| PollFd::new(i.as_fd(), PollFlags::POLLIN)));
    for target in targets.iter() {
        match &target.check {
            Check::Unasked | Check::Asked(_, None, _) => {}
            Check::Asked(_, Some(pidfd), _) => set.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)),
            Check::Refused { at, .. } => until = until.min(*at),
        }
    }
    let wait = until.saturating_sub(now) + Duration::from_nanos(999_999);
    let _ = poll(&mut set, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX));
    let gone: Vec<bool> = set.iter().take(targets.len()).map(|fd| fd.any().unwrap_or(false)).collect();
    for (target, gone) in targets.iter_mut().zip(gone) {
        target.gone |= gone;
    }
}

fn is_gone(error: &ControlError) -> bool {
    matches!(error, ControlError::NotRunning(e) if e.raw_os_error() == Some(Errno::ENXIO as i32))
}

/// runit calls it a failure when it knows that there is no runsv or no service.
fn severity(error: &ControlError) -> &'static str {
    match error {
        ControlError::Missing(_) => "fail: ",
        ControlError::NotRunning(_) if is_gone(error) => "fail: ",
        ControlError::NotRunning(_) | ControlError::Full | ControlError::Io(..) => "warning: ",
    }
}

/// `run: NAME: (pid N) Ns, normally down, paused, want down, got TERM`
fn describe(name: &str, status: &Status, dir: &Path) -> String {
    let state = match status.state {
        RunState::Down => "down",
        RunState::Run => "run",
        RunState::Finish => "finish",
    };
    let now = Tai64n::from_system_time(SystemTime::now());
    let age_secs = now.secs.saturating_sub(status.since.secs);
    let normally_up = !dir.join("down").exists();
    let mut line = format!("{state}: {name}: ");
    match (status.state, status.pid) {
        (RunState::Down, _) => {}
        (RunState::Run | RunState::Finish, pid) => line.push_str(&format!("(pid {}) ", pid.unwrap_or(0))),
    }
    line.push_str(&format!("{age_secs}s"));
    let notes = [
        (status.pid.is_some() && !normally_up, ", normally down"),
        (status.pid.is_none() && normally_up, ", normally up"),
        (status.pid.is_some() && status.paused, ", paused"),
        (status.pid.is_none() && status.want == Want::Up, ", want up"),
        (status.pid.is_some() && status.want == Want::Down, ", want down"),
        (status.pid.is_some() && status.got_term, ", got TERM"),
    ];
    notes.iter().filter(|(holds, _)| *holds).for_each(|(_, text)| line.push_str(text));
    line
}

/// svc(8) of daemontools: the options are the letters, in their order; silent, and it waits for nothing.
fn svc(args: impl Iterator<Item = OsString>) -> u8 {
    let mut getopt = Getopt::new(verb::SVC_OPTIONS, args);
    let mut letters = Vec::new();
    for given in getopt.by_ref() {
        match given {
            Ok((key, _)) => letters.extend(u8::try_from(key).ok().and_then(Command::from_letter)),
            Err(e) => {
                say::error(format_args!("svc: {e}\n{USAGE_SVC}"));
                return EXIT_USAGE;
            }
        }
    }
    let names = getopt.operands();
    if names.is_empty() {
        say::error(format_args!("{USAGE_SVC}"));
        return EXIT_USAGE;
    }
    let mut code = 0;
    for name in names {
        let dir = ServiceDir::resolve(&name);
        if let Err(e) = dir.send(&letters) {
            say::error(format_args!("svc: warning: unable to control {}: {e}\n", name.display()));
            code = 1;
        }
    }
    code
}

/// svok(8) of daemontools: 0 when a runsv runs in the service directory, 100 when none does, 111 when it cannot be told.
fn svok(args: impl Iterator<Item = OsString>) -> u8 {
    let names: Vec<OsString> = args.collect();
    let [name] = names.as_slice() else {
        say::error(format_args!("{USAGE_SVOK}"));
        return EXIT_USAGE;
    };
    match ServiceDir::resolve(name).check_running() {
        Ok(()) => 0,
        Err(ControlError::Missing(_) | ControlError::NotRunning(_)) => EXIT_USAGE,
        Err(e) => {
            say::error(format_args!("svok: fatal: {}: {e}\n", name.display()));
            EXIT_SYSTEM
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manpage;

    const PAGE: &str = include_str!("../../../man/sv.8");

    #[test]
    fn usage_options_and_manual_page_agree() {
        let keys = |table: &[Opt]| manpage::sorted(table.iter().map(|o| o.key));
        let (sv_page, svc_page) = PAGE.split_once(".Ss Options of svc").unwrap();
        assert_eq!(manpage::options(sv_page, "OPTIONS"), keys(OPTIONS));
        // runit's usage keeps silent about -V.
        let shown = keys(OPTIONS).into_iter().filter(|key| *key != 'V').collect::<Vec<_>>();
        assert_eq!(manpage::usage(USAGE), shown);
        let line = svc_page.lines().find_map(|line| line.strip_prefix(".It Fl ")).unwrap();
        assert_eq!(manpage::sorted(line.split(" , ").flat_map(str::chars)), keys(verb::SVC_OPTIONS));
        assert_eq!(manpage::usage(USAGE_SVC), keys(verb::SVC_OPTIONS));
        assert_eq!(manpage::usage(USAGE_SVOK), Vec::<char>::new());
    }

    #[test]
    fn every_word_of_the_manual_page_is_understood() {
        let commands = PAGE.split_once(".Sh COMMANDS").unwrap().1.split_once(".Sh OPTIONS").unwrap().0;
        let words: Vec<&str> = commands
            .lines()
            .filter_map(|line| line.strip_prefix(".It Cm ").or(line.strip_prefix(".Cm ")))
            .flat_map(|line| line.split_ascii_whitespace().filter(|word| !matches!(*word, "," | "." | ";")))
            .collect();
        assert!(words.len() > 30, "{words:?}");
        for word in words {
            assert!(order(word, false).is_some(), "{word}");
        }
    }

    #[test]
    fn a_line_of_status_is_runits() {
        let mut status = Status {
            since: Tai64n::from_system_time(SystemTime::now()),
            pid: Some(7),
            paused: true,
            want: Want::Down,
            got_term: true,
            state: RunState::Run,
        };
        let dir = Path::new("/nonexistent");
        let line = |status: &Status| {
            let line = describe("a", status, dir);
            line.replace(": a: (pid 7) 0s", ":").replace(": a: (pid 7) 1s", ":")
        };
        assert_eq!(line(&status), "run:, paused, want down, got TERM");
        status.state = RunState::Finish;
        assert_eq!(line(&status), "finish:, paused, want down, got TERM");
        // A clock that was set back shows 0.
        status.since.secs += 1000;
        assert!(describe("a", &status, dir).contains(" 0s,"));
    }

    #[test]
    fn numbers_are_read_as_runit_reads_them() {
        for (text, expected) in [("7", 7), ("12x", 12), ("x", 0), ("", 0), ("-3", 0)] {
            assert_eq!(leading_number(text), expected, "{text}");
        }
    }
}

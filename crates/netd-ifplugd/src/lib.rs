//! ifplugd: watches one link and tells a program, or the services that live on it.
//!
//! Here: what happens before and around the watch (pidfile, background, -k, -c, -S, -R, -z, -w).
//! The loop is `watch`, the decisions are `debounce`; of --all they are `all` and `follow`. Called
//! by the multi-call binary.
#![expect(clippy::disallowed_methods, reason = "-w starts this program again")]

use std::cell::Cell;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::pin::pin;
use std::process::{Command, Stdio};

use applet::{EXIT_SYSTEM, EXIT_USAGE};
use netd::daemon::{self, Log};
use netd::runner::{Program, Runner};
use nix::unistd::Pid;

mod all;
mod cli;
pub use cli::USAGE;
mod damping;
mod debounce;
mod follow;
mod pidfile;
mod services;
mod watch;

use cli::{Mode, Options};
use debounce::Verdict;
use pidfile::Pidfile;

/// Set in the environment of the process that -w starts: its first verdict goes to standard output
/// as an exit code.
const REPORT: &str = "IFPLUGD_REPORT";
/// -w: the parent's exit code for a link that is up, ifplugd(8) of 0.28.
const LINK_UP: u8 = 2;
/// -w: ... and for one that is down.
const LINK_DOWN: u8 = 3;
/// -c: no daemon runs.
const NOT_RUNNING: u8 = 255;
/// -S, -R, -z: the same, as 0.28 ends.
const NOBODY_TO_TELL: u8 = 6;

/// Said by a second daemon of an interface.
const ALREADY_RUNNING: &str = "daemon is already running";

/// The applet.
pub fn main(mut argv: Vec<OsString>) -> u8 {
    let args = argv.split_off(argv.len().min(1));
    let options = match cli::parse(args.clone(), std::env::var_os("FW_DYNAMIC")) {
        Ok(options) => options,
        Err(e) => return fail(EXIT_USAGE, &format!("ifplugd: {e}\n{}", cli::USAGE)),
    };
    if options.mode == Mode::Watch && !options.foreground {
        daemon::close_inherited();
    }
    let pidfile = options.pidfile.as_deref();
    match options.mode {
        Mode::Help => say(cli::USAGE),
        Mode::Version => say(concat!("ifplugd of netsv ", env!("CARGO_PKG_VERSION"), "\n")),
        Mode::Kill { wait } => done(pidfile.map_or(Ok(()), |path| pidfile::stop(path, wait)).map(|()| 0)),
        Mode::Check => done(holder(&options).and_then(|holder| check(options.name(), holder))),
        Mode::Tell(signal) => match pidfile.map_or(Ok(false), |path| pidfile::tell(path, signal)) {
            Ok(true) => 0,
            Ok(false) => fail(NOBODY_TO_TELL, "ifplugd not running.\n"),
            Err(e) => done(Err(e)),
        },
        Mode::Watch if std::env::var_os(REPORT).is_some() => reporting(&options),
        Mode::Watch if options.foreground => watch(&options, None),
        Mode::Watch if options.wait_on_fork && !options.all => done(wait_on_fork(argv, &args)),
        // The caller has to hear of it: the background has no output.
        Mode::Watch if matches!(holder(&options), Ok(Some(_))) => {
            Log::new("ifplugd", Some(options.name()), 0).info(ALREADY_RUNNING);
            1
        }
        Mode::Watch => match background(&options) {
            Ok(()) => watch(&options, None),
            Err(e) => done(Err(e)),
        },
    }
}

/// Who watches the interface already.
fn holder(options: &Options) -> io::Result<Option<Pid>> {
    options.pidfile.as_deref().map_or(Ok(None), pidfile::holder)
}

/// -c, in the words of 0.28.
fn check(iface: &str, holder: Option<Pid>) -> io::Result<u8> {
    let (text, code) = match holder {
        Some(pid) => (format!("ifplugd process for device {iface} running as pid {pid}.\n"), 0),
        None => ("ifplugd not running.\n".to_owned(), NOT_RUNNING),
    };
    io::stdout().write_all(text.as_bytes()).map(|()| code)
}

/// Goes to the background; with -s standard error stays where it is, unless a caller may wait for
/// its end.
fn background(options: &Options) -> io::Result<()> {
    if options.syslog { daemon::background() } else { daemon::background_with_log() }
}

/// Runs the daemon in this process.
fn watch(options: &Options, report: Option<&dyn Fn(Verdict)>) -> u8 {
    let mut log = Log::new("ifplugd", Some(options.name()), options.verbosity);
    // Where no syslogd reads, no log is left that could say so.
    if options.syslog
        && !options.foreground
        && let Ok(both) = log.clone().with_syslog()
    {
        log = both;
    }
    // Before the lock, which it is not to hold when we are killed.
    let has_script = options.config.script && !options.all;
    let runner = match has_script.then(|| Runner::start("ifplugd", program(options))).transpose() {
        Ok(runner) => runner,
        Err(e) => {
            log.info(format_args!("fatal: can't fork: {e}"));
            return EXIT_SYSTEM;
        }
    };
    let pidfile = match options.pidfile.as_deref().map(Pidfile::take).transpose() {
        Ok(pidfile) => pidfile,
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            log.info(ALREADY_RUNNING);
            return 1;
        }
        // A read-only /var/run is no reason to leave a link unwatched.
        Err(e) => {
            log.info(format_args!("no pidfile: {e}"));
            None
        }
    };
    let result = match options.all {
        true => daemon::block_on(pin!(all::run(options, &log))),
        false => daemon::block_on(pin!(watch::run(options, runner, &log, report))),
    };
    let code = result.unwrap_or_else(|e| {
        log.info(format_args!("fatal: {e}"));
        EXIT_SYSTEM
    });
    // The lock ends with this process, not before it.
    std::mem::forget(pidfile.map(Pidfile::remove));
    code
}

/// PROG IFACE up|down [ARG], with our environment.
fn program(options: &Options) -> Program {
    Program {
        path: options.program.clone(),
        before: vec![options.iface.to_string().into()],
        after: options.extra.iter().cloned().collect(),
        env: std::env::vars_os().filter(|(name, _)| name != REPORT).collect(),
    }
}

/// The process that -w started: it reports, then lets go of the pipe.
fn reporting(options: &Options) -> u8 {
    match nix::unistd::setsid().map_err(io::Error::from).and_then(|_| take_output()) {
        Ok(pipe) => report_to(pipe, options),
        Err(e) => done(Err(e)),
    }
}

/// The pipe that is our standard output. No program is to have it.
fn take_output() -> io::Result<File> {
    let pipe = io::stdout().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(pipe.into())
}

fn report_to(pipe: File, options: &Options) -> u8 {
    let pipe = Cell::new(Some(pipe));
    let report = |verdict| {
        let code = match verdict {
            Verdict::Up => LINK_UP,
            Verdict::Down => LINK_DOWN,
        };
        let _ = pipe.take().map(|mut pipe| pipe.write_all(&[code]));
        // A caller that waits for the end of our output must not wait for the end of us.
        let _ = daemon::let_go(lets_go_of_errors(options));
    };
    watch(options, Some(&report))
}

/// Whether standard error is left when -w knows the link.
pub(crate) fn lets_go_of_errors(options: &Options) -> bool {
    options.syslog || !daemon::is_log()
}

/// Starts this program again in the background and waits for its first verdict, or its end.
fn wait_on_fork(argv: Vec<OsString>, args: &[OsString]) -> io::Result<u8> {
    let name = argv.into_iter().next().unwrap_or_else(|| "ifplugd".into());
    let mut child = Command::new("/proc/self/exe")
        .arg0(name)
        .args(args)
        .env(REPORT, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut code = [0];
    let mut pipe = child.stdout.take().ok_or(ErrorKind::BrokenPipe)?;
    match pipe.read_exact(&mut code) {
        Ok(()) => Ok(u8::from_ne_bytes(code)),
        // It ended before it knew: its own code says why.
        Err(_) => Ok(child.wait()?.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
    }
}

fn say(text: &str) -> u8 {
    done(io::stdout().write_all(text.as_bytes()).map(|()| 0))
}

fn done(result: io::Result<u8>) -> u8 {
    result.unwrap_or_else(|e| fail(EXIT_SYSTEM, &format!("ifplugd: fatal: {}\n", &e as &dyn Display)))
}

fn fail(code: u8, text: &str) -> u8 {
    let _ = io::stderr().write_all(text.as_bytes());
    code
}

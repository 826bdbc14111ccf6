//! runsv: starts and monitors a service and its log.
//!
//! What it is: the waiting. One poll(2) over the signal pipe and the set of the service's
//! descriptors (host.rs), without a timeout unless a machine has a deadline: an idle runsv never
//! wakes up. What it is not: deciding (service.rs) or doing (unit.rs). Called by runsvdir, by name,
//! through PATH.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;

use crate::files::{Fatal, unable};
use crate::host::Host;
use crate::shared::Shared;
use crate::sys;
use applet::control::error_text;
use applet::{EXIT_SYSTEM, say};

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
    match supervise(dir) {
        Ok(()) => 0,
        Err(Fatal(text)) => {
            say::error(format_args!("runsv {}: fatal: {text}\n", dir.display()));
            EXIT_SYSTEM
        }
    }
}

fn supervise(dir: &OsStr) -> Result<(), Fatal> {
    sys::close_leaked_on_exec();
    let signals = applet::sys::signal_pipe(&[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGIO]);
    let mut signals = File::from(unable("create selfpipe", signals)?);
    unable("change to directory", env::set_current_dir(dir))?;
    let mut host = Host::new(unable("start", Shared::new())?);
    // A TERM that has come already: ./run is not started first.
    let end = came(&mut signals).contains(&Signal::SIGTERM);
    host.add(None, dir, end)?;
    loop {
        host.settle();
        if host.is_empty() {
            return Ok(());
        }
        let came = if wait(&host, &signals) { came(&mut signals) } else { Vec::new() };
        // The service directory, see Shared::watch_directory.
        if came.contains(&Signal::SIGIO) {
            host.changed(|_| true);
        }
        // Commands before ends, see Shared::ready.
        host.dispatch();
        if !came.is_empty() {
            obey(&mut host, &came);
        }
        host.tick(sys::now());
    }
}

/// Whether a signal came.
fn wait(host: &Host, signals: &File) -> bool {
    let mut set = [signals.as_fd(), host.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut set, sys::timeout(host.deadline())) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(e) => say::error(format_args!("runsv: warning: unable to poll: {}\n", error_text(&e.into()))),
    }
    set.first().and_then(PollFd::any).unwrap_or(false)
}

/// The signals that have come since the last call.
fn came(signals: &mut File) -> Vec<Signal> {
    let mut buffer = [0; 64];
    let n = signals.read(&mut buffer).unwrap_or(0);
    buffer.iter().take(n).filter_map(|byte| Signal::try_from(i32::from(*byte)).ok()).collect()
}

fn obey(host: &mut Host, came: &[Signal]) {
    // As with commands, before the ends: a TERM to the whole process group ends the service too,
    // and it shall not be started once more.
    if came.contains(&Signal::SIGTERM) {
        host.terminate_all();
    }
    while let Some((pid, exit)) = sys::reap() {
        host.reaped(pid, exit);
    }
}

//! The loggers: the cost of 16 MiB of short lines through a pipe.

use std::fs;
use std::io::{self, Write};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use testkit::wait_until;

use super::suite::Suite;
use crate::world::sh;

/// 100 bytes, the newline included.
const LINE_BYTES: usize = 100;
const TOTAL_BYTES: usize = 16 << 20;
/// The size of a pipe, which the writer writes at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The cost of one run.
pub(crate) struct Cost {
    /// User and system time of the logger.
    pub(crate) cpu_ms: f64,
    /// Its calls of write(2) and the like; `None` where the kernel does not count them.
    pub(crate) writes: Option<f64>,
}

/// One run of the suite's logger into an empty directory.
pub(crate) fn run(suite: &Suite, logger: &[&str]) -> io::Result<Cost> {
    let dir = "/run/supervise/log";
    sh(&format!("rm -rf {dir}; mkdir {dir}"));
    let mut child = suite.command("/run".as_ref(), &[logger, &[dir]].concat()).stdin(Stdio::piped()).spawn()?;
    let before = cpu_ms()?;
    let mut pipe = child.stdin.take().ok_or_else(|| io::Error::other("no pipe to the logger"))?;
    let mut line = vec![b'x'; LINE_BYTES - 1];
    line.push(b'\n');
    let text: Vec<u8> = line.into_iter().cycle().take(TOTAL_BYTES / LINE_BYTES * LINE_BYTES).collect();
    for chunk in text.chunks(CHUNK_BYTES) {
        pipe.write_all(chunk)?;
    }
    drop(pipe);
    // The logger has ended, and the bench has not waited for it yet: the kernel still has its
    // counts.
    let stat = format!("/proc/{}/stat", child.id());
    wait_until("the logger to end", Duration::from_secs(20), || {
        fs::read_to_string(&stat)
            .is_ok_and(|text| text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
    });
    let io = fs::read_to_string(format!("/proc/{}/io", child.id())).unwrap_or_default();
    let writes = io.lines().find_map(|line| line.strip_prefix("syscw: ")?.parse().ok());
    let status = child.wait()?;
    if !status.success() {
        return Err(io::Error::other(format!("{}: {logger:?}: {status}", suite.name)));
    }
    Ok(Cost { cpu_ms: cpu_ms()? - before, writes })
}

/// The processor time of all children that were waited for. Between two calls there is only the
/// logger.
fn cpu_ms() -> io::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1000.0)
}

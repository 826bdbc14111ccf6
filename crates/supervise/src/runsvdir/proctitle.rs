//! The log that ps(1) shows: the last argument of our own command line, written over with the text
//! that comes in on stderr.
//!
//! What it is: the daemontools' readproctitle, within runsvdir. Called by runsvdir.rs. The memory
//! is found through proc(5) and written through /proc/self/mem, so no pointer is needed.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::sys;

/// runsvdir(8): the log must be at least this long.
pub(super) const LEAST: usize = 7;
/// runsvdir(8): a dot every 15 minutes, so that old messages expire.
const DOT: Duration = Duration::from_secs(15 * 60);
/// The first characters stay as they are, as in `log: ....`.
const HEAD: usize = 5;

/// The log: the text that is written to standard error, shown there.
pub(super) struct Log {
    title: Proctitle,
    pipe: File,
    dot_at: Duration,
}

impl Log {
    /// From here on standard error is the log. `argument` must be the last of the command line.
    pub(super) fn open(argument: &OsStr) -> io::Result<Log> {
        let title = Proctitle::open(argument)?;
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        nix::unistd::dup2_stderr(&write)?;
        Ok(Log { title, pipe: File::from(read), dot_at: sys::now() + DOT })
    }

    /// Not through the pipe: it may be full, and only this process empties it.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.title.push(bytes);
    }

    /// For a copy of the process: its memory is another's.
    pub(super) fn reopen(&mut self) {
        // Without it the log stays as it is.
        if let Ok(memory) = open_memory() {
            self.title.memory = memory;
        }
    }

    /// Once a turn: who floods it does not keep runsvdir from its work.
    pub(super) fn drain(&mut self) {
        let mut buffer = [0; 512];
        if let Ok(n) = self.pipe.read(&mut buffer) {
            self.title.push(buffer.get(..n).unwrap_or_default());
        }
    }

    /// When [`Log::tick`] is due, CLOCK_BOOTTIME.
    pub(super) fn deadline(&self) -> Duration {
        self.dot_at
    }

    pub(super) fn tick(&mut self, now: Duration) {
        if now >= self.dot_at {
            self.title.push(b".");
            self.dot_at = now + DOT;
        }
    }
}

impl AsFd for Log {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

struct Proctitle {
    memory: File,
    /// Where the rotating part begins.
    address: u64,
    text: Vec<u8>,
}

impl Proctitle {
    fn open(argument: &OsStr) -> io::Result<Proctitle> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let end = arg_end(&stat).ok_or_else(|| io::Error::other("no arg_end in /proc/self/stat"))?;
        let length = argument.len() as u64 + 1;
        let start = end.checked_sub(length).ok_or_else(|| io::Error::other("arguments have moved"))?;
        let memory = open_memory()?;
        let mut there = vec![0; argument.len()];
        memory.read_exact_at(&mut there, start)?;
        if there != argument.as_bytes() {
            return Err(io::Error::other("arguments have moved"));
        }
        let text = there.split_off(HEAD.min(there.len()));
        Ok(Proctitle { memory, address: start + HEAD as u64, text })
    }

    /// Moves the text to the left by what comes in.
    fn push(&mut self, bytes: &[u8]) {
        rotate(&mut self.text, bytes);
        let _ = self.memory.write_all_at(&self.text, self.address);
    }
}

fn open_memory() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/proc/self/mem")
}

fn rotate(text: &mut Vec<u8>, bytes: &[u8]) {
    let length = text.len();
    // A NUL would end what ps shows.
    text.extend(bytes.iter().filter(|b| **b != 0));
    text.drain(..text.len() - length);
}

/// proc(5): field 49 of /proc/PID/stat.
fn arg_end(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(49 - 3)?.parse().ok().filter(|end| *end != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_in_from_the_right() {
        let mut text = b"......".to_vec();
        rotate(&mut text, b"ab\0c");
        assert_eq!(text, b"...abc");
        rotate(&mut text, b"0123456789");
        assert_eq!(text, b"456789");
        rotate(&mut text, b"");
        assert_eq!(text, b"456789");
    }

    #[test]
    fn the_end_of_the_arguments_is_behind_the_last_one() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let memory = File::open("/proc/self/mem").unwrap();
        let last = std::env::args_os().next_back().unwrap();
        let mut there = vec![0; last.len()];
        memory.read_exact_at(&mut there, arg_end(&stat).unwrap() - last.len() as u64 - 1).unwrap();
        assert_eq!(there, last.as_bytes());
    }
}

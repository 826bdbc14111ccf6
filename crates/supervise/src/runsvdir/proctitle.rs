//! The log that ps(1) shows: the last argument of our own command line, written over with what comes in on stderr.
//!
//! What it is: the daemontools' readproctitle, within runsvdir. Called by runsvdir.rs. The memory is found through
//! proc(5) and written through /proc/self/mem, so no pointer is needed.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// runsvdir(8): the log must be at least this long.
pub(super) const LEAST: usize = 7;
/// runsvdir(8): a dot every 15 minutes, so that old messages expire.
pub(super) const DOT: Duration = Duration::from_secs(15 * 60);
/// The first characters stay as they are, as in `log: ....`.
const HEAD: usize = 5;

pub(super) struct Proctitle {
    memory: File,
    /// Where the rotating part begins.
    address: u64,
    text: Vec<u8>,
}

impl Proctitle {
    /// `argument` must be the last of the command line.
    pub(super) fn open(argument: &OsStr) -> io::Result<Proctitle> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let end = arg_end(&stat).ok_or_else(|| io::Error::other("no arg_end in /proc/self/stat"))?;
        let length = argument.len() as u64 + 1;
        let start = end.checked_sub(length).ok_or_else(|| io::Error::other("arguments have moved"))?;
        let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem")?;
        let mut there = vec![0; argument.len()];
        memory.read_exact_at(&mut there, start)?;
        if there != argument.as_bytes() {
            return Err(io::Error::other("arguments have moved"));
        }
        let text = there.split_off(HEAD.min(there.len()));
        Ok(Proctitle { memory, address: start + HEAD as u64, text })
    }

    /// Moves the text to the left by what comes in.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        rotate(&mut self.text, bytes);
        let _ = self.memory.write_all_at(&self.text, self.address);
    }
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

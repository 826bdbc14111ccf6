//! The last lines that a service has logged, for `sv -v status`.
//!
//! Where svlogd writes is found in its own command line (/proc/PID/cmdline, relative to its working
//! directory): what log/run makes of variables and conditions is known there. While no svlogd runs,
//! the usual places are looked at. What it is not: a reader of other loggers. Called by sv.rs.
//!
//! A log/run seldom runs as root, and sv does. So its command line and its files are foreign: no
//! special file is opened, no link is followed, little is read, and nothing of it commands the
//! terminal.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};

use super::text::printable;
use crate::svlogd;
use applet::control::error_text;
use applet::getopt::Getopt;

/// So much of the end of a file is looked at.
const TAIL: u64 = 64 * 1024;
/// So much of a command line.
const WORDS: u64 = 16 * 1024;
/// So many children of log/run.
const CHILDREN: usize = 16;

/// The last `count` lines, fit for a terminal. `logger`: the process of log/run.
pub(super) fn last_lines(service: &Path, logger: Option<u32>, count: usize) -> Vec<String> {
    let log = service.join("log");
    let told = logger.into_iter().flat_map(directories);
    let mut usual = vec![log.join("main"), log.clone()];
    usual.extend(fs::read_dir(&log).into_iter().flatten().flatten().map(|entry| entry.path()));
    // One that may not be read is named; others have no `current`.
    let found = told.chain(usual).find(|dir| !matches!(fs::metadata(dir.join("current")), Err(e) if is_absent(&e)));
    let Some(dir) = found else { return Vec::new() };
    match tail(&dir, count) {
        Ok(lines) => lines.iter().map(|line| printable(line)).collect(),
        Err(e) => {
            let file = printable(&dir.join("current").to_string_lossy());
            vec![format!("unable to read {file}: {}", error_text(&e))]
        }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The directories that the svlogd writes which is process `pid`, or a child of it.
fn directories(pid: u32) -> Vec<PathBuf> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).take(CHILDREN);
    std::iter::once(pid).chain(children).map(directories_of).find(|dirs| !dirs.is_empty()).unwrap_or_default()
}

fn directories_of(pid: u32) -> Vec<PathBuf> {
    let Ok(cwd) = fs::read_link(format!("/proc/{pid}/cwd")) else { return Vec::new() };
    let mut cmdline = Vec::new();
    // What has not been read has no words.
    let _ = File::open(format!("/proc/{pid}/cmdline")).and_then(|file| file.take(WORDS).read_to_end(&mut cmdline));
    operands(&cmdline).into_iter().map(|dir| cwd.join(dir)).collect()
}

/// The operands of svlogd in a command line whose words end in NUL; none if that is another
/// program's.
fn operands(cmdline: &[u8]) -> Vec<OsString> {
    let words = cmdline.strip_suffix(b"\0").unwrap_or(cmdline).split(|byte| *byte == 0);
    let mut words = words.map(|word| OsString::from_vec(word.to_vec()));
    // By its own name, or as the first word of a program that is many.
    let is_svlogd = |word: &OsString| Path::new(word).file_name().is_some_and(|name| name == "svlogd");
    if !words.by_ref().take(2).any(|word| is_svlogd(&word)) {
        return Vec::new();
    }
    let mut getopt = Getopt::new(svlogd::OPTIONS, words);
    getopt.by_ref().for_each(drop);
    getopt.operands()
}

/// The end of `current`, and if that is short of the file before it.
fn tail(dir: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut lines = end(&dir.join("current"), count)?;
    if lines.len() < count {
        // Their names sort by time.
        let old = fs::read_dir(dir)?.flatten().map(|entry| entry.file_name());
        let newest = old.filter(|name| name.to_string_lossy().starts_with('@')).max();
        let mut before = newest.and_then(|name| end(&dir.join(name), count - lines.len()).ok()).unwrap_or_default();
        // A processor may have compressed it.
        if before.iter().any(|line| line.contains('\0')) {
            before.clear();
        }
        before.append(&mut lines);
        lines = before;
    }
    Ok(lines)
}

fn end(path: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut file = OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let from = found.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line may have begun before what was read.
    let lines: Vec<&str> = text.lines().skip(usize::from(from > 0)).collect();
    Ok(lines.iter().skip(lines.len().saturating_sub(count)).map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_are_the_operands_of_svlogd() {
        let of = |line: &str| operands(line.replace(' ', "\0").as_bytes());
        assert_eq!(of("svlogd -tt /var/log/a "), ["/var/log/a"]);
        assert_eq!(of("/usr/bin/svlogd -l 200 -r_ -ttt main ./b "), ["main", "./b"]);
        assert_eq!(of("netsv svlogd -b 2000 -- main "), ["main"]);
        for other in ["cat ", "sh ./run svlogd main ", "", "svlogd "] {
            assert_eq!(of(other), Vec::<OsString>::new(), "{other}");
        }
    }

    #[test]
    fn a_short_current_is_continued_by_the_newest_old_file() {
        let dir = std::env::temp_dir().join(format!("netsv-tail-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in [("@400.s", "1\n2\n"), ("@401.u", "3\n4\n"), ("current", "5\n6"), ("lock", "x\n")] {
            fs::write(dir.join(name), text).unwrap();
        }
        for (count, lines) in
            [(0, &[][..]), (1, &["6"]), (2, &["5", "6"]), (3, &["4", "5", "6"]), (9, &["3", "4", "5", "6"])]
        {
            assert_eq!(tail(&dir, count).unwrap(), lines);
        }
        fs::write(dir.join("@402.s"), "\x1f\u{8}\0\n\0\n").unwrap();
        assert_eq!(tail(&dir, 3).unwrap(), ["5", "6"], "compressed");
        fs::write(dir.join("current"), "x".repeat(usize::try_from(TAIL).unwrap()) + "\nlast\n").unwrap();
        assert_eq!(tail(&dir, 1).unwrap(), ["last"]);
        fs::remove_dir_all(dir).unwrap();
    }
    #[test]
    fn what_a_hostile_logger_leaves_is_named_and_not_obeyed() {
        let dir = std::env::temp_dir().join(format!("netsv-hostile-{}\x1b[2J", std::process::id()));
        let log = dir.join("log/main");
        fs::create_dir_all(&log).unwrap();
        let says = || {
            let said = last_lines(&dir, None, 2).concat();
            assert!(said.starts_with("unable to read /") && !said.contains('\x1b'), "{said}");
            said.rsplit_once(": ").unwrap().1.to_owned()
        };
        // A fifo would wait for a writer.
        nix::unistd::mkfifo(&log.join("current"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(says(), "not a file");
        fs::remove_file(log.join("current")).unwrap();
        fs::create_dir(log.join("current")).unwrap();
        assert_eq!(says(), "not a file");
        fs::remove_dir(log.join("current")).unwrap();
        fs::write(dir.join("secret"), "secret\n").unwrap();
        std::os::unix::fs::symlink(dir.join("secret"), log.join("current")).unwrap();
        assert!(!says().contains("secret"));
        fs::remove_dir_all(dir).unwrap();
    }
}

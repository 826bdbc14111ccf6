//! The protocol of supervision: letters in the fifo `supervise/control`, the liveness fifo
//! `supervise/ok`, and the 20 bytes of `supervise/status`.
//!
//! What it is: one table of letters, one codec for writer and readers, and finding a service by
//! name. What it is not: deciding anything (service.rs does) or waiting for a result (sv.rs does).
//! Called by runsv, sv, ifplugd, the clients' publishing and fw. Source of all layouts: runsv(8),
//! runit 2.1.2.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;

mod status;
pub use status::{RunState, STATUS_LEN, Status, Tai64n, Want};

/// Directory that service names are relative to when `SVDIR` is not set.
pub const DEFAULT_SVDIR: &str = "/var/service";

/// Below it runsv keeps the supervise directories of services on a read-only file system, when
/// [`RUN_VARIABLE`] is not set.
const DEFAULT_RUN: &str = "/run/runsv";
const RUN_VARIABLE: &str = "RUNSV_RUN";

/// The byte behind letters by which sv learns that they have been obeyed: no command, so every
/// runsv passes it over. runit's reads one byte a turn, and ours writes the status before it reads
/// the last.
const MARK: u8 = b'\n';

/// What one byte in `supervise/control` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `u`: want up; start if down.
    Up,
    /// `d`: want down; TERM and CONT if running.
    Down,
    /// `o`: start if down, do not restart. While running: want down, no signal.
    Once,
    /// `x`: as down, then runsv ends.
    Exit,
    /// `t`: TERM, want unchanged.
    Term,
    /// `k`: KILL.
    Kill,
    /// `p`: STOP.
    Pause,
    /// `c`: CONT.
    Continue,
    /// `h`: HUP.
    Hangup,
    /// `a`: ALRM.
    Alarm,
    /// `i`: INT.
    Interrupt,
    /// `q`: QUIT.
    Quit,
    /// `1`: USR1.
    Usr1,
    /// `2`: USR2.
    Usr2,
}

/// The one table of letters.
const LETTERS: [(u8, Command); 14] = [
    (b'u', Command::Up),
    (b'd', Command::Down),
    (b'o', Command::Once),
    (b'x', Command::Exit),
    (b't', Command::Term),
    (b'k', Command::Kill),
    (b'p', Command::Pause),
    (b'c', Command::Continue),
    (b'h', Command::Hangup),
    (b'a', Command::Alarm),
    (b'i', Command::Interrupt),
    (b'q', Command::Quit),
    (b'1', Command::Usr1),
    (b'2', Command::Usr2),
];

/// Asks a `runsvdir -1` that has been sent TERM, and keeps its services until they end, to let go
/// of this one: the runsv that starts next takes it over. runsv ignores the letter.
pub const RELEASE: u8 = b'G';

impl Command {
    /// The command for a control letter; `None` for a byte that runsv ignores.
    pub fn from_letter(letter: u8) -> Option<Command> {
        LETTERS.iter().find(|(l, _)| *l == letter).map(|(_, c)| *c)
    }

    /// The letter that is written to the fifo, and the name of its script below `control/`.
    pub fn letter(self) -> u8 {
        // Every variant is in the table: the test below walks both ways.
        LETTERS.iter().find(|(_, c)| *c == self).map_or(b'?', |(l, _)| *l)
    }
}

/// Why a service could not be reached.
#[derive(Debug)]
pub enum ControlError {
    /// There is no such directory.
    Missing(io::Error),
    /// `supervise/ok` has no reader: runsv does not run (ENXIO), or never did (ENOENT).
    NotRunning(io::Error),
    /// The fifo is full: runsv has not read 64 KiB of letters.
    Full,
    /// Anything else, with the file below the service directory that it happened on.
    Io(&'static str, io::Error),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::Missing(e) => write!(f, "unable to change to service directory: {}", error_text(e)),
            ControlError::NotRunning(e) if e.raw_os_error() == Some(Errno::ENXIO as i32) => {
                f.write_str("runsv not running")
            }
            ControlError::NotRunning(e) => write!(f, "unable to open supervise/ok: {}", error_text(e)),
            ControlError::Full => f.write_str("unable to write to supervise/control: temporary failure"),
            ControlError::Io(file, e) if e.raw_os_error().is_none() => write!(f, "unable to read {file}: {e}"),
            ControlError::Io(file, e) => write!(f, "unable to open {file}: {}", error_text(e)),
        }
    }
}

impl std::error::Error for ControlError {}

/// An error in runit's words where it has its own, else the system's.
pub fn error_text(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => "file does not exist".into(),
        Some(Errno::EACCES) => "access denied".into(),
        Some(Errno::EAGAIN) => "temporary failure".into(),
        Some(Errno::ENOTDIR) => "not a directory".into(),
        Some(Errno::EISDIR) => "is a directory".into(),
        Some(Errno::EEXIST) => "file already exists".into(),
        Some(Errno::EPERM) => "permission denied".into(),
        Some(Errno::ENOSPC) => "out of disk space".into(),
        Some(Errno::ENOMEM) => "out of memory".into(),
        Some(Errno::ENOEXEC) => "exec format error".into(),
        Some(Errno::ENXIO) => "device not configured".into(),
        Some(Errno::EROFS) => "read-only file system".into(),
        Some(errno) => errno.desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// A service directory, found by name as sv(8) finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceDir {
    path: PathBuf,
    supervise: OnceCell<PathBuf>,
}

impl ServiceDir {
    /// `name` as it is when it starts with `/` or `.` or ends with `/`; otherwise below `$SVDIR`
    /// (default [`DEFAULT_SVDIR`]).
    pub fn resolve(name: &OsStr) -> ServiceDir {
        ServiceDir::resolve_in(&services(), name)
    }

    /// The same for one of many, where `services` is looked up once for all.
    pub fn resolve_in(services: &Path, name: &OsStr) -> ServiceDir {
        ServiceDir::at(if is_path(name) { PathBuf::from(name) } else { services.join(name) })
    }

    /// The service directory at `path`, whatever `SVDIR` says.
    pub fn at(path: impl Into<PathBuf>) -> ServiceDir {
        ServiceDir { path: path.into(), supervise: OnceCell::new() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory is there at all (it may be without a runsv).
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Its supervise directory: `supervise`, or the one in its place while a runsv runs on that
    /// (see [`in_place_of`]).
    pub fn supervise(&self) -> &Path {
        self.supervise.get_or_init(|| self.find().0)
    }

    /// The directory, and whether a runsv runs on it.
    fn find(&self) -> (PathBuf, io::Result<()>) {
        let own = below(&self.path, "supervise");
        let running = open_fifo(&below(&own, "ok")).map(drop);
        let other = || in_place_of(&self.path).ok().filter(|dir| open_fifo(&dir.join("ok")).is_ok());
        match running {
            Ok(()) => (own, running),
            Err(_) => other().map_or((own, running), |dir| (dir, Ok(()))),
        }
    }

    /// Makes its supervise directory, as runsv does, where there is none: then [`Self::places`]
    /// need not be wider. Where that cannot be, runsv will say so.
    pub fn prepare(&self) {
        let _ = DirBuilder::new().mode(0o700).create(self.path.join("supervise"));
    }

    /// Where its fifos are, or may come to be: for a process that must name beforehand what it is
    /// going to open. While no runsv runs these are wider, because the supervise directory may not
    /// have been made yet.
    pub fn places(&self) -> Vec<PathBuf> {
        let (dir, running) = self.find();
        if running.is_ok() {
            return vec![dir];
        }
        let there = |dir: &Path, up: usize| dir.ancestors().take(up + 1).find(|d| d.is_dir()).map(Path::to_path_buf);
        let other = in_place_of(&self.path).ok().and_then(|dir| there(&dir, 1));
        there(&dir, 2).into_iter().chain(other).collect()
    }

    /// Ok while a runsv holds `supervise/ok` open.
    pub fn check_running(&self) -> Result<(), ControlError> {
        if self.supervise.get().is_some() {
            return self.open_fifo("supervise/ok").map(|_| ());
        }
        // The search has opened it: once is enough for `sv status` of many.
        let (dir, running) = self.find();
        let _ = self.supervise.set(dir);
        running.map_err(|e| self.explain("supervise/ok", e))
    }

    /// Writes the letters with one write(2): runsv reads them in this order, one by one.
    pub fn send(&self, commands: &[Command]) -> Result<(), ControlError> {
        self.check_running()?;
        self.send_unchecked(commands)
    }

    /// As [`Self::send`], after [`Self::check_running`] was asked.
    pub fn send_unchecked(&self, commands: &[Command]) -> Result<(), ControlError> {
        let letters: Vec<u8> = commands.iter().map(|c| c.letter()).collect();
        write_all(&self.open_control()?, &letters)
    }

    /// As [`Self::send_unchecked`], with a mark behind the letters; for [`Self::open_control`]. The
    /// status tells of the letters when the mark has been read, see [`Self::has_read`].
    pub fn send_marked(&self, control: &File, commands: &[Command]) -> Result<(), ControlError> {
        write_all(control, &commands.iter().map(|c| c.letter()).chain([MARK]).collect::<Vec<u8>>())
    }

    /// Whether runsv has read everything that was written, and obeyed all before the last byte.
    pub fn has_read(&self, control: &File) -> Result<bool, ControlError> {
        let unread = crate::sys::unread(control).map_err(|e| ControlError::Io("supervise/control", e))?;
        Ok(unread == 0)
    }

    /// Reads `supervise/status`. It may be left over from a runsv that has ended: see
    /// [`Self::check_running`].
    pub fn status(&self) -> Result<Status, ControlError> {
        let file = "supervise/status";
        // One more than it has, so that a longer one is seen; it is replaced whole, so that one
        // read gives all.
        let mut bytes = [0; STATUS_LEN + 1];
        let read = File::open(below(self.supervise(), "status")).and_then(|mut f| f.read(&mut bytes));
        let length = read.map_err(|e| ControlError::Io(file, e))?;
        let status = bytes.get(..length).and_then(Status::decode);
        status.ok_or_else(|| ControlError::Io(file, io::Error::other("bad format")))
    }

    /// The write end of `supervise/control`: poll(2) reports an error on it as soon as the runsv
    /// that reads it has ended.
    pub fn open_control(&self) -> Result<File, ControlError> {
        self.open_fifo("supervise/control")
    }

    /// `file`: as it is called in messages.
    fn open_fifo(&self, file: &'static str) -> Result<File, ControlError> {
        let name = file.strip_prefix("supervise/").unwrap_or(file);
        open_fifo(&below(self.supervise(), name)).map_err(|e| self.explain(file, e))
    }

    fn explain(&self, file: &'static str, e: io::Error) -> ControlError {
        // runit changes to the directory first: what is wrong with that goes before what is wrong
        // in it.
        let entered = || std::fs::metadata(self.path.join("."));
        match e.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENOTDIR) if !self.exists() => ControlError::Missing(e),
            Some(Errno::ENXIO | Errno::ENOENT) => ControlError::NotRunning(e),
            Some(Errno::EACCES) if entered().is_err() => ControlError::Missing(e),
            _ => ControlError::Io(file, e),
        }
    }
}

/// Whether the name of a service is taken as it is; else it is relative to [`services`].
pub fn is_path(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    matches!(bytes.first(), Some(b'/' | b'.')) || bytes.last() == Some(&b'/')
}

/// The directory that service names are relative to.
pub fn services() -> PathBuf {
    let base = std::env::var_os("SVDIR").filter(|v| !v.is_empty());
    PathBuf::from(base.as_deref().unwrap_or(OsStr::new(DEFAULT_SVDIR)))
}

/// Where runsv keeps the supervise directory of the service directory `dir` when that is on a
/// read-only file system: named by device and inode, so that every name of the directory leads
/// there.
pub fn in_place_of(dir: &Path) -> io::Result<PathBuf> {
    let base = std::env::var_os(RUN_VARIABLE).filter(|v| !v.is_empty());
    let stat = std::fs::metadata(dir)?;
    let name = format!("{:x}-{:x}", stat.dev(), stat.ino());
    Ok(Path::new(base.as_deref().unwrap_or(OsStr::new(DEFAULT_RUN))).join(name))
}

/// Whether a directory in place of the default was named, by the environment.
pub fn run_is_given() -> bool {
    std::env::var_os(RUN_VARIABLE).is_some_and(|value| !value.is_empty())
}

/// `dir`/`name` to be opened, in one allocation: `sv status` makes a thousand. Where it is shown,
/// [`Path::join`] minds a `/` at the end of `dir`.
pub fn below(dir: &Path, name: &str) -> PathBuf {
    let mut path = OsString::with_capacity(dir.as_os_str().len() + 1 + name.len());
    path.push(dir);
    path.push("/");
    path.push(name);
    PathBuf::from(path)
}

/// With one write(2): what is shorter than PIPE_BUF is not mixed with the letters of others.
fn write_all(mut control: &File, letters: &[u8]) -> Result<(), ControlError> {
    match control.write(letters) {
        Ok(n) if n == letters.len() => Ok(()),
        Ok(_) => Err(ControlError::Full),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(ControlError::Full),
        Err(e) => Err(ControlError::Io("supervise/control", e)),
    }
}

fn open_fifo(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_letter_names_one_command_and_back() {
        for (letter, command) in LETTERS {
            assert_eq!(Command::from_letter(letter), Some(command));
            assert_eq!(command.letter(), letter);
        }
        assert_eq!(Command::from_letter(b'z'), None);
    }

    #[test]
    fn the_manual_page_names_every_letter() {
        let page = include_str!("../../../man/runsv.8");
        let section = page.split_once(".Sh CONTROL").unwrap().1.split_once(".Ss Control scripts").unwrap().0;
        let mut named: Vec<u8> = section
            .lines()
            .filter_map(|line| line.strip_prefix(".It Ic "))
            .flat_map(|line| line.bytes().filter(|b| *b != b' '))
            .collect();
        let mut known: Vec<u8> = LETTERS.iter().map(|(letter, _)| *letter).collect();
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
    }
}

//! The supervise/ directory of one process: lock, fifos, and the files that say how it is.
//!
//! What it is: making it, on a read-only file system somewhere else, and writing each file so that
//! a reader sees all of the old or all of the new. What it is not: what is written (unit.rs, which
//! calls this) or read (control.rs).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::sys::stat::{Mode, fstat, stat};
use nix::unistd::mkfifo;

use crate::service::Role;
use applet::control::{Status, error_text, in_place_of, run_is_given};

/// A fatal error with its text, worded as runit words it.
pub(crate) struct Fatal(pub(crate) String);

/// Adds what was tried to an error.
pub(crate) fn unable<T>(what: impl std::fmt::Display, result: io::Result<T>) -> Result<T, Fatal> {
    result.map_err(|e| Fatal(format!("unable to {what}: {}", error_text(&e))))
}

/// An open supervise/ directory.
pub(crate) struct Files {
    /// First of all, so that it is closed first: who hears that the fifo has no reader any more
    /// finds the lock free. Closing is all that frees it. An explicit unlock would free that of a
    /// copy of this process, too.
    lock: File,
    path: PathBuf,
    control: File,
    _ok: File,
    /// What supervise/pid says, if we wrote it.
    pid: Option<Option<u32>>,
    /// What supervise/instance says, if we wrote it.
    instance: Option<String>,
}

impl Files {
    /// Makes or takes over supervise/ below `dir`. With `wait` a lock that is held is waited for.
    pub(crate) fn open(dir: &Path, role: Role, wait: bool) -> Result<Files, Fatal> {
        match Files::open_at(dir.join("supervise"), dir, role, wait) {
            // Without a file system to write on, and without the administrator's own link: the
            // runtime directory. And where the directory is another's, if we were told of a runtime
            // directory.
            Err((Some(errno), _)) if errno == Errno::EROFS || errno == Errno::EACCES && run_is_given() => {
                let other = unable("find supervise", in_place_of(dir))?;
                let made = other.parent().map_or(Ok(()), fs::create_dir_all);
                unable(format!("create {}", other.parent().unwrap_or(&other).display()), made)?;
                Files::open_at(other, dir, role, wait).map_err(|(_, fatal)| fatal)
            }
            other => other.map_err(|(_, fatal)| fatal),
        }
    }

    fn open_at(path: PathBuf, dir: &Path, role: Role, wait: bool) -> Result<Files, (Option<Errno>, Fatal)> {
        let shown = |file: &str| match role {
            Role::Main => format!("supervise{file}"),
            Role::Log => format!("log/supervise{file}"),
        };
        noting(format!("create {}", shown("")), make(&path, dir))?;
        let mut create = OpenOptions::new();
        create.append(true).create(true).mode(0o600).custom_flags(O_NONBLOCK);
        let lock = noting(format!("open {}", shown("/lock")), create.open(path.join("lock")))?;
        let locked = if wait { lock.lock() } else { lock.try_lock().map_err(lock_error) };
        noting(format!("lock {}", shown("/lock")), locked)?;
        let control = open_fifo(&path.join("control"), &shown("/control"))?;
        let ok = open_fifo(&path.join("ok"), &shown("/ok"))?;
        Ok(Files { lock, path, control, _ok: ok, pid: None, instance: None })
    }

    /// Whether this is still what is found there, and has not been removed or replaced.
    pub(crate) fn in_place(&self) -> bool {
        let ours = fstat(&self.lock).map(|found| (found.st_dev, found.st_ino));
        let there = stat(&self.path.join("lock")).map(|found| (found.st_dev, found.st_ino));
        ours == there
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The control fifo: readable when there are letters.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Some of the letters that wait.
    pub(crate) fn read_control(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.control.read(buffer)
    }

    /// Writes pid, stat and status, in runit's order.
    pub(crate) fn save(&mut self, status: &Status, stat: &str) -> io::Result<()> {
        if self.pid != Some(status.pid) {
            let text = status.pid.map(|pid| format!("{pid}\n")).unwrap_or_default();
            self.replace("pid", |new| fs::write(new, text))?;
            self.pid = Some(status.pid);
        }
        self.replace("stat", |new| fs::write(new, stat))?;
        self.save_status(status)
    }

    /// The last of them alone.
    pub(crate) fn save_status(&self, status: &Status) -> io::Result<()> {
        self.replace("status", |new| fs::write(new, status.encode()))
    }

    /// Writes the instance record, if it says something new: as the text of a symbolic link, see
    /// instance.rs.
    pub(crate) fn save_instance(&mut self, text: String) -> io::Result<()> {
        if self.instance.as_ref() != Some(&text) {
            self.replace("instance", |new| symlink(&text, new))?;
            self.instance = Some(text);
        }
        Ok(())
    }

    /// Where the instance record is.
    pub(crate) fn instance(&self) -> PathBuf {
        self.path.join("instance")
    }

    /// A child has written the record; `None`: it may have, and it is not known what.
    pub(crate) fn instance_is(&mut self, text: Option<String>) {
        self.instance = text;
    }

    /// Nothing is left to be taken over.
    pub(crate) fn remove_instance(&self) {
        let _ = fs::remove_file(self.instance());
    }

    /// All of the new or all of the old: `FILE.new`, then rename.
    fn replace(&self, file: &str, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let new = self.path.join(format!("{file}.new"));
        let result = write(&new).and_then(|()| fs::rename(&new, self.path.join(file)));
        if result.is_err() {
            let _ = fs::remove_file(&new);
        }
        result.map_err(|e| {
            let text = format!("unable to write supervise/{file}: {}", error_text(&e));
            io::Error::new(e.kind(), text)
        })
    }
}

fn noting<T>(what: String, result: io::Result<T>) -> Result<T, (Option<Errno>, Fatal)> {
    result.map_err(|e| (e.raw_os_error().map(Errno::from_raw), Fatal(format!("unable to {what}: {}", error_text(&e)))))
}

/// With the system's number, which [`error_text`] has words for.
fn lock_error(error: TryLockError) -> io::Error {
    match error {
        TryLockError::WouldBlock => Errno::EWOULDBLOCK.into(),
        TryLockError::Error(e) => e,
    }
}

/// supervise/ may be a symbolic link to a directory that is not there yet, on a tmpfs: runit's way
/// to keep a read-only root. Its parent must be there.
fn make(path: &Path, dir: &Path) -> io::Result<()> {
    let target = match fs::read_link(path) {
        Ok(text) => dir.join(text),
        Err(_) => path.to_path_buf(),
    };
    match fs::DirBuilder::new().mode(0o700).create(target) {
        // What is wrong with it, if anything, shows when the lock is opened: as runit says it.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists || e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the fifo if needed. Open for reading and writing (fifo(7)), so that it never reaches its
/// end.
fn open_fifo(path: &Path, shown: &str) -> Result<File, (Option<Errno>, Fatal)> {
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            let found = noting(format!("stat {shown}"), fs::metadata(path))?;
            if !found.file_type().is_fifo() {
                return Err((None, Fatal(format!("{shown} exists but is not a fifo"))));
            }
        }
        Err(e) => return noting(format!("create {shown}"), Err(e.into())),
    }
    let opened = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(path);
    noting(format!("open {shown}"), opened)
}

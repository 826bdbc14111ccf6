//! The pidfile of ifplugd: who watches this interface, and telling it to stop.
//!
//! The running daemon holds a lock on the file, so a pid that was left behind (a crash, a power
//! cut, a /var/run that survives) is known to be stale even if another process has the number now:
//! no daemon refuses to start for it, and no other process is killed. Called by `lib`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use netd::disk;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Opening a file that its owner removes at the same time is tried again; more often than this is
/// no accident.
const TRIES: usize = 16;

/// A pidfile that is ours.
#[derive(Debug)]
pub(crate) struct Pidfile {
    path: PathBuf,
    lock: File,
}

/// Who has the pidfile.
enum Owner {
    /// No process: the lock is now ours.
    Nobody(File),
    /// A running daemon.
    Running(File),
}

impl Pidfile {
    /// Takes the file and writes our pid; an error of kind `AlreadyExists` when a daemon runs.
    pub(crate) fn take(path: &Path) -> io::Result<Pidfile> {
        disk::spare_device(path)?;
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            // What lies in the way is replaced and not written into: a link, by whatever name, may
            // lead to another file.
            let file = match options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(path) {
                Ok(file) if is_plain(&file)? => file,
                Err(e) if e.raw_os_error() != Some(Errno::ELOOP as i32) => return Err(e),
                Ok(_) | Err(_) => {
                    std::fs::remove_file(path)?;
                    continue;
                }
            };
            let mut file = match owner(file)? {
                Owner::Nobody(file) => file,
                Owner::Running(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            };
            if !is_still(&file, path) {
                continue;
            }
            file.set_len(0)?;
            file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
            return Ok(Pidfile { path: path.to_path_buf(), lock: file });
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Removes the file. What is returned is the lock: -W waits for its end.
    pub(crate) fn remove(self) -> File {
        let _ = std::fs::remove_file(&self.path);
        self.lock
    }
}

fn owner(file: File) -> io::Result<Owner> {
    match file.try_lock() {
        Ok(()) => Ok(Owner::Nobody(file)),
        Err(TryLockError::WouldBlock) => Ok(Owner::Running(file)),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Whether it is a file that has one name, or none any more.
fn is_plain(file: &File) -> io::Result<bool> {
    file.metadata().map(|found| found.is_file() && found.nlink() < 2)
}

/// Whether the path still leads to the file that was opened.
fn is_still(file: &File, path: &Path) -> bool {
    let inode = |m: std::fs::Metadata| (m.dev(), m.ino());
    matches!((file.metadata().map(inode), path.symlink_metadata().map(inode)), (Ok(a), Ok(b)) if a == b)
}

/// The pid and the locked file of a running daemon; `None` when none runs.
fn running(path: &Path) -> io::Result<Option<(Pid, File)>> {
    // A fifo of that name would keep us for ever.
    let file = match OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let Owner::Running(mut file) = owner(file)? else { return Ok(None) };
    let mut text = String::new();
    file.rewind()?;
    Read::by_ref(&mut file).take(32).read_to_string(&mut text)?;
    // Its owner has locked it and not yet written.
    let pid = text.trim().parse().ok().filter(|pid| *pid > 1);
    Ok(pid.map(|pid| (Pid::from_raw(pid), file)))
}

/// The pid of a running daemon.
pub(crate) fn holder(path: &Path) -> io::Result<Option<Pid>> {
    Ok(running(path)?.map(|(pid, _)| pid))
}

/// A signal to the running daemon; false when none runs.
pub(crate) fn tell(path: &Path, signal: Signal) -> io::Result<bool> {
    let Some((pid, _)) = running(path)? else { return Ok(false) };
    kill(pid, signal)?;
    Ok(true)
}

/// SIGINT to the running daemon, and with `wait` until it has ended. Nothing happens when none
/// runs.
pub(crate) fn stop(path: &Path, wait: bool) -> io::Result<()> {
    let Some((pid, file)) = running(path)? else { return Ok(()) };
    kill(pid, Signal::SIGINT)?;
    // Its lock goes with it.
    if wait { file.lock() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ifplugd-test-{}-{name}.pid", std::process::id()))
    }

    #[test]
    fn one_owner_at_a_time_and_the_file_goes_with_it() {
        let path = path("one");
        let first = Pidfile::take(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(holder(&path).unwrap(), Some(Pid::this()));
        assert_eq!(Pidfile::take(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        drop(first.remove());
        assert!(!path.exists());
        assert_eq!(holder(&path).unwrap(), None);
    }

    #[test]
    fn a_stale_pid_stops_nobody_and_kills_nobody() {
        let path = path("stale");
        // Ours: alive, but not the owner of this file.
        std::fs::write(&path, format!("{}\n123456789 left over\n", std::process::id())).unwrap();
        assert_eq!(holder(&path).unwrap(), None);
        stop(&path, true).unwrap();
        let taken = Pidfile::take(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(taken.remove());
        stop(&path, false).unwrap();
    }

    #[test]
    fn what_lies_in_the_way_is_replaced_and_not_written_into() {
        let (path, other) = (path("way"), path("other"));
        let lay: [fn(&Path, &Path) -> io::Result<()>; 3] = [
            |other, path| std::os::unix::fs::symlink(other, path),
            |other, path| std::fs::hard_link(other, path),
            |_, path| Ok(nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU)?),
        ];
        for lay in lay {
            std::fs::write(&other, "root").unwrap();
            lay(&other, &path).unwrap();
            let taken = Pidfile::take(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&other).unwrap(), "root");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
            drop(taken.remove());
            std::fs::remove_file(&other).unwrap();
        }
    }

    #[test]
    fn what_is_no_file_does_not_keep_us() {
        let path = path("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(holder(&path).unwrap(), None);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        assert!(Pidfile::take(Path::new("/nonexistent/ifplugd.pid")).is_err());
    }
}

//! The processor of rotated files: its start, and its files afterwards. All are in the working
//! directory.
//!
//! It is not: when it runs and what follows from its end (rotate.rs). Called by dir.rs.

use std::ffi::{CString, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::dir::warn_error;

/// The output of the processor is complete: it is on disk, and then it gets its name.
pub(super) fn keep_output(stamp: &str, mode: u32) -> io::Result<()> {
    let output = format!("{stamp}.t");
    let file = File::open(&output)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&output, format!("{stamp}.s"))
}

/// The steps after `STAMP.s` is there. The input is removed last: while it is there, they were not
/// done to the end.
pub(super) fn forget_input(stamp: &str, dir: &str) {
    if let Err(e) = fs::rename("newstate", "state")
        && e.kind() != io::ErrorKind::NotFound
    {
        warn_error("unable to rename state", dir, &e);
    }
    if let Err(e) = fs::remove_file(format!("{stamp}.u")) {
        warn_error("unable to unlink", dir, &e);
    }
}

/// Descriptors of the processor: 0 the log, 1 its output, 4 the state it left last time, 5 its new
/// state. They are opened in the child, straight to their numbers; everything else of ours is
/// close-on-exec.
pub(super) fn spawn(command: &[u8], stamp: &str, mode: u32, mask: &SigSet) -> nix::Result<Pid> {
    let text = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| Errno::EINVAL);
    let mode = Mode::from_bits_truncate(mode);
    let write = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
    let mut files = PosixSpawnFileActions::init()?;
    files.add_open(0, format!("{stamp}.u").as_str(), OFlag::O_RDONLY, Mode::empty())?;
    files.add_open(1, format!("{stamp}.t").as_str(), write, mode)?;
    files.add_open(4, "state", OFlag::O_RDONLY | OFlag::O_CREAT, mode)?;
    files.add_open(5, "newstate", write, mode)?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF)?;
    attributes.set_sigmask(mask)?;
    // We ignore SIGPIPE, and what is ignored stays so across exec.
    let pipe = if applet::sys::pipe_ignored() { SigSet::empty() } else { SigSet::from(Signal::SIGPIPE) };
    attributes.set_sigdefault(&pipe)?;
    let argv = [text(b"sh".to_vec())?, text(b"-c".to_vec())?, text(command.to_vec())?];
    let variable = |(name, value): (OsString, OsString)| {
        let bytes = [name.into_vec(), vec![b'='], value.into_vec()].concat();
        CString::new(bytes).ok()
    };
    let environment: Vec<CString> = std::env::vars_os().filter_map(variable).collect();
    posix_spawn("/bin/sh", &files, &attributes, &argv, &environment)
}

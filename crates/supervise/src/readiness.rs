//! Readiness: the pipe on which a ./run says, by a line feed, that it is ready (`notification-fd`,
//! s6's protocol).
//!
//! What it is not: what follows from it (service.rs) or listening (unit.rs, which calls this).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::O_NONBLOCK;
use nix::unistd::pipe2;

/// A pipe: the read end, which never blocks, and what the child gets.
pub(crate) fn pipe() -> io::Result<(File, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((File::from(read), write))
}

/// The read end of that pipe, again, while process `pid` still has the other.
pub(crate) fn reopen(pid: u32, number: i32) -> io::Result<File> {
    let path = format!("/proc/{pid}/fd/{number}");
    if !std::fs::metadata(&path)?.file_type().is_fifo() {
        return Err(io::ErrorKind::NotFound.into());
    }
    OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)
}

//! Descriptors that the runtime watches.
//!
//! The one place where a descriptor is registered with tokio: packet sockets, the timer, inotify,
//! the signal pipe and the runner's socket all pass here.
#![expect(unsafe_code, reason = "tokio's registration of a descriptor is unsafe")]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime tell when a descriptor can be read. For an `OwnedFd`, which cannot be swapped
/// or closed inside.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd owns its descriptor, and no code replaces it while the AsyncFd holds it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE | Interest::ERROR) }.map_err(io::Error::from)
}

//! The start of a process and its signals: what nix and std have no safe form of.
//!
//! What it is not: logic. Called by `src/main.rs`, runsv, runsvdir and the daemons.
#![expect(unsafe_code, reason = "signal handlers, mallopt and poll on numbers have no safe wrapper")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

/// What a program of ours needs before its first line, as std's own start gives it: 0, 1 and 2 are
/// open, so that no file is taken for one of them, and a write to a closed pipe is an error and no
/// signal.
pub fn start() {
    let mut set = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: poll(2) writes to `set`, of the length given, which lives through the call.
    unsafe { libc::poll(set.as_mut_ptr(), 3, 0) };
    for _ in set.iter().filter(|fd| fd.revents & libc::POLLNVAL != 0) {
        // SAFETY: open(2) reads the constant path; it gives the lowest number that is free, which
        // is to stay open for good.
        unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    }
    // SAFETY: installs no handler of ours.
    let before = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    PIPE_IGNORED.store(cfg!(target_env = "gnu") && matches!(before, Ok(SigHandler::SigIgn)), Ordering::Relaxed);
    #[cfg(target_env = "gnu")]
    keep_little_memory();
}

/// Whether SIGPIPE was ignored when we were started, as systemd has it for what it starts. With
/// another C library it was std's own start that did it, and it is not known what was before.
static PIPE_IGNORED: AtomicBool = AtomicBool::new(false);

/// mallopt(3): an allocation of this size is a mapping of its own, whose pages are there when they
/// are touched and gone when it is given back. glibc's own measures, a heap of 128 KiB from which
/// that is taken first, are for larger machines.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 16 * 1024;

#[cfg(target_env = "gnu")]
fn keep_little_memory() {
    for (which, bytes) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TOP_PAD, LARGE / 4)] {
        // SAFETY: mallopt(3) takes two integers; no other thread allocates meanwhile, as there is
        // none yet.
        unsafe { libc::mallopt(which, bytes) };
    }
    // SAFETY: malloc_trim(3) gives back only what is not owned.
    unsafe { libc::malloc_trim(0) };
}

/// The write end of the signal pipe; -1 before there is one. It stays open for the life of the
/// process.
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(signal: libc::c_int) {
    let errno = Errno::last_raw();
    let byte = u8::try_from(signal).unwrap_or(0);
    // SAFETY: write(2) is async-signal-safe (signal-safety(7)); `byte` is live for the call. A full
    // pipe (EAGAIN) already says what this byte would say.
    unsafe { libc::write(SIGNAL_PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
    Errno::set_raw(errno);
}

/// Catches these signals: each writes its number into the pipe whose read end is returned. They are
/// unblocked, as a careless parent may have left them blocked; nothing is ever blocked here, since
/// children inherit the mask.
pub fn signal_pipe(signals: &[Signal]) -> io::Result<OwnedFd> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    SIGNAL_PIPE.store(write.into_raw_fd(), Ordering::Relaxed);
    let flags = SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP;
    let action = SigAction::new(SigHandler::Handler(on_signal), flags, SigSet::empty());
    let mut set = SigSet::empty();
    for signal in signals {
        // SAFETY: the handler only calls write(2), keeps errno, and touches no other state than an
        // atomic.
        unsafe { sigaction(*signal, &action) }?;
        set.add(*signal);
    }
    sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&set), None)?;
    Ok(read)
}

/// The bytes in a pipe or fifo that wait to be read (FIONREAD, ioctl_tty(2)), by either of its
/// ends.
pub fn unread(pipe: &impl AsFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which lives through the call.
    let result = unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    Errno::result(result)?;
    usize::try_from(bytes).map_err(io::Error::other)
}

/// Gives SIGPIPE the action back before an exec that it had when we were started: an ignored signal
/// stays ignored in the program that follows.
pub fn restore_sigpipe() {
    if !pipe_ignored() {
        // SAFETY: installs no handler of ours, only the default action.
        let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    }
}

/// Whether SIGPIPE was ignored when this process was started.
pub fn pipe_ignored() -> bool {
    PIPE_IGNORED.load(Ordering::Relaxed)
}

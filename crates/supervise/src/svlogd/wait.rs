//! The one place where svlogd waits: for input, for a signal, or for a deadline.
//!
//! It is not: acting on what came. TERM, HUP, ALRM and CHLD are blocked and read from a signalfd; what came stays
//! noted until the caller has dealt with it. Called by svlogd.rs, and by dir.rs where a log directory makes the
//! service wait (full disk, processor busy).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that came and were not dealt with yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) term: bool,
    pub(super) hup: bool,
    pub(super) alrm: bool,
    pub(super) chld: bool,
}

/// The signal descriptor.
pub(super) struct Signals {
    fd: SignalFd,
    /// The mask that svlogd was started with: its children get it back.
    pub(super) inherited: SigSet,
    pub(super) pending: Pending,
}

impl Signals {
    /// Blocks the four signals and opens the descriptor.
    pub(super) fn new() -> io::Result<Signals> {
        let ours: SigSet = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGALRM, Signal::SIGCHLD].into_iter().collect();
        let mut inherited = SigSet::thread_get_mask()?;
        for signal in &ours {
            // A signal that the parent left blocked would never reach the processor either.
            inherited.remove(signal);
        }
        ours.thread_block()?;
        let fd = SignalFd::with_flags(&ours, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Signals { fd, inherited, pending: Pending::default() })
    }

    /// Waits until `input` can be read (true), a signal came or `timeout` is over (false). `None` waits for ever.
    pub(super) fn wait(&mut self, input: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.map_or(PollTimeout::NONE, |t| {
            // Rounded up: a deadline is never met too early, which would be a busy loop.
            PollTimeout::try_from(t.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        let signals = PollFd::new(self.fd.as_fd(), PollFlags::POLLIN);
        let (signalled, readable) = match input {
            Some(input) => {
                let mut fds = [signals, PollFd::new(input, PollFlags::POLLIN)];
                ready(poll(&mut fds, timeout))?;
                let [signals, input] = fds;
                (signals.any(), input.any())
            }
            None => {
                let mut fds = [signals];
                ready(poll(&mut fds, timeout))?;
                let [signals] = fds;
                (signals.any(), None)
            }
        };
        if signalled == Some(true) {
            self.drain()?;
        }
        Ok(readable == Some(true))
    }

    fn drain(&mut self) -> io::Result<()> {
        while let Some(info) = self.fd.read_signal()? {
            match i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok()) {
                Some(Signal::SIGTERM) => self.pending.term = true,
                Some(Signal::SIGHUP) => self.pending.hup = true,
                Some(Signal::SIGALRM) => self.pending.alrm = true,
                Some(Signal::SIGCHLD) => self.pending.chld = true,
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

fn ready(polled: nix::Result<i32>) -> io::Result<()> {
    match polled {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

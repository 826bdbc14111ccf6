//! The one place where svlogd waits: for input, for a signal, or for a deadline.
//!
//! It is not: acting on what came. TERM, HUP, ALRM and CHLD are blocked and read from a signalfd;
//! what came stays noted until the caller has dealt with it. Called by svlogd.rs, and by dir.rs
//! where a log directory makes the service wait (full disk, processor busy).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;

/// The longest wait: `t` in a configuration may be any number, and ppoll(2) refuses one too large.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Signals that came and were not dealt with yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) term: bool,
    pub(super) hup: bool,
    pub(super) alrm: bool,
    pub(super) chld: bool,
}

impl Pending {
    pub(super) fn any(self) -> bool {
        self.term || self.hup || self.alrm || self.chld
    }
}

/// What to wait for besides signals and time.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    None,
    /// Bytes, or the end.
    Readable(BorrowedFd<'a>),
    /// The end of a pipe, when its last writer closes it.
    Ends(BorrowedFd<'a>),
}

/// What came of it.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    /// What was waited for.
    pub(super) any: bool,
    /// No process can write any more.
    pub(super) ended: bool,
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

    /// Waits for input, a signal, or the end of `timeout`, which may be never.
    pub(super) fn wait(&mut self, input: Input<'_>, timeout: Option<Duration>) -> io::Result<Ready> {
        let signals = PollFd::new(self.fd.as_fd(), PollFlags::POLLIN);
        let (fd, events) = match input {
            Input::None => (None, PollFlags::empty()),
            // The end of the input is told in any case, poll(2).
            Input::Ends(fd) => (Some(fd), PollFlags::empty()),
            Input::Readable(fd) => (Some(fd), PollFlags::POLLIN),
        };
        // ppoll(2), because milliseconds are too coarse for what collect.rs waits for.
        let timeout = timeout.map(|timeout| TimeSpec::from_duration(timeout.min(LONGEST)));
        let (signalled, came) = match fd {
            Some(fd) => {
                let mut fds = [signals, PollFd::new(fd, events)];
                ready(ppoll(&mut fds, timeout, None))?;
                let [signals, input] = fds;
                (signals.any(), input.revents().unwrap_or(PollFlags::empty()))
            }
            None => {
                let mut fds = [signals];
                ready(ppoll(&mut fds, timeout, None))?;
                let [signals] = fds;
                (signals.any(), PollFlags::empty())
            }
        };
        if signalled == Some(true) {
            self.drain()?;
        }
        Ok(Ready { any: !came.is_empty(), ended: came.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) })
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

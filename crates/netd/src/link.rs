//! The link watch: a stream of [`Transition`]s of one interface, from rtnetlink, and setting an
//! interface up.
//!
//! It subscribes first and asks afterwards, so nothing falls between. A message queue that
//! overflowed is answered by asking again: never a silent desync. Nothing is polled and no timer
//! runs while nothing happens; only after a change it looks again a few times, because the kernel's
//! linkwatch merges changes to about one message a second. Called by ifplugd, zcip and the DHCP
//! client. It decides nothing: debounce.rs of ifplugd does.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

pub use netd_core::link::tracker::{Seen, Tracker, Transition};
pub use netd_core::wire::link::Link;
use netd_core::wire::link::{self as wire, Message};

use crate::clock::{self, Timer};
use crate::netlink::{Heard, Netlink, ROUTE, Watch};

/// The first look after a change; each further one waits twice as long ...
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// ... up to this: together 1.27 s, more than the second that linkwatch may hold a change back.
const LAST_LOOK: Duration = Duration::from_millis(640);
/// After an overflow: let the burst pass before asking.
const OVERRUN_WAIT: Duration = Duration::from_millis(20);

/// When to ask again.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    /// Wait before the look after this one, unless this was the last.
    then: Option<Duration>,
}

impl Look {
    fn after(wait: Duration) -> Look {
        let twice = wait.saturating_mul(2);
        Look { at: clock::now() + wait, then: (twice <= LAST_LOOK).then_some(twice) }
    }
}

/// Watches one interface by name.
pub struct LinkWatch {
    netlink: Watch,
    tracker: Tracker,
    /// Sequence number of the last question.
    seq: u32,
    look: Option<Look>,
    timer: Timer,
    ready: VecDeque<Transition>,
}

impl LinkWatch {
    /// Subscribes and asks; the first [`LinkWatch::next`] gives [`Transition::Missing`] or
    /// [`Transition::Appeared`]. To be called inside a tokio runtime.
    pub fn open(name: &str) -> io::Result<LinkWatch> {
        let mut watch = LinkWatch {
            netlink: Watch::open(&[libc::RTNLGRP_LINK])?,
            tracker: Tracker::new(name),
            seq: 0,
            look: None,
            timer: Timer::new()?,
            ready: VecDeque::new(),
        };
        watch.ask()?;
        Ok(watch)
    }

    /// The interface as it was seen last; `None` while it is missing.
    pub fn link(&self) -> Option<&Link> {
        self.tracker.link()
    }

    /// The next transition. Dropping the future loses nothing.
    pub async fn next(&mut self) -> io::Result<Transition> {
        loop {
            if let Some(transition) = self.ready.pop_front() {
                return Ok(transition);
            }
            self.timer.set(self.look.map(|look| look.at))?;
            tokio::select! {
                heard = self.netlink.heard() => self.received(heard?)?,
                expired = self.timer.expired() => {
                    expired?;
                    self.look = self.look.and_then(|look| look.then).map(Look::after);
                    self.ask()?;
                }
            }
        }
    }

    fn received(&mut self, heard: Heard) -> io::Result<()> {
        match heard {
            Heard::Datagram => {}
            Heard::Overrun => {
                self.look = Some(Look::after(OVERRUN_WAIT));
                return Ok(());
            }
        }
        for message in wire::decode(self.netlink.datagram()) {
            let transitions = match message {
                Message::New(link) => {
                    // linkwatch is one for all links: after any change, one of ours may be held
                    // back for a second.
                    let other = self.tracker.link().is_some_and(|ours| ours.ifindex != link.ifindex);
                    self.look = self.look.or_else(|| other.then(|| Look::after(FIRST_LOOK)));
                    self.tracker.observe(Seen::Link(link))
                }
                Message::Deleted { ifindex } => self.tracker.observe(Seen::Deleted { ifindex }),
                Message::Outcome { seq, errno } if seq == self.seq => self.answered(errno)?,
                Message::Outcome { .. } => Vec::new(),
            };
            if !transitions.is_empty() {
                self.look = Some(Look::after(FIRST_LOOK));
            }
            self.ready.extend(transitions);
        }
        Ok(())
    }

    /// The end of an answer; what was found has come before it.
    fn answered(&mut self, errno: i32) -> io::Result<Vec<Transition>> {
        match errno {
            // The kernel also finds alternative names (IFLA_ALT_IFNAME). The tracker has not taken
            // such a link.
            0 if self.tracker.link().is_none() => Ok(self.tracker.observe(Seen::Absent)),
            0 => Ok(Vec::new()),
            errno if Errno::from_raw(errno) == Errno::ENODEV => Ok(self.tracker.observe(Seen::Absent)),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Asks for the interface by name.
    fn ask(&mut self) -> io::Result<()> {
        self.seq = self.netlink.ask(wire::get_by_name(self.tracker.name()))?;
        Ok(())
    }
}

/// What the watch would make of a datagram of the kernel; for the fuzzer.
#[cfg(feature = "sim")]
pub fn transitions(tracker: &mut Tracker, datagram: &[u8]) -> Vec<Transition> {
    let seen = wire::decode(datagram).into_iter().filter_map(|message| match message {
        Message::New(link) => Some(Seen::Link(link)),
        Message::Deleted { ifindex } => Some(Seen::Deleted { ifindex }),
        Message::Outcome { errno, .. } if Errno::from_raw(errno) == Errno::ENODEV => Some(Seen::Absent),
        Message::Outcome { .. } => None,
    });
    seen.flat_map(|seen| tracker.observe(seen)).collect()
}

/// The interface of this name as it is now; `None` when there is none.
pub fn find(name: &str) -> io::Result<Option<Link>> {
    let (objects, outcome) = Netlink::open(ROUTE)?.ask(wire::get_by_name(name))?;
    match outcome {
        // The kernel also finds alternative names: accept only the link whose own name is `name`.
        Ok(()) => Ok(objects.iter().filter_map(|(_, payload)| wire::link(payload)).find(|link| link.name == name)),
        Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
        Err(refusal) => Err(refusal.errno.into()),
    }
}

/// Sets IFF_UP and waits for the kernel's answer; it needs CAP_NET_ADMIN.
pub fn set_up(ifindex: u32) -> io::Result<()> {
    let (_, outcome) = Netlink::open(ROUTE)?.ask(wire::set_up(ifindex))?;
    outcome.map_err(|refusal| refusal.errno.into())
}

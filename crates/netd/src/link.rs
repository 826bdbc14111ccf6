//! The link watch: a stream of [`Transition`]s of one interface, from rtnetlink, and setting an interface up.
//!
//! It subscribes first and asks afterwards, so nothing falls between. A message queue that overflowed is answered by
//! asking again: never a silent desync. Nothing is polled and no timer runs while nothing happens; only after a change
//! it looks again a few times, because the kernel's linkwatch merges changes to about one message a second.
//! Called by ifplugd, zcip and the DHCP client. It decides nothing: debounce.rs of ifplugd does.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use tokio::time::Instant;

pub use netd_core::link::tracker::{Seen, Tracker, Transition};
pub use netd_core::wire::link::Link;
use netd_core::wire::link::{self as wire, Message};

/// Bit of RTNLGRP_LINK (1) in the mask of multicast groups, rtnetlink(7).
const GROUP_LINK: u32 = 1;
/// Room for one datagram: the kernel sends none above 32 KiB.
const DATAGRAM: usize = 32 * 1024;
/// The first look after a change; each further one waits twice as long ...
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// ... up to this: together 1.27 s, more than the second that linkwatch may hold a change back.
const LAST_LOOK: Duration = Duration::from_millis(640);
/// After an overflow: let the burst pass before asking.
const OVERRUN_WAIT: Duration = Duration::from_millis(20);
/// Linux: no such device.
const ENODEV: i32 = 19;
/// Linux: the receive queue overflowed.
const ENOBUFS: i32 = 105;

/// When to ask again.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    /// Wait before the look after this one, unless this was the last.
    then: Option<Duration>,
}

impl Look {
    fn after(wait: Duration) -> Look {
        let twice = wait.saturating_mul(2);
        Look { at: Instant::now() + wait, then: (twice <= LAST_LOOK).then_some(twice) }
    }
}

/// Watches one interface by name.
pub struct LinkWatch {
    socket: TokioSocket,
    tracker: Tracker,
    buffer: Vec<u8>,
    seq: u32,
    look: Option<Look>,
    ready: VecDeque<Transition>,
}

impl LinkWatch {
    /// Subscribes and asks; the first [`LinkWatch::next`] gives [`Transition::Missing`] or [`Transition::Appeared`].
    /// To be called inside a tokio runtime.
    pub fn open(name: &str) -> io::Result<LinkWatch> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUP_LINK))?;
        let mut watch = LinkWatch {
            socket,
            tracker: Tracker::new(name),
            buffer: Vec::with_capacity(DATAGRAM),
            seq: 0,
            look: None,
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
            match self.look {
                Some(look) => tokio::select! {
                    read = receive(&self.socket, &mut self.buffer) => self.received(read)?,
                    () = tokio::time::sleep_until(look.at) => {
                        self.look = look.then.map(Look::after);
                        self.ask()?;
                    }
                },
                None => {
                    let read = receive(&self.socket, &mut self.buffer).await;
                    self.received(read)?;
                }
            }
        }
    }

    fn received(&mut self, read: io::Result<SocketAddr>) -> io::Result<()> {
        match read {
            // Only the kernel's port is 0: another process may send to ours.
            Ok(from) if from.port_number() == 0 => {}
            Ok(_) => return Ok(()),
            Err(e) if e.raw_os_error() == Some(ENOBUFS) => {
                self.look = Some(Look::after(OVERRUN_WAIT));
                return Ok(());
            }
            Err(e) => return Err(e),
        }
        for message in wire::decode(&self.buffer) {
            let transitions = match message {
                Message::New(link) => {
                    // linkwatch is one for all links: after any change, one of ours may be held back for a second.
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
            ENODEV => Ok(self.tracker.observe(Seen::Absent)),
            // Found under an alternative name: nobody is called so.
            0 if self.tracker.link().is_none() => Ok(self.tracker.observe(Seen::Absent)),
            0 => Ok(Vec::new()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Asks for the interface by name; the answer comes through the same queue as the kernel's own messages, so
    /// their order is the order in which things happened.
    fn ask(&mut self) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        let request = wire::get_by_name(self.seq, self.tracker.name());
        self.socket.socket_ref().send_to(&request, &SocketAddr::new(0, 0), 0).map(|_| ())
    }
}

/// What the watch would make of a datagram of the kernel; for the fuzzer.
#[cfg(feature = "sim")]
pub fn transitions(tracker: &mut Tracker, datagram: &[u8]) -> Vec<Transition> {
    let seen = wire::decode(datagram).into_iter().filter_map(|message| match message {
        Message::New(link) => Some(Seen::Link(link)),
        Message::Deleted { ifindex } => Some(Seen::Deleted { ifindex }),
        Message::Outcome { errno: ENODEV, .. } => Some(Seen::Absent),
        Message::Outcome { .. } => None,
    });
    seen.flat_map(|seen| tracker.observe(seen)).collect()
}

/// One datagram into `buffer`, whatever was in it.
async fn receive(socket: &TokioSocket, buffer: &mut Vec<u8>) -> io::Result<SocketAddr> {
    buffer.clear();
    socket.recv_from(buffer).await
}

/// The interface of this name as it is now; `None` when there is none.
pub fn find(name: &str) -> io::Result<Option<Link>> {
    let mut found = None;
    for message in request(&wire::get_by_name(1, name))? {
        match message {
            // Under an alternative name nobody is called so.
            Message::New(link) if link.name == name => found = Some(link),
            Message::Outcome { errno: 0 | ENODEV, .. } => return Ok(found),
            Message::Outcome { errno, .. } => return Err(io::Error::from_raw_os_error(errno)),
            Message::New(_) | Message::Deleted { .. } => {}
        }
    }
    Err(io::Error::other("no answer from the kernel"))
}

/// Sets IFF_UP and waits for the kernel's answer; it needs CAP_NET_ADMIN.
pub fn set_up(ifindex: u32) -> io::Result<()> {
    match request(&wire::set_up(1, ifindex))?.first() {
        Some(Message::Outcome { errno: 0, .. }) => Ok(()),
        Some(Message::Outcome { errno, .. }) => Err(io::Error::from_raw_os_error(*errno)),
        Some(Message::New(_) | Message::Deleted { .. }) | None => Err(io::Error::other("no answer from the kernel")),
    }
}

/// One question, and all that the kernel says to it, the outcome last.
fn request(bytes: &[u8]) -> io::Result<Vec<Message>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(bytes, 0)?;
    let mut answer = Vec::new();
    // The kernel acts inside send(2): what it says is waiting already, in one datagram or two.
    while !answer.iter().any(|message| matches!(message, Message::Outcome { .. })) {
        let mut buffer = Vec::with_capacity(DATAGRAM);
        if socket.recv(&mut buffer, 0)? == 0 {
            break;
        }
        answer.extend(wire::decode(&buffer));
    }
    Ok(answer)
}

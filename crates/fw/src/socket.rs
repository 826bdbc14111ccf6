//! A netlink socket for one-shot work: dumps, and batches of requests with one result each.
//!
//! Synchronous: the kernel has queued every answer when sendto(2) returns, and goes on with a dump when it is read, so
//! nothing here ever waits. Called by kernel.rs, conntrack.rs and firewall/load.rs.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netd_core::wire::netlink::{self, Message, errno};
use netlink_sys::{Socket, SocketAddr};

/// NETLINK_ROUTE.
pub const ROUTE: isize = 0;
/// NETLINK_NETFILTER.
pub const NETFILTER: isize = 12;

/// Larger than any datagram of a dump: the kernel builds them for the reader's buffer, at most 32 KiB.
const BUFFER: usize = 64 * 1024;
/// Requests per sendto(2): their acknowledgements must fit into the default receive buffer (208 KiB; one takes less
/// than 1 KiB of it).
const BATCH: usize = 64;
/// How often a dump is repeated that changed while it was read, before it is believed anyway.
const TRIES: usize = 10;
const MSG_DONTWAIT: i32 = 0x40;
const ENOBUFS: i32 = 105;
const EINTR: i32 = 4;

/// Why the kernel refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// errno(3).
    pub errno: i32,
    /// The kernel's own words, when it has some (NLMSGERR_ATTR_MSG).
    pub text: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        match &self.text {
            Some(text) => write!(f, "{} ({text})", applet::control::error_text(&error)),
            None => f.write_str(&applet::control::error_text(&error)),
        }
    }
}

/// Type and payload of one object of a dump.
pub type Object = (u16, Vec<u8>);

/// An open socket.
pub struct Netlink {
    socket: Socket,
    protocol: isize,
    sequence: u32,
}

impl Netlink {
    /// `protocol` is [`ROUTE`] or [`NETFILTER`].
    pub fn open(protocol: isize) -> io::Result<Netlink> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Kernels before 4.20 know neither of the two; they then say less, and dump more than was asked for.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        if protocol == ROUTE {
            let _ = socket.set_netlink_get_strict_chk(true);
        }
        Ok(Netlink { socket, protocol, sequence: 0 })
    }

    /// Every object of a dump: its type and its payload. Repeated from the start when the objects changed meanwhile
    /// (NLM_F_DUMP_INTR) or the socket overran (ENOBUFS).
    pub fn dump(&mut self, request: &Message) -> io::Result<Vec<Object>> {
        let mut last = None;
        for _ in 0..TRIES {
            match self.dump_once(request) {
                Ok((objects, false)) => return Ok(objects),
                Ok((objects, true)) => last = Some(objects),
                Err(e) if matches!(e.raw_os_error(), Some(ENOBUFS | EINTR)) => *self = Netlink::open(self.protocol)?,
                Err(e) => return Err(e),
            }
        }
        last.ok_or_else(|| io::Error::from_raw_os_error(ENOBUFS))
    }

    fn dump_once(&mut self, request: &Message) -> io::Result<(Vec<Object>, bool)> {
        self.sequence += 1;
        self.socket.send(&request.clone().finish(self.sequence), 0)?;
        let mut objects = Vec::new();
        let mut interrupted = false;
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, MSG_DONTWAIT)?;
            for (header, payload) in netlink::messages(&buffer) {
                if header.sequence != self.sequence {
                    continue;
                }
                interrupted |= header.flags & netlink::DUMP_INTERRUPTED != 0;
                match header.kind {
                    netlink::DONE | netlink::ERROR => return finished(payload).map(|()| (objects, interrupted)),
                    kind => objects.push((kind, payload.to_vec())),
                }
            }
        }
    }

    /// Joins a multicast group.
    pub fn subscribe(self, group: u32) -> io::Result<Netlink> {
        self.socket.add_membership(group)?;
        Ok(self)
    }

    /// The descriptor, to wait for events on.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Events that are there, without waiting. An overrun loses some; whoever waits for one has another sign too.
    pub fn pending(&self) -> Vec<Object> {
        let mut out = Vec::new();
        let mut buffer = Vec::with_capacity(BUFFER);
        while self.socket.recv(&mut buffer, MSG_DONTWAIT).is_ok() {
            out.extend(netlink::messages(&buffer).map(|(header, payload)| (header.kind, payload.to_vec())));
            buffer.clear();
        }
        out
    }

    /// Sends all requests in their order and gives one result for each, in the same order. One that is refused does not
    /// stop those after it.
    pub fn perform(&mut self, requests: Vec<Message>) -> io::Result<Vec<Result<(), Refusal>>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let first = self.send_batch(requests.by_ref().take(BATCH))?;
            results.extend(self.collect(first)?);
        }
        Ok(results)
    }

    /// Sends without reading the answers; [`Netlink::collect`] takes the result.
    pub fn send_batch(&mut self, requests: impl Iterator<Item = Message>) -> io::Result<u32> {
        let first = self.sequence + 1;
        let mut bytes = Vec::new();
        for request in requests {
            self.sequence += 1;
            bytes.extend(request.finish(self.sequence));
        }
        if !bytes.is_empty() {
            self.socket.send(&bytes, 0)?;
        }
        Ok(first)
    }

    /// The results of the requests since `first`. An answer that was lost counts as ENOBUFS.
    pub fn collect(&mut self, first: u32) -> io::Result<Vec<Result<(), Refusal>>> {
        let count = (self.sequence + 1).saturating_sub(first) as usize;
        let mut results = vec![Err(Refusal { errno: ENOBUFS, text: None }); count];
        let mut missing = count;
        let mut buffer = Vec::with_capacity(BUFFER);
        while missing > 0 {
            buffer.clear();
            match self.socket.recv(&mut buffer, MSG_DONTWAIT) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(ENOBUFS) => break,
                Err(e) => return Err(e),
            }
            for (header, payload) in netlink::messages(&buffer) {
                let place = header.sequence.checked_sub(first).and_then(|at| results.get_mut(at as usize));
                if let (netlink::ERROR, Some(place)) = (header.kind, place) {
                    *place = refusal(header.flags, payload);
                    missing = missing.saturating_sub(1);
                }
            }
        }
        Ok(results)
    }
}

/// The end of a dump: DONE carries 0 or a negative errno, ERROR a negative errno.
fn finished(payload: &[u8]) -> io::Result<()> {
    match errno(payload) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// `struct nlmsgerr`: error i32, the request's header (16 bytes), its payload unless NLM_F_CAPPED, then attributes.
fn refusal(flags: u16, payload: &[u8]) -> Result<(), Refusal> {
    let errno = errno(payload);
    if errno == 0 {
        return Ok(());
    }
    let request = netlink::u32_at(payload, 4).unwrap_or(16) as usize;
    let after = if flags & netlink::CAPPED != 0 { 20 } else { 4 + request.next_multiple_of(4) };
    let attributes = payload.get(after..).filter(|_| flags & netlink::ACK_ATTRIBUTES != 0).unwrap_or_default();
    let text = netlink::attribute(attributes, 1).map(|t| String::from_utf8_lossy(t).trim_end_matches('\0').to_owned());
    Err(Refusal { errno, text })
}

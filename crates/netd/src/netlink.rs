//! The one netlink socket: questions with all their answers, requests with one outcome each, and
//! events.
//!
//! [`Netlink`] never waits: the kernel has queued an answer when send(2) returns, and it goes on
//! with a dump when a part of it is read. [`Watch`] waits for events in a tokio runtime. The bytes
//! are netd_core::wire's. Called by link.rs, addresses.rs and reach.rs, and by fw.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use nix::errno::Errno;
use nix::libc;

use netd_core::wire::netlink::{
    self, ERROR_TEXT, Header, Message, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, errno,
};

/// Links, addresses, routes and rules.
pub const ROUTE: isize = NETLINK_ROUTE;
/// nftables and connection tracking.
pub const NETFILTER: isize = NETLINK_NETFILTER;

/// Room for one datagram: the kernel builds none above 32 KiB (NLMSG_DEFAULT_SIZE and netlink_dump
/// of af_netlink.c).
const DATAGRAM: usize = 32 * 1024;
/// Requests per send(2): their acknowledgements must fit into the default receive buffer (208 KiB;
/// one takes less than 1 KiB of it).
pub const BATCH: usize = 64;
/// How often a dump is repeated that changed while it was read, before it is believed anyway.
const TRIES: usize = 10;
/// `struct nlmsgerr`: the error, then the header of the request.
const ERROR_LEN: usize = 4;
const HEADER_LEN: usize = 16;

/// Why the kernel refused a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// errno(3).
    pub errno: Errno,
    /// The kernel's own words, when it has some (NLMSGERR_ATTR_MSG).
    pub text: Option<String>,
}

impl Refusal {
    /// Without words of the kernel.
    pub fn from_io(error: &io::Error) -> Refusal {
        Refusal { errno: Errno::from_raw(error.raw_os_error().unwrap_or_default()), text: None }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from(self.errno);
        match &self.text {
            Some(text) => write!(f, "{} ({text})", applet::control::error_text(&error)),
            None => f.write_str(&applet::control::error_text(&error)),
        }
    }
}

/// Type and payload of one object of an answer.
pub type Object = (u16, Vec<u8>);

/// Whether the receive queue overflowed, so that the kernel has thrown away what came.
pub fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// The objects of a dump, or none where the kernel refuses it: one without IPv6, or without rules,
/// has no such objects. Objects that were lost on the way are there all the same: an error.
pub fn unless_refused(dumped: io::Result<Vec<Object>>) -> io::Result<Vec<Object>> {
    match dumped {
        Err(e) if is_overrun(&e) => Err(e),
        other => Ok(other.unwrap_or_default()),
    }
}

/// An open socket.
pub struct Netlink {
    protocol: isize,
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// `protocol` is [`ROUTE`] or [`NETFILTER`].
    pub fn open(protocol: isize) -> io::Result<Netlink> {
        Ok(Netlink { protocol, socket: connected(protocol)?, sequence: 0 })
    }

    /// Every object of a dump. The dump is repeated when the objects changed meanwhile
    /// (NLM_F_DUMP_INTR) or the socket overran.
    pub fn dump(&mut self, request: &Message) -> io::Result<Vec<Object>> {
        self.dump_within(usize::MAX, request)
    }

    /// As [`Netlink::dump`]; an answer of more than so many datagrams of up to 32 KiB is an error.
    pub fn dump_within(&mut self, datagrams: usize, request: &Message) -> io::Result<Vec<Object>> {
        repeated(|| self.dump_once(datagrams, request))
    }

    fn dump_once(&mut self, datagrams: usize, request: &Message) -> io::Result<(Vec<Object>, bool)> {
        let sequence = self.send_batch(std::iter::once(request.clone()))?;
        let mut answer = Answer::to(sequence);
        let mut buffer = Vec::with_capacity(DATAGRAM);
        for _ in 0..datagrams {
            if let Err(e) = self.receive(&mut buffer) {
                self.give_up()?;
                return Err(e);
            }
            if let Some(end) = answer.read(&buffer) {
                end.map_err(|refusal| io::Error::from(refusal.errno))?;
                return Ok((answer.objects, answer.interrupted));
            }
        }
        self.give_up()?;
        Err(io::Error::other("the kernel has too many objects"))
    }

    /// A new socket in place of one whose dump has not come to its end: until then the kernel
    /// refuses the next one (EBUSY), and a dump that found no memory for its next part has no end.
    fn give_up(&mut self) -> io::Result<()> {
        self.socket = connected(self.protocol)?;
        Ok(())
    }

    /// One question about one object: what the kernel says to it, and the outcome.
    pub fn ask(&mut self, request: Message) -> io::Result<(Vec<Object>, Result<(), Refusal>)> {
        let sequence = self.send_batch(std::iter::once(request))?;
        let mut answer = Answer::to(sequence);
        let mut buffer = Vec::with_capacity(DATAGRAM);
        loop {
            self.receive(&mut buffer)?;
            if let Some(outcome) = answer.read(&buffer) {
                return Ok((answer.objects, outcome));
            }
        }
    }

    /// Sends all requests in their order and gives one result for each, in the same order. One that
    /// is refused does not stop those after it.
    pub fn perform(&mut self, requests: Vec<Message>) -> io::Result<Vec<Result<(), Refusal>>> {
        let mut results = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let first = self.send_batch(requests.by_ref().take(BATCH))?;
            results.extend(self.collect(first)?);
        }
        Ok(results)
    }

    /// Sends without reading the answers; [`Netlink::collect`] takes the result, the first
    /// request's sequence number.
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
        let mut results = vec![Err(Refusal { errno: Errno::ENOBUFS, text: None }); count];
        let mut missing = count;
        let mut buffer = Vec::with_capacity(DATAGRAM);
        while missing > 0 {
            match self.receive(&mut buffer) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock || is_overrun(&e) => break,
                Err(e) => return Err(e),
            }
            for (header, payload) in netlink::messages(&buffer) {
                let place = header.sequence.checked_sub(first).and_then(|at| results.get_mut(at as usize));
                if let (NLMSG_ERROR, Some(place)) = (header.kind, place) {
                    *place = outcome(&header, payload);
                    missing = missing.saturating_sub(1);
                }
            }
        }
        Ok(results)
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

    /// Events that are there, without waiting. An overrun loses some, so a caller that waits for
    /// one needs another sign too.
    pub fn pending(&self) -> Vec<Object> {
        let mut out = Vec::new();
        let mut buffer = Vec::with_capacity(DATAGRAM);
        while self.receive(&mut buffer).is_ok() {
            out.extend(netlink::messages(&buffer).map(|(header, payload)| (header.kind, payload.to_vec())));
        }
        out
    }

    fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        self.socket.recv(buffer, libc::MSG_DONTWAIT).map(drop)
    }
}

/// A socket that speaks with the kernel alone.
fn connected(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // Kernels before 4.20 know neither of the two; they then say less, and dump more than was
    // asked for.
    let _ = socket.set_cap_ack(true);
    let _ = socket.set_ext_ack(true);
    if protocol == ROUTE {
        let _ = socket.set_netlink_get_strict_chk(true);
    }
    Ok(socket)
}

/// The first dump of [`TRIES`] that is whole: its objects did not change meanwhile (`false`).
/// Without such a one, the last that came to its end.
fn repeated(mut once: impl FnMut() -> io::Result<(Vec<Object>, bool)>) -> io::Result<Vec<Object>> {
    let mut last = None;
    for _ in 0..TRIES {
        match once() {
            Ok((objects, false)) => return Ok(objects),
            Ok((objects, true)) => last = Some(objects),
            Err(e) if is_overrun(&e) || e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    last.ok_or_else(|| Errno::ENOBUFS.into())
}

/// What has come of the answer to one request.
struct Answer {
    sequence: u32,
    objects: Vec<Object>,
    /// The objects changed while they were dumped.
    interrupted: bool,
}

impl Answer {
    fn to(sequence: u32) -> Answer {
        Answer { sequence, objects: Vec::new(), interrupted: false }
    }

    /// Reads a datagram; gives the outcome when it is the last one. What belongs to another request
    /// is skipped.
    fn read(&mut self, datagram: &[u8]) -> Option<Result<(), Refusal>> {
        for (header, payload) in netlink::messages(datagram).filter(|(header, _)| header.sequence == self.sequence) {
            self.interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
            match header.kind {
                NLMSG_DONE | NLMSG_ERROR => return Some(outcome(&header, payload)),
                kind => self.objects.push((kind, payload.to_vec())),
            }
        }
        None
    }
}

/// `struct nlmsgerr`: error i32, the request's header, its payload unless NLM_F_CAPPED, then
/// attributes. The end of a dump begins in the same way.
fn outcome(header: &Header, payload: &[u8]) -> Result<(), Refusal> {
    let errno = errno(payload);
    if errno == 0 {
        return Ok(());
    }
    let request = netlink::u32_at(payload, ERROR_LEN).map_or(HEADER_LEN, |len| len as usize);
    let capped = header.flags & NLM_F_CAPPED != 0;
    let after = ERROR_LEN + if capped { HEADER_LEN } else { request.next_multiple_of(4) };
    let attributes = payload.get(after..).filter(|_| header.flags & NLM_F_ACK_TLVS != 0).unwrap_or_default();
    let text = netlink::attribute(attributes, ERROR_TEXT);
    let text = text.map(|text| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Err(Refusal { errno: Errno::from_raw(errno), text })
}

/// What a [`Watch`] heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A datagram of the kernel: [`Watch::datagram`].
    Datagram,
    /// The queue overflowed and some are lost.
    Overrun,
}

/// A socket that hears what the kernel says to multicast groups.
pub struct Watch {
    socket: TokioSocket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Watch {
    /// From here on. `groups` are RTNLGRP_* of rtnetlink(7). To be called inside a tokio runtime.
    pub fn open(groups: &[u32]) -> io::Result<Watch> {
        Watch::with_room(ROUTE, groups, DATAGRAM)
    }

    /// As [`Watch::open`], of netfilter's groups: NFNLGRP_*.
    pub fn open_netfilter(groups: &[u32]) -> io::Result<Watch> {
        Watch::with_room(NETFILTER, groups, DATAGRAM)
    }

    /// As [`Watch::open`], for a caller that reads no datagram: a page less of memory.
    pub fn open_unread(groups: &[u32]) -> io::Result<Watch> {
        Watch::with_room(ROUTE, groups, HEADER_LEN)
    }

    fn with_room(protocol: isize, groups: &[u32], room: usize) -> io::Result<Watch> {
        let mut socket = TokioSocket::new(protocol)?;
        socket.socket_mut().bind_auto()?;
        for group in groups {
            socket.socket_ref().add_membership(*group)?;
        }
        Ok(Watch { socket, buffer: Vec::with_capacity(room), sequence: 0 })
    }

    /// Asks. The answer comes through the same queue as the events, so the order of both is the
    /// order in which things happened. Returns the sequence number of the answer.
    pub fn ask(&mut self, request: Message) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request.finish(self.sequence);
        self.socket.socket_ref().send_to(&request, &SocketAddr::new(0, 0), 0)?;
        Ok(self.sequence)
    }

    /// Waits for the kernel's next word. Safe to drop and to call again.
    pub async fn heard(&mut self) -> io::Result<Heard> {
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer).await {
                // Only the kernel's port is 0: another process may send to ours.
                Ok(from) if from.port_number() == 0 => return Ok(Heard::Datagram),
                Ok(_) => {}
                Err(e) if is_overrun(&e) => return Ok(Heard::Overrun),
                Err(e) => return Err(e),
            }
        }
    }

    /// The datagram that was heard last.
    pub fn datagram(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads and forgets what else is there already.
    pub fn forget(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.socket_ref().recv_from(&mut self.buffer, libc::MSG_DONTWAIT) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if !is_overrun(&e) => return Err(e),
                Ok(_) | Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netd_core::wire::link;
    use netd_core::wire::netlink::{DUMP, GET_LINK, NEW_LINK, ifinfomsg};

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        Message::new(kind, flags, payload).finish(sequence)
    }

    #[test]
    fn an_answer_is_read_to_its_end_and_says_when_it_was_interrupted() {
        let mut answer = Answer::to(7);
        let old = message(NEW_LINK, 0, 6, b"old!");
        assert_eq!(answer.read(&[old, message(NEW_LINK, 0, 7, b"one!")].concat()), None);
        assert!(!answer.interrupted);
        assert_eq!(answer.read(&message(NEW_LINK, NLM_F_DUMP_INTR, 7, b"two!")), None);
        assert_eq!(answer.read(&message(NLMSG_DONE, 0, 7, &[0; 4])), Some(Ok(())));
        assert!(answer.interrupted);
        assert_eq!(answer.objects, [(NEW_LINK, b"one!".to_vec()), (NEW_LINK, b"two!".to_vec())]);
    }

    #[test]
    fn a_dump_that_overruns_or_changes_half_way_is_read_again() {
        let object = |n: u8| vec![(NEW_LINK, vec![n])];
        let overrun = || io::Error::from(Errno::ENOBUFS);
        let read = |mut tries: Vec<io::Result<(Vec<Object>, bool)>>| {
            tries.reverse();
            let got = repeated(|| tries.pop().unwrap_or_else(|| Err(overrun())));
            (got.map_err(|e| e.raw_os_error()), tries.len())
        };
        let errno = |errno: Errno| Err(Some(errno as i32));
        assert_eq!(read(vec![Ok((object(1), false)), Ok((object(2), false))]), (Ok(object(1)), 1));
        assert_eq!(read(vec![Err(overrun()), Ok((object(2), false))]), (Ok(object(2)), 0));
        let changed = vec![Ok((object(1), true)), Err(overrun()), Ok((object(3), false))];
        assert_eq!(read(changed), (Ok(object(3)), 0));
        // The last whole one counts when none is without a change.
        assert_eq!(read(vec![Ok((object(1), true)), Ok((object(2), true))]), (Ok(object(2)), 0));
        assert_eq!(read(Vec::new()), (errno(Errno::ENOBUFS), 0), "an end, although each try overran");
        assert_eq!(read(vec![Err(Errno::EPERM.into()), Ok((object(2), false))]), (errno(Errno::EPERM), 1));
    }

    #[test]
    fn the_rest_of_a_dump_that_overran_is_none_of_the_next_one() {
        let part = |sequence, kind: u16, payload: &[u8]| message(kind, 0, sequence, payload);
        let mut first = Answer::to(1);
        assert_eq!(first.read(&part(1, NEW_LINK, b"one!")), None);
        // ENOBUFS: the parts after this one are lost, and the dump is asked for again.
        let mut second = Answer::to(2);
        assert_eq!(second.read(&[part(1, NEW_LINK, b"late"), part(1, NLMSG_DONE, &[0; 4])].concat()), None);
        assert_eq!(second.read(&part(2, NEW_LINK, b"one!")), None);
        assert_eq!(second.read(&part(2, NLMSG_DONE, &[0; 4])), Some(Ok(())));
        assert_eq!(second.objects, [(NEW_LINK, b"one!".to_vec())]);
    }

    #[test]
    fn a_refusal_has_its_errno_and_the_kernels_words() {
        let error = (-(Errno::EINVAL as i32)).to_ne_bytes();
        let request = message(NEW_LINK, 0, 1, &[1; 6]);
        let words = Message::new(0, 0, &[]).with(ERROR_TEXT, b"no such thing\0").finish(0)[HEADER_LEN..].to_vec();
        let plain = Refusal { errno: Errno::EINVAL, text: None };
        let told = Refusal { text: Some("no such thing".into()), ..plain.clone() };
        let whole = [&error[..], &request, &[0; 2], &words].concat();
        let capped = [&error[..], &request[..HEADER_LEN], &words].concat();
        for (flags, payload, want) in [
            (NLM_F_ACK_TLVS, &whole, &told),
            (NLM_F_ACK_TLVS | NLM_F_CAPPED, &capped, &told),
            (NLM_F_CAPPED, &capped, &plain),
            (NLM_F_ACK_TLVS, &error.to_vec(), &plain),
        ] {
            let header = Header { kind: NLMSG_ERROR, flags, sequence: 1 };
            assert_eq!(outcome(&header, payload).as_ref(), Err(want), "{flags:#x}");
        }
        assert_eq!(told.to_string(), "invalid argument (no such thing)");
    }

    #[test]
    fn the_kernel_answers_a_dump_a_question_and_a_request() {
        let mut netlink = Netlink::open(ROUTE).unwrap();
        let links = netlink.dump(&Message::new(GET_LINK, DUMP, &ifinfomsg(0, 0))).unwrap();
        assert!(links.iter().all(|(kind, _)| *kind == NEW_LINK) && !links.is_empty());
        let (found, outcome) = netlink.ask(link::get_by_name("lo")).unwrap();
        assert_eq!((found.len(), outcome), (1, Ok(())));
        let (found, outcome) = netlink.ask(link::get_by_name("no-such-if0")).unwrap();
        assert_eq!((found.len(), outcome.map_err(|refusal| refusal.errno)), (0, Err(Errno::ENODEV)));
        let missing = i32::MAX as u32;
        let outcomes = netlink.perform(vec![link::set_mtu(missing, 1500); 100]).unwrap();
        assert!(outcomes.len() == 100 && outcomes.iter().all(Result::is_err), "{outcomes:?}");
    }

    #[test]
    fn a_dump_that_is_too_long_is_an_error_and_the_next_one_is_whole() {
        let mut netlink = Netlink::open(ROUTE).unwrap();
        let request = Message::new(GET_LINK, DUMP, &ifinfomsg(0, 0));
        assert!(netlink.dump_within(1, &request).is_err(), "the end of a dump is a datagram of its own");
        assert!(!netlink.dump(&request).unwrap().is_empty());
    }

    #[test]
    fn a_dump_that_lost_objects_is_no_kernel_without_them() {
        let read = |errno: Errno| unless_refused(Err(errno.into())).map_err(|e| e.raw_os_error());
        assert_eq!(read(Errno::EOPNOTSUPP), Ok(Vec::new()));
        assert_eq!(read(Errno::EAFNOSUPPORT), Ok(Vec::new()));
        assert_eq!(read(Errno::ENOBUFS), Err(Some(Errno::ENOBUFS as i32)));
        assert_eq!(unless_refused(Ok(vec![(24, vec![1])])).unwrap(), [(24, vec![1])]);
    }
}

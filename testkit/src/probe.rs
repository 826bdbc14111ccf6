//! ICMP echo at a fixed pace from inside a namespace, and the number of missing answers in a window
//! of time.
//!
//! ping(8) is not fit for this: it slows down while answers are missing, so a 9 s outage shows as
//! 40 lost pings instead of 4500. Here the n-th request leaves at start + n * interval whatever
//! happens. A request that cannot be sent counts as lost.

#![expect(clippy::disallowed_methods, reason = "measures real time")]

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use pnet_packet::util;

/// One request: when it was due, and when its answer came.
#[derive(Clone, Copy, Debug)]
struct Sample {
    due: Instant,
    answered: Option<Instant>,
}

/// A running probe; it stops when dropped.
pub struct Probe {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    interval: Duration,
}

/// The counts for a window of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Requests that were due in the window.
    pub sent: usize,
    /// Those without an answer so far.
    pub lost: usize,
    /// The longest run of lost requests, as time.
    pub longest_gap: Duration,
}

impl Probe {
    /// Starts to ping `target` every `interval` from the network namespace `netns` (a name of
    /// ip-netns(8), or None for the caller's own).
    pub fn start(netns: Option<&str>, target: Ipv4Addr, interval: Duration) -> io::Result<Probe> {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let netns = netns.map(|name| PathBuf::from("/run/netns").join(name));
        // The socket belongs to the namespace of the thread that makes it, wherever it is used.
        let sock = thread::spawn(move || -> io::Result<_> {
            if let Some(path) = netns {
                setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            }
            let sock = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
            setsockopt(&sock, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))?;
            Ok(Arc::new(sock))
        });
        let sock = sock.join().map_err(|_| io::Error::other("socket thread"))??;
        let ident = u16::try_from(sock.as_raw_fd() as u32 ^ std::process::id() & 0xffff).unwrap_or(0x4e53);

        let sender = {
            let (samples, stop, sock) = (Arc::clone(&samples), Arc::clone(&stop), Arc::clone(&sock));
            thread::spawn(move || {
                let start = Instant::now();
                let to =
                    SockaddrIn::new(target.octets()[0], target.octets()[1], target.octets()[2], target.octets()[3], 0);
                for n in 0u32.. {
                    let due = start + interval * n;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    lock(&samples).push(Sample { due, answered: None });
                    let _ = sendto(sock.as_raw_fd(), &echo_request(ident, n), &to, MsgFlags::MSG_DONTWAIT);
                }
            })
        };
        let receiver = {
            let (samples, stop) = (Arc::clone(&samples), Arc::clone(&stop));
            thread::spawn(move || {
                let mut buf = [0; 256];
                while !stop.load(Ordering::Relaxed) {
                    let Ok(len) = recv(sock.as_raw_fd(), &mut buf, MsgFlags::empty()) else { continue };
                    let now = Instant::now();
                    if let Some(n) = echo_reply(buf.get(..len).unwrap_or_default(), ident)
                        && let Some(sample) = lock(&samples).get_mut(n as usize)
                    {
                        sample.answered.get_or_insert(now);
                    }
                }
            })
        };
        Ok(Probe { samples, stop, threads: vec![sender, receiver], interval })
    }

    /// The losses among the requests due from `from` until `to`. Call it a little after `to`, when
    /// the last answers have arrived.
    pub fn loss(&self, from: Instant, to: Instant) -> Loss {
        let mut loss = Loss::default();
        let mut run = 0;
        for sample in lock(&self.samples).iter().filter(|s| s.due >= from && s.due < to) {
            loss.sent += 1;
            run = if sample.answered.is_some() { 0 } else { run + 1 };
            loss.lost += usize::from(run > 0);
            loss.longest_gap = loss.longest_gap.max(self.interval * run);
        }
        loss
    }

    /// When the first request that was due at or after `since` was answered.
    pub fn first_answer(&self, since: Instant) -> Option<Instant> {
        lock(&self.samples).iter().filter(|s| s.due >= since).find_map(|s| s.answered)
    }

    /// The moment after `since` from which answers flow for good: the due time of the request after
    /// the last lost one (`since` when none was lost). `None` while the newest requests are
    /// unanswered.
    pub fn recovered(&self, since: Instant) -> Option<Instant> {
        let samples = lock(&self.samples);
        let mut settled = samples.iter().filter(|s| s.due >= since).rev().skip(25).peekable();
        settled.peek()?.answered?;
        let last_lost = settled.find(|s| s.answered.is_none());
        Some(last_lost.map_or(since, |s| s.due + self.interval))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock(samples: &Mutex<Vec<Sample>>) -> MutexGuard<'_, Vec<Sample>> {
    samples.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// RFC 792: the checksum is the second word of 16 bits.
const ICMP_CHECKSUM_WORD: usize = 1;

/// RFC 792 echo request: type 8, code 0, checksum, identifier, sequence; the payload carries the
/// full number.
fn echo_request(ident: u16, n: u32) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0];
    packet.extend(ident.to_be_bytes());
    packet.extend((n as u16).to_be_bytes());
    packet.extend(n.to_be_bytes());
    let sum = util::checksum(&packet, ICMP_CHECKSUM_WORD);
    packet.splice(2..4, sum.to_be_bytes());
    packet
}

/// The number in an echo reply to `ident`; `bytes` starts with the IPv4 header.
fn echo_reply(bytes: &[u8], ident: u16) -> Option<u32> {
    let header = usize::from(bytes.first()? & 0x0f) * 4;
    let icmp = bytes.get(header..)?;
    let (head, payload) = icmp.split_first_chunk::<8>()?;
    let matches = head[0] == 0 && head[1] == 0 && head[4..6] == ident.to_be_bytes();
    matches.then(|| payload.first_chunk().map(|n| u32::from_be_bytes(*n))).flatten()
}

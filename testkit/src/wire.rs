//! A bad wire: a bridge in user space that loses, delays, repeats and reorders frames by a seeded
//! plan.
//!
//! The kernel's netem is not everywhere (many kernels of virtual machines lack it). Each station's
//! cable ends in a namespace of the wire's own, where a thread carries frames between packet
//! sockets. It works as root and in a user namespace. The same seed and the same frames in the same
//! order have the same fate. But the arrival of frames varies, so a test may rely on the rates, and
//! not on the fate of one frame.

#![expect(clippy::disallowed_methods, reason = "measures real time")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send, socket,
};
use pnet_packet::ip::IpNextHeaderProtocol;
use pnet_packet::util;

use crate::lab::{Cable, Lab, Net};

/// packet(7), PACKET_OUTGOING: the kernel's own copy of a frame that left by this port.
pub(crate) const OUTGOING: u8 = 4;
/// The longest time between two checks whether to stop, in milliseconds.
pub(crate) const LOOK: u16 = 50;
/// The limit of frames in flight. Further frames are lost, so that a storm does not fill the
/// memory.
const MAX_IN_FLIGHT: usize = 10_000;

/// The plan for the frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// The seed of the dice.
    pub seed: u64,
    /// How many of a hundred frames are lost.
    pub loss_percent: u8,
    /// How many of a hundred frames come twice, the second time with a delay of their own.
    pub repeat_percent: u8,
    /// The delay from a port to each other port.
    pub delay: Duration,
    /// A random further delay of up to this much for each frame, so that frames overtake each
    /// other.
    pub jitter: Duration,
    /// Frames to the first station carry this VLAN in a tag of IEEE 802.1Q.
    pub vlan: Option<u16>,
}

/// The counts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Copies that reached a port.
    pub carried: usize,
    /// Frames that were lost.
    pub lost: usize,
    /// Frames that were repeated.
    pub repeated: usize,
    /// Copies that were delivered after one that came later.
    pub overtaken: usize,
}

#[derive(Debug)]
struct Shared {
    plan: Mutex<Plan>,
    counts: Mutex<Counts>,
    stop: AtomicBool,
}

/// A running wire; it stops when dropped.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    cables: Vec<Cable>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Gives each station its interface, with a cable that ends in the wire. The wire carries
    /// frames when this returns.
    pub fn between(lab: &Lab, stations: &[(&Net, &str)], plan: Plan) -> io::Result<Wire> {
        let net = lab.net("wire");
        // The wire's own namespace must not send frames.
        net.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        net.sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        let ports: Vec<String> = (0..stations.len()).map(|n| format!("port{n}")).collect();
        let cables = stations.iter().zip(&ports).map(|(near, port)| lab.cable(*near, (&net, port))).collect();
        let shared = Shared { plan: Mutex::new(plan), counts: Mutex::default(), stop: AtomicBool::new(false) };
        let shared = Arc::new(shared);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let inner = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("wire".into()).spawn(move || match open(&net.path(), &ports) {
                Ok(sockets) => {
                    let _ = ready.send(Ok(()));
                    inner.carry(&sockets, plan.seed);
                }
                Err(e) => drop(ready.send(Err(e))),
            })?;
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Wire { shared, cables, thread: Some(thread) })
    }

    /// Changes the plan for all following frames; the dice roll on.
    pub fn set_plan(&self, plan: Plan) {
        *lock(&self.shared.plan) = plan;
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        *lock(&self.shared.counts)
    }

    /// The cable of the `n`th station.
    pub fn cable(&self, n: usize) -> &Cable {
        &self.cables[n]
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens packet sockets for everything that comes in by these interfaces. It moves the calling
/// thread into their namespace.
pub(crate) fn open(namespace: &Path, interfaces: &[String]) -> io::Result<Vec<OwnedFd>> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    interfaces.iter().map(|interface| open_one(interface)).collect()
}

fn open_one(interface: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    let of_link = |entry: InterfaceAddress| entry.address?.as_link_addr().copied();
    let found = getifaddrs()?.filter(|entry| entry.interface_name == interface).find_map(of_link);
    // The protocol in the address is 0: the socket keeps the one with which it was opened
    // (packet(7)).
    let address = found.ok_or_else(|| io::Error::other(format!("{interface}: no such interface")))?;
    bind(fd.as_raw_fd(), &address)?;
    Ok(fd)
}

/// A frame in flight: its due time, its number, its port, its bytes.
type InFlight = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Carrier<'a> {
    shared: &'a Shared,
    dice: Dice,
    in_flight: BinaryHeap<InFlight>,
    number: u64,
    /// The highest number of a frame that each port has had.
    youngest: Vec<u64>,
}

impl Shared {
    fn carry(&self, sockets: &[OwnedFd], seed: u64) {
        let (in_flight, youngest) = (BinaryHeap::new(), vec![0; sockets.len()]);
        let mut carrier = Carrier { shared: self, dice: Dice(seed), in_flight, number: 0, youngest };
        let mut buffer = vec![0; 65536];
        while !self.stop.load(Ordering::Relaxed) {
            let due = carrier.in_flight.peek().map(|Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
            // The wait is rounded up: a wait of less than a millisecond must not become a busy
            // loop.
            let wait_ms =
                due.and_then(|due| u16::try_from(due.as_micros().div_ceil(1000)).ok()).unwrap_or(LOOK).min(LOOK);
            let mut fds: Vec<PollFd> = sockets.iter().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN)).collect();
            let _ = poll(&mut fds, wait_ms);
            for (port, socket) in sockets.iter().enumerate() {
                while let Ok((len, from)) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                    if from.is_none_or(|from| from.pkttype() != OUTGOING) {
                        carrier.take(port, sockets.len(), &buffer[..len]);
                    }
                }
            }
            carrier.deliver(sockets);
        }
    }
}

impl Carrier<'_> {
    /// Decides what becomes of a frame that came in by `from`.
    fn take(&mut self, from: usize, ports: usize, frame: &[u8]) {
        let plan = *lock(&self.shared.plan);
        if self.dice.percent(plan.loss_percent) || self.in_flight.len() >= MAX_IN_FLIGHT {
            lock(&self.shared.counts).lost += 1;
            return;
        }
        let repeated = self.dice.percent(plan.repeat_percent);
        lock(&self.shared.counts).repeated += usize::from(repeated);
        let frame = finished(frame.to_vec());
        for _ in 0..1 + usize::from(repeated) {
            let due = Instant::now() + plan.delay + self.dice.up_to(plan.jitter);
            for to in (0..ports).filter(|to| *to != from) {
                self.number += 1;
                let vlan = plan.vlan.filter(|_| to == 0);
                self.in_flight.push(Reverse((due, self.number, to, tagged(frame.clone(), vlan))));
            }
        }
    }

    fn deliver(&mut self, sockets: &[OwnedFd]) {
        let now = Instant::now();
        while self.in_flight.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
            let Some(Reverse((_, number, to, frame))) = self.in_flight.pop() else { return };
            // A port may have no carrier. On a real wire no station learns of it either.
            let _ = send(sockets[to].as_raw_fd(), &frame, MsgFlags::empty());
            let mut counts = lock(&self.shared.counts);
            counts.carried += 1;
            counts.overtaken += usize::from(number < self.youngest[to]);
            self.youngest[to] = self.youngest[to].max(number);
        }
    }
}

/// The frame with a tag after the two Ethernet addresses.
pub(crate) fn tagged(mut frame: Vec<u8>, vlan: Option<u16>) -> Vec<u8> {
    if let (Some(vlan), true) = (vlan, frame.len() >= 12) {
        let [high, low] = vlan.to_be_bytes();
        frame.splice(12..12, [0x81, 0x00, high, low]);
    }
    frame
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn percent(&mut self, percent: u8) -> bool {
        self.next() % 100 < u64::from(percent)
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.next() % micros.saturating_add(1).max(1))
    }
}

/// A frame as it would leave a card: between veth ends the kernel leaves the checksums of TCP and
/// UDP to the card, and there is no card.
pub(crate) fn finished(mut frame: Vec<u8>) -> Vec<u8> {
    if frame.get(12..14) != Some(&[0x08, 0x00]) || frame.len() < 34 {
        return frame;
    }
    let header = usize::from(frame[14] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let fragment = u16::from_be_bytes([frame[20], frame[21]]) & 0x3fff != 0;
    // RFC 768 and RFC 9293: where the checksum is.
    let at = match frame[23] {
        17 => 6,
        6 => 16,
        _ => return frame,
    };
    let (start, end) = (14 + header, 14 + total);
    if fragment || header < 20 || end > frame.len() || start + at + 2 > end {
        return frame;
    }
    let ip = |at| <[u8; 4]>::try_from(&frame[at..at + 4]).map(Ipv4Addr::from).expect("4 bytes");
    let protocol = IpNextHeaderProtocol(frame[23]);
    let sum = util::ipv4_checksum(&frame[start..end], at / 2, &[], &ip(26), &ip(30), protocol);
    frame[start + at..start + at + 2].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{isolated, wait_until};

    #[test]
    fn frames_are_lost_delayed_repeated_and_reordered_as_planned() {
        isolated(&["ping"], |lab| {
            let (a, b) = (lab.net("a"), lab.net("b"));
            let wire = Wire::between(lab, &[(&a, "eth0"), (&b, "eth0")], Plan::default()).unwrap();
            a.address("eth0", "192.0.2.1/24");
            b.address("eth0", "192.0.2.2/24");
            wait_until("a ping", Duration::from_secs(5), || a.pings("192.0.2.2"));
            assert_eq!(wire.counts().lost + wire.counts().repeated, 0);

            wire.set_plan(Plan { delay: Duration::from_millis(50), ..Plan::default() });
            let said = a.run(&["ping", "-n", "-c1", "-W2", "192.0.2.2"]);
            let time = said.split("time=").nth(1).and_then(|t| t.split(' ').next()).unwrap();
            assert!(time.parse::<f64>().unwrap() >= 100.0, "{said}");

            // Of 600 frames at 25 %, fewer than 60 or more than 300 lost frames cannot be chance.
            wire.set_plan(Plan {
                seed: 1,
                loss_percent: 25,
                repeat_percent: 25,
                jitter: Duration::from_millis(50),
                ..Plan::default()
            });
            let before = wire.counts();
            a.try_run(&["ping", "-n", "-q", "-c400", "-i0.002", "-W1", "192.0.2.2"]);
            let after = wire.counts();
            let (lost, repeated) = (after.lost - before.lost, after.repeated - before.repeated);
            assert!((60..300).contains(&lost) && repeated > 40 && after.overtaken > 40, "{after:?}");
        });
    }
}

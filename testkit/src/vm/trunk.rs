//! A switch in user space between a second card of the machine, which speaks tagged frames (IEEE
//! 802.1Q), and an untagged port. Frames of one VLAN cross it, without their tag on the port's
//! side; all that the machine has sent is kept. The host's kernel needs no VLANs: qemu gives each
//! frame as a datagram.

use std::fs::File;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, send};

use crate::lab::Net;
use crate::wire::{LOOK, OUTGOING, finished, open, tagged};

/// The card, for `device_add`; from the start its name is `trunk`.
pub const TRUNK_DEVICE: &str = "virtio-net-pci,netdev=n1,mac=02:00:00:00:07:02,romfile=";
/// The ends of the datagrams, in the namespace of the machine.
const QEMU: &str = "127.0.0.1:7002";
const OURS: &str = "127.0.0.1:7001";
/// Where the type of an Ethernet frame is, and the one of a tag.
const TYPE: std::ops::Range<usize> = 12..14;
const TAG_TYPE: [u8; 2] = [0x81, 0x00];
/// Type and value of a tag.
const TAG_LEN: usize = 4;

/// A running switch; it stops when dropped.
#[derive(Debug)]
pub struct Trunk {
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trunk {
    /// qemu's options for the card.
    pub fn qemu() -> Vec<String> {
        let netdev = format!("socket,id=n1,udp={OURS},localaddr={QEMU}");
        ["-netdev", &netdev, "-device", &format!("{TRUNK_DEVICE},id=trunk")].map(str::to_owned).to_vec()
    }

    /// Starts to carry frames of `vlan` between the card of a machine in `net` and `port` there.
    pub fn start(net: &Net, port: &str, vlan: u16) -> io::Result<Trunk> {
        let (path, port) = (net.path(), port.to_owned());
        let opening = std::thread::spawn(move || both(&path, &port));
        let (card, port) = opening.join().map_err(|_| io::Error::other("socket thread"))??;
        let (sent, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (kept, end) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = std::thread::spawn(move || carry(&card, &port, vlan, &kept, &end));
        Ok(Trunk { sent, stop, thread: Some(thread) })
    }

    /// The frames that the machine has sent so far, with their tags.
    pub fn sent(&self) -> Vec<Vec<u8>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The priority and the number in the tag of a frame.
pub fn tag(frame: &[u8]) -> Option<(u8, u16)> {
    let value = frame.get(TYPE.end..TYPE.end + 2)?.try_into().ok().map(u16::from_be_bytes)?;
    (frame.get(TYPE)? == TAG_TYPE).then_some(((value >> 13) as u8, value & 0xfff))
}

fn both(namespace: &Path, port: &str) -> io::Result<(UdpSocket, OwnedFd)> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    let card = UdpSocket::bind(OURS)?;
    card.set_nonblocking(true)?;
    let port = open(namespace, &[port.to_owned()])?.swap_remove(0);
    Ok((card, port))
}

fn carry(card: &UdpSocket, port: &OwnedFd, vlan: u16, sent: &Mutex<Vec<Vec<u8>>>, stop: &AtomicBool) {
    let mut buffer = vec![0; 65536];
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(card.as_fd(), PollFlags::POLLIN), PollFd::new(port.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, LOOK);
        while let Ok(len) = card.recv(&mut buffer) {
            let mut frame = buffer[..len].to_vec();
            sent.lock().unwrap_or_else(PoisonError::into_inner).push(frame.clone());
            if tag(&frame).is_some_and(|(_, number)| number == vlan) {
                frame.drain(TYPE.start..TYPE.start + TAG_LEN);
                let _ = send(port.as_raw_fd(), &frame, MsgFlags::empty());
            }
        }
        while let Ok((len, from)) = recvfrom::<LinkAddr>(port.as_raw_fd(), &mut buffer) {
            if from.is_none_or(|from| from.pkttype() != OUTGOING) {
                // Without the machine there is no end that could take it.
                let _ = card.send_to(&tagged(finished(buffer[..len].to_vec()), Some(vlan)), QEMU);
            }
        }
    }
}

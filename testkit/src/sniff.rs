//! All frames that come in by one interface, as the kernel delivers them. tcpdump does not work
//! here: as root of a user namespace it ends, because it cannot drop privileges that it does not
//! have.

#![expect(clippy::disallowed_methods, reason = "stamps what it saw")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{LinkAddr, recvfrom};

use crate::lab::Net;
use crate::wire::{LOOK, OUTGOING, open};

/// A frame from its Ethernet header on, and the moment of its arrival.
pub type Frame = (Instant, Vec<u8>);

/// A running sniffer; it stops when dropped.
#[derive(Debug)]
pub struct Sniffer {
    frames: Arc<Mutex<Vec<Frame>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    /// Starts to capture. It misses nothing that comes after it returns.
    pub fn start(net: &Net, interface: &str) -> io::Result<Sniffer> {
        let (path, interface) = (net.path(), interface.to_owned());
        let opening = std::thread::spawn(move || open(&path, &[interface]));
        let sockets = opening.join().map_err(|_| io::Error::other("socket thread"))??;
        let (frames, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (kept, end) = (Arc::clone(&frames), Arc::clone(&stop));
        let thread = std::thread::spawn(move || sockets.iter().for_each(|socket| listen(socket, &kept, &end)));
        Ok(Sniffer { frames, stop, thread: Some(thread) })
    }

    /// The frames so far.
    pub fn frames(&self) -> Vec<Frame> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(socket: &OwnedFd, frames: &Mutex<Vec<Frame>>, stop: &AtomicBool) {
    let mut buffer = vec![0; 65536];
    while !stop.load(Ordering::Relaxed) {
        let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], LOOK);
        while let Ok((len, from)) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            if from.is_none_or(|from| from.pkttype() != OUTGOING) {
                frames.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), buffer[..len].to_vec()));
            }
        }
    }
}

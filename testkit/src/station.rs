//! A station that answers each frame as a function says: for what no ordinary program sends.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{LinkAddr, MsgFlags, recvfrom, send};

use crate::lab::Net;
use crate::wire::{LOOK, OUTGOING, open};

/// A running station; it stops when dropped.
#[derive(Debug)]
pub struct Station {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Station {
    /// For each frame that comes in by this interface, sends what `answer` makes of it; both from
    /// the Ethernet header on.
    pub fn start(
        net: &Net,
        interface: &str,
        mut answer: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> io::Result<Station> {
        let (path, interface) = (net.path(), interface.to_owned());
        let opening = std::thread::spawn(move || open(&path, &[interface]));
        let sockets = opening.join().map_err(|_| io::Error::other("socket thread"))??;
        let stop = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while !end.load(Ordering::Relaxed) {
                for socket in &sockets {
                    let _ = poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], LOOK);
                    while let Ok((len, from)) = recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
                        if from.is_some_and(|from| from.pkttype() == OUTGOING) {
                            continue;
                        }
                        for frame in answer(&buffer[..len]) {
                            // An interface without carrier: as on a real wire, the frame is lost.
                            let _ = send(socket.as_raw_fd(), &frame, MsgFlags::empty());
                        }
                    }
                }
            }
        });
        Ok(Station { stop, thread: Some(thread) })
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

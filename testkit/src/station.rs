//! A station that answers each frame as a function says. It sends what ordinary programs do not
//! send.

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
    /// Sends what `answer` returns for each frame that comes in by this interface. Both begin with
    /// the Ethernet header.
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
                            // The interface may have no carrier: the frame is lost, as on a real
                            // wire.
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

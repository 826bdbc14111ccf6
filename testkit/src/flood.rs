//! Frames that a station sends as fast as it can. In the test kit because nothing that is installed
//! everywhere does it.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, send};

use crate::lab::Net;
use crate::wire::open;

/// Sends these frames, from their Ethernet headers on, in turn by that interface until so many have
/// gone out.
pub fn flood(net: &Net, interface: &str, frames: &[Vec<u8>], number: usize) -> io::Result<()> {
    let (path, interface) = (net.path(), interface.to_owned());
    let opening = std::thread::spawn(move || open(&path, &[interface]));
    let sockets = opening.join().map_err(|_| io::Error::other("socket thread"))??;
    let mut left = number;
    for frame in frames.iter().cycle() {
        if left == 0 {
            break;
        }
        // A queue that is full is no reason to stop, and not even to wait.
        left -= usize::from(send(sockets[0].as_raw_fd(), frame, MsgFlags::empty()).is_ok());
    }
    Ok(())
}

//! Frames that a station sends as fast as it can. No program that is installed everywhere does
//! that, so the test kit does it.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, send};

use crate::lab::Net;
use crate::wire::open;

/// Sends these frames, from their Ethernet headers on, in turn by that interface, until `number` of
/// them have gone out.
pub fn flood(net: &Net, interface: &str, frames: &[Vec<u8>], number: usize) -> io::Result<()> {
    let (path, interface) = (net.path(), interface.to_owned());
    let opening = std::thread::spawn(move || open(&path, &[interface]));
    let sockets = opening.join().map_err(|_| io::Error::other("socket thread"))??;
    let mut left = number;
    for frame in frames.iter().cycle() {
        if left == 0 {
            break;
        }
        // A full queue does not stop the flood; it does not even wait.
        left -= usize::from(send(sockets[0].as_raw_fd(), frame, MsgFlags::empty()).is_ok());
    }
    Ok(())
}

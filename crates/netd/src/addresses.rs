//! This machine's addresses, IPv4 and Ethernet, and a watch that tells when they have changed.
//!
//! A shell. The kernel's messages are not decoded: after any of them the whole list is read again, so one that is lost or new
//! does no harm. Called by zcip and udhcpc.

use std::io;
use std::net::Ipv4Addr;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::ifaddrs::getifaddrs;

/// Bits of RTNLGRP_LINK (1) and RTNLGRP_IPV4_IFADDR (5) in the mask of multicast groups, rtnetlink(7).
const GROUPS: u32 = 1 << 0 | 1 << 4;
/// Room for a datagram; of a longer one the rest is lost, and nobody misses it.
const DATAGRAM: usize = 512;
/// Linux: the receive queue overflowed, which is a change too.
const ENOBUFS: i32 = 105;

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    /// Interface and address.
    pub ips: Vec<(String, Ipv4Addr)>,
    /// Of all interfaces.
    pub macs: Vec<[u8; 6]>,
}

/// Asks the kernel.
pub fn addresses() -> io::Result<OwnAddresses> {
    let mut own = OwnAddresses::default();
    for entry in getifaddrs()? {
        let Some(address) = entry.address else { continue };
        if let Some(ip) = address.as_sockaddr_in() {
            // getifaddrs gives the label, which may be an alias: eth0:1.
            let interface = entry.interface_name.split(':').next().unwrap_or_default();
            own.ips.push((interface.to_owned(), ip.ip()));
        }
        own.macs.extend(address.as_link_addr().and_then(|link| link.addr()));
    }
    Ok(own)
}

/// Tells when something has changed.
pub struct AddressWatch {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl AddressWatch {
    /// From here on. To be called inside a tokio runtime.
    pub fn open() -> io::Result<AddressWatch> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS))?;
        Ok(AddressWatch { socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Waits for a change; several that came together are one. Safe to drop and to call again.
    pub async fn changed(&mut self) -> io::Result<()> {
        self.buffer.clear();
        look(self.socket.recv_from(&mut self.buffer).await)?;
        loop {
            self.buffer.clear();
            match self.socket.socket_ref().recv_from(&mut self.buffer, 0) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                done => look(done.map(|(_, from)| from))?,
            }
        }
    }
}

fn look(received: io::Result<SocketAddr>) -> io::Result<()> {
    match received {
        Err(e) if e.raw_os_error() != Some(ENOBUFS) => Err(e),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_among_them() {
        let own = addresses().unwrap();
        assert!(own.ips.contains(&("lo".into(), Ipv4Addr::LOCALHOST)));
        assert!(own.macs.contains(&[0; 6]));
    }
}

//! This machine's addresses, IPv4 and Ethernet, and a watch that tells when they have changed.
//!
//! A shell. The kernel's messages are not decoded: after any of them the whole list is read again,
//! so one that is lost or new does no harm. Called by zcip and udhcpc.

use std::io;
use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::libc;

use crate::netlink::Watch;

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
pub struct AddressWatch(Watch);

impl AddressWatch {
    /// From here on. To be called inside a tokio runtime.
    pub fn open() -> io::Result<AddressWatch> {
        Watch::open_unread(&[libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR]).map(AddressWatch)
    }

    /// Waits for a change; several that came together are one. Safe to drop and to call again.
    pub async fn changed(&mut self) -> io::Result<()> {
        // An overrun is a change, too.
        self.0.heard().await?;
        self.0.forget()
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

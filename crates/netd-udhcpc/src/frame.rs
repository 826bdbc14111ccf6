//! IPv4 and UDP around a DHCP message, and the kernel filter that lets only our replies through.
//!
//! Pure. `build` makes a datagram for the packet socket; `parse` takes what the socket gave and
//! finds the payload, bounded by all three lengths (captured, IP, UDP). The datagrams are
//! netd_core::wire::ipv4's. Called by sockets.rs.

use std::fmt;
use std::net::Ipv4Addr;

use netd_core::wire::bpf::Op::{Byte, ByteAtX, Give, Half, HalfAtX, HeaderLen, If, Label, Unless, WordAtX};
use netd_core::wire::bpf::Test::{AnyBit, Equal};
use netd_core::wire::bpf::{DROP, Instruction, PASS, assemble};
use netd_core::wire::ipv4::{self, Damage};

/// Port of the server.
pub const SERVER_PORT: u16 = 67;
/// Port of the client.
pub const CLIENT_PORT: u16 = 68;

// Offsets for the filter: in the IP header ...
const IP_FRAGMENT: u32 = 6;
const IP_PROTOCOL: u32 = 9;
/// RFC 791 section 3.1: "more fragments", and the offset of this one.
const MORE_OR_OFFSET: u32 = 0x3fff;
// ... and behind it: the port of UDP, and where the message is.
const UDP_TO_PORT: u32 = 2;
const DHCP: u32 = ipv4::UDP_HEADER_LEN as u32;
/// RFC 2131 section 2, `op`.
const BOOTREPLY: u32 = 2;

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Less than its headers or its own lengths say.
    Short,
    /// Not IPv4, or with a header that cannot be.
    NotIpv4,
    /// A piece of a larger datagram.
    Fragment,
    /// Not UDP to port 68.
    NotDhcp,
    /// The IP header's checksum is wrong.
    IpChecksum,
    /// The UDP checksum is wrong.
    UdpChecksum,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::Short => "shorter than it says",
            FrameError::NotIpv4 => "not IPv4",
            FrameError::Fragment => "a piece of a larger one",
            FrameError::NotDhcp => "not to the DHCP client's port",
            FrameError::IpChecksum => "wrong checksum of the IP header",
            FrameError::UdpChecksum => "wrong UDP checksum",
        })
    }
}

/// A datagram from port 68 to port 67.
pub fn build(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    ipv4::udp_datagram((from, CLIENT_PORT), (to, SERVER_PORT), payload)
}

/// Who sent a DHCP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// IP source: the server or its relay.
    pub from: Ipv4Addr,
    /// The UDP payload.
    pub payload: &'a [u8],
}

/// Finds the payload. `checksum_ready` is false when the kernel says that the sender's card has yet
/// to fill it in (packet(7): TP_STATUS_CSUMNOTREADY, on veth and virtio).
pub fn parse(captured: &[u8], checksum_ready: bool) -> Result<Datagram<'_>, FrameError> {
    let datagram = ipv4::Datagram::parse(captured).map_err(|damage| match damage {
        Damage::Short => FrameError::Short,
        Damage::NotIpv4 => FrameError::NotIpv4,
        Damage::Fragment => FrameError::Fragment,
    })?;
    if datagram.protocol != ipv4::UDP {
        return Err(FrameError::NotDhcp);
    }
    if !datagram.header_is_right() {
        return Err(FrameError::IpChecksum);
    }
    let udp = datagram.udp().ok_or(FrameError::Short)?;
    // From any port: RFC 2131 section 4.1 says only where a message goes, and a relay may send from
    // a port of its own.
    if udp.to_port != CLIENT_PORT {
        return Err(FrameError::NotDhcp);
    }
    if checksum_ready && !udp.is_right {
        return Err(FrameError::UdpChecksum);
    }
    Ok(Datagram { from: datagram.from, payload: udp.payload })
}

/// The filter for a SOCK_DGRAM packet socket (offsets from the IP header): UDP, no fragment, to
/// port 68, a BOOTREPLY, for our chaddr. Other stations' broadcasts do not wake us.
pub fn filter(mac: [u8; 6]) -> Vec<Instruction> {
    let [a, b, c, d, e, f] = mac;
    const CHADDR: u32 = DHCP + 28;
    assemble(&[
        Byte(IP_PROTOCOL),
        Unless(Equal(ipv4::UDP.into()), "drop"),
        Half(IP_FRAGMENT),
        If(AnyBit(MORE_OR_OFFSET), "drop"),
        HeaderLen(0),
        HalfAtX(UDP_TO_PORT),
        Unless(Equal(CLIENT_PORT.into()), "drop"),
        ByteAtX(DHCP),
        Unless(Equal(BOOTREPLY), "drop"),
        WordAtX(CHADDR),
        Unless(Equal(u32::from_be_bytes([a, b, c, d])), "drop"),
        HalfAtX(CHADDR + 4),
        Unless(Equal(u16::from_be_bytes([e, f]).into()), "drop"),
        Give(PASS),
        Label("drop"),
        Give(DROP),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use netd_core::wire::bpf;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn the_filter_passes_replies_for_our_mac_alone() {
        let mut message = [0; 300];
        message[0] = 2;
        message[28..34].copy_from_slice(&MAC);
        let (server, us) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
        let reply = ipv4::udp_datagram((server, SERVER_PORT), (us, CLIENT_PORT), &message);
        let passes = |frame: &[u8]| bpf::run(&filter(MAC), bpf::frame(frame)) != DROP;
        assert!(passes(&reply));
        let mut options = reply.clone();
        options[0] = 0x46;
        options.splice(20..20, [1; 4]);
        assert!(passes(&options), "behind a header with options");
        // Protocol, "more fragments", the offset, the port, `op`, the first and the last byte of
        // chaddr.
        for (at, flip) in [(9, 1), (6, 0x20), (7, 1), (23, 1), (28, 3), (56, 1), (61, 1)] {
            let mut other = reply.clone();
            other[at] ^= flip;
            assert!(!passes(&other), "byte {at}");
        }
        assert!(!passes(&reply[..61]), "cut inside of chaddr");
    }
}

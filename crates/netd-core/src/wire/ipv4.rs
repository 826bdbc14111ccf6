//! IPv4 and the UDP in it (RFC 791, RFC 768): a datagram's parts, and a datagram around a payload.
//!
//! pnet_packet reads and writes the fields and adds up the checksums (RFC 1071). It believes every
//! length that a packet claims and cuts silently what is missing, so the bounds are checked here
//! first. Called by udhcpc's frame.rs and the pinger's icmp.rs.

use std::net::Ipv4Addr;

use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::{self, Ipv4Flags, Ipv4Packet, MutableIpv4Packet};
use pnet_packet::udp::{self, MutableUdpPacket, UdpPacket};
use pnet_packet::util;

/// Length of a header without options.
pub const HEADER_LEN: usize = 20;
/// Length of the header of UDP.
pub const UDP_HEADER_LEN: usize = 8;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;

/// The version of IPv4.
const VERSION: u8 = 4;
/// RFC 1700's default.
const TTL: u8 = 64;
/// No word is left out of the sum: a packet that holds its own checksum adds up to 0.
const NO_WORD: usize = usize::MAX;

/// Why a packet is no datagram that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Fewer bytes were captured than the headers and their lengths say.
    Short,
    /// The version is another one, or the header is shorter than a header can be.
    NotIpv4,
    /// It is a piece of a larger datagram.
    Fragment,
}

/// A whole datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Source.
    pub from: Ipv4Addr,
    /// Destination.
    pub to: Ipv4Addr,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// The header with its options.
    header: &'a [u8],
    /// What is behind the header, as long as the header says.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Finds the parts. More captured bytes than the header speaks of are padding (Ethernet pads
    /// short frames); fewer are [`Damage::Short`] (CVE-2015-8605).
    pub fn parse(captured: &'a [u8]) -> Result<Datagram<'a>, Damage> {
        let packet = Ipv4Packet::new(captured).ok_or(Damage::Short)?;
        // RFC 791 section 3.1: the length is in words of 4 bytes.
        let header_len = usize::from(packet.get_header_length()) * 4;
        if packet.get_version() != VERSION || header_len < HEADER_LEN {
            return Err(Damage::NotIpv4);
        }
        let header = captured.get(..header_len).ok_or(Damage::Short)?;
        let payload = captured.get(header_len..usize::from(packet.get_total_length())).ok_or(Damage::Short)?;
        if packet.get_flags() & Ipv4Flags::MoreFragments != 0 || packet.get_fragment_offset() != 0 {
            return Err(Damage::Fragment);
        }
        let IpNextHeaderProtocol(protocol) = packet.get_next_level_protocol();
        Ok(Datagram { from: packet.get_source(), to: packet.get_destination(), protocol, header, payload })
    }

    /// Whether the checksum of the header is right.
    pub fn header_is_right(&self) -> bool {
        util::checksum(self.header, NO_WORD) == 0
    }

    /// The UDP datagram in the payload; `None` where its own length is more than the payload, or
    /// less than its header.
    pub fn udp(&self) -> Option<Udp<'a>> {
        let packet = UdpPacket::new(self.payload)?;
        let whole = self.payload.get(..usize::from(packet.get_length()))?;
        let payload = whole.get(UDP_HEADER_LEN..)?;
        let sum = || util::ipv4_checksum(whole, NO_WORD, &[], &self.from, &self.to, IpNextHeaderProtocols::Udp);
        // RFC 768: zero says that the sender made no checksum.
        let is_right = packet.get_checksum() == 0 || sum() == 0;
        Some(Udp { from_port: packet.get_source(), to_port: packet.get_destination(), is_right, payload })
    }
}

/// A UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp<'a> {
    /// Source port.
    pub from_port: u16,
    /// Destination port.
    pub to_port: u16,
    /// The checksum is right, or there is none.
    pub is_right: bool,
    /// What is behind the header, as long as the header says.
    pub payload: &'a [u8],
}

/// An IPv4 datagram with UDP in it, with both checksums. The payload is a message of ours, far
/// shorter than 64 KiB.
pub fn udp_datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut inner = [&[0; UDP_HEADER_LEN], payload].concat();
    let udp_len = u16::try_from(inner.len()).unwrap_or(u16::MAX);
    if let Some(mut packet) = MutableUdpPacket::new(&mut inner) {
        packet.set_source(from.1);
        packet.set_destination(to.1);
        packet.set_length(udp_len);
        packet.set_checksum(match udp::ipv4_checksum(&packet.to_immutable(), &from.0, &to.0) {
            // RFC 768: a sum of zero is sent as all ones.
            0 => u16::MAX,
            sum => sum,
        });
    }
    let mut header = [0; HEADER_LEN];
    if let Some(mut packet) = MutableIpv4Packet::new(&mut header) {
        packet.set_version(VERSION);
        packet.set_header_length((HEADER_LEN / 4) as u8);
        packet.set_total_length(udp_len.saturating_add(HEADER_LEN as u16));
        packet.set_ttl(TTL);
        packet.set_next_level_protocol(IpNextHeaderProtocols::Udp);
        packet.set_source(from.0);
        packet.set_destination(to.0);
        packet.set_checksum(ipv4::checksum(&packet.to_immutable()));
    }
    [&header, inner.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use pnet_packet::Packet;

    use super::*;

    const FROM: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 67);
    const TO: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 100), 68);

    /// Why the bounds are ours: pnet_packet has no word for a packet that is shorter than it says.
    #[test]
    fn a_datagram_that_lost_its_end_is_short_where_pnet_gives_what_is_left() {
        let whole = udp_datagram(FROM, TO, b"payload");
        let cut = &whole[..whole.len() - 3];
        assert_eq!(Ipv4Packet::new(cut).unwrap().payload().len(), UDP_HEADER_LEN + 4);
        assert_eq!(Datagram::parse(cut), Err(Damage::Short));

        let mut long = whole.clone();
        long[HEADER_LEN + 5] += 1;
        assert_eq!(UdpPacket::new(&long[HEADER_LEN..]).unwrap().payload(), b"payload");
        assert_eq!(Datagram::parse(&long).unwrap().udp(), None, "UDP's length is beyond IP's");

        let mut short = whole;
        short[0] = 0x41;
        assert_eq!(Ipv4Packet::new(&short).unwrap().get_header_length(), 1, "shorter than a header can be");
        assert_eq!(Datagram::parse(&short), Err(Damage::NotIpv4));
    }

    /// By hand, as RFC 1071 section 4.1 does it, over every length and every odd byte.
    #[test]
    fn pnets_checksum_is_rfc_1071s() {
        let by_hand = |bytes: &[u8]| {
            let words = bytes.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c.get(1).copied().unwrap_or(0)));
            let mut sum: u32 = words.sum();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            !(sum as u16)
        };
        // RFC 1071 section 3: 00 01 f2 03 f4 f5 f6 f7 adds up to ddf2.
        assert_eq!(util::checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7], NO_WORD), !0xddf2);
        for len in 1..600 {
            for byte in [1, 0x7f, 0xff] {
                let bytes: Vec<u8> = (0..len).map(|at| (at as u8).wrapping_mul(byte)).collect();
                assert_eq!(util::checksum(&bytes, NO_WORD), by_hand(&bytes), "{len} {byte}");
            }
        }
    }

    #[test]
    fn what_is_built_is_read_and_each_damaged_byte_is_seen() {
        for payload in [&b""[..], b"x", b"payload", &[0xff; 548]] {
            let good = udp_datagram(FROM, TO, payload);
            let datagram = Datagram::parse(&good).unwrap();
            assert_eq!((datagram.from, datagram.to, datagram.protocol), (FROM.0, TO.0, UDP));
            assert!(datagram.header_is_right());
            let udp = datagram.udp().unwrap();
            assert_eq!(udp, Udp { from_port: FROM.1, to_port: TO.1, is_right: true, payload });
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 1;
                let accepted = Datagram::parse(&bad).ok().filter(Datagram::header_is_right).and_then(|d| d.udp());
                assert!(!accepted.is_some_and(|udp| udp.is_right), "byte {at}");
            }
        }
    }

    #[test]
    fn a_sum_of_zero_is_sent_as_all_ones() {
        // The payload that makes it so: the sum over all else.
        let without = udp_datagram(FROM, TO, &[0, 0]);
        let sum = [without[HEADER_LEN + 6], without[HEADER_LEN + 7]];
        let zero = udp_datagram(FROM, TO, &sum);
        assert_eq!(zero[HEADER_LEN + 6..HEADER_LEN + 8], [0xff, 0xff]);
        assert!(Datagram::parse(&zero).unwrap().udp().unwrap().is_right);
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics() {
        let mut good = udp_datagram(FROM, TO, b"payload");
        good.splice(HEADER_LEN..HEADER_LEN, [1; 40]);
        good[0] = 0x4f;
        for cut in 0..=good.len() {
            for at in 0..cut {
                for flip in [1, 0x80, 0xff] {
                    let mut bytes = good[..cut].to_vec();
                    bytes[at] ^= flip;
                    if let Ok(datagram) = Datagram::parse(&bytes) {
                        let _ = (datagram.header_is_right(), datagram.udp());
                    }
                }
            }
        }
    }
}

//! An IPv4 datagram with UDP in it, built with pnet_packet, for the answers of a rogue.

use std::net::Ipv4Addr;

use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::{self, MutableIpv4Packet};
use pnet_packet::udp::{self, MutableUdpPacket};

/// Builds a datagram from an address and port to an address and port, with both checksums.
pub fn udp_datagram(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let (ip_len, udp_len) = (MutableIpv4Packet::minimum_packet_size(), MutableUdpPacket::minimum_packet_size());
    let mut bytes = vec![0; ip_len + udp_len + payload.len()];
    let total = u16::try_from(bytes.len()).expect("a payload that fits");
    let (head, inner) = bytes.split_at_mut(ip_len);
    let mut packet = MutableUdpPacket::new(inner).expect("room for a header");
    packet.set_source(from.1);
    packet.set_destination(to.1);
    packet.set_length(total - ip_len as u16);
    packet.set_payload(payload);
    packet.set_checksum(udp::ipv4_checksum(&packet.to_immutable(), &from.0, &to.0));
    let mut packet = MutableIpv4Packet::new(head).expect("room for a header");
    packet.set_version(4);
    packet.set_header_length((ip_len / 4) as u8);
    packet.set_total_length(total);
    packet.set_ttl(64);
    packet.set_next_level_protocol(IpNextHeaderProtocols::Udp);
    packet.set_source(from.0);
    packet.set_destination(to.0);
    packet.set_checksum(ipv4::checksum(&packet.to_immutable()));
    bytes
}

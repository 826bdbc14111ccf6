//! IPv4 and UDP around a DHCP message, and the kernel filter that lets only our replies through.
//!
//! Pure. `build` makes a datagram for the packet socket; `parse` takes what the socket gave and finds the payload,
//! bounded by all three lengths (captured, IP, UDP). Called by daemon.rs. Layouts: RFC 791, RFC 768.

use std::net::Ipv4Addr;

use netd_core::wire::bpf::Instruction;

/// Port of the server.
pub const SERVER_PORT: u16 = 67;
/// Port of the client.
pub const CLIENT_PORT: u16 = 68;
const IP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const PROTO_UDP: u8 = 17;
const TTL: u8 = 64;

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

/// A datagram from port 68 to port 67.
pub fn build(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(UDP_HEADER + payload.len()).unwrap_or(u16::MAX);
    let total = udp_len.saturating_add(IP_HEADER as u16);
    let mut ip = Vec::with_capacity(usize::from(total));
    ip.extend([0x45, 0]);
    ip.extend(total.to_be_bytes());
    ip.extend([0, 0, 0, 0, TTL, PROTO_UDP]);
    let tail = [from.octets(), to.octets()].concat();
    let sum = checksum([ip.as_slice(), &[0, 0], &tail]);
    ip.extend(sum.to_be_bytes());
    ip.extend(&tail);
    let mut udp = Vec::with_capacity(UDP_HEADER);
    udp.extend(CLIENT_PORT.to_be_bytes());
    udp.extend(SERVER_PORT.to_be_bytes());
    udp.extend(udp_len.to_be_bytes());
    let sum = match checksum([&pseudo(from, to, udp_len), &udp, payload]) {
        0 => u16::MAX, // RFC 768: zero on the wire means that there is none
        sum => sum,
    };
    ip.extend(&udp);
    ip.extend(sum.to_be_bytes());
    ip.extend(payload);
    ip
}

/// Who sent a DHCP payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// IP source: the server or its relay.
    pub from: Ipv4Addr,
    /// The UDP payload.
    pub payload: &'a [u8],
}

/// Finds the payload. `checksum_ready` is false when the kernel says that the sender's card has yet to fill it in
/// (packet(7): TP_STATUS_CSUMNOTREADY, on veth and virtio).
pub fn parse(captured: &[u8], checksum_ready: bool) -> Result<Datagram<'_>, FrameError> {
    let first = *captured.first().ok_or(FrameError::Short)?;
    let header_len = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_len < IP_HEADER {
        return Err(FrameError::NotIpv4);
    }
    let header = captured.get(..header_len).ok_or(FrameError::Short)?;
    let total = usize::from(be16(header, 2));
    // Ethernet pads short frames: more captured than the IP length is fine, less is not (CVE-2015-8605).
    let udp = captured.get(header_len..total).ok_or(FrameError::Short)?;
    if be16(header, 6) & 0x3fff != 0 {
        return Err(FrameError::Fragment);
    }
    if header.get(9) != Some(&PROTO_UDP) {
        return Err(FrameError::NotDhcp);
    }
    if checksum([header, &[], &[]]) != 0 {
        return Err(FrameError::IpChecksum);
    }
    let (udp_header, _) = udp.split_at_checked(UDP_HEADER).ok_or(FrameError::Short)?;
    // From any port: RFC 2131 section 4.1 says only where a message goes, and a relay may send from a port of its own.
    if be16(udp_header, 2) != CLIENT_PORT {
        return Err(FrameError::NotDhcp);
    }
    let udp_len = be16(udp_header, 4);
    let payload = udp.get(UDP_HEADER..usize::from(udp_len)).ok_or(FrameError::Short)?;
    let from = address(header, 12);
    let covered = udp.get(..usize::from(udp_len)).ok_or(FrameError::Short)?;
    if checksum_ready
        && be16(udp_header, 6) != 0
        && checksum([&pseudo(from, address(header, 16), udp_len), covered, &[]]) != 0
    {
        return Err(FrameError::UdpChecksum);
    }
    Ok(Datagram { from, payload })
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_be_bytes)
}

fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).unwrap_or_default().into()
}

fn pseudo(from: Ipv4Addr, to: Ipv4Addr, udp_len: u16) -> [u8; 12] {
    let [a, b, c, d] = from.octets();
    let [e, f, g, h] = to.octets();
    let [hi, lo] = udp_len.to_be_bytes();
    [a, b, c, d, e, f, g, h, 0, PROTO_UDP, hi, lo]
}

/// RFC 1071 over parts; every part but the last has an even length.
fn checksum(parts: [&[u8]; 3]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let word = match pair {
                [hi, lo] => u16::from_be_bytes([*hi, *lo]),
                [hi] => u16::from_be_bytes([*hi, 0]),
                _ => 0,
            };
            sum += u32::from(word);
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Classic BPF for a SOCK_DGRAM packet socket (offsets from the IP header): UDP, no fragment, to port 68, a
/// BOOTREPLY, for our chaddr. Other stations' broadcasts do not wake us.
pub fn filter(mac: [u8; 6]) -> Vec<Instruction> {
    let [a, b, c, d, e, f] = mac;
    let high = u32::from_be_bytes([a, b, c, d]);
    let low = u32::from(u16::from_be_bytes([e, f]));
    // Codes: linux/bpf_common.h. LDX MSH takes the header length; IND loads are relative to it.
    const LD_B_ABS: u16 = 0x30;
    const LD_H_ABS: u16 = 0x28;
    const LDX_MSH: u16 = 0xb1;
    const LD_W_IND: u16 = 0x40;
    const LD_H_IND: u16 = 0x48;
    const LD_B_IND: u16 = 0x50;
    const JEQ: u16 = 0x15;
    const JSET: u16 = 0x45;
    const RET: u16 = 0x06;
    let op = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let udp = UDP_HEADER as u32;
    vec![
        op(LD_B_ABS, 0, 0, 9),
        op(JEQ, 0, 12, u32::from(PROTO_UDP)),
        op(LD_H_ABS, 0, 0, 6),
        op(JSET, 10, 0, 0x3fff),
        op(LDX_MSH, 0, 0, 0),
        op(LD_H_IND, 0, 0, 2),
        op(JEQ, 0, 7, u32::from(CLIENT_PORT)),
        op(LD_B_IND, 0, 0, udp),
        op(JEQ, 0, 5, 2),
        op(LD_W_IND, 0, 0, udp + 28),
        op(JEQ, 0, 3, high),
        op(LD_H_IND, 0, 0, udp + 32),
        op(JEQ, 0, 1, low),
        op(RET, 0, 0, u32::MAX),
        op(RET, 0, 0, 0),
    ]
}

//! The frames of a DHCP client as the other end of the cable receives them: every byte that a
//! server or a relay could act on.

use std::net::Ipv4Addr;
use std::time::Instant;

use testkit::dhcpd::{Decodable, Decoder, Message};
use testkit::sniff::Sniffer;
use testkit::{Net, wait_until};

use crate::dhcp::SOON;

/// Option 53.
pub(crate) const DISCOVER: u8 = 1;
pub(crate) const REQUEST: u8 = 3;
pub(crate) const DECLINE: u8 = 4;
pub(crate) const RELEASE: u8 = 7;
/// RFC 1542 section 2.1: udhcpc pads each message to at least this length.
const LEAST: usize = 300;

/// One DHCP packet of a client on the wire, with everything that a server or a relay could see of
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Ethernet destination.
    pub(crate) to: Vec<u8>,
    /// IPv4: version and header length, type of service, flags and fragment offset.
    pub(crate) ip: [u8; 4],
    pub(crate) ttl: u8,
    /// Source and destination with their ports.
    pub(crate) path: [(Ipv4Addr, u16); 2],
    /// The BOOTP fields up to xid, then those from flags to the cookie. `secs` is left out.
    pub(crate) head: Vec<u8>,
    pub(crate) secs: u16,
    pub(crate) fields: Vec<u8>,
    /// Options in the order of the wire.
    pub(crate) options: Vec<(u8, Vec<u8>)>,
    /// Length of the whole message. Above the minimum, the version in option 60 does not count.
    pub(crate) len: usize,
}

impl Packet {
    /// Parses a frame that goes to a server. It leaves out the IP identification and checksums, xid
    /// (compat 120), and the version in option 60.
    pub(crate) fn parse(frame: &[u8]) -> Option<Packet> {
        let ip = frame.get(14..).filter(|ip| frame[12..14] == [8, 0] && ip.len() >= 28 && ip[9] == 17)?;
        let udp = &ip[usize::from(ip[0] & 15) * 4..usize::from(u16::from_be_bytes([ip[2], ip[3]]))];
        let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        if port(2) != 67 {
            return None;
        }
        assert_eq!(usize::from(port(4)), udp.len(), "UDP length");
        let bootp = &udp[8..];
        // A decoder that is not ours must read it, too.
        Message::decode(&mut Decoder::new(bootp)).expect("DHCP");
        let (mut options, mut rest, mut len) = (Vec::new(), &bootp[240..], bootp.len());
        while rest[0] != 255 {
            let (mut data, next) = rest[2..].split_at(usize::from(rest[1]));
            if rest[0] == 60 && data.starts_with(b"udhcp ") {
                len -= if len > LEAST { data.len() } else { 0 };
                data = b"udhcp";
            }
            options.push((rest[0], data.to_vec()));
            rest = next;
        }
        assert!(rest[1..].iter().all(|b| *b == 0), "padding");
        Some(Packet {
            to: frame[..6].to_vec(),
            ip: [ip[0], ip[1], ip[6], ip[7]],
            ttl: ip[8],
            path: [(address(12), port(0)), (address(16), port(2))],
            head: bootp[..4].to_vec(),
            secs: u16::from_be_bytes([bootp[8], bootp[9]]),
            fields: bootp[10..240].to_vec(),
            options,
            len,
        })
    }

    /// Whether it is a REQUEST with ciaddr.
    pub(crate) fn is_renewal(&self) -> bool {
        self.kind() == REQUEST && self.fields[2..6] != [0; 4]
    }

    pub(crate) fn kind(&self) -> u8 {
        self.options.iter().find(|(code, _)| *code == 53).map_or(0, |(_, data)| data[0])
    }
}

/// Captures what arrives at the server's end of the cable.
pub(crate) struct Capture(Sniffer);

impl Capture {
    pub(crate) fn start(net: &Net) -> Capture {
        Capture(Sniffer::start(net, "lan").unwrap())
    }

    /// All packets so far.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        self.0.frames().iter().filter_map(|(_, frame)| Packet::parse(frame)).collect()
    }

    /// When each packet arrived.
    pub(crate) fn times(&self) -> Vec<Instant> {
        self.0.frames().iter().filter(|(_, frame)| Packet::parse(frame).is_some()).map(|(at, _)| *at).collect()
    }

    /// Waits for a packet of this type (option 53) after the first `after` ones.
    pub(crate) fn wait(&self, kind: u8, after: usize) {
        wait_until(&format!("a packet of type {kind}"), SOON, || {
            self.packets().iter().skip(after).any(|p| p.kind() == kind)
        });
    }
}

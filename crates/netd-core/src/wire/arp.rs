//! ARP for IPv4 over Ethernet (RFC 826): the 28 bytes, and what RFC 5227 calls a probe and an
//! announcement.
//!
//! Pure. Frames come from the wire, so nothing is believed: a frame of another shape is no ARP of
//! ours. Used by acd.rs, zcip and the pinger.

use std::net::Ipv4Addr;

use pnet_packet::arp::{ArpHardwareTypes, ArpOperations, ArpPacket, MutableArpPacket};
use pnet_packet::ethernet::EtherTypes;

use crate::wire::bpf::Op::{Give, Half, If, Label, Unless, Word};
use crate::wire::bpf::Test::Equal;
use crate::wire::bpf::{DROP, Instruction, PASS, assemble};

/// ETH_P_ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Length of the message in bytes.
pub const LEN: usize = 28;
/// Length of an Ethernet address in bytes.
const MAC_LEN: u8 = 6;
/// Length of an IPv4 address in bytes.
const IP_LEN: u8 = 4;
/// Hardware type 1 (Ethernet), protocol type 0x0800 (IPv4), the lengths of both addresses: RFC 826.
const HEAD: [u8; 6] = [0, 1, 8, 0, MAC_LEN, IP_LEN];
/// Offsets for the filters.
const OPERATION: u32 = 6;
const SENDER_IP: u32 = 14;
const TARGET_IP: u32 = 24;

/// Request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// 1
    Request,
    /// 2
    Reply,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Bytes 6..8.
    pub operation: Operation,
    /// Bytes 8..14.
    pub sender_mac: [u8; 6],
    /// Bytes 14..18; 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// Bytes 18..24; zero in a request.
    pub target_mac: [u8; 6],
    /// Bytes 24..28.
    pub target_ip: Ipv4Addr,
}

impl Arp {
    /// RFC 5227 section 1.1: "is this address in use?", which claims nothing.
    pub fn probe(mac: [u8; 6], ip: Ipv4Addr) -> Arp {
        Arp::request(mac, Ipv4Addr::UNSPECIFIED, ip)
    }

    /// RFC 5227 section 1.1: "this is mine".
    pub fn announcement(mac: [u8; 6], ip: Ipv4Addr) -> Arp {
        Arp::request(mac, ip, ip)
    }

    /// "Who has `target`? Tell `ip`."
    pub fn request(mac: [u8; 6], ip: Ipv4Addr, target: Ipv4Addr) -> Arp {
        Arp { operation: Operation::Request, sender_mac: mac, sender_ip: ip, target_mac: [0; 6], target_ip: target }
    }

    /// The bytes behind the Ethernet header.
    pub fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        if let Some(mut packet) = MutableArpPacket::new(&mut bytes) {
            packet.set_hardware_type(ArpHardwareTypes::Ethernet);
            packet.set_protocol_type(EtherTypes::Ipv4);
            packet.set_hw_addr_len(MAC_LEN);
            packet.set_proto_addr_len(IP_LEN);
            packet.set_operation(match self.operation {
                Operation::Request => ArpOperations::Request,
                Operation::Reply => ArpOperations::Reply,
            });
            packet.set_sender_hw_addr(self.sender_mac.into());
            packet.set_sender_proto_addr(self.sender_ip);
            packet.set_target_hw_addr(self.target_mac.into());
            packet.set_target_proto_addr(self.target_ip);
        }
        bytes
    }

    /// Reads the bytes behind the Ethernet header; padding may follow them. `None`: the message is
    /// no request or reply for IPv4 over Ethernet, or its sender is a group address, which RFC 826
    /// does not know. pnet_packet looks at neither the types nor the lengths.
    pub fn decode(bytes: &[u8]) -> Option<Arp> {
        let packet = ArpPacket::new(bytes)?;
        let operation = match packet.get_operation() {
            ArpOperations::Request => Operation::Request,
            ArpOperations::Reply => Operation::Reply,
            _ => return None,
        };
        let sender_mac = packet.get_sender_hw_addr();
        if !bytes.starts_with(&HEAD) || sender_mac.is_multicast() {
            return None;
        }
        Some(Arp {
            operation,
            sender_mac: sender_mac.octets(),
            sender_ip: packet.get_sender_proto_addr(),
            target_mac: packet.get_target_hw_addr().octets(),
            target_ip: packet.get_target_proto_addr(),
        })
    }

    /// [`Arp::decode`] of what came in a frame from `source`; `unicast`: to our Ethernet address
    /// alone. `None` as well for what looks like a probe and is none. RFC 5227 section 1.1: a probe
    /// is broadcast, and by the station whose address it bears. Switches that track devices send
    /// something else: to one station, or in the name of a station that does not exist.
    pub fn heard(bytes: &[u8], source: [u8; 6], unicast: bool) -> Option<Arp> {
        Arp::decode(bytes).filter(|arp| !arp.is_probe() || (arp.sender_mac == source && !unicast))
    }

    fn is_probe(&self) -> bool {
        self.operation == Operation::Request && self.sender_ip.is_unspecified()
    }

    /// RFC 5227 section 2.1.1: whether the message speaks against the use of `ip` by `mac`: another
    /// station has the address, or is about to take it.
    pub fn conflicts_while_probing(&self, mac: [u8; 6], ip: Ipv4Addr) -> bool {
        let probed = self.is_probe() && self.target_ip == ip;
        self.sender_mac != mac && (self.sender_ip == ip || probed)
    }

    /// RFC 5227 section 2.4: another station uses our address. A probe is only answered.
    pub fn conflicts_in_use(&self, mac: [u8; 6], ip: Ipv4Addr) -> bool {
        self.sender_mac != mac && self.sender_ip == ip
    }
}

/// Lets only ARP through that concerns `ip`: what its owner says, and probes for it. A host with a
/// watched address sleeps through all else. Offsets are from the ARP header on.
pub fn filter(ip: Ipv4Addr) -> Vec<Instruction> {
    filter_with(ip, ip)
}

/// Lets only the replies of `ip` through. `ip` may ask for every host of a network, and its
/// requests do not concern this host.
pub fn replies_of(ip: Ipv4Addr) -> Vec<Instruction> {
    assemble(&[
        Half(OPERATION),
        Unless(Equal(u32::from(ArpOperations::Reply.0)), "drop"),
        Word(SENDER_IP),
        Unless(Equal(ip.into()), "drop"),
        Give(PASS),
        Label("drop"),
        Give(DROP),
    ])
}

/// As [`filter`], and also what the owner of `also` says.
pub fn filter_with(ip: Ipv4Addr, also: Ipv4Addr) -> Vec<Instruction> {
    let [a, b, c, d, e, f] = HEAD;
    assemble(&[
        Word(0),
        Unless(Equal(u32::from_be_bytes([a, b, c, d])), "drop"),
        Half(4),
        Unless(Equal(u32::from(u16::from_be_bytes([e, f]))), "drop"),
        Word(SENDER_IP),
        If(Equal(ip.into()), "pass"),
        If(Equal(also.into()), "pass"),
        // A probe has no sender's address.
        Unless(Equal(0), "drop"),
        Word(TARGET_IP),
        Unless(Equal(ip.into()), "drop"),
        Label("pass"),
        Give(PASS),
        Label("drop"),
        Give(DROP),
    ])
}

/// Lets nothing through.
pub fn deaf() -> Vec<Instruction> {
    assemble(&[Give(DROP)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bpf;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[test]
    fn what_tcpdump_saw_reads_back() {
        // `arping -c1 -I v0 10.1.0.2` from 10.1.0.1, captured with tcpdump -x.
        let bytes = [
            0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01, 0xca, 0xfe, 0x00, 0x00, 0x00, 0x01, 0x0a, 0x01, 0x00, 0x01,
            0, 0, 0, 0, 0, 0, 0x0a, 0x01, 0x00, 0x02,
        ];
        let arp = Arp::request([0xca, 0xfe, 0, 0, 0, 1], Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2));
        assert_eq!(Arp::decode(&bytes), Some(arp));
        assert_eq!(arp.encode(), bytes);
        // Ethernet pads to 46 bytes.
        assert_eq!(Arp::decode(&[&bytes[..], &[0; 18]].concat()), Some(arp));
    }

    #[test]
    fn another_shape_is_none_of_ours() {
        let good = Arp::announcement(MAC, IP).encode();
        for cut in 0..LEN {
            assert_eq!(Arp::decode(&good[..cut]), None, "{cut}");
        }
        // Hardware, protocol, lengths, operation, a group address as the sender.
        for (at, value) in [(1, 6), (2, 0x86), (4, 8), (5, 16), (7, 0), (7, 3), (6, 1), (8, 1), (8, 0xff)] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Arp::decode(&bad), None, "byte {at} = {value}");
        }
    }

    fn passes(filter: &[Instruction], bytes: &[u8]) -> bool {
        bpf::run(filter, bpf::frame(bytes)) != DROP
    }

    #[test]
    fn the_filter_passes_exactly_what_can_be_a_conflict() {
        let elsewhere = Ipv4Addr::new(10, 0, 0, 9);
        for (arp, pass) in [
            (Arp::announcement(OTHER, IP), true),
            (Arp::request(OTHER, IP, elsewhere), true),
            (Arp::probe(OTHER, IP), true),
            (Arp::probe(OTHER, elsewhere), false),
            (Arp::request(OTHER, elsewhere, IP), false),
            (Arp::announcement(OTHER, elsewhere), false),
        ] {
            let frame = arp.encode();
            assert_eq!(passes(&filter(IP), &frame), pass, "{arp:?}");
            assert!(!passes(&deaf(), &frame));
            for at in [1, 2, 4, 5] {
                let mut bad = frame;
                bad[at] ^= 0x10;
                assert!(!passes(&filter(IP), &bad), "byte {at}");
            }
        }
    }

    #[test]
    fn the_filter_for_replies_passes_what_its_station_answers_and_not_what_it_asks() {
        let reply = |ip| Arp { operation: Operation::Reply, ..Arp::announcement(OTHER, ip) };
        for (arp, pass) in
            [(reply(IP), true), (reply(Ipv4Addr::new(10, 0, 0, 9)), false), (Arp::announcement(OTHER, IP), false)]
        {
            assert_eq!(passes(&replies_of(IP), &arp.encode()), pass, "{arp:?}");
        }
    }

    #[test]
    fn who_speaks_against_an_address() {
        let reply = Arp {
            operation: Operation::Reply,
            sender_mac: OTHER,
            sender_ip: IP,
            target_mac: MAC,
            target_ip: Ipv4Addr::UNSPECIFIED,
        };
        for (arp, probing, using) in [
            (Arp::probe(MAC, IP), false, false),
            (Arp::announcement(MAC, IP), false, false),
            (reply, true, true),
            (Arp::announcement(OTHER, IP), true, true),
            (Arp::probe(OTHER, IP), true, false),
            (Arp::request(OTHER, Ipv4Addr::new(10, 0, 0, 9), IP), false, false),
            (Arp { operation: Operation::Reply, ..Arp::probe(OTHER, IP) }, false, false),
        ] {
            assert_eq!(arp.conflicts_while_probing(MAC, IP), probing, "{arp:?}");
            assert_eq!(arp.conflicts_in_use(MAC, IP), using, "{arp:?}");
        }
    }

    #[test]
    fn what_a_switch_sends_to_track_its_devices_is_no_probe() {
        let heard = |arp: Arp, source, unicast| Arp::heard(&arp.encode(), source, unicast) == Some(arp);
        let probe = Arp::probe(OTHER, IP);
        assert!(heard(probe, OTHER, false));
        assert!(!heard(probe, OTHER, true), "to us alone");
        assert!(!heard(probe, [0, 0xbe, 0x75, 1, 2, 3], false), "in another station's name");
        // What claims an address is heard, whatever is odd about it: a repeater puts its own
        // address on a frame.
        let reply = Arp { operation: Operation::Reply, ..Arp::announcement(OTHER, IP) };
        for claim in [reply, Arp::announcement(OTHER, IP), Arp::request(OTHER, IP, Ipv4Addr::new(10, 0, 0, 9))] {
            for (source, unicast) in [(OTHER, true), (MAC, false), (MAC, true)] {
                assert!(heard(claim, source, unicast), "{claim:?}");
            }
        }
    }
}

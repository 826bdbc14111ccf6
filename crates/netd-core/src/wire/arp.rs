//! ARP for IPv4 over Ethernet (RFC 826): the 28 bytes, and what RFC 5227 calls a probe and an announcement.
//!
//! Pure. Frames come from the wire, so nothing is believed: a frame of another shape is no ARP of ours. Used by acd.rs, zcip and
//! the pinger.

use std::net::Ipv4Addr;

use crate::wire::bpf::Instruction;

/// ETH_P_ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// Length of the message in bytes.
pub const LEN: usize = 28;
/// Hardware type 1 (Ethernet), protocol type 0x0800 (IPv4), address lengths 6 and 4: RFC 826.
const HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

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
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let fields = HEAD.into_iter().chain(operation.to_be_bytes());
        let sender = self.sender_mac.into_iter().chain(self.sender_ip.octets());
        let target = self.target_mac.into_iter().chain(self.target_ip.octets());
        let mut bytes = [0; LEN];
        for (to, from) in bytes.iter_mut().zip(fields.chain(sender).chain(target)) {
            *to = from;
        }
        bytes
    }

    /// Reads the bytes behind the Ethernet header; padding may follow them. `None`: not a request or reply for IPv4 over Ethernet, or
    /// a sender that no station can be (a group address, RFC 826 knows none).
    pub fn decode(bytes: &[u8]) -> Option<Arp> {
        let (head, rest) = bytes.split_first_chunk::<6>()?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender_mac, rest) = rest.split_first_chunk::<6>()?;
        let (sender_ip, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk::<6>()?;
        let (target_ip, _) = rest.split_first_chunk::<4>()?;
        let operation = match u16::from_be_bytes(*operation) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        let [first, ..] = sender_mac;
        if *head != HEAD || first & 1 == 1 {
            return None;
        }
        Some(Arp {
            operation,
            sender_mac: *sender_mac,
            sender_ip: Ipv4Addr::from(*sender_ip),
            target_mac: *target_mac,
            target_ip: Ipv4Addr::from(*target_ip),
        })
    }

    /// RFC 5227 section 2.1.1: whether it speaks against the use of `ip` by `mac`: somebody else has it, or is about to take it.
    pub fn conflicts_while_probing(&self, mac: [u8; 6], ip: Ipv4Addr) -> bool {
        let probed = self.operation == Operation::Request && self.sender_ip.is_unspecified() && self.target_ip == ip;
        self.sender_mac != mac && (self.sender_ip == ip || probed)
    }

    /// RFC 5227 section 2.4: somebody else uses our address. A probe is only answered.
    pub fn conflicts_in_use(&self, mac: [u8; 6], ip: Ipv4Addr) -> bool {
        self.sender_mac != mac && self.sender_ip == ip
    }
}

/// Lets only ARP through that concerns `ip`: what its owner says, and probes for it. A host with a watched address sleeps through
/// all else. bpf(2), from the ARP header on.
pub fn filter(ip: Ipv4Addr) -> Vec<Instruction> {
    filter_with(ip, ip)
}

/// Lets only the replies of `ip` through: it may ask for every host of a network, which is nobody's business here.
pub fn replies_of(ip: Ipv4Addr) -> Vec<Instruction> {
    let give = |k| Instruction { code: 0x06, jt: 0, jf: 0, k };
    let equal = |k, jf| Instruction { code: 0x15, jt: 0, jf, k };
    vec![
        // The operation, then the sender's address.
        Instruction { code: 0x28, jt: 0, jf: 0, k: 6 },
        equal(2, 3),
        Instruction { code: 0x20, jt: 0, jf: 0, k: 14 },
        equal(ip.into(), 1),
        give(u32::MAX),
        give(0),
    ]
}

/// The same, and what the owner of `also` says.
pub fn filter_with(ip: Ipv4Addr, also: Ipv4Addr) -> Vec<Instruction> {
    let load_word = |k| Instruction { code: 0x20, jt: 0, jf: 0, k };
    let load_half = |k| Instruction { code: 0x28, jt: 0, jf: 0, k };
    let equal = |k, jt, jf| Instruction { code: 0x15, jt, jf, k };
    let give = |k| Instruction { code: 0x06, jt: 0, jf: 0, k };
    let ip = u32::from(ip);
    vec![
        load_word(0),
        equal(0x0001_0800, 0, 9),
        load_half(4),
        equal(0x0604, 0, 7),
        // The sender's address, then the target's.
        load_word(14),
        equal(ip, 4, 0),
        equal(also.into(), 3, 0),
        equal(0, 0, 3),
        load_word(24),
        equal(ip, 0, 1),
        give(u32::MAX),
        give(0),
    ]
}

/// Lets nothing through.
pub fn deaf() -> Vec<Instruction> {
    vec![Instruction { code: 0x06, jt: 0, jf: 0, k: 0 }]
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// The three instructions that filters are made of, as bpf(2) describes them.
    fn passes(filter: &[Instruction], frame: &[u8]) -> bool {
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = filter[at];
            at += 1;
            let k = step.k as usize;
            match step.code {
                0x20 => loaded = u32::from_be_bytes(frame[k..k + 4].try_into().unwrap()),
                0x28 => loaded = u16::from_be_bytes(frame[k..k + 2].try_into().unwrap()).into(),
                0x15 => at += usize::from(if loaded == step.k { step.jt } else { step.jf }),
                _ => return step.k != 0,
            }
        }
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
}

//! ICMP echo over IPv4 (RFC 792): the request, and whether a datagram is its reply. PURE.
//!
//! A reply must bear our identifier, our sequence number and our random payload, be whole, and come
//! from the target: what others send to a raw socket changes nothing. Called by probe.rs and by the
//! fuzz targets.

use std::net::Ipv4Addr;

use netd_core::wire::bpf::Op::{Give, HalfAtX, HeaderLen, Label, Unless};
use netd_core::wire::bpf::Test::Equal;
use netd_core::wire::bpf::{DROP, Instruction, PASS, assemble};
use netd_core::wire::ipv4::{self, Datagram};
use pnet_packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet_packet::icmp::{self, IcmpType, IcmpTypes, MutableIcmpPacket};

/// Random bytes that a reply has to bring back.
const TOKEN: usize = 16;
/// Header and token.
const LEN: usize = 8 + TOKEN;
/// RFC 792: offsets for the filter.
const TYPE_AND_CODE: u32 = 0;
const IDENTIFIER: u32 = 4;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Identifier.
    pub id: u16,
    /// Sequence number.
    pub seq: u16,
    /// Random, so that only a host that has seen the request can answer it.
    pub token: [u8; TOKEN],
}

impl Echo {
    /// The bytes behind the IPv4 header of the request.
    pub fn request(&self) -> [u8; LEN] {
        self.encode(IcmpTypes::EchoRequest)
    }

    /// A reply is laid out as a request is.
    fn encode(&self, kind: IcmpType) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        if let Some(mut packet) = MutableEchoRequestPacket::new(&mut bytes) {
            packet.set_icmp_type(kind);
            packet.set_identifier(self.id);
            packet.set_sequence_number(self.seq);
            packet.set_payload(&self.token);
        }
        if let Some(mut packet) = MutableIcmpPacket::new(&mut bytes) {
            packet.set_checksum(icmp::checksum(&packet.to_immutable()));
        }
        bytes
    }

    /// Whether a whole IPv4 datagram, as raw(7) gives it, is the reply of `target`. The kernel has
    /// looked at the checksum of its header.
    pub fn is_reply(&self, datagram: &[u8], target: Ipv4Addr) -> bool {
        let Ok(datagram) = Datagram::parse(datagram) else { return false };
        // The reply is the request with another type: the same bytes, and a checksum that fits.
        datagram.protocol == ipv4::ICMP
            && datagram.from == target
            && datagram.payload == self.encode(IcmpTypes::EchoReply)
    }
}

/// Lets only echo replies with this identifier through: a flood of others does not wake us. Offsets
/// are from the IPv4 header on, then behind it.
pub fn filter(id: u16) -> Vec<Instruction> {
    assemble(&[
        HeaderLen(0),
        HalfAtX(TYPE_AND_CODE),
        Unless(Equal(u32::from(IcmpTypes::EchoReply.0) << 8), "drop"),
        HalfAtX(IDENTIFIER),
        Unless(Equal(id.into()), "drop"),
        Give(PASS),
        Label("drop"),
        Give(DROP),
    ])
}

#[cfg(test)]
mod tests {
    use netd_core::rng::Rng;
    use netd_core::wire::bpf;

    use super::*;

    const FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const ECHO: Echo = Echo { id: 0x1234, seq: 0x0001, token: *b"0123456789abcdef" };

    fn datagram(payload: &[u8], options: usize) -> Vec<u8> {
        let total = u16::try_from(20 + options + payload.len()).unwrap().to_be_bytes();
        let ihl = 0x45 + u8::try_from(options / 4).unwrap();
        let mut out = vec![ihl, 0, total[0], total[1], 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1, 192, 0, 2, 100];
        out.extend(std::iter::repeat_n(1, options));
        out.extend(payload);
        out
    }

    #[test]
    fn the_request_is_laid_out_as_rfc_792_says() {
        // By hand: 0x0800 + 0x1234 + 0x0001 = 0x1a35, whose complement is 0xe5ca.
        let zeros = Echo { token: [0; TOKEN], ..ECHO };
        assert_eq!(zeros.request()[..8], [8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]);
        let all = pnet_packet::util::checksum(&ECHO.request(), usize::MAX);
        assert_eq!(all, 0, "RFC 1071: the sum over all, sum included");
    }

    #[test]
    fn only_the_targets_own_whole_reply_counts() {
        let reply = ECHO.encode(IcmpTypes::EchoReply);
        let good = datagram(&reply, 0);
        assert!(ECHO.is_reply(&good, FROM));
        assert!(ECHO.is_reply(&datagram(&reply, 8), FROM), "with IP options");
        assert!(ECHO.is_reply(&[&good[..], &[0; 6]].concat(), FROM), "padded by the link");
        assert!(!ECHO.is_reply(&good, Ipv4Addr::new(192, 0, 2, 2)), "of somebody else");
        assert!(!ECHO.is_reply(&datagram(&ECHO.request(), 0), FROM), "a request");
        for other in [Echo { id: 1, ..ECHO }, Echo { seq: 2, ..ECHO }, Echo { token: [0; TOKEN], ..ECHO }] {
            assert!(!ECHO.is_reply(&datagram(&other.encode(IcmpTypes::EchoReply), 0), FROM), "{other:?}");
        }
        assert!(!ECHO.is_reply(&datagram(&[&reply[..], &[0]].concat(), 0), FROM), "too long");
        for cut in 0..good.len() {
            assert!(!ECHO.is_reply(&good[..cut], FROM), "cut at {cut}");
        }
        // Version, header length, total length, fragment, protocol, source, every byte of the
        // message.
        for at in [0, 2, 3, 6, 9, 12, 15].into_iter().chain(20..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 0x21;
            assert!(!ECHO.is_reply(&bad, FROM), "byte {at}");
        }
    }

    #[test]
    fn the_filter_passes_replies_with_our_identifier_alone() {
        let passes = |frame: &[u8]| bpf::run(&filter(ECHO.id), bpf::frame(frame)) != DROP;
        let reply = ECHO.encode(IcmpTypes::EchoReply);
        assert!(passes(&datagram(&reply, 0)) && passes(&datagram(&reply, 8)));
        assert!(!passes(&datagram(&ECHO.request(), 0)));
        assert!(!passes(&datagram(&Echo { id: 1, ..ECHO }.encode(IcmpTypes::EchoReply), 0)));
        assert!(!passes(&datagram(&reply[..5], 0)), "cut inside of the identifier");
    }

    #[test]
    fn random_bytes_do_no_harm() {
        let mut rng = Rng::seeded(1);
        let good = datagram(&ECHO.encode(IcmpTypes::EchoReply), 0);
        for _ in 0..100_000 {
            let len = rng.below(64) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u32() as u8).collect();
            bytes.iter_mut().zip(&good).take(rng.below(24) as usize).for_each(|(b, g)| *b = *g);
            assert!(!ECHO.is_reply(&bytes, FROM) || bytes.starts_with(&good));
        }
    }
}

//! ICMP echo over IPv4 (RFC 792): the request, and whether a datagram is its reply. PURE.
//!
//! A reply must bear our identifier, our sequence number and our random payload, be whole, and come from the target: what
//! others send to a raw socket changes nothing. Called by probe.rs and by the
//! fuzz targets.

use std::net::Ipv4Addr;

use netd_core::wire::bpf::Instruction;

/// RFC 792: echo reply, echo.
const REPLY: u8 = 0;
const REQUEST: u8 = 8;
/// Random bytes that a reply has to bring back.
const TOKEN: usize = 16;
/// Header and token.
const LEN: usize = 8 + TOKEN;
/// RFC 791: protocol 1.
const PROTOCOL_ICMP: u8 = 1;

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Identifier.
    pub id: u16,
    /// Sequence number.
    pub seq: u16,
    /// Random, so that nobody who has not seen the request can answer it.
    pub token: [u8; TOKEN],
}

impl Echo {
    /// The bytes behind the IPv4 header of the request.
    pub fn request(&self) -> [u8; LEN] {
        self.encode(REQUEST)
    }

    fn encode(&self, kind: u8) -> [u8; LEN] {
        let head = [kind, 0, 0, 0].into_iter().chain(self.id.to_be_bytes()).chain(self.seq.to_be_bytes());
        let mut bytes = [0; LEN];
        for (to, from) in bytes.iter_mut().zip(head.chain(self.token)) {
            *to = from;
        }
        let sum = checksum(&bytes).to_be_bytes();
        for (to, from) in bytes.iter_mut().skip(2).zip(sum) {
            *to = from;
        }
        bytes
    }

    /// Whether a whole IPv4 datagram, as raw(7) gives it, is the reply of `target`.
    pub fn is_reply(&self, datagram: &[u8], target: Ipv4Addr) -> bool {
        let Some((header, payload)) = split(datagram) else { return false };
        // The reply is the request with another type: the same bytes, and a checksum that fits.
        header.source == target && payload == self.encode(REPLY)
    }
}

struct Header {
    source: Ipv4Addr,
}

/// RFC 791 3.1: version 4, header length in words, total length, fragment fields, protocol, source.
fn split(datagram: &[u8]) -> Option<(Header, &[u8])> {
    let (head, _) = datagram.split_first_chunk::<20>()?;
    let [version_ihl, _, total_a, total_b, _, _, frag_a, frag_b, _, protocol, _, _, a, b, c, d, ..] = *head;
    let header_len = usize::from(version_ihl & 15) * 4;
    let total = usize::from(u16::from_be_bytes([total_a, total_b]));
    // More fragments, or not the first one.
    let fragment = u16::from_be_bytes([frag_a, frag_b]) & 0x3fff != 0;
    if version_ihl >> 4 != 4 || header_len < 20 || protocol != PROTOCOL_ICMP || fragment {
        return None;
    }
    Some((Header { source: Ipv4Addr::new(a, b, c, d) }, datagram.get(header_len..total)?))
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let [high, low] = [pair.first(), pair.get(1)].map(|b| b.copied().unwrap_or(0));
        sum += u32::from(u16::from_be_bytes([high, low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Lets only echo replies with this identifier through: a flood of others does not wake us. bpf(2), from the IPv4 header on.
pub fn filter(id: u16) -> Vec<Instruction> {
    let step = |code, jt, jf, k| Instruction { code, jt, jf, k };
    vec![
        // X = header length; then the type and code, and the identifier, behind it.
        step(0xb1, 0, 0, 0),
        step(0x48, 0, 0, 0),
        step(0x15, 0, 3, u32::from(REPLY) << 8),
        step(0x48, 0, 0, 4),
        step(0x15, 0, 1, u32::from(id)),
        step(0x06, 0, 0, u32::MAX),
        step(0x06, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use netd_core::rng::Rng;

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
        assert_eq!(checksum(&ECHO.request()), 0, "RFC 1071: the sum over all, sum included");
    }

    #[test]
    fn only_the_targets_own_whole_reply_counts() {
        let reply = ECHO.encode(REPLY);
        let good = datagram(&reply, 0);
        assert!(ECHO.is_reply(&good, FROM));
        assert!(ECHO.is_reply(&datagram(&reply, 8), FROM), "with IP options");
        assert!(ECHO.is_reply(&[&good[..], &[0; 6]].concat(), FROM), "padded by the link");
        assert!(!ECHO.is_reply(&good, Ipv4Addr::new(192, 0, 2, 2)), "of somebody else");
        assert!(!ECHO.is_reply(&datagram(&ECHO.request(), 0), FROM), "a request");
        for other in [Echo { id: 1, ..ECHO }, Echo { seq: 2, ..ECHO }, Echo { token: [0; TOKEN], ..ECHO }] {
            assert!(!ECHO.is_reply(&datagram(&other.encode(REPLY), 0), FROM), "{other:?}");
        }
        assert!(!ECHO.is_reply(&datagram(&[&reply[..], &[0]].concat(), 0), FROM), "too long");
        for cut in 0..good.len() {
            assert!(!ECHO.is_reply(&good[..cut], FROM), "cut at {cut}");
        }
        // Version, header length, total length, fragment, protocol, source, every byte of the message.
        for at in [0, 2, 3, 6, 9, 12, 15].into_iter().chain(20..good.len()) {
            let mut bad = good.clone();
            bad[at] ^= 0x21;
            assert!(!ECHO.is_reply(&bad, FROM), "byte {at}");
        }
    }

    #[test]
    fn random_bytes_do_no_harm() {
        let mut rng = Rng::seeded(1);
        let good = datagram(&ECHO.encode(REPLY), 0);
        for _ in 0..100_000 {
            let len = rng.below(64) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u32() as u8).collect();
            bytes.iter_mut().zip(&good).take(rng.below(24) as usize).for_each(|(b, g)| *b = *g);
            assert!(!ECHO.is_reply(&bytes, FROM) || bytes.starts_with(&good));
        }
    }
}

//! What a reply's values mean, and whether they can be true: `Reply` -> `Terms`.
//!
//! Pure. message.rs has checked the shape; here an impossible yiaddr or mask, or a lease of 0
//! seconds, makes the whole offer worthless. Called by client.rs for every OFFER and ACK.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use netd_core::net::is_host;

use crate::message::Reply;
use crate::options::{LEASE, MTU, REBINDING, RENEWAL, SERVER_ID, SUBNET};

/// What udhcpc assumes when a server names no lease time.
const DEFAULT_LEASE_SECS: u32 = 3600;
/// RFC 2131 section 3.3.
const INFINITE: u32 = u32::MAX;
/// A shorter mask makes public networks look on-link (TunnelCrack, CVE-2023-36672).
const MIN_PREFIX: u8 = 8;
/// RFC 791: every host must take 576 bytes; a smaller MTU cuts us off (RFC 2132 section 5.1 allows
/// 68).
pub const MIN_MTU: u16 = 576;

/// A believable offer or acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The address for us.
    pub ip: Ipv4Addr,
    /// Who gives it; 0.0.0.0 when the server did not say (udhcpc goes on as well).
    pub server_id: Ipv4Addr,
    /// Seconds, as given or assumed.
    pub lease_secs: u32,
    /// Whether the lease time was assumed.
    pub assumed: bool,
    t1: Option<u32>,
    t2: Option<u32>,
}

/// Why an offer is worthless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// yiaddr is not a host's unicast address, is the network's or broadcast address, or the
    /// server's own.
    Address,
    /// The mask is not contiguous, or shorter than /8.
    Mask,
    /// A lease of 0 seconds.
    NoTime,
    /// The server identifier is no unicast address.
    Server,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Address => "impossible address",
            Refusal::Mask => "impossible subnet mask",
            Refusal::NoTime => "lease of 0 seconds",
            Refusal::Server => "impossible server identifier",
        })
    }
}

impl Terms {
    /// Judges a reply.
    pub fn judge(reply: &Reply) -> Result<Terms, Refusal> {
        let server_id = reply.ip(SERVER_ID).unwrap_or(Ipv4Addr::UNSPECIFIED);
        if !server_id.is_unspecified() && !is_host(server_id) {
            return Err(Refusal::Server);
        }
        if !is_host(reply.yiaddr) || reply.yiaddr == server_id {
            return Err(Refusal::Address);
        }
        if let Some(mask) = reply.option(SUBNET) {
            let mask: Option<[u8; 4]> = mask.get(..4).and_then(|m| m.try_into().ok());
            let len = mask.and_then(|m| prefix_len(m.into())).ok_or(Refusal::Mask)?;
            let host = u32::from(reply.yiaddr) & host_bits(len);
            if len <= 30 && (host == 0 || host == host_bits(len)) {
                return Err(Refusal::Address);
            }
        }
        let given = reply.number(LEASE);
        let lease_secs = given.unwrap_or(DEFAULT_LEASE_SECS);
        if lease_secs == 0 {
            return Err(Refusal::NoTime);
        }
        let (t1, t2) = (reply.number(RENEWAL), reply.number(REBINDING));
        Ok(Terms { ip: reply.yiaddr, server_id, lease_secs, assumed: given.is_none(), t1, t2 })
    }

    /// A server that we asked by its identifier may leave it out of its answer, although RFC 2131
    /// table 3 wants it there.
    pub fn by(self, asked: Ipv4Addr) -> Terms {
        if self.server_id.is_unspecified() { Terms { server_id: asked, ..self } } else { self }
    }

    /// How long the address is ours; `None`: for ever.
    pub fn duration(&self) -> Option<Duration> {
        (self.lease_secs != INFINITE).then(|| Duration::from_secs(self.lease_secs.into()))
    }

    /// T1 and T2 (RFC 2131 section 4.4.5): the server's, each when it is there and within the
    /// lease, else 0.5 and 0.875 of the lease; both are assumed when they are not in their order.
    pub fn t1_t2(&self) -> Option<(Duration, Duration)> {
        let lease = self.duration()?;
        let usual = (lease / 2, lease * 7 / 8);
        let given =
            |secs: Option<u32>| secs.map(|s| Duration::from_secs(s.into())).filter(|t| !t.is_zero() && *t < lease);
        let (t1, t2) = (given(self.t1).unwrap_or(usual.0), given(self.t2).unwrap_or(usual.1));
        Some(if t1 < t2 { (t1, t2) } else { usual })
    }
}

/// Prefix length of a usable mask.
fn prefix_len(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let len = u8::try_from(bits.leading_ones()).ok()?;
    (bits == !host_bits(len) && len >= MIN_PREFIX).then_some(len)
}

fn host_bits(len: u8) -> u32 {
    u32::MAX.checked_shr(len.into()).unwrap_or(0)
}

/// Prefix length for the native record: the mask, or the address's class when there is none (RFC
/// 791 section 3.2).
pub fn prefix_len_of(reply: &Reply) -> u8 {
    let given = reply.option(SUBNET).and_then(|m| m.get(..4)).and_then(|m| <[u8; 4]>::try_from(m).ok());
    given.and_then(|m| prefix_len(m.into())).unwrap_or_else(|| class_len(reply.yiaddr))
}

/// RFC 791 section 3.2: the prefix length of an address's class.
pub fn class_len(ip: Ipv4Addr) -> u8 {
    let [first, ..] = ip.octets();
    match first {
        0..=127 => 8,
        128..=191 => 16,
        192..=255 => 24,
    }
}

/// An MTU that leaves a working network.
pub fn mtu_of(reply: &Reply) -> Option<u16> {
    reply.fixed::<2>(MTU).map(u16::from_be_bytes).filter(|mtu| *mtu >= MIN_MTU)
}

/// The MTU of a reply that would cut us off.
pub fn small_mtu(reply: &Reply) -> Option<u16> {
    let all = reply.option(MTU)?.as_chunks::<2>().0.iter().map(|c| u16::from_be_bytes(*c));
    all.min().filter(|mtu| *mtu < MIN_MTU)
}

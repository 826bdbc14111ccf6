//! Netlink bytes: messages and attributes, the one codec of the house. PURE.
//!
//! What netlink(7) and rtnetlink(7) have in common: headers, attributes, message types, the outcome of a request. The objects
//! are their users': links for the link watch in link/wire.rs, links, addresses and routes in fw's wire.rs. All integers are
//! in host byte order unless a comment says otherwise. Foreign bytes are never indexed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// NLM_F_REQUEST | NLM_F_ACK.
pub const REQUEST: u16 = 0x05;
/// NLM_F_REQUEST | NLM_F_DUMP.
pub const DUMP: u16 = 0x301;
/// NLM_F_REPLACE.
pub const REPLACE: u16 = 0x100;
/// NLM_F_EXCL.
pub const EXCLUSIVE: u16 = 0x200;
/// NLM_F_CREATE.
pub const CREATE: u16 = 0x400;
/// NLM_F_DUMP_INTR: objects changed while they were dumped.
pub const DUMP_INTERRUPTED: u16 = 0x10;
/// NLM_F_CAPPED: an acknowledgement without the request's payload.
pub const CAPPED: u16 = 0x100;
/// NLM_F_ACK_TLVS: attributes follow the error.
pub const ACK_ATTRIBUTES: u16 = 0x200;

/// NLMSG_ERROR, with error 0 an acknowledgement.
pub const ERROR: u16 = 2;
/// NLMSG_DONE.
pub const DONE: u16 = 3;

/// RTM_NEWLINK.
pub const NEW_LINK: u16 = 16;
/// RTM_DELLINK.
pub const DEL_LINK: u16 = 17;
/// RTM_GETLINK.
pub const GET_LINK: u16 = 18;
/// RTM_SETLINK.
pub const SET_LINK: u16 = 19;
/// RTM_NEWADDR.
pub const NEW_ADDRESS: u16 = 20;
/// RTM_DELADDR.
pub const DEL_ADDRESS: u16 = 21;
/// RTM_GETADDR.
pub const GET_ADDRESS: u16 = 22;
/// RTM_NEWROUTE.
pub const NEW_ROUTE: u16 = 24;
/// RTM_DELROUTE.
pub const DEL_ROUTE: u16 = 25;
/// RTM_GETROUTE.
pub const GET_ROUTE: u16 = 26;

/// RTM_NEWRULE.
pub const NEW_RULE: u16 = 32;
/// RTM_DELRULE.
pub const DEL_RULE: u16 = 33;
/// RTM_GETRULE.
pub const GET_RULE: u16 = 34;

/// AF_INET.
pub const AF_INET: u8 = 2;
/// AF_INET6.
pub const AF_INET6: u8 = 10;

/// IFF_UP.
pub const IFF_UP: u32 = 1;

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// One request under construction: `nlmsghdr`, a fixed part, attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// `fixed` is the family's own header.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        Message { bytes }
    }

    /// Appends an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Message {
        // A value longer than an attribute can carry does not occur: names, addresses and tuples are short.
        let len = u16::try_from(value.len() + 4).unwrap_or(4);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// Appends an attribute when there is a value.
    #[must_use]
    pub fn with_ip(self, kind: u16, ip: Option<IpAddr>) -> Message {
        match ip {
            Some(IpAddr::V4(a)) => self.with(kind, &a.octets()),
            Some(IpAddr::V6(a)) => self.with(kind, &a.octets()),
            None => self,
        }
    }

    /// The finished bytes: offset 0 length u32, 8 sequence number u32.
    pub fn finish(self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.bytes;
        let len = u32::try_from(bytes.len()).unwrap_or(0);
        for (at, number) in [(0, len), (8, sequence)] {
            if let Some(place) = bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&number.to_ne_bytes());
            }
        }
        bytes
    }
}

/// Header of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Type.
    pub kind: u16,
    /// Flags.
    pub flags: u16,
    /// Sequence number of the request.
    pub sequence: u32,
}

/// The messages of one datagram; what does not fit its own length ends the walk.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        let header = Header { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, sequence: u32_at(bytes, 8)? };
        let payload = bytes.get(HEADER..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((header, payload))
    })
}

/// The attributes of a payload; the nested and byte-order flags of the type are masked out.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of this type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, v)| v)
}

/// Two bytes in host order.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// Four bytes in host order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// An address by the length of its bytes.
pub fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b))),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))),
        _ => None,
    }
}

/// The number of a family as the first byte of most fixed parts.
pub fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// The errno of an [`ERROR`] or a [`DONE`], 0 for success: i32 at offset 0, negative on the wire.
pub fn errno(payload: &[u8]) -> i32 {
    payload.first_chunk::<4>().map_or(0, |b| i32::from_ne_bytes(*b).checked_neg().unwrap_or(i32::MAX))
}

/// `struct ifinfomsg` of a request: family u8, pad u8, type u16, index i32 at 4, flags u32 at 8, change mask u32 at 12.
/// Sets these flags and touches no other.
pub fn ifinfomsg(index: u32, set: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), set.to_ne_bytes(), set.to_ne_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link_up(index: u32) -> Message {
        Message::new(NEW_LINK, REQUEST, &ifinfomsg(index, IFF_UP))
    }

    #[test]
    fn a_datagram_of_several_messages_is_walked_and_damage_ends_the_walk() {
        let two = [link_up(1).finish(1), link_up(2).with(4, &1400_u32.to_ne_bytes()).finish(2)].concat();
        assert_eq!(messages(&two).map(|(h, _)| h.sequence).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(messages(&two[..two.len() - 1]).count(), 1);
        let mut short = two.clone();
        short[0] = 3;
        assert_eq!(messages(&short).count(), 0, "shorter than its own header");
        assert_eq!(attributes(&[4, 0, 1, 0, 2, 0, 1, 0]).count(), 1, "an attribute shorter than its own header");
    }

    #[test]
    fn attributes_are_padded_and_found() {
        let bytes =
            Message::new(GET_LINK, REQUEST, &[0; 16]).with(3, b"eth0\0").with(29, &8_u32.to_ne_bytes()).finish(7);
        assert_eq!(bytes.len(), 16 + 16 + 12 + 8);
        let (header, payload) = messages(&bytes).next().unwrap();
        assert_eq!(header, Header { kind: GET_LINK, flags: REQUEST, sequence: 7 });
        assert_eq!(attribute(&payload[16..], 3), Some(&b"eth0\0"[..]));
        assert_eq!(attribute(&payload[16..], 29).and_then(|v| u32_at(v, 0)), Some(8));
        assert_eq!(attribute(&payload[16..], 4), None);
    }

    #[test]
    fn an_errno_is_positive_whatever_came() {
        let table = [(vec![], 0), (vec![1, 2], 0), (0_i32.to_ne_bytes().to_vec(), 0)];
        for (payload, want) in table {
            assert_eq!(errno(&payload), want, "{payload:?}");
        }
        assert_eq!(errno(&(-19_i32).to_ne_bytes()), 19);
        assert_eq!(errno(&i32::MIN.to_ne_bytes()), i32::MAX);
    }
}

//! Netlink bytes: messages and attributes, the one codec of the house.
//!
//! What netlink(7) and rtnetlink(7) have in common: headers, attributes, message types, the outcome
//! of a request. netlink-packet-core reads and writes them. The objects are link.rs's (interfaces)
//! and rtnetlink.rs's (addresses, routes and rules). All integers are in host byte order unless a
//! comment says otherwise. Foreign bytes are never indexed.

use std::net::IpAddr;

use netlink_packet_core::{
    DefaultNla, Emitable, ErrorBuffer, NLA_HEADER_SIZE, NetlinkBuffer, NetlinkHeader, NlasIterator, parse_ip,
};
pub use netlink_packet_core::{
    NLA_F_NESTED, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_CREATE, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLMSG_DONE,
    NLMSG_ERROR,
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

/// A request that is answered by its outcome.
pub const REQUEST: u16 = NLM_F_REQUEST | NLM_F_ACK;
/// A request for every object of a kind.
pub const DUMP: u16 = NLM_F_REQUEST | NLM_F_DUMP;

// linux/rtnetlink.h. netlink-packet-route has them too, but only for itself.
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
/// RTM_NEWNEIGH.
pub const NEW_NEIGHBOUR: u16 = 28;
/// RTM_GETNEIGH.
pub const GET_NEIGHBOUR: u16 = 30;
/// RTM_NEWRULE.
pub const NEW_RULE: u16 = 32;
/// RTM_DELRULE.
pub const DEL_RULE: u16 = 33;
/// RTM_GETRULE.
pub const GET_RULE: u16 = 34;

/// AF_INET of linux/socket.h.
pub const AF_INET: u8 = 2;
/// AF_INET6 of linux/socket.h.
pub const AF_INET6: u8 = 10;

/// NLMSGERR_ATTR_MSG of linux/netlink.h: the kernel's own words on why it refuses.
pub const ERROR_TEXT: u16 = 1;

/// The longest value that the length of an attribute can tell.
const LONGEST_VALUE: usize = u16::MAX as usize - NLA_HEADER_SIZE;

/// One request under construction: `nlmsghdr`, a fixed part, attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// `fixed` is the family's own header.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Message {
        Message { kind, flags, body: fixed.to_vec() }
    }

    /// An object of netlink-packet-route.
    pub fn of(kind: u16, flags: u16, object: &impl Emitable) -> Message {
        Message::new(kind, flags, &[]).followed_by(object)
    }

    /// Appends an attribute. Longer values than an attribute can carry do not occur: names,
    /// addresses and tuples are short.
    #[must_use]
    pub fn with(self, kind: u16, value: &[u8]) -> Message {
        let value = value.get(..value.len().min(LONGEST_VALUE)).unwrap_or_default();
        self.followed_by(&DefaultNla::new(kind, value.to_vec()))
    }

    /// Appends an attribute that holds the attributes of `inside`, which is a message without a
    /// fixed part. Its own type and flags do not count.
    #[must_use]
    pub fn with_nested(self, kind: u16, inside: Message) -> Message {
        self.with(NLA_F_NESTED | kind, &inside.body)
    }

    fn followed_by(mut self, part: &impl Emitable) -> Message {
        let at = self.body.len();
        self.body.resize(at + part.buffer_len(), 0);
        if let Some(place) = self.body.get_mut(at..) {
            part.emit(place);
        }
        self
    }

    /// The finished bytes, which bear this sequence number.
    pub fn finish(self, sequence: u32) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        header.flags = self.flags;
        header.sequence_number = sequence;
        let mut bytes = vec![0; header.buffer_len()];
        header.length = u32::try_from(bytes.len() + self.body.len()).unwrap_or(0);
        header.emit(&mut bytes);
        bytes.extend(self.body);
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

/// The messages of one datagram; a message that does not fit its own length ends the walk.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let header =
            Header { kind: message.message_type(), flags: message.flags(), sequence: message.sequence_number() };
        bytes = bytes.get((message.length() as usize).next_multiple_of(4)..).unwrap_or_default();
        Some((header, message.payload()))
    })
}

/// The attributes of a payload; the nested and byte-order flags of the type are masked out. One
/// that does not fit its own length ends the walk.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).filter_map(|attribute| {
        let (kind, end) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, attribute.into_inner().get(NLA_HEADER_SIZE..end)?))
    })
}

/// The first attribute of this type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, v)| v)
}

/// Four bytes in host order.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// An address by the length of its bytes.
pub fn ip(bytes: &[u8]) -> Option<IpAddr> {
    parse_ip(bytes).ok()
}

/// The number of a family as the first byte of most fixed parts.
pub fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// The errno of an [`NLMSG_ERROR`] or an [`NLMSG_DONE`], 0 for success. It is negative on the wire.
pub fn errno(payload: &[u8]) -> i32 {
    let code = ErrorBuffer::new_checked(payload).ok().and_then(|error| error.code());
    code.map_or(0, |code| code.get().checked_neg().unwrap_or(i32::MAX))
}

/// `struct ifinfomsg` of a request: family u8, pad u8, type u16, index i32 at 4, flags u32 at 8,
/// change mask u32 at 12. Sets these flags and touches no other.
pub fn ifinfomsg(index: u32, set: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), set.to_ne_bytes(), set.to_ne_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::link::{IFLA_EXT_MASK, IFLA_IFNAME, IFLA_MTU, set_up};

    #[test]
    fn a_datagram_of_several_messages_is_walked_and_damage_ends_the_walk() {
        let two = [set_up(1).finish(1), set_up(2).with(IFLA_MTU, &1400_u32.to_ne_bytes()).finish(2)].concat();
        assert_eq!(messages(&two).map(|(h, _)| h.sequence).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(messages(&two[..two.len() - 1]).count(), 1);
        let mut short = two.clone();
        short[0] = 3;
        assert_eq!(messages(&short).count(), 0, "shorter than its own header");
        assert_eq!(attributes(&[4, 0, 1, 0, 2, 0, 1, 0]).count(), 1, "an attribute shorter than its own header");
    }

    #[test]
    fn attributes_are_padded_and_found() {
        let bytes = Message::new(GET_LINK, REQUEST, &[0; 16])
            .with(IFLA_IFNAME, b"eth0\0")
            .with(IFLA_EXT_MASK, &8_u32.to_ne_bytes())
            .finish(7);
        assert_eq!(bytes.len(), 16 + 16 + 12 + 8);
        let (header, payload) = messages(&bytes).next().unwrap();
        assert_eq!(header, Header { kind: GET_LINK, flags: REQUEST, sequence: 7 });
        assert_eq!(attribute(&payload[16..], IFLA_IFNAME), Some(&b"eth0\0"[..]));
        assert_eq!(attribute(&payload[16..], IFLA_EXT_MASK).and_then(|v| u32_at(v, 0)), Some(8));
        assert_eq!(attribute(&payload[16..], IFLA_MTU), None);
    }

    #[test]
    fn the_nested_flag_is_written_and_not_read() {
        let bytes = Message::new(0, 0, &[]).with(NLA_F_NESTED | 3, &[]).finish(0);
        assert_eq!(bytes[16..], [&4_u16.to_ne_bytes()[..], &0x8003_u16.to_ne_bytes()].concat());
        assert_eq!(attributes(&bytes[16..]).collect::<Vec<_>>(), [(3, &[][..])]);
    }

    /// netlink-packet-core writes the length with `as u16` and then copies into a place of another
    /// length: a panic.
    #[test]
    fn a_value_that_no_attribute_can_carry_is_cut_and_does_not_panic() {
        let theirs = std::panic::catch_unwind(|| DefaultNla::new(1, vec![7; 70_000]).emit(&mut vec![0; 80_000]));
        assert!(theirs.is_err());
        let bytes = Message::new(0, 0, &[]).with(1, &vec![7; 70_000]).finish(0);
        assert_eq!(attribute(&bytes[16..], 1).map(<[u8]>::len), Some(LONGEST_VALUE));
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

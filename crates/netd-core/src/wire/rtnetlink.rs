//! Addresses, routes and rules of rtnetlink(7): netlink-packet-route reads their headers and their
//! attributes.
//!
//! Each attribute is read alone, and only those that a caller uses are read. The crate's own
//! `RouteMessage::parse` gives up a whole message for one attribute that it cannot read, and it
//! follows next hops inside next hops as deep as they go. Called by fw's wire.rs and netd's
//! reach.rs. Writing needs no wrap: [`super::netlink::Message::of`].

use netlink_packet_core::{DecodeError, NlaBuffer, NlasIterator, Parseable, ParseableParametrized};
pub use netlink_packet_route::AddressFamily;
pub use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::route::RouteLwEnCapType;
pub use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType, RouteVia,
};
pub use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage};

use super::netlink;

// linux/if_addr.h. The crate has its own names for these numbers, but only for itself.
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
/// The metric of the address's prefix route (Linux 4.18).
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;
const ADDRESS: [u16; 7] = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS, IFA_RT_PRIORITY, IFA_PROTO];
/// Length of `struct ifaddrmsg`.
const IFADDRMSG_LEN: usize = 8;

// linux/rtnetlink.h
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
/// Several ways at once: [`next_hops`].
pub const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const ROUTE: [u16; 7] = [RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE, RTA_VIA];
/// Length of `struct rtmsg`.
const RTMSG_LEN: usize = 12;

// linux/fib_rules.h
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
const FRA_PROTOCOL: u16 = 21;
const RULE: [u16; 7] = [FRA_SRC, FRA_PRIORITY, FRA_FWMARK, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL];
/// Length of `struct fib_rule_hdr`.
const FIB_RULE_HDR_LEN: usize = 12;

/// What was read of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object<H, A> {
    /// Its fixed part.
    pub header: H,
    /// The attributes that are used here.
    pub attributes: Vec<A>,
    /// The types of all others.
    pub others: Vec<u16>,
}

/// Reads an address. `None`: the message is too short, or an attribute that is used here is
/// malformed.
pub fn address(payload: &[u8]) -> Option<Object<AddressHeader, AddressAttribute>> {
    let header = AddressHeader::parse(payload).ok()?;
    read(header, payload.get(IFADDRMSG_LEN..)?, &ADDRESS, |attribute| AddressAttribute::parse(attribute))
}

/// Reads a route. `None`: as for [`address`].
pub fn route(payload: &[u8]) -> Option<Object<RouteHeader, RouteAttribute>> {
    let header = RouteHeader::parse(payload).ok()?;
    let shape = (header.address_family, header.kind, RouteLwEnCapType::None);
    read(header, payload.get(RTMSG_LEN..)?, &ROUTE, |attribute| RouteAttribute::parse_with_param(attribute, shape))
}

/// `struct rtnexthop` of linux/rtnetlink.h: length u16, flags u8, hops u8, ifindex i32; attributes
/// follow.
const RTNEXTHOP_LEN: usize = 8;

/// The interfaces of a route that has several ways at once. What else its next hops say is not
/// read.
pub fn next_hops(payload: &[u8]) -> Vec<u32> {
    let mut rest = payload.get(RTMSG_LEN..).and_then(|bytes| netlink::attribute(bytes, RTA_MULTIPATH)).unwrap_or(&[]);
    let mut interfaces = Vec::new();
    while let (Some(index), Some(len)) = (netlink::u32_at(rest, 4), rest.first_chunk::<2>()) {
        interfaces.push(index);
        let len = usize::from(u16::from_ne_bytes(*len)).max(RTNEXTHOP_LEN).next_multiple_of(4);
        rest = rest.get(len..).unwrap_or(&[]);
    }
    interfaces
}

/// The fixed part of a route alone: a machine may have many thousand routes of other programs.
pub fn route_header(payload: &[u8]) -> Option<RouteHeader> {
    RouteHeader::parse(payload).ok()
}

/// The number of an address's interface.
pub fn address_index(payload: &[u8]) -> Option<u32> {
    AddressHeader::parse(payload).ok().map(|header| header.index)
}

/// Reads a rule. `None`: as for [`address`].
pub fn rule(payload: &[u8]) -> Option<Object<RuleHeader, RuleAttribute>> {
    let header = RuleHeader::parse(payload).ok()?;
    read(header, payload.get(FIB_RULE_HDR_LEN..)?, &RULE, |attribute| RuleAttribute::parse(attribute))
}

fn read<H, A>(
    header: H,
    bytes: &[u8],
    used: &[u16],
    parse: impl Fn(&NlaBuffer<&[u8]>) -> Result<A, DecodeError>,
) -> Option<Object<H, A>> {
    let mut object = Object { header, attributes: Vec::new(), others: Vec::new() };
    for attribute in NlasIterator::new(bytes).map_while(Result::ok) {
        match attribute.kind() {
            kind if used.contains(&kind) => object.attributes.push(parse(&attribute).ok()?),
            kind => object.others.push(kind),
        }
    }
    Some(object)
}

/// An IPv4 or IPv6 address of a route.
pub fn route_ip(address: &RouteAddress) -> Option<std::net::IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netlink::Message;

    /// linux/rtnetlink.h
    const RTA_CACHEINFO: u16 = 12;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        Message::new(0, 0, &[]).with(kind, value).finish(0)[16..].to_vec()
    }

    /// `struct rtmsg` of 10.0.0.0/8 in the main table, by RTPROT_STATIC, RTN_UNICAST.
    fn a_route(attributes: &[Vec<u8>]) -> Vec<u8> {
        [&[2, 8, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0][..], &attribute(RTA_DST, &[10, 0, 0, 0]), &attributes.concat()]
            .concat()
    }

    /// What the wrap is for, first: the crate refuses a whole route for one attribute that is not
    /// used here.
    #[test]
    fn an_attribute_that_is_not_used_cannot_take_the_route_with_it() {
        let payload = a_route(&[attribute(RTA_CACHEINFO, &[0; 4]), attribute(RTA_OIF, &7_u32.to_ne_bytes())]);
        assert!(RouteMessage::parse(&payload).is_err());
        let route = route(&payload).unwrap();
        assert!(route.attributes.contains(&RouteAttribute::Oif(7)), "{route:?}");
        assert_eq!(route.others, [RTA_CACHEINFO]);
    }

    /// Second: the crate calls itself for each level of next hops, 5461 of them in one attribute.
    #[test]
    fn next_hops_inside_of_next_hops_are_not_followed() {
        let mut hops = Vec::new();
        for _ in 0..40 {
            let inner = if hops.is_empty() { Vec::new() } else { attribute(RTA_MULTIPATH, &hops) };
            // struct rtnexthop: length u16, flags u8, hops u8, index i32.
            let len = u16::try_from(8 + inner.len()).unwrap();
            hops = [&len.to_ne_bytes()[..], &[0, 0], &1_u32.to_ne_bytes(), &inner].concat();
        }
        let payload = a_route(&[attribute(RTA_MULTIPATH, &hops)]);
        let whole = RouteMessage::parse(&payload).unwrap();
        let (mut depth, mut attributes) = (0, whole.attributes.as_slice());
        while let Some(RouteAttribute::MultiPath(hops)) = attributes.last() {
            (depth, attributes) = (depth + 1, hops[0].attributes.as_slice());
        }
        assert_eq!(depth, 40, "as deep as the bytes go");
        assert_eq!(route(&payload).unwrap().others, [RTA_MULTIPATH]);
    }

    /// Third: a malformed attribute that is used spoils the object. A route whose destination
    /// cannot be read is not a default route.
    #[test]
    fn a_malformed_attribute_that_is_used_is_no_object() {
        for (kind, value) in [(RTA_DST, &[10, 0][..]), (RTA_OIF, &[1]), (RTA_VIA, &[2]), (RTA_TABLE, &[])] {
            assert_eq!(route(&a_route(&[attribute(kind, value)])), None, "{kind}");
        }
        assert_eq!(route(&[2, 8, 0]), None);
        assert_eq!(address(&[2, 8, 0]), None);
        assert_eq!(rule(&[2, 8, 0]), None);
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics() {
        let whole = a_route(&[attribute(RTA_MULTIPATH, &[8, 0, 0, 0, 1, 0, 0, 0]), attribute(RTA_VIA, &[10; 18])]);
        for cut in 0..=whole.len() {
            for at in 0..cut {
                for flip in [1, 0x0f, 0x80, 0xff] {
                    let mut bytes = whole[..cut].to_vec();
                    bytes[at] ^= flip;
                    let _ = (address(&bytes), route(&bytes), rule(&bytes));
                }
            }
        }
    }
}

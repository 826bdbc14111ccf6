//! Netlink bytes: messages and attributes, and the four rtnetlink objects that fw reads and writes.
//!
//! Pure, and no more than fw needs: headers and attributes of netlink(7), links, addresses and routes of rtnetlink(7).
//! All integers are in host byte order unless a comment says otherwise. Foreign bytes are never indexed. Called by
//! socket.rs (framing), kernel.rs (objects), conntrack.rs and firewall.rs (attributes).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::model::{Address, Link, PROTOCOL, Prefix, Route, Scope, TABLE_LOCAL};

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

/// RTM_NEWLINK and its followers.
pub const NEW_LINK: u16 = 16;
/// RTM_GETLINK.
pub const GET_LINK: u16 = 18;
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

/// AF_INET.
pub const AF_INET: u8 = 2;
/// AF_INET6.
pub const AF_INET6: u8 = 10;

const HEADER: usize = 16;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const RTN_UNICAST: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u32 = 1;
const RTNH_F_ONLINK: u32 = 4;
const RTNH_F_LINKDOWN: u32 = 16;

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

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
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

/// Asks for every link, without statistics (IFLA_EXT_MASK 29, RTEXT_FILTER_SKIP_STATS 8).
pub fn dump_links() -> Message {
    Message::new(GET_LINK, DUMP, &[0; 16]).with(29, &8u32.to_ne_bytes())
}

/// Asks for every address.
pub fn dump_addresses() -> Message {
    Message::new(GET_ADDRESS, DUMP, &[0; 8])
}

/// Asks for every route of a family.
pub fn dump_routes(family: u8) -> Message {
    Message::new(GET_ROUTE, DUMP, &[family, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// `struct ifinfomsg`: family u8, pad u8, type u16, index i32 at 4, flags u32 at 8, change mask u32 at 12.
pub fn decode_link(payload: &[u8]) -> Option<Link> {
    let index = u32_at(payload, 4)?;
    let flags = u32_at(payload, 8)?;
    let mut link = Link {
        index,
        name: String::new(),
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        mtu: 0,
        min_mtu: 0,
    };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            3 => link.name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
            4 => link.mtu = u32_at(value, 0)?,
            50 => link.min_mtu = u32_at(value, 0)?,
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// Sets IFF_UP.
pub fn link_up(index: u32) -> Message {
    Message::new(NEW_LINK, REQUEST, &ifinfomsg(index, IFF_UP))
}

/// Sets IFLA_MTU.
pub fn link_mtu(index: u32, mtu: u32) -> Message {
    Message::new(NEW_LINK, REQUEST, &ifinfomsg(index, 0)).with(4, &mtu.to_ne_bytes())
}

fn ifinfomsg(index: u32, set: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), set.to_ne_bytes(), set.to_ne_bytes()].concat()
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope: u8 each; index u32 at 4.
pub fn decode_address(payload: &[u8]) -> Option<Address> {
    let [_, len, flags, scope, ..] = *payload else { return None };
    let index = u32_at(payload, 4)?;
    let (mut local, mut remote, mut flags) = (None, None, u32::from(flags));
    let (mut broadcast, mut lifetime, mut protocol) = (None, None, 0);
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            1 => remote = ip(value),
            2 => local = ip(value),
            4 => broadcast = ip(value),
            // struct ifa_cacheinfo: preferred u32, valid u32; 0xffffffff is for ever.
            6 => lifetime = u32_at(value, 4).filter(|secs| *secs != u32::MAX).map(|s| Duration::from_secs(s.into())),
            8 => flags = u32_at(value, 0)?,
            11 => protocol = value.first().copied()?,
            _ => {}
        }
    }
    Some(Address {
        index,
        // IFA_LOCAL is the interface's own; IPv6 has IFA_ADDRESS alone.
        address: Prefix::new(local.or(remote)?, len)?,
        broadcast: match broadcast {
            Some(IpAddr::V4(a)) => Some(a),
            Some(IpAddr::V6(_)) | None => None,
        },
        scope: Scope::from_number(scope),
        lifetime,
        kernel_prefix_route: flags & IFA_F_NOPREFIXROUTE == 0,
        protocol,
    })
}

/// RTM_NEWADDR for one of ours. `flags`: CREATE | EXCLUSIVE, or REPLACE to renew the lifetime.
pub fn encode_address(address: &Address, flags: u16) -> Message {
    let lifetime = address.lifetime.map_or(u32::MAX, |d| u32::try_from(d.as_secs()).unwrap_or(u32::MAX - 1));
    // struct ifa_cacheinfo: preferred, valid, two time stamps that the kernel ignores.
    let cache = [lifetime.to_ne_bytes(), lifetime.to_ne_bytes(), [0; 4], [0; 4]].concat();
    let prefix_route = if address.kernel_prefix_route { 0 } else { IFA_F_NOPREFIXROUTE };
    address_message(NEW_ADDRESS, REQUEST | flags, address)
        .with_ip(4, address.broadcast.map(IpAddr::V4))
        .with(6, &cache)
        .with(8, &prefix_route.to_ne_bytes())
        .with(11, &[PROTOCOL])
}

/// RTM_DELADDR.
pub fn delete_address(address: &Address) -> Message {
    address_message(DEL_ADDRESS, REQUEST, address)
}

fn address_message(kind: u16, flags: u16, address: &Address) -> Message {
    let Prefix { ip, len } = address.address;
    let mut fixed = vec![family(ip), len, 0, address.scope.number()];
    fixed.extend_from_slice(&address.index.to_ne_bytes());
    Message::new(kind, flags, &fixed).with_ip(2, Some(ip)).with_ip(1, Some(ip))
}

/// `struct rtmsg`: family, destination length, source length, tos, table, protocol, scope, type: u8 each; flags u32
/// at 8. `None` for what is no unicast route, is the kernel's local table or a cached entry.
pub fn decode_route(payload: &[u8]) -> Option<Route> {
    let [family, len, _, tos, table, protocol, scope, kind, ..] = *payload else { return None };
    let flags = u32_at(payload, 8)?;
    let default = if family == AF_INET { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let mut route = Route {
        index: 0,
        destination: Prefix::new(default, len)?,
        gateway: None,
        onlink: flags & RTNH_F_ONLINK != 0,
        dead: flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN) != 0,
        metric: 0,
        table: u32::from(table),
        scope: Scope::from_number(scope),
        source: None,
        tos,
        protocol,
    };
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            1 => route.destination = Prefix::new(ip(value)?, len)?,
            4 => route.index = u32_at(value, 0)?,
            5 => route.gateway = ip(value),
            6 => route.metric = u32_at(value, 0)?,
            7 => route.source = ip(value),
            15 => route.table = u32_at(value, 0)?,
            // RTA_VIA: u16 family, then the address: an IPv6 router of an IPv4 route.
            18 => route.gateway = ip(value.get(2..)?),
            _ => {}
        }
    }
    (kind == RTN_UNICAST && flags & RTM_F_CLONED == 0 && route.table != TABLE_LOCAL).then_some(route)
}

/// RTM_NEWROUTE with the given extra flags.
pub fn encode_route(route: &Route, flags: u16) -> Message {
    route_message(NEW_ROUTE, REQUEST | flags, route)
}

/// RTM_DELROUTE of exactly this route.
pub fn delete_route(route: &Route) -> Message {
    route_message(DEL_ROUTE, REQUEST, route)
}

fn route_message(kind: u16, flags: u16, route: &Route) -> Message {
    let Prefix { ip, len } = route.destination;
    let table = u8::try_from(route.table).unwrap_or(0);
    let onlink = if route.onlink { RTNH_F_ONLINK } else { 0 };
    let mut fixed = vec![family(ip), len, 0, route.tos, table, route.protocol, route.scope.number(), RTN_UNICAST];
    fixed.extend_from_slice(&onlink.to_ne_bytes());
    let message = Message::new(kind, flags, &fixed)
        .with_ip(1, Some(ip).filter(|_| len > 0))
        .with(15, &route.table.to_ne_bytes())
        .with(6, &route.metric.to_ne_bytes())
        .with_ip(7, route.source)
        .with_ip(5, route.gateway);
    if route.index == 0 { message } else { message.with(4, &route.index.to_ne_bytes()) }
}

#[cfg(test)]
mod tests;

//! The rtnetlink objects that fw reads and writes, as bytes: links, addresses, routes and rules of rtnetlink(7).
//!
//! Pure, and no more than fw needs. Messages and attributes are netd_core::wire::netlink's. All integers are in host byte order.
//! Foreign bytes are never indexed. Called by kernel.rs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netd_core::wire::netlink::{
    AF_INET, AF_INET6, DEL_ADDRESS, DEL_ROUTE, DEL_RULE, DUMP, GET_ADDRESS, GET_LINK, GET_ROUTE, GET_RULE, IFF_UP,
    Message, NEW_ADDRESS, NEW_LINK, NEW_ROUTE, NEW_RULE, REQUEST, attributes, family, ifinfomsg, ip, u32_at,
};

use crate::have::{Address, Link, MARKS, Route, Rule};
use crate::model::{PROTOCOL, Prefix, Scope, TABLE_LOCAL, bits};

const IFF_LOOPBACK: u32 = 8;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const RTN_UNICAST: u8 = 1;
const RTM_F_CLONED: u32 = 0x200;
const RTNH_F_DEAD: u32 = 1;
const RTNH_F_ONLINK: u32 = 4;
const RTNH_F_LINKDOWN: u32 = 16;
/// FR_ACT_TO_TBL of linux/fib_rules.h.
const TO_TABLE: u8 = 1;

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
/// at 8. `None` for the kernel's local table and for a cached entry.
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
        unicast: kind == RTN_UNICAST,
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
    (flags & RTM_F_CLONED == 0 && route.table != TABLE_LOCAL).then_some(route)
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

/// Asks for the rules of all families.
pub fn dump_rules() -> Message {
    Message::new(GET_RULE, DUMP, &[0; 12])
}

/// `struct fib_rule_hdr`: family, destination length, source length, tos, table, two unused, action: u8 each; flags u32 at 8.
/// `None` without FRA_PROTOCOL, which every rule has since Linux 4.17.
pub fn decode_rule(payload: &[u8]) -> Option<Rule> {
    let [family, to, from, tos, table, _, _, action, ..] = *payload else { return None };
    let flags = u32_at(payload, 8)?;
    let mut protocol = None;
    let mut rule = Rule {
        priority: 0,
        v4: family == AF_INET,
        source: None,
        mark: 0,
        table: u32::from(table),
        specific: false,
        protocol: 0,
        plain: (to, tos, action, flags) == (0, 0, TO_TABLE, 0),
    };
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            2 => {
                rule.source = ip(value);
                rule.plain &= rule.source.is_some_and(|ip| bits(ip) == from);
            }
            6 => rule.priority = u32_at(value, 0)?,
            10 => rule.mark = u32_at(value, 0)?,
            // FRA_SUPPRESS_PREFIXLEN, -1 without.
            14 => {
                rule.specific = u32_at(value, 0)? == 0;
                rule.plain &= rule.specific || u32_at(value, 0)? == u32::MAX;
            }
            15 => rule.table = u32_at(value, 0)?,
            16 => rule.plain &= u32_at(value, 0)? == MARKS,
            21 => protocol = value.first().copied(),
            _ => rule.plain = false,
        }
    }
    rule.protocol = protocol?;
    [AF_INET, AF_INET6].contains(&family).then_some(rule)
}

/// RTM_NEWRULE with the given extra flags.
pub fn encode_rule(rule: &Rule, flags: u16) -> Message {
    rule_message(NEW_RULE, REQUEST | flags, rule)
}

/// RTM_DELRULE of exactly this rule.
pub fn delete_rule(rule: &Rule) -> Message {
    rule_message(DEL_RULE, REQUEST, rule)
}

fn rule_message(kind: u16, flags: u16, rule: &Rule) -> Message {
    let family = if rule.v4 { AF_INET } else { AF_INET6 };
    let table = u8::try_from(rule.table).unwrap_or(0);
    let fixed = [family, 0, rule.source.map_or(0, bits), 0, table, 0, 0, TO_TABLE, 0, 0, 0, 0];
    let mut message = Message::new(kind, flags, &fixed)
        .with_ip(2, rule.source)
        .with(6, &rule.priority.to_ne_bytes())
        .with(15, &rule.table.to_ne_bytes())
        .with(21, &[rule.protocol]);
    if rule.mark != 0 {
        message = message.with(10, &rule.mark.to_ne_bytes()).with(16, &MARKS.to_ne_bytes());
    }
    if rule.specific { message.with(14, &[0; 4]) } else { message }
}

#[cfg(test)]
mod tests;

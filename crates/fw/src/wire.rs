//! The rtnetlink objects that fw reads and writes: links, addresses, routes and rules of
//! rtnetlink(7).
//!
//! Pure, and no more than fw needs: this file turns netlink-packet-route's messages into fw's own
//! types and back. The crate is behind netd_core::wire::rtnetlink, which says what has to be
//! wrapped. Called by kernel.rs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netd_core::net::{AddrGen, Mac, VlanId};
use netd_core::wire::devconf::DevConf;
use netd_core::wire::link::{
    self, IFF_LOOPBACK, IFF_LOWER_UP, IFF_UP, IFINFOMSG_LEN, IFLA_ADDRESS, IFLA_AF_SPEC, IFLA_EXT_MASK, IFLA_GROUP,
    IFLA_IFNAME, IFLA_INET6_ADDR_GEN_MODE, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO,
    IFLA_MASTER, IFLA_MAX_MTU, IFLA_MIN_MTU, IFLA_MTU, IFLA_VLAN_ID, NewKind, NewLink, SKIP_STATS, VLAN,
};
use netd_core::wire::netlink::{
    AF_INET6, DEL_ADDRESS, DEL_ROUTE, DEL_RULE, DUMP, GET_ADDRESS, GET_LINK, GET_ROUTE, GET_RULE, Message, NEW_ADDRESS,
    NEW_ROUTE, NEW_RULE, REQUEST, attribute, attributes, ifinfomsg, u32_at,
};
use netd_core::wire::rtnetlink::{
    self, AddressAttribute, AddressFamily, AddressFlags, AddressMessage, CacheInfo, RouteAttribute, RouteFlags,
    RouteMessage, RouteProtocol, RouteType, RouteVia, RuleAction, RuleAttribute, RuleFlags, RuleMessage, route_ip,
};

use crate::have::{Address, Link, MARKS, Route, Rule};
use crate::model::{PROTOCOL, Prefix, Scope, TABLE_LOCAL};

/// A lifetime that does not end: `struct ifa_cacheinfo` of linux/if_addr.h.
const FOR_EVER: u32 = u32::MAX;
/// The prefix length below which a rule takes no route; all ones where it takes every one.
const SUPPRESS_DEFAULT: u32 = 0;
const SUPPRESS_NOTHING: u32 = u32::MAX;

/// Asks for every link, without statistics.
pub fn dump_links() -> Message {
    Message::new(GET_LINK, DUMP, &ifinfomsg(0, 0)).with(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes())
}

/// Asks for every address.
pub fn dump_addresses() -> Message {
    Message::of(GET_ADDRESS, DUMP, &AddressMessage::default())
}

/// Asks for every route of a family.
pub fn dump_routes(family: AddressFamily) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    Message::of(GET_ROUTE, DUMP, &message)
}

/// Asks for the rules of all families.
pub fn dump_rules() -> Message {
    Message::of(GET_RULE, DUMP, &RuleMessage::default())
}

/// `struct ifinfomsg`: family u8, pad u8, type u16, index i32 at 4, flags u32 at 8, change mask u32
/// at 12.
pub fn decode_link(payload: &[u8]) -> Option<Link> {
    let index = u32_at(payload, 4)?;
    let flags = u32_at(payload, 8)?;
    let mut link = Link {
        index,
        up: flags & IFF_UP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(payload.get(IFINFOMSG_LEN..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_MIN_MTU => link.min_mtu = u32_at(value, 0)?,
            IFLA_MAX_MTU => link.max_mtu = u32_at(value, 0)?,
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            IFLA_LINK => link.parent = u32_at(value, 0)?,
            IFLA_LINK_NETNSID => link.parent_is_elsewhere = true,
            IFLA_MASTER => link.master = u32_at(value, 0)?,
            IFLA_GROUP => link.group = u32_at(value, 0)?,
            IFLA_LINKINFO => {
                link.kind = attribute(value, IFLA_INFO_KIND).map(text);
                link.vlan =
                    attribute(value, IFLA_INFO_DATA).filter(|_| link.kind.as_deref() == Some(VLAN)).and_then(vlan);
            }
            IFLA_AF_SPEC => (link.addr_gen, link.conf) = (addr_gen(value), DevConf::decode(value)),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

/// RTM_NEWLINK for a bridge or a VLAN.
pub fn encode_link(link: &Link) -> Message {
    let vlan = link.vlan.and_then(VlanId::new);
    let kind = vlan.map_or(NewKind::Bridge, |id| NewKind::Vlan { parent: link.parent, id });
    link::make(&NewLink { ifindex: link.index, name: &link.name, group: link.group, mac: link.mac, kind })
}

/// A string, with or without a NUL at its end.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}

/// The number in the data of a VLAN.
fn vlan(data: &[u8]) -> Option<u16> {
    attribute(data, IFLA_VLAN_ID)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The mode in the attributes of IPv6.
fn addr_gen(families: &[u8]) -> Option<AddrGen> {
    let six = attribute(families, AF_INET6.into())?;
    attribute(six, IFLA_INET6_ADDR_GEN_MODE)?.first().and_then(|number| AddrGen::from_number(*number))
}

/// The address in a message. `None` for one that is malformed.
pub fn decode_address(payload: &[u8]) -> Option<Address> {
    let object = rtnetlink::address(payload)?;
    let (mut local, mut remote) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(object.header.flags.bits().into());
    let (mut broadcast, mut lifetime, mut metric, mut protocol) = (None, None, 0, 0);
    for attribute in object.attributes {
        match attribute {
            AddressAttribute::Address(ip) => remote = Some(ip),
            AddressAttribute::Local(ip) => local = Some(ip),
            AddressAttribute::Broadcast(ip) => broadcast = Some(ip),
            AddressAttribute::CacheInfo(info) => {
                lifetime = Some(info.ifa_valid).filter(|secs| *secs != FOR_EVER);
            }
            AddressAttribute::Flags(all) => flags = all,
            AddressAttribute::RoutePriority(number) => metric = number,
            AddressAttribute::Protocol(number) => protocol = number.into(),
            _ => {}
        }
    }
    Some(Address {
        index: object.header.index,
        // IFA_LOCAL is the interface's own; IPv6 has IFA_ADDRESS alone.
        address: Prefix::new(local.or(remote)?, object.header.prefix_len)?,
        broadcast,
        scope: Scope::from_number(object.header.scope.into()),
        lifetime: lifetime.map(|secs| Duration::from_secs(secs.into())),
        kernel_prefix_route: !flags.contains(AddressFlags::Noprefixroute),
        no_dad: flags.contains(AddressFlags::Nodad),
        metric,
        protocol,
        autoconf: flags.contains(AddressFlags::Managetempaddr),
    })
}

/// RTM_NEWADDR for one of ours. `flags`: CREATE | EXCLUSIVE, or REPLACE to renew the lifetime.
pub fn encode_address(address: &Address, flags: u16) -> Message {
    let secs = address.lifetime.map_or(FOR_EVER, |d| u32::try_from(d.as_secs()).unwrap_or(FOR_EVER - 1));
    // The kernel ignores the two time stamps.
    let mut cache = CacheInfo::default();
    (cache.ifa_preferred, cache.ifa_valid) = (secs, secs);
    let prefix_route = if address.kernel_prefix_route { AddressFlags::empty() } else { AddressFlags::Noprefixroute };
    let no_dad = if address.no_dad { AddressFlags::Nodad } else { AddressFlags::empty() };
    let mut message = address_message(address);
    message.attributes.extend(address.broadcast.map(AddressAttribute::Broadcast));
    message.attributes.extend([
        AddressAttribute::CacheInfo(cache),
        AddressAttribute::Flags(prefix_route | no_dad),
        AddressAttribute::Protocol(PROTOCOL.into()),
    ]);
    message.attributes.extend(Some(address.metric).filter(|m| *m != 0).map(AddressAttribute::RoutePriority));
    Message::of(NEW_ADDRESS, REQUEST | flags, &message)
}

/// RTM_DELADDR.
pub fn delete_address(address: &Address) -> Message {
    Message::of(DEL_ADDRESS, REQUEST, &address_message(address))
}

fn address_message(address: &Address) -> AddressMessage {
    let Prefix { ip, len } = address.address;
    let mut message = AddressMessage::default();
    message.header.family = family(ip.is_ipv4());
    message.header.prefix_len = len;
    message.header.scope = address.scope.number().into();
    message.header.index = address.index;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

fn family(v4: bool) -> AddressFamily {
    if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The route in a message. `None` for the kernel's local table, for a cached entry and for one that
/// is malformed.
pub fn decode_route(payload: &[u8]) -> Option<Route> {
    let rtnetlink::Object { header, attributes, .. } = rtnetlink::route(payload)?;
    let default = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let len = header.destination_prefix_length;
    let mut route = Route {
        index: 0,
        next_hops: rtnetlink::next_hops(payload),
        destination: Prefix::new(default, len)?,
        gateway: None,
        onlink: header.flags.contains(RouteFlags::Onlink),
        dead: header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown),
        metric: 0,
        table: header.table.into(),
        scope: Scope::from_number(header.scope.into()),
        source: None,
        tos: header.tos,
        protocol: header.protocol.into(),
        unicast: header.kind == RouteType::Unicast,
    };
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(to) => route.destination = Prefix::new(route_ip(&to)?, len)?,
            RouteAttribute::Oif(index) => route.index = index,
            RouteAttribute::Gateway(router) => route.gateway = route_ip(&router),
            RouteAttribute::Priority(metric) => route.metric = metric,
            RouteAttribute::PrefSource(source) => route.source = route_ip(&source),
            RouteAttribute::Table(table) => route.table = table,
            // A router of another family than the route's.
            RouteAttribute::Via(RouteVia::Inet(router)) => route.gateway = Some(router.into()),
            RouteAttribute::Via(RouteVia::Inet6(router)) => route.gateway = Some(router.into()),
            _ => {}
        }
    }
    if !route.unicast {
        // IPv6 says that an unreachable route leads to the loopback, IPv4 names no interface.
        route.index = 0;
    }
    (!header.flags.contains(RouteFlags::Cloned) && route.table != TABLE_LOCAL).then_some(route)
}

/// RTM_NEWROUTE with the given extra flags.
pub fn encode_route(route: &Route, flags: u16) -> Message {
    Message::of(NEW_ROUTE, REQUEST | flags, &route_message(route))
}

/// RTM_DELROUTE of exactly this route.
pub fn delete_route(route: &Route) -> Message {
    Message::of(DEL_ROUTE, REQUEST, &route_message(route))
}

fn route_message(route: &Route) -> RouteMessage {
    let Prefix { ip, len } = route.destination;
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(ip.is_ipv4());
    header.destination_prefix_length = len;
    header.tos = route.tos;
    header.table = u8::try_from(route.table).unwrap_or(0);
    header.protocol = RouteProtocol::from(route.protocol);
    header.scope = route.scope.number().into();
    header.kind = if route.unicast { RouteType::Unicast } else { RouteType::Unreachable };
    header.flags = if route.onlink { RouteFlags::Onlink } else { RouteFlags::empty() };
    let attributes = &mut message.attributes;
    attributes.extend(Some(ip).filter(|_| len > 0).map(|ip| RouteAttribute::Destination(ip.into())));
    attributes.extend([RouteAttribute::Table(route.table), RouteAttribute::Priority(route.metric)]);
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.extend(route.gateway.map(|router| match router.is_ipv4() == ip.is_ipv4() {
        true => RouteAttribute::Gateway(router.into()),
        false => RouteAttribute::Via(router.into()),
    }));
    attributes.extend(Some(route.index).filter(|index| *index != 0).map(RouteAttribute::Oif));
    message
}

/// The rule in a message. `None` without FRA_PROTOCOL, which every rule has since Linux 4.17.
pub fn decode_rule(payload: &[u8]) -> Option<Rule> {
    let rtnetlink::Object { header, attributes, others } = rtnetlink::rule(payload)?;
    let v4 = match header.family {
        AddressFamily::Inet => true,
        AddressFamily::Inet6 => false,
        _ => return None,
    };
    let leads_to_table =
        (header.dst_len, header.tos, header.action, header.flags) == (0, 0, RuleAction::ToTable, RuleFlags::empty());
    let mut protocol = None;
    let mut rule = Rule {
        priority: 0,
        v4,
        source: None,
        mark: 0,
        table: header.table.into(),
        specific: false,
        protocol: 0,
        plain: leads_to_table && others.is_empty(),
    };
    for attribute in attributes {
        match attribute {
            RuleAttribute::Source(ip) => {
                rule.source = Prefix::new(ip, header.src_len);
                rule.plain &= rule.source.is_some();
            }
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::FwMark(mark) => rule.mark = mark,
            RuleAttribute::SuppressPrefixLen(len) => {
                rule.specific = len == SUPPRESS_DEFAULT;
                rule.plain &= rule.specific || len == SUPPRESS_NOTHING;
            }
            RuleAttribute::Table(table) => rule.table = table,
            RuleAttribute::FwMask(mask) => rule.plain &= mask == MARKS,
            RuleAttribute::Protocol(number) => protocol = Some(number.into()),
            _ => rule.plain = false,
        }
    }
    rule.protocol = protocol?;
    Some(rule)
}

/// RTM_NEWRULE with the given extra flags.
pub fn encode_rule(rule: &Rule, flags: u16) -> Message {
    Message::of(NEW_RULE, REQUEST | flags, &rule_message(rule))
}

/// RTM_DELRULE of exactly this rule.
pub fn delete_rule(rule: &Rule) -> Message {
    Message::of(DEL_RULE, REQUEST, &rule_message(rule))
}

fn rule_message(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.v4);
    message.header.src_len = rule.source.map_or(0, |source| source.len);
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    message.header.action = RuleAction::ToTable;
    let attributes = &mut message.attributes;
    attributes.extend(rule.source.map(|source| RuleAttribute::Source(source.ip)));
    attributes.extend([
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(rule.protocol.into()),
    ]);
    if rule.mark != 0 {
        attributes.extend([RuleAttribute::FwMark(rule.mark), RuleAttribute::FwMask(MARKS)]);
    }
    if rule.specific {
        attributes.push(RuleAttribute::SuppressPrefixLen(SUPPRESS_DEFAULT));
    }
    message
}

#[cfg(test)]
mod tests;

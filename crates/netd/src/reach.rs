//! What other interfaces carry: the kernel's IPv4 routes but those of one interface, and which of
//! them lead into a tunnel.
//!
//! A snapshot on request, for a daemon that has to know what a stranger's route would take away
//! (CVE-2024-3661). The socket is opened once, at the start. `Snapshot` is pure. Called by the DHCP
//! client. Layouts: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::netlink::{Netlink, Object, ROUTE};
use netd_core::wire::link::{IFINFOMSG_LEN, IFLA_INFO_KIND, IFLA_LINKINFO};
use netd_core::wire::netlink::{DUMP, GET_LINK, GET_ROUTE, Message, attribute, ifinfomsg, u32_at};
use netd_core::wire::rtnetlink::{
    self, AddressFamily, RTA_MULTIPATH, RouteAttribute, RouteMessage, RouteType, route_ip,
};

/// RT_TABLE_LOCAL of linux/rtnetlink.h, the kernel's own: addresses of this machine.
const TABLE_LOCAL: u32 = 255;
/// Kinds of interfaces that carry packets inside packets. Not ppp: that is an uplink where there is
/// PPPoE.
const TUNNELS: &str = "tun wireguard ovpn ovpn-dco ipip gre gretap erspan sit ip6tnl ip6gre ip6gretap ip6erspan \
    vti vti6 xfrm";
/// Datagrams of one answer that are read: about 100,000 routes.
const MAX_DATAGRAMS: usize = 200;

/// A network that another interface carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The network.
    pub net: Ipv4Addr,
    /// Its prefix length.
    pub len: u8,
    /// It is on that interface's link, not behind a router.
    pub on_link: bool,
    /// That interface is a tunnel.
    pub tunnel: bool,
}

impl Reached {
    /// Whether all of `net/len` is in it.
    pub fn contains(&self, net: Ipv4Addr, len: u8) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.len)).unwrap_or(0);
        self.len <= len && (u32::from(net) ^ u32::from(self.net)) & mask == 0
    }
}

/// Who can be asked.
pub struct Reach(Netlink);

impl Reach {
    /// Opens its socket.
    pub fn open() -> io::Result<Reach> {
        Netlink::open(ROUTE).map(Reach)
    }

    /// All that interfaces other than `ifindex` carry now, in any table.
    pub fn elsewhere(&mut self, ifindex: u32) -> io::Result<Vec<Reached>> {
        let links = self.0.dump_within(MAX_DATAGRAMS, &Message::new(GET_LINK, DUMP, &ifinfomsg(0, 0)))?;
        let mut all = RouteMessage::default();
        all.header.address_family = AddressFamily::Inet;
        let routes = self.0.dump_within(MAX_DATAGRAMS, &Message::of(GET_ROUTE, DUMP, &all))?;
        Ok(elsewhere(&links, &routes, ifindex))
    }
}

/// What interfaces other than `ifindex` carry, of two dumps.
fn elsewhere(links: &[Object], routes: &[Object], ifindex: u32) -> Vec<Reached> {
    let tunnels: HashSet<u32> = links.iter().filter_map(|(_, payload)| tunnel(payload)).collect();
    let routes = routes.iter().filter_map(|(_, payload)| route(payload));
    let others = routes.filter(|(index, _)| *index != ifindex);
    others.map(|(index, reached)| Reached { tunnel: tunnels.contains(&index), ..reached }).collect()
}

/// The index of an interface that is a tunnel.
fn tunnel(payload: &[u8]) -> Option<u32> {
    let info = attribute(payload.get(IFINFOMSG_LEN..)?, IFLA_LINKINFO)?;
    let kind = attribute(info, IFLA_INFO_KIND)?;
    let kind = kind.strip_suffix(&[0]).unwrap_or(kind);
    is_tunnel(kind).then(|| u32_at(payload, 4))?
}

/// Whether links of this kind (IFLA_INFO_KIND) carry packets inside packets.
pub fn is_tunnel(kind: &[u8]) -> bool {
    TUNNELS.split(' ').any(|name| name.as_bytes() == kind)
}

/// A route, and the index of its interface; 0 for several at once.
fn route(payload: &[u8]) -> Option<(u32, Reached)> {
    let rtnetlink::Object { header, attributes, others } = rtnetlink::route(payload)?;
    let (mut index, mut table) = (0, u32::from(header.table));
    let (mut net, mut on_link) = (Ipv4Addr::UNSPECIFIED, !others.contains(&RTA_MULTIPATH));
    for attribute in attributes {
        match attribute {
            RouteAttribute::Destination(to) => match route_ip(&to)? {
                IpAddr::V4(ip) => net = ip,
                IpAddr::V6(_) => return None,
            },
            RouteAttribute::Oif(oif) => index = oif,
            RouteAttribute::Table(number) => table = number,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => on_link = false,
            _ => {}
        }
    }
    let len = header.destination_prefix_length;
    let is_ours = header.address_family == AddressFamily::Inet && header.kind == RouteType::Unicast;
    (is_ours && table != TABLE_LOCAL && len <= 32).then_some((index, Reached { net, len, on_link, tunnel: false }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use netd_core::wire::netlink::{NEW_LINK, NEW_ROUTE};
    use netd_core::wire::rtnetlink::RouteVia;

    fn body(message: Message) -> Vec<u8> {
        message.finish(0)[16..].to_vec()
    }

    fn link(index: u32, kind: &[u8]) -> Object {
        let kind = body(Message::new(0, 0, &[]).with(IFLA_INFO_KIND, kind));
        (NEW_LINK, body(Message::new(NEW_LINK, 0, &ifinfomsg(index, 0)).with(IFLA_LINKINFO, &kind)))
    }

    fn kernel_route(len: u8, table: u8, kind: RouteType, attributes: &[RouteAttribute]) -> Object {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = len;
        message.header.table = table;
        message.header.kind = kind;
        message.attributes = attributes.to_vec();
        (NEW_ROUTE, body(Message::of(NEW_ROUTE, 0, &message)))
    }

    fn to(net: [u8; 4]) -> RouteAttribute {
        RouteAttribute::Destination(Ipv4Addr::from(net).into())
    }

    #[test]
    fn routes_of_the_others_are_told_with_what_they_lead_into() {
        use RouteAttribute::{Gateway, MultiPath, Oif, Table, Via};
        use RouteType::{BlackHole, Unicast};
        let router = Gateway(Ipv4Addr::new(1, 1, 1, 1).into());
        let six = Via(RouteVia::Inet6("fe80::1".parse().unwrap()));
        let routes = [
            kernel_route(24, 254, Unicast, &[to([192, 168, 1, 0]), Oif(2)]),
            kernel_route(0, 0, Unicast, &[Table(51_820), Oif(3)]),
            kernel_route(8, 254, Unicast, &[to([10; 4]), Oif(2), router]),
            kernel_route(8, 254, Unicast, &[to([14; 4]), Oif(2), six]),
            kernel_route(8, 254, Unicast, &[to([15; 4]), MultiPath(Vec::new())]),
            // Its own, this machine's, and one that leads nowhere.
            kernel_route(8, 254, Unicast, &[to([11; 4]), Oif(9)]),
            kernel_route(32, 255, Unicast, &[to([12; 4]), Oif(2)]),
            kernel_route(32, 254, BlackHole, &[to([13; 4])]),
        ];
        let reached = |net: [u8; 4], len, on_link, tunnel| Reached { net: net.into(), len, on_link, tunnel };
        assert_eq!(
            elsewhere(&[link(2, b"veth\0"), link(3, b"wireguard\0")], &routes, 9),
            [
                reached([192, 168, 1, 0], 24, true, false),
                reached([0; 4], 0, true, true),
                reached([10; 4], 8, false, false),
                reached([14; 4], 8, false, false),
                reached([15; 4], 8, false, false),
            ]
        );
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics() {
        let (_, whole) = link(3, b"tun\0");
        let (_, other) = kernel_route(24, 254, RouteType::Unicast, &[to([1; 4])]);
        for bytes in [whole, other] {
            for at in 0..bytes.len() {
                let _ = (tunnel(&bytes[..at]), route(&bytes[..at]));
                for flip in [0xff, 1, 0x80] {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= flip;
                    let _ = (tunnel(&bytes), route(&bytes));
                }
            }
        }
    }

    #[test]
    fn a_tunnel_is_known_by_its_whole_kind() {
        for (kind, want) in
            [("ovpn-dco\0", true), ("vti", true), ("vti6\0", true), ("vt\0", false), ("tun wireguard", false)]
        {
            assert_eq!(tunnel(&link(3, kind.as_bytes()).1), want.then_some(3), "{kind}");
        }
        assert_eq!(tunnel(&link(3, b"\0").1), None);
    }

    #[test]
    fn containment() {
        let net = |len| Reached { net: [10, 1, 0, 0].into(), len, on_link: true, tunnel: false };
        for (len, other, other_len, want) in [
            (16, [10, 1, 2, 0], 24, true),
            (16, [10, 1, 0, 0], 16, true),
            (16, [10, 0, 0, 0], 8, false),
            (16, [10, 2, 0, 0], 24, false),
            (0, [1, 2, 3, 4], 32, true),
            (32, [10, 1, 0, 0], 32, true),
        ] {
            assert_eq!(net(len).contains(other.into(), other_len), want, "{len} {other:?}/{other_len}");
        }
    }
}

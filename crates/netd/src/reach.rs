//! What other interfaces carry: the kernel's IPv4 routes but those of one interface, and which of them lead into a tunnel.
//!
//! A snapshot on request, for a daemon that has to know what a stranger's route would take away (CVE-2024-3661). The socket is
//! opened once, at the start. `Snapshot` is pure. Called by the DHCP client. Layouts: rtnetlink(7), linux/rtnetlink.h,
//! linux/if_link.h.

use std::collections::HashSet;
use std::io;
use std::net::Ipv4Addr;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use netd_core::wire::netlink::{
    AF_INET, DONE, DUMP, ERROR, GET_LINK, GET_ROUTE, Message, NEW_LINK, NEW_ROUTE, attribute, errno, ifinfomsg,
    messages, u32_at,
};

const RTMSG_LEN: usize = 12;
const IFINFOMSG_LEN: usize = 16;

const RTN_UNICAST: u8 = 1;
/// The kernel's own: addresses of this machine.
const TABLE_LOCAL: u32 = 255;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// Kinds of interfaces that carry packets inside packets. Not ppp: that is an uplink where there is PPPoE.
const TUNNELS: [&[u8]; 13] = [
    b"tun",
    b"wireguard",
    b"ovpn",
    b"ipip",
    b"gre",
    b"gretap",
    b"erspan",
    b"sit",
    b"ip6tnl",
    b"ip6gre",
    b"vti",
    b"xfrm",
    b"ovpn-dco",
];
/// Room for one datagram: the kernel sends none above 32 KiB.
const DATAGRAM: usize = 32 * 1024;
/// Datagrams of one answer that are read: about 100,000 routes.
const MAX_DATAGRAMS: u32 = 200;

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
pub struct Reach {
    socket: Socket,
    seq: u32,
}

impl Reach {
    /// Opens its socket.
    pub fn open() -> io::Result<Reach> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Reach { socket, seq: 0 })
    }

    /// All that interfaces other than `ifindex` carry now, in any table.
    pub fn elsewhere(&mut self, ifindex: u32) -> io::Result<Vec<Reached>> {
        let mut found = Snapshot::default();
        self.dump(GET_LINK, &ifinfomsg(0, 0), &mut found)?;
        let mut rtmsg = [0; RTMSG_LEN];
        rtmsg[0] = AF_INET;
        self.dump(GET_ROUTE, &rtmsg, &mut found)?;
        Ok(found.elsewhere(ifindex))
    }

    fn dump(&mut self, kind: u16, fixed: &[u8], found: &mut Snapshot) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        self.socket.send(&Message::new(kind, DUMP, fixed).finish(self.seq), 0)?;
        let mut buffer = Vec::with_capacity(DATAGRAM);
        for _ in 0..MAX_DATAGRAMS {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            match found.read(&buffer, self.seq) {
                Progress::More => {}
                Progress::Done => return Ok(()),
                Progress::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Err(io::Error::other("too many routes"))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    More,
    Done,
    Failed(i32),
}

#[derive(Default)]
struct Snapshot {
    tunnels: HashSet<u32>,
    /// With the interface's index; 0 for several at once.
    routes: Vec<(u32, Reached)>,
}

impl Snapshot {
    /// One datagram of the answer to `seq`.
    fn read(&mut self, datagram: &[u8], seq: u32) -> Progress {
        for (header, payload) in messages(datagram).filter(|(header, _)| header.sequence == seq) {
            match header.kind {
                DONE => return Progress::Done,
                ERROR => return Progress::Failed(errno(payload)),
                NEW_LINK => self.tunnels.extend(tunnel(payload)),
                NEW_ROUTE => self.routes.extend(route(payload)),
                _ => {}
            }
        }
        Progress::More
    }

    fn elsewhere(self, ifindex: u32) -> Vec<Reached> {
        let tunnels = self.tunnels;
        let others = self.routes.into_iter().filter(|(index, _)| *index != ifindex);
        others.map(|(index, reached)| Reached { tunnel: tunnels.contains(&index), ..reached }).collect()
    }
}

/// The index of an interface that is a tunnel.
fn tunnel(payload: &[u8]) -> Option<u32> {
    let info = attribute(payload.get(IFINFOMSG_LEN..)?, IFLA_LINKINFO)?;
    let kind = attribute(info, IFLA_INFO_KIND)?;
    let kind = kind.strip_suffix(&[0]).unwrap_or(kind);
    TUNNELS.contains(&kind).then(|| u32_at(payload, 4))?
}

fn route(payload: &[u8]) -> Option<(u32, Reached)> {
    let [family, len, _, _, table, _, _, kind, ..] = *payload.first_chunk::<RTMSG_LEN>()?;
    let attributes = payload.get(RTMSG_LEN..)?;
    let number = |kind| attribute(attributes, kind).and_then(|v| u32_at(v, 0));
    let table = number(RTA_TABLE).unwrap_or(table.into());
    if family != AF_INET || kind != RTN_UNICAST || table == TABLE_LOCAL || len > 32 {
        return None;
    }
    let net = attribute(attributes, RTA_DST).and_then(|v| v.first_chunk::<4>().copied()).unwrap_or_default();
    let behind = [RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH].into_iter().any(|kind| attribute(attributes, kind).is_some());
    Some((number(RTA_OIF).unwrap_or(0), Reached { net: net.into(), len, on_link: !behind, tunnel: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, seq: u32, body: &[u8]) -> Vec<u8> {
        Message::new(kind, 0, body).finish(seq)
    }

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        Message::new(0, 0, &[]).with(kind, value).finish(0)[16..].to_vec()
    }

    fn link(index: u32, kind: &[u8]) -> Vec<u8> {
        let info = attr(IFLA_LINKINFO, &attr(IFLA_INFO_KIND, kind));
        [ifinfomsg(index, 0), info].concat()
    }

    fn kernel_route(len: u8, table: u8, kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        [&[AF_INET, len, 0, 0, table, 0, 0, kind, 0, 0, 0, 0][..], &attributes.concat()].concat()
    }

    #[test]
    fn routes_of_the_others_are_told_with_what_they_lead_into() {
        let oif = |index: u32| attr(RTA_OIF, &index.to_ne_bytes());
        let lan = kernel_route(24, 254, RTN_UNICAST, &[attr(RTA_DST, &[192, 168, 1, 0]), oif(2)]);
        let vpn = kernel_route(0, 0, RTN_UNICAST, &[attr(RTA_TABLE, &51820_u32.to_ne_bytes()), oif(3)]);
        let routed = kernel_route(8, 254, RTN_UNICAST, &[attr(RTA_DST, &[10; 4]), oif(2), attr(RTA_GATEWAY, &[1; 4])]);
        let own = kernel_route(8, 254, RTN_UNICAST, &[attr(RTA_DST, &[11; 4]), oif(9)]);
        let local = kernel_route(32, 255, RTN_UNICAST, &[attr(RTA_DST, &[12; 4]), oif(2)]);
        let black = kernel_route(32, 254, 6, &[attr(RTA_DST, &[13; 4])]);
        let datagram: Vec<u8> =
            [lan, vpn, routed, own, local, black].iter().flat_map(|r| message(NEW_ROUTE, 7, r)).collect();
        let mut found = Snapshot::default();
        let links =
            [message(NEW_LINK, 6, &link(2, b"veth\0")), message(NEW_LINK, 6, &link(3, b"wireguard\0"))].concat();
        assert_eq!(found.read(&links, 6), Progress::More);
        assert_eq!(found.read(&datagram, 7), Progress::More);
        assert_eq!(found.read(&datagram, 8), Progress::More, "an old answer counts for nothing");
        assert_eq!(found.read(&message(DONE, 8, &[0; 4]), 8), Progress::Done);
        let reached = |net: [u8; 4], len, on_link, tunnel| Reached { net: net.into(), len, on_link, tunnel };
        assert_eq!(
            found.elsewhere(9),
            [
                reached([192, 168, 1, 0], 24, true, false),
                reached([0; 4], 0, true, true),
                reached([10; 4], 8, false, false)
            ]
        );
        assert_eq!(Snapshot::default().read(&message(ERROR, 1, &(-1_i32).to_ne_bytes()), 1), Progress::Failed(1));
    }

    #[test]
    fn no_prefix_and_no_flipped_byte_panics() {
        let whole = message(NEW_LINK, 1, &link(3, b"tun\0"));
        let route = message(NEW_ROUTE, 1, &kernel_route(24, 254, 1, &[attr(RTA_DST, &[1; 4])]));
        for bytes in [whole, route] {
            for at in 0..bytes.len() {
                Snapshot::default().read(&bytes[..at], 1);
                for flip in [0xff, 1, 0x80] {
                    let mut other = bytes.clone();
                    other[at] ^= flip;
                    Snapshot::default().read(&other, 1);
                }
            }
        }
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

//! Moving flows: when the default route turns to another uplink, the kernel's connection tracking
//! still sends masqueraded flows out with the old uplink's address. Their entries are deleted, so
//! that the next packet is masqueraded anew. No other entry is touched.
//!
//! ctnetlink (linux/netfilter/nfnetlink_conntrack.h). Decoding and choosing are pure; `Mover` is
//! the shell. fw looks the entries up BEFORE the routes change and deletes them at once after: the
//! kernel drops a packet in between, because its masquerading is for another interface. Called by
//! run.rs.

use std::fs;
use std::io;
use std::net::IpAddr;

use netd::netlink::{BATCH, NETFILTER, Netlink};
use netd_core::wire::netlink::{self, Message, NLA_F_NESTED};
use nix::libc;

use crate::have::{Have, Route};
use crate::model::{Prefix, TABLE_MAIN};

/// The subsystem is the upper byte of a message's type.
const CTNETLINK: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
/// IPCTNL_MSG_CT_GET.
const GET: u16 = CTNETLINK | 1;
/// IPCTNL_MSG_CT_DELETE.
const DELETE: u16 = CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_DST: u16 = 4;
/// IPS_SRC_NAT.
const SRC_NAT: u32 = 1 << 4;
/// Entries of this network namespace.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// A tracked connection, as far as it matters here. The raw parts name it to the kernel again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flow {
    /// Where its first packet went.
    destination: IpAddr,
    /// Where answers go: the address that it was masqueraded with.
    masqueraded_as: IpAddr,
    source_nat: bool,
    family: u8,
    tuple: Vec<u8>,
    id: Option<Vec<u8>>,
    zone: Option<Vec<u8>>,
}

/// `struct nfgenmsg`: family u8, version u8, resource id u16; then attributes. The status is
/// big-endian.
fn decode(payload: &[u8]) -> Option<Flow> {
    let family = *payload.first()?;
    let attributes = payload.get(4..)?;
    let original = netlink::attribute(attributes, CTA_TUPLE_ORIG)?;
    let reply = netlink::attribute(attributes, CTA_TUPLE_REPLY)?;
    let status = netlink::attribute(attributes, CTA_STATUS)?.first_chunk::<4>().map(|b| u32::from_be_bytes(*b))?;
    Some(Flow {
        destination: tuple_destination(original)?,
        masqueraded_as: tuple_destination(reply)?,
        source_nat: status & SRC_NAT != 0,
        family,
        tuple: original.to_vec(),
        id: netlink::attribute(attributes, CTA_ID).map(<[u8]>::to_vec),
        zone: netlink::attribute(attributes, CTA_ZONE).map(<[u8]>::to_vec),
    })
}

fn tuple_destination(tuple: &[u8]) -> Option<IpAddr> {
    let ip = netlink::attribute(tuple, CTA_TUPLE_IP)?;
    netlink::attribute(ip, CTA_IP_V4_DST).or_else(|| netlink::attribute(ip, CTA_IP_V6_DST)).and_then(netlink::ip)
}

/// With CTA_ID: a new connection with the same tuple is not taken for the old one.
fn delete(flow: &Flow) -> Message {
    let mut message = Message::new(DELETE, netlink::REQUEST, &[flow.family, 0, 0, 0])
        .with(CTA_TUPLE_ORIG | NLA_F_NESTED, &flow.tuple);
    if let Some(id) = &flow.id {
        message = message.with(CTA_ID, id);
    }
    match &flow.zone {
        Some(zone) => message.with(CTA_ZONE, zone),
        None => message,
    }
}

/// The best default route of a family in the main table. Whether its link is down at the moment
/// does not count: the kernel may have turned away from it already, and its flows have still to
/// move.
fn best_default(routes: &[Route], v4: bool) -> Option<&Route> {
    let defaults = routes
        .iter()
        .filter(|r| r.table == TABLE_MAIN && r.destination.is_default() && r.destination.ip.is_ipv4() == v4);
    defaults.min_by_key(|r| r.metric)
}

/// Addresses of the uplinks that lose the default route to another one.
pub fn losers(have: &Have, after: &[Route]) -> Vec<IpAddr> {
    let mut out = Vec::new();
    for v4 in [true, false] {
        if let (Some(old), Some(new)) = (best_default(&have.routes, v4), best_default(after, v4))
            && old.index != new.index
        {
            let of_old = have.addresses.iter().filter(|a| a.index == old.index && a.address.ip.is_ipv4() == v4);
            out.extend(of_old.map(|a| a.address.ip));
        }
    }
    out
}

/// Whether the default route leads there: no other route of the main table does.
fn follows_default(destination: IpAddr, routes: &[Route]) -> bool {
    let better =
        |r: &Route| r.table == TABLE_MAIN && !r.destination.is_default() && r.destination.contains(destination);
    !routes.iter().any(better)
}

fn has_to_move(flow: &Flow, losers: &[IpAddr], routes: &[Route], local: &[Prefix]) -> bool {
    flow.source_nat
        && losers.contains(&flow.masqueraded_as)
        && follows_default(flow.destination, routes)
        && !local.iter().any(|p| p.ip == flow.destination)
}

/// Deletes the flows of the losing uplinks.
pub struct Mover {
    netlink: Netlink,
    losers: Vec<IpAddr>,
    routes: Vec<Route>,
    local: Vec<Prefix>,
    flows: Vec<Flow>,
}

impl Mover {
    /// Looks the flows up, unless the kernel has turned away from the old default already (its link
    /// is down): then the routes are in a hurry, and [`Mover::sweep`] finds the flows afterwards. A
    /// look costs a walk over the whole table, 10 ms at its usual size. Without connection tracking
    /// in the kernel there are no flows to move.
    pub fn prepare(losers: Vec<IpAddr>, have: &Have, after: Vec<Route>) -> io::Result<Mover> {
        let netlink = Netlink::open(NETFILTER)?;
        let local = have.addresses.iter().map(|a| a.address).collect();
        let mut mover = Mover { netlink, losers, routes: after, local, flows: Vec::new() };
        let turned = [true, false].iter().all(|v4| best_default(&have.routes, *v4).is_none_or(|r| r.dead));
        if !turned {
            mover.flows = mover.look()?;
        }
        Ok(mover)
    }

    fn look(&mut self) -> io::Result<Vec<Flow>> {
        let mut out = Vec::new();
        if fs::read_to_string(COUNT).is_ok_and(|count| count.trim_end() == "0") {
            return Ok(out);
        }
        for family in [netlink::AF_INET, netlink::AF_INET6] {
            if !self.losers.iter().any(|ip| netlink::family(*ip) == family) {
                continue;
            }
            let entries = self.netlink.dump(&Message::new(GET, netlink::DUMP, &[family, 0, 0, 0]))?;
            let flows = entries.iter().filter_map(|(_, payload)| decode(payload));
            out.extend(flows.filter(|f| has_to_move(f, &self.losers, &self.routes, &self.local)));
        }
        Ok(out)
    }

    /// Deletes what was looked up. A flow that has ended meanwhile is no error.
    pub fn strike(&mut self) -> io::Result<usize> {
        let flows = std::mem::take(&mut self.flows);
        for chunk in flows.chunks(BATCH) {
            let first = self.netlink.send_batch(chunk.iter().map(delete))?;
            self.netlink.collect(first)?;
        }
        Ok(flows.len())
    }

    /// Once more, for flows that began between the look and the turn.
    pub fn sweep(&mut self) -> io::Result<usize> {
        self.flows = self.look()?;
        self.strike()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::have::Address;
    use crate::model::Scope;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let bytes = Message::new(0, 0, &[]).with(kind, value).finish(0);
        bytes[16..].to_vec()
    }

    const CTA_IP_V4_SRC: u16 = 1;

    fn entry(destination: [u8; 4], masqueraded_as: [u8; 4], status: u32) -> Vec<u8> {
        let tuple = |ip: [u8; 4]| {
            attr(CTA_TUPLE_IP | NLA_F_NESTED, &[attr(CTA_IP_V4_SRC, &[9, 9, 9, 9]), attr(CTA_IP_V4_DST, &ip)].concat())
        };
        [
            vec![netlink::AF_INET, 0, 0, 0],
            attr(CTA_TUPLE_ORIG | NLA_F_NESTED, &tuple(destination)),
            attr(CTA_TUPLE_REPLY | NLA_F_NESTED, &tuple(masqueraded_as)),
            attr(CTA_STATUS, &status.to_be_bytes()),
            attr(CTA_ID, &[1, 2, 3, 4]),
        ]
        .concat()
    }

    fn route(destination: &str, index: u32, metric: u32) -> Route {
        Route {
            index,
            next_hops: Vec::new(),
            destination: Prefix::parse(destination).unwrap(),
            gateway: None,
            onlink: false,
            dead: false,
            metric,
            table: TABLE_MAIN,
            scope: Scope::Global,
            source: None,
            tos: 0,
            protocol: 0,
            unicast: true,
        }
    }

    #[test]
    fn only_masqueraded_flows_of_the_loser_that_followed_the_default_move() {
        let losers = ["10.1.0.5".parse().unwrap()];
        let routes = [route("0/0", 2, 100), route("10.1/16", 1, 100)];
        let local = [Prefix::parse("10.2.0.5/16").unwrap()];
        let table = [
            ("moves", entry([8, 8, 8, 8], [10, 1, 0, 5], SRC_NAT), true),
            ("not masqueraded", entry([8, 8, 8, 8], [10, 1, 0, 5], 0), false),
            ("of the other uplink", entry([8, 8, 8, 8], [10, 2, 0, 5], SRC_NAT), false),
            ("to the loser's own network", entry([10, 1, 0, 9], [10, 1, 0, 5], SRC_NAT), false),
            ("to this host", entry([10, 2, 0, 5], [10, 1, 0, 5], SRC_NAT), false),
        ];
        for (what, bytes, want) in table {
            let flow = decode(&bytes).unwrap();
            assert_eq!(has_to_move(&flow, &losers, &routes, &local), want, "{what}");
        }
    }

    #[test]
    fn a_damaged_entry_is_no_flow() {
        let good = entry([8, 8, 8, 8], [10, 1, 0, 5], SRC_NAT);
        for cut in 0..good.len() - 12 {
            assert_eq!(decode(&good[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn losers_are_the_addresses_of_the_uplink_that_had_the_best_default() {
        let address = |index, text: &str| Address {
            index,
            address: Prefix::parse(text).unwrap(),
            broadcast: None,
            scope: Scope::Global,
            lifetime: None,
            kernel_prefix_route: false,
            protocol: 0,
            autoconf: false,
        };
        let mut have = Have {
            addresses: vec![address(1, "10.1.0.5/16"), address(2, "10.2.0.5/16"), address(1, "fe80::1/64")],
            routes: vec![route("0/0", 1, 100), route("0/0", 2, 200)],
            ..Have::default()
        };
        let demoted = [route("0/0", 1, 20_100), route("0/0", 2, 200)];
        assert_eq!(losers(&have, &demoted), ["10.1.0.5".parse::<IpAddr>().unwrap()]);
        assert_eq!(losers(&have, &have.routes), [] as [IpAddr; 0]);
        assert_eq!(losers(&have, &[]), [] as [IpAddr; 0], "nowhere to move to");
        have.routes.clear();
        assert_eq!(losers(&have, &demoted), [] as [IpAddr; 0]);
    }
}

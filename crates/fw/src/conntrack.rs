//! Moving flows: when connections have to leave another uplink than they began with, the kernel's
//! connection tracking still masquerades them with the old uplink's address, and the mark still
//! leads them there. Their entries are deleted, so that the next packet begins anew. No other entry
//! is touched.
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

use crate::change::Change;
use crate::have::{Have, MARKS, Route};
use crate::model::{Prefix, TABLE_MAIN};
use crate::want::{Routed, Want};
use crate::ways::{self, lists};

/// The subsystem is the upper byte of a message's type.
const CTNETLINK: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
/// IPCTNL_MSG_CT_GET.
const GET: u16 = CTNETLINK | 1;
/// IPCTNL_MSG_CT_DELETE.
const DELETE: u16 = CTNETLINK | 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
/// IPS_SRC_NAT.
const SRC_NAT: u32 = 1 << 4;
/// Entries of this network namespace.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// A tracked connection, as far as it matters here. The raw parts name it to the kernel again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flow {
    /// Where its first packet came from.
    source: IpAddr,
    /// Where that went.
    destination: IpAddr,
    /// Where answers go: the address that it was masqueraded with.
    masqueraded_as: IpAddr,
    source_nat: bool,
    /// Our bits of its mark: its uplink; 0: none.
    mark: u32,
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
    let mark = netlink::attribute(attributes, CTA_MARK).and_then(|value| value.first_chunk::<4>());
    Some(Flow {
        source: tuple_ip(original, [CTA_IP_V4_SRC, CTA_IP_V6_SRC])?,
        destination: tuple_ip(original, TO)?,
        masqueraded_as: tuple_ip(reply, TO)?,
        source_nat: status & SRC_NAT != 0,
        mark: mark.map_or(0, |bytes| u32::from_be_bytes(*bytes) & MARKS),
        family,
        tuple: original.to_vec(),
        id: netlink::attribute(attributes, CTA_ID).map(<[u8]>::to_vec),
        zone: netlink::attribute(attributes, CTA_ZONE).map(<[u8]>::to_vec),
    })
}

/// The attributes of a destination.
const TO: [u16; 2] = [CTA_IP_V4_DST, CTA_IP_V6_DST];

fn tuple_ip(tuple: &[u8], kinds: [u16; 2]) -> Option<IpAddr> {
    let ip = netlink::attribute(tuple, CTA_TUPLE_IP)?;
    kinds.into_iter().find_map(|kind| netlink::attribute(ip, kind)).and_then(netlink::ip)
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

/// The best default route of a family in a table. Whether its link is down at the moment does not
/// count: the kernel may have turned away from it already, and its flows have still to move.
fn best_default(routes: &[Route], table: u32, v4: bool) -> Option<&Route> {
    let defaults =
        routes.iter().filter(|r| r.table == table && r.destination.is_default() && r.destination.ip.is_ipv4() == v4);
    defaults.min_by_key(|r| r.metric)
}

/// An uplink whose flows of one family go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Loser {
    index: u32,
    v4: bool,
    /// The addresses that its flows are masqueraded with.
    addresses: Vec<IpAddr>,
    /// The mark of its flows; 0: they have none.
    mark: u32,
}

/// The uplinks whose flows move, because the uplink has gone or turned bad, or because a better one
/// is there again. In the last case they stay where fw.conf says so (failback), or where they have
/// been spread over several uplinks (balance).
fn losers(want: &Want, have: &Have, after: &[Route]) -> Vec<Loser> {
    let mut out: Vec<Loser> = Vec::new();
    for v4 in [true, false] {
        let best = |routes| best_default(routes, TABLE_MAIN, v4).map(|r| r.index);
        let Some(new) = best(after) else { continue };
        let is_default = |r: &&Route| r.destination.is_default() && r.destination.ip.is_ipv4() == v4;
        let had = have.routes.iter().filter(is_default).filter(|r| r.table == TABLE_MAIN && r.unicast);
        for route in had {
            let (index, name) = (route.index, have.name(route.index));
            let metric = |routes: &[Route]| {
                let its = routes.iter().filter(is_default).filter(|r| r.table == TABLE_MAIN && r.index == index);
                its.map(|r| r.metric).min()
            };
            let has_failed = match (metric(&have.routes), metric(after)) {
                (Some(before), Some(now)) => now > before && want.bad.contains(&name),
                (_, now) => now.is_none(),
            };
            let is_overtaken = best(&have.routes) == Some(index) && new != index;
            let stays = (want.stay && !want.metered.contains(&name)) || want.balance.iter().any(|(n, _)| *n == name);
            let moves = has_failed || (is_overtaken && !stays);
            if moves && !out.iter().any(|l| (l.index, l.v4) == (index, v4)) {
                let addresses = have.addresses.iter().filter(|a| a.index == index && a.address.ip.is_ipv4() == v4);
                let mark = want.numbers.iter().find(|(n, _)| *n == name).map_or(0, |(_, number)| ways::mark(*number));
                out.push(Loser { index, v4, addresses: addresses.map(|a| a.address.ip).collect(), mark });
            }
        }
    }
    out
}

/// Which flows have to move, by the changes of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    losers: Vec<Loser>,
    are_routed_anew: bool,
}

impl Turn {
    /// Of these changes, after which the routes are so.
    pub fn of(want: &Want, have: &Have, changes: &[Change], after: &[Route]) -> Turn {
        let is_of_list = |change: &Change| match change {
            Change::AddRule(rule) => want.routed.iter().any(|routed| Some(routed.source) == rule.source),
            _ => false,
        };
        Turn { losers: losers(want, have, after), are_routed_anew: changes.iter().any(is_of_list) }
    }

    /// No flow can have to move.
    pub fn is_none(&self) -> bool {
        self.losers.is_empty() && !self.are_routed_anew
    }
}

/// What decides where flows go from now on.
struct Map {
    losers: Vec<Loser>,
    /// Hosts have other uplinks than before (route_by): their flows by others move.
    are_routed_anew: bool,
    routes: Vec<Route>,
    local: Vec<Prefix>,
    routed: Vec<Routed>,
    numbers: Vec<(String, u8)>,
}

impl Map {
    /// Whether the default route leads there: no other route of the main table does.
    fn follows_default(&self, destination: IpAddr) -> bool {
        let better =
            |r: &Route| r.table == TABLE_MAIN && !r.destination.is_default() && r.destination.contains(destination);
        !self.routes.iter().any(better)
    }

    /// The interface by which a new connection of this host leaves; `None`: it is unreachable.
    fn goes_by(&self, source: IpAddr) -> Option<u32> {
        let of_source = self.routed.iter().filter(|r| r.source.contains(source)).max_by_key(|r| r.source.len);
        let table = of_source.map_or(TABLE_MAIN, |routed| lists::table(&routed.uplinks, &self.numbers));
        best_default(&self.routes, table, source.is_ipv4()).filter(|r| r.unicast).map(|r| r.index)
    }

    /// Whether the mark leads the flow by an uplink that its host's list does not have.
    fn strays(&self, flow: &Flow) -> bool {
        let of_source = self.routed.iter().filter(|r| r.source.contains(flow.source)).max_by_key(|r| r.source.len);
        let uplink = self.numbers.iter().find(|(_, number)| ways::mark(*number) == flow.mark).map(|(name, _)| name);
        of_source.zip(uplink).is_some_and(|(routed, uplink)| !routed.uplinks.contains(uplink))
    }

    fn has_to_move(&self, flow: &Flow) -> bool {
        self.leaves_by_default(flow) && ((self.are_routed_anew && self.strays(flow)) || self.has_lost(flow))
    }

    fn leaves_by_default(&self, flow: &Flow) -> bool {
        self.follows_default(flow.destination) && !self.local.iter().any(|p| p.ip == flow.destination)
    }

    fn has_lost(&self, flow: &Flow) -> bool {
        let is_of = |loser: &&Loser| {
            let masqueraded = flow.source_nat && loser.addresses.contains(&flow.masqueraded_as);
            let marked = flow.mark != 0 && flow.mark == loser.mark && flow.destination.is_ipv4() == loser.v4;
            masqueraded || marked
        };
        self.losers.iter().find(is_of).is_some_and(|loser| self.goes_by(flow.source) != Some(loser.index))
    }
}

/// Deletes the flows of the losing uplinks.
pub struct Mover {
    netlink: Netlink,
    map: Map,
    flows: Vec<Flow>,
}

impl Mover {
    /// Looks the flows up, unless the kernel has turned away from the old default already (its link
    /// is down): then the routes are in a hurry, and [`Mover::sweep`] finds the flows afterwards. A
    /// look costs a walk over the whole table, 10 ms at its usual size. Without connection tracking
    /// in the kernel there are no flows to move.
    pub fn prepare(turn: Turn, want: &Want, have: &Have, after: Vec<Route>) -> io::Result<Mover> {
        let netlink = Netlink::open(NETFILTER)?;
        let local = have.addresses.iter().map(|a| a.address).collect();
        let (routed, numbers) = (want.routed.clone(), want.numbers.clone());
        let Turn { losers, are_routed_anew } = turn;
        let map = Map { losers, are_routed_anew, routes: after, local, routed, numbers };
        let mut mover = Mover { netlink, map, flows: Vec::new() };
        let turned = [true, false].iter().all(|v4| best_default(&have.routes, TABLE_MAIN, *v4).is_none_or(|r| r.dead));
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
            let v4 = family == netlink::AF_INET;
            if !self.map.are_routed_anew && !self.map.losers.iter().any(|loser| loser.v4 == v4) {
                continue;
            }
            let entries = self.netlink.dump(&Message::new(GET, netlink::DUMP, &[family, 0, 0, 0]))?;
            let flows = entries.iter().filter_map(|(_, payload)| decode(payload));
            out.extend(flows.filter(|f| self.map.has_to_move(f)));
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
    use crate::model::Scope;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let bytes = Message::new(0, 0, &[]).with(kind, value).finish(0);
        bytes[16..].to_vec()
    }

    fn entry(destination: [u8; 4], masqueraded_as: [u8; 4], status: u32) -> Vec<u8> {
        marked_entry(destination, masqueraded_as, status, 0)
    }

    fn marked_entry(destination: [u8; 4], masqueraded_as: [u8; 4], status: u32, mark: u32) -> Vec<u8> {
        let tuple = |ip: [u8; 4]| {
            attr(CTA_TUPLE_IP | NLA_F_NESTED, &[attr(CTA_IP_V4_SRC, &[9, 9, 9, 9]), attr(CTA_IP_V4_DST, &ip)].concat())
        };
        [
            vec![netlink::AF_INET, 0, 0, 0],
            attr(CTA_TUPLE_ORIG | NLA_F_NESTED, &tuple(destination)),
            attr(CTA_TUPLE_REPLY | NLA_F_NESTED, &tuple(masqueraded_as)),
            attr(CTA_STATUS, &status.to_be_bytes()),
            attr(CTA_MARK, &mark.to_be_bytes()),
            attr(CTA_ID, &[1, 2, 3, 4]),
        ]
        .concat()
    }

    fn route(destination: &str, index: u32, metric: u32) -> Route {
        Route { metric, scope: Scope::Global, protocol: 0, ..crate::have::tests::route(destination, index) }
    }

    fn loser(index: u32, addresses: &[&str], mark: u32) -> Loser {
        Loser { index, v4: true, addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(), mark }
    }

    fn map(losers: Vec<Loser>, routes: Vec<Route>) -> Map {
        let local = vec![Prefix::parse("10.2.0.5/16").unwrap()];
        Map {
            losers,
            are_routed_anew: false,
            routes,
            local,
            routed: Vec::new(),
            numbers: vec![("eth0".into(), 1), ("eth1".into(), 2)],
        }
    }

    #[test]
    fn only_flows_of_the_loser_that_followed_the_default_move() {
        let map = map(vec![loser(1, &["10.1.0.5"], 1 << 24)], vec![route("0/0", 2, 100), route("10.1/16", 1, 100)]);
        let table = [
            ("moves", entry([8, 8, 8, 8], [10, 1, 0, 5], SRC_NAT), true),
            ("not masqueraded", entry([8, 8, 8, 8], [10, 1, 0, 5], 0), false),
            ("of the other uplink", entry([8, 8, 8, 8], [10, 2, 0, 5], SRC_NAT), false),
            ("to the loser's own network", entry([10, 1, 0, 9], [10, 1, 0, 5], SRC_NAT), false),
            ("to this host", entry([10, 2, 0, 5], [10, 1, 0, 5], SRC_NAT), false),
            ("marked", marked_entry([8, 8, 8, 8], [9, 9, 9, 9], 0, 0x0100_0077), true),
            ("marked with another", marked_entry([8, 8, 8, 8], [9, 9, 9, 9], 0, 0x0200_0077), false),
            ("marked, to this host", marked_entry([10, 2, 0, 5], [9, 9, 9, 9], 0, 1 << 24), false),
        ];
        for (what, bytes, want) in table {
            assert_eq!(map.has_to_move(&decode(&bytes).unwrap()), want, "{what}");
        }
    }

    #[test]
    fn a_flow_that_has_nowhere_else_to_go_stays() {
        let uplinks = ["eth0".to_owned(), "eth1".to_owned()];
        let mut map = map(vec![loser(1, &["10.1.0.5"], 0)], vec![route("0/0", 2, 100), route("0/0", 1, 20_100)]);
        let flow = decode(&entry([8, 8, 8, 8], [10, 1, 0, 5], SRC_NAT)).unwrap();
        for (uplinks, metrics, moves) in
            [(&uplinks[..1], [101_000, 0], false), (&uplinks, [101_000, 2000], true), (&uplinks[1..], [0, 1000], true)]
        {
            // The host that the flow is of, and a network around it that has other uplinks.
            map.routed = vec![
                Routed { source: Prefix::parse("9.9.9.9").unwrap(), uplinks: uplinks.to_vec() },
                Routed { source: Prefix::parse("9.9.0.0/16").unwrap(), uplinks: vec!["eth1".into()] },
            ];
            let table = lists::table(uplinks, &map.numbers);
            map.routes.retain(|r| r.table == TABLE_MAIN);
            for (metric, index) in metrics.into_iter().zip(1..).filter(|(metric, _)| *metric > 0) {
                map.routes.push(Route { table, ..route("0/0", index, metric) });
            }
            assert_eq!(map.has_to_move(&flow), moves, "{uplinks:?}");
        }
    }

    #[test]
    fn flows_of_a_host_that_got_uplinks_of_its_own_leave_the_others() {
        let mut map = map(Vec::new(), vec![route("0/0", 1, 100), route("0/0", 2, 200)]);
        let flow = |mark| decode(&marked_entry([8, 8, 8, 8], [10, 1, 0, 5], SRC_NAT, mark)).unwrap();
        let by = |source: &str, uplink: &str| Routed {
            source: Prefix::parse(source).unwrap(),
            uplinks: vec![uplink.to_owned()],
        };
        map.routed = vec![by("9.9.0.0/16", "eth0"), by("9.9.9.9", "eth1")];
        assert!(!map.has_to_move(&flow(1 << 24)), "nothing of it is new");
        map.are_routed_anew = true;
        assert_eq!([0, 1 << 24, 2 << 24].map(|mark| map.has_to_move(&flow(mark))), [false, true, false]);
        map.routed = vec![by("9.8.0.0/16", "eth1")];
        assert!(!map.has_to_move(&flow(1 << 24)), "another host's");
    }

    #[test]
    fn a_damaged_entry_is_no_flow() {
        let good = entry([8, 8, 8, 8], [10, 1, 0, 5], SRC_NAT);
        // Its mark and its number are not needed.
        for cut in 0..good.len() - 20 {
            assert_eq!(decode(&good[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn losers_are_the_addresses_of_the_uplink_that_had_the_best_default() {
        let address = |index, text: &str| crate::have::tests::address(text, index);
        let link = |index, name: &str| crate::have::Link { index, name: name.into(), ..Default::default() };
        let mut have = Have {
            links: vec![link(1, "eth0"), link(2, "eth1")],
            addresses: vec![address(1, "10.1.0.5/16"), address(2, "10.2.0.5/16"), address(1, "fe80::1/64")],
            routes: vec![route("0/0", 1, 100), route("0/0", 2, 200)],
            ..Have::default()
        };
        let numbers = vec![("eth0".to_owned(), 1), ("eth1".to_owned(), 2)];
        let bad = |name: &str| Want { bad: vec![name.into()], numbers: numbers.clone(), ..Want::default() };
        let [eth0, eth1] = [loser(1, &["10.1.0.5"], 1 << 24), loser(2, &["10.2.0.5"], 2 << 24)];
        let demoted = [route("0/0", 1, 20_100), route("0/0", 2, 200)];
        assert_eq!(losers(&bad("eth0"), &have, &demoted), std::slice::from_ref(&eth0));
        assert_eq!(losers(&bad("eth0"), &have, &demoted[1..]), std::slice::from_ref(&eth0), "gone");
        assert_eq!(losers(&bad("eth0"), &have, &have.routes), []);
        assert_eq!(losers(&bad("eth0"), &have, &[]), [], "nowhere to move to");
        let standby = [route("0/0", 1, 100), route("0/0", 2, 20_200)];
        assert_eq!(
            losers(&bad("eth1"), &have, &standby),
            std::slice::from_ref(&eth1),
            "connections may have been spread"
        );
        // The first uplink is back.
        let back = std::mem::replace(&mut have.routes, demoted.to_vec());
        let want = Want { numbers: numbers.clone(), ..Want::default() };
        let stay = Want { stay: true, ..want.clone() };
        let metered = Want { metered: vec!["eth1".into()], ..stay.clone() };
        let balance = Want { balance: vec![("eth0".into(), 2), ("eth1".into(), 1)], ..want.clone() };
        for (want, expected) in
            [(&want, vec![eth1.clone()]), (&stay, vec![]), (&metered, vec![eth1]), (&balance, vec![])]
        {
            assert_eq!(losers(want, &have, &back), expected, "{want:?}");
        }
        // Renamed places are no failure.
        let other = [route("0/0", 2, 100), route("0/0", 1, 200)];
        have.routes = back;
        assert_eq!((losers(&want, &have, &other), losers(&stay, &have, &other)), (vec![eth0], vec![]));
        have.routes.clear();
        assert_eq!(losers(&want, &have, &demoted), []);
    }
}

//! Which packets leave by which uplink, beside the main table: rules of ip-rule(8), and tables of
//! routes.
//!
//! Pure. Each uplink has a table with its networks and its routers, and these rules lead there, so
//! that an answer leaves by the uplink that the question came in on:
//!
//! 1. from ADDRESS, lookup TABLE, no default: the uplink's own network. Those of two uplinks may
//!    have the same numbers.
//! 2. from ADDRESS, lookup main, no default: the routes that the main table knows better, as to
//!    LANs and VPNs.
//! 3. from ADDRESS, lookup TABLE.
//!
//! Three more rules match a mark. Answers of hosts behind this machine bear it, and connections
//! that stay with their uplink (firewall/marks.rs); questions bear it too, where a rule of the
//! administrator copies the connection's mark to its packets.
//!
//! A table without a usable route, because its link is dead or its routes are gone, leads on to the
//! main one. After these rules come those of lists.rs, whose tables lead nowhere else. The order in
//! which fw makes the rules does not matter, and the rules that a killed run leaves do no harm.
//! Called by plan.rs.

use crate::change::Change;
use crate::have::{Have, Route, Rule};
use crate::model::{PROTOCOL, Prefix, TABLE_MAIN, bits, is_link_local};
use crate::want::{Want, WantRoute};

pub mod lists;

use lists::List;

/// The base of the table numbers: the route protocol, and room for all uplinks.
const TABLES: u32 = PROTOCOL as u32 * 1000;
/// Right before the rule of the main table (32766), so that the rules of other programs, a VPN's
/// above all, decide first. A rule that ip(8) adds without a priority comes before the first one,
/// too. The rules of lists come last and move the others forward.
const PRIORITY: u32 = 32_763;
/// From the first of the three rules to the one that asks the main table.
const MAIN_FIRST: u32 = 1;

/// The table of an uplink.
pub fn table(number: u8) -> u32 {
    TABLES + u32::from(number)
}

/// The mark of a connection that came in by this uplink.
pub fn mark(number: u8) -> u32 {
    u32::from(number) << 24
}

/// An uplink that has a default route of this family in the main table, and so a table of its own.
struct Way<'a> {
    interface: &'a str,
    number: u8,
    v4: bool,
}

/// Where a route stands beside the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Table.
    pub table: u32,
    /// Metric; `None`: the one that the kernel gives to a route without any.
    pub metric: Option<u32>,
}

/// The ways of all uplinks and lists, as far as they are needed, supported and safe.
pub struct Ways<'a> {
    ways: Vec<Way<'a>>,
    lists: Vec<List<'a>>,
    bad: &'a [String],
}

impl<'a> Ways<'a> {
    /// Of these uplinks and routes. `removable` tells which routes of the kernel are not in the
    /// way.
    pub fn new(want: &'a Want, have: &Have, removable: &dyn Fn(&Route) -> bool) -> Ways<'a> {
        let families: Vec<bool> =
            [true, false].into_iter().filter(|v4| are_possible(want, have, *v4, removable)).collect();
        let mut ways = Vec::new();
        for ((interface, number), v4) in want.numbers.iter().flat_map(|n| families.iter().map(move |v4| (n, *v4))) {
            let is_default = |r: &&WantRoute| is_default_of_main(r.table, &r.destination, v4);
            if want.routes.iter().filter(is_default).any(|r| r.interface == *interface) {
                ways.push(Way { interface, number: *number, v4 });
            }
        }
        Ways { ways, lists: lists::all(want, have), bad: &want.bad }
    }

    /// The other tables in which a route of the main one stands.
    pub fn places(&self, route: &WantRoute) -> Vec<Place> {
        let own = route.is_prefix_route && !is_link_local(route.destination.ip);
        if route.table != TABLE_MAIN || !(own || route.destination.is_default()) {
            return Vec::new();
        }
        let is_its = |w: &&Way| w.interface == route.interface && w.v4 == route.destination.ip.is_ipv4();
        let way = self.ways.iter().find(is_its).map(|w| Place { table: table(w.number), metric: None });
        let lists = self.lists.iter().filter(|_| route.destination.is_default());
        let in_lists = lists.filter_map(|l| Some(Place { table: l.table, metric: Some(l.metric(route, self.bad)?) }));
        way.into_iter().chain(in_lists).collect()
    }

    /// The routes that end the tables of lists.
    pub fn ends(&self) -> impl Iterator<Item = Route> {
        self.lists.iter().map(List::end)
    }

    /// Compares the rules. An equal rule of another program counts as there, and stays that
    /// program's.
    pub fn changes(&self, want: &Want, have: &Have) -> Vec<Change> {
        let (v4, v6): (Vec<&Way>, Vec<&Way>) = self.ways.iter().partition(|w| w.v4);
        let ways = v4.into_iter().chain(v6).filter(|w| have.link(w.interface).is_some());
        let mut wanted: Vec<Rule> = ways.flat_map(|way| self.rules(way, want, have)).collect();
        wanted.extend(lists::rules(want, have));
        let is_in = |rule: &Rule, rules: &[Rule]| rules.iter().any(|r| Rule { protocol: rule.protocol, ..*r } == *rule);
        let adds = wanted.iter().filter(|w| !is_in(w, &have.rules)).map(|rule| Change::AddRule(*rule));
        let ours = have.rules.iter().filter(|h| h.protocol == PROTOCOL && h.plain);
        let mut gone: Vec<&Rule> = ours.filter(|h| !is_in(h, &wanted)).collect();
        // A host's rule may have moved behind an old one of the network that it is in: that one
        // goes first.
        applet::sort::sort_by_key(&mut gone, |rule| rule.source.map_or(0, |source| source.len));
        adds.chain(gone.into_iter().map(|rule| Change::DelRule(*rule))).collect()
    }

    /// The rules that lead to this table. The only uplink has none for its own network, which
    /// nothing else has: a better route of the main table counts there.
    fn rules(&self, way: &Way, want: &Want, have: &Have) -> Vec<Rule> {
        let mut rules = Vec::new();
        let (own, v4, first) = (table(way.number), way.v4, PRIORITY - lists::room(want));
        let others = self.ways.iter().filter(|w| w.interface != way.interface && w.v4 == v4);
        let is_alone = !others.into_iter().any(|w| have.link(w.interface).is_some());
        let mut add = |source, mark| {
            for (step, table, specific) in [(0, own, true), (MAIN_FIRST, TABLE_MAIN, true), (2, own, false)] {
                let (priority, protocol) = (first + step, PROTOCOL);
                if step > 0 || !is_alone {
                    rules.push(Rule { priority, v4, source, mark, table, specific, protocol, plain: true });
                }
            }
        };
        for address in want.addresses.iter().filter(|a| a.interface == way.interface) {
            let ip = address.address.ip;
            // Two routers of one make may give the same address to both uplinks. Such an address
            // does not tell the uplink.
            let is_shared = want.addresses.iter().any(|o| o.interface != way.interface && o.address.ip == ip);
            if ip.is_ipv4() == v4 && !is_link_local(ip) && !is_shared {
                add(Prefix::new(ip, bits(ip)), 0);
            }
        }
        if want.marks {
            add(None, mark(way.number));
        }
        rules
    }
}

fn is_default_of_main(table: u32, destination: &Prefix, v4: bool) -> bool {
    table == TABLE_MAIN && destination.is_default() && destination.ip.is_ipv4() == v4
}

/// Whether rules for this family are supported and safe. A kernel without rules shows none, and one
/// before 4.17 does not say whose they are; the first has no tables either, and would put the
/// routes into the main one. When a foreign default route comes before ours, as a VPN's or its
/// blackhole, no packet may get round it.
fn are_possible(want: &Want, have: &Have, v4: bool, removable: &dyn Fn(&Route) -> bool) -> bool {
    let is_default = |table: u32, destination: &Prefix| is_default_of_main(table, destination, v4);
    let ours =
        || want.routes.iter().filter(|r| is_default(r.table, &r.destination) && have.link(&r.interface).is_some());
    let first = ours().map(|r| r.metric).min();
    let before =
        |r: &Route| is_default(r.table, &r.destination) && !removable(r) && first.is_none_or(|f| r.metric <= f);
    first.is_some() && have.rules.iter().any(|r| r.v4 == v4) && !have.routes.iter().any(before)
}

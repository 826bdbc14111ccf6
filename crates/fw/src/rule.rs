//! Answers leave by the uplink that the question came in on: rules of ip-rule(8), and for each uplink a table of routes.
//!
//! Pure. Where two or more uplinks have a default route, each has a table with its networks and its routers, and these lead there:
//!
//! 1. from ADDRESS, lookup TABLE, no default: the uplink's own network. Those of two uplinks may have the same numbers.
//! 2. from ADDRESS, lookup main, no default: what the main table knows better, as LANs and VPNs.
//! 3. from ADDRESS, lookup TABLE.
//!
//! The same three for a mark, which answers of hosts behind us bear (nft.rs), and the questions too where somebody gives packets the
//! whole mark of their connection.
//!
//! A table that has nothing to say, because its link is dead or its routes are gone, leads on to the main one. Nothing depends on the
//! order in which they are made, and what a killed run leaves is no worse than none. conf.rs asks for them, plan.rs compares.

use std::fmt;
use std::net::IpAddr;

use crate::conf::is_link_local;
use crate::model::{Have, PROTOCOL, Prefix, Route, TABLE_MAIN, Want, WantRoute};
use crate::plan::{Change, Plan};

/// The bits of a packet's and of a connection's mark that are ours: the number of an uplink.
pub const MARKS: u32 = 0xff00_0000;
/// Table of the uplink with number 0, if there were one: the route protocol, and room for all numbers.
const TABLES: u32 = PROTOCOL as u32 * 1000;
/// Right before the rule of the main table (32766): whatever rules somebody else has, a VPN's above all, they decide first. One
/// that ip(8) adds without a priority comes before the first one, too.
const PRIORITY: u32 = 32_763;

/// The table of an uplink.
pub fn table(number: u8) -> u32 {
    TABLES + u32::from(number)
}

/// The mark of a connection that came in by this uplink.
pub fn mark(number: u8) -> u32 {
    u32::from(number) << 24
}

/// A rule that leads to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The lowest is asked first.
    pub priority: u32,
    /// IPv4.
    pub v4: bool,
    /// Packets from this address.
    pub source: Option<IpAddr>,
    /// Packets with this number under [`MARKS`]; 0: any.
    pub mark: u32,
    /// Where they are looked up.
    pub table: u32,
    /// The default route there does not count (suppress_prefixlength 0).
    pub specific: bool,
    /// Who made it.
    pub protocol: u8,
    /// It has nothing else about it. Ours are so.
    pub plain: bool,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.source.map_or("all".to_owned(), |ip| ip.to_string());
        write!(f, "from {from}")?;
        if self.mark != 0 {
            write!(f, " fwmark {:#x}/{MARKS:#x}", self.mark)?;
        }
        write!(f, " lookup {}{}", self.table, if self.specific { " suppress_prefixlength 0" } else { "" })?;
        write!(f, " priority {}", self.priority)
    }
}

/// Says of each route whether it stands in its uplink's own table, too.
pub fn give_ways(routes: &mut [WantRoute], numbers: &[(String, u8)]) {
    for ((name, number), v4) in numbers.iter().flat_map(|n| [(n, true), (n, false)]) {
        let of = |r: &WantRoute| r.table == TABLE_MAIN && r.interface == *name && r.destination.ip.is_ipv4() == v4;
        if !routes.iter().any(|r| of(r) && r.destination.is_default()) {
            continue;
        }
        for route in routes.iter_mut().filter(|r| of(r)) {
            let own = route.is_prefix_route && !is_link_local(route.destination.ip);
            if own || route.destination.is_default() {
                route.way = table(*number);
            }
        }
    }
}

/// The rules of a family that lead to these tables.
fn rules(want: &Want, have: &Have, v4: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (name, number) in &want.numbers {
        let (table, protocol) = (table(*number), PROTOCOL);
        let has_way = want.routes.iter().any(|r| r.way == table && r.destination.ip.is_ipv4() == v4);
        if !has_way || have.link(name).is_none() {
            continue;
        }
        let mut add = |source, mark| {
            for (step, table, specific) in [(0, table, true), (1, TABLE_MAIN, true), (2, table, false)] {
                let priority = PRIORITY + step;
                rules.push(Rule { priority, v4, source, mark, table, specific, protocol, plain: true });
            }
        };
        for address in want.addresses.iter().filter(|a| a.interface == *name) {
            let ip = address.address.ip;
            // Two routers of one make give the same address to both uplinks: it says nothing about where a packet has to go.
            let is_shared = want.addresses.iter().any(|o| o.interface != *name && o.address.ip == ip);
            if ip.is_ipv4() == v4 && !is_link_local(ip) && !is_shared {
                add(Some(ip), 0);
            }
        }
        if want.marks {
            add(None, mark(*number));
        }
    }
    rules
}

/// Whether there shall, can and may be rules for this family. With one uplink there is nothing to choose. A kernel without them shows
/// none, and one before 4.17 does not say whose they are; the first has no tables either, and would put the routes into the main one.
/// When a default route of somebody else comes before ours, as a VPN's or the blackhole that keeps packets inside it, nothing may get
/// round it.
pub fn are_possible(want: &Want, have: &Have, v4: bool, removable: &dyn Fn(&Route) -> bool) -> bool {
    let default = |table: u32, destination: &Prefix| {
        table == TABLE_MAIN && destination.is_default() && destination.ip.is_ipv4() == v4
    };
    let ours = || want.routes.iter().filter(|r| default(r.table, &r.destination) && have.link(&r.interface).is_some());
    let several = ours().any(|r| ours().any(|o| o.interface != r.interface));
    let first = ours().map(|r| r.metric).min();
    let before = |r: &Route| default(r.table, &r.destination) && !removable(r) && first.is_none_or(|f| r.metric <= f);
    several && have.rules.iter().any(|r| r.v4 == v4) && !have.routes.iter().any(before)
}

/// Compares. One that somebody else has made just so counts as there and stays his.
pub fn plan(want: &Want, have: &Have, [v4, v6]: [bool; 2], plan: &mut Plan) {
    let mut wanted = if v4 { rules(want, have, true) } else { Vec::new() };
    if v6 {
        wanted.extend(rules(want, have, false));
    }
    let is_in = |rule: &Rule, rules: &[Rule]| rules.iter().any(|r| Rule { protocol: rule.protocol, ..*r } == *rule);
    for rule in wanted.iter().filter(|w| !is_in(w, &have.rules)) {
        plan.changes.push(Change::AddRule(*rule));
    }
    for rule in have.rules.iter().filter(|h| h.protocol == PROTOCOL && h.plain && !is_in(h, &wanted)) {
        plan.changes.push(Change::DelRule(*rule));
    }
}

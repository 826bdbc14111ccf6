//! Hosts and networks that leave by uplinks of their own (`route_by`): a table for each list of
//! uplinks, and rules that lead there.
//!
//! Pure. The table has the default routes of its uplinks in their order, a bad one behind the
//! others, and at the end an unreachable route. That names no interface, so it stays when an
//! address, a link or fw itself goes: a host whose uplinks are gone is told so, and leaves by no
//! other. The kernel turns to the next route by itself when a cable is pulled, as it does in the
//! main table.
//!
//! The number of a table says which uplinks it has: 213 and two digits for each. So it means the
//! same in every run, and no edit of fw.conf leads a host for a moment by the uplinks of another
//! one. Called by ways.rs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::have::{Have, Route, Rule};
use crate::model::{PROTOCOL, Prefix, Scope, TABLE_MAIN};
use crate::want::{Routed, Want, WantRoute};

use super::{MAIN_FIRST, PRIORITY};

/// The tables of lists begin here: the route protocol, and two digits for each of three uplinks.
const TABLES: u32 = PROTOCOL as u32 * 1_000_000;
/// The largest number of an uplink that a table's number can say.
const MAX_NUMBER: u8 = 99;
/// Between two uplinks of a list, so that a second router of the first one fits in between.
const METRIC_STEP: u32 = 1000;
/// A bad uplink comes after all good ones.
const METRIC_BAD: u32 = 100_000;
/// The metric of the unreachable route. The kernel's own one has the largest of all.
const METRIC_LAST: u32 = u32::MAX - 1;

/// The table of a list, for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<'a> {
    pub(super) table: u32,
    v4: bool,
    uplinks: &'a [String],
}

/// The number of a list's table.
pub fn table(uplinks: &[String], numbers: &[(String, u8)]) -> u32 {
    let number = |name: &String| numbers.iter().find(|(n, number)| n == name && *number <= MAX_NUMBER);
    let digits = uplinks.iter().zip([10_000, 100, 1]).map(|(name, factor)| {
        // Without a number it has no route either.
        number(name).map_or(0, |(_, number)| u32::from(*number) * factor)
    });
    TABLES + digits.sum::<u32>()
}

/// Whether a table of this number is a list's.
pub fn is_table(number: u32) -> bool {
    (TABLES..TABLES + 1_000_000).contains(&number)
}

/// The tables of all lists. A kernel without policy routing has neither rules nor tables, and would
/// put the routes into the main one.
pub(super) fn all<'a>(want: &'a Want, have: &Have) -> Vec<List<'a>> {
    let mut out: Vec<List> = Vec::new();
    for routed in &want.routed {
        let v4 = routed.source.ip.is_ipv4();
        let list = List { table: table(&routed.uplinks, &want.numbers), v4, uplinks: &routed.uplinks };
        if have.rules.iter().any(|r| r.v4 == v4) && !out.iter().any(|o| (o.table, o.v4) == (list.table, v4)) {
            out.push(list);
        }
    }
    out
}

/// The line for a kernel that cannot do it.
pub fn in_vain(want: &Want, have: &Have) -> Option<String> {
    let lacks = |v4: bool| {
        let is_asked = want.routed.iter().any(|routed| routed.source.ip.is_ipv4() == v4);
        is_asked && !have.rules.iter().any(|r| r.v4 == v4)
    };
    let families: Vec<&str> =
        [(true, "IPv4"), (false, "IPv6")].into_iter().filter(|f| lacks(f.0)).map(|f| f.1).collect();
    let text = || format!("fw.conf: route_by: this kernel has no policy routing for {}: left out", families.join(", "));
    (!families.is_empty()).then(text)
}

impl List<'_> {
    /// The metric that a default route has in this table, when it is one of its uplinks.
    pub(super) fn metric(&self, route: &WantRoute, bad: &[String]) -> Option<u32> {
        if route.destination.ip.is_ipv4() != self.v4 {
            return None;
        }
        let place = self.uplinks.iter().position(|name| *name == route.interface)?;
        let behind = if bad.contains(&route.interface) { METRIC_BAD } else { 0 };
        Some(METRIC_STEP * u32::try_from(place + 1).ok()? + behind)
    }

    /// What ends the table.
    pub(super) fn end(&self) -> Route {
        let any = if self.v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        Route {
            index: 0,
            next_hops: Vec::new(),
            destination: Prefix::default_of(any),
            gateway: None,
            onlink: false,
            dead: false,
            metric: METRIC_LAST,
            table: self.table,
            scope: Scope::Global,
            source: None,
            tos: 0,
            protocol: PROTOCOL,
            unicast: false,
        }
    }
}

/// In how many other networks of fw.conf this one is.
fn depth(source: Prefix, all: &[Routed]) -> u32 {
    let around = all.iter().filter(|o| o.source.len < source.len && o.source.contains(source.ip));
    u32::try_from(around.count()).unwrap_or(0)
}

/// How many priorities the rules of the lists need.
pub(super) fn room(want: &Want) -> u32 {
    want.routed.iter().map(|routed| depth(routed.source, &want.routed) + 1).max().unwrap_or(0)
}

/// The rules of all lists. A host comes before the network that it is in, also in the order in
/// which the rules are made: else the network's could come before a host's old one.
pub(super) fn rules(want: &Want, have: &Have) -> Vec<Rule> {
    let last = PRIORITY + MAIN_FIRST + 1;
    let mut out = Vec::new();
    let mut all: Vec<&Routed> = want.routed.iter().collect();
    applet::sort::sort_by_key(&mut all, |routed| std::cmp::Reverse(routed.source.len));
    for routed in all {
        let (source, v4) = (routed.source, routed.source.ip.is_ipv4());
        if !have.rules.iter().any(|r| r.v4 == v4) {
            continue;
        }
        let own = table(&routed.uplinks, &want.numbers);
        let rule = Rule {
            priority: last - depth(source, &want.routed),
            v4,
            source: Some(source),
            mark: 0,
            table: own,
            specific: false,
            protocol: PROTOCOL,
            plain: true,
        };
        let before = PRIORITY + MAIN_FIRST - room(want);
        out.extend([Rule { priority: before, table: TABLE_MAIN, specific: true, ..rule }, rule]);
    }
    out
}

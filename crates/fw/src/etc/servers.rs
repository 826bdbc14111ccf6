//! Which name servers count, and in which order. PURE.
//!
//! Called by text.rs and resolv.rs. The facts come from run.rs by way of etc.rs.

use std::net::IpAddr;

use crate::have::Have;
use crate::input::Input;
use crate::model::{PROTOCOL, TABLE_MAIN};
use crate::record::Entry;
use crate::want::Want;

/// What the files of /etc are made of.
pub struct Facts<'a> {
    /// The records that count now.
    pub records: Vec<&'a Entry>,
    /// The addresses of this machine, those that it has and those that it should have.
    pub own: Vec<IpAddr>,
    /// The uplinks, with the metric of each one's best default route. A demoted one has a large
    /// metric.
    pub metrics: Vec<(&'a str, u32)>,
    /// Interfaces of zones.
    pub inside: Vec<&'a str>,
    /// `dns="self"` of fw.conf: the programs of this machine ask its own dnsmasq.
    pub asks_itself: bool,
    /// All that is ours goes (`fw down`).
    pub goes: bool,
}

/// Who reads the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The C library, by resolv.conf.
    Library,
    /// dnsmasq. It must never be told to ask itself.
    Dnsmasq,
}

/// How a record's servers stand in the line: smaller is asked earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// The administrator's own, on an interface that is no uplink.
    Named,
    /// Of an uplink, by the metric of its default route.
    Uplink(u32),
    /// Of a lease or a tunnel without a default route: it may know its own names only.
    Aside,
    /// Of an uplink that the link watcher or the pinger calls bad.
    Bad(u32),
}

impl<'a> Facts<'a> {
    /// What this run knows.
    pub fn new(input: &'a Input, want: &'a Want, have: &Have) -> Facts<'a> {
        let defaults = want.routes.iter().filter(|r| r.destination.is_default() && r.table == TABLE_MAIN);
        let mut metrics: Vec<(&str, u32)> = Vec::new();
        for route in defaults {
            match metrics.iter_mut().find(|(name, _)| *name == route.interface) {
                Some((_, best)) => *best = route.metric.min(*best),
                None => metrics.push((&route.interface, route.metric)),
            }
        }
        // An address of ours that is there and not wanted has gone when the files are written.
        let of_others = have.addresses.iter().filter(|a| a.protocol != PROTOCOL);
        let own = of_others.map(|a| a.address.ip).chain(want.addresses.iter().map(|a| a.address.ip));
        Facts {
            records: input.records.iter().map(|(entry, _)| entry).collect(),
            own: own.collect(),
            metrics,
            inside: want.zones.inside.iter().map(|inside| inside.interface.as_str()).collect(),
            asks_itself: input.policy.names.asks_itself,
            goes: input.goes,
        }
    }

    fn place(&self, entry: &Entry) -> Place {
        let metric = self.metrics.iter().find(|(name, _)| *name == entry.interface()).map(|(_, metric)| *metric);
        let is_bad = self.records.iter().any(|other| other.interface() == entry.interface() && other.is_bad());
        match (metric, is_bad) {
            (Some(metric), false) => Place::Uplink(metric),
            (Some(metric), true) => Place::Bad(metric),
            (None, true) => Place::Bad(u32::MAX),
            (None, false) if entry.is_static => Place::Named,
            (None, false) => Place::Aside,
        }
    }

    /// The records that count for name service, in order: those that say something about it, and of
    /// them those with the highest `dns_prio`.
    pub fn resolving(&self, reader: Reader) -> Vec<&'a Entry> {
        let says = |e: &&Entry| !e.network.dnsmasq.is_empty() || self.servers(e, reader).next().is_some();
        let mut with: Vec<&Entry> = self.records.iter().copied().filter(says).collect();
        let highest = with.iter().map(|e| e.network.dns_prio).max();
        with.retain(|e| Some(e.network.dns_prio) == highest);
        applet::sort::sort_by_key(&mut with, |e| self.place(e));
        with
    }

    /// The servers of a record that this reader can ask.
    pub fn servers(&self, entry: &'a Entry, reader: Reader) -> impl Iterator<Item = IpAddr> {
        entry.network.said.dns.iter().copied().filter(move |ip| self.is_askable(entry, *ip, reader))
    }

    /// A lease may name this machine: the server's configuration is one for the whole network, or a
    /// mistake. An administrator may name the own dnsmasq for the C library.
    fn is_askable(&self, entry: &Entry, ip: IpAddr, reader: Reader) -> bool {
        match (reader, entry.is_static) {
            (Reader::Library, true) => true,
            (Reader::Library, false) => !self.is_own(ip) && (!ip.is_loopback() || entry.interface() == "lo"),
            (Reader::Dnsmasq, is_static) => {
                !self.is_own(ip) && (!ip.is_loopback() || is_static || entry.interface() == "lo")
            }
        }
    }

    /// Whether dnsmasq here answers at this address.
    pub fn is_own(&self, ip: IpAddr) -> bool {
        [LOCALHOST_V4, LOCALHOST_V6].contains(&ip) || self.own.contains(&ip)
    }

    /// The address of this machine's own dnsmasq. 127.0.0.1, unless the loopback interface has ::1
    /// alone.
    pub fn itself(&self) -> IpAddr {
        let has = |ip| self.own.contains(&ip);
        if has(LOCALHOST_V6) && !has(LOCALHOST_V4) { LOCALHOST_V6 } else { LOCALHOST_V4 }
    }
}

/// What dnsmasq binds on the loopback interface.
const LOCALHOST_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const LOCALHOST_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, facts};
    use super::*;

    fn servers(facts: &Facts, reader: Reader) -> Vec<String> {
        facts.resolving(reader).iter().flat_map(|e| facts.servers(e, reader)).map(|ip| ip.to_string()).collect()
    }

    fn lease(text: &[(&str, &str)]) -> Entry {
        Entry { is_static: false, ..entry(text) }
    }

    #[test]
    fn servers_follow_the_metrics_of_their_uplinks_and_bad_ones_come_last() {
        let a = lease(&[("if", "eth0"), ("dns", "192.0.2.53")]);
        let b = lease(&[("if", "eth1"), ("dns", "198.51.100.53")]);
        let own = entry(&[("if", "lan0"), ("dns", "10.0.0.53")]);
        let aside = lease(&[("if", "wlan0"), ("dns", "10.9.9.9")]);
        let mut facts = facts(&[&a, &aside, &b, &own]);
        facts.metrics = vec![("eth0", 200), ("eth1", 100)];
        let order = ["10.0.0.53", "198.51.100.53", "192.0.2.53", "10.9.9.9"];
        assert_eq!(servers(&facts, Reader::Library), order);
        assert_eq!(servers(&facts, Reader::Dnsmasq), order);
        let bad = lease(&[("if", "eth1"), ("health", "down")]);
        facts.records.push(&bad);
        facts.metrics = vec![("eth0", 200), ("eth1", 20_100)];
        let order = ["10.0.0.53", "192.0.2.53", "10.9.9.9", "198.51.100.53"];
        assert_eq!(servers(&facts, Reader::Library), order);
        // Both are bad: the one in use, which fw does not demote, comes first of the two.
        let worse = lease(&[("if", "eth0"), ("health", "down")]);
        facts.records.push(&worse);
        facts.metrics = vec![("eth0", 20_200), ("eth1", 100)];
        assert_eq!(servers(&facts, Reader::Library)[2..], ["198.51.100.53", "192.0.2.53"]);
    }

    #[test]
    fn a_lease_that_names_this_machine_does_not_make_it_ask_itself() {
        let a = lease(&[("if", "eth0"), ("dns", "10.0.0.1 127.0.0.1 127.0.0.53 ::1 192.0.2.53")]);
        let mut facts = facts(&[&a]);
        facts.own = vec!["10.0.0.1".parse().unwrap()];
        assert_eq!(servers(&facts, Reader::Library), ["192.0.2.53"]);
        assert_eq!(servers(&facts, Reader::Dnsmasq), ["192.0.2.53"]);
    }

    #[test]
    fn an_administrator_may_name_the_own_dnsmasq_and_it_does_not_ask_itself() {
        let own = entry(&[("if", "lo"), ("dns", "127.0.0.1"), ("dns_prio", "9")]);
        let a = lease(&[("if", "eth0"), ("dns", "192.0.2.53")]);
        let facts = facts(&[&own, &a]);
        assert_eq!(servers(&facts, Reader::Library), ["127.0.0.1"]);
        assert_eq!(servers(&facts, Reader::Dnsmasq), ["192.0.2.53"]);
        // Another resolver of this machine is another server.
        let other = entry(&[("if", "lo"), ("dns", "127.0.0.53")]);
        let facts = super::super::tests::facts(&[&other]);
        assert_eq!(servers(&facts, Reader::Dnsmasq), ["127.0.0.53"]);
    }
}

//! What a hook is told: which changes its name asks for, what has changed since it was told last,
//! and its environment. PURE.
//!
//! A hook is told of levels and not of edges: each has its own memory of the state that it was told
//! last, and hears the difference to the state of now. Called by hooks.rs.

use std::net::IpAddr;

use netd_core::net::{DomainName, IfName};

use crate::etc::servers::{Facts, Reader};
use crate::etc::text::push_new;
use crate::have::Have;
use crate::input::memory::Memory;
use crate::model::{Prefix, TABLE_MAIN};
use crate::want::Want;

/// What a hook can ask for with the first word of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The interface of the best default route.
    Uplink,
    /// The addresses of an interface.
    Address,
    /// The networks of these addresses.
    Prefix,
    /// The name servers and the domains to search.
    Dns,
}

/// The words, for messages.
pub const WORDS: &str = "uplink, address, prefix, dns";

/// What the name of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A hook of this kind.
    Hook(Kind),
    /// No hook: a hidden file, or an editor's copy.
    Aside,
    /// It begins with none of the words.
    Unknown,
}

impl Named {
    /// The letters up to the first other character are the word.
    pub fn of(name: &str) -> Named {
        if name.starts_with('.') || name.ends_with('~') {
            return Named::Aside;
        }
        let end = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
        name.get(..end).and_then(Kind::parse).map_or(Named::Unknown, Named::Hook)
    }
}

impl Kind {
    fn parse(word: &str) -> Option<Kind> {
        Some(match word {
            "uplink" => Kind::Uplink,
            "address" => Kind::Address,
            "prefix" => Kind::Prefix,
            "dns" => Kind::Dns,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Kind::Uplink => "uplink",
            Kind::Address => "address",
            Kind::Prefix => "prefix",
            Kind::Dns => "dns",
        }
    }
}

/// What hooks can be told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    uplink: Option<IfName>,
    /// Each interface once, with its addresses, sorted.
    addresses: Vec<(IfName, Vec<Prefix>)>,
    dns: Vec<IpAddr>,
    search: Vec<DomainName>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    interface: String,
    old: String,
    new: String,
}

impl State {
    /// What this run has made. `made` has the addresses on all links, also on those that this run
    /// has made; `have` is from before.
    pub fn new(want: &Want, have: &Have, made: &Memory, facts: &Facts) -> State {
        let there = |name: &str| have.link(name).is_some() || made.addresses.iter().any(|(n, _)| n == name);
        let defaults = want.routes.iter().filter(|r| r.destination.is_default() && r.table == TABLE_MAIN);
        let best = defaults.filter(|r| there(&r.interface)).min_by_key(|r| r.metric);
        let mut state = State { uplink: best.and_then(|r| IfName::parse(&r.interface)), ..State::default() };
        for (name, address) in made.addresses.iter().filter(|(name, _)| name != "lo") {
            if let Some(name) = IfName::parse(name) {
                state.add(name, *address);
            }
        }
        for entry in facts.resolving(Reader::Dnsmasq) {
            facts.servers(entry, Reader::Dnsmasq).for_each(|ip| push_new(&mut state.dns, ip));
            let said = &entry.network.said;
            let domain = said.domain.iter().filter(|_| said.search.is_empty());
            said.search.iter().chain(domain).for_each(|name| push_new(&mut state.search, name.clone()));
        }
        state
    }

    fn add(&mut self, interface: IfName, address: Prefix) {
        let at = self.addresses.iter().position(|(name, _)| *name >= interface).unwrap_or(self.addresses.len());
        match self.addresses.get_mut(at) {
            Some((name, list)) if *name == interface => {
                push_new(list, address);
                applet::sort::sort(list);
            }
            _ => self.addresses.insert(at, (interface, vec![address])),
        }
    }

    /// Reads the text of [`State::render`]. A line or a word that is none is left out.
    pub fn parse(text: &str) -> State {
        let mut state = State::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            match words.next() {
                Some("uplink") => state.uplink = words.next().and_then(IfName::parse),
                Some("address") => {
                    let Some(name) = words.next().and_then(IfName::parse) else { continue };
                    words.filter_map(Prefix::parse).for_each(|address| state.add(name.clone(), address));
                }
                Some("dns") => state.dns = words.filter_map(|word| word.parse().ok()).collect(),
                Some("search") => state.search = words.filter_map(DomainName::parse).collect(),
                _ => {}
            }
        }
        state
    }

    /// Its text.
    pub fn render(&self) -> String {
        let uplink = self.uplink.iter().map(|name| format!("uplink {name}\n"));
        let addresses = self.addresses.iter().map(|(name, list)| format!("address {name} {}\n", join(list)));
        let dns = (!self.dns.is_empty()).then(|| format!("dns {}\n", join(&self.dns)));
        let search = (!self.search.is_empty()).then(|| format!("search {}\n", join(&self.search)));
        uplink.chain(addresses).chain(dns).chain(search).collect()
    }

    fn of(&self, interface: &str) -> &[Prefix] {
        self.addresses.iter().find(|(name, _)| name.as_str() == interface).map_or(&[], |(_, list)| list)
    }

    fn networks(&self, interface: &str) -> Vec<Prefix> {
        let mut networks: Vec<Prefix> = self.of(interface).iter().map(|address| address.network()).collect();
        applet::sort::sort(&mut networks);
        networks.dedup();
        networks
    }

    fn uplink(&self) -> String {
        self.uplink.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// What has changed from `self`, which a hook was told last, to `now`.
    pub fn changes(&self, kind: Kind, now: &State) -> Vec<Change> {
        let whole = |interface: String, old: String, new: String| vec![Change { interface, old, new }];
        match kind {
            Kind::Uplink if self.uplink != now.uplink => whole(now.uplink(), self.uplink(), now.uplink()),
            Kind::Dns if (&self.dns, &self.search) != (&now.dns, &now.search) => {
                whole(String::new(), join(&self.dns), join(&now.dns))
            }
            Kind::Uplink | Kind::Dns => Vec::new(),
            Kind::Address => self.by_interface(now, |state, name| join(state.of(name))),
            Kind::Prefix => self.by_interface(now, |state, name| join(&state.networks(name))),
        }
    }

    fn by_interface(&self, now: &State, text: impl Fn(&State, &str) -> String) -> Vec<Change> {
        let mut names: Vec<&str> = self.addresses.iter().chain(&now.addresses).map(|(name, _)| name.as_str()).collect();
        applet::sort::sort(&mut names);
        names.dedup();
        let changes = names.into_iter().map(|name| Change {
            interface: name.to_owned(),
            old: text(self, name),
            new: text(now, name),
        });
        changes.filter(|change| change.old != change.new).collect()
    }

    /// What a hook knows that has been told this change.
    pub fn told(mut self, kind: Kind, change: &Change, now: &State) -> State {
        match kind {
            Kind::Uplink => self.uplink.clone_from(&now.uplink),
            Kind::Dns => (self.dns, self.search) = (now.dns.clone(), now.search.clone()),
            Kind::Address | Kind::Prefix => {
                self.addresses.retain(|(name, _)| name.as_str() != change.interface);
                if let Some(name) = IfName::parse(&change.interface) {
                    now.of(&name).iter().for_each(|address| self.add(name.clone(), *address));
                }
            }
        }
        self
    }

    /// The variables of a hook that hears of this change. All values come from types that were
    /// checked: names of interfaces and domains, addresses, numbers.
    pub fn environment(&self, kind: Kind, change: &Change) -> Vec<(&'static str, String)> {
        let Change { interface, old, new } = change.clone();
        let addresses: Vec<IpAddr> = self.of(&interface).iter().map(|address| address.ip).collect();
        vec![
            ("CHANGE", kind.word().to_owned()),
            ("IF", interface),
            ("OLD", old),
            ("NEW", new),
            ("ADDRESSES", join(&addresses)),
            ("UPLINK", self.uplink()),
            ("SEARCH", join(&self.search)),
        ]
    }
}

fn join<T: ToString>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "uplink eth0\naddress eth0 192.0.2.100/24\naddress lan0 10.0.0.1/24 fd00::1/64\n\
                       dns 192.0.2.53\nsearch example.org\n";

    #[test]
    fn the_name_of_a_hook_says_what_it_hears() {
        for (name, kind) in [
            ("uplink", Kind::Uplink),
            ("uplink-ddns", Kind::Uplink),
            ("address.10-wg", Kind::Address),
            ("prefix_x", Kind::Prefix),
            ("dns-resolvconf", Kind::Dns),
        ] {
            assert_eq!(Named::of(name), Named::Hook(kind), "{name}");
        }
        for name in ["uplinks-ddns", "README", "10-uplink", ""] {
            assert_eq!(Named::of(name), Named::Unknown, "{name}");
        }
        for name in [".uplink", "uplink-ddns~"] {
            assert_eq!(Named::of(name), Named::Aside, "{name}");
        }
    }

    #[test]
    fn a_state_reads_back_and_damage_is_skipped() {
        let state = State::parse(ONE);
        assert_eq!(state.render(), ONE);
        assert_eq!(State::parse(&format!("uplink ../x\naddress\ndns x\n\u{0}\n{ONE}")), state);
    }

    #[test]
    fn each_kind_hears_its_own_changes_and_nothing_when_all_is_as_before() {
        let (before, now) = (State::parse(ONE), State::parse(&ONE.replace("192.0.2.100/24", "192.0.2.101/24")));
        let all = [Kind::Uplink, Kind::Address, Kind::Prefix, Kind::Dns];
        for kind in all {
            assert_eq!(before.changes(kind, &before), []);
        }
        assert_eq!(all.map(|kind| before.changes(kind, &now).len()), [0, 1, 0, 0], "the network is the same one");
        let moved =
            State::parse(&ONE.replace("uplink eth0", "uplink eth1").replace("192.0.2.100/24", "198.51.100.7/24"));
        assert_eq!(all.map(|kind| before.changes(kind, &moved).len()), [1, 1, 1, 0]);
        assert_eq!(all.map(|kind| State::default().changes(kind, &before).len()), [1, 2, 2, 1], "after a boot");
        let searches = State::parse(&ONE.replace("example.org", "example.net"));
        assert_eq!(all.map(|kind| before.changes(kind, &searches).len()), [0, 0, 0, 1]);
    }

    #[test]
    fn a_hook_hears_old_and_new_and_after_it_nothing_more() {
        let (before, now) = (State::parse(ONE), State::parse(&ONE.replace("192.0.2.100/24", "198.51.100.7/24")));
        for kind in [Kind::Address, Kind::Prefix] {
            let changes = before.changes(kind, &now);
            let env = now.environment(kind, &changes[0]);
            let value = |name: &str| env.iter().find(|(n, _)| *n == name).unwrap().1.as_str();
            assert_eq!((value("IF"), value("UPLINK"), value("ADDRESSES")), ("eth0", "eth0", "198.51.100.7"));
            match kind {
                Kind::Address => assert_eq!((value("OLD"), value("NEW")), ("192.0.2.100/24", "198.51.100.7/24")),
                _ => assert_eq!((value("OLD"), value("NEW")), ("192.0.2.0/24", "198.51.100.0/24")),
            }
            assert_eq!(before.clone().told(kind, &changes[0], &now).changes(kind, &now), []);
        }
        let gone = State::parse("");
        for kind in [Kind::Uplink, Kind::Address, Kind::Prefix, Kind::Dns] {
            let told = before.changes(kind, &gone).iter().fold(before.clone(), |told, c| told.told(kind, c, &gone));
            assert_eq!(told.changes(kind, &gone), [], "{kind:?}");
        }
    }
}

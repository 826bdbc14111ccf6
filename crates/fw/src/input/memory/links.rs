//! What fw remembers of links: values to give back, and ports of bridges.
//!
//! Pure. Lines of the memory's file: `mac IF ORIGINAL OURS`, `addr_gen IF ORIGINAL OURS`, `port IF
//! BRIDGE`. Called by memory.rs.

use std::fmt::Display;

use netd_core::net::{AddrGen, IfName, Mac};

/// A value of a link that fw has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved<T> {
    /// Interface.
    pub interface: String,
    /// The value before.
    pub original: T,
    /// What fw set; another value means that another program has changed it since.
    pub ours: T,
}

/// Everything remembered of links but their MTUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Ethernet addresses.
    pub macs: Vec<Saved<Mac>>,
    /// Modes of IPv6 addresses.
    pub addr_gens: Vec<Saved<AddrGen>>,
    /// Ports that fw has put into a bridge, and the bridge.
    pub ports: Vec<(String, String)>,
}

/// What fw has set on this link, if it is still so.
pub fn saved<'a, T: PartialEq>(all: &'a [Saved<T>], name: &str, now: &T) -> Option<&'a Saved<T>> {
    all.iter().find(|s| s.interface == name && s.ours == *now)
}

impl Links {
    /// The bridge into which fw has put this port.
    pub fn bridge_of(&self, port: &str) -> Option<&str> {
        self.ports.iter().find(|(name, _)| name == port).map(|(_, bridge)| bridge.as_str())
    }

    /// Takes a line that is about links.
    pub(super) fn take(&mut self, kind: &str, interface: &str, rest: &[&str]) {
        match (kind, rest) {
            ("mac", [original, ours]) => self.macs.extend(read(interface, original, ours, Mac::parse)),
            ("addr_gen", [original, ours]) => self.addr_gens.extend(read(interface, original, ours, AddrGen::parse)),
            ("port", [bridge]) if IfName::parse(bridge).is_some() => {
                self.ports.push((interface.to_owned(), (*bridge).to_owned()));
            }
            _ => {}
        }
    }

    /// The lines.
    pub(super) fn render(&self) -> impl Iterator<Item = String> {
        let macs = self.macs.iter().map(|s| line("mac", s));
        let addr_gens = self.addr_gens.iter().map(|s| line("addr_gen", s));
        let ports = self.ports.iter().map(|(port, bridge)| format!("port {port} {bridge}\n"));
        macs.chain(addr_gens).chain(ports)
    }

    /// The union of old and new, for the time of the changes.
    pub(super) fn add(&mut self, before: &Links) {
        union(&mut self.macs, &before.macs);
        union(&mut self.addr_gens, &before.addr_gens);
        union(&mut self.ports, &before.ports);
    }
}

fn union<T: Clone + PartialEq>(all: &mut Vec<T>, before: &[T]) {
    for one in before {
        if !all.contains(one) {
            all.push(one.clone());
        }
    }
}

fn line<T: Display>(kind: &str, saved: &Saved<T>) -> String {
    format!("{kind} {} {} {}\n", saved.interface, saved.original, saved.ours)
}

fn read<T>(interface: &str, original: &str, ours: &str, parse: fn(&str) -> Option<T>) -> Option<Saved<T>> {
    Some(Saved { interface: interface.to_owned(), original: parse(original)?, ours: parse(ours)? })
}

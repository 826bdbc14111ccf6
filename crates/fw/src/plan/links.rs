//! The changes of links: bridges and VLANs are made and removed, ports join and leave, addresses
//! and modes are set and given back.
//!
//! Pure. How fw knows its own: a link has no protocol number, but the group of ip-link(8), which
//! has no meaning to the kernel. RTM_NEWLINK sets it in the moment in which the link is made
//! (neither an alias nor an alternative name can be set there), so a kill leaves no link without
//! it; it survives the loss of /run and a change of the name. An administrator who gives the link
//! another group has taken it over: fw uses it and never deletes it. A port gets the group when it
//! joins, unless an administrator has given it one; the memory knows the port, too.
//!
//! A link that is made gets an index of fw's own choice: so the whole plan is known before, and the
//! kernel applies it without a pause in which a port is in the bridge and its address is not.
//! mtu.rs has the MTUs. Called by plan.rs.

use std::borrow::Cow;
use std::cmp::Reverse;

use netd_core::net::AddrGen;
use netd_core::wire::link::{BRIDGE, VLAN};

use crate::change::Change;
use crate::have::{Have, Link};
use crate::input::memory::links::{self as saved, Saved};
use crate::input::memory::{Memory, SavedMtu};
use crate::model::{GROUP, PROTOCOL};
use crate::want::{Asked, Want, WantKind, WantLink};

mod mtu;

/// The first index of links that are made: the kernel counts its own from 1.
const FIRST_INDEX: u32 = PROTOCOL as u32 * 1000;
/// The MTU of a new bridge (ETH_DATA_LEN).
const ETHERNET_MTU: u32 = 1500;

/// What is to be done about links, and what is known of them then.
pub(super) struct Links<'a> {
    /// Before addresses.
    pub makes: Vec<Change>,
    /// After the addresses, before the routes: a packet that comes in by a port finds the address
    /// of the bridge, and one that goes out by the port's old route still leaves by the port.
    pub joins: Vec<Change>,
    /// After the routes.
    pub leaves: Vec<Change>,
    /// At the very end.
    pub removals: Vec<Change>,
    /// What the kernel has after `makes`.
    pub have: Cow<'a, Have>,
    /// Links that are made.
    pub made: Vec<String>,
    /// Links that go in the end.
    pub goes: Vec<String>,
    /// MTUs to give back.
    pub mtus: Vec<SavedMtu>,
    /// The rest of the memory of links.
    pub memory: saved::Links,
    /// Things that an administrator should know.
    pub notes: Vec<String>,
}

/// Compares the links.
pub(super) fn plan<'a>(want: &Want, have: &'a Have, memory: &Memory) -> Links<'a> {
    let mut links = Links {
        makes: Vec::new(),
        joins: Vec::new(),
        leaves: Vec::new(),
        removals: Vec::new(),
        have: Cow::Borrowed(have),
        made: Vec::new(),
        goes: Vec::new(),
        mtus: Vec::new(),
        memory: saved::Links::default(),
        notes: Vec::new(),
    };
    links.replace(want);
    // Links that are there come first: a VLAN takes over what its parent has when it is made.
    for link in &have.links {
        links.set(want, memory, &link.name);
    }
    links.make(want, memory);
    links.set_mtus(want, memory);
    links.set_up(want);
    links.join(want, memory);
    links.leave(want, memory);
    links.remove(want);
    links
}

/// fw has made it.
fn is_ours(link: &Link) -> bool {
    link.group == GROUP && is_made(link)
}

/// It is of a kind that fw makes.
fn is_made(link: &Link) -> bool {
    link.kind.as_deref().is_some_and(|kind| [BRIDGE, VLAN].contains(&kind))
}

fn wanted<'a>(want: &'a Want, name: &str) -> Option<&'a WantLink> {
    want.links.iter().find(|l| l.interface == name)
}

/// Whether the link is what is asked for.
fn is_right(link: &Link, kind: &WantKind, have: &Have) -> bool {
    match kind {
        WantKind::Bridge => link.kind.as_deref() == Some(BRIDGE),
        WantKind::Vlan { parent, id } => {
            let carried = have.link(parent).is_some_and(|p| p.index == link.parent);
            link.kind.as_deref() == Some(VLAN) && link.vlan == Some(id.number()) && carried
        }
    }
}

/// Whether fw has put this port where it is.
fn is_our_port(link: &Link, have: &Have, memory: &Memory) -> bool {
    let Some(master) = have.link_at(link.master) else { return false };
    memory.links.bridge_of(&link.name) == Some(master.name.as_str()) || (link.group == GROUP && is_ours(master))
}

/// The wishes for links that fw makes.
fn kinds(want: &Want) -> impl Iterator<Item = (&WantLink, &Asked<WantKind>)> {
    want.links.iter().filter(|l| !l.frozen).filter_map(|l| Some((l, l.kind.as_ref()?)))
}

impl Links<'_> {
    /// Deletes links of ours that are something else than what is asked for: the name has to be
    /// free. A foreign one keeps the name.
    fn replace(&mut self, want: &Want) {
        for (link, kind) in kinds(want) {
            let Some(there) = self.have.link(&link.interface).filter(|l| !is_right(l, &kind.value, &self.have)) else {
                continue;
            };
            if is_ours(there) {
                let index = there.index;
                self.makes.push(Change::DelLink { index, name: link.interface.clone() });
                vanish(self.have.to_mut(), index);
            } else {
                let what = match &kind.value {
                    WantKind::Bridge => "bridge".to_owned(),
                    WantKind::Vlan { parent, id } => format!("VLAN {id} of {parent}"),
                };
                let place = &kind.origin.place;
                self.notes.push(format!("{place}: {} is there and is no {what}: left alone", link.interface));
            }
        }
    }

    /// Makes the links that are missing, bridges first, each VLAN after the link that carries it.
    fn make(&mut self, want: &Want, memory: &Memory) {
        let is_missing = |links: &Self, l: &WantLink| links.have.link(&l.interface).is_none();
        loop {
            let bridge = kinds(want).find(|(l, _)| l.is_bridge() && is_missing(self, l));
            let carried = |l: &WantLink| l.parent().is_some_and(|parent| self.have.link(parent).is_some());
            let vlan = || kinds(want).find(|(l, _)| carried(l) && is_missing(self, l));
            let Some((link, kind)) = bridge.or_else(vlan) else { break };
            self.make_one(want, memory, link, &kind.value);
        }
    }

    fn make_one(&mut self, want: &Want, memory: &Memory, wish: &WantLink, kind: &WantKind) {
        let index = self.free_index();
        let mut link = Link {
            index,
            name: wish.interface.clone(),
            group: GROUP,
            addr_gen: Some(AddrGen::Eui64),
            ..Link::default()
        };
        let mut parent_name = String::new();
        // The Ethernet address that it has without a wish. That of a bridge is set, too: else it
        // would change when ports come and go.
        let natural = match kind {
            WantKind::Bridge => {
                (link.kind, link.mtu, link.carrier) = (Some(BRIDGE.to_owned()), ETHERNET_MTU, true);
                self.first_port(want, memory, &link.name).and_then(|port| port.mac)
            }
            WantKind::Vlan { parent, id } => {
                let Some(parent) = self.have.link(parent) else { return };
                (link.kind, link.vlan, link.parent) = (Some(VLAN.to_owned()), Some(id.number()), parent.index);
                (link.mtu, link.carrier, parent_name) = (parent.mtu, parent.carrier, parent.name.clone());
                parent.mac
            }
        };
        let asked = wish.mac.as_ref().map(|mac| mac.value);
        link.mac = asked.or(natural.filter(|_| *kind == WantKind::Bridge));
        if let (Some(ours), Some(original)) = (asked, natural.filter(|natural| asked != Some(*natural))) {
            self.memory.macs.push(Saved { interface: link.name.clone(), original, ours });
        }
        self.made.push(link.name.clone());
        self.makes.push(Change::AddLink { link: link.clone(), parent: parent_name });
        link.mac = link.mac.or(natural);
        let name = link.name.clone();
        self.have.to_mut().links.push(link);
        self.set_addr_gen(want, memory, &name);
    }

    /// An index that no link has.
    fn free_index(&self) -> u32 {
        (FIRST_INDEX..).find(|index| self.have.link_at(*index).is_none()).unwrap_or(FIRST_INDEX)
    }

    /// The first port of the record that can join.
    fn first_port(&self, want: &Want, memory: &Memory, bridge: &str) -> Option<&Link> {
        let ports = want.links.iter().filter(|l| !l.frozen && l.master.as_ref().is_some_and(|m| m.value == bridge));
        let mut ports = ports.filter_map(|l| self.have.link(&l.interface));
        ports.find(|port| port.master == 0 || is_our_port(port, &self.have, memory))
    }

    /// Sets what a record asks of a link that is there, and gives back what none asks for any more.
    fn set(&mut self, want: &Want, memory: &Memory, name: &str) {
        self.set_mac(want, memory, name);
        self.set_addr_gen(want, memory, name);
    }

    fn set_mac(&mut self, want: &Want, memory: &Memory, name: &str) {
        let asked = wanted(want, name).and_then(|l| l.mac.as_ref()).map(|mac| mac.value);
        let Some((link, now)) = self.have.link(name).and_then(|l| Some((l, l.mac?))) else { return };
        let target = target(&memory.links.macs, &mut self.memory.macs, name, now, asked);
        if target != now {
            self.makes.push(Change::LinkMac { index: link.index, name: name.to_owned(), mac: target });
            self.change(name, |l| l.mac = Some(target));
        }
    }

    fn set_addr_gen(&mut self, want: &Want, memory: &Memory, name: &str) {
        let asked = wanted(want, name).and_then(|l| l.addr_gen.as_ref()).map(|mode| mode.value);
        let Some((link, now)) = self.have.link(name).and_then(|l| Some((l, l.addr_gen?))) else { return };
        let target = target(&memory.links.addr_gens, &mut self.memory.addr_gens, name, now, asked);
        if target != now {
            self.makes.push(Change::LinkAddrGen { index: link.index, name: name.to_owned(), mode: target });
            self.change(name, |l| l.addr_gen = Some(target));
        }
    }

    /// After their addresses, which many drivers refuse to change later; a VLAN after its parent.
    fn set_up(&mut self, want: &Want) {
        let down = self.have.links.iter().filter(|l| !l.up && wanted(want, &l.name).is_some_and(|w| w.up));
        // Links that are made stand after those that were there, in the order in which they are
        // made.
        let ups: Vec<(u32, String)> = down.map(|l| (l.index, l.name.clone())).collect();
        for (index, name) in ups {
            self.change(&name, |l| l.up = true);
            self.makes.push(Change::LinkUp { index, name });
        }
    }

    /// Puts ports into their bridges: those with carrier first, so that the bridge never loses its
    /// own.
    fn join(&mut self, want: &Want, memory: &Memory) {
        let have = &*self.have;
        let mut joins: Vec<(&Link, &Link)> = Vec::new();
        for wish in &want.links {
            let Some((port, master)) = have.link(&wish.interface).zip(wish.master.as_ref()) else { continue };
            let bridge = have.link(&master.value).filter(|b| b.kind.as_deref() == Some(BRIDGE));
            let is_frozen = wish.frozen || wanted(want, &master.value).is_some_and(|l| l.frozen);
            let Some(bridge) = bridge.filter(|_| !is_frozen) else { continue };
            let remember = || (port.name.clone(), bridge.name.clone());
            if port.master == bridge.index {
                self.memory.ports.extend(is_our_port(port, have, memory).then(remember));
            } else if port.master == 0 || is_our_port(port, have, memory) {
                self.memory.ports.push(remember());
                joins.push((port, bridge));
            } else {
                let (place, other) = (&master.origin.place, have.name(port.master));
                self.notes.push(format!("{place}: {} is a part of {other}, of another program: left there", port.name));
            }
        }
        applet::sort::sort_by_key(&mut joins, |(port, _)| !port.carrier);
        let mut changes = adopted(want, have, &self.made, &joins);
        changes.extend(joins.into_iter().map(|(port, bridge)| Change::LinkMaster {
            index: port.index,
            name: port.name.clone(),
            master: bridge.index,
            bridge: bridge.name.clone(),
            group: (port.group == 0).then_some(GROUP),
        }));
        self.joins = changes;
    }

    /// Ports of ours that no record names any more.
    fn leave(&mut self, want: &Want, memory: &Memory) {
        let have = &*self.have;
        for port in &have.links {
            let wish = wanted(want, &port.name);
            let stays = wish.is_some_and(|w| w.frozen || w.master.is_some());
            let bridge = have.link_at(port.master);
            let is_frozen = bridge.and_then(|b| wanted(want, &b.name)).is_some_and(|w| w.frozen);
            if stays || is_frozen {
                let kept = kept(port, bridge, memory).filter(|_| self.memory.bridge_of(&port.name).is_none());
                self.memory.ports.extend(kept);
                continue;
            }
            let is_tagged = port.group == GROUP && !is_made(port);
            let leaves = is_our_port(port, have, memory);
            if leaves || is_tagged {
                let stays_in = bridge.filter(|_| !leaves);
                self.leaves.push(Change::LinkMaster {
                    index: port.index,
                    name: port.name.clone(),
                    master: stays_in.map_or(0, |b| b.index),
                    bridge: stays_in.map_or_else(String::new, |b| b.name.clone()),
                    group: is_tagged.then_some(0),
                });
            }
        }
    }

    /// Links of ours that no record asks for, unless another program uses them.
    fn remove(&mut self, want: &Want) {
        let have = &*self.have;
        let is_wanted = |l: &Link| wanted(want, &l.name).is_some_and(|w| w.frozen || w.kind.is_some());
        let mut unwanted: Vec<&Link> = have.links.iter().filter(|l| is_ours(l) && !is_wanted(l)).collect();
        // With a link the kernel deletes the VLANs on it: those go before it.
        applet::sort::sort_by_key(&mut unwanted, |l| Reverse(depth(l, have)));
        for link in unwanted {
            let leaves = |l: &Link| self.leaves.iter().chain(&self.joins).any(|c| c.index() == Some(l.index));
            let is_part = |l: &&Link| l.master == link.index && !leaves(l);
            let is_carried = |l: &&Link| l.parent == link.index && is_made(l) && !is_ours(l);
            match have.links.iter().find(|l| is_part(l) || is_carried(l)) {
                Some(user) => self.notes.push(format!("link {} stays: {} needs it", link.name, user.name)),
                None => {
                    self.goes.push(link.name.clone());
                    let is_on_it = |l: &&Link| l.parent == link.index && l.kind.as_deref() == Some(VLAN);
                    self.goes.extend(have.links.iter().filter(is_on_it).map(|l| l.name.clone()));
                    self.removals.push(Change::DelLink { index: link.index, name: link.name.clone() });
                }
            }
        }
        let stays = |name: &String| !self.goes.contains(name);
        self.mtus.retain(|m| stays(&m.interface));
        self.memory.macs.retain(|m| stays(&m.interface));
        self.memory.addr_gens.retain(|m| stays(&m.interface));
        self.memory.ports.retain(|(port, bridge)| stays(port) && stays(bridge));
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Link)) {
        if let Some(link) = self.have.to_mut().links.iter_mut().find(|l| l.name == name) {
            change(link);
        }
    }
}

/// How many links carry this one, each the one before.
fn depth(link: &Link, have: &Have) -> usize {
    let carrier = |l: &&Link| l.vlan.and_then(|_| have.link_at(l.parent));
    std::iter::successors(Some(link), carrier).take(have.links.len()).count()
}

/// What the memory keeps of a port that stays.
fn kept(port: &Link, bridge: Option<&Link>, memory: &Memory) -> Option<(String, String)> {
    let bridge = bridge.filter(|b| memory.links.bridge_of(&port.name) == Some(b.name.as_str()))?;
    Some((port.name.clone(), bridge.name.clone()))
}

/// A bridge of ours without ports takes the Ethernet address of its first one: the kernel's own
/// choice would change with each port. Without a port the change harms nothing.
fn adopted(want: &Want, have: &Have, made: &[String], joins: &[(&Link, &Link)]) -> Vec<Change> {
    let mut changes = Vec::new();
    // The new ones have it from the start.
    let mut done: Vec<&str> = made.iter().map(String::as_str).collect();
    for wish in &want.links {
        let Some((port, bridge)) = joins.iter().find(|(port, _)| port.name == wish.interface) else { continue };
        let is_asked = wanted(want, &bridge.name).is_some_and(|l| l.mac.is_some());
        let is_empty = !have.links.iter().any(|l| l.master == bridge.index);
        if !is_ours(bridge) || !is_empty || is_asked || done.contains(&bridge.name.as_str()) {
            continue;
        }
        done.push(&bridge.name);
        let mac = port.mac.filter(|mac| bridge.mac != Some(*mac));
        changes.extend(mac.map(|mac| Change::LinkMac { index: bridge.index, name: bridge.name.clone(), mac }));
    }
    changes
}

/// What a link should have: what is asked for, or what it had before fw changed it. Remembers the
/// latter.
fn target<T: Copy + PartialEq>(
    before: &[Saved<T>],
    after: &mut Vec<Saved<T>>,
    name: &str,
    now: T,
    asked: Option<T>,
) -> T {
    let original = saved::saved(before, name, &now).map_or(now, |s| s.original);
    let ours = asked.unwrap_or(original);
    if ours != original {
        after.push(Saved { interface: name.to_owned(), original, ours });
    }
    ours
}

/// What the kernel takes along with a link: the VLANs on it, its addresses and its routes. Its
/// ports are free.
fn vanish(have: &mut Have, index: u32) {
    let is_on_it = |l: &&Link| l.parent == index && l.kind.as_deref() == Some(VLAN);
    let above: Vec<u32> = have.links.iter().filter(is_on_it).map(|l| l.index).collect();
    have.links.retain(|l| l.index != index);
    have.links.iter_mut().filter(|l| l.master == index).for_each(|l| l.master = 0);
    have.addresses.retain(|a| a.index != index);
    have.routes.retain(|r| r.index != index);
    above.into_iter().for_each(|index| vanish(have, index));
}

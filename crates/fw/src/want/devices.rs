//! What links are: bridges with their ports, VLANs, their Ethernet addresses, by the word of static
//! records.
//!
//! Pure. Records that contradict each other are errors with both places, and what is in force
//! stays. Called by links.rs and want.rs.

use super::objects::{Asked, Origin, Want, WantKind, WantLink};
use crate::record::Entry;

/// Adds what the record says of its interface, of its ports and of the link that carries it.
pub(super) fn add(want: &mut Want, entry: &Entry) {
    let (device, name) = (&entry.network.device, entry.interface());
    let mut errors = Vec::new();
    let (kind, key) = match (&device.parent, device.vlan) {
        (Some(parent), Some(id)) => (Some(WantKind::Vlan { parent: parent.to_string(), id }), "vlan"),
        _ => ((!device.ports.is_empty()).then_some(WantKind::Bridge), "bridge"),
    };
    want.edit_link(name, &Origin::of(entry), |link| {
        link.up |= kind.is_some();
        let mut asking = Asking { name, origin: Origin::by(entry, key), errors: &mut errors };
        link.frozen |= !asking.ask("bridge or vlan", &mut link.kind, kind);
        asking.origin = Origin::by(entry, "mac");
        asking.ask("mac", &mut link.mac, device.mac);
        asking.origin = Origin::by(entry, "addr_gen");
        asking.ask("addr_gen", &mut link.addr_gen, device.addr_gen);
    });
    for port in &device.ports {
        let origin = Origin::by(entry, "bridge");
        want.edit_link(port, &origin.clone(), |link| {
            link.up = true;
            let mut asking = Asking { name: port, origin, errors: &mut errors };
            asking.ask(&format!("bridge {name}"), &mut link.master, Some(name.to_owned()));
        });
    }
    if let Some(parent) = &device.parent {
        want.edit_link(parent, &Origin::by(entry, "link"), |link| link.up = true);
    }
    want.errors.extend(errors);
}

/// A record that asks something of a link.
struct Asking<'a> {
    name: &'a str,
    origin: Origin,
    errors: &'a mut Vec<String>,
}

impl Asking<'_> {
    /// The first record counts. Returns whether there is no contradiction.
    fn ask<T: PartialEq>(&mut self, what: &str, slot: &mut Option<Asked<T>>, value: Option<T>) -> bool {
        match (&slot, value) {
            (Some(asked), Some(value)) if asked.value != value => {
                let (place, other) = (&self.origin.place, &asked.origin.place);
                self.errors.push(format!("{place}: {what} of {}: {other} says otherwise: left out", self.name));
                false
            }
            (None, Some(value)) => {
                *slot = Some(Asked { value, origin: self.origin.clone() });
                true
            }
            (Some(_), _) | (None, None) => true,
        }
    }
}

/// Finds the wishes that cannot all be true.
pub(super) fn check(want: &mut Want) {
    port_with_address(want);
    bridge_as_port(want);
    loops(want);
}

/// A port has no address: what it receives is the bridge's. Which of the two records is the wrong
/// one fw cannot know, so the port stays what it is.
fn port_with_address(want: &mut Want) {
    let Want { links, addresses, errors, .. } = want;
    for address in addresses.iter().filter(|a| a.origin.is_static) {
        let port = links.iter_mut().find(|l| l.interface == address.interface && !l.frozen);
        if let Some((port, master)) = port.and_then(|l| l.master.clone().map(|master| (l, master))) {
            port.frozen = true;
            errors.push(format!(
                "{}: an address of {}, which is a port of {} ({}): give it to {}; until then nothing changes",
                address.origin.place, port.interface, master.value, master.origin.place, master.value
            ));
        }
    }
}

/// The kernel takes no bridge as a port.
fn bridge_as_port(want: &mut Want) {
    let Want { links, errors, .. } = want;
    for link in links.iter_mut().filter(|l| l.is_bridge()) {
        if let Some(master) = link.master.take() {
            let (place, name) = (&master.origin.place, &link.interface);
            errors.push(format!("{place}: {name} is a bridge and no port of {}: left out", master.value));
        }
    }
}

/// A link that would be a part of itself, over others.
fn loops(want: &mut Want) {
    for at in 0..want.links.len() {
        let Some(link) = want.links.get(at).filter(|l| l.kind.is_some()) else { continue };
        let mut seen = Vec::new();
        if !reaches(&want.links, link, &link.interface, &mut seen) {
            continue;
        }
        let place = link.kind.as_ref().map(|kind| kind.origin.place.as_str()).unwrap_or_default();
        want.errors.push(format!("{place}: {} would be a part of itself: left out", link.interface));
        if let Some(link) = want.links.get_mut(at) {
            link.frozen = true;
        }
    }
}

/// Whether `name` is among the parts of this link, at any depth. A frozen link has none.
fn reaches<'a>(links: &'a [WantLink], of: &'a WantLink, name: &str, seen: &mut Vec<&'a str>) -> bool {
    if of.frozen || seen.contains(&of.interface.as_str()) {
        return false;
    }
    seen.push(&of.interface);
    let is_port = |l: &WantLink| l.master.as_ref().is_some_and(|master| master.value == of.interface);
    let is_part = |l: &&WantLink| of.parent() == Some(&l.interface) || (of.is_bridge() && is_port(l));
    links.iter().filter(is_part).any(|part| part.interface == name || reaches(links, part, name, seen))
}

/// What a daemon has found on a port is the bridge's to find.
pub(super) fn silence_ports(want: &mut Want) {
    let Want { links, addresses, routes, notes, .. } = want;
    let bridge = |name: &str| {
        let port = links.iter().find(|l| l.interface == name && !l.frozen)?;
        port.master.as_ref().map(|master| master.value.as_str())
    };
    let mut is_left_out = |name: &str, origin: &Origin| {
        let Some(bridge) = bridge(name) else { return false };
        let note = format!("{}: {name} is a port of {bridge}: left out", origin.place);
        if !notes.contains(&note) {
            notes.push(note);
        }
        true
    };
    addresses.retain(|a| !is_left_out(&a.interface, &a.origin));
    routes.retain(|r| !is_left_out(&r.interface, &r.origin));
}

#[cfg(test)]
mod tests;

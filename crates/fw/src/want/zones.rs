//! Which interfaces are outside, and why; to which zone each of the others belongs.
//!
//! Pure. An interface is inside because a static record declares it, and for no other reason. What
//! is neither outside nor inside is unlisted: a bridge, a tunnel or a container's link of another
//! program, which fw leaves alone unless fw.conf says otherwise. firewall/text.rs makes the table
//! of it. Called by want.rs; report.rs prints the lines.

use std::collections::BTreeSet;
use std::fmt;

use applet::suggest::nearest;
use netd_core::net::{IfName, Mac};

use crate::have::{Have, Link};
use crate::input::lease::Current;
use crate::input::memory::Memory;
use crate::input::policy::Policy;
use crate::input::policy::zones::{ANY, LAN, OUTSIDE, Target, Unlisted};
use crate::model::{ADDRESS_PROTOCOL_RA, PROTOCOL_RA, Prefix};

pub mod kinds;

/// Why an interface is outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// This word of fw.conf names it.
    Named(&'static str),
    /// A record of the administrator's at this place gives it a default route.
    StaticDefault(String),
    /// A daemon's record at this place names it.
    Record(String),
    /// The kernel has a default route over it; by its own router discovery or another program's.
    Default {
        /// RTPROT_RA.
        by_kernel: bool,
    },
    /// This address of it came by DHCP or in a router advertisement.
    Learned(Prefix),
    /// One of the reasons above was true since boot: its words.
    Before(String),
    /// The record at this place makes it, and none declares it. It may not be there yet.
    Made(String),
    /// It is a hardware card, or a part of one, and no record declares it.
    Card,
    /// It is a part of a link that is outside, or holds one, and no record declares it.
    Kin,
    /// The records that declare it contradict each other, or name no zone.
    Conflict,
}

impl Reason {
    /// Without the remark that it was long ago.
    fn base(&self) -> String {
        match self {
            Reason::Before(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Named(word) => write!(f, "{word} in fw.conf names it"),
            Reason::StaticDefault(place) => write!(f, "{place} gives it a default route"),
            Reason::Record(place) => write!(f, "{place}, a daemon's record, names it"),
            Reason::Default { by_kernel: true } => f.write_str("a router advertisement gave it a default route"),
            Reason::Default { by_kernel: false } => f.write_str("another program gave it a default route"),
            Reason::Learned(address) => write!(f, "{address} came by DHCP or in a router advertisement"),
            Reason::Before(text) => write!(f, "{text} (since boot)"),
            Reason::Made(place) => write!(f, "{place} makes it, and no record declares it"),
            Reason::Card => f.write_str("it is a hardware card, and no record declares it"),
            Reason::Kin => f.write_str("it is a part of an interface that is outside, or holds one"),
            Reason::Conflict => f.write_str("its records contradict each other"),
        }
    }
}

/// An interface that leads outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Interface.
    pub interface: String,
    /// Why.
    pub reason: Reason,
}

/// An interface of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Interface.
    pub interface: String,
    /// Its zone.
    pub zone: String,
    /// The record that declares it: file and line.
    pub place: String,
}

/// What is inside and what is outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// Interfaces that are outside, by name.
    pub outside: Vec<Outside>,
    /// Interfaces of zones, in the order of their records.
    pub inside: Vec<Inside>,
    /// Virtual links of other programs, which are left alone though others of their kind are
    /// closed.
    pub left_alone: Vec<String>,
    /// Bridges that are closed, each with the addresses of this machine itself on it.
    pub bridges: Vec<(String, Vec<Mac>)>,
    /// Links of both sides that are there, where fw.conf wants the kernel's short way.
    pub devices: Vec<String>,
    /// Links with names that nft could take for patterns or for rules, by index. They are closed.
    pub nameless: Vec<u32>,
    /// What made an uplink of an interface, now or since boot, also of one that is inside.
    pub had: Vec<(String, String)>,
    /// What is wrong in records and fw.conf.
    pub errors: Vec<String>,
}

/// What is known of one interface.
struct Facts<'a> {
    name: &'a str,
    link: Option<&'a Link>,
    /// The word of fw.conf that names it.
    word: Option<&'static str>,
    /// What makes an uplink of it, now or since boot.
    had: Option<Reason>,
    /// The static records that declare it: those with a zone when there are any.
    claims: Vec<Inside>,
    /// They have the key `zone`.
    is_keyed: bool,
    /// The record by which fw makes it.
    made: Option<String>,
}

enum Verdict {
    Outside(Reason),
    Inside(Inside),
    LeftAlone,
    /// The table judges it by its kind, or it is a port of another link.
    Nameless,
}

/// Judges every interface that fw knows of.
pub fn zones(current: &[Current], policy: &Policy, memory: &Memory, have: &Have) -> Zones {
    let mut zones = Zones::default();
    for name in names(current, policy, memory, have) {
        if IfName::parse(name).is_none() {
            continue;
        }
        let facts = Facts::of(name, current, policy, memory, have);
        zones.had.extend(facts.had.as_ref().map(|reason| (name.to_owned(), reason.base())));
        zones.errors.extend(facts.error());
        match facts.verdict(policy.zones.unlisted, have) {
            Verdict::Outside(reason) => zones.outside.push(Outside { interface: name.to_owned(), reason }),
            Verdict::Inside(inside) => zones.inside.push(inside),
            Verdict::LeftAlone => zones.left_alone.push(name.to_owned()),
            Verdict::Nameless => {}
        }
    }
    for link in have.links.iter().filter(|l| IfName::parse(&l.name).is_none()) {
        zones.nameless.push(link.index);
    }
    if policy.zones.unlisted != Unlisted::Open {
        zones.add_kin(have);
    }
    // In the order of the records, which is the administrator's.
    let place = |inside: &Inside| current.iter().position(|(e, _)| e.interface() == inside.interface);
    applet::sort::sort_by_key(&mut zones.inside, place);
    zones.errors.extend(unknown_zones(policy, &zones, current));
    zones.bridges = bridges(&zones, policy, have);
    if policy.doors.offload {
        let inside = zones.inside.iter().map(|i| i.interface.clone());
        zones.devices = inside.chain(zones.external()).filter(|name| have.link(name).is_some()).collect();
        applet::sort::sort(&mut zones.devices);
    }
    zones
}

/// Every interface of which anything is known, by name.
fn names<'a>(current: &'a [Current], policy: &'a Policy, memory: &'a Memory, have: &'a Have) -> BTreeSet<&'a str> {
    let records = current.iter().map(|(e, _)| e.interface());
    let words = policy.zones.outside.iter().map(String::as_str).chain(policy.uplinks.named());
    let known = memory.had.iter().map(|(n, _)| n).chain(&memory.uplinks).map(String::as_str);
    let links = have.links.iter().filter(|l| !l.loopback).map(|l| l.name.as_str());
    records.chain(words).chain(known).chain(links).filter(|name| *name != LOOPBACK).collect()
}

/// It is always free, and never a zone's.
const LOOPBACK: &str = "lo";

impl<'a> Facts<'a> {
    fn of(name: &'a str, current: &[Current], policy: &Policy, memory: &Memory, have: &'a Have) -> Facts<'a> {
        let link = have.link(name);
        let mut claims: Vec<Inside> = Vec::new();
        let declare = |is_keyed: bool| {
            current.iter().map(|(e, _)| e).filter(move |e| {
                let declares = if is_keyed { e.network.zone.is_some() } else { e.network.address.is_some() };
                e.is_static && e.interface() == name && declares
            })
        };
        let is_keyed = declare(true).next().is_some();
        for entry in declare(is_keyed) {
            let zone = entry.network.zone.as_ref().map_or(LAN, |zone| zone.as_str()).to_owned();
            if !claims.iter().any(|claim| claim.zone == zone) {
                claims.push(Inside { interface: name.to_owned(), zone, place: entry.origin.clone() });
            }
        }
        let makes = |e: &&crate::record::Entry| e.is_static && e.interface() == name && e.network.device.is_made();
        let made = current.iter().map(|(e, _)| e).find(makes).map(|e| e.origin.clone());
        let (word, had) = (word(name, policy), had(name, link, current, memory, have));
        Facts { name, link, word, had, claims, is_keyed, made }
    }

    /// What is wrong with its declaration.
    fn error(&self) -> Option<String> {
        let name = self.name;
        let claim = self.claims.first().filter(|_| self.is_keyed)?;
        let Inside { zone, place, .. } = claim;
        if let Some(word) = self.word {
            let what = format!("{name} is in zone {zone}, and {word} in fw.conf says that it is outside: closed");
            return Some(format!("{place}: {what}"));
        }
        if let Some(claim) = self.claims.iter().find(|c| is_reserved(&c.zone)) {
            return Some(format!("{}: {} is not the name of a zone: {name} is closed", claim.place, claim.zone));
        }
        let other = self.claims.get(1)?;
        Some(format!("{}: {name} is in zone {zone} by {place}, and in {} here: closed", other.place, other.zone))
    }

    fn verdict(&self, unlisted: Unlisted, have: &Have) -> Verdict {
        if let Some(word) = self.word {
            return Verdict::Outside(Reason::Named(word));
        }
        match (self.claims.as_slice(), &self.had) {
            ([claim], _) if self.is_keyed && !is_reserved(&claim.zone) => return Verdict::Inside(claim.clone()),
            (_, _) if self.is_keyed => return Verdict::Outside(Reason::Conflict),
            (_, Some(reason)) => return Verdict::Outside(reason.clone()),
            ([claim, ..], None) => return Verdict::Inside(claim.clone()),
            ([], None) => {}
        }
        // In the first run it is not there yet, and in the table a bridge is no card by its kind.
        if let Some(place) = self.made.as_ref().filter(|_| unlisted != Unlisted::Open) {
            return Verdict::Outside(Reason::Made(place.clone()));
        }
        match self.link {
            // A port belongs to its bridge, which has a verdict of its own.
            Some(link) if kinds::is_port(link, have) => Verdict::Nameless,
            Some(link) if unlisted != Unlisted::Open && kinds::is_card(link, have) => Verdict::Outside(Reason::Card),
            Some(link) if unlisted == Unlisted::Auto && kinds::is_closed(link) => Verdict::LeftAlone,
            Some(_) | None => Verdict::Nameless,
        }
    }
}

/// The word of fw.conf that makes it an uplink.
fn word(name: &str, policy: &Policy) -> Option<&'static str> {
    let uplinks = &policy.uplinks;
    let names = |list: &[String]| list.iter().any(|n| n == name);
    let words = [
        ("extif", names(&policy.zones.outside)),
        ("preferred_default_route_iface", uplinks.preferred.as_deref() == Some(name)),
        ("uplinks", names(&uplinks.order)),
        ("route_by", uplinks.route_by.iter().any(|by| names(&by.uplinks))),
        ("metered", names(&uplinks.metered)),
        ("balance", uplinks.balance.iter().any(|(n, _)| n == name)),
    ];
    words.iter().find(|(_, is_named)| *is_named).map(|(word, _)| *word)
}

fn is_reserved(zone: &str) -> bool {
    [ANY, OUTSIDE].contains(&zone)
}

/// What makes an uplink of it, now or since boot: a default route of either family in any table,
/// an address that it was given, a daemon that cares for it.
fn had(name: &str, link: Option<&Link>, current: &[Current], memory: &Memory, have: &Have) -> Option<Reason> {
    let entries = || current.iter().map(|(e, _)| e).filter(|e| e.interface() == name);
    if let Some(entry) = entries().find(|e| e.is_static && e.hops.iter().any(|h| is_default(&h.destination))) {
        return Some(Reason::StaticDefault(entry.origin.clone()));
    }
    if let Some(entry) = entries().find(|e| !e.is_static) {
        return Some(Reason::Record(entry.origin.clone()));
    }
    if let Some(link) = link {
        let over = |r: &&crate::have::Route| r.index == link.index || r.next_hops.contains(&link.index);
        let mut defaults = have.routes.iter().filter(|r| r.unicast && is_default(&r.destination)).filter(over);
        if let Some(route) = defaults.next() {
            return Some(Reason::Default { by_kernel: route.protocol == PROTOCOL_RA });
        }
        let own = have.addresses.iter().filter(|a| a.index == link.index);
        let mut learned = own.filter(|a| a.lifetime.is_some() || a.autoconf || a.protocol == ADDRESS_PROTOCOL_RA);
        if let Some(address) = learned.next() {
            return Some(Reason::Learned(address.address));
        }
    }
    let before = memory.had.iter().find(|(n, _)| n == name).map(|(_, text)| text.clone());
    let uplink = || memory.uplinks.iter().any(|n| n == name).then(|| "it had a default route".to_owned());
    before.or_else(uplink).map(Reason::Before)
}

/// Programs that leave the default route of the main table alone halve it, and 2000::/3 is all that
/// is global in IPv6 (RFC 3587 2).
fn is_default(destination: &Prefix) -> bool {
    destination.len <= 1 || (destination.ip.is_ipv6() && destination.len <= 3)
}

/// Zones that fw.conf names and no record has.
fn unknown_zones(policy: &Policy, zones: &Zones, current: &[Current]) -> Vec<String> {
    let records = current.iter().filter(|(e, _)| e.is_static).filter_map(|(e, _)| e.network.zone.as_deref());
    let known: BTreeSet<&str> = records.chain(zones.inside.iter().map(|i| i.zone.as_str())).chain([LAN]).collect();
    let words = policy.zones.to.iter().flat_map(|s| {
        s.words.iter().filter_map(|w| match w {
            Target::Zone(zone) => Some((s.line, zone.as_str())),
            Target::Any | Target::Outside => None,
        })
    });
    let keys = policy.zones.to.iter().map(|s| (s.line, s.zone.as_str()));
    let router = policy.zones.router.iter().map(|s| (s.line, s.zone.as_str()));
    let mut unknown: Vec<(usize, &str)> = keys.chain(words).chain(router).filter(|(_, z)| !known.contains(z)).collect();
    applet::sort::sort(&mut unknown);
    unknown.dedup();
    let say = |(line, zone): (usize, &str)| {
        let near = nearest(zone, known.iter().copied()).map(|near| format!(": did you mean {near}?"));
        let near = near.unwrap_or_else(|| ": no record is in it".to_owned());
        format!("{}:{line}: unknown zone: {zone}{near}", policy.file)
    };
    unknown.into_iter().map(say).collect()
}

/// A frame for this machine has the address of the bridge or of a port of it.
fn bridges(zones: &Zones, policy: &Policy, have: &Have) -> Vec<(String, Vec<Mac>)> {
    let is_closed =
        |name: &str| zones.outside.iter().any(|o| o.interface == name) || policy.zones.unlisted == Unlisted::Closed;
    let closed = have.links.iter().filter(|l| kinds::is_bridge(l) && !zones.is_inside(&l.name) && is_closed(&l.name));
    let closed = closed.filter(|l| IfName::parse(&l.name).is_some());
    let mut bridges = Vec::new();
    for bridge in closed.filter(|l| l.mac.is_some()) {
        let ports = have.links.iter().filter(|l| l.master == bridge.index).filter_map(|l| l.mac);
        let mut macs: Vec<Mac> = bridge.mac.into_iter().chain(ports).collect();
        applet::sort::sort(&mut macs);
        macs.dedup();
        bridges.push((bridge.name.clone(), macs));
    }
    bridges
}

impl Zones {
    /// An uplink that is no card by its kind, as in a container: what is made of it is outside,
    /// too.
    fn add_kin(&mut self, have: &Have) {
        let is_outside = |link: &Link| self.outside.iter().any(|o| o.interface == link.name);
        let is_free = |link: &&Link| !self.is_inside(&link.name) && !is_outside(link) && !link.loopback;
        let free = have.links.iter().filter(is_free).filter(|l| !self.nameless.contains(&l.index));
        let kin = free.filter(|l| !kinds::is_port(l, have) && kinds::is_with(l, have, &is_outside));
        let kin: Vec<String> = kin.map(|l| l.name.clone()).collect();
        self.left_alone.retain(|name| !kin.contains(name));
        self.outside.extend(kin.into_iter().map(|interface| Outside { interface, reason: Reason::Kin }));
        applet::sort::sort_by(&mut self.outside, |a, b| a.interface.cmp(&b.interface));
    }

    /// The names of the interfaces that are outside. A card that nothing declares is among them, so
    /// that its first lease changes no rule: no route of it waits for nft.
    pub fn external(&self) -> Vec<String> {
        self.outside.iter().map(|o| o.interface.clone()).collect()
    }

    /// Whether a zone has it.
    pub fn is_inside(&self, name: &str) -> bool {
        self.inside.iter().any(|i| i.interface == name)
    }

    /// The zones that have interfaces, in the order of their records.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for inside in &self.inside {
            if !names.contains(&inside.zone.as_str()) {
                names.push(&inside.zone);
            }
        }
        names
    }

    /// The interfaces of a zone.
    pub fn of<'a>(&'a self, zone: &'a str) -> impl Iterator<Item = &'a str> {
        self.inside.iter().filter(move |i| i.zone == zone).map(|i| i.interface.as_str())
    }

    /// While the kernel changes, what was outside stays outside.
    pub fn beside(&self, memory: &Memory) -> Zones {
        let mut zones = self.clone();
        for name in memory.outside.iter().filter(|name| !self.outside.iter().any(|o| o.interface == **name)) {
            let reason = Reason::Before("it was outside".to_owned());
            zones.outside.push(Outside { interface: name.clone(), reason });
            zones.inside.retain(|i| i.interface != *name);
            zones.left_alone.retain(|n| n != name);
        }
        applet::sort::sort_by(&mut zones.outside, |a, b| a.interface.cmp(&b.interface));
        zones
    }

    /// What has turned since the last run, one line each.
    pub fn news(&self, memory: &Memory, have: &Have) -> Vec<String> {
        let was_inside = |name: &str| memory.inside.iter().any(|n| n == name);
        let turned = self.outside.iter().filter(|o| was_inside(&o.interface));
        let closed = turned.map(|o| format!("{} is outside now: {}", o.interface, o.reason));
        let was_outside = |name: &str| memory.outside.iter().any(|n| n == name);
        let turned = self.inside.iter().filter(|i| was_outside(&i.interface));
        let opened = turned.map(|i| format!("{} is inside now: {} declares it, zone {}", i.interface, i.place, i.zone));
        // A link that has gone has not turned.
        let is_known = |name: &str| {
            have.link(name).is_none() || self.is_inside(name) || self.outside.iter().any(|o| o.interface == name)
        };
        let forgotten = memory.outside.iter().filter(|name| !is_known(name));
        let forgotten = forgotten.map(|name| format!("{name} is not outside now: nothing says so"));
        closed.chain(opened).chain(forgotten).collect()
    }

    /// Records that declare an interface which has an uplink's properties.
    pub fn warnings(&self, current: &[Current]) -> Vec<String> {
        let mut out = Vec::new();
        let declares =
            |e: &crate::record::Entry| e.is_static && (e.network.zone.is_some() || e.network.address.is_some());
        for (entry, _) in current.iter().filter(|(e, _)| declares(e)) {
            let name = entry.interface();
            let Some((_, why)) = self.had.iter().find(|(n, _)| n == name) else { continue };
            // A record of an uplink with its router is no mistake.
            if entry.hops.iter().any(|h| is_default(&h.destination)) && entry.network.zone.is_none() {
                continue;
            }
            let fate = match self.is_inside(name) {
                true => "is inside, though it looks like an uplink",
                false => "stays outside",
            };
            out.push(format!("{}: {name} {fate}: {why}", entry.origin));
        }
        out
    }
}

#[cfg(test)]
mod tests;

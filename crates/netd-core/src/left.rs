//! What fw has left in the kernel, as a text that a watcher compares with the kernel later. PURE.
//!
//! At the end of a run fw writes the file [`FILE`] of the dynamic directory: each interface that a
//! record names, its number, whether it was up, and a fingerprint of its objects; then one
//! fingerprint of fw's rules and of its routes elsewhere. A watcher (`ifplugd --all`) makes the
//! same of what the kernel has now. While both are equal fw would find nothing to do, so fw's own
//! changes need no special care, and neither do events that were lost. The nft table has its own
//! fingerprint (netd's table.rs). Called by fw and ifplugd.

use crate::net::IfName;
use crate::wire::rtnetlink::{self, AddressAttribute, AddressFamily, RouteAttribute, RouteType};

/// Route, rule and address protocol of everything fw makes: unassigned in rtnetlink(7), in
/// iproute2's and in FRR's tables. `share/rt_protos.d/netsv.conf` gives it its name.
pub const PROTOCOL: u8 = 213;
/// The name of fw's table, of the family inet.
pub const TABLE: &str = "netsv";
/// The file's name.
pub const FILE: &str = ".left";

/// RTPROT_KERNEL of linux/rtnetlink.h: the kernel has made the route itself.
pub const PROTOCOL_KERNEL: u8 = 2;
/// RT_TABLE_MAIN of linux/rtnetlink.h.
pub const TABLE_MAIN: u32 = 254;

/// FNV-1a with 64 bits, over words of eight bytes instead of single ones: against accidents, not
/// against an adversary, who would be root here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fnv(pub u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// Takes bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let last = rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        for word in words.iter().map(|word| u64::from_le_bytes(*word)).chain([last, bytes.len() as u64]) {
            // A product carries bits upwards alone, so the upper ones are turned down.
            self.0 = ((self.0 ^ word).wrapping_mul(0x0100_0000_01b3)).rotate_left(29);
        }
    }

    fn of(parts: &[&[u8]]) -> u64 {
        let mut hash = Fnv::default();
        for part in parts {
            hash.add(&part.len().to_le_bytes());
            hash.add(part);
        }
        hash.0
    }
}

/// An address or a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Object {
    /// The kernel's number of its interface; 0 for none or several.
    index: u32,
    /// It bears fw's tag.
    tagged: bool,
    hash: u64,
}

/// What the kernel has now, of the kinds that fw makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    links: Vec<(String, u32, bool)>,
    objects: Vec<Object>,
    rules: u64,
}

impl Seen {
    /// An interface, and whether the administrator wants it up.
    pub fn link(&mut self, name: &str, index: u32, up: bool) {
        self.links.push((name.to_owned(), index, up));
    }

    /// The payload of RTM_NEWADDR. Every address counts, not fw's alone: before Linux 5.18 no
    /// address bears a tag, and one that a router advertisement brought makes an uplink.
    pub fn address(&mut self, payload: &[u8]) {
        let Some(object) = rtnetlink::address(payload) else { return };
        let (mut address, mut metric, mut tagged) = (None, 0, false);
        for attribute in object.attributes {
            match attribute {
                AddressAttribute::Local(ip) => address = Some(ip),
                AddressAttribute::Address(ip) => address = address.or(Some(ip)),
                AddressAttribute::RoutePriority(number) => metric = number,
                AddressAttribute::Protocol(number) => tagged = u8::from(number) == PROTOCOL,
                _ => {}
            }
        }
        // The kernel makes and removes the link-local ones as the carrier comes and goes.
        if let Some(ip) = address.filter(|ip| !is_link_local_v6(*ip)) {
            let (ip, len) = (ip.to_string(), object.header.prefix_len);
            let hash = Fnv::of(&[b"address", ip.as_bytes(), &[len, u8::from(tagged)], &metric.to_le_bytes()]);
            self.objects.push(Object { index: object.header.index, tagged, hash });
        }
    }

    /// The payload of RTM_NEWROUTE. fw's routes count, and in the main table the kernel's own:
    /// those to the networks of addresses.
    pub fn route(&mut self, payload: &[u8]) {
        let Some(object) = rtnetlink::route(payload) else { return };
        let header = &object.header;
        let tagged = u8::from(header.protocol) == PROTOCOL;
        let (mut table, mut index, mut metric) = (u32::from(header.table), 0, 0_u32);
        let (mut to, mut others) = (String::new(), String::new());
        for attribute in &object.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Oif(number) => index = *number,
                RouteAttribute::Priority(number) => metric = *number,
                RouteAttribute::Destination(address) => {
                    to = rtnetlink::route_ip(address).map(|ip| ip.to_string()).unwrap_or_default();
                }
                RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::PrefSource(_) => {
                    others += &format!("{attribute:?}");
                }
                _ => {}
            }
        }
        let of_kernel = u8::from(header.protocol) == PROTOCOL_KERNEL
            && table == TABLE_MAIN
            && header.kind == RouteType::Unicast
            && !to.starts_with("fe80:");
        if tagged || of_kernel {
            let family = u8::from(header.address_family == AddressFamily::Inet);
            let fixed = [family, header.destination_prefix_length, header.tos, header.kind.into(), u8::from(tagged)];
            let (table, metric) = (table.to_le_bytes(), metric.to_le_bytes());
            let hash = Fnv::of(&[b"route", &fixed, to.as_bytes(), &table, &metric, others.as_bytes()]);
            self.objects.push(Object { index, tagged, hash });
        }
    }

    /// The payload of RTM_NEWRULE.
    pub fn rule(&mut self, payload: &[u8]) {
        let Some(object) = rtnetlink::rule(payload) else { return };
        let tag = rtnetlink::RuleAttribute::Protocol(PROTOCOL.into());
        if object.attributes.contains(&tag) {
            self.rules = self.rules.wrapping_add(Fnv::of(&[b"rule", payload]));
        }
    }

    /// The interface of this name.
    fn place(&self, name: &str) -> Option<Place> {
        let (_, index, up) = self.links.iter().find(|(n, ..)| n == name)?;
        let own = self.objects.iter().filter(|o| o.index == *index);
        let objects = own.fold(0_u64, |sum, o| sum.wrapping_add(o.hash));
        Some(Place { index: *index, up: *up, objects })
    }

    /// fw's rules, and its routes that belong to none of the interfaces named.
    fn others<'a>(&self, names: impl Iterator<Item = &'a str>) -> u64 {
        let index = |name: &str| self.links.iter().find(|(n, ..)| n == name).map(|(_, index, _)| *index);
        let named: Vec<u32> = names.filter_map(index).collect();
        let objects = self.objects.iter().filter(|o| o.tagged && !named.contains(&o.index));
        objects.fold(self.rules, |sum, o| sum.wrapping_add(o.hash))
    }
}

fn is_link_local_v6(ip: std::net::IpAddr) -> bool {
    matches!(ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// An interface as fw left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    index: u32,
    up: bool,
    objects: u64,
}

/// What fw has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    links: Vec<(String, Option<Place>)>,
    others: u64,
    /// The run has done all that it could. Otherwise another program was at work meanwhile.
    settled: bool,
}

impl Left {
    /// Of the interfaces that records name, in their order.
    pub fn new<'a>(names: impl Iterator<Item = &'a str>, seen: &Seen, settled: bool) -> Left {
        let mut links: Vec<(String, Option<Place>)> = Vec::new();
        for name in names {
            if !links.iter().any(|(n, _)| n == name) {
                links.push((name.to_owned(), seen.place(name)));
            }
        }
        let others = seen.others(links.iter().map(|(n, _)| n.as_str()));
        Left { links, others, settled }
    }

    /// The file's text. Lines are `link NAME`, for a missing one, or `link NAME INDEX up|down
    /// OBJECTS`; `others OBJECTS`; `unsettled`.
    pub fn render(&self) -> String {
        let link = |(name, place): &(String, Option<Place>)| match place {
            Some(p) => format!("link {name} {} {} {:016x}\n", p.index, if p.up { "up" } else { "down" }, p.objects),
            None => format!("link {name}\n"),
        };
        let mut text: String = self.links.iter().map(link).collect();
        text += &format!("others {:016x}\n", self.others);
        text += if self.settled { "" } else { "unsettled\n" };
        text
    }

    /// Reads the file's text. `None`: it is not fw's, or of another version.
    pub fn parse(text: &str) -> Option<Left> {
        let mut left = Left { settled: true, ..Left::default() };
        let mut is_whole = false;
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["link", name] => left.links.push((IfName::parse(name)?.to_string(), None)),
                ["link", name, index, up, objects] => {
                    let objects = u64::from_str_radix(objects, 16).ok()?;
                    let place = Place { index: index.parse().ok()?, up: *up == "up", objects };
                    left.links.push((IfName::parse(name)?.to_string(), Some(place)));
                }
                ["others", objects] => {
                    left.others = u64::from_str_radix(objects, 16).ok()?;
                    is_whole = true;
                }
                ["unsettled"] => left.settled = false,
                _ => return None,
            }
        }
        is_whole.then_some(left)
    }

    /// What differs from what fw has left, for the log. An interface that is down counts as it was:
    /// the administrator may be at work on it, and it is looked at when it is up again.
    pub fn difference(&self, seen: &Seen) -> Option<String> {
        for (name, before) in &self.links {
            let what = match (before, seen.place(name)) {
                (None, None) => continue,
                (Some(_), None) => "is gone",
                (None, Some(_)) => "is there",
                (Some(before), Some(now)) if before.index != now.index => "is there anew",
                (Some(_), Some(Place { up: false, .. })) => continue,
                (Some(before), Some(now)) if *before == now => continue,
                (Some(Place { up: false, .. }), Some(_)) => "is up again",
                (Some(_), Some(_)) => "has lost or gained addresses or routes",
            };
            return Some(format!("{name} {what}"));
        }
        if self.others != seen.others(self.links.iter().map(|(n, _)| n.as_str())) {
            return Some("rules or routes of fw have changed".to_owned());
        }
        (!self.settled).then(|| "another program was at work while fw was".to_owned())
    }

    /// Whether an interface is named, or has the number of one.
    pub fn is_about(&self, name: Option<&str>, index: u32) -> bool {
        self.links.iter().any(|(n, place)| Some(n.as_str()) == name || place.is_some_and(|p| p.index == index))
    }

    /// Whether fw has left this interface in another state.
    pub fn is_news(&self, name: &str, index: u32, up: bool) -> bool {
        let is_it = |(n, place): &(String, Option<Place>)| {
            (n == name && place.is_none_or(|p| p.index != index || p.up != up))
                // It has another name now.
                || (n != name && place.is_some_and(|p| p.index == index))
        };
        self.links.iter().any(is_it)
    }
}

#[cfg(test)]
mod tests;

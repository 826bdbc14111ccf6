//! The words of fw.conf about what is inside, what is outside, and what a zone may do.
//!
//! Pure. Called by policy.rs; want/zones.rs acts on them.

use netd_core::net::ZoneName;

use super::doors::Door;
use super::{Given, Policy, Word, bad, interfaces, split};

/// The zone of a record that names none.
pub const LAN: &str = "lan";
/// All interfaces that lead outside, in a list of zones.
pub const OUTSIDE: &str = "outside";
/// Every interface, in a list of zones.
pub const ANY: &str = "any";

/// Where the packets of a zone may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everywhere.
    Any,
    /// By the uplinks.
    Outside,
    /// To the interfaces of this zone.
    Zone(ZoneName),
}

/// What of this machine is open to a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    /// Everything.
    All,
    /// The DHCP server.
    Dhcp,
    /// The name server.
    Dns,
    /// The time server.
    Ntp,
    /// Echo requests.
    Ping,
    /// These ports, or this protocol.
    Door(Door),
}

/// What fw.conf says of one zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The zone.
    pub zone: ZoneName,
    /// The line of fw.conf.
    pub line: usize,
    /// The words.
    pub words: Vec<T>,
}

/// What becomes of virtual links of other programs, of which no record and no word speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unlisted {
    /// They are left alone. Hardware cards are closed.
    #[default]
    Auto,
    /// They are closed, too.
    Closed,
    /// They are left alone, hardware cards as well.
    Open,
}

/// Inside and outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// Interfaces that are outside, beside those that fw finds.
    pub outside: Vec<String>,
    /// What becomes of all that is neither declared nor found.
    pub unlisted: Unlisted,
    /// Where each zone may go.
    pub to: Vec<Setting<Target>>,
    /// What of this machine is open to each.
    pub router: Vec<Setting<Service>>,
}

/// The table.
pub(super) const WORDS: &[Word] = &[
    Word {
        name: "extif",
        means: "interfaces that are outside, beside those that fw finds",
        read: |p, given| interfaces(given.value).map(|names| p.zones.outside = names),
    },
    Word {
        name: "unlisted",
        means: "what becomes of virtual links that no record and no word names",
        read: |p, given| unlisted(given.value).map(|unlisted| p.zones.unlisted = unlisted),
    },
    Word {
        name: "zone_NAME_to",
        means: "where the hosts of a zone may go",
        read: |p, given| set(p, given, |p| &mut p.zones.to, target),
    },
    Word {
        name: "zone_NAME_router",
        means: "what of this machine is open to a zone",
        read: |p, given| set(p, given, |p| &mut p.zones.router, service),
    },
];

fn unlisted(value: &str) -> Result<Unlisted, String> {
    match value {
        "" | "auto" => Ok(Unlisted::Auto),
        "closed" => Ok(Unlisted::Closed),
        "open" => Ok(Unlisted::Open),
        other => Err(bad(other)),
    }
}

/// A line that comes later takes the place of one before.
fn set<T>(
    policy: &mut Policy,
    given: Given,
    slot: fn(&mut Policy) -> &mut Vec<Setting<T>>,
    read: fn(&str) -> Option<T>,
) -> Result<(), String> {
    let zone = name(given.name)?;
    let words = split(given.value).map(|w| read(w).ok_or_else(|| bad(w))).collect::<Result<Vec<T>, _>>()?;
    let settings = slot(policy);
    settings.retain(|setting| setting.zone != zone);
    settings.push(Setting { zone, line: given.line, words });
    Ok(())
}

/// The name of a zone, which is no word of the lists.
fn name(text: &str) -> Result<ZoneName, String> {
    let name = ZoneName::parse(text).filter(|name| ![OUTSIDE, ANY].contains(&name.as_str()));
    name.ok_or_else(|| format!("not the name of a zone: {}", text.escape_debug()))
}

fn target(word: &str) -> Option<Target> {
    match word {
        ANY => Some(Target::Any),
        OUTSIDE => Some(Target::Outside),
        zone => ZoneName::parse(zone).map(Target::Zone),
    }
}

fn service(word: &str) -> Option<Service> {
    match word {
        "all" => Some(Service::All),
        "dhcp" => Some(Service::Dhcp),
        "dns" => Some(Service::Dns),
        "ntp" => Some(Service::Ntp),
        "ping" => Some(Service::Ping),
        door => Door::parse(door).map(Service::Door),
    }
}

impl Zones {
    /// Where this zone may go: `any` for the LAN and `outside` for others, unless a line says
    /// otherwise.
    pub fn to(&self, zone: &str) -> Vec<Target> {
        let said = self.to.iter().find(|s| s.zone.as_str() == zone).map(|s| s.words.clone());
        said.unwrap_or_else(|| vec![if zone == LAN { Target::Any } else { Target::Outside }])
    }

    /// What of this machine is open to this zone: all to the LAN, `dhcp dns ping` to others, unless
    /// a line says otherwise.
    pub fn router(&self, zone: &str) -> Vec<Service> {
        let said = self.router.iter().find(|s| s.zone.as_str() == zone).map(|s| s.words.clone());
        said.unwrap_or_else(|| match zone == LAN {
            true => vec![Service::All],
            false => vec![Service::Dhcp, Service::Dns, Service::Ping],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::policy::parse;
    use crate::input::policy::tests::clean;

    #[test]
    fn zones_have_defaults_and_the_last_line_counts() {
        let zones = clean("").zones;
        assert_eq!(zones.to(LAN), [Target::Any]);
        assert_eq!(zones.to("guest"), [Target::Outside]);
        assert_eq!(zones.router(LAN), [Service::All]);
        assert_eq!(zones.router("guest"), [Service::Dhcp, Service::Dns, Service::Ping]);
        let zones = clean(
            "zone_guest_to='lan'\nzone_guest_to=\"outside, dmz\"\nzone_guest_router=\"\"\nzone_lan_router='tcp/22 ntp'\n\
             unlisted=closed",
        )
        .zones;
        let dmz = ZoneName::parse("dmz").unwrap();
        assert_eq!(zones.to("guest"), [Target::Outside, Target::Zone(dmz)]);
        assert_eq!(zones.to[0].line, 2);
        assert_eq!(zones.router("guest"), []);
        assert_eq!(zones.router(LAN), [Service::Door(Door::parse("tcp/22").unwrap()), Service::Ntp]);
        assert_eq!(zones.unlisted, Unlisted::Closed);
    }

    #[test]
    fn wrong_words_of_zones_are_named() {
        for (line, what) in [
            ("zone_guest_to=\"LAN\"", "zone_guest_to: bad value: LAN"),
            ("zone_guest_router=\"ssh\"", "zone_guest_router: bad value: ssh"),
            ("zone_guest_router=\"tcp/0\"", "zone_guest_router: bad value: tcp/0"),
            ("zone_outside_to=\"lan\"", "zone_outside_to: not the name of a zone: outside"),
            ("zone_Guest_to=\"lan\"", "zone_Guest_to: not the name of a zone: Guest"),
            ("zone__to=\"lan\"", "unknown key: zone__to"),
            ("zone_guest_too=\"lan\"", "unknown key: zone_guest_too"),
            ("zone_guest=\"lan\"", "unknown key: zone_guest"),
            ("unlisted=\"maybe\"", "unlisted: bad value: maybe"),
        ] {
            let (policy, errors) = parse(line.as_bytes());
            assert_eq!(policy, Policy::default(), "{line}");
            assert!(errors.len() == 1 && errors[0].what.starts_with(what), "{line}: {errors:?}");
        }
    }
}

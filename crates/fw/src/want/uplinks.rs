//! Which uplink comes first, and which ones go behind the others.
//!
//! Pure. Called by want.rs.

use crate::input::lease::Current;
use crate::input::policy::Policy;
use crate::model::TABLE_MAIN;
use crate::record::Entry;
use crate::want::WantRoute;

use super::zones::Zones;

/// Metric of the first uplink, and the distance to the next.
const METRIC_STEP: u32 = 100;

/// One interface that leads outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uplink {
    pub(super) name: String,
    pub(super) metric: u32,
}

fn is_default_of_main(entry: &Entry) -> bool {
    entry.table() == TABLE_MAIN && entry.hops.iter().any(|h| h.destination.is_default())
}

/// The uplinks that fw.conf puts in order, then those of static records in their order, then the
/// others by name, which is the order of their dynamic files, and metered ones at last.
pub(super) fn rank(current: &[Current], policy: &Policy, remembered: &[String], zones: &Zones) -> Vec<Uplink> {
    let entries = || current.iter().map(|(e, _)| e);
    let mut names: Vec<&str> = Vec::new();
    let mut add = |name| {
        if !names.contains(&name) {
            names.push(name);
        }
    };
    entries().filter(|e| e.is_static && is_default_of_main(e)).for_each(|e| add(e.interface()));
    let mut dynamic: Vec<&str> = entries().filter(|e| is_default_of_main(e)).map(|e| e.interface()).collect();
    dynamic.extend(remembered.iter().map(String::as_str).filter(|n| !zones.is_inside(n)));
    applet::sort::sort(&mut dynamic);
    dynamic.into_iter().for_each(add);
    let places = policy.uplinks.places();
    let (placed, mut others): (Vec<&str>, Vec<&str>) = names.iter().partition(|n| places.contains(n));
    applet::sort::sort_by_key(&mut others, |name| policy.uplinks.metered.iter().any(|metered| metered == name));
    // A place stays free for one that has no lease yet.
    let placed = (1..).zip(&places).filter(|(_, name)| placed.contains(name)).map(|(place, name)| (place, *name));
    let first_other = u32::try_from(places.len()).unwrap_or(u32::MAX).saturating_add(1);
    let all = placed.chain((first_other..).zip(others));
    all.map(|(place, name)| Uplink { name: name.to_owned(), metric: METRIC_STEP.saturating_mul(place) }).collect()
}

/// Each uplink keeps its number, 1 to 254, while this boot lasts; 255 marks bridged packets. New
/// ones get the lowest free numbers: first those that fw.conf names, in its order, so that they
/// have the same ones after each boot; then the others by name. An interface that may become an
/// uplink has a number from the start, so that the firewall need not be loaded anew when it does.
pub(super) fn numbers(policy: &Policy, others: Vec<&String>, remembered: &[(String, u8)]) -> Vec<(String, u8)> {
    let mut names = policy.uplinks.named();
    let mut others: Vec<&str> = others.into_iter().map(String::as_str).filter(|n| !names.contains(n)).collect();
    applet::sort::sort(&mut others);
    others.dedup();
    names.extend(others);
    let mut out: Vec<(String, u8)> = Vec::new();
    let is_new = |out: &[(String, u8)], name: &str, number| !out.iter().any(|(n, taken)| n == name || *taken == number);
    for (name, number) in remembered {
        if *number != 0 && names.contains(&name.as_str()) && is_new(&out, name, *number) {
            out.push((name.clone(), *number));
        }
    }
    for name in names {
        let free = (1..u8::MAX).find(|number| !out.iter().any(|(_, taken)| taken == number));
        if let Some(free) = free.filter(|free| is_new(&out, name, *free)) {
            out.push((name.to_owned(), free));
        }
    }
    out
}

/// How many of all new connections go by each uplink of `balance` that has a default route and is
/// not bad.
pub(super) fn shares(policy: &Policy, routes: &[WantRoute], bad: &[&str]) -> Vec<(String, u32)> {
    let works = |name: &str| {
        let leads_out = |r: &WantRoute| r.table == TABLE_MAIN && r.destination.is_default() && r.interface == name;
        routes.iter().any(leads_out) && !bad.contains(&name)
    };
    policy.uplinks.balance.iter().filter(|(name, _)| works(name)).cloned().collect()
}

/// The line for connections that cannot be spread: the marks are the firewall's.
pub(super) fn in_vain(policy: &Policy) -> Option<String> {
    let can = policy.uplinks.balance.is_empty() || (policy.firewall && policy.forward);
    (!can).then(|| format!("{}: balance needs forward=\"yes\" and firewall=\"yes\": it has no effect", policy.file))
}

/// The interfaces that go behind the others: those of which any record says `health=down`, whether
/// the link watcher or the pinger wrote it. When all uplinks are bad, the last one in use stays,
/// else the first, so that the default route does not move from one dead router to another and
/// back.
pub(super) fn demoted<'a>(uplinks: &[Uplink], current: &'a [Current], last: Option<&str>) -> Vec<&'a str> {
    let is_served = |name: &str| current.iter().any(|(e, _)| e.interface() == name && is_default_of_main(e));
    let down = |name: &str| current.iter().any(|(e, _)| e.interface() == name && e.is_bad());
    let served: Vec<&str> = uplinks.iter().map(|u| u.name.as_str()).filter(|n| is_served(n)).collect();
    let stays = match served.iter().all(|name| down(name)) {
        true => served.iter().find(|n| Some(**n) == last).or(served.first()),
        false => None,
    };
    let names = current.iter().filter(|(e, _)| e.is_bad()).map(|(e, _)| e.interface());
    names.filter(|name| Some(name) != stays).collect()
}

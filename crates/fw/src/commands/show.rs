//! `fw show`: what is applied, as the kernel and fw's own files tell it.
//!
//! Shell; ../show.rs has the text. It works without privilege as far as the kernel lets it. Called
//! by commands.rs.

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use netd::clock;
use netd::netlink::{Netlink, ROUTE};
use netd_core::record::Health;
use netd_core::wire::rtnetlink::{self, AddressAttribute};
use nix::time::{ClockId, clock_gettime};

use crate::change::show_route;
use crate::commands::confirm;
use crate::confirm::Standing;
use crate::have::{Address, Link, Route};
use crate::input::{Input, Paths};
use crate::model::{PROTOCOL, TABLE_MAIN};
use crate::record::Entry;
use crate::report::{EXIT_OK, Report};
use crate::run::{self, Look};
use crate::show::{Interface, Object, Show, Uplink};
use crate::want::{Origin, WantRoute};
use crate::wire;

/// Prints it.
pub fn show(paths: &Paths, as_json: bool) -> Result<u8, String> {
    let mut report = Report::silent();
    let look = run::look(paths, Input::read(paths), &mut report)?;
    let show = Show {
        applied: applied(paths),
        waiting: look.plan.changes.len() + look.firewall.iter().count() + look.files.len(),
        is_down: paths.down().exists(),
        confirm: match confirm::standing(paths) {
            Ok(Standing::Pending(left)) => Some(left),
            Ok(Standing::Over(_)) => Some(Duration::ZERO),
            Ok(Standing::Settled) | Err(_) => None,
        },
        uplinks: uplinks(&look),
        interfaces: interfaces(&look, &ages()),
        forwards: if paths.down().exists() { Vec::new() } else { forwards(paths, &look) },
    };
    applet::say::out(&if as_json { show.json() } else { show.text() });
    Ok(EXIT_OK)
}

/// When a run has changed something the last time: that is when its memory was written.
fn applied(paths: &Paths) -> Option<(u64, u64)> {
    let written = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let last = [paths.memory(), paths.dynamic.join(".nft")].iter().filter_map(|path| written(path)).max()?;
    let at = last.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some((at.as_secs(), clock::wall().as_secs()))
}

/// The addresses of the kernel with the time since each was made. It counts in hundredths of a
/// second of CLOCK_MONOTONIC (struct ifa_cacheinfo of linux/if_addr.h).
fn ages() -> Vec<(Address, Duration)> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    let dumped = Netlink::open(ROUTE).and_then(|mut route| route.dump(&wire::dump_addresses()));
    let made = |payload: &[u8]| {
        rtnetlink::address(payload)?.attributes.into_iter().find_map(|attribute| match attribute {
            AddressAttribute::CacheInfo(info) => Some(Duration::from_millis(u64::from(info.cstamp) * 10)),
            _ => None,
        })
    };
    let objects = dumped.unwrap_or_default();
    let with_age = |payload: &[u8]| Some((wire::decode_address(payload)?, now.saturating_sub(made(payload)?)));
    objects.iter().filter_map(|(_, payload)| with_age(payload)).collect()
}

fn uplinks(look: &Look) -> Vec<Uplink> {
    let is_default = |r: &&Route| r.destination.is_default() && r.table == TABLE_MAIN && r.protocol == PROTOCOL;
    let best = |name: &str, all: &[Route]| {
        let index = look.have.link(name).map(|l| l.index);
        all.iter().filter(is_default).filter(|r| Some(r.index) == index).min_by_key(|r| r.metric).cloned()
    };
    let usable: Vec<Route> = look.have.routes.iter().filter(|r| !r.dead).cloned().collect();
    let active = usable.iter().filter(is_default).min_by_key(|r| r.metric).map(|r| look.have.name(r.index));
    let verdicts = |name: &str| {
        let records = look.input.records.iter().map(|(entry, _)| entry).filter(|e| e.interface() == name);
        let verdict = |e: &Entry| {
            let health = e.network.health?;
            Some((health != Health::Down, Origin::by(e, "health").to_string()))
        };
        records.filter_map(verdict).collect::<Vec<_>>()
    };
    let names = look.want.uplinks.iter().zip(1..);
    names
        .map(|(name, rank)| {
            let route = best(name, &look.have.routes);
            Uplink {
                name: name.clone(),
                active: active.as_ref() == Some(name),
                rank,
                metric: route.as_ref().map(|r| r.metric),
                health: verdicts(name),
                demoted: look.want.bad.contains(name),
                metered: look.want.metered.contains(name),
                dead: route.as_ref().is_some_and(|r| r.dead),
            }
        })
        .collect()
}

fn interfaces(look: &Look, ages: &[(Address, Duration)]) -> Vec<Interface> {
    let links = look.have.links.iter().filter(|link| !link.loopback);
    links
        .map(|link| {
            let (role, reason) = role(look, link);
            Interface {
                name: link.name.clone(),
                up: link.up,
                role,
                reason,
                addresses: addresses(look, link, ages),
                routes: routes(look, link),
            }
        })
        .collect()
}

/// Inside or outside, and why.
fn role(look: &Look, link: &Link) -> (String, String) {
    let zones = &look.want.zones;
    let outside = zones.outside.iter().find(|o| o.interface == link.name);
    let inside = zones.inside.iter().find(|i| i.interface == link.name);
    match (outside, inside) {
        (Some(outside), _) => ("outside".into(), outside.reason.to_string()),
        (None, Some(inside)) => (format!("zone {}", inside.zone), inside.place.clone()),
        (None, None) if link.master != 0 => (format!("part of {}", look.have.name(link.master)), String::new()),
        (None, None) => ("unlisted".into(), link.kind.clone().unwrap_or_default()),
    }
}

fn addresses(look: &Look, link: &Link, ages: &[(Address, Duration)]) -> Vec<Object> {
    let ours = look.have.addresses.iter().filter(|a| a.index == link.index && a.protocol == PROTOCOL);
    let wanted = |a: &Address| look.want.addresses.iter().find(|w| w.interface == link.name && w.address == a.address);
    let age =
        |a: &Address| ages.iter().find(|(o, _)| o.index == a.index && o.address == a.address).map(|(_, age)| *age);
    ours.map(|a| Object {
        text: a.address.to_string(),
        from: wanted(a).map(|w| w.origin.to_string()).unwrap_or_default(),
        age: age(a),
        left: a.lifetime,
        dead: false,
    })
    .collect()
}

fn routes(look: &Look, link: &Link) -> Vec<Object> {
    let is_ours = |r: &&Route| r.protocol == PROTOCOL || look.have.is_for_our_address(r);
    let ours = look.have.routes.iter().filter(|r| r.index == link.index).filter(is_ours);
    let wanted = |r: &Route| {
        let is_it =
            |w: &&WantRoute| w.interface == link.name && w.destination == r.destination && w.gateway == r.gateway;
        look.want.routes.iter().find(is_it)
    };
    ours.filter(|r| r.table == TABLE_MAIN)
        .map(|r| Object {
            text: show_route(&link.name, r),
            from: wanted(r).map(|w| w.origin.to_string()).unwrap_or_default(),
            dead: r.dead,
            ..Object::default()
        })
        .collect()
}

/// What is open of hosts behind this machine, and the line of fw.conf that opens it.
fn forwards(paths: &Paths, look: &Look) -> Vec<(String, String)> {
    let asked = &look.input.policy.forwards;
    let config = paths.config.display();
    let place = |word: &str, line: usize| format!("{config}:{line} {word}");
    let openings = &look.want.openings;
    let ports = openings.forwards.iter().map(|f| (f.word.clone(), place("port_forward", asked.ports_line)));
    let hosts = openings.hosts.iter().map(|h| (h.word.clone(), place("open6", asked.hosts_line)));
    ports.chain(hosts).collect()
}

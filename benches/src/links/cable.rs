//! The link watcher: from the kernel's message that a cable was pulled or plugged in to the
//! handler.

use std::io;
use std::time::{Duration, Instant};

use super::carrier::Carrier;
use super::{FIFO, Said, ms};
use crate::table::{OURS, Row, median};
use crate::world::{Starter, World, script};

/// linkwatch passes non-urgent events on about once a second. A pull soon after another event would
/// measure that wait.
const PAUSE: Duration = Duration::from_millis(1300);
/// Each pause is longer by this much, within a second. A watcher that looks once a second is so met
/// at all moments of its second.
const SHIFT: Duration = Duration::from_millis(370);
/// Longer than any watcher takes: the seed's delays are 8 s, and it looks every 3 s.
const LIMIT: Duration = Duration::from_secs(20);

struct Watcher {
    name: &'static str,
    command: String,
}

/// The watchers that watch the same pulls together, and the number of pulls.
struct Group {
    watchers: Vec<Watcher>,
    rounds: usize,
}

fn groups(applets: &str, quick: bool) -> Vec<Group> {
    let rounds = if quick { 3 } else { 5 };
    // -p -q: no call at the start or at the end.
    let watcher = |name: &'static str, program: &str, flags: &str| Watcher {
        name,
        command: format!("{program} -n -s -a -p -q -i eth0 -r /run/cable.{name} {flags}"),
    };
    let quickest = watcher("ifplugd", "ifplugd", "-t1 -u0 -d0");
    let ours = watcher(OURS, &format!("{applets}/ifplugd"), "-u0 -d0");
    let mut groups = vec![Group { watchers: vec![quickest, ours], rounds }];
    // ifplugd allows one instance for each interface, because of its pid file.
    if !quick {
        groups.push(Group { watchers: vec![watcher("polling", "ifplugd", "-t0 -T10000 -u0 -d0")], rounds });
        groups.push(Group { watchers: vec![watcher("seed", "ifplugd", "-t3 -u8 -d8")], rounds: 1 });
    }
    groups
}

pub(super) fn bench(world: &World, applets: &str, quick: bool, said: &Said) -> io::Result<Vec<Row>> {
    let (mut down, mut up) = (Vec::new(), Vec::new());
    let groups = groups(applets, quick);
    for group in &groups {
        world.clean();
        let mut starter = Starter::enter(world)?;
        for Watcher { name, command } in &group.watchers {
            script(&format!("/run/cable.{name}"), &format!("#!/bin/sh\necho {name} $2 > {FIFO}\n"));
            starter.start(name, command)?;
        }
        let carrier = Carrier::watch(&world.home, "eth0")?;
        let mut samples = vec![(Vec::new(), Vec::new()); group.watchers.len()];
        for round in 0..group.rounds {
            let took = [false, true].map(|plug| {
                let shift = SHIFT * (2 * round as u32 + u32::from(plug));
                std::thread::sleep(PAUSE + Duration::from_millis(u64::from(shift.subsec_millis())));
                one(world, group, &carrier, said, plug)
            });
            for (samples, (down, up)) in samples.iter_mut().zip(took[0].iter().zip(&took[1])) {
                samples.0.extend(*down);
                samples.1.extend(*up);
            }
        }
        for (watcher, samples) in group.watchers.iter().zip(samples) {
            down.push((watcher.name, median(samples.0)));
            up.push((watcher.name, median(samples.1)));
        }
    }
    world.clean();
    let rounds = groups.first().map_or(0, |group| group.rounds);
    let polling = if quick { "" } else { ", seed 1; polling: -t0 -T10000, 100 looks a second" };
    Ok(vec![
        Row::new("cable pulled: kernel's event -> handler, ms", down)
            .note(format!("ifplugd -t1 -u0 -d0, ours -u0 -d0: median of {rounds}{polling}")),
        Row::new("cable plugged: kernel's event -> handler, ms", up),
    ])
}

/// The time that each watcher of the group took.
fn one(world: &World, group: &Group, carrier: &Carrier, said: &Said, plug: bool) -> Vec<Option<f64>> {
    carrier.drain();
    said.drain();
    if plug {
        world.uplinks[0].plug();
    } else {
        world.uplinks[0].pull();
    }
    let event = carrier.wait(plug, LIMIT);
    let mut told = vec![None; group.watchers.len()];
    let end = Instant::now() + LIMIT;
    while told.iter().any(Option::is_none) {
        let Some((at, line)) = said.next(end.saturating_duration_since(Instant::now())) else { break };
        for (watcher, told) in group.watchers.iter().zip(&mut told) {
            if line == format!("{} {}", watcher.name, if plug { "up" } else { "down" }) {
                told.get_or_insert(at);
            }
        }
    }
    let took = |told: Option<Instant>| Some(signed_ms(event?, told?));
    told.into_iter().map(took).collect()
}

/// A program that polls may hear of the change before the event.
fn signed_ms(from: Instant, to: Instant) -> f64 {
    ms(to.saturating_duration_since(from)) - ms(from.saturating_duration_since(to))
}

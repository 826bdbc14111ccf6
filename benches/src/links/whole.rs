//! The whole suite on two uplinks, with pinger and zcip: a router that falls silent, a killed
//! client, and the memory.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use testkit::poll_for;
use testkit::probe::Probe;

use super::ms;
use crate::failover::{self, PACE, Suite};
use crate::table::{OURS, OURS_ONE, Row, median};
use crate::world::{TARGET, World, private_kb};

/// An event that does not come in this time never comes.
const NEVER: Duration = Duration::from_secs(15);
/// Longer than the hold-down of 10 s.
const BACK: Duration = Duration::from_secs(25);
/// The limit for a new lease. The seed's client waits three seconds before each try.
const HEALED: Duration = Duration::from_secs(4);
const HEALED_QUICKLY: Duration = Duration::from_secs(2);
/// dhcpcd's scripts still run when both uplinks are ready.
const SCRIPTS: Duration = Duration::from_secs(1);
/// Time for the last answers to arrive.
const TRAVEL: Duration = Duration::from_millis(200);

/// The results of one suite. The table shows the median of each list.
#[derive(Default)]
struct Seen {
    away_ms: Vec<f64>,
    back_ms: Vec<f64>,
    back_lost: Vec<f64>,
    killed_lost: Vec<f64>,
    /// USS and its dirty part in kB, and the number of processes.
    memory: Option<(f64, f64, f64)>,
}

pub(super) fn bench(world: &World, applets: &str, quick: bool) -> io::Result<Vec<Row>> {
    let mut all = Vec::new();
    for suite in suites(applets) {
        if quick && suite.name == "seed" {
            continue;
        }
        eprintln!("  links: the whole, {}", suite.name);
        all.push((suite.name, one(world, &suite, quick)?));
    }
    let row = |name: &str, get: fn(&Seen) -> Option<f64>| {
        Row::new(name, all.iter().map(|(n, seen)| (*n, get(seen))).collect())
    };
    let never = if quick { "others: not tried".to_owned() } else { format!("-: not within {} s", NEVER.as_secs()) };
    let peers = "dhcpcd and networkd: DHCP alone";
    Ok(vec![
        row("router silent, link up -> pings flow for good, ms", |s| median(s.away_ms.clone())).note(never),
        row("router back -> preferred uplink again, ms", |s| median(s.back_ms.clone())).note("hold-down of 10 s"),
        row("router back: pings lost", |s| median(s.back_lost.clone())).note("every 2 ms"),
        row("idle uplink's client killed: pings lost", |s| median(s.killed_lost.clone())).note("every 2 ms, kill -9"),
        row("two uplinks, zcip, pinger: private memory (USS), kB", |s| Some(s.memory?.0)).note(peers),
        row("two uplinks, zcip, pinger: private dirty memory, kB", |s| Some(s.memory?.1)),
        row("two uplinks, zcip, pinger: processes", |s| Some(s.memory?.2)),
    ])
}

/// The suites of failover.rs. Ours has zcip and pinger; it also runs under a runsvdir that hosts
/// all services.
fn suites(applets: &str) -> Vec<Suite> {
    let mut all = Vec::new();
    for mut suite in failover::suites(applets) {
        if suite.name != OURS {
            all.push(suite);
            continue;
        }
        suite.files.push_str(
            "; for i in eth0 eth1; do cp -r services/zcip_if /run/sv/zcip_$i; \
             cp -r services/dhcp_if_pinger /run/sv/dhcp_${i}_pinger; done",
        );
        // Otherwise the second of our suites would remember the addresses of the first.
        suite.command = suite.command.replace("env ", "env ZCIP_STATE=/run ");
        let command = suite.command.replace("runsvdir -P", "runsvdir -1 -P");
        all.extend([Suite { name: OURS_ONE, command, ..suite.clone() }, suite]);
    }
    all
}

fn one(world: &World, suite: &Suite, quick: bool) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let starter = failover::start(world, suite)?;
    if suite.name.starts_with(OURS) {
        claimed(suite)?;
    }
    std::thread::sleep(SCRIPTS);
    let pids: Vec<u32> = world.pids().into_iter().filter(|pid| *pid != starter.pid()).collect();
    if suite.name != "seed" {
        let (uss, dirty) = private_kb(&pids);
        seen.memory = Some((uss, dirty, pids.len() as f64));
    }
    let probe = Probe::start(Some(world.home.name()), TARGET, PACE)?;
    std::thread::sleep(TRAVEL);
    if suite.name == OURS || suite.name == "seed" {
        seen.killed_lost.extend(killed(suite, &probe, if quick { HEALED_QUICKLY } else { HEALED })?);
    }
    let rounds = match suite.name {
        OURS if quick => 1,
        OURS => 3,
        "dhcpcd" | "networkd" if !quick => 1,
        _ => 0,
    };
    for _ in 0..rounds {
        if !silent(world, &probe, &mut seen) && suite.name == OURS {
            return Err(io::Error::other("ours: pings do not flow over the other uplink"));
        }
    }
    drop(probe);
    drop(starter);
    world.clean();
    Ok(seen)
}

/// Waits until every process runs: both pingers have a verdict, and both link-local addresses are
/// there.
fn claimed(suite: &Suite) -> io::Result<()> {
    let records = ["zcip_eth0", "zcip_eth1", "health_eth0", "health_eth1"];
    let there = || records.iter().all(|name| fs::exists(format!("/run/service/fw/{name}.ipconf")).unwrap_or(false));
    let all = poll_for(BACK, || there().then_some(()));
    all.ok_or_else(|| io::Error::other(format!("{}: not all of {records:?} are published", suite.name)))
}

/// Kills the client of eth1, which carries no traffic.
fn killed(suite: &Suite, probe: &Probe, healed: Duration) -> io::Result<Option<f64>> {
    let services = if suite.name == "seed" { "/run/seedsv" } else { "/run/sv" };
    let pid = || fs::read_to_string(format!("{services}/dhcp_eth1/supervise/pid")).ok()?.trim().parse::<i32>().ok();
    let old = pid().ok_or_else(|| io::Error::other(format!("{}: dhcp_eth1 has no pid", suite.name)))?;
    let start = Instant::now();
    testkit::kill_9(old);
    if poll_for(healed, || pid().filter(|new| *new != old)).is_none() {
        return Ok(None);
    }
    std::thread::sleep(healed.saturating_sub(start.elapsed()));
    let end = Instant::now();
    std::thread::sleep(TRAVEL);
    Ok(Some(probe.loss(start, end).lost as f64))
}

/// The router of the first provider falls silent and comes back. Returns whether pings flowed in
/// between.
fn silent(world: &World, probe: &Probe, seen: &mut Seen) -> bool {
    let via = |interface: &str| world.home.route_to(&TARGET.to_string()).as_deref() == Some(interface);
    let start = Instant::now();
    world.isp().silence("cust");
    if poll_for(NEVER, || via("eth1").then_some(())).is_some() {
        std::thread::sleep(TRAVEL);
    }
    let away = probe.recovered(start).map(|at| ms(at.saturating_duration_since(start)));
    let start = Instant::now();
    world.isp().speak();
    let back = poll_for(BACK, || via("eth0").then(|| start.elapsed()));
    std::thread::sleep(TRAVEL);
    let end = Instant::now();
    std::thread::sleep(TRAVEL);
    if let Some(away) = away {
        seen.away_ms.push(away);
        seen.back_ms.extend(back.map(ms));
        seen.back_lost.push(probe.loss(start, end).lost as f64);
    }
    away.is_some()
}

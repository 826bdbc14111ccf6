//! Failover between two leased uplinks. The appliance sends an echo every 2 ms; the cable of the
//! preferred uplink is pulled and plugged back.

use std::io;
use std::time::{Duration, Instant};

use testkit::poll_for;
use testkit::probe::Probe;

use crate::supervise::settle;
use crate::table::{OURS, Row, median};
use crate::world::{NETWORKD, Starter, TARGET, World, networkd_files, private_kb, sh};

/// The interval of the echoes.
pub(crate) const PACE: Duration = Duration::from_millis(2);

/// A whole suite that keeps two uplinks.
#[derive(Clone)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// Shell text that makes the suite's files and prints nothing.
    pub(crate) files: String,
    pub(crate) command: String,
    /// How long it may take to settle after a pull or plug: the seed's debounce is 9 s.
    pub(crate) settle: Duration,
    /// How often the cable is pulled and plugged back; the median counts.
    pub(crate) rounds: u32,
    /// Whether the kernel holds both default routes at the same time.
    pub(crate) standby: bool,
}

/// The suites. Each has two uplinks, and prefers eth0.
pub(crate) fn suites(applets: &str) -> Vec<Suite> {
    let path = std::env::var("PATH").unwrap_or_default();
    vec![
        Suite {
            name: "dhcpcd",
            files: "rm -rf /run/dhcpcd /var/lib/dhcpcd; mkdir -p /run/dhcpcd /var/lib/dhcpcd; printf 'nodev\\nnoipv6\\nnoipv4ll\\nnoarp\\n\
                    option routers, domain_name_servers\\ninterface eth0\\nmetric 100\\ninterface eth1\\nmetric 600\\n' > /run/dhcpcd.conf"
                .into(),
            command: "dhcpcd -f /run/dhcpcd.conf -B --nodelay -4 eth0 eth1".into(),
            settle: Duration::from_secs(4),
            rounds: 3,
            standby: true,
        },
        Suite {
            name: "networkd",
            files: networkd_files(&[("eth0", 100), ("eth1", 600)]),
            command: NETWORKD.into(),
            settle: Duration::from_secs(4),
            rounds: 3,
            standby: true,
        },
        Suite {
            name: "seed",
            files: "rm -rf /run/seedsv /run/seed; mkdir -p /run/seedsv /run/seed; for i in eth0 eth1; do \
                    cp -r benches/seed/dhcp_if /run/seedsv/dhcp_$i; cp -r benches/seed/ifplugd_if /run/seedsv/ifplugd_$i; done; \
                    cp -r benches/seed/fw /run/seedsv/fw"
                .into(),
            command: "env SVDIR=/run/seedsv SEED_RUN=/run/seed runsvdir -P /run/seedsv".into(),
            settle: Duration::from_secs(15),
            rounds: 1,
            standby: false,
        },
        Suite {
            name: OURS,
            files: "rm -rf /run/sv /run/service/fw /run/etc; mkdir -p /run/sv /run/etc /run/log; for i in eth0 eth1; do \
                    cp -r services/dhcp_if /run/sv/dhcp_$i; cp -r services/ifplugd_if /run/sv/ifplugd_$i; done; \
                    cp -r services/fw /run/sv/fw; printf 'preferred_default_route_iface=\"eth0\"\\n' > /run/sv/fw/fw.conf"
                .into(),
            command: format!(
                "env SVDIR=/run/sv FW_ETC=/run/etc LOG_DIR=/run/log PATH={applets}:{path} runsvdir -P /run/sv"
            ),
            // Longer than IFPLUGD_DOWN, so that the services are taken down and brought up again.
            settle: Duration::from_secs(7),
            rounds: 3,
            standby: true,
        },
    ]
}

/// The results of one suite.
struct Seen {
    pull_lost: Option<f64>,
    pull_ms: Option<f64>,
    plug_lost: Option<f64>,
    plug_ms: Option<f64>,
    uss_kb: Option<f64>,
    dirty_kb: Option<f64>,
    processes: Option<f64>,
}

/// Runs every suite once. `seed` takes half a minute, so it is optional.
pub(crate) fn bench(world: &World, applets: &str, with_seed: bool) -> io::Result<Vec<Row>> {
    let mut all: Vec<(&'static str, Seen)> = Vec::new();
    for suite in suites(applets) {
        if suite.name == "seed" && !with_seed {
            continue;
        }
        eprintln!("  failover: {}", suite.name);
        all.push((suite.name, one(world, &suite)?));
    }
    let row = |name: &str, get: fn(&Seen) -> Option<f64>| {
        Row::new(name, all.iter().map(|(n, seen)| (*n, get(seen))).collect())
    };
    Ok(vec![
        row("cable pulled: pings lost (every 2 ms)", |s| s.pull_lost).note("median of 3 cuts, seed 1"),
        row("cable pulled -> pings flow for good, ms", |s| s.pull_ms),
        row("plugged back: pings lost", |s| s.plug_lost),
        row("plugged back -> preferred uplink again, ms", |s| s.plug_ms).note("ours waits its hold-down on purpose"),
        row("two uplinks: private memory (USS), kB", |s| s.uss_kb),
        row("two uplinks: private dirty memory, kB", |s| s.dirty_kb),
        row("two uplinks: processes", |s| s.processes),
    ])
}

fn via_eth0(world: &World) -> bool {
    world.home.route_to(&TARGET.to_string()).as_deref() == Some("eth0")
}

/// Starts a suite in a clean world; both uplinks are ready when this returns.
pub(crate) fn start(world: &World, suite: &Suite) -> io::Result<Starter> {
    world.clean();
    sh(&suite.files);
    let mut starter = Starter::enter(world)?;
    let log = suite.name.replace(' ', "");
    starter.start(&log, &suite.command)?;
    let ready = poll_for(Duration::from_secs(20), || {
        let addresses = world.at_home("ip -4 -o addr show scope global").lines().count();
        let routes = world.home.default_routes().len();
        (via_eth0(world) && addresses >= 2 && routes >= if suite.standby { 2 } else { 1 }).then_some(())
    });
    if ready.is_none() {
        let log = sh(&format!("tail -n 40 /run/{log}.log"));
        return Err(io::Error::other(format!("{}: uplinks not ready; its log:\n{log}", suite.name)));
    }
    Ok(starter)
}

/// The suite's processes when all of them rest and none of them comes or goes any more. Some suites
/// start more processes than they keep.
fn at_rest(world: &World, starter: &Starter) -> Vec<u32> {
    let running = || world.pids().into_iter().filter(|pid| *pid != starter.pid()).collect::<Vec<u32>>();
    let mut pids = running();
    for _ in 0..5 {
        settle(&pids);
        let now = running();
        if now == pids {
            break;
        }
        pids = now;
    }
    pids
}

fn one(world: &World, suite: &Suite) -> io::Result<Seen> {
    let starter = start(world, suite)?;
    let pids = at_rest(world, &starter);
    let (uss, dirty) = private_kb(&pids);
    let probe = Probe::start(Some(world.home.name()), TARGET, PACE)?;
    let mut cuts = Vec::new();
    for _ in 0..suite.rounds {
        cuts.push(cut(world, suite, &probe));
    }
    let of = |get: fn(&Cut) -> Option<f64>| median(cuts.iter().filter_map(get).collect());
    let seen = Seen {
        pull_lost: of(|c| Some(c.pull_lost)),
        pull_ms: of(|c| c.pull_ms),
        plug_lost: of(|c| Some(c.plug_lost)),
        plug_ms: of(|c| c.plug_ms),
        uss_kb: Some(uss),
        dirty_kb: Some(dirty),
        processes: Some(pids.len() as f64),
    };
    drop(probe);
    drop(starter);
    world.clean();
    Ok(seen)
}

/// One pull and plug of the cable.
struct Cut {
    pull_lost: f64,
    pull_ms: Option<f64>,
    plug_lost: f64,
    plug_ms: Option<f64>,
}

fn cut(world: &World, suite: &Suite, probe: &Probe) -> Cut {
    // The kernel's linkwatch passes non-urgent events on about once a second. A pull soon after
    // another event of any link would measure that wait.
    std::thread::sleep(Duration::from_secs(3));
    let pulled = Instant::now();
    world.uplinks[0].pull();
    std::thread::sleep(suite.settle);
    let settled = Instant::now();
    std::thread::sleep(Duration::from_millis(200));
    let pull_lost = probe.loss(pulled, settled).lost as f64;
    let pull_ms = probe.recovered(pulled).map(|at| (at - pulled).as_secs_f64() * 1000.0);

    let plugged = Instant::now();
    world.uplinks[0].plug();
    let back = poll_for(suite.settle, || via_eth0(world).then(|| plugged.elapsed()));
    std::thread::sleep(suite.settle.saturating_sub(plugged.elapsed()));
    let settled = Instant::now();
    std::thread::sleep(Duration::from_millis(200));
    let plug_lost = probe.loss(plugged, settled).lost as f64;
    Cut { pull_lost, pull_ms, plug_lost, plug_ms: back.map(|d| d.as_secs_f64() * 1000.0) }
}

//! Supervision: 200 idle services under each suite, and a logger. All suites run at the same time
//! and take turns.

mod logger;
mod suite;
mod tree;

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::table::{BARE, Row, median};
use crate::targets;
use crate::world::private_kb;
use suite::{Suite, suites};
use tree::{Starts, Tree};
pub(crate) use tree::{settle, switches};

/// Idle services under each suite.
const SERVICES: usize = 200;
/// Every suite throttles a service that ran for less than this.
const GRACE: Duration = Duration::from_millis(1100);

/// The pause before each measured kill. s6 waits for a second before it starts a service again, and
/// a machine that has idled for so long is slower for the next suite than for the one after it.
const REST: Duration = Duration::from_millis(300);

/// The numbers of rounds and the times.
struct Effort {
    rounds: usize,
    idle: Duration,
}

/// The results of one suite. The table shows the median of each list.
#[derive(Default)]
struct Seen {
    up_ms: Vec<f64>,
    uss_kb: Option<f64>,
    added_ms: Vec<f64>,
    killed_ms: Vec<f64>,
    again_ms: Vec<f64>,
    restart_ms: Vec<f64>,
    status_ms: Vec<f64>,
    lost: Option<f64>,
    wakeups: Option<f64>,
    log_cpu_ms: Vec<f64>,
    log_writes: Vec<f64>,
}

/// A suite with its services.
struct Running<'a> {
    tree: Tree<'a>,
    pids: HashMap<String, i32>,
    seen: Seen,
}

/// All suites. They take turns in each step, so that every suite meets the same conditions.
pub(crate) fn bench(applets: &str, quick: bool) -> io::Result<Vec<Row>> {
    let effort = if quick {
        Effort { rounds: 3, idle: Duration::from_secs(10) }
    } else {
        Effort { rounds: 5, idle: Duration::from_secs(30) }
    };
    let suites = suites(applets)?;
    let starts = Starts::open()?;
    let mut bare_ms = Vec::new();
    for _ in 0..effort.rounds {
        bare_ms.push(ms(tree::bare(&starts, SERVICES)?));
    }
    let mut all = boot(&suites, &starts, &effort)?;
    std::thread::sleep(GRACE);
    eprintln!("  supervision: status, restarts");
    for one in &mut all {
        one.memory();
    }
    for _ in 0..effort.rounds * 3 {
        all.iter_mut().try_for_each(Running::status)?;
    }
    let names: Vec<String> = (0..SERVICES).map(|n| format!("s{n}")).collect();
    let (to_kill, others) = names.split_at(effort.rounds * 4);
    for name in to_kill {
        all.iter_mut().try_for_each(|one| one.killed(name, &starts))?;
        // No suite always comes after the same one.
        all.rotate_left(1);
    }
    all.sort_by_key(|one| suites.iter().position(|suite| suite.name == one.tree.suite.name));
    for name in others.iter().take(effort.rounds) {
        all.iter_mut().try_for_each(|one| one.restarted(name, &starts))?;
    }
    eprintln!("  supervision: one-shots, new directories");
    for _ in 0..effort.rounds {
        all.iter_mut().try_for_each(|one| one.again(&starts))?;
    }
    for n in 0..effort.rounds {
        all.iter_mut().try_for_each(|one| one.added(&format!("new{n}"), &starts))?;
    }
    eprintln!("  supervision: down and up, 200 times");
    lost(&mut all, &starts)?;
    eprintln!("  supervision: {} s idle, all at once", effort.idle.as_secs());
    idle(&mut all, effort.idle);
    let mut all: Vec<(&Suite, Seen)> = all.into_iter().map(|one| (one.tree.suite, one.seen)).collect();
    eprintln!("  supervision: loggers");
    for _ in 0..effort.rounds {
        all.iter_mut().try_for_each(|(suite, seen)| log(suite, seen))?;
    }
    Ok(rows(&all, &effort, median(bare_ms)))
}

/// Starts every suite again and again, and keeps the last ones running.
fn boot<'a>(suites: &'a [Suite], starts: &Starts, effort: &Effort) -> io::Result<Vec<Running<'a>>> {
    let mut ups: Vec<Vec<f64>> = vec![Vec::new(); suites.len()];
    for _ in 1..effort.rounds {
        for (suite, up_ms) in suites.iter().zip(&mut ups) {
            up_ms.push(up(suite, starts)?.2);
        }
    }
    let mut all = Vec::new();
    for (suite, mut up_ms) in suites.iter().zip(ups) {
        let (tree, pids, last) = up(suite, starts)?;
        up_ms.push(last);
        all.push(Running { tree, pids, seen: Seen { up_ms, ..Seen::default() } });
    }
    Ok(all)
}

fn rows(all: &[(&Suite, Seen)], effort: &Effort, bare_ms: Option<f64>) -> Vec<Row> {
    let row = |name: &str, get: &dyn Fn(&Seen) -> Option<f64>| {
        Row::new(name, all.iter().map(|(suite, seen)| (suite.name, get(seen))).collect())
    };
    let middle = |name: &str, get: fn(&Seen) -> &Vec<f64>| row(name, &|seen| median(get(seen).clone()));
    let mut up = middle(targets::UP, |s| &s.up_ms);
    up.values.insert(0, (BARE, bare_ms));
    let (rounds, idle) = (format!("median of {}", effort.rounds), effort.idle.as_secs());
    vec![
        row(targets::USS, &|s| s.uss_kb).note("mean of 200; ours -1: the process by its services"),
        middle(targets::ADDED, |s| &s.added_ms).note("s6 is told with s6-svscanctl -a, the others are not"),
        middle(targets::KILLED, |s| &s.killed_ms).note("the daemon, which has run for a second"),
        middle(targets::AGAIN, |s| &s.again_ms).note("one-shot idiom, run of 0.1 s"),
        middle(targets::RESTART, |s| &s.restart_ms).note("svc -t does not wait; s6-svc -wr -r"),
        middle(targets::STATUS, |s| &s.status_ms).note("one call; s6: one s6-svstat each, in a shell's loop"),
        up.note(format!("{rounds}; the loop starts the 200 and supervises none")),
        row(targets::LOST, &|s| s.lost).note("one round with each service"),
        row(targets::WAKEUPS, &|s| s.wakeups).note(format!("in {idle} s, scanner and supervisors")),
        middle(targets::LOGGER, |s| &s.log_cpu_ms).note(format!("16 MiB, lines of 100 bytes, {rounds}")),
        middle("logger: writes", |s| &s.log_writes),
    ]
}

/// Starts a tree. Returns the pids of its services, and the time until all of them ran.
fn up<'a>(suite: &'a Suite, starts: &Starts) -> io::Result<(Tree<'a>, HashMap<String, i32>, f64)> {
    starts.drain();
    let tree = Tree::start(suite, SERVICES)?;
    let named = |e: io::Error| io::Error::other(format!("{}: {e}", suite.name));
    let all = starts.many(SERVICES).map_err(named)?;
    let took = all.last().map_or(0.0, |last| ms(last.at.saturating_duration_since(tree.started)));
    Ok((tree, all.into_iter().map(|start| (start.key, start.pid)).collect(), took))
}

impl Running<'_> {
    fn memory(&mut self) {
        let supervisors = self.tree.supervisors();
        let one_process = self.tree.suite.one_process;
        let of = if one_process { supervisors.as_slice() } else { supervisors.get(1..).unwrap_or_default() };
        let count = if one_process { SERVICES + tree::ONE_SHOTS } else { of.len() };
        self.seen.uss_kb = (count > 0).then(|| private_kb(of).0 / count as f64);
    }

    fn status(&mut self) -> io::Result<()> {
        let names: Vec<String> = (0..SERVICES).map(|n| format!("s{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let words = [self.tree.suite.status, &names].concat();
        let start = Instant::now();
        self.tree.run(&words)?;
        self.seen.status_ms.push(ms(start.elapsed()));
        Ok(())
    }

    fn killed(&mut self, name: &str, starts: &Starts) -> io::Result<()> {
        let key = self.tree.key(name);
        let pid = self.pids.get(&key).copied();
        let pid = pid.ok_or_else(|| io::Error::other(format!("{key} has not started")))?;
        std::thread::sleep(REST);
        let start = Instant::now();
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        self.seen.killed_ms.extend(starts.next(&key).map(|next| ms(next.at.saturating_duration_since(start))));
        Ok(())
    }

    fn restarted(&mut self, name: &str, starts: &Starts) -> io::Result<()> {
        let start = Instant::now();
        self.tree.run(&[self.tree.suite.restart, &[name]].concat())?;
        self.seen.restart_ms.push(ms(start.elapsed()));
        // svc returns before the service has restarted.
        let _ = starts.next(&self.tree.key(name));
        Ok(())
    }

    /// Says down to each of the services, and up at once.
    fn down_and_up(&mut self) -> io::Result<()> {
        let Some(down) = self.tree.suite.down else { return Ok(()) };
        for name in (0..SERVICES).map(|n| format!("s{n}")) {
            self.tree.run(&[down, &[&name]].concat())?;
            self.tree.run(&[self.tree.suite.up, &[&name]].concat())?;
        }
        Ok(())
    }

    /// Counts the services that are not wanted up after that.
    fn count_lost(&mut self) {
        if self.tree.suite.down.is_some() {
            let lost = (0..SERVICES).filter(|n| !self.tree.is_wanted_up(&format!("s{n}"))).count();
            self.seen.lost = Some(lost as f64);
        }
    }

    /// The one-shot idiom: `up` during a run means one more run after its end.
    fn again(&mut self, starts: &Starts) -> io::Result<()> {
        let key = self.tree.key(tree::ONE_SHOT);
        let up = [self.tree.suite.up, &[tree::ONE_SHOT]].concat();
        self.tree.run(&up)?;
        if starts.next(&key).is_none() {
            return Ok(());
        }
        // Longer than any supervisor needs to obey "once", and shorter than any throttle.
        std::thread::sleep(Duration::from_millis(100));
        self.tree.run(&up)?;
        std::thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        self.tree.release()?;
        let next = starts.next(&key);
        self.seen.again_ms.extend(next.as_ref().map(|next| ms(next.at.saturating_duration_since(start))));
        if next.is_some() {
            // This run ends without another, long before the next round.
            std::thread::sleep(Duration::from_millis(100));
            self.tree.release()?;
        }
        Ok(())
    }

    fn added(&mut self, name: &str, starts: &Starts) -> io::Result<()> {
        let moved = self.tree.add(name)?;
        let start = starts.next(&self.tree.key(name));
        self.seen.added_ms.extend(start.map(|start| ms(start.at.saturating_duration_since(moved))));
        Ok(())
    }
}

fn lost(all: &mut [Running], starts: &Starts) -> io::Result<()> {
    // A service that runit has started again must live for a second before it is told to go down.
    std::thread::sleep(GRACE);
    all.iter_mut().try_for_each(Running::down_and_up)?;
    // After a shorter life of a service runit obeys no command for a second.
    std::thread::sleep(GRACE + GRACE);
    all.iter_mut().for_each(Running::count_lost);
    starts.drain();
    Ok(())
}

/// Counts how often the supervisors of each tree run while nothing happens, all trees side by side.
fn idle(all: &mut [Running], span: Duration) {
    let pids: Vec<Vec<u32>> = all.iter().map(|one| one.tree.supervisors()).collect();
    settle(&pids.concat());
    let before: Vec<u64> = pids.iter().map(|pids| switches(pids)).collect();
    std::thread::sleep(span);
    for ((one, pids), before) in all.iter_mut().zip(pids).zip(before) {
        one.seen.wakeups = Some(switches(&pids).saturating_sub(before) as f64);
    }
}

fn log(suite: &Suite, seen: &mut Seen) -> io::Result<()> {
    let Some(logger) = suite.logger else { return Ok(()) };
    let cost = logger::run(suite, logger)?;
    seen.log_cpu_ms.push(cost.cpu_ms);
    seen.log_writes.extend(cost.writes);
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

//! Storms: hundreds of services whose daemons and supervisors get kill -9 at random, and a crowd of
//! 1,500 at once. runit starts second instances here, so only ours is under test.
//!
//! Every daemon holds a lock of its own, flock(2) on `mutex`, while it lives. A daemon that finds
//! the lock held for longer than any dying process can hold it records that in `double`, and goes
//! on, so that the test counts it, too.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::subject::{Daemon, World, hosted, ours, signal, with_runsv};

const SERVICES: usize = 200;
/// The length of the storm; $NETSV_STORM_SECS overrides it.
const STORM_SECS: u64 = 8;
/// The time between two blows, so that the rest of the machine can work, too.
const PACE: Duration = Duration::from_millis(20);
/// The limit for recovery. A runsv that was killed too often pauses for some seconds.
const CONVERGENCE: Duration = Duration::from_secs(60);
const GUARD: &str = "exec 9>>mutex\nflock -w 5 9 || echo \"$$\" >>double\n";

/// The kinds of services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Finish,
    Logged,
    /// Down, except for one run on request.
    Once,
}

fn name(n: usize) -> String {
    format!("s{n}")
}

fn kind(n: usize) -> Kind {
    match n % 10 {
        0 | 1 => Kind::Logged,
        2 | 3 => Kind::Finish,
        4 | 5 => Kind::Once,
        _ => Kind::Plain,
    }
}

/// The daemon's command line, which is unique to it.
fn daemon(n: usize) -> String {
    format!("sleep {}", 100_000 + n)
}

fn prepare(world: &World, n: usize) {
    let (service, kind) = (name(n), kind(n));
    let run = match kind {
        Kind::Once => format!("sv o .\n{GUARD}echo >>runs\nsleep 0.05"),
        Kind::Plain | Kind::Finish | Kind::Logged => format!("{GUARD}exec {}", daemon(n)),
    };
    world.script(&format!("{service}/run"), &run);
    match kind {
        Kind::Plain => {}
        Kind::Finish => world.script(&format!("{service}/finish"), "echo \"$*\" >>args"),
        Kind::Logged => world.script(&format!("{service}/log/run"), &format!("{GUARD}exec cat")),
        Kind::Once => world.write(&format!("{service}/down"), ""),
    }
}

/// One line of the process table.
struct Process {
    pid: i32,
    parent: i32,
    zombie: bool,
    /// Empty for a zombie.
    cwd: PathBuf,
    line: String,
}

impl Process {
    fn read(pid: i32) -> Option<Process> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        // proc(5): the state and the parent follow the name in parentheses.
        let stat = fs::read_to_string(proc.join("stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let zombie = fields.next()? == "Z";
        let parent = fields.next()?.parse().ok()?;
        let line = fs::read(proc.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned();
        Some(Process { pid, parent, zombie, cwd: fs::read_link(proc.join("cwd")).unwrap_or_default(), line })
    }

    fn is_supervisor(&self) -> bool {
        self.line.starts_with("runsv ") || self.line.contains("/bin/runsvdir ")
    }
}

/// All processes of the world, and all zombies of the machine.
fn processes(world: &World) -> Vec<Process> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    pids.filter_map(Process::read).filter(|p| p.zombie || p.cwd.starts_with(&world.dir)).collect()
}

/// Random numbers that are the same for the same seed. (xorshift64: Marsaglia 2003.)
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// kill -9, if the process is still one of this world: its number may belong to another by now.
fn strike(world: &World, pid: i32) {
    if pid > 1 && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&world.dir)) {
        signal(pid, Signal::SIGKILL);
    }
}

/// The arguments of `runsvdir`, and how many of a thousand blows hit it.
#[derive(Clone, Copy)]
struct Mode {
    args: &'static [&'static str],
    scanner_per_mille: usize,
}

/// One runsv for each service.
const TREE: Mode = Mode { args: &["."], scanner_per_mille: 10 };
/// One process for all services: its death is the death of all supervision.
const ONE: Mode = Mode { args: &["-1", "."], scanner_per_mille: 40 };

fn storm(world: &World, mode: Mode, mut runsvdir: Daemon) -> Daemon {
    let secs = std::env::var("NETSV_STORM_SECS").ok().and_then(|s| s.parse().ok()).unwrap_or(STORM_SECS);
    let end = Instant::now() + Duration::from_secs(secs);
    let mut rng = Rng(u64::from(std::process::id()) << 32 | 0x9e37_79b9);
    println!("seed {:#x}", rng.0);
    let mut supervisors: Vec<i32> = Vec::new();
    while Instant::now() < end {
        let n = rng.below(SERVICES);
        match rng.below(1000) {
            blow if blow < mode.scanner_per_mille => {
                runsvdir.kill();
                runsvdir = world.start("runsvdir", mode.args);
            }
            0..300 => {
                if supervisors.is_empty() {
                    let all = processes(world).into_iter().filter(|p| p.line.starts_with("runsv "));
                    supervisors = all.map(|p| p.pid).collect();
                }
                if !supervisors.is_empty() {
                    let victim = supervisors.swap_remove(rng.below(supervisors.len()));
                    strike(world, victim);
                    // After some blows this list is out of date.
                    supervisors.truncate(supervisors.len().saturating_sub(SERVICES / 20));
                }
            }
            300..400 if kind(n) == Kind::Once && world.is_supervised(&name(n)) => {
                // The supervisor may die between these calls.
                let fifo = world.at(&name(n)).join("supervise/control");
                let _ = fs::OpenOptions::new().read(true).write(true).open(fifo).and_then(|mut f| {
                    use std::io::Write;
                    f.write_all(b"u")
                });
            }
            400..500 if kind(n) == Kind::Logged => strike(world, world.pid(&format!("{}/log", name(n)))),
            _ => strike(world, world.pid(&name(n))),
        }
        std::thread::sleep(PACE);
    }
    runsvdir
}

/// The first fault that is found, if any.
fn wrong(world: &World) -> Option<String> {
    let all = processes(world);
    let supervisors: HashSet<i32> = all.iter().filter(|p| p.is_supervisor()).map(|p| p.pid).collect();
    if let Some(zombie) = all.iter().find(|p| p.zombie && supervisors.contains(&p.parent)) {
        return Some(format!("a zombie, {}, below {}", zombie.pid, zombie.parent));
    }
    let mut at: HashMap<PathBuf, Vec<&Process>> = HashMap::new();
    for process in all.iter().filter(|p| !p.is_supervisor() && !p.zombie) {
        at.entry(process.cwd.clone()).or_default().push(process);
    }
    (0..SERVICES).find_map(|n| {
        let (service, log) = (name(n), format!("{}/log", name(n)));
        let instances = |name: &str| at.get(&world.at(name)).map_or(&[][..], Vec::as_slice);
        let main = match kind(n) {
            Kind::Once => None,
            Kind::Plain | Kind::Finish | Kind::Logged => Some(daemon(n)),
        };
        let service = wrong_files(world, &service, instances(&service), main.as_deref());
        service.or_else(|| (kind(n) == Kind::Logged).then(|| wrong_files(world, &log, instances(&log), Some("cat")))?)
    })
}

/// Compares the files of one supervise/ with the process table. `line` is the command line that
/// should run there; it is `None` for a service that is down.
fn wrong_files(world: &World, name: &str, instances: &[&Process], line: Option<&str>) -> Option<String> {
    let status = world.status(name);
    let (pid, stat) = (world.pid(name), world.stat(name));
    let bytes = status.get(16..20);
    let pid_file = world.read(&format!("{name}/supervise/pid"));
    let shown = || {
        let lines: Vec<_> = instances.iter().map(|p| (p.pid, &p.line)).collect();
        Some(format!("{name}: {lines:?}, status {pid} {bytes:?}, stat {stat:?}, pid {pid_file:?}"))
    };
    let good = match (line, instances) {
        (Some(line), [one]) => {
            let files = pid == one.pid && pid_file == format!("{pid}\n") && stat == "run\n";
            files && one.line == line && bytes == Some(&[0, b'u', 0, 1])
        }
        (None, []) => pid == 0 && pid_file.is_empty() && stat == "down\n" && bytes == Some(&[0, b'd', 0, 0]),
        (Some(_) | None, _) => false,
    };
    if good && world.is_supervised(name) { None } else { shown() }
}

fn wait_until_well(world: &World) {
    patiently(world, || wrong(world));
}

/// Waits until nothing is wrong. It waits longer than [`World::wait`], because all of these
/// services together take long.
fn patiently(world: &World, wrong: impl Fn() -> Option<String>) {
    let end = Instant::now() + CONVERGENCE;
    while let Some(text) = wrong() {
        assert!(Instant::now() < end, "{text}\n{}", world.errors());
        // A look at thousands of processes costs time, too.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn converge(world: &World, mode: Mode) {
    (0..SERVICES).for_each(|n| prepare(world, n));
    let runsvdir = world.start("runsvdir", mode.args);
    wait_until_well(world);
    let runsvdir = storm(world, mode, runsvdir);
    wait_until_well(world);
    // The orders of the storm are done, and each service obeys the next order.
    let once: Vec<String> = (0..SERVICES).filter(|n| kind(*n) == Kind::Once).map(name).collect();
    let runs = |service: &str| world.lines(&format!("{service}/runs")).len();
    let before: Vec<usize> = once.iter().map(|service| runs(service)).collect();
    once.iter().for_each(|service| world.control(service, "u"));
    wait_until_well(world);
    for (service, before) in once.iter().zip(before) {
        world.wait(&format!("{service} to run once"), || runs(service) > before);
    }
    wait_until_well(world);
    let doubles: Vec<String> = (0..SERVICES)
        .flat_map(|n| [format!("{}/double", name(n)), format!("{}/log/double", name(n))])
        .filter(|file| world.at(file).exists())
        .collect();
    assert!(doubles.is_empty(), "second instances: {doubles:?}\n{}", world.errors());
    end(world, runsvdir);
}

/// A new process writes itself into supervise/instance before it executes anything, because its
/// supervisor may be killed at any moment of a start.
#[test]
fn a_supervisor_killed_in_the_middle_of_a_start_leaves_no_second_instance() {
    ours(|world| {
        world.script("a/run", &format!("{GUARD}exec sleep 1000"));
        // The next start comes ten milliseconds after an end.
        world.write("a/restart-delay", "0");
        let mut rng = Rng(42);
        let mut supervisor = world.runsv("a");
        for _ in 0..40 {
            world.wait_stat("a", "run");
            let old = world.pid("a");
            signal(old, Signal::SIGKILL);
            let moment = Instant::now() + Duration::from_micros(9000 + rng.below(3000) as u64);
            while Instant::now() < moment {
                std::hint::spin_loop();
            }
            supervisor.kill();
            // A child that has not executed ./run yet holds the lock for a moment.
            world.wait("the lock to be free", || lock_is_free(world, "a"));
            supervisor = world.runsv("a");
            world.wait_pid("a", old);
            world.wait_count("sleep 1000", 1);
        }
        assert!(!world.at("a/double").exists());
    });
}

fn lock_is_free(world: &World, name: &str) -> bool {
    let file = fs::File::options().append(true).open(world.at(&format!("{name}/supervise/lock"))).unwrap();
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).is_ok()
}

/// HUP ends everything.
fn end(world: &World, runsvdir: Daemon) {
    runsvdir.signal(Signal::SIGHUP);
    // The list leaves zombies out. runsvdir is one until the test waits for it.
    patiently(world, || {
        let left = world.processes();
        (!left.is_empty()).then(|| format!("{left:?}"))
    });
    assert_eq!(runsvdir.wait(), 111);
}

#[test]
fn two_hundred_services_under_random_kill_9_converge() {
    with_runsv(|world| converge(world, TREE));
}

#[test]
fn two_hundred_services_in_one_process_under_random_kill_9_converge() {
    hosted(|world| converge(world, ONE));
}

/// How often the processes got a processor.
fn switches(pids: &[i32]) -> u64 {
    let of = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        // voluntary_ctxt_switches and nonvoluntary_ctxt_switches
        let lines = text.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        lines.map(|(_, n)| n.trim().parse::<u64>().unwrap()).sum::<u64>()
    };
    pids.iter().map(of).sum()
}

/// One crowd at a time: a crowd is much work for the machine.
static CROWD: Mutex<()> = Mutex::new(());

fn many(world: &World, mode: Mode) {
    const COUNT: usize = 1500;
    let _alone = CROWD.lock().unwrap_or_else(PoisonError::into_inner);
    (0..COUNT).for_each(|n| world.script(&format!("{}/run", name(n)), "exec sleep 100000"));
    let runsvdir = world.start("runsvdir", mode.args);
    patiently(world, || (0..COUNT).map(name).find(|name| world.stat(name) != "run\n"));
    patiently(world, || {
        let count = world.count("sleep 100000");
        (count != COUNT).then(|| format!("{count} daemons"))
    });
    let supervisors: Vec<i32> = processes(world).into_iter().filter(Process::is_supervisor).map(|p| p.pid).collect();
    // All supervisors must soon rest for two seconds.
    let quiet = Cell::new((switches(&supervisors), Instant::now()));
    patiently(world, || {
        let now = switches(&supervisors);
        if now != quiet.get().0 {
            quiet.set((now, Instant::now()));
        }
        let rested = quiet.get().1.elapsed() > Duration::from_secs(2);
        (!rested).then(|| format!("{} supervisors never rest", supervisors.len()))
    });
    end(world, runsvdir);
}

#[test]
fn fifteen_hundred_services_come_rest_and_go() {
    with_runsv(|world| many(world, TREE));
}

#[test]
fn fifteen_hundred_services_in_one_process_come_rest_and_go() {
    hosted(|world| many(world, ONE));
}

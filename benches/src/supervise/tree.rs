//! A directory with services under one suite's scanner, and the fifo in which every service reports
//! its start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, UNIX_EPOCH};

use testkit::{poll_for, wait_until};

use super::suite::Suite;
use crate::world::{script, sh};

/// Longer than any step of any peer takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
const HOME: &str = "/run/supervise";
/// The one-shot service.
pub(crate) const ONE_SHOT: &str = "again";
/// The number of one-shot services in each tree.
pub(crate) const ONE_SHOTS: usize = 1;

/// The start of a service.
pub(crate) struct Start {
    /// `SUITE/SERVICE`, as [`Tree::key`] says.
    pub(crate) key: String,
    /// Its process id.
    pub(crate) pid: i32,
    /// When its first command ran.
    pub(crate) at: Instant,
}

/// The reports of the services, over one fifo.
pub(crate) struct Starts(Receiver<Start>);

impl Starts {
    /// Makes the fifo, and a thread that reads it.
    pub(crate) fn open() -> io::Result<Starts> {
        sh(&format!("rm -rf {HOME}; mkdir {HOME}; mkfifo {HOME}/started"));
        // Opened for reading and writing: no service blocks in open, and the reader never sees an
        // end of file.
        let fifo = OpenOptions::new().read(true).write(true).open(format!("{HOME}/started"))?;
        let (tx, rx) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(fifo).lines().map_while(Result::ok) {
                let at = Instant::now();
                let Some((key, pid)) = line.split_once(' ') else { continue };
                let _ = pid.parse().map(|pid| tx.send(Start { key: key.to_owned(), pid, at }));
            }
        });
        Ok(Starts(rx))
    }

    /// Drops the reports that have arrived.
    pub(crate) fn drain(&self) {
        self.0.try_iter().for_each(drop);
    }

    /// The next start of the service; `None` when it does not come.
    pub(crate) fn next(&self, key: &str) -> Option<Start> {
        let end = Instant::now() + LIMIT;
        loop {
            let start = self.0.recv_timeout(end.saturating_duration_since(Instant::now())).ok()?;
            if start.key == key {
                return Some(start);
            }
        }
    }

    /// The next `count` starts, in order.
    pub(crate) fn many(&self, count: usize) -> io::Result<Vec<Start>> {
        let end = Instant::now() + LIMIT;
        let mut all = Vec::new();
        while all.len() < count {
            let start = self.0.recv_timeout(end.saturating_duration_since(Instant::now()));
            all.push(start.map_err(|_| io::Error::other(format!("{} of {count} services have started", all.len())))?);
        }
        Ok(all)
    }
}

/// A running scanner.
pub(crate) struct Tree<'a> {
    pub(crate) suite: &'a Suite,
    pub(crate) dir: PathBuf,
    key: String,
    go: File,
    scanner: Child,
    /// When the scanner was started.
    pub(crate) started: Instant,
}

impl<'a> Tree<'a> {
    /// Makes `count` idle services s0, s1 ... and the one-shot service, which is down, and then
    /// starts the scanner over them.
    pub(crate) fn start(suite: &'a Suite, count: usize) -> io::Result<Tree<'a>> {
        let key = suite.name.replace(' ', "");
        let dir = PathBuf::from(format!("{HOME}/{key}"));
        let go = format!("{HOME}/{key}.go");
        sh(&format!("rm -rf {HOME}/{key} {HOME}/{key}.*; mkdir -p {HOME}/{key}; mkfifo {go}"));
        for n in 0..count {
            service(&dir.join(format!("s{n}")), &idle(&key, &format!("s{n}")))?;
        }
        // The service ends when a line tells it to.
        let once = format!("{}\n{}read line <{go}\n", suite.once, say(&key, ONE_SHOT));
        service(&dir.join(ONE_SHOT), &once)?;
        fs::write(dir.join(ONE_SHOT).join("down"), "")?;
        // runit and daemontools wait for a second when the directory has changed in the current
        // one.
        File::open(&dir)?.set_modified(UNIX_EPOCH)?;
        let go = OpenOptions::new().read(true).write(true).open(go)?;
        let log = File::create(format!("{HOME}/{key}.log"))?;
        let dir_text = dir.to_string_lossy().into_owned();
        let mut command = suite.command(&dir, &[suite.scan, &[dir_text.as_str()]].concat());
        command.stderr(log);
        let started = Instant::now();
        let scanner = command.spawn()?;
        Ok(Tree { suite, dir, key, go, scanner, started })
    }

    /// The service's name in the fifo.
    pub(crate) fn key(&self, service: &str) -> String {
        format!("{}/{service}", self.key)
    }

    /// Runs a command of the suite, which must succeed.
    pub(crate) fn run(&self, words: &[&str]) -> io::Result<()> {
        self.suite.run(&self.dir, words)
    }

    /// Whether the service is wanted up: byte 17 of runit's status.
    pub(crate) fn is_wanted_up(&self, name: &str) -> bool {
        let status = fs::read(self.dir.join(name).join("supervise/status")).unwrap_or_default();
        status.get(17) == Some(&b'u')
    }

    /// Ends the run of the one-shot service.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        self.go.write_all(b"\n")
    }

    /// Moves a complete new idle service into the directory, and returns the moment.
    pub(crate) fn add(&self, name: &str) -> io::Result<Instant> {
        let beside = PathBuf::from(format!("{HOME}/{}.new", self.key));
        service(&beside, &idle(&self.key, name))?;
        let moved = Instant::now();
        fs::rename(&beside, self.dir.join(name))?;
        if let Some(tell) = self.suite.tell {
            let dir = self.dir.to_string_lossy().into_owned();
            self.run(&[tell, &[dir.as_str()]].concat())?;
        }
        Ok(moved)
    }

    /// The scanner and its supervisors, without the services themselves.
    pub(crate) fn supervisors(&self) -> Vec<u32> {
        let scanner = self.scanner.id();
        let mut all = vec![scanner];
        if !self.suite.one_process {
            all.extend(processes().into_iter().filter(|pid| parent(*pid) == Some(scanner)));
        }
        all
    }
}

impl Drop for Tree<'_> {
    fn drop(&mut self) {
        // The scanner dies first, because it would restart killed supervisors.
        let _ = self.scanner.kill();
        let _ = self.scanner.wait();
        wait_until("all of the tree has ended", LIMIT, || {
            let below =
                |pid: &u32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&self.dir));
            let left: Vec<String> = processes().into_iter().filter(below).map(|pid| pid.to_string()).collect();
            if !left.is_empty() {
                sh(&format!("kill -9 {} 2>/dev/null || true", left.join(" ")));
            }
            left.is_empty()
        });
    }
}

/// The time to start `count` services one after the other without a supervisor. It is the lower
/// bound for every supervisor.
pub(crate) fn bare(starts: &Starts, count: usize) -> io::Result<Duration> {
    let dir = PathBuf::from(format!("{HOME}/bare"));
    for n in 0..count {
        service(&dir.join(format!("s{n}")), &idle("bare", &format!("s{n}")))?;
    }
    starts.drain();
    let started = Instant::now();
    let spawn = |n| Command::new("./run").current_dir(dir.join(format!("s{n}"))).stdin(Stdio::null()).spawn();
    let mut children = (0..count).map(spawn).collect::<io::Result<Vec<Child>>>()?;
    let last = starts.many(count)?.pop();
    for child in &mut children {
        child.kill()?;
        child.wait()?;
    }
    Ok(last.map_or(Duration::ZERO, |last| last.at.saturating_duration_since(started)))
}

/// The first command of every service. It is a builtin of the shell, so there is no fork.
fn say(key: &str, name: &str) -> String {
    format!("echo {key}/{name} $$ >{HOME}/started\n")
}

fn idle(key: &str, name: &str) -> String {
    format!("{}exec sleep 100000\n", say(key, name))
}

fn service(dir: &Path, run: &str) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    script(&dir.join("run").to_string_lossy(), &format!("#!/bin/sh\n{run}"));
    Ok(())
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// proc(5): field 4 of stat, the second after the name in parentheses.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// How often the processes got a processor.
pub(crate) fn switches(pids: &[u32]) -> u64 {
    pids.iter().map(|pid| switches_of(*pid)).sum()
}

fn switches_of(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    // voluntary_ctxt_switches and nonvoluntary_ctxt_switches
    let count = |text: &str| -> u64 {
        let lines = text.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
        lines.filter_map(|(_, n)| n.trim().parse::<u64>().ok()).sum()
    };
    texts.map(|text| count(&text)).sum()
}

/// Waits until none of the processes has run for a second. Peers look around after a change.
pub(crate) fn settle(pids: &[u32]) {
    let mut seen = (switches(pids), Instant::now());
    let _ = poll_for(LIMIT, || {
        let now = switches(pids);
        if now != seen.0 {
            seen = (now, Instant::now());
        }
        (seen.1.elapsed() > Duration::from_secs(1)).then_some(())
    });
}

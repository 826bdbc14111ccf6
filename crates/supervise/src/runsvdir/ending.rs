//! How a runsvdir ends: the meaning of TERM and HUP, and with `-W` the end by force.
//!
//! What it is: decisions by the time that is passed in, and the signals to all processes below this
//! one. What it is not: ending services in order, which is the work of runsv. Called by
//! runsvdir.rs.
//!
//! ```text
//!             TERM                HUP                TERM with -w
//!   running   Leave 0             EndAll 111         EndAll 0
//!   ending    Leave 0             EndAll 111         Leave 1
//!   kept      EndAll              EndAll             EndAll
//! ```

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{EXIT_DISORDER, EXIT_SYSTEM};
use crate::instance::{parse_starttime, read_proc};
use crate::sys;

/// The time between TERM and KILL, and between KILL and the exit. The third stage of Void Linux
/// waits as long.
const BETWEEN: Duration = Duration::from_secs(1);

/// The meaning of a signal now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Nothing,
    /// End all services, wait for their end, exit with this code.
    EndAll(u8),
    /// Exit with this code; what still runs is left to its supervisors.
    Leave(u8),
}

impl Order {
    pub(super) fn of(hangup: bool, term: bool, wait: bool, ending: Option<&Ending>) -> Order {
        match (hangup, term, ending) {
            (false, false, _) => Order::Nothing,
            // This process stands for several runsvs, and obeys TERM as they do.
            (_, _, Some(Ending { kept: true, .. })) => Order::EndAll(0),
            (true, _, _) => Order::EndAll(EXIT_SYSTEM),
            (false, true, None) if wait => Order::EndAll(0),
            // A second TERM: runsvdir does not wait any longer.
            (false, true, Some(_)) if wait => Order::Leave(EXIT_DISORDER),
            // runsvdir(8): exits 0 immediately. The services go on.
            (false, true, _) => Order::Leave(0),
        }
    }
}

/// The steps after the time of `-W` is over, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Term,
    Kill,
    GiveUp,
}

/// No service is started any more, and this process exits when the last of them has ended.
#[derive(Debug)]
pub(super) struct Ending {
    /// The exit code.
    pub(super) code: u8,
    /// It keeps the services of a runsvdir that has ended.
    kept: bool,
    /// The services that have not ended: the number of the runsv, and the name of the service.
    pub(super) left: HashMap<u32, OsString>,
    /// A service may be left: its runsv has not ended in order, and has no successor that has.
    pub(super) disorder: bool,
    /// The services whose runsv was replaced since then.
    replaced: HashSet<OsString>,
    limit: Duration,
    next: Option<(Duration, Step)>,
}

impl Ending {
    /// All are told to end. `limit` is the argument of `-W`.
    pub(super) fn begin(now: Duration, code: u8, limit: Option<Duration>) -> Ending {
        let next = limit.map(|limit| (now.saturating_add(limit), Step::Term));
        let (left, replaced) = (HashMap::new(), HashSet::new());
        Ending { code, kept: false, left, disorder: false, replaced, limit: limit.unwrap_or_default(), next }
    }

    /// None is told to end.
    pub(super) fn kept() -> Ending {
        Ending { kept: true, ..Ending::begin(Duration::ZERO, 0, None) }
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    /// A runsv has ended; `told`: in order. The service of one that was killed gets another runsv,
    /// which ends it, but only one, and none after the time of `-W`.
    pub(super) fn ended(&mut self, id: u32, told: bool) -> Option<OsString> {
        let name = self.left.remove(&id).filter(|_| !told)?;
        let forced = matches!(self.next, Some((_, Step::Kill | Step::GiveUp)));
        let again = !forced && self.replaced.insert(name.clone());
        self.disorder |= !again;
        again.then_some(name)
    }

    /// When [`Ending::step`] is due, CLOCK_BOOTTIME.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.next.map(|(at, _)| at)
    }

    /// The step that is due now.
    pub(super) fn step(&mut self, now: Duration) -> Option<Step> {
        let (_, step) = self.next.filter(|(at, _)| now >= *at)?;
        if self.code == 0 {
            self.code = EXIT_DISORDER;
        }
        let after = match step {
            Step::Term => Some(Step::Kill),
            Step::Kill => Some(Step::GiveUp),
            Step::GiveUp => None,
        };
        self.next = after.map(|step| (now + BETWEEN, step));
        Some(step)
    }

    /// The warning for this step.
    pub(super) fn said(&self, step: Step) -> Option<String> {
        let signal = match step {
            Step::Term => "TERM",
            Step::Kill => "KILL",
            Step::GiveUp => return None,
        };
        let mut names: Vec<_> = self.left.values().map(|name| name.to_string_lossy()).collect();
        applet::sort::sort(&mut names);
        let (secs, names) = (self.limit.as_secs(), names.join(" "));
        Some(format!("not all has ended within {secs} seconds, sending {signal} to what is left: {names}"))
    }
}

/// To all processes that this one, or one below it, has started.
pub(super) fn signal_all(step: Step) {
    let signals: &[Signal] = match step {
        // One that is stopped does not hear of TERM.
        Step::Term => &[Signal::SIGTERM, Signal::SIGCONT],
        Step::Kill | Step::GiveUp => &[Signal::SIGKILL],
    };
    if std::process::id() == 1 {
        // kill(2): to all but process 1 itself. It fails where there is none.
        for signal in signals {
            let _ = kill(Pid::from_raw(-1), *signal);
        }
        return;
    }
    for (pid, started) in below(std::process::id(), &processes()) {
        // Its number may have become another's since the table was read.
        if let Ok(pidfd) = sys::pidfd_open(pid)
            && read(pid).is_some_and(|now| now.started == started)
        {
            for signal in signals {
                let _ = sys::pidfd_send_signal(pidfd.as_fd(), *signal);
            }
        }
    }
}

/// A process that has not ended.
#[derive(Clone, Copy)]
struct Process {
    pid: u32,
    parent: u32,
    /// See [`crate::instance::Instance`].
    started: u64,
}

fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn read(pid: u32) -> Option<Process> {
    let stat = read_proc(&format!("/proc/{pid}/stat")).ok()?;
    // proc(5): field 4, the second behind the name in parentheses.
    let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(4 - 3)?.parse().ok()?;
    Some(Process { pid, parent, started: parse_starttime(&stat)? })
}

/// The children of `root`, theirs, and so on: number and start time.
fn below(root: u32, all: &[Process]) -> Vec<(u32, u64)> {
    let mut found: Vec<(u32, u64)> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for child in all.iter().filter(|one| one.parent == parent) {
            // A table that is read while it changes may have a circle.
            if child.pid != root && found.iter().all(|(pid, _)| *pid != child.pid) {
                found.push((child.pid, child.started));
                parents.push(child.pid);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_table_at_the_head() {
        let ending = Ending::begin(SECOND, 0, None);
        let states = [None, Some(&ending), Some(&Ending::kept())].map(|state| {
            [(false, false), (true, false), (false, true), (true, true)]
                .map(|(hangup, wait)| Order::of(hangup, !hangup, wait, state))
        });
        use Order::{EndAll, Leave};
        assert_eq!(
            states,
            [
                [Leave(0), EndAll(111), EndAll(0), EndAll(111)],
                [Leave(0), EndAll(111), Leave(1), EndAll(111)],
                [EndAll(0); 4],
            ]
        );
        assert_eq!(Order::of(false, false, true, None), Order::Nothing);
    }

    #[test]
    fn what_is_left_gets_term_and_then_kill() {
        let mut ending = Ending::begin(SECOND, 0, Some(SECOND * 9));
        ending.left = [(7, "b".into()), (8, "a".into())].into();
        let said = ending.said(Step::Term).unwrap();
        assert_eq!(said, "not all has ended within 9 seconds, sending TERM to what is left: a b");
        assert_eq!((ending.deadline(), ending.step(SECOND * 9)), (Some(SECOND * 10), None));
        // Late, as after a suspend: the time between the two is kept.
        let steps = [20, 21, 22].map(|secs| ending.step(SECOND * secs));
        assert_eq!(steps, [Step::Term, Step::Kill, Step::GiveUp].map(Some));
        assert_eq!((ending.deadline(), ending.code), (None, EXIT_DISORDER));
        let mut patient = Ending::begin(SECOND, 0, None);
        assert_eq!((patient.deadline(), patient.step(SECOND * 1000)), (None, None));
    }

    #[test]
    fn processes_below_one_are_its_children_and_theirs() {
        let table = [(1, 0), (5, 1), (6, 5), (7, 6), (8, 1), (9, 7), (5, 9)];
        let table = table.map(|(pid, parent)| Process { pid, parent, started: u64::from(pid) });
        let mut found: Vec<u32> = below(5, &table).into_iter().map(|(pid, _)| pid).collect();
        found.sort_unstable();
        assert_eq!(found, [6, 7, 9]);
        // A thread has a name, too. This one is no text.
        nix::sys::prctl::set_name(c"\xff) Z").unwrap();
        let own = read(nix::unistd::gettid().as_raw().try_into().unwrap()).unwrap();
        assert_eq!(own.parent, std::os::unix::process::parent_id());
    }
}

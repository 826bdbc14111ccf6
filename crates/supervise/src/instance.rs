//! Which process is the instance: the extra file `supervise/instance`, by which a runsv that follows one that was
//! killed -9 finds the daemon it left behind, and adopts it instead of starting a second one.
//!
//! One line: `STATE PID STARTTIME BOOT PIPE`, where STATE is down, run or finish; STARTTIME is field 22 of
//! /proc/PID/stat; BOOT is the boot id and the start time of process 1 (it tells one boot, and one container, from
//! another); PIPE is the inode of the log pipe or 0. runit neither writes nor reads it. Called by unit.rs and runsv.rs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::control::RunState;

/// The record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// What ran when it was written.
    pub(crate) state: RunState,
    /// Its process id; 0 when down.
    pub(crate) pid: u32,
    /// Start of the process in clock ticks since boot.
    pub(crate) starttime: u64,
    /// See [`boot`].
    pub(crate) boot: String,
    /// Inode of the log pipe; 0: none.
    pub(crate) pipe: u64,
}

impl Instance {
    pub(crate) fn render(&self) -> String {
        let state = match self.state {
            RunState::Down => "down",
            RunState::Run => "run",
            RunState::Finish => "finish",
        };
        format!("{state} {} {} {} {}\n", self.pid, self.starttime, self.boot, self.pipe)
    }

    pub(crate) fn parse(text: &str) -> Option<Instance> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let state = match words.next()? {
            "down" => RunState::Down,
            "run" => RunState::Run,
            "finish" => RunState::Finish,
            _ => return None,
        };
        let pid = words.next()?.parse().ok()?;
        let starttime = words.next()?.parse().ok()?;
        let boot = words.next()?.to_owned();
        let pipe = words.next()?.parse().ok()?;
        words.next().is_none().then_some(Instance { state, pid, starttime, boot, pipe })
    }

    /// Whether the process lives, and is the very one that was recorded: a process id alone may have been given anew.
    pub(crate) fn alive(&self) -> bool {
        self.state != RunState::Down && self.pid != 0 && starttime(self.pid) == Some(self.starttime)
    }

    /// Start of the process, CLOCK_BOOTTIME.
    pub(crate) fn started(&self) -> Duration {
        // proc(5): in clock ticks, sysconf(_SC_CLK_TCK) of them a second.
        let hz = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hz| u64::try_from(hz).ok()).unwrap_or(100);
        Duration::from_millis(self.starttime.saturating_mul(1000) / hz.max(1))
    }
}

/// Start time of a process in clock ticks since boot; `None` when there is none, or only a zombie.
pub(crate) fn starttime(pid: u32) -> Option<u64> {
    parse_starttime(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc(5): field 2 is the name in parentheses, and may hold anything; field 3 the state; field 22 the start time.
fn parse_starttime(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(22 - 4)?.parse().ok()
}

/// Names this boot, and this process 1.
pub(crate) fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("{}/{}", id.trim(), starttime(1).unwrap_or(0))
}

/// The record of this boot; `None` when there is none: runsv ended in order, never ran, or is not ours.
pub(crate) fn read(path: &Path) -> Option<Instance> {
    Instance::parse(&fs::read_to_string(path).ok()?).filter(|i| i.boot == boot())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_a_torn_one_does_not() {
        let one = Instance { state: RunState::Finish, pid: 7, starttime: 99, boot: "b/1".into(), pipe: 5 };
        assert_eq!(Instance::parse(&one.render()), Some(one.clone()));
        let text = one.render();
        for cut in 0..text.len() {
            assert_eq!(Instance::parse(&text[..cut]), None, "{:?}", &text[..cut]);
        }
        assert_eq!(Instance::parse("finish 7 99 b/1 5 6\n"), None);
    }

    #[test]
    fn the_start_time_is_found_behind_any_name_and_a_zombie_has_none() {
        let stat = |name: &str, state: &str| {
            format!("5 ({name}) {state} 1 5 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 99 0\n")
        };
        assert_eq!(parse_starttime(&stat("sh", "S")), Some(12345));
        assert_eq!(parse_starttime(&stat("a) R 1 (b", "S")), Some(12345));
        assert_eq!(parse_starttime(&stat("sh", "Z")), None);
        assert_eq!(parse_starttime("5 (sh"), None);
    }

    #[test]
    fn this_process_is_alive_and_its_double_is_not() {
        let pid = std::process::id();
        let mut me = Instance { state: RunState::Run, pid, starttime: starttime(pid).unwrap(), boot: boot(), pipe: 0 };
        assert!(me.alive());
        me.starttime += 1;
        assert!(!me.alive());
    }
}

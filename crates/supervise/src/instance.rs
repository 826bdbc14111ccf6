//! What runit's status does not say: the extra file `supervise/instance`. By it a runsv that follows one that was killed
//! -9 finds the daemon it left behind, and adopts it instead of starting a second one; sv shows the rest.
//!
//! One line of words `KEY=VALUE`, in any order, unknown ones to be passed over: `state` down, run or finish; `want`, u or d; `pid`, and
//! `start`, field 22 of its /proc/PID/stat; `boot`, the boot id and the start time of process 1 (it tells one boot, and one
//! container, from another); `pipe`, the inode of the log pipe; `since`, when the state began, and `ready`, when the service said
//! that it is ready (`no`: it was asked to, and has not), in milliseconds of CLOCK_BOOTTIME; `deaths`, how often ./run ended by itself; `exit`, the arguments that
//! ./finish had last. What is 0 or unknown is left out. runit neither writes nor reads it. Called by unit.rs, runsv.rs and sv.rs.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::control::{RunState, Want};

/// A record is a line of some 150 bytes; a longer file is none.
const LONGEST: usize = 1024;

/// Whether a service has said that it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ready {
    /// It was not asked to.
    #[default]
    Unasked,
    /// It has not said it yet.
    Awaited,
    /// When it did, CLOCK_BOOTTIME, in whole milliseconds.
    Since(Duration),
}

impl Ready {
    fn parse(text: Option<&str>) -> Option<Ready> {
        match text {
            None => Some(Ready::Unasked),
            Some("no") => Some(Ready::Awaited),
            Some(millis) => millis.parse().ok().map(|millis| Ready::Since(Duration::from_millis(millis))),
        }
    }
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// What ran when it was written.
    pub(crate) state: RunState,
    /// What is wanted. The status says it too, but is written later.
    pub(crate) want: Want,
    /// Its process id; 0 when down.
    pub(crate) pid: u32,
    /// Start of the process in clock ticks since boot.
    pub(crate) starttime: u64,
    /// See [`boot`].
    pub(crate) boot: String,
    /// Inode of the log pipe; 0: none.
    pub(crate) pipe: u64,
    /// When the state began, CLOCK_BOOTTIME, in whole milliseconds: the stamp of the status on a clock that nobody sets.
    pub(crate) since: Duration,
    /// What is known of the running process.
    pub(crate) ready: Ready,
    /// How often ./run ended without having been told to.
    pub(crate) deaths: u64,
    /// Exit code or -1, and signal number, as ./finish was told them last.
    pub(crate) exit: Option<(i32, u8)>,
}

impl Instance {
    pub(crate) fn render(&self) -> String {
        let mut text = self.render_for_child().into_bytes();
        // Into memory it does not fail.
        let _ = own_words(&mut text, self.pid, self.starttime);
        String::from_utf8(text).unwrap_or_default()
    }

    /// All but [`own_words`].
    pub(crate) fn render_for_child(&self) -> String {
        let state = match self.state {
            RunState::Down => "down",
            RunState::Run => "run",
            RunState::Finish => "finish",
        };
        let want = match self.want {
            Want::Up => "u",
            Want::Down => "d",
        };
        let mut text = format!("state={state} want={want} boot={}", self.boot);
        match self.ready {
            Ready::Unasked => {}
            Ready::Awaited => text.push_str(" ready=no"),
            Ready::Since(at) => text.push_str(&format!(" ready={}", millis(at))),
        }
        let numbers = [("pipe", self.pipe), ("since", millis(self.since)), ("deaths", self.deaths)];
        for (key, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
            text.push_str(&format!(" {key}={number}"));
        }
        if let Some((code, status)) = self.exit {
            text.push_str(&format!(" exit={code},{status}"));
        }
        text
    }

    pub(crate) fn parse(text: &str) -> Option<Instance> {
        let words: Vec<(&str, &str)> =
            text.strip_suffix('\n')?.split(' ').map(|word| word.split_once('=')).collect::<Option<_>>()?;
        let value = |key: &str| words.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
        let number = |key: &str| value(key).map_or(Some(0), |text| text.parse::<u64>().ok());
        let state = match value("state")? {
            "down" => RunState::Down,
            "run" => RunState::Run,
            "finish" => RunState::Finish,
            _ => return None,
        };
        let want = match value("want")? {
            "u" => Want::Up,
            "d" => Want::Down,
            _ => return None,
        };
        let exit = match value("exit") {
            Some(text) => {
                let (code, status) = text.split_once(',')?;
                Some((code.parse().ok()?, status.parse().ok()?))
            }
            None => None,
        };
        Some(Instance {
            state,
            want,
            pid: u32::try_from(number("pid")?).ok()?,
            starttime: number("start")?,
            boot: value("boot")?.to_owned(),
            pipe: number("pipe")?,
            since: Duration::from_millis(number("since")?),
            ready: Ready::parse(value("ready"))?,
            deaths: number("deaths")?,
            exit,
        })
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

/// The end of a record: what only the process itself knows, before anybody else knows of it. Allocates nothing of its own.
pub(crate) fn own_words(out: &mut impl Write, pid: u32, starttime: u64) -> io::Result<()> {
    if pid == 0 { out.write_all(b"\n") } else { writeln!(out, " pid={pid} start={starttime}") }
}

/// Start time of a process in clock ticks since boot; `None` when there is none, or only a zombie.
pub(crate) fn starttime(pid: u32) -> Option<u64> {
    parse_starttime(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc(5): field 2 is the name in parentheses, and may hold anything; field 3 the state; field 22 the start time.
pub(crate) fn parse_starttime(stat: &str) -> Option<u64> {
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

/// The record in a supervise directory, if it is of this boot (see [`boot`], asked for only where a record is); `None` when there
/// is none: runsv ended in order, never ran, or is not ours.
pub(crate) fn read<'a>(supervise: &Path, boot: impl FnOnce() -> &'a str) -> Option<Instance> {
    let mut bytes = [0; LONGEST];
    // It is replaced whole: one read gives all.
    let length = File::open(supervise.join("instance")).and_then(|mut file| file.read(&mut bytes)).ok()?;
    let record = Instance::parse(std::str::from_utf8(bytes.get(..length)?).ok()?)?;
    (record.boot == boot()).then_some(record)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Instance {
        Instance {
            state: RunState::Finish,
            want: Want::Up,
            pid: 7,
            starttime: 99,
            boot: "b/1".into(),
            pipe: 5,
            since: Duration::from_millis(1234),
            ready: Ready::Unasked,
            deaths: 3,
            exit: Some((-1, 9)),
        }
    }

    #[test]
    fn a_record_reads_back_and_a_torn_one_does_not() {
        let one = record();
        assert_eq!(one.render(), "state=finish want=u boot=b/1 pipe=5 since=1234 deaths=3 exit=-1,9 pid=7 start=99\n");
        assert_eq!(Instance::parse(&one.render()), Some(one.clone()));
        let text = one.render();
        for cut in 0..text.len() {
            assert_eq!(Instance::parse(&text[..cut]), None, "{:?}", &text[..cut]);
        }
        for ready in [Ready::Awaited, Ready::Since(Duration::from_millis(1300))] {
            let one = Instance { ready, exit: None, ..one.clone() };
            assert_eq!(Instance::parse(&one.render()), Some(one));
        }
    }

    #[test]
    fn what_is_unknown_is_passed_over_and_what_is_wrong_is_not() {
        let down = Instance { state: RunState::Down, pid: 0, starttime: 0, pipe: 0, deaths: 0, exit: None, ..record() };
        assert_eq!(Instance::parse("new=1 state=down want=u boot=b/1 since=1234\n"), Some(down));
        for text in [
            "state=up want=u boot=b\n",
            "boot=b\n",
            "state=down\n",
            "state=run want=u boot=b pid=x\n",
            "state=run want=u boot=b ready=yes\n",
            "state=run want=u boot=b exit=1\n",
            "\n",
        ] {
            assert_eq!(Instance::parse(text), None, "{text:?}");
        }
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
        let mut me = Instance { state: RunState::Run, pid, starttime: starttime(pid).unwrap(), ..record() };
        assert!(me.alive());
        me.starttime += 1;
        assert!(!me.alive());
    }
}

//! What runit's status does not say: the extra file `supervise/instance`. By it a runsv that
//! follows one that was killed with KILL finds the daemon that was left behind, and adopts it
//! instead of starting a second one; sv shows the rest.
//!
//! It is a symbolic link that leads nowhere: to make and to read one is a single call, and half of
//! it is never seen. Its text is words `KEY=VALUE` with a space between, in any order, unknown ones
//! to be passed over: `state` down, run or finish; `want`, u or d; `pid`, and `start`, field 22 of
//! its /proc/PID/stat; `boot`, the boot id and the start time of process 1 (it tells one boot, and
//! one container, from another); `pipe`, the inode of the log pipe; `since`, when the state began,
//! and `ready`, when the service said that it is ready (`no`: it was asked to, and has not), in
//! milliseconds of CLOCK_BOOTTIME; `deaths`, how often ./run ended by itself; `exit`, the arguments
//! that ./finish had last; `once`, 1 when that run was the only one that was wanted and ended by
//! itself; `again`, when it is to be started by its file `again`, as `since`; `put-off`, which file
//! `again` does not count since `d`. What is 0 or unknown is left out. runit neither writes nor
//! reads it. Called by unit.rs, runsv.rs and sv.rs.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::settings::is_shortage;
use applet::control::{RunState, Want, below};

/// A record has some 150 bytes; what would be longer is not written.
pub(crate) const LONGEST: usize = 1024;

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
    fn parse(text: &[u8]) -> Option<Ready> {
        match text {
            b"no" => Some(Ready::Awaited),
            millis => number(millis).map(|millis| Ready::Since(Duration::from_millis(millis))),
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
    /// When the state began, CLOCK_BOOTTIME, in whole milliseconds: the stamp of the status on a
    /// clock that is never set.
    pub(crate) since: Duration,
    /// What is known of the running process.
    pub(crate) ready: Ready,
    /// How often ./run ended without having been told to.
    pub(crate) deaths: u64,
    /// Exit code or -1, and signal number, as ./finish was told them last.
    pub(crate) exit: Option<(i32, u8)>,
    /// That run was the only one that was wanted, and ended by itself.
    pub(crate) once: bool,
    /// When the file `again` starts it, CLOCK_BOOTTIME; 0: it does not.
    pub(crate) again: Duration,
    /// The file `again` that does not count since `d`; 0: none.
    pub(crate) put_off: u64,
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
        let numbers = [
            ("pipe", self.pipe),
            ("since", millis(self.since)),
            ("deaths", self.deaths),
            ("once", self.once.into()),
            ("again", millis(self.again)),
            ("put-off", self.put_off),
        ];
        for (key, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
            text.push_str(&format!(" {key}={number}"));
        }
        if let Some((code, status)) = self.exit {
            text.push_str(&format!(" exit={code},{status}"));
        }
        text
    }

    pub(crate) fn parse(text: &[u8]) -> Option<Instance> {
        let (mut state, mut want, mut boot) = (None, None, None);
        let mut record = Instance {
            state: RunState::Down,
            want: Want::Down,
            pid: 0,
            starttime: 0,
            boot: String::new(),
            pipe: 0,
            since: Duration::ZERO,
            ready: Ready::Unasked,
            deaths: 0,
            exit: None,
            once: false,
            again: Duration::ZERO,
            put_off: 0,
        };
        for word in text.split(|byte| *byte == b' ') {
            let equals = word.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (word.get(..equals)?, word.get(equals + 1..)?);
            match key {
                b"state" => {
                    state = Some(match value {
                        b"down" => RunState::Down,
                        b"run" => RunState::Run,
                        b"finish" => RunState::Finish,
                        _ => return None,
                    });
                }
                b"want" => {
                    want = Some(match value {
                        b"u" => Want::Up,
                        b"d" => Want::Down,
                        _ => return None,
                    });
                }
                b"boot" => boot = Some(value),
                b"ready" => record.ready = Ready::parse(value)?,
                b"pid" => record.pid = number(value)?.try_into().ok()?,
                b"start" => record.starttime = number(value)?,
                b"pipe" => record.pipe = number(value)?,
                b"since" => record.since = Duration::from_millis(number(value)?),
                b"again" => record.again = Duration::from_millis(number(value)?),
                b"put-off" => record.put_off = number(value)?,
                b"once" => record.once = value == b"1",
                b"deaths" => record.deaths = number(value)?,
                b"exit" => {
                    let (code, status) = str::from_utf8(value).ok()?.split_once(',')?;
                    record.exit = Some((code.parse().ok()?, status.parse().ok()?));
                }
                _ => {}
            }
        }
        Some(Instance { state: state?, want: want?, boot: String::from_utf8(boot?.to_owned()).ok()?, ..record })
    }

    /// Whether the process lives, and is the very one that was recorded: a process id alone may
    /// have been given anew. An error says that it cannot be told just now.
    pub(crate) fn alive(&self) -> io::Result<bool> {
        Ok(self.state != RunState::Down && self.pid != 0 && starttime(self.pid)? == Some(self.starttime))
    }

    /// Start of the process, CLOCK_BOOTTIME.
    pub(crate) fn started(&self) -> Duration {
        // proc(5): in clock ticks, sysconf(_SC_CLK_TCK) of them a second.
        let hz = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|hz| u64::try_from(hz).ok()).unwrap_or(100);
        Duration::from_millis(self.starttime.saturating_mul(1000) / hz.max(1))
    }
}

/// Decimal digits, as in all of its words that are numbers.
fn number(digits: &[u8]) -> Option<u64> {
    let (first, rest) = digits.split_first()?;
    rest.iter().try_fold(digit(*first)?, |number, byte| number.checked_mul(10)?.checked_add(digit(*byte)?))
}

fn digit(byte: u8) -> Option<u64> {
    byte.is_ascii_digit().then(|| u64::from(byte - b'0'))
}

/// The end of a record: what only the process itself knows when it has just been made.
/// Allocates nothing of its own.
pub(crate) fn own_words(out: &mut impl Write, pid: u32, starttime: u64) -> io::Result<()> {
    if pid == 0 { Ok(()) } else { write!(out, " pid={pid} start={starttime}") }
}

/// Start time of a process in clock ticks since boot; `None` when there is none, or only a zombie.
/// An error says that descriptors or memory are short.
pub(crate) fn starttime(pid: u32) -> io::Result<Option<u64>> {
    Ok(parse_starttime(&read_proc(&format!("/proc/{pid}/stat"))?))
}

/// What cannot be read for good is empty.
pub(crate) fn read_proc(path: &str) -> io::Result<String> {
    // Longer than any of them; one read gives all.
    let mut bytes = [0; 1024];
    match File::open(path).and_then(|mut file| file.read(&mut bytes)) {
        Err(e) if is_shortage(&e) => Err(e),
        Err(_) => Ok(String::new()),
        Ok(length) => Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned()),
    }
}

/// proc(5): field 2 is the name in parentheses, and may hold anything; field 3 the state; field 22
/// the start time.
pub(crate) fn parse_starttime(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(22 - 4)?.parse().ok()
}

/// Names this boot, and this process 1. An error as that of [`starttime`].
pub(crate) fn boot() -> io::Result<String> {
    let id = read_proc("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("{}/{}", id.trim(), starttime(1)?.unwrap_or(0)))
}

/// The record in a supervise directory, if it is of this boot (see [`boot`], asked for only where a
/// record is); `None` when there is none: runsv ended in order, never ran, or is not ours.
pub(crate) fn read<'a>(supervise: &Path, boot: impl FnOnce() -> &'a str) -> Option<Instance> {
    let link = fs::read_link(below(supervise, "instance")).ok()?;
    let record = Instance::parse(link.as_os_str().as_bytes())?;
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
            once: true,
            again: Duration::from_millis(9000),
            put_off: 4,
        }
    }

    #[test]
    fn a_record_reads_back() {
        let one = record();
        assert_eq!(
            one.render(),
            "state=finish want=u boot=b/1 pipe=5 since=1234 deaths=3 once=1 again=9000 put-off=4 exit=-1,9 pid=7 start=99"
        );
        assert_eq!(Instance::parse(one.render().as_bytes()), Some(one.clone()));
        for ready in [Ready::Awaited, Ready::Since(Duration::from_millis(1300))] {
            let one = Instance { ready, exit: None, ..one.clone() };
            assert_eq!(Instance::parse(one.render().as_bytes()), Some(one));
        }
    }

    #[test]
    fn what_is_unknown_is_passed_over_and_what_is_wrong_is_not() {
        let down = Instance {
            state: RunState::Down,
            pid: 0,
            starttime: 0,
            pipe: 0,
            deaths: 0,
            exit: None,
            once: false,
            again: Duration::ZERO,
            put_off: 0,
            ..record()
        };
        assert_eq!(Instance::parse(b"new=1 state=down want=u boot=b/1 since=1234"), Some(down));
        for text in [
            "state=up want=u boot=b",
            "boot=b",
            "state=down",
            "state=down want=u",
            "state=run want=u boot=b pid=x",
            "state=run want=u boot=b pid=-1",
            "state=run want=u boot=b ready=yes",
            "state=run want=u boot=b exit=1",
            "state=run want=u boot=b ",
            "",
        ] {
            assert_eq!(Instance::parse(text.as_bytes()), None, "{text:?}");
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
        let mut me = Instance { state: RunState::Run, pid, starttime: starttime(pid).unwrap().unwrap(), ..record() };
        assert!(me.alive().unwrap());
        me.starttime += 1;
        assert!(!me.alive().unwrap());
    }
}

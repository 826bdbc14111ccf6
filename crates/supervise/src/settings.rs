//! The opt-in files of a service directory, by which a service asks for more than runit gives: one
//! small file each, and one that is absent means exactly runit's behaviour. Read anew before each
//! start, so that a change needs no restart of runsv.
//!
//! One more file, `again`, is written by the service itself: it asks for one more run at a later
//! moment, and the service removes it when it has done what that is for. `applet::again` has its
//! text, unit/again.rs reads it. It is for a one-shot (a file `down`, and `sv o .` in ./run):
//!
//! ```text
//! echo "SECS BOOT" >.again.new; mv .again.new again    within a second runsv knows: sv says
//!                                                      "again in Ns"
//! ./run at its moment: does what is due, then          killed before the rm: runs once more
//!   rm again
//! rm again                                             nothing follows
//! ```
//!
//! PURE but for [`read`] and what opens a file. What the times do is decided in service.rs; the
//! rest is done in unit.rs, which calls this. The names are s6's where s6 has the thing. runsv(8)
//! describes them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;

use crate::service::Settings;
use applet::again;
use applet::control::error_text;

/// A file longer than this is none of these.
const LONGEST: usize = 64;

/// What the files of one directory ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extras {
    /// For the machine.
    pub(crate) settings: Settings,
    /// `down-signal`: sent instead of TERM.
    pub(crate) down_signal: Option<Signal>,
    /// `notification-fd`: the descriptor on which ./run says, by a line feed, that it is ready.
    pub(crate) notification_fd: Option<i32>,
    /// `cgroup`: ./run gets a cgroup of its own, and what is left in it when it goes down is
    /// killed.
    pub(crate) cgroup: bool,
    /// `no-takeover`: the daemon of a runsv that was killed is ended, not taken over.
    pub(crate) no_takeover: bool,
    /// What is wrong with them, a line each.
    pub(crate) complaints: Vec<String>,
}

/// Reads the files in `dir`. One that cannot be read or understood counts as absent, and is
/// complained of. An error says that descriptors or memory are short: another try later may work.
pub(crate) fn read(dir: &Path) -> io::Result<Extras> {
    let mut short = None;
    let extras = Extras::from(|name| match text_of(dir, name) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => {
            let why = error_text(&e);
            short = Some(e).filter(is_shortage).or(short.take());
            Err(why)
        }
        Ok(text) => Ok(Some(text)),
    });
    short.map_or(Ok(extras), Err)
}

fn text_of(dir: &Path, name: &str) -> io::Result<String> {
    text(open(dir, name)?)
}

pub(crate) fn open(dir: &Path, name: &str) -> io::Result<File> {
    // A fifo would wait for a writer.
    OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(dir.join(name))
}

pub(crate) fn text(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How long a service may take to end, where its files say that: `timeout-kill` for ./run, and
/// `timeout-finish` for ./finish after it.
pub(crate) fn time_to_end(dir: &Path) -> Option<Duration> {
    let time = |name| limit(text_of(dir, name).ok()?.trim())?;
    let times = [time("timeout-kill"), time("timeout-finish")];
    times.iter().any(Option::is_some).then(|| times.into_iter().flatten().sum())
}

/// Processes, memory or descriptors are short.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE))
}

impl Extras {
    /// `file` gives the text of a file, `None` when there is none, or says why it cannot be read.
    fn from(mut file: impl FnMut(&str) -> Result<Option<String>, String>) -> Extras {
        let mut extras = Extras::default();
        let mut complaints = Vec::new();
        let mut get = |name: &str| {
            file(name).unwrap_or_else(|why| {
                complaints.push(format!("unable to read ./{name}: {why}"));
                None
            })
        };
        let texts =
            ["restart-delay", "restart-max-delay", "timeout-kill", "timeout-finish", "notification-fd", "down-signal"]
                .map(|name| (name, get(name)));
        extras.settings.permanent_failure = get("permanent-failure").is_some();
        extras.cgroup = get("cgroup").is_some();
        extras.no_takeover = get("no-takeover").is_some();
        for (name, text) in texts {
            if let Some(text) = text
                && !extras.take(name, text.trim())
            {
                complaints.push(unexpected(name, &text));
            }
        }
        extras.complaints = complaints;
        extras
    }

    /// False when the text is not what the file is to hold.
    fn take(&mut self, name: &str, text: &str) -> bool {
        let times = &mut self.settings;
        match name {
            "restart-delay" => put(&mut times.restart_delay, millis(text)),
            "restart-max-delay" => put(&mut times.restart_max_delay, millis(text)),
            "timeout-kill" => put(&mut times.timeout_kill, limit(text)),
            "timeout-finish" => put(&mut times.timeout_finish, limit(text)),
            "notification-fd" => {
                put(&mut self.notification_fd, text.parse().ok().filter(|fd| (3..1024).contains(fd)).map(Some))
            }
            "down-signal" => put(&mut self.down_signal, signal(text).map(Some)),
            _ => true,
        }
    }
}

fn put<T>(to: &mut Option<T>, value: Option<Option<T>>) -> bool {
    let good = value.is_some();
    *to = value.flatten();
    good
}

/// The complaint about a file that holds something else than it is for.
pub(crate) fn unexpected(name: &str, text: &str) -> String {
    let shown: String = text.trim().escape_debug().take(LONGEST).collect();
    format!("./{name}: {} expected, not \"{shown}\"", expected(name))
}

fn expected(name: &str) -> &'static str {
    match name {
        again::FILE => "seconds, or a second since boot and the id of that boot",
        "notification-fd" => "a descriptor from 3 to 1023",
        "down-signal" => "the name or number of a signal",
        _ => "a number of milliseconds",
    }
}

/// Milliseconds; a year of them is the most.
fn millis(text: &str) -> Option<Option<Duration>> {
    let number: u64 = text.parse().ok()?;
    (number <= 365 * 24 * 3600 * 1000).then_some(Some(Duration::from_millis(number)))
}

/// As [`millis`]; 0 is no limit, as in s6.
fn limit(text: &str) -> Option<Option<Duration>> {
    millis(text).map(|time| time.filter(|time| !time.is_zero()))
}

/// `QUIT`, `SIGQUIT`, `quit` or `3`.
fn signal(text: &str) -> Option<Signal> {
    if let Ok(number) = text.parse::<i32>() {
        return Signal::try_from(number).ok();
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    Signal::iterator().find(|signal| signal.as_str().strip_prefix("SIG") == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> Extras {
        Extras::from(|name| Ok(files.iter().find(|(n, _)| *n == name).map(|(_, text)| (*text).to_owned())))
    }

    #[test]
    fn without_files_nothing_is_asked_for() {
        assert_eq!(with(&[]), Extras::default());
    }

    #[test]
    fn each_file_says_one_thing() {
        let ms = |n| Some(Duration::from_millis(n));
        let extras = with(&[
            ("restart-delay", "250\n"),
            ("restart-max-delay", "60000"),
            ("timeout-kill", " 5000 "),
            ("timeout-finish", "0"),
            ("notification-fd", "3\n"),
            ("down-signal", "SIGQUIT\n"),
            ("permanent-failure", ""),
            ("cgroup", ""),
            ("no-takeover", ""),
        ]);
        let settings = Settings {
            restart_delay: ms(250),
            restart_max_delay: ms(60000),
            timeout_kill: ms(5000),
            timeout_finish: None,
            permanent_failure: true,
        };
        let expected = Extras {
            settings,
            down_signal: Some(Signal::SIGQUIT),
            notification_fd: Some(3),
            cgroup: true,
            no_takeover: true,
            complaints: vec![],
        };
        assert_eq!(extras, expected);
    }

    #[test]
    fn what_is_wrong_is_named_and_the_rest_counts() {
        let extras = with(&[
            ("restart-delay", "1s"),
            ("timeout-kill", "-1"),
            ("notification-fd", "2"),
            ("down-signal", "SIGNOT"),
            ("restart-max-delay", "70"),
        ]);
        assert_eq!(
            extras.settings,
            Settings { restart_max_delay: Some(Duration::from_millis(70)), ..Settings::default() }
        );
        assert_eq!((extras.down_signal, extras.notification_fd), (None, None));
        assert_eq!(
            extras.complaints,
            [
                "./restart-delay: a number of milliseconds expected, not \"1s\"",
                "./timeout-kill: a number of milliseconds expected, not \"-1\"",
                "./notification-fd: a descriptor from 3 to 1023 expected, not \"2\"",
                "./down-signal: the name or number of a signal expected, not \"SIGNOT\"",
            ]
        );
        let unreadable = Extras::from(|_| Err("access denied".into()));
        assert_eq!(unreadable.complaints.len(), 9);
        assert_eq!(unreadable.complaints[0], "unable to read ./restart-delay: access denied");
        let long = with(&[("restart-delay", &"x\u{1b}".repeat(1000))]);
        assert!(long.complaints[0].len() < 200 && !long.complaints[0].contains('\u{1b}'));
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, expected) in [
            ("QUIT", Some(3)),
            ("sigint", Some(2)),
            ("15", Some(15)),
            ("0", None),
            ("99", None),
            ("", None),
            ("SIG", None),
        ] {
            assert_eq!(signal(text).map(|s| s as i32), expected, "{text}");
        }
    }
}

//! Options as they were given, before they are seen together; values that several daemons read
//! alike, and what is said of wrong ones. PURE but for that.
//!
//! Syntax is applet::getopt's, and what an option means is the daemon's. Called by the command
//! lines of the daemons.

use std::ffi::{OsStr, OsString};
use std::iter::repeat;
use std::time::Duration;

use applet::getopt::{Getopt, Opt};
use applet::say;
use netd_core::net::IfName;

/// A whole command line without operands.
#[derive(Clone, Debug, Default)]
pub struct Given {
    table: &'static [Opt],
    options: Vec<(char, Option<OsString>)>,
}

impl Given {
    /// Reads it; the error is a line for standard error.
    pub fn read(table: &'static [Opt], args: impl IntoIterator<Item = OsString>) -> Result<Given, String> {
        let mut getopt = Getopt::new(table, args);
        let options = getopt.by_ref().collect::<Result<_, _>>().map_err(|e| e.to_string())?;
        match getopt.operands().first() {
            Some(operand) => Err(invalid("argument", operand)),
            None => Ok(Given { table, options }),
        }
    }

    /// Whether the option was given, with an argument or without.
    pub fn has(&self, key: char) -> bool {
        self.options.iter().any(|(k, _)| *k == key)
    }

    /// The argument of an option; the last one counts.
    pub fn value(&self, key: char) -> Option<&OsString> {
        self.values(key).last()
    }

    /// All arguments of an option, in their order.
    pub fn values(&self, key: char) -> impl Iterator<Item = &OsString> {
        self.options.iter().filter(move |(k, _)| *k == key).filter_map(|(_, value)| value.as_ref())
    }

    /// The argument as a text.
    pub fn text(&self, key: char) -> Result<Option<&str>, String> {
        self.value(key).map(|value| value.to_str().ok_or_else(|| invalid("argument", value))).transpose()
    }

    /// The one of these options that was given last.
    pub fn last_of(&self, keys: &[char]) -> Option<char> {
        self.options.iter().rev().map(|(key, _)| *key).find(|key| keys.contains(key))
    }

    /// The argument as a time, not less than `least`.
    pub fn duration(&self, key: char, default: Duration, least: Duration) -> Result<Duration, String> {
        let Some(value) = self.value(key) else { return Ok(default) };
        match seconds(value) {
            Some(time) if time >= least => Ok(time),
            Some(_) => {
                let (option, least) = (self.option(key), show_seconds(least));
                Err(format!("{option} {} is too short: it is at least {least}", value.to_string_lossy()))
            }
            None => Err(self.no_number(key, value)),
        }
    }

    /// The argument as a whole number; 0 without it.
    pub fn number(&self, key: char) -> Result<u64, String> {
        self.value(key).map_or(Ok(0), |value| number(value).ok_or_else(|| self.no_number(key, value)))
    }

    fn no_number(&self, key: char, value: &OsStr) -> String {
        format!("{} for {}", invalid("number", value), self.option(key))
    }

    /// As it is written.
    fn option(&self, key: char) -> String {
        let long = self.table.iter().find(|option| option.key == key).map_or("", |option| option.long());
        if key.is_control() { format!("--{long}") } else { format!("-{key}") }
    }
}

/// A wrong command line, as udhcpc and zcip take it: what to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CliError {
    /// `--help`: the usage, and exit code 0.
    Help,
    /// An option or operand is unknown, missing or out of place: this line and the usage.
    Usage(String),
    /// A value is wrong.
    Fatal(String),
}

impl CliError {
    /// Says it; the exit code, which is 1 as the originals'.
    pub fn report(&self, applet: &str, usage: &str) -> u8 {
        match self {
            CliError::Help => say::out(usage),
            CliError::Usage(text) => say::error(format_args!("{applet}: {text}\n{usage}")),
            CliError::Fatal(text) => say::error(format_args!("{applet}: {text}\n")),
        }
        u8::from(*self != CliError::Help)
    }
}

/// What is said of a wrong value.
pub fn invalid(what: &str, value: &OsStr) -> String {
    format!("invalid {what} '{}'", value.to_string_lossy().escape_debug())
}

/// The name of an interface.
pub fn interface(value: &OsStr) -> Result<IfName, String> {
    let name = value.to_str().and_then(IfName::parse);
    name.ok_or_else(|| format!("{}: {}", invalid("interface name", value), IfName::RULE))
}

/// A whole number of at most 2^32 - 1.
pub fn number(value: &OsStr) -> Option<u64> {
    let text = value.to_str().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok().filter(|n| *n <= u64::from(u32::MAX))
}

/// Seconds with an optional fraction: `8`, `0.25`, `.5`; at most 2^32 - 1. Or whole milliseconds:
/// `250ms`.
pub fn seconds(value: &OsStr) -> Option<Duration> {
    let text = value.to_str()?;
    if let Some(ms) = text.strip_suffix("ms") {
        return number(ms.as_ref()).map(Duration::from_millis);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole = if whole.is_empty() && !fraction.is_empty() { 0 } else { number(whole.as_ref())? };
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Digits behind the ninth are less than a nanosecond.
    let nanos = fraction.bytes().chain(repeat(b'0')).take(9).fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    Some(Duration::new(whole, nanos)).filter(|time| *time <= Duration::from_secs(u32::MAX.into()))
}

/// Seconds, with a fraction where there is one.
pub fn show_seconds(time: Duration) -> String {
    let (whole, nanos) = (time.as_secs(), time.subsec_nanos());
    if nanos == 0 { whole.to_string() } else { format!("{whole}.{}", format!("{nanos:09}").trim_end_matches('0')) }
}

#[cfg(test)]
mod tests {
    use applet::getopt::{Arg, opt};

    use super::*;

    const TABLE: &[Opt] =
        &[opt('a', "all", Arg::No), opt('d', "delay", Arg::Required), opt('\u{1}', "limit", Arg::Required)];

    fn read(args: &[&str]) -> Result<Given, String> {
        Given::read(TABLE, args.iter().map(OsString::from))
    }

    #[test]
    fn the_last_one_counts_and_all_are_kept() {
        let given = read(&["-d1", "-a", "--delay=2"]).unwrap();
        assert!(given.has('a') && given.has('d') && !given.has('x'));
        assert_eq!(given.text('d'), Ok(Some("2")));
        assert_eq!(given.values('d').collect::<Vec<_>>(), ["1", "2"]);
        let [zero, four] = [Duration::ZERO, Duration::from_secs(4)];
        assert_eq!(given.duration('d', four, zero), Ok(Duration::from_secs(2)));
        assert_eq!(given.duration('x', four, zero), Ok(four));
        assert_eq!(
            given.duration('d', four, Duration::from_secs(3)),
            Err("-d 2 is too short: it is at least 3".into())
        );
        assert_eq!(read(&["-d", "x"]).unwrap().duration('d', four, zero), Err("invalid number 'x' for -d".into()));
        let given = read(&["-d1", "-a", "--limit", "9", "--limit=-9"]).unwrap();
        assert_eq!(given.number('\u{1}'), Err("invalid number '-9' for --limit".into()));
        assert_eq!((given.last_of(&['a', 'd']), given.last_of(&['x'])), (Some('a'), None));
        assert_eq!(read(&["word"]).unwrap_err(), "invalid argument 'word'");
        assert_eq!(read(&["-x"]).unwrap_err(), "invalid option -- 'x'");
    }

    #[test]
    fn fractions_and_milliseconds() {
        let secs = Duration::from_secs_f64;
        for (text, want) in [("0.25", 0.25), (".5", 0.5), ("8", 8.0), ("0", 0.0)] {
            assert_eq!(seconds(text.as_ref()), Some(secs(want)), "{text}");
        }
        for (text, want) in [("250ms", 0.25), ("0ms", 0.0), ("1500ms", 1.5)] {
            assert_eq!(seconds(text.as_ref()), Some(secs(want)), "{text}");
        }
        for text in ["", ".", "ms", "0.5ms", "5 ms", "-1", "1e9", "nan", "inf", "1.2.3", "5s", "99999999999"] {
            assert_eq!(seconds(text.as_ref()), None, "{text}");
        }
    }
}

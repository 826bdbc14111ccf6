//! PURE: the file `config` of a log directory, and which lines it lets through.
//!
//! Read at start and on HUP by dir.rs. It never fails: a line that cannot be understood gives a
//! warning or, where runit says nothing, nothing. Source: svlogd(8) of runit 2.1.2, section CONFIG;
//! numbers without digits are 0.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::line::matches;

/// svlogd(8).
const DEFAULT_MODE: u32 = 0o644;
/// inode(7): S_IXUSR.
const OWNER_EXECUTES: u32 = 0o100;
/// S_IRUSR and S_IWUSR.
const OWNER_READS_AND_WRITES: u32 = 0o600;
/// The same for all.
const READ_AND_WRITE: u32 = 0o666;

/// One line of selection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    kind: RuleKind,
    pattern: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RuleKind {
    /// `+`: to the file.
    Select,
    /// `-`: not to the file.
    Deselect,
    /// `e`: to standard error.
    Alert,
    /// `E`: not to standard error.
    Quiet,
}

/// Where one line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// To the log directory and to UDP.
    pub(super) log: bool,
    /// To standard error.
    pub(super) alert: bool,
}

/// The receiver of lines over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// Where to; the port is 514 (syslog) unless given.
    pub(super) to: SocketAddrV4,
    /// `U`: lines go there only, not to the file.
    pub(super) only: bool,
}

/// Settings of one log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Config {
    /// Bytes at which `current` is rotated; 0: never.
    pub(super) size: u64,
    /// Number of old files that are kept; 0: all.
    pub(super) keep: usize,
    /// When the disk is full, old files are removed until this many are left. `None`: none is
    /// removed.
    pub(super) keep_when_full: Option<usize>,
    /// Age at which a `current` that is not empty is rotated.
    pub(super) age: Option<Duration>,
    /// Given to `sh -c` for every rotated file.
    pub(super) processor: Option<Vec<u8>>,
    /// Put between stamp and line.
    pub(super) prefix: Vec<u8>,
    /// Permissions of `current` while it is open, and of what the processor writes.
    pub(super) mode: u32,
    /// UDP receiver.
    pub(super) remote: Option<Remote>,
    rules: Vec<Rule>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            size: 1_000_000,
            keep: 10,
            keep_when_full: None,
            age: None,
            processor: None,
            prefix: Vec::new(),
            mode: DEFAULT_MODE,
            remote: None,
            rules: Vec::new(),
        }
    }
}

impl Config {
    /// Reads the file's text; the second part are warnings in runit's words.
    pub(super) fn parse(text: &[u8]) -> (Config, Vec<String>) {
        let mut config = Config::default();
        let mut warnings = Vec::new();
        for line in text.split(|b| *b == b'\n') {
            // Lines are C strings for runit.
            let line = line.split(|b| *b == 0).next().unwrap_or_default();
            let Some((directive, value)) = line.split_first() else { continue };
            match directive {
                b's' => config.size = number(value, &[(b'k', 1024), (b'm', 1024 * 1024)]),
                b'n' => config.keep = count(value),
                b'N' => config.keep_when_full = Some(count(value)),
                b't' => {
                    let secs = number(value, &[(b'm', 60), (b'h', 3600)]);
                    config.age = (secs > 0).then(|| Duration::from_secs(secs));
                }
                // With nothing behind it, it says nothing: what was said before stays.
                b'!' | b'p' if value.is_empty() => {}
                b'!' => config.processor = Some(value.to_vec()),
                b'p' => config.prefix = value.to_vec(),
                b'm' => match mode(value) {
                    Some(mode) => config.mode = mode,
                    None => warnings.push(format!("unable to scan mode: {}", value.escape_ascii())),
                },
                b'u' | b'U' => match remote(value) {
                    Ok(to) => config.remote = Some(Remote { to, only: *directive == b'U' }),
                    Err(warning) => warnings.push(warning),
                },
                b'+' => config.rule(RuleKind::Select, value),
                b'-' => config.rule(RuleKind::Deselect, value),
                b'e' => config.rule(RuleKind::Alert, value),
                b'E' => config.rule(RuleKind::Quiet, value),
                _ => {}
            }
        }
        // svlogd(8): "min must be less than num".
        config.keep_when_full = config.keep_when_full.filter(|min| config.keep == 0 || *min < config.keep);
        (config, warnings)
    }

    fn rule(&mut self, kind: RuleKind, pattern: &[u8]) {
        self.rules.push(Rule { kind, pattern: pattern.to_vec() });
    }

    /// Permissions of a file that is complete and on disk: the execute bit says so.
    pub(super) fn mode_done(&self) -> u32 {
        self.mode | OWNER_EXECUTES
    }

    /// Where a line goes, given its first LEN bytes: the last rule that matches decides.
    pub(super) fn route(&self, head: &[u8]) -> Route {
        let mut route = Route { log: true, alert: false };
        for rule in self.rules.iter().filter(|rule| matches(&rule.pattern, head)) {
            match rule.kind {
                RuleKind::Select => route.log = true,
                RuleKind::Deselect => route.log = false,
                RuleKind::Alert => route.alert = true,
                RuleKind::Quiet => route.alert = false,
            }
        }
        route
    }
}

/// Octal digits: who may read and write. The execute bit of the owner is svlogd's own mark, see
/// [`Config::mode_done`], and the owner goes on with the file.
fn mode(value: &[u8]) -> Option<u32> {
    let digits = value.iter().all(|byte| matches!(byte, b'0'..=b'7')).then_some(value)?;
    let mode = u32::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()?;
    (mode & !READ_AND_WRITE == 0).then_some(mode | OWNER_READS_AND_WRITES)
}

/// Leading digits, as runit reads every number.
pub(super) fn count(text: &[u8]) -> usize {
    usize::try_from(number(text, &[])).unwrap_or(usize::MAX)
}

/// Leading digits times the factor that the letter behind them names; too large a number is the
/// largest.
fn number(text: &[u8], units: &[(u8, u64)]) -> u64 {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(digits);
    let value = digits.iter().fold(0_u64, |n, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0')));
    let factor = units.iter().find(|(letter, _)| rest.first() == Some(letter)).map_or(1, |(_, factor)| *factor);
    value.saturating_mul(factor)
}

/// `a.b.c.d[:port]`
fn remote(value: &[u8]) -> Result<SocketAddrV4, String> {
    let text = String::from_utf8_lossy(value);
    let (ip, port) = text.split_once(':').unwrap_or((&text, "514"));
    let ip: Ipv4Addr = ip.parse().map_err(|_| format!("unable to scan ip address: {}", text.escape_debug()))?;
    let scanned = if port.starts_with(|c: char| c.is_ascii_digit()) { count(port.as_bytes()) } else { usize::MAX };
    let port = u16::try_from(scanned).map_err(|_| format!("unable to scan port number: {}", port.escape_debug()))?;
    Ok(SocketAddrV4::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let (config, warnings) = Config::parse(text.as_bytes());
        assert_eq!(warnings, Vec::<String>::new());
        config
    }

    #[test]
    fn every_directive() {
        let c = config("# comment\n\ns2k\nn3\nN1\nt5m\n!gzip -9\nu10.0.0.1:99\npweb: \n+a\n-b\nec\nEd");
        assert_eq!((c.size, c.keep, c.keep_when_full), (2048, 3, Some(1)));
        assert_eq!(c.age, Some(Duration::from_secs(300)));
        assert_eq!(c.processor.as_deref(), Some(&b"gzip -9"[..]));
        assert_eq!(c.prefix, b"web: ");
        assert_eq!(c.remote, Some(Remote { to: "10.0.0.1:99".parse().unwrap(), only: false }));
        assert_eq!(c.rules.len(), 4);
        assert_eq!(config("U10.0.0.1").remote, Some(Remote { to: "10.0.0.1:514".parse().unwrap(), only: true }));
        assert_eq!(config("s1m").size, 1 << 20);
        assert_eq!(config("t2h").age, Some(Duration::from_secs(7200)));
        assert_eq!(config("n4").keep_when_full, None);
        assert_eq!(config("n4\nN4").keep_when_full, None);
        assert_eq!(config("N3\nn0").keep_when_full, Some(3));
    }

    #[test]
    fn numbers_without_digits_are_zero_and_unknown_lines_are_skipped() {
        let c = config("sx\nnx\ntq\nfoo\n");
        assert_eq!((c.size, c.keep, c.age), (0, 0, None));
        assert_eq!(config(""), Config::default());
    }

    #[test]
    fn a_bad_address_is_named() {
        assert_eq!(Config::parse(b"u1.2").1, ["unable to scan ip address: 1.2"]);
        assert_eq!(Config::parse(b"u1.2.3.4:x").1, ["unable to scan port number: x"]);
        assert_eq!(Config::parse(b"u1.2.3.4:65536").1, ["unable to scan port number: 65536"]);
        assert_eq!(config("u1.2.3.4:9x").remote.unwrap().to.port(), 9);
    }

    #[test]
    fn a_mode_says_who_may_read_and_nothing_else() {
        let modes = ["", "m640\n", "m0660", "m0600\nm604", "m40"].map(|text| config(text).mode);
        assert_eq!(modes, [0o644, 0o640, 0o660, 0o604, 0o640]);
        assert_eq!(config("m640").mode_done(), 0o740);
        for wrong in ["m", "m648", "mrw", "m750", "m4640", "m-1"] {
            let (config, warnings) = Config::parse(wrong.as_bytes());
            assert_eq!(warnings, [format!("unable to scan mode: {}", &wrong[1..])]);
            assert_eq!(config.mode, 0o644);
        }
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let c = config("-*\n+a*\n-ab\ne*\nE++z");
        let routes: Vec<(bool, bool)> =
            ["abc", "ab", "zz"].map(|l| c.route(l.as_bytes())).iter().map(|r| (r.log, r.alert)).collect();
        assert_eq!(routes, [(true, true), (false, true), (false, true)]);
        assert_eq!(config("").route(b"x"), Route { log: true, alert: false });
    }

    #[test]
    fn a_rule_beyond_any_fixed_buffer_is_honoured() {
        // busybox reads 128 bytes and logs what the rest was to keep out.
        let text = format!("{}-secret*\n", "# filler\n".repeat(1000));
        assert!(!config(&text).route(b"secret: x").log);
    }
}

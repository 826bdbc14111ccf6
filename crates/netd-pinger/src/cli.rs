//! The command line of pinger. Syntax and limits only.
//!
//! The usage text is held against man/pinger.8 by a test. Called by `lib`.

use netd_core::net::IfName;
use netd_core::record::{Kind, text};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use applet::getopt::{Arg, Opt, opt};
use netd::given::{Given, interface, invalid};

use crate::history::KEPT;
use crate::target::Target;
use crate::watchdog::Config;

/// Printed for wrong use and by -h.
pub const USAGE: &str = "\
usage: pinger -i IFACE [-mv] [-t TARGET]... [--interval SEC] [--retry SEC] [--timeout SEC] [--bad K/N]
       [--hold-down SEC] [--restart SEC] [--no-restart] [--record NAME] [--ipconf DIR] [--static DIR]
       [--notify SERVICE] [--status FILE] [--status-every SEC] [--no-cage]
       pinger --show IFACE [--json] [--ipconf DIR] [--status FILE]

  -i, --iface IFACE       interface
  -t, --target TARGET     asked too: icmp:IP, tcp:IP:PORT, dns:IP or dns:IP/NAME; up to 8 times
      --interval SEC      from round to round (1)
      --retry SEC         ... after a round that failed (0.5)
      --timeout SEC       how long a round waits for answers (0.5)
      --bad K/N           so many failed rounds of so many make the uplink bad (3/5)
      --hold-down SEC     how long a bad uplink must be good to be called so (10)
  -m, --metered           few packets: --interval 30 --retry 2 --timeout 1 (as when fw.conf calls it metered)
      --restart SEC       restart dhcp_IFACE, supplicant_IFACE when the router is gone so long (30)
      --no-restart        never restart them
      --record NAME       record to judge, and no other (dhcp_IFACE, else any of IFACE with a router)
      --ipconf DIR        directory of the records (FW_DYNAMIC, /run/service/fw)
      --static DIR        directory of the administrator's records (FW_STATIC; none)
      --notify SERVICE    service told when the verdict changed (fw)
      --status FILE       what is known (DIR/.pinger_IFACE); empty: none
      --status-every SEC  least time between two writes of it without a change (10)
      --no-cage           keep all privileges and see all files
      --show IFACE        print the status of its pinger, exit 1 when the uplink is bad
      --json              ... as JSON
  -v, --verbose           log more
  -V, --version           show the version
  -h, --help              show this
";

// Keys of options without a letter.
const INTERVAL: char = '\u{1}';
const RETRY: char = '\u{2}';
const TIMEOUT: char = '\u{3}';
const BAD: char = '\u{4}';
const HOLD_DOWN: char = '\u{5}';
const RESTART: char = '\u{6}';
const NO_RESTART: char = '\u{7}';
const RECORD: char = '\u{8}';
const IPCONF: char = '\u{e}';
const NOTIFY: char = '\u{f}';
const STATUS: char = '\u{10}';
const STATUS_EVERY: char = '\u{11}';
const SHOW: char = '\u{12}';
const JSON: char = '\u{13}';
const NO_CAGE: char = '\u{14}';
const STATIC: char = '\u{15}';

const TABLE: &[Opt] = &[
    opt('i', "iface", Arg::Required),
    opt('t', "target", Arg::Required),
    opt(INTERVAL, "interval", Arg::Required),
    opt(RETRY, "retry", Arg::Required),
    opt(TIMEOUT, "timeout", Arg::Required),
    opt(BAD, "bad", Arg::Required),
    opt(HOLD_DOWN, "hold-down", Arg::Required),
    opt('m', "metered", Arg::No),
    opt(RESTART, "restart", Arg::Required),
    opt(NO_RESTART, "no-restart", Arg::No),
    opt(RECORD, "record", Arg::Required),
    opt(IPCONF, "ipconf", Arg::Required),
    opt(STATIC, "static", Arg::Required),
    opt(NOTIFY, "notify", Arg::Required),
    opt(STATUS, "status", Arg::Required),
    opt(STATUS_EVERY, "status-every", Arg::Required),
    opt(SHOW, "show", Arg::Required),
    opt(JSON, "json", Arg::No),
    opt(NO_CAGE, "no-cage", Arg::No),
    opt('v', "verbose", Arg::No),
    opt('V', "version", Arg::No),
    opt('h', "help", Arg::No),
];

/// More are refused: each is asked in every round.
const MAX_TARGETS: usize = 8;
/// Faster than this is a flood.
const LEAST: Duration = Duration::from_millis(100);

/// What to do at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Watch,
    Show { json: bool },
    Version,
    Help,
}

/// The command line, read.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) iface: IfName,
    pub(crate) targets: Vec<Target>,
    pub(crate) config: Config,
    /// In the place of `config` while fw.conf calls the uplink metered.
    pub(crate) metered: Config,
    /// The record that is judged before all others.
    pub(crate) record: String,
    /// It is judged alone (--record).
    pub(crate) alone: bool,
    pub(crate) dynamic: PathBuf,
    /// The administrator's records.
    pub(crate) fixed: Option<PathBuf>,
    pub(crate) notify: OsString,
    /// Empty: none is written.
    pub(crate) status: PathBuf,
    pub(crate) verbosity: u8,
    /// Not --no-cage.
    pub(crate) cage: bool,
}

/// Where the environment says that the records are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// FW_DYNAMIC.
    pub(crate) dynamic: Option<OsString>,
    /// FW_STATIC.
    pub(crate) fixed: Option<OsString>,
}

/// Reads the command line. The error is a line for stderr.
pub(crate) fn parse(args: impl Iterator<Item = OsString>, places: Places) -> Result<Options, String> {
    let given = Given::read(TABLE, args)?;
    assemble(&given, places)
}

fn assemble(given: &Given, places: Places) -> Result<Options, String> {
    let mode = mode(given);
    if given.has(JSON) && given.value(SHOW).is_none() {
        return Err("--json needs --show IFACE".into());
    }
    let iface = match (mode, given.value(SHOW).or(given.value('i'))) {
        (_, Some(value)) => interface(value)?,
        // Of no interface.
        (Mode::Help | Mode::Version, None) => IfName::default(),
        (Mode::Watch | Mode::Show { .. }, None) => return Err("no interface: -i IFACE is needed".into()),
    };
    let said = |key, variable: Option<OsString>| {
        given.value(key).cloned().or(variable).filter(|dir| !dir.is_empty()).map(PathBuf::from)
    };
    let dynamic = said(IPCONF, places.dynamic).unwrap_or_else(|| "/run/service/fw".into());
    let record = given.text(RECORD)?.map_or_else(|| Kind::Lease.name(&iface), str::to_owned);
    if !text::is_record_name(&record) {
        return Err(invalid("record name", record.as_ref()));
    }
    let targets = targets(given)?;
    Ok(Options {
        mode,
        config: config(given, targets.len(), given.has('m'))?,
        metered: config(given, targets.len(), true)?,
        targets,
        record,
        alone: given.value(RECORD).is_some(),
        fixed: said(STATIC, places.fixed),
        status: given.value(STATUS).map_or_else(|| dynamic.join(format!(".pinger_{iface}")), PathBuf::from),
        dynamic,
        notify: given.value(NOTIFY).cloned().unwrap_or_else(|| "fw".into()),
        verbosity: u8::from(given.has('v')),
        cage: !given.has(NO_CAGE),
        iface,
    })
}

fn mode(given: &Given) -> Mode {
    if given.has('h') {
        Mode::Help
    } else if given.has('V') {
        Mode::Version
    } else if given.value(SHOW).is_some() {
        Mode::Show { json: given.has(JSON) }
    } else {
        Mode::Watch
    }
}

/// The defaults find a dead router within three seconds: 1.1 s until it is asked, then three rounds
/// of half a second.
fn config(given: &Given, targets: usize, metered: bool) -> Result<Config, String> {
    let [interval, retry, timeout] = if metered { [30_000, 2000, 1000] } else { [1000, 500, 500] };
    let duration = |key, ms, least| given.duration(key, Duration::from_millis(ms), least);
    let interval = duration(INTERVAL, interval, LEAST)?;
    let (bad, of) = match given.value(BAD) {
        Some(value) => value.to_str().and_then(k_of_n).ok_or_else(|| invalid("K/N", value))?,
        None => (3, 5),
    };
    Ok(Config {
        interval,
        // Never more rarely than when all is well.
        retry: duration(RETRY, retry, LEAST)?.min(interval),
        timeout: duration(TIMEOUT, timeout, LEAST)?,
        bad,
        of,
        hold_down: duration(HOLD_DOWN, 10_000, Duration::ZERO)?,
        restart: match given.has(NO_RESTART) {
            true => None,
            false => Some(duration(RESTART, 30_000, Duration::ZERO)?),
        },
        status: duration(STATUS_EVERY, 10_000, Duration::ZERO)?,
        targets,
    })
}

/// `3/5`, or `3` for 3/3.
fn k_of_n(text: &str) -> Option<(usize, usize)> {
    let (k, n) = text.split_once('/').unwrap_or((text, text));
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<usize>().ok()).flatten();
    let (k, n) = (number(k)?, number(n)?);
    (1 <= k && k <= n && n <= KEPT).then_some((k, n))
}

fn targets(given: &Given) -> Result<Vec<Target>, String> {
    let words = given.values('t');
    let read = |v: &OsString| v.to_str().and_then(Target::parse).ok_or_else(|| invalid("target", v));
    let targets = words.map(read).collect::<Result<Vec<Target>, String>>()?;
    if targets.len() > MAX_TARGETS {
        return Err(format!("more than {MAX_TARGETS} targets"));
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Options, String> {
        parse(args.iter().map(OsString::from), Places::default())
    }

    fn secs(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn defaults() {
        let o = read(&["-i", "eth1"]).unwrap();
        assert_eq!((o.mode, o.iface.as_str(), o.record.as_str()), (Mode::Watch, "eth1", "dhcp_eth1"));
        assert_eq!((o.dynamic, o.notify), ("/run/service/fw".into(), "fw".into()));
        assert_eq!(o.status, PathBuf::from("/run/service/fw/.pinger_eth1"));
        let c = o.config;
        assert_eq!((c.interval, c.retry, c.timeout), (secs(1.0), secs(0.5), secs(0.5)));
        assert_eq!((c.bad, c.of, c.hold_down, c.restart), (3, 5, secs(10.0), Some(secs(30.0))));
        assert_eq!((o.fixed, o.alone), (None, false));
        let places = Places { dynamic: Some("/from/environment".into()), fixed: Some("conf".into()) };
        let o = parse(["-i", "eth1"].map(OsString::from).into_iter(), places.clone()).unwrap();
        assert_eq!(o.status, PathBuf::from("/from/environment/.pinger_eth1"));
        assert_eq!(o.fixed, Some("conf".into()));
        let o = parse(["-i", "eth1", "--static", "", "--record", "wan"].map(OsString::from).into_iter(), places);
        let o = o.unwrap();
        assert_eq!((o.fixed, o.record.as_str(), o.alone), (None, "wan", true));
    }

    #[test]
    fn the_seeds_sixty_seven_and_five() {
        let seed = ["-i", "wlan0", "--interval", "67", "--retry", "5", "--timeout=1", "--bad", "6", "--restart", "0"];
        let c = read(&seed).unwrap().config;
        assert_eq!((c.interval, c.retry, c.timeout, c.bad, c.of), (secs(67.0), secs(5.0), secs(1.0), 6, 6));
        assert_eq!(c.restart, Some(secs(0.0)));
    }

    #[test]
    fn metered_and_what_is_said_beside_it() {
        let c = read(&["-mi", "wwan0", "--retry", "3"]).unwrap().config;
        assert_eq!((c.interval, c.retry, c.timeout), (secs(30.0), secs(3.0), secs(1.0)));
        let o = read(&["-i", "wwan0", "--retry", "3"]).unwrap();
        assert_eq!((o.config.interval, o.metered), (secs(1.0), c), "as soon as fw.conf says so");
        let c = read(&["-i", "a", "--interval", "0.2", "--no-restart"]).unwrap().config;
        assert_eq!((c.retry, c.restart), (secs(0.2), None), "never more rarely than when all is well");
    }

    #[test]
    fn targets_and_the_status() {
        let o = read(&["-i", "a", "-t", "icmp:1.1.1.1", "--target=dns:9.9.9.9/x.org", "--status", ""]).unwrap();
        assert_eq!((o.targets.len(), o.config.targets, o.status), (2, 2, PathBuf::new()));
        assert_eq!(read(&["--show", "eth0", "--json"]).unwrap().mode, Mode::Show { json: true });
        assert_eq!(read(&["--show", "eth0"]).unwrap().iface.as_str(), "eth0");
        assert_eq!((read(&["-h"]).unwrap().mode, read(&["-V"]).unwrap().mode), (Mode::Help, Mode::Version));
    }

    #[test]
    fn wrong_use_is_refused() {
        let nine: Vec<&str> =
            ["-i", "a"].into_iter().chain([["-t", "icmp:1.1.1.1"]; 9].into_iter().flatten()).collect();
        for args in [
            &[][..],
            &["-i", ""],
            &["-i", "a/b"],
            &["-i", ".."],
            &["-i", "sixteen-letters0"],
            &["-i", "a", "b"],
            &["-i", "a", "-t", "http:1.1.1.1"],
            &["-i", "a", "--bad", "0/5"],
            &["-i", "a", "--bad", "6/5"],
            &["-i", "a", "--bad", "1/61"],
            &["-i", "a", "--interval", "0.01"],
            &["-i", "a", "--timeout", "-1"],
            &["-i", "a", "--record", "../x"],
            &["-i", "a", "--zzz"],
            &nine,
        ] {
            assert!(read(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn every_option_is_in_the_usage_and_in_the_manual_page_and_the_other_way_round() {
        let man = include_str!("../../../man/pinger.8");
        let described: Vec<&str> = man.lines().filter_map(|l| l.strip_prefix(".It Fl ")).collect();
        let in_man = |name: &str| described.iter().any(|l| l.split([' ', ',']).any(|w| w == name));
        for o in TABLE {
            let long = format!("--{}", o.long());
            if !o.key.is_control() {
                assert!(in_man(&o.key.to_string()), "-{} in the manual page", o.key);
                assert!(USAGE.contains(&format!("  -{}, ", o.key)), "-{} in the usage", o.key);
            }
            assert!(in_man(&long[1..]), "{long} in the manual page");
            assert!(USAGE.contains(&long), "{long} in the usage");
        }
        for word in described.iter().flat_map(|l| l.split(" , Fl ").filter_map(|w| w.split(' ').next())) {
            let known = match word.strip_prefix('-') {
                Some(long) => TABLE.iter().any(|o| o.long() == long),
                None => TABLE.iter().any(|o| o.key.to_string() == word),
            };
            assert!(known, "the manual page describes -{word}");
        }
        for line in USAGE.lines().filter(|l| l.starts_with("  ")) {
            for word in line.split([' ', ',']).filter_map(|w| w.strip_prefix("--")) {
                assert!(TABLE.iter().any(|o| o.long() == word), "the usage describes --{word}");
            }
        }
    }
}

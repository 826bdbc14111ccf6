//! The command line of ifplugd: busybox's options, 0.28's where they make sense, and ours. Syntax
//! and limits only.
//!
//! The usage text is held against man/ifplugd.8 by a test. Called by `lib`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use applet::getopt::{Arg, Opt, opt};
use netd::given::{Given, interface, invalid};
use netd_core::net::IfName;
use nix::sys::signal::Signal;

use crate::debounce::Config;

/// Printed for wrong use and by -h.
pub const USAGE: &str = "\
usage: ifplugd [-i IFACE | --all] [-r PROG | --services] [-x ARG] [-u SEC] [-d SEC] [-t SEC] [-T USEC] [-m MODE]
       [-aAMfFlpqIns] [-bUD] [-kWcwSRzvh] [--damp SEC] [--ipconf DIR] [--notify SERVICE] [--pidfile FILE] [--no-cage]
       [--verbose]

  -i, --iface IFACE           interface (eth0)
  -r, --run PROG              run PROG IFACE up|down [ARG] (/etc/ifplugd/ifplugd.action)
      --all                   watch what fw has set up, on all interfaces: tell fw when it is gone
      --services              down and up the services dhcp_IFACE and zcip_IFACE, keep link_IFACE.ipconf
  -x, --extra-arg ARG         third argument for PROG
  -u, --delay-up SEC          delay from link to action (0)
  -d, --delay-down SEC        delay from no link to action (5)
      --damp SEC              longest hold of a link that is lost again and again; 0: none (30)
  -t, --poll-time SEC         wait before an interface is set up again (1)
  -T, --poll-utime USEC       added to -t (0)
  -m, --api-mode MODE         auto ethtool mii priv wlan iff: accepted, netlink is used
  -a, --no-auto               do not set the interface up again when it was set down
  -A, --no-auto-new           with -a: do not set it up when it appears either
  -M, --monitor               a missing interface is down, not an error
  -f, --ignore-fail           as -M
  -F, --ignore-fail-positive  a missing interface counts as up
  -l, --initial-down          run PROG at the start however the link is, with -p too
  -p, --no-startup            do not run PROG at the start
  -q, --no-shutdown           do not run `PROG IFACE down' when stopped
  -I, --ignore-retval         go on when PROG fails
  -n, --no-daemon             stay in the foreground
  -s, --no-syslog             log to stderr only
      --verbose               log more
  -b, -U, -D                  do not beep: never done
  -k, --kill                  stop the running daemon of IFACE
  -W, --wait-on-kill          with -k: wait until it has ended
  -c, --check-running         exit 0 if a daemon of IFACE runs, else 255
  -S, --suspend               tell the running daemon to let the link be
  -R, --resume                ... to act on it again
  -z, --info                  ... to log the state
  -w, --wait-on-fork          wait for the link to be known: exit 2 up, 3 down
      --ipconf DIR            directory of link_IFACE.ipconf (FW_DYNAMIC, /run/service/fw)
      --notify SERVICE        service told when the record changed (fw)
      --pidfile FILE          (/var/run/ifplugd.IFACE.pid); empty: none
      --no-cage               keep all privileges and see all files
  -v, --version               show the version
  -h, --help                  show this
";

// Keys of options without a letter.
const SERVICES: char = '\u{1}';
const IPCONF: char = '\u{2}';
const NOTIFY: char = '\u{3}';
const PIDFILE: char = '\u{4}';
const DAMP: char = '\u{5}';
const VERBOSE: char = '\u{6}';
const NO_CAGE: char = '\u{7}';
const ALL: char = '\u{8}';

const TABLE: &[Opt] = &[
    opt('i', "iface", Arg::Required),
    opt('r', "run", Arg::Required),
    opt(ALL, "all", Arg::No),
    opt(SERVICES, "services", Arg::No),
    opt('x', "extra-arg", Arg::Required),
    opt('u', "delay-up", Arg::Required),
    opt('d', "delay-down", Arg::Required),
    opt('t', "poll-time", Arg::Required),
    opt('T', "poll-utime", Arg::Required),
    opt('m', "api-mode", Arg::Required),
    opt('a', "no-auto", Arg::No),
    opt('A', "no-auto-new", Arg::No),
    opt('M', "monitor", Arg::No),
    opt('f', "ignore-fail", Arg::No),
    opt('F', "ignore-fail-positive", Arg::No),
    opt('l', "initial-down", Arg::No),
    opt('p', "no-startup", Arg::No),
    opt('q', "no-shutdown", Arg::No),
    opt('I', "ignore-retval", Arg::No),
    opt('n', "no-daemon", Arg::No),
    opt('s', "no-syslog", Arg::No),
    opt(VERBOSE, "verbose", Arg::No),
    opt('b', "no-beep", Arg::No),
    opt('U', "no-beep-up", Arg::No),
    opt('D', "no-beep-down", Arg::No),
    opt('k', "kill", Arg::No),
    opt('W', "wait-on-kill", Arg::No),
    opt('c', "check-running", Arg::No),
    opt('S', "suspend", Arg::No),
    opt('R', "resume", Arg::No),
    opt('z', "info", Arg::No),
    opt('w', "wait-on-fork", Arg::No),
    opt(IPCONF, "ipconf", Arg::Required),
    opt(NOTIFY, "notify", Arg::Required),
    opt(PIDFILE, "pidfile", Arg::Required),
    opt(DAMP, "damp", Arg::Required),
    opt(NO_CAGE, "no-cage", Arg::No),
    opt('v', "version", Arg::No),
    opt('h', "help", Arg::No),
];

/// In place of an interface's name, which it cannot be: the kernel has a directory `all` beside
/// those of the interfaces.
const ALL_NAME: &str = "all";

/// What to do at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Watch.
    Watch,
    /// -k; with -W wait for its end.
    Kill { wait: bool },
    /// -c
    Check,
    /// -S, -R, -z: this signal to the running daemon.
    Tell(Signal),
    /// -v
    Version,
    /// -h
    Help,
}

/// What a missing interface means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The daemon ends with 1.
    Fail,
    /// -M, -f, --services: the link is down; wait for the interface.
    Down,
    /// -F: the link is up.
    Up,
}

/// The command line, read.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) iface: IfName,
    /// --all: no interface, but what fw has left.
    pub(crate) all: bool,
    pub(crate) program: OsString,
    pub(crate) extra: Option<OsString>,
    pub(crate) config: Config,
    /// -t and -T.
    pub(crate) poll: Duration,
    /// Set up what is seen without IFF_UP when it appears.
    pub(crate) raise_new: bool,
    /// ... and whenever it was set down.
    pub(crate) raise_again: bool,
    pub(crate) absent: Absent,
    pub(crate) foreground: bool,
    pub(crate) syslog: bool,
    pub(crate) verbosity: u8,
    pub(crate) wait_on_fork: bool,
    pub(crate) dynamic: PathBuf,
    pub(crate) notify: OsString,
    pub(crate) pidfile: Option<PathBuf>,
    /// Not --no-cage.
    pub(crate) cage: bool,
}

impl Options {
    /// What is watched, for messages.
    pub(crate) fn name(&self) -> &str {
        if self.all { ALL_NAME } else { &self.iface }
    }
}

/// Reads the command line; `dynamic` is FW_DYNAMIC. The error is a line for stderr.
pub(crate) fn parse(args: Vec<OsString>, dynamic: Option<OsString>) -> Result<Options, String> {
    let given = Given::read(TABLE, args)?;
    assemble(&given, dynamic)
}

fn assemble(given: &Given, dynamic: Option<OsString>) -> Result<Options, String> {
    let iface = iface(given.value('i'))?;
    let all = given.has(ALL);
    if all && let Some(other) = ['i', 'r'].into_iter().find(|key| given.has(*key)) {
        let name = TABLE.iter().find(|o| o.key == other).map_or("", Opt::long);
        return Err(format!("--all and --{name} exclude each other"));
    }
    if let Some(mode) = given.value('m').filter(|m| !is_api_mode(m)) {
        return Err(invalid("mode", mode));
    }
    let usec = given.number('T')?;
    let pidfile = match given.value(PIDFILE) {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(PathBuf::from(path)),
        None => Some(PathBuf::from(format!("/var/run/ifplugd.{}.pid", if all { ALL_NAME } else { iface.as_str() }))),
    };
    let dynamic = given.value(IPCONF).cloned().or(dynamic.filter(|d| !d.is_empty()));
    Ok(Options {
        mode: mode(given),
        program: given.value('r').cloned().unwrap_or_else(|| "/etc/ifplugd/ifplugd.action".into()),
        extra: given.value('x').cloned(),
        config: config(given)?,
        poll: given.duration('t', Duration::from_secs(1), Duration::ZERO)? + Duration::from_micros(usec),
        raise_new: !(given.has('a') && given.has('A')),
        raise_again: !given.has('a'),
        absent: absent(given),
        foreground: given.has('n'),
        syslog: !given.has('s'),
        verbosity: u8::from(given.has(VERBOSE)),
        wait_on_fork: given.has('w'),
        dynamic: dynamic.unwrap_or_else(|| "/run/service/fw".into()).into(),
        notify: given.value(NOTIFY).cloned().unwrap_or_else(|| "fw".into()),
        pidfile,
        cage: !given.has(NO_CAGE),
        iface,
        all,
    })
}

fn config(given: &Given) -> Result<Config, String> {
    let services = given.has(SERVICES);
    Ok(Config {
        up_delay: given.duration('u', Duration::ZERO, Duration::ZERO)?,
        down_delay: given.duration('d', Duration::from_secs(5), Duration::ZERO)?,
        longest_hold: given.duration(DAMP, Duration::from_secs(30), Duration::ZERO)?,
        script: !services || given.value('r').is_some(),
        services,
        at_start: !given.has('p'),
        initial_down: given.has('l'),
        at_stop: !given.has('q'),
        ignore_failure: given.has('I'),
    })
}

fn mode(given: &Given) -> Mode {
    if given.has('h') {
        Mode::Help
    } else if given.has('v') {
        Mode::Version
    } else if given.has('k') {
        Mode::Kill { wait: given.has('W') }
    } else if given.has('c') {
        Mode::Check
    } else if given.has('S') {
        Mode::Tell(Signal::SIGUSR1)
    } else if given.has('R') {
        Mode::Tell(Signal::SIGUSR2)
    } else if given.has('z') {
        Mode::Tell(Signal::SIGHUP)
    } else {
        Mode::Watch
    }
}

fn absent(given: &Given) -> Absent {
    if given.has('M') || given.has(SERVICES) {
        return Absent::Down;
    }
    // 0.28: the last one counts. (In busybox -f does.)
    match given.last_of(&['f', 'F']) {
        Some('f') => Absent::Down,
        Some(_) => Absent::Up,
        None => Absent::Fail,
    }
}

/// The interface: eth0 unless another is named.
fn iface(value: Option<&OsString>) -> Result<IfName, String> {
    interface(value.map_or("eth0".as_ref(), |value| value))
}

/// Only the first character counts, in any case, as in 0.28.
fn is_api_mode(value: &OsString) -> bool {
    matches!(
        value.as_encoded_bytes().first().map(u8::to_ascii_lowercase),
        Some(b'a' | b'e' | b'm' | b'p' | b'w' | b'i')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Options, String> {
        parse(args.iter().map(OsString::from).collect(), None)
    }

    #[test]
    fn defaults_are_those_of_the_originals() {
        let o = read(&[]).unwrap();
        assert_eq!((o.iface.as_str(), o.program.to_str()), ("eth0", Some("/etc/ifplugd/ifplugd.action")));
        assert_eq!((o.config.up_delay, o.config.down_delay, o.poll), (Duration::ZERO, secs(5.0), secs(1.0)));
        assert_eq!((o.config.longest_hold, o.verbosity), (secs(30.0), 0));
        assert_eq!(o.pidfile, Some("/var/run/ifplugd.eth0.pid".into()));
        assert!(o.config.script && o.config.at_start && o.config.at_stop && !o.config.initial_down);
        assert_eq!((o.absent, o.mode), (Absent::Fail, Mode::Watch));
        assert!(!o.foreground && o.syslog && o.raise_new && o.raise_again);
    }

    fn secs(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn the_seeds_flags() {
        let o = read(&["-apqns", "-t3", "-u8", "-d8", "-i", "eth1", "-r", "./ifplugd_handler"]).unwrap();
        assert_eq!((o.iface.as_str(), o.program.to_str()), ("eth1", Some("./ifplugd_handler")));
        assert_eq!((o.config.up_delay, o.config.down_delay, o.poll), (secs(8.0), secs(8.0), secs(3.0)));
        assert!(!o.config.at_start && !o.config.at_stop && o.foreground && !o.syslog);
        assert!(o.raise_new && !o.raise_again);
    }

    #[test]
    fn debians_flags() {
        let o = read(&["-q", "-f", "-u0", "-d10", "-w", "-I", "-b", "--iface=eth2", "-T500000"]).unwrap();
        assert_eq!((o.absent, o.wait_on_fork, o.config.ignore_failure), (Absent::Down, true, true));
        assert_eq!((o.config.down_delay, o.poll), (secs(10.0), secs(1.5)));
    }

    #[test]
    fn services_need_no_program_and_wait_for_the_interface() {
        let o = read(&["--services", "--ipconf", "/tmp/x", "--notify", "fw2", "--pidfile", ""]).unwrap();
        assert!(o.config.services && !o.config.script);
        assert_eq!((o.absent, o.dynamic, o.notify, o.pidfile), (Absent::Down, "/tmp/x".into(), "fw2".into(), None));
        assert!(read(&["--services", "-r", "x"]).unwrap().config.script);
        let o = parse(Vec::new(), Some("/from/environment".into())).unwrap();
        assert_eq!(o.dynamic, PathBuf::from("/from/environment"));
    }

    #[test]
    fn all_takes_the_place_of_an_interface() {
        let o = read(&["--all", "--services", "-n", "-s"]).unwrap();
        assert_eq!((o.all, o.name(), o.pidfile.clone()), (true, "all", Some("/var/run/ifplugd.all.pid".into())));
        assert_eq!(read(&["-i", "eth1"]).unwrap().name(), "eth1");
    }

    #[test]
    fn wrong_use_is_refused() {
        for args in [
            &["-i", ""][..],
            &["-i", "a/b"],
            &["-i", ".."],
            &["-i", "sixteen-letters0"],
            &["-i", "a b"],
            &["-u", "x"],
            &["-d"],
            &["-T", "1.5"],
            &["-m", "zzz"],
            &["-V"],
            &["--damp", "-1"],
            &["--all", "-i", "eth0"],
            &["--all", "-r", "x"],
            &["eth0"],
        ] {
            assert!(read(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn modes() {
        assert_eq!(read(&["-k"]).unwrap().mode, Mode::Kill { wait: false });
        assert_eq!(read(&["-kW"]).unwrap().mode, Mode::Kill { wait: true });
        assert_eq!(read(&["-c"]).unwrap().mode, Mode::Check);
        assert_eq!(read(&["-i", "eth1", "-S"]).unwrap().mode, Mode::Tell(Signal::SIGUSR1));
        assert_eq!(read(&["--resume"]).unwrap().mode, Mode::Tell(Signal::SIGUSR2));
        assert_eq!(read(&["-z"]).unwrap().mode, Mode::Tell(Signal::SIGHUP));
        assert_eq!(read(&["-v"]).unwrap().mode, Mode::Version);
        assert_eq!(read(&["--verbose"]).unwrap().verbosity, 1);
        assert_eq!(read(&["--damp", "0"]).unwrap().config.longest_hold, Duration::ZERO);
        assert_eq!(read(&["-M"]).unwrap().absent, Absent::Down);
        assert_eq!(read(&["-F"]).unwrap().absent, Absent::Up);
    }

    #[test]
    fn every_option_is_in_the_usage_and_in_the_manual_page_and_the_other_way_round() {
        let man = include_str!("../../../man/ifplugd.8");
        let described: Vec<&str> = man.lines().filter_map(|l| l.strip_prefix(".It Fl ")).collect();
        let in_man = |name: &str| described.iter().any(|l| l.split([' ', ',']).any(|w| w == name));
        for o in TABLE {
            let long = format!("--{}", o.long());
            if !o.key.is_control() {
                assert!(in_man(&o.key.to_string()), "-{} in the manual page", o.key);
                assert!(USAGE.contains(&format!("-{}", o.key)), "-{} in the usage", o.key);
            }
            assert!(in_man(&long[1..]), "{long} in the manual page");
            assert!(USAGE.contains(&long) || "bUD".contains(o.key), "{long} in the usage");
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

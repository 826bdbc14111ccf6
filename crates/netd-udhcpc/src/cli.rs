//! The command line: udhcpc's options, and ours (`--ipconf`, `--notify`, `--env`).
//!
//! Pure. Syntax is supervise::getopt's; here is what each option means. man/udhcpc.8 is held against USAGE by a test.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use netd::acd::Timing;
use supervise::getopt::{Arg, Getopt, Opt};

use crate::client::Config;
use crate::message::{Template, fqdn};
use crate::options::{self, CLIENT_ID, DEFAULT_PARAMETERS, Shape, VENDOR_CLASS};
use crate::schedule::Schedule;

/// Where Debian keeps it.
const DEFAULT_SCRIPT: &str = "/etc/udhcpc/default.script";
/// What udhcpc looks like to servers, with our version.
const DEFAULT_VENDOR: &str = concat!("udhcp ", env!("CARGO_PKG_VERSION"));
/// An option's data is cut here, as udhcpc does.
const MAX_DATA: usize = 254;

const IPCONF: char = '\u{1}';
const NOTIFY: char = '\u{2}';
const ENV: char = '\u{3}';
const ACD: char = '\u{4}';
const RAPID_COMMIT: char = '\u{5}';
const NO_CAGE: char = '\u{6}';
/// udhcpc's `-a` without a number.
const ARPING: Duration = Duration::from_millis(2000);

const fn opt(key: char, long: &'static str, arg: Arg) -> Opt {
    Opt { key, long, arg }
}

const TABLE: &[Opt] = &[
    opt('i', "interface", Arg::Required),
    opt('s', "script", Arg::Required),
    opt('p', "pidfile", Arg::Required),
    opt('t', "retries", Arg::Required),
    opt('T', "timeout", Arg::Required),
    opt('A', "tryagain", Arg::Required),
    opt('n', "now", Arg::No),
    opt('b', "background", Arg::No),
    opt('q', "quit", Arg::No),
    opt('f', "foreground", Arg::No),
    opt('R', "release", Arg::No),
    opt('r', "request", Arg::Required),
    opt('O', "request-option", Arg::Required),
    opt('o', "no-default-options", Arg::No),
    opt('x', "", Arg::Required),
    opt('F', "fqdn", Arg::Required),
    opt('V', "vendorclass", Arg::Required),
    opt('C', "clientid-none", Arg::No),
    opt('B', "broadcast", Arg::No),
    opt('a', "arping", Arg::Optional),
    opt('S', "syslog", Arg::No),
    opt('v', "", Arg::No),
    opt(IPCONF, "ipconf", Arg::Required),
    opt(NOTIFY, "notify", Arg::Required),
    opt(ENV, "env", Arg::Required),
    opt(ACD, "acd", Arg::Required),
    opt(RAPID_COMMIT, "rapid-commit", Arg::No),
    opt(NO_CAGE, "no-cage", Arg::No),
];

/// What `udhcpc --help` says.
pub const USAGE: &str = "\
usage: udhcpc [-fbqRBSv] [-a[MSEC]] [-t N] [-T SEC] [-A SEC|-n] [-i IFACE] [-s PROG | --ipconf DIR] [-p PIDFILE]
              [-oC] [-r IP] [-V VENDOR] [-F NAME] [-x OPT:VAL]... [-O OPT]...

  -i, --interface IFACE       interface to use (default eth0)
  -s, --script PROG           run PROG at DHCP events (default /etc/udhcpc/default.script)
  -p, --pidfile FILE          write the process id to FILE
  -t, --retries N             send up to N discover packets (default 3; 0: for ever)
  -T, --timeout SEC           pause between packets (default 3)
  -A, --tryagain SEC          wait if no lease is obtained (default 20)
  -n, --now                   exit if no lease is obtained
  -b, --background            go to the background if no lease is obtained
  -q, --quit                  exit after obtaining a lease
  -f, --foreground            stay in the foreground
  -R, --release               release the address on exit
  -r, --request IP            request this address
  -O, --request-option OPT    request option OPT (cumulative)
  -o, --no-default-options    request no options but those of -O
  -x OPT:VAL                  include option OPT in sent packets (cumulative)
  -F, --fqdn NAME             ask the server to update the DNS mapping for NAME
  -V, --vendorclass VENDOR    vendor identifier (default 'udhcp VERSION'; '': none)
  -C, --clientid-none         do not send the MAC as client identifier
  -B, --broadcast             request broadcast replies
  -a[MSEC], --arping[=MSEC]   check by ARP that nobody has the address, for MSEC (default 2000)
  -S, --syslog                log to syslog too
  -v                          say more
  --ipconf DIR                publish the lease as DIR/dhcp_IFACE.ipconf; no script is run
  --notify SERVICE            service to send `u` after publishing (default fw, below $SVDIR)
  --env NAME                  pass this variable on to the script (NAME* for all that start so; cumulative)
  --rapid-commit              let the server answer a discover with the lease (RFC 4039)
  --acd HOW                   look for conflicts, and defend the address: fast (within 300 ms) or rfc (RFC 5227, 4 to 7 s)
  --no-cage                   keep all privileges and see all files
Signals: USR1 renew the lease, USR2 release it
";

/// What becomes of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handling {
    /// A program is run.
    Script {
        /// The program.
        program: OsString,
        /// More variables to pass on.
        pass: Vec<String>,
    },
    /// A record is published.
    Ipconf {
        /// Its directory.
        dir: PathBuf,
        /// The service to tell.
        notify: OsString,
    },
}

/// All that the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Interface as given, perhaps with an alias: `eth0:1`.
    pub interface: String,
    /// What becomes of a lease.
    pub handling: Handling,
    /// `-p`
    pub pidfile: Option<PathBuf>,
    /// `-S`
    pub syslog: bool,
    /// Number of `-v`.
    pub verbosity: u8,
    /// Not `--no-cage`.
    pub cage: bool,
    /// The machine's part.
    pub config: Config,
    /// The messages' part.
    pub template: Template,
}

impl Options {
    /// The device: an alias without its suffix.
    pub fn device(&self) -> &str {
        self.interface.split(':').next().unwrap_or_default()
    }
}

/// A wrong command line: what to print. The exit code is 1, as udhcpc's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CliError {
    /// `--help`: the usage, and exit code 0.
    Help,
    /// An option is unknown or out of place: this line and the usage.
    Usage(String),
    /// A value is wrong.
    Fatal(String),
}

#[derive(Default)]
struct Raw {
    interface: Option<String>,
    script: Option<OsString>,
    ipconf: Option<PathBuf>,
    notify: Option<OsString>,
    pass: Vec<String>,
    pidfile: Option<PathBuf>,
    retries: Option<u32>,
    timeout: Option<Duration>,
    tryagain: Option<Duration>,
    foreground: bool,
    no_defaults: bool,
    parameters: Vec<u8>,
    extra: Vec<(u8, Vec<u8>)>,
    vendor: Option<String>,
    no_client_id: bool,
    broadcast: bool,
    syslog: bool,
    verbosity: u8,
    no_cage: bool,
    config: Config,
}

/// Reads the arguments, without the applet's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, CliError> {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.iter().any(|a| a == "--help") {
        return Err(CliError::Help);
    }
    let mut raw = Raw::default();
    let mut getopt = Getopt::new(TABLE, args);
    for given in getopt.by_ref() {
        let (key, value) = given.map_err(|e| CliError::Usage(e.to_string()))?;
        raw.take(key, value.unwrap_or_default())?;
    }
    if let Some(operand) = getopt.operands().first() {
        return Err(CliError::Usage(format!("unexpected argument {operand:?}")));
    }
    raw.finish()
}

fn text(value: OsString) -> Result<String, CliError> {
    value.into_string().map_err(|v| CliError::Fatal(format!("not UTF-8: {v:?}")))
}

fn number(value: OsString) -> Result<u32, CliError> {
    let value = text(value)?;
    value.parse().map_err(|_| CliError::Fatal(format!("invalid number '{}'", value.escape_debug())))
}

fn seconds(value: OsString) -> Result<Duration, CliError> {
    number(value).map(|secs| Duration::from_secs(secs.into()))
}

fn option_code(name: &str) -> Result<u8, CliError> {
    options::parse_code(name).ok_or_else(|| {
        CliError::Fatal(format!("unknown option '{}', known options: {}", name.escape_debug(), options::names()))
    })
}

impl Raw {
    fn take(&mut self, key: char, value: OsString) -> Result<(), CliError> {
        match key {
            'i' => self.interface = Some(text(value)?),
            's' => self.script = Some(value),
            'p' => self.pidfile = Some(value.into()),
            't' => self.retries = Some(number(value)?),
            'T' => self.timeout = Some(seconds(value)?),
            'A' => self.tryagain = Some(seconds(value)?),
            'n' => self.config.exit_on_failure = true,
            'b' => self.config.background_on_failure = true,
            'q' => self.config.quit = true,
            'f' => self.foreground = true,
            'R' => self.config.release = true,
            'r' => {
                let ip: Ipv4Addr = text(value)?.parse().map_err(|_| CliError::Usage("bad address for -r".into()))?;
                self.config.requested = Some(ip).filter(|ip| !ip.is_unspecified());
            }
            'O' => self.parameters.push(option_code(&text(value)?)?),
            'o' => self.no_defaults = true,
            'x' => self.extra_option(&text(value)?)?,
            'F' => self.add_extra(fqdn(&text(value)?), false),
            'V' => self.vendor = Some(text(value)?),
            'C' => self.no_client_id = true,
            'B' => self.broadcast = true,
            'a' => {
                let wait = if value.is_empty() { ARPING } else { Duration::from_millis(number(value)?.into()) };
                self.config.acd = Some(Timing::one_probe(wait));
            }
            NO_CAGE => self.no_cage = true,
            RAPID_COMMIT => self.config.rapid_commit = true,
            ACD => match value.to_str() {
                Some("fast") => self.config.acd = Some(Timing::FAST),
                Some("rfc") => self.config.acd = Some(Timing::RFC5227),
                _ => return Err(CliError::Usage("--acd is fast or rfc".into())),
            },
            'S' => self.syslog = true,
            'v' => self.verbosity = self.verbosity.saturating_add(1),
            IPCONF => self.ipconf = Some(value.into()),
            NOTIFY => self.notify = Some(value),
            ENV => self.pass.push(text(value)?),
            _ => {}
        }
        Ok(())
    }

    /// `OPT:VAL`: a named option in its own notation, a number in hexadecimal or as a quoted string.
    fn extra_option(&mut self, given: &str) -> Result<(), CliError> {
        let bad = || CliError::Fatal(format!("invalid -x '{}'", given.escape_debug()));
        let (name, value) = given.split_once([' ', '\t', '=', ':']).ok_or_else(bad)?;
        let code = option_code(name)?;
        let shape = options::by_name(name).map(|k| k.shape);
        let data = match shape {
            Some(shape) => options::encode_value(shape, value.trim_start()).ok_or_else(bad)?,
            None => match quoted(value) {
                Some(text) => text.bytes().take(MAX_DATA).collect(),
                None => options::parse_hex(value).ok_or_else(bad)?,
            },
        };
        let list = matches!(shape, Some(Shape::IpList | Shape::IpPairs | Shape::Routes | Shape::Names));
        self.add_extra((code, data), list);
        Ok(())
    }

    /// The same code twice: a list grows, anything else stays what it was first.
    fn add_extra(&mut self, (code, data): (u8, Vec<u8>), list: bool) {
        match self.extra.iter_mut().find(|(c, _)| *c == code) {
            Some((_, old)) if list => old.extend(data),
            Some(_) => {}
            None => self.extra.push((code, data)),
        }
    }

    fn finish(mut self) -> Result<Options, CliError> {
        let handling = match (self.script, self.ipconf) {
            (Some(_), Some(_)) => return Err(CliError::Usage("-s and --ipconf exclude each other".into())),
            (None, Some(dir)) => Handling::Ipconf { dir, notify: self.notify.unwrap_or_else(|| "fw".into()) },
            (script, None) => Handling::Script {
                program: script.unwrap_or_else(|| DEFAULT_SCRIPT.into()),
                pass: std::mem::take(&mut self.pass),
            },
        };
        let mut parameters = self.parameters;
        if !self.no_defaults {
            parameters.extend(DEFAULT_PARAMETERS);
        }
        if matches!(handling, Handling::Ipconf { .. }) && !self.no_defaults {
            // What the record has a place for.
            parameters.extend([options::MTU, options::SEARCH, options::STATIC_ROUTES]);
        }
        parameters.sort_unstable();
        parameters.dedup();
        let vendor = self.vendor.unwrap_or_else(|| DEFAULT_VENDOR.into());
        if !vendor.is_empty() && !self.extra.iter().any(|(c, _)| *c == VENDOR_CLASS) {
            self.extra.push((VENDOR_CLASS, vendor.bytes().take(MAX_DATA).collect()));
        }
        let own_client_id = self.extra.iter().any(|(c, _)| *c == CLIENT_ID);
        let schedule = Schedule::from_options(self.retries, self.timeout, self.tryagain);
        // udhcpc: -b clears -n.
        let exit_on_failure = self.config.exit_on_failure && !self.config.background_on_failure;
        Ok(Options {
            interface: self.interface.unwrap_or_else(|| "eth0".into()),
            handling,
            pidfile: self.pidfile,
            syslog: self.syslog,
            verbosity: self.verbosity,
            cage: !self.no_cage,
            config: Config { schedule, exit_on_failure, background_when_bound: !self.foreground, ..self.config },
            template: Template {
                parameters,
                extra: self.extra,
                default_client_id: !self.no_client_id && !own_client_id,
                broadcast: self.broadcast,
            },
        })
    }
}

/// The text between a pair of quotes of one kind.
fn quoted(value: &str) -> Option<&str> {
    ['"', '\''].into_iter().find_map(|q| value.strip_prefix(q)?.strip_suffix(q))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Options, CliError> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn defaults_are_udhcpcs() {
        let o = parsed(&[]).unwrap();
        assert_eq!(o.interface, "eth0");
        assert_eq!(o.handling, Handling::Script { program: DEFAULT_SCRIPT.into(), pass: vec![] });
        assert_eq!(o.template.parameters, [1, 3, 6, 12, 15, 28, 42]);
        assert_eq!(o.template.extra, [(60, DEFAULT_VENDOR.as_bytes().to_vec())]);
        assert!(o.template.default_client_id && !o.template.broadcast);
        assert_eq!(o.config.schedule, Schedule::Adaptive);
        assert!(o.config.background_when_bound);
    }

    #[test]
    fn the_seeds_command_lines() {
        let o =
            parsed(&["-vv", "--foreground", "--interface=eth0", "--pidfile=/p", "--script=/h", "-x", "hostname bbox"]);
        let o = o.unwrap();
        assert_eq!((o.verbosity, o.config.background_when_bound), (2, false));
        assert_eq!(o.template.extra, [(12, b"bbox".to_vec()), (60, DEFAULT_VENDOR.as_bytes().to_vec())]);
        let o = parsed(&["-vv", "-C", "-o", "-V", "", "--foreground", "--interface=wlan0"]).unwrap();
        assert!(o.template.parameters.is_empty() && o.template.extra.is_empty() && !o.template.default_client_id);
    }

    #[test]
    fn timing_given_is_timing_kept() {
        let fixed = |retries, t, a| Schedule::Fixed {
            retries,
            timeout: Duration::from_secs(t),
            tryagain: Duration::from_secs(a),
        };
        for (args, want) in [
            (&["-t", "0"][..], fixed(0, 3, 20)),
            (&["-T", "1", "-A5"], fixed(3, 1, 5)),
            (&["-t5", "-T2", "-A10"], fixed(5, 2, 10)),
        ] {
            assert_eq!(parsed(args).unwrap().config.schedule, want, "{args:?}");
        }
    }

    #[test]
    fn ways_to_look_for_conflicts() {
        let acd = |args: &[&str]| parsed(args).map(|o| o.config.acd);
        let one = |ms| Ok(Some(Timing::one_probe(Duration::from_millis(ms))));
        assert_eq!(acd(&[]), Ok(None));
        assert_eq!(acd(&["-a"]), one(2000));
        // The number must be glued to it.
        assert_eq!(acd(&["-a500"]), one(500));
        assert_eq!(acd(&["--arping=10"]), one(10));
        assert!(acd(&["-a", "500"]).is_err());
        assert!(acd(&["-ax"]).is_err());
        assert_eq!(acd(&["--acd", "fast"]), Ok(Some(Timing::FAST)));
        assert_eq!(acd(&["--acd=rfc"]), Ok(Some(Timing::RFC5227)));
        assert!(acd(&["--acd", "yes"]).is_err());
    }

    #[test]
    fn extra_options() {
        let o = parsed(&[
            "-x",
            "0x3d:0102",
            "-x",
            "200:\"abc\"",
            "-x",
            "lease:7200",
            "-x",
            "router:1.2.3.4",
            "-x",
            "router:5.6.7.8",
            "-x",
            "hostname:one",
            "-x",
            "hostname:two",
            "-F",
            "fq.do",
            "-V",
            "x",
        ]);
        let mut extra = o.unwrap().template.extra;
        extra.sort();
        let want: &[(u8, &[u8])] = &[
            (3, &[1, 2, 3, 4, 5, 6, 7, 8]),
            (12, b"one"),
            (51, &[0, 0, 0x1c, 0x20]),
            (60, b"x"),
            (61, &[1, 2]),
            (81, b"\x01\0\0fq.do"),
            (200, b"abc"),
        ];
        assert_eq!(extra, want.iter().map(|(c, d)| (*c, d.to_vec())).collect::<Vec<_>>());
    }

    #[test]
    fn the_request_list_is_sorted_and_without_doubles() {
        assert_eq!(
            parsed(&["-O", "search", "-O", "121", "-O", "dns", "-o"]).unwrap().template.parameters,
            [6, 119, 121]
        );
        let native = parsed(&["--ipconf", "/d"]).unwrap().template.parameters;
        assert_eq!(native, [1, 3, 6, 12, 15, 26, 28, 42, 119, 121]);
    }

    #[test]
    fn wrong_use_is_named() {
        let fatal = |args: &[&str]| match parsed(args) {
            Err(CliError::Fatal(text) | CliError::Usage(text)) => text,
            Err(CliError::Help) | Ok(_) => panic!("{args:?} was taken"),
        };
        assert!(fatal(&["-O", "bogus"]).starts_with("unknown option 'bogus', known options: subnet timezone "));
        assert!(fatal(&["-t", "x"]).contains("invalid number 'x'"));
        assert!(fatal(&["-r", "1.2.3.x"]).contains("-r"));
        assert!(fatal(&["-x", "lease:no"]).contains("-x"));
        assert!(fatal(&["-x", "200:xyz"]).contains("-x"));
        assert!(fatal(&["-Z"]).contains("invalid option"));
        assert!(fatal(&["-s", "/x", "--ipconf", "/d"]).contains("exclude"));
        assert!(fatal(&["eth0"]).contains("eth0"));
    }

    #[test]
    fn b_beats_n_and_an_alias_names_its_device() {
        let o = parsed(&["-n", "-b", "-i", "eth0:1"]).unwrap();
        assert!(!o.config.exit_on_failure && o.config.background_on_failure);
        assert_eq!((o.interface.as_str(), o.device()), ("eth0:1", "eth0"));
    }

    #[test]
    fn every_option_is_in_the_usage_and_in_the_man_page_and_no_other() {
        let man = include_str!("../../../man/udhcpc.8");
        for o in TABLE {
            if !o.key.is_control() {
                assert!(USAGE.contains(&format!("\n  -{}", o.key)), "-{} in USAGE", o.key);
                let item = man.lines().any(|l| {
                    l.strip_prefix(".It Fl ").is_some_and(|l| l.split(' ').next() == Some(&o.key.to_string()))
                });
                assert!(item, "-{} in man/udhcpc.8", o.key);
            }
            if !o.long.is_empty() {
                let glued = if o.arg == Arg::Optional { "[" } else { " " };
                assert!(USAGE.contains(&format!("--{}{glued}", o.long)), "--{} in USAGE", o.long);
                let item =
                    man.lines().any(|l| l.starts_with(".It Fl ") && l.split(' ').any(|w| w == format!("-{}", o.long)));
                assert!(item, "--{} in man/udhcpc.8", o.long);
            }
        }
        let items = man.lines().filter(|l| l.starts_with(".It Fl ")).count();
        assert_eq!(items, TABLE.len(), "options in man/udhcpc.8");
        let lines = USAGE.lines().filter(|l| l.starts_with("  -")).count();
        assert_eq!(lines, TABLE.len(), "options in USAGE");
    }
}

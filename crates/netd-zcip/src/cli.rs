//! The command line: zcip's options, and ours (`--ipconf`, `--notify`, `--state`,
//! `--with-routable`, `--env`, `--no-cage`).
//!
//! Pure. Syntax is applet::getopt's; here is what each option means. man/zcip.8 is held against
//! USAGE by a test.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use applet::getopt::{Arg, Getopt, Opt, opt};
use netd::given::CliError;
use netd_core::net::IfName;

use crate::ipv4ll::{LINK_LOCAL, is_within};

const IPCONF: char = '\u{1}';
const NOTIFY: char = '\u{2}';
const STATE: char = '\u{3}';
const ROUTABLE: char = '\u{4}';
const ENV: char = '\u{5}';
const NO_CAGE: char = '\u{6}';

const TABLE: &[Opt] = &[
    opt('f', "", Arg::No),
    opt('q', "", Arg::No),
    opt('r', "", Arg::Required),
    opt('l', "", Arg::Required),
    opt('v', "", Arg::No),
    opt(STATE, "state", Arg::Required),
    opt(ROUTABLE, "with-routable", Arg::Required),
    opt(IPCONF, "ipconf", Arg::Required),
    opt(NOTIFY, "notify", Arg::Required),
    opt(ENV, "env", Arg::Required),
    opt(NO_CAGE, "no-cage", Arg::No),
];

/// What `zcip --help` says.
pub const USAGE: &str = "\
usage: zcip [-fqv] [-r IP] [-l NET] [--state DIR] [--with-routable HOW] [--env NAME]... [--no-cage] IFACE SCRIPT
       zcip [-fqv] [-r IP] [-l NET] [--state DIR] [--with-routable HOW] [--no-cage] --ipconf DIR [--notify SERVICE]
            IFACE [SCRIPT]

  -f                    stay in the foreground
  -q                    exit after obtaining an address
  -r IP                 try this address first
  -l NET                use this range (default 169.254.0.0)
  -v                    say more; stay in the foreground
  --state DIR           remember the address in DIR/ipv4ll_IFACE.ipconf, and try it first
  --with-routable HOW   while the interface has a routable address: keep (default) or withdraw the link-local one
  --ipconf DIR          publish the address as DIR/zcip_IFACE.ipconf
  --notify SERVICE      service to send `u` after publishing (default fw, below $SVDIR)
  --env NAME            pass this variable on to the script (NAME* for all that start so; cumulative)
  --no-cage             keep all privileges and see all files
Script: SCRIPT init|config|deconfig, with $interface, and $ip for the latter two
Signals: USR1 look again whether the address is free, USR2 give it up
";

/// The native way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipconf {
    /// Directory of the record.
    pub dir: PathBuf,
    /// The service to tell.
    pub notify: OsString,
}

/// All that the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The interface.
    pub interface: IfName,
    /// The script; there is one, or `ipconf`, or both.
    pub script: Option<OsString>,
    /// More variables for the script.
    pub pass: Vec<String>,
    /// Where the address is published.
    pub ipconf: Option<Ipconf>,
    /// `-f`, or implied by `-v`.
    pub foreground: bool,
    /// `-q`
    pub quit: bool,
    /// Number of `-v`.
    pub verbosity: u8,
    /// `-r`
    pub requested: Option<Ipv4Addr>,
    /// `-l`
    pub network: Ipv4Addr,
    /// `--state`
    pub state: Option<PathBuf>,
    /// `--with-routable withdraw`
    pub yields: bool,
    /// Not `--no-cage`.
    pub cage: bool,
}

/// Reads the arguments, without the applet's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, CliError> {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.iter().any(|a| a == "--help") {
        return Err(CliError::Help);
    }
    let mut options = Options {
        // Until the operands are read.
        interface: IfName::default(),
        script: None,
        pass: Vec::new(),
        ipconf: None,
        foreground: false,
        quit: false,
        verbosity: 0,
        requested: None,
        network: LINK_LOCAL,
        state: None,
        yields: false,
        cage: true,
    };
    let (mut dir, mut notify) = (None, None);
    let mut getopt = Getopt::new(TABLE, args);
    for given in getopt.by_ref() {
        let (key, value) = given.map_err(|e| CliError::Usage(e.to_string()))?;
        let value = value.unwrap_or_default();
        match key {
            IPCONF => dir = Some(value.into()),
            NOTIFY => notify = Some(value),
            _ => options.take(key, value)?,
        }
    }
    options.ipconf = dir.map(|dir| Ipconf { dir, notify: notify.unwrap_or_else(|| "fw".into()) });
    options.operands(getopt.operands())?;
    // -l may stand behind -r.
    match options.requested {
        Some(ip) if !is_within(ip, options.network) || [0, 0xffff].contains(&(u32::from(ip) & 0xffff)) => {
            Err(invalid_link_address())
        }
        Some(_) | None => Ok(options),
    }
}

fn invalid_link_address() -> CliError {
    CliError::Fatal("invalid link address".into())
}

fn address(value: &OsString) -> Option<Ipv4Addr> {
    value.to_str()?.parse().ok()
}

impl Options {
    fn take(&mut self, key: char, value: OsString) -> Result<(), CliError> {
        match key {
            'f' => self.foreground = true,
            'q' => self.quit = true,
            NO_CAGE => self.cage = false,
            'v' => {
                self.foreground = true;
                self.verbosity = self.verbosity.saturating_add(1);
            }
            'r' => self.requested = Some(address(&value).ok_or_else(invalid_link_address)?),
            'l' => {
                let network = address(&value).filter(|net| u32::from(*net) & 0xffff == 0 && !net.is_unspecified());
                self.network = network.ok_or_else(|| CliError::Fatal("invalid network address".into()))?;
            }
            STATE => self.state = Some(value.into()),
            ROUTABLE => {
                self.yields = match value.to_str() {
                    Some("keep") => false,
                    Some("withdraw") => true,
                    _ => return Err(CliError::Usage("--with-routable is keep or withdraw".into())),
                }
            }
            ENV => {
                let name = value.into_string().map_err(|v| CliError::Fatal(format!("not UTF-8: {v:?}")))?;
                self.pass.push(name);
            }
            _ => {}
        }
        Ok(())
    }

    /// IFACE SCRIPT, and nothing else.
    fn operands(&mut self, operands: Vec<OsString>) -> Result<(), CliError> {
        let mut operands = operands.into_iter();
        let interface = operands.next().ok_or_else(|| CliError::Usage("an interface is needed".into()))?;
        self.script = operands.next();
        if self.script.is_none() && self.ipconf.is_none() {
            return Err(CliError::Usage("a script, or --ipconf, is needed".into()));
        }
        if let Some(more) = operands.next() {
            return Err(CliError::Usage(format!("unexpected argument {more:?}")));
        }
        let name = interface.to_str().and_then(IfName::parse);
        let name =
            name.ok_or_else(|| CliError::Fatal(format!("bad interface name {interface:?}: {}", IfName::RULE)))?;
        self.interface = name;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Options, CliError> {
        parse(args.iter().map(OsString::from))
    }

    fn wrong(args: &[&str]) -> String {
        match parsed(args) {
            Err(CliError::Fatal(text) | CliError::Usage(text)) => text,
            Err(CliError::Help) | Ok(_) => panic!("{args:?} was taken"),
        }
    }

    #[test]
    fn the_seeds_call_line() {
        let o = parsed(&["-fvv", "eth0", "/var/service/zcip_eth0/zcip_handler"]).unwrap();
        assert_eq!((o.interface.as_str(), o.verbosity, o.foreground, o.quit), ("eth0", 2, true, false));
        assert_eq!(o.script.unwrap(), "/var/service/zcip_eth0/zcip_handler");
        assert_eq!((o.network, o.requested, o.ipconf), (LINK_LOCAL, None, None));
    }

    #[test]
    fn v_implies_f() {
        assert!(!parsed(&["-q", "eth0", "x"]).unwrap().foreground);
        assert!(parsed(&["-v", "eth0", "x"]).unwrap().foreground);
    }

    #[test]
    fn the_native_way_needs_no_script_and_may_have_one() {
        let o = parsed(&["--ipconf", "/d", "eth0"]).unwrap();
        assert_eq!((o.script, o.ipconf), (None, Some(Ipconf { dir: "/d".into(), notify: "fw".into() })));
        let o = parsed(&["--ipconf=/d", "--notify", "/s/fw", "eth0", "x"]).unwrap();
        assert_eq!((o.script, o.ipconf.unwrap().notify), (Some("x".into()), OsString::from("/s/fw")));
    }

    #[test]
    fn the_range_holds_whatever_the_order() {
        let requested = |args: &[&str]| parsed(args).map(|o| (o.requested, o.network));
        let net = Ipv4Addr::new(10, 77, 0, 0);
        let ip = Some(Ipv4Addr::new(10, 77, 3, 4));
        assert_eq!(requested(&["-r", "10.77.3.4", "-l", "10.77.0.0", "e", "x"]), Ok((ip, net)));
        assert_eq!(requested(&["-l10.77.0.0", "-r10.77.3.4", "e", "x"]), Ok((ip, net)));
        for ip in ["10.77.3.4", "169.253.1.1", "169.254.0.0", "169.254.255.255", "169.254.1", "x"] {
            assert_eq!(wrong(&["-r", ip, "e", "x"]), "invalid link address", "{ip}");
        }
        for net in ["169.254.0.1", "10.77.1.0", "0.0.0.0", "x"] {
            assert_eq!(wrong(&["-l", net, "e", "x"]), "invalid network address", "{net}");
        }
    }

    #[test]
    fn wrong_use_is_named() {
        assert!(wrong(&[]).contains("interface"));
        assert!(wrong(&["eth0"]).contains("script"));
        assert!(wrong(&["eth0", "x", "y"]).contains("\"y\""));
        assert!(wrong(&["-Z", "eth0", "x"]).contains("invalid option"));
        assert!(wrong(&["--with-routable", "yes", "eth0", "x"]).contains("keep or withdraw"));
        assert_eq!(parsed(&["--help"]), Err(CliError::Help));
        for name in ["", "..", "a/b", "a b", "a\nb", "eth0:1", "sixteen-letters-"] {
            assert!(wrong(&[name, "x"]).starts_with("bad interface name"), "{name:?}");
        }
        assert_eq!(parsed(&["fifteen-letters", "x"]).unwrap().interface.as_str(), "fifteen-letters");
    }

    #[test]
    fn every_option_is_in_the_usage_and_in_the_man_page_and_no_other() {
        let man = include_str!("../../../man/zcip.8");
        for o in TABLE {
            let (usage, item) = if o.long().is_empty() {
                (format!("\n  -{} ", o.key), o.key.to_string())
            } else {
                (format!("\n  --{} ", o.long()), format!("-{}", o.long()))
            };
            assert!(USAGE.contains(&usage), "{usage:?} in USAGE");
            let is_item = |l: &str| l.strip_prefix(".It Fl ").is_some_and(|l| l.split(' ').next() == Some(&item));
            assert!(man.lines().any(is_item), "{item} in man/zcip.8");
        }
        assert_eq!(man.lines().filter(|l| l.starts_with(".It Fl ")).count(), TABLE.len(), "options in man/zcip.8");
        assert_eq!(USAGE.lines().filter(|l| l.starts_with("  -")).count(), TABLE.len(), "options in USAGE");
    }
}

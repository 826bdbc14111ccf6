//! fw: makes the kernel match the `*.ipconf` records, once, and ends.
//!
//! It reads static and dynamic records and fw.conf, compares what they ask for with what the kernel
//! has, and writes only the difference: addresses, routes, its own nft table, a few switches,
//! resolv.conf and hosts. It is no daemon: the DHCP client and the link watcher publish a record
//! and send `u` to the service that runs it. This file is the command line. run.rs has the order of
//! things: input, want, ways, plan, firewall, kernel, etc.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use applet::control::{Command, ControlError, ServiceDir, error_text};
use applet::getopt::{Arg, Getopt, Opt, opt};
use applet::suggest::nearest;
use applet::{EXIT_SYSTEM, EXIT_USAGE};
use netd::ipconf;
use netd_core::record::text::Record;
use netd_core::record::{Author, Network};

pub mod change;
pub mod conntrack;
pub mod etc;
pub mod firewall;
pub mod have;
pub mod hooks;
pub mod input;
pub mod ipv6;
pub mod kernel;
pub mod left;
pub mod model;
pub mod plan;
pub mod record;
pub mod report;
pub mod run;
pub mod want;
pub mod ways;
pub mod wire;

use input::Paths;

/// The whole use.
pub const USAGE: &str = "\
usage: fw [--once] [--static DIR] [--dynamic DIR] [--config FILE] [--etc DIR] apply|plan
       fw [--dynamic DIR] publish NAME KEY=VALUE...
       fw [--dynamic DIR] withdraw NAME
       fw [--dynamic DIR] [--config FILE] hooks
";

/// What `fw --help` prints.
pub const HELP: &str = "\
usage: fw [options] apply|plan
       fw [--dynamic DIR] publish NAME KEY=VALUE...
       fw [--dynamic DIR] withdraw NAME
       fw [--dynamic DIR] [--config FILE] hooks

  apply          make addresses, routes, firewall and files as the records ask
  plan           print what apply would do; exit 2 when there is something
  publish        write the record DIR/NAME.ipconf and tell fw; ipconf(5) has the keys
  withdraw       remove it and tell fw
  hooks          run the hooks that have not heard of the last change yet

  --static DIR   the administrator's records (default $FW_STATIC, or ./conf)
  --dynamic DIR  the daemons' records (default $FW_DYNAMIC, or /run/service/fw)
  --config FILE  the policy (default $FW_CONFIG, or ./fw.conf)
  --etc DIR      where resolv.conf and hosts are (default $FW_ETC, or /etc)
  --once         with apply, in a service directory: begin with `sv o .'
";

/// The words of the command line.
const WORDS: [&str; 5] = ["apply", "plan", "publish", "withdraw", "hooks"];

const OPTIONS: &[Opt] = &[
    opt('\u{1}', "static", Arg::Required),
    opt('\u{2}', "dynamic", Arg::Required),
    opt('\u{3}', "config", Arg::Required),
    opt('\u{4}', "etc", Arg::Required),
    opt('\u{5}', "once", Arg::No),
];

/// Where the administrator's records and policy are by default.
const STATIC: &str = "./conf";
const CONFIG: &str = "./fw.conf";

/// The applet.
pub fn main(argv: Vec<OsString>) -> u8 {
    let (paths, once, operands) = match parse(argv.into_iter().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => {
            applet::say::error(format_args!("fw: {error}\n{USAGE}"));
            return EXIT_USAGE;
        }
    };
    let words: Vec<&str> = operands.iter().filter_map(|o| o.to_str()).collect();
    let done = match words.as_slice() {
        _ if words.len() != operands.len() => None,
        ["apply"] => {
            // Before fw reads anything: a `u` that arrives from now on means one more run, which
            // reads what the sender published before it.
            if once && let Err(e) = ServiceDir::at(".").send(&[Command::Once]) {
                applet::say::error(format_args!("fw: warning: .: {e}: not made one-shot\n"));
            }
            Some(at_home(&paths).and_then(|()| run::apply(&paths, once)))
        }
        _ if once => None,
        ["plan"] => Some(at_home(&paths).and_then(|()| run::plan(&paths))),
        ["publish", name, fields @ ..] if !fields.is_empty() => Some(publish(&paths, name, fields)),
        ["withdraw", name] => Some(withdraw(&paths, name)),
        ["hooks"] => Some(hooks::run(&paths)),
        _ => None,
    };
    match done {
        Some(Ok(code)) => code,
        Some(Err(error)) => {
            applet::say::error(format_args!("fw: fatal: {error}\n"));
            EXIT_SYSTEM
        }
        None => {
            applet::say::error(format_args!("{}{USAGE}", complaint(&operands)));
            EXIT_USAGE
        }
    }
}

/// A line about the first word, when it is none of fw's.
fn complaint(operands: &[OsString]) -> String {
    let word = operands.first().map(|w| w.to_string_lossy()).filter(|w| !WORDS.contains(&w.as_ref()));
    let Some(word) = word else { return String::new() };
    let near = nearest(&word, WORDS).map(|near| format!(": did you mean {near}?")).unwrap_or_default();
    format!("fw: no command '{}'{near}\n", word.escape_debug())
}

/// Refuses the default paths where neither ./conf nor ./fw.conf exists. fw would find no records
/// there, and would take away what the administrator's records ask for.
fn at_home(paths: &Paths) -> Result<(), String> {
    let defaults = (paths.static_dir.as_path(), paths.config.as_path()) == (Path::new(STATIC), Path::new(CONFIG));
    match defaults && !paths.static_dir.exists() && !paths.config.exists() {
        true => {
            Err(format!("neither {STATIC} nor {CONFIG} is here: change to the directory of the service, or name them"))
        }
        false => Ok(()),
    }
}

/// Options may stand before and after the subcommand.
fn parse(args: impl Iterator<Item = OsString>) -> Result<(Paths, bool, Vec<OsString>), String> {
    let from = |variable: &str, default: &str| {
        std::env::var_os(variable).filter(|v| !v.is_empty()).map_or_else(|| PathBuf::from(default), PathBuf::from)
    };
    let mut paths = Paths {
        static_dir: from("FW_STATIC", STATIC),
        dynamic: from("FW_DYNAMIC", "/run/service/fw"),
        config: from("FW_CONFIG", CONFIG),
        etc: from("FW_ETC", "/etc"),
    };
    let mut once = false;
    let mut operands = Vec::new();
    let mut rest: Vec<OsString> = args.collect();
    while !rest.is_empty() {
        let mut getopt = Getopt::new(OPTIONS, rest);
        for given in getopt.by_ref() {
            let (key, value) = given.map_err(|e| e.to_string())?;
            let value = PathBuf::from(value.unwrap_or_default());
            match key {
                '\u{1}' => paths.static_dir = value,
                '\u{2}' => paths.dynamic = value,
                '\u{3}' => paths.config = value,
                '\u{5}' => once = true,
                _ => paths.etc = value,
            }
        }
        let mut left = getopt.operands().into_iter();
        operands.extend(left.next());
        rest = left.collect();
    }
    Ok((paths, once, operands))
}

fn publish(paths: &Paths, name: &str, fields: &[&str]) -> Result<u8, String> {
    let mut record = Record::new();
    for field in fields {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("not KEY=VALUE: {}", field.escape_debug()))?;
        if !Network::keys().any(|known| known == key) {
            return Err(format!("unknown key: {}", key.escape_debug()));
        }
        record.set(key, value);
    }
    // The caller has typed these words himself, so each wrong one is refused.
    let (_, left_out) = Network::parse(&record, Author::Administrator).map_err(|fault| fault.to_string())?;
    if let Some(fault) = left_out.first() {
        return Err(fault.to_string());
    }
    let changed = ipconf::publish(&paths.dynamic, name, &[record])
        .map_err(|e| format!("unable to publish {}: {}", name.escape_debug(), error_text(&e)))?;
    Ok(tell_fw(changed))
}

fn withdraw(paths: &Paths, name: &str) -> Result<u8, String> {
    let changed = ipconf::withdraw(&paths.dynamic, name)
        .map_err(|e| format!("unable to withdraw {}: {}", name.escape_debug(), error_text(&e)))?;
    Ok(tell_fw(changed))
}

/// Sends one `u` to the service, after the file is in its place. A service that does not run is no
/// failure: the next run reads the file.
fn tell_fw(changed: bool) -> u8 {
    if changed && let Err(e) = netd::sink::notify("fw".as_ref()) {
        let hint = match e {
            ControlError::Missing(_) | ControlError::NotRunning(_) => "run `fw apply`",
            ControlError::Full | ControlError::Io(..) => "the record counts at the next run",
        };
        applet::say::error(format_args!("fw: warning: fw: {e}: {hint}\n"));
    }
    run::EXIT_OK
}

#[cfg(test)]
mod tests {
    use applet::manpage;

    use super::*;

    const MAN: &str = include_str!("../../../man/fw.8");

    #[test]
    fn every_option_is_in_the_usage_and_in_the_man_page_and_no_other() {
        for opt in OPTIONS {
            let end = if opt.arg == Arg::No { ']' } else { ' ' };
            assert!(USAGE.contains(&format!("[--{}{end}", opt.long())), "usage: {}", opt.long());
            let item = format!(".It Fl -{}", opt.long());
            assert!(MAN.lines().any(|line| line.split(" Ar").next() == Some(&item)), "man: {}", opt.long());
        }
        let in_man = MAN.lines().filter_map(|l| l.strip_prefix(".It Fl -")).filter_map(|l| l.split(' ').next());
        assert!(in_man.into_iter().all(|name| OPTIONS.iter().any(|o| o.long() == name)));
        assert_eq!(manpage::listed(HELP), manpage::names(OPTIONS));
        for word in WORDS {
            assert!(
                HELP.contains(&format!("\n  {word} "))
                    && USAGE.contains(word)
                    && MAN.contains(&format!(".It Cm {word}\n")),
                "{word}"
            );
        }
    }

    #[test]
    fn the_shipped_record_is_good() {
        let records = netd_core::record::text::parse(include_bytes!("../../../services/fw/conf/lo.ipconf")).unwrap();
        assert_eq!(records.len(), 2);
        assert!(records.iter().all(|r| record::read(r, true, String::new()).is_ok()));
    }

    #[test]
    fn options_stand_before_and_after_the_subcommand() {
        let parse = |args: &[&str]| super::parse(args.iter().map(OsString::from));
        let (paths, once, operands) = parse(&["--dynamic", "/d", "apply", "--etc=/e", "--static", "/s"]).unwrap();
        assert_eq!((paths.dynamic, paths.etc, paths.static_dir), ("/d".into(), "/e".into(), "/s".into()));
        assert_eq!((once, operands), (false, vec!["apply".into()]));
        assert!(parse(&["apply", "--once"]).unwrap().1);
        let (paths, _, operands) = parse(&["publish", "x", "if=eth0", "--dynamic", "/d", "ip=1"]).unwrap();
        assert_eq!(
            (paths.dynamic, operands),
            ("/d".into(), ["publish", "x", "if=eth0", "ip=1"].map(OsString::from).into())
        );
        assert!(parse(&["--bogus"]).is_err());
    }
}

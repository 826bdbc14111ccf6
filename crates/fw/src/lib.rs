//! fw: makes the kernel match the `*.ipconf` records, once, and ends.
//!
//! It reads static and dynamic records and fw.conf, compares what they ask for with what the kernel
//! has, and writes only the difference: addresses, routes, its own nft table, a few switches,
//! resolv.conf and hosts. It is no daemon: the DHCP client and the link watcher publish a record
//! and send `u` to the service that runs it. This file is the command line. run.rs has the order of
//! things: input, want, ways, plan, firewall, kernel, etc.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use applet::getopt::{Arg, Getopt, Opt, opt};
use applet::suggest::nearest;
use applet::{EXIT_SYSTEM, EXIT_USAGE};

pub mod apply;
pub mod change;
pub mod commands;
pub mod confirm;
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
pub mod reasons;
pub mod record;
pub mod report;
pub mod run;
pub mod session;
pub mod show;
pub mod told;
pub mod want;
pub mod ways;
pub mod wire;

use input::Paths;

/// The whole use.
pub const USAGE: &str = "\
usage: fw [--once] [--confirm SECS] [--static DIR] [--dynamic DIR] [--config FILE] [--etc DIR] apply
       fw [--json] [--yes] [--static DIR] ... plan|check|show|confirm|down
       fw [--dynamic DIR] publish NAME KEY=VALUE...
       fw [--dynamic DIR] withdraw NAME
       fw [--dynamic DIR] [--config FILE] hooks
";

/// What `fw --help` prints.
pub const HELP: &str = "\
usage: fw [options] apply|plan|check|show|confirm|down
       fw [--dynamic DIR] publish NAME KEY=VALUE...
       fw [--dynamic DIR] withdraw NAME
       fw [--dynamic DIR] [--config FILE] hooks

  apply          make addresses, routes, firewall and files as the records ask
  plan           print what apply would do, and why; exit 2 when there is something
  check          name every fault in the files, and change nothing
  show           print what is applied, from where and since when
  confirm        keep the edit that `apply --confirm' has applied
  down           take everything away that fw has made
  publish        write the record DIR/NAME.ipconf and tell fw; ipconf(5) has the keys
  withdraw       remove it and tell fw
  hooks          run the hooks that have not heard of the last change yet

  --static DIR   the administrator's records (default $FW_STATIC, or ./conf)
  --dynamic DIR  the daemons' records (default $FW_DYNAMIC, or /run/service/fw)
  --config FILE  the policy (default $FW_CONFIG, or ./fw.conf)
  --etc DIR      where resolv.conf and hosts are (default $FW_ETC, or /etc)
  --once         with apply, in a service directory: begin with `sv o .'
  --confirm SECS with apply: roll the edit back unless `fw confirm' follows
  --json         with plan and show: for programs
  --yes          with down: do not ask
";

/// The words of the command line, and the options that each of them takes beside those that say
/// where things are.
const WORDS: [(&str, &[char]); 9] = [
    ("apply", &[ONCE, CONFIRM]),
    ("plan", &[JSON]),
    ("check", &[]),
    ("show", &[JSON]),
    ("confirm", &[]),
    ("down", &[YES]),
    ("publish", &[]),
    ("withdraw", &[]),
    ("hooks", &[]),
];

const STATIC_DIR: char = '\u{1}';
const DYNAMIC: char = '\u{2}';
const CONFIG_FILE: char = '\u{3}';
const ETC: char = '\u{4}';
const ONCE: char = '\u{5}';
const CONFIRM: char = '\u{6}';
const JSON: char = '\u{7}';
const YES: char = '\u{8}';

const OPTIONS: &[Opt] = &[
    opt(STATIC_DIR, "static", Arg::Required),
    opt(DYNAMIC, "dynamic", Arg::Required),
    opt(CONFIG_FILE, "config", Arg::Required),
    opt(ETC, "etc", Arg::Required),
    opt(ONCE, "once", Arg::No),
    opt(CONFIRM, "confirm", Arg::Required),
    opt(JSON, "json", Arg::No),
    opt(YES, "yes", Arg::No),
];

/// Where the administrator's records and policy are by default.
const STATIC: &str = "./conf";
const CONFIG: &str = "./fw.conf";

/// A command line that was understood.
struct Call {
    paths: Paths,
    /// The options beside those of `paths`.
    given: Vec<char>,
    /// Of `--confirm`.
    secs: Option<u64>,
    operands: Vec<OsString>,
}

/// The applet.
pub fn main(argv: Vec<OsString>) -> u8 {
    let call = match parse(argv.into_iter().skip(1)) {
        Ok(call) => call,
        Err(error) => {
            applet::say::error(format_args!("fw: {error}\n{USAGE}"));
            return EXIT_USAGE;
        }
    };
    match run_command(&call) {
        Some(Ok(code)) => code,
        Some(Err(error)) => {
            applet::say::error(format_args!("fw: fatal: {error}\n"));
            EXIT_SYSTEM
        }
        None => {
            applet::say::error(format_args!("{}{USAGE}", complaint(&call)));
            EXIT_USAGE
        }
    }
}

/// `None`: wrong use.
fn run_command(call: &Call) -> Option<Result<u8, String>> {
    let words: Vec<&str> = call.operands.iter().filter_map(|o| o.to_str()).collect();
    let (_, takes) = WORDS.iter().find(|(word, _)| Some(word) == words.first())?;
    if words.len() != call.operands.len() || call.given.iter().any(|option| !takes.contains(option)) {
        return None;
    }
    let paths = &call.paths;
    let has = |option| call.given.contains(&option);
    let at_home = |run: &dyn Fn() -> Result<u8, String>| Some(at_home(paths).and_then(|()| run()));
    match words.as_slice() {
        // Nothing but a confirmed edit is applied in one shot.
        ["apply"] if has(ONCE) && has(CONFIRM) => None,
        ["apply"] => at_home(&|| commands::apply(paths, has(ONCE), call.secs)),
        ["plan"] => at_home(&|| commands::plan::plan(paths, has(JSON))),
        ["check"] => at_home(&|| commands::check::check(paths)),
        ["show"] => at_home(&|| commands::show::show(paths, has(JSON))),
        ["confirm"] => at_home(&|| commands::confirm::confirm(paths)),
        ["down"] => at_home(&|| commands::down::down(paths, has(YES))),
        ["publish", name, fields @ ..] if !fields.is_empty() => Some(commands::publish(paths, name, fields)),
        ["withdraw", name] => Some(commands::withdraw(paths, name)),
        ["hooks"] => Some(hooks::run(paths)),
        _ => None,
    }
}

/// A line about what is wrong: a first word that is none of fw's, or an option of another command.
fn complaint(call: &Call) -> String {
    let Some(word) = call.operands.first().map(|w| w.to_string_lossy()) else { return String::new() };
    let Some((word, takes)) = WORDS.iter().find(|(known, _)| *known == word) else {
        let near = nearest(&word, words()).map(|near| format!(": did you mean {near}?")).unwrap_or_default();
        return format!("fw: no command '{}'{near}\n", word.escape_debug());
    };
    let wrong = call.given.iter().find(|option| !takes.contains(option));
    let wrong = wrong.and_then(|option| OPTIONS.iter().find(|known| known.key == *option));
    match (wrong, call.operands.get(1)) {
        (Some(option), _) => format!("fw: {word} has no option --{}\n", option.long()),
        (None, Some(more)) if !takes_more(word) => {
            format!("fw: {word} takes no '{}'\n", more.to_string_lossy().escape_debug())
        }
        (None, _) => String::new(),
    }
}

/// Whether the command has operands of its own.
fn takes_more(word: &str) -> bool {
    ["publish", "withdraw"].contains(&word)
}

fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().map(|(word, _)| *word)
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
fn parse(args: impl Iterator<Item = OsString>) -> Result<Call, String> {
    let from = |variable: &str, default: &str| {
        std::env::var_os(variable).filter(|v| !v.is_empty()).map_or_else(|| PathBuf::from(default), PathBuf::from)
    };
    let mut paths = Paths {
        static_dir: from("FW_STATIC", STATIC),
        dynamic: from("FW_DYNAMIC", "/run/service/fw"),
        config: from("FW_CONFIG", CONFIG),
        etc: from("FW_ETC", "/etc"),
    };
    let (mut given, mut secs) = (Vec::new(), None);
    let mut operands = Vec::new();
    let mut rest: Vec<OsString> = args.collect();
    while !rest.is_empty() {
        let mut getopt = Getopt::new(OPTIONS, rest);
        for option in getopt.by_ref() {
            let (key, value) = option.map_err(|e| e.to_string())?;
            let value = value.unwrap_or_default();
            match key {
                STATIC_DIR => paths.static_dir = value.into(),
                DYNAMIC => paths.dynamic = value.into(),
                CONFIG_FILE => paths.config = value.into(),
                ETC => paths.etc = value.into(),
                CONFIRM => {
                    let number = value.to_str().and_then(netd_core::net::decimal::<u64>);
                    let known = number.filter(|n| (1..=confirm::MAX_SECS).contains(n));
                    secs = Some(known.ok_or_else(|| {
                        format!("not a number of seconds from 1 to {}: {}", confirm::MAX_SECS, value.display())
                    })?);
                    given.push(key);
                }
                other => given.push(other),
            }
        }
        let mut left = getopt.operands().into_iter();
        operands.extend(left.next());
        rest = left.collect();
    }
    Ok(Call { paths, given, secs, operands })
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
        for word in words() {
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
        let Call { paths, given, operands, .. } =
            parse(&["--dynamic", "/d", "apply", "--etc=/e", "--static", "/s"]).unwrap();
        assert_eq!((paths.dynamic, paths.etc, paths.static_dir), ("/d".into(), "/e".into(), "/s".into()));
        assert_eq!((given, operands), (vec![], vec!["apply".into()]));
        assert_eq!(parse(&["apply", "--once"]).unwrap().given, [ONCE]);
        assert_eq!(parse(&["apply", "--confirm", "60"]).unwrap().secs, Some(60));
        for wrong in ["0", "86401", "-1", "soon", ""] {
            assert!(parse(&["apply", &format!("--confirm={wrong}")]).is_err(), "{wrong}");
        }
        let Call { paths, operands, .. } = parse(&["publish", "x", "if=eth0", "--dynamic", "/d", "ip=1"]).unwrap();
        assert_eq!(
            (paths.dynamic, operands),
            ("/d".into(), ["publish", "x", "if=eth0", "ip=1"].map(OsString::from).into())
        );
        assert!(parse(&["--bogus"]).is_err());
    }

    #[test]
    fn an_option_of_another_command_is_wrong_use() {
        for line in [
            "--once plan",
            "--confirm 5 plan",
            "--json apply",
            "--json check",
            "--yes apply",
            "--yes confirm",
            "--once --confirm 5 apply",
            "down now",
            "",
        ] {
            let call = parse(line.split_ascii_whitespace().map(OsString::from)).unwrap();
            assert!(run_command(&call).is_none(), "{line}");
        }
        for (line, want) in [
            ("--confirm 5 plan", "fw: plan has no option --confirm\n"),
            ("check --json", "fw: check has no option --json\n"),
            ("down now", "fw: down takes no 'now'\n"),
            ("pla", "fw: no command 'pla': did you mean plan?\n"),
            ("publish vpn0", ""),
        ] {
            let call = parse(line.split_ascii_whitespace().map(OsString::from)).unwrap();
            assert_eq!(complaint(&call), want, "{line}");
        }
    }
}

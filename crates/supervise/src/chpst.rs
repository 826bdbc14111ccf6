//! chpst: changes the state of its process (ids, environment, limits, lock ...) and becomes another
//! program. Called by another name it is setuidgid, envuidgid, envdir, pgrphack, setlock or
//! softlimit of daemontools.
//!
//! Here the command line becomes a `Plan`, without side effects; chpst/apply.rs carries it out.
//! Called by the applet table. The contract is chpst(8) of runit 2.1.2 (`-C`: 2.2.0); for the other
//! names the pages of daemontools. Messages begin with `chpst:` whatever the name, as runit's do.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::resource::Resource;

use applet::getopt::{Arg, Getopt, Opt, OptError, opt};
use applet::{EXIT_SYSTEM, EXIT_USAGE};
use apply::Stop;

mod accounts;
mod apply;

const USAGE: &str = "usage: chpst [-vVP012] [-u user[:group]] [-U user[:group]] [-b argv0] [-e dir] [-/ root] [-C pwd] \
                     [-n nice] [-l|-L lock] [-m n] [-d n] [-o n] [-p n] [-f n] [-c n] [-r n] [-t n] prog\n";
const USAGE_SETUIDGID: &str = "usage: setuidgid account child\n";
const USAGE_ENVUIDGID: &str = "usage: envuidgid account child\n";
const USAGE_ENVDIR: &str = "usage: envdir dir child\n";
const USAGE_PGRPHACK: &str = "usage: pgrphack child\n";
const USAGE_SETLOCK: &str = "usage: setlock [ -nNxX ] file program [ arg ... ]\n";
const USAGE_SOFTLIMIT: &str = "usage: softlimit [-a allbytes] [-c corebytes] [-d databytes] [-f filebytes] \
                               [-l lockbytes] [-m membytes] [-o openfiles] [-p processes] [-r residentbytes] \
                               [-s stackbytes] [-t cpusecs] child\n";

const fn flag(key: char) -> Opt {
    opt(key, "", Arg::No)
}

const fn with_value(key: char) -> Opt {
    opt(key, "", Arg::Required)
}

pub(crate) const OPTIONS: &[Opt] = &[
    flag('v'),
    flag('V'),
    flag('P'),
    flag('0'),
    flag('1'),
    flag('2'),
    with_value('u'),
    with_value('U'),
    with_value('b'),
    with_value('e'),
    with_value('/'),
    with_value('C'),
    with_value('n'),
    with_value('l'),
    with_value('L'),
    with_value('m'),
    with_value('d'),
    with_value('o'),
    with_value('p'),
    with_value('f'),
    with_value('c'),
    with_value('r'),
    with_value('t'),
];

pub(crate) const SETLOCK_OPTIONS: &[Opt] = &[flag('n'), flag('N'), flag('x'), flag('X')];

pub(crate) const SOFTLIMIT_OPTIONS: &[Opt] = &[
    with_value('a'),
    with_value('c'),
    with_value('d'),
    with_value('f'),
    with_value('l'),
    with_value('m'),
    with_value('o'),
    with_value('p'),
    with_value('r'),
    with_value('s'),
    with_value('t'),
];

/// Whose ids.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Account {
    /// `user[:group...]`, to be looked up.
    Names(String),
    /// `:uid:gid[:gid...]`, here without the first colon.
    Numeric(String),
    /// A user's name and nothing else (setuidgid, envuidgid).
    User(String),
}

impl Account {
    fn parse(text: &OsStr) -> Account {
        let text = text.to_string_lossy();
        text.strip_prefix(':').map_or_else(|| Account::Names(text.to_string()), |ids| Account::Numeric(ids.to_owned()))
    }
}

/// A directory of variables.
#[derive(Clone, Debug, PartialEq, Eq)]
struct EnvDir {
    path: OsString,
    /// A subdirectory is an error (envdir); with -e it is skipped.
    strict: bool,
}

/// A lock to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    path: OsString,
    /// Wait for it, or fail when it is taken.
    wait: bool,
    /// Without it exit 0 and say nothing (setlock -x).
    silent: bool,
}

/// A soft limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// To this many, or the hard limit when that is lower.
    To(u64),
    /// To the hard limit (`=`).
    Hard,
}

/// What to do before the program runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plan {
    verbose: bool,
    session: bool,
    envdir: Option<EnvDir>,
    root: Option<OsString>,
    cwd: Option<OsString>,
    nice: Option<i32>,
    env_account: Option<Account>,
    account: Option<Account>,
    lock: Option<Lock>,
    /// Descriptors to close, of 0, 1, 2.
    close: Vec<i32>,
    /// In the order they were given: a later one wins.
    limits: Vec<(Resource, Limit)>,
    argv0: Option<OsString>,
    /// The program and its arguments: never empty in a plan that is carried out.
    argv: Vec<OsString>,
}

/// The applet.
pub fn main(argv: Vec<OsString>) -> u8 {
    let plan = match parse(argv) {
        Ok(plan) => plan,
        Err(text) => {
            applet::say::error(format_args!("{text}"));
            return EXIT_USAGE;
        }
    };
    match apply::run(&plan) {
        Ok(never) => match never {},
        Err(Stop::NoLock) => 0,
        Err(Stop::Fatal(text)) => {
            applet::say::error(format_args!("chpst: fatal: {text}\n"));
            EXIT_SYSTEM
        }
    }
}

/// The other name of chpst behind a `d`, which runit's passes over: `dsetuidgid` is setuidgid.
pub fn without_d(name: &OsStr) -> Option<&OsStr> {
    let rest = name.as_bytes().strip_prefix(b"d")?;
    let known = [&b"setuidgid"[..], b"envuidgid", b"envdir", b"pgrphack", b"setlock", b"softlimit"].contains(&rest);
    known.then(|| OsStr::from_bytes(rest))
}

/// Reads the command line of whichever name; the error is what to print.
fn parse(argv: Vec<OsString>) -> Result<Plan, String> {
    let mut args = argv.into_iter();
    let name = args.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default();
    match without_d(name).unwrap_or(name).to_str().unwrap_or_default() {
        "setuidgid" => pair(args, USAGE_SETUIDGID, |account, plan| plan.account = Some(user(account))),
        "envuidgid" => pair(args, USAGE_ENVUIDGID, |account, plan| plan.env_account = Some(user(account))),
        "envdir" => pair(args, USAGE_ENVDIR, |path, plan| plan.envdir = Some(EnvDir { path, strict: true })),
        // In a session of its own, as runit's does; daemontools' pgrphack makes a process group
        // only.
        "pgrphack" => with_program(Plan { session: true, ..Plan::default() }, args.collect(), USAGE_PGRPHACK),
        "setlock" => setlock(args),
        "softlimit" => softlimit(args),
        _ => chpst(args),
    }
}

fn user(account: OsString) -> Account {
    Account::User(account.to_string_lossy().into_owned())
}

/// `NAME word child...`: no options at all.
fn pair(
    mut args: impl Iterator<Item = OsString>,
    usage: &str,
    set: impl FnOnce(OsString, &mut Plan),
) -> Result<Plan, String> {
    let mut plan = Plan::default();
    set(args.next().ok_or_else(|| full(usage))?, &mut plan);
    with_program(plan, args.collect(), usage)
}

/// runit puts an empty line behind its usage.
fn full(usage: &str) -> String {
    format!("{usage}\n")
}

fn with_program(plan: Plan, argv: Vec<OsString>, usage: &str) -> Result<Plan, String> {
    if argv.is_empty() { Err(full(usage)) } else { Ok(Plan { argv, ..plan }) }
}

/// As runit's getopt words it.
fn wrong_option(name: &str, usage: &str, error: &OptError) -> String {
    match error {
        OptError::Unknown(option) => format!("{name}: illegal option -- {}\n{usage}\n", option.escape_debug()),
        OptError::NeedsArgument(option) => {
            format!("{name}: option requires an argument -- {}\n{usage}\n", option.escape_debug())
        }
        OptError::UnwantedArgument(_) | OptError::Ambiguous(_) | OptError::Misspelt(..) => {
            format!("{name}: {error}\n{usage}\n")
        }
    }
}

fn setlock(args: impl Iterator<Item = OsString>) -> Result<Plan, String> {
    // daemontools' meaning: -n does not wait, -x exits 0 without a word. runit's setlock has -n and
    // -N exchanged.
    let (mut wait, mut silent) = (true, false);
    let mut getopt = Getopt::new(SETLOCK_OPTIONS, args);
    for given in getopt.by_ref() {
        match given.map_err(|e| wrong_option("setlock", USAGE_SETLOCK, &e))?.0 {
            'n' => wait = false,
            'N' => wait = true,
            'x' => silent = true,
            _ => silent = false,
        }
    }
    let set = |path, plan: &mut Plan| plan.lock = Some(Lock { path, wait, silent });
    pair(getopt.operands().into_iter(), USAGE_SETLOCK, set)
}

fn softlimit(args: impl Iterator<Item = OsString>) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let mut getopt = Getopt::new(SOFTLIMIT_OPTIONS, args);
    for given in getopt.by_ref() {
        let (key, value) = given.map_err(|e| wrong_option("softlimit", USAGE_SOFTLIMIT, &e))?;
        let value = value.unwrap_or_default();
        let limit = if value == "=" { Some(Limit::Hard) } else { limit(&value) };
        add_limits(&mut plan, key, limit.ok_or_else(|| full(USAGE_SOFTLIMIT))?);
    }
    with_program(plan, getopt.operands(), USAGE_SOFTLIMIT)
}

/// Which resources a letter limits: chpst's letters and softlimit's have the same meaning.
fn add_limits(plan: &mut Plan, key: char, limit: Limit) {
    let resources: &[Resource] = match key {
        'a' => &[Resource::RLIMIT_AS],
        'c' => &[Resource::RLIMIT_CORE],
        'd' => &[Resource::RLIMIT_DATA],
        'f' => &[Resource::RLIMIT_FSIZE],
        'l' => &[Resource::RLIMIT_MEMLOCK],
        'm' => &[Resource::RLIMIT_DATA, Resource::RLIMIT_STACK, Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_AS],
        'o' => &[Resource::RLIMIT_NOFILE],
        'p' => &[Resource::RLIMIT_NPROC],
        'r' => &[Resource::RLIMIT_RSS],
        's' => &[Resource::RLIMIT_STACK],
        't' => &[Resource::RLIMIT_CPU],
        _ => &[],
    };
    plan.limits.extend(resources.iter().map(|resource| (*resource, limit)));
}

/// A whole number; one too large for any machine is no limit.
fn limit(value: &OsStr) -> Option<Limit> {
    let digits = value.as_bytes();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(Limit::To(value.to_str()?.parse().unwrap_or(u64::MAX)))
}

/// `[+-]digits`
fn increment(value: &OsStr) -> Option<i32> {
    let text = value.to_str()?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn chpst(args: impl Iterator<Item = OsString>) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let mut getopt = Getopt::new(OPTIONS, args);
    for given in getopt.by_ref() {
        let (key, value) = given.map_err(|e| wrong_option("chpst", USAGE, &e))?;
        let value = value.unwrap_or_default();
        match key {
            'v' => plan.verbose = true,
            'V' => return Err(format!("netsv {}\n{USAGE}\n", env!("CARGO_PKG_VERSION"))),
            'P' => plan.session = true,
            '0' => plan.close.push(0),
            '1' => plan.close.push(1),
            '2' => plan.close.push(2),
            'u' => plan.account = Some(Account::parse(&value)),
            'U' => plan.env_account = Some(Account::parse(&value)),
            'b' => plan.argv0 = Some(value),
            'e' => plan.envdir = Some(EnvDir { path: value, strict: false }),
            '/' => plan.root = Some(value),
            'C' => plan.cwd = Some(value),
            'n' => plan.nice = Some(increment(&value).ok_or_else(|| full(USAGE))?),
            // There is one lock. A second one would take the place of the first, which would be
            // released.
            'l' | 'L' if plan.lock.is_some() => return Err(full(USAGE)),
            'l' => plan.lock = Some(Lock { path: value, wait: true, silent: false }),
            'L' => plan.lock = Some(Lock { path: value, wait: false, silent: false }),
            letter => add_limits(&mut plan, letter, limit(&value).ok_or_else(|| full(USAGE))?),
        }
    }
    with_program(plan, getopt.operands(), USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use applet::manpage;

    fn plan(args: &[&str]) -> Result<Plan, String> {
        parse(args.iter().map(OsString::from).collect())
    }

    fn ok(args: &[&str]) -> Plan {
        plan(args).unwrap()
    }

    #[test]
    fn every_option_of_chpst() {
        let p = ok(&[
            "chpst", "-v", "-P", "-02", "-1", "-u", "a:b", "-U:1:2", "-b", "zero", "-e", "dir", "-/", "root", "-C",
            "pwd", "-n", "-5", "-L", "lock", "-o", "10", "-m5", "prog", "-x",
        ]);
        assert!(p.session && p.verbose);
        assert_eq!(p.close, [0, 2, 1]);
        assert_eq!(p.account, Some(Account::Names("a:b".into())));
        assert_eq!(p.env_account, Some(Account::Numeric("1:2".into())));
        assert_eq!(p.argv0, Some("zero".into()));
        assert_eq!(p.envdir, Some(EnvDir { path: "dir".into(), strict: false }));
        assert_eq!((p.root, p.cwd, p.nice), (Some("root".into()), Some("pwd".into()), Some(-5)));
        assert_eq!(p.lock, Some(Lock { path: "lock".into(), wait: false, silent: false }));
        let limited: Vec<Resource> = p.limits.iter().map(|(r, _)| *r).collect();
        assert_eq!(
            limited,
            [
                Resource::RLIMIT_NOFILE,
                Resource::RLIMIT_DATA,
                Resource::RLIMIT_STACK,
                Resource::RLIMIT_MEMLOCK,
                Resource::RLIMIT_AS
            ]
        );
        assert_eq!(p.argv, ["prog", "-x"]);
        assert!(ok(&["/usr/bin/chpst", "-l", "f", "x"]).lock.unwrap().wait);
    }

    #[test]
    fn increments_of_nice() {
        for (text, want) in [("5", Some(5)), ("+5", Some(5)), ("-5", Some(-5)), ("x", None), ("", None), ("--5", None)]
        {
            assert_eq!(increment(OsStr::new(text)), want, "{text:?}");
        }
    }

    #[test]
    fn limits_are_whole_numbers() {
        let limit_of = |text: &str| limit(OsStr::new(text));
        assert_eq!(limit_of("7"), Some(Limit::To(7)));
        assert_eq!(limit_of("99999999999999999999999"), Some(Limit::To(u64::MAX)));
        for bad in ["", "5x", "=", "-1", "5m"] {
            assert_eq!(limit_of(bad), None, "{bad:?}");
        }
        assert_eq!(ok(&["softlimit", "-o", "=", "x"]).limits, [(Resource::RLIMIT_NOFILE, Limit::Hard)]);
    }

    #[test]
    fn other_names() {
        assert_eq!(ok(&["setuidgid", "a:b", "x"]).account, Some(Account::User("a:b".into())));
        assert_eq!(ok(&["envuidgid", "-q", "x"]).env_account, Some(Account::User("-q".into())));
        assert_eq!(ok(&["envdir", "d", "x", "y"]).envdir, Some(EnvDir { path: "d".into(), strict: true }));
        assert_eq!(ok(&["dsetuidgid", "a", "x"]), ok(&["setuidgid", "a", "x"]));
        assert_eq!(plan(&["dchpst"]), plan(&["chpst"]));
        assert_eq!(ok(&["pgrphack", "-P"]), Plan { session: true, argv: vec!["-P".into()], ..Plan::default() });
        let lock = |args| ok(args).lock.map(|l| (l.wait, l.silent)).unwrap();
        assert_eq!(lock(&["setlock", "f", "x"]), (true, false));
        assert_eq!(lock(&["setlock", "-nx", "f", "x"]), (false, true));
        assert_eq!(lock(&["setlock", "-nxNX", "f", "x"]), (true, false));
    }

    #[test]
    fn wrong_use_prints_the_usage_of_the_name() {
        for (args, usage) in [
            (&["chpst"][..], USAGE),
            (&["chpst", "-n", "x", "true"], USAGE),
            (&["chpst", "-o", "=", "true"], USAGE),
            (&["chpst", "-V", "true"], USAGE),
            (&["setuidgid", "a"], USAGE_SETUIDGID),
            (&["envuidgid"], USAGE_ENVUIDGID),
            (&["envdir", "d"], USAGE_ENVDIR),
            (&["pgrphack"], USAGE_PGRPHACK),
            (&["setlock", "f"], USAGE_SETLOCK),
            (&["softlimit", "-c", "5"], USAGE_SOFTLIMIT),
        ] {
            assert!(plan(args).is_err_and(|text| text.ends_with(&full(usage))), "{args:?}");
        }
        assert_eq!(
            plan(&["softlimit", "-z"]).unwrap_err(),
            format!("softlimit: illegal option -- z\n{USAGE_SOFTLIMIT}\n")
        );
        assert_eq!(plan(&["chpst", "-u"]).unwrap_err(), format!("chpst: option requires an argument -- u\n{USAGE}\n"));
    }

    #[test]
    fn the_man_page_has_every_option_and_no_other() {
        let page = include_str!("../../../man/chpst.8");
        let letters = |table: &[Opt]| manpage::sorted(table.iter().map(|o| o.key));
        assert_eq!(manpage::options(page, "OPTIONS"), letters(OPTIONS));
        assert_eq!(manpage::usage(USAGE), letters(OPTIONS));
        assert_eq!(manpage::options(page, "SOFTLIMIT"), letters(SOFTLIMIT_OPTIONS));
        assert_eq!(manpage::usage(USAGE_SOFTLIMIT), letters(SOFTLIMIT_OPTIONS));
        assert_eq!(manpage::options(page, "SETLOCK"), letters(SETLOCK_OPTIONS));
        assert_eq!(manpage::usage(USAGE_SETLOCK), letters(SETLOCK_OPTIONS));
    }
}

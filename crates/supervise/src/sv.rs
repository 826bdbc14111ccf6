//! sv: reports on services and controls them; `svc` and `svok` by their names.
//!
//! What it is: the command line, and reports. What it is not: the protocol (control.rs), the words
//! (sv/verb.rs), commands and their results (sv/obey.rs, sv/wait.rs), facts of a service
//! (sv/facts.rs), and how they are shown (sv/text.rs, table.rs, json.rs). Called by people,
//! scripts, and as the LSB interface of an init script.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;

use applet::control::{ControlError, ServiceDir, error_text, is_path, services};
use applet::getopt::{Arg, Getopt, Opt, OptError, opt};
use applet::{EXIT_USAGE, say};

mod daemontools;
mod enabled;
mod facts;
mod json;
mod log;
mod obey;
mod table;
mod text;
mod verb;
mod wait;
pub use daemontools::{USAGE_SVC, USAGE_SVOK};
use daemontools::{svc, svok};
use enabled::Word;
use facts::{Reader, Report};
use text::put;
#[cfg(test)]
pub(crate) use verb::SVC_OPTIONS;
use verb::{Goal, order};
use wait::Wait;

/// What `sv` says when it is used wrongly: runit's words.
pub const USAGE: &str = "usage: sv [-v] [-w sec] command service ...\n\n";

pub(crate) const OPTIONS: &[Opt] = &[
    opt('v', "", Arg::No),
    opt('w', "", Arg::Required),
    opt('V', "", Arg::No),
    opt(JSON, "json", Arg::No),
    opt(LINES, "lines", Arg::Required),
];
/// It has no letter.
const JSON: char = '\u{1}';
const LINES: char = '\u{2}';

/// sv(8): so many lines of a log `-v` shows.
const LOG_LINES: usize = 10;

/// sv(8): how long it waits.
const WAIT_SECS: u64 = 7;
/// sv(8): the exit code counts the services that failed, up to this.
const MAX_FAILED: usize = 99;
/// LSB: "program is not running".
const LSB_DOWN: u8 = 3;
/// LSB: "status is unknown".
const LSB_UNKNOWN: u8 = 4;
/// sv(8): wrong use as an init script.
const LSB_USAGE: u8 = 2;

/// The applet.
pub fn main(argv: Vec<OsString>) -> u8 {
    let mut args = argv.into_iter();
    let called = args.next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default().to_owned();
    match name.as_bytes() {
        b"svc" => svc(args),
        b"svok" => svok(args),
        b"sv" => sv(args, None),
        _ => sv(args, Some(name)),
    }
}

fn usage(lsb: Option<&OsStr>) -> u8 {
    match lsb {
        None => {
            say::error(format_args!("{USAGE}"));
            EXIT_USAGE
        }
        Some(name) => {
            say::error(format_args!("usage: {} [-w sec] command\n\n", name.display()));
            LSB_USAGE
        }
    }
}

/// `lsb`: the name of an init script that is a link to sv; it names the service.
fn sv(args: impl Iterator<Item = OsString>, lsb: Option<OsString>) -> u8 {
    let secs = env::var("SVWAIT").ok().map_or(WAIT_SECS, |text| leading_number(&text));
    let mut wait = Wait { time: Duration::from_secs(secs), exact: false };
    let (mut verbose, mut json, mut lines) = (false, false, None);
    let mut getopt = Getopt::new(OPTIONS, args);
    for given in getopt.by_ref() {
        match given {
            Ok(('w', secs)) => {
                let secs = leading_number(&secs.unwrap_or_default().to_string_lossy());
                wait = Wait { time: Duration::from_secs(secs), exact: true };
                verbose = true;
            }
            Ok(('V', _)) => {
                say::error(format_args!(concat!("netsv ", env!("CARGO_PKG_VERSION"), "\n")));
                return usage(lsb.as_deref());
            }
            Ok((JSON, _)) => json = true,
            Ok((LINES, count)) => {
                let count = leading_number(&count.unwrap_or_default().to_string_lossy());
                lines = Some(usize::try_from(count).unwrap_or(usize::MAX));
            }
            Ok(_) => {
                verbose = true;
                lines = lines.or(Some(LOG_LINES));
            }
            Err(e) => {
                match e {
                    OptError::Unknown(letter) => say::error(format_args!("sv: illegal option -- {letter}\n")),
                    OptError::NeedsArgument(letter) => {
                        say::error(format_args!("sv: option requires an argument -- {letter}\n"))
                    }
                    OptError::UnwantedArgument(_) | OptError::Ambiguous(_) | OptError::Misspelt(..) => {
                        say::error(format_args!("sv: {e}\n"))
                    }
                }
                return usage(lsb.as_deref());
            }
        }
    }
    let mut operands = getopt.operands().into_iter();
    let word = operands.next().unwrap_or_default();
    let mut names: Vec<OsString> = lsb.iter().cloned().collect();
    if lsb.is_none() {
        names.extend(operands);
    }
    if let Some(word) = enabled::word(&word).filter(|_| !json) {
        return links(word, &names, lsb.as_deref());
    }
    let Some(order) = order(&word.to_string_lossy(), verbose) else { return usage(lsb.as_deref()) };
    let reports = order.goal == Goal::Report;
    if !reports && json {
        say::error(format_args!("sv: --json is for status only\n"));
    }
    if !reports && (json || names.is_empty()) {
        return usage(lsb.as_deref());
    }
    if names.is_empty() {
        names = match facts::names(&services()) {
            Ok(names) => names,
            Err(e) => {
                say::error(format_args!("sv: fatal: unable to read {}: {}\n", services().display(), error_text(&e)));
                return EXIT_USAGE;
            }
        };
    }
    let mut run = Run::default();
    if reports {
        run.report(names, Style::new(json, lines));
    } else {
        run.obey(&order, wait, names);
    }
    run.hint();
    run.code(lsb.as_deref())
}

fn links(word: Word, names: &[OsString], lsb: Option<&OsStr>) -> u8 {
    let mut run = Run::default();
    match word {
        Word::Enable | Word::Disable if names.is_empty() => return usage(lsb),
        Word::Enable | Word::Disable => run.link(word, names),
        Word::List if !names.is_empty() => return usage(lsb),
        Word::List => {
            if let Err(e) = run.list() {
                say::error(format_args!("sv: fatal: unable to read the services: {}\n", error_text(&e)));
                return EXIT_USAGE;
            }
        }
    }
    run.code(lsb)
}

/// Its leading digits: what is no number is 0, and what is too large is for ever.
fn leading_number(text: &str) -> u64 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let digits = text.get(..end).unwrap_or_default();
    digits.parse().unwrap_or(if digits.is_empty() { 0 } else { u64::MAX })
}

/// How a report is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// As runit shows it, and with so many lines of the log.
    Lines {
        log: usize,
    },
    Table {
        colours: bool,
    },
    Json,
}

impl Style {
    fn new(json: bool, lines: Option<usize>) -> Style {
        let is = |name: &str, value: &str| env::var_os(name).is_some_and(|v| v == value);
        // no-color.org: set, and not to nothing.
        let colours = env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        match json {
            true => Style::Json,
            false if lines.is_some() || !io::stdout().is_terminal() || is("TERM", "dumb") => {
                Style::Lines { log: lines.unwrap_or(0) }
            }
            false => Style::Table { colours },
        }
    }
}

#[derive(Default)]
struct Run {
    reader: Reader,
    /// What is still to be written.
    out: Vec<u8>,
    failed: usize,
    lsb_code: u8,
    /// A service is not there, or without a runsv.
    unsupervised: bool,
    /// Its files may not be opened.
    denied: bool,
}

impl Run {
    fn fail(&mut self) {
        self.failed += 1;
        self.lsb_code = self.lsb_code.max(1);
    }

    fn failed_by(&mut self, error: &ControlError) {
        let errno = match error {
            ControlError::Missing(e) | ControlError::NotRunning(e) | ControlError::Io(_, e) => e.raw_os_error(),
            ControlError::Full => None,
        };
        let denied = errno == Some(Errno::EACCES as i32);
        self.denied |= denied;
        self.unsupervised |= !denied && matches!(error, ControlError::Missing(_) | ControlError::NotRunning(_));
        self.fail();
    }

    fn complain(&mut self, name: &OsStr, error: &ControlError) {
        text::error(&mut self.out, name, error);
        self.failed_by(error);
    }

    /// A line: `WORD: STATE`, or what there is to say instead.
    fn tell(&mut self, parts: &[&[u8]]) {
        put(&mut self.out, parts);
        self.out.push(b'\n');
    }

    fn flush(&mut self) {
        if !self.out.is_empty() {
            let mut stdout = io::stdout().lock();
            // An error here has nowhere to go.
            let _ = stdout.write_all(&self.out).and_then(|()| stdout.flush());
            self.out.clear();
        }
    }

    /// All in one write.
    fn report(&mut self, names: Vec<OsString>, style: Style) {
        // From within, as runit does it, when nothing is relative to where we are: a shorter way to
        // each of ten files.
        let within = names.iter().all(|name| !name.is_empty() && !is_path(name));
        let services = services();
        let near = if within && env::set_current_dir(&services).is_ok() { Path::new("") } else { &services };
        let reports: Vec<Report> = names.iter().map(|name| self.reader.report(near, name)).collect();
        for report in &reports {
            match &report.main {
                Err(e) => {
                    self.failed_by(e);
                    self.lsb_code = LSB_UNKNOWN;
                }
                // LSB: a finish script that runs is still the service being there.
                Ok(facts) if facts.status.pid.is_none() => self.lsb_code = LSB_DOWN,
                Ok(_) => {}
            }
        }
        self.show(&reports, style, &services, near);
        self.flush();
    }

    /// `near`: the directory of the services as it is reached from here.
    fn show(&mut self, reports: &[Report], style: Style, services: &Path, near: &Path) {
        match style {
            Style::Lines { log } => {
                for report in reports {
                    text::report(&mut self.out, report);
                    self.show_log(report, near, log);
                }
            }
            Style::Table { colours } => self.out.extend(table::render(reports, colours).into_bytes()),
            Style::Json => self.out.extend(json::array(reports, services).into_bytes()),
        }
    }

    fn show_log(&mut self, report: &Report, near: &Path, count: usize) {
        if let Some(log) = report.log.as_ref().filter(|_| count > 0) {
            let pid = log.as_ref().ok().and_then(|facts| facts.status.pid);
            let dir = ServiceDir::resolve_in(near, report.name);
            log::last_lines(dir.path(), pid, count).iter().for_each(|line| self.tell(&[b"  ", line.as_bytes()]));
        }
    }

    /// The exit code.
    fn code(&self, lsb: Option<&OsStr>) -> u8 {
        if lsb.is_some() { self.lsb_code } else { u8::try_from(self.failed.min(MAX_FAILED)).unwrap_or(99) }
    }

    /// For a person, what to do: runit's texts are kept as they are, for scripts.
    fn hint(&self) {
        if !io::stderr().is_terminal() {
            return;
        }
        if self.unsupervised {
            say::error(format_args!("sv: is runsvdir running? SVDIR is {}\n", services().display()));
        }
        if self.denied {
            say::error(format_args!("sv: are you root? the files of a service are its owner's alone\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use applet::manpage;

    const PAGE: &str = include_str!("../../../man/sv.8");

    #[test]
    fn usage_options_and_manual_page_agree() {
        // By its letter, or the first dash of its name.
        let key = |o: &Opt| if o.long().is_empty() { o.key } else { '-' };
        let keys = |table: &[Opt]| manpage::sorted(table.iter().map(key));
        let (sv_page, svc_page) = PAGE.split_once(".Ss Options of svc").unwrap();
        assert_eq!(manpage::options(sv_page, "OPTIONS"), keys(OPTIONS));
        for long in OPTIONS.iter().map(|o| o.long()).filter(|long| !long.is_empty()) {
            assert!(sv_page.contains(&format!("\n.It Fl -{long}\n")), "{long}");
            assert!(sv_page.contains(&format!("\n.Op Fl -{long}\n")), "{long}");
        }
        // runit's usage keeps silent about -V, and is kept as it is.
        let shown = keys(OPTIONS).into_iter().filter(|key| !['V', '-'].contains(key)).collect::<Vec<_>>();
        assert_eq!(manpage::usage(USAGE), shown);
        let line = svc_page.lines().find_map(|line| line.strip_prefix(".It Fl ")).unwrap();
        assert_eq!(manpage::sorted(line.split(" , ").flat_map(str::chars)), keys(verb::SVC_OPTIONS));
        assert_eq!(manpage::usage(USAGE_SVC), keys(verb::SVC_OPTIONS));
        assert_eq!(manpage::usage(USAGE_SVOK), Vec::<char>::new());
    }

    #[test]
    fn every_word_of_the_manual_page_is_understood() {
        let commands = PAGE.split_once(".Sh COMMANDS").unwrap().1.split_once(".Sh OPTIONS").unwrap().0;
        let words: Vec<&str> = commands
            .lines()
            .filter_map(|line| line.strip_prefix(".It Cm ").or(line.strip_prefix(".Cm ")))
            .flat_map(|line| line.split_ascii_whitespace().filter(|word| !matches!(*word, "," | "." | ";")))
            .collect();
        assert!(words.len() > 30, "{words:?}");
        for word in words {
            assert!(order(word, false).is_some() || enabled::word(word.as_ref()).is_some(), "{word}");
        }
    }

    #[test]
    fn numbers_are_read_as_runit_reads_them() {
        for (text, expected) in
            [("7", 7), ("12x", 12), ("x", 0), ("", 0), ("-3", 0), ("18446744073709551616", u64::MAX)]
        {
            assert_eq!(leading_number(text), expected, "{text}");
        }
    }
}

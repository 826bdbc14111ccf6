//! svlogd: writes the lines of its standard input to automatically rotated logs.
//!
//! One loop: wait, peek at what is there, cut it into lines, format them for each log directory,
//! one write per directory, consume it. No thread, no timer while nothing is due. It is not: the
//! rules (svlogd/line.rs, config.rs, rotate.rs, collect.rs, record.rs: pure), the files
//! (svlogd/dir.rs, process.rs), nor the input (svlogd/source.rs). Called by the applet table. The
//! contract is svlogd(8) of runit 2.1.2; what differs is in docs/compat.md.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use nix::errno::Errno;

use applet::EXIT_SYSTEM;
use applet::control::error_text;
use applet::getopt::{Arg, Getopt, Opt, OptError, opt};
use collect::{Action, Collect};
use config::count;
use deliver::{At, Output, Side};
use dir::{Context, Locked, LogDir};
use line::{Replace, StampKind};
use record::Start;
use source::Source;
use wait::{Input, Ready, Signals};

mod collect;
mod config;
mod deliver;
mod dir;
mod line;
mod process;
mod record;
mod rotate;
mod source;
mod wait;

const USAGE: &str = "usage: svlogd [-tttTvV] [-r c] [-R xyz] [-l len] [-b buflen] dir ...\n";

pub(crate) const OPTIONS: &[Opt] = &[
    opt('t', "", Arg::No),
    opt('T', "", Arg::No),
    opt('v', "", Arg::No),
    opt('V', "", Arg::No),
    opt('r', "", Arg::Required),
    opt('R', "", Arg::Required),
    opt('l', "", Arg::Required),
    opt('b', "", Arg::Required),
];

/// svlogd(8): bytes of a line that patterns see, unless `-l` says otherwise.
const DEFAULT_LEN: usize = 1000;
/// svlogd(8): the buffer, unless `-b` says otherwise; it must be larger than LEN.
const DEFAULT_BUFFER: usize = 1024;
/// One read takes at least so much. A pipe holds 64 KiB, so a burst costs one read and one write; a
/// pipe of twice that size does, too.
const READ_AT_LEAST: usize = 128 * 1024;
/// After a burst of more than this the memory is given back when nothing came for [`SILENCE`]: a
/// router has ten loggers.
const KEPT: usize = 8 * 1024;
const SILENCE: Duration = Duration::from_secs(1);
/// `-b` may raise it to this.
const READ_AT_MOST: usize = 1024 * 1024;
/// svlogd exits 111 on wrong use too.
const EXIT_WRONG_USE: u8 = EXIT_SYSTEM;

/// The command line.
struct Options {
    stamp: StampKind,
    verbose: bool,
    replace: Option<Replace>,
    len: usize,
    buffer: usize,
    dirs: Vec<OsString>,
}

/// The applet.
pub fn main(argv: Vec<OsString>) -> u8 {
    let options = match parse(argv) {
        Ok(options) => options,
        Err(text) => {
            applet::say::error(format_args!("{text}"));
            return EXIT_WRONG_USE;
        }
    };
    match Logger::start(options) {
        Ok(logger) => logger.run(),
        Err(e) => fatal(&format!("unable to start: {}", error_text(&e))),
    }
}

fn fatal(text: &str) -> u8 {
    applet::say::error(format_args!("svlogd: fatal: {text}\n"));
    EXIT_SYSTEM
}

/// Reads the command line; the error is what to print.
fn parse(argv: Vec<OsString>) -> Result<Options, String> {
    let mut stamps = 0_u32;
    let mut local = false;
    let (mut verbose, mut by, mut also) = (false, None, None);
    let (mut len, mut buffer) = (DEFAULT_LEN, DEFAULT_BUFFER);
    let mut getopt = Getopt::new(OPTIONS, argv.into_iter().skip(1));
    for given in getopt.by_ref() {
        let (key, value) = given.map_err(|e| format!("svlogd: {}\n{USAGE}\n", wrong_option(&e)))?;
        let value = value.unwrap_or_default().into_vec();
        match key {
            't' => stamps += 1,
            'T' => local = true,
            'v' => verbose = true,
            'V' => return Err(format!("netsv {}\n{USAGE}\n", env!("CARGO_PKG_VERSION"))),
            'r' => match value.as_slice() {
                [single] => by = Some(*single),
                _ => return Err(format!("{USAGE}\n")),
            },
            'R' => also = Some(value),
            'l' => len = Some(count(&value)).filter(|n| *n > 0).unwrap_or(DEFAULT_LEN),
            'b' => buffer = Some(count(&value)).filter(|n| *n > 0).unwrap_or(DEFAULT_BUFFER),
            _ => return Err(format!("{USAGE}\n")),
        }
    }
    let dirs = getopt.operands();
    if dirs.is_empty() || buffer <= len {
        return Err(format!("{USAGE}\n"));
    }
    let stamp = match stamps {
        0 => StampKind::None,
        1 => StampKind::Tai64n,
        2 => StampKind::Underscore,
        _ => StampKind::T,
    };
    let stamp = if local { stamp.local() } else { stamp };
    let replace = Replace::new(by, also.as_deref());
    // The begin of a line, which may be as long as `-l` says, and a read.
    let buffer = buffer.clamp(READ_AT_LEAST, READ_AT_MOST).max(len.saturating_add(READ_AT_LEAST / 2));
    Ok(Options { stamp, verbose, replace, len, buffer, dirs })
}

/// As runit's getopt words it.
fn wrong_option(error: &OptError) -> String {
    match error {
        OptError::Unknown(option) => format!("illegal option -- {}", option.escape_debug()),
        OptError::NeedsArgument(option) => format!("option requires an argument -- {}", option.escape_debug()),
        OptError::UnwantedArgument(_) | OptError::Ambiguous(_) | OptError::Misspelt(..) => error.to_string(),
    }
}

/// The running logger.
struct Logger {
    names: Vec<OsString>,
    /// The begin of a line is at its front: the first `rest` bytes.
    buffer: Vec<u8>,
    /// When the memory of a burst is given back.
    release_at: Option<Duration>,
    rest: usize,
    /// The line that is being read is longer than `-l`, and its head is in the files.
    in_tail: bool,
    collect: Collect,
    output: Output,
}

impl Logger {
    fn start(options: Options) -> io::Result<Logger> {
        let signals = Signals::new()?;
        let start = OwnedFd::from(std::fs::File::open(".")?);
        let mut logger = Logger {
            names: options.dirs,
            buffer: vec![0; options.buffer],
            release_at: None,
            rest: 0,
            in_tail: false,
            collect: Collect::default(),
            output: Output {
                dirs: Vec::new(),
                context: Context { verbose: options.verbose, len: options.len, signals, start },
                source: Source::new()?,
                side: Side::default(),
                stamp: options.stamp,
                replace: options.replace,
            },
        };
        logger.open()?;
        Ok(logger)
    }

    /// Opens the log directories and goes on where a svlogd that was killed stopped.
    fn open(&mut self) -> io::Result<()> {
        let locked = self.lock();
        let (origin, boot) = (self.output.source.origin, self.output.source.boot);
        let found = locked.iter().filter_map(|dir| source::find(&dir.fd));
        let found = found.max_by_key(|version| (Some(version.origin) == origin, version.number));
        let number = found.as_ref().map_or(0, |version| version.number);
        let start = record::start(found, origin, boot);
        self.rest = start.state.rest.len();
        self.in_tail = start.state.in_tail;
        if self.buffer.len() < self.rest + READ_AT_LEAST {
            self.buffer.resize(self.rest + READ_AT_LEAST, 0);
        }
        if let Some(place) = self.buffer.get_mut(..self.rest) {
            place.copy_from_slice(&start.state.rest);
        }
        self.open_locked(locked, &start);
        self.renew_record(number);
        // In one place only, and nowhere when there is none in use: it would be out of date.
        for dir in self.output.dirs.iter().skip(usize::from(self.output.source.is_recorded())) {
            source::drop_found(&dir.at().fd);
        }
        self.take(0)
    }

    fn lock(&self) -> Vec<Locked> {
        self.names.iter().filter_map(|name| Locked::new(name, &self.output.context)).collect()
    }

    fn open_locked(&mut self, locked: Vec<Locked>, start: &Start) {
        let output = &mut self.output;
        output.dirs = locked.into_iter().filter_map(|dir| dir.open(&mut output.context, start)).collect();
        output.side.open(&output.dirs);
    }

    /// A new record for the directories that are open now.
    fn renew_record(&mut self, after: u64) {
        let output = &mut self.output;
        let state = output.state(self.buffer.get(..self.rest).unwrap_or_default(), self.in_tail);
        let Some(dir) = output.dirs.first().filter(|_| output.source.could_be_recorded()) else { return };
        if let Err(e) = output.source.renew(&dir.at().fd, output.context.len, state, after) {
            output.source.forget();
            output.context.info(&format!("no record: {}", error_text(&e)));
        }
    }

    fn run(mut self) -> u8 {
        loop {
            if self.output.dirs.is_empty() {
                return fatal("no functional log directories.");
            }
            match self.turn() {
                Ok(Turn::Next) => {}
                Ok(Turn::Last { input_ended }) => match self.end(input_ended) {
                    Ok(()) => return 0,
                    Err(e) => return fatal(&format!("unable to read standard input: {}", error_text(&e))),
                },
                Err(e) => {
                    let _ = self.end(true);
                    return fatal(&format!("unable to read standard input: {}", error_text(&e)));
                }
            }
        }
    }

    /// Waits for something and deals with it.
    fn turn(&mut self) -> io::Result<Turn> {
        let ready = self.wait()?;
        let pending = self.output.context.signals.pending;
        if self.collect.waits() && (pending.term || pending.hup || pending.alrm) && !self.read()? {
            // The lines from before the signal are in the files before anything else is done.
            return Ok(Turn::Last { input_ended: true });
        }
        self.deal_with_signals()?;
        self.tick()?;
        if self.output.context.signals.pending.term {
            self.output.context.info("sigterm received.");
            self.finish_line()?;
            return Ok(Turn::Last { input_ended: false });
        }
        let wanted = ready.ended
            || match self.output.source.queued() {
                None => ready.any,
                Some(0) => false,
                Some(queued) => {
                    (ready.any || self.collect.waits()) && self.collect.step(crate::sys::now(), queued) == Action::Read
                }
            };
        if wanted && !self.read()? {
            return Ok(Turn::Last { input_ended: true });
        }
        Ok(Turn::Next)
    }

    fn wait(&mut self) -> io::Result<Ready> {
        let output = &mut self.output;
        let stdin = output.source.stdin().as_fd();
        let input = if self.collect.waits() { Input::Ends(stdin) } else { Input::Readable(stdin) };
        let own = [self.collect.deadline(), self.release_at].into_iter().flatten();
        let deadline = output.dirs.iter().filter_map(LogDir::deadline).chain(own).min();
        let timeout = deadline.map(|at| at.saturating_sub(crate::sys::now()));
        // Signals that came while a directory made the service wait have been taken from the
        // signalfd, and do not end the next wait.
        let timeout = if output.context.signals.pending.any() { Some(Duration::ZERO) } else { timeout };
        output.context.signals.wait(input, timeout)
    }

    /// Reads what is there and has it written; false at the end of the input.
    fn read(&mut self) -> io::Result<bool> {
        match self.output.source.fill(self.buffer.get_mut(self.rest..).unwrap_or_default()) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.take(count)?;
                if self.output.source.queued().is_some() {
                    self.collect.read(crate::sys::now(), count);
                }
                Ok(true)
            }
            // Another process that shares the descriptor was faster, or made it non-blocking.
            Err(Errno::EINTR | Errno::EAGAIN) => {
                self.collect.read(crate::sys::now(), 0);
                Ok(true)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// `count` bytes are in the buffer behind the rest: all lines are on disk when this returns.
    fn take(&mut self, count: usize) -> io::Result<()> {
        let end = self.rest + count;
        if end > KEPT {
            self.release_at = Some(crate::sys::now() + SILENCE);
        }
        let buffer = self.buffer.get(..end).unwrap_or_default();
        let taken = if self.output.source.is_recorded() { self.rest } else { end };
        let mut at = At { buffer, start: 0, taken, in_tail: self.in_tail };
        self.output.take(&mut at)?;
        let (start, in_tail) = (at.start, at.in_tail);
        self.buffer.copy_within(start..end, 0);
        (self.rest, self.in_tail) = (end - start, in_tail);
        Ok(())
    }

    fn deal_with_signals(&mut self) -> io::Result<()> {
        let pending = &mut self.output.context.signals.pending;
        let (chld, hup, alrm) = (pending.chld, pending.hup, pending.alrm);
        (pending.chld, pending.alrm) = (false, false);
        if chld {
            self.output.context.info("sigchild received.");
            for dir in &mut self.output.dirs {
                dir.reap(&mut self.output.context);
            }
        }
        if hup {
            self.output.context.info("sighangup received.");
            self.reopen();
            self.output.context.signals.pending.hup = false;
        }
        if alrm {
            self.output.context.info("sigalarm received.");
            for index in 0..self.output.dirs.len() {
                self.rotate(index)?;
            }
        }
        Ok(())
    }

    /// Gives back what a burst has touched.
    fn release(&mut self) {
        self.release_at = None;
        let mut buffer = vec![0; self.buffer.len()];
        if let (Some(to), Some(from)) = (buffer.get_mut(..self.rest), self.buffer.get(..self.rest)) {
            to.copy_from_slice(from);
        }
        self.buffer = buffer;
        self.output.dirs.iter_mut().for_each(LogDir::release);
    }

    /// Does what is due: of its own, and in each directory.
    fn tick(&mut self) -> io::Result<()> {
        if self.release_at.is_some_and(|at| crate::sys::now() >= at) {
            self.release();
        }
        for index in 0..self.output.dirs.len() {
            let Some(dir) = self.output.dirs.get_mut(index).filter(|dir| dir.deadline().is_some()) else { continue };
            if dir.tick(&mut self.output.context) {
                self.rotate(index)?;
            }
        }
        Ok(())
    }

    fn rotate(&mut self, index: usize) -> io::Result<()> {
        let buffer = self.buffer.get(..self.rest).unwrap_or_default();
        self.output.rotate(index, &mut At { buffer, start: 0, taken: self.rest, in_tail: self.in_tail })?;
        if !self.output.source.is_recorded() {
            // There may be room for one now.
            self.renew_record(0);
        }
        Ok(())
    }

    /// Closes and opens all log directories, also those that could not be opened before.
    fn reopen(&mut self) {
        let state = self.output.state(self.buffer.get(..self.rest).unwrap_or_default(), self.in_tail);
        for dir in self.output.dirs.drain(..) {
            dir.close(&mut self.output.context, false);
        }
        let locked = self.lock();
        self.open_locked(locked, &Start { state, cut: false });
        self.renew_record(0);
    }

    /// After TERM: reads the rest of a line whose begin was read already, if it is there. Byte by
    /// byte, because the input behind it is left for the next svlogd. With a record the next one
    /// goes on in the middle of the line.
    fn finish_line(&mut self) -> io::Result<()> {
        let now = Some(Duration::ZERO);
        for _ in 0..READ_AT_LEAST {
            if self.output.source.is_recorded() || !(self.in_tail || self.rest > 0) {
                break;
            }
            let input = Input::Readable(self.output.source.stdin().as_fd());
            let byte = self.buffer.get_mut(self.rest..).and_then(|free| free.get_mut(..1)).unwrap_or_default();
            if !self.output.context.signals.wait(input, now)?.any || self.output.source.fill(byte) != Ok(1) {
                break;
            }
            self.take(1)?;
        }
        Ok(())
    }

    /// Writes what is left and closes everything.
    fn end(&mut self, input_ended: bool) -> io::Result<()> {
        let unfinished = self.in_tail || self.rest > 0;
        let left = unfinished && !input_ended && self.output.source.is_recorded();
        let buffer = self.buffer.get(..self.rest).unwrap_or_default();
        let mut at = At { buffer, start: 0, taken: self.rest, in_tail: self.in_tail };
        let finished = if left { Ok(()) } else { self.output.finish(&mut at) };
        for dir in self.output.dirs.drain(..) {
            dir.close(&mut self.output.context, true);
        }
        if !left {
            self.output.source.forget();
        }
        finished
    }
}

/// What follows.
enum Turn {
    Next,
    /// The end: of the input, or by TERM.
    Last {
        input_ended: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use applet::manpage;

    fn parse_args(args: &[&str]) -> Result<Options, String> {
        parse(std::iter::once("svlogd").chain(args.iter().copied()).map(OsString::from).collect())
    }

    #[test]
    fn options_as_runit_takes_them() {
        let o = parse_args(&["-ttv", "-r", ".", "-R", "ab", "-l", "5", "-b8", "d", "e"]).unwrap();
        assert_eq!((o.stamp, o.verbose, o.len, o.buffer), (StampKind::Underscore, true, 5, READ_AT_LEAST));
        assert_eq!(o.dirs, ["d", "e"]);
        assert!(o.replace.is_some());
        assert_eq!(parse_args(&["-t", "-tt", "d"]).unwrap().stamp, StampKind::T);
        let local = ["-T", "-Tt", "-ttT", "-tttT"].map(|flags| parse_args(&[flags, "d"]).unwrap().stamp);
        assert_eq!(local, [StampKind::Local, StampKind::Local, StampKind::Local, StampKind::LocalT]);
        assert_eq!(parse_args(&["-l", "0", "d"]).unwrap().len, DEFAULT_LEN);
        assert_eq!(parse_args(&["-l", "5x", "d"]).unwrap().len, 5);
    }

    #[test]
    fn the_man_page_has_every_option_and_no_other() {
        let page = include_str!("../../../man/svlogd.8");
        let letters = manpage::sorted(OPTIONS.iter().map(|o| o.key));
        assert_eq!(manpage::options(page, "OPTIONS"), letters);
        assert_eq!(manpage::usage(USAGE), letters);
    }

    #[test]
    fn wrong_use_prints_usage() {
        for args in [&[][..], &["-r", "xy", "d"], &["-l", "1024", "d"], &["-b", "1000", "d"], &["-V"]] {
            assert!(parse_args(args).is_err_and(|text| text.ends_with(&format!("{USAGE}\n"))), "{args:?}");
        }
        let text = |args| parse_args(args).err().unwrap();
        assert_eq!(text(&["-q"]), format!("svlogd: illegal option -- q\n{USAGE}\n"));
        assert_eq!(text(&["-l"]), format!("svlogd: option requires an argument -- l\n{USAGE}\n"));
    }
}

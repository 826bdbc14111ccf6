//! svlogd: writes the lines of its standard input to automatically rotated logs.
//!
//! One loop: wait, read what is there, cut it into lines, format them for each log directory, one write per
//! directory. A line is on disk before svlogd waits again. No thread, no timer while nothing is due.
//! It is not: the rules (svlogd/line.rs, config.rs, rotate.rs: pure) nor the files (svlogd/dir.rs).
//! Called by the applet table. The contract is svlogd(8) of runit 2.1.2; what differs is in docs/compat.md.

#![expect(clippy::disallowed_methods, reason = "a shell: stamps of lines are wall clock time")]

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::unistd::read;

use crate::EXIT_SYSTEM;
use crate::control::error_text;
use crate::getopt::{Arg, Getopt, Opt, OptError};
use config::Remote;
use dir::{Context, LogDir, warn};
use line::{Piece, Replace, Splitter, StampKind, stamp};
use wait::Signals;

mod config;
mod dir;
mod line;
mod rotate;
mod wait;

const USAGE: &str = "usage: svlogd [-tttvV] [-r c] [-R xyz] [-l len] [-b buflen] dir ...\n";

const OPTIONS: &[Opt] = &[
    Opt { key: 't', long: "", arg: Arg::No },
    Opt { key: 'v', long: "", arg: Arg::No },
    Opt { key: 'V', long: "", arg: Arg::No },
    Opt { key: 'r', long: "", arg: Arg::Required },
    Opt { key: 'R', long: "", arg: Arg::Required },
    Opt { key: 'l', long: "", arg: Arg::Required },
    Opt { key: 'b', long: "", arg: Arg::Required },
];

/// svlogd(8): bytes of a line that patterns see, unless `-l` says otherwise.
const DEFAULT_LEN: usize = 1000;
/// svlogd(8): the buffer, unless `-b` says otherwise; it must be larger than LEN.
const DEFAULT_BUFFER: usize = 1024;
/// What one read takes at least: a pipe holds 64 KiB, so a burst costs one read and one write. Twice that, because from
/// 128 KiB on malloc(3) maps the pages instead of clearing them: an idle logger then keeps one of them, not 16.
const READ_AT_LEAST: usize = 128 * 1024;
/// What `-b` may raise it to.
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
            crate::say::error(format_args!("{text}"));
            return EXIT_WRONG_USE;
        }
    };
    match Logger::start(options) {
        Ok(logger) => logger.run(),
        Err(e) => fatal(&format!("unable to start: {}", error_text(&e))),
    }
}

fn fatal(text: &str) -> u8 {
    crate::say::error(format_args!("svlogd: fatal: {text}\n"));
    EXIT_SYSTEM
}

/// Reads the command line; the error is what to print.
fn parse(argv: Vec<OsString>) -> Result<Options, String> {
    let mut stamps = 0_u32;
    let (mut verbose, mut by, mut also) = (false, None, None);
    let (mut len, mut buffer) = (DEFAULT_LEN, DEFAULT_BUFFER);
    let mut getopt = Getopt::new(OPTIONS, argv.into_iter().skip(1));
    for given in getopt.by_ref() {
        let (key, value) = given.map_err(|e| format!("svlogd: {}\n{USAGE}\n", wrong_option(&e)))?;
        let value = value.unwrap_or_default().into_vec();
        match key {
            't' => stamps += 1,
            'v' => verbose = true,
            'V' => return Err(format!("netsv {}\n{USAGE}\n", env!("CARGO_PKG_VERSION"))),
            'r' => match value.as_slice() {
                [single] => by = Some(*single),
                _ => return Err(format!("{USAGE}\n")),
            },
            'R' => also = Some(value),
            'l' => len = Some(count(&value)).filter(|n| *n > 0).unwrap_or(DEFAULT_LEN),
            'b' => buffer = count(&value),
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
    let replace = Replace::new(by, also.as_deref());
    Ok(Options { stamp, verbose, replace, len, buffer: buffer.clamp(READ_AT_LEAST, READ_AT_MOST), dirs })
}

/// As runit's getopt words it.
fn wrong_option(error: &OptError) -> String {
    match error {
        OptError::Unknown(option) => format!("illegal option -- {}", option.escape_debug()),
        OptError::NeedsArgument(option) => format!("option requires an argument -- {}", option.escape_debug()),
        OptError::UnwantedArgument(_) | OptError::Ambiguous(_) => error.to_string(),
    }
}

fn count(text: &[u8]) -> usize {
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).unwrap_or(0)
}

/// The running logger.
struct Logger {
    stamp: StampKind,
    replace: Option<Replace>,
    names: Vec<OsString>,
    dirs: Vec<LogDir>,
    context: Context,
    splitter: Splitter,
    buffer: Vec<u8>,
    side: Side,
}

/// Where lines go besides the files.
struct Side {
    /// Lines for standard error that wait for the end of the batch.
    alerts: Vec<u8>,
    udp: Option<UdpSocket>,
    /// Sending failed, and a line in the log says so: said once until it works again.
    udp_failed: bool,
}

impl Logger {
    fn start(options: Options) -> io::Result<Logger> {
        let signals = Signals::new()?;
        let start = OwnedFd::from(std::fs::File::open(".")?);
        Ok(Logger {
            stamp: options.stamp,
            replace: options.replace,
            names: options.dirs,
            dirs: Vec::new(),
            context: Context { verbose: options.verbose, len: options.len, signals, start },
            splitter: Splitter::new(options.len),
            buffer: vec![0; options.buffer],
            side: Side { alerts: Vec::new(), udp: None, udp_failed: false },
        })
    }

    fn run(mut self) -> u8 {
        self.reopen();
        loop {
            if self.dirs.is_empty() {
                return fatal("no functional log directories.");
            }
            match self.turn() {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    self.end();
                    return fatal(&format!("unable to read standard input: {}", error_text(&e)));
                }
            }
        }
        self.end();
        0
    }

    /// Waits for something and deals with it; false when it is time to end.
    fn turn(&mut self) -> io::Result<bool> {
        let now = crate::sys::now();
        let deadline = self.dirs.iter().filter_map(LogDir::deadline).min();
        let stdin = io::stdin();
        let readable = self.context.signals.wait(Some(stdin.as_fd()), deadline.map(|at| at.saturating_sub(now)))?;
        self.deal_with_signals();
        if deadline.is_some() {
            for dir in &mut self.dirs {
                dir.tick(&mut self.context);
            }
        }
        if self.context.signals.pending.term {
            self.context.info("sigterm received.");
            self.finish_line()?;
            return Ok(false);
        }
        if !readable {
            return Ok(true);
        }
        match read(stdin.as_fd(), &mut self.buffer) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.take(count);
                Ok(true)
            }
            // Somebody else who shares the descriptor was faster, or it was made non-blocking.
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    fn deal_with_signals(&mut self) {
        let pending = &mut self.context.signals.pending;
        let (chld, hup, alrm) = (pending.chld, pending.hup, pending.alrm);
        (pending.chld, pending.alrm) = (false, false);
        if chld {
            self.context.info("sigchild received.");
            for dir in &mut self.dirs {
                dir.reap(&mut self.context);
            }
        }
        if hup {
            self.context.info("sighangup received.");
            self.reopen();
            self.context.signals.pending.hup = false;
        }
        if alrm {
            self.context.info("sigalarm received.");
            for dir in &mut self.dirs {
                dir.rotate(&mut self.context);
            }
        }
    }

    /// Closes and opens all log directories, also those that could not be opened before.
    fn reopen(&mut self) {
        let selected: Vec<bool> = self.dirs.iter().map(|dir| dir.selected).collect();
        for dir in self.dirs.drain(..) {
            dir.close(&mut self.context, false);
        }
        self.dirs = self.names.iter().filter_map(|name| LogDir::open(name, &self.context)).collect();
        // The rest of a long line follows its begin when all directories are there again.
        if selected.len() == self.dirs.len() {
            for (dir, selected) in self.dirs.iter_mut().zip(selected) {
                dir.selected = selected;
            }
        }
        if self.side.udp.is_none() && self.dirs.iter().any(|dir| dir.config.remote.is_some()) {
            self.side.open_udp();
        }
    }

    /// The first `count` bytes of the buffer were read: they are on disk when this returns.
    fn take(&mut self, count: usize) {
        let stamp = stamp(self.stamp, SystemTime::now());
        let chunk = self.buffer.get(..count).unwrap_or_default();
        let mut scratch = Vec::new();
        let (dirs, context, side, replace) = (&mut self.dirs, &mut self.context, &mut self.side, &self.replace);
        self.splitter.feed(chunk, |piece| {
            let piece = replaced(piece, replace.as_ref(), &mut scratch);
            for dir in dirs.iter_mut() {
                deliver(piece, &stamp, dir, context, side);
            }
        });
        self.flush();
    }

    fn flush(&mut self) {
        for dir in &mut self.dirs {
            dir.flush(&mut self.context);
        }
        self.side.flush();
    }

    /// After TERM: the rest of a line whose begin was read already, if it is there. Byte by byte, because what
    /// follows it is left in the pipe for the next svlogd.
    fn finish_line(&mut self) -> io::Result<()> {
        let stdin = io::stdin();
        let now = Some(std::time::Duration::ZERO);
        for _ in 0..READ_AT_LEAST {
            if !self.splitter.inside_line() || !self.context.signals.wait(Some(stdin.as_fd()), now)? {
                break;
            }
            let mut byte = [0];
            match read(stdin.as_fd(), &mut byte) {
                Ok(1) => {
                    if let (Some(first), [byte]) = (self.buffer.first_mut(), byte) {
                        *first = byte;
                    }
                    self.take(1);
                }
                Ok(_) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// Writes what is left and closes everything.
    fn end(&mut self) {
        let stamp = stamp(self.stamp, SystemTime::now());
        let mut scratch = Vec::new();
        let (dirs, context, side, replace) = (&mut self.dirs, &mut self.context, &mut self.side, &self.replace);
        self.splitter.finish(|piece| {
            let piece = replaced(piece, replace.as_ref(), &mut scratch);
            for dir in dirs.iter_mut() {
                deliver(piece, &stamp, dir, context, side);
            }
        });
        self.flush();
        for dir in self.dirs.drain(..) {
            dir.close(&mut self.context, true);
        }
    }
}

/// The piece with its characters replaced; `scratch` holds them.
fn replaced<'a>(piece: Piece<'a>, replace: Option<&Replace>, scratch: &'a mut Vec<u8>) -> Piece<'a> {
    let Some(replace) = replace else { return piece };
    let (Piece::Line(text) | Piece::Head(text)) = piece else { return piece };
    scratch.clear();
    scratch.extend_from_slice(text);
    replace.apply(scratch);
    if matches!(piece, Piece::Line(_)) { Piece::Line(scratch) } else { Piece::Head(scratch) }
}

/// Sends one piece where the rules of one directory want it.
fn deliver(piece: Piece<'_>, stamp: &str, dir: &mut LogDir, context: &mut Context, side: &mut Side) {
    let (text, end) = match piece {
        Piece::Line(text) => (text, &b"\n"[..]),
        Piece::Head(text) => (text, &b"...\n"[..]),
        Piece::Tail { bytes, ends } => {
            if dir.selected {
                dir.put(context, bytes, ends);
            }
            return;
        }
    };
    let route = dir.config.route(text);
    let remote = dir.config.remote.filter(|_| route.log);
    dir.selected = route.log && !remote.is_some_and(|remote| remote.only);
    if dir.selected {
        dir.put(context, stamp.as_bytes(), false);
        if !dir.config.prefix.is_empty() {
            let prefix = dir.config.prefix.clone();
            dir.put(context, &prefix, false);
        }
        dir.put(context, text, false);
        if matches!(piece, Piece::Line(_)) {
            dir.put(context, b"\n", true);
        }
    }
    if route.alert {
        for part in [stamp.as_bytes(), &dir.config.prefix, text, end] {
            side.alerts.extend_from_slice(part);
        }
    }
    if let Some(remote) = remote {
        let datagram = [stamp.as_bytes(), &dir.config.prefix, text, end].concat();
        if let Some(complaint) = side.send(&datagram, remote) {
            dir.put(context, complaint.as_bytes(), true);
        }
    }
}

impl Side {
    fn open_udp(&mut self) {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
        match socket.and_then(|s| s.set_nonblocking(true).map(|()| s)) {
            Ok(socket) => self.udp = Some(socket),
            Err(e) => warn(&format!("no udp socket available: {}", error_text(&e))),
        }
    }

    /// Sends a line; the result is what to put into the log when that fails for the first time.
    fn send(&mut self, datagram: &[u8], remote: Remote) -> Option<String> {
        let sent = self.udp.as_ref()?.send_to(datagram, remote.to);
        let failed = std::mem::replace(&mut self.udp_failed, sent.is_err());
        let error = sent.err().filter(|_| !failed)?;
        Some(format!("warning: failure sending through udp: {}: {}\n", remote.to, error_text(&error)))
    }

    fn flush(&mut self) {
        if !self.alerts.is_empty() {
            // Nobody reads it: the logs are more important.
            let _ = io::stderr().write_all(&self.alerts);
            self.alerts.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manpage;

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
        assert_eq!(parse_args(&["-l", "0", "d"]).unwrap().len, DEFAULT_LEN);
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

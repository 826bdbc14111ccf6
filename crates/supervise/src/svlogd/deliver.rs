//! From the input to where its lines go: the log directories, standard error, UDP.
//!
//! It is not: the rules for lines (line.rs, config.rs), the files (dir.rs), or the input and its
//! record (source.rs). It puts them together, in the order that record.rs relies on: written, then
//! consumed, and a file is rotated only when all that is in it is consumed. Called by svlogd.rs.

#![expect(clippy::disallowed_methods, reason = "a shell: stamps of lines are wall clock time")]

use std::io::{self, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::SystemTime;

use super::config::Remote;
use super::dir::{Context, LogDir, Put, warn};
use super::line::{Piece, Replace, StampKind, first_piece, stamp};
use super::record::{Done, State};
use super::source::Source;
use applet::control::error_text;

/// Everything that lines pass through.
pub(super) struct Output {
    pub(super) dirs: Vec<LogDir>,
    pub(super) context: Context,
    pub(super) source: Source,
    pub(super) side: Side,
    pub(super) stamp: StampKind,
    pub(super) replace: Option<Replace>,
}

/// How far the work on the buffer is.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) buffer: &'a [u8],
    /// Everything before it is in the files.
    pub(super) start: usize,
    /// Everything before it is consumed.
    pub(super) taken: usize,
    /// The text at `start` belongs to a long line whose head is in the files.
    pub(super) in_tail: bool,
}

impl Output {
    /// Delivers what is whole in the buffer, and consumes all of it. When this returns, `start` is
    /// where the begin of a line is, and every line before is in the files.
    pub(super) fn take(&mut self, at: &mut At<'_>) -> io::Result<()> {
        let stamp = self.stamp();
        let mut scratch = Vec::new();
        while let Some((piece, used, in_tail)) =
            first_piece(at.buffer.get(at.start..).unwrap_or_default(), self.context.len, at.in_tail)
        {
            let piece = replaced(piece, self.replace.as_ref(), &mut scratch);
            self.deliver(piece, used, &stamp, at)?;
            at.start += used;
            at.in_tail = in_tail;
        }
        self.flush();
        self.commit(at, at.buffer.len())
    }

    fn stamp(&self) -> String {
        let now = SystemTime::now();
        // The time zone is looked at only where it is asked for: its tables are memory.
        let east = if self.stamp.is_local() { crate::sys::seconds_east(now) } else { 0 };
        stamp(self.stamp, now, east)
    }

    /// The input has ended: an unterminated last line is a line too.
    pub(super) fn finish(&mut self, at: &mut At<'_>) -> io::Result<()> {
        let rest = at.buffer.get(at.start..).unwrap_or_default();
        if rest.is_empty() && !at.in_tail {
            return Ok(());
        }
        let stamp = self.stamp();
        let mut scratch = Vec::new();
        let piece = if at.in_tail { Piece::Tail { bytes: b"\n", ends: true } } else { Piece::Line(rest) };
        let piece = replaced(piece, self.replace.as_ref(), &mut scratch);
        self.deliver(piece, rest.len() + 1, &stamp, at)?;
        (at.start, at.in_tail) = (at.buffer.len(), false);
        self.flush();
        self.commit(at, at.buffer.len())
    }

    fn flush(&mut self) {
        for dir in &mut self.dirs {
            dir.flush(&mut self.context);
        }
        self.side.flush();
    }

    /// The state for a following svlogd, when only `rest` is consumed and not in the files.
    pub(super) fn state(&self, rest: &[u8], in_tail: bool) -> State {
        State { rest: rest.to_vec(), in_tail, dirs: self.dirs.iter().map(LogDir::progress).collect() }
    }

    /// Everything put is written: consumes the input up to `upto`.
    fn commit(&mut self, at: &mut At<'_>, upto: usize) -> io::Result<()> {
        let first = at.buffer.get(at.taken..upto).and_then(|bytes| bytes.first().copied());
        let count = upto.saturating_sub(at.taken);
        at.taken = upto.max(at.taken);
        if !self.source.is_recorded() {
            // Something is left only when the record was lost in the middle of this batch.
            return self.source.discard(count);
        }
        let state = self.state(at.buffer.get(at.start..upto).unwrap_or_default(), at.in_tail);
        self.source.commit(state, first, count)
    }

    /// Rotates one directory's file when what is in the files is consumed, and not before.
    pub(super) fn rotate(&mut self, index: usize, at: &mut At<'_>) -> io::Result<()> {
        let upto = at.start.max(at.taken);
        if self.source.is_recorded() {
            for dir in &mut self.dirs {
                dir.flush(&mut self.context);
            }
            self.commit(at, upto)?;
        }
        if let Some(dir) = self.dirs.get_mut(index) {
            dir.rotate(&mut self.context);
        }
        // The new file is on record before anything is in it.
        self.commit(at, upto)
    }

    /// Sends one piece, made of `used` bytes of input, where the rules of each directory want it.
    fn deliver(&mut self, piece: Piece<'_>, used: usize, stamp: &str, at: &mut At<'_>) -> io::Result<()> {
        for index in 0..self.dirs.len() {
            self.deliver_to(index, piece, stamp, at)?;
        }
        for dir in &mut self.dirs {
            // More than nothing is left when a svlogd before this one was given another `-l`.
            let input = dir.done.input.saturating_sub(used as u64);
            dir.done = Done { input, stamped: input > 0 };
        }
        Ok(())
    }

    fn deliver_to(&mut self, index: usize, piece: Piece<'_>, stamp: &str, at: &mut At<'_>) -> io::Result<()> {
        let Some(dir) = self.dirs.get_mut(index) else { return Ok(()) };
        let (text, end) = match piece {
            Piece::Line(text) => (text, &b"\n"[..]),
            Piece::Head(text) => (text, &b"...\n"[..]),
            Piece::Tail { bytes, ends } if dir.selected => return self.put_input(index, bytes, ends, at),
            Piece::Tail { .. } => return Ok(()),
        };
        let route = dir.config.route(text);
        let remote = dir.config.remote.filter(|_| route.log);
        dir.selected = route.log && !remote.is_some_and(|remote| remote.only);
        let (selected, stamped) = (dir.selected, dir.done.stamped);
        let prefix = dir.config.prefix.clone();
        if selected {
            if !stamped {
                self.put(index, stamp.as_bytes(), at)?;
                self.put(index, &prefix, at)?;
                if let Some(dir) = self.dirs.get_mut(index) {
                    dir.done.stamped = true;
                }
            }
            self.put_input(index, text, false, at)?;
            if matches!(piece, Piece::Line(_)) {
                self.put_newline(index, text.len(), at)?;
            }
        }
        if route.alert {
            for part in [stamp.as_bytes(), &prefix, text, end] {
                self.side.alerts.extend_from_slice(part);
            }
        }
        if let Some(remote) = remote {
            let datagram = [stamp.as_bytes(), &prefix, text, end].concat();
            if let Some(complaint) = self.side.send(&datagram, remote) {
                self.put(index, complaint.as_bytes(), at)?;
            }
        }
        Ok(())
    }

    /// Puts bytes that are not from the input; rotates as often as they need it.
    fn put(&mut self, index: usize, bytes: &[u8], at: &mut At<'_>) -> io::Result<()> {
        let mut rest = bytes;
        while let (false, Some(dir)) = (rest.is_empty(), self.dirs.get_mut(index)) {
            let Put { count, full } = dir.put(&mut self.context, rest, rest.ends_with(b"\n"));
            rest = rest.get(count..).unwrap_or_default();
            if full {
                self.rotate(index, at)?;
            }
        }
        Ok(())
    }

    /// Puts the bytes of a piece, without those that are in the file already, and counts them.
    fn put_input(&mut self, index: usize, bytes: &[u8], ends_line: bool, at: &mut At<'_>) -> io::Result<()> {
        while let Some(dir) = self.dirs.get_mut(index) {
            let done = usize::try_from(dir.done.input).unwrap_or(usize::MAX);
            let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) else { break };
            let Put { count, full } = dir.put(&mut self.context, rest, ends_line);
            dir.done.input += count as u64;
            if full {
                self.rotate(index, at)?;
            }
        }
        Ok(())
    }

    /// The newline behind a line of `len` bytes.
    fn put_newline(&mut self, index: usize, len: usize, at: &mut At<'_>) -> io::Result<()> {
        while let Some(dir) = self.dirs.get_mut(index).filter(|dir| dir.done.input == len as u64) {
            let Put { count, full } = dir.put(&mut self.context, b"\n", true);
            dir.done.input += count as u64;
            if full {
                self.rotate(index, at)?;
            }
        }
        Ok(())
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

/// Where lines go besides the files.
#[derive(Default)]
pub(super) struct Side {
    /// Lines for standard error that wait for the end of the batch.
    alerts: Vec<u8>,
    udp: Option<UdpSocket>,
    /// Sending failed, and a line in the log says so: said once until it works again.
    udp_failed: bool,
}

impl Side {
    /// Opens what `dirs` need.
    pub(super) fn open(&mut self, dirs: &[LogDir]) {
        if self.udp.is_some() || dirs.iter().all(|dir| dir.config.remote.is_none()) {
            return;
        }
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
            // No process reads standard error: the logs are more important.
            let _ = io::stderr().write_all(&self.alerts);
            self.alerts.clear();
        }
    }
}

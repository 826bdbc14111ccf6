//! PURE: what svlogd does to a line: cutting it from the input, replacing characters, matching
//! patterns, and the time stamp in front.
//!
//! It is not: deciding where a line goes (config.rs has the rules) nor when a file is full
//! (rotate.rs). Called by svlogd.rs. Source of the rules: svlogd(8) of runit 2.1.2, sections CONFIG
//! and PATTERN MATCHING.

use std::io::BufRead;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use applet::control::Tai64n;

/// A part of a line that is handed on as soon as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A whole line of at most LEN bytes, without its newline.
    Line(&'a [u8]),
    /// The first LEN bytes of a longer line: all that patterns and replacing look at.
    Head(&'a [u8]),
    /// More of that longer line, copied as it is; `ends` when its newline is the last byte.
    Tail { bytes: &'a [u8], ends: bool },
}

/// The first piece of `text`, of how many bytes it is made (its newline included), and whether what
/// follows belongs to the same line. `None` when the end of its line has to be waited for: at most
/// `len` bytes then.
///
/// `len` is the number of bytes of a line that patterns see (`-l`); `in_tail`: the head of a long
/// line was handed on.
pub(super) fn first_piece(text: &[u8], len: usize, in_tail: bool) -> Option<(Piece<'_>, usize, bool)> {
    if text.is_empty() {
        return None;
    }
    let newline = find_newline(text);
    if in_tail {
        let (bytes, _) = text.split_at(newline.map_or(text.len(), |at| at + 1));
        return Some((Piece::Tail { bytes, ends: newline.is_some() }, bytes.len(), newline.is_none()));
    }
    let end = newline.unwrap_or(text.len());
    if end > len {
        let (head, _) = text.split_at(len.min(text.len()));
        return Some((Piece::Head(head), head.len(), true));
    }
    let line = text.get(..newline?)?;
    Some((Piece::Line(line), line.len() + 1, false))
}

/// Position of the first newline. `skip_until` is std's way to libc's memchr, which is many times
/// faster than a loop over bytes when the crate is compiled for size.
fn find_newline(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    let skipped = rest.skip_until(b'\n').ok()?;
    let last = skipped.checked_sub(1)?;
    (bytes.get(last) == Some(&b'\n')).then_some(last)
}

/// Which bytes of a line are replaced, and by what (`-r`, `-R`).
pub(super) struct Replace {
    by: u8,
    also: Vec<u8>,
}

impl Replace {
    /// `None` when neither option was given: nothing is replaced then.
    pub(super) fn new(by: Option<u8>, also: Option<&[u8]>) -> Option<Replace> {
        if by.is_none() && also.is_none() {
            return None;
        }
        Some(Replace { by: by.unwrap_or(b'_'), also: also.unwrap_or_default().to_vec() })
    }

    /// Replaces what is not printable ASCII, and what `-R` names.
    pub(super) fn apply(&self, line: &mut [u8]) {
        for byte in line.iter_mut().filter(|b| !(32..=126).contains(*b) || self.also.contains(*b)) {
            *byte = self.by;
        }
    }
}

/// Whether a pattern matches the line.
///
/// `*` at the end: anything; else up to the first byte that is the pattern's next (no going back).
/// `+c`: one or more c. When the line ends inside such a run of c the pattern has matched, whatever
/// follows in it: runit does so, and filters rely on it.
pub(super) fn matches(pattern: &[u8], line: &[u8]) -> bool {
    let mut line = line;
    let mut pattern = pattern;
    while let Some((&token, after)) = pattern.split_first() {
        pattern = after;
        match token {
            b'*' => {
                let Some(next) = pattern.first() else { return true };
                let Some(skip) = line.iter().position(|b| b == next) else { return false };
                line = line.get(skip..).unwrap_or_default();
            }
            b'+' => {
                let Some((repeated, after)) = pattern.split_first() else { return line.is_empty() };
                if line.first() != Some(repeated) {
                    return false;
                }
                let Some(run) = line.iter().position(|b| b != repeated) else { return true };
                line = line.get(run..).unwrap_or_default();
                pattern = after;
            }
            literal => match line.split_first() {
                Some((byte, rest)) if *byte == literal => line = rest,
                Some(_) | None => return false,
            },
        }
    }
    line.is_empty()
}

/// The stamp in front of each line (`-t` given once, twice, three times).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StampKind {
    /// Nothing.
    None,
    /// `@` and 24 hexadecimal digits.
    Tai64n,
    /// `YYYY-MM-DD_HH:MM:SS.fffff`
    Underscore,
    /// `YYYY-MM-DDTHH:MM:SS.fffff`
    T,
    /// As [`StampKind::Underscore`], in local time.
    Local,
    /// As [`StampKind::T`], in local time, with the difference to UTC behind it: RFC 3339.
    LocalT,
}

impl StampKind {
    /// The same in local time (`-T`), where there is such a thing.
    pub(super) fn local(self) -> StampKind {
        match self {
            StampKind::T | StampKind::LocalT => StampKind::LocalT,
            StampKind::None | StampKind::Tai64n | StampKind::Underscore | StampKind::Local => StampKind::Local,
        }
    }

    pub(super) fn is_local(self) -> bool {
        matches!(self, StampKind::Local | StampKind::LocalT)
    }
}

/// The stamp of a time with the blank behind it; empty for [`StampKind::None`]. UTC, or `east`
/// seconds ahead of it for a local one.
pub(super) fn stamp(kind: StampKind, time: SystemTime, east: i64) -> String {
    let (separator, east) = match kind {
        StampKind::None => return String::new(),
        StampKind::Tai64n => return format!("@{} ", Tai64n::from_system_time(time).to_hex()),
        StampKind::Underscore => ('_', 0),
        StampKind::T => ('T', 0),
        StampKind::Local => ('_', east),
        StampKind::LocalT => ('T', east),
    };
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let zone = if kind == StampKind::LocalT {
        let minutes = east.unsigned_abs() / 60;
        format!("{}{:02}:{:02}", if east < 0 { '-' } else { '+' }, minutes / 60, minutes % 60)
    } else {
        String::new()
    };
    let since = Duration::new(since.as_secs().saturating_add_signed(east), since.subsec_nanos());
    let (days, second_of_day) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = applet::date::civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}{separator}{:02}:{:02}:{:02}.{:05}{zone} ",
        second_of_day / 3600,
        second_of_day / 60 % 60,
        second_of_day % 60,
        since.subsec_micros() / 10
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is handed on for these reads, as text: `L:` line, `H:` head, `T:` tail, `R:` what waits
    /// for its end.
    fn split(len: usize, reads: &[&str]) -> Vec<String> {
        let mut out = Vec::new();
        let (mut text, mut in_tail) = (Vec::new(), false);
        for read in reads {
            text.extend_from_slice(read.as_bytes());
            while let Some((piece, used, tail)) = first_piece(&text, len, in_tail) {
                let show = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
                out.push(match piece {
                    Piece::Line(b) => format!("L:{}", show(b)),
                    Piece::Head(b) => format!("H:{}", show(b)),
                    Piece::Tail { bytes, ends } => format!("T{}:{}", u8::from(ends), show(bytes).escape_debug()),
                });
                in_tail = tail;
                text.drain(..used);
            }
            assert!(text.len() <= len);
        }
        if !text.is_empty() {
            out.push(format!("R:{}", String::from_utf8(text).unwrap()));
        }
        out
    }

    #[test]
    fn lines_are_the_same_however_the_reads_fall() {
        let whole = "a\n\nbcd\nlonger than ten\nexactly 10\nlast";
        let want = ["L:a", "L:", "L:bcd", "H:longer tha", "T1:n ten\\n", "L:exactly 10", "R:last"];
        assert_eq!(split(10, &[whole]), want);
        for cut in 0..whole.len() {
            let (one, two) = whole.split_at(cut);
            let mut got = split(10, &[one, two]);
            // A tail may come in two parts: join them.
            while let Some(at) = got.iter().position(|p| p.starts_with("T0:")) {
                let first = got.remove(at);
                got[at] = got[at].replacen("T1:", &format!("T1:{}", &first[3..]), 1);
            }
            assert_eq!(got, want, "cut at {cut}");
        }
    }

    #[test]
    fn an_unterminated_line_waits_for_its_end() {
        assert_eq!(split(10, &["ab", "c"]), ["R:abc"]);
        assert_eq!(split(10, &["ab", "c\n"]), ["L:abc"]);
        assert_eq!(split(2, &["abc"]), ["H:ab", "T0:c"]);
        assert_eq!(split(10, &["exactly 10"]), ["R:exactly 10"]);
    }

    #[test]
    fn patterns_as_debian_svlogd_matches_them() {
        // (pattern, lines that match, lines that do not): seen with runit 2.1.2-54.
        let table: &[(&str, &[&str], &[&str])] = &[
            ("", &[""], &["a"]),
            ("*", &["", "a"], &[]),
            ("a", &["a"], &["", "ab", "b"]),
            ("ab*c", &["abc", "abxc", "ab*c"], &["abcc", "abxcxc"]),
            ("a+b", &["ab", "abb"], &["abc", "b"]),
            // The line ends inside the run of b: matched.
            ("a+bb", &["ab", "abb", "abbb"], &["a"]),
            ("a*+bc", &[], &["axbc", "axxbbc", "abc", "ac"]),
            ("a**b", &["a*b", "ax*b", "ax**b"], &["ab", "axb"]),
            ("a++b", &["a+b", "a++b", "a+"], &["ab"]),
            ("a+*", &["a*", "a**"], &["ab"]),
            ("a+", &["a"], &["a+", "a++"]),
            ("*: *: pid *", &["x: y: pid 4", "x: y: pid "], &["2005: tcpsvd: info: pid 1"]),
        ];
        for (pattern, yes, no) in table {
            for line in *yes {
                assert!(matches(pattern.as_bytes(), line.as_bytes()), "{pattern:?} {line:?}");
            }
            for line in *no {
                assert!(!matches(pattern.as_bytes(), line.as_bytes()), "{pattern:?} {line:?}");
            }
        }
    }

    #[test]
    fn replacing_covers_control_bytes_high_bytes_and_the_named_ones() {
        let replaced = |by, also: Option<&str>, line: &str| {
            let mut line = line.as_bytes().to_vec();
            Replace::new(by, also.map(str::as_bytes)).unwrap().apply(&mut line);
            String::from_utf8(line).unwrap()
        };
        assert_eq!(replaced(Some(b'.'), None, "a\u{1}b\tc\u{e4} ~\u{7f}"), "a.b.c.. ~.");
        assert_eq!(replaced(None, Some("q"), "a\u{1}q"), "a__");
        assert_eq!(replaced(Some(b'X'), Some("qw"), "qaw\t"), "XaXX");
        assert!(Replace::new(None, None).is_none());
    }

    #[test]
    fn stamps_of_known_moments() {
        let at = |secs, nanos| UNIX_EPOCH + Duration::new(secs, nanos);
        let table = [
            (0, 0, "1970-01-01_00:00:00.00000 "),
            (951_782_400, 0, "2000-02-29_00:00:00.00000 "),
            (951_868_799, 999_999_999, "2000-02-29_23:59:59.99999 "),
            (1_794_938_561, 394_570_000, "2026-11-17_18:02:41.39457 "),
            (4_107_542_400, 10_000, "2100-03-01_00:00:00.00001 "),
        ];
        for (secs, nanos, want) in table {
            assert_eq!(stamp(StampKind::Underscore, at(secs, nanos), 3600), want);
            assert_eq!(stamp(StampKind::T, at(secs, nanos), 3600), want.replace('_', "T"));
        }
        assert_eq!(stamp(StampKind::Tai64n, at(0, 1), 0), "@400000000000000a00000001 ");
        assert_eq!(stamp(StampKind::None, at(0, 1), 0), "");
        let local = |east| [StampKind::Local, StampKind::LocalT].map(|kind| stamp(kind, at(86_400, 0), east));
        assert_eq!(local(5400), ["1970-01-02_01:30:00.00000 ", "1970-01-02T01:30:00.00000+01:30 "]);
        assert_eq!(local(-12_600), ["1970-01-01_20:30:00.00000 ", "1970-01-01T20:30:00.00000-03:30 "]);
    }
}

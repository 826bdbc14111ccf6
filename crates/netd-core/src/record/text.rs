//! The text of `*.ipconf` files: the seed's shell-array text, read as DATA.
//!
//! A record starts with `let cfg=cfg+1`; each `name[$cfg]=value` after it adds a field. Values are
//! bare, `'..'` or `".."`. Nothing is expanded and nothing is run: any other statement, `$`,
//! backquote or backslash rejects the whole file with its line. What is written here stays valid
//! for the seed's own bash scripts.

use std::fmt;

use crate::net::IfName;

/// A larger file is refused, in bytes.
pub const MAX_FILE: usize = 64 * 1024;
/// More records in one file are refused.
pub const MAX_RECORDS: usize = 256;

/// One record: fields in the order they were written. A name given twice: the last one counts, as
/// in shell. Two records are equal when their fields are, wherever they stand in a file.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Line of its `let cfg=cfg+1`, from 1; 0 for a record that was not read from a file.
    pub line: usize,
    fields: Vec<Field>,
}

/// One field of a record.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its key.
    pub name: String,
    /// Its value, without the quotes.
    pub value: String,
    /// Its line, as the record's.
    pub line: usize,
}

impl PartialEq for Record {
    fn eq(&self, other: &Record) -> bool {
        self.fields().eq(other.fields())
    }
}

impl Eq for Record {}

impl Record {
    /// An empty record.
    pub fn new() -> Record {
        Record::default()
    }

    /// The value of a field; `None` when it is absent. An empty value is `Some("")`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|f| f.name == name).map(|f| f.value.as_str())
    }

    /// Sets a field.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.put(name, value.into(), 0);
    }

    fn put(&mut self, name: &str, value: String, line: usize) {
        let found = self.fields.iter_mut().find(|f| f.name == name);
        match found {
            Some(field) => (field.value, field.line) = (value, line),
            None => self.fields.push(Field { name: name.to_owned(), value, line }),
        }
    }

    /// Sets a field, for building a record in one expression.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Record {
        self.set(name, value);
        self
    }

    /// The names and values of all fields in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|f| (f.name.as_str(), f.value.as_str()))
    }

    /// All fields in order.
    pub fn lines(&self) -> &[Field] {
        &self.fields
    }
}

/// Where and why a text is not an ipconf file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub kind: ParseErrorKind,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseErrorKind {
    /// Not UTF-8, or a control byte in it.
    BadByte,
    /// `$`, a backquote or a backslash: shell would expand it, we never do.
    Expansion,
    /// A quote without its end on the same line.
    Unterminated,
    /// Neither `let cfg=cfg+1` nor `name[$cfg]=value`.
    Statement,
    /// A field before the first `let cfg=cfg+1`.
    NoRecord,
    /// More than [`MAX_RECORDS`].
    TooManyRecords,
    /// More than [`MAX_FILE`].
    TooLarge,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            ParseErrorKind::BadByte => "control or non-UTF-8 byte",
            ParseErrorKind::Expansion => "expansion or escape: values are data, never run",
            ParseErrorKind::Unterminated => "quote without an end",
            ParseErrorKind::Statement => "neither `let cfg=cfg+1` nor `name[$cfg]=value`",
            ParseErrorKind::NoRecord => "field before the first `let cfg=cfg+1`",
            ParseErrorKind::TooManyRecords => "more than 256 records",
            ParseErrorKind::TooLarge => "larger than 64 KiB",
        };
        write!(f, "{}: {what}", self.line)
    }
}

/// Reads the text of one file.
pub fn parse(bytes: &[u8]) -> Result<Vec<Record>, ParseError> {
    if bytes.len() > MAX_FILE {
        return Err(ParseError { line: 0, kind: ParseErrorKind::TooLarge });
    }
    let mut records: Vec<Record> = Vec::new();
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let number = index + 1;
        parse_line(line, number, &mut records).map_err(|kind| ParseError { line: number, kind })?;
    }
    Ok(records)
}

fn parse_line(line: &[u8], number: usize, records: &mut Vec<Record>) -> Result<(), ParseErrorKind> {
    // Edited on another system.
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| ParseErrorKind::BadByte)?;
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return Err(ParseErrorKind::BadByte);
    }
    let mut rest = line.trim_start_matches([' ', '\t', ';']);
    while !rest.is_empty() && !rest.starts_with('#') {
        if let Some(after) = strip_let(rest) {
            if records.len() == MAX_RECORDS {
                return Err(ParseErrorKind::TooManyRecords);
            }
            records.push(Record { line: number, ..Record::new() });
            rest = after;
        } else {
            let (name, after) = field_name(rest).ok_or(ParseErrorKind::Statement)?;
            let (value, after) = word(after)?;
            records.last_mut().ok_or(ParseErrorKind::NoRecord)?.put(name, value, number);
            rest = after;
        }
        rest = rest.trim_start_matches([' ', '\t', ';']);
    }
    Ok(())
}

/// `let cfg=cfg+1` followed by a separator: what stands behind it.
fn strip_let(text: &str) -> Option<&str> {
    let after = text.strip_prefix("let")?;
    let after = after.strip_prefix([' ', '\t'])?.trim_start_matches([' ', '\t']).strip_prefix("cfg=cfg+1")?;
    (after.is_empty() || after.starts_with([' ', '\t', ';'])).then_some(after)
}

/// `name[$cfg]=`: the name and what stands behind it.
fn field_name(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.split_once("[$cfg]=")?;
    is_field_name(name).then_some((name, after))
}

/// Whether `name` can be a field: `[a-z_][a-z0-9_]*`, 32 bytes at the most.
pub fn is_field_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// One shell word made of bare, '..' and ".." pieces; nothing is expanded.
fn word(text: &str) -> Result<(String, &str), ParseErrorKind> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ' ' | '\t' | ';' => return Ok((value, text.get(at..).unwrap_or_default())),
            '\'' | '"' => loop {
                match chars.next().ok_or(ParseErrorKind::Unterminated)?.1 {
                    end if end == c => break,
                    '$' | '`' | '\\' if c == '"' => return Err(ParseErrorKind::Expansion),
                    inner => value.push(inner),
                }
            },
            '$' | '`' | '\\' => return Err(ParseErrorKind::Expansion),
            '|' | '&' | '<' | '>' | '(' | ')' => return Err(ParseErrorKind::Statement),
            bare => value.push(bare),
        }
    }
    Ok((value, ""))
}

/// A value that could not be written so that every reader gets it back unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadValue {
    /// The field's name.
    pub field: String,
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: control byte, quote or bad field name", self.field)
    }
}

impl std::error::Error for BadValue {}

/// The text of a file, valid for [`parse`] and for bash alike. Values are put in single quotes: a
/// value with a single quote or a control character is refused, because the seed's readers could be
/// made to run it.
pub fn render(records: &[Record]) -> Result<String, BadValue> {
    let mut out = String::new();
    for record in records {
        out.push_str("let cfg=cfg+1\n");
        for (name, value) in record.fields() {
            if !is_field_name(name) || value.chars().any(|c| c == '\'' || c.is_control()) {
                return Err(BadValue { field: name.to_owned() });
            }
            out.push_str(&format!("{name}[$cfg]='{value}'\n"));
        }
    }
    Ok(out)
}

/// Whether `name` can be a record file's name: what may stand in the name of an interface, and the
/// colon of an alias; it does not start with a dot and has 200 bytes at the most.
pub fn is_record_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name.bytes().all(|b| IfName::takes(b) || b == b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> (usize, ParseErrorKind) {
        let e = parse(text.as_bytes()).unwrap_err();
        (e.line, e.kind)
    }

    #[test]
    fn reads_the_seeds_forms() {
        let text = "#!/bin/bash\n# static\nlet cfg=cfg+1\nif[$cfg]=eth0 # the wire\n  ip[$cfg]='10.0.0.1'\n\
                    ipmask[$cfg]=\"10.0.0.1/24\"\ndns[$cfg]='1.1.1.1 8.8.8.8'; gw[$cfg]=\nlet cfg=cfg+1;if[$cfg]=lo\n";
        let records = parse(text.as_bytes()).unwrap();
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].line, 3);
        assert_eq!(records[0].get("if"), Some("eth0"));
        assert_eq!(records[0].get("dns"), Some("1.1.1.1 8.8.8.8"));
        assert_eq!(records[0].get("gw"), Some(""));
        assert_eq!(records[0].get("net"), None);
        assert_eq!(records[1].get("if"), Some("lo"));
    }

    #[test]
    fn lines_may_end_as_on_other_systems() {
        let records = parse(b"let cfg=cfg+1\r\nif[$cfg]=eth0\r\ngw[$cfg]=\r\n\r\n").unwrap();
        assert_eq!((records[0].get("if"), records[0].get("gw")), (Some("eth0"), Some("")));
        assert_eq!(parse(b"let cfg=cfg+1\nif[$cfg]=et\rh0\n").unwrap_err().kind, ParseErrorKind::BadByte);
    }

    #[test]
    fn what_shell_would_run_or_expand_rejects_the_file_with_its_line() {
        let table = [
            ("let cfg=cfg+1\nif[$cfg]=$(reboot)\n", (2, ParseErrorKind::Expansion)),
            ("let cfg=cfg+1\nif[$cfg]=`reboot`\n", (2, ParseErrorKind::Expansion)),
            ("let cfg=cfg+1\nif[$cfg]=\"a$b\"\n", (2, ParseErrorKind::Expansion)),
            ("let cfg=cfg+1\nif[$cfg]=a\\ b\n", (2, ParseErrorKind::Expansion)),
            ("let cfg=cfg+1\nif[$cfg]='a\n", (2, ParseErrorKind::Unterminated)),
            ("reboot\n", (1, ParseErrorKind::Statement)),
            ("let cfg=cfg+1\nif[$cfg]=a|sh\n", (2, ParseErrorKind::Statement)),
            ("let cfg=cfg+1\nif[$cfg]=a; reboot\n", (2, ParseErrorKind::Statement)),
            ("let cfg=cfg+1\nPATH[$cfg]=a\n", (2, ParseErrorKind::Statement)),
            ("if[$cfg]=a\n", (1, ParseErrorKind::NoRecord)),
            ("let cfg=cfg+1\nif[$cfg]=a\u{1b}b\n", (2, ParseErrorKind::BadByte)),
        ];
        for (text, want) in table {
            assert_eq!(kind(text), want, "{text:?}");
        }
        assert_eq!(parse(b"\xff").unwrap_err().kind, ParseErrorKind::BadByte);
        assert_eq!(kind(&"let cfg=cfg+1\n".repeat(257)), (257, ParseErrorKind::TooManyRecords));
        assert_eq!(kind(&"#".repeat(MAX_FILE + 1)).1, ParseErrorKind::TooLarge);
    }

    #[test]
    fn what_is_rendered_reads_back_the_same() {
        let record =
            Record::new().with("if", "eth0").with("dns", "1.1.1.1 2.2.2.2").with("domain", "$(x) `y` \"z\" \\");
        let text = render(std::slice::from_ref(&record)).unwrap();
        let back = parse(text.as_bytes()).unwrap();
        assert!(back[0].fields().eq(record.fields()));
    }

    #[test]
    fn a_value_that_could_leave_its_quotes_is_refused() {
        for value in ["a'b", "a\nb", "a\u{7f}b"] {
            assert!(render(&[Record::new().with("domain", value)]).is_err(), "{value:?}");
        }
        assert!(render(&[Record::new().with("Bad Name", "x")]).is_err());
    }
}

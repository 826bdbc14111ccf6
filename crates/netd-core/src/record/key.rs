//! A row of a table of keys: how a key's value is read and written, and what a wrong one costs.
//!
//! network.rs, remembered.rs and status.rs have a table each. A row is all that a key needs beside
//! the field of its struct.

use std::fmt::Display;

use super::text;
use super::{Author, Fault};

/// Words of a list that are read. resolv.conf takes three servers, and no server of the world says
/// more routes.
pub(super) const MAX_WORDS: usize = 64;

/// What a wrong value costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The record: it says what its own writer wants, and half of that is something else.
    Record,
    /// The record of an administrator. A program repeats the word of a server, and such a word is
    /// left out.
    Said,
    /// The word alone, which is left out.
    Word,
    /// The record of an administrator. In the record of a program any value is left out: only an
    /// administrator says so.
    Static,
    /// Nothing: fw does not use the key. The value is kept as that of an unknown key is.
    Unread,
}

/// One key of a record that is read as an `R`.
pub(super) struct Key<R: 'static> {
    /// Its name.
    pub(super) name: &'static str,
    /// What a wrong value costs.
    pub(super) wrong: Wrong,
    /// Takes a value that is not empty; returns the words of it that are wrong.
    pub(super) read: fn(&mut R, &str) -> Vec<String>,
    /// The value; empty when there is none.
    pub(super) write: fn(&R) -> String,
}

/// Unknown keys and their values.
pub(super) type Other = Vec<(String, String)>;

/// Reads all fields into `into`. Returns the words that were left out; the fields that no key
/// understands go to `other`.
pub(super) fn read<R>(
    keys: &[Key<R>],
    record: &text::Record,
    author: Author,
    into: &mut R,
    other: &mut Other,
) -> Result<Vec<Fault>, Fault> {
    let mut left_out = Vec::new();
    for field in record.lines() {
        let Some(key) = keys.iter().find(|k| k.name == field.name) else {
            other.push((field.name.clone(), field.value.clone()));
            continue;
        };
        let value = field.value.trim();
        let bad = match (value, key.wrong, author) {
            ("", _, _) => Vec::new(),
            (_, Wrong::Static, Author::Program) => vec![format!("{value} (only a static record says so)")],
            _ => (key.read)(into, value),
        };
        let mut faults = bad.into_iter().map(|value| Fault { line: field.line, key: key.name, value });
        match (key.wrong, author) {
            (Wrong::Record, _) | (Wrong::Said | Wrong::Static, Author::Administrator) => {
                if let Some(fault) = faults.next() {
                    return Err(fault);
                }
            }
            (Wrong::Said | Wrong::Static, Author::Program) | (Wrong::Word, _) => left_out.extend(faults),
            (Wrong::Unread, _) if faults.next().is_some() => other.push((field.name.clone(), value.to_owned())),
            (Wrong::Unread, _) => {}
        }
    }
    Ok(left_out)
}

/// Writes all fields that `keys` and `other` have.
pub(super) fn write<R>(keys: &[Key<R>], from: &R, other: &Other, record: &mut text::Record) {
    for key in keys {
        let value = (key.write)(from);
        if !value.is_empty() {
            record.set(key.name, value);
        }
    }
    for (name, value) in other {
        record.set(name, value);
    }
}

/// All unknown keys but the one that the caller reads by itself.
pub(super) fn beside_interface(mut other: Other) -> Other {
    other.retain(|(name, _)| name != super::IF);
    other
}

/// Reads a value that is one word.
pub(super) fn one<T>(slot: &mut Option<T>, text: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<String> {
    *slot = parse(text);
    if slot.is_some() { Vec::new() } else { vec![text.to_owned()] }
}

/// Reads a list: the good words of it, at most [`MAX_WORDS`].
pub(super) fn list<T>(slot: &mut Vec<T>, text: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<String> {
    let mut bad = Vec::new();
    for word in text.split_ascii_whitespace().take(MAX_WORDS) {
        match parse(word) {
            Some(value) => slot.push(value),
            None => bad.push(word.to_owned()),
        }
    }
    bad.extend(too_many(text.split_ascii_whitespace().count()));
    bad
}

/// What is said of a list with more than [`MAX_WORDS`] elements.
pub(super) fn too_many(count: usize) -> Option<String> {
    (count > MAX_WORDS).then(|| format!("{} of {count} are left out, more than {MAX_WORDS}", count - MAX_WORDS))
}

/// Reads a list of which each word has to be good.
pub(super) fn whole_list<T>(slot: &mut Vec<T>, text: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<String> {
    let bad = list(slot, text, parse);
    if !bad.is_empty() {
        slot.clear();
    }
    bad
}

/// A value that may be absent.
pub(super) fn show<T: Display>(value: &Option<T>) -> String {
    value.as_ref().map(T::to_string).unwrap_or_default()
}

/// The words of a list.
pub(super) fn join<T: Display>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(" ")
}

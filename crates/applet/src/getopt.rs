//! One getopt for all applets: short options in clusters, glued and optional arguments, long
//! options with unambiguous prefixes. Stops at the first operand, as POSIX asks. It knows syntax
//! only: what an option means, and the exit code of a wrong one, is the applet's.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::name::Name;
use crate::suggest::nearest;

/// Whether an option takes an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// `-f`
    No,
    /// `-i eth0`, `-ieth0`, `--interface eth0`, `--interface=eth0`
    Required,
    /// `-a`, `-a500`, `--arping=500`: the argument must be glued.
    Optional,
}

/// One option, as [`opt`] makes it. An option without a short form uses a key that cannot be typed
/// (`'\u{1}'` ...); one without a long form has an empty one.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Short letter, and the key that [`Getopt`] returns.
    pub key: char,
    long: Name,
    /// Whether it takes an argument.
    pub arg: Arg,
}

/// A row of a table.
pub const fn opt(key: char, long: &str, arg: Arg) -> Opt {
    Opt { key, long: Name::new(long), arg }
}

impl Opt {
    /// Long name without dashes, or empty.
    pub fn long(&self) -> &str {
        self.long.as_str()
    }
}

/// A wrong use, worded as getopt(3) words it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptError {
    /// No such option; with its dashes.
    Unknown(String),
    /// No such long option, and one that is close to it; both with their dashes.
    Misspelt(String, String),
    /// The argument is missing.
    NeedsArgument(String),
    /// A long option that takes none was given one.
    UnwantedArgument(String),
    /// A prefix of several long options.
    Ambiguous(String),
}

impl fmt::Display for OptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptError::Unknown(o) => write!(f, "invalid option -- '{}'", o.escape_debug()),
            OptError::Misspelt(o, near) => {
                write!(f, "invalid option -- '{}' (did you mean '{near}'?)", o.escape_debug())
            }
            OptError::NeedsArgument(o) => write!(f, "option requires an argument -- '{}'", o.escape_debug()),
            OptError::UnwantedArgument(o) => write!(f, "option '{}' doesn't allow an argument", o.escape_debug()),
            OptError::Ambiguous(o) => write!(f, "option '{}' is ambiguous", o.escape_debug()),
        }
    }
}

impl std::error::Error for OptError {}

/// One option as it was given: its key and its argument.
pub type Given = (char, Option<OsString>);

/// Walks over arguments; afterwards [`Getopt::operands`] has what is left.
pub struct Getopt {
    table: &'static [Opt],
    args: std::vec::IntoIter<OsString>,
    /// What is left of a cluster such as `-fnq`.
    cluster: Vec<u8>,
    operands: Vec<OsString>,
}

impl Getopt {
    /// `args` without the applet's name.
    pub fn new(table: &'static [Opt], args: impl IntoIterator<Item = OsString>) -> Getopt {
        let args: Vec<OsString> = args.into_iter().collect();
        Getopt { table, args: args.into_iter(), cluster: Vec::new(), operands: Vec::new() }
    }

    /// What follows the options. Call it when the iteration has ended.
    pub fn operands(self) -> Vec<OsString> {
        self.operands.into_iter().chain(self.args).collect()
    }

    fn short(&mut self) -> Result<Given, OptError> {
        let letter = char::from(self.cluster.remove(0));
        let opt = self.table.iter().find(|o| o.key == letter && !letter.is_control());
        let opt = opt.ok_or_else(|| OptError::Unknown(letter.to_string()))?;
        let glued = |cluster: &mut Vec<u8>| Some(OsString::from_vec(std::mem::take(cluster)));
        let value = match opt.arg {
            Arg::No => None,
            Arg::Optional if self.cluster.is_empty() => None,
            Arg::Optional => glued(&mut self.cluster),
            Arg::Required if !self.cluster.is_empty() => glued(&mut self.cluster),
            Arg::Required => Some(self.args.next().ok_or_else(|| OptError::NeedsArgument(letter.to_string()))?),
        };
        Ok((letter, value))
    }

    fn long(&mut self, text: &[u8]) -> Result<Given, OptError> {
        let mut parts = text.splitn(2, |b| *b == b'=');
        let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let glued = parts.next().map(|v| OsStr::from_bytes(v).to_owned());
        let shown = format!("--{name}");
        let mut found = self.table.iter().filter(|o| !o.long().is_empty() && o.long().starts_with(&name));
        let opt = match self.table.iter().find(|o| !name.is_empty() && o.long() == name) {
            Some(exact) => exact,
            None => match (found.next(), found.next()) {
                (Some(opt), None) => opt,
                (Some(_), Some(_)) => return Err(OptError::Ambiguous(shown)),
                (None, _) => return Err(unknown(self.table, &name)),
            },
        };
        let value = match (opt.arg, glued) {
            (Arg::No, Some(_)) => return Err(OptError::UnwantedArgument(shown)),
            (Arg::Required, None) => Some(self.args.next().ok_or(OptError::NeedsArgument(shown))?),
            (_, glued) => glued,
        };
        Ok((opt.key, value))
    }
}

fn unknown(table: &[Opt], name: &str) -> OptError {
    let names = table.iter().map(|o| o.long()).filter(|long| !long.is_empty());
    match nearest(name, names) {
        Some(near) => OptError::Misspelt(format!("--{name}"), format!("--{near}")),
        None => OptError::Unknown(format!("--{name}")),
    }
}

impl Iterator for Getopt {
    type Item = Result<Given, OptError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.cluster.is_empty() {
            return Some(self.short());
        }
        let arg = self.args.next()?;
        match arg.as_bytes() {
            b"--" => {
                self.operands.extend(self.args.by_ref());
                None
            }
            [b'-', b'-', name @ ..] => Some(self.long(name)),
            [b'-', cluster @ ..] if !cluster.is_empty() => {
                self.cluster = cluster.to_vec();
                Some(self.short())
            }
            _ => {
                self.operands.push(arg);
                self.operands.extend(self.args.by_ref());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Opt] = &[
        opt('f', "foreground", Arg::No),
        opt('n', "now", Arg::No),
        opt('i', "interface", Arg::Required),
        opt('a', "arping", Arg::Optional),
        opt('\u{1}', "ipconf", Arg::Required),
    ];

    #[expect(clippy::type_complexity, reason = "one place, and the tests read it")]
    fn walk(args: &[&str]) -> (Vec<Result<(char, Option<String>), OptError>>, Vec<String>) {
        let mut getopt = Getopt::new(TABLE, args.iter().map(OsString::from));
        let text = |v: OsString| v.into_string().unwrap();
        let given = getopt.by_ref().map(|r| r.map(|(k, v)| (k, v.map(text)))).collect();
        (given, getopt.operands().into_iter().map(text).collect())
    }

    #[test]
    fn clusters_glued_and_separate_arguments() {
        let (given, rest) = walk(&["-fnieth0", "-i", "eth1", "-a500", "-a", "x", "-f"]);
        let some = |k, v: &str| Ok((k, Some(v.to_owned())));
        assert_eq!(
            given,
            [Ok(('f', None)), Ok(('n', None)), some('i', "eth0"), some('i', "eth1"), some('a', "500"), Ok(('a', None))]
        );
        assert_eq!(rest, ["x", "-f"]);
    }

    #[test]
    fn long_options_by_prefix_and_with_equals() {
        let (given, rest) = walk(&["--fore", "--interface=eth0", "--ipconf", "/d", "--", "-f"]);
        assert_eq!(given, [Ok(('f', None)), Ok(('i', Some("eth0".into()))), Ok(('\u{1}', Some("/d".into())))]);
        assert_eq!(rest, ["-f"]);
    }

    #[test]
    fn wrong_use_is_named() {
        assert_eq!(walk(&["-z"]).0, [Err(OptError::Unknown("z".into()))]);
        assert_eq!(walk(&["-i"]).0, [Err(OptError::NeedsArgument("i".into()))]);
        assert_eq!(walk(&["--i"]).0, [Err(OptError::Ambiguous("--i".into()))]);
        assert_eq!(walk(&["--now=1"]).0, [Err(OptError::UnwantedArgument("--now".into()))]);
        assert_eq!(walk(&["--zzz"]).0, [Err(OptError::Unknown("--zzz".into()))]);
        assert_eq!(
            walk(&["--intreface", "x"]).0,
            [Err(OptError::Misspelt("--intreface".into(), "--interface".into()))]
        );
        assert_eq!(walk(&["-\u{1}"]).0, [Err(OptError::Unknown("\u{1}".into()))]);
    }

    #[test]
    fn a_lone_dash_is_an_operand() {
        assert_eq!(walk(&["-f", "-", "-n"]).1, ["-", "-n"]);
    }
}

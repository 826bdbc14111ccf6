//! Which rules of the administrator are loaded: those of firewall.nft, its last good content, or
//! none.
//!
//! Shell. nft judges each content once, before any table is loaded, and the verdict is remembered
//! in `.own` of the dynamic directory: a run with an unchanged file starts no process. Called by
//! firewall.rs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use netd::disk;
use netd_core::left::Fnv;

use super::admin::Own;
use super::load;
use super::phases::Failure;
use crate::input::own::OwnRules;

/// What nft has said of a text, by the text's number; no words: it is good.
type Verdict = (u64, Option<String>);

/// The choice of one run.
#[derive(Debug, Default)]
pub struct Choice {
    /// The file, for messages.
    path: PathBuf,
    candidates: Vec<Own>,
    /// The place of the one that is loaded.
    loaded: Option<usize>,
    errors: Vec<String>,
    /// Where the verdicts are, those that were there, and those of this run.
    memory: PathBuf,
    old: Vec<Verdict>,
    verdicts: Vec<Verdict>,
}

impl Choice {
    /// Chooses among the candidates. `defines` stands before each of them.
    pub fn make(dynamic: &Path, rules: &OwnRules, defines: &str) -> Choice {
        let memory = dynamic.join(".own");
        let old = parse(&fs::read_to_string(&memory).unwrap_or_default());
        let (path, candidates) = (rules.path.clone(), rules.candidates.clone());
        let mut choice = Choice { path, candidates, memory, old, ..Choice::default() };
        let mut refused = None;
        for (place, own) in rules.candidates.iter().enumerate() {
            match choice.judge(own, defines) {
                None => {
                    choice.loaded = Some(place);
                    break;
                }
                Some(words) => refused = refused.or(Some(words)),
            }
        }
        if let Some(words) = refused {
            let fate = if choice.loaded.is_some() { "its last good content is kept" } else { "left out" };
            choice.errors.push(format!("{}:{words}: {fate}", choice.path.display()));
        }
        choice
    }

    /// The rules that are loaded.
    pub fn rules(&self) -> Option<&Own> {
        self.loaded.and_then(|place| self.candidates.get(place))
    }

    /// Their place among the candidates.
    pub fn loaded(&self) -> Option<usize> {
        self.loaded
    }

    /// What is wrong with the others.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// The whole table was refused, though nft had nothing against these rules alone: what is said.
    /// `None`: there are none that could be at fault.
    pub fn give_up(&mut self, words: &str) -> Option<String> {
        self.loaded.take()?;
        Some(format!("{}: refused together with the rules of fw: {words}: left out", self.path.display()))
    }

    /// Writes the verdicts, when they are not what they were.
    pub fn remember(&self) -> io::Result<()> {
        if self.verdicts == self.old {
            return Ok(());
        }
        disk::replace(&self.memory, render(&self.verdicts).as_bytes(), None)
    }

    /// nft's words against these rules.
    fn judge(&mut self, own: &Own, defines: &str) -> Option<String> {
        let text = own.probe(defines);
        let number = number(&text);
        let known = self.old.iter().find(|(n, _)| *n == number).map(|(_, words)| words.clone());
        let words = match known {
            Some(words) => words,
            None => match load::check(&text) {
                Ok(()) => None,
                // It cannot judge, and cannot load anything either.
                Err(Failure::Unable(_)) => return None,
                Err(Failure::Refused(words)) => {
                    Some(own.complaint(&words, &text).unwrap_or_else(|| format!(" {words}")))
                }
            },
        };
        self.verdicts.push((number, words.clone()));
        words
    }
}

/// The number of a text.
fn number(text: &str) -> u64 {
    let mut hash = Fnv::default();
    hash.add(text.as_bytes());
    hash.0
}

/// Lines `NUMBER` or `NUMBER WORDS`. A line that makes no sense is left out: nft judges anew.
fn parse(text: &str) -> Vec<Verdict> {
    let line = |line: &str| {
        let (number, words) = line.split_once(' ').map_or((line, None), |(n, words)| (n, Some(words.to_owned())));
        Some((u64::from_str_radix(number, 16).ok()?, words))
    };
    text.lines().filter_map(line).collect()
}

fn render(verdicts: &[Verdict]) -> String {
    let line = |(number, words): &Verdict| match words {
        Some(words) => format!("{number:016x} {}\n", words.replace(char::is_control, "?")),
        None => format!("{number:016x}\n"),
    };
    verdicts.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_as_they_were_written() {
        let verdicts =
            vec![(7, None), (u64::MAX, Some("3:1-2: syntax error".to_owned())), (8, Some(" nft: x".to_owned()))];
        assert_eq!(parse(&render(&verdicts)), verdicts);
        assert_eq!(parse("nonsense\n\n12 \n"), [(0x12, Some(String::new()))]);
    }
}

//! Tests only: which options a page and a usage text name, so that a test can hold them against
//! each other.

use crate::getopt::Opt;

/// The letters of all `.It Fl x` lines below `.Sh SECTION`.
pub fn options(page: &str, section: &str) -> Vec<char> {
    let heading = format!(".Sh {section}");
    let body = page.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with(".Sh "));
    sorted(body.filter_map(|line| line.strip_prefix(".It Fl ")?.chars().next()))
}

/// The letters behind dashes in a usage text: `[-tv]`, `[-u user]`, `[-l|-L lock]`.
pub fn usage(text: &str) -> Vec<char> {
    let words = text.split(|c: char| c.is_whitespace() || "[]|".contains(c));
    sorted(words.filter_map(|word| word.strip_prefix('-')).flat_map(str::chars))
}

/// Each letter once, in order.
pub fn sorted(letters: impl Iterator<Item = char>) -> Vec<char> {
    let mut letters: Vec<char> = letters.collect();
    letters.sort_unstable();
    letters.dedup();
    letters
}

/// The options that a help text lists: the words with a dash that begin its indented lines.
pub fn listed(help: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in help.lines().filter(|line| line.starts_with(' ')) {
        for word in line.split_ascii_whitespace() {
            let name = word.trim_end_matches(',').split(['[', '=']).next().unwrap_or_default();
            match name.strip_prefix('-') {
                Some(rest) if !rest.is_empty() => out.push(name.to_owned()),
                _ => break,
            }
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// The options of a table, with their dashes.
pub fn names(table: &[Opt]) -> Vec<String> {
    let short = table.iter().filter(|o| !o.key.is_control()).map(|o| format!("-{}", o.key));
    let long = table.iter().filter(|o| !o.long().is_empty()).map(|o| format!("--{}", o.long()));
    let mut out: Vec<String> = short.chain(long).collect();
    out.sort_unstable();
    out
}

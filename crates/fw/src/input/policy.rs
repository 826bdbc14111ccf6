//! fw.conf: the administrator's policy, KEY="VALUE" lines as at the head of the seed's script.
//!
//! Pure. The file is data: nothing is expanded or run. A wrong line is reported with its number,
//! and the others still count here; the caller, files.rs, prefers the last good content. This file
//! has the grammar and the general words; the files beside it have the others, one family each.
//!
//! HOW TO ADD A WORD: give the struct of its family a field, and the family's `WORDS` a row, and
//! name it in `man/fw.conf.5` (a test holds the page against the table) and in
//! `services/fw/fw.conf`.

use applet::suggest::nearest;
use netd_core::net::IfName;
use netd_core::record::text::MAX_FILE;

pub mod doors;
pub mod forwards;
pub mod names;
pub mod uplinks;
pub mod zones;

use doors::Doors;
use forwards::Forwards;
use names::Names;
use uplinks::Uplinks;
use zones::Zones;

/// What fw.conf says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The file, for messages.
    pub file: String,
    /// Whether this machine routes between its interfaces.
    pub forward: bool,
    /// Whether there is an nft table at all.
    pub firewall: bool,
    /// Remove foreign addresses and routes.
    pub reset: bool,
    /// What is inside and what is outside.
    pub zones: Zones,
    /// What is open to the outside, and who leaves by which address.
    pub doors: Doors,
    /// Which hosts behind this machine the outside may reach.
    pub forwards: Forwards,
    /// Which uplink comes first.
    pub uplinks: Uplinks,
    /// Whom this machine asks for names.
    pub names: Names,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            file: "fw.conf".to_owned(),
            forward: true,
            firewall: true,
            reset: false,
            zones: Zones::default(),
            doors: Doors::default(),
            forwards: Forwards::default(),
            uplinks: Uplinks::default(),
            names: Names::default(),
        }
    }
}

/// What a line gives to the reader of its word.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Between the quotes.
    pub value: &'a str,
    /// What stands in the key where the word has `NAME`; empty where it has none.
    pub name: &'a str,
    /// From 1.
    pub line: usize,
}

/// One word of fw.conf.
pub struct Word {
    /// The key. `NAME` in it stands for a name of the administrator's.
    pub name: &'static str,
    /// In one line.
    pub means: &'static str,
    /// Sets the field; the error says what is wrong with the value.
    pub read: fn(&mut Policy, Given) -> Result<(), String>,
}

/// The words that are in no family.
const GENERAL: &[Word] = &[
    Word {
        name: "forward",
        means: "whether this machine routes between its interfaces",
        read: |p, given| yes_or_no(given.value).map(|yes| p.forward = yes),
    },
    Word {
        name: "firewall",
        means: "whether there is an nft table",
        read: |p, given| yes_or_no(given.value).map(|yes| p.firewall = yes),
    },
    Word {
        name: "reset_all_netdevs",
        means: "whether addresses and routes of other programs are removed",
        read: |p, given| yes_or_no(given.value).map(|yes| p.reset = yes),
    },
    // The seed's helpers ran as this user. fw has no such helpers, so any value is right.
    Word { name: "user", means: "accepted and without effect", read: |_, _| Ok(()) },
];

/// The place of a name in a word's key.
const NAME: &str = "NAME";

/// Every word of fw.conf.
pub fn words() -> impl Iterator<Item = &'static Word> {
    [GENERAL, zones::WORDS, doors::WORDS, forwards::WORDS, uplinks::WORDS, names::WORDS].into_iter().flatten()
}

impl Word {
    /// The name that the key has in the place of `NAME`, when the key is this word.
    fn matches<'a>(&self, key: &'a str) -> Option<&'a str> {
        match self.name.split_once(NAME) {
            Some((before, after)) => key.strip_prefix(before)?.strip_suffix(after).filter(|name| !name.is_empty()),
            None => (key == self.name).then_some(""),
        }
    }
}

/// A wrong line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Reads fw.conf.
pub fn parse(text: &[u8]) -> (Policy, Vec<PolicyError>) {
    let mut policy = Policy::default();
    let mut errors = Vec::new();
    if text.len() > MAX_FILE {
        errors.push(PolicyError { line: 0, what: "larger than 64 KiB".to_owned() });
    }
    for (index, line) in text.split(|b| *b == b'\n').enumerate() {
        if let Err(what) = parse_line(line, index + 1, &mut policy) {
            errors.push(PolicyError { line: index + 1, what });
        }
    }
    (policy, errors)
}

fn parse_line(text: &[u8], line: usize, policy: &mut Policy) -> Result<(), String> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8".to_owned())?.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(());
    }
    let (key, rest) = text.split_once('=').ok_or("not a KEY=\"VALUE\" line")?;
    let value = value(rest)?;
    match words().find_map(|word| Some((word, word.matches(key)?))) {
        Some((word, name)) => (word.read)(policy, Given { value, name, line }).map_err(|what| format!("{key}: {what}")),
        None => Err(unknown(key)),
    }
}

/// A bare, `'..'` or `".."` word, and nothing but a comment after it.
fn value(text: &str) -> Result<&str, String> {
    let (value, rest) = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let inner = text.get(1..).unwrap_or_default();
            inner.split_once(quote).ok_or("quote without an end")?
        }
        Some(_) | None => text.split_at(text.find([' ', '\t']).unwrap_or(text.len())),
    };
    let rest = rest.trim_start();
    if !(rest.is_empty() || rest.starts_with('#')) {
        return Err(format!("text after the value: {}", rest.escape_debug()));
    }
    match value.contains(['$', '`', '\\']) || value.chars().any(char::is_control) {
        true => Err("expansion or escape: values are data, never run".to_owned()),
        false => Ok(value),
    }
}

/// The message for a key that is no word.
fn unknown(key: &str) -> String {
    let near = nearest(key, words().map(|word| word.name));
    let near = near.map(|near| format!(": did you mean {near}?")).unwrap_or_default();
    format!("unknown key: {}{near}", key.escape_debug())
}

/// The message for a value that no reader takes.
pub(crate) fn bad(value: &str) -> String {
    format!("bad value: {}", value.escape_debug())
}

/// An empty value is "no", as an unset variable is in the seed's `test`.
pub(crate) fn yes_or_no(value: &str) -> Result<bool, String> {
    match value {
        "yes" | "y" | "1" | "true" => Ok(true),
        "" | "no" | "n" | "0" | "false" => Ok(false),
        other => Err(bad(other)),
    }
}

/// The words of a list.
pub(crate) fn split(value: &str) -> impl Iterator<Item = &str> {
    value.split([' ', '\t', ',']).filter(|w| !w.is_empty())
}

/// A list of interfaces.
pub(crate) fn interfaces(value: &str) -> Result<Vec<String>, String> {
    split(value).map(|w| if IfName::parse(w).is_some() { Ok(w.to_owned()) } else { Err(bad(w)) }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The policy of a text without a wrong line.
    #[track_caller]
    pub(crate) fn clean(text: &str) -> Policy {
        let (policy, errors) = parse(text.as_bytes());
        assert_eq!(errors, [], "{text}");
        policy
    }

    #[test]
    fn the_seeds_knobs_by_name() {
        let policy = clean(
            "# policy\nuser=\"root\"\nreset_all_netdevs=\"yes\"\npreferred_default_route_iface=\"eth0\" # cable\n\
             extif='eth0 wlan0'\next_open_tcp=\"22 80,443\"\n",
        );
        assert_eq!(policy.uplinks.preferred.as_deref(), Some("eth0"));
        assert_eq!(policy.zones.outside, ["eth0", "wlan0"]);
        assert_eq!(policy.doors.open_tcp, [(22, 22), (80, 80), (443, 443)]);
        assert!(policy.reset);
        assert_eq!(clean("preferred_default_route_iface=\"\"\nextif=\n").uplinks.preferred, None);
    }

    #[test]
    fn a_wrong_line_is_named_and_the_others_count() {
        let text = "forward=\"no\"\nnonsense\nexitf=\"eth0\"\nextif=\"eth0;reboot\"\next_open_tcp=\"0\"\n\
                    ext_open_tcp=\"9-3\"\nmasquerade=\"maybe\"\nextif=\"$(x)\"\nextif=\"a\" b\nextif=\"a\ndemote_metric=0\n";
        let (policy, errors) = parse(text.as_bytes());
        assert!(!policy.forward);
        assert_eq!(policy, Policy { forward: false, ..Policy::default() });
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(errors[1].what, "unknown key: exitf: did you mean extif?");
    }

    #[test]
    fn every_word_is_in_the_manual_page_and_in_the_shipped_file_and_no_other() {
        const MAN: &str = include_str!("../../../../man/fw.conf.5");
        const SHIPPED: &str = include_str!("../../../../services/fw/fw.conf");
        let items = MAN.lines().filter_map(|l| l.strip_prefix(".It Va ")).flat_map(|l| l.split(" , "));
        let mut listed: Vec<&str> = items.collect();
        let mut known: Vec<&str> = words().map(|word| word.name).collect();
        listed.sort_unstable();
        known.sort_unstable();
        assert_eq!(listed, known);
        for word in words() {
            let (before, after) = word.name.split_once(NAME).unwrap_or((word.name, ""));
            let shows = |line: &str| {
                let key = line.trim_start_matches('#').split('=').next().unwrap_or_default();
                key.starts_with(before) && key.ends_with(after)
            };
            assert!(word.name == "user" || SHIPPED.lines().any(shows), "services/fw/fw.conf: {}", word.name);
            assert!(!word.means.is_empty() && !word.means.ends_with('.'), "{}", word.name);
        }
        assert_eq!(parse(SHIPPED.as_bytes()), (Policy::default(), Vec::new()));
        for line in SHIPPED.lines().filter_map(|l| l.strip_prefix('#')).filter(|l| !l.starts_with(' ')) {
            assert_eq!(parse(line.as_bytes()).1, [], "{line}");
        }
    }
}

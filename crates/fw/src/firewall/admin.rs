//! The administrator's own rules: the file `firewall.nft`, which becomes a part of our table.
//!
//! Pure. The file holds chains, sets and maps. Its text is put at the head of our table as it is,
//! and our base chains jump to the chains that have the name of a hook. A small lexer makes sure
//! that the text stays inside of our table and names none of our own chains; nft judges all else.
//! Called by input/files.rs (parse) and by text.rs.

use std::fmt::Write;

use crate::input::policy::Policy;
use crate::input::policy::zones::LAN;
use crate::want::{Want, networks};

use super::parts::Inserts;

/// A chain of the administrator's that our chain calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets to this machine.
    Input,
    /// Packets through this machine.
    Forward,
    /// The first packet of a connection, before its destination is rewritten.
    Prerouting,
    /// The first packet of a connection, before its source is rewritten.
    Postrouting,
}

/// When our chain calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before any rule of ours.
    Before,
    /// For packets about which no rule of ours has decided, before they are refused.
    After,
}

/// The name of each hook's chain.
const HOOKS: [(&str, Hook, When); 8] = [
    ("before_input", Hook::Input, When::Before),
    ("after_input", Hook::Input, When::After),
    ("before_forward", Hook::Forward, When::Before),
    ("after_forward", Hook::Forward, When::After),
    ("before_prerouting", Hook::Prerouting, When::Before),
    ("after_prerouting", Hook::Prerouting, When::After),
    ("before_postrouting", Hook::Postrouting, When::Before),
    ("after_postrouting", Hook::Postrouting, When::After),
];

/// The table in which nft judges the file.
const PROBE: &str = "netsv_probe";
/// Its chains: name, which is that of the hook too, and type.
const BASES: [(&str, &str, Hook); 4] = [
    ("input", "filter", Hook::Input),
    ("forward", "filter", Hook::Forward),
    ("prerouting", "nat", Hook::Prerouting),
    ("postrouting", "nat", Hook::Postrouting),
];

/// How a statement of the file may begin. `flags` is not among them: it could switch our table off.
const KINDS: [&str; 13] = [
    "chain",
    "set",
    "map",
    "flowtable",
    "counter",
    "quota",
    "ct",
    "limit",
    "secmark",
    "synproxy",
    "define",
    "redefine",
    "undefine",
];

/// Names that only fw gives, and how others of them begin.
const OURS: [&str; 8] = ["short_way", "input", "forward", "output", "prerouting", "postrouting", "open6", "unlisted"];
const OUR_PREFIXES: [&str; 5] = ["external_", "zone_", "uplink", "port_forward", "fw_"];

/// Whether a chain, or anything else in our table, of this name is or may become fw's own.
pub fn is_ours(name: &str) -> bool {
    OURS.contains(&name) || OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// A good file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    text: String,
    hooks: Vec<&'static str>,
}

/// Why a file is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl Own {
    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Result<Own, Fault> {
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let before = bytes.get(..e.valid_up_to()).unwrap_or_default();
            fault(1 + before.iter().filter(|b| **b == b'\n').count(), "not UTF-8")
        })?;
        // Lines may end as on other systems.
        let text = text.replace("\r\n", "\n");
        let mut reader = Reader::default();
        for (index, line) in text.split('\n').enumerate() {
            reader.line(line).map_err(|what| Fault { line: index + 1, what })?;
            reader.opened.resize(reader.depth, index + 1);
        }
        if let Some(line) = reader.opened.last() {
            return Err(fault(*line, "this brace is not closed"));
        }
        let hooks = HOOKS.iter().map(|(name, ..)| *name).filter(|name| reader.chains.iter().any(|c| c == name));
        let hooks = hooks.collect();
        Ok(Own { text: format!("{}\n", text.trim_end_matches('\n')), hooks })
    }

    /// The text at the head of our table.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The rule that calls the chain of this hook, if the file has one.
    pub fn call(&self, hook: Hook, when: When) -> Option<String> {
        let name = HOOKS.iter().find(|(_, h, w)| (*h, *w) == (hook, when)).map(|(name, ..)| *name)?;
        self.hooks.contains(&name).then(|| format!("jump {name}"))
    }

    /// A table in which nft judges the text alone: what it refuses there is not fw's fault. It has
    /// the name of no table.
    pub fn probe(&self, defines: &str) -> String {
        let mut out = format!("{defines}table inet {PROBE} {{\n{}", self.text);
        for (name, kind, hook) in BASES {
            let calls = [When::Before, When::After].into_iter().filter_map(|when| self.call(hook, when));
            let calls: String = calls.map(|call| format!("\t\t{call}\n")).collect();
            if !calls.is_empty() {
                let _ = write!(out, "\tchain {name} {{\n\t\ttype {kind} hook {name} priority 0;\n{calls}\t}}\n");
            }
        }
        out + "}\n"
    }

    /// nft's complaint about a text that holds this file's, told as one about the file, when it is
    /// about a line of it.
    pub fn complaint(&self, nft: &str, whole: &str) -> Option<String> {
        let at = nft.split_once("/dev/stdin:")?.1;
        let (line, rest) = at.split_once(':')?;
        let line: usize = line.parse().ok()?;
        let before = whole.get(..whole.find(&self.text)?)?.matches('\n').count();
        let own = line.checked_sub(before).filter(|n| (1..=self.text.matches('\n').count()).contains(n))?;
        Some(format!("{own}:{}", rest.replacen("Error: ", "", 1)))
    }
}

fn fault(line: usize, what: &str) -> Fault {
    Fault { line, what: what.to_owned() }
}

/// The lexer's state between two lines.
#[derive(Default)]
struct Reader {
    /// Braces that are open.
    depth: usize,
    /// The line of each of them.
    opened: Vec<usize>,
    /// The words of the statement that stands in no brace, so far.
    words: Vec<String>,
    /// The next word begins a statement, at whatever depth.
    is_first: bool,
    /// The names of all chains.
    chains: Vec<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let mut rest = line;
        self.is_first = true;
        while let Some(first) = rest.chars().next() {
            let (token, after) = rest.split_at(length(rest, first));
            rest = after;
            match first {
                '#' => break,
                ' ' | '\t' => {}
                // It joins this line and the next one.
                '\\' if after.is_empty() => return Ok(()),
                '"' if token.len() < 2 || !token.ends_with('"') => return Err("a quote without an end".to_owned()),
                c if c.is_control() => return Err("a control character".to_owned()),
                '{' => (self.depth, self.is_first) = (self.depth + 1, true),
                '}' => self.close()?,
                ';' => self.end()?,
                _ => self.word(token)?,
            }
        }
        self.end()
    }

    fn close(&mut self) -> Result<(), String> {
        self.depth = self.depth.checked_sub(1).ok_or("this brace would close the table of fw")?;
        self.end()
    }

    /// A statement in no brace ends here.
    fn end(&mut self) -> Result<(), String> {
        self.is_first = true;
        if self.depth == 0 {
            self.words.clear();
        }
        Ok(())
    }

    fn word(&mut self, word: &str) -> Result<(), String> {
        if word == "include" {
            return Err("include: all rules have to stand in this file".to_owned());
        }
        let is_first = std::mem::replace(&mut self.is_first, false);
        if self.depth > 0 {
            let is_hook = |name: &&String| HOOKS.iter().any(|(hook, ..)| hook == name);
            return match self.words.as_slice() {
                [kind, name, ..]
                    if self.depth == 1 && kind == "chain" && is_first && word == "type" && is_hook(&name) =>
                {
                    Err(format!("{name} is called by fw, and has neither type nor hook"))
                }
                _ => Ok(()),
            };
        }
        match self.words.as_slice() {
            [] if KINDS.contains(&word) => {}
            [] => {
                let why = "only chain, set, map and their kind, and define, may stand here";
                return Err(format!("{}: {why}", quoted(word)));
            }
            [kind] if kind.ends_with("define") => {}
            [kind] if is_ours(word) => return Err(format!("{}: fw has a {kind} of this name", quoted(word))),
            [kind] if kind == "chain" => self.chain(word)?,
            _ => {}
        }
        self.words.push(word.to_owned());
        Ok(())
    }

    fn chain(&mut self, name: &str) -> Result<(), String> {
        let is_hook = HOOKS.iter().any(|(hook, ..)| *hook == name);
        if !is_hook && (name.starts_with("before_") || name.starts_with("after_")) {
            return Err(format!("{}: there is no hook of this name", quoted(name)));
        }
        self.chains.push(name.to_owned());
        Ok(())
    }
}

fn quoted(word: &str) -> String {
    word.escape_debug().to_string()
}

/// The bytes of the token that begins with `first`: a word, a string, or a single character.
fn length(text: &str, first: char) -> usize {
    let is_word = |c: char| c.is_alphanumeric() || "_.-/$@*:".contains(c);
    match first {
        '"' => text.get(1..).and_then(|inner| inner.find('"')).map_or(text.len(), |end| end + 2),
        c if is_word(c) => text.find(|c| !is_word(c)).unwrap_or(text.len()),
        c => c.len_utf8(),
    }
}

/// No interface can have this name (dev_valid_name of net/core/dev.c): the value of a list without
/// interfaces, since nft knows no empty list.
const NO_INTERFACE: &str = "/";
/// An address of no host (RFC 1112 4), for a list without IPv4 networks.
const NO_V4: &str = "255.255.255.254";
/// The same for IPv6: packets to 100::/64 are discarded (RFC 6666).
const NO_V6: &str = "100::";

/// The definitions that stand before the table.
pub fn defines(want: &Want, policy: &Policy) -> String {
    let mut out = String::new();
    define(&mut out, "uplinks", &want.zones.external(), NO_INTERFACE, true);
    let said = policy.zones.to.iter().map(|s| s.zone.as_str());
    let said = said.chain(policy.zones.router.iter().map(|s| s.zone.as_str()));
    let mut names: Vec<&str> = want.zones.names().into_iter().chain(said).chain([LAN]).collect();
    applet::sort::sort(&mut names);
    names.dedup();
    for name in names {
        let interfaces: Vec<String> = want.zones.of(name).map(str::to_owned).collect();
        let mut behind: Vec<_> = interfaces.iter().flat_map(|interface| networks(want, interface)).collect();
        applet::sort::sort(&mut behind);
        behind.dedup();
        let of = |v4: bool| -> Vec<String> {
            behind.iter().filter(|n| n.ip.is_ipv4() == v4).map(ToString::to_string).collect()
        };
        define(&mut out, &format!("zone_{name}"), &interfaces, NO_INTERFACE, true);
        define(&mut out, &format!("zone_{name}_net"), &of(true), NO_V4, false);
        define(&mut out, &format!("zone_{name}_net6"), &of(false), NO_V6, false);
    }
    out
}

/// What becomes of the table with these rules.
pub fn inserts(own: Option<&Own>, defines: String) -> Inserts {
    let Some(own) = own else { return Inserts::default() };
    let call = |hook, when| own.call(hook, when).into_iter().collect();
    Inserts {
        defines,
        text: own.text.clone(),
        before_input: call(Hook::Input, When::Before),
        after_input: call(Hook::Input, When::After),
        before_forward: call(Hook::Forward, When::Before),
        after_forward: call(Hook::Forward, When::After),
        before_prerouting: call(Hook::Prerouting, When::Before),
        after_prerouting: call(Hook::Prerouting, When::After),
        before_postrouting: call(Hook::Postrouting, When::Before),
        after_postrouting: call(Hook::Postrouting, When::After),
    }
}

/// A single word stands alone, so that a rule with it needs no set.
fn define(out: &mut String, name: &str, words: &[String], none: &str, are_names: bool) {
    let quote = if are_names { "\"" } else { "" };
    let quoted: Vec<String> = words.iter().map(|word| format!("{quote}{word}{quote}")).collect();
    let value = match quoted.as_slice() {
        [] => format!("{quote}{none}{quote}"),
        [single] => single.clone(),
        several => format!("{{ {} }}", several.join(", ")),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(out, "define {name} = {value}");
}

#[cfg(test)]
mod tests;

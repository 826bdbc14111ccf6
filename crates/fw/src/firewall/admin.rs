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

use super::text::Inserts;

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
mod tests {
    use super::*;
    use crate::input::policy::tests::clean;
    use crate::model::Prefix;

    fn parse(text: &str) -> Result<Own, (usize, String)> {
        Own::parse(text.as_bytes()).map_err(|fault| (fault.line, fault.what))
    }

    const GOOD: &str = "# Rules of mine. }\n\
        define admin = { 192.0.2.1, 192.0.2.2 }\n\
        set bad { type ipv4_addr; flags timeout; comment \"a } in a string # \" }\n\
        chain before_input {\n\
        \x20\tiifname $uplinks ip saddr $admin tcp dport { 22,\n\
        \t\t443 } accept # }}\n\
        \ttcp dport 1 log prefix \"{ \" jump mine; drop }\n\
        chain mine { counter; } ; chain after_postrouting\\\n{ }";

    #[test]
    fn chains_of_hooks_are_called_and_the_text_stays_as_it_is() {
        let own = parse(GOOD).unwrap();
        assert_eq!(own.text(), format!("{GOOD}\n"));
        assert_eq!(own.call(Hook::Input, When::Before).as_deref(), Some("jump before_input"));
        assert_eq!(own.call(Hook::Postrouting, When::After).as_deref(), Some("jump after_postrouting"));
        assert_eq!(own.call(Hook::Input, When::After), None);
        assert_eq!(parse("").unwrap().hooks, [] as [&str; 0]);
        assert_eq!(parse("chain a {\r\n}\r\n").unwrap().text(), "chain a {\n}\n");
    }

    #[test]
    fn a_text_that_would_leave_our_table_is_named_with_its_line() {
        for (text, line, what) in [
            ("chain a { drop }\n}\ntable ip x {", 2, "this brace would close the table of fw"),
            ("chain a {\n drop\n", 1, "this brace is not closed"),
            ("chain a {\n ip saddr { 1.2.3.4 \n}\n", 1, "this brace is not closed"),
            ("flush ruleset", 1, "flush: only chain,"),
            ("\n\nadd rule inet netsv input accept", 3, "add: only chain,"),
            ("table ip foreign { }", 1, "table: only chain,"),
            ("chain a { } table ip x { }", 1, "table: only chain,"),
            ("flags dormant", 1, "flags: only chain,"),
            ("chain a { }; flags dormant;", 1, "flags: only chain,"),
            ("include \"/etc/other\"", 1, "include: all rules"),
            ("chain a {\n include \"x\"\n}", 2, "include: all rules"),
            ("chain a { drop;include\"x\" }", 1, "include: all rules"),
            ("chain input { accept }", 1, "input: fw has a chain of this name"),
            ("chain\\\ninput { accept }", 2, "input: fw has a chain of this name"),
            (
                "chain before_input {\n type filter hook input priority 0;\n}",
                2,
                "before_input is called by fw, and has neither type nor hook",
            ),
            ("set zone_lan { }", 1, "zone_lan: fw has a set of this name"),
            ("chain before_inputs { }", 1, "before_inputs: there is no hook"),
            ("chain a {\n log prefix \"x\n}", 2, "a quote without an end"),
            ("chain a {\n\u{7}}", 2, "a control character"),
            ("chain a { }\n+ x", 2, "+: only chain,"),
        ] {
            let (at, why) = parse(text).unwrap_err();
            assert!(at == line && why.starts_with(what), "{text}: {at}: {why}");
        }
        assert_eq!(Own::parse(b"chain a {\n\xff}").unwrap_err(), fault(2, "not UTF-8"));
    }

    #[test]
    fn a_complaint_of_nft_names_the_line_of_the_file() {
        let own = parse("chain a {\n foo\n}\n").unwrap();
        let whole = format!("create table inet netsv\ntable inet netsv {{\n{}}}\n", own.text());
        let say = |line: usize| own.complaint(&format!("/dev/stdin:{line}:2-4: Error: syntax error"), &whole);
        assert_eq!(say(4).unwrap(), "2:2-4: syntax error");
        assert_eq!(say(3).unwrap(), "1:2-4: syntax error");
        assert_eq!(say(5).unwrap(), "3:2-4: syntax error");
        assert_eq!((say(2), say(6)), (None, None));
        assert_eq!(own.complaint("nft: no such file", &whole), None);
    }

    #[test]
    fn nft_judges_the_text_in_a_table_of_its_own() {
        let own = parse("chain before_forward { }\nchain x { type filter hook output priority 0; }").unwrap();
        assert_eq!(
            own.probe("define uplinks = \"eth0\"\n"),
            "define uplinks = \"eth0\"\ntable inet netsv_probe {\n\
             chain before_forward { }\nchain x { type filter hook output priority 0; }\n\
             \tchain forward {\n\t\ttype filter hook forward priority 0;\n\t\tjump before_forward\n\t}\n}\n"
        );
    }

    #[test]
    fn what_the_file_may_name() {
        use crate::model::Scope;
        use crate::want::zones::{Inside, Outside, Reason, Zones};
        use crate::want::{Origin, WantAddress};
        let inside = |interface: &str, zone: &str| Inside {
            interface: interface.into(),
            zone: zone.into(),
            place: String::new(),
        };
        let outside = Outside { interface: "eth0".into(), reason: Reason::Named("extif") };
        let address = |interface: &str, address: &str| WantAddress {
            interface: interface.into(),
            address: Prefix::parse(address).unwrap(),
            broadcast: None,
            scope: Scope::Global,
            lifetime: None,
            kernel_prefix_route: false,
            origin: Origin { is_static: true, place: String::new(), key: "ipmask", line: 1 },
        };
        let want = Want {
            zones: Zones {
                outside: vec![outside],
                inside: vec![inside("lan0", "lan"), inside("br0", "lan"), inside("lan9", "guest")],
                ..Zones::default()
            },
            addresses: vec![
                address("lan0", "10.0.0.1/24"),
                address("lan9", "fd00::1/64"),
                address("lan9", "fe80::1/64"),
            ],
            ..Want::default()
        };
        assert_eq!(
            defines(&want, &clean("zone_iot_to='lan'\n")),
            "define uplinks = \"eth0\"\n\
             define zone_guest = \"lan9\"\ndefine zone_guest_net = 255.255.255.254\ndefine zone_guest_net6 = fd00::/64\n\
             define zone_iot = \"/\"\ndefine zone_iot_net = 255.255.255.254\ndefine zone_iot_net6 = 100::\n\
             define zone_lan = { \"lan0\", \"br0\" }\ndefine zone_lan_net = 10.0.0.0/24\ndefine zone_lan_net6 = 100::\n"
        );
        let none = defines(&Want::default(), &Policy::default());
        assert!(none.starts_with("define uplinks = \"/\"\ndefine zone_lan = \"/\"\n"), "{none}");
    }

    #[test]
    fn the_text_is_at_the_head_of_our_table_and_our_chains_call_its_chains() {
        use crate::firewall::marks::Marking;
        use crate::firewall::text::{Parts, render};
        let names = HOOKS.map(|(name, ..)| name);
        let own = parse(&names.map(|name| format!("chain {name} {{ }}")).join("\n")).unwrap();
        let want = Want::default();
        let inserts = inserts(Some(&own), "define x = 1\n".into());
        let policy = Policy::default();
        let parts = Parts {
            zones: &want.zones,
            marking: &Marking::of(&want),
            policy: &policy,
            openings: &want.openings,
            inserts: &inserts,
        };
        let table = render(&parts).unwrap();
        assert!(table.starts_with(&format!("define x = 1\ntable inet netsv {{\n{}\tchain ", own.text())), "{table}");
        for name in names {
            assert!(table.contains(&format!("\t\tjump {name}\n")), "{name}: {table}");
        }
    }

    #[test]
    fn the_names_of_all_our_chains_are_reserved() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
        let mut count = 0;
        for file in std::fs::read_dir(dir).unwrap().flatten() {
            let text = std::fs::read_to_string(file.path()).unwrap();
            for line in
                text.lines().filter_map(|line| line.strip_prefix("\tchain ").or(line.strip_prefix("\tflowtable ")))
            {
                let name = line.trim_end_matches(" {");
                assert!(is_ours(name), "{name}");
                count += 1;
            }
        }
        assert!(count > 20, "{count}");
    }
}

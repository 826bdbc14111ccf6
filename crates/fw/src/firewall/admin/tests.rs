//! What a file of the administrator may say, and where its rules come.

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
    let inside =
        |interface: &str, zone: &str| Inside { interface: interface.into(), zone: zone.into(), place: String::new() };
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
        addresses: vec![address("lan0", "10.0.0.1/24"), address("lan9", "fd00::1/64"), address("lan9", "fe80::1/64")],
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
    use crate::firewall::parts::{Marking, Parts};
    use crate::firewall::text::render;
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
        for line in text.lines().filter_map(|line| line.strip_prefix("\tchain ").or(line.strip_prefix("\tflowtable ")))
        {
            let name = line.trim_end_matches(" {");
            assert!(is_ours(name), "{name}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

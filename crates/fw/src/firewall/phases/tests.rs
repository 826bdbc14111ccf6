//! Every run of the firewall: events, and what they lead to.

use super::*;
use crate::want::Openings;
use crate::want::zones::{Inside, Outside, Reason, Zones};

/// Tables of the tests: a name for each, and one that marks connections and masquerades.
const TABLE: &str = "table inet netsv { one }\n";
const OTHER: &str = "table inet netsv { other }\n";
const MARKING: &str = "table inet netsv {\n\tchain postrouting {\n\t\ttype nat hook postrouting\n\t}\n\
                       \tchain uplink_marks {\n\t}\n}\n";

fn name(text: &str) -> &'static str {
    let less = lacks::without(MARKING, &[Lack::Marks]);
    let names = [("one", TABLE), ("other", OTHER), ("marking", MARKING), ("less", less.as_str())];
    names.iter().find(|(_, table)| *table == text).map_or("?", |(name, _)| name)
}

fn show(action: &Action) -> String {
    match action {
        Action::Start(t) if *t == text::removal() => "remove".into(),
        Action::Start(t) => match t.strip_prefix(&text::removal()) {
            Some(table) => format!("replace {}", name(table)),
            None => format!("create {}", name(t.split_once('\n').unwrap().1)),
        },
        Action::Probe(lacks) => format!("probe {lacks:?}"),
        Action::Remember(Some(table)) => format!("remember {}", name(table)),
        Action::Remember(None) => "remember none".into(),
        Action::Note(_) => "note".into(),
        Action::Fail(text) => format!("fail {text}"),
    }
}

fn event(word: &str) -> Event {
    match word {
        "begin" => Event::Begin,
        "ok" => Event::Loaded(Ok(())),
        "refused" => Event::Loaded(Err(Failure::Refused("refused".into()))),
        "silent" => Event::Loaded(Err(Failure::Unable("silent".into()))),
        "no marks" => Event::Probed(vec![Lack::Marks]),
        "all there" => Event::Probed(Vec::new()),
        "changed" => Event::Changed,
        "ended" => Event::Ended { well: true },
        "stranger" => Event::Ended { well: false },
        other => panic!("{other}"),
    }
}

fn phases(before: &str, after: &str, loaded: &str, is_there: Option<bool>) -> Phases {
    let table = |name: &str| match name {
        "one" => Some(TABLE.to_owned()),
        "other" => Some(OTHER.to_owned()),
        "marking" => Some(MARKING.to_owned()),
        _ => None,
    };
    Phases::between(table(before), table(after), Known { loaded: table(loaded), is_there })
}

#[test]
fn every_run_of_the_firewall() {
    // Before, after, loaded, there; events and what they lead to; missing in the end.
    type Row<'a> = (&'a str, &'a str, &'a str, Option<bool>, &'a [(&'a str, &'a str)], bool);
    let rows: &[Row] = &[
        // Nothing is wanted, nothing is there; and a table that is left is taken away when all
        // else has changed.
        ("-", "-", "-", Some(false), &[("begin", ""), ("changed", ""), ("ended", "")], false),
        ("-", "-", "-", Some(true), &[("begin", ""), ("changed", "remove"), ("ok", "remember none")], false),
        ("-", "-", "-", None, &[("begin", ""), ("changed", "")], false),
        // It is as it was left.
        ("one", "one", "one", Some(true), &[("begin", ""), ("changed", ""), ("ended", "")], false),
        // The first run, a run after another program's change, a run that cannot look.
        ("one", "one", "-", Some(false), &[("begin", "create one"), ("ok", "remember one"), ("changed", "")], false),
        ("one", "one", "-", Some(true), &[("begin", "replace one"), ("ok", "remember one"), ("changed", "")], false),
        ("one", "one", "other", None, &[("begin", "replace one"), ("ok", "remember one"), ("ended", "")], false),
        // Two phases.
        (
            "one",
            "other",
            "other",
            Some(true),
            &[("begin", "replace one"), ("ok", "remember one"), ("changed", "replace other"), ("ok", "remember other")],
            false,
        ),
        (
            "one",
            "-",
            "one",
            Some(true),
            &[("begin", ""), ("changed", "remove"), ("ok", "remember none"), ("ended", "")],
            false,
        ),
        // Refused: tried as a replacement where none was seen, and nothing else; never when nft
        // was silent.
        (
            "one",
            "one",
            "-",
            Some(true),
            &[("begin", "replace one"), ("refused", "fail refused"), ("changed", "")],
            true,
        ),
        (
            "one",
            "one",
            "-",
            Some(false),
            &[("begin", "create one"), ("refused", "replace one"), ("refused", "fail refused"), ("changed", "")],
            true,
        ),
        (
            "one",
            "one",
            "-",
            Some(false),
            &[("begin", "create one"), ("refused", "replace one"), ("ok", "remember one")],
            false,
        ),
        ("one", "one", "-", Some(false), &[("begin", "create one"), ("silent", "fail silent")], true),
        // A kernel that marks no connections.
        (
            "marking",
            "marking",
            "-",
            Some(false),
            &[
                ("begin", "create marking"),
                ("refused", "replace marking"),
                ("refused", "probe [Marks, Nat]"),
                ("no marks", "replace less"),
                ("ok", "note, remember marking"),
                ("changed", ""),
            ],
            false,
        ),
        // It is not asked twice in a run.
        (
            "marking",
            "one",
            "-",
            Some(true),
            &[
                ("begin", "replace marking"),
                ("refused", "probe [Marks, Nat]"),
                ("no marks", "replace less"),
                ("ok", "note, remember marking"),
                ("changed", "replace one"),
                ("ok", "remember one"),
            ],
            false,
        ),
        // Something else is wrong: the first complaint counts.
        (
            "marking",
            "marking",
            "-",
            Some(true),
            &[
                ("begin", "replace marking"),
                ("refused", "probe [Marks, Nat]"),
                ("no marks", "replace less"),
                ("refused", "fail refused"),
            ],
            true,
        ),
        (
            "marking",
            "marking",
            "-",
            Some(true),
            &[("begin", "replace marking"), ("refused", "probe [Marks, Nat]"), ("all there", "fail refused")],
            true,
        ),
        ("marking", "marking", "-", Some(true), &[("begin", "replace marking"), ("silent", "fail silent")], true),
        // A stranger's commit was taken for ours: once more, and no third time.
        (
            "one",
            "one",
            "-",
            Some(false),
            &[
                ("begin", "create one"),
                ("ok", "remember one"),
                ("stranger", "replace one"),
                ("ok", "remember one"),
                ("ended", ""),
            ],
            false,
        ),
        (
            "one",
            "one",
            "-",
            Some(false),
            &[
                ("begin", "create one"),
                ("ok", "remember one"),
                ("stranger", "replace one"),
                ("ok", "remember one"),
                ("stranger", "fail nft: failed beside another one that makes our table"),
            ],
            false,
        ),
        // What cannot happen does nothing.
        ("one", "one", "-", Some(false), &[("ok", ""), ("begin", "create one"), ("begin", ""), ("ended", "")], false),
    ];
    for (before, after, loaded, is_there, steps, missing) in rows {
        let mut machine = phases(before, after, loaded, *is_there);
        for (word, want) in *steps {
            let actions: Vec<String> = machine.step(event(word)).iter().map(show).collect();
            assert_eq!(actions.join(", "), *want, "{before} {after} {loaded} {is_there:?}: {steps:?} at {word}");
        }
        assert_eq!(machine.is_missing(), *missing, "{before} {after} {loaded} {is_there:?}: {steps:?}");
    }
}

#[test]
fn what_was_outside_stays_outside_until_the_kernel_has_changed() {
    let inside = |name: &str| Inside { interface: name.into(), zone: "lan".into(), place: "conf:1".into() };
    let outside = |name: &str| Outside { interface: name.into(), reason: Reason::Named("extif") };
    let zones = Zones { outside: vec![outside("wlan0")], inside: vec![inside("eth0")], ..Zones::default() };
    let want = Want { zones: zones.clone(), numbers: vec![("wlan0".into(), 2)], ..Want::default() };
    let memory = Memory { outside: vec!["eth0".into()], numbers: vec![("eth0".into(), 1)], ..Memory::default() };
    let machine = Phases::new(&want, &Policy::default(), &memory, &Inserts::default(), Known::default());
    let render = |zones: &Zones, numbers: &[(String, u8)]| {
        let (policy, openings, inserts) = (Policy::default(), Openings::default(), Inserts::default());
        let marking = Marking { numbers: numbers.to_vec(), ..Marking::default() };
        text::render(&Parts { zones, marking: &marking, policy: &policy, openings: &openings, inserts: &inserts })
    };
    let closed = Zones { outside: vec![outside("eth0"), outside("wlan0")], ..Zones::default() };
    assert_eq!(machine.before, render(&closed, &[("eth0".into(), 1), ("wlan0".into(), 2)]));
    assert_eq!(machine.after, render(&zones, &want.numbers));
}

#[test]
fn what_plan_prints() {
    let planned = |after: &str, loaded: &str, there| phases("-", after, loaded, there).planned();
    assert_eq!(planned("one", "one", Some(true)), None);
    assert_eq!(planned("one", "-", Some(false)).unwrap(), "+ nft table inet netsv");
    assert_eq!(planned("one", "-", Some(true)).unwrap(), "~ nft table inet netsv");
    assert_eq!(planned("-", "-", Some(true)).unwrap(), "- nft table inet netsv");
    assert_eq!(planned("-", "-", None), None);
}

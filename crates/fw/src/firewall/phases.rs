//! The firewall's two phases: which table is loaded when, what is tried again, what is remembered.
//! PURE.
//!
//! Before the kernel changes, all interfaces that were or will be outside are outside; when it has
//! changed, the table is as wanted. Mostly both tables are the same, and mostly the same as the
//! last run has left. What can happen to a load:
//!
//! ```text
//!              refused, no table was there      refused, it marks connections
//! Loading Plain ----------> Loading Replacing ----------> Loading WithoutMarks
//!      |  \_________________________________________________/     |
//!      | done, or nothing left to try                             |
//!      v                                                          v
//!    Idle: remembered, or missing  <------------------------------+
//! ```
//!
//! An nft that says nothing is killed, and not tried again. Called by firewall.rs, which performs
//! the actions.

use crate::input::memory::Memory;
use crate::input::policy::Policy;
use crate::want::Want;

use super::marks::Marking;
use super::text;

/// What is said of a kernel without CONFIG_NF_CONNTRACK_MARK.
const NO_MARKS: &str = "this kernel marks no connections: answers of hosts behind it leave by the preferred uplink";
/// What is said when two nft have failed, one after the other, beside a stranger.
const BESIDE: &str = "nft: failed beside another one that makes our table";

/// Our table as the last run has left it and as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The text that the last run has loaded, if the table is as that run has left it.
    pub loaded: Option<String>,
    /// A table of our name is there, perhaps changed by another program. `None`: fw cannot tell.
    pub is_there: Option<bool>,
}

impl Known {
    /// The transaction by which the kernel gets the table that is wanted, or none; `None`: it is
    /// so.
    fn difference(&self, wanted: Option<&str>) -> Option<String> {
        match wanted {
            Some(table) if self.loaded.as_deref() == Some(table) => None,
            Some(table) => Some(text::transaction(table, self.is_there != Some(false))),
            // A table of our name, from an earlier run or from a boot whose directory is gone.
            None => (self.is_there == Some(true)).then(text::removal),
        }
    }
}

/// Why a table was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// nft said nothing and was killed.
    Silent(String),
    /// nft or the kernel refused.
    Refused(String),
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The run begins.
    Begin,
    /// The transaction that was started last is in the kernel, or has failed.
    Loaded(Result<(), Failure>),
    /// The kernel's addresses and routes are as wanted.
    Changed,
    /// All else is done, and each nft has ended. Not well: the commit that was seen was a
    /// stranger's.
    Ended {
        /// None has failed.
        well: bool,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start nft with this transaction; `Loaded` answers.
    Start(String),
    /// Remember that this table is loaded, or none.
    Remember(Option<String>),
    /// Say it.
    Note(&'static str),
    /// Say it; the run fails in the end.
    Fail(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// The transaction for the table that was seen.
    Plain,
    /// The transaction that replaces whatever table is there.
    Replacing,
    /// The same, of a table that marks no connections.
    WithoutMarks,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Loading { table: Option<String>, attempt: Attempt },
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Phases {
    before: Option<String>,
    after: Option<String>,
    known: Known,
    state: State,
    is_missing: bool,
    /// Everything was loaded once more, because a stranger's commit was taken for ours.
    is_repeated: bool,
}

impl Phases {
    /// For these wishes, beside what is remembered of the last run.
    pub fn new(want: &Want, policy: &Policy, memory: &Memory, known: Known) -> Phases {
        let mut external = want.external.clone();
        external.extend(memory.uplinks.iter().filter(|_| policy.zones.outside.is_empty()).cloned());
        external.sort();
        external.dedup();
        let mut numbers = memory.numbers.clone();
        let is_new = |name: &str| !memory.numbers.iter().any(|(n, _)| n == name);
        numbers.extend(want.numbers.iter().filter(|(name, _)| is_new(name)).cloned());
        let after = Marking::of(want);
        Phases::between(
            text::render(&external, &Marking { numbers, ..after.clone() }, policy, &want.openings),
            text::render(&want.external, &after, policy, &want.openings),
            known,
        )
    }

    fn between(before: Option<String>, after: Option<String>, known: Known) -> Phases {
        Phases { before, after, known, state: State::Idle, is_missing: false, is_repeated: false }
    }

    /// The firewall is wanted and could not be loaded.
    pub fn is_missing(&self) -> bool {
        self.is_missing
    }

    /// What `fw plan` prints of it.
    pub fn planned(&self) -> Option<String> {
        let sign = match (&self.after, self.known.is_there == Some(true)) {
            (None, _) => '-',
            (Some(_), true) => '~',
            (Some(_), false) => '+',
        };
        self.known.difference(self.after.as_deref()).map(|_| format!("{sign} nft table inet {}", text::TABLE))
    }

    /// Why that is planned.
    pub fn why(&self) -> String {
        let Some(after) = &self.after else { return "no table is wanted".to_owned() };
        let Some(loaded) = &self.known.loaded else {
            let there = self.known.is_there == Some(true);
            return if there { "it is not as fw has left it" } else { "it is not there" }.to_owned();
        };
        let fresh = |a: &str, b: &str| a.lines().filter(|line| !b.lines().any(|other| other == *line)).count();
        format!("{} lines are new and {} go", fresh(after, loaded), fresh(loaded, after))
    }

    /// The table that is wanted.
    pub fn table(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// One step. An event that cannot happen in a state does nothing.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        match (std::mem::replace(&mut self.state, State::Idle), event) {
            // Without any table before the change there is none to take away yet.
            (State::Idle, Event::Begin) => self.before.clone().map(|table| self.want(Some(table))).unwrap_or_default(),
            // The same table again would be as refused as it was.
            (State::Idle, Event::Changed) if self.after.is_some() && self.after == self.before => Vec::new(),
            (State::Idle, Event::Changed) => self.want(self.after.clone()),
            (State::Idle, Event::Ended { well: true } | Event::Loaded(_)) => Vec::new(),
            (State::Idle, Event::Ended { well: false }) if self.is_repeated => vec![Action::Fail(BESIDE.to_owned())],
            (State::Idle, Event::Ended { well: false }) => {
                self.is_repeated = true;
                let table = self.after.clone();
                self.start(replacement(table.as_deref()), table, Attempt::Plain)
            }
            (State::Loading { table, attempt }, Event::Loaded(result)) => self.loaded(table, attempt, result),
            (state @ State::Loading { .. }, Event::Begin | Event::Changed | Event::Ended { .. }) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    fn want(&mut self, table: Option<String>) -> Vec<Action> {
        match self.known.difference(table.as_deref()) {
            Some(transaction) => self.start(transaction, table, Attempt::Plain),
            None => Vec::new(),
        }
    }

    fn start(&mut self, transaction: String, table: Option<String>, attempt: Attempt) -> Vec<Action> {
        self.state = State::Loading { table, attempt };
        vec![Action::Start(transaction)]
    }

    fn loaded(&mut self, table: Option<String>, attempt: Attempt, result: Result<(), Failure>) -> Vec<Action> {
        match result {
            Ok(()) => {
                self.known = Known { is_there: Some(table.is_some()), loaded: Some(table.clone().unwrap_or_default()) };
                let note = (attempt == Attempt::WithoutMarks).then_some(Action::Note(NO_MARKS));
                note.into_iter().chain([Action::Remember(table)]).collect()
            }
            Err(Failure::Silent(text)) => self.missing(text),
            Err(Failure::Refused(text)) => self.refused(table, attempt, text),
        }
    }

    fn refused(&mut self, table: Option<String>, attempt: Attempt, text: String) -> Vec<Action> {
        // An nft that a killed run has left behind may have made our table since we looked.
        let look_is_stale = self.known.is_there == Some(false);
        self.known.is_there = self.known.is_there.filter(|there| *there);
        let less = table.as_deref().and_then(text::without_marks);
        match (attempt, less) {
            (Attempt::Plain, _) if look_is_stale => {
                self.start(replacement(table.as_deref()), table, Attempt::Replacing)
            }
            (Attempt::Plain | Attempt::Replacing, Some(less)) => {
                self.start(replacement(Some(&less)), table, Attempt::WithoutMarks)
            }
            (Attempt::Plain | Attempt::Replacing, None) | (Attempt::WithoutMarks, _) => self.missing(text),
        }
    }

    fn missing(&mut self, text: String) -> Vec<Action> {
        self.is_missing = true;
        vec![Action::Fail(text)]
    }
}

/// Puts the table in the place of whatever there is.
fn replacement(table: Option<&str>) -> String {
    table.map_or_else(text::removal, |table| text::transaction(table, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::policy::zones::Zones;

    /// Tables of the tests: a name for each, and one that marks connections.
    const TABLE: &str = "table inet netsv { one }\n";
    const OTHER: &str = "table inet netsv { other }\n";
    const MARKING: &str = "table inet netsv {\n\tchain uplink_marks {\n\t}\n}\n";

    fn name(text: &str) -> &'static str {
        let less = text::without_marks(MARKING).unwrap();
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
            "silent" => Event::Loaded(Err(Failure::Silent("silent".into()))),
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
            (
                "one",
                "one",
                "-",
                Some(false),
                &[("begin", "create one"), ("ok", "remember one"), ("changed", "")],
                false,
            ),
            (
                "one",
                "one",
                "-",
                Some(true),
                &[("begin", "replace one"), ("ok", "remember one"), ("changed", "")],
                false,
            ),
            ("one", "one", "other", None, &[("begin", "replace one"), ("ok", "remember one"), ("ended", "")], false),
            // Two phases.
            (
                "one",
                "other",
                "other",
                Some(true),
                &[
                    ("begin", "replace one"),
                    ("ok", "remember one"),
                    ("changed", "replace other"),
                    ("ok", "remember other"),
                ],
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
                    ("refused", "replace less"),
                    ("ok", "note, remember marking"),
                    ("changed", ""),
                ],
                false,
            ),
            (
                "marking",
                "marking",
                "-",
                Some(true),
                &[("begin", "replace marking"), ("refused", "replace less"), ("refused", "fail refused")],
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
            (
                "one",
                "one",
                "-",
                Some(false),
                &[("ok", ""), ("begin", "create one"), ("begin", ""), ("ended", "")],
                false,
            ),
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
        let (old, new) = ("eth0".to_owned(), "wlan0".to_owned());
        let want = Want { external: vec![new.clone()], numbers: vec![(new.clone(), 2)], ..Want::default() };
        let memory = Memory { uplinks: vec![old.clone()], numbers: vec![(old.clone(), 1)], ..Memory::default() };
        let phases = |policy: &Policy| Phases::new(&want, policy, &memory, Known::default());
        let policy = Policy::default();
        let both = [(old.clone(), 1), (new.clone(), 2)];
        let marking = |numbers: &[(String, u8)]| Marking { numbers: numbers.to_vec(), ..Marking::default() };
        let machine = phases(&policy);
        assert_eq!(machine.before, text::render(&[old, new.clone()], &marking(&both), &policy, &want.openings));
        assert_eq!(
            machine.after,
            text::render(std::slice::from_ref(&new), &marking(&both[1..]), &policy, &want.openings)
        );
        // fw.conf has the last word.
        let zones = Zones { outside: vec![new.clone()] };
        let policy = Policy { zones, ..policy };
        assert_eq!(phases(&policy).before, text::render(&[new], &marking(&both), &policy, &want.openings));
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
}

//! The firewall's two phases: which table is loaded when, what is tried again, what is remembered.
//! PURE.
//!
//! Before the kernel changes, all interfaces that were or will be outside are outside; when it has
//! changed, the table is as wanted. Mostly both tables are the same, and mostly the same as the
//! last run has left. What can happen to a load:
//!
//! ```text
//!                 refused, no table was there
//! Loading Plain ------------------------------> Loading Replacing
//!      |      \                                    |      |
//!      | done  \ refused                   refused |      | done
//!      |        `-------------> Probing <----------'      |
//!      |                           | something is missing |
//!      v            done           v                      v
//!    Idle <---------------- Loading Less ------------->  Idle: remembered, or missing
//! ```
//!
//! An nft that says nothing is killed, and not tried again; nor is one that cannot be started.
//! Called by firewall.rs, which performs the actions.

use crate::input::memory::Memory;
use crate::input::policy::Policy;
use crate::want::Want;

use super::lacks::{self, Lack};
use super::parts::{Inserts, Marking, Parts};
use super::text;

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
    /// nft said nothing and was killed, or cannot do anything.
    Unable(String),
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
    /// What the kernel lacks of that which was asked.
    Probed(Vec<Lack>),
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
    /// Try each of these features alone; `Probed` answers.
    Probe(Vec<Lack>),
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
    /// The same, of the table without what the kernel lacks.
    Less,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Loading {
        table: Option<String>,
        attempt: Attempt,
        /// Why the whole table was refused.
        refused: Option<String>,
    },
    Probing {
        table: Option<String>,
        refused: String,
    },
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Phases {
    before: Option<String>,
    after: Option<String>,
    known: Known,
    state: State,
    /// What the kernel was found to lack in this run.
    lacks: Vec<Lack>,
    is_missing: bool,
    /// nft or the kernel has refused it.
    is_refused: bool,
    /// Everything was loaded once more, because a stranger's commit was taken for ours.
    is_repeated: bool,
}

impl Phases {
    /// For these wishes, beside what is remembered of the last run.
    pub fn new(want: &Want, policy: &Policy, memory: &Memory, inserts: &Inserts, known: Known) -> Phases {
        let meanwhile = want.zones.beside(memory);
        let mut numbers = memory.numbers.clone();
        let is_new = |name: &str| !memory.numbers.iter().any(|(n, _)| n == name);
        numbers.extend(want.numbers.iter().filter(|(name, _)| is_new(name)).cloned());
        let openings = &want.openings;
        let wanted = Marking::of(want);
        let marking = Marking { numbers, ..wanted.clone() };
        let before = Parts { zones: &meanwhile, marking: &marking, policy, openings, inserts };
        let after = Parts { zones: &want.zones, marking: &wanted, ..before };
        let table = text::render(&before);
        let is_last = meanwhile == want.zones && marking == wanted;
        let last = if is_last { table.clone() } else { text::render(&after) };
        Phases::between(table, last, known)
    }

    fn between(before: Option<String>, after: Option<String>, known: Known) -> Phases {
        Phases {
            before,
            after,
            known,
            state: State::Idle,
            lacks: Vec::new(),
            is_missing: false,
            is_refused: false,
            is_repeated: false,
        }
    }

    /// The firewall is wanted and could not be loaded.
    pub fn is_missing(&self) -> bool {
        self.is_missing
    }

    /// It was refused for what is in it, or for what the kernel lacks.
    pub fn is_refused(&self) -> bool {
        self.is_refused
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
        format!("lines: {} new, {} gone", fresh(after, loaded), fresh(loaded, after))
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
            (State::Idle, Event::Ended { well: true } | Event::Loaded(_) | Event::Probed(_)) => Vec::new(),
            (State::Idle, Event::Ended { well: false }) if self.is_repeated => vec![Action::Fail(BESIDE.to_owned())],
            (State::Idle, Event::Ended { well: false }) => {
                self.is_repeated = true;
                let table = self.after.clone();
                self.start(self.replacement(table.as_deref()), table, Attempt::Plain, None)
            }
            (State::Loading { table, attempt, refused }, Event::Loaded(result)) => {
                self.loaded(table, attempt, refused, result)
            }
            (State::Probing { table, refused }, Event::Probed(lacks)) => self.probed(table, refused, lacks),
            (
                state @ (State::Loading { .. } | State::Probing { .. }),
                Event::Begin | Event::Changed | Event::Ended { .. } | Event::Probed(_) | Event::Loaded(_),
            ) => {
                self.state = state;
                Vec::new()
            }
        }
    }

    fn want(&mut self, table: Option<String>) -> Vec<Action> {
        match self.known.difference(table.as_deref()) {
            Some(_) if !self.lacks.is_empty() => {
                self.start(self.replacement(table.as_deref()), table, Attempt::Less, None)
            }
            Some(transaction) => self.start(transaction, table, Attempt::Plain, None),
            None => Vec::new(),
        }
    }

    fn start(
        &mut self,
        transaction: String,
        table: Option<String>,
        attempt: Attempt,
        refused: Option<String>,
    ) -> Vec<Action> {
        self.state = State::Loading { table, attempt, refused };
        vec![Action::Start(transaction)]
    }

    fn loaded(
        &mut self,
        table: Option<String>,
        attempt: Attempt,
        refused: Option<String>,
        result: Result<(), Failure>,
    ) -> Vec<Action> {
        match result {
            Ok(()) => {
                self.known = Known { is_there: Some(table.is_some()), loaded: Some(table.clone().unwrap_or_default()) };
                let is_needed = |lack: &&Lack| table.as_deref().is_some_and(|table| lack.is_in(table));
                let notes = self.lacks.iter().filter(is_needed).map(|lack| Action::Note(lack.text()));
                let mut actions: Vec<Action> = notes.collect();
                actions.push(Action::Remember(table));
                actions
            }
            Err(Failure::Unable(text)) => self.missing(text),
            Err(Failure::Refused(text)) => self.refused(table, attempt, refused.unwrap_or(text)),
        }
    }

    fn refused(&mut self, table: Option<String>, attempt: Attempt, text: String) -> Vec<Action> {
        // An nft that a killed run has left behind may have made our table since we looked.
        let look_is_stale = self.known.is_there == Some(false);
        self.known.is_there = self.known.is_there.filter(|there| *there);
        match attempt {
            Attempt::Plain if look_is_stale => {
                self.start(self.replacement(table.as_deref()), table, Attempt::Replacing, None)
            }
            Attempt::Plain | Attempt::Replacing => {
                let needs = |lack: &Lack| table.as_deref().is_some_and(|table| lack.is_in(table));
                let asked: Vec<Lack> = lacks::ALL.into_iter().filter(needs).collect();
                if asked.is_empty() {
                    return self.refuse(text);
                }
                self.state = State::Probing { table, refused: text };
                vec![Action::Probe(asked)]
            }
            Attempt::Less => self.refuse(text),
        }
    }

    fn probed(&mut self, table: Option<String>, refused: String, lacks: Vec<Lack>) -> Vec<Action> {
        self.lacks = lacks;
        match self.lacks.is_empty() {
            true => self.refuse(refused),
            false => self.start(self.replacement(table.as_deref()), table, Attempt::Less, Some(refused)),
        }
    }

    fn refuse(&mut self, text: String) -> Vec<Action> {
        self.is_refused = true;
        self.missing(text)
    }

    fn missing(&mut self, text: String) -> Vec<Action> {
        self.is_missing = true;
        vec![Action::Fail(text)]
    }

    /// Puts the table, as far as the kernel can take it, in the place of whatever there is.
    fn replacement(&self, table: Option<&str>) -> String {
        table.map_or_else(text::removal, |table| text::transaction(&lacks::without(table, &self.lacks), true))
    }
}

#[cfg(test)]
mod tests;

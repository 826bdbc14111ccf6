//! What the pinger knows about an uplink, for people and programs: one record for the uplink, and
//! one for each target.
//!
//! The file has the form of an `*.ipconf`, so that there is one reader of such text, and shell
//! scripts can use it.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::key::{self, Key, Other, Wrong, one, show};
use super::{Author, IF, text, value};
use crate::net::{IfName, decimal};

/// The status of an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Interface.
    pub interface: IfName,
    /// What the pinger thinks of it.
    pub state: UplinkState,
    /// Why it is bad.
    pub cause: Option<Cause>,
    /// Since when, in seconds of CLOCK_BOOTTIME.
    pub since_boottime: u64,
    /// When this was written, the same.
    pub written_boottime: u64,
    /// Our address.
    pub ip: Option<Ipv4Addr>,
    /// The router.
    pub router: Option<Ipv4Addr>,
    /// Restarts of the services since the uplink was good.
    pub restarts: u32,
    /// The router, when there is one, and the targets.
    pub targets: Vec<TargetStatus>,
    /// Keys of the uplink's record that are not known here, and their values.
    pub other: Vec<(String, String)>,
}

/// One word for an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkState {
    /// Nothing can be asked.
    Idle,
    /// Not enough has been asked.
    Unknown,
    /// It answers.
    Good,
    /// It does not.
    Bad,
    /// It answers again, and is held down for a while.
    Recovering,
}

/// Why an uplink is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was so when the pinger started.
    Found,
    /// The router is silent.
    Router,
    /// Nothing behind the router answers.
    Behind,
}

/// What came of the questions to one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetStatus {
    /// Its name: `router`, or as the command line has it.
    pub name: String,
    /// Rounds that are over, of those that are kept.
    pub asked: u64,
    /// Those of them without an answer.
    pub lost: u64,
    /// Round-trip times, in whole microseconds; `None` when nothing was answered.
    pub last: Option<Duration>,
    /// The mean one.
    pub mean: Option<Duration>,
    /// The worst one.
    pub worst: Option<Duration>,
    /// Keys that are not known here, and their values.
    pub other: Vec<(String, String)>,
}

/// The uplink's record while it is read.
#[derive(Default)]
struct Draft {
    state: Option<UplinkState>,
    cause: Option<Cause>,
    since: Option<u64>,
    written: Option<u64>,
    ip: Option<Ipv4Addr>,
    router: Option<Ipv4Addr>,
    restarts: Option<u32>,
}

/// Every key of the uplink but `if`.
const UPLINK: &[Key<Draft>] = &[
    Key {
        name: "state",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.state, v, UplinkState::parse),
        write: |r| show(&r.state),
    },
    Key {
        name: "cause",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.cause, v, Cause::parse),
        write: |r| show(&r.cause),
    },
    Key {
        name: "since_boottime",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.since, v, value::seconds),
        write: |r| show(&r.since),
    },
    Key {
        name: "written_boottime",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.written, v, value::seconds),
        write: |r| show(&r.written),
    },
    Key {
        name: "ip",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.ip, v, |w| w.parse().ok()),
        write: |r| show(&r.ip),
    },
    Key {
        name: "router",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.router, v, |w| w.parse().ok()),
        write: |r| show(&r.router),
    },
    Key {
        name: "restarts",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.restarts, v, decimal),
        write: |r| show(&r.restarts),
    },
];

/// Every key of a target.
const TARGET: &[Key<TargetStatus>] = &[
    Key { name: "target", wrong: Wrong::Record, read: |r, v| target(&mut r.name, v), write: |r| r.name.clone() },
    Key { name: "asked", wrong: Wrong::Record, read: |r, v| number(&mut r.asked, v), write: |r| r.asked.to_string() },
    Key { name: "lost", wrong: Wrong::Record, read: |r, v| number(&mut r.lost, v), write: |r| r.lost.to_string() },
    Key {
        name: "last_us",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.last, v, micros),
        write: |r| show_micros(r.last),
    },
    Key {
        name: "mean_us",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.mean, v, micros),
        write: |r| show_micros(r.mean),
    },
    Key {
        name: "worst_us",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.worst, v, micros),
        write: |r| show_micros(r.worst),
    },
];

impl Status {
    /// Understands the records of a file. Anything wrong with them: they are no status.
    pub fn parse(records: &[text::Record]) -> Option<Status> {
        let (uplink, targets) = records.split_first()?;
        let (mut draft, mut other) = (Draft::default(), Other::new());
        key::read(UPLINK, uplink, Author::Program, &mut draft, &mut other).ok()?;
        Some(Status {
            interface: super::interface(uplink).ok()?,
            state: draft.state?,
            cause: draft.cause,
            since_boottime: draft.since?,
            written_boottime: draft.written?,
            ip: draft.ip,
            router: draft.router,
            restarts: draft.restarts.unwrap_or(0),
            targets: targets.iter().map(TargetStatus::parse).collect::<Option<_>>()?,
            other: key::beside_interface(other),
        })
    }

    /// The records.
    pub fn render(&self) -> Vec<text::Record> {
        let draft = Draft {
            state: Some(self.state),
            cause: self.cause,
            since: Some(self.since_boottime),
            written: Some(self.written_boottime),
            ip: self.ip,
            router: self.router,
            restarts: Some(self.restarts),
        };
        let mut uplink = text::Record::new().with(IF, self.interface.as_str());
        key::write(UPLINK, &draft, &self.other, &mut uplink);
        [uplink].into_iter().chain(self.targets.iter().map(TargetStatus::render)).collect()
    }
}

impl TargetStatus {
    fn parse(record: &text::Record) -> Option<TargetStatus> {
        let (mut target, mut other) = (TargetStatus::default(), Other::new());
        key::read(TARGET, record, Author::Program, &mut target, &mut other).ok()?;
        target.other = other;
        Some(target).filter(|t| !t.name.is_empty())
    }

    fn render(&self) -> text::Record {
        let mut record = text::Record::new();
        key::write(TARGET, self, &self.other, &mut record);
        record
    }
}

impl UplinkState {
    const ALL: [UplinkState; 5] =
        [UplinkState::Idle, UplinkState::Unknown, UplinkState::Good, UplinkState::Bad, UplinkState::Recovering];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            UplinkState::Idle => "idle",
            UplinkState::Unknown => "unknown",
            UplinkState::Good => "good",
            UplinkState::Bad => "bad",
            UplinkState::Recovering => "recovering",
        }
    }

    fn parse(text: &str) -> Option<UplinkState> {
        UplinkState::ALL.into_iter().find(|state| state.word() == text)
    }
}

impl fmt::Display for UplinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Cause {
    const ALL: [Cause; 3] = [Cause::Found, Cause::Router, Cause::Behind];

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Found => "found",
            Cause::Router => "router",
            Cause::Behind => "behind",
        }
    }

    fn parse(text: &str) -> Option<Cause> {
        Cause::ALL.into_iter().find(|cause| cause.word() == text)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

fn target(slot: &mut String, text: &str) -> Vec<String> {
    text.clone_into(slot);
    Vec::new()
}

fn number(slot: &mut u64, text: &str) -> Vec<String> {
    let mut read = None;
    let bad = one(&mut read, text, decimal);
    *slot = read.unwrap_or(0);
    bad
}

fn micros(text: &str) -> Option<Duration> {
    decimal(text).map(Duration::from_micros)
}

fn show_micros(time: Option<Duration>) -> String {
    show(&time.map(|time| time.as_micros()))
}

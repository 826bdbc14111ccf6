//! Where a daemon's news go: to a program that is run (script), into a file that fw reads (record),
//! or to both. PURE.
//!
//! One program runs at a time; what comes meanwhile is queued, so the protocol never waits for it.
//! A record is written first and fw is told afterwards. What fails is tried again only where a new
//! try can succeed: a full disk is tried again, more and more rarely; a directory that does not let
//! us in is named once, and the next try is the next news. At boot a daemon may be ready before fw
//! has a supervisor, so fw is told again for five seconds before that is worth a line. The shell is
//! `netd::sink`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::complaints::Complaints;
use crate::record::text::Record;

/// News that wait for a program; when there are more, the oldest are dropped: the newest state
/// counts.
const MAX_QUEUE: usize = 16;
/// From a write that failed to the next try; each further pause is twice as long ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ... up to this one.
const LONGEST_PAUSE: Duration = Duration::from_secs(32);
/// From telling a service without a supervisor to telling it again; each further pause is twice as
/// long ...
const FIRST_TELLING: Duration = Duration::from_millis(20);
/// ... and so many together last five seconds.
const TELLINGS: u32 = 8;

/// Keys of [`Complaints`].
const WRITING: &str = "record";
const TELLING: &str = "fw";

/// Names and values for the program's environment.
pub type Variables = Vec<(String, Vec<u8>)>;

/// One change of what the daemon knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The program's argument; `None`: the program is not told.
    pub event: Option<&'static str>,
    /// Its variables, already safe to export.
    pub env: Variables,
    /// What becomes of the record.
    pub record: RecordChange,
}

impl News {
    /// News for the record alone.
    pub fn of_record(record: RecordChange) -> News {
        News { event: None, env: Vec::new(), record }
    }
}

/// What becomes of the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RecordChange {
    /// Nothing.
    #[default]
    Keep,
    /// It is written.
    Publish(Record),
    /// It is removed.
    Withdraw,
}

/// How a run of the program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be started: why.
    NotStarted(String),
    /// The runner did not accept the variables.
    Refused,
    /// The runner was not reached: why. It may be busy with nothing, so the next run is tried.
    NotAsked(String),
    /// The runner is gone, and no program is run any more.
    RunnerGone,
}

/// A run of the program that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The program's argument.
    pub event: &'static str,
    /// Its exit code; `None`: it was killed or could not be started, and the log has said so.
    pub code: Option<i32>,
}

/// What came of writing or removing the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// The file is as it should be.
    Done {
        /// It was not so before.
        changed: bool,
    },
    /// It is not.
    Failed {
        /// For the log.
        why: String,
        /// A new try cannot succeed while the reason lasts, and time does not end it.
        lasts: bool,
    },
}

/// What came of telling fw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The letter is in its fifo.
    Done,
    /// It is not.
    Failed {
        /// For the log.
        why: String,
        /// The service has no supervisor at this moment, which may come.
        unheard: bool,
    },
}

/// What the machine is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// By the daemon.
    News(News),
    /// After [`Action::Run`].
    Ended(Outcome),
    /// After [`Action::Record`].
    Written(Written),
    /// After [`Action::Tell`].
    Told(Told),
    /// The deadline has passed.
    Timer,
}

/// What the shell does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Has the program run; [`Event::Ended`] says how that ended.
    Run {
        /// Its argument.
        event: &'static str,
        /// Its variables.
        env: Variables,
    },
    /// Writes or removes the record at once; [`Event::Written`] says what came of it.
    Record(RecordChange),
    /// Sends the letter to fw at once; [`Event::Told`] says what came of it.
    Tell,
    /// The daemon is told of it.
    Ended(Ended),
    /// One line for the log.
    Log(String),
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Sink {
    script: Option<Script>,
    record: Option<Place>,
    complaints: Complaints,
}

/// The program.
#[derive(Clone, Debug)]
struct Script {
    /// As lines of the log name it.
    name: String,
    state: Runs,
    queue: VecDeque<(&'static str, Variables)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Runs {
    Nothing,
    This(&'static str),
    /// The runner was killed.
    NeverAgain,
}

/// The record and the service that reads it.
#[derive(Clone, Debug)]
struct Place {
    /// As lines of the log name them.
    file: String,
    service: String,
    /// The newest change, which has to be written or is.
    newest: RecordChange,
    /// When it is tried again, and how long the pause before that was.
    again: Option<(Duration, Duration)>,
    /// fw was told of what this process knows.
    told: bool,
    /// When fw is told again, and how often that was done.
    retelling: Option<(Duration, u32)>,
}

impl Sink {
    /// Without a program and without a record, which [`Sink::with_script`] and
    /// [`Sink::with_record`] add.
    pub fn new() -> Sink {
        Sink::default()
    }

    /// The program is called `name` in the log.
    #[must_use]
    pub fn with_script(self, name: String) -> Sink {
        Sink { script: Some(Script { name, state: Runs::Nothing, queue: VecDeque::new() }), ..self }
    }

    /// The record and the service that is told are called so in the log.
    #[must_use]
    pub fn with_record(self, file: String, service: String) -> Sink {
        let newest = RecordChange::Keep;
        Sink { record: Some(Place { file, service, newest, again: None, told: false, retelling: None }), ..self }
    }

    /// Whether it acts by a program.
    pub fn has_script(&self) -> bool {
        self.script.is_some()
    }

    /// Whether no program runs and none waits.
    pub fn is_idle(&self) -> bool {
        self.script.as_ref().is_none_or(|s| !matches!(s.state, Runs::This(_)) && s.queue.is_empty())
    }

    /// Whether no program can be run any more.
    pub fn is_lost(&self) -> bool {
        self.script.as_ref().is_some_and(|s| s.state == Runs::NeverAgain)
    }

    /// When the machine wants [`Event::Timer`].
    pub fn deadline(&self) -> Option<Duration> {
        let place = self.record.as_ref()?;
        let times = [place.again.map(|(at, _)| at), place.retelling.map(|(at, _)| at)];
        times.into_iter().flatten().min()
    }

    /// One step.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::News(News { event, env, record }) => {
                let mut actions: Vec<Action> =
                    self.record.as_mut().and_then(|p| p.change(record)).into_iter().collect();
                if let (Some(script), Some(event)) = (&mut self.script, event) {
                    actions.extend(script.push(event, env));
                }
                actions
            }
            Event::Ended(outcome) => self.script.as_mut().map(|s| s.ended(outcome)).unwrap_or_default(),
            Event::Written(written) => {
                let complaints = &mut self.complaints;
                self.record.as_mut().map(|p| p.written(now, written, complaints)).unwrap_or_default()
            }
            Event::Told(told) => {
                let complaints = &mut self.complaints;
                self.record.as_mut().and_then(|p| p.told(now, told, complaints)).into_iter().collect()
            }
            Event::Timer => self.record.as_mut().map(|p| p.timer(now)).unwrap_or_default(),
        }
    }
}

impl Script {
    fn push(&mut self, event: &'static str, env: Variables) -> Vec<Action> {
        match self.state {
            Runs::Nothing => {
                self.queue.push_back((event, env));
                self.next().into_iter().collect()
            }
            Runs::This(_) => {
                // Of two in a row of the same kind only the last one is true.
                if self.queue.back().is_some_and(|(last, _)| *last == event) {
                    self.queue.pop_back();
                }
                let full = self.queue.len() == MAX_QUEUE;
                if full {
                    self.queue.pop_front();
                }
                self.queue.push_back((event, env));
                full.then(|| Action::Log(format!("{} is too slow: dropping an event", self.name))).into_iter().collect()
            }
            Runs::NeverAgain => Vec::new(),
        }
    }

    fn next(&mut self) -> Option<Action> {
        let (event, env) = self.queue.pop_front()?;
        self.state = Runs::This(event);
        Some(Action::Run { event, env })
    }

    fn ended(&mut self, outcome: Outcome) -> Vec<Action> {
        let event = match self.state {
            Runs::This(event) => event,
            // The runner's end is noticed while nothing runs, too.
            Runs::Nothing | Runs::NeverAgain if outcome == Outcome::RunnerGone => "",
            Runs::Nothing | Runs::NeverAgain => return Vec::new(),
        };
        self.state = Runs::Nothing;
        let name = &self.name;
        let (code, line) = match outcome {
            // What an exit code means, the daemon knows; a killed program is worth a line
            // everywhere.
            Outcome::Code(code) => (Some(code), None),
            Outcome::Signal(signal) => (None, Some(format!("{name} was killed by signal {signal}"))),
            Outcome::NotStarted(why) => (None, Some(format!("can't execute '{name}': {why}"))),
            Outcome::Refused => (None, Some(format!("'{name}' is not run with these variables"))),
            Outcome::NotAsked(why) => (None, Some(format!("can't have '{name}' run: {why}"))),
            Outcome::RunnerGone => {
                self.state = Runs::NeverAgain;
                self.queue.clear();
                (None, None)
            }
        };
        let next = self.next();
        line.map(Action::Log).into_iter().chain([Action::Ended(Ended { event, code })]).chain(next).collect()
    }
}

impl Place {
    fn change(&mut self, change: RecordChange) -> Option<Action> {
        if change == RecordChange::Keep {
            return None;
        }
        self.newest = change;
        self.again = None;
        Some(Action::Record(self.newest.clone()))
    }

    fn written(&mut self, now: Duration, written: Written, complaints: &mut Complaints) -> Vec<Action> {
        match written {
            Written::Done { changed } => {
                self.again = None;
                let was_wrong = complaints.right(WRITING);
                let line = was_wrong.then(|| Action::Log(format!("{} is {}", self.file, self.past())));
                // The first one is told always: a predecessor may have been killed between writing
                // it and telling. A record that was not there to be removed means nothing to fw.
                let news = changed || (!self.told && self.newest != RecordChange::Withdraw);
                self.told = true;
                // What is told now stands for all tellings that were still to come.
                self.retelling = self.retelling.filter(|_| !news);
                line.into_iter().chain(news.then_some(Action::Tell)).collect()
            }
            Written::Failed { why, lasts } => {
                let pause = self.again.map_or(FIRST_PAUSE, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
                self.again = (!lasts).then_some((now + pause, pause));
                let hope = if lasts { "" } else { ": trying again" };
                let line = format!("unable to {} {}: {why}{hope}", self.present(), self.file);
                complaints.wrong(WRITING, &line).then_some(Action::Log(line)).into_iter().collect()
            }
        }
    }

    fn present(&self) -> &'static str {
        if self.newest == RecordChange::Withdraw { "remove" } else { "write" }
    }

    fn past(&self) -> &'static str {
        if self.newest == RecordChange::Withdraw { "removed" } else { "written" }
    }

    fn told(&mut self, now: Duration, told: Told, complaints: &mut Complaints) -> Option<Action> {
        match told {
            Told::Done => {
                self.retelling = None;
                complaints.right(TELLING);
                None
            }
            Told::Failed { why, unheard } => {
                let done = self.retelling.map_or(0, |(_, done)| done);
                self.retelling = (unheard && done < TELLINGS).then(|| (now + FIRST_TELLING * (1 << done), done + 1));
                if self.retelling.is_some() {
                    return None;
                }
                // The file is in its place, and what it says is good: this is not an error of the
                // daemon's own work.
                let line = format!("published, but cannot notify {}: {why}", self.service);
                complaints.wrong(TELLING, &line).then_some(Action::Log(line))
            }
        }
    }

    fn timer(&mut self, now: Duration) -> Vec<Action> {
        let is_due = |at: Duration| at <= now;
        let write = self.again.is_some_and(|(at, _)| is_due(at)).then(|| Action::Record(self.newest.clone()));
        let tell = self.retelling.is_some_and(|(at, _)| is_due(at)).then_some(Action::Tell);
        write.into_iter().chain(tell).collect()
    }
}

#[cfg(test)]
mod tests;

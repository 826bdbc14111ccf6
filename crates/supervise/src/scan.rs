//! Which runsv is to run: a directory listing against the children that exist, as a pure machine.
//!
//! What it is: runsvdir(8)'s rules. A service is an inode, not a name: a renamed directory goes on,
//! a replaced one is another service. What it is not: reading directories, spawning, waiting.
//! Called by runsvdir.rs.

use std::ffi::{OsStr, OsString};
use std::time::{Duration, SystemTime};

/// A runsv that ends sooner than this after its start is not started again at once.
const TOO_SOON: Duration = Duration::from_secs(1);
/// The first pause, and the pause after a runsv that was told to exit. runit looks again a second
/// after an end, too.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The pause doubles up to this while a runsv cannot run, so that its complaint is not repeated
/// every second.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a new directory without an executable ./run may take to get one, before runsv
/// complains.
const GRACE: Duration = Duration::from_secs(1);
/// How long a directory may be away and still be the same service. `ln -sfn` of busybox removes a
/// link and makes it again. runit looks every five seconds and sees neither.
const AWAY: Duration = Duration::from_secs(1);

/// So many runsvs are started before anything else is looked at. With a thousand services, the
/// first must not wait for the last.
const STARTS_AT_ONCE: usize = 16;

/// The identity of a service: device, inode and, where the file system has it, the time of birth. A
/// directory that is removed and made again may get the same inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ident {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) born: Option<SystemTime>,
}

/// A subdirectory, or a symbolic link to a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) ident: Ident,
    /// It has an executable ./run.
    pub(crate) ready: bool,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// What is in the directory now.
    Listing(Vec<Entry>),
    /// The runsv that [`Action::Start`] asked for exists.
    Started(Ident, u32),
    /// It could not be started.
    StartFailed(Ident),
    /// A runsv that is not our child runs there: that of a runsvdir that was killed.
    Occupied(Ident),
    /// That runsv has ended.
    Freed(Ident),
    /// It has ended; `told` when its exit code was 0: a command told it to exit.
    Ended { pid: u32, told: bool },
    /// The time of [`Scan::deadline`] has come.
    Tick,
}

/// A task for the shell. A runsv is a child, by its process id, or one in our own process, by its
/// place there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start `runsv name`. Answers: Started, StartFailed, Occupied.
    Start(Ident, OsString),
    /// Send TERM to it.
    Stop(u32),
    /// Send `x` to the runsv that is not our child.
    StopOther(Ident),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Without an executable ./run so far.
    Fresh { until: Duration },
    /// Start was asked for.
    Starting { pause: Duration },
    /// Our child; `pause` is what went before it.
    Running { pid: u32, since: Duration, pause: Duration },
    /// To be started at `until`. `told`: the runsv before was told to exit, and has left nothing.
    Waiting { until: Duration, pause: Duration, told: bool },
    /// Another's child.
    Other,
}

#[derive(Clone, Debug)]
struct Child {
    name: OsString,
    ident: Ident,
    state: State,
    /// It is not in the directory now. At this moment it is given up.
    away_until: Option<Duration>,
}

/// The machine.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    children: Vec<Child>,
}

impl Scan {
    /// Takes one event. `now` is CLOCK_BOOTTIME.
    pub(crate) fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        // No runsv is started in answer to a start. Nor after an end: other runsvs may have ended
        // with it, and a new one could get the number of one whose end has not been told yet.
        let not_now =
            matches!(event, Event::Started(..) | Event::StartFailed(_) | Event::Occupied(_) | Event::Ended { .. });
        match event {
            Event::Listing(entries) => self.listing(now, entries, &mut out),
            Event::Started(ident, pid) => {
                self.set(ident, |state| State::Running { pid, since: now, pause: pause_of(state) })
            }
            Event::StartFailed(ident) => self.set(ident, |state| later(now, pause_of(state))),
            Event::Occupied(ident) => self.set(ident, |_| State::Other),
            Event::Freed(ident) => {
                self.set(ident, |_| State::Waiting { until: now, pause: Duration::ZERO, told: false });
            }
            Event::Ended { pid, told } => self.ended(now, pid, told),
            Event::Tick => {}
        }
        out.extend(self.give_up(|child| child.away_until.is_some_and(|until| now >= until)));
        let mut starts = if not_now { STARTS_AT_ONCE } else { 0 };
        for child in self.children.iter_mut().filter(|child| child.away_until.is_none()) {
            if starts == STARTS_AT_ONCE {
                break;
            }
            let pause = match child.state {
                State::Fresh { until } if now >= until => Duration::ZERO,
                State::Waiting { until, pause, .. } if now >= until => pause,
                State::Fresh { .. }
                | State::Starting { .. }
                | State::Running { .. }
                | State::Waiting { .. }
                | State::Other => {
                    continue;
                }
            };
            starts += 1;
            child.state = State::Starting { pause };
            out.push(Action::Start(child.ident, child.name.clone()));
        }
        out
    }

    /// When [`Event::Tick`] is due, CLOCK_BOOTTIME.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let due = self.children.iter().filter_map(|child| match (child.away_until, child.state) {
            (Some(until), _) | (None, State::Fresh { until } | State::Waiting { until, .. }) => Some(until),
            (None, State::Starting { .. } | State::Running { .. } | State::Other) => None,
        });
        due.min()
    }

    /// Everything is to end: TERM to every runsv.
    pub(crate) fn stop_all(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.children).into_iter().filter_map(|child| child.stop()).collect()
    }

    /// The runsvs that run, and the names of their services.
    pub(crate) fn running(&self) -> impl Iterator<Item = (u32, &OsStr)> {
        self.children.iter().filter_map(|child| match child.state {
            State::Running { pid, .. } => Some((pid, child.name.as_os_str())),
            State::Fresh { .. } | State::Starting { .. } | State::Waiting { .. } | State::Other => None,
        })
    }

    /// The services that may run without a runsv: theirs was not told to exit, and the next one
    /// waits for its start.
    pub(crate) fn left(&self) -> Vec<(Ident, OsString)> {
        let left = |c: &&Child| matches!(c.state, State::Waiting { told: false, .. });
        self.children.iter().filter(left).map(|c| (c.ident, c.name.clone())).collect()
    }

    /// Directories that wait for their ./run: the shell watches them.
    pub(crate) fn fresh(&self) -> impl Iterator<Item = &OsStr> {
        let fresh = |c: &&Child| c.away_until.is_none() && matches!(c.state, State::Fresh { .. });
        self.children.iter().filter(fresh).map(|c| c.name.as_os_str())
    }

    fn set(&mut self, ident: Ident, to: impl Fn(State) -> State) {
        for child in self.children.iter_mut().filter(|c| c.ident == ident) {
            child.state = to(child.state);
        }
    }

    fn ended(&mut self, now: Duration, ended: u32, told: bool) {
        for child in &mut self.children {
            match child.state {
                State::Running { pid, since, pause } if pid == ended => {
                    child.state = match (told, now.saturating_sub(since) < TOO_SOON) {
                        (true, _) => State::Waiting { until: now + FIRST_PAUSE, pause: Duration::ZERO, told },
                        (false, true) => later(now, pause),
                        (false, false) => State::Waiting { until: now, pause: Duration::ZERO, told },
                    };
                }
                State::Fresh { .. }
                | State::Starting { .. }
                | State::Running { .. }
                | State::Waiting { .. }
                | State::Other => {}
            }
        }
    }

    /// Forgets these, and says how their runsvs are ended.
    fn give_up(&mut self, which: impl Fn(&Child) -> bool) -> Vec<Action> {
        let (lost, kept) = self.children.drain(..).partition(which);
        self.children = kept;
        lost.into_iter().filter_map(Child::stop).collect()
    }

    fn listing(&mut self, now: Duration, entries: Vec<Entry>, out: &mut Vec<Action>) {
        let known: Vec<Ident> = self.children.iter().map(|child| child.ident).collect();
        for child in &mut self.children {
            let is_there = entries.iter().any(|e| e.ident == child.ident);
            child.away_until = if is_there { None } else { child.away_until.or(Some(now + AWAY)) };
        }
        // A new directory that has the name of a missing one has replaced it. A known directory may
        // only be exchanging its name with it.
        let new = |e: &&Entry| !known.contains(&e.ident);
        out.extend(
            self.give_up(|child| {
                child.away_until.is_some() && entries.iter().filter(new).any(|e| e.name == child.name)
            }),
        );
        for entry in &entries {
            let Some(child) = self.children.iter_mut().find(|c| c.ident == entry.ident) else {
                let until = if entry.ready { now } else { now + GRACE };
                self.children.push(Child {
                    name: entry.name.clone(),
                    ident: entry.ident,
                    state: State::Fresh { until },
                    away_until: None,
                });
                continue;
            };
            // Renamed: the next start has the new name. Of two names the one that was used stays.
            if !entries.iter().any(|e| e.ident == child.ident && e.name == child.name) {
                child.name.clone_from(&entry.name);
            }
            match child.state {
                State::Fresh { .. } if entry.ready => child.state = State::Fresh { until: now },
                State::Fresh { .. }
                | State::Starting { .. }
                | State::Running { .. }
                | State::Waiting { .. }
                | State::Other => {}
            }
        }
    }
}

impl Child {
    /// The action that ends its runsv.
    fn stop(self) -> Option<Action> {
        match self.state {
            State::Running { pid, .. } => Some(Action::Stop(pid)),
            State::Other => Some(Action::StopOther(self.ident)),
            State::Fresh { .. } | State::Starting { .. } | State::Waiting { .. } => None,
        }
    }
}

fn pause_of(state: State) -> Duration {
    match state {
        State::Starting { pause } | State::Running { pause, .. } | State::Waiting { pause, .. } => pause,
        State::Fresh { .. } | State::Other => Duration::ZERO,
    }
}

fn later(now: Duration, pause: Duration) -> State {
    let pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    State::Waiting { until: now + pause, pause, told: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn id(ino: u64) -> Ident {
        Ident { dev: 1, ino, born: None }
    }

    fn entry(name: &str, ino: u64) -> Entry {
        Entry { name: name.into(), ident: id(ino), ready: true }
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn list(scan: &mut Scan, now: Duration, entries: &[Entry]) -> Vec<Action> {
        scan.step(now, Event::Listing(entries.to_vec()))
    }

    /// What is started in the turn in which this end is told.
    fn ended(scan: &mut Scan, now: Duration, pid: u32, told: bool) -> Vec<Action> {
        assert_eq!(scan.step(now, Event::Ended { pid, told }), []);
        assert_eq!(scan.deadline().is_some_and(|at| at <= now), !told);
        scan.step(now, Event::Tick)
    }

    /// A scan with one service `a` that runs as pid 10 since second 100.
    fn running() -> Scan {
        let mut scan = Scan::default();
        assert_eq!(list(&mut scan, secs(100), &[entry("a", 1)]), [Action::Start(id(1), "a".into())]);
        assert_eq!(scan.step(secs(100), Event::Started(id(1), 10)), []);
        scan
    }

    #[test]
    fn a_new_directory_is_started_and_a_removed_one_stopped_and_forgotten() {
        let mut scan = running();
        assert_eq!(list(&mut scan, secs(101), &[entry("a", 1)]), []);
        assert_eq!(list(&mut scan, secs(102), &[]), []);
        assert_eq!(scan.deadline(), Some(secs(103)));
        // Another listing does not begin the second anew.
        assert_eq!(list(&mut scan, secs(102) + AWAY / 2, &[]), []);
        assert_eq!(scan.step(secs(103), Event::Tick), [Action::Stop(10)]);
        assert_eq!(scan.step(secs(104), Event::Ended { pid: 10, told: true }), []);
        assert_eq!(scan.deadline(), None);
    }

    #[test]
    fn a_directory_that_is_back_within_a_second_is_the_same_service() {
        let (away, back) = (secs(102), secs(103) - Duration::from_millis(1));
        let mut scan = running();
        assert_eq!([list(&mut scan, away, &[]), list(&mut scan, back, &[entry("b", 1)])], [vec![], vec![]]);
        assert_eq!((scan.deadline(), scan.step(secs(110), Event::Tick)), (None, vec![]));
        // It ends while it is away: it is started again when it is back, not before.
        assert_eq!(list(&mut scan, secs(111), &[]), []);
        assert_eq!(scan.step(secs(111), Event::Ended { pid: 10, told: false }), []);
        assert_eq!(scan.step(secs(111), Event::Tick), []);
        let now = secs(111) + AWAY / 2;
        assert_eq!(list(&mut scan, now, &[entry("b", 1)]), [Action::Start(id(1), "b".into())]);
        // One that cannot run does not lose its pause by it.
        assert_eq!(scan.step(now, Event::Started(id(1), 11)), []);
        assert_eq!(scan.step(now, Event::Ended { pid: 11, told: false }), []);
        let due = scan.deadline().unwrap();
        assert_eq!([list(&mut scan, now, &[]), list(&mut scan, now, &[entry("b", 1)])], [vec![], vec![]]);
        assert_eq!(scan.deadline(), Some(due));
        // Nor is the runsv of a killed runsvdir told to end.
        let mut scan = running();
        assert_eq!(scan.step(secs(100), Event::Occupied(id(1))), []);
        assert_eq!([list(&mut scan, away, &[]), list(&mut scan, back, &[entry("a", 1)])], [vec![], vec![]]);
        assert_eq!(scan.deadline(), None);
    }

    #[test]
    fn two_directories_that_exchange_their_names_go_on() {
        let mut scan = running();
        list(&mut scan, secs(101), &[entry("a", 1), entry("b", 2)]);
        scan.step(secs(101), Event::Started(id(2), 11));
        for entries in [vec![entry("b", 2)], vec![entry("a", 2)], vec![entry("a", 2), entry("b", 1)]] {
            assert_eq!(list(&mut scan, secs(102), &entries), []);
        }
        assert_eq!((scan.deadline(), scan.children.len()), (None, 2));
    }

    #[test]
    fn a_renamed_directory_goes_on_and_a_replaced_one_is_another() {
        let mut scan = running();
        assert_eq!(list(&mut scan, secs(101), &[entry("b", 1)]), []);
        let replaced = list(&mut scan, secs(102), &[entry("b", 2)]);
        assert_eq!(replaced, [Action::Stop(10), Action::Start(id(2), "b".into())]);
    }

    #[test]
    fn two_names_of_one_directory_are_one_service() {
        let mut scan = running();
        assert_eq!(list(&mut scan, secs(101), &[entry("z", 1), entry("a", 1)]), []);
        assert_eq!(list(&mut scan, secs(102), &[entry("z", 1)]), []);
        assert_eq!(ended(&mut scan, secs(110), 10, false), [Action::Start(id(1), "z".into())]);
    }

    #[test]
    fn a_killed_runsv_is_started_at_once_and_one_that_was_told_to_exit_after_a_second() {
        let mut scan = running();
        assert_eq!(ended(&mut scan, secs(110), 10, false), [Action::Start(id(1), "a".into())]);
        let mut scan = running();
        assert_eq!(scan.step(secs(110), Event::Ended { pid: 10, told: true }), []);
        assert_eq!(scan.left(), []);
        assert_eq!(scan.deadline(), Some(secs(111)));
        assert_eq!(scan.step(secs(111), Event::Tick), [Action::Start(id(1), "a".into())]);
    }

    #[test]
    fn those_that_end_together_are_not_mistaken_for_what_is_started_then() {
        let mut scan = Scan::default();
        list(&mut scan, secs(1), &[entry("a", 1), entry("b", 2), entry("c", 3), entry("d", 4)]);
        (0..4).for_each(|n| drop(scan.step(secs(1), Event::Started(id(u64::from(n) + 1), n))));
        // With -1 the numbers are places. Those of a and b are free when their ends are told, and c
        // and d are due then.
        (2..4).for_each(|pid| drop(scan.step(secs(9), Event::Ended { pid, told: true })));
        let starts = [0, 1].map(|pid| scan.step(secs(10), Event::Ended { pid, told: true }));
        assert_eq!(starts, [const { Vec::new() }; 2]);
        let due = [Action::Start(id(3), "c".into()), Action::Start(id(4), "d".into())];
        assert_eq!(scan.step(secs(10), Event::Tick), due);
    }

    #[test]
    fn a_runsv_that_cannot_run_is_tried_ever_more_rarely_and_never_given_up() {
        let mut scan = running();
        let mut now = secs(100);
        let mut pauses = Vec::new();
        for pid in 10..20 {
            assert_eq!(scan.step(now, Event::Ended { pid, told: false }), []);
            let due = scan.deadline().unwrap();
            pauses.push((due - now).as_secs());
            assert_eq!(scan.step(due - Duration::from_millis(1), Event::Tick), []);
            assert_eq!(scan.left(), [(id(1), "a".into())]);
            assert_eq!(scan.step(due, Event::Tick), [Action::Start(id(1), "a".into())]);
            assert_eq!(scan.step(due, Event::Started(id(1), pid + 1)), []);
            assert_eq!(scan.left(), []);
            now = due;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        // One that lived is at the beginning again.
        ended(&mut scan, now + secs(5), 20, false);
        scan.step(now + secs(5), Event::Started(id(1), 21));
        scan.step(now + secs(5), Event::Ended { pid: 21, told: false });
        assert_eq!(scan.deadline(), Some(now + secs(6)));
    }

    #[test]
    fn a_runsv_that_could_not_be_started_is_tried_again() {
        let mut scan = Scan::default();
        list(&mut scan, secs(1), &[entry("a", 1)]);
        assert_eq!(scan.step(secs(1), Event::StartFailed(id(1))), []);
        assert_eq!(scan.step(secs(2), Event::Tick), [Action::Start(id(1), "a".into())]);
    }

    #[test]
    fn the_runsv_of_a_killed_runsvdir_is_left_alone_until_it_ends() {
        let mut scan = Scan::default();
        list(&mut scan, secs(1), &[entry("a", 1)]);
        assert_eq!(scan.step(secs(1), Event::Occupied(id(1))), []);
        assert_eq!(scan.deadline(), None);
        assert_eq!(list(&mut scan, secs(50), &[entry("a", 1)]), []);
        assert_eq!(scan.step(secs(60), Event::Freed(id(1))), [Action::Start(id(1), "a".into())]);
        scan.step(secs(60), Event::Occupied(id(1)));
        assert_eq!(list(&mut scan, secs(61), &[]), []);
        assert_eq!(scan.step(secs(62), Event::Tick), [Action::StopOther(id(1))]);
    }

    #[test]
    fn a_directory_that_is_still_being_filled_is_waited_for_but_not_for_long() {
        let mut scan = Scan::default();
        let empty = Entry { ready: false, ..entry("a", 1) };
        assert_eq!(list(&mut scan, secs(1), std::slice::from_ref(&empty)), []);
        assert_eq!(scan.fresh().collect::<Vec<_>>(), ["a"]);
        let mut other = Scan { children: scan.children.clone() };
        assert_eq!(list(&mut scan, secs(1), &[entry("a", 1)]), [Action::Start(id(1), "a".into())]);
        assert_eq!(other.step(secs(2), Event::Tick), [Action::Start(id(1), "a".into())]);
        assert_eq!(other.fresh().count(), 0);
    }

    #[test]
    fn many_are_started_in_turns() {
        let mut scan = Scan::default();
        let entries: Vec<Entry> = (0..40).map(|n| entry(&n.to_string(), n)).collect();
        let turns = [list(&mut scan, secs(1), &entries).len(), scan.step(secs(1), Event::Tick).len()];
        assert_eq!((turns, scan.deadline()), ([16, 16], Some(secs(1))));
        assert_eq!(scan.step(secs(1), Event::Tick).len(), 8);
        assert_eq!((scan.step(secs(1), Event::Tick), scan.deadline()), (vec![], None));
    }

    #[test]
    fn at_the_end_everything_is_told_to_end() {
        let mut scan = running();
        list(&mut scan, secs(101), &[entry("a", 1), entry("b", 2)]);
        scan.step(secs(101), Event::Occupied(id(2)));
        assert_eq!(scan.stop_all(), [Action::Stop(10), Action::StopOther(id(2))]);
    }
}

//! PURE: when `current` is full or old enough, what a rotated file is called, which old files go,
//! and what the processor of rotated files is doing.
//!
//! It is not: doing any of it (dir.rs does), nor reading a clock: `now` is the time since boot.
//! Source: svlogd(8) of runit 2.1.2, sections LOG FILE ROTATION and PROCESSOR.

use std::time::Duration;

/// How much fits into `current`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    size: u64,
    max: u64,
    /// At this size a file is rotated at the end of a line. `None` when lines may be as long as
    /// files.
    at_line_end: Option<u64>,
}

/// What can be done with bytes that are to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// This many of them fit, at least one.
    Put(usize),
    /// None: rotate first.
    Rotate,
}

impl Growth {
    /// A file of `size` bytes that may grow to `max` (0: without end), with lines of `len` bytes.
    pub(super) fn new(size: u64, max: u64, len: usize) -> Growth {
        let max = if max == 0 { u64::MAX } else { max };
        Growth { size, max, at_line_end: max.checked_sub(len as u64) }
    }

    /// Bytes in the file, those of them that wait to be written included.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// How many of `len` bytes fit.
    pub(super) fn room(&self, len: usize) -> Room {
        match self.max.saturating_sub(self.size) {
            0 => Room::Rotate,
            room => Room::Put(usize::try_from(room).unwrap_or(usize::MAX).min(len)),
        }
    }

    /// `count` bytes were put; whether to rotate now.
    pub(super) fn grew(&mut self, count: usize, ends_line: bool) -> bool {
        self.size = self.size.saturating_add(count as u64);
        ends_line && self.at_line_end.is_some_and(|limit| self.size >= limit)
    }
}

/// The age at which `current` is rotated (`tSEC`), counted in whole periods from when the file was
/// begun, as runit counts, but without waking up for an empty file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    begun: Duration,
    period: Option<Duration>,
}

impl Age {
    /// A file begun now.
    pub(super) fn new(now: Duration, period: Option<Duration>) -> Age {
        Age { begun: now, period }
    }

    /// The first bytes are put into the empty file: periods that passed before do not count.
    pub(super) fn first_bytes(&mut self, now: Duration) {
        let Some(period) = self.period.filter(|p| !p.is_zero()) else { return };
        let passed = now.saturating_sub(self.begun).as_nanos() / period.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        self.begun = self.begun.saturating_add(period.saturating_mul(passed)).min(now);
    }

    /// When a file that is not empty is to be rotated.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.period.map(|period| self.begun.saturating_add(period))
    }
}

/// Length of `@`, 24 hexadecimal digits and an extension such as `.s`.
const OLD_NAME_LEN: usize = 27;

/// Whether a name is that of an old log file, finished (`.s`) or not processed (`.u`).
fn is_old(name: &str) -> bool {
    name.len() == OLD_NAME_LEN && name.starts_with('@') && !name.ends_with(".t") && name.get(25..26) == Some(".")
}

/// Whether a name is what a processor that did not finish left behind.
pub(super) fn is_leftover(name: &str) -> bool {
    name.len() == OLD_NAME_LEN && name.starts_with('@') && name.ends_with(".t")
}

/// The stamp for a file rotated at `stamp` (`@` and 24 hexadecimal digits): that one, or when an
/// old file has it or a later one (the wall clock went back: a router starts in 1970), the next
/// after the latest. Old files then stay in the order they were written in, and pruning never takes
/// the newest.
pub(super) fn unused_stamp(stamp: &str, names: &[String]) -> String {
    let latest = names.iter().filter(|name| is_old(name) || is_leftover(name)).filter_map(|name| name.get(..25)).max();
    match latest {
        Some(latest) if latest >= stamp => next_stamp(latest).unwrap_or_else(|| stamp.to_owned()),
        Some(_) | None => stamp.to_owned(),
    }
}

/// One nanosecond later. `None` when it is not a stamp.
fn next_stamp(stamp: &str) -> Option<String> {
    let secs = u64::from_str_radix(stamp.get(1..17)?, 16).ok()?;
    let nanos = u32::from_str_radix(stamp.get(17..25)?, 16).ok()?;
    let (secs, nanos) = if nanos < 999_999_999 { (secs, nanos + 1) } else { (secs.checked_add(1)?, 0) };
    Some(format!("@{secs:016x}{nanos:08x}"))
}

/// The old file to remove so that `keep` are left, oldest first: one, as runit removes one per
/// rotation. `busy` is the file that the processor has in hand: it is neither counted nor removed.
pub(super) fn oldest<'a>(names: &'a [String], keep: usize, busy: Option<&str>) -> Option<&'a str> {
    let old = || names.iter().map(String::as_str).filter(|name| is_old(name) && Some(*name) != busy);
    if old().count() > keep { old().min() } else { None }
}

/// Stamps of the files whose processor was done when svlogd was killed: both its output and its
/// input are there.
pub(super) fn accepted(names: &[String]) -> impl Iterator<Item = &str> {
    let outputs = names.iter().filter(|name| is_old(name)).filter_map(|name| name.strip_suffix(".s"));
    outputs.filter(|stamp| names.iter().any(|name| name.strip_suffix(".u") == Some(stamp)))
}

/// What the processor of a log directory is doing. `P` is how the caller knows the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Processor<P> {
    /// No file is being processed.
    Idle,
    /// It runs on `@STAMP.u`.
    Running {
        /// The process.
        process: P,
        /// `@` and 24 hexadecimal digits.
        stamp: String,
    },
    /// It failed on `@STAMP.u` and is started again at `retry_at`.
    Failed {
        /// `@` and 24 hexadecimal digits.
        stamp: String,
        /// Time since boot.
        retry_at: Duration,
    },
}

/// What happened to a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessorEvent {
    /// The process ended.
    Exited {
        /// With exit code 0.
        well: bool,
    },
    /// Time passed.
    Tick,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ProcessorAction {
    /// `.t` becomes `.s`, `.u` is removed, newstate becomes state.
    Accept(String),
    /// Say that it failed; `.t` is of no use.
    Discard(String),
    /// Start it on this stamp.
    Start(String),
}

/// runit starts a failed processor again at once, which is a busy loop when it fails at once.
const RETRY: Duration = Duration::from_secs(1);

impl<P> Processor<P> {
    /// It failed, or could not be started.
    pub(super) fn failed(now: Duration, stamp: String) -> Processor<P> {
        Processor::Failed { stamp, retry_at: now.saturating_add(RETRY) }
    }

    /// The process, while there is one.
    pub(super) fn process(&self) -> Option<&P> {
        match self {
            Processor::Running { process, .. } => Some(process),
            Processor::Idle | Processor::Failed { .. } => None,
        }
    }

    /// The name of the file that must not be pruned.
    pub(super) fn busy(&self) -> Option<String> {
        match self {
            Processor::Running { stamp, .. } | Processor::Failed { stamp, .. } => Some(format!("{stamp}.u")),
            Processor::Idle => None,
        }
    }

    /// When to send [`ProcessorEvent::Tick`].
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self {
            Processor::Failed { retry_at, .. } => Some(*retry_at),
            Processor::Idle | Processor::Running { .. } => None,
        }
    }

    /// One step. After [`ProcessorAction::Start`] the caller sets [`Processor::Running`] or
    /// [`Processor::Failed`].
    pub(super) fn step(&mut self, now: Duration, event: ProcessorEvent) -> Option<ProcessorAction> {
        match (std::mem::replace(self, Processor::Idle), event) {
            (Processor::Running { stamp, .. }, ProcessorEvent::Exited { well: true }) => {
                Some(ProcessorAction::Accept(stamp))
            }
            (Processor::Running { stamp, .. }, ProcessorEvent::Exited { well: false }) => {
                *self = Processor::failed(now, stamp.clone());
                Some(ProcessorAction::Discard(stamp))
            }
            (Processor::Failed { stamp, retry_at }, ProcessorEvent::Tick) if now >= retry_at => {
                Some(ProcessorAction::Start(stamp))
            }
            (same @ Processor::Failed { .. }, ProcessorEvent::Tick | ProcessorEvent::Exited { .. })
            | (same @ Processor::Running { .. }, ProcessorEvent::Tick)
            | (same @ Processor::Idle, ProcessorEvent::Tick | ProcessorEvent::Exited { .. }) => {
                *self = same;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of the files that these writes give; the last is `current`.
    fn files(max: u64, len: usize, lines: &[usize]) -> Vec<u64> {
        let mut growth = Growth::new(0, max, len);
        let mut done = Vec::new();
        for &line in lines {
            let mut rest = line;
            while rest > 0 {
                let rotate = match growth.room(rest) {
                    Room::Rotate => true,
                    Room::Put(n) => {
                        rest -= n;
                        growth.grew(n, rest == 0)
                    }
                };
                if rotate {
                    done.push(growth.size());
                    growth = Growth::new(0, max, len);
                }
            }
        }
        done.push(growth.size());
        done
    }

    #[test]
    fn files_are_cut_where_debian_svlogd_cuts_them() {
        assert_eq!(files(2000, 1000, &[101; 25]), [1010, 1010, 505]);
        assert_eq!(files(1500, 1000, &[61; 30]), [549, 549, 549, 183]);
        // A maximum below LEN: hard cuts only.
        assert_eq!(files(10, 1000, &[9, 15, 3]), [10, 10, 7]);
        assert_eq!(files(0, 1000, &[5000; 3]), [15000]);
        assert_eq!(files(100, 100, &[10, 10]), [10, 10, 0]);
    }

    #[test]
    fn age_counts_whole_periods_and_never_wakes_for_an_empty_file() {
        let secs = Duration::from_secs;
        let mut age = Age::new(secs(100), Some(secs(10)));
        assert_eq!(age.deadline(), Some(secs(110)));
        age.first_bytes(secs(125));
        assert_eq!(age.deadline(), Some(secs(130)));
        age.first_bytes(secs(125));
        assert_eq!(age.deadline(), Some(secs(130)));
        assert_eq!(Age::new(secs(100), None).deadline(), None);
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_but_not_the_one_in_hand() {
        let list = names(&[
            "@400000000000000000000003.s",
            "@400000000000000000000001.u",
            "@400000000000000000000002.s",
            "@400000000000000000000000.t",
            "@foo",
            "current",
        ]);
        assert_eq!(oldest(&list, 3, None), None);
        assert_eq!(oldest(&list, 2, None), Some("@400000000000000000000001.u"));
        assert_eq!(oldest(&list, 2, Some("@400000000000000000000001.u")), None);
        assert_eq!(oldest(&list, 1, Some("@400000000000000000000001.u")), Some("@400000000000000000000002.s"));
    }

    #[test]
    fn input_and_output_of_a_processor_belong_together() {
        let stamp = |n: u32| format!("@40000000000000000000000{n}");
        let list: Vec<String> = [(1, "s"), (1, "u"), (2, "s"), (3, "u"), (3, "t")]
            .map(|(n, extension)| format!("{}.{extension}", stamp(n)))
            .into_iter()
            .chain(names(&["a.s", "a.u"]))
            .collect();
        assert_eq!(accepted(&list).collect::<Vec<_>>(), [stamp(1)]);
    }

    #[test]
    fn a_clock_that_went_back_keeps_the_order_of_the_files() {
        let list = names(&["@40000000650000003b9ac9ff.s", "@400000006500000000000001.s", "lock"]);
        assert_eq!(unused_stamp("@400000006500000100000000", &list), "@400000006500000100000000");
        assert_eq!(unused_stamp("@400000000000000a00000000", &list), "@400000006500000100000000");
        assert_eq!(unused_stamp("@400000000000000a00000000", &[]), "@400000000000000a00000000");
    }

    #[test]
    fn a_failing_processor_is_retried_after_a_second_and_no_file_is_lost() {
        let now = Duration::from_secs(50);
        let later = now + RETRY;
        let stamp = || "@x".to_owned();
        let mut p = Processor::Running { process: 7, stamp: stamp() };
        assert_eq!(p.busy().as_deref(), Some("@x.u"));
        assert_eq!(p.step(now, ProcessorEvent::Tick), None);
        assert_eq!(p.process(), Some(&7));
        assert_eq!(p.step(now, ProcessorEvent::Exited { well: false }), Some(ProcessorAction::Discard(stamp())));
        assert_eq!(p.deadline(), Some(later));
        assert_eq!(p.step(now, ProcessorEvent::Tick), None);
        assert_eq!(p.step(now, ProcessorEvent::Exited { well: true }), None);
        assert_eq!(p.busy().as_deref(), Some("@x.u"));
        assert_eq!(p.step(later, ProcessorEvent::Tick), Some(ProcessorAction::Start(stamp())));
        p = Processor::Running { process: 8, stamp: stamp() };
        assert_eq!(p.step(later, ProcessorEvent::Exited { well: true }), Some(ProcessorAction::Accept(stamp())));
        assert_eq!(p, Processor::Idle);
        assert_eq!(p.step(later, ProcessorEvent::Exited { well: true }), None);
        assert_eq!((p.deadline(), p.busy()), (None, None));
    }
}

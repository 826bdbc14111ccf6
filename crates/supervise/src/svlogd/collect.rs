//! PURE: when lines that wait in the pipe are read, so that a service that writes line by line does
//! not cost a write per line, and yet each line is on disk within a tenth of a second.
//!
//! The first line after a silence is read at once. While more keep coming, they are left in the
//! pipe for up to [`LONGEST`], or until there are many of them or none has come for a while.
//! Nothing is timed while nothing waits. It is not: reading them. Called by svlogd.rs.

use std::time::Duration;

/// The longest that a line is left in the pipe: half of the tenth of a second in which it is on
/// disk.
const LONGEST: Duration = Duration::from_millis(50);
/// Lines that come more rarely are written one by one.
const RECENT: Duration = Duration::from_millis(20);
/// When nothing was added for this long, there is nothing to wait for.
const QUIET: Duration = Duration::from_millis(10);
/// The first look at how much has come; each further one after three times as long, up to
/// [`LAST_LOOK`]. A service that suddenly writes a lot does not have to wait longer than that when
/// the pipe, which holds 64 KiB, is full.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(25);
/// Enough for one read: a quarter of a pipe.
const ENOUGH: usize = 16 * 1024;
/// A read at once of a page or more was no single line: the next one is not put off.
const LARGE_READ: usize = 4096;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    /// Look again at [`Collect::deadline`].
    Wait,
}

/// Lines are left in the pipe, or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Collect {
    /// The latest read that was not a large one.
    small_read: Option<Duration>,
    /// Until the next look. It is kept while lines keep coming, as each look costs.
    interval: Duration,
    waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Duration,
    /// How much waited when it was looked at last, and since when it has been that much.
    queued: usize,
    grown: Duration,
    next_look: Duration,
}

impl Default for Collect {
    fn default() -> Collect {
        Collect { small_read: None, interval: FIRST_LOOK, waiting: None }
    }
}

impl Collect {
    /// Whether lines are left in the pipe now: then only [`Collect::deadline`] counts, and the end
    /// of the input.
    pub(super) fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// When to look again.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.waiting.map(|waiting| waiting.next_look)
    }

    /// `queued` bytes wait in the pipe, at least one.
    pub(super) fn step(&mut self, now: Duration, queued: usize) -> Action {
        let mut waiting = match self.waiting {
            Some(waiting) if now < waiting.next_look => return Action::Wait,
            Some(waiting) => waiting,
            None if self.small_read.is_some_and(|at| now.saturating_sub(at) < RECENT) => {
                Waiting { since: now, queued, grown: now, next_look: now }
            }
            None => {
                self.interval = FIRST_LOOK;
                return Action::Read;
            }
        };
        if queued > waiting.queued {
            (waiting.queued, waiting.grown) = (queued, now);
        }
        let left = LONGEST.saturating_sub(now.saturating_sub(waiting.since));
        if queued >= ENOUGH {
            // The more there is, the sooner it is looked at the next time.
            let times = u32::try_from(queued / ENOUGH).unwrap_or(u32::MAX).saturating_add(1);
            self.interval = (self.interval / times).max(FIRST_LOOK);
            return Action::Read;
        }
        if left.is_zero() || now.saturating_sub(waiting.grown) >= QUIET {
            return Action::Read;
        }
        if now > waiting.since {
            self.interval = (self.interval * 3).min(LAST_LOOK);
        }
        waiting.next_look = now + self.interval.min(left);
        self.waiting = Some(waiting);
        Action::Wait
    }

    /// So much was read.
    pub(super) fn read(&mut self, now: Duration, count: usize) {
        // What came together in a while is no sign of haste unless it is much.
        let large = if self.waiting.take().is_some() { ENOUGH } else { LARGE_READ };
        self.small_read = (count > 0 && count < large).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// A service that writes `bytes` at each of these times (ascending); the result is for each
    /// read when it was, how much it took, and how old the oldest byte was; and the number of
    /// looks.
    fn play(writes: &[(Duration, usize)]) -> (Vec<(Duration, usize, Duration)>, usize) {
        let mut collect = Collect::default();
        let (mut reads, mut looks) = (Vec::new(), 0);
        let (mut queue, mut oldest) = (0, Duration::ZERO);
        let mut writes = writes.iter().copied().peekable();
        let mut now = Duration::ZERO;
        loop {
            while let Some((at, bytes)) = writes.next_if(|(at, _)| *at <= now) {
                oldest = if queue == 0 { at } else { oldest };
                queue += bytes;
            }
            if queue > 0 && !(collect.waits() && collect.deadline().unwrap() > now) {
                looks += 1;
                match collect.step(now, queue) {
                    Action::Read => {
                        reads.push((now, queue, now - oldest));
                        collect.read(now, queue);
                        queue = 0;
                    }
                    Action::Wait => assert!(collect.deadline().unwrap() > now),
                }
            }
            assert_eq!(collect.waits(), collect.deadline().is_some());
            let next_write = writes.peek().map(|(at, _)| *at);
            match next_write.into_iter().chain(collect.deadline()).min() {
                Some(next) => now = next,
                None => return (reads, looks),
            }
        }
    }

    fn every(interval: Duration, count: u32, bytes: usize) -> Vec<(Duration, usize)> {
        (0..count).map(|n| (interval * n, bytes)).collect()
    }

    #[test]
    fn a_line_after_a_silence_is_read_at_once() {
        for interval in [20_000, 60_000, 1_000_000] {
            let (reads, looks) = play(&every(US * interval, 20, 100));
            assert_eq!((reads.len(), looks), (20, 20));
            assert!(reads.iter().all(|(_, _, age)| age.is_zero()));
        }
    }

    #[test]
    fn lines_that_keep_coming_are_collected() {
        // (interval in microseconds, at most so many reads of 1000 lines, at most so many looks)
        for (interval, most_reads, most_looks) in [(100, 12, 30), (1000, 25, 70), (5000, 105, 310), (15_000, 260, 1000)]
        {
            let (reads, looks) = play(&every(US * interval, 1000, 100));
            let late = reads.iter().map(|(_, _, age)| *age).max().unwrap();
            assert!(reads.len() <= most_reads, "{interval}: {} reads", reads.len());
            assert!(looks <= most_looks, "{interval}: {looks} looks");
            assert!(late <= LONGEST, "{interval}: {late:?}");
            assert_eq!(reads.iter().map(|(_, bytes, _)| bytes).sum::<usize>(), 100_000);
        }
    }

    #[test]
    fn a_pause_ends_the_wait() {
        let (reads, _) = play(&[(US, 100), (US * 2000, 100), (US * 900_000, 100)]);
        assert_eq!(reads.len(), 3);
        assert!(reads[1].2 >= QUIET && reads[1].2 < LAST_LOOK, "{:?}", reads[1]);
        assert!(reads[2].2.is_zero());
    }

    #[test]
    fn much_at_once_is_not_put_off() {
        // Full speed, 100 bytes each: after the first look there is enough for a read.
        let (reads, _) = play(&every(US, 100_000, 100));
        let late = reads.iter().map(|(_, _, age)| *age).max().unwrap();
        assert!(late <= FIRST_LOOK, "{late:?}");
        // Pages: each is read at once.
        let (reads, _) = play(&every(US * 500, 100, LARGE_READ));
        assert_eq!(reads.len(), 100);
    }
}

//! What one target answered in the last rounds: hits, misses, round-trip times. PURE.
//!
//! An answer that comes late, but while its round is still remembered, makes a hit of a miss: a
//! slow path is not a dead one. Owned by watchdog.rs, one per target; shown by status.rs.

use std::collections::VecDeque;
use std::time::Duration;

/// Rounds that are remembered: a minute of them at the default rate. No window of decision is
/// longer.
pub(crate) const KEPT: usize = 60;

#[derive(Clone, Copy, Debug)]
struct Asked {
    round: u32,
    at: Duration,
    rtt: Option<Duration>,
}

/// One target's rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Oldest first.
    over: VecDeque<Asked>,
    running: Option<Asked>,
}

/// What is shown of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// Rounds that are over, of the last [`KEPT`].
    pub(crate) asked: usize,
    /// Those of them without an answer.
    pub(crate) lost: usize,
    /// Round-trip times; `None` when nothing was answered.
    pub(crate) last: Option<Duration>,
    pub(crate) mean: Option<Duration>,
    pub(crate) worst: Option<Duration>,
}

impl History {
    /// A round begins.
    pub(crate) fn ask(&mut self, round: u32, now: Duration) {
        self.running = Some(Asked { round, at: now, rtt: None });
    }

    /// An answer to `round`; only the first one counts.
    pub(crate) fn answer(&mut self, round: u32, now: Duration) {
        let asked = self.over.iter_mut().chain(&mut self.running).find(|a| a.round == round && a.rtt.is_none());
        if let Some(asked) = asked {
            asked.rtt = Some(now.saturating_sub(asked.at));
        }
    }

    /// The round that runs, or else the newest one: what an answer without a number belongs to.
    pub(crate) fn newest(&self) -> Option<u32> {
        self.running.as_ref().or(self.over.back()).map(|a| a.round)
    }

    /// Whether the running round was answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.running.is_some_and(|a| a.rtt.is_some())
    }

    /// The round ends.
    pub(crate) fn conclude(&mut self) {
        self.over.extend(self.running.take());
        if self.over.len() > KEPT {
            self.over.pop_front();
        }
    }

    /// Whether the round `back` rounds ago was answered, 0 being the newest that is over.
    pub(crate) fn hit(&self, back: usize) -> Option<bool> {
        self.over.iter().rev().nth(back).map(|a| a.rtt.is_some())
    }

    /// Unanswered ones of the last `within`.
    pub(crate) fn misses(&self, within: usize) -> usize {
        (0..within).filter(|back| self.hit(*back) == Some(false)).count()
    }

    /// For people.
    pub(crate) fn numbers(&self) -> Numbers {
        let times: Vec<Duration> = self.over.iter().filter_map(|a| a.rtt).collect();
        let count = u32::try_from(times.len()).unwrap_or(u32::MAX);
        Numbers {
            asked: self.over.len(),
            lost: self.over.len() - times.len(),
            last: times.last().copied(),
            mean: times.iter().sum::<Duration>().checked_div(count),
            worst: times.iter().max().copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn hits_misses_and_times() {
        let mut h = History::default();
        assert_eq!((h.numbers(), h.newest(), h.hit(0)), (Numbers::default(), None, None));
        for (round, rtt) in [(1, Some(10)), (2, None), (3, Some(30))] {
            h.ask(round, ms(1000));
            rtt.into_iter().for_each(|t| h.answer(round, ms(1000 + t)));
            assert_eq!(h.is_answered(), rtt.is_some());
            h.conclude();
        }
        assert_eq!([0, 1, 2, 3].map(|back| h.hit(back)), [Some(true), Some(false), Some(true), None]);
        assert_eq!((h.misses(1), h.misses(3), h.misses(99)), (0, 1, 1));
        let numbers = Numbers { asked: 3, lost: 1, last: Some(ms(30)), mean: Some(ms(20)), worst: Some(ms(30)) };
        assert_eq!(h.numbers(), numbers);
        // Late, twice, and for a round that never was.
        h.answer(2, ms(1900));
        h.answer(2, ms(5000));
        h.answer(9, ms(5000));
        assert_eq!((h.misses(3), h.numbers().worst), (0, Some(ms(900))));
    }

    #[test]
    fn it_does_not_grow() {
        let mut h = History::default();
        for round in 0..1000 {
            h.ask(round, ms(0));
            h.conclude();
        }
        assert_eq!(h.numbers().asked, KEPT);
        h.answer(1000 - KEPT as u32 - 1, ms(1));
        assert_eq!(h.numbers().lost, KEPT, "forgotten");
    }
}

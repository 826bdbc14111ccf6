//! Simulated time: an event heap, and a wire that loses, repeats and reorders. For tests of the
//! pure machines.
//!
//! Pure, behind the feature `sim`. Who the stations are and what a frame is, the test decides.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::rng::Rng;

/// Things that will happen, earliest first; of the same time, first in first out.
#[derive(Debug)]
pub struct Events<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    count: u64,
}

#[derive(Debug)]
struct Entry<T> {
    at: Duration,
    order: u64,
    what: T,
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<T> Default for Events<T> {
    fn default() -> Self {
        Events { heap: BinaryHeap::new(), count: 0 }
    }
}

impl<T> Events<T> {
    /// Lets `what` happen at `at`.
    pub fn push(&mut self, at: Duration, what: T) {
        self.count += 1;
        self.heap.push(Reverse(Entry { at, order: self.count, what }));
    }

    /// When the next one happens.
    pub fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|e| e.0.at)
    }

    /// Takes the next one.
    pub fn pop(&mut self) -> Option<(Duration, T)> {
        self.heap.pop().map(|e| (e.0.at, e.0.what))
    }
}

/// How bad the wire is.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Frames lost, per mille.
    pub loss: u64,
    /// Frames that arrive twice, per mille.
    pub duplicate: u64,
    /// Least time on the way.
    pub delay: Duration,
    /// Up to this much more, at random: frames overtake each other.
    pub jitter: Duration,
}

/// A wire between stations.
#[derive(Debug)]
pub struct Wire {
    rng: Rng,
    /// May be changed while frames are on the way.
    pub conditions: Conditions,
}

impl Wire {
    /// A wire whose luck is decided by `seed`.
    pub fn new(seed: u64, conditions: Conditions) -> Wire {
        Wire { rng: Rng::seeded(seed), conditions }
    }

    /// Puts a frame on the wire: nothing, one or two arrivals are added to `events`.
    pub fn send<T: Clone>(&mut self, now: Duration, frame: &T, events: &mut Events<T>) {
        let Conditions { loss, duplicate, delay, jitter } = self.conditions;
        if self.rng.below(1000) < loss {
            return;
        }
        let copies = if self.rng.below(1000) < duplicate { 2 } else { 1 };
        for _ in 0..copies {
            events.push(now + delay + self.rng.between(Duration::ZERO, jitter), frame.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_then_by_order() {
        let mut events = Events::default();
        for (secs, name) in [(2, 'c'), (1, 'a'), (1, 'b')] {
            events.push(Duration::from_secs(secs), name);
        }
        let order: String = std::iter::from_fn(|| events.pop()).map(|(_, c)| c).collect();
        assert_eq!(order, "abc");
    }

    #[test]
    fn a_bad_wire_loses_and_repeats_about_as_told() {
        let conditions =
            Conditions { loss: 200, duplicate: 100, delay: Duration::from_millis(1), jitter: Duration::from_millis(5) };
        let (mut wire, mut events) = (Wire::new(3, conditions), Events::default());
        (0..10_000).for_each(|n: u32| wire.send(Duration::ZERO, &n, &mut events));
        let mut count = 0;
        while let Some((at, _)) = events.pop() {
            count += 1;
            assert!((Duration::from_millis(1)..Duration::from_millis(6)).contains(&at));
        }
        // 10,000 * 0.8 * 1.1
        assert!((8500..9100).contains(&count), "{count}");
    }
}

//! Flap damping: a link that is lost again and again must last before it is believed. PURE.
//!
//! Losses are counted and forgotten, one per [`FORGET`]. From [`TOO_MANY`] on a link that comes
//! back is held down for a second, and twice as long with each further loss, up to the longest hold
//! that the options allow; it ends with the first hold in which nothing changed. What was not yet
//! forgotten then counts if it begins anew. The idea is that of RFC 2439, in seconds instead of
//! penalties. Owned by `debounce` as a field.

use std::time::Duration;

/// So many losses in quick succession are no negotiation of a speed and no hand at the plug any
/// more.
pub(crate) const TOO_MANY: u32 = 5;
/// One loss is forgotten in this time: a link that is lost more rarely is never damped.
pub(crate) const FORGET: Duration = Duration::from_secs(10);
/// The first hold; each loss doubles it.
const FIRST_HOLD: Duration = Duration::from_secs(1);
/// More are not remembered: 32 s of hold, so that a bad night is forgotten within a minute of a
/// good morning.
const MOST: u32 = TOO_MANY + 5;

/// The memory of one link.
#[derive(Debug)]
pub(crate) struct Damping {
    longest: Duration,
    losses: u32,
    /// The last loss, or when the last one before it was forgotten.
    counted: Duration,
    /// The last change of the link.
    changed: Duration,
    damped: bool,
}

impl Damping {
    /// No loss yet. `longest` is the longest hold; zero: no damping.
    pub(crate) fn new(longest: Duration) -> Damping {
        Damping { longest, losses: 0, counted: Duration::ZERO, changed: Duration::ZERO, damped: false }
    }

    /// The link is lost; true when damping begins with it.
    pub(crate) fn lost(&mut self, now: Duration) -> bool {
        self.changed = now;
        while self.losses > 0 && now >= self.counted + FORGET {
            self.losses -= 1;
            self.counted += FORGET;
        }
        if self.losses == 0 {
            self.counted = now;
        }
        self.losses = (self.losses + 1).min(MOST);
        let began = !self.damped && !self.longest.is_zero() && self.losses >= TOO_MANY;
        self.damped |= began;
        began
    }

    /// The link is back; it must last so long.
    pub(crate) fn back(&mut self, now: Duration) -> Duration {
        self.changed = now;
        self.hold()
    }

    /// True when damping ends.
    pub(crate) fn tick(&mut self, now: Duration) -> bool {
        let ended = self.deadline().is_some_and(|d| now >= d);
        self.damped &= !ended;
        ended
    }

    /// When damping ends if nothing changes.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.damped.then(|| self.changed + self.hold())
    }

    /// Whether the link is damped.
    pub(crate) fn is_on(&self) -> bool {
        self.damped
    }

    fn hold(&self) -> Duration {
        match self.damped {
            true => self.longest.min(FIRST_HOLD * (1 << self.losses.saturating_sub(TOO_MANY).min(MOST))),
            false => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    /// Losses at these times: which of them began it, and the hold after the last.
    fn play(longest: f64, losses: &[f64]) -> (Vec<f64>, Duration) {
        let mut damping = Damping::new(at(longest));
        let mut began = Vec::new();
        for lost in losses {
            damping.tick(at(*lost));
            if damping.lost(at(*lost)) {
                began.push(*lost);
            }
        }
        (began, damping.hold())
    }

    #[test]
    fn each_story_gives_its_hold() {
        type Row = (&'static str, f64, &'static [f64], &'static [f64], f64);
        let table: &[Row] = &[
            ("four losses are a bad day", 30.0, &[0.0, 0.1, 0.2, 0.3], &[], 0.0),
            ("the fifth is too many", 30.0, &[0.0, 0.1, 0.2, 0.3, 0.4], &[0.4], 1.0),
            ("each further one doubles the hold", 30.0, &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], &[0.4], 8.0),
            ("up to the longest", 3.0, &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1], &[0.4], 3.0),
            ("one per ten seconds is forgotten in time", 30.0, &[0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0], &[], 0.0),
            ("two are not", 30.0, &[0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0], &[35.0], 1.0),
            ("quiet ends it, but is not forgiven at once", 30.0, &[0.0, 0.1, 0.2, 0.3, 0.4, 3.0], &[0.4, 3.0], 2.0),
            ("later it is", 30.0, &[0.0, 0.1, 0.2, 0.3, 0.4, 99.0], &[0.4], 0.0),
            ("off", 0.0, &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5], &[], 0.0),
        ];
        for (what, longest, losses, began, hold) in table {
            assert_eq!(play(*longest, losses), (began.to_vec(), at(*hold)), "{what}");
        }
    }

    #[test]
    fn it_ends_with_the_first_hold_without_a_change() {
        let mut damping = Damping::new(at(30.0));
        for n in 0..5 {
            damping.lost(at(f64::from(n) / 10.0));
        }
        assert_eq!(damping.deadline(), Some(at(1.4)), "while it is down, too");
        assert!(!damping.tick(at(1.3)));
        assert_eq!(damping.back(at(1.3)), at(1.0));
        assert_eq!(damping.deadline(), Some(at(2.3)));
        assert!(damping.tick(at(2.3)) && !damping.is_on());
        assert!(!damping.tick(at(9.0)), "it ends once");
        assert_eq!((damping.deadline(), damping.back(at(9.0))), (None, Duration::ZERO));
    }

    #[test]
    fn the_longest_hold_may_be_anything() {
        let mut damping = Damping::new(Duration::from_secs(u32::MAX.into()));
        for _ in 0..100 {
            damping.lost(Duration::ZERO);
        }
        assert_eq!(damping.back(Duration::ZERO), at(32.0), "as far as losses are remembered");
    }
}

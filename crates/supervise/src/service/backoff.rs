//! How long to wait before ./run is started again: runit's second, or what the settings say. Pure;
//! owned by service.rs.

use std::time::Duration;

use super::terms::{EXEC_FAILED_MOST, LEAST_DELAY, Settings, THROTTLE};

/// How a life ended, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A signal was sent, or another run was asked for.
    Asked,
    /// By itself, after this time.
    After(Duration),
    /// It could not be executed at all.
    NotExecuted,
}

/// The pauses so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    /// The last pause after an end that came too soon.
    pause: Option<Duration>,
    /// The last pause after a ./run that could not be executed.
    unexecuted: Option<Duration>,
}

impl Backoff {
    /// The pause before the next start; `None`: at once. It grows while ends come sooner than a
    /// second, or than the pause before took: a run that lived longer is healthy, and the next
    /// pause is the first one again.
    pub(super) fn pause(&mut self, settings: &Settings, end: End) -> Option<Duration> {
        let asked_for = settings.restart_delay.is_some() || settings.restart_max_delay.is_some();
        let lived = match end {
            End::Asked => {
                *self = Backoff::default();
                return None;
            }
            End::NotExecuted if !asked_for => {
                self.unexecuted = Some(self.unexecuted.map_or(THROTTLE, |last| (last * 2).min(EXEC_FAILED_MOST)));
                return self.unexecuted;
            }
            End::NotExecuted => Duration::ZERO,
            End::After(lived) => lived,
        };
        self.unexecuted = None;
        let healthy = lived >= self.pause.map_or(THROTTLE, |pause| pause.max(THROTTLE));
        let (first, always) = match settings.restart_delay {
            Some(delay) => (delay.max(LEAST_DELAY), true),
            // runsv(8): the second is for a process that ended within a second.
            None => (THROTTLE, false),
        };
        let most = settings.restart_max_delay.unwrap_or(first).max(first);
        self.pause = match self.pause {
            Some(last) if !healthy => Some((last * 2).clamp(first, most)),
            Some(_) | None => (always || !healthy).then_some(first),
        };
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses in milliseconds after these lives in milliseconds; 0: at once.
    fn pauses(first: Option<u64>, most: Option<u64>, lives: &[u64]) -> Vec<u128> {
        let ms = Duration::from_millis;
        let settings =
            Settings { restart_delay: first.map(ms), restart_max_delay: most.map(ms), ..Settings::default() };
        let mut backoff = Backoff::default();
        let pause = |life: &u64| backoff.pause(&settings, End::After(ms(*life)));
        lives.iter().map(pause).map(|pause| pause.unwrap_or_default().as_millis()).collect()
    }

    #[test]
    fn pauses_grow_with_ends_that_come_too_soon_and_begin_again_after_a_healthy_run() {
        // runit's second, whatever went before.
        assert_eq!(pauses(None, None, &[0, 999, 1000, 10, 5000]), [1000, 1000, 0, 1000, 0]);
        // Only the most is given: from the second on.
        assert_eq!(pauses(None, Some(3000), &[0, 0, 0, 0, 1000, 3000, 0]), [1000, 2000, 3000, 3000, 3000, 0, 1000]);
        // A delay is kept however long it lived.
        assert_eq!(pauses(Some(200), None, &[0, 0, 5000]), [200, 200, 200]);
        let doubled = pauses(Some(200), Some(1500), &[0, 0, 0, 0, 0, 1499, 1500]);
        assert_eq!(doubled, [200, 400, 800, 1500, 1500, 1500, 200]);
        // No delay at all does not spin.
        assert_eq!(pauses(Some(0), Some(100), &[0, 0, 0, 0, 0, 0]), [10, 20, 40, 80, 100, 100]);
        assert_eq!(pauses(Some(500), Some(100), &[0, 0]), [500, 500]);
    }

    #[test]
    fn what_was_asked_for_comes_at_once_and_begins_anew() {
        let settings = Settings { restart_max_delay: Some(Duration::from_secs(9)), ..Settings::default() };
        let mut backoff = Backoff::default();
        let soon = End::After(Duration::ZERO);
        let pauses = [soon, soon, End::Asked, soon].map(|end| backoff.pause(&settings, end).map(|p| p.as_secs()));
        assert_eq!(pauses, [Some(1), Some(2), None, Some(1)]);
    }
}

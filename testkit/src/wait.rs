//! Bounded waiting: tests wait for a condition, never for an amount of time.

#![expect(clippy::disallowed_methods, reason = "the clock and the short pause between two looks")]

use std::time::{Duration, Instant};

/// The longest pause between two looks. The first pauses are shorter.
const MAX_PAUSE: Duration = Duration::from_millis(10);

/// Looks until `look` gives a value, for at most `timeout`; `None` when it never does.
pub fn poll_for<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + timeout;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Like [`poll_for`], but a condition that never comes true fails the test with `what`.
#[track_caller]
pub fn wait_for<T>(what: &str, timeout: Duration, look: impl FnMut() -> Option<T>) -> T {
    match poll_for(timeout, look) {
        Some(found) => found,
        None => panic!("waited {timeout:?} in vain for: {what}"),
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, timeout, || condition().then_some(()));
}

/// Watches `condition` for `span`, and fails as soon as it is false. For "nothing happens" only.
#[track_caller]
pub fn holds_for(what: &str, span: Duration, mut condition: impl FnMut() -> bool) {
    if poll_for(span, || (!condition()).then_some(())).is_some() {
        panic!("did not stay true for {span:?}: {what}");
    }
}

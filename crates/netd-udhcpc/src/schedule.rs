//! When to send again: udhcpc's fixed timing when the user asked for it, our own otherwise.
//!
//! Pure. Owned by client.rs. Our own timing is RFC 2131 section 4.1's, doubled from message to
//! message up to 64 s, with two quick messages in front. Slower is not an option: a server that
//! comes up 10 s after us is to be found within 2 s. Nor is faster: some access gear lets one
//! message through in 5 s (Motorola BSR), some stops listening to a station for 300 s after 10
//! messages in 180 s (Huawei NE) or 6 in 5 s (HPE), at their defaults.

use std::time::Duration;

use netd_core::rng::Rng;

/// udhcpc's defaults: 3 packets, 3 s apart, and 20 s of rest.
const RETRIES: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(3);
const TRYAGAIN: Duration = Duration::from_secs(20);
/// `-T 0` is no reason for a storm.
const MIN_TIMEOUT: Duration = Duration::from_millis(200);

/// "No lease" is said when udhcpc says it: after 3 x 3 s ...
pub const FIRST_FAILURE: Duration = Duration::from_secs(9);
/// ... and then every 20 + 9 s.
pub const NEXT_FAILURE: Duration = Duration::from_secs(29);
/// An infinite lease that was to be renewed and found no answer.
pub const INFINITE_RETRY: Duration = Duration::from_secs(3600);

/// After the first DISCOVER, the second, and so on: the wait for the next one, and how much it may
/// vary to both sides, in milliseconds. They go out at about 0, 1, 4, 11, 26 and 57 s: seven in 180
/// s, so that an offer can still be asked for.
const DISCOVER_WAITS: [(u64, u64); 6] =
    [(1000, 100), (3250, 200), (7000, 500), (15_000, 1000), (31_000, 1000), (63_000, 1000)];
/// RFC 2131 section 4.1: the delay grows up to 64 s, and varies by one second.
const LAST_DISCOVER_WAIT: (u64, u64) = (64_000, 1000);
/// The same for a REQUEST. The third goes out 5.2 to 6 s after the DISCOVER that has passed the
/// gear of 5 s. After the last wait a new DISCOVER looks for other servers.
const REQUEST_WAITS: [(u64, u64); 2] = [(1500, 150), (4100, 250)];
const LAST_REQUEST_WAIT: (u64, u64) = (8000, 1000);
/// An address of before is asked for with few REQUESTs: another network is more likely than a slow
/// server.
const REBOOT_WAIT: (u64, u64) = (1000, 200);
/// An offer of a server that was silent before, or that does not say who it is, waits so long for a
/// better one.
pub const SECOND_BEST: Duration = Duration::from_millis(1500);
/// RFC 2131 section 4.4.5: not more often than this while a lease runs, when the lease is long
/// enough.
const MIN_RENEWAL_WAIT: Duration = Duration::from_secs(60);
/// Restarts further apart than this are not a storm.
const CALM: Duration = Duration::from_secs(60);

/// When to send what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Nothing was asked for: eager at first, then RFC 2131's backoff.
    #[default]
    Adaptive,
    /// Any of `-t`, `-T`, `-A` was given: udhcpc's timing.
    Fixed {
        /// `-t`; 0: for ever.
        retries: u32,
        /// `-T`
        timeout: Duration,
        /// `-A`
        tryagain: Duration,
    },
}

impl Schedule {
    /// From the options as given.
    pub fn from_options(retries: Option<u32>, timeout: Option<Duration>, tryagain: Option<Duration>) -> Schedule {
        if retries.is_none() && timeout.is_none() && tryagain.is_none() {
            return Schedule::Adaptive;
        }
        Schedule::Fixed {
            retries: retries.unwrap_or(RETRIES),
            timeout: timeout.unwrap_or(TIMEOUT).max(MIN_TIMEOUT),
            tryagain: tryagain.unwrap_or(TRYAGAIN),
        }
    }

    /// Whether it is udhcpc's.
    pub fn is_fixed(&self) -> bool {
        matches!(self, Schedule::Fixed { .. })
    }

    /// Whether "no lease" is due instead of another DISCOVER, after `sent` of them.
    pub fn cycle_over(&self, sent: u32, now: Duration, fail_at: Duration) -> bool {
        match self {
            Schedule::Adaptive => now >= fail_at,
            Schedule::Fixed { retries, .. } => *retries != 0 && sent >= *retries,
        }
    }

    /// Rest after a cycle; `None`: no rest, the search goes on.
    pub fn wait_after_failure(&self) -> Option<Duration> {
        match self {
            Schedule::Adaptive => None,
            Schedule::Fixed { tryagain, .. } => Some(*tryagain),
        }
    }

    /// From the `sent`th DISCOVER to the next.
    pub fn discover_wait(&self, sent: u32, rng: &mut Rng) -> Duration {
        self.wait(sent, &DISCOVER_WAITS, LAST_DISCOVER_WAIT, rng)
    }

    /// From the `sent`th REQUEST to the next, or to the end of patience.
    pub fn request_wait(&self, sent: u32, rng: &mut Rng) -> Duration {
        self.wait(sent, &REQUEST_WAITS, LAST_REQUEST_WAIT, rng)
    }

    /// From a REQUEST for an address of before to the next.
    pub fn reboot_wait(&self, rng: &mut Rng) -> Duration {
        self.wait(1, &[], REBOOT_WAIT, rng)
    }

    fn wait(&self, sent: u32, waits: &[(u64, u64)], last: (u64, u64), rng: &mut Rng) -> Duration {
        match self {
            Schedule::Fixed { timeout, .. } => *timeout,
            Schedule::Adaptive => {
                let nth = usize::try_from(sent.saturating_sub(1)).unwrap_or(usize::MAX);
                let (wait, vary) = *waits.get(nth).unwrap_or(&last);
                rng.between(Duration::from_millis(wait - vary), Duration::from_millis(wait + vary))
            }
        }
    }

    /// Whether the answer to the `sent`th DISCOVER is to be broadcast. When two had no answer,
    /// unicasts may not arrive (a server that first asks by ARP for an address that we do not have
    /// yet): every other one from then on asks for broadcasts. Not all of them do, because on other
    /// links it is broadcasts that do not arrive.
    pub fn wants_broadcast(&self, sent: u32) -> bool {
        match self {
            Schedule::Fixed { .. } => false,
            Schedule::Adaptive => sent > 2 && !sent.is_multiple_of(2),
        }
    }
}

/// From one renewal to the next: half of what is left until the next state (RFC 2131 section
/// 4.4.5), not less than 60 s, or a 16th of a `lease` that is shorter than 16 minutes; a jitter of
/// up to a 16th.
pub fn renewal_wait(left: Duration, lease: Duration, rng: &mut Rng) -> Duration {
    let least = MIN_RENEWAL_WAIT.min(lease / 16).max(Duration::from_secs(2));
    let wait = (left / 2).max(least);
    wait + rng.between(Duration::ZERO, wait / 16)
}

/// How often we had to begin anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct Restarts {
    count: u32,
    last: Option<Duration>,
}

impl Restarts {
    /// How long to wait before beginning anew at `now`: 0, 1, 2, 4 .. 32 s when it goes on and on.
    pub fn wait(&mut self, now: Duration) -> Duration {
        let calm = self.last.is_none_or(|last| now.saturating_sub(last) > CALM);
        self.count = if calm { 0 } else { (self.count + 1).min(6) };
        let wait = match self.count {
            0 => Duration::ZERO,
            n => Duration::from_secs(1 << (n - 1)),
        };
        self.last = Some(now + wait);
        wait
    }
}

//! When to send again: udhcpc's fixed timing when the user asked for it, our own otherwise.
//!
//! Pure. Owned by client.rs.

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

/// For this long somebody waits for us (a cable was plugged in, a modem boots): a server that appears is seen within 2 s.
const EAGER: Duration = Duration::from_secs(180);
/// RFC 2131 section 4.1: the delay grows up to 64 s.
const MAX_WAIT: Duration = Duration::from_secs(64);
/// RFC 2131 section 4.4.5: not more often than this while a lease runs, when the lease is long enough.
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

    /// From the `sent`th DISCOVER to the next, `waited` after the search began.
    pub fn discover_wait(&self, sent: u32, waited: Duration, rng: &mut Rng) -> Duration {
        let ms = |from, to, rng: &mut Rng| rng.between(Duration::from_millis(from), Duration::from_millis(to));
        match self {
            Schedule::Fixed { timeout, .. } => *timeout,
            Schedule::Adaptive if sent == 1 => ms(400, 600, rng),
            Schedule::Adaptive if sent == 2 => ms(800, 1200, rng),
            Schedule::Adaptive if waited < EAGER => ms(1400, 1900, rng),
            Schedule::Adaptive => {
                // From 2 s after three minutes to 64 s after about half an hour.
                let wait = ((waited - EAGER) / 16).clamp(Duration::from_secs(2), MAX_WAIT);
                rng.between(wait * 9 / 10, wait)
            }
        }
    }

    /// Whether the answer to the `sent`th DISCOVER is to be broadcast: where nobody has answered two, some way for unicasts may be missing
    /// (a server that would first ask by ARP for an address that we do not have yet). Every other one from then on, because
    /// some ways for broadcasts are missing, too.
    pub fn wants_broadcast(&self, sent: u32) -> bool {
        match self {
            Schedule::Fixed { .. } => false,
            Schedule::Adaptive => sent > 2 && !sent.is_multiple_of(2),
        }
    }

    /// From a REQUEST to the next.
    pub fn request_wait(&self, rng: &mut Rng) -> Duration {
        match self {
            Schedule::Fixed { timeout, .. } => *timeout,
            Schedule::Adaptive => rng.between(Duration::from_millis(800), Duration::from_millis(1200)),
        }
    }
}

/// From one renewal to the next: half of what is left until the next state (RFC 2131 section 4.4.5), not less than 60 s, or
/// a 16th of a `lease` that is shorter than 16 minutes; a jitter of up to a 16th.
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

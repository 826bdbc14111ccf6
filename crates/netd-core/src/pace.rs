//! How fast a daemon reads packets: a flood costs a bounded share of the processor. PURE.
//!
//! A burst as large as honest traffic ever is, is read at once. The rest waits in the socket, and
//! the kernel drops it there when the socket is full. Between two bursts the daemon has time for
//! its clock and its signals. Called by `netd::packet` and by the pinger.

use std::time::Duration;

/// This many packets are read without a rest ...
const BURST: u32 = 128;
/// ... in this time: 2560 a second, about 2 % of a processor of 2020. An honest packet waits no
/// longer.
const PERIOD: Duration = Duration::from_millis(50);

/// Counts what is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    begun: Duration,
    read: u32,
}

impl Pace {
    /// One was read at `now`, time since boot.
    pub fn count(&mut self, now: Duration) {
        if now.saturating_sub(self.begun) >= PERIOD {
            *self = Pace { begun: now, read: 0 };
        }
        self.read = self.read.saturating_add(1);
    }

    /// How long nothing more is to be read.
    pub fn rest(&self, now: Duration) -> Option<Duration> {
        let end = self.begun + PERIOD;
        (self.read >= BURST && now < end).then(|| end - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_a_burst_is_read_in_each_period() {
        let mut pace = Pace::default();
        let (mut now, mut read) = (Duration::from_secs(1000), 0);
        let end = now + Duration::from_secs(1);
        while now < end {
            pace.count(now);
            read += 1;
            now += pace.rest(now).unwrap_or(Duration::from_micros(5));
        }
        assert_eq!(read, 20 * BURST);
    }

    #[test]
    fn what_is_no_flood_never_waits() {
        let mut pace = Pace::default();
        for n in 0..10_000 {
            let now = Duration::from_micros(400) * n;
            pace.count(now);
            assert_eq!(pace.rest(now), None, "the {n}th");
        }
    }
}

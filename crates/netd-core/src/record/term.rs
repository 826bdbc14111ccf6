//! How long a record counts.

use std::time::Duration;

/// What the clocks say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME.
    pub boottime: Duration,
    /// Since 1970; on a router without a battery this may be wrong until NTP has answered.
    pub wall: Duration,
    /// First 8 hexadecimal digits of /proc/sys/kernel/random/boot_id; empty when unknown.
    pub boot_id: String,
}

/// The end of a lease, as its record tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// CLOCK_BOOTTIME seconds. It counts when both ends are there, because a wall clock jumps.
    pub end_boottime: Option<u64>,
    /// Unix seconds.
    pub end: Option<u64>,
    /// The boot that `end_boottime` counts from.
    pub boot_id: Option<String>,
}

/// How long a record is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It has no end.
    Forever,
    /// For these whole seconds from now on.
    For(Duration),
    /// Its lease has ended.
    Ended,
    /// Its lease was counted in another boot.
    OtherBoot,
}

impl Term {
    /// Whether the record counts now.
    pub fn validity(&self, now: &Now) -> Validity {
        let left = |end: u64, now: Duration| match Duration::from_secs(end).checked_sub(now) {
            // The kernel counts whole seconds in 32 bits, and refuses a lifetime of none.
            Some(left) if left.as_secs() >= u32::MAX.into() => Validity::Forever,
            Some(left) if left >= Duration::from_secs(1) => Validity::For(Duration::from_secs(left.as_secs())),
            Some(_) | None => Validity::Ended,
        };
        match (&self.boot_id, self.end_boottime, self.end) {
            (Some(id), Some(_), _) if !now.boot_id.is_empty() && *id != now.boot_id => Validity::OtherBoot,
            (_, Some(end), _) => left(end, now.boottime),
            (_, None, Some(end)) => left(end, now.wall),
            (_, None, None) => Validity::Forever,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_the_boot_counts_and_only_in_its_boot() {
        let now =
            Now { boottime: Duration::from_millis(1500), wall: Duration::from_secs(10_000), boot_id: "abcd".into() };
        let validity = |end_boottime, end, boot_id: Option<&str>| {
            Term { end_boottime, end, boot_id: boot_id.map(str::to_owned) }.validity(&now)
        };
        let secs = |s| Validity::For(Duration::from_secs(s));
        for (boot, wall, id, want) in [
            (None, None, None, Validity::Forever),
            (None, None, Some("0123"), Validity::Forever),
            (Some(10), Some(1), Some("abcd"), secs(8)),
            (Some(10), Some(1), None, secs(8)),
            (Some(2), Some(99_999), Some("abcd"), Validity::Ended),
            (Some(10), Some(99_999), Some("0123"), Validity::OtherBoot),
            (None, Some(10_005), Some("0123"), secs(5)),
            (None, Some(9999), None, Validity::Ended),
            (Some(u64::MAX), None, Some("abcd"), Validity::Forever),
        ] {
            assert_eq!(validity(boot, wall, id), want, "{boot:?} {wall:?} {id:?}");
        }
    }
}

//! Which leases still count, and for how long.
//!
//! Pure: `now` is given. Called by input.rs.

use std::time::Duration;

use crate::record::Entry;

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

/// How long a record is still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    /// Without a lease.
    Forever,
    /// This long from now.
    For(Duration),
    /// Its lease has ended.
    Ended,
    /// Its lease was counted in another boot.
    OtherBoot,
}

fn validity(entry: &Entry, now: &Now) -> Validity {
    let left = |end: u64, now: Duration| match Duration::from_secs(end).checked_sub(now) {
        // The kernel counts whole seconds and refuses a lifetime of none.
        // It counts them in 32 bits.
        Some(left) if left.as_secs() >= u32::MAX.into() => Validity::Forever,
        Some(left) if left >= Duration::from_secs(1) => Validity::For(Duration::from_secs(left.as_secs())),
        Some(_) | None => Validity::Ended,
    };
    match (&entry.boot_id, entry.lease_end_boottime, entry.lease_end) {
        (Some(id), Some(_), _) if !now.boot_id.is_empty() && *id != now.boot_id => Validity::OtherBoot,
        (_, Some(end), _) => left(end, now.boottime),
        (_, None, Some(end)) => left(end, now.wall),
        (_, None, None) => Validity::Forever,
    }
}

/// A record that counts now, and how long its lease still lasts; `None`: for ever.
pub type Current = (Entry, Option<Duration>);

/// The records that count now, with what is left of their lease, and a message for each that does not.
pub fn current(entries: Vec<Entry>, now: &Now) -> (Vec<Current>, Vec<String>) {
    let mut messages = Vec::new();
    let mut out = Vec::new();
    for entry in entries {
        match validity(&entry, now) {
            Validity::Forever => out.push((entry, None)),
            Validity::For(left) => out.push((entry, Some(left))),
            Validity::Ended => messages.push(format!("{}: its lease has ended: ignored", entry.origin)),
            Validity::OtherBoot => messages.push(format!("{}: its lease is of another boot: ignored", entry.origin)),
        }
    }
    (out, messages)
}

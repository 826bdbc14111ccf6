//! Which leases still count, and for how long.
//!
//! Pure: `now` is given. Called by input.rs.

use std::time::Duration;

pub use netd_core::record::Now;
use netd_core::record::Validity;

use crate::record::Entry;

/// A record that counts now, and how long its lease still lasts; `None`: for ever.
pub type Current = (Entry, Option<Duration>);

/// The records that count now, with what is left of their lease, and a message for each that does
/// not.
pub fn current(entries: Vec<Entry>, now: &Now) -> (Vec<Current>, Vec<String>) {
    let mut messages = Vec::new();
    let mut out = Vec::new();
    for entry in entries {
        match entry.network.term.validity(now) {
            Validity::Forever => out.push((entry, None)),
            Validity::For(left) => out.push((entry, Some(left))),
            Validity::Ended => messages.push(format!("{}: its lease has ended: ignored", entry.origin)),
            Validity::OtherBoot => messages.push(format!("{}: its lease is of another boot: ignored", entry.origin)),
        }
    }
    (out, messages)
}

//! The words of fw.conf about what is inside and what is outside.
//!
//! Pure. Called by policy.rs; want/zones.rs acts on them.

use super::{Word, interfaces};

/// Inside and outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// External interfaces; empty: the uplinks.
    pub outside: Vec<String>,
}

/// The table.
pub(super) const WORDS: &[Word] = &[Word {
    name: "extif",
    means: "interfaces that lead outside",
    read: |p, given| interfaces(given.value).map(|names| p.zones.outside = names),
}];

//! The words of fw.conf about uplinks.
//!
//! Pure. Called by policy.rs; want/uplinks.rs and want/routes.rs act on them.

use super::{Word, bad, interfaces};
use crate::model;

/// The addition to the metric of an uplink's default routes while its link record says that it is
/// down. NetworkManager uses the same distance for a connection without connectivity.
pub const DEMOTE_METRIC: u32 = 20_000;

/// Uplinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplinks {
    /// Interface whose default route comes first.
    pub preferred: Option<String>,
    /// Added to the metric of a bad uplink.
    pub demote_metric: u32,
}

impl Default for Uplinks {
    fn default() -> Uplinks {
        Uplinks { preferred: None, demote_metric: DEMOTE_METRIC }
    }
}

/// The table.
pub(super) const WORDS: &[Word] = &[
    Word {
        name: "preferred_default_route_iface",
        means: "the uplink that comes first",
        read: |p, given| interfaces(given.value).map(|names| p.uplinks.preferred = names.into_iter().next()),
    },
    Word {
        name: "demote_metric",
        means: "what is added to the metric of a bad uplink",
        read: |p, given| {
            let number = model::decimal(given.value).filter(|n| (1..=1_000_000_000).contains(n));
            number.map(|n| p.uplinks.demote_metric = n).ok_or_else(|| bad(given.value))
        },
    },
];

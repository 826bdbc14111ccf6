//! A record as fw holds it: what it says, and where it stands.
//!
//! Pure. The struct and its keys are netd_core::record's; `man 5 ipconf` is the users' version.
//! Called by input.rs; want.rs makes a `Want` of the entries.

use netd_core::record::{Author, Fault, Health, Hop, Network, text};

use crate::model::TABLE_MAIN;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Comes from the static directory.
    pub is_static: bool,
    /// File and line, for messages.
    pub origin: String,
    /// The lines of its keys.
    pub lines: Vec<(&'static str, usize)>,
    /// What it says.
    pub network: Network,
    /// Its routes.
    pub hops: Vec<Hop>,
}

/// Understands a record, and says which words of it were left out. The error is what costs the
/// record.
pub fn read(record: &text::Record, is_static: bool, origin: String) -> Result<(Entry, Vec<Fault>), Fault> {
    let author = if is_static { Author::Administrator } else { Author::Program };
    let (network, left_out) = Network::parse(record, author)?;
    let hops = network.hops();
    let line = |key| record.lines().iter().find(|field| field.name == key).map(|field| (key, field.line));
    let lines = Network::keys().filter_map(line).collect();
    Ok((Entry { is_static, origin, lines, network, hops }, left_out))
}

impl Entry {
    /// Its interface.
    pub fn interface(&self) -> &str {
        &self.network.interface
    }

    /// The table of its routes.
    pub fn table(&self) -> u32 {
        self.network.table.unwrap_or(TABLE_MAIN)
    }

    /// The link watcher or the pinger says that this uplink is bad.
    pub fn is_bad(&self) -> bool {
        self.network.health == Some(Health::Down)
    }
}

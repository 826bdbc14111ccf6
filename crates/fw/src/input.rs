//! All that fw reads before it asks the kernel: records, fw.conf, what it remembers, the clocks.
//!
//! Shell: files.rs reads, the others understand. Called by run.rs.

use std::fs;
use std::io;
use std::path::PathBuf;

use netd::{clock, disk};

pub mod files;
pub mod lease;
pub mod memory;
pub mod own;
pub mod policy;

use crate::record::Entry;
use files::Files;
use lease::{Current, Now};
use memory::Memory;
use own::OwnRules;
use policy::Policy;

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The administrator's records.
    pub static_dir: PathBuf,
    /// The daemons' records, and fw's own dot files.
    pub dynamic: PathBuf,
    /// fw.conf.
    pub config: PathBuf,
    /// Where resolv.conf and its kind go.
    pub etc: PathBuf,
}

impl Paths {
    /// What fw remembers.
    pub fn memory(&self) -> PathBuf {
        self.dynamic.join(".memory")
    }

    /// While it is there, only `fw apply` by hand makes anything.
    pub fn down(&self) -> PathBuf {
        self.dynamic.join(".down")
    }
}

/// All that is known before the kernel is asked.
pub struct Input {
    /// The records that count now.
    pub records: Vec<Current>,
    /// fw.conf.
    pub policy: Policy,
    /// What the last run has left.
    pub memory: Memory,
    /// Records that do not count now, and what was left out of the others.
    pub notes: Vec<String>,
    /// The files, and what was wrong with them.
    pub files: Files,
    /// firewall.nft.
    pub own: OwnRules,
    /// All that is ours goes (`fw down`).
    pub goes: bool,
}

impl Input {
    /// Reads everything.
    pub fn read(paths: &Paths) -> Input {
        let mut files = files::read(&paths.static_dir, &paths.dynamic);
        let policy = files.policy(&paths.config, &paths.dynamic);
        let own = own::read(&paths.config, &paths.dynamic, &mut files);
        let entries = std::mem::take(&mut files.entries);
        let notes = std::mem::take(&mut files.notes);
        let mut input = Input::of(paths, entries, policy);
        input.notes.splice(..0, notes);
        Input { files, own, ..input }
    }

    /// Of these records and this policy, beside what fw remembers.
    pub fn of(paths: &Paths, entries: Vec<Entry>, policy: Policy) -> Input {
        let memory = Memory::parse(&fs::read_to_string(paths.memory()).unwrap_or_default());
        let (records, notes) = lease::current(entries, &now());
        Input { records, policy, memory, notes, files: Files::default(), own: OwnRules::default(), goes: false }
    }

    /// Of no record and of a policy that wants nothing, so that all of ours goes. An MTU is given
    /// back, also one of a lease.
    pub fn nothing(paths: &Paths) -> Input {
        let policy = Policy { forward: false, firewall: false, ..Policy::default() };
        let mut input = Input::of(paths, Vec::new(), policy);
        input.memory.mtus.iter_mut().for_each(|mtu| mtu.leased = false);
        Input { goes: true, ..input }
    }
}

/// Writes what has to be remembered, when it is not what was.
pub fn keep(paths: &Paths, old: &Memory, new: &Memory) -> io::Result<()> {
    if new == old {
        return Ok(());
    }
    disk::replace(&paths.memory(), new.render().as_bytes(), None)
}

/// The clocks and the boot that they count from.
fn now() -> Now {
    Now { boottime: clock::now(), wall: clock::wall(), boot_id: clock::boot_id() }
}

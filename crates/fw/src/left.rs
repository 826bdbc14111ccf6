//! What a run leaves for the watcher (`ifplugd --all`): the file `.left` of the dynamic directory.
//!
//! Shell. After a run that changed nothing it is what the run had seen. Otherwise the kernel is
//! read once more, and planned for once more: a change that is still due, and that the kernel has
//! not refused, means that another program was at work meanwhile, and the watcher then asks for
//! one more run. Called by run.rs before it gives back the lock.

use std::fs;
use std::io;
use std::path::Path;

use netd::disk;
use netd_core::left::{FILE, Left, Seen};

use crate::have::Have;
use crate::input::memory::Memory;
use crate::ipv6;
use crate::kernel::{Failure, Kernel};
use crate::plan::{self, Plan};
use crate::want::Want;

/// A run that is about to end.
pub struct Done<'a> {
    /// What was wanted.
    pub want: &'a Want,
    /// What there was before.
    pub have: Have,
    /// What was done.
    pub plan: &'a Plan,
    /// What the kernel has refused; `None` when it could not be asked.
    pub refused: Option<Vec<Failure>>,
    /// The firewall could not be loaded.
    pub without_firewall: bool,
}

impl Done<'_> {
    /// Leaves the file.
    pub fn leave(self, dynamic: &Path, kernel: &mut Kernel, memory: &Memory) -> io::Result<()> {
        if self.plan.changes.is_empty() {
            return keep(dynamic, self.want, &self.have.seen, true);
        }
        let mut now = kernel.snapshot(memory)?;
        kernel.read_switches(&self.want.sysctls, &self.plan.memory, &mut now);
        ipv6::look(self.want, &mut now);
        keep(dynamic, self.want, &now.seen, self.is_settled(&now))
    }

    /// Whether only such changes are due as the kernel has refused.
    fn is_settled(&self, now: &Have) -> bool {
        let mut due = plan::plan(self.want, now, &self.plan.memory);
        if self.without_firewall {
            due.withhold_forwarding();
        }
        let Some(refused) = &self.refused else { return false };
        due.changes.iter().all(|change| refused.iter().any(|failure| failure.change == *change))
    }
}

/// Writes the file, when it says something new.
fn keep(dynamic: &Path, want: &Want, now: &Seen, settled: bool) -> io::Result<()> {
    let names = want.links.iter().map(|link| link.interface.as_str());
    let text = Left::new(names, now, settled).render();
    let path = dynamic.join(FILE);
    if fs::read_to_string(&path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    disk::replace(&path, text.as_bytes(), None)
}

//! `fw check`: every fault in the files, with its line. It changes nothing and needs no privilege.
//!
//! Shell. It reads the files as a run does, but takes no last good content in their place. Called
//! by commands.rs.

use crate::firewall::Firewall;
use crate::firewall::phases::Failure;
use crate::input::files::{self, Fault};
use crate::input::{Input, Paths};
use crate::kernel;
use crate::report::Report;
use crate::run::{self, EXIT_ERRORS, EXIT_OK};

/// Prints a line for each fault.
pub fn check(paths: &Paths) -> Result<u8, String> {
    let (entries, policy, mut faults) = files::inspect(&paths.static_dir, &paths.dynamic, &paths.config);
    let input = Input::of(paths, entries, policy);
    faults.extend(input.notes.iter().map(|note| Fault::warning(note)));
    // The kernel's links decide which of the records can be fulfilled now. fw may ask for them
    // without privilege.
    match run::look(paths, input, &mut Report::silent()) {
        Ok(look) => {
            faults.extend(look.plan.notes.iter().map(|note| Fault::warning(note)));
            faults.extend(look.table.as_deref().and_then(refused));
        }
        Err(e) => faults.push(Fault::warning(&e)),
    }
    faults.dedup();
    applet::say::out(&faults.iter().map(|fault| format!("{fault}\n")).collect::<String>());
    Ok(if faults.iter().any(|fault| fault.is_error) { EXIT_ERRORS } else { EXIT_OK })
}

/// What nft says of the table. Where it cannot look, as without privilege, that is a warning.
fn refused(table: &str) -> Option<Fault> {
    match Firewall::check(table).err()? {
        Failure::Refused(text) if kernel::has_net_admin() => Some(Fault::error(&text)),
        Failure::Refused(_) => {
            Some(Fault::warning("the nft table is not checked: capability CAP_NET_ADMIN is missing"))
        }
        Failure::Silent(text) => Some(Fault::warning(&text)),
    }
}

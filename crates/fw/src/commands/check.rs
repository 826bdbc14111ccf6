//! `fw check`: every fault in the files, with its line. It changes nothing and needs no privilege.
//!
//! Shell. It reads the files as a run does, but takes no last good content in their place. Called
//! by commands.rs.

use crate::firewall::Firewall;
use crate::firewall::phases::Failure;
use crate::input::files::{self, Fault};
use crate::input::own;
use crate::input::{Input, Paths};
use crate::kernel;
use crate::report::{EXIT_ERRORS, EXIT_OK, Report};
use crate::run;

/// Prints a line for each fault.
pub fn check(paths: &Paths) -> Result<u8, String> {
    let (entries, policy, mut faults) = files::inspect(&paths.static_dir, &paths.dynamic, &paths.config);
    let mut input = Input::of(paths, entries, policy);
    let (own, errors) = own::inspect(&paths.config);
    input.own = own;
    faults.extend(errors.iter().map(|e| Fault::error(e)));
    faults.extend(input.notes.iter().map(|note| Fault::warning(note)));
    // The kernel's links decide which of the records can be fulfilled now. fw may ask for them
    // without privilege.
    let mut report = Report::silent();
    match run::look(paths, input, &mut report) {
        Ok(look) => {
            let warnings = look.want.zones.warnings(&look.input.records);
            faults.extend(report.errors().iter().map(|error| Fault::error(error)));
            faults
                .extend(report.said().iter().chain(&look.plan.notes).chain(&warnings).map(|note| Fault::warning(note)));
            faults.extend(look.table.as_deref().map(refused).unwrap_or_default());
        }
        Err(e) => faults.push(Fault::warning(&e)),
    }
    let mut said = Vec::new();
    faults.retain(|fault| {
        !said.contains(&fault.text) && {
            said.push(fault.text.clone());
            true
        }
    });
    applet::say::out(&faults.iter().map(|fault| format!("{fault}\n")).collect::<String>());
    Ok(if faults.iter().any(|fault| fault.is_error) { EXIT_ERRORS } else { EXIT_OK })
}

/// What nft says of the table. Where it cannot look, as without privilege, that is a warning, and
/// so is what the kernel lacks.
fn refused(table: &str) -> Vec<Fault> {
    let fault = match Firewall::check(table) {
        Ok(lacks) => return lacks.into_iter().map(Fault::warning).collect(),
        Err(Failure::Refused(text)) if kernel::has_net_admin() => Fault::error(&text),
        Err(Failure::Unable(text)) if kernel::has_net_admin() => Fault::warning(&text),
        Err(Failure::Refused(_) | Failure::Unable(_)) => {
            Fault::warning("the nft table is not checked: capability CAP_NET_ADMIN is missing")
        }
    };
    vec![fault]
}

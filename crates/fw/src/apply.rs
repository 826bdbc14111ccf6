//! The plan, applied to the kernel.
//!
//! Shell. Connections move while the routes turn; an Ethernet address that a driver takes only
//! while its link is down gets that moment; a refusal is said in the words of plan/refused.rs.
//! Called by run.rs.

use std::io;

use applet::control::error_text;
use nix::errno::Errno;

use crate::change::{Change, routes_after};
use crate::conntrack::{Mover, Turn};
use crate::have::Have;
use crate::ipv6;
use crate::kernel::{Failure, Kernel};
use crate::plan::refused::{Verdict, is_echo, judge};
use crate::plan::{self, Plan};
use crate::report::{NO_CAPABILITY, Report};
use crate::want::Want;

/// Applies the plan, and moves the flows of an uplink that loses the default route. Returns what
/// the kernel has refused, or nothing when it could not be asked.
pub fn apply(kernel: &mut Kernel, want: &Want, have: &Have, plan: &Plan, report: &mut Report) -> Option<Vec<Failure>> {
    if plan.changes.is_empty() {
        return Some(Vec::new());
    }
    let after = routes_after(&have.routes, &plan.changes);
    let turn = Turn::of(want, have, &plan.changes, &after);
    // Without connection tracking in the kernel nothing is masqueraded and nothing has to move.
    let mut mover = Some(turn).filter(|t| !t.is_none()).and_then(|t| Mover::prepare(t, want, have, after).ok());
    let applied = kernel.apply(&plan.changes, &mut || {
        if let Some(mover) = &mut mover {
            let _ = mover.strike();
        }
    });
    if let Some(mover) = &mut mover
        && let Err(e) = mover.sweep()
    {
        report.note(&format!("unable to move flows to the new uplink: {}", error_text(&e)));
    }
    match applied.and_then(|failures| set_refused_macs(kernel, want, plan, failures, report)) {
        Ok(failures) => {
            say_refused(&failures, want, report);
            Some(failures)
        }
        Err(e) => {
            report.error(&format!("netlink: {}", error_text(&e)));
            None
        }
    }
}

/// Sets the Ethernet addresses that a driver takes only while its link is down, and makes anew what
/// goes with a link that is set down. Returns what is still refused.
fn set_refused_macs(
    kernel: &mut Kernel,
    want: &Want,
    plan: &Plan,
    failures: Vec<Failure>,
    report: &mut Report,
) -> io::Result<Vec<Failure>> {
    let (macs, mut others): (Vec<Failure>, Vec<Failure>) =
        failures.into_iter().partition(|f| f.change.waits_for_down(f.refusal.errno));
    if macs.is_empty() {
        return Ok(others);
    }
    let macs: Vec<Change> = macs.into_iter().map(|f| f.change).collect();
    macs.iter().for_each(|change| report.note(&format!("{change}: the link is set down for a moment")));
    kernel.set_macs_while_down(&macs)?;
    let mut have = kernel.snapshot(&plan.memory)?;
    kernel.read_switches(&want.sysctls, &plan.memory, &mut have);
    ipv6::look(want, &mut have);
    let mut lost = plan::plan(want, &have, &plan.memory).changes;
    lost.retain(|change| !matches!(change, Change::Sysctl(_)) && !others.iter().any(|f| f.change == *change));
    others.extend(kernel.apply(&lost, &mut || {})?);
    Ok(others)
}

fn say_refused(failures: &[Failure], want: &Want, report: &mut Report) {
    let refused = |f: &Failure| f.refusal.errno == Errno::EPERM;
    let objects = failures.iter().filter(|f| !matches!(f.change, Change::Sysctl(_))).count();
    if objects > 0 && failures.iter().all(refused) {
        return report.error(NO_CAPABILITY);
    }
    let is_news = |f: &&Failure| !is_echo(&f.change, failures.iter().map(|o| &o.change));
    for f in failures.iter().filter(is_news) {
        match judge(&f.change, f.refusal.errno, &f.refusal.to_string(), want) {
            Verdict::Error(text) => report.error(&text),
            Verdict::LeftOut(text) => report.note(&text),
        }
    }
}

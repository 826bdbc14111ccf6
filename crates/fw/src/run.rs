//! One run of fw, from the files to the kernel.
//!
//! Shell: the order of the steps and nothing else. The firewall that admits old and new, switches,
//! addresses, routes, deletions, the final firewall, files. After an error in one step the others
//! still happen. Called by the files of commands/.

use std::fs::{self, File};
use std::io;

use applet::control::error_text;

use crate::apply::apply;
use crate::etc::{self, servers::Facts};
use crate::firewall::Firewall;
use crate::have::Have;
use crate::hooks::{self, news::State};
use crate::input::memory::Memory;
use crate::input::{self, Input, Paths};
use crate::ipv6;
use crate::kernel::{self, Kernel};
use crate::left::Done;
use crate::plan::{self, Plan};
use crate::report::{EXIT_ERRORS, EXIT_OK, NO_CAPABILITY, Report};
use crate::told;
use crate::want::{self, Want, judged};

/// What is said while nothing is made.
const DOWN: &str = "down: `fw apply` by hand brings it up";

/// What is wanted of the kernel as it is, and what the kernel has of it.
fn wishes(input: &mut Input, kernel: &Kernel, mut have: Have, report: &mut Report) -> (Want, Have) {
    input.files.errors.iter().for_each(|e| report.error(e));
    input.notes.iter().for_each(|n| report.note(n));
    judged::judge(&mut input.records, &have).iter().for_each(|n| report.note(n));
    let want = want::want(&input.records, &input.policy, &input.memory, &have);
    want.errors.iter().for_each(|e| report.error(e));
    want.notes.iter().for_each(|n| report.note(n));
    want.zones.errors.iter().for_each(|e| report.error(e));
    want.zones.news(&input.memory, &have).iter().for_each(|n| report.note(n));
    kernel.read_switches(&want.sysctls, &input.memory, &mut have);
    ipv6::look(&want, &mut have);
    (want, have)
}

/// What a run knows before it changes anything.
pub struct Look {
    /// What was read.
    pub input: Input,
    /// What is wanted.
    pub want: Want,
    /// What the kernel has.
    pub have: Have,
    /// What would be changed.
    pub plan: Plan,
    /// What would become of the nft table, and why.
    pub firewall: Option<(String, String)>,
    /// The nft table that is wanted.
    pub table: Option<String>,
    /// The files that would be written.
    pub files: Vec<etc::File>,
}

/// Looks, and changes nothing.
pub fn look(paths: &Paths, mut input: Input, report: &mut Report) -> Result<Look, String> {
    let (kernel, have) = ask_kernel(&input.memory)?;
    let (want, have) = wishes(&mut input, &kernel, have, report);
    let plan = plan::plan(&want, &have, &input.memory);
    let firewall = Firewall::open(&paths.dynamic, &want, &input);
    firewall.own_errors().iter().for_each(|e| report.error(e));
    let (planned, table) = (firewall.planned(), firewall.table().map(str::to_owned));
    let files = etc::changed(&paths.etc, &Facts::new(&input, &want, &have), report);
    Ok(Look { input, want, have, plan, firewall: planned, table, files })
}

/// What a run would still do, one line each.
pub fn differences(paths: &Paths) -> Result<Vec<String>, String> {
    let look = look(paths, Input::read(paths), &mut Report::silent())?;
    let changes = look.plan.changes.iter().map(ToString::to_string);
    let rest = look.firewall.into_iter().map(|(line, _)| line);
    Ok(changes.chain(rest).chain(look.files.iter().map(ToString::to_string)).collect())
}

/// An error for a process that the kernel lets change nothing.
pub fn may_change() -> Result<(), String> {
    if kernel::has_net_admin() { Ok(()) } else { Err(NO_CAPABILITY.to_owned()) }
}

/// Makes the kernel match the files. The caller holds the lock.
/// `is_service`: runsv has started it, as the ./run of its directory.
pub fn make(paths: &Paths, is_service: bool) -> Result<u8, String> {
    perform(paths, Input::read(paths), is_service)
}

/// Takes away all that fw has made. What was outside stays known. The caller holds the lock.
pub fn unmake(paths: &Paths, is_service: bool) -> Result<u8, String> {
    perform(paths, Input::nothing(paths), is_service)
}

fn perform(paths: &Paths, mut input: Input, is_service: bool) -> Result<u8, String> {
    let mut report = Report::after(&input.memory.said);
    let (mut kernel, have) = ask_kernel(&input.memory)?;
    let (want, have) = wishes(&mut input, &kernel, have, &mut report);
    let mut firewall = Firewall::open(&paths.dynamic, &want, &input);
    firewall.begin(&mut report);
    // nft works meanwhile.
    let mut plan = plan::plan(&want, &have, &input.memory);
    firewall.settle(&mut report);
    plan.notes.iter().for_each(|n| report.note(n));
    if firewall.is_missing() && plan.withhold_forwarding() {
        report.note("forwarding is not switched on without the firewall");
    }
    let meanwhile = plan.memory.beside(&input.memory);
    report.check(&paths.memory(), input::keep(paths, &input.memory, &meanwhile));
    let refused = apply(&mut kernel, &want, &have, &plan, &mut report);
    firewall.end(&mut report);
    input.own.keep(firewall.own_loaded(), &mut input.files);
    let facts = Facts::new(&input, &want, &have);
    etc::write(paths, &facts, &mut report);
    report.check(&paths.dynamic.join(".metered"), told::metered(&paths.dynamic, &want.metered));
    if !input.goes {
        report.check(&paths.dynamic.join(".good"), input.files.keep_good(&paths.dynamic));
    }
    let without_firewall = firewall.is_missing();
    firewall.reap(&mut report);
    let are_hooks_due = hooks::note(paths, || State::new(&want, &have, &plan.memory, &facts), &mut report);
    let done = Done { want: &want, have, plan: &plan, refused, without_firewall };
    report.check(&paths.dynamic.join(".left"), done.leave(&paths.dynamic, &mut kernel, &meanwhile));
    if input.goes {
        report.note(DOWN);
    }
    plan.memory.said = report.said();
    report.check(&paths.memory(), input::keep(paths, &meanwhile, &plan.memory));
    if are_hooks_due {
        hooks::start(paths, is_service, &mut report);
    }
    Ok(if report.has_failed() { EXIT_ERRORS } else { EXIT_OK })
}

/// One run at a time; the lock is gone with the process, however that ends.
pub fn lock(paths: &Paths) -> Result<File, String> {
    let dynamic = &paths.dynamic;
    let locked = fs::create_dir_all(dynamic).and_then(|()| {
        let file = File::options().create(true).append(true).open(dynamic.join(".lock"))?;
        file.lock()?;
        Ok(file)
    });
    locked.map_err(|e| format!("unable to lock {}: {}", dynamic.display(), error_text(&e)))
}

fn ask_kernel(memory: &Memory) -> Result<(Kernel, Have), String> {
    let failed = |e: io::Error| format!("unable to read the kernel's state: {}", error_text(&e));
    let mut kernel = Kernel::open().map_err(failed)?;
    let have = kernel.snapshot(memory).map_err(failed)?;
    Ok((kernel, have))
}

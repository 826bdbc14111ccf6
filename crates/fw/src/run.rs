//! One run of fw: `apply` and `plan`, from the files to the kernel.
//!
//! Shell: the order of the steps and nothing else. Switches, the firewall that admits old and new, addresses, routes,
//! deletions, the firewall as it shall stay, files. An error in one step is reported and the others still happen. Called
//! by lib.rs.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use applet::control::{Command, ServiceDir, error_text};
use netd::disk;

use crate::change::routes_after;
use crate::conntrack::{self, Mover};
use crate::etc;
use crate::firewall::load::{self, Ending, Firewall, Running};
use crate::firewall::text;
use crate::have::Have;
use crate::input::files::{self, Input};
use crate::input::lease;
use crate::input::memory::Memory;
use crate::input::policy::Policy;
use crate::kernel::{self, EPERM, Kernel};
use crate::model::TABLE_MAIN;
use crate::plan::{self, Plan};
use crate::record::Entry;
use crate::report::{NO_CAPABILITY, Report};
use crate::want::{self, Want};

/// Everything done, or nothing to do.
pub const EXIT_OK: u8 = 0;
/// Something went wrong; all the rest was done.
pub const EXIT_ERRORS: u8 = 1;
/// `plan`: there are changes.
pub const EXIT_CHANGES: u8 = 2;

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

/// All that is known before the kernel is asked.
struct Situation {
    input: Input,
    policy: Policy,
    memory: Memory,
    records: Vec<Entry>,
    want: Want,
}

fn situation(paths: &Paths, report: &mut Report) -> Situation {
    let mut input = files::read(&paths.static_dir, &paths.dynamic);
    let policy = input.policy(&paths.config, &paths.dynamic);
    input.errors.iter().for_each(|e| report.error(e));
    let memory = Memory::parse(&fs::read_to_string(memory_file(paths)).unwrap_or_default());
    let (current, messages) = lease::current(std::mem::take(&mut input.entries), &files::now());
    messages.iter().for_each(|m| report.note(m));
    let want = want::want(&current, &policy, &memory);
    let records = current.into_iter().map(|(entry, _)| entry).collect();
    Situation { input, policy, memory, records, want }
}

fn memory_file(paths: &Paths) -> PathBuf {
    paths.dynamic.join(".memory")
}

/// `fw plan`: prints what `apply` would do.
pub fn plan(paths: &Paths) -> Result<u8, String> {
    let mut report = Report::default();
    let s = situation(paths, &mut report);
    let have = open_kernel(&s)?.1;
    let plan = plan::plan(&s.want, &have, &s.memory);
    let mut lines: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
    let text = text::render(&s.want.external, &s.want.numbers, &s.policy);
    let firewall = Firewall::open(&paths.dynamic);
    if firewall.difference(text.as_deref()).is_some() {
        let sign = match (&text, firewall.is_there()) {
            (None, _) => '-',
            (Some(_), true) => '~',
            (Some(_), false) => '+',
        };
        lines.push(format!("{sign} nft table inet {}", text::TABLE));
    }
    lines.extend(
        etc_files(paths, &s.records, &mut report)
            .into_iter()
            .map(|f| format!("{} file {}", if f.path.exists() { '~' } else { '+' }, f.path.display())),
    );
    applet::say::out(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    say_missing(&plan, &Memory::default(), &s, &report);
    plan.notes.iter().for_each(|n| report.note(n));
    Ok(match (report.failed, lines.is_empty()) {
        (true, _) => EXIT_ERRORS,
        (false, true) => EXIT_OK,
        (false, false) => EXIT_CHANGES,
    })
}

fn open_kernel(s: &Situation) -> Result<(Kernel, Have), String> {
    let failed = |e: io::Error| format!("unable to read the kernel's state: {}", error_text(&e));
    let mut kernel = Kernel::open().map_err(failed)?;
    let have = kernel.snapshot(&s.want.sysctls, &s.memory).map_err(failed)?;
    Ok((kernel, have))
}

/// `fw apply`.
pub fn apply(paths: &Paths) -> Result<u8, String> {
    if !kernel::has_net_admin() {
        return Err(NO_CAPABILITY.to_owned());
    }
    let _lock =
        lock(&paths.dynamic).map_err(|e| format!("unable to lock {}: {}", paths.dynamic.display(), error_text(&e)))?;
    let mut report = Report::default();
    let s = situation(paths, &mut report);
    let mut firewall = Firewall::open(&paths.dynamic);
    let mut wall = Wall::begin(&firewall, &s);
    let opened = open_kernel(&s);
    wall.settle(&mut firewall, &mut report);
    let (mut kernel, have) = opened?;
    let mut plan = plan::plan(&s.want, &have, &s.memory);
    plan.notes.iter().for_each(|n| report.note(n));
    say_missing(&plan, &s.memory, &s, &report);
    if wall.is_missing && plan.withhold_forwarding() {
        report.note("forwarding is not switched on without the firewall");
    }
    let after = remember(&s, &plan);
    let meanwhile = after.beside(&s.memory);
    keep(paths, &s.memory, &meanwhile, &mut report);
    change(&mut kernel, &have, &plan, &mut report);
    wall.end(&mut firewall, &mut report);
    write_files(paths, &s, &mut report);
    keep(paths, &meanwhile, &after, &mut report);
    report.check(&paths.dynamic.join(".good"), s.input.keep_good(&paths.dynamic));
    wall.reap(&mut firewall, &mut report);
    Ok(if report.failed { EXIT_ERRORS } else { EXIT_OK })
}

/// One run at a time; the lock is gone with the process, however that ends.
fn lock(dynamic: &Path) -> io::Result<File> {
    fs::create_dir_all(dynamic)?;
    let file = File::options().create(true).append(true).open(dynamic.join(".lock"))?;
    file.lock()?;
    Ok(file)
}

/// The firewall's two moments: before the kernel changes, everything that was or will be outside is treated as outside;
/// afterwards it is as wanted. Mostly both texts are the same, and mostly the same as loaded.
struct Wall {
    first: Option<String>,
    last: Option<String>,
    running: Option<Running>,
    endings: Vec<Ending>,
    /// It is wanted and could not be loaded.
    is_missing: bool,
}

impl Wall {
    /// Starts nft, which then works while the kernel's state is read.
    fn begin(firewall: &Firewall, s: &Situation) -> Wall {
        let last = text::render(&s.want.external, &s.want.numbers, &s.policy);
        let mut both = s.want.external.clone();
        both.extend(s.memory.uplinks.iter().filter(|_| s.policy.external.is_empty()).cloned());
        both.sort();
        both.dedup();
        let mut numbers = s.memory.numbers.clone();
        let is_new = |name: &str| !s.memory.numbers.iter().any(|(n, _)| n == name);
        numbers.extend(s.want.numbers.iter().filter(|(name, _)| is_new(name)).cloned());
        let first = text::render(&both, &numbers, &s.policy);
        let running = match &first {
            Some(text) => firewall.difference(Some(text)).map(|text| load::start(&text)),
            None => None,
        };
        Wall { first, last, running, endings: Vec::new(), is_missing: false }
    }

    fn settle(&mut self, firewall: &mut Firewall, report: &mut Report) {
        if let Some(running) = self.running.take() {
            self.finish(running, self.first.clone().as_deref(), firewall, report);
        }
    }

    fn end(&mut self, firewall: &mut Firewall, report: &mut Report) {
        if self.last.is_some() && self.last == self.first {
            return;
        }
        if let Some(text) = firewall.difference(self.last.as_deref()) {
            self.finish(load::start(&text), self.last.clone().as_deref(), firewall, report);
        }
    }

    fn finish(&mut self, running: Running, table: Option<&str>, firewall: &mut Firewall, report: &mut Report) {
        let has_failed = |result: &Result<(), String>| result.as_ref().is_err_and(|e| e != load::SILENT);
        let mut result = self.committed(running);
        if has_failed(&result) && firewall.look_is_stale() {
            result = self.committed(load::start(&replacement(table)));
        }
        if let (true, Some(less)) = (has_failed(&result), table.and_then(text::without_marks)) {
            result = self.committed(load::start(&replacement(Some(&less))));
            if result.is_ok() {
                report
                    .note("this kernel marks no connections: answers of hosts behind it leave by the preferred uplink");
            }
        }
        match result {
            Ok(()) => {
                if let Err(e) = firewall.remember(table) {
                    report.error(&format!("unable to remember the firewall: {}", error_text(&e)));
                }
            }
            Err(text) => {
                self.is_missing = true;
                report.error(&text);
            }
        }
    }

    fn committed(&mut self, running: Running) -> Result<(), String> {
        let (ending, result) = running.committed();
        self.endings.push(ending);
        result
    }

    /// When everything else has been done: waits for each nft. A table of another one, which a killed run had left behind, is replaced.
    fn reap(mut self, firewall: &mut Firewall, report: &mut Report) {
        if self.have_ended_well() {
            return;
        }
        let last = self.last.clone();
        let running = load::start(&replacement(last.as_deref()));
        self.finish(running, last.as_deref(), firewall, report);
        if !self.have_ended_well() {
            report.error("nft: failed beside another one that makes our table");
        }
    }

    fn have_ended_well(&mut self) -> bool {
        // All of them are waited for, also after one that has failed.
        self.endings.drain(..).map(Ending::reap).filter(|well| !well).count() == 0
    }
}

/// Puts the table in the place of whatever there is.
fn replacement(table: Option<&str>) -> String {
    table.map_or_else(text::removal, |table| text::transaction(table, true))
}

/// Applies the plan, and moves the flows of an uplink that loses the default route.
fn change(kernel: &mut Kernel, have: &Have, plan: &Plan, report: &mut Report) {
    if plan.changes.is_empty() {
        return;
    }
    let after = routes_after(&have.routes, &plan.changes);
    let losers = conntrack::losers(have, &after);
    // Without connection tracking in the kernel nothing is masqueraded and nothing has to move.
    let mut mover = Some(losers).filter(|l| !l.is_empty()).and_then(|l| Mover::prepare(l, have, after).ok());
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
    match applied {
        Ok(failures) if !failures.is_empty() && failures.iter().all(|f| f.refusal.errno == EPERM) => {
            report.error(NO_CAPABILITY);
        }
        Ok(failures) => failures.iter().for_each(|f| report.error(&format!("{}: {}", f.change, f.refusal))),
        Err(e) => report.error(&format!("netlink: {}", error_text(&e))),
    }
}

/// A missing interface is no failure: it may be plugged in later. Said once per change.
fn say_missing(plan: &Plan, memory: &Memory, s: &Situation, report: &Report) {
    for name in plan.missing.iter().filter(|n| !memory.missing.contains(n)) {
        let origin = s.records.iter().find(|e| e.interface == **name).map_or("", |e| e.origin.as_str());
        report.note(&format!("{origin}: no interface {name} yet: the next run looks again"));
    }
}

fn keep(paths: &Paths, old: &Memory, new: &Memory, report: &mut Report) {
    if new != old {
        let written = disk::replace(&memory_file(paths), new.render().as_bytes(), None);
        report.check(&memory_file(paths), written);
    }
}

fn remember(s: &Situation, plan: &Plan) -> Memory {
    let there = |name: &str| !plan.missing.iter().any(|m| m == name);
    let addresses = s.want.addresses.iter().filter(|a| there(&a.interface));
    let defaults = s.want.routes.iter().filter(|r| r.destination.is_default() && r.table == TABLE_MAIN);
    let best = defaults.filter(|r| there(&r.interface)).min_by_key(|r| r.metric);
    Memory {
        uplinks: s.want.uplinks.clone(),
        numbers: s.want.numbers.clone(),
        // Without any uplink the last one is still remembered: it may come back first.
        best: best.map(|r| r.interface.clone()).or_else(|| s.memory.best.clone()),
        missing: plan.missing.clone(),
        mtus: plan.mtus.clone(),
        addresses: addresses.map(|a| (a.interface.clone(), a.address)).collect(),
    }
}

/// A file whose content has to change.
struct EtcFile {
    path: PathBuf,
    content: Vec<u8>,
    service: Option<&'static str>,
}

fn etc_files(paths: &Paths, records: &[Entry], report: &mut Report) -> Vec<EtcFile> {
    let records: Vec<&Entry> = records.iter().collect();
    let mut out = Vec::new();
    let mut file = |name: &str, service, render: &dyn Fn(&[u8]) -> Option<Vec<u8>>| {
        let path = paths.etc.join(name);
        let old = match etc::read(&path) {
            Ok(Some(old)) => old,
            Ok(None) => return,
            // What cannot be read may hold lines of the administrator.
            Err(e) => return report.error(&format!("unable to read {}: {}", path.display(), error_text(&e))),
        };
        out.extend(render(&old).filter(|new| *new != old).map(|content| EtcFile { path, content, service }));
    };
    let hostname = etc::hostname();
    file("resolv.conf", None, &|old| etc::resolv_conf(&records, old).map(String::into_bytes));
    file("hosts", None, &|old| Some(etc::hosts(&records, &hostname, old)));
    file("dnsmasq_servers.conf", Some("dnsmasq"), &|old| etc::dnsmasq_servers(&records, old).map(String::into_bytes));
    out
}

fn write_files(paths: &Paths, s: &Situation, report: &mut Report) {
    // FW_ETC may be in /run, which is empty at boot. That it cannot be made is seen when something is written.
    let _ = fs::create_dir_all(&paths.etc);
    for file in etc_files(paths, &s.records, report) {
        let written = etc::write_through(&file.path, &file.content);
        if written.is_ok()
            && let Some(service) = file.service
        {
            // dnsmasq reads its servers-file again on HUP. Most machines have no such service.
            let _ = ServiceDir::resolve(service.as_ref()).send(&[Command::Hangup]);
        }
        match written {
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => report.error(&format!(
                "unable to write {}: {}: make it a link to a file in /run, or name another directory in FW_ETC",
                file.path.display(),
                error_text(&e)
            )),
            other => report.check(&file.path, other),
        }
    }
}

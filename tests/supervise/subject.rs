//! The subject of a test and the place where it lives: a pair of tool sets (one supervises, one
//! controls) and a temporary directory with services. The tests never use our own code to look at
//! the result; they read files and /proc directly.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A set of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tools {
    /// Debian's runit: the original.
    Runit,
    /// The binary under test.
    Ours,
    /// The binary under test, with `runsvdir -1` in the part of runsv.
    Hosted,
}

/// Which set of programs plays which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) runsvdir: Tools,
    pub(crate) runsv: Tools,
    pub(crate) sv: Tools,
}

const fn subject(runsvdir: Tools, runsv: Tools, sv: Tools) -> Subject {
    Subject { runsvdir, runsv, sv }
}

pub(crate) const RUNIT: Subject = subject(Tools::Runit, Tools::Runit, Tools::Runit);
pub(crate) const OURS: Subject = subject(Tools::Ours, Tools::Ours, Tools::Ours);
/// One process of ours for all services.
const HOSTED: Subject = subject(Tools::Hosted, Tools::Hosted, Tools::Ours);
/// Debian's sv drives our runsv.
const THEIR_SV: Subject = subject(Tools::Ours, Tools::Ours, Tools::Runit);
/// Debian's sv drives our one process.
const THEIR_SV_HOSTED: Subject = subject(Tools::Hosted, Tools::Hosted, Tools::Runit);
/// Our sv drives Debian's runsv.
const OUR_SV: Subject = subject(Tools::Runit, Tools::Runit, Tools::Ours);
/// Debian's runsvdir runs our runsv.
const THEIR_RUNSVDIR: Subject = subject(Tools::Runit, Tools::Ours, Tools::Ours);
/// Our runsvdir runs Debian's runsv.
const THEIR_RUNSV: Subject = subject(Tools::Ours, Tools::Runit, Tools::Runit);

impl Subject {
    fn needs_runit(self) -> bool {
        [self.runsvdir, self.runsv, self.sv].contains(&Tools::Runit)
    }

    pub(crate) fn is_hosted(self) -> bool {
        self.runsvdir == Tools::Hosted
    }

    pub(crate) fn is_ours(self) -> bool {
        !self.needs_runit()
    }
}

/// Runs the same case with runit, then with ours.
pub(crate) fn both(case: impl Fn(&World) + Sync) {
    run(&[RUNIT, OURS], case);
}

/// Runs the same case with runit, then with ours, both with a runsv and without.
pub(crate) fn each_way(case: impl Fn(&World) + Sync) {
    run(&[RUNIT, OURS, HOSTED], case);
}

/// Runs the same case with runit, then with ours, then each with the other's sv.
pub(crate) fn with_each_others_sv(case: impl Fn(&World) + Sync) {
    run(&[RUNIT, OURS, THEIR_SV, OUR_SV, HOSTED, THEIR_SV_HOSTED], case);
}

/// Runs the same case with runit, then with ours, then each with the other's runsv.
pub(crate) fn with_each_others_runsv(case: impl Fn(&World) + Sync) {
    run(&[RUNIT, OURS, THEIR_RUNSVDIR, THEIR_RUNSV], case);
}

/// Runs a case that holds for ours only, with a runsv and without; docs/compat.md says why.
pub(crate) fn ours(case: impl Fn(&World) + Sync) {
    run(&[OURS, HOSTED], case);
}

/// Runs a case that holds only for our tree with a runsv for each service.
pub(crate) fn with_runsv(case: impl Fn(&World) + Sync) {
    run(&[OURS], case);
}

/// Runs a case that holds only for `runsvdir -1`.
pub(crate) fn hosted(case: impl Fn(&World) + Sync) {
    run(&[HOSTED], case);
}

/// The directory of runit's programs, which are installed or were unpacked by ./test.
fn runit() -> Option<PathBuf> {
    Some(testkit::original("runsv")?.parent()?.to_owned())
}

fn run(subjects: &[Subject], case: impl Fn(&World) + Sync) {
    let mut present = Vec::new();
    for subject in subjects {
        if subject.needs_runit() && runit().is_none() {
            assert!(std::env::var_os("CI").is_none(), "runit is not installed: apt-get install runit");
            println!("SKIPPED {subject:?}: runit is not installed: apt-get install runit");
        } else {
            present.push(*subject);
        }
    }
    // The cases run side by side, since most of the time they wait for runit. They are judged in
    // the order above, the original first.
    std::thread::scope(|scope| {
        let case = &case;
        let running: Vec<_> =
            present.iter().map(|subject| (subject, scope.spawn(move || case(&World::new(*subject))))).collect();
        for (subject, thread) in running {
            if let Err(panic) = thread.join() {
                println!("failed with {subject:?}");
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// A temporary directory with services in `s/`, and every process that was started in it.
pub(crate) struct World {
    pub(crate) subject: Subject,
    pub(crate) dir: PathBuf,
    /// Text and file of each script.
    scripts: Mutex<HashMap<String, PathBuf>>,
}

impl World {
    /// In a process of [`testkit::isolated`] there is one world.
    pub(crate) fn for_isolated(subject: Subject) -> World {
        World::new(subject)
    }

    fn new(subject: Subject) -> World {
        // The name does not use our process id: another suite in a process id namespace of its own
        // could have the same.
        let unique = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let dir = std::env::temp_dir().join(format!("netsv-supervise-{}", &unique[..8]));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(dir.join("s")).unwrap();
        fs::create_dir_all(dir.join("bin")).unwrap();
        let dir = dir.canonicalize().unwrap();
        for (name, tools) in [
            ("runsvdir", subject.runsvdir),
            ("runsv", subject.runsv),
            ("sv", subject.sv),
            ("svc", subject.sv),
            ("svok", subject.sv),
        ] {
            let program = match tools {
                Tools::Runit => runit().unwrap().join(name),
                Tools::Ours | Tools::Hosted => PathBuf::from(env!("CARGO_BIN_EXE_netsv")),
            };
            symlink(program, dir.join("bin").join(name)).unwrap();
        }
        World { subject, dir, scripts: Mutex::default() }
    }

    /// A path below the services directory.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.dir.join("s").join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    /// What our runsv has recorded about a service for the next runsv; empty when there is no
    /// record.
    pub(crate) fn record(&self, service: &str) -> String {
        let link = fs::read_link(self.at(service).join("supervise/instance")).unwrap_or_default();
        link.to_string_lossy().into_owned()
    }

    pub(crate) fn write_record(&self, service: &str, text: &str) {
        let path = self.at(service).join("supervise/instance");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(text, path).unwrap();
    }

    pub(crate) fn lines(&self, path: &str) -> Vec<String> {
        self.read(path).lines().map(str::to_owned).collect()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Other services may share this script: replace the file, do not write into it.
        if fs::metadata(&path).is_ok_and(|found| found.is_file()) {
            fs::remove_file(&path).unwrap();
        }
        fs::write(path, text).unwrap();
    }

    /// Writes an executable shell script. Another process writes it: a child of another thread
    /// could for a moment inherit a descriptor of ours that is open for writing, and the kernel
    /// does not execute such a file (ETXTBSY). Scripts with the same text share one file.
    pub(crate) fn script(&self, path: &str, text: &str) {
        let text = format!("#!/bin/sh\n{text}\n");
        let mut scripts = self.scripts.lock().unwrap();
        let count = scripts.len();
        let file = scripts.entry(text).or_insert_with_key(|text| {
            let file = self.dir.join(format!("script{count}"));
            let mut writer = Command::new("sh");
            writer.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(&file).stdin(Stdio::piped());
            let mut writer = writer.spawn().unwrap();
            writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            assert!(writer.wait().unwrap().success());
            file
        });
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        fs::hard_link(file, path).unwrap();
    }

    /// A command of one of the subject's programs, in the services directory, with the subject's
    /// tools in PATH.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.dir.join("bin").join(program));
        let path = format!("{}:/usr/bin:/bin", self.dir.join("bin").display());
        command.args(args).env("PATH", path).env("SVDIR", self.at("")).env_remove("SVWAIT");
        command.current_dir(self.at("")).stdin(Stdio::null());
        command
    }

    /// Runs a program to its end.
    pub(crate) fn output(&self, program: &str, args: &[&str]) -> (i32, String) {
        let Output { status, stdout, stderr } = self.command(program, args).output().unwrap();
        (status.code().unwrap_or(-1), [stdout, stderr].map(|b| String::from_utf8(b).unwrap()).concat())
    }

    /// Runs `sv ARGS`. Returns the exit code and the output, in which process ids and seconds are
    /// made equal.
    pub(crate) fn sv(&self, args: &str) -> (i32, String) {
        let (code, text) = self.output("sv", &args.split(' ').collect::<Vec<_>>());
        (code, without_numbers(&text))
    }

    /// Starts a program in the background; its stderr is appended to the file `err`.
    pub(crate) fn start(&self, program: &str, args: &[&str]) -> Daemon {
        let err = fs::OpenOptions::new().append(true).create(true).open(self.dir.join("err")).unwrap();
        let child = self.command(program, args).stdout(Stdio::null()).stderr(err).spawn().unwrap();
        Daemon { child, hosted: None }
    }

    /// Like [`World::start`], for a command line `words` that ends in a program of the subject's.
    pub(crate) fn start_by(&self, words: &[String], args: &[&str]) -> Daemon {
        let err = fs::OpenOptions::new().append(true).create(true).open(self.dir.join("err")).unwrap();
        let model = self.command("sv", &[]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(args).current_dir(self.at("")).stdin(Stdio::null());
        command.envs(model.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Daemon { child: command.stdout(Stdio::null()).stderr(err).spawn().unwrap(), hosted: None }
    }

    /// Starts runsvdir on the services directory, with `-1` when that is the subject.
    pub(crate) fn runsvdir(&self) -> Daemon {
        if self.subject.runsvdir == Tools::Hosted {
            self.start("runsvdir", &["-1", "."])
        } else {
            self.start("runsvdir", &["."])
        }
    }

    /// Starts `runsv NAME`, or a `runsvdir -1` that has only this service, and waits until it
    /// listens.
    pub(crate) fn runsv(&self, name: &str) -> Daemon {
        let daemon = if self.subject.runsv == Tools::Hosted {
            let dir = self.dir.join("hosts").join(name);
            fs::create_dir_all(&dir).unwrap();
            let _ = symlink(self.at(name), dir.join(name));
            let mut daemon = self.start("runsvdir", &["-1", dir.to_str().unwrap()]);
            daemon.hosted = Some(self.at(name).join("supervise/ok"));
            daemon
        } else {
            self.start("runsv", &[name])
        };
        self.wait(&format!("runsv {name}"), || self.is_supervised(name) && self.status(name).len() == 20);
        daemon
    }

    /// The messages of the background processes.
    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.dir.join("err")).unwrap_or_default()
    }

    /// Whether a process reads the fifo `ok`.
    pub(crate) fn is_supervised(&self, name: &str) -> bool {
        is_open(&self.at(name).join("supervise/ok"))
    }

    fn open_fifo(&self, name: &str, fifo: &str) -> std::io::Result<fs::File> {
        let path = self.at(name).join("supervise").join(fifo);
        fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(path)
    }

    /// Writes letters into the control fifo directly.
    pub(crate) fn control(&self, name: &str, letters: &str) {
        use std::io::Write;
        self.open_fifo(name, "control").unwrap().write_all(letters.as_bytes()).unwrap();
    }

    pub(crate) fn status(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name).join("supervise/status")).unwrap_or_default()
    }

    pub(crate) fn stat(&self, name: &str) -> String {
        self.read(&format!("{name}/supervise/stat"))
    }

    /// Waits for these words in supervise/stat, and for the same state in supervise/status, which
    /// runsv writes after it.
    pub(crate) fn wait_stat(&self, name: &str, text: &str) {
        let has = |word: &str| u8::from(text.contains(word));
        let state = if text.starts_with("down") { 0 } else { 1 + has("finish") };
        self.wait(&format!("{name} to be {text:?}"), || {
            let status = self.status(name);
            self.stat(name).strip_suffix('\n') == Some(text)
                && status.len() == 20
                && (status[16], status[18], status[19]) == (has("paused"), has("got TERM"), state)
                && (state == 0 || (status[17] == b'd') == text.contains("want"))
                && (self.pid(name) != 0) == (state != 0)
        });
    }

    /// The process id of the service, from the binary status; 0 when it has none.
    pub(crate) fn pid(&self, name: &str) -> i32 {
        let status = self.status(name);
        status.get(12..16).map_or(0, |b| i32::from_le_bytes(b.try_into().unwrap()))
    }

    /// Waits until a process other than `old` runs; returns its id.
    pub(crate) fn wait_pid(&self, name: &str, old: i32) -> i32 {
        self.wait(&format!("another {name} than {old}"), || {
            !matches!(self.pid(name), 0) && self.pid(name) != old && self.status(name)[19] == 1
        });
        self.pid(name)
    }

    pub(crate) fn wait_lines(&self, path: &str, count: usize) -> Vec<String> {
        self.wait(&format!("{count} lines in {path}"), || self.lines(path).len() >= count);
        self.lines(path)
    }

    /// Looks again and again, for at most ten seconds.
    pub(crate) fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !done() {
            if Instant::now() > end {
                panic!("{:?}: waited in vain for {what}\n{}{}", self.subject, self.errors(), self.picture());
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Processes whose working directory lies in this world: (pid, command line).
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let Ok(cwd) = fs::read_link(entry.path().join("cwd")) else { continue };
            if cwd.starts_with(&self.dir) {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()));
            }
        }
        found
    }

    /// How many processes have this command line.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.processes().iter().filter(|(_, l)| l == line).count()
    }

    /// Waits for this count: a new shell still has another command line before it executes its
    /// program.
    pub(crate) fn wait_count(&self, line: &str, count: usize) {
        self.wait(&format!("{count} processes {line}"), || self.count(line) == count);
    }

    fn picture(&self) -> String {
        self.processes().iter().map(|(pid, line)| format!("{pid} {line}\n")).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Supervisors restart killed processes, so this is repeated, within a bound, until none is
        // left.
        for _ in 0..200 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for (pid, _) in left {
                signal(pid, Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A process that this file started.
pub(crate) struct Daemon {
    child: Child,
    /// The `ok` of its only service, when a `runsvdir -1` plays the part of a runsv.
    hosted: Option<PathBuf>,
}

impl Daemon {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn signal(&self, which: Signal) {
        signal(self.pid(), which);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its exit code, for at most ten seconds. A `runsvdir -1` does not end: it counts as
    /// ended when it no longer reads `ok`.
    pub(crate) fn wait(mut self) -> i32 {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            if self.hosted.as_ref().is_some_and(|ok| !is_open(ok)) {
                self.kill();
                return 0;
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process reads this fifo.
fn is_open(fifo: &std::path::Path) -> bool {
    fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(fifo).is_ok()
}

pub(crate) fn signal(pid: i32, which: Signal) {
    assert!(pid > 1);
    let _ = kill(Pid::from_raw(pid), which);
}

/// `(pid 123) 4s` -> `(pid P) Ts`: replaces the numbers that differ from run to run.
pub(crate) fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive([' ', '\n', ',', ';', ')']) {
        let cut = word.trim_end_matches([' ', '\n', ',', ';', ')']);
        let (is_pid, is_age) = (
            !cut.is_empty() && cut.bytes().all(|b| b.is_ascii_digit()) && out.ends_with("(pid "),
            cut.strip_suffix('s').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())),
        );
        out.push_str(if is_pid {
            "P"
        } else if is_age {
            "Ts"
        } else {
            cut
        });
        out.push_str(&word[cut.len()..]);
    }
    out
}

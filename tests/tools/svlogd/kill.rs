//! kill -9, and the next svlogd on the same pipe: every line is in the files exactly once.
//!
//! Ours alone: runit loses what it has read and not written.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2};

use super::numbered;
use crate::subject::{Running, Scratch, names, ours, skip, text, wait_for};

/// A scratch directory in memory where possible: each rotation waits for the disk, and there are
/// many rotations here.
fn scratch() -> Scratch {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { Scratch::below(shm) } else { Scratch::new() }
}

/// Log directories, each with its configuration and the text that it must hold at the end.
struct Case<'a> {
    dirs: &'a [(&'a str, &'a str, String)],
    args: &'a [&'a str],
    input: &'a str,
}

struct Setup<'a> {
    case: &'a Case<'a>,
    scratch: Scratch,
    /// We hold the read end, too, as runsv does.
    pipe: OwnedFd,
}

impl<'a> Setup<'a> {
    /// Fills the pipe with all of the input, and closes it.
    fn new(case: &'a Case<'a>) -> Setup<'a> {
        let scratch = scratch();
        for (dir, config, _) in case.dirs {
            fs::create_dir(scratch.path().join(dir)).unwrap();
            fs::write(scratch.path().join(dir).join("config"), config).unwrap();
        }
        let (pipe, into) = pipe2(OFlag::O_CLOEXEC).unwrap();
        fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(i32::try_from(case.input.len().max(65536)).unwrap())).unwrap();
        File::from(into).write_all(case.input.as_bytes()).unwrap();
        Setup { case, scratch, pipe }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.scratch.path()).stdin(self.pipe.try_clone().unwrap()).stderr(Stdio::null());
        command
    }

    fn arguments(&self) -> impl Iterator<Item = &'a str> {
        self.case.args.iter().copied().chain(self.case.dirs.iter().map(|(dir, ..)| *dir))
    }

    /// Starts a svlogd and kills it after its `step`th system call. Returns false when svlogd ended
    /// before.
    fn killed_after(&self, step: usize) -> bool {
        // The shell waits until it is traced, and then executes svlogd. (A process that another
        // test starts may have the fifo open for a moment: read then fails at the end of file, and
        // the shell reads again.)
        let go = self.scratch.path().join("go");
        let _ = nix::unistd::mkfifo(&go, nix::sys::stat::Mode::S_IRWXU);
        let mut command = self.command("sh");
        command
            .args(["-c", "until read go <go; do :; done; exec \"$@\"", "sh"])
            .arg(ours().path("svlogd"))
            .args(self.arguments());
        let mut child = command.spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        if let Err(e) = ptrace::attach(pid) {
            panic!("unable to trace it: {e}, and it ended: {:?}", child.try_wait());
        }
        assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::Stopped(..)));
        let mut go = fs::OpenOptions::new().read(true).write(true).open(go).unwrap();
        go.write_all(b"go\n").unwrap();
        let exe = format!("/proc/{pid}/exe");
        let ours = fs::canonicalize(ours().path("svlogd")).unwrap();
        let (mut steps, mut stops) = (0, 0);
        let mut signal = None;
        while steps < step {
            ptrace::syscall(pid, signal.take()).unwrap();
            match waitpid(pid, None).unwrap() {
                WaitStatus::Stopped(_, Signal::SIGTRAP | Signal::SIGSTOP) => {}
                WaitStatus::Stopped(_, other) => signal = Some(other),
                WaitStatus::Exited(..) => break,
                other => panic!("{other:?}"),
            }
            if stops > 0 || fs::read_link(&exe).is_ok_and(|exe| exe == ours) {
                // After the exec it stops before and after each system call.
                stops += 1;
                steps = stops / 2;
            }
        }
        let killed = steps >= step;
        if killed {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        // A process that ended by itself is already reaped.
        let _ = child.wait();
        killed
    }

    /// The last svlogd handles what is left; then every byte must be in its place.
    fn finish_and_check(self, what: &str) {
        let status = self.command(ours().path("svlogd")).args(self.arguments()).status().unwrap();
        assert!(status.success(), "{what}");
        for (dir, _, want) in self.case.dirs {
            let got = everything(&self.scratch.path().join(dir));
            if got != *want {
                let at = got.bytes().zip(want.bytes()).take_while(|(a, b)| a == b).count();
                let near = |s: &str| s.get(at.saturating_sub(30)..s.len().min(at + 60)).map(str::to_owned);
                let files = names(&self.scratch.path().join(dir), |_| true);
                panic!("{what}: {dir}: from byte {at}: {:?} for {:?}; {files:?}", near(&got), near(want));
            }
            assert!(!self.scratch.path().join(dir).join("record").exists());
        }
    }
}

/// Everything that was logged in a directory, in order.
fn everything(dir: &Path) -> String {
    let old = names(dir, |name| name.starts_with('@'));
    let files = old.iter().map(String::as_str).chain(["current"]);
    files.map(|name| text(&fs::read(dir.join(name)).unwrap_or_default())).collect()
}

/// Whether processes can be traced here.
fn can_trace() -> bool {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let traced = ptrace::attach(Pid::from_raw(i32::try_from(child.id()).unwrap()));
    child.kill().unwrap();
    child.wait().unwrap();
    if let Err(e) = traced {
        skip(&format!("svlogd killed at every step: no process can be traced here (ptrace): {e}"));
    }
    traced.is_ok()
}

/// Kills svlogd at each step, and then also the svlogd that follows.
fn kill_at_every_step(case: &Case<'_>) {
    if !can_trace() {
        return;
    }
    let mut step = 1;
    loop {
        let once = Setup::new(case);
        if !once.killed_after(step) {
            break once.finish_and_check(&format!("not killed at {step}"));
        }
        once.finish_and_check(&format!("killed at {step}"));
        let twice = Setup::new(case);
        let second = step * 7 % 150 + 1;
        assert!(twice.killed_after(step));
        twice.killed_after(second);
        twice.finish_and_check(&format!("killed at {step}, then at {second}"));
        step += 1;
    }
    assert!(step > 100, "only {step} steps");
}

#[test]
fn killed_at_every_step_with_full_files_and_long_lines() {
    let long = "0123456789".repeat(30);
    let input = format!("a 1\nb 2\na long {long}\n\nb long {long}\nend {}\nlast words", "x".repeat(45));
    let selected = format!("a 1\na long {long}\n\nend {}\nlast words\n", "x".repeat(45));
    let case = Case {
        dirs: &[("one", "s200\nn0\n", input.clone() + "\n"), ("two", "s400\nn0\n-b*\n", selected)],
        args: &["-l", "60", "-b", "100"],
        input: &input,
    };
    kill_at_every_step(&case);
}

#[test]
fn killed_at_every_step_with_several_reads() {
    let input = numbered(2000, 99);
    let case = Case { dirs: &[("log", "s90000\nn0\n", input.clone())], args: &[], input: &input };
    kill_at_every_step(&case);
}

/// A small generator of random numbers (Knuth's constants). The exact moment of the kill is random
/// anyway.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Writes numbered lines at full speed until `enough`: one or many at a time, also parts of lines.
/// Returns the number of lines.
fn write_numbered(into: OwnedFd, enough: &AtomicBool) -> usize {
    let mut into = File::from(into);
    let mut chance = Chance(1);
    let (mut count, mut waiting) = (0, Vec::new());
    while !enough.load(Ordering::Relaxed) {
        for _ in 0..=chance.below(60) {
            count += 1;
            writeln!(waiting, "{count:0width$}", width = usize::try_from(chance.below(120)).unwrap()).unwrap();
        }
        let keep = usize::try_from(chance.below(100)).unwrap().min(waiting.len());
        let now = waiting.len() - keep;
        let now: Vec<u8> = waiting.drain(..now).collect();
        into.write_all(&now).unwrap();
    }
    into.write_all(&waiting).unwrap();
    count
}

/// Every number is there once and in order, over all files.
fn check_numbers(dir: &Path, count: usize) {
    let all = everything(dir);
    let mut want = 1;
    for line in all.lines() {
        // The stamp of -tt.
        let number = line.get(26..).and_then(|text| text.parse::<usize>().ok());
        assert_eq!(number, Some(want), "{line:?} after {}", want - 1);
        want += 1;
    }
    assert_eq!(want - 1, count);
}

#[test]
fn killed_at_random_moments_no_line_is_lost_or_doubled() {
    let scratch = scratch();
    let dir = scratch.path().join("log");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config"), "s50000\nn0\n").unwrap();
    let (pipe, into) = pipe2(OFlag::O_CLOEXEC).unwrap();
    let enough = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_numbered(into, &enough));
        // When this fails the pipe closes, and the writer does not wait for ever.
        let pipe = pipe;
        let start = || {
            let mut command = Command::new(ours().path("svlogd"));
            command.args(["-tt", "log"]).current_dir(scratch.path()).stdin(pipe.try_clone().unwrap());
            command.spawn().unwrap()
        };
        let mut chance = Chance(2);
        for _ in 0..100 {
            let mut svlogd = start();
            std::thread::sleep(Duration::from_micros(chance.below(12_000)));
            svlogd.kill().unwrap();
            svlogd.wait().unwrap();
        }
        enough.store(true, Ordering::Relaxed);
        assert!(start().wait().unwrap().success());
        writer.join().unwrap()
    });
    check_numbers(&dir, count);
    assert!(!dir.join("record").exists());
}

#[test]
fn killed_under_runsv_no_line_is_lost_or_doubled() {
    let scratch = scratch();
    let service = scratch.path().join("service");
    let dir = service.join("log/main");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("config"), "s50000\nn0\n").unwrap();
    let script = |name: &str, text: &str| {
        let path = service.join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("run", "trap 'echo $n >count; exit 0' TERM\nwhile :; do i=$((i+1)); echo $i; n=$i; done");
    script("log/run", &format!("exec '{}' -tt main", ours().path("svlogd").display()));
    let mut runsv = Running::start(Command::new(ours().path("runsv")).arg(&service));
    let supervise = service.join("log/supervise");
    let next = |before: i32| {
        let mut pid = None;
        wait_for(&supervise, "the next svlogd", || {
            pid = fs::read_to_string(supervise.join("pid")).ok().and_then(|text| text.trim().parse::<i32>().ok());
            pid.is_some_and(|pid| pid != before)
        });
        pid.unwrap()
    };
    wait_for(&service.join("log"), "log/supervise", || supervise.exists());
    let mut pid = 0;
    for _ in 0..5 {
        // runsv waits for a second before it restarts a process that lived for less than a second.
        pid = next(pid);
        let size = || fs::metadata(dir.join("current")).map(|meta| meta.len()).unwrap_or_default();
        wait_for(&dir, "lines", || size() > 0);
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    next(pid);
    runsv.signal(Signal::SIGTERM);
    assert_eq!(runsv.wait().status.code(), Some(0));
    let count = fs::read_to_string(service.join("count")).unwrap().trim().parse().unwrap();
    // The writer may have been stopped between a line and its count.
    let lines = everything(&dir).lines().count();
    check_numbers(&dir, if lines == count + 1 { lines } else { count });
}

//! The long-running processes of a lab. Each has a log file, and dies when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::{poll_for, wait_for};

/// The directory of the logs of a lab's processes.
#[derive(Clone, Debug)]
pub(crate) struct LogDir {
    dir: PathBuf,
    count: Arc<AtomicU32>,
}

impl LogDir {
    pub(crate) fn new(dir: PathBuf) -> LogDir {
        LogDir { dir, count: Arc::default() }
    }

    fn next(&self, name: &str) -> PathBuf {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{number:02}.{}.log", name.replace('/', "_")))
    }

    /// Prints all logs, for a failed test.
    pub(crate) fn print_all(&self) {
        let mut paths: Vec<_> = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        for path in paths {
            let text = fs::read(&path).unwrap_or_default();
            eprintln!("--- {}\n{}", path.display(), String::from_utf8_lossy(&text));
        }
    }
}

/// A process that runs beside the test.
#[derive(Debug)]
pub struct Proc {
    child: Child,
    log: PathBuf,
    name: String,
}

impl Proc {
    #[track_caller]
    pub(crate) fn spawn(logs: &LogDir, name: &str, mut command: Command) -> Proc {
        let log = logs.next(name);
        let file = File::create(&log).unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let again = file.try_clone().unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let child = command.stdout(file).stderr(again).spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        Proc { child, log, name: name.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends a signal. It does nothing when the process is gone.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid()), signal);
    }

    /// The file that gets its output.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the log contains `text`.
    #[track_caller]
    pub fn wait_log(&self, text: &str, timeout: Duration) {
        wait_for(&format!("{:?} in the log of {}", text, self.name), timeout, || {
            self.log().contains(text).then_some(())
        });
    }

    /// Its exit status, if it ends within `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        poll_for(timeout, || self.child.try_wait().ok().flatten())
    }

    /// Sends TERM and returns the exit status. A process that does not end within two seconds fails
    /// the test.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        match self.wait(Duration::from_secs(2)) {
            Some(status) => status,
            None => panic!("{}: still runs two seconds after SIGTERM", self.name),
        }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process that is not a [`Proc`]. It does nothing when the process is gone.
pub fn send(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Kills a process with SIGKILL; `false` when it was gone already.
pub fn kill_9(pid: i32) -> bool {
    kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
}

/// Whether a process with this id runs (a zombie does not).
pub fn is_running(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // proc_pid_stat(5): the state letter follows the parenthesised name.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Ids of the running processes whose command line, split at its NULs, satisfies `wanted`.
pub fn pids_where(wanted: impl Fn(&[&str]) -> bool) -> Vec<i32> {
    let mut found: Vec<i32> = (fs::read_dir("/proc").into_iter().flatten().flatten())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let argv: Vec<&str> = line.trim_end_matches('\0').split('\0').collect();
            is_running(*pid) && wanted(&argv)
        })
        .collect();
    found.sort_unstable();
    found
}

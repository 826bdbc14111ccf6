//! What happens when a daemon's knowledge changes: a script is run, or a record is published natively.
//!
//! A shell. `Script` has one script run at a time, outside the cage (netd::runner); what comes meanwhile is queued, so the
//! protocol never waits for it.
//! `Ipconf` writes the record and tells fw (publisher.rs): no fork. The script's environment is BUILT: the notice's variables and a
//! short list of our own (see PASSED); a variable that a server did not send is never somebody else's.
//! Called by udhcpc and zcip.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Display, Path};

use crate::daemon::Log;
use crate::publisher::{Publisher, RecordChange};
use crate::runner::{Outcome, Program, Runner};

/// Variables of ours that a script gets; a `*` at the end stands for anything. What comes after the first line is the
/// callers' own, for the script that is theirs, too: ifupdown of Debian (its interfaces(5)) and of Alpine (its default.script
/// reads IF_METRIC), and OpenWrt's netifd (its dhcp.script sends all to the interface $INTERFACE).
#[rustfmt::skip]
const PASSED: &[&str] = &[
    "PATH", "HOME", "USER", "SHELL", "TERM", "TZ", "LANG", "LC_*", "TMPDIR", "SVDIR", "FW_*",
    "IF_*", "IFACE", "LOGICAL", "ADDRFAM", "METHOD", "CLASS", "MODE", "PHASE", "VERBOSITY", "VERBOSE", "INTERFACES_FILE",
    "INTERFACE", "IFACE6RD", "IFACE6RD_DELEGATE", "ZONE", "ZONE6RD", "MTU6RD", "CUSTOMROUTES",
];

/// Notices that wait for a script; when there are more, the oldest is dropped: the newest state is what counts.
const MAX_QUEUE: usize = 16;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The script's argument; `None`: a script is not told.
    pub event: Option<&'static str>,
    /// Its variables, already safe to export.
    pub env: Vec<(String, Vec<u8>)>,
    /// What becomes of the record.
    pub record: RecordChange,
}

/// A script that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What it was told.
    pub event: &'static str,
    /// Its exit code; `None`: it was killed or could not be started, which was said.
    pub code: Option<i32>,
}

/// One of the two ways to act.
pub enum Handler {
    /// Run a program.
    Script(Script),
    /// Publish natively.
    Ipconf(Publisher),
}

impl Handler {
    /// Runs the program of this runner. Must be called inside a tokio runtime.
    pub fn script(runner: Runner) -> io::Result<Handler> {
        Ok(Handler::Script(Script { runner: runner.watched()?, running: None, queue: VecDeque::new(), lost: false }))
    }

    /// Acts on a notice, or queues it.
    pub fn push(&mut self, notice: Notice, log: &Log) {
        match self {
            Handler::Script(script) => script.push(notice, log),
            Handler::Ipconf(publisher) => publisher.act(notice.record, log),
        }
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        match self {
            Handler::Script(script) => !script.runner.is_busy() && script.queue.is_empty(),
            Handler::Ipconf(_) => true,
        }
    }

    /// Whether no script can be run any more: somebody has killed the runner.
    pub fn is_lost(&self) -> bool {
        match self {
            Handler::Script(script) => script.lost,
            Handler::Ipconf(_) => false,
        }
    }

    /// To be called before the daemon goes to the background, while nothing runs: scripts are to have no terminal either.
    pub fn background(&self) -> io::Result<()> {
        match self {
            Handler::Script(script) => script.runner.background(),
            Handler::Ipconf(_) => Ok(()),
        }
    }

    /// Waits for the running script to end and starts the next one, or for the runner to be lost. Publishing never ends. Safe to drop.
    pub async fn finished(&mut self, log: &Log) -> Ended {
        match self {
            Handler::Script(script) => script.finished(log).await,
            Handler::Ipconf(publisher) => match publisher.insist(log).await {},
        }
    }
}

/// The program that is run as `path EVENT`, with what is passed on of our environment; `pass` names more of that.
pub fn program(path: OsString, pass: &[String]) -> Program {
    let env = std::env::vars_os().filter(|(name, _)| is_passed(name, pass)).collect();
    Program { path, before: Vec::new(), after: Vec::new(), env }
}

fn is_passed(name: &OsStr, pass: &[String]) -> bool {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.as_bytes().starts_with(prefix.as_bytes()),
        None => name.as_bytes() == pattern.as_bytes(),
    };
    PASSED.iter().copied().any(matches) || pass.iter().any(|p| matches(p))
}

/// The runner of a program and what waits for it.
pub struct Script {
    runner: Runner,
    queue: VecDeque<Notice>,
    /// What runs.
    running: Option<&'static str>,
    lost: bool,
}

impl Script {
    fn push(&mut self, notice: Notice, log: &Log) {
        if notice.event.is_none() {
            return;
        }
        // A renewal that waits behind another of its kind replaces it: only the last one is true.
        if self.queue.back().is_some_and(|last| last.event == notice.event) {
            self.queue.pop_back();
        }
        if self.queue.len() == MAX_QUEUE {
            log.info(format_args!("{} is too slow: dropping an event", self.name()));
            self.queue.pop_front();
        }
        self.queue.push_back(notice);
        if !self.runner.is_busy() {
            self.start_next(log);
        }
    }

    fn name(&self) -> Display<'_> {
        Path::new(self.runner.program()).display()
    }

    fn start_next(&mut self, log: &Log) {
        while let Some(notice) = self.queue.pop_front() {
            let Some(event) = notice.event else { continue };
            match self.runner.run(event, &notice.env) {
                Ok(()) => {
                    self.running = Some(event);
                    return;
                }
                Err(e) => log.info(format_args!("can't have '{}' run: {e}", self.name())),
            }
        }
    }

    async fn finished(&mut self, log: &Log) -> Ended {
        if self.lost {
            return std::future::pending().await;
        }
        let code = match self.runner.ended().await {
            // What an exit code means, the daemon knows; a killed one is worth a line everywhere.
            Ok(Outcome::Code(code)) => Some(code),
            Ok(Outcome::Signal(signal)) => {
                log.info(format_args!("{} was killed by signal {signal}", self.name()));
                None
            }
            Ok(Outcome::NotStarted(errno)) => {
                let e = io::Error::from_raw_os_error(errno);
                log.info(format_args!("can't execute '{}': {e}", self.name()));
                None
            }
            Ok(Outcome::Refused) => {
                log.info(format_args!("'{}' is not run with these variables", self.name()));
                None
            }
            Err(_) => {
                self.lost = true;
                self.queue.clear();
                None
            }
        };
        let event = self.running.take().unwrap_or_default();
        self.start_next(log);
        Ended { event, code }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(future)
    }

    fn notice(event: &'static str, n: &str) -> Notice {
        Notice { event: Some(event), env: vec![("n".into(), n.into())], record: RecordChange::Keep }
    }

    fn handler(program: OsString) -> Handler {
        Handler::script(Runner::start("test", super::program(program, &[])).unwrap()).unwrap()
    }

    fn temp(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("handler-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Written by another process: a file that this one has open for writing while another test forks is busy.
    #[expect(clippy::disallowed_methods, reason = "starts that process")]
    fn script(dir: &Path, body: &str) -> OsString {
        let path = dir.join("script");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod 755 \"$0\"";
        let done = std::process::Command::new("sh").args(["-c", write]).arg(&path).arg(body).status();
        assert!(done.unwrap().success());
        path.into()
    }

    #[test]
    fn scripts_run_in_order_and_a_newer_event_of_the_same_kind_replaces_the_waiting_one() {
        let dir = temp("order");
        let out = dir.join("out");
        let log = Log::new("test", None, 0);
        run(async {
            let mut handler = handler(script(&dir, &format!("echo $1 $n >>{}", out.display())));
            for (event, n) in [("bound", "1"), ("renew", "2"), ("renew", "3"), ("deconfig", "4")] {
                handler.push(notice(event, n), &log);
            }
            while !handler.is_idle() {
                handler.finished(&log).await;
            }
        });
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "bound 1\nrenew 3\ndeconfig 4\n");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_environment_is_built_not_inherited() {
        let dir = temp("env");
        let out = dir.join("out");
        let log = Log::new("test", None, 0);
        run(async {
            let mut handler = handler(script(&dir, &format!("/usr/bin/env >{}", out.display())));
            handler.push(notice("bound", "1"), &log);
            handler.finished(&log).await;
        });
        let text = std::fs::read_to_string(&out).unwrap();
        assert!(text.lines().any(|l| l == "n=1"));
        assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")), "cargo sets variables of its own");
        assert!(!text.contains("CARGO"), "{text}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_missing_script_is_passed_over() {
        let log = Log::new("test", None, 0);
        run(async {
            let mut handler = handler("/no/such/script".into());
            handler.push(notice("bound", "1"), &log);
            handler.finished(&log).await;
            assert!(handler.is_idle() && !handler.is_lost());
        });
    }

    #[test]
    fn a_refused_variable_costs_the_run_and_not_the_runner() {
        let dir = temp("refused");
        let out = dir.join("out");
        let log = Log::new("test", None, 0);
        run(async {
            let mut handler = handler(script(&dir, &format!("echo $1 $n >>{}", out.display())));
            for value in ["1\n2", "3"] {
                handler.push(notice("bound", value), &log);
                handler.finished(&log).await;
            }
            assert!(handler.is_idle() && !handler.is_lost());
        });
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "bound 3\n");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn names_to_pass() {
        let pass = ["MY_*".to_owned(), "ONE".to_owned()];
        for (name, want) in
            [("PATH", true), ("FW_DYNAMIC", true), ("MY_X", true), ("ONE", true), ("ONES", false), ("router", false)]
        {
            assert_eq!(is_passed(OsStr::new(name), &pass), want, "{name}");
        }
    }
}

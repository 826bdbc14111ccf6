//! The one way in which a daemon tells others what it knows: a program is run, a record is written
//! and fw is told, or both.
//!
//! A shell around the machine of `netd_core::sink`, which decides what is queued, tried again and
//! said. How a daemon uses it:
//!
//! - before the cage, `Sink::new(runner, place)`: a [`Runner`] (of `Program::script`) for the
//!   program, a [`Place`] for the record;
//! - `sink.tell(news, log)` for each change. It never waits: the record is written when it returns,
//!   or will be tried again;
//! - one arm of the select loop, without any condition: `ended = sink.turn(log) => ...`. It waits
//!   for the program's end and for what is due, and returns when a program has ended ([`Ended`]);
//!   without a program it never returns. Safe to drop;
//! - [`Sink::is_idle`] before the process ends, [`Sink::background`] before it goes to the
//!   background, [`Sink::is_lost`] after each `turn`: then the runner was killed, and the daemon
//!   ends so that its supervisor starts both again.
//!
//! Called by every daemon.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};
use std::slice;

use applet::control::{Command, ControlError, ServiceDir};
use netd_core::sink::{self as machine, Action, Event, Outcome, Told, Written};
pub use netd_core::sink::{Ended, News, RecordChange};

use crate::clock::{self, Timer};
use crate::daemon::Log;
use crate::runner::{self, Runner};
use crate::{disk, ipconf};

/// Where the record is, and which service is told of it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory.
    pub dir: PathBuf,
    /// The file's name without `.ipconf`.
    pub name: String,
    /// By name or path; it gets a `u`.
    pub notify: OsString,
}

/// See above.
pub struct Sink {
    machine: machine::Sink,
    runner: Option<Runner>,
    place: Option<Place>,
    timer: Timer,
    /// Runs that are over, for [`Sink::turn`] to return.
    ended: VecDeque<Ended>,
}

impl Sink {
    /// For a program, a record or both. Must be called inside a tokio runtime, before the cage is
    /// entered.
    pub fn new(runner: Option<Runner>, place: Option<Place>) -> io::Result<Sink> {
        let mut machine = machine::Sink::new();
        if let Some(runner) = &runner {
            machine = machine.with_script(Path::new(runner.program()).display().to_string());
        }
        if let Some(Place { dir, name, notify }) = &place {
            let file = dir.join(format!("{name}.ipconf")).display().to_string();
            machine = machine.with_record(file, Path::new(notify).display().to_string());
        }
        let runner = runner.map(Runner::watched).transpose()?;
        Ok(Sink { machine, runner, place, timer: Timer::new()?, ended: VecDeque::new() })
    }

    /// Acts on news, or has them wait for the program.
    pub fn tell(&mut self, news: News, log: &Log) {
        self.step(Event::News(news), log);
    }

    /// Whether there is a program.
    pub fn has_script(&self) -> bool {
        self.machine.has_script()
    }

    /// Whether no program runs and no news wait for it.
    pub fn is_idle(&self) -> bool {
        self.machine.is_idle()
    }

    /// Whether no program can be run any more: the runner was killed.
    pub fn is_lost(&self) -> bool {
        self.machine.is_lost()
    }

    /// To be called before the daemon goes to the background, while nothing runs: programs are to
    /// have no terminal either.
    pub fn background(&self) -> io::Result<()> {
        self.runner.as_ref().map_or(Ok(()), Runner::background)
    }

    /// Waits until a program has ended, and does meanwhile what is due. Safe to drop and to call
    /// again.
    pub async fn turn(&mut self, log: &Log) -> Ended {
        loop {
            if let Some(ended) = self.ended.pop_front() {
                return ended;
            }
            // timerfd_settime(2) fails for nothing that we give it.
            let _ = self.timer.set(self.machine.deadline());
            let event = tokio::select! {
                biased;
                outcome = outcome(self.runner.as_mut(), self.machine.is_lost()) => Event::Ended(outcome),
                _ = self.timer.expired() => Event::Timer,
            };
            self.step(event, log);
        }
    }

    fn step(&mut self, event: Event, log: &Log) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.machine.step(clock::now(), event) {
                match action {
                    Action::Run { event, env } => events.extend(self.run(event, &env)),
                    Action::Record(change) => events.push_back(Event::Written(self.write(&change))),
                    Action::Tell => events.push_back(Event::Told(self.notify())),
                    Action::Ended(ended) => self.ended.push_back(ended),
                    Action::Log(line) => log.info(line),
                }
            }
        }
    }

    fn run(&mut self, event: &str, env: &[(String, Vec<u8>)]) -> Option<Event> {
        let asked = self.runner.as_mut().map_or(Err(io::ErrorKind::NotFound.into()), |runner| runner.run(event, env));
        asked.err().map(|e| Event::Ended(Outcome::NotAsked(e.to_string())))
    }

    fn write(&self, change: &RecordChange) -> Written {
        let Some(Place { dir, name, .. }) = &self.place else { return Written::Done { changed: false } };
        let done = match change {
            RecordChange::Keep => Ok(false),
            RecordChange::Publish(record) => ipconf::publish(dir, name, slice::from_ref(record)),
            RecordChange::Withdraw => ipconf::withdraw(dir, name),
        };
        match done {
            Ok(changed) => Written::Done { changed },
            Err(e) => Written::Failed { why: e.to_string(), lasts: disk::lasts(&e) },
        }
    }

    fn notify(&self) -> Told {
        let Some(Place { notify, .. }) = &self.place else { return Told::Done };
        match self::notify(notify) {
            Ok(()) => Told::Done,
            Err(e) => Told::Failed { why: e.to_string(), unheard: matches!(e, ControlError::NotRunning(_)) },
        }
    }
}

/// Tells a service that its input has changed. To be called when the file is in its place.
pub fn notify(service: &OsStr) -> Result<(), ControlError> {
    ServiceDir::resolve(service).send(&[Command::Up])
}

/// How the program has ended; never where there is none.
async fn outcome(runner: Option<&mut Runner>, lost: bool) -> Outcome {
    let Some(runner) = runner.filter(|_| !lost) else { return pending().await };
    match runner.ended().await {
        Ok(runner::Outcome::Code(code)) => Outcome::Code(code),
        Ok(runner::Outcome::Signal(signal)) => Outcome::Signal(signal),
        Ok(runner::Outcome::NotStarted(errno)) => Outcome::NotStarted(io::Error::from_raw_os_error(errno).to_string()),
        Ok(runner::Outcome::Refused) => Outcome::Refused,
        Err(_) => Outcome::RunnerGone,
    }
}

#[cfg(test)]
mod tests {
    use netd_core::record::text::Record;

    use super::*;
    use crate::runner::Program;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(future)
    }

    fn news(event: &'static str, n: &str) -> News {
        News { event: Some(event), env: vec![("n".into(), n.into())], record: RecordChange::Keep }
    }

    fn publish(ip: &str) -> News {
        News::of_record(RecordChange::Publish(Record::new().with("if", "x0").with("ip", ip)))
    }

    fn of_program(program: OsString) -> Sink {
        Sink::new(Some(Runner::start("test", Program::script(program, &[])).unwrap()), None).unwrap()
    }

    fn of_record(dir: &Path) -> Sink {
        let place = Place { dir: dir.to_owned(), name: "dhcp_x0".into(), notify: "/nonexistent/fw".into() };
        Sink::new(None, Some(place)).unwrap()
    }

    fn temp(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("sink-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn log() -> Log {
        Log::new("test", None, 0)
    }

    /// Written by another process: a file that this one has open for writing while another test
    /// forks is busy.
    #[expect(clippy::disallowed_methods, reason = "starts that process")]
    fn script(dir: &Path, body: &str) -> OsString {
        let path = dir.join("script");
        let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod 755 \"$0\"";
        let done = std::process::Command::new("sh").args(["-c", write]).arg(&path).arg(body).status();
        assert!(done.unwrap().success());
        path.into()
    }

    #[test]
    fn programs_run_in_order_and_a_refused_variable_costs_its_own_run_alone() {
        let dir = temp("order");
        let out = dir.join("out");
        run(async {
            let mut sink = of_program(script(&dir, &format!("echo $1 $n >>{}; exit 3", out.display())));
            for (event, n) in [("bound", "1"), ("renew", "2\n"), ("deconfig", "4")] {
                sink.tell(news(event, n), &log());
            }
            let mut codes = Vec::new();
            while !sink.is_idle() {
                let Ended { event, code } = sink.turn(&log()).await;
                codes.push((event, code));
            }
            assert_eq!(codes, [("bound", Some(3)), ("renew", None), ("deconfig", Some(3))]);
            assert!(!sink.is_lost());
        });
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "bound 1\ndeconfig 4\n");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_environment_is_built_not_inherited() {
        let dir = temp("env");
        let out = dir.join("out");
        run(async {
            let mut sink = of_program(script(&dir, &format!("/usr/bin/env >{}", out.display())));
            sink.tell(news("bound", "1"), &log());
            sink.turn(&log()).await;
        });
        let text = std::fs::read_to_string(&out).unwrap();
        assert!(text.lines().any(|l| l == "n=1"));
        assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")), "cargo sets variables of its own");
        assert!(!text.contains("CARGO"), "{text}");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_missing_program_is_passed_over() {
        run(async {
            let mut sink = of_program("/no/such/script".into());
            sink.tell(news("bound", "1"), &log());
            assert_eq!(sink.turn(&log()).await, Ended { event: "bound", code: None });
            assert!(sink.is_idle() && !sink.is_lost());
        });
    }

    #[test]
    fn a_record_is_written_and_removed() {
        let dir = temp("record");
        run(async {
            let mut sink = of_record(&dir);
            sink.tell(publish("192.0.2.1"), &log());
            assert!(dir.join("dhcp_x0.ipconf").exists());
            sink.tell(News::of_record(RecordChange::Withdraw), &log());
            assert!(!dir.join("dhcp_x0.ipconf").exists());
        });
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_cannot_succeed_is_not_tried_again_until_there_are_news() {
        let dir = temp("unwritten");
        let place = dir.join("place");
        run(async {
            let mut sink = of_record(&place);
            std::fs::write(&place, "no directory").unwrap();
            sink.tell(publish("192.0.2.1"), &log());
            assert_eq!(sink.machine.deadline(), None, "ENOTDIR lasts");
            std::fs::remove_file(&place).unwrap();
            sink.tell(publish("192.0.2.3"), &log());
            let text = std::fs::read_to_string(place.join("dhcp_x0.ipconf")).unwrap();
            assert!(text.contains("192.0.2.3"));
        });
        std::fs::remove_dir_all(dir).unwrap();
    }
}

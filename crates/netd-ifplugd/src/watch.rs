//! The shell of ifplugd: waits for the link, signals, the program and the clock; steps the machine; performs.
//!
//! What is decided, debounce.rs decides. Nothing here polls: with nothing pending and nothing happening it sleeps.
//! Called by `lib`.

use std::collections::VecDeque;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::process::ExitStatus;
use std::time::Duration;

use netd::daemon::Log;
use netd::link::{self, LinkWatch, Transition};
use supervise::control::Command as Control;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::cli::{Absent, Options};
use crate::debounce::{Action, Debounce, Event, Verdict};
use crate::services::Services;

/// What the program is told of the time before the daemon started and after it stopped.
const DISABLED: &str = "disabled";

/// Setting the interface up: what, and when.
#[derive(Clone, Copy, Debug)]
struct Raise {
    ifindex: u32,
    at: Instant,
    /// It failed before, and that was said.
    failed: bool,
}

struct Daemon<'a> {
    options: &'a Options,
    log: &'a Log,
    machine: Debounce,
    services: Services,
    start: Instant,
    link: Option<Verdict>,
    child: Option<Child>,
    raise: Option<Raise>,
    /// Told the first verdict: -w.
    report: Option<&'a dyn Fn(Verdict)>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    suspend: Signal,
    resume: Signal,
}

/// Something that ended the wait.
enum Woken {
    Link(io::Result<Transition>),
    Script(io::Result<ExitStatus>),
    Stop,
    Quit,
    Info,
    Suspend,
    Resume,
    Raise,
    Tick,
}

/// Watches until it is told to stop; the result is the exit code. `report` is told the first verdict.
pub(crate) async fn run(options: &Options, log: &Log, report: Option<&dyn Fn(Verdict)>) -> io::Result<u8> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        quit: signal(SignalKind::quit())?,
        hangup: signal(SignalKind::hangup())?,
        suspend: signal(SignalKind::user_defined1())?,
        resume: signal(SignalKind::user_defined2())?,
    };
    let mut watch = LinkWatch::open(&options.iface)?;
    let mut daemon = Daemon {
        options,
        log,
        machine: Debounce::new(options.config),
        services: Services::new(&options.iface, options.dynamic.clone(), options.notify.clone()),
        start: Instant::now(),
        link: None,
        child: None,
        raise: None,
        report,
    };
    loop {
        let woken = daemon.wait(&mut watch, &mut signals).await;
        if let Some(code) = daemon.handle(woken)? {
            return Ok(code);
        }
    }
}

impl Daemon<'_> {
    async fn wait(&mut self, watch: &mut LinkWatch, signals: &mut Signals) -> Woken {
        let deadline = self.machine.deadline().map(|d| self.start + d);
        let raise = self.raise.filter(|_| self.machine.suspended() == 0).map(|r| r.at);
        tokio::select! {
            biased;
            _ = signals.terminate.recv() => Woken::Stop,
            _ = signals.interrupt.recv() => Woken::Stop,
            _ = signals.quit.recv() => Woken::Quit,
            _ = signals.hangup.recv() => Woken::Info,
            _ = signals.suspend.recv() => Woken::Suspend,
            _ = signals.resume.recv() => Woken::Resume,
            ended = ended(&mut self.child) => Woken::Script(ended),
            transition = watch.next() => Woken::Link(transition),
            () = until(deadline) => Woken::Tick,
            () = until(raise) => Woken::Raise,
        }
    }

    /// One turn of the loop; `Some` is the exit code.
    fn handle(&mut self, woken: Woken) -> io::Result<Option<u8>> {
        let event = match woken {
            Woken::Link(transition) => self.transition(transition?),
            Woken::Script(status) => Some(self.script_ended(status)),
            Woken::Stop => Some(Event::Stop),
            Woken::Quit => Some(Event::Quit),
            Woken::Tick => Some(Event::Tick),
            Woken::Info => self.info(),
            Woken::Suspend => {
                self.log
                    .info(format_args!("SIGUSR1: Daemon suspended (#{})", self.machine.suspended().saturating_add(1)));
                Some(Event::Suspend)
            }
            Woken::Resume => {
                self.log.info(format_args!("SIGUSR2: Daemon resumed (#{})", self.machine.suspended()));
                Some(Event::Resume)
            }
            Woken::Raise => self.raise(),
        };
        Ok(event.and_then(|event| self.step(event)))
    }

    fn step(&mut self, event: Event) -> Option<u8> {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.machine.step(self.start.elapsed(), event) {
                match action {
                    Action::Demote => self.services.publish("down", self.log),
                    Action::Restore => self.services.publish("up", self.log),
                    Action::DampingBegins => self.log.info(format_args!(
                        "link is flapping: it is held down until it has lasted, at most {} s",
                        self.options.config.longest_hold.as_secs_f64()
                    )),
                    Action::DampingEnds => self.log.info(format_args!("link is steady again, it is {}", self.state())),
                    Action::Withdraw => self.services.withdraw(self.log),
                    Action::ServicesUp => self.services.control(Control::Up, self.log),
                    Action::ServicesDown => self.services.control(Control::Down, self.log),
                    Action::Script { current, previous } => {
                        let previous = previous.map_or(DISABLED, word);
                        events.extend(self.run_script(word(current), [previous, word(current)]));
                    }
                    Action::LastScript => {
                        events.extend(self.run_script(word(Verdict::Down), [word(Verdict::Up), DISABLED]));
                    }
                    Action::Exit(code) => return Some(code),
                }
            }
        }
        None
    }

    fn transition(&mut self, transition: Transition) -> Option<Event> {
        let iface = &self.options.iface;
        match transition {
            Transition::Missing => self.absent(format_args!("no such interface: {iface}")),
            Transition::Gone => self.absent(format_args!("interface {iface} is gone")),
            Transition::Renamed { to } => {
                self.absent(format_args!("interface {iface} is now called {}", to.escape_debug()))
            }
            Transition::Appeared { ifindex, admin_up } => {
                self.log.debug(format_args!("interface {iface} has index {ifindex}"));
                let wanted = !admin_up && self.options.raise_new;
                self.raise = wanted.then(|| Raise { ifindex, at: Instant::now(), failed: false });
                None
            }
            Transition::AdminDown { ifindex } => {
                let at = Instant::now() + self.options.poll;
                self.raise = self.options.raise_again.then_some(Raise { ifindex, at, failed: false });
                None
            }
            Transition::Up => Some(self.verdict(Verdict::Up)),
            Transition::Down => Some(self.verdict(Verdict::Down)),
        }
    }

    /// The interface is not there, and what that means.
    fn absent(&mut self, what: std::fmt::Arguments<'_>) -> Option<Event> {
        self.raise = None;
        match self.options.absent {
            Absent::Fail => {
                self.log.info(format_args!("{what}, exiting"));
                Some(Event::Missing)
            }
            Absent::Down => {
                self.log.info(format_args!("{what}, waiting for it"));
                Some(self.verdict(Verdict::Down))
            }
            Absent::Up => {
                self.log.info(format_args!("{what}, taken for up"));
                Some(self.verdict(Verdict::Up))
            }
        }
    }

    fn verdict(&mut self, verdict: Verdict) -> Event {
        if self.link.is_none()
            && let Some(report) = self.report
        {
            report(verdict);
        }
        if self.link.replace(verdict) != Some(verdict) {
            let line = format!("link is {}", word(verdict));
            // Of a link that flaps, begin and end are said.
            if self.machine.is_damped() { self.log.debug(line) } else { self.log.info(line) }
        }
        Event::Link(verdict)
    }

    /// As people are told.
    fn state(&self) -> &'static str {
        self.link.map_or("not known", word)
    }

    fn info(&self) -> Option<Event> {
        let lasting = self.machine.settled().map_or("not known", word);
        let suspended = if self.machine.suspended() > 0 { ", suspended" } else { "" };
        let damped = if self.machine.is_damped() { ", flapping" } else { "" };
        self.log.info(format_args!("link is {}, lasting state is {lasting}{damped}{suspended}", self.state()));
        None
    }

    fn raise(&mut self) -> Option<Event> {
        let raise = self.raise.take()?;
        match link::set_up(raise.ifindex) {
            Ok(()) => self.log.info("upping interface"),
            Err(e) => {
                if !raise.failed {
                    self.log.info(format_args!("can't set the interface up: {e}{}", hint(&e)));
                }
                // A privilege does not come back; a radio switch does, and nobody tells of it.
                let again = e.kind() != ErrorKind::PermissionDenied && self.options.poll > Duration::ZERO;
                self.raise = again.then(|| Raise { at: Instant::now() + self.options.poll, failed: true, ..raise });
            }
        }
        None
    }

    /// Starts the program with IFPLUGD_PREVIOUS and IFPLUGD_CURRENT; an event when it could not be.
    fn run_script(&mut self, what: &str, [previous, current]: [&str; 2]) -> Option<Event> {
        let Options { program, iface, extra, .. } = self.options;
        let shown = program.display();
        self.log.info(format_args!("executing '{shown} {iface} {what}'"));
        let spawned = Command::new(program)
            .arg(iface)
            .arg(what)
            .args(extra)
            .env_remove(crate::REPORT)
            .env("IFPLUGD_PREVIOUS", previous)
            .env("IFPLUGD_CURRENT", current)
            .spawn();
        match spawned {
            Ok(child) => {
                self.child = Some(child);
                None
            }
            Err(e) => {
                self.log.info(format_args!("can't execute '{shown}': {e}"));
                Some(Event::ScriptDone { ok: false })
            }
        }
    }

    fn script_ended(&mut self, status: io::Result<ExitStatus>) -> Event {
        self.child = None;
        let ok = match status {
            Ok(status) => {
                if !status.success() {
                    self.log.info(format_args!("{}: {status}", self.options.program.display()));
                }
                status.success()
            }
            Err(e) => {
                self.log.info(format_args!("can't wait for '{}': {e}", self.options.program.display()));
                false
            }
        };
        Event::ScriptDone { ok }
    }
}

/// As programs and people are told.
pub(crate) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Up => "up",
        Verdict::Down => "down",
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => " (CAP_NET_ADMIN is needed)",
        _ => "",
    }
}

/// The end of the running program; never when none runs.
async fn ended(child: &mut Option<Child>) -> io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => pending().await,
    }
}

/// That time; never when there is none.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

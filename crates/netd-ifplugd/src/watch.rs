//! The shell of ifplugd: waits for the link, signals, the program and the clock; steps the machine;
//! performs.
//!
//! What is decided, debounce.rs decides. Nothing here polls: with nothing pending and nothing
//! happening it sleeps. Called by `lib`.

use std::io::{self, ErrorKind};
use std::time::Duration;

use applet::control::Command as Control;
use netd::cage::{self, Capability, Files, Needs, Socket};
use netd::clock::{self, Timer};
use netd::daemon::{Complaints, Log, Signal, Signals};
use netd::given::show_seconds;
use netd::link::{self, LinkWatch, Transition};
use netd::peers::Peers;
use netd::runner::Runner;
use netd::sink::{Ended, News, Place, RecordChange, Sink};
use netd_core::record::{Health, Kind};

use crate::cli::{Absent, Options};
use crate::debounce::{Action, Debounce, Event, Verdict};
use crate::services::{self, Services};

/// What the program is told of the time before the daemon started and after it stopped.
const DISABLED: &str = "disabled";

/// A key of [`Complaints`].
const RAISING: &str = "raising";

/// Setting the interface up: what, and when.
#[derive(Clone, Copy, Debug)]
struct Raise {
    ifindex: u32,
    at: Duration,
}

struct Daemon<'a> {
    options: &'a Options,
    log: &'a Log,
    machine: Debounce,
    services: Services,
    /// The program and the record.
    sink: Sink,
    timer: Timer,
    link: Option<Verdict>,
    raise: Option<Raise>,
    complaints: Complaints,
    /// Told the first verdict: -w.
    report: Option<&'a dyn Fn(Verdict)>,
}

/// All that mean something here.
const SIGNALS: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// Something that ended the wait.
enum Woken {
    Link(io::Result<Transition>),
    Script(Ended),
    Stop,
    Quit,
    Info,
    Suspend,
    Resume,
    Tick(io::Result<()>),
}

/// Watches until it is told to stop; the result is the exit code. `report` is told the first
/// verdict.
pub(crate) async fn run(
    options: &Options,
    runner: Option<Runner>,
    log: &Log,
    report: Option<&dyn Fn(Verdict)>,
) -> io::Result<u8> {
    let mut signals = Signals::new(&SIGNALS)?;
    let mut watch = LinkWatch::open(&options.iface).map_err(unwatched)?;
    let peers = options.config.services.then(|| Peers::look(services::names(&options.iface)));
    let (sink, timer) = (Sink::new(runner, options.config.services.then(|| place(options)))?, Timer::new()?);
    if options.cage {
        // Nothing has been read from the kernel yet.
        cage::enter(&needs(options, peers.as_ref(), report.is_some()), log);
    }
    let mut daemon = Daemon {
        options,
        log,
        machine: Debounce::new(options.config),
        services: Services::new(&options.iface, peers.filter(|_| options.cage)),
        sink,
        timer,
        link: None,
        raise: None,
        complaints: Complaints::default(),
        report,
    };
    loop {
        daemon.timer.set(daemon.deadline())?;
        let woken = daemon.wait(&mut watch, &mut signals).await;
        if let Some(code) = daemon.handle(woken)? {
            return Ok(code);
        }
    }
}

/// The link's record.
fn place(options: &Options) -> Place {
    let name = Kind::Link.name(&options.iface);
    Place { dir: options.dynamic.clone(), name, notify: options.notify.clone() }
}

/// What is used after the start: the interface is set up, the pidfile removed, the record written
/// and the services told. The program runs outside.
fn needs(options: &Options, peers: Option<&Peers>, reports: bool) -> Needs {
    let mut files: Vec<Files> = options.pidfile.iter().cloned().map(Files::Pidfile).collect();
    if let Some(peers) = peers {
        files.extend([Files::Directory(options.dynamic.clone()), Files::Service(options.notify.clone())]);
        files.extend(peers.files());
    }
    let raises = options.raise_new || options.raise_again;
    Needs {
        capabilities: raises.then_some(Capability::NetAdmin).into_iter().collect(),
        sockets: vec![Socket::Netlink],
        files,
        // -w: standard error is let go of when the link is known.
        background: reports,
    }
}

fn unwatched(e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("unable to watch the link: {e}"))
}

impl Daemon<'_> {
    /// When the interface is set up, unless the daemon is suspended.
    fn raise_at(&self) -> Option<Duration> {
        self.raise.filter(|_| self.machine.suspended() == 0).map(|raise| raise.at)
    }

    fn deadline(&self) -> Option<Duration> {
        self.machine.deadline().into_iter().chain(self.raise_at()).min()
    }

    async fn wait(&mut self, watch: &mut LinkWatch, signals: &mut Signals) -> Woken {
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::SIGQUIT => Woken::Quit,
                Signal::SIGHUP => Woken::Info,
                Signal::SIGUSR1 => Woken::Suspend,
                Signal::SIGUSR2 => Woken::Resume,
                // TERM, and INT.
                _ => Woken::Stop,
            },
            ended = self.sink.turn(self.log) => Woken::Script(ended),
            transition = watch.next() => Woken::Link(transition),
            expired = self.timer.expired() => Woken::Tick(expired),
        }
    }

    /// One turn of the loop; `Some` is the exit code.
    fn handle(&mut self, woken: Woken) -> io::Result<Option<u8>> {
        let event = match woken {
            Woken::Link(transition) => self.transition(transition.map_err(unwatched)?),
            Woken::Script(ended) => Some(self.script_ended(ended)?),
            Woken::Stop => Some(Event::Stop),
            Woken::Quit => Some(Event::Quit),
            Woken::Tick(expired) => {
                expired?;
                if self.raise_at().is_some_and(|at| at <= clock::now()) {
                    self.raise();
                }
                Some(Event::Tick)
            }
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
        };
        let code = event.and_then(|event| self.step(event));
        match self.services.out_of_reach() {
            // A supervisor starts us again, in a cage that knows it. In the background we have
            // none.
            Some(name) if code.is_none() && self.options.foreground => {
                Err(io::Error::other(format!("{name} was not there at the start: to be started again")))
            }
            Some(_) | None => Ok(code),
        }
    }

    fn step(&mut self, event: Event) -> Option<u8> {
        for action in self.machine.step(clock::now(), event) {
            match action {
                Action::Demote => self.sink.tell(services::record(&self.options.iface, Health::Down), self.log),
                Action::Restore => self.sink.tell(services::record(&self.options.iface, Health::Up), self.log),
                Action::DampingBegins => self.log.info(format_args!(
                    "link is flapping: it is held down until it has lasted, at most {} s",
                    show_seconds(self.options.config.longest_hold)
                )),
                Action::DampingEnds => self.log.info(format_args!("link is steady again, it is {}", self.state())),
                Action::Withdraw => self.sink.tell(News::of_record(RecordChange::Withdraw), self.log),
                Action::ServicesUp => self.services.control(Control::Up, self.log),
                Action::ServicesDown => self.services.control(Control::Down, self.log),
                Action::Script { current, previous } => {
                    let previous = previous.map_or(DISABLED, word);
                    self.run_script(word(current), [previous, word(current)]);
                }
                Action::LastScript => self.run_script(word(Verdict::Down), [word(Verdict::Up), DISABLED]),
                Action::Exit(code) => return Some(code),
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
                self.raise = wanted.then(|| Raise { ifindex, at: clock::now() });
                None
            }
            Transition::AdminDown { ifindex } => {
                let at = clock::now() + self.options.poll;
                self.raise = self.options.raise_again.then_some(Raise { ifindex, at });
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
            let errors = crate::lets_go_of_errors(self.options);
            report(verdict);
            if errors {
                let _ = self.sink.background();
            }
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

    fn raise(&mut self) {
        let Some(raise) = self.raise.take() else { return };
        match link::set_up(raise.ifindex) {
            Ok(()) => {
                self.complaints.right(RAISING);
                self.log.info("upping interface");
            }
            Err(e) => {
                let text = format!("can't set the interface up: {e}{}", hint(&e));
                self.log.wrong(&mut self.complaints, RAISING, &text);
                // A privilege does not come back; a radio switch does, and the kernel tells nothing
                // of it.
                let again = e.kind() != ErrorKind::PermissionDenied && self.options.poll > Duration::ZERO;
                self.raise = again.then(|| Raise { at: clock::now() + self.options.poll, ..raise });
            }
        }
    }

    /// Has the program run, with IFPLUGD_PREVIOUS and IFPLUGD_CURRENT.
    fn run_script(&mut self, what: &'static str, [previous, current]: [&str; 2]) {
        let Options { program, iface, .. } = self.options;
        self.log.info(format_args!("executing '{} {iface} {what}'", program.display()));
        let env = [("IFPLUGD_PREVIOUS", previous), ("IFPLUGD_CURRENT", current)];
        let env = env.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).into();
        self.sink.tell(News { event: Some(what), env, record: RecordChange::Keep }, self.log);
    }

    fn script_ended(&self, Ended { code, .. }: Ended) -> io::Result<Event> {
        if self.sink.is_lost() {
            return Err(io::Error::other("the script runner was killed"));
        }
        if let Some(code) = code.filter(|code| *code != 0) {
            self.log.info(format_args!("{}: exit status: {code}", self.options.program.display()));
        }
        Ok(Event::ScriptDone { ok: code == Some(0) })
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

//! The shell of pinger: waits for the link, the lease, answers, signals and the clock; steps the
//! machine; performs.
//!
//! What is decided, watchdog.rs decides. Order is the correctness argument: the verdict's record is
//! in its place before fw is told (netd::sink). Without a link or a lease nothing wakes it. Called
//! by `lib`.

use std::ffi::OsStr;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use applet::control::{Command, ControlError, ServiceDir};
use netd::cage::{self, Capability, Files, Needs, Socket};
use netd::clock::{self, Timer};
use netd::daemon::{Complaints, Log, Signal, Signals, USUAL};
use netd::disk;
use netd::ipconf;
use netd::link::{LinkWatch, Transition};
use netd::packet::{self, Hardware, PacketSocket, Received};
use netd::peers::Peers;
use netd::sink::{News, Place, RecordChange, Sink};
use netd_core::net::IfName;
use netd_core::record::{self, Cause, Health, Kind, Now, text::Record};
use netd_core::rng::Rng;
use netd_core::wire::arp::{self, Arp, ETHERTYPE_ARP};
use netd_core::wire::bpf::Instruction;
use nix::errno::Errno;
use tokio::task::JoinSet;

use crate::cli::Options;
use crate::icmp::Echo;
use crate::lease::Lease;
use crate::probe::{self, Question};
use crate::records::Records;
use crate::status;
use crate::target::Target;
use crate::watchdog::{Action, Config, Event, Verdict, Watchdog, Who, Wire};

/// An Ethernet frame's payload with an ARP message, padded.
const FRAME: usize = 64;
/// A late answer is still waited for so many timeouts long.
const LATE: u32 = 4;
/// The services that are restarted when the router is gone, by the seed's names.
const SERVICES: [&str; 2] = ["dhcp_", "supplicant_"];

/// The end of one question: whose, and what came of it.
type Asked = (Who, u32, io::Result<()>);

struct Daemon<'a> {
    options: &'a Options,
    log: &'a Log,
    machine: Watchdog,
    rng: Rng,
    /// The verdict's record, and fw.
    sink: Sink,
    link: LinkWatch,
    records: Records<'a>,
    metered: bool,
    arp: Option<PacketSocket>,
    questions: JoinSet<Asked>,
    timer: Timer,
    boot_id: String,
    lease: Option<Lease>,
    /// It was said that there is nothing to judge.
    said_idle: bool,
    complaints: Complaints,
    /// The services as they were when the cage was entered.
    peers: Option<Peers>,
    /// One of them could not be restarted because it is another now.
    out_of_reach: Option<String>,
}

/// Something that ended the wait.
enum Woken {
    Stop,
    Write,
    Link(io::Result<Transition>),
    Records(io::Result<()>),
    Arp(io::Result<Option<Arp>>),
    Asked(Asked),
    Tick(io::Result<()>),
}

/// Watches until it is told to stop.
pub(crate) async fn run(options: &Options, log: &Log) -> io::Result<u8> {
    let mut signals = Signals::new(&USUAL)?;
    let name = Kind::Health.name(&options.iface);
    let found = ipconf::read(&options.dynamic, &options.dynamic.join(format!("{name}.ipconf")));
    let found = found.ok().and_then(|records| verdict_of(records.first()?, &options.iface));
    let peers = Peers::look(services(options));
    let mut daemon = Daemon {
        options,
        log,
        machine: Watchdog::new(options.config, netd::entropy::rng(), found, clock::now()),
        rng: netd::entropy::rng(),
        sink: Sink::new(None, Some(Place { dir: options.dynamic.clone(), name, notify: options.notify.clone() }))?,
        link: LinkWatch::open(&options.iface)?,
        records: Records::open(options)?,
        metered: false,
        arp: None,
        questions: JoinSet::new(),
        timer: Timer::new()?,
        boot_id: clock::boot_id(),
        lease: None,
        said_idle: false,
        complaints: Complaints::default(),
        peers: None,
        out_of_reach: None,
    };
    if options.cage {
        // Nothing has been read from outside yet, but the verdict of before.
        cage::enter(&needs(options, &peers, daemon.records.fixed()), log);
        daemon.peers = Some(peers);
    }
    if let Some(verdict) = found {
        // The predecessor was killed, perhaps between writing it and telling fw.
        daemon.publish(verdict);
    }
    daemon.look_at_metered();
    daemon.look_at_records();
    loop {
        daemon.timer.set(daemon.machine.deadline())?;
        match daemon.wait(&mut signals).await {
            Woken::Stop => break,
            woken => daemon.handle(woken)?,
        }
        if let Some(name) = daemon.out_of_reach {
            // runsv starts us again, in a cage that knows it.
            return Err(io::Error::other(format!("{name} was not there at the start: to be started again")));
        }
    }
    daemon.sink.tell(News::of_record(RecordChange::Withdraw), log);
    if !options.status.as_os_str().is_empty() {
        let _ = disk::spare_device(&options.status).and_then(|()| std::fs::remove_file(&options.status));
    }
    Ok(0)
}

/// The services that are restarted when the router is gone; none with --no-restart.
fn services(options: &Options) -> impl Iterator<Item = String> {
    let wanted = options.config.restart.map(|_| SERVICES).into_iter().flatten();
    wanted.map(|prefix| format!("{prefix}{}", options.iface))
}

/// What is used after the start: sockets for ARP and for each question, the records and the status,
/// whom to tell and to restart.
fn needs(options: &Options, peers: &Peers, fixed: Option<PathBuf>) -> Needs {
    let of_target = |target: &Target| match target {
        Target::Icmp(_) => Socket::Icmp,
        Target::Dns(..) => Socket::Udp,
        Target::Tcp(_) => Socket::Tcp,
    };
    let mut sockets = vec![Socket::Packet, Socket::Netlink, Socket::Icmp];
    sockets.extend(options.targets.iter().map(of_target));
    applet::sort::sort(&mut sockets);
    sockets.dedup();
    let mut files = vec![Files::Directory(options.dynamic.clone()), Files::Service(options.notify.clone())];
    files.extend(peers.files());
    files.extend(fixed.map(Files::ReadOnly));
    let status = options.status.parent().map(|dir| if dir.as_os_str().is_empty() { Path::new(".") } else { dir });
    files.extend(status.map(|dir| Files::Directory(dir.to_owned())));
    Needs { capabilities: vec![Capability::NetRaw], sockets, files, background: false }
}

fn record_of(iface: &IfName, verdict: Verdict) -> Record {
    let health = match verdict {
        Verdict::Good => Health::Up,
        Verdict::Bad => Health::Down,
    };
    record::Verdict::new(iface.clone(), health).render()
}

/// The verdict that a record states.
fn verdict_of(record: &Record, iface: &IfName) -> Option<Verdict> {
    let found = record::Verdict::parse(record).filter(|found| found.interface == *iface)?;
    match found.health {
        Health::Up => Some(Verdict::Good),
        Health::Down => Some(Verdict::Bad),
    }
}

impl Daemon<'_> {
    async fn wait(&mut self, signals: &mut Signals) -> Woken {
        // What has been answered is looked at before the clock: a machine that was busy has lost no
        // answer.
        tokio::select! {
            biased;
            signal = signals.next() => match signal {
                Signal::SIGUSR1 | Signal::SIGUSR2 => Woken::Write,
                // TERM, and INT.
                _ => Woken::Stop,
            },
            transition = self.link.next() => Woken::Link(transition),
            changed = self.records.changed() => Woken::Records(changed),
            Some(joined) = self.questions.join_next() => match joined {
                Ok(asked) => Woken::Asked(asked),
                // Only an abort ends a question without a result.
                Err(_) => Woken::Tick(Ok(())),
            },
            arp = received(self.arp.as_ref()) => Woken::Arp(arp),
            expired = self.timer.expired() => Woken::Tick(expired),
            // It has no program that could end.
            _ = self.sink.turn(self.log) => Woken::Tick(Ok(())),
        }
    }

    fn handle(&mut self, woken: Woken) -> io::Result<()> {
        match woken {
            Woken::Stop => {}
            Woken::Write => self.write_status(),
            Woken::Link(transition) => self.transition(transition?),
            Woken::Records(changed) => {
                changed.map_err(replaced)?;
                self.look_at_metered();
                self.look_at_records();
            }
            Woken::Arp(Ok(Some(message))) => self.step(Event::Arp(message)),
            // Also what is no ARP: a flood of it must not keep the clock from being looked at.
            Woken::Arp(Ok(None)) => self.step(Event::Tick),
            // packet(7): told once when the interface goes down; the socket works again when it is
            // up.
            Woken::Arp(Err(e)) if e.raw_os_error() == Some(Errno::ENETDOWN as i32) => {}
            // It is gone: the link watch tells when it is back.
            Woken::Arp(Err(_)) => self.arp = None,
            Woken::Asked((who, round, Ok(()))) => {
                self.complain(&format!("{who:?}"), None);
                self.step(Event::Answer { who, round });
            }
            Woken::Asked((who, _, Err(e))) => self.unanswered(who, &e),
            Woken::Tick(expired) => {
                expired?;
                self.step(Event::Tick);
            }
        }
        Ok(())
    }

    fn step(&mut self, event: Event) {
        for action in self.machine.step(clock::now(), event) {
            match action {
                Action::Arp { message, to } => self.send_arp(&message, to),
                Action::Probe { who, round } => self.ask(who, round),
                Action::Publish(verdict) => {
                    self.announce(verdict);
                    self.publish(verdict);
                }
                Action::Restart => self.restart(),
                Action::Status => self.write_status(),
            }
        }
    }

    fn transition(&mut self, transition: Transition) {
        match transition {
            Transition::Missing | Transition::Gone | Transition::Renamed { .. } => {
                self.log.info(format_args!("no interface {}: waiting for it", self.options.iface));
                self.step(Event::Link(None));
            }
            Transition::Appeared { .. } | Transition::AdminDown { .. } => {}
            Transition::Down => self.step(Event::Link(None)),
            Transition::Up => {
                let wire = self.open_arp();
                self.step(Event::Link(Some(wire)));
            }
        }
    }

    /// A new socket: the interface may be another one of the same name.
    fn open_arp(&mut self) -> Wire {
        self.arp = None;
        let found =
            packet::interface(&self.options.iface).ok().flatten().filter(|i| i.arp && i.hardware == Hardware::Ethernet);
        let Some(interface) = found else { return Wire { mac: None } };
        match PacketSocket::open(interface.index, ETHERTYPE_ARP, &self.arp_filter()) {
            Ok(socket) => {
                self.arp = Some(socket);
                self.complain("ARP", None);
                Wire { mac: Some(interface.mac) }
            }
            Err(e) => {
                self.complain("ARP", Some(format!("no ARP: {e}{}", hint(&e))));
                Wire { mac: None }
            }
        }
    }

    fn arp_filter(&self) -> Vec<Instruction> {
        self.lease.and_then(|l| l.router).map_or_else(arp::deaf, arp::replies_of)
    }

    fn now(&self) -> Now {
        Now { boottime: clock::now(), wall: clock::wall(), boot_id: self.boot_id.clone() }
    }

    fn look_at_metered(&mut self) {
        let metered = self.records.is_metered();
        if metered != self.metered {
            self.metered = metered;
            self.log.debug(if metered { "metered: few packets" } else { "not metered" });
            self.step(Event::Pace(self.config()));
        }
    }

    fn config(&self) -> Config {
        if self.metered { self.options.metered } else { self.options.config }
    }

    fn look_at_records(&mut self) {
        let lease = match self.records.lease(&self.now()) {
            Ok(lease) => lease,
            Err(text) => return self.complain("lease", Some(text)),
        };
        self.complain("lease", None);
        if lease.is_none() && !self.said_idle {
            self.said_idle = true;
            self.log.info("no lease, nothing to judge");
        }
        if lease == self.lease {
            return;
        }
        self.lease = lease;
        // What is on its way was asked of another router.
        self.questions.abort_all();
        if let Some(Err(e)) = self.arp.as_ref().map(|socket| socket.set_filter(&self.arp_filter())) {
            self.complain("ARP", Some(format!("no ARP: {e}")));
        }
        match lease {
            Some(Lease { ip, router: Some(router) }) => self.log.debug(format_args!("lease {ip}, router {router}")),
            Some(Lease { ip, router: None }) => self.log.debug(format_args!("lease {ip}, without a router")),
            None => self.log.debug("no lease"),
        }
        self.step(Event::Lease(lease));
    }

    fn send_arp(&mut self, message: &Arp, to: [u8; 6]) {
        if let Some(Err(e)) = self.arp.as_ref().map(|socket| socket.send(&message.encode(), to)) {
            self.log.debug(format_args!("unable to ask by ARP: {e}"));
        }
    }

    fn ask(&mut self, who: Who, round: u32) {
        let Some(lease) = self.lease else { return };
        let target = match who {
            Who::Router => lease.router.map(Target::Icmp),
            Who::Target(n) => self.options.targets.get(n).cloned(),
        };
        let Some(target) = target else { return };
        let echo = self.echo();
        let question = Question { device: self.options.iface.to_string(), source: lease.ip, target, echo };
        let limit = self.config().timeout * LATE;
        self.questions.spawn(async move {
            let answer = clock::timeout(limit, probe::ask(question)).await;
            (who, round, answer.flatten())
        });
    }

    fn echo(&mut self) -> Echo {
        let mut word = || self.rng.next_u32().to_be_bytes();
        let [[a, b, c, d], tokens @ ..] = [word(), word(), word(), word(), word()];
        let mut token = [0; 16];
        token.iter_mut().zip(tokens.as_flattened()).for_each(|(to, from)| *to = *from);
        Echo { id: u16::from_be_bytes([a, b]), seq: u16::from_be_bytes([c, d]), token }
    }

    /// No answer is the machine's business; not being allowed to ask is the administrator's.
    fn unanswered(&mut self, who: Who, error: &io::Error) {
        match error.kind() {
            ErrorKind::PermissionDenied => {
                self.complain(&format!("{who:?}"), Some(format!("unable to ask: {error}{}", hint(error))));
            }
            _ => self.log.debug(format_args!("{who:?}: {error}")),
        }
    }

    fn publish(&mut self, verdict: Verdict) {
        let record = RecordChange::Publish(record_of(&self.options.iface, verdict));
        self.sink.tell(News::of_record(record), self.log);
    }

    fn announce(&self, verdict: Verdict) {
        let report = self.machine.report();
        let router = report.lease.and_then(|l| l.router).map_or_else(String::new, |r| format!(" {r}"));
        match (verdict, report.cause) {
            (Verdict::Good, _) => self.log.info("uplink is good"),
            (Verdict::Bad, Some(Cause::Router)) => {
                self.log.info(format_args!("uplink is bad: router{router} does not answer"))
            }
            (Verdict::Bad, _) => self.log.info(format_args!("uplink is bad: nothing behind router{router} answers")),
        }
    }

    fn restart(&mut self) {
        for name in services(self.options) {
            match ServiceDir::resolve(OsStr::new(&name)).send(&[Command::Term]) {
                Ok(()) => {
                    self.log.info(format_args!("restarting {name}"));
                    self.complain(&name, None);
                }
                // A service that is not installed is not missed.
                Err(ControlError::Missing(_)) => {}
                Err(e) => {
                    self.complain(&name, Some(format!("unable to restart {name}: {e}")));
                    if self.peers.as_ref().is_some_and(|peers| peers.is_new(&name)) {
                        self.out_of_reach = Some(name);
                    }
                }
            }
        }
    }

    fn write_status(&mut self) {
        let path = &self.options.status;
        if path.as_os_str().is_empty() {
            return;
        }
        let text = status::render(&self.options.iface, &self.machine.report(), &self.options.targets, clock::now());
        let written = disk::replace(path, text.as_bytes(), None);
        let text = written.err().map(|e| format!("unable to write {}: {e}", path.display()));
        self.complain("status", text);
    }

    /// Logs a reason that is new.
    fn complain(&mut self, what: &str, text: Option<String>) {
        match text {
            Some(text) => self.log.wrong(&mut self.complaints, what, &text),
            None => drop(self.complaints.right(what)),
        }
    }
}

/// The cage holds the directory that was there at the start: runsv starts us again, in one that
/// holds the new one.
fn replaced(e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("the directory of the records was removed, to be started again: {e}"))
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::PermissionDenied => " (CAP_NET_RAW is needed)",
        _ => "",
    }
}

/// The next frame that is an ARP message; never without a socket.
async fn received(socket: Option<&PacketSocket>) -> io::Result<Option<Arp>> {
    let Some(socket) = socket else { return pending().await };
    let mut frame = [0; FRAME];
    let Received { len, .. } = socket.recv(&mut frame).await?;
    Ok(frame.get(..len).and_then(Arp::decode))
}

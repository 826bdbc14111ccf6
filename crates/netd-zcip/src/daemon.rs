//! The shell around the machine: wait -> Event -> step -> perform.
//!
//! One task, one packet socket, one timer, one child at most. It owns what the machine must not
//! know: the interface's index, the script, files. No decision about the protocol is made here.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use netd::addresses::{AddressWatch, OwnAddresses, addresses};
use netd::cage::{self, Capability, Files, Needs, Socket};
use netd::clock::{self, Timer};
use netd::daemon::{Complaints, Log, Signal, Signals, USUAL, background, block_on, close_inherited};
use netd::ipconf;
use netd::link::{LinkWatch, Transition, set_up};
use netd::packet::{self, BROADCAST, Hardware, Interface, PacketSocket, Received};
use netd::runner::{Program, Runner};
use netd::sink::{Ended, News, Place, Sink};
use netd_core::record::Kind;
use netd_core::wire::arp::{self, Arp};

use crate::cli::{self, Options, USAGE};
use crate::ipv4ll::{Action, Addresses, Config, Event, Ipv4ll};
use crate::notice::{self, Context};

/// zcip's exit code for everything that goes wrong.
const EXIT_FAILURE: u8 = 1;
/// How long a script may still run when we are to end.
const LAST_SCRIPT: Duration = Duration::from_secs(10);

/// Keys of [`Complaints`].
const SENDING: &str = "sending";
const REMEMBERING: &str = "remembering";

/// The applet.
pub(crate) fn main(argv: Vec<OsString>) -> u8 {
    let options = match cli::parse(argv.into_iter().skip(1)) {
        Ok(options) => options,
        Err(e) => return e.report("zcip", USAGE),
    };
    if !options.foreground {
        close_inherited();
    }
    let log = Log::new("zcip", Some(&options.interface), options.verbosity);
    match start(options, log.clone()) {
        Ok(code) => code,
        Err(e) => {
            log.info(e);
            EXIT_FAILURE
        }
    }
}

/// The runner of the script is forked before anything else is there that it would hold.
fn start(options: Options, log: Log) -> io::Result<u8> {
    let program = options.script.clone().map(|path| Program::script(path, &options.pass));
    let runner = program.map(|program| Runner::start("zcip", program)).transpose().map_err(context("can't fork"))?;
    block_on(pin!(run(options, runner, log)))
}

fn context(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |e| {
        let hint = if e.kind() == io::ErrorKind::PermissionDenied { " (a capability is missing)" } else { "" };
        io::Error::new(e.kind(), format!("{what}: {e}{hint}"))
    }
}

/// What the loop waits on.
struct Sources {
    signals: Signals,
    timer: Timer,
    links: LinkWatch,
    addresses: AddressWatch,
}

async fn run(options: Options, runner: Option<Runner>, log: Log) -> io::Result<u8> {
    let mut sources = Sources {
        signals: Signals::new(&USUAL)?,
        timer: Timer::new()?,
        links: LinkWatch::open(&options.interface).map_err(context("can't watch the link"))?,
        addresses: AddressWatch::open().map_err(context("can't watch addresses"))?,
    };
    let cage = options.cage.then(|| needs(&options));
    let mut daemon = Daemon::new(options, runner, log)?;
    daemon.initialize(&mut sources.signals).await?;
    // Nothing has been read from the wire yet.
    if let Some(needs) = cage {
        cage::enter(&needs, &daemon.log);
    }
    daemon.look_at_addresses()?;
    loop {
        if let Some(code) = daemon.ended() {
            return Ok(code);
        }
        if daemon.ending.is_some() {
            daemon.linger(&mut sources).await?;
        } else if let Err(e) = daemon.turn(&mut sources).await {
            // Whatever the reason is: an address that zcip does not defend must not stay in use.
            daemon.log.info(e);
            daemon.stop(EXIT_FAILURE);
        }
    }
}

/// zcip probes by ARP, which exists on Ethernet alone.
fn ethernet(name: &str) -> io::Result<Option<Interface>> {
    Ok(packet::interface(name)?.filter(|found| found.hardware == Hardware::Ethernet))
}

/// What is used after the start: a socket when the interface was replaced, the machine's addresses,
/// the record and whom to tell, the remembered address. The script runs outside.
fn needs(options: &Options) -> Needs {
    let mut files: Vec<Files> = options.state.iter().cloned().map(Files::Directory).collect();
    if let Some(ipconf) = &options.ipconf {
        files.extend([Files::Directory(ipconf.dir.clone()), Files::Service(ipconf.notify.clone())]);
    }
    // Without a script no other program brings up an interface that has come back.
    let admin = options.script.is_none().then_some(Capability::NetAdmin);
    Needs {
        capabilities: [Capability::NetRaw].into_iter().chain(admin).collect(),
        sockets: vec![Socket::Packet, Socket::Netlink],
        files,
        background: false,
    }
}

/// What ended a wait.
enum Woken {
    Signal(Signal),
    Packet(io::Result<Received>),
    Link(Transition),
    Addresses,
    Timer,
    Script(Ended),
}

struct Daemon {
    log: Log,
    /// Name, and whether a missing interface is waited for: with a record it is, because fw reads
    /// the record whenever it comes.
    name: String,
    waits: bool,
    /// Open while the interface is there.
    socket: Option<PacketSocket>,
    machine: Ipv4ll,
    sink: Sink,
    context: Context,
    resumes: bool,
    foreground: bool,
    state: Option<PathBuf>,
    watched: Option<Ipv4Addr>,
    complaints: Complaints,
    /// A send failed in this step.
    unsent: bool,
    /// The exit code, and when to stop waiting for the script: after -q the caller waits for what
    /// the script does.
    ending: Option<(u8, Option<Duration>)>,
}

impl Daemon {
    fn new(options: Options, runner: Option<Runner>, log: Log) -> io::Result<Daemon> {
        let context =
            Context { interface: options.interface.clone(), boot_id: clock::boot_id(), pid: std::process::id() };
        let found = ethernet(&options.interface)?;
        let mut config = Config {
            interface: options.interface.to_string(),
            mac: found.map(|f| f.mac).unwrap_or_default(),
            network: options.network,
            known: options.requested.into_iter().collect(),
            resume: None,
            quit: options.quit,
            yields: options.yields,
        };
        let remembered = options.state.as_deref().and_then(|dir| {
            let records =
                ipconf::read(dir, &dir.join(format!("{}.ipconf", Kind::RememberedLinkLocal.name(&options.interface))))
                    .ok()?;
            notice::remembered(records.first()?, &context, &config)
        });
        config.known.extend(remembered.filter(|ip| !config.known.contains(ip)));
        let record = Kind::LinkLocal.name(&options.interface);
        let dir = options.ipconf.as_ref().map(|ipconf| ipconf.dir.as_path());
        config.resume = found.and(resume(dir, &record, &context, &config)?);
        let waits = options.ipconf.is_some();
        let place = options.ipconf.map(|ipconf| Place { dir: ipconf.dir, name: record, notify: ipconf.notify });
        let mut daemon = Daemon {
            name: options.interface.to_string(),
            waits,
            socket: None,
            resumes: config.resume.is_some(),
            machine: Ipv4ll::new(config, netd::entropy::rng()),
            sink: Sink::new(runner, place)?,
            context,
            foreground: options.foreground,
            state: options.state,
            watched: None,
            complaints: Complaints::default(),
            unsent: false,
            ending: None,
            log,
        };
        match found {
            Some(found) => daemon.serve(&found)?,
            None if daemon.waits => daemon.log.info(format_args!("{}: waiting for it", daemon.missing())),
            None => return Err(io::Error::new(io::ErrorKind::NotFound, daemon.missing())),
        }
        Ok(daemon)
    }

    fn missing(&self) -> String {
        match packet::interface(&self.name) {
            Ok(Some(_)) => format!("interface {} is not Ethernet", self.name),
            Ok(None) | Err(_) => format!("no interface {}", self.name),
        }
    }

    /// The interface is there, or there again.
    fn serve(&mut self, found: &Interface) -> io::Result<()> {
        // Without a script no other program brings it up.
        if !self.sink.has_script()
            && !found.up
            && let Err(e) = set_up(found.index)
        {
            self.log.info(format_args!("can't set the interface up: {e}"));
        }
        let filter = self.watched.map_or_else(arp::deaf, arp::filter);
        let socket = PacketSocket::open(found.index, arp::ETHERTYPE_ARP, &filter);
        self.socket = Some(socket.map_err(context("can't open packet socket"))?);
        self.step(Event::Mac(found.mac));
        Ok(())
    }

    /// `SCRIPT init`, and to the background when it has ended. When it fails, so do we.
    async fn initialize(&mut self, signals: &mut Signals) -> io::Result<()> {
        self.tell(notice::init(&self.context, self.resumes));
        if self.sink.has_script() {
            let code = tokio::select! {
                biased;
                () = terminated(signals) => Some(0),
                ended = self.sink.turn(&self.log) => {
                    self.script_ended(ended)?;
                    (ended.code != Some(0)).then_some(EXIT_FAILURE)
                }
            };
            if let Some(code) = code {
                self.stop(code);
                return Ok(());
            }
        }
        if !self.foreground {
            self.sink.background().map_err(context("can't send the script runner to the background"))?;
            background().map_err(context("can't go to the background"))?;
            self.context.pid = std::process::id();
            // Where no syslogd reads, no log is left that could say so.
            if let Ok(both) = self.log.clone().with_syslog() {
                self.log = both;
            }
        }
        Ok(())
    }

    fn ended(&self) -> Option<u8> {
        let idle = self.sink.is_idle();
        let is_over = |at: Option<Duration>| idle || at.is_some_and(|at| at <= clock::now());
        self.ending.filter(|(_, at)| is_over(*at)).map(|(code, _)| code)
    }

    /// Waits for one thing, and deals with it.
    async fn turn(&mut self, sources: &mut Sources) -> io::Result<()> {
        let mut buffer = [0; arp::LEN];
        sources.timer.set(self.machine.deadline())?;
        let woken = tokio::select! {
            biased;
            signal = sources.signals.next() => Woken::Signal(signal),
            change = sources.links.next() => Woken::Link(change?),
            done = sources.addresses.changed() => done.map(|()| Woken::Addresses)?,
            ended = self.sink.turn(&self.log) => Woken::Script(ended),
            // Before the timer: after a stall, an objection that waits must be heard before an
            // address is found free.
            received = heard(self.socket.as_ref(), &mut buffer) => Woken::Packet(received),
            done = sources.timer.expired() => done.map(|()| Woken::Timer)?,
        };
        match woken {
            Woken::Signal(Signal::SIGUSR1) => self.step(Event::Check),
            Woken::Signal(Signal::SIGUSR2) => self.step(Event::Release),
            // TERM, and INT.
            Woken::Signal(signal) => {
                self.log.info(format_args!("received {signal}"));
                self.stop(0);
            }
            Woken::Packet(Ok(received)) => {
                // Padding makes it longer than the buffer, and is not looked at.
                let bytes = buffer.get(..received.len).unwrap_or_default();
                if let Some(arp) = Arp::heard(bytes, received.from, received.unicast) {
                    self.step(Event::Arp(arp));
                }
            }
            Woken::Packet(Err(e)) => self.log.debug(format_args!("receiving: {e}")),
            Woken::Link(transition) => self.transition(transition)?,
            Woken::Addresses => {
                if let (Some(found), true) = (ethernet(&self.name)?, self.socket.is_some()) {
                    self.step(Event::Mac(found.mac));
                }
                self.look_at_addresses()?;
            }
            Woken::Timer => self.step(Event::Timer),
            Woken::Script(ended) => self.script_ended(ended)?,
        }
        Ok(())
    }

    /// The end: only the script is still waited for, and not for ever.
    async fn linger(&mut self, sources: &mut Sources) -> io::Result<()> {
        sources.timer.set(self.ending.and_then(|(_, at)| at))?;
        tokio::select! {
            biased;
            () = terminated(&mut sources.signals) => {
                self.ending = self.ending.map(|(code, _)| (code, Some(Duration::ZERO)));
            }
            done = sources.timer.expired() => done?,
            ended = self.sink.turn(&self.log) => drop(self.script_ended(ended)),
        }
        Ok(())
    }

    fn transition(&mut self, transition: Transition) -> io::Result<()> {
        match transition {
            Transition::Appeared { ifindex, .. } => {
                if self.socket.as_ref().is_none_or(|socket| socket.index() != ifindex)
                    && let Some(found) = ethernet(&self.name)?
                {
                    self.serve(&found)?;
                }
            }
            Transition::Up => self.step(Event::Link(self.socket.is_some())),
            Transition::Down => self.step(Event::Link(false)),
            Transition::AdminDown { .. } | Transition::Missing => {}
            Transition::Gone | Transition::Renamed { .. } if self.waits => {
                self.log.info("interface is gone: waiting for it");
                self.socket = None;
                self.step(Event::Link(false));
            }
            Transition::Gone | Transition::Renamed { .. } => {
                return Err(io::Error::new(io::ErrorKind::NotFound, "interface is gone"));
            }
        }
        Ok(())
    }

    fn look_at_addresses(&mut self) -> io::Result<()> {
        let OwnAddresses { ips, macs } = addresses()?;
        let (own, elsewhere): (Vec<_>, Vec<_>) = ips.into_iter().partition(|(interface, _)| *interface == self.name);
        let own = own.into_iter().map(|(_, ip)| ip).collect();
        self.step(Event::Addresses(Addresses { own, elsewhere, macs }));
        Ok(())
    }

    fn script_ended(&self, ended: Ended) -> io::Result<()> {
        if self.sink.is_lost() {
            return Err(io::Error::other("the script runner was killed"));
        }
        match ended.code {
            Some(0) => {}
            Some(code) => self.log.info(format_args!("script {} failed, exitcode={code}", ended.event)),
            // The sink has said so.
            None => {}
        }
        Ok(())
    }

    /// Ends; no script may keep us for ever.
    fn stop(&mut self, code: u8) {
        self.step(Event::Stop(code));
        self.ending = self.ending.map(|(code, _)| (code, Some(clock::now() + LAST_SCRIPT)));
    }

    fn step(&mut self, event: Event) {
        for action in self.machine.step(clock::now(), event) {
            self.perform(action);
        }
        if std::mem::take(&mut self.unsent) {
            for action in self.machine.step(clock::now(), Event::Unsent) {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send(arp) => self.send(&arp),
            Action::Watch(ip) => self.watch(ip),
            Action::Config(ip) => self.tell(notice::config(&self.context, ip)),
            Action::Deconfig(ip) => self.tell(notice::deconfig(&self.context, ip)),
            Action::Remember(ip) => self.remember(ip),
            Action::Log(text) => self.log.info(text),
            Action::Debug(text) => self.log.debug(text),
            Action::Exit(code) => self.ending = Some((code, None)),
        }
    }

    fn tell(&mut self, news: News) {
        self.sink.tell(news, &self.log);
    }

    fn send(&mut self, arp: &Arp) {
        let Some(socket) = &self.socket else { return };
        match socket.send(&arp.encode(), BROADCAST) {
            Ok(()) => drop(self.complaints.right(SENDING)),
            Err(e) => {
                self.log.wrong(&mut self.complaints, SENDING, &format!("can't send: {e}"));
                self.unsent = true;
            }
        }
    }

    fn watch(&mut self, ip: Option<Ipv4Addr>) {
        self.watched = ip;
        let filter = ip.map_or_else(arp::deaf, arp::filter);
        if let Some(Err(e)) = self.socket.as_ref().map(|socket| socket.set_filter(&filter)) {
            self.log.info(format_args!("can't listen to ARP: {e}"));
        }
    }

    /// Written when it changes, which is rare: it may be on flash.
    fn remember(&mut self, ip: Ipv4Addr) {
        let Some(dir) = &self.state else { return };
        let name = Kind::RememberedLinkLocal.name(&self.name);
        let written = ipconf::publish(dir, &name, &[notice::remember(&self.context, ip)]);
        match written {
            Ok(_) => drop(self.complaints.right(REMEMBERING)),
            Err(e) => {
                let text = format!("{}/{name}.ipconf: {e}", dir.display());
                self.log.wrong(&mut self.complaints, REMEMBERING, &text);
            }
        }
    }
}

/// TERM or INT, and no other signal.
async fn terminated(signals: &mut Signals) {
    while matches!(signals.next().await, Signal::SIGUSR1 | Signal::SIGUSR2) {}
}

/// What comes on the socket; for ever nothing without one.
async fn heard(socket: Option<&PacketSocket>, buffer: &mut [u8]) -> io::Result<Received> {
    match socket {
        Some(socket) => socket.recv(buffer).await,
        None => std::future::pending().await,
    }
}

/// The address that the last process was killed with: the record says so, or it is remembered and
/// on the interface.
fn resume(dir: Option<&Path>, name: &str, context: &Context, config: &Config) -> io::Result<Option<Ipv4Addr>> {
    if let Some(dir) = dir {
        // Anything wrong with it: there is none.
        let records = ipconf::read(dir, &dir.join(format!("{name}.ipconf"))).unwrap_or_default();
        return Ok(records.first().and_then(|record| notice::resume(record, context, config)));
    }
    let known = |(interface, ip): &(String, Ipv4Addr)| *interface == config.interface && config.known.contains(ip);
    Ok(addresses()?.ips.into_iter().find(known).map(|(_, ip)| ip))
}

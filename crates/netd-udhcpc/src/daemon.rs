//! The shell around the machine: wait -> Event -> step -> perform.
//!
//! One task, one timer, the sockets (sockets.rs). It owns what the machine must not know: the
//! interface's index and MAC, the template of our messages, the wall clock. No decision about the
//! protocol is made here.
#![expect(clippy::disallowed_methods, reason = "the wall clock stamps the record's lease_end")]

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netd::addresses::addresses;
use netd::cage::{self, Capability, Files, Needs, Socket};
use netd::clock::{self, Timer};
use netd::daemon::{Complaints, Log, Pidfile, Signal, Signals, USUAL, background, block_on, close_inherited};
use netd::ipconf;
use netd::link::{LinkWatch, Transition};
use netd::packet::{self, Hardware, Interface};
use netd::runner::{Program, Runner};
use netd::sink::{Place, Sink};
use netd_core::record::Kind;
use netd_core::wire::arp::Arp;
use nix::errno::Errno;

use crate::cli::{self, Command, Handling, Options, USAGE};
use crate::client::{Action, Change, Client, Config, Destination, Event, Resume};
use crate::duid;
use crate::gate::Gate;
use crate::hook::{self, Hook};
use crate::message::{Outgoing, Template, max_message};
use crate::notice::notice;
use crate::options::CLIENT_ID;
use crate::record::{self, Context};
use crate::show;
use crate::sockets::{Found, Heard, Sockets};
use crate::state::{Fate, State};
use crate::vet::Vetter;

/// udhcpc's exit code for everything that goes wrong.
const EXIT_FAILURE: u8 = 1;
/// A key of [`Complaints`].
const SENDING: &str = "sending";

/// The applet.
pub(crate) fn main(argv: Vec<OsString>) -> u8 {
    let options = match cli::parse(argv.into_iter().skip(1)) {
        Ok(Command::Run(options)) => *options,
        Ok(Command::Show(what)) => return show::main(&what),
        Err(e) => return e.report("udhcpc", USAGE),
    };
    if options.config.background_when_bound || options.config.background_on_failure {
        close_inherited();
    }
    let mut log = Log::new("udhcpc", Some(&options.interface), options.verbosity);
    if options.syslog {
        match log.clone().with_syslog() {
            Ok(both) => log = both,
            Err(e) => log.info(format_args!("no syslog: {e}")),
        }
    }
    match start(options, &log) {
        Ok(code) => code,
        Err(e) => {
            log.info(e);
            EXIT_FAILURE
        }
    }
}

/// The runner of a program is forked before anything else is there that it would hold.
fn start(options: Options, log: &Log) -> io::Result<u8> {
    let (mut runner, mut hook) = (None, None);
    match &options.handling {
        Handling::Script { program, pass } => {
            let mut program = Program::script(program.clone(), pass);
            // As ifupdown has it for its scripts.
            program.env.extend(options.metric.map(|metric| ("IF_METRIC".into(), metric.to_string().into())));
            runner = Some(Runner::start("udhcpc", program).map_err(context("can't fork"))?);
        }
        Handling::Ipconf { hook: None, .. } => {}
        Handling::Ipconf { dir, hook: Some(cli::Hook { program, pass }), .. } => {
            let record = dir.join(format!("dhcp_{}.ipconf", options.interface)).into();
            let forked = hook::fork(program.clone(), pass, record, options.may_leave());
            hook = forked.inspect_err(|e| log.info(format_args!("can't fork: {e}"))).ok();
        }
    }
    block_on(pin!(run(options, runner, hook, log)))
}

fn context(what: &str) -> impl FnOnce(io::Error) -> io::Error {
    move |e| io::Error::new(e.kind(), format!("{what}: {e}"))
}

async fn run(options: Options, runner: Option<Runner>, hook: Option<Runner>, log: &Log) -> io::Result<u8> {
    log.info(concat!("started, v", env!("CARGO_PKG_VERSION")));
    let pidfile = Pidfile::new(options.pidfile.clone());
    let mut signals = Signals::new(&USUAL)?;
    let Some(interface) = find_interface(&options, &mut signals, log).await? else { return Ok(0) };
    let mut timer = Timer::new()?;
    write_pidfile(&pidfile, log);
    let sockets = Sockets::open(options.device(), interface, options.priority, log)?;
    let mut links = LinkWatch::open(options.device()).map_err(context("can't watch the link"))?;
    let cage = options.cage.then(|| needs(&options));
    let mut daemon = Daemon::new(options, runner, sockets, log, pidfile)?;
    daemon.hook = hook.and_then(|runner| Hook::new(runner, log));
    daemon.raise();
    if let Some(needs) = cage {
        cage::enter(&needs, log);
    }
    daemon.step(Event::Start)?;
    loop {
        if daemon.sink.is_idle() {
            daemon.step(Event::Idle)?;
        }
        if let Some(code) = daemon.code {
            return Ok(code);
        }
        if daemon.sink.is_lost() {
            // A supervisor starts both again. Without scripts a lease would end, and the system
            // would never be told.
            return Err(io::Error::other("the script runner was killed"));
        }
        timer.set(daemon.client.deadline())?;
        let woken = tokio::select! {
            biased;
            signal = signals.next() => Woken::Signal(signal),
            heard = daemon.sockets.heard() => Woken::Heard(heard),
            change = links.next() => Woken::Link(change?),
            done = timer.expired() => done.map(|()| Woken::Timer)?,
            _ = daemon.sink.turn(log) => Woken::Script,
            never = hook::turn(daemon.hook.as_mut(), log) => match never {},
        };
        daemon.woken(woken)?;
    }
}

/// Whether this signal ends the client. SIGUSR1 (renew) and SIGUSR2 (release) do not.
fn ends(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT)
}

/// What ended a wait.
enum Woken {
    Signal(Signal),
    Heard(Heard),
    Link(Transition),
    Timer,
    Script,
}

/// The interface, which must be there; with `--ipconf` it is waited for. `None`: told to end
/// meanwhile.
async fn find_interface(options: &Options, signals: &mut Signals, log: &Log) -> io::Result<Option<Interface>> {
    let mut links: Option<LinkWatch> = None;
    loop {
        let missing = match packet::interface(options.device())? {
            Some(found) if found.hardware != Hardware::Other => return Ok(Some(found)),
            // Their addresses do not fit (RFC 4390).
            Some(_) => format!("interface {} has addresses of another kind than Ethernet's", options.device()),
            None => format!("no interface {}", options.device()),
        };
        if matches!(options.handling, Handling::Script { .. }) {
            return Err(io::Error::new(io::ErrorKind::NotFound, missing));
        }
        // Its first word is how things are: what happened since the look above is not missed.
        let links = match &mut links {
            Some(links) => links,
            none => {
                log.info(format_args!("{missing}: waiting for it"));
                none.insert(LinkWatch::open(options.device()).map_err(context("can't watch the link"))?)
            }
        };
        tokio::select! {
            biased;
            signal = signals.next() => if ends(signal) { return Ok(None) },
            change = links.next() => drop(change?),
        }
    }
}

/// What is used after the start: sockets when the interface was replaced, an address is watched or
/// a lease is renewed by unicast; the record and whom to tell. Scripts run outside.
fn needs(options: &Options) -> Needs {
    let mut files: Vec<Files> = options.pidfile.iter().cloned().map(Files::Pidfile).collect();
    files.extend(options.state.iter().cloned().map(Files::Directory));
    if let Handling::Ipconf { dir, notify, .. } = &options.handling {
        files.extend([Files::Directory(dir.clone()), Files::Service(notify.clone())]);
    }
    Needs {
        capabilities: vec![Capability::NetRaw, Capability::NetBindService],
        sockets: vec![Socket::Packet, Socket::Netlink, Socket::Udp],
        files,
        background: options.may_leave(),
    }
}

struct Daemon<'a> {
    log: &'a Log,
    /// As given, with an alias; what scripts see.
    name: String,
    sockets: Sockets,
    template: Template,
    client: Client,
    state: Option<State>,
    sink: Sink,
    hook: Option<Hook>,
    pidfile: Pidfile,
    context: Context,
    gate: Gate,
    vetter: Vetter,
    complaints: Complaints,
    /// The machine has ended, with this exit code.
    code: Option<u8>,
}

impl<'a> Daemon<'a> {
    fn new(
        mut options: Options,
        runner: Option<Runner>,
        sockets: Sockets,
        log: &'a Log,
        pidfile: Pidfile,
    ) -> io::Result<Daemon<'a>> {
        let mac = sockets.interface().mac;
        if let Some(duid) = options.duid {
            let id = duid::client_id(duid, &options.interface, mac, duid::machine_id(duid)?);
            options.template.extra.push((CLIENT_ID, id));
        }
        let context = Context {
            interface: options.device().clone(),
            boot_id: clock::boot_id(),
            pid: std::process::id(),
            wall_offset: Duration::ZERO,
            metric: options.metric,
        };
        let record = Kind::Lease.name(&options.interface);
        let native = matches!(options.handling, Handling::Ipconf { .. });
        let (place, resume) = match (options.handling, &runner) {
            (_, Some(_)) => (None, None),
            (Handling::Ipconf { dir, notify, .. }, None) => {
                // RFC 7844 section 3.3: an address of before would tell this network where we were.
                let resume = if options.config.anonymous { None } else { read_resume(&dir, &record, &context) };
                (Some(Place { dir, name: record, notify }), resume)
            }
            (Handling::Script { .. }, None) => return Err(io::Error::other("no script runner")),
        };
        let state = options.state.map(|dir| State::new(&dir, &options.interface, context.interface.clone(), mac));
        let remembered = state.as_ref().and_then(State::recall).filter(|ip| !options.gate.rejects(*ip));
        let resume = resume.filter(|r| ![r.ip, r.server_id].iter().any(|ip| options.gate.rejects(*ip)));
        let asks = sockets.interface().arp && sockets.interface().hardware == Hardware::Ethernet;
        if options.config.acd.is_some() && !asks {
            log.info("no ARP on this interface: nothing is looked for");
        }
        let acd = options.config.acd.filter(|_| asks);
        let config = Config { resume, remembered, mac, acd, native, ..options.config };
        let client = Client::new(config, netd::entropy::rng());
        Ok(Daemon {
            log,
            name: options.interface,
            sockets,
            template: options.template,
            client,
            state,
            sink: Sink::new(runner, place)?,
            hook: None,
            pidfile,
            context,
            gate: options.gate,
            vetter: Vetter::new(options.routes, options.default_route, native),
            complaints: Complaints::default(),
            code: None,
        })
    }

    /// Without a script the client itself has to bring the interface up. Where that is not allowed,
    /// the first message that cannot be sent says so.
    fn raise(&self) {
        let interface = self.sockets.interface();
        if !self.sink.has_script()
            && !interface.up
            && let Err(e) = netd::link::set_up(interface.index)
        {
            self.log.info(format_args!("can't set the interface up: {e}"));
        }
    }

    /// Turns what ended a wait into an event.
    fn woken(&mut self, woken: Woken) -> io::Result<()> {
        match woken {
            Woken::Signal(Signal::SIGUSR1) => self.step(Event::Renew),
            Woken::Signal(Signal::SIGUSR2) => self.step(Event::Release),
            // TERM, and INT.
            Woken::Signal(_) => self.step(Event::Stop),
            Woken::Heard(Heard::Reply(mut reply, source, from)) => {
                let mac = self.sockets.interface().mac;
                let admitted = self.gate.admit(&mut reply, source, &self.template, mac);
                self.step(admitted.map_or_else(Event::Refused, |()| Event::Reply(reply, from)))
            }
            Woken::Heard(Heard::Refused(why)) => self.step(Event::Refused(why)),
            Woken::Heard(Heard::Arp(arp)) if self.is_our_own(&arp) => {
                self.log.debug("ARP of another interface of ours");
                Ok(())
            }
            Woken::Heard(Heard::Arp(arp)) => self.step(Event::Arp(arp)),
            Woken::Heard(Heard::Other(text)) => {
                self.log.debug(text);
                Ok(())
            }
            Woken::Heard(Heard::Failed(e)) => {
                self.log.debug(format_args!("receiving: {e}"));
                self.refresh()
            }
            Woken::Timer => {
                self.refresh()?;
                self.step(Event::Timer)
            }
            Woken::Link(transition) => self.link(transition),
            Woken::Script => self.step(Event::ScriptEnded),
        }
    }

    fn link(&mut self, transition: Transition) -> io::Result<()> {
        match transition {
            Transition::Up => {
                // A MAC is changed while the interface is down.
                self.refresh()?;
                self.step(Event::Carrier)
            }
            Transition::Down => self.step(Event::CarrierLost),
            Transition::Renamed { to } => {
                self.log.info(format_args!("the interface is called {to} now"));
                self.refresh()
            }
            Transition::Gone => {
                // When another one has its name already, that one's carrier is new to us.
                self.step(Event::CarrierLost)?;
                self.refresh()
            }
            Transition::Missing | Transition::Appeared { .. } | Transition::AdminDown { .. } => Ok(()),
        }
    }

    /// Where two interfaces of ours are on one link the kernel answers on each for the addresses of
    /// both, and asks with either (arp_ignore, arp_announce in ip-sysctl). RFC 5227 section 2.4:
    /// for an address in use that is no conflict.
    fn is_our_own(&self, arp: &Arp) -> bool {
        self.client.address().is_some() && addresses().is_ok_and(|own| own.macs.contains(&arp.sender_mac))
    }

    fn refresh(&mut self) -> io::Result<()> {
        match self.sockets.refresh(self.log)? {
            Found::Same => Ok(()),
            Found::Mac(mac) => self.step(Event::Mac(mac)),
            Found::Gone => self.step(Event::Gone),
        }
    }

    fn step(&mut self, event: Event) -> io::Result<()> {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.client.step(clock::now(), event) {
                let fate = self.state.as_ref().map_or(Fate::Keep, |state| state.fate(&action));
                if !self.perform(action)? {
                    // That gives rise to no other message.
                    events = vec![Event::Unsent];
                }
                if let Some(state) = &mut self.state {
                    state.settle(fate, self.log);
                }
            }
        }
        Ok(())
    }

    /// False: a message could not be sent.
    fn perform(&mut self, action: Action) -> io::Result<bool> {
        match action {
            Action::Send(message, to) => return Ok(self.send(&message, to)),
            Action::SendArp(arp) => self.sockets.send_arp(&arp, self.log),
            Action::Watch(watch) => self.sockets.watch(watch, self.log),
            Action::Tell(mut change) => {
                self.vetter.vet(&mut change, self.sockets.interface().index, self.log);
                self.tell(&change);
            }
            Action::Log(text) => self.log.info(text),
            Action::Debug(text) => self.log.debug(text),
            Action::Background => self.leave()?,
            Action::Exit(code) => self.code = Some(code),
        }
        Ok(true)
    }

    fn leave(&mut self) -> io::Result<()> {
        self.sink.background().map_err(context("can't send the script runner to the background"))?;
        background().map_err(context("can't go to the background"))?;
        self.context.pid = std::process::id();
        write_pidfile(&self.pidfile, self.log);
        Ok(())
    }

    fn tell(&mut self, change: &Change) {
        self.sockets.close_udp();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.context.wall_offset = wall.saturating_sub(clock::now());
        self.sink.tell(notice(&self.context, &self.name, change), self.log);
        if let Some(hook) = &mut self.hook {
            hook.tell(&self.name, change, self.log);
        }
    }

    /// Whether it was sent.
    fn send(&mut self, message: &Outgoing, to: Destination) -> bool {
        if !self.sink.has_script() {
            self.template.max_message = max_message(self.sockets.interface().mtu);
        }
        let payload = message.encode(self.sockets.interface().mac, &self.template);
        let sent = self.sockets.send(&payload, message.ciaddr, to, self.log);
        match sent {
            Ok(()) => {
                self.complaints.right(SENDING);
                true
            }
            Err(e) => {
                // The deconfig script, which runs beside this, may be about to bring the interface
                // up.
                let awaited = e.kind() == io::ErrorKind::NetworkDown && !self.sink.is_idle();
                if !awaited {
                    // The kernel's word for a link without carrier (packet(7)).
                    let hint = if e.raw_os_error() == Some(Errno::ENOBUFS as i32) { ": no link?" } else { "" };
                    self.log.wrong(&mut self.complaints, SENDING, &format!("can't send: {e}{hint}"));
                }
                false
            }
        }
    }
}

/// As for the original, a pidfile that cannot be written is no reason to have no address.
fn write_pidfile(pidfile: &Pidfile, log: &Log) {
    if let Err(e) = pidfile.write() {
        log.info(format_args!("no pidfile: {e}"));
    }
}

/// The own record of before a crash. Anything wrong with it: there is none.
fn read_resume(dir: &Path, name: &str, context: &Context) -> Option<Resume> {
    let records = ipconf::read(dir, &dir.join(format!("{name}.ipconf"))).ok()?;
    record::resume(records.first()?, &context.interface, &context.boot_id, clock::now())
}

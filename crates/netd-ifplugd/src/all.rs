//! The shell of --all: hears of links, addresses, routes, rules and fw's nft table, steps the
//! machine, compares the kernel with what fw left, and tells fw.
//!
//! One process for all interfaces. What is decided, follow.rs decides; what counts as a difference,
//! netd_core::left. Nothing is polled: with nothing happening it sleeps. Called by `lib`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use netd::cage::{self, Capability, Files, Needs, Socket};
use netd::clock::{self, Timer};
use netd::daemon::{Complaints, Log, Signal, Signals};
use netd::directory::DirectoryWatch;
use netd::netlink::{Heard, NETFILTER, Netlink, ROUTE, Watch, unless_refused};
use netd::{sink, table};
use netd_core::left::{self, Left, PROTOCOL, PROTOCOL_KERNEL, Seen, TABLE_MAIN};
use netd_core::wire::link;
use netd_core::wire::netlink::{
    self, DEL_ADDRESS, DEL_LINK, DEL_ROUTE, DEL_RULE, DUMP, GET_ADDRESS, GET_ROUTE, GET_RULE, Header, Message,
    NEW_ADDRESS, NEW_LINK, NEW_ROUTE, NEW_RULE, NLM_F_REPLACE,
};
use netd_core::wire::rtnetlink::{
    self, AddressFamily, AddressMessage, RouteMessage, RouteProtocol, RouteType, RuleMessage,
};
use nix::libc;

use crate::cli::Options;
use crate::follow::{Action, Event, Follow, Found};

/// The groups of rtnetlink(7) that tell of objects of the kinds that fw makes.
const GROUPS: [u32; 7] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_ROUTE,
    libc::RTNLGRP_IPV4_RULE,
    libc::RTNLGRP_IPV6_RULE,
];
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];
/// Held by fw as long as it runs.
const LOCK: &str = ".lock";

const OVERRUN: &str = "the kernel's messages have overflowed";
const DEFAULT_ROUTE: &str = "a default route of another program has come or gone";
/// Keys of [`Complaints`].
const TELLING: &str = "telling";
const LOOKING: &str = "looking";

struct Daemon<'a> {
    options: &'a Options,
    log: &'a Log,
    machine: Follow,
    left: Option<Left>,
    route: Netlink,
    /// None: this kernel has no nftables.
    netfilter: Option<Netlink>,
    complaints: Complaints,
}

/// Something that ended the wait.
enum Woken {
    Stop,
    Route(io::Result<Heard>),
    Table(io::Result<Heard>),
    Ran(io::Result<()>),
    Tick(io::Result<()>),
}

/// Watches until a signal ends it; the result is the exit code.
pub(crate) async fn run(options: &Options, log: &Log) -> io::Result<u8> {
    let mut signals = Signals::new(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT])?;
    let mut routes = Watch::open(&GROUPS)?;
    // Without nftables, or CAP_NET_ADMIN, the rest is watched all the same.
    let mut tables = Watch::open_netfilter(&[table::GROUP]).ok();
    let mut directory = DirectoryWatch::open(&options.dynamic)?;
    let (route, netfilter) = (Netlink::open(ROUTE)?, Netlink::open(NETFILTER).ok());
    let mut timer = Timer::new()?;
    if options.cage {
        cage::enter(&needs(options), log);
    }
    let (machine, complaints) = (Follow::new(clock::now()), Complaints::default());
    let mut daemon = Daemon { options, log, machine, left: None, route, netfilter, complaints };
    daemon.left = daemon.read_left();
    loop {
        timer.set(daemon.machine.deadline())?;
        let woken = tokio::select! {
            biased;
            _ = signals.next() => Woken::Stop,
            ran = directory.changed(|name| name == LOCK) => Woken::Ran(ran),
            heard = heard(tables.as_mut()) => Woken::Table(heard),
            heard = routes.heard() => Woken::Route(heard),
            expired = timer.expired() => Woken::Tick(expired),
        };
        let event = match woken {
            Woken::Stop => return Ok(0),
            Woken::Ran(ran) => {
                ran?;
                daemon.left = daemon.read_left();
                Some(Event::Ran)
            }
            Woken::Table(heard) => table_event(heard?, tables.as_ref().map(Watch::datagram)),
            Woken::Route(heard) => match heard? {
                Heard::Datagram => daemon.events(routes.datagram()),
                Heard::Overrun => Some(Event::Owed(OVERRUN)),
            },
            Woken::Tick(expired) => expired.map(|()| Some(Event::Tick))?,
        };
        if let Some(event) = event {
            daemon.step(event);
        }
    }
}

/// What is used after the start: fw's files are read, and fw is told.
fn needs(options: &Options) -> Needs {
    Needs {
        // The kernel shows the tables of nftables to a process with this one alone.
        capabilities: vec![Capability::NetAdmin],
        sockets: vec![Socket::Netlink],
        files: vec![Files::ReadOnly(options.dynamic.clone()), Files::Service(options.notify.clone())],
        background: false,
    }
}

async fn heard(watch: Option<&mut Watch>) -> io::Result<Heard> {
    match watch {
        Some(watch) => watch.heard().await,
        None => std::future::pending().await,
    }
}

/// Only what is about fw's table counts.
fn table_event(heard: Heard, datagram: Option<&[u8]>) -> Option<Event> {
    let is_ours = match heard {
        Heard::Datagram => netlink::messages(datagram.unwrap_or_default()).any(|(_, payload)| table::is_ours(payload)),
        Heard::Overrun => true,
    };
    is_ours.then_some(Event::Table)
}

impl Daemon<'_> {
    fn step(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            for action in self.machine.step(clock::now(), event) {
                match action {
                    Action::Look => next = Some(Event::Looked(self.look())),
                    Action::Tell(reason) => self.tell(&reason),
                    Action::Slower => {
                        self.log.info("another program undoes what fw does: fw is told more and more rarely");
                    }
                }
            }
        }
    }

    fn tell(&mut self, reason: &str) {
        match sink::notify(&self.options.notify) {
            Ok(()) => {
                self.complaints.right(TELLING);
                self.log.info(format_args!("{reason}: fw is told"));
            }
            Err(e) => self.log.wrong(&mut self.complaints, TELLING, &format!("{reason}: unable to tell fw: {e}")),
        }
    }

    fn read_left(&self) -> Option<Left> {
        Left::parse(&fs::read_to_string(self.options.dynamic.join(left::FILE)).ok()?)
    }

    /// The most urgent of what a datagram tells.
    fn events(&self, datagram: &[u8]) -> Option<Event> {
        let events: Vec<Event> =
            netlink::messages(datagram).filter_map(|(h, payload)| self.event(&h, payload)).collect();
        let owed = events.iter().find(|event| matches!(event, Event::Owed(_)));
        owed.or(events.first()).cloned()
    }

    /// What a message means here, by its fixed part where that is enough: a machine may have many
    /// thousand routes of other programs.
    fn event(&self, header: &Header, payload: &[u8]) -> Option<Event> {
        let Some(left) = &self.left else { return Some(Event::Stirred) };
        let concerns = match header.kind {
            NEW_LINK => link::link(payload).is_some_and(|l| left.is_news(&l.name, l.ifindex, l.admin_up)),
            DEL_LINK => link_index(payload).is_some_and(|index| left.is_about(None, index)),
            NEW_ADDRESS | DEL_ADDRESS => {
                rtnetlink::address_index(payload).is_none_or(|index| left.is_about(None, index))
            }
            NEW_ROUTE | DEL_ROUTE => return route_event(header, payload),
            NEW_RULE | DEL_RULE => true,
            _ => false,
        };
        concerns.then_some(Event::Stirred)
    }

    /// Compares, while fw is kept from running: it waits for a millisecond.
    fn look(&mut self) -> Found {
        let dynamic = &self.options.dynamic;
        let lock = match File::open(dynamic.join(LOCK)) {
            Ok(lock) => lock,
            // fw has not run yet.
            Err(_) => return Found::Same,
        };
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Found::Busy,
            Err(TryLockError::Error(e)) => {
                self.log.wrong(&mut self.complaints, LOOKING, &format!("unable to lock {LOCK}: {e}"));
            }
        }
        self.left = self.read_left();
        if let Some(what) = self.table_difference(&dynamic.join(table::FILE)) {
            return Found::Differs(what.to_owned());
        }
        let Some(left) = &self.left else { return Found::Same };
        match see(&mut self.route) {
            Ok(seen) => {
                self.complaints.right(LOOKING);
                left.difference(&seen).map_or(Found::Same, Found::Differs)
            }
            Err(e) => {
                self.log.wrong(&mut self.complaints, LOOKING, &format!("unable to read the kernel's state: {e}"));
                Found::Same
            }
        }
    }

    fn table_difference(&mut self, file: &Path) -> Option<&'static str> {
        let text = fs::read_to_string(file).ok()?;
        let before = u64::from_str_radix(text.lines().next()?, 16).ok()?;
        let now = table::fingerprint(self.netfilter.as_mut()?).ok()?;
        (before != now).then_some(match now == table::none() {
            true => "another program has deleted the firewall's table",
            false => "another program has changed the firewall's table",
        })
    }
}

/// The index of an interface that has gone; none when a bridge tells of one of its ports.
fn link_index(payload: &[u8]) -> Option<u32> {
    link::fixed(payload).map(|(index, _)| index)
}

/// fw's routes count, and those that the kernel makes for addresses. A default route of another
/// program makes an uplink. One that took the place of another may have taken fw's.
fn route_event(header: &Header, payload: &[u8]) -> Option<Event> {
    let route = rtnetlink::route_header(payload)?;
    match u8::from(route.protocol) {
        PROTOCOL | PROTOCOL_KERNEL => Some(Event::Stirred),
        _ if route.kind != RouteType::Unicast => None,
        _ if route.destination_prefix_length == 0 && u32::from(route.table) == TABLE_MAIN => {
            Some(Event::Owed(DEFAULT_ROUTE))
        }
        _ => (header.flags & NLM_F_REPLACE != 0).then_some(Event::Stirred),
    }
}

/// What the kernel has now, of the kinds that count. A kernel that cannot filter by the maker of
/// routes shows all of them.
fn see(netlink: &mut Netlink) -> io::Result<Seen> {
    let mut seen = Seen::default();
    for (_, payload) in netlink.dump(&link::dump())? {
        if let Some(link) = link::link(&payload) {
            seen.link(&link.name, link.ifindex, link.admin_up);
        }
    }
    let addresses = netlink.dump(&Message::of(GET_ADDRESS, DUMP, &AddressMessage::default()))?;
    addresses.iter().for_each(|(_, payload)| seen.address(payload));
    for (family, protocol) in FAMILIES.into_iter().flat_map(|family| [(family, PROTOCOL), (family, PROTOCOL_KERNEL)]) {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.protocol = RouteProtocol::from(protocol);
        let routes = unless_refused(netlink.dump(&Message::of(GET_ROUTE, DUMP, &message)))?;
        let is_asked =
            |payload: &[u8]| rtnetlink::route_header(payload).is_some_and(|r| u8::from(r.protocol) == protocol);
        routes.iter().filter(|(_, payload)| is_asked(payload)).for_each(|(_, payload)| seen.route(payload));
    }
    let rules = unless_refused(netlink.dump(&Message::of(GET_RULE, DUMP, &RuleMessage::default())))?;
    rules.iter().for_each(|(_, payload)| seen.rule(payload));
    Ok(seen)
}

//! What goes into the machine and what comes out of it: configuration, events, actions.
//!
//! Pure data. client.rs turns the one into the other; daemon.rs performs; notice.rs words a
//! `Change` for the handler.

use std::net::Ipv4Addr;
use std::time::Duration;

use netd_core::acd::Timing;
use netd_core::wire::arp::Arp;

use crate::message::{Outgoing, Reply};
use crate::schedule::Schedule;

/// How the client is to behave; from the command line.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// When to send what.
    pub schedule: Schedule,
    /// `-r`: an address to ask for.
    pub requested: Option<Ipv4Addr>,
    /// The own record of before a crash.
    pub resume: Option<Resume>,
    /// `--state`: an address that was ours once, to be asked for first.
    pub remembered: Option<Ipv4Addr>,
    /// `-n`: exit 1 when the first cycle fails.
    pub exit_on_failure: bool,
    /// `-b`: go to the background when the first cycle fails.
    pub background_on_failure: bool,
    /// `-q`: exit 0 when bound.
    pub quit: bool,
    /// `-f` is not given: go to the background when bound.
    pub background_when_bound: bool,
    /// `-R`: release at the end.
    pub release: bool,
    /// `--ipconf`: the lease is a record.
    pub native: bool,
    /// `-a`, `--acd`: whether, and how, to check that no other host has the address.
    pub acd: Option<Timing>,
    /// `--rapid-commit`: a server may acknowledge at once (RFC 4039).
    pub rapid_commit: bool,
    /// `--ipv6-only`: an offer that says that IPv6 is enough is not taken (RFC 8925).
    pub ipv6_only: bool,
    /// `--anonymous`: no address of before is asked for (RFC 7844).
    pub anonymous: bool,
    /// Our Ethernet address; only conflict detection needs it.
    pub mac: [u8; 6],
}

/// An address that was ours when the last process died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The address.
    pub ip: Ipv4Addr,
    /// Its server, or 0.0.0.0.
    pub server_id: Ipv4Addr,
    /// Time since boot when it ends.
    pub end: Duration,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The beginning.
    Start,
    /// The deadline may have passed.
    Timer,
    /// A decoded reply, and the Ethernet address that it came from.
    Reply(Box<Reply>, [u8; 6]),
    /// A reply came that is not looked at: why, in words for the log.
    Refused(String),
    /// A script has ended: it may have brought the interface up.
    ScriptEnded,
    /// No script runs or waits.
    Idle,
    /// The link has a carrier. Where it was not lost before, that means nothing.
    Carrier,
    /// The carrier is away, or the interface.
    CarrierLost,
    /// USR1.
    Renew,
    /// USR2.
    Release,
    /// TERM.
    Stop,
    /// The interface has gone.
    Gone,
    /// The last message could not be sent, so no server heard it.
    Unsent,
    /// An ARP message that the filter for the watched address let through.
    Arp(Arp),
    /// The interface has another Ethernet address now.
    Mac([u8; 6]),
}

/// The effects, in the order in which the shell performs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(Outgoing, Destination),
    /// Send this: to its target's Ethernet address where it names one, to everybody where it does
    /// not.
    SendArp(Arp),
    /// Listen to this ARP, and to no other.
    Watch(Watch),
    /// Tell the handler.
    Tell(Change),
    /// A line for the log.
    Log(String),
    /// A line for the log with `-v`.
    Debug(String),
    /// Go to the background, now: no script runs.
    Background,
    /// End, now.
    Exit(u8),
}

/// Which ARP concerns us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// None.
    Nothing,
    /// What may be a conflict about this address.
    Address(Ipv4Addr),
    /// The same, and what this station says.
    Answers {
        /// Our address.
        ip: Ipv4Addr,
        /// The station's.
        from: Ipv4Addr,
    },
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To all stations on the link.
    Broadcast,
    /// From our address to the server.
    Server {
        /// Our address.
        from: Ipv4Addr,
        /// The server's address.
        to: Ipv4Addr,
        /// Who handed us the lease on the link: the server or its relay.
        mac: [u8; 6],
        /// By the kernel's routes, if it has any, and not by `mac`.
        routed: bool,
    },
}

/// A change that the handler hears of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is no address.
    Deconfig,
    /// No server answers.
    LeaseFail,
    /// A server refused.
    Nak(Box<Reply>),
    /// A new lease.
    Bound(Box<Grant>),
    /// A longer lease.
    Renew(Box<Grant>),
    /// The daemon ends: the record is removed, and a script is not run.
    Stop,
}

/// A lease in words for the handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The address.
    pub ip: Ipv4Addr,
    /// Its server.
    pub server_id: Ipv4Addr,
    /// Time since boot when it ends; an infinite lease ends in 136 years.
    pub end: Duration,
    /// All that the server said.
    pub reply: Reply,
}

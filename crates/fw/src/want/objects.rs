//! What the kernel should have: links, addresses, routes and switches as the records and fw.conf
//! ask for them.
//!
//! Pure data. The files beside this one fill it, ways.rs and plan.rs read it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netd_core::net::{AddrGen, Mac, VlanId};

use crate::model::{Prefix, Scope, Sysctl};
use crate::record::Entry;

use super::forwards::Openings;
use super::zones::Zones;

/// Which record asks for an object, and by which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// An administrator's, not a daemon's.
    pub is_static: bool,
    /// File and line of the record.
    pub place: String,
    /// The key.
    pub key: &'static str,
    /// The line of the key; 0: the record was not read from a file.
    pub line: usize,
}

impl Origin {
    /// This record.
    pub fn of(entry: &Entry) -> Origin {
        Origin::by(entry, "if")
    }

    /// This key of this record.
    pub fn by(entry: &Entry, key: &'static str) -> Origin {
        let line = entry.lines.iter().find(|(name, _)| *name == key).map_or(0, |(_, line)| *line);
        Origin { is_static: entry.is_static, place: entry.origin.clone(), key, line }
    }

    /// The file.
    pub fn file(&self) -> &str {
        self.place.rsplit_once(':').map_or(&self.place, |(file, _)| file)
    }
}

impl fmt::Display for Origin {
    /// File and line of the key, and the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{} {}", self.place, self.key),
            line => write!(f, "{}:{line} {}", self.file(), self.key),
        }
    }
}

/// An address that an interface should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantAddress {
    /// Interface.
    pub interface: String,
    /// Address and prefix length.
    pub address: Prefix,
    /// IPv4 broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// Scope.
    pub scope: Scope,
    /// How long it stays valid from now on, in whole seconds; `None`: for ever.
    pub lifetime: Option<Duration>,
    /// The kernel shall make the prefix route itself: it then comes back with the link. fw makes
    /// those of uplinks.
    pub kernel_prefix_route: bool,
    /// Who asks for it.
    pub origin: Origin,
}

/// A route that should be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantRoute {
    /// Interface.
    pub interface: String,
    /// Destination.
    pub destination: Prefix,
    /// Router; `None`: on the link.
    pub gateway: Option<IpAddr>,
    /// The router need not be inside a prefix of the interface (RTNH_F_ONLINK).
    pub onlink: bool,
    /// Metric.
    pub metric: u32,
    /// Routing table.
    pub table: u32,
    /// Scope; not compared for IPv6.
    pub scope: Scope,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// It is the prefix route of an address in the same `Want`.
    pub is_prefix_route: bool,
    /// It leads nowhere: without a better route a packet is refused here.
    pub unreachable: bool,
    /// Who asks for it.
    pub origin: Origin,
}

/// A value, and the record that asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked<T> {
    /// The value.
    pub value: T,
    /// Who asks for it.
    pub origin: Origin,
}

/// A kind of links that fw makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantKind {
    /// A bridge. Its ports say so themselves: [`WantLink::master`].
    Bridge,
    /// A VLAN.
    Vlan {
        /// The interface that carries it.
        parent: String,
        /// Its number.
        id: VlanId,
    },
}

/// A link that should be in this state. Links that are not named here are left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantLink {
    /// Interface.
    pub interface: String,
    /// It has to be up.
    pub up: bool,
    /// Not larger than this, in bytes.
    pub mtu: Option<u32>,
    /// The MTU may be above the link's own: an administrator has asked for one.
    pub raises: bool,
    /// A lease is there: it has the last word about an MTU that a lease before it has lowered.
    pub leased: bool,
    /// The first record that names it.
    pub origin: Origin,
    /// The record that asks for the MTU.
    pub mtu_origin: Option<Origin>,
    /// What it is; such a link is made.
    pub kind: Option<Asked<WantKind>>,
    /// The bridge of which it is a port.
    pub master: Option<Asked<String>>,
    /// Ethernet address.
    pub mac: Option<Asked<Mac>>,
    /// How the kernel makes IPv6 addresses for it.
    pub addr_gen: Option<Asked<AddrGen>>,
    /// Its records contradict each other: it is neither made nor removed, and stays a port of what
    /// it is a port of.
    pub frozen: bool,
}

impl WantLink {
    /// A link of which nothing is asked yet.
    pub fn new(interface: &str, origin: Origin) -> WantLink {
        WantLink {
            interface: interface.to_owned(),
            up: false,
            mtu: None,
            raises: false,
            leased: false,
            origin,
            mtu_origin: None,
            kind: None,
            master: None,
            mac: None,
            addr_gen: None,
            frozen: false,
        }
    }

    /// It should be a bridge.
    pub fn is_bridge(&self) -> bool {
        self.kind.as_ref().is_some_and(|kind| kind.value == WantKind::Bridge)
    }

    /// The interface that should carry it, a VLAN.
    pub fn parent(&self) -> Option<&str> {
        match &self.kind.as_ref()?.value {
            WantKind::Vlan { parent, .. } => Some(parent),
            WantKind::Bridge => None,
        }
    }
}

/// Hosts that leave by these uplinks alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The host, or its network.
    pub source: Prefix,
    /// The first one that works is used.
    pub uplinks: Vec<String>,
}

/// What the records and fw.conf ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// Interfaces, in record order.
    pub links: Vec<WantLink>,
    /// Addresses, in record order.
    pub addresses: Vec<WantAddress>,
    /// Routes, prefix routes before those that need them.
    pub routes: Vec<WantRoute>,
    /// Kernel switches.
    pub sysctls: Vec<Sysctl>,
    /// Interfaces that lead outside, in order of preference.
    pub uplinks: Vec<String>,
    /// The number of each of them, which it keeps.
    pub numbers: Vec<(String, u8)>,
    /// The firewall marks connections from outside with them.
    pub marks: bool,
    /// The uplinks that go behind the others, because a record calls them bad.
    pub bad: Vec<String>,
    /// Who leaves by chosen uplinks (route_by).
    pub routed: Vec<Routed>,
    /// How many of all new connections go by each uplink, of those that work (balance).
    pub balance: Vec<(String, u32)>,
    /// Connections stay with a healthy uplink when a better one is back (failback).
    pub stay: bool,
    /// Uplinks where each packet costs: connections leave them as soon as they can.
    pub metered: Vec<String>,
    /// What is inside and what is outside.
    pub zones: Zones,
    /// The interfaces that are outside, by name.
    pub external: Vec<String>,
    /// What is open of hosts behind this machine.
    pub openings: Openings,
    /// What the administrator should know.
    pub notes: Vec<String>,
    /// Foreign addresses and routes are to be removed (`reset_all_netdevs`).
    pub reset: bool,
    /// Static records that contradict each other, with their places: the run fails in the end.
    pub errors: Vec<String>,
}

impl Want {
    /// Changes the wish for this link, which is a new one when there is none yet.
    pub(super) fn edit_link(&mut self, name: &str, origin: &Origin, change: impl FnOnce(&mut WantLink)) {
        match self.links.iter_mut().find(|l| l.interface == name) {
            Some(link) => change(link),
            None => {
                let mut link = WantLink::new(name, origin.clone());
                change(&mut link);
                self.links.push(link);
            }
        }
    }
}

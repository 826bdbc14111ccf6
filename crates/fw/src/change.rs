//! A change: one write to the kernel, its order among the others, its text in `fw plan` and in
//! messages.
//!
//! Pure. plan.rs and ways.rs make changes, kernel.rs applies them.

use std::fmt;

use netd_core::net::{AddrGen, Mac};
use nix::errno::Errno;

use crate::have::{Address, Link, Route, Rule};
use crate::model::{Sysctl, TABLE_MAIN};

/// One write to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write a switch below /proc/sys.
    Sysctl(Sysctl),
    /// Make a link: a bridge or a VLAN.
    AddLink {
        /// The link as it will be.
        link: Link,
        /// Name of the link that carries a VLAN, for messages.
        parent: String,
    },
    /// Delete a link that fw has made.
    DelLink {
        /// Kernel's number.
        index: u32,
        /// Name, for messages.
        name: String,
    },
    /// Make a link a port of a bridge, or of none.
    LinkMaster {
        /// Kernel's number.
        index: u32,
        /// Name, for messages.
        name: String,
        /// Kernel's number of the bridge; 0: none.
        master: u32,
        /// Name of the bridge, for messages.
        bridge: String,
        /// The group that it gets, if it gets another one.
        group: Option<u32>,
    },
    /// Set a link's Ethernet address.
    LinkMac {
        /// Kernel's number.
        index: u32,
        /// Name, for messages.
        name: String,
        /// The address.
        mac: Mac,
    },
    /// Set how the kernel makes a link's IPv6 addresses.
    LinkAddrGen {
        /// Kernel's number.
        index: u32,
        /// Name, for messages.
        name: String,
        /// The mode.
        mode: AddrGen,
    },
    /// Tell a link the neighbours that another one knows: what leaves by it need not wait for an
    /// answer, which would come in by the other one as long as the one is a port of the other.
    Neighbours {
        /// Kernel's number of the link that knows them.
        from: u32,
        /// Kernel's number of the link that is told.
        index: u32,
        /// The names of both, for messages.
        names: [String; 2],
    },
    /// Set a link's MTU.
    LinkMtu {
        /// Kernel's number.
        index: u32,
        /// Name, for messages.
        name: String,
        /// Bytes.
        mtu: u32,
    },
    /// Set a link up.
    LinkUp {
        /// Kernel's number.
        index: u32,
        /// Name, for messages.
        name: String,
    },
    /// Add an address.
    AddAddress(String, Address),
    /// Give an address of ours a new lifetime.
    RefreshAddress(String, Address),
    /// Add a route.
    AddRoute(String, Route),
    /// Put a route of ours into the place of another one with the same destination and metric.
    ReplaceRoute(String, Route),
    /// Delete a route.
    DelRoute(String, Route),
    /// Add a rule.
    AddRule(Rule),
    /// Delete a rule.
    DelRule(Rule),
    /// Delete an address.
    DelAddress(String, Address),
}

impl Change {
    /// The kernel's number of the interface that it is about; 0 for a route over several.
    pub fn index(&self) -> Option<u32> {
        match self {
            Change::LinkMtu { index, .. }
            | Change::LinkUp { index, .. }
            | Change::DelLink { index, .. }
            | Change::LinkMaster { index, .. }
            | Change::Neighbours { index, .. }
            | Change::LinkMac { index, .. }
            | Change::LinkAddrGen { index, .. } => Some(*index),
            Change::AddAddress(_, a) | Change::RefreshAddress(_, a) | Change::DelAddress(_, a) => Some(a.index),
            Change::AddRoute(_, r) | Change::ReplaceRoute(_, r) | Change::DelRoute(_, r) => Some(r.index),
            // A link that is yet to be made is missing on no account.
            Change::Sysctl(_) | Change::AddLink { .. } | Change::AddRule(_) | Change::DelRule(_) => None,
        }
    }

    /// Whether the driver has refused another Ethernet address because the link is up.
    pub fn waits_for_down(&self, errno: Errno) -> bool {
        matches!(self, Change::LinkMac { .. }) && errno == Errno::EBUSY
    }

    /// The route, when it is about one.
    pub fn route(&self) -> Option<&Route> {
        match self {
            Change::AddRoute(_, r) | Change::ReplaceRoute(_, r) | Change::DelRoute(_, r) => Some(r),
            Change::Sysctl(_)
            | Change::AddLink { .. }
            | Change::DelLink { .. }
            | Change::LinkMaster { .. }
            | Change::LinkMac { .. }
            | Change::LinkAddrGen { .. }
            | Change::Neighbours { .. }
            | Change::LinkMtu { .. }
            | Change::LinkUp { .. }
            | Change::AddAddress(..)
            | Change::RefreshAddress(..)
            | Change::DelAddress(..)
            | Change::AddRule(_)
            | Change::DelRule(_) => None,
        }
    }
}

impl Change {
    /// The order in which routes are made; deletions go the other way. Routes on the link come
    /// first, because a router must be reachable before a route goes through it. Default routes
    /// come last, so that all else is ready when the packets turn.
    pub fn stage(&self) -> u8 {
        self.route().map_or(0, |r| u8::from(r.gateway.is_some()) + u8::from(r.destination.is_default()))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Sysctl(s) => write!(f, "~ sysctl {}={}", s.path, s.value),
            Change::AddLink { link, parent } => match link.vlan {
                Some(id) => write!(f, "+ link {} vlan {id} link {parent}", link.name),
                None => write!(f, "+ link {} bridge", link.name),
            },
            Change::DelLink { name, .. } => write!(f, "- link {name}"),
            Change::LinkMaster { name, bridge, .. } => match bridge.as_str() {
                "" => write!(f, "~ link {name} nomaster"),
                bridge => write!(f, "~ link {name} master {bridge}"),
            },
            Change::Neighbours { names: [from, name], .. } => write!(f, "~ link {name} knows the neighbours of {from}"),
            Change::LinkMac { name, mac, .. } => write!(f, "~ link {name} mac {mac}"),
            Change::LinkAddrGen { name, mode, .. } => write!(f, "~ link {name} addr_gen {mode}"),
            Change::LinkMtu { name, mtu, .. } => write!(f, "~ link {name} mtu {mtu}"),
            Change::LinkUp { name, .. } => write!(f, "~ link {name} up"),
            Change::AddAddress(name, a) => write!(f, "+ address {}", show_address(name, a)),
            Change::RefreshAddress(name, a) => write!(f, "~ address {}", show_address(name, a)),
            Change::DelAddress(name, a) => write!(f, "- address {} dev {name}", a.address),
            Change::AddRoute(name, r) => write!(f, "+ route {}", show_route(name, r)),
            Change::ReplaceRoute(name, r) => write!(f, "~ route {}", show_route(name, r)),
            Change::DelRoute(name, r) => write!(f, "- route {}", show_route(name, r)),
            Change::AddRule(r) => write!(f, "+ rule {r}"),
            Change::DelRule(r) => write!(f, "- rule {r}"),
        }
    }
}

fn show_address(name: &str, a: &Address) -> String {
    let lifetime = a.lifetime.map_or_else(|| "forever".to_owned(), |d| format!("{}sec", d.as_secs()));
    format!("{} dev {name} valid_lft {lifetime}", a.address)
}

/// A route as ip(8) writes it.
pub fn show_route(name: &str, r: &Route) -> String {
    let mut out = if r.destination.is_default() && r.destination.ip.is_ipv4() {
        "default".to_owned()
    } else {
        r.destination.to_string()
    };
    if let Some(gateway) = r.gateway {
        out += &format!(" via {gateway}");
    }
    match r.unicast {
        true => out += &format!(" dev {name} metric {}", r.metric),
        false => out = format!("unreachable {out} metric {}", r.metric),
    }
    if let Some(source) = r.source {
        out += &format!(" src {source}");
    }
    if r.table != TABLE_MAIN {
        out += &format!(" table {}", r.table);
    }
    if r.onlink {
        out += " onlink";
    }
    out
}

/// The routes as they will be after the changes. Routes that the kernel removes together with an
/// address are still in the list.
pub fn routes_after(routes: &[Route], changes: &[Change]) -> Vec<Route> {
    let mut out = routes.to_vec();
    for change in changes {
        match change {
            Change::AddRoute(_, r) => out.push(r.clone()),
            Change::ReplaceRoute(_, r) => {
                out.retain(|o| o.key() != r.key());
                out.push(r.clone());
            }
            Change::DelRoute(_, r) => out.retain(|o| !o.is_same(r)),
            Change::Sysctl(_)
            | Change::AddLink { .. }
            | Change::DelLink { .. }
            | Change::LinkMaster { .. }
            | Change::LinkMac { .. }
            | Change::LinkAddrGen { .. }
            | Change::Neighbours { .. }
            | Change::LinkMtu { .. }
            | Change::LinkUp { .. }
            | Change::AddAddress(..)
            | Change::RefreshAddress(..)
            | Change::DelAddress(..)
            | Change::AddRule(_)
            | Change::DelRule(_) => {}
        }
    }
    out
}

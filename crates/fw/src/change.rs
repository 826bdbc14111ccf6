//! A change: one write to the kernel, its order among the others, its text in `fw plan` and in
//! messages.
//!
//! Pure. plan.rs and ways.rs make changes, kernel.rs applies them.

use std::fmt;

use crate::have::{Address, Route, Rule};
use crate::model::{Sysctl, TABLE_MAIN};

/// One write to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write a switch below /proc/sys.
    Sysctl(Sysctl),
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
            Change::LinkMtu { index, .. } | Change::LinkUp { index, .. } => Some(*index),
            Change::AddAddress(_, a) | Change::RefreshAddress(_, a) | Change::DelAddress(_, a) => Some(a.index),
            Change::AddRoute(_, r) | Change::ReplaceRoute(_, r) | Change::DelRoute(_, r) => Some(r.index),
            Change::Sysctl(_) | Change::AddRule(_) | Change::DelRule(_) => None,
        }
    }

    /// The route, when it is about one.
    pub fn route(&self) -> Option<&Route> {
        match self {
            Change::AddRoute(_, r) | Change::ReplaceRoute(_, r) | Change::DelRoute(_, r) => Some(r),
            Change::Sysctl(_)
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

//! Hosts behind this machine that the outside may reach: what the firewall needs to know of
//! `port_forward` and `open6` beside the words themselves.
//!
//! Pure. Called by want.rs; firewall/forwards.rs renders it.

use std::net::{IpAddr, Ipv4Addr};

use crate::input::policy::Policy;
use crate::input::policy::forwards::{Forward, Host};
use crate::model::{Prefix, is_link_local};

use super::Want;

/// An interface that is declared inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Side {
    /// Its name.
    pub interface: String,
    /// Its zone may go outside.
    pub goes_outside: bool,
}

/// What the firewall opens for hosts behind this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openings {
    /// Port forwards.
    pub forwards: Vec<Forward>,
    /// Open IPv6 hosts.
    pub hosts: Vec<Host>,
    /// This machine's own inside addresses. Their ports are its own.
    pub own: Vec<Ipv4Addr>,
    /// Inside interfaces whose zone may go outside: what is open there is open to them.
    pub served: Vec<String>,
    /// IPv4 networks behind inside interfaces. A host there that asks a host behind the same
    /// interface would get the answer from that host itself.
    pub near: Vec<(String, Prefix)>,
    /// Inside networks that a target is in. Packets to it never leave by an uplink.
    pub targets: Vec<Prefix>,
}

/// The openings, and what the administrator should know about them.
pub(super) fn openings(policy: &Policy, inside: &[Side], want: &Want) -> (Openings, Vec<String>) {
    let asked = &policy.forwards;
    if asked.ports.is_empty() && asked.hosts.is_empty() {
        return (Openings::default(), Vec::new());
    }
    let off = [("firewall", policy.firewall), ("forward", policy.forward)];
    if let Some((word, _)) = off.iter().find(|(_, on)| !on) {
        let note = format!("fw.conf: port_forward and open6 do nothing beside {word}=\"no\"");
        return (Openings::default(), vec![note]);
    }
    let mut out = Openings::default();
    for side in inside {
        out.own
            .extend(want.addresses.iter().filter(|a| a.interface == side.interface).filter_map(|a| v4(a.address.ip)));
        out.near.extend(
            networks(want, &side.interface).into_iter().filter(|n| n.ip.is_ipv4()).map(|n| (side.interface.clone(), n)),
        );
        out.served.extend(Some(side.interface.clone()).filter(|_| side.goes_outside));
    }
    let notes = [ports(policy, &mut out), hosts(policy, inside, want, &mut out)].concat();
    (out, notes)
}

fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// The networks behind an interface: its own, and those of its routes.
pub fn networks(want: &Want, interface: &str) -> Vec<Prefix> {
    let own = want.addresses.iter().filter(|a| a.interface == interface).map(|a| a.address.network());
    let routes = want.routes.iter().filter(|r| r.interface == interface).map(|r| r.destination);
    let mut out: Vec<Prefix> = own.chain(routes).filter(|n| !n.is_default() && !is_link_local(n.ip)).collect();
    applet::sort::sort(&mut out);
    out.dedup();
    out
}

fn ports(policy: &Policy, out: &mut Openings) -> Vec<String> {
    let asked = &policy.forwards;
    let mut notes = Vec::new();
    for forward in &asked.ports {
        let target = IpAddr::V4(forward.target);
        let place = format!("fw.conf:{}: port_forward {}", asked.ports_line, forward.word);
        let behind = out.near.iter().map(|(_, network)| *network).filter(|n| n.contains(target));
        match behind.max_by_key(|network| network.len) {
            _ if out.own.contains(&forward.target) => {
                notes.push(format!("{place}: {target} is this machine itself, whose ports ext_open opens"));
            }
            Some(network) => out.targets.push(network),
            None => notes.push(format!("{place}: {target} is in no network behind an inside interface")),
        }
        out.forwards.push(forward.clone());
    }
    applet::sort::sort(&mut out.targets);
    out.targets.dedup();
    notes
}

fn hosts(policy: &Policy, inside: &[Side], want: &Want, out: &mut Openings) -> Vec<String> {
    let asked = &policy.forwards;
    let mut notes = Vec::new();
    for host in &asked.hosts {
        let place = format!("fw.conf:{}: open6 {}", asked.hosts_line, host.word);
        let name = &host.interface;
        if want.external.contains(name) {
            notes.push(format!("{place}: {name} is outside: left out"));
            continue;
        }
        if !inside.iter().any(|side| side.interface == *name) {
            notes.push(format!("{place}: no record declares {name} inside"));
        }
        out.hosts.push(host.clone());
    }
    notes
}

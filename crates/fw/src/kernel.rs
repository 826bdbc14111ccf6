//! The kernel's side of fw: a snapshot of what is there, and the application of a plan.
//!
//! Shell: netlink and /proc/sys, no decision. Every refused object is reported and the others are
//! still applied. Called by run.rs.

use std::fs;
use std::io;

use netd::cage::Capability;
use netd::netlink::{BATCH, Netlink, ROUTE, Refusal, unless_refused};
use netd_core::left::Seen;
use netd_core::wire::link;
use netd_core::wire::neighbour::{self, Neighbour};
use netd_core::wire::netlink::{Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netd_core::wire::rtnetlink::AddressFamily;
use nix::errno::Errno;

use crate::change::Change;
use crate::have::{Have, Link};
use crate::input::memory::Memory;
use crate::model::{PROTOCOL, Sysctl};
use crate::wire;

/// An open route socket.
pub struct Kernel {
    route: Netlink,
}

/// An object that the kernel did not take.
#[derive(Debug)]
pub struct Failure {
    /// The change.
    pub change: Change,
    /// The kernel's answer.
    pub refusal: Refusal,
}

impl Kernel {
    /// Opens the socket.
    pub fn open() -> io::Result<Kernel> {
        Netlink::open(ROUTE).map(|route| Kernel { route })
    }

    /// Everything that a plan is compared with, but the switches. On a kernel without IFA_PROTO the
    /// memory says which addresses are ours.
    pub fn snapshot(&mut self, memory: &Memory) -> io::Result<Have> {
        let links = self.links()?;
        let addresses = self.route.dump(&wire::dump_addresses())?;
        let mut routes = self.route.dump(&wire::dump_routes(AddressFamily::Inet))?;
        // A kernel without IPv6 refuses the dump.
        routes.extend(unless_refused(self.route.dump(&wire::dump_routes(AddressFamily::Inet6)))?);
        // Nor has every kernel of a small router rules.
        let rules = unless_refused(self.route.dump(&wire::dump_rules()))?;
        let mut seen = Seen::default();
        links.iter().for_each(|l| seen.link(&l.name, l.index, l.up));
        addresses.iter().for_each(|(_, payload)| seen.address(payload));
        routes.iter().for_each(|(_, payload)| seen.route(payload));
        rules.iter().for_each(|(_, payload)| seen.rule(payload));
        let mut have = Have {
            seen,
            links,
            addresses: addresses.iter().filter_map(|(_, p)| wire::decode_address(p)).collect(),
            routes: routes.iter().filter_map(|(_, p)| wire::decode_route(p)).collect(),
            rules: rules.iter().filter_map(|(_, p)| wire::decode_rule(p)).collect(),
            without_address_metric: !is_since(ADDRESS_METRIC),
            ..Have::default()
        };
        if !is_since(ADDRESS_PROTOCOL) {
            claim(&mut have, memory);
        }
        Ok(have)
    }

    /// Reads the switches that are wanted, and those that fw has set before: below /proc/sys where
    /// the links have not told them.
    pub fn read_switches(&self, wanted: &[Sysctl], memory: &Memory, have: &mut Have) {
        let past = memory.switches.iter().map(|s| &s.path);
        let mut paths: Vec<&String> = wanted.iter().map(|s| &s.path).chain(past).collect();
        applet::sort::sort(&mut paths);
        paths.dedup();
        have.sysctls = paths.into_iter().filter_map(|path| switch(path, have)).collect();
        if wanted.iter().any(|s| s.path.ends_with("/rp_filter")) {
            have.sysctls.extend(switch("net/ipv4/conf/all/rp_filter", have));
        }
    }

    fn links(&mut self) -> io::Result<Vec<Link>> {
        let links = self.route.dump(&wire::dump_links())?;
        Ok(links.iter().filter_map(|(_, payload)| wire::decode_link(payload)).collect())
    }

    /// Makes a change that is no single message. `None`: it is one.
    fn alone(&mut self, change: &Change) -> Option<io::Result<()>> {
        match change {
            Change::Sysctl(switch) => {
                Some(fs::write(format!("/proc/sys/{}", switch.path), format!("{}\n", switch.value)))
            }
            Change::Neighbours { from, index, .. } => Some(self.tell_neighbours(*from, *index)),
            _ => None,
        }
    }

    /// Sets Ethernet addresses that drivers have refused while the links were up: each link goes
    /// down for a moment, and the kernel takes its IPv4 routes and its IPv6 addresses away.
    pub fn set_macs_while_down(&mut self, macs: &[Change]) -> io::Result<()> {
        for change in macs {
            if let (Some(index), Some(set)) = (change.index(), encode(change)) {
                self.route.perform(vec![link::set_down(index), set, link::set_up(index)])?;
            }
        }
        Ok(())
    }

    /// What the kernel does not take it finds out by itself.
    fn tell_neighbours(&mut self, from: u32, to: u32) -> io::Result<()> {
        let known = self.route.dump(&neighbour::dump(from))?;
        let known = known.iter().filter_map(|(_, payload)| neighbour::decode(payload)).filter(|n| n.ifindex == from);
        let told = known.map(|known| neighbour::add(&Neighbour { ifindex: to, ..known })).collect();
        self.route.perform(told).map(drop)
    }

    /// Applies the changes in their order. `turned` is called when the last route change has been
    /// made, before anything else is waited for.
    pub fn apply(&mut self, changes: &[Change], turned: &mut dyn FnMut()) -> io::Result<Vec<Failure>> {
        let mut failures = Vec::new();
        let last_route = changes.iter().rposition(|c| c.route().is_some()).map(|at| at + 1);
        let mut turned = Some(turned);
        let (mut done, mut rest) = (0, changes);
        while let Some((first, others)) = rest.split_first() {
            if let Some(written) = self.alone(first) {
                failures.extend(written.err().map(|e| (first, Refusal::from_io(&e))));
                (done, rest) = (done + 1, others);
                continue;
            }
            let upto = last_route.and_then(|last| last.checked_sub(done)).filter(|left| *left > 0).unwrap_or(BATCH);
            let objects = rest.iter().take_while(|c| !is_alone(c)).count();
            let (chunk, others) = rest.split_at_checked(objects.min(upto).min(BATCH)).unwrap_or((rest, &[]));
            (done, rest) = (done + chunk.len(), others);
            let first = self.route.send_batch(chunk.iter().filter_map(encode))?;
            if Some(done) == last_route
                && let Some(turned) = turned.take()
            {
                turned();
            }
            let results = self.route.collect(first)?;
            failures.extend(chunk.iter().zip(results).filter_map(|(c, r)| Some((c, r.err()?))));
        }
        failures.retain(|(c, r)| !is_success(c, r.errno));
        if !failures.is_empty() {
            // An interface that has gone since we looked is missing, which is no failure.
            let there = self.links()?;
            failures.retain(|(c, _)| c.index().is_none_or(|i| i == 0 || there.iter().any(|l| l.index == i)));
        }
        Ok(failures.into_iter().map(|(c, refusal)| Failure { change: c.clone(), refusal }).collect())
    }
}

/// It is no single message.
fn is_alone(change: &Change) -> bool {
    matches!(change, Change::Sysctl(_) | Change::Neighbours { .. })
}

fn encode(change: &Change) -> Option<Message> {
    match change {
        Change::Sysctl(_) | Change::Neighbours { .. } => None,
        Change::AddLink { link, .. } => Some(wire::encode_link(link)),
        Change::DelLink { index, .. } => Some(link::delete(*index)),
        Change::LinkMaster { index, master, group, .. } => Some(link::set_master(*index, *master, *group)),
        Change::LinkMac { index, mac, .. } => Some(link::set_mac(*index, *mac)),
        Change::LinkAddrGen { index, mode, .. } => Some(link::set_addr_gen(*index, *mode)),
        Change::LinkMtu { index, mtu, .. } => Some(link::set_mtu(*index, *mtu)),
        Change::LinkUp { index, .. } => Some(link::set_up(*index)),
        Change::AddAddress(_, a) => Some(wire::encode_address(a, NLM_F_CREATE | NLM_F_EXCL)),
        Change::RefreshAddress(_, a) => Some(wire::encode_address(a, NLM_F_CREATE | NLM_F_REPLACE)),
        Change::AddRoute(_, r) => Some(wire::encode_route(r, NLM_F_CREATE | NLM_F_EXCL)),
        Change::ReplaceRoute(_, r) => Some(wire::encode_route(r, NLM_F_CREATE | NLM_F_REPLACE)),
        Change::DelRoute(_, r) => Some(wire::delete_route(r)),
        Change::DelAddress(_, a) => Some(wire::delete_address(a)),
        Change::AddRule(r) => Some(wire::encode_rule(r, NLM_F_CREATE | NLM_F_EXCL)),
        Change::DelRule(r) => Some(wire::delete_rule(r)),
    }
}

/// What we wanted to be there is there already, or what we wanted gone has gone already.
fn is_success(change: &Change, errno: Errno) -> bool {
    match change {
        Change::AddAddress(..) | Change::AddRoute(..) | Change::AddRule(_) => errno == Errno::EEXIST,
        // A switch goes with its interface.
        Change::DelRule(_) | Change::Sysctl(_) => errno == Errno::ENOENT,
        Change::DelRoute(..) => errno == Errno::ESRCH,
        Change::DelAddress(..) => errno == Errno::EADDRNOTAVAIL,
        Change::DelLink { .. } => errno == Errno::ENODEV,
        // When another program has made a link of this name meanwhile, the next run sees it.
        Change::AddLink { .. }
        | Change::LinkMaster { .. }
        | Change::LinkMac { .. }
        | Change::LinkAddrGen { .. }
        | Change::Neighbours { .. }
        | Change::LinkMtu { .. }
        | Change::LinkUp { .. }
        | Change::RefreshAddress(..)
        | Change::ReplaceRoute(..) => false,
    }
}

/// A switch as it is: what the links have told of it, else what stands below /proc/sys.
pub fn switch(path: &str, have: &Have) -> Option<Sysctl> {
    let value = match have.switch(path) {
        Some(told) => told.to_string(),
        None => fs::read_to_string(format!("/proc/sys/{path}")).ok()?.trim_end().to_owned(),
    };
    Some(Sysctl { path: path.to_owned(), value })
}

/// IFA_PROTO is stored and shown since Linux 5.18.
const ADDRESS_PROTOCOL: (u32, u32) = (5, 18);
/// IFA_RT_PRIORITY is taken since Linux 4.18.
const ADDRESS_METRIC: (u32, u32) = (4, 18);

/// Whether the kernel is of this version or a later one.
fn is_since(version: (u32, u32)) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

fn claim(have: &mut Have, memory: &Memory) {
    let names: Vec<(u32, String)> = have.links.iter().map(|l| (l.index, l.name.clone())).collect();
    for address in have.addresses.iter_mut().filter(|a| a.protocol == 0) {
        let name = names.iter().find(|(index, _)| *index == address.index).map(|(_, n)| n);
        if memory.addresses.iter().any(|(n, prefix)| Some(n) == name && *prefix == address.address) {
            address.protocol = PROTOCOL;
        }
    }
}

/// Whether this process has CAP_NET_ADMIN of capabilities(7). In a user namespace it may
/// have it while the network namespace belongs to another user: the kernel's EPERM says so
/// then.
pub fn has_net_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
    effective
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .is_none_or(|bits| bits & (1 << Capability::NetAdmin as u32) != 0)
}

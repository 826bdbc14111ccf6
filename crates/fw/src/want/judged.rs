//! What a server said, judged by all that is known now: the records, and what other programs have
//! given to the kernel.
//!
//! Pure. A route that a server gave never leads into the network of another interface. A router or
//! a name server is never an address of this machine. A lease inside a LAN's network is taken as a
//! single address, so that it takes no host of the LAN away. What an administrator wrote is not
//! judged. Nothing that fw itself has set counts here, only the records that asked for it: so the
//! result is the same whether the lease came before the LAN's address or after it. Called by
//! run.rs, before want.rs and etc.rs read the records.

use std::net::IpAddr;

use netd::reach::is_tunnel;
use netd_core::record::Hop;

use crate::have::{Have, Route};
use crate::input::lease::Current;
use crate::model::{PROTOCOL, PROTOCOL_KERNEL, Prefix, TABLE_MAIN, bits, is_link_local};
use crate::record::Entry;

/// Whose a network is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// An administrator's record without a default route.
    Lan,
    /// A tunnel: a VPN's networks are what it was made for.
    Tunnel,
    /// Another program's, or that of an uplink.
    Other,
}

/// A network that an interface has.
#[derive(Clone, Debug)]
struct Owned {
    interface: String,
    network: Prefix,
    owner: Owner,
}

/// An address of this machine.
#[derive(Clone, Debug)]
struct Own {
    interface: String,
    ip: IpAddr,
}

/// All that is known.
#[derive(Default)]
struct Known {
    tunnels: Vec<String>,
    networks: Vec<Owned>,
    addresses: Vec<Own>,
}

/// Judges the records of daemons. Returns a line for each record of which something is left out.
pub fn judge(current: &mut [Current], have: &Have) -> Vec<String> {
    let tunnels = have.links.iter().filter(|l| l.kind.as_deref().is_some_and(|kind| is_tunnel(kind.as_bytes())));
    let mut known = Known { tunnels: tunnels.map(|l| l.name.clone()).collect(), ..Known::default() };
    current.iter().for_each(|(entry, _)| known.add_record(entry));
    known.add_kernel(have);
    let said = current.iter_mut().filter(|(entry, _)| !entry.is_static);
    said.filter_map(|(entry, _)| known.judge(entry)).collect()
}

/// Every link has addresses of these networks, and the loopback's are everywhere.
fn counts(ip: IpAddr) -> bool {
    !is_link_local(ip) && !ip.is_loopback() && !ip.is_multicast()
}

fn single(ip: IpAddr) -> Prefix {
    Prefix { ip, len: bits(ip) }
}

impl Known {
    fn add_record(&mut self, entry: &Entry) {
        let interface = || entry.interface().to_owned();
        let is_uplink = entry.hops.iter().any(|hop| hop.destination.is_default());
        let owner = if entry.is_static && !is_uplink { Owner::Lan } else { self.owner(entry.interface()) };
        if let Some(address) = entry.network.address.filter(|a| counts(a.ip)) {
            self.addresses.push(Own { interface: interface(), ip: address.ip });
            self.add_network(interface(), address.network(), owner);
        }
        let are_known = entry.is_static || owner == Owner::Tunnel;
        for hop in entry.hops.iter().filter(|hop| are_known && !hop.destination.is_default()) {
            self.add_network(interface(), hop.destination, owner);
        }
    }

    /// What other programs have made. Of what fw has made the records know, and so of the routes
    /// that the kernel has made for it.
    fn add_kernel(&mut self, have: &Have) {
        for address in have.addresses.iter().filter(|a| a.protocol != PROTOCOL && counts(a.address.ip)) {
            let (interface, ip) = (have.name(address.index), address.address.ip);
            // A record may ask for an address that another program has made.
            if !self.addresses.iter().any(|own| own.interface == interface && own.ip == ip) {
                self.addresses.push(Own { interface: interface.clone(), ip });
                let owner = self.owner(&interface);
                self.add_network(interface, address.address.network(), owner);
            }
        }
        let is_of_ours = |r: &Route| {
            let ours = |a: &crate::have::Address| a.index == r.index && a.address.network() == r.destination;
            r.protocol == PROTOCOL_KERNEL && have.addresses.iter().any(|a| a.protocol == PROTOCOL && ours(a))
        };
        let foreign = have.routes.iter().filter(|r| r.protocol != PROTOCOL && r.unicast && r.table == TABLE_MAIN);
        for route in foreign.filter(|r| !r.destination.is_default() && counts(r.destination.ip) && !is_of_ours(r)) {
            let indexes = Some(&route.index).filter(|index| **index != 0).into_iter().chain(&route.next_hops);
            for interface in indexes.map(|index| have.name(*index)) {
                let owner = self.owner(&interface);
                self.add_network(interface, route.destination, owner);
            }
        }
    }

    /// Whose the networks of an interface are, when no administrator's record makes a LAN of it.
    fn owner(&self, interface: &str) -> Owner {
        if self.tunnels.iter().any(|name| name == interface) { Owner::Tunnel } else { Owner::Other }
    }

    fn add_network(&mut self, interface: String, network: Prefix, owner: Owner) {
        if !(network.is_host() && owner == Owner::Lan) {
            self.networks.push(Owned { interface, network, owner });
        }
    }

    /// Takes out what cannot be. One line says all of it.
    fn judge(&self, entry: &mut Entry) -> Option<String> {
        let narrowed = self.narrow(entry);
        let mut left_out = Vec::new();
        let (interface, address) = (entry.interface().to_owned(), entry.network.address);
        let default = entry.hops.iter().filter(|hop| hop.destination.is_default()).find_map(|hop| hop.gateway);
        entry.hops.retain(|hop| {
            let to_router = hop.gateway.is_none() && default.is_some_and(|router| hop.destination == single(router));
            let why =
                self.leads_into_other(&interface, address, hop, to_router).or_else(|| self.own("router", hop.gateway?));
            left_out.extend(why.clone());
            why.is_none()
        });
        entry.network.said.dns.retain(|server| {
            let why = self.own("name server", *server).or_else(|| {
                // It is on the link, and the LAN has that network.
                let lan = self.lan_around(&interface, single(*server)).filter(|_| narrowed.is_some())?;
                Some(format!("name server {server} would be looked for on {}", lan.interface))
            });
            left_out.extend(why.clone());
            why.is_none()
        });
        left_out.dedup();
        let left_out = Some(left_out.join(", ")).filter(|l| !l.is_empty()).map(|list| format!("{list}: left out"));
        let said: Vec<String> = narrowed.into_iter().chain(left_out).collect();
        (!said.is_empty()).then(|| format!("{}: {}", entry.origin, said.join("; ")))
    }

    /// The LAN on another interface in whose network this one is.
    fn lan_around(&self, interface: &str, inner: Prefix) -> Option<&Owned> {
        let others = self.networks.iter().filter(|o| o.owner == Owner::Lan && o.interface != interface);
        let mut around: Vec<&Owned> =
            others.filter(|o| o.network.len <= inner.len && o.network.contains(inner.ip)).collect();
        // The order of the records shall not matter.
        applet::sort::sort_by(&mut around, |a, b| (b.network.len, &a.interface).cmp(&(a.network.len, &b.interface)));
        around.first().copied()
    }

    /// Takes a lease inside of a LAN's network as a single address.
    fn narrow(&self, entry: &mut Entry) -> Option<String> {
        let address = entry.network.address.filter(|a| counts(a.ip) && !a.is_host())?;
        let lan = self.lan_around(entry.interface(), address)?;
        entry.network.address = Some(single(address.ip));
        entry.network.said.broadcast = None;
        let (interface, lan, network) = (entry.interface(), &lan.interface, lan.network);
        Some(format!("{address} of {interface} is in the network of {lan}, {network}: taken as a single address"))
    }

    /// The reason against a route into the network of another interface. Where two uplinks have the
    /// same network, the metrics decide. `to_router`: it is the way to the server's own router,
    /// which a VPN that has everything leaves alone.
    fn leads_into_other(&self, interface: &str, own: Option<Prefix>, hop: &Hop, to_router: bool) -> Option<String> {
        let to = hop.destination;
        if to.is_default() {
            return None;
        }
        // A VPN may have a part of any network but a LAN's.
        let is_tunnel = self.owner(interface) == Owner::Tunnel;
        let is_own = own.is_some_and(|own| !own.is_host() && own.len <= to.len && own.contains(to.ip));
        let is_into = |o: &&Owned| {
            let holds = o.interface != interface && o.network.contains(to.ip) && o.network.len <= to.len;
            holds
                && match o.owner {
                    Owner::Lan => true,
                    Owner::Tunnel => !to_router && !is_tunnel,
                    Owner::Other => o.network.len < to.len && !is_own && !to_router && !is_tunnel,
                }
        };
        let mut into: Vec<&Owned> = self.networks.iter().filter(is_into).collect();
        applet::sort::sort_by(&mut into, |a, b| (b.network.len, &a.interface).cmp(&(a.network.len, &b.interface)));
        let other = into.first()?;
        Some(format!("route {to} into the network of {}, {}", other.interface, other.network))
    }

    /// The reason against a station that is this machine.
    fn own(&self, what: &str, ip: IpAddr) -> Option<String> {
        let mut names: Vec<&str> = self.addresses.iter().filter(|o| o.ip == ip).map(|o| o.interface.as_str()).collect();
        applet::sort::sort(&mut names);
        names.first().map(|interface| format!("{what} {ip} is an address of this machine, on {interface}"))
    }
}

#[cfg(test)]
mod tests;

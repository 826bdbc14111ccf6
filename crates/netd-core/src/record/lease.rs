//! The records of the two daemons that find an address: udhcpc's lease and zcip's link-local
//! address.
//!
//! Each is a [`Network`] whose address is known to be there. Their keys are those of network.rs.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::key::Other;
use super::network::{Network, Said};
use super::term::{Now, Term, Validity};
use super::{Author, text};
use crate::net::{IfName, Prefix, Scope, is_host};

/// RFC 3927: a /16.
const LINK_LOCAL_LEN: u8 = 16;

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Interface.
    pub interface: IfName,
    /// Our address.
    pub ip: Ipv4Addr,
    /// Length of its network.
    pub prefix_len: u8,
    /// The server; `None`: it did not say.
    pub server_id: Option<Ipv4Addr>,
    /// What the server said beside it.
    pub said: Said,
    /// Metric of its routes.
    pub metric: Option<u32>,
    /// End, in seconds of CLOCK_BOOTTIME.
    pub end_boottime: u64,
    /// End in Unix seconds, for people.
    pub end: Option<u64>,
    /// The boot that `end_boottime` counts from.
    pub boot_id: String,
    /// Process id of the writer.
    pub owner: Option<u32>,
    /// Keys that are not known here, and their values.
    pub other: Vec<(String, String)>,
}

impl Lease {
    /// Understands a record. Anything wrong with its address or its time: it is no lease.
    pub fn parse(record: &text::Record) -> Option<Lease> {
        let (network, _) = Network::parse(record, Author::Program).ok()?;
        let (ip, prefix_len) = address(&network)?;
        let everything = Prefix::default_of(ip.into());
        let rest = Network { net: network.net.filter(|net| *net != everything), ..network.clone() };
        let rest = Network { server_id: None, said: Said::default(), metric: None, term: Term::default(), ..rest };
        Some(Lease {
            interface: network.interface,
            ip,
            prefix_len,
            server_id: network.server_id,
            said: network.said,
            metric: network.metric,
            end_boottime: network.term.end_boottime?,
            end: network.term.end,
            boot_id: network.term.boot_id?,
            owner: network.owner,
            other: rest.other_than_address(),
        })
    }

    /// The record.
    pub fn render(&self) -> text::Record {
        let address = Prefix { ip: self.ip.into(), len: self.prefix_len };
        Network {
            server_id: self.server_id,
            said: self.said.clone(),
            metric: self.metric,
            // The seed's scripts need to be told.
            net: Some(Prefix::default_of(self.ip.into())),
            term: Term { end_boottime: Some(self.end_boottime), end: self.end, boot_id: Some(self.boot_id.clone()) },
            owner: self.owner,
            other: self.other.clone(),
            ..Network::at(self.interface.clone(), address)
        }
        .render_address()
    }

    /// Time until its end; `None`: it has ended, or was counted in another boot.
    pub fn left(&self, now: Duration, boot_id: &str) -> Option<Duration> {
        let end = Duration::from_secs(self.end_boottime);
        (self.boot_id == boot_id).then(|| end.checked_sub(now))?.filter(|left| !left.is_zero())
    }
}

/// A link-local address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLocal {
    /// Interface.
    pub interface: IfName,
    /// Our address, in a /16.
    pub ip: Ipv4Addr,
    /// The boot in which it was found.
    pub boot_id: String,
    /// Process id of the writer.
    pub owner: Option<u32>,
    /// Keys that are not known here, and their values.
    pub other: Vec<(String, String)>,
}

impl LinkLocal {
    /// Understands a record. Anything wrong with its address: there is none.
    pub fn parse(record: &text::Record) -> Option<LinkLocal> {
        let (network, _) = Network::parse(record, Author::Program).ok()?;
        let (ip, _) = address(&network).filter(|(_, len)| *len == LINK_LOCAL_LEN)?;
        let scope = network.scope.filter(|scope| *scope != Scope::Link);
        let rest = Network { scope, term: Term { boot_id: None, ..network.term.clone() }, ..network.clone() };
        let other = rest.other_than_address();
        let boot_id = network.term.boot_id?;
        Some(LinkLocal { interface: network.interface, ip, boot_id, owner: network.owner, other })
    }

    /// The record. It has no router, so never a default route; scope link, so never the source of
    /// what leaves the link (RFC 3927 sections 2.6 and 2.7).
    pub fn render(&self) -> text::Record {
        let address = Prefix { ip: self.ip.into(), len: LINK_LOCAL_LEN };
        Network {
            scope: Some(Scope::Link),
            term: Term { boot_id: Some(self.boot_id.clone()), ..Term::default() },
            owner: self.owner,
            other: self.other.clone(),
            ..Network::at(self.interface.clone(), address)
        }
        .render_address()
    }
}

/// The IPv4 address of a record; its two keys for it have to agree.
fn address(network: &Network) -> Option<(Ipv4Addr, u8)> {
    let address = network.address?;
    let IpAddr::V4(ip) = address.ip else { return None };
    let agrees = network.ip.is_none_or(|other| other == address.ip) && network.other.iter().all(|(key, _)| key != "ip");
    (is_host(ip) && agrees).then_some((ip, address.len))
}

impl Network {
    /// A record of one address.
    fn at(interface: IfName, address: Prefix) -> Network {
        Network { ip: Some(address.ip), address: Some(address), ..Network::new(interface) }
    }

    /// What a record says beside its address and its writer, for a kind that has no fields for it.
    fn other_than_address(self) -> Other {
        Network { ip: None, address: None, owner: None, ..self }.as_other()
    }

    /// The record; that there is no router is said, because the seed's scripts ask for it.
    fn render_address(&self) -> text::Record {
        let record = self.render();
        if record.get("gw").is_none() { record.with("gw", "") } else { record }
    }

    /// The address and the router of the default route, in IPv4, if the record counts now.
    pub fn uplink(&self, now: &Now) -> Option<(Ipv4Addr, Option<Ipv4Addr>)> {
        if matches!(self.term.validity(now), Validity::Ended | Validity::OtherBoot) {
            return None;
        }
        let (ip, _) = address(self)?;
        let router = self.hops().into_iter().find_map(|hop| match hop.gateway {
            Some(IpAddr::V4(router)) if hop.destination.is_default() => Some(router),
            _ => None,
        });
        Some((ip, router.filter(|router| *router != ip && is_host(*router))))
    }
}

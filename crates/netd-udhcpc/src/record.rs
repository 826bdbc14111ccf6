//! A lease as an `*.ipconf` record, and back after a restart.
//!
//! Pure. Unlike a script's environment, a record has only values that were understood: a value that
//! could not be is absent. `resume` reads the own record as carefully as a packet: a file is
//! foreign input too. Called by notice.rs and daemon.rs.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use netd_core::net::{DomainName, HostName, IfName, Prefix, is_host};
use netd_core::record::text::Record;
use netd_core::record::{Hop, Lease, Said, Uri};

use crate::bounds::{MAX_NAMES, MAX_ROUTES, MAX_SERVERS};
use crate::client::{Grant, Resume};
use crate::env;
use crate::lease::{mtu_of, prefix_len_of};
use crate::message::Reply;
use crate::options::{BROADCAST, CAPTIVE_PORTAL, DNS, DOMAIN, FQDN, HOST_ROUTES, HOSTNAME, NTP, ROUTER, SEARCH};
use crate::route_list::{self, Route};
use crate::routes;

/// What the machine cannot know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Name of the interface.
    pub interface: IfName,
    /// First 8 hexadecimal digits of the kernel's boot id.
    pub boot_id: String,
    /// Our process id.
    pub pid: u32,
    /// Unix time minus time since boot: a lease's end on the wall clock. It may jump; readers use
    /// the boot time.
    pub wall_offset: Duration,
    /// `--metric`: that of the routes.
    pub metric: Option<u32>,
}

/// What fw needs to know.
pub fn record(context: &Context, grant: &Grant) -> Record {
    lease(context, grant).render()
}

/// The same before it is a text.
pub fn lease(context: &Context, grant: &Grant) -> Lease {
    let reply = &grant.reply;
    Lease {
        interface: context.interface.clone(),
        ip: grant.ip,
        prefix_len: prefix_len_of(reply),
        server_id: Some(grant.server_id).filter(|ip| !ip.is_unspecified()),
        said: said(reply, grant.ip),
        end_boottime: grant.end.as_secs(),
        end: Some((context.wall_offset + grant.end).as_secs()),
        boot_id: context.boot_id.clone(),
        metric: context.metric,
        owner: Some(context.pid),
        other: Vec::new(),
    }
}

/// What the server said: an option that goes into the record becomes a field of `Said` here.
fn said(reply: &Reply, own: Ipv4Addr) -> Said {
    let list = |code| ips(reply, code).into_iter().map(IpAddr::V4).collect();
    let (routers, routes) = routing(reply, own);
    let domains = domains(reply);
    Said {
        routers,
        routes,
        broadcast: reply.ip(BROADCAST),
        mtu: mtu_of(reply).map(u32::from),
        dns: list(DNS),
        search: search(reply, &domains),
        domain: domains.into_iter().next(),
        ntp: list(NTP),
        hostname: reply.option(HOSTNAME).and_then(host_name),
        fqdn: reply.option(FQDN).and_then(fqdn),
        captive_portal: reply.option(CAPTIVE_PORTAL).and_then(portal),
    }
}

/// The names of option 15.
fn domains(reply: &Reply) -> Vec<DomainName> {
    let words = reply.option(DOMAIN).map(env::domains).unwrap_or_default();
    words.iter().filter_map(|word| DomainName::parse(word)).collect()
}

/// The names of option 119, or those of option 15 when there are several.
fn search(reply: &Reply, domains: &[DomainName]) -> Vec<DomainName> {
    let listed = reply.option(SEARCH).map(env::names).unwrap_or_default();
    if listed.is_empty() {
        return domains.iter().take(MAX_NAMES).filter(|_| domains.len() > 1).cloned().collect();
    }
    listed.iter().filter_map(|name| DomainName::parse(name)).take(MAX_NAMES).collect()
}

/// RFC 2132 section 2: NULs at the end do not count.
fn host_name(data: &[u8]) -> Option<HostName> {
    std::str::from_utf8(env::until_nul(data)).ok().and_then(HostName::parse)
}

/// RFC 4702 section 2: flags, two bytes without meaning, and the name that the server gave us; as
/// labels when flag E is set, else in ASCII. Flag N says that the server did nothing to the DNS.
fn fqdn(data: &[u8]) -> Option<HostName> {
    const E: u8 = 0x04;
    const N: u8 = 0x08;
    let ([flags, _, _], name) = data.split_first_chunk::<3>()?;
    match flags & (E | N) {
        E => Some(env::names(name)).filter(|names| names.len() == 1)?.pop().as_deref().and_then(HostName::parse),
        0 => host_name(name),
        _ => None,
    }
}

/// RFC 8910 section 2: the URI of the portal's API.
fn portal(data: &[u8]) -> Option<Uri> {
    std::str::from_utf8(data.strip_suffix(&[0]).unwrap_or(data)).ok().and_then(Uri::parse)
}

fn ips(reply: &Reply, code: u8) -> Vec<Ipv4Addr> {
    let data = reply.option(code).unwrap_or_default();
    data.as_chunks::<4>().0.iter().map(|c| Ipv4Addr::from(*c)).filter(|ip| is_host(*ip)).take(MAX_SERVERS).collect()
}

/// The router, and all routes when there are more than the default one, because they stand in place
/// of the router (ipconf(5)). RFC 3442: with classless routes the router option does not count, and
/// the default route is the 0/0 among them. The older option 33 has no default route: the router's
/// stands behind its routes.
fn routing(reply: &Reply, own: Ipv4Addr) -> (Vec<IpAddr>, Vec<Hop>) {
    let usable = |gw: &Ipv4Addr| *gw != own && is_host(*gw);
    let default = |gw: Ipv4Addr| (Ipv4Addr::UNSPECIFIED, 0, gw);
    let router = ips(reply, ROUTER).into_iter().find(usable);
    let (gw, all) = match routes::in_force(reply) {
        Some((HOST_ROUTES, list)) => (router, [list, router.map(default).into_iter().collect()].concat()),
        Some((_, list)) => (list.iter().find(|(_, len, _)| *len == 0).map(|(_, _, gw)| *gw), list),
        None => (router, Vec::new()),
    };
    let routers = gw.map(IpAddr::V4).into_iter().collect();
    if all.iter().all(|(_, len, _)| *len == 0) {
        return (routers, Vec::new());
    }
    let hop = |(net, len, gw): &Route| Hop::new(Prefix::new((*net).into(), *len)?, (*gw).into());
    (routers, route_list::keep(&all, MAX_ROUTES, |_| 1).iter().filter_map(hop).collect())
}

/// The address to ask for again (INIT-REBOOT): from our own record of this boot that has not
/// expired at `now`.
pub fn resume(record: &Record, interface: &str, boot_id: &str, now: Duration) -> Option<Resume> {
    let lease = Lease::parse(record)?;
    // RFC 2131 section 3.3: the longest lease there is.
    let possible = lease.left(now, boot_id).is_some_and(|left| left <= Duration::from_secs(u32::MAX.into()));
    let server_id = lease.server_id.unwrap_or(Ipv4Addr::UNSPECIFIED);
    let end = Duration::from_secs(lease.end_boottime);
    let ours = lease.interface.as_str() == interface && !boot_id.is_empty();
    (ours && possible).then_some(Resume { ip: lease.ip, server_id, end })
}

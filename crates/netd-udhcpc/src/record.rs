//! A lease as an `*.ipconf` record, and back after a restart.
//!
//! Pure. Unlike a script's environment, a record has only values that were understood: a value that could not be is
//! absent. `resume` reads the own record as carefully as a packet: a file is foreign input too. Called by notice.rs and daemon.rs.

use std::net::Ipv4Addr;
use std::time::Duration;

use netd_core::net::is_host;
use netd_core::record::text::Record;

use crate::bounds::{self, MAX_NAMES, MAX_ROUTES, MAX_SERVERS, Route};
use crate::client::{Grant, Resume};
use crate::env;
use crate::lease::{mtu_of, prefix_len_of};
use crate::message::Reply;
use crate::options::{BROADCAST, CAPTIVE_PORTAL, DNS, DOMAIN, FQDN, HOST_ROUTES, HOSTNAME, NTP, ROUTER, SEARCH};
use crate::routes;

/// What the machine cannot know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Name of the interface.
    pub interface: String,
    /// First 8 hexadecimal digits of the kernel's boot id.
    pub boot_id: String,
    /// Our process id.
    pub pid: u32,
    /// Unix time minus time since boot: a lease's end on the wall clock. It may jump; readers use the boot time.
    pub wall_offset: Duration,
    /// `--metric`: that of the routes.
    pub metric: Option<u32>,
}

/// What fw needs to know.
pub fn record(context: &Context, grant: &Grant) -> Record {
    let reply = &grant.reply;
    let list = |code| ips(reply, code).iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(" ");
    let (gw, routes) = routing(reply, grant.ip);
    let mut record = Record::new()
        .with("if", &context.interface)
        .with("ip", grant.ip.to_string())
        .with("ipmask", format!("{}/{}", grant.ip, prefix_len_of(reply)))
        .with("gw", gw)
        .with("net", "0/0");
    let mut put = |name: &str, value: String| {
        if !value.is_empty() {
            record.set(name, value);
        }
    };
    put("dns", list(DNS));
    let domains = reply.option(DOMAIN).map(env::domains).unwrap_or_default();
    put("domain", domains.first().cloned().unwrap_or_default());
    put("search", search(reply, &domains));
    put("ntp", list(NTP));
    put("hostname", reply.option(HOSTNAME).and_then(host_name).unwrap_or_default());
    put("fqdn", reply.option(FQDN).and_then(fqdn).unwrap_or_default());
    put("captive_portal", reply.option(CAPTIVE_PORTAL).and_then(portal).unwrap_or_default());
    put("mtu", mtu_of(reply).map(|m| m.to_string()).unwrap_or_default());
    put("routes", routes);
    put("metric", context.metric.map(|metric| metric.to_string()).unwrap_or_default());
    put("broadcast", reply.ip(BROADCAST).map(|ip| ip.to_string()).unwrap_or_default());
    put("serverid", grant.server_id.to_string());
    put("lease_end", (context.wall_offset + grant.end).as_secs().to_string());
    put("lease_end_boottime", grant.end.as_secs().to_string());
    put("boot_id", context.boot_id.clone());
    put("owner", context.pid.to_string());
    record
}

/// The names of option 119, or those of option 15 when there are several.
fn search(reply: &Reply, domains: &[String]) -> String {
    let listed = reply.option(SEARCH).map(env::names).unwrap_or_default();
    let names = if listed.is_empty() && domains.len() > 1 { domains } else { &listed };
    names.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// A name that resolv.conf can take. RFC 2132 section 2: NULs at the end do not count.
fn host_name(data: &[u8]) -> Option<String> {
    let text = env::until_nul(data);
    env::is_host_text(text).then(|| String::from_utf8_lossy(text).into_owned())
}

/// RFC 4702 section 2: flags, two bytes without meaning, and the name that the server gave us; as labels when flag E is set, else in
/// ASCII. Flag N says that the server did nothing to the DNS.
fn fqdn(data: &[u8]) -> Option<String> {
    const E: u8 = 0x04;
    const N: u8 = 0x08;
    let ([flags, _, _], name) = data.split_first_chunk::<3>()?;
    match flags & (E | N) {
        E => Some(env::names(name)).filter(|names| names.len() == 1)?.pop(),
        0 => host_name(name.strip_suffix(b".").unwrap_or(name)),
        _ => None,
    }
}

/// RFC 8910 section 2: the URI of the portal's API. RFC 3986 has no other characters than these; a single quote would be one, but
/// leaves the record's.
fn portal(data: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(data.strip_suffix(&[0]).unwrap_or(data)).ok()?;
    let fit = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#[]@!&()*+,;=%".contains(&b);
    let web = ["https://", "http://"].iter().any(|scheme| text.starts_with(scheme));
    (web && text.len() <= 1024 && text.bytes().all(fit)).then(|| text.to_owned())
}

fn ips(reply: &Reply, code: u8) -> Vec<Ipv4Addr> {
    let data = reply.option(code).unwrap_or_default();
    data.as_chunks::<4>().0.iter().map(|c| Ipv4Addr::from(*c)).filter(|ip| is_host(*ip)).take(MAX_SERVERS).collect()
}

/// The router, and `NET/LEN GW ...` when there are more routes than the default one: then all of them, because they stand in place of
/// the router (ipconf(5)). RFC 3442: with classless routes the router option does not count, and the default route is the 0/0 among
/// them. The older option 33 has no default route: the router's stands behind its routes.
fn routing(reply: &Reply, own: Ipv4Addr) -> (String, String) {
    let usable = |gw: &Ipv4Addr| *gw != own && is_host(*gw);
    let default = |gw: Ipv4Addr| (Ipv4Addr::UNSPECIFIED, 0, gw);
    let router = ips(reply, ROUTER).into_iter().find(usable);
    let (gw, all) = match routes::in_force(reply) {
        Some((HOST_ROUTES, list)) => (router, [list, router.map(default).into_iter().collect()].concat()),
        Some((_, list)) => (list.iter().find(|(_, len, _)| *len == 0).map(|(_, _, gw)| *gw), list),
        None => (router, Vec::new()),
    };
    let gw = gw.map(|gw| gw.to_string()).unwrap_or_default();
    if all.iter().all(|(_, len, _)| *len == 0) {
        return (gw, String::new());
    }
    let word = |(net, len, gw): &Route| format!("{net}/{len} {gw}");
    (gw, bounds::routes(&all, MAX_ROUTES, |_| 1).iter().map(word).collect::<Vec<_>>().join(" "))
}

/// The address to ask for again (INIT-REBOOT): from our own record of this boot that has not expired at `now`.
pub fn resume(record: &Record, interface: &str, boot_id: &str, now: Duration) -> Option<Resume> {
    let end = Duration::from_secs(record.get("lease_end_boottime")?.parse().ok()?);
    let ip: Ipv4Addr = record.get("ip")?.parse().ok()?;
    let server_id = record.get("serverid").and_then(|s| s.parse().ok()).unwrap_or(Ipv4Addr::UNSPECIFIED);
    let ours = record.get("if") == Some(interface) && !boot_id.is_empty() && record.get("boot_id") == Some(boot_id);
    // RFC 2131 section 3.3: the longest lease there is.
    let possible = end > now && end - now <= Duration::from_secs(u32::MAX.into());
    (ours && possible && is_host(ip)).then_some(Resume { ip, server_id, end })
}

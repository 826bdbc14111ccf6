//! A lease as an `*.ipconf` record, and back after a restart.
//!
//! Pure. Unlike a script's environment, a record has only values that were understood: a value that could not be is
//! absent. `resume` reads the own record as carefully as a packet: a file is foreign input too. Called by notice.rs and daemon.rs.

use std::net::Ipv4Addr;
use std::time::Duration;

use netd::ipconf::Record;

use crate::client::{Grant, Resume};
use crate::env;
use crate::lease::{is_host, mtu_of, prefix_len_of};
use crate::message::Reply;
use crate::options::{BROADCAST, DNS, DOMAIN, NTP, ROUTER, SEARCH, STATIC_ROUTES};

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
    put("domain", reply.option(DOMAIN).and_then(host_name).unwrap_or_default());
    put("search", reply.option(SEARCH).map(env::names).unwrap_or_default().join(" "));
    put("ntp", list(NTP));
    put("mtu", mtu_of(reply).map(|m| m.to_string()).unwrap_or_default());
    put("routes", routes);
    put("broadcast", reply.ip(BROADCAST).map(|ip| ip.to_string()).unwrap_or_default());
    put("serverid", grant.server_id.to_string());
    put("lease_end", (context.wall_offset + grant.end).as_secs().to_string());
    put("lease_end_boottime", grant.end.as_secs().to_string());
    put("boot_id", context.boot_id.clone());
    put("owner", context.pid.to_string());
    record
}

/// A domain name that resolv.conf can take.
fn host_name(data: &[u8]) -> Option<String> {
    let text = data.strip_suffix(&[0]).unwrap_or(data);
    env::is_host_text(text).then(|| String::from_utf8_lossy(text).into_owned())
}

fn ips(reply: &Reply, code: u8) -> Vec<Ipv4Addr> {
    let data = reply.option(code).unwrap_or_default();
    // 16 are more than any reader takes (resolv.conf: 3).
    data.as_chunks::<4>().0.iter().map(|c| Ipv4Addr::from(*c)).filter(|ip| is_host(*ip)).take(16).collect()
}

/// First router, and `NET/LEN GW ...` for the rest. RFC 3442: with option 121 the router option does not count, and the default
/// route is the 0/0 among the classless ones. A gateway of 0.0.0.0 says that the network is on the link.
fn routing(reply: &Reply, own: Ipv4Addr) -> (String, String) {
    let usable = |gw: &Ipv4Addr| *gw != own && is_host(*gw);
    let classless = env::routes(reply.option(STATIC_ROUTES).unwrap_or_default());
    if classless.is_empty() {
        let first = ips(reply, ROUTER).into_iter().find(usable);
        return (first.map(|gw| gw.to_string()).unwrap_or_default(), String::new());
    }
    let gw = classless.iter().find(|(_, len, gw)| *len == 0 && usable(gw)).map(|(_, _, gw)| gw.to_string());
    let others = classless.iter().filter(|(_, len, gw)| *len != 0 && (usable(gw) || gw.is_unspecified()));
    let words: Vec<String> = others.take(64).map(|(net, len, gw)| format!("{net}/{len} {gw}")).collect();
    (gw.unwrap_or_default(), words.join(" "))
}

/// The address to ask for again (INIT-REBOOT): from our own record of this boot that has not expired at `now`.
pub fn resume(record: &Record, interface: &str, boot_id: &str, now: Duration) -> Option<Resume> {
    let end = Duration::from_secs(record.get("lease_end_boottime")?.parse().ok()?);
    let ip: Ipv4Addr = record.get("ip")?.parse().ok()?;
    let server_id = record.get("serverid").and_then(|s| s.parse().ok()).unwrap_or(Ipv4Addr::UNSPECIFIED);
    let ours = record.get("if") == Some(interface) && !boot_id.is_empty() && record.get("boot_id") == Some(boot_id);
    (ours && end > now && is_host(ip)).then_some(Resume { ip, server_id, end })
}

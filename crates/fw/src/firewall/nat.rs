//! Who leaves by which address, and the kernel's short way for known connections.
//!
//! Pure: lines of nft. Called by text.rs.

use crate::have::MARKS;
use crate::input::policy::doors::Masquerade;

use super::forwards;
use super::parts::{BRIDGED, Chain, Parts, each, family};

/// The kernel's short way.
const FLOWTABLE: &str = "short_way";

/// The chain of port forwards.
pub fn port_forward(parts: &Parts) -> Vec<Chain> {
    let rules = forwards::port_forward(parts.openings);
    rules.map(|rules| (forwards::PORT_FORWARD.to_owned(), rules)).into_iter().collect()
}

/// The chain that rewrites destinations.
pub fn prerouting(parts: &Parts, external: &[String]) -> Vec<String> {
    let mut rules = vec!["type nat hook prerouting priority dstnat; policy accept;".to_owned()];
    rules.extend(parts.inserts.before_prerouting.iter().cloned());
    if !parts.openings.forwards.is_empty() {
        rules.extend(forwards::to_port_forward(parts.openings, external));
    }
    rules.extend(parts.inserts.after_prerouting.iter().cloned());
    rules
}

/// The chain that rewrites sources.
pub fn postrouting(parts: &Parts, external: &[String]) -> Vec<String> {
    let mut rules = vec!["type nat hook postrouting priority srcnat; policy accept;".to_owned()];
    rules.extend(parts.inserts.before_postrouting.iter().cloned());
    rules.extend(forwards::hairpin(parts.openings));
    let sources: Vec<String> = match &parts.policy.doors.masquerade {
        Masquerade::No => Vec::new(),
        // This host's own packets have the right source already. IPv6 networks with global
        // addresses are routed; RFC 4193 addresses would get no answer.
        Masquerade::Auto => ["meta nfproto ipv4", "ip6 saddr fc00::/7"]
            .map(|source| format!("{source} fib saddr type != local masquerade"))
            .to_vec(),
        Masquerade::Only(networks) => networks.iter().map(|n| format!("{} saddr {n} masquerade", family(n))).collect(),
    };
    if !parts.zones.bridges.is_empty() && !sources.is_empty() {
        rules.push(format!("meta mark & {MARKS:#010x} == {BRIDGED:#010x} accept"));
    }
    rules.extend(sources.iter().flat_map(|source| each("oifname", external, source)));
    rules.extend(parts.inserts.after_postrouting.iter().cloned());
    rules
}

/// The table of known connections whose packets skip all chains.
pub fn flowtable(parts: &Parts) -> Option<String> {
    let devices: Vec<String> = devices(parts).iter().map(|name| format!("\"{name}\"")).collect();
    let devices = Some(devices.join(", ")).filter(|_| devices.len() > 1)?;
    Some(format!("\tflowtable {FLOWTABLE} {{\n\t\thook ingress priority filter; devices = {{ {devices} }};\n\t}}\n"))
}

/// The rule that puts connections there.
pub fn to_flowtable(parts: &Parts) -> Option<String> {
    (devices(parts).len() > 1).then(|| format!("ct state established flow add @{FLOWTABLE}"))
}

/// The links between which packets are forwarded, as far as they are there.
fn devices<'a>(parts: &'a Parts) -> Vec<&'a str> {
    let wanted = parts.policy.doors.offload && parts.policy.forward;
    let all = || parts.zones.devices.iter().map(String::as_str);
    if wanted { all().collect() } else { Vec::new() }
}

//! The rules for hosts behind this machine that the outside may reach: `port_forward` and `open6`.
//!
//! Pure: lines of nft. Called by text.rs, which puts them into their chains.

use crate::input::policy::forwards::{Asked, Forward, Host};
use crate::want::Openings;

/// The chain that turns a packet to another address.
pub(super) const PORT_FORWARD: &str = "port_forward";
/// The chain of packets that go to a host behind this machine but would leave by an uplink.
pub(super) const LOST: &str = "port_forward_lost";
/// The chain of open IPv6 hosts.
pub(super) const OPEN6: &str = "open6";

/// The lower half of an IPv6 address.
const SUFFIX: &str = "::ffff:ffff:ffff:ffff";

/// Chain `port_forward`. A packet to this machine itself comes to it, from outside or from a zone
/// that may go there. `None`: no port is forwarded.
pub(super) fn port_forward(openings: &Openings) -> Option<Vec<String>> {
    if openings.forwards.is_empty() {
        return None;
    }
    // Inside addresses keep their ports, so that this machine's own services stay reachable there.
    let mut rules = vec!["ip daddr 127.0.0.0/8 return".to_owned()];
    rules.extend(openings.own.iter().map(|ip| format!("ip daddr {ip} return")));
    rules.extend(openings.forwards.iter().flat_map(forward));
    Some(rules)
}

/// The rules of the chain at hook prerouting that lead to [`port_forward`].
pub(super) fn to_port_forward(openings: &Openings, outside: &[String]) -> Vec<String> {
    let from = outside.iter().chain(&openings.served);
    let local = format!("meta nfproto ipv4 fib daddr type local jump {PORT_FORWARD}");
    from.map(|name| format!("iifname \"{name}\" {local}")).collect()
}

/// The rules of one forward.
fn forward(forward: &Forward) -> Vec<String> {
    let Forward { asked, target, to, .. } = forward;
    let ((low, high), (first, last)) = (asked.ports, *to);
    if *to == asked.ports {
        return vec![format!("{} dnat ip to {target}", matches(asked, "ip"))];
    }
    if first == last {
        return vec![format!("{} dnat ip to {target}:{first}", matches(asked, "ip"))];
    }
    let single = |(port, new)| {
        let asked = Asked { ports: (port, port), ..*asked };
        format!("{} dnat ip to {target}:{new}", matches(&asked, "ip"))
    };
    (low..=high).zip(first..=last).map(single).collect()
}

/// The match of source, protocol and ports.
fn matches(asked: &Asked, family: &str) -> String {
    let source = asked.source.map(|source| format!("{family} saddr {source} ")).unwrap_or_default();
    let ports = match asked.ports {
        (low, high) if low == high => low.to_string(),
        (low, high) => format!("{low}-{high}"),
    };
    format!("{source}{} dport {ports}", asked.protocol)
}

/// The rules at hook postrouting for a client and a target behind the same interface: the target
/// answers this machine, which answers the client. Without it the target would answer the client
/// itself, from an address that the client has not asked.
pub(super) fn hairpin(openings: &Openings) -> Vec<String> {
    if openings.forwards.is_empty() {
        return Vec::new();
    }
    let near = openings.near.iter();
    near.map(|(name, network)| format!("oifname \"{name}\" ct status dnat ip saddr {network} masquerade")).collect()
}

/// Chain `port_forward_lost`: when the LAN of a target is gone, its packets would follow the
/// default route back to the outside.
pub(super) fn lost(openings: &Openings) -> Option<Vec<String>> {
    let rules: Vec<String> = openings.targets.iter().map(|network| format!("ip daddr {network} drop")).collect();
    Some(rules).filter(|rules| !rules.is_empty())
}

/// The rules at hook forward that lead to [`lost`].
pub(super) fn to_lost(openings: &Openings, outside: &[String]) -> Vec<String> {
    if openings.targets.is_empty() {
        return Vec::new();
    }
    let to = format!("ct status dnat ct direction original jump {LOST}");
    outside.iter().map(|name| format!("oifname \"{name}\" {to}")).collect()
}

/// Chain `open6`. Packets from outside, or from a zone that may go there, come to it when they are
/// to be forwarded. `None`: no host is open.
///
/// The suffix is that of the destination and of the next hop, so that a host behind another router
/// in that network is not open. RFC 4890 4.3.1: a host that is open answers echo requests; errors
/// are related to connections.
pub(super) fn open6(openings: &Openings) -> Option<Vec<String>> {
    let rules: Vec<String> = openings.hosts.iter().flat_map(host).collect();
    let mut once: Vec<String> = Vec::new();
    for rule in rules {
        if !once.contains(&rule) {
            once.push(rule);
        }
    }
    Some(once).filter(|rules| !rules.is_empty())
}

fn host(host: &Host) -> Vec<String> {
    let Host { asked, interface, suffix, .. } = host;
    let is = format!("& {SUFFIX} == {suffix}");
    let to = format!("oifname \"{interface}\" ip6 daddr {is} rt ip6 nexthop {is}");
    let source = asked.source.map(|source| format!("ip6 saddr {source} ")).unwrap_or_default();
    vec![format!("{to} {} accept", matches(asked, "ip6")), format!("{to} {source}icmpv6 type echo-request accept")]
}

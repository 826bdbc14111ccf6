//! The chains of the outside, of each zone, and of what is unlisted.
//!
//! Pure: lines of nft. Called by text.rs.

use crate::have::MARKS;
use crate::input::policy::doors::Door;
use crate::input::policy::zones::{LAN, Service, Target, Unlisted};
use crate::want::zones::{Zones, kinds};

use super::forwards;
use super::parts::{BRIDGED, Chain, Parts, each, family};

/// Packets of known connections, and errors about them.
pub const KNOWN: &str = "ct state established,related accept";
/// The chain of packets from outside to this machine.
pub const EXTERNAL_INPUT: &str = "external_input";
/// The chain of packets from outside to hosts behind it.
pub const EXTERNAL_FORWARD: &str = "external_forward";
/// The chain that lets other programs' virtual links alone.
const UNLISTED: &str = "unlisted";

/// What begins the chains of those who are not free. A destination that a dnat rule of the
/// administrator has rewritten is open, because that rule opens it.
const BEGIN: [&str; 2] = ["ct state invalid drop", "ct status dnat accept"];

const ICMP_ERRORS: [&str; 3] = ["destination-unreachable", "time-exceeded", "parameter-problem"];

/// RFC 4890 4.4: IPv6 does not work without these.
const ICMPV6: [&str; 9] = [
    "destination-unreachable",
    "packet-too-big",
    "time-exceeded",
    "parameter-problem",
    "nd-router-solicit",
    "nd-router-advert",
    "nd-neighbor-solicit",
    "nd-neighbor-advert",
    "mld-listener-query",
];

/// What the hosts of a zone say to routers beside that (RFC 4890 4.4.1).
const MLD_REPORTS: [&str; 3] = ["mld-listener-report", "mld-listener-done", "mld2-listener-report"];

/// All chains that the base chains call.
pub fn chains(parts: &Parts) -> Vec<Chain> {
    let mut chains = vec![(EXTERNAL_INPUT.to_owned(), external_input(parts))];
    chains.push((EXTERNAL_FORWARD.to_owned(), external_forward(parts)));
    for zone in parts.zones.names() {
        if !is_free_to_router(parts, zone) {
            chains.push((input_chain(zone), zone_input(parts, zone)));
        }
        if !is_free_to_go(parts, zone) {
            chains.push((forward_chain(zone), zone_forward(parts, zone)));
        }
    }
    if parts.policy.zones.unlisted == Unlisted::Auto {
        let mut rules = each("iifname", &parts.zones.left_alone, "accept");
        rules.extend(kinds::closed().map(|kind| format!("meta iifkind \"{kind}\" return")));
        // Hardware cards have no kind, so that no match about it is true of them.
        rules.push("meta iifkind != \"card\" accept".to_owned());
        chains.push((UNLISTED.to_owned(), rules));
    }
    chains
}

/// The rules of a base chain for all that is neither outside nor inside.
pub fn unlisted(unlisted: Unlisted) -> Option<String> {
    match unlisted {
        Unlisted::Auto => Some(format!("jump {UNLISTED}")),
        Unlisted::Closed => None,
        Unlisted::Open => Some("accept".to_owned()),
    }
}

/// The rules of the chain at hook input for zones.
pub fn to_input(parts: &Parts) -> Vec<String> {
    let verdict = |zone: &str| match is_free_to_router(parts, zone) {
        true => "accept".to_owned(),
        false => format!("goto {}", input_chain(zone)),
    };
    parts.zones.inside.iter().map(|i| format!("iifname \"{}\" {}", i.interface, verdict(&i.zone))).collect()
}

/// The rules of the chain at hook forward for zones.
pub fn to_forward(parts: &Parts) -> Vec<String> {
    let verdict = |zone: &str| match is_free_to_go(parts, zone) {
        true => "accept".to_owned(),
        false => format!("goto {}", forward_chain(zone)),
    };
    parts.zones.inside.iter().map(|i| format!("iifname \"{}\" {}", i.interface, verdict(&i.zone))).collect()
}

/// The rules of a base chain for links whose names nft cannot write.
pub fn nameless(zones: &Zones, chain: &str) -> Vec<String> {
    zones.nameless.iter().map(|index| format!("iif {index} goto {chain}")).collect()
}

/// Packets from one port of a bridge to another, which come here where br_netfilter is on. On a
/// closed bridge those for this machine itself have its address: it routes none of them back.
pub fn within_bridges(zones: &Zones) -> Vec<String> {
    let inside = zones.inside.iter().map(|i| format!("iifname \"{0}\" oifname \"{0}\" accept", i.interface));
    let closed = zones.bridges.iter().map(|(name, macs)| {
        let others: String = macs.iter().map(|mac| format!(" ether daddr != {mac}")).collect();
        let mark = format!("meta mark set meta mark & {:#010x} | {BRIDGED:#010x}", !MARKS);
        format!("iifname \"{name}\" oifname \"{name}\"{others} {mark} accept")
    });
    inside.chain(closed).collect()
}

fn input_chain(zone: &str) -> String {
    format!("zone_{zone}_input")
}

fn forward_chain(zone: &str) -> String {
    format!("zone_{zone}_forward")
}

fn is_free_to_router(parts: &Parts, zone: &str) -> bool {
    parts.policy.zones.router(zone).contains(&Service::All)
}

fn is_free_to_go(parts: &Parts, zone: &str) -> bool {
    parts.policy.zones.to(zone).contains(&Target::Any)
}

fn accept_each(protocol: &str, kinds: &[&str]) -> Vec<String> {
    kinds.iter().map(|kind| format!("{protocol} type {kind} accept")).collect()
}

fn external_input(parts: &Parts) -> Vec<String> {
    let doors = &parts.policy.doors;
    let mut rules = BEGIN.map(str::to_owned).to_vec();
    rules.extend(ping());
    rules.extend(accept_each("icmp", &ICMP_ERRORS));
    rules.extend(accept_each("icmpv6", &ICMPV6));
    rules.push("meta nfproto ipv4 udp sport 67 udp dport 68 accept".to_owned());
    // RFC 8415 7.2, 16: a server may answer from any of its addresses and ports.
    rules.push("ip6 daddr fe80::/10 udp dport 546 accept".to_owned());
    for (protocol, ranges) in [("tcp", &doors.open_tcp), ("udp", &doors.open_udp)] {
        rules.extend(ranges.iter().map(|ports| format!("{protocol} dport {} accept", range(*ports))));
    }
    rules.extend(doors.open.iter().map(door));
    rules.extend(parts.inserts.after_input.iter().cloned());
    rules.extend(log(parts, EXTERNAL_INPUT));
    rules.push("meta l4proto tcp reject with tcp reset".to_owned());
    rules.push("drop".to_owned());
    rules
}

fn external_forward(parts: &Parts) -> Vec<String> {
    let mut rules = match parts.policy.forward {
        true => BEGIN.map(str::to_owned).to_vec(),
        false => Vec::new(),
    };
    rules.extend(to_open6(parts));
    rules.extend(parts.inserts.after_forward.iter().cloned());
    rules.extend(log(parts, EXTERNAL_FORWARD));
    rules.push("drop".to_owned());
    rules
}

fn zone_input(parts: &Parts, zone: &str) -> Vec<String> {
    let mut rules = BEGIN.map(str::to_owned).to_vec();
    rules.extend(accept_each("icmp", &ICMP_ERRORS));
    // Not even by IPv6 is a guest this machine's router.
    if zone != LAN {
        rules.push("icmpv6 type nd-router-advert drop".to_owned());
    }
    rules.extend(accept_each("icmpv6", &ICMPV6));
    rules.extend(accept_each("icmpv6", &MLD_REPORTS));
    for service in parts.policy.zones.router(zone) {
        rules.extend(match service {
            Service::All => vec!["accept".to_owned()],
            Service::Dhcp => ports(&[("udp", 67), ("udp", 547)]),
            Service::Dns => ports(&[("udp", 53), ("tcp", 53)]),
            Service::Ntp => ports(&[("udp", 123)]),
            Service::Ping => ping(),
            Service::Door(wanted) => vec![door(&wanted)],
        });
    }
    rules.extend(parts.inserts.after_input.iter().cloned());
    rules.extend(log(parts, &input_chain(zone)));
    rules.extend(refusal());
    rules
}

fn zone_forward(parts: &Parts, zone: &str) -> Vec<String> {
    let mut rules = BEGIN.map(str::to_owned).to_vec();
    for target in parts.policy.zones.to(zone) {
        rules.extend(match target {
            Target::Any => vec!["accept".to_owned()],
            // What is open to the outside is open to those who may go there.
            Target::Outside => {
                let outside = each("oifname", &parts.zones.external(), "accept");
                outside.into_iter().chain(to_open6(parts)).collect()
            }
            Target::Zone(name) => {
                parts.zones.of(&name).map(|interface| format!("oifname \"{interface}\" accept")).collect()
            }
        });
    }
    rules.extend(parts.inserts.after_forward.iter().cloned());
    rules.extend(log(parts, &forward_chain(zone)));
    rules.extend(refusal());
    rules
}

/// The rule that leads to open IPv6 hosts.
fn to_open6(parts: &Parts) -> Option<String> {
    let is_open = parts.policy.forward && forwards::open6(parts.openings).is_some();
    is_open.then(|| format!("jump {}", forwards::OPEN6))
}

/// A host of a zone learns at once that it may not.
fn refusal() -> [String; 2] {
    ["meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"].map(str::to_owned)
}

fn ping() -> Vec<String> {
    ["icmp", "icmpv6"].map(|protocol| format!("{protocol} type echo-request accept")).to_vec()
}

fn ports(list: &[(&str, u16)]) -> Vec<String> {
    list.iter().map(|(protocol, port)| format!("{protocol} dport {port} accept")).collect()
}

fn range((low, high): (u16, u16)) -> String {
    if low == high { low.to_string() } else { format!("{low}-{high}") }
}

/// The rule that opens a door.
fn door(door: &Door) -> String {
    let source = door.source.map(|network| format!("{} saddr {network} ", family(&network)));
    let what = match (door.name(), door.ports) {
        (Some(protocol), Some(ports)) => format!("{protocol} dport {}", range(ports)),
        (_, _) => format!("meta l4proto {}", door.protocol),
    };
    format!("{}{what} accept", source.unwrap_or_default())
}

/// The rule that writes a refused packet to the kernel's log.
fn log(parts: &Parts, chain: &str) -> Option<String> {
    let rate = parts.policy.doors.log_drops?;
    Some(format!("limit rate {}/{} log prefix \"fw: {chain}: \"", rate.packets, rate.per))
}

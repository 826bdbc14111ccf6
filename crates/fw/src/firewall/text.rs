//! What the firewall should be, as the text of one nft transaction.
//!
//! Pure. There is one table, `inet netsv`, which is ours alone. The transaction makes it, or
//! deletes it and makes it anew, all or nothing. Every word comes from an allow-list. load.rs loads
//! it.
//!
//! The table has no set, not even an anonymous one. A packet that is on its way through the old
//! table when the kernel turns to the new one still sees the old rules, but the old sets are empty
//! already. With `ct state vmap` one in forty replacements lost a forwarded packet under a ping
//! each 2 ms, and an empty set of interfaces would let a packet in.

pub use netd_core::left::TABLE;

use crate::input::policy::Policy;
use crate::input::policy::doors::Masquerade;
use crate::model::Prefix;
use crate::want::Openings;

use super::forwards;
use super::marks::{self, Marking};

/// Removes our table, whether it is there or not.
pub fn removal() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// The transaction that puts `table` in place. Without a table to delete the kernel need not wait
/// for readers of the old one: 5 ms instead of 20.
pub fn transaction(table: &str, is_there: bool) -> String {
    match is_there {
        true => removal() + table,
        // When a table has appeared meanwhile, `create` fails, where `add` would join the two.
        false => format!("create table inet {TABLE}\n{table}"),
    }
}

/// The same table for a kernel that cannot mark connections (CONFIG_NF_CONNTRACK_MARK); `None`: it
/// marks none.
pub fn without_marks(table: &str) -> Option<String> {
    table.split_once(&format!("\tchain {} ", marks::FIRST)).map(|(before, _)| format!("{before}}}\n"))
}

/// The table, or `None` when no interface is outside (or fw.conf wants no firewall).
pub fn render(external: &[String], marking: &Marking, policy: &Policy, openings: &Openings) -> Option<String> {
    if external.is_empty() || !policy.firewall {
        return None;
    }
    let mut out = format!("table inet {TABLE} {{\n");
    input(&mut out, external, policy);
    forward(&mut out, external, policy, openings);
    prerouting(&mut out, external, openings);
    postrouting(&mut out, external, &policy.doors.masquerade, openings);
    marks::render(&mut out, marking, policy);
    out += "}\n";
    Some(out)
}

pub(super) fn chain(out: &mut String, name: &str, rules: &[String]) {
    out.push_str(&format!("\tchain {name} {{\n"));
    for rule in rules {
        out.push_str(&format!("\t\t{rule}\n"));
    }
    out.push_str("\t}\n");
}

/// A rule for each interface.
fn each(word: &str, interfaces: &[String], rest: &str) -> Vec<String> {
    interfaces.iter().map(|name| format!("{word} \"{name}\" {rest}")).collect()
}

/// What begins every chain for packets from outside. A destination that a dnat rule of the
/// administrator has rewritten is open, because that rule opens it.
const ANSWERS: [&str; 3] = ["ct state established,related accept", "ct state invalid drop", "ct status dnat accept"];

const ICMP: [&str; 4] = ["echo-request", "destination-unreachable", "time-exceeded", "parameter-problem"];

/// RFC 4890 4.4: IPv6 does not work without these.
const ICMPV6: [&str; 10] = [
    "echo-request",
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

fn input(out: &mut String, external: &[String], policy: &Policy) {
    let mut rules = ANSWERS.map(str::to_owned).to_vec();
    rules.extend(ICMP.iter().map(|kind| format!("icmp type {kind} accept")));
    rules.extend(ICMPV6.iter().map(|kind| format!("icmpv6 type {kind} accept")));
    rules.push("meta nfproto ipv4 udp sport 67 udp dport 68 accept".to_owned());
    rules.push("ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept".to_owned());
    for (protocol, ranges) in [("tcp", &policy.doors.open_tcp), ("udp", &policy.doors.open_udp)] {
        rules.extend(ranges.iter().map(|(low, high)| match low == high {
            true => format!("{protocol} dport {low} accept"),
            false => format!("{protocol} dport {low}-{high} accept"),
        }));
    }
    rules.push("meta l4proto tcp reject with tcp reset".to_owned());
    rules.push("drop".to_owned());
    chain(out, "external_input", &rules);
    let mut hook = vec!["type filter hook input priority filter; policy accept;".to_owned()];
    hook.extend(each("iifname", external, "goto external_input"));
    chain(out, "input", &hook);
}

fn forward(out: &mut String, external: &[String], policy: &Policy, openings: &Openings) {
    let mut hook = vec!["type filter hook forward priority filter; policy accept;".to_owned()];
    // RFC 3927 7: no router forwards these addresses, whatever its routes say. The kernel itself
    // keeps IPv6's on their link.
    hook.extend(["saddr", "daddr"].map(|end| format!("ip {end} 169.254.0.0/16 drop")));
    if policy.forward {
        let mut rules = ANSWERS.map(str::to_owned).to_vec();
        if let Some(hosts) = forwards::open6(openings) {
            chain(out, forwards::OPEN6, &hosts);
            rules.push(format!("jump {}", forwards::OPEN6));
        }
        rules.push("drop".to_owned());
        chain(out, "external_forward", &rules);
        if let Some(networks) = forwards::lost(openings) {
            chain(out, forwards::LOST, &networks);
            hook.extend(forwards::to_lost(openings, external));
        }
        // RFC 4459 3.2: path MTU discovery fails behind tunnels and broken firewalls; the uplinks'
        // MTUs may differ.
        let clamp = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu";
        hook.extend(each("oifname", external, clamp));
        hook.extend(each("iifname", external, "goto external_forward"));
    } else {
        hook.extend(each("iifname", external, "drop"));
        hook.extend(each("oifname", external, "drop"));
    }
    chain(out, "forward", &hook);
}

fn prerouting(out: &mut String, external: &[String], openings: &Openings) {
    let Some(rules) = forwards::port_forward(openings) else { return };
    chain(out, forwards::PORT_FORWARD, &rules);
    let mut hook = vec!["type nat hook prerouting priority dstnat; policy accept;".to_owned()];
    hook.extend(forwards::to_port_forward(openings, external));
    chain(out, "prerouting", &hook);
}

fn postrouting(out: &mut String, external: &[String], who: &Masquerade, openings: &Openings) {
    let mut rules = forwards::hairpin(openings);
    rules.extend(masquerade(who).iter().flat_map(|source| each("oifname", external, source)));
    if !rules.is_empty() {
        rules.insert(0, "type nat hook postrouting priority srcnat; policy accept;".to_owned());
        chain(out, "postrouting", &rules);
    }
}

/// Which packets get the address of the uplink by which they leave.
fn masquerade(who: &Masquerade) -> Vec<String> {
    match who {
        Masquerade::No => Vec::new(),
        // This host's own packets have the right source already. IPv6 networks with global
        // addresses are routed; RFC 4193 addresses would get no answer.
        Masquerade::Auto => ["meta nfproto ipv4", "ip6 saddr fc00::/7"]
            .map(|source| format!("{source} fib saddr type != local masquerade"))
            .to_vec(),
        Masquerade::Only(networks) => networks.iter().map(|n| format!("{} saddr {n} masquerade", family(n))).collect(),
    }
}

pub(super) fn family(network: &Prefix) -> &'static str {
    if network.ip.is_ipv4() { "ip" } else { "ip6" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::policy::doors::Doors;

    fn marking(numbers: &[(&str, u8)]) -> Marking {
        let numbers = numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
        Marking { numbers, stay: true, ..Marking::default() }
    }

    #[test]
    fn no_interface_outside_means_no_table() {
        assert_eq!(render(&[], &marking(&[]), &Policy::default(), &Openings::default()), None);
        assert_eq!(
            render(
                &["eth0".into()],
                &marking(&[]),
                &Policy { firewall: false, ..Policy::default() },
                &Openings::default()
            ),
            None
        );
    }

    #[test]
    fn the_whole_table() {
        let doors = Doors { open_tcp: vec![(22, 22), (8000, 9000)], ..Doors::default() };
        let policy = Policy { doors, ..Policy::default() };
        let numbers = marking(&[("eth0", 2), ("wlan0", 1)]);
        let text = render(&["eth0".into(), "wlan0".into()], &numbers, &policy, &Openings::default()).unwrap();
        assert_eq!(transaction(&text, true), include_str!("../../tests/golden/two_uplinks.nft"));
    }

    #[test]
    fn a_table_without_marks_is_that_of_uplinks_without_numbers() {
        let external = ["eth0".to_owned(), "wlan0".to_owned()];
        let render = |marking| render(&external, &marking, &Policy::default(), &Openings::default()).unwrap();
        let balance = vec![("eth0".to_owned(), 2), ("wlan0".to_owned(), 1)];
        for marks in [&[("eth0", 1)][..], &[("eth0", 1), ("wlan0", 2)]] {
            let whole = render(Marking { balance: balance.clone(), ..marking(marks) });
            assert_eq!(without_marks(&whole).unwrap(), render(marking(&[])));
        }
        assert_eq!(without_marks(&render(marking(&[]))), None);
    }

    #[test]
    fn forwarding_refused_and_networks_by_name() {
        let networks = ["192.168.1.0/24", "fd00::/8"].map(|n| Prefix::parse(n).unwrap());
        let doors = Doors {
            open_udp: vec![(51820, 51820)],
            masquerade: Masquerade::Only(networks.to_vec()),
            ..Doors::default()
        };
        let policy = Policy { forward: false, doors, ..Policy::default() };
        let text = render(&["eth0.5".into()], &marking(&[]), &policy, &Openings::default()).unwrap();
        assert_eq!(transaction(&text, false), include_str!("../../tests/golden/closed.nft"));
    }
}

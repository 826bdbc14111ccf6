//! What the firewall should be, as the text of one nft transaction.
//!
//! Pure. There is one table, `inet netsv`, which is ours alone. The transaction makes it, or
//! deletes it and makes it anew, all or nothing. Every word comes from an allow-list. This file has
//! the frame: the base chains and the order of their rules. The chains that they call are in the
//! files beside it: zones.rs, nat.rs, marks.rs, forwards.rs. load.rs loads the table.
//!
//! The table is closed by structure. A packet passes because a rule for its interface says so; the
//! rest, also of a card that is plugged in later, comes to the end of the chain.
//!
//! The table has no set, not even an anonymous one. A packet that is on its way through the old
//! table when the kernel turns to the new one still sees the old rules, but the old sets are empty
//! already. With `ct state vmap` one in forty replacements lost a forwarded packet under a ping
//! each 2 ms, and an empty set of interfaces would let a packet in.

pub use netd_core::left::TABLE;

use super::parts::{Chain, Parts, chain, each};
use super::{forwards, marks, nat, zones};

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

/// The table, or `None` when fw.conf wants no firewall.
pub fn render(parts: &Parts) -> Option<String> {
    if !parts.policy.firewall {
        return None;
    }
    let external = parts.zones.external();
    let mut out = format!("{}table inet {TABLE} {{\n{}", parts.inserts.defines, parts.inserts.text);
    out += &nat::flowtable(parts).unwrap_or_default();
    let called = [nat::port_forward(parts), forwarding(parts), zones::chains(parts)].concat();
    called.iter().for_each(|(name, rules)| chain(&mut out, name, rules));
    chain(&mut out, "input", &input(parts, &external));
    chain(&mut out, "forward", &forward(parts, &external));
    let bases =
        [("prerouting", nat::prerouting(parts, &external)), ("postrouting", nat::postrouting(parts, &external))];
    for (name, rules) in bases.iter().filter(|(_, rules)| rules.len() > 1) {
        chain(&mut out, name, rules);
    }
    marks::render(&mut out, parts.marking, parts.policy);
    out += "}\n";
    Some(out)
}

/// Chains of hosts behind this machine that are open.
fn forwarding(parts: &Parts) -> Vec<Chain> {
    let chains = [(forwards::OPEN6, forwards::open6(parts.openings)), (forwards::LOST, forwards::lost(parts.openings))];
    let used = chains.into_iter().filter(|_| parts.policy.forward);
    used.filter_map(|(name, rules)| Some((name.to_owned(), rules?))).collect()
}

/// Packets to this machine.
fn input(parts: &Parts, external: &[String]) -> Vec<String> {
    let mut rules = vec!["type filter hook input priority filter; policy drop;".to_owned()];
    rules.push("iifname \"lo\" accept".to_owned());
    rules.extend(parts.inserts.before_input.iter().cloned());
    rules.push(zones::KNOWN.to_owned());
    rules.extend(each("iifname", external, &format!("goto {}", zones::EXTERNAL_INPUT)));
    rules.extend(zones::nameless(parts.zones, zones::EXTERNAL_INPUT));
    rules.extend(zones::to_input(parts));
    rules.extend(zones::unlisted(parts.policy.zones.unlisted));
    rules.push(format!("goto {}", zones::EXTERNAL_INPUT));
    rules
}

/// Packets through this machine.
fn forward(parts: &Parts, external: &[String]) -> Vec<String> {
    let mut rules = vec!["type filter hook forward priority filter; policy drop;".to_owned()];
    rules.extend(zones::within_bridges(parts.zones));
    // RFC 3927 7: no router forwards these addresses, whatever its routes say; a bridge does. The
    // kernel itself keeps IPv6's on their link.
    rules.extend(["saddr", "daddr"].map(|end| format!("ip {end} 169.254.0.0/16 drop")));
    rules.extend(parts.inserts.before_forward.iter().cloned());
    if !parts.policy.forward {
        rules.extend(each("iifname", external, "drop"));
        rules.extend(each("oifname", external, "drop"));
    }
    // A packet of no connection is not masqueraded, so that it would leave with an address of the
    // LAN (BCP 38): the last words of a connection that was moved to another uplink.
    rules.extend(each("oifname", external, "ct state invalid drop"));
    if parts.policy.forward {
        rules.extend(forwards::to_lost(parts.openings, external));
    }
    // RFC 4459 3.2: path MTU discovery fails behind tunnels and broken firewalls. Both ends of a
    // connection learn the smaller MTU of both directions.
    rules.push("tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu".to_owned());
    rules.extend(nat::to_flowtable(parts));
    rules.push(zones::KNOWN.to_owned());
    rules.extend(each("iifname", external, &format!("goto {}", zones::EXTERNAL_FORWARD)));
    rules.extend(zones::nameless(parts.zones, zones::EXTERNAL_FORWARD));
    rules.extend(zones::to_forward(parts));
    rules.extend(zones::unlisted(parts.policy.zones.unlisted));
    rules.push(format!("goto {}", zones::EXTERNAL_FORWARD));
    rules
}

#[cfg(test)]
mod tests;

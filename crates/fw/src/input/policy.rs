//! fw.conf: the administrator's policy, KEY="VALUE" lines as at the head of the seed's script.
//!
//! Pure. The file is data: nothing is expanded or run. A wrong line is reported with its number,
//! and the others still count here; the caller, files.rs, prefers the last good content. want.rs
//! and firewall/text.rs act on the knobs, and `man 8 fw` lists them.

use netd_core::net::IfName;
use netd_core::record::text::MAX_FILE;

use crate::model::{self, Prefix};

/// The addition to the metric of an uplink's default routes while its link record says that it is
/// down. NetworkManager uses the same distance for a connection without connectivity.
pub const DEMOTE_METRIC: u32 = 20_000;

/// Which forwarded networks leave an external interface with its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Masquerade {
    /// Every IPv4 network behind the other interfaces, and IPv6 unique local ones.
    Auto,
    /// None.
    No,
    /// These.
    Only(Vec<Prefix>),
}

/// The knobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Interface whose default route comes first.
    pub preferred: Option<String>,
    /// External interfaces; empty: the uplinks.
    pub external: Vec<String>,
    /// TCP port ranges that are open on external interfaces.
    pub open_tcp: Vec<(u16, u16)>,
    /// UDP port ranges that are open on external interfaces.
    pub open_udp: Vec<(u16, u16)>,
    /// Remove foreign addresses and routes.
    pub reset: bool,
    /// Who is masqueraded.
    pub masquerade: Masquerade,
    /// Whether this machine routes between its interfaces.
    pub forward: bool,
    /// Added to the metric of a bad uplink.
    pub demote_metric: u32,
    /// Whether there is an nft table at all.
    pub firewall: bool,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            preferred: None,
            external: Vec::new(),
            open_tcp: Vec::new(),
            open_udp: Vec::new(),
            reset: false,
            masquerade: Masquerade::Auto,
            forward: true,
            demote_metric: DEMOTE_METRIC,
            firewall: true,
        }
    }
}

/// A wrong line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Reads fw.conf.
pub fn parse(text: &[u8]) -> (Policy, Vec<PolicyError>) {
    let mut policy = Policy::default();
    let mut errors = Vec::new();
    if text.len() > MAX_FILE {
        errors.push(PolicyError { line: 0, what: "larger than 64 KiB".to_owned() });
    }
    for (index, line) in text.split(|b| *b == b'\n').enumerate() {
        if let Err(what) = parse_line(line, &mut policy) {
            errors.push(PolicyError { line: index + 1, what });
        }
    }
    (policy, errors)
}

fn parse_line(line: &[u8], policy: &mut Policy) -> Result<(), String> {
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(());
    }
    let (key, rest) = line.split_once('=').ok_or("not a KEY=\"VALUE\" line")?;
    let value = value(rest)?;
    set(policy, key, value)
}

/// A bare, `'..'` or `".."` word, and nothing but a comment after it.
fn value(text: &str) -> Result<&str, String> {
    let (value, rest) = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let inner = text.get(1..).unwrap_or_default();
            inner.split_once(quote).ok_or("quote without an end")?
        }
        Some(_) | None => text.split_at(text.find([' ', '\t']).unwrap_or(text.len())),
    };
    let rest = rest.trim_start();
    if !(rest.is_empty() || rest.starts_with('#')) {
        return Err(format!("text after the value: {}", rest.escape_debug()));
    }
    match value.contains(['$', '`', '\\']) || value.chars().any(char::is_control) {
        true => Err("expansion or escape: values are data, never run".to_owned()),
        false => Ok(value),
    }
}

fn set(policy: &mut Policy, key: &str, value: &str) -> Result<(), String> {
    match key {
        "preferred_default_route_iface" => policy.preferred = interfaces(value)?.into_iter().next(),
        "extif" => policy.external = interfaces(value)?,
        "ext_open_tcp" => policy.open_tcp = ports(value)?,
        "ext_open_udp" => policy.open_udp = ports(value)?,
        "reset_all_netdevs" => policy.reset = yes_or_no(value)?,
        "masquerade" => policy.masquerade = masquerade(value)?,
        "forward" => policy.forward = yes_or_no(value)?,
        "firewall" => policy.firewall = yes_or_no(value)?,
        "demote_metric" => {
            policy.demote_metric =
                model::decimal(value).filter(|n| (1..=1_000_000_000).contains(n)).ok_or_else(|| bad(value))?;
        }
        // The seed's helpers ran as this user. fw has no such helpers, so any value is right.
        "user" => {}
        unknown => return Err(format!("unknown key: {}", unknown.escape_debug())),
    }
    Ok(())
}

fn bad(value: &str) -> String {
    format!("bad value: {}", value.escape_debug())
}

/// An empty value is "no", as an unset variable is in the seed's `test`.
fn yes_or_no(value: &str) -> Result<bool, String> {
    match value {
        "yes" | "y" | "1" | "true" => Ok(true),
        "" | "no" | "n" | "0" | "false" => Ok(false),
        other => Err(bad(other)),
    }
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split([' ', '\t', ',']).filter(|w| !w.is_empty())
}

fn interfaces(value: &str) -> Result<Vec<String>, String> {
    words(value).map(|w| if IfName::parse(w).is_some() { Ok(w.to_owned()) } else { Err(bad(w)) }).collect()
}

fn ports(value: &str) -> Result<Vec<(u16, u16)>, String> {
    let mut ports: Vec<(u16, u16)> =
        words(value).map(|w| port_range(w).ok_or_else(|| bad(w))).collect::<Result<_, _>>()?;
    ports.sort_unstable();
    Ok(join_ranges(ports))
}

fn port_range(word: &str) -> Option<(u16, u16)> {
    let (low, high) = word.split_once(['-', ':']).unwrap_or((word, word));
    let (low, high) = (model::decimal::<u16>(low)?, model::decimal::<u16>(high)?);
    (low > 0 && low <= high).then_some((low, high))
}

/// nft refuses a set whose ranges overlap: sorted ranges that touch or overlap become one.
fn join_ranges(sorted: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    let mut out: Vec<(u16, u16)> = Vec::new();
    for (low, high) in sorted {
        match out.last_mut() {
            Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
            Some(_) | None => out.push((low, high)),
        }
    }
    out
}

fn masquerade(value: &str) -> Result<Masquerade, String> {
    match value {
        "" | "auto" | "yes" => Ok(Masquerade::Auto),
        "no" => Ok(Masquerade::No),
        list => {
            let networks = words(list).map(|w| Prefix::parse(w).map(Prefix::network).ok_or_else(|| bad(w)));
            let mut networks = networks.collect::<Result<Vec<_>, _>>()?;
            networks.sort_unstable();
            networks.dedup();
            // nft refuses a set with a network inside another one.
            let all = networks.clone();
            networks.retain(|n| !all.iter().any(|o| o.len < n.len && o.contains(n.ip)));
            Ok(Masquerade::Only(networks))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &str) -> Policy {
        let (policy, errors) = parse(text.as_bytes());
        assert_eq!(errors, [], "{text}");
        policy
    }

    #[test]
    fn the_seeds_knobs_by_name() {
        let policy = clean(
            "# policy\nuser=\"root\"\nreset_all_netdevs=\"yes\"\npreferred_default_route_iface=\"eth0\" # cable\n\
             extif='eth0 wlan0'\next_open_tcp=\"22 80,443\"\n",
        );
        assert_eq!(policy.preferred.as_deref(), Some("eth0"));
        assert_eq!(policy.external, ["eth0", "wlan0"]);
        assert_eq!(policy.open_tcp, [(22, 22), (80, 80), (443, 443)]);
        assert!(policy.reset);
        assert_eq!(clean("").masquerade, Masquerade::Auto);
        assert_eq!(clean("preferred_default_route_iface=\"\"\nextif=\n").preferred, None);
    }

    #[test]
    fn ranges_that_touch_become_one_because_nft_refuses_overlaps() {
        assert_eq!(clean("ext_open_tcp='80 20-25 22:30 31 8000-9000'").open_tcp, [(20, 31), (80, 80), (8000, 9000)]);
        assert_eq!(
            clean("masquerade='10.1.0.0/16 10/8 192.168.1.7/24 10/8'").masquerade,
            Masquerade::Only(vec![Prefix::parse("10/8").unwrap(), Prefix::parse("192.168.1.0/24").unwrap()])
        );
    }

    #[test]
    fn a_wrong_line_is_named_and_the_others_count() {
        let text = "forward=\"no\"\nnonsense\nexitf=\"eth0\"\nextif=\"eth0;reboot\"\next_open_tcp=\"0\"\n\
                    ext_open_tcp=\"9-3\"\nmasquerade=\"maybe\"\nextif=\"$(x)\"\nextif=\"a\" b\nextif=\"a\ndemote_metric=0\n";
        let (policy, errors) = parse(text.as_bytes());
        assert!(!policy.forward);
        assert_eq!(policy, Policy { forward: false, ..Policy::default() });
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(errors[1].what, "unknown key: exitf");
    }
}

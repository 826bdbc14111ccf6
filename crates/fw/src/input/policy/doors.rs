//! The words of fw.conf about what is open to the outside, and about who leaves by which address.
//!
//! Pure. Called by policy.rs; the files of firewall/ act on them.

use super::{Word, bad, split};
use crate::model::{self, Prefix};

/// Which forwarded networks leave an external interface with its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Masquerade {
    /// Every IPv4 network behind the other interfaces, and IPv6 unique local ones.
    #[default]
    Auto,
    /// None.
    No,
    /// These.
    Only(Vec<Prefix>),
}

/// What is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// TCP port ranges that are open on external interfaces.
    pub open_tcp: Vec<(u16, u16)>,
    /// UDP port ranges that are open on external interfaces.
    pub open_udp: Vec<(u16, u16)>,
    /// Who is masqueraded.
    pub masquerade: Masquerade,
}

/// The table.
pub(super) const WORDS: &[Word] = &[
    Word {
        name: "ext_open_tcp",
        means: "TCP ports of this machine that are open to the outside",
        read: |p, given| ports(given.value).map(|ports| p.doors.open_tcp = ports),
    },
    Word {
        name: "ext_open_udp",
        means: "UDP ports of this machine that are open to the outside",
        read: |p, given| ports(given.value).map(|ports| p.doors.open_udp = ports),
    },
    Word {
        name: "masquerade",
        means: "networks that leave an uplink with its address",
        read: |p, given| masquerade(given.value).map(|who| p.doors.masquerade = who),
    },
];

fn ports(value: &str) -> Result<Vec<(u16, u16)>, String> {
    let mut ports: Vec<(u16, u16)> =
        split(value).map(|w| port_range(w).ok_or_else(|| bad(w))).collect::<Result<_, _>>()?;
    ports.sort_unstable();
    Ok(join_ranges(ports))
}

/// A port, or LOW-HIGH.
pub(crate) fn port_range(word: &str) -> Option<(u16, u16)> {
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
            let networks = split(list).map(|w| Prefix::parse(w).map(Prefix::network).ok_or_else(|| bad(w)));
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
    use crate::input::policy::tests::clean;

    #[test]
    fn ranges_that_touch_become_one_because_nft_refuses_overlaps() {
        let ports = clean("ext_open_tcp='80 20-25 22:30 31 8000-9000'").doors.open_tcp;
        assert_eq!(ports, [(20, 31), (80, 80), (8000, 9000)]);
        assert_eq!(
            clean("masquerade='10.1.0.0/16 10/8 192.168.1.7/24 10/8'").doors.masquerade,
            Masquerade::Only(vec![Prefix::parse("10/8").unwrap(), Prefix::parse("192.168.1.0/24").unwrap()])
        );
    }
}

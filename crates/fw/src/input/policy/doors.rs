//! The words of fw.conf about what is open to the outside, and about who leaves by which address.
//!
//! Pure. Called by policy.rs; the files of firewall/ act on them.

use super::{Word, bad, split, yes_or_no};
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

/// A door to this machine: a protocol, with ports where it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// Number of the protocol (IANA).
    pub protocol: u8,
    /// The ports, both ends included.
    pub ports: Option<(u16, u16)>,
    /// Who may come in; `None`: every address.
    pub source: Option<Prefix>,
}

/// Protocols with ports, as nft calls them, and their numbers (IANA).
const WITH_PORTS: [(&str, u8); 3] = [("tcp", 6), ("udp", 17), ("sctp", 132)];
/// Protocols without.
const WITHOUT_PORTS: [(&str, u8); 7] =
    [("ah", 51), ("esp", 50), ("gre", 47), ("igmp", 2), ("ipip", 4), ("ospf", 89), ("vrrp", 112)];

impl Door {
    /// Reads `tcp/22`, `udp/8000-8010@203.0.113.0/24`, `esp`, `proto/41`.
    pub fn parse(word: &str) -> Option<Door> {
        let (what, source) = match word.split_once('@') {
            Some((what, source)) => (what, Some(Prefix::parse(source)?.network())),
            None => (word, None),
        };
        let number = |list: &[(&str, u8)], name: &str| list.iter().find(|(n, _)| *n == name).map(|(_, number)| *number);
        let (protocol, ports) = match what.split_once('/') {
            Some(("proto", protocol)) => (model::decimal(protocol)?, None),
            Some((name, ports)) => (number(&WITH_PORTS, name)?, Some(port_range(ports)?)),
            None => (number(&WITHOUT_PORTS, what)?, None),
        };
        Some(Door { protocol, ports, source })
    }

    /// How nft calls the protocol, when it has ports.
    pub fn name(&self) -> Option<&'static str> {
        WITH_PORTS.iter().find(|(_, number)| *number == self.protocol).map(|(name, _)| *name)
    }
}

/// How many dropped packets are written to the kernel's log: `10/minute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many.
    pub packets: u32,
    /// In this time, as nft calls it.
    pub per: &'static str,
}

impl Rate {
    fn parse(text: &str) -> Option<Rate> {
        let (packets, per) = text.split_once('/')?;
        let per = ["second", "minute", "hour", "day"].into_iter().find(|unit| *unit == per)?;
        Some(Rate { packets: model::decimal(packets).filter(|n| (1..=100_000).contains(n))?, per })
    }
}

/// What is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// TCP port ranges that are open on external interfaces.
    pub open_tcp: Vec<(u16, u16)>,
    /// UDP port ranges that are open on external interfaces.
    pub open_udp: Vec<(u16, u16)>,
    /// What else is open on external interfaces.
    pub open: Vec<Door>,
    /// Who is masqueraded.
    pub masquerade: Masquerade,
    /// How many dropped packets are logged; `None`: none.
    pub log_drops: Option<Rate>,
    /// Packets of known connections take the kernel's short way (flowtable).
    pub offload: bool,
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
        name: "ext_open",
        means: "ports and protocols of this machine that are open to the outside",
        read: |p, given| doors(given.value).map(|doors| p.doors.open = doors),
    },
    Word {
        name: "masquerade",
        means: "networks that leave an uplink with its address",
        read: |p, given| masquerade(given.value).map(|who| p.doors.masquerade = who),
    },
    Word {
        name: "log_drops",
        means: "how many dropped packets are logged",
        read: |p, given| rate(given.value).map(|rate| p.doors.log_drops = rate),
    },
    Word {
        name: "flow_offload",
        means: "whether known connections take the kernel's short way",
        read: |p, given| yes_or_no(given.value).map(|yes| p.doors.offload = yes),
    },
];

fn doors(value: &str) -> Result<Vec<Door>, String> {
    split(value).map(|w| Door::parse(w).ok_or_else(|| bad(w))).collect()
}

fn rate(value: &str) -> Result<Option<Rate>, String> {
    match value {
        "" | "no" => Ok(None),
        some => Rate::parse(some).map(Some).ok_or_else(|| bad(some)),
    }
}

fn ports(value: &str) -> Result<Vec<(u16, u16)>, String> {
    let mut ports: Vec<(u16, u16)> =
        split(value).map(|w| port_range(w).ok_or_else(|| bad(w))).collect::<Result<_, _>>()?;
    applet::sort::sort(&mut ports);
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
            applet::sort::sort(&mut networks);
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

    #[test]
    fn doors_have_a_protocol_ports_and_a_source() {
        let door = |protocol, ports, source: Option<&str>| Door {
            protocol,
            ports,
            source: source.map(|s| Prefix::parse(s).unwrap()),
        };
        let doors =
            clean("ext_open=\"tcp/22 tcp/8000-8010@203.0.113.7/24 udp/500@2001:db8::/32 esp gre proto/41 igmp\"").doors;
        assert_eq!(
            doors.open,
            [
                door(6, Some((22, 22)), None),
                door(6, Some((8000, 8010)), Some("203.0.113.0/24")),
                door(17, Some((500, 500)), Some("2001:db8::/32")),
                door(50, None, None),
                door(47, None, None),
                door(41, None, None),
                door(2, None, None),
            ]
        );
        for wrong in [
            "22",
            "tcp",
            "tcp/",
            "tcp/0",
            "tcp/9-3",
            "esp/3",
            "proto/256",
            "proto/x",
            "icmq",
            "tcp/22@",
            "tcp/22@x",
            "esp;x",
        ] {
            assert_eq!(Door::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_a_number_of_packets_in_a_time() {
        assert_eq!(clean("log_drops=\"10/minute\"").doors.log_drops, Some(Rate { packets: 10, per: "minute" }));
        assert_eq!(clean("log_drops=\"no\"").doors.log_drops, None);
        for wrong in ["10", "0/minute", "10/week", "x/minute", "-1/second"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}

//! The words of fw.conf about uplinks.
//!
//! Pure. Called by policy.rs; want/uplinks.rs, want/routes.rs, ways.rs and firewall/marks.rs act on
//! them.

use netd_core::net::IfName;

use super::{Word, bad, interfaces, split};
use crate::model::{self, Prefix};

/// The addition to the metric of an uplink's default routes while its link record says that it is
/// down. NetworkManager uses the same distance for a connection without connectivity.
pub const DEMOTE_METRIC: u32 = 20_000;
/// The longest list of one host: the number of its table has two digits for each uplink.
const MAX_LIST: usize = 3;
/// The largest weight. All weights together are a divisor in the kernel.
const MAX_WEIGHT: u32 = 1000;

/// Which connections move when a better uplink is back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// New ones only, and those over a metered uplink.
    #[default]
    New,
    /// All.
    All,
}

/// A host or a network, and the uplinks that it leaves by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub source: Prefix,
    /// The first one that works is used.
    pub uplinks: Vec<String>,
}

/// Uplinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplinks {
    /// Interface whose default route comes first.
    pub preferred: Option<String>,
    /// The order of the others.
    pub order: Vec<String>,
    /// Uplinks where each packet costs.
    pub metered: Vec<String>,
    /// Added to the metric of a bad uplink.
    pub demote_metric: u32,
    /// What happens to connections when a better uplink is back.
    pub failback: Failback,
    /// Who leaves by which uplinks.
    pub route_by: Vec<By>,
    /// How many of all new connections go by each uplink.
    pub balance: Vec<(String, u32)>,
}

impl Default for Uplinks {
    fn default() -> Uplinks {
        Uplinks {
            preferred: None,
            order: Vec::new(),
            metered: Vec::new(),
            demote_metric: DEMOTE_METRIC,
            failback: Failback::New,
            route_by: Vec::new(),
            balance: Vec::new(),
        }
    }
}

impl Uplinks {
    /// The uplinks that have a place of their own, the first one first.
    pub fn places(&self) -> Vec<&str> {
        unique(self.preferred.iter().chain(&self.order))
    }

    /// Every uplink that fw.conf names, in an order that does not depend on what is there.
    pub fn named(&self) -> Vec<&str> {
        let lists = self.route_by.iter().flat_map(|by| &by.uplinks);
        let shares = self.balance.iter().map(|(name, _)| name);
        unique(self.order.iter().chain(&self.preferred).chain(shares).chain(lists).chain(&self.metered))
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut out: Vec<&str> = Vec::new();
    for name in names {
        if !out.contains(&name.as_str()) {
            out.push(name);
        }
    }
    out
}

/// The table.
pub(super) const WORDS: &[Word] = &[
    Word {
        name: "preferred_default_route_iface",
        means: "the uplink that comes first",
        read: |p, given| interfaces(given.value).map(|names| p.uplinks.preferred = names.into_iter().next()),
    },
    Word {
        name: "uplinks",
        means: "the order of the uplinks",
        read: |p, given| interfaces(given.value).map(|names| p.uplinks.order = names),
    },
    Word {
        name: "metered",
        means: "uplinks where each packet costs",
        read: |p, given| interfaces(given.value).map(|names| p.uplinks.metered = names),
    },
    Word {
        name: "demote_metric",
        means: "what is added to the metric of a bad uplink",
        read: |p, given| {
            let number = model::decimal(given.value).filter(|n| (1..=1_000_000_000).contains(n));
            number.map(|n| p.uplinks.demote_metric = n).ok_or_else(|| bad(given.value))
        },
    },
    Word {
        name: "failback",
        means: "which connections move when a better uplink is back",
        read: |p, given| failback(given.value).map(|what| p.uplinks.failback = what),
    },
    Word {
        name: "route_by",
        means: "hosts and networks that leave by uplinks of their own",
        read: |p, given| route_by(given.value).map(|list| p.uplinks.route_by = list),
    },
    Word {
        name: "balance",
        means: "how many of all new connections go by each uplink",
        read: |p, given| balance(given.value).map(|shares| p.uplinks.balance = shares),
    },
];

fn failback(value: &str) -> Result<Failback, String> {
    match value {
        "" | "new" => Ok(Failback::New),
        "all" => Ok(Failback::All),
        other => Err(bad(other)),
    }
}

/// `SOURCE>UPLINK,UPLINK`, separated by blanks.
fn route_by(value: &str) -> Result<Vec<By>, String> {
    let mut out: Vec<By> = Vec::new();
    for word in value.split([' ', '\t']).filter(|w| !w.is_empty()) {
        let (source, list) = word.split_once('>').ok_or_else(|| bad(word))?;
        // All of a family would be the default route, and that has its own words.
        let source = Prefix::parse(source).map(Prefix::network).filter(|n| !n.is_default()).ok_or_else(|| bad(word))?;
        let uplinks = interfaces(list)?;
        if uplinks.is_empty() || unique(uplinks.iter()).len() != uplinks.len() {
            return Err(bad(word));
        }
        if uplinks.len() > MAX_LIST {
            return Err(format!("more than {MAX_LIST} uplinks: {}", word.escape_debug()));
        }
        if out.iter().any(|by| by.source == source) {
            return Err(format!("named twice: {}", word.escape_debug()));
        }
        out.push(By { source, uplinks });
    }
    Ok(out)
}

/// `UPLINK:WEIGHT`, or `UPLINK` for a weight of one.
fn balance(value: &str) -> Result<Vec<(String, u32)>, String> {
    let mut out: Vec<(String, u32)> = Vec::new();
    for word in split(value) {
        let (name, weight) = word.split_once(':').unwrap_or((word, "1"));
        let weight = model::decimal(weight).filter(|w| (1..=MAX_WEIGHT).contains(w));
        let is_new = IfName::parse(name).is_some() && !out.iter().any(|(n, _)| n == name);
        match weight.filter(|_| is_new) {
            Some(weight) => out.push((name.to_owned(), weight)),
            None => return Err(bad(word)),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::policy::parse;
    use crate::input::policy::tests::clean;

    #[test]
    fn order_and_numbers_by_name() {
        let uplinks = clean(
            "uplinks=\"eth0 eth1 wwan0\"\npreferred_default_route_iface=eth1\nmetered='wwan0 usb0'\n\
             balance='eth0:2 eth2'\nroute_by='10.0.3.0/24>eth3,eth1'\n",
        )
        .uplinks;
        assert_eq!(uplinks.places(), ["eth1", "eth0", "wwan0"]);
        assert_eq!(uplinks.named(), ["eth0", "eth1", "wwan0", "eth2", "eth3", "usb0"]);
        assert_eq!(uplinks.balance, [("eth0".to_owned(), 2), ("eth2".to_owned(), 1)]);
        assert_eq!((clean("").uplinks.places(), clean("").uplinks.named()), (vec![], vec![]));
    }

    #[test]
    fn hosts_and_networks_of_both_families() {
        let by = clean("route_by=\"10.0.3.7/24>eth1 10.0.0.66>eth1,eth0  fd00:3::/64>wwan0 2001:db8::7>eth0\"").uplinks;
        let shown: Vec<String> =
            by.route_by.iter().map(|by| format!("{}>{}", by.source, by.uplinks.join(","))).collect();
        let want = ["10.0.3.0/24>eth1", "10.0.0.66/32>eth1,eth0", "fd00:3::/64>wwan0", "2001:db8::7/128>eth0"];
        assert_eq!(shown, want);
        assert_eq!(clean("failback=all").uplinks.failback, Failback::All);
        assert_eq!(clean("failback=new").uplinks, Uplinks::default());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "route_by='10.0.3.0/24'",
            "route_by='10.0.3.0/24>'",
            "route_by='10.0.3.0/33>eth0'",
            "route_by='0.0.0.0/0>eth0'",
            "route_by='::/0>eth0'",
            "route_by='10.0.3.0/24>eth0,eth0'",
            "route_by='10.0.3.0/24>a,b,c,d'",
            "route_by='10.0.3.0/24>eth0 10.0.3.9/24>eth1'",
            "route_by='lan0>eth0'",
            "route_by='10.0.0.1>et/h0'",
            "balance='eth0:0'",
            "balance='eth0:1001'",
            "balance='eth0:-1'",
            "balance='eth0:x'",
            "balance='eth0 eth0:2'",
            "balance=':2'",
            "failback='some'",
            "uplinks='eth0;reboot'",
            "metered='..'",
        ] {
            let (policy, errors) = parse(line.as_bytes());
            assert_eq!((errors.len(), policy.uplinks), (1, Uplinks::default()), "{line}");
        }
    }
}

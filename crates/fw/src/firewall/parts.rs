//! What the table is made of, and how its lines are written.
//!
//! Pure. text.rs and the files of the chains beside it use it.

use crate::have::MARKS;
use crate::input::policy::Policy;
use crate::model::Prefix;
use crate::want::zones::Zones;
use crate::want::{Openings, Want};

/// The number that no uplink has, of packets between two ports of a closed bridge.
pub(super) const BRIDGED: u32 = MARKS;

/// A chain: its name and its rules.
pub type Chain = (String, Vec<String>);

/// Rules of the administrator's, each list for its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inserts {
    /// Definitions that stand before the table.
    pub defines: String,
    /// Chains, sets and maps at the head of the table.
    pub text: String,
    /// At the head of the chain at hook input, behind the loopback.
    pub before_input: Vec<String>,
    /// Before a packet to this machine is refused.
    pub after_input: Vec<String>,
    /// At the head of the chain at hook forward.
    pub before_forward: Vec<String>,
    /// Before a packet through this machine is refused.
    pub after_forward: Vec<String>,
    /// In the chain at hook prerouting that rewrites destinations, before port forwards.
    pub before_prerouting: Vec<String>,
    /// The same, behind them.
    pub after_prerouting: Vec<String>,
    /// In the chain at hook postrouting that rewrites sources, before all else.
    pub before_postrouting: Vec<String>,
    /// The same, behind all else.
    pub after_postrouting: Vec<String>,
}

/// What the chains of marks.rs are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marking {
    /// The numbers of the uplinks.
    pub numbers: Vec<(String, u8)>,
    /// How many of all new connections go by each.
    pub balance: Vec<(String, u32)>,
    /// Hosts that have uplinks of their own.
    pub apart: Vec<Prefix>,
    /// Connections stay with their uplink.
    pub stay: bool,
}

impl Marking {
    /// As it is wanted.
    pub fn of(want: &Want) -> Marking {
        Marking {
            numbers: want.numbers.clone(),
            balance: want.balance.clone(),
            apart: want.routed.iter().map(|routed| routed.source).collect(),
            stay: want.stay,
        }
    }

    /// The number of the uplink.
    pub fn number(&self, name: &str) -> Option<u8> {
        self.numbers.iter().find(|(n, _)| n == name).map(|(_, number)| *number)
    }
}

/// What the table is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Inside and outside.
    pub zones: &'a Zones,
    /// The marks of connections.
    pub marking: &'a Marking,
    /// fw.conf.
    pub policy: &'a Policy,
    /// What is open of hosts behind this machine.
    pub openings: &'a Openings,
    /// Rules of the administrator's.
    pub inserts: &'a Inserts,
}

/// Writes a chain.
pub(super) fn chain(out: &mut String, name: &str, rules: &[String]) {
    out.push_str(&format!("\tchain {name} {{\n"));
    for rule in rules {
        out.push_str(&format!("\t\t{rule}\n"));
    }
    out.push_str("\t}\n");
}

/// A rule for each interface.
pub fn each<'a>(word: &str, interfaces: impl IntoIterator<Item = &'a String>, rest: &str) -> Vec<String> {
    interfaces.into_iter().map(|name| format!("{word} \"{name}\" {rest}")).collect()
}

/// The family of a network, as nft calls it.
pub(super) fn family(network: &Prefix) -> &'static str {
    if network.ip.is_ipv4() { "ip" } else { "ip6" }
}

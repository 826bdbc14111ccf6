//! What a kernel, or an old nft, may lack, and the table that it takes all the same.
//!
//! Pure. The whole table is refused when one rule of it is. Then each feature is tried alone
//! ([`Lack::probe`], which changes nothing), and the lines that need what is missing are left out.
//! No line that closes anything is among them, so that the smaller table is never more open.
//! Called by phases.rs.

use super::marks;

/// A feature that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Flowtables (CONFIG_NF_FLOW_TABLE_INET).
    Offload,
    /// Marks of connections (CONFIG_NF_CONNTRACK_MARK).
    Marks,
    /// Address translation (CONFIG_NFT_NAT, CONFIG_NFT_MASQ).
    Nat,
    /// Types of addresses (CONFIG_NFT_FIB_INET).
    Fib,
    /// Refusals (CONFIG_NFT_REJECT_INET).
    Reject,
    /// What a packet's route says: its MTU for the MSS, its next hop (before Linux 4.14).
    Clamp,
    /// Kinds of links (before Linux 5.0).
    Kind,
    /// Turns (CONFIG_NFT_NUMGEN).
    Share,
    /// Log and limit (CONFIG_NFT_LOG, CONFIG_NFT_LIMIT).
    Log,
}

/// All of them.
pub const ALL: [Lack; 9] =
    [Lack::Offload, Lack::Marks, Lack::Nat, Lack::Fib, Lack::Reject, Lack::Clamp, Lack::Kind, Lack::Share, Lack::Log];

/// Begins the line of a chain that rewrites addresses.
const NAT_HOOK: &str = "\t\ttype nat hook ";
/// What a masquerading rule says of this machine's own packets.
const NOT_OWN: &str = "fib saddr type != local ";

impl Lack {
    /// A table that only a kernel with the feature takes.
    pub fn probe(self) -> String {
        let filter = |rule: &str| format!("chain c {{ type filter hook forward priority filter; {rule}; }}");
        let inside = match self {
            Lack::Offload => {
                let table = "flowtable f { hook ingress priority filter; devices = { \"lo\" }; }";
                format!("{table}\n{}", filter("ct state established flow add @f"))
            }
            Lack::Marks => filter("ct mark set ct mark & 0x00ffffff | 0x01000000"),
            Lack::Nat => "chain c { type nat hook postrouting priority srcnat; masquerade; }".to_owned(),
            Lack::Fib => filter("fib saddr type != local counter"),
            Lack::Reject => filter("meta l4proto tcp reject with tcp reset; reject with icmpx admin-prohibited"),
            Lack::Clamp => filter("tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"),
            Lack::Kind => filter("meta iifkind != \"card\" accept"),
            Lack::Share => filter("numgen inc mod 2 < 1 counter"),
            Lack::Log => filter("limit rate 1/minute log prefix \"fw: \""),
        };
        format!("table inet netsv_probe {{\n{inside}\n}}\n")
    }

    /// What the administrator is told.
    pub fn text(self) -> &'static str {
        match self {
            Lack::Offload => "this kernel has no flow offload: known connections go the long way",
            Lack::Marks => "this kernel marks no connections: answers of hosts behind it leave by the preferred uplink",
            Lack::Nat => {
                "this kernel translates no addresses: hosts behind it leave with their own, and no port is forwarded"
            }
            Lack::Fib => {
                "this kernel's nft knows no types of addresses (fib): packets of second addresses of this machine \
                          are masqueraded too, and no port is forwarded"
            }
            Lack::Reject => "this kernel's nft refuses nothing: what is closed is dropped without a word",
            Lack::Clamp => {
                "this kernel's nft clamps no MSS: connections over a smaller MTU depend on ICMP, and no IPv6 \
                            host is open"
            }
            Lack::Kind => "this kernel's nft knows no kinds of links: virtual links that no record names are closed",
            Lack::Share => "this kernel's nft knows no turns (numgen): connections are not balanced",
            Lack::Log => "this kernel's nft writes no log",
        }
    }

    /// Whether the table needs it.
    pub fn is_in(self, table: &str) -> bool {
        without(table, &[self]) != table
    }

    /// What becomes of a line: `None`: it goes.
    fn line(self, line: &str) -> Option<String> {
        let has = |what: &str| line.contains(what);
        let (goes, stays) = (None, Some(line.to_owned()));
        match self {
            Lack::Offload if has(" flow add @") => goes,
            Lack::Nat if has("masquerade") || has(" dnat ip") || has(" snat ") => goes,
            Lack::Fib if has(NOT_OWN) => Some(line.replace(NOT_OWN, "")),
            Lack::Fib if has("fib ") => goes,
            Lack::Reject if has("reject with tcp reset") => goes,
            Lack::Reject if has("reject with ") => Some("\t\tdrop".to_owned()),
            Lack::Clamp if has(" rt ") => goes,
            Lack::Kind if has("meta iifkind ") => goes,
            Lack::Share if has(&format!("jump {}", marks::BALANCE)) => goes,
            Lack::Log if has(" log prefix ") => goes,
            Lack::Marks if has("ct mark ") => goes,
            _ => stays,
        }
    }

    /// Whether a whole chain or flowtable goes.
    fn block(self, block: &[&str]) -> bool {
        let head = block.first().copied().unwrap_or_default();
        match self {
            Lack::Offload => head.starts_with("\tflowtable "),
            Lack::Marks => head.starts_with(&format!("\tchain {}", marks::PREFIX)),
            Lack::Share => head == format!("\tchain {} {{", marks::BALANCE),
            Lack::Nat => block.get(1).is_some_and(|line| line.starts_with(NAT_HOOK)),
            Lack::Fib | Lack::Reject | Lack::Clamp | Lack::Kind | Lack::Log => false,
        }
    }
}

/// The table without what needs a missing feature.
pub fn without(table: &str, missing: &[Lack]) -> String {
    let lines: Vec<&str> = table.lines().collect();
    let mut out = String::new();
    let mut rest = lines.as_slice();
    while !rest.is_empty() {
        // A block lasts until its brace is closed; all else is a block of one line.
        let is_head = rest.first().is_some_and(|l| l.starts_with('\t') && !l.starts_with("\t\t") && l.ends_with('{'));
        let end = rest.iter().position(|l| *l == "\t}").filter(|_| is_head).map_or(1, |at| at + 1);
        let (block, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        rest = after;
        if missing.iter().any(|lack| lack.block(block)) {
            continue;
        }
        for line in block {
            let kept = missing.iter().try_fold((*line).to_owned(), |line, lack| lack.line(&line));
            out.extend(kept.map(|line| line + "\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = include_str!("../../tests/golden/home_router.nft");

    #[test]
    fn a_smaller_table_keeps_every_line_that_closes() {
        let closes = |table: &str| {
            let is_closing =
                |line: &&str| line.ends_with(" drop") || line.ends_with("\tdrop") || line.contains("policy drop");
            table.lines().filter(is_closing).map(str::to_owned).collect::<Vec<_>>()
        };
        for lack in ALL {
            let less = without(TABLE, &[lack]);
            assert!(lack.is_in(TABLE) && !lack.is_in(&less), "{lack:?}");
            let kept = closes(&less);
            assert!(closes(TABLE).iter().all(|line| kept.contains(line)), "{lack:?}");
            // No verdict is new but the drop in the place of a refusal.
            let is_new = |line: &&str| !TABLE.contains(*line) && !line.ends_with(" masquerade");
            assert_eq!(less.lines().filter(is_new).collect::<Vec<_>>(), [] as [&str; 0], "{lack:?}");
        }
        assert_eq!(without(TABLE, &[]), TABLE);
        let least = without(TABLE, &ALL);
        assert!(ALL.iter().all(|lack| !lack.is_in(&least)), "{least}");
        assert!(least.contains("policy drop") && least.contains("iifname \"lan0\" accept"), "{least}");
    }
}

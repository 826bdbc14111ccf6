//! The chains that mark connections with their uplink, for the rules of ways.rs.
//!
//! Pure. The mark of a connection is the number of its uplink, in our bits ([`MARKS`]) of ct mark;
//! all other bits belong to other programs. A packet bears it, too, before the kernel looks up a
//! route. There are three steps:
//!
//! 1. A connection from outside gets the number of the uplink that it came in by. A new one from
//!    inside may be given an uplink by weight (`balance`).
//! 2. Packets from inside bear the mark of their connection: answers always, questions too when
//!    connections stay where they began.
//! 3. When a connection from inside has left by an uplink, it gets that one's number: the kernel
//!    may have chosen another one than the mark asked for, because the link is dead.
//!
//! Called by text.rs.

use crate::have::MARKS;
use crate::input::policy::Policy;
use crate::model::Prefix;
use crate::ways;

use super::parts::{Marking, chain, family};

/// How the names of all these chains begin. They come last in the table.
pub(super) const PREFIX: &str = "uplink_";
const FIRST: &str = "uplink_marks";
/// Where new connections are spread.
pub(super) const BALANCE: &str = "uplink_balance";

fn set(number: u8) -> String {
    format!("& {:#010x} | {:#010x}", !MARKS, ways::mark(number))
}

fn is(number: u8) -> String {
    format!("ct mark & {MARKS:#010x} == {:#010x}", ways::mark(number))
}

/// The chains, or none where nothing is marked.
pub(super) fn render(out: &mut String, marking: &Marking, policy: &Policy) {
    if !policy.forward || marking.numbers.is_empty() {
        return;
    }
    let numbers = &marking.numbers;
    // A share of nothing is none, and nft knows no remainder of it.
    let shares: Vec<(u8, u32)> = marking.balance.iter().filter_map(|(n, w)| Some((marking.number(n)?, *w))).collect();
    let spreads = shares.len() > 1;
    let stays = marking.stay || spreads;
    let mut rules = vec!["type filter hook prerouting priority mangle; policy accept;".to_owned()];
    rules.extend(
        numbers
            .iter()
            .map(|(name, number)| format!("iifname \"{name}\" ct state new ct mark set ct mark {}", set(*number))),
    );
    if spreads {
        // What is for this machine or for a group would take a turn, too.
        rules.push(format!("ct state new {} fib daddr type unicast jump {BALANCE}", is(0)));
    }
    rules.extend(numbers.iter().map(|(name, number)| {
        let whose = if stays { format!("iifname != \"{name}\"") } else { "ct direction reply".to_owned() };
        format!("{whose} {} meta mark set meta mark {}", is(*number), set(*number))
    }));
    chain(out, FIRST, &rules);
    if stays {
        let mut rules = vec!["type filter hook forward priority mangle; policy accept;".to_owned()];
        rules.extend(numbers.iter().map(|(name, number)| {
            format!("oifname \"{name}\" ct state new ct direction original ct mark set ct mark {}", set(*number))
        }));
        chain(out, "uplink_pins", &rules);
    }
    if spreads {
        chain(out, BALANCE, &spread(&shares, &marking.apart));
    }
}

/// Each rule takes its share of what the ones before it have left. `numgen` counts for each rule
/// alone, so the shares are exact.
fn spread(shares: &[(u8, u32)], apart: &[Prefix]) -> Vec<String> {
    let mut rules: Vec<String> = apart.iter().map(|n| format!("{} saddr {n} return", family(n))).collect();
    let mut left: u32 = shares.iter().map(|(_, weight)| weight).sum();
    for (number, weight) in shares {
        let share = if left > *weight { format!("numgen inc mod {left} < {weight} ") } else { String::new() };
        rules.push(format!("{share}ct mark set ct mark {} return", set(*number)));
        left -= weight;
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render_text(marking: &Marking) -> String {
        let mut out = String::new();
        render(&mut out, marking, &Policy::default());
        out
    }

    fn two() -> Marking {
        Marking { numbers: vec![("eth0".into(), 1), ("wwan0".into(), 2)], ..Marking::default() }
    }

    #[test]
    fn nothing_is_marked_without_uplinks_or_without_forwarding() {
        assert_eq!(render_text(&Marking::default()), "");
        let mut out = String::new();
        render(&mut out, &two(), &Policy { forward: false, ..Policy::default() });
        assert_eq!(out, "");
    }

    #[test]
    fn questions_are_marked_where_connections_stay() {
        let answers = render_text(&two());
        assert!(answers.contains("ct direction reply ct mark") && !answers.contains("uplink_pins"), "{answers}");
        let stay = render_text(&Marking { stay: true, ..two() });
        assert!(stay.contains("iifname != \"eth0\" ct mark & 0xff000000 == 0x01000000 meta mark set"), "{stay}");
        assert!(stay.contains("oifname \"wwan0\" ct state new ct direction original ct mark set"), "{stay}");
        assert!(!stay.contains("numgen"), "{stay}");
    }

    #[test]
    fn shares_are_taken_one_after_the_other() {
        let numbers: Vec<(String, u8)> = ["a", "b", "c"].map(String::from).into_iter().zip(1..).collect();
        let balance = [("a", 2), ("b", 1), ("c", 3)].map(|(n, w)| (n.to_owned(), w));
        let apart = ["10.0.3.0/24", "fd00:3::7"].map(|n| Prefix::parse(n).unwrap());
        let marking = Marking { numbers, balance: balance.to_vec(), apart: apart.to_vec(), stay: false };
        let text = render_text(&marking);
        let chain = text.split_once("\tchain uplink_balance {\n").unwrap().1;
        let want = "\t\tip saddr 10.0.3.0/24 return\n\
                    \t\tip6 saddr fd00:3::7/128 return\n\
                    \t\tnumgen inc mod 6 < 2 ct mark set ct mark & 0x00ffffff | 0x01000000 return\n\
                    \t\tnumgen inc mod 4 < 1 ct mark set ct mark & 0x00ffffff | 0x02000000 return\n\
                    \t\tct mark set ct mark & 0x00ffffff | 0x03000000 return\n\t}\n";
        assert_eq!(chain, want);
        // One that is left takes all, without a share.
        let text = render_text(&Marking { balance: balance[..1].to_vec(), ..marking });
        assert!(!text.contains("uplink_balance"), "{text}");
    }
}

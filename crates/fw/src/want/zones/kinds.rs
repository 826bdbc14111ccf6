//! Which links are hardware cards, or parts of cards, by what the kernel says of their kind.
//!
//! Pure. Called by zones.rs; firewall/text.rs matches the same kinds.

use crate::have::{Have, Link};

/// Kinds that a card's own driver makes: switch ports, modems, InfiniBand.
const CARDS: [&str; 4] = ["dsa", "wwan", "rmnet", "ipoib"];
/// Kinds of which each link is a part of another one.
const PARTS: [&str; 7] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "lowpan", "virt_wifi"];
/// Kinds that make one link of several. The hooks input and forward see a VRF in the place of the
/// card that is in it (kernel doc networking/vrf).
const BUNDLES: [&str; 4] = ["bond", "team", "hsr", "vrf"];

/// The kind of bridges.
const BRIDGE: &str = "bridge";

/// Links inside links end somewhere: the kernel allows 8 (MAX_NEST_DEV of linux/netdevice.h).
const MAX_NEST: usize = 8;

/// The kinds that are closed when nothing else is known of a link.
pub fn closed() -> impl Iterator<Item = &'static str> {
    CARDS.into_iter().chain(PARTS).chain(BUNDLES)
}

/// Whether the table closes a link of this kind by its kind alone.
pub fn is_closed(link: &Link) -> bool {
    link.kind.as_deref().is_none_or(|kind| closed().any(|closed| closed == kind))
}

/// Whether the link joins others as a bridge.
pub fn is_bridge(link: &Link) -> bool {
    link.kind.as_deref() == Some(BRIDGE)
}

/// Whether packets come in by another link, of which this one is a part.
pub fn is_port(link: &Link, have: &Have) -> bool {
    let masters = [&BUNDLES[..], &[BRIDGE]].concat();
    let kind = |index| have.links.iter().find(|l| l.index == index).and_then(|l| l.kind.as_deref());
    link.master != 0 && kind(link.master).is_some_and(|kind| masters.contains(&kind))
}

/// Whether the link is a bridge of containers or virtual machines alone, or a port, which hears
/// nothing itself.
pub fn is_for_guests(link: &Link, have: &Have) -> bool {
    is_port(link, have) || is_bridge(link) && !is_card(link, have)
}

/// Whether the link is a hardware card, a part of one, or a bundle or a bridge with one in it.
pub fn is_card(link: &Link, have: &Have) -> bool {
    reaches(link, have, &|_| false, MAX_NEST)
}

/// Whether the link is a part of one of these, or holds one of them.
pub fn is_with(link: &Link, have: &Have, those: &dyn Fn(&Link) -> bool) -> bool {
    reaches(link, have, those, MAX_NEST)
}

/// Ends at a card, or at one of `those`.
fn reaches(link: &Link, have: &Have, those: &dyn Fn(&Link) -> bool, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return true };
    if those(link) {
        return true;
    }
    let Some(kind) = link.kind.as_deref() else { return !link.loopback };
    match kind {
        _ if CARDS.contains(&kind) => true,
        // A parent that cannot be seen from here may be a card.
        _ if PARTS.contains(&kind) => {
            let parent = have.links.iter().find(|l| l.index == link.parent);
            link.parent_is_elsewhere || parent.is_none_or(|parent| reaches(parent, have, those, depth))
        }
        _ if BUNDLES.contains(&kind) || is_bridge(link) => {
            let mut ports = have.links.iter().filter(|l| l.master == link.index);
            ports.any(|port| reaches(port, have, those, depth))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Links by number, each `NAME KIND PARENT MASTER`; `-`: a card's, or none.
    fn links(text: &str) -> Have {
        let link = |(line, index): (&str, u32)| {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |n: usize| words[n].parse().unwrap_or(0);
            Link {
                index,
                name: words[0].into(),
                loopback: words[0] == "lo",
                kind: (words[1] != "-").then(|| words[1].to_owned()),
                parent: number(2),
                parent_is_elsewhere: words[2].ends_with('@'),
                master: number(3),
                ..Link::default()
            }
        };
        Have { links: text.split(", ").zip(1..).map(link).collect(), ..Have::default() }
    }

    #[test]
    fn cards_parts_of_cards_and_what_holds_one() {
        let have = links(
            "lo - - -, eth0 - - -, v0 veth - -, eth0.5 vlan 2 -, v0.5 vlan 3 -, eth0.5.6 vlan 4 -, far macvlan 9@ -, \
             lost ipvlan 77 -, wwan0 wwan - -, br0 bridge - -, eth1 - - 10, virbr0 bridge - -, tap0 tun - 12, \
             bond0 bond - -, br1 bridge - -, bond1 bond - 15, eth2 - - 16, tun0 tun - -, p1 dsa 2 -, vrf0 vrf - -, \
             eth3 - - 20, loop macvlan 22 -",
        );
        let cards: Vec<&str> = have.links.iter().filter(|l| is_card(l, &have)).map(|l| l.name.as_str()).collect();
        assert_eq!(
            cards.join(" "),
            "eth0 eth0.5 eth0.5.6 far lost wwan0 br0 eth1 br1 bond1 eth2 p1 vrf0 eth3 loop",
            "and not the loopback, a veth, a VLAN of one, taps, tunnels and what holds only them"
        );
        let ports: Vec<&str> = have.links.iter().filter(|l| is_port(l, &have)).map(|l| l.name.as_str()).collect();
        assert_eq!(ports.join(" "), "eth1 tap0 bond1 eth2 eth3");
        let closed: Vec<&str> = have.links.iter().filter(|l| is_closed(l)).map(|l| l.name.as_str()).collect();
        assert!(closed.contains(&"v0.5") && closed.contains(&"bond0") && !closed.contains(&"br0"), "{closed:?}");
    }
}

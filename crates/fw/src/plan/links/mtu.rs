//! MTUs: lowered as far as a record asks, raised where an administrator asks, given back when no
//! record asks any more.
//!
//! Pure. Called by links.rs.

use super::{Links, is_ours, wanted};
use crate::change::Change;
use crate::have::{Have, Link};
use crate::input::memory::{Memory, SavedMtu};
use crate::plan::possible::MTU_MIN_V6;
use crate::want::{Want, WantLink};

impl Links<'_> {
    /// Each link after the one that carries it: no VLAN can have more.
    pub(super) fn set_mtus(&mut self, want: &Want, memory: &Memory) {
        let mut left: Vec<u32> = self.have.links.iter().map(|l| l.index).collect();
        loop {
            let is_next = |index: &u32| {
                let carrier = self.have.link_at(*index).and_then(|l| carrier(l, &self.have));
                carrier.is_none_or(|parent| !left.contains(&parent.index))
            };
            let (next, later): (Vec<u32>, Vec<u32>) = left.iter().partition(|index| is_next(index));
            for link in next.iter().filter_map(|index| self.have.link_at(*index).cloned()).collect::<Vec<_>>() {
                self.set_mtu(want, memory, &link);
            }
            // VLANs in a ring have no first one.
            if next.is_empty() {
                break;
            }
            left = later;
        }
    }

    /// An MTU that a lease has lowered outlives the lease: only another lease gives it back. Some
    /// cards lose their link for a moment when their MTU changes, and with the link goes the lease:
    /// to give the MTU back then would be another change, and so on without end.
    fn set_mtu(&mut self, want: &Want, memory: &Memory, link: &Link) {
        let wish = wanted(want, &link.name);
        let saved = memory.mtu(&link.name, link.mtu);
        let leased = wish.is_some_and(|l| l.leased);
        let kept = saved.filter(|m| m.leased && !leased);
        let asked = [wish.and_then(|l| l.mtu), kept.map(|m| m.ours)].into_iter().flatten().min();
        let parent = carrier(link, &self.have).map(|parent| parent.mtu);
        // A VLAN of ours follows its parent.
        let original = parent.filter(|_| is_ours(link)).unwrap_or(saved.map_or(link.mtu, |m| m.original));
        let driver = if link.max_mtu == 0 { u32::MAX } else { link.max_mtu };
        let most = if wish.is_some_and(|l| l.raises) { driver.min(parent.unwrap_or(driver)) } else { original };
        let target = asked.map_or(original, |mtu| mtu.max(least(want, &self.have, link)).min(most));
        self.note_too_much(wish, target);
        if target != link.mtu {
            self.makes.push(Change::LinkMtu { index: link.index, name: link.name.clone(), mtu: target });
            self.change(&link.name, |l| l.mtu = target);
        }
        if target != original {
            let leased = leased || kept.is_some();
            self.mtus.push(SavedMtu { interface: link.name.clone(), original, ours: target, leased });
        }
    }

    /// An administrator asks for more than the driver or the parent takes.
    fn note_too_much(&mut self, wish: Option<&WantLink>, target: u32) {
        let Some((wish, mtu)) = wish.filter(|l| l.raises).and_then(|l| Some((l, l.mtu?))) else { return };
        if let Some(origin) = wish.mtu_origin.as_ref().filter(|o| o.is_static && target < mtu) {
            self.notes.push(format!("{}: {} can have an MTU of {target} only", origin.place, wish.interface));
        }
    }
}

/// The link that carries a VLAN.
fn carrier<'a>(link: &Link, have: &'a Have) -> Option<&'a Link> {
    link.vlan.and_then(|_| have.link_at(link.parent)).filter(|parent| parent.index != link.index)
}

/// The smallest that the driver and IPv6 take.
fn least(want: &Want, have: &Have, link: &Link) -> u32 {
    let has_v6 = have.addresses.iter().any(|a| a.index == link.index && a.address.ip.is_ipv6())
        || want.addresses.iter().any(|a| a.interface == link.name && a.address.ip.is_ipv6());
    link.min_mtu.max(if has_v6 { MTU_MIN_V6 } else { 0 })
}

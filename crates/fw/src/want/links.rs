//! Links and addresses as the records ask for them.
//!
//! Pure. Called by want.rs.

use std::time::Duration;

use crate::model::{Scope, is_link_local, is_v6_link_local};
use crate::record::Entry;

use super::devices;
use super::objects::{Origin, Want, WantAddress};

pub(super) fn add(want: &mut Want, entry: &Entry) {
    let (said, origin) = (&entry.network.said, Origin::of(entry));
    want.edit_link(entry.interface(), &origin, |link| {
        link.up |= entry.network.address.is_some();
        if said.mtu.is_some_and(|mtu| link.mtu.is_none_or(|least| mtu < least)) {
            (link.mtu, link.mtu_origin) = (said.mtu, Some(Origin::by(entry, "mtu")));
        }
        link.raises |= entry.is_static && said.mtu.is_some();
        link.leased |= is_lease(entry);
    });
    devices::add(want, entry);
}

/// Whether the record is a DHCP lease. The MTU is an option of DHCP for IPv4 alone.
fn is_lease(entry: &Entry) -> bool {
    !entry.is_static && entry.network.address.is_some_and(|a| a.ip.is_ipv4() && !is_link_local(a.ip))
}

pub(super) fn add_address(want: &mut Want, entry: &Entry, lifetime: Option<Duration>, is_uplink: bool) {
    let Some(address) = entry.network.address else { return };
    let same = |a: &WantAddress| a.interface == entry.interface() && a.address.ip == address.ip;
    if want.addresses.iter().any(same) {
        return;
    }
    let loopback = address.ip.is_loopback() || entry.interface() == "lo";
    let natural = match loopback {
        true => Scope::Host,
        false if is_link_local(address.ip) => Scope::Link,
        false => Scope::Global,
    };
    want.addresses.push(WantAddress {
        interface: entry.interface().to_owned(),
        address,
        broadcast: entry
            .network
            .said
            .broadcast
            .or_else(|| address.broadcast())
            .filter(|_| !loopback && address.ip.is_ipv4()),
        scope: entry.network.scope.unwrap_or(natural),
        lifetime,
        kernel_prefix_route: loopback || is_v6_link_local(address.ip) || !is_uplink,
        origin: Origin::by(entry, "ipmask"),
    });
}

//! Who makes the route to an address's own network: the kernel or fw. PURE.
//!
//! The kernel's route comes back with the link by itself, after `ip link set down` and `up`, so it
//! is the kernel's where no uplink is. An uplink's is fw's: it bears the tag, and lies in a table
//! of its own, too. The metric of the kernel's is the address's (IFA_RT_PRIORITY, Linux 4.18).
//! Addresses of earlier versions of fw have no route of the kernel's; they turn to it without a
//! packet lost. Called by plan.rs.

use crate::have::{Address, Have, Link, Route};
use crate::model::{METRIC_V6_PREFIX, PROTOCOL};
use crate::want::{Want, WantAddress, WantRoute};

/// Who makes a prefix route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    /// fw.
    Us,
    /// The kernel, for an address of another program, in whatever way.
    Other,
    /// The kernel, for our address, which is there: the route should be there, too.
    Kernel,
    /// The kernel, for our address that this run makes, or when the link is set up.
    KernelSoon,
}

/// The metric that the kernel chooses.
fn plain(v4: bool) -> u32 {
    if v4 { 0 } else { METRIC_V6_PREFIX }
}

/// What is wanted and what there is.
#[derive(Clone, Copy)]
pub(super) struct Prefixes<'a> {
    pub(super) want: &'a Want,
    pub(super) have: &'a Have,
    /// Which routes of the kernel are not in the way.
    pub(super) removable: &'a dyn Fn(&Route) -> bool,
    /// Links that this run sets up: with them come the routes.
    pub(super) rises: &'a [u32],
}

impl Prefixes<'_> {
    /// The metric that the prefix route of this address is to have: the wanted one, or the next
    /// that no other program holds. `None`: it has no such route.
    fn metric(&self, wanted: &WantAddress) -> Option<u32> {
        let of_it = |r: &&WantRoute| {
            r.is_prefix_route && r.interface == wanted.interface && r.destination == wanted.address.network()
        };
        let route = self.want.routes.iter().find(of_it)?;
        let is_held = |metric: u32| {
            self.have.routes.iter().any(|r| {
                r.key() == (route.table, route.destination, 0, metric)
                    && !(self.removable)(r)
                    && !self.have.is_for_our_address(r)
            })
        };
        let first = if route.metric == 0 { plain(route.destination.ip.is_ipv4()) } else { route.metric };
        (first..u32::MAX).find(|metric| !is_held(*metric))
    }

    /// Whether the kernel is to make the route of this address, and the address's own metric.
    pub(super) fn of_address(&self, wanted: &WantAddress) -> (bool, u32) {
        let plain = plain(wanted.address.ip.is_ipv4());
        let metric = self.metric(wanted).unwrap_or(plain);
        let is_possible = metric == plain || !self.have.without_address_metric;
        (wanted.kernel_prefix_route && is_possible, if metric == plain { 0 } else { metric })
    }

    /// The first address that needs this route.
    pub(super) fn address(&self, route: &WantRoute) -> Option<&WantAddress> {
        let of_it = |a: &&WantAddress| a.interface == route.interface && a.address.network() == route.destination;
        self.want.addresses.iter().find(of_it)
    }

    /// The address as it is.
    pub(super) fn there(&self, wanted: &WantAddress, link: &Link) -> Option<&Address> {
        self.have.addresses.iter().find(|a| a.index == link.index && a.address == wanted.address)
    }

    /// Who makes this route, and with which metric if it is the kernel.
    pub(super) fn maker(&self, route: &WantRoute, link: &Link) -> (Maker, u32) {
        let is_of_other = |a: &&Address| {
            a.index == link.index
                && a.protocol != PROTOCOL
                && a.kernel_prefix_route
                && a.address.network() == route.destination
        };
        if self.have.addresses.iter().any(|a| is_of_other(&a)) {
            return (Maker::Other, 0);
        }
        let Some(wanted) = self.address(route) else { return (Maker::Us, 0) };
        let metric = self.metric(wanted).unwrap_or(0);
        let is_to = self.of_address(wanted).0;
        let maker = match self.there(wanted, link) {
            Some(there) if there.kernel_prefix_route && link.up && !self.rises.contains(&link.index) => Maker::Kernel,
            Some(there) if there.kernel_prefix_route => Maker::KernelSoon,
            Some(there) if is_to && there.protocol == PROTOCOL => Maker::KernelSoon,
            None if is_to => Maker::KernelSoon,
            Some(_) | None => Maker::Us,
        };
        (maker, metric)
    }
}

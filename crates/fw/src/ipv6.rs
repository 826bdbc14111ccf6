//! Whether there is IPv6: in the kernel, and on the interfaces for which it is wanted.
//!
//! Shell: reads /proc. Called by run.rs.

use std::path::Path;

use crate::have::Have;
use crate::kernel;
use crate::want::Want;

/// There when the kernel has IPv6; missing with `ipv6.disable=1`.
const KERNEL_HAS_IT: &str = "/proc/net/if_inet6";

/// Completes what the kernel has. Nothing is read when no record asks for IPv6.
pub fn look(want: &Want, have: &mut Have) {
    let addresses = want.addresses.iter().filter(|a| a.address.ip.is_ipv6()).map(|a| &a.interface);
    let routes = want.routes.iter().filter(|r| r.destination.ip.is_ipv6()).map(|r| &r.interface);
    let mut names: Vec<&String> = addresses.chain(routes).collect();
    applet::sort::sort(&mut names);
    names.dedup();
    have.without_v6 = !names.is_empty() && !Path::new(KERNEL_HAS_IT).exists();
    let is_off = |name: &str| {
        let off = kernel::switch(&format!("net/ipv6/conf/{name}/disable_ipv6"), have);
        off.is_some_and(|switch| switch.value != "0")
    };
    have.v6_off = names.into_iter().filter(|name| is_off(name)).cloned().collect();
}

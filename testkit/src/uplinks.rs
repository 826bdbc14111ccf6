//! The world of the main job: an appliance between a LAN and two providers that both reach one
//! internet.
//!
//! ```text
//!                        eth0 --- customer [isp_a] internet --- to_a
//!  [lan] eth0 --- lan0 [home]                                      [internet] lo: TARGET
//!                        eth1 --- customer [isp_b] internet --- to_b
//! ```
//! The providers only route: each subnet (RFC 5737 addresses) is known to the internet. `home` is
//! bare: everything in it is the work of the program under test. Called by demo and by
//! tests/netns/appliance.rs.

use std::net::Ipv4Addr;

use crate::dhcpd::{Config, Dhcpd};
use crate::lab::{Cable, Lab, Net};

/// The address that both providers reach.
pub const TARGET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// The appliance's static address on its LAN, which the appliance must set by itself.
pub const LAN_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// One provider.
#[derive(Debug)]
pub struct Provider {
    /// Its router.
    pub net: Net,
    /// The cable to the appliance; it is made unplugged.
    pub cable: Cable,
    /// Its DHCP server.
    pub dhcpd: Dhcpd,
    /// Its router's address towards the appliance.
    pub router: Ipv4Addr,
}

/// The whole world.
#[derive(Debug)]
pub struct TwoUplinks {
    /// The appliance: eth0, eth1, lan0.
    pub home: Net,
    /// A host behind it, 10.0.0.2, whose default route is the appliance.
    pub lan: Net,
    /// Behind eth0.
    pub isp_a: Provider,
    /// Behind eth1.
    pub isp_b: Provider,
    /// Where [`TARGET`] is.
    pub internet: Net,
}

impl TwoUplinks {
    /// Builds the world. Both uplink cables are still unplugged.
    pub fn build(lab: &Lab) -> TwoUplinks {
        let [home, lan, internet] = ["home", "lan", "internet"].map(|name| lab.net(name));
        internet.address("lo", &format!("{TARGET}/32"));
        let isp_a = provider(lab, &home, &internet, "a", "eth0", Ipv4Addr::new(192, 0, 2, 1));
        let isp_b = provider(lab, &home, &internet, "b", "eth1", Ipv4Addr::new(198, 51, 100, 1));
        lab.cable((&home, "lan0"), (&lan, "eth0"));
        lan.address("eth0", "10.0.0.2/24");
        lan.ip(&["route", "add", "default", "via", &LAN_ROUTER.to_string()]);
        TwoUplinks { home, lan, isp_a, isp_b, internet }
    }
}

fn provider(lab: &Lab, home: &Net, internet: &Net, letter: &str, interface: &str, router: Ipv4Addr) -> Provider {
    let net = lab.net(&format!("isp_{letter}"));
    let cable = lab.cable((home, interface), (&net, "customer"));
    cable.pull();
    net.address("customer", &format!("{router}/24"));
    net.sysctl("net/ipv4/ip_forward", "1");
    let far = format!("to_{letter}");
    lab.cable((&net, "internet"), (internet, &far));
    let link = if letter == "a" { "10.99.1" } else { "10.99.2" };
    net.address("internet", &format!("{link}.2/30"));
    internet.address(&far, &format!("{link}.1/30"));
    net.ip(&["route", "add", "default", "via", &format!("{link}.1")]);
    let [a, b, c, _] = router.octets();
    internet.ip(&["route", "add", &format!("{a}.{b}.{c}.0/24"), "via", &format!("{link}.2")]);
    let dhcpd = Dhcpd::start(&net, "customer", Config::for_router(router));
    let dhcpd = dhcpd.unwrap_or_else(|e| panic!("DHCP server of isp_{letter}: {e}"));
    Provider { net, cable, dhcpd, router }
}

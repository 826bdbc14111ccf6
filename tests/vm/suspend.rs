//! A laptop that sleeps longer than its lease lasts. It uses the kernel's own test of a suspend:
//! everything is suspended, the clocks included, but the processor waits instead of being off
//! (Linux Documentation/power/basic-pm-debugging.rst).

use std::net::Ipv4Addr;

use testkit::dhcpd::{Config, Dhcpd, MessageType};
use testkit::vm::{Kit, SERVICES, Wire};

use crate::guest::{Guest, image, with_cable};

const LEASE_SECS: u32 = 20;
const ASLEEP_SECS: u32 = LEASE_SECS + 2;
/// Longer than a woken client needs, and shorter than the rest of T1 for a client that does not
/// count the sleep.
const AWAKE_SECS: u32 = 8;

#[test]
fn time_asleep_counts() {
    with_cable(|lab| {
        let kit = Kit::find().unwrap();
        let image = image(&kit, &SERVICES);
        let wire = Wire::without_server(lab);
        let server = Config {
            lease_secs: LEASE_SECS,
            t1_t2_secs: Some((LEASE_SECS - 2, LEASE_SECS - 1)),
            ..Config::for_router(Ipv4Addr::new(192, 0, 2, 1))
        };
        let server = Dhcpd::start(wire.net(), "tap0", server).unwrap();
        let mut guest = Guest::boot_at(lab, &kit, wire, image, "", &[]);
        guest.wait("a default route", |guest| guest.good_uplinks() == ["eth0"]);
        guest.wait("the verdict of the pinger", |guest| guest.logged("dhcp_eth0_pinger", "uplink is good") == 1);
        let address = guest.address("eth0").unwrap();
        let age = age(&mut guest);
        // nanosleep(2) counts only the time awake. A client that did so would not be done by then.
        guest.run(&format!(
            "(sleep {AWAKE_SECS}; grep -c 'lease lost' /var/log/service/dhcp_eth0/current >/run/lost) &"
        ));
        sleep(&mut guest);
        guest.wait("a while awake", |guest| !guest.run("cat /run/lost 2>/dev/null").is_empty());
        assert_eq!(guest.run("cat /run/lost"), "1\n");
        guest.wait("another one", |guest| guest.logged("dhcp_eth0", "obtained from") >= 2);
        guest.wait("the kernel knows it", |guest| guest.lifetime("eth0") > 0 && guest.good_uplinks() == ["eth0"]);
        assert_eq!(server.count(MessageType::Discover), 2);
        assert_eq!(guest.address("eth0"), Some(address));
        assert!(self::age(&mut guest) >= age + u64::from(ASLEEP_SECS));
        assert!(guest.router_answers("eth0"));
        assert_eq!(guest.logged("dhcp_eth0_pinger", "uplink is bad"), 0);
        guest.power_off();
    });
}

fn sleep(guest: &mut Guest) {
    guest.run(&format!(
        "echo core >/sys/power/pm_test; echo {ASLEEP_SECS} >/sys/module/suspend/parameters/pm_test_delay"
    ));
    guest.run("echo mem >/sys/power/state");
    assert!(guest.run("dmesg").contains("PM: suspend exit"), "it did not sleep");
}

/// The age of the client in seconds, as sv says.
fn age(guest: &mut Guest) -> u64 {
    let said = guest.run("sv --json status dhcp_eth0");
    let status: testkit::Value = said.parse().unwrap_or_else(|e| panic!("{e}: {said}"));
    status[0]["seconds"].as_u64().unwrap()
}

//! A cable: its lease, a pull, a removed card, killed processes, the power-off.

use testkit::vm::{CARD_DEVICE, Kit, SERVICES};

use crate::guest::{Guest, image, wait_outside, with_kit};

/// The services that keep running.
const DAEMONS: [&str; 4] = ["dhcp_eth0", "ifplugd_eth0", "zcip_eth0", "dhcp_eth0_pinger"];

#[test]
fn a_machine_with_a_cable_keeps_its_network() {
    with_kit(|lab| {
        let kit = Kit::find().unwrap();
        let mut image = image(&kit, &SERVICES);
        // Longer than any pull that is meant to be short.
        image.file("/var/service/ifplugd_eth0/env/IFPLUGD_DOWN", "120\n");
        let mut guest = Guest::boot(lab, &kit, image, "");
        leased(&mut guest);
        let address = guest.address("eth0").unwrap();
        pulled_for_a_moment(&mut guest, &address);
        pulled_for_long(&mut guest, &address);
        card_taken_out(&mut guest, &address);
        killed(&mut guest, &address);
        guest.power_off();
    });
}

fn leased(guest: &mut Guest) {
    guest.wait("a default route", |guest| guest.good_uplinks() == ["eth0"]);
    guest.wait("the router answers", |guest| guest.router_answers("eth0"));
    guest.wait("the nft table", |guest| guest.run("nft list table inet netsv").contains("iifname \"eth0\""));
    guest.wait("the verdict of the pinger", |guest| guest.logged("dhcp_eth0_pinger", "uplink is good") > 0);
}

/// The pull is shorter than the down delay. fw sees it at once, the lease stays, and one request
/// confirms it.
fn pulled_for_a_moment(guest: &mut Guest, address: &str) {
    let client = guest.pid("dhcp_eth0").expect("dhcp_eth0 runs");
    let confirmed = guest.logged("dhcp_eth0", "leased before");
    guest.machine.monitor("set_link card off");
    guest.wait("no good uplink", |guest| !guest.is_up("eth0") && guest.good_uplinks().is_empty());
    // fw does not demote the only uplink: no other could go first.
    guest.wait("it is published", |guest| guest.run("cat /run/service/fw/link_eth0.ipconf").contains("'down'"));
    assert_eq!(guest.address("eth0").as_deref(), Some(address));
    guest.machine.monitor("set_link card on");
    guest.wait("the uplink is good again", |guest| guest.good_uplinks() == ["eth0"]);
    guest.wait("one request", |guest| guest.logged("dhcp_eth0", "leased before") > confirmed);
    assert_eq!(guest.address("eth0").as_deref(), Some(address));
    assert_eq!(guest.pid("dhcp_eth0"), Some(client), "the client went on");
}

/// The pull is longer: the services are taken down, and up again.
fn pulled_for_long(guest: &mut Guest, address: &str) {
    let before = guest.pid("ifplugd_eth0").expect("ifplugd_eth0 runs");
    guest.run("echo 1 >/var/service/ifplugd_eth0/env/IFPLUGD_DOWN; sv restart ifplugd_eth0");
    guest.wait("another ifplugd", |guest| guest.pid("ifplugd_eth0").is_some_and(|pid| pid != before));
    guest.wait("it has looked", |guest| guest.run("cat /run/service/fw/link_eth0.ipconf").contains("health"));
    guest.wait("the uplink is good", |guest| guest.good_uplinks() == ["eth0"]);
    guest.machine.monitor("set_link card off");
    guest.wait("DHCP is down", |guest| guest.run("sv status dhcp_eth0 | cat").starts_with("down:"));
    guest.wait("address and routes are gone", |guest| {
        guest.address("eth0").is_none() && guest.run("/sbin/ip route show default").is_empty()
    });
    guest.machine.monitor("set_link card on");
    guest.wait("a default route again", |guest| guest.good_uplinks() == ["eth0"]);
    assert_eq!(guest.address("eth0").as_deref(), Some(address));
    assert!(guest.router_answers("eth0"));
}

/// The interface disappears, and another one of the same name appears.
fn card_taken_out(guest: &mut Guest, address: &str) {
    let old = guest.ifindex("eth0").expect("eth0 is there");
    guest.machine.monitor("device_del card");
    guest.wait("no eth0", |guest| guest.ifindex("eth0").is_none());
    guest.wait("its record is gone", |guest| !guest.run("ls /run/service/fw").contains("dhcp_eth0.ipconf"));
    let add = format!("device_add {CARD_DEVICE},id=second");
    // The monitor refuses until the first card has left its slot.
    wait_outside("the card is in again", || !guest.machine.monitor(&add).contains("Error"));
    guest.wait("another eth0", |guest| guest.ifindex("eth0").is_some_and(|new| new != old));
    guest.wait("a default route through it", |guest| guest.good_uplinks() == ["eth0"]);
    assert_eq!(guest.address("eth0").as_deref(), Some(address));
    guest.wait("the router answers", |guest| guest.router_answers("eth0"));
    for service in DAEMONS {
        guest.wait(&format!("{service} runs"), |guest| guest.pid(service).is_some());
    }
}

/// The test kills all supervisors, then all daemons. Nothing runs twice, and the way out stays.
fn killed(guest: &mut Guest, address: &str) {
    let supervisors = guest.pids("runsv");
    assert_eq!(supervisors.len(), SERVICES.len());
    let daemons = DAEMONS.map(|service| guest.pid(service).expect("it runs"));
    guest.run("kill -9 $(pidof runsv)");
    guest.wait("as many new supervisors", |guest| {
        let now = guest.pids("runsv");
        now.len() == supervisors.len() && now.iter().all(|pid| !supervisors.contains(pid))
    });
    guest.wait("they have the daemons of before", |guest| {
        DAEMONS.map(|service| guest.pid(service)) == daemons.map(Some)
    });
    for daemon in daemons {
        guest.run(&format!("kill -9 {daemon}"));
    }
    guest.wait("new daemons", |guest| {
        let now = DAEMONS.map(|service| guest.pid(service));
        now.iter().all(|pid| pid.is_some_and(|pid| !daemons.contains(&pid)))
    });
    guest.wait("the uplink is good", |guest| guest.good_uplinks() == ["eth0"]);
    assert_eq!(guest.address("eth0").as_deref(), Some(address));
    for program in ["udhcpc", "ifplugd", "zcip", "pinger"] {
        assert_eq!(guest.pids(program).len(), 1, "{program}");
    }
}

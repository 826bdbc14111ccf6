//! VLANs that fw makes, on a kernel that has them: a provider's VLAN 7 on a card of its own.

use testkit::vm::trunk::{self, TRUNK_DEVICE, Trunk};
use testkit::vm::{Kit, Wire};

use crate::guest::{Guest, SOON, image, wait_outside, with_kit};

/// The trunk is the second card.
const SERVICES: [(&str, &str); 3] = [("fw", "fw"), ("dhcp_if", "dhcp_wan7"), ("ifplugd_all", "ifplugd_all")];
const RECORD: &str = "let cfg=cfg+1\nif[$cfg]=wan7\nvlan[$cfg]=7\nlink[$cfg]=eth1\nmac[$cfg]=02:00:00:00:77:07\n";
const SERVER: [&str; 10] = [
    "dnsmasq",
    "--no-daemon",
    "--conf-file=/dev/null",
    "--user=root",
    "--port=0",
    "--no-ping",
    "--interface=lan",
    "--bind-dynamic",
    "--dhcp-leasefile=/run/lab/leases",
    "--dhcp-range=198.51.100.100,198.51.100.150,255.255.255.0,1h",
];
/// IEEE 802.1Q: the priority of the client's packets.
const PRIORITY: u8 = 6;
/// BOOTP's ports, in the bytes of UDP's header.
const TO_SERVER: [u8; 4] = [0, 68, 0, 67];

#[test]
fn a_lease_over_a_vlan_has_its_priority_and_survives_a_replug() {
    with_kit(|lab| {
        let kit = Kit::find().unwrap();
        let mut image = image(&kit, &SERVICES);
        image.modules("vlans", &["8021q"]);
        image.file("/var/service/fw/conf/wan.ipconf", RECORD);
        image.file("/var/service/dhcp_wan7/env/UDHCPC_ARGS", &format!("--priority {PRIORITY}\n"));
        let wire = Wire::without_server(lab);
        let isp = lab.net("isp");
        lab.cable((wire.net(), "port"), (&isp, "lan"));
        isp.address("lan", "198.51.100.1/24");
        let server = isp.spawn(&SERVER);
        server.wait_log("DHCP, IP range", SOON);
        let trunk = Trunk::start(wire.net(), "port", 7).unwrap();
        let drivers = "for module in $(cat /lib/modules/vlans); do insmod $module; done";
        let mut guest = Guest::boot_at(lab, &kit, wire, image, drivers, &Trunk::qemu());

        guest.wait("a default route", |guest| guest.good_uplinks() == ["wan7"]);
        guest.wait("the router answers", |guest| guest.router_answers("wan7"));
        assert!(guest.run("cat /sys/class/net/wan7/address").contains("02:00:00:00:77:07"));
        let sent = trunk.sent();
        let of_client = |frame: &&Vec<u8>| frame.windows(4).any(|ports| ports == TO_SERVER);
        let tags: Vec<_> = sent.iter().filter(of_client).map(|frame| trunk::tag(frame)).collect();
        assert!(tags.len() >= 2 && tags.iter().all(|tag| *tag == Some((PRIORITY, 7))), "{tags:?}");
        // Other packets have no priority.
        assert!(sent.iter().any(|frame| trunk::tag(frame) == Some((0, 7))));

        replugged(&mut guest);
        gone(&mut guest);
        guest.power_off();
    });
}

/// The card goes, and the kernel takes the VLAN with it; a card that comes gets it again.
fn replugged(guest: &mut Guest) {
    let old = guest.ifindex("eth1").expect("eth1 is there");
    guest.machine.monitor("device_del trunk");
    guest.wait("no VLAN", |guest| guest.ifindex("eth1").is_none() && guest.ifindex("wan7").is_none());
    let add = format!("device_add {TRUNK_DEVICE},id=second");
    wait_outside("the card is in again", || !guest.machine.monitor(&add).contains("Error"));
    guest.wait("another eth1", |guest| guest.ifindex("eth1").is_some_and(|new| new != old));
    guest.wait("a default route again", |guest| guest.good_uplinks() == ["wan7"]);
    guest.wait("the router answers", |guest| guest.router_answers("wan7"));
}

/// No record asks for it any more.
fn gone(guest: &mut Guest) {
    guest.run("rm /var/service/fw/conf/wan.ipconf; sv up fw");
    guest.wait("no VLAN", |guest| guest.ifindex("wan7").is_none());
    assert!(guest.ifindex("eth1").is_some());
    assert_eq!(guest.logged("fw", "error"), 0);
}

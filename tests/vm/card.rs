//! A hardware card that no record declares: a link without a kind, which no network namespace has.
//! And flowtables, which not every kernel has.

use std::net::UdpSocket;

use testkit::Net;
use testkit::vm::{CARD, CARD_DEVICE, FIREWALL, Kit, Wire};

use crate::guest::{Guest, image, wait_outside, with_cable};

/// An address that an administrator gives to the card by hand.
const ADDRESS: &str = "192.0.2.50";
/// A run of fw.
const FW: &str = "cd /var/service/fw && FW_ETC=/run/etc fw --dynamic /run/service/fw apply 2>&1; echo ended $?";

/// A datagram from outside to a port of the machine: how many have passed the filter of fw since
/// the boot.
fn knock(guest: &mut Guest, outside: &Net) -> u32 {
    outside.within(|| UdpSocket::bind("192.0.2.1:0").unwrap().send_to(b"x", (ADDRESS, 8022)).unwrap());
    // An echo is answered, and shows that the datagram before it has come.
    wait_outside("an echo", || outside.pings(ADDRESS));
    let listed = guest.run("nft list table inet after");
    listed.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).expect("a counter")
}

fn plugged_in(guest: &mut Guest, name: &str) {
    guest.run(&format!("/sbin/ip address add {ADDRESS}/24 dev {name}; /sbin/ip link set {name} up"));
    guest.wait("carrier", |guest| guest.is_up(name));
}

/// The line of shell that writes a record.
fn record(name: &str, fields: &str) -> String {
    let lines: String = fields.split(' ').map(|f| format!("{}\\n", f.replacen('=', "[$cfg]=", 1))).collect();
    format!("printf 'let cfg=cfg+1\\n{lines}' >{name}.ipconf")
}

#[test]
fn a_card_that_no_record_declares_is_closed_also_when_it_is_plugged_in_later() {
    with_cable(|lab| {
        let kit = Kit::find().unwrap();
        let mut image = image(&kit, &[("fw", "fw")]);
        let flow = ["nf_flow_table", "nf_flow_table_inet", "nft_flow_offload", "8021q"];
        image.modules("drivers", &[&CARD[..], &FIREWALL, &flow].concat());
        let wire = Wire::without_server(lab);
        let outside = wire.net().clone();
        let mut guest = Guest::boot_at(lab, &kit, wire, image, "", &[]);
        guest.wait("the nft table", |guest| guest.run("nft list table inet netsv").contains("policy drop"));
        let after = "add table inet after; add chain inet after i { type filter hook input priority filter + 10; }; \
                     add rule inet after i udp dport 8022 counter";
        guest.run(&format!("nft '{after}'"));
        plugged_in(&mut guest, "eth0");
        assert_eq!(knock(&mut guest, &outside), 0, "it was there at the boot");
        assert_eq!(guest.run(FW), "ended 0\n");
        assert_eq!(knock(&mut guest, &outside), 0, "and at a run");
        // The first word of a daemon about it changes no rule, so that its first route need not
        // wait for nft: the table is the same one.
        let handle = "nft -a list table inet netsv | head -n 1";
        let before = guest.run(handle);
        guest.run(&record("/run/service/fw/link_eth0", "if=eth0 health=up"));
        assert_eq!(guest.run(FW), "ended 0\n");
        assert!(before.contains("handle") && guest.run(handle) == before);
        guest.run("rm /run/service/fw/link_eth0.ipconf /run/service/fw/.memory");
        guest.run("echo 'unlisted=\"open\"' >/var/service/fw/fw.conf");
        assert!(guest.run(FW).ends_with("ended 0\n"));
        assert_eq!(knock(&mut guest, &outside), 1, "somebody wants it so");
        guest.run(": >/var/service/fw/fw.conf");
        assert_eq!(guest.run(FW), "ended 0\n");

        let old = guest.ifindex("eth0").expect("eth0 is there");
        guest.machine.monitor("device_del card");
        guest.wait("no eth0", |guest| guest.ifindex("eth0").is_none());
        let add = format!("device_add {CARD_DEVICE},id=second");
        // The monitor refuses until the first card has left its slot.
        wait_outside("the card is in again", || !guest.machine.monitor(&add).contains("Error"));
        guest.wait("another eth0", |guest| guest.ifindex("eth0").is_some_and(|new| new != old));
        // fw has no rule for a card of this name.
        guest.run("/sbin/ip link set eth0 name card9");
        plugged_in(&mut guest, "card9");
        assert!(!guest.run("nft list table inet netsv").contains("card9"));
        assert_eq!(knock(&mut guest, &outside), 1, "before fw has run again");
        guest.run("/sbin/ip link set card9 down; /sbin/ip link set card9 name eth0");
        plugged_in(&mut guest, "eth0");
        assert_eq!(knock(&mut guest, &outside), 1, "and by its old name");

        // Declared inside it is open, and so is its VLAN; then the card is an uplink.
        guest.run(&record("/var/service/fw/conf/lan", &format!("if=eth0 ipmask={ADDRESS}/24")));
        assert!(guest.run(FW).contains("fw: eth0 is inside now: "));
        assert_eq!(knock(&mut guest, &outside), 2, "a record declares it");
        guest.run(&record("/var/service/fw/conf/lan", "if=eth0.5 vlan=5 link=eth0 ipmask=10.5.0.1/24 zone=lan"));
        guest.run(&record("/run/service/fw/link_eth0", "if=eth0 health=up"));
        guest.run("echo 'flow_offload=\"yes\"' >/var/service/fw/fw.conf");
        assert!(guest.run(FW).ends_with("ended 0\n"));
        // The VLAN was made in that run.
        let said = guest.run(FW);
        let table = guest.run("nft list table inet netsv");
        assert!(said == "ended 0\n" && table.contains("flowtable short_way"), "{said}{table}");
        plugged_in(&mut guest, "eth0");
        assert_eq!(knock(&mut guest, &outside), 2, "and closed again");
        guest.power_off();
    });
}

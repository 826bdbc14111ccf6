//! PPPoE, WireGuard and cake, which the kernel of a container may lack: each by its service of
//! services/, against Debian's pppoe-server and the kernel's own WireGuard in a namespace of the
//! machine.

use testkit::vm::Kit;

use crate::guest::{Guest, image, with_kit};

const SERVICES: [(&str, &str); 4] = [("fw", "fw"), ("ppp_if", "ppp_dsl0"), ("wg_if", "wg_wg0"), ("sqm_if", "sqm_eth5")];
/// The provider `isp`: at one port it speaks PPPoE, at the other plain IP. The far end of the
/// tunnel is reached by both.
const WORLD: &str = "for module in $(cat /lib/modules/tunnels); do insmod $module; done
wg=/usr/sbin/wg
in_isp() { /sbin/ip netns exec isp \"$@\"; }
/sbin/ip netns add isp; in_isp /sbin/ip link set lo up
/sbin/ip link add port0 type veth peer name customers netns isp
/sbin/ip link add eth5 type veth peer name other netns isp
for port in customers other; do in_isp /sbin/ip link set $port up; done
in_isp /sbin/ip address add 203.0.113.9/32 dev lo
in_isp /sbin/ip address add 198.51.100.1/24 dev other
mkdir -p /var/run /dev/pts; mount -t devpts pts /dev/pts
in_isp /usr/sbin/pppoe-server -I customers -L 10.64.0.1 -R 10.64.0.10 -N 4
umask 077
for end in server client; do $wg genkey >/run/$end.key; $wg pubkey </run/$end.key >/run/$end.pub; done
in_isp /sbin/ip link add wgs type wireguard
in_isp $wg set wgs listen-port 51820 private-key /run/server.key peer $(cat /run/client.pub) allowed-ips 10.8.0.2/32
in_isp /sbin/ip address add 10.8.0.1/24 dev wgs; in_isp /sbin/ip link set wgs up
printf 'user \"me\"\\npassword \"secret\"\\n' >/var/service/ppp_dsl0/peer
{ printf '[Interface]\\nPrivateKey = %s\\nAddress = 10.8.0.2/24\\n' $(cat /run/client.key)
printf '[Peer]\\nPublicKey = %s\\nEndpoint = 203.0.113.9:51820\\n' $(cat /run/server.pub)
printf 'AllowedIPs = 10.8.0.0/24\\nPersistentKeepalive = 1\\n'; } >/var/service/wg_wg0/wg.conf
umask 022
mkdir /var/service/fw/hooks; cp /var/service/wg_wg0/uplink-wg /var/service/fw/hooks/";

#[test]
fn a_pppoe_line_and_a_tunnel_over_it_come_go_and_move_with_the_uplink() {
    with_kit(|lab| {
        let kit = Kit::find().unwrap();
        let mut image = image(&kit, &SERVICES);
        for name in ["pppd", "pppoe-server", "pppoe", "wg", "tc"] {
            image.program(&kit.program(name), &format!("/usr/sbin/{name}"));
        }
        // The directory has pppd's version in its name.
        let plugins = std::fs::read_dir(kit.file("usr/lib/pppd")).unwrap().flatten().next().unwrap();
        let plugin = plugins.path().join("rp-pppoe.so");
        let place = format!("/usr/lib/pppd/{}/rp-pppoe.so", plugins.file_name().to_string_lossy());
        image.program(&plugin, &place);
        let queues = ["sch_cake", "sch_ingress", "cls_matchall", "act_mirred", "ifb"];
        image.modules("tunnels", &[&["ppp_generic", "ppp_async", "pppoe", "wireguard", "veth"][..], &queues].concat());
        image.file("/var/service/sqm_eth5/env/SQM_UP", "19mbit\n");
        image.file("/var/service/sqm_eth5/env/SQM_DOWN", "90mbit\n");
        image.file("/etc/ppp/options", "");
        image.file("/etc/ppp/pppoe-server-options", "require-pap\nms-dns 10.64.0.53\n");
        image.file("/etc/ppp/pap-secrets", "\"me\" * \"secret\" *\n");
        image.file("/var/service/ppp_dsl0/env/PPP_LINK", "port0\n");
        let standby = "let cfg=cfg+1\nif[$cfg]=eth5\nipmask[$cfg]=198.51.100.2/24\ngw[$cfg]=198.51.100.1\n";
        image.file("/var/service/fw/conf/eth5.ipconf", standby);
        let policy = "preferred_default_route_iface=\"dsl0\"\nextif=\"dsl0 eth5\"\n";
        image.file("/var/service/fw/fw.conf", policy);
        let mut guest = Guest::boot(lab, &kit, image, WORLD);
        line_is_up(&mut guest);
        queues_are_short(&mut guest);
        tunnel_follows(&mut guest);
        killed(&mut guest);
        taken_down(&mut guest);
        guest.power_off();
    });
}

fn answers(guest: &mut Guest, address: &str) -> bool {
    guest.run(&format!("ping -c 1 -W 5 {address}")).contains(" 0% packet loss")
}

/// From where the server of the tunnel hears its client.
fn heard_from(guest: &mut Guest, address: &str) -> bool {
    guest.run("/sbin/ip netns exec isp /usr/sbin/wg show wgs endpoints").contains(&format!("\t{address}:"))
}

fn line_is_up(guest: &mut Guest) {
    guest.wait("the line first, then the standby", |guest| guest.good_uplinks() == ["dsl0", "eth5"]);
    guest.wait("the name server of the line", |guest| {
        guest.run("cat /etc/resolv.conf").contains("nameserver 10.64.0.53\n")
    });
    guest.wait("a host behind the provider", |guest| answers(guest, "203.0.113.9"));
    assert_eq!(guest.way_out().as_deref(), Some("dsl0"));
}

fn queues_are_short(guest: &mut Guest) {
    let queue = |guest: &mut Guest, device: &str| guest.run(&format!("/usr/sbin/tc qdisc show dev {device} root"));
    guest.wait("cake on the standby", |guest| {
        queue(guest, "eth5").contains("qdisc cake ") && guest.logged("sqm_eth5", "receives") > 0
    });
    assert!(queue(guest, "eth5").contains("bandwidth 19Mbit"), "{}", queue(guest, "eth5"));
    assert!(queue(guest, "sqm_eth5").contains("bandwidth 90Mbit"), "{}", queue(guest, "sqm_eth5"));
    assert_eq!(guest.run("sv status sqm_eth5 | cut -c1-5"), "down:\n");
    // What arrives goes through the queue.
    let counted = |guest: &mut Guest| {
        guest.run("cat /sys/class/net/sqm_eth5/statistics/tx_packets").trim().parse::<u64>().unwrap()
    };
    let before = counted(guest);
    assert!(answers(guest, "198.51.100.1"));
    assert!(counted(guest) > before);
}

/// The address of the first uplink stays while its router is bad: WireGuard would keep to it.
fn tunnel_follows(guest: &mut Guest) {
    guest.wait("the far end of the tunnel", |guest| answers(guest, "10.8.0.1"));
    assert!(heard_from(guest, "10.64.0.10"));
    guest.run("fw publish health_dsl0 if=dsl0 health=down");
    guest.wait("the standby", |guest| guest.way_out().as_deref() == Some("eth5"));
    guest.wait("the tunnel by the standby", |guest| heard_from(guest, "198.51.100.2"));
    assert!(answers(guest, "10.8.0.1"));
    guest.run("fw withdraw health_dsl0");
    guest.wait("the line again", |guest| guest.way_out().as_deref() == Some("dsl0"));
    guest.wait("the tunnel by the line", |guest| heard_from(guest, "10.64.0.10"));
    assert!(answers(guest, "10.8.0.1"));
}

fn killed(guest: &mut Guest) {
    let old = guest.pid("ppp_dsl0").unwrap();
    guest.run(&format!("kill -9 {old}"));
    guest.wait("another pppd", |guest| guest.pid("ppp_dsl0").is_some_and(|pid| pid != old));
    guest.wait("the line first again", |guest| guest.good_uplinks() == ["dsl0", "eth5"]);
    let old = guest.pid("wg_wg0").unwrap();
    guest.run(&format!("kill -9 {old}"));
    guest.wait("another run of the tunnel", |guest| guest.pid("wg_wg0").is_some_and(|pid| pid != old));
    guest.wait("the far end of the tunnel", |guest| answers(guest, "10.8.0.1"));
}

fn taken_down(guest: &mut Guest) {
    guest.run("sv -w20 down wg_wg0 ppp_dsl0");
    guest.wait("the standby alone", |guest| guest.good_uplinks() == ["eth5"]);
    guest.wait("no records", |guest| guest.run("ls /run/service/fw").lines().all(|name| !name.ends_with(".ipconf")));
    assert_eq!((guest.ifindex("wg0"), guest.ifindex("dsl0")), (None, None));
    guest.wait("no name server", |guest| !guest.run("cat /etc/resolv.conf").contains("nameserver"));
}

//! A laptop with a cable and a radio. The radio is mac80211_hwsim's; its access point is hostapd in
//! a namespace of the machine.

use testkit::vm::{Image, Kit};

use crate::guest::{Guest, image, with_kit};

const SERVICES: [(&str, &str); 6] = [
    ("fw", "fw"),
    ("dhcp_if", "dhcp_eth0"),
    ("ifplugd_if", "ifplugd_eth0"),
    ("dhcp_if", "dhcp_wlan0"),
    ("ifplugd_if", "ifplugd_wlan0"),
    ("supplicant_if", "supplicant_wlan0"),
];

/// hostapd's configuration.
pub(crate) fn access_point(interface: &str, ssid: &str, passphrase: &str) -> String {
    format!(
        "interface={interface}
driver=nl80211
ctrl_interface=/run/hostapd
ssid={ssid}
hw_mode=g
channel=1
wpa=2
wpa_key_mgmt=WPA-PSK
rsn_pairwise=CCMP
wpa_passphrase={passphrase}
"
    )
}
/// One channel, because a scan of all channels takes seconds.
const NETWORK: &str = "ctrl_interface=/run/wpa_supplicant
network={
	scan_freq=2412
	ssid=\"home\"
	psk=\"a good passphrase\"
}
";
/// The second radio, in a namespace with a DHCP server. It shares only the air with the first.
const AIR: &str = "for module in $(cat /lib/modules/radio); do insmod $module; done
/sbin/ip netns add ap
/sbin/iw phy phy1 set netns name ap
in_ap() { /sbin/ip netns exec ap \"$@\"; }
in_ap /sbin/ip link set lo up
in_ap /sbin/ip address add 198.51.100.1/24 dev wlan1";
const SERVER: &str = "/sbin/ip netns exec ap /sbin/dnsmasq --conf-file=/dev/null --user=root --port=0 --no-ping --bind-dynamic --interface=wlan1 \
                      --dhcp-authoritative --dhcp-leasefile=/run/leases --pid-file=/run/dnsmasq.pid --dhcp-option=3,198.51.100.1 \
                      --dhcp-range=198.51.100.100,198.51.100.150,255.255.255.0,1h";
const HOSTAPD: &str = "/sbin/ip netns exec ap /sbin/hostapd -B -P /run/hostapd.pid";

/// Adds what a wireless link needs at both ends.
pub(crate) fn radio(kit: &Kit, image: &mut Image) {
    for program in ["hostapd", "iw", "wpa_supplicant", "wpa_cli", "dnsmasq"] {
        image.program(&kit.program(program), &format!("/sbin/{program}"));
    }
    image.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    image.file("/etc/group", "root:x:0:\n");
    image.modules("radio", &["ccm", "ctr", "cmac", "gcm", "aes_generic", "mac80211_hwsim"]);
}

#[test]
fn a_laptop_goes_from_cable_to_radio_and_back() {
    with_kit(|lab| {
        let kit = Kit::find().unwrap();
        let mut image = image(&kit, &SERVICES);
        radio(&kit, &mut image);
        image.file("/etc/home.conf", &access_point("wlan1", "home", "a good passphrase"));
        image.file("/etc/other.conf", &access_point("wlan1", "home", "another passphrase"));
        image.file("/var/service/supplicant_wlan0/wpa_supplicant.conf", NETWORK);
        image.file("/var/service/fw/fw.conf", "preferred_default_route_iface=\"eth0\"\n");
        let mut guest = Guest::boot(lab, &kit, image, AIR);
        guest.wait("the cable's default route", |guest| guest.good_uplinks() == ["eth0"]);
        assert_eq!(guest.address("wlan0"), None);
        assert_eq!(guest.run(SERVER), "");
        let address = joins(&mut guest);
        cable_pulled(&mut guest, &address);
        access_point_stopped(&mut guest, &address);
        radio_switched_off(&mut guest, &address);
        wrong_passphrase(&mut guest);
        guest.power_off();
    });
}

/// The access point appears. A WPA2 handshake and a lease follow, and the radio stands by behind
/// the cable.
fn joins(guest: &mut Guest) -> String {
    guest.run(&format!("{HOSTAPD} /etc/home.conf"));
    guest.wait("an association", |guest| guest.run("/sbin/iw dev wlan0 link").contains("SSID: home"));
    guest.wait("both uplinks, the cable first", |guest| guest.good_uplinks() == ["eth0", "wlan0"]);
    guest.wait("the router behind the radio answers", |guest| guest.router_answers("wlan0"));
    assert_eq!(guest.way_out().as_deref(), Some("eth0"));
    let address = guest.address("wlan0").expect("an address on wlan0");
    assert!(address.starts_with("198.51.100."), "{address}");
    let stations = guest.run("/sbin/ip netns exec ap /sbin/iw dev wlan1 station dump");
    assert!(stations.contains("authorized:\tyes"), "{stations}");
    address
}

fn cable_pulled(guest: &mut Guest, address: &str) {
    guest.machine.monitor("set_link card off");
    guest.wait("the radio is the way out", |guest| guest.way_out().as_deref() == Some("wlan0"));
    guest.wait("and the only good uplink", |guest| guest.good_uplinks() == ["wlan0"]);
    guest.wait("fw has seen it, too", |guest| guest.is_demoted("eth0"));
    assert_eq!(guest.address("wlan0").as_deref(), Some(address));
    guest.machine.monitor("set_link card on");
    guest.wait("the cable is preferred again", |guest| guest.good_uplinks() == ["eth0", "wlan0"]);
    assert_eq!(guest.way_out().as_deref(), Some("eth0"));
}

fn access_point_stopped(guest: &mut Guest, address: &str) {
    guest.run("kill $(cat /run/hostapd.pid)");
    guest.wait("no carrier", |guest| !guest.is_up("wlan0"));
    guest.wait("the cable alone", |guest| guest.good_uplinks() == ["eth0"]);
    guest.wait("the lease of the radio is given up", |guest| guest.address("wlan0").is_none());
    guest.wait("hostapd has ended", |guest| guest.pids("hostapd").is_empty());
    guest.run(&format!("{HOSTAPD} /etc/home.conf"));
    guest.wait("both again", |guest| guest.good_uplinks() == ["eth0", "wlan0"]);
    assert_eq!(guest.address("wlan0").as_deref(), Some(address));
    guest.wait("the router behind the radio answers", |guest| guest.router_answers("wlan0"));
}

/// The kernel takes the interface down administratively, and no user has to set it up again by
/// hand.
fn radio_switched_off(guest: &mut Guest, address: &str) {
    guest.run("echo 1 >$(ls -d /sys/class/ieee80211/phy0/rfkill*)/soft");
    guest.wait("the cable alone", |guest| guest.good_uplinks() == ["eth0"] && !guest.is_up("wlan0"));
    guest.wait("the lease of the radio is given up", |guest| guest.address("wlan0").is_none());
    guest.run("echo 0 >$(ls -d /sys/class/ieee80211/phy0/rfkill*)/soft");
    guest.wait("both again", |guest| guest.good_uplinks() == ["eth0", "wlan0"]);
    assert_eq!(guest.address("wlan0").as_deref(), Some(address));
}

/// During the handshake the interface has carrier, but is dormant: no daemon takes it for up. This
/// comes last, because wpa_supplicant bans the access point for a while.
fn wrong_passphrase(guest: &mut Guest) {
    guest.run("kill $(cat /run/hostapd.pid)");
    guest.wait("the lease of the radio is given up", |guest| guest.address("wlan0").is_none());
    guest.wait("hostapd has ended", |guest| guest.pids("hostapd").is_empty());
    let ups = guest.logged("ifplugd_wlan0", "link is up");
    guest.run("/sbin/ip -o monitor link dev wlan0 >/run/events &");
    guest.run(&format!("{HOSTAPD} /etc/other.conf"));
    let refused = "pre-shared key may be incorrect";
    guest.wait("a handshake that fails", |guest| guest.logged("supplicant_wlan0", refused) > 0);
    guest.wait("a dormant link", |guest| guest.run("cat /run/events").contains("state DORMANT"));
    guest.wait("its end", |guest| !guest.is_up("wlan0"));
    assert_eq!(guest.logged("ifplugd_wlan0", "link is up"), ups);
    assert_eq!(guest.run("sv status dhcp_wlan0 | cat").split(':').next(), Some("down"));
    assert_eq!(guest.good_uplinks(), ["eth0"]);
}

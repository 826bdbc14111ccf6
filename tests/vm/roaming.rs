//! A laptop that is carried from one access point of a network to the other, and then into another
//! network. The access points are hostapd's on radios of mac80211_hwsim. Each network is in a
//! namespace of the machine with a DHCP server.

use testkit::vm::Kit;

use crate::guest::{Guest, image, with_kit};
use crate::wifi::{access_point, radio};

const SERVICES: [(&str, &str); 5] = [
    ("fw", "fw"),
    ("dhcp_if", "dhcp_wlan0"),
    ("ifplugd_if", "ifplugd_wlan0"),
    ("dhcp_if_pinger", "dhcp_wlan0_pinger"),
    ("supplicant_if", "supplicant_wlan0"),
];

const NETWORKS: &str = "ctrl_interface=/run/wpa_supplicant
network={
	scan_freq=2412
	ssid=\"home\"
	psk=\"a good passphrase\"
}
network={
	scan_freq=2412
	ssid=\"away\"
	psk=\"another passphrase\"
}
";
/// The radios: one is the laptop's, two are behind the bridge of one network, one belongs to
/// another network.
const AIR: &str = "for module in $(cat /lib/modules/radio); do
case $module in *hwsim*) insmod $module radios=4 ;; *) insmod $module ;; esac
done
in_net() { /sbin/ip netns exec \"$@\"; }
for net in home away; do /sbin/ip netns add $net; in_net $net /sbin/ip link set lo up; done
for phy in phy1 phy2; do /sbin/iw phy $phy set netns name home; done
/sbin/iw phy phy3 set netns name away
in_net home /sbin/ip link add br0 up type bridge
in_net home /sbin/ip address add 198.51.100.1/24 dev br0
in_net away /sbin/ip address add 10.77.0.1/24 dev wlan3
serve() { in_net $1 /sbin/dnsmasq --conf-file=/dev/null --user=root --port=0 --no-ping --bind-dynamic --interface=$2 --dhcp-authoritative \
--dhcp-leasefile=/run/$1.leases --pid-file=/run/$1.pid --dhcp-option=3,$3.1 --dhcp-range=$3.100,$3.150,255.255.255.0,1h; }
serve home br0 198.51.100
serve away wlan3 10.77.0
: >/run/air";

#[test]
fn a_laptop_roams_within_its_network_and_goes_to_another() {
    with_kit(|lab| {
        let kit = Kit::find().unwrap();
        let mut image = image(&kit, &SERVICES);
        radio(&kit, &mut image);
        image.modules("bridge", &["bridge"]);
        for interface in ["wlan1", "wlan2"] {
            let text = access_point(interface, "home", "a good passphrase");
            image.file(&format!("/etc/{interface}.conf"), &format!("{text}bridge=br0\n"));
        }
        image.file("/etc/wlan3.conf", &access_point("wlan3", "away", "another passphrase"));
        image.file("/var/service/supplicant_wlan0/wpa_supplicant.conf", NETWORKS);
        let air = format!("for module in $(cat /lib/modules/bridge); do insmod $module; done\n{AIR}");
        let mut guest = Guest::boot(lab, &kit, image, &air);
        guest.wait("the radios", |guest| !guest.run("ls /run/air 2>/dev/null").is_empty());
        begin(&mut guest, "home", "wlan1");
        guest.wait("a lease", |guest| guest.good_uplinks() == ["wlan0"]);
        guest.wait("a judged uplink", |guest| guest.logged("dhcp_wlan0_pinger", "uplink is good") == 1);
        begin(&mut guest, "home", "wlan2");
        roams(&mut guest);
        goes_away(&mut guest);
        guest.power_off();
    });
}

/// Starts an access point.
fn begin(guest: &mut Guest, net: &str, interface: &str) {
    let said =
        guest.run(&format!("/sbin/ip netns exec {net} /sbin/hostapd -B -P /run/{interface}.pid /etc/{interface}.conf"));
    assert!(said.contains("AP-ENABLED"), "{said}");
}

fn wpa(guest: &mut Guest, command: &str) -> String {
    guest.run(&format!("/sbin/wpa_cli -p /run/wpa_supplicant -i wlan0 {command}"))
}

/// The access point to which the interface is connected, as the kernel says.
fn access(guest: &mut Guest) -> Option<String> {
    let said = guest.run("/sbin/iw dev wlan0 link");
    Some(said.strip_prefix("Connected to ")?.split(' ').next()?.to_owned())
}

/// The numbers of answered and of unanswered pings so far. One ping is under way at a time.
fn pings(guest: &mut Guest) -> [usize; 2] {
    ["answered", "lost"].map(|word| guest.run(&format!("grep -c {word} /run/pings")).trim().parse().unwrap())
}

/// To the other access point: the link is lost for a moment, and the address stays.
fn roams(guest: &mut Guest) {
    let (address, client) = (guest.address("wlan0"), guest.pid("dhcp_wlan0"));
    guest.run("/sbin/ip -4 -o monitor address dev wlan0 >/run/addresses &");
    let ping = "ping -c 1 -W 1 -I wlan0 198.51.100.1 >/dev/null 2>&1 && echo answered || echo lost; sleep 0.1";
    guest.run(&format!("while :; do {ping}; done >/run/pings & echo $! >/run/pings.pid"));
    guest.wait("pings", |guest| pings(guest)[0] > 5);
    let old = access(guest).expect("an access point");
    let mut other = None;
    guest.wait("both access points are heard", |guest| {
        wpa(guest, "scan");
        let heard = wpa(guest, "scan_results");
        let bssids = heard.lines().filter(|l| l.ends_with("\thome")).filter_map(|l| l.split('\t').next());
        other = bssids.map(str::to_owned).find(|bssid| *bssid != old);
        other.is_some()
    });
    let confirmed = guest.logged("dhcp_wlan0", "leased before");
    assert!(wpa(guest, &format!("roam {}", other.as_deref().unwrap())).contains("OK"));
    guest.wait("the other access point", |guest| access(guest) == other);
    guest.wait("a lease that is confirmed", |guest| guest.logged("dhcp_wlan0", "leased before") > confirmed);
    guest.wait("the good uplink", |guest| guest.good_uplinks() == ["wlan0"]);
    let before = pings(guest)[0];
    guest.wait("pings again", |guest| pings(guest)[0] > before + 5);
    guest.run("kill $(cat /run/pings.pid)");
    let lost = pings(guest)[1];
    assert!(lost <= 5, "{lost} pings lost");
    assert_eq!((guest.address("wlan0"), guest.pid("dhcp_wlan0")), (address, client));
    let changes = guest.run("cat /run/addresses");
    assert!(!changes.contains("Deleted"), "{changes}");
}

/// The laptop leaves the network and finds another. The old lease goes, and the first request gives
/// a new one.
fn goes_away(guest: &mut Guest) {
    let asked = guest.logged("dhcp_wlan0", "broadcasting discover");
    begin(guest, "away", "wlan3");
    guest.run("for i in wlan1 wlan2; do kill $(cat /run/$i.pid); done");
    let is_away = |address: Option<String>| address.is_some_and(|address| address.starts_with("10.77.0."));
    guest.wait("a new lease", |guest| is_away(guest.address("wlan0")));
    guest.wait("the good uplink", |guest| guest.good_uplinks() == ["wlan0"]);
    guest.wait("the router answers", |guest| guest.router_answers("wlan0"));
    assert!(guest.run("/sbin/ip -4 route show default").contains("via 10.77.0.1"));
    let changes = guest.run("cat /run/addresses");
    assert!(changes.contains("Deleted") && changes.contains("198.51.100."), "{changes}");
    // There may be one more request, for a frame that the air has lost.
    let more = guest.logged("dhcp_wlan0", "broadcasting discover") - asked;
    assert!((1..=2).contains(&more), "asked {more} times");
}

//! A router without a clock of its own. It boots in 1970; the time comes from the network and
//! jumps, also backwards.
//!
//! The DHCP server is outside of the guest and stamps requests with the host's clock. The times in
//! this file are not the guest's.

use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::dhcpd::{Config, Dhcpd, MessageType};
use testkit::vm::{Kit, SERVICES, Wire};

use crate::guest::{Guest, image, with_cable};

/// T1, and a lease that is longer than any delay of a busy host.
const RENEWAL_SECS: u32 = 2;
const LEASE_SECS: u32 = 90;
/// Counts its starts and ends; runsv starts it again a second later.
const UNSTEADY: &str = "#!/bin/sh
n=$(($(cat /run/starts || echo 0) + 1))
echo $n >/run/starts
echo start $n
exit 1
";
/// With this record zcip need not search for an address.
const REMEMBERED: &str = "let cfg=cfg+1\nif[$cfg]='eth0'\nip[$cfg]='169.254.7.9'\n";

#[test]
fn a_clock_that_jumps_from_1970_and_back_disturbs_nothing() {
    with_cable(|lab| {
        let kit = Kit::find().unwrap();
        let mut image = image(&kit, &SERVICES);
        image.script("/var/service/unsteady/run", UNSTEADY);
        image.service("fw/log", "unsteady/log");
        image.file("/var/service/zcip_eth0/state/ipv4ll_eth0.ipconf", REMEMBERED);
        image.file("/var/log/service/unsteady/config", "t3\nn0\n");
        let wire = Wire::without_server(lab);
        let server = Config {
            lease_secs: LEASE_SECS,
            t1_t2_secs: Some((RENEWAL_SECS, LEASE_SECS - 10)),
            ..Config::for_router(Ipv4Addr::new(192, 0, 2, 1))
        };
        let server = Dhcpd::start(wire.net(), "tap0", server).unwrap();
        let mut guest =
            Guest::boot_at(lab, &kit, wire, image, "", &["-rtc", "base=1970-01-01T00:02:00"].map(str::to_owned));
        assert_eq!(guest.run("date -u +%Y"), "1970\n");
        guest.wait("a default route", |guest| guest.good_uplinks() == ["eth0"]);
        guest.wait("lease and link-local address", |guest| addresses(guest).lines().count() == 2);
        guest.wait("the verdict of the pinger", |guest| guest.logged("dhcp_eth0_pinger", "uplink is good") == 1);
        let addresses = addresses(&mut guest);
        guest.run("/sbin/ip -4 -o monitor address dev eth0 >/run/events &");
        for year in [2026, 1970] {
            jump(&mut guest, year);
            renewed(&mut guest, &server);
            killed(&mut guest, &server);
            unmoved(&mut guest, &addresses);
        }
        stamped(&mut guest);
        guest.power_off();
    });
}

/// All IPv4 addresses of eth0.
fn addresses(guest: &mut Guest) -> String {
    guest.run("/sbin/ip -4 -o address show dev eth0 | awk '{ print $4 }'")
}

/// Steps the clock, as ntpd does.
fn jump(guest: &mut Guest, year: u16) {
    guest.run(&format!("date -u -s '{year}-01-01 00:30:00'"));
    assert_eq!(guest.run("date -u +%Y"), format!("{year}\n"));
}

/// Two renewals come, each in its time: not at once, and not never.
fn renewed(guest: &mut Guest, server: &Dhcpd) {
    let before = server.count(MessageType::Request);
    guest.wait("two renewals", |_| server.count(MessageType::Request) >= before + 2);
    let seen = server.seen();
    let requests = seen.iter().filter(|seen| seen.kind == Some(MessageType::Request)).skip(before);
    let times: Vec<_> = requests.map(|seen| seen.at).collect();
    let least = Duration::from_secs(u64::from(RENEWAL_SECS) - 1);
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= least), "a storm: {times:?}");
    assert_eq!(server.count(MessageType::Discover), 1);
}

/// No program has noticed the jump, and all ages follow the machine's uptime.
fn unmoved(guest: &mut Guest, known: &str) {
    assert_eq!(addresses(guest), known);
    let events = guest.run("cat /run/events");
    assert!(!events.contains("Deleted"), "{events}");
    assert_eq!(guest.good_uplinks(), ["eth0"]);
    assert_eq!(guest.logged("dhcp_eth0_pinger", "uplink is bad"), 0);
    let plan = guest.run("(cd /var/service/fw && fw plan)");
    // fw plans only the longer lifetime that the address has after a renewal.
    assert!(plan.lines().all(|line| line.starts_with("~ address 192.0.2.100/24 dev eth0 valid_lft ")), "{plan}");
    assert!(guest.lifetime("eth0") <= u64::from(LEASE_SECS));
    let status = guest.run("sv status | cat; pinger --show eth0 | head -n 1 | sed 's/\\([0-9]\\) s/\\1s/g'");
    let ages = seconds(&status);
    assert!(ages.len() >= 2 * SERVICES.len(), "{status}");
    let uptime: u64 = guest.run("cut -d. -f1 /proc/uptime").trim().parse().unwrap();
    assert!(ages.iter().all(|age| *age <= uptime), "{uptime}: {status}");
    let oldest = ages.iter().max().copied().unwrap_or_default();
    // runsvdir starts first, a few seconds after the boot.
    assert!(oldest * 3 >= uptime, "{uptime}: {status}");
    let starts: u64 = guest.run("cat /run/starts").trim().parse().unwrap();
    assert!(starts <= uptime + 1, "{starts} starts in {uptime} s");
    guest.wait("another start", |guest| guest.run("cat /run/starts").trim().parse().is_ok_and(|n: u64| n > starts));
}

/// The numbers that are followed by an "s".
fn seconds(text: &str) -> Vec<u64> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter_map(|word| word.strip_suffix('s')?.parse().ok()).collect()
}

/// Records from before the jump are still valid: supervisors and client take over from them.
fn killed(guest: &mut Guest, server: &Dhcpd) {
    let (confirmed, pid) = (guest.logged("dhcp_eth0", "leased before"), guest.pid("dhcp_eth0").expect("it runs"));
    let zcip = guest.pid("zcip_eth0").expect("it runs");
    guest.run(&format!("kill -9 $(pidof runsv) {pid}"));
    guest.wait("another client", |guest| guest.pid("dhcp_eth0").is_some_and(|new| new != pid));
    guest.wait("one request", |guest| guest.logged("dhcp_eth0", "leased before") > confirmed);
    guest.wait("zcip is adopted", |guest| guest.pid("zcip_eth0") == Some(zcip));
    assert_eq!(server.count(MessageType::Discover), 1);
}

/// Lines carry the time of day. The files of a log keep the order in which they were written.
fn stamped(guest: &mut Guest) {
    guest.wait("three files", |guest| guest.run("ls -1 /var/log/service/unsteady/@*").lines().count() >= 3);
    let log = guest.run("(cd /var/log/service/unsteady && cat @* current)");
    let years: Vec<_> = log.lines().filter_map(|line| line.get(..5)).collect();
    let mut changes = years.clone();
    changes.dedup();
    assert_eq!(changes, ["1970-", "2026-", "1970-"], "{log}");
    let starts: Vec<u64> =
        log.lines().filter_map(|line| line.split_once("start ")).filter_map(|(_, n)| n.parse().ok()).collect();
    assert!(starts.len() == years.len() && starts.iter().copied().eq(1..=starts.len() as u64), "{log}");
}

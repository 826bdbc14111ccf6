//! The cost of a flood from the wire. Frames that pass the filter in the kernel but carry no news
//! are read at a bounded pace.

#![expect(clippy::disallowed_methods, reason = "how long a flood took says how much of it may be read")]

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use testkit::{Lab, Net, Proc, flood, isolated, wait_for};

use crate::ours;

const SOON: Duration = Duration::from_secs(25);
/// About a second's work of a sender of 2020. A daemon that reads all that it can makes some ten
/// thousand reads of it.
const FRAMES: usize = 400_000;
/// The frames that netd's pace lets through in each period. Each may cost a wake-up.
const BURST: u32 = 128;
const PERIOD: Duration = Duration::from_millis(50);
/// Twice the wake-ups of the daemon's own work in that time.
const OWN: u32 = 300;
/// The liar's Ethernet address.
const LIAR: [u8; 6] = [2, 9, 9, 9, 9, 9];

/// Makes home, with eth0, and isp, with customer.
fn wire(lab: &Lab) -> (Net, Net) {
    ours(lab);
    let (home, isp) = (lab.net("home"), lab.net("isp"));
    lab.cable((&home, "eth0"), (&isp, "customer"));
    (home, isp)
}

fn mac(net: &Net, interface: &str) -> [u8; 6] {
    let link = net.ip_json(&["link", "show", "dev", interface]);
    let bytes = link[0]["address"].as_str().unwrap().split(':').map(|b| u8::from_str_radix(b, 16).unwrap());
    bytes.collect::<Vec<_>>().try_into().unwrap()
}

/// How often the daemon has gone to sleep so far.
fn sleeps(daemon: &Proc) -> u32 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let count = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    count.trim().parse().unwrap()
}

#[track_caller]
fn assert_paced(daemon: &Proc, from: &Net, frames: &[Vec<u8>]) {
    let (before, begin) = (sleeps(daemon), Instant::now());
    flood(from, "customer", frames, FRAMES).unwrap();
    let (woken, took) = (sleeps(daemon) - before, begin.elapsed());
    let periods = u32::try_from(took.as_millis() / PERIOD.as_millis()).unwrap() + 2;
    assert!(woken <= periods * (BURST + 1) + OWN, "woken {woken} times in {took:?}");
}

/// An ARP message that says `sender` has `ip`.
fn arp(operation: u8, sender: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    [&[0xff; 6], &sender[..], &head, &sender, &ip.octets(), &[0; 6], &ip.octets()].concat()
}

#[test]
fn a_flood_of_arp_costs_zcip_and_pinger_little() {
    isolated(&[], |lab| {
        let (home, isp) = wire(lab);
        let dynamic = lab.make_dir("dynamic");
        let dynamic = dynamic.to_str().unwrap();
        let zcip = home.spawn(&["zcip", "-f", "--ipconf", dynamic, "--notify", "/nonexistent/fw", "eth0"]);
        let line = wait_for("an address", SOON, || {
            zcip.log().lines().find_map(|l| Some(l.split_once("using ")?.1.to_owned()))
        });
        let ip: Ipv4Addr = line.trim().parse().unwrap();
        // The daemon's own frame that comes back to it, and a frame that is neither a request nor a
        // reply.
        assert_paced(&zcip, &isp, &[arp(1, mac(&home, "eth0"), ip), arp(9, LIAR, ip)]);
        assert!(!zcip.log().contains("defended"), "{}", zcip.log());

        let router = Ipv4Addr::new(192, 0, 2, 1);
        home.address("eth0", "192.0.2.100/24");
        isp.address("customer", &format!("{router}/24"));
        let lease = format!("let cfg=cfg+1\nif[$cfg]='eth0'\nipmask[$cfg]='192.0.2.100/24'\ngw[$cfg]='{router}'\n");
        fs::write(format!("{dynamic}/dhcp_eth0.ipconf"), lease).unwrap();
        let pinger = home.spawn(&["pinger", "-i", "eth0", "--ipconf", dynamic, "--notify", "/nonexistent/fw"]);
        pinger.wait_log("uplink is good", SOON);
        assert_paced(&pinger, &isp, &[arp(2, LIAR, router)]);
    });
}

/// A frame with UDP from port 53 of `from`.
fn from_dns(to: [u8; 6], from: Ipv4Addr, ip: Ipv4Addr, port: u16, text: &[u8]) -> Vec<u8> {
    [&to, &LIAR[..], &[8, 0], &testkit::udp_datagram((from, 53), (ip, port), text)].concat()
}

#[test]
fn a_flood_of_wrong_answers_costs_a_question_little() {
    isolated(&["nft", "ss"], |lab| {
        let (home, isp) = wire(lab);
        let dynamic = lab.make_dir("dynamic");
        let dynamic = dynamic.to_str().unwrap();
        home.address("eth0", "192.0.2.100/24");
        isp.address("customer", "192.0.2.1/24");
        // The server does not answer, so the question stays open for 20 seconds.
        isp.run(&["nft", "add table ip mute; add chain ip mute in { type filter hook input priority 0; }; add rule ip mute in udp dport 53 drop"]);
        fs::write(
            format!("{dynamic}/dhcp_eth0.ipconf"),
            "let cfg=cfg+1\nif[$cfg]='eth0'\nipmask[$cfg]='192.0.2.100/24'\ngw[$cfg]='192.0.2.1'\n",
        )
        .unwrap();
        let slow = ["--interval", "60", "--retry", "60", "--timeout", "5", "-t", "dns:192.0.2.1/example.org"];
        let base = ["pinger", "-i", "eth0", "--ipconf", dynamic, "--notify", "/nonexistent/fw"];
        let pinger = home.spawn(&[&base[..], &slow].concat());
        let port = wait_for("the question", SOON, || {
            let sockets = home.run(&["ss", "-Hun"]);
            let local = sockets.split_whitespace().find(|w| w.starts_with("192.0.2.100"))?;
            local.rsplit_once(':')?.1.parse::<u16>().ok()
        });
        let server = Ipv4Addr::new(192, 0, 2, 1);
        let wrong = from_dns(mac(&home, "eth0"), server, Ipv4Addr::new(192, 0, 2, 100), port, b"not an answer");
        assert_paced(&pinger, &isp, &[wrong]);
    });
}

//! The pages of docs/ for newcomers, as they stand there: each block of commands that is marked
//! `sh` is run in a namespace, and what the page promises is tried.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails loudly")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use testkit::talk::{Over, answer, ask};
use testkit::{Lab, Net, isolated, wait_until};

use crate::{dnsmasq_argv, ours};

/// Longer than any step takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(15);
/// For "no answer comes".
const SILENCE: Duration = Duration::from_millis(400);

/// The commands of a page, one string for each block.
fn blocks(page: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap();
    let parts = text.split("\n```sh\n").skip(1);
    parts.map(|part| part.split_once("\n```\n").expect("the end of a block").0.to_owned()).collect()
}

/// A newcomer at the machine `net`, in the directory of the sources.
struct Reader<'a> {
    net: &'a Net,
    dir: std::path::PathBuf,
}

impl<'a> Reader<'a> {
    fn new(lab: &Lab, net: &'a Net) -> Reader<'a> {
        ours(lab);
        lab.cover("/var");
        fs::create_dir_all("/var/log").unwrap();
        lab.make_dir("etc");
        fs::write(lab.dir().join("cwd"), env!("CARGO_MANIFEST_DIR")).unwrap();
        Reader { net, dir: lab.dir().to_owned() }
    }

    /// Types a block into the shell that has run the blocks above it.
    #[track_caller]
    fn types(&self, block: &str) {
        let cwd = self.dir.join("cwd");
        let script = format!("cd \"$(cat {0})\"\n{block}\npwd >{0}", cwd.display());
        let mut command = self.net.command(&["bash", "-e", "-c", &script]);
        command.env("FW_ETC", self.dir.join("etc")).env("SVDIR", "/var/service");
        let mut shell = self.net.spawn_command("reader", command);
        let status = shell.wait(SOON);
        assert!(status.is_some_and(|s| s.success()), "{status:?}\n{block}\n{}", shell.log());
    }
}

/// The provider of eth0: addresses, a router, and a host of the Internet.
fn provider(lab: &Lab, home: &Net) -> (Net, testkit::Proc) {
    let isp = lab.net("isp");
    lab.cable((home, "eth0"), (&isp, "customer"));
    isp.address("customer", "192.0.2.1/24");
    isp.address("lo", "203.0.113.7/32");
    isp.address("lo", "198.51.100.1/32");
    let server = isp.spawn(&dnsmasq_argv("customer", &["--dhcp-range=192.0.2.10,192.0.2.10,1h"]));
    server.wait_log("DHCP, IP range", SOON);
    answer(&isp, "198.51.100.1:80", "internet");
    (isp, server)
}

/// Another provider, in the network 10.9.0.0/24.
fn another(lab: &Lab, home: &Net, interface: &str) -> (Net, testkit::Proc) {
    let isp = lab.net("another");
    lab.cable((home, interface), (&isp, "customer"));
    isp.address("customer", "10.9.0.1/24");
    let mut argv = dnsmasq_argv("customer", &["--dhcp-range=10.9.0.10,10.9.0.10,1h"]);
    argv.iter_mut()
        .filter(|word| word.starts_with("--dhcp-leasefile"))
        .for_each(|word| *word = "--dhcp-leasefile=/run/lab/another");
    let server = isp.spawn(&argv);
    server.wait_log("DHCP, IP range", SOON);
    (isp, server)
}

/// A machine behind `interface` that asks for an address.
fn guest(lab: &Lab, home: &Net, name: &str, interface: &str) -> (Net, testkit::Proc) {
    let net = lab.net(name);
    lab.cable((home, interface), (&net, "eth0"));
    let script = lab.dir().join("handler");
    let text = "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/$mask dev $interface && ip route add default via $router\nexit 0\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let client = net.spawn(&["udhcpc", "-f", "-t", "1000", "-T", "1", "-i", "eth0", "-s", script.to_str().unwrap()]);
    (net, client)
}

fn gets(net: &Net, to: &str) -> Option<String> {
    ask(net, Over::Tcp, None, to, SILENCE)
}

#[test]
fn the_page_about_a_router_makes_one() {
    isolated(&["nft", "dnsmasq", "bash", "ping"], |lab| {
        let home = lab.net("home");
        let (isp, _server) = provider(lab, &home);
        let (house, _house) = guest(lab, &home, "house", "lan0");
        let (visitor, _visitor) = guest(lab, &home, "visitor", "guest0");
        let reader = Reader::new(lab, &home);
        let blocks = blocks("router.md");
        let [uplink, lan, names, start, status, guests, doors, second, edit, keep] = blocks.as_slice() else {
            panic!("{blocks:?}")
        };
        assert!(guests.lines().count() <= 10, "ten lines: {guests}");
        [uplink, lan, names, start].into_iter().for_each(|block| reader.types(block));
        wait_until("the house is on the Internet", SOON, || gets(&house, "198.51.100.1:80").is_some());
        reader.types(status);
        answer(&home, "192.168.1.1:22", "router");
        let address = house.addresses("eth0")[0].split('/').next().unwrap().to_owned();
        answer(&house, &format!("{address}:445"), "files");
        assert_eq!(gets(&isp, "192.0.2.10:22"), None, "closed");
        assert!(visitor.addresses("eth0").is_empty(), "an undeclared card is outside");

        reader.types(guests);
        wait_until("the guest is on the Internet", SOON, || gets(&visitor, "198.51.100.1:80").is_some());
        assert_eq!(gets(&visitor, &format!("{address}:445")), None, "not to the house");
        assert_eq!(gets(&visitor, "192.168.2.1:22"), None, "not to the router");
        assert!(visitor.pings("192.168.2.1"));
        let guest_address = visitor.addresses("eth0")[0].split('/').next().unwrap().to_owned();
        assert!(house.pings(&guest_address), "the house reaches the guests");

        house.address("eth0", "192.168.1.50/24");
        answer(&house, "192.168.1.50:80", "web");
        answer(&home, "192.0.2.10:22", "router");
        reader.types(doors);
        wait_until("the web server", SOON, || gets(&isp, "192.0.2.10:8080").as_deref() == Some("web"));
        assert_eq!(gets(&visitor, "192.0.2.10:8080").as_deref(), Some("web"));
        assert_eq!(gets(&house, "192.0.2.10:8080").as_deref(), Some("web"));
        let from = |source| ask(&isp, Over::Tcp, Some(source), "192.0.2.10:22", SILENCE);
        assert_eq!((from("203.0.113.7").as_deref(), from("198.51.100.1")), (Some("router"), None));

        let (_another, _another_server) = another(lab, &home, "eth1");
        reader.types(second);
        wait_until("both providers", SOON, || home.default_routes().len() == 2);
        assert_eq!(home.default_routes()[0].0, "eth0");
        reader.types(edit);
        wait_until("the edit is applied", SOON, || from("198.51.100.1").as_deref() == Some("router"));
        let waits = Path::new("/var/service/fw/.confirm");
        assert!(waits.exists());
        reader.types(keep);
        assert!(!waits.exists());
        assert_eq!(from("198.51.100.1").as_deref(), Some("router"));
    });
}

#[test]
fn the_page_about_a_laptop_puts_it_on_the_network() {
    isolated(&["nft", "dnsmasq", "bash", "ping"], |lab| {
        let home = lab.net("home");
        let (isp, _server) = provider(lab, &home);
        isp.address("customer", "192.168.1.7/24");
        let (_radio, _radio_server) = another(lab, &home, "wlan0");
        let reader = Reader::new(lab, &home);
        let blocks = blocks("laptop.md");
        let [services, conf, start, ssh] = blocks.as_slice() else { panic!("{blocks:?}") };
        [services, conf, start].into_iter().for_each(|block| reader.types(block));
        wait_until("both ways", SOON, || home.default_routes().len() == 2);
        assert_eq!(home.default_routes()[0].0, "eth0", "the cable comes first");
        assert!(gets(&home, "198.51.100.1:80").is_some() && home.pings("10.9.0.1"));
        answer(&home, "192.0.2.10:22", "laptop");
        assert!(isp.pings("192.0.2.10"));
        assert_eq!(gets(&isp, "192.0.2.10:22"), None);
        reader.types(ssh);
        let from = |source| ask(&isp, Over::Tcp, Some(source), "192.0.2.10:22", SILENCE);
        home.ip(&["route", "add", "192.168.1.0/24", "dev", "eth0"]);
        wait_until("SSH from the one network", SOON, || from("192.168.1.7").as_deref() == Some("laptop"));
        assert_eq!(from("192.0.2.1"), None);
    });
}

//! The DHCP client on real links: Debian's udhcpc first and ours after it where both must do the
//! same, then what only ours does.
//!
//! The servers are dnsmasq (which a drop-in meets) and the test kit's own (which a test can make
//! misbehave).

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::dhcpd::{Config, Custom, DhcpOption, Dhcpd, Encodable, MessageType, Mode, OptionCode};
use testkit::{
    Cable, Lab, Net, Proc, Signal, holds_for, is_running, isolated, kill_9, original, poll_for, wait_for, wait_until,
};

use crate::{dnsmasq_argv, ours};

pub(super) const SOON: Duration = Duration::from_secs(10);
pub(super) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A client's network and a server's, with a cable between them.
pub(super) struct World {
    pub(super) home: Net,
    pub(super) isp: Net,
    pub(super) cable: Cable,
}

pub(super) fn world(lab: &Lab) -> World {
    ours(lab);
    let (home, isp) = (lab.net("home"), lab.net("isp"));
    let cable = lab.cable((&home, "eth0"), (&isp, "lan"));
    isp.address("lan", "192.0.2.1/24");
    World { home, isp, cable }
}

/// The original's path and ours.
pub(super) fn both(lab: &Lab) -> [String; 2] {
    let path = |p: PathBuf| p.to_str().unwrap().to_owned();
    [path(original("udhcpc").expect("udhcpc")), path(lab.dir().join("bin/udhcpc"))]
}

/// A script that appends `EVENT` and its environment to a file, and then does what a usual script
/// does.
pub(super) fn script(lab: &Lab, name: &str) -> (String, PathBuf) {
    let (path, out) = (lab.dir().join(format!("{name}.sh")), lab.dir().join(format!("{name}.out")));
    let text = format!(
        "#!/bin/sh\nPATH=/usr/sbin:/sbin:/usr/bin:/bin\n{{ echo \"EVENT=$1\"; /usr/bin/env | sort; }} >>{out}\n\
         case $1 in\n\
         deconfig) ip -4 addr flush dev $interface; ip link set $interface up ;;\n\
         bound|renew) ip addr replace $ip/$mask dev $interface ;;\n\
         esac\n",
        out = out.display()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (path.to_str().unwrap().to_owned(), out)
}

/// The events in a script's output with their variables. Variables of the shell and of the caller
/// are left out.
pub(super) fn events(out: &Path) -> Vec<Vec<String>> {
    let mut found: Vec<Vec<String>> = Vec::new();
    for line in fs::read_to_string(out).unwrap_or_default().lines() {
        if line.starts_with("EVENT=") {
            found.push(Vec::new());
        }
        let (name, _) = line.split_once('=').unwrap();
        if !["PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name) {
            found.last_mut().unwrap().push(line.to_owned());
        }
    }
    found
}

pub(super) fn names(out: &Path) -> Vec<String> {
    events(out).iter().map(|e| e[0].trim_start_matches("EVENT=").to_owned()).collect()
}

/// Runs a client to its end and returns its exit code.
pub(super) fn exit_code(net: &Net, argv: &[&str]) -> i32 {
    let output = net.try_run(argv);
    println!("{argv:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output.status.code().unwrap()
}

#[test]
fn a_script_gets_the_same_variables_from_ours_as_from_the_original() {
    isolated(&["dnsmasq", "udhcpc"], |lab| {
        let w = world(lab);
        let mut argv =
            dnsmasq_argv("lan", &["--dhcp-range=192.0.2.10,192.0.2.20,255.255.255.0,1h", "--dhcp-authoritative"]);
        argv.extend([
            "--dhcp-option=15,example.org",
            "--dhcp-option=17,/srv/root dir",
            "--dhcp-option=26,1400",
            "--dhcp-option=33,198.51.100.7,192.0.2.1",
            "--dhcp-option=42,192.0.2.3,192.0.2.4",
            "--dhcp-option=44,192.0.2.5",
            "--dhcp-option=66,tftp.example.org",
            "--dhcp-option=67,boot.img",
            "--dhcp-option=100,EST5EDT",
            "--dhcp-option=119,a.example,b.example",
            "--dhcp-option=121,10.20.0.0/16,192.0.2.9,0.0.0.0/0,192.0.2.1",
            "--dhcp-option=43,01:02:03",
            "--dhcp-option=252,http://x/y",
            "--dhcp-option=210,/pxe",
        ]);
        let server = w.isp.spawn(&argv);
        server.wait_log("DHCP, IP range", SOON);
        let mut seen = Vec::new();
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let (script, out) = script(lab, name);
            let mut argv = vec!["env", "-i", client, "-i", "eth0", "-s", &script, "-f", "-q", "-n", "-R"];
            argv.extend([
                "-O", "search", "-O", "121", "-O", "33", "-O", "26", "-O", "252", "-O", "rootpath", "-O", "wins",
            ]);
            argv.extend([
                "-O",
                "tftp",
                "-O",
                "bootfile",
                "-O",
                "tzstr",
                "-O",
                "210",
                "-O",
                "43",
                "-x",
                "hostname:bbox",
            ]);
            assert_eq!(exit_code(&w.home, &argv), 0, "{name}");
            seen.push(events(&out));
        }
        println!("{seen:#?}");
        assert_eq!(
            seen[0].iter().map(|e| e[0].as_str()).collect::<Vec<_>>(),
            ["EVENT=deconfig", "EVENT=bound", "EVENT=deconfig"]
        );
        assert!(seen[0][1].len() > 20, "the original's variables: {:?}", seen[0][1]);
        assert_eq!(seen[0], seen[1]);
    });
}

#[test]
fn exit_codes_background_and_pidfile_are_the_originals() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let running =
            |pidfile: &Path| fs::read_to_string(pidfile).ok()?.trim().parse().ok().filter(|pid| is_running(*pid));
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let (script, out) = script(lab, name);
            let pidfile = lab.dir().join(format!("{name}.pid"));
            let pid = pidfile.to_str().unwrap();
            let base = |more: &[&str]| {
                let argv = [&[client.as_str(), "-i", "eth0", "-s", &script, "-p", pid], more].concat();
                exit_code(&w.home, &argv)
            };
            assert_eq!(
                exit_code(&w.home, &[client, "-i", "nosuch", "-s", &script, "-f", "-n"]),
                1,
                "{name}: no interface"
            );
            assert_eq!(base(&["-f", "-O", "bogus"]), 1, "{name}: unknown option name");
            assert_eq!(base(&["-f", "-r", "1.2.3.x"]), 1, "{name}: bad address");
            server.set_mode(Mode::Silent);
            assert_eq!(base(&["-f", "-n", "-t", "1", "-T", "1"]), 1, "{name}: -n and no server");
            assert_eq!(names(&out), ["deconfig", "leasefail"], "{name}");
            assert!(!pidfile.exists(), "{name}: the pidfile goes with the process");

            assert_eq!(base(&["-b", "-n", "-t", "1", "-T", "1", "-A", "1"]), 0, "{name}: -b beats -n");
            let child = wait_for("the pid of the background", SOON, || running(&pidfile));
            server.set_mode(Mode::Normal);
            wait_until("a lease in the background", SOON, || names(&out).last().is_some_and(|e| e == "bound"));
            kill(&w.home, child);
            wait_until("the end of the background", SOON, || !is_running(child) && !pidfile.exists());

            assert_eq!(base(&[]), 0, "{name}: to the background when bound");
            let child = wait_for("the pid of the background", SOON, || running(&pidfile));
            kill(&w.home, child);
            wait_until("the end of the background", SOON, || !is_running(child) && !pidfile.exists());

            assert_eq!(base(&["-q", "-f"]), 0, "{name}: -q");
            assert!(!pidfile.exists(), "{name}");
        }
    });
}

/// Sends TERM to a process that is not our child.
fn kill(net: &Net, pid: i32) {
    net.run(&["sh", "-c", &format!("kill {pid}")]);
}

#[test]
fn signals_do_to_ours_what_they_do_to_the_original() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let (script, out) = script(lab, name);
            let proc = w.home.spawn(&[client, "-i", "eth0", "-s", &script, "-f", "-R"]);
            let last = |want: &str| wait_until(want, SOON, || names(&out).last().is_some_and(|e| e == want));
            last("bound");
            let releases = server.count(MessageType::Release);
            proc.signal(Signal::SIGUSR1);
            last("renew");
            let renewal = server.seen().last().unwrap().message.clone();
            assert!(!renewal.ciaddr().is_unspecified(), "{name}: a renewal names its address");
            proc.signal(Signal::SIGUSR2);
            last("deconfig");
            wait_until("the release", SOON, || server.count(MessageType::Release) == releases + 1);
            proc.signal(Signal::SIGUSR1);
            last("bound");
            assert!(proc.stop().success(), "{name}: TERM ends with 0");
            assert_eq!(names(&out), ["deconfig", "bound", "renew", "deconfig", "bound", "deconfig"], "{name}");
            wait_until("the release at the end", SOON, || server.count(MessageType::Release) == releases + 2);
        }
    });
}

#[test]
fn an_interface_that_is_down_is_brought_up_by_the_script() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let (script, out) = script(lab, name);
            w.home.ip(&["link", "set", "eth0", "down"]);
            assert_eq!(exit_code(&w.home, &[client, "-i", "eth0", "-s", &script, "-f", "-q", "-n"]), 0, "{name}");
            assert_eq!(names(&out).last().map(String::as_str), Some("bound"), "{name}");
        }
    });
}

/// Ours with `--ipconf`.
pub(super) fn native(w: &World, more: &[&str]) -> Proc {
    let base = ["udhcpc", "-f", "-v", "-i", "eth0", "--ipconf", "/run/lab/dyn"];
    w.home.spawn(&[&base[..], more].concat())
}

/// A field of the published record; `None` when there is no record or no such field.
pub(super) fn field(name: &str) -> Option<String> {
    let text = fs::read_to_string("/run/lab/dyn/dhcp_eth0.ipconf").ok()?;
    let prefix = format!("{name}[$cfg]='");
    let line = text.lines().find_map(|l| l.strip_prefix(&prefix))?;
    Some(line.trim_end_matches('\'').to_owned())
}

pub(super) fn wait_ip(want: &str) {
    wait_until(&format!("a record with {want}"), SOON, || field("ip").as_deref() == Some(want));
}

fn number(name: &str) -> u64 {
    field(name).unwrap().parse().unwrap()
}

fn boottime() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    uptime.split('.').next().unwrap().parse().unwrap()
}

#[test]
fn the_record_says_what_fw_needs_and_goes_when_the_client_ends() {
    isolated(&["dnsmasq"], |lab| {
        let w = world(lab);
        let mut argv = dnsmasq_argv("lan", &["--dhcp-range=192.0.2.10,192.0.2.20,255.255.255.0,1h"]);
        argv.extend(["--dhcp-option=15,example.org", "--dhcp-option=119,a.example,b.example", "--dhcp-option=26,1400"]);
        argv.extend(["--dhcp-option=6,192.0.2.1,192.0.2.2", "--dhcp-option=42,192.0.2.3"]);
        let server = w.isp.spawn(&argv);
        server.wait_log("DHCP, IP range", SOON);
        let client = native(&w, &[]);
        let ip = wait_for("a record", SOON, || field("ip"));
        let want = [
            ("if", "eth0"),
            ("ipmask", &format!("{ip}/24")),
            ("gw", "192.0.2.1"),
            ("net", "0/0"),
            ("dns", "192.0.2.1 192.0.2.2"),
            ("domain", "example.org"),
            ("search", "a.example b.example"),
            ("ntp", "192.0.2.3"),
            ("mtu", "1400"),
            ("broadcast", "192.0.2.255"),
            ("serverid", "192.0.2.1"),
            ("owner", &client.pid().to_string()),
        ];
        for (name, value) in want {
            assert_eq!(field(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(field("routes"), None, "what is not known is absent");
        assert!((3590..=3600).contains(&(number("lease_end_boottime") - boottime())));
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!(field("boot_id").as_deref(), boot_id.get(..8));
        assert!(client.log().contains(&format!("lease of {ip} obtained from 192.0.2.1, lease time 3600")));
        client.wait_log("cannot notify fw", SOON);
        assert_eq!(
            client.log().matches("cannot notify fw").count(),
            1,
            "no supervisor: said once, and the lease is kept"
        );
        assert!(client.stop().success());
        assert_eq!(field("if"), None, "withdrawn");
    });
}

#[test]
fn in_the_background_the_record_names_the_process_that_stays() {
    isolated(&[], |lab| {
        let w = world(lab);
        let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let argv = ["udhcpc", "-i", "eth0", "--ipconf", "/run/lab/dyn", "-p", "/run/lab/pid"];
        assert_eq!(exit_code(&w.home, &argv), 0);
        let pid = |text: String| text.trim().parse::<i32>().ok().filter(|pid| is_running(*pid));
        let child = wait_for("the record's owner", SOON, || pid(field("owner")?));
        assert_eq!(fs::read_to_string("/run/lab/pid").ok().and_then(pid), Some(child));
        kill(&w.home, child);
        wait_until("withdrawn", SOON, || field("ip").is_none() && !Path::new("/run/lab/pid").exists());
    });
}

#[test]
fn without_the_privilege_the_missing_capability_is_named() {
    isolated(&["setpriv"], |lab| {
        let w = world(lab);
        let drop = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"];
        let output =
            w.home.try_run(&[&drop[..], &["udhcpc", "-f", "-n", "-i", "eth0", "--ipconf", "/run/lab/dyn"]].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("CAP_NET_RAW"), "{output:?}");
    });
}

#[test]
fn option_121_replaces_the_router() {
    isolated(&["dnsmasq"], |lab| {
        let w = world(lab);
        let option = "--dhcp-option=121,10.20.0.0/16,192.0.2.9,0.0.0.0/0,192.0.2.7";
        let server = w.isp.spawn(&dnsmasq_argv("lan", &["--dhcp-range=192.0.2.10,192.0.2.20,1h", option]));
        server.wait_log("DHCP, IP range", SOON);
        let _client = native(&w, &[]);
        wait_until("a record", SOON, || field("ip").is_some());
        assert_eq!(field("gw").as_deref(), Some("192.0.2.7"));
        assert_eq!(field("routes").as_deref(), Some("10.20.0.0/16 192.0.2.9 0.0.0.0/0 192.0.2.7"));
    });
}

#[test]
fn a_lease_is_renewed_by_unicast_from_its_address_and_lives_on() {
    isolated(&[], |lab| {
        let w = world(lab);
        let config = Config { lease_secs: 8, t1_t2_secs: Some((2, 6)), ..Config::for_router(ROUTER) };
        let server = Dhcpd::start(&w.isp, "lan", config).unwrap();
        let _client = native(&w, &[]);
        wait_ip("192.0.2.100");
        // The test sets the address, as fw would: the unicast leaves from this address, and its
        // answer comes back to it.
        w.home.address("eth0", "192.0.2.100/24");
        let first = number("lease_end_boottime");
        wait_until("two renewals", Duration::from_secs(15), || number("lease_end_boottime") >= first + 3);
        let seen = server.seen();
        let renewals: Vec<_> = seen
            .iter()
            .filter(|s| s.kind == Some(MessageType::Request) && !s.message.ciaddr().is_unspecified())
            .collect();
        assert!(renewals.len() >= 2, "{}", renewals.len());
        assert_eq!(server.count(MessageType::Discover), 1, "no new search");
        let mut xids: Vec<u32> = renewals.iter().map(|s| s.message.xid()).collect();
        xids.dedup();
        assert_eq!(xids.len(), renewals.len(), "each with an xid of its own");
    });
}

#[test]
fn a_server_that_dies_costs_the_address_at_the_leases_end_and_not_before() {
    isolated(&[], |lab| {
        let w = world(lab);
        let config = Config { lease_secs: 6, ..Config::for_router(ROUTER) };
        let server = Dhcpd::start(&w.isp, "lan", config).unwrap();
        let _client = native(&w, &[]);
        wait_ip("192.0.2.100");
        server.set_mode(Mode::Silent);
        let end = number("lease_end_boottime");
        wait_until("the end of the lease", SOON, || field("ip").is_none());
        assert!(boottime() >= end, "withdrawn at {}, lease until {end}", boottime());
        server.set_mode(Mode::Normal);
        wait_ip("192.0.2.100");
    });
}

#[test]
fn a_killed_client_keeps_its_address_and_asks_for_nothing_but_a_confirmation() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        kill_9(client.pid());
        assert_eq!(field("ip").as_deref(), Some("192.0.2.100"), "the record survives");
        let requests = server.count(MessageType::Request);
        let client = native(&w, &[]);
        wait_until("the record's new owner", SOON, || field("owner") == Some(client.pid().to_string()));
        assert_eq!(field("ip").as_deref(), Some("192.0.2.100"));
        assert_eq!((server.count(MessageType::Discover), server.count(MessageType::Request)), (1, requests + 1));

        // The client is killed again, and the server is away while the next client starts. The next
        // client still keeps the address.
        kill_9(client.pid());
        server.set_mode(Mode::Silent);
        let client = native(&w, &[]);
        client.wait_log("keeping 192.0.2.100", SOON);
        assert_eq!(field("ip").as_deref(), Some("192.0.2.100"));
        assert!(client.stop().success());
        assert_eq!(field("ip"), None);
    });
}

#[test]
fn a_refused_address_is_given_up_at_once_for_one_of_the_new_network() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        kill_9(client.pid());
        server.forget_bindings();
        server.configure(|c| {
            c.first = Ipv4Addr::new(198, 51, 100, 50);
            c.router = Some(Ipv4Addr::new(198, 51, 100, 1));
        });
        let client = native(&w, &[]);
        wait_ip("198.51.100.50");
        assert!(client.log().contains("received DHCP NAK"), "{}", client.log());
        let seen = server.seen();
        let at = |kind, n: usize| seen.iter().filter(|s| s.kind == Some(kind)).nth(n).unwrap().at;
        let between = at(MessageType::Discover, 1).saturating_sub(at(MessageType::Request, 1));
        assert!(between < Duration::from_secs(1), "a search of its own began {between:?} after the refusal");
    });
}

#[test]
fn one_refusal_costs_no_time() {
    isolated(&[], |lab| {
        let w = world(lab);
        let config = Config { mode: Mode::NakOnce, ..Config::for_router(ROUTER) };
        let server = Dhcpd::start(&w.isp, "lan", config).unwrap();
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        assert!(client.log().contains("received DHCP NAK"), "{}", client.log());
        let requests: Vec<_> = server.seen().into_iter().filter(|s| s.kind == Some(MessageType::Request)).collect();
        let between = requests[1].at.saturating_sub(requests[0].at);
        assert!(between < Duration::from_secs(1), "the next request came {between:?} after the refused one");
    });
}

/// There is a minute between two messages, so only the cable can cause an earlier one.
fn plug_brings_a_lease(w: &World) {
    let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
    let client = native(w, &["-T", "60"]);
    client.wait_log("broadcasting discover", SOON);
    w.cable.plug();
    wait_ip("192.0.2.100");
}

#[test]
fn a_cable_that_is_plugged_in_is_used_at_once() {
    isolated(&[], |lab| {
        let w = world(lab);
        w.cable.pull();
        wait_until("no carrier", SOON, || w.home.ip_json(&["link", "show", "eth0"])[0]["operstate"] == "DOWN");
        plug_brings_a_lease(&w);
    });
}

#[test]
fn with_ipconf_an_interface_that_is_down_is_brought_up() {
    isolated(&[], |lab| {
        let w = world(lab);
        w.cable.pull();
        w.home.ip(&["link", "set", "eth0", "down"]);
        plug_brings_a_lease(&w);
    });
}

/// The cable is plugged in. Without a lease from the first DISCOVER there is no lease for a minute.
#[test]
fn an_interface_that_is_down_at_first_costs_no_message_and_no_complaint() {
    isolated(&[], |lab| {
        let w = world(lab);
        let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let quiet = |client: &Proc| assert!(!client.log().contains("Network is down"), "{}", client.log());
        w.home.ip(&["link", "set", "eth0", "down"]);
        let client = native(&w, &["-T", "60"]);
        wait_ip("192.0.2.100");
        quiet(&client);
        drop(client);
        // The script sets the interface up, as ifupdown's does.
        w.home.ip(&["link", "set", "eth0", "down"]);
        let (script, _) = script(lab, "up");
        let client = w.home.spawn(&["udhcpc", "-f", "-v", "-i", "eth0", "-s", &script, "-T", "60"]);
        client.wait_log("lease of 192.0.2.100 obtained", SOON);
        quiet(&client);
        // The interface does not come up at all: the client says so once.
        drop(client);
        w.home.ip(&["link", "set", "eth0", "down"]);
        let client = w.home.spawn(&["udhcpc", "-f", "-v", "-i", "eth0", "-s", "/bin/true", "-T", "1"]);
        client.wait_log("can't send: Network is down", SOON);
        wait_until("another try", SOON, || client.log().matches("broadcasting discover").count() > 2);
        assert_eq!(client.log().matches("Network is down").count(), 1, "{}", client.log());
    });
}

#[test]
fn a_rogue_that_offers_first_and_never_confirms_does_not_starve_the_client() {
    isolated(&[], |lab| {
        let w = world(lab);
        let rogue_id = Ipv4Addr::new(192, 0, 2, 66);
        let rogue = Config { mode: Mode::OfferOnly, server_id: rogue_id, ..Config::for_router(ROUTER) };
        let rogue = Dhcpd::start(&w.isp, "lan", Config { first: Ipv4Addr::new(192, 0, 2, 200), ..rogue }).unwrap();
        // The honest server is slower with its offer, so the client has asked the rogue by then.
        let ip = Ipv4Addr::new(192, 0, 2, 100);
        let honest = move |message: &testkit::dhcpd::Message| {
            let config = Config::for_router(ROUTER);
            let ours = message.opts().get(OptionCode::ServerIdentifier) == Some(&DhcpOption::ServerIdentifier(ROUTER));
            let kind = match message.opts().msg_type() {
                Some(MessageType::Request) if ours => MessageType::Ack,
                Some(MessageType::Request) => MessageType::Offer,
                _ => return Vec::new(),
            };
            vec![testkit::dhcpd::grant(&config, message, kind, ip).to_vec().unwrap()]
        };
        let mode = Mode::Custom(Custom(Box::new(honest)));
        let honest = Dhcpd::start(&w.isp, "lan", Config { mode, ..Config::for_router(ROUTER) }).unwrap();
        let client = native(&w, &[]);
        wait_until("a lease", SOON, || field("ip").is_some());
        let log = client.log();
        assert!(log.contains("select for 192.0.2.200, server 192.0.2.66"), "the rogue was asked first: {log}");
        assert_eq!(field("ip").as_deref(), Some("192.0.2.100"));
        assert_eq!(field("serverid").as_deref(), Some("192.0.2.1"));
        assert_eq!((rogue.count(MessageType::Discover), honest.count(MessageType::Discover)), (1, 1), "{log}");
    });
}

#[test]
fn malformed_replies_change_nothing() {
    isolated(&[], |lab| {
        let w = world(lab);
        let config = Config { lease_secs: 120, ..Config::for_router(ROUTER) };
        let server = Dhcpd::start(&w.isp, "lan", config).unwrap();
        let client = native(&w, &["-T", "1"]);
        wait_ip("192.0.2.100");
        w.home.address("eth0", "192.0.2.100/24");
        let record = fs::read("/run/lab/dyn/dhcp_eth0.ipconf").unwrap();
        let broken = |message: &testkit::dhcpd::Message| {
            let good = testkit::dhcpd::grant(
                &Config::for_router(ROUTER),
                message,
                MessageType::Ack,
                Ipv4Addr::new(192, 0, 2, 100),
            );
            let good = good.to_vec().unwrap();
            let with = |at: usize, bytes: &[u8]| {
                let mut copy = good.clone();
                copy[at..at + bytes.len()].copy_from_slice(bytes);
                copy
            };
            let all = [
                good[..239].to_vec(),
                Vec::new(),
                with(0, &[1]),
                with(2, &[16]),
                with(4, &[0, 0, 0, 0]),
                with(28, &[9, 9, 9, 9, 9, 9]),
                with(236, &[0, 0, 0, 0]),
                with(16, &[255, 255, 255, 255]),
                [&good[..240], &[53, 200, 5]].concat(),
                [&good[..240], &[53, 1, 5, 51, 4, 0, 0, 0, 0, 255]].concat(),
            ];
            all.to_vec()
        };
        server.set_mode(Mode::Custom(Custom(Box::new(broken))));
        let before = server.seen().len();
        client.signal(Signal::SIGUSR1);
        wait_until("the renewal", SOON, || server.seen().len() > before);
        holds_for("the record stays as it was", Duration::from_millis(500), || {
            fs::read("/run/lab/dyn/dhcp_eth0.ipconf").is_ok_and(|now| now == record)
        });
        server.set_mode(Mode::Normal);
        client.signal(Signal::SIGUSR1);
        wait_until("a good answer after all", SOON, || {
            fs::read("/run/lab/dyn/dhcp_eth0.ipconf").is_ok_and(|now| now != record)
        });
        assert!(is_running(client.pid()));
    });
}

#[test]
fn a_missing_interface_is_reported_once_and_waited_for() {
    isolated(&[], |lab| {
        ours(lab);
        let (home, isp) = (lab.net("home"), lab.net("isp"));
        let client = home.spawn(&["udhcpc", "-f", "-i", "eth0", "--ipconf", "/run/lab/dyn"]);
        client.wait_log("waiting for it", SOON);
        // The kernel tells the client; the client does not poll. It is asleep until then.
        let switches = || {
            let status = fs::read_to_string(format!("/proc/{}/status", client.pid())).unwrap();
            status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).map(str::to_owned)
        };
        wait_until("it sleeps for longer than a second", SOON, || {
            let before = switches();
            poll_for(Duration::from_millis(1500), || (switches() != before).then_some(())).is_none()
        });
        let _cable = lab.cable((&home, "eth0"), (&isp, "lan"));
        isp.address("lan", "192.0.2.1/24");
        let _server = Dhcpd::start(&isp, "lan", Config::for_router(ROUTER)).unwrap();
        wait_ip("192.0.2.100");
        assert_eq!(client.log().matches("waiting for it").count(), 1);
        // An interface that disappears ends the client with 0, as it ends udhcpc.
        home.ip(&["link", "del", "eth0"]);
        let mut client = client;
        let ended = client.wait(SOON).expect("the client ends with its interface");
        assert!(ended.success(), "{ended}");
        assert_eq!(field("ip"), None);
    });
}

/// The provider's own machine has the first address of its pool, and answers ARP requests for it.
fn squatted(w: &World) -> Ipv4Addr {
    let first = Config::for_router(ROUTER).first;
    w.isp.address("lan", &format!("{first}/24"));
    first
}

#[test]
fn an_address_that_somebody_has_is_declined_as_the_original_does_it() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let taken = squatted(&w);
        let mut seen = Vec::new();
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
            let (script, out) = script(lab, name);
            let argv = [client, "-i", "eth0", "-s", &script, "-f", "-q", "-n", "-a200", "-A", "1"];
            assert_eq!(exit_code(&w.home, &argv), 0, "{name}");
            assert_eq!(server.count(MessageType::Decline), 1, "{name}");
            let bound = events(&out).pop().unwrap();
            let ip = bound.iter().find_map(|line| line.strip_prefix("ip=")).unwrap().to_owned();
            assert_ne!(ip, taken.to_string(), "{name}");
            seen.push((names(&out), ip));
        }
        assert_eq!(seen[0].0, ["deconfig", "bound"]);
        assert_eq!(seen[0], seen[1]);
    });
}

#[test]
fn with_acd_an_address_is_looked_for_at_once_and_defended_while_it_is_used() {
    isolated(&["busybox"], |lab| {
        let w = world(lab);
        let taken = squatted(&w);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let client = w.home.spawn(&["udhcpc", "-f", "-i", "eth0", "--acd", "fast", "--ipconf", "/run/lab/dyn"]);
        let record = || fs::read_to_string("/run/lab/dyn/dhcp_eth0.ipconf").unwrap_or_default();
        wait_until("a record", SOON, || record().contains("ip[$cfg]="));
        assert!(!record().contains(&format!("'{taken}'")), "{}", record());
        assert_eq!(server.count(MessageType::Decline), 1);
        // Another station takes the address that is in use. The client defends it once. When the
        // station insists, it keeps the address and the client gets another.
        let ours = u32::from(taken) + 1;
        let busybox = original("busybox").unwrap();
        let insist = || {
            let address = Ipv4Addr::from(ours).to_string();
            w.isp.run(&[busybox.to_str().unwrap(), "arping", "-U", "-c", "1", "-I", "lan", "-s", &address, &address]);
        };
        w.isp.address("lan", &format!("{}/24", Ipv4Addr::from(ours)));
        insist();
        client.wait_log("used our address: defended", SOON);
        assert!(record().contains(&Ipv4Addr::from(ours).to_string()));
        insist();
        client.wait_log("will not give way, declining", SOON);
        wait_until("another address", SOON, || record().contains(&Ipv4Addr::from(ours + 1).to_string()));
        assert_eq!(server.count(MessageType::Decline), 2);
    });
}

#[test]
fn with_rapid_commit_the_lease_takes_one_round_trip() {
    isolated(&["dnsmasq"], |lab| {
        let w = world(lab);
        let range = "--dhcp-range=192.0.2.10,192.0.2.20,255.255.255.0,1h";
        let server = w.isp.spawn(&dnsmasq_argv("lan", &[range, "--dhcp-rapid-commit", "--log-dhcp"]));
        server.wait_log("DHCP, IP range", SOON);
        let (script, out) = script(lab, "rapid");
        assert_eq!(exit_code(&w.home, &["udhcpc", "-i", "eth0", "-s", &script, "-f", "-q", "-n", "--rapid-commit"]), 0);
        assert_eq!(names(&out), ["deconfig", "bound"]);
        // An option without a value makes no variable.
        assert!(!events(&out)[1].iter().any(|line| line.starts_with("opt80")), "{:?}", events(&out));
        let log = server.log();
        assert!(log.contains("DHCPACK") && !log.contains("DHCPOFFER") && !log.contains("DHCPREQUEST"), "{log}");
    });
}

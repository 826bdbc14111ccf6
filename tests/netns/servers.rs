//! Our client against the servers that people run: dnsmasq, ISC's dhcpd, Kea and busybox's udhcpd.
//!
//! A behaviour that every server must show is one function here, with a test for each server. Tests
//! that need one particular server are below.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::dhcpd::{Config, Custom, Dhcpd, Encodable, MessageType, Mode};
use testkit::probe::Probe;
use testkit::timeline::Timeline;
use testkit::{Lab, Net, Proc, Signal, isolated, kill_9, original, wait_for, wait_until};

use crate::capture::{Capture, DECLINE, DISCOVER, RELEASE, REQUEST};
use crate::dhcp::{ROUTER, SOON, World, both, events, exit_code, field, names, native, script, wait_ip, world};
use crate::{dnsmasq_argv, ours};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Dnsmasq,
    Dhcpd,
    Kea,
    Udhcpd,
}

/// The addresses that a server lends on `lan`, a /24.
#[derive(Clone, Copy)]
struct Pool<'a> {
    /// First three octets.
    net: &'a str,
    /// Last octets of the first and the last address.
    from_to: (u8, u8),
    /// dnsmasq raises it to at least 120.
    lease_secs: u32,
    /// DNS search list.
    search: &'a [String],
}

const POOL: Pool = Pool { net: "192.0.2", from_to: (10, 11), lease_secs: 3600, search: &[] };

impl Server {
    /// Starts the server in `net`, as the only authority of its network. It listens when this
    /// returns.
    fn start(self, lab: &Lab, net: &Net, name: &str, pool: Pool) -> Proc {
        let dir = lab.make_dir(name);
        let file = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (first, last) = (format!("{}.{}", pool.net, pool.from_to.0), format!("{}.{}", pool.net, pool.from_to.1));
        let (router, secs) = (format!("{}.1", pool.net), pool.lease_secs);
        match self {
            Server::Dnsmasq => {
                // The next server must not know the leases of the previous one.
                let _ = fs::remove_file("/run/lab/leases");
                let range = format!("--dhcp-range={first},{last},255.255.255.0,{secs}");
                let mut argv = dnsmasq_argv("lan", &["--dhcp-authoritative", &range, "--dhcp-option=15,example.org"]);
                let search = format!("--dhcp-option=119,{}", pool.search.join(","));
                argv.extend((!pool.search.is_empty()).then_some(search.as_str()));
                let proc = net.spawn(&argv);
                proc.wait_log("DHCP, IP range", SOON);
                proc
            }
            Server::Dhcpd => {
                let search = pool.search.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
                let search = if search.is_empty() { search } else { format!("option domain-search {search};") };
                let text = format!(
                    "authoritative; ping-check false; min-lease-time 1; max-lease-time {secs}; default-lease-time {secs};\n\
                     subnet {net}.0 netmask 255.255.255.0 {{ range {first} {last}; option routers {router};\n\
                     option domain-name-servers {router}; option domain-name \"example.org\"; {search} }}\n",
                    net = pool.net
                );
                let (config, leases) = (file("dhcpd.conf", &text), file("dhcpd.leases", ""));
                let pid = dir.join("dhcpd.pid").to_str().unwrap().to_owned();
                let proc = net.spawn(&["dhcpd", "-4", "-f", "-d", "-cf", &config, "-lf", &leases, "-pf", &pid, "lan"]);
                proc.wait_log("Server starting service", SOON);
                proc
            }
            Server::Kea => kea(net, &dir, &file("kea.json", &kea_config(pool, &first, &last, &router))),
            Server::Udhcpd => {
                let text = format!(
                    "start {first}\nend {last}\ninterface lan\nlease_file {dir}/leases\npidfile {dir}/pid\nmin_lease 1\n\
                     opt router {router}\nopt dns {router}\nopt domain example.org\nopt subnet 255.255.255.0\nopt lease {secs}\n",
                    dir = dir.display()
                );
                let config = file("udhcpd.conf", &text);
                file("leases", "");
                let proc = net.spawn(&["udhcpd", "-f", "-I", &router, &config]);
                proc.wait_log("started", SOON);
                proc
            }
        }
    }
}

fn kea_config(pool: Pool, first: &str, last: &str, router: &str) -> String {
    let option = |name: &str, data: &str| format!(r#"{{ "name": "{name}", "data": "{data}" }}"#);
    let mut options = vec![option("routers", router), option("domain-name-servers", router)];
    options.push(option("domain-name", "example.org"));
    if !pool.search.is_empty() {
        options.push(option("domain-search", &pool.search.join(", ")));
    }
    format!(
        r#"{{ "Dhcp4": {{ "interfaces-config": {{ "interfaces": [ "lan" ] }}, "authoritative": true,
            "lease-database": {{ "type": "memfile", "persist": false }}, "valid-lifetime": {secs},
            "loggers": [ {{ "name": "kea-dhcp4", "severity": "INFO", "output_options": [ {{ "output": "stdout" }} ] }} ],
            "subnet4": [ {{ "id": 1, "subnet": "{net}.0/24", "pools": [ {{ "pool": "{first} - {last}" }} ],
            "option-data": [ {options} ] }} ] }} }}"#,
        secs = pool.lease_secs,
        net = pool.net,
        options = options.join(", ")
    )
}

/// Starts Kea. Its libraries are beside it in the tree of originals, or installed.
fn kea(net: &Net, dir: &Path, config: &str) -> Proc {
    let program = original("kea-dhcp4").unwrap();
    let usr = program.parent().and_then(Path::parent).unwrap();
    let libraries: Vec<String> = fs::read_dir(usr.join("lib"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().join("kea").is_dir())
        .map(|entry| entry.path().display().to_string())
        .collect();
    let mut command: Command = net.command(&[program.to_str().unwrap(), "-c", config]);
    command.env("LD_LIBRARY_PATH", libraries.join(":")).env("KEA_LOCKFILE_DIR", "none").env("KEA_PIDFILE_DIR", dir);
    let proc = net.spawn_command("kea-dhcp4", command);
    proc.wait_log("DHCP4_STARTED", SOON);
    proc
}

/// One set of tests for each server.
macro_rules! against {
    ($($name:ident: $server:expr, $program:literal;)*) => { $(mod $name {
        use super::{Server, isolated};

        #[test]
        fn gives_an_address_that_is_renewed_by_unicast_and_given_back() {
            isolated(&[$program], |lab| super::lease_renew_release(lab, $server));
        }

        #[test]
        fn confirms_after_a_kill_and_refuses_in_another_network() {
            isolated(&[$program], |lab| super::reboot(lab, $server));
        }

        #[test]
        fn hears_of_an_address_that_somebody_has() {
            isolated(&[$program], |lab| super::duplicate(lab, $server));
        }
    })* };
}

against! {
    dnsmasq: Server::Dnsmasq, "dnsmasq";
    dhcpd: Server::Dhcpd, "dhcpd";
    kea: Server::Kea, "kea-dhcp4";
    udhcpd: Server::Udhcpd, "udhcpd";
}

fn lease_renew_release(lab: &Lab, server: Server) {
    let w = world(lab);
    // The pool has one address: the next client can get it only when the first has given it back.
    let _server = server.start(lab, &w.isp, "server", Pool { from_to: (10, 10), ..POOL });
    let capture = Capture::start(&w.isp);
    for mac in ["02:00:00:00:00:0a", "02:00:00:00:00:0b"] {
        w.home.ip(&["link", "set", "eth0", "address", mac]);
        let (script, out) = script(lab, &format!("script-{mac}"));
        let before = capture.packets().len();
        let client = w.home.spawn(&["udhcpc", "-f", "-R", "-i", "eth0", "-s", &script]);
        let last = |want: &str| wait_until(want, SOON, || names(&out).last().is_some_and(|e| e == want));
        last("bound");
        wait_until("its address", SOON, || w.home.addresses("eth0") == ["192.0.2.10/24"]);
        let bound = events(&out).pop().unwrap();
        for line in ["domain=example.org", "router=192.0.2.1", "serverid=192.0.2.1", "lease=3600", "mask=24"] {
            assert!(bound.iter().any(|l| l == line), "{line}: {bound:?}");
        }
        assert!(w.home.pings("192.0.2.1"));
        client.signal(Signal::SIGUSR1);
        last("renew");
        assert!(client.stop().success());
        capture.wait(RELEASE, before);
        let packets = capture.packets().split_off(before);
        let mut kinds: Vec<u8> = packets.iter().map(|p| p.kind()).collect();
        kinds.dedup();
        assert_eq!(kinds, [DISCOVER, REQUEST, RELEASE], "{packets:#?}");
        let renewal = packets.iter().find(|p| p.is_renewal()).expect("a renewal");
        assert_eq!(renewal.path[1], (ROUTER, 67), "by unicast");
        assert_eq!(w.home.addresses("eth0"), [] as [&str; 0]);
    }
}

/// INIT-REBOOT. The server confirms the record of a killed client. A server of another network
/// refuses it, and a new lease comes at once.
fn reboot(lab: &Lab, server: Server) {
    let w = world(lab);
    let here = server.start(lab, &w.isp, "here", POOL);
    let capture = Capture::start(&w.isp);
    let client = native(&w, &[]);
    let ip = wait_for("a record", SOON, || field("ip"));
    kill_9(client.pid());
    let before = capture.packets().len();
    let client = native(&w, &[]);
    wait_until("the record's new owner", SOON, || field("owner") == Some(client.pid().to_string()));
    assert_eq!(field("ip"), Some(ip));
    // A server that probes an address before it offers it (as udhcpd does) gets more than one
    // request.
    let kinds = |from: usize| {
        let mut kinds: Vec<u8> = capture.packets().iter().skip(from).map(|p| p.kind()).collect();
        kinds.dedup();
        kinds
    };
    assert_eq!(kinds(before), [REQUEST], "no search");

    kill_9(client.pid());
    drop(here);
    w.isp.ip(&["address", "flush", "dev", "lan"]);
    w.isp.address("lan", "198.51.100.1/24");
    let _there = server.start(lab, &w.isp, "there", Pool { net: "198.51.100", ..POOL });
    let before = capture.packets().len();
    let client = native(&w, &[]);
    wait_until("an address of the other network", SOON, || field("ip").is_some_and(|ip| ip.starts_with("198.51.100.")));
    let log = client.log();
    assert!(log.contains("received DHCP NAK"), "{log}");
    assert_eq!(kinds(before), [REQUEST, DISCOVER, REQUEST], "{log}");
    let at: Vec<_> = capture.times().split_off(before);
    assert!(at[1] - at[0] < Duration::from_secs(1), "a new search began {:?} after the question", at[1] - at[0]);
}

/// Like [`world`], with a neighbour on the same Ethernet: `lan` is a bridge.
pub(crate) fn street(lab: &Lab) -> (World, Net) {
    ours(lab);
    let (home, isp, neighbour) = (lab.net("home"), lab.net("isp"), lab.net("neighbour"));
    isp.bridge("lan");
    let cable = lab.cable((&home, "eth0"), (&isp, "port0"));
    lab.cable((&neighbour, "eth0"), (&isp, "port1"));
    for port in ["port0", "port1"] {
        isp.port("lan", port);
    }
    isp.address("lan", "192.0.2.1/24");
    (World { home, isp, cable }, neighbour)
}

/// A neighbour has the address that the server offers. The client declines it, and the server gives
/// another.
fn duplicate(lab: &Lab, server: Server) {
    let (w, neighbour) = street(lab);
    let _server = server.start(lab, &w.isp, "server", POOL);
    let capture = Capture::start(&w.isp);
    let client = native(&w, &["-R"]);
    let ip = wait_for("a record", SOON, || field("ip"));
    w.home.address("eth0", &format!("{ip}/24"));
    assert!(client.stop().success());
    capture.wait(RELEASE, 0);
    w.home.ip(&["address", "flush", "dev", "eth0"]);
    let before = capture.packets().len();
    neighbour.address("eth0", &format!("{ip}/24"));
    let client = native(&w, &["-r", &ip, "--acd", "fast"]);
    let other = wait_for("a record", SOON, || field("ip"));
    assert_ne!(other, ip);
    assert!(other == "192.0.2.10" || other == "192.0.2.11", "{other}");
    let declined = capture.packets().iter().skip(before).filter(|p| p.kind() == DECLINE).count();
    assert_eq!(declined, 1, "{}", client.log());
}

/// Runs fw once over the client's record.
fn fw(w: &World) {
    let mut command = w.home.command(&["fw", "apply"]);
    for (variable, dir) in [("STATIC", "conf"), ("DYNAMIC", "dyn"), ("CONFIG", "fw.conf"), ("ETC", "etc")] {
        command.env(format!("FW_{variable}"), format!("/run/lab/{dir}"));
    }
    let output = command.env("SVDIR", "/nonexistent").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Cloud providers do this: every machine is alone in its /32, and the router is outside of it on
/// the same wire.
#[test]
fn a_mask_of_32_bits_and_a_router_outside_it_work() {
    isolated(&["dnsmasq", "nft"], |lab| {
        let w = world(lab);
        let argv = ["--dhcp-range=192.0.2.10,192.0.2.10,255.255.255.0,1h", "--dhcp-option-force=1,255.255.255.255"];
        let server = w.isp.spawn(&dnsmasq_argv("lan", &argv));
        server.wait_log("DHCP, IP range", SOON);
        w.isp.address("lo", "203.0.113.1/32");
        lab.make_dir("conf");
        lab.make_dir("etc");
        let _client = native(&w, &[]);
        wait_ip("192.0.2.10");
        fw(&w);
        assert_eq!(w.home.addresses("eth0"), ["192.0.2.10/32"]);
        assert_eq!(w.home.default_routes()[0].1, "192.0.2.1");
        assert!(w.home.pings("203.0.113.1"), "what is behind the router answers");
    });
}

/// udhcpd sends no mask without an option for it. The original's script then gets none either; our
/// record has the mask of the address's class (RFC 950).
#[test]
fn without_a_mask_a_script_gets_none_and_a_record_the_class() {
    isolated(&["udhcpd", "udhcpc"], |lab| {
        let w = world(lab);
        let dir = lab.make_dir("server");
        let text = format!(
            "start 192.0.2.10\nend 192.0.2.10\ninterface lan\nlease_file {0}/leases\npidfile {0}/pid\n",
            dir.display()
        );
        fs::write(dir.join("conf"), text).unwrap();
        let server = w.isp.spawn(&["udhcpd", "-f", "-I", "192.0.2.1", dir.join("conf").to_str().unwrap()]);
        server.wait_log("started", SOON);
        let mut seen = Vec::new();
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let out = lab.dir().join(name);
            let script = lab.dir().join("bare.sh");
            // This is not the usual script: without a mask that one has nothing to put behind the
            // slash.
            fs::write(
                &script,
                format!(
                    "#!/bin/sh\n[ $1 = bound ] && env | grep -E '^(ip|subnet|mask|router)=' >{}\nexit 0\n",
                    out.display()
                ),
            )
            .unwrap();
            fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            let argv =
                ["env", "-i", "PATH=/usr/bin:/bin", client, "-f", "-q", "-i", "eth0", "-s", script.to_str().unwrap()];
            assert_eq!(exit_code(&w.home, &argv), 0);
            seen.push(fs::read_to_string(out).unwrap());
        }
        assert_eq!(seen, ["ip=192.0.2.10\n", "ip=192.0.2.10\n"]);
        let _client = native(&w, &[]);
        wait_until("a record", SOON, || field("ipmask").as_deref() == Some("192.0.2.10/24"));
    });
}

/// The original waits about half a minute, so such a lease expires. Ours renews in time, and no
/// packet is lost.
#[test]
fn a_lease_of_ten_seconds_is_kept_for_a_minute_without_a_gap() {
    isolated(&["dhcpd", "ping"], |lab| {
        let w = world(lab);
        let server = Server::Dhcpd.start(lab, &w.isp, "server", Pool { lease_secs: 10, from_to: (10, 10), ..POOL });
        let (script, out) = script(lab, "script");
        let client = w.home.spawn(&["udhcpc", "-f", "-i", "eth0", "-s", &script]);
        wait_until("an address that works", SOON, || w.home.pings("192.0.2.1"));
        let timeline = Timeline::start();
        timeline.watch_kernel(&w.home, Box::new(|line| line.contains("Deleted").then(|| line.to_owned())));
        let probe = Probe::start(Some(w.home.name()), ROUTER, Duration::from_millis(20)).unwrap();
        let start = timeline.note("test", "start");
        // This minute is the subject of the test. Ten renewals at half of the lease take at least
        // fifty seconds.
        wait_until("twelve renewals", Duration::from_secs(75), || {
            names(&out).iter().filter(|e| *e == "renew").count() >= 12
        });
        let end = timeline.note("test", "end");
        assert!(end - start > Duration::from_secs(50), "a lease of 10 s is renewed at its half: {:?}", end - start);
        let loss = probe.loss(start, end - Duration::from_secs(1));
        // A machine under load may lose one ping of thousands by itself; a gap would last seconds.
        assert!(loss.sent > 2000 && loss.longest_gap < Duration::from_millis(200), "{loss:?}");
        let gone: Vec<_> = timeline.events().into_iter().filter(|e| e.text.contains("Deleted")).collect();
        assert!(gone.is_empty(), "{gone:?}");
        assert_eq!(names(&out).iter().filter(|e| *e != "renew").collect::<Vec<_>>(), ["deconfig", "bound"]);
        assert!(!client.log().contains("broadcasting renew"), "{}", client.log());
        assert!(server.log().matches("DHCPACK").count() >= 13);
    });
}

/// One of two servers answers. The client keeps its address although the other server would give
/// another. When the first server dies, the other refuses the address and gives one of its own
/// before the lease has ended.
#[test]
fn of_two_servers_one_is_asked_and_when_it_dies_the_other() {
    isolated(&["dhcpd", "dnsmasq"], |lab| {
        let (w, other) = street(lab);
        let first = Server::Dhcpd.start(lab, &w.isp, "first", Pool { lease_secs: 8, from_to: (10, 19), ..POOL });
        let capture = Capture::start(&w.isp);
        let (script, out) = script(lab, "script");
        let client = w.home.spawn(&["udhcpc", "-f", "-i", "eth0", "-s", &script]);
        wait_until("bound", SOON, || names(&out).last().is_some_and(|e| e == "bound"));
        other.address("eth0", "192.0.2.2/24");
        other.ip(&["link", "set", "eth0", "name", "lan"]);
        let range = ["--dhcp-range=192.0.2.20,192.0.2.29,1h", "--dhcp-authoritative"];
        let second = other.spawn(&dnsmasq_argv("lan", &range));
        second.wait_log("DHCP, IP range", SOON);
        wait_until("a renewal", SOON, || names(&out).last().is_some_and(|e| e == "renew"));
        assert!(
            capture.packets().iter().filter(|p| p.is_renewal()).all(|p| p.path[1].0 == ROUTER),
            "only its own is asked"
        );
        assert!(w.home.addresses("eth0")[0].starts_with("192.0.2.1"));
        drop(first);
        let of_the_second = || w.home.addresses("eth0").iter().any(|a| a.starts_with("192.0.2.2"));
        wait_until("an address of the second", Duration::from_secs(15), of_the_second);
        let log = client.log();
        assert!(log.contains("broadcasting renew") && log.contains("received DHCP NAK"), "{log}");
        assert!(!log.contains("lease lost"), "{log}");
    });
}

/// 40 names need more than the 255 bytes of one option. dhcpd and Kea split them over several
/// options, and dhcpd also uses the `file` and `sname` fields.
#[test]
fn forty_search_domains_arrive_in_order() {
    isolated(&["dhcpd", "kea-dhcp4", "dnsmasq", "udhcpc"], |lab| {
        let w = world(lab);
        let names: Vec<String> = (10..50).map(|n| format!("dept{n}.example.org")).collect();
        for (server, name) in [(Server::Dhcpd, "dhcpd"), (Server::Kea, "kea"), (Server::Dnsmasq, "dnsmasq")] {
            // dnsmasq sends only what fits into one option, or nothing.
            let search = if server == Server::Dnsmasq { &names[..20] } else { &names[..] };
            let running = server.start(lab, &w.isp, name, Pool { search, ..POOL });
            let (script, out) = script(lab, &format!("{name}-script"));
            assert_eq!(
                exit_code(&w.home, &["udhcpc", "-f", "-q", "-R", "-i", "eth0", "-s", &script, "-O", "search"]),
                0
            );
            let bound = events(&out).swap_remove(1);
            let line = bound.iter().find_map(|l| l.strip_prefix("search=")).unwrap_or_default();
            assert_eq!(line.split(' ').collect::<Vec<_>>(), search, "{name}: {bound:?}");
            let client = native(&w, &[]);
            wait_until("a record", SOON, || field("search").is_some_and(|s| s == search.join(" ")));
            assert!(client.stop().success());
            drop(running);
        }
    });
}

/// 1 KiB of options in a message that is larger than the size that the client announced. The
/// original never gets a lease from such a server. A message that is too large for one frame comes
/// in fragments, with the same result.
#[test]
fn messages_larger_than_576_bytes_are_taken_and_absurd_ones_are_not() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        // One frame of 1.3 kB.
        let options = (224..228).map(|code| (code, vec![b'x'; 250])).collect();
        let server = Dhcpd::start(&w.isp, "lan", Config { options, ..Config::for_router(ROUTER) }).unwrap();
        let [original, ours] = both(lab);
        let once = ["-i", "eth0", "-s", "/bin/true", "-f", "-q", "-n"];
        assert_eq!(
            exit_code(&w.home, &[&[original.as_str()], &once[..], &["-t", "1", "-T", "1"]].concat()),
            1,
            "the original"
        );
        assert_eq!(exit_code(&w.home, &[&[ours.as_str()], &once[..]].concat()), 0, "ours");
        // 60 kB in 41 fragments answer every request, before the honest server does.
        let honest = Config::for_router(ROUTER);
        let bomb = move |message: &testkit::dhcpd::Message| {
            let kind = match message.opts().msg_type() {
                Some(MessageType::Discover) => MessageType::Offer,
                Some(MessageType::Request) => MessageType::Ack,
                _ => return Vec::new(),
            };
            let good = testkit::dhcpd::grant(&honest, message, kind, honest.first).to_vec().unwrap();
            let options: Vec<u8> = (0..230).flat_map(|n| [&[224 + n % 30, 255][..], &[b'y'; 255]].concat()).collect();
            vec![[&good[..240], &[53, 1, 2], &options[..]].concat(), good]
        };
        server.set_mode(Mode::Custom(Custom(Box::new(bomb))));
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        assert_eq!(client.log().matches("lease of").count(), 1, "{}", client.log());
        assert!(client.stop().success());
    });
}

//! What a DHCP server sends beside the address, on real links: routes and which of them the client
//! accepts, identities, and leases that the client shows.

use std::fs;
use std::net::Ipv4Addr;

use testkit::dhcpd::{Config, Dhcpd, Encodable, Message, MessageType};
use testkit::{Lab, Net, Signal, Value, isolated, wait_until};

use crate::dhcp::{ROUTER, SOON, World, both, events, exit_code, field, native, script, wait_ip, world};
use crate::dnsmasq_argv;

/// A server that sends these options, too.
pub(super) fn serve(w: &World, options: &[(u8, &[u8])]) -> Dhcpd {
    let options = options.iter().map(|(code, data)| (*code, data.to_vec())).collect();
    Dhcpd::start(&w.isp, "lan", Config { options, ..Config::for_router(ROUTER) }).unwrap()
}

/// One run of our fw over the published record, without its nft table.
pub(super) fn fw(lab: &Lab, home: &Net) {
    let dir = lab.make_dir("fw");
    fs::write(dir.join("fw.conf"), "firewall=\"no\"\n").unwrap();
    let mut command = home.command(&["fw", "apply"]);
    for (variable, path) in [("STATIC", "conf"), ("DYNAMIC", "../dyn"), ("CONFIG", "fw.conf"), ("ETC", "etc")] {
        command.env(format!("FW_{variable}"), dir.join(path));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The routes of an interface in the main table as `NET by ROUTER`, without the route to its own
/// network.
pub(super) fn routes(net: &Net, interface: &str) -> Vec<String> {
    let all = net.ip_json(&["-4", "route", "show", "dev", interface]);
    let text = |route: &Value, key: &str| route[key].as_str().unwrap_or("-").to_owned();
    let mut found: Vec<String> = all
        .as_array()
        .unwrap()
        .iter()
        .filter(|r| r["gateway"].is_string())
        .map(|r| format!("{} by {}", text(r, "dst"), text(r, "gateway")))
        .collect();
    found.sort();
    found
}

#[test]
fn fw_installs_what_a_provider_sends_with_its_default_route() {
    isolated(&[], |lab| {
        let w = world(lab);
        // 10/8 and 213.75.112/21 go by one router, everything else by another.
        let data = [8, 10, 192, 0, 2, 9, 21, 213, 75, 112, 192, 0, 2, 9, 0, 192, 0, 2, 7];
        let _server = serve(&w, &[(121, &data)]);
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        fw(lab, &w.home);
        let want = ["10.0.0.0/8 by 192.0.2.9", "213.75.112.0/21 by 192.0.2.9", "default by 192.0.2.7"];
        assert_eq!(routes(&w.home, "eth0"), want);
        assert!(!client.log().contains("not taking"), "{}", client.log());
    });
}

/// The client asks for more than the old 576 bytes, but for not more than a frame. Otherwise a
/// server would leave out what does not fit.
#[test]
fn what_fits_into_a_frame_arrives() {
    isolated(&["dnsmasq"], |lab| {
        let w = world(lab);
        let routes: Vec<String> = (1..=30).map(|n| format!("10.{n}.0.0/16,192.0.2.1")).collect();
        let many = |net: &str| (1..=50).map(|n| format!("{net}.{n}")).collect::<Vec<_>>().join(",");
        let names: Vec<String> = (10..30).map(|n| format!("dept{n}.example.org")).collect();
        let options = [
            format!("--dhcp-option=121,{},0.0.0.0/0,192.0.2.1", routes.join(",")),
            format!("--dhcp-option=6,{}", many("198.51.100")),
            format!("--dhcp-option=42,{}", many("203.0.113")),
            format!("--dhcp-option=119,{}", names.join(",")),
        ];
        let mut argv = dnsmasq_argv("lan", &["--dhcp-range=192.0.2.100,192.0.2.100,1h"]);
        argv.extend(options.iter().map(String::as_str));
        let server = w.isp.spawn(&argv);
        server.wait_log("DHCP, IP range", SOON);
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        assert_eq!(field("search"), Some(names.join(" ")), "{}", server.log());
        assert_eq!(field("routes").map(|routes| routes.split(' ').count()), Some(62));
        assert!(field("ntp").is_some() && field("dns").is_some());
        assert!(client.stop().success());
        // With a smaller frame the client must not wait for a fragment.
        for (net, interface) in [(&w.home, "eth0"), (&w.isp, "lan")] {
            net.ip(&["link", "set", interface, "mtu", "700"]);
        }
        let _client = native(&w, &[]);
        wait_ip("192.0.2.100");
    });
}

#[test]
fn only_msstaticroutes_count_as_well() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = serve(&w, &[(249, &[8, 10, 192, 0, 2, 9, 0, 192, 0, 2, 7])]);
        let _client = native(&w, &[]);
        wait_ip("192.0.2.100");
        assert_eq!(field("routes").as_deref(), Some("10.0.0.0/8 192.0.2.9 0.0.0.0/0 192.0.2.7"));
        assert!(parameters(&server.seen()[0].message).contains(&249), "asked for");
    });
}

fn option(message: &Message, code: u8) -> Option<Vec<u8>> {
    let bytes = message.to_vec().unwrap();
    let mut rest = &bytes[240..];
    while let [found, len, after @ ..] = rest {
        let (data, after) = after.split_at(usize::from(*len));
        if *found == code {
            return Some(data.to_vec());
        }
        rest = after;
    }
    None
}

pub(super) fn parameters(message: &Message) -> Vec<u8> {
    option(message, 55).unwrap_or_default()
}

/// Makes a tunnel that carries `networks`. Where the kernel has none, the result is false and the
/// test prints a notice.
fn tunnel(home: &Net, networks: &[&str]) -> bool {
    let made = home.try_run(&["ip", "tuntap", "add", "dev", "vpn0", "mode", "tun"]);
    if !made.status.success() {
        let why = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(std::env::var_os("CI").is_none(), "no tunnel: {why}");
        eprintln!("SKIPPED the tunnel: {why}");
        return false;
    }
    home.ip(&["link", "set", "vpn0", "up"]);
    for network in networks {
        home.ip(&["route", "add", network, "dev", "vpn0", "table", "51820"]);
    }
    true
}

#[test]
fn routes_that_lead_around_a_tunnel_are_not_installed() {
    isolated(&[], |lab| {
        let w = world(lab);
        // The published attack, a host behind the tunnel, and a network of the provider's own.
        let data = [1, 0, 192, 0, 2, 66, 1, 128, 192, 0, 2, 66, 32, 203, 0, 113, 7, 192, 0, 2, 66, 0, 192, 0, 2, 1];
        let server = serve(&w, &[(121, &data)]);
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        client.wait_log("not taking the server's routes 0.0.0.0/1 by 192.0.2.66 (shorter than /8)", SOON);
        fw(lab, &w.home);
        assert_eq!(routes(&w.home, "eth0"), ["203.0.113.7 by 192.0.2.66", "default by 192.0.2.1"]);
        // A tunnel comes up that has everything in a table of its own, as wg-quick makes it. At the
        // next renewal the client drops the other routes.
        if tunnel(&w.home, &["0.0.0.0/0"]) {
            client.signal(Signal::SIGUSR1);
            client.wait_log("203.0.113.7/32 by 192.0.2.66 (in a tunnel)", SOON);
            wait_until("the record without it", SOON, || field("routes").is_none());
            fw(lab, &w.home);
            assert_eq!(routes(&w.home, "eth0"), ["default by 192.0.2.1"]);
        }
        assert_eq!(server.count(MessageType::Discover), 1);
    });
}

#[test]
fn a_part_of_another_interfaces_network_is_not_taken() {
    isolated(&[], |lab| {
        let w = world(lab);
        let lan = lab.net("lan");
        let _cable = lab.cable((&w.home, "lan0"), (&lan, "port"));
        w.home.address("lan0", "192.168.5.1/24");
        let _server = serve(&w, &[(121, &[25, 192, 168, 5, 0, 192, 0, 2, 66, 16, 192, 168, 192, 0, 2, 9])]);
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        assert_eq!(field("routes").as_deref(), Some("192.168.0.0/16 192.0.2.9"));
        client.wait_log("192.168.5.0/25 by 192.0.2.66 (in another interface's network)", SOON);
    });
}

#[test]
fn the_policy_holds_for_scripts_too_and_all_is_the_originals() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let _server = serve(&w, &[(121, &[1, 0, 192, 0, 2, 66, 8, 10, 192, 0, 2, 9, 0, 192, 0, 2, 1])]);
        let all = "staticroutes=0.0.0.0/1 192.0.2.66 10.0.0.0/8 192.0.2.9 0.0.0.0/0 192.0.2.1";
        let safe = "staticroutes=10.0.0.0/8 192.0.2.9 0.0.0.0/0 192.0.2.1";
        let [original, ours] = both(lab);
        let runs: [(&str, &str, &[&str], Option<&str>); 5] = [
            ("original", &original, &[], Some(all)),
            ("all", &ours, &["--classless-routes", "all"], Some(all)),
            ("safe", &ours, &[], Some(safe)),
            ("default", &ours, &["--classless-routes=default-only"], Some("staticroutes=0.0.0.0/0 192.0.2.1")),
            ("no", &ours, &["--classless-routes", "no"], None),
        ];
        for (name, client, more, want) in runs {
            let (script, out) = script(lab, name);
            let argv = [&[client, "-i", "eth0", "-s", &script, "-f", "-q", "-n", "-O", "staticroutes"], more].concat();
            assert_eq!(exit_code(&w.home, &argv), 0, "{name}");
            let bound = &events(&out)[1];
            let found = bound.iter().find(|line| line.starts_with("staticroutes="));
            assert_eq!(found.map(String::as_str), want, "{name}");
        }
    });
}

#[test]
fn the_record_tells_names_and_the_portal() {
    isolated(&[], |lab| {
        let w = world(lab);
        let fqdn = [&[5, 255, 255][..], b"\x04bbox\x07example\0"].concat();
        let server = serve(&w, &[(12, b"bbox"), (81, &fqdn), (114, b"https://portal.example/api")]);
        let _client = native(&w, &["-F", "bbox.example"]);
        wait_ip("192.0.2.100");
        assert_eq!(field("hostname").as_deref(), Some("bbox"));
        assert_eq!(field("fqdn").as_deref(), Some("bbox.example"));
        assert_eq!(field("captive_portal").as_deref(), Some("https://portal.example/api"));
        assert!(parameters(&server.seen()[0].message).contains(&114), "asked for");
    });
}

#[test]
fn show_tells_the_lease_that_is_there() {
    isolated(&[], |lab| {
        let w = world(lab);
        let _server = serve(&w, &[(121, &[8, 10, 192, 0, 2, 9, 0, 192, 0, 2, 7])]);
        let show = |more: &[&str]| {
            let output = w.home.try_run(&[&["udhcpc", "--show", "--ipconf", "/run/lab/dyn"], more].concat());
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
        };
        assert_eq!(show(&["-i", "eth0"]), (1, String::new(), "udhcpc: no lease on eth0 in /run/lab/dyn\n".into()));
        assert_eq!(show(&["--json"]), (1, "[]\n".into(), "udhcpc: no lease in /run/lab/dyn\n".into()));
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        let (code, text, errors) = show(&["-i", "eth0"]);
        assert_eq!((code, errors.as_str()), (0, ""));
        assert!(text.starts_with("eth0 192.0.2.100/24\n  router 192.0.2.7\n  routes 10.0.0.0/8 192.0.2.9 "), "{text}");
        assert!(text.contains("\n  ends in 59 min ") || text.contains("\n  ends in 1 h 0 min"), "{text}");
        let (code, text, _) = show(&["--json"]);
        let lease = &text.parse::<Value>().unwrap()[0];
        assert_eq!((code, &lease["ip"], &lease["prefix_len"]), (0, &"192.0.2.100".into(), &24.into()));
        assert_eq!(lease["routes"][1]["router"], "192.0.2.7");
        assert_eq!(lease["dns"][0], "192.0.2.1");
        assert_eq!(lease["pid"], client.pid());
        let left = lease["seconds_left"].as_u64().unwrap();
        assert!((3500..=3600).contains(&left), "{left}");
        // A record of another boot, or one that no client could have written, is not a lease.
        fs::write(
            "/run/lab/dyn/dhcp_eth1.ipconf",
            "let cfg=cfg+1\nif[$cfg]=eth1\nlease_end_boottime[$cfg]=99999999999\n",
        )
        .unwrap();
        fs::write("/run/lab/dyn/dhcp_eth2.ipconf", "let cfg=cfg+1\nif[$cfg]=$(reboot)\n").unwrap();
        let (code, text, errors) = show(&["--json"]);
        assert_eq!((code, text.parse::<Value>().unwrap().as_array().unwrap().len()), (1, 1));
        assert!(
            errors.contains("dhcp_eth1.ipconf: the lease has ended")
                && errors.contains("dhcp_eth2.ipconf: 2: expansion"),
            "{errors}"
        );
        assert!(client.stop().success());
        assert_eq!(show(&["-i", "eth0"]).0, 1);
    });
}

#[test]
fn identities_are_sent_as_asked_and_stay_the_same() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = serve(&w, &[]);
        lab.cover("/etc");
        fs::write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n").unwrap();
        let (script, _) = script(lab, "duid");
        let last = || server.seen().last().unwrap().message.clone();
        let mut ids = Vec::new();
        for how in ["ll", "uuid", "uuid"] {
            assert_eq!(
                exit_code(&w.home, &["udhcpc", "-i", "eth0", "-s", &script, "-f", "-q", "-n", "--duid", how]),
                0
            );
            ids.push(option(&last(), 61).unwrap());
        }
        assert_eq!((ids[0][0], &ids[0][5..9]), (255, &[0, 3, 0, 1][..]));
        assert_eq!(ids[0][9..], last().chaddr()[..]);
        assert_eq!((ids[1][0], &ids[1][5..7], ids[1].len()), (255, &[0, 4][..], 23));
        assert_eq!(ids[1], ids[2]);
        fs::write("/etc/machine-id", "uninitialized\n").unwrap();
        assert_eq!(exit_code(&w.home, &["udhcpc", "-i", "eth0", "-s", &script, "-f", "-q", "-n", "--duid", "uuid"]), 1);

        assert_eq!(exit_code(&w.home, &["udhcpc", "-i", "eth0", "-s", &script, "-f", "-q", "-n", "--anonymous"]), 0);
        let sent: Vec<u8> = (1..255).filter(|code| option(&last(), *code).is_some()).collect();
        assert_eq!(sent, [50, 53, 54, 55, 61]);
    });
}

#[test]
fn where_ipv6_is_enough_no_address_is_asked_for() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = serve(&w, &[(108, &[0, 0, 7, 8])]);
        let client = native(&w, &["--ipv6-only"]);
        client.wait_log("IPv6 is enough here: no lease, asking again in 1800 s", SOON);
        assert_eq!((server.count(MessageType::Request), field("ip")), (0, None));
        assert!(parameters(&server.seen()[0].message).contains(&108));
        // The cable is now in another network: the client asks again at once.
        server.configure(|c| {
            c.options.clear();
            c.first = Ipv4Addr::new(192, 0, 2, 150);
        });
        server.forget_bindings();
        w.cable.pull();
        wait_until("no carrier", SOON, || w.home.ip_json(&["link", "show", "eth0"])[0]["operstate"] == "DOWN");
        w.cable.plug();
        wait_ip("192.0.2.150");
    });
}

/// An option's code and its bytes.
pub(super) type Raw = (u8, &'static [u8]);

/// Every row of udhcpc's table of options, with odd but harmless values of them, in packets that
/// udhcpc takes (576 bytes).
pub(super) const TABLE: [&[Raw]; 7] = [
    &[
        (1, &[255, 255, 255, 0]),
        (2, &[0xff, 0xff, 0xb9, 0xb0]),
        (3, &[192, 0, 2, 1, 192, 0, 2, 2]),
        (6, &[192, 0, 2, 1, 192, 0, 2, 2, 192, 0, 2, 3]),
        (9, &[192, 0, 2, 4]),
        (12, b"bbox"),
        (13, &[1, 0]),
        (15, b"example.org"),
        (16, &[192, 0, 2, 5]),
        (17, b"/srv/root dir"),
        (23, &[64]),
        (26, &[5, 0x78]),
        (28, &[192, 0, 2, 255]),
        (33, &[198, 51, 100, 7, 192, 0, 2, 1, 198, 51, 100, 8, 192, 0, 2, 2]),
    ],
    &[
        (40, b"nis.example"),
        (41, &[192, 0, 2, 6]),
        (42, &[192, 0, 2, 7, 192, 0, 2, 8]),
        (44, &[192, 0, 2, 9]),
        (51, &[0, 0, 0x1c, 0x20]),
        (56, b"welcome, \"guest\" $HOME"),
        (60, b"vendor x"),
        (66, b"tftp.example"),
        (67, b"boot file.img"),
        (100, b"EST5EDT4,M3.2.0/02:00,M11.1.0/02:00"),
        (101, b"Europe/Berlin"),
    ],
    &[
        (119, b"\x01a\x07example\0\x01b\xc0\x02\x03foo\xc0\x0a"),
        (120, &[1, 192, 0, 2, 10, 192, 0, 2, 11]),
        (121, &[24, 10, 20, 30, 192, 0, 2, 9, 32, 10, 20, 30, 40, 192, 0, 2, 9, 0, 192, 0, 2, 1]),
        (132, &[0, 7]),
        (133, &[3]),
        (209, b"pxe/conf"),
        (210, b"/pxe/"),
        (211, &[0, 0, 0, 30]),
        (212, &[14, 38, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]),
        (249, &[8, 10, 192, 0, 2, 9]),
        (252, b"http://wpad.example/wpad.dat"),
    ],
    // Options outside the table, in hexadecimal, among them some for which we have names.
    &[
        (43, &[1, 2, 0xab, 0xcd]),
        (58, &[0, 0, 7, 8]),
        (59, &[0, 0, 12, 78]),
        (77, b"\x04iPXE"),
        (81, b"\x05\0\0\x04bbox\0"),
        (82, &[1, 4, 1, 2, 3, 4]),
        (108, &[0, 0, 7, 8]),
        (114, b"https://portal.example/api"),
        (116, &[1]),
        (124, &[0, 0, 13, 233, 3, 97, 98, 99]),
        (125, &[0, 0, 13, 233, 2, 1, 0]),
        (224, &[0, 0xff]),
        (254, &[7]),
    ],
    // More than one element where one belongs, and less than one.
    &[
        (2, &[0, 0, 0, 1, 0, 0, 0, 2]),
        (6, &[1, 2, 3]),
        (9, &[192, 0, 2, 4, 5]),
        (13, &[1]),
        (16, &[192, 0, 2, 5, 192, 0, 2, 6]),
        (23, &[64, 65]),
        (26, &[5]),
        (33, &[198, 51, 100, 7]),
        (42, &[192, 0, 2]),
        (120, &[0, 3, b's', b'i', b'p', 2, b'a', b'b', 0]),
        (211, &[1, 2, 3]),
    ],
    // Characters that a host name must not have, and the original's own handling of them.
    &[
        (12, b"a b"),
        (15, b"example.org;other.org"),
        (40, b"-x"),
        (66, b"a/b"),
        (67, b"ends\0here"),
        (119, b"\x05whole"),
        (121, &[33, 1, 2, 3, 4, 5]),
        (212, &[33, 38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1]),
        (249, &[24, 10, 1, 2, 192, 0, 2, 9, 24, 10]),
    ],
    &[(12, b"$"), (15, b"ab$"), (40, b"a$"), (119, b"\x05cut"), (120, &[7, 1, 2])],
];

#[test]
fn every_option_of_the_table_reads_the_same_as_the_originals() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let server = serve(&w, &[]);
        let mut differences = Vec::new();
        for (index, group) in TABLE.iter().enumerate() {
            server.configure(|c| c.options = group.iter().map(|(code, data)| (*code, data.to_vec())).collect());
            let mut bound = Vec::new();
            for (client, whose) in both(lab).iter().zip(["original", "ours"]) {
                let (script, out) = script(lab, &format!("{whose}{index}"));
                let argv = ["env", "-i", client, "-i", "eth0", "-s", &script, "-f", "-q", "-n"];
                assert_eq!(exit_code(&w.home, &argv), 0, "{whose}");
                bound.push(events(&out).into_iter().find(|e| e[0] == "EVENT=bound").unwrap());
            }
            let [original, ours] = &bound[..] else { panic!("two clients") };
            assert!(original.len() > group.len(), "{original:?}");
            differences
                .extend(original.iter().filter(|line| !ours.contains(line)).map(|line| format!("original: {line}")));
            differences.extend(ours.iter().filter(|line| !original.contains(line)).map(|line| format!("ours: {line}")));
        }
        assert_eq!(differences, [] as [String; 0]);
    });
}

#[test]
fn a_port_of_the_clients_own_is_wrong_use_as_in_debians() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        for (client, whose) in both(lab).iter().zip(["original", "ours"]) {
            for argv in [["-P", "1068"], ["--client-port", "1068"]] {
                assert_eq!(
                    exit_code(&w.home, &[&[client.as_str(), "-f", "-n", "-i", "eth0"], &argv[..]].concat()),
                    1,
                    "{whose}"
                );
            }
        }
    });
}

//! The DHCP client in odd surroundings: slow scripts, read-only directories, servers that leave
//! something out. Ours tolerates what the original tolerates.

#![expect(clippy::disallowed_methods, reason = "servers and gear that take their time")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use testkit::appliance::Appliance;
use testkit::dhcpd::{Config, Custom, Dhcpd, Encodable, Message, MessageType, Mode, grant, requested};
use testkit::station::Station;
use testkit::{Signal, holds_for, isolated, wait_until};

use crate::dhcp::{ROUTER, SOON, World, both, events, exit_code, names, native, script, wait_ip, world};
use crate::dnsmasq_argv;

#[test]
fn with_q_a_script_that_takes_its_time_is_waited_for() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let slow = |name: &str| {
            let (path, out) = script(lab, name);
            let text = fs::read_to_string(&path).unwrap();
            let wait = format!("while [ $1 = bound ] && [ ! -e {}/go ]; do sleep 0.1; done\n", lab.dir().display());
            fs::write(&path, text + &wait).unwrap();
            (path, out)
        };
        let start = |client: &String, name: &str| {
            let (path, out) = slow(name);
            let client = w.home.spawn(&[client, "-i", "eth0", "-s", &path, "-f", "-q"]);
            wait_until("a lease", SOON, || names(&out).last().is_some_and(|event| event == "bound"));
            client
        };
        let [original, ours] = both(lab);
        let mut clients = [start(&original, "original"), start(&ours, "ours")];
        // Longer than the client waits for a script after TERM.
        holds_for("nobody leaves before the script has ended", Duration::from_secs(11), || {
            clients.iter_mut().all(|client| client.wait(Duration::ZERO).is_none())
        });
        fs::write(lab.dir().join("go"), "").unwrap();
        for client in &mut clients {
            assert_eq!(client.wait(SOON).and_then(|status| status.code()), Some(0), "{}", client.log());
        }
    });
}

#[test]
fn a_pidfile_that_cannot_be_written_costs_no_lease() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let (script, out) = script(lab, name);
            let argv = [client, "-i", "eth0", "-s", &script, "-f", "-q", "-n", "-p", "/run/no/such/directory/pid"];
            assert_eq!(exit_code(&w.home, &argv), 0, "{name}");
            assert_eq!(names(&out), ["deconfig", "bound"], "{name}");
        }
    });
}

#[test]
fn a_server_that_leaves_its_name_out_of_the_ack_and_says_the_mask_twice_is_good_enough() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let config = Config::for_router(ROUTER);
        let address = config.first;
        let sloppy = move |message: &Message| {
            let kind = match message.opts().msg_type() {
                Some(MessageType::Discover) => MessageType::Offer,
                _ => MessageType::Ack,
            };
            let mut bytes = grant(&config, message, kind, address).to_vec().unwrap();
            let end = bytes.iter().rposition(|byte| *byte == 255).unwrap();
            bytes.splice(end..end, [1, 4, 255, 255, 255, 0]);
            if kind == MessageType::Ack {
                // Option 54 is replaced with padding.
                let at = bytes.windows(2).position(|pair| pair == [54, 4]).unwrap();
                bytes[at..at + 6].fill(0);
            }
            vec![bytes]
        };
        let mode = Mode::Custom(Custom(Box::new(sloppy)));
        let _server = Dhcpd::start(&w.isp, "lan", Config { mode, ..Config::for_router(ROUTER) }).unwrap();
        let mut seen = Vec::new();
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let (script, out) = script(lab, name);
            let argv = ["env", "-i", client, "-i", "eth0", "-s", &script, "-f", "-q", "-n", "-t", "2", "-T", "1"];
            assert_eq!(exit_code(&w.home, &argv), 0, "{name}");
            seen.push(events(&out));
        }
        assert!(seen[0][1].contains(&"mask=24".to_owned()), "{:?}", seen[0]);
        assert_eq!(seen[0], seen[1]);
    });
}

/// Two clients with one Ethernet address, as containers with ipvlan have it. Each client has its
/// own identifier.
#[test]
fn what_is_said_to_another_client_identifier_is_for_another_client() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let config = Config::for_router(ROUTER);
        let [theirs, ours] = [150, 100].map(|host| std::net::Ipv4Addr::new(192, 0, 2, host));
        let answer = move |message: &Message| {
            let kind = match message.opts().msg_type() {
                Some(MessageType::Discover) => MessageType::Offer,
                _ => MessageType::Ack,
            };
            let own = [&[1], message.chaddr()].concat();
            let to = |id: &[u8], address| {
                let mut bytes = grant(&config, message, kind, address).to_vec().unwrap();
                let end = bytes.iter().rposition(|byte| *byte == 255).unwrap();
                bytes.splice(end..end, [&[61, u8::try_from(id.len()).unwrap()], id].concat());
                bytes
            };
            // A client that believed the first offer asks for its address, and gets it.
            let believed = requested(message) == Some(theirs);
            vec![to(b"\xffanother", theirs), to(&own, if believed { theirs } else { ours })]
        };
        let mode = Mode::Custom(Custom(Box::new(answer)));
        let _server = Dhcpd::start(&w.isp, "lan", Config { mode, ..Config::for_router(ROUTER) }).unwrap();
        for (client, want) in both(lab).iter().zip([theirs, ours]) {
            let (script, out) = script(lab, &want.to_string());
            assert_eq!(exit_code(&w.home, &[client, "-i", "eth0", "-s", &script, "-f", "-q", "-n"]), 0, "{client}");
            assert!(events(&out)[1].contains(&format!("ip={want}")), "{client}: {:?}", events(&out));
        }
    });
}

#[test]
fn a_server_may_answer_from_a_port_of_its_own() {
    isolated(&["udhcpc", "nft"], |lab| {
        let w = world(lab);
        let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let table =
            "table ip odd { chain out { type filter hook output priority 0; udp sport 67 udp sport set 1067; }; }";
        w.isp.run(&["nft", table]);
        for client in &both(lab) {
            let argv = [client, "-i", "eth0", "-s", "/bin/true", "-f", "-q", "-n", "-t", "2", "-T", "1"];
            assert_eq!(exit_code(&w.home, &argv), 0, "{client}");
        }
    });
}

/// On this network unicasts get lost: a server asks by ARP for an address that no station has yet,
/// or a bridge does not know us.
#[test]
fn where_only_broadcasts_arrive_they_are_asked_for() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let config = Config::for_router(ROUTER);
        let answer = move |message: &Message| {
            let kind = match message.opts().msg_type() {
                Some(MessageType::Discover) => MessageType::Offer,
                _ => MessageType::Ack,
            };
            let arrives = message.flags().broadcast();
            arrives.then(|| grant(&config, message, kind, config.first).to_vec().unwrap()).into_iter().collect()
        };
        let mode = Mode::Custom(Custom(Box::new(answer)));
        let _server = Dhcpd::start(&w.isp, "lan", Config { mode, ..Config::for_router(ROUTER) }).unwrap();
        let once = ["-i", "eth0", "-s", "/bin/true", "-f", "-q", "-n"];
        let [original, ours] = both(lab);
        assert_eq!(exit_code(&w.home, &[&[original.as_str()], &once[..], &["-T", "1"]].concat()), 1);
        for client in [[ours.as_str()].as_slice(), &[&original, "-B"], &[&ours, "-B", "-T", "1"]] {
            assert_eq!(exit_code(&w.home, &[client, &once[..]].concat()), 0, "{client:?}");
        }
    });
}

#[test]
fn what_was_given_back_or_lost_is_asked_for_when_a_lease_is_wanted_again() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
            let (script, out) = script(lab, name);
            let client = w.home.spawn(&[client, "-i", "eth0", "-s", &script, "-f"]);
            let last = |want: &str| wait_until(want, SOON, || names(&out).last().is_some_and(|event| event == want));
            last("bound");
            client.signal(Signal::SIGUSR2);
            last("deconfig");
            client.signal(Signal::SIGUSR1);
            last("bound");
            let discovers = server.seen().into_iter().filter(|seen| seen.kind == Some(MessageType::Discover));
            let asked: Vec<_> = discovers.map(|seen| requested(&seen.message)).collect();
            assert_eq!(asked, [None, Some(Config::for_router(ROUTER).first)], "{name}");
            client.stop();
        }
    });
}

#[test]
fn a_lease_that_finds_the_disk_full_is_published_as_soon_as_there_is_room() {
    isolated(&[], |lab| {
        let w = world(lab);
        let _server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let dir = lab.make_dir("dyn");
        lab.cover_with_little(dir.to_str().unwrap());
        fs::write(dir.join("fill"), [0; 4096]).unwrap();
        let client = native(&w, &[]);
        wait_until("a full disk", SOON, || client.log().contains("unable to write /run/lab/dyn/dhcp_eth0.ipconf: "));
        fs::remove_file(dir.join("fill")).unwrap();
        wait_ip(&Config::for_router(ROUTER).first.to_string());
        client.wait_log("dhcp_eth0.ipconf is written", SOON);
    });
}

/// The server is in a network of its own behind a relay. A unicast renewal leaves by the relay's
/// card, also where no route leads to the server.
#[test]
fn behind_a_relay_a_lease_is_renewed_with_a_route_to_its_server_and_without() {
    isolated(&["dnsmasq"], |lab| {
        let w = world(lab);
        let far = lab.net("far");
        lab.cable((&w.isp, "north"), (&far, "eth0"));
        w.isp.address("north", "10.0.0.1/24");
        far.address("eth0", "10.0.0.2/24");
        far.ip(&["route", "add", "192.0.2.0/24", "via", "10.0.0.1"]);
        w.isp.sysctl("net/ipv4/ip_forward", "1");
        let server = far.spawn(&dnsmasq_argv("eth0", &["--dhcp-range=192.0.2.10,192.0.2.10,255.255.255.0,1h"]));
        server.wait_log("DHCP, IP range", SOON);
        let relay = w.isp.spawn(&dnsmasq_argv("lan", &["--dhcp-relay=192.0.2.1,10.0.0.2"]));
        relay.wait_log("DHCP relay from 192.0.2.1 to 10.0.0.2", SOON);
        let client = native(&w, &[]);
        wait_ip("192.0.2.10");
        w.home.address("eth0", "192.0.2.10/24");
        w.home.ip(&["route", "add", "default", "via", "192.0.2.1"]);
        let renewed = |count| {
            wait_until("a renewal", SOON, || server.log().matches("DHCPACK").count() == count);
            wait_until("it is heard", SOON, || client.log().matches("lease of 192.0.2.10").count() == count);
        };
        let asked = |count| {
            client.signal(Signal::SIGUSR1);
            wait_until("a request", SOON, || client.log().matches("sending renew").count() == count);
        };
        asked(1);
        renewed(2);
        // The first renewal is lost while the kernel asks by ARP for 10.0.0.2.
        w.home.ip(&["route", "del", "default"]);
        asked(2);
        asked(3);
        renewed(3);
        assert!(!client.log().contains("broadcasting renew"), "{}", client.log());
    });
}

/// Some cards lose their link for a moment when their MTU changes. The lease must survive that.
#[test]
fn a_lease_that_comes_and_goes_changes_the_mtu_once() {
    isolated(&["dnsmasq"], |lab| {
        let w = world(lab);
        let mut argv = dnsmasq_argv("lan", &["--dhcp-range=192.0.2.10,192.0.2.20,255.255.255.0,1h"]);
        argv.extend(["--dhcp-authoritative", "--dhcp-option=26,1400"]);
        let server = w.isp.spawn(&argv);
        server.wait_log("DHCP, IP range", SOON);
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("services");
        let mut appliance = Appliance::prepare(lab, &w.home, &sources, &["fw", "dhcp_eth0", "ifplugd_eth0"]);
        appliance.write("ifplugd_eth0/env/IFPLUGD_UP", "0");
        appliance.write("ifplugd_eth0/env/IFPLUGD_DOWN", "0");
        appliance.start();
        let addressed = || w.home.addresses("eth0").iter().any(|address| address.starts_with("192.0.2."));
        let done = || appliance.run(&["sv", "status", "fw"]).starts_with("down: fw");
        let mtu = || w.home.ip_json(&["link", "show", "dev", "eth0"])[0]["mtu"].as_u64();
        for _ in 0..2 {
            wait_until("an address", SOON, || addressed() && done());
            assert_eq!(mtu(), Some(1400));
            w.cable.pull();
            wait_until("no address", SOON, || !addressed() && done());
            assert_eq!(mtu(), Some(1400), "another change would be another lost link, and so on");
            w.cable.plug();
        }
    });
}

/// Answers as a usual server does, but a REQUEST only after `think` has passed.
fn thoughtful(think: Duration) -> Mode {
    let config = Config::for_router(ROUTER);
    let answer = move |message: &Message| {
        let kind = match message.opts().msg_type() {
            Some(MessageType::Discover) => MessageType::Offer,
            Some(MessageType::Request) => {
                std::thread::sleep(think);
                MessageType::Ack
            }
            _ => return Vec::new(),
        };
        vec![grant(&config, message, kind, config.first).to_vec().unwrap()]
    };
    Mode::Custom(Custom(Box::new(answer)))
}

#[test]
fn a_server_that_thinks_for_seconds_before_it_acknowledges_is_good_enough() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        for client in &both(lab) {
            let mode = thoughtful(Duration::from_millis(3500));
            let server = Dhcpd::start(&w.isp, "lan", Config { mode, ..Config::for_router(ROUTER) }).unwrap();
            assert_eq!(exit_code(&w.home, &[client, "-i", "eth0", "-s", "/bin/true", "-f", "-q", "-n"]), 0, "{client}");
            assert_eq!(server.count(MessageType::Discover), 1, "{client}");
        }
    });
}

/// Motorola's BSR does this by default ("dhcp throttle").
#[test]
fn gear_that_passes_one_message_in_five_seconds_costs_one_such_time() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        for client in &both(lab) {
            let config = Config::for_router(ROUTER);
            let mut passed: Option<Instant> = None;
            let answer = move |message: &Message| {
                if passed.is_some_and(|at| at.elapsed() < Duration::from_secs(5)) {
                    return Vec::new();
                }
                passed = Some(Instant::now());
                let kind = match message.opts().msg_type() {
                    Some(MessageType::Discover) => MessageType::Offer,
                    _ => MessageType::Ack,
                };
                vec![grant(&config, message, kind, config.first).to_vec().unwrap()]
            };
            let mode = Mode::Custom(Custom(Box::new(answer)));
            let server = Dhcpd::start(&w.isp, "lan", Config { mode, ..Config::for_router(ROUTER) }).unwrap();
            assert_eq!(exit_code(&w.home, &[client, "-i", "eth0", "-s", "/bin/true", "-f", "-q", "-n"]), 0, "{client}");
            assert_eq!((server.count(MessageType::Discover), server.count(MessageType::Request)), (1, 3), "{client}");
        }
    });
}

/// Builds frames of a station: `say` gets the Ethernet address of a client that probes for
/// `address`.
fn answering(w: &World, address: Ipv4Addr, say: impl Fn([u8; 6]) -> Vec<Vec<u8>> + Send + 'static) -> Station {
    let answer = move |frame: &[u8]| {
        let source = frame.get(6..12).and_then(|mac| <[u8; 6]>::try_from(mac).ok());
        // RFC 826: a request for the address, with a sender address of zero.
        let probe = [&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &frame[6..12], &[0; 10], &address.octets()].concat();
        source.filter(|_| frame[12..].starts_with(&probe)).map(&say).unwrap_or_default()
    };
    Station::start(&w.isp, "lan", answer).unwrap()
}

const STATION: [u8; 6] = [0, 0, 0, 0x11, 0x22, 0x33];
const SWITCH: [u8; 6] = [0, 0xbe, 0x75, 1, 2, 3];
const ALL: [u8; 6] = [0xff; 6];

/// A probe for `address` in the name of `sender`: RFC 826, RFC 5227 section 1.1.
fn probe(to: [u8; 6], from: [u8; 6], sender: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    [&to[..], &from, &head, &sender, &[0; 10], &address.octets(), &[0; 18]].concat()
}

/// Cisco's device tracking sends bursts of probes in the name of a station that does not exist, and
/// probes to one station alone.
#[test]
fn what_a_switch_sends_to_track_its_devices_is_no_conflict() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let (asked, count) = (Arc::new(AtomicUsize::new(0)), |asked: &AtomicUsize| asked.swap(0, Ordering::Relaxed));
        let tracking = |address| {
            let asked = Arc::clone(&asked);
            answering(&w, address, move |mac| {
                asked.fetch_add(1, Ordering::Relaxed);
                vec![probe(ALL, SWITCH, STATION, address), probe(mac, SWITCH, SWITCH, address)]
            })
        };
        let [original, ours] = both(lab);
        {
            let config = Config::for_router(ROUTER);
            let _switch = tracking(config.first);
            let server = Dhcpd::start(&w.isp, "lan", config).unwrap();
            for client in [&[&original, "-a200"][..], &[&ours, "-a200"], &[&ours, "--acd", "fast"]] {
                let argv = [client, &["-i", "eth0", "-s", "/bin/true", "-f", "-q", "-n"]].concat();
                assert_eq!(exit_code(&w.home, &argv), 0, "{client:?}");
                assert!(count(&asked) > 0, "{client:?}");
            }
            assert_eq!(server.count(MessageType::Decline), 0);
        }
        let address = Ipv4Addr::new(169, 254, 7, 9);
        let _switch = tracking(address);
        let (path, out) = (lab.dir().join("zcip.sh"), lab.dir().join("zcip.out"));
        fs::write(&path, format!("#!/bin/sh\necho $1 $ip >>{}\n", out.display())).unwrap();
        w.home.run(&["chmod", "755", path.to_str().unwrap()]);
        let argv = ["zcip", "-f", "-q", "-r", "169.254.7.9", "eth0", path.to_str().unwrap()];
        assert_eq!(exit_code(&w.home, &argv), 0);
        assert!(count(&asked) > 0);
        let said = fs::read_to_string(&out).unwrap();
        assert!(said.contains("config 169.254.7.9"), "{said}");
    });
}

/// Two stations probe for one address at the same time. RFC 5227 calls that a conflict; `-a` does
/// not.
#[test]
fn another_stations_probe_keeps_an_address_from_being_used_with_acd_and_not_with_a() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let config = Config::for_router(ROUTER);
        let first = config.first;
        let _other = answering(&w, first, move |_| vec![probe(ALL, STATION, STATION, first)]);
        let [original, ours] = both(lab);
        for (client, declined) in
            [(&[&original, "-a200"][..], 0), (&[&ours, "-a200"], 0), (&[&ours, "--acd", "fast"], 1)]
        {
            let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
            let argv = [client, &["-i", "eth0", "-s", "/bin/true", "-f", "-q", "-n"]].concat();
            assert_eq!(exit_code(&w.home, &argv), 0, "{client:?}");
            assert_eq!(server.count(MessageType::Decline), declined, "{client:?}");
        }
    });
}

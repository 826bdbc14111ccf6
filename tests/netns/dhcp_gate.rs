//! Which servers and options the DHCP client accepts. The client names what it refuses.

use std::net::Ipv4Addr;

use testkit::dhcpd::{Config, Custom, Dhcpd, Encodable, Message, MessageType, Mode, grant};
use testkit::{isolated, wait_until};

use crate::dhcp::{ROUTER, SOON, World, both, events, exit_code, field, native, script, wait_ip, world};
use crate::dhcp_options::{fw, parameters};
use crate::dnsmasq_argv;

fn kind(message: &Message) -> MessageType {
    match message.opts().msg_type() {
        Some(MessageType::Discover) => MessageType::Offer,
        _ => MessageType::Ack,
    }
}

/// A server that answers each message with these functions' bytes, in their order.
fn serve(w: &World, answer: impl FnMut(&Message) -> Vec<Vec<u8>> + Send + 'static) -> Dhcpd {
    let mode = Mode::Custom(Custom(Box::new(answer)));
    Dhcpd::start(&w.isp, "lan", Config { mode, ..Config::for_router(ROUTER) }).unwrap()
}

/// Two servers on one link: a modem without a line, which always answers first, and the provider's
/// server.
fn modem_and_provider(w: &World) -> Dhcpd {
    let modem = Config::for_router(Ipv4Addr::new(192, 168, 100, 1));
    let provider = Config::for_router(ROUTER);
    serve(w, move |message| {
        let asked = |config: &Config| {
            let bytes = message.to_vec().unwrap();
            kind(message) == MessageType::Offer
                || bytes.windows(6).any(|w| w == [&[54, 4], &config.server_id.octets()[..]].concat())
        };
        let answer = |config: &Config| grant(config, message, kind(message), config.first).to_vec().unwrap();
        [&modem, &provider].into_iter().filter(|config| asked(config)).map(answer).collect()
    })
}

#[test]
fn a_modem_that_hands_out_its_own_addresses_is_rejected() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let _server = modem_and_provider(&w);
        let [original, ours] = both(lab);
        let runs: [(&str, &str, &[&str], &str); 4] = [
            ("original", &original, &[], "ip=192.168.100.100"),
            ("all", &ours, &[], "ip=192.168.100.100"),
            ("network", &ours, &["--reject", "192.168.100.0/24"], "ip=192.0.2.100"),
            ("server", &ours, &["--reject", "10.0.0.0/8", "--reject=192.168.100.1"], "ip=192.0.2.100"),
        ];
        for (name, client, more, want) in runs {
            let (script, out) = script(lab, name);
            let argv = [&[client, "-i", "eth0", "-s", &script, "-f", "-q", "-n"], more].concat();
            assert_eq!(exit_code(&w.home, &argv), 0, "{name}");
            assert!(events(&out)[1].contains(&want.to_owned()), "{name}: {:?}", events(&out)[1]);
        }
        // The client does not request a lease again that such a modem gave before.
        let client = native(&w, &[]);
        wait_ip("192.168.100.100");
        client.signal(testkit::Signal::SIGKILL);
        wait_until("its end", SOON, || !testkit::is_running(client.pid()));
        let client = native(&w, &["--reject", "192.168.100.0/24"]);
        wait_ip("192.0.2.100");
        let line = "ignoring offer of 192.168.100.100 from 192.168.100.1: rejected by 192.168.100.0/24";
        assert!(client.log().contains(line), "{}", client.log());
        assert!(!client.log().contains("lease of 192.168.100.100"), "{}", client.log());
    });
}

#[test]
fn a_server_is_rejected_by_the_address_that_it_answers_from() {
    isolated(&[], |lab| {
        let w = world(lab);
        // The server gives another server identifier, and offers an address of another network.
        let config = Config::for_router(Ipv4Addr::new(203, 0, 113, 1));
        let _server = serve(&w, move |m| vec![grant(&config, m, kind(m), config.first).to_vec().unwrap()]);
        let client = native(&w, &["--reject", "192.0.2.0/24"]);
        client.wait_log("ignoring offer of 203.0.113.100 from 203.0.113.1: rejected by 192.0.2.0/24", SOON);
        assert_eq!(field("ip"), None);
    });
}

#[test]
fn an_option_that_is_ignored_is_neither_asked_for_nor_taken() {
    isolated(&["udhcpc", "dnsmasq"], |lab| {
        let w = world(lab);
        let more = [
            "--dhcp-range=192.0.2.100,192.0.2.100,1h",
            "--dhcp-option-force=26,1400",
            "--dhcp-option-force=15,example.org",
        ];
        let server = w.isp.spawn(&dnsmasq_argv("lan", &more));
        server.wait_log("DHCP, IP range", SOON);
        let [original, ours] = both(lab);
        for (name, client, more, shown) in [
            ("original", &original, &[][..], true),
            ("ours", &ours, &[], true),
            ("ignored", &ours, &["--ignore", "mtu", "--ignore=15"], false),
        ] {
            let (script, out) = script(lab, name);
            let argv = [&[client, "-i", "eth0", "-s", &script, "-f", "-q", "-n"], more].concat();
            assert_eq!(exit_code(&w.home, &argv), 0, "{name}");
            let bound = &events(&out)[1];
            for line in ["mtu=1400", "domain=example.org"] {
                assert_eq!(bound.contains(&line.to_owned()), shown, "{name}: {bound:?}");
            }
        }
        let client = native(&w, &["--ignore", "26"]);
        wait_ip("192.0.2.100");
        assert_eq!((field("mtu"), field("domain").as_deref()), (None, Some("example.org")));
        client.stop();
        drop(server);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        let _client = native(&w, &["--ignore", "26"]);
        wait_until("a message", SOON, || !server.seen().is_empty());
        assert!(!parameters(&server.seen()[0].message).contains(&26));
    });
}

#[test]
fn a_lease_without_its_default_route_and_with_a_metric() {
    isolated(&["udhcpc", "dnsmasq"], |lab| {
        let w = world(lab);
        let routes = "--dhcp-option-force=121,10.20.0.0/16,192.0.2.9,0.0.0.0/0,192.0.2.1";
        let server = w.isp.spawn(&dnsmasq_argv("lan", &["--dhcp-range=192.0.2.100,192.0.2.100,1h", routes]));
        server.wait_log("DHCP, IP range", SOON);
        let [original, ours] = both(lab);
        let all = ["router=192.0.2.1", "staticroutes=10.20.0.0/16 192.0.2.9 0.0.0.0/0 192.0.2.1"];
        let few = ["IF_METRIC=77", "staticroutes=10.20.0.0/16 192.0.2.9"];
        for (name, client, more, want) in [
            ("original", &original, &[][..], &all[..]),
            ("ours", &ours, &[], &all),
            ("none", &ours, &["--no-default-route", "--metric", "77"], &few),
        ] {
            let (script, out) = script(lab, name);
            let argv = [&["env", "-i", client, "-i", "eth0", "-s", &script, "-f", "-q", "-n"], more].concat();
            assert_eq!(exit_code(&w.home, &argv), 0, "{name}");
            let of_routes = ["router=", "staticroutes=", "IF_METRIC="];
            let mut found = events(&out).swap_remove(1);
            found.retain(|line| of_routes.iter().any(|name| line.starts_with(name)));
            found.sort();
            assert_eq!(found, want, "{name}");
        }
        let client = native(&w, &["--metric=77"]);
        wait_ip("192.0.2.100");
        fw(lab, &w.home);
        let metrics = || {
            let all = w.home.ip_json(&["-4", "route", "show", "dev", "eth0"]);
            let routed = all.as_array().unwrap().iter().filter(|route| route["gateway"].is_string());
            routed.map(|route| format!("{} {}", route["dst"].as_str().unwrap(), route["metric"])).collect::<Vec<_>>()
        };
        assert_eq!(metrics(), ["default 77", "10.20.0.0/16 77"]);
        client.stop();
        let _client = native(&w, &["--no-default-route"]);
        wait_until("the other record", SOON, || field("gw").as_deref() == Some("") && field("metric").is_none());
        fw(lab, &w.home);
        assert_eq!(metrics().iter().map(|m| m.split(' ').next().unwrap()).collect::<Vec<_>>(), ["10.20.0.0/16"]);
    });
}

/// Counts each message by its priority at the point where the interface takes it. A VLAN device
/// reads the priority there.
#[test]
fn messages_have_the_priority_that_the_provider_asks_for() {
    isolated(&["nft"], |lab| {
        let w = world(lab);
        let server = Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap();
        w.home.ip(&["link", "set", "eth0", "up"]);
        let count =
            ["none", "0:6", "0:7"].map(|p| format!("meta protocol != ip6 meta priority {p} counter; ")).concat();
        let hook = "type filter hook egress device \"eth0\" priority 0";
        w.home.run(&["nft", &format!("table netdev count {{ chain out {{ {hook}; {count} }}; }}")]);
        let counted = || {
            let text = w.home.run(&["nft", "-j", "list", "table", "netdev", "count"]);
            let all = text.parse::<testkit::Value>().unwrap();
            let rules = all["nftables"].as_array().unwrap().iter().filter_map(|item| item["rule"]["expr"].as_array());
            let counters = rules.filter_map(|expr| expr.iter().find_map(|e| e["counter"]["packets"].as_u64()));
            counters.collect::<Vec<u64>>()
        };
        let run = |more: &[&str]| {
            let argv = [&["udhcpc", "-f", "-q", "-n", "-i", "eth0", "-s", "/bin/true", "-a50"], more].concat();
            let before = counted();
            assert_eq!(exit_code(&w.home, &argv), 0);
            // DISCOVER, REQUEST and a probe.
            counted().iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>()
        };
        assert_eq!(run(&[]), [3, 0, 0]);
        assert_eq!(run(&["--priority", "6"]), [0, 3, 0]);
        assert_eq!(run(&["--priority=7"]), [0, 0, 3]);
        // The client sends by UDP to the server, from inside the cage.
        let client = w.home.spawn(&["udhcpc", "-f", "-i", "eth0", "--ipconf", "/run/lab/dyn", "--priority", "6"]);
        client.wait_log("lease of 192.0.2.100", SOON);
        w.home.address("eth0", "192.0.2.100/24");
        let (requests, before) = (server.count(MessageType::Request), counted());
        client.signal(testkit::Signal::SIGUSR1);
        wait_until("a renewal", SOON, || server.count(MessageType::Request) > requests);
        assert!(counted()[1] > before[1], "{before:?} {:?}", counted());
        assert!(!client.log().contains("can't set the priority"), "{}", client.log());
    });
}

/// The client names each refusal and its reason once, however often it happens.
#[test]
fn replies_that_are_refused_are_named_once_each() {
    isolated(&[], |lab| {
        let w = world(lab);
        let config = Config::for_router(ROUTER);
        let mut rounds = 0;
        let _server = serve(&w, move |message| {
            let good = grant(&config, message, kind(message), config.first).to_vec().unwrap();
            let with = |option: &[u8]| {
                let mut bytes = good.clone();
                let end = bytes.iter().rposition(|byte| *byte == 255).unwrap();
                bytes.splice(end..end, option.iter().copied());
                bytes
            };
            let mut bootp = good.clone();
            bootp[236] = 0;
            let mut masked = good.clone();
            let mask = masked.windows(2).position(|w| w == [1, 4]).unwrap();
            masked[mask + 4] = 7;
            rounds += 1;
            let wrong = vec![with(b"\x3d\x07\x01\x1b[2J\n\n"), bootp, masked];
            if rounds < 3 { wrong } else { vec![good] }
        });
        // Without -v. With -v there is a line for each refusal.
        let client = w.home.spawn(&["udhcpc", "-f", "-i", "eth0", "--ipconf", "/run/lab/dyn"]);
        wait_ip("192.0.2.100");
        for line in [
            "ignoring offer of 192.0.2.100 from 192.0.2.1: for another client, 01:1b:5b:32:4a:0a:0a\n",
            "dropping a message from 192.0.2.1: BOOTP, not DHCP\n",
            "ignoring offer of 192.0.2.100: impossible subnet mask\n",
        ] {
            assert_eq!(client.log().matches(line).count(), 1, "{line}{}", client.log());
        }
    });
}

#[test]
fn wrong_values_end_as_the_original_ends_and_are_named() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let [original, _] = both(lab);
        assert_eq!(exit_code(&w.home, &[&original, "-f", "-n", "-i", "eth0", "-O", "bogus"]), 1);
        for (option, value) in
            [("--reject", "192.168.100.1/33"), ("--reject", "modem"), ("--ignore", "bogus"), ("--ignore", "serverid")]
        {
            let output = w.home.try_run(&["udhcpc", "-f", "-n", "-i", "eth0", option, value]);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!((output.status.code(), text.contains(&format!("'{value}'"))), (Some(1), true), "{text}");
        }
    });
}

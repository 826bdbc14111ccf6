//! Option values on real links for which the record or a script has no place, or which servers
//! write in more than one way.

use testkit::dhcpd::{Config, Custom, Dhcpd, Encodable, Message, MessageType, Mode, grant};
use testkit::{Lab, isolated};

use crate::dhcp::{ROUTER, SOON, World, both, events, exit_code, field, native, script, wait_ip, world};
use crate::dhcp_options::{Raw, TABLE, fw, parameters, routes, serve};
use crate::dnsmasq_argv;

/// One option in its wire format.
fn wire(code: u8, data: &[u8]) -> Vec<u8> {
    [&[code, u8::try_from(data.len()).unwrap()], data].concat()
}

/// A server that adds this option. It splits an option of more than 255 bytes (RFC 3396).
fn serve_long(w: &World, code: u8, data: &[u8]) -> Dhcpd {
    serve_bytes(w, data.chunks(255).flat_map(|piece| wire(code, piece)).collect())
}

/// A server that adds these bytes to its options.
fn serve_bytes(w: &World, pieces: Vec<u8>) -> Dhcpd {
    let config = Config::for_router(ROUTER);
    let answer = move |message: &Message| {
        let kind = match message.opts().msg_type() {
            Some(MessageType::Discover) => MessageType::Offer,
            _ => MessageType::Ack,
        };
        let mut bytes = grant(&config, message, kind, config.first).to_vec().unwrap();
        let end = bytes.iter().rposition(|byte| *byte == 255).unwrap();
        bytes.splice(end..end, pieces.iter().copied());
        vec![bytes]
    };
    let mode = Mode::Custom(Custom(Box::new(answer)));
    Dhcpd::start(&w.isp, "lan", Config { mode, ..Config::for_router(ROUTER) }).unwrap()
}

/// Runs a client that ends with a lease, and returns the variables of that one lease.
fn bound(w: &World, client: &str, script: (String, std::path::PathBuf), more: &[&str]) -> Vec<String> {
    let argv = [&["env", "-i", client, "-i", "eth0", "-s", &script.0, "-f", "-q", "-n"], more].concat();
    assert_eq!(exit_code(&w.home, &argv), 0, "{client}");
    events(&script.1).into_iter().find(|event| event[0] == "EVENT=bound").unwrap()
}

#[test]
fn a_default_route_behind_a_hundred_others_is_installed() {
    isolated(&[], |lab| {
        let w = world(lab);
        let many = (0..100).flat_map(|n| [24, 10, 20, n, 192, 0, 2, 9]);
        let _server = serve_long(&w, 121, &many.chain([0, 192, 0, 2, 7]).collect::<Vec<u8>>());
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        client.wait_log("not taking 37 of 101 elements of option 121", SOON);
        fw(lab, &w.home);
        let found = routes(&w.home, "eth0");
        assert_eq!((found.len(), found.last().map(String::as_str)), (64, Some("default by 192.0.2.7")));
        // At a renewal the client does not report it again.
        client.signal(testkit::Signal::SIGUSR1);
        client.wait_log("sending renew", SOON);
        testkit::wait_until("the renewal", SOON, || client.log().matches("lease of 192.0.2.100").count() == 2);
        assert_eq!(client.log().matches("not taking").count(), 1, "{}", client.log());
        assert!(client.stop().success());
        // A script gets as many values as a variable can carry.
        let bound = bound(&w, &both(lab)[1], script(lab, "ours"), &[]);
        let routes = bound.iter().find(|line| line.starts_with("staticroutes=")).unwrap();
        assert!(routes.ends_with(" 0.0.0.0/0 192.0.2.7"), "{routes}");
    });
}

#[test]
fn several_domains_and_nuls_at_the_end_are_taken() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let server = serve(&w, &[(12, b"bbox\0\0"), (15, b"example.org example.net\0")]);
        // The original gives the script a placeholder instead of the domains.
        for (client, (name, want)) in
            both(lab).iter().zip([("original", "domain=bad"), ("ours", "domain=example.org example.net")])
        {
            let bound = bound(&w, client, script(lab, name), &[]);
            assert!(bound.contains(&want.to_owned()) && bound.contains(&"hostname=bbox".to_owned()), "{bound:?}");
        }
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        assert_eq!(field("domain").as_deref(), Some("example.org"));
        assert_eq!(field("search").as_deref(), Some("example.org example.net"));
        assert_eq!(field("hostname").as_deref(), Some("bbox"));
        client.stop();
        // One invalid name makes the whole list invalid.
        server.configure(|c| c.options = vec![(15, b"example.org $(reboot)".to_vec())]);
        assert!(bound(&w, &both(lab)[1], script(lab, "spoilt"), &[]).contains(&"domain=bad".to_owned()));
    });
}

#[test]
fn routes_of_option_33_are_asked_for_and_installed() {
    isolated(&["dnsmasq"], |lab| {
        let w = world(lab);
        let hosts = "--dhcp-option=33,198.51.100.7,192.0.2.9,10.0.0.0,192.0.2.9";
        let server = w.isp.spawn(&dnsmasq_argv("lan", &["--dhcp-range=192.0.2.100,192.0.2.100,1h", hosts]));
        server.wait_log("DHCP, IP range", SOON);
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        let want = "198.51.100.7/32 192.0.2.9 10.0.0.0/8 192.0.2.9 0.0.0.0/0 192.0.2.1";
        assert_eq!(field("routes").as_deref(), Some(want));
        fw(lab, &w.home);
        let want = ["10.0.0.0/8 by 192.0.2.9", "198.51.100.7 by 192.0.2.9", "default by 192.0.2.1"];
        assert_eq!(routes(&w.home, "eth0"), want);
        client.stop();
    });
}

#[test]
fn routes_of_option_33_do_not_count_beside_classless_ones() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = serve(&w, &[(33, &[198, 51, 100, 7, 192, 0, 2, 9]), (121, &[8, 10, 192, 0, 2, 9])]);
        let _client = native(&w, &[]);
        wait_ip("192.0.2.100");
        // RFC 3442: beside option 121 the client ignores option 33 and the router.
        assert_eq!(field("routes").as_deref(), Some("10.0.0.0/8 192.0.2.9"));
        let asked = parameters(&server.seen()[0].message);
        let at = |code| asked.iter().position(|asked| *asked == code).unwrap();
        assert!(at(121) < at(33) && at(121) < at(3), "{asked:?}");
    });
}

#[test]
fn an_mtu_below_576_is_shown_to_no_script_and_not_in_the_record() {
    isolated(&["udhcpc"], |lab| {
        let w = world(lab);
        let server = serve(&w, &[(26, &[0, 68])]);
        for (client, name) in both(lab).iter().zip(["original", "ours"]) {
            let bound = bound(&w, client, script(lab, name), &[]);
            let shown = bound.iter().any(|line| line == "mtu=68" || line.starts_with("opt26"));
            assert_eq!(shown, name == "original", "{bound:?}");
        }
        let client = native(&w, &[]);
        wait_ip("192.0.2.100");
        client.wait_log("not taking an MTU of 68 bytes (less than 576)", SOON);
        assert_eq!(field("mtu"), None);
        client.stop();
        server.configure(|c| c.options = vec![(26, vec![2, 64])]);
        assert!(bound(&w, &both(lab)[1], script(lab, "least"), &[]).contains(&"mtu=576".to_owned()));
    });
}

/// Turns a well formed option into the bytes that the server sends instead.
type Spoilt = fn(&Raw) -> Vec<u8>;

/// Spoils each option of the table, a few in each packet of 576 bytes. The variables are those of
/// the original.
fn spoilt_options_read_the_same(lab: &Lab, kinds: [(&'static str, Spoilt); 2]) {
    let w = world(lab);
    // Without these options there is no lease.
    let spares = |(code, _): &&Raw| ![1, 51].contains(code);
    let mut differences = Vec::new();
    for (kind, spoil) in kinds {
        for (index, group) in TABLE[..4].iter().flat_map(|group| group.chunks(7)).enumerate() {
            let _server = serve_bytes(&w, group.iter().filter(spares).flat_map(spoil).collect());
            let [original, ours] = ["original", "ours"].map(|whose| {
                let client = &both(lab)[usize::from(whose == "ours")];
                bound(&w, client, script(lab, &format!("{whose}-{kind}-{index}")), &[])
            });
            let lost =
                original.iter().filter(|line| !ours.contains(line)).map(|line| format!("original, {kind}: {line}"));
            let more = ours.iter().filter(|line| !original.contains(line)).map(|line| format!("ours, {kind}: {line}"));
            differences.extend(lost.chain(more));
        }
    }
    assert_eq!(differences, [] as [String; 0]);
}

#[test]
fn options_cut_short_and_longer_than_they_should_be_read_the_same_as_the_originals() {
    isolated(&["udhcpc"], |lab| {
        spoilt_options_read_the_same(
            lab,
            [
                ("cut", |(code, data)| wire(*code, &data[..data.len() - 1])),
                ("longer", |(code, data)| wire(*code, &[data, &[0][..]].concat())),
            ],
        );
    });
}

#[test]
fn options_sent_twice_and_without_a_value_read_the_same_as_the_originals() {
    isolated(&["udhcpc"], |lab| {
        spoilt_options_read_the_same(
            lab,
            [
                ("twice", |(code, data)| [wire(*code, data), wire(*code, data)].concat()),
                ("empty", |(code, _)| wire(*code, &[])),
            ],
        );
    });
}

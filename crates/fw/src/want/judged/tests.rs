//! Tables of what is left out, and a random property: the order of arrival changes nothing.

use netd_core::record::text;
use netd_core::rng::Rng;

use super::*;
use crate::have::{Address, Link};

/// Records, one a line; those of administrators begin with `static`. The place of each is its
/// interface.
fn records(lines: &str) -> Vec<Current> {
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (is_static, fields) = line.strip_prefix("static ").map_or((false, line), |rest| (true, rest));
            let record = &text::parse(ipconf(fields).as_bytes()).unwrap()[0];
            let place = record.get("if").unwrap().to_owned();
            (crate::record::read(record, is_static, place).unwrap().0, None)
        })
        .collect()
}

/// `if=a b='c d'` in the grammar of ipconf(5).
fn ipconf(fields: &str) -> String {
    let mut quoted = false;
    let words = fields.split(|c| {
        quoted ^= c == '\'';
        c == ' ' && !quoted
    });
    let lines = words.map(|word| format!("{}\n", word.replacen('=', "[$cfg]=", 1)));
    lines.fold("let cfg=cfg+1\n".to_owned(), |text, line| text + &line)
}

/// Links 1 to 5, an address `ADDR/LEN` or a route `NET/LEN` of another program on one of them.
fn kernel(addresses: &[(&str, &str)], routes: &[(&str, &str)]) -> Have {
    let names = ["eth0", "eth1", "lan0", "wg0", "docker0"];
    let index = |name: &str| names.iter().position(|n| *n == name).and_then(|at| u32::try_from(at + 1).ok()).unwrap();
    let kind = |name: &str| Some("wireguard".to_owned()).filter(|_| name == "wg0");
    let link = |name: &str| Link { index: index(name), name: name.into(), kind: kind(name), ..Link::default() };
    let address = |(name, address): &(&str, &str)| Address {
        kernel_prefix_route: true,
        ..crate::have::tests::address(address, index(name))
    };
    let route = |(name, destination): &(&str, &str)| crate::have::tests::route(destination, index(name));
    Have {
        links: names.iter().map(|name| link(name)).collect(),
        addresses: addresses.iter().map(address).collect(),
        routes: routes.iter().map(route).collect(),
        ..Have::default()
    }
}

/// What is left of a lease: its address, its routes, its name servers.
fn show(entry: &Entry) -> String {
    let hops = entry.hops.iter().map(|h| {
        let gateway = h.gateway.map_or("link".to_owned(), |g| g.to_string());
        format!("{}>{gateway}", h.destination)
    });
    let dns = entry.network.said.dns.iter().map(|ip| format!("dns {ip}"));
    let address = entry.network.address.map(|a| a.to_string());
    address.into_iter().chain(hops).chain(dns).collect::<Vec<_>>().join(" ")
}

/// Addresses and routes of other programs, by interface.
type Foreign<'a> = (&'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)]);

const LAN: &str = "static if=lan0 ipmask=192.168.1.1/24";

#[test]
fn what_is_left_of_a_lease() {
    let none: Foreign = (&[], &[]);
    let wg: Foreign = (&[("wg0", "10.8.0.2/32")], &[("wg0", "10.8.0.0/16")]);
    let all: Foreign = (&[], &[("wg0", "0.0.0.0/1"), ("wg0", "128.0.0.0/1")]);
    // Other records, the kernel, the lease of eth0, what is left of it, the line.
    type Row<'a> = (&'a str, Foreign<'a>, &'a str, &'a str, &'a str);
    let table: &[Row] = &[
        // Nothing of it is elsewhere.
        (LAN, none, "ipmask=10.1.0.5/24 gw=10.1.0.1 dns=10.1.0.1", "10.1.0.5/24 0.0.0.0/0>10.1.0.1 dns 10.1.0.1", ""),
        // Option 121 into the LAN: the whole, a half, a host; around it is no harm.
        (
            LAN,
            none,
            "ipmask=10.1.0.5/24 routes='192.168.1.0/24 10.1.0.1 192.168.1.128/25 10.1.0.1 192.168.1.7/32 10.1.0.1 \
             192.168.0.0/16 10.1.0.1 0.0.0.0/0 10.1.0.1'",
            "10.1.0.5/24 192.168.0.0/16>10.1.0.1 0.0.0.0/0>10.1.0.1",
            "eth0: route 192.168.1.0/24 into the network of lan0, 192.168.1.0/24, route 192.168.1.128/25 into the \
             network of lan0, 192.168.1.0/24, route 192.168.1.7/32 into the network of lan0, 192.168.1.0/24: left out",
        ),
        // What the administrator has behind the LAN's hosts.
        (
            "static if=lan0 ipmask=192.168.1.1/24 routes='10.9.0.0/16 192.168.1.2'",
            none,
            "ipmask=10.1.0.5/24 routes='10.9.3.0/24 10.1.0.1'",
            "10.1.0.5/24",
            "eth0: route 10.9.3.0/24 into the network of lan0, 10.9.0.0/16: left out",
        ),
        // A tunnel of another program, by its address and by its route.
        (
            "",
            wg,
            "ipmask=10.1.0.5/24 routes='10.8.3.0/24 10.1.0.1 10.7.0.0/16 10.1.0.1 10.8.0.0/16 10.1.0.1'",
            "10.1.0.5/24 10.7.0.0/16>10.1.0.1",
            "eth0: route 10.8.3.0/24 into the network of wg0, 10.8.0.0/16, route 10.8.0.0/16 into the network of wg0, \
             10.8.0.0/16: left out",
        ),
        // The same network of another uplink that another program serves is for the metrics.
        (
            "",
            (&[("eth1", "10.8.0.2/16")], &[]),
            "ipmask=10.1.0.5/24 routes='10.8.3.0/24 10.1.0.1 10.8.0.0/16 10.1.0.1'",
            "10.1.0.5/24 10.8.0.0/16>10.1.0.1",
            "eth0: route 10.8.3.0/24 into the network of eth1, 10.8.0.0/16: left out",
        ),
        // ... by the record that its service has published.
        (
            "if=wg0 ipmask=10.8.0.2/32 routes='10.8.0.0/16 0.0.0.0'",
            none,
            "ipmask=10.1.0.5/24 routes='10.8.0.0/16 10.1.0.1'",
            "10.1.0.5/24",
            "eth0: route 10.8.0.0/16 into the network of wg0, 10.8.0.0/16: left out",
        ),
        // A VPN that has everything: only the way to the router is left.
        (
            "",
            all,
            "ipmask=10.1.0.5/32 routes='10.1.0.1/32 0.0.0.0 0.0.0.0/0 10.1.0.1 10.7.0.0/16 10.1.0.1'",
            "10.1.0.5/32 10.1.0.1/32>link 0.0.0.0/0>10.1.0.1",
            "eth0: route 10.7.0.0/16 into the network of wg0, 0.0.0.0/1: left out",
        ),
        // The network of another lease: the same one is for the metrics to decide.
        (
            "if=eth1 ipmask=10.2.0.9/16 gw=10.2.0.1",
            none,
            "ipmask=10.1.0.5/24 routes='10.2.0.0/16 10.1.0.1 10.2.7.0/24 10.1.0.1'",
            "10.1.0.5/24 10.2.0.0/16>10.1.0.1",
            "eth0: route 10.2.7.0/24 into the network of eth1, 10.2.0.0/16: left out",
        ),
        // Two uplinks in one network.
        (
            "if=eth1 ipmask=10.1.0.9/24 gw=10.1.0.1",
            none,
            "ipmask=10.1.0.5/24 routes='10.1.0.7/32 0.0.0.0 0.0.0.0/0 10.1.0.1'",
            "10.1.0.5/24 10.1.0.7/32>link 0.0.0.0/0>10.1.0.1",
            "",
        ),
        // The router and the name server are this machine.
        (
            LAN,
            none,
            "ipmask=10.1.0.5/24 gw=192.168.1.1 dns='192.168.1.1 9.9.9.9 10.1.0.5'",
            "10.1.0.5/24 dns 9.9.9.9",
            "eth0: router 192.168.1.1 is an address of this machine, on lan0, name server 192.168.1.1 is an address \
             of this machine, on lan0, name server 10.1.0.5 is an address of this machine, on eth0: left out",
        ),
        // A lease in the LAN's network, of which the provider's router is a host.
        (
            LAN,
            none,
            "ipmask=192.168.1.50/24 gw=192.168.1.254 dns='192.168.1.254 9.9.9.9'",
            "192.168.1.50/32 0.0.0.0/0>192.168.1.254 dns 9.9.9.9",
            "eth0: 192.168.1.50/24 of eth0 is in the network of lan0, 192.168.1.0/24: taken as a single address; \
             name server 192.168.1.254 would be looked for on lan0: left out",
        ),
        // ... and smaller than that network, and of another family.
        (
            "static if=lan0 ipmask=fd00:1::1/64",
            none,
            "ipmask=fd00:1::77/120 gw=fd00:1::1",
            "fd00:1::77/128",
            "eth0: fd00:1::77/120 of eth0 is in the network of lan0, fd00:1::/64: taken as a single address; router \
             fd00:1::1 is an address of this machine, on lan0: left out",
        ),
        // A larger one leaves the LAN alone, and a network of another program is not the LAN's.
        (
            LAN,
            (&[("docker0", "10.1.0.77/24")], &[]),
            "ipmask=192.168.2.50/16 gw=192.168.2.1",
            "192.168.2.50/16 0.0.0.0/0>192.168.2.1",
            "",
        ),
        (
            "",
            (&[("eth1", "10.1.0.77/24")], &[]),
            "ipmask=10.1.0.5/24 gw=10.1.0.1",
            "10.1.0.5/24 0.0.0.0/0>10.1.0.1",
            "",
        ),
        // The uplink's own other address, and what every link has.
        (
            "static if=eth0 ipmask=192.168.100.2/24",
            (&[("eth1", "fe80::1/64")], &[("eth1", "fe80::/64")]),
            "ipmask=10.1.0.5/24 routes='192.168.100.1/32 10.1.0.1' dns=fe80::1",
            "10.1.0.5/24 192.168.100.1/32>10.1.0.1 dns fe80::1",
            "",
        ),
    ];
    for (others, (addresses, routes), lease, left, line) in table {
        let mut current = records(&format!("if=eth0 {lease}\n{others}"));
        let lines = judge(&mut current, &kernel(addresses, routes));
        assert_eq!(show(&current[0].0), *left, "{lease}");
        assert_eq!(lines.join("\n"), *line, "{lease}");
    }
}

#[test]
fn a_tunnel_may_have_a_part_of_any_network_but_a_lans() {
    let routes = "routes='10.1.7.0/24 0.0.0.0 10.8.7.0/24 0.0.0.0 192.168.1.128/25 0.0.0.0'";
    let mut current = records(&format!("if=wg0 ipmask=10.9.0.2/32 {routes}\n{LAN}\nif=eth0 ipmask=10.1.0.5/16"));
    let lines = judge(&mut current, &kernel(&[("eth1", "10.8.0.1/16")], &[]));
    assert_eq!(show(&current[0].0), "10.9.0.2/32 10.1.7.0/24>link 10.8.7.0/24>link");
    assert_eq!(lines, ["wg0: route 192.168.1.128/25 into the network of lan0, 192.168.1.0/24: left out"]);
}

#[test]
fn an_administrators_words_are_not_judged() {
    let lines =
        "static if=eth0 ipmask=192.168.1.50/24 gw=192.168.1.1 dns=192.168.1.1\nstatic if=lan0 ipmask=192.168.1.1/24";
    let mut current = records(lines);
    let before: Vec<Entry> = current.iter().map(|(e, _)| e.clone()).collect();
    assert_eq!(judge(&mut current, &Have::default()), [] as [&str; 0]);
    assert_eq!(current.iter().map(|(e, _)| e.clone()).collect::<Vec<_>>(), before);
}

/// A network of few addresses, so that they meet.
fn random_prefix(rng: &mut Rng) -> String {
    let part = |rng: &mut Rng| rng.next_u32() % 3;
    let (b, c, d) = (part(rng), part(rng), 1 + part(rng));
    format!("10.{b}.{c}.{d}/{}", [8, 16, 24, 30, 32][rng.next_u32() as usize % 5])
}

#[test]
fn no_order_of_arrival_changes_the_result() {
    let names = ["eth0", "eth1", "lan0", "wg0", "docker0"];
    for seed in 0..400 {
        let mut rng = Rng::seeded(seed);
        let pick = |rng: &mut Rng| names[rng.next_u32() as usize % names.len()];
        let lines: Vec<String> = (0..5)
            .map(|n| {
                let (name, address) = (pick(&mut rng), random_prefix(&mut rng));
                let net = Prefix::parse(&random_prefix(&mut rng)).unwrap().network();
                let [gw, dns] = [random_prefix(&mut rng), random_prefix(&mut rng)];
                let [gw, dns] = [&gw, &dns].map(|text| text.split('/').next().unwrap().to_owned());
                match n % 2 {
                    0 => format!("if={name} ipmask={address} routes='{net} {gw} 0.0.0.0/0 {gw}' dns={dns}"),
                    _ => format!("static if={name} ipmask={address}"),
                }
            })
            .collect();
        let foreign = [("wg0", random_prefix(&mut rng)), ("docker0", random_prefix(&mut rng))];
        let foreign: Vec<(&str, &str)> = foreign.iter().map(|(n, p)| (*n, p.as_str())).collect();
        let have = kernel(&foreign, &[]);
        let judged = |lines: &[String], have: &Have| {
            let mut current = records(&lines.join("\n"));
            let mut said = judge(&mut current, have);
            let mut left: Vec<String> = current.iter().map(|(e, _)| format!("{} {}", e.origin, show(e))).collect();
            left.sort();
            said.sort();
            (left, said)
        };
        let want = judged(&lines, &have);
        // What fw has set since is no news: its addresses, and the kernel's routes for them.
        let mut later = have.clone();
        for (entry, _) in records(&lines.join("\n")) {
            let Some(address) = entry.network.address else { continue };
            let index = later.link(entry.interface()).unwrap().index;
            let model = kernel(&[("eth0", &address.to_string())], &[("eth0", &address.network().to_string())]);
            later.addresses.push(Address { index, protocol: PROTOCOL, ..model.addresses[0].clone() });
            later.routes.push(Route { index, protocol: PROTOCOL_KERNEL, ..model.routes[0].clone() });
        }
        for _ in 0..6 {
            let mut mixed = lines.clone();
            for at in (1..mixed.len()).rev() {
                mixed.swap(at, rng.next_u32() as usize % (at + 1));
            }
            assert_eq!(judged(&mixed, &have), want, "seed {seed}: {mixed:?}");
            assert_eq!(judged(&mixed, &later), want, "seed {seed}, after a run: {mixed:?}");
        }
    }
}

//! A house in which two hundred machines are switched on together: each client has a namespace of
//! its own, and one dnsmasq serves them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use testkit::{Lab, Net, Signal, isolated, poll_for, send, wait_until};

use crate::{dnsmasq_argv, ours};

const CROWD: usize = 200;
/// The limit for all clients together, on two cores that other programs use, too. On an idle
/// machine they take a tenth of it.
const LONG: Duration = Duration::from_secs(60);

/// A bridge `lan` with the server's address, and at each of its ports a client's namespace `cN`.
fn house(lab: &Lab, isp: &Net) {
    let (mut names, mut ports) = (String::new(), String::from("link add lan up type bridge\n"));
    for n in 0..CROWD {
        let mac = format!("02:00:00:01:{:02x}:{:02x}", n / 256, n % 256);
        writeln!(names, "netns add c{n}").unwrap();
        writeln!(ports, "link add p{n} up master lan type veth peer name eth0 address {mac} netns c{n}").unwrap();
    }
    lab.ip_batch(&names);
    fs::write("/run/lab/ports", ports).unwrap();
    isp.run(&["ip", "-batch", "/run/lab/ports"]);
    isp.address("lan", "10.9.0.1/16");
}

/// Runs a shell command in every client's namespace, where it is `$n`.
fn everywhere(net: &Net, command: &str) -> String {
    let each = format!("for n in $(seq 0 {}); do\nnsenter --net=/run/netns/c$n {command}\ndone", CROWD - 1);
    net.run(&["sh", "-c", &each])
}

/// The clients' addresses, as ip(8) shows them.
fn addresses(net: &Net) -> Vec<String> {
    let shown = everywhere(net, "ip -o -4 address show dev eth0");
    shown.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
}

/// The process id of the client in `cN`.
fn pid(n: usize) -> i32 {
    fs::read_to_string(format!("/run/lab/pid.{n}")).unwrap().trim().parse().unwrap()
}

#[test]
fn two_hundred_clients_at_once_get_two_hundred_addresses_and_renew_them() {
    isolated(&["dnsmasq", "seq"], |lab| {
        ours(lab);
        let isp = lab.net("isp");
        house(lab, &isp);
        let server = isp.spawn(&dnsmasq_argv("lan", &["--dhcp-range=10.9.1.0,10.9.4.255,255.255.0.0,1h"]));
        server.wait_log("DHCP, IP range", LONG);
        let script = lab.dir().join("script");
        let text = "#!/bin/sh\nPATH=/usr/sbin:/sbin:/usr/bin:/bin\ncase $1 in\n\
                    deconfig) ip link set $interface up ;;\nbound) ip addr add $ip/$mask dev $interface ;;\nesac\n\
                    echo $ip >>/run/lab/$1.$IF_NUMBER\n";
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();

        everywhere(
            &isp,
            "env IF_NUMBER=$n udhcpc -f -i eth0 -p /run/lab/pid.$n -s /run/lab/script >/run/lab/log/client.$n.log 2>&1 &",
        );
        let told = |event: &str| -> Vec<usize> {
            (0..CROWD).filter(|n| fs::exists(format!("/run/lab/{event}.{n}")).unwrap()).collect()
        };
        wait_until("all are bound", LONG, || told("bound").len() == CROWD);
        let held = addresses(&isp);
        assert_eq!(held.len(), CROWD, "one each: {held:?}");
        assert_eq!(held.iter().collect::<BTreeSet<_>>().len(), CROWD, "all different: {held:?}");
        let leases = fs::read_to_string("/run/lab/leases").unwrap();
        let given: BTreeSet<_> = leases.lines().filter_map(|line| line.split(' ').nth(2)).collect();
        assert_eq!(given, held.iter().map(|ip| ip.trim_end_matches("/16")).collect(), "the server says so, too");

        // Two hundred requests at once overflow dnsmasq's socket buffer. A client without an answer
        // asks once more.
        wait_until("all have renewed", LONG, || {
            let renewed = told("renew");
            (0..CROWD).filter(|n| !renewed.contains(n)).for_each(|n| send(pid(n), Signal::SIGUSR1));
            poll_for(Duration::from_secs(2), || (told("renew").len() == CROWD).then_some(())).is_some()
        });
        assert_eq!(addresses(&isp), held, "and keep what they have");
        let log = server.log();
        assert!(!log.contains("DHCPNAK") && !log.contains("DHCPDECLINE"), "{log}");
    });
}

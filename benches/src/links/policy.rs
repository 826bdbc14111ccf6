//! fw with the policy of a large router: ten zones, 200 port forwards, 50 interfaces. The peers
//! load the same firewall and do nothing else: `nft -f` with the text of our table, and ferm(1).

use std::fmt::Write;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use testkit::probe::Probe;
use testkit::{Lab, Net, wait_until};

use super::ms;
use super::one_shot::{Room, Shell, Subject, writes};
use crate::table::{OURS, Row, median};
use crate::world::{TARGET, sh};

const FERM: &str = "ferm";
const NFT: &str = "nft -f";

/// The interfaces: eth0 and eth1 lead outside, the others are inside.
const INTERFACES: u32 = 50;
/// The zones; the first is `lan`.
const ZONES: u32 = 10;
const FORWARDS: u32 = 200;
/// The first inside interface has a host behind it, whose pings are counted.
const LAN: u32 = 2;
const PACE: Duration = Duration::from_millis(1);
/// Time for the last answers to arrive.
const TRAVEL: Duration = Duration::from_millis(100);
/// The runs of which each changes one forward, while a flow that does not use it is watched.
const CHANGES: u32 = 100;

/// All rows.
pub(super) fn bench(lab: &Lab, applets: &str, quick: bool) -> io::Result<Vec<Row>> {
    let room = Room::build(lab, "policy");
    room.cables(lab, LAN + 1..INTERFACES);
    let host = lan_host(lab, &room.home);
    let path = std::env::var("PATH").unwrap_or_default();
    let ours = Subject {
        name: OURS,
        dir: "/run/policy/fw".into(),
        records: "/run/policy/run".into(),
        environment: format!("FW_DYNAMIC=/run/policy/run FW_ETC=/run/policy/etc PATH={applets}:{path}"),
    };
    sh("mkdir -p /run/policy/run /run/policy/etc; cp -r services/fw /run/policy/fw; rm -f /run/policy/fw/conf/*");
    for n in 0..2 {
        ours.record(n, 2)?;
    }
    for n in LAN..INTERFACES {
        fs::write(format!("/run/policy/fw/conf/eth{n}.ipconf"), inside(n))?;
    }
    let mut shell = Shell::enter(&room.home)?;
    let run = format!("cd {}; env {} ./run", ours.dir, ours.environment);
    let rounds = if quick { 3 } else { 7 };

    let (mut fresh, mut same, mut changed, mut alone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    policy(0)?;
    for _ in 0..rounds {
        room.empty(&mut shell)?;
        fresh.push(ms(shell.run(&run)?));
    }
    for _ in 0..rounds {
        same.push(ms(shell.run(&run)?));
    }
    let written = writes(&mut shell, &ours)?;
    for round in 0..rounds {
        policy(1 + round % 2)?;
        changed.push(ms(shell.run(&run)?));
    }
    let lost = lost_meanwhile(&mut shell, &run, &host)?;
    // The text that fw has loaded stands behind the first line of this file.
    shell.run(
        "(echo 'table inet netsv'; echo 'delete table inet netsv'; tail -n +2 /run/policy/run/.nft) >/run/policy/nft",
    )?;
    for _ in 0..rounds {
        alone.push(ms(shell.run("nft -f /run/policy/nft")?));
    }
    let closed = closed_again(&mut shell, &room.home, &ours, rounds)?;
    shell.run("nft flush ruleset")?;
    let (ferm_fresh, ferm_changed) = ferm(&mut shell, rounds)?;

    let row = |what: &str, values| Row::new(&format!("fw, a large policy, {what}"), values);
    Ok(vec![
        row("from nothing, ms", vec![(FERM, median(ferm_fresh)), (OURS, median(fresh))])
            .note("10 zones, 200 forwards, 50 interfaces; ferm: its rules alone"),
        row("nothing changed, ms", vec![(OURS, median(same))]),
        row("nothing changed: kernel writes", vec![(OURS, Some(written))]),
        row(
            "one forward changed, ms",
            vec![(NFT, median(alone)), (FERM, median(ferm_changed)), (OURS, median(changed))],
        ),
        row("flushed by others -> closed again, ms", vec![(OURS, median(closed))])
            .note("ifplugd --all and runsv; looked at by nft, about 20 ms a look"),
        row("100 changes: forwarded pings lost", vec![(OURS, Some(lost))]).note("every 1 ms, an untouched flow"),
    ])
}

/// A host behind the first inside interface.
fn lan_host(lab: &Lab, home: &Net) -> Net {
    let host = lab.net("policy_lan");
    lab.cable((home, &format!("eth{LAN}")), (&host, "eth0"));
    host.address("eth0", &format!("10.{LAN}.0.9/24"));
    host.ip(&["route", "add", "default", "via", &format!("10.{LAN}.0.1")]);
    host
}

fn zone(n: u32) -> String {
    match n % ZONES {
        0 => "lan".into(),
        other => format!("zone{other}"),
    }
}

/// The record of an inside interface.
fn inside(n: u32) -> String {
    let (zone, host) = (zone(n - LAN), if n == LAN { 1 } else { 3 });
    format!("let cfg=cfg+1\nif[$cfg]='eth{n}'\nipmask[$cfg]='10.{n}.0.{host}/24'\nzone[$cfg]='{zone}'\n")
}

/// The outside port of a forward. The first one differs from round to round.
fn port(n: u32, round: u32) -> u32 {
    if n == 0 { 1000 + round } else { 2000 + n }
}

/// Writes fw.conf.
fn policy(round: u32) -> io::Result<()> {
    let mut text = String::from("preferred_default_route_iface=\"eth0\"\next_open=\"tcp/22 udp/51820\"\n");
    for n in 1..ZONES {
        let _ = writeln!(text, "zone_zone{n}_to=\"outside\"\nzone_zone{n}_router=\"dhcp dns ping\"");
    }
    let forwards: Vec<String> =
        (0..FORWARDS).map(|n| format!("tcp/{}>10.{LAN}.0.{}:80", port(n, round), 10 + n)).collect();
    let _ = writeln!(text, "port_forward=\"{}\"", forwards.join(" "));
    fs::write("/run/policy/fw/fw.conf", text)
}

/// Pings of the LAN's host that get no answer while one forward after the other changes.
fn lost_meanwhile(shell: &mut Shell, run: &str, host: &Net) -> io::Result<f64> {
    let probe = Probe::start(Some(host.name()), TARGET, PACE)?;
    wait_until("pings flow", Duration::from_secs(5), || probe.first_answer(Instant::now() - TRAVEL).is_some());
    let start = Instant::now();
    for round in 0..CHANGES {
        policy(3 + round % 2)?;
        shell.run(run)?;
    }
    std::thread::sleep(TRAVEL);
    let end = Instant::now();
    std::thread::sleep(TRAVEL);
    Ok(probe.loss(start, end).lost as f64)
}

/// The time from a flush of the whole ruleset until our table is there again, with fw as a service
/// and the watcher beside it.
fn closed_again(shell: &mut Shell, home: &Net, ours: &Subject, rounds: u32) -> io::Result<Vec<f64>> {
    sh("mkdir /run/policy/sv; cp -r services/ifplugd_all /run/policy/sv/; ln -s ../fw /run/policy/sv/fw");
    let environment: Vec<&str> = ours.environment.split(' ').collect();
    let words = [&["env", "SVDIR=/run/policy/sv"], &environment[..], &["runsvdir", "/run/policy/sv"]].concat();
    let _services = home.spawn(&words);
    let flushed = "timeout 5 sh -c 'nft flush ruleset; until nft list chain inet netsv input; do :; done'";
    let mut out = Vec::new();
    for _ in 0..rounds {
        // The run before has ended, and the watcher has looked.
        std::thread::sleep(Duration::from_secs(1));
        out.push(ms(shell.run(flushed)?));
    }
    Ok(out)
}

/// ferm with the same firewall: from nothing, and with one forward changed.
fn ferm(shell: &mut Shell, rounds: u32) -> io::Result<(Vec<f64>, Vec<f64>)> {
    let (mut fresh, mut changed) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        fs::write("/run/policy/ferm.conf", ferm_conf(0))?;
        shell.run("nft flush ruleset")?;
        fresh.push(ms(shell.run("ferm /run/policy/ferm.conf")?));
        fs::write("/run/policy/ferm.conf", ferm_conf(1 + round % 2))?;
        changed.push(ms(shell.run("ferm /run/policy/ferm.conf")?));
    }
    Ok((fresh, changed))
}

fn ferm_conf(round: u32) -> String {
    let mut zones = String::new();
    for n in LAN..INTERFACES {
        if zone(n - LAN) != "lan" {
            let _ = writeln!(
                zones,
                "  chain INPUT interface eth{n} {{ proto udp dport (53 67) ACCEPT; proto tcp dport 53 ACCEPT;\n    \
                 proto icmp icmp-type echo-request ACCEPT; DROP; }}\n  \
                 chain FORWARD interface eth{n} {{ outerface (eth0 eth1) ACCEPT; DROP; }}"
            );
        }
    }
    let mut forwards = String::new();
    for n in 0..FORWARDS {
        let (port, to) = (port(n, round), format!("10.{LAN}.0.{}", 10 + n));
        let _ = writeln!(forwards, "  chain PREROUTING interface (eth0 eth1) proto tcp dport {port} DNAT to {to}:80;");
    }
    format!(
        "domain ip {{\n table filter {{\n  chain (INPUT FORWARD) mod conntrack ctstate (ESTABLISHED RELATED DNAT) ACCEPT;\n\
         {zones}  chain INPUT interface (eth0 eth1) {{ proto tcp dport 22 ACCEPT; proto udp dport 51820 ACCEPT;\n    \
         proto icmp icmp-type echo-request ACCEPT; DROP; }}\n  chain FORWARD interface (eth0 eth1) DROP;\n }}\n \
         table nat {{\n{forwards}  chain POSTROUTING outerface (eth0 eth1) MASQUERADE;\n }}\n}}\n"
    )
}

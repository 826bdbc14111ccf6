//! Link-local addresses on real links: ours alone, two of ours, ours beside avahi-autoipd, and ours
//! under runsv with fw.
//!
//! No package of Debian has busybox's zcip, so these tests state what its callers rely on:
//! arguments, variables, exit codes, messages. Conflicts are made with the kernel's own ARP: a host
//! gets an address and pings with it.

#![expect(
    clippy::disallowed_methods,
    reason = "copies service directories with cp -a; the clock, for what is only printed"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use testkit::{
    Cable, Lab, Net, Proc, Signal, holds_for, is_running, isolated, kill_9, pids_where, wait_for, wait_until,
};

use crate::{dnsmasq_argv, ours};

/// Longer than any step takes, also on a busy machine. A new address takes up to five seconds.
const SOON: Duration = Duration::from_secs(15);
/// A new address takes at least four seconds. An address that comes earlier was known.
const KNOWN: Duration = Duration::from_millis(3900);
/// For "nothing happens".
const QUIET: Duration = Duration::from_millis(1500);

/// Hosts on a switch.
struct World {
    a: Net,
    b: Net,
    switch: Net,
    cable: Cable,
}

/// Hosts a and b, each with eth0 in a port (p1, p2) of a switch.
fn world(lab: &Lab) -> World {
    ours(lab);
    let (a, b, switch) = (lab.net("a"), lab.net("b"), lab.net("switch"));
    switch.bridge("br0");
    let cable = lab.cable((&a, "eth0"), (&switch, "p1"));
    lab.cable((&b, "eth0"), (&switch, "p2"));
    for port in ["p1", "p2"] {
        switch.port("br0", port);
    }
    World { a, b, switch, cable }
}

/// A script that writes down its event, and does what zcip's own example does. It prints its line
/// last, so that a reader of the line sees the address, too.
fn script(lab: &Lab, name: &str) -> Script {
    let (path, out) = (lab.dir().join(format!("{name}.sh")), lab.dir().join(format!("{name}.out")));
    let text = format!(
        "#!/bin/sh\nPATH=/usr/sbin:/sbin:/usr/bin:/bin\n\
         case $1 in\n\
         config) ip addr add $ip/16 dev $interface scope link ;;\n\
         deconfig) ip addr del $ip/16 dev $interface ;;\n\
         esac\n\
         echo \"$1 $interface${{ip+ $ip}}\" >>{out}\n",
        out = out.display()
    );
    write_script(&path, &text);
    Script { path: path.to_str().unwrap().to_owned(), out }
}

/// Writes the script in another process. If this process had the file open for writing while
/// another thread forks, the file would be busy (ETXTBSY).
fn write_script(path: &Path, text: &str) {
    let done =
        Command::new("sh").args(["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""]).arg(path).arg(text).status();
    assert!(done.unwrap().success());
}

struct Script {
    path: String,
    out: PathBuf,
}

impl Script {
    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.out).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits for the `n`th line, from 1.
    #[track_caller]
    fn line(&self, n: usize, timeout: Duration) -> String {
        wait_for(&format!("line {n} of {}", self.out.display()), timeout, || self.lines().get(n - 1).cloned())
    }
}

/// The address in a line `config IFACE IP`.
#[track_caller]
fn configured(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(words[0], "config", "{line}");
    words[2].to_owned()
}

/// The link-local addresses of an interface.
fn link_local(net: &Net, interface: &str) -> Vec<String> {
    let addresses = net.addresses(interface).into_iter().filter(|a| a.starts_with("169.254."));
    addresses.map(|a| a.strip_suffix("/16").expect("a /16").to_owned()).collect()
}

#[track_caller]
fn wait_link_local(net: &Net, interface: &str, timeout: Duration) -> String {
    wait_for("a link-local address", timeout, || link_local(net, interface).pop())
}

/// Makes the kernel of a host say "`address` is mine" once, in an ARP request for an absent host.
/// Each call asks for another host: the kernel must not be looking for it already.
fn speak(net: &Net, address: &str) {
    static NOBODY: AtomicU8 = AtomicU8::new(1);
    let nobody = format!("169.254.255.{}", NOBODY.fetch_add(1, Ordering::Relaxed));
    for interface in net.ip_json(&["link", "show", "up"]).as_array().unwrap() {
        net.sysctl(&format!("net/ipv4/neigh/{}/mcast_solicit", interface["ifname"].as_str().unwrap()), "1");
    }
    net.try_run(&["ping", "-n", "-c1", "-W1", "-I", address, &nobody]);
}

/// Starts tcpdump of ARP on an interface; it captures when this returns.
fn arp_dump(net: &Net, interface: &str) -> Proc {
    let dump = net.spawn(&["tcpdump", "-i", interface, "-lntte", "arp"]);
    dump.wait_log("listening on", SOON);
    dump
}

/// Time and text of the frames in a dump that this MAC sent.
fn frames(dump: &Proc, mac: &str) -> Vec<(f64, String)> {
    let log = dump.log();
    let frame = |line: &str| {
        let (time, text) = line.split_once(' ')?;
        text.starts_with(mac).then(|| Some((time.parse().ok()?, text.to_owned())))?
    };
    // An incomplete last line is ignored.
    log.lines().filter(|_| log.ends_with('\n')).filter_map(frame).collect()
}

fn mac(net: &Net, interface: &str) -> String {
    net.ip_json(&["link", "show", "dev", interface])[0]["address"].as_str().unwrap().to_owned()
}

#[test]
fn a_script_hears_init_config_deconfig_with_the_originals_variables() {
    isolated(&[], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        let env = lab.dir().join("env.out");
        let wrapper = lab.dir().join("wrapper");
        let text = format!("#!/bin/sh\n/usr/bin/env >>{}\n. {}\n", env.display(), script.path);
        write_script(&wrapper, &text);
        let mut command = w.a.command(&["zcip", "-f", "eth0", wrapper.to_str().unwrap()]);
        command.env("ip", "not this one").env("SECRET", "1");
        let zcip = w.a.spawn_command("zcip", command);
        assert_eq!(script.line(1, SOON), "init eth0");
        let ip = configured(&script.line(2, SOON));
        assert!(ip.starts_with("169.254."), "{ip}");
        let info = w.a.ip_json(&["-4", "address", "show", "dev", "eth0"])[0]["addr_info"][0].clone();
        assert_eq!((info["local"].as_str(), info["scope"].as_str()), (Some(ip.as_str()), Some("link")));
        assert_eq!(zcip.stop().code(), Some(0));
        assert_eq!(script.lines()[2..], [format!("deconfig eth0 {ip}")]);
        assert_eq!(link_local(&w.a, "eth0"), [""; 0]);
        let env = fs::read_to_string(env).unwrap();
        assert!(!env.contains("SECRET") && !env.contains("not this one"), "{env}");
    });
}

#[test]
fn exit_codes_and_messages_are_the_originals() {
    isolated(&[], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        let run = |argv: &[&str]| {
            let output = w.a.try_run(&[&["zcip"], argv].concat());
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        for (argv, says) in [
            (&["-r", "10.0.0.1", "eth0", &script.path][..], "zcip: invalid link address\n"),
            (&["-r", "169.254.1", "eth0", &script.path], "zcip: invalid link address\n"),
            (&["-l", "169.254.1.0", "eth0", &script.path], "zcip: invalid network address\n"),
            (&["-f", "nosuch0", &script.path], "zcip: nosuch0: no interface nosuch0\n"),
        ] {
            assert_eq!(run(argv), (Some(1), says.to_owned()), "{argv:?}");
        }
        for argv in [&["eth0"][..], &["-Z", "eth0", &script.path], &[]] {
            let (code, says) = run(argv);
            assert_eq!(code, Some(1), "{argv:?}");
            assert!(says.contains("usage: zcip "), "{says}");
        }
        assert_eq!(script.lines(), [""; 0], "nothing was run");
        let failing = lab.dir().join("failing");
        write_script(&failing, "#!/bin/sh\nexit 3\n");
        let (code, says) = run(&["-f", "eth0", failing.to_str().unwrap()]);
        assert_eq!((code, says.as_str()), (Some(1), "zcip: eth0: script init failed, exitcode=3\n"));
        assert_eq!(run(&["-f", "eth0", "/no/such/script"]).0, Some(1));

        // zcip logs a `config` that fails, and goes on.
        write_script(&failing, "#!/bin/sh\n[ $1 = init ] || exit 4\n");
        let zcip = w.a.spawn(&["zcip", "-f", "eth0", failing.to_str().unwrap()]);
        zcip.wait_log("script config failed, exitcode=4", SOON);
        assert_eq!(zcip.stop().code(), Some(0));
    });
}

#[test]
fn q_ends_with_0_and_leaves_the_address_and_the_next_one_goes_on_with_it() {
    isolated(&[], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        let state = lab.make_dir("state");
        let argv = ["zcip", "-f", "-q", "-r", "169.254.7.9", "--state", state.to_str().unwrap(), "eth0", &script.path];
        w.a.run(&argv);
        assert_eq!(script.lines(), ["init eth0", "config eth0 169.254.7.9"]);
        assert_eq!(link_local(&w.a, "eth0"), ["169.254.7.9"]);
        assert_eq!(value(&state.join("ipv4ll_eth0.ipconf"), "ip").as_deref(), Some("169.254.7.9"));
        assert!(w.b.try_run(&["ip", "address", "add", "169.254.1.1/16", "dev", "eth0"]).status.success());
        assert!(w.b.pings("169.254.7.9"));

        // The address is still on the interface: zcip announces it without a probe.
        let dump = arp_dump(&w.b, "eth0");
        let zcip = w.a.spawn(&[&argv[..2], &argv[5..]].concat());
        zcip.wait_log("169.254.7.9 is ours already", SOON);
        let mac = mac(&w.a, "eth0");
        let first = wait_for("an announcement", SOON, || frames(&dump, &mac).into_iter().next());
        assert!(first.1.contains("who-has 169.254.7.9 tell 169.254.7.9"), "{first:?}");
        drop(zcip);
    });
}

#[test]
fn without_f_it_goes_to_the_background_after_init() {
    isolated(&[], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        w.a.run(&["zcip", "eth0", &script.path]);
        assert_eq!(script.lines()[0], "init eth0");
        let is_it = |argv: &[&str]| argv.first() == Some(&"zcip") && argv.last() == Some(&script.path.as_str());
        // The process that is not the runner of the script.
        let comm = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let pid = pids_where(is_it).into_iter().find(|pid| comm(pid) == "zcip\n").unwrap();
        let ip = configured(&script.line(2, SOON));
        w.a.run(&["sh", "-c", &format!("kill {pid}")]);
        wait_until("its end", SOON, || !is_running(pid));
        assert_eq!(script.lines()[2..], [format!("deconfig eth0 {ip}")]);
    });
}

#[test]
fn that_an_address_cannot_be_remembered_is_said_once() {
    isolated(&[], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        let state = lab.dir().join("state");
        fs::write(&state, "no directory").unwrap();
        let zcip = w.a.spawn(&["zcip", "-f", "--state", state.to_str().unwrap(), "eth0", &script.path]);
        let ip = configured(&script.line(2, SOON));
        for again in [4, 6] {
            zcip.signal(Signal::SIGUSR1);
            assert_eq!(configured(&script.line(again, SOON)), ip);
        }
        assert_eq!(zcip.log().matches("/state/ipv4ll_eth0.ipconf: ").count(), 1, "{}", zcip.log());
        zcip.stop();
    });
}

#[test]
fn a_new_address_is_probed_for_three_times_and_announced_twice_and_a_known_one_is_usable_sooner() {
    isolated(&["tcpdump"], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        let state = lab.make_dir("state");
        let argv = ["zcip", "-f", "--state", state.to_str().unwrap(), "eth0", &script.path];
        let mac = mac(&w.a, "eth0");
        let dump = arp_dump(&w.b, "eth0");
        let start = Instant::now();
        let zcip = w.a.spawn(&argv);
        let ip = configured(&script.line(2, SOON));
        println!("a new address: {:?}", start.elapsed());
        let heard = wait_for("five frames", SOON, || Some(frames(&dump, &mac)).filter(|frames| frames.len() >= 5));
        let probe = format!("Request who-has {ip} tell 0.0.0.0");
        let announcement = format!("Request who-has {ip} tell {ip}");
        for ((_, text), want) in heard.iter().zip([&probe, &probe, &probe, &announcement, &announcement]) {
            assert!(text.contains(want.as_str()) && text.contains("ff:ff:ff:ff:ff:ff"), "{text}: not {want}");
        }
        // RFC 3927 section 9 sets the earliest time. The load of the machine decides how much later
        // it is.
        let gaps: Vec<f64> = heard.windows(2).map(|w| w[1].0 - w[0].0).collect();
        for (gap, least) in gaps.iter().zip([1.0, 1.0, 2.0, 2.0]) {
            assert!(*gap > least - 0.1, "{gaps:?}");
        }
        let remembered = state.join("ipv4ll_eth0.ipconf");
        assert_eq!(value(&remembered, "ip").as_ref(), Some(&ip));
        zcip.stop();
        drop(dump);

        let dump = arp_dump(&w.b, "eth0");
        let start = Instant::now();
        let zcip = w.a.spawn(&argv);
        assert_eq!(configured(&script.line(5, KNOWN)), ip);
        println!("a known address: {:?}", start.elapsed());
        let heard = wait_for("four frames", SOON, || Some(frames(&dump, &mac)).filter(|frames| frames.len() >= 4));
        assert!(heard[..3].iter().all(|(_, text)| text.contains(&probe)), "{heard:?}");
        zcip.stop();

        // zcip ignores a record that is not its own, and does not wait.
        let argv = [&argv[..4], &["-r", &ip], &argv[4..]].concat();
        fs::remove_file(&remembered).unwrap();
        w.a.run(&["mkfifo", remembered.to_str().unwrap()]);
        let zcip = w.a.spawn(&argv);
        assert_eq!(configured(&script.line(8, SOON)), ip);
        zcip.stop();
        fs::remove_file(&remembered).unwrap();
        fs::write(&remembered, "let cfg=cfg+1\nif[$cfg]=eth0\nip[$cfg]=$(reboot)\n").unwrap();
        let zcip = w.a.spawn(&argv);
        assert_eq!(configured(&script.line(11, SOON)), ip);
        zcip.stop();
        assert_eq!(value(&remembered, "ip").as_ref(), Some(&ip), "written anew");
    });
}

#[test]
fn two_that_want_one_address_end_with_two() {
    isolated(&[], |lab| {
        let w = world(lab);
        let (first, second) = (script(lab, "a"), script(lab, "b"));
        let zcip = |net: &Net, script: &Script| net.spawn(&["zcip", "-f", "-r", "169.254.7.7", "eth0", &script.path]);
        let daemons = (zcip(&w.a, &first), zcip(&w.b, &second));
        let (one, other) = (configured(&first.line(2, SOON)), configured(&second.line(2, SOON)));
        assert_ne!(one, other);
        assert!(w.a.pings(&other) && w.b.pings(&one));
        drop(daemons);
    });
}

#[test]
fn an_address_in_use_is_defended_once_and_then_given_up() {
    isolated(&["tcpdump"], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        let zcip = w.a.spawn(&["zcip", "-f", "-r", "169.254.7.7", "eth0", &script.path]);
        assert_eq!(script.line(2, SOON), "config eth0 169.254.7.7");
        let dump = arp_dump(&w.b, "eth0");
        w.b.address("eth0", "169.254.7.7/16");
        speak(&w.b, "169.254.7.7");
        zcip.wait_log("used 169.254.7.7: defended", SOON);
        let mac = mac(&w.a, "eth0");
        let defence = |(_, text): &(f64, String)| text.contains("who-has 169.254.7.7 tell 169.254.7.7");
        wait_until("the defence", SOON, || frames(&dump, &mac).iter().any(defence));
        assert_eq!(link_local(&w.a, "eth0"), ["169.254.7.7"]);
        speak(&w.b, "169.254.7.7");
        assert_eq!(script.line(3, SOON), "deconfig eth0 169.254.7.7");
        let other = configured(&script.line(4, SOON));
        assert_ne!(other, "169.254.7.7");
        assert!(w.b.pings(&other));
    });
}

/// Starts avahi-autoipd on eth0, which tries `address` first.
fn avahi(lab: &Lab, net: &Net, address: &str) -> (Proc, PathBuf) {
    let (path, out) = (lab.dir().join("avahi.sh"), lab.dir().join("avahi.out"));
    let text = format!(
        "#!/bin/sh\nPATH=/usr/sbin:/sbin:/usr/bin:/bin\n\
         case $1 in BIND) ip addr add $3/16 dev $2 scope link ;; *) ip addr del $3/16 dev $2 ;; esac\n\
         echo \"$1 $3\" >>{}\n",
        out.display()
    );
    write_script(&path, &text);
    let argv = ["avahi-autoipd", "--no-drop-root", "--no-chroot", "-S", address, "-t", path.to_str().unwrap(), "eth0"];
    (net.spawn(&argv), out)
}

#[test]
fn beside_avahi_each_keeps_its_address_and_the_other_takes_another() {
    isolated(&["avahi-autoipd"], |lab| {
        let w = world(lab);
        // Ours is first: avahi probes, and learns that the address is taken.
        let script = script(lab, "a");
        let zcip = w.a.spawn(&["zcip", "-f", "-r", "169.254.7.7", "eth0", &script.path]);
        assert_eq!(script.line(2, SOON), "config eth0 169.254.7.7");
        let (avahi, _) = avahi(lab, &w.b, "169.254.7.7");
        let theirs = wait_link_local(&w.b, "eth0", SOON);
        assert_ne!(theirs, "169.254.7.7");
        assert!(w.b.pings("169.254.7.7") && w.a.pings(&theirs));
        assert_eq!(script.lines().len(), 2, "kept");
        zcip.stop();

        // avahi is first.
        let zcip = w.a.spawn(&["zcip", "-f", "-r", &theirs, "eth0", &script.path]);
        zcip.wait_log(&format!("has {theirs}"), SOON);
        let other = configured(&script.line(5, SOON));
        assert_ne!(other, theirs);
        assert_eq!(link_local(&w.b, "eth0"), [theirs.as_str()]);
        assert!(w.b.pings(&other));
        drop(avahi);
    });
}

#[test]
fn joined_to_avahis_link_with_the_same_address_one_gives_way() {
    isolated(&["avahi-autoipd"], |lab| {
        let w = world(lab);
        w.switch.ip(&["link", "set", "p2", "nomaster"]);
        let script = script(lab, "a");
        let zcip = w.a.spawn(&["zcip", "-f", "-r", "169.254.7.7", "eth0", &script.path]);
        let (avahi, out) = avahi(lab, &w.b, "169.254.7.7");
        assert_eq!(script.line(2, SOON), "config eth0 169.254.7.7");
        assert_eq!(wait_link_local(&w.b, "eth0", SOON), "169.254.7.7");

        w.switch.ip(&["link", "set", "p2", "master", "br0"]);
        speak(&w.b, "169.254.7.7");
        zcip.wait_log("used 169.254.7.7: defended", SOON);
        // Ours has announced its address, and a station that hears a conflict twice gives way. Both
        // defend, so one of the two must give way.
        let moved = || [link_local(&w.a, "eth0"), link_local(&w.b, "eth0")].concat().iter().any(|a| a != "169.254.7.7");
        wait_until("one has moved", SOON, || {
            if !moved() {
                speak(&w.b, "169.254.7.7");
            }
            moved()
        });
        let settled =
            || Some((link_local(&w.a, "eth0").pop()?, link_local(&w.b, "eth0").pop()?)).filter(|(a, b)| a != b);
        let (ours, theirs) = wait_for("two addresses", SOON, settled);
        println!("ours {ours}, avahi's {theirs}: {}", fs::read_to_string(&out).unwrap());
        wait_until("they reach each other", SOON, || w.a.pings(&theirs) && w.b.pings(&ours));
        drop(avahi);
    });
}

#[test]
fn a_lost_link_costs_the_address_and_its_return_brings_it_back_unless_somebody_took_it() {
    isolated(&["tcpdump"], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        let zcip = w.a.spawn(&["zcip", "-f", "eth0", &script.path]);
        let ip = configured(&script.line(2, SOON));
        w.cable.pull();
        assert_eq!(script.line(3, SOON), format!("deconfig eth0 {ip}"));
        let dump = arp_dump(&w.b, "eth0");
        w.cable.plug();
        assert_eq!(script.line(4, KNOWN), format!("config eth0 {ip}"));
        let mac = mac(&w.a, "eth0");
        let probe = format!("who-has {ip} tell 0.0.0.0");
        assert_eq!(frames(&dump, &mac).iter().filter(|(_, text)| text.contains(&probe)).count(), 3);

        w.cable.pull();
        assert_eq!(script.line(5, SOON), format!("deconfig eth0 {ip}"));
        w.b.address("eth0", &format!("{ip}/16"));
        w.cable.plug();
        zcip.wait_log(&format!("has {ip}"), SOON);
        let other = configured(&script.line(6, SOON));
        assert_ne!(other, ip);
        assert!(w.b.pings(&other));
    });
}

#[test]
fn on_a_dead_link_it_waits() {
    isolated(&[], |lab| {
        let w = world(lab);
        w.cable.pull();
        let script = script(lab, "a");
        let _zcip = w.a.spawn(&["zcip", "-f", "-r", "169.254.7.7", "eth0", &script.path]);
        assert_eq!(script.line(1, SOON), "init eth0");
        holds_for("no address", QUIET, || script.lines().len() == 1);
        w.cable.plug();
        assert_eq!(script.line(2, KNOWN), "config eth0 169.254.7.7");
    });
}

#[test]
fn usr1_looks_again_and_usr2_gives_the_address_up() {
    isolated(&[], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        let zcip = w.a.spawn(&["zcip", "-f", "-r", "169.254.7.7", "eth0", &script.path]);
        let (config, deconfig) = ("config eth0 169.254.7.7", "deconfig eth0 169.254.7.7");
        assert_eq!(script.line(2, SOON), config);
        zcip.signal(Signal::SIGUSR1);
        assert_eq!([script.line(3, SOON), script.line(4, SOON)], [deconfig, config]);
        zcip.signal(Signal::SIGUSR2);
        assert_eq!(script.line(5, SOON), deconfig);
        holds_for("no address", QUIET, || script.lines().len() == 5);
        zcip.signal(Signal::SIGUSR1);
        assert_eq!(script.line(6, SOON), config);
    });
}

#[test]
fn with_routable_withdraw_it_is_there_only_while_nothing_better_is() {
    isolated(&[], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        let argv = ["zcip", "-f", "-r", "169.254.7.7", "--with-routable", "withdraw", "eth0", &script.path];
        let _zcip = w.a.spawn(&argv);
        let (config, deconfig) = ("config eth0 169.254.7.7", "deconfig eth0 169.254.7.7");
        assert_eq!(script.line(2, SOON), config);
        w.a.address("eth0", "192.0.2.9/24");
        assert_eq!(script.line(3, SOON), deconfig);
        w.a.ip(&["address", "del", "192.0.2.9/24", "dev", "eth0"]);
        assert_eq!(script.line(4, KNOWN), config);
        // An address on another interface does not concern zcip.
        w.a.address("lo", "192.0.2.10/32");
        holds_for("kept", QUIET, || script.lines().len() == 4);
    });
}

#[test]
fn an_address_that_somebody_removes_is_taken_again() {
    isolated(&[], |lab| {
        let w = world(lab);
        let script = script(lab, "a");
        let zcip = w.a.spawn(&["zcip", "-v", "-r", "169.254.7.7", "eth0", &script.path]);
        assert_eq!(script.line(2, SOON), "config eth0 169.254.7.7");
        zcip.wait_log("169.254.7.7 is on the interface", SOON);
        // The deconfig of Debian's script for udhcpc does this.
        w.a.ip(&["-4", "address", "flush", "dev", "eth0"]);
        assert_eq!(script.line(3, KNOWN), "deconfig eth0 169.254.7.7");
        assert_eq!(script.line(4, KNOWN), "config eth0 169.254.7.7");
        assert_eq!(link_local(&w.a, "eth0"), ["169.254.7.7"]);
        assert!(zcip.log().contains("somebody has removed 169.254.7.7 from the interface"), "{}", zcip.log());
    });
}

#[test]
fn two_interfaces_of_one_machine_never_have_the_same_address() {
    isolated(&[], |lab| {
        let w = world(lab);
        // On another link, where no host would object. The MAC is the same, and so is the sequence
        // of addresses.
        let _other = lab.cable((&w.a, "eth1"), (&w.b, "lan1"));
        w.a.ip(&["link", "set", "eth1", "address", &mac(&w.a, "eth0")]);
        let (first, second) = (script(lab, "0"), script(lab, "1"));
        let daemons = [("eth0", &first), ("eth1", &second)].map(|(i, s)| w.a.spawn(&["zcip", "-f", i, &s.path]));
        let last = |script: &Script| script.lines().last().filter(|l| l.starts_with("config")).map(|l| configured(l));
        let settled = || Some((last(&first)?, last(&second)?)).filter(|(one, other)| one != other);
        let (one, other) = wait_for("two addresses", SOON, settled);
        let now = || (link_local(&w.a, "eth0"), link_local(&w.a, "eth1"));
        assert_eq!(now(), (vec![one.clone()], vec![other.clone()]));
        holds_for("both are content", QUIET, || now() == (vec![one.clone()], vec![other.clone()]));
        drop(daemons);

        // zcip does not even try an address that is already there.
        w.a.ip(&["address", "flush", "dev", "eth0"]);
        w.a.ip(&["address", "flush", "dev", "eth1"]);
        w.a.address("eth1", "169.254.7.7/16");
        let third = script(lab, "2");
        let _zcip = w.a.spawn(&["zcip", "-f", "-r", "169.254.7.7", "eth0", &third.path]);
        assert_ne!(configured(&third.line(2, SOON)), "169.254.7.7");
    });
}

#[test]
fn an_interface_that_goes_ends_a_script_and_a_name_of_15_characters_works() {
    isolated(&[], |lab| {
        ours(lab);
        let (a, b) = (lab.net("a"), lab.net("b"));
        let name = "fifteen-letters";
        lab.cable((&a, name), (&b, "lan"));
        let script = script(lab, "a");
        let mut zcip = a.spawn(&["zcip", "-f", "-r", "169.254.7.7", name, &script.path]);
        assert_eq!(script.line(2, SOON), format!("config {name} 169.254.7.7"));
        a.ip(&["link", "del", name]);
        assert_eq!(zcip.wait(SOON).unwrap().code(), Some(1));
        assert!(zcip.log().contains("interface is gone"), "{}", zcip.log());
        assert_eq!(script.lines()[2..], [format!("deconfig {name} 169.254.7.7")]);
    });
}

#[test]
fn two_interfaces_on_one_link_do_not_take_each_other_for_strangers() {
    isolated(&[], |lab| {
        let w = world(lab);
        lab.cable((&w.a, "eth1"), (&w.switch, "p3"));
        w.switch.ip(&["link", "set", "p3", "master", "br0"]);
        let scripts = [script(lab, "0"), script(lab, "1")];
        let start = |interface, script: &Script| w.a.spawn(&["zcip", "-f", interface, &script.path]);
        let daemons = [start("eth0", &scripts[0]), start("eth1", &scripts[1])];
        let addresses = scripts.each_ref().map(|script| configured(&script.line(2, SOON)));
        assert_ne!(addresses[0], addresses[1]);
        // All frames leave by the first route, with either address, and the other interface hears
        // them. A second one would cost the address.
        for address in addresses.iter().chain(&addresses) {
            speak(&w.a, address);
        }
        wait_until("the other host is heard", SOON, || {
            w.b.try_run(&["ip", "address", "add", "169.254.1.1/16", "dev", "eth0"]).status.success()
        });
        assert!(addresses.iter().all(|address| w.b.pings(address)));
        for (script, daemon) in scripts.iter().zip(&daemons) {
            assert_eq!(script.lines().len(), 2, "{}", daemon.log());
            assert!(!daemon.log().contains("defended"), "{}", daemon.log());
        }
    });
}

/// The value of a key in a record file.
fn value(path: &Path, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|l| Some(l.strip_prefix(&format!("{key}[$cfg]='"))?.strip_suffix('\'')?.to_owned()))
}

#[test]
fn with_ipconf_an_interface_may_come_and_go_and_change_its_mac() {
    isolated(&["tcpdump"], |lab| {
        ours(lab);
        let (a, b) = (lab.net("a"), lab.net("b"));
        let dir = lab.make_dir("dynamic");
        let record = dir.join("zcip_eth0.ipconf");
        let zcip = a.spawn(&["zcip", "-f", "--ipconf", dir.to_str().unwrap(), "eth0"]);
        zcip.wait_log("no interface eth0: waiting for it", SOON);
        lab.cable((&a, "eth0"), (&b, "lan"));
        let ip = wait_for("the record", SOON, || value(&record, "ip"));
        let want = [("if", "eth0"), ("scope", "link"), ("gw", ""), ("ipmask", &format!("{ip}/16"))];
        for (key, want) in want {
            assert_eq!(value(&record, key).as_deref(), Some(want), "{key}");
        }
        assert_eq!(value(&record, "owner"), Some(zcip.pid().to_string()));

        // zcip tells neighbours that have remembered the old MAC.
        let dump = arp_dump(&b, "lan");
        a.ip(&["link", "set", "eth0", "address", "02:00:00:00:99:99"]);
        wait_until("an announcement", SOON, || {
            frames(&dump, "02:00:00:00:99:99").iter().any(|(_, text)| text.contains(&format!("tell {ip}")))
        });
        assert_eq!(value(&record, "ip").as_deref(), Some(ip.as_str()));

        a.ip(&["link", "del", "eth0"]);
        wait_until("withdrawn", SOON, || !record.exists());
        lab.cable((&a, "eth0"), (&b, "lan"));
        assert_eq!(wait_for("the record", SOON, || value(&record, "ip")), ip, "tried first");
        assert_eq!(zcip.stop().code(), Some(0));
        assert!(!record.exists());
    });
}

/// Service directories below runsvdir, with fw.
struct House {
    dir: PathBuf,
    net: Net,
    init: Option<Proc>,
}

impl House {
    fn new(lab: &Lab, net: &Net, services: &[(&str, &str)]) -> House {
        let dir = lab.make_dir("house");
        for sub in ["service", "dynamic", "log", "etc"] {
            fs::create_dir(dir.join(sub)).unwrap();
        }
        for (model, name) in services {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("services").join(model);
            let to = dir.join("service").join(name);
            let done = Command::new("cp").args(["-a", "--no-preserve=ownership"]).arg(from).arg(to).status();
            assert!(done.unwrap().success());
        }
        fs::write(dir.join("service/fw/fw.conf"), "firewall=no\nforward=no\n").unwrap();
        House { dir, net: net.clone(), init: None }
    }

    fn command(&self, argv: &[&str]) -> Command {
        let mut command = self.net.command(argv);
        let below = |name: &str| self.dir.join(name);
        command.env("SVDIR", below("service")).env("FW_DYNAMIC", below("dynamic"));
        command.env("LOG_DIR", below("log")).env("FW_ETC", below("etc"));
        command
    }

    fn start(&mut self) {
        let command = self.command(&["runsvdir", self.dir.join("service").to_str().unwrap()]);
        self.init = Some(self.net.spawn_command("runsvdir", command));
    }

    #[track_caller]
    fn sv(&self, argv: &[&str]) {
        let output = self.command(&[&["sv"], argv].concat()).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "sv {argv:?}: {output:?}");
    }

    fn pid(&self, service: &str) -> Option<i32> {
        let path = self.dir.join("service").join(service).join("supervise/pid");
        let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
        is_running(pid).then_some(pid)
    }
}

impl Drop for House {
    /// HUP makes runsvdir end its services.
    fn drop(&mut self) {
        if let Some(init) = &mut self.init {
            init.signal(Signal::SIGHUP);
            init.wait(SOON);
        }
    }
}

/// The source address that the kernel would choose, if it has a route.
fn source_to(net: &Net, target: &str) -> Option<String> {
    let output = net.try_run(&["ip", "route", "get", target]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().skip_while(|word| *word != "src").nth(1).map(str::to_owned)
}

#[test]
fn as_a_service_fw_gives_the_address_with_scope_link_and_a_kill_leaves_no_gap() {
    isolated(&[], |lab| {
        let w = world(lab);
        let mut house = House::new(lab, &w.a, &[("zcip_if", "zcip_eth0"), ("fw", "fw")]);
        house.start();
        let ip = wait_link_local(&w.a, "eth0", SOON);
        let info = w.a.ip_json(&["-4", "address", "show", "dev", "eth0"])[0]["addr_info"][0].clone();
        assert_eq!((info["prefixlen"].as_u64(), info["scope"].as_str()), (Some(16), Some("link")), "{info}");
        assert_eq!(w.a.default_routes(), []);
        wait_until("the route", SOON, || source_to(&w.a, "169.254.9.9").as_ref() == Some(&ip));
        w.b.address("eth0", "169.254.1.1/16");
        assert!(w.b.pings(&ip));
        assert_eq!(value(&house.dir.join("service/zcip_eth0/state/ipv4ll_eth0.ipconf"), "ip").as_ref(), Some(&ip));

        let monitor = w.a.spawn(&["ip", "monitor", "address"]);
        for _ in 0..3 {
            let old = wait_for("zcip runs", SOON, || house.pid("zcip_eth0"));
            assert!(kill_9(old));
            let record = house.dir.join("dynamic/zcip_eth0.ipconf");
            let owner = || value(&record, "owner").and_then(|pid| pid.parse::<i32>().ok());
            wait_until("the next one has the record", SOON, || {
                assert_eq!(value(&record, "ip").as_ref(), Some(&ip));
                owner().is_some_and(|pid| pid != old && house.pid("zcip_eth0") == Some(pid))
            });
        }
        assert_eq!(link_local(&w.a, "eth0"), [ip.as_str()]);
        house.sv(&["-w10", "down", "zcip_eth0"]);
        wait_until("the address is gone", SOON, || link_local(&w.a, "eth0").is_empty());
        wait_until("the monitor has seen it", SOON, || monitor.log().contains("Deleted"));
        assert_eq!(monitor.log().matches("Deleted").count(), 1, "{}", monitor.log());
    });
}

#[test]
fn beside_dhcp_it_stands_back_and_is_there_when_the_server_is_not() {
    isolated(&["dnsmasq"], |lab| {
        let w = world(lab);
        let mut house = House::new(lab, &w.a, &[("zcip_if", "zcip_eth0"), ("dhcp_if", "dhcp_eth0"), ("fw", "fw")]);
        house.start();
        // There is no DHCP server: the host has a link-local address.
        let ip = wait_link_local(&w.a, "eth0", SOON);
        assert_eq!(w.a.addresses("eth0").len(), 1);

        // With a server the host keeps the link-local address too, and sends nothing routable with
        // it.
        w.b.address("eth0", "192.0.2.1/24");
        let server = w.b.spawn(&dnsmasq_argv("eth0", &["--dhcp-range=192.0.2.10,192.0.2.20,1h"]));
        wait_until("a default route", SOON, || !w.a.default_routes().is_empty());
        let lease = w.a.addresses("eth0").into_iter().find(|a| a.starts_with("192.0.2.")).unwrap();
        let lease = lease.strip_suffix("/24").unwrap().to_owned();
        assert_eq!(link_local(&w.a, "eth0"), [ip.as_str()], "kept");
        for target in ["192.0.2.1", "192.0.2.77", "198.51.100.1", "8.8.8.8"] {
            assert_eq!(source_to(&w.a, target).as_ref(), Some(&lease), "{target}");
        }
        assert_eq!(source_to(&w.a, "169.254.9.9").as_ref(), Some(&ip));
        assert!(w.a.default_routes().iter().all(|(_, gateway, _)| gateway == "192.0.2.1"));
        // The same holds where no route says which source to take.
        w.a.ip(&["route", "add", "203.0.113.0/24", "via", "192.0.2.1", "dev", "eth0"]);
        assert_eq!(source_to(&w.a, "203.0.113.1").as_ref(), Some(&lease));

        // The lease goes, and the link-local address is left.
        house.sv(&["-w10", "down", "dhcp_eth0"]);
        wait_until("the lease is gone", SOON, || w.a.addresses("eth0").len() == 1);
        assert_eq!(link_local(&w.a, "eth0"), [ip.as_str()]);
        assert_eq!(source_to(&w.a, "169.254.9.9").as_ref(), Some(&ip));
        drop(server);
    });
}

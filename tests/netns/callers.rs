//! The programs that call udhcpc today, with their own command lines. Debian's udhcpc runs first
//! and ours after it. Then both are compared: every variable of every event, the caller's own
//! variables included, and every packet, byte by byte.
//!
//! [`Packet::parse`] and [`same`] leave the intended differences out by name; docs/compat.md has
//! them.

use std::fs;
use std::path::Path;

use testkit::{Lab, Signal, is_running, isolated, send, wait_for, wait_until};

use crate::capture::{Capture, Packet, RELEASE, REQUEST};
use crate::dhcp::{SOON, World, both, events, exit_code, names, script, world};
use crate::dnsmasq_argv;

/// A caller, its command line, and what the test then does with the client.
struct Caller<'a> {
    /// Variables that the caller has set. More than PATH reaches the script.
    env: &'a [&'a str],
    /// All arguments except the script, which is the test's own.
    args: &'a [&'a str],
    pidfile: Option<&'a str>,
    life: Life,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    /// The client ends by itself with a lease.
    Quits,
    /// The client stays in the foreground; it is renewed, then it gets TERM.
    Foreground,
    /// The caller gets control back when the client is bound. The client lives on, is renewed, and
    /// gets TERM.
    Background,
    /// The same, but the client ends as with Debian's ifdown: USR2, then TERM.
    BackgroundUsr2,
}

/// What a run has left behind.
#[derive(Debug)]
struct Trace {
    /// Events and their variables, in order.
    events: Vec<Vec<String>>,
    packets: Vec<Packet>,
}

fn run(lab: &Lab, w: &World, client: &str, name: &str, caller: &Caller) -> Trace {
    let (script, out) = script(lab, name);
    let capture = Capture::start(&w.isp);
    let argv =
        [&["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"], caller.env, &[client], caller.args, &["-s", &script]];
    let argv = argv.concat();
    let last = |want: &str| wait_until(want, SOON, || names(&out).last().is_some_and(|e| e == want));
    let mut foreground = None;
    if caller.life == Life::Foreground {
        foreground = Some(w.home.spawn(&argv));
    } else {
        assert_eq!(exit_code(&w.home, &argv), 0, "{name}");
    }
    last("bound");
    capture.wait(REQUEST, 0);
    if caller.life != Life::Quits {
        let pidfile = Path::new(caller.pidfile.unwrap());
        let read = || fs::read_to_string(pidfile).ok()?.trim().parse::<i32>().ok().filter(|pid| is_running(*pid));
        let pid = wait_for("the pid in its file", SOON, read);
        assert!(foreground.as_ref().is_none_or(|proc| proc.pid() == pid), "{name}: the foreground is {pid}");
        let so_far = capture.packets().len();
        send(pid, Signal::SIGUSR1);
        last("renew");
        capture.wait(REQUEST, so_far);
        if caller.life == Life::BackgroundUsr2 {
            send(pid, Signal::SIGUSR2);
            last("deconfig");
        }
        send(pid, Signal::SIGTERM);
        if let Some(mut proc) = foreground {
            assert!(proc.wait(SOON).is_some_and(|status| status.success()), "{name}: TERM ends it with 0");
        }
        wait_until("its end", SOON, || !is_running(pid));
        if caller.args.contains(&"-R") || caller.life == Life::BackgroundUsr2 {
            capture.wait(RELEASE, so_far);
            assert_eq!(names(&out).last().map(String::as_str), Some("deconfig"), "{name}");
        }
    }
    assert!(caller.pidfile.is_none_or(|file| !Path::new(file).exists()), "{name}: the pidfile goes with the process");
    let mut packets = capture.packets();
    // On a machine under load a client may have to send a packet twice.
    packets.dedup();
    if name == "original" {
        // udhcpc loses an answer that arrives before it has closed the socket of the request. It
        // asks again by broadcast three seconds later.
        packets.dedup_by(|next, first| next.is_renewal() && first.is_renewal());
    }
    Trace { events: events(&out).into_iter().map(timeless).collect(), packets }
}

/// The variables of an event. dnsmasq sends another T1 and T2 (options 58, 59) at each renewal.
fn timeless(mut event: Vec<String>) -> Vec<String> {
    for line in event.iter_mut().filter(|line| line.starts_with("opt58=") || line.starts_with("opt59=")) {
        line.truncate("opt58=".len());
    }
    event
}

/// Runs the original first, then ours, each against a dnsmasq that offers what home routers offer
/// and what their users ask for.
fn same(lab: &Lab, caller: &Caller) {
    let w = world(lab);
    let mut argv = dnsmasq_argv("lan", &["--dhcp-range=192.0.2.10,192.0.2.20,255.255.255.0,1h"]);
    argv.extend(["--dhcp-authoritative", "--dhcp-option=15,example.org", "--dhcp-option=42,192.0.2.3"]);
    argv.extend(["--dhcp-option=6,192.0.2.1,192.0.2.2", "--dhcp-option=119,a.example,b.example"]);
    argv.extend(["--dhcp-option=121,10.20.0.0/16,192.0.2.9,0.0.0.0/0,192.0.2.1", "--dhcp-option=vendor:router,1,3"]);
    argv.extend(["--dhcp-option=212,00:20:20:01:0d:b8:00:00:00:00:00:00:00:00:00:00:00:00:c0:00:02:01"]);
    let server = w.isp.spawn(&argv);
    server.wait_log("DHCP, IP range", SOON);
    let [original, ours] = both(lab);
    let (original, ours) = (run(lab, &w, &original, "original", caller), run(lab, &w, &ours, "ours", caller));
    assert!(original.events.iter().any(|e| e[0] == "EVENT=bound" && e.len() > 10), "{original:#?}");
    assert_eq!(original.events, ours.events, "variables");
    let kinds = |trace: &Trace| trace.packets.iter().map(Packet::kind).collect::<Vec<_>>();
    assert_eq!(kinds(&original), kinds(&ours), "packets");
    for (one, other) in original.packets.iter().zip(&ours.packets) {
        assert!(other.secs <= 1, "nothing had to be sent late: {other:?}");
        assert_eq!(*one, Packet { secs: one.secs, ..other.clone() }, "packet of type {}", one.kind());
    }
}

const TOOLS: &[&str] = &["dnsmasq", "udhcpc"];
/// OpenWrt, netifd/proto/dhcp.sh of 2022 and earlier. Without `clientid` it passes -C. The
/// variables of the protocol handler are the script's.
#[test]
fn openwrts_netifd_of_many_years() {
    isolated(TOOLS, |lab| {
        let pidfile = "/var/run/udhcpc-eth0.pid";
        let env = ["INTERFACE=wan", "IFACE6RD=wan_6", "ZONE=wan", "ZONE6RD=wan", "MTU6RD=1280", "IFACE6RD_DELEGATE=0"];
        let args = ["-p", pidfile, "-f", "-t", "0", "-i", "eth0", "-x", "hostname:OpenWrt", "-C", "-R", "-O", "121"];
        same(lab, &Caller { env: &env, args: &args, pidfile: Some(pidfile), life: Life::Foreground });
    });
}

/// The same script of 2025. By default the client id is a DUID. All settings that add something to
/// the command line are set.
#[test]
fn openwrts_netifd_of_today_with_all_its_settings() {
    isolated(TOOLS, |lab| {
        let pidfile = "/var/run/udhcpc-eth0.pid";
        let env = ["INTERFACE=wan", "CUSTOMROUTES=10.9.0.0/16 10.8.0.0/16"];
        let mut args = vec!["-p", pidfile, "-f", "-t", "0", "-i", "eth0", "-r", "192.0.2.15", "-x", "hostname:OpenWrt"];
        args.extend(["-V", "router", "-x", "0x3d:ff00000002000300010200000000aa", "-o", "-B", "-R"]);
        args.extend(["-O", "1", "-O", "router", "-O", "0x06", "-x", "0x4d:0568656c6c6f", "-O", "212", "-O", "121"]);
        same(lab, &Caller { env: &env, args: &args, pidfile: Some(pidfile), life: Life::Foreground });
    });
}

/// Alpine: ifupdown-ng's executor; busybox's ifup makes the same call.
#[test]
fn alpines_ifupdown() {
    isolated(TOOLS, |lab| {
        let pidfile = "/var/run/udhcpc.eth0.pid";
        let env = ["IFACE=eth0", "PHASE=create", "INTERFACES_FILE=/etc/network/interfaces", "IF_METRIC=5", "VERBOSE="];
        let args = ["-b", "-R", "-p", pidfile, "-i", "eth0", "-x", "hostname:alpine"];
        same(lab, &Caller { env: &env, args: &args, pidfile: Some(pidfile), life: Life::Background });
    });
}

/// Debian: ifupdown's dhcp method where dhclient is not installed.
#[test]
fn debians_ifupdown() {
    isolated(TOOLS, |lab| {
        let pidfile = "/run/udhcpc.eth0.pid";
        let mut env = vec!["IFACE=eth0", "LOGICAL=eth0", "ADDRFAM=inet", "METHOD=dhcp", "CLASS=auto", "MODE=start"];
        env.extend(["PHASE=up", "VERBOSITY=0", "IF_HOSTNAME=debian", "IF_METRIC=100"]);
        let args = ["-n", "-p", pidfile, "-i", "eth0", "-x", "hostname:debian"];
        same(lab, &Caller { env: &env, args: &args, pidfile: Some(pidfile), life: Life::BackgroundUsr2 });
    });
}

/// Alpine's initramfs (mkinitfs), and the many scripts that make the same call with -n.
#[test]
fn initramfs_scripts() {
    isolated(TOOLS, |lab| {
        same(lab, &Caller { env: &[], args: &["-i", "eth0", "-f", "-q"], pidfile: None, life: Life::Quits });
    });
}

/// The same without -n, and with long options: NixOS's initrd.
#[test]
fn initrd_with_long_options() {
    isolated(TOOLS, |lab| {
        let args = ["--quit", "--now", "-i", "eth0", "-O", "staticroutes"];
        same(lab, &Caller { env: &[], args: &args, pidfile: None, life: Life::Quits });
    });
}

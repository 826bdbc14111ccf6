//! The cage around each daemon: /proc shows it, everything still works inside it, and scripts run
//! outside of it.
//!
//! crates/netd/tests/cage.rs tries what the cage keeps out of reach.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testkit::dhcpd::{Config, Dhcpd, MessageType};
use testkit::{Cable, Lab, Net, Proc, Signal, is_running, isolated, kill_9, pids_where, wait_for, wait_until};

use crate::ours;

mod small;

const SOON: Duration = Duration::from_secs(10);
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const RECORD: &str = "/run/lab/dyn/dhcp_eth0.ipconf";
// capabilities(7)
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
/// What the DHCP client keeps.
const KEPT: u64 = NET_BIND_SERVICE | NET_RAW;

struct World {
    home: Net,
    isp: Net,
    cable: Cable,
    server: Dhcpd,
}

fn world(lab: &Lab) -> World {
    ours(lab);
    let (home, isp) = (lab.net("home"), lab.net("isp"));
    let (cable, server) = wire(lab, &home, &isp);
    World { home, isp, cable, server }
}

fn wire(lab: &Lab, home: &Net, isp: &Net) -> (Cable, Dhcpd) {
    let cable = lab.cable((home, "eth0"), (isp, "lan"));
    isp.address("lan", "192.0.2.1/24");
    let server = Dhcpd::start(isp, "lan", Config::for_router(ROUTER)).unwrap();
    (cable, server)
}

/// A field of /proc/PID/status that is a hexadecimal number.
fn status(pid: i32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name}:"))).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

fn wait_caged(pid: i32, kept: u64) {
    wait_until("a filter of system calls", SOON, || status(pid, "Seccomp") == 2);
    assert_eq!(status(pid, "NoNewPrivs"), 1);
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(pid, set), kept, "{set}");
    }
    assert_eq!((status(pid, "CapInh"), status(pid, "CapAmb")), (0, 0));
}

/// The process has the same rights as its starter.
fn assert_free(pid: i32) {
    let own = |name| status(std::process::id().try_into().unwrap(), name);
    for field in ["Seccomp", "NoNewPrivs", "CapEff", "CapBnd"] {
        assert_eq!(status(pid, field), own(field), "{field}");
    }
}

fn program(path: &Path, body: &str) -> String {
    fs::write(path, format!("#!/bin/sh\nPATH=/usr/sbin:/sbin:/usr/bin:/bin\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A one-shot service fw that counts its runs.
struct Fw {
    dir: PathBuf,
    out: PathBuf,
}

impl Fw {
    fn new(lab: &Lab) -> Fw {
        let (dir, out) = (lab.make_dir("fw"), lab.dir().join("fw.out"));
        program(&dir.join("run"), &format!("sv o {}\necho run >>{}", dir.display(), out.display()));
        Fw { dir, out }
    }

    fn supervise(&self, net: &Net) -> Proc {
        let runsv = net.spawn(&["runsv", self.dir.to_str().unwrap()]);
        self.wait_more(0);
        runsv
    }

    fn runs(&self) -> usize {
        fs::read_to_string(&self.out).unwrap_or_default().lines().count()
    }

    fn wait_more(&self, than: usize) {
        wait_until("a run of fw", SOON, || self.runs() > than);
    }
}

fn client(w: &World, fw: &Fw, more: &[&str]) -> Proc {
    let fw = fw.dir.to_str().unwrap();
    let base = ["udhcpc", "-f", "-v", "-i", "eth0", "--ipconf", "/run/lab/dyn", "--notify", fw];
    w.home.spawn(&[&base[..], more].concat())
}

fn wait_record() {
    wait_until("a record", SOON, || Path::new(RECORD).exists());
}

#[test]
fn a_caged_client_renews_publishes_and_follows_the_link() {
    isolated(&[], |lab| {
        let mut w = world(lab);
        let fw = Fw::new(lab);
        let _runsv = fw.supervise(&w.home);
        let before = fw.runs();
        let client = client(&w, &fw, &["-p", "/run/lab/pid", "-R"]);
        wait_record();
        fw.wait_more(before);
        wait_caged(client.pid(), KEPT);
        assert!(!client.log().contains("cage:"), "everything is restricted here: {}", client.log());
        assert_eq!(pids_where(|argv| argv.first() == Some(&"udhcpc")), [client.pid()], "a single process");

        // Renewing by unicast needs the address on the interface and a socket bound to port 68.
        w.home.address("eth0", "192.0.2.100/24");
        let requests = w.server.count(MessageType::Request);
        client.signal(Signal::SIGUSR1);
        wait_until("a renewal", SOON, || w.server.count(MessageType::Request) > requests);
        assert!(!client.log().contains("unicast by UDP"), "{}", client.log());

        let before = fw.runs();
        client.signal(Signal::SIGUSR2);
        wait_until("a release", SOON, || w.server.count(MessageType::Release) == 1 && !Path::new(RECORD).exists());
        fw.wait_more(before);

        // Another interface replaces eth0 while the client is stopped: it has another index and
        // another MAC, and needs new sockets.
        client.signal(Signal::SIGSTOP);
        w.home.ip(&["link", "del", "eth0"]);
        drop(w.server);
        (w.cable, w.server) = wire(lab, &w.home, &w.isp);
        client.signal(Signal::SIGCONT);
        client.signal(Signal::SIGUSR1);
        wait_record();
        assert_eq!(w.server.count(MessageType::Discover), 1, "through the new interface");

        w.cable.pull();
        let requests = w.server.count(MessageType::Request);
        client.wait_log("receiving: Network is down", SOON);
        client.signal(Signal::SIGUSR1);
        w.cable.plug();
        wait_until("a request after the plug", SOON, || w.server.count(MessageType::Request) > requests);

        assert!(Path::new("/run/lab/pid").exists());
        assert!(client.stop().success());
        assert!(!Path::new(RECORD).exists() && !Path::new("/run/lab/pid").exists());
    });
}

#[test]
fn a_service_whose_supervisor_comes_later_is_told_all_the_same() {
    isolated(&[], |lab| {
        let w = world(lab);
        let fw = Fw::new(lab);
        let client = client(&w, &fw, &[]);
        wait_record();
        // For five seconds no runsv reads the fifo.
        client.wait_log("cannot notify", 3 * SOON);
        let _runsv = fw.supervise(&w.home);
        let before = fw.runs();
        client.signal(Signal::SIGUSR2);
        fw.wait_more(before);
    });
}

#[test]
fn a_supervisor_that_is_a_moment_late_hears_it_and_nobody_complains() {
    isolated(&[], |lab| {
        let w = world(lab);
        let fw = Fw::new(lab);
        // With the file `down` fw runs only on request.
        fs::write(fw.dir.join("down"), "").unwrap();
        let client = client(&w, &fw, &[]);
        wait_record();
        let _runsv = w.home.spawn(&["runsv", fw.dir.to_str().unwrap()]);
        fw.wait_more(0);
        assert!(!client.log().contains("cannot notify"), "{}", client.log());
    });
}

#[test]
fn without_the_cage_nothing_is_given_up() {
    isolated(&[], |lab| {
        let w = world(lab);
        let fw = Fw::new(lab);
        let client = client(&w, &fw, &["--no-cage"]);
        wait_record();
        assert_free(client.pid());
    });
}

/// A script that writes down where it runs and puts the address on the interface.
fn script(lab: &Lab) -> (String, PathBuf) {
    let out = lab.dir().join("out");
    let body = format!(
        "echo \"$1 $(grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status | tr -d '\\n\\t')\" >>{}\n\
         case $1 in bound) ip addr add $ip/$mask dev $interface ;; deconfig) ip -4 addr flush dev $interface ;; esac",
        out.display()
    );
    (program(&lab.dir().join("script"), &body), out)
}

/// Each run of the script had all rights.
fn assert_outside(said: &str) {
    assert!(!said.is_empty());
    for line in said.lines() {
        assert!(line.contains("Seccomp:0") && line.contains("NoNewPrivs:0"), "{line}");
        let caps = line.split("CapEff:").nth(1).and_then(|s| s.get(..16)).unwrap();
        assert_ne!(u64::from_str_radix(caps, 16).unwrap() & NET_ADMIN, 0, "{line}");
    }
}

/// The processes of a client; the client itself comes first.
fn processes() -> Vec<i32> {
    let mut pids = pids_where(|argv| argv.first() == Some(&"udhcpc"));
    pids.sort_unstable();
    pids
}

#[test]
fn scripts_run_outside_and_their_runner_ends_with_the_client() {
    isolated(&[], |lab| {
        let w = world(lab);
        let (script, out) = script(lab);
        let said = || fs::read_to_string(&out).unwrap_or_default();
        let argv = ["udhcpc", "-f", "-i", "eth0", "-s", &script];
        let client = w.home.spawn(&argv);
        wait_until("an address", SOON, || w.home.addresses("eth0") == ["192.0.2.100/24"]);
        wait_caged(client.pid(), KEPT);
        assert_outside(&said());

        // A signal to all processes of this name ends the client alone, and the client still runs
        // the last script.
        let [first, runner] = processes()[..] else { panic!("{:?}", processes()) };
        assert_eq!(first, client.pid());
        for signal in ["USR1", "TERM"] {
            w.home.run(&["sh", "-c", &format!("kill -{signal} {runner}")]);
        }
        let renewals = said().matches("renew").count();
        client.signal(Signal::SIGUSR1);
        wait_until("a renewal after that", SOON, || said().matches("renew").count() > renewals);
        client.signal(Signal::SIGUSR2);
        wait_until("deconfig", SOON, || w.home.addresses("eth0").is_empty());
        assert!(client.stop().success());
        assert!(!is_running(runner), "waited for");

        // kill -9 of the client or of its runner.
        let client = w.home.spawn(&argv);
        wait_until("an address", SOON, || !w.home.addresses("eth0").is_empty());
        let [_, runner] = processes()[..] else { panic!("{:?}", processes()) };
        kill_9(client.pid());
        wait_until("the end of the runner", SOON, || !is_running(runner));
        let mut client = w.home.spawn(&argv);
        let runner = wait_for("two processes", SOON, || processes().get(1).copied());
        wait_caged(client.pid(), KEPT);
        kill_9(runner);
        let status = client.wait(SOON).expect("it ends without its runner");
        assert_eq!(status.code(), Some(1));
        assert!(client.log().contains("the script runner was killed"), "{}", client.log());
    });
}

#[test]
fn in_the_background_the_runner_lives_on_and_holds_nothing() {
    isolated(&[], |lab| {
        let w = world(lab);
        let (script, out) = script(lab);
        // A caller that waits for the end of the output, as $(...) does, waits for the lease only.
        let output = w.home.try_run(&["udhcpc", "-i", "eth0", "-s", &script, "-p", "/run/lab/pid"]);
        assert!(output.status.success(), "{output:?}");
        let running = || fs::read_to_string("/run/lab/pid").ok()?.trim().parse().ok().filter(|pid| is_running(*pid));
        let pid = wait_for("the pid of the background", SOON, running);
        wait_caged(pid, KEPT);
        let runner = *processes().iter().find(|p| **p != pid).expect("the runner");
        for fd in 0..3 {
            assert_eq!(fs::read_link(format!("/proc/{runner}/fd/{fd}")).unwrap(), Path::new("/dev/null"));
        }
        w.home.run(&["sh", "-c", &format!("kill -USR1 {pid}")]);
        wait_until("a renewal", SOON, || fs::read_to_string(&out).unwrap().contains("renew"));
        w.home.run(&["sh", "-c", &format!("kill {pid}")]);
        wait_until("the end of both", SOON, || !is_running(pid) && !is_running(runner));
        assert!(!Path::new("/run/lab/pid").exists());
    });
}

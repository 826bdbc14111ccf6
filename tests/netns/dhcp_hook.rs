//! `udhcpc --hook` runs a program outside of the cage after a change of the lease. The program can
//! neither delay the client nor make it fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use testkit::dhcpd::{Config, Dhcpd};
use testkit::{Lab, Signal, isolated, wait_for, wait_until};

use crate::dhcp::{ROUTER, SOON, World, native, wait_ip, world};

/// A hook that appends `EVENT`, the address in the record and its environment to a file, and ends
/// when the file `go` is there.
fn hook(lab: &Lab, body: &str) -> (String, PathBuf) {
    let (path, out) = (lab.dir().join("hook"), lab.dir().join("hook.out"));
    let text = format!(
        "#!/bin/sh\nPATH=/usr/sbin:/sbin:/usr/bin:/bin\n\
         {{ echo \"EVENT $1 $#\"; grep '^ip\\[' $UDHCPC_RECORD 2>/dev/null; env | sort; }} >>{out}\n{body}\n",
        out = out.display()
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (path.to_str().unwrap().to_owned(), out)
}

/// The lines of each run.
fn runs(out: &PathBuf) -> Vec<Vec<String>> {
    let text = fs::read_to_string(out).unwrap_or_default();
    text.split("EVENT ").skip(1).map(|run| run.lines().map(str::to_owned).collect()).collect()
}

fn told(out: &PathBuf) -> Vec<String> {
    runs(out).iter().map(|run| run[0].clone()).collect()
}

fn server(w: &World) -> Dhcpd {
    Dhcpd::start(&w.isp, "lan", Config::for_router(ROUTER)).unwrap()
}

/// Puts the address on the interface, as fw would, so that the server's answers to renewals arrive.
fn renewable(w: &World) {
    w.home.address("eth0", "192.0.2.100/24");
}

#[test]
fn a_hook_is_told_of_each_change_after_the_record_has_it() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = server(&w);
        let (hook, out) = hook(lab, "touch /tmp/hook-was-here");
        let client = native(&w, &["--hook", &hook, "--env", "HOOK_*"]);
        wait_until("bound", SOON, || told(&out).contains(&"bound 1".to_owned()));
        renewable(&w);
        client.signal(Signal::SIGUSR1);
        wait_until("renew", SOON, || told(&out).last().is_some_and(|event| event == "renew 1"));
        server.configure(|c| c.first = std::net::Ipv4Addr::new(192, 0, 2, 150));
        server.forget_bindings();
        client.signal(Signal::SIGUSR2);
        wait_until("deconfig", SOON, || told(&out).last().is_some_and(|event| event == "deconfig 1"));
        client.signal(Signal::SIGUSR1);
        wait_ip("192.0.2.150");
        let whole = |run: &Vec<String>| run[0] == "bound 1" && run.last().unwrap().starts_with("subnet=");
        wait_until("bound again", SOON, || runs(&out).last().is_some_and(whole));
        assert!(client.stop().success());
        wait_until("the last event", SOON, || told(&out).len() == 6);
        assert_eq!(told(&out), ["deconfig 1", "bound 1", "renew 1", "deconfig 1", "bound 1", "deconfig 1"]);
        let runs = runs(&out);
        for (at, ip) in [(1, "192.0.2.100"), (2, "192.0.2.100"), (4, "192.0.2.150")] {
            for want in [format!("ip[$cfg]='{ip}'"), format!("ip={ip}"), "interface=eth0".into(), "mask=24".into()] {
                assert!(runs[at].contains(&want), "{want} in {:?}", runs[at]);
            }
            assert!(runs[at].contains(&"UDHCPC_RECORD=/run/lab/dyn/dhcp_eth0.ipconf".to_owned()));
        }
        // Without an address there are no address variables. The client builds the environment, so
        // nothing of the caller's is in it.
        for at in [0, 3, 5] {
            assert!(!runs[at].iter().any(|line| line.starts_with("ip=")), "{:?}", runs[at]);
            assert!(!runs[at].iter().any(|line| line.starts_with("CARGO")), "{:?}", runs[at]);
        }
        assert!(!runs[5].iter().any(|line| line.starts_with("ip[")), "the record is gone: {:?}", runs[5]);
        fs::remove_file("/tmp/hook-was-here").unwrap();
    });
}

#[test]
fn a_hook_that_never_ends_delays_nothing_and_hears_the_newest_event_when_it_does() {
    isolated(&[], |lab| {
        let w = world(lab);
        let server = server(&w);
        let (hook, out) =
            hook(lab, &format!("while [ $1 != deconfig ] && [ ! -e {}/go ]; do sleep 0.1; done", lab.dir().display()));
        let client = native(&w, &["--hook", &hook]);
        wait_until("bound", SOON, || told(&out).contains(&"bound 1".to_owned()));
        renewable(&w);
        for renewals in 2..5 {
            client.signal(Signal::SIGUSR1);
            wait_until("a renewal", SOON, || client.log().matches("lease of 192.0.2.100").count() == renewals);
        }
        let asked = server.seen().len();
        assert!(client.stop().success(), "TERM while the hook runs");
        assert!(!std::path::Path::new("/run/lab/dyn/dhcp_eth0.ipconf").exists());
        assert_eq!((told(&out).len(), asked), (2, server.seen().len()));
        fs::write(lab.dir().join("go"), "").unwrap();
        wait_until("the last event", SOON, || told(&out).len() == 3);
        assert_eq!(told(&out), ["deconfig 1", "bound 1", "deconfig 1"]);
    });
}

#[test]
fn a_hook_that_fails_costs_no_lease() {
    isolated(&[], |lab| {
        let w = world(lab);
        let _server = server(&w);
        let client = native(&w, &["--hook", "/no/such/hook"]);
        wait_ip("192.0.2.100");
        client.wait_log("can't execute '/no/such/hook': ", SOON);
        assert!(client.stop().success());
        let (hook, out) = hook(lab, "kill -9 $$");
        let client = native(&w, &["--hook", &hook]);
        wait_ip("192.0.2.100");
        client.wait_log("/hook was killed by signal 9", SOON);
        wait_until("bound", SOON, || told(&out).last().is_some_and(|event| event == "bound 1"));
        // The test kills the runner; the client goes on without it.
        let children = format!("/proc/{pid}/task/{pid}/children", pid = client.pid());
        let runner: i32 = wait_for("the runner", SOON, || fs::read_to_string(&children).ok()?.trim().parse().ok());
        testkit::kill_9(runner);
        client.wait_log("it is not run any more", SOON);
        renewable(&w);
        client.signal(Signal::SIGUSR1);
        wait_until("a renewal", SOON, || client.log().matches("lease of 192.0.2.100").count() == 2);
        assert!(client.stop().success());
    });
}

#[test]
fn a_hook_belongs_to_a_record() {
    isolated(&[], |lab| {
        let w = world(lab);
        let output = w.home.try_run(&["udhcpc", "-f", "-n", "-i", "eth0", "--hook", "/bin/true"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), text.contains("--hook needs --ipconf")), (Some(1), true), "{text}");
        // A client in the background has no terminal, and returns to its caller at once.
        let _server = server(&w);
        let (hook, out) = hook(lab, "ls -l /proc/self/fd >>$UDHCPC_RECORD.fds");
        let argv = ["udhcpc", "-b", "-i", "eth0", "--ipconf", "/run/lab/dyn", "--hook", &hook, "-p", "/run/lab/pid"];
        w.home.run(&argv);
        wait_until("bound", SOON, || told(&out).last().is_some_and(|event| event == "bound 1"));
        let fds = wait_for("its descriptors", SOON, || fs::read_to_string("/run/lab/dyn/dhcp_eth0.ipconf.fds").ok());
        assert!(fds.contains("/dev/null") && !fds.contains("pipe:"), "{fds}");
        w.home.run(&["sh", "-c", "kill $(cat /run/lab/pid)"]);
        wait_until("the last event", SOON, || told(&out).last().is_some_and(|event| event == "deconfig 1"));
    });
}

//! A daemon that goes to the background keeps nothing open that its caller waits for. The originals
//! run first where they can.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use testkit::{Lab, Net, is_running, isolated, kill_9, original, pids_where, wait_for, wait_until};

use crate::ours;

/// Longer than any step takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a caller may wait for: the end of the daemon's output, of its messages, or of a third
/// descriptor.
const CALLERS: [&str; 3] =
    ["x=$(\"$@\" 2>/dev/null)", "x=$(\"$@\" 2>&1 >/dev/null)", "x=$(exec 3>&1; \"$@\" >/dev/null 2>&1)"];

/// eth0 with a link, and a program that always succeeds.
fn world(lab: &Lab) -> (Net, String) {
    ours(lab);
    let (home, isp) = (lab.net("home"), lab.net("isp"));
    lab.cable((&home, "eth0"), (&isp, "lan"));
    let script = lab.dir().join("script");
    fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    wait_until("a link", PATIENCE, || home.ip_json(&["link", "show", "dev", "eth0"])[0]["operstate"] == "UP");
    (home, script.to_str().unwrap().to_owned())
}

/// The process ids of the daemon and its runner.
fn daemons() -> Vec<i32> {
    pids_where(|argv| argv.contains(&"eth0") && argv.first() != Some(&"sh"))
}

/// Returns the exit code of a caller that waits in this way for a daemon. The daemon must live on.
#[track_caller]
fn waits_for(home: &Net, caller: &str, argv: &[&str]) -> Option<i32> {
    let mut shell = home.spawn(&[&["sh", "-c", caller, "sh"], argv].concat());
    let status = wait_for(&format!("the end of `{caller}` with {argv:?}"), PATIENCE, || shell.wait(Duration::ZERO));
    let left = daemons();
    assert!(!left.is_empty(), "{argv:?} lives on");
    for pid in &left {
        kill_9(*pid);
    }
    // The kernel takes the command line first and the locks last.
    wait_until("its end", PATIENCE, || !left.iter().any(|pid| is_running(*pid)));
    status.code()
}

#[test]
fn a_caller_that_waits_for_the_end_of_the_output_is_not_kept() {
    isolated(&["ifplugd", "udhcpc"], |lab| {
        let (home, script) = world(lab);
        let ifplugd = original("ifplugd").unwrap().to_str().unwrap().to_owned();
        let udhcpc = original("udhcpc").unwrap().to_str().unwrap().to_owned();
        let link = ["-i", "eth0", "-I", "-r", &script];
        let lease = ["-i", "eth0", "-b", "-t1", "-T1", "-s", &script];
        // ifplugd 0.28 keeps a third descriptor.
        for (program, args, callers, code) in [
            (ifplugd.as_str(), &[&link[..], &["-s"]].concat()[..], &CALLERS[..2], 0),
            (&ifplugd, &link, &CALLERS[..2], 0),
            (&ifplugd, &[&link[..], &["-s", "-w"]].concat(), &CALLERS[..2], 2),
            ("ifplugd", &[&link[..], &["-s"]].concat(), &CALLERS, 0),
            ("ifplugd", &link, &CALLERS, 0),
            ("ifplugd", &[&link[..], &["-s", "-w"]].concat(), &CALLERS, 2),
            ("ifplugd", &[&link[..], &["-w"]].concat(), &CALLERS, 2),
            (&udhcpc, &lease, &CALLERS, 0),
            ("udhcpc", &lease, &CALLERS, 0),
            ("udhcpc", &["-i", "eth0", "-b", "-t1", "-T1", "--ipconf", "/run/fw"], &CALLERS, 0),
            ("zcip", &["eth0", &script], &CALLERS, 0),
            ("zcip", &["--ipconf", "/run/fw", "eth0", &script], &CALLERS, 0),
            ("zcip", &["--ipconf", "/run/fw", "eth0"], &CALLERS, 0),
        ] {
            for caller in callers {
                assert_eq!(waits_for(&home, caller, &[&[program], args].concat()), Some(code), "{program} {args:?}");
            }
        }
    });
}

#[test]
fn with_s_the_log_of_a_daemon_in_the_background_goes_on_where_it_is_a_file() {
    isolated(&[], |lab| {
        let (home, script) = world(lab);
        let log = lab.dir().join("messages");
        let ifplugd = ["ifplugd", "-i", "eth0", "-a", "-d0", "-s", "-r", &script];
        for more in [&[][..], &["-w"]] {
            let caller = format!("\"$@\" 2>{}", log.display());
            home.try_run(&[&["sh", "-c", &caller, "sh"], &ifplugd[..], more].concat());
            home.ip(&["link", "set", "eth0", "down"]);
            wait_until("the line", PATIENCE, || fs::read_to_string(&log).unwrap().contains("link is down"));
            home.try_run(&["ifplugd", "-i", "eth0", "-k", "-W"]);
            home.ip(&["link", "set", "eth0", "up"]);
        }
    });
}

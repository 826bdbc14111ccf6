//! ifplugd on veth cables: the original first where it can run, then ours. services.rs tests how
//! ifplugd keeps the services of a link.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use testkit::{Cable, Lab, Net, Proc, holds_for, isolated, original, poll_for, wait_for, wait_until};

use crate::ours;

mod storms;

/// Longer than any step takes, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// For "nothing happens": longer than the delays given here, and than the longest pause between two
/// looks (640 ms).
const QUIET: Duration = Duration::from_millis(700);

/// A world with one cable, and a program that writes down its arguments.
struct World {
    home: Net,
    isp: Net,
    cable: Cable,
    handler: PathBuf,
    told: PathBuf,
}

impl World {
    fn new(lab: &Lab) -> World {
        ours(lab);
        let (home, isp) = (lab.net("home"), lab.net("isp"));
        let cable = lab.cable((&home, "eth0"), (&isp, "lan"));
        let (handler, told) = (lab.dir().join("handler"), lab.dir().join("told"));
        let text = format!("echo \"$* $IFPLUGD_PREVIOUS $IFPLUGD_CURRENT\" >>{}", told.display());
        program(&handler, &text);
        fs::write(&told, "").unwrap();
        let world = World { home, isp, cable, handler, told };
        world.wait_operstate("UP");
        world
    }

    /// Waits for the kernel's own operstate, so that a test does not begin in the middle of a
    /// change.
    fn wait_operstate(&self, state: &str) {
        wait_until("the operstate", PATIENCE, || {
            self.home.ip_json(&["link", "show", "dev", "eth0"])[0]["operstate"] == state
        });
    }

    fn start(&self, program: impl AsRef<str>, args: &[&str]) -> Proc {
        let base = [program.as_ref(), "-n", "-s", "-i", "eth0", "-r", self.handler.to_str().unwrap()];
        self.home.spawn(&[&base[..], args].concat())
    }

    fn told(&self) -> Vec<String> {
        fs::read_to_string(&self.told).unwrap().lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn wait_told(&self, want: &[&str]) {
        wait_until(&format!("{want:?}, was told {:?}", self.told()), PATIENCE, || self.told() == want);
    }
}

/// Debian's ifplugd 0.28 first, then ours.
fn both() -> [String; 2] {
    [original("ifplugd").unwrap().to_str().unwrap().to_owned(), "ifplugd".to_owned()]
}

/// Waits until the daemon, original or ours, has seen that the link is up.
fn wait_up(daemon: &Proc) {
    wait_until("the first look", PATIENCE, || {
        ["link is up", "link beat detected"].iter().any(|line| daemon.log().contains(line))
    });
}

/// How often the daemon has got the processor or has given it up.
fn switches(daemon: &Proc) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    status.lines().filter(|l| l.contains("ctxt_switches")).map(str::to_owned).collect()
}

/// Waits until the looks that follow a change are over.
#[track_caller]
fn wait_asleep(daemon: &Proc) {
    wait_until("it sleeps", PATIENCE, || {
        let before = switches(daemon);
        poll_for(QUIET, || (switches(daemon) != before).then_some(())).is_none()
    });
}

fn program(path: &Path, body: &str) {
    fs::write(path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[track_caller]
fn exit_code(mut daemon: Proc) -> Option<i32> {
    wait_for("its end", PATIENCE, || daemon.wait(Duration::ZERO)).code()
}

#[test]
fn the_program_is_told_and_how_it_is_called() {
    isolated(&["ifplugd"], |lab| {
        let world = World::new(lab);
        for subject in both() {
            fs::write(&world.told, "").unwrap();
            let daemon = world.start(&subject, &["-t1", "-u0", "-d0", "-x", "more"]);
            let mut want = vec!["eth0 up more disabled up"];
            world.wait_told(&want);
            world.cable.pull();
            want.push("eth0 down more up down");
            world.wait_told(&want);
            world.cable.plug();
            want.push("eth0 up more down up");
            world.wait_told(&want);
            daemon.signal(Signal::SIGTERM);
            assert_eq!(exit_code(daemon), Some(0), "{subject}");
            want.push("eth0 down more up disabled");
            world.wait_told(&want);
        }
    });
}

#[test]
fn options_for_the_start_and_the_end() {
    isolated(&["ifplugd"], |lab| {
        let world = World::new(lab);
        for subject in both() {
            fs::write(&world.told, "").unwrap();
            // -p: no call at the start. -q: no call at the end. The cable shows that the daemon
            // runs.
            let daemon = world.start(&subject, &["-p", "-q", "-u0", "-d0"]);
            wait_up(&daemon);
            world.cable.pull();
            world.wait_told(&["eth0 down up down"]);
            daemon.signal(Signal::SIGTERM);
            assert_eq!(exit_code(daemon), Some(0), "{subject}");
            assert_eq!(world.told(), ["eth0 down up down"], "{subject}");

            // Now the link is down. With -l the program is told so.
            fs::write(&world.told, "").unwrap();
            let daemon = world.start(&subject, &["-l", "-q"]);
            world.wait_told(&["eth0 down disabled down"]);
            daemon.signal(Signal::SIGQUIT);
            assert_eq!(exit_code(daemon), Some(0), "{subject}");
            world.cable.plug();
            world.wait_operstate("UP");

            // -l overrides -p in both states of the link.
            fs::write(&world.told, "").unwrap();
            let daemon = world.start(&subject, &["-p", "-l"]);
            world.wait_told(&["eth0 up disabled up"]);
            daemon.signal(Signal::SIGQUIT);
            assert_eq!(exit_code(daemon), Some(0), "{subject}");
        }
    });
}

#[test]
fn a_suspended_daemon_lets_the_link_be() {
    isolated(&["ifplugd"], |lab| {
        let world = World::new(lab);
        for subject in both() {
            fs::write(&world.told, "").unwrap();
            let tell = |how| world.home.try_run(&[&subject, "-i", "eth0", how]).status.code();
            assert_eq!(["-S", "-R", "-z"].map(tell), [Some(6); 3], "{subject}: none runs");
            let daemon = world.start(&subject, &["-t1", "-u0", "-d0"]);
            let mut want = vec!["eth0 up disabled up"];
            world.wait_told(&want);
            for count in ["(#1)", "(#2)"] {
                assert_eq!(tell("-S"), Some(0), "{subject}");
                daemon.wait_log(&format!("SIGUSR1: Daemon suspended {count}"), PATIENCE);
            }
            assert_eq!(tell("-R"), Some(0), "{subject}");
            daemon.wait_log("SIGUSR2: Daemon resumed (#2)", PATIENCE);
            world.cable.pull();
            world.wait_operstate("DOWN");
            // ifplugd 0.28 looks at the link once a second.
            holds_for("it lets the link be", 2 * QUIET, || world.told() == want);
            assert_eq!(tell("-R"), Some(0), "{subject}");
            daemon.wait_log("SIGUSR2: Daemon resumed (#1)", PATIENCE);
            want.push("eth0 down up down");
            world.wait_told(&want);
            assert_eq!(tell("-z"), Some(0), "{subject}");
            let infos = ["SIGHUP: Running, link detected on eth0: no", "link is down, lasting state is down"];
            wait_until("the state", PATIENCE, || infos.iter().any(|i| daemon.log().contains(i)));
            world.cable.plug();
            want.push("eth0 up down up");
            world.wait_told(&want);
            // QUIT: the daemon ends without a last call.
            daemon.signal(Signal::SIGQUIT);
            assert_eq!(exit_code(daemon), Some(0), "{subject}");
            assert_eq!(world.told(), want, "{subject}");
        }
    });
}

#[test]
fn a_program_that_fails_ends_the_daemon_with_1_unless_told_to_go_on() {
    isolated(&["ifplugd"], |lab| {
        let world = World::new(lab);
        program(&world.handler, &format!("echo \"$*\" >>{}; exit 3", world.told.display()));
        for subject in both() {
            let code = exit_code(world.start(&subject, &["-q"]));
            // busybox exits with 1. 0.28 ends too, but exits with 0.
            assert!(code == Some(1) || (subject != "ifplugd" && code == Some(0)), "{subject}: {code:?}");
        }
        fs::write(&world.told, "").unwrap();
        let daemon = world.start("ifplugd", &["-I", "-d0"]);
        world.wait_told(&["eth0 up"]);
        world.cable.pull();
        world.wait_told(&["eth0 up", "eth0 down"]);
        assert_eq!(daemon.stop().code(), Some(0));
    });
}

#[test]
fn a_flap_back_cancels_what_is_pending_and_fractions_count() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let daemon = world.start("ifplugd", &["-u", "0.3", "-d", "0.5"]);
        world.wait_told(&["eth0 up disabled up"]);
        world.cable.pull();
        daemon.wait_log("link is down", PATIENCE);
        world.cable.plug();
        holds_for("only the start was told", QUIET, || world.told().len() == 1);
        world.cable.pull();
        world.wait_told(&["eth0 up disabled up", "eth0 down up down"]);
        world.cable.plug();
        world.wait_told(&["eth0 up disabled up", "eth0 down up down", "eth0 up down up"]);
        daemon.wait_log("link is up", PATIENCE);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_log("lasting state is up", PATIENCE);
        drop(daemon);
    });
}

#[test]
fn a_flap_that_the_kernel_merged_is_told_all_the_same() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let daemon = world.start("ifplugd", &["-u0", "-d0"]);
        world.wait_told(&["eth0 up disabled up"]);
        // Each end of the flap is one network namespace operation: linkwatch holds the second one
        // back.
        for round in 1..=3 {
            let lost = || daemon.log().matches("link is down").count();
            world.cable.pull();
            world.cable.plug();
            wait_until("one more loss", PATIENCE, || lost() == round);
            wait_until("and up again", PATIENCE, || daemon.log().matches("link is up").count() == round + 1);
        }
        wait_until("up is the last word", PATIENCE, || world.told().last().is_some_and(|l| l.starts_with("eth0 up")));
    });
}

#[test]
fn what_was_lost_in_an_overflow_is_asked_for() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let daemon = world.start("ifplugd", &["-u0", "-d0"]);
        world.wait_told(&["eth0 up disabled up"]);
        // The looks that follow a change are over, so only the overflow can make the daemon ask.
        wait_asleep(&daemon);
        // The daemon reads nothing while thousands of messages about another link arrive, and the
        // loss of carrier after them.
        daemon.signal(Signal::SIGSTOP);
        let batch = lab.dir().join("batch");
        let lines = (0..2000).map(|n| format!("link set dev lo mtu {}\n", 60000 + n)).collect::<String>();
        fs::write(&batch, lines).unwrap();
        world.home.ip(&["-batch", batch.to_str().unwrap()]);
        world.cable.pull();
        world.wait_operstate("DOWN");
        let dropped = || {
            let table = world.home.run(&["cat", "/proc/self/net/netlink"]);
            // proc(5): the 9th column counts drops.
            table.lines().skip(1).any(|l| l.split_whitespace().nth(8).is_some_and(|n| n != "0"))
        };
        assert!(dropped(), "the kernel had to drop messages");
        daemon.signal(Signal::SIGCONT);
        world.wait_told(&["eth0 up disabled up", "eth0 down up down"]);
        drop(daemon);
    });
}

#[test]
fn a_program_that_takes_long_is_waited_for_and_told_the_outcome() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let gate = lab.dir().join("gate");
        let body = format!(
            "echo \"start $*\" >>{told}; while [ ! -e {gate} ]; do sleep 0.01; done; echo \"end $*\" >>{told}",
            told = world.told.display(),
            gate = gate.display()
        );
        program(&world.handler, &body);
        let daemon = world.start("ifplugd", &["-u0", "-d0"]);
        world.wait_told(&["start eth0 up"]);
        for _ in 0..2 {
            world.cable.pull();
            world.wait_operstate("DOWN");
            world.cable.plug();
            world.wait_operstate("UP");
        }
        world.cable.pull();
        wait_until("three losses", PATIENCE, || daemon.log().matches("link is down").count() == 3);
        assert_eq!(world.told(), ["start eth0 up"]);
        fs::write(&gate, "").unwrap();
        world.wait_told(&["start eth0 up", "end eth0 up", "start eth0 down", "end eth0 down"]);
        assert_eq!(daemon.stop().code(), Some(0));
    });
}

#[test]
fn an_interface_that_is_missing_ends_it_or_is_waited_for() {
    isolated(&["ifplugd"], |lab| {
        let world = World::new(lab);
        world.home.ip(&["link", "set", "dev", "eth0", "down"]);
        world.home.ip(&["link", "set", "dev", "eth0", "name", "other"]);
        for subject in both() {
            let code = exit_code(world.start(&subject, &[]));
            // busybox exits with 1. 0.28 ends too, but exits with 0.
            assert!(code == Some(1) || (subject != "ifplugd" && code == Some(0)), "{subject}: {code:?}");
        }
        assert_eq!(world.told(), Vec::<String>::new());

        let daemon = world.start("ifplugd", &["-M", "-u0", "-d0"]);
        daemon.wait_log("no such interface: eth0, waiting for it", PATIENCE);
        // An alternative name is not the interface's name.
        world.home.ip(&["link", "property", "add", "dev", "other", "altname", "eth0"]);
        let second = world.start("ifplugd", &["-M", "-q", "--pidfile", ""]);
        second.wait_log("no such interface: eth0, waiting for it", PATIENCE);
        drop(second);
        world.home.ip(&["link", "property", "del", "dev", "other", "altname", "eth0"]);
        // An interface that gets the name counts as having appeared: the daemon sets it up, and its
        // other end is up.
        world.home.ip(&["link", "set", "dev", "other", "name", "eth0"]);
        world.wait_told(&["eth0 up down up"]);
        world.home.ip(&["link", "set", "dev", "eth0", "down"]);
        daemon.wait_log("link is down", PATIENCE);
        world.home.ip(&["link", "set", "dev", "eth0", "name", "other"]);
        daemon.wait_log("interface eth0 is now called other", PATIENCE);
        world.home.ip(&["link", "del", "dev", "other"]);
        lab.cable((&world.home, "eth0"), (&world.isp, "lan"));
        wait_until("told of the new one", PATIENCE, || world.told().last().is_some_and(|l| l == "eth0 up down up"));
        world.home.ip(&["link", "del", "dev", "eth0"]);
        daemon.wait_log("interface eth0 is gone, waiting for it", PATIENCE);
        wait_until("told that it has gone", PATIENCE, || world.told().last().is_some_and(|l| l == "eth0 down up down"));
        assert_eq!(daemon.log().matches("waiting for it").count(), 3, "once each: {}", daemon.log());

        drop(daemon);
        lab.cable((&world.home, "eth0"), (&world.isp, "lan"));
        let daemon = world.start("ifplugd", &["-d0"]);
        daemon.wait_log("link is up", PATIENCE);
        world.home.ip(&["link", "del", "dev", "eth0"]);
        assert_eq!(exit_code(daemon), Some(1));

        // The daemon waits for a last program that removes the interface.
        let told = world.told.display();
        program(&world.handler, &format!("[ $2 = up ] || ip link del dev eth0; sleep 0.1; echo \"$*\" >>{told}"));
        fs::write(&world.told, "").unwrap();
        lab.cable((&world.home, "eth0"), (&world.isp, "lan"));
        let daemon = world.start("ifplugd", &["-d0"]);
        wait_until("told at the start", PATIENCE, || world.told().last().is_some_and(|l| l == "eth0 up"));
        daemon.signal(Signal::SIGTERM);
        assert_eq!(exit_code(daemon), Some(0));
        assert_eq!(world.told().last().map(String::as_str), Some("eth0 down"));
    });
}

#[test]
fn an_interface_that_goes_to_another_namespace_is_gone_and_comes_back() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let daemon = world.start("ifplugd", &["-M", "-u0", "-d0"]);
        world.wait_told(&["eth0 up disabled up"]);
        // The interface's peer stays up, so a look at the carrier there would find one.
        let elsewhere = lab.net("elsewhere");
        world.home.ip(&["link", "set", "dev", "eth0", "netns", elsewhere.name()]);
        daemon.wait_log("interface eth0 is gone, waiting for it", PATIENCE);
        world.wait_told(&["eth0 up disabled up", "eth0 down up down"]);
        elsewhere.ip(&["link", "set", "dev", "eth0", "up"]);
        elsewhere.ip(&["link", "set", "dev", "eth0", "netns", world.home.name()]);
        // The interface comes without IFF_UP. The daemon sets it up, and it has carrier.
        world.wait_told(&["eth0 up disabled up", "eth0 down up down", "eth0 up down up"]);
        assert!(is_admin_up(&world.home));
        // Another interface takes the name while ours is away: from then on it is the watched
        // interface.
        world.home.ip(&["link", "set", "dev", "eth0", "netns", elsewhere.name()]);
        wait_until("told that it has gone", PATIENCE, || world.told().len() == 4);
        lab.cable((&world.home, "eth0"), (&world.isp, "lan2"));
        wait_until("told of the other", PATIENCE, || world.told().len() == 5);
        assert_eq!(world.told().last().map(String::as_str), Some("eth0 up down up"));
        drop(daemon);
    });
}

fn is_admin_up(net: &Net) -> bool {
    let flags = &net.ip_json(&["link", "show", "dev", "eth0"])[0]["flags"];
    flags.as_array().unwrap().iter().any(|f| f == "UP")
}

#[test]
fn the_interface_is_set_up_as_the_options_say() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let set_down = || {
            world.home.ip(&["link", "set", "dev", "eth0", "down"]);
        };
        // The daemon sets the interface up at the start and, after the poll time, whenever it was
        // set down.
        set_down();
        let daemon = world.start("ifplugd", &["-t", "0.1"]);
        wait_until("set up at the start", PATIENCE, || is_admin_up(&world.home));
        daemon.wait_log("link is up", PATIENCE);
        set_down();
        wait_until("set up again", PATIENCE, || is_admin_up(&world.home));
        daemon.stop();
        // -a: only at the start.
        set_down();
        let daemon = world.start("ifplugd", &["-a", "-t", "0.1"]);
        daemon.wait_log("link is up", PATIENCE);
        set_down();
        holds_for("left alone", QUIET, || !is_admin_up(&world.home));
        daemon.stop();
        // -a -A: never.
        let daemon = world.start("ifplugd", &["-a", "-A", "-t", "0.1"]);
        daemon.wait_log("link is down", PATIENCE);
        holds_for("left alone", QUIET, || !is_admin_up(&world.home));
        daemon.stop();
    });
}

#[test]
fn carrier_without_the_end_of_a_handshake_is_not_a_link() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let daemon = world.start("ifplugd", &["-u0", "-d0"]);
        world.wait_told(&["eth0 up disabled up"]);
        // A WPA supplicant does this: it sets IF_LINK_MODE_DORMANT, and the operstate when the
        // handshake has ended.
        world.home.ip(&["link", "set", "dev", "eth0", "mode", "dormant"]);
        world.home.ip(&["link", "set", "dev", "eth0", "state", "dormant"]);
        world.wait_told(&["eth0 up disabled up", "eth0 down up down"]);
        assert_eq!(world.home.run(&["cat", "/sys/class/net/eth0/carrier"]).trim(), "1");
        world.home.ip(&["link", "set", "dev", "eth0", "state", "up"]);
        world.wait_told(&["eth0 up disabled up", "eth0 down up down", "eth0 up down up"]);
        drop(daemon);
    });
}

#[test]
fn of_f_and_capital_f_the_last_one_counts() {
    isolated(&["ifplugd"], |lab| {
        let world = World::new(lab);
        for subject in both() {
            for (options, want) in [(["-f", "-F"], "none0 up disabled up"), (["-F", "-f"], "none0 down disabled down")]
            {
                fs::write(&world.told, "").unwrap();
                let daemon = world.start(&subject, &[&["-l", "-q", "-i", "none0"], &options[..]].concat());
                world.wait_told(&[want]);
                daemon.signal(Signal::SIGTERM);
                assert_eq!(exit_code(daemon), Some(0), "{subject}");
            }
        }
    });
}

#[test]
fn the_pidfile_says_who_runs_and_k_stops_it() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let pidfile = Path::new("/run/ifplugd.eth0.pid");
        let code = |args: &[&str]| world.home.try_run(&[&["ifplugd", "-i", "eth0"], args].concat()).status.code();
        assert_eq!((code(&["-k"]), code(&["-c"])), (Some(0), Some(255)), "none runs");
        // A stale pid that belongs to a living process: this one.
        fs::write(pidfile, format!("{}\n", std::process::id())).unwrap();
        assert_eq!((code(&["-k"]), code(&["-c"])), (Some(0), Some(255)), "stale");

        let daemon = world.start("ifplugd", &["-q"]);
        world.wait_told(&["eth0 up disabled up"]);
        assert_eq!(fs::read_to_string(pidfile).unwrap(), format!("{}\n", daemon.pid()));
        assert_eq!(code(&["-c"]), Some(0));
        assert_eq!(exit_code(world.start("ifplugd", &[])), Some(1), "one is enough");
        let second = world.home.try_run(&["ifplugd", "-i", "eth0"]);
        assert_eq!(second.status.code(), Some(1), "in the background, too");
        assert_eq!(String::from_utf8_lossy(&second.stderr), "ifplugd: eth0: daemon is already running\n");
        assert_eq!(code(&["-k", "-W"]), Some(0));
        assert_eq!(exit_code(daemon), Some(0));
        assert!(!pidfile.exists());

        // A killed daemon leaves its file, and the next daemon starts all the same.
        let daemon = world.start("ifplugd", &[]);
        wait_until("it runs", PATIENCE, || code(&["-c"]) == Some(0));
        daemon.signal(Signal::SIGKILL);
        assert_eq!(exit_code(daemon), None);
        assert!(pidfile.exists());
        let daemon = world.start("ifplugd", &[]);
        wait_until("it runs", PATIENCE, || code(&["-c"]) == Some(0));
        assert_eq!(daemon.stop().code(), Some(0));
    });
}

#[test]
fn c_says_whether_a_daemon_runs() {
    isolated(&["ifplugd"], |lab| {
        let world = World::new(lab);
        for subject in both() {
            let check = || {
                let output = world.home.try_run(&[&subject, "-i", "eth0", "-c"]);
                (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
            };
            assert_eq!(check(), (Some(255), "ifplugd not running.\n".into()), "{subject}");
            let daemon = world.start(&subject, &["-q"]);
            wait_up(&daemon);
            let running = format!("ifplugd process for device eth0 running as pid {}.\n", daemon.pid());
            assert_eq!(check(), (Some(0), running), "{subject}");
            daemon.signal(Signal::SIGTERM);
            assert_eq!(exit_code(daemon), Some(0), "{subject}");
        }
    });
}

#[test]
fn in_the_background_it_reports_the_link_and_can_be_stopped() {
    isolated(&[], |lab| {
        let world = World::new(lab);
        let handler = world.handler.to_str().unwrap();
        let run = |args: &[&str]| {
            let base = ["ifplugd", "-i", "eth0", "-r", handler, "-d0"];
            world.home.try_run(&[&base[..], args].concat()).status.code()
        };
        assert_eq!(run(&["-w"]), Some(2), "up");
        world.wait_told(&["eth0 up disabled up"]);
        assert_eq!(run(&["-c"]), Some(0), "it lives on");
        assert_eq!(run(&["-k", "-W"]), Some(0));
        world.wait_told(&["eth0 up disabled up", "eth0 down up disabled"]);
        world.cable.pull();
        world.wait_operstate("DOWN");
        assert_eq!(run(&["-w"]), Some(3), "down");
        assert_eq!(run(&["-w"]), Some(1), "already running");
        assert_eq!(run(&["-k", "-W"]), Some(0));
        assert_eq!(run(&[]), Some(0), "without waiting");
        wait_until("it runs", PATIENCE, || run(&["-c"]) == Some(0));
        assert_eq!(run(&["-k", "-W"]), Some(0));
    });
}

//! The copy that a `runsvdir -1` leaves behind when it is sent TERM, so that its services keep a
//! supervisor.

use std::fs;

use nix::sys::signal::Signal;

use crate::subject::{hosted, ours, signal};

const SLEEPER: &str = "echo start >>starts; exec sleep 1000";

#[test]
fn a_copy_goes_on_with_the_services_after_term() {
    hosted(|world| {
        world.script("a/run", "echo hello; echo start >>starts; exec sleep 1000");
        world.script("a/log/run", "exec cat >>out");
        world.script("a/finish", "echo $1 $2 >>finished");
        // runsvdir sends the signal although a control script hangs.
        world.script("b/run", SLEEPER);
        world.script("b/control/t", "echo hanging >>got; exec sleep 1000");
        let runsvdir = world.runsvdir();
        ["a", "a/log", "b"].iter().for_each(|service| world.wait_stat(service, "run"));
        world.wait_lines("a/log/out", 1);
        let pids = [world.pid("a"), world.pid("a/log"), world.pid("b")];
        world.control("b", "t");
        world.wait_lines("b/got", 1);
        runsvdir.signal(Signal::SIGTERM);
        assert_eq!(runsvdir.wait(), 0);
        assert_eq!([world.pid("a"), world.pid("a/log")], pids[..2]);
        world.wait_pid("b", pids[2]);
        fs::remove_file(world.at("b/control/t")).unwrap();
        // The copy keeps the old pipe to the log, and does not start new services.
        world.script("new/run", SLEEPER);
        world.control("a", "t");
        world.wait_lines("a/log/out", 2);
        assert_eq!((world.lines("a/finished"), world.pid("a/log")), (vec!["-1 0".to_owned()], pids[1]));
        world.control("a", "t");
        world.wait_lines("a/finished", 2);
        assert_eq!(world.lines("a/finished")[1], "-1 15", "a child of the copy tells how it ended");
        assert!(!world.is_supervised("new"));
        // The copy handles TERM as a runsv does.
        let copies = || -> Vec<i32> {
            world
                .processes()
                .into_iter()
                .filter(|(_, line)| line.ends_with("/runsvdir -1 ."))
                .map(|(pid, _)| pid)
                .collect()
        };
        // A child that has not executed its program yet has the same command line.
        world.wait("the copy to be alone", || copies().len() == 1);
        signal(copies()[0], Signal::SIGTERM);
        world.wait("its end", || copies().is_empty());
        assert_eq!([world.stat("a"), world.stat("b")], ["down\n", "down\n"]);
    });
}

#[test]
fn the_copy_lets_the_next_one_have_the_services() {
    ours(|world| {
        for name in ["a", "b"] {
            world.script(&format!("{name}/run"), "echo hello; exec sleep 1000");
            world.script(&format!("{name}/log/run"), "exec cat >>out");
        }
        let runsvdir = world.start("runsvdir", &["-1", "."]);
        ["a", "b"].iter().for_each(|name| drop(world.wait_lines(&format!("{name}/log/out"), 1)));
        ["a", "b"].iter().for_each(|name| world.wait_stat(name, "run"));
        let pids = || ["a", "b"].map(|name| (world.pid(name), world.pid(&format!("{name}/log"))));
        let before = pids();
        let copies = |pid: i32| world.processes().iter().any(|(p, l)| *p != pid && l.ends_with("/runsvdir -1 ."));
        runsvdir.signal(Signal::SIGTERM);
        assert_eq!(runsvdir.wait(), 0);
        assert!(copies(0));
        // The next one is of either kind.
        let next = world.runsvdir();
        world.wait("the copy to end", || !copies(next.pid()));
        ["a", "b"].iter().for_each(|name| world.wait(name, || world.is_supervised(name)));
        assert_eq!(pids(), before);
        world.control("a", "t");
        world.wait_lines("a/log/out", 2);
        assert_eq!(pids()[1], before[1]);
        next.signal(Signal::SIGHUP);
        assert_eq!(next.wait(), 111);
        world.wait("all to end", || world.processes().is_empty());
    });
}

#[test]
fn the_copy_holds_the_locks_of_its_services_and_hears_of_every_end() {
    hosted(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/log/run", "exec cat >/dev/null");
        // While control/u hangs ./run has not been started.
        world.script("b/run", SLEEPER);
        world.script("b/control/u", "echo hanging >>got; exec sleep 1000");
        let runsvdir = world.runsvdir();
        ["a", "a/log"].iter().for_each(|service| world.wait_stat(service, "run"));
        world.wait_lines("b/got", 1);
        // More than one TERM: all are for the original, until it is gone.
        let stat = format!("/proc/{}/stat", runsvdir.pid());
        world.wait("its end", || {
            (0..1000).for_each(|_| runsvdir.signal(Signal::SIGTERM));
            fs::read_to_string(&stat).unwrap().contains(") Z ")
        });
        assert_eq!(runsvdir.wait(), 0);
        assert_eq!(world.start("runsv", &["a"]).wait(), 111);
        let said = "runsv a: fatal: unable to lock supervise/lock: temporary failure\n";
        assert!(world.errors().ends_with(said), "{}", world.errors());
        world.wait_stat("b", "run");
        fs::remove_file(world.at("b/control/u")).unwrap();
        for service in ["a", "a/log", "b"] {
            let pid = world.pid(service);
            signal(pid, Signal::SIGKILL);
            world.wait_pid(service, pid);
        }
        assert_eq!(world.lines("a/starts").len(), 2);
    });
}

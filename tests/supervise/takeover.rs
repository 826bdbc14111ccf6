//! kill -9 of supervisors: ours starts nothing twice and loses nothing. runit starts a second
//! instance.

use std::fs;

use nix::sys::signal::Signal;

use crate::subject::{World, ours, signal};

const SLEEPER: &str = "echo start $$ >>starts; exec sleep 1000";

#[test]
fn a_runsv_after_a_killed_one_takes_over_the_daemon() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/finish", "echo \"$*\" >>args");
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        let status = world.status("a");
        runsv.kill();
        let _again = world.runsv("a");
        world.control("a", "Zc");
        world.wait_stat("a", "run");
        assert_eq!(world.pid("a"), pid);
        world.wait_count("sleep 1000", 1);
        assert_eq!(world.status("a")[..12], status[..12], "it runs since it was started");
        // The new runsv controls and watches the process like a child.
        world.control("a", "t");
        let new = world.wait_pid("a", pid);
        assert_eq!(world.lines("a/args"), ["-1 0"]);
        world.wait_count("sleep 1000", 1);
        // The next process is its child again.
        signal(new, Signal::SIGKILL);
        world.wait_lines("a/args", 2);
        assert_eq!(world.lines("a/args")[1], "-1 9");
    });
}

#[test]
fn what_was_wanted_goes_on_after_a_killed_runsv() {
    ours(|world| {
        world.script("down/run", SLEEPER);
        world.script("up/run", SLEEPER);
        world.write("up/down", "");
        world.script("once/run", SLEEPER);
        let all = ["down", "up", "once"].map(|name| world.runsv(name));
        world.wait_stat("down", "run");
        world.wait_stat("once", "run");
        for (name, letter, stat) in [("down", "d", "down"), ("up", "u", "run"), ("once", "o", "run, want down")] {
            world.control(name, letter);
            world.wait_stat(name, stat);
        }
        all.into_iter().for_each(crate::subject::Daemon::kill);
        let _again = ["down", "up", "once"].map(|name| world.runsv(name));
        for (name, stat) in [("down", "down"), ("up", "run"), ("once", "run, want down")] {
            world.wait_stat(name, stat);
            assert_eq!(world.lines(&format!("{name}/starts")).len(), 1, "{name}");
        }
    });
}

#[test]
fn a_runsv_that_was_told_to_exit_leaves_nothing_to_take_over() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        world.control("a", "x");
        assert_eq!(runsv.wait(), 0);
        let _again = world.runsv("a");
        world.wait_stat("a", "run");
        assert!(!world.errors().contains("taking over"), "{}", world.errors());
    });
}

#[test]
fn a_daemon_that_ended_while_nobody_watched_gets_its_finish_and_is_started_again() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/finish", "echo \"$*\" >>args");
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        runsv.kill();
        signal(pid, Signal::SIGKILL);
        world.wait_count("sleep 1000", 0);
        let _again = world.runsv("a");
        world.wait_pid("a", pid);
        assert_eq!(world.lines("a/args"), ["-1 0"]);
    });
}

#[test]
fn what_was_to_end_in_time_is_killed_also_after_a_killed_runsv() {
    ours(|world| {
        world.script("a/run", "trap '' TERM; echo start >>starts; while :; do sleep 0.05; done");
        world.script("a/finish", "echo finish >>finishes; exec sleep 1001");
        world.write("a/timeout-kill", "1500");
        world.write("a/timeout-finish", "1500");
        let runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "run");
        world.control("a", "t");
        world.wait_stat("a", "run, got TERM");
        runsv.kill();
        let runsv = world.runsv("a");
        world.wait_lines("a/finishes", 1);
        world.wait_stat("a", "finish");
        runsv.kill();
        let _again = world.runsv("a");
        world.wait_lines("a/starts", 2);
        assert_eq!(world.errors().matches("has not ended in time: killing it").count(), 2, "{}", world.errors());
    });
}

#[test]
fn a_process_that_only_has_the_same_number_is_not_taken_over() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        runsv.kill();
        let record = world.record("a");
        assert!(record.starts_with("state=run ") && record.contains(&format!(" pid={pid} ")), "{record}");
        let start = record.split(' ').find_map(|word| word.strip_prefix("start=")).unwrap();
        // The record says that this process started a tick later: then it is another process.
        let later = start.parse::<u64>().unwrap() + 1;
        let other = record.replace(&format!(" start={start}"), &format!(" start={later}"));
        world.write_record("a", &other);
        let _again = world.runsv("a");
        world.wait_pid("a", pid);
        // runsv does not signal a foreign process either.
        assert!(fs::metadata(format!("/proc/{pid}")).is_ok());
    });
}

#[test]
fn a_status_that_cannot_be_read_hides_no_living_daemon() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        runsv.kill();
        world.write("a/supervise/status", "");
        let _again = world.runsv("a");
        world.wait_stat("a", "run");
        assert_eq!(world.pid("a"), pid);
        world.wait_count("sleep 1000", 1);
    });
}

#[test]
fn the_log_and_its_pipe_are_taken_over_and_no_line_is_lost() {
    ours(|world| {
        let speaker = "while :; do n=$((n + 1)); echo \"$$ $n\"; [ -e stop ] && exit; sleep 0.005; done";
        world.script("a/run", speaker);
        // read takes one byte at a time from a pipe, and the log dies between two lines. Otherwise
        // the log would take what it had read with it.
        let logger = "while read -r line; do echo \"$line\" >>out; [ ! -e die ] || { rm die; kill -9 $$; }; done";
        world.script("a/log/run", logger);
        let mut runsv = world.runsv("a");
        for round in 1..=3 {
            world.wait_lines("a/log/out", round * 20);
            let (run, log) = (world.pid("a"), world.pid("a/log"));
            runsv.kill();
            runsv = world.runsv("a");
            assert_eq!((world.pid("a"), world.pid("a/log")), (run, log), "both go on");
        }
        // The log dies, and its successor gets the same pipe.
        let log = world.pid("a/log");
        world.write("a/log/die", "");
        world.wait_pid("a/log", log);
        let seen = world.lines("a/log/out").len();
        world.wait_lines("a/log/out", seen + 20);
        world.control("a", "o");
        world.write("a/stop", "");
        world.wait_stat("a", "down");
        world.control("a", "x");
        assert_eq!(runsv.wait(), 0);
        assert_each_line_once(world);
    });
}

#[test]
fn the_pipe_is_found_through_the_service_when_the_log_has_died_too() {
    ours(|world| {
        world.script("a/run", "echo 1 1; while [ ! -e go ]; do sleep 0.02; done; echo 1 2; exec sleep 1000");
        world.script("a/log/run", "exec cat >>out");
        let runsv = world.runsv("a");
        world.wait_lines("a/log/out", 1);
        let (run, log) = (world.wait_pid("a", 0), world.wait_pid("a/log", 0));
        runsv.kill();
        signal(log, Signal::SIGKILL);
        world.wait("the log to be gone", || world.processes().iter().all(|(pid, _)| *pid != log));
        let _again = world.runsv("a");
        world.wait_pid("a/log", log);
        assert_eq!(world.pid("a"), run);
        world.write("a/go", "");
        world.wait_lines("a/log/out", 2);
        assert_each_line_once(world);
    });
}

/// Lines are `PID N`. For each PID, N runs from 1 on without a gap.
fn assert_each_line_once(world: &World) {
    let mut next = std::collections::BTreeMap::new();
    for line in world.lines("a/log/out") {
        let (pid, n) = line.split_once(' ').unwrap();
        let expected = next.entry(pid.to_owned()).or_insert(1);
        assert_eq!(n.parse::<u32>().unwrap(), *expected, "after {line}");
        *expected += 1;
    }
}

#[test]
fn a_runsvdir_after_a_killed_one_leaves_the_runsvs_alone_and_quiet_and_replaces_them_when_they_end() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.script("b/run", SLEEPER);
        let runsvdir = world.start("runsvdir", &["."]);
        world.wait_stat("a", "run");
        world.wait_stat("b", "run");
        let daemon = world.pid("a");
        let runsv_of = |name: &str| {
            let line = format!("runsv {name}");
            world.processes().into_iter().find(|(_, l)| *l == line).map_or(0, |(pid, _)| pid)
        };
        let (old_a, old_b) = (runsv_of("a"), runsv_of("b"));
        runsvdir.kill();
        let _again = world.start("runsvdir", &["."]);
        let complaint =
            |name: &str| format!("runsvdir .: warning: {name}: another runsv is running there: waiting for its end\n");
        world.wait("both complaints", || ["a", "b"].iter().all(|n| world.errors().contains(&complaint(n))));
        assert_eq!((runsv_of("a"), runsv_of("b")), (old_a, old_b));
        // The old runsv ends and the new one takes over; the daemon does not notice.
        signal(old_a, Signal::SIGKILL);
        world.wait("a new runsv a", || ![0, old_a].contains(&runsv_of("a")) && world.is_supervised("a"));
        assert_eq!(world.pid("a"), daemon);
        world.wait_count("sleep 1000", 2);
        // A removed directory also ends a runsv that is not a child of this runsvdir.
        fs::rename(world.at("b"), world.dir.join("elsewhere")).unwrap();
        world.wait("the old runsv b to end", || runsv_of("b") == 0);
        let errors = world.errors();
        assert_eq!(errors.matches("another runsv").count(), 2, "{errors}");
        assert!(!errors.contains("unable to lock"), "{errors}");
    });
}

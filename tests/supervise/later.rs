//! Files that appear in a service directory, or disappear from it, after its runsv has started; and
//! processes that a service leaves behind.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::subject::{World, both, each_way, ours, with_runsv};

const SLEEPER: &str = "exec sleep 1000";

/// Makes a log/ elsewhere and moves it into the service `a`.
fn give_a_log(world: &World) {
    world.script("../made/run", &format!("exec cat >>{}", world.at("logged").display()));
    fs::rename(world.dir.join("made"), world.at("a/log")).unwrap();
}

#[test]
fn a_log_that_comes_later_is_taken_up_while_nothing_else_happens() {
    ours(|world| {
        world.script("a/run", "echo hello; exec sleep 1000");
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        give_a_log(world);
        world.wait("the log", || world.is_supervised("a/log"));
        world.wait_stat("a/log", "run");
        assert_eq!(world.sv("status a"), (0, "run: a: (pid P) Ts; run: log: (pid P) Ts\n".into()));
        let pid = world.pid("a");
        assert_eq!(world.sv("restart a").0, 0);
        assert_eq!(world.wait_lines("logged", 1), ["hello"]);
        assert_ne!(world.pid("a"), pid);
        // With the log's pipe the service ends as it always does.
        assert_eq!(world.sv("shutdown a"), (0, "ok: a: runsv not running\n".into()));
    });
}

#[test]
fn a_log_that_comes_just_before_a_restart_gets_the_first_line() {
    ours(|world| {
        world.script("a/run", "echo hello; exec sleep 1000");
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        give_a_log(world);
        assert_eq!(world.sv("restart a").0, 0);
        assert_eq!(world.wait_lines("logged", 1), ["hello"]);
    });
}

#[test]
fn a_log_that_is_made_in_steps_is_taken_up_when_it_is_complete() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        fs::create_dir(world.at("a/log")).unwrap();
        world.wait("the empty log to be taken up", || world.is_supervised("a/log"));
        world.wait("a complaint that names the log", || {
            world.errors().contains("runsv a/log: fatal: unable to start log/./run: file does not exist\n")
        });
        world.script("a/log/run", "exec cat >/dev/null");
        world.wait_stat("a/log", "run");
    });
}

#[test]
fn a_service_whose_log_came_later_outlives_a_killed_runsv() {
    with_runsv(|world| {
        world.script("a/run", "echo hello; exec sleep 1000");
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        give_a_log(world);
        world.wait_stat("a/log", "run");
        let (pid, log) = (world.pid("a"), world.pid("a/log"));
        runsv.kill();
        let _runsv = world.runsv("a");
        // The log has met the end of its pipe. The service never had this log, so runsv does not
        // end the service for it.
        world.wait_pid("a/log", log);
        assert_eq!(world.pid("a"), pid);
        assert!(!world.errors().contains("restarting"), "{}", world.errors());
        assert_eq!(world.sv("restart a").0, 0);
        assert_eq!(world.wait_lines("logged", 1), ["hello"]);
    });
}

#[test]
fn a_complaint_of_the_log_says_that_it_is_the_logs() {
    both(|world| {
        world.script("a/run", SLEEPER);
        world.write("a/log/run", "");
        let _runsv = world.runsv("a");
        world.wait("the complaint", || world.errors().contains("unable to start log/./run: access denied\n"));
    });
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/log/run", "exec cat >/dev/null");
        world.write("a/log/timeout-kill", "soon");
        let _runsv = world.runsv("a");
        let said = "runsv a/log: warning: ./timeout-kill: a number of milliseconds expected, not \"soon\"\n";
        world.wait("the complaint", || world.errors().contains(said));
    });
}

#[test]
fn a_removed_supervise_is_made_again_and_a_removed_directory_ends_it_while_nothing_else_happens() {
    ours(|world| {
        for name in ["a", "b"] {
            world.script(&format!("{name}/run"), SLEEPER);
        }
        world.script("a/log/run", "exec cat >/dev/null");
        let (_a, b) = (world.runsv("a"), world.runsv("b"));
        ["a/log", "a", "b"].iter().for_each(|name| world.wait_stat(name, "run"));
        let pids = [world.pid("a"), world.pid("a/log")];
        fs::remove_dir_all(world.at("a/supervise")).unwrap();
        fs::remove_dir_all(world.at("b")).unwrap();
        world.wait("supervise/ to be made again", || world.is_supervised("a") && world.stat("a") == "run\n");
        assert_eq!(world.sv("status a"), (0, "run: a: (pid P) Ts; run: log: (pid P) Ts\n".into()));
        // Once more, in another way: a user has made an empty supervise/.
        fs::rename(world.at("a/supervise"), world.dir.join("old")).unwrap();
        fs::create_dir(world.at("a/supervise")).unwrap();
        world.wait("it to be taken again", || world.is_supervised("a") && world.stat("a") == "run\n");
        assert_eq!(world.sv("check a").0, 0);
        assert_eq!([world.pid("a"), world.pid("a/log")], pids);
        if world.subject.is_hosted() {
            world.wait("the service of the removed directory to be gone", || world.count("sleep 1000") == 1);
        } else {
            assert_eq!(b.wait(), 0);
        }
    });
}

#[test]
fn a_log_directory_that_is_replaced_is_reached_again() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/log/run", "exec cat >/dev/null");
        let _runsv = world.runsv("a");
        world.wait_stat("a/log", "run");
        fs::rename(world.at("a/log"), world.dir.join("old")).unwrap();
        give_a_log(world);
        world.wait("the new directory to be taken", || world.is_supervised("a/log") && world.stat("a/log") == "run\n");
        assert_eq!(world.sv("restart a/log").0, 0);
    });
}

#[test]
fn a_runsv_sleeps_while_its_service_makes_files_beside_it() {
    with_runsv(|world| {
        world.script(
            "a/run",
            "i=0; while [ $i -lt 300 ]; do : >new; rm new; i=$((i+1)); done; echo >made; exec sleep 1000",
        );
        let runsv = world.runsv("a");
        let switches = || {
            let status = fs::read_to_string(format!("/proc/{}/status", runsv.pid())).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            line.trim().parse::<u32>().unwrap()
        };
        let before = switches();
        world.wait_lines("a/made", 1);
        // There are six hundred changes, but runsv looks once a second.
        assert!(switches() - before < 100, "{}", switches() - before);
    });
}

/// Leaves a process with the log's pipe that outlives the service.
const LEAVES_ONE: &str = "sleep 1000 & exec sleep 1000";

#[test]
fn a_process_that_was_left_behind_does_not_keep_the_log_and_its_runsv_for_ever() {
    ours(|world| {
        for (name, log) in [("a", "exec cat >/dev/null"), ("b", "trap '' TERM; while :; do sleep 0.1; done")] {
            world.script(&format!("{name}/run"), LEAVES_ONE);
            world.script(&format!("{name}/log/run"), log);
            let runsv = world.runsv(name);
            world.wait_stat(name, "run");
            world.wait_stat(&format!("{name}/log"), "run");
            world.wait_count("sleep 1000", if name == "a" { 2 } else { 3 });
            // sv asks the service and its log to end at the same time.
            let shutdown = world.command("sv", &["force-shutdown", name]).stdout(Stdio::piped()).spawn().unwrap();
            let said = shutdown.wait_with_output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("ok: {name}: runsv not running\n"));
            assert_eq!(runsv.wait(), 0);
        }
        assert!(world.errors().contains("runsv a/log: warning: a process that the service left behind holds the pipe"));
    });
}

#[test]
fn a_short_wait_ends_the_log_too_when_it_is_forced() {
    ours(|world| {
        world.script("a/run", LEAVES_ONE);
        world.script("a/log/run", "exec cat >/dev/null");
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        world.wait_stat("a/log", "run");
        world.wait_count("sleep 1000", 2);
        assert_eq!(world.sv("-w 1 force-shutdown a").0, 1);
        assert_eq!(runsv.wait(), 0);
        assert!(!world.errors().contains("left behind"), "{}", world.errors());
    });
}

#[test]
fn with_w_a_process_that_was_left_behind_does_not_keep_runsvdir() {
    ours(|world| {
        world.script("a/run", LEAVES_ONE);
        world.script("a/log/run", "exec cat >/dev/null");
        let runsvdir =
            world.start("runsvdir", if world.subject.is_hosted() { &["-1", "-w", "."] } else { &["-w", "."] });
        world.wait_stat("a/log", "run");
        world.wait_count("sleep 1000", 2);
        runsvdir.signal(Signal::SIGTERM);
        assert_eq!(runsvdir.wait(), 0);
    });
}

#[test]
fn a_control_script_gets_the_process_and_the_name_of_runit() {
    each_way(|world| {
        let ours = world.subject.runsv != crate::subject::Tools::Runit;
        world.script("a/run", SLEEPER);
        for letter in ["u", "h"] {
            world.script(&format!("a/control/{letter}"), "echo $0 $* >>called");
        }
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        world.control("a", "h");
        let called = world.wait_lines("a/called", 2);
        // runit has this argument on its master branch, after 2.3.0.
        let with = |pid: i32| if ours { format!(" {pid}") } else { String::new() };
        assert_eq!(called, [format!("control/u{}", with(0)), format!("control/h{}", with(world.pid("a")))]);
    });
}

#[test]
fn runsv_run_counts_where_the_directory_is_anothers() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: needs root, to be another user");
        assert!(std::env::var_os("CI").is_none());
        return;
    }
    with_runsv(|world| {
        world.script("a/run", SLEEPER);
        let run = world.dir.join("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&world.dir, fs::Permissions::from_mode(0o755)).unwrap();
        // The binary may lie in a directory that only root can enter.
        let program = world.dir.join("netsv");
        fs::copy(env!("CARGO_BIN_EXE_netsv"), &program).unwrap();
        fs::create_dir(world.dir.join("theirs")).unwrap();
        for name in ["runsv", "sv"] {
            symlink(&program, world.dir.join("theirs").join(name)).unwrap();
        }
        let nobody = 65534;
        std::os::unix::fs::chown(&run, Some(nobody), Some(nobody)).unwrap();
        let as_nobody = |name: &str, args: &[&str], run: Option<&std::path::Path>| {
            use std::os::unix::process::CommandExt;
            let mut command = world.command("sv", args);
            let mut other = std::process::Command::new(world.dir.join("theirs").join(name));
            other.args(args).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            run.map(|run| other.env("RUNSV_RUN", run));
            command.stdin(Stdio::null());
            other.current_dir(world.at("")).uid(nobody).gid(nobody);
            other
        };
        let refused = as_nobody("runsv", &["a"], None).output().unwrap();
        assert_eq!(refused.status.code(), Some(111));
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(said, "runsv a: fatal: unable to create supervise: access denied\n");
        let mut runsv = as_nobody("runsv", &["a"], Some(&run)).spawn().unwrap();
        let started = as_nobody("sv", &["start", "a"], Some(&run)).output().unwrap();
        let said = String::from_utf8(started.stdout).unwrap();
        assert!(said.starts_with("ok: run: a: "), "{said}");
        assert_eq!(fs::read_dir(&run).unwrap().count(), 1);
        assert!(as_nobody("sv", &["shutdown", "a"], Some(&run)).status().unwrap().success());
        assert!(runsv.wait().unwrap().success());
    });
}

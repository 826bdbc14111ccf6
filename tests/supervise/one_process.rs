//! `runsvdir -1`: all services in one process, and `-w`, for the first process of a container.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::subject::{World, hosted, ours};

const SLEEPER: &str = "echo start >>starts; exec sleep 1000";

#[test]
fn directories_come_go_and_change_their_names() {
    hosted(|world| {
        world.script("a/run", SLEEPER);
        world.script(".hidden/run", SLEEPER);
        world.write("file", "");
        world.script("../real/run", SLEEPER);
        symlink("../real", world.at("link")).unwrap();
        symlink("../real", world.at("zz-same")).unwrap();
        let _runsvdir = world.runsvdir();
        world.wait_stat("a", "run");
        world.wait_stat("link", "run");
        world.script("../new/run", SLEEPER);
        fs::rename(world.dir.join("new"), world.at("new")).unwrap();
        world.wait_stat("new", "run");
        // After a rename the process is the same. runsvdir records its further events under the new
        // name.
        let pid = world.pid("a");
        fs::rename(world.at("a"), world.at("b")).unwrap();
        fs::rename(world.at("new"), world.dir.join("old")).unwrap();
        world.wait("new to end", || !world.is_supervised("../old"));
        assert_eq!((world.pid("b"), world.lines("zz-same/starts").len()), (pid, 1));
        world.control("b", "t");
        world.wait_pid("b", pid);
        world.wait_lines("b/starts", 2);
        // A directory that takes the place of another is another service.
        world.script("../two/run", SLEEPER);
        fs::rename(world.at("b"), world.dir.join("gone")).unwrap();
        fs::rename(world.dir.join("two"), world.at("b")).unwrap();
        world.wait_lines("b/starts", 1);
        world.wait("the old one to end", || !world.is_supervised("../gone"));
        assert_eq!((world.lines("b/starts").len(), world.lines("../gone/starts").len()), (1, 2));
        assert!(!world.at(".hidden/supervise").exists());
        assert_eq!(world.errors(), "");
    });
}

#[test]
fn a_directory_that_is_removed_and_made_again_is_another_service() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let _runsvdir = world.runsvdir();
        for _ in 0..3 {
            world.wait_stat("a", "run");
            world.wait_lines("a/starts", 1);
            let pid = world.pid("a");
            fs::remove_dir_all(world.at("a")).unwrap();
            world.script("a/run", SLEEPER);
            world.wait_pid("a", pid);
            world.wait_count("sleep 1000", 1);
        }
    });
}

#[test]
fn a_supervise_directory_that_is_removed_is_made_again() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        fs::remove_dir_all(world.at("a/supervise")).unwrap();
        crate::subject::signal(pid, Signal::SIGKILL);
        world.wait("supervise", || world.is_supervised("a"));
        world.wait_pid("a", pid);
        world.control("a", "d");
        world.wait_stat("a", "down");
    });
}

#[test]
fn killed_and_started_again_it_takes_over_every_service() {
    hosted(|world| {
        let names: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
        for name in &names {
            world.script(&format!("{name}/run"), "echo hello; exec sleep 1000");
            world.script(&format!("{name}/log/run"), "exec cat >>out");
        }
        let mut runsvdir = world.runsvdir();
        let pids = || -> Vec<(i32, i32)> {
            let one = |name: &String| (world.pid(name), world.pid(&format!("{name}/log")));
            names.iter().map(one).collect()
        };
        for name in &names {
            world.wait_lines(&format!("{name}/log/out"), 1);
            world.wait_stat(name, "run");
        }
        let before = pids();
        for _ in 0..3 {
            runsvdir.kill();
            runsvdir = world.runsvdir();
            world.wait("all to be taken over", || names.iter().all(|name| world.is_supervised(name)));
            assert_eq!(pids(), before);
        }
        world.wait_count("sleep 1000", 20);
        // The services still have the old pipes.
        world.control("s3", "t");
        world.wait_lines("s3/log/out", 2);
    });
}

#[test]
fn a_service_that_was_told_to_exit_is_taken_up_again() {
    hosted(|world| {
        world.script("a/run", SLEEPER);
        world.script("b/run", SLEEPER);
        let _runsvdir = world.runsvdir();
        world.wait_stat("a", "run");
        world.wait_stat("b", "run");
        let b = world.pid("b");
        assert_eq!(world.sv("exit a"), (0, String::new()));
        world.wait_lines("a/starts", 2);
        world.wait_stat("a", "run");
        assert_eq!(world.pid("b"), b);
    });
}

#[test]
fn nobody_waits_for_another_ones_scripts_locks_or_troubles() {
    hosted(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/control/h", "echo hanging >>got; while [ ! -e go ]; do sleep 0.02; done");
        world.script("b/run", SLEEPER);
        world.write("fifo/supervise/control", "");
        world.script("fifo/run", SLEEPER);
        // The test itself holds the lock of the service's log.
        world.script("locked/run", SLEEPER);
        world.script("locked/log/run", "exec cat");
        world.write("locked/log/supervise/lock", "");
        let lock = fs::File::options().append(true).open(world.at("locked/log/supervise/lock")).unwrap();
        let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, e)| e).unwrap();
        let _runsvdir = world.runsvdir();
        world.wait_stat("a", "run");
        world.control("a", "h");
        world.wait_lines("a/got", 1);
        world.wait_stat("b", "run");
        let pid = world.pid("b");
        world.control("b", "t");
        world.wait_pid("b", pid);
        let said = |text: &str| world.wait(text, || world.errors().contains(text));
        said("locked: unable to lock log/supervise/lock: temporary failure\n");
        said("fifo: supervise/control exists but is not a fifo\n");
        assert_eq!(world.errors().matches("unable to lock").count(), 1, "said once: {}", world.errors());
        // After the lock is released both run.
        drop(lock);
        fs::remove_file(world.at("fifo/supervise/control")).unwrap();
        world.wait_stat("locked", "run");
        world.wait_stat("fifo", "run");
        world.write("a/go", "");
    });
}

#[test]
fn a_fifo_in_place_of_a_file_keeps_nobody_waiting() {
    let fifo = |world: &World, file: &str| {
        nix::unistd::mkfifo(&world.at(file), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    };
    hosted(|world| {
        world.script("a/run", SLEEPER);
        fifo(world, "a/timeout-kill");
        world.script("b/run", "echo start >>starts");
        fifo(world, "b/finish");
        world.script("c/run", SLEEPER);
        world.write("c/supervise/none", "");
        fifo(world, "c/supervise/lock");
        world.script("d/run", SLEEPER);
        let _runsvdir = world.runsvdir();
        ["a", "d"].iter().for_each(|service| world.wait_stat(service, "run"));
        world.wait_lines("b/starts", 2);
        world.wait("the lock's error", || world.errors().contains("c: unable to open supervise/lock: "));
    });
}

#[test]
fn with_w_and_a_limit_what_does_not_end_is_ended() {
    ours(|world| {
        world.script(
            "good/run",
            "trap 'kill $!; echo end >>out; exit' TERM; echo ready >>out; while :; do sleep 1000 & wait; done",
        );
        world.script("deaf/run", "trap '' TERM; echo ready >>out; while :; do sleep 1000 & wait; done");
        world.script("slow/run", "echo ready >>out; exec sleep 1000");
        world.script("slow/finish", "echo finish >>out; exec sleep 1000");
        world.script("script/run", "echo ready >>out; exec sleep 1000");
        world.script("script/control/t", "echo hanging >>out; exec sleep 1000");
        // A foreign process, in a session of its own, holds the pipe to the log.
        world.script("pipe/run", "setsid sh -c 'sleep 1000 & sleep 1000' & echo ready >>out; exec sleep 1000");
        world.script("pipe/log/run", "exec cat >>all");
        let names = ["good", "deaf", "slow", "script", "pipe"];
        let how: &[&str] = if world.subject.is_hosted() { &["-1W1", "."] } else { &["-W", "1", "."] };
        let runsvdir = world.start("runsvdir", how);
        for name in names {
            world.wait_lines(&format!("{name}/out"), 1);
            world.wait_stat(name, "run");
        }
        runsvdir.signal(Signal::SIGTERM);
        assert_eq!(runsvdir.wait(), 1);
        world.wait("nothing to be left", || world.processes().is_empty());
        assert_eq!(world.lines("good/out"), ["ready", "end"]);
        let said = "runsvdir .: warning: not all has ended within 1 seconds, sending TERM to what is left: deaf ";
        assert!(world.errors().contains(said), "{}", world.errors());
        // All end in time, so runsvdir says nothing.
        ["deaf", "slow", "script", "pipe"].iter().for_each(|name| fs::remove_dir_all(world.at(name)).unwrap());
        fs::remove_file(world.at("good/out")).unwrap();
        let said = world.errors();
        let runsvdir = world.start("runsvdir", how);
        world.wait_lines("good/out", 1);
        world.wait_stat("good", "run");
        runsvdir.signal(Signal::SIGTERM);
        assert_eq!((runsvdir.wait(), world.errors()), (0, said));
    });
}

#[test]
fn term_leaves_the_services_and_hup_ends_them() {
    hosted(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/log/run", "cat >/dev/null; echo end >>out");
        let runsvdir = world.runsvdir();
        world.wait_stat("a", "run");
        world.wait_stat("a/log", "run");
        let pid = world.pid("a");
        runsvdir.signal(Signal::SIGTERM);
        assert_eq!(runsvdir.wait(), 0);
        let runsvdir = world.runsvdir();
        world.wait("it to be taken over", || world.errors().contains("taking over ./run"));
        world.wait_stat("a", "run");
        assert_eq!(world.pid("a"), pid);
        runsvdir.signal(Signal::SIGHUP);
        assert_eq!(runsvdir.wait(), 111);
        assert_eq!((world.stat("a"), world.lines("a/log/out")), ("down\n".into(), vec!["end".to_owned()]));
        world.wait("nothing to be left", || world.processes().is_empty());
    });
}

#[test]
fn with_w_term_ends_everything_in_order() {
    ours(|world| {
        world.script(
            "a/run",
            "trap 'sleep 0.1; echo end >>out; exit' TERM; echo ready >>out; while :; do sleep 1000 & wait; done",
        );
        world.script("b/run", SLEEPER);
        let how = if world.subject.is_hosted() { "-1w" } else { "-w" };
        let runsvdir = world.start("runsvdir", &[how, "."]);
        world.wait_lines("a/out", 1);
        world.wait_stat("b", "run");
        runsvdir.signal(Signal::SIGTERM);
        assert_eq!(runsvdir.wait(), 0);
        assert_eq!(
            (world.lines("a/out"), world.stat("a")),
            (vec!["ready".to_owned(), "end".to_owned()], "down\n".into())
        );
        assert!(!world.is_supervised("a") && !world.is_supervised("b"));
        // runsvdir obeys a second signal at once.
        world.script("stubborn/run", "trap '' TERM; echo ready >>out; while :; do sleep 1000 & wait; done");
        let runsvdir = world.start("runsvdir", &[how, "."]);
        world.wait_lines("stubborn/out", 1);
        world.wait_stat("stubborn", "run");
        runsvdir.signal(Signal::SIGTERM);
        world.wait_stat("stubborn", "run, got TERM, want exit");
        runsvdir.signal(Signal::SIGINT);
        assert_eq!(runsvdir.wait(), 1);
    });
}

#[test]
fn with_w_a_service_that_others_call_up_at_the_end_does_not_stay() {
    ours(|world| {
        // dhcp_IF does this to fw when it ends.
        let text = "trap 'printf u >supervise/control; sleep 0.1; exit' TERM; echo ready >>out; while :; do sleep 1000 & wait; done";
        world.script("a/run", text);
        let how = if world.subject.is_hosted() { "-1w" } else { "-w" };
        let runsvdir = world.start("runsvdir", &[how, "."]);
        world.wait_lines("a/out", 1);
        world.wait_stat("a", "run");
        runsvdir.signal(Signal::SIGTERM);
        assert_eq!(runsvdir.wait(), 0);
        assert_eq!((world.lines("a/out").len(), world.stat("a")), (1, "down\n".into()));
        assert!(!world.is_supervised("a"));
    });
}

/// The first process of the namespace that `unshare` has made. `unshare` passes no signal on to it.
fn first_of(unshare: &Child) -> i32 {
    let path = format!("/proc/{0}/task/{0}/children", unshare.id());
    fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

#[test]
fn as_the_first_process_it_ends_by_what_containers_send() {
    ours(|world| {
        let one = if world.subject.is_hosted() { "-1" } else { "-" };
        world.script(
            "a/run",
            "trap 'kill $!; echo end >>out; exit' TERM; echo ready >>out; while :; do sleep 1000 & wait; done",
        );
        // LXC and Incus send PWR to stop, and INT to reboot.
        for (signal, lines) in [(Signal::SIGPWR, 2), (Signal::SIGINT, 4)] {
            let mut child = first_process(world, &format!("{one}w"));
            world.wait_lines("a/out", lines - 1);
            world.wait("its status", || world.stat("a") == "run\n");
            crate::subject::signal(first_of(&child), signal);
            assert_eq!(child.wait().unwrap().code(), Some(0));
            assert_eq!((world.lines("a/out").len(), world.stat("a")), (lines, "down\n".into()));
        }
        // runsvdir also ends the remaining processes, in whichever session they are.
        world.script(
            "a/run",
            "trap '' TERM; setsid sleep 1000 & echo ready >>deaf; while :; do sleep 1000 & wait; done",
        );
        let mut child = first_process(world, &format!("{one}W0"));
        world.wait_lines("a/deaf", 1);
        world.wait("its status", || world.stat("a") == "run\n");
        crate::subject::signal(first_of(&child), Signal::SIGPWR);
        assert_eq!(child.wait().unwrap().code(), Some(1));
    });
}

/// `runsvdir FLAGS .` as the first process of a process id namespace.
fn first_process(world: &World, flags: &str) -> Child {
    let mut command = world.command("runsvdir", &[flags, "."]);
    let program = command.get_program().to_owned();
    let mut unshare = Command::new("unshare");
    let user: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["-r"] };
    unshare.args(user).args(["-p", "-f", "--mount-proc", "--kill-child", "--"]).arg(program).args([flags, "."]);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            unshare.env(name, value);
        }
    }
    command.stdin(Stdio::null());
    unshare.current_dir(world.at("")).stdin(Stdio::null()).spawn().unwrap()
}

#[test]
fn as_the_first_process_it_reaps_orphans_and_ends_in_order() {
    ours(|world| {
        // The orphan ends at once. Its parent has ended long before.
        world.script("a/run", "(sh -c 'echo $$ >>orphans; exit 7' &); echo start >>starts; exec sleep 1000");
        world.script("b/run", "sleep 0.05; for p in /proc/[0-9]*; do read -r line <$p/stat; echo \"$line\"; done >stats; echo end >>stats; exec sleep 1000");
        let flags = if world.subject.is_hosted() { "-1w" } else { "-w" };
        let mut child = first_process(world, flags);
        world.wait_lines("a/orphans", 1);
        world.wait("a look around", || world.lines("b/stats").last().is_some_and(|l| l == "end"));
        world.wait("no zombie", || {
            world.control("b", "t");
            let old = world.pid("b");
            world.wait("another look", || world.pid("b") != old && world.pid("b") != 0);
            world.wait("its end", || world.lines("b/stats").last().is_some_and(|l| l == "end"));
            world.lines("b/stats").iter().all(|line| !line.contains(") Z "))
        });
        crate::subject::signal(first_of(&child), Signal::SIGTERM);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!((world.stat("a"), world.stat("b")), ("down\n".into(), "down\n".into()));
    });
}

#[test]
fn children_get_the_limits_and_sessions_that_were_given() {
    hosted(|world| {
        world.script("a/run", "ulimit -n >limit; exec sleep 1000");
        world.script("a/log/run", "exec cat");
        let run = format!("ulimit -Sn 64; exec {} -P1 .", world.dir.join("bin/runsvdir").display());
        let mut command = world.command("runsvdir", &[]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &run]).current_dir(world.at("")).stdin(Stdio::null());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        command.stdin(Stdio::null());
        // More services than 64 descriptors are enough for.
        for n in 0..30 {
            world.script(&format!("s{n}/run"), SLEEPER);
        }
        let mut child = shell.spawn().unwrap();
        world.wait_lines("a/limit", 1);
        assert_eq!(world.lines("a/limit"), ["64"]);
        for n in 0..30 {
            world.wait_stat(&format!("s{n}"), "run");
        }
        let session = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(3).unwrap().parse::<i32>().unwrap()
        };
        world.wait_stat("a", "run");
        assert_eq!(session(world.pid("a")), world.pid("a"));
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

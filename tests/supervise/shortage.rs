//! Shortages of space, descriptors, processes and inotify instances. A supervisor reports each one
//! once, does not spin, and goes on by itself when there is enough again.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::subject::{World, hosted, ours, signal};

const SLEEPER: &str = "echo start >>starts; exec sleep 1000";

/// Sets the soft limit of a running process with util-linux's own tool, called as `words` say.
fn limit_as(words: &[String], pid: i32, what: &str) {
    let words = words.iter().cloned().chain(["prlimit", "--pid", &pid.to_string(), what].map(str::to_owned));
    let words: Vec<String> = words.collect();
    assert!(Command::new(&words[0]).args(&words[1..]).status().unwrap().success(), "{words:?}");
}

fn limit(pid: i32, what: &str) {
    limit_as(&[], pid, what);
}

/// The processor time that a process has used so far, in clock ticks.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    // proc(5): fields 14 and 15.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The process has not spun: it has used next to nothing since `before` (100 ticks are a second).
fn idle_since(pid: i32, before: u64) {
    let used = ticks(pid) - before;
    assert!(used < 50, "{used} ticks");
}

#[test]
fn a_full_disk_keeps_nothing_from_running_and_the_status_follows_when_there_is_space() {
    testkit::isolated(&["mount"], |_| {
        ours(|world| {
            world.script("a/run", SLEEPER);
            fs::create_dir(world.at("a/supervise")).unwrap();
            let mount = Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=64k,mode=700", "small"])
                .arg(world.at("a/supervise"))
                .status()
                .unwrap();
            assert!(mount.success());
            let runsv = world.runsv("a");
            world.wait_lines("a/starts", 1);
            world.wait_stat("a", "run");
            let (pid, used) = (world.pid("a"), ticks(runsv.pid()));
            // The disk is filled to the last byte.
            assert!(fs::write(world.at("a/supervise/fill"), vec![0; 1 << 20]).is_err());
            signal(pid, Signal::SIGKILL);
            world.wait_lines("a/starts", 2);
            world.wait("the complaint", || world.errors().contains("out of disk space"));
            assert_eq!(world.status("a").len(), 20, "the old one, whole");
            fs::remove_file(world.at("a/supervise/fill")).unwrap();
            world.wait_pid("a", pid);
            let errors = world.errors();
            assert!((1..=2).contains(&errors.matches("out of disk space").count()), "{errors}");
            idle_since(runsv.pid(), used);
            drop(runsv);
            let _ = Command::new("umount").arg("-l").arg(world.at("a/supervise")).status();
        });
    });
}

#[test]
fn a_record_that_did_not_fit_is_written_when_there_is_room() {
    testkit::isolated(&["mount"], |_| {
        ours(|world| {
            world.script("a/run", SLEEPER);
            fs::create_dir(world.at("a/supervise")).unwrap();
            let mount = ["-t", "tmpfs", "-o", "nr_inodes=20,mode=700", "small"];
            assert!(Command::new("mount").args(mount).arg(world.at("a/supervise")).status().unwrap().success());
            let runsv = world.runsv("a");
            world.wait_lines("a/starts", 1);
            world.wait_stat("a", "run");
            let pid = world.pid("a");
            let full = (0..100).find(|n| fs::write(world.at(&format!("a/supervise/fill{n}")), "").is_err());
            assert!(full.is_some());
            signal(pid, Signal::SIGKILL);
            world.wait_lines("a/starts", 2);
            world.wait("the complaint", || world.errors().contains("out of disk space"));
            fs::remove_file(world.at("a/supervise/fill0")).unwrap();
            let pid = world.wait_pid("a", pid);
            world.wait("the record", || world.record("a").contains(&format!(" pid={pid} ")));
            runsv.kill();
            let runsv = world.runsv("a");
            world.wait("the takeover", || world.errors().contains(&format!("taking over ./run (pid {pid})")));
            world.wait_stat("a", "run");
            assert_eq!((world.pid("a"), world.lines("a/starts").len()), (pid, 2));
            drop(runsv);
            let _ = Command::new("umount").arg("-l").arg(world.at("a/supervise")).status();
        });
    });
}

#[test]
fn without_descriptors_a_daemon_is_taken_over_later_and_not_killed() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        runsv.kill();
        let (program, args): (_, &[&str]) =
            if world.subject.is_hosted() { ("runsvdir", &["-1", "."]) } else { ("runsv", &["a"]) };
        let program = world.dir.join("bin").join(program).display().to_string();
        // Each round allows one more descriptor.
        let taken = (4..40).any(|limit| {
            let before = world.errors().len();
            let limited = format!("ulimit -n {limit} && exec \"$@\"");
            let runsv = world.start_by(&["sh", "-c", &limited, "sh", &program].map(str::to_owned), args);
            let said = |text: &str| world.errors()[before..].contains(text);
            world.wait("a word", || said("runsv a: warning: ") || said("unable to "));
            signal(pid, Signal::SIGCONT);
            assert_eq!(world.lines("a/starts").len(), 1, "{}", world.errors());
            let taken = said("taking over ./run");
            drop(runsv);
            taken
        });
        assert!(taken, "{}", world.errors());
        assert!(!world.errors().contains("killing it"), "{}", world.errors());
    });
}

#[test]
fn without_descriptors_it_waits_for_some() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/log/run", "exec cat");
        let runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "run");
        world.wait_stat("a/log", "run");
        let (pid, used) = (world.pid("a"), ticks(runsv.pid()));
        limit(runsv.pid(), "--nofile=4:");
        signal(pid, Signal::SIGKILL);
        world.wait("the complaint", || world.errors().contains("unable to fork, pausing: "));
        limit(runsv.pid(), "--nofile=1024:");
        world.wait_pid("a", pid);
        assert_eq!(world.errors().matches("unable to fork, pausing").count(), 1, "{}", world.errors());
        idle_since(runsv.pid(), used);
    });
}

/// Gives the world's files to a user who is subject to the limit of processes. Returns the words
/// that start a command as that user.
fn somebody(world: &World) -> Vec<String> {
    if !nix::unistd::geteuid().is_root() {
        return Vec::new();
    }
    let chown = Command::new("chown").args(["-R", "65534:65534"]).arg(&world.dir).status().unwrap();
    assert!(chown.success());
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned).to_vec()
}

#[test]
fn without_processes_it_waits_for_some() {
    ours(|world| {
        // The loop uses a shell builtin, so the service itself needs no further process.
        world.script("a/run", "echo start >>starts; read -r line <hold");
        nix::unistd::mkfifo(&world.at("a/hold"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let (program, args) =
            if world.subject.is_hosted() { ("runsvdir", ["-1", "."].as_slice()) } else { ("runsv", ["a"].as_slice()) };
        let as_somebody = somebody(world);
        let start = as_somebody.iter().cloned().chain([world.dir.join("bin").join(program).display().to_string()]);
        let runsv = world.start_by(&start.collect::<Vec<_>>(), args);
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "run");
        let (pid, used) = (world.pid("a"), ticks(runsv.pid()));
        limit_as(&as_somebody, runsv.pid(), "--nproc=0:");
        signal(pid, Signal::SIGKILL);
        world.wait("the complaint", || world.errors().contains("unable to fork, pausing: temporary failure"));
        limit_as(&as_somebody, runsv.pid(), "--nproc=10000:");
        world.wait_pid("a", pid);
        assert_eq!(world.errors().matches("unable to fork, pausing").count(), 1, "{}", world.errors());
        idle_since(runsv.pid(), used);
    });
}

#[test]
fn a_directory_that_may_not_be_entered_costs_its_service_nothing_but_time() {
    hosted(|world| {
        world.script("a/run", SLEEPER);
        let start = somebody(world).into_iter().chain([world.dir.join("bin/runsvdir").display().to_string()]);
        let all = world.start_by(&start.collect::<Vec<_>>(), &["-1", "."]);
        world.wait_stat("a", "run");
        let (pid, used) = (world.pid("a"), ticks(all.pid()));
        let mut control = fs::OpenOptions::new().write(true).open(world.at("a/supervise/control")).unwrap();
        let allow = |mode| fs::set_permissions(world.at("a"), fs::Permissions::from_mode(mode)).unwrap();
        allow(0);
        control.write_all(b"h").unwrap();
        let said = "unable to change to directory: access denied";
        world.wait("the complaint", || world.errors().contains(said));
        signal(pid, Signal::SIGKILL);
        world.wait("its end", || !Path::new(&format!("/proc/{pid}")).exists());
        allow(0o755);
        world.wait_pid("a", pid);
        assert_eq!(world.errors().matches(said).count(), 1, "{}", world.errors());
        idle_since(all.pid(), used);
    });
}

#[test]
fn a_copy_does_not_wait_for_the_script_of_a_directory_that_may_not_be_entered() {
    hosted(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/control/h", "echo hanging >>got; exec sleep 1000");
        let start = somebody(world).into_iter().chain([world.dir.join("bin/runsvdir").display().to_string()]);
        let all = world.start_by(&start.collect::<Vec<_>>(), &["-1", "."]);
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        let mut control = fs::OpenOptions::new().write(true).open(world.at("a/supervise/control")).unwrap();
        control.write_all(b"h").unwrap();
        world.wait_lines("a/got", 1);
        let allow = |mode| fs::set_permissions(world.at("a"), fs::Permissions::from_mode(mode)).unwrap();
        allow(0);
        all.signal(Signal::SIGTERM);
        assert_eq!(all.wait(), 0);
        allow(0o755);
        control.write_all(b"t").unwrap();
        world.wait_pid("a", pid);
    });
}

#[test]
fn without_inotify_new_services_are_found_by_looking() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        // A user namespace has its own count of inotify instances.
        let program = world.dir.join("bin/runsvdir").display().to_string();
        let none = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$@\"";
        let start = ["unshare", "-r", "sh", "-c", none, "sh", &program].map(str::to_owned);
        let args: &[&str] = if world.subject.is_hosted() { &["-1", "."] } else { &["."] };
        let runsvdir = world.start_by(&start, args);
        world.wait_stat("a", "run");
        let used = ticks(runsvdir.pid());
        let said = "runsvdir .: warning: unable to watch the directory for changes: looking every five seconds\n";
        world.wait("the complaint", || world.errors() == said);
        world.script("b/run", SLEEPER);
        world.wait_stat("b", "run");
        assert_eq!(world.errors(), said);
        idle_since(runsvdir.pid(), used);
    });
}

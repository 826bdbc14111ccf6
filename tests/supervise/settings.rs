//! The opt-in files of a service directory, which add what users of runit miss. Without them
//! everything is as in runsv.rs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::subject::{World, ours, signal};

const SLEEPER: &str = "echo start >>starts; exec sleep 1000";
/// Records its start and ignores TERM.
const STUBBORN: &str = "trap '' TERM; echo start >>starts; while :; do sleep 1000 & wait; done";

/// The times in a file, one per line, as `date +%s%N` wrote them.
fn times(world: &World, file: &str, count: usize) -> Vec<Duration> {
    let lines = world.wait_lines(file, count);
    lines.iter().map(|line| Duration::from_nanos(line.parse().unwrap())).collect()
}

#[test]
fn readiness_is_what_the_service_says_and_start_waits_for_it() {
    ours(|world| {
        world.script("a/run", "echo start >>starts; while [ ! -e go ]; do sleep 0.02; done; echo >&3; exec sleep 1000");
        world.write("a/notification-fd", "3\n");
        world.write("a/down", "");
        let runsv = world.runsv("a");
        world.control("a", "u");
        world.wait_lines("a/starts", 1);
        let record = || world.record("a");
        world.wait("the record of the process", || record().contains("state=run"));
        assert!(record().contains("ready=no"), "{}", record());
        // The runsv is killed in the meantime, and the next one waits for readiness.
        let pid = record().trim().split(' ').find_map(|word| word.strip_prefix("pid=")?.parse().ok()).unwrap();
        runsv.kill();
        let _again = world.runsv("a");
        world.wait_stat("a", "run");
        assert_eq!(world.pid("a"), pid);
        world.write("a/go", "");
        world.wait("it to be ready", || !record().contains("ready=no"));
        assert!(record().contains("ready="), "{}", record());
        // A new process is not ready by its predecessor's message.
        fs::remove_file(world.at("a/go")).unwrap();
        world.control("a", "t");
        world.wait_pid("a", pid);
        assert!(record().contains("ready=no"), "{}", record());
    });
}

#[test]
fn the_descriptor_for_readiness_is_the_one_asked_for_and_no_other() {
    ours(|world| {
        for fd in ["3", "7", "40"] {
            let name = format!("s{fd}");
            world.script(&format!("{name}/run"), "ls /proc/$$/fd >fds; echo done >>fds; exec sleep 1000");
            world.write(&format!("{name}/notification-fd"), fd);
            let _runsv = world.runsv(&name);
            let fds = format!("{name}/fds");
            world.wait(&fds, || world.lines(&fds).last().is_some_and(|l| l == "done"));
            // sh keeps its script open as descriptor 10 or above while it reads it.
            let got = world.lines(&fds).into_iter().filter(|l| l.parse::<u32>().is_ok_and(|n| n != 10 && n != 11));
            assert_eq!(got.collect::<Vec<_>>(), ["0", "1", "2", fd]);
        }
    });
}

#[test]
fn what_does_not_end_after_term_is_killed() {
    ours(|world| {
        world.script("a/run", STUBBORN);
        world.script("a/finish", "echo \"$*\" >>args; exec sleep 1000");
        world.write("a/timeout-kill", "100");
        world.write("a/timeout-finish", "100");
        let _runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "run");
        world.control("a", "d");
        world.wait_stat("a", "down");
        assert_eq!(world.lines("a/args"), ["-1 9"]);
        let said = world.errors();
        for what in ["./run", "./finish"] {
            assert!(said.contains(&format!("runsv a: warning: {what} has not ended in time: killing it\n")), "{said}");
        }
    });
}

#[test]
fn the_down_signal_is_sent_instead_of_term() {
    ours(|world| {
        world.script(
            "a/run",
            "trap 'echo quit >>got; exit' QUIT; echo ready >>got; while :; do sleep 1000 & wait; done",
        );
        world.write("a/down-signal", "QUIT\n");
        let _runsv = world.runsv("a");
        world.wait_lines("a/got", 1);
        world.wait_stat("a", "run");
        world.control("a", "d");
        world.wait_stat("a", "down");
        assert_eq!(world.lines("a/got"), ["ready", "quit"]);
    });
}

#[test]
fn restarts_keep_their_distance_as_asked_for() {
    ours(|world| {
        world.script("a/run", "date +%s%N >>starts");
        world.write("a/restart-delay", "60");
        world.write("a/restart-max-delay", "240");
        let _runsv = world.runsv("a");
        let starts = times(world, "a/starts", 5);
        let gaps: Vec<u128> = starts.windows(2).map(|w| (w[1] - w[0]).as_millis()).collect();
        for (gap, least) in gaps.iter().zip([60, 120, 240, 240]) {
            assert!(*gap >= least, "{gaps:?}");
        }
        // runsv obeys a command at once, and the record counts the deaths.
        world.wait("the deaths to be counted", || world.record("a").contains(" deaths="));
    });
}

#[test]
fn finish_can_end_it_for_good_where_that_was_allowed() {
    ours(|world| {
        world.script("a/run", "echo start >>starts; exit 1");
        world.script("a/finish", "exit 125");
        world.write("a/permanent-failure", "");
        let _runsv = world.runsv("a");
        let said = "runsv a: warning: ./finish exited 125: not starting ./run again\n";
        world.wait("it to give up", || world.errors() == said);
        world.wait_stat("a", "down");
        assert_eq!(world.status("a")[17], b'd');
        assert_eq!(world.lines("a/starts").len(), 1);
    });
}

#[test]
fn the_instance_of_a_killed_runsv_is_ended_where_no_takeover_is_wanted() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/finish", "echo \"$*\" >>args");
        world.write("a/no-takeover", "");
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        runsv.kill();
        let _again = world.runsv("a");
        world.wait_pid("a", pid);
        assert_eq!(world.lines("a/args"), ["-1 0"]);
        world.wait_count("sleep 1000", 1);
        assert!(world.errors().contains(&format!("ending ./run (pid {pid})")), "{}", world.errors());
    });
}

#[test]
fn settings_that_are_wrong_are_named_once_and_count_as_absent() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.write("a/timeout-kill", "soon");
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        world.control("a", "t");
        world.wait_pid("a", pid);
        let said = "runsv a: warning: ./timeout-kill: a number of milliseconds expected, not \"soon\"\n";
        assert_eq!(world.errors(), said);
    });
}

#[test]
fn a_service_that_cannot_start_says_so_once_and_recovers_when_it_is_mended() {
    ours(|world| {
        world.write("a/run", "#!/nonexistent\n");
        fs::set_permissions(world.at("a/run"), fs::Permissions::from_mode(0o755)).unwrap();
        world.script("a/finish", "echo \"$*\" >>args");
        let _runsv = world.runsv("a");
        world.wait_lines("a/args", 2);
        let said = "runsv a: fatal: unable to start ./run: file does not exist\n";
        assert_eq!(world.errors(), said);
        // runsv reports a different fault.
        fs::set_permissions(world.at("a/run"), fs::Permissions::from_mode(0o644)).unwrap();
        world.control("a", "u");
        world.wait_lines("a/args", 3);
        let denied = "runsv a: fatal: unable to start ./run: access denied\n";
        world.wait("the other trouble", || world.errors() == format!("{said}{denied}"));
        fs::remove_file(world.at("a/run")).unwrap();
        fs::create_dir(world.at("a/run")).unwrap();
        world.control("a", "u");
        world.wait_lines("a/args", 4);
        assert_eq!(world.errors(), format!("{said}{denied}"), "a directory cannot be executed either");
        fs::remove_dir(world.at("a/run")).unwrap();
        world.script("a/run", SLEEPER);
        world.control("a", "u");
        world.wait_stat("a", "run");
    });
}

/// The mount point of cgroup v2, if this process can make groups there. It is in the root group
/// here, or in that of a namespace.
fn cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
        [_, mount, "cgroup2", ..] => Some(PathBuf::from(mount)),
        _ => None,
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let group = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = mount.join(group);
    let probe = mount.join(format!("netsv-probe-{}", std::process::id()));
    let possible = fs::create_dir(&probe).is_ok() && probe.join("cgroup.kill").exists();
    let _ = fs::remove_dir(&probe);
    possible.then_some(mount)
}

#[test]
fn what_a_service_leaves_behind_is_killed_with_its_cgroup() {
    let Some(mount) = cgroup2() else {
        println!("SKIPPED: no cgroup v2 that can be written to");
        assert!(std::env::var_os("CI").is_none() || !nix::unistd::geteuid().is_root(), "root can have cgroups");
        return;
    };
    ours(|world| {
        // The orphan is in another session, so TERM does not reach it.
        world.script(
            "a/run",
            "setsid sh -c 'trap \"\" TERM HUP; echo orphan >>starts; sleep 1000 & wait' & exec sleep 1001",
        );
        world.write("a/cgroup", "");
        let runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "run");
        world.wait_count("sleep 1000", 1);
        // A restart keeps the processes that the service has left behind, as in runit. Only `down`
        // ends them.
        let pid = world.pid("a");
        world.control("a", "t");
        world.wait_pid("a", pid);
        world.wait_lines("a/starts", 2);
        world.wait_count("sleep 1000", 2);
        // The same holds after a kill of runsv.
        runsv.kill();
        let _again = world.runsv("a");
        world.control("a", "d");
        world.wait_stat("a", "down");
        world.wait_count("sleep 1000", 0);
        let group = format!("runsv.a.{:x}", std::os::unix::fs::MetadataExt::ino(&fs::metadata(world.at("a")).unwrap()));
        let procs = mount.join(&group).join("cgroup.procs");
        let left = || fs::read_to_string(&procs).is_ok_and(|pids| !pids.is_empty());
        world.control("a", "u");
        world.wait_stat("a", "run");
        world.control("a", "d");
        world.wait("the group to be empty, or gone", || !left());
    });
}

#[test]
fn a_service_that_is_put_down_between_two_runs_leaves_nothing_behind_either() {
    if cgroup2().is_none() {
        println!("SKIPPED: no cgroup v2 that can be written to");
        assert!(std::env::var_os("CI").is_none() || !nix::unistd::geteuid().is_root(), "root can have cgroups");
        return;
    }
    ours(|world| {
        world.script("a/run", "setsid sleep 1000 & echo start >>starts");
        world.write("a/cgroup", "");
        world.write("a/restart-delay", "100000");
        let _runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "down");
        world.wait_count("sleep 1000", 1);
        world.control("a", "d");
        world.wait_stat("a", "down");
        world.wait_count("sleep 1000", 0);
    });
    // The same holds for a service that ends on its way down while no runsv is there.
    ours(|world| {
        world.script("a/run", "setsid sleep 1000 & echo start >>starts; exec sleep 1001");
        world.write("a/cgroup", "");
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        world.wait_count("sleep 1000", 1);
        world.wait_count("sleep 1001", 1);
        runsv.kill();
        signal(world.pid("a"), Signal::SIGKILL);
        world.wait_count("sleep 1001", 0);
        let record = world.record("a");
        assert!(record.starts_with("state=run want=u "), "{record}");
        world.write_record("a", &record.replace("want=u", "want=d"));
        let _again = world.runsv("a");
        world.wait_stat("a", "down");
        world.wait_count("sleep 1000", 0);
        assert_eq!(world.lines("a/starts").len(), 1);
    });
}

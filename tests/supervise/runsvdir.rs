//! runsvdir: service directories that appear, disappear and change their names.

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use crate::subject::{World, both, each_way, ours, signal, with_each_others_runsv, with_runsv};

const SLEEPER: &str = "echo start >>starts; exec sleep 1000";

/// The runsv of this service, or 0 when there is none.
fn runsv_of(world: &World, name: &str) -> i32 {
    let line = format!("runsv {name}");
    world.processes().into_iter().find(|(_, l)| *l == line).map_or(0, |(pid, _)| pid)
}

/// Makes a directory beside the services, for a test to move or link into them.
fn prepare(world: &World, name: &str) -> std::path::PathBuf {
    world.script(&format!("../{name}/run"), SLEEPER);
    world.dir.join(name)
}

#[test]
fn directories_come_go_and_keep_their_runsv_under_another_name() {
    with_each_others_runsv(|world| {
        world.script("a/run", SLEEPER);
        world.script(".hidden/run", SLEEPER);
        world.write("file", "");
        symlink(prepare(world, "real"), world.at("link")).unwrap();
        symlink(world.dir.join("real"), world.at("zz-same")).unwrap();
        let _runsvdir = world.start("runsvdir", &["."]);
        world.wait_stat("a", "run");
        world.wait_stat("link", "run");
        // A new service appears complete.
        fs::rename(prepare(world, "new"), world.at("new")).unwrap();
        world.wait_stat("new", "run");
        // Under another name the service has the same runsv and the same process.
        let (runsv, pid) = (runsv_of(world, "a"), world.pid("a"));
        fs::rename(world.at("a"), world.at("b")).unwrap();
        fs::remove_file(world.at("link")).unwrap();
        fs::rename(world.at("new"), world.dir.join("old")).unwrap();
        world.wait("runsv new to end", || runsv_of(world, "new") == 0);
        assert_eq!((runsv_of(world, "a"), world.pid("b")), (runsv, pid));
        // Two names of one directory are one service; now one of the names is left.
        assert_eq!(world.lines("zz-same/starts").len(), 1);
        assert!(!world.at(".hidden/supervise").exists());
    });
}

#[test]
fn a_replaced_directory_is_another_service() {
    with_each_others_runsv(|world| {
        symlink(prepare(world, "one"), world.at("a")).unwrap();
        let _runsvdir = world.start("runsvdir", &["."]);
        world.wait_stat("a", "run");
        symlink(prepare(world, "two"), world.dir.join("a.new")).unwrap();
        fs::rename(world.dir.join("a.new"), world.at("a")).unwrap();
        world.wait("two to run and one to end", || {
            fs::read_to_string(world.dir.join("two/starts")).is_ok() && world.count("sleep 1000") == 1
        });
    });
}

#[test]
fn a_directory_that_is_back_at_once_is_the_same_service() {
    each_way(|world| {
        prepare(world, "real");
        symlink("../real", world.at("link")).unwrap();
        world.script("a/run", SLEEPER);
        let _runsvdir = world.runsvdir();
        for service in ["link", "a"] {
            world.wait_stat(service, "run");
            world.wait_lines(&format!("{service}/starts"), 1);
        }
        let pids = [world.pid("link"), world.pid("a")];
        for _ in 0..20 {
            // As busybox's `ln -sfn` does it.
            fs::remove_file(world.at("link")).unwrap();
            symlink("../real", world.at("link")).unwrap();
            // The service moves away and back; so does the target of a link.
            fs::rename(world.at("a"), world.dir.join("a")).unwrap();
            fs::rename(world.dir.join("a"), world.at("a")).unwrap();
            fs::rename(world.dir.join("real"), world.dir.join("moved")).unwrap();
            fs::rename(world.dir.join("moved"), world.dir.join("real")).unwrap();
            // runit looks every five seconds, ours at every change. The start of a new service
            // shows that runsvdir has looked.
            if world.subject.is_ours() {
                let _ = fs::remove_dir_all(world.at("new"));
                world.script("new/run", SLEEPER);
                world.wait_lines("new/starts", 1);
            }
        }
        world.script("last/run", SLEEPER);
        world.wait_lines("last/starts", 1);
        assert_eq!([world.pid("link"), world.pid("a")], pids);
        assert_eq!([world.lines("link/starts").len(), world.lines("a/starts").len()], [1, 1]);
    });
}

#[test]
fn a_services_directory_that_is_switched_or_made_anew_keeps_what_is_in_both() {
    each_way(|world| {
        prepare(world, "real");
        for set in ["one", "two"] {
            fs::create_dir(world.dir.join(set)).unwrap();
            symlink("../real", world.dir.join(set).join("both")).unwrap();
        }
        symlink("one", world.dir.join("current")).unwrap();
        let how: &[&str] = if world.subject.is_hosted() { &["-1", "../current"] } else { &["../current"] };
        let _runsvdir = world.start("runsvdir", how);
        world.wait_stat("../real", "run");
        world.wait_lines("../real/starts", 1);
        // The user switches with rm and ln, by hand.
        for (set, last) in [("two", "two"), ("one", "three")] {
            fs::remove_file(world.dir.join("current")).unwrap();
            symlink(set, world.dir.join("current")).unwrap();
            world.script(&format!("../{set}/{last}/run"), SLEEPER);
            world.wait_lines(&format!("../{set}/{last}/starts"), 1);
        }
        // The directory itself moves away and back.
        fs::rename(world.dir.join("one"), world.dir.join("moved")).unwrap();
        fs::rename(world.dir.join("moved"), world.dir.join("one")).unwrap();
        world.script("../one/last/run", SLEEPER);
        world.wait_lines("../one/last/starts", 1);
        assert_eq!(world.lines("../real/starts").len(), 1);
    });
}

#[test]
fn a_runsv_that_ends_is_started_again() {
    with_each_others_runsv(|world| {
        world.script("a/run", SLEEPER);
        let _runsvdir = world.start("runsvdir", &["."]);
        world.wait_stat("a", "run");
        world.wait_lines("a/starts", 1);
        let runsv = runsv_of(world, "a");
        // Without sv: runit's sv may miss the end of this runsv, because runsvdir has already
        // started another.
        world.control("a", "x");
        world.wait("another runsv", || ![0, runsv].contains(&runsv_of(world, "a")));
        world.wait("another start", || world.lines("a/starts").len() == 2);
    });
}

#[test]
fn shutdown_is_ok_although_runsvdir_starts_another() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let _runsvdir = world.start("runsvdir", &["."]);
        world.wait_lines("a/starts", 1);
        assert_eq!(world.sv("shutdown a"), (0, "ok: a: runsv not running\n".into()));
        world.wait_stat("a", "run");
        world.wait_lines("a/starts", 2);
        // runsvdir replaces a killed runsv at once.
        let runsv = runsv_of(world, "a");
        crate::subject::signal(runsv, Signal::SIGKILL);
        world.wait("another runsv", || ![0, runsv].contains(&runsv_of(world, "a")));
        world.wait("it to listen", || world.is_supervised("a"));
        assert_eq!(world.lines("a/starts").len(), 2);
    });
}

#[test]
fn term_leaves_the_runsvs_and_hup_ends_them() {
    with_each_others_runsv(|world| {
        world.script("a/run", SLEEPER);
        let runsvdir = world.start("runsvdir", &["."]);
        world.wait_stat("a", "run");
        let runsv = runsv_of(world, "a");
        runsvdir.signal(Signal::SIGTERM);
        assert_eq!(runsvdir.wait(), 0);
        assert_eq!(runsv_of(world, "a"), runsv);
        world.control("a", "x");
        world.wait("runsv a to end", || runsv_of(world, "a") == 0);
        let runsvdir = world.start("runsvdir", &["."]);
        world.wait_stat("a", "run");
        runsvdir.signal(Signal::SIGHUP);
        assert_eq!(runsvdir.wait(), 111);
        world.wait("everything to end", || world.processes().is_empty());
    });
}

#[test]
fn after_a_term_the_services_keep_a_supervisor_that_sv_can_end_them_by() {
    // runit's shutdown does this: TERM to stage 2, then `sv force-stop` and `sv exit` in stage 3.
    each_way(|world| {
        let saver =
            "trap 'kill $!; echo saved >>out; exit' TERM; echo ready >>out; while :; do sleep 1000 & wait; done";
        world.script("db/run", saver);
        world.script("db/log/run", "cat >/dev/null; echo end >>out");
        world.script("other/run", SLEEPER);
        let how: &[&str] = if world.subject.is_hosted() { &["-1", "-P", "."] } else { &["-P", "."] };
        let runsvdir = world.start("runsvdir", how);
        world.wait_lines("db/out", 1);
        ["db", "db/log", "other"].iter().for_each(|service| world.wait_stat(service, "run"));
        let pids = [world.pid("db"), world.pid("other")];
        runsvdir.signal(Signal::SIGTERM);
        assert_eq!(runsvdir.wait(), 0);
        assert_eq!([world.pid("db"), world.pid("other")], pids);
        // A service that ends is started again.
        signal(world.pid("other"), Signal::SIGKILL);
        world.wait_pid("other", pids[1]);
        assert_eq!(world.sv("force-stop db"), (0, "ok: down: db: Ts, normally up\n".into()));
        assert_eq!(world.lines("db/out"), ["ready", "saved"]);
        assert_eq!(world.sv("exit db other").0, 0);
        world.wait("all to end", || world.lines("db/log/out") == ["end"] && world.processes().is_empty());
    });
}

#[test]
fn with_p_each_runsv_has_its_own_session() {
    with_each_others_runsv(|world| {
        world.script("a/run", SLEEPER);
        let session = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(3).unwrap().parse::<i32>().unwrap()
        };
        let _runsvdir = world.start("runsvdir", &["-P", "."]);
        world.wait_stat("a", "run");
        let runsv = runsv_of(world, "a");
        assert_eq!((session(runsv), session(world.pid("a"))), (runsv, runsv));
    });
}

#[test]
fn the_log_argument_shows_what_was_said_last() {
    both(|world| {
        world.script("a/run", "echo 'a word' >&2; exec sleep 1000");
        let log = format!("log: {}", ".".repeat(40));
        let runsvdir = world.start("runsvdir", &[".", &log]);
        let title = || fs::read_to_string(format!("/proc/{}/cmdline", runsvdir.pid())).unwrap();
        world.wait("the word", || title().contains("a word\n"));
        let last = title().trim_end_matches('\0').split('\0').next_back().unwrap().to_owned();
        assert_eq!(last, format!("log: {}a word\n", ".".repeat(33)));
    });
}

#[test]
fn wrong_use_and_a_log_that_is_too_short_are_said() {
    both(|world| {
        let (code, text) = world.output("runsvdir", &[]);
        assert_eq!(code, 1);
        assert!(text.starts_with("usage: ") && text.contains("runsvdir [-P] "), "{text}");
        let _runsvdir = world.start("runsvdir", &[".", "short"]);
        let said = "runsvdir .: warning: log must have at least seven characters.\nrunsvdir .: warning: log service disabled.\n";
        world.wait("the warning", || world.errors() == said);
    });
}

#[test]
fn a_directory_that_is_made_in_steps_is_started_when_it_has_its_run() {
    ours(|world| {
        let _runsvdir = world.start("runsvdir", &["."]);
        world.script("first/run", SLEEPER);
        world.wait_stat("first", "run");
        fs::create_dir(world.at("a")).unwrap();
        world.script("a/run", SLEEPER);
        world.wait_stat("a", "run");
        assert_eq!(world.errors(), "");
    });
}

#[test]
fn a_switched_link_to_the_directory_and_a_target_that_comes_later_are_seen() {
    ours(|world| {
        world.script("../one/a/run", SLEEPER);
        world.script("../two/b/run", SLEEPER);
        symlink("one", world.dir.join("current")).unwrap();
        symlink("../current", world.at("services")).unwrap();
        let _runsvdir = world.start("runsvdir", &["services"]);
        world.wait_stat("../one/a", "run");
        symlink("two", world.dir.join("current.new")).unwrap();
        fs::rename(world.dir.join("current.new"), world.dir.join("current")).unwrap();
        world.wait_stat("../two/b", "run");
        world.wait("runsv a to end", || runsv_of(world, "a") == 0);
        // The link's target does not exist yet.
        fs::create_dir(world.dir.join("pool")).unwrap();
        symlink("../pool/late", world.dir.join("two/late")).unwrap();
        world.script("../stage/run", SLEEPER);
        fs::rename(world.dir.join("stage"), world.dir.join("pool/late")).unwrap();
        world.wait_stat("../two/late", "run");
    });
}

/// So often TERM comes while a killed runsv is replaced, to so many at a time.
const TERMS: usize = 40;
const AT_A_TIME: usize = 8;

#[test]
fn with_w_a_runsv_that_was_killed_and_replaced_is_no_disorder() {
    // As soon as the second runsv is there, at any point of its start.
    while_a_killed_runsv_is_replaced(|runsv, now| ![0, runsv].contains(&now));
}

#[test]
fn with_w_the_service_of_a_runsv_that_was_killed_and_not_replaced_yet_ends_too() {
    while_a_killed_runsv_is_replaced(|_, now| now == 0);
}

/// TERM comes when `it_is_time`, by the process ids of the killed runsv and of the one that is
/// there now (0: none).
fn while_a_killed_runsv_is_replaced(it_is_time: impl Fn(i32, i32) -> bool + Sync) {
    with_runsv(|world| {
        let (dirs, it_is_time) = ((0..AT_A_TIME).map(|n| format!("d{n}")).collect::<Vec<_>>(), &it_is_time);
        dirs.iter().for_each(|dir| world.script(&format!("{dir}/a{dir}/run"), SLEEPER));
        std::thread::scope(|scope| {
            for dir in &dirs {
                scope.spawn(move || (1..=TERMS / AT_A_TIME).for_each(|n| kill_and_end(world, dir, n, it_is_time)));
            }
        });
        assert_eq!(world.count("sleep 1000"), 0);
        for dir in dirs {
            assert_eq!(
                world.lines(&format!("{dir}/a{dir}/starts")).len(),
                TERMS / AT_A_TIME,
                "none was started to end"
            );
        }
    });
}

/// For the time number `n`.
fn kill_and_end(world: &World, dir: &str, n: usize, it_is_time: impl Fn(i32, i32) -> bool) {
    let name = format!("a{dir}");
    let service = format!("{dir}/{name}");
    let runsvdir = world.start("runsvdir", &["-w", dir]);
    world.wait_stat(&service, "run");
    world.wait_lines(&format!("{service}/starts"), n);
    let runsv = runsv_of(world, &name);
    signal(runsv, Signal::SIGKILL);
    world.wait("the time", || it_is_time(runsv, runsv_of(world, &name)));
    runsvdir.signal(Signal::SIGTERM);
    assert_eq!(runsvdir.wait(), 0, "{}", world.errors());
    assert_eq!(world.pid(&service), 0);
}

#[test]
fn without_a_runsv_in_path_its_own_is_used() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        fs::remove_file(world.dir.join("bin/runsv")).unwrap();
        let mut command = world.command("runsvdir", &["."]);
        let mut child = command.env("PATH", world.dir.join("bin")).stderr(std::process::Stdio::null()).spawn().unwrap();
        world.wait("runsv a", || world.is_supervised("a"));
        assert_ne!(runsv_of(world, "a"), 0);
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

//! runsv: its files, its control letters, its finish script, its log.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use crate::subject::{World, both, each_way, ours, signal, with_each_others_sv};

const SLEEPER: &str = "exec sleep 1000";

fn mode(world: &World, file: &str) -> (u32, bool) {
    let found = fs::metadata(world.at(file)).unwrap();
    (found.permissions().mode() & 0o777, found.file_type().is_fifo())
}

#[test]
fn the_files_of_supervise_have_runits_names_modes_and_bytes() {
    each_way(|world| {
        world.script("a/run", SLEEPER);
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        let status = world.status("a");
        let secs = u64::from_be_bytes(status[..8].try_into().unwrap());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let age = now + (1 << 62) + 10 - secs;
        assert!(age < 10, "age {age}");
        assert!(u32::from_be_bytes(status[8..12].try_into().unwrap()) < 1_000_000_000);
        assert_eq!(world.read("a/supervise/pid"), format!("{}\n", world.pid("a")));
        let comm = || fs::read_to_string(format!("/proc/{}/comm", world.pid("a"))).unwrap();
        world.wait("the process to be ./run", || comm() == "sleep\n");
        assert_eq!(status[16..], [0, b'u', 0, 1]);
        assert_eq!(mode(world, "a/supervise"), (0o700, false));
        for (file, expected) in [
            ("lock", (0o600, false)),
            ("control", (0o600, true)),
            ("ok", (0o600, true)),
            ("status", (0o644, false)),
            ("stat", (0o644, false)),
            ("pid", (0o644, false)),
        ] {
            assert_eq!(mode(world, &format!("a/supervise/{file}")), expected, "{file}");
        }
        world.control("a", "d");
        world.wait_stat("a", "down");
        world.wait("the status", || world.status("a")[12..] == [0, 0, 0, 0, 0, b'd', 0, 0]);
        assert_eq!(world.read("a/supervise/pid"), "");
    });
}

#[test]
fn stat_names_every_state() {
    each_way(|world| {
        // The service ignores TERM and ends when the file `end` exists.
        let until_end = "trap '' TERM\nwhile [ ! -e end ]; do sleep 0.02; done";
        world.script("a/run", until_end);
        world.script("a/finish", "while [ ! -e finished ]; do sleep 0.02; done");
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        world.control("a", "p");
        world.wait_stat("a", "run, paused");
        world.control("a", "c");
        world.wait_stat("a", "run");
        world.control("a", "o");
        world.wait_stat("a", "run, want down");
        world.control("a", "u");
        world.wait_stat("a", "run");
        world.control("a", "t");
        world.wait_stat("a", "run, got TERM");
        world.control("a", "d");
        world.wait_stat("a", "run, got TERM, want down");
        world.write("a/end", "");
        world.wait_stat("a", "finish, want down");
        world.control("a", "x");
        world.wait_stat("a", "finish, want exit");
        world.write("a/finished", "");
        assert_eq!(runsv.wait(), 0);
        assert_eq!(world.stat("a"), "down\n");
    });
}

#[test]
fn every_letter_sends_its_signal() {
    each_way(|world| {
        world.script(
            "a/run",
            "trap 'echo h >>got' HUP; trap 'echo a >>got' ALRM; trap 'echo i >>got' INT; trap 'echo q >>got' QUIT\n\
             trap 'echo 1 >>got' USR1; trap 'echo 2 >>got' USR2; trap 'echo t >>got' TERM\n\
             echo ready >>got; while :; do sleep 1000 & wait; done",
        );
        let _runsv = world.runsv("a");
        world.wait_lines("a/got", 1);
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        for (n, letter) in ["h", "a", "i", "q", "1", "2", "t"].iter().enumerate() {
            // An unknown byte does nothing.
            world.control("a", &format!("Z{letter}"));
            assert_eq!(world.wait_lines("a/got", n + 2)[n + 1], *letter);
        }
        let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().split(' ').nth(2).unwrap().to_owned();
        world.control("a", "p");
        world.wait("it to be stopped", || state() == "T");
        world.control("a", "c");
        world.wait("it to go on", || state() == "S");
        world.control("a", "k");
        world.wait_pid("a", pid);
    });
}

#[test]
fn a_down_file_means_down_until_u() {
    with_each_others_sv(|world| {
        world.script("a/run", SLEEPER);
        world.write("a/down", "");
        let _runsv = world.runsv("a");
        world.wait_stat("a", "down");
        assert_eq!(world.sv("status a"), (0, "down: a: Ts\n".into()));
        assert_eq!(world.sv("start a"), (0, "ok: run: a: (pid P) Ts, normally down\n".into()));
    });
}

#[test]
fn finish_is_told_how_run_ended() {
    each_way(|world| {
        world.script("code/run", "exit 3");
        world.script("term/run", SLEEPER);
        world.script("kill/run", SLEEPER);
        world.write("none/x", "");
        world.write("text/run", "no interpreter named\n");
        fs::set_permissions(world.at("text/run"), fs::Permissions::from_mode(0o755)).unwrap();
        let names = ["code", "term", "kill", "none", "text"];
        for name in names {
            world.script(&format!("{name}/finish"), "echo \"$# $*\" >>args");
        }
        let _all = names.map(|name| world.runsv(name));
        world.wait_stat("term", "run");
        world.control("term", "t");
        world.wait_stat("kill", "run");
        signal(world.pid("kill"), Signal::SIGKILL);
        for (name, args) in
            [("code", "2 3 0"), ("term", "2 -1 15"), ("kill", "2 -1 9"), ("none", "2 111 0"), ("text", "2 111 0")]
        {
            assert_eq!(world.wait_lines(&format!("{name}/args"), 1)[0], args, "{name}");
        }
        let errors = world.errors();
        assert!(errors.contains("runsv none: fatal: unable to start ./run: file does not exist\n"), "{errors}");
        assert!(errors.contains("runsv text: fatal: unable to start ./run: exec format error\n"), "{errors}");
    });
}

/// A one-shot service that runs until the file `go` exists, and then removes it. It records its
/// starts and ends.
const ONE_SHOT: &str = "sv o .\necho start $(date +%s%N) >>trace\n\
    while [ ! -e go ]; do sleep 0.02; done; rm go\necho end $(date +%s%N) >>trace";

#[test]
fn any_number_of_triggers_during_a_one_shot_run_gives_exactly_one_re_run() {
    with_each_others_sv(|world| {
        world.script("fw/run", ONE_SHOT);
        world.write("fw/down", "");
        let _runsv = world.runsv("fw");
        world.sv("u fw");
        world.wait_lines("fw/trace", 1);
        world.wait_stat("fw", "run, want down");
        for _ in 0..5 {
            assert_eq!(world.sv("u fw"), (0, String::new()));
        }
        world.write("fw/go", "");
        world.wait_lines("fw/trace", 3);
        world.wait_stat("fw", "run, want down");
        world.write("fw/go", "");
        world.wait_stat("fw", "down");
        let trace = world.lines("fw/trace");
        let what: Vec<&str> = trace.iter().map(|l| l.split(' ').next().unwrap()).collect();
        assert_eq!(what, ["start", "end", "start", "end"]);
    });
}

#[test]
fn a_re_run_that_was_asked_for_does_not_wait_a_second() {
    ours(|world| {
        world.script("fw/run", ONE_SHOT);
        world.write("fw/down", "");
        let _runsv = world.runsv("fw");
        world.control("fw", "u");
        world.wait_lines("fw/trace", 1);
        world.wait_stat("fw", "run, want down");
        world.control("fw", "u");
        world.wait_stat("fw", "run");
        world.write("fw/go", "");
        let trace = world.wait_lines("fw/trace", 3);
        let at = |n: usize| Duration::from_nanos(trace[n].split(' ').nth(1).unwrap().parse().unwrap());
        // The service ran for far less than a second, so runit would wait for a second.
        assert!(at(1) - at(0) < Duration::from_millis(900), "the machine is too slow for this test");
        assert!(at(2) - at(1) < Duration::from_millis(900), "{trace:?}");
    });
}

#[test]
fn the_log_gets_every_line_across_restarts_of_either_side() {
    each_way(|world| {
        world.script("a/run", "echo line $(cat n 2>/dev/null) >&1\nexec sleep 1000");
        world.script("a/finish", "echo finish");
        world.script("a/log/run", "exec cat >>out");
        world.write("a/n", "1");
        let _runsv = world.runsv("a");
        world.wait_lines("a/log/out", 1);
        // The service restarts.
        world.write("a/n", "2");
        world.control("a", "t");
        world.wait_lines("a/log/out", 3);
        // The log dies.
        let cat = world.pid("a/log");
        signal(cat, Signal::SIGKILL);
        world.wait_pid("a/log", cat);
        // The pipe keeps the service's output while no log runs.
        world.control("a/log", "d");
        world.wait_stat("a/log", "down");
        world.write("a/n", "3");
        let pid = world.pid("a");
        world.control("a", "t");
        world.wait_pid("a", pid);
        world.control("a/log", "u");
        assert_eq!(world.wait_lines("a/log/out", 5), ["line 1", "finish", "line 2", "finish", "line 3"]);
    });
}

#[test]
fn x_ends_the_log_by_the_end_of_its_input_and_never_by_a_signal() {
    with_each_others_sv(|world| {
        world.script("a/run", "echo hello; exec sleep 1000");
        world.script("a/log/run", "trap 'echo signal >>out' TERM HUP INT\ncat >>out; echo end >>out");
        let runsv = world.runsv("a");
        world.wait_lines("a/log/out", 1);
        world.control("a/log", "x");
        assert_eq!(world.sv("shutdown a"), (0, "ok: a: runsv not running\n".into()));
        assert_eq!(runsv.wait(), 0);
        assert_eq!(world.lines("a/log/out"), ["hello", "end"]);
        assert_eq!((world.stat("a"), world.stat("a/log")), ("down\n".into(), "down\n".into()));
        assert_eq!(world.processes(), []);
    });
}

#[test]
fn term_to_runsv_is_x() {
    both(|world| {
        world.script(
            "a/run",
            "trap 'echo term >>got; exit' TERM; echo ready >>got; while :; do sleep 1000 & wait; done",
        );
        let runsv = world.runsv("a");
        world.wait_lines("a/got", 1);
        runsv.signal(Signal::SIGTERM);
        assert_eq!(runsv.wait(), 0);
        assert_eq!(world.lines("a/got"), ["ready", "term"]);
    });
}

#[test]
fn a_killed_run_is_started_again_and_finish_told() {
    each_way(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/finish", "echo \"$*\" >>args");
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        let pid = world.pid("a");
        signal(pid, Signal::SIGKILL);
        world.wait_pid("a", pid);
        assert_eq!(world.lines("a/args"), ["-1 9"]);
    });
}

#[test]
fn a_crash_loop_waits_a_second_and_is_not_deaf_meanwhile() {
    ours(|world| {
        world.script("a/run", "date +%s%N >>starts");
        let _runsv = world.runsv("a");
        let starts = world.wait_lines("a/starts", 3);
        let at = |n: usize| Duration::from_nanos(starts[n].parse().unwrap());
        assert!(at(1) - at(0) >= Duration::from_secs(1) && at(2) - at(1) >= Duration::from_secs(1), "{starts:?}");
        world.wait_stat("a", "down");
        // In the second before a restart runsv obeys d and u at once and in order, and the status
        // shows what is wanted.
        let before = SystemTime::now();
        world.control("a", "d");
        world.wait("it to be wanted down", || world.status("a")[17] == b'd');
        world.control("a", "u");
        world.wait_lines("a/starts", 4);
        assert!(before.elapsed().unwrap() < Duration::from_millis(900));
    });
}

#[test]
fn control_scripts_replace_signals() {
    each_way(|world| {
        world.script("a/run", "trap 'echo TERM >>got' TERM; echo run >>got; while :; do sleep 1000 & wait; done");
        world.script("a/control/u", "echo control/u >>got");
        world.script("a/control/t", "echo control/t >>got");
        world.script("a/control/h", "echo control/h >>got; exit 1");
        world.script("a/control/d", "echo control/d >>got");
        world.write("a/control/2", "not executable");
        let _runsv = world.runsv("a");
        world.wait_lines("a/got", 2);
        world.control("a", "t1");
        let got = world.wait_lines("a/got", 3);
        assert_eq!(got[..3], ["control/u", "run", "control/t"]);
        // USR1 had no script, so it ended the service; control/u runs before the next start.
        let got = world.wait_lines("a/got", 5);
        assert_eq!(got[3..], ["control/u", "run"]);
        world.wait_stat("a", "run");
        world.control("a", "d");
        let got = world.wait_lines("a/got", 7);
        assert_eq!(got[5..], ["control/t", "control/d"]);
        world.wait_stat("a", "run, want down");
        world.control("a", "h");
        let got = world.wait_lines("a/got", 8);
        assert_eq!(got[7], "control/h");
        world.wait_stat("a", "down");
    });
}

#[test]
fn a_control_script_that_hangs_does_not_stop_the_log_or_the_reaping() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/log/run", "exec cat");
        world.script("a/control/h", "echo hanging >>got; while [ ! -e go ]; do sleep 0.02; done");
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        world.control("a", "h");
        world.wait_lines("a/got", 1);
        let (cat, pid) = (world.pid("a/log"), world.pid("a"));
        signal(cat, Signal::SIGKILL);
        world.wait_pid("a/log", cat);
        // A command waits for its turn, but runsv sees the end of the process.
        world.control("a", "d");
        signal(pid, Signal::SIGKILL);
        world.wait("the end to be written down", || world.status("a")[19] == 2);
        world.write("a/go", "");
        world.wait_stat("a", "down");
        assert_eq!(world.status("a")[17], b'd');
    });
}

#[test]
fn children_get_clean_signals_and_no_descriptors_but_three() {
    each_way(|world| {
        world.script("a/run", "exec 2>&1; grep -E 'Sig(Blk|Ign)' /proc/self/status >sig; ls /proc/$$/fd >fds; echo done >>fds; exec sleep 1000");
        world.script("a/log/run", "ls /proc/$$/fd >fds; echo done >>fds; exec cat");
        let _runsv = world.runsv("a");
        let fds = |file: &str| {
            world.wait(file, || world.lines(file).last().is_some_and(|l| l == "done"));
            // sh keeps its script open as descriptor 10 or above while it reads it.
            world.lines(file).into_iter().filter(|l| l.parse::<u32>().is_ok_and(|n| n < 10)).collect::<Vec<_>>()
        };
        assert_eq!(fds("a/fds"), ["0", "1", "2"]);
        assert_eq!(fds("a/log/fds"), ["0", "1", "2"]);
        let sig = world.read("a/sig");
        assert!(sig.contains("SigBlk:\t0000000000000000\n"), "{sig}");
        let ignored = sig.lines().find_map(|l| l.strip_prefix("SigIgn:\t")).unwrap();
        let sigpipe = 1 << (Signal::SIGPIPE as u32 - 1);
        assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & sigpipe, 0, "{sig}");
    });
}

#[test]
fn a_signal_that_is_ignored_stays_so() {
    // systemd starts its services in this way.
    each_way(|world| {
        world.script("a/run", "grep SigIgn /proc/self/status >sig; exec sleep 1000");
        let program = world.dir.join("bin/runsvdir").display().to_string();
        let words = ["env".into(), "--ignore-signal=PIPE".into(), program];
        let _all = world.start_by(&words, if world.subject.is_hosted() { &["-1", "."] } else { &["."] });
        world.wait_lines("a/sig", 1);
        assert!(world.read("a/sig").ends_with("1000\n"), "{}", world.read("a/sig"));
    });
}

#[test]
fn supervise_may_be_a_link_to_a_directory_that_is_not_there_yet() {
    each_way(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/log/run", "exec cat");
        fs::create_dir_all(world.dir.join("ram")).unwrap();
        symlink(world.dir.join("ram/a"), world.at("a/supervise")).unwrap();
        symlink("../../../ram/a-log", world.at("a/log/supervise")).unwrap();
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        world.wait_stat("a/log", "run");
        assert!(world.dir.join("ram/a/status").exists() && world.dir.join("ram/a-log/status").exists());
        symlink("/nonexistent/parent/b", {
            world.script("b/run", SLEEPER);
            world.at("b/supervise")
        })
        .unwrap();
        let said = "runsv b: fatal: unable to open supervise/lock: file does not exist\n";
        assert_eq!(world.output("runsv", &["b"]), (111, said.into()));
    });
}

#[test]
fn a_runsv_that_cannot_work_says_why_and_exits_111() {
    both(|world| {
        world.script("a/run", SLEEPER);
        let _runsv = world.runsv("a");
        world.write("fifo/supervise/control", "");
        world.write("file", "");
        world.script("sfile/run", SLEEPER);
        world.write("sfile/supervise", "");
        for (args, expected) in [
            (&["a"][..], (111, "runsv a: fatal: unable to lock supervise/lock: temporary failure\n")),
            (&["none"], (111, "runsv none: fatal: unable to change to directory: file does not exist\n")),
            (&["file"], (111, "runsv file: fatal: unable to change to directory: not a directory\n")),
            (&["sfile"], (111, "runsv sfile: fatal: unable to open supervise/lock: not a directory\n")),
            (&["fifo"], (111, "runsv fifo: fatal: supervise/control exists but is not a fifo\n")),
            (&[], (1, "usage: runsv dir\n\n")),
            (&["a", "b"], (1, "usage: runsv dir\n\n")),
        ] {
            let (code, text) = world.output("runsv", args);
            let text = text.replace(&format!("{}/bin/", world.dir.display()), "");
            assert_eq!((code, text.as_str()), expected, "runsv {args:?}");
        }
        world.script("b/run", SLEEPER);
        world.write("b/log", "");
        let _b = world.runsv("b");
        assert!(world.errors().contains("runsv b: warning: ./log: not a directory.\n"), "{}", world.errors());
    });
}

#[test]
fn a_supervisor_outlives_the_reader_of_its_complaints() {
    with_each_others_sv(|world| {
        world.write("a/x", "");
        let mut child = world.command("runsv", &["a"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
        drop(child.stderr.take());
        world.script("a/finish", "echo again >>tries");
        // ./run is missing, so each try makes runsv complain.
        world.wait_lines("a/tries", 2);
        assert!(world.is_supervised("a"));
        child.kill().unwrap();
        child.wait().unwrap();
    });
}

#[test]
fn a_finish_that_is_a_fifo_is_none() {
    each_way(|world| {
        world.script("a/run", "echo start >>starts");
        nix::unistd::mkfifo(&world.at("a/finish"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let _runsv = world.runsv("a");
        world.wait_lines("a/starts", 2);
    });
}

#[test]
fn a_finish_that_cannot_be_executed_ends_a_pause_as_any_other_does() {
    each_way(|world| {
        world.script("a/run", "echo start >>starts; exec sleep 1000");
        world.write("a/finish", "");
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        world.control("a", "p");
        world.wait_stat("a", "run, paused");
        world.control("a", "d");
        world.wait_stat("a", "down");
        assert_eq!(world.status("a")[16], 0);
    });
}

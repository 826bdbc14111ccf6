//! sv: commands, output, exit codes, and the truth of its "ok".

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::subject::{both, ours, with_each_others_sv, without_numbers};

const SLEEPER: &str = "echo start >>starts; exec sleep 1000";
const USAGE: &str = "usage: sv [-v] [-w sec] command service ...\n\n";

#[test]
fn status_texts_and_exit_codes() {
    with_each_others_sv(|world| {
        world.script("a/run", "trap '' TERM\nwhile [ ! -e end ]; do sleep 0.02; done");
        world.script("a/finish", "while [ ! -e end2 ]; do sleep 0.02; done");
        world.script("b/run", SLEEPER);
        world.write("b/down", "");
        world.script("b/log/run", "exec cat >/dev/null");
        let _runsvs = [world.runsv("a"), world.runsv("b")];
        world.wait_stat("a", "run");
        world.wait_stat("b/log", "run");
        let status = |expected: &str| assert_eq!(world.sv("status a"), (0, format!("{expected}\n")));
        status("run: a: (pid P) Ts");
        world.control("a", "p");
        world.wait_stat("a", "run, paused");
        status("run: a: (pid P) Ts, paused");
        world.control("a", "cd");
        world.wait_stat("a", "run, got TERM, want down");
        status("run: a: (pid P) Ts, want down, got TERM");
        world.write("a/end", "");
        world.wait_stat("a", "finish, want down");
        status("finish: a: (pid P) Ts, want down");
        world.write("a/end2", "");
        world.wait_stat("a", "down");
        status("down: a: Ts, normally up");
        let both = "down: b: Ts; run: log: (pid P) Ts\n";
        assert_eq!(world.sv("s b"), (0, both.into()));
        assert_eq!(world.sv("status b/log"), (0, "run: b/log: (pid P) Ts\n".into()));
        assert_eq!(world.sv("status b a"), (0, format!("{both}down: a: Ts, normally up\n")));
    });
}

#[test]
fn errors_and_exit_codes() {
    with_each_others_sv(|world| {
        world.script("a/run", SLEEPER);
        world.script("never/run", SLEEPER);
        world.script("ended/run", SLEEPER);
        world.write("file", "");
        let _a = world.runsv("a");
        let ended = world.runsv("ended");
        world.control("ended", "x");
        assert_eq!(ended.wait(), 0);
        let never = "warning: never: unable to open supervise/ok: file does not exist\n";
        for (args, expected) in [
            ("", (100, USAGE.to_owned())),
            ("up", (100, USAGE.to_owned())),
            ("zzz a", (100, USAGE.to_owned())),
            ("U a", (100, USAGE.to_owned())),
            ("refresh a", (100, USAGE.to_owned())),
            ("-y up a", (100, format!("sv: illegal option -- y\n{USAGE}"))),
            ("-w", (100, format!("sv: option requires an argument -- w\n{USAGE}"))),
            ("status none", (1, "fail: none: unable to change to service directory: file does not exist\n".into())),
            ("status ./file", (1, "fail: ./file: unable to change to service directory: not a directory\n".into())),
            ("status never", (1, never.into())),
            ("start never", (1, never.into())),
            ("exit never", (1, never.into())),
            ("status ended", (1, "fail: ended: runsv not running\n".into())),
            ("up ended", (1, "fail: ended: runsv not running\n".into())),
            ("restart ended", (1, "fail: ended: runsv not running\n".into())),
            ("exit ended", (0, "ok: ended: runsv not running\n".into())),
            ("shutdown ended", (0, "ok: ended: runsv not running\n".into())),
            ("up a", (0, String::new())),
            (
                "up none never ended a",
                (
                    3,
                    format!(
                        "fail: none: unable to change to service directory: file does not exist\n{never}fail: ended: runsv not running\n"
                    ),
                ),
            ),
        ] {
            assert_eq!(world.sv(args), expected, "sv {args}");
        }
        world.write("ended/supervise/status", "short");
    });
}

#[test]
fn words_that_wait_reach_their_state() {
    with_each_others_sv(|world| {
        world.script("a/run", SLEEPER);
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        let run = "ok: run: a: (pid P) Ts\n";
        let mut pid = world.pid("a");
        for word in ["restart", "try-restart", "force-reload", "force-restart"] {
            // runit compares whole seconds: it would say "ok" too early for a restart in the second
            // of the earlier start.
            world.wait("the second to pass", || {
                let status = world.status("a");
                let since = u64::from_be_bytes(status[..8].try_into().unwrap()) - (1 << 62) - 10;
                std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() > since
            });
            assert_eq!(world.sv(&format!("{word} a")), (0, run.into()), "{word}");
            assert_ne!(world.pid("a"), pid, "{word}");
            pid = world.pid("a");
        }
        assert_eq!(world.sv("start a"), (0, run.into()));
        assert_eq!(world.sv("check a"), (0, run.into()));
        assert_eq!(world.pid("a"), pid);
        assert_eq!(world.sv("-v pause a"), (0, "ok: run: a: (pid P) Ts, paused\n".into()));
        assert_eq!(world.sv("-v cont a"), (0, run.into()));
        assert_eq!(world.sv("-w 5 down a"), (0, "ok: down: a: Ts, normally up\n".into()));
        assert_eq!(world.sv("start a"), (0, run.into()));
        assert_eq!(world.sv("shutdown a"), (0, "ok: a: runsv not running\n".into()));
        assert_eq!(runsv.wait(), 0);
    });
}

#[test]
fn what_takes_too_long_is_said_and_with_force_killed() {
    with_each_others_sv(|world| {
        world.script("a/run", "trap '' TERM; echo start >>starts; while :; do sleep 1000 & wait; done");
        let _runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "run");
        assert_eq!(world.sv("-w 1 stop a"), (1, "timeout: run: a: (pid P) Ts, want down, got TERM\n".into()));
        assert_eq!(world.sv("-w 1 force-stop a"), (1, "kill: run: a: (pid P) Ts, want down, got TERM\n".into()));
        world.wait_stat("a", "down");
        world.script("a/check", "exit 1");
        assert_eq!(world.sv("-w 1 start a"), (1, "timeout: run: a: (pid P) Ts\n".into()));
    });
}

#[test]
fn check_decides_when_it_is_up() {
    with_each_others_sv(|world| {
        world.script("a/run", SLEEPER);
        world.write("a/down", "");
        world.script("a/check", "echo asked >>asked; [ $(wc -l <asked) -ge 3 ]");
        let _runsv = world.runsv("a");
        assert_eq!(world.sv("start a"), (0, "ok: run: a: (pid P) Ts, normally down\n".into()));
        assert!(world.lines("a/asked").len() >= 3);
    });
}

#[test]
fn a_check_that_cannot_be_executed_is_told_and_does_not_count() {
    with_each_others_sv(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/check", "exit 1");
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        assert_eq!(world.sv("-w0 check a"), (1, "timeout: run: a: (pid P) Ts\n".into()));
        fs::set_permissions(world.at("a/check"), fs::Permissions::from_mode(0o644)).unwrap();
        let up = "ok: run: a: (pid P) Ts\nwarning: unable to run a/check: access denied\n";
        assert_eq!(world.sv("start a"), (0, up.into()));
        fs::remove_file(world.at("a/check")).unwrap();
        symlink("check", world.at("a/check")).unwrap();
        assert_eq!(world.sv("-w1 start a").0, 1);
    });
}

#[test]
fn any_number_of_seconds_is_a_time() {
    both(|world| {
        world.script("a/run", SLEEPER);
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        for secs in ["18446744073709551615", "0x", "9999999999"] {
            assert_eq!(world.sv(&format!("-w {secs} start a")), (0, "ok: run: a: (pid P) Ts\n".into()), "{secs}");
        }
    });
}

#[test]
fn ok_is_only_said_of_a_state_that_is_newer_than_the_command() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.write("a/down", "");
        let _runsv = world.runsv("a");
        for round in 0..5 {
            let once = "ok: run: a: (pid P) Ts, normally down, want down\n";
            assert_eq!(world.sv("-v once a"), (0, once.into()));
            // sv sees that the process exists; the process itself may have done nothing by then.
            world.wait_lines("a/starts", 3 * round + 1);
            // All restarts happen within the second of the start.
            assert_eq!(world.sv("restart a"), (0, "ok: run: a: (pid P) Ts, normally down\n".into()));
            let pid = world.pid("a");
            world.wait_lines("a/starts", 3 * round + 2);
            assert_eq!(world.sv("try-restart a"), (0, "ok: run: a: (pid P) Ts, normally down\n".into()));
            assert_ne!(world.pid("a"), pid);
            world.wait_lines("a/starts", 3 * round + 3);
            assert_eq!(world.sv("stop a"), (0, "ok: down: a: Ts\n".into()));
        }
        assert_eq!(world.lines("a/starts").len(), 15);
    });
}

#[test]
fn more_services_than_descriptors_are_waited_for() {
    both(|world| {
        let names: Vec<String> = (0..30).map(|n| format!("s{n:02}")).collect();
        for name in &names {
            world.script(&format!("{name}/run"), SLEEPER);
            world.write(&format!("{name}/down"), "");
        }
        let _runsvs: Vec<_> = names.iter().map(|name| world.runsv(name)).collect();
        symlink("/bin/sh", world.dir.join("bin/sh")).unwrap();
        let expected = |text: &str| names.iter().map(|name| text.replace("NAME", name)).collect::<Vec<_>>();
        for (word, text) in [
            ("start", "ok: run: NAME: (pid P) Ts, normally down"),
            ("stop", "ok: down: NAME: Ts"),
            ("shutdown", "ok: NAME: runsv not running"),
        ] {
            let script =
                format!("ulimit -n 20; exec {}/sv -w 30 {word} {}", world.dir.join("bin").display(), names.join(" "));
            let output = world.command("sh", &["-c", &script]).output().unwrap();
            let said = without_numbers(&String::from_utf8(output.stdout).unwrap());
            let mut lines: Vec<&str> = said.lines().collect();
            // sv prints each service as soon as it gets there.
            lines.sort_unstable();
            assert_eq!(lines, expected(text), "{word}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.code(), Some(0));
        }
    });
}

#[test]
fn a_service_that_waits_for_its_second_is_started_by_u() {
    ours(|world| {
        world.script("a/run", "echo start >>starts; [ -e good ] && exec sleep 1000");
        let _runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "down");
        world.write("a/good", "");
        assert_eq!(world.sv("start a"), (0, "ok: run: a: (pid P) Ts\n".into()));
        assert_eq!(world.wait_lines("a/starts", 2).len(), 2);
    });
}

#[test]
fn a_full_fifo_is_a_temporary_failure() {
    both(|world| {
        world.script("a/run", SLEEPER);
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        // The stopped runsv reads nothing; a pipe holds 65536 bytes.
        runsv.signal(nix::sys::signal::Signal::SIGSTOP);
        world.control("a", &"Z".repeat(65536));
        let said = "warning: a: unable to write to supervise/control: temporary failure\n";
        assert_eq!(world.sv("hup a"), (1, said.into()));
        runsv.signal(nix::sys::signal::Signal::SIGCONT);
    });
}

#[test]
fn as_an_init_script_it_speaks_lsb() {
    both(|world| {
        world.script("a/run", SLEEPER);
        world.script("ended/run", SLEEPER);
        let (_runsv, ended) = (world.runsv("a"), world.runsv("ended"));
        world.control("ended", "x");
        assert_eq!(ended.wait(), 0);
        world.wait_stat("a", "run");
        fs::create_dir(world.dir.join("init.d")).unwrap();
        let program = fs::read_link(world.dir.join("bin/sv")).unwrap();
        for name in ["a", "ended"] {
            symlink(&program, world.dir.join("init.d").join(name)).unwrap();
        }
        let lsb = |name: &str, word: &str| world.output(&format!("../init.d/{name}"), &[word]).0;
        assert_eq!(lsb("a", "status"), 0);
        assert_eq!(lsb("a", "stop"), 0);
        assert_eq!(lsb("a", "status"), 3);
        assert_eq!(lsb("a", "start"), 0);
        assert_eq!(lsb("a", "nonsense"), 2);
        // runit 2.1.2 exits with 1. runit 2.3.0 exits with 4, as its manual page always said.
        assert_eq!(lsb("ended", "status"), if world.subject.is_ours() { 4 } else { 1 });
        assert_eq!(lsb("ended", "start"), 1);
    });
}

#[test]
fn svc_and_svok() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        assert_eq!(world.output("svok", &["a"]), (100, String::new()));
        let none = "svok: fatal: unable to chdir to none: file does not exist\n";
        assert_eq!(world.output("svok", &["none"]), (111, none.into()));
        world.write("file", "");
        assert_eq!(world.output("svok", &["file"]).0, 111);
        let runsv = world.runsv("a");
        assert_eq!(world.output("svok", &["a"]), (0, String::new()));
        world.wait_stat("a", "run");
        assert_eq!(world.output("svc", &["-p", "a"]), (0, String::new()));
        world.wait_stat("a", "run, paused");
        // The letters are sent in the order of the options.
        assert_eq!(world.output("svc", &["-cod", "a"]), (0, String::new()));
        world.wait_stat("a", "down");
        assert_eq!(world.output("svc", &["-x", "a", "none"]).0, 1);
        assert_eq!(runsv.wait(), 0);
        assert_eq!(world.output("svok", &["a"]), (100, String::new()));
        assert_eq!(world.output("svc", &["a", "-u"]).0, 1);
        assert_eq!(world.output("svc", &["-z", "a"]).0, 100);
        assert_eq!(world.output("svok", &[]).0, 100);
    });
}

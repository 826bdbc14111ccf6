//! sv status beyond runit's: all services, JSON, the table on a terminal, ages that do not follow
//! the wall clock, readiness, hints, and a service directory on a read-only file system. sv.rs
//! tests runit's own output, which scripts read.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix::pty::openpty;
use nix::sys::signal::Signal;
use testkit::Value;

use crate::subject::{OURS, World, ours, signal, with_each_others_sv, without_numbers};

const SLEEPER: &str = "echo start >>starts; exec sleep 1000";

/// What the command prints on a terminal that is its stdout and its stderr.
fn on_a_terminal(command: &mut Command) -> String {
    let pty = openpty(None, None).unwrap();
    let (out, err) = (pty.slave.try_clone().unwrap(), pty.slave);
    command.env("TERM", "linux").env_remove("NO_COLOR");
    terminal(command, out.into(), err.into(), fs::File::from(pty.master))
}

/// `seen` is the master of the terminal to which `out` or `err` belongs.
fn terminal(command: &mut Command, out: Stdio, err: Stdio, mut seen: fs::File) -> String {
    let mut child = command.stdout(out).stderr(err).spawn().unwrap();
    // Closes our copies of the slave, so that the master sees the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    // read fails with EIO when the last process has closed the slave: pty(7) on Linux.
    while let Ok(n) = seen.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
    }
    child.wait().unwrap();
    String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
}

/// python3 parses it first, as an independent reader.
fn json(bytes: &[u8]) -> Value {
    let mut tool = Command::new("python3");
    tool.args(["-m", "json.tool"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = tool.spawn().expect("python3");
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(bytes));
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

fn status_json(world: &World, args: &[&str]) -> Vec<Value> {
    let args = [&["--json", "status"], args].concat();
    json(&world.command("sv", &args).output().unwrap().stdout).as_array().unwrap().clone()
}

#[test]
fn without_a_service_it_reports_on_all_of_them() {
    ours(|world| {
        for name in ["b", "a", "Z"] {
            world.script(&format!("{name}/run"), SLEEPER);
            world.write(&format!("{name}/down"), "");
        }
        world.script("never/run", SLEEPER);
        world.write("file", "");
        world.write(".hidden/run", "");
        std::os::unix::fs::symlink("a", world.at("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", world.at("dangling")).unwrap();
        let _runsvs = ["a", "b", "Z"].map(|name| world.runsv(name));
        let never = "warning: never: unable to open supervise/ok: file does not exist\n";
        let all = format!("down: Z: Ts\ndown: a: Ts\ndown: b: Ts\ndown: link: Ts\n{never}");
        assert_eq!(world.sv("status"), (1, all.clone()));
        assert_eq!(world.sv("s"), (1, all.clone()));
        // These are the names to which a shell would expand `*`.
        assert_eq!(world.sv("status Z a b link never"), (1, all));
        for wrong in ["up", "restart", "check", "--json up a", "--json restart a", "--json"] {
            assert_eq!(world.sv(wrong).0, 100, "{wrong}");
        }
        let usage = "usage: sv [-v] [-w sec] command service ...\n\n";
        assert_eq!(world.sv("--json up a").1, format!("sv: --json is for status only\n{usage}"));
        let missing = world.command("sv", &["status"]).env("SVDIR", world.at("none")).output().unwrap();
        let said = format!("sv: fatal: unable to read {}: file does not exist\n", world.at("none").display());
        assert_eq!((missing.status.code(), String::from_utf8(missing.stderr).unwrap()), (Some(100), said));
        fs::create_dir(world.at("none")).unwrap();
        for (args, nothing) in [(&["status"][..], ""), (&["--json", "status"], "[]\n")] {
            let empty = world.command("sv", args).env("SVDIR", world.at("none")).output().unwrap();
            assert_eq!((empty.status.code(), String::from_utf8(empty.stdout).unwrap()), (Some(0), nothing.into()));
        }
    });
}

#[test]
fn json_tells_it_all_to_a_program() {
    ours(|world| {
        world.script("a/run", "trap '' TERM; echo start >>starts; read line <go; exit 3");
        nix::unistd::mkfifo(&world.at("a/go"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        world.write("a/down", "");
        world.script("a/log/run", "exec cat >/dev/null");
        world.script("ended/run", SLEEPER);
        let odd = OsStr::from_bytes(b"q\"\\\n\x01\xff");
        fs::create_dir(world.at("").join(odd)).unwrap();
        let (_a, ended) = (world.runsv("a"), world.runsv("ended"));
        world.control("ended", "x");
        assert_eq!(ended.wait(), 0);
        world.control("a", "u");
        world.wait_stat("a", "run");
        world.wait_stat("a/log", "run");
        // The service ends by itself once; then it is paused and told to end.
        world.wait_lines("a/starts", 1);
        let deaths = status_json(world, &["a"])[0]["deaths"].as_u64().unwrap();
        let pid = world.pid("a");
        fs::write(world.at("a/go"), "go\n").unwrap();
        world.wait_pid("a", pid);
        world.wait_lines("a/starts", 2);
        world.control("a", "pd");
        world.wait_stat("a", "run, paused, got TERM, want down");
        let listed = status_json(world, &["a", "ended", "none"]);
        let a = &listed[0];
        let expected: Value = format!(
            r#"{{"name": "a", "path": "{}", "supervised": true, "state": "run", "pid": {}, "wanted": "down",
            "normally": "down", "paused": true, "got_term": true, "ready": null, "deaths": {},
            "exit": {{"code": 3, "signal": null}}, "error": null}}"#,
            world.at("a").display(),
            world.pid("a"),
            deaths + 1
        )
        .parse()
        .unwrap();
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&a[key], value, "{key}");
        }
        assert!(a["seconds"].as_u64().unwrap() < 60, "{a}");
        assert_eq!((&a["log"]["state"], &a["log"]["name"]), (&"run".into(), &"log".into()));
        assert_eq!(a["log"]["pid"], world.pid("a/log"));
        let (gone, none) = (&listed[1], &listed[2]);
        assert_eq!((&gone["supervised"], &gone["error"]), (&false.into(), &"runsv not running".into()));
        assert_eq!((&gone["state"], &gone["log"]), (&Value::Null, &Value::Null));
        assert_eq!(none["error"], "unable to change to service directory: file does not exist");
        // All services, with any bytes in their names.
        let all = status_json(world, &[]);
        let names: Vec<&str> = all.iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["a", "ended", "q\"\\\n\u{1}\u{fffd}"]);
        assert_eq!(
            world.command("sv", &["--json", "status", "a", "ended", "none"]).output().unwrap().status.code(),
            Some(2)
        );
        world.control("a", "k");
    });
}

#[test]
fn on_a_terminal_it_is_a_table_and_on_a_pipe_what_it_was() {
    ours(|world| {
        for name in ["short", "a-longer-name"] {
            world.script(&format!("{name}/run"), SLEEPER);
        }
        let _runsvs = [world.runsv("short"), world.runsv("a-longer-name")];
        world.wait_stat("short", "run");
        world.wait_stat("a-longer-name", "run");
        world.control("a-longer-name", "d");
        world.wait_stat("a-longer-name", "down");
        let command = || world.command("sv", &["status", "short", "a-longer-name", "none"]);
        let plain = "run: short: (pid P) Ts\ndown: a-longer-name: Ts, normally up\n\
                     fail: none: unable to change to service directory: file does not exist\n";
        let table = on_a_terminal(&mut command());
        let hint = format!("sv: is runsvdir running? SVDIR is {}\n", world.at("").display());
        let table = table.strip_suffix(&hint).unwrap_or_else(|| panic!("{table}"));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[0].contains("\x1b[1mSERVICE\x1b[0m"), "{table}");
        assert!(lines[1].starts_with("short          \x1b[32mrun\x1b[0m    "), "{table}");
        assert!(lines[2].starts_with("a-longer-name  \x1b[33mdown\x1b[0m   "), "{table}");
        assert!(lines[3].starts_with("none           \x1b[31mfail\x1b[0m   "), "{table}");
        // Without colours the columns keep their places. On a dumb terminal the output is the same
        // as in a pipe.
        let pty = |variable: &str, value: &str| {
            let pty = openpty(None, None).unwrap();
            let mut command = command();
            command.env("TERM", "linux").env_remove("NO_COLOR").env(variable, value);
            terminal(&mut command, pty.slave.into(), Stdio::null(), pty.master.into())
        };
        let without = pty("NO_COLOR", "1");
        assert!(!without.contains('\x1b'), "{without}");
        let at = |line: &str, word: &str| line.find(word).unwrap_or_else(|| panic!("{word}: {line}"));
        let lines: Vec<&str> = without.lines().collect();
        assert_eq!(at(lines[0], "STATE"), at(lines[1], "run"));
        assert_eq!(at(lines[0], "NOTES"), at(lines[2], "normally up"));
        assert_eq!(at(lines[0], "NOTES"), at(lines[3], "unable to"));
        let pid = world.pid("short").to_string();
        assert_eq!(at(lines[0], "PID") + "PID".len(), at(lines[1], &pid) + pid.len());
        assert!(pty("NO_COLOR", "").contains("\x1b[32m"));
        assert_eq!(without_numbers(&pty("TERM", "dumb")), plain);
        assert_eq!(world.sv("status short a-longer-name none"), (1, plain.into()));
    });
}

#[test]
fn a_one_shot_that_has_ended_is_done_or_failed_and_not_just_down() {
    ours(|world| {
        world.script("good/run", "sv o .");
        world.script("bad/run", "sv o .; exit 3");
        world.script("put-down/run", SLEEPER);
        let runsvs = ["good", "bad", "put-down"].map(|name| world.runsv(name));
        world.wait_lines("put-down/starts", 1);
        world.control("put-down", "d");
        let look = || {
            for (name, exit) in [("good", "exit=0,0"), ("bad", "exit=3,0"), ("put-down", "exit=-1,15")] {
                world.wait("its end", || {
                    let record = world.record(name);
                    record.contains("state=down") && record.contains(exit)
                });
            }
            // runsv writes the record before the status, and a new runsv is not there at once.
            world.wait("the results", || {
                let results = status_json(world, &["good", "bad", "put-down"]);
                let results: Vec<&Value> = results.iter().map(|service| &service["result"]).collect();
                results == [&"done".into(), &"failed".into(), &Value::Null]
            });
            let table = on_a_terminal(&mut world.command("sv", &["status", "good", "bad", "put-down"]));
            for state in ["\x1b[32mdone\x1b[0m", "\x1b[31mfailed\x1b[0m", "\x1b[33mdown\x1b[0m"] {
                assert!(table.contains(state), "{table}");
            }
            // The output for scripts is runit's.
            let plain = ["good", "bad", "put-down"].map(|name| format!("down: {name}: Ts, normally up\n"));
            assert_eq!(world.sv("status good bad put-down"), (0, plain.concat()));
        };
        look();
        // A killed runsv and its successor give the same output.
        runsvs.into_iter().for_each(crate::subject::Daemon::kill);
        let _again = ["good", "bad", "put-down"].map(|name| world.runsv(name));
        look();
    });
}

#[test]
fn what_to_do_is_said_to_a_person_and_after_all_services() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.script("ended/run", SLEEPER);
        let (_a, ended) = (world.runsv("a"), world.runsv("ended"));
        world.control("ended", "x");
        assert_eq!(ended.wait(), 0);
        let on_stderr = |args: &[&str]| {
            let pty = openpty(None, None).unwrap();
            terminal(&mut world.command("sv", args), Stdio::null(), pty.slave.into(), pty.master.into())
        };
        let hint = format!("sv: is runsvdir running? SVDIR is {}\n", world.at("").display());
        for args in [&["status", "ended", "a"][..], &["up", "none", "ended", "a"], &["restart", "ended"]] {
            assert_eq!(on_stderr(args), hint, "{args:?}");
        }
        for args in [&["status", "a"][..], &["shutdown", "ended"], &["start", "a"]] {
            assert_eq!(on_stderr(args), "", "{args:?}");
        }
        // stderr is not a terminal: sv prints no hint.
        assert_eq!(world.sv("status ended"), (1, "fail: ended: runsv not running\n".into()));
        // sv says so when it may not look. setpriv makes a process of another user.
        if nix::unistd::geteuid().is_root() {
            fs::set_permissions(&world.dir, fs::Permissions::from_mode(0o755)).unwrap();
            // cp makes the copy: a child of another thread could inherit our descriptor while it is
            // open for writing (ETXTBSY).
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_netsv")).arg(world.dir.join("sv")).status();
            assert!(copied.unwrap().success());
            let pty = openpty(None, None).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(world.dir.join("sv"));
            command.args(["status", "a"]).env("SVDIR", world.at("")).stdin(Stdio::null());
            let (out, err) = (pty.slave.try_clone().unwrap(), pty.slave);
            command.env("TERM", "dumb");
            let said = terminal(&mut command, out.into(), err.into(), pty.master.into());
            let expected = "warning: a: unable to open supervise/ok: access denied\n\
                            sv: are you root? the files of a service are its owner's alone\n";
            assert_eq!(said, expected);
        }
    });
}

#[test]
fn an_age_does_not_follow_the_wall_clock() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        world.script("a/log/run", "exec cat >/dev/null");
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        world.wait_stat("a/log", "run");
        // The status says that both were started in 1970 by the wall clock. runsv is stopped, so
        // that it does not write the status anew.
        runsv.signal(Signal::SIGSTOP);
        for name in ["a", "a/log"] {
            let mut status = world.status(name);
            status[..8].copy_from_slice(&((1u64 << 62) + 10).to_be_bytes());
            fs::write(world.at(name).join("supervise/status"), status).unwrap();
        }
        let ages = || {
            let (_, text) = world.output("sv", &["status", "a"]);
            let words = text.trim_end().split([' ', ',', ';']).filter_map(|word| word.strip_suffix('s'));
            words.filter_map(|word| word.parse::<u64>().ok()).collect::<Vec<_>>()
        };
        let [main, log] = ages()[..] else { panic!("{:?}", ages()) };
        assert!(main < 60 && log < 60, "{main} {log}");
        assert!(status_json(world, &["a"])[0]["seconds"].as_u64().unwrap() < 60);
        // sv ignores a record of another boot or another process, and shows the age as runit does.
        let record = world.record("a");
        for (from, to) in [("boot=", "boot=x"), ("pid=", "pid=1")] {
            world.write_record("a", &record.replace(from, to));
            assert!(ages()[0] > 1_000_000_000, "{:?}", ages());
        }
        runsv.signal(Signal::SIGCONT);
    });
}

#[test]
fn a_file_that_appears_while_it_runs_asks_nothing_of_the_process_that_runs() {
    ours(|world| {
        world.script("a/run", "exec sleep 1000");
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        world.write("a/notification-fd", "3\n");
        assert!(status_json(world, &["a"])[0]["ready"].is_null());
        assert_eq!(world.sv("status a"), (0, "run: a: (pid P) Ts\n".into()));
        assert_eq!(world.sv("-w 1 restart a"), (1, "timeout: run: a: (pid P) Ts, not ready\n".into()));
    });
}

#[test]
fn a_service_is_up_when_it_says_that_it_is_ready() {
    ours(|world| {
        world.script("a/run", "echo start >>starts; read line <go; echo >&3; exec sleep 1000");
        nix::unistd::mkfifo(&world.at("a/go"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        world.write("a/notification-fd", "3\n");
        world.write("a/down", "");
        let _runsv = world.runsv("a");
        world.wait("its record", || !world.record("a").is_empty());
        assert!(status_json(world, &["a"])[0]["ready"].is_null());
        assert_eq!(world.sv("status a"), (0, "down: a: Ts\n".into()));
        let not_yet = "run: a: (pid P) Ts, normally down, not ready\n";
        assert_eq!(world.sv("-w 1 start a"), (1, format!("timeout: {not_yet}")));
        assert_eq!(world.sv("status a"), (0, not_yet.into()));
        let table = on_a_terminal(&mut world.command("sv", &["status", "a"]));
        assert!(table.contains("READY") && table.contains("\x1b[33mno\x1b[0m"), "{table}");
        // Each command waits. The test writes the file that lets it end only after its start.
        let mut pid = world.pid("a");
        for (word, another) in [("check", false), ("restart", true), ("try-restart", true), ("start", false)] {
            let mut waiting = world.command("sv", &["-w", "20", word, "a"]);
            let waiting = waiting.stdout(Stdio::piped()).spawn().unwrap();
            if another {
                pid = world.wait_pid("a", pid);
            }
            if word != "start" {
                assert!(world.record("a").contains(" ready=no"));
                fs::write(world.at("a/go"), "go\n").unwrap();
            }
            let output = waiting.wait_with_output().unwrap();
            assert!(!world.record("a").contains(" ready=no"), "{word}");
            let said = without_numbers(&String::from_utf8(output.stdout).unwrap());
            assert_eq!(said, "ok: run: a: (pid P) Ts, normally down\n", "{word}");
        }
        assert_eq!(world.sv("status a"), (0, "run: a: (pid P) Ts, normally down\n".into()));
        assert_eq!(status_json(world, &["a"])[0]["ready"], true);
        signal(world.pid("a"), Signal::SIGKILL);
    });
}

#[test]
fn names_and_paths_lead_to_the_same_service() {
    with_each_others_sv(|world| {
        world.script("a/run", SLEEPER);
        let runsv = world.runsv("a");
        // runit says "run" before it knows whether ./run can be executed.
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "run");
        let full = world.at("a").display().to_string();
        // runit 2.1.2 forgets, while it waits, that a name with a slash at its end is a path. From
        // within SVDIR the result is the same.
        for name in ["a", "./a", "a/", &full] {
            assert_eq!(world.sv(&format!("status {name}")), (0, format!("run: {name}: (pid P) Ts\n")));
            assert_eq!(world.sv(&format!("start {name}")), (0, format!("ok: run: {name}: (pid P) Ts\n")));
        }
        let from = |dir: &str, args: &[&str], svdir: &str| {
            let output = world.command("sv", args).current_dir(world.at(dir)).env("SVDIR", svdir).output().unwrap();
            without_numbers(&String::from_utf8(output.stdout).unwrap())
        };
        assert_eq!(from("a", &["status", "."], "/none"), "run: .: (pid P) Ts\n");
        assert_eq!(from("", &["status", "a/", "./a"], "/none"), "run: a/: (pid P) Ts\nrun: ./a: (pid P) Ts\n");
        assert_eq!(from("a", &["status", "a"], ".."), "run: a: (pid P) Ts\n");
        assert_eq!(world.sv(&format!("force-shutdown {full}")), (0, format!("ok: {full}: runsv not running\n")));
        assert_eq!(runsv.wait(), 0);
    });
}

#[test]
fn a_path_is_a_path_also_while_it_is_waited_for() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let _runsv = world.runsv("a");
        for args in [&["start", "a/"][..], &["restart", "a/", "./a"], &["-v", "down", "a/"]] {
            let output = world.command("sv", args).env("SVDIR", "/none").output().unwrap();
            assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{args:?}");
            assert!(output.stdout.starts_with(b"ok: "), "{}", String::from_utf8_lossy(&output.stdout));
        }
    });
}

#[test]
fn every_word_does_what_it_does_in_runit() {
    with_each_others_sv(|world| {
        // The service records its signals. Only TERM and KILL end it.
        let traps =
            ["HUP", "ALRM", "INT", "QUIT", "USR1", "USR2"].map(|s| format!("trap 'echo {s} >>got' {s}\n")).concat();
        world.script("a/run", &format!("{traps}echo start >>starts\nwhile :; do sleep 1000 & wait; kill $!; done"));
        let runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "run");
        let words =
            [("hup", "HUP"), ("alarm", "ALRM"), ("interrupt", "INT"), ("quit", "QUIT"), ("1", "USR1"), ("2", "USR2")];
        for (count, (word, signal)) in words.iter().enumerate() {
            assert_eq!(world.sv(&format!("{word} a")), (0, String::new()));
            assert_eq!(world.wait_lines("a/got", count + 1)[count], *signal, "{word}");
        }
        let run = "ok: run: a: (pid P) Ts\n";
        assert_eq!(world.sv("reload a"), (0, run.into()));
        world.wait_lines("a/got", 7);
        // -w waits and reports as -v does; one letter of the command is enough.
        assert_eq!(world.sv("-w 5 h a"), (0, run.into()));
        world.wait_lines("a/got", 8);
        assert_eq!(world.sv("-w5 -v 1 a"), (0, run.into()));
        assert_eq!(world.sv("-v p a"), (0, "ok: run: a: (pid P) Ts, paused\n".into()));
        assert_eq!(world.sv("-v c a"), (0, run.into()));
        for (word, starts) in [("term", 2), ("kill", 3), ("t", 4), ("k", 5)] {
            assert_eq!(world.sv(&format!("{word} a")), (0, String::new()));
            world.wait_lines("a/starts", starts);
        }
        assert_eq!(world.sv("once a"), (0, String::new()));
        world.wait_stat("a", "run, want down");
        assert_eq!(world.sv("D a"), (0, "ok: down: a: Ts, normally up\n".into()));
        assert_eq!(world.sv("check a"), (0, "ok: down: a: Ts, normally up\n".into()));
        assert_eq!(world.sv("X a"), (0, "ok: a: runsv not running\n".into()));
        assert_eq!(runsv.wait(), 0);
        assert_eq!(world.sv("E a"), (0, "ok: a: runsv not running\n".into()));
        assert_eq!(world.sv("T a"), (1, "fail: a: runsv not running\n".into()));
    });
}

#[test]
fn svwait_is_the_time_that_is_waited() {
    with_each_others_sv(|world| {
        world.script("a/run", "trap '' TERM; echo start >>starts; while :; do sleep 1000 & wait; done");
        let _runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "run");
        let before = std::time::Instant::now();
        let output = world.command("sv", &["stop", "a"]).env("SVWAIT", "1").output().unwrap();
        let said = without_numbers(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(said, "timeout: run: a: (pid P) Ts, want down, got TERM\n");
        assert!(before.elapsed().as_secs() < 7, "7 is what it waits without SVWAIT");
        // The option -w overrides SVWAIT.
        let output = world.command("sv", &["-w", "1", "stop", "a"]).env("SVWAIT", "600").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
    });
}

#[test]
fn a_read_only_service_directory_has_its_supervise_in_run() {
    testkit::isolated(&["python3"], |lab| {
        let world = World::for_isolated(OURS);
        let root = world.at("");
        world.script("a/run", "exec sleep 1000");
        world.script("a/log/run", "exec cat >/dev/null");
        let mount = |args: &[&str]| {
            let status = Command::new("mount").args(args).arg(&root).status().unwrap();
            assert!(status.success(), "{args:?}");
        };
        mount(&["--bind", root.to_str().unwrap()]);
        mount(&["-o", "remount,ro,bind"]);
        assert!(fs::write(root.join("probe"), "").is_err(), "it is read-only");
        let sv = |args: &str| world.sv(args);
        let start = || {
            let runsv = world.start("runsv", &["a"]);
            world.wait("runsv to be reached", || sv("status a").0 == 0);
            runsv
        };
        let runsv = start();
        let both = |state: &str| (0, format!("{state}; run: log: (pid P) Ts\n"));
        world.wait("both to run", || sv("status a") == both("run: a: (pid P) Ts"));
        assert!(!root.join("a/supervise").exists());
        assert_eq!(fs::read_dir("/run/runsv").unwrap().count(), 2, "one for the service, one for its log");
        let pid = || status_json(&world, &["a"])[0]["pid"].as_i64().unwrap();
        let first = pid();
        assert_eq!(sv("restart a"), (0, "ok: run: a: (pid P) Ts\n".into()));
        assert_ne!(pid(), first);
        // The next runsv finds the record of the killed one.
        let second = pid();
        runsv.kill();
        assert_eq!(sv("status a").0, 1);
        let _again = start();
        world.wait("the log again", || sv("status a") == both("run: a: (pid P) Ts"));
        assert_eq!(pid(), second);
        world.wait_count("sleep 1000", 1);
        assert_eq!(sv("-v down a"), (0, "ok: down: a: Ts, normally up\n".into()));
        assert_eq!(sv("check a"), (0, "ok: down: a: Ts, normally up\n".into()));
        assert_eq!(sv("status").1, "down: a: Ts, normally up; run: log: (pid P) Ts\n");
        assert_eq!(sv("shutdown a"), (0, "ok: a: runsv not running\n".into()));
        assert!(Command::new("umount").args(["-l"]).arg(&root).status().unwrap().success());
        drop(world);
        let _ = lab;
    });
}

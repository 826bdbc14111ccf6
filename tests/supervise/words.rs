//! The commands of sv for a runsv that is busy, slow, or not there yet.

use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use crate::subject::{World, ours, without_numbers};

const SLEEPER: &str = "exec sleep 1000";

/// Runs `sv ARGS` with another default for the seconds to wait.
fn sv_with_default(world: &World, secs: &str, args: &str) -> (Option<i32>, String) {
    let words: Vec<&str> = args.split(' ').collect();
    let output = world.command("sv", &words).env("SVWAIT", secs).output().unwrap();
    (output.status.code(), without_numbers(&String::from_utf8(output.stdout).unwrap()))
}

#[test]
fn a_command_before_which_another_waits_unread_is_neither_dropped_nor_called_done() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let runsv = world.runsv("a");
        world.wait_stat("a", "run");
        // The first command, the second command, and the state to which they lead.
        for (first, word, state) in [
            ("down", "start", "run"),
            ("up", "stop", "down"),
            ("up", "-v down", "down"),
            ("down", "-v up", "down"),
            ("up", "check", "run"),
            ("down", "check", "down"),
            ("up", "restart", "run"),
        ] {
            runsv.signal(Signal::SIGSTOP);
            assert_eq!(world.sv(&format!("{first} a")), (0, String::new()));
            let (code, said) = world.sv(&format!("-w0 {word} a"));
            assert_eq!((code, said.starts_with("timeout: ")), (1, true), "{first}, {word}: {said}");
            runsv.signal(Signal::SIGCONT);
            let state = if (first, word) == ("down", "-v up") { "run" } else { state };
            world.wait("what was said last", || {
                let status = world.status("a");
                let up = state == "run";
                (status[17] == b'u', status[19], status[18])
                    == (up || word == "check" && first == "up", u8::from(up), 0)
            });
        }
    });
}

#[test]
fn no_command_of_many_is_lost() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        let _runsv = world.runsv("a");
        world.wait_stat("a", "run");
        for _ in 0..30 {
            let pid = world.pid("a");
            assert_eq!(world.sv("down a").0, 0);
            assert_eq!(world.sv("up a").0, 0);
            world.wait_pid("a", pid);
        }
        for _ in 0..10 {
            assert_eq!(world.sv("up a").0, 0);
            assert_eq!(world.sv("stop a"), (0, "ok: down: a: Ts, normally up\n".into()));
        }
    });
}

#[test]
fn down_that_is_said_again_sends_no_second_term() {
    ours(|world| {
        world.script("a/run", "trap 'echo term >>terms' TERM; echo >ready; while [ ! -e end ]; do sleep 0.02; done");
        let _runsv = world.runsv("a");
        world.wait_lines("a/ready", 1);
        assert_eq!(world.sv("down a").0, 0);
        world.wait_lines("a/terms", 1);
        for _ in 0..3 {
            assert_eq!(world.sv("-w0 down a"), (1, "timeout: run: a: (pid P) Ts, want down, got TERM\n".into()));
        }
        // `t` asks for no lasting state.
        assert_eq!(world.sv("term a").0, 0);
        world.wait_lines("a/terms", 2);
        world.write("a/end", "");
        world.wait_stat("a", "down");
        assert_eq!(world.lines("a/terms").len(), 2);
    });
}

#[test]
fn sv_waits_as_long_as_the_service_may_take_to_end() {
    ours(|world| {
        for (n, word) in
            ["force-stop", "stop", "restart", "force-reload", "-v down", "force-shutdown"].iter().enumerate()
        {
            let name = format!("s{n}");
            let saving = "sleep 1.5; echo saved >>saved; exit";
            let run = format!("trap '{saving}' TERM; echo >ready; while :; do sleep 0.05; done");
            world.script(&format!("{name}/run"), &run);
            world.write(&format!("{name}/timeout-kill"), "8000");
            let _runsv = world.runsv(&name);
            world.wait_lines(&format!("{name}/ready"), 1);
            let (code, said) = sv_with_default(world, "1", &format!("{word} {name}"));
            assert_eq!((code, said.starts_with("ok: ")), (Some(0), true), "{word}: {said}");
            assert_eq!(world.lines(&format!("{name}/saved")).len(), 1, "{word}");
        }
    });
}

#[test]
fn the_seconds_of_w_are_the_administrators_word() {
    ours(|world| {
        world.script("a/run", "trap '' TERM; echo >ready; while :; do sleep 0.05; done");
        world.write("a/timeout-kill", "30000");
        let _runsv = world.runsv("a");
        world.wait_lines("a/ready", 1);
        assert_eq!(world.sv("-w 1 force-stop a"), (1, "kill: run: a: (pid P) Ts, want down, got TERM\n".into()));
        world.wait_stat("a", "down");
    });
}

#[test]
fn a_service_that_has_just_been_linked_is_started_at_once() {
    ours(|world| {
        let _runsvdir = world.runsvdir();
        for (n, (words, says)) in [
            ("start", "ok: run: NAME: (pid P) Ts\n"),
            ("check", "ok: run: NAME: (pid P) Ts\n"),
            ("restart", "ok: run: NAME: (pid P) Ts\n"),
            ("-v up", "ok: run: NAME: (pid P) Ts\n"),
            ("-v once", "ok: run: NAME: (pid P) Ts, want down\n"),
            ("stop", "ok: down: NAME: Ts, normally up\n"),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("s{n}");
            let real = world.dir.join("sv").join(&name);
            world.script(&format!("../sv/{name}/run"), SLEEPER);
            symlink(&real, world.at(&name)).unwrap();
            assert_eq!(world.sv(&format!("{words} {name}")), (0, says.replace("NAME", &name)), "{words}");
        }
    });
}

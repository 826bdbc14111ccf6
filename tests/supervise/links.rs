//! sv enable, disable and list; and the last lines of a log.

use std::fs;
use std::os::unix::fs::symlink;

use crate::subject::{World, ours, without_numbers};

const SLEEPER: &str = "exec sleep 1000";

/// Runs `sv ARGS` where the service definitions are in `sv/`, beside the services directory.
fn sv(world: &World, args: &str) -> (Option<i32>, String) {
    let mut command = world.command("sv", &args.split(' ').collect::<Vec<_>>());
    let output = command.env("SVSOURCE", world.dir.join("sv")).output().unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    (output.status.code(), without_numbers(&said).replace(world.dir.to_str().unwrap(), "W"))
}

fn ok(text: &str) -> (Option<i32>, String) {
    (Some(0), format!("{text}\n"))
}

fn fail(text: &str) -> (Option<i32>, String) {
    (Some(1), format!("{text}\n"))
}

#[test]
fn enable_and_disable_are_links_and_leave_down_alone() {
    ours(|world| {
        world.script("../sv/a/run", SLEEPER);
        world.script("../sv/b/run", SLEEPER);
        world.write("../sv/b/down", "");
        let _runsvdir = world.runsvdir();
        assert_eq!(sv(world, "enable a"), ok("ok: a: enabled"));
        assert_eq!(fs::read_link(world.at("a")).unwrap(), world.dir.join("sv/a"));
        assert_eq!(sv(world, "start a"), ok("ok: run: a: (pid P) Ts"));
        // A second `enable` changes nothing.
        assert_eq!(sv(world, "enable a"), ok("ok: a: enabled"));
        assert_eq!(sv(world, "enable b"), ok("ok: b: enabled, normally down"));
        assert_eq!(sv(world, "check b"), ok("ok: down: b: Ts"));
        assert_eq!(sv(world, "disable a b none").1, "ok: a: disabled\nok: b: disabled\nok: none: disabled\n");
        assert!(!world.at("a").exists() && world.dir.join("sv/a/run").exists());
        assert!(world.dir.join("sv/b/down").exists());
        world.wait("the service to end", || world.count("sleep 1000") == 0);
        // A service that is named by its path gets its last component as its name.
        assert_eq!(sv(world, "enable ../sv/a/"), ok("ok: ../sv/a/: enabled"));
        assert_eq!(sv(world, "disable ./a"), ok("ok: ./a: disabled"));
        // `enable` replaces a link that leads nowhere. It does not replace another service, and
        // removes no directory.
        symlink("nowhere", world.at("a")).unwrap();
        assert_eq!(sv(world, "enable a"), ok("ok: a: enabled"));
        fs::remove_file(world.at("a")).unwrap();
        symlink("../sv/b", world.at("a")).unwrap();
        assert_eq!(sv(world, "enable a"), fail("fail: a: W/s/a is another"));
        world.script("own/run", SLEEPER);
        assert_eq!(sv(world, "enable own"), ok("ok: own: enabled"));
        assert_eq!(sv(world, "disable own"), fail("fail: own: W/s/own is no link: not removed"));
        let missing = "fail: none: unable to change to service directory: file does not exist";
        assert_eq!(sv(world, "enable none"), fail(missing));
        assert_eq!(sv(world, "enable .hidden"), fail("fail: .hidden: not the name of a service"));
        assert_eq!(sv(world, "enable").0, Some(100));
        // An empty name is not that of all, and a path not that of another with the same last name.
        for word in ["enable", "disable"] {
            assert_eq!(sv(world, &format!("{word} ")), fail("fail: : not the name of a service"));
        }
        assert!(!world.at("sv").exists());
        assert_eq!(sv(world, "disable ../sv/a"), fail("fail: ../sv/a: W/s/a is another"));
        assert_eq!(sv(world, "disable ../sv/b/ a"), (Some(0), "ok: ../sv/b/: disabled\nok: a: disabled\n".into()));
    });
}

#[test]
fn the_first_letters_mean_what_they_mean_in_runit() {
    ours(|world| {
        world.script("a/run", SLEEPER);
        for word in ["e", "en", "exit"] {
            let runsv = world.runsv("a");
            world.wait_stat("a", "run");
            assert_eq!(sv(world, &format!("{word} a")).0, Some(0));
            assert_eq!(runsv.wait(), 0);
        }
        let _runsv = world.runsv("a");
        assert_eq!(sv(world, "dis a").0, Some(0));
        world.wait_stat("a", "down");
        assert_eq!(sv(world, "lis a").0, Some(100));
    });
}

#[test]
fn what_is_known_is_listed() {
    ours(|world| {
        for name in ["up", "down", "other"] {
            world.script(&format!("../sv/{name}/run"), SLEEPER);
        }
        world.write("../sv/down/down", "");
        world.script("own/run", SLEEPER);
        world.write("own/down", "");
        let _runsvdir = world.runsvdir();
        assert_eq!(sv(world, "enable up down").0, Some(0));
        assert_eq!(sv(world, "start up").0, Some(0));
        assert_eq!(sv(world, "check down own").0, Some(0));
        symlink("../sv/other", world.at("late")).unwrap();
        assert_eq!(sv(world, "check late").0, Some(0));
        let listed = "enabled   down   down\nenabled   late   run\ndisabled  other  -\nenabled   own    down\nenabled   up     run";
        assert_eq!(sv(world, "list"), ok(listed));
        assert_eq!(sv(world, "list up").0, Some(100));
        fs::remove_dir_all(world.dir.join("sv")).unwrap();
        assert!(sv(world, "list").1.contains("enabled   own  down\n"));
    });
}

#[test]
fn the_last_lines_of_a_log_are_shown() {
    let program = env!("CARGO_BIN_EXE_netsv");
    ours(|world| {
        let numbers =
            "for n in 1 2 3 4 5 6 7 8 9 10 11; do echo line $n; done; printf 'red\\033[31m\\n'; exec sleep 1000";
        world.script("a/run", numbers);
        // As in services/: only the script knows the directory.
        let logs = world.dir.join("logs/a");
        fs::create_dir_all(&logs).unwrap();
        world.script("a/log/run", &format!("exec {program} svlogd {}", logs.display()));
        world.script("b/run", SLEEPER);
        let _runsvs = [world.runsv("a"), world.runsv("b")];
        let current = || fs::read_to_string(logs.join("current")).unwrap_or_default();
        world.wait("the lines", || current().ends_with("[31m\n"));
        ["a", "a/log", "b"].iter().for_each(|service| world.wait_stat(service, "run"));
        let status = "run: a: (pid P) Ts; run: log: (pid P) Ts\n";
        let lines = |from: u32| (from..=11).map(|n| format!("  line {n}\n")).collect::<String>() + "  red\\u{1b}[31m\n";
        assert_eq!(sv(world, "-v status a b"), (Some(0), format!("{status}{}run: b: (pid P) Ts\n", lines(3))));
        assert_eq!(sv(world, "--lines 2 status a"), (Some(0), format!("{status}{}", lines(11))));
        assert_eq!(sv(world, &format!("--lines=2 status {}", world.at("a").display())).1.lines().count(), 3);
        assert_eq!(sv(world, "status a"), (Some(0), status.to_owned()));
        // When no svlogd runs, sv looks at log/main.
        world.control("a/log", "d");
        world.wait_stat("a/log", "down");
        assert_eq!(sv(world, "-v status a").1.lines().count(), 1);
        symlink(&logs, world.at("a/log/main")).unwrap();
        assert_eq!(sv(world, "-v status a").1.lines().count(), 11);
    });
}

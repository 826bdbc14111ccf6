//! The file `again`: one more run of a service that is down, at a later moment.

use std::fs;

use nix::sys::signal::Signal;

use crate::subject::{World, ours, signal};

/// Writes down when it started, CLOCK_BOOTTIME, and does what it was started for.
const ONCE: &str = "sv o .; cut -d. -f1 /proc/uptime >>starts; [ -e keep ] || rm -f again";
const ANOTHER_BOOT: &str = "11111111-2222-3333-4444-555555555555";

/// Whole seconds of CLOCK_BOOTTIME.
fn uptime() -> u64 {
    fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse().unwrap()
}

/// The line for a moment so many seconds from now.
fn at(secs: u64) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    format!("{} {boot}", uptime() + secs)
}

/// As the service itself writes it: whole.
fn put(world: &World, service: &str, text: &str) {
    world.write(&format!("{service}/.again.new"), text);
    fs::rename(world.at(service).join(".again.new"), world.at(service).join("again")).unwrap();
}

fn one_shot(world: &World, service: &str) {
    world.script(&format!("{service}/run"), ONCE);
    world.write(&format!("{service}/down"), "");
}

fn starts(world: &World, service: &str) -> usize {
    world.lines(&format!("{service}/starts")).len()
}

#[test]
fn a_service_that_is_down_runs_at_the_moment_that_its_file_names() {
    ours(|world| {
        one_shot(world, "a");
        let _runsv = world.runsv("a");
        let line = at(3);
        put(world, "a", &line);
        // It is seen though nothing else happens.
        world.wait("runsv to know", || world.record("a").contains(" again="));
        let (code, text) = world.output("sv", &["status", "a"]);
        assert!(code == 0 && text.starts_with("down: a: ") && text.contains("s, again in "), "{text}");
        let (_, json) = world.output("sv", &["--json", "status", "a"]);
        let secs = json.split("\"again\":").nth(1).unwrap().split(',').next().unwrap();
        assert!((1..=3).contains(&secs.parse::<u64>().unwrap()), "{json}");
        let started = world.wait_lines("a/starts", 1)[0].parse::<u64>().unwrap();
        assert!(started >= line.split(' ').next().unwrap().parse().unwrap(), "{started}: {line}");
        world.wait("no more of it", || !world.record("a").contains(" again="));
        world.wait_stat("a", "down");
        assert!(!world.output("sv", &["status", "a"]).1.contains("again"));
        assert_eq!(world.errors(), "");
    });
}

#[test]
fn a_file_that_is_gone_or_empty_at_its_moment_starts_nothing() {
    ours(|world| {
        let all = ["gone", "empty", "wrong", "there"];
        all.iter().for_each(|service| one_shot(world, service));
        let _runsvs = all.map(|service| world.runsv(service));
        // The last one shows when the others would have run.
        all.iter().zip([at(3), at(3), at(3), at(4)]).for_each(|(service, line)| put(world, service, &line));
        for service in all {
            world.wait(service, || world.record(service).contains(" again="));
        }
        fs::remove_file(world.at("gone/again")).unwrap();
        // Not even the directory changes.
        fs::write(world.at("empty/again"), "").unwrap();
        fs::write(world.at("wrong/again"), "soon\n").unwrap();
        world.wait_lines("there/starts", 1);
        assert_eq!(all.map(|service| starts(world, service)), [0, 0, 0, 1]);
        let said = "warning: ./again: seconds, or a second since boot and the id of that boot expected, not \"soon\"\n";
        assert_eq!(world.errors(), format!("runsv wrong: {said}"));
    });
}

#[test]
fn a_killed_runsv_and_a_killed_run_lose_nothing() {
    ours(|world| {
        // It asks by itself for a run after it has ended, and is told to stay down.
        world.script(
            "a/run",
            "sv o .; echo start >>starts; [ -e again ] && exec sleep 1000; echo 2 >.new; mv .new again",
        );
        world.write("a/down", "");
        let runsv = world.runsv("a");
        world.control("a", "u");
        world.wait("runsv to know", || world.record("a").contains("want=d") && world.record("a").contains(" again="));
        runsv.kill();
        let runsv = world.runsv("a");
        world.wait_lines("a/starts", 2);
        world.wait_stat("a", "run, want down");
        // This run dies before it has removed the file: another follows.
        let pid = world.pid("a");
        signal(pid, Signal::SIGKILL);
        world.wait_lines("a/starts", 3);
        world.wait_stat("a", "run, want down");
        // The same, while no runsv sees it.
        let pid = world.pid("a");
        runsv.kill();
        signal(pid, Signal::SIGKILL);
        let _again = world.runsv("a");
        world.wait_lines("a/starts", 4);
    });
}

#[test]
fn after_another_boot_it_runs_at_once_and_only_once() {
    ours(|world| {
        one_shot(world, "a");
        one_shot(world, "marker");
        put(world, "a", &format!("{} {ANOTHER_BOOT}\n", uptime() + 1_000_000));
        let runsv = world.runsv("a");
        world.wait_lines("a/starts", 1);
        world.wait_stat("a", "down");
        assert!(!world.at("a/again").exists());
        runsv.kill();
        let _again = world.runsv("a");
        put(world, "marker", "0\n");
        let _marker = world.runsv("marker");
        world.wait_lines("marker/starts", 1);
        assert_eq!(starts(world, "a"), 1);
    });
}

#[test]
fn down_puts_the_file_off_until_another_takes_its_place() {
    ours(|world| {
        ["a", "later"].iter().for_each(|service| one_shot(world, service));
        let runsv = world.runsv("a");
        put(world, "a", &at(2));
        world.wait("runsv to know", || world.record("a").contains(" again="));
        assert_eq!(world.sv("-v down a"), (0, "ok: down: a: Ts\n".into()));
        // The next runsv knows it, too.
        runsv.kill();
        let _again = world.runsv("a");
        let _later = world.runsv("later");
        put(world, "later", &at(3));
        world.wait_lines("later/starts", 1);
        assert_eq!(starts(world, "a"), 0);
        put(world, "a", &at(0));
        world.wait_lines("a/starts", 1);
    });
}

#[test]
fn a_service_that_is_wanted_up_is_not_touched_and_exit_is_for_good() {
    ours(|world| {
        world.script("a/run", "echo start >>starts; exec sleep 1000");
        one_shot(world, "later");
        let runsv = world.runsv("a");
        let _later = world.runsv("later");
        world.wait_stat("a", "run");
        put(world, "a", &at(1));
        put(world, "later", &at(2));
        world.wait_lines("later/starts", 1);
        assert_eq!(starts(world, "a"), 1);
        world.control("a", "x");
        assert_eq!(runsv.wait(), 0);
        assert_eq!(starts(world, "a"), 1);
    });
}

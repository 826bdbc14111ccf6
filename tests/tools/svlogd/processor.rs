//! svlogd: the processor of rotated files, also one that fails.

use std::fs;

use nix::sys::signal::Signal;

use super::{Log, numbered};
use crate::subject::{Running, both, mode, ours, text};

#[test]
fn the_processor_turns_u_into_s_and_hands_its_state_on() {
    both("svlogd", |subject| {
        let log = Log::new("s2000\nn0\n!tr 0 o; (cat <&4; pwd) >&5\n");
        let input = numbered(35, 100);
        log.run(subject, &[], &input);
        assert_eq!(log.old(".s").len(), 3);
        assert_eq!(log.old("").len(), 3);
        let processed: String = log.old(".s").iter().map(|n| text(&fs::read(log.file(n)).unwrap())).collect();
        assert_eq!(processed, input[..30 * 101].replace('0', "o"));
        assert_eq!(log.current(), input[30 * 101..]);
        let dir = fs::canonicalize(log.dir()).unwrap().display().to_string();
        assert_eq!(text(&fs::read(log.file("state")).unwrap()), format!("{dir}\n").repeat(3));
        assert!(!log.file("newstate").exists());
        assert_eq!(mode(&log.file(&log.old(".s")[0])), 0o744);
    });
}

#[test]
fn a_processor_that_fails_is_started_again() {
    both("svlogd", |subject| {
        let log = Log::new("s2000\nn0\n!test -e again || { touch again; exit 3; }; cat\n");
        let mut running = Running::start(&mut log.command(subject, &[]));
        let input = numbered(10, 100);
        running.write(&input);
        log.wait("second try", |log| log.old(".s").len() == 1 && log.old("").len() == 1);
        let output = running.finish();
        assert_eq!(text(&output.stderr), "svlogd: warning: processor failed, restart: log\n");
        assert_eq!(log.all(), input);
    });
}

#[test]
fn a_wrong_processor_is_corrected_by_hup_while_the_service_waits() {
    // Ours alone: runit restarts the processor without a pause, and runs the old command even after
    // HUP.
    let log = Log::new("s2000\nn0\n!exit 1\n");
    let mut running = Running::start(&mut log.command(&ours(), &[]));
    let input = numbered(25, 100);
    running.write(&input);
    assert_eq!(running.stderr_line(), "svlogd: warning: processor failed, restart: log");
    fs::write(log.file("config"), "s2000\nn0\n!cat\n").unwrap();
    running.signal(Signal::SIGHUP);
    log.wait("both files processed", |log| log.old(".s").len() == 2 && log.old("").len() == 2);
    assert_eq!(running.finish().status.code(), Some(0));
    assert_eq!(log.all(), input);
}

#[test]
fn a_failing_processor_does_not_keep_svlogd_from_ending() {
    // Ours alone: runit tries for ever.
    let log = Log::new("s2000\nn0\n!exit 1\n");
    let input = numbered(10, 100);
    log.run(&ours(), &[], &input);
    assert_eq!(log.old("").len(), 1);
    assert_eq!(log.old(".u").len(), 1);
    assert_eq!(log.all(), input);
}

#[test]
fn term_ends_it_although_its_processor_fails_for_ever() {
    // Ours alone: runit tries for ever.
    let log = Log::new("s2000\nn0\n!exit 1\n");
    let mut running = Running::start(&mut log.command(&ours(), &[]));
    let input = numbered(60, 100);
    running.write(&input);
    assert_eq!(running.stderr_line(), "svlogd: warning: processor failed, restart: log");
    assert_eq!(running.stderr_line(), "svlogd: warning: processor failed, restart: log");
    assert_eq!(log.old(".u").len(), 1, "the next one waits");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().status.code(), Some(0));
    assert_eq!(log.all(), input);
}

//! svlogd for readers of the log: who may read it, and the time of each line.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;

use super::{Log, numbered};
use crate::subject::{Running, both, mode, original, ours, run, text};

#[test]
fn who_may_read_the_files_is_configured() {
    both("svlogd", |subject| {
        // runit ignores a line that it does not know.
        let [open, done] = if subject.ours { [0o640, 0o740] } else { [0o644, 0o744] };
        for processor in ["", "!cat\n"] {
            let log = Log::new(&format!("m0640\ns2000\nn0\n{processor}"));
            let mut running = Running::start(&mut log.command(subject, &[]));
            running.write(numbered(25, 100));
            let all = || log.old(".s").len() == 2 && log.old("").len() == 2;
            log.wait("two old files", |log| all() && log.current().lines().count() == 5);
            assert_eq!(mode(&log.file("current")), open);
            assert!(log.old(".s").iter().all(|name| mode(&log.file(name)) == done));
            // HUP also changes the modes of the files that exist.
            fs::write(log.file("config"), "m600\n").unwrap();
            running.signal(Signal::SIGHUP);
            let want = if subject.ours { 0o600 } else { open };
            log.wait("the configuration to be read", |log| mode(&log.file("current")) == want);
            assert_eq!(running.finish().status.code(), Some(0));
            assert_eq!(mode(&log.file("current")), want | 0o100);
        }
    });
}

#[test]
fn a_mode_that_is_none_is_named_and_does_not_count() {
    let log = Log::new("mrw-r-----\n");
    let output = log.run(&ours(), &[], "x\n");
    assert_eq!(text(&output.stderr), "svlogd: warning: unable to scan mode: rw-r-----\n");
    assert_eq!(mode(&log.file("current")), 0o744);
}

/// The first 19 characters of a stamp in seconds since 1970, as date(1) reads them in this time
/// zone.
fn seconds(stamp: &str, zone: &str) -> u64 {
    let local = stamp[..19].replace(['_', 'T'], " ");
    let mut date = std::process::Command::new("date");
    let output = date.env("TZ", zone).args(["-d", &local, "+%s"]).output().unwrap();
    text(&output.stdout).trim().parse().unwrap()
}

#[test]
fn stamps_are_local_where_that_is_asked_for() {
    if let Some(runit) = original("svlogd", "runit") {
        let log = Log::new("");
        let output = run(&mut log.command(&runit, &["-T"]), "x\n");
        assert_eq!(output.status.code(), Some(111), "runit has no such letter");
    }
    // East of UTC, west of it, and UTC itself, by rules that need no time zone file.
    for (zone, difference) in [("XXX-5:30", "+05:30"), ("XXX3:30", "-03:30"), ("UTC0", "+00:00")] {
        for (flags, separator, east) in [("-T", '_', ""), ("-ttT", '_', ""), ("-tttT", 'T', difference)] {
            let log = Log::new("");
            let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let output = run(log.command(&ours(), &[flags]).env("TZ", zone), "a line\n");
            let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            assert_eq!(output.status.code(), Some(0));
            let line = log.current();
            let (stamp, rest) = line.split_once(' ').unwrap();
            assert_eq!((&stamp[25..], rest, stamp.chars().nth(10)), (east, "a line\n", Some(separator)), "{line}");
            let written = Duration::from_secs(seconds(stamp, zone));
            let span = before.saturating_sub(Duration::from_secs(1))..=after;
            assert!(span.contains(&written), "{zone}: {line}");
        }
    }
}

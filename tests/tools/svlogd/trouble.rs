//! svlogd and faults around it: no space, no permission, something in its way.

use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{mkfifo, pipe2};

use super::{Log, numbered};
use crate::subject::{Running, Scratch, Subject, both, mode, ours, root_for, run, skip, text, unshare_mount};

/// Runs a shell script with `$svlogd`, in a mount namespace with a tmpfs of 64 KiB. `go` in its
/// scratch directory is a fifo.
fn on_small_disk(subject: &Subject, scratch: &Scratch, script: &str, stdin: OwnedFd) -> Option<Running> {
    let probe = unshare_mount("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        skip("full disk: no mount namespace can be made here (unshare)");
        return None;
    }
    let disk = scratch.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let go = scratch.path().join("go");
    mkfifo(&go, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!(
        "set -e; mount -t tmpfs -o size=64k tmpfs \"$PWD\"; cd \"$PWD\"; mkdir log; exec 3<&0 4<>\"$go\"; {script}"
    );
    let mut command = unshare_mount("sh");
    command.args(["-c", &script]).current_dir(&disk).env("go", &go).env("svlogd", subject.path("svlogd"));
    Some(Running::start_with(&mut command, stdin))
}

#[test]
fn killed_on_a_full_disk_it_loses_nothing() {
    // Ours alone: runit loses what it has read when it dies.
    let scratch = Scratch::new();
    let (from, into) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut into = fs::File::from(into);
    let kill = "read go <&4; kill -9 $!; { wait $! || :; } 2>/dev/null; \"$svlogd\" log <&3 & ";
    let script = format!(
        "\"$svlogd\" log <&3 & until test -s log/current; do sleep 0.01; done; head -c 100000 /dev/zero >filler 2>/dev/null || :; echo full >&2; \
         {kill} {kill} read go <&4; rm filler; wait $!; cat log/@* log/current"
    );
    let Some(mut running) = on_small_disk(&ours(), &scratch, &script, from.try_clone().unwrap()) else { return };
    let mut go = fs::OpenOptions::new().read(true).write(true).open(scratch.path().join("go")).unwrap();
    let input = numbered(200, 100);
    into.write_all(&input.as_bytes()[..1010]).unwrap();
    assert_eq!(running.stderr_line(), "full");
    into.write_all(&input.as_bytes()[1010..]).unwrap();
    drop(into);
    for _ in 0..2 {
        assert_eq!(running.stderr_line(), "svlogd: pausing: unable to write to current: log: out of disk space");
        go.write_all(b"go\n").unwrap();
    }
    assert_eq!(running.stderr_line(), "svlogd: pausing: unable to write to current: log: out of disk space");
    go.write_all(b"go\n").unwrap();
    drop(from);
    let output = running.wait();
    // svlogd says so once, although it tries again.
    assert!(!text(&output.stderr).contains("pausing"), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), input);
}

#[test]
fn a_current_that_cannot_be_opened_makes_the_service_wait() {
    both("svlogd", |subject| {
        let log = Log::new("");
        fs::create_dir(log.file("current")).unwrap();
        let mut running = Running::start(&mut log.command(subject, &[]));
        running.write("a\n");
        assert_eq!(running.stderr_line(), "svlogd: pausing: unable to open current: log: is a directory");
        fs::remove_dir(log.file("current")).unwrap();
        assert_eq!(running.finish().status.code(), Some(0));
        assert_eq!(log.current(), "a\n");
    });
    // TERM ends it; runit goes on with its tries.
    let log = Log::new("");
    fs::create_dir(log.file("current")).unwrap();
    let mut running = Running::start(&mut log.command(&ours(), &[]));
    assert_eq!(running.stderr_line(), "svlogd: pausing: unable to open current: log: is a directory");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().status.code(), Some(111));
}

#[test]
fn what_is_in_the_way_is_named() {
    let fatal = "svlogd: fatal: no functional log directories.\n";
    both("svlogd", |subject| {
        let log = Log::new("");
        fs::create_dir(log.file("lock")).unwrap();
        let output = run(&mut log.command(subject, &[]), "a\n");
        let want = format!("svlogd: warning: unable to lock directory: log: is a directory\n{fatal}");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(111), want));

        let log = Log::new("");
        let mut command = log.command(subject, &[]);
        fs::remove_dir(log.dir()).unwrap();
        fs::write(log.dir(), "").unwrap();
        let output = run(&mut command, "a\n");
        let want = format!("svlogd: warning: unable to change directory: log: not a directory\n{fatal}");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(111), want));
    });
    if !root_for("svlogd in a directory of somebody else") {
        return;
    }
    both("svlogd", |subject| {
        let log = Log::new("pnobody~\n");
        let as_nobody = || {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(subject.path("svlogd")).arg("log");
            command.current_dir(log.scratch.path());
            command
        };
        let output = run(&mut as_nobody(), "a\n");
        let want = format!("svlogd: warning: unable to lock directory: log: access denied\n{fatal}");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(111), want));

        // A configuration that cannot be read counts as empty.
        fs::set_permissions(log.dir(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(log.file("config"), fs::Permissions::from_mode(0o600)).unwrap();
        let output = run(&mut as_nobody(), "a\n");
        let want = "svlogd: warning: unable to read config: log: access denied\n";
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), want));
        assert_eq!((log.current().as_str(), mode(&log.file("current"))), ("a\n", 0o744));
    });
}

#[test]
fn term_on_a_full_disk_ends_it_when_there_is_room_again() {
    both("svlogd", |subject| {
        let scratch = Scratch::new();
        let (from, into) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let mut into = fs::File::from(into);
        // svlogd has handled TERM when it is no longer pending, proc(5). runit leaves it pending
        // until there is space.
        let taken =
            if subject.ours { "while grep -q 'ShdPnd:.*4000$' /proc/$!/status; do sleep 0.01; done;" } else { "" };
        let script = format!(
            "\"$svlogd\" log <&3 & until test -s log/current; do sleep 0.01; done; \
                      head -c 100000 /dev/zero >filler 2>/dev/null || :; echo full >&2; read go <&4; kill $!; {taken} \
                      rm filler; wait $!; cat log/current"
        );
        let Some(mut running) = on_small_disk(subject, &scratch, &script, from) else { return };
        let input = numbered(101, 59);
        let (first, rest) = input.split_at(60);
        into.write_all(first.as_bytes()).unwrap();
        assert_eq!(running.stderr_line(), "full");
        into.write_all(rest.as_bytes()).unwrap();
        assert_eq!(running.stderr_line(), "svlogd: pausing: unable to write to current: log: out of disk space");
        fs::write(scratch.path().join("go"), "go\n").unwrap();
        // The input stays open and brings nothing more.
        let output = running.wait();
        drop(into);
        // runit has read the first 1024 bytes of the input, and leaves the others in the pipe.
        let written = text(&output.stdout);
        assert!(written.len() >= 1020 && input.starts_with(&written) && written.ends_with('\n'), "{written}");
        assert_eq!(output.status.code(), Some(0));
    });
}

#[test]
fn a_current_that_somebody_removes_is_made_again() {
    // Ours alone: runit waits for its file for ever, and so does the service.
    for config in ["s100\n", "s100\n!cat\n"] {
        let log = Log::new(config);
        let mut running = Running::start(&mut log.command(&ours(), &["-l", "5"]));
        running.write("a\n");
        log.wait("the first line", |log| log.current() == "a\n");
        fs::remove_file(log.file("current")).unwrap();
        let input = numbered(40, 9);
        running.write(&input);
        let output = running.finish();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
        // The lines in the removed file are lost with it.
        let all = log.all();
        assert!(all.len() >= 300 && input.ends_with(&all), "{all}");
    }
}

#[test]
fn a_removed_directory_is_left_by_hup_and_by_term() {
    // Ours alone, as above.
    let removed = || {
        let log = Log::new("s100\n");
        let mut running = Running::start(&mut log.command(&ours(), &["-l", "5"]));
        running.write("a\n");
        log.wait("the first line", |log| log.current() == "a\n");
        fs::remove_dir_all(log.dir()).unwrap();
        running.write(numbered(10, 9));
        let said = running.stderr_line();
        assert_eq!(said, "svlogd: pausing: unable to create new current: log: file does not exist");
        (log, running)
    };
    let (log, mut running) = removed();
    fs::create_dir(log.dir()).unwrap();
    running.signal(Signal::SIGHUP);
    log.wait("the new directory", |log| log.file("current").exists());
    running.write("b\n");
    let output = running.finish();
    assert_eq!((output.status.code(), text(&output.stderr), log.current()), (Some(0), String::new(), "b\n".into()));
    let (_log, mut running) = removed();
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().status.code(), Some(0));
}

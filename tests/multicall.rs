//! The multi-call binary: which applet runs, and how the binary describes itself.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const NETSV: &str = env!("CARGO_BIN_EXE_netsv");

fn netsv(args: &[&str]) -> Output {
    Command::new(NETSV).args(args).env_remove("RUST_BACKTRACE").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn listed() -> Vec<String> {
    let output = netsv(&["--list"]);
    assert_eq!(output.status.code(), Some(0));
    text(&output.stdout).lines().map(str::to_owned).collect()
}

fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("multicall-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn every_supervision_program_is_listed_once() {
    let names = listed();
    let unique: BTreeSet<&String> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
    for name in [
        "runsvdir",
        "runsv",
        "sv",
        "svc",
        "svok",
        "svlogd",
        "chpst",
        "setuidgid",
        "envdir",
        "envuidgid",
        "pgrphack",
        "softlimit",
        "setlock",
    ] {
        assert!(names.iter().any(|n| n == name), "{name}");
    }
}

/// Otherwise the next file that the program opens would become its stderr.
#[test]
fn a_program_that_is_started_with_closed_descriptors_has_dev_null_there() {
    let dir = scratch("closed");
    let mut setlock = Command::new("sh");
    let script = r#"exec "$0" setlock "$1" sh -c 'readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 >"$1.out"' sh "$1" <&- >&- 2>&-"#;
    let lock = dir.join("lock");
    let status = setlock.args(["-c", script, NETSV]).arg(&lock).status().unwrap();
    assert_eq!(status.code(), Some(0));
    let out = fs::read_to_string(dir.join("lock.out")).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    // The shell's descriptor 1 is the file that it writes.
    assert_eq!(lines, ["/dev/null", dir.join("lock.out").to_str().unwrap(), "/dev/null"]);
}

#[cfg(feature = "daemons")]
#[test]
fn the_daemons_are_listed() {
    let names = listed();
    for name in ["udhcpc", "zcip", "ifplugd", "pinger", "fw"] {
        assert!(names.iter().any(|n| n == name), "{name}");
    }
}

#[test]
fn the_name_it_is_called_by_picks_the_applet() {
    let dir = scratch("name");
    symlink(NETSV, dir.join("chpst")).unwrap();
    let through_link = Command::new(dir.join("chpst")).args(["sh", "-c", "exit 7"]).output().unwrap();
    assert_eq!(through_link.status.code(), Some(7));
    let through_argv0 = Command::new(NETSV).arg0("/any/where/chpst").args(["sh", "-c", "exit 8"]).output().unwrap();
    assert_eq!(through_argv0.status.code(), Some(8));
    let with_d = Command::new(NETSV).arg0("denvdir").args(["/no/such/dir", "sh", "-c", "exit 6"]).output().unwrap();
    assert!(text(&with_d.stderr).starts_with("chpst: fatal: unable to"), "{}", text(&with_d.stderr));
    let through_argument = netsv(&["chpst", "sh", "-c", "exit 9"]);
    assert_eq!(through_argument.status.code(), Some(9));
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn an_unknown_applet_is_named_and_exit_100() {
    let output = netsv(&["frobnicate", "-x"]);
    assert_eq!(output.status.code(), Some(100));
    assert_eq!(text(&output.stderr), "netsv: fatal: no applet \"frobnicate\": see netsv --list\n");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn without_arguments_it_prints_its_usage_and_exits_100() {
    let output = netsv(&[]);
    assert_eq!(output.status.code(), Some(100));
    assert!(text(&output.stderr).starts_with("usage: netsv APPLET"));
    let help = netsv(&["--help"]);
    assert_eq!((help.status.code(), text(&help.stdout)), (Some(0), text(&output.stderr)));
}

#[test]
fn version_is_the_packages() {
    let output = netsv(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("netsv {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn install_makes_a_link_per_applet_and_replaces_old_ones() {
    let dir = scratch("install").join("new/bin");
    for round in 0..2 {
        let output = netsv(&["--install", dir.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{round}: {}", text(&output.stderr));
        let made: BTreeSet<String> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(made, listed().into_iter().collect());
        for name in &made {
            let target = fs::read_link(dir.join(name)).unwrap();
            assert!(target.is_relative(), "{target:?}");
            assert_eq!(fs::canonicalize(dir.join(target)).unwrap(), fs::canonicalize(NETSV).unwrap());
        }
        // In the second round there is a stale link.
        fs::remove_file(dir.join("sv")).unwrap();
        symlink("/nonexistent", dir.join("sv")).unwrap();
    }
    fs::remove_dir_all(dir.parent().unwrap().parent().unwrap()).unwrap();
}

/// An image of a root directory: the links must lead to the same binary, also when the image is not
/// mounted at /.
#[test]
fn links_made_inside_an_image_lead_to_its_own_binary_wherever_it_is() {
    let (scratch, image) = (scratch("image"), "image/usr/lib/netsv");
    fs::create_dir_all(scratch.join("image/usr/bin")).unwrap();
    let binary = scratch.join("image/usr/bin/netsv");
    // Another process copies the binary: a child of another test would hold our descriptor open for
    // writing for a moment, and execve(2) would fail with ETXTBSY.
    assert!(Command::new("cp").arg(NETSV).arg(&binary).status().unwrap().success());
    let made = Command::new(&binary).arg("--install").arg(image).current_dir(&scratch).status().unwrap();
    assert_eq!(made.code(), Some(0));
    fs::rename(scratch.join("image"), scratch.join("root")).unwrap();
    let found = fs::canonicalize(scratch.join("root/usr/lib/netsv/sv")).unwrap();
    assert_eq!(found, fs::canonicalize(scratch.join("root/usr/bin/netsv")).unwrap());
    fs::remove_dir_all(scratch).unwrap();
}

#[test]
fn install_fails_with_111_where_it_cannot_write() {
    let output = netsv(&["--install", "/proc/nonexistent"]);
    assert_eq!(output.status.code(), Some(111));
    assert!(text(&output.stderr).starts_with("netsv: fatal: unable to install into /proc/nonexistent: "));
    assert_eq!(netsv(&["--install"]).status.code(), Some(100));
}

#[test]
fn the_man_page_names_every_applet_and_option() {
    let page = include_str!("../man/netsv.8");
    for name in listed() {
        let named = page.lines().any(|line| {
            line.starts_with(&format!(".It Xr {name} 8"))
                || line == format!(".Nm {name}")
                || line == format!(".Nm {name} ,")
                || line == format!(".Nm {name} .")
        });
        assert!(named, "{name}");
    }
    for option in ["list", "install", "version", "help"] {
        assert!(page.lines().any(|line| line.starts_with(&format!(".It Fl -{option}"))), "--{option}");
    }
}

#[test]
fn each_program_explains_its_options_when_it_is_asked_for_help_alone() {
    for name in listed() {
        for word in ["--help", "-h"] {
            // svc -h sends HUP.
            if (name.as_str(), word) == ("svc", "-h") {
                continue;
            }
            let output = netsv(&[&name, word]);
            assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{name} {word}");
            assert!(text(&output.stdout).starts_with("usage: ") && text(&output.stdout).lines().count() > 1, "{name}");
        }
    }
    assert_eq!(netsv(&["svc", "-h"]).status.code(), Some(100));
}

#[test]
fn a_wrong_word_is_named_and_the_one_that_was_meant_is_offered() {
    for (args, want) in [
        (&["udhcp"][..], "netsv: fatal: no applet \"udhcp\": did you mean udhcpc? see netsv --list\n"),
        (&["qqqqq"], "netsv: fatal: no applet \"qqqqq\": see netsv --list\n"),
        (&["fw", "aply"], "fw: no command 'aply': did you mean apply?\nusage: fw "),
        (&["fw", "explode"], "fw: no command 'explode'\nusage: fw "),
        (&["fw", "--statik", "x"], "fw: invalid option -- '--statik' (did you mean '--static'?)\nusage: fw "),
        (&["udhcpc", "--retires", "3"], "udhcpc: invalid option -- '--retires' (did you mean '--retries'?)\nusage: "),
    ] {
        let output = netsv(args);
        assert!(text(&output.stderr).starts_with(want), "{}", text(&output.stderr));
        assert!(matches!(output.status.code(), Some(1 | 100)), "{args:?}");
    }
}

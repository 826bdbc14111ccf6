//! chpst and its other names: exit codes, messages, and the world that the started program sees.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::subject::{Running, Scratch, Subject, both, original, ours, root_for, run, text};

/// A program under one of its names, in a scratch directory with `ld` (variables) and `sub` (with a
/// subdirectory).
struct Place {
    scratch: Scratch,
    /// A directory with a link for each name. runit's package has chpst only.
    names: PathBuf,
}

impl Place {
    fn new(subject: &Subject) -> Place {
        let scratch = Scratch::new();
        let names = scratch.path().join("bin");
        fs::create_dir(&names).unwrap();
        for name in ["chpst", "setuidgid", "envuidgid", "envdir", "pgrphack", "setlock", "softlimit"] {
            symlink(subject.path("chpst"), names.join(name)).unwrap();
        }
        let dir = |name: &str| {
            let path = scratch.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let variables = dir("ld");
        for (name, content) in [
            ("PLAIN", "a b \t\nsecond"),
            ("GONE", ""),
            ("BLANK", " \n"),
            ("ZERO", "x\0y"),
            (".dot", "z"),
            ("PATH", "/none"),
        ] {
            fs::write(variables.join(name), content).unwrap();
        }
        fs::create_dir(dir("sub").join("inner")).unwrap();
        fs::write(scratch.path().join("text"), "echo no interpreter line\n").unwrap();
        Place { scratch, names }
    }

    fn command(&self, words: &str) -> Command {
        let mut words = words.split(' ');
        let mut command = Command::new(self.names.join(words.next().unwrap()));
        // `_` stands for the empty word, `~` for a blank.
        command.args(words.map(|word| if word == "_" { String::new() } else { word.replace('~', " ") }));
        command
            .current_dir(self.scratch.path())
            .env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.names.display()))
            .env("LC_ALL", "C")
            .env("GONE", "still here")
            .env_remove("RUST_BACKTRACE");
        command
    }

    fn run(&self, words: &str) -> Output {
        run(&mut self.command(words), "")
    }
}

fn seen(output: &Output) -> (Option<i32>, String, String) {
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// (command, exit code, standard output, standard error)
type Row = (&'static str, i32, &'static str, &'static str);

fn check(rows: &[Row]) {
    both("chpst", |subject| {
        for (words, code, stdout, stderr) in rows {
            let place = Place::new(subject);
            let got = seen(&place.run(words));
            assert_eq!(got, (Some(*code), (*stdout).into(), (*stderr).into()), "ours: {} {words}", subject.ours);
        }
    });
}

#[test]
fn the_program_is_found_and_its_exit_code_kept() {
    check(&[
        ("chpst true", 0, "", ""),
        ("chpst sh -c exit~7", 7, "", ""),
        ("chpst -b zero sh -c echo~$0", 0, "zero\n", ""),
        ("chpst nonexistent", 111, "", "chpst: fatal: unable to run: nonexistent: file does not exist\n"),
        ("chpst ./nonexistent", 111, "", "chpst: fatal: unable to run: ./nonexistent: file does not exist\n"),
        ("chpst ./text", 111, "", "chpst: fatal: unable to run: ./text: access denied\n"),
        ("chpst /", 111, "", "chpst: fatal: unable to run: /: access denied\n"),
        ("pgrphack sh -c exit~7", 7, "", ""),
        ("pgrphack -P", 111, "", "chpst: fatal: unable to run: -P: file does not exist\n"),
        ("chpst _", 111, "", "chpst: fatal: unable to run: : access denied\n"),
    ]);
}

#[test]
fn a_file_without_an_interpreter_line_is_not_given_to_a_shell() {
    both("chpst", |subject| {
        let place = Place::new(subject);
        assert!(Command::new("chmod").arg("+x").arg(place.scratch.path().join("text")).status().unwrap().success());
        let want = "chpst: fatal: unable to run: ./text: exec format error\n";
        assert_eq!(seen(&place.run("chpst ./text")), (Some(111), String::new(), want.into()));
    });
}

#[test]
fn wrong_use_is_exit_100() {
    both("chpst", |subject| {
        let place = Place::new(subject);
        for (words, first) in [
            ("chpst", "usage: "),
            ("chpst -q true", "chpst: illegal option -- q\n"),
            ("chpst -u", "chpst: option requires an argument -- u\n"),
            ("chpst -n x true", "usage: "),
            ("chpst -o 5x true", "usage: "),
            ("chpst -o = true", "usage: "),
            ("setuidgid daemon", "usage: setuidgid account child\n"),
            ("chpst -l a -L b true", "usage: "),
            ("chpst -L a -L b true", "usage: "),
            ("envuidgid daemon", "usage: envuidgid account child\n"),
            ("envdir ld", "usage: envdir dir child\n"),
            ("pgrphack", "usage: pgrphack child\n"),
            ("setlock file", "usage: setlock [ -nNxX ] file program [ arg ... ]\n"),
            ("softlimit -q true", "softlimit: illegal option -- q\n"),
        ] {
            let (code, stdout, stderr) = seen(&place.run(words));
            assert_eq!((code, stdout.as_str()), (Some(100), ""), "{words}");
            // runit's usage text names the program by its path.
            let stderr = stderr.replace(&format!("{}/", place.names.display()), "");
            assert!(stderr.starts_with(first) && stderr.contains("usage: "), "{words}: {stderr}");
        }
    });
}

#[test]
fn environment_from_a_directory() {
    let print = "printf~'%s|'~\"$PLAIN\"~\"${GONE-gone}\"~\"${BLANK-unset}\"~\"$ZERO\"~\"$PATH\"";
    both("chpst", |subject| {
        let place = Place::new(subject);
        for name in ["chpst -e", "envdir"] {
            let got = seen(&place.run(&format!("{name} ld /bin/sh -c {print}")));
            assert_eq!(got, (Some(0), "a b|gone||x\ny|/none|".into(), String::new()));
            // chpst looks for the program in the old PATH.
            assert_eq!(place.run(&format!("{name} ld true")).status.code(), Some(0));
        }
    });
    both("chpst", |subject| {
        // A fifo has no value, and a link that leads nowhere has none.
        for name in ["chpst -e", "envdir"] {
            for variable in ["GONE", "PIPE"] {
                let place = Place::new(subject);
                let file = place.scratch.path().join("sub/inner");
                fs::remove_dir(&file).unwrap();
                let file = file.with_file_name(variable);
                match variable {
                    "GONE" => symlink("nowhere", file).unwrap(),
                    _ => nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                }
                let mut command = place.command(&format!("{name} sub sh -c echo~${{{variable}-unset}}"));
                assert_eq!(text(&run(command.env("PIPE", "x"), "").stdout), "unset\n", "{name} {variable}");
            }
        }
    });
    check(&[
        ("chpst -e sub true", 0, "", ""),
        ("chpst -v -e sub true", 0, "", "chpst: warning: unable to read sub/inner: is a directory\n"),
        ("envdir sub true", 111, "", "chpst: fatal: unable to read sub/inner: is a directory\n"),
        ("chpst -e none true", 111, "", "chpst: fatal: unable to switch to directory: none: file does not exist\n"),
        ("envdir _ true", 111, "", "chpst: fatal: unable to switch to directory: : file does not exist\n"),
    ]);
}

#[test]
fn ids_by_number_and_by_name() {
    if !root_for("chpst -u") {
        return;
    }
    let ids = "sh -c id~-u;~id~-g;~id~-G";
    both("chpst", |subject| {
        let place = Place::new(subject);
        for (option, want) in [
            ("-u daemon", "1\n1\n1\n"),
            ("-u daemon:bin:sys", "1\n2\n2 3\n"),
            ("-u :12345:23456", "12345\n23456\n23456\n"),
            ("-u :7:8:9", "7\n8\n8 9\n"),
            ("-u nobody -U daemon:bin", "65534\n65534\n65534\n"),
        ] {
            let got = seen(&place.run(&format!("chpst {option} {ids}")));
            assert_eq!(got, (Some(0), want.into(), String::new()), "{option}");
        }
        assert_eq!(text(&place.run(&format!("setuidgid daemon {ids}")).stdout), "1\n1\n1\n");
        let variables = "sh -c echo~$UID:$GID";
        // dash sets no UID of its own, so these are the variables of chpst.
        assert_eq!(text(&place.run(&format!("chpst -U daemon:bin {variables}")).stdout), "1:2\n");
        assert_eq!(text(&place.run(&format!("chpst -U :7:8:9 {variables}")).stdout), "7:8\n");
        assert_eq!(text(&place.run(&format!("envuidgid daemon {variables}")).stdout), "1:1\n");
    });
}

#[test]
fn accounts_that_do_not_exist() {
    check(&[
        ("chpst -u nouser true", 111, "", "chpst: fatal: unknown user/group: nouser\n"),
        ("chpst -u root:nogrp true", 111, "", "chpst: fatal: unknown user/group: root:nogrp\n"),
        ("chpst -u root: true", 111, "", "chpst: fatal: unknown user/group: root:\n"),
        ("chpst -u _ true", 111, "", "chpst: fatal: unknown user/group: \n"),
        ("chpst -u : true", 111, "", "chpst: fatal: invalid uid/gids: \n"),
        ("chpst -u :1 true", 111, "", "chpst: fatal: invalid uid/gids: 1\n"),
        ("chpst -u :1:x true", 111, "", "chpst: fatal: invalid uid/gids: 1:x\n"),
        ("chpst -U :7 true", 111, "", "chpst: fatal: invalid uid/gids: 7\n"),
        ("setuidgid nouser true", 111, "", "chpst: fatal: unknown account: nouser\n"),
        ("setuidgid daemon:bin true", 111, "", "chpst: fatal: unknown account: daemon:bin\n"),
        ("setuidgid :1:1 true", 111, "", "chpst: fatal: unknown account: :1:1\n"),
        ("envuidgid -x true", 111, "", "chpst: fatal: unknown account: -x\n"),
    ]);
}

#[test]
fn a_numeric_group_that_is_missing_is_not_root() {
    // runit reads the empty number as 0, which is the group of root.
    if !root_for("chpst -u :uid:") {
        return;
    }
    let words = "chpst -u :1: id -g";
    if let Some(original) = original("chpst", "runit") {
        assert_eq!(text(&Place::new(&original).run(words).stdout), "0\n");
    }
    let got = seen(&Place::new(&ours()).run(words));
    assert_eq!(got, (Some(111), String::new(), "chpst: fatal: invalid uid/gids: 1:\n".into()));
}

#[test]
fn numbers_names_and_words_that_the_original_takes_for_others() {
    if !root_for("chpst -u") {
        return;
    }
    let groups = format!("nobody{}", ":root".repeat(61));
    let (many, left_out) = (format!("chpst -u {groups} true"), format!("chpst: fatal: unknown user/group: {groups}\n"));
    let not_found = "chpst: fatal: unable to run: none/prog: file does not exist\n";
    // The command, the original's exit code and output, our exit code, and the beginning of our
    // error message.
    let rows = [
        // Of a number beyond 32 bits the original keeps the lower ones; here they are root's
        // number.
        ("chpst -u :4294967296:1 id -u", 0, "0\n", 111, "chpst: fatal: invalid uid/gids: 4294967296:1\n"),
        ("chpst -n 4294967297 nice", 0, "1\n", 100, "usage: chpst "),
        ("chpst -n _ nice", 0, "0\n", 100, "usage: chpst "),
        ("chpst -f 18446744073709551616 sh -c ulimit~-f", 0, "0\n", 0, ""),
        // The original leaves out the groups for which it has no space.
        (&many, 0, "", 111, &left_out),
        // The error names the program that was not found, and not the name that it would have got.
        // -x concerns only the lock.
        ("chpst -b zero none/prog", 111, "", 111, not_found),
        ("setlock -x lock none/prog", 0, "", 111, not_found),
    ];
    let here = original("chpst", "runit");
    for (words, code, out, our_code, our_error) in rows {
        if let Some(original) = &here {
            let (was, said, _) = seen(&Place::new(original).run(words));
            assert_eq!((was, said.as_str()), (Some(code), out), "{words}");
        }
        let (got, _, error) = seen(&Place::new(&ours()).run(words));
        let as_said = error.starts_with(our_error) && error.is_empty() == our_error.is_empty();
        assert!(got == Some(our_code) && as_said, "{words}: {got:?} {error}");
    }
}

#[test]
fn variables_of_files_that_are_no_values() {
    // For a link that leads nowhere the original uses the value of the previous file, and it unsets
    // nothing.
    let case = |subject: &Subject| {
        let place = Place::new(subject);
        let dir = place.scratch.path().join("odd");
        fs::create_dir(&dir).unwrap();
        symlink("nowhere", dir.join("GONE")).unwrap();
        fs::write(dir.join("A=B"), "").unwrap();
        place.run("chpst -e odd env")
    };
    let lines = |output: &Output, name: &str| text(&output.stdout).lines().any(|line| line.starts_with(name));
    if let Some(original) = original("chpst", "runit") {
        assert!(lines(&case(&original), "A=B"));
    }
    let ours = case(&ours());
    assert_eq!((ours.status.code(), lines(&ours, "GONE="), lines(&ours, "A=")), (Some(0), false, false));
}

#[test]
fn soft_limits() {
    // softlimit and chpst have the same options.
    check(&[
        ("chpst -o 20 sh -c ulimit~-n", 0, "20\n", ""),
        ("chpst -c 512 -f 1024 sh -c ulimit~-c;~ulimit~-f", 0, "1\n2\n", ""),
        ("chpst -t 5 -p 4000 sh -c ulimit~-t;~ulimit~-p", 0, "5\n4000\n", ""),
        ("chpst -d 102400000 sh -c ulimit~-d", 0, "100000\n", ""),
        ("chpst -r 1024000 sh -c ulimit~-m", 0, "1000\n", ""),
        ("chpst -m 102400000 -d 51200000 sh -c ulimit~-d;~ulimit~-s;~ulimit~-v", 0, "50000\n100000\n100000\n", ""),
        ("chpst -d 51200000 -m 102400000 sh -c ulimit~-d", 0, "100000\n", ""),
        (
            "softlimit -a 102400000 -s 10240000 -l 4096 sh -c ulimit~-v;~ulimit~-s;~ulimit~-l",
            0,
            "100000\n10000\n4\n",
            "",
        ),
        ("chpst -o 50 softlimit -o 20 sh -c ulimit~-n", 0, "20\n", ""),
    ]);
    both("chpst", |subject| {
        let place = Place::new(subject);
        let hard = text(&place.run("chpst sh -c ulimit~-Hn").stdout);
        // `=` means the hard limit, and so does every larger value.
        assert_eq!(text(&place.run("chpst -o 10 softlimit -o = sh -c ulimit~-n").stdout), hard);
        assert_eq!(text(&place.run("chpst -o 999999999999999999999 sh -c ulimit~-n").stdout), hard);
    });
}

#[test]
fn nice_value() {
    check(&[
        ("chpst -n 5 nice", 0, "5\n", ""),
        ("chpst -n +5 nice", 0, "5\n", ""),
        ("chpst -n 100 nice", 0, "19\n", ""),
    ]);
    if root_for("chpst -n -5") {
        check(&[("chpst -n -5 nice", 0, "-5\n", ""), ("chpst -u nobody -n -1 nice", 0, "-1\n", "")]);
    }
}

#[test]
fn descriptors_are_closed() {
    check(&[
        ("chpst -0 sh -c test~-e~/dev/fd/0~||~echo~closed", 0, "closed\n", ""),
        ("chpst -2 sh -c test~-e~/dev/fd/2~||~echo~closed", 0, "closed\n", ""),
        ("chpst -1 sh -c test~-e~/dev/fd/1~||~echo~closed~>&2", 0, "", "closed\n"),
        ("chpst -012 sh -c test~-e~/dev/fd/0~-o~-e~/dev/fd/2;~exit~$?", 1, "", ""),
    ]);
}

#[test]
fn the_program_gets_default_signals_and_only_the_lock_as_a_descriptor() {
    both("chpst", |subject| {
        let place = Place::new(subject);
        // std's Command restores SIGPIPE. grep must see the same with chpst as without it.
        let without = Command::new("grep").args(["SigIgn", "/proc/self/status"]).output().unwrap();
        assert_eq!(text(&place.run("chpst grep SigIgn /proc/self/status").stdout), text(&without.stdout));
        let descriptors = |output: Output| text(&output.stdout).lines().count();
        let without = descriptors(Command::new("ls").arg("/proc/self/fd").output().unwrap());
        assert_eq!(descriptors(place.run("chpst ls /proc/self/fd")), without);
        assert_eq!(descriptors(place.run("chpst -l lock ls /proc/self/fd")), without + 1);
    });
}

#[test]
fn a_signal_that_is_ignored_stays_so() {
    both("chpst", |subject| {
        let place = Place::new(subject);
        let program = place.names.join("chpst");
        for signal in ["PIPE", "HUP"] {
            let ignoring = || {
                let mut command = Command::new("env");
                command.arg(format!("--ignore-signal={signal}"));
                command
            };
            let look = ["grep", "SigIgn", "/proc/self/status"];
            let without = ignoring().args(look).output().unwrap().stdout;
            let with = ignoring().arg(&program).args(look).output().unwrap().stdout;
            assert_eq!(text(&with), text(&without), "{signal}");
        }
    });
}

#[test]
fn a_session_of_its_own() {
    both("chpst", |subject| {
        let place = Place::new(subject);
        // Fields 5 and 6 of stat are the process group and the session. For their leader both equal
        // the pid, field 1.
        for words in ["chpst -P", "pgrphack"] {
            let stat = text(&place.run(&format!("{words} cat /proc/self/stat")).stdout);
            let fields: Vec<&str> = stat.split(' ').collect();
            assert_eq!((fields[4], fields[5]), (fields[0], fields[0]), "{words}");
        }
    });
}

#[test]
fn root_and_directory() {
    check(&[
        ("chpst -/ none true", 111, "", "chpst: fatal: unable to change directory: none: file does not exist\n"),
        ("chpst -/ _ true", 111, "", "chpst: fatal: unable to change directory: : file does not exist\n"),
    ]);
    if root_for("chpst -/") {
        both("chpst", |subject| {
            let place = Place::new(subject);
            // chpst looks for the program and the user in the new root.
            let got = seen(&place.run("chpst -/ ld /bin/true"));
            let want = "chpst: fatal: unable to run: /bin/true: file does not exist\n";
            assert_eq!(got, (Some(111), String::new(), want.into()));
            let got = seen(&place.run("chpst -/ ld -u daemon /bin/true"));
            let want = "chpst: fatal: unable to get password/group file entry: file does not exist\n";
            assert_eq!((got.0, got.2), (Some(111), want.into()));
        });
    }
    // -C came with runit 2.2.0; Debian 12 has 2.1.2.
    let place = Place::new(&ours());
    assert_eq!(text(&place.run("chpst -C / pwd").stdout), "/\n");
    let want = "chpst: fatal: unable to change directory: none: file does not exist\n";
    assert_eq!(seen(&place.run("chpst -C none pwd")), (Some(111), String::new(), want.into()));
}

#[test]
fn a_lock_that_is_taken() {
    check(&[
        ("chpst -L lock chpst -L lock true", 111, "", "chpst: fatal: unable to lock: lock: temporary failure\n"),
        ("chpst -L none/lock true", 111, "", "chpst: fatal: unable to open lock: none/lock: file does not exist\n"),
        ("chpst -l none/lock true", 111, "", "chpst: fatal: unable to open lock: none/lock: file does not exist\n"),
        ("chpst -L lock true", 0, "", ""),
    ]);
}

#[test]
fn a_lock_is_waited_for() {
    both("chpst", |subject| {
        let place = Place::new(subject);
        let mut holder =
            Running::start(&mut place.command("chpst -l lock sh -c echo~held;~read~x;~echo~holder~>>order"));
        assert_eq!(holder.stdout_line(), "held");
        let waiter = Running::start(&mut place.command("chpst -l lock sh -c echo~waiter~>>order"));
        assert_eq!(holder.finish().status.code(), Some(0));
        assert_eq!(waiter.finish().status.code(), Some(0));
        assert_eq!(fs::read_to_string(place.scratch.path().join("order")).unwrap(), "holder\nwaiter\n");
    });
}

#[test]
fn setlock_as_daemontools_means_it() {
    // runit's setlock exchanges -n and -N, so here daemontools is the original.
    let case = |subject: &Subject| {
        let scratch = Scratch::new();
        let program = subject.path("setlock");
        let setlock = |args: &str| {
            let args = args.replace("SETLOCK", program.to_str().unwrap());
            let mut command = Command::new(&program);
            command.args(args.split(' ')).current_dir(scratch.path()).env_remove("RUST_BACKTRACE");
            let output = run(&mut command, "");
            (output.status.code(), text(&output.stdout), output.stderr.is_empty())
        };
        let said = String::new;
        assert_eq!(setlock("lock echo ran"), (Some(0), "ran\n".into(), true));
        assert_eq!(setlock("lock SETLOCK -n lock echo ran"), (Some(111), said(), false));
        assert_eq!(setlock("lock SETLOCK -nX lock echo ran"), (Some(111), said(), false));
        assert_eq!(setlock("lock SETLOCK -nx lock echo ran"), (Some(0), said(), true));
        assert_eq!(setlock("-x none/lock echo ran"), (Some(0), said(), true));
        assert_eq!(setlock("none/lock echo ran"), (Some(111), said(), false));
    };
    if let Some(original) = original("setlock", "daemontools") {
        case(&original);
    }
    case(&ours());
}

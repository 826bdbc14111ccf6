//! svlogd: files, names, modes, selection, rotation, processor, signals, exit codes.

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::subject::{
    Running, Scratch, Subject, both, mode, names, original, ours, run, skip, text, unshare_mount, wait_for,
};

mod kill;
mod processor;
mod reader;
mod trouble;

/// A log directory `log` in a scratch directory.
struct Log {
    scratch: Scratch,
}

impl Log {
    fn new(config: &str) -> Log {
        let log = Log { scratch: Scratch::new() };
        fs::create_dir(log.dir()).unwrap();
        if !config.is_empty() {
            fs::write(log.file("config"), config).unwrap();
        }
        log
    }

    fn dir(&self) -> PathBuf {
        self.scratch.path().join("log")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    fn current(&self) -> String {
        fs::read(self.file("current")).map(|b| text(&b)).unwrap_or_default()
    }

    /// Old files with this extension, the oldest first.
    fn old(&self, extension: &str) -> Vec<String> {
        names(&self.dir(), |name| name.starts_with('@') && name.ends_with(extension))
    }

    /// Everything that was logged, in order.
    fn all(&self) -> String {
        let old: String = self.old("").iter().map(|name| text(&fs::read(self.file(name)).unwrap())).collect();
        old + &self.current()
    }

    fn command(&self, subject: &Subject, args: &[&str]) -> Command {
        let mut command = subject.command("svlogd");
        command.args(args).arg("log").current_dir(self.scratch.path());
        command
    }

    fn run(&self, subject: &Subject, args: &[&str], input: impl AsRef<[u8]>) -> Output {
        let output = run(&mut self.command(subject, args), input);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        output
    }

    fn wait(&self, what: &str, holds: impl Fn(&Log) -> bool) {
        wait_for(&self.dir(), what, || holds(self));
    }
}

/// `count` lines of `width` digits and a newline.
fn numbered(count: usize, width: usize) -> String {
    (1..=count).map(|n| format!("{n:0width$}\n")).collect()
}

fn sizes(log: &Log) -> Vec<u64> {
    let mut sizes: Vec<u64> = log.old("").iter().map(|n| fs::metadata(log.file(n)).unwrap().len()).collect();
    sizes.push(fs::metadata(log.file("current")).unwrap().len());
    sizes
}

#[test]
fn lines_are_in_current_which_is_marked_complete_at_the_end() {
    both("svlogd", |subject| {
        let log = Log::new("");
        let output = log.run(subject, &[], "a\n\nb\n");
        assert_eq!(log.current(), "a\n\nb\n");
        assert_eq!(mode(&log.file("current")), 0o744);
        assert_eq!(mode(&log.file("lock")), 0o600);
        assert_eq!(names(&log.dir(), |_| true), ["current", "lock"]);
        assert_eq!(text(&output.stderr), "");
        log.run(subject, &[], "c\n");
        assert_eq!(log.current(), "a\n\nb\nc\n");
    });
}

#[test]
fn a_line_is_on_disk_while_the_pipe_stays_open() {
    both("svlogd", |subject| {
        let log = Log::new("");
        let mut running = Running::start(&mut log.command(subject, &[]));
        for (line, want) in [("first\n", "first\n"), ("second\n", "first\nsecond\n")] {
            running.write(line);
            log.wait("the line", |log| log.current() == want);
            assert_eq!(mode(&log.file("current")), 0o644);
        }
        assert_eq!(running.finish().status.code(), Some(0));
    });
}

/// The process's own anonymous memory in kB: the heap, the stack, and its mappings.
fn anonymous_kb(running: &mut Running) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", running.pid())).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_burst_leaves_no_large_process() {
    let log = Log::new("");
    let mut running = Running::start(&mut log.command(&ours(), &["-tt"]));
    running.write("first\n");
    log.wait("the line", |log| log.current().ends_with("first\n"));
    let before = anonymous_kb(&mut running);
    running.write(numbered(4000, 99));
    log.wait("the burst", |log| log.current().lines().count() == 4001);
    testkit::wait_until("its memory to be given back", Duration::from_secs(10), || {
        anonymous_kb(&mut running) <= before + 40
    });
    running.write("last\n");
    log.wait("the line behind it", |log| log.current().ends_with("last\n"));
    assert_eq!(running.finish().status.code(), Some(0));
}

#[test]
fn the_last_line_needs_no_newline() {
    both("svlogd", |subject| {
        let log = Log::new("");
        log.run(subject, &[], "a\nlast words");
        // runit loses the last line.
        assert_eq!(log.current(), if subject.ours { "a\nlast words\n" } else { "a\n" });
    });
}

/// The time as `date` sees it, in the form of -tt.
fn date() -> String {
    text(&Command::new("date").args(["-u", "+%Y-%m-%d_%H:%M:%S"]).output().unwrap().stdout).trim_end().to_owned()
}

#[test]
fn stamps_are_the_time_of_writing() {
    both("svlogd", |subject| {
        for (option, separator) in [("-tt", "_"), ("-ttt", "T")] {
            let log = Log::new("");
            let before = date();
            log.run(subject, &[option], "a b\n\n");
            let after = date() + ".99999";
            let lines: Vec<String> = log.current().lines().map(str::to_owned).collect();
            assert_eq!(lines.len(), 2);
            assert!(lines[0].ends_with(" a b") && lines[1].ends_with(' '), "{lines:?}");
            for line in &lines {
                assert_eq!(&line[10..11], separator);
                let (stamp, fraction) = (line[..25].replacen('T', "_", 1), &line[20..25]);
                assert!(stamp.as_str() >= before.as_str() && stamp <= after, "{before} <= {stamp} <= {after}");
                assert!(fraction.bytes().all(|b| b.is_ascii_digit()) && &line[25..26] == " ", "{line}");
            }
        }
    });
}

#[test]
fn a_tai64n_stamp_is_the_time_of_writing() {
    both("svlogd", |subject| {
        let log = Log::new("");
        log.run(subject, &["-t"], "a\n");
        let line = log.current();
        assert_eq!((&line[..1], &line[25..]), ("@", " a\n"));
        let secs = i128::from_str_radix(&line[1..17], 16).unwrap() - (1 << 62) - 10;
        let now = text(&Command::new("date").arg("+%s").output().unwrap().stdout).trim_end().parse::<i128>().unwrap();
        assert!((now - 20..=now).contains(&secs), "{secs} {now}");
        assert!(u32::from_str_radix(&line[17..25], 16).unwrap() < 1_000_000_000);
    });
}

#[test]
fn lines_that_wait_together_are_one_batch_with_one_stamp() {
    // Ours alone: runit reads 1024 bytes at a time and stamps each line.
    let log = Log::new("");
    let input = log.scratch.path().join("input");
    fs::write(&input, numbered(500, 100)).unwrap();
    let status = log.command(&ours(), &["-t"]).stdin(fs::File::open(&input).unwrap()).status().unwrap();
    assert!(status.success());
    let stamps: std::collections::HashSet<String> = log.current().lines().map(|l| l[..25].to_owned()).collect();
    assert_eq!(log.current().lines().count(), 500);
    assert_eq!(stamps.len(), 1);
}

#[test]
fn lines_that_keep_coming_are_written_together() {
    // Ours alone: runit writes each line by itself.
    let log = Log::new("");
    let mut running = Running::start(&mut log.command(&ours(), &["-t"]));
    let begin = Instant::now();
    let (mut last, mut silences) = (begin, 0);
    for n in 0..300 {
        running.write(format!("{n}\n"));
        std::thread::sleep(Duration::from_millis(1));
        silences += u32::from(last.elapsed() > Duration::from_millis(8));
        last = Instant::now();
    }
    let periods = u32::try_from(begin.elapsed().as_millis() / 50).unwrap();
    assert_eq!(running.finish().status.code(), Some(0));
    let lines: Vec<String> = log.current().lines().map(str::to_owned).collect();
    let numbers: Vec<String> = lines.iter().map(|line| line[26..].to_owned()).collect();
    assert_eq!(numbers, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
    // Lines that are written together have one stamp. svlogd writes after 50 ms, or when nothing
    // has come for 10 ms.
    let stamps: std::collections::HashSet<&str> = lines.iter().map(|line| &line[..25]).collect();
    let most = 3 + periods + 2 * silences;
    assert!(stamps.len() <= usize::try_from(most).unwrap(), "{} writes, {silences} silences", stamps.len());
}

#[test]
fn the_last_pattern_that_matches_decides() {
    let table: &[(&str, &str, &str)] = &[
        ("-*\n+a*\n-ab\n", "abc\nab\nzz\n", "abc\n"),
        ("-*\n+ab*c\n", "abc\nabxc\nabcc\nabxcxc\nab*c\n", "abc\nabxc\nab*c\n"),
        ("-*\n+a+b\n", "ab\nabb\nabc\n", "ab\nabb\n"),
        ("-*\n+a+bb\n", "abb\nabbb\nab\n", "abb\nabbb\nab\n"),
        ("-*\n+a**b\n", "ab\na*b\naxb\nax*b\n", "a*b\nax*b\n"),
        ("-*\n+a++b\n", "a+b\na++b\na+\nab\n", "a+b\na++b\na+\n"),
        ("-*\n+*: *: pid *\n", "2005: tcpsvd: info: pid 1\nx: y: pid 4\n", "x: y: pid 4\n"),
        ("-*\n+\n", "a\n\nb\n", "\n"),
        ("# comment\n\nfoo\n-secret*\n", "x\nsecret: y\n", "x\n"),
    ];
    both("svlogd", |subject| {
        for (config, input, want) in table {
            let log = Log::new(config);
            log.run(subject, &[], input);
            assert_eq!(log.current(), *want, "{config:?}");
        }
    });
}

#[test]
fn alerts_go_to_stderr_with_prefix_and_without_deselected_lines() {
    both("svlogd", |subject| {
        let log = Log::new("pweb: \ne*x*\nEaxe\n-axd\n");
        let output = log.run(subject, &[], "abc\naxc\naxd\naxe\n");
        assert_eq!(log.current(), "web: abc\nweb: axc\nweb: axe\n");
        assert_eq!(text(&output.stderr), "web: axc\nweb: axd\n");
    });
}

#[test]
fn what_is_not_printable_is_replaced_when_asked_for() {
    both("svlogd", |subject| {
        for (args, want) in [
            (&[][..], "a\u{1}b\tcq\u{e4}\n"),
            (&["-r", "."], "a.b.cq..\n"),
            (&["-R", "q"], "a_b_c___\n"),
            (&["-R", "qb", "-r", "X"], "aXXXcXXX\n"),
        ] {
            let log = Log::new("");
            log.run(subject, args, "a\u{1}b\tcq\u{e4}\n");
            assert_eq!(log.current(), want, "{args:?}");
        }
    });
}

#[test]
fn long_lines_are_kept_whole_and_judged_by_their_head() {
    both("svlogd", |subject| {
        let log = Log::new("e*\n-no*\n");
        let output =
            log.run(subject, &["-l", "5", "-b", "8", "-r", "_"], "a\u{1}cdefgh\u{2}ijkl\nno longer line\nend\n");
        assert_eq!(log.current(), "a_cdefgh\u{2}ijkl\nend\n");
        assert_eq!(text(&output.stderr), "a_cde...\nno lo...\nend\n");
    });
}

#[test]
fn files_are_rotated_at_the_same_bytes() {
    for (config, input, want) in [
        ("s2000\nn0\n", numbered(100, 100), vec![1010, 1010, 1010, 1010, 1010, 1010, 1010, 1010, 1010, 1010, 0]),
        ("s1500\nn0\n", numbered(30, 60), vec![549, 549, 549, 183]),
        ("s10\nn0\n", "abcdefgh\nijklmnopqrstuv\nxy\n".to_owned(), vec![10, 10, 7]),
        ("s2k\nn0\n", numbered(100, 100), vec![1111, 1111, 1111, 1111, 1111, 1111, 1111, 1111, 1111, 101]),
    ] {
        both("svlogd", |subject| {
            let log = Log::new(config);
            log.run(subject, &[], &input);
            assert_eq!(sizes(&log), want, "{config:?}");
            assert_eq!(log.all(), input);
            assert_eq!(log.old(".s").len(), log.old("").len());
            for name in log.old("") {
                assert_eq!((name.len(), mode(&log.file(&name))), (27, 0o744), "{name}");
            }
        });
    }
}

#[test]
fn only_so_many_old_files_are_kept_and_they_are_the_newest() {
    both("svlogd", |subject| {
        let log = Log::new("s2000\nn2\n");
        let input = numbered(95, 100);
        log.run(subject, &[], &input);
        assert_eq!(log.old(".s").len(), 2);
        assert_eq!(log.all(), input[70 * 101..]);
    });
}

#[test]
fn names_sort_in_order_of_writing_although_the_clock_went_back() {
    // Ours alone: runit would remove each new file at once, because it is the oldest.
    let log = Log::new("s2000\nn2\n");
    fs::write(log.file("@4000000fffffffff00000000.s"), "from the future\n").unwrap();
    let input = numbered(35, 100);
    log.run(&ours(), &[], &input);
    let old = log.old(".s");
    assert_eq!(old, ["@4000000fffffffff00000002.s", "@4000000fffffffff00000003.s"]);
    assert_eq!(log.all(), input[10 * 101..]);
}

#[test]
fn a_file_is_rotated_at_its_age_unless_it_is_empty() {
    both("svlogd", |subject| {
        let log = Log::new("t1\n");
        let mut running = Running::start(&mut log.command(subject, &[]));
        running.write("a\n");
        log.wait("rotation", |log| log.old(".s").len() == 1 && log.current().is_empty());
        running.write("b\n");
        log.wait("second rotation", |log| log.old(".s").len() == 2 && log.current().is_empty());
        assert_eq!(running.finish().status.code(), Some(0));
        assert_eq!(log.all(), "a\nb\n");
        assert_eq!(log.old("").len(), 2);
    });
}

#[test]
fn what_a_crash_left_is_kept_apart() {
    both("svlogd", |subject| {
        let log = Log::new("");
        fs::write(log.file("current"), "torn").unwrap();
        fs::set_permissions(log.file("current"), fs::Permissions::from_mode(0o644)).unwrap();
        log.run(subject, &[], "new\n");
        let [torn] = &log.old("")[..] else { panic!("{:?}", log.old("")) };
        assert!(torn.ends_with(".u"));
        assert_eq!(text(&fs::read(log.file(torn)).unwrap()), "torn");
        assert_eq!(log.current(), "new\n");
    });
}

#[test]
fn a_zero_byte_ends_a_line_of_the_configuration() {
    both("svlogd", |subject| {
        let log = Log::new("s2000\nn0\n!tr l L\0oops\np> \0oops\n");
        log.run(subject, &[], numbered(10, 100));
        assert_eq!((log.old(".s").len(), log.old(".u").len()), (1, 0));
        assert_eq!(log.all().matches("\n> ").count(), 9, "{}", log.all());
        assert!(!log.all().contains("oops"));
    });
}

#[test]
fn term_ends_it_well_with_what_was_read() {
    both("svlogd", |subject| {
        let log = Log::new("");
        let mut running = Running::start(&mut log.command(subject, &["-v"]));
        running.write("a\n");
        log.wait("the line", |log| log.current() == "a\n");
        running.signal(Signal::SIGTERM);
        let output = running.wait();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(mode(&log.file("current")), 0o744);
        let said = text(&output.stderr);
        assert_eq!(said, "svlogd: info: new: log/current\nsvlogd: info: sigterm received.\nsvlogd: info: close: log\n");
    });
}

#[test]
fn term_in_the_middle_of_a_line_leaves_it_to_the_next() {
    // Ours alone: runit waits for the rest of the line, and then loses it.
    let log = Log::new("");
    let pipe = || {
        let (from, into) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        (from, fs::File::from(into))
    };
    let start = |from: &OwnedFd| Running::start_with(&mut log.command(&ours(), &["-v"]), from.try_clone().unwrap());
    let (from, mut into) = pipe();
    let mut first = start(&from);
    into.write_all(b"a\nbegin, ").unwrap();
    log.wait("the line", |log| log.current() == "a\n");
    first.signal(Signal::SIGHUP);
    assert_eq!(first.stderr_line(), "svlogd: info: new: log/current");
    assert_eq!(first.stderr_line(), "svlogd: info: sighangup received.");
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait().status.code(), Some(0));
    assert_eq!((log.current().as_str(), mode(&log.file("current"))), ("a\n", 0o744));

    let second = start(&from);
    into.write_all(b"middle").unwrap();
    drop(into);
    assert_eq!(second.wait().status.code(), Some(0));
    assert_eq!(log.current(), "a\nbegin, middle\n");
    assert_eq!(names(&log.dir(), |_| true), ["current", "lock"]);

    // The pipe disappears with its last reader. svlogd then treats the unfinished text as a line,
    // as it does at the end of the input.
    let (from, mut into) = pipe();
    let mut third = start(&from);
    into.write_all(b"b\nend").unwrap();
    log.wait("the line", |log| log.current().ends_with("middle\nb\n"));
    third.signal(Signal::SIGTERM);
    assert_eq!(third.wait().status.code(), Some(0));
    assert!(log.file("record").exists());
    log.run(&ours(), &[], "c\n");
    assert!(log.current().ends_with("\nb\nend\nc\n"), "{}", log.current());
    assert_eq!(names(&log.dir(), |_| true), ["current", "lock"]);
}

#[test]
fn hup_reads_the_configuration_again() {
    both("svlogd", |subject| {
        let log = Log::new("");
        let mut running = Running::start(&mut log.command(subject, &["-v"]));
        running.write("a\n");
        log.wait("the line", |log| log.current() == "a\n");
        fs::write(log.file("config"), "pnew: \n").unwrap();
        running.signal(Signal::SIGHUP);
        for want in ["new: log/current", "sighangup received.", "close: log", "read: log/config", "append: log/current"]
        {
            assert_eq!(running.stderr_line(), format!("svlogd: info: {want}"));
        }
        running.write("b\n");
        log.wait("the next line", |log| log.current() == "a\nnew: b\n");
        assert_eq!(running.finish().status.code(), Some(0));
    });
}

#[test]
fn a_line_that_is_being_read_at_hup_stays_where_its_begin_is() {
    // The original does not select the rest of the line with its beginning, and writes the rest
    // into the file without it.
    let case = |subject: &Subject| {
        let log = Log::new("-*\n");
        let beside = log.scratch.path().join("other");
        fs::create_dir(&beside).unwrap();
        let mut running = Running::start(&mut log.command(subject, &["-v", "-l", "10", "other"]));
        running.write("a long line");
        let other = || fs::read_to_string(beside.join("current")).unwrap_or_default();
        wait_for(&beside, "its begin", || other().starts_with("a long lin"));
        fs::write(log.file("config"), "").unwrap();
        running.signal(Signal::SIGHUP);
        assert!((0..20).any(|_| running.stderr_line() == "svlogd: info: append: log/current"));
        running.write(" and its end\nnext\n");
        running.finish();
        assert_eq!(other(), "a long line and its end\nnext\n");
        log.current()
    };
    if let Some(original) = original("svlogd", "runit") {
        assert_eq!(case(&original), " and its end\nnext\n");
    }
    assert_eq!(case(&ours()), "next\n");
}

#[test]
fn the_last_line_of_the_configuration_may_be_one_letter() {
    // `s` without a number is a size of 0: no rotation. The original ignores it.
    let case = |subject: &Subject| {
        let log = Log::new("s2000\nn0\ns");
        log.run(subject, &[], numbered(30, 100));
        log.old("").len()
    };
    if let Some(original) = original("svlogd", "runit") {
        assert_ne!(case(&original), 0);
    }
    assert_eq!(case(&ours()), 0);
}

#[test]
fn hup_without_any_directory_left_is_fatal() {
    both("svlogd", |subject| {
        let log = Log::new("");
        let mut running = Running::start(&mut log.command(subject, &["-v"]));
        assert_eq!(running.stderr_line(), "svlogd: info: new: log/current");
        fs::rename(log.dir(), log.scratch.path().join("moved")).unwrap();
        running.signal(Signal::SIGHUP);
        let output = running.wait();
        assert_eq!(output.status.code(), Some(111));
        let said = text(&output.stderr);
        assert!(
            said.ends_with(
                "svlogd: warning: unable to open log directory: log: file does not exist\n\
                 svlogd: fatal: no functional log directories.\n"
            ),
            "{said}"
        );
    });
}

#[test]
fn alrm_rotates_unless_current_is_empty() {
    both("svlogd", |subject| {
        let log = Log::new("");
        let mut running = Running::start(&mut log.command(subject, &["-v"]));
        running.write("a\n");
        log.wait("the line", |log| log.current() == "a\n");
        running.signal(Signal::SIGALRM);
        log.wait("rotation", |log| log.old(".s").len() == 1 && log.file("current").exists());
        running.write("b\n");
        log.wait("the next line", |log| log.current() == "b\n");
        assert_eq!(running.finish().status.code(), Some(0));
        assert_eq!(log.all(), "a\nb\n");

        let log = Log::new("");
        let mut running = Running::start(&mut log.command(subject, &["-v"]));
        assert_eq!(running.stderr_line(), "svlogd: info: new: log/current");
        running.signal(Signal::SIGALRM);
        assert_eq!(running.stderr_line(), "svlogd: info: sigalarm received.");
        assert_eq!(running.finish().status.code(), Some(0));
        assert_eq!(names(&log.dir(), |_| true), ["current", "lock"]);
    });
}

#[test]
fn several_directories_and_one_that_is_missing() {
    both("svlogd", |subject| {
        let log = Log::new("-b*\n");
        fs::create_dir(log.scratch.path().join("two")).unwrap();
        let output = run(log.command(subject, &[]).args(["missing", "two"]), "a\nb\n");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(
            text(&output.stderr),
            "svlogd: warning: unable to open log directory: missing: file does not exist\n"
        );
        assert_eq!(log.current(), "a\n");
        assert_eq!(text(&fs::read(log.scratch.path().join("two/current")).unwrap()), "a\nb\n");
    });
}

#[test]
fn no_directory_or_one_in_use_is_exit_111() {
    both("svlogd", |subject| {
        let log = Log::new("");
        let missing = run(subject.command("svlogd").arg("/nonexistent"), "");
        assert_eq!(missing.status.code(), Some(111));
        assert_eq!(
            text(&missing.stderr),
            "svlogd: warning: unable to open log directory: /nonexistent: file does not exist\n\
             svlogd: fatal: no functional log directories.\n"
        );
        let mut first = Running::start(&mut log.command(subject, &["-v"]));
        assert_eq!(first.stderr_line(), "svlogd: info: new: log/current");
        let second = run(&mut log.command(subject, &[]), "x\n");
        assert_eq!(second.status.code(), Some(111));
        assert_eq!(
            text(&second.stderr),
            "svlogd: warning: unable to lock directory: log: temporary failure\n\
             svlogd: fatal: no functional log directories.\n"
        );
        assert_eq!(first.finish().status.code(), Some(0));
    });
}

#[test]
fn wrong_use_is_exit_111() {
    both("svlogd", |subject| {
        let log = Log::new("");
        for (args, first_line) in
            [(&["-q"][..], "svlogd: illegal option -- q"), (&["-r", "xy"], "usage: "), (&["-l", "2000"], "usage: ")]
        {
            let output = run(&mut log.command(subject, args), "");
            assert_eq!(output.status.code(), Some(111), "{args:?}");
            assert!(text(&output.stderr).starts_with(first_line), "{args:?}: {}", text(&output.stderr));
            assert!(!log.file("lock").exists());
        }
        let output = run(&mut subject.command("svlogd"), "");
        assert_eq!(output.status.code(), Some(111));
    });
}

#[test]
fn bad_configuration_is_named_and_the_rest_counts() {
    both("svlogd", |subject| {
        let log = Log::new("u1.2\npok: \np\n!\nt18446744073709551615\n");
        let output = log.run(subject, &["-b", "0"], "a\n");
        assert_eq!(text(&output.stderr), "svlogd: warning: unable to scan ip address: 1.2\n");
        assert_eq!(log.current(), "ok: a\n");
        let log = Log::new("");
        fs::create_dir(log.file("config")).unwrap();
        let output = log.run(subject, &[], "a\n");
        assert_eq!(text(&output.stderr), "svlogd: warning: unable to read config: log: is a directory\n");
        assert_eq!(log.current(), "a\n");
    });
}

#[test]
fn selected_lines_are_sent_over_udp() {
    both("svlogd", |subject| {
        for (letter, logged) in [("u", "P:abcdefghij\nP:end\n"), ("U", "")] {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let log = Log::new(&format!("{letter}{}\npP:\n-no*\n", socket.local_addr().unwrap()));
            log.run(subject, &["-l", "6", "-b", "10"], "abcdefghij\nno\nend\n");
            let receive = || {
                let mut buffer = [0; 100];
                let count = socket.recv(&mut buffer).unwrap();
                text(&buffer[..count])
            };
            assert_eq!((receive(), receive()), ("P:abcdef...\n".to_owned(), "P:end\n".to_owned()));
            assert_eq!(log.current(), logged);
        }
    });
}

/// Runs a shell script with `$svlogd`, in a mount namespace with a tmpfs of five pages on `$dir`.
fn on_small_disk(subject: &Subject, dir: &Path, script: &str) -> Option<Running> {
    let probe = unshare_mount("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        skip("full disk: no mount namespace can be made here (unshare)");
        return None;
    }
    let script = format!("set -e; mount -t tmpfs -o size=20k tmpfs \"$dir\"; cd \"$dir\"; mkdir log; {script}");
    let mut command = unshare_mount("sh");
    command.args(["-c", &script]).env("dir", dir).env("svlogd", subject.path("svlogd"));
    Some(Running::start(&mut command))
}

#[test]
fn a_full_disk_costs_the_oldest_files_when_the_configuration_allows_it() {
    both("svlogd", |subject| {
        let scratch = Scratch::new();
        let script = "printf 's2000\\nn5\\nN2\\n' >log/config; \"$svlogd\" log; cat log/@* log/current";
        let Some(mut running) = on_small_disk(subject, scratch.path(), script) else { return };
        let input = numbered(60, 100);
        running.write(&input);
        let output = running.finish();
        let kept = text(&output.stdout);
        assert!(kept.len() >= 2 * 1010 && input.ends_with(&kept), "{} bytes kept", kept.len());
        let said = text(&output.stderr);
        assert!(said.starts_with("svlogd: warning: out of disk space, delete: log/@"), "{said}");
        assert!(!said.contains("pausing"), "{said}");
    });
}

#[test]
fn a_full_disk_makes_the_service_wait_and_loses_nothing() {
    both("svlogd", |subject| {
        let scratch = Scratch::new();
        let script = "cat >input; head -c 100000 /dev/zero >filler 2>/dev/null || :; \"$svlogd\" log <input & \
                      svlogd=$!; read go </dev/fd/3; rm filler; wait $svlogd; cat log/current";
        let fifo = scratch.path().with_extension("go");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let script = format!("exec 3<>'{}'; {script}", fifo.display());
        let Some(mut running) = on_small_disk(subject, scratch.path(), &script) else { return };
        let input = numbered(20, 100);
        running.write(&input);
        let mut running = running.close_stdin();
        assert_eq!(running.stderr_line(), "svlogd: pausing: unable to write to current: log: out of disk space");
        fs::write(&fifo, "go\n").unwrap();
        let output = running.wait();
        fs::remove_file(&fifo).unwrap();
        assert_eq!(text(&output.stdout), input, "{}", text(&output.stderr));
    });
}

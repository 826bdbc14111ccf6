//! One test, one world: the test binary runs itself again, for one test, in fresh namespaces.
//!
//! [`isolated`] is the body of a `#[test]`. In the test runner it starts `current_exe() --exact
//! NAME` through setpriv(1) and unshare(1) in new user (when not root), network, mount and pid
//! namespaces with a private /run and a /proc of its own. In that second process it makes a [`Lab`]
//! and calls the test. A threaded process cannot unshare a user namespace (unshare(2), EINVAL), so
//! the tools do it before exec. Nothing survives: the runner's death kills unshare (PDEATHSIG), the
//! death of unshare kills pid 1 of the namespace, and the kernel then ends all others.
//! [`isolated_main`] does the same for a program (demo, bench).

#![expect(clippy::disallowed_methods, reason = "starts processes and measures the hard timeout")]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::lab::{Lab, find_program};

/// A test that runs longer is killed together with its world.
pub const HARD_TIMEOUT: Duration = Duration::from_secs(90);

/// Set in the process inside the world. Its value is the test's name, so that a stray value
/// elsewhere does no harm.
const MARK: &str = "NETSV_LAB_INSIDE";

/// Set inside: the process that holds the namespaces, by its number outside.
pub const OUTER_PID: &str = "NETSV_LAB_OUTER_PID";
/// Set inside when there is a user namespace, too.
pub const USER_NAMESPACE: &str = "NETSV_LAB_USERNS";

/// The exit code for a system error, as everywhere in netsv.
const EXIT_SYSTEM: i32 = 111;

/// The programs that every world needs.
const BASE_TOOLS: [&str; 6] = ["unshare", "setpriv", "nsenter", "ip", "mount", "sh"];

/// The program of pid 1 in the new world. It is a shell, because it must also reap the orphans of a
/// killed supervisor.
const INIT: &str = r#"
mount -t tmpfs -o mode=755 netsv-lab /run && mkdir /run/netns && ip link set lo up || exit 99
"$@"
"#;

/// Runs `test` in a world of its own. `tools` are the programs that it needs beside iproute2 and
/// util-linux. A missing one skips the test with a line on stderr, or fails it when the environment
/// variable CI is set.
pub fn isolated<F: FnOnce(&Lab)>(tools: &[&str], test: F) {
    isolated_for(HARD_TIMEOUT, possible(tools), test);
}

/// Like [`isolated`], for a test that may take as long as `limit`, and that cannot run where
/// `possible` is an error.
pub fn isolated_for<F: FnOnce(&Lab)>(limit: Duration, possible: Result<(), String>, test: F) {
    let name = test_name::<F>();
    if std::env::var_os(MARK).is_some_and(|inside| inside == name.as_str()) {
        return test(&Lab::new());
    }
    if let Err(reason) = possible {
        return skip(&name, &reason);
    }
    let exe = std::env::current_exe().expect("current_exe");
    let mut argv: Vec<OsString> = vec![exe.into()];
    // --include-ignored: the runner has already decided that this test runs.
    argv.extend(["--exact", &name, "--nocapture", "--test-threads=1", "--include-ignored"].map(OsString::from));
    let (status, output) = run_bounded(world(&argv).env(MARK, &name), limit);
    let text = String::from_utf8_lossy(&output);
    match status {
        None => panic!("{name}: killed after {limit:?}; its output:\n{text}"),
        Some(status) if !status.success() => panic!("{name}: {status}; its output:\n{text}"),
        // Otherwise a name that matches no test would pass without a run.
        Some(_) if !text.contains("test result: ok. 1 passed") => panic!("{name}: did not run; its output:\n{text}"),
        Some(_) => println!("{text}"),
    }
}

/// For a program: returns inside the new world, with the arguments and the terminal unchanged.
/// Outside it never returns: it waits for the run inside and exits with its code. When it is
/// killed, the whole world ends. An error says what is missing.
pub fn isolated_main(tools: &[&str]) -> Result<(), String> {
    const NAME: &str = "main";
    if std::env::var_os(MARK).is_some_and(|inside| inside == NAME) {
        return Ok(());
    }
    possible(tools)?;
    let exe = std::env::current_exe().map_err(|e| format!("current_exe: {e}"))?;
    let argv: Vec<OsString> = std::iter::once(exe.into()).chain(std::env::args_os().skip(1)).collect();
    let status = world(&argv).env(MARK, NAME).status().map_err(|e| format!("unable to start a world: {e}"))?;
    std::process::exit(status.code().unwrap_or(EXIT_SYSTEM))
}

/// An error says why a world with these tools cannot be made here.
pub fn possible(tools: &[&str]) -> Result<(), String> {
    let missing: Vec<&str> =
        BASE_TOOLS.iter().chain(tools).copied().filter(|tool| find_program(tool).is_none()).collect();
    if !missing.is_empty() {
        return Err(format!("not installed: {}", missing.join(" ")));
    }
    static NAMESPACES: OnceLock<Result<(), String>> = OnceLock::new();
    NAMESPACES
        .get_or_init(|| {
            let tried = world(&["true".into()]).output().map_err(|e| format!("sh: {e}"))?;
            let said = String::from_utf8_lossy(&tried.stderr);
            let hint =
                "be root, or allow user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone)";
            if tried.status.success() { Ok(()) } else { Err(format!("no namespaces: {} ({hint})", said.trim())) }
        })
        .clone()
}

/// The command that runs `argv` in new namespaces.
fn world(argv: &[OsString]) -> Command {
    let mut command = Command::new("sh");
    // setpriv and unshare keep the pid of this shell, so nsenter(1) can enter the world from
    // outside by it.
    command.args(["-c", &format!("export {OUTER_PID}=$$; exec \"$@\""), "netsv-lab"]);
    command.args(["setpriv", "--pdeathsig", "KILL", "unshare"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]).env(USER_NAMESPACE, "1");
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.args(["sh", "-c", INIT, "netsv-lab"]).args(argv);
    // ip and nft are in sbin, which is not in the PATH of a normal user on Debian.
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command
}

fn run_bounded(command: &mut Command, limit: Duration) -> (Option<ExitStatus>, Vec<u8>) {
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    let stderr = writer.try_clone().expect("dup");
    let mut child = command.stdin(Stdio::null()).stdout(writer).stderr(stderr).spawn().expect("start a world");
    // The command holds our copies of the writing ends. They must be closed, or the reader would
    // never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let output = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        bytes
    });
    let end = Instant::now() + limit;
    let status = loop {
        match child.try_wait().expect("wait") {
            Some(status) => break Some(status),
            None if Instant::now() >= end => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    (status, output.join().unwrap_or_default())
}

/// Writes to the real stderr, past the test runner's capture, so that a skipped test is never
/// silent. ./test counts these lines.
fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{name}: must not be skipped in CI: {reason}");
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {reason}");
}

/// The test's name for `--exact`: the path of the closure's function without the crate's name.
fn test_name<F>() -> String {
    let path = std::any::type_name::<F>();
    let path = path.split("::{{closure}}").next().unwrap_or(path);
    path.split_once("::").map_or(path, |(_, rest)| rest).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of<F: FnOnce()>(_: F) -> String {
        test_name::<F>()
    }

    #[test]
    fn the_name_is_the_one_that_the_test_runner_uses() {
        assert_eq!(name_of(|| ()), "isolate::tests::the_name_is_the_one_that_the_test_runner_uses");
    }

    #[test]
    fn inside_there_is_only_loopback_and_an_empty_run() {
        isolated(&[], |lab| {
            let links = lab.ip_json(&["link", "show"]);
            assert_eq!(links.as_array().unwrap().len(), 1, "{links}");
            assert_eq!(links[0]["ifname"], "lo");
            assert!(std::fs::read_dir("/run/netns").unwrap().next().is_none());
            assert!(std::process::id() < 50, "a pid namespace of its own");
        });
    }
}

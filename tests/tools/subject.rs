//! The subject of a test (an original program, or ours under the same name), scratch directories,
//! and waiting for events.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getuid};

/// The limit for any case.
const LIMIT: Duration = Duration::from_secs(20);

/// One implementation.
pub(crate) struct Subject {
    /// The directory in which its programs are found by name.
    dir: PathBuf,
    pub(crate) ours: bool,
}

impl Subject {
    pub(crate) fn path(&self, applet: &str) -> PathBuf {
        self.dir.join(applet)
    }

    pub(crate) fn command(&self, applet: &str) -> Command {
        let mut command = Command::new(self.path(applet));
        command.env("LC_ALL", "C").env_remove("RUST_BACKTRACE").process_group();
        command
    }
}

/// Puts a child into its own process group, so that a case that hangs can be ended with all its
/// processes.
trait ProcessGroup {
    fn process_group(&mut self) -> &mut Command;
}

impl ProcessGroup for Command {
    fn process_group(&mut self) -> &mut Command {
        std::os::unix::process::CommandExt::process_group(self, 0)
    }
}

/// Ours: links to the binary under test.
pub(crate) fn ours() -> Subject {
    static LINKS: OnceLock<PathBuf> = OnceLock::new();
    let dir = LINKS.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("applets-{}", std::process::id()));
        let made = Command::new(env!("CARGO_BIN_EXE_netsv")).arg("--install").arg(&dir).status().unwrap();
        assert!(made.success());
        dir
    });
    Subject { dir: dir.clone(), ours: true }
}

/// The original `applet` of `package`. Where it is missing the test prints a notice.
pub(crate) fn original(applet: &str, package: &str) -> Option<Subject> {
    let mut dirs = Vec::new();
    if let Some(tree) = std::env::var_os("NETSV_ORIGINALS") {
        dirs.extend(["usr/bin", "usr/sbin", "bin", "sbin"].map(|dir| Path::new(&tree).join(dir)));
    }
    dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let found = dirs.into_iter().find(|dir| dir.join(applet).is_file());
    if found.is_none() {
        skip(&format!("the original {applet} (package {package}) is not here: only ours is tested"));
    }
    found.map(|dir| Subject { dir, ours: false })
}

/// Runs a case with runit's program, then with ours.
pub(crate) fn both(applet: &str, case: impl Fn(&Subject)) {
    if let Some(original) = original(applet, "runit") {
        case(&original);
    }
    case(&ours());
}

/// Prints (past libtest's capture) that something is not tested; with CI set that is a failure.
pub(crate) fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    let _ = std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes());
}

/// False, with a printed notice, when the case needs root and we are not root.
pub(crate) fn root_for(what: &str) -> bool {
    let root = getuid().is_root();
    if !root {
        skip(&format!("{what}: needs root"));
    }
    root
}

/// A directory that is removed at the end of the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch::below(&std::env::temp_dir())
    }

    pub(crate) fn below(dir: &Path) -> Scratch {
        // The name does not use our process id: another suite in a process id namespace of its own
        // could have the same.
        let unique = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let dir = dir.join(format!("netsv-tools-{}", &unique[..8]));
        fs::create_dir(&dir).unwrap();
        // Other users may enter, because some cases run as nobody.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        Scratch(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A started process and its standard input.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap()))
    }

    pub(crate) fn start_with(command: &mut Command, stdin: OwnedFd) -> Running {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(Some(command.spawn().unwrap()))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    pub(crate) fn write(&mut self, text: impl AsRef<[u8]>) {
        let stdin = self.child().stdin.as_mut().unwrap();
        stdin.write_all(text.as_ref()).unwrap();
        stdin.flush().unwrap();
    }

    /// Reads one line of standard error, byte by byte, so that nothing after it is lost.
    pub(crate) fn stderr_line(&mut self) -> String {
        read_line(self.child().stderr.as_mut().unwrap())
    }

    pub(crate) fn stdout_line(&mut self) -> String {
        read_line(self.child().stdout.as_mut().unwrap())
    }

    /// Sends a signal to a process that waits for something. runit looks at its flags and then
    /// waits: it sees a signal that comes in between only with the next input.
    pub(crate) fn signal(&mut self, signal: Signal) {
        let stat = format!("/proc/{}/stat", self.pid());
        let end = Instant::now() + LIMIT;
        while !fs::read_to_string(&stat).unwrap().contains(") S ") {
            assert!(Instant::now() < end, "still busy after {LIMIT:?}");
            std::thread::yield_now();
        }
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&mut self) -> Pid {
        Pid::from_raw(i32::try_from(self.child().id()).unwrap())
    }

    pub(crate) fn close_stdin(mut self) -> Running {
        drop(self.child().stdin.take());
        self
    }

    /// Closes its input and waits for it to end.
    pub(crate) fn finish(self) -> Output {
        self.close_stdin().wait()
    }

    /// Waits for it to end, with its input still open.
    pub(crate) fn wait(mut self) -> Output {
        let mut child = self.0.take().unwrap();
        let stdin = child.stdin.take();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || send.send(child.wait_with_output()));
        let output = receive.recv_timeout(LIMIT).unwrap_or_else(|_| {
            let _ = nix::sys::signal::killpg(pid, Signal::SIGKILL);
            panic!("process {pid} did not end within {LIMIT:?}");
        });
        drop(stdin);
        output.unwrap()
    }
}

impl Drop for Running {
    /// A failed case leaves no process behind.
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read_line(from: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while from.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Feeds `input` to a command and waits for it to end.
pub(crate) fn run(command: &mut Command, input: impl AsRef<[u8]>) -> Output {
    let mut running = Running::start(command);
    let mut stdin = running.child().stdin.take().unwrap();
    let input = input.as_ref().to_vec();
    // A thread writes the input, so that a program that does not read cannot block us. A program
    // that has ended gives EPIPE, which is no failure here.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = running.wait();
    feeder.join().unwrap();
    output
}

/// Waits until `holds`, looking again whenever something changes in `dir`.
pub(crate) fn wait_for(dir: &Path, what: &str, mut holds: impl FnMut() -> bool) {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).unwrap();
    let changes = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE;
    inotify.add_watch(dir, changes).unwrap();
    let end = Instant::now() + LIMIT;
    while !holds() {
        let left = end.checked_duration_since(Instant::now()).unwrap_or_else(|| panic!("{what}: not within {LIMIT:?}"));
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&inotify), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::try_from(left).unwrap()).unwrap();
        let _ = inotify.read_events();
    }
}

/// Permission bits.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Names in a directory that satisfy the filter, sorted.
pub(crate) fn names(dir: &Path, filter: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| filter(n))
        .collect();
    names.sort();
    names
}

/// `unshare` with a mount namespace of its own; it also works for users other than root.
pub(crate) fn unshare_mount(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("unshare");
    command.arg(if getuid().is_root() { "-m" } else { "-rm" }).arg(program).env("LC_ALL", "C").process_group();
    command
}

//! What is out of reach in the cage: each test enters it in a process of its own and tries.
//!
//! The daemons have nothing that would try: this is the proof that what /proc says of them
//! (tests/netns/cage.rs) means something.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]
#![allow(clippy::disallowed_methods, reason = "starts itself again, and tries to start programs")]

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

use netd::cage::{self, Capability, Files, Needs, Socket};
use netd::daemon::Log;
use nix::errno::Errno;
use nix::sys::signal::kill;

const MARK: &str = "NETD_TEST_CAGE";

/// Runs `test` in a process of its own, with a directory of its own, and gives what that said.
fn alone(name: &str, test: fn(&Path)) -> Option<String> {
    if let Some(dir) = std::env::var_os(MARK) {
        test(Path::new(&dir));
        return None;
    }
    let dir = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let Output { status, stdout, stderr } =
        command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, &dir).output().unwrap();
    fs::remove_dir_all(dir).unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{status}\n{said}");
    assert!(String::from_utf8(stdout).unwrap().contains("1 passed"), "{said}");
    Some(said)
}

fn needs(dir: &Path) -> Needs {
    Needs {
        capabilities: vec![Capability::NetRaw],
        sockets: vec![Socket::Udp],
        files: vec![Files::Directory(dir.join("records")), Files::ReadOnly("/proc/thread-self".into())],
        background: false,
    }
}

fn log() -> Log {
    Log::new("test", None, 1)
}

/// Fields of /proc/thread-self/status.
fn status() -> impl Fn(&str) -> u64 {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    move |name| {
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("{name}:"))).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    }
}

fn try_all(dir: &Path) {
    let records = dir.join("records");
    let outside = dir.join("outside");
    fs::write(&outside, "").unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let before = status();
    let parent = nix::unistd::getppid();
    cage::enter(&needs(dir), &log());

    let now = status();
    assert_eq!((now("NoNewPrivs"), now("Seccomp")), (1, 2));
    let net_raw = 1 << Capability::NetRaw as u32;
    for set in ["CapEff", "CapPrm"] {
        assert_eq!(now(set), before(set) & net_raw, "{set}");
    }
    assert_eq!((now("CapInh"), now("CapAmb")), (0, 0));
    if before("CapEff") != 0 {
        assert_eq!(now("CapBnd"), before("CapBnd") & net_raw);
    }

    // What is needed works.
    let (old, new) = (records.join(".a.tmp"), records.join("a"));
    File::create(&old).unwrap().write_all(b"x").unwrap();
    fs::rename(&old, &new).unwrap();
    assert_eq!(fs::read(&new).unwrap(), b"x");
    fs::remove_file(&new).unwrap();
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();

    // What is not, does not.
    let denied = |what: &str, done: std::io::Result<()>| {
        let e = done.expect_err(what);
        // musl says of any thread that fails that there is no room for it now.
        let known = [ErrorKind::PermissionDenied, ErrorKind::Unsupported, ErrorKind::WouldBlock];
        assert!(known.contains(&e.kind()), "{what}: {e}");
    };
    denied("a secret", File::open("/etc/shadow").map(drop));
    denied("a file that anybody may read", File::open("/etc/passwd").map(drop));
    denied("reading outside", File::open(&outside).map(drop));
    denied("writing outside", fs::write(&outside, "y"));
    denied("a new file outside", fs::write(dir.join("new"), "y"));
    denied("a directory", fs::create_dir(records.join("d")));
    denied("a link", std::os::unix::fs::symlink("/etc", records.join("l")));
    denied("another process", File::open("/proc/1/environ").map(drop));
    denied("a program", Command::new("/bin/true").spawn().map(drop));
    denied("a TCP connection", TcpStream::connect(listener.local_addr().unwrap()).map(drop));
    denied("a thread", std::thread::Builder::new().spawn(|| {}).map(drop));
    assert_eq!(kill(parent, None), Err(Errno::ENOSYS), "a signal");
    assert_eq!(nix::unistd::chroot("/"), Err(Errno::ENOSYS));
}

#[test]
fn files_programs_sockets_and_signals_that_are_not_needed_are_out_of_reach() {
    let said = alone("files_programs_sockets_and_signals_that_are_not_needed_are_out_of_reach", try_all);
    assert!(said.is_none_or(|said| !said.contains("cage:")), "everything is restricted here");
}

fn enter_twice(dir: &Path) {
    cage::enter(&needs(dir), &log());
    // In the first cage the system calls of a second are missing, as on a kernel without Landlock
    // and seccomp.
    cage::enter(&needs(dir), &log());
    fs::write(dir.join("records/a"), "x").unwrap();
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
}

#[test]
fn what_the_kernel_lacks_is_said_and_done_without() {
    let Some(said) = alone("what_the_kernel_lacks_is_said_and_done_without", enter_twice) else { return };
    for text in ["files are not restricted: no Landlock: ENOSYS", "system calls are not restricted: no seccomp: ENOSYS"]
    {
        assert_eq!(said.matches(text).count(), 1, "{said}");
    }
}

//! Programs are run outside the cage: by a process that was forked before the daemon entered it,
//! and that ends with the daemon.
//!
//! A shell. The daemon asks over a pair of sockets, the runner answers when the program has ended;
//! one at a time. The runner knows the program and its environment from before: what it takes from
//! the daemon is an event and checked variables (runner/request.rs). The daemon has no child of its
//! own. Called by sink.rs.
#![expect(clippy::disallowed_methods, reason = "the one place where a daemon's program is started")]

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, setsockopt, shutdown, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};
use tokio::io::unix::AsyncFd;

use crate::cage::sys;
use crate::daemon::let_go;
use crate::ready::watch;

use netd_core::request::{self, Request};

/// The runner must outlive what ends the daemon: it still has to run the last program. Its name is
/// the daemon's to killall(1).
const OUTLIVED: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];
/// How long a runner that has nothing else to do may take to go to the background.
const BACKGROUND_SECS: i64 = 5;

/// A program, as it is known before anything was heard from outside.
#[derive(Clone, Debug)]
pub struct Program {
    /// Searched in PATH when there is no slash in it.
    pub path: OsString,
    /// Its arguments before the event.
    pub before: Vec<OsString>,
    /// Its arguments after the event.
    pub after: Vec<OsString>,
    /// All of its environment, but for what comes with the event.
    pub env: Vec<(OsString, OsString)>,
}

/// Variables of ours that a script gets; a `*` at the end stands for anything. The two last lines
/// are the callers' own, for the script that is theirs, too: ifupdown of Debian (its interfaces(5))
/// and of Alpine (its default.script reads IF_METRIC), and OpenWrt's netifd (its dhcp.script sends
/// all to the interface $INTERFACE).
const PASSED: &str = "
    PATH HOME USER SHELL TERM TZ LANG LC_* TMPDIR SVDIR FW_*
    IF_* IFACE LOGICAL ADDRFAM METHOD CLASS MODE PHASE VERBOSITY VERBOSE INTERFACES_FILE
    INTERFACE IFACE6RD IFACE6RD_DELEGATE ZONE ZONE6RD MTU6RD CUSTOMROUTES
";

impl Program {
    /// `path EVENT`, with what is passed on of our environment; `pass` names more of that. The rest
    /// of a script's environment is built: a variable that a server did not send is never another
    /// program's.
    pub fn script(path: OsString, pass: &[String]) -> Program {
        let env = std::env::vars_os().filter(|(name, _)| is_passed(name, pass)).collect();
        Program { path, before: Vec::new(), after: Vec::new(), env }
    }
}

fn is_passed(name: &OsStr, pass: &[String]) -> bool {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.as_bytes().starts_with(prefix.as_bytes()),
        None => name.as_bytes() == pattern.as_bytes(),
    };
    PASSED.split_ascii_whitespace().any(matches) || pass.iter().any(|p| matches(p))
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be started: errno.
    NotStarted(i32),
    /// The runner did not accept the request.
    Refused,
}

impl Outcome {
    fn encode(self) -> [u8; 5] {
        let (letter, n) = match self {
            Outcome::Code(n) => (b'c', n),
            Outcome::Signal(n) => (b's', n),
            Outcome::NotStarted(n) => (b'n', n),
            Outcome::Refused => (b'r', 0),
        };
        let [a, b, c, d] = n.to_ne_bytes();
        [letter, a, b, c, d]
    }

    fn decode([letter, a, b, c, d]: [u8; 5]) -> Outcome {
        let n = i32::from_ne_bytes([a, b, c, d]);
        match letter {
            b'c' => Outcome::Code(n),
            b's' => Outcome::Signal(n),
            b'n' => Outcome::NotStarted(n),
            _ => Outcome::Refused,
        }
    }
}

/// The daemon's end.
pub struct Runner {
    socket: Asking,
    pid: Pid,
    program: OsString,
    busy: bool,
}

/// The socket, before and after a runtime watches it.
enum Asking {
    Plain(OwnedFd),
    Watched(AsyncFd<OwnedFd>),
}

impl Asking {
    fn fd(&self) -> &OwnedFd {
        match self {
            Asking::Plain(fd) => fd,
            Asking::Watched(fd) => fd.get_ref(),
        }
    }
}

impl Runner {
    /// Forks it. To be called first of all: before other descriptors are open, which it would hold,
    /// and with one thread. `applet`: whose it is, for ps(1).
    pub fn start(applet: &str, program: Program) -> io::Result<Runner> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(io::Error::from)?;
        match sys::fork()? {
            ForkResult::Parent { child } => {
                setsockopt(&ours, sockopt::ReceiveTimeout, &TimeVal::seconds(BACKGROUND_SECS))?;
                Ok(Runner { socket: Asking::Plain(ours), pid: child, program: program.path, busy: false })
            }
            ForkResult::Child => {
                drop(ours);
                if let Ok(name) = CString::new(format!("{applet}-script")) {
                    let _ = nix::sys::prctl::set_name(&name);
                }
                let _ = sys::outlive(&OUTLIVED);
                let Err(_) = serve(&theirs, &program);
                std::process::exit(0)
            }
        }
    }

    /// Lets the current tokio runtime watch for its answers.
    pub fn watched(mut self) -> io::Result<Runner> {
        if let Asking::Plain(fd) = &self.socket {
            self.socket = Asking::Watched(watch(fd.try_clone()?)?);
        }
        Ok(self)
    }

    /// The program, for messages.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// Starts the program. While one runs, this is for a daemon that ends and waits for no answer:
    /// it is started after that one. What cannot be asked for is an error; that it cannot be
    /// started comes later.
    pub fn run(&mut self, event: &str, env: &[(String, Vec<u8>)]) -> io::Result<()> {
        self.ask(&request::run(event, env))?;
        self.busy = true;
        Ok(())
    }

    /// The end of the program that runs. An error: the runner is gone, which is noticed while
    /// nothing runs, too. Safe to drop.
    pub async fn ended(&mut self) -> io::Result<Outcome> {
        let Asking::Watched(fd) = &self.socket else { return std::future::pending().await };
        let mut answer = [0; 5];
        let len = loop {
            let mut ready = fd.readable().await?;
            let read = |fd: &AsyncFd<OwnedFd>| Ok(recv(fd.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?);
            if let Ok(done) = ready.try_io(read) {
                break done?;
            }
        };
        self.busy = false;
        if len == answer.len() { Ok(Outcome::decode(answer)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Sends it to the background: its 0, 1 and 2, which its programs get, are /dev/null then. It
    /// must not be busy.
    pub fn background(&self) -> io::Result<()> {
        self.ask(request::BACKGROUND)?;
        let mut answer = [0; 5];
        match recv(self.socket.fd().as_raw_fd(), &mut answer, MsgFlags::empty())? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// It reads whenever no program runs, so this does not wait.
    fn ask(&self, request: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.socket.fd().as_raw_fd(), request, flags)?;
        Ok(())
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = shutdown(self.socket.fd().as_raw_fd(), Shutdown::Both);
        // It ends at once, and is not left to an init that may not look after it. After going to
        // the background it is not our child; one whose program runs on is not waited for.
        if !self.busy {
            let _ = waitpid(self.pid, None);
        }
    }
}

/// The runner's life: until the daemon is gone.
fn serve(socket: &OwnedFd, program: &Program) -> Result<Infallible, Errno> {
    let fd = socket.as_raw_fd();
    loop {
        // Its length first: a buffer for the longest would be most of the memory that this process
        // has for itself.
        let len = read(fd, &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?;
        if len == 0 {
            return Err(Errno::EPIPE);
        }
        let mut buffer = vec![0; len.min(request::MAX + 1)];
        let len = read(fd, &mut buffer, MsgFlags::empty())?;
        let ended = match request::parse(buffer.get(..len).unwrap_or_default()) {
            Some(Request::Run { event, env }) => execute(program, event, &env),
            Some(Request::Background) => to_background(),
            None => Outcome::Refused,
        };
        // A daemon that is gone may have left another request, which is read before the end.
        let _ = send(fd, &ended.encode(), MsgFlags::MSG_NOSIGNAL);
    }
}

/// recv(2). When the daemon ends with an answer of ours unread, the kernel reports ECONNRESET once,
/// before it hands out the last request, which is still in the queue.
fn read(fd: RawFd, buffer: &mut [u8], flags: MsgFlags) -> Result<usize, Errno> {
    loop {
        match recv(fd, buffer, flags) {
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            len => return len,
        }
    }
}

fn execute(program: &Program, event: &str, env: &[(&str, &[u8])]) -> Outcome {
    let mut command = Command::new(&program.path);
    command.args(&program.before).arg(event).args(&program.after);
    command.env_clear().envs(program.env.iter().map(|(n, v)| (n, v)));
    command.envs(env.iter().map(|(name, value)| (name, OsStr::from_bytes(value))));
    match command.status() {
        Ok(status) => status.signal().map_or_else(|| Outcome::Code(status.code().unwrap_or(0)), Outcome::Signal),
        Err(e) => Outcome::NotStarted(e.raw_os_error().unwrap_or(Errno::EINVAL as i32)),
    }
}

fn to_background() -> Outcome {
    // Fails when we lead a process group, which is no harm.
    let _ = nix::unistd::setsid();
    let_go(true).map_or(Outcome::Refused, |()| Outcome::Code(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_to_pass() {
        let pass = ["MY_*".to_owned(), "ONE".to_owned()];
        for (name, want) in
            [("PATH", true), ("FW_DYNAMIC", true), ("MY_X", true), ("ONE", true), ("ONES", false), ("router", false)]
        {
            assert_eq!(is_passed(OsStr::new(name), &pass), want, "{name}");
        }
    }
}

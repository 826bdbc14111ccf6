//! What every daemon does the same way: its log lines, its pidfile, going to the background,
//! signals.
//!
//! Log lines go to stderr without time stamps (svlogd adds them), as `udhcpc: eth0: text`.

use std::cell::OnceCell;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, IsTerminal, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

pub use netd_core::complaints::Complaints;
pub use nix::sys::signal::Signal;
use tokio::io::unix::AsyncFd;

use crate::disk;
use crate::ready::watch;

/// Log prefix and verbosity of one daemon.
#[derive(Clone, Debug)]
pub struct Log {
    prefix: String,
    /// Number of `-v` given.
    pub verbosity: u8,
    /// A socket, and whom it writes to.
    syslog: Option<(Arc<UnixDatagram>, &'static str)>,
}

/// syslog(3): facility daemon (3), priority info (6).
const SYSLOG_PRIORITY: u8 = 3 * 8 + 6;

impl Log {
    /// `applet` and, when it serves one, the interface.
    pub fn new(applet: &str, interface: Option<&str>, verbosity: u8) -> Log {
        let prefix = interface.map_or_else(|| format!("{applet}: "), |i| format!("{applet}: {i}: "));
        Log { prefix, verbosity, syslog: None }
    }

    /// The same lines to /dev/log as well, whenever a syslogd reads there: it may begin later, and
    /// another may come after it.
    pub fn with_syslog(self) -> io::Result<Log> {
        self.with_syslog_at("/dev/log")
    }

    fn with_syslog_at(mut self, path: &'static str) -> io::Result<Log> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        self.syslog = Some((Arc::new(socket), path));
        Ok(self)
    }

    /// One line, always.
    pub fn info(&self, text: impl fmt::Display) {
        // Not eprintln: a log that went away is no reason to panic.
        let line = format!("{}{text}\n", self.prefix);
        let _ = io::stderr().write_all(line.as_bytes());
        if let Some((syslog, path)) = &self.syslog {
            let _ = syslog.send_to(format!("<{SYSLOG_PRIORITY}>{}", line.trim_end()).as_bytes(), path);
        }
    }

    /// One line when this is a new reason why `what` is wrong.
    pub fn wrong(&self, complaints: &mut Complaints, what: &str, text: &str) {
        if complaints.wrong(what, text) {
            self.info(text);
        }
    }

    /// One line when at least one `-v` was given.
    pub fn debug(&self, text: impl fmt::Display) {
        if self.verbosity > 0 {
            self.info(text);
        }
    }
}

/// A pidfile that is removed when this is dropped; the default has none.
///
/// It is put in its place by the replacer: a link there is not followed. From then on it is written
/// through its descriptor, which the cage cannot refuse, and it is removed only while it is still
/// ours.
#[derive(Debug, Default)]
pub struct Pidfile {
    path: Option<PathBuf>,
    ours: OnceCell<File>,
}

impl Pidfile {
    /// A file to be written by [`Pidfile::write`].
    pub fn new(path: Option<PathBuf>) -> Pidfile {
        Pidfile { path, ours: OnceCell::new() }
    }

    /// Writes the id of this process, again after [`background`].
    pub fn write(&self) -> io::Result<()> {
        // As for the original, a device (/dev/null) means that no pidfile is wanted.
        let path = self.path.as_deref().filter(|path| disk::spare_device(path).is_ok());
        let Some(path) = path else { return Ok(()) };
        let text = format!("{}\n", std::process::id());
        match self.ours.get() {
            Some(mut file) => {
                file.set_len(0)?;
                file.rewind()?;
                file.write_all(text.as_bytes())
            }
            None => {
                let file = disk::replace_open(path, text.as_bytes(), None)?;
                let _ = self.ours.set(file);
                Ok(())
            }
        }
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        let identity = |found: Metadata| (found.dev(), found.ino());
        if let (Some(path), Some(file)) = (&self.path, self.ours.get())
            && let (Ok(there), Ok(ours)) = (path.symlink_metadata().map(identity), file.metadata().map(identity))
            && there == ours
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// Runs a daemon to its exit code, in a runtime of its own. The caller pins the future (`pin!`):
/// as a value it would be on the stack twice, and these are pages of each daemon for good.
pub fn block_on(daemon: Pin<&mut dyn Future<Output = io::Result<u8>>>) -> io::Result<u8> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(daemon)
}

/// Goes to the background: a new session, 0, 1 and 2 on /dev/null, the directory kept. The parent
/// exits 0 without running destructors. Sockets and a current-thread runtime live on in the child;
/// a running child process would not.
pub fn background() -> io::Result<()> {
    nix::unistd::daemon(true, false).map_err(io::Error::from)
}

/// As [`background`], for a daemon whose only log is standard error: that stays where it is, unless
/// it is a pipe or a socket, whose end the caller may wait for (`x=$(daemon 2>&1)`).
pub fn background_with_log() -> io::Result<()> {
    nix::unistd::daemon(true, true)?;
    let_go(!is_log())
}

/// Standard input and output, and standard error if `errors`, lead to /dev/null from here on.
pub fn let_go(errors: bool) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    if errors {
        nix::unistd::dup2_stderr(&null)?;
    }
    Ok(())
}

/// Whether standard error is a file or a terminal.
pub fn is_log() -> bool {
    let stderr = io::stderr();
    let file = || stderr.as_fd().try_clone_to_owned().map(File::from)?.metadata();
    stderr.is_terminal() || file().is_ok_and(|found| found.is_file())
}

/// Closes what the caller has left open beside 0, 1 and 2. A process that lives on in the
/// background would hold it: a pipe whose end the caller waits for, a lock of flock(1). busybox
/// does so, too. To be called first of all, by a daemon that may go to the background.
pub fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let number = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<i32>().ok();
    let open: Vec<i32> = entries.filter_map(number).filter(|fd| *fd > 2).collect();
    for fd in open {
        // EBADF for the one that the list was read by.
        let _ = nix::unistd::close(fd);
    }
}

/// What ends a daemon, and what its user tells it.
pub const USUAL: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals as a stream: supervise's pipe. The runtime's own way costs 40 kB of memory, for a
/// channel per possible signal.
pub struct Signals {
    pipe: AsyncFd<OwnedFd>,
}

impl Signals {
    /// From here on these do not kill. Must be called inside a tokio runtime, once in a process.
    pub fn new(signals: &[Signal]) -> io::Result<Signals> {
        Ok(Signals { pipe: watch(applet::sys::signal_pipe(signals)?)? })
    }

    /// Waits for the next one. Safe to drop and to call again.
    pub async fn next(&mut self) -> Signal {
        loop {
            let Ok(mut ready) = self.pipe.readable().await else { return std::future::pending().await };
            let mut number = [0];
            let read = ready.try_io(|pipe| nix::unistd::read(pipe.get_ref(), &mut number).map_err(io::Error::from));
            // Otherwise it was interrupted by the very signal, or not ready after all.
            if let Ok(Ok(1)) = read
                && let Ok(signal) = Signal::try_from(i32::from(number[0]))
            {
                return signal;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pidfile_is_written_and_goes_away() {
        let path = std::env::temp_dir().join(format!("pidfile-test-{}", std::process::id()));
        let file = Pidfile::new(Some(path.clone()));
        assert!(!path.exists());
        file.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_pidfile_replaces_a_link_and_one_of_another_process_is_left() {
        let dir = std::env::temp_dir().join(format!("pidfile-link-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let [path, passwd] = ["x.pid", "passwd"].map(|name| dir.join(name));
        let own = format!("{}\n", std::process::id());
        fs::write(&passwd, "root").unwrap();
        std::os::unix::fs::symlink(&passwd, &path).unwrap();
        let file = Pidfile::new(Some(path.clone()));
        for _ in 0..2 {
            file.write().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), own);
        }
        assert_eq!(fs::read_to_string(&passwd).unwrap(), "root");
        let later = Pidfile::new(Some(path.clone()));
        later.write().unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), own, "the later one's");
        drop(later);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_device_is_no_pidfile() {
        let path = std::env::temp_dir().join(format!("pidfile-device-{}", std::process::id()));
        let mode = nix::sys::stat::Mode::S_IRWXU;
        nix::sys::stat::mknod(&path, nix::sys::stat::SFlag::S_IFCHR, mode, 0).unwrap();
        let file = Pidfile::new(Some(path.clone()));
        file.write().unwrap();
        drop(file);
        assert!(disk::spare_device(&path).is_err(), "it is a device still");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_syslogd_may_come_later_and_go() {
        let path = std::env::temp_dir().join(format!("syslog-test-{}", std::process::id()));
        let log = Log::new("udhcpc", Some("eth0"), 0).with_syslog_at(path.to_str().unwrap().to_owned().leak()).unwrap();
        log.info("lost");
        for words in ["the first", "the one after it"] {
            let syslogd = UnixDatagram::bind(&path).unwrap();
            log.info(words);
            let mut line = [0; 100];
            let len = syslogd.recv(&mut line).unwrap();
            assert_eq!(String::from_utf8_lossy(&line[..len]), format!("<30>udhcpc: eth0: {words}"));
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn signals_arrive_as_events() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let mut signals = Signals::new(&[Signal::SIGUSR1]).unwrap();
            nix::sys::signal::raise(Signal::SIGUSR1).unwrap();
            assert_eq!(signals.next().await, Signal::SIGUSR1);
        });
    }
}

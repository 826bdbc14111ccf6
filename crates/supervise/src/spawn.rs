//! Starting a process under supervision, so that there is never one without a record: the child
//! writes its own, and only then executes the program.
//!
//! The child shares our memory and our descriptors while we stand still (vfork(2)'s way, as
//! posix_spawn(3) goes it): nothing is copied. So it holds supervise/lock until it has written the
//! record: where a supervisor is killed right here, the next one gets the lock only when the record
//! is there. What it is not: what is started and with what (unit/start.rs and
//! runsvdir/runners.rs, which call this).

use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, open, renameat};
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd;

use crate::{instance, sys};

/// What is to be started.
pub(crate) struct Plan<'a> {
    program: CString,
    args: Vec<CString>,
    dir: CString,
    /// Its 0 and 1, where they are not ours.
    pub(crate) stdin: Option<BorrowedFd<'a>>,
    pub(crate) stdout: Option<BorrowedFd<'a>>,
    /// A descriptor that it gets as this number.
    pub(crate) pass: Option<(OwnedFd, i32)>,
    /// An open cgroup.procs: it will be in that group.
    pub(crate) cgroup: Option<OwnedFd>,
    /// It starts a session of its own.
    pub(crate) session: bool,
    /// A signal that waits until the program is ready for it, and unblocks it.
    pub(crate) held: Option<Signal>,
    /// Its limit of open descriptors: soft, hard.
    pub(crate) limit: Option<(u64, u64)>,
    /// `NAME=VALUE`, in place of any other value of that name in our environment.
    variable: Option<CString>,
    record: Option<Record>,
}

struct Record {
    new: CString,
    path: CString,
    /// All of it but for what only the child knows.
    text: String,
}

/// What was started.
pub(crate) struct Started {
    /// Its process id.
    pub(crate) pid: u32,
    /// Field 22 of its /proc/PID/stat; 0 when that could not be read.
    pub(crate) starttime: u64,
    /// It has written its record, all of it.
    pub(crate) recorded: bool,
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| io::Error::from(Errno::EINVAL))
}

/// By this variable a script learns the name that its service was called by: where several
/// directories are links to one, the directory does not tell it.
pub(crate) const NAME: &str = "RUNSV_NAME";

/// The name of a service that is called `dir`: its last component.
pub(crate) fn called(dir: &Path) -> io::Result<OsString> {
    match dir.file_name() {
        Some(last) => Ok(last.to_owned()),
        // `runsv .`
        None => Ok(dir.canonicalize()?.file_name().unwrap_or_default().to_owned()),
    }
}

impl<'a> Plan<'a> {
    /// The file `program`, called `words`, in `dir`, below which it is looked for.
    pub(crate) fn new<'w>(
        program: &Path,
        words: impl IntoIterator<Item = &'w OsStr>,
        dir: &Path,
    ) -> io::Result<Plan<'a>> {
        Ok(Plan {
            program: c_string(program.as_os_str())?,
            args: words.into_iter().map(c_string).collect::<io::Result<_>>()?,
            dir: c_string(dir.as_os_str())?,
            stdin: None,
            stdout: None,
            pass: None,
            cgroup: None,
            session: false,
            held: None,
            limit: None,
            variable: None,
            record: None,
        })
    }

    /// Before it executes, the child replaces the record `path` by `text` and what only it knows,
    /// see [`instance::own_words`].
    pub(crate) fn record(&mut self, path: &Path, text: String) -> io::Result<()> {
        let new = [path.as_os_str(), OsStr::new(".new")].into_iter().collect::<OsString>();
        self.record = Some(Record { new: c_string(&new)?, path: c_string(path.as_os_str())?, text });
        Ok(())
    }

    /// It gets [`NAME`], for the service in the working directory that is called `dir`.
    pub(crate) fn name(&mut self, dir: &Path) -> io::Result<()> {
        // Relative to where we were when we were called; now that is here. A directory whose name
        // the system cannot tell has an empty one: that must not keep it from starting.
        let name = called(if dir.file_name().is_some() { dir } else { Path::new(".") }).unwrap_or_default();
        self.variable = Some(c_string(&[OsStr::new(NAME), OsStr::new("="), &name].into_iter().collect::<OsString>())?);
        Ok(())
    }

    /// Starts it. An error is that of the first step that failed, the last of which is execve(2).
    pub(crate) fn spawn(self) -> io::Result<Started> {
        // The pointers that execve(2) takes: the child must not allocate.
        let argv = sys::Pointers::to(&self.args);
        let envp = self.variable.as_ref().map(sys::Pointers::environment_with);
        let (starttime, recorded, failed) = (Cell::new(0), Cell::new(false), Cell::new(Errno::UnknownErrno));
        let mut child = || {
            let error = self.prepare(&starttime, &recorded).err();
            failed.set(error.unwrap_or_else(|| sys::execve(&self.program, &argv, envp.as_ref())));
            // As a shell says it. It is not looked at.
            127
        };
        let pid = sys::vfork(&mut child)?;
        if failed.get() != Errno::UnknownErrno {
            sys::wait(pid);
            return Err(failed.get().into());
        }
        Ok(Started { pid, starttime: starttime.get(), recorded: recorded.get() })
    }

    /// In the child: it allocates nothing and leaves nothing of ours changed but what it is told
    /// to.
    fn prepare(&self, starttime: &Cell<u64>, recorded: &Cell<bool>) -> nix::Result<()> {
        if self.session {
            unistd::setsid()?;
        }
        if let Some(procs) = &self.cgroup {
            unistd::write(procs, b"0")?;
        }
        if let Some(record) = &self.record {
            recorded.set(record.write(starttime));
        }
        sys::own_descriptors(self.highest() + 1)?;
        if let Some(stdin) = self.stdin {
            unistd::dup2_stdin(stdin)?;
        }
        if let Some(stdout) = self.stdout {
            unistd::dup2_stdout(stdout)?;
        }
        unistd::chdir(self.dir.as_c_str())?;
        if let Some((fd, number)) = &self.pass {
            sys::give(fd, *number)?;
        }
        if let Some((soft, hard)) = self.limit {
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
        }
        sys::clean_signals(self.held)
    }

    /// The last descriptor that the child needs.
    fn highest(&self) -> RawFd {
        let given = [self.stdin, self.stdout, self.pass.as_ref().map(|(fd, _)| fd.as_fd())];
        given.into_iter().flatten().map(|fd| fd.as_raw_fd()).fold(libc::STDERR_FILENO, RawFd::max)
    }
}

impl Record {
    /// Whether it is written. One that cannot be (a full disk) is no reason not to start.
    fn write(&self, starttime: &Cell<u64>) -> bool {
        let mut buffer = [0; 1024];
        let stat = read(c"/proc/self/stat", &mut buffer).unwrap_or_default();
        starttime.set(std::str::from_utf8(stat).ok().and_then(instance::parse_starttime).unwrap_or(0));
        let mut record = [0; instance::LONGEST + 1];
        let mut rest = record.as_mut_slice();
        let (pid, start) = (std::process::id(), starttime.get());
        let written = rest.write_all(self.text.as_bytes()).and_then(|()| instance::own_words(&mut rest, pid, start));
        let (Ok(()), Ok(record)) = (written, CStr::from_bytes_until_nul(&record)) else { return false };
        let (new, path) = (self.new.as_c_str(), self.path.as_c_str());
        let link = || unistd::symlinkat(record, AT_FDCWD, new);
        // A child that was killed here has left one.
        let made = link().or_else(|_| unistd::unlink(new).and_then(|()| link()));
        made.and_then(|()| renameat(AT_FDCWD, new, AT_FDCWD, path)).is_ok() && start != 0
    }
}

fn read<'b>(path: &CStr, buffer: &'b mut [u8]) -> nix::Result<&'b [u8]> {
    let file = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let n = unistd::read(&file, buffer)?;
    Ok(buffer.get(..n).unwrap_or_default())
}

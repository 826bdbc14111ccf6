//! One supervised process on the disk and in the process table: its machine ([`Service`]), the files of its supervise/
//! directory, and the doing of its actions.
//!
//! What it is not: deciding (service.rs) or waiting (runsv.rs, which calls this, for the service and for its log).
#![expect(clippy::disallowed_methods, reason = "starts processes, stamps the status with the wall clock")]

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc::O_NONBLOCK;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::control::{Command, RunState, ServiceDir, Status, Tai64n, Want, error_text};
use crate::instance::{self, Instance};
use crate::service::{Action, Event, Exit, Found, Role, Service};
use crate::{say, sys};

/// A fatal error with its text, worded as runit words it.
pub(crate) struct Fatal(pub(crate) String);

/// Adds what was tried to an error.
pub(crate) fn unable<T>(what: impl std::fmt::Display, result: io::Result<T>) -> Result<T, Fatal> {
    result.map_err(|e| Fatal(format!("unable to {what}: {}", error_text(&e))))
}

/// Where a child's 0 and 1 come from, besides runsv's own.
#[derive(Default)]
pub(crate) struct Wiring {
    /// The log pipe's read end, for the log.
    pub(crate) stdin: Option<OwnedFd>,
    /// The log pipe's write end, for the service.
    pub(crate) stdout: Option<OwnedFd>,
}

/// Commands left in the fifo while this many wait for a control script: 4096 of them are the fifo's own measure.
const QUEUE_LIMIT: usize = 4096;

/// One process under supervision.
pub(crate) struct Unit {
    pub(crate) service: Service,
    /// `.` or `log`: the working directory of what is started.
    dir: PathBuf,
    /// For messages: the service as it was named.
    name: String,
    control: File,
    /// Kept so that the fifos never reach their end.
    _held: [File; 2],
    _lock: Flock<File>,
    stamp: Tai64n,
    /// What supervise/pid says, if we wrote it.
    saved_pid: Option<Option<u32>>,
    dirty: bool,
    /// The last warning about writing supervise/: said once, not at every change.
    complaint: Option<String>,
    /// The control script that runs.
    script: Option<u32>,
    /// An adopted process is not our child: it is watched by this.
    adopted: Option<OwnedFd>,
    boot: String,
    pub(crate) wiring: Wiring,
}

impl Unit {
    /// Makes or takes over supervise/ below `dir`. For the log the lock is waited for, as runit does.
    pub(crate) fn open(dir: &Path, name: &str, role: Role) -> Result<Unit, Fatal> {
        let shown = |file: &str| match role {
            Role::Main => format!("supervise{file}"),
            Role::Log => format!("log/supervise{file}"),
        };
        unable(format!("create {}", shown("")), make_supervise(dir))?;
        let at = |file: &str| dir.join("supervise").join(file);
        let mut create = OpenOptions::new();
        create.append(true).create(true).mode(0o600);
        let lock = unable(format!("open {}", shown("/lock")), create.open(at("lock")))?;
        let how = match role {
            Role::Main => FlockArg::LockExclusiveNonblock,
            Role::Log => FlockArg::LockExclusive,
        };
        let lock = Flock::lock(lock, how).map_err(|(_, e)| e.into());
        let lock = unable(format!("lock {}", shown("/lock")), lock)?;
        let [control, control_writer] = open_fifo(&at("control"), &shown("/control"))?;
        let [ok, _] = open_fifo(&at("ok"), &shown("/ok"))?;
        let want = if dir.join("down").exists() { Want::Down } else { Want::Up };
        let mut unit = Unit {
            service: Service::new(role, want),
            dir: dir.to_path_buf(),
            name: name.to_owned(),
            control,
            _held: [control_writer, ok],
            _lock: lock,
            stamp: Tai64n::from_system_time(SystemTime::now()),
            saved_pid: None,
            dirty: true,
            complaint: None,
            script: None,
            adopted: None,
            boot: instance::boot(),
            wiring: Wiring::default(),
        };
        unit.service = unit.inherit(role).unwrap_or(unit.service);
        // Before anything is started: a ./run that begins with `sv o .` reads the status.
        unit.save();
        Ok(unit)
    }

    /// What a killed runsv left behind; `None` when there was none, or it ended in order.
    fn inherit(&mut self, role: Role) -> Option<Service> {
        let left = instance::read(&self.at("instance"))?;
        // A status that cannot be read must not hide a process that lives.
        let status = ServiceDir::at(&self.dir).status().ok();
        self.stamp = status.map_or(self.stamp, |s| s.since);
        let found = match (left.alive(), left.state) {
            (true, _) => {
                // Between the look at its start time and this its number cannot have changed hands unseen: look again.
                let pidfd = sys::pidfd_open(left.pid).ok().filter(|_| left.alive());
                match pidfd {
                    Some(pidfd) => self.adopted = Some(pidfd),
                    None => self.end_orphan(&left),
                }
                match (&self.adopted, left.state) {
                    (Some(_), RunState::Finish) => Found::Finish { pid: left.pid, started: left.started() },
                    (Some(_), _) => Found::Run { pid: left.pid, started: left.started() },
                    (None, RunState::Run) => Found::RunEnded,
                    (None, _) => Found::Nothing,
                }
            }
            (false, RunState::Run) => Found::RunEnded,
            (false, RunState::Finish | RunState::Down) => Found::Nothing,
        };
        match found {
            Found::Run { pid, .. } => self.warn(&format!("the last runsv was killed: taking over ./run (pid {pid})")),
            Found::Finish { pid, .. } => {
                self.warn(&format!("the last runsv was killed: taking over ./finish (pid {pid})"));
            }
            Found::RunEnded | Found::Nothing => {}
        }
        let want = status.map_or(self.service.want(), |s| s.want);
        let (paused, got_term) = status.map_or((false, false), |s| (s.paused, s.got_term));
        Some(Service::adopt(role, want, paused, got_term, found))
    }

    /// A kernel without pidfd (before 5.3) cannot tell us its end: it must not live beside a second one.
    fn end_orphan(&self, left: &Instance) {
        self.warn(&format!("unable to watch the instance of the last runsv (pid {}): killing it", left.pid));
        let Ok(pid) = i32::try_from(left.pid) else { return };
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        while left.alive() {
            std::thread::yield_now();
        }
    }

    /// The record of a process that was adopted, for the search of the log pipe.
    pub(crate) fn left_behind(&self) -> Option<Instance> {
        self.adopted.as_ref()?;
        instance::read(&self.at("instance"))
    }

    fn at(&self, file: &str) -> PathBuf {
        self.dir.join("supervise").join(file)
    }

    pub(crate) fn warn(&self, text: &str) {
        say::error(format_args!("runsv {}: warning: {text}\n", self.name));
    }

    /// Takes an event, and does what follows from it until nothing follows.
    pub(crate) fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.service.step(sys::now(), event) {
                events.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Run => return Some(self.start(Process::new("./run"), "./run")),
            Action::Finish { code, status } => return Some(self.start_finish(code, status)),
            Action::Control(letter) => return self.start_control(letter),
            Action::Signal(command) => self.signal(command),
            Action::Stamp => self.stamp = Tai64n::from_system_time(SystemTime::now()),
            Action::Save => self.dirty = true,
            Action::Done => {}
        }
        None
    }

    fn spawn(&self, mut process: Process) -> io::Result<u32> {
        if let Some(stdin) = &self.wiring.stdin {
            process.stdin(Stdio::from(stdin.try_clone()?));
        }
        if let Some(stdout) = &self.wiring.stdout {
            process.stdout(Stdio::from(stdout.try_clone()?));
        }
        // Without pre_exec std uses posix_spawn(3): no copy of our page tables.
        process.current_dir(&self.dir).spawn().map(|child| child.id())
    }

    fn start(&mut self, process: Process, what: &str) -> Event {
        match self.spawn(process) {
            Ok(pid) => {
                let state = if what == "./finish" { RunState::Finish } else { RunState::Run };
                self.write_instance(state, pid);
                Event::Started { pid }
            }
            Err(e) if matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::EAGAIN | Errno::ENOMEM)) => {
                self.warn(&format!("unable to fork, pausing: {}", error_text(&e)));
                Event::ForkFailed
            }
            Err(e) => {
                say::error(format_args!("runsv {}: fatal: unable to start {what}: {}\n", self.name, error_text(&e)));
                Event::ExecFailed
            }
        }
    }

    fn start_finish(&mut self, code: i32, status: u8) -> Event {
        match File::open(self.dir.join("finish")) {
            Err(_) => Event::NoFinish,
            Ok(_) => {
                let mut process = Process::new("./finish");
                process.args([code.to_string(), status.to_string()]);
                self.start(process, "./finish")
            }
        }
    }

    fn start_control(&mut self, letter: u8) -> Option<Event> {
        let file = format!("control/{}", char::from(letter));
        let executable = fs::metadata(self.dir.join(&file)).is_ok_and(|m| m.permissions().mode() & 0o100 != 0);
        let script = if executable { self.spawn(Process::new(format!("./{file}"))) } else { return NOT_HANDLED };
        match script {
            Ok(pid) => {
                self.script = Some(pid);
                None
            }
            Err(e) => {
                self.warn(&format!("unable to run {file}: {}", error_text(&e)));
                NOT_HANDLED
            }
        }
    }

    fn signal(&self, command: Command) {
        let (Some(signal), Some(pid)) = (signal_of(command), self.service.running().1) else { return };
        let sent = match (&self.adopted, i32::try_from(pid)) {
            (Some(pidfd), _) => sys::pidfd_send_signal(pidfd.as_fd(), signal),
            // Our child: even if it has ended its number is not given away before we have waited for it.
            (None, Ok(pid)) => kill(Pid::from_raw(pid), signal).map_err(io::Error::from),
            (None, Err(_)) => Ok(()),
        };
        if let Err(e) = sent
            && e.raw_os_error() != Some(Errno::ESRCH as i32)
        {
            self.warn(&format!("unable to send signal: {}", error_text(&e)));
        }
    }

    /// A child of ours has ended; false when it is none of this unit's.
    pub(crate) fn reaped(&mut self, pid: u32, exit: Exit) -> bool {
        if self.script == Some(pid) {
            self.script = None;
            self.handle(Event::Control { handled: exit == Exit::Code(0) });
            return true;
        }
        let ours = self.adopted.is_none() && self.service.running().1 == Some(pid);
        if ours {
            self.handle(Event::Ended(exit));
        }
        ours
    }

    /// What tells of the end of an adopted process.
    pub(crate) fn adopted(&self) -> Option<&OwnedFd> {
        self.adopted.as_ref()
    }

    pub(crate) fn adopted_ended(&mut self) {
        self.adopted = None;
        self.handle(Event::Ended(Exit::Unknown));
    }

    /// The control fifo; `None` while enough commands wait, so that they stay there.
    pub(crate) fn control(&self) -> Option<&File> {
        (self.service.queued() < QUEUE_LIMIT).then_some(&self.control)
    }

    /// Reads what is in the control fifo and obeys it, byte by byte, in order.
    pub(crate) fn read_control(&mut self) {
        let mut buffer = [0; 256];
        let Ok(n) = self.control.read(&mut buffer) else { return };
        for command in buffer.iter().take(n).filter_map(|byte| Command::from_letter(*byte)) {
            self.handle(Event::Command(command));
        }
    }

    /// Writes pid, stat and status, in this order, if something changed.
    pub(crate) fn save(&mut self) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let (state, pid) = self.service.running();
        let status = Status {
            since: self.stamp,
            pid,
            paused: self.service.paused(),
            want: self.service.want(),
            got_term: self.service.got_term(),
            state,
        };
        let mut result = Ok(());
        if self.saved_pid != Some(pid) {
            let text = pid.map(|pid| format!("{pid}\n")).unwrap_or_default();
            result = self.replace("pid", text.as_bytes());
            self.saved_pid = result.is_ok().then_some(pid);
        }
        result = result.and(self.replace("stat", self.service.stat().as_bytes()));
        result = result.and(self.replace("status", &status.encode()));
        let complaint = result.err().map(|Fatal(text)| text);
        if let Some(text) = complaint.as_ref().filter(|text| self.complaint.as_ref() != Some(text)) {
            self.warn(text);
        }
        self.complaint = complaint;
    }

    /// All of the new content or all of the old: `FILE.new`, then rename.
    fn replace(&self, file: &str, content: &[u8]) -> Result<(), Fatal> {
        let new = self.at(&format!("{file}.new"));
        let result = fs::write(&new, content).and_then(|()| fs::rename(&new, self.at(file)));
        if result.is_err() {
            let _ = fs::remove_file(&new);
        }
        unable(format!("write supervise/{file}"), result)
    }

    pub(crate) fn write_instance(&self, state: RunState, pid: u32) {
        let starttime = instance::starttime(pid).unwrap_or(0);
        let pipe = [&self.wiring.stdin, &self.wiring.stdout].into_iter().flatten().next().map_or(0, inode);
        let one = Instance { state, pid, starttime, boot: self.boot.clone(), pipe };
        if let Err(Fatal(text)) = self.replace("instance", one.render().as_bytes()) {
            self.warn(&text);
        }
    }

    /// runsv ends in order: nothing is left to be taken over.
    pub(crate) fn close(&mut self) {
        self.save();
        let _ = fs::remove_file(self.at("instance"));
    }
}

/// The answer to [`Action::Control`] when there is no script.
const NOT_HANDLED: Option<Event> = Some(Event::Control { handled: false });

/// Inode of an open file; 0 when it cannot be told.
pub(crate) fn inode(fd: &OwnedFd) -> u64 {
    nix::sys::stat::fstat(fd).map_or(0, |s| s.st_ino)
}

fn signal_of(command: Command) -> Option<Signal> {
    match command {
        Command::Term => Some(Signal::SIGTERM),
        Command::Kill => Some(Signal::SIGKILL),
        Command::Pause => Some(Signal::SIGSTOP),
        Command::Continue => Some(Signal::SIGCONT),
        Command::Hangup => Some(Signal::SIGHUP),
        Command::Alarm => Some(Signal::SIGALRM),
        Command::Interrupt => Some(Signal::SIGINT),
        Command::Quit => Some(Signal::SIGQUIT),
        Command::Usr1 => Some(Signal::SIGUSR1),
        Command::Usr2 => Some(Signal::SIGUSR2),
        Command::Up | Command::Down | Command::Once | Command::Exit => None,
    }
}

/// supervise/ may be a symbolic link to a directory that is not there yet, on a tmpfs: the way to keep a read-only
/// root. Its parent must be there.
fn make_supervise(dir: &Path) -> io::Result<()> {
    let link = dir.join("supervise");
    let target = match fs::read_link(&link) {
        Ok(text) => dir.join(text),
        Err(_) => link,
    };
    match fs::DirBuilder::new().mode(0o700).create(target) {
        // What is wrong with it, if anything, shows when the lock is opened: as runit says it.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists || e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the fifo if needed; its read end, and a write end that keeps it from ever reaching end of file.
fn open_fifo(path: &Path, shown: &str) -> Result<[File; 2], Fatal> {
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return unable(format!("create {shown}"), Err(e.into())),
    }
    let found = unable(format!("stat {shown}"), fs::metadata(path))?;
    if !found.file_type().is_fifo() {
        return Err(Fatal(format!("{shown} exists but is not a fifo")));
    }
    let open = |options: &mut OpenOptions| options.custom_flags(O_NONBLOCK).open(path);
    let reader = unable(format!("open {shown}"), open(OpenOptions::new().read(true)))?;
    let writer = unable(format!("open {shown}"), open(OpenOptions::new().write(true)))?;
    Ok([reader, writer])
}

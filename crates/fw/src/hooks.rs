//! Hooks: programs of the administrator that run after a change that their file name asks for.
//!
//! Shell; news.rs decides who hears what. A run of fw writes down the state that it has made,
//! starts one process, and ends without waiting for it. That process, `fw hooks`, runs the hooks
//! one after the other. It notes for each hook what it was told when the hook has ended: a hook
//! that was killed with it runs again, and no change is lost. Called by run.rs and lib.rs.
#![expect(clippy::disallowed_methods, reason = "starts the hooks")]

use std::fs::{self, File, TryLockError};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use applet::control::error_text;
use netd::{clock, disk};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, setsid};

use crate::input::Paths;
use crate::report::{EXIT_ERRORS, EXIT_OK, Report};

pub mod news;

use news::{Change, Kind, Named, State};

/// How many seconds a hook may run, unless [`PATIENCE_VARIABLE`] says otherwise. A dynamic DNS
/// client waits for a server that does not answer about half as long.
const PATIENCE_SECS: u64 = 60;
const PATIENCE_VARIABLE: &str = "FW_HOOK_SECS";
/// Where programs are when the environment does not say so.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The hooks, and what they have been told.
struct Hooks {
    /// `hooks` beside fw.conf.
    programs: PathBuf,
    /// Where the states are.
    memory: PathBuf,
}

/// A hook.
struct Hook {
    name: String,
    kind: Kind,
}

impl Hooks {
    fn of(paths: &Paths) -> Hooks {
        Hooks { programs: paths.config.with_file_name("hooks"), memory: paths.dynamic.join(".hooks") }
    }

    /// The executables by name, and the names that say nothing.
    fn list(&self) -> (Vec<Hook>, Vec<String>) {
        let entries = fs::read_dir(&self.programs).into_iter().flatten().flatten();
        let is_executable =
            |path: &Path| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        let mut names: Vec<String> = entries
            .filter(|entry| is_executable(&entry.path()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        applet::sort::sort(&mut names);
        let (mut hooks, mut unknown) = (Vec::new(), Vec::new());
        for name in names {
            match Named::of(&name) {
                Named::Hook(kind) => hooks.push(Hook { name, kind }),
                Named::Aside => {}
                Named::Unknown => unknown.push(name),
            }
        }
        (hooks, unknown)
    }

    fn now(&self) -> State {
        state(&self.memory.join("now"))
    }

    fn told_file(&self, hook: &Hook) -> PathBuf {
        self.memory.join(format!("told-{}", hook.name))
    }

    fn changes(&self, hook: &Hook, now: &State) -> Vec<Change> {
        state(&self.told_file(hook)).changes(hook.kind, now)
    }

    fn is_pending(&self) -> bool {
        let now = self.now();
        self.list().0.iter().any(|hook| !self.changes(hook, &now).is_empty())
    }

    /// Runs every hook that has something to hear. `false`: a note could not be written, and the
    /// hook would run again and again.
    fn run(&self, paths: &Paths, ended: &OwnedFd) -> bool {
        for hook in self.list().0 {
            let now = self.now();
            for change in self.changes(&hook, &now) {
                if let Err(why) = self.execute(paths, &hook, &now, &change, ended) {
                    applet::say::error(format_args!("fw: hook {}: {why}\n", hook.name.escape_debug()));
                }
                let file = self.told_file(&hook);
                let told = state(&file).told(hook.kind, &change, &now);
                if let Err(e) = disk::replace(&file, told.render().as_bytes(), None) {
                    let why = format!("unable to write {}: {}", file.display(), error_text(&e));
                    applet::say::error(format_args!("fw: error: {why}\n"));
                    return false;
                }
            }
        }
        true
    }

    fn execute(&self, paths: &Paths, hook: &Hook, now: &State, change: &Change, ended: &OwnedFd) -> Result<(), String> {
        let mut command = Command::new(self.programs.join(&hook.name));
        command.env_clear().envs(inherited()).envs(now.environment(hook.kind, change));
        command.env("FW_DYNAMIC", &paths.dynamic).env("FW_ETC", &paths.etc);
        if let Some(directory) = self.programs.parent() {
            command.current_dir(directory);
        }
        // In a group of its own it can be killed with all that it has started.
        command.stdin(Stdio::null()).process_group(0);
        let mut child = command.spawn().map_err(|e| format!("unable to run: {}", error_text(&e)))?;
        match wait(&mut child, ended) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, signal) => format!("killed by signal {}", signal.unwrap_or_default()),
            }),
            None => {
                let group = i32::try_from(child.id()).map(Pid::from_raw);
                let _ = group.map(|group| killpg(group, Signal::SIGKILL));
                let _ = child.wait();
                Err(format!("killed: it ran for {} seconds", patience().as_secs()))
            }
        }
    }
}

fn state(file: &Path) -> State {
    State::parse(&fs::read_to_string(file).unwrap_or_default())
}

/// The variables of ours that a hook gets.
fn inherited() -> impl Iterator<Item = (&'static str, std::ffi::OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| PATH.into());
    [("PATH", Some(path)), ("SVDIR", std::env::var_os("SVDIR"))].into_iter().filter_map(|(n, v)| Some((n, v?)))
}

/// How long a hook may run.
fn patience() -> Duration {
    let asked = std::env::var(PATIENCE_VARIABLE).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.filter(|secs| *secs > 0).unwrap_or(PATIENCE_SECS))
}

/// Waits for the end of a hook, but not longer than [`patience`].
fn wait(child: &mut Child, ended: &OwnedFd) -> Option<ExitStatus> {
    let deadline = clock::now() + patience();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        let left = deadline.saturating_sub(clock::now());
        if left.is_zero() {
            return None;
        }
        // One more millisecond: a part of one would be cut to none, and the loop would spin.
        let left = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, left).is_ok_and(|ready| ready > 0) {
            let mut letters = [0; 64];
            let _ = nix::unistd::read(ended, &mut letters);
        }
    }
}

/// Writes down the state of a run that has hooks. Returns whether one of them has something to
/// hear. Without hooks nothing is read but the directory, and nothing is written.
pub fn note(paths: &Paths, now: impl FnOnce() -> State, report: &mut Report) -> bool {
    let hooks = Hooks::of(paths);
    let (list, unknown) = hooks.list();
    for name in unknown {
        report.note(&format!(
            "{}: the name of a hook begins with one of {}",
            hooks.programs.join(&name).display(),
            news::WORDS
        ));
    }
    if list.is_empty() {
        return false;
    }
    let now = now();
    if hooks.now() != now {
        let file = hooks.memory.join("now");
        let written =
            fs::create_dir_all(&hooks.memory).and_then(|()| disk::replace(&file, now.render().as_bytes(), None));
        report.check(&file, written);
    }
    hooks.is_pending()
}

/// Starts `fw hooks` and does not wait for it. Its words go where ours go, but not into a pipe of a
/// caller that waits for the end of our output; `is_service`: runsv holds that pipe.
pub fn start(paths: &Paths, is_service: bool, report: &mut Report) {
    let stderr = io::stderr();
    let is_file = || {
        let file = stderr.as_fd().try_clone_to_owned().map(File::from);
        file.and_then(|file| file.metadata()).is_ok_and(|found| found.is_file())
    };
    let keeps = is_service || stderr.is_terminal() || is_file();
    let output = || match stderr.as_fd().try_clone_to_owned() {
        Ok(fd) if keeps => Stdio::from(fd),
        Ok(_) | Err(_) => Stdio::null(),
    };
    let mut command = Command::new("/proc/self/exe");
    command.arg0("fw").arg("--dynamic").arg(&paths.dynamic).arg("--config").arg(&paths.config);
    command.arg("--etc").arg(&paths.etc).arg("hooks");
    command.stdin(Stdio::null()).stdout(output()).stderr(output());
    if let Err(e) = command.spawn() {
        report.error(&format!("unable to start the hooks: {}", error_text(&e)));
    }
}

/// `fw hooks`: runs the hooks that have something to hear. One process at a time does so: another
/// one that comes meanwhile ends at once, because the first one looks again when it is done.
pub fn run(paths: &Paths) -> Result<u8, String> {
    // A terminal that is closed must not end the hooks of a run that was called there. A command
    // that an administrator types is the leader of a group, and stays in its session.
    let _ = setsid();
    let hooks = Hooks::of(&absolute(paths)?);
    let paths = &absolute(paths)?;
    let system = |e: io::Error| format!("unable to run hooks: {}", error_text(&e));
    let ended = applet::sys::signal_pipe(&[Signal::SIGCHLD]).map_err(system)?;
    while hooks.is_pending() {
        let lock = File::options().create(true).append(true).open(hooks.memory.join("lock")).map_err(system)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(EXIT_OK),
            Err(TryLockError::Error(e)) => return Err(system(e)),
        }
        if !hooks.run(paths, &ended) {
            return Ok(EXIT_ERRORS);
        }
    }
    Ok(EXIT_OK)
}

/// The same paths for a program that runs in another directory.
fn absolute(paths: &Paths) -> Result<Paths, String> {
    let whole = |path: &Path| std::path::absolute(path).map_err(|e| format!("{}: {}", path.display(), error_text(&e)));
    Ok(Paths {
        static_dir: whole(&paths.static_dir)?,
        dynamic: whole(&paths.dynamic)?,
        config: whole(&paths.config)?,
        etc: whole(&paths.etc)?,
    })
}

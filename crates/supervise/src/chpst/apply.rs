//! What chpst does to its process, step by step, and the exec at the end.
//!
//! It is not: reading the command line (chpst.rs). Each step stands alone; [`run`] has their order,
//! which is part of the contract: session, environment, root, directory, priority, $UID, ids, lock,
//! descriptors, limits, program.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::libc::O_NONBLOCK;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chdir, chroot, close, execve, setgid, setgroups, setsid, setuid};

use super::accounts;
use super::{Account, EnvDir, Limit, Lock, Plan};
use crate::sys;
use applet::control::error_text;

/// chpst(8) of runit: 60 groups at the most.
const MAX_GROUPS: usize = 60;
/// Where programs are looked for when PATH is not set (runit's).
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Why the program was not run.
#[derive(Debug)]
pub(super) enum Stop {
    /// Fatal, with the text behind `chpst: fatal: `.
    Fatal(String),
    /// The lock is taken or cannot be opened, and setlock -x asks for a silent exit 0.
    NoLock,
}

fn fatal(what: impl AsRef<str>, error: impl Into<io::Error>) -> Stop {
    Stop::Fatal(format!("{}: {}", what.as_ref(), error_text(&error.into())))
}

type Environment = BTreeMap<OsString, OsString>;

/// Changes the process as planned and becomes the program.
pub(super) fn run(plan: &Plan) -> Result<Infallible, Stop> {
    let mut environment: Environment = std::env::vars_os().collect();
    // runit looks for the program where PATH pointed before -e changed it.
    let path = environment.get(OsStr::new("PATH")).cloned().unwrap_or_else(|| DEFAULT_PATH.into());
    if plan.session {
        // Fails when we lead a process group already: then there is nothing to do.
        let _ = setsid();
    }
    if let Some(dir) = &plan.envdir {
        read_envdir(dir, plan.verbose, &mut environment)?;
    }
    if let Some(root) = &plan.root {
        chdir(root.as_os_str()).map_err(|e| fatal(named("unable to change directory", root), e))?;
        chroot(".").map_err(|e| fatal("unable to change root directory", e))?;
    }
    if let Some(dir) = &plan.cwd {
        chdir(dir.as_os_str()).map_err(|e| fatal(named("unable to change directory", dir), e))?;
    }
    if let Some(increment) = plan.nice {
        sys::nice(increment).map_err(|e| fatal("unable to set nice level", e))?;
    }
    if let Some(account) = &plan.env_account {
        let ids = resolve(account)?;
        environment.insert("GID".into(), ids.gid().to_string().into());
        environment.insert("UID".into(), ids.uid.to_string().into());
    }
    if let Some(account) = &plan.account {
        become_account(&resolve(account)?)?;
    }
    if let Some(lock) = &plan.lock {
        take_lock(lock)?;
    }
    // Everything is put together before the limits: with little memory left there is no more
    // allocating.
    let program = Program::new(plan, &path, &environment)?;
    for (fd, name) in (0..).zip(["stdin", "stdout", "stderr"]) {
        if plan.close.contains(&fd)
            && let Err(e) = close(fd)
            && e != Errno::EBADF
        {
            return Err(fatal(format!("unable to close {name}"), e));
        }
    }
    for (resource, limit) in &plan.limits {
        set_limit(*resource, *limit)?;
    }
    Err(program.exec())
}

fn named(what: &str, name: &OsStr) -> String {
    format!("{what}: {}", name.to_string_lossy())
}

/// One variable per file: see chpst(8), `-e`.
fn read_envdir(dir: &EnvDir, verbose: bool, environment: &mut Environment) -> Result<(), Stop> {
    let cannot_switch = |e: io::Error| fatal(named("unable to switch to directory", &dir.path), e);
    for entry in fs::read_dir(&dir.path).map_err(cannot_switch)? {
        let name = entry.map_err(|e| fatal(named("unable to read directory", &dir.path), e))?.file_name();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        let shown = format!("unable to read {}/{}", dir.path.to_string_lossy(), name.to_string_lossy());
        match read(&Path::new(&dir.path).join(&name)) {
            Ok(content) => match value(content) {
                Some(value) => drop(environment.insert(name, value)),
                None => drop(environment.remove(&name)),
            },
            Err(e) if e.kind() == io::ErrorKind::IsADirectory && !dir.strict => {
                if verbose {
                    applet::say::error(format_args!("chpst: warning: {shown}: {}\n", error_text(&e)));
                }
            }
            Err(e) => return Err(fatal(shown, e)),
        }
    }
    Ok(())
}

/// A link that leads nowhere counts as an empty file, and so does a fifo without a writer.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    match fs::OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(content),
        opened => opened?.read_to_end(&mut content).map(|_| content),
    }
}

/// The value in a file: its first line without blanks at the end, zero bytes as newlines. `None`:
/// unset it.
fn value(content: Vec<u8>) -> Option<OsString> {
    if content.is_empty() {
        return None;
    }
    let mut line = content.split(|b| *b == b'\n').next().unwrap_or_default().to_vec();
    while line.last().is_some_and(|b| matches!(b, b' ' | b'\t')) {
        line.pop();
    }
    for byte in line.iter_mut().filter(|b| **b == 0) {
        *byte = b'\n';
    }
    Some(OsString::from_vec(line))
}

/// The ids of an account. The first group is the primary one, and these are all of the
/// supplementary groups.
#[derive(Debug, PartialEq, Eq)]
struct Ids {
    uid: Uid,
    primary: Gid,
    more: Vec<Gid>,
}

impl Ids {
    fn gid(&self) -> Gid {
        self.primary
    }
}

fn resolve(account: &Account) -> Result<Ids, Stop> {
    match account {
        Account::Numeric(text) => {
            numeric(text).ok_or_else(|| Stop::Fatal(format!("invalid uid/gids: {}", text.escape_debug())))
        }
        Account::Names(text) => {
            let mut parts = text.split(':');
            let unknown = || Stop::Fatal(format!("unknown user/group: {}", text.escape_debug()));
            let lookup = |e| fatal("unable to get password/group file entry", e);
            let user = accounts::user(parts.next().unwrap_or_default()).map_err(lookup)?.ok_or_else(unknown)?;
            let mut groups = Vec::new();
            for name in parts {
                groups.push(accounts::group(name).map_err(lookup)?.ok_or_else(unknown)?);
            }
            if groups.is_empty() {
                groups.push(user.gid);
            }
            ids(user.uid, groups).ok_or_else(unknown)
        }
        Account::User(name) => {
            let lookup = |e| fatal("unable to get password file entry", e);
            let user = accounts::user(name).map_err(lookup)?;
            let user = user.ok_or_else(|| Stop::Fatal(format!("unknown account: {}", name.escape_debug())))?;
            Ok(Ids { uid: user.uid, primary: user.gid, more: Vec::new() })
        }
    }
}

/// `uid:gid[:gid...]`; an empty part is not a number (runit takes it for 0: root).
fn numeric(text: &str) -> Option<Ids> {
    let mut parts = text.split(':').map(|part| {
        let digits = part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u32>().ok().filter(|id| digits && *id != u32::MAX)
    });
    let uid = Uid::from_raw(parts.next()??);
    ids(uid, parts.map(|gid| gid.map(Gid::from_raw)).collect::<Option<Vec<Gid>>>()?)
}

fn ids(uid: Uid, groups: Vec<Gid>) -> Option<Ids> {
    if groups.len() > MAX_GROUPS {
        return None;
    }
    let mut groups = groups.into_iter();
    let primary = groups.next()?;
    Some(Ids { uid, primary, more: groups.collect() })
}

fn become_account(ids: &Ids) -> Result<(), Stop> {
    let mut groups = vec![ids.primary];
    groups.extend(&ids.more);
    setgroups(&groups).map_err(|e| fatal("unable to setgroups", e))?;
    setgid(ids.primary).map_err(|e| fatal("unable to setgid", e))?;
    setuid(ids.uid).map_err(|e| fatal("unable to setuid", e))
}

/// The one descriptor that is not close-on-exec: the program holds the lock as long as it has it
/// open.
fn take_lock(lock: &Lock) -> Result<(), Stop> {
    let stop = |what: &str, e: Errno| {
        if lock.silent { Stop::NoLock } else { fatal(named(what, &lock.path), e) }
    };
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_NONBLOCK;
    let file = open(lock.path.as_os_str(), flags, Mode::from_bits_truncate(0o600))
        .map_err(|e| stop("unable to open lock", e))?;
    let how = if lock.wait { FlockArg::LockExclusive } else { FlockArg::LockExclusiveNonblock };
    let held = Flock::lock(file, how).map_err(|(_, e)| stop("unable to lock", e))?;
    std::mem::forget(held);
    Ok(())
}

fn set_limit(resource: Resource, limit: Limit) -> Result<(), Stop> {
    let (_, hard) = getrlimit(resource).map_err(|e| fatal("unable to getrlimit()", e))?;
    let soft = match limit {
        Limit::Hard => hard,
        Limit::To(bytes) => bytes.min(hard),
    };
    setrlimit(resource, soft, hard).map_err(|e| fatal("unable to setrlimit()", e))
}

/// A program ready to be executed.
struct Program {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    environment: Vec<CString>,
    name: String,
}

impl Program {
    fn new(plan: &Plan, path: &OsStr, environment: &Environment) -> Result<Program, Stop> {
        let text = |bytes: Vec<u8>| CString::new(bytes).map_err(|_| fatal("unable to run", Errno::EINVAL));
        let name = plan.argv.first().cloned().unwrap_or_default();
        let candidates = if name.as_bytes().contains(&b'/') {
            vec![text(name.as_bytes().to_vec())?]
        } else {
            let dirs = path.as_bytes().split(|b| *b == b':');
            let dirs = dirs.map(|dir| if dir.is_empty() { &b"."[..] } else { dir });
            dirs.map(|dir| text([dir, b"/", name.as_bytes()].concat())).collect::<Result<_, _>>()?
        };
        let mut argv: Vec<OsString> = plan.argv.clone();
        if let (Some(first), Some(argv0)) = (argv.first_mut(), &plan.argv0) {
            first.clone_from(argv0);
        }
        Ok(Program {
            candidates,
            argv: argv.into_iter().map(|arg| text(arg.into_vec())).collect::<Result<_, _>>()?,
            environment: environment
                .iter()
                .map(|(name, value)| text([name.as_bytes(), b"=", value.as_bytes()].concat()))
                .collect::<Result<_, _>>()?,
            name: named("unable to run", &name),
        })
    }

    /// Comes back only when no candidate could be executed. A file without `#!` is not given to a
    /// shell.
    fn exec(&self) -> Stop {
        applet::sys::restore_sigpipe();
        let mut reason = Errno::ENOENT;
        for candidate in &self.candidates {
            match execve(candidate, &self.argv, &self.environment) {
                Ok(never) => match never {},
                Err(Errno::ENOENT) => {}
                Err(e @ (Errno::EACCES | Errno::EPERM | Errno::EISDIR | Errno::ENOTDIR)) => reason = e,
                Err(e) => return fatal(&self.name, e),
            }
        }
        fatal(&self.name, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_files() {
        let table: &[(&[u8], Option<&[u8]>)] = &[
            (b"", None),
            (b"\n", Some(b"")),
            (b" \t\n", Some(b"")),
            (b"a b \t\nsecond\n", Some(b"a b")),
            (b"x\0y", Some(b"x\ny")),
            (b" a", Some(b" a")),
        ];
        for (content, want) in table {
            assert_eq!(value(content.to_vec()).map(OsString::into_vec).as_deref(), *want, "{content:?}");
        }
    }

    #[test]
    fn numeric_ids_need_a_group_and_nothing_but_digits() {
        let raw = |text: &str| numeric(text).map(|i| (i.uid.as_raw(), i.primary.as_raw(), i.more.len()));
        assert_eq!(raw("1:2"), Some((1, 2, 0)));
        assert_eq!(raw("1:2:3:4"), Some((1, 2, 2)));
        for bad in ["", "1", "1:", "1:2:", ":1", "x:1", "1:x", "+1:2", "-1:2", "4294967295:1", "4294967296:1"] {
            assert_eq!(raw(bad), None, "{bad:?}");
        }
        assert!(numeric(&vec!["7"; 61].join(":")).is_some());
        assert!(numeric(&vec!["7"; 62].join(":")).is_none());
    }
}

//! The cage: what a daemon gives up for good once its sockets are open, so that a hole in it is no
//! way into the machine.
//!
//! A shell. Each daemon says in one place what it still needs ([`Needs`]) and calls [`enter`]:
//! capabilities(7) are cut down to those named, no_new_privs is set, Landlock leaves the files
//! named, a seccomp filter (cage/filter.rs) leaves the system calls of a daemon. What a kernel or a
//! container lacks is said with -v and done without: a network that works comes first. It never
//! fails. Programs are run outside, by netd::runner, which is forked before.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use applet::control::ServiceDir;
use nix::errno::Errno;
use nix::libc;

use crate::daemon::Log;

mod filter;
pub(crate) mod sys;

/// A capability by its number, linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    /// To bind ports below 1024.
    NetBindService = 10,
    /// To change interfaces and routes.
    NetAdmin = 12,
    /// To open packet and raw sockets.
    NetRaw = 13,
}

/// CAP_DAC_OVERRIDE.
const DAC_OVERRIDE: u32 = 1;
/// No kernel has a higher one: capabilities are a 64-bit set.
const LAST_CAPABILITY: u32 = 63;

/// A kind of socket that is opened, or opened again, inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Socket {
    /// AF_PACKET, from the network header on.
    Packet,
    /// rtnetlink; getifaddrs(3) opens one, too.
    Netlink,
    /// UDP over IPv4.
    Udp,
    /// TCP over IPv4.
    Tcp,
    /// ICMP over IPv4, by a raw socket.
    Icmp,
}

impl Socket {
    /// By family and type. To netlink both types are one (netlink(7)), and libraries use either.
    fn kinds(self) -> &'static [filter::SocketKind] {
        match self {
            Socket::Packet => &[(libc::AF_PACKET, libc::SOCK_DGRAM)],
            Socket::Netlink => &[(libc::AF_NETLINK, libc::SOCK_RAW), (libc::AF_NETLINK, libc::SOCK_DGRAM)],
            Socket::Udp => &[(libc::AF_INET, libc::SOCK_DGRAM)],
            Socket::Tcp => &[(libc::AF_INET, libc::SOCK_STREAM)],
            Socket::Icmp => &[(libc::AF_INET, libc::SOCK_RAW)],
        }
    }
}

/// Files that are used inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// What is in this directory is read, written, renamed and removed. It is made when it is
    /// missing.
    Directory(PathBuf),
    /// What is in this directory is read.
    ReadOnly(PathBuf),
    /// The service of this name is sent letters, also when it is installed later.
    Service(OsString),
    /// The service of this name, if it is there, is sent letters and its status is read: see
    /// [`crate::peers`].
    Peer(OsString),
    /// This file is removed at the end. It is open already where it is written again.
    Pidfile(PathBuf),
}

/// All that a daemon still uses inside.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Its capabilities, where it has them.
    pub capabilities: Vec<Capability>,
    /// Its sockets.
    pub sockets: Vec<Socket>,
    /// Its files, and /dev/null.
    pub files: Vec<Files>,
    /// It may go to the background, which is a fork.
    pub background: bool,
}

// landlock(7): LANDLOCK_ACCESS_FS_*.
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_REG: u64 = 1 << 8;
const TRUNCATE: u64 = 1 << 14;
// landlock(7): LANDLOCK_SCOPE_*. To abstract sockets and by signals a process reaches those in its
// own cage alone.
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
const SCOPE_SIGNAL: u64 = 1 << 1;
/// The first version of Landlock that has scopes (Linux 6.12).
const SCOPES_SINCE: u32 = 6;
/// Of the accesses, the ones that can be said of a file.
const OF_FILES: u64 = WRITE_FILE | READ_FILE | TRUNCATE;

/// Gives up everything but `needs`, for good. To be called when the sockets are open, in a process
/// with one thread.
pub fn enter(needs: &Needs, log: &Log) {
    let without = |what: &str, e: &dyn std::fmt::Display| log.debug(format_args!("cage: {what}: {e}"));
    // Without it neither Landlock nor a filter would be allowed to an ordinary user.
    if let Err(e) = nix::sys::prctl::set_no_new_privs() {
        without("no_new_privs", &e);
    }
    let rules = rules(needs);
    if let Err(e) = restrict_files(&rules) {
        without("files are not restricted: no Landlock", &e);
    }
    if let Err(e) = drop_capabilities(needs, &rules) {
        without("capabilities are kept", &e);
    }
    let Some(arch) = filter::ARCH else {
        return without("system calls are not restricted", &"no filter for this architecture");
    };
    let sockets: Vec<_> = needs.sockets.iter().flat_map(|s| s.kinds()).copied().collect();
    if let Err(e) = sys::set_filter(&filter::filter(arch, &sockets, needs.background)) {
        without("system calls are not restricted: no seccomp", &e);
    }
}

/// One rule: a path and what may be done at it and below.
type Rule = (PathBuf, u64);

fn rules(needs: &Needs) -> Vec<Rule> {
    let mut rules = vec![("/dev/null".into(), READ_FILE | WRITE_FILE)];
    for files in &needs.files {
        match files {
            Files::Directory(dir) => {
                // What cannot be made now cannot be made later either, and is said when it is used.
                let _ = std::fs::create_dir_all(dir);
                rules.push((dir.clone(), OF_FILES | READ_DIR | REMOVE_FILE | MAKE_REG));
            }
            Files::ReadOnly(dir) => rules.push((dir.clone(), READ_FILE | READ_DIR)),
            Files::Service(name) => {
                let service = ServiceDir::resolve(name);
                service.prepare();
                rules.extend(service.places().into_iter().map(|dir| (dir, WRITE_FILE)));
            }
            Files::Peer(name) => {
                let service = ServiceDir::resolve(name);
                service.prepare();
                // Without the directory its places would be all services, with their programs.
                let places = if service.exists() { service.places() } else { Vec::new() };
                rules.extend(places.into_iter().map(|dir| (dir, WRITE_FILE | READ_FILE)));
            }
            Files::Pidfile(file) => {
                let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
                rules.push((dir.to_owned(), REMOVE_FILE));
            }
        }
    }
    rules
}

/// landlock(7): which accesses each version knows. The first has thirteen, up to MAKE_SYM.
fn handled(version: u32) -> u64 {
    let known = match version {
        0 => 0,
        1 => 13,
        // REFER, TRUNCATE, IOCTL_DEV.
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << known) - 1
}

fn restrict_files(rules: &[Rule]) -> Result<(), Errno> {
    let version = sys::landlock_version()?;
    let handled = handled(version);
    let scoped = if version >= SCOPES_SINCE { SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL } else { 0 };
    let ruleset = sys::Ruleset::new(handled, scoped)?;
    for (path, access) in rules {
        let file = match OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path) {
            Ok(file) => file,
            // A directory to write to that cannot be made yet may be there later, and must not be
            // shut out then.
            Err(e) if access & MAKE_REG != 0 => return Err(Errno::from_raw(e.raw_os_error().unwrap_or_default())),
            Err(_) => continue,
        };
        let access = if is_dir(&file) { *access } else { access & OF_FILES };
        ruleset.allow(&file, access & handled)?;
    }
    ruleset.enforce()
}

fn is_dir(file: &File) -> bool {
    file.metadata().is_ok_and(|m| m.is_dir())
}

fn drop_capabilities(needs: &Needs, rules: &[Rule]) -> io::Result<()> {
    let mut wanted = needs.capabilities.iter().fold(0, |all, c| all | 1 << *c as u32);
    // Root without it is an ordinary user to the files of others: it stays where another user owns
    // what the daemon writes.
    let us = nix::unistd::geteuid().as_raw();
    let foreign = |(path, _): &Rule| path.metadata().is_ok_and(|m| m.uid() != us);
    if rules.iter().skip(1).any(foreign) {
        wanted |= 1 << DAC_OVERRIDE;
    }
    let keep = wanted & sys::permitted()?;
    // Only a kernel before 4.3 lacks the ambient set.
    let _ = sys::clear_ambient();
    for capability in (0..=LAST_CAPABILITY).filter(|c| keep & 1 << c == 0) {
        // EINVAL: there are no more. EPERM: not ours to drop (CAP_SETPCAP), and nothing is executed
        // that it could bind.
        if sys::drop_bound(capability).is_err() {
            break;
        }
    }
    sys::set_capabilities(keep)
}

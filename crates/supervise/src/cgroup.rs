//! A cgroup of its own for a service (`cgroup` in its directory), so that what it leaves behind
//! when it goes down can be killed as a whole: cgroup v2, cgroup.kill (Linux 5.14). See the
//! kernel's admin-guide/cgroup-v2.
//!
//! What it is not: limits of resources (chpst has those), or a decision when to kill (unit.rs,
//! which calls this).

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How often an emptied group is tried to be removed: its processes have been killed, but may not
/// be gone yet.
const TRIES: u32 = 200;

/// The group.
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes the group below our own, named by the service and the inode of its directory `dir`.
    pub(crate) fn open(dir: &Path, service: &OsStr) -> io::Result<Cgroup> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let parent = own_group(&own, &mounts).ok_or_else(|| io::Error::other("no cgroup v2 here"))?;
        let inode = fs::metadata(dir)?.ino();
        let path = parent.join(format!("runsv.{}.{inode:x}", plain(&service.to_string_lossy())));
        match fs::create_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            Ok(()) | Err(_) => Ok(Cgroup { path }),
        }
    }

    /// Its cgroup.procs: a process that writes 0 there is in it.
    pub(crate) fn procs(&self) -> io::Result<OwnedFd> {
        OpenOptions::new().write(true).open(self.path.join("cgroup.procs")).map(OwnedFd::from)
    }

    /// Kills all that is in it, and removes it.
    pub(crate) fn kill(self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.kill"), "1")?;
        for _ in 0..TRIES {
            if fs::remove_dir(&self.path).is_ok() {
                return Ok(());
            }
            // What was killed is reaped by its parent: one turn of the scheduler at a time.
            std::thread::yield_now();
        }
        // It is empty soon; the next start of the service uses it again.
        Ok(())
    }
}

/// The directory of our own cgroup: cgroups(7) for the first text, proc(5) for the second.
fn own_group(own: &str, mounts: &str) -> Option<PathBuf> {
    let group = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(mount).join(below))
    })
}

/// A service may be named by a path.
fn plain(service: &str) -> String {
    let last = service.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    last.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "24 29 0:22 / /proc rw - proc proc rw\n\
        33 24 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn our_own_group_is_found_below_the_mount() {
        let at = |own: &str, mounts: &str| own_group(own, mounts).map(|p| p.to_string_lossy().into_owned());
        assert_eq!(at("0::/\n", MOUNTS).as_deref(), Some("/sys/fs/cgroup/"));
        assert_eq!(at("1:cpu:/x\n0::/a/b\n", MOUNTS).as_deref(), Some("/sys/fs/cgroup/a/b"));
        let bound = MOUNTS.replace("0:27 / /sys/fs/cgroup", "0:27 /a /mnt");
        assert_eq!(at("0::/a/b\n", &bound).as_deref(), Some("/mnt/b"));
        assert_eq!(at("0::/c\n", &bound), None);
        assert_eq!(at("1:cpu:/x\n", MOUNTS), None);
        assert_eq!(at("0::/\n", "24 29 0:22 / /proc rw - proc proc rw\n"), None);
    }

    #[test]
    fn names_are_plain() {
        assert_eq!(plain("../s/dhcp_eth0.1/"), "dhcp_eth0_1");
        assert_eq!(plain("."), "_");
    }
}

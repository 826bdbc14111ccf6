//! resolv.conf, hosts and dnsmasq_servers.conf: fw renders them from the records, and writes them
//! atomically and only when they change.
//!
//! Shell: text.rs renders them. Called by run.rs.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use applet::control::{Command, ServiceDir, error_text};
use netd::disk;
use netd_core::net::HostName;
use nix::errno::Errno;

use crate::record::Entry;
use crate::report::Report;

pub mod text;

/// Name service is for every user.
const READABLE: u32 = 0o644;
/// The file is a mount point (containers, `ip netns exec`): nothing can be renamed over it.
const BUSY: [Errno; 2] = [Errno::EBUSY, Errno::EXDEV];

/// The name of this host, when it may stand in /etc/hosts.
fn hostname() -> String {
    let bytes = fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = std::str::from_utf8(bytes.trim_ascii()).ok().and_then(HostName::parse);
    name.map(|name| name.to_string()).unwrap_or_default()
}

/// The file that a symbolic link leads to. Only its directory has to exist: /etc/resolv.conf may
/// lead to a file in /run or /tmp, and these are empty at boot.
fn behind(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| {
        let target = fs::read_link(path).ok().and_then(|link| Some(path.parent()?.join(link)));
        let found = target.and_then(|t| Some(t.parent()?.canonicalize().ok()?.join(t.file_name()?)));
        found.unwrap_or_else(|| path.to_path_buf())
    })
}

/// The file's content; empty when there is no file. `None`: a device. A link to /dev/null says that
/// the administrator wants no such file, and a file in the place of that device would break many
/// programs.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(m) if m.is_file() => fs::read(path).map(Some),
        Ok(m) if m.file_type().is_char_device() => Ok(None),
        // Opening a fifo would wait for a writer.
        Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Some(Vec::new())),
        Err(e) => Err(e),
    }
}

/// As [`disk::replace`], for the file that a symbolic link leads to. It keeps the mode of the old
/// file; every user may read a new one, whatever the umask says. A file that is a mount point
/// cannot be replaced and is overwritten in its place.
fn write_through(path: &Path, content: &[u8]) -> io::Result<()> {
    let real = behind(path);
    let mode = fs::metadata(&real).map_or_else(|_| Permissions::from_mode(READABLE), |m| m.permissions());
    match disk::replace(&real, content, Some(mode)) {
        Err(e) if e.raw_os_error().is_some_and(|errno| BUSY.contains(&Errno::from_raw(errno))) => {
            fs::write(&real, content)
        }
        result => result,
    }
}

/// A file whose content has to change.
pub struct File {
    path: PathBuf,
    content: Vec<u8>,
    service: Option<&'static str>,
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.path.exists() { '~' } else { '+' };
        write!(f, "{sign} file {}", self.path.display())
    }
}

/// The files that have to change.
pub fn changed(etc: &Path, records: &[&Entry], report: &mut Report) -> Vec<File> {
    let mut out = Vec::new();
    let mut file = |name: &str, service, render: &dyn Fn(&[u8]) -> Option<Vec<u8>>| {
        let path = etc.join(name);
        let old = match read(&path) {
            Ok(Some(old)) => old,
            Ok(None) => return,
            // An unreadable file may hold lines of the administrator.
            Err(e) => return report.error(&format!("unable to read {}: {}", path.display(), error_text(&e))),
        };
        out.extend(render(&old).filter(|new| *new != old).map(|content| File { path, content, service }));
    };
    let hostname = hostname();
    file("resolv.conf", None, &|old| text::resolv_conf(records, old).map(String::into_bytes));
    file("hosts", None, &|old| Some(text::hosts(records, &hostname, old)));
    file("dnsmasq_servers.conf", Some("dnsmasq"), &|old| text::dnsmasq_servers(records, old).map(String::into_bytes));
    out
}

/// Writes them.
pub fn write(etc: &Path, records: &[&Entry], report: &mut Report) {
    // FW_ETC may be in /run, which is empty at boot. A failure shows when the first file is
    // written.
    let _ = fs::create_dir_all(etc);
    for file in changed(etc, records, report) {
        let written = write_through(&file.path, &file.content);
        if written.is_ok()
            && let Some(service) = file.service
        {
            // dnsmasq reads its servers-file again on HUP. Most machines have no such service.
            let _ = ServiceDir::resolve(service.as_ref()).send(&[Command::Hangup]);
        }
        match written {
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => report.error(&format!(
                "unable to write {}: {}: make it a link to a file in /run, or name another directory in FW_ETC",
                file.path.display(),
                error_text(&e)
            )),
            other => report.check(&file.path, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_may_read_what_is_new_and_whoever_might_read_what_is_old() {
        let dir = std::env::temp_dir().join(format!("fw-mode-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o7777;
        // As under the umask 077 of some inits.
        fs::write(dir.join("private"), "").unwrap();
        fs::set_permissions(dir.join("private"), Permissions::from_mode(0o600)).unwrap();
        for name in ["new", "private"] {
            write_through(&dir.join(name), b"x").unwrap();
        }
        assert_eq!((mode("new"), mode("private")), (0o644, 0o600));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let dir = std::env::temp_dir().join(format!("fw-etc-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("real"), "old").unwrap();
        std::os::unix::fs::symlink("real", dir.join("link")).unwrap();
        write_through(&dir.join("link"), b"new").unwrap();
        assert!(dir.join("link").symlink_metadata().unwrap().is_symlink());
        assert_eq!(fs::read(dir.join("real")).unwrap(), b"new");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        // The link's target does not exist yet, as after a boot. Without the target's directory the
        // file takes the place of the link.
        for (target, stays) in [("run/resolv.conf", true), ("no/such/directory", false)] {
            fs::create_dir_all(dir.join("run")).unwrap();
            let link = dir.join(target.replace('/', "-"));
            std::os::unix::fs::symlink(target, &link).unwrap();
            write_through(&link, b"new").unwrap();
            assert_eq!(link.symlink_metadata().unwrap().is_symlink(), stays, "{target}");
            assert_eq!(fs::read(&link).unwrap(), b"new");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}

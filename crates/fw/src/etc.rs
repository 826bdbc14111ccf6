//! resolv.conf, hosts and dnsmasq_servers.conf: fw renders them from the records, and writes them
//! atomically and only when they change.
//!
//! Shell: servers.rs puts the name servers in order, resolv.rs and text.rs render the files. Called
//! by run.rs.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use applet::control::{Command, ServiceDir, error_text};
use netd::disk;
use netd_core::net::HostName;
use nix::errno::Errno;

use crate::input::Paths;
use crate::report::Report;

pub mod resolv;
pub mod servers;
pub mod text;

use servers::Facts;

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
        let target = target(path);
        let found = target.parent().and_then(|dir| Some(dir.canonicalize().ok()?.join(target.file_name()?)));
        found.unwrap_or_else(|| path.to_path_buf())
    })
}

/// The same for a link whose directory need not exist either.
fn target(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| {
        let target = fs::read_link(path).ok().and_then(|link| Some(path.parent()?.join(link)));
        let target = target.unwrap_or_else(|| path.to_path_buf());
        let found = target.parent().and_then(|dir| Some(dir.canonicalize().ok()?.join(target.file_name()?)));
        found.unwrap_or(target)
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
    /// `None`: the file goes.
    content: Option<Vec<u8>>,
    /// dnsmasq reads it, and reads it again on HUP.
    is_dnsmasqs: bool,
}

impl File {
    /// Without its directory.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match (&self.content, self.path.exists()) {
            (None, _) => '-',
            (Some(_), true) => '~',
            (Some(_), false) => '+',
        };
        write!(f, "{sign} file {}", self.path.display())
    }
}

/// The files that have to change.
pub fn changed(etc: &Path, facts: &Facts, report: &mut Report) -> Vec<File> {
    let hostname = hostname();
    let files: [(&str, bool, Render); 3] = [
        ("resolv.conf", false, &|old| resolv::text(facts, old)),
        ("hosts", true, &|old| Some(text::hosts(facts, &hostname, old))),
        ("dnsmasq_servers.conf", true, &|old| text::dnsmasq_servers(facts, old).map(String::into_bytes)),
    ];
    let mut out = Vec::new();
    for (name, is_dnsmasqs, render) in files {
        let path = etc.join(name);
        match read(&path) {
            Ok(Some(old)) => {
                let is_left = |new: &[u8]| facts.goes && !old.is_empty() && text::is_empty(new);
                let new = render(&old).filter(|new| *new != old || is_left(new));
                let content = new.filter(|_| name != "resolv.conf" || is_left_to_us(etc, &path, &old, report));
                // A file that fw has made goes with fw. A link is the administrator's.
                let stays = |content: &Vec<u8>| !(facts.goes && text::is_empty(content) && !path.is_symlink());
                let content = content.map(|content| Some(content).filter(stays));
                out.extend(content.map(|content| File { path, content, is_dnsmasqs }));
            }
            Ok(None) => {}
            // An unreadable file may hold lines of the administrator.
            Err(e) => report.error(&format!("unable to read {}: {}", path.display(), error_text(&e))),
        }
    }
    out
}

/// The new content of a file. `None`: it stays as it is.
type Render<'a> = &'a dyn Fn(&[u8]) -> Option<Vec<u8>>;

/// Whether fw writes resolv.conf. It says once why it does not.
fn is_left_to_us(etc: &Path, path: &Path, old: &[u8], report: &mut Report) -> bool {
    let target = path.is_symlink().then(|| target(path));
    let found = resolv::Found {
        etc,
        has_directory: target.as_deref().and_then(Path::parent).is_none_or(Path::is_dir),
        target: target.as_deref(),
        content: old,
        has_resolvconf: has_program("resolvconf"),
    };
    let another = found.of_another();
    if let Some(why) = &another {
        report.note(&format!("{} is left alone: {why}: see FILES of fw(8)", path.display()));
    }
    another.is_none()
}

/// Whether a program of this name is where programs of the administrator are.
fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let admin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(admin).any(|dir| dir.join(name).is_file())
}

/// Writes them.
pub fn write(paths: &Paths, facts: &Facts, report: &mut Report) {
    // FW_ETC may be in /run, which is empty at boot. A failure shows when the first file is
    // written.
    let _ = fs::create_dir_all(&paths.etc);
    let files = changed(&paths.etc, facts, report);
    // A run that is killed after it has written a file and before it has told dnsmasq leaves this
    // mark, so that the next run tells it.
    let mark = paths.dynamic.join(".untold");
    if files.iter().any(|file| file.is_dnsmasqs) {
        let _ = fs::write(&mark, "");
    }
    for File { path, content, .. } in files {
        let done = match content {
            Some(content) => write_through(&path, &content),
            None => fs::remove_file(&path),
        };
        match done {
            Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => report.error(&format!(
                "unable to write {}: {}: make it a link to a file in /run, or name another directory in FW_ETC",
                path.display(),
                error_text(&e)
            )),
            other => report.check(&path, other),
        }
    }
    if mark.exists() {
        // Most machines have no such service.
        let _ = ServiceDir::resolve("dnsmasq".as_ref()).send(&[Command::Hangup]);
        let _ = fs::remove_file(&mark);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use netd_core::record::text::Record;

    use super::*;
    use crate::record::{self, Entry};

    /// An administrator's record.
    pub(super) fn entry(fields: &[(&str, &str)]) -> Entry {
        let record = fields.iter().fold(Record::new(), |r, (k, v)| r.with(k, *v));
        record::read(&record, true, "f:1".into()).unwrap().0
    }

    /// These records, on a machine with a loopback interface.
    pub(super) fn facts<'a>(records: &[&'a Entry]) -> Facts<'a> {
        let own: Vec<IpAddr> = ["127.0.0.1", "::1"].map(|ip| ip.parse().unwrap()).into();
        Facts {
            records: records.to_vec(),
            own,
            metrics: Vec::new(),
            inside: Vec::new(),
            asks_itself: false,
            goes: false,
        }
    }

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

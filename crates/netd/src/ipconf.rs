//! Files of records: `DIR/NAME.ipconf`, published, withdrawn, listed and read.
//!
//! Their text is `netd_core::record`'s. Called by the daemons (publish, withdraw) and by fw (read).

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use netd_core::record::text::{MAX_FILE, ParseError, Record, is_record_name, parse, render};

use crate::disk;

fn record_path(dir: &Path, name: &str) -> io::Result<PathBuf> {
    if !is_record_name(name) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("bad record name: {}", name.escape_debug())));
    }
    Ok(dir.join(format!("{name}.ipconf")))
}

/// Writes `DIR/NAME.ipconf` (temporary name, then rename; the directory is made when missing).
/// Returns whether the content changed: a publish that changes nothing needs no `u` to fw.
pub fn publish(dir: &Path, name: &str, records: &[Record]) -> io::Result<bool> {
    let path = record_path(dir, name)?;
    let text = render(records).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    // Not fs::read: a fifo may lie in the place of the file, and a read of it would never end.
    if read_bytes(dir, &path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    fs::create_dir_all(dir)?;
    disk::replace(&path, text.as_bytes(), None)?;
    Ok(true)
}

/// Removes `DIR/NAME.ipconf`. Returns whether it was there.
pub fn withdraw(dir: &Path, name: &str) -> io::Result<bool> {
    match fs::remove_file(record_path(dir, name)?) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Why a file gave no records.
#[derive(Debug)]
pub enum ReadError {
    /// Its text is malformed.
    Parse(ParseError),
    /// It could not be read, or is not a regular file inside the directory.
    Io(io::Error),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Parse(e) => e.fmt(f),
            ReadError::Io(e) => e.fmt(f),
        }
    }
}

/// Reads one file of `dir`: regular, at most [`MAX_FILE`] bytes, and when a symlink, one that stays
/// in the directory.
pub fn read(dir: &Path, path: &Path) -> Result<Vec<Record>, ReadError> {
    read_bytes(dir, path).map_err(ReadError::Io).and_then(|bytes| parse(&bytes).map_err(ReadError::Parse))
}

/// The bytes of one file of `dir`, under the same rules as [`read`].
pub fn read_bytes(dir: &Path, path: &Path) -> io::Result<Vec<u8>> {
    if path.symlink_metadata()?.is_symlink() && !path.canonicalize()?.starts_with(dir.canonicalize()?) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "symbolic link leaves the directory"));
    }
    // Not blocking: opening a fifo for reading would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // One read shows that a short file has ended: there are fifty of them on a large router.
    let room = usize::try_from(about.len()).unwrap_or(MAX_FILE).min(MAX_FILE) + 1;
    let mut bytes = vec![0; room];
    let mut file = file.take(MAX_FILE as u64 + 1);
    let read = file.read(&mut bytes)?;
    bytes.truncate(read);
    if read == room {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// All `*.ipconf` of a directory in glob order (byte order of the names); dot files and
/// `*.ipconf--` are not among them. A directory that is not there has none.
pub fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if name.as_bytes().ends_with(b".ipconf") && !name.as_bytes().starts_with(b".") {
            names.push(dir.join(name));
        }
    }
    applet::sort::sort(&mut names);
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publish_says_whether_anything_changed_and_withdraw_whether_it_was_there() {
        let dir = std::env::temp_dir().join(format!("ipconf-test-{}", std::process::id()));
        let records = [Record::new().with("if", "eth0")];
        assert!(publish(&dir, "dhcp_eth0", &records).unwrap());
        assert!(!publish(&dir, "dhcp_eth0", &records).unwrap());
        assert_eq!(list(&dir).unwrap(), [dir.join("dhcp_eth0.ipconf")]);
        assert_eq!(read(&dir, &dir.join("dhcp_eth0.ipconf")).unwrap()[0].get("if"), Some("eth0"));
        assert!(publish(&dir, "../escape", &records).is_err());
        assert!(withdraw(&dir, "dhcp_eth0").unwrap());
        assert!(!withdraw(&dir, "dhcp_eth0").unwrap());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn only_regular_files_inside_the_directory_are_read() {
        let dir = std::env::temp_dir().join(format!("ipconf-kinds-{}", std::process::id()));
        fs::create_dir_all(dir.join("dir.ipconf")).unwrap();
        fs::write(dir.join("good.ipconf"), "let cfg=cfg+1\nif[$cfg]=a\n").unwrap();
        fs::write(dir.join("off.ipconf--"), "").unwrap();
        fs::write(dir.join(".hidden.ipconf"), "").unwrap();
        nix::unistd::mkfifo(&dir.join("fifo.ipconf"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("good.ipconf", dir.join("inner.ipconf")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.join("outer.ipconf")).unwrap();
        let read_name = |name: &str| read(&dir, &dir.join(name)).map(|records| records.len());
        let names: Vec<_> =
            list(&dir).unwrap().iter().map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["dir.ipconf", "fifo.ipconf", "good.ipconf", "inner.ipconf", "outer.ipconf"]);
        assert_eq!(read_name("good.ipconf").unwrap(), 1);
        assert_eq!(read_name("inner.ipconf").unwrap(), 1);
        for refused in ["dir.ipconf", "fifo.ipconf", "outer.ipconf", "absent.ipconf"] {
            assert!(matches!(read_name(refused), Err(ReadError::Io(_))), "{refused}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}

//! The one replacer of files: all of the old or all of the new, also after a power cut.
//!
//! Every file that a daemon or fw writes is written here (a pidfile through its descriptor from
//! then on). A symbolic link in the way of the file or of its temporary name is replaced and never
//! followed. Killed half way, a daemon leaves one temporary file, which its next write replaces.
//! Called by ipconf.rs, daemon.rs, the pinger's status, and fw.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;

/// An error where a device has this name: /dev/null, of a caller that wants no file. It is no file
/// of ours, and not to be replaced or removed.
pub fn spare_device(path: &Path) -> io::Result<()> {
    match path.symlink_metadata().map(|found| found.file_type()) {
        Ok(kind) if kind.is_char_device() || kind.is_block_device() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "a device is left alone"))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Writes `.NAME.tmp` beside `path` and renames it; with this `mode` whatever the umask says.
pub fn replace(path: &Path, content: &[u8], mode: Option<Permissions>) -> io::Result<()> {
    replace_open(path, content, mode).map(drop)
}

/// As [`replace`]; the file stays open, for a caller that writes it again without its name.
pub fn replace_open(path: &Path, content: &[u8], mode: Option<Permissions>) -> io::Result<File> {
    spare_device(path)?;
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut tmp = OsString::from(".");
    tmp.push(name);
    tmp.push(".tmp");
    let tmp = path.with_file_name(tmp);
    // A file system may write down the name before the content: without fsync(2) a power cut leaves
    // an empty file (ext4 does so to a new name, ubifs to any). It costs nothing in /run. A file
    // under the temporary name is not written into: in a directory where every user may write it
    // could be a link to another file.
    let _ = fs::remove_file(&tmp);
    let written = File::create_new(&tmp).and_then(|mut file| {
        file.write_all(content)?;
        mode.map_or(Ok(()), |mode| file.set_permissions(mode))?;
        file.sync_all()?;
        Ok(file)
    });
    let renamed = written.and_then(|file| fs::rename(&tmp, path).map(|()| file));
    renamed.inspect_err(|_| {
        let _ = fs::remove_file(&tmp);
    })
}

/// Whether time does not end the reason why a file could not be written: trying again is useless
/// until something else changes. A full disk, a busy one and the lack of descriptors pass; no
/// right, no such place and a name that cannot be do not.
pub fn lasts(e: &io::Error) -> bool {
    let Some(errno) = e.raw_os_error().map(Errno::from_raw) else {
        // Our own: a name or a value that is no record's.
        return matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData);
    };
    matches!(
        errno,
        Errno::EACCES
            | Errno::EPERM
            | Errno::EROFS
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::EEXIST
            | Errno::ENAMETOOLONG
            | Errno::ELOOP
            | Errno::EINVAL
            | Errno::ENODEV
            | Errno::ENXIO
            | Errno::EOPNOTSUPP
            | Errno::EFBIG
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::{Mode, SFlag, mknod};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_in_the_way_is_replaced_and_what_a_killed_one_left_too() {
        let dir = std::env::temp_dir().join(format!("netd-disk-link-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let [file, other] = [".pinger_x0", "passwd"].map(|name| dir.join(name));
        fs::write(&other, "root").unwrap();
        fs::write(dir.join("..pinger_x0.tmp"), "half of a li").unwrap();
        symlink(&other, &file).unwrap();
        replace(&file, b"new", None).unwrap();
        assert_eq!([fs::read(&file).unwrap(), fs::read(&other).unwrap()], [b"new".to_vec(), b"root".to_vec()]);
        assert!(!file.is_symlink() && fs::read_dir(&dir).unwrap().count() == 2);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_device_is_not_replaced() {
        let dir = std::env::temp_dir().join(format!("netd-disk-device-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let null = dir.join("null");
        // The kernel lets every user make the device 0:0, which leads nowhere.
        mknod(&null, SFlag::S_IFCHR, Mode::S_IRWXU, 0).unwrap();
        assert!(lasts(&replace(&null, b"new", None).unwrap_err()));
        assert!(null.symlink_metadata().unwrap().file_type().is_char_device());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_lasts_and_what_passes() {
        let dir = std::env::temp_dir().join(format!("netd-disk-lasts-{}", std::process::id()));
        fs::create_dir_all(dir.join("directory")).unwrap();
        fs::write(dir.join("file"), "").unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let long = "x".repeat(300);
        for name in ["directory", "file/x", "loop/x", long.as_str()] {
            assert!(lasts(&replace(&dir.join(name), b"new", None).unwrap_err()), "{name}");
        }
        assert!(!lasts(&replace(&dir.join("absent/x"), b"new", None).unwrap_err()), "it may be made");
        for errno in [Errno::EACCES, Errno::EPERM, Errno::EROFS] {
            assert!(lasts(&errno.into()), "{errno}");
        }
        for errno in
            [Errno::ENOSPC, Errno::EDQUOT, Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EIO, Errno::EBUSY]
        {
            assert!(!lasts(&errno.into()), "{errno}");
        }
        let names: Vec<_> = fs::read_dir(&dir).unwrap().collect();
        assert_eq!(names.len(), 3, "no temporary file stays");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_lies_in_the_way_of_the_new_file_is_not_written_into() {
        let dir = std::env::temp_dir().join(format!("netd-disk-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let [file, other] = ["resolv.conf", "passwd"].map(|name| dir.join(name));
        fs::write(&other, "root").unwrap();
        symlink(&other, dir.join(".resolv.conf.tmp")).unwrap();
        replace(&file, b"new", None).unwrap();
        assert_eq!([fs::read(&file).unwrap(), fs::read(&other).unwrap()], [b"new".to_vec(), b"root".to_vec()]);
        assert!(!file.is_symlink() && fs::read_dir(&dir).unwrap().count() == 2);
        fs::remove_dir_all(&dir).unwrap();
    }
}

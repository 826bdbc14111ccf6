//! Files that are replaced as a whole: all of the old or all of the new, also after a power cut.
//!
//! Called by ipconf.rs and by fw for what it writes into /etc.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::path::Path;

/// Writes `.NAME.tmp` beside `path` and renames it; with this `mode` whatever the umask says.
pub fn replace(path: &Path, content: &[u8], mode: Option<Permissions>) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut tmp = OsString::from(".");
    tmp.push(name);
    tmp.push(".tmp");
    let tmp = path.with_file_name(tmp);
    // A file system may write down the name before the content: without fsync(2) a power cut leaves an empty file (ext4 does
    // so to a new name, ubifs to any). It costs nothing in /run.
    // Whatever lies there is not written into: in a directory where everybody may write it could be a link of somebody to another file.
    let _ = fs::remove_file(&tmp);
    let written = File::create_new(&tmp).and_then(|mut file| {
        file.write_all(content)?;
        mode.map_or(Ok(()), |mode| file.set_permissions(mode))?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&tmp, path)).inspect_err(|_| {
        let _ = fs::remove_file(&tmp);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

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

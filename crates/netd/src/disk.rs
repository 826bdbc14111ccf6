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
    let written = File::create(&tmp).and_then(|mut file| {
        file.write_all(content)?;
        mode.map_or(Ok(()), |mode| file.set_permissions(mode))?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&tmp, path)).inspect_err(|_| {
        let _ = fs::remove_file(&tmp);
    })
}

//! What fw tells the daemons beside the kernel: which uplinks are metered.
//!
//! Shell. fw.conf is fw's alone, so the pinger reads the names here, from a file of the directory
//! of records that it watches. Called by run.rs.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use netd::disk;

/// The file: names of interfaces, one a line. It is not there when none is metered.
const METERED: &str = ".metered";

/// Writes the names, when they are not what the file says.
pub fn metered(dynamic: &Path, names: &[String]) -> io::Result<()> {
    let path = dynamic.join(METERED);
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    match fs::read(&path) {
        Ok(old) if !text.is_empty() && old == text.as_bytes() => Ok(()),
        Err(e) if text.is_empty() && e.kind() == ErrorKind::NotFound => Ok(()),
        Ok(_) | Err(_) if text.is_empty() => fs::remove_file(&path),
        Ok(_) | Err(_) => disk::replace(&path, text.as_bytes(), None),
    }
}

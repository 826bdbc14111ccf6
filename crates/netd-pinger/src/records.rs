//! The records of the uplink, under watch: which lease is judged, and whether the uplink is
//! metered.
//!
//! A shell. Two directories are watched: that of the daemons' records, where fw also says in
//! [`METERED`] which uplinks are metered (fw.conf is fw's, so fw has the word), and that of the
//! administrator's records. Called by watch.rs; lease.rs chooses.

use std::ffi::OsStr;
use std::future::pending;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use netd::directory::DirectoryWatch;
use netd::ipconf::{self, ReadError};
use netd_core::record::{Kind, Now, text::Record};

use crate::cli::Options;
use crate::lease::{self, Lease};

/// The names of the metered uplinks.
const METERED: &str = ".metered";
/// How the names of the files of records end.
const IPCONF: &str = ".ipconf";

/// The directories.
pub(crate) struct Records<'a> {
    options: &'a Options,
    dynamic: DirectoryWatch,
    /// The administrator's; `None`: they do not count.
    fixed: Option<DirectoryWatch>,
}

impl<'a> Records<'a> {
    /// From now on no change is missed.
    pub(crate) fn open(options: &'a Options) -> io::Result<Records<'a>> {
        // The administrator's directory is not made when it is missing.
        let fixed = options.fixed.as_deref().filter(|dir| !options.alone && dir.is_dir());
        Ok(Records {
            options,
            dynamic: DirectoryWatch::open(&options.dynamic)?,
            fixed: fixed.and_then(|dir| DirectoryWatch::open(dir).ok()),
        })
    }

    /// The administrator's directory, where it is watched.
    pub(crate) fn fixed(&self) -> Option<PathBuf> {
        self.options.fixed.clone().filter(|_| self.fixed.is_some())
    }

    /// Waits until something may have changed. Safe to drop and to call again.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        let options = self.options;
        let fixed = self.fixed.as_mut();
        let by_administrator = async move {
            match fixed {
                Some(directory) => directory.changed(|name| name.ends_with(IPCONF)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = self.dynamic.changed(|name| name == METERED || counts(options, name)) => changed,
            changed = by_administrator => {
                // The directory has gone, and its records with it.
                if changed.is_err() {
                    self.fixed = None;
                }
                Ok(())
            }
        }
    }

    /// Whether fw.conf calls the uplink metered.
    pub(crate) fn is_metered(&self) -> bool {
        let dir = &self.options.dynamic;
        let text = ipconf::read_bytes(dir, &dir.join(METERED)).unwrap_or_default();
        String::from_utf8_lossy(&text).split_ascii_whitespace().any(|name| name == self.options.iface.as_str())
    }

    /// The lease that is judged. The error is a line about the file that should have it.
    pub(crate) fn lease(&self, now: &Now) -> Result<Option<Lease>, String> {
        let dir = &self.options.dynamic;
        let path = dir.join(format!("{}{IPCONF}", self.options.record));
        let named = match ipconf::read(dir, &path) {
            Ok(records) => records,
            Err(ReadError::Io(e)) if e.kind() == ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(format!("{}: {e}", path.display())),
        };
        let mut others = Vec::new();
        if !self.options.alone {
            others.extend(self.all_of(dir));
            others.extend(self.fixed().iter().flat_map(|dir| self.all_of(dir)));
        }
        Ok(lease::choose(&named, &others, &self.options.iface, now))
    }

    /// Every record of a directory. fw complains about the malformed ones.
    fn all_of(&self, dir: &Path) -> Vec<Record> {
        let name = |file: &PathBuf| file.file_name().and_then(OsStr::to_str).is_some_and(|n| counts(self.options, n));
        let files = ipconf::list(dir).unwrap_or_default().into_iter().filter(name);
        files.flat_map(|file| ipconf::read(dir, &file).unwrap_or_default()).collect()
    }
}

/// Whether a file of this name can have the record that is judged. The verdicts of the link watcher
/// and of the pinger itself have no router.
fn counts(options: &Options, name: &str) -> bool {
    match name.strip_suffix(IPCONF) {
        Some(record) if options.alone => record == options.record,
        Some(record) => [Kind::Health, Kind::Link].iter().all(|kind| kind.name(&options.iface) != record),
        None => false,
    }
}

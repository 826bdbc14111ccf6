//! Reading firewall.nft, the administrator's own rules, which lies beside fw.conf.
//!
//! Shell. Whether the content is good is known only when nft has taken it, so this file has the
//! candidates, the best first, and keeps the right one in the end. Called by input.rs and run.rs.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use applet::control::error_text;
use netd::ipconf;
use netd_core::record::text::MAX_FILE;

use super::files::{Files, read_config};
use crate::firewall::admin::Own;

/// Its name, beside fw.conf and in `.good`.
const NAME: &str = "firewall.nft";

/// What the file and its last good content say.
#[derive(Debug, Default)]
pub struct OwnRules {
    /// The file, for messages.
    pub path: PathBuf,
    /// What can be loaded, the best first. Behind the last one come no rules of the administrator.
    pub candidates: Vec<Own>,
    /// The content of the first candidate, when that is the file's own.
    fresh: Option<Vec<u8>>,
    /// There is such a file.
    is_there: bool,
}

/// Reads the file as it is, and says what is wrong with it.
pub fn inspect(config: &Path) -> (OwnRules, Vec<String>) {
    let path = config.with_file_name(NAME);
    let mut own = OwnRules { path: path.clone(), is_there: true, ..OwnRules::default() };
    let read = match read_config(&path) {
        // A link that leads nowhere is still there.
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            own.is_there = false;
            return (own, Vec::new());
        }
        Err(e) => Err(format!("unable to read {}: {}", path.display(), error_text(&e))),
        Ok(bytes) => understand(&path, bytes),
    };
    match read {
        Ok((rules, bytes)) => {
            own.candidates.push(rules);
            own.fresh = Some(bytes);
            (own, Vec::new())
        }
        Err(error) => (own, vec![error]),
    }
}

/// Reads it and its last good content. A file that cannot be used is an error.
pub fn read(config: &Path, dynamic: &Path, files: &mut Files) -> OwnRules {
    let (mut own, errors) = inspect(config);
    if !own.is_there {
        return own;
    }
    let good = dynamic.join(".good");
    let last = ipconf::read_bytes(&good, &good.join(NAME)).ok().and_then(|bytes| understand(&own.path, bytes).ok());
    let fate = if last.is_some() { "its last good content is kept" } else { "left out" };
    files.errors.extend(errors.iter().map(|error| format!("{error}: {fate}")));
    own.candidates.extend(last.map(|(rules, _)| rules).filter(|rules| own.candidates.first() != Some(rules)));
    own
}

fn understand(path: &Path, bytes: Vec<u8>) -> Result<(Own, Vec<u8>), String> {
    let path = path.display();
    if bytes.len() > MAX_FILE {
        return Err(format!("{path}: larger than 64 KiB"));
    }
    match Own::parse(&bytes) {
        Ok(rules) => Ok((rules, bytes)),
        Err(fault) => Err(format!("{path}:{}: {}", fault.line, fault.what)),
    }
}

impl OwnRules {
    /// Keeps the content that is loaded, by its place among the candidates, as the last good one.
    /// `None`: nothing was judged.
    pub fn keep(&mut self, loaded: Option<usize>, files: &mut Files) {
        match (loaded, self.fresh.take()) {
            (Some(0), Some(bytes)) => files.keep(OsString::from(NAME), Some(bytes)),
            _ if self.is_there => files.keep(OsString::from(NAME), None),
            _ => {}
        }
    }
}

//! The program under test: ours, or the original that is compared with it.

use std::path::{Path, PathBuf};

use crate::lab::find_program;

/// The same test runs on the original first, then on ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The netsv of this build.
    Ours,
    /// The program of the same name in the distribution: runit's supervisor, busybox's or Debian's
    /// daemons.
    Original,
}

impl Subject {
    /// The command for the program `name`. Ours: [`netsv`] finds netsv itself, which must be called
    /// with `name` as its first argument or through a link (see [`crate::Lab::use_netsv`]).
    /// Original: below `$NETSV_ORIGINALS` (a tree with usr/bin, usr/sbin, sbin, bin), else in PATH.
    pub fn argv(self, name: &str) -> Option<Vec<String>> {
        match self {
            Subject::Ours => Some(vec![netsv()?.to_string_lossy().into_owned(), name.to_owned()]),
            Subject::Original => original(name).map(|path| vec![path.to_string_lossy().into_owned()]),
        }
    }
}

/// The original program `name`.
pub fn original(name: &str) -> Option<PathBuf> {
    let tree = std::env::var_os("NETSV_ORIGINALS").filter(|tree| !tree.is_empty()).map(PathBuf::from);
    let below = |tree: PathBuf| ["usr/bin", "usr/sbin", "sbin", "bin"].map(|dir| tree.join(dir).join(name));
    tree.into_iter().flat_map(below).find(|path| path.is_file()).or_else(|| find_program(name))
}

/// The netsv under test: `$NETSV_BIN`, else the one built beside the running test or program.
pub fn netsv() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NETSV_BIN") {
        return Some(PathBuf::from(path));
    }
    let exe = std::env::current_exe().ok()?;
    // target/PROFILE/demo, or target/PROFILE/deps/netns-HASH.
    exe.ancestors().skip(1).take(2).map(|dir: &Path| dir.join("netsv")).find(|path| path.is_file())
}

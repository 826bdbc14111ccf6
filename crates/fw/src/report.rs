//! Lines for the administrator.

use std::io;
use std::path::Path;

use applet::control::error_text;

/// What is said when the kernel refuses everything.
pub const NO_CAPABILITY: &str = "no permission to change the network: capability CAP_NET_ADMIN is missing";

/// Lines for the administrator, and whether any was an error.
#[derive(Default)]
pub struct Report {
    /// There was an error.
    pub failed: bool,
}

impl Report {
    /// Something to know.
    pub fn note(&self, text: &str) {
        applet::say::error(format_args!("fw: {text}\n"));
    }

    /// Something that makes the run fail in the end.
    pub fn error(&mut self, text: &str) {
        self.failed = true;
        applet::say::error(format_args!("fw: error: {text}\n"));
    }

    /// Reports a file that could not be written.
    pub fn check(&mut self, what: &Path, result: io::Result<()>) {
        if let Err(e) = result {
            self.error(&format!("unable to write {}: {}", what.display(), error_text(&e)));
        }
    }
}

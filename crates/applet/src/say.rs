//! Text for people, written so that no program ends for it: `eprintln!` panics when stderr is a
//! pipe without a reader, and a supervisor must outlive its log. Called by every applet that is not
//! a daemon with a log prefix (netd::daemon::Log).

use std::fmt;
use std::io::{self, Write};

/// To stderr, as it is; an error in doing so has nowhere to go.
pub fn error(text: fmt::Arguments<'_>) {
    // One write(2) for the line, as far as it depends on us: several processes share this
    // descriptor.
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// To stdout.
pub fn out(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

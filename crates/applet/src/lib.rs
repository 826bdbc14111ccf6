//! Layer 0: what every program of the suite uses.
//!
//! Messages, options, JSON, exit codes, the control protocol of services, and the start of a
//! process. Knows no applet and decides nothing. Depends on nix alone.

use std::ffi::OsString;

pub mod again;
pub mod control;
pub mod date;
pub mod getopt;
pub mod json;
pub mod manpage;
pub mod name;
pub mod say;
pub mod sort;
pub mod suggest;
pub mod sys;

/// An applet's entry: `argv` with the name it was called by at index 0; the result is the exit
/// code.
pub type Applet = fn(argv: Vec<OsString>) -> u8;

/// Exit code for wrong use (runit's and daemontools' convention).
pub const EXIT_USAGE: u8 = 100;
/// Exit code for a system error (runit's and daemontools' convention).
pub const EXIT_SYSTEM: u8 = 111;

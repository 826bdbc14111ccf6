//! Layer 1: runit-compatible supervision, and the control protocol that every other part speaks.
//!
//! Depends on nix alone: no async runtime in a supervisor. Applets share one signature,
//! [`Applet`]; `src/main.rs` of the root package has the table.

use std::ffi::OsString;

mod cgroup;
pub mod chpst;
pub mod control;
mod files;
pub mod getopt;
mod host;
mod instance;
pub mod json;
#[cfg(test)]
mod manpage;
mod readiness;
pub mod runsv;
pub mod runsvdir;
pub mod say;
mod scan;
pub mod service;
mod settings;
mod shared;
mod spawn;
pub mod sv;
pub mod svlogd;
mod sys;
mod unit;

pub use sys::{signal_pipe, start};

/// An applet's entry: `argv` with the name it was called by at index 0; the result is the exit code.
pub type Applet = fn(argv: Vec<OsString>) -> u8;

/// Exit code for wrong use (runit's and daemontools' convention).
pub const EXIT_USAGE: u8 = 100;
/// Exit code for a system error (runit's and daemontools' convention).
pub const EXIT_SYSTEM: u8 = 111;

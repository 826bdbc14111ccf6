//! Layer 1: runit-compatible supervision.
//!
//! Depends on nix and on the crate `applet` alone: no async runtime in a supervisor.

mod cgroup;
pub mod chpst;
mod files;
pub mod help;
mod host;
mod instance;
mod readiness;
pub mod runsv;
pub mod runsvdir;
mod scan;
pub mod service;
mod settings;
mod shared;
mod spawn;
pub mod sv;
pub mod svlogd;
mod sys;
mod unit;

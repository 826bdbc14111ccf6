//! udhcpc: a DHCP client, a drop-in for busybox's, that can also publish its lease natively for fw.
//!
//! Bytes go up and effects come down: packet socket -> frame -> message -> gate -> client (with
//! lease, schedule) -> notice (with env, record) -> netd::sink. All but daemon.rs, hook.rs, show.rs
//! and vet.rs is pure. `main` is the applet.

use std::ffi::OsString;

pub mod bounds;
pub mod cli;
pub mod client;
mod daemon;
pub mod duid;
pub mod env;
pub mod event;
pub mod frame;
pub mod gate;
pub mod hook;
pub mod lease;
pub mod message;
mod named;
pub mod notice;
pub mod options;
pub mod record;
pub mod route_list;
pub mod routes;
pub mod schedule;
pub mod show;
mod sockets;
mod state;
mod vet;

/// The applet: `argv` with its name first; the result is the exit code.
pub fn main(argv: Vec<OsString>) -> u8 {
    daemon::main(argv)
}

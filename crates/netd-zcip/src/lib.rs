//! zcip: an IPv4 link-local address without a server (RFC 3927), a drop-in for busybox's, that can
//! also publish it natively for fw.
//!
//! Bytes go up and effects come down: packet socket -> netd_core::wire::arp -> ipv4ll (with
//! netd_core::acd) -> notice -> netd::sink. All but daemon.rs is pure. `main` is the applet.

use std::ffi::OsString;

pub mod cli;
mod daemon;
pub mod ipv4ll;
pub mod notice;

/// The applet: `argv` with its name first; the result is the exit code.
pub fn main(argv: Vec<OsString>) -> u8 {
    daemon::main(argv)
}

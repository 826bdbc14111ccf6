//! Layer 1: what the daemons and fw decide and the formats that they share, without IO.
//!
//! No system call, file, environment, clock or socket can be named here: the crate has no
//! dependency that could do one, and its clippy.toml refuses std's. Machines take `now: Duration`
//! since boot.
#![forbid(unsafe_code)]
#![forbid(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)]

pub mod acd;
pub mod complaints;
pub mod left;
pub mod link;
pub mod net;
pub mod pace;
pub mod record;
pub mod request;
pub mod rng;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sink;
pub mod wire;

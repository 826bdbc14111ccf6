//! Layer 2: what two or more daemons share.
//!
//! Pure: `arp`, `acd`, `ipconf`, `netlink`, `pace`, `rng`, `sim`. Shells: the others. No trait for daemons and no generic runner: each daemon is a
//! short `select!` loop of its own.

pub mod acd;
pub mod addresses;
pub mod arp;
pub mod cage;
pub mod clock;
pub mod daemon;
pub mod directory;
pub mod disk;
pub mod given;
pub mod handler;
pub mod ipconf;
pub mod link;
pub mod netlink;
pub mod notify;
pub mod pace;
pub mod packet;
pub mod peers;
pub mod publisher;
pub mod reach;
pub mod rng;
pub mod runner;
#[cfg(feature = "sim")]
pub mod sim;

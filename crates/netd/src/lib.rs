//! Layer 2: the IO that two or more daemons share.
//!
//! No trait for daemons and no generic runner: each daemon is a short `select!` loop of its own.

pub mod addresses;
pub mod cage;
pub mod clock;
pub mod daemon;
pub mod directory;
pub mod disk;
pub mod entropy;
pub mod given;
pub mod ipconf;
pub mod link;
pub mod netlink;
pub mod packet;
pub mod peers;
pub mod reach;
mod ready;
pub mod runner;
pub mod sink;
pub mod table;

//! What must hold for any bytes: one function for each target, which panics when it does not.
//!
//! The targets in fuzz_targets/ are one line each. A finding becomes a regression test where the
//! code is, and its input stays in corpus/TARGET.

mod client;
mod dhcp;
mod files;
mod wire;

pub use client::client;
pub use dhcp::{message, oracle};
pub use files::{fw, record};
pub use wire::{arp, frame, netlink, probe};

/// Our station.
const MAC: [u8; 6] = [0xaa, 0x8e, 0x1f, 0x3c, 0x8a, 0x99];

//! The rules that must hold for any bytes: one function for each target, which panics when a rule
//! is broken.
//!
//! The targets in fuzz_targets/ are one line each. A finding becomes a regression test beside the
//! code, and its input stays in corpus/TARGET.

mod client;
mod dhcp;
mod files;
mod wire;

pub use client::client;
pub use dhcp::{message, oracle};
pub use files::{fw, record};
pub use wire::{arp, frame, netlink, probe};

/// The Ethernet address of our station.
const MAC: [u8; 6] = [0xaa, 0x8e, 0x1f, 0x3c, 0x8a, 0x99];

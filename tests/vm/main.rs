//! `cargo test --test vm`: the suite on a machine of its own, with a kernel, a network card and a
//! radio.
//!
//! It tests what a network namespace cannot show: cards that disappear, a WPA2 handshake, a whole
//! boot and power-off. The machine is slow (no acceleration) and its clock follows ours, so a busy
//! host stretches everything. Therefore the tests wait for events, and assert order and counts.
//! testkit/fetch-vm fetches the parts of the machine. One machine runs at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests fail loudly")]

mod card;
mod clock;
mod guest;
mod power;
mod roaming;
mod suspend;
mod tunnels;
mod vlan;
mod wifi;
mod wired;
mod without_ipv6;

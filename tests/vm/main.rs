//! `cargo test --test vm`: the suite on a machine of its own, with a kernel, a network card and a radio.
//!
//! What a network namespace cannot show: cards that disappear, a WPA2 handshake, a whole boot and power-off. The machine is
//! slow (no acceleration) and its clock follows ours, so a busy host stretches everything: waits are for events, and what is
//! asserted is order and counts. testkit/fetch-vm fetches what the machine is made of; one runs at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests fail loudly")]

mod clock;
mod guest;
mod power;
mod roaming;
mod suspend;
mod wifi;
mod wired;
mod without_ipv6;

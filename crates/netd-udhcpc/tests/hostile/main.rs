//! Hostile and broken servers: the museum of what was sent to DHCP clients over the years, the
//! matrix of what clients take, and the properties that hold whatever comes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

/// Shared with tests/netns, which sends the same bytes over a real wire.
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod matrix;
mod museum;
mod properties;

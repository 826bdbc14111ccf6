//! Test kit of netsv: isolated worlds of network namespaces, cables, servers, pings, a timeline.
//!
//! It is for tests, demo and bench only; the netsv binary does not contain it. Start at
//! [`isolated`] (for a test) or [`isolated_main`] (for a program), which give a [`Lab`].
//! tests/netns/main.rs shows one whole test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test kit fails loudly")]

pub mod appliance;
mod datagram;
pub mod dhcpd;
mod flood;
mod isolate;
mod kernel;
mod lab;
pub mod probe;
mod proc;
pub mod sniff;
pub mod station;
mod subject;
pub mod talk;
pub mod timeline;
pub mod uplinks;
pub mod vm;
mod wait;
pub mod wire;

pub use datagram::udp_datagram;
pub use flood::flood;
pub use isolate::{HARD_TIMEOUT, OUTER_PID, USER_NAMESPACE, isolated, isolated_for, isolated_main, possible};
pub use lab::{Cable, End, Lab, Net, find_program};
pub use nix::sys::signal::Signal;
pub use proc::{Proc, is_running, kill_9, pids_where, send};
pub use serde_json::Value;
pub use subject::{Subject, netsv, original};
pub use wait::{holds_for, poll_for, wait_for, wait_until};

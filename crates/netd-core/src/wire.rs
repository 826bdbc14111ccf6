//! Wire formats: bytes to types and back.

pub mod arp;
pub mod bpf;
pub mod link;
pub mod netlink;

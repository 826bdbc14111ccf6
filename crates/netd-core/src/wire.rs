//! Wire formats: bytes to types and back.

pub mod arp;
pub mod bpf;
pub mod devconf;
pub mod ipv4;
pub mod link;
pub mod neighbour;
pub mod netlink;
pub mod rtnetlink;

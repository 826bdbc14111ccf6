//! What ifplugd (link_IF) and the pinger (health_IF) think of an uplink.

use super::network::Network;
use super::value::Health;
use super::{Author, text};
use crate::net::IfName;

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Interface.
    pub interface: IfName,
    /// What is thought of it.
    pub health: Health,
}

impl Verdict {
    /// Understands a record.
    pub fn parse(record: &text::Record) -> Option<Verdict> {
        let (network, _) = Network::parse(record, Author::Program).ok()?;
        Some(Verdict { interface: network.interface, health: network.health? })
    }

    /// The record.
    pub fn render(&self) -> text::Record {
        Network { health: Some(self.health), ..Network::new(self.interface.clone()) }.render()
    }
}

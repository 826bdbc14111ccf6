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
    /// Keys that a verdict does not have, and their values.
    pub other: Vec<(String, String)>,
}

impl Verdict {
    /// A verdict.
    pub fn new(interface: IfName, health: Health) -> Verdict {
        Verdict { interface, health, other: Vec::new() }
    }

    /// Understands a record.
    pub fn parse(record: &text::Record) -> Option<Verdict> {
        let (network, _) = Network::parse(record, Author::Program).ok()?;
        let health = network.health?;
        let other = Network { health: None, ..network.clone() }.as_other();
        Some(Verdict { interface: network.interface, health, other })
    }

    /// The record.
    pub fn render(&self) -> text::Record {
        let other = self.other.clone();
        Network { health: Some(self.health), other, ..Network::new(self.interface.clone()) }.render()
    }
}

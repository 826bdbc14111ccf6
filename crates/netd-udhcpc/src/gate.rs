//! Which replies and which of their options are looked at: `--reject`, `--ignore`, and RFC 6842.
//!
//! Pure. It comes before the machine: a reply that is refused here is only named (named.rs), and an
//! option that is ignored was never sent. Called by daemon.rs for every reply.

use std::net::Ipv4Addr;

use netd_core::net::Prefix;

use crate::message::{MessageType, Reply, Template};
use crate::options::{CLIENT_ID, SERVER_ID};

/// Bytes of a client identifier in our log: those of RFC 4361 have 15 to 23.
const MAX_IDENTIFIER: usize = 24;

/// What the command line says of replies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// `--reject`: networks of servers, and of what they offer.
    pub reject: Vec<Prefix>,
    /// `--ignore`: options by code.
    pub ignore: Vec<u8>,
}

impl Gate {
    /// Takes the ignored options out of a reply that came from `source`. The error says why the
    /// reply is refused.
    pub fn admit(&self, reply: &mut Reply, source: Ipv4Addr, template: &Template, mac: [u8; 6]) -> Result<(), String> {
        for code in &self.ignore {
            reply.set(*code, Vec::new());
        }
        let kind = match reply.kind {
            MessageType::Nak => "nak".to_owned(),
            MessageType::Offer => format!("offer of {}", reply.yiaddr),
            _ => format!("ack of {}", reply.yiaddr),
        };
        let server = reply.ip(SERVER_ID);
        let from = server.unwrap_or(source);
        let addresses = [Some(source), server, Some(reply.yiaddr).filter(|ip| !ip.is_unspecified())];
        if let Some(network) = addresses.into_iter().flatten().find_map(|ip| self.network_of(ip)) {
            return Err(format!("ignoring {kind} from {from}: rejected by {}/{}", network.ip, network.len));
        }
        if !template.is_answered_by(reply, mac) {
            let id = reply.option(CLIENT_ID).unwrap_or_default();
            let shown: Vec<String> = id.iter().take(MAX_IDENTIFIER).map(|byte| format!("{byte:02x}")).collect();
            let more = if id.len() > MAX_IDENTIFIER { ":.." } else { "" };
            return Err(format!("ignoring {kind} from {from}: for another client, {}{more}", shown.join(":")));
        }
        Ok(())
    }

    /// Whether this address is in a rejected network.
    pub fn rejects(&self, ip: Ipv4Addr) -> bool {
        self.network_of(ip).is_some()
    }

    fn network_of(&self, ip: Ipv4Addr) -> Option<&Prefix> {
        self.reject.iter().find(|network| network.contains(ip.into()))
    }
}

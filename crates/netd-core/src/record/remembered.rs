//! An address for the next boot (`--state` of udhcpc and zcip).
//!
//! It says nothing of the network and outlives the lease: its reader only asks whether the address
//! may be used again.

use std::net::Ipv4Addr;

use super::key::{self, Key, Other, Wrong, one, show};
use super::{Author, IF, text};
use crate::net::{IfName, Mac, is_host};

/// A remembered address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Interface.
    pub interface: IfName,
    /// Its Ethernet address: another card is another station to a server.
    pub mac: Option<Mac>,
    /// The address.
    pub ip: Ipv4Addr,
    /// The server that gave it.
    pub server_id: Option<Ipv4Addr>,
    /// Keys that are not known here, and their values.
    pub other: Vec<(String, String)>,
}

/// While it is read.
#[derive(Default)]
struct Draft {
    mac: Option<Mac>,
    ip: Option<Ipv4Addr>,
    server_id: Option<Ipv4Addr>,
}

/// Every key but `if`.
const KEYS: &[Key<Draft>] = &[
    Key { name: "mac", wrong: Wrong::Record, read: |r, v| one(&mut r.mac, v, Mac::parse), write: |r| show(&r.mac) },
    Key {
        name: "ip",
        wrong: Wrong::Record,
        read: |r, v| one(&mut r.ip, v, |w| w.parse().ok()),
        write: |r| show(&r.ip),
    },
    Key {
        name: "serverid",
        wrong: Wrong::Unread,
        read: |r, v| one(&mut r.server_id, v, |w| w.parse().ok()),
        write: |r| show(&r.server_id),
    },
];

impl Remembered {
    /// Understands a record. Anything wrong with it: nothing is remembered.
    pub fn parse(record: &text::Record) -> Option<Remembered> {
        let (mut draft, mut other) = (Draft::default(), Other::new());
        key::read(KEYS, record, Author::Program, &mut draft, &mut other).ok()?;
        Some(Remembered {
            interface: super::interface(record).ok()?,
            mac: draft.mac,
            ip: draft.ip.filter(|ip| is_host(*ip))?,
            server_id: draft.server_id,
            other: key::beside_interface(other),
        })
    }

    /// The record.
    pub fn render(&self) -> text::Record {
        let mut record = text::Record::new().with(IF, self.interface.as_str());
        let draft = Draft { mac: self.mac, ip: Some(self.ip), server_id: self.server_id };
        key::write(KEYS, &draft, &self.other, &mut record);
        record
    }
}

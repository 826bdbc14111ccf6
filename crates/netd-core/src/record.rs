//! Records: how the daemons tell fw, and each other's successors, what they know.
//!
//! A record is a struct. Its text is what a shell can read (`text`), each kind has one `parse` and
//! one `render`, and a table says what its keys mean and what a wrong value costs (`key`):
//!
//! | file | written by | struct |
//! |---|---|---|
//! | conf/*.ipconf | the administrator | [`Network`] |
//! | DYNAMIC/dhcp_IF | udhcpc | [`Lease`], which is a [`Network`] to fw |
//! | DYNAMIC/zcip_IF | zcip | [`LinkLocal`], the same |
//! | DYNAMIC/link_IF, health_IF | ifplugd, pinger | [`Verdict`], the same |
//! | DYNAMIC/.pinger_IF | pinger | [`Status`] |
//! | STATE/lease_IF, ipv4ll_IF | udhcpc, zcip | [`Remembered`] |
//!
//! A new kind is a variant of [`Kind`] and a file beside these. Whoever may write the directory
//! chooses the text, so everything in it is foreign input: `text` bounds its size, and a value that
//! is not understood is no value.

use std::fmt;

use crate::net::IfName;

mod key;
mod lease;
mod network;
mod remembered;
mod status;
mod term;
pub mod text;
mod value;
mod verdict;

pub use lease::{Lease, LinkLocal};
pub use network::{Device, Network, Said};
pub use remembered::Remembered;
pub use status::{Cause, Status, TargetStatus, UplinkState};
pub use term::{Now, Term, Validity};
pub use value::{Health, Hop, MTU_MIN, Uri};
pub use verdict::Verdict;

/// The one key that every record of an interface has.
const IF: &str = "if";

/// Who wrote a record, which decides what a wrong word of it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// A person, who means what he writes: a wrong `gw` costs the record.
    Administrator,
    /// A daemon or a script, which repeats what a server said: a wrong `gw` is left out.
    Program,
}

/// A wrong value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line of the field, from 1; 0 for a record that was not read from a file.
    pub line: usize,
    /// Name of the field.
    pub key: &'static str,
    /// The value, or the word of it that is wrong.
    pub value: String,
}

impl Fault {
    fn of(record: &text::Record, key: &'static str) -> Fault {
        let field = record.lines().iter().find(|f| f.name == key);
        Fault {
            line: field.map_or(record.line, |f| f.line),
            key,
            value: field.map(|f| f.value.clone()).unwrap_or_default(),
        }
    }

    /// The record has no interface: it says nothing about anything.
    pub fn is_nameless(&self) -> bool {
        self.key == IF && self.value.is_empty()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_nameless() {
            true => f.write_str("record without `if`"),
            false => write!(f, "bad {}: {}", self.key, self.value.escape_debug()),
        }
    }
}

/// The interface of a record.
pub fn interface(record: &text::Record) -> Result<IfName, Fault> {
    let name = record.get(IF).unwrap_or_default().trim();
    IfName::parse(name).ok_or_else(|| Fault { value: name.to_owned(), ..Fault::of(record, IF) })
}

/// Which daemon's record of an interface; it names the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// udhcpc's lease.
    Lease,
    /// zcip's address.
    LinkLocal,
    /// ifplugd's verdict.
    Link,
    /// The pinger's verdict.
    Health,
    /// udhcpc's address for the next boot.
    RememberedLease,
    /// zcip's address for the next boot.
    RememberedLinkLocal,
}

impl Kind {
    /// What the file's name begins with.
    pub fn prefix(self) -> &'static str {
        match self {
            Kind::Lease => "dhcp_",
            Kind::LinkLocal => "zcip_",
            Kind::Link => "link_",
            Kind::Health => "health_",
            Kind::RememberedLease => "lease_",
            // Not the prefix of the record for fw: both directories may be the same.
            Kind::RememberedLinkLocal => "ipv4ll_",
        }
    }

    /// The file's name without `.ipconf`.
    pub fn name(self, interface: &str) -> String {
        format!("{}{interface}", self.prefix())
    }
}

#[cfg(test)]
mod tests;

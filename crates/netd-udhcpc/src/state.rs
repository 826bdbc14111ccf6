//! `--state DIR`: the address that we had, for the next boot: DIR/lease_IFACE.ipconf.
//!
//! It is not fw's record: it says nothing of the network, and outlives the lease. The client
//! only asks a server whether the address may be used again (INIT-REBOOT). Written when the address
//! or its server changes, not at every renewal: flash wears out. It is foreign input like
//! everything from a disk. Called by daemon.rs.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use netd::daemon::{Complaints, Log};
use netd::ipconf;
use netd_core::net::{IfName, Mac};
use netd_core::record::{Kind, Remembered, text::Record};

use crate::client::{Action, Change, Grant};
use crate::message::MessageType;

/// A key of [`Complaints`].
const WRITING: &str = "writing";

/// The file of one interface.
pub(crate) struct State {
    dir: PathBuf,
    name: String,
    interface: IfName,
    mac: Mac,
    complaints: Complaints,
}

/// What becomes of the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Keep,
    Write(Record),
    Remove,
}

impl State {
    /// The file in `dir` for this interface as it was `named` (an alias has a file of its own),
    /// with this Ethernet address.
    pub(crate) fn new(dir: &Path, named: &str, interface: IfName, mac: [u8; 6]) -> State {
        let name = Kind::RememberedLease.name(named);
        State { dir: dir.to_owned(), name, interface, mac: Mac(mac), complaints: Complaints::default() }
    }

    /// The address of last time. Anything wrong with the file: there is none.
    pub(crate) fn recall(&self) -> Option<Ipv4Addr> {
        let records = ipconf::read(&self.dir, &self.dir.join(format!("{}.ipconf", self.name))).ok()?;
        self.understand(records.first()?)
    }

    fn understand(&self, record: &Record) -> Option<Ipv4Addr> {
        let old = Remembered::parse(record)?;
        // Another card is another station to the server.
        (old.interface == self.interface && old.mac == Some(self.mac)).then_some(old.ip)
    }

    fn record(&self, grant: &Grant) -> Record {
        let server_id = Some(grant.server_id).filter(|ip| !ip.is_unspecified());
        let (interface, mac) = (self.interface.clone(), Some(self.mac));
        Remembered { interface, mac, ip: grant.ip, server_id, other: Vec::new() }.render()
    }

    /// What an action of the machine means for it.
    pub(crate) fn fate(&self, action: &Action) -> Fate {
        match action {
            Action::Tell(Change::Bound(grant) | Change::Renew(grant)) => Fate::Write(self.record(grant)),
            // An address that was given back or refused is not to be asked for again; one that has
            // expired may be.
            Action::Tell(Change::Nak(_)) => Fate::Remove,
            Action::Send(message, _) => match message.kind {
                MessageType::Release | MessageType::Decline => Fate::Remove,
                MessageType::Discover
                | MessageType::Offer
                | MessageType::Request
                | MessageType::Ack
                | MessageType::Nak => Fate::Keep,
            },
            Action::Tell(Change::Deconfig | Change::LeaseFail | Change::Stop)
            | Action::SendArp(_)
            | Action::Watch(_)
            | Action::Log(_)
            | Action::Debug(_)
            | Action::Background
            | Action::Exit(_) => Fate::Keep,
        }
    }

    /// Does it: behind the action, because a slow disk takes its time.
    pub(crate) fn settle(&mut self, fate: Fate, log: &Log) {
        let done = match fate {
            Fate::Keep => return,
            Fate::Write(record) => ipconf::publish(&self.dir, &self.name, &[record]),
            Fate::Remove => ipconf::withdraw(&self.dir, &self.name),
        };
        match done {
            Ok(_) => drop(self.complaints.right(WRITING)),
            Err(e) => {
                log.wrong(&mut self.complaints, WRITING, &format!("{}/{}.ipconf: {e}", self.dir.display(), self.name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xab];

    fn state() -> State {
        State::new(Path::new("/nowhere"), "eth0", IfName::parse("eth0").unwrap(), MAC)
    }

    fn record(change: (&str, &str)) -> Record {
        let whole = Record::new().with("if", "eth0").with("mac", "02:00:00:00:00:ab").with("ip", "10.9.0.7");
        whole.with(change.0, change.1)
    }

    #[test]
    fn only_our_own_address_is_recalled() {
        assert_eq!(state().understand(&record(("serverid", "10.9.0.1"))), Some(Ipv4Addr::new(10, 9, 0, 7)));
        for change in [
            ("if", "eth1"),
            ("mac", "02:00:00:00:00:ac"),
            ("ip", "10.9.0.7; reboot"),
            ("ip", "0.0.0.0"),
            ("ip", "255.255.255.255"),
            ("ip", "127.0.0.1"),
            ("ip", ""),
        ] {
            assert_eq!(state().understand(&record(change)), None, "{change:?}");
        }
        assert_eq!(state().recall(), None);
    }
}

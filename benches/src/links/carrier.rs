//! The moment at which the kernel reports a carrier, from a socket of the bench's own. `ip monitor`
//! would add its own start and wake-up.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use testkit::Net;

/// rtnetlink(7): links.
const RTMGRP_LINK: u32 = 1;
/// netdevice(7).
const IFF_RUNNING: u32 = 0x40;
/// netlink(7): struct nlmsghdr; rtnetlink(7): in struct ifinfomsg, index and flags follow family,
/// padding and type.
const INDEX: usize = 16 + 4;
const FLAGS: usize = INDEX + 4;

/// The messages that a socket in the namespace of an interface has received: whether the interface
/// runs, and when the kernel said so.
pub(crate) struct Carrier(Receiver<(Instant, bool)>);

impl Carrier {
    /// It listens when this returns.
    pub(crate) fn watch(net: &Net, interface: &str) -> io::Result<Carrier> {
        let index = net.run(&["cat", &format!("/sys/class/net/{interface}/ifindex")]);
        let index: u32 = index.trim().parse().map_err(|_| io::Error::other(format!("{interface}: {index:?}")))?;
        let path = net.path();
        let (ready, listens) = channel();
        let (tx, rx) = channel();
        // The socket belongs to the namespace of the thread that makes it.
        std::thread::spawn(move || {
            let socket = listen(&path);
            let _ = ready.send(socket.as_ref().map(drop).map_err(|e| io::Error::other(e.to_string())));
            let Ok(socket) = socket else { return };
            let mut bytes = [0; 8192];
            // The loop ends with its namespace. An earlier watch without a reader ends at its next
            // message.
            while let Ok(len) = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                let now = Instant::now();
                let message = bytes.get(..len).unwrap_or_default();
                let word = |at: usize| message.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
                let runs = word(FLAGS).map(|flags| flags & IFF_RUNNING != 0);
                if let (Some(runs), true) = (runs, word(INDEX) == Some(index))
                    && tx.send((now, runs)).is_err()
                {
                    return;
                }
            }
        });
        listens.recv().map_err(io::Error::other)??;
        Ok(Carrier(rx))
    }

    /// Drops the messages that have arrived.
    pub(crate) fn drain(&self) {
        self.0.try_iter().for_each(drop);
    }

    /// The moment at which the kernel first reported that the interface is `running`.
    pub(crate) fn wait(&self, running: bool, limit: Duration) -> Option<Instant> {
        let end = Instant::now() + limit;
        loop {
            let (at, runs) = self.0.recv_timeout(end.saturating_duration_since(Instant::now())).ok()?;
            if runs == running {
                return Some(at);
            }
        }
    }
}

fn listen(namespace: &Path) -> io::Result<OwnedFd> {
    setns(File::open(namespace)?, CloneFlags::CLONE_NEWNET)?;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
    Ok(socket)
}

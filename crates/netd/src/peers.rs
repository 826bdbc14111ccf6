//! The services that a daemon steers beside fw, found by name, and what the cage means for them.
//!
//! A shell. The cage holds what is there when it is closed. A service that is made, or made again,
//! later is out of reach, because a rule that is wide enough for it would let an attacker who has
//! taken the daemon over write every ./run. The daemon finds out here and ends, and its supervisor
//! starts it again, in a cage that knows the service. Called by ifplugd and the pinger.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use applet::control::ServiceDir;

use crate::cage::Files;

/// Device, inode, and when it was made: an inode may have been another directory's before.
type Identity = (u64, u64, Option<SystemTime>);

/// The services, as they were when [`Peers::look`] looked.
#[derive(Debug)]
pub struct Peers(Vec<(String, Option<Identity>)>);

impl Peers {
    /// As they are now. To be called before the cage is entered.
    pub fn look(names: impl IntoIterator<Item = String>) -> Peers {
        let look = |name: String| {
            ServiceDir::resolve(name.as_ref()).prepare();
            let identity = identity(&name);
            (name, identity)
        };
        Peers(names.into_iter().map(look).collect())
    }

    /// What the cage is to leave.
    pub fn files(&self) -> impl Iterator<Item = Files> {
        self.0.iter().map(|(name, _)| Files::Peer(name.into()))
    }

    /// Whether there is such a service now, and another than there was, or none.
    pub fn is_new(&self, name: &str) -> bool {
        let now = identity(name);
        now.is_some() && self.0.iter().any(|(n, was)| n == name && *was != now)
    }
}

fn identity(name: &str) -> Option<Identity> {
    let found = fs::metadata(ServiceDir::resolve(name.as_ref()).supervise()).ok()?;
    Some((found.dev(), found.ino(), found.created().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_was_made_or_made_again_since_is_new() {
        let dir = std::env::temp_dir().join(format!("peers-test-{}", std::process::id()));
        let name = |n: &str| dir.join(n).to_str().unwrap().to_owned();
        let [old, later, never, again] = ["old", "later", "never", "again"].map(name);
        for service in [&old, &again] {
            fs::create_dir_all(service).unwrap();
        }
        let peers = Peers::look([&old, &later, &never, &again].map(Clone::clone));
        fs::create_dir_all(format!("{later}/supervise")).unwrap();
        fs::rename(&again, name("away")).unwrap();
        fs::create_dir_all(format!("{again}/supervise")).unwrap();
        let new = [&old, &later, &never, &again].map(|name| peers.is_new(name));
        assert_eq!(new, [false, true, false, true]);
        fs::remove_dir_all(dir).unwrap();
    }
}

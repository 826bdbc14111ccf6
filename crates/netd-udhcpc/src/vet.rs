//! Shell of routes.rs: asks the kernel what other interfaces carry, and says what was refused. Called by daemon.rs.

use std::io;

use netd::daemon::Log;
use netd::reach::Reach;

use crate::client::Change;
use crate::routes::{self, Policy};

/// Looks at the routes of every lease.
pub(crate) struct Vetter {
    policy: Policy,
    /// Whom to ask, or why nobody.
    reach: io::Result<Reach>,
    /// What was said last about refused routes.
    refused: String,
}

impl Vetter {
    pub(crate) fn new(policy: Policy) -> Vetter {
        let reach = if policy == Policy::Safe { Reach::open() } else { Err(io::ErrorKind::Unsupported.into()) };
        Vetter { policy, reach, refused: String::new() }
    }

    /// Takes the routes out that the policy refuses, and says so when it is news.
    pub(crate) fn vet(&mut self, change: &mut Change, ifindex: u32, log: &Log) {
        let (Change::Bound(grant) | Change::Renew(grant)) = change else { return };
        let mut elsewhere = Vec::new();
        if self.policy.asks(&grant.reply) {
            let asked = match &mut self.reach {
                Ok(reach) => reach.elsewhere(ifindex),
                Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
            };
            match asked {
                Ok(found) => elsewhere = found,
                Err(e) => log.info(format_args!("can't see the routes of other interfaces: {e}")),
            }
        }
        let refused = routes::vet(self.policy, &mut grant.reply, &elsewhere);
        if !refused.is_empty() && refused != self.refused {
            log.info(&refused);
        }
        self.refused = refused;
    }
}

//! Shell of routes.rs and bounds.rs: asks the kernel what other interfaces carry, and logs which
//! parts of a lease are not taken. Called by daemon.rs.

use std::io;

use netd::daemon::Log;
use netd::reach::Reach;

use crate::bounds;
use crate::client::Change;
use crate::routes::{self, Policy};

/// Looks at the routes of every lease.
pub(crate) struct Vetter {
    policy: Policy,
    /// Not `--no-default-route`.
    default_route: bool,
    /// The kernel's socket, or why there is none.
    reach: io::Result<Reach>,
    /// The lease goes to a record, and not to a script.
    native: bool,
    /// The last lines about refused routes and about lists that are too long.
    said: [String; 2],
}

impl Vetter {
    pub(crate) fn new(policy: Policy, default_route: bool, native: bool) -> Vetter {
        let reach = if policy == Policy::Safe { Reach::open() } else { Err(io::ErrorKind::Unsupported.into()) };
        Vetter { policy, default_route, reach, native, said: Default::default() }
    }

    /// Takes out the routes that the policy refuses and the elements that do not fit, and logs that
    /// when it is new.
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
        if !self.default_route {
            routes::drop_default(&mut grant.reply);
        }
        let words = [refused, bounds::cut(&mut grant.reply, self.native)];
        for (news, said) in words.iter().zip(&self.said) {
            if !news.is_empty() && news != said {
                log.info(news);
            }
        }
        self.said = words;
    }
}

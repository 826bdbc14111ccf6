//! What the machine tells -> what the sink gets: a script's event and variables, and the record's
//! fate.
//!
//! Pure. The one place where the two ways to act on a lease meet. Called by daemon.rs.

use netd_core::sink::{News, RecordChange};

use crate::client::Change;
use crate::env;
use crate::record::{Context, record};

/// The news of a change.
pub fn notice(context: &Context, interface: &str, change: &Change) -> News {
    let bare = |event, record| News { event, env: env::bare(interface), record };
    match change {
        Change::Deconfig => bare(Some("deconfig"), RecordChange::Withdraw),
        Change::LeaseFail => bare(Some("leasefail"), RecordChange::Keep),
        Change::Stop => bare(None, RecordChange::Withdraw),
        Change::Nak(reply) => News { event: Some("nak"), env: env::full(interface, reply), record: RecordChange::Keep },
        Change::Bound(grant) | Change::Renew(grant) => News {
            event: Some(if matches!(change, Change::Bound(_)) { "bound" } else { "renew" }),
            env: env::full(interface, &grant.reply),
            record: RecordChange::Publish(record(context, grant)),
        },
    }
}

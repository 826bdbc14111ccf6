//! What the machine tells -> what the handler gets: a script's event and variables, and the record's fate.
//!
//! Pure. The one place where the two ways to act on a lease meet. Called by daemon.rs.

use netd::handler::Notice;
use netd::publisher::RecordChange;

use crate::client::Change;
use crate::env;
use crate::record::{Context, record};

/// The notice for a change.
pub fn notice(context: &Context, interface: &str, change: &Change) -> Notice {
    let bare = |event, record| Notice { event, env: env::bare(interface), record };
    match change {
        Change::Deconfig => bare(Some("deconfig"), RecordChange::Withdraw),
        Change::LeaseFail => bare(Some("leasefail"), RecordChange::Keep),
        Change::Stop => bare(None, RecordChange::Withdraw),
        Change::Nak(reply) => {
            Notice { event: Some("nak"), env: env::full(interface, reply), record: RecordChange::Keep }
        }
        Change::Bound(grant) | Change::Renew(grant) => Notice {
            event: Some(if matches!(change, Change::Bound(_)) { "bound" } else { "renew" }),
            env: env::full(interface, &grant.reply),
            record: RecordChange::Publish(record(context, grant)),
        },
    }
}

//! The commands of fw, one file each, and those that only write a record.
//!
//! Shell. Called by lib.rs.

use std::fs;

use applet::control::{Command, ControlError, ServiceDir, error_text};
use netd::ipconf;
use netd_core::record::text::Record;
use netd_core::record::{Author, Network};

use crate::input::Paths;
use crate::report::EXIT_OK;
use crate::run;

pub mod check;
pub mod confirm;
pub mod down;
pub mod plan;
pub mod show;

/// `fw apply`. `once`: it is the service's own run, which a daemon may have asked for.
pub fn apply(paths: &Paths, once: bool, confirm: Option<u64>) -> Result<u8, String> {
    // Before fw reads anything: a `u` that arrives from now on means one more run, which reads what
    // the sender published before it.
    if once && let Err(e) = ServiceDir::at(".").send(&[Command::Once]) {
        applet::say::error(format_args!("fw: warning: .: {e}: not made one-shot\n"));
    }
    run::may_change()?;
    if !once && let Err(e) = fs::remove_file(paths.down()) {
        // By hand: the administrator wants it up again.
        if e.kind() != std::io::ErrorKind::NotFound {
            return Err(format!("unable to remove {}: {}", paths.down().display(), error_text(&e)));
        }
    }
    confirm::apply(paths, once, confirm)
}

/// `fw publish`.
pub fn publish(paths: &Paths, name: &str, fields: &[&str]) -> Result<u8, String> {
    let mut record = Record::new();
    for field in fields {
        let (key, value) = field.split_once('=').ok_or_else(|| format!("not KEY=VALUE: {}", field.escape_debug()))?;
        if !Network::keys().any(|known| known == key) {
            return Err(format!("unknown key: {}", key.escape_debug()));
        }
        record.set(key, value);
    }
    // The caller has typed these words himself, so each wrong one is refused.
    let (_, left_out) = Network::parse(&record, Author::Administrator).map_err(|fault| fault.to_string())?;
    if let Some(fault) = left_out.first() {
        return Err(fault.to_string());
    }
    let changed = ipconf::publish(&paths.dynamic, name, &[record])
        .map_err(|e| format!("unable to publish {}: {}", name.escape_debug(), error_text(&e)))?;
    Ok(tell_fw(changed))
}

/// `fw withdraw`.
pub fn withdraw(paths: &Paths, name: &str) -> Result<u8, String> {
    let changed = ipconf::withdraw(&paths.dynamic, name)
        .map_err(|e| format!("unable to withdraw {}: {}", name.escape_debug(), error_text(&e)))?;
    Ok(tell_fw(changed))
}

/// Sends one `u` to the service, after the file is in its place. A service that does not run is no
/// failure: the next run reads the file.
fn tell_fw(changed: bool) -> u8 {
    if changed && let Err(e) = netd::sink::notify("fw".as_ref()) {
        let hint = match e {
            ControlError::Missing(_) | ControlError::NotRunning(_) => "run `fw apply`",
            ControlError::Full | ControlError::Io(..) => "the record counts at the next run",
        };
        applet::say::error(format_args!("fw: warning: fw: {e}: {hint}\n"));
    }
    EXIT_OK
}

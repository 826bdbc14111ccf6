//! Telling a one-shot service (fw) that its input has changed: one `u`, AFTER the file is in its place.
//!
//! A shell. At boot every service is started in the same moment, and a daemon may be ready before there is a runsv for fw; one that
//! was killed is replaced within milliseconds. So when nobody listens it is said again, for five seconds, and only what stays so is worth a
//! line. A service that is not there at all is named at once. Called by publisher.rs, and by who tells without a record.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use applet::control::{Command, ControlError, ServiceDir};
use tokio::task::JoinHandle;

use crate::daemon::Log;

/// The first pause; each is twice the one before, and together they last five seconds.
const PAUSE: Duration = Duration::from_millis(20);
const TRIES: u32 = 8;

/// Sends the `u`.
pub fn notify(service: &OsStr) -> Result<(), ControlError> {
    ServiceDir::resolve(service).send(&[Command::Up])
}

/// Tells one service, and whoever reads the log when it cannot be told.
pub struct Notifier {
    service: OsString,
    /// It could not be told, and that was logged: said once until it can.
    said: Arc<AtomicBool>,
    again: Option<JoinHandle<()>>,
}

impl Notifier {
    /// For a service by its name or path.
    pub fn new(service: OsString) -> Notifier {
        Notifier { service, said: Arc::default(), again: None }
    }

    /// One `u`, now or as soon as somebody listens. Must be called inside a tokio runtime.
    pub fn tell(&mut self, log: &Log) {
        if let Some(again) = self.again.take() {
            again.abort();
        }
        let told = notify(&self.service);
        if let Err(ControlError::NotRunning(_)) = told {
            self.again = Some(tokio::spawn(insist(self.service.clone(), self.said.clone(), log.clone())));
        } else {
            report(told, &self.service, &self.said, log);
        }
    }
}

async fn insist(service: OsString, said: Arc<AtomicBool>, log: Log) {
    let mut told = Ok(());
    for doublings in 0..TRIES {
        tokio::time::sleep(PAUSE * (1 << doublings)).await;
        told = notify(&service);
        if told.is_ok() {
            break;
        }
    }
    report(told, &service, &said, &log);
}

/// The file is in its place and the lease is good: said once.
fn report(told: Result<(), ControlError>, service: &OsStr, said: &AtomicBool, log: &Log) {
    if let Err(e) = &told
        && !said.load(Ordering::Relaxed)
    {
        log.info(format_args!("published, but cannot notify {}: {e}", Path::new(service).display()));
    }
    said.store(told.is_err(), Ordering::Relaxed);
}

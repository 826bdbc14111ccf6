//! A daemon's record in the dynamic directory: written, then fw is told.
//!
//! A shell. The file is in its place before fw is told. One that could not be written (a full /run) is tried again until it can
//! be; what is newer replaces what waits. Called by handler.rs, zcip, ifplugd and the pinger.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::slice;
use std::time::Duration;

use tokio::time::Instant;

use crate::daemon::Log;
use crate::ipconf;
use crate::notify::Notifier;
use netd_core::record::text::Record;

/// Until the first new try; the next pauses are each twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

/// What becomes of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordChange {
    /// Nothing.
    Keep,
    /// It is written.
    Publish(Record),
    /// It is removed.
    Withdraw,
}

/// Of one record.
pub struct Publisher {
    dir: PathBuf,
    name: String,
    fw: Notifier,
    /// fw was told of what this process knows.
    told: bool,
    unwritten: Option<Unwritten>,
}

/// The newest change, which the disk did not take.
struct Unwritten {
    change: RecordChange,
    again: Instant,
    pause: Duration,
}

impl Publisher {
    /// Writes DIR/NAME.ipconf, then sends `u` to the service `notify`.
    pub fn new(dir: PathBuf, name: String, notify: OsString) -> Publisher {
        Publisher { dir, name, fw: Notifier::new(notify), told: false, unwritten: None }
    }

    /// Writes or removes it, now or as soon as that works. Must be called inside a tokio runtime.
    pub fn act(&mut self, change: RecordChange, log: &Log) {
        if change == RecordChange::Keep {
            return;
        }
        self.unwritten = None;
        if let Err(e) = self.write(&change, log) {
            log.info(format_args!("unable to write {}: {e}: trying again", self.path().display()));
            self.unwritten = Some(Unwritten { change, again: Instant::now() + FIRST_PAUSE, pause: FIRST_PAUSE });
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(format!("{}.ipconf", self.name))
    }

    fn write(&mut self, change: &RecordChange, log: &Log) -> io::Result<()> {
        // The first one is told always: a predecessor may have been killed between writing it and telling.
        let (changed, told) = match change {
            RecordChange::Keep => return Ok(()),
            RecordChange::Publish(record) => {
                (ipconf::publish(&self.dir, &self.name, slice::from_ref(record))?, self.told)
            }
            // One that was not there means nothing to fw.
            RecordChange::Withdraw => (ipconf::withdraw(&self.dir, &self.name)?, true),
        };
        self.told = true;
        if changed || !told {
            self.fw.tell(log);
        }
        Ok(())
    }

    /// Tries again what could not be written. Never ends; safe to drop and to call again.
    pub async fn insist(&mut self, log: &Log) -> Infallible {
        loop {
            let Some(Unwritten { again, .. }) = self.unwritten else { return std::future::pending().await };
            tokio::time::sleep_until(again).await;
            let Some(Unwritten { change, again, pause }) = self.unwritten.take() else { continue };
            if self.write(&change, log).is_ok() {
                log.info(format_args!("{} is written", self.path().display()));
            } else {
                let pause = (pause * 2).min(LONGEST_PAUSE);
                self.unwritten = Some(Unwritten { change, again: again + pause, pause });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn temp(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("publisher-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn publisher(dir: &Path) -> Publisher {
        Publisher::new(dir.to_owned(), "dhcp_x0".into(), "/nonexistent/fw".into())
    }

    #[test]
    fn a_record_is_written_and_removed() {
        let (dir, log) = (temp("ipconf"), Log::new("test", None, 0));
        let mut publisher = publisher(&dir);
        publisher.act(RecordChange::Publish(Record::new().with("if", "x0")), &log);
        assert!(dir.join("dhcp_x0.ipconf").exists());
        publisher.act(RecordChange::Withdraw, &log);
        assert!(!dir.join("dhcp_x0.ipconf").exists());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_record_that_cannot_be_written_is_written_as_soon_as_it_can_be_and_it_is_the_newest() {
        let (dir, log) = (temp("unwritten"), Log::new("test", None, 0));
        let place = dir.join("full");
        std::fs::write(&place, "no directory").unwrap();
        let written = || std::fs::read_to_string(place.join("dhcp_x0.ipconf")).ok();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut publisher = publisher(&place);
            for ip in ["192.0.2.1", "192.0.2.2"] {
                publisher.act(RecordChange::Publish(Record::new().with("if", "x0").with("ip", ip)), &log);
            }
            std::fs::remove_file(&place).unwrap();
            let wait = async {
                while written().is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                never = publisher.insist(&log) => match never {},
                done = tokio::time::timeout(Duration::from_secs(20), wait) => done.unwrap(),
            }
        });
        assert!(written().unwrap().contains("192.0.2.2"));
        std::fs::remove_dir_all(dir).unwrap();
    }
}

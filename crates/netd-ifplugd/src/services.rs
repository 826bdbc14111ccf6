//! The services that live on a link, without a shell: the link's record for fw, and `d`/`u` through control fifos.
//!
//! Order is the correctness argument: the record is in its place before fw is told. What cannot be done is said once
//! per change of state, not per try. Called by `watch`.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;

use applet::control::{Command, ControlError, RunState, ServiceDir, Want};
use netd::daemon::Log;
use netd::peers::Peers;
use netd::publisher::{Publisher, RecordChange};
use netd_core::record::text::Record;

/// The service directories of an interface, by the seed's names.
const PREFIXES: [&str; 2] = ["dhcp_", "zcip_"];

/// One interface's services.
pub(crate) struct Services {
    iface: String,
    /// The link's, for fw.
    pub(crate) record: Publisher,
    /// What went wrong last, by whom.
    complaints: Vec<(String, String)>,
    /// The services as they were when the cage was entered.
    peers: Option<Peers>,
    /// One of them is another now.
    out_of_reach: Option<String>,
}

/// Their names.
pub(crate) fn names(iface: &str) -> impl Iterator<Item = String> {
    PREFIXES.iter().map(move |prefix| format!("{prefix}{iface}"))
}

impl Services {
    /// Nothing is touched yet.
    pub(crate) fn new(iface: &str, dir: PathBuf, fw: OsString, peers: Option<Peers>) -> Services {
        let record = Publisher::new(dir, format!("link_{iface}"), fw);
        Services { iface: iface.to_owned(), record, complaints: Vec::new(), peers, out_of_reach: None }
    }

    /// Writes the record with `health` (up or down), and tells fw when that changed anything.
    pub(crate) fn publish(&mut self, health: &str, log: &Log) {
        let record = Record::new().with("if", self.iface.as_str()).with("health", health);
        self.record.act(RecordChange::Publish(record), log);
    }

    /// `u` or `d` to each service that is there and is not steered so already.
    pub(crate) fn control(&mut self, command: Command, log: &Log) {
        let iface = self.iface.clone();
        for name in names(&iface) {
            let service = ServiceDir::resolve(name.as_ref());
            let text = match send(&service, command) {
                Ok(true) => {
                    log.debug(format_args!("sent {} to {name}", char::from(command.letter())));
                    None
                }
                // A service that nobody installed is not missed.
                Ok(false) | Err(ControlError::Missing(_)) => None,
                Err(e) => {
                    let is_new = self.peers.as_ref().is_some_and(|peers| peers.is_new(&name));
                    self.out_of_reach = is_new.then(|| name.clone()).or(self.out_of_reach.take());
                    Some(format!("unable to control {name}: {e}"))
                }
            };
            self.complain(&name, text, log);
        }
    }

    /// A service that could not be told because it was made after the cage was entered.
    pub(crate) fn out_of_reach(&self) -> Option<&str> {
        self.out_of_reach.as_deref()
    }

    /// Logs what is new, and what is good again.
    fn complain(&mut self, who: &str, text: Option<String>, log: &Log) {
        let before = self.complaints.iter().position(|(w, _)| w == who).map(|at| self.complaints.swap_remove(at).1);
        if let Some(text) = text {
            if before.as_ref() != Some(&text) {
                log.info(&text as &dyn Display);
            }
            self.complaints.push((who.to_owned(), text));
        }
    }
}

/// Whether a letter had to be sent.
fn send(service: &ServiceDir, command: Command) -> Result<bool, ControlError> {
    service.check_running()?;
    if service.status().is_ok_and(|s| is_steered(s.want, s.state, command)) {
        return Ok(false);
    }
    service.send(&[command])?;
    Ok(true)
}

/// Whether runsv steers there already. A run that is wanted down but has not ended gets its `d`: one more TERM does
/// no harm, a lost one does.
fn is_steered(want: Want, state: RunState, command: Command) -> bool {
    match command {
        Command::Up => want == Want::Up,
        Command::Down => want == Want::Down && state == RunState::Down,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use netd::ipconf;

    use super::*;

    #[test]
    fn what_is_right_already_is_left_alone() {
        let table = [
            (Want::Up, RunState::Run, Command::Up, true),
            (Want::Up, RunState::Down, Command::Up, true),
            (Want::Down, RunState::Run, Command::Up, false),
            (Want::Down, RunState::Down, Command::Up, false),
            (Want::Up, RunState::Run, Command::Down, false),
            (Want::Down, RunState::Finish, Command::Down, false),
            (Want::Down, RunState::Down, Command::Down, true),
        ];
        for (want, state, command, steered) in table {
            assert_eq!(is_steered(want, state, command), steered, "{want:?} {state:?} {command:?}");
        }
    }

    #[test]
    fn the_record_says_what_fw_reads() {
        let dir = std::env::temp_dir().join(format!("ifplugd-services-{}", std::process::id()));
        let log = Log::new("ifplugd", Some("eth9"), 0);
        let mut services = Services::new("eth9", dir.clone(), "/nonexistent/fw".into(), None);
        let health = || {
            let records = ipconf::read(&dir, &dir.join("link_eth9.ipconf")).unwrap();
            (records[0].get("if").map(str::to_owned), records[0].get("health").map(str::to_owned))
        };
        services.publish("down", &log);
        assert_eq!(health(), (Some("eth9".into()), Some("down".into())));
        services.publish("up", &log);
        assert_eq!(health(), (Some("eth9".into()), Some("up".into())));
        services.record.act(RecordChange::Withdraw, &log);
        assert_eq!(ipconf::list(&dir).unwrap(), Vec::<PathBuf>::new());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

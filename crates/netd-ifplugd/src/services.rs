//! The services that live on a link, without a shell: the link's record for fw, and `d`/`u` through
//! control fifos.
//!
//! Order is the correctness argument: the record is in its place before fw is told. What cannot be
//! done is said once per change of state, not per try. Called by `watch`.

use applet::control::{Command, ControlError, RunState, ServiceDir, Want};
use netd::daemon::{Complaints, Log};
use netd::peers::Peers;
use netd::sink::{News, RecordChange};
use netd_core::net::IfName;
use netd_core::record::{Health, Verdict};

/// The service directories of an interface, by the seed's names.
const PREFIXES: [&str; 2] = ["dhcp_", "zcip_"];

/// One interface's services.
pub(crate) struct Services {
    iface: String,
    complaints: Complaints,
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
    pub(crate) fn new(iface: &str, peers: Option<Peers>) -> Services {
        Services { iface: iface.to_owned(), complaints: Complaints::default(), peers, out_of_reach: None }
    }

    /// `u` or `d` to each service that is there and is not steered so already.
    pub(crate) fn control(&mut self, command: Command, log: &Log) {
        let iface = self.iface.clone();
        for name in names(&iface) {
            let service = ServiceDir::resolve(name.as_ref());
            match send(&service, command) {
                Ok(sent) => {
                    self.complaints.right(&name);
                    if sent {
                        log.debug(format_args!("sent {} to {name}", char::from(command.letter())));
                    }
                }
                // A service that is not installed is not missed.
                Err(ControlError::Missing(_)) => drop(self.complaints.right(&name)),
                Err(e) => {
                    log.wrong(&mut self.complaints, &name, &format!("unable to control {name}: {e}"));
                    let is_new = self.peers.as_ref().is_some_and(|peers| peers.is_new(&name));
                    self.out_of_reach = is_new.then_some(name).or(self.out_of_reach.take());
                }
            }
        }
    }

    /// A service that could not be told because it was made after the cage was entered.
    pub(crate) fn out_of_reach(&self) -> Option<&str> {
        self.out_of_reach.as_deref()
    }
}

/// The link's record, for fw.
pub(crate) fn record(iface: &IfName, health: Health) -> News {
    News::of_record(RecordChange::Publish(Verdict::new(iface.clone(), health).render()))
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

/// Whether runsv steers there already. A run that is wanted down but has not ended gets its `d`:
/// one more TERM does no harm, a lost one does.
fn is_steered(want: Want, state: RunState, command: Command) -> bool {
    match command {
        Command::Up => want == Want::Up,
        Command::Down => want == Want::Down && state == RunState::Down,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
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
        let interface = IfName::parse("eth9").unwrap();
        for health in [Health::Down, Health::Up] {
            let RecordChange::Publish(record) = record(&interface, health).record else {
                panic!("nothing is published")
            };
            assert_eq!(Verdict::parse(&record), Some(Verdict::new(interface.clone(), health)));
        }
    }
}

//! `--hook PROG`: a program that is run when the lease has changed, after the record is written.
//!
//! A shell, but for [`News`]. The runner is forked before the cage (netd::runner), so PROG runs
//! outside of it, directly and never by a shell. The client never waits here: one PROG runs at a
//! time, and of the events that come meanwhile only the newest one is kept, because each has the
//! whole state. An error is logged and changes nothing else. Called by daemon.rs.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use netd::daemon::Log;
use netd::runner::{Outcome, Program, Runner};

use crate::client::Change;
use crate::env::{self, Env};

/// Where PROG finds the path of the record.
const RECORD: &str = "UDHCPC_RECORD";

/// The changes that PROG hears of, each with the variables of a script.
#[derive(Debug, Default)]
pub struct News {
    /// Whether the last thing told was a lease; `None`: nothing was told.
    bound: Option<bool>,
}

impl News {
    /// The argument and the variables; `None`: this changes nothing of the lease.
    pub fn of(&mut self, interface: &str, change: &Change) -> Option<(&'static str, Env)> {
        let (event, env) = match change {
            Change::Bound(grant) => ("bound", env::full(interface, &grant.reply)),
            Change::Renew(grant) => ("renew", env::full(interface, &grant.reply)),
            Change::Deconfig | Change::Stop => ("deconfig", env::bare(interface)),
            Change::LeaseFail | Change::Nak(_) => return None,
        };
        let bound = event != "deconfig";
        // A predecessor that was killed may have told of a lease: the first one always counts.
        let before = self.bound.replace(bound);
        (bound || before != Some(false)).then_some((event, env))
    }
}

/// PROG and what waits for it.
pub(crate) struct Hook {
    runner: Runner,
    name: String,
    news: News,
    busy: bool,
    /// The newest event of those that came while PROG ran.
    waiting: Option<(&'static str, Env)>,
    /// The runner was killed.
    lost: bool,
}

/// Forks the runner, before the client does anything else. `background`: the client may go there,
/// so PROG has no terminal from the beginning.
pub(crate) fn fork(path: OsString, pass: &[String], record: OsString, background: bool) -> io::Result<Runner> {
    let mut program = Program::script(path, pass);
    program.env.push((RECORD.into(), record));
    let runner = Runner::start("udhcpc", program)?;
    if background {
        runner.background()?;
    }
    Ok(runner)
}

impl Hook {
    /// Must be called inside a tokio runtime. A runner that cannot be watched costs the hook and
    /// not the lease.
    pub(crate) fn new(runner: Runner, log: &Log) -> Option<Hook> {
        let runner = runner.watched().inspect_err(|e| log.info(format_args!("can't run the hook: {e}"))).ok()?;
        let name = Path::new(runner.program()).display().to_string();
        Some(Hook { runner, name, news: News::default(), busy: false, waiting: None, lost: false })
    }

    /// Has PROG run, now or when the one before has ended.
    pub(crate) fn tell(&mut self, interface: &str, change: &Change, log: &Log) {
        let Some((event, env)) = self.news.of(interface, change).filter(|_| !self.lost) else { return };
        if !self.busy {
            self.run(event, &env, log);
        } else if self.waiting.replace((event, env)).is_none() {
            log.debug(format_args!("{} still runs: {event} waits", self.name));
        }
    }

    fn run(&mut self, event: &str, env: &Env, log: &Log) {
        match self.runner.run(event, env) {
            Ok(()) => self.busy = true,
            Err(e) => log.info(format_args!("can't have '{}' run: {e}", self.name)),
        }
    }

    /// Waits for the end of PROG and has the next one run.
    async fn turn(&mut self, log: &Log) -> Infallible {
        while !self.lost {
            let name = &self.name;
            match self.runner.ended().await {
                Ok(Outcome::Code(0)) => {}
                Ok(Outcome::Code(code)) => log.debug(format_args!("{name} ended with code {code}")),
                Ok(Outcome::Signal(signal)) => log.info(format_args!("{name} was killed by signal {signal}")),
                Ok(Outcome::NotStarted(errno)) => {
                    log.info(format_args!("can't execute '{name}': {}", io::Error::from_raw_os_error(errno)));
                }
                Ok(Outcome::Refused) => log.info(format_args!("'{name}' is not run with these variables")),
                Err(_) => {
                    log.info(format_args!("the runner of {name} was killed: it is not run any more"));
                    self.lost = true;
                }
            }
            self.busy = false;
            if let Some((event, env)) = self.waiting.take().filter(|_| !self.lost) {
                self.run(event, &env, log);
            }
        }
        std::future::pending().await
    }
}

/// Has the hook go on where there is one. Never returns; safe to drop and to call again.
pub(crate) async fn turn(hook: Option<&mut Hook>, log: &Log) -> Infallible {
    match hook {
        Some(hook) => hook.turn(log).await,
        None => std::future::pending().await,
    }
}

impl Drop for Hook {
    /// The client ends and waits for nothing: the last event is handed to the runner, which has it
    /// run when the one before has ended.
    fn drop(&mut self) {
        if let Some((event, env)) = self.waiting.take() {
            let _ = self.runner.run(event, &env);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use super::*;
    use crate::client::Grant;
    use crate::message::decode;

    fn grant() -> Box<Grant> {
        let mut bytes = vec![0; 236];
        bytes[..3].copy_from_slice(&[2, 1, 6]);
        bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 5, 255]);
        let reply = decode(&bytes, [0; 6]).unwrap();
        let (ip, server_id) = (Ipv4Addr::new(10, 9, 0, 7), Ipv4Addr::new(10, 9, 0, 1));
        Box::new(Grant { ip, server_id, end: Duration::from_secs(9), reply })
    }

    #[test]
    fn changes_of_the_lease_are_told_and_nothing_else() {
        let (bound, renew) = (Change::Bound(grant()), Change::Renew(grant()));
        let nak = Change::Nak(Box::new(grant().reply));
        let mut news = News::default();
        let rows: [(&Change, Option<&str>); 11] = [
            (&Change::LeaseFail, None),
            (&Change::Deconfig, Some("deconfig")),
            (&Change::Deconfig, None),
            (&bound, Some("bound")),
            (&renew, Some("renew")),
            (&nak, None),
            (&Change::Deconfig, Some("deconfig")),
            (&Change::Stop, None),
            (&bound, Some("bound")),
            (&Change::LeaseFail, None),
            (&Change::Stop, Some("deconfig")),
        ];
        for (change, want) in rows {
            assert_eq!(news.of("eth0", change).map(|(event, _)| event), want, "{change:?}");
        }
        assert_eq!(News::default().of("eth0", &Change::Stop).map(|(event, _)| event), Some("deconfig"));
    }
}

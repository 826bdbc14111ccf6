//! Commands of sv and their results: what is sent to each service, and what is said of it when it
//! has obeyed or has not.
//!
//! A command is always sent: what the status says may be older than a command that runsv has not
//! read yet. What it is not: the words (verb.rs) or the waiting (wait.rs).

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::Run;
use super::text::{self, put};
use super::verb::{Goal, Order};
use super::wait::{self, Look, Target, Wait, Watch};
use crate::sys;
use applet::control::{Command, ControlError, RunState, ServiceDir, below};

impl Run {
    pub(super) fn obey(&mut self, order: &Order, wait: Wait, names: Vec<OsString>) {
        if !order.wait {
            names.into_iter().for_each(|name| self.send(name, &order.letters));
            return self.flush();
        }
        let mut held = wait::descriptors(names.len());
        let mut targets = Vec::new();
        for name in names {
            targets.push(Target::new(name, order, wait, held > 0));
            held = held.saturating_sub(1);
        }
        self.wait_for(targets, order);
    }

    /// Sends the letters and waits for nothing.
    fn send(&mut self, name: OsString, letters: &[Command]) {
        if let Err(e) = ServiceDir::resolve(&name).send(letters) {
            self.unreachable(&name, &e, letters.contains(&Command::Exit));
        }
    }

    /// No runsv could be told. `gone_is_good`: that is the state that was asked for.
    fn unreachable(&mut self, name: &OsString, error: &ControlError, gone_is_good: bool) {
        if gone_is_good && text::is_gone(error) {
            self.tell(&[b"ok: ", name.as_bytes(), b": runsv not running"]);
        } else {
            self.complain(name, error);
        }
    }

    fn wait_for(&mut self, mut targets: Vec<Target>, order: &Order) {
        let mut watch = Watch::new();
        loop {
            let now = sys::now();
            targets.retain_mut(|target| {
                let late = now >= target.end;
                !(target.take_due(now) || late) || self.look(target, order, late)
            });
            self.flush();
            if targets.is_empty() {
                return;
            }
            watch.sleep(&mut targets);
        }
    }

    /// Whether to go on waiting for this one.
    fn look(&mut self, target: &mut Target, order: &Order, late: bool) -> bool {
        let name = target.name.clone();
        match target.look(&self.reader, order) {
            Look::Reached(facts) => {
                put(&mut self.out, &[b"ok: "]);
                text::state(&mut self.out, name.as_bytes(), &facts);
                self.out.push(b'\n');
            }
            Look::RunsvGone if order.goal == Goal::Gone => {
                self.tell(&[b"ok: ", name.as_bytes(), b": runsv not running"]);
            }
            Look::RunsvGone => {
                self.tell(&[b"fail: ", name.as_bytes(), b": runsv not running"]);
                self.unsupervised = true;
                self.fail();
            }
            Look::Lost(e) => self.unreachable(&name, &e, order.goal == Goal::Gone),
            Look::NotYet if late => self.expire(target, order),
            Look::NotYet => return true,
        }
        false
    }

    fn expire(&mut self, target: &mut Target, order: &Order) {
        put(&mut self.out, &[if order.kill { b"kill: " } else { b"timeout: " }]);
        let mut down = false;
        match self.reader.facts(&target.dir) {
            Ok(facts) => {
                down = facts.status.state == RunState::Down;
                text::state(&mut self.out, target.name.as_bytes(), &facts);
            }
            Err(e) => put(&mut self.out, &[target.name.as_bytes(), b": ", e.to_string().as_bytes()]),
        }
        self.out.push(b'\n');
        self.fail();
        if order.kill
            && let Err(e) = target.dir.send(&[Command::Kill])
        {
            text::error(&mut self.out, &target.name, &e);
        }
        if order.kill && down && order.goal == Goal::Gone {
            // Only the log is left. It may be that there is none.
            let _ = ServiceDir::at(below(target.dir.path(), "log")).send(&[Command::Kill]);
        }
        target.end_check();
    }
}

//! The processor of a log directory, as it runs beside the log: its start on a rotated file, its
//! end, and waiting for it.
//!
//! It is not: what follows from which event (rotate.rs, pure) or the process itself and its files
//! (process.rs). Called by dir.rs, and by svlogd.rs when a child has ended.

use std::fs;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::{Context, LogDir, list, read_config, warn, warn_error};
use crate::svlogd::process;
use crate::svlogd::rotate::{Processor, ProcessorAction, ProcessorEvent, accepted};
use crate::svlogd::wait::Input;
use crate::sys::now;

impl LogDir {
    /// Called when some child has ended.
    pub(in crate::svlogd) fn reap(&mut self, context: &mut Context) {
        let Some(&pid) = self.processor.process() else { return };
        let well = match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return,
            Ok(WaitStatus::Exited(_, code)) => code == 0,
            Ok(_) | Err(_) => false,
        };
        let action = self.processor.step(now(), ProcessorEvent::Exited { well });
        self.perform(context, action);
    }

    pub(super) fn perform(&mut self, context: &mut Context, action: Option<ProcessorAction>) {
        match action {
            None => {}
            Some(ProcessorAction::Accept(stamp)) => self.accept(context, &stamp),
            Some(ProcessorAction::Discard(stamp)) => self.discard(&stamp),
            Some(ProcessorAction::Start(stamp)) => self.start_processor(context, stamp),
        }
    }

    /// The processor's output replaces its input.
    fn accept(&mut self, context: &Context, stamp: &str) {
        self.at.enter();
        if let Err(e) = process::keep_output(stamp, self.config.mode_done()) {
            // The input stays: nothing is lost.
            return warn_error("unable to rename processed", &self.at.name, &e);
        }
        process::forget_input(stamp, &self.at.name);
        context.info(&format!("processed: {}/{stamp}.s", self.at.name));
    }

    /// A svlogd that was killed between output and input of its processor left both: each line
    /// would be there twice.
    pub(super) fn finish_accepted(&self) {
        let names = list();
        for stamp in accepted(&names) {
            process::forget_input(stamp, &self.at.name);
        }
    }

    fn discard(&mut self, stamp: &str) {
        self.at.enter();
        warn(&format!("processor failed, restart: {}", self.at.name));
        if let Err(e) = fs::remove_file(format!("{stamp}.t")) {
            warn_error("unable to unlink processor leftover", &self.at.name, &e);
        }
    }

    /// Starts `sh -c CMD` on `STAMP.u`; a start that fails is a processor that failed.
    pub(super) fn start_processor(&mut self, context: &mut Context, stamp: String) {
        // HUP may have taken the processor away meanwhile: the file then stays as it is.
        let Some(command) = self.config.processor.clone() else { return };
        self.at.enter();
        context.info(&format!("processing: {}/{stamp}.u", self.at.name));
        match process::spawn(&command, &stamp, self.config.mode, &context.signals.inherited) {
            Ok(process) => self.processor = Processor::Running { process, stamp },
            Err(e) => {
                warn_error("unable to run processor", &self.at.name, &e.into());
                self.processor = Processor::failed(now(), stamp);
            }
        }
    }

    /// There is one processor at a time, so the service waits. HUP is obeyed, so that a wrong
    /// command can be corrected. After TERM svlogd does not wait for one that has failed: its input
    /// stays.
    pub(super) fn wait_for_processor(&mut self, context: &mut Context) {
        while self.processor != Processor::Idle {
            if context.signals.pending.term && self.processor.process().is_none() {
                self.processor = Processor::Idle;
                return;
            }
            self.wait_once(context);
            if context.signals.pending.hup {
                self.at.enter();
                self.config = read_config(&self.at.name, context);
            }
        }
    }

    pub(super) fn wait_once(&mut self, context: &mut Context) {
        let timeout = self.processor.deadline().map(|at| at.saturating_sub(now()));
        if let Err(e) = context.signals.wait(Input::None, timeout) {
            warn_error("unable to wait", &self.at.name, &e);
        }
        self.reap(context);
        let action = self.processor.step(now(), ProcessorEvent::Tick);
        self.perform(context, action);
    }
}

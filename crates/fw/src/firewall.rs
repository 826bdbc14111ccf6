//! The firewall: what our table should be (text), which one is loaded when (phases), and how the
//! kernel gets it (load).
//!
//! Shell: it starts nft, which works while fw does other things, and waits for it. phases.rs
//! decides what follows. Called by run.rs.

use std::path::Path;

use applet::control::error_text;

use crate::input::Input;
use crate::report::Report;
use crate::want::Want;

pub mod admin;
mod forwards;
pub mod lacks;
pub mod load;
pub mod marks;
pub mod nat;
pub mod own;
pub mod parts;
pub mod phases;
pub mod text;
pub mod zones;

use lacks::Lack;
use load::{Ending, Loader, Running};
use own::Choice;
use phases::{Action, Event, Failure, Phases};

/// The firewall of one run.
pub struct Firewall {
    loader: Loader,
    phases: Phases,
    running: Option<Running>,
    endings: Vec<Ending>,
    /// The rules of the administrator.
    own: Choice,
    /// The same table without them.
    spare: Option<Phases>,
    /// What the last load was for.
    stage: Event,
}

impl Firewall {
    /// Reads what the last run has left, and changes nothing.
    pub fn open(dynamic: &Path, want: &Want, input: &Input) -> Firewall {
        let (loader, known) = Loader::open(dynamic);
        let (policy, memory) = (&input.policy, &input.memory);
        let defines = admin::defines(want, policy);
        let own = if policy.firewall { Choice::make(dynamic, &input.own, &defines) } else { Choice::default() };
        let phases = |own, known| Phases::new(want, policy, memory, &admin::inserts(own, defines.clone()), known);
        let spare = own.rules().map(|_| phases(None, known.clone()));
        let phases = phases(own.rules(), known);
        Firewall { loader, phases, running: None, endings: Vec::new(), own, spare, stage: Event::Begin }
    }

    /// What `fw plan` prints of it, and why.
    pub fn planned(&self) -> Option<(String, String)> {
        self.phases.planned().map(|line| (line, self.phases.why()))
    }

    /// The table that is wanted.
    pub fn table(&self) -> Option<&str> {
        self.phases.table()
    }

    /// Whether nft and the kernel would take this table, perhaps without what the kernel lacks,
    /// which is named; else an error in nft's words, or the reason why fw cannot tell.
    pub fn check(table: &str) -> Result<Vec<&'static str>, Failure> {
        match load::check(&text::transaction(table, true)) {
            Err(Failure::Refused(text)) => {
                let missing: Vec<Lack> = lacks::ALL.into_iter().filter(|lack| lack.is_in(table)).collect();
                let missing = missing_of(missing);
                let less = text::transaction(&lacks::without(table, &missing), true);
                let taken = !missing.is_empty() && load::check(&less).is_ok();
                if taken { Ok(missing.iter().map(|lack| lack.text()).collect()) } else { Err(Failure::Refused(text)) }
            }
            other => other.map(|()| Vec::new()),
        }
    }

    /// It is wanted and could not be loaded.
    pub fn is_missing(&self) -> bool {
        self.phases.is_missing()
    }

    /// What is wrong with the administrator's rules.
    pub fn own_errors(&self) -> &[String] {
        self.own.errors()
    }

    /// Which candidate of the administrator's rules is loaded.
    pub fn own_loaded(&self) -> Option<usize> {
        self.own.loaded().filter(|_| !self.is_missing())
    }

    /// Starts the first load, which then works while the kernel's state is read.
    pub fn begin(&mut self, report: &mut Report) {
        self.own.errors().iter().for_each(|e| report.error(e));
        self.step(Event::Begin, report);
    }

    /// Waits until the kernel has the table that was started last.
    pub fn settle(&mut self, report: &mut Report) {
        while let Some(running) = self.running.take() {
            let (ending, result) = running.committed();
            self.endings.push(ending);
            self.step(Event::Loaded(result), report);
        }
    }

    /// Loads the final table, after the kernel has changed.
    pub fn end(&mut self, report: &mut Report) {
        self.stage = Event::Changed;
        self.step(Event::Changed, report);
        self.settle(report);
        if let Err(e) = self.own.remember() {
            report.error(&format!("unable to remember what nft said: {}", error_text(&e)));
        }
    }

    /// Waits for each nft to end, when everything else has been done.
    pub fn reap(mut self, report: &mut Report) {
        while !self.endings.is_empty() {
            // All of them are waited for, also after one that has failed.
            let well = self.endings.drain(..).map(Ending::reap).filter(|well| !well).count() == 0;
            self.step(Event::Ended { well }, report);
            self.settle(report);
        }
    }

    fn step(&mut self, event: Event, report: &mut Report) {
        for action in self.phases.step(event) {
            match action {
                Action::Start(transaction) => self.running = Some(load::start(&transaction)),
                Action::Probe(features) => {
                    self.step(Event::Probed(missing_of(features)), report);
                }
                Action::Remember(table) => {
                    if let Err(e) = self.loader.remember(table.as_deref(), self.endings.last_mut()) {
                        report.error(&format!("unable to remember the firewall: {}", error_text(&e)));
                    }
                }
                Action::Note(text) => report.note(text),
                Action::Fail(text) => self.fail(&text, report),
            }
        }
    }

    /// A table that is refused with the rules of the administrator is loaded without them.
    fn fail(&mut self, text: &str, report: &mut Report) {
        let spare = self.spare.take_if(|_| self.phases.is_refused());
        match spare.zip(self.own.give_up(text)) {
            Some((spare, words)) => {
                report.error(&words);
                self.phases = spare;
                self.step(self.stage.clone(), report);
            }
            None => report.error(text),
        }
    }
}

/// Those of the features that nft or the kernel does not have.
fn missing_of(mut features: Vec<Lack>) -> Vec<Lack> {
    features.retain(|feature| load::check(&feature.probe()).is_err());
    features
}

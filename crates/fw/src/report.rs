//! Lines for the administrator: a state is said when it begins, an error in every run. And the
//! exit codes that sum them up.

use std::io;
use std::path::Path;

use applet::control::error_text;

/// Everything done, or nothing to do.
pub const EXIT_OK: u8 = 0;
/// Something went wrong; all the rest was done.
pub const EXIT_ERRORS: u8 = 1;
/// `plan`: there are changes.
pub const EXIT_CHANGES: u8 = 2;

/// The line for a kernel that refuses everything.
pub const NO_CAPABILITY: &str = "no permission to change the network: capability CAP_NET_ADMIN is missing";

/// The lines of this run, and the states that the run before has reported.
#[derive(Default)]
pub struct Report {
    errors: Vec<String>,
    is_silent: bool,
    before: Vec<String>,
    said: Vec<String>,
}

impl Report {
    /// After a run that has said this.
    pub fn after(said: &[String]) -> Report {
        Report { before: said.to_vec(), ..Report::default() }
    }

    /// Prints nothing: for a look that another one follows.
    pub fn silent() -> Report {
        Report { is_silent: true, ..Report::default() }
    }

    fn print(&self, text: &str) {
        if !self.is_silent {
            applet::say::error(format_args!("fw: {text}\n"));
        }
    }

    /// Reports a state, once. It is reported again when it was over in between.
    pub fn note(&mut self, text: &str) {
        let text = text.replace(char::is_control, "?");
        if self.said.contains(&text) {
            return;
        }
        if !self.before.contains(&text) {
            self.print(&text);
        }
        self.said.push(text);
    }

    /// Reports an error: the run fails in the end.
    pub fn error(&mut self, text: &str) {
        self.print(&format!("error: {text}"));
        self.errors.push(text.to_owned());
    }

    /// Reports a file that could not be written.
    pub fn check(&mut self, what: &Path, result: io::Result<()>) {
        if let Err(e) = result {
            self.error(&format!("unable to write {}: {}", what.display(), error_text(&e)));
        }
    }

    /// There was an error.
    pub fn has_failed(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The errors.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// The states that the next run need not say again.
    pub fn said(&self) -> Vec<String> {
        self.said.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_remembered_as_long_as_it_lasts_and_an_error_is_none() {
        let mut report = Report::after(&["old".to_owned(), "over".to_owned()]);
        ["old", "new", "new", "two\nlines"].into_iter().for_each(|text| report.note(text));
        assert!(!report.has_failed());
        report.error("wrong");
        assert!(report.has_failed());
        assert_eq!(report.said(), ["old", "new", "two?lines"]);
    }
}

//! The lines of sv, to the letter as runit prints them, for scripts. PURE. A terminal gets
//! table.rs, a program json.rs.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;

use super::facts::{Facts, Report};
use applet::control::{ControlError, RunState, Want};

/// `run: NAME: (pid N) Ns, normally down, paused, want down, got TERM`
pub(super) fn state(out: &mut Vec<u8>, name: &[u8], facts: &Facts) {
    let status = &facts.status;
    put(out, &[word(status.state).as_bytes(), b": ", name, b": "]);
    if status.state != RunState::Down {
        // Into memory it does not fail, here and below.
        let _ = write!(out, "(pid {}) ", status.pid.unwrap_or(0));
    }
    let _ = write!(out, "{}s", facts.age_secs);
    notes(facts).for_each(|note| put(out, &[b", ", note.as_bytes()]));
    if let Some(note) = again(facts) {
        put(out, &[b", ", note.as_bytes()]);
    }
}

/// What is to be said besides the state.
pub(super) fn notes(facts: &Facts) -> impl Iterator<Item = &'static str> {
    let (status, normally_up) = (&facts.status, facts.normally_up);
    let (there, down) = (status.pid.is_some(), status.pid.is_none());
    let notes = [
        (there && !normally_up, "normally down"),
        (down && normally_up, "normally up"),
        (there && status.paused, "paused"),
        (down && status.want == Want::Up, "want up"),
        (there && status.want == Want::Down, "want down"),
        (there && status.got_term, "got TERM"),
        // Ours: runit knows no readiness. Nothing when it is ready, so that scripts find what they
        // know.
        (not_ready(facts), "not ready"),
    ];
    notes.into_iter().filter_map(|(holds, note)| holds.then_some(note))
}

/// When its file `again` starts it. Ours, too.
pub(super) fn again(facts: &Facts) -> Option<String> {
    facts.again_secs.map(|secs| format!("again in {secs}s"))
}

/// It runs and has not said that it is ready, though it is to say so.
pub(super) fn not_ready(facts: &Facts) -> bool {
    facts.status.state == RunState::Run && facts.ready == Some(false)
}

pub(super) fn word(state: RunState) -> &'static str {
    match state {
        RunState::Down => "down",
        RunState::Run => "run",
        RunState::Finish => "finish",
    }
}

/// The service, and its log on the same line.
pub(super) fn report(out: &mut Vec<u8>, report: &Report) {
    let name = report.name.as_bytes();
    match &report.main {
        Err(e) => return error(out, report.name, e),
        Ok(facts) => state(out, name, facts),
    }
    match &report.log {
        None => {}
        Some(Ok(facts)) => {
            put(out, &[b"; "]);
            state(out, b"log", facts);
        }
        Some(Err(e)) => put(out, &[b"; ", severity(e).as_bytes(), name, b": ", e.to_string().as_bytes()]),
    }
    put(out, &[b"\n"]);
}

/// A line that says why the service could not be reached.
pub(super) fn error(out: &mut Vec<u8>, name: &OsStr, error: &ControlError) {
    put(out, &[severity(error).as_bytes(), name.as_bytes(), b": ", error.to_string().as_bytes(), b"\n"]);
}

/// runit calls it a failure when it knows that there is no runsv or no service.
fn severity(error: &ControlError) -> &'static str {
    match error {
        ControlError::Missing(_) => "fail: ",
        ControlError::NotRunning(_) if is_gone(error) => "fail: ",
        ControlError::NotRunning(_) | ControlError::Full | ControlError::Io(..) => "warning: ",
    }
}

/// There has been a runsv, and there is none now.
pub(super) fn is_gone(error: &ControlError) -> bool {
    matches!(error, ControlError::NotRunning(e) if e.raw_os_error() == Some(Errno::ENXIO as i32))
}

/// A name, or a line of a log, must not command the terminal.
pub(super) fn printable(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() && c != '\t' { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

pub(super) fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;

    use super::*;
    use applet::control::{Status, Tai64n};

    /// A running service, pid 7, for 61 seconds.
    pub(in crate::sv) fn facts() -> Facts {
        let since = Tai64n { secs: 0, nanos: 0 };
        let (pid, state) = (Some(7), RunState::Run);
        let status = Status { since, pid, paused: false, want: Want::Up, got_term: false, state };
        Facts { status, age_secs: 61, normally_up: true, ready: None, again_secs: None, recorded: None }
    }

    fn line(facts: &Facts) -> String {
        let mut out = Vec::new();
        state(&mut out, b"a", facts);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_of_status_is_runits() {
        let mut a = facts();
        assert_eq!(line(&a), "run: a: (pid 7) 61s");
        a.normally_up = false;
        (a.status.paused, a.status.want, a.status.got_term) = (true, Want::Down, true);
        assert_eq!(line(&a), "run: a: (pid 7) 61s, normally down, paused, want down, got TERM");
        a.status.state = RunState::Finish;
        assert_eq!(line(&a), "finish: a: (pid 7) 61s, normally down, paused, want down, got TERM");
        (a.status.state, a.status.pid) = (RunState::Down, None);
        assert_eq!(line(&a), "down: a: 61s");
        (a.status.want, a.normally_up) = (Want::Up, true);
        assert_eq!(line(&a), "down: a: 61s, normally up, want up");
    }

    #[test]
    fn readiness_is_told_only_while_it_is_missing() {
        let mut a = facts();
        a.ready = Some(true);
        assert_eq!(line(&a), "run: a: (pid 7) 61s");
        a.ready = Some(false);
        assert_eq!(line(&a), "run: a: (pid 7) 61s, not ready");
        (a.status.state, a.status.pid) = (RunState::Down, None);
        assert_eq!(line(&a), "down: a: 61s, normally up, want up");
        (a.status.want, a.normally_up, a.again_secs) = (Want::Down, false, Some(57));
        assert_eq!(line(&a), "down: a: 61s, again in 57s");
    }

    #[test]
    fn a_name_is_printed_byte_for_byte_and_an_error_with_runits_severity() {
        let name = OsStr::from_bytes(b"a\xff");
        let says = |e: &ControlError| {
            let mut out = Vec::new();
            error(&mut out, name, e);
            out
        };
        let gone = ControlError::NotRunning(io::Error::from_raw_os_error(Errno::ENXIO as i32));
        assert_eq!(says(&gone), b"fail: a\xff: runsv not running\n");
        let never = ControlError::NotRunning(io::Error::from_raw_os_error(Errno::ENOENT as i32));
        assert_eq!(says(&never), b"warning: a\xff: unable to open supervise/ok: file does not exist\n");
    }
}

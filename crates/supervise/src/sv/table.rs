//! `sv status` for people, on a terminal: a row for each service, in columns, coloured by how it
//! is. PURE. What is the same for all, and nothing, takes no column.

use super::facts::{Facts, Recorded, Report};
use super::text;
use applet::control::{RunState, Want};

/// ECMA-48 8.3.117, Select Graphic Rendition.
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

const COLUMNS: [&str; 8] = ["SERVICE", "STATE", "PID", "TIME", "READY", "DEATHS", "LOG", "NOTES"];
/// Numbers stand below each other by their last digit.
const TO_THE_RIGHT: [&str; 3] = ["PID", "TIME", "DEATHS"];

type Row = [Cell; COLUMNS.len()];

#[derive(Clone, Default)]
struct Cell {
    text: String,
    colour: Option<&'static str>,
}

fn cell(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), colour: None }
}

/// The whole table; empty when there is nothing to report.
pub(super) fn render(reports: &[Report], colours: bool) -> String {
    if reports.is_empty() {
        return String::new();
    }
    let mut rows = vec![COLUMNS.map(|text| Cell { text: text.into(), colour: Some(BOLD) })];
    rows.extend(reports.iter().map(row));
    let widths = COLUMNS.iter().enumerate().map(|(column, _)| {
        let lengths = || rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        // The heading alone is no content.
        if lengths().skip(1).all(|length| length == 0) { 0 } else { lengths().max().unwrap_or(0) }
    });
    let widths: Vec<usize> = widths.collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, width), title) in row.iter().zip(&widths).zip(COLUMNS).filter(|((_, width), _)| **width > 0) {
            let padding = " ".repeat(width.saturating_sub(cell.text.chars().count()));
            let painted = match cell.colour.filter(|_| colours && !cell.text.is_empty()) {
                Some(colour) => format!("{colour}{}{PLAIN}", cell.text),
                None => cell.text.clone(),
            };
            let gap = if line.is_empty() { "" } else { "  " };
            line += &if TO_THE_RIGHT.contains(&title) {
                format!("{gap}{padding}{painted}")
            } else {
                format!("{gap}{painted}{padding}")
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn row(report: &Report) -> Row {
    let name = cell(text::printable(&report.name.to_string_lossy()));
    let log = match &report.log {
        None => Cell::default(),
        Some(Ok(facts)) => {
            let text = format!("{} {}", text::word(facts.status.state), span(facts.age_secs));
            Cell { text, colour: Some(colour(facts)) }
        }
        Some(Err(e)) => Cell { text: e.to_string(), colour: Some(RED) },
    };
    let facts = match &report.main {
        Ok(facts) => facts,
        Err(e) => {
            let [pid, time, ready, deaths] = Default::default();
            let state = Cell { text: "fail".into(), colour: Some(RED) };
            return [name, state, pid, time, ready, deaths, log, cell(e.to_string())];
        }
    };
    let ready = match facts.ready.filter(|_| facts.status.state == RunState::Run) {
        Some(true) => cell("yes"),
        Some(false) => Cell { text: "no".into(), colour: Some(YELLOW) },
        None => Cell::default(),
    };
    // It has its own column here.
    let notes: Vec<&str> = text::notes(facts).filter(|note| *note != "not ready").collect();
    let (state, notes) = match facts.is_done() {
        // A one-shot is down between its runs: as it should be.
        Some(true) => ("done", String::new()),
        Some(false) => ("failed", facts.recorded.as_ref().map(end).unwrap_or_default()),
        None => (text::word(facts.status.state), notes.join(", ")),
    };
    let notes = [Some(notes).filter(|notes| !notes.is_empty()), text::again(facts)];
    let notes = notes.into_iter().flatten().collect::<Vec<_>>().join(", ");
    [
        name,
        Cell { text: state.into(), colour: Some(colour(facts)) },
        cell(facts.status.pid.map(|pid| pid.to_string()).unwrap_or_default()),
        cell(span(facts.age_secs)),
        ready,
        cell(facts.recorded.as_ref().map(|r| r.deaths).filter(|n| *n > 0).map(|n| n.to_string()).unwrap_or_default()),
        log,
        cell(notes),
    ]
}

/// How the last run ended.
fn end(recorded: &Recorded) -> String {
    match recorded.exit {
        Some((code, _)) if code >= 0 => format!("exit {code}"),
        Some((_, status)) if status != 0 => format!("signal {}", status & 0x7f),
        Some(_) | None => String::new(),
    }
}

/// Green: as it should be. Yellow: on its way, or held by hand. Red: wanted and not there.
fn colour(facts: &Facts) -> &'static str {
    let status = &facts.status;
    match facts.is_done() {
        Some(true) => return GREEN,
        Some(false) => return RED,
        None => {}
    }
    match (status.state, status.want) {
        (RunState::Run, Want::Up) if !status.paused && !status.got_term && !text::not_ready(facts) => GREEN,
        (RunState::Run | RunState::Finish, _) => YELLOW,
        (RunState::Down, Want::Up) => RED,
        (RunState::Down, Want::Down) if facts.normally_up => YELLOW,
        (RunState::Down, Want::Down) => PLAIN,
    }
}

/// `7s`, `4m10s`, `2h0m`, `3d7h`: the two greatest units.
fn span(secs: u64) -> String {
    let (minutes, hours, days) = (secs / 60, secs / 3600, secs / 86400);
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{minutes}m{}s", secs % 60),
        3600..86400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::text::tests::facts;
    use super::*;
    use applet::control::ControlError;

    #[test]
    fn columns_are_aligned_and_empty_ones_left_out() {
        let mut long = facts();
        (long.status.pid, long.age_secs) = (Some(12345), 90_000);
        long.recorded = Some(Recorded { deaths: 0, exit: None, once: false });
        let mut down = facts();
        (down.status.state, down.status.pid) = (RunState::Down, None);
        let gone = ControlError::NotRunning(io::Error::from_raw_os_error(nix::errno::Errno::ENXIO as i32));
        let report = |name: &'static str, main, log| Report { name: name.as_ref(), main, log };
        let reports = [
            report("a", Ok(facts()), None),
            report("longer", Ok(long), Some(Ok(facts()))),
            report("d\x1b[2J", Ok(down), None),
            report("z", Err(gone), None),
        ];
        let expected = "\
SERVICE     STATE    PID  TIME  LOG       NOTES
a           run        7  1m1s
longer      run    12345  1d1h  run 1m1s
d\\u{1b}[2J  down          1m1s            normally up, want up
z           fail                          runsv not running
";
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&render(&reports, false)), lines(expected));
        let coloured = render(&reports, true);
        assert!(coloured.contains("\x1b[32mrun\x1b[0m") && coloured.contains("\x1b[31mfail\x1b[0m"), "{coloured:?}");
        assert!(!coloured.contains("\x1b[2J"));
        let mut without = coloured;
        for code in [BOLD, RED, GREEN, YELLOW, PLAIN] {
            without = without.replace(code, "");
        }
        assert_eq!(lines(&without), lines(expected).to_vec());
        assert_eq!(render(&[], true), "");
    }

    #[test]
    fn readiness_and_deaths_have_columns_when_there_are_some() {
        let mut a = facts();
        (a.ready, a.recorded) = (Some(false), Some(Recorded { deaths: 3, exit: None, once: false }));
        let text = render(&[Report { name: "a".as_ref(), main: Ok(a), log: None }], false);
        assert_eq!(text, "SERVICE  STATE  PID  TIME  READY  DEATHS\na        run      7  1m1s  no          3\n");
    }

    #[test]
    fn a_one_shot_that_has_ended_is_done_or_failed_and_not_just_down() {
        let one = |once, exit| {
            let mut a = facts();
            (a.status.state, a.status.pid, a.status.want) = (RunState::Down, None, Want::Down);
            a.recorded = Some(Recorded { deaths: 0, exit: Some(exit), once });
            let text = render(&[Report { name: "a".as_ref(), main: Ok(a), log: None }], true);
            text.lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(one(true, (0, 0)), "a        \x1b[32mdone\x1b[0m   1m1s");
        assert_eq!(one(true, (1, 0)), "a        \x1b[31mfailed\x1b[0m  1m1s  exit 1");
        assert_eq!(one(true, (-1, 0x89)), "a        \x1b[31mfailed\x1b[0m  1m1s  signal 9");
        assert_eq!(one(false, (0, 0)), "a        \x1b[33mdown\x1b[0m   1m1s  normally up");
    }

    #[test]
    fn a_time_is_shown_by_its_two_greatest_units() {
        for (secs, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m0s"),
            (250, "4m10s"),
            (3600, "1h0m"),
            (86_399, "23h59m"),
            (183_600, "2d3h"),
        ] {
            assert_eq!(span(secs), text);
        }
    }
}

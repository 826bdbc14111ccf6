//! `fw plan`: what `fw apply` would do, and why, as text and as JSON.
//!
//! Shell; reasons.rs has the words. Called by commands.rs.

use std::fs;
use std::path::Path;

use applet::json;

use crate::commands::confirm;
use crate::confirm::Standing;
use crate::input::{Input, Paths};
use crate::reasons::{self, Reason};
use crate::report::{EXIT_CHANGES, EXIT_ERRORS, EXIT_OK, Report};
use crate::run::{self, Look};
use crate::show::{array, object};

/// One line of it.
struct Line {
    text: String,
    interface: Option<String>,
    reason: Reason,
}

/// Prints what `apply` would do.
pub fn plan(paths: &Paths, as_json: bool) -> Result<u8, String> {
    let mut report = Report::default();
    if let Standing::Over(why) = confirm::standing(paths)? {
        report.note(&format!("an edit {}: the next run rolls it back first", why.text()));
    }
    if paths.down().exists() {
        report.note("down: only `fw apply` by hand does this");
    }
    let look = run::look(paths, Input::read(paths), &mut report)?;
    let lines = lines(paths, &look);
    match as_json {
        true => applet::say::out(&in_json(&lines, &report)),
        false => {
            let text = lines.iter().map(|line| format!("{}  # {}\n", line.text, line.reason));
            applet::say::out(&text.collect::<String>());
        }
    }
    look.plan.notes.iter().for_each(|n| report.note(n));
    Ok(match (report.has_failed(), lines.is_empty()) {
        (true, _) => EXIT_ERRORS,
        (false, true) => EXIT_OK,
        (false, false) => EXIT_CHANGES,
    })
}

fn lines(paths: &Paths, look: &Look) -> Vec<Line> {
    let config = fs::read_to_string(&paths.config).unwrap_or_default();
    let policy = |word: &str| place(&paths.config, &config, word);
    let plain = |text: &str| Reason { origin: None, text: text.to_owned() };
    let changes = look.plan.changes.iter().map(|change| Line {
        text: change.to_string(),
        interface: change.index().filter(|index| *index != 0).map(|index| look.have.name(index)),
        reason: reasons::reason(change, &look.want, &policy),
    });
    let firewall =
        look.firewall.iter().map(|(line, why)| Line { text: line.clone(), interface: None, reason: plain(why) });
    let files = look.files.iter().map(|file| Line {
        text: file.to_string(),
        interface: None,
        reason: reasons::of_file(&file.name(), look.input.records.iter().map(|(entry, _)| entry)),
    });
    changes.chain(firewall).chain(files).collect()
}

/// Where a word of fw.conf stands.
fn place(config: &Path, text: &str, word: &str) -> String {
    let is_it = |line: &str| line.trim_start().strip_prefix(word).is_some_and(|rest| rest.starts_with('='));
    let lines = text.lines().zip(1..).filter(|(line, _)| is_it(line)).map(|(_, number)| number);
    match lines.last() {
        Some(number) => format!("{}:{number} {word}", config.display()),
        None => format!("{} {word}: the default", config.display()),
    }
}

fn in_json(lines: &[Line], report: &Report) -> String {
    let lines = lines.iter().map(|line| {
        let (sign, rest) = line.text.split_once(' ').unwrap_or_default();
        let origin = line.reason.origin.as_ref();
        let text = |text: &str| json::string(text);
        object(&[
            ("line", text(&line.text)),
            ("sign", text(sign)),
            ("kind", text(rest.split(' ').next().unwrap_or_default())),
            ("interface", json::or_null(line.interface.as_deref().map(text))),
            ("reason", text(&line.reason.to_string())),
            ("file", json::or_null(origin.map(|o| text(o.file())))),
            ("line_number", json::or_null(origin.map(|o| o.line))),
            ("key", json::or_null(origin.map(|o| text(o.key)))),
        ])
    });
    let mut out = object(&[("changes", array(lines)), ("failed", report.has_failed().to_string())]);
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_the_policy_has_a_line_or_is_the_default() {
        let text = "# forward=no\nforwarding=\"x\"\nforward=\"yes\"\n forward='no'\n";
        let at = |word: &str| place(Path::new("fw.conf"), text, word);
        assert_eq!(at("forward"), "fw.conf:4 forward");
        assert_eq!(at("extif"), "fw.conf extif: the default");
    }
}

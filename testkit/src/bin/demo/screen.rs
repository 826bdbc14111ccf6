//! The output of the demo: colours on a terminal only, plain lines everywhere else.

use std::io::{IsTerminal, Write};

/// The looks of a piece of text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    /// Headings.
    Strong,
    /// Less important.
    Quiet,
    /// Success.
    Good,
    /// A failure, or something that is done to the appliance.
    Alarm,
    Plain,
}

/// Whether to use colours: on a terminal that is not dumb, without NO_COLOR (no-color.org).
pub(crate) fn coloured() -> bool {
    std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// `text` in the colours of its tone.
pub(crate) fn paint(tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Strong => "1",
        Tone::Quiet => "2",
        Tone::Good => "32",
        Tone::Alarm => "33",
        Tone::Plain => return text.to_owned(),
    };
    if coloured() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Prints a line at once, also into a pipe. A closed pipe does not stop the demo.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

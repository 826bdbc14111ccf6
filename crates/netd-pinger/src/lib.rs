//! pinger: judges an uplink by its router and by what is behind it, and tells fw.
//!
//! Here: the command line's four ways to go. The loop is `watch`, the decisions are `watchdog`.
//! Called by the multi-call binary.

use netd_core::record::text;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::pin::pin;

use applet::{EXIT_SYSTEM, EXIT_USAGE, control, say};
use netd::clock;
use netd::daemon::{Log, block_on};

mod cli;
pub use cli::USAGE;
pub mod dns;
mod history;
pub mod icmp;
mod lease;
mod probe;
mod records;
mod status;
mod target;
mod watch;
mod watchdog;

use cli::{Mode, Options, Places};

/// --show: the uplink is bad, or recovering.
const EXIT_BAD: u8 = 1;

/// The applet.
pub fn main(argv: Vec<OsString>) -> u8 {
    let places = Places { dynamic: std::env::var_os("FW_DYNAMIC"), fixed: std::env::var_os("FW_STATIC") };
    let options = match cli::parse(argv.into_iter().skip(1), places) {
        Ok(options) => options,
        Err(e) => {
            say::error(format_args!("pinger: {e}\n{}", cli::USAGE));
            return EXIT_USAGE;
        }
    };
    match options.mode {
        Mode::Help => print(cli::USAGE),
        Mode::Version => print(concat!("pinger of netsv ", env!("CARGO_PKG_VERSION"), "\n")),
        Mode::Show { json } => show(&options, json),
        Mode::Watch => watch(&options),
    }
}

fn watch(options: &Options) -> u8 {
    let log = Log::new("pinger", Some(&options.iface), options.verbosity);
    match block_on(pin!(watch::run(options, &log))) {
        Ok(code) => code,
        Err(e) => {
            log.info(format_args!("fatal: {}", control::error_text(&e)));
            EXIT_SYSTEM
        }
    }
}

fn show(options: &Options, json: bool) -> u8 {
    let file = options.status.display();
    let read = fs::read(&options.status).map_err(|e| control::error_text(&e));
    let records = read.and_then(|bytes| text::parse(&bytes).map_err(|e| e.to_string()));
    match records.map(|records| status::show(&records, json, clock::now())) {
        Ok(Some((text, bad))) => match print(&text) {
            0 if bad => EXIT_BAD,
            code => code,
        },
        Ok(None) => fail(&format!("{file}: not a status")),
        Err(e) => fail(&format!("no status of {}, does its pinger run? {file}: {e}", options.iface)),
    }
}

fn print(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(e) => fail(&control::error_text(&e)),
    }
}

fn fail(text: &str) -> u8 {
    say::error(format_args!("pinger: fatal: {text}\n"));
    EXIT_SYSTEM
}

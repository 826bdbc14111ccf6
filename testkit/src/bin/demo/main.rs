//! The demo: it sets up two providers, a LAN and the appliance in network namespaces, and tells a
//! story of cables and kills.
//!
//! ./demo builds and starts it. `NETSV_BIN` names the netsv and `NETSV_SERVICES` the service
//! directories (default: services/ of the current directory). It ends non-zero if an act did not
//! happen. Everything is inside namespaces that end with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a demo fails loudly")]

mod acts;
mod screen;
mod story;
mod table;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use story::Story;

const USAGE: &str = "usage: demo [--keep]\n";
/// The programs that the story needs beside iproute2 and util-linux.
const TOOLS: [&str; 3] = ["nft", "cp", "ps"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let keep = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--keep"] => true,
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(100);
        }
    };
    let Some(netsv) = testkit::netsv() else {
        eprintln!("demo: no netsv beside this program: start ./demo, or set NETSV_BIN");
        return ExitCode::from(111);
    };
    let services = std::env::var_os("NETSV_SERVICES").map_or_else(|| PathBuf::from("services"), PathBuf::from);
    if !services.join("fw").is_dir() {
        eprintln!("demo: {}: not the service directories: set NETSV_SERVICES", services.display());
        return ExitCode::from(111);
    }
    if let Err(reason) = testkit::isolated_main(&TOOLS) {
        eprintln!("demo: {reason}");
        return ExitCode::from(111);
    }
    let mut story = Story::raise(&netsv, &services);
    let told = acts::tell(&mut story);
    story.print_losses();
    table::print(&story);
    if let Err(what) = &told {
        story.print_failure(what);
    }
    if keep {
        story.print_how_to_look_inside();
        // Waits for Enter or the end of the input. Ctrl-C ends the process, and the kernel removes
        // the rest.
        let _ = std::io::stdin().read(&mut [0]);
    }
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

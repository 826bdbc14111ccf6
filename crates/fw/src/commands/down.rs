//! `fw down`: nothing of ours is left in the kernel and in the files.
//!
//! Shell. It is a run that wants nothing. Until `fw apply` is called by hand, the mark `.down` in
//! the dynamic directory makes every other run such a run: the `u` of a daemon brings nothing back,
//! and a run that is killed half way is finished by the next. Called by commands.rs.

use std::fs;
use std::io::{self, IsTerminal, Write};

use applet::control::error_text;
use nix::sys::signal::Signal;

use crate::commands::confirm;
use crate::confirm::Standing;
use crate::input::{Input, Paths};
use crate::report::{EXIT_ERRORS, Report};
use crate::run;
use crate::session;

/// What is said while an edit waits.
const WAITS: &str = "an edit waits for its confirmation: `fw confirm` keeps it, and its deadline rolls it back";

/// Takes everything away. `yes`: without a question.
pub fn down(paths: &Paths, yes: bool) -> Result<u8, String> {
    run::may_change()?;
    if !yes {
        // The run itself says what is wrong.
        let look = run::look(paths, Input::nothing(paths), &mut Report::silent())?;
        let cut = session::cut(&session::ends(), &look.plan.changes, &look.have);
        match cut {
            cut if io::stdin().is_terminal() => {
                let also = cut.map(|ip| format!(" This session over {ip} is cut.")).unwrap_or_default();
                if !agrees(&format!("fw: all addresses, routes and rules of fw go.{also} Go on? [y/N] ")) {
                    return Ok(EXIT_ERRORS);
                }
            }
            Some(ip) => return Err(format!("it would cut this session over {ip}: say --yes if that is wanted")),
            None => {}
        }
    }
    // A session that is cut sends HUP, which must not end the run half way. The pipe is never read.
    let _hangups = applet::sys::signal_pipe(&[Signal::SIGHUP]);
    let _lock = run::lock(paths)?;
    if confirm::standing(paths)? != Standing::Settled {
        return Err(WAITS.to_owned());
    }
    fs::write(paths.down(), "")
        .map_err(|e| format!("unable to write {}: {}", paths.down().display(), error_text(&e)))?;
    run::unmake(paths, false)
}

fn agrees(question: &str) -> bool {
    let _ = io::stderr().write_all(question.as_bytes());
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

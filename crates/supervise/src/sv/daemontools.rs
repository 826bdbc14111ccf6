//! `svc` and `svok`, by daemontools' names: the letters of sv without its waiting and its texts.
//! Called by sv.rs.

use std::ffi::OsString;

use super::verb;
use applet::control::{Command, ControlError, ServiceDir, error_text};
use applet::getopt::Getopt;
use applet::{EXIT_SYSTEM, EXIT_USAGE, say};

/// What `svc` says when it is used wrongly.
pub const USAGE_SVC: &str = "usage: svc [-udopchaitkx12q] service ...\n\n";
/// What `svok` says when it is used wrongly.
pub const USAGE_SVOK: &str = "usage: svok service\n\n";

/// svc(8) of daemontools: the options are the letters, in their order; silent, and it waits for
/// nothing.
pub(super) fn svc(args: impl Iterator<Item = OsString>) -> u8 {
    let mut getopt = Getopt::new(verb::SVC_OPTIONS, args);
    let mut letters = Vec::new();
    for given in getopt.by_ref() {
        match given {
            Ok((key, _)) => letters.extend(u8::try_from(key).ok().and_then(Command::from_letter)),
            Err(e) => {
                say::error(format_args!("svc: {e}\n{USAGE_SVC}"));
                return EXIT_USAGE;
            }
        }
    }
    let names = getopt.operands();
    if names.is_empty() {
        say::error(format_args!("{USAGE_SVC}"));
        return EXIT_USAGE;
    }
    let mut code = 0;
    for name in names {
        let dir = ServiceDir::resolve(&name);
        if let Err(e) = dir.send(&letters) {
            say::error(format_args!("svc: warning: unable to control {}: {e}\n", name.display()));
            code = 1;
        }
    }
    code
}

/// svok(8) of daemontools: 0 when a runsv runs in the service directory, 100 when none does, 111
/// when it cannot be told, as of a directory that is not there.
pub(super) fn svok(args: impl Iterator<Item = OsString>) -> u8 {
    let names: Vec<OsString> = args.collect();
    let [name] = names.as_slice() else {
        say::error(format_args!("{USAGE_SVOK}"));
        return EXIT_USAGE;
    };
    match ServiceDir::resolve(name).check_running() {
        Ok(()) => 0,
        Err(ControlError::NotRunning(_)) => EXIT_USAGE,
        Err(ControlError::Missing(e)) => {
            // The words of daemontools' svok.
            let (name, why) = (name.display(), error_text(&e));
            say::error(format_args!("svok: fatal: unable to chdir to {name}: {why}\n"));
            EXIT_SYSTEM
        }
        Err(e) => {
            say::error(format_args!("svok: fatal: {}: {e}\n", name.display()));
            EXIT_SYSTEM
        }
    }
}

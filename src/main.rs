//! The multi-call binary: the base name of argv[0], or argv[1], picks an applet. No logic of theirs is here.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use supervise::{Applet, EXIT_SYSTEM, EXIT_USAGE};

/// Every applet by the name that calls it.
const APPLETS: &[(&str, Applet)] = &[
    ("runsvdir", supervise::runsvdir::main),
    ("runsv", supervise::runsv::main),
    ("sv", supervise::sv::main),
    ("svc", supervise::sv::main),
    ("svok", supervise::sv::main),
    ("svlogd", supervise::svlogd::main),
    ("chpst", supervise::chpst::main),
    ("setuidgid", supervise::chpst::main),
    ("envdir", supervise::chpst::main),
    ("envuidgid", supervise::chpst::main),
    ("pgrphack", supervise::chpst::main),
    ("softlimit", supervise::chpst::main),
    ("setlock", supervise::chpst::main),
    #[cfg(feature = "daemons")]
    ("udhcpc", netd_udhcpc::main),
    #[cfg(feature = "daemons")]
    ("ifplugd", netd_ifplugd::main),
    #[cfg(feature = "daemons")]
    ("zcip", netd_zcip::main),
    #[cfg(feature = "daemons")]
    ("pinger", netd_pinger::main),
    #[cfg(feature = "daemons")]
    ("fw", fw::main),
];

const USAGE: &str = "usage: netsv APPLET [ARGS...] | netsv --list | netsv --install DIR | netsv --version\n";

fn main() -> ExitCode {
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    if let Some(applet) = argv.first().and_then(|name| find(name)) {
        return ExitCode::from(applet(argv));
    }
    if argv.len() < 2 {
        return fail(EXIT_USAGE, USAGE);
    }
    argv.remove(0);
    let word = argv.first().map(|w| w.as_os_str()).unwrap_or_default();
    match word.to_str() {
        Some("--list") => say(&APPLETS.iter().map(|(name, _)| format!("{name}\n")).collect::<String>()),
        Some("--version") => say(concat!("netsv ", env!("CARGO_PKG_VERSION"), "\n")),
        Some("--help") => say(USAGE),
        Some("--install") => match argv.get(1) {
            Some(dir) => install(Path::new(dir)),
            None => fail(EXIT_USAGE, USAGE),
        },
        _ => match find(word) {
            Some(applet) => ExitCode::from(applet(argv)),
            None => fail(EXIT_USAGE, &format!("netsv: fatal: no applet {word:?}: see netsv --list\n")),
        },
    }
}

fn find(name: &OsStr) -> Option<Applet> {
    let path = Path::new(name);
    let base = path.file_name()?;
    // sv(8): as a link in /etc/init.d/ it is the LSB interface of the service that the link is named after.
    if path.parent().and_then(Path::file_name) == Some(OsStr::new("init.d")) {
        return Some(supervise::sv::main);
    }
    let named = |wanted: &OsStr| APPLETS.iter().find(|(name, _)| *name == wanted).map(|(_, applet)| *applet);
    // runit's chpst: a `d` before one of its other names does not count.
    let without_d = || supervise::chpst::without_d(base).and_then(named);
    named(base).or_else(without_d)
}

/// Makes one symbolic link per applet in `dir` to this executable; a link that is there already is replaced.
fn install(dir: &Path) -> ExitCode {
    let made = std::env::current_exe().and_then(|exe| {
        std::fs::create_dir_all(dir)?;
        for (name, _) in APPLETS {
            let tmp = dir.join(format!(".{name}.tmp"));
            let _ = std::fs::remove_file(&tmp);
            std::os::unix::fs::symlink(&exe, &tmp)?;
            std::fs::rename(&tmp, dir.join(name))?;
        }
        Ok(())
    });
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(EXIT_SYSTEM, &format!("netsv: fatal: unable to install into {}: {e}\n", dir.display())),
    }
}

fn say(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_SYSTEM),
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}

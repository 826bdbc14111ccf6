//! The multi-call binary: its name, or its first argument, picks an applet. No logic of theirs is
//! here.
//!
//! With glibc it starts as a C program does, without std's own start. That start makes a second
//! stack for the message about an overflow of the first, and reads /proc/self/maps for it by
//! scanf(3): this costs 110 kB of a static binary, and a tenth of the time that `sv` takes to
//! start. With another C library only std's start finds the arguments.
#![cfg_attr(target_env = "gnu", no_main)]

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Component, Path, PathBuf};

use applet::suggest::nearest;
use applet::{Applet, EXIT_SYSTEM, EXIT_USAGE};
use supervise::help;

/// Every applet: the name that calls it, its entry, and what it prints for `--help`.
const APPLETS: &[Row] = &[
    ("runsvdir", supervise::runsvdir::main, help::RUNSVDIR),
    ("runsv", supervise::runsv::main, help::RUNSV),
    ("sv", supervise::sv::main, help::SV),
    ("svc", supervise::sv::main, help::SVC),
    ("svok", supervise::sv::main, help::SVOK),
    ("svlogd", supervise::svlogd::main, help::SVLOGD),
    ("chpst", supervise::chpst::main, help::CHPST),
    ("setuidgid", supervise::chpst::main, help::SETUIDGID),
    ("envdir", supervise::chpst::main, help::ENVDIR),
    ("envuidgid", supervise::chpst::main, help::ENVUIDGID),
    ("pgrphack", supervise::chpst::main, help::PGRPHACK),
    ("softlimit", supervise::chpst::main, help::SOFTLIMIT),
    ("setlock", supervise::chpst::main, help::SETLOCK),
    #[cfg(feature = "daemons")]
    ("udhcpc", netd_udhcpc::main, netd_udhcpc::cli::USAGE),
    #[cfg(feature = "daemons")]
    ("ifplugd", netd_ifplugd::main, netd_ifplugd::USAGE),
    #[cfg(feature = "daemons")]
    ("zcip", netd_zcip::main, netd_zcip::cli::USAGE),
    #[cfg(feature = "daemons")]
    ("pinger", netd_pinger::main, netd_pinger::USAGE),
    #[cfg(feature = "daemons")]
    ("fw", fw::main, fw::HELP),
];

const USAGE: &str = "usage: netsv APPLET [ARGS...] | netsv --list | netsv --install DIR | netsv --version\n";

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library calls it by this name, of which there is no other")]
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    applet::sys::start();
    // Writes out what stdout holds.
    std::process::exit(i32::from(run()))
}

#[cfg(not(target_env = "gnu"))]
fn main() -> std::process::ExitCode {
    applet::sys::start();
    std::process::ExitCode::from(run())
}

fn run() -> u8 {
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    if let Some(applet) = argv.first().and_then(|name| find(name)) {
        return call(applet, argv);
    }
    if argv.len() < 2 {
        return fail(EXIT_USAGE, USAGE);
    }
    argv.remove(0);
    let word = argv.first().map(|w| w.as_os_str()).unwrap_or_default();
    match word.to_str() {
        Some("--list") => say(&APPLETS.iter().map(|(name, ..)| format!("{name}\n")).collect::<String>()),
        Some("--version") => say(concat!("netsv ", env!("CARGO_PKG_VERSION"), "\n")),
        Some("--help") => say(USAGE),
        Some("--install") => match argv.get(1) {
            Some(dir) => install(Path::new(dir)),
            None => fail(EXIT_USAGE, USAGE),
        },
        _ => match find(word) {
            Some(applet) => call(applet, argv),
            None => fail(EXIT_USAGE, &unknown(word)),
        },
    }
}

/// A row of [`APPLETS`].
type Row = (&'static str, Applet, &'static str);

/// Runs an applet, unless it is asked for help: by `--help` alone, or by `-h` alone. `svc -h` sends
/// HUP.
fn call((name, applet, help): Row, argv: Vec<OsString>) -> u8 {
    match argv.get(1..).map(|args| args.iter().map(|a| a.to_str()).collect::<Vec<_>>()).as_deref() {
        Some([Some("--help")]) => say(help),
        Some([Some("-h")]) if name != "svc" => say(help),
        Some(_) | None => applet(argv),
    }
}

fn unknown(word: &OsStr) -> String {
    let near = nearest(&word.to_string_lossy(), APPLETS.iter().map(|(name, ..)| *name));
    let hint = near.map(|name| format!("did you mean {name}? ")).unwrap_or_default();
    format!("netsv: fatal: no applet {word:?}: {hint}see netsv --list\n")
}

fn find(name: &OsStr) -> Option<Row> {
    let path = Path::new(name);
    let base = path.file_name()?;
    // sv(8): as a link in /etc/init.d/ it is the LSB interface of the service that the link is
    // named after.
    if path.parent().and_then(Path::file_name) == Some(OsStr::new("init.d")) {
        return Some(("sv", supervise::sv::main, help::SV));
    }
    let named = |wanted: &OsStr| APPLETS.iter().find(|(name, ..)| *name == wanted).copied();
    // runit's chpst: a `d` before one of its other names does not count.
    let without_d = || supervise::chpst::without_d(base).and_then(named);
    named(base).or_else(without_d)
}

/// Makes one symbolic link per applet in `dir` to this executable, and replaces a link that is
/// there. The links are relative: made into the root directory of an image, they lead to the
/// image's own binary.
fn install(dir: &Path) -> u8 {
    let made = std::env::current_exe().and_then(|exe| {
        std::fs::create_dir_all(dir)?;
        let exe = relative(&dir.canonicalize()?, &exe);
        for (name, ..) in APPLETS {
            let tmp = dir.join(format!(".{name}.tmp"));
            let _ = std::fs::remove_file(&tmp);
            std::os::unix::fs::symlink(&exe, &tmp)?;
            std::fs::rename(&tmp, dir.join(name))?;
        }
        Ok(())
    });
    match made {
        Ok(()) => 0,
        Err(e) => fail(EXIT_SYSTEM, &format!("netsv: fatal: unable to install into {}: {e}\n", dir.display())),
    }
}

/// `target` as seen from `dir`; both are absolute and without links.
fn relative(dir: &Path, target: &Path) -> PathBuf {
    let shared = dir.components().zip(target.components()).take_while(|(a, b)| a == b).count();
    let up = dir.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(target.components().skip(shared)).collect()
}

fn say(text: &str) -> u8 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => EXIT_SYSTEM,
    }
}

fn fail(code: u8, text: &str) -> u8 {
    let _ = std::io::stderr().write_all(text.as_bytes());
    code
}

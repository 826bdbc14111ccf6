//! The suites in the comparison: how the bench starts each of them over a directory, commands it,
//! and asks it. Only this file knows their differences.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::table::{OURS, OURS_ONE};

/// A supervision suite. Its commands are words; where a comment says so, names follow them.
pub(crate) struct Suite {
    /// The column in the table.
    pub(crate) name: &'static str,
    /// The directory of its programs.
    programs: PathBuf,
    /// Supervises the directory that follows.
    pub(crate) scan: &'static [&'static str],
    /// Makes the scanner look at the directory that follows. `None`: the scanner looks by itself.
    pub(crate) tell: Option<&'static [&'static str]>,
    /// Says "up" to the service that follows.
    pub(crate) up: &'static [&'static str],
    /// Says "down" to the service that follows, where the status has runit's format.
    pub(crate) down: Option<&'static [&'static str]>,
    /// The first lines of a one-shot service's run script.
    pub(crate) once: &'static str,
    /// Restarts the service that follows.
    pub(crate) restart: &'static [&'static str],
    /// Prints the status of the services that follow.
    pub(crate) status: &'static [&'static str],
    /// A logger with time stamps that writes into the directory that follows; `None` when another
    /// column has the same logger.
    pub(crate) logger: Option<&'static [&'static str]>,
    /// Whether the scanner is the only supervisor.
    pub(crate) one_process: bool,
}

/// A suite whose commands have the form of runit's.
fn like_runit(name: &'static str, programs: PathBuf) -> Suite {
    Suite {
        name,
        programs,
        scan: &["runsvdir"],
        tell: None,
        up: &["sv", "u"],
        down: Some(&["sv", "d"]),
        once: "sv o .",
        restart: &["sv", "restart"],
        status: &["sv", "status"],
        logger: Some(&["svlogd", "-tt"]),
        one_process: false,
    }
}

/// All suites on this machine; every peer must be there.
pub(crate) fn suites(applets: &str) -> io::Result<Vec<Suite>> {
    let applets = Path::new(applets);
    let mut all = vec![
        like_runit("runit", directory_of("runsvdir")?),
        Suite {
            scan: &["svscan"],
            up: &["svc", "-u"],
            down: None,
            once: "svc -o .",
            restart: &["svc", "-t"],
            status: &["svstat"],
            logger: Some(&["multilog", "t", "s1000000", "n10"]),
            ..like_runit("daemontools", directory_of("svscan")?)
        },
        Suite {
            scan: &["s6-svscan"],
            tell: Some(&["s6-svscanctl", "-a"]),
            up: &["s6-svc", "-u"],
            down: None,
            once: "s6-svc -o .",
            restart: &["s6-svc", "-wr", "-r"],
            status: &["sh", "-c", "for s; do s6-svstat \"$s\"; done", "sh"],
            logger: Some(&["s6-log", "t", "s1000000", "n10"]),
            ..like_runit("s6", directory_of("s6-svscan")?)
        },
    ];
    if hosts_services(applets)? {
        let scan = &["runsvdir", "-1"];
        all.push(Suite { scan, logger: None, one_process: true, ..like_runit(OURS_ONE, applets.to_owned()) });
    }
    all.push(like_runit(OURS, applets.to_owned()));
    Ok(all)
}

fn directory_of(program: &str) -> io::Result<PathBuf> {
    let found = testkit::original(program).and_then(|path| Some(path.parent()?.to_owned()));
    found.ok_or_else(|| io::Error::other(format!("{program} is not installed")))
}

/// Whether the usage of our runsvdir has `-1`.
fn hosts_services(applets: &Path) -> io::Result<bool> {
    let said = Command::new(applets.join("runsvdir")).stdin(Stdio::null()).output()?.stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok(said.split_whitespace().any(|word| word.starts_with("[-") && word.contains('1')))
}

impl Suite {
    /// A command of this suite in the services directory `dir`, without output.
    pub(crate) fn command(&self, dir: &Path, words: &[&str]) -> Command {
        let (program, args) = words.split_first().unwrap_or((&"true", &[]));
        let own = self.programs.join(program);
        let mut command = Command::new(if own.is_file() { own } else { PathBuf::from(program) });
        let rest = std::env::var("PATH").unwrap_or_default();
        command.args(args).current_dir(dir).env("SVDIR", dir).env_remove("SVWAIT");
        command.env("PATH", format!("{}:{rest}", self.programs.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Runs a command to its end, which must be a success.
    pub(crate) fn run(&self, dir: &Path, words: &[&str]) -> io::Result<()> {
        let status = self.command(dir, words).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("{}: {words:?}: {status}", self.name))) }
    }
}

//! Loading our nft table, only when it is needed.
//!
//! Shell. `.nft` of the dynamic directory keeps the text that was loaded last, with a fingerprint
//! of the kernel's own dump of our table, chains, rules and sets. When both are as before, fw
//! starts no process; when another program has deleted or edited our table, the fingerprint
//! differs. Called by firewall.rs.
#![expect(clippy::disallowed_methods, reason = "starts nft")]

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netd::clock;
use netd::disk;
use netd::netlink::{NETFILTER, Netlink};
use netd::table::{self, GROUP, NEWGEN, TABLE_EVENTS, fingerprint};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, poll};

use super::phases::{Failure, Known};
use crate::report::NO_CAPABILITY;

/// fw kills an nft that says nothing for so long: everything else waits for it.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is said then.
const SILENT: &str = "nft: killed: it said nothing for 10 seconds";
/// pipe(7): an empty pipe takes 64 KiB; a partly filled page counts as a whole one.
const PIPE: i32 = 48 * 1024;

/// The fingerprint of a table that another program has changed.
const NOT_OURS: u64 = 0;

/// Where the kernel's table and the memory of it are.
pub struct Loader {
    cache: PathBuf,
    netlink: Option<Netlink>,
}

/// An nft that is running, or the reason why it is not.
pub struct Running {
    child: io::Result<Child>,
    /// Tells of every commit in this network namespace.
    events: Option<Netlink>,
}

impl Loader {
    /// Reads what the last run has left, and what there is.
    pub fn open(dynamic: &Path) -> (Loader, Known) {
        let cache = dynamic.join(table::FILE);
        let mut netlink = Netlink::open(NETFILTER).ok();
        let now = netlink.as_mut().map(fingerprint);
        let loaded = fs::read_to_string(&cache).ok().and_then(|content| {
            let (mark, text) = content.split_once('\n')?;
            let same = match &now {
                Some(Ok(now)) => mark == format!("{now:016x}"),
                // `plan` without privilege: believe the memory.
                Some(Err(e)) => e.raw_os_error() == Some(Errno::EPERM as i32),
                None => false,
            };
            same.then(|| text.to_owned())
        });
        let is_there = now.and_then(Result::ok).map(|mark| mark != table::none());
        (Loader { cache, netlink }, Known { loaded, is_there })
    }

    /// Remembers which table was loaded, or none. What another program has done to it since, before
    /// its fingerprint was taken, is no part of it: it gets the fingerprint of no table, so that
    /// the watcher sees a difference and the next run loads it again.
    pub fn remember(&mut self, table: Option<&str>, load: Option<&mut Ending>) -> io::Result<()> {
        let text = table.unwrap_or_default();
        let mark = self.netlink.as_mut().map(fingerprint);
        let is_gone = table.is_some() && matches!(mark, Some(Ok(mark)) if mark == table::none());
        let is_other = is_gone || load.is_some_and(|load| load.is_disturbed());
        match mark.map(|mark| mark.map(|mark| if is_other { NOT_OURS } else { mark })) {
            Some(Ok(mark)) => disk::replace(&self.cache, format!("{mark:016x}\n{text}").as_bytes(), None),
            // Not readable: the next run loads it again.
            Some(Err(_)) | None => Ok(()),
        }
    }
}

/// Starts `nft -f -` with the text: one transaction. It works while the caller reads the kernel's
/// state.
pub fn start(text: &str) -> Running {
    let events = Netlink::open(NETFILTER).and_then(|n| n.subscribe(GROUP)).ok();
    Running { child: nft(&["-f", "-"], text), events }
}

/// Asks nft and the kernel whether they would take the text, and changes nothing.
pub fn check(text: &str) -> Result<(), Failure> {
    let (ending, result) = Running { child: nft(&["-c", "-f", "-"], text), events: None }.committed();
    ending.reap();
    result
}

fn nft(arguments: &[&str], text: &str) -> io::Result<Child> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut command = Command::new("nft");
    command.args(arguments).env_clear().env("PATH", path);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // A terminal that is lost sends HUP to the group of fw; nft ends what it has begun.
    command.process_group(0);
    command.spawn().and_then(|mut child| {
        // The whole text has to fit into the pipe, or an nft that says nothing would hold this
        // process, too. A write error means that nft has died; its exit code gives the reason.
        let written = child.stdin.take().map(|mut stdin| {
            let size = i32::try_from(text.len()).unwrap_or(i32::MAX).saturating_add(PIPE);
            if text.len() > PIPE as usize {
                let _ = fcntl(&stdin, FcntlArg::F_SETPIPE_SZ(size));
            }
            stdin.write_all(text.as_bytes())
        });
        match written {
            Some(Err(e)) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
            Some(_) | None => Ok(child),
        }
    })
}

/// The rest of a [`Running`] whose table is committed: nft may not have ended yet.
pub struct Ending {
    child: Option<Child>,
    /// It stays open: the kernel lets the closing of a netfilter socket wait for the same remains.
    events: Option<Netlink>,
    commits: Commits,
}

impl Ending {
    fn of(child: Option<Child>, events: Option<Netlink>) -> Ending {
        Ending { child, events, commits: Commits::default() }
    }

    /// Whether another commit about our table has followed.
    fn is_disturbed(&mut self) -> bool {
        self.commits.take(&self.events.as_ref().map(Netlink::pending).unwrap_or_default());
        self.commits.has_other
    }

    /// Waits for the process. `false`: it has failed, so the commit that was seen was not its own.
    pub fn reap(self) -> bool {
        let ended = self.child.map(|mut child| child.wait());
        drop(self.events);
        ended.is_none_or(|status| status.is_ok_and(|s| s.success()))
    }
}

impl Running {
    /// Waits until the kernel has the table or nft has failed; that error is a line for the
    /// administrator. nft itself ends 8 to 16 ms later: the kernel makes it wait for the old
    /// table's remains when it closes its socket.
    pub fn committed(self) -> (Ending, Result<(), Failure>) {
        let mut child = match self.child {
            Ok(child) => child,
            Err(e) => return (Ending::of(None, self.events), Err(Failure::Unable(not_started(&e)))),
        };
        let mut commits = Commits::default();
        match self.events.as_ref().map(|events| first_sign(events, &child, &mut commits)) {
            Some(Sign::Commit) => return (Ending { commits, ..Ending::of(Some(child), self.events) }, Ok(())),
            Some(Sign::None) => {
                // A child of nft can hold its standard error open.
                let _ = child.kill().and_then(|()| child.wait());
                return (Ending::of(None, self.events), Err(Failure::Unable(SILENT.to_owned())));
            }
            Some(Sign::LastWord) | None => {}
        }
        let mut words = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            let _ = stderr.read_to_string(&mut words);
        }
        let result = match child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(_) if words.contains("Operation not permitted") => {
                Err(Failure::Unable(format!("nft: {}", NO_CAPABILITY)))
            }
            Ok(_) => {
                let line = words.lines().next().unwrap_or("failed without a word");
                Err(Failure::Refused(format!("nft: {}", line.escape_debug())))
            }
            Err(e) => Err(Failure::Unable(format!("unable to wait for nft: {e}"))),
        };
        (Ending { commits, ..Ending::of(None, self.events) }, result)
    }
}

fn not_started(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "unable to run nft: file does not exist: no firewall and no masquerading; \
                                    install nftables (Debian: apt-get install nftables), or say firewall=\"no\" in fw.conf"
            .to_owned(),
        _ => format!("unable to run nft: {}", applet::control::error_text(error)),
    }
}

/// What events since an nft was started tell of our table.
#[derive(Debug, Default)]
struct Commits {
    /// The commit that is being told is about the table itself.
    table: bool,
    /// It is about anything of ours.
    any: bool,
    /// A commit about the table itself was told: nft's.
    has_ours: bool,
    /// Another one has followed.
    has_other: bool,
}

impl Commits {
    fn take(&mut self, events: &[(u16, Vec<u8>)]) {
        for (kind, payload) in events {
            if *kind != NEWGEN {
                let is_ours = table::is_ours(payload);
                self.any |= is_ours;
                self.table |= is_ours && TABLE_EVENTS.contains(kind);
                continue;
            }
            self.has_other |= self.has_ours && self.any;
            self.has_ours |= self.table;
            (self.table, self.any) = (false, false);
        }
    }
}

/// The first sign of life of an nft.
enum Sign {
    /// The kernel has our table.
    Commit,
    /// It speaks or has ended.
    LastWord,
    /// Nothing, for [`PATIENCE`].
    None,
}

/// Waits for a commit that is about our table, or the child's last word, whichever comes first. The
/// kernel names the committing process, but by a number that differs inside a container. While fw
/// holds the lock, only an nft that a killed run has left behind can make this table, too;
/// [`Ending::reap`] finds that out.
fn first_sign(events: &Netlink, child: &Child, commits: &mut Commits) -> Sign {
    let deadline = clock::now() + PATIENCE;
    loop {
        let left = u16::try_from(deadline.saturating_sub(clock::now()).as_millis()).unwrap_or(u16::MAX);
        let Some(stderr) = &child.stderr else { return Sign::LastWord };
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLIN), PollFd::new(stderr.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, left) {
            Ok(0) => return Sign::None,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return Sign::LastWord,
        }
        let [_, last_word] = fds;
        commits.take(&events.pending());
        match (commits.has_ours, last_word.any()) {
            (true, _) => return Sign::Commit,
            (false, Some(false)) => {}
            (false, Some(true) | None) => return Sign::LastWord,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netd_core::left::TABLE;
    use nix::libc;

    /// Events about a table: `+` of the table, `.` of a rule in it, `o` of another table, `|` ends
    /// a commit.
    fn events(text: &str) -> Vec<(u16, Vec<u8>)> {
        let name = |name: &str| {
            let length = u16::try_from(4 + name.len() + 1).unwrap().to_ne_bytes();
            let kind = 1_u16.to_ne_bytes();
            let family = [libc::NFPROTO_INET as u8, 0, 0, 0];
            let mut payload = [&family[..], &length, &kind, name.as_bytes(), &[0]].concat();
            payload.resize(payload.len().next_multiple_of(4), 0);
            payload
        };
        let event = |letter| match letter {
            '+' => (TABLE_EVENTS[0], name(TABLE)),
            '.' => (NEWGEN - 1, name(TABLE)),
            'o' => (TABLE_EVENTS[0], name("other")),
            _ => (NEWGEN, Vec::new()),
        };
        text.chars().map(event).collect()
    }

    #[test]
    fn commits_of_others_about_our_table_are_known() {
        for (text, ours, other) in [
            ("", false, false),
            ("+..", false, false),
            ("+..|", true, false),
            ("o|+..|o|", true, false),
            (".|+..|", true, false),
            ("+..|.|", true, true),
            ("+..|o|+|", true, true),
            ("o|.|", false, false),
        ] {
            let mut commits = Commits::default();
            // One by one, and all at once.
            events(text).chunks(1).for_each(|event| commits.take(event));
            assert_eq!((commits.has_ours, commits.has_other), (ours, other), "{text}");
            let mut commits = Commits::default();
            commits.take(&events(text));
            assert_eq!((commits.has_ours, commits.has_other), (ours, other), "{text}");
        }
    }
}

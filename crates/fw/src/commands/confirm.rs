//! `fw apply`, with and without `--confirm`, and `fw confirm`: the files, the mark and the clock of
//! an edit that is rolled back by itself.
//!
//! Shell: it performs what confirm.rs says. Everything that has to outlive a reboot is in the
//! directory of fw.conf and on the disk before the next action: `.confirm` (the mark),
//! `.confirmed/` (what was confirmed last), `rejected/DATE/` (edits that were not). Called by
//! commands.rs.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use applet::again::{self, Again};
use applet::control::{ServiceDir, error_text};
use applet::date;
use netd::{clock, disk, ipconf};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;

use crate::confirm::{self, Action, Content, Event, Found, Mark, Moment, Move, Standing, Why};
use crate::input::Paths;
use crate::report::{EXIT_ERRORS, EXIT_OK};
use crate::run;
use crate::show;

/// The file of a runsv of ours: runit's does not read `again`.
const INSTANCE: &str = "instance";
/// How often a wait in the foreground looks whether the edit was confirmed.
const LOOK_MS: u16 = 250;
/// The names in `.good` of the dynamic directory, and in the directory of the service.
const POLICY: [&str; 2] = ["policy", "fw.conf"];
const OWN_RULES: [&str; 2] = ["firewall.nft", "firewall.nft"];
const STATIC: [&str; 2] = ["static.", "conf/"];

/// Where things are.
struct Place<'a> {
    paths: &'a Paths,
    home: PathBuf,
    is_service: bool,
}

/// `fw apply`, of which `confirm` is the time in seconds until it is rolled back. `is_service`:
/// runsv has started it.
pub fn apply(paths: &Paths, is_service: bool, confirm: Option<u64>) -> Result<u8, String> {
    let Some(secs) = confirm else { return Place { is_service, ..Place::of(paths) }.perform(Event::Apply) };
    // The session may be lost with the first change. Its HUP must not end the run that brings it
    // back.
    let signals = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT];
    let signals = applet::sys::signal_pipe(&signals).map_err(|e| format!("unable to catch signals: {e}"))?;
    let place = Place::of(paths);
    let code = place.perform(Event::Try { secs })?;
    let Standing::Pending(left) = place.standing()?.0 else { return Ok(code) };
    say(&format!("rolled back in {} unless it is confirmed: fw confirm", show::span(left)));
    match place.service() {
        Some(_) => Ok(code),
        None => place.wait(signals).map(|waited| code.max(waited)),
    }
}

/// `fw confirm`.
pub fn confirm(paths: &Paths) -> Result<u8, String> {
    Place::of(paths).perform(Event::Confirm)
}

/// How an edit stands, for `fw show` and `fw down`.
pub fn standing(paths: &Paths) -> Result<Standing, String> {
    Place::of(paths).standing().map(|(standing, _)| standing)
}

fn say(text: &str) {
    applet::say::error(format_args!("fw: {text}\n"));
}

fn failed(what: &Path, e: &io::Error) -> String {
    format!("unable to write {}: {}", what.display(), error_text(e))
}

/// The boot's whole id, as runsv compares it.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn moment() -> Moment {
    Moment { boottime: clock::now(), boot_id: boot_id() }
}

/// Whether something has this name, also a link that leads nowhere.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// A file's or a directory's name is on the disk when its directory is.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

impl<'a> Place<'a> {
    fn of(paths: &'a Paths) -> Place<'a> {
        let home = paths.config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Place { paths, home: home.to_path_buf(), is_service: false }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// A file of the administrator by its name in the directory of the service.
    fn file(&self, name: &str) -> PathBuf {
        match name.strip_prefix(STATIC[1]) {
            Some(record) => self.paths.static_dir.join(record),
            // A symbolic link may lead anywhere, and stays one.
            None if name == POLICY[1] => self.paths.config.canonicalize().unwrap_or(self.paths.config.clone()),
            None => self.at(name),
        }
    }

    /// The service that a runsv of ours runs here.
    fn service(&self) -> Option<ServiceDir> {
        let reads_again = |s: &ServiceDir| s.check_running().is_ok() && is_there(&s.supervise().join(INSTANCE));
        [self.home.as_path(), Path::new(".")].map(ServiceDir::at).into_iter().find(reads_again)
    }

    /// How an edit stands. Without a mark this is all that a run reads.
    fn standing(&self) -> Result<(Standing, Option<Moment>), String> {
        let path = self.at(".confirm");
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((Standing::Settled, None)),
            Err(e) => Err(format!("unable to read {}: {}", path.display(), error_text(&e))),
            Ok(bytes) => {
                let now = moment();
                Ok((confirm::standing(Some(&String::from_utf8_lossy(&bytes)), &now), Some(now)))
            }
        }
    }

    /// Does what this event leads to, while no other run can begin.
    fn perform(&self, event: Event) -> Result<u8, String> {
        let _lock = run::lock(self.paths)?;
        let (standing, now) = self.standing()?;
        let now = match (event, now) {
            (Event::Apply, None) => return self.run(),
            (_, now) => now.unwrap_or_else(moment),
        };
        let mut code = EXIT_OK;
        for action in confirm::step(&standing, event, &now) {
            match action {
                Action::Keep => self.keep().map_err(|e| failed(&self.at(".confirmed"), &e))?,
                Action::Mark(mark) => self.mark(&mark).map_err(|e| failed(&self.at(".confirm"), &e))?,
                Action::Wake(mark) => self.wake(&mark).map_err(|e| self.give_up(&e))?,
                Action::Apply => code = code.max(run::make(self.paths, self.is_service)?),
                Action::Restore(why) => {
                    code = EXIT_ERRORS;
                    self.restore(why)?;
                }
                Action::Verify => self.verify()?,
                Action::Settle => self.settle().map_err(|e| failed(&self.at(".confirm"), &e))?,
                Action::Refuse(words) => {
                    code = EXIT_ERRORS;
                    applet::say::error(format_args!("fw: error: {words}\n"));
                }
            }
        }
        Ok(code)
    }

    /// Copies what the last run had applied. `.good` has it, whatever the files say by now.
    fn keep(&self) -> io::Result<()> {
        let [kept, new] = [".confirmed", ".confirmed.tmp"].map(|name| self.at(name));
        remove(&new)?;
        fs::create_dir_all(new.join(STATIC[1]))?;
        let good = self.paths.dynamic.join(".good");
        for entry in fs::read_dir(&good).into_iter().flatten() {
            let name = entry?.file_name();
            let Some(name) = name.to_str() else { continue };
            let to = match name.strip_prefix(STATIC[0]) {
                Some(record) => format!("{}{record}", STATIC[1]),
                None => match [POLICY, OWN_RULES].iter().find(|[from, _]| *from == name) {
                    Some([_, to]) => (*to).to_owned(),
                    None => continue,
                },
            };
            disk::replace(&new.join(to), &fs::read(good.join(name))?, None)?;
        }
        sync(&new.join(STATIC[1]))?;
        sync(&new)?;
        remove(&kept)?;
        fs::rename(&new, &kept)?;
        sync(&self.home)
    }

    fn mark(&self, mark: &Mark) -> io::Result<()> {
        disk::replace(&self.at(".confirm"), mark.render().as_bytes(), None)?;
        sync(&self.home)
    }

    /// A run while no edit waits.
    fn run(&self) -> Result<u8, String> {
        let code = match self.paths.down().exists() {
            true => run::unmake(self.paths, self.is_service),
            false => run::make(self.paths, self.is_service),
        };
        // A run that was killed when it had taken the mark away has left the moment.
        if self.is_service && is_over(Path::new(again::FILE)) {
            remove(Path::new(again::FILE)).map_err(|e| failed(Path::new(again::FILE), &e))?;
        }
        code
    }

    /// Has the supervisor look at the mark when its time is over. Without a supervisor this process
    /// does it.
    fn wake(&self, mark: &Mark) -> io::Result<()> {
        let Some(service) = self.service() else { return Ok(()) };
        let moment = Again::At { secs: mark.deadline_secs, boot: mark.boot_id.clone() };
        disk::replace(&service.path().join(again::FILE), format!("{moment}\n").as_bytes(), None)
    }

    /// Nothing is applied where no supervisor would bring it back.
    fn give_up(&self, e: &io::Error) -> String {
        let settled = self.settle().err().map(|e| format!("; {}", failed(&self.at(".confirm"), &e)));
        failed(Path::new(again::FILE), e) + &settled.unwrap_or_default()
    }

    /// The administrator's files as they are.
    fn now(&self) -> Result<Vec<Found>, String> {
        let dir = &self.paths.static_dir;
        let records = ipconf::list(dir).map_err(|e| format!("unable to read {}: {}", dir.display(), error_text(&e)))?;
        let mut out = Vec::new();
        for path in records {
            // A name that is no text is no name that fw could have kept.
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            out.push((format!("{}{name}", STATIC[1]), ipconf::read_bytes(dir, &path).ok()));
        }
        for name in [POLICY[1], OWN_RULES[1]] {
            let path = self.file(name);
            if is_there(&path) {
                let dir = path.parent().unwrap_or(&self.home);
                out.push((name.to_owned(), ipconf::read_bytes(dir, &path).ok()));
            }
        }
        Ok(out)
    }

    fn kept(&self) -> io::Result<Vec<Content>> {
        let kept = self.at(".confirmed");
        let mut out = Vec::new();
        for path in ipconf::list(&kept.join(STATIC[1]))? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            out.push((format!("{}{name}", STATIC[1]), fs::read(&path)?));
        }
        for name in [POLICY[1], OWN_RULES[1]] {
            match fs::read(kept.join(name)) {
                Ok(bytes) => out.push((name.to_owned(), bytes)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    /// Puts the confirmed files in place.
    fn restore(&self, why: Why) -> Result<(), String> {
        let kept = self.at(".confirmed");
        if !kept.is_dir() {
            let text = format!("the edit {}, but {} is gone: it stays", why.text(), kept.display());
            applet::say::error(format_args!("fw: error: {text}\n"));
            return Ok(());
        }
        let old = self.kept().map_err(|e| format!("unable to read {}: {}", kept.display(), error_text(&e)))?;
        let moves = confirm::moves(&old, &self.now()?);
        let rejected = self.rejected();
        for step in &moves {
            let (path, done) = match step {
                Move::Reject(name) => (rejected.join(name), self.reject(&rejected, name)),
                Move::Write(name, bytes) => (self.file(name), write(&self.file(name), bytes)),
                Move::Remove(name) => (self.file(name), remove(&self.file(name))),
            };
            done.map_err(|e| failed(&path, &e))?;
        }
        sync(&self.paths.static_dir).and_then(|()| sync(&self.home)).map_err(|e| failed(&self.home, &e))?;
        let where_to = match moves.iter().any(|m| matches!(m, Move::Reject(_))) {
            true => format!(": it is in {}", rejected.display()),
            false if moves.is_empty() => ": no file has changed".to_owned(),
            false => String::new(),
        };
        say(&format!("the edit {}: rolled back{where_to}", why.text()));
        Ok(())
    }

    /// A directory for one rejected edit, which is not there yet.
    fn rejected(&self) -> PathBuf {
        let date = date::utc(clock::wall().as_secs());
        let names = (0..100).map(|n| if n == 0 { date.clone() } else { format!("{date}.{n}") });
        let mut places = names.map(|name| self.home.join("rejected").join(name));
        places.find(|path| !is_there(path)).unwrap_or_else(|| self.home.join("rejected/more"))
    }

    /// Keeps a copy. What cannot be read as a file, as a directory in its place, is moved there.
    fn reject(&self, rejected: &Path, name: &str) -> io::Result<()> {
        let (from, to) = (self.file(name), rejected.join(name));
        let directory = to.parent().unwrap_or(rejected);
        fs::create_dir_all(directory)?;
        match ipconf::read_bytes(from.parent().unwrap_or(&self.home), &from) {
            Ok(bytes) => disk::replace(&to, &bytes, fs::metadata(&from).ok().map(|m| m.permissions()))?,
            Err(_) => fs::rename(&from, &to)?,
        }
        [directory, rejected, &self.home.join("rejected"), &self.home].into_iter().try_for_each(sync)
    }

    /// Asks the kernel again whether it has all that the old files ask for.
    fn verify(&self) -> Result<(), String> {
        let left = run::differences(self.paths)?;
        match left.is_empty() {
            true => say("rolled back: the kernel has all of it again"),
            false => left.iter().for_each(|line| {
                applet::say::error(format_args!("fw: error: after the rollback this is still to be done: {line}\n"));
            }),
        }
        Ok(())
    }

    /// The mark goes first: without it nothing is ever rolled back.
    fn settle(&self) -> io::Result<()> {
        remove(&self.at(".confirm"))?;
        sync(&self.home)?;
        remove(&self.at(".confirmed"))?;
        for directory in [self.home.as_path(), Path::new(".")] {
            let path = directory.join(again::FILE);
            if matches!(read_again(&path), Some(Again::At { .. })) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Without a supervisor: waits until the edit is confirmed by another fw, or its time is over.
    fn wait(&self, signals: OwnedFd) -> Result<u8, String> {
        let mut pipe = File::from(signals);
        loop {
            let left = match self.standing()?.0 {
                Standing::Settled => return Ok(EXIT_OK),
                Standing::Over(_) => return self.perform(Event::Apply),
                Standing::Pending(left) => u16::try_from(left.as_millis() + 1).unwrap_or(LOOK_MS).min(LOOK_MS),
            };
            let _ = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], left);
            let mut byte = [0];
            while pipe.read(&mut byte).is_ok_and(|n| n == 1) {
                if i32::from(byte[0]) != Signal::SIGHUP as i32 {
                    return self.perform(Event::GiveUp);
                }
            }
        }
    }
}

fn read_again(path: &Path) -> Option<Again> {
    Again::parse(&fs::read_to_string(path).ok()?)
}

/// Whether the file names a moment that has passed.
fn is_over(path: &Path) -> bool {
    let is_at = |again: &Again| matches!(again, Again::At { .. });
    let moment = read_again(path).filter(is_at).map(|again| again.moment(clock::now(), &boot_id()));
    moment.is_some_and(|at| at <= clock::now())
}

/// As [`disk::replace`]; an old file's mode stays.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => remove(path)?,
        Ok(_) => {}
        Err(_) => path.parent().map_or(Ok(()), fs::create_dir_all)?,
    }
    disk::replace(path, bytes, fs::metadata(path).ok().filter(|m| m.is_file()).map(|m| m.permissions()))
}

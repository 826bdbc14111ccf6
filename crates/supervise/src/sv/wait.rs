//! The waiting of sv, until a service has really done what it was told: for changes of supervise/
//! (inotify), for the end of runsv (the fifo) and of ./check (pidfd), never a poll. A service is
//! looked at when something of it has changed: the wait for many costs each of them no more than
//! the wait for one. What it is not: which state is waited for (verb.rs), or what is said of it
//! (sv.rs, which calls this).
#![expect(clippy::disallowed_methods, reason = "runs ./check")]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::facts::{Facts, Reader};
use super::text;
use super::verb::{Goal, Order};
use crate::settings::{self, is_shortage};
use crate::{spawn, sys};
use applet::control::{ControlError, ServiceDir, Status, below, error_text};
use applet::say;

/// A net below inotify: a supervise/ that was replaced, or a file system without it, is looked at
/// once a second.
const NET: Duration = Duration::from_secs(1);
/// A ./check that says no is asked again after this, then twice this, up to [`CHECK_MOST`]: nothing
/// tells when it will say yes. The most is runit's fixed interval.
const CHECK_FIRST: Duration = Duration::from_millis(10);
const CHECK_MOST: Duration = Duration::from_millis(420);

/// A runsv that does not run yet is waited for this long, where its directory is there: runsvdir
/// has to find a directory that has just been made.
const APPEAR: Duration = Duration::from_secs(1);
/// The pauses between looks for it.
const APPEAR_FIRST: Duration = Duration::from_millis(2);
const APPEAR_MOST: Duration = Duration::from_millis(50);
/// What is left to runsv when the time of the service is over: to end it, and to say so.
const MARGIN: Duration = Duration::from_secs(1);

/// The shortest wait: runsv has to read the command.
const LEAST: Duration = Duration::from_millis(100);

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) time: Duration,
    /// `-w`: not longer, whatever the service asks for.
    pub(super) exact: bool,
}

/// One service that is to obey.
pub(super) struct Target {
    pub(super) name: OsString,
    pub(super) dir: ServiceDir,
    stage: Stage,
    wait: Wait,
    /// Keep its control fifo open.
    hold: bool,
    /// When it is too late.
    pub(super) end: Duration,
    /// `None`: not looked for yet. There may be none to be had.
    watches: Option<Vec<WatchDescriptor>>,
    /// To be looked at.
    due: bool,
    check: Check,
}

enum Stage {
    /// It is to be sent the command, as soon as it has a runsv: until then, and next at.
    Unsent {
        until: Duration,
        at: Duration,
        pause: Duration,
    },
    Sent(Sent),
}

struct Sent {
    /// Its status before the command was sent.
    before: Status,
    /// Tells of the end of runsv. Without it, for want of descriptors, the net does.
    control: Option<File>,
    /// The command has been read.
    read: bool,
    /// runsv has ended.
    gone: bool,
}

/// The state of asking ./check.
enum Check {
    /// To be asked when the state is right.
    Unasked,
    /// It runs.
    Asked(Child, Option<OwnedFd>, Duration),
    /// It said no, or could not be run; the next time is `at`.
    Refused { at: Duration, pause: Duration },
}

/// What a look at a service gives.
pub(super) enum Look {
    NotYet,
    Reached(Facts),
    RunsvGone,
    Lost(ControlError),
}

impl Target {
    pub(super) fn new(name: OsString, order: &Order, wait: Wait, hold: bool) -> Target {
        let dir = ServiceDir::resolve(&name);
        let now = sys::now();
        // Where no runsv is wanted, none is waited for.
        let appear = if order.goal == Goal::Gone { Duration::ZERO } else { APPEAR.min(wait.time) };
        let stage = Stage::Unsent { until: now + appear, at: now, pause: APPEAR_FIRST };
        let end = now.saturating_add(wait.time.max(LEAST));
        Target { name, dir, stage, wait, hold, end, watches: None, due: true, check: Check::Unasked }
    }

    /// Whether something of it may have changed since the last time that this was asked.
    pub(super) fn take_due(&mut self, now: Duration) -> bool {
        let again = self.next_look().is_some_and(|at| at <= now);
        std::mem::take(&mut self.due) || again
    }

    /// When to look at it although nothing may have changed.
    fn next_look(&self) -> Option<Duration> {
        match (&self.stage, &self.check) {
            (Stage::Unsent { at, .. }, _) | (Stage::Sent(_), Check::Refused { at, .. }) => Some(*at),
            (Stage::Sent(_), Check::Unasked | Check::Asked(..)) => None,
        }
    }

    pub(super) fn look(&mut self, reader: &Reader, order: &Order) -> Look {
        let sent = match &mut self.stage {
            Stage::Sent(sent) => sent,
            Stage::Unsent { .. } => return self.send(order).unwrap_or_else(|| self.look(reader, order)),
        };
        if sent.gone && order.goal == Goal::Gone {
            return Look::RunsvGone;
        }
        if std::mem::take(&mut sent.gone)
            && let Some(control) = &mut sent.control
        {
            // Another runsv may have come, or a removed supervise/ has been made anew.
            match self.dir.open_control() {
                Ok(new) => *control = new,
                Err(e) if text::is_gone(&e) => return Look::RunsvGone,
                Err(e) => return Look::Lost(e),
            }
        }
        match sent.has_read(&self.dir) {
            Ok(true) => {}
            Ok(false) => return Look::NotYet,
            Err(e) if text::is_gone(&e) => return Look::RunsvGone,
            Err(e) => return Look::Lost(e),
        }
        let facts = match reader.facts(&self.dir) {
            Ok(facts) => facts,
            Err(e) if text::is_gone(&e) => return Look::RunsvGone,
            Err(e) => return Look::Lost(e),
        };
        if !order.goal.reached(&sent.before, &facts.status) {
            self.end_check();
            return Look::NotYet;
        }
        if !order.goal.asks_check(&facts.status) {
            return Look::Reached(facts);
        }
        // What it says itself costs no process.
        if text::not_ready(&facts) {
            self.end_check();
            return Look::NotYet;
        }
        if self.checked() { Look::Reached(facts) } else { Look::NotYet }
    }

    /// Sends the command, if there is a runsv; what there is to say if there is none.
    fn send(&mut self, order: &Order) -> Option<Look> {
        // Found anew at each try.
        self.dir = ServiceDir::resolve(&self.name);
        let sent = (|| {
            self.dir.check_running()?;
            // Opened before the command, so that the end of runsv cannot be missed.
            let control = self.dir.open_control()?;
            let before = self.dir.status()?;
            self.dir.send_marked(&control, &order.letters)?;
            Ok((before, control))
        })();
        match sent {
            Ok((before, control)) => {
                if (order.ends() || before.got_term)
                    && !self.wait.exact
                    && let Some(time) = settings::time_to_end(self.dir.path())
                {
                    self.end = self.end.max(sys::now() + time + MARGIN);
                }
                let control = Some(control).filter(|_| self.hold);
                self.stage = Stage::Sent(Sent { before, control, read: false, gone: false });
                None
            }
            Err(e) => Some(self.not_sent(e)),
        }
    }

    fn not_sent(&mut self, error: ControlError) -> Look {
        let comes = match &error {
            ControlError::NotRunning(_) => true,
            // It is being made.
            ControlError::Io(_, e) => e.kind() == io::ErrorKind::NotFound,
            ControlError::Missing(_) | ControlError::Full => false,
        };
        let now = sys::now();
        match &mut self.stage {
            Stage::Unsent { until, at, pause } if comes && now < *until => {
                (*at, *pause) = ((now + *pause).min(*until), (*pause * 2).min(APPEAR_MOST));
                Look::NotYet
            }
            Stage::Unsent { .. } | Stage::Sent(_) => Look::Lost(error),
        }
    }

    /// Whether ./check says yes, or is not there.
    fn checked(&mut self) -> bool {
        let first = matches!(self.check, Check::Unasked);
        let pause = match &mut self.check {
            Check::Unasked => CHECK_FIRST,
            Check::Refused { at, .. } if sys::now() < *at => return false,
            Check::Refused { pause, .. } => *pause,
            Check::Asked(child, _, pause) => {
                let pause = *pause;
                return match child.try_wait() {
                    Ok(None) => false,
                    Ok(Some(code)) if code.success() => {
                        self.check = Check::Unasked;
                        true
                    }
                    Ok(Some(_)) | Err(_) => self.refused(pause),
                };
            }
        };
        let path = self.dir.path();
        match File::open(path.join("check")) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return true,
            Err(e) => {
                if first {
                    self.warn("open", &e);
                }
                return self.refused(pause);
            }
            Ok(_) => {}
        }
        let mut check = Process::new("./check");
        check.current_dir(path).stdout(Stdio::null());
        if let Ok(name) = spawn::called(path) {
            check.env(spawn::NAME, name);
        }
        match check.spawn() {
            Ok(mut child) => {
                let pidfd = sys::pidfd_open(child.id()).ok();
                if pidfd.is_none() {
                    let _ = child.wait();
                }
                self.check = Check::Asked(child, pidfd, pause);
                // Without a pidfd it has ended by now.
                matches!(self.check, Check::Asked(_, None, _)) && self.checked()
            }
            Err(e) if is_shortage(&e) => {
                if first {
                    self.warn("fork for", &e);
                }
                self.refused(pause)
            }
            // As in runit: one that cannot be executed has nothing to say against it.
            Err(e) => {
                self.warn("run", &e);
                true
            }
        }
    }

    fn warn(&self, tried: &str, error: &io::Error) {
        let text = error_text(error);
        say::error(format_args!("warning: unable to {tried} {}/check: {text}\n", self.name.display()));
    }

    fn refused(&mut self, pause: Duration) -> bool {
        self.check = Check::Refused { at: sys::now() + pause, pause: (pause * 2).min(CHECK_MOST) };
        false
    }

    /// It is not to be asked now. A time at which it would be asked again is over, too: the wait
    /// would find it due again and again.
    pub(super) fn end_check(&mut self) {
        if let Check::Asked(child, _, _) = &mut self.check {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.check = Check::Unasked;
    }

    /// From now on the kernel tells of it, once it has been sent the command: before, its
    /// supervise/ may not be there yet. Whether it is to be looked at once more for that.
    fn watch(&mut self, inotify: &Inotify) -> bool {
        if self.watches.is_some() || matches!(self.stage, Stage::Unsent { .. }) {
            return false;
        }
        let supervise = self.dir.supervise();
        // Without a watch the net does. A command that has been read is told by the fifo.
        let places = [
            (below(supervise, "control"), AddWatchFlags::IN_ACCESS),
            (supervise.to_path_buf(), AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE_SELF),
        ];
        self.watches = Some(places.iter().filter_map(|(at, flags)| inotify.add_watch(at, *flags).ok()).collect());
        self.due = true;
        true
    }
}

impl Sent {
    /// Whether runsv has read the command: the status tells of it from then on.
    fn has_read(&mut self, dir: &ServiceDir) -> Result<bool, ControlError> {
        if !self.read {
            self.read = match &self.control {
                Some(control) => dir.has_read(control)?,
                None => dir.has_read(&dir.open_control()?)?,
            };
        }
        Ok(self.read)
    }
}

/// What wakes the wait. Most of what is asked for is done in a few milliseconds, and a kernel takes
/// longer than that to close an inotify descriptor (it waits for a grace period): so a few looks
/// come first.
pub(super) struct Watch {
    /// Pauses between the first looks.
    early: std::slice::Iter<'static, u64>,
    /// `None`: not yet, or there is none to be had.
    inotify: Option<Inotify>,
    opened: bool,
    net: Duration,
}

/// Milliseconds between the first looks.
const EARLY: [u64; 5] = [1, 1, 2, 4, 8];

impl Watch {
    pub(super) fn new() -> Watch {
        Watch { early: EARLY.iter(), inotify: None, opened: false, net: sys::now() + NET }
    }

    /// Until something has changed, or the time of one is over, or the net. Notes what is to be
    /// looked at, and who has lost its runsv: another may have come since.
    pub(super) fn sleep(&mut self, targets: &mut [Target]) {
        let early = self.early.next().map(|pause| sys::now() + Duration::from_millis(*pause));
        if early.is_none() && !std::mem::replace(&mut self.opened, true) {
            self.inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok();
        }
        let mut fresh =
            |inotify: &Inotify| targets.iter_mut().map(|target| target.watch(inotify)).filter(|new| *new).count();
        if self.inotify.as_ref().is_some_and(|inotify| fresh(inotify) > 0) {
            // What it marks is looked at before anything is waited for.
            return;
        }
        let due = targets.iter().flat_map(|target| [Some(target.end), target.next_look()]).flatten().min();
        let until = due.unwrap_or(Duration::MAX).min(self.net).min(early.unwrap_or(Duration::MAX));
        // Per descriptor: whose it is, and whether it is that of ./check.
        let mut owners = Vec::new();
        let mut set = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            if let Stage::Sent(Sent { control: Some(control), .. }) = &target.stage {
                // No events asked for: POLLERR comes unasked when the reader is gone.
                owners.push((index, false));
                set.push(PollFd::new(control.as_fd(), PollFlags::empty()));
            }
            match &target.check {
                Check::Unasked | Check::Asked(_, None, _) | Check::Refused { .. } => {}
                Check::Asked(_, Some(pidfd), _) => {
                    owners.push((index, true));
                    set.push(readable(pidfd.as_fd()));
                }
            }
        }
        set.extend(self.inotify.iter().map(|inotify| readable(inotify.as_fd())));
        let wait = until.saturating_sub(sys::now()).saturating_add(Duration::from_nanos(999_999));
        let _ = poll(&mut set, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX));
        let happened = set.iter().map(|fd| fd.any().unwrap_or(false));
        let happened: Vec<(usize, bool)> =
            owners.into_iter().zip(happened).filter(|(_, is)| *is).map(|(o, _)| o).collect();
        for (index, is_check) in happened {
            if let Some(target) = targets.get_mut(index) {
                target.due = true;
                if let Stage::Sent(sent) = &mut target.stage {
                    sent.gone |= !is_check;
                }
            }
        }
        if early.is_some() {
            targets.iter_mut().for_each(|target| target.due = true);
        }
        self.take_events(targets);
    }

    fn take_events(&mut self, targets: &mut [Target]) {
        let now = sys::now();
        if now >= self.net {
            self.net = now + NET;
            targets.iter_mut().for_each(|target| target.due = true);
        }
        for event in self.inotify.iter().filter_map(|i| i.read_events().ok()).flatten() {
            let lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
            let told = |target: &Target| lost || target.watches.iter().flatten().any(|wd| *wd == event.wd);
            for target in targets.iter_mut().filter(|target| told(target)) {
                target.due = true;
            }
        }
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

/// One descriptor for each service is held while it is waited for; runit holds none. As many as the
/// system gives, and how many services that is: the rest is for the net.
pub(super) fn descriptors(services: usize) -> usize {
    /// For what is read, run, and watched beside.
    const OTHERS: u64 = 64;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((OTHERS, OTHERS));
    let wanted = (services as u64).saturating_add(OTHERS).min(hard);
    let limit = if wanted > soft && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() { wanted } else { soft };
    usize::try_from(limit.saturating_sub(OTHERS)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::verb::order;
    use super::*;

    #[test]
    fn a_check_that_is_not_to_be_asked_now_does_not_wake_the_wait() {
        let wait = Wait { time: Duration::from_secs(7), exact: false };
        let mut target = Target::new("/none".into(), &order("start", false).unwrap(), wait, true);
        target.stage = Stage::Sent(Sent { before: status(), control: None, read: true, gone: false });
        target.check = Check::Refused { at: Duration::ZERO, pause: CHECK_FIRST };
        assert!(target.take_due(sys::now()) && target.take_due(sys::now()), "asked again");
        target.end_check();
        assert!(!target.take_due(sys::now()));
    }

    fn status() -> Status {
        Status::decode(&[0; 20]).unwrap()
    }
}

//! The file `again` of a service that rests: reading it, and waking up at its moment. What it is
//! not: its text (applet::again) or what follows from it (service/again.rs).

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{SAVE_AGAIN, Unit};
use crate::service::Event;
use crate::settings::{self, is_shortage};
use crate::shared::Source;
use crate::sys;
use applet::again::{self, Again};
use applet::control::error_text;

/// What a unit knows of its file.
#[derive(Default)]
pub(super) struct Later {
    /// The file that does not count since `d`, see [`identity`]; 0: none.
    pub(super) put_off: u64,
    /// The moment, and what wakes us up then. poll(2) does not count the time of a suspend.
    alarm: Option<(Duration, TimerFd)>,
    /// The last complaint about it.
    complaint: Option<String>,
}

impl Unit {
    /// Reads the file, and starts the service if its moment has come.
    pub(super) fn look_at_again(&mut self) {
        if self.service.rests() {
            let at = self.read_again();
            self.step(Event::Again(at));
        }
        self.set_alarm();
    }

    fn read_again(&mut self) -> Option<Duration> {
        let found = settings::open(self.dir, again::FILE).and_then(|file| {
            let id = identity(&file.metadata()?);
            Ok((id, settings::text(file)?))
        });
        let (complaint, at) = match found {
            Err(e) if e.kind() == io::ErrorKind::NotFound => (None, None),
            // Another try later may work, and no start without one.
            Err(e) if is_shortage(&e) => (Some(unread(&e)), Some(sys::now() + SAVE_AGAIN)),
            Err(e) => (Some(unread(&e)), None),
            Ok((id, _)) if id == self.later.put_off => (None, None),
            Ok((_, text)) if text.trim().is_empty() => (None, None),
            Ok((_, text)) => match Again::parse(&text) {
                Some(again) => {
                    let boot = self.shared.boot().split('/').next().unwrap_or_default();
                    (None, Some(again.moment(self.since, boot)))
                }
                None => (Some(settings::unexpected(again::FILE, &text)), None),
            },
        };
        if complaint != self.later.complaint {
            complaint.iter().for_each(|text| self.warn(text));
            self.later.complaint = complaint;
        }
        at
    }

    /// What it asks for now does not count any more. A file that comes later does.
    pub(super) fn put_off(&mut self) {
        self.later.put_off = fs::metadata(self.dir.join(again::FILE)).map_or(0, |found| identity(&found));
    }

    /// Where there is no such timer, the time of a suspend is added to the wait.
    fn set_alarm(&mut self) {
        let at = self.service.again();
        if self.later.alarm.as_ref().map(|(at, _)| *at) == at {
            return;
        }
        // Closed, it is not watched any more.
        self.later.alarm = None;
        if let Some(at) = at
            && let Ok(timer) = timer(at)
        {
            self.shared.watch(&timer, self.token, Source::Alarm);
            self.later.alarm = Some((at, timer));
        }
    }

    /// The moment has come.
    pub(super) fn alarm(&mut self) {
        self.later.alarm = None;
        self.handle(Event::Tick);
    }

    pub(super) fn watch_alarm(&self) {
        self.later.alarm.iter().for_each(|(_, timer)| self.shared.watch(timer, self.token, Source::Alarm));
    }

    pub(super) fn forget_alarm(&self) {
        self.later.alarm.iter().for_each(|(_, timer)| self.shared.forget(timer));
    }
}

fn timer(at: Duration) -> nix::Result<TimerFd> {
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
    timer.set(Expiration::OneShot(TimeSpec::from_duration(at)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
    Ok(timer)
}

fn unread(e: &io::Error) -> String {
    format!("unable to read ./{}: {}", again::FILE, error_text(e))
}

/// Tells a file from the one that replaces it. 0 is no file.
fn identity(found: &Metadata) -> u64 {
    let written = found.mtime().cast_unsigned().rotate_left(32) ^ found.mtime_nsec().cast_unsigned();
    (found.ino().rotate_left(20) ^ written).max(1)
}

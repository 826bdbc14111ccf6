//! What all services of one process share: the epoll set that tells which of their descriptors has
//! something, the name of this boot, and the limit of open descriptors.
//!
//! What it is not: waiting (runsv.rs and runsvdir.rs poll the set together with their own
//! descriptors). Called by host.rs and unit.rs.

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{instance, sys};
use applet::control::error_text;
use applet::say;

/// Which descriptor of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Something has come into a service directory, or gone; see [`Shared::changed`]. First of all:
    /// a log that came before a letter is there when that is obeyed.
    Directory,
    /// supervise/control has letters.
    Control,
    /// ./run says that it is ready.
    Notification,
    /// An adopted process has ended.
    Adopted,
    /// The moment that a file `again` names has come.
    Alarm,
}

/// The lowest bits of a token say which source.
const SOURCE_BITS: u32 = 3;

/// The common things.
pub(crate) struct Shared {
    epoll: Epoll,
    /// Tells of service directories, where dnotify does not.
    inotify: OnceCell<Inotify>,
    boot: String,
    hosting: bool,
    sessions: bool,
    keeping: Cell<bool>,
    limit: Option<(u64, u64)>,
}

impl Shared {
    /// For one service, as runsv has it.
    pub(crate) fn new() -> io::Result<Shared> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Shared {
            epoll,
            inotify: OnceCell::new(),
            boot: instance::boot()?,
            hosting: false,
            sessions: false,
            keeping: Cell::new(false),
            limit: None,
        })
    }

    /// For any number of services: nothing waits, and the limit of open descriptors is what the
    /// system allows. With `sessions` each process starts its own session.
    pub(crate) fn hosting(sessions: bool) -> io::Result<Shared> {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).ok().filter(|(soft, hard)| soft < hard);
        let limit = limit.filter(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, *hard, *hard).is_ok());
        Ok(Shared { hosting: true, sessions, limit, ..Shared::new()? })
    }

    /// Whether it is alone in its process, so that no other service waits while it waits for a
    /// lock.
    pub(crate) fn may_wait(&self) -> bool {
        !self.hosting
    }

    /// Whether each process starts its own session.
    pub(crate) fn sessions(&self) -> bool {
        self.sessions
    }

    /// The services are those of a runsvdir that has ended: the next one may have them.
    pub(crate) fn keep(&self) {
        self.keeping.set(true);
    }

    /// See [`Shared::keep`].
    pub(crate) fn is_keeping(&self) -> bool {
        self.keeping.get()
    }

    /// Names this boot; see [`instance::boot`].
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Readable when a watched descriptor has something.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// Tells of input on `fd` from now on, as `token` and `source`.
    pub(crate) fn watch(&self, fd: &impl AsFd, token: u64, source: Source) {
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN, (token << SOURCE_BITS) | source as u64);
        let watched = match self.epoll.add(fd, event) {
            Err(Errno::EEXIST) => self.epoll.modify(fd, &mut event),
            other => other,
        };
        if let Err(e) = watched {
            say::error(format_args!("runsv: warning: unable to watch a descriptor: {}\n", error_text(&e.into())));
        }
    }

    /// Tells no more of it.
    pub(crate) fn forget(&self, fd: &impl AsFd) {
        // It may not have been watched.
        let _ = self.epoll.delete(fd);
    }

    /// Tells once when something comes into `dir`, the working directory, or goes: by SIGIO if
    /// nothing is returned, else as [`Source::Directory`]. A process for one service does without
    /// inotify, of which there may be 128 for a user.
    pub(crate) fn watch_directory(&self, dir: BorrowedFd<'_>) -> io::Result<Option<WatchDescriptor>> {
        if !self.hosting && sys::notify_once(dir).is_ok() {
            return Ok(None);
        }
        let inotify = match self.inotify.get() {
            Some(inotify) => inotify,
            None => {
                let new = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
                self.watch(&new, 0, Source::Directory);
                self.inotify.get_or_init(|| new)
            }
        };
        let comes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        let goes = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
        Ok(Some(inotify.add_watch(".", comes | goes | AddWatchFlags::IN_ONESHOT)?))
    }

    /// The directories that have changed.
    pub(crate) fn changed(&self) -> Vec<WatchDescriptor> {
        let events = self.inotify.get().and_then(|inotify| inotify.read_events().ok());
        events.into_iter().flatten().map(|event| event.wd).collect()
    }

    /// What has something now: (token, source), letters before ends. `t` then counts as the reason
    /// of an end that comes with it, and one restart follows, not two.
    pub(crate) fn ready(&self) -> Vec<(u64, Source)> {
        let mut events = [EpollEvent::empty(); 64];
        let n = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        let mut found: Vec<_> = events.iter().take(n).map(|event| split(event.data())).collect();
        applet::sort::sort_by_key(&mut found, |(_, source)| *source);
        found
    }

    /// The limit of open descriptors that we were given, where ours is another: soft, hard.
    pub(crate) fn given_limit(&self) -> Option<(u64, u64)> {
        self.limit
    }
}

fn split(data: u64) -> (u64, Source) {
    let source = match data & ((1 << SOURCE_BITS) - 1) {
        0 => Source::Directory,
        1 => Source::Control,
        2 => Source::Notification,
        3 => Source::Adopted,
        _ => Source::Alarm,
    };
    (data >> SOURCE_BITS, source)
}

//! Waits until files of a directory have changed: inotify(7), as a stream for a daemon's select
//! loop.
//!
//! A shell. It tells that something happened, not what: who is told looks again, so a queue that
//! overflowed loses nothing. The directory is made when it is missing, and watched anew when it was
//! removed. Called by the pinger.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use crate::ready::watch;

/// A directory under watch.
pub struct DirectoryWatch {
    path: PathBuf,
    inotify: Inotify,
    /// The same queue under a second descriptor, which the runtime watches.
    ready: AsyncFd<OwnedFd>,
}

impl DirectoryWatch {
    /// From now on no change is missed. Must be called inside a tokio runtime with IO enabled.
    pub fn open(path: &Path) -> io::Result<DirectoryWatch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let ready = watch(inotify.as_fd().try_clone_to_owned()?)?;
        let watch = DirectoryWatch { path: path.to_owned(), inotify, ready };
        watch.add().map_err(|e| io::Error::new(e.kind(), format!("unable to watch {}: {e}", path.display())))?;
        Ok(watch)
    }

    fn add(&self) -> io::Result<()> {
        // Files are renamed into their place; one that is written in place is complete when it is
        // closed.
        let changes = AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ONLYDIR;
        fs::create_dir_all(&self.path)?;
        self.inotify.add_watch(&self.path, changes)?;
        Ok(())
    }

    /// Waits until a file whose name `wanted` likes has changed. Safe to drop and to call again.
    pub async fn changed(&mut self, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        loop {
            let mut ready = self.ready.readable().await?;
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(e) => return Err(e.into()),
            };
            let gone = events.iter().any(|e| e.mask.contains(AddWatchFlags::IN_IGNORED));
            if gone {
                self.add()?;
            }
            // Without a name: the queue overflowed.
            let named = |e: &nix::sys::inotify::InotifyEvent| {
                e.name.as_ref().is_none_or(|name| name.to_str().is_some_and(&wanted))
            };
            if gone || events.iter().any(named) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_the_wanted_file_are_told_also_after_the_directory_was_replaced() {
        let dir = std::env::temp_dir().join(format!("directory-watch-{}", std::process::id()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let mut watch = DirectoryWatch::open(&dir).unwrap();
            fs::write(dir.join("other"), "").unwrap();
            fs::write(dir.join("one"), "").unwrap();
            watch.changed(|name| name == "one").await.unwrap();
            fs::remove_dir_all(&dir).unwrap();
            watch.changed(|_| false).await.unwrap();
            fs::write(dir.join("tmp"), "").unwrap();
            fs::rename(dir.join("tmp"), dir.join("one")).unwrap();
            watch.changed(|name| name == "one").await.unwrap();
        });
        fs::remove_dir_all(&dir).unwrap();
    }
}

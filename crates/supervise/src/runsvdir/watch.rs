//! What has to be watched to hear of every change of a services directory: itself; each symbolic
//! link on the way to it (it may be switched); the directory that the target of a linked service
//! lies in (it may be replaced, or come later); and a new service directory until it has its ./run.
//!
//! What an event says is not looked at: the directory is read again. Called by runsvdir.rs.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

/// path_resolution(7): more links than this are a loop.
const MAX_LINKS: usize = 40;

pub(super) struct Watch {
    inotify: Inotify,
    /// Device and inode of the directory, and the links that lead to it.
    base: (u64, u64, Vec<PathBuf>),
    targets: Vec<PathBuf>,
    fresh: Vec<(PathBuf, WatchDescriptor)>,
}

impl Watch {
    /// Empties the queue, and begins anew where the directory is another than before. False when
    /// the directory cannot be watched.
    pub(super) fn renew(watch: &mut Option<Watch>, dir: &Path) -> bool {
        if let Some(watch) = watch {
            while watch.inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
        }
        let links = links(dir);
        let stat = fs::metadata(dir);
        let ident = stat.as_ref().map_or((0, 0), |s| (s.dev(), s.ino()));
        let base = (ident.0, ident.1, links);
        if watch.as_ref().is_some_and(|watch| watch.base == base) && !watch_is_void(&base) {
            return true;
        }
        *watch = Watch::open(dir, base);
        watch.is_some() && stat.is_ok()
    }

    fn open(dir: &Path, base: (u64, u64, Vec<PathBuf>)) -> Option<Watch> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
        for link in &base.2 {
            // The link, not what it leads to: a link that is replaced says so itself.
            inotify.add_watch(link, itself() | AddWatchFlags::IN_DONT_FOLLOW).ok()?;
        }
        let watched = inotify.add_watch(dir, entries() | itself() | AddWatchFlags::IN_ONLYDIR);
        // A directory that is not there cannot be watched: the slow rescan finds it.
        watched.ok()?;
        Some(Watch { inotify, base, targets: Vec::new(), fresh: Vec::new() })
    }

    /// A service that is a symbolic link: where its target lies.
    pub(super) fn target_of(&mut self, link: &Path) {
        let Ok(text) = fs::read_link(link) else { return };
        let target = link.parent().unwrap_or(Path::new(".")).join(text);
        let Some(parent) = target.parent() else { return };
        if self.targets.iter().any(|t| t == parent) {
            return;
        }
        // The same flags as for the directory itself: it may be that, and a second watch replaces
        // the first.
        let flags = entries() | itself() | AddWatchFlags::IN_ONLYDIR;
        if self.inotify.add_watch(parent, flags).is_ok() {
            self.targets.push(parent.to_path_buf());
        }
    }

    /// Watches exactly these service directories for their ./run.
    pub(super) fn fresh(&mut self, dirs: &[PathBuf]) {
        let inotify = &self.inotify;
        self.fresh.retain(|(dir, wd)| {
            let keep = dirs.contains(dir);
            if !keep {
                let _ = inotify.rm_watch(*wd);
            }
            keep
        });
        let flags = entries() | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ONLYDIR;
        for dir in dirs {
            if !self.fresh.iter().any(|(known, _)| known == dir)
                && let Ok(wd) = self.inotify.add_watch(dir, flags)
            {
                self.fresh.push((dir.clone(), wd));
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn entries() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_MOVED_TO
}

fn itself() -> AddWatchFlags {
    AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_ATTRIB
}

/// Whether there was nothing to watch.
fn watch_is_void(base: &(u64, u64, Vec<PathBuf>)) -> bool {
    (base.0, base.1) == (0, 0)
}

/// Every symbolic link that is gone through to reach `path`, the first ones first.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut at = PathBuf::new();
    let mut rest: VecDeque<OsString> = components(path);
    while let Some(name) = rest.pop_front() {
        at.push(name);
        let Ok(text) = fs::read_link(&at) else { continue };
        found.push(at.clone());
        if found.len() > MAX_LINKS {
            break;
        }
        at.pop();
        for part in components(&text).into_iter().rev() {
            rest.push_front(part);
        }
    }
    found
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components().filter(|c| *c != Component::CurDir).map(|c| c.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_on_the_way_is_found() {
        let root = std::env::temp_dir().join(format!("netsv-watch-{}", std::process::id()));
        let root = {
            fs::create_dir_all(root.join("real/dir")).unwrap();
            root.canonicalize().unwrap()
        };
        symlink("real", root.join("one")).unwrap();
        symlink("one/dir", root.join("two")).unwrap();
        symlink(root.join("two"), root.join("three")).unwrap();
        let names = |path: &str| {
            let below = |p: PathBuf| p.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            links(&root.join(path)).into_iter().map(below).collect::<Vec<_>>()
        };
        assert_eq!(names("real/dir"), Vec::<String>::new());
        assert_eq!(names("two"), ["two", "one"]);
        assert_eq!(names("three"), ["three", "two", "one"]);
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(names("loop").len(), MAX_LINKS + 1);
        fs::remove_dir_all(&root).unwrap();
    }
}

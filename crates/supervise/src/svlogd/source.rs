//! Standard input and the record of what was taken from it (record.rs has the rules).
//!
//! A pipe outlives svlogd when another process holds it too, as runsv does. So it is peeked at:
//! tee(2) into a pipe of our own, and consumed when what was read is written. Where that cannot be
//! done (a file, a terminal, no record in the log directory) it is read. It is not: cutting lines
//! or writing them. Called by svlogd.rs and deliver.rs.

use std::fs::File;
use std::io::{self, Read, Stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, openat, renameat, tee};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{UnlinkatFlags, pipe2, read, unlinkat};

use super::dir::warn;
use super::record::{FileId, Origin, State, Version, checksum, decode, encode, slot_of, slot_size};
use crate::sys::{Mapping, consume};
use applet::control::error_text;

const RECORD: &str = "record";
/// It is written under this name and renamed.
const NEW_RECORD: &str = "record.new";
/// No line is longer in practice; a larger record is not read.
const LARGEST_RECORD: u64 = 64 * 1024 * 1024;
/// What is peeked at with one call, at most: the largest pipe of a user, and less than [`consume`]
/// can take at once.
const LARGEST_PEEK: usize = 1024 * 1024;

/// Standard input.
pub(super) struct Source {
    stdin: Stdin,
    /// Of this boot.
    pub(super) boot: u64,
    /// Which pipe it is, if it is one and boots can be told apart.
    pub(super) origin: Option<Origin>,
    is_pipe: bool,
    /// Read and write end of the pipe that is peeked into.
    peek: Option<(OwnedFd, OwnedFd)>,
    record: Option<Record>,
}

/// The record in use.
struct Record {
    dir: OwnedFd,
    file: File,
    map: Mapping,
    slot_size: usize,
    number: u64,
}

impl Source {
    pub(super) fn new() -> io::Result<Source> {
        let stdin = io::stdin();
        let meta = fstat(&stdin)?;
        let is_pipe = SFlag::from_bits_truncate(meta.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFIFO;
        let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = checksum(&id);
        let pipe = FileId { dev: meta.st_dev, ino: meta.st_ino };
        // The content of a named pipe is gone when no process has it open, and its inode stays.
        // PIPEFS_MAGIC, linux/magic.h
        let unnamed = is_pipe && fstatfs(&stdin).is_ok_and(|meta| meta.filesystem_type() == FsType(0x5049_5045));
        let origin = (unnamed && !id.is_empty()).then_some(Origin { boot, pipe });
        let peek = if origin.is_some() { Some(pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?) } else { None };
        Ok(Source { stdin, boot, origin, is_pipe, peek, record: None })
    }

    pub(super) fn stdin(&self) -> &Stdin {
        &self.stdin
    }

    /// What is read is consumed later, by [`Source::commit`].
    pub(super) fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    pub(super) fn could_be_recorded(&self) -> bool {
        self.peek.is_some()
    }

    /// Bytes that wait, when it is a pipe.
    pub(super) fn queued(&self) -> Option<usize> {
        self.is_pipe.then(|| applet::sys::unread(&self.stdin).unwrap_or(0))
    }

    /// What is there, up to the buffer's size; 0 at the end.
    pub(super) fn fill(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        match (&self.peek, &self.record) {
            (Some((from, into)), Some(_)) => {
                let room = buffer.len().min(LARGEST_PEEK);
                let count = tee(&self.stdin, into, room, SpliceFFlags::SPLICE_F_NONBLOCK)?;
                let mut filled = 0;
                while filled < count {
                    match read(from, buffer.get_mut(filled..count).unwrap_or_default()) {
                        Ok(0) => return Err(Errno::EIO),
                        Ok(some) => filled += some,
                        Err(Errno::EINTR) => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(count)
            }
            (None | Some(_), None) | (None, Some(_)) => read(&self.stdin, buffer),
        }
    }

    /// The state with which to go on is this one as soon as `count` bytes, of which the first is
    /// `first`, are consumed: consumes them.
    pub(super) fn commit(&mut self, state: State, first: Option<u8>, count: usize) -> io::Result<()> {
        let Some(record) = &mut self.record else { return Ok(()) };
        let number = record.number + 1;
        let offset = slot_of(number) * record.slot_size;
        let version = Version { number, origin: self.origin.unwrap_or_default(), state };
        let written = record.file.write_all_at(&encode(&version, first), offset as u64);
        let taken = match written {
            Ok(()) if count == 0 => Ok(0),
            Ok(()) => consume(self.stdin.as_fd(), count, &record.map, offset),
            Err(e) => Err(e),
        };
        match taken {
            Ok(taken) => {
                record.number = number;
                self.discard(count.saturating_sub(taken))
            }
            Err(e) => {
                warn(&format!("unable to write record, going on without: {}", error_text(&e)));
                self.forget();
                self.discard(count)
            }
        }
    }

    /// Throws away what is written, without a record of it.
    pub(super) fn discard(&self, count: usize) -> io::Result<()> {
        let mut rest = count;
        let mut sink = [0; 4096];
        while rest > 0 {
            match read(&self.stdin, sink.get_mut(..rest.min(4096)).unwrap_or_default()) {
                Ok(0) => break,
                Ok(some) => rest = rest.saturating_sub(some),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Has this state on record in a log directory. `len` is the longest line that the record has
    /// to hold, `after` the number of the version that was found.
    pub(super) fn renew(&mut self, dir: &OwnedFd, len: usize, state: State, after: u64) -> io::Result<()> {
        let slot_size = slot_size(state.dirs.len(), len.max(state.rest.len()));
        let fits = |record: &Record| record.slot_size == slot_size && same_file(&record.dir, dir);
        if !self.record.as_ref().is_some_and(fits) {
            let Some(record) = adopt(dir, slot_size, after) else { return self.replace(dir, slot_size, state, after) };
            self.record = Some(record);
        }
        self.commit(state, None, 0)
    }

    /// Makes a new record; the one before goes.
    fn replace(&mut self, dir: &OwnedFd, slot_size: usize, state: State, after: u64) -> io::Result<()> {
        let Some(origin) = self.origin else { return Ok(()) };
        let number = self.record.as_ref().map_or(after, |record| record.number.max(after)) + 1;
        let dir = dir.try_clone()?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = File::from(openat(&dir, NEW_RECORD, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        let made = || {
            // All of it is written, so that no page is missing later when the disk is full.
            let mut bytes = vec![0; slot_size * 2];
            let slot = encode(&Version { number, origin, state }, None);
            if let Some(place) = bytes.get_mut(slot_of(number) * slot_size..).and_then(|b| b.get_mut(..slot.len())) {
                place.copy_from_slice(&slot);
            }
            file.write_all_at(&bytes, 0)?;
            let map = Mapping::new(&file, bytes.len())?;
            renameat(&dir, NEW_RECORD, &dir, RECORD)?;
            io::Result::Ok(map)
        };
        match made() {
            Ok(map) => {
                let same = |record: &Record| same_file(&record.dir, &dir);
                let old = self.record.take().filter(|record| !same(record));
                self.record = Some(Record { dir, file, map, slot_size, number });
                old.iter().for_each(|record| remove(&record.dir, RECORD));
                Ok(())
            }
            Err(e) => {
                remove(&dir, NEW_RECORD);
                Err(e)
            }
        }
    }

    /// There is nothing that a following svlogd has to know.
    pub(super) fn forget(&mut self) {
        if let Some(record) = self.record.take() {
            remove(&record.dir, RECORD);
        }
    }
}

fn same_file(one: &OwnedFd, two: &OwnedFd) -> bool {
    let id = |fd: &OwnedFd| fstat(fd).map(|meta| (meta.st_dev, meta.st_ino));
    id(one).is_ok_and(|one| id(two) == Ok(one))
}

fn remove(dir: &OwnedFd, name: &str) {
    // It may be gone; and a record that stays is void for any other pipe.
    let _ = unlinkat(dir, name, UnlinkatFlags::NoRemoveDir);
}

/// The record that a svlogd left there, to be gone on with: on a full disk there is no place for
/// another one.
fn adopt(dir: &OwnedFd, slot_size: usize, number: u64) -> Option<Record> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mut file = File::from(openat(dir, RECORD, flags, Mode::empty()).ok()?);
    let mut bytes = Vec::new();
    file.by_ref().take(LARGEST_RECORD).read_to_end(&mut bytes).ok()?;
    if bytes.len() != slot_size * 2 || decode(&bytes)?.number != number {
        return None;
    }
    let map = Mapping::new(&file, bytes.len()).ok()?;
    Some(Record { dir: dir.try_clone().ok()?, file, map, slot_size, number })
}

/// The record that a svlogd left in a log directory.
pub(super) fn find(dir: &OwnedFd) -> Option<Version> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file = File::from(openat(dir, RECORD, flags, Mode::empty()).ok()?);
    let mut bytes = Vec::new();
    file.take(LARGEST_RECORD).read_to_end(&mut bytes).ok()?;
    decode(&bytes)
}

/// Removes a record that was read and is of no more use.
pub(super) fn drop_found(dir: &OwnedFd) {
    remove(dir, RECORD);
}

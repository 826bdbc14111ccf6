//! PURE: the record of what was taken from the pipe and is in the files, by which a svlogd that
//! follows one killed with -9 writes no line twice and leaves none out.
//!
//! It is not: reading or writing it (source.rs), nor what a line is (line.rs).
//!
//! Input is peeked at (tee(2)), written to the files, and consumed then. The file `record` has two
//! slots. Before input is consumed, the state that holds afterwards is written into the slot that
//! does not hold now. The first byte that is consumed goes straight into that slot's cell, which
//! was set to another value: one system call takes the bytes from the pipe and says so. So at every
//! moment one slot holds: the later one when nothing was to be consumed or its cell has changed,
//! else the one before. A file may be longer than that slot says. The same bytes are still in the
//! pipe then, and the next svlogd cuts them off.

/// A file or a pipe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FileId {
    /// `st_dev`
    pub(super) dev: u64,
    /// `st_ino`
    pub(super) ino: u64,
}

/// Which pipe the input comes from. Inode numbers of pipes begin anew with each boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// [`checksum`] of the boot id.
    pub(super) boot: u64,
    pub(super) pipe: FileId,
}

/// How much of the first piece of the input that is not done with is in the files of a directory:
/// not nothing when a file was full in the middle of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// Bytes of the input, its newline included.
    pub(super) input: u64,
    /// Stamp and prefix too.
    pub(super) stamped: bool,
}

/// A log directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) dir: FileId,
    pub(super) current: FileId,
    /// Size of `current` when all that was consumed is written, and nothing else.
    pub(super) size: u64,
    /// The line that is being read goes to the file.
    pub(super) selected: bool,
    pub(super) done: Done,
}

/// What svlogd has to know to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The begin of a line: consumed, but not in a file.
    pub(super) rest: Vec<u8>,
    /// The head of a long line was handed on.
    pub(super) in_tail: bool,
    pub(super) dirs: Vec<Progress>,
}

/// One version of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Counts up.
    pub(super) number: u64,
    pub(super) origin: Origin,
    pub(super) state: State,
}

/// Before the text of a slot: the cell and seven unused bytes, the checksum, the length of the
/// text.
const SLOT_HEAD: usize = 24;
/// Bytes of the text without `rest` and the directories: six numbers of 8 bytes and three of 4.
const TEXT_FIXED: usize = 8 * 4 + 4 * 4;
/// Bytes of one directory's part.
const TEXT_DIR: usize = 8 * 6 + 4;
/// In place of the first byte when nothing is to be consumed: the slot holds whatever its cell
/// says.
const NOTHING: u32 = 0x100;

/// Bytes that a slot takes, for so many directories and lines of `len` bytes. Slots begin at
/// multiples of 64.
pub(super) fn slot_size(dirs: usize, len: usize) -> usize {
    (SLOT_HEAD + TEXT_FIXED + dirs * TEXT_DIR + len + 1).next_multiple_of(64)
}

/// Which of the two slots a version is in.
pub(super) fn slot_of(number: u64) -> usize {
    usize::from(number % 2 == 1)
}

/// The bytes of a slot. `first` is the first byte that is about to be consumed; its cell is the
/// first byte of the slot.
pub(super) fn encode(version: &Version, first: Option<u8>) -> Vec<u8> {
    let state = &version.state;
    let mut text = Vec::with_capacity(TEXT_FIXED + state.dirs.len() * TEXT_DIR + state.rest.len());
    let long = |text: &mut Vec<u8>, value: u64| text.extend_from_slice(&value.to_le_bytes());
    let short = |text: &mut Vec<u8>, value: u32| text.extend_from_slice(&value.to_le_bytes());
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    for value in [version.number, version.origin.boot, version.origin.pipe.dev, version.origin.pipe.ino] {
        long(&mut text, value);
    }
    for value in
        [first.map_or(NOTHING, u32::from), u32::from(state.in_tail), length(state.dirs.len()), length(state.rest.len())]
    {
        short(&mut text, value);
    }
    for dir in &state.dirs {
        for value in [dir.dir.dev, dir.dir.ino, dir.current.dev, dir.current.ino, dir.size, dir.done.input] {
            long(&mut text, value);
        }
        short(&mut text, u32::from(dir.selected) | u32::from(dir.done.stamped) << 1);
    }
    text.extend_from_slice(&state.rest);
    let mut slot = vec![0; 8];
    if let Some(cell) = slot.first_mut() {
        *cell = !first.unwrap_or(0);
    }
    slot.extend_from_slice(&checksum(&text).to_le_bytes());
    slot.extend_from_slice(&(text.len() as u64).to_le_bytes());
    slot.extend_from_slice(&text);
    slot
}

/// The version that holds, given the bytes of the file.
pub(super) fn decode(file: &[u8]) -> Option<Version> {
    let (one, two) = file.split_at(file.len() / 2);
    let (mut old, mut new) = (decode_slot(one), decode_slot(two));
    if old.as_ref().map(|slot| slot.version.number) > new.as_ref().map(|slot| slot.version.number) {
        std::mem::swap(&mut old, &mut new);
    }
    let new = new?;
    if new.holds {
        return Some(new.version);
    }
    // The other one held when this one was written. Anything else is no record of ours.
    old.filter(|old| old.version.number.checked_add(1) == Some(new.version.number)).map(|old| old.version)
}

struct Slot {
    version: Version,
    /// What it announces has happened.
    holds: bool,
}

fn decode_slot(slot: &[u8]) -> Option<Slot> {
    let (&cell, _) = slot.split_first()?;
    let mut rest = slot.get(8..)?;
    let sum = take_long(&mut rest)?;
    let length = usize::try_from(take_long(&mut rest)?).ok()?;
    let mut text = rest.get(..length)?;
    if checksum(text) != sum {
        return None;
    }
    let (number, boot) = (take_long(&mut text)?, take_long(&mut text)?);
    let pipe = take_id(&mut text)?;
    let (first, in_tail) = (take_short(&mut text)?, take_short(&mut text)? != 0);
    let (dirs, length) = (take_short(&mut text)?, usize::try_from(take_short(&mut text)?).ok()?);
    let dirs = (0..dirs).map(|_| take_dir(&mut text)).collect::<Option<Vec<Progress>>>()?;
    let rest = text.get(..length)?.to_vec();
    let version = Version { number, origin: Origin { boot, pipe }, state: State { rest, in_tail, dirs } };
    Some(Slot { version, holds: first == NOTHING || first == u32::from(cell) })
}

fn take_dir(text: &mut &[u8]) -> Option<Progress> {
    let (dir, current) = (take_id(text)?, take_id(text)?);
    let (size, input) = (take_long(text)?, take_long(text)?);
    let flags = take_short(text)?;
    let done = Done { input, stamped: flags & 2 != 0 };
    Some(Progress { dir, current, size, selected: flags & 1 != 0, done })
}

fn take_id(text: &mut &[u8]) -> Option<FileId> {
    Some(FileId { dev: take_long(text)?, ino: take_long(text)? })
}

fn take_long(text: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = text.split_first_chunk()?;
    *text = rest;
    Some(u64::from_le_bytes(*bytes))
}

fn take_short(text: &mut &[u8]) -> Option<u32> {
    let (bytes, rest) = text.split_first_chunk()?;
    *text = rest;
    Some(u32::from_le_bytes(*bytes))
}

/// FNV-1a: tells a slot that was written in part from a whole one; it is no protection against
/// malice.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// How to begin, given the latest record that was found and the pipe that is the input now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) state: State,
    /// What is in a `current` beyond the size in the state is in the pipe too.
    pub(super) cut: bool,
}

/// The same pipe: go on. Another pipe in the same boot: the first one is gone with its content, so
/// the files stay as they are, and the begin of a line is all there will be of it. Another boot:
/// the file may be older than the logs.
pub(super) fn start(found: Option<Version>, input: Option<Origin>, boot: u64) -> Start {
    match found {
        Some(version) if Some(version.origin) == input => Start { state: version.state, cut: true },
        Some(version) if version.origin.boot == boot => {
            let mut state = version.state;
            if state.in_tail || !state.rest.is_empty() {
                state.rest.push(b'\n');
            }
            Start { state, cut: false }
        }
        Some(_) | None => Start { state: State::default(), cut: false },
    }
}

impl State {
    /// What is known of a directory.
    pub(super) fn of(&self, dir: FileId) -> Option<&Progress> {
        self.dirs.iter().find(|progress| progress.dir == dir)
    }
}

impl Progress {
    /// The size to which its `current` is to be cut, when it is the recorded file and has grown
    /// since.
    pub(super) fn cut(&self, current: FileId, size: u64) -> Option<u64> {
        (self.current == current && size > self.size).then_some(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> FileId {
        FileId { dev: 1, ino: n }
    }

    fn version(number: u64, rest: &str) -> Version {
        let dir = |n: u64| Progress {
            dir: id(n),
            current: id(n + 10),
            size: 1 << 40,
            selected: n == 1,
            done: Done { input: n, stamped: n == 2 },
        };
        let state = State { rest: rest.into(), in_tail: rest.is_empty(), dirs: vec![dir(1), dir(2)] };
        Version { number, origin: Origin { boot: 5, pipe: id(9) }, state }
    }

    /// A file with these two slots.
    fn file(one: &[u8], two: &[u8]) -> Vec<u8> {
        let size = slot_size(2, 10);
        let mut file = vec![0; 2 * size];
        file[..one.len()].copy_from_slice(one);
        file[size..size + two.len()].copy_from_slice(two);
        file
    }

    #[test]
    fn the_slot_that_holds_is_found_at_every_moment_of_a_change() {
        let (old, new) = (version(4, "old"), version(5, "new rest"));
        for first in [0, b'x', 255] {
            let before = encode(&old, None);
            // The new slot is written byte by byte, over what was there before.
            let announced = encode(&new, Some(first));
            let mut two = encode(&version(3, "older still"), Some(7));
            two.resize(two.len().max(announced.len()), 0);
            two[0] = 7;
            for (at, byte) in announced.iter().enumerate() {
                assert_eq!(decode(&file(&before, &two)).unwrap(), old, "{at} bytes written");
                two[at] = *byte;
            }
            assert_eq!(decode(&file(&before, &two)).unwrap(), old);
            // The first byte of what is consumed arrives.
            two[0] = first;
            assert_eq!(decode(&file(&before, &two)).unwrap(), new);
        }
        assert_eq!(decode(&file(&encode(&new, None), &encode(&old, Some(1)))).unwrap(), new);
    }

    #[test]
    fn what_is_no_record_is_none() {
        for bytes in [&[][..], &[0], &[0; 100], &[255; 5000]] {
            assert_eq!(decode(bytes), None);
        }
        // Announced, not consumed, and the one before is missing.
        assert_eq!(decode(&file(&encode(&version(4, ""), Some(1)), &[])), None);
        let mut torn = encode(&version(4, "abc"), None);
        *torn.last_mut().unwrap() ^= 1;
        assert_eq!(decode(&file(&torn, &[])), None);
    }

    #[test]
    fn every_slot_has_its_place() {
        assert_eq!((slot_of(4), slot_of(5)), (0, 1));
        for (dirs, len) in [(0, 0), (1, 1000), (7, 100_000)] {
            let state = State { rest: vec![b'x'; len + 1], in_tail: false, dirs: vec![Progress::default(); dirs] };
            let version = Version { number: 1, origin: Origin::default(), state };
            let bytes = encode(&version, None);
            assert!(bytes.len() <= slot_size(dirs, len), "{dirs} {len}");
            let mut file = bytes;
            file.resize(slot_size(dirs, len) * 2, 0);
            assert_eq!(decode(&file).unwrap(), version);
        }
    }

    #[test]
    fn how_to_begin() {
        let found = |rest| Some(version(4, rest));
        let same = found("ab").unwrap().origin;
        let other = Origin { pipe: id(8), ..same };
        let rest = |start: Start| (String::from_utf8(start.state.rest).unwrap(), start.state.in_tail, start.cut);
        assert_eq!(rest(start(found("ab"), Some(same), 5)), ("ab".into(), false, true));
        assert_eq!(rest(start(found(""), Some(same), 5)), (String::new(), true, true));
        for input in [Some(other), None] {
            assert_eq!(rest(start(found("ab"), input, 5)), ("ab\n".into(), false, false));
            assert_eq!(rest(start(found(""), input, 5)), ("\n".into(), true, false));
        }
        let nothing = (String::new(), false, false);
        assert_eq!(rest(start(found("ab"), Some(Origin { boot: 6, ..same }), 6)), nothing);
        assert_eq!(rest(start(None, Some(same), 5)), nothing);
    }

    #[test]
    fn only_the_recorded_current_is_cut() {
        let progress = version(1, "").state.dirs[0];
        assert_eq!(progress.cut(progress.current, progress.size + 5), Some(progress.size));
        assert_eq!(progress.cut(progress.current, progress.size), None);
        assert_eq!(progress.cut(progress.current, 3), None);
        assert_eq!(progress.cut(id(99), progress.size + 5), None);
    }

    /// The things that outlive a process: its file, its record, and the pipe. Each step may be the
    /// last one of the process.
    struct World {
        pipe: Vec<u8>,
        current: Vec<u8>,
        record: Vec<u8>,
        steps_left: usize,
    }

    /// The process is dead.
    struct Killed;

    impl World {
        fn step(&mut self) -> Result<(), Killed> {
            self.steps_left = self.steps_left.checked_sub(1).ok_or(Killed)?;
            Ok(())
        }

        /// Writes a slot byte by byte; then what it announces happens at once.
        fn commit(&mut self, version: &Version, count: usize) -> Result<(), Killed> {
            let first = self.pipe[..count].first().copied();
            let offset = slot_of(version.number) * self.record.len() / 2;
            for (at, byte) in encode(version, first).iter().enumerate() {
                self.step()?;
                self.record[offset + at] = *byte;
            }
            self.step()?;
            if let Some(first) = first {
                self.record[offset] = first;
            }
            self.pipe.drain(..count);
            Ok(())
        }

        /// A svlogd without stamps, in the order of svlogd.rs and deliver.rs. It peeks at `peek`
        /// bytes at once.
        fn run(&mut self, peek: usize) -> Result<(), Killed> {
            let origin = Origin { boot: 5, pipe: id(9) };
            let found = decode(&self.record);
            let mut number = found.as_ref().map_or(0, |version| version.number);
            let Start { state, cut } = start(found, Some(origin), 5);
            let size = state.of(id(1)).and_then(|dir| dir.cut(id(11), self.current.len() as u64));
            if let Some(size) = size.filter(|_| cut) {
                self.current.truncate(usize::try_from(size).unwrap());
            }
            self.step()?;
            let (mut rest, mut count) = (state.rest, 0);
            loop {
                let text = [&rest[..], &self.pipe[..count]].concat();
                let end = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                for byte in &text[..end] {
                    self.step()?;
                    self.current.push(*byte);
                }
                rest = text[end..].to_vec();
                let size = self.current.len() as u64;
                let dir = Progress { dir: id(1), current: id(11), size, ..Progress::default() };
                number += 1;
                let state = State { rest: rest.clone(), in_tail: false, dirs: vec![dir] };
                self.commit(&Version { number, origin, state }, count)?;
                count = peek.min(self.pipe.len());
                if count == 0 {
                    return Ok(());
                }
            }
        }
    }

    #[test]
    fn killed_at_any_step_every_line_is_there_once() {
        let input: Vec<u8> = (0..12).flat_map(|n| format!("{}{n}\n", "x".repeat(n * 5 % 17)).into_bytes()).collect();
        let run = |kills: &[usize]| {
            let record = vec![0; slot_size(1, 40) * 2];
            let mut world = World { pipe: input.clone(), current: Vec::new(), record, steps_left: 0 };
            let mut killed = 0;
            for (nth, steps) in kills.iter().chain([&usize::MAX]).enumerate() {
                world.steps_left = *steps;
                killed += usize::from(world.run(7 + nth * 9).is_err());
            }
            assert_eq!(String::from_utf8_lossy(&world.current), String::from_utf8_lossy(&input), "{kills:?}");
            killed
        };
        let steps = (0..).find(|steps| run(&[*steps]) == 0).unwrap();
        assert!(steps > 1000, "{steps}");
        for first in (0..steps).step_by(7) {
            for second in (0..steps).step_by(31) {
                run(&[first, second, second / 3]);
            }
        }
    }
}

//! The only unsafe file of the crate: the few system calls that nix and std have no safe form of.
//!
//! What it is not: logic. Called by runsv.rs, runsvdir.rs, unit.rs, sv.rs, svlogd and chpst.rs.
#![expect(unsafe_code, reason = "signal handlers, pidfd, mappings, close_range, vfork and nice have no safe wrapper")]

use std::ffi::{CStr, CString};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::time::{ClockId, clock_gettime};

use crate::service::Exit;

/// CLOCK_BOOTTIME: keeps counting through suspend, and no one sets it.
pub(crate) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// How long poll(2) may wait for a deadline. Rounded up: a wait that ends too early would only be
/// followed by another.
pub(crate) fn timeout(deadline: Option<Duration>) -> PollTimeout {
    let wait = deadline.map(|at| at.saturating_sub(now()).saturating_add(Duration::from_nanos(999_999)));
    wait.map_or(PollTimeout::NONE, |wait| PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX))
}

/// A descriptor for a process that is not a child of ours; poll(2) reads it as readable when the
/// process has ended.
pub(crate) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: pidfd_open(2) takes two integers and touches no memory.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just returned this descriptor, which has no other owner. It is
    // close-on-exec by definition.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to exactly the process that `pidfd` names, whatever its number means by now.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: pidfd_send_signal(2) with a null siginfo reads no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as i32, no_info, 0) };
    Errno::result(result)?;
    Ok(())
}

/// Whatever descriptors the parent leaked beyond 0, 1, 2: our children shall not have them. A
/// kernel without the call (before 5.11) leaves them as they are, as runit does.
pub(crate) fn close_leaked_on_exec() {
    // SAFETY: close_range(2) takes three integers; CLOSE_RANGE_CLOEXEC closes nothing now, so no
    // owner is robbed.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Whether a process has the pipe with this read end open for writing: else poll(2) says POLLHUP.
pub(crate) fn has_writer(read: &OwnedFd) -> bool {
    let mut set = [PollFd::new(read.as_fd(), PollFlags::empty())];
    poll(&mut set, PollTimeout::ZERO).is_ok()
        && set.iter().all(|fd| fd.revents().is_some_and(|found| !found.contains(PollFlags::POLLHUP)))
}

/// linux/fcntl.h, for F_NOTIFY: something has come into a directory, gone from it, or got another
/// name.
const DN_CREATE: libc::c_int = 0x04;
const DN_DELETE: libc::c_int = 0x08;
const DN_RENAME: libc::c_int = 0x10;

/// SIGIO, once, when something comes into this directory or goes (F_NOTIFY, fcntl(2)). Unlike
/// inotify it takes none of the few instances that the system has for all programs of a user, and
/// costs no time at the end. Some kernels have it not.
pub(crate) fn notify_once(dir: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: fcntl(2) with F_NOTIFY takes an integer and touches no memory.
    let result = unsafe { libc::fcntl(dir.as_raw_fd(), libc::F_NOTIFY, DN_CREATE | DN_DELETE | DN_RENAME) };
    Errno::result(result).map(drop)?;
    Ok(())
}

/// The null-terminated array that execve(2) takes. It points into the strings it was made of.
pub(crate) struct Pointers<'a> {
    array: Vec<*const libc::c_char>,
    strings: PhantomData<&'a CString>,
}

impl Pointers<'_> {
    pub(crate) fn to(strings: &[CString]) -> Pointers<'_> {
        let end = std::iter::once(std::ptr::null());
        Pointers { array: strings.iter().map(|s| s.as_ptr()).chain(end).collect(), strings: PhantomData }
    }

    /// Our own environment with `variable` (`NAME=VALUE`) in place of any other value of that name.
    pub(crate) fn environment_with(variable: &CString) -> Pointers<'_> {
        let name = variable.as_bytes().split_inclusive(|byte| *byte == b'=').next().unwrap_or_default();
        let mut array = vec![variable.as_ptr()];
        // SAFETY: environ(7) is an array of pointers that ends in a null pointer, and no thread
        // changes it.
        let mut at = unsafe { environ };
        while !at.is_null() {
            // SAFETY: `at` is within the array: the null pointer at its end ends this loop.
            let entry = unsafe { *at };
            if entry.is_null() {
                break;
            }
            // SAFETY: each entry is a string that ends in NUL and lives as long as we do.
            let text = unsafe { CStr::from_ptr(entry) };
            if !text.to_bytes().starts_with(name) {
                array.push(entry);
            }
            at = at.wrapping_add(1);
        }
        array.push(std::ptr::null());
        Pointers { array, strings: PhantomData }
    }
}

unsafe extern "C" {
    /// environ(7): our own environment, which does not change.
    static environ: *const *const libc::c_char;
}

/// Executes a program, with our own environment if none is given. Does not return when it works;
/// allocates nothing.
pub(crate) fn execve(program: &CStr, argv: &Pointers<'_>, envp: Option<&Pointers<'_>>) -> Errno {
    // SAFETY: environ(7) is set before main, and no thread changes it.
    let envp = envp.map_or(unsafe { environ }, |given| given.array.as_ptr());
    // SAFETY: both arrays end in a null pointer, and their strings live as long as they do.
    unsafe { libc::execve(program.as_ptr(), argv.array.as_ptr(), envp) };
    Errno::last()
}

/// Stack of a child that shares our memory: only what it touches is ever there, and that only until
/// it has executed.
const CHILD_STACK: usize = 128 * 1024;

/// Whether the child of [`vfork`] shares our table of descriptors.
static SHARED: AtomicBool = AtomicBool::new(false);

/// Runs `child` in a new process that shares our memory, while we stand still until it has executed
/// a program or ended with the code that `child` returned. What it opens and closes is ours, too,
/// until it calls [`own_descriptors`]. No signal is handled by it: all are blocked, see
/// [`clean_signals`]. The process id.
pub(crate) fn vfork(child: &mut dyn FnMut() -> isize) -> io::Result<u32> {
    // Not malloc(3)'s memory: what is given back to that stays ours.
    let mut stack = Mapping::anonymous(CHILD_STACK)?;
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let mut flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // Asked for a range with nothing in it, of a table that is ours alone: only whether the kernel
    // does it (5.9), and lets us.
    let shared = leave_table(RawFd::MAX).is_ok();
    SHARED.store(shared, Ordering::Relaxed);
    flags.set(CloneFlags::CLONE_FILES, shared);
    // SAFETY: we are the only thread and stand still meanwhile (CLONE_VFORK), so the child has our
    // memory to itself; its stack lives until after the call.
    let pid = unsafe { nix::sched::clone(Box::new(child), stack.bytes(), flags, Some(libc::SIGCHLD)) };
    before.thread_set_mask()?;
    u32::try_from(pid?.as_raw()).map_err(io::Error::other)
}

/// For a child of [`vfork`]: a table of its own, with the descriptors below `end`. To copy hundreds
/// of others, only for execve(2) to close them, costs more than all the rest; where that cannot be
/// avoided, it has been done already.
pub(crate) fn own_descriptors(end: RawFd) -> nix::Result<()> {
    if SHARED.load(Ordering::Relaxed) { leave_table(end) } else { Ok(()) }
}

/// A table of our own where it was shared, without the descriptors from `end` on.
fn leave_table(end: RawFd) -> nix::Result<()> {
    // SAFETY: close_range(2) takes three integers. What it leaves out of the new table had no owner
    // there; called on a table that is not shared it would close: there only with an `end`
    // beyond all descriptors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, end, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
    Errno::result(result).map(drop)
}

/// For a child before it executes: no signal is blocked but `held`, and SIGPIPE, which std ignores,
/// is as it was.
pub(crate) fn clean_signals(held: Option<Signal>) -> nix::Result<()> {
    applet::sys::restore_sigpipe();
    held.into_iter().collect::<SigSet>().thread_set_mask()
}

/// For a child before it executes: `fd` becomes descriptor `number` of the program.
pub(crate) fn give(fd: &OwnedFd, number: i32) -> nix::Result<()> {
    let from = fd.as_raw_fd();
    // SAFETY: fcntl(2) and dup2(2) touch no memory; whose number it was is this process's own copy,
    // which is about to be replaced.
    let given =
        unsafe { if from == number { libc::fcntl(number, libc::F_SETFD, 0) } else { libc::dup2(from, number) } };
    Errno::result(given).map(drop)
}

/// A copy of this process that goes on from here. In the copy the result is that of `begin`, which
/// runs before the copy gets any signal; in the original it is `None`.
pub(crate) fn fork<T>(begin: impl FnOnce() -> T) -> io::Result<Option<T>> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // SAFETY: we are the only thread, so no lock is held by another one in the copy.
    let forked = unsafe { nix::unistd::fork() };
    let begun = matches!(forked, Ok(nix::unistd::ForkResult::Child)).then(begin);
    before.thread_set_mask()?;
    forked?;
    Ok(begun)
}

/// Waits for this child.
pub(crate) fn wait(pid: u32) {
    let _ = i32::try_from(pid).map(|pid| nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None));
}

/// A child that has ended, and how; `None` when no other has. nix's waitpid(2) loses one that a
/// real-time signal killed.
pub(crate) fn reap() -> Option<(u32, Exit)> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes one int, to `status`, which lives through the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
    let byte = |n: i32| u8::try_from(n & 0xff).unwrap_or(0);
    let exit = if libc::WIFEXITED(status) {
        Exit::Code(byte(libc::WEXITSTATUS(status)))
    } else {
        Exit::Signal { signal: byte(libc::WTERMSIG(status)), core: libc::WCOREDUMP(status) }
    };
    Some((pid, exit))
}

/// How far local time is ahead of UTC at this moment, in seconds; 0 where it is not known.
/// tzset(3): by TZ, else by /etc/localtime; glibc then looks each time whether that is another
/// file.
pub(crate) fn seconds_east(time: SystemTime) -> i64 {
    unsafe extern "C" {
        fn tzset();
    }
    let secs = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let Ok(secs) = libc::time_t::try_from(secs) else { return 0 };
    let mut local = std::mem::MaybeUninit::<libc::tm>::uninit();
    // SAFETY: nothing changes the environment, and there is one thread.
    unsafe { tzset() };
    // SAFETY: localtime_r(3) writes one tm, to `local`, or returns null.
    let written = unsafe { libc::localtime_r(&secs, local.as_mut_ptr()) };
    if written.is_null() {
        return 0;
    }
    // SAFETY: it has been written.
    let local = unsafe { local.assume_init() };
    #[allow(clippy::useless_conversion, reason = "a long: of 32 bits on some machines")]
    let east = i64::from(local.tm_gmtoff);
    east
}

/// Adds to the nice value; what is out of range is clamped by the kernel. nice(2).
pub(crate) fn nice(increment: i32) -> nix::Result<()> {
    // -1 is also a good result: only errno tells.
    Errno::clear();
    // SAFETY: takes and returns plain integers.
    let value = unsafe { libc::nice(increment) };
    if value == -1 && Errno::last_raw() != 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Pages of a file, shared with all readers of the file. They are never touched from here: only the
/// kernel stores into them (see [`consume`]), so a file that another process made shorter is an
/// error of that call and no SIGBUS.
pub(crate) struct Mapping {
    start: *mut libc::c_void,
    len: usize,
}

impl Mapping {
    /// Maps the first `len` bytes.
    pub(crate) fn new(file: &std::fs::File, len: usize) -> io::Result<Mapping> {
        Mapping::map(len, libc::MAP_SHARED, file.as_raw_fd())
    }

    /// `len` zero bytes of our own.
    fn anonymous(len: usize) -> io::Result<Mapping> {
        Mapping::map(len, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    /// For memory of our own only: a file's may be changed by another process.
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `start` and `len` are those of this mapping, which lives as long as `self`,
        // borrowed by the result.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.len) }
    }

    fn map(len: usize, kind: libc::c_int, fd: libc::c_int) -> io::Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, fd, 0) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Mapping { start, len }) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping was made in `map`, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.start, self.len) };
    }
}

/// Takes `count` bytes out of a pipe with one readv(2): the first goes to `offset` in the mapping,
/// the others are thrown away. They must be there: then it does not wait, and a SIGKILL finds
/// either all of it done or nothing.
pub(crate) fn consume(pipe: BorrowedFd<'_>, count: usize, cell: &Mapping, offset: usize) -> io::Result<usize> {
    /// As much as a page of a pipe holds; used again and again, so it stays in the cache.
    const SINK: usize = 4096;
    if offset >= cell.len {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut sink = [0_u8; SINK];
    let mut parts = vec![libc::iovec { iov_base: cell.start.wrapping_byte_add(offset), iov_len: 1 }];
    let mut rest = count.saturating_sub(1);
    while rest > 0 {
        let iov_len = rest.min(SINK);
        parts.push(libc::iovec { iov_base: sink.as_mut_ptr().cast(), iov_len });
        rest -= iov_len;
    }
    let number = libc::c_int::try_from(parts.len()).map_err(io::Error::other)?;
    // SAFETY: each part is memory that is ours to write: one byte inside the mapping, which nothing
    // refers to, and `sink`, which lives through the call and is not looked at.
    let result = unsafe { libc::readv(pipe.as_raw_fd(), parts.as_ptr(), number) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

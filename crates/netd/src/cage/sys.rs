//! The system calls of the cage and of the script runner that nix and std have no safe form of.
//!
//! What it is not: a decision. Called by cage.rs and runner.rs. Sources: capabilities(7),
//! landlock(7), seccomp(2), fork(2).
#![expect(unsafe_code, reason = "nix has no safe capset, landlock, seccomp, fork or sigaction")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::ForkResult;

use netd_core::wire::bpf::Instruction;

/// _LINUX_CAPABILITY_VERSION_3: 64 capabilities in two words.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// LANDLOCK_CREATE_RULESET_VERSION.
const ASK_VERSION: libc::c_uint = 1;
/// LANDLOCK_RULE_PATH_BENEATH.
const PATH_BENEATH: libc::c_int = 1;
/// SECCOMP_SET_MODE_FILTER.
const SET_FILTER: libc::c_uint = 1;
/// SECCOMP_FILTER_FLAG_LOG: what was refused can be seen in the kernel's log.
const FLAG_LOG: libc::c_ulong = 2;

/// struct __user_cap_header_struct.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

/// struct __user_cap_data_struct, of which there are two.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The capabilities that this thread may use: bit N is capability N.
pub(super) fn permitted() -> io::Result<u64> {
    let mut header = CapHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 reads the header and writes two data structures; both live through the
    // call.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    Errno::result(done)?;
    let [low, high] = data;
    Ok(u64::from(high.permitted) << 32 | u64::from(low.permitted))
}

/// Leaves this thread with these capabilities, permitted and effective, and with nothing that a
/// program executed by it would inherit.
pub(super) fn set_capabilities(keep: u64) -> io::Result<()> {
    let mut header = CapHeader { version: CAPABILITY_VERSION, pid: 0 };
    let word = |bits: u32| CapData { effective: bits, permitted: bits, inheritable: 0 };
    // The two words of the number.
    let data = [word(keep as u32), word((keep >> 32) as u32)];
    // SAFETY: version 3 reads the header and two data structures; both live through the call.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    Errno::result(done)?;
    Ok(())
}

/// Drops a capability from the bounding set; an error of EINVAL: the kernel has none of this
/// number.
pub(super) fn drop_bound(capability: u32) -> Result<(), Errno> {
    // SAFETY: prctl(2) with PR_CAPBSET_DROP takes a number.
    let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
    Errno::result(done).map(drop)
}

/// Empties the ambient set.
pub(super) fn clear_ambient() -> Result<(), Errno> {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    // SAFETY: prctl(2) with PR_CAP_AMBIENT takes numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) }).map(drop)
}

/// Which Landlock the kernel has; an error where it has none or it is switched off.
pub(super) fn landlock_version() -> Result<u32, Errno> {
    let none = std::ptr::null::<RulesetAttr>();
    // SAFETY: with this flag the pointer must be null and nothing is read.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, ASK_VERSION) };
    Errno::result(version).map(|v| u32::try_from(v).unwrap_or_default())
}

/// struct landlock_ruleset_attr as of version 6; older kernels take it when what they do not know
/// is 0.
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// struct landlock_path_beneath_attr.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// A set of rules: of what is handled, only what a rule allows.
pub(super) struct Ruleset(OwnedFd);

impl Ruleset {
    /// Handles these accesses to files; `scoped`: signals and abstract sockets.
    pub(super) fn new(handled_access_fs: u64, scoped: u64) -> Result<Ruleset, Errno> {
        let attr = RulesetAttr { handled_access_fs, handled_access_net: 0, scoped };
        let size = size_of::<RulesetAttr>();
        // SAFETY: attr is a structure of the size given; the kernel copies it.
        let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0) };
        let fd = Errno::result(fd).map(|fd| i32::try_from(fd).unwrap_or(-1))?;
        // SAFETY: the kernel has just returned this descriptor, close-on-exec; no other value owns
        // it.
        Ok(Ruleset(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Allows these accesses to what is opened here, and below it.
    pub(super) fn allow(&self, parent: &File, allowed_access: u64) -> Result<(), Errno> {
        let attr = PathBeneathAttr { allowed_access, parent_fd: parent.as_raw_fd() };
        // SAFETY: attr is the structure of this type of rule; the kernel copies it.
        let done =
            unsafe { libc::syscall(libc::SYS_landlock_add_rule, self.0.as_raw_fd(), PATH_BENEATH, &raw const attr, 0) };
        Errno::result(done).map(drop)
    }

    /// From here on, for this thread and its children.
    pub(super) fn enforce(self) -> Result<(), Errno> {
        // SAFETY: landlock_restrict_self(2) takes two integers.
        Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) }).map(drop)
    }
}

/// Hands the kernel a filter of system calls, for this thread and its children.
pub(super) fn set_filter(filter: &[Instruction]) -> Result<(), Errno> {
    let mut code: Vec<libc::sock_filter> =
        filter.iter().map(|i| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k }).collect();
    let len = u16::try_from(code.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: code.as_mut_ptr() };
    let set = |flags: libc::c_ulong| {
        // SAFETY: program points to `len` instructions that live until after the call; the kernel
        // copies them.
        let done = unsafe { libc::syscall(libc::SYS_seccomp, SET_FILTER, flags, &raw const program) };
        Errno::result(done).map(drop)
    };
    // A kernel before 4.14 has no such log.
    set(FLAG_LOG).or_else(|e| if e == Errno::EINVAL { set(0) } else { Err(e) })
}

/// A second process. To be called while this one has a single thread.
pub(crate) fn fork() -> Result<ForkResult, Errno> {
    // SAFETY: with a single thread no lock is held by anybody else, so the child may do whatever we
    // may.
    unsafe { nix::unistd::fork() }
}

extern "C" fn ignore(_signal: libc::c_int) {}

/// Outlives these signals. Caught, not ignored: a program that is executed then starts with their
/// default.
pub(crate) fn outlive(signals: &[Signal]) -> Result<(), Errno> {
    let action = SigAction::new(SigHandler::Handler(ignore), SaFlags::SA_RESTART, SigSet::empty());
    for signal in signals {
        // SAFETY: the handler does nothing at all.
        unsafe { sigaction(*signal, &action) }?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use netd_core::wire::bpf::Op::{Give, If, Label, Unless, Word};
    use netd_core::wire::bpf::Test::Equal;
    use netd_core::wire::bpf::assemble;

    use super::*;

    #[test]
    fn a_kernel_that_keeps_no_log_of_refusals_has_a_filter_all_the_same() {
        // Filters are a thread's own.
        let tried = std::thread::spawn(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            // seccomp(2) with a flag is EINVAL: what such a kernel says. linux/seccomp.h: number at
            // 0, flags at 24.
            let answer = |errno| Give(libc::SECCOMP_RET_ERRNO | errno as u32);
            let call = |n| Unless(Equal(u32::try_from(n).unwrap()), "allow");
            let allow = [Label("allow"), Give(libc::SECCOMP_RET_ALLOW)];
            let old = [Word(0), call(libc::SYS_seccomp), Word(24), If(Equal(0), "allow"), answer(libc::EINVAL)];
            set_filter(&assemble(&[&old[..], &allow].concat())).unwrap();
            // From now on chdir(2) is EXDEV.
            let new = [Word(0), call(libc::SYS_chdir), answer(libc::EXDEV)];
            set_filter(&assemble(&[&new[..], &allow].concat())).unwrap();
            nix::unistd::chdir("/")
        });
        assert_eq!(tried.join().unwrap(), Err(Errno::EXDEV), "the filter is in force");
    }
}

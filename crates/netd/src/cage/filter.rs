//! The system calls of a daemon in the cage, as a program for seccomp(2).
//!
//! Pure. An allow-list. Everything else fails with ENOSYS, as on a kernel that lacks it, and
//! nothing is killed: a libc that asks for something newer falls back to what is listed (that is
//! why it is not EPERM: glibc takes a clone3 that is refused with EPERM for an error, not for a
//! missing call), so a wrong list costs a feature, never the network. What is listed but asked for
//! with arguments that no daemon has a use for fails with EPERM.

use nix::libc;

use netd_core::wire::bpf::Op::{self, And, Give, If, Label, Unless, Word};
use netd_core::wire::bpf::Test::{AnyBit, Equal};
use netd_core::wire::bpf::{Instruction, assemble};

/// A kind of socket that may be opened later: its family and its type.
pub(super) type SocketKind = (i32, i32);

/// linux/audit.h: the number of an architecture is its number in ELF files (linux/elf-em.h) and
/// these two flags.
const AUDIT_ARCH_64BIT: u32 = 0x8000_0000;
const AUDIT_ARCH_LE: u32 = 0x4000_0000;

/// The kernel's number of the architecture. `None`: no list was tried on it, so there is no filter.
pub(super) const ARCH: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(AUDIT_ARCH_64BIT | AUDIT_ARCH_LE | libc::EM_X86_64 as u32)
} else if cfg!(target_arch = "aarch64") {
    Some(AUDIT_ARCH_64BIT | AUDIT_ARCH_LE | libc::EM_AARCH64 as u32)
} else {
    None
};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
/// The answer to what is not listed.
const MISSING: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
/// The answer to what is listed, with other arguments.
const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// Offsets in struct seccomp_data, linux/seccomp.h: int nr, u32 arch, u64 instruction pointer, u64
/// args[6].
const NR: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Namespaces in clone(2)'s flags.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
const PROT_EXEC: u32 = libc::PROT_EXEC as u32;
/// Instructions beside two for each call: the architecture, the calls whose arguments are checked.
const ROOM: usize = 64;
/// The lower bits of socket(2)'s type; above them are SOCK_CLOEXEC and SOCK_NONBLOCK.
const SOCK_TYPE: u32 = 0xf;

/// Waiting, reading, writing, time, memory, and the ends of all that.
const ALWAYS: &[libc::c_long] = &[
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    // Sockets that are opened again: which ones, `sockets` says.
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_setsockopt,
    libc::SYS_getsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_fcntl,
    // Files: which ones, Landlock says.
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_mkdirat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    // Memory; mmap and mprotect are below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Signals are caught, none is sent.
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_wait4,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// The older names of the same calls, which newer architectures lack.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_epoll_wait,
    libc::SYS_poll,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rename,
    libc::SYS_unlink,
    libc::SYS_rmdir,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// Going to the background: fork(3) and setsid(2), with 0, 1 and 2 on /dev/null.
const BACKGROUND: &[libc::c_long] =
    &[libc::SYS_setsid, libc::SYS_dup3, libc::SYS_set_robust_list, libc::SYS_set_tid_address];
#[cfg(target_arch = "x86_64")]
const BACKGROUND_OLDER: &[libc::c_long] = &[libc::SYS_fork, libc::SYS_dup2];
#[cfg(not(target_arch = "x86_64"))]
const BACKGROUND_OLDER: &[libc::c_long] = &[];

/// The filter of a daemon that opens these sockets and, perhaps, goes to the background.
///
/// It is assembled call by call: all ops at once would be the most memory that a daemon ever has,
/// and its heap never shrinks.
pub(super) fn filter(arch: u32, sockets: &[SocketKind], background: bool) -> Vec<Instruction> {
    let lists: &[&[libc::c_long]] =
        if background { &[ALWAYS, OLDER, BACKGROUND, BACKGROUND_OLDER] } else { &[ALWAYS, OLDER] };
    let calls = lists.iter().copied().flatten();
    let mut program = Vec::with_capacity(2 * calls.clone().count() + ROOM);
    program.extend(assemble(&[Word(ARCHITECTURE), If(Equal(arch), "ours"), Give(MISSING), Label("ours"), Word(NR)]));
    for call in calls {
        program.extend(assemble(&[Unless(Equal(number(*call)), "next"), Give(ALLOW), Label("next")]));
    }
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        program.extend(checked(call, &[Word(argument(2)), If(AnyBit(PROT_EXEC), "refused"), Give(ALLOW)]));
    }
    if background {
        let check = [Word(argument(0)), If(AnyBit(NAMESPACES), "refused"), Give(ALLOW)];
        program.extend(checked(libc::SYS_clone, &check));
    }
    let mut kinds = Vec::new();
    for (family, kind) in sockets {
        kinds.extend([Word(argument(0)), Unless(Equal(number(i64::from(*family))), "next kind")]);
        kinds.extend([Word(argument(1)), And(SOCK_TYPE), Unless(Equal(number(i64::from(*kind))), "next kind")]);
        kinds.extend([Give(ALLOW), Label("next kind")]);
    }
    program.extend(checked(libc::SYS_socket, &kinds));
    program.extend(assemble(&[Give(MISSING)]));
    program
}

/// A call whose arguments `check` looks at; what falls through it is refused. The accumulator must
/// hold the number of the call.
fn checked(call: libc::c_long, check: &[Op]) -> Vec<Instruction> {
    let unless = [Unless(Equal(number(call)), "next")];
    assemble(&[&unless, check, &[Label("refused"), Give(REFUSED), Label("next")]].concat())
}

fn number(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Where the lower half of an argument is; the kernel looks at no more of those that are checked
/// here.
const fn argument(n: u32) -> u32 {
    16 + 8 * n + if cfg!(target_endian = "big") { 4 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netd_core::wire::bpf;

    const HERE: u32 = 7;

    /// What the kernel would do with it.
    fn run(program: &[Instruction], arch: u32, nr: libc::c_long, args: [u64; 3]) -> u32 {
        let mut data = vec![0; 16];
        data[..4].copy_from_slice(&u32::try_from(nr).unwrap().to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        data.extend(args.iter().flat_map(|a| a.to_ne_bytes()));
        // seccomp(2): 4 bytes in the byte order of the machine, at offsets that are multiples of 4.
        bpf::run(program, |at, width| {
            let at = usize::try_from(at).ok().filter(|at| width == 4 && at % 4 == 0)?;
            Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?))
        })
    }

    #[test]
    fn each_call_has_its_answer() {
        let sockets = [(libc::AF_PACKET, libc::SOCK_DGRAM), (libc::AF_INET, libc::SOCK_DGRAM)];
        let (kept, forks) = (filter(HERE, &sockets, false), filter(HERE, &sockets, true));
        let flags = (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64;
        let socket = |family: i32, kind: i32| [family as u64, kind as u64 | flags, 0];
        let sigchld = libc::SIGCHLD as u64;
        for (nr, args, want, background) in [
            (libc::SYS_read, [0; 3], ALLOW, ALLOW),
            (libc::SYS_exit_group, [0; 3], ALLOW, ALLOW),
            (libc::SYS_execve, [0; 3], MISSING, MISSING),
            (libc::SYS_execveat, [0; 3], MISSING, MISSING),
            (libc::SYS_ptrace, [0; 3], MISSING, MISSING),
            (libc::SYS_kill, [0; 3], MISSING, MISSING),
            (libc::SYS_mount, [0; 3], MISSING, MISSING),
            (libc::SYS_unshare, [0; 3], MISSING, MISSING),
            (libc::SYS_io_uring_setup, [0; 3], MISSING, MISSING),
            (libc::SYS_clone3, [0; 3], MISSING, MISSING),
            (100_000, [0; 3], MISSING, MISSING),
            (libc::SYS_clone, [sigchld, 0, 0], MISSING, ALLOW),
            (libc::SYS_clone, [sigchld | libc::CLONE_NEWUSER as u64, 0, 0], MISSING, REFUSED),
            (libc::SYS_setsid, [0; 3], MISSING, ALLOW),
            (libc::SYS_mmap, [0, 4096, libc::PROT_READ as u64], ALLOW, ALLOW),
            (libc::SYS_mmap, [0, 4096, libc::PROT_EXEC as u64], REFUSED, REFUSED),
            (libc::SYS_mprotect, [0, 4096, (libc::PROT_READ | libc::PROT_EXEC) as u64], REFUSED, REFUSED),
            (libc::SYS_socket, socket(libc::AF_PACKET, libc::SOCK_DGRAM), ALLOW, ALLOW),
            (libc::SYS_socket, socket(libc::AF_INET, libc::SOCK_DGRAM), ALLOW, ALLOW),
            (libc::SYS_socket, socket(libc::AF_INET, libc::SOCK_STREAM), REFUSED, REFUSED),
            (libc::SYS_socket, socket(libc::AF_PACKET, libc::SOCK_RAW), REFUSED, REFUSED),
            (libc::SYS_socket, socket(libc::AF_ALG, libc::SOCK_SEQPACKET), REFUSED, REFUSED),
        ] {
            assert_eq!(run(&kept, HERE, nr, args), want, "{nr} {args:?}");
            assert_eq!(run(&forks, HERE, nr, args), background, "{nr} {args:?} with background");
            assert_eq!(run(&kept, HERE + 1, nr, args), MISSING, "{nr} of another architecture");
        }
        assert_eq!(run(&filter(HERE, &[], false), HERE, libc::SYS_socket, [0; 3]), REFUSED, "no sockets at all");
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut all: Vec<_> = [ALWAYS, OLDER, BACKGROUND, BACKGROUND_OLDER].concat();
        all.extend([libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_clone, libc::SYS_socket]);
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}

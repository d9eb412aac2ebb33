//! seccomp: which system calls are answered. All others fail with EPERM, as they do for whom they are forbidden.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::{Weakness, failed};

/// Memory, threads, time, waiting, and what tells about this process.
const COMPUTING: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// What newer architectures no longer have.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// Sockets once they exist; which ones may be made is in [`conditional`].
const NETWORK: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];

pub(super) fn restrict(network: bool) -> Result<(), Weakness> {
    let Some(arch) = architecture() else {
        return Err(Weakness::Failed("there are no rules for this architecture".to_owned()));
    };
    let programs = programs(network, arch).map_err(failed)?;
    for program in &programs {
        seccompiler::apply_filter(program).map_err(|error| match &error {
            seccompiler::Error::Prctl(cause) | seccompiler::Error::Seccomp(cause)
                if matches!(cause.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) =>
            {
                Weakness::Absent
            }
            _ => failed(error),
        })?;
    }
    Ok(())
}

fn architecture() -> Option<TargetArch> {
    TargetArch::try_from(std::env::consts::ARCH).ok()
}

fn programs(network: bool, arch: TargetArch) -> Result<[BpfProgram; 2], BackendError> {
    // Its flags are in memory, where a filter cannot look: the library then takes `clone`.
    let hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let hidden =
        SeccompFilter::new(hidden, SeccompAction::Allow, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()), arch)?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        COMPUTING.iter().chain(OLD).map(|&call| (call, Vec::new())).collect();
    if network {
        rules.extend(NETWORK.iter().map(|&call| (call, Vec::new())));
    }
    rules.extend(conditional(network)?);
    rules.insert(libc::SYS_clone3, Vec::new());
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let allowed = SeccompFilter::new(rules, refused, SeccompAction::Allow, arch)?;
    // The last one forbids to add another.
    Ok([hidden.try_into()?, allowed.try_into()?])
}

/// Calls of which only some uses are allowed.
fn conditional(network: bool) -> Result<Vec<(i64, Vec<SeccompRule>)>, BackendError> {
    use SeccompCmpOp::{Eq, MaskedEq};
    let own = u64::from(std::process::id());
    let not_executable = || Ok(vec![when(&[(2, MaskedEq(bits(libc::PROT_EXEC)), 0)])?]);
    let mut rules = vec![
        // Threads of this process and no others.
        (libc::SYS_clone, vec![when(&[(0, MaskedEq(bits(libc::CLONE_THREAD)), bits(libc::CLONE_THREAD))])?]),
        (libc::SYS_mmap, not_executable()?),
        (libc::SYS_mprotect, not_executable()?),
        // Aborting.
        (libc::SYS_tgkill, vec![when(&[(0, Eq, own)])?]),
        (libc::SYS_prctl, vec![when(&[(0, Eq, bits(libc::PR_SET_NAME))])?]),
        // Reading limits, not setting them.
        (libc::SYS_prlimit64, vec![when(&[(2, Eq, 0)])?]),
        (
            libc::SYS_ioctl,
            [libc::FIONBIO, libc::FIONREAD, libc::TCGETS, libc::TIOCGWINSZ]
                .iter()
                .map(|&request| when(&[(1, Eq, request)]))
                .collect::<Result<_, _>>()?,
        ),
        // The runtime wakes itself up through one.
        (libc::SYS_socketpair, vec![when(&[(0, Eq, bits(libc::AF_UNIX))])?]),
    ];
    if network {
        /// Without the flags `SOCK_CLOEXEC` and `SOCK_NONBLOCK`.
        const KIND: u64 = 0xf;
        let mut kinds = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
                kinds.push(when(&[(0, Eq, bits(family)), (1, MaskedEq(KIND), bits(kind))])?);
            }
        }
        rules.push((libc::SYS_socket, kinds));
    } else {
        // What waits for signals uses its pair of sockets.
        rules.extend([libc::SYS_recvfrom, libc::SYS_sendto].map(|call| (call, Vec::new())));
    }
    Ok(rules)
}

/// A rule that holds when all of (argument, comparison, value) do. The kernel looks at 32 bits of these arguments, and so does this; the
/// upper half of a pointer is never looked at.
fn when(conditions: &[(u8, SeccompCmpOp, u64)]) -> Result<SeccompRule, BackendError> {
    let conditions = conditions.iter().map(|(argument, comparison, value)| {
        let width = if *value == 0 && matches!(comparison, SeccompCmpOp::Eq) {
            SeccompCmpArgLen::Qword
        } else {
            SeccompCmpArgLen::Dword
        };
        SeccompCondition::new(*argument, width, comparison.clone(), *value)
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

/// A constant of the C library as the register holds it.
fn bits(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

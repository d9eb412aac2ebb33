//! Waiting until no program can still be using what it looked up before.

use nix::errno::Errno;

/// `MEMBARRIER_CMD_GLOBAL`.
const GLOBAL: libc::c_int = 1;

/// Waits for an RCU grace period, some milliseconds: every classifier that ran when this was called has ended when it returns.
///
/// membarrier(2) promises a memory barrier on all CPUs; Linux gives it with `synchronize_rcu()` (kernel/sched/membarrier.c), and runs classifiers
/// inside an RCU read section (net/core/dev.c). With one CPU there is nothing to wait for. It is refused on kernels with `nohz_full` CPUs.
pub(crate) fn wait_for_readers() -> Result<(), Errno> {
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    Errno::result(result).map(drop)
}

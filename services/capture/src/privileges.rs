//! Capabilities: checked before they are needed, given up as soon as they are not.

use std::collections::BTreeMap;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::utsname::uname;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::{Config, Error};

/// What loading needs: maps and programs, attaching, and reading kernel memory through the context.
const LOADING: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
/// What the thread that attaches to new interfaces and reads maps needs for ever.
const CAPTURING: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// System calls that are refused once the programs are loaded.
const FORBIDDEN: [i64; 33] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_open_by_handle_at,
    libc::SYS_sethostname,
    libc::SYS_personality,
    libc::SYS_acct,
    libc::SYS_io_uring_setup,
];

/// The first Linux with all that the programs need: ring buffers and the boot clock (5.8), fetching atomics (5.12), and a verifier that gets
/// through their loops. Before 6.6 there is no TCX, and filters of the qdisc clsact take its place.
const FIRST_KERNEL: (u32, u32) = (5, 15);

/// What the thread that records on demand needs for ever: to open packet sockets.
const RECORDING: Capability = Capability::CAP_NET_RAW;

/// What the thread that enters the network namespaces of containers needs for ever: to enter them, to look for them below `/proc`, and to attach.
const ENTERING: [Capability; 4] =
    [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE, Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// What some want beside capturing on this host's interfaces, each of which needs more rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct More {
    /// To record packets.
    pub recording: bool,
    /// To enter the network namespaces of containers.
    pub entering: bool,
}

impl More {
    /// As the options say.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self { recording: config.on_demand, entering: config.container_namespaces }
    }
}

/// Whether this process may capture on this kernel, as far as that can be told without trying; and what else is wanted.
pub fn check(more: More) -> Result<(), Error> {
    let release = uname().map_err(|error| system("read the kernel's version", error.into()))?;
    let release = release.release().to_string_lossy();
    if version(&release).is_some_and(|version| version < FIRST_KERNEL) {
        return Err(Error::KernelTooOld(release.into_owned()));
    }
    let held = caps::read(None, CapSet::Effective).map_err(refused)?;
    let admin = held.contains(&Capability::CAP_SYS_ADMIN);
    for (capability, name) in LOADING.iter().zip(["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]) {
        // CAP_SYS_ADMIN includes the two that were once a part of it.
        let included = admin && *capability != Capability::CAP_NET_ADMIN;
        if !included && !held.contains(capability) {
            return Err(Error::MissingRight(name));
        }
    }
    if more.recording && !held.contains(&RECORDING) {
        return Err(Error::MissingRightToRecord);
    }
    for (capability, name) in ENTERING.iter().zip(["CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]) {
        if more.entering && !held.contains(capability) {
            return Err(Error::MissingRightToEnter(name));
        }
    }
    Ok(())
}

/// Gives up everything but what loading needs, for this thread and those that it starts from now on; and what the threads for `more` need, which
/// take it over.
pub fn keep_for_loading(more: More) -> Result<(), Error> {
    // Without it a program that this process starts could get rights that it has not.
    // SAFETY: no pointers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(Error::Privileges(std::io::Error::last_os_error()));
    }
    let held = caps::read(None, CapSet::Permitted).map_err(refused)?;
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported() {
            caps::drop(None, CapSet::Bounding, capability).map_err(refused)?;
        }
    }
    let mut keep: CapsHashSet = LOADING.into_iter().collect();
    if !keep.is_subset(&held) {
        // An older way to hold the same rights.
        keep.insert(Capability::CAP_SYS_ADMIN);
    }
    if more.recording {
        keep.insert(RECORDING);
    }
    if more.entering {
        keep.extend(ENTERING);
    }
    shrink(&keep)
}

/// As [`keep_for_loading`], down to what recording needs.
pub fn keep_for_recording() -> Result<(), Error> {
    shrink(&CapsHashSet::from([RECORDING]))
}

/// As [`keep_for_loading`], down to what entering namespaces needs.
pub fn keep_for_entering() -> Result<(), Error> {
    shrink(&CapsHashSet::from(ENTERING))
}

/// As [`keep_for_loading`], down to what capturing needs.
pub fn keep_for_capturing() -> Result<(), Error> {
    let held = caps::read(None, CapSet::Permitted).map_err(refused)?;
    let mut keep: CapsHashSet = CAPTURING.into_iter().collect();
    if !keep.is_subset(&held) {
        keep.insert(Capability::CAP_SYS_ADMIN);
    }
    shrink(&keep)
}

/// Gives up all capabilities of this thread and those that it starts from now on.
pub fn keep_nothing() -> Result<(), Error> {
    shrink(&CapsHashSet::new())
}

/// Forbids what no part of the service ever does and who takes it over would like to: to start programs, to look into other processes, to
/// change mounts, namespaces, clocks and the kernel itself. For all threads, for ever. With [`More::entering`] a thread that has the right to may
/// enter network namespaces, and no others.
pub fn forbid_the_rest(more: More) -> Result<(), Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    if more.entering {
        let network = u64::from(libc::CLONE_NEWNET.cast_unsigned());
        let other = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, network).map_err(seccomp)?;
        rules.insert(libc::SYS_setns, vec![SeccompRule::new(vec![other]).map_err(seccomp)?]);
    }
    let architecture = std::env::consts::ARCH.try_into().map_err(seccomp)?;
    let refusal = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refusal, architecture).map_err(seccomp)?;
    let program: BpfProgram = filter.try_into().map_err(seccomp)?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| Error::Privileges(std::io::Error::other(error)))
}

fn seccomp(error: seccompiler::BackendError) -> Error {
    Error::Privileges(std::io::Error::other(error))
}

fn shrink(keep: &CapsHashSet) -> Result<(), Error> {
    let held = caps::read(None, CapSet::Permitted).map_err(refused)?;
    let keep: CapsHashSet = held.intersection(keep).copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(refused)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(refused)?;
    caps::set(None, CapSet::Effective, &keep).map_err(refused)?;
    caps::set(None, CapSet::Permitted, &keep).map_err(refused)
}

pub(crate) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn refused(error: caps::errors::CapsError) -> Error {
    Error::Privileges(std::io::Error::other(error))
}

fn system(what: &'static str, source: std::io::Error) -> Error {
    Error::System { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert!(version("5.10.0-32-amd64").unwrap() < FIRST_KERNEL);
        assert!(version("6.12").unwrap() > FIRST_KERNEL);
        assert_eq!(version("unknown"), None);
    }
}

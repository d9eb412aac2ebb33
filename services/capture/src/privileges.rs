//! Capabilities: checked before they are needed, given up as soon as they are not.

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::utsname::uname;

use crate::Error;

/// What loading needs: maps and programs, attaching, and reading kernel memory through the context.
const LOADING: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];
/// What the thread that attaches to new interfaces and reads maps needs for ever.
const CAPTURING: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// The first Linux with TCX.
const FIRST_KERNEL: (u32, u32) = (6, 6);

/// Whether this process may capture on this kernel, as far as that can be told without trying.
pub fn check() -> Result<(), Error> {
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
    Ok(())
}

/// Gives up everything but what loading needs, for this thread and those that it starts from now on.
pub fn keep_for_loading() -> Result<(), Error> {
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
    shrink(&keep)
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

fn shrink(keep: &CapsHashSet) -> Result<(), Error> {
    let held = caps::read(None, CapSet::Permitted).map_err(refused)?;
    let keep: CapsHashSet = held.intersection(keep).copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(refused)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(refused)?;
    caps::set(None, CapSet::Effective, &keep).map_err(refused)?;
    caps::set(None, CapSet::Permitted, &keep).map_err(refused)
}

fn version(release: &str) -> Option<(u32, u32)> {
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
        assert!(version("6.1.0-32-amd64").unwrap() < FIRST_KERNEL);
        assert!(version("6.12").unwrap() > FIRST_KERNEL);
        assert_eq!(version("unknown"), None);
    }
}

//! Giving up what a service does not need, before it reads the first byte of a stranger.
//!
//! Five layers, each for the case that another one has a hole:
//! - `no_new_privs`: no program that is started gets more rights than this process
//! - capabilities: all are dropped, from every set
//! - limits: memory, open files, no core dumps
//! - Landlock: files only where [`Policy`] says so, TCP only to and on its ports, no signals to others
//! - seccomp: only the system calls of a program that computes and speaks TCP and UDP; no new programs or processes, no executable
//!   memory, no other kinds of sockets
//!
//! [`apply`] holds for the thread that calls it and those that it starts, so it is called before there are others. What the kernel cannot
//! do is told in [`Confinement`] and never silent; the other layers hold nevertheless.

mod files;
mod syscalls;
mod trial;

use std::path::PathBuf;

use nix::sys::resource::{Resource, setrlimit};

pub use trial::{Trial, attempts};

/// What a process may still do. The default: compute, and use what is open already.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Files and directories that may be read, besides those that name resolution and TLS need where the network is used. One that does
    /// not exist is passed over.
    pub readable: Vec<PathBuf>,
    /// Directories in which files may be read, made, changed and removed.
    pub writable: Vec<PathBuf>,
    /// TCP ports that may be connected to. UDP, which name resolution needs, is free where there is any.
    pub connect: Vec<u16>,
    /// TCP ports that may be listened on; 0 = one that the kernel chooses.
    pub listen: Vec<u16>,
    /// Bytes of writable private memory: heap and stacks. The program ends when it wants more.
    pub memory_bytes: Option<u64>,
    /// Files and sockets open at one time.
    pub open_files: Option<u64>,
}

impl Policy {
    fn uses_network(&self) -> bool {
        !self.connect.is_empty() || !self.listen.is_empty()
    }
}

/// A layer that holds not at all or in part.
#[derive(Debug, thiserror::Error)]
pub enum Weakness {
    /// The kernel does not have it.
    #[error("this kernel does not have it")]
    Absent,
    /// The kernel has an older form of it.
    #[error("this kernel has a part of it")]
    Partial,
    /// It could not be set up.
    #[error("it cannot be set up: {0}")]
    Failed(String),
}

/// What holds since [`apply`]: each layer, and why not where it does not.
#[derive(Debug)]
pub struct Confinement {
    layers: Vec<(&'static str, Result<(), Weakness>)>,
}

impl Confinement {
    /// The layers in the order in which they were put on.
    pub fn layers(&self) -> &[(&'static str, Result<(), Weakness>)] {
        &self.layers
    }

    /// Whether every layer holds.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.layers.iter().all(|(_, layer)| layer.is_ok())
    }

    /// What is missing, in one line; none where nothing is.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let missing = self.layers.iter().filter_map(|(name, layer)| Some(format!("{name}: {}", layer.as_ref().err()?)));
        let missing = missing.collect::<Vec<_>>();
        (!missing.is_empty()).then(|| missing.join("; "))
    }
}

/// Puts on every layer that the kernel has, for this thread and those that it starts from now on.
#[must_use = "what does not hold is to be told"]
pub fn apply(policy: &Policy) -> Confinement {
    // Landlock and seccomp need the first, and the last forbids what the others need.
    let layers = vec![
        ("no_new_privs", no_new_privs()),
        ("capabilities", drop_capabilities()),
        ("limits", limit(policy)),
        ("landlock", files::restrict(policy)),
        ("seccomp", syscalls::restrict(policy.uses_network())),
    ];
    Confinement { layers }
}

fn no_new_privs() -> Result<(), Weakness> {
    nix::sys::prctl::set_no_new_privs().map_err(failed)
}

fn drop_capabilities() -> Result<(), Weakness> {
    use caps::{CapSet, Capability, CapsHashSet};
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    // Only who has this one may shrink the bounding set; without new privileges nobody needs it to be small.
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported() {
            caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &CapsHashSet::new()).map_err(failed)?;
    }
    Ok(())
}

fn limit(policy: &Policy) -> Result<(), Weakness> {
    // A core would hold what strangers sent, and what this process knows.
    let limits = [
        (Resource::RLIMIT_CORE, Some(0)),
        // Not the address space: an allocator reserves far more of that than it uses.
        (Resource::RLIMIT_DATA, policy.memory_bytes),
        (Resource::RLIMIT_NOFILE, policy.open_files),
    ];
    for (resource, bound) in limits {
        if let Some(bound) = bound {
            let (_, hard) = nix::sys::resource::getrlimit(resource).map_err(failed)?;
            let bound = bound.min(hard);
            setrlimit(resource, bound, bound).map_err(failed)?;
        }
    }
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> Weakness {
    Weakness::Failed(error.to_string())
}

//! Why capturing cannot work, and how to make it work.

use crate::kernel;

/// Why this host cannot capture, or capturing stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A capability is not there.
    #[error(
        "capturing needs the capability {0}: run as root, or `setcap cap_bpf,cap_net_admin,cap_perfmon+ep` on weir-capture"
    )]
    MissingRight(&'static str),
    /// Packets cannot be recorded.
    #[error(
        "--on-demand needs the capability CAP_NET_RAW too: run as root, or `setcap cap_bpf,cap_net_admin,cap_perfmon,cap_net_raw+ep` on weir-capture"
    )]
    MissingRightToRecord,
    /// The network namespaces of containers cannot be entered.
    #[error(
        "--container-namespaces needs the capability {0} too: run as root, or `setcap cap_bpf,cap_net_admin,cap_perfmon,cap_sys_admin,cap_sys_ptrace+ep` on weir-capture"
    )]
    MissingRightToEnter(&'static str),
    /// The kernel lacks what the programs need.
    #[error("capturing needs Linux 5.15 or later, this is {0}")]
    KernelTooOld(String),
    /// A filter that the kernel cannot evaluate.
    #[error("--{option} cannot be used")]
    Filter {
        /// Name of the option.
        option: &'static str,
        /// Why.
        #[source]
        source: weir_filter::Unsupported,
    },
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// Interfaces cannot be followed.
    #[error("cannot follow the network interfaces")]
    Interfaces(#[from] rtnetlink::Error),
    /// No netlink socket.
    #[error("cannot open a netlink socket")]
    Netlink(#[source] std::io::Error),
    /// Rights could not be given up.
    #[error("cannot give up rights that are no longer needed")]
    Privileges(#[source] std::io::Error),
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether this host cannot capture at all, as opposed to a failure while it did.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::MissingRight(_) | Self::MissingRightToRecord | Self::MissingRightToEnter(_) | Self::KernelTooOld(_)
        )
    }
}

//! What this kernel can tell beside packets and bytes: each program is tried alone, and what cannot be attached is absent from the records.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    mem::size_of,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use aya::{
    Ebpf, Pod,
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, ProgramError, RawTracePoint},
};
use tracing::{info, warn};
use weir_capture_common::{
    names,
    socket::{Harmless, Layout, SOCKET_SK},
};

use super::{btf::Btf, earlier};
use crate::metrics;

/// A link never excludes others, and takes no flags (Linux, kernel/bpf/cgroup.c, `cgroup_bpf_link_attach`).
const LINK: CgroupAttachMode = CgroupAttachMode::Single;

/// Something that records can tell on some kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Handshake, retransmits, reordering, zero windows: the classifier's own, always there.
    Sequence,
    /// Cgroup of local sockets, and what their TCP says of itself.
    Socket,
    /// Process that opened a socket.
    Process,
    /// Process that had a socket open when capture started.
    Earlier,
    /// Path of what the process executes.
    Executable,
    /// Who has sent a TCP reset, and why.
    Resets,
    /// What the kernel drops, and why.
    Drops,
}

impl Feature {
    const ALL: [Self; 7] =
        [Self::Sequence, Self::Socket, Self::Process, Self::Earlier, Self::Executable, Self::Resets, Self::Drops];

    /// The value of the label `feature` in `/metrics`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequence => "sequence",
            Self::Socket => "socket",
            Self::Process => "process",
            Self::Earlier => "earlier_process",
            Self::Executable => "executable",
            Self::Resets => "resets",
            Self::Drops => "drops",
        }
    }

    /// Where it comes from.
    fn hook(self) -> &'static str {
        match self {
            Self::Sequence => "tcx",
            Self::Socket => "cgroup_skb",
            Self::Process => "cgroup/sock_create",
            Self::Earlier => "iter/task_file",
            Self::Executable => "sched_process_exec, sched_process_fork",
            Self::Resets => "tcp_send_reset, tcp_receive_reset",
            Self::Drops => "kfree_skb",
        }
    }
}

/// What could be attached, and why the rest could not.
#[derive(Clone, Debug, Default)]
pub struct Features {
    states: BTreeMap<Feature, Option<String>>,
}

impl Features {
    /// Whether records may tell it.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.states.get(&feature) == Some(&None)
    }

    /// Says in the log and in `/metrics` what there is.
    pub fn tell(&self) {
        for (feature, missing) in &self.states {
            metrics::feature(feature.name(), missing.is_none());
            match missing {
                None => info!(feature = feature.name(), hook = feature.hook(), "available"),
                Some(reason) => {
                    warn!(
                        feature = feature.name(),
                        hook = feature.hook(),
                        reason,
                        "not available: records do not tell it"
                    );
                }
            }
        }
    }
}

/// What the kernel's types tell.
#[derive(Default)]
pub(super) struct Types {
    pub(super) layout: LayoutValue,
    /// Names of reasons for drops.
    pub(super) reasons: BTreeMap<u32, String>,
    /// Names of reasons for resets.
    pub(super) resets: BTreeMap<u32, String>,
    /// BTF of the iterator over open files, where sockets can be followed from there.
    pub(super) task_file: Option<Vec<u8>>,
    /// Whether TCP sockets tell to which one of MPTCP they belong.
    pub(super) mptcp: bool,
    missing: Option<String>,
    missing_sockets: Option<String>,
}

/// Offsets as the programs read them.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(super) struct LayoutValue(Layout);

// SAFETY: integers only, without padding.
unsafe impl Pod for LayoutValue {}

/// As the programs read it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct HarmlessValue(Harmless);

// SAFETY: integers only, without padding.
unsafe impl Pod for HarmlessValue {}

impl Types {
    pub(super) fn read() -> Self {
        let found = Btf::of_kernel().map_err(|error| format!("no types of this kernel: {error}"));
        match found.and_then(|btf| Self::from(&btf).ok_or_else(|| "this kernel's structures are not known".to_owned()))
        {
            Ok(types) => types,
            Err(reason) => Self { missing: Some(reason), ..Self::default() },
        }
    }

    /// Which reasons for drops are no loss.
    pub(super) fn harmless(&self) -> HarmlessValue {
        let number =
            |wanted: &str| self.reasons.iter().find(|(_, name)| *name == wanted).map_or(0, |(number, _)| *number);
        HarmlessValue(Harmless {
            queue_purge: number("QUEUE_PURGE"),
            other_host: number("OTHERHOST"),
            packet_socket: number("PACKET_SOCK_ERROR"),
            no_socket: number("NO_SOCKET"),
            old_sequence: number("TCP_OLD_SEQUENCE"),
        })
    }

    fn from(btf: &Btf) -> Option<Self> {
        let mut layout = Layout {
            skb_head: btf.offset("sk_buff", "head")?,
            skb_network_header: btf.offset("sk_buff", "network_header")?,
            skb_protocol: btf.offset("sk_buff", "protocol")?,
            binprm_filename: btf.offset("linux_binprm", "filename")?,
            task_tgid: btf.offset("task_struct", "tgid")?,
            task_comm: btf.offset("task_struct", "comm")?,
            ..Layout::default()
        };
        let sockets = socket_fields(btf, &mut layout);
        let follows = sockets.is_some() && btf.offset("socket", "sk") == Some(SOCKET_SK as u32);
        Some(Self {
            layout: LayoutValue(layout),
            reasons: reasons(btf, "skb_drop_reason", "SKB_DROP_REASON_"),
            resets: reasons(btf, "sk_rst_reason", "SK_RST_REASON_"),
            task_file: if follows { btf.only_function("bpf_iter_task_file") } else { None },
            mptcp: btf.has_function("bpf_skc_to_mptcp_sock") && btf.offset("mptcp_sock", "token").is_some(),
            missing: None,
            missing_sockets: sockets.is_none().then(|| "this kernel's sockets are not known".to_owned()),
        })
    }
}

/// Where the fields of sockets lie; all of them or `None`.
fn socket_fields(btf: &Btf, layout: &mut Layout) -> Option<()> {
    let of = |field| btf.offset("sock_common", field);
    layout.sock_family = of("skc_family")?;
    layout.sock_daddr = of("skc_daddr")?;
    layout.sock_rcv_saddr = of("skc_rcv_saddr")?;
    layout.sock_dport = of("skc_dport")?;
    layout.sock_sport = btf.offset("inet_sock", "inet_sport")?;
    layout.sock_net = of("skc_net")?;
    layout.net_cookie = btf.offset("net", "net_cookie")?;
    // A kernel without IPv6 has none, and no socket that asks for them.
    layout.sock_v6_daddr = of("skc_v6_daddr").unwrap_or(0);
    layout.sock_v6_rcv_saddr = of("skc_v6_rcv_saddr").unwrap_or(0);
    Some(())
}

/// Names of an enumeration's values, without what all have in common.
fn reasons(btf: &Btf, enumeration: &str, prefix: &str) -> BTreeMap<u32, String> {
    let names = btf.names(enumeration).into_iter();
    names.map(|(value, name)| (value, name.strip_prefix(prefix).unwrap_or(&name).to_owned())).collect()
}

/// Cookie of the network namespace of the calling thread; 0 = not known.
pub(crate) fn network_namespace() -> u64 {
    /// `SO_NETNS_COOKIE` (asm-generic/socket.h).
    const NETNS_COOKIE: libc::c_int = 71;
    let (mut cookie, mut length) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return 0;
    }
    // SAFETY: a descriptor that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut length)
    };
    if result == 0 { cookie } else { 0 }
}

/// Loads and attaches what this kernel takes. The programs stay attached as long as the object lives.
pub(super) fn attach(object: &mut Ebpf, types: &Types) -> Features {
    let states = Feature::ALL.map(|feature| {
        let attached = match feature {
            Feature::Sequence => Ok(()),
            Feature::Socket => sockets(object),
            Feature::Process => process(object),
            Feature::Earlier => typed(types).and_then(|()| earlier::sockets(object, types)),
            Feature::Resets => typed(types).and_then(|()| resets(object, types)),
            Feature::Executable => typed(types).and_then(|()| {
                trace(object, names::PROCESS_EXECUTES, "sched_process_exec")?;
                trace(object, names::PROCESS_FORKS, "sched_process_fork")
            }),
            Feature::Drops => typed(types).and_then(|()| trace(object, names::PACKET_DROPPED, "kfree_skb")),
        };
        (feature, attached.err())
    });
    Features { states: states.into() }
}

fn typed(types: &Types) -> Result<(), String> {
    types.missing.clone().map_or(Ok(()), Err)
}

fn sockets(object: &mut Ebpf) -> Result<(), String> {
    let root = root_cgroup()?;
    for (name, kind) in
        [(names::SOCKET_SENDS, CgroupSkbAttachType::Egress), (names::SOCKET_RECEIVES, CgroupSkbAttachType::Ingress)]
    {
        let program: &mut CgroupSkb = program(object, name)?;
        program.load().map_err(reason)?;
        program.attach(&root, kind, LINK).map_err(reason)?;
    }
    Ok(())
}

fn process(object: &mut Ebpf) -> Result<(), String> {
    let root = root_cgroup()?;
    let program: &mut CgroupSock = program(object, names::SOCKET_OPENS)?;
    program.load().map_err(reason)?;
    program.attach(&root, LINK).map_err(reason)?;
    Ok(())
}

fn resets(object: &mut Ebpf, types: &Types) -> Result<(), String> {
    types.missing_sockets.clone().map_or(Ok(()), Err)?;
    // Before 6.10 it has no reason, and what it is given as the packet is not always the one that it answers.
    trace(object, names::RESET_SENT, "tcp_send_reset")?;
    trace(object, names::RESET_RECEIVED, "tcp_receive_reset")
}

fn trace(object: &mut Ebpf, name: &'static str, tracepoint: &str) -> Result<(), String> {
    let program: &mut RawTracePoint = program(object, name)?;
    program.load().map_err(reason)?;
    program.attach(tracepoint).map_err(reason)?;
    Ok(())
}

pub(super) fn program<'a, P>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    object.program_mut(name).ok_or_else(|| format!("the object has no {name}"))?.try_into().map_err(reason)
}

pub(super) fn reason(error: ProgramError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// The root of the cgroup v2 tree.
fn root_cgroup() -> Result<File, String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
    let path = cgroup2_mount(&mounts).ok_or("no cgroup v2 tree is mounted")?;
    File::open(&path).map_err(|error: io::Error| format!("{}: {error}", path.display()))
}

/// Where it is mounted, from the text of `/proc/self/mounts`.
fn cgroup2_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| path.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_tree_is_found_alone_and_beside_v1() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_mount(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(cgroup2_mount("none /sys/fs/cgroup cgroup2 rw 0 0\n"), Some("/sys/fs/cgroup".into()));
        assert_eq!(cgroup2_mount("proc /proc proc rw 0 0\n"), None);
    }
}

//! A walk over all open files of all processes, once, when capture starts: whose sockets they are that were open before.
//!
//! What a process opens meanwhile the program at its cgroup has told already, and that stays. Of several processes with one socket the one that the
//! kernel shows first has it: the one with the lowest number.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, file},
    helpers::{
        bpf_probe_read_kernel_str_bytes,
        generated::{bpf_sk_storage_get, bpf_sock_from_file},
    },
};
use weir_capture_common::socket::{Owner, SOCKET_SK};

use crate::{
    maps::OWNERS,
    traces::{layout, read},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `struct bpf_iter__task_file` (Linux, kernel/bpf/task_iter.c); each pointer takes 8 bytes.
#[repr(C)]
pub struct TaskFile {
    meta: u64,
    task: u64,
    fd: u64,
    file: *mut file,
}

/// A file of a process; null at the end of the walk.
///
/// # Safety
///
/// The kernel calls it with a valid context.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub unsafe extern "C" fn sockets_before(context: *mut TaskFile) -> i32 {
    // SAFETY: fields of the context, as the verifier knows them.
    unsafe {
        let (task, file) = ((*context).task, (*context).file);
        if task != 0 && !file.is_null() {
            let _no_socket = own(task, file);
        }
    }
    0
}

#[inline(always)]
unsafe fn own(task: u64, file: *mut file) -> Option<()> {
    // SAFETY: helpers that the verifier knows to give a pointer or null; the socket's first field of interest is where user space found it.
    unsafe {
        let socket = bpf_sock_from_file(file);
        if socket.is_null() {
            return None;
        }
        let sk: *mut core::ffi::c_void = *socket.cast::<u8>().add(SOCKET_SK).cast();
        if sk.is_null() {
            return None;
        }
        let layout = layout();
        let family: u16 = read(sk as u64 + u64::from(layout.sock_family))?;
        if family != AF_INET && family != AF_INET6 {
            return None;
        }
        let pid: u32 = read(task + u64::from(layout.task_tgid))?;
        let net: u64 = read(sk as u64 + u64::from(layout.sock_net))?;
        let netns: u64 = read(net + u64::from(layout.net_cookie))?;
        let mut comm = [0u8; 16];
        bpf_probe_read_kernel_str_bytes((task + u64::from(layout.task_comm)) as *const u8, &mut comm).ok()?;
        let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        let owner: *mut Owner = bpf_sk_storage_get(OWNERS.as_ptr(), sk, core::ptr::null_mut(), create).cast();
        if owner.is_null() || (*owner).pid != 0 {
            return None;
        }
        (*owner).netns = netns;
        (*owner).comm = comm;
        (*owner).pid = pid;
        // What was told without it is told again.
        (*owner).due = 0;
    }
    Some(())
}

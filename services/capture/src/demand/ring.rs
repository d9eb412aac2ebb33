//! A packet socket with a ring in shared memory (packet(7), `TPACKET_V3`): the kernel fills blocks, and counts what finds no free one.

use std::{
    borrow::Cow,
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::{frame::with_tag, prefilter};

/// Bytes of a block; no packet can be longer.
pub(super) const BLOCK_BYTES: usize = 256 << 10;
/// A block that is not full is handed over after so many milliseconds.
pub(super) const RETIRE_MS: u32 = 50;
/// Any divisor of the block: in this version frames have no fixed size.
const FRAME_BYTES: u32 = 2048;
/// `sizeof(struct tpacket3_hdr)`, behind which the link-layer address is.
const HEADER: usize = 48;
const PROTOCOL_8021Q: u16 = 0x8100;

/// Bits of `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
const UNICAST: u32 = 1 << 2;
const MULTICAST: u32 = 2 << 2;
const BROADCAST: u32 = 3 << 2;
const PROMISCUOUS: u32 = 4 << 2;

/// A frame in the ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    /// Nanoseconds since 1970.
    pub(super) time_ns: u64,
    /// As `epb_flags` has them: which way it went, and how it was addressed.
    pub(super) flags: u32,
    /// Bytes on the wire.
    pub(super) original: u32,
    /// With its VLAN tag.
    pub(super) data: Cow<'a, [u8]>,
}

impl Seen<'_> {
    /// Whether this host sent it.
    pub(super) fn is_outgoing(&self) -> bool {
        self.flags & 3 == OUTBOUND
    }
}

/// The socket of one interface.
pub(super) struct Ring {
    socket: OwnedFd,
    memory: NonNull<libc::c_void>,
    blocks: usize,
    next: usize,
    dropped: u64,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl Send for Ring {}

impl Ring {
    /// Listens on an interface from now on, for what this program lets through. Needs `CAP_NET_RAW`.
    pub(super) fn open(interface: u32, blocks: usize, program: Option<Vec<libc::sock_filter>>) -> io::Result<Self> {
        // Protocol 0: nothing comes before it is bound to its interface.
        // SAFETY: no pointers.
        let socket =
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it was opened just now, for this value.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        set(&socket, libc::PACKET_VERSION, &version)?;
        let bytes = NonZeroUsize::new(blocks * BLOCK_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: FRAME_BYTES,
            tp_frame_nr: bytes.get() as u32 / FRAME_BYTES,
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(&socket, libc::PACKET_RX_RING, &request)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping of a ring that this socket owns.
        let memory = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, &socket, 0)? };
        let ring = Self { socket, memory, blocks, next: 0, dropped: 0 };
        if let Some(mut program) = program {
            prefilter::attach(&ring, &mut program)?;
        }
        ring.bind(interface)?;
        Ok(ring)
    }

    /// Gives each frame of the blocks that are full, or old enough, to `take`, in the order of their coming. Returns how many there were.
    pub(super) fn read(&mut self, mut take: impl FnMut(Seen<'_>)) -> u64 {
        let mut count = 0;
        // Once around at most, so that a flood on one interface does not keep the others waiting.
        for _ in 0..self.blocks {
            let status = self.status(self.next);
            if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
                break;
            }
            for frame in frames(self.block(self.next)) {
                count += 1;
                take(frame);
            }
            self.status(self.next).store(libc::TP_STATUS_KERNEL, Ordering::Release);
            self.next = (self.next + 1) % self.blocks;
        }
        count
    }

    /// Frames that the program let through and for which there was no room, since the socket was opened.
    pub(super) fn dropped(&mut self) -> u64 {
        let mut counts = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        let mut length = size_of::<libc::tpacket_stats_v3>() as libc::socklen_t;
        // SAFETY: the structure that this option fills, and its length.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut length,
            )
        };
        // It cannot fail for this socket; and reading it sets it back.
        if result == 0 {
            self.dropped += u64::from(counts.tp_drops);
        }
        self.dropped
    }

    /// Takes the error that an interface which went down leaves, or poll(2) would return at once for ever.
    pub(super) fn clear_error(&self) {
        let mut error: libc::c_int = 0;
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: a number and its length.
        let _cleared = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &raw mut length,
            )
        };
    }

    fn bind(&self, interface: u32) -> io::Result<()> {
        // SAFETY: zeroes are a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = interface as i32;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: an address and its length.
        let result = unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), length) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Who has the block: `block_status` of `struct tpacket_hdr_v1`, behind the version and the offset of the private area.
    fn status(&self, block: usize) -> &AtomicU32 {
        // SAFETY: inside the mapping, aligned, and only accessed as an atomic while the kernel may write to it.
        unsafe { self.memory.cast::<u8>().add(block * BLOCK_BYTES + 8).cast::<AtomicU32>().as_ref() }
    }

    /// A block that the kernel has handed over: it does not write to it before it is given back.
    fn block(&self, block: usize) -> &[u8] {
        // SAFETY: inside the mapping, which lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.memory.cast::<u8>().add(block * BLOCK_BYTES).as_ptr(), BLOCK_BYTES) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped with this length, and nobody has a part of it any more.
        let _unmapped = unsafe { munmap(self.memory, self.blocks * BLOCK_BYTES) };
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: a value and its length.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, option, (&raw const *value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The frames of a block; what does not fit into the block ends it.
fn frames(block: &[u8]) -> impl Iterator<Item = Seen<'_>> {
    /// `num_pkts` and `offset_to_first_pkt` of `struct tpacket_hdr_v1`.
    const COUNT: usize = 12;
    const FIRST: usize = 16;
    let mut left = word(block, COUNT).unwrap_or(0);
    let mut at = word(block, FIRST).unwrap_or(0) as usize;
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let frame = block.get(at..)?;
        let next = word(frame, 0)? as usize;
        // The last one has none.
        at += next;
        seen(frame)
    })
}

/// `struct tpacket3_hdr` with the address behind it, and the frame.
fn seen(frame: &[u8]) -> Option<Seen<'_>> {
    const PACKET_TYPE: usize = HEADER + 10;
    let (seconds, nanoseconds) = (word(frame, 4)?, word(frame, 8)?);
    let (captured, original, status) = (word(frame, 12)?, word(frame, 16)?, word(frame, 20)?);
    let start = usize::from(half(frame, 24)?);
    let data = frame.get(start..)?.get(..captured as usize)?;
    let (tag, protocol) = (word(frame, 32)? as u16, half(frame, 36)?);
    let tagged = status & libc::TP_STATUS_VLAN_VALID != 0;
    let protocol = if status & libc::TP_STATUS_VLAN_TPID_VALID == 0 { PROTOCOL_8021Q } else { protocol };
    Some(Seen {
        time_ns: u64::from(seconds) * 1_000_000_000 + u64::from(nanoseconds),
        flags: flags(*frame.get(PACKET_TYPE)?),
        original: original + if tagged { 4 } else { 0 },
        data: if tagged { with_tag(data, protocol, tag).into() } else { data.into() },
    })
}

fn flags(packet_type: u8) -> u32 {
    match packet_type {
        libc::PACKET_HOST => INBOUND | UNICAST,
        libc::PACKET_BROADCAST => INBOUND | BROADCAST,
        libc::PACKET_MULTICAST => INBOUND | MULTICAST,
        libc::PACKET_OTHERHOST => INBOUND | PROMISCUOUS,
        libc::PACKET_OUTGOING => OUTBOUND,
        _ => 0,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A block with one frame, as the kernel lays it out.
    fn block(status: u32, data: &[u8]) -> Vec<u8> {
        let mut block = vec![0; 48];
        block[12..16].copy_from_slice(&1_u32.to_ne_bytes());
        block[16..20].copy_from_slice(&48_u32.to_ne_bytes());
        let mut frame = Vec::new();
        for word in [0, 7, 9, data.len() as u32, 1000, status] {
            frame.extend(u32::to_ne_bytes(word));
        }
        frame.extend(72_u16.to_ne_bytes());
        frame.resize(32, 0);
        frame.extend(42_u32.to_ne_bytes());
        frame.extend(0x88a8_u16.to_ne_bytes());
        frame.resize(HEADER + 10, 0);
        frame.push(libc::PACKET_OUTGOING);
        frame.resize(72, 0);
        frame.extend(data);
        block.extend(frame);
        block
    }

    #[test]
    fn a_frame_has_its_time_direction_and_tag() {
        let data = [5; 20];
        let bytes = block(0, &data);
        let plain: Vec<_> = frames(&bytes).collect();
        let expected = Seen { time_ns: 7_000_000_009, flags: OUTBOUND, original: 1000, data: (&data[..]).into() };
        assert_eq!(plain, [expected]);
        assert!(plain[0].is_outgoing());
        let both = libc::TP_STATUS_VLAN_VALID | libc::TP_STATUS_VLAN_TPID_VALID;
        for (status, protocol) in [(both, [0x88, 0xa8]), (libc::TP_STATUS_VLAN_VALID, [0x81, 0])] {
            let bytes = block(status, &data);
            let tagged: Vec<_> = frames(&bytes).collect();
            assert_eq!((tagged[0].original, &tagged[0].data[12..14]), (1004, &protocol[..]));
        }
    }

    proptest! {
        #[test]
        fn no_block_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(frames(&bytes).take(1000).count() <= 1000);
        }
    }
}

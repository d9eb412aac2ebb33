//! Headers as they are on the wire: integers in network order.

use super::Plain;

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct VlanTag {
    pub(super) control: u16,
    pub(super) ether_type: u16,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Ipv4Header {
    pub(super) version_length: u8,
    pub(super) service: u8,
    pub(super) total_length: u16,
    pub(super) id: u16,
    pub(super) fragment: u16,
    pub(super) time_to_live: u8,
    pub(super) protocol: u8,
    pub(super) checksum: u16,
    pub(super) src: u32,
    pub(super) dst: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Ipv6Header {
    pub(super) version_class_label: u32,
    pub(super) payload_length: u16,
    pub(super) next_header: u8,
    pub(super) hop_limit: u8,
    pub(super) src: [u32; 4],
    pub(super) dst: [u32; 4],
}

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Extension {
    pub(super) next_header: u8,
    pub(super) length: u8,
    pub(super) rest: u16,
    pub(super) id: u32,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Ports {
    pub(super) src: u16,
    pub(super) dst: u16,
}

/// The first 16 of a TCP header's 20 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct TcpHeader {
    pub(super) ports: Ports,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) offset: u8,
    pub(super) flags: u8,
    pub(super) window: u16,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct IcmpHeader {
    pub(super) kind: u8,
    pub(super) code: u8,
    pub(super) checksum: u16,
}

// SAFETY: integers only, laid out without padding (sizes are asserted in the tests).
unsafe impl Plain for VlanTag {}
// SAFETY: as above.
unsafe impl Plain for Ipv4Header {}
// SAFETY: as above.
unsafe impl Plain for Ipv6Header {}
// SAFETY: as above.
unsafe impl Plain for Extension {}
// SAFETY: as above.
unsafe impl Plain for Ports {}
// SAFETY: as above.
unsafe impl Plain for TcpHeader {}
// SAFETY: as above.
unsafe impl Plain for IcmpHeader {}
// SAFETY: bytes.
unsafe impl<const LENGTH: usize> Plain for [u8; LENGTH] {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}

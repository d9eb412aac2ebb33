//! An `sk_buff` as a [`Frame`].

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use weir_capture_common::dissect::{Frame, Plain};

pub struct SkBuff<'a> {
    context: &'a TcContext,
}

impl<'a> SkBuff<'a> {
    #[inline(always)]
    pub fn new(context: &'a TcContext) -> Self {
        Self { context }
    }

    /// Index of the interface that the packet passes.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        self.raw().ifindex
    }

    /// `gso_segs`: packets in a super-packet; 0 where nobody has counted.
    #[inline(always)]
    pub fn segments(&self) -> u32 {
        self.raw().gso_segs
    }

    #[inline(always)]
    fn raw(&self) -> &__sk_buff {
        // SAFETY: the context of a classifier, valid as long as it runs; the verifier checks each field's access.
        unsafe { &*self.context.skb.skb }
    }
}

impl Frame for SkBuff<'_> {
    #[inline(always)]
    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        // The helper, and not the packet's pointers: of a packet with fragments those reach only the first part.
        self.context.load(offset as usize).ok()
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.raw().len
    }

    #[inline(always)]
    fn ether_type(&self) -> u16 {
        u16::from_be(self.raw().protocol as u16)
    }

    #[inline(always)]
    fn vlan_tag(&self) -> Option<u16> {
        if self.raw().vlan_present == 0 { None } else { Some(self.raw().vlan_tci as u16) }
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        self.raw().gso_size
    }
}

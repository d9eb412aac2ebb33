//! An `sk_buff` as a [`Frame`].

use aya_ebpf::{bindings::__sk_buff, programs::sk_buff};
use weir_capture_common::dissect::{Frame, Plain};

pub struct SkBuff<'a> {
    skb: &'a sk_buff::SkBuff,
}

impl<'a> SkBuff<'a> {
    #[inline(always)]
    pub fn new(skb: &'a sk_buff::SkBuff) -> Self {
        Self { skb }
    }

    /// Index of the interface that the packet passes.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        self.raw().ifindex
    }

    /// Whether no interface has received the packet: it was made here.
    #[inline(always)]
    pub fn is_own(&self) -> bool {
        self.raw().ingress_ifindex == 0
    }

    /// `gso_segs`: packets in a super-packet; 0 where nobody has counted.
    #[inline(always)]
    pub fn segments(&self) -> u32 {
        self.raw().gso_segs
    }

    /// The context, as helpers take it.
    #[inline(always)]
    pub fn pointer(&self) -> *const core::ffi::c_void {
        self.skb.skb.cast_const().cast()
    }

    #[inline(always)]
    fn raw(&self) -> &__sk_buff {
        // SAFETY: the context of the program, valid as long as it runs; the verifier checks each field's access.
        unsafe { &*self.skb.skb }
    }
}

impl Frame for SkBuff<'_> {
    #[inline(always)]
    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        // The helper, and not the packet's pointers: of a packet with fragments those reach only the first part.
        self.skb.load(offset as usize).ok()
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

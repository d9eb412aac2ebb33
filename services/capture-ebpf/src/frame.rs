//! An `sk_buff` as a [`Frame`], read by a helper that reaches all of it, or in place as far as it is linear.

use core::{arch::asm, mem::MaybeUninit};

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

/// The linear part of an `sk_buff`. What lies behind it cannot be loaded, although it may be there.
pub struct Linear<'a> {
    whole: SkBuff<'a>,
    start: usize,
    end: usize,
}

impl<'a> Linear<'a> {
    #[inline(always)]
    pub fn new(skb: &'a sk_buff::SkBuff) -> Self {
        let whole = SkBuff::new(skb);
        let (start, end) = (whole.raw().data as usize, whole.raw().data_end as usize);
        Self { whole, start, end }
    }
}

impl Frame for Linear<'_> {
    #[inline(always)]
    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        let at = self.start + offset as usize;
        if at + size_of::<T>() > self.end {
            return None;
        }
        let mut value = MaybeUninit::<T>::uninit();
        let words = size_of::<T>() / size_of::<u32>();
        for index in 0..words {
            // SAFETY: within the packet, as was just compared and the verifier checks; any words are a T. Headers are where the packet has them: the
            // machines that this runs on load words from anywhere.
            unsafe {
                let word: u64;
                asm!("{word} = *(u32 *)({at} + 0)", word = lateout(reg) word, at = in(reg) at + index * 4, options(pure, readonly, nostack));
                value.as_mut_ptr().cast::<u32>().add(index).write_unaligned(word as u32);
            }
        }
        // SAFETY: all of it was written: headers are whole words.
        Some(unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.whole.length()
    }

    #[inline(always)]
    fn ether_type(&self) -> u16 {
        self.whole.ether_type()
    }

    #[inline(always)]
    fn vlan_tag(&self) -> Option<u16> {
        self.whole.vlan_tag()
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        self.whole.segment_size()
    }
}

//! Packets of flows that have no room in the table, on their way to user space, one by one: a small record through a ring buffer.
//!
//! User space adds them up by flow. Only when the buffer is full too do packets count by protocol and port
//! ([`FlowKey::overflow`](crate::flow::FlowKey::overflow)).

use crate::{
    facts::Tunnel,
    flow::{FlowKey, Side},
    slot::Hook,
};

/// What is told of a packet. 104 bytes without padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Spill {
    /// Its flow.
    pub key: FlowKey,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub now: u64,
    /// Packets on the wire.
    pub packets: u32,
    /// IP bytes on the wire.
    pub bytes: u32,
    /// Where it was seen.
    pub hook: Hook,
    /// TCP flags in the lowest byte, and [`marks`] above.
    pub marks: u32,
    /// What it was wrapped in.
    pub tunnel: Tunnel,
}

/// Bits of [`Spill::marks`].
pub mod marks {
    /// Side B sent it.
    pub const FROM_B: u32 = 1 << 8;
    /// Side B began, if this is the flow's first packet.
    pub const B_BEGAN: u32 = 1 << 9;
    /// The sender has no address yet.
    pub const ANONYMOUS: u32 = 1 << 10;
}

impl Spill {
    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> Side {
        if self.marks & marks::FROM_B == 0 { Side::A } else { Side::B }
    }

    /// Who began, if this is the flow's first packet.
    #[must_use]
    pub fn initiator(&self) -> Side {
        if self.marks & marks::B_BEGAN == 0 { Side::A } else { Side::B }
    }

    /// The header's 14th byte; 0 if not TCP.
    #[must_use]
    pub fn tcp_flags(&self) -> u8 {
        self.marks as u8
    }

    /// From the bytes in the buffer; `None` = there are not as many.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..size_of::<Self>())?;
        // SAFETY: integers only, any bytes are one, and there are as many as it has.
        Some(unsafe { bytes.as_ptr().cast::<Self>().read_unaligned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_no_padding() {
        assert_eq!(size_of::<Spill>(), 104);
        assert_eq!(Spill::read(&[0; 103]), None);
        assert_eq!(Spill::read(&[0; 104]), Some(Spill::default()));
    }
}

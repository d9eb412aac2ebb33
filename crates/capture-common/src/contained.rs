//! Interfaces in the network namespaces of containers: their numbers and addresses may be the same as others' elsewhere.
//!
//! Each that is captured on gets a number that is unique on the host, in place of the index that is unique in its namespace only, and a mask: what is
//! seen there is apart from the same addresses elsewhere, because the mask is part of its flows' keys
//! ([`FlowKey::apart`](crate::flow::FlowKey::apart)). A small program at the interface says both to the classifier, which it calls.

use crate::slot::RELEASED;

/// Set in the number of such an interface. In a namespace of its own an interface has its index as its number, which is smaller.
pub const CONTAINED: u32 = 1 << 29;

/// Interfaces in containers that are captured on at one time, at most. Each has a ledger of its own.
pub const MAX_CONTAINED: u32 = 1024;

const _: () =
    assert!(((CONTAINED << 1) | (CONTAINED - 1) << 1 | 1) & RELEASED == 0, "a number and a direction are a hook");

/// What the program at an interface says of it. 16 bytes without padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Here {
    /// Its number.
    pub number: u32,
    /// So that no byte is undefined.
    pub reserved: u32,
    /// What keeps its flows apart; 0 = nothing: they are the host's.
    pub mask: u64,
}

/// An interface as a socket's packet knows it. 16 bytes without padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Spot {
    /// Cookie of the network namespace.
    pub netns: u64,
    /// Index of the interface in it.
    pub ifindex: u32,
    /// So that no byte is undefined.
    pub reserved: u32,
}

/// The programs that the one at an interface calls, in the order of their places in the array of programs.
pub mod places {
    /// Frames that start with an Ethernet header come in.
    pub const ETHERNET_INGRESS: u32 = 0;
    /// They go out.
    pub const ETHERNET_EGRESS: u32 = 1;
    /// Frames that start with the IP header come in.
    pub const IP_INGRESS: u32 = 2;
    /// They go out.
    pub const IP_EGRESS: u32 = 3;
    /// How many there are.
    pub const COUNT: u32 = 4;
}

/// Whether a number is that of an interface in a container's namespace.
#[inline(always)]
#[must_use]
pub fn is_contained(number: u32) -> bool {
    number & CONTAINED != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot;

    #[test]
    fn a_number_survives_being_a_hook() {
        for number in [CONTAINED, CONTAINED | 0x4d, CONTAINED | (CONTAINED - 1)] {
            assert_eq!(slot::ifindex(slot::hook(number, true)), number);
            assert_eq!(slot::ifindex(slot::hook(number, false) | RELEASED), number);
            assert!(is_contained(number) && !is_contained(number & (CONTAINED - 1)));
        }
    }

    #[test]
    fn what_crosses_the_border_has_no_padding() {
        assert_eq!(size_of::<Here>(), 16);
        assert_eq!(size_of::<Spot>(), 16);
    }
}

//! Which packets are counted at all: a filter as answers to questions, and sampling by flow.
//!
//! User space compiles a filter to at most 64 questions (atoms). Maps give for an address, a port, a protocol and an interface the bits of
//! the questions that they answer with yes; a packet's answers are all of these together. A filter is a list of terms, each a
//! combination of answers that is accepted.

use crate::flow::FlowKey;

/// Terms in a [`Program`].
pub const MAX_TERMS: usize = 32;

/// What of a packet the filter asks about, as bits of the constant `SELECT_USES`; without any, everything is counted.
pub mod uses {
    /// There is a filter.
    pub const FILTER: u32 = 1;
    /// Addresses.
    pub const ADDRESSES: u32 = 2;
    /// Ports.
    pub const PORTS: u32 = 4;
    /// Protocols.
    pub const PROTOCOLS: u32 = 8;
    /// Interfaces.
    pub const INTERFACES: u32 = 16;
}

/// A combination of answers: the packet is accepted if its answers are `want` where `care` has a bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "told above")]
pub struct Term {
    pub care: u64,
    pub want: u64,
}

/// The accepted combinations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Program {
    /// The first `count` hold.
    pub terms: [Term; MAX_TERMS],
    /// How many there are.
    pub count: u64,
}

impl Program {
    /// Whether a packet with these answers is accepted.
    #[inline(always)]
    #[must_use]
    pub fn accepts(&self, answers: u64) -> bool {
        for (index, term) in self.terms.iter().enumerate() {
            if index as u64 >= self.count {
                return false;
            }
            if answers & term.care == term.want {
                return true;
            }
        }
        false
    }
}

/// Whether a flow is one of the one in `one_in` that are counted. The key is the same for both directions, and for all fragments whose
/// first one was seen. `seed` differs between runs, so that nobody can choose ports that are never seen.
#[inline(always)]
#[must_use]
pub fn is_sampled(key: &FlowKey, seed: u64, one_in: u32) -> bool {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let ports = u64::from(key.a_port) << 48 | u64::from(key.b_port) << 32;
    let rest = ports | u64::from(key.protocol()) << 24 | u64::from(key.vlan());
    let mut hash = seed;
    for word in [key.a.high, key.a.low, key.b.high, key.b.low, rest] {
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
        hash ^= hash >> 29;
    }
    // The upper half as a fraction of 2^32, times `one_in`.
    ((hash >> 32) * u64::from(one_in)) >> 32 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dissect::Headers, flow::Address};

    #[test]
    fn one_of_the_terms_must_fit_and_no_others_are_there() {
        let mut program = Program::default();
        assert!(!program.accepts(0));
        program.terms[0] = Term { care: 0b11, want: 0b01 };
        program.terms[1] = Term { care: 0b100, want: 0b100 };
        program.count = 1;
        assert!(program.accepts(0b01) && program.accepts(0b1001));
        assert!(!program.accepts(0b11) && !program.accepts(0b100) && !program.accepts(0));
        program.count = 2;
        assert!(program.accepts(0b111));
    }

    fn key(port: u16) -> (FlowKey, FlowKey) {
        let (client, server) = (Address::from_v4(0x0a00_0001), Address::from_v4(0x0a00_0002));
        let there =
            Headers { src: client, dst: server, src_port: port, dst_port: 443, protocol: 6, ..Headers::default() };
        let back =
            Headers { src: server, dst: client, src_port: 443, dst_port: port, protocol: 6, ..Headers::default() };
        (FlowKey::new(&there).0, FlowKey::new(&back).0)
    }

    #[test]
    fn about_one_flow_in_so_many_is_counted_in_both_directions() {
        for (one_in, expected) in [(2u32, 32_768i64), (10, 6_554), (100, 655)] {
            let mut sampled = 0;
            for port in 0..=u16::MAX {
                let (there, back) = key(port);
                let chosen = is_sampled(&there, 7, one_in);
                assert_eq!(chosen, is_sampled(&back, 7, one_in));
                sampled += i64::from(chosen);
            }
            // Four standard deviations.
            let tolerance = 4 * (expected as f64).sqrt() as i64;
            assert!((sampled - expected).abs() < tolerance, "1:{one_in}: {sampled} instead of {expected}");
        }
    }

    #[test]
    fn every_flow_is_counted_without_sampling_and_seeds_choose_differently() {
        let chosen = |seed| (0..1000).filter(|port| is_sampled(&key(*port).0, seed, 4)).map(u64::from).sum::<u64>();
        assert!((0..=u16::MAX).all(|port| is_sampled(&key(port).0, 3, 1)));
        assert_ne!(chosen(1), chosen(2));
    }
}

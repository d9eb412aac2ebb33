//! ICMP has no ports; its type and code take their place, so that a request and its answer fall into one flow.
//!
//! The pairs of types are those of Community ID v1 (and so of Zeek): a request has the ports (request, answer), its answer (answer, request).
//! A message without a counterpart has the ports (type, code with [`ONE_WAY`] set), so that each direction is a flow of its own.

/// IANA number of ICMP.
pub const ICMP: u8 = 1;
/// IANA number of `ICMPv6`.
pub const ICMPV6: u8 = 58;

/// Set in the destination's "port" of a message that has no counterpart; the lower byte is its code.
pub const ONE_WAY: u16 = 0x8000;

/// Source and destination "port" of a message.
#[inline(always)]
#[must_use]
pub fn ports(protocol: u8, kind: u8, code: u8) -> (u16, u16) {
    match counterpart(protocol, kind) {
        Some(other) => (u16::from(kind), u16::from(other)),
        None => (u16::from(kind), ONE_WAY | u16::from(code)),
    }
}

/// Whether the sender of this message asks, answers, or neither.
#[inline(always)]
#[must_use]
pub fn role(protocol: u8, kind: u8) -> Role {
    let asks = match protocol {
        ICMP => matches!(kind, 8 | 10 | 13 | 15 | 17),
        _ => matches!(kind, 128 | 130 | 133 | 135 | 139 | 144),
    };
    match counterpart(protocol, kind) {
        None => Role::Neither,
        Some(_) if asks => Role::Asks,
        Some(_) => Role::Answers,
    }
}

/// What a message does in its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A request.
    Asks,
    /// The answer to a request.
    Answers,
    /// An error or an announcement.
    Neither,
}

#[inline(always)]
fn counterpart(protocol: u8, kind: u8) -> Option<u8> {
    match protocol {
        ICMP => match kind {
            // Echo, router solicitation, timestamp, information, address mask.
            0 => Some(8),
            8 => Some(0),
            9 => Some(10),
            10 => Some(9),
            13 => Some(14),
            14 => Some(13),
            15 => Some(16),
            16 => Some(15),
            17 => Some(18),
            18 => Some(17),
            _ => None,
        },
        ICMPV6 => match kind {
            // Echo, multicast listener, router and neighbour discovery, node information, home agent discovery.
            128 => Some(129),
            129 => Some(128),
            130 => Some(131),
            131 => Some(130),
            133 => Some(134),
            134 => Some(133),
            135 => Some(136),
            136 => Some(135),
            139 => Some(140),
            140 => Some(139),
            144 => Some(145),
            145 => Some(144),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_ports_of_its_request_the_other_way_round() {
        assert_eq!(ports(ICMP, 8, 0), (8, 0));
        assert_eq!(ports(ICMP, 0, 0), (0, 8));
        assert_eq!(ports(ICMPV6, 135, 0), (135, 136));
        assert_eq!(ports(ICMPV6, 136, 0), (136, 135));
    }

    #[test]
    fn an_error_has_its_type_and_code_for_ports_and_no_answer() {
        assert_eq!(ports(ICMP, 3, 13), (3, ONE_WAY + 13));
        let (there, back) = (ports(ICMP, 3, 3), ports(ICMP, 3, 3));
        assert_ne!(there, (back.1, back.0));
    }

    #[test]
    fn every_type_that_asks_is_answered_by_one_that_does_not() {
        for protocol in [ICMP, ICMPV6] {
            for kind in 0..=255u8 {
                let Some(other) = counterpart(protocol, kind) else {
                    assert_eq!(role(protocol, kind), Role::Neither);
                    continue;
                };
                assert_eq!(counterpart(protocol, other), Some(kind));
                assert_ne!(role(protocol, kind), role(protocol, other));
            }
        }
    }
}

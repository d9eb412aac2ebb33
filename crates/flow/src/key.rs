//! What makes packets belong to one flow.

use sha1::{Digest, Sha1};

use crate::packet::ip::protocol;

/// One end of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Network order, IPv4 mapped.
    pub ip: [u8; 16],
    /// 0 where the protocol has none; for ICMP see [`Key::icmp`].
    pub port: u16,
}

impl Ord for Endpoint {
    /// As address and port in network order, in wide words: each packet is put in order.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let words = |end: &Self| (u128::from_be_bytes(end.ip), end.port);
        words(self).cmp(&words(other))
    }
}

impl PartialOrd for Endpoint {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The same for both directions of a flow.
#[derive(Clone, Copy, Debug, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The lower end in the order of address, then port (except one-way ICMP, which keeps its sender first).
    pub low: Endpoint,
    /// The other end.
    pub high: Endpoint,
    /// IANA number.
    pub protocol: u8,
    /// As in [`crate::packet::Network`].
    pub vlan: u32,
    /// Number of the tunnel's name in the analyzer's table; 0 = none.
    pub tunnel: u32,
}

impl PartialEq for Key {
    /// In few wide words: each packet is compared.
    fn eq(&self, other: &Self) -> bool {
        self.words() == other.words()
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let (low, high, rest) = self.words();
        state.write_u128(low);
        state.write_u128(high);
        state.write_u128(rest);
    }
}

/// Which way a packet goes relative to its [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From `low` to `high`.
    Up,
    /// From `high` to `low`.
    Down,
}

/// The flow that a packet is of: its key, the direction of the packet, and what stands for the ports in a record.
pub type Belonging = (Key, Direction, (u16, u16));

impl Direction {
    /// 0 or 1, for arrays with an element per direction.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The other way.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

impl Key {
    const fn words(&self) -> (u128, u128, u128) {
        let ports = (self.low.port as u128) << 16 | self.high.port as u128;
        let rest = ports << 72 | (self.protocol as u128) << 64 | (self.vlan as u128) << 32 | self.tunnel as u128;
        (u128::from_ne_bytes(self.low.ip), u128::from_ne_bytes(self.high.ip), rest)
    }

    /// The key of a packet between two ends, and the packet's direction.
    #[must_use]
    pub fn new(src: Endpoint, dst: Endpoint, protocol: u8, vlan: u32, tunnel: u32) -> (Self, Direction) {
        let (low, high, direction) = if src <= dst { (src, dst, Direction::Up) } else { (dst, src, Direction::Down) };
        (Self { low, high, protocol, vlan, tunnel }, direction)
    }

    /// The key of an ICMP or `ICMPv6` packet: a request and its reply share one, as Community ID has it; a message that has no
    /// counterpart makes a flow of its own for each code and direction.
    #[must_use]
    pub fn icmp(
        src: [u8; 16],
        dst: [u8; 16],
        kind: u8,
        code: u8,
        protocol: u8,
        vlan: u32,
        tunnel: u32,
    ) -> (Self, Direction) {
        let kind = u16::from(kind);
        let Some(counterpart) = icmp_counterpart(protocol, kind) else {
            let (low, high) = (Endpoint { ip: src, port: kind }, Endpoint { ip: dst, port: u16::from(code) });
            return (Self { low, high, protocol, vlan, tunnel }, Direction::Up);
        };
        Self::new(Endpoint { ip: src, port: kind }, Endpoint { ip: dst, port: counterpart }, protocol, vlan, tunnel)
    }

    /// The source end of a packet in this direction.
    #[must_use]
    pub const fn src(&self, direction: Direction) -> Endpoint {
        match direction {
            Direction::Up => self.low,
            Direction::Down => self.high,
        }
    }

    /// The destination end of a packet in this direction.
    #[must_use]
    pub const fn dst(&self, direction: Direction) -> Endpoint {
        self.src(direction.reversed())
    }

    /// A stable name for the `ordinal`-th flow of a producer; never 0.
    #[must_use]
    pub fn flow_id(&self, producer: &[u8; 16], tunnel: &str, ordinal: u64) -> u64 {
        let mut hash = Sha1::new();
        hash.update(producer);
        for end in [self.low, self.high] {
            hash.update(end.ip);
            hash.update(end.port.to_be_bytes());
        }
        hash.update([self.protocol]);
        hash.update(self.vlan.to_be_bytes());
        hash.update(tunnel.as_bytes());
        hash.update(ordinal.to_be_bytes());
        let digest = hash.finalize();
        let id = digest.iter().take(8).fold(0, |id, byte| (id << 8) | u64::from(*byte));
        id.max(1)
    }
}

/// The type of the message that answers, or asked for, a message of this type.
#[must_use]
pub(crate) fn icmp_counterpart(protocol: u8, kind: u16) -> Option<u16> {
    /// Echo, router discovery (RFC 1256), timestamp, information, address mask.
    const V4: [(u16, u16); 5] = [(8, 0), (10, 9), (13, 14), (15, 16), (17, 18)];
    /// Echo, multicast listener, router, neighbour, node information, home agent discovery.
    const V6: [(u16, u16); 6] = [(128, 129), (130, 131), (133, 134), (135, 136), (139, 140), (144, 145)];
    let pairs = if protocol == protocol::ICMP { &V4[..] } else { &V6[..] };
    pairs.iter().find_map(|&(request, reply)| match kind {
        _ if kind == request => Some(reply),
        _ if kind == reply => Some(request),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| Endpoint { ip, port })
    }

    proptest! {
        #[test]
        fn both_directions_have_one_key(a in endpoint(), b in endpoint(), protocol: u8, vlan in 0u32..1 << 24) {
            let (there, way) = Key::new(a, b, protocol, vlan, 0);
            let (back, other) = Key::new(b, a, protocol, vlan, 0);
            prop_assert_eq!(there, back);
            prop_assert!(a == b || way == other.reversed());
            prop_assert_eq!((there.src(way), there.dst(way)), (a, b));
        }

        #[test]
        fn an_echo_and_its_reply_have_one_key(a: [u8; 16], b: [u8; 16]) {
            let (request, way) = Key::icmp(a, b, 8, 0, 1, 0, 0);
            let (reply, back) = Key::icmp(b, a, 0, 0, 1, 0, 0);
            prop_assert_eq!(request, reply);
            prop_assert_eq!(way, back.reversed());
        }

        #[test]
        fn a_flow_id_follows_from_all_that_names_the_flow(a in endpoint(), b in endpoint(), ordinal: u64) {
            let (key, _) = Key::new(a, b, 6, 0, 0);
            let id = key.flow_id(&[7; 16], "", ordinal);
            prop_assert_eq!(id, key.flow_id(&[7; 16], "", ordinal));
            prop_assert_ne!(id, key.flow_id(&[8; 16], "", ordinal));
            prop_assert_ne!(id, key.flow_id(&[7; 16], "gre", ordinal));
            prop_assert_ne!(id, key.flow_id(&[7; 16], "", ordinal.wrapping_add(1)));
        }
    }

    #[test]
    fn an_unreachable_message_keeps_its_direction() {
        let (there, _) = Key::icmp([1; 16], [2; 16], 3, 1, 1, 0, 0);
        let (back, _) = Key::icmp([2; 16], [1; 16], 3, 1, 1, 0, 0);
        assert_ne!(there, back);
    }
}

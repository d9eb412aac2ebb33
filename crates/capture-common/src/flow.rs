//! Keys: what makes packets belong to one conversation.

use crate::{
    dissect::Headers,
    facts::{Tunnel, tunnel},
};

const FIRST_BIT: u64 = 1 << 63;
/// Upper half of addresses that nobody has (RFC 4291 section 2.7: reserved flags and scope of a multicast address).
const OVERFLOW: u64 = u64::MAX;

/// Which end of a flow, in the order of its key: `A` has the lower (address, port).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end that comes first in the key.
    A,
    /// The end that comes second in the key.
    B,
}

impl Side {
    /// The other end.
    #[inline(always)]
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// An IP address as two halves in host order; IPv4 is mapped (`::ffff:a.b.c.d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct Address {
    /// The first eight bytes.
    pub high: u64,
    /// The last eight bytes.
    pub low: u64,
}

impl Address {
    /// Maps an IPv4 address in host order.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(address: u32) -> Self {
        Self { high: 0, low: 0xffff_0000_0000 | address as u64 }
    }

    /// `::` or `0.0.0.0`: the sender has no address yet.
    #[inline(always)]
    #[must_use]
    pub const fn is_unspecified(self) -> bool {
        self.high == 0 && (self.low == 0 || self.low == 0xffff_0000_0000)
    }
}

/// A conversation: both directions have the same key.
///
/// 40 bytes without padding, because the kernel hashes and compares it as memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct FlowKey {
    /// Address of side A.
    pub a: Address,
    /// Address of side B.
    pub b: Address,
    /// Port of side A; 0 where the protocol has none. ICMP: see [`crate::icmp::ports`].
    pub a_port: u16,
    /// Port of side B.
    pub b_port: u16,
    /// Upper 8 bits: IANA protocol number. Lower 24: VLAN, the outer id in bits 0 to 11, the inner in bits 12 to 23; 0 = untagged.
    /// Of a flow in a tunnel: the tunnel's network identifier.
    protocol_vlan: u32,
}

impl FlowKey {
    /// The key of a packet, and the side that sent it.
    #[inline(always)]
    #[must_use]
    pub fn new(headers: &Headers) -> (Self, Side) {
        let tunnel = &headers.tunnel;
        let scope = if tunnel.kind == 0 { headers.vlan } else { scope_of(tunnel) };
        let protocol_vlan = u32::from(headers.protocol) << 24 | scope;
        let (mut key, side) = if in_order(headers) {
            let key = Self {
                a: headers.src,
                b: headers.dst,
                a_port: headers.src_port,
                b_port: headers.dst_port,
                protocol_vlan,
            };
            (key, Side::A)
        } else {
            let key = Self {
                a: headers.dst,
                b: headers.src,
                a_port: headers.dst_port,
                b_port: headers.src_port,
                protocol_vlan,
            };
            (key, Side::B)
        };
        if tunnel.kind != 0 {
            key.mark(tunnel.kind);
        }
        (key, side)
    }

    /// What a packet counts to when the table has no room for its flow: all such of its protocol and lower port, per hook.
    #[inline(always)]
    #[must_use]
    pub fn overflow(headers: &Headers, hook: u32) -> Self {
        let port = if headers.src_port < headers.dst_port { headers.src_port } else { headers.dst_port };
        Self {
            a: Address { high: OVERFLOW, low: u64::from(hook) },
            b: Address { high: OVERFLOW, low: 0 },
            a_port: 0,
            b_port: port,
            protocol_vlan: u32::from(headers.protocol) << 24,
        }
    }

    /// Whether this is such a key: its addresses are none.
    #[inline(always)]
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        self.a.high == OVERFLOW && self.b.high == OVERFLOW
    }

    /// The key of the flow in a tunnel as it is inside: without the marks that keep it apart from the same addresses elsewhere.
    #[must_use]
    pub fn inside(mut self, kind: u32) -> Self {
        if kind != 0 {
            self.mark(kind);
            self.protocol_vlan &= 0xff00_0000;
        }
        self
    }

    /// The key of the same flow where addresses are apart from the same ones elsewhere: `mask` is a secret that each such place has of its own, so no two
    /// flows of different places have one key but by chance (1 in 2^64). Done twice it does nothing, and with 0 too.
    #[inline(always)]
    pub fn apart(&mut self, mask: u64) {
        self.b.high ^= mask;
    }

    /// Turns the first bit of one address or both, which makes addresses in ranges that are not assigned to anybody; done twice it does nothing.
    #[inline(always)]
    fn mark(&mut self, kind: u32) {
        if kind != tunnel::GENEVE {
            self.a.high ^= FIRST_BIT;
        }
        if kind != tunnel::VXLAN {
            self.b.high ^= FIRST_BIT;
        }
    }

    /// A number that differs between keys, for the place of recent flows. Whoever chooses addresses can make two equal: all that this costs is a lookup.
    #[inline(always)]
    #[must_use]
    pub fn spread(&self) -> u32 {
        const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
        let ends = u64::from(self.protocol_vlan) << 32 | u64::from(self.b_port) << 16 | u64::from(self.a_port);
        let mut mixed = 0u64;
        for word in [self.a.high.wrapping_add(self.a.low), self.b.high.wrapping_add(self.b.low), ends] {
            mixed = (mixed ^ mixed >> 32 ^ word).wrapping_mul(MULTIPLIER);
        }
        (mixed >> 32) as u32
    }

    /// IANA number of the upper layer's protocol.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        (self.protocol_vlan >> 24) as u8
    }

    /// The outer VLAN id in bits 0 to 11, the inner in bits 12 to 23; 0 = untagged.
    #[inline(always)]
    #[must_use]
    pub fn vlan(&self) -> u32 {
        self.protocol_vlan & 0x00ff_ffff
    }

    /// Address and port of one side.
    #[inline(always)]
    #[must_use]
    pub fn end(&self, side: Side) -> (Address, u16) {
        match side {
            Side::A => (self.a, self.a_port),
            Side::B => (self.b, self.b_port),
        }
    }
}

/// What tells flows with the same addresses in different tunnels apart, in the place of the VLAN: 24 bits.
#[inline(always)]
fn scope_of(tunnel: &Tunnel) -> u32 {
    if tunnel.kind == tunnel::VXLAN || tunnel.kind == tunnel::GENEVE { tunnel.id & 0x00ff_ffff } else { tunnel.kind }
}

#[inline(always)]
fn in_order(headers: &Headers) -> bool {
    let (src, dst) = (&headers.src, &headers.dst);
    if src.high != dst.high {
        src.high < dst.high
    } else if src.low != dst.low {
        src.low < dst.low
    } else {
        headers.src_port <= headers.dst_port
    }
}

/// What the fragments of one datagram have in common (RFC 791, RFC 8200 section 4.5). Directed, unlike [`FlowKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// Who sent the datagram.
    pub src: Address,
    /// Whom it is for.
    pub dst: Address,
    /// Identification; IPv4 uses the lower 16 bits.
    pub id: u32,
    /// As in [`FlowKey`].
    pub protocol_vlan: u32,
}

impl FragmentKey {
    /// The key of a fragment.
    #[inline(always)]
    #[must_use]
    pub fn new(headers: &Headers, id: u32) -> Self {
        let protocol_vlan = u32::from(headers.protocol) << 24 | headers.vlan;
        Self { src: headers.src, dst: headers.dst, id, protocol_vlan }
    }

    /// As [`FlowKey::apart`].
    #[inline(always)]
    pub fn apart(&mut self, mask: u64) {
        self.dst.high ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn headers()(src in 0..3u64, dst in 0..3u64, src_port in 0..3u16, dst_port in 0..3u16, protocol: u8, vlan in 0..1u32 << 24) -> Headers {
            Headers {
                src: Address { high: src, low: 7 }, dst: Address { high: dst, low: 7 },
                src_port, dst_port, protocol, vlan, ..Headers::default()
            }
        }
    }

    fn reply(headers: &Headers) -> Headers {
        Headers {
            src: headers.dst,
            dst: headers.src,
            src_port: headers.dst_port,
            dst_port: headers.src_port,
            ..*headers
        }
    }

    proptest! {
        #[test]
        fn both_directions_have_one_key_and_opposite_sides(packet in headers()) {
            let (key, side) = FlowKey::new(&packet);
            let (reply_key, reply_side) = FlowKey::new(&reply(&packet));
            prop_assert_eq!(key, reply_key);
            let to_itself = packet.src == packet.dst && packet.src_port == packet.dst_port;
            prop_assert_eq!(reply_side, if to_itself { Side::A } else { side.other() });
        }

        #[test]
        fn a_key_gives_back_what_it_was_made_of(packet in headers()) {
            let (key, side) = FlowKey::new(&packet);
            prop_assert_eq!(key.end(side), (packet.src, packet.src_port));
            prop_assert_eq!(key.end(side.other()), (packet.dst, packet.dst_port));
            prop_assert_eq!(key.protocol(), packet.protocol);
            prop_assert_eq!(key.vlan(), packet.vlan);
        }
    }

    proptest! {
        #[test]
        fn tunnels_keep_the_same_addresses_apart(packet in headers(), kinds in (0u32..6, 0u32..6), ids in (0u32..3, 0u32..3)) {
            let wrapped = |kind, id| Headers { tunnel: Tunnel { kind, id, ..Tunnel::default() }, vlan: 0, ..packet };
            let (first, side) = FlowKey::new(&wrapped(kinds.0, ids.0));
            let (second, _) = FlowKey::new(&wrapped(kinds.1, ids.1));
            let named = |kind| kind == tunnel::VXLAN || kind == tunnel::GENEVE;
            let same = kinds.0 == kinds.1 && (!named(kinds.0) || ids.0 == ids.1);
            prop_assert_eq!(first == second, same);
            let inside = first.inside(kinds.0);
            prop_assert_eq!(inside.end(side), (packet.src, packet.src_port));
            prop_assert_eq!(inside.end(side.other()), (packet.dst, packet.dst_port));
            prop_assert_eq!((inside.protocol(), inside.vlan()), (packet.protocol, 0));
        }
    }

    proptest! {
        #[test]
        fn places_apart_have_other_keys_and_give_the_flow_back(packet in headers(), masks in (any::<u64>(), any::<u64>())) {
            let (key, side) = FlowKey::new(&packet);
            let masked = |mask| { let mut key = key; key.apart(mask); key };
            prop_assert_eq!(masked(masks.0) == masked(masks.1), masks.0 == masks.1);
            let mut back = masked(masks.0);
            back.apart(masks.0);
            prop_assert_eq!(back.end(side), (packet.src, packet.src_port));
            prop_assert_eq!(masked(0), key);
        }
    }

    #[test]
    fn neighbours_spread_over_the_places_of_recent_flows() {
        let key = |number: u32| {
            let packet = Headers {
                src: Address::from_v4(0x0a00_0001 + number % 16),
                dst: Address::from_v4(0x0a00_0100 + number / 16 % 16),
                src_port: 32_768 + (number / 256) as u16,
                dst_port: 443,
                protocol: 6,
                ..Headers::default()
            };
            FlowKey::new(&packet).0
        };
        let mut places = [0u8; 1 << 12];
        for number in 0..1 << 12 {
            places[(key(number).spread() & 0xfff) as usize] += 1;
        }
        // Of as many flows as places, three in four find room, as they would at random.
        let found: u32 = places.iter().map(|&count| u32::from(count.min(2))).sum();
        assert!(found > 3 << 10, "{found} of 4096");
    }

    #[test]
    fn keys_have_no_padding() {
        assert_eq!(size_of::<FlowKey>(), 40);
        assert_eq!(size_of::<FragmentKey>(), 40);
    }
}

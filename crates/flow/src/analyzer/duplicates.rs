//! Packets that the capture has more than once: a mirror port that copies both directions of both its ports, or a capture of all interfaces
//! of a host that passes packets on. They were sent once.

use super::Place;
use crate::bytes::{array_at, u8_at, u16_at};
use crate::packet::ip::protocol;
use crate::packet::transport::flags;

/// Rows of packets that are remembered; a copy comes close behind.
const ROWS: usize = 1024;
/// Packets of a row; the oldest one makes room. With several, of a thousand packets between two copies hardly one takes another's place.
const COLUMNS: usize = 4;
/// Longest time between copies of a packet that has an identification of its own.
const WINDOW_US: u64 = 50_000;
/// The same for one that has none: nobody sends it again so soon.
const WINDOW_WITHOUT_ID_US: u64 = 1000;
/// Bytes that are compared. They hold the checksum of the transport layer, and so stand for the payload.
const PREFIX: usize = 64;

/// What a packet is to the capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// Seen for the first time.
    First,
    /// Seen again.
    Again,
    /// Seen again with another hop limit: on the other side of a router.
    Routed,
}

/// The last packets.
#[derive(Debug)]
pub(super) struct Recent {
    rows: Box<[Row]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    prints: [u64; COLUMNS],
    seen: [Seen; COLUMNS],
    /// Where the next one goes.
    next: u8,
}

impl Row {
    /// The place of a packet, made if need be.
    fn place(&mut self, print: u64) -> &mut Seen {
        let known = self.prints.iter().position(|known| *known == print);
        let at = known.unwrap_or_else(|| {
            let at = usize::from(self.next);
            self.next = (self.next + 1) % COLUMNS as u8;
            (self.prints[at], self.seen[at]) = (print, Seen::default());
            at
        });
        &mut self.seen[at]
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Of the first copy.
    time: u64,
    /// Of the last copy.
    frame: u64,
    place: u64,
    hop_limit: u8,
}

/// A frame and its network layer.
pub(super) struct Candidate<'a> {
    pub(super) frame: u64,
    /// What is before the network layer.
    pub(super) link: &'a [u8],
    pub(super) packet: &'a [u8],
    pub(super) wire_length: u32,
}

impl Default for Recent {
    fn default() -> Self {
        Self { rows: vec![Row::default(); ROWS].into() }
    }
}

impl Recent {
    /// Remembers a packet, and says whether it is one of the last ones. The hop limit, and the checksum that it is in, may differ.
    ///
    /// An IPv4 identification makes a packet one of a kind. What has none (IPv6, and IPv4 with 0) is a copy only where it was seen at
    /// another place, by interface, link header or hop limit, or where a segment with data follows itself at once: acknowledgements and
    /// datagrams may be sent several times as they are.
    pub(super) fn judge(&mut self, at: Place, packet: &Candidate<'_>) -> Copy {
        let Some(traits) = Traits::of(packet.packet) else { return Copy::First };
        let print = print(&traits.block, u64::from(packet.wire_length) << 32 | u64::from(at.vlan));
        let place = if traits.has_id { 0 } else { place(at, packet.link, traits.hop_limit) };
        let seen = self.rows[print as usize % ROWS].place(print);
        let apart = at.time.abs_diff(seen.time);
        let follows_itself = traits.takes_sequence && packet.frame == seen.frame + 1;
        let is_copy = seen.frame > 0
            && if traits.has_id {
                apart <= WINDOW_US
            } else {
                apart <= WINDOW_WITHOUT_ID_US && (place != seen.place || follows_itself)
            };
        if !is_copy {
            let hop_limit = traits.hop_limit;
            *seen = Seen { time: at.time, frame: packet.frame, place, hop_limit };
            return Copy::First;
        }
        (seen.frame, seen.place) = (packet.frame, place);
        if seen.hop_limit == traits.hop_limit { Copy::Again } else { Copy::Routed }
    }
}

/// What is looked at.
struct Traits {
    /// The first bytes, without what routers change.
    block: [u8; PREFIX],
    hop_limit: u8,
    has_id: bool,
    /// A segment with data, SYN or FIN.
    takes_sequence: bool,
}

impl Traits {
    fn of(packet: &[u8]) -> Option<Self> {
        // Most packets have so many bytes, and a copy whose length is known is none at all.
        let mut block = array_at(packet, 0).unwrap_or_else(|| {
            let mut block = [0; PREFIX];
            block[..packet.len()].copy_from_slice(packet);
            block
        });
        match block[0] >> 4 {
            4 => {
                let hop_limit = std::mem::take(&mut block[8]);
                (block[10], block[11]) = (0, 0);
                let (has_id, header) = (block[4] != 0 || block[5] != 0, usize::from(block[0] & 0x0f) * 4);
                let total = usize::from(u16_at(packet, 2)?);
                let takes_sequence = !has_id && block[9] == protocol::TCP && takes_sequence(packet, header, total);
                Some(Self { block, hop_limit, has_id, takes_sequence })
            }
            6 => {
                let hop_limit = std::mem::take(&mut block[7]);
                let total = usize::from(u16_at(packet, 4)?) + 40;
                let takes_sequence = block[6] == protocol::TCP && takes_sequence(packet, 40, total);
                Some(Self { block, hop_limit, has_id: false, takes_sequence })
            }
            _ => None,
        }
    }
}

fn takes_sequence(packet: &[u8], header: usize, total: usize) -> bool {
    let (Some(offset), Some(set)) = (u8_at(packet, header + 12), u8_at(packet, header + 13)) else { return false };
    set & (flags::SYN | flags::FIN) != 0 || total > header + usize::from(offset >> 4) * 4
}

/// Where a packet without an identification was seen.
fn place(at: Place, link: &[u8], hop_limit: u8) -> u64 {
    const LINK: usize = 32;
    let mut bytes = [0; LINK];
    let length = link.len().min(LINK);
    bytes[..length].copy_from_slice(&link[..length]);
    print(&bytes, u64::from(at.interface) << 8 | u64::from(hop_limit))
}

/// A number that differs between different bytes; their length is a multiple of sixteen. The products do not wait for each other.
fn print<const BYTES: usize>(bytes: &[u8; BYTES], seed: u64) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    };
    let (mut all, mut salt) = (0, seed ^ ODD);
    for pair in bytes.as_chunks::<16>().0 {
        let both = u128::from_le_bytes(*pair);
        all ^= fold(both as u64 ^ salt, (both >> 64) as u64 ^ salt.rotate_left(32));
        salt = salt.wrapping_add(ODD);
    }
    fold(all ^ ODD, ODD)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Place = Place { time: 1_000_000, interface: 1, vlan: 0, tunnel: 0, ends: 0, depth: 0 };

    fn v4(id: u16, hop_limit: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 44, 0, 0, 0, 0, hop_limit, 6, hop_limit, 9, 10, 0, 0, 1, 10, 0, 0, 2];
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet.extend([0, 80, 1, 1, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x18, 1, 0, 3, 3, 0, 0, 1, 2, 3, 4]);
        packet
    }

    fn v6(data: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 20 + data.len() as u8, 6, 64];
        packet.extend([1; 32]);
        packet.extend([0, 80, 1, 1, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x10, 1, 0, 3, 3, 0, 0]);
        packet.extend(data);
        packet
    }

    struct Capture(Recent, u64);

    impl Capture {
        fn sees(&mut self, at: Place, link: &[u8], packet: &[u8]) -> Copy {
            self.1 += 1;
            self.0.judge(at, &Candidate { frame: self.1, link, packet, wire_length: packet.len() as u32 })
        }
    }

    #[test]
    fn a_packet_with_an_identification_is_a_copy_within_50_ms() {
        let mut capture = Capture(Recent::default(), 0);
        let later = |us| Place { time: ANY.time + us, ..ANY };
        assert_eq!(capture.sees(ANY, &[1], &v4(7, 64)), Copy::First);
        assert_eq!(capture.sees(later(10), &[1], &v4(7, 64)), Copy::Again);
        assert_eq!(
            capture.sees(later(20), &[2], &v4(7, 63)),
            Copy::Routed,
            "the checksum has changed with the hop limit"
        );
        assert_eq!(capture.sees(later(30), &[1], &v4(8, 64)), Copy::First, "sent again, the packet has another one");
        assert_eq!(capture.sees(later(50_001), &[1], &v4(7, 64)), Copy::First);
        assert_eq!(capture.sees(Place { vlan: 5, ..later(50_002) }, &[1], &v4(7, 64)), Copy::First, "another flow");
    }

    #[test]
    fn hundreds_of_packets_between_copies_hide_hardly_one() {
        let mut capture = Capture(Recent::default(), 0);
        let copies =
            (0..2).map(|_| (1..=500).filter(|id| capture.sees(ANY, &[1], &v4(*id, 64)) == Copy::Again).count());
        let copies: Vec<usize> = copies.collect();
        assert!(copies[0] == 0 && copies[1] >= 495, "{copies:?}");
    }

    #[test]
    fn a_packet_without_an_identification_is_a_copy_at_another_place_only() {
        let mut capture = Capture(Recent::default(), 0);
        let (ack, data) = (v6(&[]), v6(&[1, 2]));
        assert_eq!(capture.sees(ANY, &[1], &ack), Copy::First);
        assert_eq!(capture.sees(ANY, &[1], &ack), Copy::First, "a duplicate acknowledgement");
        assert_eq!(capture.sees(ANY, &[2], &ack), Copy::Again);
        assert_eq!(capture.sees(Place { interface: 2, ..ANY }, &[2], &ack), Copy::Again);
        assert_eq!(capture.sees(ANY, &[1], &data), Copy::First);
        assert_eq!(capture.sees(ANY, &[1], &data), Copy::Again, "nobody sends data twice without a pause");
        assert_eq!(capture.sees(ANY, &[1], &ack), Copy::Again);
        assert_eq!(capture.sees(ANY, &[1], &data), Copy::First, "something came in between");
        let late = Place { time: ANY.time + 1001, interface: 9, ..ANY };
        assert_eq!(capture.sees(late, &[1], &v4(0, 64)), Copy::First);
        assert_eq!(capture.sees(ANY, &[1], &[]), Copy::First);
        assert_eq!(capture.sees(ANY, &[1], &[0x45]), Copy::First);
    }
}

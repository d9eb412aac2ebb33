//! Packets and bytes on the wire, where the kernel handles many packets as one (GSO on the way out, GRO on the way in).

/// What one `sk_buff` is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Packets.
    pub packets: u64,
    /// IP bytes: from the network header to the end of its payload, headers counted once per packet.
    pub bytes: u64,
}

/// The size on the wire of a packet that the kernel shows as `ip_bytes` long.
///
/// - `header_bytes`: network and transport header, which every segment repeats
/// - `segments`: `gso_segs` of the `sk_buff`; 0 where the kernel has not counted (`SKB_GSO_DODGY`: from a guest or a raw socket)
/// - `segment_size`: `gso_size`, the payload of each segment but the last; 0 = not a super-packet
#[inline(always)]
#[must_use]
pub fn size(ip_bytes: u32, header_bytes: u32, segments: u32, segment_size: u32) -> Size {
    if segment_size == 0 {
        return Size { packets: 1, bytes: u64::from(ip_bytes) };
    }
    let payload = ip_bytes.saturating_sub(header_bytes);
    let packets = if segments == 0 { payload.div_ceil(segment_size) } else { segments };
    let packets = if packets == 0 { 1 } else { packets };
    Size { packets: u64::from(packets), bytes: u64::from(ip_bytes) + u64::from(packets - 1) * u64::from(header_bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_ordinary_packet_is_itself() {
        assert_eq!(size(1500, 52, 0, 0), Size { packets: 1, bytes: 1500 });
        assert_eq!(size(1500, 52, 1, 0), Size { packets: 1, bytes: 1500 });
    }

    #[test]
    fn a_super_packet_of_unknown_count_is_cut_by_its_segment_size() {
        assert_eq!(size(52 + 2 * 1448 + 1, 52, 0, 1448), Size { packets: 3, bytes: 3 * 52 + 2 * 1448 + 1 });
    }

    #[test]
    fn a_super_packet_without_payload_is_one_packet() {
        assert_eq!(size(40, 52, 0, 1448), Size { packets: 1, bytes: 40 });
    }

    proptest! {
        #[test]
        fn the_sum_of_the_segments_is_the_size_of_the_super_packet(payload in 1u32..200_000, header in 20u32..120, segment in 1u32..9000, counted: bool) {
            let (mut packets, mut bytes, mut left) = (0u32, 0u64, payload);
            while left > 0 {
                let this = left.min(segment);
                packets += 1;
                bytes += u64::from(header + this);
                left -= this;
            }
            let known = if counted { packets } else { 0 };
            prop_assert_eq!(size(header + payload, header, known, segment), Size { packets: u64::from(packets), bytes });
        }
    }
}

//! The bytes of a TCP connection in their order.

use weir_flow::stream::Reassembler;

/// The byte that every segment has at this place, so that what comes out can be held against it.
fn byte_at(sequence: u32) -> u8 {
    (sequence.wrapping_mul(0x9e37_79b1) >> 24) as u8
}

/// Bytes 0 to 3: where the stream begins; then for each segment a choice, two bytes of distance and two of length.
pub(crate) fn run(data: &[u8]) {
    let Some((start, rest)) = data.split_first_chunk::<4>() else { return };
    let start = u32::from_le_bytes(*start);
    let mut stream = Reassembler::after_syn(start.wrapping_sub(1));
    let mut expected = start;
    for part in rest.chunks_exact(5) {
        let distance = i32::from(i16::from_le_bytes([part[1], part[2]]));
        let from = expected.wrapping_add_signed(distance);
        let length = u32::from(u16::from_le_bytes([part[3], part[4]])) % 3000;
        let bytes: Vec<u8> = (0..length).map(|offset| byte_at(from.wrapping_add(offset))).collect();
        stream.push(from, &bytes, part[0] & 1 == 0, &mut |given: &[u8]| {
            for byte in given {
                assert_eq!(*byte, byte_at(expected), "a byte is not in its place");
                expected = expected.wrapping_add(1);
            }
        });
        assert!(stream.held_bytes() <= 64 << 10);
        assert!(stream.is_lost() || stream.next() == Some(expected), "what was given and what is next differ");
    }
}

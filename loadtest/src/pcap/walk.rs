//! The least that anyone can do with a capture: walk over its packets and count them into a hash table by their 5-tuples.

use std::io::{self, Read};

use hashbrown::HashMap;

/// What the walk counted.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) packets: u64,
    pub(super) flows: usize,
}

/// Addresses, ports, protocol.
type Tuple = (u32, u32, u16, u16, u8);

/// Bytes that are read at once: no more than the caches keep until they are walked over.
const BUFFER: usize = 256 << 10;

/// Walks over a classic capture of this machine's byte order with IPv4 in Ethernet, as `make` writes it.
pub(super) fn walk(mut capture: impl Read) -> io::Result<Walk> {
    let mut flows: HashMap<Tuple, (u64, u64)> = HashMap::new();
    let (mut packets, mut buffer, mut filled) = (0, vec![0; BUFFER], 0);
    capture.read_exact(&mut [0; 24])?;
    loop {
        if filled == buffer.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet is longer than what is read at once"));
        }
        let read = capture.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(Walk { packets, flows: flows.len() });
        }
        filled += read;
        let mut rest = &buffer[..filled];
        while let Some((header, after)) = rest.split_at_checked(16) {
            let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
            let Some((frame, next)) = after.split_at_checked(length) else { break };
            (packets, rest) = (packets + 1, next);
            if let Some((tuple, bytes)) = tuple(frame) {
                let flow = flows.entry(tuple).or_default();
                *flow = (flow.0 + 1, flow.1 + u64::from(bytes));
            }
        }
        // What was not walked over is the beginning of a packet.
        let left = rest.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
    }
}

/// The same for both directions of a flow.
fn tuple(frame: &[u8]) -> Option<(Tuple, u16)> {
    let header = frame.get(12..34)?;
    if header[..3] != [8, 0, 0x45] {
        return None;
    }
    let ports = frame.get(34..38)?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (src, dst) = ((word(14), [ports[0], ports[1]]), (word(18), [ports[2], ports[3]]));
    let (low, high) = if src < dst { (src, dst) } else { (dst, src) };
    let tuple = (low.0, high.0, u16::from_be_bytes(low.1), u16::from_be_bytes(high.1), header[11]);
    Some((tuple, u16::from_be_bytes([header[4], header[5]])))
}

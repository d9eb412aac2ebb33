//! Fragments of IP packets.

use weir_flow::fragments::{Datagram, Fragments, Limits, Waiting};
use weir_flow::packet::Fragment;
use weir_flow::{Endpoint, Key};

use crate::script::steps;

const LIMITS: Limits = Limits { entries: 8, bytes: 20_000, timeout_us: 1000 };

/// Steps of fragments: the choice is the identification, the first four bytes of a step its offset, flags and the time since the last one.
pub(crate) fn run(data: &[u8]) {
    let ((), most) = crate::heap::most(|| counted(data));
    assert!(most < 1 << 20, "{most} bytes on the heap");
}

fn counted(data: &[u8]) {
    let mut table = Fragments::new(LIMITS);
    let (mut given, mut back, mut now) = (0, 0, 0);
    for step in steps(data) {
        let Some(([low, high, flags, pause], bytes)) = step.bytes.split_first_chunk::<4>() else { continue };
        now += u64::from(*pause) * 8;
        let id = u32::from(step.choice % 16);
        let end = |last: u8, port| Endpoint { ip: [last; 16], port };
        let datagram = Datagram { src: [1; 16], dst: [2; 16], protocol: 17, id, vlan: 0, tunnel: 0 };
        let fragment =
            Fragment { id, offset: u32::from(u16::from_le_bytes([*low, *high]) & 0x1fff) * 8, more: flags & 1 != 0 };
        table.expire(now);
        if fragment.offset == 0 {
            let (key, direction) = Key::new(end(1, 5), end(2, 53), 17, 0, 0);
            back += table.name(now, datagram, (key, direction, (5, 53))).len();
            table.read_start(now, datagram);
        } else {
            given += 1;
            let waiting = Waiting { time: now, length: bytes.len() as u32, protocol: 17, interface: 0, tunnel_ends: 0 };
            back += usize::from(table.find(now, datagram, waiting).is_some());
        }
        if let Some(whole) = table.push(now, datagram, fragment, bytes, flags & 2 != 0, 17) {
            assert!(whole.bytes.len() <= 65_535);
        }
        back += table.take_orphans().len();
        let _ = (table.take_contradiction(&datagram), table.take_incomplete(), table.take_starts());
    }
    while table.finish_some() {
        let _ = (table.take_incomplete(), table.take_starts());
        back += table.take_orphans().len();
    }
    back += table.take_orphans().len();
    assert_eq!(given, back, "each fragment is counted once");
}

//! Which protocol a payload is, and RTP.

use weir_flow::{app, rtp};

use crate::script::steps;

/// Byte 0 to 3: ports; the rest: a payload, and then the same as steps of RTP.
pub(crate) fn run(data: &[u8]) {
    let Some((ports, payload)) = data.split_at_checked(4) else { return };
    let (src, dst) = (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]));
    let datagram = app::of_single_datagram(src, dst, payload);
    assert_eq!(datagram, app::of_single_datagram(src, dst, payload));
    if app::of_stream(payload) == app::Verdict::Undecided {
        assert!(payload.len() < app::MOST, "a payload as long as the longest one has to be decided");
    }
    let mut stream = rtp::Stream::default();
    let mut time = 0;
    for step in steps(payload) {
        if rtp::may_be_rtp(step.bytes) {
            stream.push(time, step.bytes);
        }
        time += u64::from(step.choice) * 1000;
    }
    assert!(stream.is_certain() || stream.jitter_us().is_none());
}

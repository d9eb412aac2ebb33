//! A message of the bus as a batch.

use weir_bus::{decode_batch, encode_batch};

/// Byte 0: whether it is compressed; the rest: the payload.
pub(crate) fn run(data: &[u8]) {
    let Some((&first, payload)) = data.split_first() else { return };
    let plain = |name: &str| (name == weir_bus::names::VERSION_HEADER).then_some("1");
    let packed = |name: &str| if name == weir_bus::names::ENCODING_HEADER { Some("zstd") } else { plain(name) };
    let decoded = if first & 1 == 0 { decode_batch(payload, plain) } else { decode_batch(payload, packed) };
    if let Ok(batch) = decoded {
        let again = decode_batch(&encode_batch(&batch), packed).expect("what was a batch is one");
        // Through its text, because what is not a number is not equal to itself.
        assert_eq!(format!("{again:?}"), format!("{batch:?}"));
    }
}

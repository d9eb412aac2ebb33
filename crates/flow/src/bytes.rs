//! Reading big-endian fields from a slice that may be too short.

/// The byte at `offset`.
pub(crate) fn u8_at(data: &[u8], offset: usize) -> Option<u8> {
    data.get(offset).copied()
}

/// Two bytes at `offset` in network order.
pub(crate) fn u16_at(data: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(array_at(data, offset)?))
}

/// Three bytes at `offset` in network order.
pub(crate) fn u24_at(data: &[u8], offset: usize) -> Option<u32> {
    let [a, b, c] = array_at(data, offset)?;
    Some(u32::from_be_bytes([0, a, b, c]))
}

/// Four bytes at `offset` in network order.
pub(crate) fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(array_at(data, offset)?))
}

/// `N` bytes at `offset`.
pub(crate) fn array_at<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// What follows the first `offset` bytes; empty where there is nothing.
pub(crate) fn after(data: &[u8], offset: usize) -> &[u8] {
    data.get(offset..).unwrap_or_default()
}

/// The first `length` bytes, or all where there are fewer.
pub(crate) fn up_to(data: &[u8], length: usize) -> &[u8] {
    &data[..data.len().min(length)]
}

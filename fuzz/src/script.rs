//! Bytes as steps: what comes, from whom, and when.

/// One step: a byte of choices, two bytes of length (little endian), and the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    /// What the target makes of it; its lowest bit is the direction.
    pub(crate) choice: u8,
    /// What comes.
    pub(crate) bytes: &'a [u8],
}

/// The steps that some bytes mean; a length beyond the end means what is there.
pub(crate) fn steps(mut bytes: &[u8]) -> impl Iterator<Item = Step<'_>> {
    std::iter::from_fn(move || {
        let [choice, low, high, rest @ ..] = bytes else { return None };
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (step, rest) = rest.split_at(length);
        bytes = rest;
        Some(Step { choice: *choice, bytes: step })
    })
}

/// Writes a step as [`steps`] reads it.
pub(crate) fn write(to: &mut Vec<u8>, choice: u8, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
    to.push(choice);
    to.extend((bytes.len() as u16).to_le_bytes());
    to.extend(bytes);
}

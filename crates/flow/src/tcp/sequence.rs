//! Arithmetic on sequence numbers, which wrap around (RFC 9293 section 3.4).

/// Bytes from `b` on to `a`; negative where `a` comes before `b`.
pub(super) const fn distance(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

/// Whether `a` comes after `b`.
pub(super) const fn after(a: u32, b: u32) -> bool {
    distance(a, b) > 0
}

/// Whether `a` comes before `b`.
pub(super) const fn before(a: u32, b: u32) -> bool {
    distance(a, b) < 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_less_than_half_the_space_ahead_comes_after(start: u32, ahead in 1u32..0x8000_0000) {
            let end = start.wrapping_add(ahead);
            prop_assert!(after(end, start) && before(start, end) && !after(start, end));
            prop_assert!(!after(start, start) && !before(start, start));
        }
    }
}

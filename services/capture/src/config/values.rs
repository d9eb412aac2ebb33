//! Values of options, from text.

use std::{net::IpAddr, time::Duration};

use weir_filter::PacketFilter;

/// The longest interval between drains: no record may cover more than a minute.
const MAX_DRAIN: Duration = Duration::from_secs(30);
/// The shortest: a drain reads the whole table.
const MIN_DRAIN: Duration = Duration::from_millis(50);

pub(super) fn drain_interval(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if (MIN_DRAIN..=MAX_DRAIN).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("must be between {MIN_DRAIN:?} and {MAX_DRAIN:?}"))
    }
}

/// A whole number with a unit: `500ms`, `5s`, `2m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number with a unit: 500ms, 5s, 2m, 1h".to_owned();
    let digits = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(expected()),
    };
    let milliseconds = number.checked_mul(milliseconds).filter(|total| *total > 0).ok_or_else(expected)?;
    Ok(Duration::from_millis(milliseconds))
}

/// The size of a ring buffer: whole pages, and a power of two.
pub(super) fn buffer(text: &str) -> Result<u32, String> {
    let bytes: u32 = text.parse().map_err(|_| "expected a number of bytes".to_owned())?;
    if bytes == 0 || (bytes.is_power_of_two() && (4096..=1 << 28).contains(&bytes)) {
        Ok(bytes)
    } else {
        Err("must be 0 or a power of two between 4096 and 268435456".to_owned())
    }
}

pub(super) fn interface_pattern(text: &str) -> Result<String, String> {
    // IFNAMSIZ is 16 with the final zero; a pattern may be longer than what it matches, but not much.
    let plausible = !text.is_empty()
        && text.len() <= 64
        && !text.contains(|character: char| character == '/' || character.is_whitespace() || character.is_control());
    if plausible { Ok(text.to_owned()) } else { Err("is no name of an interface".to_owned()) }
}

/// A filter that the kernel can evaluate.
pub(super) fn packet_filter(text: &str) -> Result<String, String> {
    PacketFilter::read(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// An address, or one with the number of bits that count.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let plausible = address.parse::<IpAddr>().is_ok_and(|address| {
        let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
        length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= bits))
    });
    if plausible { Ok(text.to_owned()) } else { Err("is no address or prefix".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        for bad in ["", "5", "s", "-1s", "1.5s", "0s", "99999999999999999999s", "18446744073709551615h", "5d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn buffers_are_powers_of_two() {
        assert_eq!((buffer("0"), buffer("4096"), buffer("1048576")), (Ok(0), Ok(4096), Ok(1 << 20)));
        for bad in ["", "1", "2048", "5000", "1MB", "536870912", "-4096"] {
            assert!(buffer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_are_of_either_family() {
        for good in ["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1", "0.0.0.0/0"] {
            assert!(prefix(good).is_ok(), "{good}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0.0/", "::/129", "web", "10.0.0.0/8/8"] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }
}

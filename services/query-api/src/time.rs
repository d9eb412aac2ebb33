//! Moments and spans as requests name them.

use jiff::{SignedDuration, Timestamp};

use crate::Error;

/// From the first moment (inclusive) to the last (exclusive), microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

/// What is asked for when nothing is said.
const DEFAULT: SignedDuration = SignedDuration::from_hours(1);
/// `DateTime64(6)` reaches to the year 2299.
const LAST: i64 = 10_413_791_999_999_999;

impl Range {
    /// Reads `from` and `to`; the last hour where they are absent.
    pub(crate) fn read(from: Option<&str>, to: Option<&str>, now: Timestamp) -> Result<Self, Error> {
        let to = to.map_or(Ok(now), |text| moment("to", text, now))?;
        let from = match from {
            Some(text) => moment("from", text, now)?,
            None => to.checked_sub(DEFAULT).map_err(|_| Error::parameter("to", "this is before all time"))?,
        };
        let range = Self { from: from.as_microsecond(), to: to.as_microsecond() };
        if range.from >= range.to {
            return Err(Error::parameter("from", "from must be before to"));
        }
        if range.from < 0 || range.to > LAST {
            return Err(Error::parameter("from", "times reach from 1970 to 2299"));
        }
        Ok(range)
    }

    /// Its length in seconds, rounded up.
    pub(crate) fn seconds(self) -> i64 {
        (self.to - self.from).div_ceil_micros()
    }
}

trait DivCeilMicros {
    fn div_ceil_micros(self) -> i64;
}

impl DivCeilMicros for i64 {
    fn div_ceil_micros(self) -> i64 {
        self / 1_000_000 + i64::from(self % 1_000_000 != 0)
    }
}

/// `2026-01-31T12:00:00Z`, `now`, `-15m`.
fn moment(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, Error> {
    let wrong = || {
        let text: String = text.chars().take(60).collect();
        Error::parameter(name, format!("{text:?} is no time: RFC 3339, or relative to now such as -15m, -2h, -7d"))
    };
    if text == "now" {
        return Ok(now);
    }
    if let Some(span) = text.strip_prefix('-') {
        return now.checked_sub(self::span(span).ok_or_else(wrong)?).map_err(|_| wrong());
    }
    // In a query `+` is a space unless it is escaped, and many do not.
    text.replace(' ', "+").parse().map_err(|_| wrong())
}

/// `90s`, `15m`, `2h`, `7d`, `4w`.
pub(crate) fn span(text: &str) -> Option<SignedDuration> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    digits.parse::<i64>().ok()?.checked_mul(seconds).map(SignedDuration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-06-01T12:00:00Z";

    fn read(from: Option<&str>, to: Option<&str>) -> Result<(i64, i64), Error> {
        let now: Timestamp = NOW.parse().unwrap();
        let range = Range::read(from, to, now)?;
        Ok(((now.as_microsecond() - range.from) / 1_000_000, (now.as_microsecond() - range.to) / 1_000_000))
    }

    #[test]
    fn a_range_is_absolute_or_relative_to_now() {
        assert_eq!(read(None, None).unwrap(), (3600, 0));
        assert_eq!(read(Some("-15m"), None).unwrap(), (900, 0));
        assert_eq!(read(Some("-1d"), Some("-1h")).unwrap(), (86_400, 3600));
        assert_eq!(read(None, Some("2026-06-01T11:00:00Z")).unwrap(), (7200, 3600));
        assert_eq!(read(Some("2026-06-01T13:59:00 02:00"), Some("now")).unwrap(), (60, 0));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for (from, to) in [
            (Some("yesterday"), None),
            (Some("-15"), None),
            (Some("-99999999999999999999d"), None),
            (Some("-9999999w"), None),
            (Some("now"), Some("-1h")),
            (Some("2026-13-01T00:00:00Z"), None),
            (Some("1969-01-01T00:00:00Z"), None),
            (None, Some("9999-01-01T00:00:00Z")),
        ] {
            assert!(read(from, to).is_err(), "{from:?} {to:?}");
        }
    }
}

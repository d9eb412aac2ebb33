//! The kernel stamps packets with `CLOCK_BOOTTIME`; records carry UTC.
//!
//! The offset between the two is sampled once per drain and holds for all records of that drain. When the wall clock is set, records before and
//! after the change differ by the step, as the host's logs do; within one record start and end stay in order, and `flow_id`
//! does not depend on the wall clock. `CLOCK_BOOTTIME` goes on while the host is suspended, so a suspend needs no care.

use std::io;

use nix::time::{ClockId, clock_gettime};

/// Samples to take: the one with the smallest gap between its two readings of the wall clock tells the offset best.
const SAMPLES: usize = 3;

/// Turns kernel times into UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// UTC minus boot time, in nanoseconds.
    offset: i128,
}

impl Clock {
    /// Samples the offset.
    pub fn sample() -> io::Result<Self> {
        let mut best = None;
        for _ in 0..SAMPLES {
            let before = read(ClockId::CLOCK_REALTIME)?;
            let boot = read(ClockId::CLOCK_BOOTTIME)?;
            let after = read(ClockId::CLOCK_REALTIME)?;
            // A clock that was set backwards between the readings gives no sample.
            let gap = after - before;
            if gap >= 0 && best.is_none_or(|(smallest, _)| gap < smallest) {
                best = Some((gap, before + gap / 2 - boot));
            }
        }
        let (_, offset) = best.ok_or_else(|| io::Error::other("the wall clock keeps going backwards"))?;
        Ok(Self { offset })
    }

    /// Microseconds since the Unix epoch; 0 = before it.
    #[must_use]
    pub fn to_utc_us(self, boot_ns: u64) -> u64 {
        u64::try_from((i128::from(boot_ns) + self.offset) / 1000).unwrap_or(0)
    }

    /// The boot time that this was made of, to a microsecond; 0 = before the start.
    #[must_use]
    pub fn to_boot_ns(self, utc_us: u64) -> u64 {
        u64::try_from(i128::from(utc_us) * 1000 + 999 - self.offset).unwrap_or(0)
    }
}

/// `CLOCK_BOOTTIME` in nanoseconds.
pub fn boot_ns() -> io::Result<u64> {
    Ok(u64::try_from(read(ClockId::CLOCK_BOOTTIME)?).unwrap_or(0))
}

/// Microseconds since the Unix epoch.
pub fn utc_us() -> io::Result<u64> {
    Ok(u64::try_from(read(ClockId::CLOCK_REALTIME)? / 1000).unwrap_or(0))
}

fn read(clock: ClockId) -> io::Result<i128> {
    let time = clock_gettime(clock)?;
    Ok(i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn now_is_now() {
        let clock = Clock::sample().unwrap();
        let now = clock.to_utc_us(boot_ns().unwrap());
        let expected = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        assert!(now.abs_diff(expected) < 1_000_000, "{now} is far from {expected}");
    }

    #[test]
    fn nanoseconds_are_cut_to_microseconds() {
        assert_eq!(Clock { offset: 5_000 }.to_utc_us(1_999), 6);
        assert_eq!(Clock { offset: -5_000 }.to_utc_us(1_999), 0);
    }
}

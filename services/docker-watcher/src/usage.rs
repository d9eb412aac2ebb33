//! Rates out of two samples.

/// What a rate needs of the sample before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Start of the life that was sampled, microseconds since 1970.
    pub started_at: u64,
    /// When the engine read the counters, nanoseconds since 1970.
    pub read_ns: i64,
    /// CPU time used since the start, nanoseconds.
    pub cpu_ns: u64,
}

/// CPU use between two samples in percent of one core, or why there is none.
///
/// It is the CPU time that the cgroup was charged, divided by the time between the two readings by the engine's own clock: neither the host's
/// load nor its number of cores is in it, and 200 means two cores.
pub fn cpu_percent(before: Option<&Previous>, now: &Previous) -> Result<f64, &'static str> {
    let Some(before) = before else { return Err("first sample of the container") };
    if before.started_at != now.started_at {
        return Err("first sample since the container started");
    }
    let Some(used) = now.cpu_ns.checked_sub(before.cpu_ns) else {
        return Err("the counter went backwards");
    };
    let elapsed = now.read_ns - before.read_ns;
    if elapsed <= 0 {
        return Err("the engine's clock went backwards or stood still");
    }
    Ok(used as f64 / elapsed as f64 * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn at(read_ns: i64, cpu_ns: u64) -> Previous {
        Previous { started_at: 1, read_ns, cpu_ns }
    }

    #[test]
    fn a_hundred_percent_is_one_core_over_the_last_interval() {
        let before = at(0, 5_000_000_000_000);
        assert_eq!(cpu_percent(Some(&before), &at(10 * SECOND, 5_010_000_000_000)), Ok(100.0));
        assert_eq!(cpu_percent(Some(&before), &at(10 * SECOND, 5_040_000_000_000)), Ok(400.0));
        assert_eq!(cpu_percent(Some(&before), &at(10 * SECOND, 5_003_000_000_000)), Ok(30.0));
        assert_eq!(cpu_percent(Some(&before), &at(10 * SECOND, 5_000_000_000_000)), Ok(0.0));
    }

    #[test]
    fn there_is_none_without_a_sample_before_of_the_same_life() {
        assert!(cpu_percent(None, &at(SECOND, 1)).is_err());
        let other_life = Previous { started_at: 2, ..at(2 * SECOND, 9) };
        assert!(cpu_percent(Some(&at(SECOND, 1)), &other_life).is_err());
    }

    #[test]
    fn there_is_none_when_a_counter_or_a_clock_goes_backwards() {
        assert!(cpu_percent(Some(&at(SECOND, 10)), &at(2 * SECOND, 9)).is_err());
        assert!(cpu_percent(Some(&at(SECOND, 10)), &at(SECOND, 20)).is_err());
        assert!(cpu_percent(Some(&at(SECOND, 10)), &at(0, 20)).is_err());
    }
}

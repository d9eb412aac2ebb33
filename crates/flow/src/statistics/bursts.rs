//! Bursts: what passes in 100 ms, against what usually does.

/// Bursts that are kept.
const KEPT: usize = 32;

/// What passed in one of the 100 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Burst {
    /// When it began, microseconds since the epoch.
    pub time: u64,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Frames.
    pub packets: u64,
    /// Number of its first frame.
    pub first_frame: u64,
}

/// The busiest 100 ms of a capture, and how busy it is otherwise.
#[derive(Clone, Debug, Default)]
pub struct Bursts {
    current: Burst,
    ends: u64,
    buckets: u64,
    bytes: f64,
    squares: f64,
    highest: Vec<Burst>,
}

impl Bursts {
    /// Microseconds of one bucket.
    pub const WIDTH_US: u64 = 100_000;

    pub(crate) fn frame(&mut self, number: u64, time: u64, bytes: u64) {
        // What a clock that stepped back brings counts into the bucket at hand.
        if time >= self.ends {
            self.next(number, time);
        }
        self.current.bytes += bytes;
        self.current.packets += 1;
    }

    /// Counts the last bucket.
    pub(crate) fn finish(&mut self) {
        if self.current.packets > 0 {
            self.close();
        }
        self.current = Burst::default();
    }

    /// The busiest ones, by bytes; of equals the first.
    #[must_use]
    pub fn highest(&self) -> &[Burst] {
        &self.highest
    }

    /// 100 ms from the first frame to the last one.
    #[must_use]
    pub const fn buckets(&self) -> u64 {
        self.buckets
    }

    /// Mean bytes in 100 ms.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.bytes / self.buckets.max(1) as f64
    }

    /// Standard deviation of the bytes in 100 ms.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        let mean = self.mean();
        (self.squares / self.buckets.max(1) as f64 - mean * mean).max(0.0).sqrt()
    }

    fn next(&mut self, number: u64, time: u64) {
        let mut begin = time;
        if self.current.packets > 0 {
            self.close();
            let empty = (time - self.ends) / Self::WIDTH_US;
            self.buckets = self.buckets.saturating_add(empty);
            begin = self.ends + empty * Self::WIDTH_US;
        }
        self.current = Burst { time: begin, first_frame: number, ..Burst::default() };
        self.ends = begin.saturating_add(Self::WIDTH_US);
    }

    fn close(&mut self) {
        self.buckets += 1;
        let bytes = self.current.bytes as f64;
        self.bytes += bytes;
        self.squares += bytes * bytes;
        let at = self.highest.partition_point(|burst| burst.bytes >= self.current.bytes);
        if at < KEPT {
            self.highest.truncate(KEPT - 1);
            self.highest.insert(at, self.current);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_moment_stands_out_of_the_mean() {
        let mut bursts = Bursts::default();
        for n in 0..600u64 {
            bursts.frame(n + 1, 1_000_000 + n * 100_000, 1000);
        }
        for n in 0..50 {
            bursts.frame(601 + n, 1_000_000 + 700 * 100_000 + n, 1500);
        }
        bursts.finish();
        assert_eq!(bursts.buckets(), 701);
        let peak = bursts.highest()[0];
        assert_eq!((peak.bytes, peak.packets, peak.first_frame, peak.time), (75_000, 50, 601, 71_000_000));
        assert!((bursts.mean() - 675_000.0 / 701.0).abs() < 1e-6);
        assert_eq!(bursts.highest().len(), KEPT);
    }
}

//! Throughput over time.

/// Buckets beyond which two become one.
const MAX_BUCKETS: usize = 512;
/// Width of the first buckets, microseconds.
const FIRST_WIDTH_US: u64 = 1000;

/// What passed in one step of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Frames.
    pub packets: u64,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Of the IP packets that are in no tunnel, bytes of TCP, UDP, ICMP (of both versions), and all others.
    pub protocols: [u64; 4],
    /// TCP segments that were sent again.
    pub retransmissions: u64,
}

/// Steps of equal width from the first frame on: between 256 and 512 of them where the capture is longer than half a second, for the width
/// doubles whenever there would be more.
#[derive(Clone, Debug)]
pub struct Series {
    start: u64,
    width: u64,
    buckets: Vec<Bucket>,
    /// The bucket of the last frame and its bounds, because the next frame is nearly always in it too.
    current: usize,
    bounds: (u64, u64),
    /// Frames before the start, which a clock that stepped back made; they are in the first bucket.
    early: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self { start: 0, width: FIRST_WIDTH_US, buckets: Vec::new(), current: 0, bounds: (0, 0), early: 0 }
    }
}

impl Series {
    /// A frame.
    pub(crate) fn frame(&mut self, time: u64, bytes: u64) {
        if !(self.bounds.0..self.bounds.1).contains(&time) {
            self.seek(time);
        }
        let bucket = &mut self.buckets[self.current];
        bucket.packets += 1;
        bucket.bytes += bytes;
    }

    /// An IP packet of the last frame; as in [`Bucket::protocols`].
    pub(crate) fn packet(&mut self, protocol: usize, bytes: u64) {
        if let Some(bucket) = self.buckets.get_mut(self.current) {
            bucket.protocols[protocol & 3] += bytes;
        }
    }

    /// The last frame holds a segment that was sent again.
    pub(crate) fn retransmission(&mut self) {
        if let Some(bucket) = self.buckets.get_mut(self.current) {
            bucket.retransmissions += 1;
        }
    }

    /// Microseconds since the epoch at which the first bucket begins.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Microseconds of one bucket.
    #[must_use]
    pub const fn width(&self) -> u64 {
        self.width
    }

    /// All buckets up to the last frame.
    #[must_use]
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Frames before the start.
    #[must_use]
    pub const fn early(&self) -> u64 {
        self.early
    }

    fn seek(&mut self, time: u64) {
        if self.buckets.is_empty() {
            self.start = time;
        }
        if time < self.start {
            self.early += 1;
        }
        let since = time.saturating_sub(self.start);
        while since / self.width >= MAX_BUCKETS as u64 {
            self.halve();
        }
        let index = (since / self.width) as usize;
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, Bucket::default());
        }
        self.current = index;
        let begin = self.start.saturating_add(index as u64 * self.width);
        self.bounds = (begin, begin.saturating_add(self.width));
    }

    fn halve(&mut self) {
        self.width = self.width.saturating_mul(2);
        let halved = self.buckets.chunks(2).map(|pair| pair.iter().fold(Bucket::default(), Bucket::plus));
        self.buckets = halved.collect();
    }
}

impl Bucket {
    fn plus(mut self, other: &Self) -> Self {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.retransmissions += other.retransmissions;
        for (sum, of) in self.protocols.iter_mut().zip(other.protocols) {
            *sum += of;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_capture_has_wide_buckets_and_none_is_lost() {
        let mut series = Series::default();
        for second in 0..10_000u64 {
            series.frame(5_000_000 + second * 1_000_000, 100);
            series.packet(1, 80);
        }
        assert!((256..=512).contains(&series.buckets().len()));
        assert_eq!(series.width(), FIRST_WIDTH_US << 15);
        assert_eq!(series.start(), 5_000_000);
        let sum = series.buckets().iter().fold(Bucket::default(), Bucket::plus);
        assert_eq!((sum.packets, sum.bytes, sum.protocols), (10_000, 1_000_000, [0, 800_000, 0, 0]));
    }

    proptest! {
        #[test]
        fn every_frame_is_in_a_bucket_whatever_the_clock_does(times in proptest::collection::vec(any::<u64>(), 1..50)) {
            let mut series = Series::default();
            for time in &times {
                series.frame(*time, 1);
            }
            prop_assert_eq!(series.buckets().iter().map(|bucket| bucket.packets).sum::<u64>(), times.len() as u64);
            prop_assert!(series.buckets().len() <= MAX_BUCKETS);
        }
    }
}

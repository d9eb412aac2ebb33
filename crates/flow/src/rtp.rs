//! RTP (RFC 3550): which datagrams are of it, and how evenly they arrive.

use crate::bytes::{u8_at, u16_at, u32_at};
use crate::statistics::Histogram;

/// Packets in a row that make a stream certain.
const CERTAIN: u8 = 3;
/// Packets, and microseconds between first and last, from which a clock rate is estimated.
const ESTIMATE_PACKETS: u32 = 32;
const ESTIMATE_US: u64 = 500_000;
/// A step of the clock of sender or capture, not a delay.
const MAX_DIFFERENCE_US: f64 = 10_000_000.0;

/// One direction of a flow. Its jitter is that of section 6.4.1, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    source: u32,
    kind: u8,
    sequence: u16,
    /// Packets in a row that were of one source and in sequence.
    in_sequence: u8,
    clock: Option<u32>,
    last: (u64, u32),
    first: (u64, u32),
    packets: u32,
    jitter_us: f64,
    differences: u32,
    /// Of the interval.
    variation: Histogram,
    lost: u64,
    reordered: u64,
}

/// What an interval of a stream adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Median, 95th and 99th percentile of the delay variation between consecutive packets (RFC 3393), microseconds, without its sign;
    /// none where the rate of the sender's clock is not known.
    pub variation_us: Option<[u32; 3]>,
    /// Packets that the numbers of others tell of, and that did not come.
    pub lost: u64,
    /// Packets that came behind others that were sent after them.
    pub reordered: u64,
}

/// Whether a datagram may be RTP: version 2, a payload type of the registry or a dynamic one, and not RTCP (RFC 5761 section 4).
#[must_use]
pub fn may_be_rtp(payload: &[u8]) -> bool {
    let [first, second, ..] = *payload else { return false };
    let header = 12 + 4 * usize::from(first & 0x0f);
    first >> 6 == 2 && payload.len() > header && (matches!(second & 0x7f, 96..) || clock_of(second & 0x7f).is_some())
}

impl Stream {
    /// Takes a datagram that came at `time` (microseconds). One that is not of the stream is passed over.
    pub fn push(&mut self, time: u64, payload: &[u8]) {
        if !may_be_rtp(payload) {
            return;
        }
        let fields = (u8_at(payload, 1), u16_at(payload, 2), u32_at(payload, 4), u32_at(payload, 8));
        let (Some(kind), Some(sequence), Some(timestamp), Some(source)) = fields else { return };
        let kind = kind & 0x7f;
        let ahead = sequence.wrapping_sub(self.sequence).cast_signed();
        if self.packets == 0 || source != self.source || kind != self.kind || !(-100..=100).contains(&ahead) {
            if self.is_certain() && source != self.source {
                // Another source in between, such as a tone.
                self.in_sequence -= 1;
                return;
            }
            let (jitter_us, differences) = (self.jitter_us, self.differences);
            let (variation, lost, reordered) = (std::mem::take(&mut self.variation), self.lost, self.reordered);
            let (last, clock) = ((time, timestamp), clock_of(kind));
            let in_sequence = if self.is_certain() { CERTAIN } else { 1 };
            *self = Self {
                source,
                kind,
                sequence,
                in_sequence,
                clock,
                last,
                first: last,
                packets: 1,
                jitter_us,
                differences,
                variation,
                lost,
                reordered,
            };
            return;
        }
        if ahead == 0 {
            return;
        }
        if (1..=5).contains(&ahead) {
            self.in_sequence = self.in_sequence.saturating_add(1).min(100);
        }
        if ahead > 0 {
            self.lost += u64::from(ahead.unsigned_abs()) - 1;
        } else {
            // It was taken for lost when others passed it.
            self.lost = self.lost.saturating_sub(1);
            self.reordered += 1;
        }
        self.sequence = if ahead > 0 { sequence } else { self.sequence };
        self.packets = self.packets.saturating_add(1);
        self.measure(time, timestamp);
    }

    /// Whether it is RTP beyond doubt.
    #[must_use]
    pub const fn is_certain(&self) -> bool {
        self.in_sequence >= CERTAIN
    }

    /// Interarrival jitter; none where the rate of the sender's clock is not known.
    #[must_use]
    pub fn jitter_us(&self) -> Option<u32> {
        (self.is_certain() && self.differences > 0).then_some(self.jitter_us as u32)
    }

    /// What the packets since the last call add up to; none where it is not certainly a stream.
    pub fn take_report(&mut self) -> Option<Report> {
        let variation = std::mem::take(&mut self.variation);
        let percentile = |percent| variation.percentile(percent).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
        let variation_us = match [50, 95, 99].map(percentile) {
            [Some(median), Some(p95), Some(p99)] => Some([median, p95, p99]),
            _ => None,
        };
        let (lost, reordered) = (std::mem::take(&mut self.lost), std::mem::take(&mut self.reordered));
        self.is_certain().then_some(Report { variation_us, lost, reordered })
    }

    fn measure(&mut self, time: u64, timestamp: u32) {
        let clock = self.clock.or_else(|| self.estimate(time, timestamp));
        self.clock = clock;
        let (last_time, last_timestamp) = std::mem::replace(&mut self.last, (time, timestamp));
        let Some(clock) = clock else { return };
        let arrived = time as f64 - last_time as f64;
        let sent = f64::from(timestamp.wrapping_sub(last_timestamp).cast_signed()) * 1e6 / f64::from(clock);
        let difference = (arrived - sent).abs();
        if difference < MAX_DIFFERENCE_US {
            self.jitter_us += (difference - self.jitter_us) / 16.0;
            self.differences = self.differences.saturating_add(1);
            self.variation.add(difference as u32);
        }
    }

    /// The rate in use that is nearest to how fast the timestamps grew, if it is near.
    fn estimate(&self, time: u64, timestamp: u32) -> Option<u32> {
        const RATES: [u32; 8] = [8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 90_000];
        let elapsed = time.checked_sub(self.first.0).filter(|elapsed| *elapsed >= ESTIMATE_US)?;
        if self.packets < ESTIMATE_PACKETS {
            return None;
        }
        let grown = f64::from(timestamp.wrapping_sub(self.first.1));
        let rate = grown * 1e6 / elapsed as f64;
        RATES.into_iter().find(|known| (rate / f64::from(*known) - 1.0).abs() < 0.04)
    }
}

/// RFC 3551 section 6: the clock rate of a static payload type.
const fn clock_of(kind: u8) -> Option<u32> {
    match kind {
        0 | 3 | 4 | 5 | 7..=9 | 12 | 13 | 15 | 18 => Some(8_000),
        6 => Some(16_000),
        10 | 11 => Some(44_100),
        16 => Some(11_025),
        17 => Some(22_050),
        14 | 25 | 26 | 28 | 31..=34 => Some(90_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(kind: u8, sequence: u16, timestamp: u32) -> Vec<u8> {
        let mut packet = vec![0x80, kind];
        packet.extend(sequence.to_be_bytes());
        packet.extend(timestamp.to_be_bytes());
        packet.extend([1, 2, 3, 4]);
        packet.extend([0; 160]);
        packet
    }

    #[test]
    fn the_jitter_is_that_of_the_rfc() {
        // Every 20 ms, each second packet 1.6 ms late.
        let mut stream = Stream::default();
        let mut expected = 0.0;
        for number in 0..50u16 {
            let late = if number % 2 == 1 { 1600 } else { 0 };
            stream.push(u64::from(number) * 20_000 + late, &packet(0, number, u32::from(number) * 160));
            if number > 0 {
                expected += (1600.0 - expected) / 16.0;
            }
        }
        assert_eq!(stream.jitter_us(), Some(expected as u32));
    }

    #[test]
    fn the_variation_is_between_neighbours_and_losses_follow_from_numbers() {
        let mut stream = Stream::default();
        // Every 20 ms; one in ten is 5 ms late, so two differences of ten are 5 ms. 50 is lost, 60 and 61 change places.
        let order = (0..200u16).filter(|number| *number != 50).map(|number| match number {
            60 => 61,
            61 => 60,
            other => other,
        });
        for (place, number) in order.enumerate() {
            let late = if number % 10 == 5 { 5000 } else { 0 };
            let time = if (60..=61).contains(&number) { place as u64 + 1 } else { u64::from(number) } * 20_000 + late;
            stream.push(time, &packet(0, number, u32::from(number) * 160));
        }
        let report = stream.take_report().unwrap();
        let [median, p95, p99] = report.variation_us.unwrap();
        assert!(median < 10 && (4700..5300).contains(&p95) && p99 >= p95, "{report:?}");
        assert_eq!((report.lost, report.reordered), (1, 1));
        assert_eq!(stream.take_report(), Some(Report::default()), "an interval without packets");
    }

    #[test]
    fn packets_at_even_intervals_have_none_also_across_the_wrap() {
        let mut stream = Stream::default();
        for number in 0..200u32 {
            let sequence = (65_500 + number) as u16;
            stream.push(u64::from(number) * 20_000, &packet(8, sequence, (u32::MAX - 5000).wrapping_add(number * 160)));
        }
        assert_eq!(stream.jitter_us(), Some(0));
    }

    #[test]
    fn the_clock_of_a_dynamic_type_is_estimated_or_absent() {
        let run = |step: u32| {
            let mut stream = Stream::default();
            for number in 0..100u16 {
                stream.push(u64::from(number) * 20_000, &packet(111, number, u32::from(number) * step));
            }
            (stream.is_certain(), stream.clock, stream.jitter_us())
        };
        assert_eq!(run(960), (true, Some(48_000), Some(0)));
        assert_eq!(run(1234), (true, None, None));
    }

    #[test]
    fn noise_is_not_a_stream() {
        let mut stream = Stream::default();
        for number in 0..100u32 {
            let mut payload = packet(0, (number * 7919) as u16, number);
            payload[8] = number as u8;
            stream.push(u64::from(number), &payload);
        }
        assert!(!stream.is_certain() && stream.jitter_us().is_none());
        assert!(!may_be_rtp(&[0x80, 200, 0, 0]) && !may_be_rtp(&[0x80]));
    }

    proptest! {
        #[test]
        fn any_datagrams_are_read_without_a_panic(
            datagrams in proptest::collection::vec((any::<u64>(), any::<u8>(), any::<u16>(), any::<u32>(), 0usize..30), 0..100),
        ) {
            let mut stream = Stream::default();
            for (time, kind, sequence, timestamp, length) in datagrams {
                stream.push(time, &packet(kind, sequence % 300, timestamp)[..length]);
            }
            let _ = stream.jitter_us();
        }
    }
}

//! What a path does to packets: directions that are missing, fragments, silences in streams, bursts.

use super::At;
use super::ended::{Attempt, Ended, is_group};
use super::evidence::Evidence;
use super::finding::{Finding, display, percent, tenths};
use super::kind::{Kind, Severity};
use super::thresholds::Thresholds;
use crate::statistics::Bursts;

/// Streams with silences that are listed.
const MAX_GAPS: usize = 256;
/// Flows that are remembered as those that may have made a burst.
const MAX_LARGEST: usize = 16;

/// An interval of a flow, by the bytes in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Large {
    bytes: u64,
    flow_id: u64,
    start: u64,
    end: u64,
}

/// What was seen of paths.
#[derive(Debug, Default)]
pub(super) struct Paths {
    tcp_flows: u64,
    one_sided: u64,
    one_sided_at: Evidence,
    incomplete: u64,
    incomplete_at: Evidence,
    fragments_between: Option<([u8; 16], [u8; 16])>,
    overlaps: u64,
    overlaps_at: Evidence,
    overlaps_between: Option<([u8; 16], [u8; 16])>,
    gaps: Vec<Finding>,
    gaps_left_out: u64,
    /// The largest ones first.
    largest: Vec<Large>,
}

impl Paths {
    pub(super) fn flow(&mut self, ended: &Ended<'_>, thresholds: &Thresholds) {
        if let Some(attempt) = ended.attempt {
            self.tcp_flows += u64::from(ended.first);
            if attempt == Attempt::OneSided {
                self.one_sided += 1;
                ended.add_to(&mut self.one_sided_at);
            }
        }
        self.weigh(ended);
        if let Some(gap) = stream_gap(ended, thresholds) {
            if self.gaps.len() < MAX_GAPS {
                self.gaps.push(gap);
            } else {
                self.gaps_left_out += 1;
            }
        }
    }

    fn weigh(&mut self, ended: &Ended<'_>) {
        let record = ended.record;
        let bytes = record.tx_bytes + record.rx_bytes;
        let is_full = self.largest.len() == MAX_LARGEST;
        if is_full && self.largest.last().is_some_and(|least| bytes <= least.bytes) {
            return;
        }
        self.largest.truncate(MAX_LARGEST - 1);
        let at = self.largest.partition_point(|larger| larger.bytes >= bytes);
        let large = Large { bytes, flow_id: record.flow_id, start: record.start_time, end: record.end_time };
        self.largest.insert(at, large);
    }

    pub(super) const fn one_sided(&self) -> u64 {
        self.one_sided
    }

    pub(super) fn overlap(&mut self, at: At, src: [u8; 16], dst: [u8; 16]) {
        self.overlaps += 1;
        self.overlaps_between.get_or_insert((src, dst));
        self.overlaps_at.packet(at.flow_id, at.frame, at.time);
    }

    pub(super) fn incomplete(&mut self, at: At, src: [u8; 16], dst: [u8; 16]) {
        self.incomplete += 1;
        self.fragments_between.get_or_insert((src, dst));
        self.incomplete_at.packet(at.flow_id, at.frame, at.time);
    }

    pub(super) fn findings(&self, thresholds: &Thresholds, found: &mut Vec<Finding>) {
        found.extend(self.gaps.iter().cloned());
        found.extend(self.asymmetric(thresholds));
        if self.incomplete >= thresholds.incomplete_fragments {
            let summary = format!("{} fragmented packets never became whole", self.incomplete);
            let finding = Finding::new(Kind::FragmentsIncomplete, Severity::Warning, 0.8, &self.incomplete_at);
            found.push(between(finding, self.fragments_between).with("packets", self.incomplete).saying(summary));
        }
        if self.overlaps > 0 {
            let summary = format!("{} fragments overlap others with other content", self.overlaps);
            let finding = Finding::new(Kind::FragmentsOverlap, Severity::Critical, 0.9, &self.overlaps_at);
            found.push(between(finding, self.overlaps_between).with("fragments", self.overlaps).saying(summary));
        }
    }

    fn asymmetric(&self, thresholds: &Thresholds) -> Option<Finding> {
        let share = percent(self.one_sided, self.tcp_flows);
        if self.one_sided < thresholds.asymmetric_flows || share < thresholds.asymmetric_percent {
            return None;
        }
        let summary = format!(
            "of {} of {} TCP flows ({share} %) only one direction passed the place of capture",
            self.one_sided, self.tcp_flows,
        );
        Some(
            Finding::new(Kind::AsymmetricPath, Severity::Info, 0.9, &self.one_sided_at)
                .with("flows", self.one_sided)
                .with("tcp_flows", self.tcp_flows)
                .with("percent", share)
                .saying(summary),
        )
    }
}

fn between(finding: Finding, ends: Option<([u8; 16], [u8; 16])>) -> Finding {
    match ends {
        Some((src, dst)) => finding.from(src).to(dst),
        None => finding,
    }
}

/// A silence in what was a steady stream of datagrams. Whoever asks and waits is silent at will, so only what sends many packets a second
/// without being asked is judged.
fn stream_gap(ended: &Ended<'_>, thresholds: &Thresholds) -> Option<Finding> {
    let record = ended.record;
    let lasted = record.end_time.saturating_sub(record.start_time);
    let packets = ended.packets();
    let longer = record.tx_packets.max(record.rx_packets);
    // Over the interval without the silence itself, or one long silence would make the stream look slow.
    let mean = lasted.saturating_sub(ended.gap_us) as f64 / packets.max(2) as f64;
    let is_stream = ended.is_udp() && longer >= 200 && mean <= 50_000.0 && !is_group(ended.dst) && is_media(ended);
    let gap_ms = ended.gap_us as f64 / 1000.0;
    if !is_stream
        || gap_ms < thresholds.stream_gap_ms
        || ended.gap_us as f64 / mean.max(1.0) < thresholds.stream_gap_ratio
    {
        return None;
    }
    let mut evidence = Evidence::default();
    evidence.flow(record.flow_id, ended.gap_frame, record.start_time, record.end_time);
    let summary = format!(
        "the stream from {} to {} port {} was silent for {gap_ms:.0} ms; its packets come every {:.1} ms",
        display(ended.src),
        display(ended.dst),
        ended.dst_port,
        mean / 1000.0,
    );
    Some(
        Finding::new(Kind::StreamGap, Severity::Warning, 0.7, &evidence)
            .from(ended.src)
            .to(ended.dst)
            .port(ended.dst_port)
            .with("silence_ms", tenths(gap_ms))
            .with("mean_ms", tenths(mean / 1000.0))
            .with("packets", packets)
            .saying(summary),
    )
}

/// Not a protocol that is asked and answers: those have well-known ports.
const fn is_media(ended: &Ended<'_>) -> bool {
    ended.src_port >= 1024 && ended.dst_port >= 1024 && matches!(ended.record.app.as_bytes(), b"" | b"rtp")
}

/// The busiest 100 ms, where they stand out.
pub(super) fn burst(bursts: &Bursts, paths: &Paths, thresholds: &Thresholds) -> Option<Finding> {
    let peak = bursts.highest().first()?;
    let ratio = peak.bytes as f64 / bursts.mean().max(1.0);
    let megabits = peak.bytes as f64 * 80.0 / 1e6;
    // Of a capture that is hardly longer than the burst nothing can be said.
    if ratio < thresholds.burst_ratio || megabits < thresholds.burst_megabits || bursts.buckets() < 50 {
        return None;
    }
    let mut evidence = Evidence::default();
    for burst in bursts.highest().iter().filter(|burst| burst.bytes as f64 >= thresholds.burst_ratio * bursts.mean()) {
        evidence.flow(0, burst.first_frame, burst.time, burst.time + Bursts::WIDTH_US);
    }
    // The largest flows that were there at the time; a flow without a tenth of the bytes did not make it.
    let was_there = |flow: &&Large| flow.start < peak.time + Bursts::WIDTH_US && flow.end >= peak.time;
    for flow in paths.largest.iter().filter(was_there).filter(|flow| flow.bytes >= peak.bytes / 10) {
        evidence.name(flow.flow_id);
    }
    let summary = format!(
        "{} bytes within 100 ms ({megabits:.0} Mbit/s), {ratio:.0} times the mean; {} such bursts",
        peak.bytes,
        evidence.frames.len(),
    );
    Some(
        Finding::new(Kind::Burst, Severity::Info, 0.9, &evidence)
            .with("peak_bytes", peak.bytes)
            .with("peak_packets", peak.packets)
            .with("peak_megabits", tenths(megabits))
            .with("ratio", tenths(ratio))
            .saying(summary),
    )
}

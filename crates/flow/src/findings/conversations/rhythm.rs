//! Conversations whose flows begin at regular times.

use super::{Conversation, Ends, is_outward};
use crate::findings::finding::{Finding, display, tenths};
use crate::findings::kind::{Kind, Severity};
use crate::findings::thresholds::Thresholds;
use crate::packet::ip::protocol;

/// Services that are asked at regular times by design: DNS, DHCP, NTP, `NetBIOS`, SNMP, IKE, RIP, `DHCPv6`, SSDP, STUN, mDNS, LLMNR.
const REGULAR: [u16; 16] = [53, 67, 68, 123, 137, 138, 161, 162, 500, 520, 546, 547, 1900, 3478, 5353, 5355];

/// A conversation with a rhythm.
#[derive(Clone, Debug, PartialEq)]
pub struct Rhythm {
    /// The client, network order, IPv4 mapped.
    pub src: [u8; 16],
    /// The service.
    pub dst: [u8; 16],
    /// Its port.
    pub dst_port: u16,
    /// IANA number.
    pub protocol: u8,
    /// Flows between them.
    pub flows: u64,
    /// Median time from the start of one to the start of the next, seconds.
    pub interval_s: f64,
    /// Interquartile range of these times, percent of the median.
    pub jitter_percent: f64,
}

impl Conversation {
    /// Nothing where it has too few flows, or begins them at random.
    pub(super) fn rhythm(&self, ends: &Ends, thresholds: &Thresholds) -> Option<Rhythm> {
        if self.flows < thresholds.beacon_connections || (self.starts.len() as u64) < thresholds.beacon_connections {
            return None;
        }
        let mut starts = self.starts.clone();
        starts.sort_unstable();
        let mut intervals: Vec<u32> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        intervals.sort_unstable();
        let last = intervals.len().checked_sub(1)?;
        let quantile = |quarter: usize| f64::from(intervals[last * quarter / 4]) / 1000.0;
        let median = quantile(2);
        let jitter = (quantile(3) - quantile(1)) * 100.0 / median.max(0.001);
        (jitter <= thresholds.beacon_jitter_percent && median > 0.0).then(|| Rhythm {
            src: ends.src,
            dst: ends.dst,
            dst_port: ends.port,
            protocol: ends.protocol,
            flows: self.flows,
            interval_s: (median * 1000.0).round() / 1000.0,
            jitter_percent: tenths(jitter),
        })
    }

    pub(super) fn beacon(&self, ends: &Ends, thresholds: &Thresholds) -> Option<Finding> {
        let regular = (ends.protocol == protocol::UDP && REGULAR.contains(&ends.port))
            || ![protocol::TCP, protocol::UDP].contains(&ends.protocol);
        // Attempts that nothing answers are repeated at regular times by any client that waits for a server.
        if regular || (ends.protocol == protocol::TCP && self.established * 2 < self.flows) {
            return None;
        }
        let rhythm = self.rhythm(ends, thresholds)?;
        if rhythm.interval_s < thresholds.beacon_interval_s {
            return None;
        }
        let (size, spread) = self.size();
        let outward = is_outward(ends);
        // Programs that watch their own network are regular too.
        let (severity, base) = if outward { (Severity::Warning, 0.5) } else { (Severity::Info, 0.2) };
        let steady = 1.0 - (rhythm.jitter_percent / thresholds.beacon_jitter_percent.max(0.1)).min(1.0);
        let many = (self.flows as f64 / thresholds.beacon_connections as f64).log2().clamp(0.0, 3.0) / 3.0;
        let confidence = base + 0.15 * steady + 0.15 * many + if spread < 0.2 { 0.1 } else { 0.0 };
        let summary = format!(
            "{} connects to {} port {} every {:.1} s, {} times, give or take {:.0} %",
            display(ends.src),
            display(ends.dst),
            ends.port,
            rhythm.interval_s,
            self.flows,
            rhythm.jitter_percent,
        );
        Some(
            Finding::new(Kind::Beacon, severity, confidence, &self.evidence)
                .from(ends.src)
                .to(ends.dst)
                .port(ends.port)
                .with("connections", self.flows)
                .with("interval_s", rhythm.interval_s)
                .with("jitter_percent", rhythm.jitter_percent)
                .with("mean_sent_bytes", size.round() as u64)
                .with("sent_spread_percent", (spread * 100.0).round())
                .saying(summary),
        )
    }
}

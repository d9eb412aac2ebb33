//! ICMP errors and the flows that they are about; paths that are too narrow.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use super::At;
use super::bounded::Bounded;
use super::conversations::Conversations;
use super::evidence::Evidence;
use super::finding::{Finding, display};
use super::kind::{Kind, Severity};
use super::thresholds::Thresholds;
use crate::analyzer::Scale;
use crate::bytes::{after, u16_at, u32_at};

/// Errors that are followed, by what they say.
const MAX_ERRORS: usize = 4096;

/// What an error says, whatever the version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Complaint {
    /// The destination cannot be reached; the code.
    Unreachable(u8),
    /// The port is closed.
    PortClosed,
    /// The packet is too big for the next link, which takes this many bytes; 0 = not said.
    TooBig(u32),
    /// The hop limit was reached on the way.
    TimeExceeded,
    /// Fragments were missing at the destination.
    ReassemblyTime,
}

/// An ICMP error and the start of the packet that it quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IcmpError<'a> {
    pub(crate) complaint: Complaint,
    pub(crate) quoted: &'a [u8],
}

/// Reads an error; nothing for other messages.
pub(crate) fn parse(version: u8, message: &[u8]) -> Option<IcmpError<'_>> {
    let [kind, code] = crate::bytes::array_at(message, 0)?;
    let complaint = match (version, kind, code) {
        (4, 3, 3) | (6, 1, 4) => Complaint::PortClosed,
        // RFC 1191 puts the size into the last half of the second word.
        (4, 3, 4) => Complaint::TooBig(u32::from(u16_at(message, 6)?)),
        (6, 2, _) => Complaint::TooBig(u32_at(message, 4)?),
        (4, 3, code) | (6, 1, code) => Complaint::Unreachable(code),
        (4, 11, 0) | (6, 3, 0) => Complaint::TimeExceeded,
        (4, 11, 1) | (6, 3, 1) => Complaint::ReassemblyTime,
        _ => return None,
    };
    Some(IcmpError { complaint, quoted: after(message, 8) })
}

#[derive(Debug, Default)]
struct Said {
    times: u64,
    /// Some of who said it.
    reporters: Vec<[u8; 16]>,
    evidence: Evidence,
}

/// Payload from which on a segment is as large as common paths allow, and below which it passes anywhere.
const LARGE: u32 = 1000;
const SMALL: u32 = 600;

/// Segments that waited for the timer to be sent again.
#[derive(Debug, Default)]
struct Narrow {
    /// The segment at hand: sequence number, times it was sent again, its size at first.
    current: (u32, u64, u32),
    /// Times that the worst large one was sent again, and its size.
    worst: (u64, u32),
    /// Small ones that were sent again more than once: the path drops everything.
    small: u64,
    /// A large one was sent again as a smaller one in the end.
    shrunk: bool,
    evidence: Evidence,
}

/// The errors of a capture.
#[derive(Debug)]
pub(super) struct Errors {
    /// By destination and source of the quoted packet.
    said: Bounded<([u8; 16], [u8; 16], Complaint), Said>,
    narrow: Bounded<([u8; 16], [u8; 16]), Narrow>,
    counts: BTreeMap<&'static str, u64>,
}

impl Complaint {
    const fn name(self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::PortClosed => "port closed",
            Self::TooBig(_) => "packet too big",
            Self::TimeExceeded => "time exceeded",
            Self::ReassemblyTime => "reassembly time exceeded",
        }
    }
}

impl Errors {
    pub(super) fn new(scale: Scale) -> Self {
        Self {
            said: Bounded::new(scale.of(MAX_ERRORS)),
            narrow: Bounded::new(scale.of(MAX_ERRORS)),
            counts: BTreeMap::new(),
        }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.said.lost + self.narrow.lost
    }

    pub(super) const fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// An error of `reporter` about a packet from `src` to `dst`.
    #[expect(clippy::too_many_arguments, reason = "who, about whom, what, and where")]
    pub(super) fn error(
        &mut self,
        reporter: [u8; 16],
        src: [u8; 16],
        dst: [u8; 16],
        complaint: Complaint,
        flow_id: u64,
        frame: u64,
        time: u64,
    ) {
        *self.counts.entry(complaint.name()).or_default() += 1;
        let Some(said) = self.said.entry((dst, src, complaint), |said| said.times > 1) else { return };
        said.times += 1;
        if said.reporters.len() < 8 && !said.reporters.contains(&reporter) {
            said.reporters.push(reporter);
        }
        said.evidence.packet(flow_id, frame, time);
    }

    /// A segment from `src` to `dst` with this sequence number and payload waited for the timer to be sent again.
    pub(super) fn timed_out(&mut self, at: At, src: [u8; 16], dst: [u8; 16], sequence: u32, size: u32) {
        let Some(narrow) = self.narrow.entry((src, dst), |narrow| narrow.worst.0 > 1) else { return };
        if narrow.current.1 == 0 || narrow.current.0 != sequence {
            narrow.current = (sequence, 0, size);
        }
        let (_, times, at_first) = &mut narrow.current;
        *times += 1;
        if *at_first >= LARGE {
            narrow.shrunk |= *times > 1 && size < *at_first;
            narrow.worst = narrow.worst.max((*times, *at_first));
            narrow.evidence.packet(at.flow_id, at.frame, at.time);
        } else if size < SMALL && *times > 1 {
            narrow.small += 1;
        }
    }

    pub(super) fn findings(&self, thresholds: &Thresholds, conversations: &Conversations, found: &mut Vec<Finding>) {
        for (&(dst, src, complaint), said) in self.said.iter() {
            found.extend(said.finding(src, dst, complaint, thresholds));
        }
        if self.narrow.iter().next().is_none() {
            return;
        }
        let passed = conversations.largest_passed(|pair| self.narrow.get(pair).is_some());
        for (&(src, dst), narrow) in self.narrow.iter() {
            let told = self.said.iter().any(|(&(of, from, complaint), _)| {
                matches!(complaint, Complaint::TooBig(_)) && (of, from) == (dst, src)
            });
            let is_wide = passed.get(&(src, dst)).is_some_and(|&largest| has_room(u32::from(largest), narrow.worst.1));
            if told || !is_wide {
                found.extend(narrow.finding(src, dst, told, thresholds));
            }
        }
    }
}

impl Said {
    fn finding(&self, src: [u8; 16], dst: [u8; 16], complaint: Complaint, thresholds: &Thresholds) -> Option<Finding> {
        // The size of the path is worth a word the first time.
        let least = if matches!(complaint, Complaint::TooBig(_)) { 1 } else { thresholds.icmp_errors };
        if self.times < least {
            return None;
        }
        let (from, to) = (display(src), display(dst));
        let who = self.reporters.first().copied().map_or_else(String::new, display);
        let times = self.times;
        let (kind, severity, summary) = match complaint {
            Complaint::TooBig(size) => (
                Kind::PathMtu,
                Severity::Info,
                format!("{who} says that packets from {from} to {to} may have at most {size} bytes"),
            ),
            Complaint::PortClosed => {
                (Kind::Refused, Severity::Info, format!("{to} told {from} {times} times that a UDP port is closed"))
            }
            Complaint::Unreachable(code) => (
                Kind::Unreachable,
                Severity::Warning,
                if is_forbidden(code, src) {
                    format!("{who} told {from} {times} times that it lets nothing through to {to} (code {code})")
                } else {
                    format!("{who} told {from} {times} times that {to} cannot be reached (code {code})")
                },
            ),
            Complaint::TimeExceeded if self.reporters.len() > 1 => (
                Kind::TimeExceeded,
                Severity::Info,
                format!("{from} traced the route to {to} over at least {} routers", self.reporters.len()),
            ),
            Complaint::TimeExceeded => (
                Kind::TimeExceeded,
                Severity::Warning,
                format!("{who} dropped {times} packets from {from} to {to} because their hop limit was reached"),
            ),
            Complaint::ReassemblyTime => (
                Kind::FragmentsIncomplete,
                Severity::Warning,
                format!("{who} told {from} {times} times that fragments were missing"),
            ),
        };
        let mut finding = Finding::new(kind, severity, 0.9, &self.evidence)
            .from(src)
            .to(dst)
            .with("messages", times)
            .with("reporters", self.reporters.iter().copied().map(display).collect::<Vec<_>>())
            .saying(summary);
        if let Complaint::TooBig(size) = complaint {
            finding = finding.with("path_mtu", size);
        }
        Some(finding)
    }
}

/// Whether a code says that a filter is in the way (RFC 1812 section 5.2.7.1, RFC 4443 section 3.1).
fn is_forbidden(code: u8, told: [u8; 16]) -> bool {
    let codes = if Ipv6Addr::from(told).to_ipv4_mapped().is_some() { [9, 10, 13] } else { [1, 5, 6] };
    codes.contains(&code)
}

/// Whether a path on which a segment of the one size arrived has room for the other. One as large as several of them is a super-packet, which
/// was cut behind the place of capture or put together before it.
const fn has_room(largest: u32, size: u32) -> bool {
    largest >= size || (largest >= SMALL && size.is_multiple_of(largest))
}

impl Narrow {
    fn finding(&self, src: [u8; 16], dst: [u8; 16], told: bool, thresholds: &Thresholds) -> Option<Finding> {
        let (times, size) = self.worst;
        if times < thresholds.path_mtu_retransmissions || self.small > 0 {
            return None;
        }
        let summary = format!(
            "{} sent a segment of {size} bytes to {} again and again ({times} times){}{}",
            display(src),
            display(dst),
            if self.shrunk { " until it made it smaller" } else { "" },
            if told { ", though it was told that it is too big" } else { "; nobody said that it is too big" },
        );
        // A host that is gone looks alike, unless the segment passed as a smaller one.
        let confidence = 0.4 + if told { 0.3 } else { 0.0 } + if self.shrunk { 0.25 } else { 0.0 };
        Some(
            Finding::new(Kind::PathMtuBlackHole, Severity::Critical, confidence, &self.evidence)
                .from(src)
                .to(dst)
                .with("segment_bytes", size)
                .with("retransmissions", times)
                .with("told", told)
                .with("shrunk", self.shrunk)
                .saying(summary),
        )
    }
}

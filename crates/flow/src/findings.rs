//! What a person should look at: attacks, leaks, and what does not work well.
//!
//! Nothing here is done for each packet. The detectors look at flows when they end, at DNS exchanges, and at the rare packets that say
//! something by themselves (ARP, ICMP errors, logins); each keeps a bounded table, and what a full table forgot is counted. At the end of
//! the capture the tables become findings, in an order that follows from the frames alone. All kinds and thresholds are listed in
//! `docs/reference/findings.md`.

use std::collections::BTreeMap;

use weir_proto::{Dns, Flow, Tls};

use crate::analyzer::Scale;
use crate::tracker::Finished;

mod bounded;
mod certificates;
mod conversations;
mod distinct;
mod ended;
mod errors;
mod evidence;
mod finding;
mod floods;
mod kind;
mod names;
mod neighbours;
mod one_way;
mod paths;
mod scans;
mod secrets;
pub(crate) mod signs;
mod thresholds;

pub use conversations::Rhythm;
pub(crate) use errors::{Complaint, parse as icmp_error};
pub use finding::Finding;
pub use kind::{Category, Kind, Severity};
pub use names::split as split_name;
pub(crate) use neighbours::{Claim, arp, neighbour_discovery};
pub use one_way::{OneWay, Seen};
pub use thresholds::{Threshold, Thresholds, ThresholdsError};

use ended::Ended;
use signs::Sign;

/// A packet in its flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) flow_id: u64,
    pub(crate) frame: u64,
    pub(crate) time: u64,
}

/// All detectors.
#[derive(Debug)]
pub(crate) struct Watch {
    thresholds: Box<Thresholds>,
    scans: scans::Scans,
    floods: floods::Floods,
    conversations: conversations::Conversations,
    questions: names::Questions,
    neighbours: neighbours::Neighbours,
    secrets: secrets::Secrets,
    errors: errors::Errors,
    certificates: certificates::Certificates,
    paths: paths::Paths,
    one_way: one_way::OneWays,
}

/// What the detectors found, and what they say besides.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// By time, then kind.
    pub list: Vec<Finding>,
    /// Findings by kind beyond those that are listed.
    pub left_out: BTreeMap<Kind, u64>,
    /// What full tables forgot: flows, names or addresses that were not followed.
    pub forgotten: u64,
    /// TCP flows of which only one direction is in the capture, though they were answered.
    pub one_way_flows: u64,
    /// Flows of UDP of which only one direction is in the capture, though their protocol answers.
    pub one_way_udp_flows: u64,
    /// The largest of both.
    pub one_way: Vec<OneWay>,
    /// Conversations whose flows begin at regular times, harmless or not.
    pub rhythms: Vec<Rhythm>,
    /// ICMP errors by what they say.
    pub icmp_errors: BTreeMap<&'static str, u64>,
}

/// Rhythms that are listed.
const MAX_RHYTHMS: usize = 50;
/// Flows with one direction that are listed.
const MAX_ONE_WAY: usize = 50;

impl Watch {
    pub(crate) fn new(thresholds: Box<Thresholds>, scale: Scale) -> Self {
        Self {
            thresholds,
            scans: scans::Scans::new(scale),
            floods: floods::Floods::new(scale),
            conversations: conversations::Conversations::new(scale),
            questions: names::Questions::new(scale),
            neighbours: neighbours::Neighbours::new(scale),
            secrets: secrets::Secrets::new(scale),
            errors: errors::Errors::new(scale),
            certificates: certificates::Certificates::new(scale),
            paths: paths::Paths::default(),
            one_way: one_way::OneWays::new(scale),
        }
    }

    /// Intervals of flows ended. The detectors look at all of them one after the other, so that each waits for several of its rows at once.
    pub(crate) fn flows(&mut self, all: &[(&Flow, &Finished)]) {
        let all: Vec<Ended<'_>> = all.iter().map(|(record, finished)| Ended::new(record, finished)).collect();
        for ended in &all {
            self.scans.flow(ended);
        }
        for ended in &all {
            self.floods.flow(ended);
        }
        for ended in &all {
            self.conversations.flow(ended);
        }
        for ended in &all {
            self.paths.flow(ended, &self.thresholds);
        }
        for ended in &all {
            self.one_way.flow(ended);
        }
    }

    /// A DNS query was seen.
    pub(crate) fn query(&mut self, frame: u64, query: &Dns) {
        self.questions.query(frame, query);
    }

    /// A DNS exchange ended; where it has an answer, that is in the second frame.
    pub(crate) fn exchange(&mut self, query_frame: u64, frame: u64, exchange: &Dns) {
        self.questions.exchange(query_frame, frame, exchange, &self.thresholds);
    }

    /// A TLS handshake ended; its certificate, if it has one, came at the time and in the frame.
    pub(crate) fn hello(&mut self, shown_at: (u64, u64), hello: &Tls) {
        self.certificates.hello(shown_at, hello);
    }

    /// Someone claimed an address.
    pub(crate) fn claim(&mut self, at: At, claim: Claim) {
        self.neighbours.claim(at.frame, at.time, at.flow_id, claim);
    }

    /// A payload gave something away.
    pub(crate) fn sign(&mut self, at: At, sign: Sign, client: [u8; 16], server: [u8; 16], port: u16) {
        self.secrets.sign((client, server, port, sign), at.flow_id, at.frame, at.time);
    }

    /// An ICMP error of `reporter` about a packet from `src` to `dst`; the flow is that of the packet.
    pub(crate) fn error(&mut self, at: At, complaint: Complaint, reporter: [u8; 16], src: [u8; 16], dst: [u8; 16]) {
        self.errors.error(reporter, src, dst, complaint, at.flow_id, at.frame, at.time);
    }

    /// A segment from `src` to `dst` with this sequence number and payload waited for the timer to be sent again.
    pub(crate) fn timed_out(&mut self, at: At, src: [u8; 16], dst: [u8; 16], sequence: u32, size: u32) {
        self.errors.timed_out(at, src, dst, sequence, size);
    }

    /// Fragments of two different contents for one place.
    pub(crate) fn overlap(&mut self, at: At, src: [u8; 16], dst: [u8; 16]) {
        self.paths.overlap(at, src, dst);
    }

    /// A packet whose fragments never were complete; `at` is the one of them that came first.
    pub(crate) fn incomplete(&mut self, at: At, src: [u8; 16], dst: [u8; 16]) {
        self.paths.incomplete(at, src, dst);
    }

    /// The findings of all.
    pub(crate) fn finish(&mut self, bursts: &crate::statistics::Bursts) -> Findings {
        let thresholds = &*self.thresholds;
        let mut found = Vec::new();
        self.scans.findings(thresholds, &mut found);
        self.floods.findings(thresholds, &mut found);
        self.conversations.findings(thresholds, &self.scans, &mut found);
        self.questions.findings(thresholds, &mut found);
        self.neighbours.findings(thresholds, &mut found);
        self.secrets.findings(thresholds, &mut found);
        self.errors.findings(thresholds, &self.conversations, &mut found);
        self.certificates.findings(thresholds, &mut found);
        self.paths.findings(thresholds, &mut found);
        found.extend(paths::burst(bursts, &self.paths, thresholds));
        // That a flooded port does not answer is the flood's doing.
        let target = |finding: &Finding| (finding.dst_ip, finding.dst_port);
        let flooded: Vec<_> = found.iter().filter(|found| found.kind == Kind::SynFlood).map(target).collect();
        found.retain(|found| found.kind != Kind::Unanswered || !flooded.contains(&target(found)));
        // Nor is it news that a transfer into a black hole stands still.
        let holes: Vec<u64> = found
            .iter()
            .filter(|found| found.kind == Kind::PathMtuBlackHole)
            .flat_map(|found| found.flow_ids.clone())
            .collect();
        found.retain(|found| {
            found.kind != Kind::TransferStalled || !found.flow_ids.iter().all(|flow| holes.contains(flow))
        });
        let (list, left_out) = limited(found, thresholds.findings_per_kind);
        Findings {
            list,
            left_out,
            forgotten: self.forgotten(),
            one_way_flows: self.paths.one_sided(),
            one_way_udp_flows: self.one_way.udp(),
            one_way: self.one_way.first(MAX_ONE_WAY),
            rhythms: self.conversations.rhythms(thresholds, MAX_RHYTHMS),
            icmp_errors: self.errors.counts().clone(),
        }
    }

    const fn forgotten(&self) -> u64 {
        self.scans.lost()
            + self.floods.lost()
            + self.conversations.lost()
            + self.questions.lost()
            + self.neighbours.lost()
            + self.secrets.lost()
            + self.errors.lost()
            + self.certificates.lost()
            + self.one_way.lost()
    }
}

/// The surest of each kind in order of time, and how many of each kind there are besides.
fn limited(mut found: Vec<Finding>, most: u64) -> (Vec<Finding>, BTreeMap<Kind, u64>) {
    found.sort_by(|a, b| {
        let surest = (b.severity, b.confidence).partial_cmp(&(a.severity, a.confidence));
        surest.unwrap_or(std::cmp::Ordering::Equal).then_with(|| a.order().cmp(&b.order()))
    });
    let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
    found.retain(|finding| {
        let count = counts.entry(finding.kind).or_default();
        *count += 1;
        *count <= most
    });
    found.sort_by_key(Finding::order);
    let left_out = counts.into_iter().filter(|(_, count)| *count > most).map(|(kind, count)| (kind, count - most));
    (found, left_out.collect())
}

#[cfg(test)]
mod tests;

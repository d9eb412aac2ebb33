//! One finding: what a person reads and what a program checks.

use std::net::Ipv6Addr;

use serde_json::{Map, Value, json};

use super::evidence::Evidence;
use super::kind::{Kind, Severity};

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was found.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// How sure it is: 0 = a guess, 1 = certain.
    pub confidence: f64,
    /// Of the first packet that belongs to it, microseconds.
    pub time: u64,
    /// Of the last one.
    pub end_time: u64,
    /// One sentence.
    pub summary: String,
    /// Some of the flows that show it, the first ones first.
    pub flow_ids: Vec<u64>,
    /// Some of the frames that show it, numbered from 1 on as the capture has them.
    pub packets: Vec<u64>,
    /// Who does it; `None` = nobody in particular.
    pub src_ip: Option<[u8; 16]>,
    /// To whom; `None` = nobody in particular.
    pub dst_ip: Option<[u8; 16]>,
    /// On which port.
    pub dst_port: Option<u16>,
    /// Numbers and names that show it.
    pub evidence: Map<String, Value>,
}

impl Finding {
    pub(super) fn new(kind: Kind, severity: Severity, confidence: f64, evidence: &Evidence) -> Self {
        Self {
            kind,
            severity,
            // Two digits are more than is known.
            confidence: (confidence.clamp(0.0, 1.0) * 100.0).round() / 100.0,
            time: evidence.first,
            end_time: evidence.last,
            summary: String::new(),
            flow_ids: evidence.flows.to_vec(),
            packets: evidence.frames.to_vec(),
            src_ip: None,
            dst_ip: None,
            dst_port: None,
            evidence: Map::new(),
        }
    }

    pub(super) fn from(mut self, ip: [u8; 16]) -> Self {
        self.src_ip = Some(ip);
        self
    }

    pub(super) fn to(mut self, ip: [u8; 16]) -> Self {
        self.dst_ip = Some(ip);
        self
    }

    pub(super) fn port(mut self, port: u16) -> Self {
        self.dst_port = Some(port);
        self
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.evidence.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn saying(mut self, summary: String) -> Self {
        self.summary = summary;
        self
    }

    /// What findings of one time and kind are ordered by.
    pub(super) fn order(&self) -> impl Ord + use<> {
        (self.time, self.kind, self.src_ip, self.dst_ip, self.dst_port, self.summary.clone())
    }

    /// All but what has a column of its own. Flow ids are text, because JSON's numbers are exact only up to 2^53.
    #[must_use]
    pub fn detail(&self) -> Value {
        let mut detail = json!({
            "category": self.kind.category(),
            "confidence": self.confidence,
            "end_time_us": self.end_time,
            "flow_ids": self.flow_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "packets": self.packets,
            "evidence": self.evidence,
            "next": self.kind.next(),
        });
        let subject = [("src_ip", self.src_ip), ("dst_ip", self.dst_ip)];
        for (name, ip) in subject {
            if let Some(ip) = ip {
                detail[name] = display(ip).into();
            }
        }
        if let Some(port) = self.dst_port {
            detail["dst_port"] = port.into();
        }
        detail
    }

    /// The row of the table of findings.
    #[must_use]
    pub fn record(&self) -> weir_proto::Finding {
        weir_proto::Finding {
            time: self.time,
            kind: self.kind.name().to_owned(),
            severity: self.severity.name().to_owned(),
            flow_id: self.flow_ids.first().copied().unwrap_or_default(),
            summary: self.summary.clone(),
            detail: self.detail().to_string(),
        }
    }
}

/// An address as people write it.
pub(super) fn display(ip: [u8; 16]) -> String {
    Ipv6Addr::from(ip).to_canonical().to_string()
}

/// A share in percent with one digit.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 * 1000.0 / whole as f64).round() / 10.0 }
}

/// With one digit after the point.
pub(super) fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

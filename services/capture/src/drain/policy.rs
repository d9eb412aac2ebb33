//! When flows are reported and ended.

use std::time::Duration;

use weir_capture_common::{icmp, initiator::TCP};

/// IANA number of UDP.
const UDP: u8 = 17;

/// When to report and when to end a flow.
#[derive(Clone, Debug)]
pub struct Policy {
    /// A flow that goes on is reported when its last report is this old.
    pub active: Duration,
    /// A flow that goes on is reported for the first time when it is this old.
    pub first: Duration,
    /// A closed TCP conversation is kept this long, for the last acknowledgements.
    pub linger: Duration,
    /// A flow without packets for this long has ended, by protocol.
    pub idle: Idle,
}

/// Idle timeouts.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is its protocol's timeout")]
pub struct Idle {
    pub tcp: Duration,
    pub udp: Duration,
    pub icmp: Duration,
    pub other: Duration,
}

impl Idle {
    /// The timeout of a protocol, by its IANA number.
    #[must_use]
    pub fn of(&self, protocol: u8) -> Duration {
        match protocol {
            TCP => self.tcp,
            UDP => self.udp,
            icmp::ICMP | icmp::ICMPV6 => self.icmp,
            _ => self.other,
        }
    }
}

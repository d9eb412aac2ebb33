//! When flows are reported and ended.

use std::time::Duration;

use weir_capture_common::{icmp, initiator::TCP};

/// IANA number of UDP.
const UDP: u8 = 17;

/// When to report and when to end a flow.
#[derive(Clone, Debug)]
pub struct Policy {
    /// A flow that goes on is reported for the first time when it is this old: nobody waits long to see who talks now.
    pub first: Duration,
    /// A flow that goes on is reported again at this pace.
    pub active: Pace,
    /// A closed TCP conversation is kept this long, for the last acknowledgements.
    pub linger: Duration,
    /// A flow without packets for this long has ended, by protocol.
    pub idle: Idle,
}

/// Records a second of flows that go on, up to which they are reported at the shortest interval: some 100 MB a day in the table.
const RECORDS_A_SECOND: u32 = 50;

/// How long after its last report a flow that goes on is reported again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Where few flows go on.
    pub shortest: Duration,
    /// However many go on.
    pub longest: Duration,
}

impl Pace {
    /// Always the same.
    #[must_use]
    pub fn steady(interval: Duration) -> Self {
        Self { shortest: interval, longest: interval }
    }

    /// As short as the records of so many flows allow.
    #[must_use]
    pub fn among(&self, flows: u64) -> Duration {
        let flows = u32::try_from(flows).unwrap_or(u32::MAX);
        (Duration::from_secs(1) * flows / RECORDS_A_SECOND).clamp(self.shortest, self.longest)
    }
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

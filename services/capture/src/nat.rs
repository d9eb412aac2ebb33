//! Address translation: what the ends of a translated flow are on their own side, as the kernel's connection tracking (conntrack) says.
//!
//! A connection that this host translates looks different before and after. Conntrack knows both sides: the original tuple, with who began,
//! and the reply tuple, with who answers. A record that shows either side gets what its ends really are. Connections are learned from the
//! kernel's events, so that short ones are known too, and from its table at the start and where events were lost.
//!
//! ICMP is left alone: its flows have no numbers that tell two containers apart.

mod bindings;
mod conntrack;

use std::time::Duration;

use metrics::{counter, gauge};
use tracing::{info, warn};
use weir_proto::{Flow, Ip};

use crate::{
    clock::{self, Clock},
    metrics as told,
};
use bindings::{Bindings, Endpoint, Tuple};
use conntrack::{Change, Conntrack, Error};

/// The value of the label `feature` in `/metrics`.
const FEATURE: &str = "nat";
/// Most translated connections that are kept, about 350 bytes each.
const MAX_CONNECTIONS: usize = 131_072;
/// How often a kernel that offers no conntrack is asked again: its module may come with the first rule.
const AGAIN: Duration = Duration::from_mins(1);
/// Between two readings of the whole table, where events are lost all the time.
const BETWEEN_TABLES: Duration = Duration::from_secs(10);

/// Knows translated connections. It belongs to the thread that keeps the right to ask for them, `CAP_NET_ADMIN`.
#[derive(Debug)]
pub(crate) struct Nat {
    source: Source,
    bindings: Bindings,
    /// When events were last read, `CLOCK_BOOTTIME` in nanoseconds.
    read_at: u64,
}

#[derive(Debug)]
enum Source {
    /// Nobody wants it.
    Off,
    Open {
        conntrack: Conntrack,
        /// Events were lost: the table is to be read again.
        has_gap: bool,
        table_at: u64,
    },
    Missing {
        since: u64,
        /// Said once.
        reason: String,
    },
}

impl Nat {
    /// Begins to listen, in the network namespace of this thread. What is missing for it is said in the log and in `/metrics`.
    pub(crate) fn open(wanted: bool) -> Self {
        let mut nat = Self { source: Source::Off, bindings: Bindings::new(MAX_CONNECTIONS), read_at: 0 };
        if wanted {
            nat.connect(clock::boot_ns().unwrap_or_default(), "");
        }
        nat
    }

    /// Writes into records what their ends are, where they are translated. `clock` is the one that made their times.
    pub(crate) fn tell(&mut self, flows: &mut [Flow], clock: Clock) {
        if matches!(self.source, Source::Off) {
            return;
        }
        self.catch_up();
        if self.bindings.is_empty() {
            return;
        }
        for flow in flows {
            name(flow, &self.bindings, clock.to_boot_ns(flow.end_time));
        }
    }

    fn connect(&mut self, now: u64, said: &str) {
        let opened = Conntrack::open().and_then(|mut conntrack| {
            self.read_table(&mut conntrack, 0, now)?;
            Ok(conntrack)
        });
        self.source = match opened {
            Ok(conntrack) => {
                info!(feature = FEATURE, hook = "conntrack", "available");
                Source::Open { conntrack, has_gap: false, table_at: now }
            }
            Err(error) => {
                let reason = error.chain();
                if reason != said {
                    warn!(
                        feature = FEATURE,
                        hook = "conntrack",
                        reason,
                        "not available: translated ends are known by their outer addresses"
                    );
                }
                Source::Missing { since: now, reason }
            }
        };
        told::feature(FEATURE, matches!(self.source, Source::Open { .. }));
    }

    /// Takes in what happened since the last time.
    fn catch_up(&mut self) {
        let Ok(now) = clock::boot_ns() else { return };
        match std::mem::replace(&mut self.source, Source::Off) {
            Source::Off => {}
            Source::Missing { since, reason } if elapsed(since, now) >= AGAIN => self.connect(now, &reason),
            missing @ Source::Missing { .. } => self.source = missing,
            Source::Open { mut conntrack, mut has_gap, mut table_at } => {
                has_gap |= self.read_events(&mut conntrack, now);
                if has_gap && elapsed(table_at, now) >= BETWEEN_TABLES {
                    // It may have begun at any time since events were last whole.
                    let since = table_at;
                    table_at = now;
                    match self.read_table(&mut conntrack, since, now) {
                        Ok(()) => has_gap = false,
                        Err(error) => warn!(reason = error.chain(), "cannot read the table of connections"),
                    }
                }
                self.source = Source::Open { conntrack, has_gap, table_at };
            }
        }
        self.read_at = now;
        self.bindings.forget_old(now);
        gauge!("weir_capture_nat_connections").set(self.bindings.len() as f64);
        counter!("weir_capture_nat_connections_lost_total").absolute(self.bindings.lost());
    }

    /// Returns whether some were lost.
    fn read_events(&mut self, conntrack: &mut Conntrack, now: u64) -> bool {
        let (bindings, since) = (&mut self.bindings, self.read_at);
        let read = conntrack.events(|change| match change {
            Change::New(connection) => bindings.begin(connection, since, now),
            Change::Destroyed(connection) => bindings.end(&connection, now),
        });
        counter!("weir_capture_nat_unreadable_total").increment(read.unreadable);
        if read.has_gap {
            counter!("weir_capture_nat_gaps_total").increment(1);
        }
        read.has_gap
    }

    fn read_table(&mut self, conntrack: &mut Conntrack, since: u64, now: u64) -> Result<(), Error> {
        self.bindings.begin_table();
        let bindings = &mut self.bindings;
        let unreadable = conntrack.table(|connection| bindings.begin(connection, since, now))?;
        counter!("weir_capture_nat_unreadable_total").increment(unreadable);
        self.bindings.end_table(now);
        Ok(())
    }
}

fn elapsed(since: u64, now: u64) -> Duration {
    Duration::from_nanos(now.saturating_sub(since))
}

/// Writes what the ends of a record are, if it shows a translated connection; `at` = its last packet, `CLOCK_BOOTTIME` in nanoseconds.
fn name(flow: &mut Flow, bindings: &Bindings, at: u64) {
    let (Ok(protocol), Ok(src_port), Ok(dst_port)) =
        (u8::try_from(flow.protocol), u16::try_from(flow.src_port), u16::try_from(flow.dst_port))
    else {
        return;
    };
    let src = Endpoint { address: Ip::new(flow.src_ip_high, flow.src_ip_low), port: src_port };
    let dst = Endpoint { address: Ip::new(flow.dst_ip_high, flow.dst_ip_low), port: dst_port };
    let Some([src_is, dst_is]) = bindings.ends(Tuple { protocol, src, dst }, at) else { return };
    if src_is != src {
        (flow.src_nat_ip_high, flow.src_nat_ip_low) = (src_is.address.high, src_is.address.low);
        flow.src_nat_port = src_is.port.into();
    }
    if dst_is != dst {
        (flow.dst_nat_ip_high, flow.dst_nat_ip_low) = (dst_is.address.high, dst_is.address.low);
        flow.dst_nat_port = dst_is.port.into();
    }
}

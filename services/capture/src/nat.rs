//! Address translation: what the ends of a translated flow are on their own side, as the kernel's connection tracking (conntrack) says.
//!
//! A connection that this host translates looks different before and after. Conntrack knows both sides: the original tuple, with who began,
//! and the reply tuple, with who answers. A record that shows either side gets what its ends really are. Connections are learned from the
//! kernel's events, so that short ones are known too, and from its table at the start and where events were lost.
//!
//! The same goes for rows of DNS, TLS and HTTP. They are made by another thread than flows are, which reads events, but not the table.

mod bindings;
mod conntrack;
mod echoes;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::{counter, gauge};
use tracing::{info, warn};
use weir_capture_common::{icmp, initiator::TCP};
use weir_proto::{Batch, Flow, Ip};

use crate::{
    clock::{self, Clock},
    metrics as told,
};
use bindings::{Bindings, Endpoint, Tuple};
use conntrack::{Change, Conntrack, Error};
use echoes::Echoes;

/// The value of the label `feature` in `/metrics`.
const FEATURE: &str = "nat";
/// Most translated connections that are kept, about 350 bytes each.
const MAX_CONNECTIONS: usize = 131_072;
/// Most conversations of ICMP, about 500 bytes each.
const MAX_ECHOES: usize = 16_384;
/// How often a kernel that offers no conntrack is asked again: its module may come with the first rule.
const AGAIN: Duration = Duration::from_mins(1);
/// Between two readings of the whole table, where events are lost all the time.
const BETWEEN_TABLES: Duration = Duration::from_secs(10);

/// Knows translated connections, for several threads.
#[derive(Clone, Debug)]
pub struct Nat(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    source: Source,
    bindings: Bindings,
    echoes: Echoes,
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
    /// Knows nothing before it is opened.
    pub(crate) fn new() -> Self {
        let (bindings, echoes) = (Bindings::new(MAX_CONNECTIONS), Echoes::new(MAX_ECHOES));
        Self(Arc::new(Mutex::new(Known { source: Source::Off, bindings, echoes, read_at: 0 })))
    }

    /// Begins to listen, in the network namespace of this thread, which keeps the right to ask, `CAP_NET_ADMIN`. What is missing for it is
    /// said in the log and in `/metrics`.
    pub(crate) fn open(&self) {
        self.lock().connect(clock::boot_ns().unwrap_or_default(), "");
    }

    /// Writes into records what their ends are, where they are translated. `clock` is the one that made their times. For the thread that has
    /// opened it.
    pub(crate) fn tell(&self, flows: &mut [Flow], clock: Clock) {
        let mut known = self.lock();
        known.catch_up(true);
        // Those with addresses of a container are not of this conntrack.
        for flow in flows.iter_mut().filter(|flow| flow.network_namespace == 0) {
            known.name(flow, clock);
        }
    }

    /// The same for rows, for any thread.
    pub(crate) fn tell_rows(&self, rows: &mut Batch, clock: Clock) {
        let mut known = self.lock();
        known.catch_up(false);
        for row in &mut rows.dns {
            let ends = [row.src_ip_high, row.src_ip_low, row.dst_ip_high, row.dst_ip_low];
            let [src, dst] = known.behind(ends, [row.src_port, row.dst_port], row.protocol, clock.to_boot_ns(row.time));
            (row.src_nat_ip_high, row.src_nat_ip_low) = (src.high, src.low);
            (row.dst_nat_ip_high, row.dst_nat_ip_low) = (dst.high, dst.low);
        }
        for row in &mut rows.tls {
            let ends = [row.src_ip_high, row.src_ip_low, row.dst_ip_high, row.dst_ip_low];
            let [src, dst] = known.behind(ends, [row.src_port, row.dst_port], row.protocol, clock.to_boot_ns(row.time));
            (row.src_nat_ip_high, row.src_nat_ip_low) = (src.high, src.low);
            (row.dst_nat_ip_high, row.dst_nat_ip_low) = (dst.high, dst.low);
        }
        for row in &mut rows.http {
            let ends = [row.src_ip_high, row.src_ip_low, row.dst_ip_high, row.dst_ip_low];
            let [src, dst] = known.behind(ends, [row.src_port, row.dst_port], TCP.into(), clock.to_boot_ns(row.time));
            (row.src_nat_ip_high, row.src_nat_ip_low) = (src.high, src.low);
            (row.dst_nat_ip_high, row.dst_nat_ip_low) = (dst.high, dst.low);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
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

    /// Takes in what happened since the last time; `may_ask`: this thread has the right to read the table.
    fn catch_up(&mut self, may_ask: bool) {
        let Ok(now) = clock::boot_ns() else { return };
        match std::mem::replace(&mut self.source, Source::Off) {
            Source::Off => return,
            Source::Missing { since, reason } if may_ask && elapsed(since, now) >= AGAIN => self.connect(now, &reason),
            missing @ Source::Missing { .. } => self.source = missing,
            Source::Open { mut conntrack, mut has_gap, mut table_at } => {
                if self.read_events(&mut conntrack, now) {
                    has_gap = true;
                    self.echoes.doubt();
                }
                let wanted = has_gap || self.echoes.wants_table();
                if may_ask && wanted && elapsed(table_at, now) >= BETWEEN_TABLES {
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
        self.echoes.forget_old(now);
        gauge!("weir_capture_nat_connections").set((self.bindings.len() + self.echoes.len()) as f64);
        counter!("weir_capture_nat_connections_lost_total").absolute(self.bindings.lost() + self.echoes.lost());
    }

    /// Returns whether some were lost.
    fn read_events(&mut self, conntrack: &mut Conntrack, now: u64) -> bool {
        let (bindings, echoes, since) = (&mut self.bindings, &mut self.echoes, self.read_at);
        let read = conntrack.events(|change| match change {
            Change::New(connection) if is_icmp(connection.original.protocol) => echoes.begin(connection, since),
            Change::Destroyed(connection) if is_icmp(connection.original.protocol) => echoes.end(&connection, now),
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
        let (bindings, echoes) = (&mut self.bindings, &mut self.echoes);
        bindings.begin_table();
        echoes.begin_table();
        let unreadable = conntrack.table(|connection| {
            if is_icmp(connection.original.protocol) {
                echoes.begin(connection, since);
            } else {
                bindings.begin(connection, since, now);
            }
        })?;
        counter!("weir_capture_nat_unreadable_total").increment(unreadable);
        bindings.end_table(now);
        echoes.end_table(now);
        Ok(())
    }

    /// Writes what the ends of a record are, if it shows a translated connection.
    fn name(&self, flow: &mut Flow, clock: Clock) {
        let [src_ip, dst_ip] = [Ip::new(flow.src_ip_high, flow.src_ip_low), Ip::new(flow.dst_ip_high, flow.dst_ip_low)];
        let Some(shown) = shown([src_ip, dst_ip], [flow.src_port, flow.dst_port], flow.protocol) else { return };
        let Some([src, dst]) = self.ends(shown, clock.to_boot_ns(flow.start_time), clock.to_boot_ns(flow.end_time))
        else {
            return;
        };
        if src != shown.src {
            (flow.src_nat_ip_high, flow.src_nat_ip_low) = (src.address.high, src.address.low);
            flow.src_nat_port = src.port.into();
        }
        if dst != shown.dst {
            (flow.dst_nat_ip_high, flow.dst_nat_ip_low) = (dst.address.high, dst.address.low);
            flow.dst_nat_port = dst.port.into();
        }
    }

    /// The addresses behind both ends of an exchange; `::` = it is not translated.
    fn behind(
        &self,
        [src_high, src_low, dst_high, dst_low]: [u64; 4],
        ports: [u32; 2],
        protocol: u32,
        at: u64,
    ) -> [Ip; 2] {
        let ips = [Ip::new(src_high, src_low), Ip::new(dst_high, dst_low)];
        let known = shown(ips, ports, protocol).and_then(|shown| Some((shown, self.ends(shown, at, at)?)));
        let Some((shown, [src, dst])) = known else { return [Ip::default(); 2] };
        [(src, shown.src), (dst, shown.dst)].map(|(is, shows)| if is == shows { Ip::default() } else { is.address })
    }

    /// What the ends of a flow are that has packets from one time to another.
    fn ends(&self, flow: Tuple, from: u64, to: u64) -> Option<[Endpoint; 2]> {
        if is_icmp(flow.protocol) { self.echoes.ends(&flow, from, to) } else { self.bindings.ends(flow, to) }
    }
}

fn elapsed(since: u64, now: u64) -> Duration {
    Duration::from_nanos(now.saturating_sub(since))
}

fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, icmp::ICMP | icmp::ICMPV6)
}

fn shown([src, dst]: [Ip; 2], [src_port, dst_port]: [u32; 2], protocol: u32) -> Option<Tuple> {
    Some(Tuple {
        protocol: u8::try_from(protocol).ok()?,
        src: Endpoint { address: src, port: u16::try_from(src_port).ok()? },
        dst: Endpoint { address: dst, port: u16::try_from(dst_port).ok()? },
    })
}

#[cfg(test)]
mod tests {
    use weir_proto::Dns;

    use super::{bindings::Connection, *};

    #[test]
    fn a_row_tells_both_ends_and_only_those_that_are_translated() {
        let nat = Nat::new();
        let clock = Clock::sample().unwrap();
        let ip = |last: u64| Ip::new(0, 0xffff_c000_0200 | last);
        let end = |last, port| Endpoint { address: ip(last), port };
        // The container 2 behind the host 1 asks the server 3, and the client 4 asks the port 5353 of the host, which leads to the container.
        let asks = Connection {
            original: Tuple { protocol: 17, src: end(2, 4000), dst: end(3, 53) },
            reply: Tuple { protocol: 17, src: end(3, 53), dst: end(1, 4000) },
            ..Connection::default()
        };
        let asked = Connection {
            original: Tuple { protocol: 17, src: end(4, 4000), dst: end(1, 5353) },
            reply: Tuple { protocol: 17, src: end(2, 53), dst: end(4, 4000) },
            ..Connection::default()
        };
        for connection in [asks, asked] {
            nat.lock().bindings.begin(connection, 0, 0);
        }
        let row = |src: u64, dst: u64, ports: (u32, u32)| Dns {
            time: clock.to_utc_us(clock::boot_ns().unwrap()),
            src_ip_low: ip(src).low,
            dst_ip_low: ip(dst).low,
            src_port: ports.0,
            dst_port: ports.1,
            protocol: 17,
            ..Dns::default()
        };
        let dns = vec![row(1, 3, (4000, 53)), row(4, 1, (4000, 5353)), row(2, 3, (4000, 53)), row(1, 3, (4001, 53))];
        let mut rows = Batch { dns, ..Batch::default() };
        nat.tell_rows(&mut rows, clock);
        let told: Vec<_> = rows.dns.iter().map(|row| (row.src_nat_ip_low, row.dst_nat_ip_low)).collect();
        assert_eq!(told, [(ip(2).low, 0), (0, ip(2).low), (0, 0), (0, 0)]);
    }
}

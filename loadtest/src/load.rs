//! The known flows. Pure: the same load is the same flows, for ever.

use uuid::Uuid;
use weir_proto::{Batch, EndReason, Flow, Source};

/// How much of what.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Load {
    /// Flows a second; 0 = as fast as it goes
    #[arg(long, value_name = "FLOWS", default_value_t = 50_000)]
    pub(crate) rate: u64,
    /// Seconds; the load is rate times seconds (with rate 0: 100,000 times seconds)
    #[arg(long, default_value_t = 20)]
    pub(crate) seconds: u64,
    /// Flows in a batch
    #[arg(long, value_name = "FLOWS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=5000))]
    pub(crate) batch: u64,
    /// Name of the load: part of its host's name, so that several loads stand beside each other
    #[arg(long, default_value = "1")]
    pub(crate) run: String,
}

impl Load {
    /// How many flows.
    pub(crate) fn flows(&self) -> u64 {
        self.seconds * if self.rate == 0 { 100_000 } else { self.rate }
    }

    /// How many batches.
    pub(crate) fn batches(&self) -> u64 {
        self.flows().div_ceil(self.batch)
    }

    /// The host that the flows name.
    pub(crate) fn host(&self) -> String {
        format!("loadtest-{}", self.run)
    }

    /// Batch number `sequence`, from 1.
    pub(crate) fn make(&self, producer: Uuid, sequence: u64, now: u64) -> Batch {
        let first = (sequence - 1) * self.batch;
        Batch {
            producer: producer.as_bytes().to_vec(),
            sequence,
            host: self.host(),
            source: Source::Ebpf as i32,
            flows: (first..(first + self.batch).min(self.flows())).map(|n| flow(n, now)).collect(),
            ..Batch::default()
        }
    }

    /// What the tables must say.
    pub(crate) fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for n in 0..self.flows() {
            sums.add(&flow(n, 0));
        }
        sums
    }
}

/// Count and sums (of 64 bits, wrapping) of a set of flows: a missing, doubled or altered one shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Sums {
    pub(crate) flows: u64,
    pub(crate) flow_ids: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) packets: u64,
    pub(crate) ports: u64,
    pub(crate) rtt: u64,
}

impl Sums {
    /// The same of the table, for the flows of `{host:String}`.
    pub(crate) const SQL: &str = "SELECT count() AS flows, sum(flow_id) AS flow_ids, sum(tx_bytes) AS tx_bytes, \
        sum(rx_bytes) AS rx_bytes, sum(tx_packets + rx_packets) AS packets, sum(src_port * 65536 + dst_port) AS ports, \
        sum(ifNull(rtt_us, 0)) AS rtt FROM flows WHERE host = {host:String}";

    fn add(&mut self, flow: &Flow) {
        self.flows += 1;
        self.flow_ids = self.flow_ids.wrapping_add(flow.flow_id);
        self.tx_bytes = self.tx_bytes.wrapping_add(flow.tx_bytes);
        self.rx_bytes = self.rx_bytes.wrapping_add(flow.rx_bytes);
        self.packets = self.packets.wrapping_add(flow.tx_packets + flow.rx_packets);
        self.ports = self.ports.wrapping_add(u64::from(flow.src_port) * 65_536 + u64::from(flow.dst_port));
        self.rtt = self.rtt.wrapping_add(u64::from(flow.rtt_us.unwrap_or(0)));
    }
}

/// Flow number `n`: clients of one network with services of another, sizes over four orders of magnitude, every flow of two records.
fn flow(n: u64, now: u64) -> Flow {
    const SERVICES: [(u32, u32, &str); 8] = [
        (443, 6, "tls"),
        (443, 6, "tls"),
        (80, 6, "http"),
        (53, 17, "dns"),
        (5432, 6, ""),
        (6379, 6, ""),
        (443, 17, ""),
        (22, 6, "ssh"),
    ];
    // The two records of a flow follow each other a hundred flows apart.
    let id = mix(n / 200 * 100 + n % 100);
    let last = n / 100 % 2 == 1;
    let (port, protocol, app) = SERVICES[(id >> 8 & 7) as usize];
    let packets = 1 + (mix(n) >> 5 & 0x3f).pow(2) / 8;
    let tcp = protocol == 6;
    Flow {
        start_time: now + mix(n ^ 1) % 5_000_000,
        end_time: now + 5_000_000 + mix(n ^ 2) % 1_000_000,
        interface: "eth0".to_owned(),
        flow_id: id,
        src_ip_low: 0xffff_0a00_0000 | (id >> 16 & 0x3ff),
        dst_ip_low: 0xffff_0a01_0000 | (id >> 32 & 0x3f),
        src_port: 32_768 + (id >> 40 & 0x6fff) as u32,
        dst_port: port,
        protocol,
        tx_bytes: packets * (60 + (id >> 20 & 0xff)),
        tx_packets: packets,
        rx_bytes: packets * (60 + (id >> 12 & 0x3ff)),
        rx_packets: packets,
        tcp_flags_tx: if tcp { 0x1b } else { 0 },
        tcp_flags_rx: if tcp { 0x1b } else { 0 },
        end_reason: match (last, tcp) {
            (false, _) => EndReason::Active,
            (true, true) => EndReason::Fin,
            (true, false) => EndReason::Idle,
        } as i32,
        rtt_us: tcp.then_some(200 + (mix(n ^ 3) & 0x7ff) as u32),
        app: app.to_owned(),
        ..Flow::default()
    }
}

/// Spreads a number over 64 bits (the finaliser of `SplitMix64`).
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(rate: u64, seconds: u64, batch: u64) -> Load {
        Load { rate, seconds, batch, run: "t".into() }
    }

    #[test]
    fn batches_hold_all_flows_once() {
        let load = load(1001, 3, 250);
        let mut sums = Sums::default();
        for sequence in 1..=load.batches() {
            for flow in load.make(Uuid::nil(), sequence, 7).flows {
                sums.add(&flow);
            }
        }
        assert_eq!(sums, load.sums());
        assert_eq!(sums.flows, 3003);
    }

    #[test]
    fn a_flow_has_two_records() {
        let ids: std::collections::HashSet<_> = (0..2000).map(|n| flow(n, 0).flow_id).collect();
        assert_eq!(ids.len(), 1000);
    }
}

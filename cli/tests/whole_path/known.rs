//! Known records, from a producer with a spool of its own.

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use weir_bus::{Bus, Publisher, names};
use weir_proto::{Batch, EndReason, Flow, Ip, Source};

use crate::weir::{DEADLINE, Weir};

pub(crate) const PER_BATCH: u64 = 500;

/// Makes the records 0, 1, 2, ... of the host `known`.
pub(crate) struct Producer {
    publisher: Publisher,
    runtime: Runtime,
    _spool: TempDir,
}

impl Producer {
    pub(crate) fn new(weir: &Weir) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
        let spool = tempfile::tempdir().expect("tempdir");
        let options = weir_bus::Options {
            nats_url: weir.nats_url(),
            nats_credentials: None,
            records_max_bytes: 1 << 30,
            uploads_max_bytes: 1 << 30,
        };
        let publisher = runtime.block_on(async {
            let bus = Bus::connect(&options, "whole-path test").await.expect("connect");
            bus.ready(&CancellationToken::new(), |_| ()).await.expect("ready");
            Publisher::open(bus, names::RECORDS_EBPF, "known", spool.path(), 1 << 30).expect("spool")
        });
        Self { publisher, runtime, _spool: spool }
    }

    /// Publishes the records `from..to` and returns where it stopped.
    pub(crate) fn publish(&self, from: u64, to: u64) -> u64 {
        let mut next = from;
        while next < to {
            let end = (next + PER_BATCH).min(to);
            let flows = (next..end).map(known).collect();
            let batch = Batch { source: Source::Ebpf.into(), flows, ..Batch::default() };
            assert!(self.publisher.publish(batch), "the spool takes it");
            next = end;
        }
        next
    }

    /// Waits until the stream has all.
    pub(crate) fn close(self) {
        assert_eq!(self.runtime.block_on(self.publisher.close(DEADLINE)), 0, "all is published");
    }
}

/// Waits until the tables hold the records `0..records`, each once.
pub(crate) fn holds_exactly(weir: &Weir, records: u64) {
    let bytes: u64 = (0..records).sum();
    weir.eventually(
        "SELECT count() AS records, uniqExact(flow_id) AS different, toString(sum(tx_bytes)) AS bytes FROM flows WHERE host = 'known'",
        &serde_json::json!({"records": records, "different": records, "bytes": bytes.to_string()}),
    );
}

fn known(number: u64) -> Flow {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros() as u64;
    let (src, dst) = (Ip::from([1; 16]), Ip::from([2; 16]));
    Flow {
        start_time: now,
        end_time: now,
        flow_id: number,
        src_ip_high: src.high,
        src_ip_low: src.low,
        dst_ip_high: dst.high,
        dst_ip_low: dst.low,
        protocol: 6,
        tx_bytes: number,
        tx_packets: 1,
        end_reason: EndReason::Fin.into(),
        ..Flow::default()
    }
}

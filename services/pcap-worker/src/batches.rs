//! Records into batches. Where a batch ends follows from the records alone, so that an analysis that is done again makes the same ones.

use prost::Message as _;
use uuid::Uuid;
use weir_flow::Record;
use weir_proto::{Batch, Source};

/// Records of one batch: the ingester cuts its blocks at batches.
const MAX_RECORDS: usize = 2000;
/// Bytes of one batch before compression; a message may have 1 MiB.
const MAX_BYTES: usize = 512 << 10;

/// Gathers records.
#[derive(Debug)]
pub struct Batcher {
    batch: Batch,
    records: usize,
    bytes: usize,
}

impl Batcher {
    /// For the batches of one analysis of a capture, which is their producer.
    #[must_use]
    pub fn new(analysis_id: Uuid, capture_id: Uuid) -> Self {
        let batch = Batch {
            producer: analysis_id.as_bytes().to_vec(),
            sequence: 1,
            source: Source::Pcap.into(),
            capture_id: capture_id.as_bytes().to_vec(),
            ..Batch::default()
        };
        Self { batch, records: 0, bytes: 0 }
    }

    /// Adds a record; gives the batch before it where it is full.
    pub fn push(&mut self, record: Record) -> Option<Batch> {
        let bytes = match &record {
            Record::Flow(flow) => flow.encoded_len(),
            Record::Dns(dns) => dns.encoded_len(),
            Record::Tls(tls) => tls.encoded_len(),
            Record::Http(http) => http.encoded_len(),
            Record::Finding(finding) => finding.encoded_len(),
        };
        let full = self.records == MAX_RECORDS || (self.records > 0 && self.bytes + bytes > MAX_BYTES);
        let finished = if full { self.finish() } else { None };
        self.records += 1;
        self.bytes += bytes;
        match record {
            Record::Flow(flow) => self.batch.flows.push(flow),
            Record::Dns(dns) => self.batch.dns.push(dns),
            Record::Tls(tls) => self.batch.tls.push(tls),
            Record::Http(http) => self.batch.http.push(http),
            Record::Finding(finding) => self.batch.findings.push(finding),
        }
        finished
    }

    /// Gives what was gathered, if anything.
    pub fn finish(&mut self) -> Option<Batch> {
        if self.records == 0 {
            return None;
        }
        (self.records, self.bytes) = (0, 0);
        let next = Batch {
            producer: self.batch.producer.clone(),
            sequence: self.batch.sequence + 1,
            source: self.batch.source,
            capture_id: self.batch.capture_id.clone(),
            ..Batch::default()
        };
        Some(std::mem::replace(&mut self.batch, next))
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::{Dns, Flow};

    use super::*;

    fn batches(records: impl Iterator<Item = Record>) -> Vec<Batch> {
        let mut batcher = Batcher::new(Uuid::from_u128(1), Uuid::from_u128(2));
        let mut batches: Vec<Batch> = records.filter_map(|record| batcher.push(record)).collect();
        batches.extend(batcher.finish());
        assert_eq!(batcher.finish(), None);
        batches
    }

    #[test]
    fn batches_are_numbered_and_hold_every_record_once() {
        let records = (0..4500u64).map(|flow_id| Record::Flow(Flow { flow_id, ..Flow::default() }));
        let batches = batches(records);
        assert_eq!(
            batches.iter().map(|batch| (batch.sequence, batch.flows.len())).collect::<Vec<_>>(),
            [(1, 2000), (2, 2000), (3, 500)]
        );
        let ids: Vec<u64> = batches.iter().flat_map(|batch| batch.flows.iter().map(|flow| flow.flow_id)).collect();
        assert_eq!(ids, (0..4500).collect::<Vec<_>>());
        assert!(batches.iter().all(|batch| batch.producer == Uuid::from_u128(1).as_bytes()));
    }

    #[test]
    fn large_records_end_a_batch_early() {
        let large = || Record::Dns(Dns { qname: "x".repeat(200 << 10), ..Dns::default() });
        let sizes: Vec<usize> = batches((0..5).map(|_| large())).iter().map(|batch| batch.dns.len()).collect();
        assert_eq!(sizes, [2, 2, 1]);
    }
}

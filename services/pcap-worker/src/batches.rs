//! Records into batches. Where a batch ends follows from the records alone, so that an analysis that is done again makes the same ones.

use prost::{Message, decode_length_delimiter, encode_length_delimiter};
use uuid::Uuid;
use weir_bus::PlainBatch;
use weir_flow::Record;
use weir_proto::{Batch, Source, batch::field};

/// Records of one batch: the ingester cuts its blocks at batches.
const MAX_RECORDS: usize = 2000;
/// Bytes of one batch before compression; a message may have 1 MiB.
const MAX_BYTES: usize = 512 << 10;

/// Gathers records, as what they are encoded to: a flow takes a tenth of its memory then, and that memory is at once the next one's.
#[derive(Debug)]
pub struct Batcher {
    /// A batch without records.
    names: Batch,
    records: usize,
    /// Bytes of these alone.
    length: usize,
    bytes: Vec<u8>,
}

impl Batcher {
    /// For the batches of one analysis of a capture, which is their producer.
    #[must_use]
    pub fn new(analysis_id: Uuid, capture_id: Uuid) -> Self {
        let names = Batch {
            producer: analysis_id.as_bytes().to_vec(),
            sequence: 1,
            source: Source::Pcap.into(),
            capture_id: capture_id.as_bytes().to_vec(),
            ..Batch::default()
        };
        Self { names, records: 0, length: 0, bytes: Vec::new() }
    }

    /// Adds a record; gives the batch before it where it is full.
    pub fn push(&mut self, record: &Record) -> Option<PlainBatch> {
        if self.records == 0 {
            self.begin();
        }
        let start = self.bytes.len();
        let length = self.encode(record);
        let full = self.records == MAX_RECORDS || (self.records > 0 && self.length + length > MAX_BYTES);
        let finished = if full {
            let first_of_next = self.bytes.split_off(start);
            let finished = self.finish();
            self.begin();
            self.bytes.extend(first_of_next);
            finished
        } else {
            None
        };
        self.records += 1;
        self.length += length;
        finished
    }

    /// Gives what was gathered, if anything.
    pub fn finish(&mut self) -> Option<PlainBatch> {
        if self.records == 0 {
            return None;
        }
        (self.records, self.length) = (0, 0);
        let batch = PlainBatch {
            producer: Uuid::from_slice(&self.names.producer).unwrap_or_default(),
            sequence: self.names.sequence,
            bytes: std::mem::take(&mut self.bytes),
        };
        self.names.sequence += 1;
        Some(batch)
    }

    fn begin(&mut self) {
        self.bytes = Vec::with_capacity(MAX_BYTES);
        self.bytes.extend(self.names.encode_to_vec());
    }

    /// Adds a record to the bytes, under the number that its kind has in a batch. How long it is.
    fn encode(&mut self, record: &Record) -> usize {
        match record {
            Record::Flow(flow) => self.field(field::FLOWS, flow),
            Record::Dns(dns) => self.field(field::DNS, dns),
            Record::Tls(tls) => self.field(field::TLS, tls),
            Record::Http(http) => self.field(field::HTTP, http),
            Record::Finding(finding) => self.field(field::FINDINGS, finding),
        }
    }

    fn field(&mut self, number: usize, record: &impl Message) -> usize {
        let endless = "a list has room for what is added to it";
        // The key of a field that begins with its length.
        encode_length_delimiter(number << 3 | 2, &mut self.bytes).expect(endless);
        let start = self.bytes.len();
        record.encode_length_delimited(&mut self.bytes).expect(endless);
        decode_length_delimiter(&self.bytes[start..]).expect("it was just written")
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::{Dns, Finding, Flow, Http, Tls};

    use super::*;

    fn batches(records: impl Iterator<Item = Record>) -> Vec<Batch> {
        let mut batcher = Batcher::new(Uuid::from_u128(1), Uuid::from_u128(2));
        let mut batches: Vec<PlainBatch> = records.filter_map(|record| batcher.push(&record)).collect();
        batches.extend(batcher.finish());
        assert!(batcher.finish().is_none());
        let decoded = |batch: &PlainBatch| {
            let decoded = Batch::decode(batch.bytes.as_slice()).expect("a batch");
            assert_eq!((&decoded.producer[..], decoded.sequence), (&batch.producer.as_bytes()[..], batch.sequence));
            decoded
        };
        batches.iter().map(decoded).collect()
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

    #[test]
    fn every_kind_of_record_comes_into_its_list() {
        let (flow, dns) = (Flow { flow_id: 1, ..Flow::default() }, Dns { qname: "a".into(), ..Dns::default() });
        let (tls, http) = (Tls { sni: "b".into(), ..Tls::default() }, Http { path: "/".into(), ..Http::default() });
        let finding = Finding { summary: "c".into(), ..Finding::default() };
        let records = [
            Record::Finding(finding.clone()),
            Record::Http(http.clone()),
            Record::Flow(flow.clone()),
            Record::Tls(tls.clone()),
            Record::Dns(dns.clone()),
        ];
        let expected = Batch {
            producer: Uuid::from_u128(1).as_bytes().to_vec(),
            sequence: 1,
            source: Source::Pcap.into(),
            capture_id: Uuid::from_u128(2).as_bytes().to_vec(),
            flows: vec![flow],
            dns: vec![dns],
            tls: vec![tls],
            http: vec![http],
            findings: vec![finding],
            ..Batch::default()
        };
        assert_eq!(batches(records.into_iter()), [expected]);
    }
}

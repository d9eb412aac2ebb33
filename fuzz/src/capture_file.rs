//! Capture files in all forms and packings, and their whole analysis up to the report.

use std::io::{Cursor, Read};

use weir_flow::{Config, Record};
use weir_pcap_worker::analysis::{Live, analyse};
use weir_pcap_worker::capture_file::{CaptureFile, Limits, MAX_PACKET, Progress, Stop};
use weir_pcap_worker::report::{About, report, to_json};

use crate::frames::sums_hold;

const LIMITS: Limits = Limits { bytes: 4 << 20, ratio: 50, ratio_from: 256 << 10 };

/// Number, time, length on the wire, bytes.
type Packet = (u64, u64, u32, Vec<u8>);

/// A file.
pub(crate) fn read(data: &[u8]) {
    let whole = packets(Cursor::new(data.to_vec()));
    assert_eq!(packets(Slow(Cursor::new(data.to_vec()))), whole, "however slowly it comes, it is the same file");
    let (Some((whole, _)), Some((part, _))) = (whole, packets(Cursor::new(data[..data.len() / 2].to_vec()))) else {
        return;
    };
    // Of damaged compression the pieces before the damage may be lost with it.
    assert!(whole.starts_with(&part) || part.starts_with(&whole), "the beginning of a file holds its first packets");
}

/// The packets, and how it ended; none where it is no capture.
fn packets(source: impl Read + Send + 'static) -> Option<(Vec<Packet>, String)> {
    let mut file = CaptureFile::open(source, LIMITS, &Progress::default()).ok()?;
    let mut packets = Vec::new();
    let end = loop {
        match file.next_packet() {
            Ok(Some(packet)) => {
                assert!(packet.data.len() <= MAX_PACKET as usize && packet.number == packets.len() as u64 + 1);
                packets.push((packet.number, packet.time_us, packet.original_length, packet.data.to_vec()));
            }
            Ok(None) => break "end".to_owned(),
            Err(Stop::Source(error)) => unreachable!("memory can be read: {error}"),
            // Behind a damaged place a decompressor may give more or less, as it is asked.
            Err(Stop::Damage(_) | Stop::Bomb(_)) => break "damage".to_owned(),
        }
    };
    Some((packets, end))
}

/// Gives a byte at a time.
struct Slow(Cursor<Vec<u8>>);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}

/// A file, analysed, and its report in all forms.
pub(crate) fn analysed(data: &[u8]) {
    let mut records: Vec<Record> = Vec::new();
    let source = Cursor::new(data.to_vec());
    let analysis = analyse(source, LIMITS, Config::default().within(8 << 20), &Live::default(), |record| {
        records.push(record.clone());
        Ok(())
    });
    let Ok(analysis) = analysis else { return };
    sums_hold(&records, &analysis.summary);
    let about =
        About { capture_id: None, name: "<script>".into(), size_bytes: data.len() as u64, thresholds: String::new() };
    let report = report(about, analysis);
    let json = to_json(&report).expect("a report can be written");
    let again: weir_report::Report = serde_json::from_str(&json).expect("and read");
    let page = weir_report::html(&again);
    assert!(!page.contains("<script"), "text of a stranger is not escaped");
    let _ = (weir_report::markdown(&again), weir_report::csv(&again, weir_report::Table::default()));
    let same = weir_report::Comparison::new(&again, &report);
    assert!(same.new_findings.is_empty() && same.gone_findings.is_empty(), "a report differs from itself");
}

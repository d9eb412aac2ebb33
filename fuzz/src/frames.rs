//! The whole analysis of frames: sums hold, memory is bounded, the same frames say the same, and less of them says less.

use weir_flow::analyzer::Summary;
use weir_flow::packet::{LinkType, Unanalysed};
use weir_flow::{Analyzer, Config, Frame, Record, dns, fragments, tracker};

use crate::heap;
use crate::packet::LINKS;
use crate::script::steps;

/// Bytes of the tables of an analysis.
const MEMORY: usize = 1 << 20;
/// What an analysis holds besides its tables: counts by name, and what findings are made of. Both grow with what is seen, up to bounds of
/// their own.
const BESIDES: usize = 4 << 20;

/// Byte 0: the link type; then steps: the choice is the time since the last frame, its bytes the frame.
pub(crate) fn run(data: &[u8]) {
    let Some((&link, data)) = data.split_first() else { return };
    let link_type = LinkType(LINKS[usize::from(link) % LINKS.len()]);
    let whole = small();
    let ((records, summary), most) = heap::most(|| analysed(data, link_type, usize::MAX, whole.clone()));
    let allowed = MEMORY + BESIDES + 64 * data.len();
    assert!(most <= allowed, "{most} bytes on the heap for {} of frames", data.len());
    sums_hold(&records, &summary);
    assert_eq!(analysed(data, link_type, usize::MAX, whole).0, records, "the same frames say the same");
    // In tables with room for all the same is counted.
    let (roomy_records, roomy) = analysed(data, link_type, usize::MAX, Config::default());
    sums_hold(&roomy_records, &roomy);
    assert_eq!((&roomy.unanalysed, roomy.frames), (&summary.unanalysed, summary.frames));
    // One that kept less of each frame.
    let (short_records, short) = analysed(data, link_type, 60, Config::default());
    sums_hold(&short_records, &short);
    assert_eq!(short.frames, roomy.frames);
    let not_there = summary.further_packets - short.further_packets;
    assert!(unread(&short) + not_there >= unread(&summary), "more of the frames can be read less");
    assert!(short.tls.hellos <= roomy.tls.hellos, "less of the frames has more hellos");
}

/// Frames that made no flow. What has too many layers has them only as far as it was kept.
fn unread(summary: &Summary) -> u64 {
    summary.unanalysed.iter().filter(|(reason, _)| **reason != Unanalysed::TooDeep).map(|(_, frames)| frames).sum()
}

/// Bounds that a few frames reach.
fn small() -> Config {
    let config = Config {
        producer: [7; 16],
        tracker: tracker::Limits { flows: 4, retired: 4, ..tracker::Limits::default() },
        fragments: fragments::Limits { entries: 4, ..fragments::Limits::default() },
        dns: dns::Limits { pending: 4, ..dns::Limits::default() },
        ..Config::default()
    };
    config.within(MEMORY)
}

fn analysed(data: &[u8], link_type: LinkType, snap: usize, config: Config) -> (Vec<Record>, Summary) {
    let mut analyzer = Analyzer::new(config);
    let mut records = Vec::new();
    let mut time_us = 1_700_000_000_000_000u64;
    for step in steps(data) {
        // Up to four minutes on, and now and then a little back.
        time_us = match step.choice {
            0xff => time_us - 1000,
            choice => time_us + u64::from(choice).pow(3) * 15,
        };
        let frame = Frame {
            time_us,
            link_type,
            data: &step.bytes[..step.bytes.len().min(snap)],
            original_length: step.bytes.len() as u32,
            interface: 0,
        };
        analyzer.packet(&frame);
        records.extend(analyzer.take_records());
    }
    while analyzer.finish_some() {
        records.extend(analyzer.take_records());
    }
    records.extend(analyzer.take_records());
    (records, analyzer.into_summary())
}

/// Frames are packets of records or are not analysed for a reason; so are packets inside tunnels.
pub(crate) fn sums_hold(records: &[Record], summary: &Summary) {
    let flows = || records.iter().filter_map(|record| if let Record::Flow(flow) = record { Some(flow) } else { None });
    let counted = |inside: bool| {
        flows().filter(|flow| flow.tunnel.is_empty() != inside).fold((0, 0), |(packets, bytes), flow| {
            (packets + flow.tx_packets + flow.rx_packets, bytes + flow.tx_bytes + flow.rx_bytes)
        })
    };
    let ((outer, outer_bytes), (inner, inner_bytes)) = (counted(false), counted(true));
    let packets = summary.frames.packets + summary.further_packets;
    assert_eq!(outer + summary.unanalysed.values().sum::<u64>(), packets, "frames");
    assert_eq!((inner, inner_bytes), (summary.inner.packets, summary.inner.bytes), "inside tunnels");
    let protocols = summary.protocols.values().fold((0, 0), |sum, of| (sum.0 + of.packets, sum.1 + of.bytes));
    assert_eq!((outer + inner, outer_bytes + inner_bytes), protocols, "by protocol");
    assert_eq!(flows().count() as u64, summary.flow_records, "records");
    assert!(summary.flows <= summary.flow_records, "flows");
    let rows = |wanted: fn(&Record) -> bool| records.iter().filter(|record| wanted(record)).count() as u64;
    assert_eq!(rows(|record| matches!(record, Record::Tls(_))), summary.tls.hellos, "client hellos");
    let dns = rows(|record| matches!(record, Record::Dns(_)));
    assert_eq!(dns, summary.dns.queries + summary.dns.unasked, "dns");
    for flow in flows() {
        assert!(flow.start_time <= flow.end_time, "{flow:?}");
    }
}

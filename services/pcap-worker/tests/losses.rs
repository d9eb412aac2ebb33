//! A transfer that lost packets, recorded at its sender by `tests/captures/record-loss.py`: the sender's kernel is the judge.

use std::fs;
use std::path::Path;

use anyhow::Result;
use weir_flow::{Config, Record};
use weir_pcap_worker::analysis::{Live, analyse};
use weir_pcap_worker::capture_file::Limits;
use weir_proto::Flow;

fn captures(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name)
}

#[test]
fn each_segment_that_the_kernel_sent_again_is_a_retransmission_and_nothing_else_is() -> Result<()> {
    let kernel: serde_json::Value = serde_json::from_slice(&fs::read(captures("loss-sender.kernel.json"))?)?;
    let mut flows: Vec<Flow> = Vec::new();
    let file = fs::File::open(captures("loss-sender.pcap.gz"))?;
    analyse(file, Limits::default(), Config::default(), &Live::default(), |record| {
        flows.extend(match record {
            Record::Flow(flow) => Some(flow),
            _ => None,
        });
        Ok(())
    })?;
    let sum = |of: fn(&Flow) -> Option<u64>| flows.iter().filter_map(of).sum::<u64>();
    assert_eq!(Some(sum(|flow| flow.tx_retransmits)), kernel["total_retrans"].as_u64());
    assert_eq!(sum(|flow| flow.tx_out_of_order), 0, "the sender's side sees the order in which they were sent");
    assert_eq!(sum(|flow| flow.tx_lost_segments), 0, "and each of them");
    assert!(sum(|flow| flow.tx_fast_retransmits) > 0 && sum(|flow| flow.rx_duplicate_acks) > 0);
    Ok(())
}

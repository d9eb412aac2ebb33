//! Transfers over paths that lost packets or turned their order around, recorded by `tests/captures/record-loss.py` and `record-reorder.py`:
//! the sender's kernel, and the path itself, are the judges.

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

/// The flows of a recording, and what its judges counted.
fn judged(name: &str) -> Result<(Vec<Flow>, serde_json::Value)> {
    let kernel = serde_json::from_slice(&fs::read(captures(&format!("{name}.kernel.json")))?)?;
    let mut flows: Vec<Flow> = Vec::new();
    let file = fs::File::open(captures(&format!("{name}.pcap.gz")))?;
    analyse(file, Limits::default(), Config::default(), &Live::default(), |record| {
        flows.extend(match record {
            Record::Flow(flow) => Some(flow.clone()),
            _ => None,
        });
        Ok(())
    })?;
    Ok((flows, kernel))
}

#[test]
fn each_segment_that_the_kernel_sent_again_is_a_retransmission_and_nothing_else_is() -> Result<()> {
    let (flows, kernel) = judged("loss-sender")?;
    let sum = |of: fn(&Flow) -> Option<u64>| flows.iter().filter_map(of).sum::<u64>();
    assert_eq!(Some(sum(|flow| flow.tx_retransmits)), kernel["total_retrans"].as_u64());
    assert_eq!(sum(|flow| flow.tx_out_of_order), 0, "the sender's side sees the order in which they were sent");
    assert_eq!(sum(|flow| flow.tx_lost_segments), 0, "and each of them");
    assert!(sum(|flow| flow.tx_fast_retransmits) > 0 && sum(|flow| flow.rx_duplicate_acks) > 0);
    Ok(())
}

#[test]
fn a_segment_that_others_overtook_was_not_sent_again_though_the_receiver_asks_for_it() -> Result<()> {
    let (flows, kernel) = judged("reorder-receiver")?;
    let sum = |of: fn(&Flow) -> Option<u64>| flows.iter().filter_map(of).sum::<u64>();
    assert_eq!(Some(sum(|flow| flow.tx_out_of_order)), kernel["overtaken"].as_u64());
    assert_eq!(Some(sum(|flow| flow.tx_retransmits)), kernel["total_retrans"].as_u64());
    assert_eq!(sum(|flow| flow.tx_spurious_retransmits), sum(|flow| flow.tx_retransmits), "nothing was lost");
    Ok(())
}

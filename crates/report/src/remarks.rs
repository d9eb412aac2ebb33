//! What is to be known of a capture before its figures are believed, in sentences.

use crate::Report;
use crate::text::{count, duration};

/// Comments that are shown.
const MAX_COMMENTS: usize = 20;

/// In the order of their weight.
pub(crate) fn remarks(report: &Report) -> Vec<String> {
    let (totals, capture) = (&report.totals, &report.capture);
    let mut all = Vec::new();
    if let Some(dropped) = capture.dropped_packets.filter(|dropped| *dropped > 0) {
        all.push(format!("The capture dropped {} packets, as the file says: losses may be its own.", count(dropped)));
    }
    if totals.duplicate_packets > 0 {
        let routed = match totals.routed_duplicates {
            0 => String::new(),
            routed => format!(", {} of them on the other side of a router", count(routed)),
        };
        all.push(format!(
            "{} packets are in the capture more than once{routed}, as from a mirror port, several interfaces, or a network that doubles them. They count as \
             captured in packets and bytes, and are no retransmissions.",
            count(totals.duplicate_packets)
        ));
    }
    if totals.aggregated_packets > 0 {
        all.push(format!(
            "Frames of 802.11 carry several packets at once: {} more than there are frames. Flows count each of them, totals the frames.",
            count(totals.aggregated_packets)
        ));
    }
    if totals.cut_packets > 0 {
        all.push(format!("Of {} packets the capture kept less than was on the wire.", count(totals.cut_packets)));
    }
    if let Some(cut) = report.tcp.as_ref().map(|tcp| tcp.cut_packets).filter(|cut| *cut > 0) {
        all.push(format!(
            "Of {} TCP packets not even the header is whole: nothing is said of how their connections went.",
            count(cut)
        ));
    }
    if totals.clock_steps_back > 0 {
        let most = duration(totals.largest_step_back_us);
        all.push(format!("The clock stepped back {} times, by up to {most}.", count(totals.clock_steps_back)));
    }
    if totals.untimed_packets > 0 {
        let packets = count(totals.untimed_packets);
        all.push(format!("{packets} packets have no time; they are taken to have come with the packet before them."));
    }
    if capture.decryption_secrets > 0 {
        let blocks = count(capture.decryption_secrets);
        all.push(format!("The file has secrets for decryption ({blocks} blocks). They stay in it, and were not used."));
    }
    all
}

/// Remarks of whoever captured, with their packets, and how many are left out.
pub(crate) fn comments(report: &Report) -> (Vec<(String, &str)>, u64) {
    let shown = report.capture.comments.iter().take(MAX_COMMENTS);
    let shown: Vec<_> =
        shown.map(|comment| (comment.packet.map_or("file".to_owned(), count), comment.text.as_str())).collect();
    let left_out = report.capture.comment_count.saturating_sub(shown.len() as u64);
    (shown, left_out)
}

//! Connections and their troubles.

use maud::{Markup, html};

use super::tables::{plain, spreads};
use crate::text::{count, duration, waited_for};
use crate::{Report, Silence};

pub(super) fn tcp(report: &Report) -> Markup {
    let Some(tcp) = &report.tcp else { return html! {} };
    let of_packets = |part: u64| {
        if tcp.packets == 0 {
            count(part)
        } else {
            format!("{} ({:.2}\u{a0}%)", count(part), part as f64 * 100.0 / tcp.packets as f64)
        }
    };
    html! {
        h2 #tcp { "TCP" }
        div.columns {
            (plain("Connections", &[
                ("flows", count(tcp.flows)), ("whole handshakes", count(tcp.handshakes)), ("reset", count(tcp.resets)),
                ("without answer", count(tcp.unanswered)), ("SYN sent again", count(tcp.syn_retransmits)),
                ("reset before data", count(tcp.states.reset_before_data)), ("half-open", count(tcp.states.half_open)),
                ("half-closed", count(tcp.states.half_closed)), ("idle", count(tcp.states.idle)),
                ("kept alive without data", count(tcp.states.zombie)),
            ]))
            (plain("Segments", &[
                ("sent again", of_packets(tcp.retransmits)), ("of these fast", count(tcp.fast_retransmits)),
                ("of these needlessly", count(tcp.spurious_retransmits)), ("out of order", of_packets(tcp.out_of_order)),
                ("acknowledged, not captured", of_packets(tcp.lost_segments)), ("duplicate acknowledgements", count(tcp.duplicate_acks)),
                ("zero windows", count(tcp.zero_windows)), ("windows filled", count(tcp.window_full)),
                ("captured more than once", count(tcp.duplicate_segments)),
            ]))
        }
        (spreads(&[
            ("handshake", tcp.handshake), ("… to the responder", tcp.syn_ack), ("… to the initiator", tcp.handshake_ack),
            ("round trip", tcp.rtt), ("… to the responder", tcp.rtt_to_dst), ("… to the initiator", tcp.rtt_to_src),
            ("first byte", tcp.first_byte), ("response of servers", tcp.response),
        ]))
        (silences(&tcp.silences))
        @if !tcp.worst.is_empty() {
            div.table { table {
                caption { "Connections with the most trouble" }
                thead { tr {
                    th scope="col" { "connection" }
                    @for head in ["packets", "again", "out of order", "lost", "zero windows", "round trip"] { th.number scope="col" { (head) } }
                } }
                tbody { @for flow in &tcp.worst { tr {
                    td.name { (flow.src) " → " (flow.dst) @if !flow.name.is_empty() { br; span.quiet { (flow.name) } } }
                    @for value in [flow.packets, flow.retransmits, flow.out_of_order, flow.lost_segments, flow.zero_windows] { td.number { (count(value)) } }
                    td.number { @if let Some(rtt) = flow.rtt_us { (duration(rtt)) } }
                } } }
            } }
        }
    }
}

fn silences(silences: &[Silence]) -> Markup {
    if silences.is_empty() {
        return html! {};
    }
    html! {
        div.table { table {
            caption { "Long silences of open connections" }
            thead { tr {
                th scope="col" { "waited for" }
                @for head in ["silences", "in all", "longest", "packet that ended it"] { th.number scope="col" { (head) } }
                th scope="col" { "connection of the longest" }
            } }
            tbody { @for silence in silences { tr {
                td { (waited_for(&silence.waited_for)) } td.number { (count(silence.count)) }
                td.number { (duration(silence.total_us)) } td.number { (duration(silence.longest_us)) } td.number { (silence.packet) }
                td.name { (silence.src) " → " (silence.dst) }
            } } }
        } }
    }
}

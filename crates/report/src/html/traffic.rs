//! Who spoke how much, when, and how evenly.

use maud::{Markup, html};

use super::charts;
use super::tables::{bars, names, rows};
use crate::Report;
use crate::text::{bytes, count, duration, missing, protocol, service, short};

/// One step alone is no course.
pub(super) fn has_timeline(report: &Report) -> bool {
    report.timeline.as_ref().is_some_and(|timeline| timeline.bytes.len() > 1)
}

pub(super) fn timeline(report: &Report) -> Markup {
    let Some(timeline) = report.timeline.as_ref().filter(|_| has_timeline(report)) else {
        return html! {};
    };
    html! {
        h2 #time { "Over time" }
        (charts::throughput(timeline))
        (charts::packets(timeline))
        @if let Some(chart) = charts::retransmits(timeline) { (chart) }
    }
}

pub(super) fn traffic(report: &Report) -> Markup {
    let figures = |packets, of: u64| vec![count(packets), bytes(of as f64)];
    let mut protocols = report.protocols.clone();
    protocols.sort_by_key(|of| std::cmp::Reverse(of.bytes));
    html! {
        h2 #traffic { "Traffic" }
        div.columns {
            (bars("Protocols", &["protocol", "packets", "bytes"],
                rows(&protocols, |of| of.bytes, |of| (protocol(of.protocol), figures(of.packets, of.bytes)))))
            (bars("Services", &["service", "flows", "packets", "bytes"],
                rows(&report.services, |of| of.bytes, |of| (service(&of.service),
                    vec![count(of.flows), count(of.packets), bytes(of.bytes as f64)]))))
            (bars("Top talkers", &["address", "packets", "bytes"],
                rows(&report.talkers, |of| of.bytes, |of| (of.ip.clone(), figures(of.packets, of.bytes)))))
            (bars("Conversations", &["from, to", "flows", "packets", "bytes"],
                rows(&report.conversations, |of| of.bytes, |of| (format!("{} → {}", of.src_ip, of.dst_ip),
                    vec![count(of.flows), count(of.packets), bytes(of.bytes as f64)]))))
            (bars("Regular conversations", &["from, to", "flows", "every", "spread"],
                rows(&report.rhythms, |of| of.flows, |of| (format!("{} → {} port {} ({})", of.src_ip, of.dst_ip, of.dst_port, protocol(of.protocol)),
                    vec![count(of.flows), duration((of.interval_s * 1e6) as u64), format!("{} %", short(of.jitter_percent))]))))
            (names("ICMP errors", "error", &report.icmp_errors))
        }
        @if report.flows.packets_in_tunnels > 0 {
            p { (count(report.flows.packets_in_tunnels)) " packets were inside tunnels." }
        }
        (one_way(report))
    }
}

fn one_way(report: &Report) -> Markup {
    let [tcp, udp] = [report.flows.one_way, report.flows.one_way_udp].map(|flows| flows.unwrap_or(0));
    if tcp + udp == 0 {
        return html! {};
    }
    let rows = rows(
        &report.one_way_flows,
        |flow| flow.bytes,
        |flow| {
            let name = format!("{} → {} ({})", flow.src, flow.dst, flow.service);
            (name, vec![missing(flow), count(flow.packets), bytes(flow.bytes as f64)])
        },
    );
    html! {
        p { "Of " (count(tcp)) " TCP flows and " (count(udp)) " UDP flows whose protocol answers only one direction is in the capture." }
        (bars("Only one direction", &["from, to", "missing", "packets", "bytes"], rows))
    }
}

pub(super) fn streams(report: &Report) -> Markup {
    let made = rows(
        &report.streams,
        |stream| stream.jitter_us,
        |stream| {
            let name = format!("{} → {}", stream.src, stream.dst);
            let variation = stream.delay_variation_us.map_or(String::new(), |[_, p95, _]| duration(p95));
            let lost = count(stream.lost);
            (name, vec![count(stream.packets), bytes(stream.bytes as f64), lost, duration(stream.jitter_us), variation])
        },
    );
    if made.is_empty() {
        return html! {};
    }
    html! {
        h2 #streams { "Streams" }
        (bars("UDP by jitter (RFC 3550)", &["stream", "packets", "bytes", "lost", "jitter", "variation, 95 %"], made))
    }
}

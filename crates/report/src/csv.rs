//! One table of a report as CSV (RFC 4180).

use crate::Report;

/// The tables that a report can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// One finding a line
    #[default]
    Findings,
    /// One address a line
    Talkers,
    /// Two addresses a line
    Conversations,
    /// One service a line
    Services,
    /// One step of time a line
    Timeline,
    /// One domain of DNS a line
    Domains,
    /// One flow of which only one direction was captured a line
    OneWay,
    /// One kind of silence of TCP connections a line
    Silences,
    /// One part of the score a line
    Health,
}

/// A table of the report, its names in the first line.
#[must_use]
pub fn csv(report: &Report, table: Table) -> String {
    let mut out = Csv::default();
    match table {
        Table::Findings => findings(&mut out, report),
        Table::Talkers => {
            out.line(["ip", "packets", "bytes"]);
            for talker in &report.talkers {
                out.line([&talker.ip, &number(talker.packets), &number(talker.bytes)]);
            }
        }
        Table::Conversations => {
            out.line(["src_ip", "dst_ip", "flows", "packets", "bytes"]);
            for pair in &report.conversations {
                let numbers = [pair.flows, pair.packets, pair.bytes].map(number);
                out.line([&pair.src_ip, &pair.dst_ip, &numbers[0], &numbers[1], &numbers[2]]);
            }
        }
        Table::Services => {
            out.line(["service", "flows", "packets", "bytes"]);
            for service in &report.services {
                let numbers = [service.flows, service.packets, service.bytes].map(number);
                out.line([&service.service, &numbers[0], &numbers[1], &numbers[2]]);
            }
        }
        Table::Timeline => timeline(&mut out, report),
        Table::Domains => domains(&mut out, report),
        Table::OneWay => one_way(&mut out, report),
        Table::Silences => silences(&mut out, report),
        Table::Health => {
            out.line(["part", "value", "unit", "score", "weight", "not_judged"]);
            for part in report.health.iter().flat_map(|health| &health.parts) {
                let numbers = [part.value, part.score, part.weight].map(|value| value.to_string());
                out.line([&part.name, &numbers[0], &part.unit, &numbers[1], &numbers[2], ""]);
            }
            for part in &report.not_judged {
                out.line([&part.part, "", "", "", "", &part.reason]);
            }
        }
    }
    out.0
}

fn findings(out: &mut Csv, report: &Report) {
    out.line([
        "severity",
        "kind",
        "confidence",
        "time",
        "end_time",
        "src_ip",
        "dst_ip",
        "dst_port",
        "summary",
        "next",
        "flow_ids",
        "packets",
    ]);
    for finding in &report.findings {
        let packets = finding.packets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        out.line([
            finding.severity.name(),
            &finding.kind,
            &finding.confidence.to_string(),
            finding.time.as_deref().unwrap_or(""),
            finding.end_time.as_deref().unwrap_or(""),
            finding.src_ip.as_deref().unwrap_or(""),
            finding.dst_ip.as_deref().unwrap_or(""),
            &finding.dst_port.map(|port| port.to_string()).unwrap_or_default(),
            &finding.summary,
            &finding.next,
            &finding.flow_ids.join(" "),
            &packets,
        ]);
    }
}

fn timeline(out: &mut Csv, report: &Report) {
    out.line(["offset_us", "packets", "bytes", "retransmits"]);
    let Some(timeline) = &report.timeline else { return };
    for (step, (packets, bytes)) in timeline.packets.iter().zip(&timeline.bytes).enumerate() {
        let retransmits = timeline.retransmits.as_ref().and_then(|all| all.get(step));
        let offset = step as u64 * timeline.step_us;
        let retransmits = retransmits.map(ToString::to_string).unwrap_or_default();
        out.line([&number(offset), &number(*packets), &number(*bytes), &retransmits]);
    }
}

fn domains(out: &mut Csv, report: &Report) {
    out.line(["domain", "queries", "failed", "unanswered", "median_us", "p95_us"]);
    for domain in &report.dns.domains {
        let optional = |value: Option<u64>| value.map(number).unwrap_or_default();
        out.line([
            &domain.domain,
            &number(domain.queries),
            &number(domain.failed),
            &number(domain.unanswered),
            &optional(domain.median_us),
            &optional(domain.p95_us),
        ]);
    }
}

fn one_way(out: &mut Csv, report: &Report) {
    out.line(["flow_id", "src", "dst", "service", "seen", "certain", "packets", "bytes"]);
    for flow in &report.one_way_flows {
        out.line([
            &flow.flow_id,
            &flow.src,
            &flow.dst,
            &flow.service,
            &flow.seen,
            if flow.certain { "true" } else { "false" },
            &number(flow.packets),
            &number(flow.bytes),
        ]);
    }
}

fn silences(out: &mut Csv, report: &Report) {
    out.line(["waited_for", "count", "total_us", "longest_us", "packet", "flow_id", "src", "dst"]);
    for silence in report.tcp.iter().flat_map(|tcp| &tcp.silences) {
        let numbers = [silence.count, silence.total_us, silence.longest_us, silence.packet].map(number);
        let [count, total, longest, packet] = &numbers;
        out.line([&silence.waited_for, count, total, longest, packet, &silence.flow_id, &silence.src, &silence.dst]);
    }
}

fn number(value: u64) -> String {
    value.to_string()
}

#[derive(Default)]
struct Csv(String);

impl Csv {
    fn line<const N: usize>(&mut self, fields: [&str; N]) {
        for (index, field) in fields.into_iter().enumerate() {
            if index > 0 {
                self.0.push(',');
            }
            self.field(field);
        }
        self.0.push_str("\r\n");
    }

    fn field(&mut self, text: &str) {
        // A spreadsheet takes what begins so for a formula; the apostrophe makes it text. Numbers of ours are never negative.
        let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
        if !formula && !text.contains([',', '"', '\r', '\n']) {
            return self.0.push_str(text);
        }
        self.0.push('"');
        if formula {
            self.0.push('\'');
        }
        self.0.push_str(&text.replace('"', "\"\""));
        self.0.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spreadsheet_would_run_is_text() {
        let mut out = Csv::default();
        out.line(["=cmd|' /C calc'!A0", "a,b", "say \"x\"", "plain", ""]);
        assert_eq!(out.0, "\"'=cmd|' /C calc'!A0\",\"a,b\",\"say \"\"x\"\"\",plain,\r\n");
    }
}

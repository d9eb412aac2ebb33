//! A tree as a test of records in memory, with the meaning that the same filter has in SQL.

use std::{borrow::Cow, fmt::Write as _, net::Ipv6Addr};

use regex::{Regex, RegexBuilder};
use weir_proto::{Flow, Ip};

use crate::{
    Error,
    parser::{Expression, Operator, Value},
};

/// The largest compiled pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// What a subject holds under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datum<'a> {
    /// An address, IPv4 mapped.
    Address(Ipv6Addr),
    /// A whole number.
    Number(u64),
    /// Text.
    Text(Cow<'a, str>),
    /// A UUID.
    Uuid(uuid::Uuid),
}

/// Something that a filter can be asked about.
pub trait Subject {
    /// The value of one of the [columns](crate::Field::columns); `None` = not measured, which fits no comparison.
    fn datum(&self, column: &str) -> Option<Datum<'_>>;
}

/// A filter that is ready to be asked.
#[derive(Debug, Clone)]
pub struct Evaluator(Node);

#[derive(Debug, Clone)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Compare { columns: &'static [&'static str], tests: Vec<Test> },
}

#[derive(Debug, Clone)]
enum Test {
    Equal(Value),
    Order(Operator, u64),
    Pattern(Regex),
}

impl Evaluator {
    /// Reads a filter; nothing but spaces accepts everything.
    pub fn read(text: &str) -> Result<Self, Error> {
        crate::parse(text)?.map_or_else(|| Ok(Self(Node::All(Vec::new()))), |expression| Self::new(&expression))
    }

    /// Prepares a filter. It fails for a pattern that is no regular expression, or too large a one.
    pub fn new(expression: &Expression) -> Result<Self, Error> {
        node(expression).map(Self)
    }

    /// Whether the filter accepts the subject.
    #[must_use]
    pub fn holds(&self, subject: &impl Subject) -> bool {
        self.0.holds(subject) == Some(true)
    }
}

fn node(expression: &Expression) -> Result<Node, Error> {
    let all = |parts: &[Expression]| parts.iter().map(node).collect::<Result<Vec<_>, _>>();
    Ok(match expression {
        Expression::And(parts) => Node::All(all(parts)?),
        Expression::Or(parts) => Node::Any(all(parts)?),
        Expression::Not(inside) => Node::Not(Box::new(node(inside)?)),
        Expression::Compare { field, operator, values } => {
            let tests = values.iter().map(|value| test(*operator, value)).collect::<Result<_, _>>()?;
            Node::Compare { columns: field.columns, tests }
        }
    })
}

fn test(operator: Operator, value: &Value) -> Result<Test, Error> {
    match (operator, value) {
        (Operator::Matches, Value::Text(pattern)) => compiled(pattern, false).map(Test::Pattern),
        (Operator::Like, Value::Text(pattern)) => compiled(&like(pattern), true).map(Test::Pattern),
        (Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual, Value::Number(to)) => {
            Ok(Test::Order(operator, *to))
        }
        _ => Ok(Test::Equal(value.clone())),
    }
}

fn compiled(pattern: &str, either_case: bool) -> Result<Regex, Error> {
    RegexBuilder::new(pattern)
        .dot_matches_new_line(true)
        .case_insensitive(either_case)
        .size_limit(MAX_PATTERN_BYTES)
        .build()
        .map_err(|error| Error::at(0, format!("{pattern:?} is no regular expression that can be used: {error}")))
}

/// The pattern of `like` as a regular expression.
fn like(pattern: &str) -> String {
    let mut text = String::from("^");
    for character in pattern.chars() {
        // Writing to a String cannot fail.
        let _written = match character {
            '%' => write!(text, ".*"),
            '_' => write!(text, "."),
            other => write!(text, "{}", regex::escape(other.encode_utf8(&mut [0; 4]))),
        };
    }
    text.push('$');
    text
}

impl Node {
    /// `None`: it depends on something that was not measured.
    fn holds(&self, subject: &impl Subject) -> Option<bool> {
        match self {
            Self::All(parts) => joined(parts.iter().map(|part| part.holds(subject)), false),
            Self::Any(parts) => joined(parts.iter().map(|part| part.holds(subject)), true),
            Self::Not(inside) => inside.holds(subject).map(|held| !held),
            Self::Compare { columns, tests } => {
                let each = columns.iter().map(|column| {
                    let datum = subject.datum(column)?;
                    Some(tests.iter().any(|test| test.holds(&datum)))
                });
                joined(each, true)
            }
        }
    }
}

/// `and`, `or` of three values: `decisive` is the one that settles it.
fn joined(parts: impl Iterator<Item = Option<bool>>, decisive: bool) -> Option<bool> {
    let mut unknown = false;
    for part in parts {
        match part {
            Some(value) if value == decisive => return Some(decisive),
            Some(_) => {}
            None => unknown = true,
        }
    }
    if unknown { None } else { Some(!decisive) }
}

impl Test {
    fn holds(&self, datum: &Datum<'_>) -> bool {
        match (self, datum) {
            (Self::Equal(Value::Number(wanted)), Datum::Number(number)) => wanted == number,
            (Self::Equal(Value::Text(wanted)), Datum::Text(text)) => wanted == text,
            (Self::Equal(Value::Uuid(wanted)), Datum::Uuid(uuid)) => wanted == uuid,
            (Self::Equal(Value::Addresses(first, last)), Datum::Address(address)) => (first..=last).contains(&address),
            (Self::Order(operator, to), Datum::Number(number)) => match operator {
                Operator::Less => number < to,
                Operator::LessOrEqual => number <= to,
                Operator::Greater => number > to,
                _ => number >= to,
            },
            (Self::Pattern(pattern), Datum::Text(text)) => pattern.is_match(text),
            _ => false,
        }
    }
}

/// A flow record on its way to the tables, with what stands in its batch. Containers are not known yet, so that comparisons with them do not fit.
#[derive(Debug, Clone, Copy)]
pub struct FlowSubject<'a> {
    /// The record.
    pub flow: &'a Flow,
    /// Where it was made.
    pub host: &'a str,
    /// `ebpf`, `pcap`
    pub source: &'a str,
}

impl Subject for FlowSubject<'_> {
    fn datum(&self, column: &str) -> Option<Datum<'_>> {
        let flow = self.flow;
        let address = |high, low| Some(Datum::Address(Ip::new(high, low).into()));
        let number = |number: u64| Some(Datum::Number(number));
        let small = |number: u32| Some(Datum::Number(number.into()));
        let text = |text: &'_ str| Some(Datum::Text(Cow::Owned(text.to_owned())));
        let sum = |a: Option<u64>, b: Option<u64>| Some(Datum::Number(a?.saturating_add(b?)));
        match column {
            "src_ip" => address(flow.src_ip_high, flow.src_ip_low),
            "dst_ip" => address(flow.dst_ip_high, flow.dst_ip_low),
            "src_port" => small(flow.src_port),
            "dst_port" => small(flow.dst_port),
            "protocol" => small(flow.protocol),
            "app" => text(&flow.app),
            "src_name" => text(&flow.src_name),
            "dst_name" => text(&flow.dst_name),
            "src_process" => text(&flow.src_process),
            "dst_process" => text(&flow.dst_process),
            "tx_bytes + rx_bytes" => number(flow.tx_bytes.saturating_add(flow.rx_bytes)),
            "tx_packets + rx_packets" => number(flow.tx_packets.saturating_add(flow.rx_packets)),
            "tx_bytes" => number(flow.tx_bytes),
            "tx_packets" => number(flow.tx_packets),
            "rx_bytes" => number(flow.rx_bytes),
            "rx_packets" => number(flow.rx_packets),
            "host" => text(self.host),
            "interface" => text(&flow.interface),
            "toString(source)" => text(self.source),
            "flow_id" => number(flow.flow_id),
            "vlan" => small(flow.vlan),
            "tunnel" => text(&flow.tunnel),
            "tcp_flags_tx" => small(flow.tcp_flags_tx),
            "tcp_flags_rx" => small(flow.tcp_flags_rx),
            "toString(end_reason)" => text(flow.end_reason().name()),
            "handshake_us" => flow.handshake_us.and_then(small),
            "rtt_us" => flow.rtt_us.and_then(small),
            "tx_retransmits + rx_retransmits" => sum(flow.tx_retransmits, flow.rx_retransmits),
            "tx_retransmits" => flow.tx_retransmits.and_then(number),
            "rx_retransmits" => flow.rx_retransmits.and_then(number),
            "tx_out_of_order" => flow.tx_out_of_order.and_then(number),
            "rx_out_of_order" => flow.rx_out_of_order.and_then(number),
            "tx_zero_windows" => flow.tx_zero_windows.and_then(number),
            "rx_zero_windows" => flow.rx_zero_windows.and_then(number),
            "drops" => flow.drops.and_then(number),
            "drop_reason" => text(&flow.drop_reason),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        let [src, dst] = ["10.0.0.1", "192.0.2.7"].map(|text| {
            let address: std::net::Ipv4Addr = text.parse().unwrap();
            Ip::from(address.to_ipv6_mapped().octets())
        });
        Flow {
            src_ip_high: src.high,
            src_ip_low: src.low,
            dst_ip_high: dst.high,
            dst_ip_low: dst.low,
            src_port: 50_000,
            dst_port: 443,
            protocol: 6,
            tx_bytes: 100,
            rx_bytes: 900,
            dst_name: "www.Example.org".into(),
            interface: "eth0".into(),
            end_reason: weir_proto::EndReason::Fin.into(),
            rtt_us: Some(1500),
            ..Flow::default()
        }
    }

    fn holds(filter: &str) -> bool {
        let flow = flow();
        Evaluator::read(filter).unwrap().holds(&FlowSubject { flow: &flow, host: "here", source: "ebpf" })
    }

    #[test]
    fn a_filter_means_for_records_what_it_means_for_rows() {
        for accepts in [
            "",
            "dst_port = 443 and not dst_ip in 10.0.0.0/8",
            "ip in 10.0.0.0/8 and port in (80, 443)",
            "bytes = 1000 and rx_bytes >= 900 and tx_bytes < 101",
            "name like \"%.example.org\" and dst_name ~ \"^www\"",
            "protocol = tcp and end_reason = fin and host = here and source = ebpf",
            "rtt_us > 1000",
            "port != 53",
        ] {
            assert!(holds(accepts), "{accepts}");
        }
        for refuses in ["port = 53", "not protocol = tcp", "dst_name ~ \"^example\"", "src_ip = 192.0.2.7"] {
            assert!(!holds(refuses), "{refuses}");
        }
    }

    #[test]
    fn what_was_not_measured_fits_neither_a_comparison_nor_its_opposite() {
        for filter in ["handshake_us = 0", "handshake_us != 0", "not handshake_us > 5", "container = web"] {
            assert!(!holds(filter), "{filter}");
        }
        assert!(holds("handshake_us = 0 or port = 443"));
        assert!(!holds("handshake_us = 0 and port = 443"));
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_refused() {
        assert!(Evaluator::read("name ~ \"(\"").is_err());
        assert!(Evaluator::read("name ~ \"(a{1000}){1000}\"").is_err());
        assert!(Evaluator::read("name like \"(%\"").is_ok());
    }

    #[test]
    fn every_field_that_a_flow_can_answer_is_answered() {
        let flow = Flow {
            handshake_us: Some(1),
            tx_retransmits: Some(1),
            rx_retransmits: Some(1),
            tx_out_of_order: Some(1),
            rx_out_of_order: Some(1),
            tx_zero_windows: Some(1),
            rx_zero_windows: Some(1),
            drops: Some(1),
            ..flow()
        };
        let subject = FlowSubject { flow: &flow, host: "here", source: "ebpf" };
        let unknown: Vec<_> = (crate::fields().iter())
            .filter(|field| field.columns.iter().all(|column| subject.datum(column).is_none()))
            .map(|field| field.name)
            .collect();
        let later = ["container", "container_id", "image"];
        let of_containers = |name: &str| later.iter().any(|end| name.ends_with(end));
        let rest: Vec<_> = unknown.into_iter().filter(|name| !of_containers(name)).collect();
        assert_eq!(rest, ["capture_id", "community_id"]);
    }
}

//! A record as columns with the names and meanings of the table `flows`.

use std::net::Ipv6Addr;

use serde_json::{Map, Value};
use weir_proto::{Flow, Ip};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Microseconds since the epoch.
    Time,
    Number,
    Text,
}

/// The value of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Time(u64),
    Number(u64),
    Text(String),
    /// Not measured.
    Absent,
}

pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) get: fn(&Flow) -> Cell,
}

macro_rules! columns {
    ($($name:literal $kind:ident $get:expr;)+) => { &[$(Column { name: $name, kind: Kind::$kind, get: $get }),+] };
}

/// All columns, behind `host`.
pub(crate) static COLUMNS: &[Column] = columns! {
    "start_time" Time |flow| Cell::Time(flow.start_time);
    "end_time" Time |flow| Cell::Time(flow.end_time);
    "interface" Text |flow| text(&flow.interface);
    "flow_id" Number |flow| Cell::Number(flow.flow_id);
    "src_ip" Text |flow| address(flow.src_ip_high, flow.src_ip_low);
    "dst_ip" Text |flow| address(flow.dst_ip_high, flow.dst_ip_low);
    "src_port" Number |flow| number(flow.src_port);
    "dst_port" Number |flow| number(flow.dst_port);
    "protocol" Number |flow| number(flow.protocol);
    "vlan" Number |flow| number(flow.vlan);
    "tunnel" Text |flow| text(&flow.tunnel);
    "tx_bytes" Number |flow| Cell::Number(flow.tx_bytes);
    "tx_packets" Number |flow| Cell::Number(flow.tx_packets);
    "rx_bytes" Number |flow| Cell::Number(flow.rx_bytes);
    "rx_packets" Number |flow| Cell::Number(flow.rx_packets);
    "tcp_flags_tx" Number |flow| number(flow.tcp_flags_tx);
    "tcp_flags_rx" Number |flow| number(flow.tcp_flags_rx);
    "end_reason" Text |flow| text(flow.end_reason().name());
    "handshake_us" Number |flow| measured(flow.handshake_us.map(u64::from));
    "rtt_us" Number |flow| measured(flow.rtt_us.map(u64::from));
    "tx_retransmits" Number |flow| measured(flow.tx_retransmits);
    "rx_retransmits" Number |flow| measured(flow.rx_retransmits);
    "tx_out_of_order" Number |flow| measured(flow.tx_out_of_order);
    "rx_out_of_order" Number |flow| measured(flow.rx_out_of_order);
    "tx_zero_windows" Number |flow| measured(flow.tx_zero_windows);
    "rx_zero_windows" Number |flow| measured(flow.rx_zero_windows);
    "drops" Number |flow| measured(flow.drops);
    "drop_reason" Text |flow| text(&flow.drop_reason);
    "reset_by" Text |flow| text(flow.reset_by().name());
    "reset_reason" Text |flow| text(&flow.reset_reason);
    "src_name" Text |flow| text(&flow.src_name);
    "dst_name" Text |flow| text(&flow.dst_name);
    "src_process" Text |flow| text(&flow.src_process);
    "dst_process" Text |flow| text(&flow.dst_process);
    "src_executable" Text |flow| text(&flow.src_executable);
    "dst_executable" Text |flow| text(&flow.dst_executable);
    "app" Text |flow| text(&flow.app);
    "sampling" Number |flow| number(flow.sampling.max(1));
};

/// The record as a JSON object; what was not measured is null.
pub(crate) fn object(flow: &Flow, host: &str) -> Value {
    let mut object = Map::new();
    object.insert("host".into(), host.into());
    for column in COLUMNS {
        let value = match (column.get)(flow) {
            Cell::Time(micros) => timestamp(micros).into(),
            Cell::Number(number) => number.into(),
            Cell::Text(text) => text.into(),
            Cell::Absent => Value::Null,
        };
        object.insert(column.name.into(), value);
    }
    Value::Object(object)
}

/// RFC 3339 with microseconds.
pub(crate) fn timestamp(micros: u64) -> String {
    i64::try_from(micros)
        .ok()
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .map_or_else(String::new, |time| format!("{time:.6}"))
}

pub(crate) fn ip(high: u64, low: u64) -> std::net::IpAddr {
    Ipv6Addr::from(Ip::new(high, low)).to_canonical()
}

fn address(high: u64, low: u64) -> Cell {
    Cell::Text(ip(high, low).to_string())
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

fn number(number: u32) -> Cell {
    Cell::Number(number.into())
}

fn measured(number: Option<u64>) -> Cell {
    number.map_or(Cell::Absent, Cell::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_columns_of_the_table() {
        let flow = Flow {
            start_time: 1_700_000_000_123_456,
            src_ip_low: 0xffff_0a00_0001,
            dst_ip_high: 0x2001_0db8_0000_0000,
            dst_ip_low: 7,
            rtt_us: Some(5),
            end_reason: weir_proto::EndReason::Rst.into(),
            ..Flow::default()
        };
        let object = object(&flow, "here");
        assert_eq!(object["start_time"], "2023-11-14T22:13:20.123456Z");
        assert_eq!((&object["src_ip"], &object["dst_ip"]), (&"10.0.0.1".into(), &"2001:db8::7".into()));
        assert_eq!((&object["rtt_us"], &object["handshake_us"]), (&5.into(), &Value::Null));
        assert_eq!(
            (&object["end_reason"], &object["host"], &object["sampling"]),
            (&"rst".into(), &"here".into(), &1.into())
        );
        for column in COLUMNS {
            let fits = matches!(
                ((column.get)(&flow), column.kind),
                (Cell::Time(_), Kind::Time)
                    | (Cell::Number(_) | Cell::Absent, Kind::Number)
                    | (Cell::Text(_), Kind::Text)
            );
            assert!(fits, "{}", column.name);
        }
    }
}

//! `weir flows` and `weir top`.

use anyhow::Result;
use comfy_table::Cell;
use serde_json::Value;

use super::{moment, number, text};
use crate::api::{self, Api};
use crate::args::{Flows, Span, Top};
use crate::output;

/// The members of a group that are figures.
const FIGURES: [&str; 6] = ["bytes", "packets", "flows", "tx_bytes", "rx_bytes", "retransmits"];

pub(crate) async fn list(options: &Flows) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let mut query = span(&options.span, options.filter.as_deref());
    query.push(("limit", options.limit.to_string()));
    let answer: Value = api::json(api.send(api.get("/flows").query(&query)).await?).await?;
    if options.json {
        return output::json(&answer).map(|()| true);
    }
    let mut table =
        output::table(&["start", "proto", "source", "destination", "app", "tx", "rx", "packets", "end", "from"]);
    for flow in items(&answer) {
        table.add_row([
            Cell::new(moment(flow, "start_time")),
            Cell::new(protocol(number(flow, "protocol"))),
            Cell::new(endpoint(flow, "src")),
            Cell::new(endpoint(flow, "dst")),
            Cell::new(text(flow, "app")),
            output::number(&output::bytes(number(flow, "tx_bytes"))),
            output::number(&output::bytes(number(flow, "rx_bytes"))),
            output::number(&(number(flow, "tx_packets") + number(flow, "rx_packets"))),
            Cell::new(text(flow, "end_reason")),
            Cell::new(text(flow, "source")),
        ]);
    }
    output::line(&table)?;
    Ok(true)
}

pub(crate) async fn top(options: &Top) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let mut query = span(&options.span, options.filter.as_deref());
    query.push(("by", options.by.join(",")));
    query.push(("metric", options.metric.as_str().to_owned()));
    query.push(("limit", options.limit.to_string()));
    let answer: Value = api::json(api.send(api.get("/flows/top").query(&query)).await?).await?;
    if options.json {
        return output::json(&answer).map(|()| true);
    }
    let header: Vec<&str> = options.by.iter().map(String::as_str).chain(FIGURES).collect();
    let mut table = output::table(&header);
    for group in items(&answer) {
        let keys = options.by.iter().map(|by| Cell::new(key(group, by)));
        table.add_row(keys.chain(FIGURES.iter().map(|figure| figure_cell(group, figure))));
    }
    output::line(&table)?;
    Ok(true)
}

fn span(span: &Span, filter: Option<&str>) -> Vec<(&'static str, String)> {
    let mut query = vec![("from", span.from.clone())];
    query.extend(span.to.clone().map(|to| ("to", to)));
    query.extend(filter.map(|filter| ("filter", filter.to_owned())));
    query
}

fn items(answer: &Value) -> &[Value] {
    answer.get("items").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn key(group: &Value, by: &str) -> String {
    let key = &group["key"];
    match by {
        "protocol" => protocol(number(key, by)),
        "src_ip" | "dst_ip" => address(&text(key, by)),
        _ => text(key, by),
    }
}

fn figure_cell(group: &Value, figure: &str) -> Cell {
    let value = number(group, figure);
    output::number(&if figure.ends_with("bytes") { output::bytes(value) } else { value.to_string() })
}

/// The best name of one side, and its port.
fn endpoint(flow: &Value, side: &str) -> String {
    let named = [format!("{side}_container"), format!("{side}_name")].map(|member| text(flow, &member));
    let ip = address(&text(flow, &format!("{side}_ip")));
    let host = named
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| if ip.contains(':') { format!("[{ip}]") } else { ip });
    // ICMP keeps type and code where others have ports.
    match number(flow, "protocol") {
        6 | 17 | 132 => format!("{host}:{}", number(flow, &format!("{side}_port"))),
        _ => host,
    }
}

/// An IPv4-mapped address as IPv4.
fn address(text: &str) -> String {
    text.strip_prefix("::ffff:").filter(|rest| rest.contains('.')).unwrap_or(text).to_owned()
}

/// The common IANA protocol numbers by name.
fn protocol(number: u64) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        47 => "gre".to_owned(),
        50 => "esp".to_owned(),
        58 => "icmp6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_endpoint_is_its_container_or_name_or_address() {
        let flow = json!({
            "protocol": 6, "src_ip": "::ffff:10.0.0.1", "src_port": 40000, "src_container": "web", "src_name": "x",
            "dst_ip": "2001:db8::1", "dst_port": 443, "dst_container": "", "dst_name": "",
        });
        assert_eq!(endpoint(&flow, "src"), "web:40000");
        assert_eq!(endpoint(&flow, "dst"), "[2001:db8::1]:443");
        let ping = json!({ "protocol": 1, "src_ip": "::ffff:10.0.0.1", "src_port": 8 });
        assert_eq!(endpoint(&ping, "src"), "10.0.0.1");
    }
}

//! One line for each record, for people.

use std::io::{self, Write};

use weir_proto::Flow;

use super::{
    Writer,
    columns::{ip, timestamp},
};

pub(super) struct Lines {
    target: Box<dyn Write + Send>,
}

impl Lines {
    pub(super) fn new(target: Box<dyn Write + Send>) -> Self {
        Self { target }
    }
}

impl Writer for Lines {
    fn write(&mut self, flows: &[Flow]) -> io::Result<()> {
        flows.iter().try_for_each(|flow| writeln!(self.target, "{}", line(flow)))
    }

    fn tick(&mut self) -> io::Result<()> {
        self.target.flush()
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.target.flush()
    }
}

/// `12:00:00.000 tcp    10.0.0.1:50000 → 192.0.2.7:443 (www.example.org)  tx 12 (1.2 kB)  rx 10 (9.9 kB)  1.2 s  fin  tls`
fn line(flow: &Flow) -> String {
    let time = timestamp(flow.end_time);
    let time = time.get(11..23).unwrap_or(&time);
    let seconds = flow.end_time.saturating_sub(flow.start_time) as f64 / 1e6;
    let app = if flow.app.is_empty() { "" } else { "  " };
    format!(
        "{time} {:<6} {} → {}  tx {} ({})  rx {} ({})  {seconds:.1} s  {}{app}{}",
        protocol(flow.protocol),
        end(ip(flow.src_ip_high, flow.src_ip_low), flow.src_port, &flow.src_name),
        end(ip(flow.dst_ip_high, flow.dst_ip_low), flow.dst_port, &flow.dst_name),
        flow.tx_packets,
        size(flow.tx_bytes),
        flow.rx_packets,
        size(flow.rx_bytes),
        flow.end_reason().name(),
        flow.app,
    )
}

/// `192.0.2.7:443 (www.example.org)`. Names come from strangers: what a terminal would act on is left out.
pub(super) fn end(ip: std::net::IpAddr, port: u32, name: &str) -> String {
    let address = if ip.is_ipv6() { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    let name: String = name.chars().filter(|character| !character.is_control()).take(60).collect();
    if name.is_empty() { address } else { format!("{address} ({name})") }
}

/// The protocol's name, or its number.
pub(super) fn protocol(number: u32) -> String {
    let name = match number {
        1 => "icmp",
        2 => "igmp",
        6 => "tcp",
        17 => "udp",
        47 => "gre",
        50 => "esp",
        58 => "icmpv6",
        132 => "sctp",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// `999 B`, `1.2 kB`, `34.5 MB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_999, "1.0 MB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_line_tells_who_spoke_with_whom_and_how_much() {
        let flow = Flow {
            end_time: 1_700_000_000_123_456,
            start_time: 1_699_999_999_023_456,
            src_ip_low: 0xffff_0a00_0001,
            dst_ip_low: 0xffff_c000_0207,
            src_port: 50_000,
            dst_port: 443,
            protocol: 6,
            tx_packets: 12,
            tx_bytes: 1200,
            dst_name: "www.example.org\u{1b}[2J".into(),
            app: "tls".into(),
            end_reason: weir_proto::EndReason::Fin.into(),
            ..Flow::default()
        };
        assert_eq!(
            line(&flow),
            "22:13:20.123 tcp    10.0.0.1:50000 → 192.0.2.7:443 (www.example.org[2J)  tx 12 (1.2 kB)  rx 0 (0 B)  1.1 s  fin  tls"
        );
    }
}

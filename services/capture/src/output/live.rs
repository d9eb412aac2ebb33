//! A table on the terminal: the flows that move most now.

use std::{
    collections::HashMap,
    io::{self, Write},
    time::{Duration, Instant},
};

use weir_proto::Flow;

use super::{
    Writer,
    columns::ip,
    lines::{end, protocol, size},
};

/// What has not moved for this long is not shown.
const SHOWN: Duration = Duration::from_secs(15);
/// Flows that are remembered.
const MAX_FLOWS: usize = 10_000;
/// Where the size of the terminal is not known.
const USUAL_SIZE: (usize, usize) = (24, 100);

pub(super) struct Live {
    target: Box<dyn Write + Send>,
    flows: HashMap<u64, Row>,
    /// Records that found no room in the table.
    left_out: u64,
}

struct Row {
    flow: Flow,
    tx_bytes: u64,
    rx_bytes: u64,
    /// Bytes per second in the last record, both directions.
    rate: u64,
    at: Instant,
}

impl Live {
    pub(super) fn new(target: Box<dyn Write + Send>) -> Self {
        Self { target, flows: HashMap::new(), left_out: 0 }
    }

    fn take(&mut self, flow: &Flow, now: Instant) {
        if self.flows.len() >= MAX_FLOWS && !self.flows.contains_key(&flow.flow_id) {
            self.left_out += 1;
            return;
        }
        let micros = flow.end_time.saturating_sub(flow.start_time).max(1_000_000);
        let rate = u128::from(flow.tx_bytes.saturating_add(flow.rx_bytes)) * 1_000_000 / u128::from(micros);
        let row = self.flows.entry(flow.flow_id).or_insert_with(|| Row {
            flow: Flow::default(),
            tx_bytes: 0,
            rx_bytes: 0,
            rate: 0,
            at: now,
        });
        row.tx_bytes = row.tx_bytes.saturating_add(flow.tx_bytes);
        row.rx_bytes = row.rx_bytes.saturating_add(flow.rx_bytes);
        row.rate = u64::try_from(rate).unwrap_or(u64::MAX);
        row.at = now;
        row.flow.clone_from(flow);
    }

    /// The lines of the table, the busiest flow first.
    fn table(&self, rows: usize, columns: usize) -> Vec<String> {
        let mut shown: Vec<&Row> = self.flows.values().collect();
        shown.sort_unstable_by_key(|row| (std::cmp::Reverse(row.rate), row.flow.flow_id));
        let total: u64 = shown.iter().map(|row| row.rate).fold(0, u64::saturating_add);
        let more = if self.left_out > 0 { format!(", {} records not shown", self.left_out) } else { String::new() };
        let head = format!("{} flows in the last {} s, {}/s{more}", shown.len(), SHOWN.as_secs(), size(total));
        let names =
            format!("{:<6} {:<8} {:>10} {:>10} {:>12}  {:<6}  FLOW", "PROTO", "APP", "TX", "RX", "RATE", "STATE");
        let lines = shown.iter().take(rows.saturating_sub(3)).map(|row| {
            let Row { flow, tx_bytes, rx_bytes, rate, .. } = row;
            format!(
                "{:<6} {:<8} {:>10} {:>10} {:>10}/s  {:<6}  {} → {}",
                protocol(flow.protocol),
                flow.app,
                size(*tx_bytes),
                size(*rx_bytes),
                size(*rate),
                flow.end_reason().name(),
                end(ip(flow.src_ip_high, flow.src_ip_low), flow.src_port, &flow.src_name),
                end(ip(flow.dst_ip_high, flow.dst_ip_low), flow.dst_port, &flow.dst_name),
            )
        });
        [head, names].into_iter().chain(lines).map(|line| line.chars().take(columns).collect()).collect()
    }
}

impl Writer for Live {
    fn write(&mut self, flows: &[Flow]) -> io::Result<()> {
        let now = Instant::now();
        for flow in flows {
            self.take(flow, now);
        }
        Ok(())
    }

    fn tick(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.flows.retain(|_, row| now.duration_since(row.at) < SHOWN);
        let (rows, columns) = terminal_size();
        // Home, each line cleared to its end, then everything below.
        let mut screen = String::from("\u{1b}[H");
        for line in self.table(rows, columns) {
            screen.push_str(&line);
            screen.push_str("\u{1b}[K\r\n");
        }
        screen.push_str("\u{1b}[J");
        self.target.write_all(screen.as_bytes())?;
        self.target.flush()
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.target.flush()
    }
}

fn terminal_size() -> (usize, usize) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel fills the structure, which lives through the call.
    let known = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) } == 0;
    if known && size.ws_row > 0 && size.ws_col > 0 { (size.ws_row.into(), size.ws_col.into()) } else { USUAL_SIZE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(id: u64, bytes: u64) -> Flow {
        Flow { flow_id: id, tx_bytes: bytes, end_time: 1_000_000, protocol: 17, dst_port: 53, ..Flow::default() }
    }

    #[test]
    fn the_busiest_flow_comes_first_and_its_sums_grow() {
        let mut live = Live::new(Box::new(io::sink()));
        live.write(&[flow(1, 500), flow(2, 9000), flow(1, 700)]).unwrap();
        let table = live.table(24, 200);
        assert!(table[0].starts_with("2 flows in the last 15 s, 9.7 kB/s"), "{table:?}");
        assert!(table[2].contains("9.0 kB") && table[3].contains("1.2 kB"), "{table:?}");
        assert_eq!(live.table(4, 10).len(), 3);
        assert!(live.table(24, 10).iter().all(|line| line.chars().count() <= 10));
    }

    #[test]
    fn the_table_is_bounded_and_says_so() {
        let mut live = Live::new(Box::new(io::sink()));
        let flows: Vec<_> = (0..MAX_FLOWS as u64 + 5).map(|id| flow(id, 1)).collect();
        live.write(&flows).unwrap();
        assert_eq!(live.flows.len(), MAX_FLOWS);
        assert!(live.table(24, 200)[0].ends_with("5 records not shown"));
    }
}

//! Captures of generated traffic. Pure but for the writing: the same options are the same bytes, for ever.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::frames::{self, ACK, End, FIN, PSH, RST, SYN, Segment};

/// What to write.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The capture
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
    /// Packets, about
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
}

/// What the traffic is like.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(super) enum Kind {
    /// One flow to five packets: DNS, TLS, HTTP, scans, and a few large transfers
    #[default]
    Mixed,
    /// Eight large transfers
    Bulk,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let made = make(&options.file, options.kind, options.packets)?;
    println!("{}: {} packets, {} bytes, {} flows", options.file.display(), made.packets, made.bytes, made.flows);
    Ok(())
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Made {
    pub(super) packets: u64,
    /// Of the file.
    pub(super) bytes: u64,
    pub(super) flows: u64,
}

/// One packet that is to be sent.
struct Event {
    /// Microseconds from the start.
    time: u64,
    flow: u32,
    step: u32,
}

/// What a flow does.
#[derive(Clone, Copy)]
enum Talk {
    Dns,
    Datagram,
    Refused,
    /// A connection that stays open.
    Open,
    /// A connection that is closed.
    Closed,
    /// Data in one direction, so many segments.
    Transfer(u32),
}

/// Segments of a transfer between two acknowledgements.
const STRIDE: u32 = 4;
/// Data of a full segment with timestamps.
const FULL: usize = 1448;
/// Microseconds that the mixed traffic takes.
const SPAN: u64 = 600_000_000;
const START: u64 = 1_750_000_000;

impl Talk {
    /// Of the flow with this number; `all` in all.
    fn mixed(flow: u32, all: u32, packets: u64) -> Self {
        // 100 transfers share what the others leave: a bit more than a quarter of the packets, most of the bytes.
        const TRANSFERS: u32 = 100;
        if flow < TRANSFERS {
            return Self::Transfer((packets * 29 / 100 / u64::from(TRANSFERS)) as u32);
        }
        match u64::from(flow) * 1000 / u64::from(all.max(1)) {
            _ if flow % 20 < 9 => Self::Dns,
            _ if flow % 20 < 11 => Self::Datagram,
            _ if flow % 40 < 25 => Self::Refused,
            _ if flow % 40 < 34 => Self::Open,
            _ => Self::Closed,
        }
    }

    const fn steps(self) -> u32 {
        match self {
            Self::Dns | Self::Datagram | Self::Refused => 2,
            Self::Open => 5,
            Self::Closed => 9,
            Self::Transfer(packets) => packets,
        }
    }
}

/// A small generator of numbers that look random (Steele, Lea, Flood: `SplitMix64`).
fn random(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(super) fn make(path: &Path, kind: Kind, packets: u64) -> anyhow::Result<Made> {
    let talks: Vec<Talk> = match kind {
        Kind::Mixed => {
            let flows = (packets / 5) as u32;
            (0..flows).map(|flow| Talk::mixed(flow, flows, packets)).collect()
        }
        Kind::Bulk => vec![Talk::Transfer((packets / 8) as u32); 8],
    };
    let mut events = schedule(&talks, kind);
    events.sort_unstable_by_key(|event| (event.time, event.flow, event.step));
    write(path, &talks, &events).with_context(|| format!("cannot write {}", path.display()))
}

fn schedule(talks: &[Talk], kind: Kind) -> Vec<Event> {
    let mut events = Vec::new();
    for (flow, talk) in (0u32..).zip(talks) {
        let seed = u64::from(flow);
        let transfer = matches!(talk, Talk::Transfer(_));
        let mut time = match kind {
            Kind::Bulk => seed * 7,
            Kind::Mixed if transfer => random(seed) % (SPAN * 9 / 10),
            Kind::Mixed => random(seed) % SPAN,
        };
        let round_trip = 1000 + random(seed ^ 0xabcd) % 80_000;
        for step in 0..talk.steps() {
            events.push(Event { time, flow, step });
            time += if transfer && step > 4 { 40 + random(seed * 131 + u64::from(step)) % 100 } else { round_trip / 2 };
        }
    }
    events
}

fn write(path: &Path, talks: &[Talk], events: &[Event]) -> anyhow::Result<Made> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut header = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0];
    header.extend(1u32.to_le_bytes());
    file.write_all(&header)?;
    let noise: Vec<u8> = (0..8192).flat_map(|seed| random(seed).to_le_bytes()).collect();
    let (mut frame, mut bytes) = (Vec::new(), header.len() as u64);
    for event in events {
        packet(&mut frame, talks[event.flow as usize], event, &noise);
        let length = (frame.len() as u32).to_le_bytes();
        file.write_all(&((START + event.time / 1_000_000) as u32).to_le_bytes())?;
        file.write_all(&((event.time % 1_000_000) as u32).to_le_bytes())?;
        file.write_all(&length)?;
        file.write_all(&length)?;
        file.write_all(&frame)?;
        bytes += 16 + frame.len() as u64;
    }
    file.flush()?;
    Ok(Made { packets: events.len() as u64, bytes, flows: talks.len() as u64 })
}

fn packet(frame: &mut Vec<u8>, talk: Talk, event: &Event, noise: &[u8]) {
    let flow = u64::from(event.flow);
    let host = random(flow ^ 0x5a5a);
    let port = |kind: Talk| match kind {
        Talk::Dns => 53,
        Talk::Datagram => 123,
        Talk::Refused => (host >> 40) as u16 | 1,
        _ if flow.is_multiple_of(4) => 80,
        _ => 443,
    };
    let client = End { ip: 0x0a00_0000 | (host as u32 & 0xffff), port: 1024 + (flow % 64_000) as u16 };
    let server = End { ip: 0xc0a8_0000 | ((host >> 16) as u32 & 0x3ff), port: port(talk) };
    let name = format!("host{}.example{}.net", flow % 5000, host % 7);
    let id = (event.step * 3 + event.flow) as u16 | 1;
    match (talk, event.step) {
        (Talk::Dns, 0) => frames::udp(frame, client, server, id, &frames::dns(flow as u16, &name, None)),
        (Talk::Dns, _) => frames::udp(frame, server, client, id, &frames::dns(flow as u16, &name, Some(server.ip))),
        (Talk::Datagram, 0) => frames::udp(frame, client, server, id, &noise[..48]),
        (Talk::Datagram, _) => frames::udp(frame, server, client, id, &noise[..48]),
        (_, step) => {
            let data = data(talk, step, &name, flow, noise);
            let (up, segment) = segment(talk, step, flow, event.time, &name);
            let (src, dst) = if up { (client, server) } else { (server, client) };
            frames::tcp(frame, src, dst, Segment { id, ..segment }, &data);
        }
    }
}

/// What a step of a connection carries.
fn data(talk: Talk, step: u32, name: &str, flow: u64, noise: &[u8]) -> Vec<u8> {
    let tls = !flow.is_multiple_of(4);
    match (talk, step) {
        (Talk::Refused, _) | (_, 0..=2) => Vec::new(),
        (_, 3) if tls => frames::client_hello(name, random(flow)),
        (_, 3) => format!("GET /{flow} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: loadtest\r\nAccept: */*\r\n\r\n").into(),
        (_, 4) if !tls => {
            let mut answer =
                b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\nContent-Type: text/plain\r\n\r\n".to_vec();
            answer.extend(&noise[..FULL - answer.len()]);
            answer
        }
        (_, 4) => noise[..FULL].to_vec(),
        (Talk::Transfer(_), step) if step % (STRIDE + 1) != 0 => {
            let at = step as usize * 8 % (noise.len() - FULL);
            noise[at..at + FULL].to_vec()
        }
        _ => Vec::new(),
    }
}

/// Whether a step goes to the server, and what its header says.
fn segment(talk: Talk, step: u32, flow: u64, time: u64, name: &str) -> (bool, Segment) {
    let (client, server) = (random(flow ^ 1) as u32, random(flow ^ 2) as u32);
    let request = client.wrapping_add(1 + data(talk, 3, name, flow, &[]).len() as u32);
    let answered = server.wrapping_add(1 + FULL as u32);
    let clock = (time / 1000) as u32;
    let header =
        |up, sequence, acknowledgement, flags| (up, Segment { sequence, acknowledgement, flags, clock, id: 0 });
    match (talk, step) {
        (_, 0) => header(true, client, 0, SYN),
        (Talk::Refused, _) => header(false, 0, client.wrapping_add(1), RST | ACK),
        (_, 1) => header(false, server, client.wrapping_add(1), SYN | ACK),
        (_, 2) => header(true, client.wrapping_add(1), server.wrapping_add(1), ACK),
        (_, 3) => header(true, client.wrapping_add(1), server.wrapping_add(1), ACK | PSH),
        (_, 4) => header(false, server.wrapping_add(1), request, ACK | PSH),
        (Talk::Transfer(_), step) => {
            // Up to this step: so many groups of full segments, and the acknowledgement that ends each.
            let (groups, within) = ((step - 5) / (STRIDE + 1), (step - 5) % (STRIDE + 1));
            let before = answered.wrapping_add(groups * STRIDE * FULL as u32);
            match within {
                0 => header(true, request, before, ACK),
                nth => header(false, before.wrapping_add((nth - 1) * FULL as u32), request, ACK),
            }
        }
        (_, 5) => header(true, request, answered, ACK),
        (_, 6) => header(true, request, answered, ACK | FIN),
        (_, 7) => header(false, answered, request.wrapping_add(1), ACK | FIN),
        _ => header(true, request.wrapping_add(1), answered.wrapping_add(1), ACK),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_the_same_for_ever_and_as_large_as_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| directory.path().join(name));
        for kind in [Kind::Mixed, Kind::Bulk] {
            let made = make(&one, kind, 5000).unwrap();
            make(&other, kind, 5000).unwrap();
            let bytes = std::fs::read(&one).unwrap();
            assert_eq!(bytes, std::fs::read(&other).unwrap());
            assert_eq!(bytes.len() as u64, made.bytes);
            let walked = super::super::walk::walk(bytes.as_slice()).unwrap();
            assert_eq!((walked.packets, walked.flows as u64), (made.packets, made.flows), "{kind:?}");
        }
    }
}

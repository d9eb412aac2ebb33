//! The bytes that a search begins with: what real kernels and programs sent, in the form that each target takes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use weir_flow::packet::{IpPacket, LinkType, Transport, ip, link, transport};
use weir_flow::{Endpoint, Key};
use weir_pcap_worker::capture_file::{CaptureFile, Limits, Progress};
use weir_proto::{Batch, Flow};

use crate::packet::LINKS;
use crate::{quic, script};

mod files;
mod texts;

/// Frames of one capture that become seeds: a search mutates small ones best.
const MOST_FRAMES: usize = 400;
/// Bytes of a seed of several frames or segments.
const MOST_BYTES: usize = 12_000;

/// Seeds by target.
pub type Seeds = BTreeMap<&'static str, Vec<Vec<u8>>>;

/// The captures of this repository.
#[must_use]
pub fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/pcap-worker/tests/captures");
    ["ethernet-ns.pcap", "any-sll.pcap", "any-sll2-snap96.pcap", "wlan-aggregated.pcap.gz", "loss-sender.pcap.gz"]
        .map(|name| folder.join(name))
        .into()
}

/// The seeds that these captures give, and those that are texts. A file that is no capture gives none.
#[must_use]
pub fn seeds(captures: &[PathBuf]) -> Seeds {
    let mut seeds = Seeds::new();
    for path in captures {
        frames_of(path, &mut seeds);
    }
    texts::add(&mut seeds);
    // A priority of syslog beyond any number.
    add(&mut seeds, "app", [&[0; 4][..], b"<18446744073709551615>1"].concat());
    batches(&mut seeds);
    for all in seeds.values_mut() {
        all.sort();
        all.dedup();
    }
    seeds
}

fn add(seeds: &mut Seeds, target: &'static str, seed: Vec<u8>) {
    seeds.entry(target).or_default().push(seed);
}

struct Captured {
    link_type: LinkType,
    time_us: u64,
    data: Vec<u8>,
}

fn captured(path: &Path) -> Vec<Captured> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let Ok(mut file) = CaptureFile::open(file, Limits::default(), &Progress::default()) else { return Vec::new() };
    let mut frames = Vec::new();
    while let Ok(Some(packet)) = file.next_packet() {
        frames.push(Captured { link_type: packet.link_type, time_us: packet.time_us, data: packet.data.to_vec() });
        if frames.len() == MOST_FRAMES {
            break;
        }
    }
    frames
}

fn frames_of(path: &Path, seeds: &mut Seeds) {
    let frames = captured(path);
    let Some(first) = frames.first() else { return };
    let choice = LINKS.iter().position(|link| *link == first.link_type.0).unwrap_or(0) as u8;
    let mut together = vec![choice];
    let mut before = first.time_us;
    for frame in &frames {
        add(seeds, "packet", [&[choice][..], &frame.data].concat());
        if frame.link_type == LinkType::ETHERNET {
            add(seeds, "kernel", [&[0, 0, 0][..], &frame.data].concat());
        }
        if together.len() + frame.data.len() > MOST_BYTES {
            add(seeds, "frames", std::mem::replace(&mut together, vec![choice]));
        }
        let pause = frame.time_us.saturating_sub(before) / 15;
        script::write(&mut together, (pause as f64).cbrt().min(250.0) as u8, &frame.data);
        before = frame.time_us;
    }
    add(seeds, "frames", together);
    conversations(&frames, seeds);
    files::add(first.link_type, &frames, seeds);
}

/// What was said in each flow.
fn conversations(frames: &[Captured], seeds: &mut Seeds) {
    let mut streams: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
    let mut fragments = Vec::new();
    for frame in frames {
        let Ok(network) = link::network(frame.link_type, &frame.data) else { continue };
        let Ok(packet) = ip::parse(network.packet, network.packet.len() as u32) else { continue };
        add(seeds, "kernel", [&[1, 0, 0][..], network.packet].concat());
        if let Some(fragment) = packet.fragment {
            let offset = ((fragment.offset / 8) as u16).to_le_bytes();
            let head = [offset[0], offset[1], u8::from(fragment.more), 1];
            script::write(&mut fragments, fragment.id as u8, &[&head[..], packet.payload].concat());
            continue;
        }
        said(&packet, &mut streams, seeds);
    }
    add(seeds, "fragments", fragments);
    for (key, stream) in streams {
        let ports = [key.low.port, key.high.port];
        let stream = stream[..stream.len().min(MOST_BYTES)].to_vec();
        match ports {
            _ if ports.contains(&53) => add(seeds, "dns", stream),
            _ if ports.contains(&443) => add(seeds, "tls", stream),
            _ if ports.contains(&80) || ports.contains(&8080) => add(seeds, "http", stream),
            _ => add(seeds, "app", [&[0, 0, 0, 0][..], &stream[3.min(stream.len())..]].concat()),
        }
    }
}

fn said(packet: &IpPacket<'_>, streams: &mut BTreeMap<Key, Vec<u8>>, seeds: &mut Seeds) {
    match transport::parse(packet.protocol, packet.payload, packet.payload_length) {
        Transport::Tcp(tcp) if !tcp.payload.is_empty() => {
            let (src, dst) =
                (Endpoint { ip: packet.src, port: tcp.src_port }, Endpoint { ip: packet.dst, port: tcp.dst_port });
            let (key, _) = Key::new(src, dst, packet.protocol, 0, 0);
            let from_server = u8::from(tcp.src_port < tcp.dst_port);
            script::write(streams.entry(key).or_default(), from_server, tcp.payload);
            hello(tcp.payload, seeds);
        }
        Transport::Udp { src_port, dst_port, payload } => {
            add(seeds, "app", [&src_port.to_be_bytes()[..], &dst_port.to_be_bytes(), payload].concat());
            let mut step = Vec::new();
            script::write(&mut step, 0, payload);
            match (src_port, dst_port) {
                (53, _) | (_, 53) => add(seeds, "dns", payload.to_vec()),
                _ if weir_flow::quic::looks_like_quic(payload) => add(seeds, "quic", step),
                _ if weir_flow::tls::looks_like_dtls(payload) => add(seeds, "dtls", step),
                _ => {}
            }
        }
        _ => {}
    }
}

/// The hello of a TLS client or server as QUIC and DTLS would carry it.
fn hello(payload: &[u8], seeds: &mut Seeds) {
    let [22, 3, _, high, low, message @ ..] = payload else { return };
    let message = &message[..message.len().min(usize::from(u16::from_be_bytes([*high, *low])))];
    let Some((head, body)) = message.split_at_checked(4).filter(|(head, _)| matches!(head[0], 1 | 2)) else { return };
    let from_server = u8::from(head[0] == 2);
    let length = 0x4000 | message.len() as u16;
    let frames = [&[6, 0][..], &length.to_be_bytes(), message].concat();
    let mut step = Vec::new();
    script::write(&mut step, from_server, &frames);
    add(seeds, "quic_frames", step);
    let mut step = Vec::new();
    script::write(&mut step, from_server, &quic::closed(from_server == 0, 1, &frames));
    add(seeds, "quic", step);

    let fragment = [head, &[0, 0, 0, 0, 0], &head[1..], body].concat();
    let datagram =
        [&[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0][..], &(fragment.len() as u16).to_be_bytes(), &fragment].concat();
    let mut step = Vec::new();
    script::write(&mut step, from_server, &datagram);
    add(seeds, "dtls", step);
}

fn batches(seeds: &mut Seeds) {
    let flow = Flow { protocol: 6, dst_port: 443, dst_name: "weir.example".into(), tx_packets: 3, ..Flow::default() };
    let batch =
        Batch { producer: vec![7; 16], sequence: 1, host: "host".into(), flows: vec![flow], ..Batch::default() };
    let packed = weir_bus::encode_batch(&batch);
    add(seeds, "batch", [&[1][..], &packed].concat());
    let mut plain = vec![0];
    if let Ok(mut decoder) = zstd::Decoder::new(packed.as_slice())
        && decoder.read_to_end(&mut plain).is_ok()
    {
        add(seeds, "batch", plain);
    }
}

/// Writes them below a directory, one folder a target; a seed that is there already stays.
pub fn write(seeds: &Seeds, directory: &Path) -> std::io::Result<()> {
    for (target, all) in seeds {
        let folder = directory.join(target);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in all.iter().enumerate() {
            File::create(folder.join(format!("seed-{number:04}")))?.write_all(seed)?;
        }
    }
    Ok(())
}

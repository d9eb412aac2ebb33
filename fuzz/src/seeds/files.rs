//! Capture files in every form and packing.

use std::io::Write as _;

use weir_flow::packet::LinkType;

use super::{Captured, Seeds};

/// Frames of one file.
const MOST_FRAMES: usize = 24;

pub(super) fn add(link_type: LinkType, frames: &[Captured], seeds: &mut Seeds) {
    let frames = &frames[..frames.len().min(MOST_FRAMES)];
    let little = pcap(0xa1b2_c3d4, link_type, frames, u32::to_le_bytes);
    for file in [
        pcap(0xa1b2_3c4d, link_type, frames, u32::to_be_bytes),
        pcapng(link_type, frames, u32::to_le_bytes, u16::to_le_bytes),
        pcapng(link_type, frames, u32::to_be_bytes, u16::to_be_bytes),
        packed(&little),
        zstd::bulk::compress(&little, 1).unwrap_or_default(),
        lz4(&little),
        xz(&little),
        little,
    ] {
        super::add(seeds, "capture", file.clone());
        super::add(seeds, "capture_file", file);
    }
}

fn pcap(magic: u32, link_type: LinkType, frames: &[Captured], number: fn(u32) -> [u8; 4]) -> Vec<u8> {
    let version = if number(1)[0] == 1 { [2, 0, 4, 0] } else { [0, 2, 0, 4] };
    let mut file = [&number(magic)[..], &version, &[0; 8], &number(65_535), &number(u32::from(link_type.0))].concat();
    for frame in frames {
        let length = frame.data.len() as u32;
        let seconds = (frame.time_us / 1_000_000) as u32;
        for value in [seconds, (frame.time_us % 1_000_000) as u32, length, length] {
            file.extend(number(value));
        }
        file.extend(&frame.data);
    }
    file
}

/// A section with options, two interfaces, a name, a secret, a block of somebody's own, and packets in all three forms.
fn pcapng(link_type: LinkType, frames: &[Captured], number: fn(u32) -> [u8; 4], short: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = number(body.len() as u32 + 12);
        [&number(kind)[..], &length, &body, &length].concat()
    };
    let option = |code: u16, value: &[u8]| {
        let mut value_padded = value.to_vec();
        value_padded.resize(value.len().next_multiple_of(4), 0);
        [&short(code)[..], &short(value.len() as u16), &value_padded].concat()
    };
    let end = [0; 4];
    let section = [&number(0x1a2b_3c4d)[..], &short(1), &short(0), &[0xff; 8], &option(4, b"weir"), &end].concat();
    let interface = |name: &[u8], resolution: u8| {
        let head = [&short(link_type.0)[..], &[0, 0], &number(0)].concat();
        block(1, &[&head[..], &option(2, name), &option(9, &[resolution]), &end].concat())
    };
    let mut file = [block(0x0a0d_0d0a, &section), interface(b"eth0", 6), interface(b"eth1", 9)].concat();
    file.extend(block(4, &[&short(1)[..], &short(9), &[10, 0, 0, 1], b"weir\0\0\0\0", &end].concat()));
    file.extend(block(10, &[&number(0x544c_534b)[..], &number(4), b"abcd"].concat()));
    file.extend(block(0xbad, &[&number(32_473)[..], b"own"].concat()));
    for (index, frame) in frames.iter().enumerate() {
        let length = number(frame.data.len() as u32);
        let time = frame.time_us;
        let stamp = [number((time >> 32) as u32), number(time as u32)].concat();
        file.extend(match index % 5 {
            4 => block(3, &[&length[..], &frame.data].concat()),
            3 => block(2, &[&short(0)[..], &short(0), &stamp, &length, &length, &frame.data].concat()),
            _ => {
                let mut padded = frame.data.clone();
                padded.resize(padded.len().next_multiple_of(4), 0);
                let comment = option(1, b"a comment");
                let on = number(index as u32 % 2);
                block(6, &[&on[..], &stamp, &length, &length, &padded, &comment, &end].concat())
            }
        });
    }
    file
}

fn packed(file: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(file).and_then(|()| encoder.finish()).unwrap_or_default()
}

fn lz4(file: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    match encoder.write_all(file) {
        Ok(()) => encoder.finish().unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

fn xz(file: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(file).and_then(|()| encoder.finish()).unwrap_or_default()
}

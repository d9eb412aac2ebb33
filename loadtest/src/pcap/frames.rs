//! The frames of generated traffic: Ethernet, IPv4, TCP or UDP, with sequence numbers and options as hosts set them.

/// One end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) ip: u32,
    pub(super) port: u16,
}

/// What a TCP segment says besides its ends and data.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: u8,
    /// Clock of the sender, for the timestamp option.
    pub(super) clock: u32,
    pub(super) id: u16,
}

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;

const ETHERNET: usize = 14;
const IP: usize = 20;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A TCP segment with its data.
pub(super) fn tcp(frame: &mut Vec<u8>, src: End, dst: End, segment: Segment, data: &[u8]) {
    let syn = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7];
    let mut plain = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    plain[4..8].copy_from_slice(&segment.clock.to_be_bytes());
    let options: &[u8] = if segment.flags & SYN != 0 { &syn } else { &plain };
    let options = if segment.flags & RST != 0 { &[] } else { options };
    network(frame, src, dst, TCP, segment.id, 20 + options.len() + data.len());
    frame.extend(src.port.to_be_bytes());
    frame.extend(dst.port.to_be_bytes());
    frame.extend(segment.sequence.to_be_bytes());
    frame.extend(segment.acknowledgement.to_be_bytes());
    frame.extend([((20 + options.len()) << 2) as u8, segment.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    frame.extend(options);
    frame.extend(data);
}

/// A datagram.
pub(super) fn udp(frame: &mut Vec<u8>, src: End, dst: End, id: u16, data: &[u8]) {
    let length = 8 + data.len();
    network(frame, src, dst, UDP, id, length);
    frame.extend(src.port.to_be_bytes());
    frame.extend(dst.port.to_be_bytes());
    frame.extend((length as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(data);
}

fn network(frame: &mut Vec<u8>, src: End, dst: End, protocol: u8, id: u16, length: usize) {
    frame.clear();
    frame.reserve(ETHERNET + IP + length);
    frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0]);
    frame.extend(((IP + length) as u16).to_be_bytes());
    frame.extend(id.to_be_bytes());
    frame.extend([0x40, 0, 64, protocol, 0, 0]);
    frame.extend(src.ip.to_be_bytes());
    frame.extend(dst.ip.to_be_bytes());
    let sum = frame[ETHERNET..].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
}

/// A query for an address, or its answer.
pub(super) fn dns(id: u16, name: &str, answer: Option<u32>) -> Vec<u8> {
    let flags = if answer.is_some() { 0x8180u16 } else { 0x0100 };
    let mut message = Vec::with_capacity(64);
    for field in [id, flags, 1, u16::from(answer.is_some()), 0, 0] {
        message.extend(field.to_be_bytes());
    }
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    if let Some(address) = answer {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4]);
        message.extend(address.to_be_bytes());
    }
    message
}

/// A client hello of TLS 1.3 as browsers send them, but shorter.
pub(super) fn client_hello(name: &str, random: u64) -> Vec<u8> {
    let extension = |kind: u16, data: &[u8]| [&kind.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data].concat();
    let listed = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let host = [&[0], &listed(name.as_bytes())[..]].concat();
    let key = [&[0, 29][..], &listed(&random.to_be_bytes().repeat(4))].concat();
    let extensions = [
        extension(0, &listed(&host)),
        extension(10, &listed(&[0, 29, 0, 23, 0, 24])),
        extension(11, &[1, 0]),
        extension(13, &listed(&[4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 6, 6, 1])),
        extension(16, &listed(b"\x02h2\x08http/1.1")),
        extension(23, &[]),
        extension(35, &[]),
        extension(43, &[4, 3, 4, 3, 3]),
        extension(45, &[1, 1]),
        extension(51, &listed(&key)),
    ]
    .concat();
    let ciphers = [0x13, 1, 0x13, 2, 0x13, 3, 0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30, 0xcc, 0xa9, 0xcc, 0xa8];
    let body = [
        &[3, 3][..],
        &random.to_le_bytes().repeat(4),
        &[32],
        &random.to_be_bytes().repeat(4),
        &listed(&ciphers),
        &[1, 0],
        &listed(&extensions),
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    [&[22, 3, 1][..], &listed(&message)].concat()
}

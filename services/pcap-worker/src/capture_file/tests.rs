use std::io::{Cursor, Write as _};

use super::error::Bomb;
use super::*;

/// A packet as read: time, link type, captured bytes, original length.
type Seen = (u64, u16, Vec<u8>, u32);

fn read(bytes: Vec<u8>) -> Result<(Vec<Seen>, Option<Stop>), OpenError> {
    read_within(bytes, Limits::default())
}

fn read_within(bytes: Vec<u8>, limits: Limits) -> Result<(Vec<Seen>, Option<Stop>), OpenError> {
    read_from(Cursor::new(bytes), limits)
}

fn read_from(source: impl Read + Send + 'static, limits: Limits) -> Result<(Vec<Seen>, Option<Stop>), OpenError> {
    let mut file = CaptureFile::open(source, limits, &Progress::default())?;
    let mut packets = Vec::new();
    loop {
        match file.next_packet() {
            Ok(Some(packet)) => {
                packets.push((packet.time_us, packet.link_type.0, packet.data.to_vec(), packet.original_length));
            }
            Ok(None) => return Ok((packets, None)),
            Err(stop) => return Ok((packets, Some(stop))),
        }
    }
}

struct Order(bool);

impl Order {
    fn u16(&self, value: u16) -> [u8; 2] {
        if self.0 { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(&self, value: u32) -> [u8; 4] {
        if self.0 { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn words(&self, values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| self.u32(*value)).collect()
    }

    fn pcap(&self, magic: u32, packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let mut file = [&self.u32(magic)[..], &self.u16(2), &self.u16(4), &self.words(&[0, 0, 65_535, 1])].concat();
        for (seconds, fraction, data) in packets {
            let length = data.len() as u32;
            file.extend(self.words(&[*seconds, *fraction, length, length + 5]));
            file.extend(*data);
        }
        file
    }

    fn block(&self, kind: u32, body: &[u8]) -> Vec<u8> {
        let padded = body.len().next_multiple_of(4);
        let length = self.u32(padded as u32 + 12);
        let padding = vec![0; padded - body.len()];
        [&self.u32(kind)[..], &length, body, &padding, &length].concat()
    }

    fn section(&self) -> Vec<u8> {
        let body = [&self.u32(0x1a2b_3c4d)[..], &self.u16(1), &self.u16(0), &[0xff; 8]].concat();
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(&self, link_type: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = [&self.u16(link_type)[..], &[0, 0], &self.u32(0)].concat();
        for (code, value) in options {
            body.extend([&self.u16(*code)[..], &self.u16(value.len() as u16), value].concat());
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(1, &body)
    }

    fn options(&self, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut all = Vec::new();
        for (code, value) in options.iter().chain([&(0, &[][..])]) {
            all.extend([&self.u16(*code)[..], &self.u16(value.len() as u16), value].concat());
            all.resize(all.len().next_multiple_of(4), 0);
        }
        all
    }

    fn enhanced(&self, interface: u32, ticks: u64, data: &[u8]) -> Vec<u8> {
        let length = data.len() as u32;
        let head = self.words(&[interface, (ticks >> 32) as u32, ticks as u32, length, length + 5]);
        self.block(6, &[&head[..], data].concat())
    }
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn damage(stop: Option<Stop>) -> Damage {
    match stop {
        Some(Stop::Damage(damage)) => damage,
        other => panic!("not damage: {other:?}"),
    }
}

const BOTH: [Order; 2] = [Order(false), Order(true)];

#[test]
fn pcap_is_read_in_both_byte_orders_and_resolutions() {
    for order in BOTH {
        for (magic, fraction) in [(0xa1b2_c3d4, 7), (0xa1b2_3c4d, 7_999)] {
            let (packets, stop) = read(order.pcap(magic, &[(3, fraction, b"ab"), (4, 0, b"")])).unwrap();
            assert!(stop.is_none());
            assert_eq!(packets, [(3_000_007, 1, b"ab".to_vec(), 7), (4_000_000, 1, Vec::new(), 5)]);
        }
    }
}

#[test]
fn pcapng_is_read_in_both_byte_orders_with_several_interfaces_and_sections() {
    for order in BOTH {
        let offset = if order.0 { 100i64.to_be_bytes() } else { 100i64.to_le_bytes() };
        let file = [
            order.section(),
            order.interface(1, &[(2, b"eth0")]),
            order.interface(101, &[(9, &[9]), (14, &offset)]),
            order.enhanced(0, 5, b"abc"),
            order.block(0x0bad_beef, b"passed over"),
            order.enhanced(1, 5_999, b""),
            order.block(3, &[&order.u32(2)[..], b"xy"].concat()),
            BOTH[1].section(),
            BOTH[1].interface(113, &[(9, &[0x8a])]),
            BOTH[1].enhanced(0, 2048, b"z"),
        ]
        .concat();
        let (packets, stop) = read(file).unwrap();
        assert!(stop.is_none(), "{stop:?}");
        assert_eq!(
            packets,
            [
                (5, 1, b"abc".to_vec(), 8),
                (100_000_005, 101, Vec::new(), 5),
                (100_000_005, 1, b"xy".to_vec(), 2),
                (2_000_000, 113, b"z".to_vec(), 6),
            ]
        );
    }
}

#[test]
fn interfaces_keep_their_names_across_sections() {
    let order = Order(false);
    let file = [
        order.section(),
        order.interface(1, &[(2, b"eth0")]),
        order.section(),
        order.interface(1, &[(2, b"eth1")]),
        order.enhanced(0, 1, b""),
    ]
    .concat();
    let mut file = CaptureFile::open(Cursor::new(file), Limits::default(), &Progress::default()).unwrap();
    let interface = file.next_packet().unwrap().unwrap().interface;
    assert_eq!(file.interfaces()[interface], "eth1");
}

#[test]
fn compression_is_told_by_the_first_bytes_and_members_may_follow_each_other() {
    let file = Order(false).pcap(0xa1b2_c3d4, &[(1, 0, b"abc"), (2, 0, b"def")]);
    let (first, second) = file.split_at(50);
    let zstd = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).unwrap();
    for packed in [
        gzip(&file),
        [gzip(first), gzip(second)].concat(),
        zstd(&file),
        [zstd(first), zstd(second)].concat(),
        [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &zstd(&file)].concat(),
        lz4(&file),
        [lz4(first), lz4(second)].concat(),
        xz(&file),
        [xz(first), xz(second)].concat(),
    ] {
        let (packets, stop) = read(packed).unwrap();
        assert_eq!((packets.len(), stop.is_none()), (2, true));
    }
}

#[test]
fn a_file_cut_anywhere_keeps_the_packets_before_the_cut_and_says_where_it_is() {
    let order = Order(false);
    let file = order.pcap(0xa1b2_c3d4, &[(1, 0, b"abc"), (2, 0, b"def")]);
    for length in 24..file.len() {
        let (packets, stop) = read(file[..length].to_vec()).unwrap();
        let (whole, start) = if length < 43 { (0, 24) } else { (1, 43) };
        assert_eq!(packets.len(), whole);
        if length == start {
            assert!(stop.is_none());
        } else {
            let damage = damage(stop);
            assert_eq!((damage.packets, damage.offset), (whole as u64, start as u64));
        }
    }
}

#[test]
fn cut_compression_keeps_the_packets_before_the_cut() {
    let data: Vec<u8> = (0..20_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()).collect();
    let packets: Vec<(u32, u32, &[u8])> = data.chunks(100).map(|chunk| (1, 0, chunk)).collect();
    let packed = gzip(&Order(false).pcap(0xa1b2_c3d4, &packets));
    let (seen, stop) = read(packed[..packed.len() / 2].to_vec()).unwrap();
    assert!(seen.len() > 100, "{}", seen.len());
    assert_eq!(damage(stop).packets, seen.len() as u64);
}

/// Gives a few bytes at a time, as a network does.
struct Slow(Cursor<Vec<u8>>);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = buffer.len().min(3);
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn damaged_compression_gives_the_same_packets_however_slowly_it_comes() {
    let packets: Vec<_> = (0..200).map(|number: u32| number.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let packets: Vec<(u32, u32, &[u8])> = packets.iter().map(|data| (1, 2, &data[..])).collect();
    let file = Order(false).pcap(0xa1b2_c3d4, &packets);
    let zstd = zstd::bulk::compress(&file, 1).unwrap();
    for (compressed, step) in [(gzip(&file), 5), (zstd, 5), (lz4(&file), 7), (xz(&file), 5)] {
        for at in (4..compressed.len()).step_by(step) {
            let mut damaged = compressed.clone();
            damaged[at] ^= 0x55;
            let fast = read(damaged.clone()).map(|(packets, _)| packets).ok();
            let slow = read_from(Slow(Cursor::new(damaged)), Limits::default()).map(|(packets, _)| packets).ok();
            assert_eq!(slow, fast, "byte {at} of {}", compressed.len());
        }
    }
}

#[test]
fn what_is_no_capture_is_refused_with_its_reason() {
    let error = |bytes: &[u8]| read(bytes.to_vec()).unwrap_err().to_string();
    assert_eq!(error(b""), "the file is empty");
    assert_eq!(error(&gzip(b"")), "the file is gzip with nothing in it");
    assert!(error(b"GET / HTTP/1.1").starts_with("the file is neither pcap nor pcapng"));
    assert_eq!(error(&[0xd4]), "the file ends within its header");
    assert_eq!(error(&Order(true).pcap(0xa1b2_c3d4, &[])[..20]), "the file ends within its header");
    assert_eq!(error(&gzip(&gzip(b"x"))), "the file is compressed twice");
    assert_eq!(error(&gzip(&[7; 500])[..15]), "the file cannot be decompressed");
    assert_eq!(error(&Order(true).section()[..20]), "the file ends within its header");
}

#[test]
fn lengths_that_cannot_be_are_damage_and_nothing_is_allocated_for_them() {
    let order = Order(false);
    let mut file = order.pcap(0xa1b2_c3d4, &[(1, 0, b"abc")]);
    file.extend(order.words(&[2, 0, u32::MAX, 100]));
    let (packets, stop) = read(file).unwrap();
    assert_eq!((packets.len(), damage(stop).offset), (1, 43));

    let start = [order.section(), order.interface(1, &[]), order.enhanced(0, 1, b"abc")].concat();
    for hostile in [
        order.words(&[6, 0xffff_fff0]),
        order.words(&[6, 0xffff_ffff]),
        order.words(&[6, 4]),
        order.block(6, &order.words(&[9, 0, 0, 0, 0])),
        order.block(6, &order.words(&[0, 0, 0, 77, 77])),
        [order.words(&[6, 32, 0, 0, 0, 0, 0]), order.words(&[36])].concat(),
        order.words(&[0x0a0d_0d0a, 28, 0x1122_3344]),
    ] {
        let (packets, stop) = read([start.clone(), hostile].concat()).unwrap();
        assert_eq!((packets.len(), damage(stop).offset), (1, start.len() as u64));
    }
}

#[test]
fn a_bomb_is_stopped_by_its_ratio_and_by_its_size() {
    let mut file = Order(false).pcap(0xa1b2_c3d4, &[]);
    file.resize(4 << 20, 0);
    let limits = Limits { bytes: 1 << 30, ratio: 100, ratio_from: 1 << 20 };
    let (_, stop) = read_within(gzip(&file), limits).unwrap();
    assert!(matches!(stop, Some(Stop::Bomb(Bomb::Ratio(100)))), "{stop:?}");
    let (_, stop) = read_within(gzip(&file), Limits { bytes: 1 << 20, ratio: u64::MAX, ratio_from: 0 }).unwrap();
    assert!(matches!(stop, Some(Stop::Bomb(Bomb::Size(_)))), "{stop:?}");
}

#[test]
fn a_source_that_fails_is_not_damage() {
    struct Fails(Cursor<Vec<u8>>);
    impl Read for Fails {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "gone")),
                count => Ok(count),
            }
        }
    }
    let order = Order(false);
    let plain = order.pcap(0xa1b2_c3d4, &[(1, 0, b"abc")]);
    let packed = gzip(&plain);
    for bytes in [plain, packed[..packed.len() - 9].to_vec()] {
        let source = Fails(Cursor::new(bytes));
        let mut file = CaptureFile::open(source, Limits::default(), &Progress::default()).unwrap();
        let stop = loop {
            match file.next_packet() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the end was not reached"),
                Err(stop) => break stop,
            }
        };
        assert!(matches!(stop, Stop::Source(_)), "{stop:?}");
    }
}

/// A file with everything that may stand between packets.
fn annotated(order: &Order) -> Vec<u8> {
    let long = |value: u64| if order.0 { value.to_be_bytes() } else { value.to_le_bytes() };
    let section = [&order.u32(0x1a2b_3c4d)[..], &order.u16(1), &order.u16(0), &[0xff; 8]].concat();
    let about = order.options(&[(3, b"Linux"), (4, b"Dumpcap"), (1, b"of the file")]);
    let name = [&order.u16(1)[..], &order.u16(16), &[10, 0, 0, 2], b"web.lan\0alt\0"].concat();
    let six = [&order.u16(2)[..], &order.u16(16 + 3), &[0x20; 16], b"six", &[0]].concat();
    let names = [&name[..], &six, &order.u32(0), &order.options(&[(1, b"of names")])].concat();
    let secrets = [&order.u32(0x544c_534b)[..], &order.u32(5), b"key!!"].concat();
    let statistics =
        [&order.words(&[0, 0, 0])[..], &order.options(&[(4, &long(9)), (5, &long(3)), (7, &long(2))])].concat();
    let packet =
        [&order.words(&[0, 0x1_7000, 7, 2, 2])[..], &[1, 2, 0, 0], &order.options(&[(2, &[0; 4]), (1, b"look")])];
    [
        order.block(0x0a0d_0d0a, &[section, about].concat()),
        order.interface(1, &[(9, &[9])]),
        order.block(0x0bad, &[1, 2, 3]),
        order.block(10, &secrets),
        order.block(4, &names),
        order.block(6, &packet.concat()),
        order.block(3, &[&order.u32(2)[..], &[3, 4]].concat()),
        order.block(5, &statistics),
    ]
    .concat()
}

#[test]
fn what_a_file_says_besides_its_packets_is_kept() {
    for order in [Order(true), Order(false)] {
        let file = annotated(&order);
        let mut file = CaptureFile::open(Cursor::new(file), Limits::default(), &Progress::default()).unwrap();
        let packet = file.next_packet().unwrap().unwrap();
        let ticks: u64 = 0x1_7000 << 32 | 7;
        assert_eq!((packet.time_us, packet.nanoseconds), (ticks / 1000, (ticks % 1000) as u16));
        assert_eq!((packet.comment, packet.data), (&b"look"[..], &[1, 2][..]));
        let v4 = std::net::Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped().octets();
        let asides = [
            Aside::Secrets(0x544c_534b, b"key!!".to_vec()),
            Aside::Name(v4, "web.lan".to_owned()),
            Aside::Name([0x20; 16], "six".to_owned()),
        ];
        assert_eq!(file.take_asides(), asides);
        assert!(!format!("{asides:?}").contains("key"), "secrets are not shown");
        // A packet without a time came with the one before it.
        let packet = file.next_packet().unwrap().unwrap();
        assert_eq!((packet.time_us, packet.data), (ticks / 1000, &[3, 4][..]));
        assert!(file.next_packet().unwrap().is_none());
        let notes = file.notes();
        assert_eq!((notes.application.as_str(), notes.os.as_str()), ("Dumpcap", "Linux"));
        assert_eq!((notes.secrets, notes.names, notes.untimed, notes.left_out), (1, 2, 1, 0));
        assert_eq!(notes.dropped.values().sum::<u64>(), 5);
        let comments: Vec<_> = notes.comments.iter().map(|comment| (comment.packet, comment.text.as_str())).collect();
        assert_eq!(comments, [(None, "of the file"), (None, "of names"), (Some(1), "look")]);
    }
}

#[test]
fn what_a_hostile_file_says_besides_its_packets_takes_no_memory() {
    let order = Order(false);
    let mut file = [order.section(), order.interface(1, &[])].concat();
    let secrets = [&order.u32(1)[..], &order.u32(3 << 20), &vec![7; 3 << 20]].concat();
    for _ in 0..8 {
        file.extend(order.block(10, &secrets));
    }
    file.extend(order.block(10, &[&order.u32(1)[..], &order.u32(u32::MAX), &[0; 4]].concat()));
    file.extend(order.block(4, &[0xff; 64]));
    file.extend(order.enhanced(0, 1, &[1]));
    let mut file = CaptureFile::open(Cursor::new(file), Limits::default(), &Progress::default()).unwrap();
    assert!(file.next_packet().unwrap().is_some());
    assert_eq!((file.take_asides().len(), file.notes().left_out, file.notes().secrets), (5, 3, 9));
}

#[test]
fn nanoseconds_of_the_classic_form_are_kept_and_zero_times_counted() {
    let file = Order(false).pcap(0xa1b2_3c4d, &[(0, 0, &[1]), (5, 123_456_789, &[2]), (0, 0, &[3])]);
    let mut file = CaptureFile::open(Cursor::new(file), Limits::default(), &Progress::default()).unwrap();
    let mut times = Vec::new();
    while let Some(packet) = file.next_packet().unwrap() {
        times.push((packet.time_us, packet.nanoseconds));
    }
    assert_eq!(times, [(0, 0), (5_123_456, 789), (5_123_456, 789)]);
    assert_eq!(file.notes().untimed, 2);
}

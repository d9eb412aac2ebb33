//! pcapng (draft-ietf-opsawg-pcapng): a section, its interfaces, packets with direction and comment, and at the end what was lost.

use weir_capture_common::dissect::Link;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_FILTERACCEPT: u16 = 6;
const ISB_OSDROP: u16 = 7;

/// 10^-9 seconds.
const NANOSECONDS: u8 = 9;
/// Text in an option is cut here.
const MAX_TEXT: usize = 1024;
/// Type, the length twice.
const BLOCK: usize = 12;
/// Interface, time, both lengths.
const PACKET: usize = 20;
/// The option with the direction, and the end of the options.
const FLAGS: usize = 8 + 4;
/// What [`Writer::statistics`] writes for an interface.
pub(super) const STATISTICS_BYTES: u64 = (BLOCK + 12 + 4 * 12 + 4) as u64;

/// An interface, as it is named in the file.
pub(super) struct Described<'a> {
    pub(super) link: Link,
    pub(super) name: &'a str,
    /// Empty = none.
    pub(super) description: &'a str,
    /// 0 = packets are whole.
    pub(super) snap_length: u32,
}

/// A packet as the kernel saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Packet {
    /// Number of the interface in the file.
    pub(super) interface: u32,
    /// Nanoseconds since 1970.
    pub(super) time_ns: u64,
    /// Bits of `epb_flags`: direction and kind of reception.
    pub(super) flags: u32,
    /// Length on the wire.
    pub(super) original: u32,
    pub(super) data: Box<[u8]>,
}

/// What happened on an interface.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Statistics {
    /// Nanoseconds since 1970.
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
    /// Packets that the filter accepted.
    pub(super) accepted: u64,
    /// Packets for which the kernel had no room.
    pub(super) dropped: u64,
}

/// Writes blocks into memory, from where they are [taken](Writer::take) away.
#[derive(Default)]
pub(super) struct Writer {
    output: Vec<u8>,
    taken: u64,
}

impl Writer {
    /// Bytes of the file so far.
    pub(super) fn bytes(&self) -> u64 {
        self.taken + self.output.len() as u64
    }

    /// Bytes that nobody has taken yet.
    pub(super) fn waiting(&self) -> usize {
        self.output.len()
    }

    /// What was written since the last time.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.taken += self.output.len() as u64;
        std::mem::take(&mut self.output)
    }

    /// Begins the file.
    pub(super) fn section(&mut self, system: &str, comment: &str) {
        self.block(SECTION, |block| {
            block.extend(BYTE_ORDER.to_le_bytes());
            block.extend(1_u16.to_le_bytes());
            block.extend(0_u16.to_le_bytes());
            // How long the section is, nobody knows before its end.
            block.extend(u64::MAX.to_le_bytes());
            text(block, SHB_OS, system);
            text(block, SHB_USERAPPL, concat!("weir-capture ", env!("CARGO_PKG_VERSION")));
            text(block, OPT_COMMENT, comment);
            option(block, OPT_END, &[]);
        });
    }

    /// Names an interface; they are numbered in this order, from 0.
    pub(super) fn interface(&mut self, interface: &Described<'_>) {
        // `LINKTYPE_ETHERNET`, `LINKTYPE_RAW`.
        let link: u16 = match interface.link {
            Link::Ethernet => 1,
            Link::Ip => 101,
        };
        self.block(INTERFACE, |block| {
            block.extend(link.to_le_bytes());
            block.extend(0_u16.to_le_bytes());
            block.extend(interface.snap_length.to_le_bytes());
            text(block, IF_NAME, interface.name);
            text(block, IF_DESCRIPTION, interface.description);
            option(block, IF_TSRESOL, &[NANOSECONDS]);
            option(block, OPT_END, &[]);
        });
    }

    /// Bytes that a packet takes.
    pub(super) fn packet_bytes(data: usize, comment: &str) -> u64 {
        let comment = if comment.is_empty() { 0 } else { 4 + cut(comment).len().next_multiple_of(4) };
        (BLOCK + PACKET + data.next_multiple_of(4) + FLAGS + comment) as u64
    }

    /// Writes a packet; an empty comment is none.
    pub(super) fn packet(&mut self, packet: &Packet, comment: &str) {
        self.block(ENHANCED_PACKET, |block| {
            block.extend(packet.interface.to_le_bytes());
            moment(block, packet.time_ns);
            let captured = packet.data.len() as u32;
            block.extend(captured.to_le_bytes());
            block.extend(packet.original.max(captured).to_le_bytes());
            block.extend_from_slice(&packet.data);
            pad(block);
            option(block, EPB_FLAGS, &packet.flags.to_le_bytes());
            text(block, OPT_COMMENT, comment);
            option(block, OPT_END, &[]);
        });
    }

    /// Says what happened on an interface.
    pub(super) fn statistics(&mut self, interface: u32, statistics: &Statistics) {
        self.block(STATISTICS, |block| {
            block.extend(interface.to_le_bytes());
            moment(block, statistics.to_ns);
            for (code, time) in [(ISB_STARTTIME, statistics.from_ns), (ISB_ENDTIME, statistics.to_ns)] {
                let mut value = Vec::with_capacity(8);
                moment(&mut value, time);
                option(block, code, &value);
            }
            option(block, ISB_FILTERACCEPT, &statistics.accepted.to_le_bytes());
            option(block, ISB_OSDROP, &statistics.dropped.to_le_bytes());
            option(block, OPT_END, &[]);
        });
    }

    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.output.len();
        self.output.extend(kind.to_le_bytes());
        self.output.extend([0; 4]);
        body(&mut self.output);
        let length = ((self.output.len() - start + 4) as u32).to_le_bytes();
        self.output.extend(length);
        self.output[start + 4..start + 8].copy_from_slice(&length);
    }
}

/// The upper half comes first.
fn moment(block: &mut Vec<u8>, time: u64) {
    block.extend(((time >> 32) as u32).to_le_bytes());
    block.extend((time as u32).to_le_bytes());
}

fn text(block: &mut Vec<u8>, code: u16, text: &str) {
    if !text.is_empty() {
        option(block, code, cut(text).as_bytes());
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

fn option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    block.extend(code.to_le_bytes());
    block.extend((value.len() as u16).to_le_bytes());
    block.extend_from_slice(value);
    pad(block);
}

/// Blocks begin at multiples of 4, because each is one.
fn pad(block: &mut Vec<u8>) {
    block.resize(block.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Type and body of each block; both lengths of each are checked.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = number(&file[4..]) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(number(&file[length - 4..]) as usize, length);
            blocks.push((number(file), file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        blocks
    }

    #[test]
    fn statistics_take_as_many_bytes_as_are_kept_for_them() {
        let mut writer = Writer::default();
        writer.statistics(0, &Statistics::default());
        assert_eq!(writer.bytes(), STATISTICS_BYTES);
    }

    #[test]
    fn a_file_has_a_section_its_interfaces_and_their_packets() {
        let mut writer = Writer::default();
        writer.section("Linux 6.6", "filter");
        writer.interface(&Described { link: Link::Ip, name: "tun0", description: "", snap_length: 0 });
        let packet =
            Packet { interface: 0, time_ns: (7 << 32) + 9, flags: 1, original: 100, data: Box::from(*b"abcde") };
        writer.packet(&packet, "container=web");
        let blocks = blocks(&writer.take());
        assert_eq!(blocks.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [SECTION, INTERFACE, ENHANCED_PACKET]);
        assert_eq!(blocks[1].1[..2], 101_u16.to_le_bytes());
        let body = &blocks[2].1;
        assert_eq!(body[4..20], [7, 0, 0, 0, 9, 0, 0, 0, 5, 0, 0, 0, 100, 0, 0, 0]);
        assert_eq!(&body[20..28], b"abcde\0\0\0");
        assert_eq!(&body[40..53], b"container=web");
    }

    proptest! {
        #[test]
        fn a_packet_takes_the_bytes_that_are_told_before(data in proptest::collection::vec(any::<u8>(), 0..70), comment in ".{0,600}") {
            let mut writer = Writer::default();
            let packet = Packet { data: data.clone().into(), ..Packet::default() };
            writer.packet(&packet, &comment);
            prop_assert_eq!(writer.bytes(), Writer::packet_bytes(data.len(), &comment));
            prop_assert_eq!(blocks(&writer.take()).len(), 1);
        }
    }
}

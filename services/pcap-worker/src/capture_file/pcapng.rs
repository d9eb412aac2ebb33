//! The newer form (draft-ietf-opsawg-pcapng): sections of blocks, each section in its own byte order, with its own interfaces.

use std::ops::Range;

use weir_flow::packet::LinkType;

use super::error::{Fault, OpenError};
use super::input::{Input, ReadError, cut};
use super::notes::{Aside, Notes, text};
use super::{Header, MAX_PACKET};

/// The type of the block that begins a section, the same in both byte orders.
pub(super) const MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Interfaces of a file beyond which it is taken for hostile.
const MAX_INTERFACES: usize = 65_536;
/// Bytes of an interface's name that are kept.
const MAX_NAME: usize = 255;
/// Bytes of a block that has to be held: a packet and its options.
const MAX_BLOCK: u32 = MAX_PACKET + (256 << 10);
/// The same of what stands besides packets; what is larger is passed over, and counted where it matters.
const MAX_ASIDE: u32 = 4 << 20;
/// Bytes of what stands besides packets that wait to be taken.
const MAX_WAITING: usize = 16 << 20;

/// Bytes of the length at the end of a block.
const TRAILER: usize = 4;
/// Bytes of a block besides its body: type and length, and the length again.
const HEAD_AND_TRAILER: u32 = 12;

mod block {
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE: u32 = 1;
    pub(super) const OLD_PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const NAMES: u32 = 4;
    pub(super) const STATISTICS: u32 = 5;
    pub(super) const ENHANCED_PACKET: u32 = 6;
    pub(super) const SECRETS: u32 = 10;
}

mod option {
    pub(super) const COMMENT: u16 = 1;
    pub(super) const IF_NAME: u16 = 2;
    pub(super) const IF_RESOLUTION: u16 = 9;
    pub(super) const IF_OFFSET: u16 = 14;
    pub(super) const SECTION_OS: u16 = 3;
    pub(super) const SECTION_APPLICATION: u16 = 4;
    pub(super) const DROPPED_BY_INTERFACE: u16 = 5;
    pub(super) const DROPPED_BY_OS: u16 = 7;
}

/// What a section says of an interface.
#[derive(Clone, Debug)]
struct Interface {
    link_type: LinkType,
    snap_length: u32,
    ticks_per_second: u128,
    offset_seconds: i64,
    /// Index of its name among all interfaces of the file.
    number: usize,
}

/// Reads blocks.
pub(super) struct Reader {
    big_endian: bool,
    /// Of the current section.
    interfaces: Vec<Interface>,
    names: Vec<String>,
    /// What is to be copied with packets, until it is taken.
    asides: Vec<Aside>,
    /// Bytes of these.
    waiting: usize,
}

impl Reader {
    /// Reads what follows the type of the first block.
    pub(super) fn open(input: &mut Input, notes: &mut Notes) -> Result<Self, OpenError> {
        let mut reader =
            Self { big_endian: false, interfaces: Vec::new(), names: Vec::new(), asides: Vec::new(), waiting: 0 };
        let length = input.read_array().map_err(OpenError::from_read)?;
        reader
            .section(input, length, notes)
            .map_err(|fault| fault.into_open_error("its byte order or length makes no sense"))?;
        Ok(reader)
    }

    /// The names of all interfaces of the file.
    pub(super) fn interface_names(&self) -> &[String] {
        &self.names
    }

    pub(super) const fn has_asides(&self) -> bool {
        !self.asides.is_empty()
    }

    /// What is to be copied with packets, since the last call.
    pub(super) fn take_asides(&mut self) -> Vec<Aside> {
        self.waiting = 0;
        std::mem::take(&mut self.asides)
    }

    /// Reads up to the next packet.
    pub(super) fn next(&mut self, input: &mut Input, notes: &mut Notes) -> Result<Option<Header>, Fault> {
        loop {
            let head: [u8; 8] = match input.read_array() {
                Ok(head) => head,
                Err(ReadError::End) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            let kind = self.u32(&head, 0);
            if kind == block::SECTION {
                self.section(input, [head[4], head[5], head[6], head[7]], notes)?;
                continue;
            }
            let length = block_length(self.u32(&head, 4))?;
            let body = length - HEAD_AND_TRAILER;
            if !matches!(kind, block::INTERFACE | block::OLD_PACKET | block::SIMPLE_PACKET | block::ENHANCED_PACKET) {
                self.aside(input, kind, body, notes)?;
                self.trailer(input, length)?;
                continue;
            }
            if body > MAX_BLOCK {
                return Err(Fault::field(format!("a block claims to hold {body} bytes")));
            }
            // Both at once: what is taken stays in the buffer only until more is.
            let taken = input.take(body as usize + TRAILER).map_err(cut)?;
            let (start, block) = (taken.start, input.bytes(taken));
            let (block, trailer) = block.split_at(body as usize);
            self.ends_as(length, trailer)?;
            let header = match kind {
                block::ENHANCED_PACKET => self.enhanced_packet(block)?,
                block::SIMPLE_PACKET => self.simple_packet(block)?,
                block::OLD_PACKET => self.old_packet(block)?,
                _ => {
                    self.interface(block, notes)?;
                    continue;
                }
            };
            let placed = |range: &Range<usize>| start + range.start..start + range.end;
            let (data, comment) = (placed(&header.data), placed(&header.comment));
            return Ok(Some(Header { data, comment, ..header }));
        }
    }

    /// A section header, after its type; its length is in a byte order that it has yet to name.
    fn section(&mut self, input: &mut Input, length: [u8; 4], notes: &mut Notes) -> Result<(), Fault> {
        self.big_endian = match input.read_array().map_err(cut)? {
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Err(Fault::field("a section names no byte order")),
        };
        let length = block_length(self.u32(&length, 0))?;
        let rest = length.checked_sub(16).ok_or_else(|| Fault::field("a section header is too short"))?;
        if rest > MAX_ASIDE {
            input.skip(u64::from(rest))?;
        } else {
            let taken = input.take(rest as usize).map_err(cut)?;
            // Version and length come before the options.
            self.options(input.bytes(taken).get(12..).unwrap_or_default(), |code, value| match code {
                option::COMMENT => notes.comment(None, value),
                option::SECTION_OS if notes.os.is_empty() => notes.os = text(value),
                option::SECTION_APPLICATION if notes.application.is_empty() => notes.application = text(value),
                _ => {}
            });
        }
        self.trailer(input, length)?;
        self.interfaces.clear();
        Ok(())
    }

    /// A block that is neither a packet nor needed to read one.
    fn aside(&mut self, input: &mut Input, kind: u32, body: u32, notes: &mut Notes) -> Result<(), Fault> {
        let matters = matches!(kind, block::NAMES | block::STATISTICS | block::SECRETS);
        notes.secrets += u64::from(kind == block::SECRETS);
        if !matters || body > MAX_ASIDE {
            notes.left_out += u64::from(matters);
            input.skip(u64::from(body))?;
            return Ok(());
        }
        let taken = input.take(body as usize).map_err(cut)?;
        let body = input.bytes(taken);
        match kind {
            block::NAMES => self.resolved_names(body, notes),
            block::STATISTICS => self.statistics(body, notes),
            _ => self.secrets(body, notes),
        }
        Ok(())
    }

    /// Records of an address and its names, the first of which is taken.
    fn resolved_names(&mut self, body: &[u8], notes: &mut Notes) {
        let mut rest = body;
        while let Some((head, after)) = rest.split_at_checked(4) {
            let (kind, length) = (self.u16(head, 0), usize::from(self.u16(head, 2)));
            let Some(value) = after.get(..length).filter(|_| kind != 0) else { break };
            let named = match kind {
                1 => value.split_at_checked(4).map(|(ip, name)| (mapped([ip[0], ip[1], ip[2], ip[3]]), name)),
                2 => value.split_first_chunk::<16>().map(|(ip, name)| (*ip, name)),
                _ => None,
            };
            if let Some((address, name)) = named {
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                self.keep(Aside::Name(address, text(&name[..end.min(MAX_NAME)])), notes);
                notes.names += 1;
            }
            rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        self.options(rest.get(4..).unwrap_or_default(), |code, value| {
            if code == option::COMMENT {
                notes.comment(None, value);
            }
        });
    }

    /// What the capture counted of an interface up to here.
    fn statistics(&self, body: &[u8], notes: &mut Notes) {
        let Some(fixed) = body.get(..12) else { return };
        let Ok(interface) = self.interface_of(self.u32(fixed, 0) as usize) else { return };
        let mut dropped = None;
        self.options(&body[12..], |code, value| {
            if let option::DROPPED_BY_INTERFACE | option::DROPPED_BY_OS = code
                && let Ok(bytes) = <[u8; 8]>::try_from(value)
            {
                let count = if self.big_endian { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) };
                dropped = Some(u64::saturating_add(dropped.unwrap_or(0), count));
            }
        });
        if let Some(dropped) = dropped {
            notes.dropped.insert(interface.number, dropped);
        }
    }

    /// What they are is nobody's business here: they are copied with the packets that they decrypt.
    fn secrets(&mut self, body: &[u8], notes: &mut Notes) {
        let Some((fixed, rest)) = body.split_at_checked(8) else { return };
        let (kind, length) = (self.u32(fixed, 0), self.u32(fixed, 4) as usize);
        if let Some(data) = rest.get(..length) {
            self.keep(Aside::Secrets(kind, data.to_vec()), notes);
        }
    }

    fn keep(&mut self, aside: Aside, notes: &mut Notes) {
        let size = |aside: &Aside| match aside {
            Aside::Secrets(_, data) => data.len(),
            Aside::Name(_, name) => size_of::<Aside>() + name.len(),
        };
        if self.waiting + size(&aside) > MAX_WAITING {
            notes.left_out += 1;
        } else {
            self.waiting += size(&aside);
            self.asides.push(aside);
        }
    }

    /// Each block ends with its length again.
    fn trailer(&self, input: &mut Input, length: u32) -> Result<(), Fault> {
        let trailer: [u8; TRAILER] = input.read_array().map_err(cut)?;
        self.ends_as(length, &trailer)
    }

    fn ends_as(&self, length: u32, trailer: &[u8]) -> Result<(), Fault> {
        // The padding of a length that is no multiple of four may be counted in it or not.
        let again = self.u32(trailer, 0);
        if again.checked_next_multiple_of(4) != Some(length) {
            return Err(Fault::field(format!("a block of {length} bytes ends as one of {again}")));
        }
        Ok(())
    }

    fn interface(&mut self, body: &[u8], notes: &mut Notes) -> Result<(), Fault> {
        if self.names.len() >= MAX_INTERFACES {
            return Err(Fault::field("too many interfaces"));
        }
        let fixed = body.get(..8).ok_or_else(|| Fault::field("an interface description is too short"))?;
        let mut interface = Interface {
            link_type: LinkType(self.u16(fixed, 0)),
            snap_length: self.u32(fixed, 4),
            ticks_per_second: 1_000_000,
            offset_seconds: 0,
            number: self.names.len(),
        };
        let mut name = String::new();
        self.options(&body[8..], |code, value| match (code, value) {
            (option::COMMENT, bytes) => notes.comment(None, bytes),
            (option::IF_NAME, bytes) => String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_NAME)])
                .trim_end_matches('\0')
                .clone_into(&mut name),
            (option::IF_RESOLUTION, [resolution, ..]) => interface.ticks_per_second = ticks_per_second(*resolution),
            (option::IF_OFFSET, value) => {
                if let Ok(bytes) = <[u8; 8]>::try_from(value) {
                    interface.offset_seconds =
                        if self.big_endian { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
                }
            }
            _ => {}
        });
        self.names.push(name);
        self.interfaces.push(interface);
        Ok(())
    }

    /// Calls `each` with code and value of every option.
    fn options(&self, mut rest: &[u8], mut each: impl FnMut(u16, &[u8])) {
        while let Some((head, after)) = rest.split_at_checked(4) {
            let (code, length) = (self.u16(head, 0), usize::from(self.u16(head, 2)));
            let Some(value) = after.get(..length).filter(|_| code != 0) else { return };
            each(code, value);
            rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }

    fn enhanced_packet(&self, body: &[u8]) -> Result<Header, Fault> {
        let fixed = body.get(..20).ok_or_else(too_short)?;
        let interface = self.u32(fixed, 0) as usize;
        self.timed_packet(body, interface)
    }

    /// The block that enhanced packets replaced; it has a number of dropped packets in the upper half of the first field.
    fn old_packet(&self, body: &[u8]) -> Result<Header, Fault> {
        let fixed = body.get(..20).ok_or_else(too_short)?;
        let interface = usize::from(self.u16(fixed, 0));
        self.timed_packet(body, interface)
    }

    /// Time and lengths lie at the same places in both.
    fn timed_packet(&self, body: &[u8], interface: usize) -> Result<Header, Fault> {
        let ticks = u64::from(self.u32(body, 4)) << 32 | u64::from(self.u32(body, 8));
        let captured = self.u32(body, 12);
        let interface = self.interface_of(interface)?;
        let (time_us, nanoseconds) = interface.time(ticks);
        let end = data_end(body, 20, captured)?;
        Ok(Header {
            time_us,
            nanoseconds,
            link_type: interface.link_type,
            interface: interface.number,
            original_length: self.u32(body, 16),
            data: 20..end,
            comment: self.comment(body, end.next_multiple_of(4)),
        })
    }

    /// Where the first comment among the options is that begin at `start`.
    fn comment(&self, body: &[u8], start: usize) -> std::ops::Range<usize> {
        let mut at = start;
        while let Some(head) = body.get(at..at + 4) {
            let (code, length) = (self.u16(head, 0), usize::from(self.u16(head, 2)));
            let value = at + 4..at + 4 + length;
            if code == 0 || value.end > body.len() {
                break;
            }
            if code == option::COMMENT {
                return value;
            }
            at = value.end.next_multiple_of(4);
        }
        0..0
    }

    fn simple_packet(&self, body: &[u8]) -> Result<Header, Fault> {
        let fixed = body.get(..4).ok_or_else(too_short)?;
        let original_length = self.u32(fixed, 0);
        let interface = self.interface_of(0)?;
        let snap_length = if interface.snap_length == 0 { u32::MAX } else { interface.snap_length };
        let captured = original_length.min(snap_length).min(body.len() as u32 - 4);
        Ok(Header {
            time_us: 0,
            nanoseconds: 0,
            link_type: interface.link_type,
            interface: interface.number,
            original_length,
            data: 4..data_end(body, 4, captured)?,
            comment: 0..0,
        })
    }

    fn interface_of(&self, index: usize) -> Result<&Interface, Fault> {
        self.interfaces
            .get(index)
            .ok_or_else(|| Fault::field(format!("a packet of interface {index}, which was not described")))
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        let bytes = [bytes[at], bytes[at + 1]];
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }
}

impl Interface {
    /// Microseconds since the epoch, and what is beyond them in nanoseconds.
    fn time(&self, ticks: u64) -> (u64, u16) {
        const NANO: u128 = 1_000_000_000;
        let (since, nanoseconds) = match self.ticks_per_second {
            1_000_000 => (ticks, 0),
            NANO => (ticks / 1000, (ticks % 1000) as u16),
            other => {
                let seconds = u128::from(ticks) / other;
                let beyond = u128::from(ticks) % other * NANO / other;
                let all = seconds * NANO + beyond;
                (u64::try_from(all / 1000).unwrap_or(u64::MAX), (all % 1000) as u16)
            }
        };
        let offset = i128::from(self.offset_seconds) * 1_000_000;
        let time = i128::from(since).saturating_add(offset);
        (u64::try_from(time.max(0)).unwrap_or(u64::MAX), nanoseconds)
    }
}

/// Option `if_tsresol`: a negative power of ten, or of two where the highest bit is set.
fn ticks_per_second(resolution: u8) -> u128 {
    let exponent = u32::from(resolution & 0x7f);
    let base: u128 = if resolution & 0x80 != 0 { 2 } else { 10 };
    base.checked_pow(exponent).unwrap_or(u128::MAX)
}

/// The length of a block with its padding.
fn block_length(length: u32) -> Result<u32, Fault> {
    length
        .checked_next_multiple_of(4)
        .filter(|length| *length >= 12)
        .ok_or_else(|| Fault::field(format!("a block claims to be {length} bytes long")))
}

fn data_end(body: &[u8], start: usize, captured: u32) -> Result<usize, Fault> {
    let end = start + captured as usize;
    if captured > MAX_PACKET || end > body.len() {
        return Err(Fault::field(format!("a packet claims to hold {captured} bytes")));
    }
    Ok(end)
}

fn too_short() -> Fault {
    Fault::field("a packet block is too short")
}

/// An IPv4 address in the form that all have here.
const fn mapped(ip: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]).to_ipv6_mapped().octets()
}

//! Capture files as a stream: pcap and pcapng, as they are or in gzip, zstd, lz4 or xz, told by their first bytes and never by their name.
//!
//! Nothing is read ahead of the current packet but a buffer, in which packets are looked at where they are, and nothing that the file
//! claims is allocated before it is checked, so a file of any size is read in the same memory.

use std::io::Read;

use weir_flow::packet::LinkType;

mod compression;
mod error;
mod input;
mod notes;
mod pcap;
mod pcapng;

pub use compression::{Compression, Limits};
pub use error::{Damage, OpenError, Stop};
pub use input::Progress;
pub use notes::{Aside, Comment, Notes};

use input::{Input, ReadError};

/// Bytes of one packet beyond which its length is taken for damage; four times the largest snap length that tools use.
pub const MAX_PACKET: u32 = 1 << 20;

/// One packet of a file.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// From 1 on, in the order of the file.
    pub number: u64,
    /// Microseconds since the epoch.
    pub time_us: u64,
    /// What its time has beyond that, 0 to 999 nanoseconds; finer times are cut off.
    pub nanoseconds: u16,
    /// Of its interface.
    pub link_type: LinkType,
    /// Index into [`CaptureFile::interfaces`].
    pub interface: usize,
    /// Its name; empty = not given.
    pub interface_name: &'a str,
    /// What was captured.
    pub data: &'a [u8],
    /// Bytes on the wire.
    pub original_length: u32,
    /// The first remark that somebody left about it; empty = none.
    pub comment: &'a [u8],
}

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Classic.
    Pcap,
    /// Blocks, several interfaces.
    Pcapng,
}

impl Format {
    /// The name that people use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcap => "pcap",
            Self::Pcapng => "pcapng",
        }
    }
}

/// A capture file that is being read.
pub struct CaptureFile {
    input: Input,
    reader: Reader,
    compression: Compression,
    packets: u64,
    /// Of the last packet that had one; the best guess for one that has none.
    last_time: (u64, u16),
    notes: Notes,
}

enum Reader {
    Pcap(pcap::Reader),
    Pcapng(Box<pcapng::Reader>),
}

/// A packet without its number and bytes, which the file keeps.
struct Header {
    /// 0 = it has none.
    time_us: u64,
    nanoseconds: u16,
    link_type: LinkType,
    interface: usize,
    original_length: u32,
    /// Where in the input's buffer its bytes are.
    data: std::ops::Range<usize>,
    /// Where in it its comment is.
    comment: std::ops::Range<usize>,
}

impl CaptureFile {
    /// Reads the beginning of a file. `progress` is told how far the reading is, also from other threads.
    pub fn open(source: impl Read + Send + 'static, limits: Limits, progress: &Progress) -> Result<Self, OpenError> {
        let (reader, compression) = compression::decompressed(source, limits, progress)?;
        let mut input = Input::new(reader);
        let magic: [u8; 4] = input.read_array().map_err(|error| match error {
            ReadError::End if compression == Compression::None => OpenError::Empty,
            ReadError::End => OpenError::EmptyInside(compression.name()),
            other => OpenError::from_read(other),
        })?;
        let mut notes = Notes::default();
        let reader = match pcap::Variant::of(magic) {
            Some(variant) => Reader::Pcap(pcap::Reader::open(&mut input, variant)?),
            None if magic == pcapng::MAGIC => Reader::Pcapng(Box::new(pcapng::Reader::open(&mut input, &mut notes)?)),
            None if Compression::of(&magic) != Compression::None => return Err(OpenError::CompressedTwice),
            None => return Err(OpenError::NotACapture(magic)),
        };
        Ok(Self { input, reader, compression, packets: 0, last_time: (0, 0), notes })
    }

    /// The next packet; none at the end of the file.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, Stop> {
        let start = self.input.offset();
        let header = match &mut self.reader {
            Reader::Pcap(reader) => reader.next(&mut self.input),
            Reader::Pcapng(reader) => reader.next(&mut self.input, &mut self.notes),
        };
        let Some(header) = header.map_err(|fault| fault.into_stop(self.packets, start))? else { return Ok(None) };
        self.packets += 1;
        if header.time_us > 0 {
            self.last_time = (header.time_us, header.nanoseconds);
        } else {
            self.notes.untimed += 1;
        }
        if !header.comment.is_empty() {
            self.notes.comment(Some(self.packets), self.input.bytes(header.comment.clone()));
        }
        Ok(Some(Packet {
            number: self.packets,
            time_us: self.last_time.0,
            nanoseconds: self.last_time.1,
            link_type: header.link_type,
            interface: header.interface,
            interface_name: match &self.reader {
                Reader::Pcap(_) => "",
                Reader::Pcapng(reader) => reader.interface_names().get(header.interface).map_or("", String::as_str),
            },
            data: self.input.bytes(header.data),
            original_length: header.original_length,
            comment: self.input.bytes(header.comment),
        }))
    }

    /// Whether there is something for [`CaptureFile::take_asides`].
    #[must_use]
    pub const fn has_asides(&self) -> bool {
        match &self.reader {
            Reader::Pcap(_) => false,
            Reader::Pcapng(reader) => reader.has_asides(),
        }
    }

    /// What stood before the last packet, since the last call, and matters to who copies packets.
    pub fn take_asides(&mut self) -> Vec<Aside> {
        match &mut self.reader {
            Reader::Pcap(_) => Vec::new(),
            Reader::Pcapng(reader) => reader.take_asides(),
        }
    }

    /// What the file said so far besides its packets.
    #[must_use]
    pub const fn notes(&self) -> &Notes {
        &self.notes
    }

    /// pcap or pcapng.
    #[must_use]
    pub const fn format(&self) -> Format {
        match self.reader {
            Reader::Pcap(_) => Format::Pcap,
            Reader::Pcapng(_) => Format::Pcapng,
        }
    }

    /// What the file was packed in.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        self.compression
    }

    /// The names of the interfaces that were seen so far; empty = not given.
    #[must_use]
    pub fn interfaces(&self) -> &[String] {
        match &self.reader {
            Reader::Pcap(_) => &[],
            Reader::Pcapng(reader) => reader.interface_names(),
        }
    }
}

#[cfg(test)]
mod tests;

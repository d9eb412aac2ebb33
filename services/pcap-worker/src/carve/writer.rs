//! pcapng (draft-ietf-opsawg-pcapng): one section, an interface for each of the capture's that is used, a packet with its comment.

use std::collections::HashMap;
use std::io::{self, Write};

use weir_flow::packet::LinkType;

use crate::capture_file::Aside;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const NAMES: u32 = 4;
const ENHANCED_PACKET: u32 = 6;
const SECRETS: u32 = 10;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_RESOLUTION: u16 = 9;
/// Ticks of 10^-9 s.
const NANOSECONDS: u8 = 9;
/// Text in an option is cut here; the length has 16 bits.
const MAX_TEXT: usize = 4096;

/// A packet to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Microseconds since 1970.
    pub(super) time_us: u64,
    /// What the time has beyond that.
    pub(super) nanoseconds: u16,
    pub(super) link_type: LinkType,
    /// Number of its interface in the capture.
    pub(super) interface: usize,
    pub(super) interface_name: String,
    pub(super) data: Vec<u8>,
    pub(super) original_length: u32,
    /// Of the flow; empty = none.
    pub(super) comment: String,
    /// That the capture has itself; empty = none.
    pub(super) remark: String,
}

/// Writes pcapng.
pub(super) struct Writer<W> {
    output: W,
    block: Vec<u8>,
    interfaces: HashMap<(usize, LinkType), u32>,
}

impl<W: Write> Writer<W> {
    /// Begins a section, with a comment of its own where that is not empty.
    pub(super) fn new(output: W, comment: &str) -> io::Result<Self> {
        let mut writer = Self { output, block: Vec::new(), interfaces: HashMap::new() };
        writer.field(BYTE_ORDER.to_le_bytes());
        writer.field(1u16.to_le_bytes());
        writer.field(0u16.to_le_bytes());
        // How long the section is, nobody knows before its end.
        writer.field(u64::MAX.to_le_bytes());
        if !comment.is_empty() {
            writer.option(OPT_COMMENT, comment);
        }
        writer.option(SHB_USERAPPL, concat!("weir ", env!("CARGO_PKG_VERSION")));
        writer.end_of_options();
        writer.block(SECTION)?;
        Ok(writer)
    }

    /// Writes a packet, and before the first of an interface the interface.
    pub(super) fn packet(&mut self, packet: &Found) -> io::Result<()> {
        let interface = self.interface(packet)?;
        let captured = packet.data.len() as u32;
        self.field(interface.to_le_bytes());
        let ticks = packet.time_us.saturating_mul(1000).saturating_add(u64::from(packet.nanoseconds));
        self.field(((ticks >> 32) as u32).to_le_bytes());
        self.field((ticks as u32).to_le_bytes());
        self.field(captured.to_le_bytes());
        self.field(packet.original_length.max(captured).to_le_bytes());
        self.block.extend_from_slice(&packet.data);
        self.pad();
        for comment in [&packet.comment, &packet.remark].into_iter().filter(|comment| !comment.is_empty()) {
            self.option(OPT_COMMENT, comment);
        }
        if !packet.comment.is_empty() || !packet.remark.is_empty() {
            self.end_of_options();
        }
        self.block(ENHANCED_PACKET)
    }

    /// Writes what the capture has besides packets.
    pub(super) fn aside(&mut self, aside: &Aside) -> io::Result<()> {
        match aside {
            Aside::Secrets(kind, data) => {
                self.field(kind.to_le_bytes());
                self.field((data.len() as u32).to_le_bytes());
                self.block.extend_from_slice(data);
                self.pad();
                self.block(SECRETS)
            }
            Aside::Name(address, name) => {
                let address = std::net::Ipv6Addr::from(*address).to_canonical();
                let (kind, address) = match address {
                    std::net::IpAddr::V4(ip) => (1u16, ip.octets().to_vec()),
                    std::net::IpAddr::V6(ip) => (2u16, ip.octets().to_vec()),
                };
                self.field(kind.to_le_bytes());
                self.field(((address.len() + name.len() + 1) as u16).to_le_bytes());
                self.block.extend_from_slice(&address);
                self.block.extend_from_slice(name.as_bytes());
                self.block.push(0);
                self.pad();
                self.end_of_options();
                self.block(NAMES)
            }
        }
    }

    /// Passes on what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.output.flush()
    }

    fn interface(&mut self, packet: &Found) -> io::Result<u32> {
        let known = self.interfaces.len() as u32;
        let name = (packet.interface, packet.link_type);
        if let Some(&number) = self.interfaces.get(&name) {
            return Ok(number);
        }
        self.interfaces.insert(name, known);
        self.field(packet.link_type.0.to_le_bytes());
        self.field(0u16.to_le_bytes());
        // No limit of the length.
        self.field(0u32.to_le_bytes());
        if !packet.interface_name.is_empty() {
            self.option(IF_NAME, &packet.interface_name);
        }
        self.field(IF_RESOLUTION.to_le_bytes());
        self.field(1u16.to_le_bytes());
        self.block.push(NANOSECONDS);
        self.pad();
        self.end_of_options();
        self.block(INTERFACE)?;
        Ok(known)
    }

    fn field<const N: usize>(&mut self, bytes: [u8; N]) {
        self.block.extend_from_slice(&bytes);
    }

    fn option(&mut self, code: u16, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_TEXT)];
        self.field(code.to_le_bytes());
        self.field((text.len() as u16).to_le_bytes());
        self.block.extend_from_slice(text.as_bytes());
        self.pad();
    }

    fn end_of_options(&mut self) {
        self.field(OPT_END.to_le_bytes());
        self.field(0u16.to_le_bytes());
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    /// Writes the fields that were collected as a block.
    fn block(&mut self, kind: u32) -> io::Result<()> {
        let length = (self.block.len() as u32 + 12).to_le_bytes();
        self.output.write_all(&kind.to_le_bytes())?;
        self.output.write_all(&length)?;
        self.output.write_all(&self.block)?;
        self.output.write_all(&length)?;
        self.block.clear();
        Ok(())
    }
}

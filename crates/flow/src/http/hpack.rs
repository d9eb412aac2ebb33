//! Header compression (RFC 7541), as far as an exchange needs it.
//!
//! The dynamic table keeps the value of a field only where an exchange says it: of all others (cookies and credentials among them)
//! nothing but the size is kept.

use std::collections::VecDeque;

use super::head::text;
use super::{MAX_PATH, huffman};

/// Largest dynamic table that an encoder may ask for; the default of HTTP/2 is 4096.
const MAX_TABLE: usize = 64 << 10;
/// Fields of one block.
const MAX_FIELDS: usize = 1024;
/// RFC 7541 section 4.1: what an entry counts besides its octets.
const OVERHEAD: usize = 32;

/// The fields that an exchange says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Method,
    Authority,
    Path,
    Status,
    UserAgent,
    Host,
    /// That there are some; what they are is never kept.
    Credentials,
    Other,
}

/// The fields of the static table that are of use: index, name, value (RFC 7541 appendix A).
const STATIC: [(usize, Name, &str); 15] = [
    (1, Name::Authority, ""),
    (2, Name::Method, "GET"),
    (3, Name::Method, "POST"),
    (4, Name::Path, "/"),
    (5, Name::Path, "/index.html"),
    (8, Name::Status, "200"),
    (9, Name::Status, "204"),
    (10, Name::Status, "206"),
    (11, Name::Status, "304"),
    (12, Name::Status, "400"),
    (13, Name::Status, "404"),
    (14, Name::Status, "500"),
    (23, Name::Credentials, ""),
    (38, Name::Host, ""),
    (58, Name::UserAgent, ""),
];
const STATIC_ENTRIES: usize = 61;
/// Octets of the names of the static table from index 1 on.
const STATIC_NAME_LENGTHS: [u8; STATIC_ENTRIES] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

/// A field of a block: what it is, and its value where an exchange says it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: Name,
    name_length: usize,
    value: String,
    value_length: usize,
}

impl Field {
    const fn size(&self) -> usize {
        self.name_length + self.value_length + OVERHEAD
    }
}

/// The context of one direction.
#[derive(Debug)]
pub(super) struct Decoder {
    table: VecDeque<Field>,
    size: usize,
    capacity: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size: 0, capacity: 4096 }
    }
}

/// The context cannot be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Decoder {
    /// Reads a whole block and hands on the fields that an exchange says.
    pub(super) fn decode(&mut self, mut block: &[u8], sink: &mut impl FnMut(Name, &str)) -> Result<(), Broken> {
        let mut fields = 0;
        while let Some(&first) = block.first() {
            fields += 1;
            if fields > MAX_FIELDS {
                return Err(Broken);
            }
            match first {
                0x80.. => {
                    let field = self.field(integer(&mut block, 7)?)?;
                    if field.name != Name::Other {
                        sink(field.name, &field.value);
                    }
                }
                0x40.. => {
                    let field = self.literal(&mut block, 6)?;
                    if field.name != Name::Other {
                        sink(field.name, &field.value);
                    }
                    self.insert(field);
                }
                0x20.. => {
                    let capacity = integer(&mut block, 5)?;
                    if capacity > MAX_TABLE {
                        return Err(Broken);
                    }
                    self.capacity = capacity;
                    self.evict(capacity);
                }
                _ => {
                    let field = self.literal(&mut block, 4)?;
                    if field.name != Name::Other {
                        sink(field.name, &field.value);
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes on the heap.
    pub(super) fn held_bytes(&self) -> usize {
        self.table.len() * size_of::<Field>() + self.size
    }

    /// RFC 7541 section 2.3.3.
    fn field(&self, index: usize) -> Result<Field, Broken> {
        if index == 0 {
            return Err(Broken);
        }
        if index > STATIC_ENTRIES {
            return self.table.get(index - STATIC_ENTRIES - 1).cloned().ok_or(Broken);
        }
        let (_, name, value) =
            STATIC.iter().find(|entry| entry.0 == index).copied().unwrap_or((index, Name::Other, ""));
        let name_length = usize::from(STATIC_NAME_LENGTHS[index - 1]);
        Ok(Field { name, name_length, value: value.to_owned(), value_length: value.len() })
    }

    /// RFC 7541 section 6.2: an index in so many bits, or a name; then a value.
    fn literal(&self, block: &mut &[u8], bits: u32) -> Result<Field, Broken> {
        let index = integer(block, bits)?;
        let (name, name_length) = if index == 0 {
            let mut name = Vec::new();
            // Longer than any name that matters is enough to tell them apart.
            let length = string(block, 16, &mut name)?;
            (known(&name), length)
        } else {
            // An entry of the static table is all that its name is; its value is never inserted as it stands.
            let field = self.field(index)?;
            (field.name, field.name_length)
        };
        let most = match name {
            Name::Credentials | Name::Other => 0,
            // Replacement characters are longer than what they replace.
            _ => MAX_PATH,
        };
        let mut value = Vec::new();
        let value_length = string(block, most, &mut value)?;
        Ok(Field { name, name_length, value: text(&value, most), value_length })
    }

    /// RFC 7541 section 4.4.
    fn insert(&mut self, field: Field) {
        let size = field.size();
        self.evict(self.capacity.saturating_sub(size));
        if size <= self.capacity {
            self.size += size;
            self.table.push_front(field);
        }
    }

    fn evict(&mut self, most: usize) {
        while self.size > most
            && let Some(field) = self.table.pop_back()
        {
            self.size -= field.size();
        }
    }
}

fn known(name: &[u8]) -> Name {
    match name {
        b":method" => Name::Method,
        b":authority" => Name::Authority,
        b":path" => Name::Path,
        b":status" => Name::Status,
        b"user-agent" => Name::UserAgent,
        b"host" => Name::Host,
        b"authorization" => Name::Credentials,
        _ => Name::Other,
    }
}

/// RFC 7541 section 5.1, with a prefix of so many bits.
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Broken> {
    let most = (1usize << bits) - 1;
    let mut value = usize::from(take(block)?) & most;
    if value < most {
        return Ok(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = take(block)?;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Broken)
}

/// RFC 7541 section 5.2: adds up to `most` octets of a string to `out`; how many it has.
fn string(block: &mut &[u8], most: usize, out: &mut Vec<u8>) -> Result<usize, Broken> {
    let coded = block.first().ok_or(Broken)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or(Broken)?;
    *block = rest;
    if !coded {
        out.extend(bytes.iter().take(most));
        return Ok(length);
    }
    let mut octets = 0;
    huffman::decode(bytes, |octet| {
        octets += 1;
        if octets <= most {
            out.push(octet);
        }
    })
    .ok_or(Broken)?;
    Ok(octets)
}

fn take(block: &mut &[u8]) -> Result<u8, Broken> {
    let (&first, rest) = block.split_first().ok_or(Broken)?;
    *block = rest;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(Name, String)>, Broken> {
        let mut fields = Vec::new();
        decoder.decode(block, &mut |name, value| fields.push((name, value.to_owned())))?;
        Ok(fields)
    }

    fn request(path: &str) -> Vec<(Name, String)> {
        let authority = (Name::Authority, "www.example.com".to_owned());
        vec![(Name::Method, "GET".to_owned()), (Name::Path, path.to_owned()), authority]
    }

    #[test]
    fn the_requests_of_appendix_c_3_and_c_4_are_read() {
        let plain: [&[u8]; 3] = [
            b"\x82\x86\x84\x41\x0fwww.example.com",
            b"\x82\x86\x84\xbe\x58\x08no-cache",
            b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
        ];
        let coded: [&[u8]; 3] = [
            b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
            b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
            b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
        ];
        for blocks in [plain, coded] {
            let mut decoder = Decoder::default();
            let paths = ["/", "/", "/index.html"];
            for ((block, path), size) in blocks.into_iter().zip(paths).zip([57, 110, 164]) {
                assert_eq!(fields(&mut decoder, block).unwrap(), request(path));
                assert_eq!(decoder.size, size);
            }
        }
    }

    #[test]
    fn the_responses_of_appendix_c_6_push_entries_out_of_a_small_table() {
        let mut decoder = Decoder { capacity: 256, ..Decoder::default() };
        let first = b"\x48\x82\x64\x02\x58\x85\xae\xc3\x77\x1a\x4b\x61\x96\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff\x6e\x91\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3";
        assert_eq!(fields(&mut decoder, first), Ok(vec![(Name::Status, "302".to_owned())]));
        assert_eq!(decoder.size, 222);
        let second = b"\x48\x83\x64\x0e\xff\xc1\xc0\xbf";
        assert_eq!(fields(&mut decoder, second), Ok(vec![(Name::Status, "307".to_owned())]));
        assert_eq!(decoder.size, 222);
    }

    #[test]
    fn values_that_no_exchange_says_are_not_kept() {
        let mut decoder = Decoder::default();
        fields(&mut decoder, b"\x60\x06secret").unwrap();
        assert_eq!((decoder.size, decoder.table[0].value.as_str()), (6 + 6 + OVERHEAD, ""));
    }

    #[test]
    fn a_block_cut_anywhere_gives_no_wrong_field() {
        let block = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        for length in 0..block.len() {
            let result = fields(&mut Decoder::default(), &block[..length]);
            assert!(result.is_err() || request("/").starts_with(&result.unwrap()), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_blocks_are_read_within_the_bounds(blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let _ = fields(&mut decoder, &block);
                prop_assert!(decoder.size <= decoder.capacity.max(4096) && decoder.capacity <= MAX_TABLE);
                prop_assert_eq!(decoder.size, decoder.table.iter().map(Field::size).sum::<usize>());
            }
        }
    }
}

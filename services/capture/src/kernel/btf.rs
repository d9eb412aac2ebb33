//! Where fields lie in the running kernel's structures, and what its enumerations are called: as much of BTF as that needs.
//!
//! The format is that of Documentation/bpf/btf.rst.

use std::{collections::BTreeMap, fs, io};

/// The kernel's own types.
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNCTION: u32 = 12;
/// Structures without a name inside structures, at most so deep.
const DEPTH: usize = 8;

/// The types of a kernel.
pub(super) struct Btf {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type begins, by its number; number 0 is void.
    types: Vec<usize>,
}

impl Btf {
    /// Of the kernel that runs.
    pub(super) fn of_kernel() -> io::Result<Self> {
        let bytes = fs::read(VMLINUX).map_err(|error| {
            let message = format!("{VMLINUX}: {error}; kernels with CONFIG_DEBUG_INFO_BTF have it");
            io::Error::new(error.kind(), message)
        })?;
        let unknown = || io::Error::new(io::ErrorKind::InvalidData, format!("{VMLINUX} is no BTF that is known"));
        Self::parse(bytes).ok_or_else(unknown)
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let header = word(&bytes, 4)? as usize;
        if bytes.get(..2)? != MAGIC.to_le_bytes() {
            return None;
        }
        let (at, length) = (word(&bytes, 8)? as usize, word(&bytes, 12)? as usize);
        let strings = header.checked_add(word(&bytes, 16)? as usize)?;
        let (mut at, end) = (header.checked_add(at)?, header.checked_add(at)?.checked_add(length)?);
        let mut types = vec![0];
        while at < end {
            types.push(at);
            at += 12 + rest(word(&bytes, at + 4)?)?;
        }
        Some(Self { bytes, strings, types })
    }

    /// Offset of a field in bytes.
    pub(super) fn offset(&self, structure: &str, field: &str) -> Option<u32> {
        let number = self.find(STRUCT, structure)?;
        let bits = self.bits(number, field, DEPTH)?;
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// The names of an enumeration's values.
    pub(super) fn names(&self, enumeration: &str) -> BTreeMap<u32, String> {
        let Some(at) = self.find(ENUM, enumeration).and_then(|number| self.types.get(number).copied()) else {
            return BTreeMap::new();
        };
        let count = word(&self.bytes, at + 4).unwrap_or(0) & 0xffff;
        let value = |index: u32| {
            let entry = at + 12 + index as usize * 8;
            Some((word(&self.bytes, entry + 4)?, self.name(word(&self.bytes, entry)?)?.to_owned()))
        };
        (0..count).filter_map(value).collect()
    }

    /// BTF in which a function has its number, and everything else is left out: as much as is needed to name it to the kernel.
    pub(super) fn only_function(&self, name: &str) -> Option<Vec<u8>> {
        let number = self.find(FUNCTION, name)?;
        let (kind, length) = (FUNCTION << 24, number as u32 * 12);
        let strings = [b"\0", name.as_bytes(), b"\0"].concat();
        let header = [24, 0, length, length, strings.len() as u32].into_iter().flat_map(u32::to_le_bytes);
        let types = (1..=number).flat_map(|at| [u32::from(at == number), kind, 0]).flat_map(u32::to_le_bytes);
        Some(MAGIC.to_le_bytes().into_iter().chain([1, 0]).chain(header).chain(types).chain(strings).collect())
    }

    /// Whether there is such a function.
    pub(super) fn has_function(&self, name: &str) -> bool {
        self.find(FUNCTION, name).is_some()
    }

    fn find(&self, kind: u32, name: &str) -> Option<usize> {
        (1..self.types.len()).find(|&number| {
            let at = self.types[number];
            word(&self.bytes, at + 4).is_some_and(|info| info >> 24 & 0x1f == kind)
                && word(&self.bytes, at).and_then(|offset| self.name(offset)) == Some(name)
        })
    }

    fn bits(&self, number: usize, field: &str, depth: usize) -> Option<u32> {
        let at = *self.types.get(number)?;
        let info = word(&self.bytes, at + 4)?;
        if depth == 0 || !matches!(info >> 24 & 0x1f, STRUCT | UNION) {
            return None;
        }
        (0..info & 0xffff).find_map(|index| {
            let member = at + 12 + index as usize * 12;
            let name = self.name(word(&self.bytes, member)?)?;
            let offset = word(&self.bytes, member + 8)?;
            // The upper eight bits are the width of a bit field, where the structure has any.
            let offset = if info >> 31 == 1 { offset & 0x00ff_ffff } else { offset };
            match name {
                "" => Some(offset + self.bits(word(&self.bytes, member + 4)? as usize, field, depth - 1)?),
                name => (name == field).then_some(offset),
            }
        })
    }

    fn name(&self, offset: u32) -> Option<&str> {
        let bytes = self.bytes.get(self.strings.checked_add(offset as usize)?..)?;
        let end = bytes.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

/// Bytes of a type behind its first twelve.
fn rest(info: u32) -> Option<usize> {
    let count = (info & 0xffff) as usize;
    Some(match info >> 24 & 0x1f {
        1 | 14 | 17 => 4,
        3 => 12,
        STRUCT | UNION | 15 | 19 => count * 12,
        ENUM | 13 => count * 8,
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct s { int x; struct { u16 y; }; }`, `enum e { A = 1, B = 5 }`.
    fn example() -> Vec<u8> {
        let strings = b"\0s\0x\0y\0e\0A\0B\0int\0";
        let mut types: Vec<u32> = vec![13, 1 << 24, 4, 32];
        types.extend([0, STRUCT << 24 | 1, 2, 5, 1, 0]);
        types.extend([1, STRUCT << 24 | 2, 8, 3, 1, 0, 0, 2, 32]);
        types.extend([7, ENUM << 24 | 2, 4, 9, 1, 11, 5]);
        let types: Vec<u8> = types.into_iter().flat_map(u32::to_le_bytes).collect();
        let mut bytes = MAGIC.to_le_bytes().to_vec();
        bytes.extend([1, 0]);
        let header = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        bytes.extend(header.into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn fields_are_found_also_in_structures_without_a_name() {
        let btf = Btf::parse(example()).unwrap();
        assert_eq!((btf.offset("s", "x"), btf.offset("s", "y"), btf.offset("s", "z")), (Some(0), Some(4), None));
        assert_eq!(btf.offset("e", "x"), None);
        assert_eq!(btf.names("e"), BTreeMap::from([(1, "A".to_owned()), (5, "B".to_owned())]));
    }

    #[test]
    fn a_function_keeps_its_number_without_the_rest() {
        let mut strings = b"\0f\0".to_vec();
        let types: Vec<u8> = [0, STRUCT << 24, 0, 0, FUNCTION << 24, 0, 1, FUNCTION << 24, 0]
            .into_iter()
            .flat_map(u32::to_le_bytes)
            .collect();
        let header = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        let mut bytes = [&MAGIC.to_le_bytes()[..], &[1, 0]].concat();
        bytes.extend(header.into_iter().flat_map(u32::to_le_bytes));
        bytes.extend(types);
        bytes.append(&mut strings);
        let btf = Btf::parse(bytes).unwrap();
        let only = btf.only_function("f").unwrap();
        assert_eq!(Btf::parse(only.clone()).unwrap().find(FUNCTION, "f"), Some(3));
        assert!(aya::Btf::parse(&only, aya::Endianness::default()).is_ok());
        assert_eq!(btf.only_function("g"), None);
    }

    #[test]
    fn what_is_cut_off_is_none() {
        let bytes = example();
        for length in 0..bytes.len() {
            if let Some(btf) = Btf::parse(bytes[..length].to_vec()) {
                assert!(btf.offset("s", "y").is_none_or(|offset| offset == 4));
                let _names = btf.names("e");
            }
        }
    }
}

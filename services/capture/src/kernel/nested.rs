//! Maps in maps: what the programs' table is made of while they run, and so can be replaced. As much of bpf(2) as that needs and the library lacks.

use std::{
    io,
    mem::size_of,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya::maps::{Map, MapData, MapError};

use super::Error;

/// Commands of bpf(2) (linux/bpf.h).
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_UPDATE_BATCH: libc::c_int = 26;

/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;

/// Kinds of maps that are put into others (linux/bpf.h).
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// `BPF_MAP_TYPE_HASH`.
    Hash = 1,
    /// `BPF_MAP_TYPE_ARRAY`, mapped into memory.
    Array = 2,
    /// `BPF_MAP_TYPE_STACK`.
    Stack = 23,
}

/// `union bpf_attr`, as far as it is used here: commands give its first bytes a meaning each.
pub(super) type Attributes = [u64; 16];

/// An array of maps. Programs look into it for the map that they use; after each change the kernel waits until none uses what was there before.
pub(super) struct Nested {
    outer: MapData,
    name: &'static str,
}

impl Nested {
    pub(super) fn new(outer: MapData, name: &'static str) -> Self {
        Self { outer, name }
    }

    /// Puts maps into the places from `first` on.
    pub(super) fn put(&self, first: u32, inner: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let keys: Vec<u32> = (first..).take(inner.len()).collect();
        let values: Vec<u32> = inner.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
        // At once where the kernel can: it waits after each call.
        if inner.len() > 1 && self.update_all(&keys, &values).is_ok() {
            return Ok(());
        }
        keys.iter()
            .zip(&values)
            .try_for_each(|(key, value)| self.update(*key, *value))
            .map_err(|error| self.failed(error))
    }

    /// Takes out what is at a place.
    pub(super) fn clear(&self, at: u32) -> Result<(), Error> {
        let mut attributes = Attributes::default();
        (attributes[0], attributes[1]) = (self.fd(), address(&at));
        // SAFETY: the address is that of the key, which lives until the call has returned.
        let cleared = unsafe { bpf(MAP_DELETE_ELEM, &attributes) };
        cleared.map(drop).map_err(|error| self.failed(error))
    }

    fn update(&self, key: u32, value: u32) -> io::Result<()> {
        let mut attributes = Attributes::default();
        attributes[..3].copy_from_slice(&[self.fd(), address(&key), address(&value)]);
        // SAFETY: the addresses are those of key and value, which live until the call has returned.
        unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.map(drop)
    }

    fn update_all(&self, keys: &[u32], values: &[u32]) -> io::Result<()> {
        let mut attributes = Attributes::default();
        (attributes[2], attributes[3]) = (keys.as_ptr() as u64, values.as_ptr() as u64);
        attributes[4] = keys.len() as u64 | self.fd() << 32;
        // SAFETY: the addresses are those of as many keys and values, which live until the call has returned.
        unsafe { bpf(MAP_UPDATE_BATCH, &attributes) }.map(drop)
    }

    fn fd(&self) -> u64 {
        u64::from(self.outer.fd().as_fd().as_raw_fd().cast_unsigned())
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::Resize { map: self.name, source: error }
    }
}

/// A new map for [`Nested`].
pub(super) fn create<K, V>(kind: Kind, entries: u32, name: &'static str) -> Result<OwnedFd, Error> {
    let flags = if matches!(kind, Kind::Array) { MMAPABLE } else { 0 };
    let mut attributes = Attributes::default();
    attributes[0] = kind as u64 | (size_of::<K>() as u64) << 32;
    attributes[1] = size_of::<V>() as u64 | u64::from(entries) << 32;
    attributes[2] = u64::from(flags);
    // The name is at byte 28, up to 15 of its letters.
    let mut letters = [0; 15];
    letters.iter_mut().zip(name.bytes()).for_each(|(letter, byte)| *letter = byte);
    for (at, letter) in letters.into_iter().enumerate() {
        attributes[(28 + at) / 8] |= u64::from(letter) << ((28 + at) % 8 * 8);
    }
    // SAFETY: no addresses.
    let fd = unsafe { bpf(MAP_CREATE, &attributes) };
    // SAFETY: a descriptor that nobody else has.
    fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).map_err(|source| Error::Resize { map: name, source })
}

/// The library's view of a map.
pub(super) fn typed<T>(
    fd: &OwnedFd,
    name: &'static str,
    convert: impl FnOnce(Map) -> Result<T, MapError>,
) -> Result<T, Error> {
    let fd = fd.try_clone().map_err(|source| Error::Resize { map: name, source })?;
    let map = MapData::from_fd(fd).and_then(Map::from_map_data).and_then(convert);
    map.map_err(|source| Error::Map { map: name, source })
}

fn address(word: &u32) -> u64 {
    std::ptr::from_ref(word) as u64
}

/// # Safety
///
/// The addresses in `attributes` are valid for what the command does with them.
pub(super) unsafe fn bpf(command: libc::c_int, attributes: &Attributes) -> io::Result<libc::c_int> {
    // SAFETY: the kernel reads as many bytes as it is told of.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

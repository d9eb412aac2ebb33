//! Programs at interfaces of other network namespaces.
//!
//! At each direction of each such interface stands a small program of its own, made here: it writes down which interface that is, and what
//! keeps its flows apart, and calls the classifier that all of them share. So the verifier has to read that only once, however many containers
//! come and go.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, Map, MapData, MapError, ProgramArray},
};
use weir_capture_common::{
    contained::{Here, Spot, places},
    dissect::Link,
    names,
};

use super::{Attributes, Error, bpf, classifier, map, place};
use crate::config::{Hook, Order};

/// Commands of bpf(2) and kinds of attachment (linux/bpf.h).
const PROG_LOAD: libc::c_int = 5;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const PROG_TYPE_SCHED_CLS: u64 = 3;
const TCX_INGRESS: u64 = 46;
const TCX_EGRESS: u64 = 47;
/// Without another program that it is before or after: the first, the last.
const BEFORE: u64 = 1 << 3;
const AFTER: u64 = 1 << 4;
/// The programs, in the order of [`places`].
const PROGRAMS: [&str; places::COUNT as usize] = [
    names::CONTAINED_ETHERNET_INGRESS,
    names::CONTAINED_ETHERNET_EGRESS,
    names::CONTAINED_IP_INGRESS,
    names::CONTAINED_IP_EGRESS,
];

/// As it lies in the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct SpotValue(Spot);

// SAFETY: integers only, without padding.
unsafe impl Pod for SpotValue {}

/// What it takes to attach in other network namespaces.
pub struct Contained {
    here: MapData,
    programs: OwnedFd,
    masks: HashMap<MapData, SpotValue, u64>,
    last: bool,
}

/// Programs on both directions of one interface; detached when dropped.
#[derive(Debug)]
pub struct Inside {
    links: [OwnedFd; 2],
}

impl Contained {
    /// Takes the maps, and loads the classifiers that all interfaces share.
    pub(super) fn load(object: &mut Ebpf) -> Result<Self, Error> {
        let Some(Map::PerCpuArray(here)) = object.take_map(names::HERE) else {
            return Err(Error::Missing(names::HERE));
        };
        let Some(Map::ProgramArray(data)) = object.take_map(names::CONTAINED_PROGRAMS) else {
            return Err(Error::Missing(names::CONTAINED_PROGRAMS));
        };
        let masks = map(object, names::MASKS, HashMap::try_from)?;
        let refused = |source| Error::Map { map: names::CONTAINED_PROGRAMS, source };
        let programs = data.fd().as_fd().try_clone_to_owned();
        let programs = programs.map_err(|error| refused(MapError::IoError(error)))?;
        let mut array = ProgramArray::try_from(Map::ProgramArray(data)).map_err(refused)?;
        for (place, program) in (0..).zip(PROGRAMS) {
            let failed = |source| Error::Program { program, source };
            let classifier = classifier(object, program)?;
            classifier.load().map_err(failed)?;
            let fd = classifier.fd().map_err(failed)?;
            array.set(place, fd, 0).map_err(refused)?;
        }
        Ok(Self { here, programs, masks, last: false })
    }

    /// Where among the programs of others to stand. Why it cannot be done: filters of clsact outlive a process, and in a namespace that is left
    /// nobody would find them again.
    pub(super) fn stand(&mut self, hook: Hook, order: Order) -> Result<(), String> {
        self.last = matches!(order, Order::Last);
        if hook == Hook::Clsact || !place::has_tcx() {
            return Err("it needs TCX (Linux 6.6)".to_owned());
        }
        Ok(())
    }

    /// Attaches to both directions of an interface of the network namespace that the calling thread is in.
    pub(crate) fn attach(&mut self, ifindex: u32, link: Link, here: Here) -> io::Result<Inside> {
        let [ingress, egress] = match link {
            Link::Ethernet => [places::ETHERNET_INGRESS, places::ETHERNET_EGRESS],
            Link::Ip => [places::IP_INGRESS, places::IP_EGRESS],
        };
        let ingress = self.attach_one(ifindex, here, ingress, TCX_INGRESS)?;
        let egress = self.attach_one(ifindex, here, egress, TCX_EGRESS)?;
        Ok(Inside { links: [ingress, egress] })
    }

    /// Tells the programs at sockets what keeps the flows of an interface apart, or that there is nothing any more.
    pub(crate) fn tell(&mut self, spot: Spot, mask: Option<u64>) -> io::Result<()> {
        match mask {
            Some(mask) => self.masks.insert(SpotValue(spot), mask, 0).map_err(io::Error::other),
            None => self.masks.remove(&SpotValue(spot)).map_err(io::Error::other),
        }
    }

    fn attach_one(&self, ifindex: u32, here: Here, place: u32, direction: u64) -> io::Result<OwnedFd> {
        let map = self.here.fd().as_fd().as_raw_fd();
        let program = load(&calling(here, map, self.programs.as_raw_fd(), place))?;
        let mut attributes = Attributes::default();
        attributes[0] = fd(&program) | u64::from(ifindex) << 32;
        attributes[1] = direction | (if self.last { AFTER } else { BEFORE }) << 32;
        // SAFETY: no addresses.
        let link = unsafe { bpf(LINK_CREATE, &attributes) }?;
        // SAFETY: a descriptor that nobody else has.
        Ok(unsafe { OwnedFd::from_raw_fd(link) })
    }
}

impl Inside {
    /// Whether the interface is still there. One that is gone takes the programs with it, and another may have its index by now.
    pub(crate) fn is_alive(&self) -> bool {
        self.links.iter().all(|link| tcx_ifindex(link).is_ok_and(|index| index != 0))
    }
}

/// `struct bpf_link_info`: the index of the interface, 0 = it is gone.
fn tcx_ifindex(link: &OwnedFd) -> io::Result<u32> {
    let mut info = [0u64; 16];
    let mut attributes = Attributes::default();
    attributes[0] = fd(link) | (size_of_val(&info) as u64) << 32;
    attributes[1] = (&raw mut info) as u64;
    // SAFETY: the address is that of as many bytes as it says, which live until the call has returned.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &attributes) }?;
    // Kind and number, number of the program, and then what is of this kind.
    Ok(info[2] as u32)
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    const LICENSE: &[u8] = b"Dual MIT/GPL\0";
    let mut attributes = Attributes::default();
    attributes[0] = PROG_TYPE_SCHED_CLS | (program.len() as u64) << 32;
    (attributes[1], attributes[2]) = (program.as_ptr() as u64, LICENSE.as_ptr() as u64);
    // The name is at byte 48.
    (attributes[6], attributes[7]) = (u64::from_le_bytes(*b"weir_ins"), u64::from_le_bytes(*b"ide\0\0\0\0\0"));
    // SAFETY: the addresses are those of the instructions and of a text, which live until the call has returned.
    let program = unsafe { bpf(PROG_LOAD, &attributes) }?;
    // SAFETY: a descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

/// Instructions that write `here` into the map and go on with the program at a place of the array; without it, with whatever stands next at the
/// interface.
fn calling(here: Here, map: i32, programs: i32, place: u32) -> Vec<u64> {
    const MOVE: u8 = 0xbf;
    const MOVE_VALUE: u8 = 0xb7;
    const ADD_VALUE: u8 = 0x07;
    const STORE_VALUE: u8 = 0x62;
    const STORE: u8 = 0x7b;
    const LOAD_WIDE: u8 = 0x18;
    const CALL: u8 = 0x85;
    const JUMP_IF_EQUAL: u8 = 0x15;
    const EXIT: u8 = 0x95;
    /// In the place of the source of [`LOAD_WIDE`]: a map, by its descriptor.
    const MAP: u8 = 1;
    const LOOKUP: i32 = 1;
    const TAIL_CALL: i32 = 12;
    const NEXT: i32 = -1;
    let wide = |to: u8, from: u8, value: u64| {
        [instruction(LOAD_WIDE, to, from, 0, value as i32), instruction(0, 0, 0, 0, (value >> 32) as i32)]
    };
    let mut program = vec![
        instruction(MOVE, 6, 1, 0, 0),
        instruction(STORE_VALUE, 10, 0, -4, 0),
        instruction(MOVE, 2, 10, 0, 0),
        instruction(ADD_VALUE, 2, 0, 0, -4),
    ];
    program.extend(wide(1, MAP, u64::from(map.cast_unsigned())));
    program.extend([
        instruction(CALL, 0, 0, 0, LOOKUP),
        instruction(JUMP_IF_EQUAL, 0, 0, 10, 0),
        instruction(STORE_VALUE, 0, 0, 0, here.number.cast_signed()),
        instruction(STORE_VALUE, 0, 0, 4, 0),
    ]);
    program.extend(wide(1, 0, here.mask));
    program.extend([instruction(STORE, 0, 1, 8, 0), instruction(MOVE, 1, 6, 0, 0)]);
    program.extend(wide(2, MAP, u64::from(programs.cast_unsigned())));
    program.extend([
        instruction(MOVE_VALUE, 3, 0, 0, place.cast_signed()),
        instruction(CALL, 0, 0, 0, TAIL_CALL),
        instruction(MOVE_VALUE, 0, 0, 0, NEXT),
        instruction(EXIT, 0, 0, 0, 0),
    ]);
    program
}

/// `struct bpf_insn`.
fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = value.to_ne_bytes();
    u64::from_ne_bytes([code, to | from << 4, low, high, a, b, c, d])
}

fn fd(of: &OwnedFd) -> u64 {
    u64::from(of.as_raw_fd().cast_unsigned())
}

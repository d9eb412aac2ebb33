//! The kernel's side: loads the programs, attaches them to interfaces, and gives access to what they count.

mod btf;
mod contained;
mod cost;
mod earlier;
mod features;
mod mapped;
mod nested;
mod pins;
mod place;
mod rcu;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, Pod,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, Stack},
    programs::{ProgramError, SchedClassifier, TcAttachType, tc::SchedClassifierLink},
};
use weir_capture_common::{
    dissect::Link,
    ledger::{self, Ledger},
    names,
    socket::{NOT_SPECIFIED, PATH, REASONS},
    spill::Spill,
};

pub use contained::{Contained, Inside};
pub use cost::Cost;
pub(crate) use features::network_namespace;
pub use features::{Feature, Features};
pub use pins::{Life, Share, WORDS};
pub use table::{KernelTable, Next, Sizes};

use pins::{HandedOn, Pins};

use nested::{Attributes, Nested, bpf};
use place::Place;
use table::Places;

use crate::{
    config::{Hook, Order},
    picks::Buffer,
    processes::Processes,
    select::{InterfaceAnswers, Plan},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-capture-ebpf"));

/// `BPF_NOEXIST` (linux/bpf.h)
const BPF_NOEXIST: u64 = 1;

/// Directions in the names of links.
const INGRESS: &str = "ingress";
const EGRESS: &str = "egress";

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Parsing, relocating or creating maps failed.
    #[error("cannot load the kernel program")]
    Load(#[from] EbpfError),
    /// The verifier or the kernel refused a program or its attachment.
    #[error("the kernel refused the program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// A map operation failed.
    #[error("cannot use the map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// The embedded object is not what this version expects.
    #[error("the kernel program has no {0}")]
    Missing(&'static str),
    /// Maps and links cannot have names.
    #[error("cannot use --pin {}", path.display())]
    Pin {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The table cannot have another size.
    #[error("cannot make or replace the map {map}")]
    Resize {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The flow table could not be mapped into this process.
    #[error("cannot map the flow table")]
    Mmap(#[source] std::io::Error),
}

/// The loaded programs. Unless they are pinned the kernel forgets all of it when this is dropped, or the process dies.
pub struct Kernel {
    object: Ebpf,
    ledger: PerCpuArray<MapData, LedgerValue>,
    /// Places of the ledger that were ever written to.
    places: BTreeSet<u32>,
    drops: PerCpuArray<MapData, u64>,
    executables: HashMap<MapData, u32, [u8; PATH]>,
    interfaces: InterfaceAnswers,
    picks: Option<Buffer>,
    spilled: Option<Buffer>,
    pick_counts: PerCpuArray<MapData, [u64; 2]>,
    features: Features,
    place: Place,
    reasons: BTreeMap<u32, String>,
    resets: BTreeMap<u32, String>,
    contained: Option<Contained>,
    handed_on: Option<HandedOn>,
    pins: Option<Pins>,
}

/// How much there is room for, and where.
#[derive(Clone, Debug, Default)]
pub struct Room {
    /// Flows in the table.
    pub max_flows: u32,
    /// Bytes for packets of others; 0 = they count by protocol and port.
    pub overflow_buffer: u32,
    /// Directory of a BPF file system for what outlives the process.
    pub pin: Option<PathBuf>,
    /// Whether interfaces in the network namespaces of containers are captured on, too.
    pub contained: bool,
}

/// A program on both directions of one interface; detached when dropped.
#[derive(Debug)]
pub struct Attachment {
    _ingress: SchedClassifierLink,
    _egress: SchedClassifierLink,
    names: Vec<PathBuf>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = std::fs::remove_file(name)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, name = %name.display(), "cannot detach");
            }
        }
    }
}

/// A ledger as it lies in the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct LedgerValue(Ledger);

// SAFETY: integers only, without padding.
unsafe impl Pod for LedgerValue {}

impl Kernel {
    /// Loads the programs with room for flows that `plan` accepts, and returns them with the flow table.
    pub fn load(room: Room, plan: &Plan) -> Result<(Self, KernelTable), Error> {
        let Room { max_flows, overflow_buffer, pin, contained } = room;
        let sizes = Sizes::of(max_flows);
        let (types, home) = (features::Types::read(), network_namespace());
        let kind = (OBJECT, overflow_buffer, plan.names(), home, contained);
        let pins = pin.map(|base| Pins::open(&base, kind)).transpose()?;
        let mut loader = EbpfLoader::new();
        for (name, path) in pins.iter().flat_map(Pins::maps) {
            loader.map_pin_path(name, path);
        }
        // The kernel's types as the library holds them are some 50 MB, and nothing in the object refers to them.
        loader.btf(None);
        loader.override_global(names::LAYOUT, &types.layout, true).override_global(names::HOME, &home, true);
        let (mptcp, harmless) = (u32::from(types.mptcp), types.harmless());
        loader.override_global(names::MPTCP, &mptcp, true).override_global(names::HARMLESS, &harmless, true);
        plan.configure(&mut loader);
        let recent = pins.as_ref().and_then(Pins::recent).unwrap_or_else(|| max_flows.next_power_of_two());
        let recent_mask = recent - 1;
        loader.override_global(names::RECENT_MASK, &recent_mask, true);
        let spill_on = u32::from(overflow_buffer > 0);
        loader.override_global(names::SPILL_ON, &spill_on, true);
        let (masks_on, ledgers) = if contained { (1u32, ledger::ALL_LEDGERS) } else { (0, ledger::LEDGERS) };
        loader.override_global(names::MASKS_ON, &masks_on, true).map_max_entries(names::LEDGER, ledgers);
        if !contained {
            loader.map_max_entries(names::MASKS, 1);
        }
        if overflow_buffer > 0 {
            loader.map_max_entries(names::SPILLED, overflow_buffer);
        }
        let mut object = loader
            .map_max_entries(names::RESERVE, sizes.reserved)
            .map_max_entries(names::RECENT, recent)
            .load(OBJECT)?;
        let interfaces = plan.fill(&mut object)?;
        let picks = if plan.names() { Some(map(&mut object, names::PICKS, Buffer::try_from)?) } else { None };
        let spilled =
            if overflow_buffer > 0 { Some(map(&mut object, names::SPILLED, Buffer::try_from)?) } else { None };
        let pick_counts = map(&mut object, names::PICK_COUNTS, PerCpuArray::try_from)?;
        let reserve = map(&mut object, names::RESERVE, Stack::try_from)?;
        let ledger = map(&mut object, names::LEDGER, PerCpuArray::try_from)?;
        let drops = map(&mut object, names::DROPS, PerCpuArray::try_from)?;
        let executables = map(&mut object, names::EXECUTABLES, HashMap::try_from)?;
        let places = Places {
            index: nested(&mut object, names::INDEX)?,
            free: nested(&mut object, names::FREE)?,
            slots: nested(&mut object, names::SLOTS)?,
            facts: nested(&mut object, names::FACTS)?,
        };
        let table = KernelTable::new(places, reserve, sizes, pins.as_ref().map(Pins::kept).transpose()?)?;
        let handed_on = pins.as_ref().map(Pins::handed_on).transpose()?;
        for program in [names::ETHERNET_INGRESS, names::ETHERNET_EGRESS, names::IP_INGRESS, names::IP_EGRESS] {
            classifier(&mut object, program)?.load().map_err(|source| Error::Program { program, source })?;
        }
        let contained = contained.then(|| Contained::load(&mut object)).transpose()?;
        let features = features::attach(&mut object, &types);
        let kernel = Self {
            object,
            ledger,
            places: BTreeSet::new(),
            drops,
            executables,
            interfaces,
            picks,
            spilled,
            pick_counts,
            features,
            place: Place::new(Hook::Auto, Order::First),
            reasons: types.reasons,
            resets: types.resets,
            contained,
            handed_on,
            pins,
        };
        Ok((kernel, table))
    }

    /// What a life that was killed has handed on.
    #[must_use]
    pub fn earlier(&self) -> Option<Life> {
        self.pins.as_ref().and_then(Pins::earlier)
    }

    /// What the next life gets if this one is killed.
    pub fn hand_on(&mut self, life: &Life, shares: impl Iterator<Item = (u32, Share)>) -> Result<(), Error> {
        let Some(handed_on) = &mut self.handed_on else { return Ok(()) };
        handed_on.keep(life, shares)
    }

    /// What the life before knew of each [place](ledger::place) of the ledger.
    pub fn earlier_shares(&mut self) -> Result<Vec<(u32, Share)>, Error> {
        let Some(handed_on) = self.handed_on.as_ref().filter(|_| self.pins.as_ref().and_then(Pins::earlier).is_some())
        else {
            return Ok(Vec::new());
        };
        let shares = handed_on.shares()?;
        // What is counted there belongs into the sums, also where nothing is attached any more.
        self.places.extend(0..if self.contained.is_some() { ledger::ALL_LEDGERS } else { ledger::LEDGERS });
        let counted = self.ledgers()?;
        self.places =
            counted.iter().filter(|(_, ledger)| *ledger != Ledger::default()).map(|(place, _)| *place).collect();
        Ok(shares)
    }

    /// Detaches what a killed life has left on other interfaces than these.
    pub fn forget_others(&self, indexes: impl Iterator<Item = u32>) {
        let Some(pins) = &self.pins else { return };
        let hooks: Vec<_> =
            indexes.flat_map(|index| [INGRESS, EGRESS].map(|direction| pins::hook(index, direction))).collect();
        pins.forget_others(&hooks);
    }

    /// Which hook to attach to from now on, and where among the programs there.
    pub fn stand(&mut self, hook: Hook, order: Order) {
        self.place = Place::new(hook, order);
    }

    /// What attaches in other network namespaces, once, at such a place as here; `None` = nobody wants it, or the reason why it cannot be done.
    pub(crate) fn take_contained(&mut self, hook: Hook, order: Order) -> Result<Option<Contained>, String> {
        let Some(mut contained) = self.contained.take() else { return Ok(None) };
        contained.stand(hook, order).map(|()| Some(contained))
    }

    /// These interfaces are not attached to any more, and never will be again.
    pub(crate) fn forget(&mut self, gone: &[u32]) {
        for number in gone {
            self.interfaces.forget(*number);
        }
    }

    /// Makes an interface known that another thread is about to attach to.
    pub(crate) fn learn(&mut self, number: u32, name: &str) -> Result<(), Error> {
        self.places.insert(ledger::place(number));
        self.interfaces.learn(number, name)
    }

    /// Attaches to both directions of an interface, named as it is at this moment in the network namespace of the calling thread.
    pub fn attach(&mut self, interface: &str, index: u32, link: Link) -> Result<Attachment, Error> {
        self.learn(index, interface)?;
        let (ingress, egress) = match link {
            Link::Ethernet => (names::ETHERNET_INGRESS, names::ETHERNET_EGRESS),
            Link::Ip => (names::IP_INGRESS, names::IP_EGRESS),
        };
        let hooks = [INGRESS, EGRESS].map(|direction| pins::hook(index, direction));
        let names = self.pins.iter().flat_map(|pins| hooks.iter().map(|hook| pins.path(hook))).collect();
        Ok(Attachment {
            _ingress: self.attach_one(interface, ingress, TcAttachType::Ingress, &hooks[0])?,
            _egress: self.attach_one(interface, egress, TcAttachType::Egress, &hooks[1])?,
            names,
        })
    }

    fn attach_one(
        &mut self,
        interface: &str,
        program: &'static str,
        direction: TcAttachType,
        hook: &str,
    ) -> Result<SchedClassifierLink, Error> {
        let classifier = classifier(&mut self.object, program)?;
        if let Some(link) = self.pins.as_ref().and_then(|pins| pins.replace(hook, classifier)) {
            return Ok(link);
        }
        let link = self
            .place
            .attach(classifier, program, interface, direction)
            .map_err(|source| Error::Program { program, source })?;
        match &self.pins {
            Some(pins) => pins.keep(hook, link),
            None => Ok(link),
        }
    }

    /// What this kernel can tell.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// What the process executes, as it was given to execve(2); empty = not known.
    #[must_use]
    pub fn executable(&self, pid: u32) -> String {
        let Ok(path) = self.executables.get(&pid, 0) else { return String::new() };
        let end = path.iter().position(|&byte| byte == 0).unwrap_or(PATH);
        String::from_utf8_lossy(&path[..end]).into_owned()
    }

    /// The kernel's name for a reason to drop a packet, without its prefix.
    #[must_use]
    pub fn drop_reason(&self, reason: u32) -> String {
        self.reasons.get(&reason).cloned().unwrap_or_else(|| reason.to_string())
    }

    /// The kernel's name for a reason to reset a connection, without its prefix.
    #[must_use]
    pub fn reset_reason(&self, reason: u32) -> String {
        self.resets.get(&reason).cloned().unwrap_or_default()
    }

    /// Notes what processes execute that were there before. What the kernel has told meanwhile stays.
    pub fn learn_executables(&mut self, processes: &Processes) {
        if !self.features.has(Feature::Executable) {
            return;
        }
        for (pid, path) in processes.iter() {
            if !processes.is_same(pid) || self.executables.insert(pid, path, BPF_NOEXIST).is_err() {
                continue;
            }
            if !processes.is_same(pid) {
                // It fails if it is not there any more.
                let _gone = self.executables.remove(&pid);
            }
        }
    }

    /// Packets that the kernel has dropped on the whole host since this was loaded, by reason.
    pub fn drops(&self) -> Result<Vec<(String, u64)>, Error> {
        let mut found = Vec::new();
        for reason in NOT_SPECIFIED..REASONS {
            let shares = self.drops.get(&reason, 0).map_err(|source| Error::Map { map: names::DROPS, source })?;
            let sum: u64 = shares.iter().sum();
            if sum > 0 {
                found.push((self.drop_reason(reason), sum));
            }
        }
        Ok(found)
    }

    /// Takes what the kernel has told of packets without room.
    pub(crate) fn read_spilled(&mut self, mut add: impl FnMut(&Spill)) -> usize {
        let Some(buffer) = &mut self.spilled else { return 0 };
        let mut count = 0;
        while let Some(item) = buffer.next() {
            // The kernel's program and this one are of one version.
            if let Some(spill) = Spill::read(&item) {
                add(&spill);
            }
            count += 1;
        }
        count
    }

    /// Where picked packets come, once.
    pub(crate) fn take_picks(&mut self) -> Option<Buffer> {
        self.picks.take()
    }

    /// Packets that were picked, and such as found no room in the buffer.
    pub(crate) fn picked(&self) -> Result<(u64, u64), Error> {
        let shares = self.pick_counts.get(&0, 0).map_err(|source| Error::Map { map: names::PICK_COUNTS, source })?;
        Ok(shares.iter().fold((0, 0), |(picked, lost), share| (picked + share[0], lost + share[1])))
    }

    /// The ledger, summed over all CPUs and interfaces.
    pub fn ledger(&self) -> Result<Ledger, Error> {
        let mut sum = Ledger::default();
        for (_, ledger) in self.ledgers()? {
            sum.merge(&ledger);
        }
        Ok(sum)
    }

    /// The ledger by [place](ledger::place), summed over all CPUs.
    pub fn ledgers(&self) -> Result<Vec<(u32, Ledger)>, Error> {
        let of_place = |&place: &u32| {
            let shares = self.ledger.get(&place, 0).map_err(|source| Error::Map { map: names::LEDGER, source })?;
            let mut sum = Ledger::default();
            for share in shares.iter() {
                sum.merge(&share.0);
            }
            Ok((place, sum))
        };
        self.places.iter().map(of_place).collect()
    }
}

pub(crate) fn map<T>(
    object: &mut Ebpf,
    name: &'static str,
    convert: impl FnOnce(Map) -> Result<T, MapError>,
) -> Result<T, Error> {
    let map = object.take_map(name).ok_or(Error::Missing(name))?;
    convert(map).map_err(|source| Error::Map { map: name, source })
}

fn nested(object: &mut Ebpf, name: &'static str) -> Result<Nested, Error> {
    match object.take_map(name) {
        Some(Map::ArrayOfMaps(data)) => Ok(Nested::new(data, name)),
        _ => Err(Error::Missing(name)),
    }
}

fn classifier<'a>(object: &'a mut Ebpf, program: &'static str) -> Result<&'a mut SchedClassifier, Error> {
    let found = object.program_mut(program).ok_or(Error::Missing(program))?;
    found.try_into().map_err(|source| Error::Program { program, source })
}

//! What is counted: filters, allowed addresses and the sample, on their way into the kernel.

use std::collections::BTreeMap;

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, lpm_trie::Key},
};
use weir_capture_common::{
    names,
    select::{MAX_TERMS, Program, Term, uses},
};
use weir_filter::{Atom, Evaluator, PacketFilter, Prefix, Unsupported};
use weir_proto::Flow;

use crate::{
    kernel::{Error, map},
    picks,
};

/// The kernel wants at least a page.
const SMALLEST_BUFFER: u32 = 4096;
/// Interfaces that may be attached to at one time, if the filter asks for their names.
const MAX_INTERFACES: u32 = 4096;

/// What is counted, compiled.
#[derive(Clone, Debug)]
pub struct Plan {
    filter: PacketFilter,
    /// One flow in so many; 1 = all.
    one_in: u32,
    seed: u64,
    uses: u32,
    /// 1 = packets are picked to be dissected.
    names: u32,
}

/// The answers of interfaces, which come and go.
pub struct InterfaceAnswers {
    map: HashMap<MapData, u32, u64>,
    questions: Vec<(usize, Evaluator)>,
}

/// A program as it lies in the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct ProgramValue(Program);

// SAFETY: integers only, without padding.
unsafe impl Pod for ProgramValue {}

impl Default for Plan {
    fn default() -> Self {
        Self::new(PacketFilter::everything(), 1)
    }
}

impl Plan {
    /// Counts what the filter accepts, and of that one flow in so many.
    #[must_use]
    pub fn new(filter: PacketFilter, one_in: u32) -> Self {
        let uses = if filter.accepts_everything() { 0 } else { used(&filter) };
        Self { filter, one_in: one_in.max(1), names: 0, seed: uuid::Uuid::new_v4().as_u64_pair().0, uses }
    }

    /// With packets for [`crate::picks`], or without.
    #[must_use]
    pub fn with_names(self, names: bool) -> Self {
        Self { names: names.into(), ..self }
    }

    /// Whether packets are picked.
    #[must_use]
    pub fn names(&self) -> bool {
        self.names != 0
    }

    /// One flow in so many is counted.
    #[must_use]
    pub fn one_in(&self) -> u32 {
        self.one_in
    }

    /// Sets constants and sizes, without which the kernel removes what is not used.
    pub(crate) fn configure<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        let prefixes = self.addresses().len() as u32;
        let size = |used: u32, entries: u32| if self.uses & used == 0 { 1 } else { entries };
        loader
            .override_global(names::SELECT_USES, &self.uses, true)
            .override_global(names::SAMPLE_ONE_IN, &self.one_in, true)
            .override_global(names::SAMPLE_SEED, &self.seed, true)
            .override_global(names::PICKS_ON, &self.names, true)
            .map_max_entries(names::PICKS, if self.names() { picks::BUFFER_BYTES } else { SMALLEST_BUFFER })
            .map_max_entries(names::SELECT_ADDRESSES, prefixes.max(1))
            .map_max_entries(names::SELECT_PORTS, size(uses::PORTS, 1 << 16))
            .map_max_entries(names::SELECT_INTERFACES, size(uses::INTERFACES, MAX_INTERFACES));
    }

    /// Writes the filter into its maps.
    pub(crate) fn fill(&self, object: &mut Ebpf) -> Result<InterfaceAnswers, Error> {
        if self.uses & uses::FILTER != 0 {
            self.fill_addresses(object)?;
            Self::fill_array(object, names::SELECT_PORTS, &self.ports())?;
            Self::fill_array(object, names::SELECT_PROTOCOLS, &self.protocols())?;
            // Lent, not taken: a map that nobody holds is closed before the programs refer to it.
            let mut program: Array<_, ProgramValue> =
                Array::try_from(lent(object, names::SELECT_PROGRAM)?).map_err(refused(names::SELECT_PROGRAM))?;
            program.set(0, ProgramValue(self.program()), 0).map_err(refused(names::SELECT_PROGRAM))?;
        }
        let map = map(object, names::SELECT_INTERFACES, HashMap::try_from)?;
        let questions = (self.filter.atoms.iter().enumerate())
            .filter_map(|(bit, atom)| if let Atom::Interface(name) = atom { Some((bit, name.clone())) } else { None })
            .collect();
        Ok(InterfaceAnswers { map, questions })
    }

    fn fill_addresses(&self, object: &mut Ebpf) -> Result<(), Error> {
        let mut trie: LpmTrie<_, [u8; 16], u64> =
            LpmTrie::try_from(lent(object, names::SELECT_ADDRESSES)?).map_err(refused(names::SELECT_ADDRESSES))?;
        for (prefix, bits) in self.addresses() {
            let key = Key::new(prefix.length.into(), prefix.address.octets());
            trie.insert(&key, bits, 0).map_err(refused(names::SELECT_ADDRESSES))?;
        }
        Ok(())
    }

    fn fill_array(object: &mut Ebpf, name: &'static str, bits: &BTreeMap<u32, u64>) -> Result<(), Error> {
        let mut array: Array<_, u64> = Array::try_from(lent(object, name)?).map_err(refused(name))?;
        for (index, bits) in bits {
            array.set(*index, bits, 0).map_err(refused(name))?;
        }
        Ok(())
    }

    fn program(&self) -> Program {
        let mut program = Program { count: self.filter.terms.len().min(MAX_TERMS) as u64, ..Program::default() };
        for (to, from) in program.terms.iter_mut().zip(&self.filter.terms) {
            *to = Term { care: from.care, want: from.want };
        }
        program
    }

    /// The trie gives one value for an address, that of the longest prefix: so each has the bits of all prefixes around it.
    fn addresses(&self) -> BTreeMap<Prefix, u64> {
        let atoms = || self.filter.atoms.iter().enumerate();
        let lists =
            atoms().filter_map(|(bit, atom)| if let Atom::Addresses(list) = atom { Some((bit, list)) } else { None });
        let all: Vec<(usize, Prefix)> =
            lists.flat_map(|(bit, list)| list.iter().map(move |prefix| (bit, *prefix))).collect();
        let around = |inner: &Prefix| {
            let outer = all.iter().filter(|(_, outer)| outer.length <= inner.length && outer.contains(inner.address));
            outer.fold(0, |bits, (bit, _)| bits | 1 << bit)
        };
        all.iter().map(|(_, prefix)| (*prefix, around(prefix))).collect()
    }

    fn ports(&self) -> BTreeMap<u32, u64> {
        let mut bits = BTreeMap::new();
        for (bit, atom) in self.filter.atoms.iter().enumerate() {
            let Atom::Ports(ranges) = atom else { continue };
            for port in ranges.iter().flat_map(|(first, last)| *first..=*last) {
                *bits.entry(u32::from(port)).or_default() |= 1 << bit;
            }
        }
        bits
    }

    fn protocols(&self) -> BTreeMap<u32, u64> {
        let mut bits = BTreeMap::new();
        for (bit, atom) in self.filter.atoms.iter().enumerate() {
            let Atom::Protocols(protocols) = atom else { continue };
            for protocol in protocols {
                *bits.entry(u32::from(*protocol)).or_default() |= 1 << bit;
            }
        }
        bits
    }
}

impl InterfaceAnswers {
    /// Answers for an interface, before anything is attached to it or when it has a new name.
    pub(crate) fn learn(&mut self, index: u32, name: &str) -> Result<(), Error> {
        if self.questions.is_empty() {
            return Ok(());
        }
        let answers = (self.questions.iter())
            .fold(0_u64, |answers, (bit, question)| answers | u64::from(Atom::names(question, name)) << bit);
        self.map.insert(index, answers, 0).map_err(refused(names::SELECT_INTERFACES))
    }

    /// An interface is gone, and its number with it.
    pub(crate) fn forget(&mut self, number: u32) {
        if !self.questions.is_empty() {
            // It fails where it was never learned.
            let _unknown = self.map.remove(&number);
        }
    }
}

/// The filter that three options make together: one that includes, one that excludes, and addresses of which one must be an end.
///
/// `Err` names the option that is to blame.
pub fn combine(include: &str, exclude: &str, allow: &[String]) -> Result<PacketFilter, (&'static str, Unsupported)> {
    let mut parts = Vec::new();
    for (option, text) in [("include", include), ("exclude", exclude)] {
        PacketFilter::read(text).map_err(|error| (option, error))?;
        if !text.trim().is_empty() {
            parts.push(if option == "include" { format!("({text})") } else { format!("not ({text})") });
        }
    }
    if !allow.is_empty() {
        parts.push(format!("ip in ({})", allow.join(", ")));
    }
    PacketFilter::read(&parts.join(" and ")).map_err(|error| ("include", error))
}

/// Makes of a flow that was chosen what all the flows that it stands for come to.
pub fn scale(flow: &mut Flow, one_in: u32) {
    if one_in <= 1 {
        return;
    }
    let factor = u64::from(one_in);
    flow.sampling = one_in;
    for sum in [&mut flow.tx_bytes, &mut flow.tx_packets, &mut flow.rx_bytes, &mut flow.rx_packets] {
        *sum = sum.saturating_mul(factor);
    }
}

fn used(filter: &PacketFilter) -> u32 {
    filter.atoms.iter().fold(uses::FILTER, |used, atom| {
        used | match atom {
            Atom::Addresses(_) => uses::ADDRESSES,
            Atom::Ports(_) => uses::PORTS,
            Atom::Protocols(_) => uses::PROTOCOLS,
            Atom::Interface(_) => uses::INTERFACES,
        }
    })
}

fn lent<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Map, Error> {
    object.map_mut(name).ok_or(Error::Missing(name))
}

fn refused(map: &'static str) -> impl FnOnce(aya::maps::MapError) -> Error {
    move |source| Error::Map { map, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_prefix_has_the_bits_of_the_shorter_ones_around_it() {
        let plan = Plan::new(PacketFilter::read("ip in 10.0.0.0/8 and not ip in (10.1.0.0/16, fd00::/8)").unwrap(), 1);
        let bits: Vec<_> = plan.addresses().into_values().collect();
        assert_eq!(bits, [0b01, 0b11, 0b10]);
        assert_eq!(plan.uses, uses::FILTER | uses::ADDRESSES);
    }

    #[test]
    fn three_options_make_one_filter() {
        let filter =
            combine("protocol = tcp", "port = 22 or port = 23", &["10.0.0.0/8".into(), "fd00::1".into()]).unwrap();
        assert_eq!(filter.terms.len(), 1);
        assert_eq!(filter.terms[0].care.count_ones(), 4);
        assert_eq!(combine("", "dst_port = 22", &[]).unwrap_err().0, "exclude");
        assert!(combine("", "", &[]).unwrap().accepts_everything());
    }

    #[test]
    fn sums_of_a_sample_are_scaled_and_marked() {
        let mut flow = Flow { tx_bytes: 5, tx_packets: 1, rx_bytes: u64::MAX, ..Flow::default() };
        scale(&mut flow, 10);
        assert_eq!((flow.tx_bytes, flow.tx_packets, flow.rx_bytes, flow.sampling), (50, 10, u64::MAX, 10));
        scale(&mut flow, 1);
        assert_eq!((flow.tx_packets, flow.sampling), (10, 10));
    }
}

//! What a frame tells: its ends, whether the filter accepts it, and the tag that the device has taken out of it.

use std::{collections::HashMap, net::Ipv6Addr};

use weir_capture_common::{
    dissect::{self, Fragment, Frame, Link, Plain},
    flow::Address,
    icmp,
};
use weir_filter::{Atom, Packet, PacketFilter, Term};

/// Datagrams whose first fragment was seen and whose others are expected; when there are more, all are forgotten.
const MAX_DATAGRAMS: usize = 4096;
/// An IPv4 packet with its Ethernet header and three tags.
const LONGEST: usize = 0xffff + 14 + 12;
/// Both addresses of an Ethernet header, behind which a tag stands.
const ADDRESSES: usize = 12;

/// A frame in memory.
pub(super) struct Bytes<'a>(pub(super) &'a [u8], pub(super) Link);

impl Frame for Bytes<'_> {
    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        let bytes = self.0.get(offset as usize..)?.get(..size_of::<T>())?;
        // SAFETY: there are as many bytes as the type has, and it takes any.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    fn length(&self) -> u32 {
        self.0.len() as u32
    }

    fn ether_type(&self) -> u16 {
        match (self.1, self.0) {
            (Link::Ethernet, [_, _, _, _, _, _, _, _, _, _, _, _, high, low, ..]) => u16::from_be_bytes([*high, *low]),
            (Link::Ip, [first, ..]) if first >> 4 == 4 => 0x0800,
            (Link::Ip, [first, ..]) if first >> 4 == 6 => 0x86dd,
            _ => 0,
        }
    }

    fn vlan_tag(&self) -> Option<u16> {
        None
    }

    fn segment_size(&self) -> u32 {
        // Nobody says it here; but what is longer than a packet can be (BIG TCP) is no single one.
        u32::from(self.0.len() > LONGEST)
    }
}

/// The frame with its VLAN tag where it was on the wire.
pub(super) fn with_tag(frame: &[u8], protocol: u16, tag: u16) -> Vec<u8> {
    let at = ADDRESSES.min(frame.len());
    let mut whole = Vec::with_capacity(frame.len() + 4);
    whole.extend_from_slice(&frame[..at]);
    whole.extend(protocol.to_be_bytes());
    whole.extend(tag.to_be_bytes());
    whole.extend_from_slice(&frame[at..]);
    whole
}

/// Both ends of a packet, the sender first; inside of a tunnel that Weir knows. Ports of ICMP are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) addresses: [Ipv6Addr; 2],
    pub(super) ports: [u16; 2],
    pub(super) protocol: u8,
}

/// A packet that is wanted, with its ends if it is an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen(pub(super) Option<Ends>);

/// Chooses packets.
#[derive(Default)]
pub(super) struct Chooser {
    /// Ports by the addresses, the number and the protocol of a datagram.
    datagrams: HashMap<(Address, Address, u32, u8), [u16; 2]>,
}

impl Chooser {
    /// Whether the filter accepts a packet. What is no IP packet has neither addresses nor ports nor a protocol, and only a filter that asks
    /// for none of these accepts it.
    pub(super) fn choose(&mut self, frame: &[u8], link: Link, filter: &PacketFilter) -> Option<Chosen> {
        let ends = self.ends(frame, link);
        let accepted = match ends {
            _ if filter.accepts_everything() => true,
            Some(Ends { addresses, ports, protocol }) => {
                filter.holds(&Packet { addresses, ports, protocol, interface: "" })
            }
            None => false,
        };
        accepted.then_some(Chosen(ends))
    }

    fn ends(&mut self, frame: &[u8], link: Link) -> Option<Ends> {
        let headers = dissect::dissect(&Bytes(frame, link), link).ok()?;
        let mut ports = [headers.src_port, headers.dst_port];
        let datagram = (headers.src, headers.dst, headers.fragment_id, headers.protocol);
        match headers.fragment {
            Fragment::Whole => {}
            Fragment::First => {
                if self.datagrams.len() >= MAX_DATAGRAMS {
                    self.datagrams.clear();
                }
                self.datagrams.insert(datagram, ports);
            }
            Fragment::Later => ports = self.datagrams.get(&datagram).copied().unwrap_or_default(),
        }
        if matches!(headers.protocol, icmp::ICMP | icmp::ICMPV6) {
            ports = [0; 2];
        }
        let addresses = [address(headers.src), address(headers.dst)];
        Some(Ends { addresses, ports, protocol: headers.protocol })
    }
}

/// As the rest of the world writes it.
pub(super) fn address(address: Address) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(address.high) << 64 | u128::from(address.low))
}

/// What is left of a filter on an interface of this name; `None` = it accepts nothing there.
pub(super) fn on_interface(filter: &PacketFilter, name: &str) -> Option<PacketFilter> {
    let (mut asked, mut answers) = (0_u64, 0_u64);
    for (bit, atom) in filter.atoms.iter().enumerate() {
        if let Atom::Interface(question) = atom {
            asked |= 1 << bit;
            answers |= u64::from(Atom::names(question, name)) << bit;
        }
    }
    let possible = filter.terms.iter().filter(|term| answers & term.care & asked == term.want & asked);
    let terms: Vec<_> = possible.map(|term| Term { care: term.care & !asked, want: term.want & !asked }).collect();
    // Answered for good; what stands in its place keeps the numbers of the others.
    let atoms = filter.atoms.iter().map(|atom| match atom {
        Atom::Interface(_) => Atom::Protocols(Vec::new()),
        other => other.clone(),
    });
    (!terms.is_empty()).then(|| PacketFilter { atoms: atoms.collect(), terms })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> PacketFilter {
        PacketFilter::read(text).unwrap()
    }

    /// An IPv4 packet with UDP, or a fragment of one.
    fn udp(src: u16, dst: u16, fragment: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 32, 0, 7];
        packet.extend(fragment.to_be_bytes());
        packet.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend(src.to_be_bytes());
        packet.extend(dst.to_be_bytes());
        packet.extend([0, 12, 0, 0, 1, 2, 3, 4]);
        packet
    }

    #[test]
    fn only_what_the_filter_names_is_chosen() {
        let mut chooser = Chooser::default();
        let packet = udp(5353, 53, 0);
        let mut chosen = |text: &str| chooser.choose(&packet, Link::Ip, &filter(text)).is_some();
        assert!(chosen("") && chosen("port = 53") && chosen("ip in 10.0.0.0/31 and protocol = udp"));
        assert!(!chosen("port = 54") && !chosen("protocol = tcp") && !chosen("ip = 10.0.0.3"));
    }

    #[test]
    fn what_is_no_ip_packet_is_chosen_by_a_filter_that_accepts_everything() {
        let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
        let mut chooser = Chooser::default();
        assert_eq!(chooser.choose(&arp, Link::Ethernet, &filter("")), Some(Chosen(None)));
        assert_eq!(chooser.choose(&arp, Link::Ethernet, &filter("not port = 1")), None);
    }

    #[test]
    fn later_fragments_have_the_ports_of_the_first_one() {
        const MORE: u16 = 0x2000;
        let mut chooser = Chooser::default();
        let wanted = filter("port = 53");
        assert!(chooser.choose(&udp(0, 0, 4), Link::Ip, &wanted).is_none(), "its first one was not seen");
        assert!(chooser.choose(&udp(9, 53, MORE), Link::Ip, &wanted).is_some());
        let later = chooser.choose(&udp(0, 0, 4), Link::Ip, &wanted).unwrap();
        assert_eq!(later.0.unwrap().ports, [9, 53]);
    }

    #[test]
    fn a_tag_stands_again_where_it_was() {
        let frame = [&[1; 12][..], &[0x08, 0x00], &udp(1, 2, 0)].concat();
        let tagged = with_tag(&frame, 0x8100, 42);
        assert_eq!(tagged[12..18], [0x81, 0, 0, 42, 8, 0]);
        let ends = Chooser::default().choose(&tagged, Link::Ethernet, &filter("port = 2")).unwrap();
        assert_eq!(ends.0.unwrap().ports, [1, 2]);
        assert_eq!(with_tag(&[1, 2], 0x8100, 1), [1, 2, 0x81, 0, 0, 1]);
    }

    #[test]
    fn names_of_interfaces_are_answered_before_packets_come() {
        let wanted = filter("interface like \"veth%\" and port = 53 or interface = eth0");
        assert!(on_interface(&wanted, "lo").is_none());
        assert!(on_interface(&wanted, "eth0").unwrap().accepts_everything());
        let left = on_interface(&wanted, "veth1").unwrap();
        let mut chooser = Chooser::default();
        assert!(chooser.choose(&udp(1, 53, 0), Link::Ip, &left).is_some());
        assert!(chooser.choose(&udp(1, 54, 0), Link::Ip, &left).is_none());
    }

    proptest! {
        #[test]
        fn no_frame_is_too_strange(frame in proptest::collection::vec(any::<u8>(), 0..200), ethernet: bool, tag: u16) {
            let link = if ethernet { Link::Ethernet } else { Link::Ip };
            let mut chooser = Chooser::default();
            let _ends = chooser.choose(&frame, link, &filter("port = 53 or not ip = ::1"));
            prop_assert_eq!(with_tag(&frame, 0x88a8, tag).len(), frame.len() + 4);
        }
    }
}

//! Which hardware addresses claim an IP address: ARP (RFC 826) and neighbour discovery (RFC 4861).

use super::bounded::Bounded;
use super::evidence::Evidence;
use super::finding::{Finding, display};
use super::kind::{Kind, Severity};
use super::thresholds::Thresholds;
use crate::analyzer::Scale;
use crate::bytes::{array_at, u8_at, u16_at};

/// IP addresses that are followed.
const MAX_ADDRESSES: usize = 8192;
/// Hardware addresses that are kept of each.
const MAX_CLAIMS: usize = 8;

type Mac = [u8; 6];

/// Who says that an address is theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) ip: [u8; 16],
    pub(crate) mac: Mac,
}

#[derive(Debug, Default)]
struct Address {
    macs: Vec<Mac>,
    last: Mac,
    /// Times that another hardware address than before claimed it.
    changes: u64,
    evidence: Evidence,
}

/// The claims of a capture.
#[derive(Debug)]
pub(super) struct Neighbours {
    addresses: Bounded<[u8; 16], Address>,
}

impl Neighbours {
    pub(super) fn new(scale: Scale) -> Self {
        Self { addresses: Bounded::new(scale.of(MAX_ADDRESSES)) }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.addresses.lost
    }

    pub(super) fn claim(&mut self, frame: u64, time: u64, flow_id: u64, claim: Claim) {
        let Some(address) = self.addresses.entry(claim.ip, |address| address.macs.len() > 1) else { return };
        let new = !address.macs.contains(&claim.mac);
        if new && address.macs.len() < MAX_CLAIMS {
            address.macs.push(claim.mac);
        }
        let changed = address.last != claim.mac;
        address.changes += u64::from(changed);
        address.last = claim.mac;
        if changed {
            address.evidence.packet(flow_id, frame, time);
        }
    }

    pub(super) fn findings(&self, thresholds: &Thresholds, found: &mut Vec<Finding>) {
        for (ip, address) in self.addresses.iter() {
            // Virtual routers (VRRP, HSRP) claim the address of a group in turn with their own.
            let macs = address.macs.iter().filter(|mac| !is_virtual(**mac)).count() as u64;
            if macs < thresholds.address_conflict_macs {
                continue;
            }
            let names: Vec<String> = address.macs.iter().copied().map(name).collect();
            // The first claim is a change from nothing; there and back again is a quarrel, once is a replacement.
            let quarrel = address.changes > 2;
            let (severity, confidence) = if quarrel { (Severity::Critical, 0.85) } else { (Severity::Warning, 0.4) };
            let summary = format!(
                "{} is claimed by {} hardware addresses ({}), which took turns {} time{}",
                display(*ip),
                names.len(),
                names.join(", "),
                address.changes - 1,
                if address.changes == 2 { "" } else { "s" },
            );
            found.push(
                Finding::new(Kind::AddressConflict, severity, confidence, &address.evidence)
                    .to(*ip)
                    .with("hardware_addresses", names)
                    .with("changes", address.changes - 1)
                    .saying(summary),
            );
        }
    }
}

/// The claim in an ARP packet for IPv4: requests and replies name their sender; probes (RFC 5227) come from no address and claim nothing.
pub(crate) fn arp(packet: &[u8]) -> Option<Claim> {
    let ethernet_ipv4 = u16_at(packet, 0)? == 1 && u16_at(packet, 2)? == 0x0800 && array_at(packet, 4)? == [6u8, 4];
    let known = matches!(u16_at(packet, 6)?, 1 | 2);
    let (mac, ip): (Mac, [u8; 4]) = (array_at(packet, 8)?, array_at(packet, 14)?);
    let claims = ethernet_ipv4 && known && ip != [0; 4] && ip != [255; 4] && mac != [0; 6];
    claims.then(|| Claim { ip: std::net::Ipv4Addr::from(ip).to_ipv6_mapped().octets(), mac })
}

/// The claim in a neighbour advertisement, or in the solicitation of a neighbour, with the link-layer option of its sender.
pub(crate) fn neighbour_discovery(src: [u8; 16], message: &[u8]) -> Option<Claim> {
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    let (ip, option): ([u8; 16], u8) = match u8_at(message, 0)? {
        ADVERTISEMENT => (array_at(message, 8)?, 2),
        SOLICITATION => (src, 1),
        _ => return None,
    };
    let mut at = 24;
    for _ in 0..8 {
        let (kind, units) = (u8_at(message, at)?, u8_at(message, at + 1)?);
        if kind == option && units == 1 {
            let mac: Mac = array_at(message, at + 2)?;
            return (ip != [0; 16] && mac != [0; 6]).then_some(Claim { ip, mac });
        }
        at += usize::from(units.max(1)) * 8;
    }
    None
}

const fn is_virtual(mac: Mac) -> bool {
    matches!(
        mac,
        [0x00, 0x00, 0x5e, 0x00, 0x01 | 0x02, _] | [0x00, 0x00, 0x0c, 0x07, 0xac, _] | [0x00, 0x05, 0x73, 0xa0, ..]
    )
}

fn name(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

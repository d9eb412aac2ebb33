//! What a filter can name.

/// What a field holds, and so what it can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// An address; compared with addresses and prefixes.
    Address,
    /// A whole number of at most this value.
    Number(u64),
    /// A number of IANA's protocol registry, or `tcp`, `udp`, `icmp`, `icmpv6`, `sctp`, `gre`, `esp`.
    Protocol,
    /// Text.
    Text,
    /// A UUID.
    Uuid,
}

/// A name with the columns it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// As it is written in a filter.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldType,
    /// The expressions that it stands for; a comparison holds when it holds for one of them.
    pub columns: &'static [&'static str],
}

const U8: FieldType = FieldType::Number(u8::MAX as u64);
const U16: FieldType = FieldType::Number(u16::MAX as u64);
const U32: FieldType = FieldType::Number(u32::MAX as u64);
const U64: FieldType = FieldType::Number(u64::MAX);

macro_rules! fields {
    ($($name:literal $kind:expr, $($column:literal)+;)+) => {
        &[$(Field { name: $name, kind: $kind, columns: &[$($column),+] }),+]
    };
}

/// All of them.
#[must_use]
pub fn fields() -> &'static [Field] {
    use FieldType::{Address, Protocol, Text, Uuid};
    fields! {
        "ip" Address, "src_ip" "dst_ip";
        "src_ip" Address, "src_ip";
        "dst_ip" Address, "dst_ip";
        "port" U16, "src_port" "dst_port";
        "src_port" U16, "src_port";
        "dst_port" U16, "dst_port";
        "protocol" Protocol, "protocol";
        "app" Text, "app";
        "container" Text, "src_container" "dst_container";
        "src_container" Text, "src_container";
        "dst_container" Text, "dst_container";
        "container_id" Text, "src_container_id" "dst_container_id";
        "src_container_id" Text, "src_container_id";
        "dst_container_id" Text, "dst_container_id";
        "image" Text, "src_image" "dst_image";
        "src_image" Text, "src_image";
        "dst_image" Text, "dst_image";
        "name" Text, "src_name" "dst_name";
        "src_name" Text, "src_name";
        "dst_name" Text, "dst_name";
        "process" Text, "src_process" "dst_process";
        "src_process" Text, "src_process";
        "dst_process" Text, "dst_process";
        "bytes" U64, "tx_bytes + rx_bytes";
        "packets" U64, "tx_packets + rx_packets";
        "tx_bytes" U64, "tx_bytes";
        "tx_packets" U64, "tx_packets";
        "rx_bytes" U64, "rx_bytes";
        "rx_packets" U64, "rx_packets";
        "host" Text, "host";
        "interface" Text, "interface";
        "source" Text, "toString(source)";
        "capture_id" Uuid, "capture_id";
        "flow_id" U64, "flow_id";
        "community_id" Text, "community_id";
        "vlan" U32, "vlan";
        "tunnel" Text, "tunnel";
        "tcp_flags_tx" U8, "tcp_flags_tx";
        "tcp_flags_rx" U8, "tcp_flags_rx";
        "end_reason" Text, "toString(end_reason)";
        "handshake_us" U32, "handshake_us";
        "rtt_us" U32, "rtt_us";
        "retransmits" U64, "tx_retransmits + rx_retransmits";
        "tx_retransmits" U64, "tx_retransmits";
        "rx_retransmits" U64, "rx_retransmits";
        "tx_out_of_order" U64, "tx_out_of_order";
        "rx_out_of_order" U64, "rx_out_of_order";
        "tx_zero_windows" U64, "tx_zero_windows";
        "rx_zero_windows" U64, "rx_zero_windows";
        "drops" U64, "drops";
        "drop_reason" Text, "drop_reason";
    }
}

/// The field of this name.
pub(crate) fn find(name: &str) -> Option<&'static Field> {
    fields().iter().find(|field| field.name == name)
}

/// The fields whose names are nearest to one that does not exist.
pub(crate) fn similar(name: &str) -> Vec<&'static str> {
    let mut near: Vec<_> = fields().iter().map(|field| (distance(name, field.name), field.name)).collect();
    near.sort_unstable();
    near.into_iter().take(3).filter(|(distance, _)| *distance <= 4).map(|(_, name)| name).collect()
}

/// The protocols that have a name here.
pub(crate) const PROTOCOLS: [(&str, u64); 7] =
    [("icmp", 1), ("tcp", 6), ("udp", 17), ("gre", 47), ("esp", 50), ("icmpv6", 58), ("sctp", 132)];

/// Levenshtein's distance; the names are short.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().take(40).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let best = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

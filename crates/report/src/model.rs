//! The form of a report. Times are RFC 3339, durations microseconds; what was not measured is absent or null and never 0.
#![expect(missing_docs, reason = "a field that has no comment is said by its name; the schema shows both")]

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Version of the form; grows when a field changes its meaning or goes.
pub const VERSION: u32 = 2;

/// What an analysis found in a capture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// 2
    pub version: u32,
    pub capture: Capture,
    pub totals: Totals,
    /// Absent where nothing was measured that it could be made of: `not_judged` says why
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Parts of the score that cannot be judged, with the reason; where there is no score, all of them
    #[serde(default)]
    pub not_judged: Vec<NotJudged>,
    /// The most harmful first
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// Findings beyond those that are listed
    #[serde(default)]
    pub findings_left_out: u64,
    /// Absent where the capture has no duration
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    pub links: Vec<OnLink>,
    /// IP packets by protocol, those inside tunnels too
    pub protocols: Vec<OfProtocol>,
    /// Flows by the protocol that was seen in them, else by the responder's port
    #[serde(default)]
    pub services: Vec<OfService>,
    pub flows: FlowCounts,
    /// Addresses by the bytes that they sent and received, without what is inside tunnels
    pub talkers: Vec<Talker>,
    /// Pairs of addresses by their bytes
    #[serde(default)]
    pub conversations: Vec<Conversation>,
    /// Flows of which only one direction was captured, though their protocol has two: those whose other direction was there for certain
    /// come first, then by bytes
    #[serde(default)]
    pub one_way_flows: Vec<OneWayFlow>,
    /// Absent where there was no TCP
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    pub dns: Dns,
    pub tls: Tls,
    /// Absent where there was no HTTP in clear text
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<Http>,
    /// Streams of UDP whose jitter was measured, the worst first
    #[serde(default)]
    pub streams: Vec<Stream>,
    /// ICMP and `ICMPv6` errors by what they say
    #[serde(default)]
    pub icmp_errors: Vec<NameCount>,
    /// Conversations whose flows begin at regular times, harmless or not, those with the most flows first
    #[serde(default)]
    pub rhythms: Vec<Rhythm>,
    /// Where the file broke, if it did: nothing behind it was read
    pub damage: Option<Damage>,
    /// Packets that made no flow, or not all that they could
    pub not_analysed: Vec<NotAnalysed>,
    /// What was given up because a limit was reached; empty = nothing
    #[serde(default)]
    pub given_up: Vec<GivenUp>,
    /// Thresholds of findings that differ from the defaults
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub thresholds: serde_json::Map<String, serde_json::Value>,
}

/// The file itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Capture {
    /// Absent for a file that was not uploaded
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_id: Option<Uuid>,
    /// As uploaded
    pub name: String,
    /// Bytes of the file
    pub size_bytes: u64,
    /// `pcap` or `pcapng`
    pub format: String,
    /// `gzip`, `zstd`, ..., or empty
    pub compression: String,
    /// Names of its interfaces; empty = not given
    pub interfaces: Vec<String>,
    /// The program that wrote it, as the file says; empty = not said
    #[serde(default)]
    pub application: String,
    /// The operating system that it was captured on, as the file says; empty = not said
    #[serde(default)]
    pub os: String,
    /// Packets that the capture did not take, as the file says; absent = it does not say
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped_packets: Option<u64>,
    /// Blocks of secrets that decrypt what was captured; they are never shown
    #[serde(default)]
    pub decryption_secrets: u64,
    /// Names that the file gives to addresses
    #[serde(default)]
    pub address_names: u64,
    /// The first remarks that somebody left in the file
    #[serde(default)]
    pub comments: Vec<Comment>,
    /// Remarks in all
    #[serde(default)]
    pub comment_count: u64,
}

/// A remark that somebody left in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Comment {
    /// Number of the packet; absent = of the file, or of an interface
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<u64>,
    pub text: String,
}

/// All packets together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    pub packets: u64,
    /// On the wire, with link headers
    pub bytes: u64,
    pub first_packet: Option<String>,
    pub last_packet: Option<String>,
    pub duration_us: u64,
    /// Packets of which the capture kept less than was on the wire
    pub cut_packets: u64,
    pub clock_steps_back: u64,
    /// The largest of these steps
    #[serde(default)]
    pub largest_step_back_us: u64,
    /// Packets without a time; they are taken to have come with the packet before them
    #[serde(default)]
    pub untimed_packets: u64,
    /// Packets that the capture has more than once, without the first time: from a mirror port, or from several interfaces
    #[serde(default)]
    pub duplicate_packets: u64,
    /// Of these, seen on the other side of a router: with another hop limit
    #[serde(default)]
    pub routed_duplicates: u64,
    /// Packets that came in one frame of 802.11 with others before them; the frame is one of `packets`
    #[serde(default)]
    pub aggregated_packets: u64,
    pub fragments: u64,
}

/// How well the network did, from 0 to 100.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// 100 = nothing to complain of
    pub score: f64,
    /// How the score follows from the parts
    pub formula: String,
    /// Those that could be measured
    pub parts: Vec<HealthPart>,
    /// Parts that could not be measured, and are left out of the mean
    pub not_measured: Vec<String>,
    /// The best class of ITU-T Y.1541 whose bounds the measured values keep, with what it rests on; absent where neither delay nor loss
    /// was measured
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y1541: Option<Y1541>,
}

/// A part of the score that cannot be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotJudged {
    /// As in `parts` of the health
    pub part: String,
    /// For people
    pub reason: String,
}

/// One part of the score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthPart {
    /// `loss`, `retransmission`, `rtt`, `dns`, `jitter`, `anomalies`
    pub name: String,
    /// What was measured
    pub value: f64,
    /// `%`, `ms`, or empty
    pub unit: String,
    /// 1 = as good as it gets
    pub score: f64,
    /// Its part of the mean
    pub weight: f64,
    /// How its score follows from its value
    pub rule: String,
}

/// A quality-of-service class of ITU-T Y.1541.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Y1541 {
    /// 0 to 5; 5 = no bounds are kept
    pub class: u8,
    /// The values that decided, and what stands for them
    pub basis: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing
    Info,
    /// Something does not work as it should, or may be an attack
    Warning,
    /// Users notice, or an attack is under way
    Critical,
}

impl Severity {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    pub kind: String,
    pub severity: Severity,
    /// 0 = a guess, 1 = certain
    pub confidence: f64,
    /// Of the first packet that belongs to it
    pub time: Option<String>,
    /// Of the last one
    #[serde(default)]
    pub end_time: Option<String>,
    /// One sentence
    pub summary: String,
    /// What to look at next
    pub next: String,
    /// Some of the flows that show it; text, because numbers of JSON are exact only up to 2^53
    pub flow_ids: Vec<String>,
    /// Some of the packets that show it, numbered from 1 as Wireshark numbers frames
    pub packets: Vec<u64>,
    #[serde(default)]
    pub src_ip: Option<String>,
    #[serde(default)]
    pub dst_ip: Option<String>,
    #[serde(default)]
    pub dst_port: Option<u16>,
    /// Numbers and names that show it
    #[schema(value_type = Object)]
    pub evidence: serde_json::Map<String, serde_json::Value>,
}

/// The traffic over time, in steps of one length.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Timeline {
    /// Of the first step
    pub start: String,
    pub step_us: u64,
    /// Packets in each step
    pub packets: Vec<u64>,
    /// Bytes on the wire in each step
    pub bytes: Vec<u64>,
    /// TCP segments that were sent again, in each step; absent = not counted over time
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmits: Option<Vec<u64>>,
}

/// Frames of one link type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OnLink {
    pub link_type: u16,
    pub packets: u64,
    pub bytes: u64,
}

/// IP packets of one protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OfProtocol {
    /// IANA number
    pub protocol: u8,
    pub packets: u64,
    pub bytes: u64,
}

/// Flows of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OfService {
    /// `tls`, `dns`, ..., or `tcp/8080`
    pub service: String,
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
}

/// The flow table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowCounts {
    pub flows: u64,
    /// Rows of the flows
    pub records: u64,
    /// Flows that ended early because the table was full
    pub evicted: u64,
    pub packets_in_tunnels: u64,
    /// TCP flows of which only one direction was captured; absent = not counted
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way: Option<u64>,
    /// Flows of UDP of which only one direction was captured, though their protocol answers; absent = not counted
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_way_udp: Option<u64>,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Talker {
    pub ip: String,
    pub packets: u64,
    pub bytes: u64,
}

/// Two addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Conversation {
    pub src_ip: String,
    pub dst_ip: String,
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
}

/// A flow of which only one direction was captured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OneWayFlow {
    pub flow_id: String,
    /// Who sent what was captured
    pub src: String,
    pub dst: String,
    /// `tls`, `dns`, ..., or `tcp/8080`
    pub service: String,
    /// `requests`: what the initiator sent; `answers`: what the responder did
    pub seen: String,
    /// The other direction was there, for this one acknowledges or answers it; false: perhaps nobody answered
    pub certain: bool,
    pub packets: u64,
    pub bytes: u64,
}

/// How values are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Spread {
    /// Values that it is made of
    pub count: u64,
    pub median_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// TCP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tcp {
    pub flows: u64,
    pub packets: u64,
    /// Packets of connections of which the capture kept no whole header; they are in none of the counts below
    #[serde(default)]
    pub cut_packets: u64,
    /// Flows whose handshake was seen whole
    pub handshakes: u64,
    /// Flows that ended with a reset
    pub resets: u64,
    /// Flows with a SYN and no answer
    pub unanswered: u64,
    pub syn_retransmits: u64,
    pub retransmits: u64,
    /// Of these: after duplicate acknowledgements
    pub fast_retransmits: u64,
    /// Of these: of what had already arrived
    pub spurious_retransmits: u64,
    pub out_of_order: u64,
    pub duplicate_acks: u64,
    /// Acknowledged, but not captured
    pub lost_segments: u64,
    pub zero_windows: u64,
    /// How long windows were zero, all together
    #[serde(default)]
    pub zero_window_us: u64,
    /// Segments that filled the window of the other side
    #[serde(default)]
    pub window_full: u64,
    #[serde(default)]
    pub keep_alives: u64,
    /// Segments that the capture has more than once; they are in none of the counts above
    #[serde(default)]
    pub duplicate_segments: u64,
    #[serde(default)]
    pub states: TcpStates,
    /// Long silences of open connections by what they waited for, the most harmful first
    #[serde(default)]
    pub silences: Vec<Silence>,
    /// Waits before the first, second, ... SYN that was sent again
    #[serde(default)]
    pub syn_backoff: Vec<Spread>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Spread>,
    /// The part of the handshake that is the path to the responder, and its answer
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syn_ack: Option<Spread>,
    /// The other part: the path to the initiator and back
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_ack: Option<Spread>,
    /// Round trips between the place of capture and responders
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_to_dst: Option<Spread>,
    /// Round trips between the place of capture and initiators
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_to_src: Option<Spread>,
    /// From the first data of initiators to the first data of responders
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Spread>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt: Option<Spread>,
    /// Time that responders took to answer
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<Spread>,
    /// Flows with the most trouble first: retransmitted, out of order, zero windows
    pub worst: Vec<WorstFlow>,
}

/// How connections stood at their end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TcpStates {
    /// Reset before either side had sent data
    pub reset_before_data: u64,
    /// Reset after that
    pub reset_after_data: u64,
    /// Of both, those that the initiator reset
    pub reset_by_initiator: u64,
    /// The SYN was answered, and the answer never acknowledged
    pub half_open: u64,
    /// One side said that it is done, the other never did
    pub half_closed: u64,
    /// Open, and silent until they were given up
    pub idle: u64,
    /// Open, with nothing but keep-alives at the end
    pub zombie: u64,
}

/// Silences of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Silence {
    /// `acknowledgement` (bytes were under way), `window` (the receiver took nothing), `message` (the rest of one whose length is known),
    /// `transfer` (more of one), `answer` (the responder was asked), `nothing` (at rest)
    pub waited_for: String,
    pub count: u64,
    pub total_us: u64,
    pub longest_us: u64,
    /// Number of the packet that ended the longest one
    pub packet: u64,
    /// Of the longest one
    pub flow_id: String,
    pub src: String,
    pub dst: String,
}

/// A flow that stands out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorstFlow {
    pub flow_id: String,
    pub src: String,
    pub dst: String,
    /// Learned from DNS or TLS; empty = not known
    pub name: String,
    pub packets: u64,
    pub bytes: u64,
    pub retransmits: u64,
    pub out_of_order: u64,
    pub zero_windows: u64,
    pub lost_segments: u64,
    pub rtt_us: Option<u64>,
}

/// DNS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Dns {
    pub queries: u64,
    pub answers: u64,
    /// Queries without an answer
    pub unanswered: u64,
    /// Answers without a query
    pub unasked: u64,
    pub malformed: u64,
    pub unreadable: u64,
    /// Queries that were sent again; absent = not counted
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u64>,
    /// Answers by response code
    pub rcodes: Vec<CodeCount>,
    pub distinct_names: usize,
    /// Messages by the name that they are about
    pub names: Vec<NameCount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Spread>,
    /// By registered domain, the most asked first
    #[serde(default)]
    pub domains: Vec<Domain>,
    /// By server, the most asked first
    #[serde(default)]
    pub servers: Vec<DnsServer>,
}

/// Names below one domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Domain {
    pub domain: String,
    pub queries: u64,
    /// Answered with an error
    pub failed: u64,
    pub unanswered: u64,
    pub median_us: Option<u64>,
    pub p95_us: Option<u64>,
}

/// A server that was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DnsServer {
    pub ip: String,
    pub queries: u64,
    pub failed: u64,
    pub unanswered: u64,
    pub median_us: Option<u64>,
    pub p95_us: Option<u64>,
}

/// TLS and QUIC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tls {
    pub client_hellos: u64,
    /// Highest version offered, as on the wire
    pub versions: Vec<NameCount>,
    /// Chosen by the server
    #[serde(default)]
    pub chosen_versions: Vec<NameCount>,
    #[serde(default)]
    pub ciphers: Vec<NameCount>,
    #[serde(default)]
    pub alerts: Vec<NameCount>,
    /// Fingerprints of clients
    #[serde(default)]
    pub ja4: Vec<NameCount>,
    pub distinct_names: usize,
    /// Servers that were named
    pub names: Vec<NameCount>,
    /// Certificates of servers, those that expire first
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    pub unfollowed_streams: u64,
}

/// A server's certificate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    pub subject: String,
    pub issuer: String,
    pub not_after: Option<String>,
    /// Server that sent it
    pub server: String,
    /// Expired when the packet was captured
    pub expired: bool,
}

/// HTTP in clear text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Http {
    pub requests: u64,
    pub unanswered: u64,
    pub methods: Vec<NameCount>,
    pub statuses: Vec<CodeCount>,
    /// Servers that were named
    pub hosts: Vec<NameCount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Spread>,
}

/// A stream of UDP.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stream {
    pub flow_id: String,
    pub src: String,
    pub dst: String,
    pub packets: u64,
    pub bytes: u64,
    /// RFC 3550, of the worse direction
    pub jitter_us: u64,
    /// Delay variation between consecutive packets (RFC 3393), of the worse direction and minute: median, 95th and 99th percentile
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_variation_us: Option<[u64; 3]>,
    /// Packets that did not come, by their numbers
    #[serde(default)]
    pub lost: u64,
    /// Packets that came behind later ones
    #[serde(default)]
    pub reordered: u64,
}

/// A conversation with a rhythm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rhythm {
    pub src_ip: String,
    pub dst_ip: String,
    pub dst_port: u16,
    /// IANA number
    pub protocol: u8,
    pub flows: u64,
    /// Median time from the start of one flow to the start of the next
    pub interval_s: f64,
    /// Interquartile range of these times, of their median
    pub jitter_percent: f64,
}

/// How often a code was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CodeCount {
    pub value: u16,
    pub count: u64,
}

/// How often a name was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NameCount {
    pub value: String,
    pub count: u64,
}

/// Where a file broke.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Damage {
    /// Packets before it
    pub packets: u64,
    /// Where in the decompressed file
    pub offset: u64,
    pub reason: String,
}

/// Packets that were not looked into as far as others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NotAnalysed {
    pub reason: String,
    /// `frame`: the whole frame made no flow; `tunnel`: what is inside made none, its carrier did; `fragment`: counted without ports
    pub within: String,
    pub packets: u64,
}

/// Something that was given up at a limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GivenUp {
    /// What, for people
    pub what: String,
    pub count: u64,
    /// What it means for the report
    pub meaning: String,
}

-- More about flows and exchanges. The conventions are those of 001_initial.sql.

ALTER TABLE flows
    ADD COLUMN IF NOT EXISTS interfaces              Array(LowCardinality(String)) COMMENT 'the other interfaces of the host that saw the same packets' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tunnel_src_ip           IPv6 COMMENT 'ends of the outermost tunnel; :: = none' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tunnel_dst_ip           IPv6 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS sampling                UInt32 DEFAULT 1 COMMENT 'one flow in so many was looked at, and the sums are scaled by it; 1 = all' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS src_pid                 UInt32 COMMENT '0 = not known' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS dst_pid                 UInt32 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS src_executable          LowCardinality(String),
    ADD COLUMN IF NOT EXISTS dst_executable          LowCardinality(String),
    ADD COLUMN IF NOT EXISTS syn_retransmits         Nullable(UInt64) COMMENT 'SYN of src sent again' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_rtt_us               Nullable(UInt32) COMMENT 'median round trip from the place of capture to dst' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_rtt_us               Nullable(UInt32) COMMENT 'median round trip from the place of capture to src' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS first_byte_us           Nullable(UInt32) COMMENT 'from the first payload of src to the first payload of dst' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS response_us             Nullable(UInt32) COMMENT 'median time that dst took to answer' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_duplicate_acks       Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_duplicate_acks       Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_lost_segments        Nullable(UInt64) COMMENT 'gaps that were acknowledged, but not captured' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_lost_segments        Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_fast_retransmits     Nullable(UInt64) COMMENT 'of tx_retransmits: after duplicate acknowledgements' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_fast_retransmits     Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_spurious_retransmits Nullable(UInt64) COMMENT 'of tx_retransmits: of what had already arrived' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_spurious_retransmits Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_jitter_us            Nullable(UInt32) COMMENT 'interarrival jitter (RFC 3550), UDP only' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_jitter_us            Nullable(UInt32) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS syn_ack_us              Nullable(UInt32) COMMENT 'from SYN to SYN+ACK: the part of handshake_us that is the path to dst' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_max_in_flight        Nullable(UInt32) COMMENT 'most bytes under way at one time' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_max_in_flight        Nullable(UInt32) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_zero_window_us       Nullable(UInt64) COMMENT 'how long src announced that it takes nothing' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_zero_window_us       Nullable(UInt64) COMMENT 'how long dst did' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_window_full          Nullable(UInt64) COMMENT 'segments of src that filled the window of dst' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_window_full          Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_keep_alives          Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_keep_alives          Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS src_nat_ip              IPv6 COMMENT 'what src is on its own side of the address translation of the host, as conntrack says; :: = not translated' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS src_nat_port            UInt16 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS dst_nat_ip              IPv6 COMMENT 'the same of dst' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS dst_nat_port            UInt16 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS reset_by                Enum8('' = 0, 'src' = 1, 'dst' = 2, 'both' = 3) COMMENT 'which end sent a TCP reset in this interval, as it passed',
    ADD COLUMN IF NOT EXISTS reset_confirmed         Bool COMMENT 'a TCP of the host says that it has sent or taken the reset',
    ADD COLUMN IF NOT EXISTS reset_reason            LowCardinality(String) COMMENT 'why the TCP of the host has sent it; empty = not known',
    ADD COLUMN IF NOT EXISTS tx_delay_variation_us     Nullable(UInt32) COMMENT 'of RTP (RFC 3393), between consecutive packets: median' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_delay_variation_us     Nullable(UInt32) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_delay_variation_p95_us Nullable(UInt32) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_delay_variation_p95_us Nullable(UInt32) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_delay_variation_p99_us Nullable(UInt32) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_delay_variation_p99_us Nullable(UInt32) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_rtp_lost               Nullable(UInt64) COMMENT 'packets of RTP that did not come' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_rtp_lost               Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS tx_rtp_reordered          Nullable(UInt64) COMMENT 'packets of RTP that came behind later ones' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS rx_rtp_reordered          Nullable(UInt64) CODEC(ZSTD(1))
;
ALTER TABLE dns
    ADD COLUMN IF NOT EXISTS repeats    UInt32 COMMENT 'times that the client had sent the same query before, while it waited' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS src_nat_ip IPv6 COMMENT 'as in flows' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS dst_nat_ip IPv6 CODEC(ZSTD(1))
;
ALTER TABLE tls
    ADD COLUMN IF NOT EXISTS protocol       UInt8 COMMENT 'what carried it: 6 = TLS, 17 = QUIC or DTLS',
    ADD COLUMN IF NOT EXISTS chosen_version LowCardinality(String) COMMENT 'by the server; empty = its answer was not seen',
    ADD COLUMN IF NOT EXISTS cipher         UInt16 COMMENT 'chosen by the server, IANA number; 0 = its answer was not seen' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS chosen_alpn    LowCardinality(String),
    ADD COLUMN IF NOT EXISTS subject        String COMMENT 'of the server''s certificate, where it is not encrypted' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS issuer         String CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS not_before     Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS not_after      Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS alert          UInt16 COMMENT 'first alert that was not encrypted: level * 256 + description; 0 = none' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS src_nat_ip     IPv6 COMMENT 'as in flows' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS dst_nat_ip     IPv6 CODEC(ZSTD(1))
;
ALTER TABLE http
    ADD COLUMN IF NOT EXISTS src_port   UInt16 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS dst_port   UInt16 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS version    LowCardinality(String) COMMENT '1.0, 1.1, 2',
    ADD COLUMN IF NOT EXISTS src_nat_ip IPv6 COMMENT 'as in flows' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS dst_nat_ip IPv6 CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS container  LowCardinality(String)
;
ALTER TABLE container_stats
    ADD COLUMN IF NOT EXISTS tier                    LowCardinality(String) COMMENT 'who counted: api, cri, cgroup',
    ADD COLUMN IF NOT EXISTS cpu_periods             Nullable(UInt64) COMMENT 'of the CPU quota; cumulative, as the next two' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS cpu_throttled_periods   Nullable(UInt64) COMMENT 'in which the quota was used up' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS cpu_throttled_ns        Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS memory_swap_bytes       Nullable(UInt64) CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS memory_pressure_some_us Nullable(UInt64) COMMENT 'time in which some of its processes waited for memory; cumulative' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS memory_pressure_full_us Nullable(UInt64) COMMENT 'time in which all of them did; cumulative' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS restarts                Nullable(UInt64) COMMENT 'how often the runtime started it again by itself' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS interfaces              Array(Tuple(name String, rx_bytes UInt64, tx_bytes UInt64, rx_packets UInt64, tx_packets UInt64, rx_errors UInt64, tx_errors UInt64, rx_dropped UInt64, tx_dropped UInt64)) COMMENT 'what network_* is the sum of' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS devices                 Array(Tuple(major UInt32, minor UInt32, read_bytes UInt64, write_bytes UInt64, read_operations UInt64, write_operations UInt64)) COMMENT 'what block_* is the sum of' CODEC(ZSTD(1))
;
ALTER TABLE container_events
    ADD COLUMN IF NOT EXISTS tier LowCardinality(String) COMMENT 'who told: api, cri, cgroup'
;
ALTER TABLE containers
    ADD COLUMN IF NOT EXISTS tier     LowCardinality(String) COMMENT 'who told: api, cri, cgroup',
    ADD COLUMN IF NOT EXISTS restarts Nullable(UInt64) COMMENT 'how often the runtime started it again by itself' CODEC(ZSTD(1))
;
-- What became of packets that came to the hooks of a live capture: seen = accounted + ignored + lost.
CREATE TABLE IF NOT EXISTS capture_ledger
(
    start_time  DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    end_time    DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    recorded_at DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_sequence UInt64 COMMENT 'position of the batch in the stream of records' CODEC(T64, ZSTD(1)),
    host        LowCardinality(String),
    interface   LowCardinality(String) COMMENT 'empty = it cannot be told by interface',
    outcome     Enum8('unknown' = 0, 'seen' = 1, 'accounted' = 2, 'ignored' = 3, 'lost' = 4, 'unpublished' = 5, 'unseen' = 6),
    reason      LowCardinality(String) COMMENT 'of what is ignored or lost',
    packets     UInt64 COMMENT 'packets on the wire' CODEC(T64, ZSTD(1)),
    bytes       UInt64 COMMENT 'IP bytes; of packets that are not IP all bytes behind the link-layer header' CODEC(T64, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(recorded_at)
ORDER BY (host, interface, outcome, reason, start_time)
SETTINGS non_replicated_deduplication_window = 10000
;
-- Who had packets recorded, of which host, and what came of it.
CREATE TABLE IF NOT EXISTS audit
(
    time            DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    recorded_at     DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_sequence UInt64 COMMENT 'position of the batch in the stream of records' CODEC(T64, ZSTD(1)),
    action          LowCardinality(String) COMMENT 'live_capture',
    outcome         LowCardinality(String) COMMENT 'requested, refused, recorded, cancelled, deleted, failed',
    capture_id      UUID CODEC(ZSTD(1)),
    client          String COMMENT 'address that the request came from' CODEC(ZSTD(1)),
    host            LowCardinality(String) COMMENT 'that it is about',
    filter          String COMMENT 'empty = every packet' CODEC(ZSTD(1)),
    seconds         UInt32 COMMENT 'asked for' CODEC(ZSTD(1)),
    max_bytes       UInt64 COMMENT 'asked for' CODEC(ZSTD(1)),
    packets         UInt64 COMMENT 'recorded' CODEC(ZSTD(1)),
    bytes           UInt64 COMMENT 'of the recorded file' CODEC(ZSTD(1)),
    lost            UInt64 COMMENT 'packets for which the kernel had no room' CODEC(ZSTD(1)),
    detail          String COMMENT 'why' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(recorded_at)
ORDER BY (time, capture_id)
SETTINGS non_replicated_deduplication_window = 10000

-- The tables of Weir. Statements are separated by a line that holds only a semicolon.
--
-- Conventions: times UTC in microseconds; addresses IPv6 with IPv4 mapped; durations in microseconds; Nullable = may be not measured,
-- which differs from 0; an empty string = not known. recorded_at is when the bus stored the record: it partitions, because an uploaded
-- capture may claim any time from 1970 on and must not open a partition for each day of it.
--
-- Every table remembers the tokens of its last blocks (non_replicated_deduplication_window), so that the ingester can insert a block
-- again and it counts once. A kill between the commit of a part and the note of its token (or the other way round) is outside of what
-- that window covers: stream_sequence says which batches of a block a table has, whatever its tokens say.
--
-- Each statement can be run again (IF NOT EXISTS): a start that is killed in the middle is finished by the next one.

CREATE TABLE IF NOT EXISTS flows
(
    start_time         DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    end_time           DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    recorded_at        DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_sequence UInt64 COMMENT 'position of the batch in the stream of records' CODEC(T64, ZSTD(1)),
    source             Enum8('unknown' = 0, 'ebpf' = 1, 'pcap' = 2),
    host               LowCardinality(String),
    capture_id         UUID COMMENT 'zero for live traffic' CODEC(ZSTD(1)),
    interface          LowCardinality(String),
    flow_id            UInt64 COMMENT 'the same for all records of one flow' CODEC(ZSTD(1)),
    community_id       String COMMENT 'Community ID v1, seed 0; empty where the protocol has none' CODEC(ZSTD(1)),
    src_ip             IPv6 COMMENT 'initiator' CODEC(ZSTD(1)),
    dst_ip             IPv6 COMMENT 'responder' CODEC(ZSTD(1)),
    src_port           UInt16 COMMENT 'ICMP: type' CODEC(ZSTD(1)),
    dst_port           UInt16 COMMENT 'ICMP: code' CODEC(ZSTD(1)),
    protocol           UInt8 COMMENT 'IANA protocol number',
    vlan               UInt32 COMMENT 'outer id, inner id in bits 12 to 23; 0 = untagged' CODEC(T64, ZSTD(1)),
    tunnel             LowCardinality(String),
    tx_bytes           UInt64 COMMENT 'IP bytes from src to dst' CODEC(T64, ZSTD(1)),
    tx_packets         UInt64 COMMENT 'packets on the wire from src to dst' CODEC(T64, ZSTD(1)),
    rx_bytes           UInt64 CODEC(T64, ZSTD(1)),
    rx_packets         UInt64 CODEC(T64, ZSTD(1)),
    tcp_flags_tx       UInt8,
    tcp_flags_rx       UInt8,
    end_reason         Enum8('unknown' = 0, 'active' = 1, 'idle' = 2, 'fin' = 3, 'rst' = 4, 'evicted' = 5, 'eof' = 6),
    handshake_us       Nullable(UInt32) CODEC(ZSTD(1)),
    rtt_us             Nullable(UInt32) CODEC(ZSTD(1)),
    tx_retransmits     Nullable(UInt64) CODEC(ZSTD(1)),
    rx_retransmits     Nullable(UInt64) CODEC(ZSTD(1)),
    tx_out_of_order    Nullable(UInt64) CODEC(ZSTD(1)),
    rx_out_of_order    Nullable(UInt64) CODEC(ZSTD(1)),
    tx_zero_windows    Nullable(UInt64) CODEC(ZSTD(1)),
    rx_zero_windows    Nullable(UInt64) CODEC(ZSTD(1)),
    drops              Nullable(UInt64) CODEC(ZSTD(1)),
    drop_reason        LowCardinality(String),
    src_name           LowCardinality(String),
    dst_name           LowCardinality(String),
    src_container      LowCardinality(String),
    dst_container      LowCardinality(String),
    src_container_id   LowCardinality(String),
    dst_container_id   LowCardinality(String),
    src_image          LowCardinality(String),
    dst_image          LowCardinality(String),
    src_process        LowCardinality(String),
    dst_process        LowCardinality(String),
    app                LowCardinality(String),
    INDEX src_ip_index src_ip TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX dst_ip_index dst_ip TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX flow_id_index flow_id TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX capture_id_index capture_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(recorded_at)
PRIMARY KEY (toStartOfFiveMinutes(start_time), source)
ORDER BY (toStartOfFiveMinutes(start_time), source, host, protocol, dst_port, dst_ip, src_ip, start_time)
SETTINGS non_replicated_deduplication_window = 10000
;
CREATE TABLE IF NOT EXISTS dns
(
    time        DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    recorded_at DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_sequence UInt64 COMMENT 'position of the batch in the stream of records' CODEC(T64, ZSTD(1)),
    source      Enum8('unknown' = 0, 'ebpf' = 1, 'pcap' = 2),
    host        LowCardinality(String),
    capture_id  UUID CODEC(ZSTD(1)),
    flow_id     UInt64 CODEC(ZSTD(1)),
    src_ip      IPv6 COMMENT 'the client that asked' CODEC(ZSTD(1)),
    dst_ip      IPv6 COMMENT 'the server' CODEC(ZSTD(1)),
    src_port    UInt16 CODEC(ZSTD(1)),
    dst_port    UInt16 CODEC(ZSTD(1)),
    protocol    UInt8 COMMENT 'IANA protocol number: 6 or 17',
    query_id    UInt16 CODEC(ZSTD(1)),
    qname       String CODEC(ZSTD(1)),
    qtype       UInt16 COMMENT 'IANA RR type' CODEC(ZSTD(1)),
    has_query   Bool COMMENT 'false = an answer whose query was not seen',
    rcode       Nullable(UInt16) COMMENT 'NULL = no answer was seen' CODEC(ZSTD(1)),
    answers     Array(String) CODEC(ZSTD(1)),
    latency_us  Nullable(UInt32) CODEC(ZSTD(1)),
    container   LowCardinality(String),
    INDEX qname_index qname TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX capture_id_index capture_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(recorded_at)
PRIMARY KEY (toStartOfFiveMinutes(time), source)
ORDER BY (toStartOfFiveMinutes(time), source, host, qname, time)
SETTINGS non_replicated_deduplication_window = 10000
;
CREATE TABLE IF NOT EXISTS tls
(
    time        DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    recorded_at DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_sequence UInt64 COMMENT 'position of the batch in the stream of records' CODEC(T64, ZSTD(1)),
    source      Enum8('unknown' = 0, 'ebpf' = 1, 'pcap' = 2),
    host        LowCardinality(String),
    capture_id  UUID CODEC(ZSTD(1)),
    flow_id     UInt64 CODEC(ZSTD(1)),
    src_ip      IPv6 CODEC(ZSTD(1)),
    dst_ip      IPv6 CODEC(ZSTD(1)),
    src_port    UInt16 CODEC(ZSTD(1)),
    dst_port    UInt16 CODEC(ZSTD(1)),
    sni         String COMMENT 'empty = the hello names no server' CODEC(ZSTD(1)),
    alpn        Array(String) CODEC(ZSTD(1)),
    version     LowCardinality(String) COMMENT 'highest version offered: TLS 1.3, ...',
    ja4         String COMMENT 'empty = not computed' CODEC(ZSTD(1)),
    container   LowCardinality(String),
    INDEX sni_index sni TYPE bloom_filter(0.01) GRANULARITY 4,
    INDEX capture_id_index capture_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(recorded_at)
PRIMARY KEY (toStartOfFiveMinutes(time), source)
ORDER BY (toStartOfFiveMinutes(time), source, host, sni, time)
SETTINGS non_replicated_deduplication_window = 10000
;
CREATE TABLE IF NOT EXISTS http
(
    time        DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    recorded_at DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_sequence UInt64 COMMENT 'position of the batch in the stream of records' CODEC(T64, ZSTD(1)),
    source      Enum8('unknown' = 0, 'ebpf' = 1, 'pcap' = 2),
    host        LowCardinality(String),
    capture_id  UUID CODEC(ZSTD(1)),
    flow_id     UInt64 CODEC(ZSTD(1)),
    src_ip      IPv6 CODEC(ZSTD(1)),
    dst_ip      IPv6 CODEC(ZSTD(1)),
    method      LowCardinality(String),
    authority   String CODEC(ZSTD(1)),
    path        String CODEC(ZSTD(1)),
    status      Nullable(UInt16) CODEC(ZSTD(1)),
    latency_us  Nullable(UInt32) CODEC(ZSTD(1)),
    user_agent  String CODEC(ZSTD(1)),
    INDEX capture_id_index capture_id TYPE bloom_filter(0.01) GRANULARITY 4
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(recorded_at)
PRIMARY KEY (toStartOfFiveMinutes(time), source)
ORDER BY (toStartOfFiveMinutes(time), source, host, authority, time)
SETTINGS non_replicated_deduplication_window = 10000
;
CREATE TABLE IF NOT EXISTS container_stats
(
    time                DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    recorded_at         DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_sequence UInt64 COMMENT 'position of the batch in the stream of records' CODEC(T64, ZSTD(1)),
    host                LowCardinality(String),
    runtime             LowCardinality(String),
    container_id        LowCardinality(String),
    name                LowCardinality(String),
    image               LowCardinality(String),
    labels              Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    cpu_percent         Nullable(Float64) COMMENT '100 = one core, over the last interval; NULL in the first sample' CODEC(ZSTD(1)),
    cpu_usage_ns        Nullable(UInt64) COMMENT 'cumulative' CODEC(ZSTD(1)),
    memory_bytes        Nullable(UInt64) COMMENT 'working set: without inactive page cache' CODEC(ZSTD(1)),
    memory_limit_bytes  Nullable(UInt64) COMMENT 'NULL = no limit' CODEC(ZSTD(1)),
    network_rx_bytes    Nullable(UInt64) COMMENT 'cumulative since the container started, as the next five' CODEC(ZSTD(1)),
    network_tx_bytes    Nullable(UInt64) CODEC(ZSTD(1)),
    network_rx_packets  Nullable(UInt64) CODEC(ZSTD(1)),
    network_tx_packets  Nullable(UInt64) CODEC(ZSTD(1)),
    block_read_bytes    Nullable(UInt64) CODEC(ZSTD(1)),
    block_write_bytes   Nullable(UInt64) CODEC(ZSTD(1)),
    pids                Nullable(UInt64) CODEC(ZSTD(1)),
    missing             Map(LowCardinality(String), String) COMMENT 'why a column above is NULL' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(recorded_at)
ORDER BY (host, container_id, time)
SETTINGS non_replicated_deduplication_window = 10000
;
CREATE TABLE IF NOT EXISTS container_events
(
    time         DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    recorded_at  DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_sequence UInt64 COMMENT 'position of the batch in the stream of records' CODEC(T64, ZSTD(1)),
    host         LowCardinality(String),
    runtime      LowCardinality(String),
    container_id String CODEC(ZSTD(1)),
    name         LowCardinality(String),
    image        LowCardinality(String),
    action       LowCardinality(String),
    exit_code    Nullable(Int32) CODEC(ZSTD(1)),
    labels       Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    attributes   Map(LowCardinality(String), String) CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(recorded_at)
ORDER BY (host, time)
SETTINGS non_replicated_deduplication_window = 10000
;
-- One row per life. Statements about one life replace each other; the reader's profile merges them (final = 1).
CREATE TABLE IF NOT EXISTS containers
(
    host          LowCardinality(String),
    runtime       LowCardinality(String),
    container_id  String CODEC(ZSTD(1)),
    name          LowCardinality(String),
    image         LowCardinality(String),
    image_id      LowCardinality(String),
    labels        Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ip_addresses  Array(IPv6) CODEC(ZSTD(1)),
    networks      Array(Tuple(name String, network_id String, ip IPv6, mac_address String)) CODEC(ZSTD(1)),
    created_at    DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    started_at    DateTime64(6, 'UTC') COMMENT '1970 = never started' CODEC(ZSTD(1)),
    finished_at   Nullable(DateTime64(6, 'UTC')) COMMENT 'NULL = still running' CODEC(ZSTD(1)),
    exit_code     Nullable(Int32) CODEC(ZSTD(1)),
    oom_killed    Bool,
    health        LowCardinality(String) COMMENT 'empty = no health check',
    state         LowCardinality(String),
    pid           UInt32 CODEC(ZSTD(1)),
    host_network  Bool,
    cgroup_path   String CODEC(ZSTD(1)),
    cgroup_id     UInt64 CODEC(ZSTD(1)),
    observed_at   DateTime64(6, 'UTC') CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(observed_at)
ORDER BY (host, container_id, started_at)
SETTINGS non_replicated_deduplication_window = 10000
;
CREATE TABLE IF NOT EXISTS captures
(
    capture_id   UUID,
    name         String CODEC(ZSTD(1)),
    sha256       String COMMENT 'lower-case hexadecimal' CODEC(ZSTD(1)),
    size_bytes   UInt64 CODEC(ZSTD(1)),
    state        Enum8('unknown' = 0, 'queued' = 1, 'running' = 2, 'done' = 3, 'failed' = 4, 'expired' = 5),
    error        String COMMENT 'empty = none; one that is done may have one: where the file was damaged' CODEC(ZSTD(1)),
    packets      UInt64 CODEC(ZSTD(1)),
    bytes        UInt64 CODEC(ZSTD(1)),
    first_packet Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    last_packet  Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    uploaded_at  DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    finished_at  Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    expires_at   Nullable(DateTime64(6, 'UTC')) CODEC(ZSTD(1)),
    observed_at  DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    deleted      UInt8 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(observed_at, deleted)
ORDER BY capture_id
SETTINGS non_replicated_deduplication_window = 10000
;
CREATE TABLE IF NOT EXISTS findings
(
    capture_id  UUID CODEC(ZSTD(1)),
    time        DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    recorded_at DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream_sequence UInt64 COMMENT 'position of the batch in the stream of records' CODEC(T64, ZSTD(1)),
    host        LowCardinality(String),
    kind        LowCardinality(String),
    severity    Enum8('info' = 1, 'warning' = 2, 'critical' = 3),
    flow_id     UInt64 CODEC(ZSTD(1)),
    summary     String CODEC(ZSTD(1)),
    detail      JSON
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(recorded_at)
ORDER BY (time, kind)
SETTINGS non_replicated_deduplication_window = 10000
;
-- What came over the bus and is no batch that this version can read.
CREATE TABLE IF NOT EXISTS dead_letters
(
    recorded_at DateTime('UTC') CODEC(DoubleDelta, ZSTD(1)),
    stream      LowCardinality(String),
    sequence    UInt64 CODEC(Delta, ZSTD(1)),
    subject     LowCardinality(String),
    reason      String CODEC(ZSTD(1)),
    headers     Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    size_bytes  UInt64 CODEC(ZSTD(1)),
    payload     String COMMENT 'as it came, cut after 64 KiB' CODEC(ZSTD(3))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(recorded_at)
ORDER BY (recorded_at, stream, sequence)
SETTINGS non_replicated_deduplication_window = 10000

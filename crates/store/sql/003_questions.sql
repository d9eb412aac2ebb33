-- Who containers are in more detail, and the questions that one asks about them, as views. The conventions are those of 001_initial.sql.
--
-- A flow that the host translates has a record on each side of the translation where both sides are captured, and one where only the outer
-- side is. Sums take the records on the container's own side if there is one in their interval, else the others.
--
-- A view over flows has `time`, the beginning of five minutes: the sorting key of flows begins with it, so that a condition on it reads
-- only what it must.

ALTER TABLE containers
    ADD COLUMN IF NOT EXISTS image_digest       LowCardinality(String) COMMENT 'of the repository the image came from; empty = made here, or not known',
    ADD COLUMN IF NOT EXISTS compose_project    LowCardinality(String) DEFAULT if(mapContains(labels, 'com.docker.compose.project'), labels['com.docker.compose.project'], labels['io.podman.compose.project']),
    ADD COLUMN IF NOT EXISTS compose_service    LowCardinality(String) DEFAULT if(mapContains(labels, 'com.docker.compose.service'), labels['com.docker.compose.service'], labels['io.podman.compose.service']),
    ADD COLUMN IF NOT EXISTS pod                LowCardinality(String) DEFAULT labels['io.kubernetes.pod.name'],
    ADD COLUMN IF NOT EXISTS namespace          LowCardinality(String) DEFAULT labels['io.kubernetes.pod.namespace'],
    ADD COLUMN IF NOT EXISTS ports              Array(Tuple(host_ip IPv6, host_port UInt16, container_port UInt16, protocol UInt8)) COMMENT 'ports of the host that lead to it' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS host_addresses     Array(IPv6) COMMENT 'of the host, where a port is published on all of them' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS interfaces         Array(LowCardinality(String)) COMMENT 'the host''s ends of its veth pairs' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS cpu_limit          Nullable(Float64) COMMENT 'cores; NULL = none' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS memory_limit_bytes Nullable(UInt64) COMMENT 'NULL = none' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS pids_limit         Nullable(UInt64) COMMENT 'NULL = none' CODEC(ZSTD(1))
;
-- Followers ask for what came after a place in the stream.
ALTER TABLE container_events ADD INDEX IF NOT EXISTS recorded_at_index recorded_at TYPE minmax GRANULARITY 1
;
ALTER TABLE container_stats ADD INDEX IF NOT EXISTS recorded_at_index recorded_at TYPE minmax GRANULARITY 1
;
ALTER TABLE flows ADD INDEX IF NOT EXISTS recorded_at_index recorded_at TYPE minmax GRANULARITY 1
;
-- Who had which address from when until when. `scope` is the host; it is empty in a second row of those lives during which no other container
-- of any host had the address: a capture does not say where it was made.
CREATE VIEW IF NOT EXISTS container_addresses AS
WITH lives AS
(
    SELECT
        host,
        container_id,
        name,
        image,
        arrayJoin(ip_addresses) AS ip,
        started_at,
        ifNull(finished_at, toDateTime64('2299-12-31 23:59:59', 6, 'UTC')) AS until
    FROM containers FINAL
    WHERE started_at > fromUnixTimestamp64Micro(0, 'UTC') AND NOT host_network
)
SELECT host AS scope, host, ip, started_at, until, container_id, name, image
FROM lives
UNION ALL
SELECT '' AS scope, host, ip, started_at, until, container_id, name, image
FROM
(
    SELECT
        *,
        max(until) OVER (PARTITION BY ip ORDER BY started_at, host, container_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before_until,
        min(started_at) OVER (PARTITION BY ip ORDER BY started_at, host, container_id ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS after_started,
        count() OVER (PARTITION BY ip ORDER BY started_at, host, container_id ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS after_count
    FROM lives
)
WHERE before_until <= started_at AND (after_count = 0 OR after_started >= until)
;
-- Flows with the names of containers that came too late for the row, and of uploaded captures where only one container fits.
CREATE VIEW IF NOT EXISTS flows_named AS
SELECT f.* REPLACE
(
    if(f.src_container_id = '' AND s.until >= f.start_time, s.name, f.src_container) AS src_container,
    if(f.dst_container_id = '' AND d.until >= f.start_time, d.name, f.dst_container) AS dst_container,
    if(f.src_container_id = '' AND s.until >= f.start_time, s.container_id, f.src_container_id) AS src_container_id,
    if(f.dst_container_id = '' AND d.until >= f.start_time, d.container_id, f.dst_container_id) AS dst_container_id,
    if(f.src_container_id = '' AND s.until >= f.start_time, s.image, f.src_image) AS src_image,
    if(f.dst_container_id = '' AND d.until >= f.start_time, d.image, f.dst_image) AS dst_image
)
FROM flows AS f
ASOF LEFT JOIN (SELECT * EXCEPT host FROM container_addresses) AS s ON s.scope = if(f.source = 'pcap', '', f.host) AND s.ip = if(f.src_nat_ip = toIPv6('::'), f.src_ip, f.src_nat_ip) AND s.started_at <= f.end_time
ASOF LEFT JOIN (SELECT * EXCEPT host FROM container_addresses) AS d ON d.scope = if(f.source = 'pcap', '', f.host) AND d.ip = if(f.dst_nat_ip = toIPv6('::'), f.dst_ip, f.dst_nat_ip) AND d.started_at <= f.end_time
;
-- What containers did in the minute before the kernel killed for memory, or they ended.
CREATE VIEW IF NOT EXISTS flows_before_death AS
SELECT
    e.time AS event_time,
    e.action AS action,
    e.exit_code AS exit_code,
    e.host AS host,
    e.container_id AS container_id,
    e.name AS container,
    e.image AS image,
    greatest(0., (toUnixTimestamp64Micro(e.time) - toUnixTimestamp64Micro(f.end_time)) / 1000000) AS seconds_before,
    f.* EXCEPT (host, end_id)
FROM
(
    SELECT *, arrayJoin(arrayFilter(id -> id != '', arrayDistinct([toString(src_container_id), toString(dst_container_id)]))) AS end_id
    FROM flows_named
    WHERE source = 'ebpf'
) AS f
INNER JOIN (SELECT * FROM container_events WHERE action IN ('oom', 'die')) AS e ON e.host = f.host AND e.container_id = f.end_id
WHERE f.start_time <= e.time AND f.end_time >= e.time - INTERVAL 1 MINUTE
;
-- Destinations outside that a container first asked after its image changed. A destination is its name where one was learned.
CREATE VIEW IF NOT EXISTS new_destinations AS
WITH changes AS
(
    SELECT
        host,
        name,
        started_at AS changed_at,
        image,
        if(image_id = '', image, image_id) AS image_id,
        lagInFrame(toString(image)) OVER lives AS previous_image,
        lagInFrame(toString(if(image_id = '', image, image_id))) OVER lives AS previous_image_id
    FROM containers FINAL
    WHERE started_at > fromUnixTimestamp64Micro(0, 'UTC')
    WINDOW lives AS (PARTITION BY host, name ORDER BY started_at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
),
destinations AS
(
    SELECT
        host,
        src_container AS container,
        if(dst_name = '', replaceOne(toString(dst_ip), '::ffff:', ''), dst_name) AS destination,
        min(start_time) AS first_time,
        max(end_time) AS last_time,
        groupUniqArray(16)(dst_ip) AS ips,
        groupUniqArray(16)(dst_port) AS ports,
        if(countIf(own) > 0, uniqExactIf(flow_id, own), uniqExact(flow_id)) AS flows,
        if(countIf(own) > 0, sumIf(f.tx_bytes, own), sum(f.tx_bytes)) AS tx_bytes,
        if(countIf(own) > 0, sumIf(f.rx_bytes, own), sum(f.rx_bytes)) AS rx_bytes
    FROM (SELECT *, src_nat_ip = toIPv6('::') AS own FROM flows) AS f
    WHERE source = 'ebpf' AND src_container != '' AND dst_container_id = ''
        AND NOT (dst_ip BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:0.255.255.255'))
        AND NOT (dst_ip BETWEEN toIPv6('::ffff:10.0.0.0') AND toIPv6('::ffff:10.255.255.255'))
        AND NOT (dst_ip BETWEEN toIPv6('::ffff:100.64.0.0') AND toIPv6('::ffff:100.127.255.255'))
        AND NOT (dst_ip BETWEEN toIPv6('::ffff:127.0.0.0') AND toIPv6('::ffff:127.255.255.255'))
        AND NOT (dst_ip BETWEEN toIPv6('::ffff:169.254.0.0') AND toIPv6('::ffff:169.254.255.255'))
        AND NOT (dst_ip BETWEEN toIPv6('::ffff:172.16.0.0') AND toIPv6('::ffff:172.31.255.255'))
        AND NOT (dst_ip BETWEEN toIPv6('::ffff:192.168.0.0') AND toIPv6('::ffff:192.168.255.255'))
        AND NOT (dst_ip BETWEEN toIPv6('::ffff:224.0.0.0') AND toIPv6('::ffff:255.255.255.255'))
        AND NOT (dst_ip BETWEEN toIPv6('::') AND toIPv6('::1'))
        AND dst_ip < toIPv6('fc00::')
    GROUP BY host, container, destination
)
SELECT
    c.changed_at AS changed_at,
    d.host AS host,
    d.container AS container,
    c.previous_image AS previous_image,
    c.image AS image,
    c.previous_image_id AS previous_image_id,
    c.image_id AS image_id,
    d.destination AS destination,
    d.ips AS ips,
    d.ports AS ports,
    d.first_time AS first_time,
    d.last_time AS last_time,
    d.flows AS flows,
    d.tx_bytes AS tx_bytes,
    d.rx_bytes AS rx_bytes
FROM destinations AS d
ASOF INNER JOIN (SELECT * FROM changes WHERE previous_image_id != '' AND previous_image_id != image_id) AS c
    ON c.host = d.host AND c.name = d.container AND c.changed_at <= d.first_time
;
-- How well containers speak with each other over TCP.
CREATE VIEW IF NOT EXISTS container_pairs AS
SELECT
    toStartOfFiveMinutes(start_time) AS time,
    host,
    src_container,
    dst_container,
    src_container_id,
    dst_container_id,
    if(countIf(own) > 0, uniqExactIf(flow_id, own), uniqExact(flow_id)) AS flows,
    if(countIf(own) > 0, sumIf(f.tx_packets + f.rx_packets, own), sum(f.tx_packets + f.rx_packets)) AS packets,
    if(countIf(own) > 0, sumIf(f.tx_bytes + f.rx_bytes, own), sum(f.tx_bytes + f.rx_bytes)) AS bytes,
    if(countIf(own) > 0, sumIf(ifNull(f.tx_retransmits, 0), own), sum(ifNull(f.tx_retransmits, 0))) AS tx_retransmits,
    if(countIf(own) > 0, sumIf(ifNull(f.rx_retransmits, 0), own), sum(ifNull(f.rx_retransmits, 0))) AS rx_retransmits
FROM (SELECT *, src_nat_ip = toIPv6('::') AND dst_nat_ip = toIPv6('::') AS own FROM flows_named) AS f
WHERE source = 'ebpf' AND protocol = 6 AND src_container_id != '' AND dst_container_id != ''
GROUP BY time, host, src_container, dst_container, src_container_id, dst_container_id
;
-- Bytes of each compose project: with others, and within it.
CREATE VIEW IF NOT EXISTS project_traffic AS
WITH members AS
(
    SELECT host, container_id, anyLast(compose_project) AS project, groupUniqArrayArray(ip_addresses) AS ips
    FROM containers FINAL
    WHERE compose_project != ''
    GROUP BY host, container_id
)
SELECT
    hour,
    project,
    sum(if(own.4 > 0, own.1, other.1)) AS tx_bytes,
    sum(if(own.4 > 0, own.2, other.2)) AS rx_bytes,
    sum(if(own.4 > 0, own.3, other.3)) AS internal_bytes,
    uniqExactIfMerge(if(own.4 > 0, own_flows, other_flows)) AS flows
FROM
(
    SELECT
        toStartOfHour(toStartOfFiveMinutes(start_time)) AS hour,
        part.1 AS project,
        (sumIf(part.2, part.6), sumIf(part.3, part.6), sumIf(part.4, part.6), countIf(part.6)) AS own,
        (sumIf(part.2, NOT part.6), sumIf(part.3, NOT part.6), sumIf(part.4, NOT part.6)) AS other,
        uniqExactIfState(flow_id, part.6) AS own_flows,
        uniqExactIfState(flow_id, NOT part.6) AS other_flows
    FROM
    (
        SELECT
            f.start_time AS start_time,
            f.flow_id AS flow_id,
            f.host AS host,
            toString(s.project) AS src_project,
            toString(d.project) AS dst_project,
            empty(s.ips) OR has(s.ips, f.src_ip) AS src_own,
            empty(d.ips) OR has(d.ips, f.dst_ip) AS dst_own,
            -- Project, bytes to others, from others and within, container, and whether the record is of its own side.
            arrayJoin(arrayFilter(p -> p.1 != '', if(src_project = dst_project,
                [(src_project, toUInt64(0), toUInt64(0), f.tx_bytes + f.rx_bytes, toString(f.src_container_id), src_own AND dst_own)],
                [(src_project, f.tx_bytes, f.rx_bytes, toUInt64(0), toString(f.src_container_id), src_own),
                 (dst_project, f.rx_bytes, f.tx_bytes, toUInt64(0), toString(f.dst_container_id), dst_own)]))) AS part
        FROM flows_named AS f
        LEFT JOIN members AS s ON s.host = f.host AND s.container_id = f.src_container_id
        LEFT JOIN members AS d ON d.host = f.host AND d.container_id = f.dst_container_id
        WHERE f.source = 'ebpf'
    )
    GROUP BY hour, host, project, part.5
)
GROUP BY hour, project
;
-- Who talked to containers that are gone: while they were there, and to the address that they had and nobody has since (`after_end`).
CREATE VIEW IF NOT EXISTS gone_container_peers AS
WITH gone AS
(
    SELECT host, container_id, argMax(name, started_at) AS name, argMax(image, started_at) AS image, max(finished_at) AS finished_at
    FROM containers FINAL
    GROUP BY host, container_id
    HAVING argMax(state, started_at) = 'removed'
)
SELECT
    toStartOfFiveMinutes(p.start_time) AS time,
    g.host AS host,
    g.container_id AS container_id,
    g.name AS container,
    g.image AS image,
    g.finished_at AS finished_at,
    p.after_end AS after_end,
    p.peer_ip AS peer_ip,
    p.peer_container AS peer_container,
    p.peer_name AS peer_name,
    p.port AS port,
    p.protocol AS protocol,
    min(p.start_time) AS first_time,
    max(p.end_time) AS last_time,
    if(countIf(p.own) > 0, uniqExactIf(p.flow_id, p.own), uniqExact(p.flow_id)) AS flows,
    if(countIf(p.own) > 0, sumIf(p.bytes, p.own), sum(p.bytes)) AS bytes
FROM
(
    SELECT host, start_time, end_time, flow_id, dst_port AS port, protocol, tx_bytes + rx_bytes AS bytes,
        src_nat_ip = toIPv6('::') AND dst_nat_ip = toIPv6('::') AS own,
        arrayJoin([
            (toString(dst_container_id), src_ip, toString(src_container), toString(src_name)),
            (toString(src_container_id), dst_ip, toString(dst_container), toString(dst_name))]) AS sides,
        sides.1 AS container_id, sides.2 AS peer_ip, sides.3 AS peer_container, sides.4 AS peer_name, false AS after_end
    FROM flows_named
    WHERE source = 'ebpf' AND (src_container_id != '' OR dst_container_id != '')
    UNION ALL
    SELECT f.host AS host, f.start_time AS start_time, f.end_time AS end_time, f.flow_id AS flow_id, f.dst_port AS port, f.protocol AS protocol,
        f.tx_bytes + f.rx_bytes AS bytes, true AS own, ('', f.src_ip, '', '') AS sides, toString(a.container_id) AS container_id, f.src_ip AS peer_ip,
        toString(f.src_container) AS peer_container, toString(f.src_name) AS peer_name, true AS after_end
    FROM flows AS f
    ASOF INNER JOIN container_addresses AS a ON a.scope = f.host AND a.ip = f.dst_ip AND a.started_at <= f.end_time
    WHERE f.source = 'ebpf' AND f.dst_container_id = '' AND a.until < f.start_time
) AS p
INNER JOIN gone AS g ON g.host = p.host AND g.container_id = p.container_id
GROUP BY time, host, container_id, container, image, finished_at, after_end, peer_ip, peer_container, peer_name, port, protocol
;
-- What a container used beside what it said, in intervals of five minutes.
CREATE VIEW IF NOT EXISTS cpu_and_traffic AS
WITH addresses AS
(
    SELECT host, container_id, groupUniqArrayArray(ip_addresses) AS ips
    FROM containers FINAL
    GROUP BY host, container_id
)
SELECT
    toStartOfFiveMinutes(moment) AS time,
    host,
    container_id,
    anyLast(part_name) AS container,
    avgOrNull(part_cpu) AS cpu_percent,
    maxOrNull(part_cpu) AS cpu_percent_max,
    maxOrNull(part_memory) AS memory_bytes_max,
    if(countIf(part_own) > 0, sumIf(part_tx, part_own), sum(part_tx)) AS tx_bytes,
    if(countIf(part_own) > 0, sumIf(part_rx, part_own), sum(part_rx)) AS rx_bytes,
    if(countIf(part_own) > 0, countIf(part_own), countIf(part_is_flow)) AS records
FROM
(
    SELECT time AS moment, toString(host) AS host, toString(container_id) AS container_id, toString(name) AS part_name,
        cpu_percent AS part_cpu, memory_bytes AS part_memory, toUInt64(0) AS part_tx, toUInt64(0) AS part_rx, false AS part_is_flow, false AS part_own
    FROM container_stats
    UNION ALL
    SELECT o.start_time AS moment, toString(o.host) AS host, o.side.1 AS container_id, o.side.2 AS part_name,
        CAST(NULL, 'Nullable(Float64)') AS part_cpu, CAST(NULL, 'Nullable(UInt64)') AS part_memory, o.side.4 AS part_tx, o.side.5 AS part_rx,
        true AS part_is_flow, empty(a.ips) OR has(a.ips, o.side.3) AS part_own
    FROM
    (
        SELECT start_time, host,
            arrayJoin(arrayFilter(s -> s.1 != '', [
                (toString(src_container_id), toString(src_container), src_ip, tx_bytes, rx_bytes),
                (toString(dst_container_id), toString(dst_container), dst_ip, rx_bytes, tx_bytes)])) AS side
        FROM flows_named
        WHERE source = 'ebpf'
    ) AS o
    LEFT JOIN addresses AS a ON a.host = o.host AND a.container_id = o.side.1
)
GROUP BY time, host, container_id

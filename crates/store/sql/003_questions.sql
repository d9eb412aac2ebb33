-- Who containers are in more detail, and the questions that one asks about them, as views. The conventions are those of 001_initial.sql.
--
-- A flow that the host translates has a record on each side of the translation where both sides are captured, and one where only the outer
-- side is. Sums take the records on the container's own side if there is one in their interval, else the others. What the ends are on their
-- own side (`src_nat_ip`, `dst_nat_ip`, with the ports) is the same in the records of both sides: so they are known to be of one flow.
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
-- of any host had the address: a capture does not say where it was made. Of a network that a container has joined while it ran it has the
-- address from then on.
CREATE VIEW IF NOT EXISTS container_addresses AS
WITH joined AS
(
    SELECT host, container_id, attributes['network_id'] AS network_id, groupUniqArray(1000)(time) AS times
    FROM container_events
    WHERE action = 'network_connect'
    GROUP BY host, container_id, network_id
),
lives AS
(
    SELECT
        l.host AS host,
        l.container_id AS container_id,
        l.name AS name,
        l.image AS image,
        l.ip AS ip,
        -- What is told before the start, or with it, is how the container begins.
        arrayMax(arrayPushFront(arrayFilter(t -> t > l.began AND t <= l.until, j.times), l.began)) AS started_at,
        l.until AS until
    FROM
    (
        SELECT
            host,
            container_id,
            name,
            image,
            arrayJoin(ip_addresses) AS ip,
            started_at AS began,
            arrayFirst(network -> network.ip = ip, networks).network_id AS network_id,
            ifNull(finished_at, toDateTime64('2299-12-31 23:59:59', 6, 'UTC')) AS until
        FROM containers FINAL
        WHERE started_at > fromUnixTimestamp64Micro(0, 'UTC') AND NOT host_network
    ) AS l
    LEFT JOIN joined AS j ON j.host = l.host AND j.container_id = l.container_id AND j.network_id = l.network_id
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
records AS
(
    SELECT
        host,
        src_container AS container,
        if(dst_nat_ip = toIPv6('::'), dst_ip, dst_nat_ip) AS ip,
        toStartOfHour(start_time) AS hour,
        toString(dst_name) AS name,
        src_nat_ip = toIPv6('::') AS own,
        min(start_time) AS first_time,
        max(end_time) AS last_time,
        groupUniqArray(16)(if(dst_nat_ip = toIPv6('::'), dst_port, dst_nat_port)) AS ports,
        uniqExactState(flow_id) AS flow_ids,
        sum(f.tx_bytes) AS tx_bytes,
        sum(f.rx_bytes) AS rx_bytes
    FROM flows AS f
    WHERE source = 'ebpf' AND src_container != '' AND dst_container_id = ''
        AND NOT (ip BETWEEN toIPv6('::ffff:0.0.0.0') AND toIPv6('::ffff:0.255.255.255'))
        AND NOT (ip BETWEEN toIPv6('::ffff:10.0.0.0') AND toIPv6('::ffff:10.255.255.255'))
        AND NOT (ip BETWEEN toIPv6('::ffff:100.64.0.0') AND toIPv6('::ffff:100.127.255.255'))
        AND NOT (ip BETWEEN toIPv6('::ffff:127.0.0.0') AND toIPv6('::ffff:127.255.255.255'))
        AND NOT (ip BETWEEN toIPv6('::ffff:169.254.0.0') AND toIPv6('::ffff:169.254.255.255'))
        AND NOT (ip BETWEEN toIPv6('::ffff:172.16.0.0') AND toIPv6('::ffff:172.31.255.255'))
        AND NOT (ip BETWEEN toIPv6('::ffff:192.168.0.0') AND toIPv6('::ffff:192.168.255.255'))
        AND NOT (ip BETWEEN toIPv6('::ffff:224.0.0.0') AND toIPv6('::ffff:255.255.255.255'))
        AND NOT (ip BETWEEN toIPv6('::') AND toIPv6('::1'))
        AND ip < toIPv6('fc00::')
    GROUP BY host, container, ip, hour, name, own
),
destinations AS
(
    SELECT
        host,
        container,
        multiIf(name != '', name, any_name != '', any_name, replaceOne(toString(ip), '::ffff:', '')) AS destination,
        min(part_first) AS first_time,
        max(part_last) AS last_time,
        groupUniqArray(16)(ip) AS ips,
        groupUniqArrayArray(16)(part_ports) AS ports,
        uniqExactMerge(flow_ids) AS flows,
        sum(part_tx) AS tx_bytes,
        sum(part_rx) AS rx_bytes
    FROM
    (
        SELECT host, container, ip, name, own, flow_ids, first_time AS part_first, last_time AS part_last, ports AS part_ports,
            tx_bytes AS part_tx, rx_bytes AS part_rx, max(own) OVER hours AS best,
            -- The name may have been learned on the other side.
            max(name) OVER hours AS any_name
        FROM records
        WINDOW hours AS (PARTITION BY host, container, ip, hour)
    )
    WHERE own = best
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
-- How well containers speak with each other over TCP. The port of who began tells conversations apart, on both sides of a translation.
CREATE VIEW IF NOT EXISTS container_pairs AS
WITH addresses AS
(
    SELECT host, container_id, groupUniqArrayArray(ip_addresses) AS ips
    FROM containers FINAL
    GROUP BY host, container_id
)
SELECT
    time,
    host,
    src_container,
    dst_container,
    src_container_id,
    dst_container_id,
    sum(best.1) AS flows,
    sum(best.2) AS packets,
    sum(best.3) AS bytes,
    sum(best.4) AS tx_retransmits,
    sum(best.5) AS rx_retransmits
FROM
(
    SELECT time, host, src_container, dst_container, src_container_id, dst_container_id, port, argMin(sums, side) AS best
    FROM
    (
        SELECT
            toStartOfFiveMinutes(f.start_time) AS time,
            toString(f.host) AS host,
            toString(f.src_container) AS src_container,
            toString(f.dst_container) AS dst_container,
            toString(f.src_container_id) AS src_container_id,
            toString(f.dst_container_id) AS dst_container_id,
            if(f.src_nat_ip = toIPv6('::'), f.src_port, f.src_nat_port) AS port,
            -- How many of the ends are not on their own side; of two with one the side of who began.
            if(empty(s.ips) OR has(s.ips, f.src_ip), 0, 2) + if(empty(d.ips) OR has(d.ips, f.dst_ip), 0, 1) AS side,
            (
                uniqExact(f.flow_id),
                sum(f.tx_packets + f.rx_packets),
                sum(f.tx_bytes + f.rx_bytes),
                sum(ifNull(f.tx_retransmits, 0)),
                sum(ifNull(f.rx_retransmits, 0))
            ) AS sums
        FROM flows_named AS f
        LEFT JOIN addresses AS s ON s.host = f.host AND s.container_id = f.src_container_id
        LEFT JOIN addresses AS d ON d.host = f.host AND d.container_id = f.dst_container_id
        WHERE f.source = 'ebpf' AND f.protocol = 6 AND f.src_container_id != '' AND f.dst_container_id != ''
        GROUP BY time, host, src_container, dst_container, src_container_id, dst_container_id, port, side
    )
    GROUP BY time, host, src_container, dst_container, src_container_id, dst_container_id, port
)
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
    time,
    host,
    container_id,
    container,
    image,
    finished_at,
    after_end,
    peer_ip,
    peer_container,
    peer_name,
    port,
    protocol,
    min(best.1) AS first_time,
    max(best.2) AS last_time,
    sum(best.3) AS flows,
    sum(best.4) AS bytes
FROM
(
    SELECT time, host, container_id, container, image, finished_at, after_end, peer_ip, max(peer_container) AS peer_container,
        max(peer_name) AS peer_name, src_port, port, protocol, argMin(sums, side) AS best
    FROM
    (
        SELECT
            toStartOfFiveMinutes(p.start_time) AS time,
            g.host AS host,
            g.container_id AS container_id,
            g.name AS container,
            g.image AS image,
            g.finished_at AS finished_at,
            p.after_end AS after_end,
            p.peer_ip AS peer_ip,
            max(p.peer_container) AS peer_container,
            max(p.peer_name) AS peer_name,
            p.src_port AS src_port,
            p.port AS port,
            p.protocol AS protocol,
            p.side AS side,
            (min(p.start_time), max(p.end_time), uniqExact(p.flow_id), sum(p.bytes)) AS sums
        FROM
        (
            -- Both ends as they are on their own side; `side` = how many of them the record shows otherwise.
            SELECT host, start_time, end_time, flow_id, protocol, tx_bytes + rx_bytes AS bytes,
                if(src_nat_ip = toIPv6('::'), src_ip, src_nat_ip) AS src_is,
                if(dst_nat_ip = toIPv6('::'), dst_ip, dst_nat_ip) AS dst_is,
                if(src_nat_ip = toIPv6('::'), src_port, src_nat_port) AS src_port,
                if(dst_nat_ip = toIPv6('::'), dst_port, dst_nat_port) AS port,
                if(src_nat_ip = toIPv6('::'), 0, 2) + if(dst_nat_ip = toIPv6('::'), 0, 1) AS side,
                arrayJoin([
                    (toString(dst_container_id), src_is, toString(src_container), toString(src_name)),
                    (toString(src_container_id), dst_is, toString(dst_container), toString(dst_name))]) AS sides,
                sides.1 AS container_id, sides.2 AS peer_ip, sides.3 AS peer_container, sides.4 AS peer_name, false AS after_end
            FROM flows_named
            WHERE source = 'ebpf' AND (src_container_id != '' OR dst_container_id != '')
            UNION ALL
            SELECT f.host AS host, f.start_time AS start_time, f.end_time AS end_time, f.flow_id AS flow_id, f.protocol AS protocol,
                f.bytes AS bytes, f.src_is AS src_is, f.dst_is AS dst_is, f.real_src_port AS src_port, f.real_port AS port, f.side AS side,
                ('', f.src_is, '', '') AS sides, toString(a.container_id) AS container_id, f.src_is AS peer_ip,
                f.peer_container AS peer_container, f.peer_name AS peer_name, true AS after_end
            FROM
            (
                SELECT host, start_time, end_time, flow_id, protocol, tx_bytes + rx_bytes AS bytes,
                    if(src_nat_ip = toIPv6('::'), src_ip, src_nat_ip) AS src_is,
                    if(dst_nat_ip = toIPv6('::'), dst_ip, dst_nat_ip) AS dst_is,
                    if(src_nat_ip = toIPv6('::'), src_port, src_nat_port) AS real_src_port,
                    if(dst_nat_ip = toIPv6('::'), dst_port, dst_nat_port) AS real_port,
                    if(src_nat_ip = toIPv6('::'), 0, 2) + if(dst_nat_ip = toIPv6('::'), 0, 1) AS side,
                    toString(src_container) AS peer_container, toString(src_name) AS peer_name
                FROM flows_named
                WHERE source = 'ebpf' AND dst_container_id = ''
            ) AS f
            ASOF INNER JOIN container_addresses AS a ON a.scope = f.host AND a.ip = f.dst_is AND a.started_at <= f.end_time
            WHERE a.until < f.start_time
        ) AS p
        INNER JOIN gone AS g ON g.host = p.host AND g.container_id = p.container_id
        GROUP BY time, host, container_id, container, image, finished_at, after_end, peer_ip, src_port, port, protocol, side
    )
    GROUP BY time, host, container_id, container, image, finished_at, after_end, peer_ip, src_port, port, protocol
)
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

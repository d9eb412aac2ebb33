# Stand-ins for the official images of NATS and ClickHouse, for machines that reach no image registry: the same programs, laid out so
# that compose.yml cannot tell the difference. smoke.sh builds them under the official names in an engine of its own.

FROM debian:bookworm-slim AS tools
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget python3 \
    && rm -rf /var/lib/apt/lists/*

FROM tools AS nats
COPY nats-server /usr/local/bin/nats-server
ENTRYPOINT ["nats-server"]

FROM tools AS clickhouse
COPY libchdb.so /usr/lib/libchdb.so
COPY clickhouse-server /usr/bin/clickhouse-server
COPY clickhouse/ /etc/clickhouse-server/
RUN install -d -o 101 -g 101 /var/lib/clickhouse /var/log/clickhouse-server \
    && install -d /etc/clickhouse-server/config.d
ENTRYPOINT ["clickhouse-server", "--config-file=/etc/clickhouse-server/config.xml"]

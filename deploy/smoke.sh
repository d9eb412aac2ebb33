#!/bin/bash
# Runs deploy/compose.yml for real and looks whether it works: up, an upload, a query, three workers, down.
#
#   deploy/smoke.sh                                     # builds everything in containers
#   WEIR_PREBUILT=target/release deploy/smoke.sh        # takes programs that were built outside
#
# With a running Docker engine it uses that one and pulls the official images. Without one it starts its own, as root, under a temporary
# directory, and makes the images that it cannot pull: the base with debootstrap, NATS and ClickHouse as stand-ins out of the programs
# that `./dev setup` fetched. It says which it used. Nothing of it stays but the cache of downloads.
#
# Exit codes: 0 works, 1 does not, 77 skipped because something is missing here.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/weir
work=$(mktemp -d -t weir-smoke-XXXXXX)
name=weirsmk$$
dockerd_pid=
# How to run something where the engine publishes its ports.
inside=()

say() { echo "smoke: $*" >&2; }
skip() { say "skipped: $*"; exit 77; }
fail() { say "FAILED: $*"; exit 1; }
need() { command -v "$1" >/dev/null || skip "$1 is missing; $2"; }

compose() { docker compose --project-name "$name" --env-file "$work/env" --file "$here/compose.yml" "$@"; }

end() {
    local code=$?
    trap - EXIT INT TERM
    if [ "$code" != 0 ] && [ "$code" != 77 ] && [ -s "$work/env" ]; then
        say "the last lines of each service:"
        compose ps --all >&2 || true
        compose logs --tail 15 --no-color >&2 || true
    fi
    if [ -s "$work/env" ]; then
        compose down --volumes --timeout 10 >/dev/null 2>&1 || true
    fi
    stop_dockerd
    if [ -e "/run/netns/$name" ]; then ip netns delete "$name" || true; fi
    # What the engine leaves mounted; and a mount that stays must not be emptied.
    awk -v dir="$work/" 'index($2, dir) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount --lazy || true
    rm -rf --one-file-system "$work" || true
    exit "$code"
}
trap end EXIT
trap 'exit 1' INT TERM

# ---- an engine --------------------------------------------------------------------------------------------------------------------------

find_engine() {
    if docker info >/dev/null 2>&1; then
        say "using the running Docker engine"
        own_engine=no
        return
    fi
    own_engine=yes
    [ "$(id -u)" = 0 ] || skip "no Docker engine runs here, and only root can start one"
    need dockerd "install docker.io"
    need nsenter "install util-linux"
    need ip "install iproute2"
    export DOCKER_HOST=unix://$work/docker.sock WEIR_DOCKER_SOCKET=$work/docker.sock
    # To build it needs the network of the host, where it makes no bridge and no rules.
    start_dockerd --bridge none --iptables=false --ip6tables=false --ip-forward=false
    say "started a Docker engine of its own: $(docker version --format '{{.Server.Version}}')"
}

# The same engine in a network namespace of its own, where nobody else's rules are and its own harm nobody. Not by `ip netns exec`: that
# hides the cgroups.
move_engine() {
    stop_dockerd
    ip netns add "$name"
    ip -n "$name" link set lo up
    inside=(nsenter "--net=/run/netns/$name")
    start_dockerd
}

start_dockerd() {
    "${inside[@]}" dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/dockerd.pid" --host "$DOCKER_HOST" \
        "$@" >>"$work/dockerd.log" 2>&1 &
    dockerd_pid=$!
    until docker info >/dev/null 2>&1; do
        kill -0 "$dockerd_pid" 2>/dev/null || { tail -5 "$work/dockerd.log" >&2; fail "dockerd ended"; }
        sleep 0.2
    done
}

stop_dockerd() {
    if [ -n "$dockerd_pid" ]; then
        kill "$dockerd_pid" 2>/dev/null || true
        wait "$dockerd_pid" 2>/dev/null || true
        dockerd_pid=
    fi
}

# Where this machine takes Debian's packages from.
mirror() {
    need apt-get "run it on Debian"
    # shellcheck disable=SC2016 # the variable is apt's
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sed -n 's#/debian/*$#/debian#p' | sort -u | head -n 1
}

# Debian 12 has no current Compose; that of Debian 13 runs on it.
find_plugins() {
    if docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1; then
        return
    fi
    local plugins=$cache/docker-plugins apt=$work/apt
    if [ ! -x "$plugins/cli-plugins/docker-compose" ] || [ ! -x "$plugins/cli-plugins/docker-buildx" ]; then
        need apt-get "install Docker Compose 2.26 or later, and buildx"
        say "fetching Compose and buildx from Debian 13 (26 MB)"
        mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$plugins/cli-plugins"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) trixie main" >"$apt/sources.list"
        local options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
            -o Dir::Etc::preferencesparts=/dev/null -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root)
        apt-get "${options[@]}" update
        (cd "$apt" && apt-get "${options[@]}" download docker-compose docker-buildx)
        for package in "$apt"/*.deb; do dpkg-deb -x "$package" "$apt/unpacked"; done
        cp "$apt"/unpacked/usr/libexec/docker/cli-plugins/* "$plugins/cli-plugins/"
    fi
    export DOCKER_CONFIG=$plugins
}

# ---- images -----------------------------------------------------------------------------------------------------------------------------

image_of() { compose config --images | grep "$1" | head -1; }

# An image by its name, or the function that makes a stand-in for it.
image_or() {
    local image=$1 make=$2
    if docker image inspect "$image" >/dev/null 2>&1; then return; fi
    if timeout 120 docker pull --quiet "$image" >/dev/null 2>"$work/pull.log"; then
        say "image $image: pulled"
        return
    fi
    [ "$own_engine" = yes ] || fail "cannot pull $image: $(tail -1 "$work/pull.log")"
    "$make" "$image"
    say "image $image: a STAND-IN made here, for it cannot be pulled"
}

make_base() {
    local tar=$cache/debian-bookworm-slim.tar
    if [ ! -s "$tar" ]; then
        need debootstrap "install it"
        say "making a base image with debootstrap (2 minutes)"
        debootstrap --variant=minbase bookworm "$work/base" >"$work/debootstrap.log" 2>&1 \
            || { tail -5 "$work/debootstrap.log" >&2; fail "debootstrap"; }
        rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
        # The sources that the official image has.
        local site
        site=$(mirror)
        printf 'deb %s main\n' "$site bookworm" "$site bookworm-updates" \
            "${site%/debian}/debian-security bookworm-security" >"$work/base/etc/apt/sources.list"
        # Certificates that this machine trusts for itself, as behind a proxy that opens TLS.
        mkdir -p "$work/base/usr/local/share/ca-certificates"
        cp /usr/local/share/ca-certificates/*.crt "$work/base/usr/local/share/ca-certificates/" 2>/dev/null || true
        mkdir -p "$cache"
        tar -C "$work/base" -cf "$tar.part" . && mv "$tar.part" "$tar"
        rm -rf --one-file-system "$work/base"
    fi
    docker import "$tar" "$1" >/dev/null
}

standin() {
    docker buildx build --quiet --load --network host --file "$here/smoke/standins.Dockerfile" --target "$1" --tag "$2" "$work/standin" \
        >/dev/null
}

# The last of the files that exist.
newest() {
    local file=
    for file; do :; done
    if [ -e "$file" ]; then echo "$file"; fi
}

make_nats() {
    local program=${WEIR_NATS_SERVER:-$(command -v nats-server || newest "$cache"/nats-*/nats-server)}
    [ -x "$program" ] || skip "no nats-server for a stand-in; run ./dev setup"
    mkdir -p "$work/standin"
    cp "$program" "$work/standin/nats-server"
    standin nats "$1"
}

make_clickhouse() {
    local library
    library=$(newest "$cache"/chdb-*/libchdb.so)
    [ -n "$library" ] || skip "no libchdb.so for a stand-in; run ./dev setup"
    mkdir -p "$work/standin"
    cp "$library" "$here/smoke/clickhouse-server" "$work/standin/"
    cp -r "$here/smoke/clickhouse" "$work/standin/"
    chmod 755 "$work/standin/clickhouse-server"
    standin clickhouse "$1"
    rm -rf "$work/standin"
}

# ---- asking -----------------------------------------------------------------------------------------------------------------------------

free_port() {
    local port
    while port=$((20000 + RANDOM % 10000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

api() {
    local path=$1
    shift
    "${inside[@]}" curl --silent --show-error --fail-with-body --max-time 60 --header "Authorization: Bearer $WEIR_API_TOKEN" \
        "$@" "http://127.0.0.1:$WEIR_PORT$path"
}

sql() { api /api/v1/query --json "{\"sql\": \"$1\", \"format\": \"csv\"}" | tail -n +2; }

# Until the command prints what is expected; what it printed last, when it never does.
expect() {
    local wanted=$1 seconds=$2 got=
    shift 2
    for _ in $(seq "$seconds"); do
        got=$("$@" 2>&1) || true
        if [ "$got" = "$wanted" ]; then return; fi
        sleep 1
    done
    fail "expected '$wanted' of: $*; got: $got"
}

# A capture of $1 UDP packets of 32 IP bytes, 10.0.0.1:1000 to 10.0.0.2:$2.
make_capture() {
    local u32='\\x%02x\\x%02x\\x%02x\\x%02x' port
    port=$(printf '\\x%02x\\x%02x' $(($2 / 256)) $(($2 % 256)))
    printf '\xd4\xc3\xb2\xa1\x02\x00\x04\x00\0\0\0\0\0\0\0\0\xff\xff\0\0\x01\0\0\0'
    for second in $(seq "$1"); do
        # 2026-01-01 and so many seconds; 46 bytes.
        local time=$((1767225600 + second))
        # shellcheck disable=SC2059
        printf "$(printf "$u32" $((time & 255)) $((time >> 8 & 255)) $((time >> 16 & 255)) $((time >> 24 & 255)))"
        printf '\0\0\0\0\x2e\0\0\0\x2e\0\0\0'
        printf '\x02\0\0\0\0\x02\x02\0\0\0\0\x01\x08\0'
        printf '\x45\0\0\x20\0\0\0\0\x40\x11\x66\xcb\x0a\0\0\x01\x0a\0\0\x02'
        # shellcheck disable=SC2059
        printf "\x03\xe8$port\x00\x0c\x00\x00\x77\x65\x69\x72"
    done
}

# Uploads it and waits until its rows say what went in.
check_upload() {
    local packets=$1 port=$2 answer id
    make_capture "$packets" "$port" >"$work/capture.pcap"
    answer=$(api "/api/v1/captures?name=smoke-$port.pcap" --data-binary @"$work/capture.pcap" --header 'Content-Type: application/vnd.tcpdump.pcap') \
        || fail "the upload was refused: $answer"
    id=$(sed -E 's/.*"capture_id": *"([^"]+)".*/\1/' <<<"$answer")
    expect "$packets,$((packets * 32))" 60 \
        sql "SELECT sum(tx_packets), sum(tx_bytes) FROM flows WHERE capture_id = '$id' AND dst_port = $port"
    say "a capture of $packets packets is $packets packets in the table flows"
}

healthy() { compose ps --format '{{.Service}} {{.Health}}' "$@" | sort | uniq -c | sed 's/^ *//'; }

# ---- the test ---------------------------------------------------------------------------------------------------------------------------

need docker "install docker.io"
need curl "install it"
find_engine
find_plugins
"$here/init-env" "$work/env" >/dev/null
export WEIR_PORT WEIR_NATS_PORT WEIR_CAPTURE_HEALTH_PORT WEIR_TAG=smoke
WEIR_PORT=$(free_port) WEIR_NATS_PORT=$(free_port) WEIR_CAPTURE_HEALTH_PORT=$(free_port)
WEIR_API_TOKEN=$(sed -n 's/^WEIR_API_TOKEN=//p' "$work/env")
if [ -n "${WEIR_PREBUILT:-}" ]; then
    export WEIR_BINARIES=prebuilt
    say "the programs come from $WEIR_PREBUILT"
fi
if [ "$own_engine" = yes ]; then
    # What the containers say to one another is what there is to see.
    export WEIR_CAPTURE_INTERFACE="br-*"
fi

image_or debian:bookworm-slim make_base
image_or "$(image_of nats:)" make_nats
image_or "$(image_of clickhouse-server:)" make_clickhouse

say "building the images"
if [ "$own_engine" = yes ]; then
    printf 'services:\n' >"$work/build.yml"
    for service in capture docker-watcher ingester pcap-worker query-api; do
        printf '  %s: { build: { network: host } }\n' "$service" >>"$work/build.yml"
    done
    build=(--file "$work/build.yml" build)
else
    build=(build)
fi
started=$SECONDS
compose --progress plain "${build[@]}" >"$work/build.log" 2>&1 || { tail -40 "$work/build.log" >&2; fail "the build"; }
say "built in $((SECONDS - started)) s"
if [ "$own_engine" = yes ]; then move_engine; fi

started=$SECONDS
compose up --no-build --wait --wait-timeout 180 --quiet-pull 2>"$work/up.log" || { tail -20 "$work/up.log" >&2; fail "compose up"; }
say "up and healthy after $((SECONDS - started)) s"
compose ps --format 'table {{.Service}}\t{{.Image}}\t{{.Status}}' >&2

check_upload 3 4001
of_project="labels['com.docker.compose.project'] = '$name'"
expect 7 60 sql "SELECT uniqExact(container_id) FROM containers WHERE $of_project"
expect 7 60 sql "SELECT uniqExact(container_id) FROM container_stats WHERE $of_project AND memory_bytes > 0"
say "docker-watcher: the 7 containers of this project are in the tables containers and container_stats"
expect "1" 60 sql "SELECT count() > 0 FROM flows WHERE source = 'ebpf' AND protocol = 6"
say "capture: $(sql "SELECT count() FROM flows WHERE source = 'ebpf'") flow records seen by the kernel"

unauthorised=$("${inside[@]}" curl --silent --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:$WEIR_PORT/api/v1/flows")
[ "$unauthorised" = 401 ] || fail "a request without a token was answered with $unauthorised"
say "a request without a token is answered with 401"

compose up --no-build --wait --wait-timeout 120 --scale pcap-worker=3 2>"$work/up.log" || { tail -20 "$work/up.log" >&2; fail "compose up --scale"; }
[ "$(healthy pcap-worker)" = "3 pcap-worker healthy" ] || fail "three workers: $(healthy pcap-worker)"
say "three pcap-workers are healthy"
check_upload 5 4002

users=$(compose ps --quiet | xargs docker inspect --format '{{index .Config.Labels "com.docker.compose.service"}}={{.Config.User}}' | sort -u | tr '\n' ' ')
say "users: $users"

compose down --timeout 30 >"$work/down.log" 2>&1 || { tail -5 "$work/down.log" >&2; fail "compose down"; }
[ -z "$(compose ps --all --quiet)" ] || fail "containers are left after down"
say "OK"

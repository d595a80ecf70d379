#!/usr/bin/env bash
# The compose file on a real engine: build the image, bring the cluster up, write through shardctl from the host, kill containers, read
# everything back. Skipped (exit 77) where no engine runs and none can be started.
#
#   compose_test.sh SOURCE_DIR BIN_DIR
set -euo pipefail
source_dir=$1
export PATH=$2:$PATH
compose=(docker-compose -f "$source_dir/deploy/docker-compose.yml" -p shardkv-test)
export SHARDKV_CONTROLLERS=127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003 SHARDKV_CLUSTER=compose

skip() {
    echo "SKIPPED: $*"
    exit 77
}

work=$(mktemp -d "${TMPDIR:-/tmp}/compose-test.XXXXXX")
engine=

# An engine of our own when none answers and we may start one; ended by stop_engine.
start_engine() {
    docker info >/dev/null 2>&1 && return 0
    [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null || return 1
    dockerd >"$work/dockerd.log" 2>&1 &
    engine=$!
    for _ in $(seq 60); do
        docker info >/dev/null 2>&1 && return 0
        kill -0 $engine 2>/dev/null || return 1
        sleep 0.5
    done
    return 1
}

stop_engine() {
    [ -z "$engine" ] || { kill "$engine" 2>/dev/null && wait "$engine"; } || true
    rm -rf "$work"
}

# The base image: here, pulled, or made of Debian's packages.
find_base() {
    docker image inspect "$1" >/dev/null 2>&1 && return
    timeout 60 docker pull -q "$1" >/dev/null 2>&1 && return
    command -v debootstrap >/dev/null && [ "$(id -u)" = 0 ] || return 1
    debootstrap --variant=minbase bookworm "$work/bookworm" >"$work/debootstrap.log" 2>&1 &&
        tar -C "$work/bookworm" -c . | docker import - "$1" >/dev/null
}

trap stop_engine EXIT
command -v docker >/dev/null && command -v docker-compose >/dev/null || skip "docker and docker-compose are not installed"
start_engine || skip "no Docker engine answers, and none can be started: $(tail -n 1 "$work/dockerd.log" 2>/dev/null)"
base=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' "$source_dir/deploy/Dockerfile" | sort -u | head -n 1)
find_base "$base" || skip "the image $base is not here, cannot be pulled, and cannot be made by debootstrap"

cleanup() {
    local code=$?
    if [ $code -ne 0 ] && [ $code -ne 77 ]; then
        "${compose[@]}" ps || true
        "${compose[@]}" logs --no-color --tail=5 || true
    fi
    "${compose[@]}" down -v --timeout 5 >/dev/null 2>&1 || true
    stop_engine
}
trap cleanup EXIT
trap 'echo "FAIL: line $LINENO: $BASH_COMMAND"' ERR

echo "== build the image"
docker build -q -f "$source_dir/deploy/Dockerfile" -t shardkv "$source_dir"
echo "== up"
"${compose[@]}" up -d --no-build 2>&1 | tail -n 3
for _ in $(seq 120); do
    shardctl --timeout 2s put probe yes >/dev/null 2>&1 && break
    sleep 0.5
done

shardctl wait --wait-timeout 60s

echo "== write"
for n in $(seq 200); do printf '{"key":"k%d","value":"v%d"}\n' "$n" "$n"; done >"$work/rows.jsonl"
shardctl --timeout 30s load "$work/rows.jsonl"

echo "== kill one container of each group and a controller"
for name in group1-1 group2-2 group3-3 controller-1; do
    docker kill "shardkv-test_${name}_1" >/dev/null
done
shardctl --timeout 20s append k1 "+after" >/dev/null
for n in $(seq 2 200); do
    value=$(shardctl --timeout 20s get "k$n")
    [ "$value" = "v$n" ] || { echo "FAIL: k$n is '$value'"; exit 1; }
done
[ "$(shardctl --timeout 20s get k1)" = "v1+after" ] || { echo "FAIL: k1"; exit 1; }

echo "== all twelve are healthy"
for name in group1-1 group2-2 group3-3 controller-1; do
    docker start "shardkv-test_${name}_1" >/dev/null
done
for _ in $(seq 240); do
    healthy=$(docker ps -q --filter "name=shardkv-test_(group|controller)" --filter health=healthy | wc -l)
    [ "$healthy" -ge 12 ] && break
    sleep 0.5
done
[ "$healthy" -ge 12 ] || { echo "FAIL: only $healthy of 12 containers are healthy"; exit 1; }
echo "compose: 12 containers, four killed, nothing lost"

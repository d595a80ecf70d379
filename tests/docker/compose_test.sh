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

command -v docker >/dev/null && command -v docker-compose >/dev/null || skip "docker and docker-compose are not installed"
docker info >/dev/null 2>&1 || skip "no Docker engine answers"
base=$(sed -n 's/^FROM \([^ ]*\).*/\1/p' "$source_dir/deploy/Dockerfile" | sort -u | head -n 1)
docker image inspect "$base" >/dev/null 2>&1 || docker pull -q "$base" >/dev/null 2>&1 ||
    skip "the image $base is not here and cannot be pulled"

cleanup() {
    local code=$?
    if [ $code -ne 0 ] && [ $code -ne 77 ]; then
        "${compose[@]}" ps || true
        "${compose[@]}" logs --no-color --tail=5 || true
    fi
    "${compose[@]}" down -v --timeout 5 >/dev/null 2>&1 || true
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

echo "== write"
for n in $(seq 200); do printf '{"key":"k%d","value":"v%d"}\n' "$n" "$n"; done >"${TMPDIR:-/tmp}/compose-test.$$"
shardctl load "${TMPDIR:-/tmp}/compose-test.$$"

echo "== kill one container of each group and a controller"
for name in group1-1 group2-2 group3-3 controller-1; do
    docker kill "shardkv-test_${name}_1" >/dev/null
done
shardctl --timeout 20s append k1 "+after" >/dev/null
for n in $(seq 2 200); do
    value=$(shardctl --timeout 20s get "k$n")
    [ "$value" = "v$n" ] || { echo "FAIL: k$n is '$value'"; exit 1; }
done
[ "$(shardctl get k1)" = "v1+after" ] || { echo "FAIL: k1"; exit 1; }

echo "== all twelve are healthy"
for name in group1-1 group2-2 group3-3 controller-1; do
    docker start "shardkv-test_${name}_1" >/dev/null
done
for _ in $(seq 120); do
    healthy=$(docker ps -q --filter "name=shardkv-test_(group|controller)" --filter health=healthy | wc -l)
    [ "$healthy" -ge 12 ] && break
    sleep 0.5
done
[ "$healthy" -ge 12 ] || { echo "FAIL: only $healthy of 12 containers are healthy"; exit 1; }
rm -f "${TMPDIR:-/tmp}/compose-test.$$"
echo "compose: 12 containers, four killed, nothing lost"

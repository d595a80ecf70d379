#!/usr/bin/env bash
# Measures shardkv beside etcd on this machine, with the same client, and writes the tables of docs/PERFORMANCE.md.
#
#   tests/bench/run.sh            five rounds, also with 1 KiB and 64 KiB values (about three hours)
#   tests/bench/run.sh --quick    three short rounds, 128-byte values only (less than ten minutes)
#   tests/bench/run.sh --smoke    one short round of every row, to see that all of them work; its figures mean nothing,
#                                 and docs/PERFORMANCE.md stays as it is
#
# Three etcd nodes, three controllers and one group of three run on loopback, on one disk, each with its default
# durability; only one of the two systems is under load at a time, and the two take turns in every row of every round.
# The environment that counts is described in servers.sh.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
rounds=5 seconds=10 warm=3s event_at=2s event_seconds=8 tail_seconds=600 keys=100000 sizes=(128 1KiB 64KiB) mode=full
case "${1:-}" in
'') ;;
--quick) rounds=3 seconds=3 warm=1s event_at=1s event_seconds=4 tail_seconds=40 sizes=(128) mode=quick ;;
--smoke) rounds=1 seconds=2 warm=500ms event_at=1s event_seconds=4 tail_seconds=3 keys=2000 sizes=(128) mode=smoke ;;
-h | --help)
    sed -n '2,12s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
*)
    echo "run.sh: '$1' is not known; use --quick, --smoke or nothing" >&2
    exit 2
    ;;
esac

. "$root/tests/bench/servers.sh"

# ---- rows --------------------------------------------------------------------------------------------------------

# bench SYSTEM ROW FLAGS...: one measurement, as one line of the raw results. Its exit code 4 says that operations failed:
# the result is kept, and the tables say so.
bench() {
    local system=$1 row=$2 target=() code=0 line
    shift 2
    case $system in
    etcd) target=(--target=etcd --endpoints="$etcd_endpoints") ;;
    unary) target=(--unary) ;;
    library) ;;
    esac
    line=$("$bin/shardkv-bench" "${target[@]}" --json --no-progress --keys=$keys --key-size=16 \
        --value-size="$size" --seed="$((round * 1000 + RANDOM))" --warm-up=$warm \
        --duration=${seconds}s --no-preload --label="$size/$row/$system" "$@" 2>"$dir/bench.err") || code=$?
    if [ $code -ne 0 ] && [ $code -ne 4 ]; then
        say "FAILED: $size/$row/$system: $(tail -n 1 "$dir/bench.err")"
        line="{\"label\":\"$size/$row/$system\",\"failed\":true}"
    fi
    printf '%s\n' "$line" >>"$raw"
    # etcd keeps every version ever written until it is told not to, and its quota ends at 8 GiB.
    if [ "$system" = etcd ] && [ "$size" != 128 ]; then etcd_compact; fi
}

# The order changes from round to round, so that neither always finds the machine as the other left it.
pair() { # ROW LIBRARY|UNARY FLAGS...
    local row=$1 ours=$2
    shift 2
    if [ $((round % 2)) -eq 1 ]; then
        bench "$ours" "$row" "$@"
        bench etcd "$row" "$@"
    else
        bench etcd "$row" "$@"
        bench "$ours" "$row" "$@"
    fi
}

peak_of() { "$root/tests/bench/tables.py" peak "$raw" "$1"; }

# Two hundred puts a second, whatever becomes of those before, so that a lost one does not hide the next.
probe=(--rate=200 --outstanding=4000 --mix=put=100 --event-at=$event_at --timeout=20s)

kill_rows() {
    local id
    id=$(kv_leader)
    bench library kill "${probe[@]}" --duration=${event_seconds}s --event="kill -9 ${pids[kv-1-$id]}"
    wait "${pids[kv-1-$id]}" 2>/dev/null || true
    kv_start_replica 1 "$id"
    id=$(etcd_leader)
    bench etcd kill "${probe[@]}" --duration=${event_seconds}s --event="kill -9 ${pids[etcd-$id]}"
    wait "${pids[etcd-$id]}" 2>/dev/null || true
    etcd_start_node "$id"
    until_ready kv_ready
    until_ready etcd_ready
}

transfer_rows() {
    local id next member
    id=$(kv_leader)
    next=$((id % 3 + 1))
    bench library transfer "${probe[@]}" --duration=${event_seconds}s \
        --event="$bin/shardctl transfer 1 --to=$next >/dev/null"
    until_ready kv_ready
    id=$(etcd_leader)
    next=$(((id + 1) % 3))
    member=$(etcd_ctl member list | awk -F', ' -v name="n$next" '$3 == name {print $1}')
    bench etcd transfer "${probe[@]}" --duration=${event_seconds}s \
        --event="ETCDCTL_API=3 etcdctl --endpoints=127.0.0.1:${etcd_client[$id]} move-leader $member >/dev/null"
    until_ready etcd_ready
}

plain_rows() {
    pair put-1 library --outstanding=1
    pair put-unary-64 unary --outstanding=64
    pair put-unary-1000 unary --outstanding=1000
    pair put-library-64 library --outstanding=64
    pair put-library-256 library --outstanding=256
    pair put-library-1000 library --outstanding=1000
    pair get-1 library --outstanding=1 --mix=get=100
    pair get-unary-1000 unary --outstanding=1000 --mix=get=100
    pair get-library-64 library --outstanding=64 --mix=get=100
    pair get-library-1000 library --outstanding=1000 --mix=get=100
    pair mixed-library-256 library --outstanding=256 --mix=get=90,put=10
}

# Half of what each did at its best in this very run.
tail_rows() {
    local system rate
    for system in library etcd; do
        rate=$(($(peak_of "$system") / 2))
        [ "$rate" -gt 0 ] || continue
        bench $system tail --rate=$rate --outstanding=8000 --duration=${tail_seconds}s
    done
}

# ---- the run -----------------------------------------------------------------------------------------------------

say "start etcd and shardkv"
etcd_start
kv_start
until_ready etcd_ready
until_ready kv_ready
for size in "${sizes[@]}"; do
    [ "$size" != 64KiB ] || keys=$((keys / 20)) seconds=5 # of 100,000 the values alone would be 6 GiB
    say "load $keys keys with values of $size"
    "$bin/shardkv-bench" --no-progress --preload-only --keys=$keys --value-size="$size" >&2
    "$bin/shardkv-bench" --no-progress --preload-only --keys=$keys --value-size="$size" --target=etcd \
        --endpoints="$etcd_endpoints" >&2
    for round in $(seq $rounds); do
        say "values of $size, round $round of $rounds"
        plain_rows
        if [ "$size" = 128 ]; then
            kill_rows
            transfer_rows
        fi
        etcd_compact
    done
    if [ "$size" = 128 ]; then
        round=$rounds
        say "half the peak, open loop"
        tail_rows
    fi
done
stop_all

"$root/tests/bench/tables.py" table "$raw" "$mode" "$(etcd --version | head -n 1)"
if [ $mode != smoke ]; then
    "$root/tests/bench/tables.py" table "$raw" "$mode" "$(etcd --version | head -n 1)" >"$dir/tables.md"
    "$root/tests/bench/tables.py" write "$root/docs/PERFORMANCE.md" "$dir/tables.md"
    say "wrote the tables of docs/PERFORMANCE.md"
fi

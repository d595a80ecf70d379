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
# Everything lives in a temporary directory and is gone afterwards. Environment: SHARDKV_BENCH_BUILD (a build
# directory with the four programs in bin/; default build/release, which is built first), SHARDKV_BENCH_OUT (keeps the raw results: one JSON object a line).
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
rounds=5 seconds=10 warm=3s event_at=2s event_seconds=8 tail_seconds=600 keys=100000 sizes=(128 1KiB 64KiB) mode=full
case "${1:-}" in
'') ;;
--quick) rounds=3 seconds=3 warm=1s event_at=1s event_seconds=4 tail_seconds=40 sizes=(128) mode=quick ;;
--smoke) rounds=1 seconds=2 warm=500ms event_at=1s event_seconds=4 tail_seconds=3 keys=2000 sizes=(128) mode=smoke ;;
-h | --help)
    sed -n '2,13s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
*)
    echo "run.sh: '$1' is not known; use --quick, --smoke or nothing" >&2
    exit 2
    ;;
esac

say() { printf '== %s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
die() {
    printf 'run.sh: %s\n' "$*" >&2
    exit 1
}

"$root/deploy/install-packages.sh" bench
build=${SHARDKV_BENCH_BUILD:-$root/build/release}
if [ -z "${SHARDKV_BENCH_BUILD:-}" ]; then
    "$root/deploy/install-packages.sh" build test
    mkdir -p "$build"
    # The quick start makes the same directory without tests, so that is said each time.
    cmake -G Ninja -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=ON >"$build/configure.log" 2>&1 ||
        die "cmake failed; see $build/configure.log"
    ninja -C "$build" shardkv-bench shardkv-bin shardctrler-bin shardctl-bin >&2
fi
bin=$build/bin
for program in shardkv shardctrler shardctl shardkv-bench; do
    [ -x "$bin/$program" ] || die "$bin/$program is missing; build it first"
done

dir=$(mktemp -d "${TMPDIR:-/tmp}/shardkv-bench-XXXXXX")
raw=${SHARDKV_BENCH_OUT:-$dir/raw.jsonl}
: >"$raw"
declare -A pids=()
# A server ends with this script, also when that is killed. (The program takes the place of setpriv: its pid is $!.)
server=(setpriv --pdeathsig KILL)

stop_all() {
    local name
    for name in "${!pids[@]}"; do kill -KILL "${pids[$name]}" 2>/dev/null || true; done
    for name in "${!pids[@]}"; do wait "${pids[$name]}" 2>/dev/null || true; done
    pids=()
}
clean_up() {
    local code=$?
    stop_all
    if [ $code -ne 0 ] && [ -n "${SHARDKV_BENCH_KEEP:-}" ]; then
        echo "run.sh: logs and data are kept in $dir" >&2
    else
        rm -rf "$dir"
    fi
    exit $code
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# ---- ports below the range that outgoing connections take -------------------------------------------------------

next_port=$((16000 + ($$ * 37) % 12000))
port=0
take_port() { # sets $port
    while :; do
        next_port=$((next_port + 1))
        [ $next_port -lt 32000 ] || next_port=16000
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$next_port") 2>/dev/null; then
            port=$next_port
            return
        fi
    done
}

# ---- etcd --------------------------------------------------------------------------------------------------------

etcd_client=() etcd_peer=()
etcd_start_node() { # index
    local i=$1 state=new
    [ ! -d "$dir/etcd-$i" ] || state=existing
    "${server[@]}" etcd --name "n$i" --data-dir "$dir/etcd-$i" --initial-cluster-state $state \
        --listen-client-urls "http://127.0.0.1:${etcd_client[$i]}" \
        --advertise-client-urls "http://127.0.0.1:${etcd_client[$i]}" \
        --listen-peer-urls "http://127.0.0.1:${etcd_peer[$i]}" \
        --initial-advertise-peer-urls "http://127.0.0.1:${etcd_peer[$i]}" \
        --initial-cluster "n0=http://127.0.0.1:${etcd_peer[0]},n1=http://127.0.0.1:${etcd_peer[1]},n2=http://127.0.0.1:${etcd_peer[2]}" \
        --quota-backend-bytes $((8 * 1024 * 1024 * 1024)) >>"$dir/etcd-$i.log" 2>&1 &
    pids[etcd-$i]=$!
}
etcd_ctl() { ETCDCTL_API=3 etcdctl --command-timeout=5s --endpoints="$etcd_endpoints" "$@"; }
etcd_start() {
    local i
    for i in 0 1 2; do
        take_port && etcd_client[$i]=$port
        take_port && etcd_peer[$i]=$port
    done
    etcd_endpoints=127.0.0.1:${etcd_client[0]},127.0.0.1:${etcd_client[1]},127.0.0.1:${etcd_client[2]}
    for i in 0 1 2; do etcd_start_node $i; done
}
etcd_leader() { # prints the index
    local i
    for i in 0 1 2; do
        if ETCDCTL_API=3 etcdctl --command-timeout=2s --endpoints="127.0.0.1:${etcd_client[$i]}" \
            endpoint status -w json 2>/dev/null |
            python3 -c 'import json,sys
s = json.load(sys.stdin)[0]["Status"]
sys.exit(s["leader"] != s["header"]["member_id"])' 2>/dev/null; then
            echo "$i"
            return
        fi
    done
    return 1
}
etcd_compact() { # what is compacted already, or for the moment cannot be, is no failure of the measurement
    etcd_ctl compact "$(etcd_ctl endpoint status -w json | "$root/tests/bench/tables.py" revision)" \
        >/dev/null 2>&1 || true
}
etcd_ready() { etcd_leader >/dev/null && etcd_ctl endpoint health >/dev/null 2>&1; }

# ---- shardkv -----------------------------------------------------------------------------------------------------

declare -A kv_address=()
kv_start_replica() { # group id
    local program=shardkv extra=(--group "$1" --controllers "$SHARDKV_CONTROLLERS")
    [ "$1" != 0 ] || program=shardctrler extra=(--shards 64)
    "${server[@]}" "$bin/$program" --cluster "$SHARDKV_CLUSTER" --id "$2" --listen "${kv_address[$1-$2]}" \
        --peers "1=${kv_address[$1-1]},2=${kv_address[$1-2]},3=${kv_address[$1-3]}" \
        --data "$dir/kv-$1-$2" "${extra[@]}" >>"$dir/kv-$1-$2.log" 2>&1 &
    pids[kv-$1-$2]=$!
}
kv_ctl() { "$bin/shardctl" "$@"; }
kv_start() {
    local g i
    for g in 0 1; do for i in 1 2 3; do take_port && kv_address[$g-$i]=127.0.0.1:$port; done; done
    export SHARDKV_CLUSTER=bench
    export SHARDKV_CONTROLLERS=${kv_address[0-1]},${kv_address[0-2]},${kv_address[0-3]}
    for g in 0 1; do for i in 1 2 3; do kv_start_replica $g $i; done; done
    kv_ctl join --timeout=60s --wait "1=${kv_address[1-1]},${kv_address[1-2]},${kv_address[1-3]}" >&2
}
kv_leader() { # prints the replica's id
    kv_ctl status --json 2>/dev/null | "$root/tests/bench/tables.py" leader 1
}
kv_ready() {
    local i
    kv_leader >/dev/null || return 1
    for i in 1 2 3; do kv_ctl health "${kv_address[1-$i]}" >/dev/null 2>&1 || return 1; done
}

until_ready() { # function
    local deadline=$((SECONDS + 120))
    until "$1"; do
        [ $SECONDS -lt $deadline ] || die "$1: not ready after 120 s; the logs are in $dir"
        sleep 0.2
    done
}

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

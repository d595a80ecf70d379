# Servers for measurements: three etcd nodes, three controllers, groups of three replicas, all on loopback and one disk.
# Sourced by run.sh and scale.sh, which set `root` before. Everything lives in $dir, a temporary directory that is gone
# when the script ends, and its processes with it. Environment: SHARDKV_BENCH_BUILD (a build directory with the programs in
# bin/; default build/release, which is built first), SHARDKV_BENCH_OUT (keeps the raw results: one JSON object a line),
# SHARDKV_BENCH_KEEP (keeps $dir of a run that failed).

say() { printf '== %s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
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
        echo "$(basename "$0"): logs and data are kept in $dir" >&2
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
kv_groups=1 kv_shards=64
kv_start_replica() { # group id
    local program=shardkv extra=(--group "$1" --controllers "$SHARDKV_CONTROLLERS")
    [ "$1" != 0 ] || program=shardctrler extra=(--shards "$kv_shards")
    "${server[@]}" "$bin/$program" --cluster "$SHARDKV_CLUSTER" --id "$2" --listen "${kv_address[$1-$2]}" \
        --peers "1=${kv_address[$1-1]},2=${kv_address[$1-2]},3=${kv_address[$1-3]}" \
        --data "$dir/kv-$1-$2" "${extra[@]}" >>"$dir/kv-$1-$2.log" 2>&1 &
    pids[kv-$1-$2]=$!
}
kv_ctl() { "$bin/shardctl" "$@"; }
kv_start() {
    local g i groups=()
    for g in $(seq 0 $kv_groups); do for i in 1 2 3; do take_port && kv_address[$g-$i]=127.0.0.1:$port; done; done
    export SHARDKV_CLUSTER=bench
    export SHARDKV_CONTROLLERS=${kv_address[0-1]},${kv_address[0-2]},${kv_address[0-3]}
    for g in $(seq 0 $kv_groups); do for i in 1 2 3; do kv_start_replica $g $i; done; done
    for g in $(seq $kv_groups); do groups+=("$g=${kv_address[$g-1]},${kv_address[$g-2]},${kv_address[$g-3]}"); done
    kv_ctl join --timeout=60s --wait "${groups[@]}" >&2
}
kv_leader() { # prints the id of the replica that leads group 1, or the group given
    kv_ctl status --json 2>/dev/null | "$root/tests/bench/tables.py" leader "${1:-1}"
}
kv_ready() {
    local g i
    for g in $(seq $kv_groups); do
        kv_leader "$g" >/dev/null || return 1
        for i in 1 2 3; do kv_ctl health "${kv_address[$g-$i]}" >/dev/null 2>&1 || return 1; done
    done
}

until_ready() { # function
    local deadline=$((SECONDS + 120))
    until "$1"; do
        [ $SECONDS -lt $deadline ] || die "$1: not ready after 120 s; the logs are in $dir"
        sleep 0.2
    done
}

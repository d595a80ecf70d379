#!/usr/bin/env bash
# Measures how shardkv takes more of everything, and writes the second part of docs/PERFORMANCE.md's tables.
#
#   tests/bench/scale.sh            everything (about an hour)
#   tests/bench/scale.sh --quick    shorter runs, 2 instead of 10 million keys, a minute instead of ten (about ten minutes)
#   tests/bench/scale.sh --smoke    that all of it works; its figures mean nothing, and the page stays as it is
#
# Throughput with 1, 2 and 4 groups, with 16, 1024 and 16,384 shards, with few and many keys; the memory of a replica at
# rest, with keys, with clients, and while a follower is down; elections under full load, of which there must be none.
# The environment that counts is described in servers.sh.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
seconds=10 warm=3s long_seconds=600 many_keys=10000000 clients=1024 mode=full
case "${1:-}" in
'') ;;
--quick) seconds=4 warm=1s long_seconds=60 many_keys=2000000 mode=quick ;;
--smoke) seconds=1 warm=300ms long_seconds=3 many_keys=20000 clients=128 mode=smoke ;;
-h | --help)
    sed -n '2,10s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
*)
    echo "scale.sh: '$1' is not known; use --quick, --smoke or nothing" >&2
    exit 2
    ;;
esac

. "$root/tests/bench/servers.sh"

keys=100000
# bench LABEL FLAGS...: one measurement, as one line of the raw results.
bench() {
    local label=$1 line code=0
    shift
    line=$("$bin/shardkv-bench" --json --no-progress --no-preload --keys=$keys --key-size=16 --value-size=128 \
        --warm-up=$warm --duration=${seconds}s --label="$label" "$@" 2>"$dir/bench.err") || code=$?
    if [ $code -ne 0 ] && [ $code -ne 4 ]; then
        die "$label: $(tail -n 1 "$dir/bench.err")"
    fi
    printf '%s\n' "$line" >>"$raw"
}
load_keys() { "$bin/shardkv-bench" --no-progress --preload-only --keys=$keys --value-size=128 >&2; }

fresh() { # GROUPS SHARDS
    stop_all
    rm -rf "$dir"/kv-*
    kv_groups=$1 kv_shards=$2
    kv_start
    until_ready kv_ready
    load_keys
}

rows() { # LABEL
    bench "$1/put-1" --outstanding=1
    bench "$1/put-256" --outstanding=256
    bench "$1/put-1000" --outstanding=1000
    bench "$1/get-256" --outstanding=256 --mix=get=100
    bench "$1/get-1000" --outstanding=1000 --mix=get=100
}

# ---- memory ------------------------------------------------------------------------------------------------------

rss_kib() { awk '/^VmRSS/ {print $2}' "/proc/$1/status"; }
memory() { # LABEL: of group 1's leader and of its largest follower, at this moment
    local id leader follower=0 size
    until_ready kv_ready_or_less
    leader=$(kv_leader)
    for id in 1 2 3; do
        [ -n "${pids[kv-1-$id]:-}" ] && [ "$id" != "$leader" ] || continue
        size=$(rss_kib "${pids[kv-1-$id]}")
        [ "$size" -le $follower ] || follower=$size
    done
    printf '{"label":"memory/%s","leader_kib":%s,"follower_kib":%s}\n' "$1" "$(rss_kib "${pids[kv-1-$leader]}")" \
        "$follower" >>"$raw"
}

kv_ready_or_less() { kv_leader >/dev/null; } # also with a follower down
term() { kv_ctl status --json | "$root/tests/bench/tables.py" term 1; }

client_rows() { # many clients, each with its own connections, in processes of 64
    local background=() before=$seconds i
    for i in $(seq $((clients / 64))); do
        "$bin/shardkv-bench" --no-progress --no-preload --keys=$keys --key-size=16 --value-size=128 --clients=64 \
            --outstanding=64 --warm-up=$warm --duration=${seconds}s --seed="$i" >/dev/null 2>&1 &
        background+=($!)
    done
    sleep "$(awk "BEGIN {print $seconds * 0.6}")"
    memory "with $clients clients"
    for i in "${background[@]}"; do wait "$i" || true; done
    seconds=$before
}

follower_down_rows() {
    local leader id before after started
    leader=$(kv_leader)
    id=$((leader % 3 + 1))
    kill -KILL "${pids[kv-1-$id]}"
    wait "${pids[kv-1-$id]}" 2>/dev/null || true
    unset "pids[kv-1-$id]"
    before=$(term)
    bench "down/put-256" --outstanding=256 --duration=${long_seconds}s
    after=$(term)
    memory "a follower down for $long_seconds s under load"
    started=$(date +%s%N)
    kv_start_replica 1 "$id"
    until_ready caught_up
    printf '{"label":"down/catch-up","seconds":%s,"elections":%s}\n' \
        "$(awk "BEGIN {print ($(date +%s%N) - $started) / 1e9}")" $((after - before)) >>"$raw"
}
caught_up() { kv_ctl status --json 2>/dev/null | "$root/tests/bench/tables.py" caught-up 1; }

election_rows() {
    local before
    before=$(term)
    bench "elections/put-1000" --outstanding=1000 --duration=${long_seconds}s
    printf '{"label":"elections/count","seconds":%s,"elections":%s}\n' "$long_seconds" $(($(term) - before)) >>"$raw"
}

# ---- the run -----------------------------------------------------------------------------------------------------

for groups in 1 2 4; do
    say "$groups groups"
    fresh $groups 64
    rows "groups/$groups"
done
for shards in 16 1024 16384; do
    say "$shards shards"
    fresh 1 $shards
    rows "shards/$shards"
done

say "memory, elections"
keys=1000
fresh 1 64
memory "at rest, 1,000 keys"
for keys in 100000 1000000 $many_keys; do
    say "$keys keys"
    load_keys
    memory "$keys keys loaded"
    rows "keys/$keys"
    memory "$keys keys, after the rows above"
done
keys=100000
client_rows
say "$long_seconds s of full load"
election_rows
say "a follower is down for $long_seconds s"
follower_down_rows
stop_all

"$root/tests/bench/tables.py" scale "$raw" "$mode"
if [ $mode != smoke ]; then
    "$root/tests/bench/tables.py" scale "$raw" "$mode" >"$dir/scale.md"
    "$root/tests/bench/tables.py" write "$root/docs/PERFORMANCE.md" "$dir/scale.md" scale
    say "wrote the second tables of docs/PERFORMANCE.md"
fi

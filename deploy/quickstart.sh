#!/usr/bin/env bash
# From nothing to a running shardkv cluster on this machine, in one command:
#
#   deploy/quickstart.sh [start]   install what is missing, build, start 3 controllers and 2 groups of 3 replicas as
#                                  processes on loopback, and take a tour that verifies what it shows (see below);
#                                  a second start is quick, keeps the data and reads it back
#   deploy/quickstart.sh stop      stop all processes in order; the data stays
#   deploy/quickstart.sh status    show the cluster
#   deploy/quickstart.sh clean     stop, and delete data and logs
#
# The tour: load this machine's package database (package -> its whole record), read all of it back and compare checksums,
# kill a leader and go on, join a third group and watch shards move while a writer appends, and verify that no append
# was lost or doubled. The cluster is left running.
#
# Environment: SHARDKV_QUICKSTART_DIR (default var/quickstart), SHARDKV_QUICKSTART_PORT (first port, default 7000).
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
dir=${SHARDKV_QUICKSTART_DIR:-$root/var/quickstart}
port=${SHARDKV_QUICKSTART_PORT:-7000}
build=$root/build/release
bin=$build/bin
data=$root/deploy/quickstart_data.py
cluster=quickstart
started_at=$(date +%s)

say() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() {
    printf 'quickstart: %s\n' "$*" >&2
    exit 1
}

# Replica i of a group listens on port + 100 * group + i; group 0 are the controllers.
address() { echo "127.0.0.1:$((port + 100 * $1 + $2))"; }
addresses() { echo "$(address "$1" 1),$(address "$1" 2),$(address "$1" 3)"; }
peers() { echo "1=$(address "$1" 1),2=$(address "$1" 2),3=$(address "$1" 3)"; }

export SHARDKV_CONTROLLERS SHARDKV_CLUSTER=$cluster
SHARDKV_CONTROLLERS=$(addresses 0)
ctl() { "$bin/shardctl" "$@"; }

# ---- processes -----------------------------------------------------------------------------------------------

pid_file() { echo "$dir/run/g$1-$2.pid"; }

is_running() { # group id
    local pid
    pid=$(cat "$(pid_file "$1" "$2")" 2>/dev/null) || return 1
    # The number may have gone to another program since.
    grep -qs "shardkv\|shardctrler" "/proc/$pid/comm"
}

start_replica() { # group id
    local program=shardkv extra=(--group "$1" --controllers "$SHARDKV_CONTROLLERS")
    if [ "$1" = 0 ]; then
        program=shardctrler extra=(--shards 64)
    fi
    is_running "$1" "$2" && return 0
    mkdir -p "$dir/run" "$dir/log" "$dir/data"
    setsid "$bin/$program" --cluster $cluster --id "$2" --listen "$(address "$1" "$2")" \
        --peers "$(peers "$1")" --data "$dir/data/g$1-$2" "${extra[@]}" \
        >>"$dir/log/g$1-$2.log" 2>&1 </dev/null &
    echo $! >"$(pid_file "$1" "$2")"
    disown # it outlives this script, which has nothing to say about its end
}

start_group() {
    local id
    for id in 1 2 3; do start_replica "$1" $id; done
}

# Waits until every replica of the group answers; says which log to read when one ended.
wait_group() {
    local id tries
    for id in 1 2 3; do
        for tries in $(seq 1 150); do
            if ctl health "$(address "$1" $id)" >/dev/null 2>&1; then continue 2; fi
            is_running "$1" $id || die "a process ended: $(tail -n 1 "$dir/log/g$1-$id.log") (all of it: $dir/log/g$1-$id.log)"
            sleep 0.2
        done
        die "replica $id of group $1 does not answer; see $dir/log/g$1-$id.log"
    done
}

all_replicas() { # "group id" of every pid file
    local file name
    for file in "$dir"/run/g*.pid; do
        [ -e "$file" ] || continue
        name=$(basename "$file" .pid)
        echo "${name:1}" | tr - ' '
    done
}

stop_all() {
    local group id pids=() pid
    while read -r group id; do
        if is_running "$group" "$id"; then
            pid=$(cat "$(pid_file "$group" "$id")")
            kill -TERM "$pid"
            pids+=("$pid")
        fi
        rm -f "$(pid_file "$group" "$id")"
    done < <(all_replicas | sort -rn) # groups before controllers
    for pid in "${pids[@]}"; do
        for _ in $(seq 1 150); do
            kill -0 "$pid" 2>/dev/null || continue 2
            sleep 0.1
        done
        echo "process $pid did not stop within 15 s; killing it" >&2
        kill -KILL "$pid" 2>/dev/null || true
    done
    echo "stopped ${#pids[@]} processes"
}

# ---- set-up ----------------------------------------------------------------------------------------------------

build_all() {
    say "Install and build"
    "$root/deploy/install-packages.sh" build
    mkdir -p "$build"
    {
        cmake -G Ninja -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF &&
            ninja -C "$build"
    } >"$build/build.log" 2>&1 || {
        tail -n 30 "$build/build.log" >&2
        die "the build failed; all of its output is in $build/build.log"
    }
    note "programs are in $bin"
}

start_cluster() {
    local groups=(0 1 2) group
    [ -e "$dir/joined-3" ] && groups+=(3)
    say "Start 3 controllers and $((${#groups[@]} - 1)) groups of 3 replicas"
    for group in "${groups[@]}"; do start_group "$group"; done
    for group in "${groups[@]}"; do wait_group "$group"; done
    note "$((3 * ${#groups[@]})) processes; logs are in $dir/log"
}

# A tour that was broken off may have joined some of them already.
join_groups() { # group...
    local group wanted=()
    for group in "$@"; do
        ctl query --json | "$data" has-group "$group" || wanted+=("$group=$(addresses "$group")")
    done
    [ ${#wanted[@]} -eq 0 ] || ctl join --wait "${wanted[@]}"
}

# ---- the tour ---------------------------------------------------------------------------------------------------

checksum() { sha256sum | cut -d' ' -f1; }

# The packages in the cluster, in the order and form of packages.wanted.
read_packages() { ctl export 2>"$dir/log/export.log" | "$data" normal package/; }

verify_packages() {
    local want got
    want=$(checksum <"$dir/packages.wanted")
    read_packages >"$dir/packages.read"
    got=$(checksum <"$dir/packages.read")
    [ "$want" = "$got" ] || die "what was read back differs: diff $dir/packages.wanted $dir/packages.read"
    note "$(wc -l <"$dir/packages.read") records read back; their SHA-256 ${got:0:16}... is that of what was loaded"
}

load_packages() {
    say "Load the package database of this machine and read it back"
    "$data" packages >"$dir/packages.jsonl"
    "$data" normal package/ <"$dir/packages.jsonl" >"$dir/packages.wanted"
    ctl load "$dir/packages.jsonl"
    verify_packages
}

leader_of() { # group -> replica id
    ctl status --json | "$data" leader "$1"
}

kill_leader() {
    local group=1 id before after n
    say "Kill the leader of group $group and go on"
    id=$(leader_of $group)
    before=$(date +%s%N)
    kill -KILL "$(cat "$(pid_file $group "$id")")"
    # Sixteen keys meet both groups; the slowest is the one that waits for the new leader.
    for n in $(seq 16); do ctl put "quickstart/after-kill-$n" yes >/dev/null; done
    after=$(date +%s%N)
    note "replica $id was killed; 16 puts to all groups took $(((after - before) / 1000000)) ms, election included"
    verify_packages
    start_replica $group "$id"
    note "replica $id is back; replica $(leader_of $group) leads now"
}

# Appends numbered tokens to eight keys until $dir/writer.stop is there; writes down what was acknowledged.
writer() {
    local n=0 key
    while [ ! -e "$dir/writer.stop" ]; do
        n=$((n + 1))
        key=quickstart/writer-$((n % 8))
        if ctl append "$key" "$n," >/dev/null 2>>"$dir/log/writer.log"; then
            echo "$key $n done"
        else
            case $? in
            3) echo "$key $n unknown" ;;
            *) echo "$key $n not-done" ;;
            esac
        fi
    done >"$dir/writer.acknowledged"
}

# Until the writer has done so many more.
wait_appends() {
    local from tries
    from=$(wc -l <"$dir/writer.acknowledged")
    for tries in $(seq 300); do
        [ $(($(wc -l <"$dir/writer.acknowledged") - from)) -ge "$1" ] && return
        sleep 0.1
    done
    die "the writer does not come forward; see $dir/log/writer.log"
}

verify_writer() {
    local k values=()
    for k in 0 1 2 3 4 5 6 7; do
        ctl get "quickstart/writer-$k" >"$dir/writer.$k"
        values+=("$dir/writer.$k")
    done
    "$data" appends "$dir/writer.acknowledged" "${values[@]}" || die "appends were lost, doubled or reordered"
}

move_shards() {
    say "Join a third group; shards move while a writer appends"
    start_group 3
    wait_group 3
    for k in 0 1 2 3 4 5 6 7; do ctl put "quickstart/writer-$k" "" >/dev/null; done
    rm -f "$dir/writer.stop"
    : >"$dir/writer.acknowledged"
    writer &
    local writer_pid=$!
    wait_appends 40
    join_groups 3
    touch "$dir/joined-3"
    wait_appends 40
    touch "$dir/writer.stop"
    wait $writer_pid
    ctl status
    verify_writer
    verify_packages
}

tour() {
    say "Join both groups"
    join_groups 1 2
    load_packages
    kill_leader
    move_shards
    touch "$dir/toured"
}

farewell() {
    say "The cluster is up (this took $(($(date +%s) - started_at)) s)"
    cat <<TEXT
   Talk to it:

     export SHARDKV_CONTROLLERS=$SHARDKV_CONTROLLERS SHARDKV_CLUSTER=$cluster
     export PATH=$bin:\$PATH
     shardctl put greeting hello
     shardctl get greeting
     shardctl get package/bash
     shardctl status
     shardctl leave 3 --wait

   Stop it with 'deploy/quickstart.sh stop'; its data stays in $dir.
TEXT
}

# ---- commands ------------------------------------------------------------------------------------------------------

case "${1:-start}" in
start)
    mkdir -p "$dir"
    build_all
    start_cluster
    if [ -e "$dir/toured" ]; then
        say "Read back what was there before"
        verify_packages
        verify_writer
    else
        tour
    fi
    farewell
    ;;
stop) stop_all ;;
status)
    [ -x "$bin/shardctl" ] || die "nothing is built yet; run deploy/quickstart.sh"
    ctl status
    ;;
clean)
    stop_all
    rm -rf "$dir"
    echo "deleted $dir"
    ;;
-h | --help | help) sed -n '2,/^set /p' "$0" | sed '$d; s/^# \{0,1\}//' ;;
*)
    echo "quickstart.sh: unknown command '$1'; use start, stop, status or clean" >&2
    exit 2
    ;;
esac

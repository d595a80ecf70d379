#!/usr/bin/env bash
# Runs the simulators on seeds nobody has run before, for as long as it is told: storms over a whole cluster (sim.Swarm), over
# Raft alone (raft.Swarm), and between them each other test of sim_suite in turn.
#
#   tests/soak.sh [--minutes N] [--jobs J] [--seed S] [--test NAME] [--results FILE] [--build DIR] [--no-build]
#
#   --minutes N      how long (10); 0.5 is half a minute
#   --jobs J         processes at a time (1)
#   --seed S         the first seed (from the time of day); job k of J begins at S + k * 10^9
#   --test NAME      only this test, as sim_suite --list names it, or raft.Swarm; may be repeated
#   --results FILE   sums of all soaks so far, as JSON (build/soak/results.json): this one is added
#   --build DIR      the build directory (build/release); --no-build takes the programs as they are
#   --table          runs nothing: prints the sums in --results as the table of docs/TESTING.md
#
# Every 10 seconds a line says how far it is. A seed that fails is kept in build/soak-failures/<test>-<seed>/: `command` replays
# it, `output` is what it said, `trace.gz` the end of what happened. SIGINT ends the soak like its time does. The last lines are
# the sums and how often each rare thing happened; the exit code is 1 when a seed failed or something never happened, which
# a soak of a few minutes may well end with.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

usage() {
    sed -n '2,19s/^# \{0,1\}//p' "$0"
}
refuse() {
    echo "error: $1" >&2
    usage >&2
    exit 2
}

minutes=10
jobs=1
seed=
results=build/soak/results.json
build=build/release
make=1
table=0
tests=()
while [ $# -gt 0 ]; do
    case $1 in
    --minutes)
        [[ ${2:-} =~ ^[0-9]+([.][0-9]+)?$ ]] || refuse "$1 takes a number"
        minutes=$2
        shift
        ;;
    --jobs | --seed)
        [[ ${2:-} =~ ^[0-9]+$ ]] || refuse "$1 takes a whole number"
        case $1 in
        --jobs) jobs=$2 ;;
        --seed) seed=$2 ;;
        esac
        shift
        ;;
    --test | --results | --build)
        [ -n "${2:-}" ] || refuse "$1 takes a value"
        case $1 in
        --test) tests+=("$2") ;;
        --results) results=$2 ;;
        --build) build=$2 ;;
        esac
        shift
        ;;
    --no-build) make=0 ;;
    --table) table=1 ;;
    -h | --help)
        usage
        exit 0
        ;;
    *) refuse "unknown option $1" ;;
    esac
    shift
done
# Lines 'name value' of a results file; and a row a counter, in the order of the headers that define them.
results_of() {
    sed -nE 's/^ *"([a-z]+[.][A-Za-z_.]+)": ([0-9]+),?$/\1 \2/p' "$1"
}
print_table() {
    results_of "$results" | awk '
        { v[$1] = $2 }
        END {
            printf "%d soaks: %d seeds of whole clusters and %d of Raft alone, %.1f simulated hours, %d operations of clients, %d failures.\n\n",
                v["soak.runs"], v["sim.seeds"], v["raft.seeds"], (v["sim.simulated_ms"] + v["raft.simulated_ms"]) / 3600000,
                v["sim.operations"], v["soak.failed"]
            print "| counter | what | count |"; print "|---|---|---:|" }'
    sed -nE 's/^ *X\((\w+), *(true|false), *"([^"]+)"\).*/\1|\3/p' tests/sim/sometimes.h tests/raft/sim_counters.h |
        while IFS='|' read -r name what; do
            local counted
            counted=$(results_of "$results" | awk -v name="$name" '$1 == "sim.counter." name || $1 == "raft.counter." name { print $2 }')
            printf '| `%s` | %s | %s |\n' "$name" "$what" "${counted:-0}"
        done
}
if [ $table = 1 ]; then
    [ -e "$results" ] || refuse "there is no $results"
    print_table
    exit 0
fi

seconds=$(awk -v minutes="$minutes" 'BEGIN { printf "%d", minutes * 60 }')
[ "$seconds" -gt 0 ] && [ "$jobs" -gt 0 ] || refuse "--minutes and --jobs are more than 0"
seed=${seed:-$(date +%s)000}

launcher=()
if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
fi
if [ $make = 1 ]; then
    echo "== build ($build)"
    mkdir -p "$build"
    cmake -G Ninja -S . -B "$build" "${launcher[@]}" -DCMAKE_BUILD_TYPE=Release >"$build.soak.log" 2>&1 &&
        ninja -C "$build" sim_suite raft_suite >>"$build.soak.log" 2>&1 || {
        tail -n 40 "$build.soak.log" >&2
        exit 1
    }
fi
# A copy, so that whoever builds meanwhile does not change what runs.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$build/tests/sim_suite" "$build/tests/raft_suite" "$work/"

mapfile -t known < <("$work/sim_suite" --list && echo raft.Swarm)
for name in "${tests[@]}"; do
    printf '%s\n' "${known[@]}" | grep -qxF "$name" || refuse "no test '$name'; there are: ${known[*]}"
done
if [ ${#tests[@]} = 0 ]; then
    for name in "${known[@]}"; do
        case $name in
        sim.Swarm | raft.Swarm) ;;
        *) tests+=(sim.Swarm raft.Swarm sim.Swarm "$name") ;;
        esac
    done
fi

failures=build/soak-failures
mkdir -p "$failures" "$(dirname "$results")"

# ---- one job ----

batch_seeds() {
    case $1 in
    sim.Swarm) echo 20 ;;
    raft.Swarm) echo 60 ;;
    *) echo 4 ;;
    esac
}
batch_seconds=900 # a seed that goes on for ever is a failure

# What a batch summed up, as lines 'name value'.
digest() {
    case $1 in
    raft.Swarm) awk '
        /^Swarm: / { print "raft.seeds", $2; print "raft.simulated_ms", int($6 * 1000); print "raft.real_ms", int($9 * 1000)
                     print "raft.operations", $NF; next }
        /^ +[0-9]+  [a-z_]+ / { print "raft.counter." $2, $1 }' "$2" ;;
    *) awk -F'[:,]' '
        /"counters"/ { inside = 1; next }
        inside && /"[A-Z_]+": [0-9]+/ { gsub(/[ "]/, "", $1); gsub(/ /, "", $2); print "sim.counter." $1, $2; next }
        /"(seeds|operations)"/ { gsub(/[ "]/, "", $1); print "sim." $1, $2 + 0 }
        /"(simulated|real)_s"/ { gsub(/[ "]/, "", $1); sub(/_s$/, "_ms", $1); print "sim." $1, int($2 * 1000) }' "$3" ;;
    esac
}

keep_failure() { # test, output, exit code, first seed
    local failed replay
    failed=$(grep -oE -- '--seed [0-9]+' "$2" | tail -n 1 | grep -oE '[0-9]+' || true)
    if [ -z "$failed" ]; then # it ended without a word, or not at all: the seed after the last that passed
        failed=$(sed -nE 's/^PASSED .* seed ([0-9]+) .*/\1/p' "$2" | tail -n 1)
        failed=$((${failed:-$(($4 - 1))} + 1))
    fi
    local dir=$failures/$1-$failed
    mkdir -p "$dir"
    if [ "$1" = raft.Swarm ]; then
        replay="$build/tests/raft_suite --test Swarm --seed $failed"
    else
        replay="$build/tests/sim_suite --test $1 --seed $failed"
    fi
    echo "$replay" >"$dir/command"
    tail -n 200 "$2" >"$dir/output"
    echo "exit code $3" >>"$dir/output"
    (timeout 300 "$work/$(basename "${replay%% *}")" ${replay#* } --trace 2>&1 || true) | tail -n 50000 | gzip >"$dir/trace.gz"
    echo "FAILED $1 seed $failed: $dir" >>"$work/failed"
}

job() {
    local number=$1 turn=0
    local next=$((seed + number * 1000000000))
    local out=$work/out.$number json=$work/json.$number
    while [ ! -e "$work/stop" ] && [ "$(date +%s)" -lt "$until_s" ]; do
        local name=${tests[$((turn % ${#tests[@]}))]} code=0
        local count
        count=$(batch_seeds "$name")
        turn=$((turn + 1))
        rm -f "$json"
        if [ "$name" = raft.Swarm ]; then
            timeout -k 5 $batch_seconds "$work/raft_suite" --test Swarm --seed "$next" --seeds "$count" >"$out" 2>&1 &
        else
            timeout -k 5 $batch_seconds "$work/sim_suite" --test "$name" --seed "$next" --seeds "$count" --counters "$json" >"$out" 2>&1 &
        fi
        echo $! >"$work/pid.$number"
        wait $! || code=$?
        [ -e "$work/stop" ] && break
        if [ "$name" = raft.Swarm ] || [ -e "$json" ]; then
            digest "$name" "$out" "$json" >>"$work/sum.$number"
        fi
        [ $code = 0 ] || keep_failure "$name" "$out" "$code" "$next"
        next=$((next + count))
    done
}

# ---- all of them ----

summed() { # of all jobs; files of earlier sums may be given
    cat /dev/null "$work"/sum.* "$@" 2>/dev/null | awk '{ sum[$1] += $2 } END { for (name in sum) printf "%s %.0f\n", name, sum[name] }' | sort
}
failed_count() {
    if [ -e "$work/failed" ]; then wc -l <"$work/failed"; else echo 0; fi
}
one_line() {
    summed | awk -v failed="$(failed_count)" '
        { v[$1] = $2 }
        END {
            seeds = v["sim.seeds"] + v["raft.seeds"]; ms = v["sim.simulated_ms"] + v["raft.simulated_ms"]
            speed = 0
            if (v["sim.real_ms"] > 0) speed = v["sim.simulated_ms"] / v["sim.real_ms"]
            printf "%d seeds (%d of whole clusters), %.2f simulated hours, %d operations, %.0f simulated s per real s (whole clusters), %d failed\n",
                seeds, v["sim.seeds"], ms / 3600000, v["sim.operations"] + v["raft.operations"], speed, failed }'
}

began_s=$(date +%s)
until_s=$((began_s + seconds))
stopping=0
trap 'stopping=1' INT TERM
pids=()
for ((i = 0; i < jobs; i++)); do
    job "$i" &
    pids+=($!)
done
echo "== soak: ${#tests[@]} turns a round; $minutes minutes, $jobs jobs, seeds from $seed"
said_s=$began_s
while [ $stopping = 0 ] && [ "$(date +%s)" -lt "$until_s" ]; do
    sleep 1 || true
    now_s=$(date +%s)
    if [ $((now_s - said_s)) -ge 10 ]; then
        said_s=$now_s
        printf '%6d s  %s\n' $((now_s - began_s)) "$(one_line)"
    fi
done
if [ $stopping = 1 ]; then
    touch "$work/stop"
    for ((i = 0; i < jobs; i++)); do
        [ -e "$work/pid.$i" ] && kill "$(cat "$work/pid.$i")" 2>/dev/null || true
    done
fi
for pid in "${pids[@]}"; do
    while kill -0 "$pid" 2>/dev/null; do
        wait "$pid" || true
    done
done

# ---- what it came to ----

echo "== $((($(date +%s) - began_s) / 60)) minutes: $(one_line)"
earlier=$work/earlier
touch "$earlier"
[ -e "$results" ] && results_of "$results" >"$earlier"
printf 'soak.runs 1\nsoak.failed %s\nsoak.minutes %s\n' "$(failed_count)" $((($(date +%s) - began_s) / 60)) >"$work/sum.soak"
summed "$earlier" | awk 'BEGIN { print "{" } { printf "%s  \"%s\": %s", (NR > 1 ? ",\n" : ""), $1, $2 } END { print "\n}" }' >"$work/results"
mv "$work/results" "$results"
summed | awk '$1 ~ /[.]counter[.]/ { printf "  %14d  %s%s\n", $2, $1, ($2 == 0 ? "  <-- never" : "") }' | sed 's/[.]counter[.]/ /'
never=$(summed | awk '$1 ~ /[.]counter[.]/ && $2 == 0' | wc -l)
code=0
if [ -e "$work/failed" ]; then
    cat "$work/failed"
    code=1
fi
if [ "$never" -gt 0 ]; then
    echo "$never things never happened"
    code=1
fi
exit $code

#!/usr/bin/env bash
# Runs the faults on real processes for long: the tests in turn, each with a new seed, until the time is over.
#
#   tests/fault/run.sh --minutes N [--each SECONDS] [--build DIR] [J..]
#
#   --minutes N      how long in all; the round that is under way then is ended first
#   --each SECONDS   how long the faults of one test last before the next test has its turn (60)
#   --build DIR      a build with the tests and programs; without it build/release is made
#   J..              which tests (J1 J6 ...); without any, all that `fault_suite --list` names
#
# Where shards move (J6, J7, J8), there is a move every 5 to 15 s. Each test ends with everything healed, a last write, all keys
# read, the recorded history found linearizable and the replicas' states equal; see docs/TESTING.md, "Process faults".
#
# What fails is kept in build/fault-failures/<test>-<seed>/: what the test said (output.txt), the servers' logs and data, the
# history (history.jsonl, for bin/lincheck) and the command that runs the same faults again (again.txt). What a machine cannot do is
# skipped, counted and said why. The last lines are the summary. Exit code: 0 nothing failed, 1 something did, 2 bad command line,
# 77 everything was skipped.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"

usage() {
    sed -n '2,17s/^# \{0,1\}//p' "$0"
}
refuse() {
    echo "error: $1" >&2
    usage >&2
    exit 2
}
is_number() {
    [[ $1 =~ ^[1-9][0-9]*$ ]]
}

minutes=
each=60
build=
tests=()
while [ $# -gt 0 ]; do
    case $1 in
    --minutes | --each | --build)
        [ $# -ge 2 ] || refuse "$1 takes a value"
        case $1 in
        --minutes) minutes=$2 ;;
        --each) each=$2 ;;
        --build) build=$2 ;;
        esac
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    -*) refuse "unknown option $1" ;;
    *) tests+=("$1") ;;
    esac
    shift
done
[ -n "$minutes" ] || refuse "--minutes is missing"
is_number "$minutes" || refuse "--minutes takes a positive number"
is_number "$each" || refuse "--each takes a positive number of seconds"

if [ -z "$build" ]; then
    build=build/release
    mkdir -p build
    launcher=()
    if command -v ccache >/dev/null; then
        launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
    fi
    cmake -G Ninja -S . -B "$build" "${launcher[@]}" -DCMAKE_BUILD_TYPE=Release >build/release.configure.log 2>&1 || {
        cat build/release.configure.log >&2
        exit 1
    }
    ninja --quiet -C "$build"
fi
build=$(realpath -m "$build")
suite=$build/tests/fault_suite
[ -x "$suite" ] || refuse "there is no $suite"
mapfile -t all < <("$suite" --list | sort -V)
[ ${#tests[@]} -gt 0 ] || tests=("${all[@]}")
for test in "${tests[@]}"; do
    [[ " ${all[*]} " == *" $test "* ]] || refuse "no test '$test'; there are: ${all[*]}"
done

kept=$root/build/fault-failures
work=$kept/.work.$$
mkdir -p "$kept"
child=
clean_up() {
    if [ -n "$child" ]; then
        kill -KILL "$child" 2>/dev/null || true # its servers die with it
        wait "$child" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

declare -A total=() passed=() failed=() skipped=()
names=(rounds done reads unknown moves kills cuts pauses changes)
for name in "${names[@]}"; do
    total[$name]=0
done

# Adds the numbers of the line a test ends with: "4 rounds, 454 done (210 reads), ...".
add_numbers() {
    local name number
    for name in "${names[@]}"; do
        number=$(sed -nE "s/^[0-9]+ rounds, .*linearizable.*/, &/; s/.*[,(] ?([0-9]+) $name.*linearizable.*/\1/p" "$1" | tail -n 1)
        total[$name]=$((total[$name] + ${number:-0}))
    done
}

keep_failure() {
    local test=$1 seed=$2 code=$3 place=$kept/$1-$2
    rm -rf "$place"
    mv "$work" "$place"
    sed -i "s#$work#$place#g" "$place/output.txt"
    echo "SHARDKV_BIN_DIR=$build/bin FAULT_SEED=$seed FAULT_SECONDS=$each FAULT_MOVE_SECONDS=5-15 $suite $test" >"$place/again.txt"
    echo "   FAILED with code $code; kept in ${place#"$root"/}"
    tail -n 15 "$place/output.txt" | sed 's/^/   | /'
}

run_one() {
    local test=$1 seed code=0
    seed=$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')
    rm -rf "$work"
    mkdir -p "$work"
    echo "== $test seed $seed ($(($(date +%s) - started)) of $((minutes * 60)) s)"
    SHARDKV_BIN_DIR=$build/bin SHARDKV_SOURCE_DIR=$root TMPDIR=$work FAULT_SEED=$seed FAULT_SECONDS=$each \
        FAULT_MOVE_SECONDS=5-15 timeout --kill-after=5 $((each * 2 + 600)) "$suite" "$test" >"$work/output.txt" 2>&1 &
    child=$!
    wait "$child" || code=$?
    child=
    case $code in
    0)
        passed[$test]=$((${passed[$test]:-0} + 1))
        add_numbers "$work/output.txt"
        grep -E '^[0-9]+ rounds, ' "$work/output.txt" | tail -n 1 | sed 's/^/   /' || true
        ;;
    77)
        skipped[$test]=$(sed -n 's/^SKIPPED: //p' "$work/output.txt" | tail -n 1)
        echo "   skipped: ${skipped[$test]}"
        ;;
    *)
        failed[$test]=$((${failed[$test]:-0} + 1))
        keep_failure "$test" "$seed" "$code"
        ;;
    esac
}

started=$(date +%s)
over() {
    [ $(($(date +%s) - started)) -ge $((minutes * 60)) ]
}
while ! over; do
    ran=0
    for test in "${tests[@]}"; do
        if [ -z "${skipped[$test]+x}" ] && ! over; then # what was skipped once would be again
            run_one "$test"
            ran=1
        fi
    done
    [ $ran -eq 1 ] || break
done

echo "== summary after $(($(date +%s) - started)) s, commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
failures=0
successes=0
for test in "${tests[@]}"; do
    failures=$((failures + ${failed[$test]:-0}))
    successes=$((successes + ${passed[$test]:-0}))
    if [ -n "${skipped[$test]+x}" ]; then
        echo "$test: skipped: ${skipped[$test]}"
    else
        echo "$test: ${passed[$test]:-0} passed, ${failed[$test]:-0} failed"
    fi
done
echo "$((successes + failures)) runs with $failures failures, ${#skipped[@]} tests skipped; of those that passed:" \
    "${total[rounds]} rounds of faults, ${total[done]} operations (${total[reads]} reads, ${total[unknown]} of unknown outcome)," \
    "${total[moves]} moves, ${total[kills]} kills, ${total[cuts]} cuts, ${total[pauses]} pauses, ${total[changes]} membership changes"
if [ $failures -gt 0 ]; then
    exit 1
fi
[ $successes -gt 0 ] || exit 77

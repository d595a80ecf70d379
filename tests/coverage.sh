#!/usr/bin/env bash
# Which lines and branches of raft/ and shardkv/ the tests reach.
#
#   tests/coverage.sh             builds build/coverage, runs the tests, prints the table
#   tests/coverage.sh --write     and puts it into docs/TESTING.md, between the markers of 'Coverage'
#   tests/coverage.sh --table     only the table, of what ran before (with --write: and puts it there)
#   tests/coverage.sh --missing   of what ran before, the lines and branches that no test reached
#
# What counts: the unit tests, golden scripts, the simulators and the replayed fuzz inputs, all of which end by themselves. The
# servers of tests of whole clusters do not count: most are killed, and a killed process tells no coverage.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
build=${COVERAGE_BUILD:-build/coverage}
write=no
run=yes
missing=no
for word in "$@"; do
    case $word in
    --write) write=yes ;;
    --table) run=no ;;
    --missing) run=no missing=yes ;;
    -h | --help)
        sed -n '2,11s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "error: unknown option $word; --help tells all" >&2
        exit 2
        ;;
    esac
done

if [ $run = yes ]; then
    deploy/install-packages.sh build test coverage
    launcher=()
    if command -v ccache >/dev/null; then
        launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
    fi
    mkdir -p build
    # Assertions are always on; counters are atomic because many threads count.
    cmake -G Ninja -S . -B "$build" "${launcher[@]}" -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=None \
        -DCMAKE_C_FLAGS="--coverage -fprofile-update=atomic -O1 -g" >build/coverage.configure.log 2>&1 || {
        cat build/coverage.configure.log >&2
        exit 1
    }
    # Each test_<name> is a program of that name; the rest are the suites and the replayers.
    mapfile -t programs < <(ctest --test-dir "$build" -N | sed -n 's/.*: \(test_[a-z_0-9]*\)$/\1/p' |
        grep -vE '^test_(lin|bench|install)' | sort -u)
    for target in tests/fuzz/fuzz_*.c; do
        target=$(basename "$target" .c)
        programs+=("${target}_replay")
    done
    ninja --quiet -C "$build" "${programs[@]}" golden raft_suite sim_suite bin/shardkv bin/shardctrler bin/shardctl
    find "$build" -name '*.gcda' -delete
    ctest --test-dir "$build" -j 2 --timeout 1200 --output-on-failure \
        -R '^(cluster\.(CommandLine|Mistakes)$|test_|golden\.|raft\.|kvraft\.|rsm\.|shardkv\.|sim\.|fuzz\.)' \
        -E '^(test_(lin|bench|install)|raft\.Mutant|raft\.Planted|sim\.(Swarm500|Deterministic|Soak))'
fi

json=$(mktemp)
trap 'rm -f "$json"' EXIT
gcovr --root "$root" --filter 'raft/' --filter 'shardkv/' --exclude '.*/rooms/' --exclude-unreachable-branches --exclude-throw-branches \
    --gcov-ignore-parse-errors --json-summary-pretty --json-summary "$json" --print-summary \
    "$build" >/dev/null 2>&1 || {
    echo "error: gcovr could not read $build; was it run?" >&2
    exit 1
}
if [ $missing = yes ]; then
    gcovr --root "$root" --filter 'raft/' --filter 'shardkv/' --exclude '.*/rooms/' --gcov-ignore-parse-errors --txt - "$build" 2>/dev/null
    exit 0
fi
WRITE=$write python3 - "$json" docs/TESTING.md <<'PYTHON'
import json
import os
import sys

summary, page = sys.argv[1:]
with open(summary, encoding="utf-8") as file:
    # A header seen through a room's link is counted with its room's own files, or not at all.
    rows = [row for row in json.load(file)["files"] if "/rooms/" not in row["filename"]]
rooms = {}
for row in rows:
    name = row["filename"]
    room = os.path.dirname(name)
    rooms.setdefault(room, []).append(row)


def share(covered, total):
    return "-" if total == 0 else f"{100 * covered / total:.1f}"


def line(name, some):
    sums = [sum(row[key] for row in some)
            for key in ("line_covered", "line_total", "branch_covered", "branch_total")]
    return f"| {name} | {sums[1]} | {share(sums[0], sums[1])} | {sums[3]} | {share(sums[2], sums[3])} |"


table = ["| | lines | % reached | branches | % reached |", "|---|---:|---:|---:|---:|"]
for room in sorted(rooms):
    table.append(line(f"**{room}/**", rooms[room]))
    for row in sorted(rooms[room], key=lambda row: row["filename"]):
        table.append(line(f"`{os.path.basename(row['filename'])}`", [row]))
table.append(line("**all**", rows))
text = "\n".join(table)
print(text)
if os.environ["WRITE"] == "yes":
    begin, end = "<!-- coverage: written by tests/coverage.sh -->", "<!-- coverage end -->"
    with open(page, encoding="utf-8") as file:
        old = file.read()
    head, rest = old.split(begin)
    tail = rest.split(end)[1]
    with open(page, "w", encoding="utf-8") as file:
        file.write(f"{head}{begin}\n{text}\n{end}{tail}")
PYTHON

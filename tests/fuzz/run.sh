#!/usr/bin/env bash
# Fuzzes with libFuzzer (clang): builds build/fuzz, then runs one target after another.
#
#   tests/fuzz/run.sh [--seconds N] [TARGET ...]     N seconds a target (60); without targets, all of them
#
# Inputs that went a new way are kept in build/fuzz-corpus/<target>, so that the next run goes on where this one ended. An input that
# made a target fail is copied to build/fuzz-crashes/<target>/, and the command that repeats it is printed; the exit code is then 1.
# What such a failure taught is worth keeping: put the input into tests/fuzz/corpus/<target>/, and every run of the tests replays it.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0"
}

seconds=60
targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds)
        seconds=${2:-}
        [[ $seconds =~ ^[1-9][0-9]*$ ]] || {
            echo "error: --seconds takes a positive number" >&2
            exit 2
        }
        shift
        ;;
    -h | --help)
        usage
        exit 0
        ;;
    -*)
        echo "error: unknown option $1" >&2
        usage >&2
        exit 2
        ;;
    *) targets+=("$1") ;;
    esac
    shift
done
all=()
for file in tests/fuzz/fuzz_*.c; do
    name=$(basename "$file" .c)
    all+=("${name#fuzz_}")
done
[ ${#targets[@]} -gt 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
    [ -f "tests/fuzz/fuzz_$target.c" ] || {
        echo "error: no target '$target'; there are: ${all[*]}" >&2
        exit 2
    }
done

launcher=()
if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
fi
mkdir -p build
cmake -G Ninja -S . -B build/fuzz "${launcher[@]}" -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Release \
    -DSHARDKV_SANITIZE=address -DSHARDKV_FUZZ=ON >build/fuzz.configure.log 2>&1 || {
    cat build/fuzz.configure.log >&2
    exit 1
}
programs=()
for target in "${targets[@]}"; do
    programs+=("fuzz_$target" "fuzz_${target}_replay")
done
ninja --quiet -C build/fuzz "${programs[@]}"

failed=0
for target in "${targets[@]}"; do
    corpus=build/fuzz-corpus/$target
    found=build/fuzz-found/$target
    crashes=build/fuzz-crashes/$target
    mkdir -p "$corpus" "$found"
    "build/fuzz/tests/fuzz_${target}_replay" --write-seeds "$corpus"
    kept=()
    [ ! -d "tests/fuzz/corpus/$target" ] || kept=("tests/fuzz/corpus/$target")
    # Longer inputs than a target takes are no use, and the target says itself what it takes.
    max=$("build/fuzz/tests/fuzz_${target}_replay" --input-bytes-max)
    echo "== $target: $seconds s"
    log=build/fuzz-found/$target.log
    if "build/fuzz/tests/fuzz_$target" -max_total_time="$seconds" -max_len="$max" -rss_limit_mb=2048 -timeout=10 \
        -artifact_prefix="$found/" -print_final_stats=1 "$corpus" "${kept[@]}" >"$log" 2>&1; then
        grep -E 'DONE|stat::number_of_executed_units|stat::peak_rss_mb' "$log" || true
        continue
    fi
    failed=1
    mkdir -p "$crashes"
    tail -n 40 "$log"
    for input in "$found"/crash-* "$found"/leak-* "$found"/oom-* "$found"/timeout-*; do
        [ -f "$input" ] || continue
        mv "$input" "$crashes/"
        echo "to repeat: build/fuzz/tests/fuzz_${target}_replay $crashes/$(basename "$input")"
    done
done
exit $failed

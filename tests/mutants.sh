#!/usr/bin/env bash
# Plants faults, one at a time, and shows which test catches each. Fails when one survives.
#
#   tests/mutants.sh [options] [PATTERN]...     all of them, or those whose name matches a regular expression
#
#   --list        names and what each breaks
#   --check       only whether each still has its place in the sources, exactly once (a second)
#   --every       runs all tests that a fault names, not only until one fails
#   --verbose     shows what the test complained of
#   --jobs N      that many at once (default: one a processor)
#   --limit S     a test that runs S seconds (default 30) and 20 times as long as without the fault hangs: caught
#   --default     only those that are part of ctest's own run
#   --build DIR   a build directory (default build/mutants, made and brought up to date)
#   --no-build    takes what DIR has
#   --no-baseline does not run the tests without a fault first; for ctest, which does that itself
#
# tests/mutants/*.txt is the catalogue, tests/mutants/mutants.py says how it is written. The source tree is not touched.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=
make=1
for ((i = 1; i <= $#; i++)); do
    case "${!i}" in
    -h | --help)
        sed -n '2,20s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    --list | --check | --no-build) make=0 ;;
    --build) j=$((i + 1)) && build=${!j:-} ;;
    esac
done
if [ -z "$build" ]; then
    build=$root/build/mutants
    set -- --build "$build" "$@"
fi
if ((make)) && [ ! -f "$build/build.ninja" ]; then
    launcher=()
    if command -v ccache >/dev/null; then
        launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
    fi
    mkdir -p "$build"
    cmake -G Ninja -S "$root" -B "$build" "${launcher[@]}" -DCMAKE_BUILD_TYPE=Release >"$build/configure.log" 2>&1 || {
        cat "$build/configure.log" >&2
        exit 1
    }
fi
exec python3 "$root/tests/mutants/mutants.py" "$@"

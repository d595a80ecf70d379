#!/usr/bin/env bash
# Installs what is missing, builds and runs every test. The last lines are ctest's.
#
#   tests/run.sh              everything (about 10 minutes on 2 cores)
#   tests/run.sh -R REGEX     tests whose name matches (any ctest option may follow: -L, -E, --repeat ...)
#
# Three builds: build/asan (gcc, address and undefined behaviour sanitizers) runs the tests; build/tsan (clang, thread
# sanitizer) runs the threaded rooms' tests once more, as the test 'tsan'; build/release (gcc, optimised) gives the
# programs that the tests of whole clusters start.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
case "${1:-}" in -h | --help)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac

deploy/install-packages.sh build test

launcher=()
if command -v ccache >/dev/null; then
    launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
fi
configure() {
    local dir=$1
    shift
    cmake -G Ninja -S . -B "build/$dir" "${launcher[@]}" "$@" >"build/$dir.configure.log" 2>&1 || {
        cat "build/$dir.configure.log" >&2
        exit 1
    }
}
mkdir -p build
echo "== configure and build (release, asan, tsan)"
configure release -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER=gcc
configure tsan -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_COMPILER=clang -DSHARDKV_SANITIZE=thread
configure asan -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_COMPILER=gcc -DSHARDKV_SANITIZE=address \
    -DSHARDKV_RELEASE_DIR="$root/build/release" -DSHARDKV_TSAN_DIR="$root/build/tsan"
for dir in release asan tsan; do
    ninja --quiet -C "build/$dir"
done

echo "== test"
exec ctest --test-dir build/asan --output-on-failure --timeout 600 -j 2 "$@"

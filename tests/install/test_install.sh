#!/bin/sh
# Installs libshardkv into an empty folder and builds a small program against it: by pkg-config and by CMake, shared and static.
#   test_install.sh BUILD_DIR SOURCE_DIR C_COMPILER
set -eu
build=$1 source=$2 compiler=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "FAIL: $*"
    exit 1
}

cmake --install "$build" --component library --prefix "$work/root" >"$work/install.log" || fail "install"
pc=$(find "$work/root" -name shardkv.pc)
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
lib=$(pkg-config --variable=libdir shardkv)

for kind in shared static; do
    if [ $kind = shared ]; then
        libs=$(pkg-config --libs shardkv)
    else
        libs=$(pkg-config --static --libs shardkv | sed 's/-lshardkv/-l:libshardkv.a/')
    fi
    # shellcheck disable=SC2046,SC2086  # words are what is wanted
    "$compiler" -std=c17 -Wall -Werror $(pkg-config --cflags shardkv) "$source/consumer.c" -o "$work/$kind" $libs ||
        fail "compile by pkg-config, $kind"
    LD_LIBRARY_PATH=$lib timeout 30 "$work/$kind" || fail "run, $kind"
done
ldd "$work/static" | grep -q libshardkv && fail "the static program needs the shared library"

visible=$(nm -D --defined-only "$lib/libshardkv.so" | awk '$2 != "A" { print $3 }' | grep -v '^skv_' || true)
[ -z "$visible" ] || fail "the shared library shows: $visible"
visible=$(nm -g --defined-only "$lib/libshardkv.a" | awk 'NF == 3 { print $3 }' | grep -v '^skv_' || true)
[ -z "$visible" ] || fail "the archive shows: $visible"
grep -rn "$build" "$work/root" --include=*.pc --include=*.cmake && fail "an installed file names the build folder"

cmake -S "$source" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$work/root" -DCMAKE_C_COMPILER="$compiler" \
    >"$work/cmake.log" 2>&1 || { cat "$work/cmake.log"; fail "find_package"; }
cmake --build "$work/cmake" >"$work/cmake.log" 2>&1 || { cat "$work/cmake.log"; fail "build by CMake"; }
timeout 30 "$work/cmake/consumer-shared" || fail "run, CMake, shared"
timeout 30 "$work/cmake/consumer-static" || fail "run, CMake, static"
echo "installed, found, linked and run four ways"

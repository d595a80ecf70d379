#!/usr/bin/env bash
# Installs what building, running and testing shardkv needs, from Debian's packages (Debian 12). Does nothing, and needs
# no root, when all of it is there.
#
#   deploy/install-packages.sh [build|test|bench|coverage]...     default: build
#
#   build   compiler, CMake, gRPC C core, nanopb, RocksDB and the small libraries
#   test    also what the tests use: cmocka, clang with its sanitizers, Python's gRPC, iproute2, nftables
#   bench   also the peer the benchmark compares with
#   coverage  also what tests/coverage.sh reads its counters with
set -euo pipefail

build=(gcc libc6-dev cmake ninja-build pkg-config libgrpc-dev librocksdb-dev nanopb libnanopb-dev
    protobuf-compiler python3 python3-protobuf libjansson-dev libxxhash-dev)
test=(libcmocka-dev clang libclang-rt-14-dev python3-grpcio binutils iproute2 nftables git)
bench=(etcd-server etcd-client)
coverage=(gcovr)

sets=("$@")
[ ${#sets[@]} -gt 0 ] || sets=(build)
wanted=()
for set in "${sets[@]}"; do
    case "$set" in
    build) wanted+=("${build[@]}") ;;
    test) wanted+=("${test[@]}") ;;
    bench) wanted+=("${bench[@]}") ;;
    coverage) wanted+=("${coverage[@]}") ;;
    *)
        echo "install-packages.sh: unknown set '$set'; use build, test, bench or coverage" >&2
        exit 2
        ;;
    esac
done

missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install-packages.sh: these packages are missing and installing them needs root or sudo: ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "Installing ${#missing[@]} packages: ${missing[*]}"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y \
    --no-install-recommends "${missing[@]}" >/dev/null

#!/usr/bin/env bash
# The walls of the house, seen from the object files of a build directory:
#   nothing outside rpc/ refers to grpc_*, nothing outside shardkv's store to rocksdb_*, nothing outside proto/ to nanopb,
#   and raft/core to nothing of libc that does I/O, tells the time or makes threads.
#
#   check_symbols.sh BUILD_DIR
set -euo pipefail
build=$1
failed=0
complain() {
    echo "FAIL: $*"
    failed=1
}

# Undefined symbols of one object file, without versions.
undefined_of() {
    nm -u "$1" | awk '{print $2}' | sed 's/@.*//'
}

objects=$(find "$build" -path '*.dir/*' -name '*.c.o' ! -path "$build/tests/*" | sort)
[ -n "$objects" ] || { echo "FAIL: no object files below $build"; exit 1; }
count=0 rpc_seen=0 store_seen=0 core_seen=0
while read -r object; do
    count=$((count + 1))
    # <room>/CMakeFiles/<target>.dir/<file>.o: the folder before CMakeFiles is the room
    room=${object#"$build"/}
    room=${room%%/CMakeFiles/*}
    symbols=$(undefined_of "$object")
    if grep -qE '^(grpc_|gpr_)' <<<"$symbols"; then
        if [ "$room" = rpc ]; then rpc_seen=1; else complain "$room refers to gRPC in $object"; fi
    fi
    if grep -q '^rocksdb_' <<<"$symbols"; then
        case "$object" in
        */store_rocksdb*.c.o) store_seen=1 ;;
        *) complain "$room refers to RocksDB in $object" ;;
        esac
    fi
    if grep -qE '^pb_' <<<"$symbols" && [ "$room" != proto ]; then
        complain "$room refers to nanopb in $object"
    fi
    if [ "$room" = raft/core ]; then
        core_seen=1
        # What the pure machine may take from libc; sanitizers and the compiler add their own.
        bad=$(grep -vE '^(mem(cpy|move|set|cmp|chr)|str(len|cmp|ncmp|chr|nlen)|free|qsort|bsearch|_GLOBAL_OFFSET_TABLE_|__(stack_chk|asan|ubsan|tsan|sanitizer|mem(cpy|move|set)_chk).*|abort)$' <<<"$symbols" |
            grep -E '^(f?printf|v?s?n?printf|puts|putc|write|read|p(read|write)(64)?|open(at)?(64)?|close|fopen|fwrite|fread|fflush|fsync|fdatasync|ioctl|poll|select|send|recv|socket|sleep|usleep|nanosleep|time|clock(_gettime)?|gettimeofday|localtime|gmtime|rand(om)?|getrandom|getenv|pthread_.*|thrd_.*|mtx_.*|malloc|calloc|realloc|syscall|std(in|out|err)|errno|__errno_location|log_.*|clock_system|vfs_system|queue_.*|rng_seed_from_system)$' || true)
        [ -z "$bad" ] || complain "raft/core refers to $(tr '\n' ' ' <<<"$bad")in $object"
    fi
done <<<"$objects"

# A check that looked at nothing has not passed.
[ $rpc_seen = 1 ] || complain "no object of rpc/ refers to gRPC: was it built?"
[ $store_seen = 1 ] || complain "no object of the store refers to RocksDB: was it built?"
[ $core_seen = 1 ] || complain "no object of raft/core was found: was it built?"
echo "$count object files looked at"
exit $failed

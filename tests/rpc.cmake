# Tests of rpc/: servers and clients in one process, over the loopback.
foreach(file answers channel server stream turns timer tls unary)
    skv_test(NAME test_rpc_${file} SOURCES unit/test_rpc_${file}.c rpc/world.c lib/sanitizers.c USES rpc base
        LABELS unit rpc TIMEOUT 120)
endforeach()
# A peer on the bare core: the one test that speaks gRPC itself.
skv_test(NAME test_rpc_foreign SOURCES unit/test_rpc_foreign.c rpc/world.c lib/sanitizers.c USES rpc base
    LIBRARIES gRPC::grpc LABELS unit rpc TIMEOUT 120)
skv_test(NAME rpc_torture SOURCES rpc/torture.c rpc/torture_side.c rpc/world.c lib/sanitizers.c
    USES rpc base LABELS torture rpc
    ARGS --seconds 20 TIMEOUT 180)

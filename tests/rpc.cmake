# Tests of rpc/: servers and clients in one process, over the loopback.
foreach(file server stream timer tls unary)
    skv_test(NAME test_rpc_${file} SOURCES unit/test_rpc_${file}.c rpc/world.c USES rpc base
        LABELS unit rpc TIMEOUT 120)
endforeach()

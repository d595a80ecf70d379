# Tests of raft/core/: the core alone, driven by hand.
foreach(file create durability election flow log membership random read replication snapshot transfer types)
    skv_test(NAME test_raft_${file} SOURCES unit/test_raft_${file}.c unit/raft_pump.c USES raft/core
        LABELS unit raft TIMEOUT 60)
endforeach()

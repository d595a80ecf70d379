# Tests of raft/node.
skv_test(NAME test_session SOURCES unit/test_session.c USES raft/node base LABELS unit raft-node TIMEOUT 30)
skv_test(NAME test_message_codec SOURCES unit/test_message_codec.c USES raft/node proto base
    LABELS unit raft-node TIMEOUT 60)
skv_test(NAME test_node_files SOURCES unit/test_node_files.c USES raft/node base LIBRARIES test-fake-vfs
    LABELS unit raft-node TIMEOUT 60)

# Replicas over virtual time, fake disks and a fake network; the seed of the simulator of whole clusters.
add_library(test-node-harness STATIC node/harness.c node/harness_check.c node/harness_net.c node/kv_ask.c
    node/kv_machine.c raft/sim_clock.c)
target_include_directories(test-node-harness PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(test-node-harness PUBLIC raft-node base test-fake-vfs)

skv_test(NAME test_replica SOURCES unit/test_replica.c USES raft/node base LIBRARIES test-node-harness
    LABELS unit raft-node TIMEOUT 120)
skv_test(NAME test_replica_alone SOURCES unit/test_replica_alone.c USES raft/node raft/wal proto base
    LIBRARIES test-node-harness LABELS unit raft-node TIMEOUT 60)

# Real nodes: threads, rpc on loopback, directories.
foreach(test node node_members)
    skv_test(NAME test_${test} SOURCES unit/test_${test}.c unit/node_fixture.c lib/sanitizers.c
        USES raft/node rpc proto base LIBRARIES test-node-harness LABELS unit raft-node TIMEOUT 240)
endforeach()
skv_test(NAME test_node_threads SOURCES unit/test_node_threads.c lib/sanitizers.c USES raft/node raft/core raft/wal
    rpc base LIBRARIES test-node-harness LABELS unit raft-node TIMEOUT 120)
skv_test(NAME test_replica_snapshot SOURCES unit/test_replica_snapshot.c USES raft/node base
    LIBRARIES test-node-harness LABELS unit raft-node TIMEOUT 240)
skv_test(NAME test_replica_random SOURCES unit/test_replica_random.c USES raft/node base
    LIBRARIES test-node-harness LABELS unit raft-node TIMEOUT 240)
skv_test(NAME test_replica_recover SOURCES unit/test_replica_recover.c USES raft/node base
    LIBRARIES test-node-harness LABELS unit raft-node TIMEOUT 120)

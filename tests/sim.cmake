# The deterministic whole-cluster simulator (tests/sim/sim.h) and the course's KV and shard suites on it. What stands below the
# product is replaced here, at link time: rpc/ entirely (the suite defines its functions, so its library is not drawn in), the threads
# of raft/node and of the product, the clock and the system's randomness.
add_executable(sim_suite
    sim/sim_main.c sim/sometimes.c sim/sometimes_watch.c sim/sim_report.c sim/sim_events.c sim/sim_world.c sim/sim_threads.c sim/sim_net.c sim/sim_rpc.c sim/sim_rpc_stream.c
    sim/sim_node.c sim/sim_node_api.c sim/cluster.c sim/cluster_server.c sim/cluster_admin.c sim/oracle.c sim/applied.c sim/clerk.c sim/linear.c sim/kv_test.c
    sim/suite_kvraft.c sim/suite_kvraft_faults.c sim/suite_rsm.c sim/shard_test.c sim/suite_shardkv.c
    sim/suite_shardkv_changes.c sim/suite_moves.c sim/suite_replicas.c sim/suite_members.c sim/suite_rare.c sim/suite_swarm.c sim/storm_faults.c sim/storm_members.c lib/fake_store.c)
set_target_properties(sim_suite PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(sim_suite PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(sim_suite PRIVATE shardkv shardctrler client raft-node raft-wal raft-core proto base
    test-fake-vfs test-lin Threads::Threads)
foreach(function
        clock_system rng_seed_from_system pthread_create pthread_join pthread_setname_np pthread_cond_wait pthread_cond_timedwait
        pthread_cond_signal pthread_cond_broadcast sem_wait
        node_create node_add_methods node_start node_stop node_destroy node_propose node_read node_transfer
        store_failure_stop node_change_member node_hash node_status node_is_leader node_fill_status
        raft_core_read core__on_round core__on_snapshot session_check kv_machine_read kv__apply_block kv__apply_config
        kv__apply_chunk kv__apply_drop)
    target_link_options(sim_suite PRIVATE -Wl,--wrap=${function})
endforeach()

# One entry a test of the course, under the course's name.
set(sim_tests
    kvraft.TestBasic kvraft.TestSpeed kvraft.TestConcurrent kvraft.TestUnreliable kvraft.TestUnreliableOneKey
    kvraft.TestOnePartition kvraft.TestManyPartitionsOneClient kvraft.TestManyPartitionsManyClients
    kvraft.TestPersistOneClient kvraft.TestPersistConcurrent kvraft.TestPersistConcurrentUnreliable
    kvraft.TestPersistPartition kvraft.TestPersistPartitionUnreliable
    kvraft.TestPersistPartitionUnreliableLinearizable
    kvraft.TestSnapshotRPC kvraft.TestSnapshotSize kvraft.TestSnapshotRecover kvraft.TestSnapshotRecoverManyClients
    kvraft.TestSnapshotUnreliable kvraft.TestSnapshotUnreliableRecover
    kvraft.TestSnapshotUnreliableRecoverConcurrentPartition
    kvraft.TestSnapshotUnreliableRecoverConcurrentPartitionLinearizable
    rsm.TestLeaderFailure rsm.TestLeaderPartition rsm.TestRestartReplay rsm.TestShutdown rsm.TestRestartSubmit
    shardkv.StaticShards shardkv.Rejection shardkv.JoinLeave shardkv.Snapshot shardkv.MissChange shardkv.Concurrent1
    shardkv.Concurrent2 shardkv.Concurrent3 shardkv.Unreliable1 shardkv.Unreliable2 shardkv.Unreliable3
    shardkv.Challenge1Delete shardkv.Challenge2Unaffected shardkv.Challenge2Partial shardkv.ProgressShutdown
    shardkv.ProgressJoin shardkv.RecoverCtrler shardkv.ConcurrentReliable shardkv.PartitionController
    sim.LastGroupLeaves sim.RottenHeader sim.DamagedFrame sim.Swarm sim.SlowClockRead sim.ReadAcrossAMove sim.SourceRestarts sim.DestinationCrashes sim.DelayedDrop sim.OldDriver
    sim.LateSnapshot sim.WipedGroupRejoins sim.MoveFromAReplacedLeader sim.LeaseSkew sim.LeasePause sim.LeaseAndADelayedOrder sim.TransferToTheDead
    sim.NoReadsBeforeReplay sim.MembersDuringAPartition sim.WipedReplicaReturns sim.SessionExpires sim.SessionExpiresInFlight
    sim.GroupOutlivesItsFounders sim.SourceIsReplaced sim.LeaverIsReplaced sim.ChangeOfMembersIsUndone)
foreach(test ${sim_tests})
    add_test(NAME ${test} COMMAND sim_suite --test ${test})
    set_tests_properties(${test} PROPERTIES LABELS sim TIMEOUT 120)
endforeach()
set_tests_properties(sim.Swarm PROPERTIES TIMEOUT 600)

# Of the whole-cluster swarm, some seeds with sanitizers (above) and many without, from the release build.
add_test(NAME sim.Swarm500 COMMAND ${SHARDKV_RELEASE_DIR}/tests/sim_suite --test sim.Swarm --seed 1 --seeds 500 --require-often)
set_tests_properties(sim.Swarm500 PROPERTIES LABELS sim TIMEOUT 1200)
add_test(NAME sim.Deterministic COMMAND ${CMAKE_COMMAND} -DPROGRAM=$<TARGET_FILE:sim_suite> -DTEST=sim.Swarm "-DSEEDS=3;11"
    -DWORK_DIR=${CMAKE_BINARY_DIR}/sim-deterministic -P ${CMAKE_CURRENT_SOURCE_DIR}/sim/deterministic.cmake)
set_tests_properties(sim.Deterministic PROPERTIES LABELS sim TIMEOUT 300)
# That the soak works: a few seconds are too few for every rare thing to happen, so its exit code says nothing here.
add_test(NAME sim.Soak COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/soak.sh --minutes 0.2 --no-build --build ${SHARDKV_RELEASE_DIR}
    --seed 700000 --results ${CMAKE_BINARY_DIR}/sim-soak/results.json)
set_tests_properties(sim.Soak PROPERTIES LABELS sim TIMEOUT 300
    PASS_REGULAR_EXPRESSION "minutes: [1-9][0-9]* seeds .[1-9][0-9]* of whole clusters.*, 0 failed")

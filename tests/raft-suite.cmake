# The core's simulator: the course's Raft suite under its own names, a random swarm, and planted faults it must find.
add_library(raft_suite_objects OBJECT
    raft/main.c raft/sim_checker.c raft/sim_clock.c raft/sim_cluster.c raft/sim_counters.c raft/sim_disk.c
    raft/sim_net.c raft/sim_replica.c raft/sim_replica_check.c raft/sim_replica_io.c raft/sim_report.c raft/sim_sm.c
    raft/suite_agree.c raft/suite_churn.c raft/suite_election.c raft/suite_persist.c raft/suite_snapshot.c
    raft/swarm.c raft/swarm_draw.c)
target_include_directories(raft_suite_objects PRIVATE ${CMAKE_SOURCE_DIR}/tests)
target_link_libraries(raft_suite_objects PRIVATE base raft-core)
add_executable(raft_suite $<TARGET_OBJECTS:raft_suite_objects>)
set_target_properties(raft_suite PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(raft_suite PRIVATE base raft-core)
include(raft/mutants.cmake)

foreach(name InitialElection ReElection ManyElections BasicAgree RPCBytes FollowerFailure LeaderFailure FailAgree
             FailNoAgree ConcurrentStarts Rejoin Backup Count Persist1 Persist2 Persist3 Figure8 UnreliableAgree
             Figure8Unreliable ReliableChurn UnreliableChurn SnapshotBasic SnapshotInstall SnapshotInstallUnreliable
             SnapshotInstallCrash SnapshotInstallUnCrash SnapshotAllCrash SnapshotInit)
    add_test(NAME raft.Test${name} COMMAND raft_suite --test Test${name})
    set_tests_properties(raft.Test${name} PROPERTIES TIMEOUT 120 LABELS raft)
endforeach()
add_test(NAME raft.WholeSuite COMMAND raft_suite)  # at most 600 s of virtual time in all
add_test(NAME raft.Swarm COMMAND raft_suite --test Swarm)
add_test(NAME raft.Planted COMMAND raft_suite --test Planted)  # faults of the disk and the owner; the core's: mutants
set_tests_properties(raft.WholeSuite raft.Swarm raft.Planted PROPERTIES TIMEOUT 300 LABELS raft)

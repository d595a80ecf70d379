# Tests of whole clusters of real processes. They start the programs of SHARDKV_RELEASE_DIR on loopback.
function(skv_cluster_suite name)
    cmake_parse_arguments(S "" "TIMEOUT" "SOURCES;USES;TESTS" ${ARGN})
    add_executable(${name}_suite ${S_SOURCES} cluster/harness.c cluster/harness_net.c
        cluster/harness_status.c lib/suite.c)
    set_target_properties(${name}_suite PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    target_include_directories(${name}_suite PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
    target_link_libraries(${name}_suite PRIVATE ${S_USES} PkgConfig::JANSSON Threads::Threads)
    foreach(test ${S_TESTS})
        add_test(NAME ${name}.${test} COMMAND ${name}_suite ${test})
        set_tests_properties(${name}.${test} PROPERTIES LABELS cluster TIMEOUT ${S_TIMEOUT}
            ENVIRONMENT "SHARDKV_BIN_DIR=${SHARDKV_RELEASE_DIR}/bin;SHARDKV_SOURCE_DIR=${CMAKE_SOURCE_DIR}")
    endforeach()
endfunction()

skv_cluster_suite(ctrler SOURCES cluster/ctrler_suite.c USES client rpc proto base TIMEOUT 120
    TESTS LeaveJoin HistoricalQueries Move ConcurrentLeaveJoin MinimalTransfer MinimalTransferAfterLeave MinimalAgain
          MultiLeaveJoin MultiConcurrentLeaveJoin MultiMinimalTransfer AgreeConfig)

skv_cluster_suite(cluster SOURCES cluster/process_suite.c cluster/append_load.c USES client rpc proto base TIMEOUT 900
    TESTS MillionKeysSurviveKillOfAll JoinsAndLeavesWithKills IdleReplicaIsSmall GroupOutlivesItsFounders PythonClient)

# The command line on a cluster of real processes, as a person drives it.
add_test(NAME cluster.CommandLine COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cluster/cli_test.sh ${SHARDKV_RELEASE_DIR}/bin)
set_tests_properties(cluster.CommandLine PROPERTIES LABELS cluster TIMEOUT 180)

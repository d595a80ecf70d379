# The command line on a cluster of real processes, as a person drives it.
add_test(NAME cluster.CommandLine COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cluster/cli_test.sh ${SHARDKV_RELEASE_DIR}/bin)
set_tests_properties(cluster.CommandLine PROPERTIES LABELS cluster TIMEOUT 180)
add_test(NAME cluster.Mistakes COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/cluster/mistakes_test.sh ${SHARDKV_RELEASE_DIR}/bin)
set_tests_properties(cluster.Mistakes PROPERTIES LABELS cluster TIMEOUT 180)

# The benchmark: bin/shardkv-bench (tests/bench/run.sh compares with etcd) and its tests.
add_library(test-bench STATIC bench/etcd.c bench/histogram.c bench/keys.c bench/load.c bench/options.c
    bench/protocol_shardkv.c bench/report.c bench/report_svg.c bench/target_library.c bench/target_unary.c)
target_include_directories(test-bench PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(test-bench PUBLIC client proto rpc base m PRIVATE PkgConfig::JANSSON Threads::Threads)

add_executable(shardkv-bench bench/main.c)
set_target_properties(shardkv-bench PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
target_link_libraries(shardkv-bench PRIVATE test-bench)

foreach(part histogram keys options)
    skv_test(NAME test_bench_${part} SOURCES unit/test_bench_${part}.c USES base LIBRARIES test-bench LABELS unit bench)
endforeach()

add_executable(bench_suite bench/smoke_suite.c cluster/harness.c cluster/harness_net.c cluster/harness_status.c
    lib/suite.c)
set_target_properties(bench_suite PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(bench_suite PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(bench_suite PRIVATE client rpc proto base PkgConfig::JANSSON Threads::Threads)
add_dependencies(bench_suite shardkv-bench)
add_test(NAME bench.Smoke COMMAND bench_suite Smoke)
set_tests_properties(bench.Smoke PROPERTIES LABELS "bench;cluster" TIMEOUT 180
    ENVIRONMENT "SHARDKV_BIN_DIR=${SHARDKV_RELEASE_DIR}/bin;SHARDKV_BENCH=$<TARGET_FILE:shardkv-bench>")

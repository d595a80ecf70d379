# The benchmark: bin/shardkv-bench (tests/bench/run.sh compares with etcd) and its tests.
add_library(test-bench STATIC bench/etcd.c bench/histogram.c bench/keys.c bench/load.c bench/options.c
    bench/protocol_shardkv.c bench/report.c bench/report_svg.c bench/target_library.c bench/target_unary.c)
target_include_directories(test-bench PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(test-bench PUBLIC client proto rpc base m PRIVATE PkgConfig::JANSSON Threads::Threads)

add_executable(shardkv-bench bench/main.c)
set_target_properties(shardkv-bench PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
target_link_libraries(shardkv-bench PRIVATE test-bench)

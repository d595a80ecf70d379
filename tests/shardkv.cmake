# Tests of shardkv. The store in memory and the words for commands are shared with the simulator of whole clusters.
add_library(test-kv-harness STATIC lib/fake_store.c unit/kv_fixture.c)
target_include_directories(test-kv-harness PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(test-kv-harness PUBLIC shardkv base test-fake-vfs PkgConfig::CMOCKA)

foreach(unit kv_machine kv_mover kv_moves kv_parts kv_shards kv_snapshot server_main store write_buffer)
    skv_test(NAME test_${unit} SOURCES unit/test_${unit}.c USES shardkv LIBRARIES test-kv-harness
        LABELS unit shardkv TIMEOUT 120)
endforeach()
skv_test(NAME test_store_failure SOURCES unit/test_store_failure.c USES shardkv LIBRARIES RocksDB::rocksdb-shared
    LABELS unit shardkv TIMEOUT 60)
foreach(unit kv_service kv_service_batch)
    skv_test(NAME test_${unit} SOURCES unit/test_${unit}.c unit/kv_service_fixture.c USES shardkv
        LIBRARIES test-kv-harness LABELS unit shardkv TIMEOUT 120)
endforeach()

# The threaded rooms' tests once more, in the thread sanitizer's build.
if(SHARDKV_TSAN_DIR)
    # What runs in one thread has nothing to show here.
    add_test(NAME tsan COMMAND ${CMAKE_CTEST_COMMAND} --test-dir ${SHARDKV_TSAN_DIR} --output-on-failure -j 1
        -R "^(test_queue|test_log|test_bytes|test_node(_members|_threads)?|test_wal_threads|test_rpc_.*|rpc_torture|test_client.*|test_controller.*|test_service.*|test_write_buffer)$")
    set_tests_properties(tsan PROPERTIES LABELS tsan TIMEOUT 900)
endif()

# Tests of client/: the router alone, then libshardkv and the controller client against servers inside the process.
foreach(test router router_blocks router_outcomes)
    skv_test(NAME test_${test} SOURCES unit/test_${test}.c USES client proto base LABELS unit client TIMEOUT 60)
endforeach()
skv_test(NAME test_router_random SOURCES unit/test_router_random.c USES client proto base LABELS unit client TIMEOUT 120)
skv_test(NAME test_client_library SOURCES unit/test_client_library.c unit/fake_cluster.c USES client rpc proto base
    LABELS unit client TIMEOUT 180)
skv_test(NAME test_client_controller SOURCES unit/test_client_controller.c unit/fake_cluster.c USES client rpc proto base
    LABELS unit client TIMEOUT 120)
skv_test(NAME test_ctl_encoding SOURCES unit/test_ctl_encoding.c ${CMAKE_SOURCE_DIR}/client/ctl/encoding.c
    ${CMAKE_SOURCE_DIR}/client/ctl/jsonl.c USES client proto base LIBRARIES PkgConfig::JANSSON LABELS unit client TIMEOUT 30)
skv_test(NAME test_ctl SOURCES unit/test_ctl.c unit/fake_cluster.c USES client rpc proto base
    LIBRARIES PkgConfig::JANSSON LABELS unit client ARGS $<TARGET_FILE:shardctl-bin> TIMEOUT 240)
add_dependencies(test_ctl shardctl-bin)
if(NOT SHARDKV_SANITIZE)  # the consumer is not built with the sanitizer
    add_test(NAME test_install COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/install/test_install.sh ${CMAKE_BINARY_DIR}
        ${CMAKE_CURRENT_SOURCE_DIR}/install ${CMAKE_C_COMPILER})
    set_tests_properties(test_install PROPERTIES TIMEOUT 120 LABELS "client")
endif()

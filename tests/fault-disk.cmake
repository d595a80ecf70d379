# Disks and clocks that fail under real processes: the preloaded library, the test's side of it, and the test that kills a
# server at its storage calls. The tests of scenarios that use it are a theme of fault_suite (fault.cmake).
add_library(fault-shim SHARED fault/shim.c)
target_include_directories(fault-shim PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
set_target_properties(fault-shim PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
# It goes into servers of any build, so it brings no sanitizer; and it defines what fortified headers define inline.
target_compile_options(fault-shim PRIVATE -fno-sanitize=all -U_FORTIFY_SOURCE -fvisibility=default)
target_link_options(fault-shim PRIVATE -fno-sanitize=all)
target_link_libraries(fault-shim PRIVATE ${CMAKE_DL_LIBS})

add_library(test-shim STATIC fault/shim_use.c)
target_include_directories(test-shim PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_definitions(test-shim PRIVATE FAULT_SHIM_LIBRARY="$<TARGET_FILE:fault-shim>")
target_link_libraries(test-shim PRIVATE base PkgConfig::JANSSON)
add_dependencies(test-shim fault-shim)

skv_cluster_suite(crash_points SOURCES fault/crash_points.c fault/crash_points_work.c USES client rpc proto base
    TIMEOUT 300 TESTS "")
target_link_libraries(crash_points_suite PRIVATE test-shim)
add_test(NAME fault.CrashPoints COMMAND crash_points_suite CrashPoints)
set_tests_properties(fault.CrashPoints PROPERTIES LABELS cluster TIMEOUT 600 RESOURCE_LOCK fault
    ENVIRONMENT "SHARDKV_BIN_DIR=${SHARDKV_RELEASE_DIR}/bin;SHARDKV_SOURCE_DIR=${CMAKE_SOURCE_DIR}")

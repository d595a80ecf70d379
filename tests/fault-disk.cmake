# Disks and clocks that fail under real processes: the preloaded library, and the tests that kill a server at its storage
# calls. The tests of scenarios that use it are themes of fault_suite (fault.cmake).
add_library(fault-shim SHARED fault/shim.c)
target_include_directories(fault-shim PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
set_target_properties(fault-shim PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
# It goes into servers of any build, so it brings no sanitizer; and it defines what fortified headers define inline.
target_compile_options(fault-shim PRIVATE -fno-sanitize=all -U_FORTIFY_SOURCE -fvisibility=default)
target_link_options(fault-shim PRIVATE -fno-sanitize=all)
target_link_libraries(fault-shim PRIVATE ${CMAKE_DL_LIBS})

add_executable(crash_points_suite fault/crash_points.c fault/crash_points_work.c fault/shim_use.c
    cluster/harness.c cluster/harness_net.c cluster/harness_status.c lib/suite.c)
set_target_properties(crash_points_suite PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(crash_points_suite PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(crash_points_suite PRIVATE client rpc proto base PkgConfig::JANSSON Threads::Threads)
target_compile_definitions(crash_points_suite PRIVATE FAULT_SHIM_LIBRARY="$<TARGET_FILE:fault-shim>")
add_dependencies(crash_points_suite fault-shim)
add_test(NAME fault.CrashPoints COMMAND crash_points_suite CrashPoints)
set_tests_properties(fault.CrashPoints PROPERTIES LABELS cluster TIMEOUT 300 RESOURCE_LOCK fault
    ENVIRONMENT "SHARDKV_BIN_DIR=${SHARDKV_RELEASE_DIR}/bin;SHARDKV_SOURCE_DIR=${CMAKE_SOURCE_DIR}")

add_executable(fault_disk_suite fault/fault_disk.c fault/fault_disk_loss.c fault/fault_disk_damage.c
    fault/fault_disk_lag.c fault/fault_disk_clock.c fault/fault_disk_full.c fault/fault_members.c fault/fault_test.c fault/recorder.c fault/direct.c
    fault/shim_use.c cluster/harness.c cluster/harness_net.c cluster/harness_status.c lib/suite.c)
set_target_properties(fault_disk_suite PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(fault_disk_suite PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(fault_disk_suite PRIVATE client rpc proto base test-lin PkgConfig::JANSSON Threads::Threads)
target_compile_definitions(fault_disk_suite PRIVATE FAULT_SHIM_LIBRARY="$<TARGET_FILE:fault-shim>")
add_dependencies(fault_disk_suite fault-shim)
foreach(test J9 J9.Planted J10 J10.Running J11 J12 J12.Lease J12.Planted J14 J14.Errors J14.Stall)
    add_test(NAME fault.${test} COMMAND fault_disk_suite ${test})
    set_tests_properties(fault.${test} PROPERTIES LABELS cluster TIMEOUT 300 SKIP_RETURN_CODE 77 RESOURCE_LOCK fault
        ENVIRONMENT "SHARDKV_BIN_DIR=${SHARDKV_RELEASE_DIR}/bin;SHARDKV_SOURCE_DIR=${CMAKE_SOURCE_DIR}")
endforeach()

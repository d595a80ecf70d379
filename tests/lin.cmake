# The linearizability checker (docs/TESTING.md, "Histories and the checker"): a library for tests (test-lin), the program
# bin/lincheck, and their tests.
add_library(test-lin STATIC lin/check.c lin/history.c lin/history_build.c lin/history_json.c lin/map.c lin/memo.c
    lin/model.c lin/reading.c lin/report.c lin/report_svg.c lin/search.c lin/search_prepare.c lin/shrink.c)
target_include_directories(test-lin PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(test-lin PUBLIC base PRIVATE PkgConfig::JANSSON)
add_library(test-lin-generate STATIC lin/generate.c lin/mutate.c)
target_link_libraries(test-lin-generate PUBLIC test-lin)

add_executable(lincheck lin/main.c)
set_target_properties(lincheck PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
target_link_libraries(lincheck PRIVATE test-lin)
add_executable(lin_generate lin/generate_main.c)
set_target_properties(lin_generate PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
target_link_libraries(lin_generate PRIVATE test-lin-generate)

skv_test(NAME test_lin_random SOURCES unit/test_lin_random.c unit/lin_brute.c USES base LIBRARIES test-lin
    LABELS unit lin TIMEOUT 120)
skv_test(NAME test_lin_generated SOURCES unit/test_lin_generated.c USES base LIBRARIES test-lin-generate
    LABELS unit lin TIMEOUT 300)
skv_test(NAME test_lin_check SOURCES unit/test_lin_check.c USES base LIBRARIES test-lin LABELS unit lin TIMEOUT 60)
skv_test(NAME test_lin_history SOURCES unit/test_lin_history.c USES base LIBRARIES test-lin-generate
    LABELS unit lin TIMEOUT 60)
skv_test(NAME test_lin_report SOURCES unit/test_lin_report.c USES base LIBRARIES test-lin-generate PkgConfig::JANSSON
    LABELS unit lin TIMEOUT 60)

# The programs themselves, of the release build: what is promised of time and memory is promised of that one.
add_executable(lin_suite lin/suite.c lib/suite.c)
set_target_properties(lin_suite PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(lin_suite PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(lin_suite PRIVATE base)
foreach(test Bounds BoundsBroken Limits CommandLine)
    add_test(NAME lin.${test} COMMAND lin_suite ${test})
    set_tests_properties(lin.${test} PROPERTIES LABELS lin TIMEOUT 300
        ENVIRONMENT "SHARDKV_BIN_DIR=${SHARDKV_RELEASE_DIR}/bin")
endforeach()

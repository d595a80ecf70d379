# Golden scripts: each file of golden/scripts is a test of its name.
add_executable(golden golden/main.c golden/golden.c golden/words.c golden/tell.c golden/show.c unit/raft_pump.c)
set_target_properties(golden PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(golden PRIVATE ${CMAKE_SOURCE_DIR}/tests)
target_link_libraries(golden PRIVATE base raft-core PkgConfig::CMOCKA)
file(GLOB golden_scripts CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/golden/scripts/*.txt)
foreach(script ${golden_scripts})
    get_filename_component(name ${script} NAME_WE)
    add_test(NAME golden.${name} COMMAND golden ${script})
    set_tests_properties(golden.${name} PROPERTIES TIMEOUT 30 LABELS "raft;golden")
endforeach()
# And a script that says what is not so is refused, with the lines and the command that would rewrite it.
add_test(NAME golden.difference_is_shown COMMAND golden ${CMAKE_CURRENT_SOURCE_DIR}/golden/wrong.txt)
set_tests_properties(golden.difference_is_shown PROPERTIES TIMEOUT 30 LABELS "raft;golden"
    PASS_REGULAR_EXPRESSION "-    5 .*candidate term=7.*[+]    5 .*candidate term=1.*--rewrite")

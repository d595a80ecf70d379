# skv_room(NAME <path> SOURCES ... USES <rooms> [LIBRARIES ...])
#   One static library a room. <path> is the folder from the root ("raft/core"); its target is the same with
#   '-' for '/'. Files include each other as "room/file.h". The only include directory of a room is
#   build/rooms/<target>, which holds a link to that room alone, so a room sees nothing it did not name in USES.
# skv_binary(NAME <name> SOURCES ... USES ...)       an installed program
# skv_test(NAME <name> SOURCES ... USES ... [LABELS ...] [TIMEOUT s])   a cmocka program, one ctest entry; SHARDKV_TESTS in its
#   environment chooses some of its tests. UNLISTED: no entry of its own, as others run it

function(skv__room_target path out)
    string(REPLACE "/" "-" target ${path})
    set(${out} ${target} PARENT_SCOPE)
endfunction()

function(skv__room_view path)
    skv__room_target(${path} target)
    get_filename_component(parent ${path} DIRECTORY)
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/rooms/${target}/${parent})
    file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${path} ${CMAKE_BINARY_DIR}/rooms/${target}/${path} SYMBOLIC)
endfunction()

function(skv__uses target scope)
    foreach(room ${ARGN})
        skv__room_target(${room} dep)
        target_link_libraries(${target} ${scope} ${dep})
    endforeach()
endfunction()

function(skv_room)
    cmake_parse_arguments(R "" "NAME" "SOURCES;USES;LIBRARIES" ${ARGN})
    skv__room_target(${R_NAME} target)
    skv__room_view(${R_NAME})
    add_library(${target} STATIC ${R_SOURCES})
    target_include_directories(${target} PUBLIC ${CMAKE_BINARY_DIR}/rooms/${target})
    skv__uses(${target} PUBLIC ${R_USES})
    target_link_libraries(${target} PRIVATE ${R_LIBRARIES} Threads::Threads)
endfunction()

function(skv_binary)
    cmake_parse_arguments(B "" "NAME" "SOURCES;USES;LIBRARIES" ${ARGN})
    add_executable(${B_NAME}-bin ${B_SOURCES})
    set_target_properties(${B_NAME}-bin PROPERTIES OUTPUT_NAME ${B_NAME}
        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
    skv__uses(${B_NAME}-bin PRIVATE ${B_USES})
    target_link_libraries(${B_NAME}-bin PRIVATE ${B_LIBRARIES})
    install(TARGETS ${B_NAME}-bin RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

function(skv_test)
    cmake_parse_arguments(T "UNLISTED" "NAME;TIMEOUT" "SOURCES;USES;LIBRARIES;LABELS;ARGS" ${ARGN})
    add_executable(${T_NAME} ${T_SOURCES} ${CMAKE_SOURCE_DIR}/tests/lib/unit_select.c)
    set_target_properties(${T_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    skv__uses(${T_NAME} PRIVATE ${T_USES})
    target_link_libraries(${T_NAME} PRIVATE ${T_LIBRARIES} PkgConfig::CMOCKA)
    target_link_options(${T_NAME} PRIVATE -Wl,--wrap=_cmocka_run_group_tests)
    target_include_directories(${T_NAME} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    if(T_UNLISTED)
        return()
    endif()
    if(NOT T_TIMEOUT)
        set(T_TIMEOUT 60)
    endif()
    add_test(NAME ${T_NAME} COMMAND ${T_NAME} ${T_ARGS})
    # The thread sanitizer sees nothing of how gRPC and RocksDB synchronise inside, so it must not judge what they do; what
    # our own code does stays checked.
    set_tests_properties(${T_NAME} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${T_LABELS}"
        ENVIRONMENT "TSAN_OPTIONS=ignore_noninstrumented_modules=1")
endfunction()

# Fuzz targets (docs/TESTING.md, "Fuzzing"). Each is built as fuzz_<name>_replay, which every run of the tests feeds with the kept
# corpus, the target's seeds and a fixed number of mutations of both; and, with clang and SHARDKV_FUZZ=ON, as fuzz_<name>, the
# libFuzzer program (tests/fuzz/run.sh builds and runs those).
option(SHARDKV_FUZZ "build the libFuzzer programs; needs clang and SHARDKV_SANITIZE=address" OFF)
if(SHARDKV_FUZZ AND NOT (CMAKE_C_COMPILER_ID STREQUAL "Clang" AND SHARDKV_SANITIZE STREQUAL "address"))
    message(FATAL_ERROR "SHARDKV_FUZZ needs CMAKE_C_COMPILER=clang and SHARDKV_SANITIZE=address")
endif()
if(SHARDKV_FUZZ)
    # libFuzzer sees which way an input goes only through code compiled for it.
    foreach(room base raft-core raft-wal proto raft-node client shardctrler shardkv)
        target_compile_options(${room} PRIVATE -fsanitize=fuzzer-no-link)
    endforeach()
    cmake_language(DEFER CALL target_compile_options test-lin PRIVATE -fsanitize=fuzzer-no-link)  # defined later
endif()

# skv_fuzz(NAME <name> SOURCES <what it needs beyond tests/fuzz/fuzz_<name>.c> USES <rooms> LIBRARIES ... MUTATIONS <n>)
function(skv_fuzz)
    cmake_parse_arguments(F "" "NAME;MUTATIONS" "SOURCES;USES;LIBRARIES" ${ARGN})
    set(programs fuzz_${F_NAME}_replay)
    add_executable(fuzz_${F_NAME}_replay fuzz/fuzz_${F_NAME}.c fuzz/replay_main.c ${F_SOURCES})
    if(SHARDKV_FUZZ)
        list(APPEND programs fuzz_${F_NAME})
        add_executable(fuzz_${F_NAME} fuzz/fuzz_${F_NAME}.c fuzz/libfuzzer_main.c ${F_SOURCES})
        target_compile_options(fuzz_${F_NAME} PRIVATE -fsanitize=fuzzer-no-link)
        target_link_options(fuzz_${F_NAME} PRIVATE -fsanitize=fuzzer)
    endif()
    foreach(program ${programs})
        set_target_properties(${program} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
        target_include_directories(${program} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
        skv__uses(${program} PRIVATE ${F_USES} base)
        target_link_libraries(${program} PRIVATE ${F_LIBRARIES} Threads::Threads)
    endforeach()
    set(corpus ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/corpus/${F_NAME})
    if(NOT EXISTS ${corpus})
        set(corpus "")
    endif()
    add_test(NAME fuzz.${F_NAME} COMMAND fuzz_${F_NAME}_replay --mutations ${F_MUTATIONS} ${corpus})
    set_tests_properties(fuzz.${F_NAME} PROPERTIES LABELS fuzz TIMEOUT 120)
endfunction()

# How many mutations: a few seconds under gcc's address sanitizer.
skv_fuzz(NAME messages SOURCES unit/message_cases.c USES proto MUTATIONS 100000)
skv_fuzz(NAME blocks USES proto MUTATIONS 200000)
skv_fuzz(NAME core SOURCES fuzz/core_host.c USES raft/core MUTATIONS 4000)
skv_fuzz(NAME wal USES raft/core raft/wal LIBRARIES test-fake-vfs MUTATIONS 4000)
skv_fuzz(NAME peer USES raft/core raft/node MUTATIONS 200000)
skv_fuzz(NAME config USES shardctrler MUTATIONS 12000)
skv_fuzz(NAME words SOURCES ${CMAKE_SOURCE_DIR}/client/ctl/encoding.c ${CMAKE_SOURCE_DIR}/client/ctl/jsonl.c
    USES client proto LIBRARIES test-lin PkgConfig::JANSSON MUTATIONS 200000)
skv_fuzz(NAME kv SOURCES lib/fake_store.c USES shardkv proto LIBRARIES test-fake-vfs MUTATIONS 6000)
skv_fuzz(NAME snapshot USES raft/node raft/core LIBRARIES test-fake-vfs MUTATIONS 20000)
skv_fuzz(NAME replica USES raft/node raft/core proto LIBRARIES test-node-harness MUTATIONS 4000)
# The services over a host of their own: the linker puts it in the place of the node, of rpc and of the worker's thread.
set(service_wraps node_propose node_read node_hash node_is_leader node_status node_fill_status worker_add
    rpc_server_add_unary rpc_server_add_stream rpc_call_reply rpc_call_fail rpc_call_peer
    rpc_stream_send rpc_stream_finish rpc_stream_cancel rpc_stream_resume rpc_stream_ref rpc_stream_unref
    rpc_stream_set_user rpc_stream_user rpc_stream_peer)
list(TRANSFORM service_wraps PREPEND "-Wl,--wrap=")
skv_fuzz(NAME service SOURCES fuzz/service_host.c lib/fake_store.c
    USES shardkv shardctrler raft/node raft/core proto rpc LIBRARIES test-fake-vfs ${service_wraps} MUTATIONS 6000)
